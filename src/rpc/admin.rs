//! `AdminService`.

use crate::engine::{Role, SubmitError};
use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::convert::{
    self, OnResource, OnResourceOrPool, ResourceListing, Target, tell_lease, tell_pool, tell_resource,
};
use crate::rpc::lease::{leases_of, one_of};
use crate::rpc::principal;
use crate::rpc::source::scan;
use crate::rpc::status::RpcError;
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};
use wharfinger_core::{AdminVerb, Core, Input, PoolView, Reply, Resource, ResourceId, Revision};

/// `AdminService`.
pub(crate) struct AdminApi(pub(crate) Context);

type Answer<T> = Result<Response<T>, Status>;

/// The target of a command, after it.
struct Seen {
    resource: Option<pb::Resource>,
    pool: Option<pb::Pool>,
}

#[async_trait]
impl pb::admin_service_server::AdminService for AdminApi {
    async fn list_pools(&self, request: Request<pb::ListPoolsRequest>) -> Answer<pb::ListPoolsResponse> {
        let work = async {
            let (pools, revision) = self.0.handle.read(|core, _| (core.pools(), core.revision())).await?;
            let pools = pools.iter().map(|pool| self.tell(pool)).collect();
            let warnings = self.0.handle.clock_warnings();
            Ok(pb::ListPoolsResponse { pools, revision: revision.0, warnings })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    async fn get_pool(&self, request: Request<pb::GetPoolRequest>) -> Answer<pb::GetPoolResponse> {
        let pb::GetPoolRequest { name, min_revision } = request.into_inner();
        let work = async {
            let (pool, revision) = self.pool(name.into()).await?;
            Ok(pb::GetPoolResponse { pool: Some(pool), revision })
        };
        self.0.since(min_revision, work).await
    }

    async fn list_resources(&self, request: Request<pb::ListResourcesRequest>) -> Answer<pb::ListResourcesResponse> {
        let asked = Arc::new(convert::list_resources(request.get_ref())?);
        self.0.since(request.get_ref().min_revision, self.resources_page(asked)).await
    }

    async fn get_resource(&self, request: Request<pb::GetResourceRequest>) -> Answer<pb::GetResourceResponse> {
        let id: ResourceId = convert::id("resource_id", &request.get_ref().resource_id)?;
        let work = async {
            let (resource, revision) = self.resource(id).await?.ok_or_else(|| RpcError::no_resource(id))?;
            Ok(pb::GetResourceResponse { resource: Some(resource), revision })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    async fn cordon(&self, request: Request<pb::CordonRequest>) -> Answer<pb::CordonResponse> {
        let Seen { resource, pool } = self.act_or_pool(&request, AdminVerb::Cordon, AdminVerb::CordonPool).await?;
        Ok(Response::new(pb::CordonResponse { resource, pool }))
    }

    async fn uncordon(&self, request: Request<pb::UncordonRequest>) -> Answer<pb::UncordonResponse> {
        let Seen { resource, pool } = self.act_or_pool(&request, AdminVerb::Uncordon, AdminVerb::UncordonPool).await?;
        Ok(Response::new(pb::UncordonResponse { resource, pool }))
    }

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Answer<pb::DrainResponse> {
        let (target, input) = convert::drain(request.get_ref(), principal::of(&request)?)?;
        let Seen { resource, .. } = self.0.within(self.submit(target, input)).await?;
        Ok(Response::new(pb::DrainResponse { resource }))
    }

    async fn hold(&self, request: Request<pb::HoldRequest>) -> Answer<pb::HoldResponse> {
        let (target, input) = convert::hold(request.get_ref(), principal::of(&request)?)?;
        let Seen { resource, .. } = self.0.within(self.submit(target, input)).await?;
        Ok(Response::new(pb::HoldResponse { resource }))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Answer<pb::CheckResponse> {
        let resource = self.act(&request, AdminVerb::Check).await?;
        Ok(Response::new(pb::CheckResponse { resource }))
    }

    async fn taint(&self, request: Request<pb::TaintRequest>) -> Answer<pb::TaintResponse> {
        let resource = self.act(&request, AdminVerb::Taint).await?;
        Ok(Response::new(pb::TaintResponse { resource }))
    }

    async fn quarantine(&self, request: Request<pb::QuarantineRequest>) -> Answer<pb::QuarantineResponse> {
        let resource = self.act(&request, AdminVerb::Quarantine).await?;
        Ok(Response::new(pb::QuarantineResponse { resource }))
    }

    async fn recover(&self, request: Request<pb::RecoverRequest>) -> Answer<pb::RecoverResponse> {
        let resource = self.act(&request, AdminVerb::Recover).await?;
        Ok(Response::new(pb::RecoverResponse { resource }))
    }

    async fn recycle(&self, request: Request<pb::RecycleRequest>) -> Answer<pb::RecycleResponse> {
        let resource = self.act(&request, AdminVerb::Recycle).await?;
        Ok(Response::new(pb::RecycleResponse { resource }))
    }

    async fn force_destroy(&self, request: Request<pb::ForceDestroyRequest>) -> Answer<pb::ForceDestroyResponse> {
        let resource = self.act(&request, AdminVerb::ForceDestroy).await?;
        Ok(Response::new(pb::ForceDestroyResponse { resource }))
    }

    async fn r#break(&self, request: Request<pb::BreakRequest>) -> Answer<pb::BreakResponse> {
        let (id, input) = convert::break_lease(request.get_ref(), principal::of(&request)?)?;
        let work = async {
            let lease = one_of(&leases_of(self.0.handle.submit(input).await?)?, id)?;
            Ok(pb::BreakResponse { lease: Some(tell_lease(&lease, self.0.reading())) })
        };
        self.0.answer(work).await
    }

    async fn weather(&self, _request: Request<pb::WeatherRequest>) -> Answer<pb::WeatherResponse> {
        let work = async {
            let leadership = self.0.handle.leadership();
            if leadership.role() == Role::Following {
                return Err(SubmitError::NotLeader(leadership.leader()).into());
            }
            Ok(pb::WeatherResponse { lines: (self.0.sources.weather)() })
        };
        self.0.answer(work).await
    }

    async fn events(&self, request: Request<pb::EventsRequest>) -> Answer<pb::EventsResponse> {
        let page = convert::events(request.get_ref())?;
        let work = async {
            let revision = self.0.revision();
            let (events, next_page_token) = page.cut(self.0.handle.events(page.query()).await?);
            let clock = self.0.reading();
            let events = events.into_iter().map(|event| convert::event(event, clock)).collect();
            Ok(pb::EventsResponse { events, revision, next_page_token })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }
}

impl AdminApi {
    /// Runs a command on a resource.
    async fn act<R: OnResource>(
        &self,
        request: &Request<R>,
        verb: fn(ResourceId) -> AdminVerb,
    ) -> Result<Option<pb::Resource>, Status> {
        let (target, input) = convert::on_resource(request.get_ref(), principal::of(request)?, verb)?;
        Ok(self.0.within(self.submit(target, input)).await?.resource)
    }

    /// Runs a command on a resource or a pool.
    async fn act_or_pool<R: OnResourceOrPool>(
        &self,
        request: &Request<R>,
        verb: fn(ResourceId) -> AdminVerb,
        pool_verb: fn(Arc<str>) -> AdminVerb,
    ) -> Result<Seen, Status> {
        let (target, input) =
            convert::on_resource_or_pool(request.get_ref(), principal::of(request)?, verb, pool_verb)?;
        Ok(self.0.within(self.submit(target, input)).await?)
    }

    /// Submits a command and returns its target as it is after it.
    async fn submit(&self, target: Target, input: Input) -> Result<Seen, RpcError> {
        let reply = self.0.handle.submit(input).await?;
        match target {
            Target::Pool(name) => Ok(Seen { resource: None, pool: Some(self.pool(name).await?.0) }),
            Target::Resource(_) | Target::OfLease(_) => {
                let Reply::Resource(last) = reply else {
                    return Err(RpcError::Bug("the core answered without a resource"));
                };
                let found = self.resource(last.id).await?.map(|(resource, _)| resource);
                let resource = found.unwrap_or_else(|| tell_resource(&last, &[], self.0.reading()));
                Ok(Seen { resource: Some(resource), pool: None })
            }
        }
    }

    /// A pool, and the revision of the state that it shows.
    async fn pool(&self, name: Arc<str>) -> Result<(pb::Pool, u64), RpcError> {
        let wanted = name.clone();
        let read = move |core: &Core, _now| core.pool(&wanted).map(|pool| (pool, core.revision().0));
        let (pool, revision) = self.0.handle.read(read).await?.ok_or_else(|| RpcError::no_pool(&name))?;
        Ok((self.tell(&pool), revision))
    }

    /// Only the server that leads has counters.
    fn tell(&self, pool: &PoolView) -> pb::Pool {
        let mut told = tell_pool(pool, self.0.reading());
        if self.0.handle.leadership().role() == Role::Following {
            told.counters = None;
        }
        told
    }

    /// A resource, and the revision of the state that it shows.
    async fn resource(&self, id: ResourceId) -> Result<Option<(pb::Resource, u64)>, RpcError> {
        let read = move |core: &Core, _now| {
            core.resource(id).map(|found| (found.clone(), core.leases_on(id), core.revision().0))
        };
        let found = self.0.find(read).await?;
        Ok(found.map(|(resource, leases, revision)| (tell_resource(&resource, &leases, self.0.reading()), revision)))
    }

    /// Reads in short steps, so that no read holds the engine up.
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
            let clock = self.0.reading();
            told.resources.extend(found.iter().map(|(leases, resource)| tell_resource(resource, leases, clock)));
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
