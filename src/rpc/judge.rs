//! Judges a call as the services do, without a server: for `policy test`.

use crate::auth::{Ending, Identity, Limits, Reach, Verb, Whose};
use crate::pb;
use crate::rpc::allow::{not_in, wanted};
use crate::rpc::convert;
use crate::rpc::status::RpcError;
use wharfinger_core::{LeaseId, Millis, PoolConfig, Rejection, RejectionKind, ResourceId};

/// A call, as far as rules are about it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The verb.
    pub verb: Verb,
    /// The pool that the request names, or that of its lease or resource. `None`: the request goes by labels, or is about no pool.
    pub pool: Option<String>,
    /// The owner of the lease.
    pub whose: Whose,
    /// The request for leases.
    pub request: pb::LeaseRequest,
    /// The TTL of a renewal.
    pub ttl: Option<Millis>,
    /// The time that a release keeps the resource.
    pub hold: Option<Millis>,
    /// Whether a release reports the resource as mangled.
    pub tainted: bool,
}

/// Judges a call of this caller over these pools. The lease or resource of the call is taken to exist.
///
/// # Errors
/// The refusal that the call would meet.
pub fn judge(identity: &Identity, call: &Call, pools: &[PoolConfig]) -> Result<(), RpcError> {
    let (roles, verb) = (&identity.roles, call.verb);
    if !roles.has(verb) {
        let message = format!("the roles of {} ({roles}) do not have the verb {verb}", identity.principal);
        return Err(RpcError::NotAllowed(message));
    }
    let known = |name: &str| pools.iter().any(|pool| *pool.name == *name);
    if let Some(name) = call.pool.as_deref().filter(|name| !(known(name) && roles.pools().has(name))) {
        return Err(RpcError::no_pool(name));
    }
    match verb {
        Verb::Lease => lease(identity, call, pools),
        Verb::Get | Verb::List | Verb::Watch | Verb::Explain | Verb::Timeline | Verb::Break => {
            seen(&roles.reach(verb), call)
        }
        Verb::Release | Verb::Renew | Verb::Report | Verb::Login => held(identity, call, pools),
        Verb::Events | Verb::Weather => Ok(()),
        Verb::GetPool
        | Verb::GetResource
        | Verb::ResourceTimeline
        | Verb::Cordon
        | Verb::Uncordon
        | Verb::Drain
        | Verb::Undrain
        | Verb::Check
        | Verb::Taint
        | Verb::Quarantine
        | Verb::Hold
        | Verb::Recover
        | Verb::Recycle
        | Verb::ForceDestroy
        | Verb::Note => {
            let Some(pool) = call.pool.as_deref() else { return Ok(()) };
            if roles.reach(verb).pools.has(pool) {
                return Ok(());
            }
            let refused = not_in(identity, verb, pool).filter(|_| roles.reach(Verb::GetResource).pools.has(pool));
            Err(refused.unwrap_or_else(|| match verb {
                Verb::GetPool => RpcError::no_pool(pool),
                _ => RpcError::no_resource(ResourceId::new(1)),
            }))
        }
    }
}

fn lease(identity: &Identity, call: &Call, pools: &[PoolConfig]) -> Result<(), RpcError> {
    let mut message = call.request.clone();
    message.request_id = "policy-test".to_owned();
    let selector = message.selector.get_or_insert_default();
    selector.pool = call.pool.clone().unwrap_or_default();
    let (request, _) = convert::lease(&message, identity.leases())?;
    let here = |pool: &&PoolConfig| match &call.pool {
        Some(name) => *pool.name == **name,
        None => identity.roles.pools_with(Verb::Lease).has(&pool.name),
    };
    let usual = pools.iter().find(here).map(|pool| pool.default_ttl);
    identity.roles.lease(&wanted(&request, usual)).map(drop).map_err(RpcError::Refused)
}

fn seen(reach: &Reach, call: &Call) -> Result<(), RpcError> {
    if reach.has(call.whose, call.pool.as_deref()) { Ok(()) } else { Err(RpcError::no_lease(LeaseId::new(1))) }
}

fn held(identity: &Identity, call: &Call, pools: &[PoolConfig]) -> Result<(), RpcError> {
    let (roles, verb) = (&identity.roles, call.verb);
    seen(&roles.reach(Verb::Get).and(&roles.reach(verb)), call)?;
    let ending = Ending { hold: call.hold, tainted: call.tainted };
    let shares: Vec<_> = pools.iter().map(|pool| (pool.name.clone(), pool.slots > 1)).collect();
    let shared = shares.iter().any(|(name, shared)| *shared && call.pool.as_deref() == Some(&**name));
    let beyond = |limits: &Limits| match verb {
        Verb::Release => limits.beyond_release(ending, shared),
        Verb::Renew => limits.beyond_renewal(call.ttl),
        _ => None,
    };
    let reach = match verb {
        Verb::Release => roles.reach_of_release(ending, &shares),
        _ => roles.reach_where(verb, |rule| beyond(&rule.limits).is_none().then(|| rule.pools.clone())),
    };
    if reach.has(call.whose, call.pool.as_deref()) {
        return Ok(());
    }
    if call.whose == Whose::Own {
        return Err(RpcError::Refused(roles.refusal(verb, call.pool.as_deref().unwrap_or("none yet"), beyond)));
    }
    let rejection = Rejection {
        kind: RejectionKind::Denied,
        reason: "NOT_YOURS",
        field: "lease_id".to_owned(),
        message: "the lease belongs to another principal".to_owned(),
        retry_after: None,
    };
    Err(RpcError::Submit(crate::engine::SubmitError::Rejected(rejection)))
}
