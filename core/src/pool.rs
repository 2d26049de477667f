//! A pool's configuration, as far as decisions depend on it. The rest (addresses, keys, URLs) is the adapter's.

use crate::{Labels, Millis};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A pool as configured. Names are unique.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Adapter's name, for people.
    pub adapter: Arc<str>,
    /// Labels of everything in it.
    pub labels: Labels,
    /// Not leasable, but nothing fails for it: waiters wait. Its resources drain.
    pub enabled: bool,
    /// Pools that its resources lie on (children); empty for hosts.
    pub on: Vec<Arc<str>>,
    /// The machines it may use, each at most once; `None`: the adapter makes resources at will.
    pub inventory: Option<Vec<Item>>,
    /// Keep so many ready and free of leases, also with nobody waiting.
    pub min_ready: u32,
    /// Never more than this.
    pub max: u32,
    /// At most so many on one parent.
    pub max_per_parent: Option<u32>,
    /// Leases at once on one resource.
    pub slots: u32,
    /// Given up after so long without a lease (above `min_ready`).
    pub idle: Option<Millis>,
    /// Given up after so long.
    pub max_age: Option<Millis>,
    /// Given up after so many leases.
    pub max_uses: Option<u32>,
    /// What the adapter can do.
    pub traits: Traits,
    /// How doubt is handled.
    pub doubt: DoubtPolicy,
    /// TTL of a lease that names none.
    pub default_ttl: Millis,
    /// The longest TTL that a request may ask for.
    pub max_ttl: Millis,
    /// How many times a lease may be sent back to the queue before it fails.
    pub attempts: u32,
    /// How long the adapter may take, by kind of work.
    pub timeouts: Timeouts,
}

/// One machine of an inventory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Item {
    /// Unique in the pool.
    pub name: Arc<str>,
    /// Its own labels.
    pub labels: Labels,
    /// Its own slots, if they differ from the pool's.
    pub slots: Option<u32>,
    /// Otherwise it drains and gets no new lease.
    pub enabled: bool,
}

/// What the adapter of a pool can do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Traits {
    /// A lease must be prepared before it is active.
    pub prepares: bool,
    /// A slot must be cleaned before it is given again.
    pub cleans: bool,
    /// A mangled resource may be repaired.
    pub repairs: bool,
    /// Worth probing while nothing is wrong.
    pub probes: bool,
}

/// When a resource is in doubt, and what ends it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DoubtPolicy {
    /// Check after a release with outcome FAILED.
    pub after_failed: bool,
    /// Check after a holder expired or its lease was broken.
    pub after_lost: bool,
    /// From one probe to the next while all is well.
    pub probe_interval: Millis,
    /// From one check to the next while it is unreachable.
    pub retry_interval: Millis,
    /// So many misses in a row…
    pub misses: u32,
    /// …over at least so long make an unreachable resource gone.
    pub over: Millis,
    /// Repairs tried before it is recycled.
    pub repairs: u32,
}

impl Default for DoubtPolicy {
    fn default() -> Self {
        Self {
            after_failed: true,
            after_lost: true,
            probe_interval: Millis::secs(10),
            retry_interval: Millis(1000),
            misses: 3,
            over: Millis(3000),
            repairs: 2,
        }
    }
}

/// How long the adapter may take before the broker gives the call up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timeouts {
    /// Making one.
    pub provision: Millis,
    /// Preparing a slot.
    pub prepare: Millis,
    /// Cleaning a slot.
    pub clean: Millis,
    /// A check or probe.
    pub check: Millis,
    /// A repair.
    pub repair: Millis,
    /// Destroying one.
    pub destroy: Millis,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            provision: Millis::secs(900),
            prepare: Millis::secs(600),
            clean: Millis::secs(120),
            check: Millis::secs(10),
            repair: Millis::secs(900),
            destroy: Millis::secs(120),
        }
    }
}

/// What an operator said of a pool at run time; survives restarts, unlike [`PoolConfig`], which comes from the file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolRow {
    /// Its name.
    pub name: Arc<str>,
    /// When it last changed.
    pub revision: crate::Revision,
    /// No new leases, by an operator's word.
    pub cordoned: Option<Cordon>,
}

/// Who said that there shall be no new leases, and why.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cordon {
    /// Principal.
    pub by: Arc<str>,
    /// In their words.
    pub reason: Arc<str>,
}
