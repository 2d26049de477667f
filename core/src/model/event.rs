//! The audit trail: what an entry of it holds, and the closed set of its kinds.

use crate::model::stable::stable_texts;
use crate::{Ended, LeaseId, Provenance, ResourceId, Revision, Subject, Timestamp};
use alloc::sync::Arc;

/// One entry: stored in the transaction of the change that it reports, and never changed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Event {
    /// The revision of the change that it reports.
    pub revision: Revision,
    /// The time of the change.
    pub at: Timestamp,
    /// The kind of the change.
    pub kind: EventKind,
    /// The principal that made the change, or `wharfinger`.
    pub actor: Arc<str>,
    /// The lease, resource or pool that changed.
    pub subject: Subject,
    /// The pool, if there is one.
    pub pool: Option<Arc<str>>,
    /// The resource, if there is one.
    pub resource: Option<ResourceId>,
    /// The lease, if there is one.
    pub lease: Option<LeaseId>,
    /// The evidence, as text.
    pub detail: Arc<str>,
    /// How the principal proved who it is, and from where it called. `None`: the change is the broker's own, or follows from an
    /// earlier one.
    pub caller: Option<Arc<Provenance>>,
}

stable_texts! {
    /// Kinds of entries. The set is open for clients: a later version may add kinds, and none is renamed.
    pub enum EventKind {
        /// The lease waits in the queue.
        LeaseQueued = "lease.queued",
        /// The lease has a slot, and the adapter prepares it.
        LeasePreparing = "lease.preparing",
        /// The holder may work.
        LeaseActive = "lease.active",
        /// The lease went back to the queue: its resource could not serve it.
        LeaseRequeued = "lease.requeued",
        /// The lease went back to the queue and is not served before a time: a remote or a provider was down.
        LeaseDelayed = "lease.delayed",
        /// The holder reported failures, and the resource is checked.
        LeaseReported = "lease.reported",
        /// The holder could not get in to its resource, and a new login of the broker decides.
        LeaseUnreached = "lease.unreached",
        /// The holder released the lease.
        LeaseReleased = "lease.released",
        /// The TTL of the lease ran out.
        LeaseExpired = "lease.expired",
        /// The lease ended against the will of its holder.
        LeaseBroken = "lease.broken",
        /// The holder released the lease before it was active.
        LeaseCancelled = "lease.cancelled",
        /// The lease can never be active.
        LeaseFailed = "lease.failed",
        /// A check found the fault of a failed lease.
        LeaseFinding = "lease.finding",
        /// The work of the lease failed on several resources whose checks pass.
        LeaseWorkBlamed = "lease.work-blamed",
        /// The adapter makes the resource.
        ResourceProvisioning = "resource.provisioning",
        /// An attempt to make the resource failed.
        ResourceProvisionFailed = "resource.provision-failed",
        /// The resource is made and can be leased.
        ResourceReady = "resource.ready",
        /// The resource is in doubt, and a check starts.
        ResourceSuspect = "resource.suspect",
        /// A check could not be carried out.
        ResourceNoVerdict = "resource.no-verdict",
        /// The brake holds evidence against the resource back.
        ResourceHeldBack = "resource.held-back",
        /// The pool's `dry_run` holds evidence against the resource back.
        ResourceWouldEnd = "resource.would-end",
        /// A check found the resource fit for use.
        ResourceCleared = "resource.cleared",
        /// The adapter repairs the resource.
        ResourceRepairing = "resource.repairing",
        /// The repair is over, and a check follows.
        ResourceRepaired = "resource.repaired",
        /// The repair failed.
        ResourceRepairFailed = "resource.repair-failed",
        /// Different works failed on the resource though its checks pass, and it stays in service.
        ResourceCheckBlind = "resource.check-blind",
        /// The resource is held for triage and gets no new leases.
        ResourceKept = "resource.kept",
        /// The checks of the resource pass, it failed in use again and again, and it is replaced.
        ResourceUnfit = "resource.unfit",
        /// The resource was set apart for its uses, and comes back with one slot.
        ResourceOnTrial = "resource.on-trial",
        /// Work went well on a resource that was on trial, and it has all its slots again.
        ResourceTrusted = "resource.trusted",
        /// The hold of the resource ran out.
        ResourceHoldOver = "resource.hold-over",
        /// The resource is set apart and stays as it is.
        ResourceQuarantined = "resource.quarantined",
        /// A notice warns that the resource may be taken away.
        ResourceAtRisk = "resource.at-risk",
        /// The source of that warning withdrew it.
        ResourceAtRiskNoMore = "resource.at-risk-no-more",
        /// A source announced the end of the resource.
        ResourceEnds = "resource.ends",
        /// The source withdrew the announced end.
        ResourceCalledOff = "resource.called-off",
        /// The resource gets no new leases and is removed after its last one.
        ResourceDraining = "resource.draining",
        /// An idle working copy gives its slot on a host to a lease that waits for it.
        ResourceGaveWay = "resource.gave-way",
        /// The adapter removes the resource.
        ResourceDestroying = "resource.destroying",
        /// An attempt to remove the resource failed.
        ResourceDestroyFailed = "resource.destroy-failed",
        /// The resource could not be removed, takes no capacity, and the janitor retries.
        ResourceOrphaned = "resource.orphaned",
        /// The resource exists no more.
        ResourceGone = "resource.gone",
        /// A slot of the resource could not be cleaned.
        ResourceCleanFailed = "resource.clean-failed",
        /// An operator cordoned the resource.
        ResourceCordoned = "resource.cordoned",
        /// An operator uncordoned the resource.
        ResourceUncordoned = "resource.uncordoned",
        /// An operator asked for a drain.
        ResourceDrainAsked = "resource.drain-asked",
        /// An operator ended a drain.
        ResourceUndrainAsked = "resource.undrain-asked",
        /// An operator asked for a check.
        ResourceCheckAsked = "resource.check-asked",
        /// An operator reported the resource as mangled.
        ResourceTainted = "resource.tainted",
        /// An operator asked for the end of a hold or a quarantine.
        ResourceRecoverAsked = "resource.recover-asked",
        /// An operator asked for the removal of the resource.
        ResourceRecycleAsked = "resource.recycle-asked",
        /// An operator asked for the removal of the resource without waiting for the adapter.
        ResourceForceDestroyAsked = "resource.force-destroy-asked",
        /// An operator wrote a note on the resource.
        ResourceNoted = "resource.noted",
        /// An operator removed the note on the resource.
        ResourceNoteRemoved = "resource.note-removed",
        /// An operator cordoned a machine for which no resource stands.
        MachineCordoned = "machine.cordoned",
        /// An operator uncordoned such a machine.
        MachineUncordoned = "machine.uncordoned",
        /// An operator drained such a machine.
        MachineDrained = "machine.drained",
        /// An operator ended the drain of such a machine.
        MachineUndrained = "machine.undrained",
        /// An operator holds such a machine.
        MachineHeld = "machine.held",
        /// The hold of such a machine is over.
        MachineHoldOver = "machine.hold-over",
        /// An operator wrote a note on such a machine.
        MachineNoted = "machine.noted",
        /// An operator removed the note on such a machine.
        MachineNoteRemoved = "machine.note-removed",
        /// An agent opened the session.
        SessionOpened = "session.opened",
        /// The stream of the session ended, and its holder is in doubt.
        SessionDoubt = "session.doubt",
        /// Another stream resumed the session.
        SessionResumed = "session.resumed",
        /// The session was silent for too long, and its leases end.
        SessionLost = "session.lost",
        /// The agent closed the session, and its leases go on by their own TTL.
        SessionClosed = "session.closed",
        /// The configuration of the pool is new or changed.
        PoolConfigured = "pool.configured",
        /// The pool left the configuration.
        PoolRemoved = "pool.removed",
        /// An operator cordoned the pool.
        PoolCordoned = "pool.cordoned",
        /// An operator uncordoned the pool.
        PoolUncordoned = "pool.uncordoned",
        /// The brake of a failure domain is on.
        PoolBrakeOn = "pool.brake-on",
        /// The brake of a failure domain is off.
        PoolBrakeOff = "pool.brake-off",
        /// A step ended before the scheduler and the sizing came to an end.
        PoolUnsettled = "pool.unsettled",
    }
}

impl EventKind {
    /// The kind of the entry that reports the end of a lease.
    pub(crate) fn of_end(how: &Ended) -> Self {
        match how {
            Ended::Released { .. } => Self::LeaseReleased,
            Ended::Expired => Self::LeaseExpired,
            Ended::Broken { .. } => Self::LeaseBroken,
            Ended::Cancelled => Self::LeaseCancelled,
            Ended::Failed { .. } => Self::LeaseFailed,
        }
    }
}
