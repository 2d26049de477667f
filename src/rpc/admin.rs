//! The service `AdminService`.

use crate::auth::{Identity, Roles, Verb};
use crate::engine::{Role, SubmitError};
use crate::pb;
use crate::rpc::allow;
use crate::rpc::context::Context;
use crate::rpc::convert::{
    self, Command, OnResource, OnResourceOrPool, ResourceListing, Target, tell_item, tell_lease, tell_pool,
    tell_resource,
};
use crate::rpc::principal;
use crate::rpc::resource_watch;
use crate::rpc::source::scan;
use crate::rpc::status::RpcError;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};
use wharfinger_core::{
    AdminVerb, Caller, Core, Input, MachineVerb, PoolView, Rejection, RejectionKind, Reply, Resource, ResourceId,
    Revision, Scope, SeenResource, View,
};

/// The service `AdminService`.
pub(crate) struct AdminApi(pub(crate) Context);

/// The caller of a command.
struct By {
    identity: Arc<Identity>,
    verb: Verb,
    scope: Scope,
}

impl By {
    fn new<T>(request: &Request<T>, verb: Verb) -> Result<Self, RpcError> {
        let identity = principal::identity(request)?;
        let scope = identity.reads(verb).sees;
        Ok(Self { identity, verb, scope })
    }

    fn caller(&self) -> Caller {
        self.identity.reads(self.verb)
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// The target of a command, after it. With the impact: as it is, before the command.
#[derive(Default)]
struct Seen {
    resource: Option<pb::Resource>,
    machine: Option<pb::Item>,
    pool: Option<pb::Pool>,
    lease: Option<pb::Lease>,
    impact: Option<pb::Impact>,
}

#[async_trait]
impl pb::admin_service_server::AdminService for AdminApi {
    async fn list_pools(&self, request: Request<pb::ListPoolsRequest>) -> Answer<pb::ListPoolsResponse> {
        let scope = principal::of(&request, Verb::GetPool)?.sees;
        let work = async {
            let (pools, revision) = self.0.read(&scope, |view, _| (view.pools(), view.revision())).await?;
            let pools = pools.iter().map(|pool| self.tell(pool)).collect();
            let warnings = self.0.clock_warnings();
            Ok(pb::ListPoolsResponse { pools, revision: revision.0, warnings })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    async fn list_tenants(&self, request: Request<pb::ListTenantsRequest>) -> Answer<pb::ListTenantsResponse> {
        let scope = principal::of(&request, Verb::GetPool)?.sees;
        let work = async {
            let (tenants, revision) = self.0.read(&scope, |view, _| (view.tenants(), view.revision())).await?;
            Ok(pb::ListTenantsResponse {
                tenants: tenants.iter().map(convert::tell_tenant).collect(),
                revision: revision.0,
            })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    async fn get_pool(&self, request: Request<pb::GetPoolRequest>) -> Answer<pb::GetPoolResponse> {
        let scope = principal::of(&request, Verb::GetPool)?.sees;
        let pb::GetPoolRequest { name, min_revision } = request.into_inner();
        let work = async {
            let (pool, revision) = self.pool(&scope, name.into()).await?;
            Ok(pb::GetPoolResponse { pool: Some(pool), revision })
        };
        self.0.since(min_revision, work).await
    }

    async fn list_resources(&self, request: Request<pb::ListResourcesRequest>) -> Answer<pb::ListResourcesResponse> {
        let scope = principal::of(&request, Verb::GetResource)?.sees;
        let asked = Arc::new(convert::list_resources(request.get_ref())?);
        self.0.since(request.get_ref().min_revision, self.resources_page(&scope, asked)).await
    }

    async fn get_resource(&self, request: Request<pb::GetResourceRequest>) -> Answer<pb::GetResourceResponse> {
        let scope = principal::of(&request, Verb::GetResource)?.sees;
        let target = convert::get_resource(request.get_ref())?;
        let work = async {
            let id = self.named(&scope, target).await?;
            let (resource, revision) = self.resource(&scope, id).await?.ok_or_else(|| RpcError::no_resource(id))?;
            Ok(pb::GetResourceResponse { resource: Some(resource), revision })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    type WatchResourcesStream = ReceiverStream<resource_watch::Message>;

    async fn watch_resources(&self, request: Request<pb::WatchResourcesRequest>) -> Answer<Self::WatchResourcesStream> {
        let identity = principal::identity(&request)?;
        let verbs = match request.get_ref().include_pools {
            true => &[Verb::GetResource, Verb::GetPool][..],
            false => &[Verb::GetResource],
        };
        if let Some(verb) = verbs.iter().find(|verb| !identity.roles.has(**verb)) {
            return Err(RpcError::NotAllowed(format!("a watch of pools needs the verb {verb}, too")).into());
        }
        let scopes = verbs.iter().map(|verb| identity.reads(*verb).sees).collect::<Vec<_>>();
        let asked = convert::watch_resources(request.get_ref(), scopes[0].clone(), scopes.get(1).cloned())?;
        if self.0.stop.is_cancelled() {
            return Err(RpcError::Stopping.into());
        }
        let place = (self.0.watches.enter_stay("watches")?, self.0.sources.quotas.stay(&identity.tenant)?);
        let (out, stream) = mpsc::channel(resource_watch::CHANNEL);
        let context = self.0.clone();
        self.0.tasks.spawn(async move {
            let _place = place;
            let trust = context.trust.clone();
            // It is never narrowed in its middle: its client would take resources for unchanged that it no longer sees.
            let reaches = verbs.iter().map(|verb| (*verb, identity.roles.reach(*verb))).collect::<Vec<_>>();
            let allowed = |roles: &Roles| reaches.iter().all(|(verb, reach)| roles.reach(*verb).covers(reach));
            resource_watch::run(context, asked, out, trust.ended(&identity, allowed)).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn cordon(&self, request: Request<pb::CordonRequest>) -> Answer<pb::CordonResponse> {
        let Seen { resource, machine, pool, impact, .. } =
            self.act_or_pool(&request, Verb::Cordon, MachineVerb::Cordon, AdminVerb::CordonPool).await?;
        Ok(Response::new(pb::CordonResponse { resource, pool, machine, impact }))
    }

    async fn uncordon(&self, request: Request<pb::UncordonRequest>) -> Answer<pb::UncordonResponse> {
        let Seen { resource, machine, pool, impact, .. } =
            self.act_or_pool(&request, Verb::Uncordon, MachineVerb::Uncordon, AdminVerb::UncordonPool).await?;
        Ok(Response::new(pb::UncordonResponse { resource, pool, machine, impact }))
    }

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Answer<pb::DrainResponse> {
        let by = By::new(&request, Verb::Drain)?;
        let command = convert::drain(request.get_ref(), by.caller())?;
        let Seen { resource, machine, impact, .. } = self.0.within(self.carry_out(&by, command)).await?;
        Ok(Response::new(pb::DrainResponse { resource, machine, impact }))
    }

    async fn undrain(&self, request: Request<pb::UndrainRequest>) -> Answer<pb::UndrainResponse> {
        let Seen { resource, machine, impact, .. } = self.act(&request, Verb::Undrain, MachineVerb::Undrain).await?;
        Ok(Response::new(pb::UndrainResponse { resource, machine, impact }))
    }

    async fn hold(&self, request: Request<pb::HoldRequest>) -> Answer<pb::HoldResponse> {
        let by = By::new(&request, Verb::Hold)?;
        let command = convert::hold(request.get_ref(), by.caller())?;
        let Seen { resource, machine, impact, .. } = self.0.within(self.carry_out(&by, command)).await?;
        Ok(Response::new(pb::HoldResponse { resource, machine, impact }))
    }

    async fn check(&self, request: Request<pb::CheckRequest>) -> Answer<pb::CheckResponse> {
        let Seen { resource, machine, impact, .. } = self.act(&request, Verb::Check, MachineVerb::Check).await?;
        Ok(Response::new(pb::CheckResponse { resource, machine, impact }))
    }

    async fn taint(&self, request: Request<pb::TaintRequest>) -> Answer<pb::TaintResponse> {
        let Seen { resource, machine, impact, .. } = self.act(&request, Verb::Taint, MachineVerb::Taint).await?;
        Ok(Response::new(pb::TaintResponse { resource, machine, impact }))
    }

    async fn quarantine(&self, request: Request<pb::QuarantineRequest>) -> Answer<pb::QuarantineResponse> {
        let Seen { resource, machine, impact, .. } =
            self.act(&request, Verb::Quarantine, MachineVerb::Quarantine).await?;
        Ok(Response::new(pb::QuarantineResponse { resource, machine, impact }))
    }

    async fn recover(&self, request: Request<pb::RecoverRequest>) -> Answer<pb::RecoverResponse> {
        let Seen { resource, machine, impact, .. } = self.act(&request, Verb::Recover, MachineVerb::Recover).await?;
        Ok(Response::new(pb::RecoverResponse { resource, machine, impact }))
    }

    async fn recycle(&self, request: Request<pb::RecycleRequest>) -> Answer<pb::RecycleResponse> {
        let Seen { resource, machine, impact, .. } = self.act(&request, Verb::Recycle, MachineVerb::Recycle).await?;
        Ok(Response::new(pb::RecycleResponse { resource, machine, impact }))
    }

    async fn force_destroy(&self, request: Request<pb::ForceDestroyRequest>) -> Answer<pb::ForceDestroyResponse> {
        let Seen { resource, machine, impact, .. } =
            self.act(&request, Verb::ForceDestroy, MachineVerb::ForceDestroy).await?;
        Ok(Response::new(pb::ForceDestroyResponse { resource, machine, impact }))
    }

    async fn note(&self, request: Request<pb::NoteRequest>) -> Answer<pb::NoteResponse> {
        let by = By::new(&request, Verb::Note)?;
        let command = convert::note(request.get_ref(), by.caller())?;
        let Seen { resource, machine, impact, .. } = self.0.within(self.carry_out(&by, command)).await?;
        Ok(Response::new(pb::NoteResponse { resource, machine, impact }))
    }

    async fn r#break(&self, request: Request<pb::BreakRequest>) -> Answer<pb::BreakResponse> {
        let by = By::new(&request, Verb::Break)?;
        let command = convert::break_lease(request.get_ref(), by.caller())?;
        let work = async {
            let Seen { lease, impact, .. } = self.carry_out(&by, command).await?;
            Ok(pb::BreakResponse { lease, impact })
        };
        self.0.answer(work).await
    }

    async fn weather(&self, request: Request<pb::WeatherRequest>) -> Answer<pb::WeatherResponse> {
        if !principal::of(&request, Verb::Weather)?.sees.is_all() {
            let message = "the counts of bought machines are those of all pools: the rule has to have pools = [\"*\"]";
            return Err(RpcError::NotAllowed(message.to_owned()).into());
        }
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
        let scope = principal::of(&request, Verb::Events)?.sees;
        let page = convert::events(request.get_ref())?;
        let work = async {
            let revision = self.0.revision();
            let (mut events, next_page_token) = page.cut(self.0.events(&scope, page.query()).await?);
            events.retain(|event| scope.is_all() || event.pool.as_deref().is_some_and(|pool| scope.shows_pool(pool)));
            let clock = self.0.reading();
            let events = events.into_iter().map(|event| convert::event(event, clock)).collect();
            Ok(pb::EventsResponse { events, revision, next_page_token })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }
}

impl AdminApi {
    /// Runs a command on a resource or a machine.
    async fn act<R: OnResource>(&self, request: &Request<R>, verb: Verb, order: MachineVerb) -> Result<Seen, Status> {
        let by = By::new(request, verb)?;
        let command = convert::on_resource(request.get_ref(), by.caller(), order)?;
        Ok(self.0.within(self.carry_out(&by, command)).await?)
    }

    /// Runs a command on a resource, a machine or a pool.
    async fn act_or_pool<R: OnResourceOrPool>(
        &self,
        request: &Request<R>,
        verb: Verb,
        order: MachineVerb,
        pool_verb: fn(Arc<str>) -> AdminVerb,
    ) -> Result<Seen, Status> {
        let by = By::new(request, verb)?;
        let command = convert::on_resource_or_pool(request.get_ref(), by.caller(), order, pool_verb)?;
        Ok(self.0.within(self.carry_out(&by, command)).await?)
    }

    /// Carries a command out and returns its target as it is after it. A command that is only to be validated changes nothing.
    async fn carry_out(&self, by: &By, command: Command) -> Result<Seen, RpcError> {
        let target = command.target.clone();
        let (impact, reply) = match self.decide(by, command).await {
            Ok(decided) => decided,
            Err(error) => return Err(self.refusal(by, &target, error).await),
        };
        let seen = self.seen(&by.scope, reply).await?;
        Ok(Seen { impact, ..seen })
    }

    /// The core's answer to a command, with the impact of one that is only to be validated.
    async fn decide(&self, by: &By, command: Command) -> Result<(Option<pb::Impact>, Reply), SubmitError> {
        let Command { validate_only, request, .. } = command;
        if !validate_only {
            return Ok((None, self.0.submit(Input::Admin(request)).await?));
        }
        let read = move |view: View<'_>, _now| {
            view.would(&request).map(|(impact, reply)| (Some(convert::impact(&impact, view)), reply))
        };
        self.0.read_now(&by.scope, read).await?.map_err(SubmitError::Rejected)
    }

    /// The target of a command as it is now.
    async fn seen(&self, scope: &Scope, reply: Reply) -> Result<Seen, RpcError> {
        match reply {
            Reply::Pool(name) => Ok(Seen { pool: Some(self.pool(scope, name).await?.0), ..Seen::default() }),
            Reply::Machine(key) => {
                let wanted = key.clone();
                let item = self.0.read(scope, move |view, _now| view.item(&wanted)).await?;
                let resource = match item.resource {
                    Some(id) => self.resource(scope, id).await?.map(|(resource, _)| resource),
                    None => None,
                };
                let machine = Some(tell_item(&key.pool, &item, self.0.reading()));
                Ok(Seen { resource, machine, ..Seen::default() })
            }
            Reply::Resource(last) => {
                let id = last.id;
                let read = move |view: View<'_>, _now| view.machine_of(id).map(|key| (view.item(&key), key));
                let machine = self.0.read(scope, read).await?;
                let found = self.resource(scope, id).await?.map(|(resource, _)| resource);
                let forgotten = || SeenResource { resource: last, leases: Vec::new(), in_use: 0, in_cleaning: 0 };
                let resource = found.unwrap_or_else(|| tell_resource(&forgotten(), scope, self.0.reading()));
                let machine = machine.map(|(item, key)| tell_item(&key.pool, &item, self.0.reading()));
                Ok(Seen { resource: Some(resource), machine, ..Seen::default() })
            }
            Reply::Leases(leases) => {
                let lease = leases.first().map(|lease| tell_lease(lease, scope, self.0.reading()));
                Ok(Seen { lease, ..Seen::default() })
            }
            Reply::Done | Reply::Each(_) | Reply::Session(_) => {
                Err(RpcError::Bug("the core answered without the target of the command"))
            }
        }
    }

    /// The refusal of a command. A target out of the pools of the verb is refused as one that never was, unless the caller may read
    /// it.
    async fn refusal(&self, by: &By, target: &Target, error: SubmitError) -> RpcError {
        let SubmitError::Rejected(Rejection { kind: RejectionKind::NotFound, .. }) = &error else {
            return error.into();
        };
        let verb = if matches!(target, Target::Pool(_)) { Verb::GetPool } else { Verb::GetResource };
        let target = target.clone();
        let read = move |view: View<'_>, _now| match target {
            Target::Resource(id) => view.resource(id).map(|found| found.resource.pool.clone()),
            Target::Machine(name) => view.known_machine(&name).ok().map(|key| key.pool),
            Target::Pool(name) => view.pool(&name).map(|pool| pool.config.name.clone()),
            Target::OfLease(_) | Target::Lease(_) => None,
        };
        let pool =
            if by.identity.roles.has(verb) { self.0.read(&by.identity.reads(verb).sees, read).await } else { Ok(None) };
        let refused = |pool: Arc<str>| allow::not_in(&by.identity, by.verb, &pool);
        pool.ok().flatten().and_then(refused).unwrap_or_else(|| error.into())
    }

    /// The resource of a request: named, or the one that stands for a machine now.
    async fn named(&self, scope: &Scope, target: Target) -> Result<ResourceId, RpcError> {
        match target {
            Target::Resource(id) => Ok(id),
            Target::Machine(name) => {
                let read = move |view: View<'_>, _now| {
                    let key = view.known_machine(&name)?;
                    view.resource_of(&key).ok_or_else(|| Core::no_resource_for(&key))
                };
                Ok(self.0.read(scope, read).await?.map_err(SubmitError::Rejected)?)
            }
            Target::OfLease(_) | Target::Lease(_) | Target::Pool(_) => {
                Err(RpcError::Bug("a request names no resource"))
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
                let (found, last) = scan(view.resources(after), |resource| listed(&want, resource), room);
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
    convert::is_of_states(&asked.states, resource) && (asked.pools.is_empty() || asked.pools.contains(&resource.pool))
}
