//! Works by the machines on which they failed and passed, and by the resources that were lost under them.

use crate::{Core, Resource, ResourceId, Timestamp, Uses, WorkFailure};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Works that are remembered for what was lost under them; beyond it, all are forgotten.
const WORKS_MAX: usize = 10_000;

/// Where a work failed though the check passed, and where it passed since.
#[derive(Clone, Debug, Default)]
pub(super) struct Met {
    failed: BTreeSet<ResourceId>,
    /// The two machines on which it passed last, and when. Not stored: after a restart less is known.
    passed: [Option<(ResourceId, Timestamp)>; 2],
}

impl Core {
    /// The machines whose checks pass and on which a work failed.
    pub(crate) fn machines_of_work(&self, work: &str) -> BTreeSet<ResourceId> {
        self.by_work.get(work).map(|met| met.failed.clone()).unwrap_or_default()
    }

    /// When a work, of which failures are remembered, passed on another machine than this one the last time.
    pub(crate) fn passed_elsewhere(&self, work: &str, machine: ResourceId) -> Option<Timestamp> {
        let passed = self.by_work.get(work)?.passed.iter().flatten();
        passed.filter(|(other, _)| *other != machine).map(|(_, at)| *at).max()
    }

    /// A work failed on a machine whose check passes.
    pub(crate) fn add_machine_of_work(&mut self, work: &Arc<str>, machine: ResourceId) {
        self.by_work.entry(work.clone()).or_default().failed.insert(machine);
    }

    /// A work passed on a machine. Returns the work if failures of it are remembered.
    pub(crate) fn passed_on(&mut self, machine: ResourceId, work: impl FnOnce() -> Arc<str>) -> Option<Arc<str>> {
        if self.by_work.is_empty() {
            return None;
        }
        let (work, now) = (work(), self.now);
        let met = self.by_work.get_mut(&work)?;
        if met.passed[0].is_none_or(|(last, _)| last != machine) {
            met.passed[1] = met.passed[0];
        }
        met.passed[0] = Some((machine, now));
        Some(work)
    }

    /// Forgets on which machines a work failed.
    pub(crate) fn forget_work(&mut self, work: &str) {
        self.by_work.remove(work);
    }

    fn forget_machine_of_work(&mut self, work: &str, machine: ResourceId) {
        if let Some(met) = self.by_work.get_mut(work) {
            met.failed.remove(&machine);
            if met.failed.is_empty() {
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

    /// A use of a resource went well. While something speaks against it, that is stored at once.
    pub(crate) fn used_well(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id) else { return };
        let (pool, open) = (row.pool.clone(), !row.evidence.is_none());
        self.count_uses(&pool, false, |uses| uses.good += 1);
        let Some(record) = self.record_of(&pool) else { return };
        if open {
            self.edit_resource(id, |row| row.evidence.good(&record));
        } else if let Some(entry) = self.resources.get_mut(&id) {
            Arc::make_mut(&mut entry.row).evidence.good(&record);
        }
    }

    /// Counts or discounts a failure in the base rate of a resource's pool, and in what the resource's uses say of it.
    pub(crate) fn weigh(
        &mut self,
        id: ResourceId,
        in_pool: impl Fn(&mut Uses),
        change: impl FnOnce(&mut Resource, &crate::Record),
    ) {
        let Some(pool) = self.resource(id).map(|row| row.pool.clone()) else { return };
        self.count_uses(&pool, true, in_pool);
        let Some(record) = self.record_of(&pool) else { return };
        self.edit_resource(id, |row| change(row, &record));
    }

    /// How the uses of a pool went.
    pub(crate) fn record_of(&self, pool: &str) -> Option<crate::Record> {
        self.pools.get(pool).map(|pool| pool.record)
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
