//! A scriptable in-memory adapter: the executable specification of the contract, for tests and benchmarks.
//!
//! It keeps a small world of resources and their truth. A test changes the truth ([`Fake::set_truth`]), scripts
//! failures ([`Fake::fail_next`]), holds calls back ([`Fake::hold`]) and reads what was called ([`Fake::calls`]).

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

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`Adapter::provision`].
    Provision,
    /// [`Adapter::prepare`].
    Prepare,
    /// [`Adapter::clean`].
    Clean,
    /// [`Adapter::check`].
    Check,
    /// [`Adapter::probe`].
    Probe,
    /// [`Adapter::repair`].
    Repair,
    /// [`Adapter::destroy`].
    Destroy,
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What.
    pub call: Call,
    /// On which resource.
    pub resource: String,
    /// With which operation number.
    pub op: u64,
    /// For which lease.
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

/// The adapter and its remote control. Clones share one world.
#[derive(Clone)]
pub struct Fake {
    pool: String,
    traits: Traits,
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
}

impl Fake {
    /// A world of its own for one pool.
    pub fn new(pool: impl Into<String>, traits: Traits) -> Self {
        Self { pool: pool.into(), traits, world: Arc::default(), changed: Arc::default() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What checks and probes of this resource will say from now on.
    pub fn set_truth(&self, resource: &str, verdict: Verdict) {
        self.world().truth.insert(resource.to_string(), verdict);
    }

    /// What is true of the machine behind an inventory entry, whichever resource stands for it.
    pub fn set_item_truth(&self, item: &str, verdict: Verdict) {
        self.world().items.insert(item.to_string(), verdict);
    }

    /// The next calls of this kind fail, one failure each, in order.
    pub fn fail_next(&self, call: Call, failure: Failure) {
        self.world().failures.entry(call).or_default().push_back(failure);
    }

    /// Calls of this kind wait until [`Fake::let_go`].
    pub fn hold(&self, call: Call) {
        self.world().held.insert(call);
    }

    /// From now on making a resource waits for a machine that boots, see [`Adapter::provision_waits`].
    pub fn boots(&self) {
        self.world().boots = true;
    }

    /// From now on each resource is made only after this note is durable.
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

    /// Lets calls of this kind go on.
    pub fn let_go(&self, call: Call) {
        self.world().held.remove(&call);
        self.changed.notify_waiters();
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Made> {
        self.world().calls.clone()
    }

    /// How many calls of this kind were made.
    pub fn count(&self, call: Call) -> usize {
        self.world().calls.iter().filter(|made| made.call == call).count()
    }

    /// Resources that were made and not destroyed.
    pub fn alive(&self) -> BTreeSet<String> {
        self.world().alive.clone()
    }

    /// Waits until `condition` holds of the calls so far.
    pub async fn wait_for(&self, condition: impl Fn(&[Made]) -> bool) {
        loop {
            let changed = self.changed.notified();
            if condition(&self.world().calls) {
                return;
            }
            changed.await;
        }
    }

    /// Says something unasked, as the world would. False: nobody listens.
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
