//! The loop: collect what has come, take a turn, let the answers out; recover when the store failed.

use crate::clock::{Clock, Moment, wall_ms};
use crate::engine::effects::{Adapters, EffectLimits, Executor};
use crate::engine::follow::{Follower, Remains};
use crate::engine::handle::{Handle, Message, SubmitError};
use crate::engine::turn::{Cycle, Turn, TurnError};
use crate::engine::{Hub, adapter_results};
use crate::store::{Epoch, Lead, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharfinger_adapter::{Notice, NoticeSink};
use wharfinger_core::{Batch, Input, Limits, PoolConfig, Timestamp};

/// Inputs of one turn: enough that an fsync is shared by many, few enough that nobody waits long.
const BATCH: usize = 512;
/// With so many, an fsync is shared well enough: who comes later is for the next turn, so that others are answered and ask
/// again while this one is written.
const ENOUGH: usize = 64;
/// How often the engine looks for more before a turn.
const LOOKS: usize = 32;
/// Inputs that wait for a turn; beyond it, senders wait.
const MAILBOX: usize = 4096;
/// At the end, for calls of adapters to be ended.
const HALT: Duration = Duration::from_secs(2);
/// Without any input the engine still looks at the time this often: a longer gap is a pause (see `Limits::pause`).
const TICK: Duration = Duration::from_millis(1000);
/// A server that is the only one looks this often whether it is.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// Time between two checks of this server's clock.
const CLOCK_CHECK: Duration = Duration::from_secs(1);
/// Minimum time between two warnings of the same trouble with the clock.
const WARN_AGAIN: Duration = Duration::from_secs(600);

/// All that the engine needs.
pub struct EngineConfig {
    /// Where the truth is kept.
    pub store: Arc<dyn Store>,
    /// Pools as configured, in order.
    pub pools: Vec<PoolConfig>,
    /// Limits of the deployment.
    pub limits: Limits,
    /// The adapter of each pool.
    pub adapters: Adapters,
    /// Calls at once.
    pub effects: EffectLimits,
}

/// A running engine.
pub struct Engine {
    /// The way in.
    pub handle: Handle,
    /// Where adapters report what the world says.
    pub notices: NoticeSink,
    /// Ends when the engine has stopped, and says why.
    pub task: JoinHandle<Ended>,
}

/// Why an engine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to, or nobody is left who could ask it anything.
    Stopped,
    /// Another server has taken the store over. Nothing of what this one had in memory counts any more.
    Deposed,
    /// The lead could not be renewed: another server may lead by now.
    LeadLost,
}

/// Recovers from the store and starts the loop, which ends when `stop` is cancelled: what is in the mailbox then is
/// still done.
///
/// # Errors
///
/// The store can't be taken over or read.
pub async fn start(config: EngineConfig, stop: CancellationToken) -> Result<Engine, StoreError> {
    let EngineConfig { store, pools, limits, adapters, effects } = config;
    let epoch = store.acquire().await?;
    let started = Cycle::start_as(store.clone(), epoch, pools, limits, Timestamp(wall_ms())).await?;
    let hub = Hub::new(started.0.core().revision());
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    let handle = Handle::new(mailbox, hub, store.clone());
    handle.clock().start(started.0.core().now());
    tokio::spawn(watch_clock(handle.clone()));
    let alone = CancellationToken::new();
    tokio::spawn(look_around(store, handle.clone(), epoch, alone.clone()));
    Ok(run(started, handle, inputs, adapters, effects, Reign::Alone(alone), stop))
}

/// A server that followed takes over with a lead that it won: whoever asks or watches goes on. It ends when the lead does, and
/// answers nothing after that.
///
/// # Errors
///
/// The store can't be read, or another server has taken over meanwhile.
pub async fn take_over(
    follower: Follower,
    config: EngineConfig,
    lead: Lead,
    stop: CancellationToken,
) -> Result<Engine, StoreError> {
    let EngineConfig { store, pools, limits, adapters, effects } = config;
    let handle = follower.handle.clone();
    // All that was committed before the lead was won. What was sent before no longer counts, so nothing comes after it.
    let current = handle.refresh().await;
    let Remains { inputs, core } = follower.remains().await?;
    let warm = core.filter(|_| current.is_ok()).map(|core| core.snapshot());
    let pass = lead.pass().to_owned();
    let started = Cycle::take_over(store, lead.epoch(), warm, (pools, limits), || Timestamp(wall_ms())).await?;
    handle.clock().start(started.0.core().now());
    // The hub has the recovered revision before this server calls itself the leader: else a revision that the former leader
    // gave out would be refused as one that never was.
    let engine = run(started, handle.clone(), inputs, adapters, effects, Reign::Led(lead), stop);
    handle.standing().lead(&pass);
    Ok(engine)
}

/// By what right it decides.
enum Reign {
    /// There are no others; the token says that there is one all the same.
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
            () = tokio::time::sleep(LOOK_AROUND) => {}
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
    adapters: Adapters,
    effects: EffectLimits,
    reign: Reign,
    stop: CancellationToken,
) -> Engine {
    let executor = Executor::new(adapters, handle.clone(), effects);
    let (notices, notice_inputs) = mpsc::channel(1024);
    tokio::spawn(carry_notices(notice_inputs, handle.clone()));
    let (hub, clock) = (handle.hub().clone(), handle.clock().clone());
    // Before anything else can be asked: a server that leads has heard of all that was committed.
    hub.publish(&batch);
    let engine = Loop { cycle, hub, clock, executor: executor.clone(), inputs, stop, reign, kept: Vec::new() };
    let task = tokio::spawn(async move {
        let ended = engine.run(batch).await;
        // What is under way is another server's to do now, or is done again after the next start.
        let _ = tokio::time::timeout(HALT, executor.halt()).await;
        ended
    });
    Engine { handle, notices, task }
}

/// Logs what is wrong with this server's clock: when it changes, and again every [`WARN_AGAIN`] while it lasts.
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
    hub: Hub,
    clock: Clock,
    executor: Executor,
    inputs: mpsc::Receiver<Message>,
    stop: CancellationToken,
    reign: Reign,
    /// Notices and adapters' answers that came while the store was away.
    kept: Vec<Message>,
}

impl Loop {
    /// Until it ends, or the lead does. What is in the middle of something then is given up: the store knows what became
    /// of it, and whoever waits is told that there is no answer.
    async fn run(self, first: Batch) -> Ended {
        match &self.reign {
            Reign::Alone(deposed) => {
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
            Reign::Led(lead) => {
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
        for effect in first.effects {
            self.executor.start(effect);
        }
        loop {
            let mut messages = Vec::new();
            let wait = self.until_deadline();
            tokio::select! {
                biased;
                count = self.inputs.recv_many(&mut messages, BATCH) => {
                    if count == 0 { return Ended::Stopped; }
                }
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => {
                    self.inputs.close();
                    while self.inputs.recv_many(&mut messages, BATCH).await > 0 {}
                    return self.turn(messages).await.err().unwrap_or(Ended::Stopped);
                }
            }
            self.gather(&mut messages).await;
            if let Err(ended) = self.turn(messages).await {
                return ended;
            }
        }
    }

    /// Lets whoever is about to say something say it, so that one fsync serves them too: as long as each look finds
    /// more. With nobody else about it costs some microseconds.
    async fn gather(&mut self, messages: &mut Vec<Message>) {
        for _ in 0..LOOKS {
            if messages.len() >= ENOUGH {
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
        let Some(at) = self.cycle.core().next_deadline() else { return TICK };
        self.clock.read().until(at).min(TICK)
    }

    /// Takes a turn. An error: stop.
    async fn turn(&mut self, mut messages: Vec<Message>) -> Result<(), Ended> {
        let mut answered = Vec::new();
        messages.retain(|message| match message {
            Message::Fact(_, call) => {
                let counts = self.executor.counts(*call);
                answered.extend(counts.then_some(*call));
                counts
            }
            // The call that was to write this has been ended: it does not act, and its note must not be taken for that of a
            // later call of the same operation.
            Message::Input(input, reply) if matches!(**input, Input::Noted { .. }) => {
                reply.as_ref().is_some_and(|waits| !waits.is_closed())
            }
            Message::Input(..) | Message::Configure(_) | Message::Read(_) | Message::Refresh(_) => true,
        });
        match self.cycle.turn(self.clock.now(), messages).await {
            Ok(turn) if !turn.may_leave(self.leads()) => Err(Ended::LeadLost),
            Ok(turn) => {
                self.executor.settle(&answered);
                self.release(turn);
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

    /// A process that was stopped for a while has to look before it answers.
    fn leads(&self) -> bool {
        match &self.reign {
            Reign::Alone(_) => true,
            Reign::Led(lead) => lead.holds(),
        }
    }

    async fn take_again(&mut self, mut again: Vec<Message>) -> Result<(), Ended> {
        again.append(&mut self.kept);
        if again.is_empty() {
            return Ok(());
        }
        // A store that fails twice in a row brings us back here, with the same inputs.
        Box::pin(self.turn(again)).await
    }

    async fn recover(&mut self) -> Result<(), Ended> {
        let mut wait = Duration::from_millis(20);
        loop {
            match self.cycle.recover(self.clock.now()).await {
                Ok(batch) => {
                    tracing::info!(revision = %batch.revision, "recovered from the store");
                    // What is under way and still wanted goes on: a store that fails for a moment ends no clone.
                    self.executor.keep_only(&batch.effects).await;
                    self.release(Turn { batch, answers: Vec::new() });
                    return Ok(());
                }
                Err(error @ StoreError::Deposed { .. }) => {
                    tracing::error!(%error, "another server leads now; this one stops");
                    return Err(Ended::Deposed);
                }
                Err(error) => tracing::warn!(error = %error, "the store can't be read; trying again"),
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(Duration::from_secs(2));
            self.refuse_waiting();
        }
    }

    /// Whoever asks while the store is away is told so, instead of being left to wait.
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
                // The world says it once.
                Message::Input(_, None) | Message::Fact(..) => self.kept.push(message),
                Message::Read(_) | Message::Refresh(_) => {}
            }
        }
    }

    /// After the commit: tell watchers, answer, act.
    fn release(&self, turn: Turn) {
        self.hub.publish(&turn.batch);
        for answer in turn.answers {
            answer.send();
        }
        for effect in turn.batch.effects {
            self.executor.start(effect);
        }
    }
}
