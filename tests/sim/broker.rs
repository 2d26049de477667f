//! The broker under test: the server's own cycle over a store in memory, with a log of the batches that were stored.

use crate::follower::Follower;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::oneshot;
use wharfinger::engine::{Cycle, Message, SubmitError, Turn, TurnError};
use wharfinger::store::{Changes, CommitError, Epoch, EventQuery, Fault, MemoryStore, Store, StoreError, StoredEvent};
use wharfinger_core::{Batch, Configuration, Core, Input, Limits, Millis, Reply, Revision, Snapshot, Timestamp};

/// An answer as its caller gets it; `None` if the broker died before.
pub(crate) type Answered = Option<Result<Reply, SubmitError>>;

/// Time for which ended leases are kept. It is short, so that a run sees them forgotten.
pub(crate) const RETENTION: Millis = Millis::secs(90);

/// A store that knows which commits were stored, also of commits without an answer.
pub(crate) struct Recorder {
    inner: MemoryStore,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    faults: VecDeque<Option<Fault>>,
    stored: Vec<Batch>,
}

impl Recorder {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl Store for Recorder {
    async fn acquire(&self) -> Result<Epoch, StoreError> {
        self.inner.acquire().await
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.inner.load().await
    }

    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
        let fault = self.log().faults.pop_front().flatten();
        if let Some(fault) = fault {
            self.inner.inject(fault);
        }
        let result = self.inner.commit(batch, epoch).await;
        if result.is_ok() || fault == Some(Fault::InDoubtStored) {
            self.log().stored.push(Batch { effects: Vec::new(), ..batch.clone() });
        }
        result
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        self.inner.changes_since(after, limit).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.inner.events(query).await
    }
}

/// The end of a turn.
pub(crate) enum Outcome {
    /// The turn was committed, and no answer has left.
    Committed(Turn, Vec<oneshot::Receiver<Result<Reply, SubmitError>>>),
    /// The commit failed: these answers left, and the broker has recovered. The batch has the changes of the recovery.
    Recovered { answers: Vec<Answered>, batch: Batch, again: Vec<Input> },
}

pub(crate) struct Broker {
    store: Arc<Recorder>,
    cycle: Option<Cycle>,
    follower: Follower,
    limits: Limits,
}

impl Broker {
    /// A broker with this patience.
    pub(crate) fn new(patience: Millis) -> Self {
        let store = Recorder { inner: MemoryStore::with_salt(7), log: Mutex::default() };
        Self {
            store: Arc::new(store),
            cycle: None,
            follower: Follower::default(),
            limits: Limits { patience, ..Self::limits() },
        }
    }

    /// Those of a broker without patience.
    pub(crate) fn limits() -> Limits {
        Limits { retention: RETENTION, patience: Millis::ZERO, ..Limits::default() }
    }

    /// Starts a process on the stored state; `None` if the store failed.
    pub(crate) fn start(&mut self, configuration: Configuration, now: Timestamp) -> Option<Batch> {
        let store: Arc<dyn Store> = self.store.clone();
        let (cycle, batch) = ready(Cycle::start(store, configuration, self.limits.clone(), now)).ok()?;
        self.cycle = Some(cycle);
        Some(batch)
    }

    /// Ends the process; its memory is lost.
    pub(crate) fn die(&mut self) {
        self.cycle = None;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.cycle.is_some()
    }

    /// Lets the next commit fail.
    pub(crate) fn inject(&self, fault: Option<Fault>) {
        self.store.log().faults.push_back(fault);
    }

    pub(crate) fn clear_faults(&self) {
        self.store.log().faults.clear();
    }

    /// The batches that were stored since the last call.
    pub(crate) fn stored(&self) -> Vec<Batch> {
        std::mem::take(&mut self.store.log().stored)
    }

    /// Adds a server that follows.
    pub(crate) fn follow(&mut self, configuration: &Configuration) {
        self.follower.look(&self.store.inner, configuration, self.limits.clone());
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.store.inner.load_now()
    }

    pub(crate) fn changes(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        self.store.inner.changes_now(after, limit)
    }

    pub(crate) fn core(&self) -> &Core {
        self.cycle.as_ref().expect("asked only while it is up").core()
    }

    /// One turn over these inputs, each with a caller that waits for its answer.
    pub(crate) fn turn(&mut self, now: Timestamp, inputs: Vec<Input>) -> Outcome {
        let cycle = self.cycle.as_mut().expect("turned only while it is up");
        let mut receivers = Vec::new();
        let mut messages = Vec::new();
        for input in inputs {
            let (to, from) = oneshot::channel();
            messages.push(Message::Input(Box::new(input), Some(to)));
            receivers.push(from);
        }
        match ready(cycle.turn(now, messages)) {
            Ok(turn) => Outcome::Committed(turn, receivers),
            Err(TurnError::Deposed) => panic!("nobody else leads"),
            Err(TurnError::Lost { again, .. }) => {
                let answers = receivers.into_iter().map(|mut from| from.try_recv().ok()).collect();
                let again = again.into_iter().filter_map(|message| match message {
                    Message::Input(input, _) => Some(*input),
                    Message::Fact(..) | Message::Configure(_) | Message::Read(_) | Message::Refresh(_) => None,
                });
                let again = again.collect();
                loop {
                    if let Ok(batch) = ready(cycle.recover(now)) {
                        return Outcome::Recovered { answers, batch, again };
                    }
                }
            }
        }
    }
}

/// Polls a future once. The store in memory is always ready.
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the store in memory made us wait"),
    }
}
