//! The log of decisions: one INFO line for each entry of the audit trail, with ids as fields.
//!
//! The lines are made from the entries in a committed batch, so that the log and the trail agree, and so that nothing is logged that
//! was not stored. `kind` is the trail's own name of the change. Their target is `wharfinger::trail`: `wharfinger::trail=warn` in
//! a filter leaves them out.

use wharfinger_core::{
    Batch, CauseChain, Core, Ended, Event, EventKind, Lease, LeaseId, LeaseState, Reason, Resource, ResourceId,
    ResourceState,
};

/// Logs the changes of a batch. Call it after the commit; `core` has the state of that commit.
pub(crate) fn log_changes(batch: &Batch, core: &Core) {
    if !tracing::enabled!(target: "wharfinger::trail", tracing::Level::INFO) {
        return;
    }
    for event in &batch.events {
        let lease = event.lease.and_then(|id| core.lease(id));
        let resource = event.resource.and_then(|id| core.resource(id));
        tracing::info!(
            target: "wharfinger::trail",
            revision = event.revision.0,
            kind = event.kind.as_str(),
            pool = event.pool.as_deref(),
            resource = event.resource.map(tracing::field::display),
            machine = resource.and_then(|row| row.item.as_deref()),
            lease = event.lease.map(tracing::field::display),
            replaces = replaced(batch, event).map(tracing::field::display),
            reason = reason(event, lease.map(|row| &**row), resource.map(|row| &**row)),
            actor = &*event.actor,
            detail = &*event.detail,
            "{}",
            message(batch, event)
        );
    }
}

/// The message of an entry, subject first. Most are the words of the kind.
fn message(batch: &Batch, event: &Event) -> String {
    let own = match event.kind {
        EventKind::LeaseQueued if replaced(batch, event).is_some() => "replacement queued",
        EventKind::ResourceProvisioning => "resource launched",
        EventKind::ResourceSuspect => "resource in doubt",
        EventKind::ResourceCleared => "doubt cleared",
        EventKind::ResourceHeldBack => "evidence held back by the brake",
        EventKind::ResourceDestroying if is_lost(batch, event.resource) => "resource lost",
        EventKind::ResourceDestroying => "resource removed",
        EventKind::ResourceUnfit => "resource replaced: it fails in use",
        EventKind::ResourceOnTrial => "resource back on trial",
        EventKind::PoolBrakeOn => "brake on",
        EventKind::PoolBrakeOff => "brake off",
        _ => return words(event.kind.as_str()),
    };
    own.to_owned()
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

/// The lease in whose stead the lease of the entry was queued.
fn replaced(batch: &Batch, event: &Event) -> Option<LeaseId> {
    let queued = event.lease.filter(|_| event.kind == EventKind::LeaseQueued)?;
    batch.leases.iter().find(|lease| lease.id == queued)?.spec.replaces
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
