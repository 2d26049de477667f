//! The way into the engine: cheap to clone, bounded, answered only after the commit.

use crate::clock::Clock;
use crate::engine::leadership::{Role, Standing};
use crate::engine::{Hub, adapter_results};
use crate::store::{EventQuery, Store, StoreError, StoredEvent};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use wharfinger_core::{Core, Input, PoolConfig, Rejection, Reply, Revision, Timestamp};

/// What the engine takes from its mailbox.
pub enum Message {
    /// An input with the place for its answer.
    Input(Box<Input>, Option<oneshot::Sender<Result<Reply, SubmitError>>>),
    /// Another configuration, whole.
    Configure(Configure),
    /// An adapter's answer to this call. It is dropped if the call was ended or its answer is committed already.
    Fact(Box<Input>, CallId),
    /// A question; its answer is held back until what it saw is committed.
    Read(Read),
    /// Somebody wants to ask about what is committed now: on a server that follows, after another look into the store.
    Refresh(Refreshed),
}

/// Another configuration. One whose commit fails leaves everything as it was.
pub struct Configure {
    /// The pools, in the order of the file; already checked.
    pub pools: Vec<PoolConfig>,
    /// Runs after the commit, before anything starts under this configuration.
    pub then: Box<dyn FnOnce() + Send>,
    /// Receives `()` after that. Dropped if the commit fails.
    pub done: oneshot::Sender<Result<(), SubmitError>>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Input(input, _) => f.debug_tuple("Input").field(input).finish_non_exhaustive(),
            Message::Configure(new) => f.debug_tuple("Configure").field(&new.pools).finish(),
            Message::Fact(input, call) => f.debug_tuple("Fact").field(input).field(call).finish(),
            Message::Read(_) => f.write_str("Read"),
            Message::Refresh(_) => f.write_str("Refresh"),
        }
    }
}

/// One call of an adapter; a repetition of the same operation has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Told when a look into the store has ended that began after it was asked for.
pub type Refreshed = oneshot::Sender<Result<(), SubmitError>>;

/// A question to the core; returns what sends the answer.
pub type Read = Box<dyn FnOnce(&Core, Timestamp) -> Box<dyn FnOnce() + Send> + Send>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The core refused it; nothing was changed.
    #[error("{}", .0.message)]
    Rejected(Rejection),
    /// The broker can't answer now: it recovers from its store, or stops. It may have been done: repeat it with the
    /// same request id.
    #[error("{0}")]
    Unavailable(String),
    /// Another server decides, as far as that is known at this address. Nothing was done.
    #[error("this server does not lead")]
    NotLeader(Option<Arc<str>>),
    /// What this server knows is too old to be said, or it knows nothing yet.
    #[error("what this server knows is too old")]
    Stale {
        /// How old; `None`: nothing is known.
        age: Option<Duration>,
        /// How old it may be.
        max_age: Duration,
    },
    /// This server, which follows, has not heard yet of what is asked for.
    #[error("this server is at revision {have}, behind {wanted}")]
    Behind {
        /// Where it is.
        have: Revision,
        /// What was asked for.
        wanted: Revision,
    },
    /// What is asked for never was.
    #[error("revision {wanted} is not reached yet, this is {have}")]
    Future {
        /// Where the broker is.
        have: Revision,
        /// What was asked for.
        wanted: Revision,
    },
}

/// Submits inputs and questions to the engine.
#[derive(Clone)]
pub struct Handle {
    mailbox: mpsc::Sender<Message>,
    hub: Hub,
    store: Arc<dyn Store>,
    standing: Standing,
    clock: Clock,
}

impl Handle {
    /// A handle on the engine behind this mailbox, which decides.
    pub fn new(mailbox: mpsc::Sender<Message>, hub: Hub, store: Arc<dyn Store>) -> Self {
        Self::of(mailbox, hub, store, Standing::leading())
    }

    /// A handle on whatever is behind this mailbox.
    pub(crate) fn of(mailbox: mpsc::Sender<Message>, hub: Hub, store: Arc<dyn Store>, standing: Standing) -> Self {
        Self { mailbox, hub, store, standing, clock: Clock::default() }
    }

    /// The time in which the core decides.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What is wrong with the clock of this server.
    pub fn clock_warnings(&self) -> Vec<String> {
        crate::clock::warnings(self.clock.read(), self.store.clock_offset())
    }

    /// How this server stands.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Submits an input and waits until what it changed is durable.
    pub async fn submit(&self, input: Input) -> Result<Reply, SubmitError> {
        let (tx, rx) = oneshot::channel();
        self.mailbox.send(Message::Input(Box::new(input), Some(tx))).await.map_err(|_| stopped())?;
        rx.await.map_err(|_| stopped())?
    }

    /// Submits an input that nobody waits for.
    pub async fn report(&self, input: Input) -> Result<(), SubmitError> {
        self.mailbox.send(Message::Input(Box::new(input), None)).await.map_err(|_| stopped())
    }

    /// Submits a notice and waits until what it changed is durable.
    pub async fn notice(&self, notice: wharfinger_adapter::Notice) -> Result<(), SubmitError> {
        match adapter_results::notice(notice, self.clock.read()) {
            Some(input) => self.submit(input).await.map(drop),
            None => Ok(()),
        }
    }

    /// Takes another configuration. `then` runs after its commit and before anything starts under it.
    ///
    /// # Errors
    /// [`SubmitError::Unavailable`], [`SubmitError::NotLeader`]: everything is as it was, and `then` did not run.
    pub async fn configure(
        &self,
        pools: Vec<PoolConfig>,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), SubmitError> {
        let (done, told) = oneshot::channel();
        let new = Configure { pools, then: Box::new(then), done };
        self.mailbox.send(Message::Configure(new)).await.map_err(|_| stopped())?;
        told.await.map_err(|_| stopped())?
    }

    /// Submits an adapter's answer.
    pub(crate) async fn fact(&self, input: Input, call: CallId) -> Result<(), SubmitError> {
        self.mailbox.send(Message::Fact(Box::new(input), call)).await.map_err(|_| stopped())
    }

    /// Asks the core something. The answer comes when all that it saw is durable.
    pub async fn read<T, F>(&self, question: F) -> Result<T, SubmitError>
    where
        T: Send + 'static,
        F: FnOnce(&Core, Timestamp) -> T + Send + 'static,
    {
        self.standing.fresh()?;
        let (tx, rx) = oneshot::channel();
        let read: Read = Box::new(move |core, now| {
            let answer = question(core, now);
            Box::new(move || {
                let _ = tx.send(answer);
            })
        });
        self.mailbox.send(Message::Read(read)).await.map_err(|_| stopped())?;
        rx.await.map_err(|_| stopped())
    }

    /// Waits until what is asked next is about what is committed now, or later: at once where it is decided.
    pub async fn refresh(&self) -> Result<(), SubmitError> {
        if self.standing.role() == Role::Leading {
            return Ok(());
        }
        let (tx, rx) = oneshot::channel();
        self.mailbox.send(Message::Refresh(tx)).await.map_err(|_| stopped())?;
        rx.await.map_err(|_| stopped())?
    }

    /// Waits until this revision can be read here, but not for longer than this.
    ///
    /// # Errors
    /// [`SubmitError::Behind`] if a server that follows has not heard of it in that time; [`SubmitError::Future`] if it never
    /// was.
    pub async fn reach(&self, wanted: Revision, patience: Duration) -> Result<(), SubmitError> {
        let mut told = self.hub.revision();
        if *told.borrow() >= wanted {
            return Ok(());
        }
        if self.standing.role() == Role::Following {
            let heard = async {
                // A hint may be late.
                let (asked, _) = oneshot::channel();
                let _ = self.mailbox.send(Message::Refresh(asked)).await;
                told.wait_for(|have| *have >= wanted).await.is_ok()
            };
            if let Ok(true) = tokio::time::timeout(patience, heard).await {
                return Ok(());
            }
        }
        let have = *self.hub.revision().borrow();
        match self.standing.role() {
            Role::Leading if have >= wanted => Ok(()),
            Role::Leading => Err(SubmitError::Future { have, wanted }),
            Role::Following => Err(SubmitError::Behind { have, wanted }),
        }
    }

    /// Waits until nobody takes anything any more.
    pub(crate) async fn closed(&self) {
        self.mailbox.closed().await;
    }

    /// Where changes are told.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The audit trail.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.store.events(query).await
    }
}

fn stopped() -> SubmitError {
    SubmitError::Unavailable("the broker is stopping or recovers from its store; try again".into())
}
