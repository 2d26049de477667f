//! `AdminService`.

use crate::engine::{Role, SubmitError};
use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::convert::{self, ResourceListing, Secrets, Target, tell_lease, tell_pool, tell_resource};
use crate::rpc::lease::{leases_of, one_of};
use crate::rpc::principal;
use crate::rpc::source::scan;
use crate::rpc::status::RpcError;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};
use wharfinger_core::{AdminVerb, Core, Input, Reply, Resource, ResourceId, Revision};

/// `AdminService`.
pub(crate) struct AdminApi(pub(crate) Context);

type Answer<T> = Result<Response<T>, Status>;

#[async_trait]
impl pb::admin_service_server::AdminService for AdminApi {
    async fn list_pools(&self, _request: Request<pb::ListPoolsRequest>) -> Answer<pb::ListPoolsResponse> {
        let work = async {
            let (pools, revision) = self.0.handle.read(|core, _| (core.pools(), core.revision())).await?;
            Ok(pb::ListPoolsResponse { pools: pools.iter().map(tell_pool).collect(), revision: revision.0 })
        };
        self.0.answer(work).await
    }

    async fn get_pool(&self, request: Request<pb::GetPoolRequest>) -> Answer<pb::GetPoolResponse> {
        let name: Arc<str> = Arc::from(request.into_inner().name);
        let work = async { Ok(pb::GetPoolResponse { pool: Some(self.pool(name).await?) }) };
        self.0.answer(work).await
    }

    async fn list_resources(&self, request: Request<pb::ListResourcesRequest>) -> Answer<pb::ListResourcesResponse> {
        let asked = Arc::new(convert::list_resources(request.get_ref())?);
        self.0.answer(self.resources_page(asked)).await
    }

    async fn get_resource(&self, request: Request<pb::GetResourceRequest>) -> Answer<pb::GetResourceResponse> {
        let id: ResourceId = convert::id("resource_id", &request.get_ref().resource_id)?;
        let work = async {
            let resource = self.resource(id).await?.ok_or_else(|| RpcError::no_resource(id))?;
            Ok(pb::GetResourceResponse { resource: Some(resource) })
        };
        self.0.answer(work).await
    }

    async fn cordon(&self, request: Request<pb::TargetRequest>) -> Answer<pb::ResourceResponse> {
        self.act(&request, AdminVerb::Cordon, Some(AdminVerb::CordonPool)).await
    }

    async fn uncordon(&self, request: Request<pb::TargetRequest>) -> Answer<pb::ResourceResponse> {
        self.act(&request, AdminVerb::Uncordon, Some(AdminVerb::UncordonPool)).await
    }

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Answer<pb::ResourceResponse> {
        let (target, input) = convert::drain(request.get_ref(), principal::of(&request)?)?;
        self.0.answer(self.submit(target, input)).await
    }

    async fn hold(&self, request: Request<pb::HoldRequest>) -> Answer<pb::ResourceResponse> {
        let (target, input) = convert::hold(request.get_ref(), principal::of(&request)?)?;
        self.0.answer(self.submit(target, input)).await
    }

    async fn check(&self, request: Request<pb::TargetRequest>) -> Answer<pb::ResourceResponse> {
        self.act(&request, AdminVerb::Check, None).await
    }

    async fn taint(&self, request: Request<pb::TargetRequest>) -> Answer<pb::ResourceResponse> {
        self.act(&request, AdminVerb::Taint, None).await
    }

    async fn quarantine(&self, request: Request<pb::TargetRequest>) -> Answer<pb::ResourceResponse> {
        self.act(&request, AdminVerb::Quarantine, None).await
    }

    async fn recover(&self, request: Request<pb::TargetRequest>) -> Answer<pb::ResourceResponse> {
        self.act(&request, AdminVerb::Recover, None).await
    }

    async fn recycle(&self, request: Request<pb::TargetRequest>) -> Answer<pb::ResourceResponse> {
        self.act(&request, AdminVerb::Recycle, None).await
    }

    async fn force_destroy(&self, request: Request<pb::TargetRequest>) -> Answer<pb::ResourceResponse> {
        self.act(&request, AdminVerb::ForceDestroy, None).await
    }

    async fn r#break(&self, request: Request<pb::BreakRequest>) -> Answer<pb::BreakResponse> {
        let (id, input) = convert::break_lease(request.get_ref(), principal::of(&request)?)?;
        let work = async {
            let lease = one_of(&leases_of(self.0.handle.submit(input).await?)?, id)?;
            Ok(pb::BreakResponse { lease: Some(tell_lease(&lease, Secrets::Withheld)) })
        };
        self.0.answer(work).await
    }

    async fn weather(&self, _request: Request<pb::WeatherRequest>) -> Answer<pb::WeatherResponse> {
        let work = async {
            let standing = self.0.handle.standing();
            if standing.role() == Role::Following {
                return Err(SubmitError::NotLeader(standing.leader()).into());
            }
            Ok(pb::WeatherResponse { lines: (self.0.weather)() })
        };
        self.0.answer(work).await
    }

    async fn events(&self, request: Request<pb::EventsRequest>) -> Answer<pb::EventsResponse> {
        let query = convert::events(request.get_ref())?;
        let work = async {
            let events = self.0.handle.events(&query).await?;
            Ok(pb::EventsResponse { events: events.into_iter().map(convert::event).collect() })
        };
        self.0.answer(work).await
    }
}

impl AdminApi {
    async fn act(
        &self,
        request: &Request<pb::TargetRequest>,
        verb: fn(ResourceId) -> AdminVerb,
        pool_verb: Option<fn(Arc<str>) -> AdminVerb>,
    ) -> Answer<pb::ResourceResponse> {
        let (target, input) = convert::admin(request.get_ref(), principal::of(request)?, verb, pool_verb)?;
        self.0.answer(self.submit(target, input)).await
    }

    /// Submits an operator's word and shows what its target looks like after it.
    async fn submit(&self, target: Target, input: Input) -> Result<pb::ResourceResponse, RpcError> {
        let reply = self.0.handle.submit(input).await?;
        match target {
            Target::Pool(name) => Ok(pb::ResourceResponse { resource: None, pool: Some(self.pool(name).await?) }),
            Target::Resource(_) | Target::OfLease(_) => {
                let Reply::Resource(last) = reply else {
                    return Err(RpcError::Bug("the core answered without a resource"));
                };
                let resource = self.resource(last.id).await?.unwrap_or_else(|| tell_resource(&last, &[]));
                Ok(pb::ResourceResponse { resource: Some(resource), pool: None })
            }
        }
    }

    async fn pool(&self, name: Arc<str>) -> Result<pb::Pool, RpcError> {
        let wanted = name.clone();
        let pool = self.0.handle.read(move |core, _| core.pool(&wanted)).await?;
        pool.as_ref().map(tell_pool).ok_or_else(|| RpcError::no_pool(&name))
    }

    async fn resource(&self, id: ResourceId) -> Result<Option<pb::Resource>, RpcError> {
        let read = move |core: &Core, _now| core.resource(id).map(|found| (found.clone(), core.leases_on(id)));
        let found = self.0.find(read).await?;
        Ok(found.map(|(resource, leases)| tell_resource(&resource, &leases)))
    }

    /// Several short reads rather than a long one.
    async fn resources_page(&self, asked: Arc<ResourceListing>) -> Result<pb::ListResourcesResponse, RpcError> {
        let mut told = pb::ListResourcesResponse::default();
        let mut after = asked.after;
        loop {
            let (want, room) = (asked.clone(), asked.size - told.resources.len());
            let read = move |core: &Core, _now| {
                let (found, last) = scan(core.resources(after), |resource| listed(&want, resource), room);
                let found: Vec<_> = found.into_iter().map(|r| (core.leases_on(r.id), r)).collect();
                (found, last, core.revision())
            };
            let (found, last, Revision(revision)) = self.0.handle.read(read).await?;
            if told.revision == 0 {
                told.revision = revision;
            }
            told.resources.extend(found.iter().map(|(leases, resource)| tell_resource(resource, leases)));
            let Some(last) = last else { return Ok(told) };
            if told.resources.len() >= asked.size {
                told.next_page_token = last.id.to_string();
                return Ok(told);
            }
            after = Some(last.id);
        }
    }
}

fn listed(asked: &ResourceListing, resource: &Resource) -> bool {
    let state = convert::resource_state(&resource.state);
    let wanted = if asked.states.is_empty() { state != pb::ResourceState::Gone } else { asked.states.contains(&state) };
    wanted && (asked.pools.is_empty() || asked.pools.contains(&resource.pool))
}
