//! The operator's verbs: each is one call, and each takes a reason for the audit trail.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::impact::{self, When};
use super::json::Json;
use super::machines;
use super::read::resource_why;
use super::select::{Named, Placed, named, placed, time, wire};
use super::text;
use crate::client::Endpoints;
use crate::pb;
use crate::pb::admin_service_client::AdminServiceClient;
use clap::Args;
use std::fmt::Display;
use std::time::Duration;

type Admin = AdminServiceClient<Endpoints>;

/// Verbs on resources.
#[derive(Args, Debug)]
pub(crate) struct OnResource {
    /// Ids, or machines as POOL/ITEM, or as ITEM where only one pool has it
    #[arg(value_name = "RESOURCE|MACHINE", value_parser = placed, required = true)]
    places: Vec<Placed>,
    /// Why, for the audit trail
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    when: When,
}

/// `cordon` and `uncordon`: resources, or a whole pool.
#[derive(Args, Debug)]
pub(crate) struct OnResourceOrPool {
    /// Ids, or machines as POOL/ITEM, or as ITEM where only one pool has it
    #[arg(value_name = "RESOURCE|MACHINE", value_parser = placed, required_unless_present = "pool", conflicts_with = "pool")]
    places: Vec<Placed>,
    /// The whole pool in its stead
    #[arg(long, short, value_name = "POOL")]
    pool: Option<String>,
    /// Why, for the audit trail
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    when: When,
}

/// Arguments of `drain`.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    /// Ids, or machines as POOL/ITEM, or as ITEM where only one pool has it
    #[arg(value_name = "RESOURCE|MACHINE", value_parser = placed, required = true)]
    places: Vec<Placed>,
    /// Break the leases that are still there after this time; without it they run to their end
    #[arg(long, value_name = "TIME", value_parser = time)]
    deadline: Option<Duration>,
    /// Why, for the audit trail
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    when: When,
}

/// Arguments of `hold`.
#[derive(Args, Debug)]
pub(crate) struct HoldArgs {
    /// Resources or machines; of a lease, the resource that it is on
    #[arg(value_name = "RESOURCE|MACHINE|LEASE", required = true)]
    places: Vec<String>,
    /// For so long; then it goes back to service by way of a check
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    span: Duration,
    /// Why, for the audit trail and for who meets it
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    when: When,
}

/// Arguments of `note`.
#[derive(Args, Debug)]
pub(crate) struct NoteArgs {
    /// Id, or a machine as POOL/ITEM, or as ITEM where only one pool has it
    #[arg(value_name = "RESOURCE|MACHINE", value_parser = placed)]
    place: Placed,
    /// The note; an empty text removes it
    #[arg(value_name = "TEXT")]
    text: String,
    #[command(flatten)]
    when: When,
}

/// Arguments of `break`.
#[derive(Args, Debug)]
pub(crate) struct BreakArgs {
    /// Which
    #[arg(value_name = "LEASE")]
    lease: String,
    /// Why, for the audit trail and the holder
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    when: When,
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
    /// Forgotten by the broker.
    ForceDestroy,
    /// Its drain ends.
    Undrain,
}

/// Runs an order on each place, one after the other. A refusal ends none of the others; the exit code is that of the first one.
async fn each<P: Display>(
    context: &Context,
    places: Vec<P>,
    order: impl AsyncFn(P) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let (one, ui) = (places.len() == 1, context.ui);
    let mut refused = None;
    for place in places {
        let name = text::one_line(&place.to_string());
        match order(place).await {
            Ok(()) => {}
            Err(failure) if one => return Err(failure),
            Err(failure) => {
                refused.get_or_insert(failure.exit);
                let message = format!("{name}: {}", failure.message);
                ui.err(&Failure { message, ..failure }.render(ui.color_err));
            }
        }
    }
    refused.map_or(Ok(Exit::Ok), |exit| Err(Failure::silent(exit)))
}

/// The answer to a verb on a resource or a machine.
struct Answer {
    resource: Option<pb::Resource>,
    machine: Option<pb::Item>,
    impact: Option<pb::Impact>,
}

macro_rules! answer {
    ($context:ident, $call:expr) => {{
        let answer = $context.ask($call).await?;
        Answer { resource: answer.resource, machine: answer.machine, impact: answer.impact }
    }};
}

/// Runs a command on resources or machines.
pub(crate) async fn say(context: &Context, verb: Verb, args: OnResource) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let when = args.when.fields(context, &client).await?;
    if verb == Verb::Recover && !context.ui.json && !when.0 {
        context.ui.event("what was kept is checked and cleaned now: what it was kept for is deleted");
    }
    let order = async |place| one(context, client.admin(), verb, (place, args.reason.clone()), when).await;
    each(context, args.places, order).await
}

/// Runs a command on one resource or one machine.
async fn one(
    context: &Context,
    mut admin: Admin,
    verb: Verb,
    (place, reason): (Placed, String),
    (validate_only, if_revision): (bool, u64),
) -> Result<(), Failure> {
    let name = place.to_string();
    let (resource_id, machine) = place.parts();
    macro_rules! ask {
        ($call:ident, $request:ident) => {
            answer!(context, admin.$call(pb::$request { resource_id, machine, reason, validate_only, if_revision }))
        };
    }
    let answer = match verb {
        Verb::Check => ask!(check, CheckRequest),
        Verb::Taint => ask!(taint, TaintRequest),
        Verb::Quarantine => ask!(quarantine, QuarantineRequest),
        Verb::Recover => ask!(recover, RecoverRequest),
        Verb::Recycle => ask!(recycle, RecycleRequest),
        Verb::ForceDestroy => ask!(force_destroy, ForceDestroyRequest),
        Verb::Undrain => ask!(undrain, UndrainRequest),
    };
    let order = matches!(verb, Verb::Quarantine).then_some("the quarantine");
    tell(context, &name, &answer, order)
}

/// Stops new leases, or allows them again.
pub(crate) async fn cordon(context: &Context, args: OnResourceOrPool, on: bool) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let OnResourceOrPool { places, pool, reason, when } = args;
    let (validate_only, if_revision) = when.fields(context, &client).await?;
    let request = pb::CordonRequest { reason, validate_only, if_revision, ..pb::CordonRequest::default() };
    if let Some(pool) = pool {
        let request = pb::CordonRequest { pool, ..request };
        return cordon_one(context, client.admin(), on, request).await.map(|()| Exit::Ok);
    }
    let order = async |place: Placed| {
        let (resource_id, machine) = place.parts();
        let request = pb::CordonRequest { resource_id, machine, ..request.clone() };
        cordon_one(context, client.admin(), on, request).await
    };
    each(context, places, order).await
}

async fn cordon_one(context: &Context, mut admin: Admin, on: bool, request: pb::CordonRequest) -> Result<(), Failure> {
    let name = [&request.resource_id, &request.machine, &request.pool].into_iter().find(|name| !name.is_empty());
    let name = name.cloned().unwrap_or_default();
    let (answer, pool) = if on {
        let answer = context.ask(admin.cordon(request)).await?;
        (Answer { resource: answer.resource, machine: answer.machine, impact: answer.impact }, answer.pool)
    } else {
        let pb::CordonRequest { resource_id, pool, reason, machine, validate_only, if_revision } = request;
        let request = pb::UncordonRequest { resource_id, pool, reason, machine, validate_only, if_revision };
        let answer = context.ask(admin.uncordon(request)).await?;
        (Answer { resource: answer.resource, machine: answer.machine, impact: answer.impact }, answer.pool)
    };
    let Some(pool) = pool.filter(|_| answer.impact.is_none()) else {
        return tell(context, &name, &answer, on.then_some("the cordon"));
    };
    if context.ui.json {
        context.ui.document(&pool.json())?;
    } else {
        let state = if pool.cordoned { "cordoned" } else { "not cordoned" };
        context.ui.out(&format!("pool {} is {state}", pool.name))?;
    }
    Ok(())
}

/// No new leases, and away with it after the last.
pub(crate) async fn drain(context: &Context, args: DrainArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let DrainArgs { places, deadline, reason, when } = args;
    let (validate_only, if_revision) = when.fields(context, &client).await?;
    let order = async |place: Placed| {
        let name = place.to_string();
        let (resource_id, machine) = place.parts();
        let (reason, deadline) = (reason.clone(), deadline.and_then(wire));
        let request = pb::DrainRequest { resource_id, machine, reason, deadline, validate_only, if_revision };
        tell(context, &name, &answer!(context, client.admin().drain(request)), Some("the drain"))
    };
    each(context, places, order).await
}

/// Kept as it is for a while; breaks nothing.
pub(crate) async fn hold(context: &Context, args: HoldArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let HoldArgs { places, span, reason, when } = args;
    let (validate_only, if_revision) = when.fields(context, &client).await?;
    let order = async |place: String| {
        let name = place.clone();
        let (lease_id, (resource_id, machine)) = match named(&place) {
            Ok(Named::Lease(id)) => (id, Default::default()),
            Ok(Named::Resource(id)) => (String::new(), (id, String::new())),
            Err(_) => (String::new(), (String::new(), place)),
        };
        let (reason, hold) = (reason.clone(), wire(span));
        let request = pb::HoldRequest { resource_id, lease_id, machine, reason, hold, validate_only, if_revision };
        tell(context, &name, &answer!(context, client.admin().hold(request)), Some("the hold"))
    };
    each(context, places, order).await
}

/// Writes or removes a note.
pub(crate) async fn note(context: &Context, args: NoteArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let NoteArgs { place, text, when } = args;
    let (validate_only, if_revision) = when.fields(context, &client).await?;
    let name = place.to_string();
    let (resource_id, machine) = place.parts();
    let request = pb::NoteRequest { resource_id, text, machine, validate_only, if_revision };
    tell(context, &name, &answer!(context, client.admin().note(request)), Some("the note"))?;
    Ok(Exit::Ok)
}

/// Ends a lease against its holder's will.
pub(crate) async fn break_lease(context: &Context, args: BreakArgs) -> Result<Exit, Failure> {
    let client = context.connect().await?;
    let (validate_only, if_revision) = args.when.fields(context, &client).await?;
    let request = pb::BreakRequest { lease_id: args.lease, reason: args.reason, validate_only, if_revision };
    let answer = context.ask(client.admin().r#break(request)).await?;
    let lease = answer.lease.unwrap_or_default();
    if let Some(impact) = &answer.impact {
        impact::tell(context, &lease.id, impact)?;
    } else if context.ui.json {
        context.ui.document(&lease.json())?;
    } else {
        context.ui.out(&format!("{} {}", lease.id, text::lease_state(&lease)))?;
    }
    Ok(Exit::Ok)
}

/// Says what is so after a command. `order`: what it ordered, which ends with a resource that stands for no machine.
fn tell(context: &Context, name: &str, answer: &Answer, order: Option<&str>) -> Result<(), Failure> {
    let ui = context.ui;
    if let Some(impact) = &answer.impact {
        return impact::tell(context, name, impact);
    }
    match (&answer.resource, &answer.machine) {
        (Some(resource), _) if ui.json => ui.document(&resource.json())?,
        (None, Some(machine)) if ui.json => ui.document(&machine.json())?,
        (Some(resource), machine) => {
            let why = resource_why(resource);
            let why = if why.is_empty() { why } else { format!(": {why}") };
            ui.out(&format!("{} {}{why}", resource.id, text::resource_state(resource)))?;
            if let Some(machine) = machine {
                ui.out(&machines::line(machine))?;
            } else if let Some(order) = order {
                ui.event(&format!(
                    "{} stands for no machine of an inventory: {order} ends with this resource",
                    resource.id
                ));
            }
        }
        (None, Some(machine)) => ui.out(&machines::line(machine))?,
        (None, None) => ui.out("done")?,
    }
    Ok(())
}
