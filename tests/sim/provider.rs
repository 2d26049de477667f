//! A provider that sells machines, and the adapter that buys them. The provider is eventually consistent, short of
//! capacity, limits its rate of requests, loses permissions and answers, and takes machines back. Its warnings come late,
//! twice or never.
//!
//! The model follows the real `ec2` adapter in the terms of the core. The note comes first (`Input::Noted`): no request
//! leaves before its answer. An attempt keeps its token until its outcome is known; only then another attempt begins. This
//! file also has the oracle of money: no resource has two machines, each request is stored before it leaves, and at the end
//! each running machine has a record.

use crate::adapters::Weather;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{
    Blame, CallFailure, Core, Effect, Input, Made, Millis, Notice, NoticeKind, NoticeTarget, ResourceId, ResourceState,
    Timestamp, Work,
};

/// Maximum time until the lists show a new machine.
const LAG_MAX: Millis = Millis(8000);
/// Time that the adapter waits before it trusts the lists.
const LISTED_AFTER: Millis = Millis(10_000);
/// Age at which a machine without a record is ended. It is longer than any launch.
const ORPHAN_AGE: Millis = Millis::secs(45);
/// Maximum number of repetitions of a request in one call.
const REPEATS_MAX: u32 = 6;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Runs,
    /// Time at which the provider takes the machine back.
    Ends(Timestamp),
    Over,
}

struct Machine {
    resource: ResourceId,
    attempt: u32,
    born: Timestamp,
    listed: Timestamp,
    boots: Timestamp,
    state: State,
}

/// The adapter's note about a resource, as stored in its handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Note {
    Launching { attempt: u32, since: Timestamp },
    Refused { attempt: u32, at: Timestamp },
    Launched { attempt: u32, machine: u64 },
    Ready { attempt: u32, machine: u64 },
    Over { attempt: u32 },
}

impl Note {
    fn text(self) -> Arc<str> {
        Arc::from(match self {
            Note::Launching { attempt, since } => format!("launching {attempt} {}", since.0),
            Note::Refused { attempt, at } => format!("refused {attempt} {}", at.0),
            Note::Launched { attempt, machine } => format!("launched {attempt} {machine}"),
            Note::Ready { attempt, machine } => format!("ready {attempt} {machine}"),
            Note::Over { attempt } => format!("over {attempt} 0"),
        })
    }

    fn read(handle: Option<&Arc<str>>) -> Option<Self> {
        let mut words = handle?.split(' ');
        let stage = words.next()?;
        let attempt = words.next()?.parse().ok()?;
        let number: i64 = words.next()?.parse().ok()?;
        let machine = number.unsigned_abs();
        Some(match stage {
            "launching" => Note::Launching { attempt, since: Timestamp(number) },
            "refused" => Note::Refused { attempt, at: Timestamp(number) },
            "launched" => Note::Launched { attempt, machine },
            "ready" => Note::Ready { attempt, machine },
            _ => Note::Over { attempt },
        })
    }

    /// Whether the note names this machine.
    fn claims(self, number: u64, machine: &Machine) -> bool {
        match self {
            Note::Launching { attempt, .. } | Note::Refused { attempt, .. } => attempt == machine.attempt,
            Note::Launched { machine, .. } | Note::Ready { machine, .. } => machine == number,
            Note::Over { .. } => false,
        }
    }
}

/// Progress of a call that makes a machine.
#[derive(Clone, Debug)]
enum Stage {
    Begins,
    /// The call waits until the note is durable, and continues from it, or ends with this failure.
    Writes(Note, Option<CallFailure>),
    Asks {
        attempt: u32,
        since: Timestamp,
        doubtful: bool,
        repeats: u32,
    },
    /// The answer of the provider is in transit.
    Hears {
        attempt: u32,
        machine: u64,
    },
    LooksFor {
        attempt: u32,
        refused: Timestamp,
    },
    Proves {
        attempt: u32,
        machine: u64,
    },
}

struct Call {
    began: Timestamp,
    stage: Stage,
}

/// The next step of a call.
pub(crate) enum Next {
    /// The call stores this note and waits for the answer.
    Writes(Arc<str>),
    /// The call continues after this time.
    Again(Millis),
    Made(Made),
    Gone,
    Fails(CallFailure),
}

#[derive(Default)]
pub(crate) struct Provider {
    machines: BTreeMap<u64, Machine>,
    tokens: BTreeMap<(ResourceId, u32), u64>,
    calls: BTreeMap<u64, Call>,
    next: u64,
    /// No capacity is for sale before this time.
    short: Timestamp,
    /// The account may not launch before this time.
    refusing: Timestamp,
    /// Machines that the last sweep saw without a record.
    strays: BTreeSet<u64>,
    /// The first breach.
    broken: Option<String>,
    pub(crate) launches: u64,
}

fn fails(blame: Blame, reason: &str) -> CallFailure {
    CallFailure { blame, reason: Arc::from(reason), message: Arc::from("simulated"), retry_after: None }
}

impl Provider {
    /// Records a breach.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Continues a call. `number` names the call; `stored` is the handle as the store has it.
    pub(crate) fn goes_on(
        &mut self,
        now: Timestamp,
        (number, effect): (u64, &Effect),
        stored: Option<Arc<str>>,
        weather: Weather,
        rng: &mut Rng,
    ) -> Next {
        let next = match effect.work {
            Work::Destroy => self.ends(now, effect, weather, rng),
            _ => {
                let begins = Call { began: now, stage: Stage::Begins };
                let call = self.calls.entry(number).or_insert(begins);
                if call.began.after(effect.timeout) <= now {
                    Next::Fails(fails(Blame::Resource, "TIMEOUT"))
                } else {
                    let stage = call.stage.clone();
                    self.makes(now, (number, effect), stage, stored, weather, rng)
                }
            }
        };
        if matches!(next, Next::Made(_) | Next::Gone | Next::Fails(_)) {
            self.calls.remove(&number);
        }
        next
    }

    /// Continues the call if its note is durable, and ends the call otherwise.
    pub(crate) fn written(&mut self, number: u64, durable: bool) -> Next {
        let Some(call) = self.calls.get_mut(&number) else { return Next::Again(Millis(1)) };
        let Stage::Writes(note, failure) = call.stage.clone() else { return Next::Again(Millis(1)) };
        if let Some(failure) = failure.filter(|_| durable) {
            self.calls.remove(&number);
            return Next::Fails(failure);
        }
        if !durable {
            self.calls.remove(&number);
            return Next::Fails(fails(Blame::Provider, "NOT_NOTED"));
        }
        call.stage = Self::stage_of(Some(note), false);
        Next::Again(Millis(1))
    }

    /// Writes a note again that the store did not take.
    pub(crate) fn unwritten(&self, number: u64) -> Option<Arc<str>> {
        match &self.calls.get(&number)?.stage {
            Stage::Writes(note, _) => Some(note.text()),
            _ => None,
        }
    }

    fn stage_of(note: Option<Note>, resumed: bool) -> Stage {
        match note {
            None => Stage::Begins,
            Some(Note::Launching { attempt, since }) => Stage::Asks { attempt, since, doubtful: resumed, repeats: 0 },
            Some(Note::Refused { attempt, at }) => Stage::LooksFor { attempt, refused: at },
            Some(Note::Launched { attempt, machine } | Note::Ready { attempt, machine }) => {
                Stage::Proves { attempt, machine }
            }
            Some(Note::Over { attempt }) => Stage::Writes(Note::Over { attempt }, None),
        }
    }

    fn writes(&mut self, number: u64, note: Note, failure: Option<CallFailure>) -> Next {
        if let Some(call) = self.calls.get_mut(&number) {
            call.stage = Stage::Writes(note, failure);
        }
        Next::Writes(note.text())
    }

    fn turns(&mut self, number: u64, stage: Stage, after: i64) -> Next {
        if let Some(call) = self.calls.get_mut(&number) {
            call.stage = stage;
        }
        Next::Again(Millis(after))
    }

    fn makes(
        &mut self,
        now: Timestamp,
        (number, effect): (u64, &Effect),
        stage: Stage,
        stored: Option<Arc<str>>,
        weather: Weather,
        rng: &mut Rng,
    ) -> Next {
        let id = effect.resource.id;
        match stage {
            Stage::Begins => match Note::read(effect.resource.handle.as_ref()) {
                None => self.writes(number, Note::Launching { attempt: 1, since: now }, None),
                Some(Note::Over { attempt }) => {
                    self.writes(number, Note::Launching { attempt: attempt + 1, since: now }, None)
                }
                Some(note) => self.turns(number, Self::stage_of(Some(note), true), 1),
            },
            // The note that an attempt has ended is durable: the next attempt begins.
            Stage::Writes(Note::Over { attempt }, _) => {
                self.writes(number, Note::Launching { attempt: attempt + 1, since: now }, None)
            }
            Stage::Writes(note, _) => Next::Writes(note.text()),
            Stage::Asks { attempt, since, doubtful, repeats } => {
                let again = |doubtful| Stage::Asks { attempt, since, doubtful, repeats: repeats + 1 };
                if repeats >= REPEATS_MAX {
                    return Next::Fails(fails(Blame::Provider, "LAUNCH_IN_DOUBT"));
                }
                // A deposed server may repeat a request that its successor has continued. The request was stored before
                // that.
                let written = Note::read(stored.as_ref()).is_some_and(|note| match note {
                    Note::Launching { .. } => note == Note::Launching { attempt, since },
                    Note::Refused { attempt: later, .. }
                    | Note::Launched { attempt: later, .. }
                    | Note::Ready { attempt: later, .. }
                    | Note::Over { attempt: later } => later == attempt,
                });
                if !written {
                    self.broken.get_or_insert(format!("(5) {id} asks for what is not stored: {stored:?}"));
                }
                let dice = if weather.faults { rng.below(1000) } else { 999 };
                match dice {
                    0..80 => return self.turns(number, again(doubtful), rng.between(1000, 3000)),
                    80..180 => return self.turns(number, again(true), rng.between(500, 2000)),
                    _ => {}
                }
                // The provider checks permissions before it looks at the token.
                let refused = weather.faults && self.refusing > now;
                let answer = if refused { None } else { self.launch(now, id, attempt, weather, rng) };
                if dice < 280 {
                    // The request is done or refused, and its answer is lost.
                    return self.turns(number, again(true), rng.between(500, 2000));
                }
                match answer {
                    Some(machine) if self.is_over(machine) => self.writes(number, Note::Over { attempt }, None),
                    Some(machine) => self.turns(number, Stage::Hears { attempt, machine }, rng.between(1, 1500)),
                    None if doubtful => match self.listed(now, id, Some(attempt)) {
                        Some(machine) => self.writes(number, Note::Launched { attempt, machine }, None),
                        None => {
                            let failure = Some(fails(Blame::Provider, "LAUNCH_IN_DOUBT"));
                            self.writes(number, Note::Refused { attempt, at: now }, failure)
                        }
                    },
                    None => {
                        let blame = if refused { Blame::Configuration } else { Blame::Provider };
                        self.writes(number, Note::Over { attempt }, Some(fails(blame, "NO_CAPACITY")))
                    }
                }
            }
            Stage::Hears { attempt, machine } => self.writes(number, Note::Launched { attempt, machine }, None),
            Stage::LooksFor { attempt, refused } => match self.listed(now, id, Some(attempt)) {
                Some(machine) => self.writes(number, Note::Launched { attempt, machine }, None),
                None if refused.after(LISTED_AFTER) <= now => self.writes(number, Note::Over { attempt }, None),
                None => Next::Fails(fails(Blame::Provider, "LAUNCH_IN_DOUBT")),
            },
            Stage::Proves { attempt, machine } => {
                let Some(own) = self.machines.get(&machine) else {
                    return self.writes(number, Note::Over { attempt }, None);
                };
                if own.state == State::Over {
                    return self.writes(number, Note::Over { attempt }, None);
                }
                if own.listed > now || own.boots > now {
                    return Next::Again(Millis(rng.between(300, 1500)));
                }
                let handle = Some(Note::Ready { attempt, machine }.text());
                Next::Made(Made { handle, ..Made::default() })
            }
        }
    }

    /// The provider's part of a launch: it looks at the token first, then at the capacity.
    fn launch(&mut self, now: Timestamp, id: ResourceId, attempt: u32, weather: Weather, rng: &mut Rng) -> Option<u64> {
        if let Some(known) = self.tokens.get(&(id, attempt)) {
            return Some(*known);
        }
        if weather.faults && self.short > now {
            return None;
        }
        if let Some((other, _)) = self.machines.iter().find(|(_, own)| own.resource == id && own.state != State::Over) {
            self.broken.get_or_insert(format!("(12) {id} has machine {other}, and attempt {attempt} buys another"));
        }
        self.next += 1;
        self.launches += 1;
        let slow = |most: i64, rng: &mut Rng| now.after(Millis(if weather.faults { rng.between(0, most) } else { 50 }));
        let (listed, boots) = (slow(LAG_MAX.0, rng), slow(5000, rng));
        let machine = Machine { resource: id, attempt, born: now, listed, boots, state: State::Runs };
        self.machines.insert(self.next, machine);
        self.tokens.insert((id, attempt), self.next);
        Some(self.next)
    }

    fn is_over(&self, machine: u64) -> bool {
        self.machines.get(&machine).is_none_or(|own| own.state == State::Over)
    }

    /// A machine of this resource that the lists show.
    fn listed(&self, now: Timestamp, id: ResourceId, attempt: Option<u32>) -> Option<u64> {
        let ours = |own: &Machine| {
            own.resource == id
                && own.listed <= now
                && own.state != State::Over
                && attempt.is_none_or(|at| at == own.attempt)
        };
        self.machines.iter().find(|(_, own)| ours(own)).map(|(number, _)| *number)
    }

    /// One step of the removal of a machine.
    fn ends(&mut self, now: Timestamp, effect: &Effect, weather: Weather, rng: &mut Rng) -> Next {
        if weather.faults && rng.chance(120) {
            return Next::Fails(fails(Blame::Provider, "THROTTLED"));
        }
        let id = effect.resource.id;
        let not_yet = || Next::Fails(fails(Blame::Provider, "NOT_TERMINATED_YET"));
        match Note::read(effect.resource.handle.as_ref()) {
            None | Some(Note::Over { .. }) => Next::Gone,
            Some(Note::Launching { since, .. } | Note::Refused { at: since, .. }) => match self.listed(now, id, None) {
                Some(machine) => {
                    self.over(machine);
                    not_yet()
                }
                None if since.after(LISTED_AFTER) <= now => Next::Gone,
                None => not_yet(),
            },
            Some(Note::Launched { machine, .. } | Note::Ready { machine, .. }) => {
                let known = self.machines.get(&machine).map(|own| (own.listed, own.state));
                match known {
                    // The lists do not show the machine yet, but may show it later.
                    Some((listed, state)) if listed > now && state != State::Over => not_yet(),
                    _ => {
                        self.over(machine);
                        Next::Gone
                    }
                }
            }
        }
    }

    fn over(&mut self, machine: u64) {
        if let Some(own) = self.machines.get_mut(&machine) {
            own.state = State::Over;
        }
    }

    /// Ends all calls, because their process died.
    pub(crate) fn halted(&mut self) {
        self.calls.clear();
    }

    /// Ends these calls.
    pub(crate) fn ended(&mut self, calls: &[u64]) {
        calls.iter().for_each(|number| drop(self.calls.remove(number)));
    }

    /// Removes the machine under a host, for any reason.
    pub(crate) fn dies(&mut self, id: ResourceId) {
        for own in self.machines.values_mut().filter(|own| own.resource == id) {
            own.state = State::Over;
        }
    }

    /// Lets time pass: the provider takes machines back, warns of others, and changes its markets. Returns the hosts that
    /// have ended, and the notices with their hosts and times.
    pub(crate) fn lives(
        &mut self,
        now: Timestamp,
        core: &Core,
        hostile: bool,
        rng: &mut Rng,
    ) -> (Vec<ResourceId>, Vec<(Timestamp, Input)>) {
        let mut gone = Vec::new();
        let mut said = Vec::new();
        for own in self.machines.values_mut() {
            if matches!(own.state, State::Ends(at) if at <= now) {
                own.state = State::Over;
                gone.push(own.resource);
                // The end of a machine, too, may be announced never or twice.
                for _ in 0..rng.below(3) {
                    let at = now.after(Millis(rng.between(1, 9000)));
                    said.extend(tell(core, own.resource, NoticeKind::Gone, "queue").map(|input| (at, input)));
                }
            }
        }
        if hostile {
            match rng.below(6) {
                0 => self.short = now.after(Millis::secs(rng.between(1, 20))),
                1 => self.refusing = now.after(Millis::secs(rng.between(1, 15))),
                2 | 3 => {
                    let runs: Vec<u64> =
                        self.machines.iter().filter(|(_, own)| own.state == State::Runs).map(|(at, _)| *at).collect();
                    if let Some(own) = rng.pick(&runs).and_then(|at| self.machines.get_mut(&at)) {
                        let end = now.after(Millis::secs(rng.between(2, 20)));
                        own.state = State::Ends(end);
                        for _ in 0..rng.below(3) {
                            let at = now.after(Millis(rng.between(1, 12_000)));
                            let warning = tell(core, own.resource, NoticeKind::Interruption(end), "queue");
                            said.extend(warning.map(|input| (at, input)));
                        }
                    }
                }
                _ => {}
            }
        }
        said.extend(self.sweeps(now, core, rng));
        (gone, said)
    }

    /// The adapter compares the lists with the records, in both directions.
    fn sweeps(&mut self, now: Timestamp, core: &Core, rng: &mut Rng) -> Vec<(Timestamp, Input)> {
        let mut said = Vec::new();
        let mut strays = BTreeSet::new();
        let mut ended = Vec::new();
        for (number, own) in self.machines.iter().filter(|(_, own)| own.listed <= now) {
            let row = core.resource(own.resource);
            let note = row.and_then(|row| Note::read(row.handle.as_ref()));
            let gone = row.is_none_or(|row| matches!(row.state, ResourceState::Gone { .. }));
            let claimed = !gone && note.is_some_and(|note| note.claims(*number, own));
            if own.state != State::Over && !claimed && own.born.after(ORPHAN_AGE) <= now {
                strays.insert(*number);
                if self.strays.contains(number) {
                    ended.push(*number);
                }
            }
            let serves = matches!(note, Some(Note::Ready { machine, .. }) if machine == *number)
                && row.is_some_and(|row| {
                    !matches!(
                        row.state,
                        ResourceState::Provisioning { .. }
                            | ResourceState::Destroying { .. }
                            | ResourceState::Orphaned { .. }
                            | ResourceState::Gone { .. }
                    )
                });
            if own.state == State::Over && serves {
                let at = now.after(Millis(rng.between(1, 500)));
                said.extend(tell(core, own.resource, NoticeKind::Gone, "list").map(|input| (at, input)));
            }
        }
        self.strays = strays;
        ended.into_iter().for_each(|number| self.over(number));
        said
    }

    /// Machines that cost money and have no record.
    pub(crate) fn unclaimed(&self, core: &Core) -> Option<String> {
        let speaks = |number: u64, own: &Machine| {
            core.resource(own.resource).is_some_and(|row| {
                !matches!(row.state, ResourceState::Gone { .. })
                    && Note::read(row.handle.as_ref()).is_some_and(|note| note.claims(number, own))
            })
        };
        let (number, own) =
            self.machines.iter().find(|(number, own)| own.state != State::Over && !speaks(**number, own))?;
        Some(format!("machine {number} runs for {}, whose record does not speak of it", own.resource))
    }
}

fn tell(core: &Core, id: ResourceId, kind: NoticeKind, source: &str) -> Option<Input> {
    let pool = core.resource(id)?.pool.clone();
    let (source, detail) = (Arc::from(source), Arc::from("as the provider tells it"));
    Some(Input::Notice(Notice { pool, target: NoticeTarget::Resource(id), kind, source, detail }))
}
