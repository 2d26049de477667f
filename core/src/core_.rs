//! The state machine's outside: what the shell calls. (Named so because `core` is the language's own crate.)

use crate::{
    Batch, Explanation, Input, Lease, LeaseId, Millis, PoolConfig, PoolView, Rejection, Reply, Resource, ResourceId,
    Revision, Snapshot, Timestamp,
};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Limits of the whole deployment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Leases in line at once.
    pub queue: usize,
    /// Leases of one request.
    pub claims: u32,
    /// How long ended leases and gone resources are kept.
    pub retention: Millis,
    /// After a restart or a pause no lease expires for so long.
    pub grace: Millis,
    /// A gap between two steps longer than this counts as a pause of the broker.
    pub pause: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 100_000,
            claims: 64,
            retention: Millis::secs(3600),
            grace: Millis::secs(30),
            pause: Millis::secs(5),
        }
    }
}

/// All of the broker's state, and every decision.
#[derive(Clone)]
pub struct Core {}

impl Core {
    /// From what is stored. The first batch holds what the restart itself changes, and the effects that were under
    /// way, each to be started again with its old number.
    pub fn recover(snapshot: Snapshot, pools: Vec<PoolConfig>, limits: Limits, now: Timestamp) -> Self {
        let _ = (snapshot, pools, limits, now);
        todo!()
    }
    /// Takes one input. What it changes is in the next [`Core::take_batch`], also what time alone changes by `now`.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Result<Reply, Rejection> {
        let _ = (now, input);
        todo!()
    }
    /// Hands over what all steps since the last call changed.
    pub fn take_batch(&mut self) -> Batch {
        todo!()
    }
    /// When the next step must come, if nothing else comes before.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        todo!()
    }
    /// The revision of the latest change, committed or not.
    pub fn revision(&self) -> Revision {
        todo!()
    }
    /// The oldest revision from which a watch can resume.
    pub fn floor(&self) -> Revision {
        todo!()
    }
    /// One lease.
    pub fn lease(&self, id: LeaseId) -> Option<&Arc<Lease>> {
        let _ = id;
        todo!()
    }
    /// A lease and the others of its group, by index.
    pub fn with_group(&self, id: LeaseId) -> Vec<Arc<Lease>> {
        let _ = id;
        todo!()
    }
    /// All leases that are kept, by id, from after this one.
    pub fn leases(&self, after: Option<LeaseId>) -> impl Iterator<Item = &Arc<Lease>> {
        let _ = after;
        core::iter::empty()
    }
    /// Leases that changed after a revision, in order of revision.
    pub fn leases_changed_after(&self, after: Revision) -> impl Iterator<Item = &Arc<Lease>> {
        let _ = after;
        core::iter::empty()
    }
    /// One resource.
    pub fn resource(&self, id: ResourceId) -> Option<&Arc<Resource>> {
        let _ = id;
        todo!()
    }
    /// All resources that are kept, by id, from after this one.
    pub fn resources(&self, after: Option<ResourceId>) -> impl Iterator<Item = &Arc<Resource>> {
        let _ = after;
        core::iter::empty()
    }
    /// The leases that hold slots of a resource, by slot.
    pub fn leases_on(&self, id: ResourceId) -> Vec<Arc<Lease>> {
        let _ = id;
        todo!()
    }
    /// All pools in the order of the configuration, then those removed from it of which something is left.
    pub fn pools(&self) -> Vec<PoolView> {
        todo!()
    }
    /// One pool.
    pub fn pool(&self, name: &str) -> Option<PoolView> {
        let _ = name;
        todo!()
    }
    /// Why a lease waits, or what became of it.
    pub fn explain(&self, id: LeaseId, now: Timestamp) -> Option<Explanation> {
        let _ = (id, now);
        todo!()
    }
}
