//! The services that an overview asks. The page asks those of its own server, and `wharfinger top` those of a server elsewhere.

use crate::pb;
use std::future::Future;

/// Why an answer is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The roles of the caller do not allow the question.
    NotAllowed,
    /// The caller sees nothing by that name.
    NotFound,
    /// Everything else.
    Otherwise,
}

/// The questions. None has an answer with credentials.
pub(crate) trait Source: Sync {
    type Error: Send;

    /// The failure for an error of a call.
    fn refused(error: &Self::Error) -> Refused;

    /// The server that answers, as `LeaseService.GetServer` describes it.
    fn server(&self) -> impl Future<Output = Result<pb::GetServerResponse, Self::Error>> + Send;

    /// Calls `AdminService.ListPools`.
    fn list_pools(&self) -> impl Future<Output = Result<pb::ListPoolsResponse, Self::Error>> + Send;

    /// Calls `AdminService.ListResources`.
    fn list_resources(
        &self,
        request: pb::ListResourcesRequest,
    ) -> impl Future<Output = Result<pb::ListResourcesResponse, Self::Error>> + Send;

    /// Calls `AdminService.GetResource`.
    fn get_resource(
        &self,
        request: pb::GetResourceRequest,
    ) -> impl Future<Output = Result<pb::GetResourceResponse, Self::Error>> + Send;

    /// Calls `AdminService.Events`.
    fn events(
        &self,
        request: pb::EventsRequest,
    ) -> impl Future<Output = Result<pb::EventsResponse, Self::Error>> + Send;

    /// Calls `LeaseService.List`.
    fn list(&self, request: pb::ListRequest) -> impl Future<Output = Result<pb::ListResponse, Self::Error>> + Send;

    /// Calls `LeaseService.ListQueue`.
    fn list_queue(
        &self,
        request: pb::ListQueueRequest,
    ) -> impl Future<Output = Result<pb::ListQueueResponse, Self::Error>> + Send;

    /// Calls `LeaseService.Explain`.
    fn explain(&self, lease: &str) -> impl Future<Output = Result<pb::ExplainResponse, Self::Error>> + Send;
}
