//! A pool's configuration, as far as decisions depend on it. The rest (addresses, keys, URLs) is the adapter's.

use crate::{Labels, Millis};
use alloc::sync::Arc;
use alloc::vec::Vec;
pub use wharfinger_types::Traits;

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
    /// When many are in doubt at once.
    pub brake: Brake,
    /// The label whose values split the pool into failure domains (`zone`); `None`: the pool is one.
    pub domain: Option<Arc<str>>,
    /// What becomes of live leases when the configuration takes their resource away: they run to their end (`None`), or
    /// are broken after this time (zero: now).
    pub drain: Option<Millis>,
    /// The longest time for which a holder may have its resource kept after a failure; zero: not at all.
    pub max_hold: Millis,
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
    /// When so many different works in a row failed on it while its checks pass, the check is blind: it is kept for
    /// triage. Zero: never.
    pub blind_after: u32,
    /// When the same work failed on so many resources whose checks pass, the work is to blame. Zero: never.
    pub work_after: u32,
    /// Silence and bad checks end nothing: what they would have ended is counted and told.
    pub dry_run: bool,
}

impl Default for DoubtPolicy {
    fn default() -> Self {
        Self {
            after_failed: true,
            after_lost: true,
            // A host that falls silent is given up in 4.4 s (to the probe) and three answers of 3 s: under 15 s.
            probe_interval: Millis::secs(4),
            retry_interval: Millis(500),
            misses: 3,
            over: Millis(3000),
            repairs: 2,
            blind_after: 3,
            work_after: 3,
            dry_run: false,
        }
    }
}

/// When so many resources of one failure domain are in trouble at once that a common cause is likelier than as many
/// single ones. Held then is what rests on silence or on checks; proof, notices and operators are not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Brake {
    /// A domain of no more than so many resources is never held.
    pub floor: u32,
    /// More than this part of a domain in trouble, in per cent, sets the brake; 100: never.
    pub share: u32,
    /// Nothing is ended for so long; then `floor` in each `window`.
    pub hold: Millis,
    /// What was ended counts as trouble for so long.
    pub window: Millis,
}

impl Default for Brake {
    fn default() -> Self {
        Self { floor: 3, share: 50, hold: Millis::secs(300), window: Millis::secs(60) }
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
            check: Millis::secs(30),
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
