//! The state as one reader sees it. A read for a client goes through a view, so that none is without a scope.

use crate::{
    AdminRequest, Core, Explanation, Impact, ItemView, Lease, LeaseId, LeaseState, LikelyStart, MachineKey,
    MachineName, NoStart, PoolView, QueuePage, QueuePlace, Rejection, Reply, Resource, ResourceId, ResourceState,
    Revision, Scope, SessionId, TenantView, Timestamp,
};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The state within a scope: a lease out of it is not there.
#[derive(Clone, Copy)]
pub struct View<'c> {
    core: &'c Core,
    scope: &'c Scope,
}

/// A resource, with the leases in view that hold its slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenResource {
    /// The resource. Without full view: without the failures of leases out of view, and without the words of
    /// holders and the note of an operator.
    pub resource: Arc<Resource>,
    /// The leases in view that hold its slots, by slot.
    pub leases: Vec<Arc<Lease>>,
    /// The slots that leases hold, in view or not.
    pub in_use: usize,
    /// Those of them whose lease has ended and that are being cleaned.
    pub in_cleaning: usize,
}

impl Core {
    /// The state within a scope.
    pub fn view<'c>(&'c self, scope: &'c Scope) -> View<'c> {
        View { core: self, scope }
    }
}

impl<'c> View<'c> {
    /// The revision of the latest change.
    pub fn revision(&self) -> Revision {
        self.core.revision()
    }

    /// The oldest revision from which a watch can resume.
    pub fn floor(&self) -> Revision {
        self.core.floor()
    }

    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<&'c Arc<Lease>> {
        self.core.lease(id).filter(|lease| self.scope.sees(lease))
    }

    /// The leases that a session keeps, by id, from after this one; `None` in place of one out of view.
    pub fn leases_of_session(
        &self,
        session: SessionId,
        after: Option<LeaseId>,
    ) -> impl Iterator<Item = (LeaseId, Option<&'c Arc<Lease>>)> {
        let core = self.core;
        let all = core.session_leases(session, after).filter_map(move |id| core.lease(id));
        all.map(|lease| (lease.id, Some(lease).filter(|lease| self.sees(lease))))
    }

    fn sees(&self, lease: &Lease) -> bool {
        self.scope.sees(lease)
    }

    /// All leases that are kept, by id, from after this one; `None` in place of one out of view. A reader counts those
    /// too, so that no read is long.
    pub fn leases(&self, after: Option<LeaseId>) -> impl Iterator<Item = (LeaseId, Option<&'c Arc<Lease>>)> {
        self.core.leases(after).map(|lease| (lease.id, Some(lease).filter(|lease| self.sees(lease))))
    }

    /// Leases that changed after a revision, in order of revision; `None` in place of one out of view.
    pub fn leases_changed_after(&self, after: Revision) -> impl Iterator<Item = (Revision, Option<&'c Arc<Lease>>)> {
        self.core
            .leases_changed_after(after)
            .map(|lease| (lease.revision, Some(lease).filter(|lease| self.sees(lease))))
    }

    /// Why a lease waits, or what became of it.
    pub fn explain(&self, id: LeaseId, now: Timestamp) -> Option<Explanation> {
        self.core.explain(id, now, self.scope)
    }

    /// When a lease that waits is likely to start. `None`: it is not in view, or does not wait.
    pub fn likely_start(&self, id: LeaseId, now: Timestamp) -> Option<Result<LikelyStart, NoStart>> {
        self.core.likely_start(self.lease(id)?, now)
    }

    /// The place of a lease in the queue, or the one that it had. `None`: there is no such lease in view.
    pub fn queue_place(&self, id: LeaseId) -> Option<QueuePlace> {
        self.core.queue_place(id, self.scope)
    }

    /// A part of the queue after a place, at most this many requests: of those that a pool could serve, or of all. A class without
    /// a request in view is left out; of the others the counts are those of all tenants.
    pub fn queue(&self, pool: Option<&str>, after: Option<&QueuePlace>, room: usize, now: Timestamp) -> QueuePage {
        self.core.queue_page((pool, self.scope), after, room, now)
    }

    /// Whether there is a pool of this name in view.
    pub fn has_pool(&self, name: &str) -> bool {
        self.core.pool_entry(name).is_some() && self.scope.shows_pool(name)
    }

    /// The pools in view, in the order of the configuration. Their counts are sums over all tenants.
    pub fn pools(&self) -> Vec<PoolView> {
        let mut pools = self.core.pools();
        pools.retain(|pool| self.scope.shows_pool(&pool.config.name));
        pools.into_iter().map(|pool| self.without_notes(pool)).collect()
    }

    /// A pool without the notes of operators, unless they are for this reader.
    fn without_notes(&self, mut pool: PoolView) -> PoolView {
        if !self.scope.tells_of(Some(&pool.config.name)) {
            pool.items.iter_mut().for_each(|item| item.note = None);
        }
        pool
    }

    /// The tenants in view, by name: all of them, or the reader's own.
    pub fn tenants(&self) -> Vec<TenantView> {
        self.core.tenant_views(self.scope)
    }

    /// One pool.
    pub fn pool(&self, name: &str) -> Option<PoolView> {
        let pool = self.core.pool(name).filter(|pool| self.scope.shows_pool(&pool.config.name))?;
        Some(self.without_notes(pool))
    }

    /// Whether a resource of this pool has slots for several leases.
    pub fn shares_resources(&self, pool: &str) -> bool {
        self.core.pool_entry(pool).is_some_and(|pool| pool.config.slots > 1)
    }

    /// The machine of this name.
    ///
    /// # Errors
    /// As [`Core::known_machine`].
    pub fn known_machine(&self, name: &MachineName) -> Result<MachineKey, Rejection> {
        self.core.known_machine(name, self.scope)
    }

    /// The machine for which a resource stands.
    pub fn machine_of(&self, id: ResourceId) -> Option<MachineKey> {
        self.core.machine_of(id)
    }

    /// The resource that stands for a machine now.
    pub fn resource_of(&self, key: &MachineKey) -> Option<ResourceId> {
        self.core.resource_of(key)
    }

    /// A machine with the orders on it.
    pub fn item(&self, key: &MachineKey) -> ItemView {
        let item = self.core.item(key);
        ItemView { note: item.note.filter(|_| self.scope.tells_of(Some(&key.pool))), ..item }
    }

    /// The impact of a request of an operator, and its object as it is. The ids of leases out of view are among them.
    ///
    /// # Errors
    /// Those with which the request would be refused.
    pub fn would(&self, request: &AdminRequest) -> Result<(Impact, Reply), Rejection> {
        self.core.would(request)
    }

    /// One resource.
    pub fn resource(&self, id: ResourceId) -> Option<SeenResource> {
        self.core.resource(id).filter(|row| self.scope.shows_pool(&row.pool)).map(|row| self.seen(row))
    }

    /// All resources that are kept, by id, from after this one; `None` in place of one out of view.
    pub fn resources(
        &self,
        after: Option<ResourceId>,
    ) -> impl Iterator<Item = (ResourceId, Option<&'c Arc<Resource>>)> {
        self.core.resources(after).map(|row| (row.id, Some(row).filter(|row| self.scope.shows_pool(&row.pool))))
    }

    /// Resources that changed after a place in the order of changes, and those whose leases did, each with its place; `None` in
    /// place of one out of view.
    pub fn resources_changed_after(
        &self,
        after: (Revision, ResourceId),
    ) -> impl Iterator<Item = ((Revision, ResourceId), Option<&'c Arc<Resource>>)> {
        let all = self.core.resources_changed_after(after);
        all.map(|(place, row)| (place, Some(row).filter(|row| self.scope.shows_pool(&row.pool))))
    }

    /// A resource of this state, as far as it is in view.
    pub fn seen(&self, row: &Arc<Resource>) -> SeenResource {
        let mut leases = self.core.leases_on(row.id);
        let (in_use, in_cleaning) = (leases.len(), leases.iter().filter(|lease| lease.ended()).count());
        leases.retain(|lease| self.sees(lease));
        if self.scope.tells_of(Some(&row.pool)) {
            return SeenResource { resource: row.clone(), leases, in_use, in_cleaning };
        }
        let mut resource = Resource::clone(row);
        resource.failures.retain(|failure| self.lease(failure.lease).is_some());
        (resource.trouble, resource.note) = (None, None);
        let kept: Arc<str> = Arc::from("it is kept for triage");
        if let Some(hold) = &mut resource.hold {
            (hold.by, hold.reason) = (Arc::from(""), kept.clone());
        }
        match &mut resource.state {
            ResourceState::Quarantined { cordon, .. } => (cordon.by, cordon.reason) = (Arc::from(""), kept),
            ResourceState::Suspect { cause, .. }
            | ResourceState::Repairing { cause, .. }
            | ResourceState::Draining { cause, .. }
            | ResourceState::Destroying { cause, .. }
            | ResourceState::Orphaned { cause, .. }
            | ResourceState::Gone { cause, .. } => {
                for link in cause {
                    link.detail = link.detail_for(self.scope);
                }
            }
            ResourceState::Provisioning { .. } | ResourceState::Ready => {}
        }
        SeenResource { resource: Arc::new(resource), leases, in_use, in_cleaning }
    }

    /// The pool of the host under an active lease, which has the credentials of a working copy.
    pub fn pool_of_host(&self, lease: LeaseId) -> Option<Arc<str>> {
        let LeaseState::Active { assignment, .. } = &self.lease(lease)?.state else { return None };
        let host = self.core.resource(assignment.resource)?.parent?.host?;
        Some(self.core.resource(host)?.pool.clone())
    }

    /// The hosts under these resources.
    pub fn hosts_of(&self, resources: &[ResourceId]) -> Vec<ResourceId> {
        let host = |id: &ResourceId| self.core.resource(*id)?.parent?.host;
        resources.iter().filter_map(host).collect()
    }
}
