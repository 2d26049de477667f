//! What steps have changed since the last batch was taken.

use crate::machine::Core;
use crate::tables::Login;
use crate::{
    Batch, Effect, Event, LeaseId, LeaseState, Millis, Op, PoolRow, Resource, ResourceId, ResourceState, Revision,
    Subject, Work,
};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Ids of what changed; rows are looked up when the batch is taken, so that each is stored once, in its last state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    pub(crate) base: Revision,
    pub(crate) leases: BTreeSet<LeaseId>,
    pub(crate) resources: BTreeSet<ResourceId>,
    pub(crate) pools: BTreeSet<Arc<str>>,
    pub(crate) forgotten_leases: Vec<LeaseId>,
    pub(crate) forgotten_resources: Vec<ResourceId>,
    pub(crate) events: Vec<Event>,
    pub(crate) calls: Vec<Call>,
}

/// A call of an adapter that was decided on; dropped if it is not wanted any more when the batch is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Resource(ResourceId, Op),
    Probe(ResourceId, Op),
    Lease(LeaseId, Op),
}

/// The name under which the broker itself acts.
pub(crate) const SELF: &str = "wharfinger";

impl Core {
    /// Writes an entry of the audit trail, as of the latest change.
    pub(crate) fn event(&mut self, kind: &'static str, actor: &Arc<str>, subject: Subject, detail: impl Into<String>) {
        let (pool, resource, lease) = match &subject {
            Subject::Pool(name) => (Some(name.clone()), None, None),
            Subject::Resource(id) => (self.resource(*id).map(|row| row.pool.clone()), Some(*id), None),
            Subject::Lease(id) => {
                let row = self.lease(*id);
                let hold = row.and_then(|row| row.hold().copied());
                (row.and_then(|row| row.pool.clone()), hold.map(|hold| hold.resource), Some(*id))
            }
        };
        let detail: String = detail.into();
        self.pending.events.push(Event {
            revision: self.revision,
            at: self.now,
            kind,
            actor: actor.clone(),
            subject,
            pool,
            resource,
            lease,
            detail: Arc::from(detail),
        });
    }

    /// As [`Core::event`], by the broker itself.
    pub(crate) fn own_event(&mut self, kind: &'static str, subject: Subject, detail: impl Into<String>) {
        self.event(kind, &Arc::from(SELF), subject, detail);
    }

    /// Takes back the entry that says that a lease stands in line, if it is not stored yet: one entry then tells that it
    /// was asked for and granted. Returns who asked.
    pub(crate) fn asked_just_now(&mut self, id: LeaseId) -> Option<Arc<str>> {
        let seq = self.lease(id)?.seq;
        if seq <= self.pending.base.0 {
            return None;
        }
        let events = &mut self.pending.events;
        let recent = events.iter().rev().take_while(|event| event.revision.0 >= seq).count();
        let from = events.len() - recent;
        let at = events[from..]
            .iter()
            .position(|event| event.kind == "lease.queued" && event.subject == Subject::Lease(id))?;
        Some(events.remove(from + at).actor)
    }

    pub(crate) fn call(&mut self, call: Call) {
        self.pending.calls.push(call);
    }

    pub(crate) fn collect_batch(&mut self) -> Batch {
        let pending = core::mem::take(&mut self.pending);
        self.pending.base = self.revision;
        let effects = pending.calls.iter().filter_map(|call| self.effect_of(call)).collect();
        let mut batch = Batch {
            base: pending.base,
            revision: self.revision,
            now: self.now,
            leases: pending.leases.iter().filter_map(|id| self.lease(*id).cloned()).collect(),
            resources: pending.resources.iter().filter_map(|id| self.resource(*id).cloned()).collect(),
            pools: pending.pools.iter().filter_map(|name| self.pool_row(name)).collect(),
            forgotten_leases: pending.forgotten_leases,
            forgotten_resources: pending.forgotten_resources,
            floor: self.floor,
            events: pending.events,
            effects,
        };
        batch.leases.sort_by_key(|row| row.revision);
        batch.resources.sort_by_key(|row| row.revision);
        batch.pools.sort_by_key(|row| row.revision);
        batch
    }

    fn pool_row(&self, name: &Arc<str>) -> Option<Arc<PoolRow>> {
        self.pools.get(name).map(|pool| {
            Arc::new(PoolRow { name: name.clone(), revision: pool.revision, cordoned: pool.cordoned.clone() })
        })
    }

    /// The effect of a call, if the row still says that it is under way.
    pub(crate) fn effect_of(&self, call: &Call) -> Option<Effect> {
        match *call {
            Call::Probe(id, op) => {
                let resource = self.resource(id)?.clone();
                let timeout = self.pools.get(&resource.pool)?.config.timeouts.check;
                let by_new_login = self.resources.get(&id)?.liveness.login == Login::UnderWay;
                Some(Effect { by_new_login, ..self.effect(Work::Probe, op, resource, timeout)? })
            }
            Call::Resource(id, op) => {
                let resource = self.resource(id)?.clone();
                let timeouts = self.pools.get(&resource.pool)?.config.timeouts;
                let (work, timeout) = match &resource.state {
                    ResourceState::Provisioning { op: Some(own), attempt, .. } if *own == op => {
                        (Work::Provision(*attempt), timeouts.provision)
                    }
                    ResourceState::Suspect { op: Some(own), .. } if *own == op => (Work::Check, timeouts.check),
                    ResourceState::Repairing { op: own, .. } if *own == op => (Work::Repair, timeouts.repair),
                    ResourceState::Destroying { op: Some(own), .. } | ResourceState::Orphaned { op: Some(own), .. }
                        if *own == op =>
                    {
                        (Work::Destroy, timeouts.destroy)
                    }
                    ResourceState::Provisioning { .. }
                    | ResourceState::Ready
                    | ResourceState::Suspect { .. }
                    | ResourceState::Repairing { .. }
                    | ResourceState::Quarantined { .. }
                    | ResourceState::Draining { .. }
                    | ResourceState::Destroying { .. }
                    | ResourceState::Orphaned { .. }
                    | ResourceState::Gone { .. } => return None,
                };
                self.effect(work, op, resource, timeout)
            }
            Call::Lease(id, op) => {
                let lease = self.lease(id)?.clone();
                let resource = self.resource(lease.hold()?.resource)?.clone();
                let timeouts = self.pools.get(&resource.pool)?.config.timeouts;
                let (work, timeout) = match &lease.state {
                    LeaseState::Preparing { op: own, .. } if *own == op => {
                        (Work::Prepare(lease.clone()), timeouts.prepare)
                    }
                    LeaseState::Ended { cleanup: Some(cleanup), .. } if cleanup.op == op => {
                        (Work::Clean(lease.clone()), timeouts.clean)
                    }
                    LeaseState::Queued
                    | LeaseState::Preparing { .. }
                    | LeaseState::Active { .. }
                    | LeaseState::Ended { .. } => return None,
                };
                self.effect(work, op, resource, timeout)
            }
        }
    }

    fn effect(&self, work: Work, op: Op, resource: Arc<Resource>, timeout: Millis) -> Option<Effect> {
        let host = match resource.parent {
            Some(parent) => Some(self.resource(parent.host?)?.clone()),
            None => None,
        };
        Some(Effect { work, op, resource, host, timeout, by_new_login: false })
    }
}
