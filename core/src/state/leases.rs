//! Transitions of the queue, of groups, and of what is known of a lease beside its row.

use crate::state::queue::{ClassKey, Place, Waiter};
use crate::{Core, GroupId, LeaseId, Subject, Timestamp};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

impl Core {
    /// Adds a request to the queue.
    pub(crate) fn enqueue(&mut self, key: ClassKey, place: Place, leases: Vec<LeaseId>) {
        self.queue.push(key, place, leases);
    }

    /// Takes the whole request of which this lease is a part out of the queue.
    pub(crate) fn dequeue(&mut self, lease: LeaseId) -> Option<Waiter> {
        self.queue.remove(lease)
    }

    /// Some members of a group have slots, and others wait.
    pub(crate) fn add_partial_group(&mut self, group: GroupId) {
        self.partial.insert(group);
    }

    /// These are the groups of which some members have slots and others wait.
    pub(crate) fn set_partial_groups(&mut self, groups: BTreeSet<GroupId>) {
        self.partial = groups;
    }

    /// The period of a lease's reports: when it began, and how many there were.
    pub(crate) fn reports_of(&mut self, lease: LeaseId) -> &mut (Timestamp, u32) {
        let now = self.now;
        self.reports.entry(lease).or_insert((now, 0))
    }

    /// Removes the leases of a request as if it had never been made.
    pub(crate) fn withdraw(&mut self, ids: &[LeaseId]) {
        if let Some(first) = ids.first() {
            self.queue.remove(*first);
        }
        for id in ids {
            if let Some(entry) = self.leases.remove(id) {
                self.disarm_lease(entry.timer, *id);
                self.by_revision.remove(&entry.row.revision);
                self.by_request.remove(&entry.row.spec.request_id);
                if let Some(group) = entry.row.spec.group {
                    self.by_group.remove(&group);
                }
            }
            self.outbox.leases.remove(id);
            let gone = Subject::Lease(*id);
            self.outbox.events.retain(|event| event.subject != gone);
        }
    }
}
