//! Load over real sockets: durable `Lease` and `Lease`+`Release` against an empty unary call, and against etcd where it
//! is installed, in one run. Medians of five.
//!
//! `cargo bench --bench load [-- --seconds 3 --rounds 5 | --smoke | --profile [--by certificate | --by token] | --trust | --sessions | --leases 1000000 [--ended 1000000] [--resources 100000] [--postgres] | --hosts 10000]`. Everything listens on loopback and ends by itself.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures by the clock of the machine, and feeds a bare core"
)]

#[path = "load/empty.rs"]
mod empty;
#[path = "load/etcd.rs"]
mod etcd;
#[path = "load/meter.rs"]
mod meter;
#[cfg(feature = "postgres")]
#[path = "load/pg.rs"]
mod pg;
#[path = "load/probes.rs"]
mod probes;
#[path = "load/scale.rs"]
mod scale;
#[path = "load/sessions.rs"]
mod sessions;
#[path = "../jwt/tests/support/mod.rs"]
mod signer;
#[path = "load/trust.rs"]
mod trust;
#[path = "load/wharf.rs"]
mod wharf;

use meter::{Figure, Plan, median};
use std::time::Duration;
use trust::{By, Ways};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 64;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let smoke = args.iter().any(|arg| arg == "--smoke");
    let plan = Plan {
        connections: CONNECTIONS,
        in_flight: IN_FLIGHT,
        span: Duration::from_millis(if smoke { 300 } else { number("--seconds", 3) * 1000 }),
    };
    let rounds = if smoke { 1 } else { number("--rounds", 5) as usize };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let shape = scale::Shape {
        leases: number("--leases", 1_000_000) as usize,
        ended: number("--ended", 0) as usize,
        resources: number("--resources", 1) as u32,
    };
    if args.iter().any(|arg| arg == "--grown") {
        scale::grown(number("--grown", 1_000_000) as usize);
    } else if let Some(at) = args.iter().position(|arg| arg == "--memory") {
        let database = args.get(at + 1).expect("--memory DATABASE");
        runtime.block_on(scale::memory(std::path::Path::new(database)));
    } else if args.iter().any(|arg| arg == "--profile") {
        let by = |name: &str| args.windows(2).any(|two| two == ["--by", name]);
        let way = match (by("certificate"), by("token")) {
            (true, _) => By::Certificate,
            (false, true) => By::Token,
            (false, false) => By::Nothing,
        };
        runtime.block_on(profile(plan, way));
    } else if args.iter().any(|arg| arg == "--trust") {
        runtime.block_on(known_callers(plan, rounds));
    } else if args.iter().any(|arg| arg == "--sessions") {
        runtime.block_on(over_sessions(plan, rounds));
    } else if args.iter().any(|arg| arg == "--hosts") {
        runtime.block_on(probes::run(number("--hosts", 10_000) as u32, Duration::from_secs(number("--seconds", 20))));
    } else if cfg!(feature = "postgres") && args.iter().any(|arg| arg == "--postgres") {
        #[cfg(feature = "postgres")]
        runtime.block_on(pg::scale(shape, plan));
    } else if args.iter().any(|arg| arg == "--leases") {
        let folder = tempfile::tempdir_in(".").expect("the current folder can be written");
        runtime.block_on(scale::run(folder.path(), shape, plan));
    } else {
        runtime.block_on(run(plan, rounds));
    }
}

/// Nothing but `Lease`, for a profiler.
async fn profile(plan: Plan, by: By) {
    let ways = Ways::start(std::path::Path::new(".")).await;
    let figure = ways.lease(by, plan).await;
    println!("{:.0} per second on {:.2} cores", figure.rate, figure.cores);
}

/// The same leases for callers that are known in several ways.
async fn known_callers(plan: Plan, rounds: usize) {
    let ways = Ways::start(std::path::Path::new(".")).await;
    let all = [
        (By::Nothing, "plaintext, no proof"),
        (By::Certificate, "TLS, certificate, role"),
        (By::Token, "plaintext, JWT of the cache"),
        (By::TlsToken, "TLS, JWT of the cache"),
    ];
    let mut figures: Vec<Vec<Figure>> = all.iter().map(|_| Vec::new()).collect();
    let mut handshakes = Vec::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for ((by, _), figures) in all.iter().zip(&mut figures) {
            figures.push(ways.lease(*by, plan).await);
        }
        handshakes.push(ways.handshakes(plan).await);
    }
    let of = |figures: &[Figure], part: fn(&Figure) -> f64| median(figures.iter().map(part).collect());
    println!(
        "\nLease: {CONNECTIONS} connections x {IN_FLIGHT} in flight, medians of {rounds}; SQLite synchronous=FULL\n"
    );
    for ((_, name), own) in all.iter().zip(&figures) {
        // Each round has its ratio: a busy machine is as busy for both.
        let ratios = own.iter().zip(&figures[0]).map(|(own, plain)| own.rate / plain.rate).collect();
        println!(
            "{name:<30} {:>9.0} per second  p50 {:>6.2} ms  p99 {:>6.2} ms  of plaintext {:>5.2}  budget >= 0.9",
            of(own, |figure| figure.rate),
            of(own, |figure| figure.p50.as_secs_f64() * 1e3),
            of(own, |figure| figure.p99.as_secs_f64() * 1e3),
            median(ratios),
        );
    }
    let cores = of(&handshakes, |figure| figure.cores);
    println!(
        "{:<30} {:>9.0} per second  on {cores:.2} cores, both ends",
        "handshakes",
        of(&handshakes, |figure| figure.rate)
    );
}

/// Leases over sessions beside an empty unary call, in one run.
async fn over_sessions(plan: Plan, rounds: usize) {
    let folder =
        tempfile::tempdir_in(".").expect("the current folder can be written: the database must be on a real disk");
    let empty = empty::Empty::start().await;
    let wharf = wharf::Wharf::start(&folder.path().join("bench.db")).await;
    let (mut calls, mut leases, mut unary) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        calls.push(empty.load(plan).await);
        leases.push(sessions::lease(&wharf, plan).await);
        unary.push(wharf.lease(plan).await);
    }
    println!("\n{CONNECTIONS} connections x {IN_FLIGHT} in flight, medians of {rounds}; SQLite synchronous=FULL\n");
    for (name, all) in [("empty unary call", &calls), ("Lease over a session", &leases), ("Lease", &unary)] {
        // Each round has its ratio: a busy machine is as busy for both.
        let ratio = median(all.iter().zip(&calls).map(|(own, empty)| own.rate / empty.rate).collect());
        let of = |part: fn(&Figure) -> f64| median(all.iter().map(part).collect());
        println!(
            "{name:<24} {:>9.0} per second  p50 {:>6.2} ms  p99 {:>6.2} ms  {:>5.2} cores  of an empty call {ratio:>5.2}",
            of(|figure| figure.rate),
            of(|figure| figure.p50.as_secs_f64() * 1e3),
            of(|figure| figure.p99.as_secs_f64() * 1e3),
            of(|figure| figure.cores),
        );
    }
    println!("\nLease over a session / empty call: budget >= 1.5");
}

async fn run(plan: Plan, rounds: usize) {
    let folder =
        tempfile::tempdir_in(".").expect("the current folder can be written: the database must be on a real disk");
    let empty = empty::Empty::start().await;
    let wharf = wharf::Wharf::start(&folder.path().join("bench.db")).await;
    let etcd = etcd::Etcd::start(&folder.path().join("etcd")).await;
    #[cfg(feature = "postgres")]
    let postgres = pg::Postgres::start().await;

    let mut figures: Vec<(&str, Vec<Figure>)> = Vec::new();
    let mut add = |name: &'static str, figure: Figure| match figures.iter_mut().find(|(own, _)| *own == name) {
        Some((_, all)) => all.push(figure),
        None => figures.push((name, vec![figure])),
    };
    let alone = Plan { connections: 1, in_flight: 1, ..plan };
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        add("empty unary call", empty.load(plan).await);
        add("Lease", wharf.lease(plan).await);
        add("Lease+Release", wharf.cycle(plan).await);
        add("Lease, one alone", wharf.lease(alone).await);
        #[cfg(feature = "postgres")]
        if let Some(postgres) = &postgres {
            add("PostgreSQL: Lease", postgres.wharf.lease(plan).await);
            add("PostgreSQL: Lease+Release", postgres.wharf.cycle(plan).await);
            add("PostgreSQL: Lease, one alone", postgres.wharf.lease(alone).await);
        }
        if let Some(etcd) = &etcd {
            add("etcd LeaseGrant", etcd.grant(plan).await);
            add("etcd grant+revoke", etcd.cycle(plan).await);
            add("etcd LeaseGrant, one alone", etcd.grant(alone).await);
        }
    }
    println!("\n{CONNECTIONS} connections x {IN_FLIGHT} in flight, medians of {rounds}; SQLite synchronous=FULL\n");
    println!("{:<30} {:>12} {:>12} {:>12} {:>8}", "what", "per second", "p50", "p99", "cores");
    for (name, all) in &figures {
        let rate = median(all.iter().map(|f| f.rate).collect());
        let p50 = median(all.iter().map(|f| f.p50.as_secs_f64() * 1e3).collect());
        let p99 = median(all.iter().map(|f| f.p99.as_secs_f64() * 1e3).collect());
        let cores = median(all.iter().map(|f| f.cores).collect());
        println!("{name:<30} {rate:>12.0} {p50:>9.2} ms {p99:>9.2} ms {cores:>8.2}");
    }
    let rate = |name: &str| {
        figures.iter().find(|(own, _)| *own == name).map(|(_, all)| median(all.iter().map(|f| f.rate).collect()))
    };
    let p50 = |name: &str| {
        figures
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, all)| median(all.iter().map(|f| f.p50.as_secs_f64()).collect()))
    };
    println!();
    let ratio = |what: &str, a: Option<f64>, b: Option<f64>, budget: &str| {
        if let (Some(a), Some(b)) = (a, b) {
            println!("{what:<48} {:>6.2}   budget {budget}", a / b);
        }
    };
    ratio("Lease / empty call", rate("Lease"), rate("empty unary call"), ">= 0.5");
    ratio("Lease / etcd LeaseGrant", rate("Lease"), rate("etcd LeaseGrant"), ">= 3");
    ratio("Lease+Release / etcd grant+revoke", rate("Lease+Release"), rate("etcd grant+revoke"), ">= 5");
    ratio(
        "one Lease alone / one etcd grant alone (p50)",
        p50("Lease, one alone"),
        p50("etcd LeaseGrant, one alone"),
        "<= 1.2",
    );
    ratio("PostgreSQL: Lease / SQLite", rate("PostgreSQL: Lease"), rate("Lease"), "none");
    ratio("PostgreSQL: Lease / etcd LeaseGrant", rate("PostgreSQL: Lease"), rate("etcd LeaseGrant"), ">= 3");
    ratio("PostgreSQL: Lease+Release / etcd", rate("PostgreSQL: Lease+Release"), rate("etcd grant+revoke"), ">= 5");
    if etcd.is_none() {
        println!("etcd is not installed (apt-get install etcd-server): not compared");
    }
}
