//! Tenants as configured: their shares and their limits; and the configuration as a whole.

use crate::{Millis, PoolConfig};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The share and the limits of one tenant. A limit that is `None` is none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tenant {
    /// Its part of what several tenants compete for, beside theirs; at least 1.
    pub weight: u32,
    /// Maximum number of slots that its leases hold at once. Requests beyond it wait.
    pub max_slots: Option<u32>,
    /// Maximum number of its leases in the queue. Requests beyond it are refused.
    pub max_queue: Option<u32>,
    /// Maximum number of watches and waiting calls that it has open at one server.
    pub max_watches: Option<u32>,
    /// Maximum number of resources that are kept for triage at its request.
    pub max_held: Option<u32>,
    /// Maximum number of resources that its reports may have in doubt at once.
    pub max_in_doubt: Option<u32>,
    /// How often it may request leases.
    pub rate: Option<Rate>,
    /// Maximum life of a lease, from when it is active.
    pub total: Option<Millis>,
}

impl Tenant {
    /// A tenant without limits.
    pub const UNLIMITED: Self = Self {
        weight: 1,
        max_slots: None,
        max_queue: None,
        max_watches: None,
        max_held: None,
        max_in_doubt: None,
        rate: None,
        total: None,
    };
}

impl Default for Tenant {
    fn default() -> Self {
        Self::UNLIMITED
    }
}

/// A rate of requests: a bucket of tokens that fills evenly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rate {
    /// Requests in a thousand seconds, on the average.
    pub per_thousand_seconds: u32,
    /// Maximum number of requests at once.
    pub burst: u32,
}

/// All tenants of the configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tenants {
    /// Those with an entry of their own.
    pub named: BTreeMap<Arc<str>, Tenant>,
    /// All others (`*`).
    pub others: Option<Tenant>,
}

/// Stands for every tenant where none is configured.
static UNLIMITED: Tenant = Tenant::UNLIMITED;

impl Tenants {
    /// Whether no tenant is configured: then none has a limit, and all have the same weight.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.others.is_none()
    }

    /// Whether a tenant has a greatest number of slots; one that is not configured may have none.
    pub(crate) fn is_bounded(&self, name: &str) -> bool {
        self.of(name).is_none_or(|tenant| tenant.max_slots.is_some())
    }

    /// The share and the limits of a tenant. `None`: the configuration has neither it nor `*`.
    pub fn of(&self, name: &str) -> Option<&Tenant> {
        match self.named.get(name).or(self.others.as_ref()) {
            None if self.is_empty() => Some(&UNLIMITED),
            known => known,
        }
    }
}

/// The configuration, as far as decisions depend on it. Already checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    /// The pools, in the order of the file.
    pub pools: Vec<PoolConfig>,
    /// The tenants.
    pub tenants: Arc<Tenants>,
}

impl From<Vec<PoolConfig>> for Configuration {
    /// Pools for tenants without limits.
    fn from(pools: Vec<PoolConfig>) -> Self {
        Self { pools, tenants: Arc::default() }
    }
}
