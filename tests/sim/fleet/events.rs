//! Events, handled when they are due.

use super::db::{Request, Response};
use super::server::{Mail, Phase};
use super::{Break, Due, To, World};
use crate::adapters::{Condition, Key, Weather};
use crate::provider::Next;
use crate::{nature, pools};
use std::sync::Arc;
use std::time::Duration;
use wharfinger::store::{Renewal, Term};
use wharfinger_core::{Blame, CallFailure, Input, Millis, ResourceState};

impl World {
    pub(super) fn happens(&mut self, due: Due) -> Result<(), String> {
        match due {
            Due::Wake(n, life)
            | Due::Campaign(n, life)
            | Due::Look(n, life)
            | Due::Renew(n, life)
            | Due::TermEnds(n, life)
            | Due::Start(n, life) => {
                if self.servers[n].life != life {
                    return Ok(());
                }
                // A server that is stopped handles the event when it continues.
                if self.servers[n].is_paused(self.now) {
                    let until = self.servers[n].paused.unwrap_or(self.now);
                    self.at(Millis(until.since(self.now).0 + 1), due);
                    return Ok(());
                }
                self.server_does(n, due)
            }
            Due::Arrives(id) => self.arrives(id),
            Due::Answers(id, response) => self.hears(id, Some(*response)),
            Due::GivesUp(id) => self.hears(id, None),
            Due::Ends(life, key, number) if self.things.buys(life, key, number).is_some() => {
                self.buys(life, key, number);
                Ok(())
            }
            Due::Ends(life, key, number) => {
                if let Some(input) = self.things.finish(self.now, life, key, number) {
                    // Some answers arrive twice, the second time after their call has ended.
                    if self.faulty() && self.rng.chance(30) {
                        self.soon(1, 9000, Due::FactAgain(input.clone(), life, self.recoveries));
                    }
                    self.fact(input, life);
                }
                Ok(())
            }
            Due::Fact(input, life) => {
                self.fact(input, life);
                Ok(())
            }
            Due::FactAgain(input, life, recoveries) => {
                // A repeated answer is dropped if there was a recovery between: the executor knows its calls.
                if recoveries == self.recoveries {
                    self.fact(input, life);
                }
                Ok(())
            }
            Due::Notes(life, key, number) => {
                if self.things.number_of(life, key) == Some(number)
                    && let Some(handle) = self.provider.unwritten(number)
                    && let Some(n) = self.server_of(life)
                {
                    self.post(n, Mail::Note(Input::Noted { resource: key.0, op: key.2, handle }, life));
                }
                Ok(())
            }
            Due::Said(input) => {
                self.said(input);
                Ok(())
            }
            Due::Holder(h) => {
                self.holder_asks(h);
                Ok(())
            }
            Due::Patience(h, attempt) => {
                if self.asks[h].1 == attempt {
                    self.asks[h].0 += 1;
                    self.holder_asks(h);
                }
                Ok(())
            }
            Due::Reply(h, input, reply) => {
                if let Input::Lease(request) = &input
                    && self.holders[h].asks() == Some(request)
                {
                    self.holders[h].answered(self.now, reply.as_deref(), &mut self.rng);
                }
                Ok(())
            }
            Due::Watcher(w) => self.watcher_moves(w),
            Due::SetRight(n, by) => {
                self.sets_right(n, by);
                Ok(())
            }
            Due::Sweep => {
                if let Some(core) = self.leader().and_then(super::Server::readable) {
                    let recorded: Vec<_> = core
                        .resources(None)
                        .filter(|row| !matches!(row.state, ResourceState::Gone { .. }))
                        .map(|row| row.id)
                        .collect();
                    self.things.sweep(self.now, |id| recorded.contains(&id));
                }
                self.soon(8000, 12_000, Due::Sweep);
                Ok(())
            }
            Due::Provider => {
                self.market();
                self.soon(1000, 8000, Due::Provider);
                Ok(())
            }
            Due::Undo => {
                if !self.undone {
                    match self.leaders().first() {
                        Some(n) => self.post(*n, Mail::Undo),
                        None => self.at(Millis::secs(1), Due::Undo),
                    }
                }
                Ok(())
            }
            Due::Reached(n) => {
                self.servers[n].cut = false;
                self.note(|| format!("server {n} reaches the database again"));
                Ok(())
            }
            Due::Sees(n) => {
                self.servers[n].blind = false;
                self.note(|| format!("server {n} reaches the adapters again"));
                Ok(())
            }
            Due::DbUp => {
                self.db.down = false;
                self.note(|| "the database is up".into());
                Ok(())
            }
            Due::Nature | Due::Operator | Due::Editor | Due::Trouble if self.calm => Ok(()),
            Due::Nature => {
                let epoch = self.db.epoch();
                let leader = self.servers.iter().find(|s| s.epoch == epoch && matches!(s.phase, Phase::Idle(_)));
                if let Some(core) = leader.and_then(super::Server::readable) {
                    let said = nature::strike(self.now, core, &mut self.things, &mut self.rng);
                    for (at, input) in said {
                        self.at(at.since(self.now), Due::Said(input));
                    }
                }
                self.soon(500, 6000, Due::Nature);
                Ok(())
            }
            Due::Operator => {
                let leaders = self.leaders();
                if let Some(n) = self.rng.pick(&leaders) {
                    self.post(n, Mail::Operator);
                }
                self.soon(500, 10_000, Due::Operator);
                Ok(())
            }
            Due::Editor => {
                let edited = pools::edited(&mut self.rng, &self.first_pools, &self.pools);
                self.configure(edited);
                self.soon(3000, 30_000, Due::Editor);
                Ok(())
            }
            Due::Trouble => {
                self.trouble();
                self.soon(1000, 12_000, Due::Trouble);
                Ok(())
            }
        }
    }

    fn server_does(&mut self, n: usize, due: Due) -> Result<(), String> {
        match due {
            Due::Start(..) => self.starts(n),
            Due::Campaign(..) => self.campaigns(n),
            Due::Look(..) => {
                let limits = self.limits();
                let server = &mut self.servers[n];
                if matches!(server.phase, Phase::Following(None)) {
                    let task = server.look(limits);
                    server.phase = Phase::Following(Some(task));
                    return self.wakes(n);
                }
            }
            Due::Renew(..) => {
                let server = &self.servers[n];
                if server.term.is_some() {
                    let (life, epoch, steady) = (server.life, server.epoch, server.clock.steady());
                    self.send(n, life, Request::Renew { epoch, ttl: super::LEAD }, To::Election(steady));
                }
            }
            Due::TermEnds(..) => {
                if self.servers[n].term.is_some() && !self.servers[n].holds() {
                    if self.broken != Some(Break::NoClock) {
                        self.begins_anew(n, "its time is over");
                    }
                } else {
                    self.term_ends_later(n);
                }
            }
            _ => return self.wakes(n),
        }
        Ok(())
    }

    /// Each renewal has an end of its own, and a slow clock reaches it late.
    fn term_ends_later(&mut self, n: usize) {
        let server = &self.servers[n];
        let near = server
            .term
            .as_ref()
            .is_some_and(|term| term.until().saturating_sub(server.clock.steady()) < Duration::from_millis(1500));
        if near {
            self.term_ends(n);
        }
    }

    /// An answer arrives, or none will.
    fn hears(&mut self, id: u64, response: Option<Response>) -> Result<(), String> {
        let Some(flight) = self.flights.get_mut(&id) else { return Ok(()) };
        let (n, life) = (flight.server, flight.life);
        // Requests in transit still arrive.
        let gone = flight.request.is_none();
        let to = std::mem::replace(&mut flight.to, To::Election(Duration::MAX));
        if gone {
            self.flights.remove(&id);
        }
        match to {
            To::Task(to) => {
                if let Some(response) = response {
                    let _ = to.send(response);
                }
                self.at(Millis(0), Due::Wake(n, life));
            }
            To::Election(Duration::MAX) => {}
            To::Election(sent) if self.servers[n].life == life => self.election(n, sent, response),
            To::Election(_) => {}
        }
        Ok(())
    }

    /// The result of an election. A server that is stopped gets it later. The term counts from the time of the request.
    fn election(&mut self, n: usize, sent: Duration, response: Option<Response>) {
        let life = self.servers[n].life;
        let following = matches!(self.servers[n].phase, Phase::Following(_));
        let look = |left| super::millis(Term::next_look(left));
        match response {
            Some(Response::Seen(_, Some(left))) if following => self.at(look(Ok(Some(left))), Due::Campaign(n, life)),
            Some(Response::Seen(seen, None)) if following => {
                let steady = self.servers[n].clock.steady();
                self.send(n, life, Request::Take { server: n, life, seen, ttl: super::LEAD }, To::Election(steady));
            }
            Some(Response::Won(epoch, settled)) if following => self.takes_over(n, epoch, settled, sent),
            Some(Response::Lost) if following => self.at(look(Ok(None)), Due::Campaign(n, life)),
            None if following => self.at(look(Err(())), Due::Campaign(n, life)),
            // An ended lead stays ended.
            Some(Response::Renewed(true)) if self.leads_on(n) => {
                self.servers[n].term = Some(Term::new(sent, super::lead()));
                self.term_ends(n);
                self.renews(n, Renewal::Done);
            }
            Some(Response::Renewed(false)) if self.servers[n].term.is_some() => self.renews(n, Renewal::Taken),
            None if self.servers[n].term.is_some() => self.renews(n, Renewal::Failed),
            _ => {}
        }
    }

    fn fact(&mut self, input: Input, life: u64) {
        if let Some(n) = self.server_of(life) {
            self.post(n, Mail::Fact(input, life));
        }
    }

    /// The server whose executor makes the calls of this life.
    fn server_of(&self, life: u64) -> Option<usize> {
        (0..self.servers.len()).find(|n| self.servers[*n].caller.life == life)
    }

    /// All servers that hold the lead by their own view get the notice. Some notices come again after they were lost.
    fn said(&mut self, input: Input) {
        let heard: Vec<usize> = self.leaders().into_iter().filter(|n| !self.servers[*n].blind).collect();
        if heard.is_empty() && self.rng.chance(700) {
            self.soon(500, 2000, Due::Said(input));
            return;
        }
        for n in heard {
            self.post(n, Mail::Input(input.clone()));
        }
    }

    fn holder_asks(&mut self, h: usize) {
        let count = self.servers.len();
        let n = self.asks[h].0 % count;
        if !self.servers[n].leads() {
            // The server names the leader, if it knows one.
            let told = if self.rng.chance(500) { self.db.leader() } else { None };
            self.asks[h].0 = told.unwrap_or(n + 1);
            self.soon(20, 400, Due::Holder(h));
            return;
        }
        self.asks[h].1 += 1;
        let attempt = self.asks[h].1;
        self.post(n, Mail::Act(h, attempt));
        self.soon(2000, 4000, Due::Patience(h, attempt));
    }

    /// A call on a bought machine continues, and may end. A call of a stopped process continues with it.
    fn buys(&mut self, life: u64, key: Key, number: u64) {
        let Some(effect) = self.things.buys(life, key, number) else { return };
        let Some(n) = self.server_of(life) else { return };
        if self.servers[n].is_paused(self.now) {
            let until = self.servers[n].paused.unwrap_or(self.now);
            self.at(Millis(until.since(self.now).0 + 2), Due::Ends(life, key, number));
            return;
        }
        let id = effect.resource.id;
        let next = if self.servers[n].blind {
            Next::Fails(CallFailure {
                blame: Blame::Provider,
                reason: Arc::from("NO_WAY_OUT"),
                message: Arc::from("simulated"),
                retry_after: None,
            })
        } else {
            let stored = self.oracle.resources.get(&id).and_then(|row| row.handle.clone());
            let weather = Weather { faults: self.faulty(), ..self.weather };
            self.provider.goes_on(self.now, (number, &effect), stored, weather, &mut self.rng)
        };
        let answer = match next {
            Next::Writes(handle) => {
                let input = Input::Noted { resource: id, op: effect.op, handle };
                self.post(n, Mail::Note(input, life));
                return;
            }
            Next::Again(after) => {
                self.at(after, Due::Ends(life, key, number));
                return;
            }
            Next::Made(made) => self.things.bought(self.now, life, key, Ok(Some(made))),
            Next::Gone => self.things.bought(self.now, life, key, Ok(None)),
            Next::Fails(failure) => {
                self.provider.ended(&[number]);
                self.things.bought(self.now, life, key, Err(failure))
            }
        };
        if let Some(answer) = answer {
            self.fact(answer, life);
        }
    }

    /// The consequence of a note that was stored; or the note could not be stored.
    pub(super) fn noted(&mut self, life: u64, key: Key, durable: bool) {
        let Some(number) = self.things.number_of(life, key) else { return };
        match self.provider.written(number, durable) {
            Next::Again(after) => self.at(after, Due::Ends(life, key, number)),
            Next::Fails(failure) => {
                if let Some(answer) = self.things.bought(self.now, life, key, Err(failure)) {
                    self.at(Millis(1), Due::Fact(answer, life));
                }
            }
            Next::Writes(_) | Next::Made(_) | Next::Gone => {}
        }
    }

    /// The provider's time advances.
    fn market(&mut self) {
        for id in self.things.all() {
            if self.things.condition(id) == Some(Condition::Dead) {
                self.provider.dies(id);
            }
        }
        let hostile = self.faulty();
        let epoch = self.db.epoch();
        let leader = self.servers.iter().find(|s| s.epoch == epoch && matches!(s.phase, Phase::Idle(_)));
        let Some(core) = leader.and_then(super::Server::readable) else { return };
        let (gone, said) = self.provider.lives(self.now, core, hostile, &mut self.rng);
        gone.into_iter().for_each(|id| self.things.become_so(self.now, id, Condition::Dead));
        for (at, input) in said {
            self.at(at.since(self.now), Due::Said(input));
        }
    }

    /// A fault of the servers.
    fn trouble(&mut self) {
        let n = match self.db.leader() {
            // Most faults are of the leader.
            Some(leader) if self.rng.chance(600) => leader,
            _ => self.rng.below(self.servers.len() as u64) as usize,
        };
        match self.rng.below(if self.clocks_lie { 15 } else { 13 }) {
            12 => self.puts_clock_ahead(n),
            13.. => {
                let by = self.rng.between(-20_000, 20_000);
                self.note(|| format!("the database's clock is set by {by} ms"));
                self.db.skew += by;
            }
            0..3 => {
                self.pause(n, 200, 40_000);
            }
            3 | 4 => {
                if !matches!(self.servers[n].phase, Phase::Down) {
                    self.dies(n, "of something else");
                }
            }
            5 => match self.servers[n].phase {
                Phase::Following(_) => self.ends(n, 300, 6000),
                Phase::Down | Phase::Taking(_) => {}
                _ => {
                    self.note(|| format!("server {n} is asked to stop"));
                    self.servers[n].stopping = true;
                }
            },
            6 | 7 => {
                self.note(|| format!("server {n} does not reach the database"));
                self.servers[n].cut = true;
                self.soon(300, 30_000, Due::Reached(n));
            }
            8 => {
                self.note(|| format!("server {n} does not reach the adapters"));
                self.servers[n].blind = true;
                self.soon(300, 30_000, Due::Sees(n));
            }
            9 | 10 => {
                self.note(|| "the database is down".into());
                self.db.down = true;
                self.soon(50, 8000, Due::DbUp);
            }
            _ => {
                // A person sets its wall clock; the steady clock does not change.
                let by =
                    if self.rng.chance(500) { self.rng.between(-15_000, 0) } else { self.rng.between(8000, 20_000) };
                self.note(|| format!("server {n}'s clock is set by {by} ms"));
                self.servers[n].clock.skew += by;
            }
        }
    }
}
