//! The handle of the engine. It is cheap to clone, its mailbox is bounded, and an answer leaves only after the commit.

use crate::clock::Clock;
use crate::engine::leadership::{Leadership, Role};
use crate::engine::observe::Observed;
use crate::engine::{UsualTtls, WatchHub, adapter_results};
#[cfg(any(feature = "postgres", test))]
use crate::store::ServerReport;
use crate::store::{EventQuery, SeenServer, Store, StoreError, StoredEvent};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use wharfinger_core::{Configuration, Core, Input, Rejection, Reply, Revision, Timestamp};

/// A message in the engine's mailbox.
pub enum Message {
    /// An input, and the channel for its answer.
    Input(Box<Input>, Option<oneshot::Sender<Result<Reply, SubmitError>>>),
    /// A complete new configuration.
    Configure(Configure),
    /// An adapter's answer to this call. The engine drops it if the call was ended or its answer is committed already.
    Fact(Box<Input>, CallId),
    /// A read. Its answer leaves after the state that it read is committed.
    Read(Read),
    /// Asks for the state that is committed now. A server that follows reads the store first.
    Refresh(Refreshed),
}

/// A new configuration. If its commit fails, the former configuration stays in force.
pub struct Configure {
    /// Pools and tenants; already checked.
    pub configuration: Configuration,
    /// Runs after the commit, before anything starts under this configuration.
    pub then: Box<dyn FnOnce() + Send>,
    /// Receives `()` afterwards. Dropped if the commit fails.
    pub done: oneshot::Sender<Result<(), SubmitError>>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Input(input, _) => f.debug_tuple("Input").field(input).finish_non_exhaustive(),
            Message::Configure(new) => f.debug_tuple("Configure").field(&new.configuration).finish(),
            Message::Fact(input, call) => f.debug_tuple("Fact").field(input).field(call).finish(),
            Message::Read(_) => f.write_str("Read"),
            Message::Refresh(_) => f.write_str("Refresh"),
        }
    }
}

/// Identifies one call of an adapter. A repetition of the same operation has a new id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Completes when a read of the store that started after this request has finished.
pub type Refreshed = oneshot::Sender<Result<(), SubmitError>>;

/// A read of the core. It returns the function that sends the answer.
pub type Read = Box<dyn FnOnce(&Core, Timestamp) -> Box<dyn FnOnce() + Send> + Send>;

/// The reason why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The core refused the input; nothing changed.
    #[error("{}", .0.message)]
    Rejected(Rejection),
    /// The broker cannot answer now: it recovers from its store, or stops. The request may have been carried out: repeat it
    /// with the same request id.
    #[error("{0}")]
    Unavailable(String),
    /// Another server leads, at this address if it is known. Nothing changed.
    #[error("this server does not lead")]
    NotLeader(Option<Arc<str>>),
    /// The data of this server is too old for an answer, or it has none yet.
    #[error("the data of this server is too old")]
    Stale {
        /// Age of the data; `None` if there is none.
        age: Option<Duration>,
        /// Maximum age of an answer.
        max_age: Duration,
    },
    /// This server follows and has not yet read the requested revision.
    #[error("this server is at revision {have}, behind {wanted}")]
    Behind {
        /// The revision of this server.
        have: Revision,
        /// The requested revision.
        wanted: Revision,
    },
    /// The requested revision does not exist.
    #[error("revision {wanted} is not reached yet, this is {have}")]
    Future {
        /// The revision of the broker.
        have: Revision,
        /// The requested revision.
        wanted: Revision,
    },
}

/// Submits inputs and reads to the engine.
#[derive(Clone)]
pub struct Handle {
    mailbox: mpsc::Sender<Message>,
    hub: WatchHub,
    store: Arc<dyn Store>,
    leadership: Leadership,
    clock: Clock,
    observed: Observed,
    usual_ttls: UsualTtls,
}

impl Handle {
    /// Creates a handle on an engine that leads.
    pub fn new(mailbox: mpsc::Sender<Message>, hub: WatchHub, store: Arc<dyn Store>) -> Self {
        Self::of(mailbox, hub, store, Leadership::leading())
    }

    /// Creates a handle on an engine with this leadership.
    pub(crate) fn of(
        mailbox: mpsc::Sender<Message>,
        hub: WatchHub,
        store: Arc<dyn Store>,
        leadership: Leadership,
    ) -> Self {
        let (clock, observed, usual_ttls) = Default::default();
        Self { mailbox, hub, store, leadership, clock, observed, usual_ttls }
    }

    /// With this place of an observer.
    pub(crate) fn observed_by(self, observed: Observed) -> Self {
        Self { observed, ..self }
    }

    /// The time in which the core decides.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The place of the observer of this engine.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// The usual TTL of each pool.
    pub fn usual_ttls(&self) -> &UsualTtls {
        &self.usual_ttls
    }

    /// Number of messages that wait for the engine.
    pub fn backlog(&self) -> usize {
        self.mailbox.max_capacity() - self.mailbox.capacity()
    }

    /// Warnings about the clock of this server.
    pub fn clock_warnings(&self) -> Vec<String> {
        crate::clock::warnings(self.clock.read(), self.store.clock_offset())
    }

    /// The leadership of this server.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Submits an input and waits until its changes are durable.
    pub async fn submit(&self, input: Input) -> Result<Reply, SubmitError> {
        let (tx, rx) = oneshot::channel();
        self.mailbox.send(Message::Input(Box::new(input), Some(tx))).await.map_err(|_| stopped())?;
        rx.await.map_err(|_| stopped())?
    }

    /// Submits an input without waiting for its answer.
    pub async fn report(&self, input: Input) -> Result<(), SubmitError> {
        self.mailbox.send(Message::Input(Box::new(input), None)).await.map_err(|_| stopped())
    }

    /// Submits a notice and waits until its changes are durable.
    pub async fn notice(&self, notice: wharfinger_adapter::Notice) -> Result<(), SubmitError> {
        match adapter_results::notice(notice, self.clock.read()) {
            Some(input) => self.submit(input).await.map(drop),
            None => Ok(()),
        }
    }

    /// Applies a new configuration. `then` runs after its commit and before anything starts under it.
    ///
    /// # Errors
    /// [`SubmitError::Unavailable`], [`SubmitError::NotLeader`]: nothing changed, and `then` did not run.
    pub async fn configure(
        &self,
        configuration: impl Into<Configuration>,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), SubmitError> {
        let (done, finished) = oneshot::channel();
        let new = Configure { configuration: configuration.into(), then: Box::new(then), done };
        self.mailbox.send(Message::Configure(new)).await.map_err(|_| stopped())?;
        finished.await.map_err(|_| stopped())?
    }

    /// Submits an adapter's answer.
    pub(crate) async fn fact(&self, input: Input, call: CallId) -> Result<(), SubmitError> {
        self.mailbox.send(Message::Fact(Box::new(input), call)).await.map_err(|_| stopped())
    }

    /// Reads from the core. The answer comes when the state that it read is durable.
    pub async fn read<T, F>(&self, question: F) -> Result<T, SubmitError>
    where
        T: Send + 'static,
        F: FnOnce(&Core, Timestamp) -> T + Send + 'static,
    {
        self.leadership.fresh()?;
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

    /// Waits until the next read returns the state that is committed now, or a later one. Returns at once on the leader.
    pub async fn refresh(&self) -> Result<(), SubmitError> {
        if self.leadership.role() == Role::Leading {
            return Ok(());
        }
        let (tx, rx) = oneshot::channel();
        self.mailbox.send(Message::Refresh(tx)).await.map_err(|_| stopped())?;
        rx.await.map_err(|_| stopped())?
    }

    /// Waits until this revision can be read here, at most for `patience`.
    ///
    /// # Errors
    /// [`SubmitError::Behind`] if a server that follows has not read it in that time; [`SubmitError::Future`] if it does not
    /// exist.
    pub async fn reach(&self, wanted: Revision, patience: Duration) -> Result<(), SubmitError> {
        let mut revision = self.hub.revision();
        if *revision.borrow() >= wanted {
            return Ok(());
        }
        if self.leadership.role() == Role::Following {
            let heard = async {
                // The store's hint may be late.
                let (asked, _) = oneshot::channel();
                let _ = self.mailbox.send(Message::Refresh(asked)).await;
                revision.wait_for(|have| *have >= wanted).await.is_ok()
            };
            if let Ok(true) = tokio::time::timeout(patience, heard).await {
                return Ok(());
            }
        }
        let have = *self.hub.revision().borrow();
        match self.leadership.role() {
            Role::Leading if have >= wanted => Ok(()),
            Role::Leading => Err(SubmitError::Future { have, wanted }),
            Role::Following => Err(SubmitError::Behind { have, wanted }),
        }
    }

    /// Waits until no engine reads the mailbox.
    pub(crate) async fn closed(&self) {
        self.mailbox.closed().await;
    }

    /// The hub that publishes committed changes.
    pub fn hub(&self) -> &WatchHub {
        &self.hub
    }

    /// Stores the report of this server.
    #[cfg(any(feature = "postgres", test))]
    pub(crate) async fn report_self(&self, report: &ServerReport) -> Result<(), StoreError> {
        self.store.report_server(report).await
    }

    /// The latest report of each server on the store. None: the store has this server alone.
    pub(crate) async fn servers(&self) -> Result<Vec<SeenServer>, StoreError> {
        self.store.servers().await
    }

    /// Reads entries of the audit trail.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.store.events(query).await
    }
}

fn stopped() -> SubmitError {
    SubmitError::Unavailable("the broker is stopping or recovers from its store; try again".into())
}
