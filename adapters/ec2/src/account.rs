//! One account and region, which the pools of this broker share: its calls and their rate, its instances and their owners, and the
//! statistics of its markets.

use crate::broker::{Broker, Row};
use crate::clock::now_ms;
use crate::cloud::{Cloud, Instance, LISTED_AFTER_MS, TemplateSpec, Which};
use crate::config::Config;
use crate::error::{Class, CloudError};
use crate::market_stats::{MarketReport, MarketStats};
use crate::rate_limit::{Kind, RateLimits};
use crate::record::{Host, Record};
use crate::state_reason::StateReason;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use wharfinger_adapter::{Failure, Notice, NoticeKind, NoticeTarget};

/// Owner of an instance.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) pool: String,
    pub(crate) resource: String,
    pub(crate) host: Host,
}

/// Settings of the loops. The pool that joined last sets them.
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

/// Counters of the loops since the start of the broker.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages about instances of others.
    pub foreign: AtomicU64,
    /// Events that could not be parsed.
    pub poison: AtomicU64,
    /// Events without a fact about an instance.
    pub ignored: AtomicU64,
    /// Notices delivered to the broker.
    pub delivered: AtomicU64,
    /// Failed lists.
    pub failed_sweeps: AtomicU64,
    /// Complete lists.
    pub sweeps: AtomicU64,
    /// Terminated orphans.
    pub orphans: AtomicU64,
}

/// An account and region. See the module.
pub struct Account {
    pub(crate) cloud: Arc<dyn Cloud>,
    region: String,
    pub(crate) deployment: String,
    pub(crate) queue: Option<String>,
    pub(crate) rates: RateLimits,
    /// Time at which this process began to use the account, milliseconds since the epoch.
    pub(crate) began_ms: i64,
    /// Counters of the loops.
    pub counters: Counters,
    broker: OnceLock<Arc<dyn Broker>>,
    settings: Mutex<Settings>,
    stats: Mutex<MarketStats>,
    known: Mutex<Known>,
    /// Templates that exist. The lock is held while one is created, so that a hundred launches create one.
    templates: tokio::sync::Mutex<BTreeSet<String>>,
    wanted: Mutex<BTreeMap<String, usize>>,
    polls: watch::Sender<u64>,
    launching: AtomicUsize,
    /// Time of the latest read of the broker's rows, and whether one of them had a launch under way.
    learned: Mutex<(Option<Instant>, bool)>,
}

/// Minimum time between two reads of the broker's rows for messages about unknown instances.
const LEARNED_FOR: Duration = Duration::from_secs(1);

/// The instances and their owners.
#[derive(Default)]
struct Known {
    instances: BTreeMap<String, Instance>,
    owners: BTreeMap<String, Owner>,
    vanished: BTreeSet<String>,
    /// Instances that the statistics have counted, with the time of their launch.
    launched: BTreeMap<String, i64>,
    /// Instances whose interruption the statistics have counted.
    interrupted: BTreeSet<String>,
    /// Hosts that an Auto Scaling group waits to end, including those that are gone.
    hooked: BTreeSet<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    pub(crate) fn new(cloud: Arc<dyn Cloud>, config: &Config) -> Self {
        Self {
            cloud,
            region: config.region.clone(),
            deployment: config.deployment.clone(),
            queue: config.queue.clone(),
            rates: RateLimits::new(),
            began_ms: now_ms(),
            counters: Counters::default(),
            broker: OnceLock::new(),
            settings: Mutex::new(Settings::of(config)),
            stats: Mutex::default(),
            known: Mutex::default(),
            templates: tokio::sync::Mutex::default(),
            wanted: Mutex::default(),
            polls: watch::Sender::new(0),
            launching: AtomicUsize::new(0),
            learned: Mutex::default(),
        }
    }

    /// The AWS region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Takes over the settings of a pool that joins.
    pub(crate) fn joined(&self, config: &Config) {
        *lock(&self.settings) = Settings::of(config);
    }

    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Sets the broker. The first one stays. True: this one is the first.
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
        self.rates.take(kind).await;
    }

    /// Adapts the rate of this kind to the answer of one call.
    pub(crate) fn answered<T>(&self, kind: Kind, answer: Result<T, CloudError>) -> Result<T, CloudError> {
        match &answer {
            Ok(_) => self.rates.went_well(kind),
            Err(error) if error.class == Class::Throttle => {
                let pause = self.rates.throttled(kind);
                tracing::warn!(?kind, code = error.code, ?pause, "AWS throttles the calls");
            }
            Err(_) => {}
        }
        answer
    }

    /// Creates the template unless this process has done so.
    pub(crate) async fn with_template(&self, spec: &TemplateSpec) -> Result<(), CloudError> {
        let mut templates = self.templates.lock().await;
        if !templates.contains(&spec.name) {
            self.call(Kind::Launch, self.cloud.create_template(spec)).await?;
            templates.insert(spec.name.clone());
        }
        Ok(())
    }

    /// Forgets a template that may have been removed.
    pub(crate) fn without_template(&self, name: &str) {
        if let Ok(mut templates) = self.templates.try_lock() {
            templates.remove(name);
        }
    }

    /// Whether a launch of this process uses the template.
    pub(crate) async fn uses_template(&self, name: &str) -> bool {
        self.templates.lock().await.contains(name)
    }

    /// Returns the instances of all pages.
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

    pub(crate) fn with_stats<T>(&self, with: impl FnOnce(&mut MarketStats) -> T) -> T {
        with(&mut lock(&self.stats))
    }

    /// The statistics of each type in each zone and market.
    pub fn market_stats(&self) -> Vec<MarketReport> {
        lock(&self.stats).report()
    }

    /// Sets the owner of an instance.
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

    /// Counts an interruption. True: it was not counted before.
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
            self.with_stats(|stats| stats.interrupted(&host.instance_type, &host.zone, lived, cool));
        }
        true
    }

    /// Sets whether an Auto Scaling group waits to end the instance.
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

    /// Counts a launch once, from the launch itself or from a list.
    pub(crate) fn launched(&self, host: &Host) {
        let news = lock(&self.known).launched.insert(host.instance.clone(), host.launched_ms).is_none();
        if news {
            self.with_stats(|stats| stats.launched(&host.instance_type, &host.zone, host.spot));
        }
    }

    /// Counts the launch and the interruption of a listed instance. After a restart the lists are the only source.
    pub(crate) fn count(&self, instance: &Instance) {
        let Instance { id, instance_type, zone, spot, launched_unix_ms, .. } = instance;
        let taken = *spot && instance.reason.as_ref().is_some_and(StateReason::is_interruption);
        let mut known = lock(&self.known);
        let launched = known.launched.insert(id.clone(), *launched_unix_ms).is_none();
        let interrupted = taken && known.interrupted.insert(id.clone());
        drop(known);
        if launched {
            self.with_stats(|stats| stats.launched(instance_type, zone, *spot));
        }
        if interrupted {
            let since = instance.since_unix_ms;
            let lived = since.and_then(|since| u64::try_from(since - launched_unix_ms).ok());
            let rested = since.and_then(|since| u64::try_from(now_ms() - since).ok()).map(Duration::from_millis);
            let rest = rested.map_or(Duration::ZERO, |rested| self.settings().cool.saturating_sub(rested));
            self.with_stats(|stats| stats.interrupted(instance_type, zone, lived, rest));
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
        // A late answer with an older state is ignored.
        if last.is_some_and(|last| last.is_ended()) && !instance.state.is_ended() {
            return;
        }
        known.instances.insert(instance.id.clone(), instance);
    }

    pub(crate) fn instance(&self, id: &str) -> Option<Instance> {
        lock(&self.known).instances.get(id).cloned()
    }

    /// Marks an instance that no list has, and that EC2 does not find by its id.
    pub(crate) fn vanishes(&self, id: &str) {
        let mut known = lock(&self.known);
        known.instances.remove(id);
        known.vanished.insert(id.to_string());
    }

    pub(crate) fn is_vanished(&self, id: &str) -> bool {
        lock(&self.known).vanished.contains(id)
    }

    /// Forgets all instances but these.
    pub(crate) fn keep_only(&self, ids: &BTreeSet<String>) {
        let mut known = lock(&self.known);
        known.instances.retain(|id, _| ids.contains(id));
        // A new instance may be in no list yet.
        let young = now_ms() - LISTED_AFTER_MS;
        known.owners.retain(|id, owner| ids.contains(id) || owner.host.launched_ms > young);
        known.vanished.retain(|id| ids.contains(id));
        known.launched.retain(|id, at| ids.contains(id) || *at > young);
        let launched = std::mem::take(&mut known.launched);
        known.interrupted.retain(|id| launched.contains_key(id));
        known.launched = launched;
    }

    /// Marks a launch as under way until the value is dropped. Messages may name its instance before its id is known.
    pub(crate) fn launching(&self) -> Launching<'_> {
        self.launching.fetch_add(1, Ordering::AcqRel);
        Launching(self)
    }

    pub(crate) fn is_launching(&self) -> bool {
        self.launching.load(Ordering::Acquire) > 0 || lock(&self.learned).1
    }

    /// Reads the broker's rows, at most once in [`LEARNED_FOR`].
    pub(crate) async fn learn(&self) -> Result<(), Failure> {
        if lock(&self.learned).0.is_some_and(|at| at.elapsed() < LEARNED_FOR) {
            return Ok(());
        }
        self.rows().await.map(drop)
    }

    /// Waits for the next state of an instance. One call asks for all instances that are waited for. `None`: EC2 does not list it.
    pub(crate) async fn look(&self, id: &str) -> Option<Instance> {
        let _wanted = Wanted::new(self, id);
        let mut polls = self.polls.subscribe();
        // A call that is under way may have begun before this wait.
        for _ in 0..2 {
            if polls.changed().await.is_err() {
                return None;
            }
        }
        self.instance(id)
    }

    /// Asks for all instances that are waited for. False: there are none.
    pub(crate) async fn poll_wanted(&self) -> bool {
        let ids: Vec<String> = lock(&self.wanted).keys().cloned().collect();
        if ids.is_empty() {
            return false;
        }
        for some in ids.chunks(200) {
            match self.all_instances(&Which::Ids(some.to_vec())).await {
                Ok(found) => found.into_iter().for_each(|instance| self.saw(instance)),
                Err(error) => tracing::debug!("cannot list the booting instances: {error}"),
            }
        }
        self.polls.send_modify(|count| *count += 1);
        true
    }

    /// Delivers a notice about the owner of an instance to the broker. False: the instance has no owner.
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
        self.counters.delivered.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Returns the broker's rows that have a record, and sets the owners that they name.
    pub(crate) async fn rows(&self) -> Result<Vec<(Row, Record)>, Failure> {
        let Some(broker) = self.broker() else { return Ok(Vec::new()) };
        let rows = broker.rows().await?;
        let noted: Vec<(Row, Record)> = rows
            .into_iter()
            .filter_map(|row| {
                let note = Record::read(row.handle.as_deref()).ok().flatten()?;
                Some((row, note))
            })
            .collect();
        let launching = noted.iter().any(|(_, note)| matches!(note, Record::Launching { .. }));
        *lock(&self.learned) = (Some(Instant::now()), launching);
        for (row, note) in &noted {
            if let Some(host) = note.host() {
                self.owned(&row.pool, &row.resource, host);
            }
        }
        Ok(noted)
    }
}

/// A launch that is under way. See [`Account::launching`].
pub(crate) struct Launching<'a>(&'a Account);

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        self.0.launching.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A wait for the next state of an instance.
struct Wanted<'a> {
    account: &'a Account,
    id: String,
}

impl<'a> Wanted<'a> {
    fn new(account: &'a Account, id: &str) -> Self {
        *lock(&account.wanted).entry(id.to_string()).or_default() += 1;
        Self { account, id: id.to_string() }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut wanted = lock(&self.account.wanted);
        if let Some(count) = wanted.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                wanted.remove(&self.id);
            }
        }
    }
}
