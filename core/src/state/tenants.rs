//! Slots that each tenant holds. The counters are kept by the transitions that give slots and take them.

use crate::state::queue::Party;
use crate::state::want::{ClassKey, Want};
use crate::{Core, Lease, ResourceId, Tenant, Tenants, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

/// The slots that a tenant's leases hold, from the grant to the end of the clean-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// All of them. The slot of a host under a working copy is not counted beside that of the copy.
    pub(crate) slots: u32,
    /// By pool. A slot of a working copy counts in the pool of its host too.
    pub(crate) by_pool: BTreeMap<Arc<str>, u32>,
}

impl Core {
    /// The configured tenants.
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// Sets the configured tenants.
    pub(crate) fn configure_tenants(&mut self, tenants: Arc<Tenants>) {
        self.tenants = tenants;
        let tenants = &self.tenants;
        self.queue.set_bounded(|party| party.as_ref().is_some_and(|name| tenants.is_bounded(name)));
        self.rank_all_anew();
    }

    /// The share and the limits of a party. `None`: the configuration does not have the tenant.
    pub(crate) fn tenant(&self, party: &Party) -> Option<&Tenant> {
        match party {
            Some(name) => self.tenants.of(name),
            None => Some(&Tenant::UNLIMITED),
        }
    }

    /// Whether a party has a quota. A tenant that the configuration does not have may have nothing.
    pub(crate) fn is_bounded(&self, party: &Party) -> bool {
        party.as_ref().is_some_and(|name| self.tenants.is_bounded(name))
    }

    /// The slots that a tenant holds.
    pub(crate) fn held(&self, tenant: &str) -> Option<&Held> {
        self.held.get(tenant)
    }

    /// All tenants that hold slots.
    pub(crate) fn holding(&self) -> impl Iterator<Item = (&Arc<str>, &Held)> {
        self.held.iter()
    }

    /// The slots that a party holds in the pools that a class names.
    pub(crate) fn held_for(&self, party: &Party, key: &ClassKey) -> u64 {
        let Some(held) = party.as_ref().and_then(|name| self.held.get(name)) else { return 0 };
        let of = |name: &Arc<str>| u64::from(held.by_pool.get(name).copied().unwrap_or(0));
        match &key[..] {
            [want] => want.pools().map_or(u64::from(held.slots), |pools| pools.iter().map(of).sum()),
            wants if wants.iter().any(|want| want.pools().is_none()) => u64::from(held.slots),
            wants => {
                let pools: BTreeSet<&Arc<str>> = wants.iter().filter_map(Want::pools).flatten().collect();
                pools.into_iter().map(of).sum()
            }
        }
    }

    /// A lease took a slot of a resource, or left it.
    pub(super) fn count_held(&mut self, lease: &Lease, resource: ResourceId, takes: bool) {
        if lease.spec.child.is_some() {
            return;
        }
        let row = self.resource(resource);
        let host = row.and_then(|row| row.parent?.host).and_then(|host| self.resource(host));
        let pools = [row, host].map(|row| row.map(|row| row.pool.clone()));
        self.rank_anew(&Some(lease.spec.tenant.clone()));
        let held = self.held.entry(lease.spec.tenant.clone()).or_default();
        let step = |count: u32| if takes { count + 1 } else { count.saturating_sub(1) };
        held.slots = step(held.slots);
        for pool in pools.into_iter().flatten() {
            let count = held.by_pool.entry(pool).or_default();
            *count = step(*count);
        }
        held.by_pool.retain(|_, count| *count > 0);
        if held.slots == 0 {
            self.held.remove(&lease.spec.tenant);
        }
    }

    /// When a party's patience began anew in the pools that a class names, since a request of it went before its turn.
    pub(crate) fn patience_since(&self, party: &Party, key: &ClassKey) -> Timestamp {
        let Some(pools) = self.patience.get(party) else { return Timestamp(0) };
        let any = key.iter().any(|want| want.pools().is_none());
        let named = |name: &Arc<str>| any || key.iter().filter_map(Want::pools).flatten().any(|pool| pool == name);
        pools.iter().filter(|(name, _)| named(name)).map(|(_, at)| *at).max().unwrap_or(Timestamp(0))
    }

    /// A request of a party goes before its turn: its patience begins anew in these pools.
    pub(crate) fn begin_patience(&mut self, party: &Party, pools: impl IntoIterator<Item = Arc<str>>) {
        let now = self.now;
        let queue = &self.queue;
        // Now and then those are forgotten that wait no more.
        if self.patience.len() > 2 * queue.parties().len() {
            self.patience.retain(|party, _| queue.party(party).is_some());
        }
        self.rank_anew(party);
        let own = self.patience.entry(party.clone()).or_default();
        own.extend(pools.into_iter().map(|pool| (pool, now)));
    }
}
