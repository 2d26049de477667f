//! The simulator: the server's own core and commit loop under a seed, which decides everything that can happen.
//!
//! `SIM_SEED=7 cargo test --test sim` replays one seed and prints its trace; `SIM_SEEDS=2000` says how many to run.

mod adapters;
mod broker;
mod follower;
mod holders;
mod nature;
mod oracle;
mod pools;
mod provider;
mod rng;
mod trace;
mod world;

use crate::trace::Kept;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Runs a seed; a panic of the core is a failure like any other.
fn outcome(seed: u64, kept: Kept) -> (String, Result<u64, String>) {
    match catch_unwind(AssertUnwindSafe(|| world::run(seed, kept))) {
        Ok(report) => (report.trace, report.result.map(|()| report.turns)),
        Err(_) => (String::new(), Err("it panicked; see above".into())),
    }
}

/// First of all: a failure that can't be replayed can't be mended.
#[test]
fn a_meta_the_same_seed_twice_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        let (first, _) = outcome(seed, Kept::Yes);
        let (second, _) = outcome(seed, Kept::Yes);
        assert!(first.len() > 10_000, "something happens in it");
        assert!(first == second, "seed {seed} does not repeat itself");
    }
}

#[test]
fn the_invariants_hold_whatever_happens() {
    if let Some(seed) = number("SIM_SEED") {
        let turns = outcome(seed, Kept::Printed).1.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        println!("seed {seed} holds over {turns} turns");
        return;
    }
    let first = number("SIM_FIRST").unwrap_or(1);
    let seeds = number("SIM_SEEDS").unwrap_or(300);
    let next = AtomicU64::new(first);
    let turns = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: Vec<(u64, String)> = std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + seeds {
                    return failed;
                }
                match outcome(seed, Kept::No).1 {
                    Ok(count) => drop(turns.fetch_add(count, Ordering::Relaxed)),
                    Err(why) => failed.push((seed, why)),
                }
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("its panics are caught")).collect()
    });
    println!("{seeds} seeds, {} turns", turns.into_inner());
    for (seed, why) in &failed {
        println!("seed {seed}: {why}\n  replay: SIM_SEED={seed} cargo test --test sim -- --nocapture the_invariants");
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds failed", failed.len());
}
