//! State that all services share.

use crate::auth::Trust;
use crate::engine::{Handle, Leadership, Role, SubmitError, WatchHub};
use crate::pb;
use crate::rpc::configuration::ConfigurationStatus;
use crate::rpc::credentials::CredentialSources;
use crate::rpc::limits::{Gate, RpcLimits};
use crate::rpc::quota::Quotas;
use crate::rpc::source::REACH;
use crate::rpc::status::RpcError;
use crate::store::{EventQuery, SeenServer, StoredEvent};
use crate::telemetry::metrics::Calls;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::{Response, Status};
use wharfinger_core::{
    Caller, Core, EventKind, Input, Lease, LeaseId, Millis, Reading, Reply, Revision, Scope, Selector, Timestamp, View,
};

/// Returns the counts of the machines that adapters buy; called for each answer.
pub type WeatherSource = Arc<dyn Fn() -> Vec<pb::WeatherLine> + Send + Sync>;

/// Sources of answers beside the core's state.
#[derive(Clone)]
pub struct AnswerSources {
    /// Counts of the machines that adapters buy.
    pub weather: WeatherSource,
    /// The credentials of each pool's leases.
    pub credentials: CredentialSources,
    /// The callers that the server knows.
    pub trust: Trust,
    /// Counts the calls. `None`: they are not counted.
    pub calls: Option<Calls>,
    /// The limits of tenants that the port keeps.
    pub quotas: Quotas,
    /// The configuration that the server uses.
    pub configuration: ConfigurationStatus,
}

/// No machine is bought, no pool has credentials, and everyone who reaches the port is trusted.
impl Default for AnswerSources {
    fn default() -> Self {
        Self {
            weather: Arc::new(Vec::new),
            credentials: CredentialSources::default(),
            trust: Trust::everyone(),
            calls: None,
            quotas: Quotas::default(),
            configuration: ConfigurationStatus::default(),
        }
    }
}

/// Metadata of an answer of a server that follows: its maximum age in milliseconds.
const AGE: &str = "wharfinger-age-ms";

/// State that all services share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    /// Private: what is read for a caller is read in its scope.
    handle: Handle,
    pub(crate) trust: Trust,
    pub(crate) calls: Gate,
    pub(crate) waits: Gate,
    pub(crate) watches: Gate,
    pub(crate) call_timeout: Duration,
    pub(crate) sources: AnswerSources,
    pub(crate) limits: Arc<RpcLimits>,
    /// Ends watches and waiting calls.
    pub(crate) stop: CancellationToken,
    /// Tasks of watches.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    pub(crate) fn new(handle: Handle, limits: &RpcLimits, sources: AnswerSources, stop: CancellationToken) -> Self {
        Self {
            handle,
            trust: sources.trust.clone(),
            calls: Gate::new(limits.max_calls),
            waits: Gate::new(limits.max_waits),
            watches: Gate::new(limits.max_watches),
            call_timeout: limits.call_timeout,
            sources,
            limits: Arc::new(limits.clone()),
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Counts a request for leases against the rate of its tenant, where this server leads.
    pub(crate) fn count_request(&self, caller: &Caller) -> Result<(), RpcError> {
        match self.handle.leadership().role() {
            Role::Leading => self.sources.quotas.take(&caller.tenant, Instant::now()),
            Role::Following => Ok(()),
        }
    }

    /// The longest TTL that leases by these selectors have if their request has none. A server that has not led yet decides nothing.
    pub(crate) fn usual_ttl<'s>(
        &self,
        selectors: impl Iterator<Item = &'s Selector>,
    ) -> Result<Option<Millis>, SubmitError> {
        self.handle.usual_ttls().longest(selectors).ok_or(SubmitError::NotLeader(None))
    }

    /// Submits an input and waits until its changes are durable.
    pub(crate) async fn submit(&self, input: Input) -> Result<Reply, SubmitError> {
        self.handle.submit(input).await
    }

    /// The message of a lease for this caller, with credentials if the lease belongs to it.
    pub(crate) async fn tell(&self, lease: &Lease, caller: &Caller) -> Result<pb::Lease, SubmitError> {
        self.sources.credentials.tell(self, lease, caller).await
    }

    /// Reads the state within a scope.
    pub(crate) async fn read<T, F>(&self, scope: &Scope, question: F) -> Result<T, SubmitError>
    where
        T: Send + 'static,
        F: FnOnce(View<'_>, Timestamp) -> T + Send + 'static,
    {
        let scope = scope.clone();
        self.handle.read(move |core: &Core, now| question(core.view(&scope), now)).await
    }

    /// Reads the state within a scope. A server that follows reads the store again before.
    pub(crate) async fn read_now<T, F>(&self, scope: &Scope, question: F) -> Result<T, SubmitError>
    where
        T: Send + 'static,
        F: FnOnce(View<'_>, Timestamp) -> T + Send + 'static,
    {
        self.handle.refresh().await?;
        self.read(scope, question).await
    }

    /// Finds one lease or resource of a scope. A server that follows reads the store again before it answers that there is none:
    /// another server may have made it just now. It does the same for one out of scope.
    pub(crate) async fn find<T, F>(&self, scope: &Scope, question: F) -> Result<Option<T>, RpcError>
    where
        T: Send + 'static,
        F: Fn(View<'_>, Timestamp) -> Option<T> + Clone + Send + 'static,
    {
        let found = self.read(scope, question.clone()).await?;
        if found.is_some() || self.handle.leadership().role() == Role::Leading {
            return Ok(found);
        }
        self.handle.refresh().await?;
        Ok(self.read(scope, question).await?)
    }

    /// Reads entries of the audit trail for a reader of this scope. Of what is out of view, time, kind, pool and resource are left:
    /// the words of an entry may name leases, works and notes of any tenant.
    pub(crate) async fn events(&self, scope: &Scope, query: &EventQuery) -> Result<Vec<StoredEvent>, RpcError> {
        let mut events = self.handle.events(query).await?;
        if scope.is_all() {
            return Ok(events);
        }
        let ids: BTreeSet<LeaseId> = events.iter().filter_map(|event| event.lease).collect();
        let seen = self.read(scope, |view, _| {
            ids.into_iter().filter(|id| view.lease(*id).is_some()).collect::<BTreeSet<LeaseId>>()
        });
        let seen = seen.await?;
        for event in events.iter_mut().filter(|event| !scope.tells_of(event.pool.as_deref())) {
            // Operators alone see how and from where others call.
            event.caller = None;
            conceal(event, &seen);
        }
        Ok(events)
    }

    /// As [`Handle::servers`].
    pub(crate) async fn servers(&self) -> Result<Vec<SeenServer>, RpcError> {
        Ok(self.handle.servers().await?)
    }

    /// The changes that are committed from now on.
    pub(crate) fn hub(&self) -> &WatchHub {
        self.handle.hub()
    }

    /// The leadership of this server.
    pub(crate) fn leadership(&self) -> &Leadership {
        self.handle.leadership()
    }

    /// Warnings about the clock of this server.
    pub(crate) fn clock_warnings(&self) -> Vec<String> {
        self.handle.clock_warnings()
    }

    /// As [`Handle::refresh`].
    pub(crate) async fn refresh(&self) -> Result<(), SubmitError> {
        self.handle.refresh().await
    }

    /// As [`Handle::reach`], at most for [`REACH`].
    pub(crate) async fn reach(&self, wanted: Revision) -> Result<(), SubmitError> {
        self.handle.reach(wanted, REACH).await
    }

    /// The core's time and its distance from the wall clock, for the times of one answer.
    pub(crate) fn reading(&self) -> Reading {
        self.handle.clock().read()
    }

    /// Answers a call that does not wait.
    pub(crate) async fn answer<T>(
        &self,
        work: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<Response<T>, Status> {
        let leadership = self.handle.leadership();
        let (before, begun) = (leadership.age(), Instant::now());
        let mut response = Response::new(self.within(work).await?);
        if leadership.role() == Role::Following
            && let Some(age) = before
        {
            let age = (age + begun.elapsed()).as_millis();
            response.metadata_mut().insert(AGE, MetadataValue::from(u64::try_from(age).unwrap_or(u64::MAX)));
        }
        Ok(response)
    }

    /// Reads once this server has reached the revision.
    pub(crate) async fn since<T>(
        &self,
        min_revision: u64,
        work: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<Response<T>, Status> {
        let work = async {
            self.reach(Revision(min_revision)).await?;
            work.await
        };
        self.answer(work).await
    }

    /// Revision up to which everything can be read.
    pub(crate) fn revision(&self) -> u64 {
        self.handle.hub().revision().borrow().0
    }

    /// Runs a call within the limits of calls that do not wait.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
        let _place = self.calls.enter_call()?;
        tokio::time::timeout(self.call_timeout, work).await.map_err(|_| RpcError::TimedOut(self.call_timeout))?
    }
}

/// Leaves of an entry what a reader may know who sees only these leases.
fn conceal(event: &mut StoredEvent, seen: &BTreeSet<LeaseId>) {
    match event.lease {
        // Its own story. What broke it and what was found may be told in the words of others; the lease itself says it in general.
        Some(lease) if seen.contains(&lease) => {
            let of_others = [EventKind::LeaseBroken, EventKind::LeaseFinding];
            if EventKind::parse(&event.kind).is_none_or(|kind| of_others.contains(&kind)) {
                event.detail.clear();
            }
        }
        Some(_) => {
            event.lease = None;
            event.subject.clear();
            event.actor.clear();
            event.detail.clear();
        }
        None => {
            event.actor.clear();
            event.detail.clear();
        }
    }
}
