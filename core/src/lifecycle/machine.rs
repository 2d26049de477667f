//! The orders of operators on machines: given, withdrawn, and taken over from resources of older versions.

use crate::lifecycle::Consequence;
use crate::state::outbox::SELF;
use crate::{
    Core, EventKind, Hold, Link, Machine, MachineKey, Note, Order, Reason, Resource, ResourceId, ResourceState, Source,
    Stage, Subject,
};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// Cordons or uncordons a machine, and the resources that stand for it.
    pub(crate) fn order_cordon(&mut self, key: &MachineKey, order: Option<Order>) {
        let cordon = order.as_ref().map(Order::cordon);
        if order.is_some() || self.machine(key).is_some_and(|machine| machine.cordoned.is_some()) {
            self.edit_machine(key, |machine| machine.cordoned = order);
        }
        for id in self.stand_for(key) {
            if self.resource(id).is_some_and(|row| row.cordoned != cordon) {
                self.set_cordon(id, cordon.clone());
            }
        }
    }

    /// Begins or ends the drain of a machine.
    pub(crate) fn order_drain(&mut self, key: &MachineKey, order: Option<Order>) {
        if order.is_some() || self.machine(key).is_some_and(|machine| machine.drained.is_some()) {
            self.edit_machine(key, |machine| machine.drained = order);
        }
    }

    /// Begins or ends the hold of a machine.
    pub(crate) fn order_hold(&mut self, key: &MachineKey, order: Option<Order>) {
        if order.is_some() || self.machine(key).is_some_and(|machine| machine.held.is_some()) {
            self.edit_machine(key, |machine| machine.held = order);
        }
    }

    /// Writes or removes the note on a machine, and on the resources that stand for it.
    pub(crate) fn note_machine(&mut self, key: &MachineKey, note: Option<Note>) {
        if note.is_some() || self.machine(key).is_some_and(|machine| machine.note.is_some()) {
            self.edit_machine(key, |machine| machine.note = note.clone());
        }
        for id in self.stand_for(key) {
            if self.resource(id).is_some_and(|row| row.note != note) {
                self.set_note(id, note.clone());
            }
        }
    }

    /// Resources of a machine that are not gone.
    fn stand_for(&self, key: &MachineKey) -> Vec<ResourceId> {
        let Some(pool) = self.pool_entry(&key.pool) else { return Vec::new() };
        let of = |id: &ResourceId| self.resource(*id).is_some_and(|row| row.item.as_ref() == Some(&key.item));
        pool.members.iter().copied().filter(of).collect()
    }

    /// Writes an entry on a machine for which no resource stands.
    pub(crate) fn machine_event(&mut self, key: &MachineKey, kind: EventKind, actor: &Arc<str>, detail: &str) {
        let tail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        self.event(kind, actor, Subject::Pool(key.pool.clone()), format!("{key}{tail}"));
    }

    /// The hold or the rest of a machine may have run out.
    pub(crate) fn machine_due(&mut self, key: &MachineKey) {
        self.wake_machine(key);
        if self.hold_ends(key).is_none_or(|at| at > self.now()) {
            return;
        }
        self.order_hold(key, None);
        if self.resource_of(key).is_none_or(|id| self.is_leaving(id)) {
            self.machine_event(key, EventKind::MachineHoldOver, &Arc::from(SELF), "");
        }
    }

    /// A resource that is in service again drains if its machine does.
    pub(crate) fn follow_drain(&mut self, id: ResourceId) {
        let Some(link) = self.drain_of_machine(id) else { return };
        self.then(Consequence::Drain { resource: id, cause: alloc::vec![link], deadline: None });
    }

    /// The order by which the machine of a resource is drained, as a cause.
    pub(crate) fn drain_of_machine(&self, id: ResourceId) -> Option<Link> {
        let order = self.machine(&self.machine_of(id)?)?.drained.as_ref()?;
        Some(self.link(id, Reason::Operator, &order.reason, Source::Operator(order.by.clone())))
    }

    /// A resource was made of a machine on which an operator has given an order meanwhile.
    pub(crate) fn follow_orders(&mut self, id: ResourceId) {
        self.follow_drain(id);
        let Some(order) = self.machine_of(id).and_then(|key| self.held_by_order(&key).cloned()) else { return };
        let actor = order.by.clone();
        let hold = Hold { by: order.by, reason: order.reason, until: order.until };
        self.then(Consequence::Hold { resource: id, hold, actor });
    }

    /// Versions without machines kept orders on resources: they become orders on the machines.
    pub(crate) fn adopt_orders(&mut self) {
        let rows: Vec<Arc<Resource>> = self.entries().map(|entry| entry.row.clone()).collect();
        for row in rows {
            let Some(key) = self.machine_of(row.id) else { continue };
            if row.state.is_leaving() || self.machine(&key).is_some() {
                continue;
            }
            let found = orders_on(&row, key);
            if found.out() {
                let key = found.key.clone();
                self.edit_machine(&key, |machine| *machine = found);
            }
        }
        let held: Vec<MachineKey> = self.machines().map(|machine| machine.key.clone()).collect();
        for key in held {
            self.arm_machine(&key);
        }
    }
}

/// The orders of operators that a resource carries.
fn orders_on(row: &Resource, key: MachineKey) -> Machine {
    let since = row.ready_at.unwrap_or(row.created_at);
    let mut found = Machine::new(key);
    found.cordoned = row.cordoned.as_ref().map(|cordon| Order {
        by: cordon.by.clone(),
        reason: cordon.reason.clone(),
        at: since,
        until: None,
    });
    match &row.state {
        ResourceState::Draining { cause, .. } => {
            let of_operator =
                cause.iter().find(|link| link.reason == Reason::Operator && link.subject == Subject::Resource(row.id));
            found.drained = of_operator.and_then(|link| match &link.source {
                Source::Operator(by) => {
                    Some(Order { by: by.clone(), reason: link.detail.clone(), at: link.at, until: None })
                }
                Source::Broker | Source::Check | Source::Adapter | Source::Holder | Source::Notice(_) => None,
            });
        }
        // A hold of a holder ends by itself; one without an end is an operator's, or the broker's own.
        ResourceState::Quarantined { cordon, since, until: None } if &*cordon.by != SELF => {
            found.held = Some(Order { by: cordon.by.clone(), reason: cordon.reason.clone(), at: *since, until: None });
        }
        ResourceState::Quarantined { .. }
        | ResourceState::Provisioning { .. }
        | ResourceState::Ready
        | ResourceState::Suspect { .. }
        | ResourceState::Repairing { .. }
        | ResourceState::Destroying { .. }
        | ResourceState::Orphaned { .. }
        | ResourceState::Gone { .. } => {}
    }
    found
}

impl Core {
    /// The machine that a resource stands for, and the resource that stands for it now, as text: what an operator may name in
    /// place of a resource that is gone.
    pub(crate) fn successor(&self, id: ResourceId) -> Option<(MachineKey, Option<ResourceId>)> {
        let key = self.machine_of(id)?;
        let now = self.resource_of(&key).filter(|other| {
            *other != id && self.resource(*other).is_some_and(|row| row.state.stage() != Stage::Leaving)
        });
        Some((key, now))
    }
}
