//! One turn of the engine: it steps the core through a batch of inputs, commits the changes, and returns the answers and effects.
//!
//! A turn decides by no clock, and has no timer and no task, so the simulator runs the same code as the server.

use crate::clock::Moment;
use crate::engine::handle::{Configure, Message, SubmitError};
use crate::store::{CommitError, Epoch, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use wharfinger_core::{Batch, Configuration, Core, Input, Learned, Limits, Reply, Snapshot, Timestamp};

/// The core, the store, and the epoch with which this server writes.
pub struct Cycle {
    store: Arc<dyn Store>,
    epoch: Epoch,
    core: Core,
    configuration: Configuration,
    limits: Limits,
}

/// The result of a turn after its commit.
pub struct Turn {
    /// The changes, and the effects to run.
    pub batch: Batch,
    /// The answers to send.
    pub answers: Vec<Answer>,
    /// Whether a new configuration is in force since this turn.
    pub configured: bool,
    /// How long the commit took; `None`: there was nothing to commit. For meters: nothing is decided by it.
    pub commit: Option<Duration>,
}

impl Turn {
    /// Whether the answers may leave. `leads`: this server still leads, as far as it knows. A commit is valid whichever server
    /// leads now. A turn that only read may have read an old state.
    pub fn may_leave(&self, leads: bool) -> bool {
        leads || !self.batch.is_empty()
    }
}

/// An answer that waits for the commit.
pub enum Answer {
    /// To an input.
    Input(oneshot::Sender<Result<Reply, SubmitError>>, Box<Result<Reply, SubmitError>>),
    /// To a read.
    Read(Box<dyn FnOnce() + Send>),
}

impl Answer {
    /// Sends the answer. The caller may have given up; that is not an error.
    pub fn send(self) {
        match self {
            Answer::Input(to, answer) => {
                let _ = to.send(*answer);
            }
            Answer::Read(send) => send(),
        }
    }
}

/// The error of a turn without a commit. Its callers received UNAVAILABLE, and nothing of it was published.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The memory may be ahead of the store: call [`Cycle::recover`] before the next turn.
    #[error("the commit failed: {error}")]
    Lost {
        /// The reason.
        error: CommitError,
        /// Inputs that come only once (notices, the configuration, adapters' answers). The engine repeats them after the
        /// recovery.
        again: Vec<Message>,
    },
    /// Another server leads: stop.
    #[error("another server leads now")]
    Deposed,
}

impl Cycle {
    /// Takes the store over and recovers from it. The returned batch has the changes of the restart, and is committed.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written, or another server has taken it over.
    pub async fn start(
        store: Arc<dyn Store>,
        configuration: impl Into<Configuration>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<(Self, Batch), StoreError> {
        let epoch = store.acquire().await?;
        Self::start_as(store, epoch, configuration, limits, now).await
    }

    /// As [`Cycle::start`], with an epoch that was acquired before.
    ///
    /// # Errors
    ///
    /// As [`Cycle::start`].
    pub async fn start_as(
        store: Arc<dyn Store>,
        epoch: Epoch,
        configuration: impl Into<Configuration>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<(Self, Batch), StoreError> {
        let configuration = configuration.into();
        let snapshot = store.load().await?;
        Self::start_from(store, epoch, snapshot, configuration, limits, now).await
    }

    /// As [`Cycle::start_as`], from the snapshot of a follower if it equals the store; otherwise from the store. `now` is called
    /// when the time is needed.
    ///
    /// # Errors
    ///
    /// As [`Cycle::start`].
    pub async fn take_over(
        store: Arc<dyn Store>,
        epoch: Epoch,
        followed: Option<Snapshot>,
        (configuration, limits): (Configuration, Limits),
        now: impl Fn() -> Timestamp,
    ) -> Result<(Self, Batch), StoreError> {
        if let Some(snapshot) = followed {
            let (configuration, limits) = (configuration.clone(), limits.clone());
            match Self::start_from(store.clone(), epoch, snapshot, configuration, limits, now()).await {
                Ok(started) => return Ok(started),
                Err(error @ StoreError::Deposed { .. }) => return Err(error),
                Err(error) => tracing::warn!(%error, "the followed state differs from the store; loading the store"),
            }
        }
        Self::start_as(store, epoch, configuration, limits, now()).await
    }

    /// As [`Cycle::start_as`], from a snapshot of the store that was made after the epoch was acquired.
    ///
    /// # Errors
    ///
    /// As [`Cycle::start`]; also if the snapshot differs from the store.
    pub async fn start_from(
        store: Arc<dyn Store>,
        epoch: Epoch,
        snapshot: Snapshot,
        configuration: impl Into<Configuration>,
        limits: Limits,
        now: Timestamp,
    ) -> Result<(Self, Batch), StoreError> {
        let configuration = configuration.into();
        let core = Core::recover(snapshot, configuration.clone(), limits.clone(), now);
        let mut cycle = Self { store, epoch, core, configuration, limits };
        let batch = cycle.commit_recovery().await?;
        Ok((cycle, batch))
    }

    /// Discards the memory and recovers from the store, still as leader.
    ///
    /// # Errors
    ///
    /// [`StoreError::Deposed`] if another server leads: stop. Otherwise the store cannot be read or written: try again later.
    pub async fn recover(&mut self, now: Timestamp) -> Result<Batch, StoreError> {
        let snapshot = self.store.load().await?;
        let learned = self.core.learned();
        self.core = Core::recover(snapshot, self.configuration.clone(), self.limits.clone(), now);
        self.core.remember(learned);
        self.commit_recovery().await
    }

    /// Takes over how long things took lately, as this server has seen it while it followed.
    pub(crate) fn remember(&mut self, learned: Learned) {
        self.core.remember(learned);
    }

    async fn commit_recovery(&mut self) -> Result<Batch, StoreError> {
        let batch = self.core.take_batch();
        // Also if nothing has changed: another server may have taken the store over, and only a commit detects that.
        self.store.commit(&batch, self.epoch).await.map_err(|error| match error {
            CommitError::NotCommitted(error) | CommitError::InDoubt(error) => error,
            CommitError::Deposed { current } => StoreError::Deposed { current },
        })?;
        Ok(batch)
    }

    /// Steps the core through all messages, commits, and returns the answers and effects.
    ///
    /// # Errors
    ///
    /// See [`TurnError`]. All messages are then answered with UNAVAILABLE.
    pub async fn turn(&mut self, now: Timestamp, messages: Vec<Message>) -> Result<Turn, TurnError> {
        let mut answers = Vec::with_capacity(messages.len());
        let mut again = Vec::new();
        let (mut configured, mut new) = (false, None);
        if messages.is_empty() {
            let _ = self.core.step(now, Input::Tick);
        }
        for message in messages {
            match message {
                Message::Input(input, to) => {
                    if let Input::Configure(configuration) = &*input {
                        self.configuration.clone_from(configuration);
                        configured = true;
                    }
                    if let Input::Configure(_) | Input::Notice(_) = &*input {
                        again.push(Message::Input(input.clone(), None));
                    }
                    let answer = self.core.step(now, *input).map_err(SubmitError::Rejected);
                    if let Some(to) = to {
                        answers.push(Answer::Input(to, Box::new(answer)));
                    }
                }
                Message::Configure(Configure { configuration, then, done }) => {
                    new = Some(configuration.clone());
                    let _ = self.core.step(now, Input::Configure(configuration));
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
        let began = (!batch.is_empty()).then(Moment::now);
        let committed = if batch.is_empty() { Ok(()) } else { self.store.commit(&batch, self.epoch).await };
        let commit = began.map(Moment::past);
        match committed {
            Ok(()) => {
                if let Some(configuration) = new {
                    (self.configuration, configured) = (configuration, true);
                }
                Ok(Turn { batch, answers, configured, commit })
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

    /// The configuration in force.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The state between turns.
    pub fn core(&self) -> &Core {
        &self.core
    }
}
