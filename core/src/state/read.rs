//! Reads of the state by other modules.

use crate::policy::brake::Domain;
use crate::state::intern::Intern;
use crate::state::queue::Queue;
use crate::state::tables::{LeaseEntry, Pool, ResourceEntry};
use crate::{Core, GroupId, Lease, LeaseId, Limits, Resource, ResourceId, Revision, Timestamp};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// The time of the latest step.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The revision of the latest change, committed or not.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The oldest revision from which a watch can resume.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<&Arc<Lease>> {
        self.leases.get(&id).map(|entry| &entry.row)
    }

    /// A lease and the others of its group, by index.
    pub fn with_group(&self, id: LeaseId) -> Vec<Arc<Lease>> {
        let Some(lease) = self.lease(id) else { return Vec::new() };
        let Some(members) = lease.spec.group.and_then(|group| self.by_group.get(&group)) else {
            return alloc::vec![lease.clone()];
        };
        let mut all: Vec<Arc<Lease>> = members.iter().filter_map(|id| self.lease(*id).cloned()).collect();
        all.sort_by_key(|lease| lease.spec.index);
        all
    }

    /// All leases that are kept, by id, from after this one.
    pub fn leases(&self, after: Option<LeaseId>) -> impl Iterator<Item = &Arc<Lease>> {
        self.leases.range((bound(after), core::ops::Bound::Unbounded)).map(|(_, entry)| &entry.row)
    }

    /// Leases that changed after a revision, in order of revision.
    pub fn leases_changed_after(&self, after: Revision) -> impl Iterator<Item = &Arc<Lease>> {
        self.by_revision
            .range((core::ops::Bound::Excluded(after), core::ops::Bound::Unbounded))
            .filter_map(|(_, id)| self.lease(*id))
    }

    /// One resource.
    pub fn resource(&self, id: ResourceId) -> Option<&Arc<Resource>> {
        self.resources.get(&id).map(|entry| &entry.row)
    }

    /// All resources that are kept, by id, from after this one.
    pub fn resources(&self, after: Option<ResourceId>) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.range((bound(after), core::ops::Bound::Unbounded)).map(|(_, entry)| &entry.row)
    }

    /// Resources that changed after a place in the order of changes, and those whose leases did, each with its place.
    pub fn resources_changed_after(
        &self,
        after: (Revision, ResourceId),
    ) -> impl Iterator<Item = ((Revision, ResourceId), &Arc<Resource>)> {
        self.resource_changes
            .range((core::ops::Bound::Excluded(after), core::ops::Bound::Unbounded))
            .filter_map(|place| Some((*place, self.resource(place.1)?)))
    }

    /// The number of resources in the order of changes.
    pub(crate) fn resource_change_count(&self) -> usize {
        self.resource_changes.len()
    }

    /// The leases that hold slots of a resource, by slot.
    pub fn leases_on(&self, id: ResourceId) -> Vec<Arc<Lease>> {
        let Some(entry) = self.resources.get(&id) else { return Vec::new() };
        entry.slots.used().filter_map(|(_, lease)| self.lease(lease).cloned()).collect()
    }

    /// The limits of the deployment.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn salt(&self) -> u16 {
        self.salt
    }

    /// No lease expires before this.
    pub(crate) fn grace_until(&self) -> Timestamp {
        self.grace_until
    }

    /// Misses before this do not count: the broker itself could not hear an answer.
    pub(crate) fn heard_since(&self) -> Timestamp {
        self.heard_since
    }

    /// The number of the next change.
    pub(crate) fn next_number(&self) -> u64 {
        self.revision.0 + 1
    }

    pub(crate) fn pool_entry(&self, name: &str) -> Option<&Pool> {
        self.pools.get(name)
    }

    pub(crate) fn pool_entries(&self) -> impl Iterator<Item = &Pool> {
        self.pools.values()
    }

    pub(crate) fn pool_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pools.keys()
    }

    /// Names of pools in the order of the configuration, then those removed from it of which something is left.
    pub(crate) fn pool_order(&self) -> &[Arc<str>] {
        &self.order
    }

    /// The name of a pool by its number in the order.
    pub(crate) fn pool_name(&self, n: usize) -> &Arc<str> {
        &self.order[n]
    }

    /// A pool by its number in the order.
    pub(crate) fn nth_pool(&self, n: usize) -> &Pool {
        &self.pools[&self.order[n]]
    }

    pub(crate) fn entry(&self, id: &ResourceId) -> Option<&ResourceEntry> {
        self.resources.get(id)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &ResourceEntry> {
        self.resources.values()
    }

    /// The working copies on a host.
    pub(crate) fn children(&self, id: ResourceId) -> Vec<ResourceId> {
        self.resources.get(&id).map(|entry| entry.children.iter().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn lease_entries(&self) -> impl Iterator<Item = &LeaseEntry> {
        self.leases.values()
    }

    /// The first lease of a tenant's request.
    pub(crate) fn first_of_request(&self, tenant: &Arc<str>, request: &Arc<str>) -> Option<LeaseId> {
        self.by_request.get(&(tenant.clone(), request.clone())).copied()
    }

    /// The members of a group.
    pub(crate) fn group(&self, id: &GroupId) -> Option<&BTreeSet<LeaseId>> {
        self.by_group.get(id)
    }

    /// Groups of which some members have slots and others wait.
    pub(crate) fn partial_groups(&self) -> &BTreeSet<GroupId> {
        &self.partial
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// All probed hosts as one failure domain.
    pub(crate) fn network(&self) -> &Domain {
        &self.network
    }

    pub(crate) fn intern(&mut self) -> &mut Intern {
        &mut self.intern
    }

    /// Pools whose supply or demand changed since the last placing.
    pub(crate) fn dirty(&self) -> &BTreeSet<Arc<str>> {
        &self.dirty
    }

    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled
    }
}

fn bound<T>(after: Option<T>) -> core::ops::Bound<T> {
    match after {
        Some(id) => core::ops::Bound::Excluded(id),
        None => core::ops::Bound::Unbounded,
    }
}
