//! The loop of a follower: it reads the commits of the leader, answers reads and watches, and decides nothing.
//!
//! Each answer is a committed state. A hint of the store brings a commit within milliseconds; the follower also polls without a
//! hint. If the store has been unreachable for longer than `max_age`, reads are refused instead of served stale.

use crate::backoff::Backoff;
use crate::clock::{Clock, Moment};
use crate::engine::WatchHub;
use crate::engine::change_feed::changes_after;
use crate::engine::handle::{Handle, Message, Refreshed, SubmitError};
use crate::engine::leadership::Leadership;
use crate::engine::run::watch_clock;
use crate::store::{Store, StoreError};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharfinger_core::{Configuration, Core, Limits, Revision};

/// Maximum number of messages that are answered between two checks of other work.
const BATCH: usize = 512;
/// Maximum number of waiting messages. Beyond it, senders wait.
pub(super) const MAILBOX: usize = 4096;
/// Maximum time between two reads of the store, with or without a hint.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Minimum time between two reads of the store. Commits that come meanwhile are read together.
const MIN_POLL_GAP: Duration = Duration::from_millis(5);
/// The first and the longest wait after a read that failed.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// The configuration of a follower.
pub struct FollowConfig {
    /// The store to which the leader commits.
    pub store: Arc<dyn Store>,
    /// Pools and tenants of this server.
    pub configuration: Configuration,
    /// Limits of the deployment.
    pub limits: Limits,
    /// Maximum staleness of an answer.
    pub max_age: Duration,
}

/// A server that follows.
pub struct Follower {
    /// Submits reads. The same handle stays in use after a take-over.
    pub handle: Handle,
    configured: watch::Sender<Configuration>,
    begin: CancellationToken,
    pub(super) end: CancellationToken,
    task: JoinHandle<Remains>,
}

/// The state that the loop of a follower leaves to the engine of a leader.
pub(super) struct Remains {
    pub(super) inputs: mpsc::Receiver<Message>,
    pub(super) core: Option<Core>,
    /// Tasks that go on until the last loop ends.
    pub(super) helpers: JoinSet<()>,
}

/// Starts a follower. It reads the store after [`Follower::begin`].
pub fn follow(config: FollowConfig) -> Follower {
    let FollowConfig { store, configuration, limits, max_age } = config;
    let leadership = Leadership::following(max_age);
    let hub = WatchHub::new(Revision(0));
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    let handle = Handle::of(mailbox, hub.clone(), store.clone(), leadership.clone());
    let clock = handle.clock().clone();
    let (configures, configured) = watch::channel(configuration);
    let (begin, end) = (CancellationToken::new(), CancellationToken::new());
    let following = Following {
        store,
        limits,
        clock,
        configured,
        hub,
        leadership,
        inputs,
        core: None,
        work: None,
        loading: false,
        hints: None,
        asked: Vec::new(),
        asked_now: Vec::new(),
        next: Instant::now(),
        soonest: Instant::now(),
        said: String::new(),
        backoff: Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1),
    };
    let mut helpers = JoinSet::new();
    helpers.spawn(watch_clock(handle.clone()));
    let task = tokio::spawn(following.run(helpers, begin.clone(), end.clone()));
    Follower { handle, configured: configures, begin, end, task }
}

impl Follower {
    /// Starts to read: the store is open.
    pub fn begin(&self) {
        self.begin.cancel();
    }

    /// Applies a new configuration.
    pub fn configure(&self, configuration: impl Into<Configuration>) {
        self.configured.send_replace(configuration.into());
    }

    /// Waits until the loop ends by itself, because the store has lost commits or is another one.
    pub async fn failed(&mut self) {
        let _ = (&mut self.task).await;
    }

    /// Stops the follower.
    pub async fn stop(self) {
        self.end.cancel();
        let _ = self.task.await;
    }

    pub(super) async fn remains(self) -> Result<Remains, StoreError> {
        self.end.cancel();
        self.task.await.map_err(|error| StoreError::Unavailable(format!("the loop that followed has ended: {error}")))
    }
}

/// The result of a read of the store.
enum Fetched {
    All(Box<Core>),
    Changes(Box<wharfinger_core::Batch>),
    Failed(StoreError),
}

struct Following {
    store: Arc<dyn Store>,
    limits: Limits,
    clock: Clock,
    configured: watch::Receiver<Configuration>,
    hub: WatchHub,
    leadership: Leadership,
    inputs: mpsc::Receiver<Message>,
    core: Option<Core>,
    /// The read under way, and its start.
    work: Option<(Moment, BoxFuture<'static, Fetched>)>,
    /// Whether the read under way loads the whole store.
    loading: bool,
    hints: Option<watch::Receiver<u64>>,
    /// Requests that wait for the next read.
    asked: Vec<Refreshed>,
    /// Requests that wait for the read under way.
    asked_now: Vec<Refreshed>,
    /// Time of the next read.
    next: Instant,
    /// Earliest time of the next read.
    soonest: Instant,
    /// The error that was last logged.
    said: String,
    /// Waits after reads that failed.
    backoff: Backoff,
}

/// The store has an older revision than this server: it has lost commits, or is another store.
struct Diverged;

impl Following {
    async fn run(mut self, helpers: JoinSet<()>, begin: CancellationToken, end: CancellationToken) -> Remains {
        let mut open = false;
        let mut reload = true;
        loop {
            if open && self.work.is_none() && Instant::now() >= self.next {
                self.look(std::mem::take(&mut reload));
            }
            let mut messages = Vec::new();
            let idle = open && self.work.is_none();
            tokio::select! {
                biased;
                () = end.cancelled() => break,
                () = begin.cancelled(), if !open => {
                    open = true;
                    self.hints = self.store.hints();
                    self.next = Instant::now();
                }
                (began, fetched) = fetched(&mut self.work) => {
                    self.work = None;
                    match self.take(began, fetched) {
                        Ok(again) => reload |= again,
                        Err(Diverged) => break,
                    }
                }
                count = self.inputs.recv_many(&mut messages, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.answer(messages);
                }
                changed = self.configured.changed() => {
                    // The follower was dropped; its end follows.
                    if changed.is_err() {
                        end.cancelled().await;
                        break;
                    }
                    reload = true;
                    self.next = Instant::now();
                }
                () = hint(&mut self.hints), if idle => self.next = self.soonest,
                () = tokio::time::sleep_until(self.next), if idle => {}
            }
        }
        Remains { inputs: self.inputs, core: self.core, helpers }
    }

    fn look(&mut self, all: bool) {
        let began = Moment::now();
        self.loading = all || self.core.is_none();
        self.asked_now.append(&mut self.asked);
        self.next = Instant::now() + POLL_INTERVAL;
        self.soonest = Instant::now() + MIN_POLL_GAP;
        if let Some(hints) = &mut self.hints {
            hints.mark_unchanged();
        }
        let store = self.store.clone();
        let work: BoxFuture<'static, Fetched> = match &self.core {
            Some(core) if !self.loading => {
                let after = core.revision();
                Box::pin(async move {
                    match changes_after(&*store, after).await {
                        Ok(batch) => Fetched::Changes(Box::new(batch)),
                        Err(error) => Fetched::Failed(error),
                    }
                })
            }
            Some(_) | None => {
                let (configuration, limits) = (self.configured.borrow_and_update().clone(), self.limits.clone());
                let clock = self.clock.clone();
                Box::pin(async move {
                    let snapshot = match store.load().await {
                        Ok(snapshot) => snapshot,
                        Err(error) => return Fetched::Failed(error),
                    };
                    // For a large farm this takes a while, so it runs on a thread of its own.
                    let made = move || Box::new(Core::follow(snapshot, configuration, limits, clock.now()));
                    match tokio::task::spawn_blocking(made).await {
                        Ok(core) => Fetched::All(core),
                        Err(error) => Fetched::Failed(StoreError::Corrupt(error.to_string())),
                    }
                })
            }
        };
        self.work = Some((began, work));
    }

    /// Applies the result of a read. Returns whether the whole store has to be loaded.
    fn take(&mut self, began: Moment, fetched: Fetched) -> Result<bool, Diverged> {
        let before = self.core.as_ref().map_or(Revision(0), Core::revision);
        let now = match &fetched {
            Fetched::All(core) => Some(core.revision()),
            Fetched::Changes(batch) => Some(batch.revision),
            Fetched::Failed(_) => None,
        };
        if let Some(now) = now.filter(|now| *now < before) {
            tracing::error!(%now, was = %before, "the store has gone back: it has lost commits, or is another one");
            return Err(Diverged);
        }
        match fetched {
            Fetched::All(core) => {
                tracing::info!(revision = %core.revision(), "following");
                let revision = core.revision();
                self.clock.not_before(core.now());
                self.core = Some(*core);
                if revision > before {
                    self.hub.skip(revision);
                }
            }
            Fetched::Changes(batch) => {
                if let Some(core) = &mut self.core {
                    // Also without changes: an empty commit carries the time, and time never runs backwards.
                    core.take_in(&batch);
                    self.clock.not_before(core.now());
                    // The last state of a row that was made and forgotten since is lost, so watchers have to read again.
                    if batch.floor > before {
                        self.hub.skip(batch.revision);
                    } else if batch.revision > before {
                        self.hub.publish(&batch);
                    }
                }
            }
            Fetched::Failed(error) => return Ok(self.failed(&error)),
        }
        self.said.clear();
        self.backoff.reset();
        self.leadership.heard(began);
        self.asked_now.drain(..).for_each(|asked| drop(asked.send(Ok(()))));
        if !self.asked.is_empty() {
            self.next = self.soonest;
        }
        Ok(false)
    }

    fn failed(&mut self, error: &StoreError) -> bool {
        if let StoreError::Compacted { after, floor } = error {
            tracing::info!(%after, %floor, "too far behind to read all that was forgotten; loading again");
            self.next = self.soonest;
            self.asked.append(&mut self.asked_now);
            return true;
        }
        // The same error is logged once.
        let text = error.to_string();
        if text != self.said {
            tracing::warn!(%error, "the changes cannot be read from the store; trying again");
            self.said.clone_from(&text);
        }
        for asked in self.asked_now.drain(..) {
            let _ = asked.send(Err(SubmitError::Unavailable(text.clone())));
        }
        self.next = Instant::now() + self.backoff.wait(None);
        self.loading
    }

    fn answer(&mut self, messages: Vec<Message>) {
        let fresh = self.leadership.fresh().is_ok();
        let now = self.clock.now();
        for message in messages {
            match message {
                Message::Read(read) => {
                    if let Some(core) = self.core.as_ref().filter(|_| fresh) {
                        read(core, now)();
                    }
                }
                Message::Input(_, Some(to)) => {
                    let _ = to.send(Err(SubmitError::NotLeader(self.leadership.leader())));
                }
                Message::Configure(new) => {
                    let _ = new.done.send(Err(SubmitError::NotLeader(self.leadership.leader())));
                }
                Message::Refresh(asked) => {
                    self.asked.push(asked);
                    self.next = self.soonest;
                }
                Message::Input(_, None) | Message::Fact(..) => {}
            }
        }
    }
}

/// Waits for the end of the read under way.
async fn fetched(work: &mut Option<(Moment, BoxFuture<'static, Fetched>)>) -> (Moment, Fetched) {
    match work {
        Some((began, work)) => (*began, work.await),
        None => std::future::pending().await,
    }
}

/// Waits for the next hint.
async fn hint(hints: &mut Option<watch::Receiver<u64>>) {
    let gone = match hints {
        Some(hints) => hints.changed().await.is_err(),
        None => std::future::pending().await,
    };
    if gone {
        *hints = None;
    }
}

#[cfg(test)]
mod tests;
