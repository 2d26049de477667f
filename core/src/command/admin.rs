//! Requests of operators. Every verb is valid in every state but GONE; one that cannot apply changes nothing but the audit
//! trail. A verb on a resource that stands for a machine is an order on the machine: it outlives the resource.

use super::{reject, unknown_resource};
use crate::Core;
use crate::lifecycle::{Consequence, End};
use crate::{
    AdminRequest, AdminVerb, Caller, CauseChain, Cordon, EventKind, Hold, LeaseId, Link, MachineKey, MachineName,
    MachineVerb, Millis, Note, Order, Reason, Rejection, RejectionKind, Reply, ResourceId, Scope, Source, Stage,
    Subject, Timestamp,
};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The caller of an order, and its reason.
struct Said {
    principal: Arc<str>,
    reason: Arc<str>,
}

/// The object of a verb, after all that may be wrong with the request was looked at.
pub(super) enum Object {
    /// A pool, and whether it is to be open to new leases.
    Pool(Arc<str>, bool),
    /// A verb on a place.
    Place(Place, MachineVerb),
    /// The end of a lease.
    Lease(LeaseId),
}

/// A machine, a resource, or a resource that stands for a machine.
pub(super) struct Place {
    machine: Option<MachineKey>,
    resource: Option<ResourceId>,
    /// Whether the request names the machine, and so is answered with it.
    by_machine: bool,
}

impl Core {
    pub(crate) fn on_admin(&mut self, request: AdminRequest) -> Result<Reply, Rejection> {
        let object = self.object(&request)?;
        self.must_be_as_seen(&object, &request)?;
        let AdminRequest { caller, reason, .. } = request;
        let said = Said { principal: caller.principal, reason };
        match &object {
            Object::Pool(name, open) => self.open_pool(name, *open, &said),
            Object::Place(place, verb) => self.act(place, *verb, &said),
            Object::Lease(id) => self.break_for(*id, said),
        }
        self.reply(object)
    }

    /// The object of a request, and so every refusal but those of a state that has changed.
    pub(super) fn object(&self, request: &AdminRequest) -> Result<Object, Rejection> {
        let AdminRequest { caller, verb, .. } = request;
        let on = |id: &ResourceId, verb| self.on_resource(*id, verb, &caller.sees);
        match verb {
            AdminVerb::CordonPool(name) => self.on_pool(name, false, &caller.sees),
            AdminVerb::UncordonPool(name) => self.on_pool(name, true, &caller.sees),
            AdminVerb::Cordon(id) => on(id, MachineVerb::Cordon),
            AdminVerb::Uncordon(id) => on(id, MachineVerb::Uncordon),
            AdminVerb::Drain(id, deadline) => on(id, MachineVerb::Drain(*deadline)),
            AdminVerb::Undrain(id) => on(id, MachineVerb::Undrain),
            AdminVerb::Note(id) => on(id, MachineVerb::Note),
            AdminVerb::Check(id) => on(id, MachineVerb::Check),
            AdminVerb::Taint(id) => on(id, MachineVerb::Taint),
            AdminVerb::Quarantine(id) => on(id, MachineVerb::Quarantine),
            AdminVerb::Recover(id) => on(id, MachineVerb::Recover),
            AdminVerb::Hold(id, span) => on(id, MachineVerb::Hold(*span)),
            AdminVerb::HoldLease(id, span) => {
                let lease = self.seen_lease(*id, caller)?;
                let Some(assignment) = lease.assignment() else {
                    let message = format!("{id} has no resource now: hold the resource itself, by its id");
                    return Err(reject(RejectionKind::Precondition, "NO_RESOURCE", "lease_id", message));
                };
                on(&assignment.resource, MachineVerb::Hold(*span))
            }
            AdminVerb::Recycle(id) => on(id, MachineVerb::Recycle),
            AdminVerb::ForceDestroy(id) => on(id, MachineVerb::ForceDestroy),
            AdminVerb::OnMachine(name, verb) => {
                let key = self.known_machine(name, &caller.sees)?;
                let resource = self.resource_of(&key);
                Self::on_place(Place { machine: Some(key), resource, by_machine: true }, *verb)
            }
            AdminVerb::Break(id) => self.lease_to_end(*id, caller),
        }
    }

    fn on_pool(&self, name: &Arc<str>, open: bool, scope: &Scope) -> Result<Object, Rejection> {
        if scope.shows_pool(name) && self.pool_entry(name).is_some() {
            return Ok(Object::Pool(name.clone(), open));
        }
        let message = format!("no pool {name:?}: list them with `wharfinger pools`");
        Err(reject(RejectionKind::NotFound, "UNKNOWN_POOL", "pool", message))
    }

    fn on_resource(&self, id: ResourceId, verb: MachineVerb, scope: &Scope) -> Result<Object, Rejection> {
        self.must_be_there(id, scope)?;
        Self::on_place(Place { machine: self.machine_of(id), resource: Some(id), by_machine: false }, verb)
    }

    fn on_place(place: Place, verb: MachineVerb) -> Result<Object, Rejection> {
        match (verb, &place) {
            (MachineVerb::Hold(span), _) if span <= Millis::ZERO => {
                let message = String::from("a hold must be longer than 0: say how long it is to be kept");
                return Err(reject(RejectionKind::Invalid, "HOLD_NOT_POSITIVE", "hold", message));
            }
            (
                MachineVerb::Check | MachineVerb::Taint | MachineVerb::Recycle | MachineVerb::ForceDestroy,
                Place { machine: Some(key), resource: None, .. },
            ) => return Err(Self::no_resource_for(key)),
            (
                MachineVerb::Cordon
                | MachineVerb::Uncordon
                | MachineVerb::Drain(_)
                | MachineVerb::Undrain
                | MachineVerb::Check
                | MachineVerb::Taint
                | MachineVerb::Quarantine
                | MachineVerb::Hold(_)
                | MachineVerb::Recover
                | MachineVerb::Recycle
                | MachineVerb::ForceDestroy
                | MachineVerb::Note,
                _,
            ) => {}
        }
        Ok(Object::Place(place, verb))
    }

    fn lease_to_end(&self, id: LeaseId, caller: &Caller) -> Result<Object, Rejection> {
        let lease = self.seen_lease(id, caller)?;
        if let Some(child) = lease.spec.child {
            let message = format!("{id} is held by {child}: recycle that resource instead");
            return Err(reject(RejectionKind::Precondition, "HELD_BY_BROKER", "lease_id", message));
        }
        Ok(Object::Lease(id))
    }

    /// The object as it is.
    pub(super) fn reply(&self, object: Object) -> Result<Reply, Rejection> {
        Ok(match object {
            Object::Pool(name, _) => Reply::Pool(name),
            Object::Place(Place { machine: Some(key), by_machine: true, .. }, _) => Reply::Machine(key),
            Object::Place(place, _) => {
                let row = place.resource.and_then(|id| self.resource(id)).cloned();
                row.map_or(Reply::Done, Reply::Resource)
            }
            Object::Lease(id) => Reply::Leases(self.lease(id).cloned().into_iter().collect()),
        })
    }

    /// A resource that is gone takes no orders. The answer names what stands in its stead.
    fn must_be_there(&self, id: ResourceId, scope: &Scope) -> Result<(), Rejection> {
        let row = self.resource(id).filter(|row| scope.shows_pool(&row.pool)).ok_or_else(|| unknown_resource(id))?;
        if row.state.stage() != Stage::Gone {
            return Ok(());
        }
        let message = match self.successor(id) {
            Some((key, Some(next))) => {
                format!("{id} is gone: {key} is {next} now; name that, or {key}")
            }
            Some((key, None)) => {
                format!(
                    "{id} is gone, and no resource stands for {key} now: name {key} to give an order on the machine"
                )
            }
            None => format!(
                "{id} is gone, and what was ordered for it ended with it: `wharfinger resources --pool {}` lists what there is",
                row.pool
            ),
        };
        Err(reject(RejectionKind::Precondition, "RESOURCE_GONE", "resource_id", message))
    }

    /// The machine of this name in a pool of this scope, configured, or with an order or a note on it.
    ///
    /// # Errors
    /// `UNKNOWN_MACHINE`, `AMBIGUOUS_MACHINE`.
    pub fn known_machine(&self, name: &MachineName, scope: &Scope) -> Result<MachineKey, Rejection> {
        let named = |pool: &Arc<str>| name.pool.as_ref().is_none_or(|wanted| wanted == pool);
        let fits = |pool: &Arc<str>| named(pool) && scope.shows_pool(pool);
        let mut found: Vec<MachineKey> = Vec::new();
        for pool in self.pool_entries().filter(|pool| fits(&pool.config.name)) {
            let configured = pool.config.inventory.iter().flatten().any(|item| item.name == name.item);
            let key = MachineKey { pool: pool.config.name.clone(), item: name.item.clone() };
            if configured || self.resource_of(&key).is_some() {
                found.push(key);
            }
        }
        for machine in self.machines().filter(|row| row.is_marked() && row.key.item == name.item && fits(&row.key.pool))
        {
            if !found.contains(&machine.key) {
                found.push(machine.key.clone());
            }
        }
        if let [one] = &found[..] {
            return Ok(one.clone());
        }
        if found.is_empty() {
            let message = format!(
                "no machine {:?}: `wharfinger pools` lists the pools, and the items of each; a machine is POOL/ITEM",
                name.to_string()
            );
            return Err(reject(RejectionKind::NotFound, "UNKNOWN_MACHINE", "machine", message));
        }
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        let message =
            format!("{} pools have a machine {:?}: name one of {}", found.len(), &*name.item, names.join(", "));
        Err(reject(RejectionKind::Invalid, "AMBIGUOUS_MACHINE", "machine", message))
    }

    fn act(&mut self, place: &Place, verb: MachineVerb, said: &Said) {
        match verb {
            MachineVerb::Cordon | MachineVerb::Uncordon => {
                self.cordon(place, verb == MachineVerb::Cordon, said);
            }
            MachineVerb::Drain(deadline) => {
                self.order(place, Self::order_drain, Some(said.order(self.now(), None)));
                self.say(place, EventKind::ResourceDrainAsked, EventKind::MachineDrained, said);
                if let Some(id) = self.target(place) {
                    let deadline = deadline.map(|span| self.now().after(span));
                    self.then(Consequence::Drain { resource: id, cause: self.said(id, said), deadline });
                }
            }
            MachineVerb::Undrain => {
                self.say(place, EventKind::ResourceUndrainAsked, EventKind::MachineUndrained, said);
                self.undrain_place(place, said);
            }
            MachineVerb::Check | MachineVerb::Taint => {
                let Some(id) = place.resource else { return };
                let (kind, reason) = if verb == MachineVerb::Check {
                    (EventKind::ResourceCheckAsked, Reason::Operator)
                } else {
                    (EventKind::ResourceTainted, Reason::HolderTainted)
                };
                self.event(kind, &said.principal, Subject::Resource(id), &*said.reason);
                let cause = alloc::vec![Link { reason, ..self.said(id, said).remove(0) }];
                self.then(Consequence::Doubt { resource: id, cause, missed: false });
            }
            MachineVerb::Quarantine => {
                self.order(place, Self::order_hold, Some(said.order(self.now(), None)));
                match self.target(place).filter(|id| !self.is_leaving(*id)) {
                    Some(id) => self.quarantine(id, said),
                    None => self.say_held(place, said),
                }
            }
            MachineVerb::Hold(span) => self.hold_for(place, span, said),
            MachineVerb::Recover => {
                self.order(place, Self::order_hold, None);
                self.say(place, EventKind::ResourceRecoverAsked, EventKind::MachineHoldOver, said);
                if let Some(key) = &place.machine {
                    self.forgive_machine(key);
                }
                if let Some(id) = self.target(place) {
                    let link = self.said(id, said).remove(0);
                    self.then(Consequence::TakeBack { resource: id, link });
                }
            }
            MachineVerb::Recycle => {
                let Some(id) = place.resource else { return };
                self.order(place, Self::order_hold, None);
                self.event(EventKind::ResourceRecycleAsked, &said.principal, Subject::Resource(id), &*said.reason);
                let (cause, actor) = (self.said(id, said), said.principal.clone());
                self.then(Consequence::Remove { resource: id, cause, end: End::Planned, actor });
            }
            MachineVerb::ForceDestroy => {
                let Some(id) = place.resource else { return };
                self.order(place, Self::order_hold, None);
                self.event(EventKind::ResourceForceDestroyAsked, &said.principal, Subject::Resource(id), &*said.reason);
                self.force_destroy(id, self.said(id, said), &said.principal);
            }
            MachineVerb::Note => self.note(place, said),
        }
    }

    /// Gives an order on the machine, if there is one.
    fn order(&mut self, place: &Place, give: fn(&mut Self, &MachineKey, Option<Order>), order: Option<Order>) {
        if let Some(key) = &place.machine {
            give(self, key, order);
        }
    }

    /// The resource to which an order applies: of a machine, the one that stands for it now.
    pub(super) fn target(&self, place: &Place) -> Option<ResourceId> {
        let now = place.machine.as_ref().and_then(|key| self.resource_of(key));
        now.or(place.resource)
    }

    /// The refusal of a request for the resource of a machine for which none stands.
    pub fn no_resource_for(key: &MachineKey) -> Rejection {
        let message = format!("no resource stands for {key} now: `wharfinger resources` says why");
        reject(RejectionKind::Precondition, "NO_RESOURCE", "machine", message)
    }

    /// Writes an entry of the audit trail on the resource, or else on the machine.
    fn say(&mut self, place: &Place, on_resource: EventKind, on_machine: EventKind, said: &Said) {
        match (self.target(place), &place.machine) {
            (Some(id), _) => self.event(on_resource, &said.principal, Subject::Resource(id), &*said.reason),
            (None, Some(key)) => self.machine_event(key, on_machine, &said.principal, &said.reason),
            (None, None) => {}
        }
    }

    fn cordon(&mut self, place: &Place, on: bool, said: &Said) {
        let (of_resource, of_machine) = if on {
            (EventKind::ResourceCordoned, EventKind::MachineCordoned)
        } else {
            (EventKind::ResourceUncordoned, EventKind::MachineUncordoned)
        };
        match (&place.machine, place.resource) {
            (Some(key), _) => self.order_cordon(key, on.then(|| said.order(self.now(), None))),
            (None, Some(id)) => self.set_cordon(id, on.then(|| said.cordon())),
            (None, None) => {}
        }
        self.say(place, of_resource, of_machine, said);
        if let Some(key) = place.machine.as_ref().filter(|_| !on) {
            self.forgive_machine(key);
        }
        if !on {
            self.undrain_place(place, said);
        }
    }

    fn note(&mut self, place: &Place, said: &Said) {
        let note = said.note(self.now());
        let (of_resource, of_machine) = if note.is_some() {
            (EventKind::ResourceNoted, EventKind::MachineNoted)
        } else {
            (EventKind::ResourceNoteRemoved, EventKind::MachineNoteRemoved)
        };
        match (&place.machine, place.resource) {
            (Some(key), _) => self.note_machine(key, note),
            (None, Some(id)) => self.set_note(id, note),
            (None, None) => {}
        }
        self.say(place, of_resource, of_machine, said);
    }

    fn undrain_place(&mut self, place: &Place, said: &Said) {
        self.order(place, Self::order_drain, None);
        if let Some(id) = self.target(place) {
            let link = self.said(id, said).remove(0);
            self.then(Consequence::Undrain { resource: id, root: id, reasons: &[Reason::Operator], link });
        }
    }

    /// The cause of what an operator does to a resource.
    fn said(&self, id: ResourceId, said: &Said) -> CauseChain {
        alloc::vec![self.link(id, Reason::Operator, &said.reason, Source::Operator(said.principal.clone()))]
    }

    fn open_pool(&mut self, name: &Arc<str>, open: bool, said: &Said) {
        self.cordon_pool(name, (!open).then(|| said.cordon()));
        let kind = if open { EventKind::PoolUncordoned } else { EventKind::PoolCordoned };
        self.event(kind, &said.principal, Subject::Pool(name.clone()), &*said.reason);
        if open {
            self.forgive_pool(name);
        }
        self.reindex_members(name);
    }

    fn quarantine(&mut self, id: ResourceId, said: &Said) {
        if !self.can_be_set_apart(id) {
            return;
        }
        let hold = Hold { by: said.principal.clone(), reason: said.reason.clone(), until: None };
        let (cause, actor) = (self.said(id, said), said.principal.clone());
        self.then(Consequence::SetApart { resource: id, hold, cause, actor });
    }

    /// Whether there is anything to be looked at. One that waits for its host has nothing, and nothing to come back to.
    pub(super) fn can_be_set_apart(&self, id: ResourceId) -> bool {
        let waits_for_host =
            self.resource(id).is_some_and(|row| row.parent.is_some_and(|parent| parent.host.is_none()));
        !self.is_leaving(id) && !waits_for_host
    }

    fn hold_for(&mut self, place: &Place, span: Millis, said: &Said) {
        let until = Some(self.now().after(span));
        self.order(place, Self::order_hold, Some(said.order(self.now(), until)));
        match self.target(place).filter(|id| self.can_be_held(*id)) {
            Some(id) => {
                let hold = Hold { by: said.principal.clone(), reason: said.reason.clone(), until };
                self.then(Consequence::Hold { resource: id, hold, actor: said.principal.clone() });
            }
            None => self.say_held(place, said),
        }
    }

    /// Whether it is there. One that is being made has nothing to show yet: it is held when it is there.
    fn can_be_held(&self, id: ResourceId) -> bool {
        self.resource(id).is_some_and(|row| match row.state.stage() {
            Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Apart | Stage::Draining => true,
            Stage::Coming | Stage::Leaving | Stage::Gone => false,
        })
    }

    fn say_held(&mut self, place: &Place, said: &Said) {
        if let Some(key) = &place.machine {
            self.machine_event(key, EventKind::MachineHeld, &said.principal, &said.reason);
        }
    }

    /// Its capacity is free at once; what is left of it is the janitor's.
    fn force_destroy(&mut self, id: ResourceId, chain: CauseChain, principal: &Arc<str>) {
        let (cause, actor) = (chain.clone(), principal.clone());
        self.bring_about(Consequence::Remove { resource: id, cause, end: End::Forced, actor });
        self.orphan_by_force(id, chain, principal);
    }

    fn break_for(&mut self, id: LeaseId, said: Said) {
        let link = Link {
            subject: Subject::Lease(id),
            reason: Reason::Operator,
            detail: said.reason,
            source: Source::Operator(said.principal.clone()),
            at: self.now(),
        };
        self.bring_about(Consequence::Break { lease: id, cause: alloc::vec![link], actor: said.principal });
    }
}

impl Said {
    fn cordon(&self) -> Cordon {
        Cordon { by: self.principal.clone(), reason: self.reason.clone() }
    }

    /// An empty text is none.
    fn note(&self, at: Timestamp) -> Option<Note> {
        (!self.reason.is_empty()).then(|| Note { by: self.principal.clone(), text: self.reason.clone(), at })
    }

    fn order(&self, at: Timestamp, until: Option<Timestamp>) -> Order {
        Order { by: self.principal.clone(), reason: self.reason.clone(), at, until }
    }
}
