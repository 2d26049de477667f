//! State that all services share.

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

/// Returns the counts of the machines that adapters buy; called for each answer.
pub type WeatherSource = Arc<dyn Fn() -> Vec<pb::WeatherLine> + Send + Sync>;

/// Sources of answers beside the core's state.
#[derive(Clone)]
pub struct AnswerSources {
    /// Counts of the machines that adapters buy.
    pub weather: WeatherSource,
    /// The credentials of each pool's leases.
    pub credentials: CredentialSources,
}

/// No machine is bought, and no pool has credentials.
impl Default for AnswerSources {
    fn default() -> Self {
        Self { weather: Arc::new(Vec::new), credentials: CredentialSources::default() }
    }
}

/// Metadata of an answer of a server that follows: its maximum age in milliseconds.
const AGE: &str = "wharfinger-age-ms";

/// State that all services share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) handle: Handle,
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

    /// The message of a lease for a call of this principal, with credentials if the lease belongs to it.
    pub(crate) async fn tell(&self, lease: &Lease, caller: &str) -> Result<pb::Lease, SubmitError> {
        self.sources.credentials.tell(&self.handle, lease, caller).await
    }

    /// Finds one lease or resource. A server that follows reads the store again before it answers that there is none: another
    /// server may have made it just now.
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
            self.handle.reach(Revision(min_revision), REACH).await?;
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
