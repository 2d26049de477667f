//! The loop: collect what has come, take a turn, let the answers out; recover when the store failed.

use crate::engine::cycle::{Cycle, Turn, TurnError};
use crate::engine::effects::{Adapters, EffectLimits, Executor};
use crate::engine::handle::{Handle, Message, SubmitError};
use crate::engine::{Hub, clock, facts};
use crate::store::{Lead, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharfinger_adapter::{Notice, NoticeSink};
use wharfinger_core::{Batch, Input, Limits, PoolConfig};

/// Inputs of one turn: enough that an fsync is shared by many, few enough that nobody waits long.
const BATCH: usize = 512;
/// How often the engine looks for more before a turn.
const LOOKS: usize = 32;
/// Inputs that wait for a turn; beyond it, senders wait.
const MAILBOX: usize = 4096;
/// At the end, for calls of adapters to be ended.
const HALT: Duration = Duration::from_secs(2);
/// Without any input the engine still looks at the time this often: a longer gap is a pause (see `Limits::pause`).
const TICK: Duration = Duration::from_millis(1000);

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
    start_as(config, None, stop).await
}

/// The same under a lead that was won: it ends when the lead does, and answers nothing after that.
///
/// # Errors
///
/// The store can't be read, or another server has taken over meanwhile.
pub async fn start_as(config: EngineConfig, lead: Option<Lead>, stop: CancellationToken) -> Result<Engine, StoreError> {
    let EngineConfig { store, pools, limits, adapters, effects } = config;
    let epoch = match &lead {
        Some(lead) => lead.epoch(),
        None => store.acquire().await?,
    };
    let (cycle, batch) = Cycle::start_as(store.clone(), epoch, pools, limits, clock::now()).await?;
    let hub = Hub::new(cycle.core().revision());
    let (mailbox, inputs) = mpsc::channel(MAILBOX);
    let handle = Handle::new(mailbox, hub.clone(), store);
    let executor = Executor::new(adapters, handle.clone(), effects);
    let (notices, notice_inputs) = mpsc::channel(1024);
    tokio::spawn(carry_notices(notice_inputs, handle.clone()));
    let engine = Loop { cycle, hub, executor: executor.clone(), inputs, stop, lead, kept: Vec::new() };
    let task = tokio::spawn(async move {
        let ended = engine.run(batch).await;
        // What is under way is another server's to do now, or is done again after the next start.
        let _ = tokio::time::timeout(HALT, executor.halt()).await;
        ended
    });
    Ok(Engine { handle, notices, task })
}

async fn carry_notices(mut notices: mpsc::Receiver<Notice>, handle: Handle) {
    while let Some(notice) = notices.recv().await {
        tracing::debug!(pool = notice.pool, source = notice.source, detail = notice.detail, kind = ?notice.kind, "notice");
        if let Some(input) = facts::notice(notice)
            && handle.report(input).await.is_err()
        {
            return;
        }
    }
}

struct Loop {
    cycle: Cycle,
    hub: Hub,
    executor: Executor,
    inputs: mpsc::Receiver<Message>,
    stop: CancellationToken,
    lead: Option<Lead>,
    /// Notices that came while the store was away.
    kept: Vec<Input>,
}

impl Loop {
    /// Until it ends, or the lead does. What is in the middle of something then is given up: the store knows what became
    /// of it, and whoever waits is told that there is no answer.
    async fn run(self, first: Batch) -> Ended {
        match self.lead.clone() {
            None => self.run_on(first).await,
            Some(lead) => tokio::select! {
                biased;
                () = lead.lost() => {
                    tracing::error!("the lead is lost: another server may lead by now");
                    Ended::LeadLost
                }
                ended = self.run_on(first) => ended,
            },
        }
    }

    async fn run_on(mut self, first: Batch) -> Ended {
        self.release(Turn { batch: first, answers: Vec::new() });
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
            let before = messages.len();
            tokio::task::yield_now().await;
            while messages.len() < BATCH
                && let Ok(message) = self.inputs.try_recv()
            {
                messages.push(message);
            }
            if messages.len() == before || messages.len() >= BATCH {
                return;
            }
        }
    }

    fn until_deadline(&self) -> Duration {
        let Some(at) = self.cycle.core().next_deadline() else { return TICK };
        let wait = at.0.saturating_sub(clock::now().0).max(0);
        Duration::from_millis(u64::try_from(wait).unwrap_or(0)).min(TICK)
    }

    /// Takes a turn. An error: stop.
    async fn turn(&mut self, mut messages: Vec<Message>) -> Result<(), Ended> {
        let generation = self.executor.generation();
        messages.retain(|message| !matches!(message, Message::Fact(_, of) if *of != generation));
        match self.cycle.turn(clock::now(), messages).await {
            // What was committed is true, whoever leads now. What was only read may be old.
            Ok(turn) if turn.batch.is_empty() && !self.leads() => Err(Ended::LeadLost),
            Ok(turn) => {
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
        self.lead.as_ref().is_none_or(Lead::holds)
    }

    async fn take_again(&mut self, mut again: Vec<Input>) -> Result<(), Ended> {
        again.append(&mut self.kept);
        if again.is_empty() {
            return Ok(());
        }
        let messages = again.into_iter().map(|input| Message::Input(Box::new(input), None)).collect();
        // A store that fails twice in a row brings us back here, with the same inputs.
        Box::pin(self.turn(messages)).await
    }

    async fn recover(&mut self) -> Result<(), Ended> {
        // What is under way is started again from the state, so it must have ended first.
        self.executor.halt().await;
        let mut wait = Duration::from_millis(20);
        loop {
            match self.cycle.recover(clock::now()).await {
                Ok(batch) => {
                    tracing::info!(revision = %batch.revision, "recovered from the store");
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
            match message {
                Message::Input(_, Some(to)) => {
                    let why = "the store does not answer; the broker recovers from it: repeat the request";
                    let _ = to.send(Err(SubmitError::Unavailable(why.into())));
                }
                // What the world said once is kept. An adapter's answer is not: the call is made again.
                Message::Input(input, None) => self.kept.push(*input),
                Message::Fact(..) | Message::Read(_) => {}
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
