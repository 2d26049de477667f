//! A guard that keeps a lease: it renews the lease in the background, watches it, and reports its loss.

use crate::backoff::{Backoff, jittered};
use crate::error::ClientError;
use crate::pb;
use crate::session::{self, Kept};
use crate::watch::{WatchStream, Watched};
use crate::{Client, OnRetry, UNTOLD, limited, span};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Status of a lease that a guard keeps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LeaseStatus {
    /// The lease waits, or its slot is made ready; its `trouble` has the last failure.
    Waiting(Arc<pb::Lease>),
    /// The holder may work.
    Active(Arc<pb::Lease>),
    /// The holder may work; the resource is in doubt, and `doubt` gives the reason.
    Doubt(Arc<pb::Lease>),
    /// The holder may work until the resource ends at this time.
    EndsAt(Arc<pb::Lease>, SystemTime),
    /// The holder must stop.
    Lost(Lost),
}

/// Why a lease is lost.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The lease ended, and this guard did not end it. Its state, causes and replacement explain the end.
    Ended(Arc<pb::Lease>),
    /// The broker no longer knows the lease. The last known state.
    Forgotten(Arc<pb::Lease>),
    /// No renewal succeeded for a whole TTL. The broker may have given the slot away.
    NoContact(Arc<pb::Lease>),
}

impl Lost {
    /// The last known state of the lease.
    pub fn lease(&self) -> &Arc<pb::Lease> {
        match self {
            Lost::Ended(lease) | Lost::Forgotten(lease) | Lost::NoContact(lease) => lease,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Ended(lease) => {
                write!(f, "lease {} is {}", lease.id, state_name(lease.state()))?;
                // The nearest cause and the root.
                match (lease.causes.first(), lease.causes.last()) {
                    (Some(near), Some(root)) if lease.causes.len() > 1 => {
                        write!(f, ": {} ({}), because of {}: {}", near.reason, near.detail, root.reason, root.detail)
                    }
                    (Some(only), _) => write!(f, ": {} ({})", only.reason, only.detail),
                    (None, _) if !lease.fail_detail.is_empty() => write!(f, ": {}", lease.fail_detail),
                    (None, _) => Ok(()),
                }
            }
            Lost::Forgotten(lease) => write!(f, "the broker no longer knows lease {}", lease.id),
            Lost::NoContact(lease) => {
                write!(f, "no contact with the broker for the whole TTL of lease {}: take it for lost", lease.id)
            }
        }
    }
}

fn state_name(state: pb::LeaseState) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("LEASE_STATE_").unwrap_or(name)
}

/// Keeps a lease: by a session where the server has them, and else by renewals at a third of its TTL and a watch.
///
/// Dropping the guard stops the renewals and **releases nothing**: a panic does not know the state in which the work left the
/// resource. The lease then ends by its TTL, and the broker checks the resource. Call [`LeaseGuard::release`] to end it
/// properly. A waiting lease stays in the queue when its guard is dropped; release it.
#[derive(Debug)]
pub struct LeaseGuard {
    client: Client,
    id: String,
    status: watch::Receiver<LeaseStatus>,
    keeper: AbortOnDropHandle<()>,
    /// The stream of the session. It stays until the lease is released, so that its end is no doubt.
    _session: AbortOnDropHandle<()>,
}

impl LeaseGuard {
    pub(crate) fn new(client: Client, lease: pb::Lease) -> Self {
        let id = lease.id.clone();
        let (session, kept) = session::keep(client.clone(), &lease, ttl(&lease));
        let (mut keeper, status) = Keeper::new(client.clone(), lease, Some(kept));
        // Ends with its handle, which is aborted when it is dropped.
        let task = tokio::spawn(async move { keeper.run().await });
        Self { client, id, status, keeper: AbortOnDropHandle::new(task), _session: session }
    }

    /// Id of the lease.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The last known state of the lease.
    pub fn lease(&self) -> Arc<pb::Lease> {
        match &*self.status.borrow() {
            LeaseStatus::Waiting(lease)
            | LeaseStatus::Active(lease)
            | LeaseStatus::Doubt(lease)
            | LeaseStatus::EndsAt(lease, _) => lease.clone(),
            LeaseStatus::Lost(lost) => lost.lease().clone(),
        }
    }

    /// The status, which changes with every change of the lease.
    pub fn status(&self) -> watch::Receiver<LeaseStatus> {
        self.status.clone()
    }

    /// Waits until the holder may work.
    ///
    /// # Errors
    /// [`Lost`] if it ends before.
    pub async fn active(&self) -> Result<Arc<pb::Lease>, Lost> {
        let settled = |status: &LeaseStatus| !matches!(status, LeaseStatus::Waiting(_));
        match self.wait_for(settled).await {
            LeaseStatus::Lost(lost) => Err(lost),
            LeaseStatus::Waiting(lease)
            | LeaseStatus::Active(lease)
            | LeaseStatus::Doubt(lease)
            | LeaseStatus::EndsAt(lease, _) => Ok(lease),
        }
    }

    /// Waits until the lease is lost. Never returns while it is held.
    pub async fn broken(&self) -> Lost {
        loop {
            if let LeaseStatus::Lost(lost) = self.wait_for(|status| matches!(status, LeaseStatus::Lost(_))).await {
                return lost;
            }
        }
    }

    /// Runs work until it ends or the lease is lost, whatever comes first. When the lease is lost the work is dropped at its next
    /// `await`, before this returns. A task that the work spawned continues, unless its handle aborts it when dropped
    /// (`tokio::task::JoinSet`, `tokio_util::task::AbortOnDropHandle`). Waits for nothing: call [`LeaseGuard::active`] first.
    ///
    /// # Errors
    /// [`Lost`], also if the lease was lost before.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Lost> {
        if let LeaseStatus::Lost(lost) = &*self.status.borrow() {
            return Err(lost.clone());
        }
        tokio::select! {
            // An end that is known comes before the news of a loss.
            biased;
            output = work => Ok(output),
            lost = self.broken() => Err(lost),
        }
    }

    /// Ends the lease and the others of its group. While the broker is unavailable the release is repeated, within the client's
    /// options.
    ///
    /// # Errors
    /// As [`Client::release`]; the lease then ends by its TTL.
    pub async fn release(self, outcome: pb::Outcome, note: &str) -> Result<pb::Lease, ClientError> {
        self.release_and_hold(outcome, note, None).await
    }

    /// Ends the lease in the same way. With `hold` the resource is kept as the work left it for this time.
    ///
    /// # Errors
    /// As [`Client::release_with`]; the lease then ends by its TTL.
    pub async fn release_and_hold(
        self,
        outcome: pb::Outcome,
        note: &str,
        hold: Option<Duration>,
    ) -> Result<pb::Lease, ClientError> {
        self.keeper.abort();
        let request = pb::ReleaseRequest {
            lease_id: self.id.clone(),
            outcome: outcome.into(),
            note: note.into(),
            hold: hold.and_then(span),
        };
        Ok(self.client.release_with(request).await?.lease.unwrap_or_default())
    }

    /// Reports failures during the work: see [`Client::report`].
    ///
    /// # Errors
    /// As [`Client::report`].
    pub async fn report(&self, note: &str) -> Result<pb::Lease, ClientError> {
        self.client.report(&self.id, note).await
    }

    /// The holder cannot reach the resource from here: see [`Client::report_unreached`].
    ///
    /// # Errors
    /// As [`Client::report`].
    pub async fn report_unreached(&self, note: &str) -> Result<pb::Lease, ClientError> {
        self.client.report_unreached(&self.id, note).await
    }

    async fn wait_for(&self, wanted: impl FnMut(&LeaseStatus) -> bool) -> LeaseStatus {
        let mut status = self.status.clone();
        let found = status.wait_for(wanted).await.map(|status| status.clone());
        // An error: the keeper ended without a last status, and the lease is no longer renewed.
        found.unwrap_or_else(|_| LeaseStatus::Lost(Lost::NoContact(self.lease())))
    }
}

/// The answer to a renewal, and the time at which it was sent. `None`: the lease was read, not renewed.
type Renewed = (Option<Instant>, Result<pb::Lease, Unrenewed>);
/// The failure of a renewal.
#[derive(Debug)]
enum Unrenewed {
    /// The call failed.
    Call(ClientError),
    /// The broker takes this client for another principal, which does not see the lease.
    Stranger(String),
}

type Renewal = Pin<Box<dyn Future<Output = Renewed> + Send>>;

struct Keeper {
    client: Client,
    lease: Arc<pb::Lease>,
    status: watch::Sender<LeaseStatus>,
    /// News of the session that keeps the lease. `None`: renewals keep it.
    session: Option<mpsc::Receiver<Kept>>,
    watch: Option<WatchStream>,
    renewal: Option<Renewal>,
    renew_at: Option<Instant>,
    /// Time until which the slot is the holder's, whatever happens to the connection.
    held_until: Option<Instant>,
    backoff: Backoff,
    /// The credentials are those of another principal.
    stranger: bool,
    /// Since when renewals fail, and whether that was reported.
    failing: Option<(Instant, bool)>,
}

impl Keeper {
    fn new(
        client: Client,
        lease: pb::Lease,
        session: Option<mpsc::Receiver<Kept>>,
    ) -> (Self, watch::Receiver<LeaseStatus>) {
        let lease = Arc::new(lease);
        let (status, told) = watch::channel(LeaseStatus::Waiting(lease.clone()));
        let watch = session.is_none().then(|| client.watch(watched_by_id(&lease.id)));
        // Short against the TTL: several tries fit into the rest of it.
        let backoff = Backoff::new(Duration::from_millis(100), (ttl(&lease) / 10).max(Duration::from_millis(200)));
        let mut keeper = Self {
            client,
            lease,
            status,
            session,
            watch,
            renewal: None,
            renew_at: None,
            held_until: None,
            backoff,
            stranger: false,
            failing: None,
        };
        if let Some(lost) = keeper.told() {
            keeper.status.send_replace(LeaseStatus::Lost(lost));
            keeper.watch = None;
            keeper.session = None;
        }
        (keeper, told)
    }

    async fn run(&mut self) {
        while !matches!(*self.status.borrow(), LeaseStatus::Lost(_)) {
            let lost = tokio::select! {
                biased;
                kept = kept(&mut self.session) => self.kept(kept),
                watched = next(&mut self.watch) => self.watched(watched),
                (sent, answer) = optional(&mut self.renewal) => {
                    self.renewal = None;
                    self.renewed(sent, answer)
                }
                () = at(self.renew_at), if self.renewal.is_none() => {
                    self.renewal = Some(renew(self.client.clone(), &self.lease));
                    None
                }
                () = at(self.held_until) => Some(Lost::NoContact(self.lease.clone())),
            };
            if let Some(lost) = lost {
                self.status.send_replace(LeaseStatus::Lost(lost));
            }
        }
    }

    fn kept(&mut self, kept: Option<Kept>) -> Option<Lost> {
        match kept {
            Some(Kept::Lease(lease)) => self.news(*lease),
            Some(Kept::Heard(sent)) => {
                // From the time of sending: the broker counts from the arrival, which is later.
                if self.lease.may_work() {
                    self.held_until = Some(sent + ttl(&self.lease));
                }
                None
            }
            Some(Kept::Unusable) | None => {
                self.session = None;
                self.watch = Some(self.client.watch(watched_by_id(&self.lease.id)));
                if self.lease.may_work() {
                    self.renew_at = Some(Instant::now() + first_renewal(&self.lease));
                }
                None
            }
        }
    }

    fn watched(&mut self, watched: Result<Watched, ClientError>) -> Option<Lost> {
        match watched {
            Ok(Watched::Lease(lease)) => self.news(*lease),
            Ok(Watched::Synced { .. } | Watched::Bookmark { .. } | Watched::Resync) => None,
            Err(ClientError::NotFound(_)) => {
                // The lease is forgotten, or these are the credentials of another caller: a renewal tells.
                self.watch = None;
                self.renew_at = Some(Instant::now());
                None
            }
            Err(error) => {
                // Renewals still report the end, only later.
                tracing::warn!(lease = %self.lease.id, %error, "a lease cannot be watched");
                self.watch = None;
                // Without a watch only a renewal reports that the lease became active.
                self.renew_at.get_or_insert_with(Instant::now);
                None
            }
        }
    }

    fn renewed(&mut self, sent: Option<Instant>, answer: Result<pb::Lease, Unrenewed>) -> Option<Lost> {
        match answer {
            Ok(lease) => {
                self.backoff.reset();
                if let Some(sent) = sent.filter(|_| lease.may_work()) {
                    // From the time of sending: the broker counts from the arrival, which is later.
                    self.held_until = Some(sent + ttl(&lease));
                }
                self.renew_at = Some(Instant::now() + third(ttl(&lease)));
                (self.stranger, self.failing) = (false, None);
                if self.watch.is_none() {
                    self.watch = Some(self.client.watch(watched_by_id(&lease.id)));
                }
                self.news(lease)
            }
            Err(Unrenewed::Call(ClientError::NotFound(_))) => Some(Lost::Forgotten(self.lease.clone())),
            Err(Unrenewed::Stranger(principal)) => {
                if !std::mem::replace(&mut self.stranger, true) {
                    tracing::warn!(
                        lease = %self.lease.id,
                        "the credentials are those of {principal}, and the lease belongs to {}: it cannot be renewed until \
                         the credentials are right again",
                        self.lease.principal
                    );
                }
                self.renew_at = Some(Instant::now() + self.backoff.wait(None));
                None
            }
            Err(Unrenewed::Call(error)) => {
                tracing::debug!(lease = %self.lease.id, %error, "a renewal failed");
                self.complain(&error);
                self.renew_at = Some(Instant::now() + self.backoff.wait(None));
                None
            }
        }
    }

    /// Reports once that renewals fail: after a while, or at once if another try does not mend it.
    fn complain(&mut self, error: &ClientError) {
        let now = Instant::now();
        let (since, told) = self.failing.get_or_insert((now, false));
        let lasting = matches!(error, ClientError::Certificate(_)) || now - *since >= UNTOLD;
        if let (Some(OnRetry(tell)), true, false) = (&self.client.options.on_retry, lasting, *told) {
            *told = true;
            tell(error, self.held_until.map_or(Duration::ZERO, |until| until - now));
        }
    }

    /// Takes a state of the lease. Renewals and the watch may cross, so that it may be older than the known one.
    fn news(&mut self, lease: pb::Lease) -> Option<Lost> {
        if lease.revision < self.lease.revision {
            return None;
        }
        self.lease = Arc::new(lease);
        self.told()
    }

    fn told(&mut self) -> Option<Lost> {
        let lease = self.lease.clone();
        // The times decide, not the state: a later version may have states that are unknown here.
        let status = if lease.is_over() {
            return Some(Lost::Ended(lease));
        } else if lease.may_work() {
            self.held_until.get_or_insert_with(|| Instant::now() + ttl(&lease));
            if self.session.is_none() {
                self.renew_at.get_or_insert_with(|| Instant::now() + first_renewal(&lease));
            }
            match lease.ends_at.and_then(|at| SystemTime::try_from(at).ok()) {
                Some(at) => LeaseStatus::EndsAt(lease, at),
                None if lease.doubt.is_some() => LeaseStatus::Doubt(lease),
                None => LeaseStatus::Active(lease),
            }
        } else {
            LeaseStatus::Waiting(lease)
        };
        self.status.send_replace(status);
        None
    }
}

fn watched_by_id(id: &str) -> pb::WatchRequest {
    pb::WatchRequest { lease_ids: vec![id.to_owned()], ..pb::WatchRequest::default() }
}

/// One try. A lease that cannot be renewed is read instead.
fn renew(client: Client, lease: &pb::Lease) -> Renewal {
    let (id, timeout) = (lease.id.clone(), third(ttl(lease)).max(Duration::from_millis(500)));
    let principal = lease.principal.clone();
    Box::pin(async move {
        let sent = Instant::now();
        let request = pb::RenewRequest { lease_id: id.clone(), ..pb::RenewRequest::default() };
        let mut calls = client.lease.clone();
        match calls.renew(limited(request, timeout)).await.map_err(ClientError::from) {
            Ok(answer) => {
                let lease = answer.into_inner().lease.unwrap_or_default();
                client.seen.lease(Some(&lease));
                (Some(sent), Ok(lease))
            }
            // A server that follows may be a moment behind: the read is not older than any answer before.
            Err(ClientError::State(_)) => {
                let request = pb::GetRequest { lease_id: id, min_revision: client.seen.latest() };
                let answer = calls.get(limited(request, timeout)).await;
                match answer.map_err(ClientError::from) {
                    Ok(answer) => (None, Ok(answer.into_inner().lease.unwrap_or_default())),
                    Err(error) => (None, Err(unrenewed(&client, error, &principal, timeout).await)),
                }
            }
            Err(error) => (None, Err(unrenewed(&client, error, &principal, timeout).await)),
        }
    })
}

/// Whether a lease that is not found is forgotten, or another caller's: the broker answers both in the same way. A broker that
/// cannot say who calls has forgotten the lease.
async fn unrenewed(client: &Client, error: ClientError, principal: &str, timeout: Duration) -> Unrenewed {
    if !matches!(error, ClientError::NotFound(_)) || principal.is_empty() {
        return Unrenewed::Call(error);
    }
    match client.trust().who_am_i(limited(pb::WhoAmIRequest {}, timeout)).await {
        Ok(who) if who.get_ref().principal != principal => Unrenewed::Stranger(who.into_inner().principal),
        Err(status) if status.code() == tonic::Code::Unauthenticated => Unrenewed::Call(status.into()),
        Err(status) if status.code() != tonic::Code::Unimplemented => Unrenewed::Call(ClientError::Unavailable(status)),
        Ok(_) | Err(_) => Unrenewed::Call(error),
    }
}

fn ttl(lease: &pb::Lease) -> Duration {
    let ttl = lease.ttl.and_then(|ttl| Duration::try_from(ttl).ok());
    ttl.filter(|ttl| !ttl.is_zero()).unwrap_or(Duration::from_secs(60))
}

fn third(ttl: Duration) -> Duration {
    jittered(ttl / 3, 0.8)
}

/// Time until the first renewal. A lease that became active long ago has less than a TTL left, and is renewed at once. The
/// same holds if the clocks of the two machines differ, since the rest of the TTL is then unknown.
fn first_renewal(lease: &pb::Lease) -> Duration {
    let ttl = ttl(lease);
    let expires_at = lease.expires_at.and_then(|at| SystemTime::try_from(at).ok());
    let left = expires_at.and_then(|at| at.duration_since(crate::clock::wall()).ok()).unwrap_or_default();
    if left >= ttl.mul_f64(0.9) && left <= ttl.mul_f64(1.1) { third(ttl) } else { Duration::ZERO }
}

/// The next news of the session; `None`: its task has ended.
async fn kept(session: &mut Option<mpsc::Receiver<Kept>>) -> Option<Kept> {
    match session {
        Some(session) => session.recv().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn next(watch: &mut Option<WatchStream>) -> Result<Watched, ClientError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn optional(renewal: &mut Option<Renewal>) -> Renewed {
    match renewal {
        Some(renewal) => renewal.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
