//! Asks the server for what a view shows.

use super::app::View;
use crate::cli::connect::Context;
use crate::cli::servers::{Said, ask_each};
use crate::client::{Client, ClientError};
use crate::overview::{self, Now, Queue, ROWS, Refused, Source};
use crate::pb;
use tonic::{Code, Status};

/// Maximum number of entries of a story.
const STORY: i32 = 200;

/// The facts of a view.
pub(super) enum Facts {
    Now(Now),
    Pools(Vec<pb::Pool>),
    /// Resources, and whether there are more.
    Resources(Vec<pb::Resource>, bool),
    /// One resource with its story, if the caller may read that.
    Resource(Box<pb::Resource>, Option<pb::TimelineResponse>),
    Queue(Queue),
    /// Leases that have not ended, and whether there are more.
    Leases(Vec<pb::Lease>, bool),
    /// One lease with its story.
    Lease(Box<pb::ExplainResponse>, Option<pb::TimelineResponse>),
    Events(Vec<pb::Event>),
    Servers(Vec<Said>),
}

/// An answer, with the place of the server that gave it.
pub(super) struct Answer {
    pub(super) view: View,
    pub(super) facts: Facts,
    pub(super) server: pb::GetServerResponse,
}

/// The services of a server elsewhere.
pub(super) struct There {
    context: Context,
    client: Client,
}

impl There {
    pub(super) fn new(context: Context, client: Client) -> Self {
        Self { context, client }
    }

    async fn story(&self, request: pb::TimelineRequest) -> Result<Option<pb::TimelineResponse>, ClientError> {
        let request = pb::TimelineRequest { limit: STORY, ..request };
        overview::found::<Self, _>(self.client.timeline(request).await)
    }
}

impl Source for There {
    type Error = ClientError;

    fn refused(error: &ClientError) -> Refused {
        match error.status().map(Status::code) {
            Some(Code::PermissionDenied) => Refused::NotAllowed,
            Some(Code::NotFound) => Refused::NotFound,
            _ => Refused::Otherwise,
        }
    }

    async fn server(&self) -> Result<pb::GetServerResponse, ClientError> {
        self.client.server().await
    }

    async fn list_pools(&self) -> Result<pb::ListPoolsResponse, ClientError> {
        Ok(self.client.admin().list_pools(pb::ListPoolsRequest::default()).await?.into_inner())
    }

    async fn list_resources(
        &self,
        request: pb::ListResourcesRequest,
    ) -> Result<pb::ListResourcesResponse, ClientError> {
        Ok(self.client.admin().list_resources(request).await?.into_inner())
    }

    async fn get_resource(&self, request: pb::GetResourceRequest) -> Result<pb::GetResourceResponse, ClientError> {
        Ok(self.client.admin().get_resource(request).await?.into_inner())
    }

    async fn events(&self, request: pb::EventsRequest) -> Result<pb::EventsResponse, ClientError> {
        Ok(self.client.admin().events(request).await?.into_inner())
    }

    async fn list(&self, request: pb::ListRequest) -> Result<pb::ListResponse, ClientError> {
        self.client.list(request).await
    }

    async fn list_queue(&self, request: pb::ListQueueRequest) -> Result<pb::ListQueueResponse, ClientError> {
        self.client.list_queue(request).await
    }

    async fn explain(&self, lease: &str) -> Result<pb::ExplainResponse, ClientError> {
        self.client.explain(lease).await
    }
}

/// Asks for the facts of a view.
///
/// # Errors
/// [`ClientError`] of the first question without which there is nothing to show.
pub(super) async fn ask(there: &There, view: View) -> Result<Answer, ClientError> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().collect();
    let facts = match &view {
        View::Now => Facts::Now(overview::now(there).await?),
        View::Pools => Facts::Pools(there.list_pools().await?.pools),
        View::Resources { pool, trouble: true } => {
            let (list, more) = overview::trouble(there, some(pool), ROWS).await?.unwrap_or_default();
            Facts::Resources(list, more)
        }
        View::Resources { pool, trouble: false } => {
            let request =
                pb::ListResourcesRequest { pools: some(pool), page_size: ROWS, ..pb::ListResourcesRequest::default() };
            let page = there.list_resources(request).await?;
            Facts::Resources(page.resources, !page.next_page_token.is_empty())
        }
        View::Resource(id) => {
            let resource = overview::resource(there, id).await?;
            let request = pb::TimelineRequest { resource_id: resource.id.clone(), ..pb::TimelineRequest::default() };
            Facts::Resource(Box::new(resource), there.story(request).await?)
        }
        View::Queue(pool) => Facts::Queue(overview::queue(there, pool, "").await?),
        View::Leases => {
            let request = pb::ListRequest { page_size: ROWS, ..pb::ListRequest::default() };
            let page = there.list(request).await?;
            Facts::Leases(page.leases, !page.next_page_token.is_empty())
        }
        View::Lease(id) => {
            let said = there.explain(id).await?;
            let request = pb::TimelineRequest { lease_id: id.clone(), ..pb::TimelineRequest::default() };
            Facts::Lease(Box::new(said), there.story(request).await?)
        }
        View::Events => {
            let request = pb::EventsRequest { newest_first: true, page_size: ROWS, ..pb::EventsRequest::default() };
            Facts::Events(there.events(request).await?.events)
        }
        View::Servers => Facts::Servers(ask_each(&there.context).await),
    };
    let server = there.client.server().await?;
    Ok(Answer { view, facts, server })
}
