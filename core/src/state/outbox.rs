//! The outbox: changes, events and calls since the last batch.

use crate::Core;
use crate::model::resource::Task;
use crate::state::tables::Login;
use crate::{
    Batch, Effect, Event, EventKind, Input, LeaseId, LeaseState, MachineKey, Millis, Op, PoolRow, Provenance, Resource,
    ResourceId, Revision, SessionId, Subject, Work,
};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Ids of what changed; rows are looked up when the batch is taken, so that each is stored once, in its last state.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    pub(super) base: Revision,
    pub(super) leases: BTreeSet<LeaseId>,
    pub(super) resources: BTreeSet<ResourceId>,
    pub(super) pools: BTreeSet<Arc<str>>,
    pub(super) machines: BTreeSet<MachineKey>,
    pub(super) sessions: BTreeSet<SessionId>,
    pub(super) forgotten_leases: Vec<LeaseId>,
    pub(super) forgotten_resources: Vec<ResourceId>,
    pub(super) ended_sessions: Vec<SessionId>,
    pub(super) events: Vec<Event>,
    /// The principal whose input is being taken, and how it called.
    pub(super) caller: Option<(Arc<str>, Arc<Provenance>)>,
    pub(super) calls: Vec<Call>,
}

/// A call of an adapter. The batch drops it if the row no longer wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Resource(ResourceId, Op),
    Probe(ResourceId, Op),
    Lease(LeaseId, Op),
}

/// The caller of a request whose entry is not stored yet.
pub(crate) struct Asked {
    actor: Arc<str>,
    caller: Option<Arc<Provenance>>,
}

/// The pool, resource and lease that an entry names.
type About = (Option<Arc<str>>, Option<ResourceId>, Option<LeaseId>);

/// The name under which the broker itself acts.
pub(crate) const SELF: &str = "wharfinger";

impl Core {
    /// Writes an entry of the audit trail, as of the latest change.
    pub(crate) fn event(&mut self, kind: EventKind, actor: &Arc<str>, subject: Subject, detail: impl Into<String>) {
        let about = self.about(&subject);
        self.write(kind, actor, subject, about, detail.into());
    }

    /// The pool, resource and lease that an entry on this subject names.
    fn about(&self, subject: &Subject) -> About {
        match subject {
            Subject::Pool(name) => (Some(name.clone()), None, None),
            Subject::Session(_) => (None, None, None),
            Subject::Resource(id) => (self.resource(*id).map(|row| row.pool.clone()), Some(*id), None),
            Subject::Lease(id) => {
                let row = self.lease(*id);
                let assignment = row.and_then(|row| row.assignment().copied());
                (row.and_then(|row| row.pool.clone()), assignment.map(|assignment| assignment.resource), Some(*id))
            }
        }
    }

    /// As [`Core::event`], with the resource that it is about.
    pub(crate) fn event_at(
        &mut self,
        kind: EventKind,
        actor: &Arc<str>,
        subject: Subject,
        resource: Option<ResourceId>,
        detail: impl Into<String>,
    ) {
        let (pool, _, lease) = self.about(&subject);
        self.write(kind, actor, subject, (pool, resource, lease), detail.into());
    }

    /// Writes that a working copy gives its slot to a lease, into the story of both.
    pub(crate) fn gave_way(&mut self, copy: ResourceId, lease: Option<LeaseId>, why: &str) {
        let (pool, ..) = self.about(&Subject::Resource(copy));
        let about = (pool, Some(copy), lease);
        self.write(EventKind::ResourceGaveWay, &Arc::from(SELF), Subject::Resource(copy), about, String::from(why));
    }

    fn write(&mut self, kind: EventKind, actor: &Arc<str>, subject: Subject, about: About, detail: String) {
        let (pool, resource, lease) = about;
        // An entry by another principal, or by the broker, follows from something else.
        let caller = self.outbox.caller.as_ref().filter(|(principal, _)| principal == actor);
        let caller = caller.map(|(_, proved)| proved.clone());
        self.outbox.events.push(Event {
            revision: self.revision,
            at: self.now,
            kind,
            actor: actor.clone(),
            subject,
            pool,
            resource,
            lease,
            detail: Arc::from(detail),
            caller,
        });
    }

    /// Sets the caller of the input that is being taken, whose own entries name it.
    pub(crate) fn set_caller(&mut self, input: Option<&Input>) {
        let caller = input.and_then(Input::caller);
        self.outbox.caller = caller.and_then(|caller| Some((caller.principal.clone(), caller.proved.clone()?)));
    }

    /// Writes an entry for a request that is granted at once, as its caller's own.
    pub(crate) fn event_of(&mut self, asked: Option<Asked>, kind: EventKind, subject: Subject, detail: String) {
        let Some(Asked { actor, caller }) = asked else { return self.own_event(kind, subject, detail) };
        self.event(kind, &actor, subject, detail);
        if let Some(event) = self.outbox.events.last_mut() {
            event.caller = caller;
        }
    }

    /// As [`Core::event`], by the broker itself.
    pub(crate) fn own_event(&mut self, kind: EventKind, subject: Subject, detail: impl Into<String>) {
        self.event(kind, &Arc::from(SELF), subject, detail);
    }

    /// Removes the entry that a lease is queued, if it is not stored yet: one entry then reports that it
    /// was requested and granted. Returns the caller of the request.
    pub(crate) fn asked_just_now(&mut self, id: LeaseId) -> Option<Asked> {
        let seq = self.lease(id)?.seq;
        if seq <= self.outbox.base.0 {
            return None;
        }
        let events = &mut self.outbox.events;
        let recent = events.iter().rev().take_while(|event| event.revision.0 >= seq).count();
        let from = events.len() - recent;
        let at = events[from..]
            .iter()
            .position(|event| event.kind == EventKind::LeaseQueued && event.subject == Subject::Lease(id))?;
        let Event { actor, caller, .. } = events.remove(from + at);
        Some(Asked { actor, caller })
    }

    pub(crate) fn call(&mut self, call: Call) {
        self.outbox.calls.push(call);
    }

    pub(crate) fn collect_batch(&mut self) -> Batch {
        let outbox = core::mem::take(&mut self.outbox);
        self.outbox.base = self.revision;
        let effects = outbox.calls.iter().filter_map(|call| self.effect_of(call)).collect();
        let mut batch = Batch {
            base: outbox.base,
            revision: self.revision,
            now: self.now,
            leases: outbox.leases.iter().filter_map(|id| self.lease(*id).cloned()).collect(),
            resources: outbox.resources.iter().filter_map(|id| self.resource(*id).cloned()).collect(),
            pools: outbox.pools.iter().filter_map(|name| self.pool_row(name)).collect(),
            machines: outbox.machines.iter().filter_map(|key| self.machine(key).cloned()).collect(),
            sessions: outbox.sessions.iter().filter_map(|id| self.session(*id).cloned()).collect(),
            forgotten_leases: outbox.forgotten_leases,
            forgotten_resources: outbox.forgotten_resources,
            ended_sessions: outbox.ended_sessions,
            floor: self.floor,
            events: outbox.events,
            effects,
        };
        batch.leases.sort_by_key(|row| row.revision);
        batch.resources.sort_by_key(|row| row.revision);
        batch.pools.sort_by_key(|row| row.revision);
        batch.machines.sort_by_key(|row| row.revision);
        batch.sessions.sort_by_key(|row| row.revision);
        batch
    }

    fn pool_row(&self, name: &Arc<str>) -> Option<Arc<PoolRow>> {
        self.pools.get(name).map(|pool| {
            Arc::new(PoolRow {
                name: name.clone(),
                revision: pool.revision,
                cordoned: pool.cordoned.clone(),
                record: pool.record,
                losses: pool.losses.clone(),
            })
        })
    }

    /// The effect of a call, if it is still under way by its row.
    pub(crate) fn effect_of(&self, call: &Call) -> Option<Effect> {
        match *call {
            Call::Probe(id, op) => {
                let resource = self.resource(id)?.clone();
                let timeout = self.pools.get(&resource.pool)?.config.timeouts.check;
                let by_new_login = self.resources.get(&id)?.liveness.login == Login::UnderWay;
                let held = self.has_work(id);
                Some(Effect { by_new_login, held, ..self.effect(Work::Probe, op, resource, timeout)? })
            }
            Call::Resource(id, op) => {
                let resource = self.resource(id)?.clone();
                let timeouts = self.pools.get(&resource.pool)?.config.timeouts;
                let (work, timeout) = match resource.state.task().filter(|(_, own)| *own == op)?.0 {
                    Task::Provision(attempt) => (Work::Provision(attempt), timeouts.provision),
                    Task::Check => (Work::Check, timeouts.check),
                    Task::Repair => (Work::Repair, timeouts.repair),
                    Task::Destroy => (Work::Destroy, timeouts.destroy),
                };
                self.effect(work, op, resource, timeout)
            }
            Call::Lease(id, op) => {
                let lease = self.lease(id)?.clone();
                let resource = self.resource(lease.assignment()?.resource)?.clone();
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
        Some(Effect { work, op, resource, host, timeout, by_new_login: false, held: false })
    }
}
