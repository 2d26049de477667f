//! Exhaustive search of two small worlds: all events in any order, to a depth that a minute allows. The invariants hold in each
//! reachable state.
//!
//! One world has two hosts, working copies on them, and three clients. Another one has two pools of one machine each, and
//! clients of which two want a group: a slot of the first pool, and a slot of either. In two worlds the clients are of two
//! tenants: one has a quota, which a reload lifts and sets again; in the other one a host is of one tenant at a time. In a third one
//! they wait for one machine, and time raises who has waited long: each grant is compared with the rules for turns.
//!
//! States that differ only in names (ids, revisions, operations' numbers) and in their time are one state.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use wharfinger_core::{
    Blame, Brake, CallFailure, Caller, Claim, Configuration, Core, DoubtPolicy, Effect, Input, Isolation, Item, Labels,
    LeaseId, LeaseRequest, LeaseState, Limits, Made, Millis, Notice, NoticeKind, NoticeTarget, Outcome, PoolConfig,
    Prepared, ResourceState, Scope, Selector, Snapshot, Tenant, Tenants, Timeouts, Timestamp, Traits, Verdict, Work,
};

const CLIENTS: usize = 3;

/// The request of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    /// A slot of this pool.
    Of(&'static str),
    /// A slot of any pool with the label.
    Linux,
    /// Two slots at once: one of any pool with the label, and one of this pool.
    Group(&'static str),
}

/// The request of each client of a world.
type Wishes = [Wish; CLIENTS];

/// Clients of one kind are alike. The third wants the host itself, so that hosts and copies compete.
const COPIES: Wishes = [Wish::Of("copies"), Wish::Of("copies"), Wish::Of("hosts")];
const GROUPS: Wishes = [Wish::Group("a"), Wish::Group("a"), Wish::Linux];

const HOSTS: Wishes = [Wish::Of("hosts"), Wish::Of("hosts"), Wish::Of("hosts")];

/// The tenant of each client.
type Tenancy = [&'static str; CLIENTS];

const ALONE: Tenancy = [Caller::DEFAULT_TENANT; CLIENTS];
const TWO: Tenancy = ["web", "web", "ops"];

/// The quota of `web`, while it is set.
const QUOTA: u32 = 1;

/// An event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Ask(usize),
    /// The same, for now or never.
    AskNow(usize),
    /// The quota is lifted, or set again.
    Reload,
    Release(usize, Outcome),
    /// The n-th call that is under way works, fails by the resource, or meets silence.
    Answer(usize, Answer),
    /// The kept connection to the n-th host breaks.
    ConnectionLost(usize),
    /// Time passes to the next deadline.
    Wait,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Works,
    Fails,
    Silent,
}

#[derive(Clone)]
struct State {
    wishes: Wishes,
    tenancy: Tenancy,
    /// Whether the quota is set; `None`: there are no tenants in the configuration.
    quota: Option<bool>,
    core: Core,
    now: Timestamp,
    calls: Vec<Effect>,
    has: [Option<LeaseId>; CLIENTS],
    asked: u32,
    /// How long a request waits until it rises; `None`: for ever.
    patience: Option<Millis>,
    /// When the patience of each tenant began anew.
    begun: BTreeMap<Arc<str>, Timestamp>,
    /// The first grant out of turn.
    fault: Option<String>,
    path: Vec<Action>,
}

fn pools() -> Vec<PoolConfig> {
    let item = |name: &str| Item {
        name: Arc::from(name),
        labels: Labels::new(),
        slots: None,
        enabled: true,
        disabled_reason: None,
    };
    let hosts = PoolConfig {
        name: Arc::from("hosts"),
        adapter: Arc::from("simulated"),
        labels: Labels::new(),
        enabled: true,
        disabled_reason: None,
        on: Vec::new(),
        inventory: Some(vec![item("h1"), item("h2")]),
        min_ready: 0,
        max: 2,
        max_per_parent: None,
        slots: 1,
        idle: None,
        max_age: None,
        max_uses: None,
        traits: Traits { prepares: false, cleans: false, repairs: false, probes: false },
        doubt: DoubtPolicy { misses: 2, over: Millis(1000), repairs: 1, ..DoubtPolicy::default() },
        default_ttl: Millis::secs(60),
        max_ttl: Millis::secs(60),
        attempts: 2,
        timeouts: Timeouts::default(),
        brake: Brake::default(),
        domain: None,
        drain: None,
        max_hold: Millis::secs(86_400),
        isolation: Isolation::None,
        reuse_across_tenants: true,
    };
    let copies = PoolConfig {
        name: Arc::from("copies"),
        on: vec![Arc::from("hosts")],
        inventory: None,
        traits: Traits { prepares: true, cleans: true, repairs: true, probes: false },
        ..hosts.clone()
    };
    vec![hosts, copies]
}

/// Two pools of one machine each, which share a label.
fn two_pools() -> Vec<PoolConfig> {
    let hosts = pools().remove(0);
    let one = |name: &str| PoolConfig {
        name: Arc::from(name),
        labels: [(Arc::from("os"), Arc::from("linux"))].into(),
        inventory: Some(vec![Item {
            name: Arc::from(name),
            labels: Labels::new(),
            slots: None,
            enabled: true,
            disabled_reason: None,
        }]),
        max: 1,
        traits: Traits { prepares: true, cleans: false, repairs: false, probes: false },
        ..hosts.clone()
    };
    vec![one("a"), one("b")]
}

/// Two hosts for two tenants. `slots`: of each host.
fn shared_hosts(slots: u32, isolation: Isolation) -> Vec<PoolConfig> {
    let hosts = pools().remove(0);
    vec![PoolConfig { slots, isolation, traits: Traits { cleans: true, ..hosts.traits }, ..hosts }]
}

/// One machine with one slot, for which two tenants wait.
fn one_host() -> Vec<PoolConfig> {
    let hosts = shared_hosts(1, Isolation::None).remove(0);
    let inventory = hosts.inventory.iter().map(|items| items[..1].to_vec()).next();
    vec![PoolConfig { inventory, max: 1, ..hosts }]
}

/// Two tenants, of which one has a quota or had one.
fn configured(pools: Vec<PoolConfig>, quota: Option<bool>) -> Configuration {
    let Some(set) = quota else { return Configuration::from(pools) };
    let web = Tenant { weight: 2, max_slots: set.then_some(QUOTA), ..Tenant::default() };
    let named = [(Arc::from("web"), web)].into();
    Configuration { pools, tenants: Arc::new(Tenants { named, others: Some(Tenant::default()) }) }
}

impl State {
    fn first(pools: Vec<PoolConfig>, wishes: Wishes) -> Self {
        Self::of_tenants((pools, wishes), ALONE, None, None)
    }

    fn of_tenants(
        (pools, wishes): (Vec<PoolConfig>, Wishes),
        tenancy: Tenancy,
        quota: Option<bool>,
        patience: Option<Millis>,
    ) -> Self {
        let usual = if quota.is_some() { Millis::ZERO } else { Limits::default().patience };
        let limits = Limits {
            retention: Millis::secs(30),
            pause: Millis::secs(1_000_000),
            patience: patience.unwrap_or(usual),
            ..Limits::default()
        };
        let now = Timestamp(1_000_000);
        let core = Core::recover(Snapshot::default(), configured(pools, quota), limits, now);
        let (calls, has, begun, fault) = (Vec::new(), [None; CLIENTS], BTreeMap::new(), None);
        Self { wishes, tenancy, quota, core, now, calls, has, asked: 0, patience, begun, fault, path: Vec::new() }
    }

    /// A step of the core. Notes a grant out of turn.
    fn step(&mut self, input: Input) -> Result<wharfinger_core::Reply, wharfinger_core::Rejection> {
        let token = |row: &Arc<wharfinger_core::Lease>| row.assignment().map(|hold| (row.id, hold.token));
        let before: BTreeSet<_> = self.core.leases(None).filter_map(token).collect();
        let reply = self.core.step(self.now, input);
        if let Some(patience) = self.patience {
            let new = |row: &&Arc<wharfinger_core::Lease>| token(row).is_some_and(|held| !before.contains(&held));
            let mut grants: Vec<_> = self.core.leases(None).filter(new).cloned().collect();
            grants.sort_by_key(token_of);
            for n in 0..grants.len() {
                if let Err(why) = self.goes_in_turn(patience, &grants, n) {
                    self.fault.get_or_insert(why);
                }
            }
        }
        reply
    }

    /// The grant of this number, in the order of the grants of a step, goes to the request whose turn it was.
    fn goes_in_turn(
        &mut self,
        patience: Millis,
        grants: &[Arc<wharfinger_core::Lease>],
        n: usize,
    ) -> Result<(), String> {
        let granted = &grants[n];
        let waiting: Vec<_> = self.waiting().cloned().collect();
        let of_other = |row: &Arc<wharfinger_core::Lease>| row.spec.tenant != granted.spec.tenant;
        // The others of the step stood in line as well, before or after it.
        let contested = self.core.leases(None).filter(|row| matches!(row.state, LeaseState::Queued)).any(of_other)
            || grants.iter().any(of_other);
        let turn = |row: &Arc<wharfinger_core::Lease>| {
            let tenant = &row.spec.tenant;
            let since = self.begun.get(tenant).copied().unwrap_or_default().max(row.created_at);
            let level = if contested { self.now.since(since).0 / patience.0 } else { 0 };
            let later = grants[n..].iter().filter(|other| other.spec.tenant == *tenant).count() as u32;
            // The weight of `web` is two, that of the other tenant is one.
            let share = (self.holds(tenant) - later + 1) * if **tenant == *"web" { 1 } else { 2 };
            (std::cmp::Reverse(level), if level > 0 { 0 } else { share }, row.seq)
        };
        let own = turn(granted);
        // A request that fills the quota of its tenant stands in no line.
        let sooner = waiting.iter().find(|row| of_other(row) && !self.is_full(&row.spec.tenant) && turn(row) < own);
        if let Some(row) = sooner {
            return Err(format!("{} is granted at {own:?} before {} at {:?}", granted.id, row.id, turn(row)));
        }
        if own.0.0 > 0 {
            let now = self.now;
            self.begun.insert(granted.spec.tenant.clone(), now);
        }
        Ok(())
    }

    fn caller(&self, client: usize) -> Caller {
        let sole = Caller::sole_tenant("ann");
        let ends = Scope::Own { tenant: Arc::from(self.tenancy[client]), principal: sole.principal.clone() };
        Caller { tenant: Arc::from(self.tenancy[client]), ends, ..sole }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for client in 0..CLIENTS {
            match self.has[client].and_then(|id| self.core.lease(id)).filter(|row| !row.ended()) {
                // Clients of a tenant are alike: the first free one asks.
                None if client == 0
                    || self.has[client - 1].is_some()
                    || self.tenancy[client - 1] != self.tenancy[client] =>
                {
                    actions.push(Action::Ask(client));
                    if self.quota.is_some() {
                        actions.push(Action::AskNow(client));
                    }
                }
                None => {}
                Some(row) => {
                    actions.push(Action::Release(client, Outcome::Ok));
                    if let LeaseState::Active { .. } = row.state {
                        actions.push(Action::Release(client, Outcome::Failed));
                        actions.push(Action::Release(client, Outcome::Abandoned));
                    }
                }
            }
        }
        if self.quota.is_some() {
            actions.push(Action::Reload);
        }
        for (n, call) in self.calls.iter().enumerate() {
            actions.extend([Answer::Works, Answer::Fails].map(|answer| Action::Answer(n, answer)));
            if call.work == Work::Check {
                actions.push(Action::Answer(n, Answer::Silent));
            }
        }
        for (n, row) in self.core.resources(None).enumerate() {
            if matches!(row.state, ResourceState::Ready) && row.parent.is_none() {
                actions.push(Action::ConnectionLost(n));
            }
        }
        if self.core.next_deadline().is_some() {
            actions.push(Action::Wait);
        }
        actions
    }

    fn after(&self, action: Action) -> Self {
        let mut next = self.clone();
        next.path.push(action);
        let input = match action {
            Action::Ask(client) | Action::AskNow(client) => {
                next.asked += 1;
                next.has[client] = None;
                let no_queue = matches!(action, Action::AskNow(_));
                let caller = next.caller(client);
                Input::Lease(LeaseRequest { no_queue, caller, ..request(client, next.asked, next.wishes[client]) })
            }
            Action::Reload => {
                next.quota = next.quota.map(|set| !set);
                let pools = next.core.pools().iter().map(|pool| PoolConfig::clone(&pool.config)).collect();
                Input::Configure(configured(pools, next.quota))
            }
            Action::Release(client, outcome) => Input::Release {
                lease: next.has[client].expect("it has one"),
                caller: next.caller(client),
                outcome,
                note: Arc::from(""),
                hold: None,
            },
            Action::Answer(n, answer) => answered(&next.calls.remove(n), answer),
            Action::ConnectionLost(n) => {
                let row = next.core.resources(None).nth(n).expect("it was there");
                Input::Notice(Notice {
                    pool: row.pool.clone(),
                    target: NoticeTarget::Resource(row.id),
                    kind: NoticeKind::ConnectionLost,
                    source: Arc::from("shell"),
                    detail: Arc::from("reset"),
                })
            }
            Action::Wait => {
                next.now = next.now.max(next.core.next_deadline().expect("there is one"));
                Input::Tick
            }
        };
        let reply = next.step(input);
        if let (Action::Ask(client) | Action::AskNow(client), Ok(wharfinger_core::Reply::Leases(leases))) =
            (action, &reply)
        {
            next.has[client] = Some(leases[0].id);
        }
        // Timers that the input itself made due fire at the next turn, at the same time.
        if next.core.next_deadline().is_some_and(|at| at <= next.now) {
            let _ = next.step(Input::Tick);
        }
        next.calls.extend(next.core.take_batch().effects);
        next
    }

    fn check(&self) -> Result<(), String> {
        self.core.check_invariants()?;
        if let Some(why) = &self.fault {
            return Err(why.clone());
        }
        // Each operation of a resource has a call, so that its answer can come.
        for row in self.core.resources(None) {
            let op = match &row.state {
                ResourceState::Provisioning { op, .. }
                | ResourceState::Suspect { op, .. }
                | ResourceState::Destroying { op, .. }
                | ResourceState::Orphaned { op, .. } => *op,
                ResourceState::Repairing { op, .. } => Some(*op),
                ResourceState::Ready
                | ResourceState::Quarantined { .. }
                | ResourceState::Draining { .. }
                | ResourceState::Gone { .. } => None,
            };
            if let Some(op) = op
                && !self.calls.iter().any(|call| call.resource.id == row.id && call.op == op)
            {
                return Err(format!("{} is {:?}, and nobody was asked", row.id, row.state));
            }
        }
        self.no_group_is_torn()?;
        if self.quota.is_some() {
            self.no_tenant_waits_beside_free_slots()?;
            self.no_host_has_two_tenants()?;
        } else {
            self.no_request_waits_beside_its_slots()?;
        }
        self.no_request_waits_for_nothing()?;
        let deadline = self.core.next_deadline();
        if deadline.is_some_and(|at| at <= self.now) {
            return Err(format!("due at {deadline:?}, which is not after {:?}", self.now));
        }
        Ok(())
    }

    /// The members of a group are granted together, and end together.
    fn no_group_is_torn(&self) -> Result<(), String> {
        for id in self.has.iter().flatten() {
            let members = self.core.with_group(*id);
            let ended = members.iter().filter(|row| row.ended()).count();
            let never =
                members.iter().filter(|row| matches!(row.state, LeaseState::Queued) && row.attempts == 0).count();
            let some = |count: usize| count > 0 && count < members.len();
            if some(ended) || some(never) {
                return Err(format!("a group is torn: {members:?}"));
            }
        }
        Ok(())
    }

    /// The first request of the queue is granted if its slots are free.
    fn no_request_waits_beside_its_slots(&self) -> Result<(), String> {
        let waits = |row: &&Arc<wharfinger_core::Lease>| matches!(row.state, LeaseState::Queued);
        let Some(first) = self.core.leases(None).filter(waits).min_by_key(|row| row.seq) else { return Ok(()) };
        let members: Vec<_> = self.core.with_group(first.id).into_iter().filter(|row| waits(&row)).collect();
        if members.iter().any(|row| !row.avoid.is_empty() || row.not_before.is_some() || row.spec.child.is_some()) {
            return Ok(());
        }
        let free = |pool: &str| self.core.pool(pool).map_or(0, |pool| pool.free_slots) as usize;
        let named: Vec<&str> = members.iter().filter_map(|row| row.spec.selector.pool.as_deref()).collect();
        let each = named.iter().all(|pool| free(pool) >= named.iter().filter(|other| *other == pool).count());
        let any = self.core.pools().iter().map(|pool| pool.free_slots as usize).sum::<usize>();
        if each && any >= members.len() {
            return Err(format!(
                "{} waits beside free slots: {:?}",
                first.id,
                self.core.explain(first.id, self.now, &Scope::All)
            ));
        }
        Ok(())
    }

    /// The slots that a tenant holds, from the grant to the end of the clean-up.
    fn holds(&self, tenant: &str) -> u32 {
        let held = self.core.leases(None).filter(|row| *row.spec.tenant == *tenant && row.assignment().is_some());
        held.count() as u32
    }

    /// Whether a tenant has as many slots as it may.
    fn is_full(&self, tenant: &str) -> bool {
        self.quota == Some(true) && tenant == "web" && self.holds(tenant) >= QUOTA
    }

    /// Requests that wait without a wish of their own, by tenant.
    fn waiting(&self) -> impl Iterator<Item = &Arc<wharfinger_core::Lease>> {
        let waits = |row: &&Arc<wharfinger_core::Lease>| {
            matches!(row.state, LeaseState::Queued) && row.avoid.is_empty() && row.not_before.is_none()
        };
        self.core.leases(None).filter(waits)
    }

    /// Free slots go to waiting requests, within their quotas.
    fn no_tenant_waits_beside_free_slots(&self) -> Result<(), String> {
        let pools = self.core.pools();
        let waits = self.waiting().find(|row| !self.is_full(&row.spec.tenant));
        match waits {
            Some(row) if pools.iter().any(|p| p.config.isolation == Isolation::None && p.free_slots > 0) => {
                Err(format!("{} of {} waits beside free slots", row.id, row.spec.tenant))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn no_host_has_two_tenants(&self) -> Result<(), String> {
        let apart = |name: &str| self.core.pool(name).is_some_and(|pool| pool.config.isolation == Isolation::Host);
        for row in self.core.resources(None).filter(|row| apart(&row.pool)) {
            let tenants: BTreeSet<_> = self.core.leases_on(row.id).iter().map(|row| row.spec.tenant.clone()).collect();
            if tenants.len() > 1 {
                return Err(format!("{} has {tenants:?} at a time", row.id));
            }
        }
        Ok(())
    }

    /// The grants of one step keep to quotas and shares; a request that is refused leaves no trace.
    fn check_step(&self, before: &Self) -> Result<(), String> {
        if self.quota.is_none() {
            return Ok(());
        }
        let held = |state: &Self, id: LeaseId| state.core.lease(id).is_some_and(|row| row.assignment().is_some());
        let granted = self.core.leases(None).filter(|row| held(self, row.id) && !held(before, row.id));
        for row in granted {
            let tenant = &row.spec.tenant;
            if self.quota == Some(true) && **tenant == *"web" && self.holds(tenant) > QUOTA {
                return Err(format!("{} is granted beyond the quota of {tenant}", row.id));
            }
            let weight = |tenant: &str| if tenant == "web" { 2 } else { 1 };
            let isolated = self.core.pools().iter().any(|pool| pool.config.isolation == Isolation::Host);
            let smaller = |other: &&Arc<wharfinger_core::Lease>| {
                let other = &other.spec.tenant;
                let share = (self.holds(other) + 1) * weight(tenant);
                other != tenant && share < self.holds(tenant) * weight(other) && !self.is_full(other)
            };
            if let Some(other) = self.waiting().find(smaller).filter(|_| !isolated && self.patience.is_none()) {
                return Err(format!("{} of {tenant} is granted before {}, of a smaller share", row.id, other.id));
            }
        }
        let refused = matches!(self.path.last(), Some(Action::AskNow(client)) if self.has[*client].is_none());
        let due = before.core.next_deadline().is_some_and(|at| at <= self.now);
        if refused && !due && self.canonical() != before.without_ended(self).canonical() {
            return Err(String::from("a request that was refused leaves a trace"));
        }
        Ok(())
    }

    /// The same, with the clients that asked again.
    fn without_ended(&self, after: &Self) -> Self {
        Self { has: after.has, ..self.clone() }
    }

    /// A queued request waits for a holder, a call or a timer, because the pools can meet each request of these worlds.
    fn no_request_waits_for_nothing(&self) -> Result<(), String> {
        let waiting = self.core.leases(None).find(|row| matches!(row.state, LeaseState::Queued));
        let held = self.core.leases(None).any(|row| row.assignment().is_some());
        let moves = held || !self.calls.is_empty() || self.core.next_deadline().is_some();
        let fit = |row: &Arc<wharfinger_core::Resource>| {
            matches!(row.state, ResourceState::Ready | ResourceState::Gone { .. })
        };
        match waiting {
            Some(row) if !moves && self.core.resources(None).all(fit) => {
                Err(format!("{} waits for nothing: {:?}", row.id, self.core.explain(row.id, self.now, &Scope::All)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A hash that is equal for states that differ only in names and in their time.
    fn canonical(&self) -> u64 {
        let mut text = String::new();
        let mut say = |part: &dyn Debug| text.push_str(&format!("{part:?};"));
        for row in self.core.leases(None) {
            let mut row = wharfinger_core::Lease::clone(row);
            row.revision = wharfinger_core::Revision(0);
            let spec = Arc::make_mut(&mut row.spec);
            spec.request_id = Arc::from("");
            spec.fingerprint = 0;
            row.trouble = None;
            say(&row);
        }
        for row in self.core.resources(None) {
            let mut row = wharfinger_core::Resource::clone(row);
            row.revision = wharfinger_core::Revision(0);
            row.trouble = None;
            row.uses = 0;
            say(&row);
        }
        self.calls.iter().for_each(|call| say(&(call.resource.id, call.op)));
        say(&self.has);
        say(&self.quota);
        say(&self.begun);
        say(&self.core.next_deadline());
        let mut hasher = DefaultHasher::new();
        renamed(&text, self.now).hash(&mut hasher);
        hasher.finish()
    }
}

/// Replaces ids, revisions and operation numbers by their order of appearance, and times by their distance from now.
fn renamed(text: &str, now: Timestamp) -> String {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if word_end == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let word = &rest[..word_end];
        rest = &rest[word_end..];
        let number: Option<i64> = word.parse().ok();
        let name = |word: &str, names: &mut BTreeMap<String, usize>| {
            let next = names.len();
            *names.entry(word.to_owned()).or_insert(next)
        };
        match number {
            // Times: the distance counts, up to a limit.
            Some(at) if at > 900_000 => out.push_str(&format!("t{}", (at - now.0).clamp(-31_000, 61_000))),
            // Small numbers are counts. Operations, tokens and places in the queue count by their order.
            Some(_) if out.ends_with("Op(") || out.ends_with("token: ") || out.ends_with("seq: ") => {
                out.push_str(&format!("n{}", name(&format!("n{word}"), &mut names)));
            }
            Some(_) => out.push_str(word),
            None if word.len() > 26 && (word.starts_with("lse_") || word.starts_with("res_")) => {
                out.push_str(&format!("i{}", name(word, &mut names)));
            }
            None => out.push_str(word),
        }
    }
    out
}

fn request(client: usize, number: u32, wish: Wish) -> LeaseRequest {
    let linux = Selector { labels: [(Arc::from("os"), Arc::from("linux"))].into(), ..Selector::default() };
    let selectors = match wish {
        Wish::Of(pool) => vec![Selector::pool(pool)],
        Wish::Linux => vec![linux],
        Wish::Group(pool) => vec![linux, Selector::pool(pool)],
    };
    let claims = selectors.into_iter().map(|selector| Claim::of(selector, 1)).collect();
    LeaseRequest {
        holder: Arc::from("ann"),
        ..LeaseRequest::new(Caller::sole_tenant("ann"), format!("{client}-{number}"), claims)
    }
}

fn answered(call: &Effect, answer: Answer) -> Input {
    let (resource, op) = (call.resource.id, call.op);
    let failure =
        CallFailure { blame: Blame::Resource, reason: Arc::from("BAD_DAY"), message: Arc::from(""), retry_after: None };
    let plain = if answer == Answer::Works { Ok(()) } else { Err(failure.clone()) };
    match &call.work {
        Work::Provision(_) => Input::Provisioned { resource, op, result: plain.map(|()| Made::default()) },
        Work::Prepare(lease) => Input::Prepared { lease: lease.id, op, result: plain.map(|()| Prepared::default()) },
        Work::Clean(lease) => Input::Cleaned { lease: lease.id, op, result: plain },
        Work::Repair => Input::Repaired { resource, op, result: plain },
        Work::Destroy => Input::Destroyed { resource, op, result: plain },
        Work::Probe => Input::Probed { resource, result: Ok(Verdict::Healthy) },
        Work::Check => {
            let (reason, detail) = ("BAD_DAY", String::new());
            let verdict = match answer {
                Answer::Works => Verdict::Healthy,
                Answer::Fails => Verdict::Mangled { repairable: true, reason, detail },
                Answer::Silent => Verdict::Unreachable { reason, detail },
            };
            Input::Checked { resource, op, result: Ok(verdict) }
        }
    }
}

/// Start states of the search: empty worlds, and worlds at work, which a search from an empty world reaches late. The number is
/// subtracted from the depth, because more calls are under way there.
fn roots() -> Vec<(&'static str, usize, State)> {
    let (copies, groups) = (State::first(pools(), COPIES), State::first(two_pools(), GROUPS));
    let told = |state: State, actions: &[Action]| actions.iter().fold(state, |state, action| state.after(*action));
    let all_works = |mut state: State| {
        while !state.calls.is_empty() {
            state = state.after(Action::Answer(0, Answer::Works));
        }
        state
    };
    let working = all_works(told(copies.clone(), &[Action::Ask(0), Action::Ask(1)]));
    let idle = told(working.clone(), &[Action::Release(0, Outcome::Ok), Action::Release(1, Outcome::Ok)]);
    let fresh = |state: State| State { path: Vec::new(), ..state };
    let quotas = State::of_tenants((shared_hosts(1, Isolation::None), HOSTS), TWO, Some(true), None);
    let apart = State::of_tenants((shared_hosts(2, Isolation::Host), HOSTS), TWO, Some(true), None);
    let patient = State::of_tenants((one_host(), HOSTS), TWO, Some(false), Some(Millis::secs(40)));
    let asked = [Action::Ask(0), Action::Ask(2), Action::Ask(1)];
    let (full, crowded) = (all_works(told(quotas.clone(), &asked)), all_works(told(apart.clone(), &asked)));
    let patient = all_works(told(patient, &asked));
    let grouped = all_works(told(groups.clone(), &[Action::Ask(0), Action::Ask(1), Action::Ask(2)]));
    vec![
        ("nothing yet", 0, copies),
        ("two at work", 2, fresh(working)),
        ("two idle copies", 2, fresh(all_works(idle))),
        ("no group yet", 0, groups),
        ("a group at work and others behind it", 2, fresh(grouped)),
        ("two tenants", 1, quotas),
        ("two tenants at work, and a request beyond the quota", 3, fresh(full)),
        ("two tenants of whom each wants a host", 1, apart),
        ("two tenants on a host each", 3, fresh(crowded)),
        ("two tenants who wait for one machine, and rise with time", 2, fresh(patient)),
    ]
}

/// The place of a grant among those of a step.
fn token_of(row: &Arc<wharfinger_core::Lease>) -> Option<u64> {
    row.assignment().map(|hold| hold.token)
}

/// The depth that a minute allows without optimization. `EXHAUSTIVE_DEPTH` asks for more.
const DEPTH: usize = 7;

#[test]
fn no_state_that_can_be_reached_breaks_an_invariant() {
    let depth = std::env::var("EXHAUSTIVE_DEPTH").ok().and_then(|text| text.parse().ok()).unwrap_or(DEPTH);
    let (mut steps, mut states) = (0u64, 0);
    for (name, less, root) in roots() {
        let depth = depth.saturating_sub(less);
        let mut seen: BTreeSet<u64> = BTreeSet::new();
        // Level by level, so that a breach is reported with its shortest path.
        let mut level = vec![root];
        for _ in 0..depth {
            let mut next = Vec::new();
            for state in level {
                for action in state.actions() {
                    let reached = state.after(action);
                    steps += 1;
                    if let Err(why) = reached.check().and_then(|()| reached.check_step(&state)) {
                        panic!("{why}\nfrom {name} after {:?}", reached.path);
                    }
                    if seen.insert(reached.canonical()) {
                        next.push(reached);
                    }
                }
            }
            level = next;
        }
        println!("from {name}, {depth} deep: {} distinct states, {steps} steps so far", seen.len());
        states += seen.len();
    }
    assert!(states > 5000, "the world is larger than that");
}
