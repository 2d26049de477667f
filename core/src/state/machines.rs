//! Transitions of machines: the orders of operators.

use crate::state::tables::Pool;
use crate::state::timers::Timer;
use crate::{Core, Machine, MachineKey, Order, Resource, ResourceId, Stage, Timestamp};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

impl Core {
    /// The stored part of a machine; `None`: there never was an order on it, nor a loss.
    pub fn machine(&self, key: &MachineKey) -> Option<&Arc<Machine>> {
        self.machines.get(key)
    }

    /// All machines on which operators ever gave orders, and those that were ever lost.
    pub fn machines(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.machines.values()
    }

    /// Whether an order keeps new leases away from a machine.
    pub(crate) fn is_out(&self, key: &MachineKey) -> bool {
        self.machines.get(key).is_some_and(|machine| machine.out())
    }

    /// The machine that a resource stands for.
    pub fn machine_of(&self, id: ResourceId) -> Option<MachineKey> {
        let row = self.resource(id)?;
        row.item.as_ref().map(|item| MachineKey { pool: row.pool.clone(), item: item.clone() })
    }

    /// The resource that stands for a machine now: one that is not removed, or else one that is being removed.
    pub fn resource_of(&self, key: &MachineKey) -> Option<ResourceId> {
        let pool = self.pool_entry(&key.pool)?;
        let rows = pool.members.iter().filter_map(|id| self.resource(*id));
        let stands = rows.filter(|row| row.item.as_ref() == Some(&key.item));
        stands.max_by_key(|row| (row.state.stage() != Stage::Leaving, row.created_at, row.id)).map(|row| row.id)
    }

    /// The resources that stand for the machines of a pool, as [`Core::resource_of`] names them.
    pub(crate) fn resources_by_item(&self, pool: &Pool) -> BTreeMap<&Arc<str>, &Arc<Resource>> {
        let mut all: BTreeMap<&Arc<str>, &Arc<Resource>> = BTreeMap::new();
        let place = |row: &Resource| (row.state.stage() != Stage::Leaving, row.created_at, row.id);
        for row in pool.members.iter().filter_map(|id| self.resource(*id)) {
            let Some(item) = &row.item else { continue };
            let stands = all.entry(item).or_insert(row);
            if place(row) > place(stands) {
                *stands = row;
            }
        }
        all
    }

    /// Changes the orders on a machine.
    pub(crate) fn edit_machine(&mut self, key: &MachineKey, change: impl FnOnce(&mut Machine)) {
        let revision = self.next_revision();
        let row = self.machines.entry(key.clone()).or_insert_with(|| Arc::new(Machine::new(key.clone())));
        let row = Arc::make_mut(row);
        change(row);
        row.revision = revision;
        self.outbox.machines.insert(key.clone());
        if let Some(pool) = self.pools.get_mut(&key.pool) {
            pool.no_room = false;
        }
        self.mark_dirty(key.pool.clone());
        self.arm_machine(key);
    }

    /// Takes over what is stored of a machine.
    pub(crate) fn load_machine(&mut self, row: Machine) {
        if let Some(pool) = self.pools.get_mut(&row.key.pool) {
            pool.no_room = false;
        }
        self.machines.insert(row.key.clone(), Arc::new(row));
    }

    /// Sets timers to the end of a machine's hold and to that of its rest. One that was set for an earlier hold or rest finds
    /// nothing due.
    pub(crate) fn arm_machine(&mut self, key: &MachineKey) {
        let rest = self.rest_of_machine(key).map(|losses| losses.again_at);
        for at in [self.hold_ends(key), rest].into_iter().flatten() {
            self.timers.insert((at, Timer::Machine(key.clone())));
        }
    }

    /// A machine that rested may be made again.
    pub(crate) fn wake_machine(&mut self, key: &MachineKey) {
        let rested = self.machines.get(key).is_some_and(|machine| machine.losses.is_some());
        if !rested || self.rest_of_machine(key).is_some() {
            return;
        }
        if let Some(pool) = self.pools.get_mut(&key.pool) {
            pool.no_room = false;
            self.mark_dirty(key.pool.clone());
        }
    }

    /// When the hold of a machine ends by itself.
    pub(crate) fn hold_ends(&self, key: &MachineKey) -> Option<Timestamp> {
        self.machines.get(key)?.held.as_ref()?.until
    }

    /// The order on a machine that holds it.
    pub(crate) fn held_by_order(&self, key: &MachineKey) -> Option<&Order> {
        self.machines.get(key)?.held.as_ref()
    }
}
