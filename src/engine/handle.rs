//! The way into the engine: cheap to clone, bounded, answered only after the commit.

use crate::engine::{Hub, facts};
use crate::store::{EventQuery, Store, StoreError, StoredEvent};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use wharfinger_core::{Core, Input, Rejection, Reply, Timestamp};

/// What the engine takes from its mailbox.
pub enum Message {
    /// An input with the place for its answer.
    Input(Box<Input>, Option<oneshot::Sender<Result<Reply, SubmitError>>>),
    /// An adapter's answer to a call of this generation. Calls are made again after a recovery from the store: an
    /// answer to one from before it would be taken for the new one's.
    Fact(Box<Input>, u64),
    /// A question; its answer is held back until what it saw is committed.
    Read(Read),
}

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
}

/// Submits inputs and questions to the engine.
#[derive(Clone)]
pub struct Handle {
    mailbox: mpsc::Sender<Message>,
    hub: Hub,
    store: Arc<dyn Store>,
}

impl Handle {
    /// A handle on the engine behind this mailbox.
    pub fn new(mailbox: mpsc::Sender<Message>, hub: Hub, store: Arc<dyn Store>) -> Self {
        Self { mailbox, hub, store }
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
        match facts::notice(notice) {
            Some(input) => self.submit(input).await.map(drop),
            None => Ok(()),
        }
    }

    /// Submits an adapter's answer.
    pub(crate) async fn fact(&self, input: Input, generation: u64) -> Result<(), SubmitError> {
        self.mailbox.send(Message::Fact(Box::new(input), generation)).await.map_err(|_| stopped())
    }

    /// Asks the core something. The answer comes when all that it saw is durable.
    pub async fn read<T, F>(&self, question: F) -> Result<T, SubmitError>
    where
        T: Send + 'static,
        F: FnOnce(&Core, Timestamp) -> T + Send + 'static,
    {
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
