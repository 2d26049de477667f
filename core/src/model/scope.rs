//! The leases in a scope, and the leases that a caller owns.

use crate::{Caller, Lease, LeaseSpec, Pools, Scope, Within};

impl Caller {
    /// Whether a lease belongs to it.
    pub fn owns(&self, spec: &LeaseSpec) -> bool {
        spec.tenant == self.tenant && spec.principal == self.principal
    }
}

impl Within {
    fn sees(&self, lease: &Lease) -> bool {
        let within = |pools: &Pools| match lease.pool.as_ref().or(lease.spec.selector.pool.as_ref()) {
            Some(pool) => pools.has(pool),
            None => pools.is_all(),
        };
        let (spec, waits) = (&lease.spec, lease.pool.is_none() && lease.spec.selector.pool.is_none());
        let of_tenant = spec.child.is_none() && spec.tenant == self.tenant;
        let own = of_tenant && spec.principal == self.principal;
        within(&self.of_all)
            || of_tenant && within(&self.of_tenant)
            || own && (within(&self.own) || waits && !self.own.is_none())
    }
}

impl Scope {
    /// Whether a lease is in it.
    pub fn sees(&self, lease: &Lease) -> bool {
        let spec = &lease.spec;
        match self {
            Scope::All => true,
            Scope::Within(within) => within.sees(lease),
            // A lease that a working copy holds is the broker's.
            Scope::Own { .. } | Scope::Tenant(_) if spec.child.is_some() => false,
            Scope::Own { tenant, principal } => spec.tenant == *tenant && spec.principal == *principal,
            Scope::Tenant(tenant) => spec.tenant == *tenant,
        }
    }
}
