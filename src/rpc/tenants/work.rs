//! The work that is done to find out about a lease: for one of another tenant it is that for one which never was, on each server.

use super::golden::{CALLERS, NO, OWNER, TABLE, call, fresh, lease_of};
use super::*;
use crate::engine::Message;
use crate::pb;
use crate::store::{Changes, CommitError, Epoch, EventQuery, Store, StoreError, StoredEvent};
use std::sync::Mutex;
use tokio::sync::mpsc;
use wharfinger_core::{Batch, LeaseId, Revision, Snapshot};

/// The work for one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Questions to the core.
    reads: u32,
    /// Reads of the store by a server that follows.
    refreshes: u32,
    /// Inputs to the core.
    inputs: u32,
    /// Reads of the audit trail.
    trails: u32,
}

#[derive(Clone, Default)]
struct Counter(Arc<Mutex<Cost>>);

impl Counter {
    fn add(&self, change: impl FnOnce(&mut Cost)) {
        change(&mut self.0.lock().unwrap());
    }

    fn taken(&self) -> Cost {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// The store of a handle, which counts its questions.
struct Counted(SqliteStore, Counter);

#[async_trait]
impl Store for Counted {
    async fn acquire(&self) -> Result<Epoch, StoreError> {
        self.0.acquire().await
    }
    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.0.load().await
    }
    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
        self.0.commit(batch, epoch).await
    }
    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        self.0.changes_since(after, limit).await
    }
    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        self.1.add(|cost| cost.trails += 1);
        self.0.events(query).await
    }
}

/// A handle whose messages go on to this one, and are counted.
fn counting(to: &Handle, store: &SqliteStore, counter: &Counter) -> Handle {
    let (mailbox, mut messages) = mpsc::channel(64);
    let counted = Arc::new(Counted(store.clone(), counter.clone()));
    let handle = Handle::of(mailbox, to.hub().clone(), counted, to.leadership().clone());
    let (to, counter) = (to.clone(), counter.clone());
    // Ends with the last handle.
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Read(read) => {
                    counter.add(|cost| cost.reads += 1);
                    if let Ok(answer) = to.read(read).await {
                        answer();
                    }
                }
                Message::Refresh(asked) => {
                    counter.add(|cost| cost.refreshes += 1);
                    drop(asked.send(to.refresh().await));
                }
                Message::Input(input, answer) => {
                    counter.add(|cost| cost.inputs += 1);
                    let done = to.submit(*input).await;
                    if let Some(answer) = answer {
                        drop(answer.send(done));
                    }
                }
                Message::Configure(_) | Message::Fact(..) => panic!("a port sends calls alone"),
            }
        }
    });
    handle
}

/// The outcome of a call, and its cost on both servers.
async fn cost(server: &Server, by: &Bearer, method: &str, lease: &pb::Lease, counter: &Counter) -> (String, Cost) {
    counter.taken();
    let found = outcome(call(server, by, method, lease, (fresh(), "")).await);
    (found, counter.taken())
}

#[tokio::test]
async fn n85_a_foreign_lease_costs_the_same_work_as_one_that_never_was() {
    let callers: Vec<Who> = CALLERS.iter().filter_map(|(_, who)| *who).collect();
    let (world, bearers) = world(2, 8, &callers).await;
    let counter = Counter::default();
    let sources = || {
        let credentials = CredentialSources::default();
        credentials.set("p", PoolCredentials::Source(Arc::new(OneKey)));
        AnswerSources { credentials, trust: world.trust.clone(), ..AnswerSources::default() }
    };
    let serve = async |handle: &Handle| {
        let handle = counting(handle, &world.store, &counter);
        Server::over(serving_for(RpcLimits::default(), handle, sources()).await).await
    };
    let (leader, follower) = (serve(&world.handle).await, serve(&world.follows.handle).await);
    world.follows.handle.leadership().follow(leading_with(&leader.server, KEY));
    let (owner, stranger, colleague) = (&bearers[OWNER - 1], &bearers[0], &bearers[2]);
    let lease = lease_of(&world, owner).await;
    world.follows.handle.refresh().await.unwrap();
    let never = pb::Lease { id: LeaseId::new(77).to_string(), ..lease.clone() };
    let revision = async || world.handle.read(|core, _| core.revision()).await.unwrap();
    let before = revision().await;
    let methods = TABLE.iter().filter(|(_, expected)| expected[1] == NO).map(|(method, _)| *method);
    let (mut compared, mut opened) = (0, 0);
    for method in methods {
        for (server, place) in [(&leader, "leader"), (&follower, "follower")] {
            let in_session = method.starts_with("LeaseService/Session");
            // A server that follows refuses each session before it looks.
            if in_session && place == "follower" {
                continue;
            }
            for by in [stranger, colleague] {
                let (refused, foreign) = cost(server, by, method, &lease, &counter).await;
                let (unknown, nothing) = cost(server, by, method, &never, &counter).await;
                assert_eq!((&*refused, &*unknown), (NO, NO), "{method} on the {place}");
                assert_eq!(foreign, nothing, "{method} on the {place}");
                assert!(foreign.reads + foreign.inputs > 0, "{method} on the {place} is counted: {foreign:?}");
                compared += 1;
                opened += 2 * u64::from(in_session);
            }
        }
    }
    assert!(compared >= 36, "{compared}");
    let with_sessions = Revision(before.0 + opened);
    assert_eq!(revision().await, with_sessions, "nothing but the opening of sessions is committed to find out");
    // The counts can differ: the owner's lease is found at once, on the server that follows too.
    let (found, own) = cost(&follower, owner, "LeaseService/Get", &lease, &counter).await;
    let (_, foreign) = cost(&follower, stranger, "LeaseService/Get", &lease, &counter).await;
    assert_eq!((&*found, own), ("OK", Cost { reads: 1, ..Cost::default() }));
    assert_eq!(foreign, Cost { reads: 2, refreshes: 1, ..Cost::default() });
    let (_, told) = cost(&leader, owner, "LeaseService/Explain", &lease, &counter).await;
    assert_eq!(told.trails, 1, "{told:?}");
}
