//! One of several servers: its clocks, its task, and the contents of its mailbox.

use super::db::Link;
use crate::adapters::Caller;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;
use wharfinger::engine::{Cycle, SubmitError, Turn, TurnError, WatchHub, changes_after};
use wharfinger::store::{Epoch, StoreError, Term};
use wharfinger_core::{
    Batch, Configuration, Core, HybridClock, Input, Lease, Limits, PoolConfig, Reading, Reply, Revision, Tenants,
    Timestamp,
};

/// The true time, which no part of the simulation knows.
pub(crate) type Now = Arc<AtomicI64>;

/// The two clocks of a server: one for the time of day, and one that only goes forward.
#[derive(Clone)]
pub(crate) struct Clock {
    now: Now,
    /// Offset, and excess rate in millionths.
    pub(crate) skew: i64,
    drift: i64,
    start: Timestamp,
}

impl Clock {
    pub(crate) fn new(now: Now, skew: i64, drift: i64) -> Self {
        let start = Timestamp(now.load(Ordering::Relaxed));
        Self { now, skew, drift, start }
    }

    fn passed(&self) -> i64 {
        let passed = self.now.load(Ordering::Relaxed) - self.start.0;
        passed + passed * self.drift / 1_000_000
    }

    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp(self.start.0 + self.skew + self.passed())
    }

    fn since_epoch(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.wall().0).unwrap_or(0))
    }

    /// The hybrid clock of a process that starts now.
    pub(crate) fn hybrid(&self) -> HybridClock {
        HybridClock::new(self.since_epoch(), self.steady())
    }

    /// Time since an earlier instant.
    pub(crate) fn steady(&self) -> Duration {
        Duration::from_millis(u64::try_from(1_000_000 + self.passed()).unwrap_or(0))
    }
}

/// A request to a leading server.
pub(crate) enum Mail {
    /// A holder looks at its leases and acts; the number is that of the attempt.
    Act(usize, u64),
    Input(Input),
    /// The answer of an adapter, for its caller.
    Fact(Input, u64),
    /// A note that a call stores before it continues, with the owner of the call.
    Note(Input, u64),
    Operator,
    Undo,
    Configure(Arc<Vec<PoolConfig>>),
    /// A watcher reads the events that it missed; the number is that of its connection.
    Watch(usize, u64, Revision),
}

/// The events that a watcher reads.
pub(crate) struct Page {
    pub(crate) leases: Vec<Arc<Lease>>,
    pub(crate) revision: Revision,
    pub(crate) floor: Revision,
}

impl Page {
    pub(crate) fn read(core: &Core, after: Revision) -> Self {
        let (revision, floor) = (core.revision(), core.floor());
        let after = if after < floor { Revision(0) } else { after };
        Self { leases: core.leases_changed_after(after).cloned().collect(), revision, floor }
    }
}

/// The caller that waits for an answer.
pub(crate) enum Asked {
    Input {
        input: Input,
        holder: Option<usize>,
        from: oneshot::Receiver<Result<Reply, SubmitError>>,
    },
    Noted {
        input: Input,
        life: u64,
        from: oneshot::Receiver<Result<Reply, SubmitError>>,
    },
    /// The answer of an adapter, whose call ends with the commit.
    Settled {
        input: Input,
        life: u64,
    },
    Page {
        watcher: usize,
        connection: u64,
        from: oneshot::Receiver<Page>,
    },
}

/// The end of a task.
pub(crate) enum Done {
    Followed(Result<Followed, StoreError>),
    Started(Result<(Box<Cycle>, Batch), StoreError>),
    Turned(Box<Cycle>, Result<Turn, TurnError>, Vec<Asked>),
    Recovered(Box<Cycle>, Result<Batch, StoreError>),
}

/// The result of a read of the store.
pub(crate) enum Followed {
    All(Box<Core>),
    Changes(Box<Batch>),
}

pub(crate) type Task = Pin<Box<dyn Future<Output = Done>>>;

/// The role and task of a server.
pub(crate) enum Phase {
    Down,
    /// It follows; a read of the store may be under way.
    Following(Option<Task>),
    /// It won the lead and takes over.
    Taking(Task),
    /// It leads and waits.
    Idle(Box<Cycle>),
    /// It leads, and waits for the database.
    Busy(Task),
    /// The commit is done, and no answer has left.
    Held(Box<Cycle>, Box<Turn>, Vec<Asked>),
    /// The store failed it; it tries to recover again soon.
    Lost(Box<Cycle>),
}

pub(crate) struct Server {
    pub(crate) number: usize,
    pub(crate) life: u64,
    pub(crate) caller: Caller,
    pub(crate) clock: Clock,
    /// The core's time; `None` for the time of the wall clock ([`super::Break::WallClock`]).
    pub(crate) hybrid: Option<HybridClock>,
    pub(crate) link: Arc<Link>,
    pub(crate) hub: WatchHub,
    pub(crate) phase: Phase,
    /// The process is stopped until then.
    pub(crate) paused: Option<Timestamp>,
    /// It does not reach the database.
    pub(crate) cut: bool,
    /// It does not reach the adapters.
    pub(crate) blind: bool,
    pub(crate) mail: Vec<Mail>,
    pub(crate) term: Option<Term>,
    pub(crate) epoch: Epoch,
    /// The state that it followed.
    pub(crate) core: Option<Core>,
    pub(crate) reload: bool,
    /// It was asked to stop.
    pub(crate) stopping: bool,
    pub(crate) pools: Arc<Vec<PoolConfig>>,
    /// All servers of a run have the same tenants.
    pub(crate) tenants: Arc<Tenants>,
    /// Start of the time in which it has listened, and latest time at which it did.
    pub(crate) listening: Timestamp,
    pub(crate) last_turn: Timestamp,
    /// The configuration has changed since the last commit.
    pub(crate) first: bool,
    /// Time of its next look at the clock.
    pub(crate) tick: Timestamp,
    /// Time since which it has led without a break.
    pub(crate) served: Timestamp,
    /// Offset of its clock, until it is set right.
    pub(crate) ahead: i64,
}

impl Server {
    /// The core's time.
    pub(crate) fn reading(&mut self) -> Reading {
        let (wall, steady) = (self.clock.since_epoch(), self.clock.steady());
        match &mut self.hybrid {
            Some(hybrid) => hybrid.read(wall, steady),
            None => Reading { now: self.clock.wall(), ..Reading::default() },
        }
    }

    /// Its core has taken over the stored state.
    pub(crate) fn starts_the_clock(&mut self, stored: Timestamp) {
        let (wall, steady) = (self.clock.since_epoch(), self.clock.steady());
        if let Some(hybrid) = &mut self.hybrid {
            hybrid.start(stored, wall, steady);
        }
    }

    /// Whether it accepts clients' changes.
    pub(crate) fn leads(&self) -> bool {
        match self.phase {
            Phase::Down | Phase::Following(_) => false,
            Phase::Taking(_) | Phase::Idle(_) | Phase::Busy(_) | Phase::Held(..) | Phase::Lost(_) => true,
        }
    }

    /// Whether it still leads, by its own clock.
    pub(crate) fn holds(&self) -> bool {
        self.term.as_ref().is_some_and(|term| term.holds(self.clock.steady()))
    }

    pub(crate) fn is_paused(&self, now: Timestamp) -> bool {
        self.paused.is_some_and(|until| until > now)
    }

    /// The committed state that it may answer from, as far as it knows.
    pub(crate) fn readable(&self) -> Option<&Core> {
        match &self.phase {
            Phase::Following(_) => self.core.as_ref(),
            Phase::Idle(cycle) => Some(cycle.core()),
            Phase::Down | Phase::Taking(_) | Phase::Busy(_) | Phase::Held(..) | Phase::Lost(_) => None,
        }
    }

    pub(crate) fn configuration(&self) -> Configuration {
        Configuration { pools: self.pools.to_vec(), tenants: self.tenants.clone() }
    }

    /// A read of the store.
    pub(crate) fn look(&self, limits: Limits) -> Task {
        let (link, wall, configuration) = (self.link.clone(), self.clock.wall(), self.configuration());
        let known = self.core.as_ref().filter(|_| !self.reload).map(Core::revision);
        Box::pin(async move {
            Done::Followed(match known {
                Some(revision) => changes_after(&*link, revision).await.map(|batch| Followed::Changes(Box::new(batch))),
                None => wharfinger::store::Store::load(&*link)
                    .await
                    .map(|snapshot| Followed::All(Box::new(Core::follow(snapshot, configuration, limits, wall)))),
            })
        })
    }

    /// The engine's `take_over`: first all commits before the lead was won, then the later ones.
    pub(crate) fn take_over(&mut self, limits: Limits) -> Task {
        let (link, clock, configuration) = (self.link.clone(), self.clock.clone(), self.configuration());
        let (epoch, hub, followed) = (self.epoch, self.hub.clone(), self.core.take());
        Box::pin(async move {
            let mut warm = None;
            if let Some(mut core) = followed
                && let Ok(batch) = changes_after(&*link, core.revision()).await
            {
                take_in(&mut core, &batch, &hub);
                warm = Some(core.snapshot());
            }
            let taken = Cycle::take_over(link, epoch, warm, (configuration, limits), || clock.wall()).await;
            Done::Started(taken.map(|(cycle, batch)| (Box::new(cycle), batch)))
        })
    }
}

/// The engine's follower.
pub(crate) fn take_in(core: &mut Core, batch: &Batch, hub: &WatchHub) {
    let before = core.revision();
    // A batch without changes still has a later time.
    core.take_in(batch);
    if batch.revision > before {
        if batch.floor > before { hub.skip(batch.revision) } else { hub.publish(batch) }
    }
}

pub(crate) fn poll(task: &mut Task) -> Option<Done> {
    match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}
