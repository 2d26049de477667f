//! One run: virtual time, and all events in it, in an order that the seed decides.

use crate::adapters::{Caller, Condition, Key, Things, Weather};
use crate::broker::{Answered, Broker, Outcome};
use crate::holders::Holder;
use crate::oracle::{Facts, Oracle, Watcher};
use crate::provider::{Next, Provider};
use crate::rng::Rng;
use crate::tenants::Omitted;
use crate::trace::{Kept, Trace};
use crate::turns::Terms;
use crate::{nature, pools, rests, tenants};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger::store::Fault;
use wharfinger_core::{
    Batch, Configuration, Core, Input, LeaseId, LeaseState, Millis, Notice, NoticeTarget, PoolConfig, Reply, Resource,
    ResourceId, ResourceState, Revision, Scope, Tenants, Timestamp,
};

const START: Timestamp = Timestamp(1_000_000_000);
/// Duration of the hostile phase.
const STORM: Millis = Millis::secs(120);
/// Maximum time after the hostile phase until all is settled. The longest of all waits is ten minutes, of a janitor.
const CALM: Millis = Millis::secs(1500);
/// Interval at which the server looks at the clock.
const TICK: Millis = Millis(1000);

/// An event that is due at some time.
enum Due {
    /// A call of an adapter has ended.
    Ends(Key, u64),
    /// A call on a bought machine writes its note again, because the store did not take it.
    Notes(Key, u64),
    /// A notice of any source arrives.
    Said(Input),
    /// The answer of an adapter in one life of the broker. It does not outlive its process.
    Answer(Input, u64),
    /// The answer of a call on a bought machine, after its last note. It is dropped if its call is ended.
    Concluded(Input, u64),
    Holder(usize),
    Nature,
    /// The machine that flaps goes away once more.
    Flap,
    Operator,
    Editor,
    Watcher(usize),
    /// The provider's time advances.
    Provider,
    /// The broker is stopped for a while, and then continues as if there had been no stop.
    Freeze,
    /// The process dies.
    Crash,
    /// The process starts.
    Start,
}

pub(crate) struct World {
    now: Timestamp,
    rng: Rng,
    trace: Trace,
    broker: Broker,
    things: Things,
    provider: Provider,
    oracle: Oracle,
    holders: Vec<Holder>,
    due: BTreeMap<(Timestamp, u64), Due>,
    number: u64,
    first_pools: Vec<PoolConfig>,
    pools: Vec<PoolConfig>,
    tenants: Arc<Tenants>,
    omitted: Option<Omitted>,
    weather: Weather,
    /// At most one input a turn, so that the oracle can look between any two.
    one_by_one: bool,
    calm: bool,
    /// A machine of this run flaps.
    flaps: bool,
    turns: u64,
    /// Number of recoveries. A repeated answer is dropped if there was a recovery between.
    life: u64,
}

/// The result of a run.
pub(crate) struct Report {
    pub(crate) trace: String,
    pub(crate) result: Result<(), String>,
    pub(crate) turns: u64,
    /// Counts of events by name.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// `omitted`: a term of the tenants that the broker does not get.
pub(crate) fn run(seed: u64, kept: Kept, omitted: Option<Omitted>) -> Report {
    let mut rng = Rng::new(seed);
    let first_pools = pools::configured(&mut rng);
    let patience = tenants::patience(seed);
    let terms = tenants::are_several(seed).then(|| Terms::new(tenants::configured(seed), patience));
    // Several tenants compete for the same, so that shares decide.
    let (more, single) = if terms.is_some() { (4, 700) } else { (0, 500) };
    let count = rng.between(3, 10) as usize + more;
    let mut world = World {
        now: START,
        trace: Trace::new(kept, START),
        broker: Broker::new(omitted.map_or(patience, |omitted| omitted.patience(patience))),
        things: Things::default(),
        provider: Provider::default(),
        oracle: Oracle::of(terms),
        holders: (0..count).map(|n| holder(n, seed)).collect(),
        due: BTreeMap::new(),
        number: 0,
        pools: first_pools.clone(),
        first_pools,
        tenants: tenants::configured(seed),
        omitted,
        weather: Weather { faults: rng.chance(900), lies: rng.chance(250) },
        one_by_one: rng.chance(single),
        calm: false,
        flaps: seed.is_multiple_of(4),
        turns: 0,
        life: 0,
        rng,
    };
    let result = world.live();
    let [lost, resumed] = world.oracle.sessions.counts();
    let rested = world.oracle.rests.rested;
    let mut counts =
        BTreeMap::from([("rests of machines", rested), ("sessions lost", lost), ("sessions resumed", resumed)]);
    counts.extend(world.oracle.judged.counts());
    Report { trace: world.trace.into_text(), result, turns: world.turns, counts }
}

/// One of three holders keeps its leases by a session.
fn holder(number: usize, seed: u64) -> Holder {
    let holder = Holder::new(number, seed);
    if number % 3 == 1 { holder.with_session() } else { holder }
}

impl World {
    fn live(&mut self) -> Result<(), String> {
        self.oracle.watchers = (0..3).map(|_| Watcher::default()).collect();
        self.at(Millis(0), Due::Start);
        for n in 0..self.holders.len() {
            self.soon(1, 8000, Due::Holder(n));
        }
        for n in 0..3 {
            self.soon(1, 8000, Due::Watcher(n));
        }
        self.soon(1, 3000, Due::Provider);
        if self.weather.faults {
            self.soon(2000, 20_000, Due::Nature);
            if self.flaps {
                self.at(Millis::secs(3), Due::Flap);
            }
            self.soon(2000, 20_000, Due::Operator);
            self.soon(5000, 40_000, Due::Editor);
            self.soon(5000, 60_000, Due::Freeze);
            self.soon(1000, 40_000, Due::Crash);
        }
        let storm = START.after(STORM);
        while self.now < storm {
            self.step()?;
        }
        self.clear_up()?;
        let end = self.now.after(CALM);
        while let Some(unsettled) = self.unsettled() {
            if self.now >= end {
                return Err(format!("not settled after {CALM}: {unsettled}"));
            }
            self.step()?;
        }
        self.at_the_end()
    }

    fn at(&mut self, after: Millis, due: Due) {
        self.number += 1;
        self.due.insert((self.now.after(after), self.number), due);
    }

    fn soon(&mut self, from: i64, to: i64, due: Due) {
        let after = Millis(self.rng.between(from, to));
        self.at(after, due);
    }

    /// Advances to the time of the next event, and handles it.
    fn step(&mut self) -> Result<(), String> {
        let mut next = self.now.after(TICK);
        if let Some(((at, _), _)) = self.due.first_key_value() {
            next = next.min(*at);
        }
        if self.broker.is_up()
            && let Some(at) = self.broker.core().next_deadline()
        {
            next = next.min(at);
        }
        // Inputs that arrive during a turn share the next one.
        let gathered = if self.one_by_one { 0 } else { self.rng.between(0, 30) };
        self.now = self.now.max(next).after(Millis(gathered));
        let mut inputs = Vec::new();
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let due = entry.remove();
            self.happens(due, &mut inputs)?;
        }
        if !self.broker.is_up() {
            return Ok(());
        }
        if inputs.is_empty() {
            return self.turn(Vec::new());
        }
        while !inputs.is_empty() && self.broker.is_up() {
            let count = if self.one_by_one { 1 } else { inputs.len() };
            let rest = inputs.split_off(count);
            let life = self.life;
            self.turn(inputs)?;
            inputs = rest;
            if self.life != life {
                // An answer counts if its call is still under way.
                inputs.retain(|input| !is_answer(input) || self.things.counts(0, input));
            }
        }
        Ok(())
    }

    fn happens(&mut self, due: Due, inputs: &mut Vec<Input>) -> Result<(), String> {
        match due {
            Due::Ends(key, number) if self.things.buys(0, key, number).is_some() => self.buys(key, number, inputs),
            Due::Ends(key, number) => {
                if let Some(input) = self.things.finish(self.now, 0, key, number) {
                    // Some answers arrive twice, the second time after their call has ended.
                    if self.weather.faults && self.rng.chance(30) {
                        self.soon(1, 9000, Due::Answer(input.clone(), self.life));
                    }
                    inputs.push(input);
                }
            }
            Due::Notes(key, number) if self.things.number_of(0, key) == Some(number) => {
                let handle = self.provider.unwritten(number);
                inputs.extend(handle.map(|handle| Input::Noted { resource: key.0, op: key.2, handle }));
            }
            Due::Notes(..) => {}
            Due::Said(input) => inputs.push(input),
            Due::Answer(input, life) if life == self.life => inputs.push(input),
            // A call that a recovery names continues, and its answer counts.
            Due::Concluded(input, life) if life == self.life || self.things.counts(0, &input) => inputs.push(input),
            Due::Concluded(..) => {}
            Due::Answer(..) => {}
            Due::Holder(n) => {
                if !self.broker.is_up() {
                    self.soon(500, 2000, Due::Holder(n));
                    return Ok(());
                }
                let (said, again) = self.holders[n].act(self.now, self.broker.core(), self.calm, &mut self.rng);
                inputs.extend(said);
                self.at(again.since(self.now), Due::Holder(n));
            }
            Due::Nature if !self.calm => {
                if self.broker.is_up() {
                    let said = nature::strike(self.now, self.broker.core(), &mut self.things, &mut self.rng);
                    for (at, input) in said {
                        self.at(at.since(self.now), Due::Said(input));
                    }
                }
                self.soon(500, 6000, Due::Nature);
            }
            Due::Flap if !self.calm => {
                if self.broker.is_up() {
                    for (id, said) in rests::doomed(self.now, self.broker.core()) {
                        self.things.become_so(self.now, id, Condition::Dead);
                        inputs.push(said);
                    }
                }
                self.at(Millis(700), Due::Flap);
            }
            Due::Operator if !self.calm => {
                if self.broker.is_up() {
                    inputs.push(nature::command(self.broker.core(), &mut self.rng));
                }
                self.soon(500, 10_000, Due::Operator);
            }
            Due::Editor if !self.calm => {
                self.pools = pools::edited(&mut self.rng, &self.first_pools, &self.pools);
                if !self.tenants.is_empty() {
                    self.tenants = tenants::edited(&mut self.rng, &self.tenants);
                }
                inputs.push(Input::Configure(self.configuration()));
                self.oracle.ended_by_silence.clear();
                self.soon(3000, 30_000, Due::Editor);
            }
            Due::Freeze if !self.calm => {
                let (frozen, limits) = (Millis(self.rng.between(1000, 40_000)), Broker::limits());
                self.now = self.now.after(frozen);
                if frozen > limits.pause {
                    self.oracle.grace_until = self.now.after(limits.grace);
                }
                self.note(|| "the broker was stopped for a while".into());
                self.soon(5000, 60_000, Due::Freeze);
            }
            Due::Crash if !self.calm => {
                self.crash("between two turns");
                self.soon(1000, 40_000, Due::Crash);
            }
            Due::Nature | Due::Flap | Due::Operator | Due::Editor | Due::Freeze | Due::Crash => {}
            Due::Watcher(n) => {
                let connected = self.oracle.watchers[n].connected;
                if connected && !self.calm {
                    self.oracle.watchers[n].connected = false;
                } else if self.broker.is_up() {
                    self.oracle.watchers[n].resumes(self.broker.core());
                }
                self.soon(500, 20_000, Due::Watcher(n));
            }
            Due::Provider => {
                if self.broker.is_up() {
                    for id in self.things.all() {
                        if self.things.condition(id) == Some(Condition::Dead) {
                            self.provider.dies(id);
                        }
                    }
                    let hostile = self.weather.faults && !self.calm;
                    let (gone, said) = self.provider.lives(self.now, self.broker.core(), hostile, &mut self.rng);
                    gone.into_iter().for_each(|id| self.things.become_so(self.now, id, Condition::Dead));
                    for (at, input) in said {
                        self.at(at.since(self.now), Due::Said(input));
                    }
                }
                self.soon(1000, 8000, Due::Provider);
            }
            Due::Start => self.start()?,
        }
        Ok(())
    }

    /// A call on a bought machine continues, and may end.
    fn buys(&mut self, key: Key, number: u64, inputs: &mut Vec<Input>) {
        let Some(effect) = self.things.buys(0, key, number) else { return };
        let id = effect.resource.id;
        let stored = self.oracle.resources.get(&id).and_then(|row| row.handle.clone());
        let weather = Weather { faults: self.weather.faults && !self.calm, ..self.weather };
        let next = self.provider.goes_on(self.now, (number, &effect), stored, weather, &mut self.rng);
        let answer = match next {
            Next::Writes(handle) => Some(Input::Noted { resource: id, op: effect.op, handle }),
            Next::Again(after) => {
                self.at(after, Due::Ends(key, number));
                None
            }
            Next::Made(made) => self.things.bought(self.now, 0, key, Ok(Some(made))),
            Next::Gone => self.things.bought(self.now, 0, key, Ok(None)),
            Next::Fails(failure) => self.things.bought(self.now, 0, key, Err(failure)),
        };
        inputs.extend(answer);
    }

    /// The consequence of a note that was stored or refused. `None`: the store failed, and the note is written again.
    fn noted(&mut self, resource: ResourceId, op: wharfinger_core::Op, durable: Option<bool>) {
        let key = (resource, None, op);
        let Some(number) = self.things.number_of(0, key) else { return };
        let Some(durable) = durable else {
            self.soon(50, 2000, Due::Notes(key, number));
            return;
        };
        let answer = match self.provider.written(number, durable) {
            Next::Again(after) => {
                self.at(after, Due::Ends(key, number));
                return;
            }
            Next::Fails(failure) => self.things.bought(self.now, 0, key, Err(failure)),
            Next::Writes(_) | Next::Made(_) | Next::Gone => None,
        };
        if let Some(answer) = answer {
            self.at(Millis(1), Due::Concluded(answer, self.life));
        }
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        self.trace.line(self.now, words);
    }

    fn crash(&mut self, when: &str) {
        if !self.broker.is_up() {
            return;
        }
        self.note(|| format!("the process dies {when}"));
        self.broker.die();
        self.life += 1;
        self.things.process_died(self.now, &mut self.rng);
        self.provider.halted();
        self.oracle.watchers.iter_mut().for_each(|watcher| watcher.connected = false);
        self.holders.iter_mut().for_each(Holder::cut);
        self.soon(10, 4000, Due::Start);
    }

    fn start(&mut self) -> Result<(), String> {
        if self.broker.is_up() {
            return Ok(());
        }
        if self.weather.faults && !self.calm && self.rng.chance(100) {
            let fault = self.fault();
            self.broker.inject(Some(fault));
        }
        let started = self.broker.start(self.configuration(), self.now);
        if let Some(terms) = &mut self.oracle.terms {
            terms.tenants = self.tenants.clone();
        }
        self.look_at_the_store()?;
        self.oracle.lost_sight();
        let stored: BTreeSet<LeaseId> = self.broker.snapshot().leases.iter().map(|row| row.id).collect();
        self.oracle.restarted(&stored)?;
        self.oracle.sessions.recovered(self.now);
        self.oracle.ended_by_silence.clear();
        let Some(batch) = started else {
            self.note(|| "the process does not get up".into());
            self.soon(10, 1000, Due::Start);
            return Ok(());
        };
        self.note(|| "the process starts".into());
        if !stored.is_empty() {
            self.oracle.grace_until = self.now.after(Broker::limits().grace);
        }
        self.release(batch)
    }

    fn configuration(&self) -> Configuration {
        let tenants = self.omitted.map_or_else(|| self.tenants.clone(), |omitted| omitted.tenants(&self.tenants));
        Configuration { pools: self.pools.clone(), tenants }
    }

    fn fault(&mut self) -> Fault {
        [Fault::NotCommitted, Fault::InDoubtLost, Fault::InDoubtStored][self.rng.below(3) as usize]
    }

    /// One turn over these inputs. Its effects leave if the process lives until then.
    fn turn(&mut self, inputs: Vec<Input>) -> Result<(), String> {
        self.turns += 1;
        for input in &inputs {
            if let Input::Notice(Notice { target: NoticeTarget::Resource(id), .. }) = input {
                self.oracle.noticed.insert(*id);
            }
            if let Input::Renew { lease, .. } = input {
                self.oracle.renewed(*lease, self.now);
            }
            if let Input::RenewAll { leases, .. } = input {
                leases.iter().for_each(|lease| self.oracle.renewed(*lease, self.now));
            }
            if let Input::Lease(request) = input {
                self.oracle.asked_again(&request.request_id, self.now);
            }
            if let (Input::Configure(_), Some(terms)) = (input, &mut self.oracle.terms) {
                terms.tenants = self.tenants.clone();
            }
            self.trace.line(self.now, || format!("<- {input:?}"));
        }
        let faulty = self.weather.faults && !self.calm;
        let fault = (faulty && !inputs.is_empty() && self.rng.chance(15)).then(|| self.fault());
        if fault.is_some() {
            self.broker.inject(fault);
        }
        let asked: Vec<Input> = inputs.clone();
        match self.broker.turn(self.now, inputs) {
            Outcome::Committed(turn, receivers) => {
                self.broker.clear_faults();
                self.look_at_the_store()?;
                self.broker.core().check_invariants()?;
                // After a turn of several inputs the oracle sees only the last state.
                let single = self.one_by_one && asked.len() <= 1;
                if let Err(why) = self.oracle.queue_is_fair(&self.broker.core().pools(), single) {
                    let core = self.broker.core();
                    let waiting = core.leases(None).filter(|row| matches!(row.state, LeaseState::Queued));
                    let explained: Vec<_> =
                        waiting.filter_map(|row| core.explain(row.id, self.now, &Scope::All)).collect();
                    self.trace.line(self.now, || format!("it waits because of {explained:#?}"));
                    return Err(why);
                }
                self.oracle.heard(&asked, self.now);
                self.oracle.the_dead_hold_nothing()?;
                self.provider.verdict()?;
                self.oracle.answered.extend(asked.iter().filter_map(op_of));
                asked.iter().for_each(|input| self.things.settle(0, input));
                if faulty && self.rng.chance(8) {
                    self.crash("after a commit, before anything left");
                    return Ok(());
                }
                turn.answers.into_iter().for_each(|answer| answer.send());
                let answers: Vec<Answered> = receivers.into_iter().map(|mut from| from.try_recv().ok()).collect();
                self.deliver(&asked, answers)?;
                if faulty && self.rng.chance(8) {
                    self.crash("after the answers, before the calls");
                    return Ok(());
                }
                self.release(turn.batch)
            }
            Outcome::Recovered { answers, batch, again } => {
                self.note(|| format!("the commit failed ({fault:?}): recovered"));
                if !self.broker.snapshot().leases.is_empty() {
                    self.oracle.grace_until = self.now.after(Broker::limits().grace);
                }
                self.life += 1;
                let (_, over) = self.things.recovered(self.now, 0, &batch.effects, &mut self.rng);
                self.provider.ended(&over);
                self.look_at_the_store()?;
                self.oracle.sessions.recovered(self.now);
                self.oracle.lost_sight();
                self.oracle.answered.extend(asked.iter().filter_map(op_of));
                self.deliver(&asked, answers)?;
                let stored: BTreeSet<LeaseId> = self.broker.snapshot().leases.iter().map(|row| row.id).collect();
                self.oracle.restarted(&stored)?;
                self.oracle.ended_by_silence.clear();
                // A commit in doubt may be stored without an event to watchers: a watcher resumes by its revision.
                self.oracle.watchers.iter_mut().for_each(|watcher| watcher.connected = false);
                self.lost_answers(&asked);
                self.release(batch)?;
                let counts = |input: &&Input| !matches!(input, Input::Noted { .. }) && self.things.counts(0, input);
                let answers = asked.iter().filter(counts).cloned();
                let again: Vec<Input> = again.into_iter().chain(answers).collect();
                if again.is_empty() { Ok(()) } else { self.turn(again) }
            }
        }
    }

    /// An operator repeats a request that was answered with UNAVAILABLE.
    fn lost_answers(&mut self, asked: &[Input]) {
        for input in asked {
            if let Input::Admin(_) = input {
                let after = Millis(self.rng.between(100, 2000));
                self.at(after, Due::Said(input.clone()));
            }
        }
    }

    fn look_at_the_store(&mut self) -> Result<(), String> {
        let things = &self.things;
        let facts = Facts {
            was_bad: &|id, now, within| things.was_bad(id, now, within),
            blamed: &self.things.blamed,
            lies: self.weather.lies,
            pools: &self.pools,
            one_by_one: self.one_by_one,
            tenants: None,
        };
        self.broker.follow(&self.configuration());
        for batch in self.broker.stored() {
            self.trace.line(self.now, || words_of(&batch));
            self.oracle.stored(&batch, &facts)?;
        }
        Ok(())
    }

    fn deliver(&mut self, asked: &[Input], answers: Vec<Answered>) -> Result<(), String> {
        for (input, answer) in asked.iter().zip(answers) {
            let Some(answer) = answer else { continue };
            self.trace.line(self.now, || format!("-> {}", words_of_answer(&answer)));
            if let Input::Noted { resource, op, .. } = input {
                let unavailable = matches!(answer, Err(wharfinger::engine::SubmitError::Unavailable(_)));
                self.noted(*resource, *op, if unavailable { None } else { Some(answer.is_ok()) });
            }
            let request = if let Input::Lease(request) = input { Some(request) } else { None };
            if let Ok(reply) = &answer {
                self.oracle.answers(request, reply)?;
            }
            if !matches!(answer, Err(wharfinger::engine::SubmitError::Unavailable(_))) {
                let reply = answer.as_ref().ok();
                self.holders.iter_mut().for_each(|holder| holder.session_answered(input, reply));
            }
            let Some(request) = request else { continue };
            if let Err(wharfinger::engine::SubmitError::Unavailable(_)) = answer {
                continue;
            }
            let reply: Option<&Reply> = answer.as_ref().ok();
            let holder = self.holders.iter_mut().find(|holder| holder.asks() == Some(request));
            if let Some(holder) = holder {
                holder.answered(self.now, reply, &mut self.rng);
            }
        }
        Ok(())
    }

    /// After the commit: watchers get events, calls begin.
    fn release(&mut self, batch: Batch) -> Result<(), String> {
        self.oracle.watchers.iter_mut().for_each(|watcher| watcher.told(&batch));
        for effect in batch.effects {
            self.trace.line(self.now, || format!("=> {} {:?} {}", work_name(&effect), effect.op, effect.resource.id));
            self.oracle.calls(&effect)?;
            let weather = Weather { faults: self.weather.faults && !self.calm, ..self.weather };
            let Some(started) = self.things.start(self.now, Caller::default(), effect, weather, &mut self.rng)? else {
                continue;
            };
            self.at(started.at.since(self.now), Due::Ends(started.key, started.number));
            for input in started.cancelled {
                self.at(Millis(1), Due::Answer(input, self.life));
            }
        }
        Ok(())
    }

    /// Ends the hostile phase: faults stop, all entries are switched on, operators' orders are undone.
    fn clear_up(&mut self) -> Result<(), String> {
        self.note(|| "the storm is over".into());
        self.calm = true;
        self.broker.clear_faults();
        self.things.heal(self.now);
        self.pools = pools::ample(&self.first_pools);
        while !self.broker.is_up() {
            self.step()?;
        }
        self.tenants = tenants::ample(&self.tenants);
        self.turn(vec![Input::Configure(self.configuration())])?;
        // All delayed notices and requests have arrived by now.
        for _ in 0..60 {
            self.step()?;
        }
        let undone = nature::undo(self.broker.core());
        self.turn(undone)
    }

    fn unsettled(&self) -> Option<String> {
        if !self.broker.is_up() {
            return Some("the broker is down".into());
        }
        let core = self.broker.core();
        unsettled(core, self.now).or_else(|| self.provider.unclaimed(core))
    }

    fn at_the_end(&mut self) -> Result<(), String> {
        let core = self.broker.core();
        for (n, watcher) in self.oracle.watchers.iter_mut().enumerate() {
            watcher.connected = false;
            watcher.resumes(core);
            for row in core.leases(None) {
                if watcher.known.get(&row.id) != Some(row) {
                    return Err(format!("(4) watcher {n} has {:?} for {row:?}", watcher.known.get(&row.id)));
                }
            }
        }
        if !core.leases(None).eq(self.oracle.leases.values()) {
            return Err("(3) the broker's leases are not those that are stored".into());
        }
        let changes = self.broker.changes(core.floor(), usize::MAX).map_err(|error| error.to_string())?;
        if changes.revision > core.revision() || changes.revision < Revision(1) {
            return Err(format!("the store is at {}, the broker at {}", changes.revision, core.revision()));
        }
        for id in self.things.launched() {
            let gone = core.resource(id).is_none_or(|row| matches!(row.state, ResourceState::Gone { .. }));
            if gone {
                return Err(format!("(5) {id} was launched, runs, and has no record"));
            }
        }
        Ok(())
    }
}

/// The fault of the settled state, if it has one.
pub(crate) fn unsettled(core: &Core, now: Timestamp) -> Option<String> {
    let waiting = core.leases(None).find(|row| row.spec.child.is_none() && !row.ended());
    if let Some(row) = waiting {
        let why = core.explain(row.id, now, &Scope::All).map(|e| format!("{e:?}")).unwrap_or_default();
        return Some(format!("{} is {:?}: {why}", row.id, row.state));
    }
    if let Some(row) = core.leases(None).find(|row| matches!(row.state, LeaseState::Ended { cleanup: Some(_), .. })) {
        return Some(format!("{} is not cleaned: {:?}", row.id, row.state));
    }
    let moving = |row: &&Arc<Resource>| match row.state {
        // The broker's own quarantines may outlast the run.
        ResourceState::Quarantined { until: Some(_), ref cordon, .. } => &*cordon.by != "wharfinger",
        ResourceState::Draining { .. } if keeps_a_copy(core, row.id) => false,
        ResourceState::Ready if row.hold.as_ref().is_some_and(|keep| keep.until.is_some()) => true,
        ResourceState::Suspect { .. }
        | ResourceState::Repairing { .. }
        | ResourceState::Draining { .. }
        | ResourceState::Destroying { .. }
        | ResourceState::Orphaned { .. } => true,
        // A copy without a waiting request may wait for a host for ever. It holds no slot.
        ResourceState::Provisioning { .. } => row.parent.is_none_or(|parent| parent.host.is_some()),
        ResourceState::Ready | ResourceState::Quarantined { .. } | ResourceState::Gone { .. } => false,
    };
    core.resources(None).find(moving).map(|row| format!("{} of {} is {:?}", row.id, row.pool, row.state))
}

/// A draining host waits for the resources that are held on it for triage.
fn keeps_a_copy(core: &Core, host: ResourceId) -> bool {
    core.resources(None).any(|row| {
        row.parent.is_some_and(|parent| parent.host == Some(host))
            && matches!(row.state, ResourceState::Quarantined { .. })
    })
}

fn is_answer(input: &Input) -> bool {
    match input {
        Input::Provisioned { .. }
        | Input::Prepared { .. }
        | Input::Cleaned { .. }
        | Input::Checked { .. }
        | Input::Probed { .. }
        | Input::Repaired { .. }
        | Input::Destroyed { .. }
        // No caller waits for its answer.
        | Input::Noted { .. } => true,
        Input::Lease(_)
        | Input::Release { .. }
        | Input::Report { .. }
        | Input::Unreached { .. }
        | Input::Renew { .. }
        | Input::RenewAll { .. }
        | Input::OpenSession(_)
        | Input::ResumeSession { .. }
        | Input::Beat(_)
        | Input::StreamEnded(_)
        | Input::CloseSession { .. }
        | Input::KeepAll { .. }
        | Input::Admin(_)
        | Input::Notice(_)
        | Input::Configure(_)
        | Input::Tick => false,
    }
}

pub(crate) fn op_of(input: &Input) -> Option<(ResourceId, wharfinger_core::Op)> {
    match input {
        Input::Provisioned { resource, op, .. } => Some((*resource, *op)),
        _ => None,
    }
}

pub(crate) fn work_name(effect: &wharfinger_core::Effect) -> String {
    match &effect.work {
        wharfinger_core::Work::Prepare(lease) => format!("prepare for {}", lease.id),
        wharfinger_core::Work::Clean(lease) => format!("clean after {}", lease.id),
        other => format!("{other:?}"),
    }
}

pub(crate) fn words_of(batch: &Batch) -> String {
    let mut text = format!("== {}..{}", batch.base, batch.revision);
    for row in &batch.leases {
        text.push_str(&format!("\n          {} {:?}", row.id, row.state));
    }
    for row in &batch.resources {
        text.push_str(&format!("\n          {} {} {:?}", row.id, row.pool, row.state));
    }
    for event in &batch.events {
        text.push_str(&format!("\n          # {} {} {}", event.kind, event.subject, event.detail));
    }
    text
}

pub(crate) fn words_of_answer(answer: &Result<Reply, wharfinger::engine::SubmitError>) -> String {
    match answer {
        Ok(Reply::Leases(leases)) => format!("{:?}", leases.iter().map(|row| row.id).collect::<Vec<_>>()),
        Ok(_) => "ok".into(),
        Err(error) => error.to_string(),
    }
}
