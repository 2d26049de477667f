//! Random worlds of several tenants against an oracle that decides by the rules alone: it goes over all requests each time,
//! and shares no code with the scheduler.
//!
//! The properties: each grant is that of the rules, in their order; no quota is exceeded by a grant; tenants with equal work
//! hold slots by weight, and have their part of the grants in each window; a tenant alone has everything; no one waits
//! without end; the same inputs give the same grants; splitting work gains at most one request. Weights and quotas change
//! by reload.
//!
//! `FAIR_SEEDS` sets the number of worlds.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on stops; figures are printed")]
#![allow(clippy::disallowed_methods, reason = "the core has no runtime, and the test measures itself")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharfinger_core::{
    Caller, Claim, Configuration, Core, Input, Item, Labels, LeaseId, LeaseRequest, LeaseState, Limits, Millis,
    Outcome, PoolConfig, Reply, Scope, Selector, Snapshot, Tenant, Tenants, Timestamp,
};

const PATIENCE: i64 = 900_000;
const NAMES: [&str; 5] = ["web", "mobile", "data", "infra", "ops"];

/// The generator SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

/// A request as the oracle knows it.
#[derive(Clone, Debug)]
struct Asked {
    tenant: usize,
    priority: i32,
    size: u64,
    since: i64,
    leases: Vec<LeaseId>,
}

#[derive(Clone)]
struct World {
    core: Core,
    now: Timestamp,
    tenants: BTreeMap<usize, Tenant>,
    slots: u64,
    /// In the order of arrival.
    waiting: Vec<Asked>,
    held: Vec<Asked>,
    /// When a tenant's patience began anew.
    patience: BTreeMap<usize, i64>,
    number: u32,
    /// The invariants of the core are checked after each step.
    checked: bool,
    /// Requests in the order of their grants, by the number of the first lease.
    grants: Vec<LeaseId>,
}

fn caller(tenant: usize) -> Caller {
    let (tenant, principal): (Arc<str>, Arc<str>) = (Arc::from(NAMES[tenant]), Arc::from("ci"));
    let own = Scope::Own { tenant: tenant.clone(), principal: principal.clone() };
    Caller { tenant, principal, sees: own.clone(), ends: own, proved: None }
}

impl World {
    fn new(machines: u64, slots: u32, tenants: BTreeMap<usize, Tenant>) -> Self {
        let mut world = Self {
            core: Core::recover(Snapshot::default(), Vec::new(), Limits::default(), Timestamp(1_000_000)),
            now: Timestamp(1_000_000),
            tenants,
            slots: machines * u64::from(slots),
            waiting: Vec::new(),
            held: Vec::new(),
            patience: BTreeMap::new(),
            number: 0,
            checked: false,
            grants: Vec::new(),
        };
        let item = |n| Item {
            name: Arc::from(format!("h{n}")),
            labels: Labels::new(),
            slots: None,
            enabled: true,
            disabled_reason: None,
        };
        let pool = PoolConfig {
            inventory: Some((0..machines).map(item).collect()),
            max: u32::try_from(machines).unwrap(),
            min_ready: u32::try_from(machines).unwrap(),
            slots,
            ..PoolConfig::named("hosts")
        };
        let configuration = Configuration { pools: vec![pool], tenants: world.configured() };
        world.core = Core::recover(Snapshot::default(), configuration, Limits::default(), world.now);
        for call in world.core.take_batch().effects {
            let made = wharfinger_core::Made::default();
            let input = Input::Provisioned { resource: call.resource.id, op: call.op, result: Ok(made) };
            world.core.step(world.now, input).unwrap();
        }
        world
    }

    fn configured(&self) -> Arc<Tenants> {
        let named = self.tenants.iter().map(|(n, tenant)| (Arc::from(NAMES[*n]), tenant.clone())).collect();
        Arc::new(Tenants { named, others: None })
    }

    fn tenant(&self, n: usize) -> &Tenant {
        &self.tenants[&n]
    }

    fn holds(&self, tenant: usize) -> u64 {
        self.held.iter().filter(|asked| asked.tenant == tenant).map(|asked| asked.leases.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        self.slots - self.held.iter().map(|asked| asked.leases.len() as u64).sum::<u64>()
    }

    /// The requests that the rules grant now, in their order.
    fn due(&mut self) -> Vec<Asked> {
        let mut waiting = self.waiting.clone();
        // Where one tenant and one priority are in line, time changes nothing.
        let kinds: BTreeSet<(usize, i32)> = waiting.iter().map(|asked| (asked.tenant, asked.priority)).collect();
        let contested = kinds.len() > 1;
        let (mut free, mut full, mut granted) = (self.free(), BTreeSet::new(), Vec::new());
        let mut extra: BTreeMap<usize, u64> = BTreeMap::new();
        loop {
            // The first of each tenant and priority stand; time raises them where several do.
            let mut best: Option<(usize, i64, i64, u128, u128)> = None;
            let mut seen = BTreeSet::new();
            for (at, asked) in waiting.iter().enumerate() {
                if full.contains(&asked.tenant) || !seen.insert((asked.tenant, asked.priority)) {
                    continue;
                }
                let since = asked.since.max(self.patience.get(&asked.tenant).copied().unwrap_or(0));
                let rise = if contested { (self.now.0 - since) / PATIENCE } else { 0 };
                let level = i64::from(asked.priority) + rise;
                let taken = self.holds(asked.tenant) + extra.get(&asked.tenant).copied().unwrap_or(0);
                let share = (u128::from(taken + asked.size), u128::from(self.tenant(asked.tenant).weight));
                let sooner = best.is_none_or(|(first, other, other_rise, slots, weight)| {
                    let by_share = (share.0 * weight).cmp(&(slots * share.1));
                    let by = match (rise > 0, other_rise > 0) {
                        (true, true) => Ordering::Equal,
                        (true, false) => Ordering::Less,
                        (false, true) => Ordering::Greater,
                        (false, false) => by_share,
                    };
                    other.cmp(&level).then(by).then(at.cmp(&first)).is_lt()
                });
                if sooner {
                    best = Some((at, level, rise, share.0, share.1));
                }
            }
            let Some((at, _, rise, ..)) = best else { return granted };
            let asked = waiting[at].clone();
            let taken = self.holds(asked.tenant) + extra.get(&asked.tenant).copied().unwrap_or(0);
            if let Some(most) = self.tenant(asked.tenant).max_slots.map(u64::from)
                && taken + asked.size > most
            {
                // One that is larger than a lowered quota keeps no other one waiting. With it go all that want the same.
                if asked.size > most && taken < most {
                    let same = |other: &Asked| {
                        (other.tenant, other.priority, other.size) == (asked.tenant, asked.priority, asked.size)
                    };
                    waiting.retain(|other| !same(other));
                } else {
                    full.insert(asked.tenant);
                }
                continue;
            }
            if asked.size > free {
                // Free slots are kept for it.
                return granted;
            }
            free -= asked.size;
            *extra.entry(asked.tenant).or_default() += asked.size;
            if rise > 0 {
                self.patience.insert(asked.tenant, self.now.0);
            }
            waiting.remove(at);
            granted.push(asked);
        }
    }

    fn step(&mut self, input: Input) -> Option<Vec<LeaseId>> {
        let reply = self.core.step(self.now, input);
        self.core.take_batch();
        match reply {
            Ok(Reply::Leases(leases)) => Some(leases.iter().map(|lease| lease.id).collect()),
            _ => None,
        }
    }

    /// Compares what was granted with what the rules grant.
    fn compare(&mut self) -> Result<(), String> {
        if self.checked {
            self.core.check_invariants()?;
        }
        let due = self.due();
        let is_granted = |asked: &Asked| {
            let state = |id: &LeaseId| self.core.lease(*id).map(|lease| lease.state.clone());
            matches!(state(&asked.leases[0]), Some(LeaseState::Active { .. }))
        };
        let granted: BTreeSet<LeaseId> =
            self.waiting.iter().filter(|asked| is_granted(asked)).map(|asked| asked.leases[0]).collect();
        let wanted: BTreeSet<LeaseId> = due.iter().map(|asked| asked.leases[0]).collect();
        if granted != wanted {
            let of = |ids: &BTreeSet<LeaseId>| -> Vec<String> {
                let found = self.waiting.iter().filter(|asked| ids.contains(&asked.leases[0]));
                found.map(|asked| format!("{}x{} p{}", NAMES[asked.tenant], asked.size, asked.priority)).collect()
            };
            return Err(format!("granted are {:?}, by the rules {:?}", of(&granted), of(&wanted)));
        }
        let new: BTreeSet<usize> = due.iter().map(|asked| asked.tenant).collect();
        for asked in due {
            self.waiting.retain(|other| other.leases != asked.leases);
            self.grants.push(asked.leases[0]);
            self.held.push(asked);
        }
        for (n, tenant) in &self.tenants {
            if new.contains(n) && tenant.max_slots.is_some_and(|most| self.holds(*n) > u64::from(most)) {
                return Err(format!("{} holds {} slots, more than its quota", NAMES[*n], self.holds(*n)));
            }
        }
        Ok(())
    }

    fn request(&mut self, tenant: usize, size: u32, priority: i32) -> LeaseRequest {
        self.number += 1;
        LeaseRequest {
            holder: Arc::from("ci"),
            priority,
            ttl: Some(Millis::secs(86_400)),
            independent: true,
            ..LeaseRequest::new(
                caller(tenant),
                format!("r{}", self.number),
                vec![Claim::of(Selector::pool("hosts"), size)],
            )
        }
    }

    /// A request for now or never. One that is refused changes nothing for others.
    fn ask_now(&mut self, tenant: usize, size: u32, priority: i32) -> Result<(), String> {
        let request = LeaseRequest { no_queue: true, ..self.request(tenant, size, priority) };
        let asked = Asked { tenant, priority, size: u64::from(size), since: self.now.0, leases: Vec::new() };
        let mut beside = self.clone();
        beside.waiting.push(asked.clone());
        let expected = beside.due().iter().any(|asked| asked.leases.is_empty());
        match self.step(Input::Lease(request)) {
            Some(leases) if expected => self.waiting.push(Asked { leases, ..asked }),
            None if !expected => {}
            found => return Err(format!("is granted: {}, by the rules: {expected}", found.is_some())),
        }
        let is_active =
            |id: &LeaseId| matches!(self.core.lease(*id).map(|row| &row.state), Some(LeaseState::Active { .. }));
        if expected || self.waiting.iter().any(|asked| is_active(&asked.leases[0])) { self.compare() } else { Ok(()) }
    }

    fn ask(&mut self, tenant: usize, size: u32, priority: i32) -> Result<(), String> {
        let request = self.request(tenant, size, priority);
        let Some(leases) = self.step(Input::Lease(request)) else {
            // A request that its tenant may never have is refused. Then nothing is looked at, unless a time has come.
            let active =
                |id: &LeaseId| matches!(self.core.lease(*id).map(|row| &row.state), Some(LeaseState::Active { .. }));
            return if self.waiting.iter().any(|asked| active(&asked.leases[0])) { self.compare() } else { Ok(()) };
        };
        let (size, since) = (u64::from(size), self.now.0);
        self.waiting.push(Asked { tenant, priority, size, since, leases });
        self.compare()
    }

    /// One lease of the n-th request that holds slots ends.
    fn end(&mut self, n: usize) -> Result<(), String> {
        let (tenant, lease) = (self.held[n].tenant, self.held[n].leases.pop().unwrap());
        if self.held[n].leases.is_empty() {
            self.held.remove(n);
        }
        let (outcome, note) = (Outcome::Ok, Arc::from(""));
        self.step(Input::Release { lease, caller: caller(tenant), outcome, note, hold: None });
        self.compare()
    }

    /// A request for one lease stops waiting. One for several would leave a smaller one in line.
    fn give_up(&mut self, n: usize) -> Result<(), String> {
        let [lease] = self.waiting[n].leases[..] else { return Ok(()) };
        let caller = caller(self.waiting.remove(n).tenant);
        let (outcome, note) = (Outcome::Ok, Arc::from(""));
        self.step(Input::Release { lease, caller, outcome, note, hold: None });
        self.compare()
    }

    fn reload(&mut self, tenants: BTreeMap<usize, Tenant>) -> Result<(), String> {
        self.tenants = tenants;
        let pools = self.core.pools().iter().map(|pool| PoolConfig::clone(&pool.config)).collect();
        self.step(Input::Configure(Configuration { pools, tenants: self.configured() }));
        self.compare()
    }
}

fn tenants(chance: &mut Chance, count: usize) -> BTreeMap<usize, Tenant> {
    (0..count)
        .map(|n| {
            let max_slots = (chance.below(3) == 0).then(|| 1 + chance.below(6) as u32);
            (n, Tenant { weight: 1 + chance.below(4) as u32, max_slots, ..Tenant::default() })
        })
        .collect()
}

fn seeds() -> u64 {
    std::env::var("FAIR_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// One world of a seed. Returns its grants.
fn run(seed: u64) -> Result<Vec<LeaseId>, String> {
    let mut chance = Chance(seed);
    let count = 1 + chance.below(NAMES.len() as u64) as usize;
    let tenants_now = tenants(&mut chance, count);
    let mut world = World::new(1 + chance.below(4), 1 + chance.below(3) as u32, tenants_now);
    world.checked = true;
    let priorities = if chance.below(2) == 0 { 1 } else { 3 };
    for turn in 0..120 {
        // At most a day in all, so that no lease expires.
        let span = if chance.below(4) == 0 { chance.below(1_200_000) } else { chance.below(1000) };
        world.now = world.now.after(Millis(span as i64));
        let done = match chance.below(16) {
            0 => {
                let tenants = tenants(&mut chance, count);
                world.reload(tenants)
            }
            1 if !world.waiting.is_empty() => {
                let n = chance.below(world.waiting.len() as u64) as usize;
                world.give_up(n)
            }
            2..=7 if !world.held.is_empty() => {
                let n = chance.below(world.held.len() as u64) as usize;
                world.end(n)
            }
            kind => {
                let size = 1 + chance.below(3) as u32;
                let priority = chance.below(priorities) as i32;
                let tenant = chance.below(count as u64) as usize;
                if kind == 8 { world.ask_now(tenant, size, priority) } else { world.ask(tenant, size, priority) }
            }
        };
        done.map_err(|error| format!("seed {seed}, turn {turn}: {error}"))?;
    }
    Ok(world.grants)
}

#[test]
fn each_grant_is_that_of_the_rules_and_the_same_inputs_give_the_same_grants() {
    let mut grants = 0;
    for seed in 0..seeds() {
        let first = run(seed).unwrap_or_else(|error| panic!("{error}"));
        grants += first.len();
        if seed % 8 == 0 {
            assert_eq!(first, run(seed).unwrap());
        }
    }
    println!("{grants} grants");
}

fn equal(weights: &[u32]) -> BTreeMap<usize, Tenant> {
    weights.iter().enumerate().map(|(n, weight)| (n, Tenant { weight: *weight, ..Tenant::default() })).collect()
}

/// Keeps all tenants in line with equal jobs, and ends a lease at random each time. Returns the grants of each.
fn busy(world: &mut World, chance: &mut Chance, sizes: &[u32], turns: usize) -> Vec<u64> {
    let mut grants = vec![0; sizes.len()];
    for _ in 0..turns {
        for (tenant, size) in sizes.iter().enumerate() {
            while world.waiting.iter().filter(|asked| asked.tenant == tenant).count() < 3 {
                world.ask(tenant, *size, 0).unwrap();
            }
        }
        let before = world.grants.len();
        let n = chance.below(world.held.len() as u64) as usize;
        world.end(n).unwrap();
        for id in &world.grants[before..] {
            let asked = world.held.iter().find(|asked| asked.leases[0] == *id).unwrap();
            grants[asked.tenant] += asked.size;
        }
    }
    grants
}

#[test]
fn tenants_that_all_wait_hold_slots_by_weight() {
    for seed in 0..40 {
        let mut chance = Chance(seed);
        let weights: Vec<u32> = (0..2 + chance.below(3)).map(|_| 1 + chance.below(4) as u32).collect();
        let mut world = World::new(12, 1, equal(&weights));
        busy(&mut world, &mut chance, &vec![1; weights.len()], 150);
        let held: Vec<u64> = (0..weights.len()).map(|tenant| world.holds(tenant)).collect();
        for (one, weight) in weights.iter().enumerate() {
            for (other, beside) in weights.iter().enumerate() {
                let apart = held[one] * u64::from(*beside) <= (held[other] + 1) * u64::from(*weight);
                assert!(apart, "seed {seed}: {held:?} by {weights:?} differ by more than one request");
            }
        }
    }
}

#[test]
fn a_tenant_gets_its_part_of_the_grants() {
    for seed in 0..4 {
        let mut chance = Chance(seed);
        let weights = [1, 1 + chance.below(4) as u32, 1 + chance.below(4) as u32];
        let mut world = World::new(48, 1, equal(&weights));
        busy(&mut world, &mut chance, &[1; 3], 200);
        // Holders of one tenant end as often as those of another, so that grants follow what is held.
        let grants = busy(&mut world, &mut chance, &[1; 3], 400);
        let (sum, all): (u64, u32) = (grants.iter().sum(), weights.iter().sum());
        for (tenant, weight) in weights.iter().enumerate() {
            let part = grants[tenant] * u64::from(all) * 100 / (sum * u64::from(*weight));
            assert!(part >= 75, "seed {seed}: tenant {tenant} has {part} % of its part: {grants:?} by {weights:?}");
        }
    }
}

/// The grants of each tenant, one lease a minute: each lease lasts as long as there are slots, and all tenants wait.
fn one_a_minute(world: &mut World, tenants: usize, minutes: usize) -> Vec<usize> {
    let mut grants = Vec::new();
    for _ in 0..minutes {
        for tenant in 0..tenants {
            while world.waiting.iter().filter(|asked| asked.tenant == tenant).count() < 6 {
                world.ask(tenant, 1, 0).unwrap();
            }
        }
        world.now = world.now.after(Millis::secs(60));
        let before = world.grants.len();
        world.end(0).unwrap();
        for id in &world.grants[before..] {
            grants.extend(world.held.iter().find(|asked| asked.leases[0] == *id).map(|asked| asked.tenant));
        }
    }
    grants
}

#[test]
fn a_tenant_that_waits_has_its_part_of_the_grants_in_each_window_longer_than_the_patience() {
    // A lease lasts a minute for each slot, which is less than the patience.
    const SLOTS: usize = 12;
    let patience = usize::try_from(PATIENCE / 60_000).unwrap();
    for seed in 0..8 {
        let mut chance = Chance(seed);
        let weights: Vec<u32> = (0..2 + chance.below(2)).map(|_| 1 + chance.below(4) as u32).collect();
        let mut world = World::new(SLOTS as u64, 1, equal(&weights));
        one_a_minute(&mut world, weights.len(), 2 * SLOTS);
        let grants = one_a_minute(&mut world, weights.len(), 150);
        assert_eq!(grants.len(), 150, "each end is followed by a grant");
        let (all, others) = (weights.iter().sum::<u32>() as usize, weights.len() - 1);
        for (tenant, weight) in weights.iter().enumerate() {
            for from in 0..grants.len() {
                for to in from + patience + 1..=grants.len() {
                    // While each lease ends once, a tenant gets what it holds then: its part but for one request, and for one of each
                    // other tenant that went before its turn.
                    let rounds = (to - from) / SLOTS;
                    let least = (rounds * SLOTS * *weight as usize / all).saturating_sub(rounds * (1 + others));
                    let own = grants[from..to].iter().filter(|of| **of == tenant).count();
                    assert!(own >= least, "seed {seed}: {own} of {} for {tenant} by {weights:?}", to - from);
                }
            }
        }
    }
}

#[test]
fn a_tenant_alone_has_everything_up_to_its_quota() {
    for (quota, expected) in [(None, 9), (Some(5), 5)] {
        let mut tenants = equal(&[1, 1]);
        tenants.get_mut(&0).unwrap().max_slots = quota;
        let mut world = World::new(9, 1, tenants);
        for _ in 0..20 {
            world.ask(0, 1, 0).unwrap();
        }
        assert_eq!(world.holds(0), expected);
    }
}

#[test]
fn splitting_work_over_sizes_gains_at_most_one_request() {
    for size in 2..4 {
        let mut chance = Chance(u64::from(size));
        let mut world = World::new(12, 1, equal(&[1, 1]));
        busy(&mut world, &mut chance, &[1, size], 100);
        let mut most = 0;
        for _ in 0..100 {
            busy(&mut world, &mut chance, &[1, size], 1);
            most = most.max(world.holds(0).abs_diff(world.holds(1)));
        }
        assert!(most <= u64::from(2 * size), "one by one {}, by {size} {}", world.holds(0), world.holds(1));
    }
}

#[test]
fn no_one_waits_without_end() {
    // A request for all slots, one of low priority, and one of a tenant that has much, beside endless work of others.
    let mut world = World::new(4, 1, equal(&[1, 1, 1, 1, 1]));
    let mut chance = Chance(3);
    for n in 0..8 {
        world.ask(n % 3, 1, 1).unwrap();
    }
    world.ask(3, 4, 1).unwrap();
    world.ask(4, 1, 0).unwrap();
    let patient: Vec<LeaseId> = world.waiting.iter().rev().take(2).map(|asked| asked.leases[0]).collect();
    let mut minutes = 0;
    while world.waiting.iter().any(|asked| patient.contains(&asked.leases[0])) {
        minutes += 1;
        assert!(minutes < 90, "they wait for ever");
        world.now = world.now.after(Millis::secs(60));
        for n in 0..3 {
            world.ask(n, 1, 1).unwrap();
        }
        for _ in 0..2 {
            if !world.held.is_empty() {
                let n = chance.below(world.held.len() as u64) as usize;
                world.end(n).unwrap();
            }
        }
    }
    println!("after {minutes} min");
}

/// One machine with ten slots, and in line a request of each tenant in each class.
fn crowd(tenants: usize, classes: usize, quota: Option<u32>) -> (Core, Timestamp, Duration) {
    let pool = PoolConfig {
        inventory: Some(vec![Item {
            name: Arc::from("h"),
            labels: Labels::new(),
            slots: Some(10),
            enabled: true,
            disabled_reason: None,
        }]),
        labels: (0..classes).map(|n| (Arc::from(format!("k{n}")), Arc::from("v"))).collect(),
        min_ready: 1,
        ..PoolConfig::named("hosts")
    };
    let limits = Limits { queue: 1_000_000, ..Limits::default() };
    let now = Timestamp(1_000_000);
    let others = Some(Tenant { max_slots: quota, ..Tenant::default() });
    let configuration =
        Configuration { pools: vec![pool], tenants: Arc::new(Tenants { named: BTreeMap::new(), others }) };
    let mut core = Core::recover(Snapshot::default(), configuration, limits, now);
    // The machine is made at the end, so that each request waits first.
    let call = core.take_batch().effects.remove(0);
    let before = Instant::now();
    for class in 0..classes {
        for tenant in 0..tenants {
            let request = LeaseRequest {
                holder: Arc::from("ci"),
                ttl: Some(Millis::secs(86_400)),
                ..LeaseRequest::new(
                    Caller { tenant: Arc::from(format!("tenant-{tenant}")), ..caller(0) },
                    format!("{tenant}-{class}"),
                    vec![Claim::of(
                        Selector {
                            among: wharfinger_core::Pools::All,
                            pool: Some(Arc::from("hosts")),
                            labels: [(Arc::from(format!("k{class}")), Arc::from("v"))].into(),
                        },
                        1,
                    )],
                )
            };
            core.step(now, Input::Lease(request)).unwrap();
        }
        core.take_batch();
    }
    let entered = before.elapsed() / u32::try_from(tenants * classes).unwrap();
    let made = wharfinger_core::Made::default();
    core.step(now, Input::Provisioned { resource: call.resource.id, op: call.op, result: Ok(made) }).unwrap();
    core.take_batch();
    (core, now, entered)
}

/// The median time of a release with the grant that follows it.
fn turn_over(core: &mut Core, mut now: Timestamp, turns: usize) -> Duration {
    let is_active = |lease: &&Arc<wharfinger_core::Lease>| matches!(lease.state, LeaseState::Active { .. });
    let mut held: VecDeque<(LeaseId, Arc<str>)> =
        core.leases(None).filter(is_active).map(|lease| (lease.id, lease.spec.tenant.clone())).collect();
    let mut spent = Vec::new();
    for _ in 0..turns {
        let (lease, tenant) = held.pop_front().unwrap();
        let caller = Caller { tenant, sees: Scope::All, ends: Scope::All, ..caller(0) };
        now = now.after(Millis(1));
        let (outcome, note) = (Outcome::Ok, Arc::from(""));
        let before = Instant::now();
        core.step(now, Input::Release { lease, caller, outcome, note, hold: None }).unwrap();
        spent.push(before.elapsed());
        let batch = core.take_batch();
        let granted: Vec<_> = batch.leases.iter().filter(|row| row.assignment().is_some() && !row.ended()).collect();
        assert_eq!(granted.len(), 1, "each release is followed by one grant");
        held.push_back((granted[0].id, granted[0].spec.tenant.clone()));
    }
    spent.sort_unstable();
    spent[spent.len() / 2]
}

/// A release with its grant takes about as long with many tenants in line as with one. `--nocapture` prints the times;
/// `FAIR_TENANTS=1000` asks for more tenants.
#[test]
fn a_grant_takes_no_longer_for_the_tenants_and_classes_in_line() {
    let most = std::env::var("FAIR_TENANTS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    for quota in [None, Some(8)] {
        let mut alone = Duration::ZERO;
        for tenants in [1, 10, 100, 1000].into_iter().filter(|tenants| *tenants <= most) {
            let (mut core, now, entered) = crowd(tenants, 100, quota);
            let spent = turn_over(&mut core, now, 50);
            println!("{tenants} tenants with 100 classes, quota {quota:?}: {entered:?} to enter, {spent:?} for a turn");
            if tenants == 1 {
                alone = spent;
            }
            assert!(spent < alone * 10, "{spent:?} with {tenants} tenants, {alone:?} with one");
        }
    }
}
