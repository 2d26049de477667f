//! One turn of the engine: step the core through a batch of inputs, commit what they changed, hand out what may leave.
//!
//! It has no clock, no timer and no task, so that the simulator runs the very same code as the server.

use crate::engine::handle::{Configure, Message, SubmitError};
use crate::store::{CommitError, Epoch, Store, StoreError};
use std::sync::Arc;
use tokio::sync::oneshot;
use wharfinger_core::{Batch, Core, Input, Limits, PoolConfig, Reply, Snapshot, Timestamp};

/// The core, the store, and who we are to it.
pub struct Cycle {
    store: Arc<dyn Store>,
    epoch: Epoch,
    core: Core,
    pools: Vec<PoolConfig>,
    limits: Limits,
}

/// What may leave after a commit.
pub struct Turn {
    /// What changed, and the effects to run.
    pub batch: Batch,
    /// Send these.
    pub answers: Vec<Answer>,
}

impl Turn {
    /// Whether anything of it may leave, of a server that leads still or no longer, as far as it knows. What was committed is
    /// true, whoever leads now. What was only read may be old.
    pub fn may_leave(&self, leads: bool) -> bool {
        leads || !self.batch.is_empty()
    }
}

/// An answer that was held back until the commit.
pub enum Answer {
    /// To an input.
    Input(oneshot::Sender<Result<Reply, SubmitError>>, Box<Result<Reply, SubmitError>>),
    /// To a question.
    Read(Box<dyn FnOnce() + Send>),
}

impl Answer {
    /// Sends it. Whoever asked may be gone; that is no error.
    pub fn send(self) {
        match self {
            Answer::Input(to, answer) => {
                let _ = to.send(*answer);
            }
            Answer::Read(send) => send(),
        }
    }
}

/// A turn that did not end in a commit. Nothing of it was told; whoever asked got UNAVAILABLE.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// Memory may be ahead of disk: call [`Cycle::recover`] before the next turn.
    #[error("the commit failed: {error}")]
    Lost {
        /// Why.
        error: CommitError,
        /// Inputs that come only once (notices, the configuration, adapters' answers): the engine takes them again
        /// after the recovery.
        again: Vec<Message>,
    },
    /// Another server leads: stop.
    #[error("another server leads now")]
    Deposed,
}

impl Cycle {
    /// Takes the store over and recovers from it. The batch holds what the restart changed; it is committed.
    ///
    /// # Errors
    ///
    /// The store can't be read or written, or another server has taken it over at once.
    pub async fn start(
        store: Arc<dyn Store>,
        pools: Vec<PoolConfig>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<(Self, Batch), StoreError> {
        let epoch = store.acquire().await?;
        Self::start_as(store, epoch, pools, limits, now).await
    }

    /// The same with an epoch that was acquired before.
    ///
    /// # Errors
    ///
    /// As [`Cycle::start`].
    pub async fn start_as(
        store: Arc<dyn Store>,
        epoch: Epoch,
        pools: Vec<PoolConfig>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<(Self, Batch), StoreError> {
        let snapshot = store.load().await?;
        Self::start_from(store, epoch, snapshot, pools, limits, now).await
    }

    /// The same from rows that were followed, if they are what is stored; else it loads. `now` is asked when it is needed.
    ///
    /// # Errors
    ///
    /// As [`Cycle::start`].
    pub async fn take_over(
        store: Arc<dyn Store>,
        epoch: Epoch,
        followed: Option<Snapshot>,
        (pools, limits): (Vec<PoolConfig>, Limits),
        now: impl Fn() -> Timestamp,
    ) -> Result<(Self, Batch), StoreError> {
        if let Some(snapshot) = followed {
            let (pools, limits) = (pools.clone(), limits.clone());
            match Self::start_from(store.clone(), epoch, snapshot, pools, limits, now()).await {
                Ok(started) => return Ok(started),
                Err(error @ StoreError::Deposed { .. }) => return Err(error),
                Err(error) => tracing::warn!(%error, "what was followed is not what is stored; loading it"),
            }
        }
        Self::start_as(store, epoch, pools, limits, now()).await
    }

    /// The same on what is stored, as it was loaded or followed after the epoch was acquired.
    ///
    /// # Errors
    ///
    /// As [`Cycle::start`]; also if it is not what is stored.
    pub async fn start_from(
        store: Arc<dyn Store>,
        epoch: Epoch,
        snapshot: Snapshot,
        pools: Vec<PoolConfig>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<(Self, Batch), StoreError> {
        let core = Core::recover(snapshot, pools.clone(), limits.clone(), now);
        let mut cycle = Self { store, epoch, core, pools, limits };
        let batch = cycle.commit_recovery().await?;
        Ok((cycle, batch))
    }

    /// Throws the memory away and recovers from the store, as leader still.
    ///
    /// # Errors
    ///
    /// [`StoreError::Deposed`] if another server leads: stop. Otherwise the store can't be read or written; try again later.
    pub async fn recover(&mut self, now: Timestamp) -> Result<Batch, StoreError> {
        let snapshot = self.store.load().await?;
        self.core = Core::recover(snapshot, self.pools.clone(), self.limits.clone(), now);
        self.commit_recovery().await
    }

    async fn commit_recovery(&mut self) -> Result<Batch, StoreError> {
        let batch = self.core.take_batch();
        // Also if nothing has changed: what was loaded may be another server's by now, and only a commit tells.
        self.store.commit(&batch, self.epoch).await.map_err(|error| match error {
            CommitError::NotCommitted(error) | CommitError::InDoubt(error) => error,
            CommitError::Deposed { current } => StoreError::Deposed { current },
        })?;
        Ok(batch)
    }

    /// Steps the core through all messages, commits, and returns what may leave.
    ///
    /// # Errors
    ///
    /// See [`TurnError`]; all messages are answered with UNAVAILABLE then.
    pub async fn turn(&mut self, now: Timestamp, messages: Vec<Message>) -> Result<Turn, TurnError> {
        let mut answers = Vec::with_capacity(messages.len());
        let mut again = Vec::new();
        let mut configured = None;
        if messages.is_empty() {
            let _ = self.core.step(now, Input::Tick);
        }
        for message in messages {
            match message {
                Message::Input(input, to) => {
                    if let Input::Configure(pools) = &*input {
                        self.pools.clone_from(pools);
                    }
                    if let Input::Configure(_) | Input::Notice(_) = &*input {
                        again.push(Message::Input(input.clone(), None));
                    }
                    let answer = self.core.step(now, *input).map_err(SubmitError::Rejected);
                    if let Some(to) = to {
                        answers.push(Answer::Input(to, Box::new(answer)));
                    }
                }
                Message::Configure(Configure { pools, then, done }) => {
                    configured = Some(pools.clone());
                    let _ = self.core.step(now, Input::Configure(pools));
                    answers.push(Answer::Read(Box::new(move || {
                        then();
                        let _ = done.send(Ok(()));
                    })));
                }
                Message::Fact(input, call) => {
                    again.push(Message::Fact(input.clone(), call));
                    let _ = self.core.step(now, *input);
                }
                Message::Read(read) => answers.push(Answer::Read(read(&self.core, now))),
                Message::Refresh(asked) => answers.push(Answer::Read(Box::new(move || drop(asked.send(Ok(())))))),
            }
        }
        let batch = self.core.take_batch();
        let committed = if batch.is_empty() { Ok(()) } else { self.store.commit(&batch, self.epoch).await };
        match committed {
            Ok(()) => {
                if let Some(pools) = configured {
                    self.pools = pools;
                }
                Ok(Turn { batch, answers })
            }
            Err(error) => {
                for answer in answers {
                    if let Answer::Input(to, _) = answer {
                        let why = "the store failed; the broker recovers from it: repeat the request";
                        let _ = to.send(Err(SubmitError::Unavailable(why.into())));
                    }
                }
                Err(match error {
                    CommitError::Deposed { .. } => TurnError::Deposed,
                    CommitError::NotCommitted(_) | CommitError::InDoubt(_) => TurnError::Lost { error, again },
                })
            }
        }
    }

    /// The state, to be looked at between turns.
    pub fn core(&self) -> &Core {
        &self.core
    }
}
