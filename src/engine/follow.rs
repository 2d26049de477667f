//! The loop of a server that follows: it takes in what the leader commits, answers questions, tells watchers, and decides
//! nothing.
//!
//! What it says is a committed state. A hint of the store brings news within milliseconds, and it asks from time to time
//! whether there was a hint or not. When the store does not answer for longer than what is said may be old, nothing is said.

use crate::clock::{Clock, Moment};
use crate::engine::Hub;
use crate::engine::change_feed::changes_after;
use crate::engine::handle::{Handle, Message, Refreshed, SubmitError};
use crate::engine::leadership::Standing;
use crate::engine::run::watch_clock;
use crate::store::{Store, StoreError};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharfinger_core::{Core, Limits, PoolConfig, Revision};

/// Questions answered between two looks at anything else.
const BATCH: usize = 512;
/// Questions that wait; beyond it, who asks waits.
pub(super) const MAILBOX: usize = 4096;
/// From one look into the store to the next, whether it hinted at something or not.
const LOOK: Duration = Duration::from_millis(200);
/// Not sooner, however much happens: what came meanwhile is taken together.
const PAUSE: Duration = Duration::from_millis(5);
/// After the store did not answer.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a follower needs.
pub struct FollowConfig {
    /// Where the leader commits.
    pub store: Arc<dyn Store>,
    /// Pools as configured here, in order.
    pub pools: Vec<PoolConfig>,
    /// Limits of the deployment.
    pub limits: Limits,
    /// What is older is not said.
    pub max_age: Duration,
}

/// A server that follows.
pub struct Follower {
    /// The way in; it stays the same when this server takes over.
    pub handle: Handle,
    pools: watch::Sender<Vec<PoolConfig>>,
    begin: CancellationToken,
    pub(super) end: CancellationToken,
    task: JoinHandle<Remains>,
}

/// What a loop leaves to its successor.
pub(super) struct Remains {
    pub(super) inputs: mpsc::Receiver<Message>,
    pub(super) core: Option<Core>,
}

/// Starts to follow, once [`Follower::begin`] says that the store is open.
pub fn follow(config: FollowConfig) -> Follower {
    let FollowConfig { store, pools, limits, max_age } = config;
    let standing = Standing::following(max_age);
    let hub = Hub::new(Revision(0));
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    let handle = Handle::of(mailbox, hub.clone(), store.clone(), standing.clone());
    let clock = handle.clock().clone();
    let (pools, configured) = watch::channel(pools);
    let (begin, end) = (CancellationToken::new(), CancellationToken::new());
    let following = Following {
        store,
        limits,
        clock,
        configured,
        hub,
        standing,
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
    };
    let task = tokio::spawn(following.run(begin.clone(), end.clone()));
    tokio::spawn(watch_clock(handle.clone()));
    Follower { handle, pools, begin, end, task }
}

impl Follower {
    /// The store is open.
    pub fn begin(&self) {
        self.begin.cancel();
    }

    /// The configuration was read again.
    pub fn configure(&self, pools: Vec<PoolConfig>) {
        self.pools.send_replace(pools);
    }

    /// Waits until it ends without having been asked to: the store is another one than it was.
    pub async fn failed(&mut self) {
        let _ = (&mut self.task).await;
    }

    /// Ends it.
    pub async fn stop(self) {
        self.end.cancel();
        let _ = self.task.await;
    }

    pub(super) async fn remains(self) -> Result<Remains, StoreError> {
        self.end.cancel();
        self.task.await.map_err(|error| StoreError::Unavailable(format!("the loop that followed has ended: {error}")))
    }
}

/// What a look into the store brought.
enum Fetched {
    All(Box<Core>),
    Changes(Box<wharfinger_core::Batch>),
    Failed(StoreError),
}

struct Following {
    store: Arc<dyn Store>,
    limits: Limits,
    clock: Clock,
    configured: watch::Receiver<Vec<PoolConfig>>,
    hub: Hub,
    standing: Standing,
    inputs: mpsc::Receiver<Message>,
    core: Option<Core>,
    /// A look under way, and when it began.
    work: Option<(Moment, BoxFuture<'static, Fetched>)>,
    /// It is for all that is stored.
    loading: bool,
    hints: Option<watch::Receiver<u64>>,
    /// Who wants to know what is in the store from now on.
    asked: Vec<Refreshed>,
    /// Those for whom the look under way is.
    asked_now: Vec<Refreshed>,
    /// When to look next.
    next: Instant,
    soonest: Instant,
    /// What was last said in the log.
    said: String,
}

/// The store has gone back: what was said from here is not in it.
struct Diverged;

impl Following {
    async fn run(mut self, begin: CancellationToken, end: CancellationToken) -> Remains {
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
                    // Who configures is gone with the one who ends it.
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
        Remains { inputs: self.inputs, core: self.core }
    }

    fn look(&mut self, all: bool) {
        let began = Moment::now();
        self.loading = all || self.core.is_none();
        self.asked_now.append(&mut self.asked);
        self.next = Instant::now() + LOOK;
        self.soonest = Instant::now() + PAUSE;
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
                let (pools, limits) = (self.configured.borrow_and_update().clone(), self.limits.clone());
                let clock = self.clock.clone();
                Box::pin(async move {
                    let snapshot = match store.load().await {
                        Ok(snapshot) => snapshot,
                        Err(error) => return Fetched::Failed(error),
                    };
                    // Of a large farm it takes a while, and others have something to do.
                    let made = move || Box::new(Core::follow(snapshot, pools, limits, clock.now()));
                    match tokio::task::spawn_blocking(made).await {
                        Ok(core) => Fetched::All(core),
                        Err(error) => Fetched::Failed(StoreError::Corrupt(error.to_string())),
                    }
                })
            }
        };
        self.work = Some((began, work));
    }

    /// Takes in what a look brought. Says whether all has to be loaded.
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
                    // Also if nothing has changed: a commit of nothing tells how late it is, and time never runs backwards.
                    core.take_in(&batch);
                    self.clock.not_before(core.now());
                    // The last state of something that has come and gone since can't be told any more.
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
        self.standing.heard(began);
        self.asked_now.drain(..).for_each(|asked| drop(asked.send(Ok(()))));
        if !self.asked.is_empty() {
            self.next = self.soonest;
        }
        Ok(false)
    }

    fn failed(&mut self, error: &StoreError) -> bool {
        if let StoreError::Compacted { after, floor } = error {
            tracing::info!(%after, %floor, "too far behind to hear of all that was forgotten; loading again");
            self.next = self.soonest;
            self.asked.append(&mut self.asked_now);
            return true;
        }
        // Once, as long as it is the same.
        let text = error.to_string();
        if text != self.said {
            tracing::warn!(%error, "the store does not tell what is new; trying again");
            self.said.clone_from(&text);
        }
        for asked in self.asked_now.drain(..) {
            let _ = asked.send(Err(SubmitError::Unavailable(text.clone())));
        }
        self.next = Instant::now() + LOOK_AGAIN;
        self.loading
    }

    fn answer(&mut self, messages: Vec<Message>) {
        let fresh = self.standing.fresh().is_ok();
        let now = self.clock.now();
        for message in messages {
            match message {
                Message::Read(read) => {
                    if let Some(core) = self.core.as_ref().filter(|_| fresh) {
                        read(core, now)();
                    }
                }
                Message::Input(_, Some(to)) => {
                    let _ = to.send(Err(SubmitError::NotLeader(self.standing.leader())));
                }
                Message::Configure(new) => {
                    let _ = new.done.send(Err(SubmitError::NotLeader(self.standing.leader())));
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

/// The end of a look under way.
async fn fetched(work: &mut Option<(Moment, BoxFuture<'static, Fetched>)>) -> (Moment, Fetched) {
    match work {
        Some((began, work)) => (*began, work.await),
        None => std::future::pending().await,
    }
}

/// The next hint.
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
