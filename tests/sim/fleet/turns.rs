//! The next step of a server: the loops of the engine, one step at a time.

use super::db::{Link, Note, Request};
use super::server::{Asked, Done, Followed, Mail, Page, Phase, Server, poll, take_in};
use super::{Break, Due, LOOK, TICK, To, World, millis};
use crate::adapters::{Caller, Weather};
use crate::nature;
use crate::world::{op_of, work_name};
use std::sync::Arc;
use tokio::sync::oneshot;
use wharfinger::engine::{CallId, Cycle, Message, Turn, TurnError, WatchHub};
use wharfinger::store::{Epoch, Renewal, StoreError, Term};
use wharfinger_core::{
    Core, Effect, Input, Millis, Notice, NoticeKind, NoticeTarget, Op, Reading, Revision, Timestamp,
};

/// A gap between two turns that every server's clock sees as a pause.
const PAUSE: Millis = Millis(6000);
/// A gap between two turns that no server's clock sees as a pause.
const NO_PAUSE: Millis = Millis(4000);

impl World {
    /// An item for the mailbox of a leading server.
    pub(super) fn post(&mut self, n: usize, mail: Mail) {
        if let Mail::Input(Input::Notice(Notice { target: NoticeTarget::Resource(id), .. })) = &mail {
            self.oracle.noticed.insert(*id);
        }
        let life = self.servers[n].life;
        self.servers[n].mail.push(mail);
        let gathered = if self.one_by_one { 0 } else { self.rng.between(0, 30) };
        self.at(Millis(gathered), Due::Wake(n, life));
    }

    /// Continues the server from its present task, as far as possible.
    pub(super) fn wakes(&mut self, n: usize) -> Result<(), String> {
        if self.servers[n].is_paused(self.now) {
            return Ok(());
        }
        self.servers[n].paused = None;
        // A server that stopped between its commit and the answers sends them before it looks at the clock.
        let held = matches!(self.servers[n].phase, Phase::Held(..));
        if self.servers[n].leads() && !self.leads_on(n) && !held {
            self.begins_anew(n, "its lead is over");
            return Ok(());
        }
        let phase = std::mem::replace(&mut self.servers[n].phase, Phase::Down);
        match phase {
            Phase::Down => Ok(()),
            Phase::Following(None) => {
                self.servers[n].phase = Phase::Following(None);
                Ok(())
            }
            Phase::Following(Some(mut task)) => match poll(&mut task) {
                None => {
                    self.servers[n].phase = Phase::Following(Some(task));
                    Ok(())
                }
                Some(Done::Followed(found)) => self.has_looked(n, found),
                Some(_) => Err("a look ends as a look".into()),
            },
            Phase::Taking(mut task) => match poll(&mut task) {
                None => {
                    self.servers[n].phase = Phase::Taking(task);
                    Ok(())
                }
                Some(done) => self.is_done(n, done),
            },
            Phase::Busy(mut task) => match poll(&mut task) {
                None => {
                    self.servers[n].phase = Phase::Busy(task);
                    Ok(())
                }
                Some(done) => self.is_done(n, done),
            },
            Phase::Idle(cycle) => self.turns(n, cycle),
            Phase::Held(cycle, turn, asked) => self.releases(n, cycle, *turn, asked),
            Phase::Lost(cycle) => {
                self.recovers(n, cycle);
                Ok(())
            }
        }
    }

    /// Whether it still leads, by its own clock.
    pub(super) fn leads_on(&self, n: usize) -> bool {
        self.servers[n].holds() || (self.broken == Some(Break::NoClock) && self.servers[n].term.is_some())
    }

    fn has_looked(&mut self, n: usize, found: Result<Followed, StoreError>) -> Result<(), String> {
        let server = &mut self.servers[n];
        server.phase = Phase::Following(None);
        let mut again = LOOK;
        match found {
            Ok(Followed::All(core)) => {
                let before = server.core.as_ref().map_or(Revision(0), Core::revision);
                if core.revision() < before {
                    return Err(format!("server {n} finds the store at {} after {before}", core.revision()));
                }
                if core.revision() > before {
                    server.hub.skip(core.revision());
                }
                (server.core, server.reload) = (Some(*core), false);
            }
            Ok(Followed::Changes(batch)) => {
                if let Some(core) = &mut server.core {
                    if batch.revision < core.revision() {
                        return Err(format!("server {n} hears of {} after {}", batch.revision, core.revision()));
                    }
                    take_in(core, &batch, &server.hub);
                    core.check_invariants()?;
                }
            }
            Err(StoreError::Compacted { .. }) => (server.reload, again) = (true, Millis(5)),
            Err(_) => again = Millis(500),
        }
        let life = server.life;
        self.at(again, Due::Look(n, life));
        self.watchers_hear(n)
    }

    /// The server has won the lead.
    pub(super) fn takes_over(&mut self, n: usize, epoch: Epoch, settled: u64, sent: std::time::Duration) {
        self.count("take-overs");
        if self.servers[n].ahead != 0 {
            self.count("clocks far ahead of a leader");
        }
        self.note(|| format!("server {n} leads with epoch {}", epoch.0));
        let (limits, now) = (self.limits(), self.now);
        let pools = self.pools.clone();
        let server = &mut self.servers[n];
        server.link.lead(epoch, settled);
        (server.epoch, server.term, server.pools) = (epoch, Some(Term::new(sent, super::lead())), pools);
        (server.listening, server.last_turn) = (now, now);
        let note = Note { recovery: true, ..note_of(server, now) };
        server.link.note(note);
        let task = server.take_over(limits);
        (server.phase, server.mail) = (Phase::Taking(task), Vec::new());
        let life = server.life;
        self.at(Millis(0), Due::Wake(n, life));
        self.at(millis(Term::renewal_limit(super::lead())), Due::Renew(n, life));
        self.term_ends(n);
    }

    /// Remaining time of the lead without a renewal.
    pub(super) fn term_ends(&mut self, n: usize) {
        let server = &self.servers[n];
        let Some(term) = &server.term else { return };
        // The server's clock may be slow.
        let left = millis(term.until().saturating_sub(server.clock.steady()));
        let life = server.life;
        self.at(Millis(left.0 + 1), Due::TermEnds(n, life));
    }

    pub(super) fn renews(&mut self, n: usize, renewal: Renewal) {
        let life = self.servers[n].life;
        match Term::next_renewal(renewal, super::lead()) {
            Some(next) => self.at(millis(next), Due::Renew(n, life)),
            None if self.broken == Some(Break::NoClock) => {}
            None => self.begins_anew(n, "another has taken the lead"),
        }
    }

    fn is_done(&mut self, n: usize, done: Done) -> Result<(), String> {
        match done {
            Done::Followed(_) => Err("nobody follows who leads".into()),
            Done::Started(Err(_)) => {
                self.begins_anew(n, "it could not take over");
                Ok(())
            }
            Done::Started(Ok((cycle, batch))) => {
                self.note(|| format!("server {n} decides from {} on", batch.revision));
                self.new_caller(n);
                cycle.core().check_invariants()?;
                (self.servers[n].listening, self.servers[n].last_turn) = (self.now, self.now);
                self.servers[n].served = self.now;
                self.servers[n].starts_the_clock(cycle.core().now());
                let waiting: Vec<usize> = (0..self.watchers.len())
                    .filter(|w| self.watchers[*w].reading && self.watchers[*w].at.as_ref().is_some_and(|at| at.0 == n))
                    .collect();
                for w in waiting {
                    let (connection, told) = (self.watchers[w].connection, self.watchers[w].told);
                    self.post(n, Mail::Watch(w, connection, told));
                }
                let batch = self.with_new_numbers(batch);
                self.releases(
                    n,
                    cycle,
                    Turn { batch, answers: Vec::new(), configured: false, commit: None },
                    Vec::new(),
                )
            }
            Done::Turned(cycle, Ok(turn), asked) => {
                if !turn.may_leave(self.leads_on(n)) {
                    self.begins_anew(n, "its lead was over before it could answer");
                    return Ok(());
                }
                cycle.core().check_invariants()?;
                if self.faulty() && !turn.batch.is_empty() {
                    if self.rng.chance(8) {
                        self.dies(n, "after a commit, before anything left");
                        return Ok(());
                    }
                    if self.rng.chance(12) {
                        self.servers[n].phase = Phase::Held(cycle, Box::new(turn), asked);
                        self.pause(n, 300, 30_000);
                        return Ok(());
                    }
                }
                self.releases(n, cycle, turn, asked)
            }
            Done::Turned(_, Err(TurnError::Deposed), _) => {
                self.count("leaders that learn of it by a commit");
                self.begins_anew(n, "another leads: its commit was refused");
                Ok(())
            }
            Done::Turned(cycle, Err(TurnError::Lost { again, .. }), asked) => {
                self.count("commits that failed");
                self.note(|| format!("server {n} lost a commit"));
                let again = again.into_iter().filter_map(|message| match message {
                    Message::Input(input, _) => Some(Mail::Input(*input)),
                    Message::Fact(input, CallId(life)) => Some(Mail::Fact(*input, life)),
                    Message::Configure(_) | Message::Read(_) | Message::Refresh(_) => None,
                });
                let mut mail: Vec<Mail> = again.collect();
                self.notes_again(asked);
                mail.append(&mut self.servers[n].mail);
                self.servers[n].mail = mail;
                self.recovers(n, cycle);
                Ok(())
            }
            Done::Recovered(cycle, Ok(batch)) => {
                self.note(|| format!("server {n} recovered at {}", batch.revision));
                (self.servers[n].listening, self.servers[n].last_turn) = (self.now, self.now);
                self.servers[n].served = self.now;
                self.keeps_calls(n, &batch.effects);
                self.releases(
                    n,
                    cycle,
                    Turn { batch, answers: Vec::new(), configured: false, commit: None },
                    Vec::new(),
                )
            }
            Done::Recovered(_, Err(StoreError::Deposed { .. })) => {
                self.begins_anew(n, "another leads: it can't recover");
                Ok(())
            }
            Done::Recovered(cycle, Err(_)) => {
                self.servers[n].phase = Phase::Lost(cycle);
                let life = self.servers[n].life;
                self.soon(20, 600, Due::Wake(n, life));
                Ok(())
            }
        }
    }

    /// The executor after a recovery: the calls that the recovered core names continue, and their answers count. The others
    /// are ended.
    fn keeps_calls(&mut self, n: usize, named: &[Effect]) {
        self.recoveries += 1;
        let life = self.servers[n].caller.life;
        let (kept, over) = self.things.recovered(self.now, life, named, &mut self.rng);
        self.provider.ended(&over);
        *self.counts.entry("calls that went on over a recovery").or_default() += kept;
        let things = &self.things;
        self.servers[n].mail.retain(|mail| match mail {
            Mail::Fact(input, life) | Mail::Note(input, life) => things.counts(*life, input),
            _ => true,
        });
    }

    /// The journal: a note without an answer is written again.
    fn notes_again(&mut self, asked: Vec<Asked>) {
        for asked in asked {
            if let Asked::Noted { input: Input::Noted { resource, op, .. }, life, .. } = asked
                && let Some(number) = self.things.number_of(life, (resource, None, op))
            {
                self.soon(50, 2000, Due::Notes(life, (resource, None, op), number));
            }
        }
    }

    fn calls_end(&mut self, n: usize) {
        let life = self.servers[n].caller.life;
        let over = self.things.one_died(self.now, life, &mut self.rng);
        self.provider.ended(&over);
    }

    fn new_caller(&mut self, n: usize) {
        self.calls_end(n);
        self.lives += 1;
        let server = &mut self.servers[n];
        server.caller = Caller { epoch: server.epoch.0, life: self.lives, blind: server.blind };
    }

    /// The consequence of an omitted rule: the provider cannot recognize the calls.
    fn with_new_numbers(&self, mut batch: wharfinger_core::Batch) -> wharfinger_core::Batch {
        if self.broken == Some(Break::NewNumbers) {
            batch.effects.iter_mut().for_each(|effect: &mut Effect| effect.op = Op(batch.revision.0));
        }
        batch
    }

    fn recovers(&mut self, n: usize, mut cycle: Box<Cycle>) {
        let now = self.now;
        let server = &mut self.servers[n];
        server.link.note(Note { recovery: true, ..note_of(server, now) });
        let time = server.reading().now;
        (server.listening, server.last_turn) = (now, now);
        server.phase = Phase::Busy(Box::pin(async move {
            let recovered = cycle.recover(time).await;
            Done::Recovered(cycle, recovered)
        }));
        let life = server.life;
        self.at(Millis(0), Due::Wake(n, life));
    }

    /// One turn over the contents of the mailbox.
    fn turns(&mut self, n: usize, cycle: Box<Cycle>) -> Result<(), String> {
        let now = self.now;
        let server = &mut self.servers[n];
        let reading = server.reading();
        let due = cycle.core().next_deadline().is_some_and(|at| at <= reading.now);
        if server.mail.is_empty() && !due && now.since(server.last_turn) < TICK && !server.stopping {
            let tick = TICK.0 - now.since(server.last_turn).0;
            let next = cycle.core().next_deadline().map_or(tick, |at| millis(reading.until(at)).0.clamp(1, tick));
            server.phase = Phase::Idle(cycle);
            let (life, next) = (server.life, Millis(next.max(1)));
            if server.tick <= now || now.after(next) < server.tick {
                server.tick = now.after(next);
                self.at(next, Due::Wake(n, life));
            }
            return Ok(());
        }
        self.turns += 1;
        if now.since(server.last_turn) > PAUSE {
            server.listening = now;
        }
        if now.since(server.last_turn) > NO_PAUSE {
            server.served = now;
        }
        server.last_turn = now;
        let count = if self.one_by_one && !server.stopping { server.mail.len().min(1) } else { server.mail.len() };
        let rest = server.mail.split_off(count);
        let mail = std::mem::replace(&mut server.mail, rest);
        let reads = mail.iter().any(|mail| matches!(mail, Mail::Act(..) | Mail::Watch(..) | Mail::Operator));
        if reads && !self.clocks_lie && cycle.core().revision() < self.oracle.revision() {
            let (own, stored) = (cycle.core().revision(), self.oracle.revision());
            return Err(format!("server {n} answers from {own} while {stored} is stored"));
        }
        let mut answered = Vec::new();
        let (mut messages, mut asked) = (Vec::new(), Vec::new());
        for mail in mail {
            self.takes(n, mail, cycle.core(), (&mut messages, &mut asked), &mut answered);
        }
        let server = &mut self.servers[n];
        let (first, single) = (std::mem::take(&mut server.first), messages.len() <= 1);
        server.link.note(Note { answered, first, single, ..note_of(server, now) });
        let time = server.reading().now;
        let mut cycle = cycle;
        let mut task: super::server::Task = Box::pin(async move {
            let turn = cycle.turn(time, messages).await;
            Done::Turned(cycle, turn, asked)
        });
        match poll(&mut task) {
            Some(done) => self.is_done(n, done),
            None => {
                self.servers[n].phase = Phase::Busy(task);
                Ok(())
            }
        }
    }

    fn takes(
        &mut self,
        n: usize,
        mail: Mail,
        core: &Core,
        (messages, asked): (&mut Vec<Message>, &mut Vec<Asked>),
        answered: &mut Vec<(wharfinger_core::ResourceId, Op)>,
    ) {
        let mut put = |input: Input, holder: Option<usize>| {
            let (to, from) = oneshot::channel();
            messages.push(Message::Input(Box::new(input.clone()), Some(to)));
            asked.push(Asked::Input { input, holder, from });
        };
        match mail {
            Mail::Act(h, attempt) if self.asks[h].1 == attempt => {
                self.asks[h].1 += 1;
                let (inputs, again) = self.holders[h].act(self.now, core, self.calm, &mut self.rng);
                inputs.into_iter().for_each(|input| put(input, Some(h)));
                self.at(again.since(self.now), Due::Holder(h));
            }
            Mail::Act(..) => {}
            Mail::Input(input) => {
                let reading = self.servers[n].reading();
                put(in_the_cores_time(input, reading), None);
            }
            Mail::Operator if self.calm => {}
            Mail::Operator => put(nature::command(core, &mut self.rng), None),
            Mail::Undo => {
                nature::undo(core).into_iter().for_each(|input| put(input, None));
                self.undoing = true;
                // It repeats the call until there is an answer; a second call does no harm.
                self.at(Millis::secs(8), Due::Undo);
            }
            Mail::Configure(pools) => {
                let server = &mut self.servers[n];
                (server.pools, server.first) = (pools, true);
                put(Input::Configure(server.configuration()), None);
            }
            Mail::Fact(input, life) if self.servers[n].caller.life == life => {
                answered.extend(op_of(&input));
                let line = format!("<- {input:?}");
                self.trace.line(self.now, || line);
                asked.push(Asked::Settled { input: input.clone(), life });
                messages.push(Message::Fact(Box::new(input), CallId(life)));
            }
            Mail::Fact(..) => {}
            Mail::Note(input, life) if self.servers[n].caller.life == life => {
                let (to, from) = oneshot::channel();
                messages.push(Message::Input(Box::new(input.clone()), Some(to)));
                asked.push(Asked::Noted { input, life, from });
            }
            Mail::Note(..) => {}
            Mail::Watch(watcher, connection, after) => {
                let (to, from) = oneshot::channel();
                messages.push(Message::Read(Box::new(move |core, _| {
                    let page = Page::read(core, after);
                    Box::new(move || drop(to.send(page)))
                })));
                asked.push(Asked::Page { watcher, connection, from });
            }
        }
    }

    /// After the commit: watchers get events, answers leave, calls begin.
    fn releases(&mut self, n: usize, cycle: Box<Cycle>, turn: Turn, asked: Vec<Asked>) -> Result<(), String> {
        self.servers[n].phase = Phase::Idle(cycle);
        self.servers[n].hub.publish(&turn.batch);
        turn.answers.into_iter().for_each(|answer| answer.send());
        for asked in asked {
            self.answers(n, asked)?;
        }
        self.watchers_hear(n)?;
        if self.faulty() && self.rng.chance(5) {
            self.dies(n, "after the answers, before the calls");
            return Ok(());
        }
        let deposed = self.servers[n].epoch != self.db.epoch();
        for effect in turn.batch.effects {
            if deposed {
                self.count("calls of deposed leaders");
            }
            self.calls(n, effect)?;
        }
        let life = self.servers[n].life;
        if self.servers[n].stopping {
            self.count("leads given back");
            self.note(|| format!("server {n} gives the lead back"));
            let epoch = self.servers[n].epoch;
            self.ends(n, 300, 6000);
            self.send(n, life, Request::Resign { epoch }, To::Election(std::time::Duration::ZERO));
            return Ok(());
        }
        self.at(Millis(0), Due::Wake(n, life));
        Ok(())
    }

    fn answers(&mut self, n: usize, asked: Asked) -> Result<(), String> {
        match asked {
            Asked::Page { watcher, connection, mut from } => match from.try_recv() {
                Ok(page) => self.watcher_has_read(watcher, connection, page),
                Err(_) => Ok(()),
            },
            Asked::Noted { input: Input::Noted { resource, op, .. }, life, mut from } => {
                if let Ok(answer) = from.try_recv() {
                    self.noted(life, (resource, None, op), answer.is_ok());
                }
                Ok(())
            }
            Asked::Noted { .. } => Err("only notes are noted".into()),
            Asked::Settled { input, life } => {
                self.things.settle(life, &input);
                Ok(())
            }
            Asked::Input { input, holder, mut from } => {
                let Ok(answer) = from.try_recv() else { return Ok(()) };
                self.trace
                    .line(self.now, || format!("server {n}: {input:?} -> {}", crate::world::words_of_answer(&answer)));
                if let Ok(reply) = &answer {
                    let request = if let Input::Lease(request) = &input { Some(request) } else { None };
                    self.oracle.answers(request, reply)?;
                }
                if matches!(input, Input::Admin(_)) && self.undoing {
                    self.undone = true;
                }
                let Some(holder) = holder else { return Ok(()) };
                // Some answers are lost, some are late.
                if !(self.faulty() && self.rng.chance(30)) {
                    let reply = answer.ok().map(Box::new);
                    self.soon(1, 60, Due::Reply(holder, input, reply));
                }
                Ok(())
            }
        }
    }

    fn calls(&mut self, n: usize, effect: Effect) -> Result<(), String> {
        let caller = Caller { blind: self.servers[n].blind, ..self.servers[n].caller };
        self.trace
            .line(self.now, || format!("server {n} => {} {:?} {}", work_name(&effect), effect.op, effect.resource.id));
        self.oracle.calls(&effect)?;
        let weather = Weather { faults: self.faulty(), ..self.weather };
        let Some(started) = self.things.start(self.now, caller, effect, weather, &mut self.rng)? else {
            return Ok(());
        };
        self.at(started.at.since(self.now), Due::Ends(caller.life, started.key, started.number));
        for input in started.cancelled {
            self.at(Millis(1), Due::Fact(input, caller.life));
        }
        Ok(())
    }

    pub(super) fn dies(&mut self, n: usize, when: &str) {
        self.note(|| format!("server {n} dies {when}"));
        self.ends(n, 10, 6000);
    }

    /// Its lead has ended: the process replaces itself.
    pub(super) fn begins_anew(&mut self, n: usize, why: &str) {
        self.note(|| format!("server {n} begins anew: {why}"));
        self.ends(n, 20, 400);
    }

    /// Ends the process; another begins some time later.
    pub(super) fn ends(&mut self, n: usize, from: i64, to: i64) {
        self.calls_end(n);
        self.watchers_leave(n);
        self.lives += 1;
        let (life, wire, broken) = (self.lives, self.wire.clone(), self.broken);
        let server = &mut self.servers[n];
        server.life = life;
        server.caller = Caller { life, ..Caller::default() };
        server.link = Arc::new(Link::new(n, life, wire, broken));
        server.hub = WatchHub::new(Revision(0));
        (server.phase, server.paused, server.term, server.core) = (Phase::Down, None, None, None);
        (server.stopping, server.reload, server.first) = (false, false, false);
        server.hybrid = server.hybrid.as_ref().map(|_| server.clock.hybrid());
        server.mail.clear();
        self.soon(from, to, Due::Start(n, life));
    }

    pub(super) fn starts(&mut self, n: usize) {
        self.note(|| format!("server {n} starts"));
        let pools = self.pools.clone();
        let server = &mut self.servers[n];
        (server.pools, server.phase) = (pools, Phase::Following(None));
        let life = server.life;
        self.soon(0, 20, Due::Look(n, life));
        self.soon(0, 50, Due::Campaign(n, life));
    }

    pub(super) fn campaigns(&mut self, n: usize) {
        if !matches!(self.servers[n].phase, Phase::Following(_)) {
            return;
        }
        let (life, steady) = (self.servers[n].life, self.servers[n].clock.steady());
        self.send(n, life, Request::Leader { life }, To::Election(steady));
    }
}

/// The engine's treatment of notices: their times are those of wall clocks.
fn in_the_cores_time(input: Input, reading: Reading) -> Input {
    let Input::Notice(notice) = input else { return input };
    let kind = match notice.kind {
        NoticeKind::Interruption(at) => NoticeKind::Interruption(reading.from_wall(at)),
        NoticeKind::Maintenance(at) => NoticeKind::Maintenance(reading.from_wall(at)),
        kind => kind,
    };
    Input::Notice(Notice { kind, ..notice })
}

fn note_of(server: &Server, now: Timestamp) -> Note {
    Note { server: server.number, pools: server.pools.clone(), listening: (server.listening, now), ..Note::default() }
}
