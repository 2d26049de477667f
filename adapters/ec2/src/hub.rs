//! One account and region, as all pools of this broker share it: the calls and their rate, what instances there are, whose
//! they are, and how it went.

use crate::buckets::{Buckets, Kind};
use crate::cloud::{Cloud, Instance, LISTED_AFTER_MS, TemplateSpec, Which};
use crate::config::Config;
use crate::error::{Class, CloudError};
use crate::note::{Host, Note};
use crate::weather::{Report, Weather};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use wharfinger_adapter::{Failure, Notice, NoticeKind, NoticeTarget};

/// What the broker knows, asked whenever it matters: nothing of it is kept here.
#[async_trait]
pub trait Broker: Send + Sync {
    /// All resources that are not gone.
    ///
    /// # Errors
    /// The broker recovers, or stops.
    async fn rows(&self) -> Result<Vec<Row>, Failure>;

    /// Returns when what the notice changed is durable.
    ///
    /// # Errors
    /// The broker recovers, or stops: it must be told again.
    async fn tell(&self, notice: Notice) -> Result<(), Failure>;
}

/// One resource as the broker knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its pool.
    pub pool: String,
    /// Its id.
    pub resource: String,
    /// What was written down of it.
    pub handle: Option<String>,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a resource stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Being made.
    Making,
    /// There.
    Serving,
    /// Being removed, or a debt.
    Leaving,
}

/// Whose an instance is.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) pool: String,
    pub(crate) resource: String,
    pub(crate) host: Host,
}

/// Times of the loops. Those of the pool that came last count.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) reconcile: Duration,
    pub(crate) status: Duration,
    pub(crate) boot_poll: Duration,
    pub(crate) cool: Duration,
    pub(crate) launch: Duration,
    pub(crate) orphans_dry_run: bool,
    pub(crate) orphans_share: u32,
}

impl Settings {
    fn of(config: &Config) -> Self {
        let ms = Duration::from_millis;
        Self {
            reconcile: ms(config.reconcile_ms),
            status: ms(config.status_ms),
            boot_poll: ms(config.boot_poll_ms),
            cool: ms(config.cool_ms),
            launch: ms(config.launch_timeout_ms),
            orphans_dry_run: config.orphans_dry_run,
            orphans_share: config.orphans_share,
        }
    }
}

/// What the loops have seen, since the broker's start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages of instances that are none of ours.
    pub foreign: AtomicU64,
    /// Messages that could not be read.
    pub poison: AtomicU64,
    /// Messages that said nothing of interest.
    pub ignored: AtomicU64,
    /// Notices told to the broker.
    pub told: AtomicU64,
    /// Lists that failed.
    pub failed_sweeps: AtomicU64,
    /// Lists that came whole.
    pub sweeps: AtomicU64,
    /// Instances in nobody's books that were terminated.
    pub orphans: AtomicU64,
}

/// See the module.
pub struct Hub {
    pub(crate) cloud: Arc<dyn Cloud>,
    region: String,
    pub(crate) deployment: String,
    pub(crate) queue: Option<String>,
    pub(crate) buckets: Buckets,
    /// Time at which this process began to use the account, milliseconds since the epoch.
    pub(crate) began_ms: i64,
    /// What the loops have seen.
    pub counters: Counters,
    broker: OnceLock<Arc<dyn Broker>>,
    settings: Mutex<Settings>,
    weather: Mutex<Weather>,
    known: Mutex<Known>,
    /// Templates that were found to be there. Held while one is made, so that a hundred launches make one.
    templates: tokio::sync::Mutex<BTreeSet<String>>,
    wanted: Mutex<BTreeMap<String, usize>>,
    polls: watch::Sender<u64>,
    launching: AtomicUsize,
    /// When the broker's rows were last read, and whether one of them was about to launch then.
    learned: Mutex<(Option<Instant>, bool)>,
}

/// The queue has messages of strangers, and each asks the books.
const LEARNED_FOR: Duration = Duration::from_secs(1);

/// What is known of instances.
#[derive(Default)]
struct Known {
    instances: BTreeMap<String, Instance>,
    owners: BTreeMap<String, Owner>,
    vanished: BTreeSet<String>,
    /// Those that the weather knows, with the time of their launch.
    launched: BTreeMap<String, i64>,
    /// Those of which it knows that spot has taken them away.
    interrupted: BTreeSet<String>,
    /// Hosts of ours that an Auto Scaling group waits to end, also when they are gone already.
    hooked: BTreeSet<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since the epoch, by a clock that tests can stop.
#[cfg(test)]
pub(crate) fn now_ms() -> i64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = *BEGAN.get_or_init(Instant::now);
    1_800_000_000_000 + i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
}

/// Milliseconds since the epoch.
#[cfg(not(test))]
pub(crate) fn now_ms() -> i64 {
    wharfinger_adapter::clock::wall_ms()
}

impl Hub {
    pub(crate) fn new(cloud: Arc<dyn Cloud>, config: &Config) -> Self {
        Self {
            cloud,
            region: config.region.clone(),
            deployment: config.deployment.clone(),
            queue: config.queue.clone(),
            buckets: Buckets::new(),
            began_ms: now_ms(),
            counters: Counters::default(),
            broker: OnceLock::new(),
            settings: Mutex::new(Settings::of(config)),
            weather: Mutex::default(),
            known: Mutex::default(),
            templates: tokio::sync::Mutex::default(),
            wanted: Mutex::default(),
            polls: watch::Sender::new(0),
            launching: AtomicUsize::new(0),
            learned: Mutex::default(),
        }
    }

    /// Its AWS region.
    pub fn region(&self) -> &str {
        &self.region
    }

    pub(crate) fn joined(&self, config: &Config) {
        *lock(&self.settings) = Settings::of(config);
    }

    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Whom to ask and to tell. The first one stays; true: this is it.
    pub(crate) fn attend(&self, broker: Arc<dyn Broker>) -> bool {
        self.broker.set(broker).is_ok()
    }

    pub(crate) fn broker(&self) -> Option<&Arc<dyn Broker>> {
        self.broker.get()
    }

    /// Makes one call within the rate of its kind.
    pub(crate) async fn call<T>(
        &self,
        kind: Kind,
        call: impl Future<Output = Result<T, CloudError>>,
    ) -> Result<T, CloudError> {
        self.turn(kind).await;
        self.answered(kind, call.await)
    }

    /// Waits until the rate of this kind admits one more call.
    pub(crate) async fn turn(&self, kind: Kind) {
        self.buckets.take(kind).await;
    }

    /// Adapts the rate of this kind to the answer of one call.
    pub(crate) fn answered<T>(&self, kind: Kind, answer: Result<T, CloudError>) -> Result<T, CloudError> {
        match &answer {
            Ok(_) => self.buckets.went_well(kind),
            Err(error) if error.class == Class::Throttle => {
                let pause = self.buckets.throttled(kind);
                tracing::warn!(?kind, code = error.code, ?pause, "AWS says that it is asked too often");
            }
            Err(_) => {}
        }
        answer
    }

    /// Makes the template if nobody has, in this process.
    pub(crate) async fn with_template(&self, spec: &TemplateSpec) -> Result<(), CloudError> {
        let mut templates = self.templates.lock().await;
        if !templates.contains(&spec.name) {
            self.call(Kind::Launch, self.cloud.create_template(spec)).await?;
            templates.insert(spec.name.clone());
        }
        Ok(())
    }

    /// It may be gone.
    pub(crate) fn without_template(&self, name: &str) {
        if let Ok(mut templates) = self.templates.try_lock() {
            templates.remove(name);
        }
    }

    /// Whether a launch of this process uses it.
    pub(crate) async fn uses_template(&self, name: &str) -> bool {
        self.templates.lock().await.contains(name)
    }

    /// All pages.
    pub(crate) async fn all_instances(&self, which: &Which) -> Result<Vec<Instance>, CloudError> {
        let mut all = Vec::new();
        let mut page = None;
        loop {
            let found = self.call(Kind::Read, self.cloud.instances(which, page)).await?;
            all.extend(found.items);
            page = found.next;
            if page.is_none() {
                return Ok(all);
            }
        }
    }

    pub(crate) fn with_weather<T>(&self, with: impl FnOnce(&mut Weather) -> T) -> T {
        with(&mut lock(&self.weather))
    }

    /// How it went with each type in each zone.
    pub fn weather(&self) -> Vec<Report> {
        lock(&self.weather).report()
    }

    /// This instance is this resource's.
    pub(crate) fn owned(&self, pool: &str, resource: &str, host: &Host) {
        let mut known = lock(&self.known);
        known.owners.entry(host.instance.clone()).or_insert_with(|| Owner {
            pool: pool.to_string(),
            resource: resource.to_string(),
            host: host.clone(),
        });
    }

    pub(crate) fn owner(&self, instance: &str) -> Option<Owner> {
        lock(&self.known).owners.get(instance).cloned()
    }

    /// Spot takes it away. True: that is news.
    pub(crate) fn interrupted(&self, instance: &str) -> bool {
        let mut known = lock(&self.known);
        let Some(host) = known.owners.get(instance).map(|owner| owner.host.clone()) else { return false };
        if !known.interrupted.insert(instance.to_string()) {
            return false;
        }
        drop(known);
        if host.spot {
            let lived = u64::try_from(now_ms() - host.launched_ms).ok();
            let cool = self.settings().cool;
            self.with_weather(|weather| weather.interrupted(&host.instance_type, &host.zone, lived, cool));
        }
        true
    }

    /// An Auto Scaling group waits for leave to end it.
    pub(crate) fn hooked(&self, instance: &str, waits: bool) {
        let mut known = lock(&self.known);
        if waits {
            known.hooked.insert(instance.to_string());
        } else {
            known.hooked.remove(instance);
        }
    }

    pub(crate) fn is_hooked(&self, instance: &str) -> bool {
        lock(&self.known).hooked.contains(instance)
    }

    /// The weather counts it once, from the launch or from a list.
    pub(crate) fn launched(&self, host: &Host) {
        let news = lock(&self.known).launched.insert(host.instance.clone(), host.launched_ms).is_none();
        if news {
            self.with_weather(|weather| weather.launched(&host.instance_type, &host.zone, host.spot));
        }
    }

    /// What a list tells the weather: after a restart it is how it knows of what was before.
    pub(crate) fn count(&self, instance: &Instance) {
        let Instance { id, instance_type, zone, spot, launched_unix_ms, .. } = instance;
        let taken = *spot && instance.reason.as_deref() == Some("Server.SpotInstanceTermination");
        let mut known = lock(&self.known);
        let launched = known.launched.insert(id.clone(), *launched_unix_ms).is_none();
        let interrupted = taken && known.interrupted.insert(id.clone());
        drop(known);
        if launched {
            self.with_weather(|weather| weather.launched(instance_type, zone, *spot));
        }
        if interrupted {
            let since = instance.since_unix_ms;
            let lived = since.and_then(|since| u64::try_from(since - launched_unix_ms).ok());
            let rested = since.and_then(|since| u64::try_from(now_ms() - since).ok()).map(Duration::from_millis);
            let rest = rested.map_or(Duration::ZERO, |rested| self.settings().cool.saturating_sub(rested));
            self.with_weather(|weather| weather.interrupted(instance_type, zone, lived, rest));
        }
    }

    pub(crate) fn forget(&self, instance: &str) {
        let mut known = lock(&self.known);
        known.owners.remove(instance);
        known.vanished.remove(instance);
        known.instances.remove(instance);
    }

    pub(crate) fn saw(&self, instance: Instance) {
        let mut known = lock(&self.known);
        known.vanished.remove(&instance.id);
        let last = known.instances.get(&instance.id).map(|before| before.state);
        // An older word that comes late does not bring it back.
        if last.is_some_and(|last| last.is_ended()) && !instance.state.is_ended() {
            return;
        }
        known.instances.insert(instance.id.clone(), instance);
    }

    pub(crate) fn instance(&self, id: &str) -> Option<Instance> {
        lock(&self.known).instances.get(id).cloned()
    }

    /// It is in no list any more, and asked for by its id it is not there.
    pub(crate) fn vanishes(&self, id: &str) {
        let mut known = lock(&self.known);
        known.instances.remove(id);
        known.vanished.insert(id.to_string());
    }

    pub(crate) fn is_vanished(&self, id: &str) -> bool {
        lock(&self.known).vanished.contains(id)
    }

    /// What is no more is not remembered: only these instances are.
    pub(crate) fn keep_only(&self, ids: &BTreeSet<String>) {
        let mut known = lock(&self.known);
        known.instances.retain(|id, _| ids.contains(id));
        // One that was launched after the list is in neither.
        let young = now_ms() - LISTED_AFTER_MS;
        known.owners.retain(|id, owner| ids.contains(id) || owner.host.launched_ms > young);
        known.vanished.retain(|id| ids.contains(id));
        known.launched.retain(|id, at| ids.contains(id) || *at > young);
        let launched = std::mem::take(&mut known.launched);
        known.interrupted.retain(|id| launched.contains_key(id));
        known.launched = launched;
    }

    /// While this lives, a launch is under way whose instance may be spoken of before we know it.
    pub(crate) fn launching(&self) -> Launching<'_> {
        self.launching.fetch_add(1, Ordering::AcqRel);
        Launching(self)
    }

    pub(crate) fn is_launching(&self) -> bool {
        self.launching.load(Ordering::Acquire) > 0 || lock(&self.learned).1
    }

    /// Reads the broker's rows, unless that was done a moment ago.
    pub(crate) async fn learn(&self) -> Result<(), Failure> {
        if lock(&self.learned).0.is_some_and(|at| at.elapsed() < LEARNED_FOR) {
            return Ok(());
        }
        self.rows().await.map(drop)
    }

    /// The next look at this instance: all that are waited for are asked for in one call. `None`: it is not there (yet).
    pub(crate) async fn look(&self, id: &str) -> Option<Instance> {
        let _wanted = Wanted::new(self, id);
        let mut polls = self.polls.subscribe();
        // The one under way may have begun before we came.
        for _ in 0..2 {
            if polls.changed().await.is_err() {
                return None;
            }
        }
        self.instance(id)
    }

    /// Asks for all that are waited for. False: there are none.
    pub(crate) async fn poll_wanted(&self) -> bool {
        let ids: Vec<String> = lock(&self.wanted).keys().cloned().collect();
        if ids.is_empty() {
            return false;
        }
        for some in ids.chunks(200) {
            match self.all_instances(&Which::Ids(some.to_vec())).await {
                Ok(found) => found.into_iter().for_each(|instance| self.saw(instance)),
                Err(error) => tracing::debug!("instances that boot can not be looked at: {error}"),
            }
        }
        self.polls.send_modify(|count| *count += 1);
        true
    }

    /// Tells the broker of the resource behind this instance. False: it is nobody's.
    pub(crate) async fn tell(
        &self,
        instance: &str,
        kind: NoticeKind,
        source: &'static str,
        detail: String,
    ) -> Result<bool, Failure> {
        let (Some(owner), Some(broker)) = (self.owner(instance), self.broker()) else { return Ok(false) };
        let target = NoticeTarget::Resource(owner.resource);
        broker.tell(Notice { pool: owner.pool, target, kind, source, detail }).await?;
        self.counters.told.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// The broker's rows that are about instances, with their notes; owners are learned from them.
    pub(crate) async fn rows(&self) -> Result<Vec<(Row, Note)>, Failure> {
        let Some(broker) = self.broker() else { return Ok(Vec::new()) };
        let rows = broker.rows().await?;
        let noted: Vec<(Row, Note)> = rows
            .into_iter()
            .filter_map(|row| {
                let note = Note::read(row.handle.as_deref()).ok().flatten()?;
                Some((row, note))
            })
            .collect();
        let launching = noted.iter().any(|(_, note)| matches!(note, Note::Launching { .. }));
        *lock(&self.learned) = (Some(Instant::now()), launching);
        for (row, note) in &noted {
            if let Some(host) = note.host() {
                self.owned(&row.pool, &row.resource, host);
            }
        }
        Ok(noted)
    }
}

/// See [`Hub::launching`].
pub(crate) struct Launching<'a>(&'a Hub);

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        self.0.launching.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Someone waits for a look at this instance.
struct Wanted<'a> {
    hub: &'a Hub,
    id: String,
}

impl<'a> Wanted<'a> {
    fn new(hub: &'a Hub, id: &str) -> Self {
        *lock(&hub.wanted).entry(id.to_string()).or_default() += 1;
        Self { hub, id: id.to_string() }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut wanted = lock(&self.hub.wanted);
        if let Some(count) = wanted.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(&self.id);
            }
        }
    }
}
