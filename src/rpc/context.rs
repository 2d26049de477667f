//! What all services share.

use crate::engine::{Handle, Role, SubmitError};
use crate::pb;
use crate::rpc::credentials::CredentialSources;
use crate::rpc::limits::{Gate, RpcLimits};
use crate::rpc::source::REACH;
use crate::rpc::status::RpcError;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataValue;
use tonic::{Response, Status};
use wharfinger_core::{Core, Lease, Reading, Revision, Timestamp};

/// Tells how it went with the machines that adapters buy; asked at each call.
pub type WeatherSource = Arc<dyn Fn() -> Vec<pb::WeatherLine> + Send + Sync>;

/// What answers are made from beside the core's state.
#[derive(Clone)]
pub struct AnswerSources {
    /// How it went with the machines that adapters buy.
    pub weather: WeatherSource,
    /// The credentials of each pool's leases.
    pub credentials: CredentialSources,
}

/// No machines are bought, and no pool is known.
impl Default for AnswerSources {
    fn default() -> Self {
        Self { weather: Arc::new(Vec::new), credentials: CredentialSources::default() }
    }
}

/// With an answer of a server that follows: how old it may be, in milliseconds.
const AGE: &str = "wharfinger-age-ms";

/// What all services share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) handle: Handle,
    pub(crate) calls: Gate,
    pub(crate) waits: Gate,
    pub(crate) watches: Gate,
    pub(crate) call_timeout: Duration,
    pub(crate) sources: AnswerSources,
    /// Ends what stays.
    pub(crate) stop: CancellationToken,
    /// Tasks of watches.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    pub(crate) fn new(handle: Handle, limits: &RpcLimits, sources: AnswerSources, stop: CancellationToken) -> Self {
        Self {
            handle,
            calls: Gate::new(limits.max_calls),
            waits: Gate::new(limits.max_waits),
            watches: Gate::new(limits.max_watches),
            call_timeout: limits.call_timeout,
            sources,
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// The message of a lease that a call of this principal names: with credentials if the lease is its own.
    pub(crate) async fn tell(&self, lease: &Lease, caller: &str) -> Result<pb::Lease, SubmitError> {
        self.sources.credentials.tell(&self.handle, lease, caller).await
    }

    /// Finds one thing. A server that follows looks into the store again before it says that there is none: it may have been
    /// made just now, through another.
    pub(crate) async fn find<T, F>(&self, question: F) -> Result<Option<T>, RpcError>
    where
        T: Send + 'static,
        F: Fn(&Core, Timestamp) -> Option<T> + Clone + Send + 'static,
    {
        let found = self.handle.read(question.clone()).await?;
        if found.is_some() || self.handle.leadership().role() == Role::Leading {
            return Ok(found);
        }
        self.handle.refresh().await?;
        Ok(self.handle.read(question).await?)
    }

    /// The core's time and its distance from the wall clock, for the times of one answer.
    pub(crate) fn reading(&self) -> Reading {
        self.handle.clock().read()
    }

    /// Answers a call that wants an answer now.
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

    /// Reads once what is asked for is not older than this.
    pub(crate) async fn since<T>(
        &self,
        min_revision: u64,
        work: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<Response<T>, Status> {
        let work = async {
            self.handle.reach(Revision(min_revision), REACH).await?;
            work.await
        };
        self.answer(work).await
    }

    /// Up to here everything can be read.
    pub(crate) fn revision(&self) -> u64 {
        self.handle.hub().revision().borrow().0
    }

    /// Does a call's work with the limits of one that wants an answer now.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
        let _place = self.calls.enter_call()?;
        tokio::time::timeout(self.call_timeout, work).await.map_err(|_| RpcError::TimedOut(self.call_timeout))?
    }
}
