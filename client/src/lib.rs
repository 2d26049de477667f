//! The client of a Wharfinger broker: leases that renew themselves, watches that resume, work that ends when its lease breaks,
//! errors by who must act.
//!
//! ```no_run
//! use wharfinger_client::pb::{LeaseRequest, Outcome, Selector};
//! use wharfinger_client::Client;
//!
//! # async fn build(path: &str) -> bool { path.is_empty() }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:7411").await?;
//! let guard = client
//!     .acquire(LeaseRequest {
//!         holder: "build 17".into(),
//!         selector: Some(Selector { pool: "copies".into(), ..Selector::default() }),
//!         ..LeaseRequest::default()
//!     })
//!     .await?;
//! let lease = guard.active().await?;
//! let path = lease.access.as_ref().map(|access| access.path.as_str()).unwrap_or_default();
//! // The build is dropped at the moment at which the lease breaks.
//! match guard.run(build(path)).await {
//!     Ok(true) => drop(guard.release(Outcome::Ok, "").await?),
//!     Ok(false) => drop(guard.release(Outcome::Failed, "the build failed").await?),
//!     Err(lost) => eprintln!("start again elsewhere: {lost}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Any of several servers answers; a server that follows forwards what changes something to the server that leads. An answer is
//! never older than what the client received before, whichever server it asks.
//!
//! Each client has two connections: one for calls and one for watches, so that a slow watcher never delays a renewal. Both
//! are kept alive while idle and reconnect by themselves. The client needs a Tokio runtime with timers and I/O.
//!
//! Messages and services are in [`pb`]. A client of this version works with each server of the same major version: it decides
//! by two times of a lease ([`pb::Lease::may_work`], [`pb::Lease::is_over`]), never by a state that it may not know.
//!
//! Rust 1.85 or newer. The compiler 1.85 itself is not run by the tests of this repository: clippy's `incompatible_msrv`, the
//! edition 2021 and the versions of the dependencies hold it.

#![warn(missing_docs)]

mod address;
mod backoff;
mod balancer;
mod clock;
mod credentials;
mod error;
mod faults;
mod guard;
pub mod pb;
mod random;
mod session;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod testing;
mod watch;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use balancer::Endpoints;
pub use credentials::{Credentials, CredentialsError};
pub use error::{ClientError, Violation, reason, violations};
pub use guard::{LeaseGuard, LeaseStatus, Lost};
pub use watch::{WatchStream, Watched};
pub use wharfinger_tls::spiffe::Uri as ServerUri;
pub use wharfinger_tls::{CertificateFault, ClientSettings, Refusal, TlsProblem};

/// Parts that the other crates of this repository share. They may change in any version.
#[doc(hidden)]
pub mod internal {
    pub use crate::address::{Connector, ServerAddress, parse_addresses};
    pub use crate::balancer::never_stood;

    /// Waits between attempts.
    pub mod backoff {
        pub use crate::backoff::{Backoff, jittered};
    }

    /// Random numbers.
    pub mod random {
        pub use crate::random::{random, request_id};
    }
}

use crate::backoff::Backoff;
use crate::pb::admin_service_client::AdminServiceClient;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::pb::trust_service_client::TrustServiceClient;
use address::parse_addresses;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tonic::codegen::http::HeaderValue;
use tonic::{Request, Response, Status};

/// Maximum length of a response in bytes; the broker has the same limit.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;
/// Maximum number of leases of one renewal; the broker has the same limit.
const RENEWALS: usize = 1000;

/// Time for which a call is repeated without a word.
const UNTOLD: Duration = Duration::from_secs(3);

struct Limits {
    connect: Duration,
    call: Duration,
}

/// Limits of two times where there are several servers.
const SEVERAL: Limits = Limits { connect: Duration::from_secs(2), call: Duration::from_secs(3) };

/// Time limits of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Maximum time to connect.
    pub connect_timeout: Duration,
    /// Maximum time of one try of a call, beyond the wait that it asks for.
    pub call_timeout: Duration,
    /// Maximum time of all tries of a call while the broker is unavailable, beyond the wait that it asks for. Zero: one try.
    pub retry_for: Duration,
    /// The servers to which a refusal may lead that names the leader.
    pub follow: Follow,
    /// The token of the caller. It is sent to servers with TLS, and to servers on this machine.
    pub token: Option<AuthToken>,
    /// The source of the caller's token, in place of [`ClientOptions::token`]. A token that a server refuses is asked for anew, and
    /// the call is repeated once if there is another.
    pub credentials: Option<Credentials>,
    /// The certificates of connections to `https://` addresses: whose servers are trusted, and that of the caller.
    pub tls: ClientSettings,
    /// Is called for a call that has been repeated for some seconds.
    pub on_retry: Option<OnRetry>,
    /// The place of the caller in its trace, a `traceparent` of W3C Trace Context. It is sent with each call. A text that no header may
    /// have is not sent.
    pub traceparent: Option<String>,
    /// The program that calls, as `NAME/VERSION`, in the header `user-agent`. `None`: the header names the
    /// transport alone, and so it does for a text that no header may have.
    pub user_agent: Option<String>,
}

/// The token of a caller. `Debug` prints no value.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken(HeaderValue);

impl AuthToken {
    /// Reads a token; white space around it is dropped. `None`: it has characters that no token has.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl std::fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthToken(..)")
    }
}

/// A function that reports a call that is repeated for some seconds: why, and for how long it may be repeated yet. It is called once
/// for each such call, and once for the renewals of a lease while they fail.
#[derive(Clone)]
pub struct OnRetry(Arc<Tell>);

type Tell = dyn Fn(&ClientError, Duration) + Send + Sync;

impl OnRetry {
    /// Calls this function.
    pub fn new(told: impl Fn(&ClientError, Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl std::fmt::Debug for OnRetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnRetry(..)")
    }
}

impl PartialEq for OnRetry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for OnRetry {}

/// The servers to which a client follows a refusal that names the leader. A stranger that answers as a server could name any address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// Those of the client's list.
    #[default]
    Listed,
    /// Those on the hosts of the list, on any port.
    SameHosts,
    /// All. For closed networks.
    Anywhere,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(20),
            retry_for: Duration::from_secs(30),
            follow: Follow::Listed,
            token: None,
            credentials: None,
            tls: ClientSettings::default(),
            on_retry: None,
            traceparent: None,
            user_agent: None,
        }
    }
}

/// A broker's client. Cheap to clone; the clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    lease: LeaseServiceClient<Endpoints>,
    admin: AdminServiceClient<Endpoints>,
    /// Service for watches, on a connection of its own.
    watch: LeaseServiceClient<Endpoints>,
    endpoints: Endpoints,
    options: ClientOptions,
    seen: Seen,
}

/// Latest revision in any answer. Later reads are not older, whichever server answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<AtomicU64>);

impl Seen {
    fn lease(&self, lease: Option<&pb::Lease>) {
        self.note(lease.map_or(0, |lease| lease.revision));
    }

    fn note(&self, revision: u64) {
        self.0.fetch_max(revision, Ordering::AcqRel);
    }

    pub(crate) fn latest(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// The servers never reached the revision: their database was restored from a backup.
    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Client {
    /// Connects to a broker: `HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`, several servers with commas between. The client finds the server
    /// that leads by the address in the refusal of a server that follows, if [`ClientOptions::follow`] allows that address.
    ///
    /// # Errors
    /// [`ClientError::Address`], or [`ClientError::Unavailable`] if no server answers, or none of several leads.
    pub async fn connect(endpoints: &str) -> Result<Self, ClientError> {
        Self::connect_with(endpoints, ClientOptions::default()).await
    }

    /// Connects with these time limits.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(endpoints: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let parsed = parse_addresses(endpoints, &options)?;
        let [endpoint] = &parsed[..] else {
            let client = Self::connect_lazy(endpoints, options)?;
            client.find_leader().await?;
            return Ok(client);
        };
        let calls = endpoint.connect_noting().await.map_err(|status| match ClientError::from(status) {
            error @ ClientError::Certificate(_) => error,
            ClientError::Bug(status) => ClientError::Unavailable(status),
            error => error,
        })?;
        Ok(Self::over(Endpoints::new(&parsed, Some(calls), &options), options))
    }

    /// Connects at the first call. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Address`].
    pub fn connect_lazy(endpoints: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let mut options = options;
        if endpoints.contains(',') {
            // Another server may answer sooner.
            options.connect_timeout = options.connect_timeout.min(SEVERAL.connect);
            options.call_timeout = options.call_timeout.min(SEVERAL.call);
        }
        let parsed = parse_addresses(endpoints, &options)?;
        Ok(Self::over(Endpoints::new(&parsed, None, &options), options))
    }

    /// Reads a lease that does not exist until a server answers, so that calls with one try go to a server that leads.
    async fn find_leader(&self) -> Result<(), ClientError> {
        match self.get("").await {
            Err(error @ (ClientError::Unavailable(_) | ClientError::Certificate(_))) => Err(error),
            // A leader answered: the lease does not exist.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn over((calls, watches): (Endpoints, Endpoints), options: ClientOptions) -> Self {
        Self {
            seen: Seen::default(),
            endpoints: calls.clone(),
            lease: LeaseServiceClient::new(calls.clone()).max_decoding_message_size(MAX_RESPONSE),
            admin: AdminServiceClient::new(calls).max_decoding_message_size(MAX_RESPONSE),
            watch: LeaseServiceClient::new(watches).max_decoding_message_size(MAX_RESPONSE),
            options,
        }
    }

    /// Asks for leases. Without a `request_id` one is chosen; while the broker is unavailable the same request is
    /// repeated, so that nothing is leased twice.
    ///
    /// # Errors
    /// Any [`ClientError`]; after [`ClientError::Unavailable`] the leases may have been granted: ask again with the same
    /// `request_id`, or they expire.
    pub async fn lease(&self, mut request: pb::LeaseRequest) -> Result<pb::LeaseResponse, ClientError> {
        if request.request_id.is_empty() {
            request.request_id = random::request_id();
        }
        let wait = request.wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
        let end = Instant::now() + wait;
        self.repeat(wait, |timeout| {
            let mut request = request.clone();
            if request.wait.is_some() {
                // The rest of the wait. The broker validates its limit.
                let left = if wait.is_zero() { request.wait } else { span(end - Instant::now()) };
                request.wait = left;
            }
            let (mut client, request) = (self.lease.clone(), limited(request, timeout));
            async move { client.lease(request).await }
        })
        .await
        .map(|mut answer| {
            // The wire carries a single lease once; here `leases` has all of them in any case.
            if answer.leases.is_empty() {
                answer.leases.extend(answer.lease.clone());
            }
            answer.leases.iter().for_each(|lease| self.seen.lease(Some(lease)));
            answer
        })
    }

    /// Asks for one lease and keeps it: see [`LeaseGuard`]. Returns as soon as the lease is in the queue;
    /// [`LeaseGuard::active`] waits for it. If several are asked for, only the first is kept: use [`Client::acquire_all`].
    ///
    /// # Errors
    /// As [`Client::lease`].
    pub async fn acquire(&self, request: pb::LeaseRequest) -> Result<LeaseGuard, ClientError> {
        let lease = self.lease(request).await?.lease;
        lease
            .map(|lease| self.keep(lease))
            .ok_or_else(|| ClientError::Bug(Status::internal("an answer without a lease")))
    }

    /// Asks for several leases and keeps each.
    ///
    /// # Errors
    /// As [`Client::lease`].
    pub async fn acquire_all(&self, request: pb::LeaseRequest) -> Result<Vec<LeaseGuard>, ClientError> {
        Ok(self.lease(request).await?.leases.into_iter().map(|lease| self.keep(lease)).collect())
    }

    /// Keeps an existing lease, whatever its state. Must be called within a Tokio runtime.
    pub fn keep(&self, lease: pb::Lease) -> LeaseGuard {
        LeaseGuard::new(self.clone(), lease)
    }

    /// Ends a lease and the others of its group. Releasing twice is fine.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn release(
        &self,
        lease_id: &str,
        outcome: pb::Outcome,
        note: &str,
    ) -> Result<pb::ReleaseResponse, ClientError> {
        let request =
            pb::ReleaseRequest { lease_id: lease_id.into(), outcome: outcome.into(), note: note.into(), hold: None };
        self.release_with(request).await
    }

    /// Ends a lease with all fields of a release: with `hold` the resource is kept as the work left it.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`; [`ClientError::Request`] if the hold is longer than the pool allows: then the
    /// lease has not ended.
    pub async fn release_with(&self, request: pb::ReleaseRequest) -> Result<pb::ReleaseResponse, ClientError> {
        self.repeat(Duration::ZERO, |timeout| {
            let (mut client, request) = (self.lease.clone(), limited(request.clone(), timeout));
            async move { client.release(request).await }
        })
        .await
        .map(|mut answer| {
            if answer.leases.is_empty() {
                answer.leases.extend(answer.lease.clone());
            }
            answer.leases.iter().for_each(|lease| self.seen.lease(Some(lease)));
            answer
        })
    }

    /// Renews a lease once. `ttl`: a new TTL from now on.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn renew(&self, lease_id: &str, ttl: Option<Duration>) -> Result<pb::Lease, ClientError> {
        let request = pb::RenewRequest { lease_id: lease_id.into(), ttl: ttl.and_then(span), lease_ids: Vec::new() };
        let answer = self.repeat(Duration::ZERO, |timeout| {
            let (mut client, request) = (self.lease.clone(), limited(request.clone(), timeout));
            async move { client.renew(request).await }
        });
        let lease = answer.await?.lease;
        self.seen.lease(lease.as_ref());
        Ok(lease.unwrap_or_default())
    }

    /// Renews several leases, each with a result of its own, in the order of the ids. At most 1,000 go in one call and one commit.
    /// A server that renews one lease a call gets a call for each.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`, if a call failed as a whole: then each may have been renewed.
    pub async fn renew_all(
        &self,
        lease_ids: &[String],
        ttl: Option<Duration>,
    ) -> Result<Vec<Result<pb::Lease, ClientError>>, ClientError> {
        let mut results = Vec::with_capacity(lease_ids.len());
        for ids in lease_ids.chunks(RENEWALS) {
            let request =
                pb::RenewRequest { lease_id: String::new(), ttl: ttl.and_then(span), lease_ids: ids.to_vec() };
            let answer = self.repeat(Duration::ZERO, |timeout| {
                let (mut client, request) = (self.lease.clone(), limited(request.clone(), timeout));
                async move { client.renew(request).await }
            });
            match answer.await {
                Ok(answer) => results.extend(answer.results.into_iter().map(|result| self.renewed(result))),
                // A server of API minor version 0 knows no `lease_ids`.
                Err(error) if error.violations().iter().any(|violation| violation.field == "lease_id") => {
                    for id in ids {
                        results.push(self.renew(id, ttl).await);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    fn renewed(&self, result: pb::RenewResult) -> Result<pb::Lease, ClientError> {
        match result.result {
            Some(pb::renew_result::Result::Lease(lease)) => {
                self.seen.lease(Some(&lease));
                Ok(lease)
            }
            Some(pb::renew_result::Result::Refusal(refusal)) => Err(ClientError::from(Status::from(refusal))),
            None => Err(ClientError::Bug(Status::internal("a renewal without a result"))),
        }
    }

    /// Asks for a certificate over a public key (one line in OpenSSH format), which logs in to the host of the lease.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`; [`ClientError::State`] if the lease is not active, or if its holder logs in without
    /// certificates.
    pub async fn login(&self, lease_id: &str, public_key: &str) -> Result<pb::LoginResponse, ClientError> {
        let request = pb::LoginRequest { lease_id: lease_id.into(), public_key: public_key.into() };
        let answer = self.repeat(Duration::ZERO, |timeout| {
            let (mut client, request) = (self.lease.clone(), limited(request.clone(), timeout));
            async move { client.login(request).await }
        });
        answer.await
    }

    /// Reports failures during the work. The resource is checked at once, and the lease goes on. Its `doubt` is set until the
    /// check has answered; if the check finds the resource unfit, the lease breaks.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`; [`ClientError::State`] if the lease is not active yet.
    pub async fn report(&self, lease_id: &str, note: &str) -> Result<pb::Lease, ClientError> {
        self.send_report(pb::ReportRequest { lease_id: lease_id.into(), note: note.into(), unreached: false }).await
    }

    /// The holder cannot reach the resource from here: the server decides by a new login of its own. The lease goes on.
    ///
    /// # Errors
    /// As [`Client::report`].
    pub async fn report_unreached(&self, lease_id: &str, note: &str) -> Result<pb::Lease, ClientError> {
        self.send_report(pb::ReportRequest { lease_id: lease_id.into(), note: note.into(), unreached: true }).await
    }

    async fn send_report(&self, request: pb::ReportRequest) -> Result<pb::Lease, ClientError> {
        let answer = self.repeat(Duration::ZERO, |timeout| {
            let (mut client, request) = (self.lease.clone(), limited(request.clone(), timeout));
            async move { client.report(request).await }
        });
        let lease = answer.await?.lease;
        self.seen.lease(lease.as_ref());
        Ok(lease.unwrap_or_default())
    }

    /// Returns one lease, not older than any answer that this client received before.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn get(&self, lease_id: &str) -> Result<pb::Lease, ClientError> {
        let answer = self.read(|mut client, timeout, min_revision| {
            let request = pb::GetRequest { lease_id: lease_id.into(), min_revision };
            async move { client.get(limited(request, timeout)).await }
        });
        let answer = answer.await?;
        self.seen.note(answer.revision);
        Ok(answer.lease.unwrap_or_default())
    }

    /// Returns a page of leases.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn list(&self, request: pb::ListRequest) -> Result<pb::ListResponse, ClientError> {
        let asked = request.min_revision;
        let answer = self.read(|mut client, timeout, seen| {
            let request = pb::ListRequest { min_revision: seen.max(asked), ..request.clone() };
            async move { client.list(limited(request, timeout)).await }
        });
        let answer = answer.await?;
        self.seen.note(answer.revision);
        Ok(answer)
    }

    /// Explains why a lease waits, or how it ended.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn explain(&self, lease_id: &str) -> Result<pb::ExplainResponse, ClientError> {
        let answer = self.read(|mut client, timeout, min_revision| {
            let request = pb::ExplainRequest { lease_id: lease_id.into(), min_revision };
            async move { client.explain(limited(request, timeout)).await }
        });
        answer.await
    }

    /// Returns a page of the queue.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn list_queue(&self, request: pb::ListQueueRequest) -> Result<pb::ListQueueResponse, ClientError> {
        let asked = request.min_revision;
        let answer = self.read(|mut client, timeout, seen| {
            let request = pb::ListQueueRequest { min_revision: seen.max(asked), ..request.clone() };
            async move { client.list_queue(limited(request, timeout)).await }
        });
        let answer = answer.await?;
        self.seen.note(answer.revision);
        Ok(answer)
    }

    /// Returns the history of a lease or a resource, oldest entry first.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn timeline(&self, request: pb::TimelineRequest) -> Result<pb::TimelineResponse, ClientError> {
        let asked = request.min_revision;
        let answer = self.read(|mut client, timeout, seen| {
            let request = pb::TimelineRequest { min_revision: seen.max(asked), ..request.clone() };
            async move { client.timeline(limited(request, timeout)).await }
        });
        answer.await
    }

    /// Returns the version, limits and features of a server.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn server(&self) -> Result<pb::GetServerResponse, ClientError> {
        self.repeat(Duration::ZERO, |timeout| {
            let mut client = self.lease.clone();
            async move { client.get_server(limited(pb::GetServerRequest {}, timeout)).await }
        })
        .await
    }

    /// Lists the servers on the database of the server that answers, as each reported itself last.
    ///
    /// # Errors
    /// Any [`ClientError`] but `Resync`.
    pub async fn servers(&self) -> Result<Vec<pb::Server>, ClientError> {
        let answer = self.repeat(Duration::ZERO, |timeout| {
            let mut client = self.lease.clone();
            async move { client.list_servers(limited(pb::ListServersRequest {}, timeout)).await }
        });
        Ok(answer.await?.servers)
    }

    /// Watches leases. The stream resumes by itself, and connects at its first use.
    pub fn watch(&self, request: pb::WatchRequest) -> WatchStream {
        WatchStream::new(self.watch.clone(), self.seen.clone(), request)
    }

    /// Returns the generated client of the operator's service. Each call is one try. Turn its statuses into [`ClientError`].
    pub fn admin(&self) -> AdminServiceClient<Endpoints> {
        self.admin.clone()
    }

    /// Returns the generated client of the service that says who the caller is. Each call is one try.
    pub fn trust(&self) -> TrustServiceClient<Endpoints> {
        TrustServiceClient::new(self.endpoints.clone()).max_decoding_message_size(MAX_RESPONSE)
    }

    /// Reads a state that is not older than any answer before. Servers whose database was restored never reached it.
    async fn read<T, F>(
        &self,
        mut call: impl FnMut(LeaseServiceClient<Endpoints>, Duration, u64) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut min_revision = self.seen.latest();
        loop {
            let answer = self.repeat(Duration::ZERO, |timeout| call(self.lease.clone(), timeout, min_revision)).await;
            match answer {
                Err(ClientError::Resync(_)) if min_revision > 0 => {
                    self.seen.forget();
                    min_revision = 0;
                }
                other => return other,
            }
        }
    }

    /// Repeats a call until it succeeds, fails for good, or its time is over.
    async fn repeat<T, F>(&self, wait: Duration, mut call: impl FnMut(Duration) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let give_up = Instant::now() + wait + self.options.retry_for;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
        let mut tries = 0;
        let (mut failing_since, mut told) = (None, false);
        loop {
            tries += 1;
            let error = match call(wait + self.options.call_timeout).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => ClientError::from(status),
            };
            let again = Instant::now() + backoff.wait(error.retry_after());
            // A server that hangs takes all the time; the other servers are asked all the same.
            let patient = again <= give_up || (tries < self.endpoints.count() && !self.options.retry_for.is_zero());
            if !error.is_unavailable() || !patient {
                return Err(error);
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            if let Some(OnRetry(tell)) = self.options.on_retry.as_ref().filter(|_| !told && again - since >= UNTOLD) {
                tell(&error, give_up - again);
                told = true;
            }
            tokio::time::sleep_until(again).await;
        }
    }
}

/// A request with a deadline for the server and for this side.
fn limited<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn span(time: Duration) -> Option<prost_types::Duration> {
    time.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked_before_anything_is_tried() {
        let lazily = |text: &str| Client::connect_lazy(text, ClientOptions::default());
        assert!(lazily("127.0.0.1:7411").is_ok());
        assert!(lazily("http://broker:7411, broker2:7411").is_ok());
        assert!(lazily("https://broker:7411").is_ok());
        for wrong in ["", "broker", "https://broker", "ftp://broker:1", "http://", "http://x:1/y", "a b:1", "x:1,,y:2"]
        {
            let error = lazily(wrong).unwrap_err();
            assert!(matches!(error, ClientError::Address(_)), "{wrong}: {error}");
            assert!(error.to_string().ends_with("several with commas between"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_repeated_for_seconds_is_reported_once() {
        for (retry_for, reports) in [(2, 0), (20, 1)] {
            let told = Arc::new(AtomicU64::new(0));
            let count = told.clone();
            let on_retry = OnRetry::new(move |error, left| {
                assert!(error.is_unavailable() && left <= Duration::from_secs(17), "{error} {left:?}");
                count.fetch_add(1, Ordering::Relaxed);
            });
            let retry_for = Duration::from_secs(retry_for);
            let options = ClientOptions { retry_for, on_retry: Some(on_retry), ..ClientOptions::default() };
            // No server has port 1.
            let client = Client::connect_lazy("127.0.0.1:1", options).unwrap();
            assert!(client.server().await.unwrap_err().is_unavailable());
            assert_eq!(told.load(Ordering::Relaxed), reports, "{retry_for:?}");
        }
    }

    #[tokio::test]
    async fn an_address_without_a_server_is_reported_with_the_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = Client::connect(&address.to_string()).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(error.to_string().contains("refused"), "{error}");
    }
}
