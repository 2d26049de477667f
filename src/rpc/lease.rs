//! The service `LeaseService`.

use crate::auth::{AuthError, Identity, Roles, Verb};
use crate::engine::{Filter, Role, SubmitError, WatchEvent};
use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::convert::{self, Listing, tell_lease};
use crate::rpc::principal;
use crate::rpc::source::scan;
use crate::rpc::status::{RpcError, refusal};
use crate::rpc::{about, allow, login, queue, servers, session, timeline, watch};
use crate::store::EventQuery;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};
use wharfinger_core::{Caller, Input, Lease, LeaseId, LeaseState, Reply, Revision, View};

/// Maximum number of entries in the history of `Explain`, the latest ones.
const HISTORY: usize = 200;

/// The service `LeaseService`.
pub(crate) struct LeaseApi(pub(crate) Context);

#[async_trait]
impl pb::lease_service_server::LeaseService for LeaseApi {
    async fn lease(&self, request: Request<pb::LeaseRequest>) -> Result<Response<pb::LeaseResponse>, Status> {
        let identity = principal::identity(&request)?;
        let caller = identity.leases();
        let (mut wanted, wait) = convert::lease(request.get_ref(), caller.clone())?;
        allow::lease(&self.0, &identity, &mut wanted)?;
        self.0.count_request(&caller)?;
        let deadline = Instant::now() + wait;
        // Before the request is submitted: a caller that is refused here has no lease in the queue.
        let waiting = if wait.is_zero() {
            None
        } else {
            let stay = self.0.sources.quotas.stay(&caller.tenant)?;
            Some((stay, self.0.waits.enter_stay("waiting Lease calls")?, wanted.clone()))
        };
        let mut leases = self.0.within(async { leases_of(self.0.submit(Input::Lease(wanted)).await?) }).await?;
        if let Some((_stay, _place, asked)) = &waiting
            && !settled(&leases)
        {
            let ended = self.0.trust.ended(&identity, |roles: &Roles| allow::still_allows(roles, asked));
            leases = self.wait(leases, &caller, deadline, ended).await?;
        }
        drop(waiting);
        Ok(Response::new(leased(&self.0, &caller, &leases).await?))
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        let identity = principal::identity(&request)?;
        self.0.answer(release(&self.0, &identity, request.get_ref())).await
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        let identity = principal::identity(&request)?;
        let caller = identity.leases();
        let work = async {
            let (renewal, ttl) = convert::renew(request.get_ref())?;
            match renewal {
                convert::Renewal::One(id) => {
                    let input = Input::Renew { lease: id, caller: caller.clone(), ttl };
                    let lease = one_of(&leases_of(allow::renew(&self.0, &identity, id, input).await?)?, id)?;
                    Ok(pb::RenewResponse { lease: Some(self.0.tell(&lease, &caller).await?), results: Vec::new() })
                }
                convert::Renewal::Several(ids) => {
                    let each = allow::renew_all(&self.0, &identity, ids, ttl).await?;
                    Ok(pb::RenewResponse { lease: None, results: renewed(&self.0, &caller, each).await? })
                }
            }
        };
        self.0.answer(work).await
    }

    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportResponse>, Status> {
        let identity = principal::identity(&request)?;
        self.0.answer(report(&self.0, &identity, request.get_ref())).await
    }

    type WatchStream = ReceiverStream<watch::Message>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let identity = principal::identity(&request)?;
        let asked = convert::watch(request.get_ref(), identity.reads(Verb::Watch))?;
        if self.0.stop.is_cancelled() {
            return Err(RpcError::Stopping.into());
        }
        let place = (self.0.watches.enter_stay("watches")?, self.0.sources.quotas.stay(&identity.tenant)?);
        let (out, stream) = mpsc::channel(watch::CHANNEL);
        let (source, stop) = (self.0.clone(), self.0.stop.clone());
        self.0.tasks.spawn(async move {
            let _place = place;
            let trust = source.trust.clone();
            let reach = identity.roles.reach(Verb::Watch);
            // It is never narrowed in its middle: its client would take leases for quiet that it no longer sees.
            let allowed = |roles: &Roles| roles.reach(Verb::Watch).covers(&reach);
            watch::run(source, asked, out, stop, trust.ended(&identity, allowed)).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type SessionStream = ReceiverStream<session::Message>;

    async fn session(
        &self,
        request: Request<Streaming<pb::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = principal::identity(&request)?;
        if self.0.stop.is_cancelled() {
            return Err(RpcError::Stopping.into());
        }
        if self.0.leadership().role() == Role::Following {
            return Err(RpcError::from(SubmitError::NotLeader(self.0.leadership().leader())).into());
        }
        let place = (self.0.watches.enter_stay("watches and sessions")?, self.0.sources.quotas.stay(&identity.tenant)?);
        let (out, stream) = mpsc::channel(session::CHANNEL);
        let context = self.0.clone();
        self.0.tasks.spawn(async move {
            let _place = place;
            session::run(context, identity, request.into_inner(), out).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        let caller = principal::of(&request, Verb::Get)?;
        let id: LeaseId = convert::id("lease_id", &request.get_ref().lease_id)?;
        let work = async {
            let read = move |view: View<'_>, _now| Some((view.lease(id).cloned()?, view.revision().0));
            let (lease, revision) = self.0.find(&caller.sees, read).await?.ok_or_else(|| RpcError::no_lease(id))?;
            Ok(pb::GetResponse { lease: Some(self.0.tell(&lease, &caller).await?), revision })
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let asked = Arc::new(convert::list(request.get_ref(), principal::of(&request, Verb::List)?.sees)?);
        self.0.since(request.get_ref().min_revision, self.list_page(asked)).await
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let scope = principal::of(&request, Verb::Explain)?.sees;
        let id: LeaseId = convert::id("lease_id", &request.get_ref().lease_id)?;
        let work = async {
            let read = move |view: View<'_>, now| {
                let (lease, why) = view.lease(id).cloned().zip(view.explain(id, now))?;
                Some((lease, why, view.likely_start(id, now), view.revision()))
            };
            let (lease, why, start, to) = self.0.find(&scope, read).await?.ok_or_else(|| RpcError::no_lease(id))?;
            // The history ends at the state that the answer shows, also on a server that follows.
            let mut query = EventQuery { lease: Some(id), newest_first: true, limit: HISTORY, ..EventQuery::default() };
            query.to = Some(to);
            let clock = self.0.reading();
            let events = self.0.events(&scope, &query).await?.into_iter().rev();
            let history = events.map(|event| convert::event(event, clock)).collect();
            let mut told = convert::explanation(tell_lease(&lease, &scope, clock), why, history);
            told.revision = to.0;
            (told.likely_start, told.no_likely_start) = start.as_ref().map(convert::likely_start).unwrap_or_default();
            Ok(told)
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    async fn list_queue(
        &self,
        request: Request<pb::ListQueueRequest>,
    ) -> Result<Response<pb::ListQueueResponse>, Status> {
        let scope = principal::of(&request, Verb::Explain)?.sees;
        let asked = convert::list_queue(request.get_ref())?;
        self.0.since(request.get_ref().min_revision, queue::page(&self.0, &scope, asked)).await
    }

    async fn timeline(&self, request: Request<pb::TimelineRequest>) -> Result<Response<pb::TimelineResponse>, Status> {
        let (about, limit) = convert::timeline(request.get_ref())?;
        let (verb, message) = match about {
            convert::About::Lease(_) => (Verb::Timeline, "the story of a lease needs the verb timeline"),
            convert::About::Resource(_) => (
                Verb::ResourceTimeline,
                "the story of a resource is that of all tenants, and needs the verb resource.timeline: ask for the timeline \
                 of a lease",
            ),
        };
        if !principal::identity(&request)?.roles.has(verb) {
            return Err(RpcError::NotAllowed(message.to_owned()).into());
        }
        let scope = principal::of(&request, verb)?.sees;
        let work = async {
            let revision = self.0.revision();
            let mut told = timeline::tell(&self.0, &scope, about, limit).await?;
            told.revision = revision;
            Ok(told)
        };
        self.0.since(request.get_ref().min_revision, work).await
    }

    async fn get_server(
        &self,
        _request: Request<pb::GetServerRequest>,
    ) -> Result<Response<pb::GetServerResponse>, Status> {
        Ok(Response::new(about::server(&self.0)))
    }

    async fn list_servers(
        &self,
        _request: Request<pb::ListServersRequest>,
    ) -> Result<Response<pb::ListServersResponse>, Status> {
        self.0.answer(servers::list(&self.0)).await
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Result<Response<pb::LoginResponse>, Status> {
        let identity = principal::identity(&request)?;
        let caller = identity.holds(Verb::Login, identity.roles.reach(Verb::Login));
        self.0.answer(login::login(&self.0, &caller, request.get_ref())).await
    }
}

impl LeaseApi {
    /// Waits until all are active, one has ended, or the deadline is over. A client that disconnects cancels nothing: it
    /// finds its leases again by its request id.
    async fn wait(
        &self,
        mut leases: Vec<Arc<Lease>>,
        caller: &Caller,
        deadline: Instant,
        ended: impl Future<Output = AuthError>,
    ) -> Result<Vec<Arc<Lease>>, RpcError> {
        let mut ended = std::pin::pin!(ended);
        let ids: Vec<_> = leases.iter().map(|lease| lease.id).collect();
        let filter = Filter { leases: ids.iter().copied().collect(), ..Filter::new(caller.sees.clone()) };
        // Subscribe, then read: a change between the two is in both.
        let mut changes = self.0.hub().subscribe(filter, ids.len() * 4);
        self.refresh(&mut leases, caller).await?;
        // Changes of the leases do not put it off.
        let mut renew_at = Instant::now() + third_of_ttl(&leases);
        while !settled(&leases) {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => break,
                // The request stays in the queue, and is found again with the present token.
                error = &mut ended => return Err(error.into()),
                () = tokio::time::sleep_until(renew_at), if partial(&leases) => {
                    self.renew_for_caller(&leases, caller).await?;
                    renew_at = Instant::now() + third_of_ttl(&leases);
                }
                () = self.0.stop.cancelled() => return Err(RpcError::Stopping),
                told = changes.recv() => match told {
                    WatchEvent::Lease(lease) => update(&mut leases, lease),
                    WatchEvent::Lagged => self.refresh(&mut leases, caller).await?,
                },
            }
        }
        Ok(leases)
    }

    /// A caller that waits for the rest of a group renews what the group has so far.
    async fn renew_for_caller(&self, leases: &[Arc<Lease>], caller: &Caller) -> Result<(), RpcError> {
        let Some(lease) = leases.first() else { return Ok(()) };
        let renew = Input::Renew { lease: lease.id, caller: caller.clone(), ttl: None };
        match self.0.submit(renew).await {
            // The lease ended meanwhile: the watch reports it.
            Ok(_) | Err(SubmitError::Rejected(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn refresh(&self, leases: &mut [Arc<Lease>], caller: &Caller) -> Result<(), RpcError> {
        let ids: Vec<_> = leases.iter().map(|lease| lease.id).collect();
        let read =
            move |view: View<'_>, _now| ids.into_iter().filter_map(|id| view.lease(id).cloned()).collect::<Vec<_>>();
        self.0.read(&caller.sees, read).await?.into_iter().for_each(|lease| update(leases, lease));
        Ok(())
    }

    /// Reads in short steps, so that no read holds the engine up.
    async fn list_page(&self, asked: Arc<Listing>) -> Result<pb::ListResponse, RpcError> {
        let mut told = pb::ListResponse::default();
        let mut after = asked.after;
        loop {
            let (want, room) = (asked.clone(), asked.size - told.leases.len());
            let read = move |view: View<'_>, _now| {
                (scan(view.leases(after), |lease| listed(&want, lease), room), view.revision())
            };
            let scope = &asked.filter.scope;
            let ((leases, last), Revision(revision)) = self.0.read(scope, read).await?;
            if told.revision == 0 {
                // Of the first read: a watch from there misses nothing.
                told.revision = revision;
            }
            let clock = self.0.reading();
            told.leases.extend(leases.iter().map(|lease| tell_lease(lease, scope, clock)));
            let Some(last) = last else { return Ok(told) };
            if told.leases.len() >= asked.size {
                told.next_page_token = last.to_string();
                return Ok(told);
            }
            after = Some(last);
        }
    }
}

fn listed(asked: &Listing, lease: &Lease) -> bool {
    let state = if asked.states.is_empty() {
        !lease.ended()
    } else {
        asked.states.contains(&convert::lease_state(&lease.state))
    };
    let there = asked.resource.is_none_or(|resource| lease.assignment().is_some_and(|held| held.resource == resource));
    let work = asked.works.is_empty() || lease.spec.work.as_ref().is_some_and(|work| asked.works.contains(work));
    state && there && work && asked.filter.matches(lease)
}

/// The wait is over: all are active, or one has ended.
fn settled(leases: &[Arc<Lease>]) -> bool {
    leases.iter().any(|lease| lease.ended())
        || leases.iter().all(|lease| matches!(lease.state, LeaseState::Active { .. }))
}

/// Some members of a group have slots, and others are in the queue.
fn partial(leases: &[Arc<Lease>]) -> bool {
    leases.iter().any(|lease| matches!(lease.state, LeaseState::Queued))
        && leases.iter().any(|lease| matches!(lease.state, LeaseState::Active { .. }))
}

fn third_of_ttl(leases: &[Arc<Lease>]) -> Duration {
    let ttl = leases.iter().map(|lease| lease.spec.ttl.0).min().unwrap_or(0);
    Duration::from_millis(u64::try_from(ttl).unwrap_or(0) / 3).max(Duration::from_millis(100))
}

fn update(leases: &mut [Arc<Lease>], newer: Arc<Lease>) {
    if let Some(lease) = leases.iter_mut().find(|lease| lease.id == newer.id && lease.revision < newer.revision) {
        *lease = newer;
    }
}

/// Ends a lease.
pub(super) async fn release(
    context: &Context,
    identity: &Identity,
    request: &pb::ReleaseRequest,
) -> Result<pb::ReleaseResponse, RpcError> {
    let caller = identity.leases();
    let (id, input) = convert::release(request, caller.clone())?;
    let leases = leases_of(allow::release(context, identity, id, input).await?)?;
    let lease = one_of(&leases, id)?;
    let clock = context.reading();
    let told = |lease: &Lease| tell_lease(lease, &caller.sees, clock);
    let (_, leases) = first_and_all(leases.iter().map(|lease| told(lease)).collect());
    Ok(pb::ReleaseResponse { lease: Some(told(&lease)), leases })
}

/// Reports failures of the work on a lease.
pub(super) async fn report(
    context: &Context,
    identity: &Identity,
    request: &pb::ReportRequest,
) -> Result<pb::ReportResponse, RpcError> {
    let caller = identity.leases();
    let (id, input) = convert::report(request, caller.clone())?;
    let lease = one_of(&leases_of(allow::report(context, identity, id, input).await?)?, id)?;
    Ok(pb::ReportResponse { lease: Some(tell_lease(&lease, &caller.sees, context.reading())) })
}

/// The results of several renewals.
pub(super) async fn renewed(
    context: &Context,
    caller: &Caller,
    each: Vec<(LeaseId, Result<Arc<Lease>, RpcError>)>,
) -> Result<Vec<pb::RenewResult>, RpcError> {
    let mut results = Vec::with_capacity(each.len());
    for (id, renewed) in each {
        let result = match renewed {
            Ok(lease) => pb::renew_result::Result::Lease(context.tell(&lease, caller).await?),
            Err(error) => pb::renew_result::Result::Refusal(refusal(error)),
        };
        results.push(pb::RenewResult { lease_id: id.to_string(), result: Some(result) });
    }
    Ok(results)
}

/// The answer to a request for leases.
pub(super) async fn leased(
    context: &Context,
    caller: &Caller,
    leases: &[Arc<Lease>],
) -> Result<pb::LeaseResponse, RpcError> {
    let mut told = Vec::with_capacity(leases.len());
    for lease in leases {
        told.push(context.tell(lease, caller).await?);
    }
    let (lease, leases) = first_and_all(told);
    Ok(pb::LeaseResponse { lease, leases })
}

/// The leases of a reply.
pub(crate) fn leases_of(reply: Reply) -> Result<Vec<Arc<Lease>>, RpcError> {
    match reply {
        Reply::Leases(leases) if !leases.is_empty() => Ok(leases),
        Reply::Leases(_)
        | Reply::Each(_)
        | Reply::Done
        | Reply::Resource(_)
        | Reply::Pool(_)
        | Reply::Machine(_)
        | Reply::Session(_) => Err(RpcError::Bug("the core answered without a lease")),
    }
}

/// The named lease of a group.
pub(crate) fn one_of(leases: &[Arc<Lease>], id: LeaseId) -> Result<Arc<Lease>, RpcError> {
    leases.iter().find(|lease| lease.id == id).cloned().ok_or(RpcError::Bug("the core answered with another lease"))
}

/// The first lease, and all of them if there are several. A single lease is sent once.
fn first_and_all(mut leases: Vec<pb::Lease>) -> (Option<pb::Lease>, Vec<pb::Lease>) {
    if leases.len() == 1 {
        return (leases.pop(), leases);
    }
    (leases.first().cloned(), leases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing;

    #[test]
    fn a_group_is_settled_when_all_are_active_or_one_has_ended() {
        let [queued, active, ended] =
            [testing::queued(1, 1), testing::active(2, 2), testing::released(3, 3)].map(Arc::new);
        assert!(settled(&[active.clone(), active.clone()]));
        assert!(!settled(&[active.clone(), queued.clone()]));
        assert!(settled(&[queued, ended]));
    }

    #[test]
    fn an_older_state_never_replaces_a_newer_one() {
        let mut leases = vec![Arc::new(testing::active(1, 5))];
        update(&mut leases, Arc::new(testing::queued(1, 4)));
        assert_eq!(leases[0].revision, Revision(5));
        update(&mut leases, Arc::new(testing::released(1, 6)));
        assert_eq!(leases[0].revision, Revision(6));
    }
}
