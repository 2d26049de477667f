//! The one database of all servers, and the way to it: requests and answers that take their time, get lost, or come when
//! nobody waits for them any more.
//!
//! It keeps the rules of the PostgreSQL store (docs/adr/0014-postgresql.md, docs/adr/0015-leadership.md): a row says who leads
//! by the database's own clock, taking it raises the epoch, each commit carries epoch and the count of settled doubts.

use super::breaks::Break;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use wharfinger::store::{Changes, CommitError, Epoch, EventQuery, MemoryStore, Store, StoreError, StoredEvent};
use wharfinger_core::{Batch, Millis, Op, PoolConfig, ResourceId, Revision, Snapshot, Timestamp};

/// What a commit is about, for the oracle.
#[derive(Clone, Default)]
pub(crate) struct Note {
    pub(crate) server: usize,
    /// The pools as they are configured where it was decided.
    pub(crate) pools: Arc<Vec<PoolConfig>>,
    /// Launches whose answers were part of it.
    pub(crate) answered: Vec<(ResourceId, Op)>,
    /// Since when the server has listened without a break, and when it began the turn.
    pub(crate) listening: (Timestamp, Timestamp),
    /// The first commit of a life, or the first after the configuration changed.
    pub(crate) first: bool,
    pub(crate) recovery: bool,
    /// It was one input, so that it tells of one moment.
    pub(crate) single: bool,
}

/// What a server asks of the database.
pub(crate) enum Request {
    Load,
    Changes(Revision, usize),
    Commit {
        batch: Box<Batch>,
        epoch: Epoch,
        settled: u64,
        note: Note,
    },
    Settle(Epoch),
    /// Who leads, asked by this life of a server.
    Leader {
        life: u64,
    },
    /// The lead for this life of a server, which has read this epoch.
    Take {
        server: usize,
        life: u64,
        seen: Epoch,
        ttl: Millis,
    },
    Renew {
        epoch: Epoch,
        ttl: Millis,
    },
    Resign {
        epoch: Epoch,
    },
}

/// What it answers.
pub(crate) enum Response {
    Loaded(Box<Snapshot>),
    Changed(Box<Result<Changes, StoreError>>),
    Committed(Result<(), CommitError>),
    /// The count from now on; an error: as whom one may write now.
    Settled(Result<u64, Epoch>),
    /// The epoch in the row, and the time for which another server leads still.
    Seen(Epoch, Option<Duration>),
    Won(Epoch, u64),
    /// Another server was faster.
    Lost,
    Renewed(bool),
    Resigned,
}

/// The database.
pub(crate) struct Db {
    inner: MemoryStore,
    epoch: Epoch,
    settled: u64,
    /// Which server leads and in which of its lives, and until when by this clock.
    leader: Option<(usize, u64)>,
    until: Timestamp,
    /// How far its clock is off.
    pub(crate) skew: i64,
    pub(crate) down: bool,
    broken: Option<Break>,
    stored: Vec<(Batch, Epoch, Note)>,
    /// Commits that came from one who leads no more, and those that came after their doubt was settled.
    pub(crate) refused: u64,
    pub(crate) late: u64,
    /// Leads that a server took again after the answer to its first attempt was lost.
    pub(crate) retaken: u64,
}

impl Db {
    pub(crate) fn new(broken: Option<Break>) -> Self {
        Self {
            inner: MemoryStore::with_salt(7),
            epoch: Epoch(0),
            settled: 0,
            leader: None,
            until: Timestamp(i64::MIN),
            skew: 0,
            down: false,
            broken,
            stored: Vec::new(),
            refused: 0,
            late: 0,
            retaken: 0,
        }
    }

    /// Who may write.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        self.leader.map(|(server, _)| server)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.inner.load_now()
    }

    /// What was stored since the last call, and as whom.
    pub(crate) fn stored(&mut self) -> Vec<(Batch, Epoch, Note)> {
        std::mem::take(&mut self.stored)
    }

    pub(crate) fn answer(&mut self, now: Timestamp, request: Request) -> Response {
        let now = Timestamp(now.0 + self.skew);
        match request {
            Request::Load => Response::Loaded(Box::new(self.inner.load_now())),
            Request::Changes(after, limit) => Response::Changed(Box::new(self.inner.changes_now(after, limit))),
            Request::Commit { batch, epoch, settled, note } => {
                Response::Committed(self.commit(*batch, epoch, settled, note))
            }
            Request::Settle(epoch) if epoch == self.epoch => {
                self.settled += 1;
                Response::Settled(Ok(self.settled))
            }
            Request::Settle(_) => Response::Settled(Err(self.epoch)),
            Request::Leader { life } => {
                let left = u64::try_from(self.until.since(now).0).unwrap_or(0);
                let other = self.until > now && self.leader.is_some_and(|(_, leader)| leader != life);
                Response::Seen(self.epoch, other.then(|| Duration::from_millis(left)))
            }
            Request::Take { server, life, seen, ttl } => {
                let own = self.until > now && self.leader == Some((server, life)) && seen == self.epoch;
                if self.until > now && !own {
                    return Response::Lost;
                }
                self.retaken += u64::from(own);
                self.epoch = self.inner.acquire_now();
                self.settled += 1;
                (self.leader, self.until) = (Some((server, life)), now.after(ttl));
                Response::Won(self.epoch, self.settled)
            }
            Request::Renew { epoch, ttl } => {
                let ours = epoch == self.epoch && self.leader.is_some();
                if ours {
                    self.until = now.after(ttl);
                }
                Response::Renewed(ours)
            }
            Request::Resign { epoch } => {
                if epoch == self.epoch {
                    (self.leader, self.until) = (None, Timestamp(i64::MIN));
                }
                Response::Resigned
            }
        }
    }

    fn commit(&mut self, batch: Batch, epoch: Epoch, settled: u64, note: Note) -> Result<(), CommitError> {
        let anybody = self.broken == Some(Break::AnyEpoch);
        if epoch != self.epoch && !anybody {
            self.refused += 1;
            return Err(CommitError::Deposed { current: self.epoch });
        }
        if settled != self.settled && !anybody {
            self.late += 1;
            let late = "it was sent before a doubt was settled".to_owned();
            return Err(CommitError::NotCommitted(StoreError::Unavailable(late)));
        }
        self.inner.commit_now(&batch, self.epoch)?;
        self.stored.push((Batch { effects: Vec::new(), ..batch }, epoch, note));
        Ok(())
    }
}

/// A request on its way.
pub(crate) struct Sent {
    pub(crate) server: usize,
    pub(crate) life: u64,
    pub(crate) request: Request,
    pub(crate) to: oneshot::Sender<Response>,
}

/// What the servers have sent and nobody has carried yet.
pub(crate) type Wire = Arc<Mutex<Vec<Sent>>>;

/// A process's way to the database: the writer of the PostgreSQL store, with its doubts.
pub(crate) struct Link {
    server: usize,
    life: u64,
    wire: Wire,
    /// It says that all is stored before it is ([`Break::ReplyFirst`]).
    hasty: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As whom we write, and the count that our commits carry.
    ours: Option<(Epoch, u64)>,
    /// It is not known whether the last commit was stored.
    doubt: bool,
    note: Note,
}

impl Link {
    pub(crate) fn new(server: usize, life: u64, wire: Wire, broken: Option<Break>) -> Self {
        Self { server, life, wire, hasty: broken == Some(Break::ReplyFirst), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// We lead, as an election says.
    pub(crate) fn lead(&self, epoch: Epoch, settled: u64) {
        let mut state = self.state();
        (state.ours, state.doubt) = (Some((epoch, settled)), false);
    }

    /// What the next commits are about.
    pub(crate) fn note(&self, note: Note) {
        self.state().note = note;
    }

    /// `None`: no answer came.
    async fn ask(&self, request: Request) -> Option<Response> {
        self.send(request).await.ok()
    }

    fn send(&self, request: Request) -> oneshot::Receiver<Response> {
        let (to, from) = oneshot::channel();
        let sent = Sent { server: self.server, life: self.life, request, to };
        self.wire.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
        from
    }

    /// What was sent before no longer counts, unless it is stored.
    async fn settle(&self) -> Result<(), StoreError> {
        let epoch = {
            let state = self.state();
            match state.ours {
                Some((epoch, _)) if state.doubt => epoch,
                _ => return Ok(()),
            }
        };
        match self.ask(Request::Settle(epoch)).await {
            Some(Response::Settled(Ok(settled))) => {
                self.lead(epoch, settled);
                Ok(())
            }
            Some(Response::Settled(Err(current))) => Err(StoreError::Deposed { current }),
            _ => Err(away()),
        }
    }
}

fn away() -> StoreError {
    StoreError::Unavailable("the simulated database does not answer".to_owned())
}

#[async_trait::async_trait]
impl Store for Link {
    async fn acquire(&self) -> Result<Epoch, StoreError> {
        Err(StoreError::Configuration("one of several servers is elected".to_owned()))
    }

    async fn load(&self) -> Result<Snapshot, StoreError> {
        self.settle().await?;
        match self.ask(Request::Load).await {
            Some(Response::Loaded(snapshot)) => Ok(*snapshot),
            _ => Err(away()),
        }
    }

    async fn commit(&self, batch: &Batch, epoch: Epoch) -> Result<(), CommitError> {
        self.settle().await.map_err(|error| match error {
            StoreError::Deposed { current } => CommitError::Deposed { current },
            error => CommitError::NotCommitted(error),
        })?;
        let (settled, note) = {
            let mut state = self.state();
            state.doubt = true;
            (state.ours.map_or(0, |(_, settled)| settled), state.note.clone())
        };
        let request = Request::Commit { batch: Box::new(batch.clone()), epoch, settled, note };
        if self.hasty {
            self.send(request);
            self.state().doubt = false;
            return Ok(());
        }
        match self.ask(request).await {
            Some(Response::Committed(result)) => {
                self.state().doubt = false;
                result
            }
            _ => Err(CommitError::InDoubt(away())),
        }
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Changes, StoreError> {
        // Small pages, so that there are several.
        match self.ask(Request::Changes(after, limit.min(40))).await {
            Some(Response::Changed(changes)) => *changes,
            _ => Err(away()),
        }
    }

    async fn events(&self, _query: &EventQuery) -> Result<Vec<StoredEvent>, StoreError> {
        Ok(Vec::new())
    }
}
