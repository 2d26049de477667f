//! Works by the machines on which they failed, and by the resources that were lost under them.

use crate::{Core, ResourceId, WorkFailure};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Works that are remembered for what was lost under them; beyond it, all are forgotten.
const WORKS_MAX: usize = 10_000;

impl Core {
    /// The machines whose checks pass and on which a work failed.
    pub(crate) fn machines_of_work(&self, work: &str) -> BTreeSet<ResourceId> {
        self.by_work.get(work).cloned().unwrap_or_default()
    }

    /// A work failed on a machine whose check passes.
    pub(crate) fn add_machine_of_work(&mut self, work: &Arc<str>, machine: ResourceId) {
        self.by_work.entry(work.clone()).or_default().insert(machine);
    }

    /// Forgets on which machines a work failed.
    pub(crate) fn forget_work(&mut self, work: &str) {
        self.by_work.remove(work);
    }

    fn forget_machine_of_work(&mut self, work: &str, machine: ResourceId) {
        if let Some(met) = self.by_work.get_mut(work) {
            met.remove(&machine);
            if met.is_empty() {
                self.by_work.remove(work);
            }
        }
    }

    /// A resource was lost or mangled under a work: how many that makes since the work last went well.
    pub(crate) fn lost_under(&mut self, work: &Arc<str>, resource: ResourceId) -> usize {
        if self.lost_under.len() >= WORKS_MAX {
            self.lost_under.clear();
        }
        let met = self.lost_under.entry(work.clone()).or_default();
        met.insert(resource);
        met.len()
    }

    /// A work succeeded: earlier losses under it no longer count.
    pub(crate) fn work_went_well(&mut self, work: impl FnOnce() -> Arc<str>) {
        if !self.lost_under.is_empty() {
            self.lost_under.remove(&work());
        }
    }

    /// Forgets failures of a resource, and that these works failed there.
    pub(crate) fn drop_failures(&mut self, id: ResourceId, which: impl Fn(&WorkFailure) -> bool) {
        let Some(row) = self.resource(id) else { return };
        let (gone, still): (Vec<_>, Vec<_>) = row.failures.iter().cloned().partition(|failure| which(failure));
        if gone.is_empty() {
            return;
        }
        for failure in gone {
            if !still.iter().any(|other| other.work == failure.work && other.cleared) {
                self.forget_machine_of_work(&failure.work, id);
            }
        }
        self.edit_resource(id, |row| row.failures = still);
    }

    /// Takes over the failures of a row, as it is stored.
    pub(crate) fn remember_works(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).filter(|row| row.parent.is_none()) else { return };
        let works: Vec<Arc<str>> = row.failures.iter().filter(|f| f.cleared).map(|f| f.work.clone()).collect();
        for work in works {
            self.add_machine_of_work(&work, id);
        }
    }

    /// Forgets the failures of a row, which another row replaces.
    pub(crate) fn forget_works_of(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).cloned() else { return };
        for failure in &row.failures {
            self.forget_machine_of_work(&failure.work, id);
        }
    }
}
