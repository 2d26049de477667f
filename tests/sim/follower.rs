//! A server that follows. It applies the stored changes, some commits at a time, and must equal a load of the store.

use wharfinger::store::{MemoryStore, StoreError};
use wharfinger_core::{Configuration, Core, Limits, Revision, Scope, Snapshot, Timestamp};

/// Its state as of one revision, for comparison.
fn shown(core: &Core, now: Timestamp) -> impl PartialEq + std::fmt::Debug + use<> {
    let leases: Vec<_> = core.leases(None).cloned().collect();
    let explained: Vec<_> = leases.iter().map(|lease| core.explain(lease.id, now, &Scope::All)).collect();
    let grouped: Vec<_> = leases.iter().map(|lease| core.with_group(lease.id)).collect();
    let resources: Vec<_> = core.resources(None).cloned().collect();
    let on: Vec<_> = resources.iter().map(|row| core.leases_on(row.id)).collect();
    let changed: Vec<_> = core.leases_changed_after(Revision(0)).map(|lease| lease.id).collect();
    let mut pools = core.pools();
    // The order of pools that are no longer configured does not count.
    pools.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    ((core.revision(), core.floor(), pools), (leases, explained, grouped), (resources, on, changed))
}

/// A follower of a store in memory.
#[derive(Default)]
pub(crate) struct Follower {
    core: Option<(Core, Configuration)>,
    turns: u64,
}

impl Follower {
    /// Reads the store every few turns. Panics if its state differs from the stored one.
    pub(crate) fn look(&mut self, store: &MemoryStore, configuration: &Configuration, limits: Limits) {
        self.turns += 1;
        // It reads sometimes after one commit, sometimes after many.
        if !self.turns.is_multiple_of(1 + self.turns / 64 % 13) {
            return;
        }
        let snapshot = store.load_now();
        let now = snapshot.now;
        let fresh = |snapshot: Snapshot| Core::follow(snapshot, configuration.clone(), limits.clone(), now);
        let Some((core, configured)) = &mut self.core else {
            self.core = Some((fresh(snapshot), configuration.clone()));
            return;
        };
        if configured != configuration {
            self.core = Some((fresh(snapshot), configuration.clone()));
            return;
        }
        let changed = wharfinger::engine::changes_after(store, core.revision());
        let batch = match crate::broker::ready(changed) {
            Ok(batch) => batch,
            Err(StoreError::Compacted { .. }) => {
                self.core = Some((fresh(snapshot), configuration.clone()));
                return;
            }
            Err(error) => panic!("the store in memory does not fail: {error}"),
        };
        core.take_in(&batch);
        core.check_invariants().unwrap_or_else(|error| panic!("one that follows at {}: {error}", core.revision()));
        let (own, stored) = (shown(core, now), shown(&fresh(snapshot.clone()), now));
        assert!(own == stored, "one that follows says\n{own:#?}\nwhere it should say\n{stored:#?}");
        let mut rows = core.snapshot();
        rows.pools = snapshot.pools.clone();
        assert!(rows == snapshot, "its rows are those that are stored");
    }
}
