//! The operator's verbs: each is one call, and each takes a reason for the audit trail.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::json::Json;
use super::look::resource_why;
use super::select::{Named, named, time, wire};
use super::text;
use crate::pb;
use clap::Args;
use std::time::Duration;

/// Verbs on one resource.
#[derive(Args, Debug)]
pub(crate) struct OnResource {
    /// Which
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Why, for the audit trail
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
}

/// `cordon` and `uncordon`: a resource, or a whole pool.
#[derive(Args, Debug)]
pub(crate) struct OnResourceOrPool {
    /// Which
    #[arg(value_name = "RESOURCE", required_unless_present = "pool", conflicts_with = "pool")]
    resource: Option<String>,
    /// The whole pool in its stead
    #[arg(long, short, value_name = "POOL")]
    pool: Option<String>,
    /// Why, for the audit trail
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
}

/// `drain`.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// Which
    #[arg(value_name = "RESOURCE")]
    resource: String,
    /// Break the leases that are still there after this time; without it they run to their end
    #[arg(long, value_name = "TIME", value_parser = time)]
    deadline: Option<Duration>,
    /// Why, for the audit trail
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
}

/// `hold`.
#[derive(Args, Debug)]
pub(crate) struct HoldArgs {
    /// Which resource; of a lease, the one that it is on
    #[arg(value_name = "RESOURCE|LEASE", value_parser = named)]
    id: Named,
    /// For so long; then it goes back to service by way of a check
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    span: Duration,
    /// Why, for the audit trail and for who meets it
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
}

/// `break`.
#[derive(Args, Debug)]
pub(crate) struct BreakArgs {
    /// Which
    #[arg(value_name = "LEASE")]
    lease: String,
    /// Why, for the audit trail and the holder
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Verbs that want a resource and a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// In doubt: checked now.
    Check,
    /// Known to be mangled.
    Taint,
    /// Kept for triage.
    Quarantine,
    /// Back from quarantine.
    Recover,
    /// Destroyed and made anew.
    Recycle,
    /// Forgotten.
    ForceDestroy,
}

/// Runs a command on one resource.
pub(crate) async fn say(context: &Context, verb: Verb, args: OnResource) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let OnResource { resource: resource_id, reason } = args;
    let resource = match verb {
        Verb::Check => context.ask(admin.check(pb::CheckRequest { resource_id, reason })).await?.resource,
        Verb::Taint => context.ask(admin.taint(pb::TaintRequest { resource_id, reason })).await?.resource,
        Verb::Quarantine => {
            context.ask(admin.quarantine(pb::QuarantineRequest { resource_id, reason })).await?.resource
        }
        Verb::Recover => context.ask(admin.recover(pb::RecoverRequest { resource_id, reason })).await?.resource,
        Verb::Recycle => context.ask(admin.recycle(pb::RecycleRequest { resource_id, reason })).await?.resource,
        Verb::ForceDestroy => {
            context.ask(admin.force_destroy(pb::ForceDestroyRequest { resource_id, reason })).await?.resource
        }
    };
    tell(context, resource.as_ref(), None)
}

/// Stops new leases, or allows them again.
pub(crate) async fn cordon(context: &Context, args: OnResourceOrPool, on: bool) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let (resource_id, pool) = (args.resource.unwrap_or_default(), args.pool.unwrap_or_default());
    let reason = args.reason;
    let (resource, pool) = if on {
        let answer = context.ask(admin.cordon(pb::CordonRequest { resource_id, pool, reason })).await?;
        (answer.resource, answer.pool)
    } else {
        let answer = context.ask(admin.uncordon(pb::UncordonRequest { resource_id, pool, reason })).await?;
        (answer.resource, answer.pool)
    };
    tell(context, resource.as_ref(), pool.as_ref())
}

/// No new leases, and away with it after the last.
pub(crate) async fn drain(context: &Context, args: DrainArgs) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let request =
        pb::DrainRequest { resource_id: args.resource, reason: args.reason, deadline: args.deadline.and_then(wire) };
    let resource = context.ask(admin.drain(request)).await?.resource;
    tell(context, resource.as_ref(), None)
}

/// Kept as it is for a while; breaks nothing.
pub(crate) async fn hold(context: &Context, args: HoldArgs) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let (lease_id, resource_id) = match args.id {
        Named::Lease(id) => (id, String::new()),
        Named::Resource(id) => (String::new(), id),
    };
    let request = pb::HoldRequest { resource_id, lease_id, reason: args.reason, hold: wire(args.span) };
    let resource = context.ask(admin.hold(request)).await?.resource;
    tell(context, resource.as_ref(), None)
}

/// Ends a lease against its holder's will.
pub(crate) async fn break_lease(context: &Context, args: BreakArgs) -> Result<Exit, Failure> {
    let mut admin = context.connect().await?.admin();
    let request = pb::BreakRequest { lease_id: args.lease, reason: args.reason };
    let lease = context.ask(admin.r#break(request)).await?.lease.unwrap_or_default();
    if context.ui.json {
        context.ui.document(&lease.json())?;
    } else {
        context.ui.out(&format!("{} {}", lease.id, text::lease_state(&lease)))?;
    }
    Ok(Exit::Ok)
}

fn tell(context: &Context, resource: Option<&pb::Resource>, pool: Option<&pb::Pool>) -> Result<Exit, Failure> {
    let ui = context.ui;
    match (resource, pool) {
        (Some(resource), _) if ui.json => ui.document(&resource.json())?,
        (None, Some(pool)) if ui.json => ui.document(&pool.json())?,
        (Some(resource), _) => {
            let why = resource_why(resource);
            let why = if why.is_empty() { why } else { format!(": {why}") };
            ui.out(&format!("{} {}{why}", resource.id, text::resource_state(resource)))?;
        }
        (None, Some(pool)) => {
            ui.out(&format!("pool {} is {}", pool.name, if pool.cordoned { "cordoned" } else { "not cordoned" }))?;
        }
        (None, None) => ui.out("done")?,
    }
    Ok(Exit::Ok)
}
