//! Asks the rules of a caller for what the method alone does not say: pools, limits, and the leases that a call may act on.
//!
//! A request for leases is compared with the rules before it is submitted. A call on a lease brings the leases that it may act on
//! with it, and the core asks in the step that acts. The refusal names the nearest rule.

use crate::auth::{Allowed, Beyond, Ending, Identity, Limits, Reach, Refusal, Roles, Verb, Wanted, WantedClaim};
use crate::engine::SubmitError;
use crate::rpc::context::Context;
use crate::rpc::status::RpcError;
use std::sync::Arc;
use wharfinger_core::{
    Caller, Claim, Input, Lease, LeaseId, LeaseRequest, Millis, Outcome, Pools, Rejection, Reply, Scope, SessionStream,
    View,
};

/// Compares a request for leases with the rules of its caller. Selectors without a pool match only pools of a rule that allows all
/// of the request.
pub(crate) fn lease(context: &Context, identity: &Identity, request: &mut LeaseRequest) -> Result<(), RpcError> {
    let usual = match request.ttl {
        Some(_) => None,
        None if !identity.roles.limits_ttl() => None,
        None => usual_ttl(context, identity, request)?,
    };
    let Allowed { pools, total, rule } = identity.roles.lease(&wanted(request, usual)).map_err(RpcError::Refused)?;
    tracing::trace!(request = &*request.request_id, principal = &*identity.principal, rule, "a rule allows it");
    among(request, &pools);
    bound_total(request, total);
    Ok(())
}

/// The same for a request over a session, whose TTL is that of the leases. The request keeps its own words.
pub(crate) fn lease_kept(
    context: &Context,
    identity: &Identity,
    request: &mut LeaseRequest,
    ttl: Millis,
) -> Result<(), RpcError> {
    let own = request.ttl.replace(ttl);
    let allowed = lease(context, identity, request);
    request.ttl = own;
    allowed
}

/// Whether these roles still allow a request that they allowed.
pub(crate) fn still_allows(roles: &Roles, request: &LeaseRequest) -> bool {
    let shown = roles.pools();
    let of_rules = |claim: &Claim| match &claim.selector.pool {
        Some(pool) => shown.has(pool),
        None => roles.pools_with(Verb::Lease).covers(&claim.selector.among),
    };
    // Without a TTL of its own the request has that of its pool, which was allowed.
    request.claims.iter().all(of_rules) && roles.lease(&wanted(request, Some(Millis::ZERO))).is_ok()
}

pub(crate) fn wanted(request: &LeaseRequest, usual: Option<Millis>) -> Wanted<'_> {
    let several = request.claims.len() > 1;
    let claims = request.claims.iter().enumerate().map(|(n, claim)| WantedClaim {
        at: if several { format!("claims[{n}].") } else { String::new() },
        pool: claim.selector.pool.as_deref(),
        labels: &claim.selector.labels,
        count: claim.count,
        params: &claim.params,
    });
    Wanted {
        claims: claims.collect(),
        ttl: request.ttl.or(usual),
        queue_for: request.queue_for,
        no_queue: request.no_queue,
        priority: request.priority,
        replace: request.replace,
        tags: &request.tags,
    }
}

/// The longest TTL that the claims of a request have by their pools.
fn usual_ttl(context: &Context, identity: &Identity, request: &LeaseRequest) -> Result<Option<Millis>, SubmitError> {
    let mut request = request.clone();
    among(&mut request, &identity.roles.pools_with(Verb::Lease));
    context.usual_ttl(request.claims.iter().map(|claim| &*claim.selector))
}

/// Selectors without a pool match these pools alone.
fn among(request: &mut LeaseRequest, pools: &Pools) {
    for claim in &mut request.claims {
        if claim.selector.pool.is_none() && !pools.is_all() {
            Arc::make_mut(&mut claim.selector).among = pools.clone();
        }
    }
}

/// The one place at which the total of the rule (`limits.total`) goes into the request.
fn bound_total(request: &mut LeaseRequest, total: Option<Millis>) {
    request.total = request.total.into_iter().chain(total).min();
}

/// Ends a lease.
pub(crate) async fn release(
    context: &Context,
    identity: &Identity,
    id: LeaseId,
    input: Input,
) -> Result<Reply, RpcError> {
    let ending = match &input {
        Input::Release { outcome, hold, .. } => Ending { hold: *hold, tainted: *outcome == Outcome::Tainted },
        _ => return Err(RpcError::Bug("a release is no release")),
    };
    let pools = if ending.tainted { pools(context).await? } else { Vec::new() };
    let reach = identity.roles.reach_of_release(ending, &pools);
    let beyond = move |limits: &Limits, shared: bool| limits.beyond_release(ending, shared);
    on_lease(context, identity, Verb::Release, id, (reach, input), beyond).await
}

/// All pools, each with whether its resources have slots for several leases.
async fn pools(context: &Context) -> Result<Vec<(Arc<str>, bool)>, RpcError> {
    let read = |view: View<'_>, _now| {
        let pools = view.pools().into_iter().map(|pool| pool.config.name.clone());
        pools.map(|name| (name.clone(), view.shares_resources(&name))).collect()
    };
    Ok(context.read(&Scope::All, read).await?)
}

/// Renews a lease.
pub(crate) async fn renew(
    context: &Context,
    identity: &Identity,
    id: LeaseId,
    input: Input,
) -> Result<Reply, RpcError> {
    let Input::Renew { ttl, .. } = &input else { return Err(RpcError::Bug("a renewal is no renewal")) };
    let ttl = *ttl;
    let beyond = move |limits: &Limits, _shared: bool| limits.beyond_renewal(ttl);
    on_lease(context, identity, Verb::Renew, id, (reach_of_renewal(identity, ttl), input), beyond).await
}

/// Renews several leases in one step. Each has the result that a renewal of it alone would have.
pub(crate) async fn renew_all(
    context: &Context,
    identity: &Identity,
    ids: Vec<LeaseId>,
    ttl: Option<Millis>,
) -> Result<Vec<(LeaseId, Result<Arc<Lease>, RpcError>)>, RpcError> {
    renew_each(context, identity, ids, ttl, |leases, caller| Input::RenewAll { leases, caller, ttl }).await
}

/// Takes several leases into a session with this TTL. Each has a result of its own.
pub(crate) async fn keep_all(
    context: &Context,
    identity: &Identity,
    ids: Vec<LeaseId>,
    (stream, ttl): (SessionStream, Millis),
) -> Result<Vec<(LeaseId, Result<Arc<Lease>, RpcError>)>, RpcError> {
    renew_each(context, identity, ids, Some(ttl), |leases, caller| Input::KeepAll { leases, caller, stream }).await
}

async fn renew_each(
    context: &Context,
    identity: &Identity,
    ids: Vec<LeaseId>,
    ttl: Option<Millis>,
    input: impl FnOnce(Vec<LeaseId>, Caller) -> Input,
) -> Result<Vec<(LeaseId, Result<Arc<Lease>, RpcError>)>, RpcError> {
    let caller = identity.holds(Verb::Renew, reach_of_renewal(identity, ttl));
    let sees = caller.sees.clone();
    let Reply::Each(each) = context.submit(input(ids.clone(), caller)).await? else {
        return Err(RpcError::Bug("the core answered several renewals as one"));
    };
    let mut results = Vec::with_capacity(ids.len());
    for (id, renewed) in ids.into_iter().zip(each) {
        let result = match renewed {
            Ok(lease) => Ok(lease),
            Err(rejection) if rejection.reason == "NOT_ALLOWED" => {
                let beyond = |limits: &Limits, _shared: bool| limits.beyond_renewal(ttl);
                Err(not_allowed(context, identity, Verb::Renew, id, &sees, beyond).await?)
            }
            Err(rejection) => Err(SubmitError::Rejected(rejection).into()),
        };
        results.push((id, result));
    }
    Ok(results)
}

/// The leases that a renewal may act on.
fn reach_of_renewal(identity: &Identity, ttl: Option<Millis>) -> Reach {
    let within = |limits: &Limits| limits.beyond_renewal(ttl).is_none();
    identity.roles.reach_where(Verb::Renew, |rule| within(&rule.limits).then(|| rule.pools.clone()))
}

/// Reports failures of the work on a lease.
pub(crate) async fn report(
    context: &Context,
    identity: &Identity,
    id: LeaseId,
    input: Input,
) -> Result<Reply, RpcError> {
    let reach = identity.roles.reach(Verb::Report);
    on_lease(context, identity, Verb::Report, id, (reach, input), |_, _| None).await
}

/// Submits a call on a lease with the leases that it may act on. A refusal of one's own lease names the rule.
async fn on_lease(
    context: &Context,
    identity: &Identity,
    verb: Verb,
    id: LeaseId,
    (reach, mut input): (Reach, Input),
    beyond: impl Fn(&Limits, bool) -> Option<Beyond>,
) -> Result<Reply, RpcError> {
    let caller = identity.holds(verb, reach);
    let sees = caller.sees.clone();
    if let Input::Release { caller: by, .. }
    | Input::Renew { caller: by, .. }
    | Input::Report { caller: by, .. }
    | Input::Unreached { caller: by, .. } = &mut input
    {
        *by = caller;
    }
    match context.submit(input).await {
        Err(SubmitError::Rejected(Rejection { reason: "NOT_ALLOWED", .. })) => {
            Err(not_allowed(context, identity, verb, id, &sees, beyond).await?)
        }
        other => Ok(other?),
    }
}

/// The refusal of a call on a lease that is beyond the rules, which names the nearest one.
async fn not_allowed(
    context: &Context,
    identity: &Identity,
    verb: Verb,
    id: LeaseId,
    sees: &Scope,
    beyond: impl Fn(&Limits, bool) -> Option<Beyond>,
) -> Result<RpcError, RpcError> {
    let read = move |view: View<'_>, _now| {
        let pool = view.lease(id)?.pool.clone()?;
        let shared = view.shares_resources(&pool);
        Some((pool, shared))
    };
    let place = context.read(sees, read).await?;
    let (pool, shared) = place.unwrap_or_else(|| (Arc::from("none yet"), false));
    Ok(RpcError::Refused(identity.roles.refusal(verb, &pool, |limits| beyond(limits, shared))))
}

/// The refusal of an operator's verb in a pool that exists for the caller, and in which its roles do not have the verb.
pub(crate) fn not_in(identity: &Identity, verb: Verb, pool: &str) -> Option<RpcError> {
    let refusal: Refusal = identity.roles.can(verb, Some(pool)).err()?;
    Some(RpcError::Refused(refusal))
}
