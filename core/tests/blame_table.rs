//! The table of docs/blame.md: how many leases a healthy host serves until it is set apart, and how many a bad one.
//!
//! Always: a bad host in each cell, and healthy farms for a short time. With WHARFINGER_LONG=1 healthy farms long enough
//! for the figures of the table. `BLESS=1` with WHARFINGER_LONG=1 writes the table.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test: a wrong turn ends it")]

use std::path::Path;
use std::sync::Arc;
use wharfinger_core::{
    AdminRequest, AdminVerb, Caller, Claim, Core, Input, Labels, LeaseId, LeaseRequest, LeaseState, Limits, Made,
    Millis, Outcome, PoolConfig, Reply, ResourceId, Selector, Snapshot, Stage, Timestamp, Verdict, Work,
};

const RATES: [u64; 5] = [5, 10, 20, 30, 50];
const FARMS: [usize; 3] = [3, 20, 200];
const BAD: [u64; 3] = [100, 80, 60];
/// Farms with a bad host, in each cell: a step of a large farm takes longer.
fn seeds(size: usize) -> u64 {
    if size > 100 { 4 } else { 8 }
}
/// Leases on a bad host after which it counts as not found.
const MOST: u64 = 200;

/// The generator SplitMix64.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % end
    }

    fn percent(&mut self, rate: u64) -> bool {
        (self.next() >> 11) % 100 < rate
    }
}

/// A farm whose checks always pass.
#[derive(Clone)]
struct Farm {
    core: Core,
    now: Timestamp,
    hosts: Vec<ResourceId>,
    wants: Vec<Arc<Selector>>,
    chance: Chance,
    /// Per cent of works that fail on each host.
    rates: Vec<u64>,
    /// Works that fail are tried again on another host.
    again: bool,
    works: u64,
    /// Leases on each host.
    served: Vec<u64>,
}

impl Farm {
    fn new(size: usize, rate: u64, again: bool, seed: u64) -> Self {
        let label = |n: usize| Labels::from([(Arc::from("n"), Arc::from(n.to_string()))]);
        let count = u32::try_from(size).unwrap();
        let pool = PoolConfig { min_ready: count, max: count, ..PoolConfig::named("hosts") };
        let limits = Limits { pause: Millis::secs(3600), retention: Millis::secs(60), ..Limits::default() };
        let now = Timestamp(1_000_000);
        let mut core = Core::recover(Snapshot::default(), vec![pool], limits, now);
        let mut hosts = Vec::new();
        for (n, call) in core.take_batch().effects.into_iter().enumerate() {
            assert_eq!(call.work, Work::Provision(0));
            hosts.push(call.resource.id);
            let result = Ok(Made { labels: label(n), ..Made::default() });
            core.step(now, Input::Provisioned { resource: call.resource.id, op: call.op, result }).unwrap();
        }
        assert_eq!(hosts.len(), size);
        let wants = (0..size).map(|n| Arc::new(Selector { labels: label(n), ..Selector::pool("hosts") })).collect();
        Self {
            core,
            now,
            hosts,
            wants,
            chance: Chance(seed),
            rates: vec![rate; size],
            again,
            works: 0,
            served: vec![0; size],
        }
    }

    fn step(&mut self, input: Input) -> Reply {
        self.now = self.now.after(Millis(100));
        self.core.step(self.now, input).unwrap()
    }

    /// All checks pass.
    fn checks(&mut self) {
        loop {
            let calls = self.core.take_batch().effects;
            if calls.is_empty() {
                return;
            }
            for call in calls {
                assert_eq!(call.work, Work::Check);
                let result = Ok(Verdict::Healthy);
                self.step(Input::Checked { resource: call.resource.id, op: call.op, result });
            }
        }
    }

    fn lease(&mut self, host: usize, work: u64) -> LeaseId {
        let request = LeaseRequest {
            holder: Arc::from("agent"),
            no_queue: true,
            work: Some(Arc::from(format!("job {work}"))),
            ..LeaseRequest::new(
                Caller::sole_tenant("ann"),
                format!("{}", self.now.0),
                vec![Claim::of(self.wants[host].clone(), 1)],
            )
        };
        let Reply::Leases(leases) = self.step(Input::Lease(request)) else { panic!("leases") };
        assert!(matches!(leases[0].state, LeaseState::Active { .. }));
        leases[0].id
    }

    /// A work runs on this host; whether it went well.
    fn runs(&mut self, host: usize, work: u64) -> bool {
        let lease = self.lease(host, work);
        let fails = self.chance.percent(self.rates[host]);
        let outcome = if fails { Outcome::Failed } else { Outcome::Ok };
        self.served[host] += 1;
        self.step(Input::Release {
            lease,
            caller: Caller::sole_tenant("ann"),
            outcome,
            note: Arc::from(""),
            hold: None,
        });
        self.checks();
        !fails
    }

    fn is_apart(&self, host: usize) -> bool {
        self.core.resource(self.hosts[host]).expect("it is kept").state.stage() == Stage::Apart
    }

    /// A new work on a host, and once more on another one if it failed. A healthy host that is set apart for it comes back.
    /// Returns how many were.
    fn serve(&mut self, host: usize) -> u64 {
        self.works += 1;
        let work = self.works;
        let mut met = vec![host];
        if !self.runs(host, work) && self.again {
            let other = (host + 1 + self.chance.below(self.hosts.len() - 1)) % self.hosts.len();
            if !self.is_apart(other) {
                self.runs(other, work);
                met.push(other);
            }
        }
        let usual = self.rates.last().copied();
        met.retain(|host| Some(self.rates[*host]) == usual && self.is_apart(*host));
        met.iter().for_each(|host| self.take_back(*host));
        met.len() as u64
    }

    fn take_back(&mut self, host: usize) {
        let verb = AdminVerb::Recover(self.hosts[host]);
        let (caller, reason) = (Caller::sole_tenant("op"), Arc::from("a false alarm"));
        self.step(Input::Admin(AdminRequest { caller, reason, verb, if_revision: None }));
        self.checks();
        assert!(!self.is_apart(host));
    }
}

/// Leases on healthy hosts, and how many times one was set apart.
fn healthy(size: usize, rate: u64, again: bool, leases: u64) -> (u64, u64) {
    let mut farm = Farm::new(size, rate, again, 1_000 * rate + size as u64);
    let mut alarms = 0;
    while farm.served.iter().sum::<u64>() < leases {
        let host = farm.chance.below(size);
        alarms += farm.serve(host);
    }
    farm.core.check_invariants().unwrap();
    (farm.served.iter().sum(), alarms)
}

/// Leases on a host that has turned bad until it is set apart; `None`: it is not.
fn found_after(mut farm: Farm, fails: u64) -> Option<u64> {
    let size = farm.hosts.len();
    farm.rates[0] = fails;
    farm.served[0] = 0;
    while farm.served[0] < MOST {
        // The others go on as before.
        for _ in 0..(size - 1).min(4) {
            let healthy = 1 + farm.chance.below(size - 1);
            farm.serve(healthy);
        }
        // It may be out already for work that was tried again on it.
        if !farm.is_apart(0) {
            farm.serve(0);
        }
        if farm.is_apart(0) {
            return Some(farm.served[0]);
        }
    }
    None
}

/// Mean number of leases on a bad host until it is set apart, in tenths, for each rate of [`BAD`]; `None`: in one of the
/// farms it is not.
fn bad(size: usize, rate: u64, again: bool) -> [Option<u64>; 3] {
    let mut sums = [Some(0); 3];
    for seed in 0..seeds(size) {
        let mut farm = Farm::new(size, rate, again, 77 * seed + rate + size as u64);
        // The usual rate is known.
        while farm.served.iter().sum::<u64>() < 400.max(3 * size as u64) {
            let host = farm.chance.below(size);
            farm.serve(host);
        }
        for (sum, fails) in sums.iter_mut().zip(BAD) {
            if sum.is_some() {
                *sum = sum.zip(found_after(farm.clone(), fails)).map(|(sum, found)| sum + found);
            }
        }
    }
    sums.map(|sum| sum.map(|sum| (sum * 10 + seeds(size) / 2) / seeds(size)))
}

fn long() -> bool {
    std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1")
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const HEAD: &str =
    "| hosts | work fails | tried elsewhere | healthy: leases to a false alarm | bad, 100 % | bad, 80 % | bad, 60 % |";

/// The cells of a bad host in one row.
fn bad_cells(size: usize, rate: u64, again: bool) -> String {
    let means = bad(size, rate, again);
    if rate == 20 {
        assert!(means[0].is_some_and(|tenths| tenths <= 120), "{size} hosts, {again}: {means:?} tenths of leases");
    }
    let cells = means.map(|mean| match mean {
        Some(tenths) => format!("{}.{}", tenths / 10, tenths % 10),
        None => format!("> {MOST}"),
    });
    format!(" {} | {} | {} |", cells[0], cells[1], cells[2])
}

fn doc() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/blame.md")
}

fn start(size: usize, rate: u64, again: bool) -> String {
    format!("| {size} | {rate} % | {} |", if again { "yes" } else { "no" })
}

/// The rows of the documented table.
fn documented() -> Vec<String> {
    let text = std::fs::read_to_string(doc()).unwrap();
    let rows = text.lines().skip_while(|line| *line != HEAD).skip(2).take_while(|line| line.starts_with('|'));
    rows.map(String::from).collect()
}

#[test]
fn the_documented_table_is_what_the_core_does() {
    let bless = std::env::var_os("BLESS").is_some();
    let known = if bless { Vec::new() } else { documented() };
    let mut rows = Vec::new();
    for again in [false, true] {
        for size in FARMS {
            for rate in RATES {
                let start = start(size, rate, again);
                let known = known.iter().find(|row| row.starts_with(&start));
                assert!(bless || known.is_some(), "docs/blame.md has no row {start}");
                let told = if long() {
                    let wanted = if size > 100 { 20_000 } else { 100_000 };
                    let (leases, alarms) = healthy(size, rate, again, wanted);
                    let each = leases / alarms.max(1);
                    assert!(each >= 20_000, "{start}: {alarms} false alarms in {leases} leases");
                    if alarms == 0 { format!(" > {} |", thousands(wanted)) } else { format!(" {} |", thousands(each)) }
                } else {
                    let (leases, alarms) = healthy(size, rate, again, 1_000);
                    assert_eq!(alarms, 0, "{start}: {alarms} false alarms in {leases} leases");
                    known.and_then(|row| row.split('|').nth(4)).map(|cell| format!("{cell}|")).unwrap_or_default()
                };
                let row = format!("{start}{told}{}", bad_cells(size, rate, again));
                assert!(bless || known == Some(&row), "docs/blame.md has\n{known:?}\nand this is\n{row}");
                eprintln!("{row}");
                rows.push(row);
            }
        }
    }
    if bless {
        assert!(long(), "the table is written by the long form");
        let text = std::fs::read_to_string(doc()).unwrap();
        let before: Vec<&str> = text.lines().take_while(|line| *line != HEAD).collect();
        let after: Vec<&str> =
            text.lines().skip_while(|line| *line != HEAD).skip_while(|line| line.starts_with('|')).collect();
        let rule = "|---|---|---|---|---|---|---|";
        let table = [HEAD, rule].map(String::from).into_iter().chain(rows).collect::<Vec<_>>().join("\n");
        std::fs::write(doc(), format!("{}\n{table}\n{}\n", before.join("\n"), after.join("\n"))).unwrap();
    } else {
        assert_eq!(known.len(), rows.len(), "docs/blame.md has rows that are not computed");
    }
}
