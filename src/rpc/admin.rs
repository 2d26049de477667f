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
use wharfinger_core::{AdminVerb, Input, PoolView, Reply, Resource, ResourceId, Revision, Scope, SeenResource, View};

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
        let scope = principal::of(&request)?.sees;
        let work = async {
            let (pools, revision) = self.0.read(&scope, |view, _| (view.pools(), view.revision())).await?;
            let pools = pools.iter().map(|pool| self.tell(pool)).collect();
            let warnings = self.0.clock_warnings();
            Ok(pb::ListPoolsResponse { pools, revision: revision.0, warnings })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    async fn get_pool(&self, request: Request<pb::GetPoolRequest>) -> Answer<pb::GetPoolResponse> {
        let scope = principal::of(&request)?.sees;
        let pb::GetPoolRequest { name, min_revision } = request.into_inner();
        let work = async {
            let (pool, revision) = self.pool(&scope, name.into()).await?;
            Ok(pb::GetPoolResponse { pool: Some(pool), revision })
        };
        self.0.since(min_revision, work).await
    }

    async fn list_resources(&self, request: Request<pb::ListResourcesRequest>) -> Answer<pb::ListResourcesResponse> {
        let scope = principal::of(&request)?.sees;
        let asked = Arc::new(convert::list_resources(request.get_ref())?);
        self.0.since(request.get_ref().min_revision, self.resources_page(&scope, asked)).await
    }

    async fn get_resource(&self, request: Request<pb::GetResourceRequest>) -> Answer<pb::GetResourceResponse> {
        let scope = principal::of(&request)?.sees;
        let id: ResourceId = convert::id("resource_id", &request.get_ref().resource_id)?;
        let work = async {
            let (resource, revision) = self.resource(&scope, id).await?.ok_or_else(|| RpcError::no_resource(id))?;
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
        let caller = principal::of(&request)?;
        let (target, input) = convert::drain(request.get_ref(), caller.clone())?;
        let Seen { resource, .. } = self.0.within(self.submit(&caller.sees, target, input)).await?;
        Ok(Response::new(pb::DrainResponse { resource }))
    }

    async fn hold(&self, request: Request<pb::HoldRequest>) -> Answer<pb::HoldResponse> {
        let caller = principal::of(&request)?;
        let (target, input) = convert::hold(request.get_ref(), caller.clone())?;
        let Seen { resource, .. } = self.0.within(self.submit(&caller.sees, target, input)).await?;
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
        let caller = principal::of(&request)?;
        let (id, input) = convert::break_lease(request.get_ref(), caller.clone())?;
        let work = async {
            let lease = one_of(&leases_of(self.0.submit(input).await?)?, id)?;
            Ok(pb::BreakResponse { lease: Some(tell_lease(&lease, &caller.sees, self.0.reading())) })
        };
        self.0.answer(work).await
    }

    async fn weather(&self, _request: Request<pb::WeatherRequest>) -> Answer<pb::WeatherResponse> {
        let work = async {
            let leadership = self.0.leadership();
            if leadership.role() == Role::Following {
                return Err(SubmitError::NotLeader(leadership.leader()).into());
            }
            Ok(pb::WeatherResponse { lines: (self.0.sources.weather)() })
        };
        self.0.answer(work).await
    }

    async fn events(&self, request: Request<pb::EventsRequest>) -> Answer<pb::EventsResponse> {
        let scope = principal::of(&request)?.sees;
        let page = convert::events(request.get_ref())?;
        let work = async {
            let revision = self.0.revision();
            let (events, next_page_token) = page.cut(self.0.events(&scope, page.query()).await?);
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
        let caller = principal::of(request)?;
        let (target, input) = convert::on_resource(request.get_ref(), caller.clone(), verb)?;
        Ok(self.0.within(self.submit(&caller.sees, target, input)).await?.resource)
    }

    /// Runs a command on a resource or a pool.
    async fn act_or_pool<R: OnResourceOrPool>(
        &self,
        request: &Request<R>,
        verb: fn(ResourceId) -> AdminVerb,
        pool_verb: fn(Arc<str>) -> AdminVerb,
    ) -> Result<Seen, Status> {
        let caller = principal::of(request)?;
        let (target, input) = convert::on_resource_or_pool(request.get_ref(), caller.clone(), verb, pool_verb)?;
        Ok(self.0.within(self.submit(&caller.sees, target, input)).await?)
    }

    /// Submits a command and returns its target as it is after it.
    async fn submit(&self, scope: &Scope, target: Target, input: Input) -> Result<Seen, RpcError> {
        let reply = self.0.submit(input).await?;
        match target {
            Target::Pool(name) => Ok(Seen { resource: None, pool: Some(self.pool(scope, name).await?.0) }),
            Target::Resource(_) | Target::OfLease(_) => {
                let Reply::Resource(last) = reply else {
                    return Err(RpcError::Bug("the core answered without a resource"));
                };
                let found = self.resource(scope, last.id).await?.map(|(resource, _)| resource);
                let forgotten = || SeenResource { resource: last.clone(), leases: Vec::new(), in_use: 0 };
                let resource = found.unwrap_or_else(|| tell_resource(&forgotten(), scope, self.0.reading()));
                Ok(Seen { resource: Some(resource), pool: None })
            }
        }
    }

    /// A pool, and the revision of the state that it shows.
    async fn pool(&self, scope: &Scope, name: Arc<str>) -> Result<(pb::Pool, u64), RpcError> {
        let wanted = name.clone();
        let read = move |view: View<'_>, _now| view.pool(&wanted).map(|pool| (pool, view.revision().0));
        let (pool, revision) = self.0.read(scope, read).await?.ok_or_else(|| RpcError::no_pool(&name))?;
        Ok((self.tell(&pool), revision))
    }

    /// Only the server that leads has counters.
    fn tell(&self, pool: &PoolView) -> pb::Pool {
        let mut told = tell_pool(pool, self.0.reading());
        if self.0.leadership().role() == Role::Following {
            told.counters = None;
        }
        told
    }

    /// A resource, and the revision of the state that it shows.
    async fn resource(&self, scope: &Scope, id: ResourceId) -> Result<Option<(pb::Resource, u64)>, RpcError> {
        let read = move |view: View<'_>, _now| view.resource(id).map(|found| (found, view.revision().0));
        let found = self.0.find(scope, read).await?;
        Ok(found.map(|(resource, revision)| (tell_resource(&resource, scope, self.0.reading()), revision)))
    }

    /// Reads in short steps, so that no read holds the engine up.
    async fn resources_page(
        &self,
        scope: &Scope,
        asked: Arc<ResourceListing>,
    ) -> Result<pb::ListResourcesResponse, RpcError> {
        let mut told = pb::ListResourcesResponse::default();
        let mut after = asked.after;
        loop {
            let (want, room) = (asked.clone(), asked.size - told.resources.len());
            let read = move |view: View<'_>, _now| {
                let all = view.resources(after).map(|resource| (resource.id, Some(resource)));
                let (found, last) = scan(all, |resource| listed(&want, resource), room);
                let found: Vec<_> = found.iter().map(|resource| view.seen(resource)).collect();
                (found, last, view.revision())
            };
            let (found, last, Revision(revision)) = self.0.read(scope, read).await?;
            if told.revision == 0 {
                told.revision = revision;
            }
            let clock = self.0.reading();
            told.resources.extend(found.iter().map(|resource| tell_resource(resource, scope, clock)));
            let Some(last) = last else { return Ok(told) };
            if told.resources.len() >= asked.size {
                told.next_page_token = last.to_string();
                return Ok(told);
            }
            after = Some(last);
        }
    }
}

fn listed(asked: &ResourceListing, resource: &Resource) -> bool {
    let state = convert::resource_state(&resource.state);
    let wanted = if asked.states.is_empty() { state != pb::ResourceState::Gone } else { asked.states.contains(&state) };
    wanted && (asked.pools.is_empty() || asked.pools.contains(&resource.pool))
}
