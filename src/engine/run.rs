//! The loop of the leader: it collects inputs, takes a turn and releases the answers. It recovers after a failure of the store.

use crate::backoff::Backoff;
use crate::clock::{Clock, Moment, wall_ms};
use crate::engine::effects::{Adapters, EffectLimits, Executor};
use crate::engine::follow::{Follower, Remains};
use crate::engine::handle::{Handle, Message, SubmitError};
use crate::engine::observe::{CommitResult, Observed};
use crate::engine::trail_log::TrailLog;
use crate::engine::turn::{Cycle, Turn, TurnError};
use crate::engine::{UsualTtls, WatchHub, adapter_results};
use crate::store::{CommitError, Epoch, Lead, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use wharfinger_adapter::{Notice, NoticeSink};
use wharfinger_core::{Batch, Configuration, Core, Input, Limits, Timestamp};

/// Maximum number of inputs of one turn: many share an fsync, and none waits long.
const BATCH: usize = 512;
/// Number of inputs with which a turn starts at once. Later inputs wait for the next turn; meanwhile the callers of this turn
/// receive their answers and send new inputs.
const FULL_TURN: usize = 64;
/// Maximum number of polls of the mailbox before a turn.
const GATHER_POLLS: usize = 32;
/// Maximum number of inputs that wait for a turn. Beyond it, senders wait.
const MAILBOX: usize = 4096;
/// Maximum time for ending the calls of adapters when the engine stops.
const HALT_LIMIT: Duration = Duration::from_secs(2);
/// Maximum time between two turns, also without input. A longer gap counts as a pause (see `Limits::pause`).
const MAX_SLEEP: Duration = Duration::from_millis(1000);
/// Time between two checks of a server without a cluster that no other server writes.
const EPOCH_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two checks of this server's clock.
const CLOCK_CHECK: Duration = Duration::from_secs(1);
/// Minimum time between two equal warnings about the clock.
const WARN_AGAIN: Duration = Duration::from_secs(600);

/// The configuration of an engine.
pub struct EngineConfig {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Pools and tenants.
    pub configuration: Configuration,
    /// Limits of the deployment.
    pub limits: Limits,
    /// The adapter of each pool.
    pub adapters: Adapters,
    /// Limits of concurrent calls.
    pub effects: EffectLimits,
    /// The place of the observer. A server that followed keeps its own.
    pub observed: Observed,
}

/// A running engine.
pub struct Engine {
    /// Submits inputs and reads.
    pub handle: Handle,
    /// Takes the notices of adapters.
    pub notices: NoticeSink,
    /// Ends when the engine has stopped, with the reason.
    pub task: JoinHandle<Ended>,
}

/// The reason why an engine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, or all handles were dropped.
    Stopped,
    /// Another server has taken the store over. The memory of this one is void.
    Deposed,
    /// The lead could not be renewed: another server may lead by now.
    LeadLost,
}

/// Recovers from the store and starts the loop. The loop ends when `stop` is cancelled, after the inputs that are then in the
/// mailbox.
///
/// # Errors
///
/// The store cannot be taken over or read.
pub async fn start(config: EngineConfig, stop: CancellationToken) -> Result<Engine, StoreError> {
    let EngineConfig { store, configuration, limits, adapters, effects, observed } = config;
    let epoch = store.acquire().await?;
    let started = Cycle::start_as(store.clone(), epoch, configuration, limits, Timestamp(wall_ms())).await?;
    let hub = WatchHub::new(started.0.core().revision());
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    let handle = Handle::new(mailbox, hub, store.clone()).observed_by(observed);
    handle.clock().start(started.0.core().now());
    let alone = CancellationToken::new();
    let mut helpers = JoinSet::new();
    helpers.spawn(watch_clock(handle.clone()));
    helpers.spawn(look_around(store, handle.clone(), epoch, alone.clone()));
    handle.leadership().begins(epoch.0);
    Ok(run(started, handle, inputs, helpers, (adapters, effects), Authority::Alone(alone), stop))
}

/// Turns a follower into the leader with a lead that it won. Its callers and watches go on. The engine ends with the lead, and
/// answers nothing after that.
///
/// # Errors
///
/// The store cannot be read, or another server has taken over meanwhile.
pub async fn take_over(
    follower: Follower,
    config: EngineConfig,
    lead: Lead,
    stop: CancellationToken,
) -> Result<Engine, StoreError> {
    let EngineConfig { store, configuration, limits, adapters, effects, observed: _ } = config;
    let handle = follower.handle.clone();
    // Reads all commits from before the lead was won. The store refuses older leaders from then on, so no commit follows.
    let current = handle.refresh().await;
    let Remains { inputs, core, helpers } = follower.remains().await?;
    let learned = core.as_ref().map(Core::learned).unwrap_or_default();
    let warm = core.filter(|_| current.is_ok()).map(|core| core.snapshot());
    let (forwarding_key, epoch) = (lead.forwarding_key().to_owned(), lead.epoch());
    let mut started = Cycle::take_over(store, epoch, warm, (configuration, limits), || Timestamp(wall_ms())).await?;
    started.0.remember(learned);
    handle.clock().start(started.0.core().now());
    // The hub has the recovered revision before this server calls itself the leader: else a revision that the former leader
    // gave out would be refused as one that never was.
    let engine = run(started, handle.clone(), inputs, helpers, (adapters, effects), Authority::Led(lead), stop);
    handle.leadership().begins(epoch.0);
    handle.leadership().lead(&forwarding_key);
    Ok(engine)
}

/// The authority by which this server decides.
enum Authority {
    /// No other server is configured. The token is cancelled if another one writes all the same.
    Alone(CancellationToken),
    /// For as long as the lead lasts.
    Led(Lead),
}

/// A server that is the only one finds out at its next commit that another has taken the store over. One that has nothing to
/// commit looks for itself.
async fn look_around(store: Arc<dyn Store>, handle: Handle, epoch: Epoch, deposed: CancellationToken) {
    let mut seen = None;
    loop {
        tokio::select! {
            () = handle.closed() => return,
            () = tokio::time::sleep(EPOCH_POLL_INTERVAL) => {}
        }
        let revision = *handle.hub().revision().borrow();
        if seen.replace(revision) != Some(revision) {
            continue;
        }
        match store.current_epoch().await {
            Ok(Some(current)) if current != epoch => {
                deposed.cancel();
                return;
            }
            Ok(Some(_)) => {}
            // This kind of store has one server.
            Ok(None) => return,
            // Whatever it is: a commit will tell.
            Err(error) => tracing::debug!(%error, "could not look who writes"),
        }
    }
}

fn run(
    (cycle, batch): (Cycle, Batch),
    handle: Handle,
    inputs: mpsc::Receiver<Message>,
    mut helpers: JoinSet<()>,
    (adapters, effects): (Adapters, EffectLimits),
    authority: Authority,
    stop: CancellationToken,
) -> Engine {
    let executor = Executor::new(adapters, handle.clone(), effects);
    let (notices, notice_inputs) = mpsc::channel(1024);
    helpers.spawn(carry_notices(notice_inputs, handle.clone()));
    let (hub, clock, observed) = (handle.hub().clone(), handle.clock().clone(), handle.observed().clone());
    // Before the first read: a leader knows all commits.
    hub.publish(&batch);
    let usual_ttls = handle.usual_ttls().clone();
    usual_ttls.set(cycle.configuration());
    let (halting, taken, kept) = (executor.clone(), Moment::now(), Vec::new());
    let log = TrailLog::start(observed.clone());
    let engine = Loop { cycle, hub, usual_ttls, clock, executor, inputs, stop, authority, kept, observed, taken, log };
    let task = tokio::spawn(async move {
        let ended = engine.run(batch).await;
        // Another server, or the next start of this one, repeats the calls under way.
        let _ = tokio::time::timeout(HALT_LIMIT, halting.halt()).await;
        helpers.shutdown().await;
        ended
    });
    Engine { handle, notices, task }
}

/// Logs the warnings about this server's clock: when they change, and again every [`WARN_AGAIN`] while they last.
pub(super) async fn watch_clock(handle: Handle) {
    let mut logged: Option<(Moment, usize)> = None;
    loop {
        let found = handle.clock_warnings();
        let due = match logged {
            None => !found.is_empty(),
            Some((at, count)) => count != found.len() || at.past() >= WARN_AGAIN,
        };
        if due {
            for warning in &found {
                tracing::warn!("{warning}");
            }
            if found.is_empty() {
                tracing::info!("this server's clock is right again");
            }
            logged = (!found.is_empty()).then(|| (Moment::now(), found.len()));
        }
        tokio::select! {
            () = handle.closed() => return,
            () = tokio::time::sleep(CLOCK_CHECK) => {}
        }
    }
}

async fn carry_notices(mut notices: mpsc::Receiver<Notice>, handle: Handle) {
    while let Some(notice) = notices.recv().await {
        tracing::debug!(pool = notice.pool, source = notice.source, detail = notice.detail, kind = ?notice.kind, "notice");
        if let Some(input) = adapter_results::notice(notice, handle.clock().read())
            && handle.report(input).await.is_err()
        {
            return;
        }
    }
}

struct Loop {
    cycle: Cycle,
    hub: WatchHub,
    usual_ttls: UsualTtls,
    clock: Clock,
    executor: Executor,
    inputs: mpsc::Receiver<Message>,
    stop: CancellationToken,
    authority: Authority,
    /// Notices and adapters' answers that came while the store was unavailable.
    kept: Vec<Message>,
    observed: Observed,
    /// When messages were last taken from the mailbox. What is there before the next look came in after it.
    taken: Moment,
    log: TrailLog,
}

impl Loop {
    /// Runs until the loop or the lead ends. A turn under way is then dropped: the store knows whether it was committed, and its
    /// callers receive an error.
    async fn run(self, first: Batch) -> Ended {
        match &self.authority {
            Authority::Alone(deposed) => {
                let deposed = deposed.clone();
                tokio::select! {
                    biased;
                    () = deposed.cancelled() => {
                        tracing::error!("another server leads now; this one stops");
                        Ended::Deposed
                    }
                    ended = self.run_on(first) => ended,
                }
            }
            Authority::Led(lead) => {
                let lead = lead.clone();
                tokio::select! {
                    biased;
                    () = lead.lost() => {
                        tracing::error!("the lead is lost: another server may lead by now");
                        Ended::LeadLost
                    }
                    ended = self.run_on(first) => ended,
                }
            }
        }
    }

    async fn run_on(mut self, first: Batch) -> Ended {
        self.log.log(&first, self.cycle.core());
        self.observed.report(|observer| observer.committed(&first, None));
        for effect in first.effects {
            self.executor.start(effect);
        }
        loop {
            let mut messages = Vec::new();
            let wait = self.until_deadline();
            let before = (!self.inputs.is_empty()).then_some(self.taken);
            tokio::select! {
                biased;
                count = self.inputs.recv_many(&mut messages, BATCH) => {
                    if count == 0 { return Ended::Stopped; }
                }
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => {
                    self.inputs.close();
                    while self.inputs.recv_many(&mut messages, BATCH).await > 0 {}
                    return self.turn(messages, Moment::now()).await.err().unwrap_or(Ended::Stopped);
                }
            }
            let heard = before.unwrap_or_else(Moment::now);
            self.gather(&mut messages).await;
            self.taken = Moment::now();
            if let Err(ended) = self.turn(messages, heard).await {
                return ended;
            }
        }
    }

    /// Yields to callers that are about to send an input, so that one fsync serves them too. It goes on while each poll finds
    /// more. Without other callers it costs some microseconds.
    async fn gather(&mut self, messages: &mut Vec<Message>) {
        for _ in 0..GATHER_POLLS {
            if messages.len() >= FULL_TURN {
                return;
            }
            let before = messages.len();
            tokio::task::yield_now().await;
            while messages.len() < BATCH
                && let Ok(message) = self.inputs.try_recv()
            {
                messages.push(message);
            }
            if messages.len() == before {
                return;
            }
        }
    }

    fn until_deadline(&self) -> Duration {
        let Some(at) = self.cycle.core().next_deadline() else { return MAX_SLEEP };
        self.clock.read().until(at).min(MAX_SLEEP)
    }

    /// Takes a turn. `heard`: none of the messages came in before. After an error the engine stops.
    async fn turn(&mut self, mut messages: Vec<Message>, heard: Moment) -> Result<(), Ended> {
        let (began, inputs) = (Moment::now(), messages.len());
        let mut answered = Vec::new();
        messages.retain(|message| match message {
            Message::Fact(_, call) => {
                let counts = self.executor.counts(*call);
                answered.extend(counts.then_some(*call));
                counts
            }
            // If the call that wrote this note was ended, it does not act. Its note must not count for a later call of the same
            // operation.
            Message::Input(input, reply) if matches!(**input, Input::Noted { .. }) => {
                reply.as_ref().is_some_and(|waits| !waits.is_closed())
            }
            Message::Input(..) | Message::Configure(_) | Message::Read(_) | Message::Refresh(_) => true,
        });
        let turned = self.cycle.turn(self.clock.now(), messages).await;
        self.observe(inputs, began.past(), &turned);
        match turned {
            Ok(turn) if !turn.may_leave(self.leads()) => Err(Ended::LeadLost),
            Ok(turn) => {
                self.executor.settle(&answered);
                self.release(turn, Some(heard));
                Ok(())
            }
            Err(TurnError::Deposed) => {
                tracing::error!("another server leads now; this one stops");
                Err(Ended::Deposed)
            }
            Err(TurnError::Lost { error, again }) => {
                tracing::error!(error = %error, "the commit failed; recovering from the store");
                self.recover().await?;
                self.take_again(again).await
            }
        }
    }

    fn observe(&self, inputs: usize, took: Duration, turned: &Result<Turn, TurnError>) {
        let commit = match turned {
            Ok(turn) => turn.commit.map(|took| (CommitResult::Ok, took)),
            Err(TurnError::Deposed | TurnError::Lost { error: CommitError::Deposed { .. }, .. }) => {
                Some((CommitResult::Deposed, took))
            }
            Err(TurnError::Lost { error: CommitError::NotCommitted(_), .. }) => {
                Some((CommitResult::NotCommitted, took))
            }
            Err(TurnError::Lost { error: CommitError::InDoubt(_), .. }) => Some((CommitResult::InDoubt, took)),
        };
        self.observed.report(|observer| {
            observer.turn(inputs, took);
            if let Some((result, took)) = commit {
                observer.commit(result, took);
            }
        });
    }

    /// Whether this server still leads. A process that was stopped for a while checks before it answers.
    fn leads(&self) -> bool {
        match &self.authority {
            Authority::Alone(_) => true,
            Authority::Led(lead) => lead.holds(),
        }
    }

    async fn take_again(&mut self, mut again: Vec<Message>) -> Result<(), Ended> {
        again.append(&mut self.kept);
        if again.is_empty() {
            return Ok(());
        }
        // If the store fails again, the same inputs come back here.
        Box::pin(self.turn(again, Moment::now())).await
    }

    async fn recover(&mut self) -> Result<(), Ended> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
        loop {
            match self.cycle.recover(self.clock.now()).await {
                Ok(batch) => {
                    tracing::info!(revision = %batch.revision, "recovered from the store");
                    // Calls under way that the core still names go on: a short failure of the store ends no clone.
                    self.executor.keep_only(&batch.effects).await;
                    self.observed.report(|observer| observer.recovered());
                    self.release(Turn { batch, answers: Vec::new(), configured: false, commit: None }, None);
                    return Ok(());
                }
                Err(error @ StoreError::Deposed { .. }) => {
                    tracing::error!(%error, "another server leads now; this one stops");
                    return Err(Ended::Deposed);
                }
                Err(error) => tracing::warn!(error = %error, "the store cannot be read; trying again"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Stopped),
                () = tokio::time::sleep(backoff.wait(None)) => {}
            }
            self.refuse_waiting();
        }
    }

    /// Answers waiting inputs with an error while the store is unavailable.
    fn refuse_waiting(&mut self) {
        while let Ok(message) = self.inputs.try_recv() {
            let why = || {
                SubmitError::Unavailable(
                    "the store does not answer; the broker recovers from it: repeat the request".into(),
                )
            };
            match message {
                Message::Input(_, Some(to)) => {
                    let _ = to.send(Err(why()));
                }
                Message::Configure(new) => {
                    let _ = new.done.send(Err(why()));
                }
                // These come only once.
                Message::Input(_, None) | Message::Fact(..) => self.kept.push(message),
                Message::Read(_) | Message::Refresh(_) => {}
            }
        }
    }

    /// After the commit: publishes the changes, sends the answers, logs, and starts the effects.
    fn release(&self, turn: Turn, heard: Option<Moment>) {
        self.hub.publish(&turn.batch);
        if turn.configured {
            self.usual_ttls.set(self.cycle.configuration());
        }
        self.observed.report(|observer| observer.committed(&turn.batch, heard.map(Moment::past)));
        for answer in turn.answers {
            answer.send();
        }
        // No caller waits for the log.
        self.log.log(&turn.batch, self.cycle.core());
        for effect in turn.batch.effects {
            self.executor.start(effect);
        }
    }
}
