//! Runs effects: calls adapters within limits and times, and brings exactly one answer of each back to the engine.

use crate::engine::facts;
use crate::engine::handle::Handle;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use wharfinger_adapter::{
    Adapter, CleanJob, EndedHow, Failure, HolderWork, Journal, ParentHost, PrepareJob, Prepared, ProvisionJob,
    ResourceJob, Verdict,
};
use wharfinger_core::{Effect, Ended, Input, Lease, LeaseId, LeaseState, Op, Outcome, Resource, ResourceId, Work};

/// The adapter of each pool. Replaced pool by pool on a reload; an adapter stays as long as its pool has resources.
#[derive(Clone, Default)]
pub struct Adapters(Arc<RwLock<BTreeMap<String, Arc<dyn Adapter>>>>);

impl Adapters {
    /// Sets the adapter of a pool.
    pub fn insert(&self, pool: impl Into<String>, adapter: Arc<dyn Adapter>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(pool.into(), adapter);
    }

    /// The adapter of a pool.
    pub fn get(&self, pool: &str) -> Option<Arc<dyn Adapter>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(pool).cloned()
    }
}

/// How many calls run at once.
#[derive(Clone, Copy, Debug)]
pub struct EffectLimits {
    /// Calls that make, prepare, clean, mend or remove.
    pub work: usize,
    /// Checks and probes.
    pub checks: usize,
}

impl Default for EffectLimits {
    fn default() -> Self {
        Self { work: 64, checks: 256 }
    }
}

/// Starts effects.
#[derive(Clone)]
pub(crate) struct Executor {
    adapters: Adapters,
    handle: Handle,
    work: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    running: Arc<Mutex<Running>>,
    generation: Arc<AtomicU64>,
}

/// What runs, so that it can be ended before what must not run beside it.
#[derive(Default)]
struct Running {
    /// What runs on each slot.
    slots: BTreeMap<(ResourceId, u32), Vec<(u64, Task)>>,
    resources: BTreeMap<ResourceId, Vec<(u64, Task)>>,
    /// Operations under way: after a recovery the core names again what never stopped running.
    ops: BTreeSet<Key>,
    next: u64,
}

/// One operation: the resource, the lease that it is for, its number.
type Key = (ResourceId, Option<LeaseId>, u64);

/// A call under way: to be aborted, and awaited.
#[derive(Clone)]
struct Task {
    abort: AbortHandle,
    done: Arc<Semaphore>,
}

impl Executor {
    pub(crate) fn new(adapters: Adapters, handle: Handle, limits: EffectLimits) -> Self {
        Self {
            adapters,
            handle,
            work: Arc::new(Semaphore::new(limits.work)),
            checks: Arc::new(Semaphore::new(limits.checks)),
            running: Arc::default(),
            generation: Arc::default(),
        }
    }

    /// Which calls count: those that were started since the last recovery.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Ends all calls, and waits until they have ended; their answers do not count any more.
    pub(crate) async fn halt(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let all: Vec<Task> = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.resources.values().flatten().map(|(_, task)| task.clone()).collect()
        };
        for task in &all {
            task.abort.abort();
        }
        for task in all {
            let _ = task.done.acquire().await;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.ops.clear();
    }

    /// Starts an effect. Its answer comes to the engine as an input, whatever happens.
    pub(crate) fn start(&self, effect: Effect) {
        let key: Key = (effect.resource.id, lease_of(&effect), effect.op.0);
        if !self.running.lock().unwrap_or_else(PoisonError::into_inner).ops.insert(key) {
            return;
        }
        let generation = self.generation();
        let before = self.to_end_before(&effect);
        let this = self.clone();
        let done = Arc::new(Semaphore::new(0));
        let finished = done.clone();
        let for_answer = effect.clone();
        let permits = match effect.work {
            Work::Check | Work::Probe => self.checks.clone(),
            Work::Provision(_) | Work::Prepare(_) | Work::Clean(_) | Work::Repair | Work::Destroy => self.work.clone(),
        };
        let job: JoinHandle<Input> = tokio::spawn(async move {
            for task in before {
                task.abort.abort();
                // Closed when the task is over; its future is dropped then, and what it ran on the host is killed.
                let _ = task.done.acquire().await;
            }
            let _permit = permits.acquire_owned().await;
            let limit = Duration::from_millis(u64::try_from(effect.timeout.0).unwrap_or(0).max(1));
            match tokio::time::timeout(limit, this.run(&effect)).await {
                Ok(input) => input,
                Err(_) => facts::timed_out(&effect),
            }
        });
        let number = self.note(&for_answer, Task { abort: job.abort_handle(), done });
        let this = self.clone();
        tokio::spawn(async move {
            let outcome = job.await;
            finished.close();
            this.forget(&for_answer, key, number, generation);
            let input = match outcome {
                Ok(input) => input,
                // Ended for something that made it pointless; the core drops the answer by its number.
                Err(error) if error.is_cancelled() => facts::cancelled(&for_answer),
                Err(error) => facts::panicked(&for_answer, &error.to_string()),
            };
            let _ = this.handle.fact(input, generation).await;
        });
    }

    /// Who needs a slot to itself ends what runs on the slot; who needs the resource, all that runs on it.
    fn to_end_before(&self, effect: &Effect) -> Vec<Task> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = match &effect.work {
            Work::Prepare(_) | Work::Clean(_) => slot_of(effect).and_then(|slot| running.slots.get(&slot)),
            Work::Destroy | Work::Repair => running.resources.get(&effect.resource.id),
            Work::Provision(_) | Work::Check | Work::Probe => None,
        };
        tasks.into_iter().flatten().map(|(_, task)| task.clone()).collect()
    }

    fn note(&self, effect: &Effect, task: Task) -> u64 {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.next += 1;
        let number = running.next;
        if let Some(slot) = slot_of(effect) {
            running.slots.entry(slot).or_default().push((number, task.clone()));
        }
        running.resources.entry(effect.resource.id).or_default().push((number, task));
        number
    }

    fn forget(&self, effect: &Effect, key: Key, number: u64, generation: u64) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // After a recovery the same operation may be under way again.
        if self.generation() == generation {
            running.ops.remove(&key);
        }
        if let Some(slot) = slot_of(effect)
            && let Some(tasks) = running.slots.get_mut(&slot)
        {
            tasks.retain(|(own, _)| *own != number);
            if tasks.is_empty() {
                running.slots.remove(&slot);
            }
        }
        let resource = effect.resource.id;
        if let Some(tasks) = running.resources.get_mut(&resource) {
            tasks.retain(|(own, _)| *own != number);
            if tasks.is_empty() {
                running.resources.remove(&resource);
            }
        }
    }

    async fn run(&self, effect: &Effect) -> Input {
        let (adapter, resource) = match self.prepare_call(effect).await {
            Ok(ready) => ready,
            Err(failure) => return facts::not_called(effect, failure),
        };
        match &effect.work {
            Work::Provision(attempt) => {
                let job = ProvisionJob { resource, attempt: *attempt };
                let journal = Noted { handle: &self.handle, resource: effect.resource.id, op: effect.op };
                facts::provisioned(effect, adapter.provision_noted(&job, &journal).await)
            }
            Work::Prepare(lease) => {
                facts::prepared(effect, lease, self.prepare(effect, adapter, resource, lease).await)
            }
            Work::Clean(lease) => {
                let job = CleanJob { resource, work: holder_work(lease), ended: ended_how(lease) };
                facts::cleaned(effect, lease, adapter.clean(&job).await)
            }
            Work::Check => facts::checked(effect, adapter.check(&resource).await),
            Work::Probe => facts::probed(effect, adapter.probe(&resource).await),
            Work::Repair => facts::repaired(effect, adapter.repair(&resource).await),
            Work::Destroy => facts::destroyed(effect, adapter.destroy(&resource).await),
        }
    }

    /// Prepares a slot; that of a child on its host too, which adds what its holder needs there.
    async fn prepare(
        &self,
        effect: &Effect,
        adapter: Arc<dyn Adapter>,
        resource: ResourceJob,
        lease: &Lease,
    ) -> Result<Prepared, Failure> {
        let mut on_host = Prepared::default();
        if let Some(host) = &effect.host {
            let host_adapter = self.adapter(host)?;
            if host_adapter.traits().prepares {
                let child = Some(effect.resource.id.to_string());
                let job = PrepareJob { resource: resource_job(host, effect.op.0), work: holder_work(lease), child };
                on_host = host_adapter.prepare(&job).await?;
            }
        }
        let mut prepared = adapter.prepare(&PrepareJob { resource, work: holder_work(lease), child: None }).await?;
        for (key, value) in on_host.access {
            prepared.access.entry(key).or_insert(value);
        }
        Ok(prepared)
    }

    /// Finds the adapter and, for a child, a way to run commands on its host.
    async fn prepare_call(&self, effect: &Effect) -> Result<(Arc<dyn Adapter>, ResourceJob), Failure> {
        let adapter = self.adapter(&effect.resource)?;
        let mut job = resource_job(&effect.resource, effect.op.0);
        if let Some(host) = &effect.host {
            let shell = self.adapter(host)?.shell(&resource_job(host, effect.op.0)).await?;
            job.parent = Some(ParentHost { resource: host.id.to_string(), access: facts::texts(&host.access), shell });
        }
        Ok((adapter, job))
    }

    fn adapter(&self, resource: &Resource) -> Result<Arc<dyn Adapter>, Failure> {
        self.adapters.get(&resource.pool).ok_or_else(|| {
            let pool = &resource.pool;
            let message =
                format!("pool {pool} is not in the configuration any more: put it back to reach {}", resource.id);
            Failure::configuration("POOL_REMOVED", message)
        })
    }
}

/// The journal of one resource that is being made: its row.
struct Noted<'a> {
    handle: &'a Handle,
    resource: ResourceId,
    op: Op,
}

#[async_trait]
impl Journal for Noted<'_> {
    async fn write(&self, note: &str) -> Result<(), Failure> {
        let (resource, op) = (self.resource, self.op);
        match self.handle.submit(Input::Noted { resource, op, handle: Arc::from(note) }).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::provider("NOT_NOTED", error.to_string())),
        }
    }
}

fn lease_of(effect: &Effect) -> Option<LeaseId> {
    match &effect.work {
        Work::Prepare(lease) | Work::Clean(lease) => Some(lease.id),
        Work::Provision(_) | Work::Check | Work::Probe | Work::Repair | Work::Destroy => None,
    }
}

fn slot_of(effect: &Effect) -> Option<(ResourceId, u32)> {
    match &effect.work {
        Work::Prepare(lease) | Work::Clean(lease) => lease.hold().map(|hold| (hold.resource, hold.slot)),
        Work::Provision(_) | Work::Check | Work::Probe | Work::Repair | Work::Destroy => None,
    }
}

fn resource_job(resource: &Resource, op: u64) -> ResourceJob {
    ResourceJob {
        pool: resource.pool.to_string(),
        resource: resource.id.to_string(),
        op,
        item: resource.item.as_deref().map(String::from),
        handle: resource.handle.as_deref().map(String::from),
        parent: None,
    }
}

fn holder_work(lease: &Lease) -> HolderWork {
    let hold = lease.hold();
    HolderWork {
        lease: lease.id.to_string(),
        slot: hold.map_or(0, |hold| hold.slot),
        token: hold.map_or(0, |hold| hold.token),
        params: facts::texts(&lease.spec.params),
    }
}

fn ended_how(lease: &Lease) -> EndedHow {
    match &lease.state {
        LeaseState::Ended { how, .. } => match how {
            Ended::Released { outcome: Outcome::Ok, .. } | Ended::Cancelled => EndedHow::Ok,
            Ended::Released { outcome: Outcome::Failed, .. } | Ended::Failed { .. } => EndedHow::Failed,
            Ended::Released { outcome: Outcome::Tainted, .. } => EndedHow::Tainted,
            Ended::Expired => EndedHow::Expired,
            Ended::Broken { .. } => EndedHow::Broken,
        },
        LeaseState::Queued | LeaseState::Preparing { .. } | LeaseState::Active { .. } => EndedHow::Broken,
    }
}

/// The verdict of a host that could not be asked at all.
pub(crate) fn unreachable(failure: &Failure) -> Verdict {
    Verdict::Unreachable { reason: failure.reason, detail: failure.message.clone() }
}
