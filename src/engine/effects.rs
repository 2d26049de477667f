//! Runs effects: it calls adapters within limits and timeouts, and returns exactly one answer of each call to the engine.

use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::engine::adapter_results;
use crate::engine::handle::{CallId, Handle, SubmitError};
use crate::engine::observe::{CallReport, Observed};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::task::TaskTracker;
use wharfinger_adapter::login::ChildLogins;
use wharfinger_adapter::{
    Adapter, CleanJob, EndedHow, Failure, HolderWork, Journal, ParentHost, PrepareJob, Prepared, ProvisionJob,
    ResourceJob, Verdict,
};
use wharfinger_core::{Effect, Ended, Input, Lease, LeaseId, LeaseState, Op, Outcome, Resource, ResourceId, Work};

/// The adapter of each pool. A reload replaces them pool by pool. An adapter stays while its pool has resources.
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

/// Maximum numbers of concurrent calls of each pool. A pool whose calls hang delays no other pool.
#[derive(Clone, Copy, Debug)]
pub struct EffectLimits {
    /// Calls that prepare, clean, repair or destroy.
    pub work: usize,
    /// Calls that make a resource and do the work themselves, such as a clone.
    pub provisions: usize,
    /// Calls that make a resource and wait for another system, see [`Adapter::provision_waits`].
    pub boots: usize,
    /// Calls that check.
    pub checks: usize,
    /// Calls that probe.
    pub probes: usize,
}

impl Default for EffectLimits {
    fn default() -> Self {
        Self { work: 64, provisions: 64, boots: 4096, checks: 128, probes: 256 }
    }
}

/// Kinds of calls that share permits within a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Work,
    Provision,
    Boot,
    Check,
    Probe,
}

impl Class {
    /// Its permits, in a word.
    fn permit(self) -> &'static str {
        match self {
            Class::Work => "work",
            Class::Provision => "provisions",
            Class::Boot => "boots",
            Class::Check => "checks",
            Class::Probe => "probes",
        }
    }
}

/// A semaphore for each pool and class.
type PoolPermits = BTreeMap<(Arc<str>, Class), Arc<Semaphore>>;

/// The permits of each pool and class.
#[derive(Clone)]
struct Permits {
    limits: EffectLimits,
    given: Arc<Mutex<PoolPermits>>,
}

impl Permits {
    fn of(&self, pool: &Arc<str>, class: Class) -> Arc<Semaphore> {
        let most = match class {
            Class::Work => self.limits.work,
            Class::Provision => self.limits.provisions,
            Class::Boot => self.limits.boots,
            Class::Check => self.limits.checks,
            Class::Probe => self.limits.probes,
        };
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.entry((pool.clone(), class)).or_insert_with(|| Arc::new(Semaphore::new(most))).clone()
    }
}

/// Starts effects.
#[derive(Clone)]
pub(crate) struct Executor {
    adapters: Adapters,
    handle: Handle,
    permits: Permits,
    running: Arc<Mutex<Running>>,
    tasks: TaskTracker,
}

/// The calls under way, and the calls whose answer is not committed yet.
#[derive(Default)]
struct Running {
    calls: BTreeMap<CallId, Call>,
    /// One call for each operation: an operation that is named again while it is under way is not started again.
    by_key: BTreeMap<Key, CallId>,
    by_slot: BTreeMap<(ResourceId, u32), BTreeSet<CallId>>,
    by_resource: BTreeMap<ResourceId, BTreeSet<CallId>>,
    next: u64,
}

/// One operation: its resource, its lease and its number.
type Key = (ResourceId, Option<LeaseId>, u64);

/// A call from its start until its answer is committed.
struct Call {
    key: Key,
    slot: Option<(ResourceId, u32)>,
    class: Class,
    task: Option<Task>,
}

/// The task of a call under way.
#[derive(Clone)]
struct Task {
    abort: AbortHandle,
    /// Closed when the call is over: its future is dropped, and its processes on the host are killed.
    done: Arc<Semaphore>,
}

impl Task {
    async fn ended(&self) {
        let _ = self.done.acquire().await;
    }
}

impl Running {
    fn insert(&mut self, key: Key, slot: Option<(ResourceId, u32)>, class: Class) -> CallId {
        self.next += 1;
        let id = CallId(self.next);
        self.by_key.insert(key, id);
        self.by_resource.entry(key.0).or_default().insert(id);
        if let Some(slot) = slot {
            self.by_slot.entry(slot).or_default().insert(id);
        }
        self.calls.insert(id, Call { key, slot, class, task: None });
        id
    }

    fn remove(&mut self, id: CallId) -> Option<Task> {
        let call = self.calls.remove(&id)?;
        self.by_key.remove(&call.key);
        if let Some(calls) = self.by_resource.get_mut(&call.key.0) {
            calls.remove(&id);
            if calls.is_empty() {
                self.by_resource.remove(&call.key.0);
            }
        }
        if let Some(slot) = call.slot
            && let Some(calls) = self.by_slot.get_mut(&slot)
        {
            calls.remove(&id);
            if calls.is_empty() {
                self.by_slot.remove(&slot);
            }
        }
        call.task
    }

    /// The calls that end before this one starts. A call on a slot ends the other calls on the slot. A repair or a destroy ends all
    /// calls on the resource. A check ends the earlier checks.
    fn to_end_before(&self, effect: &Effect) -> Vec<Task> {
        let resource = effect.resource.id;
        let (calls, all) = match &effect.work {
            Work::Prepare(_) | Work::Clean(_) => (slot_of(effect).and_then(|slot| self.by_slot.get(&slot)), true),
            Work::Destroy | Work::Repair => (self.by_resource.get(&resource), true),
            Work::Check => (self.by_resource.get(&resource), false),
            Work::Provision(_) | Work::Probe => (None, false),
        };
        let calls = calls.into_iter().flatten().filter_map(|id| self.calls.get(id));
        calls.filter(|call| all || call.class == Class::Check).filter_map(|call| call.task.clone()).collect()
    }
}

/// A call that waits for a permit.
struct Waits<'a>(&'a Observed, Class);

impl<'a> Waits<'a> {
    fn new(observed: &'a Observed, class: Class) -> Self {
        observed.report(|observer| observer.call_waits(class.permit(), true));
        Self(observed, class)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.report(|observer| observer.call_waits(self.1.permit(), false));
    }
}

/// A call under way. It is reported when it ends, also by an abort.
struct Reported<'a> {
    observed: &'a Observed,
    effect: &'a Effect,
    class: Class,
    began: Moment,
    result: &'static str,
}

impl<'a> Reported<'a> {
    fn new(observed: &'a Observed, effect: &'a Effect, class: Class) -> Self {
        observed.report(|observer| observer.call_begins(class.permit()));
        Self { observed, effect, class, began: Moment::now(), result: "ended" }
    }
}

impl Drop for Reported<'_> {
    fn drop(&mut self) {
        let work = match self.effect.work {
            Work::Provision(_) => "provision",
            Work::Prepare(_) => "prepare",
            Work::Clean(_) => "clean",
            Work::Check => "check",
            Work::Probe => "probe",
            Work::Repair => "repair",
            Work::Destroy => "destroy",
        };
        let pool = &*self.effect.resource.pool;
        let report =
            CallReport { pool, permit: self.class.permit(), work, result: self.result, took: self.began.past() };
        self.observed.report(|observer| observer.call_ends(&report));
    }
}

impl Executor {
    pub(crate) fn new(adapters: Adapters, handle: Handle, limits: EffectLimits) -> Self {
        let permits = Permits { limits, given: Arc::default() };
        Self { adapters, handle, permits, running: Arc::default(), tasks: TaskTracker::new() }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all calls and waits for their end.
    pub(crate) async fn halt(&self) {
        let all: Vec<CallId> = self.running().calls.keys().copied().collect();
        self.end(&all).await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// After a recovery, which names all calls that it needs: named calls under way go on, and their uncommitted answers still
    /// count. All other calls end before any call starts. Checks and probes start anew, because the core has lost what it learned
    /// since they started.
    pub(crate) async fn keep_only(&self, named: &[Effect]) {
        let named: BTreeSet<Key> = named.iter().map(key_of).collect();
        let others: Vec<CallId> = {
            let running = self.running();
            let question = |class: Class| matches!(class, Class::Check | Class::Probe);
            let others = running.calls.iter().filter(|(_, call)| question(call.class) || !named.contains(&call.key));
            others.map(|(id, _)| *id).collect()
        };
        self.end(&others).await;
    }

    /// Ends these calls. Their answers no longer count.
    async fn end(&self, calls: &[CallId]) {
        let tasks: Vec<Task> = {
            let mut running = self.running();
            calls.iter().filter_map(|id| running.remove(*id)).collect()
        };
        tasks.iter().for_each(|task| task.abort.abort());
        for task in tasks {
            task.ended().await;
        }
    }

    /// Whether the answer of this call counts. It counts once, and not after the call was ended.
    pub(crate) fn counts(&self, call: CallId) -> bool {
        self.running().calls.contains_key(&call)
    }

    /// The answers of these calls are committed.
    pub(crate) fn settle(&self, calls: &[CallId]) {
        let mut running = self.running();
        for call in calls {
            running.remove(*call);
        }
    }

    /// Starts an effect, unless it is under way. Its answer always comes to the engine as an input, also after a panic or timeout.
    pub(crate) fn start(&self, effect: Effect) {
        let key = key_of(&effect);
        let class = self.class_of(&effect);
        let (call, before) = {
            let mut running = self.running();
            if running.by_key.contains_key(&key) {
                return;
            }
            let before = running.to_end_before(&effect);
            (running.insert(key, slot_of(&effect), class), before)
        };
        let this = self.clone();
        let done = Arc::new(Semaphore::new(0));
        let finished = done.clone();
        let for_answer = effect.clone();
        let permits = self.permits.of(&effect.resource.pool, class);
        let job: JoinHandle<Input> = self.tasks.spawn(async move {
            for task in before {
                task.abort.abort();
                task.ended().await;
            }
            let waits = Waits::new(this.handle.observed(), class);
            let _permit = permits.acquire_owned().await;
            drop(waits);
            let mut report = Reported::new(this.handle.observed(), &effect, class);
            let limit = Duration::from_millis(u64::try_from(effect.timeout.0).unwrap_or(0).max(1));
            match tokio::time::timeout(limit, this.run(&effect)).await {
                Ok(input) => {
                    report.result = adapter_results::word(&input);
                    input
                }
                Err(_) => {
                    report.result = "timeout";
                    adapter_results::timed_out(&effect)
                }
            }
        });
        if let Some(call) = self.running().calls.get_mut(&call) {
            call.task = Some(Task { abort: job.abort_handle(), done });
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            let outcome = job.await;
            finished.close();
            let input = match outcome {
                Ok(input) => input,
                // The call was ended for another one; the core drops the answer by its number.
                Err(error) if error.is_cancelled() => adapter_results::cancelled(&for_answer),
                Err(error) => adapter_results::panicked(&for_answer, &error.to_string()),
            };
            let _ = this.handle.fact(input, call).await;
        });
    }

    fn class_of(&self, effect: &Effect) -> Class {
        let waits = || self.adapters.get(&effect.resource.pool).is_some_and(|adapter| adapter.provision_waits());
        match &effect.work {
            Work::Provision(_) if waits() => Class::Boot,
            Work::Provision(_) => Class::Provision,
            Work::Prepare(_) | Work::Clean(_) | Work::Repair | Work::Destroy => Class::Work,
            Work::Check => Class::Check,
            Work::Probe => Class::Probe,
        }
    }

    async fn run(&self, effect: &Effect) -> Input {
        let (adapter, resource) = match self.prepare_call(effect).await {
            Ok(ready) => ready,
            Err(failure) => return adapter_results::not_called(effect, failure),
        };
        match &effect.work {
            Work::Provision(attempt) => {
                let job = ProvisionJob { resource, attempt: *attempt };
                let journal = Noted { handle: &self.handle, resource: effect.resource.id, op: effect.op };
                adapter_results::provisioned(effect, adapter.provision_noted(&job, &journal).await)
            }
            Work::Prepare(lease) => {
                adapter_results::prepared(effect, lease, self.prepare(effect, adapter, resource, lease).await)
            }
            Work::Clean(lease) => {
                let job = CleanJob { resource, work: holder_work(lease), ended: ended_how(lease) };
                adapter_results::cleaned(effect, lease, self.clean(effect, adapter, &job).await)
            }
            Work::Check => adapter_results::checked(effect, adapter.check(&resource).await),
            Work::Probe => {
                adapter.attend(&resource, effect.held);
                let by_new_login = effect.by_new_login;
                let verdict =
                    if by_new_login { adapter.probe_login(&resource).await } else { adapter.probe(&resource).await };
                adapter_results::probed(effect, verdict)
            }
            Work::Repair => adapter_results::repaired(effect, adapter.repair(&resource).await),
            Work::Destroy => adapter_results::destroyed(effect, adapter.destroy(&resource).await),
        }
    }

    /// Prepares a slot. For a child it also prepares the slot on the host, which adds the access that the holder needs there.
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
            // Before the first probe under the lease says so.
            host_adapter.attend(&resource_job(host, effect.op.0), true);
            if host_adapter.traits().prepares {
                let child = Some(effect.resource.id.to_string());
                let job = PrepareJob { resource: resource_job(host, effect.op.0), work: holder_work(lease), child };
                on_host = host_adapter.prepare(&job).await?;
            }
        }
        if effect.host.is_none() {
            adapter.attend(&resource, true);
        }
        let mut prepared = adapter.prepare(&PrepareJob { resource, work: holder_work(lease), child: None }).await?;
        for (key, value) in on_host.access {
            prepared.access.entry(key).or_insert(value);
        }
        if let Some(host) = &effect.host {
            let mut access = adapter_results::texts(&effect.resource.access);
            access.extend(prepared.access.clone());
            let host_job = resource_job(host, effect.op.0);
            self.adapter(host)?.open_logins(&ChildLogins { host: host_job, work: holder_work(lease), access }).await?;
        }
        Ok(prepared)
    }

    /// Cleans a slot. For a child the host first closes the logins of the lease.
    async fn clean(&self, effect: &Effect, adapter: Arc<dyn Adapter>, job: &CleanJob) -> Result<(), Failure> {
        if let Some(host) = &effect.host {
            let access = adapter_results::texts(&effect.resource.access);
            let logins = ChildLogins { host: resource_job(host, effect.op.0), work: job.work.clone(), access };
            self.adapter(host)?.close_logins(&logins).await?;
        }
        adapter.clean(job).await
    }

    /// Finds the adapter and, for a child, a way to run commands on its host.
    async fn prepare_call(&self, effect: &Effect) -> Result<(Arc<dyn Adapter>, ResourceJob), Failure> {
        let adapter = self.adapter(&effect.resource)?;
        let mut job = resource_job(&effect.resource, effect.op.0);
        if let Some(host) = &effect.host {
            let shell = self.adapter(host)?.shell(&resource_job(host, effect.op.0)).await?;
            let lease = effect.resource.parent.as_ref().map(|parent| parent.lease.to_string()).unwrap_or_default();
            let (resource, access) = (host.id.to_string(), adapter_results::texts(&host.access));
            job.parent = Some(ParentHost { resource, lease, access, shell });
        }
        Ok((adapter, job))
    }

    fn adapter(&self, resource: &Resource) -> Result<Arc<dyn Adapter>, Failure> {
        self.adapters.get(&resource.pool).ok_or_else(|| {
            let pool = &resource.pool;
            let message =
                format!("pool {pool} is no longer in the configuration: put it back to reach {}", resource.id);
            Failure::configuration("POOL_REMOVED", message)
        })
    }
}

/// The first and the longest wait before a note that the store did not take is written again.
const NOTE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The journal of one resource that is being made. Its notes are stored in the row of the resource.
struct Noted<'a> {
    handle: &'a Handle,
    resource: ResourceId,
    op: Op,
}

#[async_trait]
impl Journal for Noted<'_> {
    async fn write(&self, note: &str) -> Result<(), Failure> {
        let (resource, op, handle) = (self.resource, self.op, Arc::<str>::from(note));
        let mut backoff = Backoff::new(NOTE_RETRY.0, NOTE_RETRY.1);
        loop {
            match self.handle.submit(Input::Noted { resource, op, handle: handle.clone() }).await {
                Ok(_) => return Ok(()),
                // The store failed and the engine recovers. A repeated note does no harm if it was stored.
                Err(SubmitError::Unavailable(why)) => tokio::select! {
                    biased;
                    () = self.handle.closed() => return Err(Failure::provider("NOT_NOTED", why)),
                    () = tokio::time::sleep(backoff.wait(None)) => {}
                },
                Err(error) => return Err(Failure::provider("NOT_NOTED", error.to_string())),
            }
        }
    }
}

fn key_of(effect: &Effect) -> Key {
    (effect.resource.id, lease_of(effect), effect.op.0)
}

fn lease_of(effect: &Effect) -> Option<LeaseId> {
    match &effect.work {
        Work::Prepare(lease) | Work::Clean(lease) => Some(lease.id),
        Work::Provision(_) | Work::Check | Work::Probe | Work::Repair | Work::Destroy => None,
    }
}

fn slot_of(effect: &Effect) -> Option<(ResourceId, u32)> {
    match &effect.work {
        Work::Prepare(lease) | Work::Clean(lease) => lease.assignment().map(|held| (held.resource, held.slot)),
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
    let assignment = lease.assignment();
    HolderWork {
        lease: lease.id.to_string(),
        slot: assignment.map_or(0, |held| held.slot),
        token: assignment.map_or(0, |held| held.token),
        params: adapter_results::texts(&lease.spec.params),
    }
}

fn ended_how(lease: &Lease) -> EndedHow {
    match &lease.state {
        LeaseState::Ended { how, .. } => match how {
            Ended::Released { outcome: Outcome::Ok, .. } | Ended::Cancelled => EndedHow::Ok,
            Ended::Released { outcome: Outcome::Failed, .. } | Ended::Failed { .. } => EndedHow::Failed,
            Ended::Released { outcome: Outcome::Tainted, .. } => EndedHow::Tainted,
            Ended::Released { outcome: Outcome::Abandoned, .. } => EndedHow::Abandoned,
            Ended::Expired => EndedHow::Expired,
            Ended::Broken { .. } => EndedHow::Broken,
        },
        LeaseState::Queued | LeaseState::Preparing { .. } | LeaseState::Active { .. } => EndedHow::Broken,
    }
}

/// The verdict about a host that was not reached.
pub(crate) fn unreachable(failure: &Failure) -> Verdict {
    Verdict::Unreachable { reason: failure.reason, detail: failure.message.clone() }
}
