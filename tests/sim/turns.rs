//! Which requests certainly stand before which, where holders are of several tenants: priority, then shares, then age within a
//! tenant. All tenants have one weight, and no patience.
//!
//! The order changes with each grant of a turn, and the oracle sees the end of it. So it compares the largest share that one
//! may have had with the smallest of the other; where these overlap, it says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{Lease, LeaseId, Resource, ResourceId};

/// What tenants hold at the end of a turn.
pub(crate) struct Shares<'a> {
    leases: &'a BTreeMap<LeaseId, Arc<Lease>>,
    resources: &'a BTreeMap<ResourceId, Arc<Resource>>,
    granted: &'a BTreeSet<LeaseId>,
}

impl<'a> Shares<'a> {
    pub(crate) fn new(
        leases: &'a BTreeMap<LeaseId, Arc<Lease>>,
        resources: &'a BTreeMap<ResourceId, Arc<Resource>>,
        granted: &'a BTreeSet<LeaseId>,
    ) -> Self {
        Self { leases, resources, granted }
    }

    /// The slots that a tenant holds in the pools that a request names; in all pools, if a part of it names none.
    /// `before`: without those of this turn.
    fn held(&self, tenant: &str, request: &[&Lease], before: bool) -> usize {
        let named: Option<BTreeSet<&Arc<str>>> =
            request.iter().map(|lease| lease.spec.selector.pool.as_ref()).collect();
        let of = |lease: &Lease| -> usize {
            let Some(row) = lease.assignment().and_then(|hold| self.resources.get(&hold.resource)) else { return 0 };
            let Some(named) = &named else { return 1 };
            let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resources.get(&host));
            [Some(row), host].into_iter().flatten().filter(|row| named.contains(&row.pool)).count()
        };
        let leases = self.leases.values().filter(|lease| lease.spec.child.is_none() && *lease.spec.tenant == *tenant);
        leases.filter(|lease| !(before && self.granted.contains(&lease.id))).map(|lease| of(lease)).sum()
    }

    /// Whether a request that waits certainly stood before one that was granted in this turn. `kept`: at most this many slots
    /// are kept for requests of its tenant before it.
    pub(crate) fn stood_before(&self, waits: &[&Lease], kept: usize, granted: &[&Lease]) -> bool {
        let (one, other) = (waits[0], granted[0]);
        if one.spec.priority != other.spec.priority {
            return one.spec.priority > other.spec.priority;
        }
        let seq = |leases: &[&Lease]| leases.iter().map(|lease| lease.seq).min();
        let is_broker = |lease: &Lease| lease.spec.child.is_some();
        match (is_broker(one), is_broker(other)) {
            (true, true) => seq(waits) < seq(granted),
            (true, false) | (false, true) => false,
            (false, false) if one.spec.tenant == other.spec.tenant => seq(waits) < seq(granted),
            (false, false) => {
                let most = self.held(&one.spec.tenant, waits, false) + kept + waits.len();
                most < self.held(&other.spec.tenant, granted, true) + granted.len()
            }
        }
    }
}
