//! Views for readers; none of them is stored.

use crate::model::stable::stable_texts;
use crate::{Cordon, Losses, Machine, Millis, Note, PoolConfig, ResourceId, Tenant};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A pool as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolView {
    /// Its configuration; of a removed pool, the last one known.
    pub config: Arc<PoolConfig>,
    /// Still in the configuration.
    pub configured: bool,
    /// Cordoned by an operator.
    pub cordoned: Option<Cordon>,
    /// Resources by state; see [`crate::ResourceState::as_str`].
    pub by_state: BTreeMap<&'static str, u32>,
    /// Slots that could be leased now.
    pub free_slots: u32,
    /// Live leases on it, with ended ones whose slots are not clean yet.
    pub leases: u32,
    /// The ended ones among them.
    pub cleaning: u32,
    /// Queued leases that it could serve.
    pub waiting: u32,
    /// Its inventory.
    pub items: Vec<ItemView>,
    /// The latest losses of hosts that it made at will, if there were several and it has not been well since.
    pub losses: Option<Losses>,
    /// The reason for which it cannot grow, if it should.
    pub trouble: Option<String>,
    /// Failure domains of which some are in trouble.
    pub brakes: Vec<BrakeView>,
    /// Counters since the broker started.
    pub counters: PoolCounters,
}

/// A tenant as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantView {
    /// Its name.
    pub name: Arc<str>,
    /// It has an entry of its own in the configuration.
    pub named: bool,
    /// Its share and its limits.
    pub limits: Tenant,
    /// Slots that its leases hold, from the grant to the end of the clean-up.
    pub slots: u32,
    /// The same by pool. A slot of a working copy counts in the pool of its host too.
    pub by_pool: BTreeMap<Arc<str>, u32>,
    /// Its leases in the queue.
    pub waiting: u32,
    /// How long the longest of them waits; `None`: none waits.
    pub oldest_wait: Option<Millis>,
}

/// A failure domain, and whether what rests on silence and checks is held there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrakeView {
    /// The value of the pool's domain label; empty: the whole pool.
    pub domain: Arc<str>,
    /// Machines and other hosts in it that could be in trouble, with those that were lost within the window and are not back.
    pub members: u32,
    /// Those in trouble now, with those that were lost within the window and are not back.
    pub troubled: u32,
    /// Why the brake is on, and since when; `None`: it is off.
    pub held: Option<(crate::Timestamp, Arc<str>)>,
}

/// Counters of a pool since the broker started; they only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolCounters {
    /// Times that a resource fell into doubt.
    pub doubts: u64,
    /// Doubts that a check cleared.
    pub cleared: u64,
    /// Repairs begun.
    pub repairs: u64,
    /// Resources lost: proved gone, or silent for too long.
    pub lost: u64,
    /// Leases broken.
    pub broken: u64,
    /// Times that evidence was held back by the brake.
    pub held: u64,
    /// Resources that a dry run would have ended.
    pub would_end: u64,
    /// Leases that a dry run would have broken.
    pub would_break: u64,
}

/// One machine of an inventory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ItemView {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it may be used.
    pub enabled: bool,
    /// The resource that is made of it now.
    pub resource: Option<ResourceId>,
    /// Why not, in the words of the configuration.
    pub disabled_reason: Option<Arc<str>>,
    /// The orders of operators, if there are any.
    pub machine: Option<Arc<Machine>>,
    /// Its latest losses, if there were several and it has not been well since.
    pub losses: Option<Losses>,
    /// The note of an operator.
    pub note: Option<Note>,
}

/// Why a lease waits, or what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// In one sentence.
    pub summary: String,
    /// Place among the requests that want the same, from 1; 0 if it is not queued.
    pub position: u32,
    /// Whether the present configuration can ever meet it.
    pub satisfiable: bool,
    /// Pool by pool.
    pub blockers: Vec<Blocker>,
}

stable_texts! {
    /// Reasons for which a pool does not serve a lease. The set is open for clients: a later version may add codes.
    pub enum BlockerCode {
        /// The lease waits for a time: a remote or a provider was down.
        Delayed = "DELAYED",
        /// The group of the lease has fewer slots than it needs.
        Incomplete = "INCOMPLETE",
        /// The pool left the configuration.
        Removed = "REMOVED",
        /// The pool is disabled in the configuration.
        Disabled = "DISABLED",
        /// An operator cordoned the pool.
        Cordoned = "CORDONED",
        /// The free slots are on resources that failed this lease.
        Avoided = "AVOIDED",
        /// The free slots are on resources that may be taken away.
        AtRisk = "AT_RISK",
        /// The free slots are on resources that end before the work would.
        EndsTooSoon = "ENDS_TOO_SOON",
        /// The next resource waits for a slot on a host.
        NoHost = "NO_HOST",
        /// Resources are being made.
        Provisioning = "PROVISIONING",
        /// The brake of a failure domain is on.
        Braked = "BRAKED",
        /// Resources are in doubt or under repair.
        InDoubt = "IN_DOUBT",
        /// Resources are cordoned, draining, held or quarantined.
        Held = "HELD",
        /// The pool waits after a failed attempt to make a resource.
        BackingOff = "BACKING_OFF",
        /// All slots are in use.
        Busy = "BUSY",
        /// The pool may have no resource.
        AtMax = "AT_MAX",
        /// The tenant of the lease holds as many slots as it may.
        TenantQuota = "TENANT_QUOTA",
        /// The request wants more slots than its tenant may ever hold.
        NeverWithinQuota = "NEVER_WITHIN_QUOTA",
        /// The free slots are on hosts or resources that other tenants use or have used.
        Isolated = "ISOLATED",
    }
}

/// The reason for which one pool does not serve a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Blocker {
    /// The pool.
    pub pool: Arc<str>,
    /// The reason.
    pub code: BlockerCode,
    /// The facts, as text.
    pub detail: String,
    /// The remedy, as text.
    pub remedy: String,
}
