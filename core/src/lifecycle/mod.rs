//! Transitions and their consequences. A transition changes one lease or one resource, and pushes its consequences; it
//! calls no other transition. The loop here takes one consequence after the other, so that none begins before the one
//! before it is complete.
//!
//! The order is written once. Of one transition, it is that of the variants of [`Consequence`]; and all that follows
//! from one of them happens before the next one, so that a story stands together in the audit trail.

mod announcement;
mod blame;
pub(crate) mod configuration;
mod doubt;
mod evidence;
mod grant;
mod hold;
mod lease;
pub(crate) mod losses;
mod machine;
mod placement;
mod resource;
mod session;
mod sizing;
mod supply;

use crate::Core;
use crate::{CauseChain, Ended, FailReason, Hold, LeaseId, Link, Millis, Reason, ResourceId, Timestamp};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// More consequences of one cause than this are a fault of the broker.
const MOST: u32 = 10_000_000;

/// A change that is due because of another one. The order of the variants is the order in which those of one transition
/// are taken: what else ends with it, then slots, then holds and comparisons, then doubt and drains, at last what
/// waited for all that.
#[derive(Clone, Debug)]
pub(crate) enum Consequence {
    /// A lease loses the resource under it.
    Uproot { lease: LeaseId, cause: CauseChain, actor: Arc<str> },
    /// A lease ends against its holder's will, with its group; successors are queued where the request wants them.
    Break { lease: LeaseId, cause: CauseChain, actor: Arc<str> },
    /// A lease ends as FAILED, with its group.
    Fail { lease: LeaseId, reason: FailReason, code: Arc<str>, detail: String },
    /// A lease ends. `counted`: its outcome counts as a success or a failure of the resource and of the work.
    End { lease: LeaseId, how: Ended, actor: Arc<str>, counted: bool },
    /// A lease goes back to its place in the queue, or fails after too many attempts.
    Requeue { lease: LeaseId, trouble: String },
    /// A lease goes back to its place in the queue, and is not served for a time.
    PutOff { lease: LeaseId, trouble: String, at_least: Millis },
    /// A resource is removed and its leases are broken.
    Remove { resource: ResourceId, cause: CauseChain, end: End, actor: Arc<str> },
    /// A resource is held for triage.
    Hold { resource: ResourceId, hold: Hold, actor: Arc<str> },
    /// The hold or quarantine of a resource ends.
    TakeBack { resource: ResourceId, link: Link },
    /// A resource that is held may have lost its last lease.
    SettleHold(ResourceId),
    /// A resource is set apart as it is.
    SetApart { resource: ResourceId, hold: Hold, cause: CauseChain, actor: Arc<str> },
    /// The slot of an ended lease is clean.
    FreeSlot(LeaseId),
    /// A lease leaves its slot.
    Vacate { lease: LeaseId, resource: ResourceId, slot: u32 },
    /// A resource exists no more.
    Gone { resource: ResourceId, cause: CauseChain },
    /// A resource is fit for use again: slots whose clean-up failed are cleaned once more.
    CleanAgain(ResourceId),
    /// A check passed: the failures before it are compared with those elsewhere.
    CompareFailures(ResourceId),
    /// A resource is in doubt. `missed`: a probe without an answer is the reason, and counts as the first miss.
    Doubt { resource: ResourceId, cause: CauseChain, missed: bool },
    /// A suspect resource is to be checked.
    Check(ResourceId),
    /// The drain of a resource ends, as far as it rests on these reasons, which were given for `root`.
    Undrain { resource: ResourceId, root: ResourceId, reasons: &'static [Reason], link: Link },
    /// The configuration of a resource may have changed while it could not follow.
    FollowConfiguration(ResourceId),
    /// A resource gets no new leases and is removed after its last one, at the latest at the deadline.
    Drain { resource: ResourceId, cause: CauseChain, deadline: Option<Timestamp> },
    /// A slot of a resource became free, or what waits for that may go on.
    Vacated(ResourceId),
}

/// The end of a resource that is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// It may well be alive.
    Planned,
    /// It counts as dead, by an operator's request: its capacity is free at once.
    Forced,
    /// It is proved dead, or lies on a host that is.
    Lost,
}

/// The consequences that are due.
#[derive(Clone, Debug, Default)]
pub(crate) struct Consequences {
    /// The last one is next.
    due: Vec<Consequence>,
    /// Those of the transition that runs.
    fresh: Vec<Consequence>,
    running: bool,
}

impl Consequences {
    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.fresh.is_empty()
    }

    fn next(&mut self) -> Option<Consequence> {
        self.fresh.sort_by_key(Consequence::rank);
        self.due.extend(self.fresh.drain(..).rev());
        self.due.pop()
    }
}

impl Core {
    /// Adds a consequence of the transition that runs, or of the input that is taken.
    pub(crate) fn then(&mut self, consequence: Consequence) {
        self.consequences_mut().fresh.push(consequence);
    }

    /// Lets a change and all that follows from it happen now. Only for inputs, timers and policies: never within a
    /// transition.
    pub(crate) fn bring_about(&mut self, cause: Consequence) {
        self.then(cause);
        self.conclude();
    }

    /// Lets all happen that is due.
    pub(crate) fn conclude(&mut self) {
        self.conclude_within(MOST);
    }

    /// As [`Core::conclude`]. A cause with this many consequences is a fault that tests and simulators see.
    fn conclude_within(&mut self, most: u32) {
        debug_assert!(!self.consequences().running, "a transition is not to run within another");
        self.consequences_mut().running = true;
        let mut taken = 0;
        while let Some(consequence) = self.consequences_mut().next() {
            self.apply(consequence);
            taken += 1;
            debug_assert!(taken < most, "the consequences do not come to an end");
        }
        self.consequences_mut().running = false;
    }

    fn apply(&mut self, consequence: Consequence) {
        match consequence {
            Consequence::Uproot { lease, cause, actor } => self.uproot(lease, cause, actor),
            Consequence::Break { lease, cause, actor } => self.break_lease(lease, &cause, &actor),
            Consequence::Fail { lease, reason, code, detail } => self.fail_lease(lease, reason, &code, &detail),
            Consequence::End { lease, how, actor, counted } => self.end_lease(lease, how, &actor, counted),
            Consequence::Requeue { lease, trouble } => self.requeue(lease, &trouble),
            Consequence::PutOff { lease, trouble, at_least } => self.put_off(lease, &trouble, at_least),
            Consequence::Remove { resource, cause, end, actor } => self.remove(resource, cause, end, &actor),
            Consequence::Hold { resource, hold, actor } => self.hold(resource, hold, &actor),
            Consequence::TakeBack { resource, link } => self.take_back(resource, link),
            Consequence::SettleHold(resource) => self.settle_hold(resource),
            Consequence::SetApart { resource, hold, cause, actor } => self.set_apart(resource, hold, &cause, &actor),
            Consequence::FreeSlot(lease) => self.free_slot(lease),
            Consequence::Vacate { lease, resource, slot } => self.vacate(resource, slot, lease),
            Consequence::Gone { resource, cause } => self.gone(resource, cause),
            Consequence::CleanAgain(resource) => self.clean_again(resource),
            Consequence::CompareFailures(resource) => self.compare_failures(resource),
            Consequence::Doubt { resource, cause, missed } => self.suspect(resource, cause, missed),
            Consequence::Check(resource) => self.start_check(resource),
            Consequence::Undrain { resource, root, reasons, link } => self.undrain(resource, root, reasons, &link),
            Consequence::FollowConfiguration(resource) => self.follow_configuration(resource),
            Consequence::Drain { resource, cause, deadline } => self.drain(resource, &cause, deadline),
            Consequence::Vacated(resource) => self.after_vacated(resource),
        }
    }
}

impl Consequence {
    /// Its place among those of one transition: that of its variant.
    fn rank(&self) -> u8 {
        match self {
            Self::Uproot { .. } => 0,
            Self::Break { .. } => 1,
            Self::Fail { .. } => 2,
            Self::End { .. } => 3,
            Self::Requeue { .. } => 4,
            Self::PutOff { .. } => 5,
            Self::Remove { .. } => 6,
            Self::Hold { .. } => 7,
            Self::TakeBack { .. } => 8,
            Self::SettleHold { .. } => 9,
            Self::SetApart { .. } => 10,
            Self::FreeSlot { .. } => 11,
            Self::Vacate { .. } => 12,
            Self::Gone { .. } => 13,
            Self::CleanAgain { .. } => 14,
            Self::CompareFailures { .. } => 15,
            Self::Doubt { .. } => 16,
            Self::Check { .. } => 17,
            Self::Undrain { .. } => 18,
            Self::FollowConfiguration { .. } => 19,
            Self::Drain { .. } => 20,
            Self::Vacated { .. } => 21,
        }
    }

    /// A resource is removed by the broker itself.
    pub(crate) fn remove(resource: ResourceId, cause: CauseChain) -> Self {
        Self::Remove { resource, cause, end: End::Planned, actor: Arc::from(crate::state::outbox::SELF) }
    }

    /// A resource is proved dead.
    pub(crate) fn lose(resource: ResourceId, cause: CauseChain) -> Self {
        Self::Remove { resource, cause, end: End::Lost, actor: Arc::from(crate::state::outbox::SELF) }
    }

    /// A resource is in doubt for this reason.
    pub(crate) fn doubt(resource: ResourceId, link: Link) -> Self {
        Self::Doubt { resource, cause: alloc::vec![link], missed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Snapshot, Timestamp};

    fn core_with_consequences(count: u128) -> Core {
        let mut core = Core::recover(Snapshot::default(), Vec::new(), Limits::default(), Timestamp(0));
        for number in 1..=count {
            core.then(Consequence::CleanAgain(ResourceId::new(number)));
        }
        core
    }

    #[test]
    fn consequences_come_to_an_end() {
        let mut core = core_with_consequences(3);
        core.conclude_within(4);
        assert!(core.consequences().is_empty());
    }

    #[test]
    #[should_panic(expected = "the consequences do not come to an end")]
    fn consequences_without_an_end_are_a_fault_that_tests_see() {
        core_with_consequences(5).conclude_within(4);
    }
}
