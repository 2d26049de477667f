//! Transitions of the queue, of groups, and of what is known of a lease beside its row.

use crate::state::lane::Waiter;
use crate::state::learned::{Begun, took};
use crate::state::queue::Place;
use crate::state::tables::LeaseEntry;
use crate::state::timers::NEVER;
use crate::state::want::ClassKey;
use crate::{Core, GroupId, LeaseId, Subject, Timestamp};
use crate::{Lease, Revision};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    pub(crate) fn insert_lease(&mut self, mut row: Lease) {
        row.revision = self.next_revision();
        let id = row.id;
        self.index_lease(Arc::new(row));
        self.outbox.leases.insert(id);
        self.arm_lease(id);
    }

    /// Puts a row into the table and its indices, as new or as loaded.
    pub(crate) fn index_lease(&mut self, row: Arc<Lease>) {
        let id = row.id;
        if let Some(group) = row.spec.group {
            self.by_group.entry(group).or_default().insert(id);
        }
        if row.is_of_request() {
            self.by_request.insert(row.request_key(), id);
        }
        self.by_revision.insert(row.revision, id);
        self.enter_session(&row);
        self.leases.insert(id, LeaseEntry { row, timer: NEVER });
    }

    /// Puts all rows of an empty table into it and its indices: maps that are made of all that they hold have full
    /// nodes, which those that grow in order leave half empty.
    pub(crate) fn index_leases(&mut self, rows: Vec<Lease>) {
        let mut leases = Vec::with_capacity(rows.len());
        let mut by_request = Vec::with_capacity(rows.len());
        let mut by_revision = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.id;
            if let Some(group) = row.spec.group {
                self.by_group.entry(group).or_default().insert(id);
            }
            if row.is_of_request() {
                by_request.push((row.request_key(), id));
            }
            by_revision.push((row.revision, id));
            self.enter_session(&row);
            leases.push((id, LeaseEntry { row: Arc::new(row), timer: NEVER }));
        }
        self.leases = leases.into_iter().collect();
        self.by_request = by_request.into_iter().collect();
        self.by_revision = by_revision.into_iter().collect();
    }

    /// Changes a lease. Returns false if there is none.
    pub(crate) fn edit_lease(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) -> bool {
        let revision = Revision(self.revision.0 + 1);
        let Some(entry) = self.leases.get_mut(&id) else { return false };
        let row = Arc::make_mut(&mut entry.row);
        let before = row.revision;
        let (held, session) = (row.assignment().map(|assignment| assignment.resource), row.in_session());
        let (begun, was_over) = (Begun::of(&row.state), row.ended());
        change(row);
        row.revision = revision;
        let now_in = row.in_session();
        let over = took(begun, row, self.now);
        let holds = row.assignment().map(|assignment| assignment.resource);
        let again = row.spec.replace.then_some([held, holds]);
        let changed = (held != holds || was_over != row.ended()).then_some([held, holds]);
        self.revision = revision;
        self.by_revision.remove(&before);
        self.by_revision.insert(revision, id);
        self.outbox.leases.insert(id);
        self.move_in_sessions(id, session, now_in);
        self.arm_lease(id);
        self.learn(over);
        for resource in changed.into_iter().flatten().flatten() {
            self.resource_changed(resource, revision);
        }
        for resource in again.into_iter().flatten().flatten() {
            self.recount_foreseen(resource);
        }
        true
    }

    pub(crate) fn forget_lease(&mut self, id: LeaseId) {
        let Some(entry) = self.leases.remove(&id) else { return };
        self.disarm_lease(entry.timer, id);
        self.reports.remove(&id);
        self.answered.remove(&id);
        self.by_revision.remove(&entry.row.revision);
        self.exit_session(&entry.row);
        let key = entry.row.request_key();
        if self.by_request.get(&key) == Some(&id) {
            self.by_request.remove(&key);
        }
        if let Some(group) = entry.row.spec.group
            && let Some(members) = self.by_group.get_mut(&group)
        {
            members.remove(&id);
            if members.is_empty() {
                self.by_group.remove(&group);
            }
        }
        // A change like others: who follows the changes has to hear of it.
        self.next_revision();
        self.outbox.leases.remove(&id);
        self.outbox.forgotten_leases.push(id);
        self.floor = self.floor.max(entry.row.revision);
    }

    /// Adds a request to the queue. Its leases are in the table already.
    pub(crate) fn enqueue(&mut self, key: ClassKey, place: Place, leases: Vec<LeaseId>) {
        let Some(first) = leases.first().and_then(|id| self.lease(*id)) else { return };
        let party = first.spec.child.is_none().then(|| first.spec.tenant.clone());
        let since = first.created_at;
        let bounded = self.is_bounded(&party);
        self.rank_anew(&party);
        self.queue.push(key, place, party, Waiter { leases, since }, bounded);
    }

    /// Takes the whole request of which this lease is a part out of the queue.
    pub(crate) fn dequeue(&mut self, lease: LeaseId) -> Option<Waiter> {
        let (party, waiter) = self.queue.remove(lease)?;
        self.rank_anew(&party);
        Some(waiter)
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

    /// A check passed that began after the last report of this lease.
    pub(crate) fn answer_report(&mut self, lease: LeaseId) {
        if self.reports.contains_key(&lease) {
            self.answered.insert(lease, self.now);
        }
    }

    /// A lease reports: no check has answered that yet.
    pub(crate) fn reported(&mut self, lease: LeaseId) {
        self.answered.remove(&lease);
    }

    /// When a check passed that began after the last report of a lease.
    pub(crate) fn report_answered(&self, lease: LeaseId) -> Option<Timestamp> {
        self.answered.get(&lease).copied()
    }

    /// Removes the leases of a request as if it had never been made.
    pub(crate) fn withdraw(&mut self, ids: &[LeaseId]) {
        if let Some(first) = ids.first() {
            let _ = self.dequeue(*first);
        }
        for id in ids {
            if let Some(entry) = self.leases.remove(id) {
                self.disarm_lease(entry.timer, *id);
                self.by_revision.remove(&entry.row.revision);
                self.exit_session(&entry.row);
                self.by_request.remove(&entry.row.request_key());
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
