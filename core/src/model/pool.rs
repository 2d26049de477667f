//! A pool's configuration, as far as decisions depend on it. The rest (addresses, keys, URLs) is the adapter's.

use crate::{Labels, Losses, Millis, Record};
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
    /// Why it is not enabled, in the words of the configuration.
    pub disabled_reason: Option<Arc<str>>,
    /// Pools that its resources lie on (children); empty for hosts.
    pub on: Vec<Arc<str>>,
    /// The machines it may use, each at most once; `None`: the adapter makes resources at will.
    pub inventory: Option<Vec<Item>>,
    /// Number of resources that are ready and free of leases, even if no lease waits.
    pub min_ready: u32,
    /// Maximum number of resources.
    pub max: u32,
    /// Maximum number on one host.
    pub max_per_parent: Option<u32>,
    /// Leases at once on one resource.
    pub slots: u32,
    /// Maximum time without a lease, for resources above `min_ready`.
    pub idle: Option<Millis>,
    /// Maximum age of a resource.
    pub max_age: Option<Millis>,
    /// Maximum number of leases of a resource.
    pub max_uses: Option<u32>,
    /// Abilities of the adapter.
    pub traits: Traits,
    /// How doubt is handled.
    pub doubt: DoubtPolicy,
    /// When many are in doubt at once.
    pub brake: Brake,
    /// The label whose values split the pool into failure domains (`zone`); `None`: the pool is one.
    pub domain: Option<Arc<str>>,
    /// Live leases on a resource that the configuration takes away run to their end (`None`), or are broken after this
    /// time (zero: now).
    pub drain: Option<Millis>,
    /// Maximum time for which a holder may have its resource held after a failure; zero: never.
    pub max_hold: Millis,
    /// TTL of a lease that names none.
    pub default_ttl: Millis,
    /// Maximum TTL of a request.
    pub max_ttl: Millis,
    /// Number of attempts of a lease; the last one that fails ends it.
    pub attempts: u32,
    /// How long the adapter may take, by kind of work.
    pub timeouts: Timeouts,
    /// Whether tenants share a host at the same time.
    pub isolation: Isolation,
    /// Whether a resource that a tenant has used serves another one after a clean-up. Otherwise it is replaced.
    pub reuse_across_tenants: bool,
}

/// Whether tenants share a host at the same time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Isolation {
    /// They do.
    None,
    /// All slots of a host are one tenant's at a time.
    Host,
}

impl PoolConfig {
    /// An enabled pool of one resource that the adapter makes at will, with the usual limits.
    pub fn named(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            adapter: Arc::from("unknown"),
            labels: Labels::new(),
            enabled: true,
            disabled_reason: None,
            on: Vec::new(),
            inventory: None,
            min_ready: 0,
            max: 1,
            max_per_parent: None,
            slots: 1,
            idle: None,
            max_age: None,
            max_uses: None,
            traits: Traits { prepares: false, cleans: false, repairs: false, probes: false },
            doubt: DoubtPolicy::default(),
            brake: Brake::default(),
            domain: None,
            drain: None,
            max_hold: Millis::ZERO,
            default_ttl: Millis::secs(60),
            max_ttl: Millis::secs(86_400),
            attempts: 5,
            timeouts: Timeouts::default(),
            isolation: Isolation::None,
            reuse_across_tenants: true,
        }
    }
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
    /// Why it is not enabled, in the words of the configuration.
    pub disabled_reason: Option<Arc<str>>,
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
    /// Consecutive missed probes before an unreachable resource is GONE.
    pub misses: u32,
    /// Minimum time that they must span.
    pub over: Millis,
    /// Number of repairs before it is replaced.
    pub repairs: u32,
    /// Mean number of leases of a healthy resource, at least, to one false alarm: it is set apart as if its check were
    /// blind. Zero: never.
    pub false_alarm: u32,
    /// Number of resources whose checks pass and on which the same work fails before the work is blamed. Zero: never.
    pub work_after: u32,
    /// Silence and bad checks end nothing. The broker counts and reports the ends that they would have caused.
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
            false_alarm: 20_000,
            work_after: 3,
            dry_run: false,
        }
    }
}

/// The brake: when many resources of one failure domain are in trouble at once, a common cause is likelier than as many
/// single ones. Held then is what rests on silence or on checks; proof, notices and operators are not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Brake {
    /// Maximum size of a domain that the brake never holds.
    pub floor: u32,
    /// Share of a domain in trouble above which the brake is on, in per cent; 100: never.
    pub share: u32,
    /// How long the brake holds back losses. After that, at most `floor` losses per `window`.
    pub hold: Millis,
    /// How long a loss counts towards `share`.
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

/// The stored part of a pool. It survives restarts, unlike [`PoolConfig`], which comes from the file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolRow {
    /// Its name.
    pub name: Arc<str>,
    /// When it last changed.
    pub revision: crate::Revision,
    /// Cordoned by an operator: no new leases.
    pub cordoned: Option<Cordon>,
    /// How its uses went.
    pub record: Record,
    /// The latest losses of hosts that it made at will, one soon after the other.
    pub losses: Option<Losses>,
}

/// An operator's order that there be no new leases.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cordon {
    /// The principal of the operator.
    pub by: Arc<str>,
    /// The reason, as free text.
    pub reason: Arc<str>,
}
