//! The log of what an operator has to know: one INFO line for each break, doubt, loss, replacement, launch, quarantine and brake,
//! with ids as fields.
//!
//! The lines are made from the entries of the audit trail in a committed batch, so that the log and the trail agree, and so that
//! nothing is logged that was not stored.

use wharfinger_core::{Batch, Event, EventKind, LeaseId, Reason, ResourceId, ResourceState};

/// Logs the changes of a batch. Call it after the commit.
pub(crate) fn log_changes(batch: &Batch) {
    for event in &batch.events {
        let Some(message) = message(batch, event) else { continue };
        tracing::info!(
            revision = event.revision.0,
            pool = event.pool.as_deref(),
            resource = event.resource.map(tracing::field::display),
            lease = event.lease.map(tracing::field::display),
            replaces = replaced(batch, event).map(tracing::field::display),
            actor = &*event.actor,
            detail = &*event.detail,
            "{message}"
        );
    }
}

/// The message of an entry. `None`: the entry is not logged.
fn message(batch: &Batch, event: &Event) -> Option<&'static str> {
    match event.kind {
        EventKind::LeaseBroken => Some("lease broken"),
        EventKind::LeaseQueued => replaced(batch, event).map(|_| "replacement queued"),
        EventKind::ResourceProvisioning => Some("resource launched"),
        EventKind::ResourceSuspect => Some("resource in doubt"),
        EventKind::ResourceCleared => Some("doubt cleared"),
        EventKind::ResourceHeldBack => Some("evidence held back by the brake"),
        EventKind::ResourceQuarantined => Some("resource quarantined"),
        EventKind::ResourceDestroying if is_lost(batch, event.resource) => Some("resource lost"),
        EventKind::ResourceDestroying => Some("resource removed"),
        EventKind::ResourceUnfit => Some("resource replaced: it fails in use"),
        EventKind::ResourceOnTrial => Some("resource back on trial"),
        EventKind::PoolBrakeOn => Some("brake on"),
        EventKind::PoolBrakeOff => Some("brake off"),
        EventKind::LeasePreparing
        | EventKind::LeaseActive
        | EventKind::LeaseRequeued
        | EventKind::LeaseDelayed
        | EventKind::LeaseReported
        | EventKind::LeaseUnreached
        | EventKind::LeaseReleased
        | EventKind::LeaseExpired
        | EventKind::LeaseCancelled
        | EventKind::LeaseFailed
        | EventKind::LeaseFinding
        | EventKind::LeaseWorkBlamed
        | EventKind::ResourceProvisionFailed
        | EventKind::ResourceReady
        | EventKind::ResourceNoVerdict
        | EventKind::ResourceWouldEnd
        | EventKind::ResourceRepairing
        | EventKind::ResourceRepaired
        | EventKind::ResourceRepairFailed
        | EventKind::ResourceCheckBlind
        | EventKind::ResourceKept
        | EventKind::ResourceHoldOver
        | EventKind::ResourceAtRisk
        | EventKind::ResourceAtRiskNoMore
        | EventKind::ResourceEnds
        | EventKind::ResourceCalledOff
        | EventKind::ResourceDraining
        | EventKind::ResourceDestroyFailed
        | EventKind::ResourceOrphaned
        | EventKind::ResourceGone
        | EventKind::ResourceCleanFailed
        | EventKind::ResourceCordoned
        | EventKind::ResourceUncordoned
        | EventKind::ResourceDrainAsked
        | EventKind::ResourceCheckAsked
        | EventKind::ResourceTainted
        | EventKind::ResourceRecoverAsked
        | EventKind::ResourceRecycleAsked
        | EventKind::ResourceForceDestroyAsked
        | EventKind::ResourceTrusted
        | EventKind::ResourceGaveWay
        | EventKind::ResourceUndrainAsked
        | EventKind::MachineCordoned
        | EventKind::MachineUncordoned
        | EventKind::MachineDrained
        | EventKind::MachineUndrained
        | EventKind::MachineHeld
        | EventKind::MachineHoldOver
        | EventKind::PoolConfigured
        | EventKind::PoolRemoved
        | EventKind::PoolCordoned
        | EventKind::PoolUncordoned
        | EventKind::PoolUnsettled => None,
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
