//! Many hosts at once, each launched once at EC2's rate, with a real sshd.

use super::account::{Cloud, Pools, skip};
use crate::support::quiet;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use wharfinger::pb::{LeaseState, Outcome};

/// Number of hosts: 30, and 300 with `WHARFINGER_LONG=1`.
fn crowd() -> usize {
    if std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1") { 300 } else { 30 }
}

/// Maximum time until all are active. EC2 launches two per second; many boot at the same time.
fn bound(count: usize) -> Duration {
    Duration::from_secs(60 + u64::try_from(count).unwrap())
}

/// Returns the resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn many_at_once_are_each_bought_once_and_all_given_back() {
    if skip("many_at_once_are_each_bought_once_and_all_given_back") {
        return;
    }
    let _quiet = quiet();
    let count = crowd();
    // The metadata service is a part of moto's process, which cannot serve 300 hosts every five seconds.
    let pools =
        Pools { spot: "max = 300\nidle = \"2s\"", ssh: "notice_interval_ms = 60000", calm: true, ..Pools::default() };
    let cloud = Cloud::start(pools);
    let farm = &cloud.farm;
    // Some answers are lost, one call is throttled, and one place has no capacity.
    let first = cloud.account.subnets.values().next().unwrap().clone();
    cloud.account.chaos("empty", &json!({ "places": [["m7i.large", first, true]] }));
    for _ in 0..3 {
        cloud.account.chaos("fault", &json!({ "action": "CreateFleet", "mode": "after", "drop": true }));
    }
    cloud.account.chaos("fault", &json!({ "action": "CreateFleet", "code": "RequestLimitExceeded", "status": 503 }));

    let empty = resident(farm.server.pid());
    let begun = Instant::now();
    let leases: Vec<String> = (0..count).map(|n| farm.ask("spot", &format!("builder {n}"), false).id).collect();
    let until = |what: &str, done: &dyn Fn() -> Option<String>| {
        while let Some(left) = done() {
            assert!(begun.elapsed() < bound(count) * 2, "{what}: {left}\n{}", farm.server.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        begun.elapsed()
    };
    let all_active = until("active", &|| {
        let waiting: Vec<_> = leases.iter().filter(|id| farm.get(id).state() != LeaseState::Active).collect();
        (!waiting.is_empty()).then(|| format!("{} wait", waiting.len()))
    });
    assert!(all_active < bound(count), "{all_active:?}");
    let hosts: BTreeSet<String> = leases.iter().map(|id| cloud.instance_of(&farm.get(id).resource_id)).collect();
    let alive: BTreeSet<String> = cloud.account.alive().into_iter().map(|one| one.id).collect();
    assert_eq!((hosts.len(), &hosts), (count, &alive), "one instance per lease");

    let each = resident(farm.server.pid()).saturating_sub(empty) / u64::try_from(count).unwrap();
    for lease in &leases {
        farm.release(lease, Outcome::Ok);
    }
    let all_gone = until("given back", &|| {
        let alive = cloud.account.alive().len();
        (alive > 0).then(|| format!("{alive} are alive"))
    });
    assert_eq!(cloud.account.machines().len(), count, "no other launch");
    let tokens: BTreeSet<_> = cloud.account.launches().into_iter().map(|call| call.token).collect();
    assert_eq!(tokens.len(), count);
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for call in cloud.account.calls() {
        *calls.entry(call.action).or_default() += 1;
    }
    println!(
        "TABLE | {count} hosts wanted at once | all leased after {} s, all given back after {} s; {each} KiB of memory each, \
         with its connection; calls {calls:?} |",
        all_active.as_secs(),
        all_gone.as_secs()
    );
}
