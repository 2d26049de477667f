//! Several servers over one database: the servers' own cycle, take-over and following, under one seed.
//!
//! The single broker's world lacks these faults: clocks that are wrong, servers that stop at any point, a database that
//! cannot be reached, lost answers, and commits that land while another server leads.

mod breaks;
mod db;
mod events;
mod server;
mod turns;
mod watchers;

pub(crate) use breaks::Break;

use crate::adapters::{Caller, Key, Things, Weather};
use crate::between::Judged;
use crate::broker::RETENTION;
use crate::due::Deadlines;
use crate::holders::Holder;
use crate::oracle::{Facts, Oracle};
use crate::provider::Provider;
use crate::rng::Rng;
use crate::trace::{Kept, Trace};
use crate::world::{Report, unsettled, words_of};
use crate::{pools, tenants};
use db::{Db, Link, Request, Response, Sent, Wire};
use server::{Clock, Mail, Now, Phase, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use watchers::Watcher;
use wharfinger::engine::WatchHub;
use wharfinger::store::Epoch;
use wharfinger_core::{
    Input, LeaseId, LeaseState, Limits, Millis, PoolConfig, Reply, ResourceId, ResourceState, Revision, Tenants,
    Timestamp,
};

const START: Timestamp = Timestamp(1_000_000_000);
/// Duration of the hostile phase.
const STORM: Millis = Millis::secs(120);
/// Maximum time after the hostile phase until all is settled.
const CALM: Millis = Millis::secs(1500);
/// Duration of a lead without a renewal.
const LEAD: Millis = Millis::secs(5);
/// Interval at which a leader looks at the clock.
const TICK: Millis = Millis(1000);
/// Interval at which a follower reads the store.
const LOOK: Millis = Millis(200);
const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;

fn how(row: &wharfinger_core::Lease) -> Option<&'static str> {
    if let LeaseState::Ended { how, .. } = &row.state { Some(how.as_str()) } else { None }
}

pub(crate) fn millis(time: Duration) -> Millis {
    Millis(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn lead() -> Duration {
    Duration::from_millis(u64::try_from(LEAD.0).unwrap_or(0))
}

/// An event that is due at some time.
enum Due {
    /// A server takes its next step, in this life only.
    Wake(usize, u64),
    /// An attempt of a server to lead, or a read of the store.
    Campaign(usize, u64),
    Look(usize, u64),
    Renew(usize, u64),
    /// Its lead may have ended.
    TermEnds(usize, u64),
    /// A server starts.
    Start(usize, u64),
    /// A request reaches the database.
    Arrives(u64),
    /// An answer reaches its caller.
    Answers(u64, Box<Response>),
    /// The caller no longer waits for the answer.
    GivesUp(u64),
    /// A call of an adapter has ended.
    Ends(u64, Key, u64),
    /// The answer of an adapter.
    Fact(Input, u64),
    /// The same answer again; the number is that of the recoveries until then.
    FactAgain(Input, u64, u64),
    /// A call on a bought machine writes its note again, because the store did not take it.
    Notes(u64, Key, u64),
    /// A notice from the world arrives.
    Said(Input),
    Holder(usize),
    /// A holder has waited for an answer for its maximum time.
    Patience(usize, u64),
    /// A holder gets an answer.
    Reply(usize, Input, Option<Box<Reply>>),
    Watcher(usize),
    Sweep,
    /// The provider's time advances.
    Provider,
    Nature,
    Operator,
    Editor,
    Trouble,
    /// A fault ends.
    Reached(usize),
    Sees(usize),
    DbUp,
    Undo,
    /// A clock that was far ahead is set right.
    SetRight(usize, i64),
}

/// A request in transit.
struct Flight {
    server: usize,
    life: u64,
    request: Option<Request>,
    to: To,
}

/// The caller that waits for an answer.
enum To {
    Task(oneshot::Sender<Response>),
    /// The server's election, with its start by the steady clock.
    Election(Duration),
}

pub(crate) struct World {
    now: Timestamp,
    clock: Now,
    rng: Rng,
    trace: Trace,
    db: Db,
    wire: Wire,
    flights: BTreeMap<u64, Flight>,
    servers: Vec<Server>,
    things: Things,
    provider: Provider,
    oracle: Oracle,
    deadlines: Deadlines,
    holders: Vec<Holder>,
    /// The server that each holder calls, and the attempt that counts.
    asks: Vec<(usize, u64)>,
    watchers: Vec<Watcher>,
    due: BTreeMap<(Timestamp, u64), Due>,
    number: u64,
    lives: u64,
    /// Recoveries of all servers from commits that failed.
    recoveries: u64,
    first_pools: Vec<PoolConfig>,
    pools: Arc<Vec<PoolConfig>>,
    tenants: Arc<Tenants>,
    weather: Weather,
    /// Clocks differ by more than a tenth. Then reads may be stale, and no other promise may break.
    clocks_lie: bool,
    /// The server that led before the first lease, and the start of its lead: no lease had to wait for that one.
    from_nothing: Option<(Epoch, Timestamp)>,
    one_by_one: bool,
    calm: bool,
    /// Whether operators' orders are being undone, and whether all are undone.
    undoing: bool,
    undone: bool,
    turns: u64,
    broken: Option<Break>,
    /// Counts of events by name.
    counts: BTreeMap<&'static str, u64>,
}

pub(crate) fn run(seed: u64, kept: Kept, broken: Option<Break>) -> Report {
    let mut rng = Rng::new(seed ^ 0x00F1_EE70);
    let first_pools = pools::configured(&mut rng);
    let now: Now = Arc::new(AtomicI64::new(START.0));
    let clocks_lie = rng.chance(150);
    let wire = Wire::default();
    let count = rng.between(2, 5) as usize;
    let configured = Arc::new(first_pools.clone());
    let tenants = tenants::fixed(seed);
    let mut lives = 0;
    let mut servers = Vec::new();
    for number in 0..count {
        lives += 1;
        // The design allows a difference of a tenth between two clocks: each server's and the database's.
        let far = if clocks_lie { 200_000 } else { 40_000 };
        let clock = Clock::new(now.clone(), rng.between(-30_000, 30_000), rng.between(-far, far));
        servers.push(Server {
            number,
            life: lives,
            caller: Caller::default(),
            hybrid: (broken != Some(Break::WallClock)).then(|| clock.hybrid()),
            clock,
            link: Arc::new(Link::new(number, lives, wire.clone(), broken)),
            hub: WatchHub::new(Revision(0)),
            phase: Phase::Down,
            paused: None,
            cut: false,
            blind: false,
            mail: Vec::new(),
            term: None,
            epoch: Epoch(0),
            core: None,
            reload: false,
            stopping: false,
            pools: configured.clone(),
            tenants: tenants.clone(),
            listening: START,
            last_turn: START,
            first: false,
            tick: START,
            served: START,
            ahead: 0,
        });
    }
    let holders = rng.between(3, 10) as usize;
    let mut world = World {
        now: START,
        clock: now,
        trace: Trace::new(kept, START),
        db: Db::new(broken),
        wire,
        flights: BTreeMap::new(),
        servers,
        things: Things::default(),
        provider: Provider::default(),
        oracle: Oracle::of(None),
        deadlines: Deadlines::default(),
        holders: (0..holders).map(|n| Holder::new(n, seed)).collect(),
        asks: vec![(0, 0); holders],
        watchers: (0..4).map(Watcher::new).collect(),
        due: BTreeMap::new(),
        number: 0,
        lives,
        recoveries: 0,
        first_pools,
        pools: configured,
        tenants,
        weather: Weather { faults: rng.chance(930), lies: rng.chance(200) },
        clocks_lie,
        from_nothing: None,
        one_by_one: rng.chance(500),
        calm: false,
        undoing: false,
        undone: false,
        turns: 0,
        broken,
        counts: BTreeMap::new(),
        rng,
    };
    let result = world.live();
    let (refused, late, retaken) = (world.db.refused, world.db.late, world.db.retaken);
    let bought = world.provider.launches;
    let quotas = world.oracle.judged.counts().find(|(name, _)| *name == Judged::QUOTA);
    world.counts.extend(quotas);
    world.counts.extend([("commits of deposed leaders", refused), ("commits after their doubt was settled", late)]);
    world.counts.extend([("machines bought", bought), ("leads taken again after a lost answer", retaken)]);
    Report { trace: world.trace.into_text(), result, turns: world.turns, counts: world.counts }
}

impl World {
    fn live(&mut self) -> Result<(), String> {
        for n in 0..self.servers.len() {
            let life = self.servers[n].life;
            self.soon(0, 300, Due::Start(n, life));
        }
        for n in 0..self.holders.len() {
            self.soon(500, 8000, Due::Holder(n));
        }
        for n in 0..self.watchers.len() {
            self.soon(500, 8000, Due::Watcher(n));
        }
        self.soon(5000, 10_000, Due::Sweep);
        self.puts_clocks_ahead();
        self.soon(1, 3000, Due::Provider);
        if self.weather.faults {
            self.soon(2000, 20_000, Due::Nature);
            self.soon(2000, 20_000, Due::Operator);
            self.soon(5000, 40_000, Due::Editor);
            self.soon(2000, 15_000, Due::Trouble);
        }
        let storm = START.after(STORM);
        while self.now < storm {
            self.step()?;
        }
        self.clear_up();
        let end = self.now.after(CALM);
        while let Some(unsettled) = self.unsettled() {
            if self.now >= end {
                return Err(format!("not settled after {CALM}: {unsettled}"));
            }
            self.step()?;
        }
        self.at_the_end()
    }

    /// Advances to the time of the next event, and handles it.
    fn step(&mut self) -> Result<(), String> {
        let Some(entry) = self.due.first_entry() else { return Err("nothing is due any more".into()) };
        self.now = self.now.max(entry.key().0);
        self.clock.store(self.now.0, Ordering::Relaxed);
        let due = entry.remove();
        self.happens(due)?;
        self.carry();
        self.what_is_due_happens()?;
        self.provider.verdict()
    }

    fn at(&mut self, after: Millis, due: Due) {
        self.number += 1;
        self.due.insert((self.now.after(after), self.number), due);
    }

    fn soon(&mut self, from: i64, to: i64, due: Due) {
        let after = Millis(self.rng.between(from, to));
        self.at(after, due);
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        self.trace.line(self.now, words);
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn faulty(&self) -> bool {
        self.weather.faults && !self.calm
    }

    fn limits(&self) -> Limits {
        let limits = Limits { retention: RETENTION, patience: Millis::ZERO, ..Limits::default() };
        if self.broken == Some(Break::NoGrace) { Limits { grace: Millis::ZERO, ..limits } } else { limits }
    }

    /// In some runs a server's clock is hours or years ahead at its start, and is set right later.
    fn puts_clocks_ahead(&mut self) {
        for n in 0..self.servers.len() {
            if self.weather.faults && self.rng.chance(120) {
                self.puts_clock_ahead(n);
                let server = &mut self.servers[n];
                server.hybrid = server.hybrid.as_ref().map(|_| server.clock.hybrid());
            }
        }
    }

    fn puts_clock_ahead(&mut self, n: usize) {
        let by = if self.rng.chance(500) { self.rng.between(1, 30) * HOUR } else { self.rng.between(1, 80) * YEAR };
        self.note(|| format!("server {n}'s clock is {by} ms ahead"));
        self.servers[n].clock.skew += by;
        self.servers[n].ahead += by;
        self.soon(1000, 90_000, Due::SetRight(n, by));
    }

    fn sets_right(&mut self, n: usize, by: i64) {
        self.note(|| format!("server {n}'s clock is set right"));
        self.servers[n].clock.skew -= by;
        self.servers[n].ahead -= by;
    }

    /// Takes the requests that the servers have sent, and decides their fate.
    fn carry(&mut self) {
        let sent = std::mem::take(&mut *self.wire.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for Sent { server, life, request, to } in sent {
            self.send(server, life, request, To::Task(to));
        }
    }

    fn send(&mut self, server: usize, life: u64, request: Request, to: To) {
        self.number += 1;
        let id = self.number;
        let acts = matches!(request, Request::Commit { .. } | Request::Take { .. });
        self.flights.insert(id, Flight { server, life, request: Some(request), to });
        let patience = self.rng.between(1000, 3000);
        if self.servers[server].cut {
            self.at(Millis(patience), Due::GivesUp(id));
            return;
        }
        let mut way = self.rng.between(1, 15);
        if self.faulty() {
            match self.rng.below(1000) {
                // The process stops between its decision and its answer.
                0..8 => {
                    way += self.pause(server, 300, 30_000);
                }
                // The request is lost.
                8..14 => {
                    self.at(Millis(patience), Due::GivesUp(id));
                    return;
                }
                // The answer is lost.
                14..20 => self.at(Millis(patience), Due::GivesUp(id)),
                // The answer arrives after its caller has given up.
                20..30 if acts => {
                    self.at(Millis(patience), Due::GivesUp(id));
                    way = patience + self.rng.between(1, 25_000);
                }
                _ => {}
            }
        }
        self.at(Millis(way), Due::Arrives(id));
    }

    /// Stops a server for a while, and returns the duration.
    fn pause(&mut self, n: usize, from: i64, to: i64) -> i64 {
        let long = self.rng.between(from, to);
        let until = self.now.after(Millis(long));
        if self.servers[n].paused.is_none_or(|paused| paused < until) {
            self.servers[n].paused = Some(until);
        }
        self.count("pauses");
        self.note(|| format!("server {n} stands still for {long} ms"));
        let life = self.servers[n].life;
        self.at(Millis(long + 1), Due::Wake(n, life));
        long
    }

    fn arrives(&mut self, id: u64) -> Result<(), String> {
        let Some(flight) = self.flights.get_mut(&id) else { return Ok(()) };
        let Some(request) = flight.request.take() else { return Ok(()) };
        if self.db.down {
            self.at(Millis(20), Due::GivesUp(id));
            return Ok(());
        }
        let response = self.db.answer(self.now, request);
        self.look_at_the_store()?;
        let way = self.rng.between(1, 15);
        self.at(Millis(way), Due::Answers(id, Box::new(response)));
        Ok(())
    }

    fn look_at_the_store(&mut self) -> Result<(), String> {
        for (batch, epoch, note) in self.db.stored() {
            self.trace.line(self.now, || format!("server {} as {}: {}", note.server, epoch.0, words_of(&batch)));
            if epoch != self.db.epoch() {
                return Err(format!("a commit of epoch {} is stored under {}", epoch.0, self.db.epoch().0));
            }
            if note.first || note.recovery {
                self.oracle.ended_by_silence.clear();
            }
            if note.recovery {
                self.from_nothing = self.oracle.leases.is_empty().then_some((epoch, self.now));
            }
            self.in_time(&batch, &note, epoch)?;
            let expired = batch.leases.iter().filter(|row| how(row) == Some("EXPIRED")).count();
            *self.counts.entry("leases that ran out").or_default() += expired as u64;
            let things = &self.things;
            // The core's time may be far ahead of the true one.
            let (core_now, now) = (batch.now, self.now);
            let real = |at: Timestamp| Timestamp(at.0 - core_now.0 + now.0);
            let facts = Facts {
                was_bad: &|id, at, within| things.was_bad(id, real(at), within.max(Millis::secs(60))),
                blamed: &self.things.blamed,
                lies: self.weather.lies,
                pools: &note.pools,
                one_by_one: note.single,
                tenants: Some(&self.tenants),
            };
            let known = self.oracle.leases.is_empty();
            self.oracle.stored(&batch, &facts)?;
            if note.recovery && !known {
                self.oracle.grace_until = batch.now.after(Limits::default().grace);
            }
            self.oracle.answered.extend(note.answered);
            self.deadlines.stored(self.now, &batch);
            if note.recovery {
                self.deadlines.recovered(self.now, batch.now);
            }
        }
        Ok(())
    }

    /// No lease expires while its holder had no server to renew at.
    fn in_time(&self, batch: &wharfinger_core::Batch, note: &db::Note, epoch: Epoch) -> Result<(), String> {
        let expired = |row: &&Arc<wharfinger_core::Lease>| {
            how(row) == Some("EXPIRED")
                && row.spec.group.is_none()
                && self.oracle.leases.get(&row.id).is_some_and(|old| !old.ended())
        };
        for row in batch.leases.iter().filter(expired) {
            let (since, began) = note.listening;
            // The server's clock and the duration of its first commit take some of the thirty seconds.
            // A pause of this server counts like any other's.
            let silent_before =
                !self.from_nothing.is_some_and(|(own, at)| own == epoch && since <= at.after(Millis::secs(3)));
            if silent_before && began.since(since) < Millis::secs(20) {
                return Err(format!("(grace) {} ran out {} after anybody listened", row.id, began.since(since)));
            }
            let there = self.holders.iter().any(|holder| holder.minds(row));
            if there && row.spec.ttl >= Millis::secs(20) && !self.clocks_lie {
                return Err(format!("(grace) {} ran out under a holder who renews it", row.id));
            }
        }
        Ok(())
    }

    /// Invariant 19, for a leader without an obstacle.
    fn what_is_due_happens(&mut self) -> Result<(), String> {
        if self.db.down {
            return Ok(());
        }
        let Some(server) = self.leader().filter(|server| !server.cut && server.holds()) else { return Ok(()) };
        let (served, Some(core)) = (server.served, server.readable()) else { return Ok(()) };
        let (at, next, revision) = (core.now(), core.next_deadline(), core.revision());
        self.deadlines.timer(self.now, at, next);
        self.deadlines.check(self.now, served, revision)
    }

    /// All servers that hold the lead by their own view.
    fn leaders(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|n| self.servers[*n].leads()).collect()
    }

    /// Ends the hostile phase: faults stop, all entries are switched on, operators' orders are undone.
    fn clear_up(&mut self) {
        self.note(|| "the storm is over".into());
        self.calm = true;
        self.things.heal(self.now);
        self.db.down = false;
        for server in &mut self.servers {
            (server.cut, server.blind, server.caller.blind) = (false, false, false);
            if let Some(until) = &mut server.paused {
                *until = self.now;
            }
        }
        self.configure(pools::ample(&self.first_pools.clone()));
        for n in 0..self.servers.len() {
            let life = self.servers[n].life;
            self.at(Millis(1), Due::Wake(n, life));
        }
        // All delayed notices and requests have arrived by then.
        self.at(Millis::secs(60), Due::Undo);
    }

    fn configure(&mut self, pools: Vec<PoolConfig>) {
        self.pools = Arc::new(pools);
        for n in 0..self.servers.len() {
            let pools = self.pools.clone();
            if self.servers[n].leads() {
                self.post(n, Mail::Configure(pools));
            } else {
                (self.servers[n].pools, self.servers[n].reload) = (pools, true);
            }
        }
    }

    /// The server that leads by the database, if it answers.
    fn leader(&self) -> Option<&Server> {
        let epoch = self.db.epoch();
        self.servers.iter().find(|server| {
            server.epoch == epoch && matches!(server.phase, Phase::Idle(_)) && !server.is_paused(self.now)
        })
    }

    fn unsettled(&self) -> Option<String> {
        if !self.undone {
            return Some("what operators did is not undone yet".into());
        }
        let Some(core) = self.leader().and_then(Server::readable) else { return Some("nobody leads".into()) };
        unsettled(core, self.now).or_else(|| self.provider.unclaimed(core)).or_else(|| {
            let gone =
                |id: &ResourceId| core.resource(*id).is_none_or(|row| matches!(row.state, ResourceState::Gone { .. }));
            self.things.launched().into_iter().find(gone).map(|id| format!("(5) {id} runs and has no record"))
        })
    }

    fn at_the_end(&mut self) -> Result<(), String> {
        let Some(core) = self.leader().and_then(Server::readable) else { return Err("nobody leads".into()) };
        if !core.leases(None).eq(self.oracle.leases.values()) {
            return Err("(3) the leader's leases are not those that are stored".into());
        }
        let stored: BTreeSet<LeaseId> = self.db.snapshot().leases.iter().map(|row| row.id).collect();
        self.oracle.restarted(&stored)?;
        let missed: Vec<server::Page> =
            self.watchers.iter().map(|watcher| server::Page::read(core, watcher.told)).collect();
        let all = server::Page::read(core, Revision(0));
        for (watcher, page) in self.watchers.iter_mut().zip(missed) {
            watcher.reads(page)?;
            watcher.knows(&all.leases)?;
        }
        Ok(())
    }
}
