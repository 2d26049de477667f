//! The pools of a run, and the changes that a reload makes.

use crate::rng::Rng;
use std::sync::Arc;
use wharfinger_core::{Brake, DoubtPolicy, Isolation, Item, Labels, Millis, PoolConfig, Selector, Timeouts, Traits};

pub(crate) const HOSTS: &str = "hosts";
pub(crate) const BOATS: &str = "boats";
pub(crate) const RED: &str = "red";
pub(crate) const BLUE: &str = "blue";

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

/// Listed machines, made machines that share a label with them, and two kinds of working copies on the machines.
pub(crate) fn configured(rng: &mut Rng) -> Vec<PoolConfig> {
    let item = |name: &str| Item {
        name: text(name),
        labels: Labels::new(),
        slots: None,
        enabled: true,
        disabled_reason: None,
    };
    let many = if rng.chance(400) { rng.between(4, 9) } else { 3 };
    let zone = |n: i64| -> Labels { [(text("zone"), text(if n % 3 == 0 { "a" } else { "b" }))].into() };
    let machines: Vec<Item> = (1..=many).map(|n| Item { labels: zone(n), ..item(&format!("h{n}")) }).collect();
    let holds = rng.chance(700);
    let plain = PoolConfig {
        name: text(HOSTS),
        adapter: text("simulated"),
        labels: [(text("os"), text("linux"))].into(),
        enabled: true,
        disabled_reason: None,
        on: Vec::new(),
        inventory: Some(machines),
        min_ready: rng.below(many as u64) as u32,
        max: many as u32,
        max_per_parent: None,
        slots: rng.between(1, 4) as u32,
        idle: None,
        max_age: None,
        max_uses: None,
        traits: Traits { prepares: false, cleans: false, repairs: rng.chance(500), probes: rng.chance(700) },
        doubt: DoubtPolicy {
            after_failed: rng.chance(800),
            after_lost: rng.chance(800),
            false_alarm: [0, 1, 20, 20_000][rng.below(4) as usize],
            work_after: rng.below(4) as u32,
            dry_run: rng.chance(100),
            ..DoubtPolicy::default()
        },
        // Some holds outlast the run, so that a resource that goes before is a fault.
        brake: Brake {
            floor: rng.between(1, 4) as u32,
            share: rng.between(30, 101) as u32,
            hold: if holds { Millis::secs(10_000) } else { Millis::secs(10) },
            window: Millis::secs(rng.between(5, 60)),
        },
        domain: rng.chance(300).then(|| text("zone")),
        drain: [None, Some(Millis::ZERO), Some(Millis::secs(10))][rng.below(3) as usize],
        max_hold: Millis::secs(20),
        isolation: Isolation::None,
        reuse_across_tenants: true,
        default_ttl: Millis::secs(30),
        max_ttl: Millis::secs(120),
        attempts: 6,
        timeouts: Timeouts {
            provision: Millis::secs(20),
            prepare: Millis::secs(12),
            clean: Millis::secs(8),
            check: Millis::secs(3),
            repair: Millis::secs(15),
            destroy: Millis::secs(8),
        },
    };
    let traits = |rng: &mut Rng| Traits {
        prepares: rng.chance(800),
        cleans: rng.chance(800),
        repairs: rng.chance(700),
        probes: false,
    };
    let boats = PoolConfig {
        name: text(BOATS),
        inventory: None,
        max: rng.between(1, 4) as u32,
        idle: Some(Millis::secs(20)),
        max_age: rng.chance(300).then_some(Millis::secs(60)),
        max_uses: rng.chance(300).then_some(5),
        traits: Traits { probes: rng.chance(500), ..traits(rng) },
        slots: rng.between(1, 3) as u32,
        ..plain.clone()
    };
    let red = PoolConfig {
        name: text(RED),
        labels: Labels::new(),
        on: vec![text(HOSTS)],
        inventory: None,
        min_ready: 0,
        max: rng.between(1, 5) as u32,
        max_per_parent: rng.chance(400).then_some(1),
        slots: 1,
        idle: rng.chance(500).then_some(Millis::secs(30)),
        traits: traits(rng),
        ..plain.clone()
    };
    let blue = PoolConfig {
        name: text(BLUE),
        on: vec![text(HOSTS), text(BOATS)],
        max: 2,
        max_per_parent: None,
        slots: rng.between(1, 3) as u32,
        traits: traits(rng),
        ..red.clone()
    };
    vec![plain, boats, red, blue]
}

/// The selectors that a client may use.
pub(crate) fn selectors() -> Vec<Selector> {
    let linux = Selector { labels: [(text("os"), text("linux"))].into(), ..Selector::default() };
    vec![
        Selector::pool(HOSTS),
        Selector::pool(BOATS),
        Selector::pool(RED),
        Selector::pool(RED),
        Selector::pool(BLUE),
        linux,
    ]
}

/// Selectors that the pools can meet, also for several leases at once and for copies beside hosts.
pub(crate) fn ample(first: &[PoolConfig]) -> Vec<PoolConfig> {
    let more = |pool: &PoolConfig| PoolConfig {
        doubt: DoubtPolicy { dry_run: false, ..pool.doubt },
        brake: Brake { hold: Millis::secs(10), window: Millis::secs(10), ..pool.brake },

        max: if pool.inventory.is_some() { pool.max } else { 6 },
        slots: pool.slots.max(if pool.inventory.is_some() { 4 } else { 1 }),
        max_per_parent: None,
        ..pool.clone()
    };
    first.iter().map(more).collect()
}

/// A person edits the configuration, sometimes by mistake.
pub(crate) fn edited(rng: &mut Rng, first: &[PoolConfig], now: &[PoolConfig]) -> Vec<PoolConfig> {
    let mut pools = now.to_vec();
    if pools.is_empty() {
        return first.to_vec();
    }
    match rng.below(8) {
        0 => return first.to_vec(),
        1 => {
            let gone = rng.below(pools.len() as u64) as usize;
            if pools.len() > 1 {
                pools.remove(gone);
            }
        }
        2 => pools.iter_mut().for_each(|pool| pool.enabled |= rng.chance(500)),
        3 => {
            let at = rng.below(pools.len() as u64) as usize;
            pools[at].enabled = false;
        }
        4 => {
            let at = rng.below(pools.len() as u64) as usize;
            pools[at].max = rng.below(4) as u32;
        }
        5 => {
            let at = rng.below(pools.len() as u64) as usize;
            pools[at].slots = rng.between(1, 4) as u32;
        }
        _ => {
            for item in pools.iter_mut().flat_map(|pool| pool.inventory.iter_mut().flatten()) {
                item.enabled = rng.chance(600);
            }
        }
    }
    // A pool of copies lies on a configured pool. The configuration is checked before the core gets it.
    let names: Vec<Arc<str>> = pools.iter().map(|pool| pool.name.clone()).collect();
    pools.retain(|pool| pool.on.iter().all(|on| names.contains(on)));
    pools
}
