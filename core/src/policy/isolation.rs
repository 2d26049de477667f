//! Which tenants may use a resource: on hosts that only one tenant has at a time, and after another tenant.

use crate::policy::scheduler::Round;
use crate::state::queue::Party;
use crate::state::want::{ClassKey, Want};
use crate::{Core, Isolation, Lease, Resource, ResourceId, Stage};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// A resource and the host under it.
    fn with_host(&self, row: &Resource) -> impl Iterator<Item = &Resource> {
        let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resource(host));
        self.resource(row.id).into_iter().chain(host).map(|row| &**row)
    }

    /// The tenants whose leases hold slots of a resource, or of a working copy on it, until they are clean.
    pub(crate) fn users_of(&self, id: ResourceId) -> BTreeSet<&Arc<str>> {
        let mut users = BTreeSet::new();
        let Some(entry) = self.entry(&id) else { return users };
        for lease in entry.slots.used().filter_map(|(_, lease)| self.lease(lease)) {
            match lease.spec.child {
                Some(copy) => users.extend(self.users_of(copy)),
                None => drop(users.insert(&lease.spec.tenant)),
            }
        }
        users
    }

    /// Whether other tenants than this one hold slots of the machine of a resource.
    pub(crate) fn is_shared(&self, id: ResourceId, tenant: &Arc<str>) -> bool {
        self.users_of(self.host_or_itself(id)).iter().any(|user| **user != *tenant)
    }

    /// Whether only one tenant has a machine at a time.
    fn isolates(&self, row: &Resource) -> bool {
        self.pool_entry(&row.pool).is_some_and(|pool| pool.config.isolation == Isolation::Host)
    }

    /// Whether a resource of this pool is replaced between two tenants.
    pub(crate) fn is_replaced_between(&self, row: &Resource) -> bool {
        self.pool_entry(&row.pool).is_some_and(|pool| !pool.config.reuse_across_tenants)
    }

    /// Whether the tenant of a lease may not use a resource now, since another one uses or used it.
    pub(crate) fn is_anothers(&self, round: &Round, lease: &Lease, row: &Resource) -> bool {
        let own = |tenant: &Arc<str>| match lease.spec.child.and_then(|copy| self.resource(copy)) {
            None => *tenant == lease.spec.tenant,
            // A copy is made for the leases that wait for it.
            Some(copy) => self.waits_for(&copy.pool, tenant),
        };
        self.with_host(row).any(|row| {
            let used = self.isolates(row) && !self.users_of(row.id).into_iter().all(own);
            let emptied = round.emptied.get(&row.id).is_some_and(|tenant| !own(tenant));
            used || emptied || self.was_anothers(row, own)
        })
    }

    fn was_anothers(&self, row: &Resource, own: impl Fn(&Arc<str>) -> bool) -> bool {
        self.is_replaced_between(row) && row.last_tenant.as_ref().is_some_and(|tenant| !own(tenant))
    }

    /// Whether a tenant waits for a pool.
    fn waits_for(&self, pool: &Arc<str>, tenant: &Arc<str>) -> bool {
        self.queue().waits_for(&Some(tenant.clone()), pool)
    }

    /// Whether a tenant should rather take this resource than one like it, so that the others stay whole for other tenants.
    /// `None`: it makes no difference.
    pub(crate) fn is_preferred(&self, lease: &Lease, row: &Resource) -> Option<bool> {
        let isolating = self.with_host(row).find(|row| self.isolates(row))?;
        Some(self.users_of(isolating.id).contains(&lease.spec.tenant))
    }

    /// Notes that a tenant would get a slot of a resource: a host that only one tenant has at a time is its own then.
    pub(crate) fn note_use(&self, round: &mut Round, id: ResourceId, tenant: &Arc<str>) {
        let Some(row) = self.resource(id) else { return };
        if let Some(row) = self.with_host(row).find(|row| self.isolates(row)) {
            round.emptied.insert(row.id, tenant.clone());
        }
    }

    /// Whether a request finds nothing but what other tenants use or used. Notes a host that is emptied for it, or a resource
    /// that is replaced for it.
    pub(crate) fn make_way(&self, round: &mut Round, key: &ClassKey, party: &Party, has: &[bool]) {
        let Some(tenant) = party else { return };
        for (want, has) in key.iter().zip(has) {
            if *has || !self.pools_of(want).any(|pool| self.separates(&pool.config.name)) || self.could_grow(want) {
                continue;
            }
            let rows = self.fitting_rows(want);
            let host = |row: &&Resource| self.with_host(row).find(|row| self.isolates(row)).map(|row| row.id);
            let hosts: BTreeSet<ResourceId> = rows.iter().filter_map(host).collect();
            let taken = |id: &ResourceId| round.emptied.contains_key(id);
            let free = hosts.iter().filter(|id| !taken(id));
            let used = |id: &ResourceId| self.entry(id).map_or(0, |entry| entry.slots.len());
            if let Some(host) = free.min_by_key(|id| (used(id), **id)) {
                round.emptied.insert(*host, tenant.clone());
            }
            // One at a time: what is being replaced serves the first, and the next one looks again.
            let under_way = self.pools_of(want).flat_map(|pool| &pool.members).filter_map(|id| self.resource(*id));
            let under_way = under_way.filter(|row| matches!(row.state.stage(), Stage::Leaving | Stage::Coming)).count();
            let unused = |row: &&&Resource| self.entry(&row.id).is_some_and(|entry| entry.slots.len() == 0);
            let old = rows.iter().filter(unused).find(|row| self.was_anothers(row, |last| last == tenant));
            if let Some(row) = old.filter(|_| under_way <= round.replaced.len()) {
                round.replaced.insert(row.id);
            }
        }
    }

    /// Whether the pool, or one on which it lies, keeps tenants apart.
    fn separates(&self, name: &Arc<str>) -> bool {
        let own = |name: &Arc<str>| {
            self.pool_entry(name)
                .is_some_and(|pool| pool.config.isolation == Isolation::Host || !pool.config.reuse_across_tenants)
        };
        own(name) || self.pool_entry(name).is_some_and(|pool| pool.config.on.iter().any(own))
    }

    /// Resources in service that a want selects.
    fn fitting_rows(&self, want: &Want) -> Vec<&Resource> {
        let mut rows = Vec::new();
        for pool in self.pools_of(want) {
            let members = pool.members.iter().filter_map(|id| self.entry(id)).filter(|entry| entry.counted.leasable);
            let fitting = members.map(|entry| &*entry.row);
            rows.extend(fitting.filter(|row| want.matches(&pool.config.name, &pool.config.labels, &row.labels)));
        }
        rows
    }
}
