//! The outside world: the calls to adapters, the true state of the resources, and the differences between the two.
//!
//! Calls run as in the server's executor. A call that is under way is not begun twice. A clean-up ends the preparation of
//! its lease. A destroy or repair ends all calls on its resource. Each call brings one answer. A call is under way until
//! its answer is committed. A recovery keeps the calls that the recovered core names, except checks and probes, and ends
//! the others.

use crate::pools;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{
    Blame, CallFailure, Effect, Input, LeaseId, Made, Millis, Op, Prepared, ResourceId, Timestamp, Verdict, Work,
};

/// One operation, as the executor identifies it.
pub(crate) type Key = (ResourceId, Option<LeaseId>, Op);

/// The executor of one life of a server, from one recovery to the next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Caller {
    /// The epoch of its lead.
    pub(crate) epoch: u64,
    /// Unique number.
    pub(crate) life: u64,
    /// The executor's own network is down: it reaches no resource.
    pub(crate) blind: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Condition {
    Alive,
    Mangled {
        repairable: bool,
    },
    /// A cause outside of any lease spoils the resource again and again. Checks do not see it, and each preparation fails.
    Spoilt,
    Silent,
    Dead,
}

/// The true state of a resource.
struct Truth {
    condition: Condition,
    item: Option<Arc<str>>,
    host: Option<ResourceId>,
    /// Latest time at which it was other than alive.
    bad_at: Option<Timestamp>,
    /// Consecutive checks that were lost while it was alive. They stay too few to prove anything.
    lost: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    Works,
    Fails(Blame),
    Stalls,
    /// The answer to a check is lost in transit.
    Lost,
    /// A check reports a pass in any state.
    Lies,
}

#[derive(Clone)]
struct Call {
    caller: Caller,
    effect: Effect,
    plan: Plan,
    number: u64,
    /// The call has ended, and its answer is not committed yet.
    answered: bool,
}

/// Rates of the faults of a run.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) faults: bool,
    pub(crate) lies: bool,
}

#[derive(Default)]
pub(crate) struct Things {
    truth: BTreeMap<ResourceId, Truth>,
    /// Machines that are switched off.
    off: BTreeSet<Arc<str>>,
    /// Machines that come and go, with a period of three seconds.
    flapping: BTreeSet<ResourceId>,
    /// These machines cannot be reached until then, all at once.
    dark: Option<(Timestamp, BTreeSet<ResourceId>)>,
    clock: Timestamp,
    running: BTreeMap<(u64, Key), Call>,
    next: u64,
    /// Late effects of the calls of a dead process, with their times.
    strays: Vec<(Timestamp, Effect)>,
    /// The token in the fence of each slot.
    fences: BTreeMap<(ResourceId, u32), u64>,
    /// Launches that are gone: their tokens bring back nothing else.
    spent: BTreeSet<ResourceId>,
    launched_at: BTreeMap<ResourceId, Timestamp>,
    /// Latest time at which an executor without a network made a call.
    blind_at: Option<Timestamp>,
    /// Leases whose preparation failed by their own fault.
    pub(crate) blamed: BTreeSet<LeaseId>,
}

/// Later results of a call that has started.
pub(crate) struct Started {
    pub(crate) key: Key,
    pub(crate) number: u64,
    pub(crate) at: Timestamp,
    /// Answers of the calls that were ended for it.
    pub(crate) cancelled: Vec<Input>,
}

impl Things {
    /// Begins a call; `None` if it is under way already.
    ///
    /// # Errors
    ///
    /// Work of two holders on one slot.
    pub(crate) fn start(
        &mut self,
        now: Timestamp,
        caller: Caller,
        effect: Effect,
        weather: Weather,
        rng: &mut Rng,
    ) -> Result<Option<Started>, String> {
        self.clock = now;
        let key = key_of(&effect);
        if self.running.contains_key(&(caller.life, key)) {
            return Ok(None);
        }
        self.land(now);
        let cancelled = self.end_before(now, caller, &effect, rng);
        self.alone_on_slot(caller, &effect)?;
        // A call on a bought machine proceeds by steps of its own (`provider.rs`), and does nothing here.
        let bought = is_bought(&effect);
        let plan = if bought { Plan::Stalls } else { self.plan(&effect, weather, rng) };
        let (takes, limit) = (Millis(rng.between(10, 3000)), if bought { Millis(1) } else { effect.timeout });
        let late = plan == Plan::Stalls || takes > limit;
        let at = now.after(if late { limit } else { takes });
        let plan = if late { Plan::Stalls } else { plan };
        self.next += 1;
        let number = self.next;
        self.running.insert((caller.life, key), Call { caller, effect, plan, number, answered: false });
        Ok(Some(Started { key, number, at, cancelled }))
    }

    /// Ends the calls that must not run beside this one. Half of them have done their work.
    fn end_before(&mut self, now: Timestamp, caller: Caller, effect: &Effect, rng: &mut Rng) -> Vec<Input> {
        let ends = |(life, key): &&(u64, Key)| {
            *life == caller.life
                && match &effect.work {
                    Work::Clean(lease) => key.1 == Some(lease.id),
                    Work::Destroy | Work::Repair => key.0 == effect.resource.id,
                    Work::Provision(_) | Work::Prepare(_) | Work::Check | Work::Probe => false,
                }
        };
        let keys = self.running.iter().filter(|(key, call)| !call.answered && ends(key)).map(|(key, _)| *key);
        let keys: Vec<(u64, Key)> = keys.collect();
        let mut answers = Vec::new();
        for key in keys {
            let Some(call) = self.running.remove(&key) else { continue };
            if rng.chance(500) {
                self.change(now, &call.effect, call.plan);
            }
            answers.push(failed(&call.effect, failure(Blame::Resource, "CANCELLED")));
        }
        answers
    }

    /// Invariant 1, seen from outside: work of two holders never shares a slot. A deposed server may not know of its end
    /// yet. Then the fence refuses its work, if the token of its successor is greater.
    fn alone_on_slot(&self, caller: Caller, effect: &Effect) -> Result<(), String> {
        let slot = |work: &Work| match work {
            Work::Prepare(lease) | Work::Clean(lease) => lease.assignment().map(|hold| (lease.id, *hold)),
            Work::Provision(_) | Work::Check | Work::Probe | Work::Repair | Work::Destroy => None,
        };
        let Some((lease, hold)) = slot(&effect.work) else { return Ok(()) };
        let (resource, number) = (hold.resource, hold.slot);
        for call in self.running.values().filter(|call| !call.answered) {
            if let Some((other, held)) = slot(&call.effect.work)
                && (held.resource, held.slot) == (resource, number)
                && other != lease
                && (call.caller.epoch == caller.epoch
                    || (call.caller.epoch < caller.epoch) != (held.token < hold.token))
            {
                return Err(format!(
                    "work for {lease} begins on slot {number} of {resource}, where {other}'s still runs"
                ));
            }
        }
        Ok(())
    }

    fn plan(&mut self, effect: &Effect, weather: Weather, rng: &mut Rng) -> Plan {
        if !weather.faults {
            return Plan::Works;
        }
        let dice = rng.below(1000);
        match &effect.work {
            Work::Check | Work::Probe => {
                let Some(truth) = self.truth.get_mut(&effect.resource.id) else { return Plan::Works };
                match dice {
                    0..60 => {
                        truth.lost = 0;
                        Plan::Fails(Blame::Provider)
                    }
                    60..80 if weather.lies => Plan::Lies,
                    // Checks are never lost twice in a row: noise must not become evidence.
                    100..180 if truth.lost == 0 => {
                        truth.lost = 1;
                        Plan::Lost
                    }
                    _ => {
                        truth.lost = 0;
                        Plan::Works
                    }
                }
            }
            Work::Prepare(_) if dice < 25 => Plan::Fails(Blame::Request),
            Work::Provision(_) | Work::Prepare(_) | Work::Clean(_) | Work::Repair | Work::Destroy => match dice {
                30..80 => Plan::Fails(Blame::Resource),
                80..130 => Plan::Fails(Blame::Provider),
                130..150 => Plan::Fails(Blame::Configuration),
                150..160 => Plan::Fails(Blame::Bug),
                160..190 => Plan::Stalls,
                _ => Plan::Works,
            },
        }
    }

    /// Ends a call: its changes, and its answer. `None` if the call was ended before, or if its process died.
    pub(crate) fn finish(&mut self, now: Timestamp, life: u64, key: Key, number: u64) -> Option<Input> {
        if self.number_of(life, key) != Some(number) {
            return None;
        }
        self.clock = now;
        self.land(now);
        let call = self.running.get_mut(&(life, key))?;
        call.answered = true;
        let call = call.clone();
        let effect = &call.effect;
        if call.caller.blind {
            self.blind_at = Some(now);
            let blame = match &effect.work {
                Work::Check | Work::Probe => Blame::Resource,
                _ => Blame::Provider,
            };
            return Some(failed(effect, failure(blame, "NO_WAY_OUT")));
        }
        if self.fenced(effect) {
            return Some(failed(effect, failure(Blame::Provider, "FENCED")));
        }
        match call.plan {
            Plan::Stalls => return Some(failed(effect, failure(Blame::Resource, "TIMEOUT"))),
            Plan::Fails(blame) => {
                if let (Work::Prepare(lease), Blame::Request) = (&effect.work, blame) {
                    self.blamed.insert(lease.id);
                }
                return Some(failed(effect, failure(blame, "BAD_DAY")));
            }
            Plan::Works | Plan::Lost | Plan::Lies => {}
        }
        let there = self.condition(effect.resource.id);
        let host = effect.host.as_ref().map(|host| self.condition(host.id));
        let reached = host
            .is_none_or(|host| matches!(host, Some(Condition::Alive | Condition::Spoilt | Condition::Mangled { .. })));
        let no_route = || failure(Blame::Resource, "UNREACHABLE");
        Some(match &effect.work {
            Work::Check | Work::Probe => {
                let (reason, detail) = ("SIMULATED", "what the check saw".to_string());
                let verdict = match there {
                    _ if call.plan == Plan::Lies => Verdict::Healthy,
                    _ if call.plan == Plan::Lost || !reached => Verdict::Unreachable { reason, detail },
                    Some(Condition::Alive | Condition::Spoilt) => Verdict::Healthy,
                    Some(Condition::Mangled { repairable }) => Verdict::Mangled { repairable, reason, detail },
                    Some(Condition::Silent) => Verdict::Unreachable { reason, detail },
                    Some(Condition::Dead) | None => Verdict::Gone { reason, detail },
                };
                answered(effect, Ok(verdict))
            }
            Work::Provision(_) => {
                let off = effect.resource.item.as_ref().is_some_and(|item| self.off.contains(item));
                if off || !reached {
                    return Some(failed(effect, no_route()));
                }
                self.change(now, effect, call.plan);
                answered(effect, Ok(Verdict::Healthy))
            }
            Work::Prepare(_) | Work::Clean(_) => match there {
                Some(Condition::Spoilt) if reached && matches!(effect.work, Work::Prepare(_)) => {
                    failed(effect, failure(Blame::Resource, "SPOILT"))
                }
                Some(Condition::Alive | Condition::Spoilt) if reached => {
                    self.change(now, effect, call.plan);
                    answered(effect, Ok(Verdict::Healthy))
                }
                _ => failed(effect, no_route()),
            },
            Work::Repair => match there {
                Some(Condition::Alive | Condition::Spoilt | Condition::Mangled { .. }) if reached => {
                    self.change(now, effect, call.plan);
                    answered(effect, Ok(Verdict::Healthy))
                }
                _ => failed(effect, no_route()),
            },
            Work::Destroy => {
                if effect.host.is_some() && !reached {
                    return Some(failed(effect, no_route()));
                }
                self.change(now, effect, call.plan);
                answered(effect, Ok(Verdict::Healthy))
            }
        })
    }

    /// A call that is under way on a bought machine.
    pub(crate) fn buys(&self, life: u64, key: Key, number: u64) -> Option<Effect> {
        let call = self.running.get(&(life, key)).filter(|call| call.number == number && !call.answered)?;
        is_bought(&call.effect).then(|| call.effect.clone())
    }

    /// The number of the call that this input is about.
    pub(crate) fn number_of(&self, life: u64, key: Key) -> Option<u64> {
        self.running.get(&(life, key)).filter(|call| !call.answered).map(|call| call.number)
    }

    /// The answer of a call on a bought machine, which has ended.
    pub(crate) fn bought(
        &mut self,
        now: Timestamp,
        life: u64,
        key: Key,
        result: Result<Option<Made>, CallFailure>,
    ) -> Option<Input> {
        let call = self.running.get_mut(&(life, key))?;
        call.answered = true;
        let effect = call.effect.clone();
        Some(match result {
            Ok(Some(made)) => {
                self.clock = now;
                self.change(now, &effect, Plan::Works);
                Input::Provisioned { resource: effect.resource.id, op: effect.op, result: Ok(made) }
            }
            Ok(None) => {
                self.change(now, &effect, Plan::Works);
                answered(&effect, Ok(Verdict::Healthy))
            }
            Err(failure) => failed(&effect, failure),
        })
    }

    /// The effect of a call on the world, also if its answer is lost.
    fn change(&mut self, now: Timestamp, effect: &Effect, plan: Plan) {
        if plan != Plan::Works {
            return;
        }
        let id = effect.resource.id;
        match &effect.work {
            // The same token brings the same machine, which is gone.
            Work::Provision(_) if self.spent.contains(&id) => {}
            Work::Provision(_) => {
                self.launched_at.entry(id).or_insert(now);
                let item = effect.resource.item.clone();
                let host = effect.host.as_ref().map(|host| host.id);
                let fresh = Truth { condition: Condition::Alive, item, host, bad_at: None, lost: 0 };
                // The number identifies the machine, if it was made before.
                self.truth.entry(id).or_insert(fresh);
            }
            Work::Repair if self.condition(id) == Some(Condition::Spoilt) => {}
            Work::Repair => self.become_so(now, id, Condition::Alive),
            Work::Destroy => {
                if self.truth.remove(&id).is_some() {
                    self.spent.insert(id);
                }
            }
            Work::Prepare(lease) => {
                if let Some(hold) = lease.assignment() {
                    self.fences.insert((hold.resource, hold.slot), hold.token);
                }
            }
            Work::Clean(_) | Work::Check | Work::Probe => {}
        }
    }

    /// Whether a later lease has the slot: then this lease gets no work.
    fn fenced(&self, effect: &Effect) -> bool {
        let (Work::Prepare(lease) | Work::Clean(lease)) = &effect.work else { return false };
        let Some(hold) = lease.assignment() else { return false };
        self.fences.get(&(hold.resource, hold.slot)).is_some_and(|stands| *stands > hold.token)
    }

    /// The call of this answer or note, from its start until its answer is committed.
    fn call_of(&self, life: u64, input: &Input) -> Option<Key> {
        let key = match input {
            Input::Provisioned { resource, op, .. }
            | Input::Noted { resource, op, .. }
            | Input::Checked { resource, op, .. }
            | Input::Repaired { resource, op, .. }
            | Input::Destroyed { resource, op, .. } => (*resource, None, *op),
            Input::Probed { resource, .. } => (*resource, None, Op(0)),
            Input::Prepared { lease, op, .. } | Input::Cleaned { lease, op, .. } => {
                let of = |(own, key): &&(u64, Key)| *own == life && (key.1, key.2) == (Some(*lease), *op);
                self.running.keys().find(of)?.1
            }
            _ => return None,
        };
        self.running.contains_key(&(life, key)).then_some(key)
    }

    /// Whether this answer or note counts: its call was not ended.
    pub(crate) fn counts(&self, life: u64, input: &Input) -> bool {
        self.call_of(life, input).is_some()
    }

    /// Records the commit of an input. If it was the answer of a call, the call is no longer under way.
    pub(crate) fn settle(&mut self, life: u64, input: &Input) {
        if let Some(key) = self.call_of(life, input)
            && self.running.get(&(life, key)).is_some_and(|call| call.answered)
        {
            self.running.remove(&(life, key));
        }
    }

    /// Recovery of this life's broker. Calls that the recovered core names continue, except checks and probes. The others
    /// are ended; half of them have done their work. Returns the number of calls that continue, and the numbers of the
    /// ended calls.
    pub(crate) fn recovered(&mut self, now: Timestamp, life: u64, named: &[Effect], rng: &mut Rng) -> (u64, Vec<u64>) {
        let question = |effect: &Effect| matches!(effect.work, Work::Check | Work::Probe);
        let named: BTreeSet<Key> = named.iter().filter(|effect| !question(effect)).map(key_of).collect();
        let (mut kept, mut over) = (0, Vec::new());
        for (at, call) in std::mem::take(&mut self.running) {
            if at.0 != life {
                self.running.insert(at, call);
                continue;
            }
            if named.contains(&at.1) {
                self.running.insert(at, call);
                kept += 1;
                continue;
            }
            over.push(call.number);
            if !call.answered && !call.caller.blind && rng.chance(500) {
                self.change(now, &call.effect, call.plan);
            }
        }
        (kept, over)
    }

    /// Ends the calls of a process that died. Their answers are lost, but half of them have done their work.
    pub(crate) fn process_died(&mut self, now: Timestamp, rng: &mut Rng) {
        for call in std::mem::take(&mut self.running).into_values() {
            if !call.answered && rng.chance(500) {
                self.change(now, &call.effect, call.plan);
            }
        }
    }

    /// Ends the calls of one of several processes. Their effects in transit may also arrive later. Returns the ended calls.
    pub(crate) fn one_died(&mut self, now: Timestamp, life: u64, rng: &mut Rng) -> Vec<u64> {
        self.land(now);
        let keys: Vec<(u64, Key)> = self.running.keys().filter(|(own, _)| *own == life).copied().collect();
        let mut over = Vec::new();
        for key in keys {
            let Some(call) = self.running.remove(&key) else { continue };
            over.push(call.number);
            match rng.below(3) {
                _ if call.answered || call.caller.blind || call.plan != Plan::Works => {}
                0 => self.change(now, &call.effect, call.plan),
                1 => self.strays.push((now.after(Millis(rng.between(50, 15_000))), call.effect)),
                _ => {}
            }
        }
        over
    }

    /// Applies the effects that were delayed.
    fn land(&mut self, now: Timestamp) {
        let (due, later) = std::mem::take(&mut self.strays).into_iter().partition(|(at, _)| *at <= now);
        self.strays = later;
        let due: Vec<(Timestamp, Effect)> = due;
        for (_, effect) in due {
            if self.fenced(&effect) {
                continue;
            }
            self.change(now, &effect, Plan::Works);
        }
    }

    /// Removes a launched resource that has no record and is older than any launch.
    pub(crate) fn sweep(&mut self, now: Timestamp, recorded: impl Fn(ResourceId) -> bool) {
        self.land(now);
        let old = now.before(Millis::secs(60));
        let nobodys: Vec<ResourceId> = self
            .launched()
            .into_iter()
            .filter(|id| !recorded(*id) && self.launched_at.get(id).is_none_or(|at| *at <= old))
            .collect();
        for id in nobodys {
            self.truth.remove(&id);
            self.spent.insert(id);
        }
    }

    /// The true state of a resource; `None` if it does not exist.
    pub(crate) fn condition(&self, id: ResourceId) -> Option<Condition> {
        let truth = self.truth.get(&id)?;
        let off = truth.item.as_ref().is_some_and(|item| self.off.contains(item));
        let flaps = self.flapping.contains(&id) && (self.clock.0 / 1500) % 2 == 0;
        let unlit = self.dark.as_ref().is_some_and(|(_, which)| which.contains(&id));
        let silent = off || flaps || unlit;
        Some(if silent && truth.condition != Condition::Dead { Condition::Silent } else { truth.condition })
    }

    pub(crate) fn become_so(&mut self, now: Timestamp, id: ResourceId, condition: Condition) {
        if let Some(truth) = self.truth.get_mut(&id)
            && truth.condition != Condition::Dead
        {
            truth.bad_at = Some(now);
            truth.condition = condition;
        }
    }

    pub(crate) fn switch(&mut self, now: Timestamp, item: &Arc<str>, off: bool) {
        if off {
            self.off.insert(item.clone());
        } else {
            self.off.remove(item);
        }
        for truth in self.truth.values_mut().filter(|truth| truth.item.as_ref() == Some(item)) {
            truth.bad_at = Some(now);
        }
    }

    /// Whether it, or its host, was other than alive within this time.
    pub(crate) fn was_bad(&self, id: ResourceId, now: Timestamp, within: Millis) -> bool {
        let Some(truth) = self.truth.get(&id) else { return true };
        self.blind_at.is_some_and(|at| at.after(within) >= now)
            || self.flapping.contains(&id)
            || self.condition(id) != Some(Condition::Alive)
            || truth.bad_at.is_some_and(|at| at.after(within) >= now)
            || truth.host.is_some_and(|host| self.was_bad(host, now, within))
    }

    /// Makes it come and go from now on, or ends that.
    pub(crate) fn flap(&mut self, now: Timestamp, id: ResourceId, flaps: bool) {
        if flaps {
            self.flapping.insert(id);
        } else {
            self.flapping.remove(&id);
        }
        if let Some(truth) = self.truth.get_mut(&id) {
            truth.bad_at = Some(now);
        }
    }

    /// A shared part fails: none of these machines can be reached for a while.
    pub(crate) fn darken(&mut self, now: Timestamp, until: Timestamp, which: BTreeSet<ResourceId>) {
        self.lighten(now, true);
        self.dark = Some((until, which));
    }

    /// The shared part works again, once its time has come.
    pub(crate) fn lighten(&mut self, now: Timestamp, at_once: bool) {
        if !self.dark.as_ref().is_some_and(|(until, _)| at_once || *until <= now) {
            return;
        }
        for id in self.dark.take().map(|(_, which)| which).unwrap_or_default() {
            if let Some(truth) = self.truth.get_mut(&id) {
                truth.bad_at = Some(now);
            }
        }
    }

    /// All resources are switched on and answer again. Dead or mangled ones stay so.
    pub(crate) fn heal(&mut self, now: Timestamp) {
        self.strays.iter_mut().for_each(|(at, _)| *at = now.min(*at));
        self.land(now);
        for item in std::mem::take(&mut self.off) {
            self.switch(now, &item, false);
        }
        self.lighten(now, true);
        for id in std::mem::take(&mut self.flapping) {
            self.flap(now, id, false);
        }
        for truth in self.truth.values_mut().filter(|truth| truth.condition == Condition::Silent) {
            truth.condition = Condition::Alive;
            truth.bad_at = Some(now);
        }
    }

    pub(crate) fn all(&self) -> Vec<ResourceId> {
        self.truth.keys().copied().collect()
    }

    /// Resources that were made without a request of a host. Each must have a record.
    pub(crate) fn launched(&self) -> Vec<ResourceId> {
        self.truth.iter().filter(|(_, truth)| truth.host.is_none()).map(|(id, _)| *id).collect()
    }
}

fn is_bought(effect: &Effect) -> bool {
    &*effect.resource.pool == pools::BOATS && matches!(effect.work, Work::Provision(_) | Work::Destroy)
}

fn key_of(effect: &Effect) -> Key {
    let lease = match &effect.work {
        Work::Prepare(lease) | Work::Clean(lease) => Some(lease.id),
        Work::Provision(_) | Work::Check | Work::Probe | Work::Repair | Work::Destroy => None,
    };
    (effect.resource.id, lease, effect.op)
}

fn failure(blame: Blame, reason: &str) -> CallFailure {
    CallFailure { blame, reason: Arc::from(reason), message: Arc::from("simulated"), retry_after: None }
}

fn answered(effect: &Effect, verdict: Result<Verdict, CallFailure>) -> Input {
    let (resource, op) = (effect.resource.id, effect.op);
    let plain = verdict.clone().map(|_| ());
    let made = || Made { handle: Some(Arc::from("i-1")), ..Made::default() };
    match &effect.work {
        Work::Check => Input::Checked { resource, op, result: verdict },
        Work::Probe => Input::Probed { resource, result: verdict },
        Work::Provision(_) => Input::Provisioned { resource, op, result: plain.map(|()| made()) },
        Work::Prepare(lease) => {
            let made = || Prepared { near: (*lease.spec.params).clone(), ..Prepared::default() };
            Input::Prepared { lease: lease.id, op, result: plain.map(|()| made()) }
        }
        Work::Clean(lease) => Input::Cleaned { lease: lease.id, op, result: plain },
        Work::Repair => Input::Repaired { resource, op, result: plain },
        Work::Destroy => Input::Destroyed { resource, op, result: plain },
    }
}

/// A call that failed. For a check, a call that could not even be made on its resource is a verdict.
fn failed(effect: &Effect, failure: CallFailure) -> Input {
    let unreachable = matches!(effect.work, Work::Check | Work::Probe) && failure.blame == Blame::Resource;
    let silent = || Verdict::Unreachable { reason: "SIMULATED", detail: failure.reason.to_string() };
    answered(effect, if unreachable { Ok(silent()) } else { Err(failure) })
}
