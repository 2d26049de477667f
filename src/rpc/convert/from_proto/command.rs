//! The commands of operators.

use super::target::{About, Target, one_of, resource_or_machine};
use crate::pb;
use crate::rpc::status::RpcError;
use crate::rpc::validate::{Lines, MAX_TEXT, MAX_VALUE, Problems, Span};
use std::sync::Arc;
use wharfinger_core::{AdminRequest, AdminVerb, Caller, MachineVerb, Millis, Revision};

/// Need of a reason for a command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Required,
    Optional,
}

/// An operator's command on one resource.
pub(crate) trait OnResource {
    /// Whether the command needs a reason.
    const NEEDS_REASON: bool = false;
    /// Id of the resource.
    fn resource_id(&self) -> &str;
    /// Name of the machine, in place of a resource.
    fn machine(&self) -> &str;
    /// Reason of the operator.
    fn reason(&self) -> &str;
    /// When the command is carried out.
    fn when(&self) -> When;
}

/// When a command is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct When {
    /// Never: the answer says what it would end.
    validate_only: bool,
    /// Only if no lease got a slot at the target since this revision.
    if_revision: Option<Revision>,
}

impl When {
    fn new(validate_only: bool, if_revision: u64) -> Self {
        Self { validate_only, if_revision: (if_revision > 0).then_some(Revision(if_revision)) }
    }
}

/// A command of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// Target of the command.
    pub(crate) target: Target,
    /// Whether the answer only says what the command would end.
    pub(crate) validate_only: bool,
    /// Request to the core.
    pub(crate) request: AdminRequest,
}

impl Command {
    fn new(target: impl Into<Target>, caller: Caller, reason: Arc<str>, verb: AdminVerb, when: When) -> Self {
        let When { validate_only, if_revision } = when;
        Self { target: target.into(), validate_only, request: AdminRequest { caller, reason, verb, if_revision } }
    }
}

/// An operator's command on one resource or on a whole pool.
pub(crate) trait OnResourceOrPool: OnResource {
    /// Name of the pool, in place of a resource.
    fn pool(&self) -> &str;
}

macro_rules! on_resource {
    ($($request:ident $needs_reason:literal),* $(,)?) => {
        $(impl OnResource for pb::$request {
            const NEEDS_REASON: bool = $needs_reason;
            fn resource_id(&self) -> &str {
                &self.resource_id
            }
            fn machine(&self) -> &str {
                &self.machine
            }
            fn reason(&self) -> &str {
                &self.reason
            }
            fn when(&self) -> When {
                When::new(self.validate_only, self.if_revision)
            }
        })*
    };
}

on_resource! {
    CordonRequest false,
    UncordonRequest false,
    UndrainRequest false,
    CheckRequest false,
    TaintRequest false,
    QuarantineRequest true,
    RecoverRequest false,
    RecycleRequest false,
    ForceDestroyRequest true,
}

impl OnResourceOrPool for pb::CordonRequest {
    fn pool(&self) -> &str {
        &self.pool
    }
}

impl OnResourceOrPool for pb::UncordonRequest {
    fn pool(&self) -> &str {
        &self.pool
    }
}

/// A command on one resource, or on one machine.
pub(crate) fn on_resource<R: OnResource>(request: &R, caller: Caller, verb: MachineVerb) -> Result<Command, RpcError> {
    let mut p = Problems::default();
    let target = resource_or_machine(&mut p, request.resource_id(), request.machine());
    let why = if R::NEEDS_REASON && !request.when().validate_only { Why::Required } else { Why::Optional };
    let reason = reason(&mut p, request.reason(), why);
    let place = p.found(target)?;
    let verb = place.verb(verb);
    Ok(Command::new(place, caller, reason, verb, request.when()))
}

/// A command on one resource, on one machine, or on a whole pool.
pub(crate) fn on_resource_or_pool<R: OnResourceOrPool>(
    request: &R,
    caller: Caller,
    verb: MachineVerb,
    pool_verb: fn(Arc<str>) -> AdminVerb,
) -> Result<Command, RpcError> {
    if request.pool().is_empty() {
        return on_resource(request, caller, verb);
    }
    let mut p = Problems::default();
    for (field, value) in [("resource_id", request.resource_id()), ("machine", request.machine())] {
        if !value.is_empty() {
            p.add("pool", format!("excludes {field}; name one of them"));
        }
    }
    let name = p.text("pool", request.pool(), MAX_VALUE, Lines::One);
    let reason = reason(&mut p, request.reason(), Why::Optional);
    if request.when().if_revision.is_some() {
        p.add("if_revision", "excludes pool: a command on a pool ends no lease");
    }
    let verb = pool_verb(name.clone());
    p.finish(Command::new(Target::Pool(name), caller, reason, verb, request.when()))
}

/// A note. An empty text removes it.
pub(crate) fn note(request: &pb::NoteRequest, caller: Caller) -> Result<Command, RpcError> {
    let mut p = Problems::default();
    let target = resource_or_machine(&mut p, &request.resource_id, &request.machine);
    let text = p.text("text", &request.text, MAX_TEXT, Lines::Many);
    let place = p.found(target)?;
    let verb = place.verb(MachineVerb::Note);
    Ok(Command::new(place, caller, text, verb, When::new(request.validate_only, request.if_revision)))
}

/// A drain.
pub(crate) fn drain(request: &pb::DrainRequest, caller: Caller) -> Result<Command, RpcError> {
    let mut p = Problems::default();
    let target = resource_or_machine(&mut p, &request.resource_id, &request.machine);
    let reason = reason(&mut p, &request.reason, Why::Optional);
    let deadline = p.span("deadline", request.deadline.as_ref(), &Span::FROM_NOW);
    let place = p.found(target)?;
    let verb = place.verb(MachineVerb::Drain(deadline));
    Ok(Command::new(place, caller, reason, verb, When::new(request.validate_only, request.if_revision)))
}

/// A hold of a resource, of a machine, or of the resource that a lease is on.
pub(crate) fn hold(request: &pb::HoldRequest, caller: Caller) -> Result<Command, RpcError> {
    let mut p = Problems::default();
    let of_lease = !request.lease_id.is_empty();
    let (about, place) = if request.machine.is_empty() {
        (one_of(&mut p, &request.lease_id, &request.resource_id), None)
    } else {
        if of_lease {
            p.add("machine", "excludes lease_id; name one of them");
        }
        (None, resource_or_machine(&mut p, &request.resource_id, &request.machine))
    };
    let reason = reason(&mut p, &request.reason, Why::Optional);
    if request.hold.is_none() {
        p.add("hold", "is required: the time to keep the resource");
    }
    let span = p.span("hold", request.hold.as_ref(), &Span::LONG).unwrap_or(Millis::ZERO);
    let found = match (about, place) {
        (Some(About::Lease(id)), _) => Some((Target::OfLease(id), AdminVerb::HoldLease(id, span))),
        (Some(About::Resource(id)), _) => Some((Target::Resource(id), AdminVerb::Hold(id, span))),
        (None, Some(place)) => {
            let verb = place.verb(MachineVerb::Hold(span));
            Some((place.into(), verb))
        }
        (None, None) => None,
    };
    let (target, verb) = p.found(found)?;
    Ok(Command::new(target, caller, reason, verb, When::new(request.validate_only, request.if_revision)))
}

/// The end of a lease by an operator.
pub(crate) fn break_lease(request: &pb::BreakRequest, caller: Caller) -> Result<Command, RpcError> {
    let mut p = Problems::default();
    let id = p.id("lease_id", &request.lease_id);
    let why = if request.validate_only { Why::Optional } else { Why::Required };
    let reason = reason(&mut p, &request.reason, why);
    let id = p.found(id)?;
    let when = When::new(request.validate_only, request.if_revision);
    Ok(Command::new(Target::Lease(id), caller, reason, AdminVerb::Break(id), when))
}

fn reason(p: &mut Problems, text: &str, why: Why) -> Arc<str> {
    match why {
        Why::Required => p.required_text(
            "reason",
            text,
            MAX_TEXT,
            Lines::Many,
            "it takes a resource or a lease from its holder, who gets the reason",
        ),
        Why::Optional => p.text("reason", text, MAX_TEXT, Lines::Many),
    }
}
