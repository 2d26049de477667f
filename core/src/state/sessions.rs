//! Transitions of sessions, and what is known of them beside their rows.

use crate::state::timers::{NEVER, Timer};
use crate::{Core, Lease, LeaseId, Session, SessionId, Timestamp};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

/// A row, and what is known beside it.
#[derive(Clone, Debug)]
pub(crate) struct SessionEntry {
    row: Arc<Session>,
    /// When its agent was last heard, at least the start of this core. Not stored.
    heard: Timestamp,
    /// The leases that it keeps.
    leases: BTreeSet<LeaseId>,
    timer: Timestamp,
}

impl Core {
    /// One session.
    pub fn session(&self, id: SessionId) -> Option<&Arc<Session>> {
        self.sessions.get(&id).map(|entry| &entry.row)
    }

    /// All sessions, by id.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.values().map(|entry| &entry.row)
    }

    /// The leases that a session keeps.
    pub fn leases_of_session(&self, id: SessionId) -> Vec<LeaseId> {
        self.sessions.get(&id).map(|entry| entry.leases.iter().copied().collect()).unwrap_or_default()
    }

    /// The same, by id, from after this one.
    pub(crate) fn session_leases(&self, id: SessionId, after: Option<LeaseId>) -> impl Iterator<Item = LeaseId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let leases = self.sessions.get(&id).map(|entry| entry.leases.range((from, Bound::Unbounded)));
        leases.into_iter().flatten().copied()
    }

    /// The number of a principal's sessions.
    pub(crate) fn sessions_by(&self, tenant: &Arc<str>, principal: &Arc<str>) -> u32 {
        self.session_counts.get(&(tenant.clone(), principal.clone())).copied().unwrap_or(0)
    }

    /// When the agent of a session was last heard.
    pub(crate) fn session_heard(&self, id: SessionId) -> Timestamp {
        self.sessions.get(&id).map_or(self.now, |entry| entry.heard)
    }

    /// When a session ends unless it is heard.
    pub(crate) fn session_deadline(&self, id: SessionId) -> Option<Timestamp> {
        let entry = self.sessions.get(&id)?;
        Some(entry.heard.after(entry.row.patience()).max(self.grace_until))
    }

    pub(crate) fn insert_session(&mut self, mut row: Session) {
        row.revision = self.next_revision();
        let id = row.id;
        self.load_session(row);
        self.outbox.sessions.insert(id);
        self.arm_session(id);
    }

    /// Changes a session.
    pub(crate) fn edit_session(&mut self, id: SessionId, change: impl FnOnce(&mut Session)) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        let revision = self.next_revision();
        if let Some(entry) = self.sessions.get_mut(&id) {
            let row = Arc::make_mut(&mut entry.row);
            change(row);
            row.revision = revision;
        }
        self.outbox.sessions.insert(id);
        self.arm_session(id);
    }

    /// The agent of a session was heard. Its timer stays: when it fires, it is set anew.
    pub(crate) fn heard_session(&mut self, id: SessionId) {
        let now = self.now;
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        entry.heard = now;
        // A shorter patience than before.
        if entry.heard.after(entry.row.patience()).max(self.grace_until) < entry.timer {
            self.arm_session(id);
        }
    }

    /// Removes a session that ended. Returns its row and its leases.
    pub(crate) fn remove_session(&mut self, id: SessionId) -> Option<(Arc<Session>, BTreeSet<LeaseId>)> {
        let removed = self.unload_session(id)?;
        // A change like others: who follows the changes has to hear of it.
        self.next_revision();
        self.outbox.sessions.remove(&id);
        self.outbox.ended_sessions.push(id);
        Some(removed)
    }

    /// Takes over what is stored of a session.
    pub(crate) fn load_session(&mut self, row: Session) {
        let row = Arc::new(row);
        if let Some(entry) = self.sessions.get_mut(&row.id) {
            entry.row = row;
            return;
        }
        *self.session_counts.entry((row.tenant.clone(), row.principal.clone())).or_default() += 1;
        let entry = SessionEntry { row: row.clone(), heard: self.now, leases: BTreeSet::new(), timer: NEVER };
        self.sessions.insert(row.id, entry);
    }

    /// A session has ended, here or as another core has stored it.
    pub(crate) fn unload_session(&mut self, id: SessionId) -> Option<(Arc<Session>, BTreeSet<LeaseId>)> {
        let SessionEntry { row, leases, timer, .. } = self.sessions.remove(&id)?;
        self.timers.remove(&(timer, Timer::Session(id)));
        let key = (row.tenant.clone(), row.principal.clone());
        if let Some(count) = self.session_counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.session_counts.remove(&key);
            }
        }
        Some((row, leases))
    }

    /// A lease stands in the table of this session, and not in that of the one before.
    pub(crate) fn move_in_sessions(&mut self, lease: LeaseId, before: Option<SessionId>, after: Option<SessionId>) {
        if before == after {
            return;
        }
        if let Some(entry) = before.and_then(|id| self.sessions.get_mut(&id)) {
            entry.leases.remove(&lease);
        }
        if let Some(entry) = after.and_then(|id| self.sessions.get_mut(&id)) {
            entry.leases.insert(lease);
        }
    }

    /// A lease came into its table, as new or as loaded.
    pub(crate) fn enter_session(&mut self, row: &Lease) {
        self.move_in_sessions(row.id, None, row.in_session());
    }

    /// A lease leaves its table.
    pub(crate) fn exit_session(&mut self, row: &Lease) {
        self.move_in_sessions(row.id, row.in_session(), None);
    }

    /// Sets the timer of a session to its deadline.
    pub(crate) fn arm_session(&mut self, id: SessionId) {
        let Some(due) = self.session_deadline(id) else { return };
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let before = core::mem::replace(&mut entry.timer, due);
        if before != due {
            self.timers.remove(&(before, Timer::Session(id)));
            self.timers.insert((due, Timer::Session(id)));
        }
    }

    /// The same for all sessions.
    pub(crate) fn arm_sessions(&mut self) {
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        all.into_iter().for_each(|id| self.arm_session(id));
    }

    /// The timer of a session fired.
    pub(crate) fn fire_session(&mut self, id: SessionId) {
        if let Some(entry) = self.sessions.get_mut(&id) {
            entry.timer = NEVER;
        }
        self.session_due(id);
        self.arm_session(id);
    }
}
