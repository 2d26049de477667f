//! What all services share.

use crate::engine::{Handle, Role};
use crate::pb;
use crate::rpc::limits::{Gate, RpcLimits};
use crate::rpc::status::RpcError;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Response, Status};
use wharfinger_core::{Core, Timestamp};

/// Tells how it went with the machines that adapters buy; asked at each call.
pub type WeatherSource = Arc<dyn Fn() -> Vec<pb::WeatherLine> + Send + Sync>;

/// What all services share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) handle: Handle,
    pub(crate) calls: Gate,
    pub(crate) waits: Gate,
    pub(crate) watches: Gate,
    pub(crate) call_timeout: Duration,
    pub(crate) weather: WeatherSource,
    /// Ends what stays.
    pub(crate) stop: CancellationToken,
    /// Tasks of watches.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    pub(crate) fn new(handle: Handle, limits: &RpcLimits, weather: WeatherSource, stop: CancellationToken) -> Self {
        Self {
            handle,
            calls: Gate::new(limits.max_calls),
            waits: Gate::new(limits.max_waits),
            watches: Gate::new(limits.max_watches),
            call_timeout: limits.call_timeout,
            weather,
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Finds one thing. A server that follows looks into the store again before it says that there is none: it may have been
    /// made just now, through another.
    pub(crate) async fn find<T, F>(&self, question: F) -> Result<Option<T>, RpcError>
    where
        T: Send + 'static,
        F: Fn(&Core, Timestamp) -> Option<T> + Clone + Send + 'static,
    {
        let found = self.handle.read(question.clone()).await?;
        if found.is_some() || self.handle.standing().role() == Role::Leading {
            return Ok(found);
        }
        self.handle.refresh().await?;
        Ok(self.handle.read(question).await?)
    }

    /// Answers a call that wants an answer now.
    pub(crate) async fn answer<T>(
        &self,
        work: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<Response<T>, Status> {
        Ok(Response::new(self.within(work).await?))
    }

    /// Does a call's work with the limits of one that wants an answer now.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = Result<T, RpcError>>) -> Result<T, RpcError> {
        let _place = self.calls.enter_call()?;
        tokio::time::timeout(self.call_timeout, work).await.map_err(|_| RpcError::TimedOut(self.call_timeout))?
    }
}
