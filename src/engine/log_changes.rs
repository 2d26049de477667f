//! The log of decisions: one INFO line for each entry of the audit trail, with ids as fields. `trail_log.rs` writes them.
//!
//! The lines are made from the entries in a committed batch, so that the log and the trail agree, and so that nothing is logged that
//! was not stored. `kind` is the trail's own name of the change. Their target is `wharfinger::trail`: `wharfinger::trail=warn` in
//! a filter leaves them out.

use std::sync::Arc;
use wharfinger_core::{
    Batch, CauseChain, Core, Ended, Event, EventKind, Lease, LeaseId, LeaseState, Reason, Resource, ResourceId,
    ResourceState,
};

/// An entry of the trail with what its line says. It owns all of it, so that another thread can write the line.
#[derive(Debug)]
pub(super) struct Line {
    revision: u64,
    kind: EventKind,
    pool: Option<Arc<str>>,
    resource: Option<ResourceId>,
    machine: Option<Arc<str>>,
    lease: Option<LeaseId>,
    replaces: Option<LeaseId>,
    reason: Option<&'static str>,
    actor: Arc<str>,
    detail: Arc<str>,
    /// The resource ended by itself.
    lost: bool,
}

/// Returns the lines of a batch. Call it after the commit; `core` has the state of that commit.
pub(super) fn lines(batch: &Batch, core: &Core) -> Vec<Line> {
    if !tracing::enabled!(target: "wharfinger::trail", tracing::Level::INFO) {
        return Vec::new();
    }
    let line = |event: &Event| {
        let lease = event.lease.and_then(|id| core.lease(id));
        let resource = event.resource.and_then(|id| core.resource(id));
        Line {
            revision: event.revision.0,
            kind: event.kind,
            pool: event.pool.clone(),
            resource: event.resource,
            machine: resource.and_then(|row| row.item.clone()),
            lease: event.lease,
            replaces: lease.filter(|_| event.kind == EventKind::LeaseQueued).and_then(|row| row.spec.replaces),
            reason: reason(event, lease.map(|row| &**row), resource.map(|row| &**row)),
            actor: event.actor.clone(),
            detail: event.detail.clone(),
            lost: event.kind == EventKind::ResourceDestroying && is_lost(batch, event.resource),
        }
    };
    batch.events.iter().map(line).collect()
}

impl Line {
    /// Writes it.
    pub(super) fn write(&self) {
        tracing::info!(
            target: "wharfinger::trail",
            revision = self.revision,
            kind = self.kind.as_str(),
            pool = self.pool.as_deref(),
            resource = self.resource.map(tracing::field::display),
            machine = self.machine.as_deref(),
            lease = self.lease.map(tracing::field::display),
            replaces = self.replaces.map(tracing::field::display),
            reason = self.reason,
            actor = &*self.actor,
            detail = &*self.detail,
            "{}",
            self.message()
        );
    }

    /// The message, subject first. Most are the words of the kind.
    fn message(&self) -> String {
        let own = match self.kind {
            EventKind::LeaseQueued if self.replaces.is_some() => "replacement queued",
            EventKind::ResourceProvisioning => "resource launched",
            EventKind::ResourceSuspect => "resource in doubt",
            EventKind::ResourceCleared => "doubt cleared",
            EventKind::ResourceHeldBack => "evidence held back by the brake",
            EventKind::ResourceDestroying if self.lost => "resource lost",
            EventKind::ResourceDestroying => "resource removed",
            EventKind::ResourceUnfit => "resource replaced: it fails in use",
            EventKind::ResourceOnTrial => "resource back on trial",
            EventKind::PoolBrakeOn => "brake on",
            EventKind::PoolBrakeOff => "brake off",
            _ => return words(self.kind.as_str()),
        };
        own.to_owned()
    }
}

/// The name of a kind as words: `lease.work-blamed` is `lease work blamed`.
pub(crate) fn words(kind: &str) -> String {
    kind.replace(['.', '-'], " ")
}

/// The stable reason of a change: of a break or a doubt the root of its causes, of a release its outcome.
fn reason(event: &Event, lease: Option<&Lease>, resource: Option<&Resource>) -> Option<&'static str> {
    let root = |cause: &CauseChain| cause.last().map(|link| link.reason.as_str());
    match event.kind {
        EventKind::LeaseReleased | EventKind::LeaseBroken | EventKind::LeaseFailed => match &lease?.state {
            LeaseState::Ended { how: Ended::Released { outcome, .. }, .. } => Some(outcome.as_str()),
            LeaseState::Ended { how: Ended::Broken { cause, .. }, .. } => root(cause),
            LeaseState::Ended { how: Ended::Failed { reason, .. }, .. } => Some(reason.as_str()),
            _ => None,
        },
        EventKind::ResourceSuspect | EventKind::ResourceDestroying | EventKind::ResourceDraining => {
            match &resource?.state {
                ResourceState::Suspect { cause, .. }
                | ResourceState::Draining { cause, .. }
                | ResourceState::Destroying { cause, .. }
                | ResourceState::Gone { cause, .. } => root(cause),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether the resource ended by itself, and not because the broker or an operator wanted it.
fn is_lost(batch: &Batch, id: Option<ResourceId>) -> bool {
    let Some(row) = batch.resources.iter().find(|row| Some(row.id) == id) else { return false };
    match &row.state {
        ResourceState::Destroying { dead, .. } => *dead,
        // In the same batch: its host was lost.
        ResourceState::Gone { cause, .. } => {
            cause.first().is_some_and(|link| matches!(link.reason, Reason::ResourceGone | Reason::ParentGone))
        }
        ResourceState::Provisioning { .. }
        | ResourceState::Ready
        | ResourceState::Suspect { .. }
        | ResourceState::Repairing { .. }
        | ResourceState::Quarantined { .. }
        | ResourceState::Draining { .. }
        | ResourceState::Orphaned { .. } => false,
    }
}

/// A line that says its revision.
#[cfg(test)]
pub(super) fn test_line(revision: u64) -> Line {
    Line {
        revision,
        kind: EventKind::LeaseQueued,
        pool: Some("pool".into()),
        resource: None,
        machine: None,
        lease: None,
        replaces: None,
        reason: None,
        actor: "someone".into(),
        detail: "".into(),
        lost: false,
    }
}
