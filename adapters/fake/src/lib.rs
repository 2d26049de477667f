//! An adapter in memory with scripted faults: the executable specification of the contract, for tests and benchmarks.
//!
//! It has resources in memory, each with a verdict. A test sets verdicts ([`Fake::set_truth`]), scripts failures
//! ([`Fake::fail_next`]), delays calls ([`Fake::hold`]) and reads the calls ([`Fake::calls`]).

mod shell;

use async_trait::async_trait;
use shell::FakeShell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use wharfinger_adapter::{
    Adapter, CleanJob, Failure, Journal, Notice, NoticeKind, NoticeSink, NoticeTarget, PrepareJob, Prepared,
    ProvisionJob, Provisioned, ResourceJob, Shell, Traits, Verdict, access,
};

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// A call of [`Adapter::provision`].
    Provision,
    /// A call of [`Adapter::prepare`].
    Prepare,
    /// A call of [`Adapter::clean`].
    Clean,
    /// A call of [`Adapter::check`].
    Check,
    /// A call of [`Adapter::probe`].
    Probe,
    /// A call of [`Adapter::repair`].
    Repair,
    /// A call of [`Adapter::destroy`].
    Destroy,
}

/// A call that the adapter got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The kind of the call.
    pub call: Call,
    /// Id of the resource.
    pub resource: String,
    /// Number of the operation.
    pub op: u64,
    /// Id of the lease, if the call is for one.
    pub lease: Option<String>,
}

#[derive(Default)]
struct World {
    truth: BTreeMap<String, Verdict>,
    items: BTreeMap<String, Verdict>,
    alive: BTreeSet<String>,
    failures: BTreeMap<Call, VecDeque<Failure>>,
    held: BTreeSet<Call>,
    calls: Vec<Made>,
    boots: bool,
    note: Option<String>,
    lingers: Duration,
    open: BTreeMap<(String, Call), usize>,
    overlaps: Vec<(Call, Call)>,
    sink: Option<NoticeSink>,
}

/// The adapter, with the methods that control it. Clones share their state.
#[derive(Clone)]
pub struct Fake {
    pool: String,
    traits: Traits,
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
}

impl Fake {
    /// Returns the adapter of a pool, without a resource.
    pub fn new(pool: impl Into<String>, traits: Traits) -> Self {
        Self { pool: pool.into(), traits, world: Arc::default(), changed: Arc::default() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the verdict of checks and probes of a resource.
    pub fn set_truth(&self, resource: &str, verdict: Verdict) {
        self.world().truth.insert(resource.to_string(), verdict);
    }

    /// Sets the verdict of the machine of an inventory entry. It precedes those of the entry's resources.
    pub fn set_item_truth(&self, item: &str, verdict: Verdict) {
        self.world().items.insert(item.to_string(), verdict);
    }

    /// Adds a failure for the next call of this kind. Several failures are for several calls.
    pub fn fail_next(&self, call: Call, failure: Failure) {
        self.world().failures.entry(call).or_default().push_back(failure);
    }

    /// Delays calls of this kind until [`Fake::let_go`].
    pub fn hold(&self, call: Call) {
        self.world().held.insert(call);
    }

    /// Makes later calls of [`Adapter::provision`] wait for a boot, see [`Adapter::provision_waits`].
    pub fn boots(&self) {
        self.world().boots = true;
    }

    /// Makes later calls of [`Adapter::provision`] store this record first.
    pub fn notes(&self, text: &str) {
        self.world().note = Some(text.to_string());
    }

    /// From now on a call that is aborted takes this long to end. It blocks a thread of the runtime meanwhile.
    pub fn lingers(&self, time: Duration) {
        self.world().lingers = time;
    }

    /// The pairs of calls that were under way on one resource at the same time: the earlier one, and the one that began beside it.
    pub fn overlaps(&self) -> Vec<(Call, Call)> {
        self.world().overlaps.clone()
    }

    /// Continues the delayed calls of this kind.
    pub fn let_go(&self, call: Call) {
        self.world().held.remove(&call);
        self.changed.notify_waiters();
    }

    /// Returns all calls, in order.
    pub fn calls(&self) -> Vec<Made> {
        self.world().calls.clone()
    }

    /// Returns the number of calls of this kind.
    pub fn count(&self, call: Call) -> usize {
        self.world().calls.iter().filter(|made| made.call == call).count()
    }

    /// Returns the ids of the resources that were made and not destroyed.
    pub fn alive(&self) -> BTreeSet<String> {
        self.world().alive.clone()
    }

    /// Waits until the calls fulfil `condition`.
    pub async fn wait_for(&self, condition: impl Fn(&[Made]) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(&self.world().calls) {
                return;
            }
            changed.await;
        }
    }

    /// Sends a notice to the broker. False: the adapter has no subscriber.
    pub async fn notice(&self, target: NoticeTarget, kind: NoticeKind, detail: &str) -> bool {
        let sink = self.world().sink.clone();
        let notice = Notice { pool: self.pool.clone(), target, kind, source: "fake", detail: detail.to_string() };
        match sink {
            Some(sink) => sink.send(notice).await.is_ok(),
            None => false,
        }
    }

    async fn enter(&self, call: Call, job: &ResourceJob, lease: Option<&str>) -> Result<(), Failure> {
        {
            let mut world = self.world();
            world.calls.push(Made { call, resource: job.resource.clone(), op: job.op, lease: lease.map(String::from) });
            let beside: Vec<Call> =
                world.open.keys().filter(|(resource, _)| *resource == job.resource).map(|(_, other)| *other).collect();
            world.overlaps.extend(beside.into_iter().map(|other| (other, call)));
            *world.open.entry((job.resource.clone(), call)).or_default() += 1;
        }
        let mut open = Open { fake: self, resource: &job.resource, call, aborted: true };
        self.changed.notify_waiters();
        loop {
            let changed = self.changed.notified();
            if !self.world().held.contains(&call) {
                break;
            }
            changed.await;
        }
        open.aborted = false;
        match self.world().failures.get_mut(&call).and_then(VecDeque::pop_front) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn made(&self, job: &ProvisionJob) -> Result<Provisioned, Failure> {
        if let Some(Verdict::Unreachable { detail, .. } | Verdict::Gone { detail, .. }) =
            job.resource.item.as_ref().and_then(|item| self.world().items.get(item).cloned())
        {
            return Err(Failure::resource("UNREACHABLE", detail));
        }
        self.world().alive.insert(job.resource.resource.clone());
        let mut access = wharfinger_adapter::Access::new();
        access.insert(access::TRANSPORT.into(), "fake".into());
        access.insert(access::PATH.into(), format!("/fake/{}", job.resource.resource));
        Ok(Provisioned { handle: job.resource.resource.clone(), access, labels: BTreeMap::new() })
    }

    fn verdict(&self, job: &ResourceJob) -> Verdict {
        let world = self.world();
        if let Some(verdict) = job.item.as_ref().and_then(|item| world.items.get(item)) {
            return verdict.clone();
        }
        match world.truth.get(&job.resource) {
            Some(verdict) => verdict.clone(),
            None if world.alive.contains(&job.resource) => Verdict::Healthy,
            None => Verdict::Gone { reason: "NEVER_MADE", detail: "no such resource in this world".into() },
        }
    }
}

/// A call under way.
struct Open<'a> {
    fake: &'a Fake,
    resource: &'a str,
    call: Call,
    aborted: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let time = self.fake.world().lingers;
        if self.aborted && !time.is_zero() {
            std::thread::sleep(time);
        }
        let mut world = self.fake.world();
        let key = (self.resource.to_string(), self.call);
        if let Some(count) = world.open.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                world.open.remove(&key);
            }
        }
    }
}

#[async_trait]
impl Adapter for Fake {
    fn traits(&self) -> Traits {
        self.traits
    }

    fn provision_waits(&self) -> bool {
        self.world().boots
    }

    async fn provision_noted(&self, job: &ProvisionJob, journal: &dyn Journal) -> Result<Provisioned, Failure> {
        self.enter(Call::Provision, &job.resource, None).await?;
        let note = self.world().note.clone();
        if let Some(note) = note {
            journal.write(&note).await?;
        }
        self.made(job)
    }

    async fn provision(&self, job: &ProvisionJob) -> Result<Provisioned, Failure> {
        self.enter(Call::Provision, &job.resource, None).await?;
        self.made(job)
    }

    async fn prepare(&self, job: &PrepareJob) -> Result<Prepared, Failure> {
        self.enter(Call::Prepare, &job.resource, Some(&job.work.lease)).await?;
        Ok(Prepared::default())
    }

    async fn clean(&self, job: &CleanJob) -> Result<(), Failure> {
        self.enter(Call::Clean, &job.resource, Some(&job.work.lease)).await
    }

    async fn check(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        self.enter(Call::Check, job, None).await?;
        Ok(self.verdict(job))
    }

    async fn probe(&self, job: &ResourceJob) -> Result<Verdict, Failure> {
        self.enter(Call::Probe, job, None).await?;
        Ok(self.verdict(job))
    }

    async fn repair(&self, job: &ResourceJob) -> Result<(), Failure> {
        self.enter(Call::Repair, job, None).await?;
        self.world().truth.remove(&job.resource);
        Ok(())
    }

    async fn destroy(&self, job: &ResourceJob) -> Result<(), Failure> {
        self.enter(Call::Destroy, job, None).await?;
        self.world().alive.remove(&job.resource);
        Ok(())
    }

    async fn shell(&self, _job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure> {
        Ok(Arc::new(FakeShell))
    }

    fn subscribe(&self, sink: NoticeSink) {
        self.world().sink = Some(sink);
    }
}
