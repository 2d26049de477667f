//! Time as data: one timer a lease, resource, pool or session, for the next thing that time alone will bring about. Leases have
//! tables of their own, which are smaller.

use crate::Core;
use crate::{Lease, LeaseId, LeaseState, MachineKey, Millis, ResourceId, SessionId, Stage, Timestamp};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The subject of a timer, other than a lease. A timer carries no decision: its subject is considered anew when it
/// fires.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    Resource(ResourceId),
    Pool(Arc<str>),
    Machine(MachineKey),
    Session(SessionId),
}

/// Maximum number of ended leases that one batch forgets: a backlog delays no request.
const FORGOTTEN_AT_ONCE: usize = 500;

/// No timer.
pub(crate) const NEVER: Timestamp = Timestamp(i64::MAX);

impl Core {
    pub(crate) fn fire_timers(&mut self) {
        self.fire_what_is_due();
        self.forget_what_is_old();
    }

    /// When time alone brings something about.
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        let lease = self.lease_timers.first().map(|(at, _)| *at);
        let old = self.old.first().map(|(at, _)| (*at).max(self.forgets_from));
        let other = self.timers.first().map(|(at, _)| *at);
        [lease, old, other].into_iter().flatten().min()
    }

    fn forget_what_is_old(&mut self) {
        if self.forgets_from > self.now {
            return;
        }
        while self.outbox.forgotten_leases.len() < FORGOTTEN_AT_ONCE {
            let Some((at, id)) = self.old.first().copied() else { return };
            if at > self.now {
                return;
            }
            self.old.pop_first();
            self.fire_lease(id);
        }
    }

    /// The lease has no timer any more.
    pub(crate) fn disarm_lease(&mut self, at: Timestamp, id: LeaseId) {
        if at != NEVER && !self.lease_timers.remove(&(at, id)) {
            self.old.remove(&(at, id));
        }
    }

    fn fire_what_is_due(&mut self) {
        loop {
            let lease = self.lease_timers.first().copied();
            let other = self.timers.first().map(|(at, _)| *at);
            let lease_first = lease.is_some_and(|(at, _)| other.is_none_or(|other| at <= other));
            let next = if lease_first { lease.map(|(at, _)| at) } else { other };
            if next.is_none_or(|at| at > self.now) {
                return;
            }
            if lease_first {
                if let Some((_, id)) = self.lease_timers.pop_first() {
                    self.fire_lease(id);
                }
                continue;
            }
            match self.timers.pop_first() {
                Some((_, Timer::Resource(id))) => {
                    if let Some(entry) = self.resources.get_mut(&id) {
                        entry.timer = NEVER;
                    }
                    self.resource_due(id);
                    self.arm_resource(id);
                }
                Some((_, Timer::Pool(name))) => {
                    self.dirty.insert(name);
                }
                Some((_, Timer::Machine(key))) => self.machine_due(&key),
                Some((_, Timer::Session(id))) => self.fire_session(id),
                None => {}
            }
        }
    }

    fn fire_lease(&mut self, id: LeaseId) {
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.timer = NEVER;
        }
        self.lease_due(id);
        self.arm_lease(id);
    }

    /// Sets the lease's timer to the next thing that time brings about.
    pub(crate) fn arm_lease(&mut self, id: LeaseId) {
        let retention = self.limits.retention;
        let grace_until = self.grace_until;
        let Some(entry) = self.leases.get_mut(&id) else { return };
        let due = due(&entry.row, retention, grace_until);
        if due != entry.timer {
            let before = core::mem::replace(&mut entry.timer, due);
            let ended = entry.row.ended();
            self.disarm_lease(before, id);
            if due == NEVER {
                return;
            }
            if ended {
                self.old.insert((due, id));
            } else {
                self.lease_timers.insert((due, id));
            }
        }
    }

    /// The same for all leases at once, see [`Core::index_leases`].
    pub(crate) fn arm_leases(&mut self) {
        let (mut timers, mut old) = (Vec::new(), Vec::new());
        for (id, entry) in &mut self.leases {
            entry.timer = due(&entry.row, self.limits.retention, self.grace_until);
            if entry.timer == NEVER {
                continue;
            }
            if entry.row.ended() {
                old.push((entry.timer, *id));
            } else {
                timers.push((entry.timer, *id));
            }
        }
        self.lease_timers = timers.into_iter().collect();
        self.old = old.into_iter().collect();
    }

    /// Sets the resource's timer to the next thing that time brings about.
    pub(crate) fn arm_resource(&mut self, id: ResourceId) {
        let retention = self.limits.retention;
        let Some(entry) = self.resources.get(&id) else { return };
        let row = &entry.row;
        // A resource that is gone is forgotten, even after its pool.
        let pool = self.pools.get(&row.pool);
        let mut due = row.state.due(retention).unwrap_or(NEVER);
        let (works, ready) = match row.state.stage() {
            Stage::Ready => (true, true),
            Stage::Draining => (true, false),
            Stage::Coming | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Leaving | Stage::Gone => {
                (false, false)
            }
        };
        // Children on a held host stay as they are.
        if ready && !self.host_is_held(row) {
            let of = |at: Option<Timestamp>, span: Option<Millis>| Some(at?.after(span?));
            let age = of(row.ready_at, pool.and_then(|pool| pool.config.max_age));
            let unused = row.idle_since.filter(|_| entry.slots.len() == 0);
            let idle = of(unused, pool.and_then(|pool| pool.config.idle)).unwrap_or(NEVER);
            // An idle timeout that was due and could not be acted on (the pool is at its minimum) comes again later.
            let idle = if idle <= self.now { entry.idle_recheck.max(idle) } else { idle };
            due = due.min(age.unwrap_or(NEVER)).min(idle);
        }
        if works {
            due = due.min(entry.liveness.next.unwrap_or(NEVER));
            due = due.min(row.hold.as_ref().and_then(|hold| hold.until).unwrap_or(NEVER));
        }
        if due != entry.timer {
            self.timers.remove(&(entry.timer, Timer::Resource(id)));
            if let Some(entry) = self.resources.get_mut(&id) {
                entry.timer = due;
            }
            if due != NEVER {
                self.timers.insert((due, Timer::Resource(id)));
            }
        }
    }
}

/// When time alone brings something about for a lease.
fn due(row: &Lease, retention: Millis, grace_until: Timestamp) -> Timestamp {
    match &row.state {
        LeaseState::Queued => row.spec.wait_until.unwrap_or(NEVER).min(row.not_before.unwrap_or(NEVER)),
        LeaseState::Preparing { .. } => NEVER,
        // One who vanished before a restart is given the same grace as one who is there.
        LeaseState::Active { .. } => row.expires_at.map_or(NEVER, |at| at.max(grace_until)),
        LeaseState::Ended { cleanup: Some(_), .. } => NEVER,
        LeaseState::Ended { at, .. } => at.after(retention),
    }
}
