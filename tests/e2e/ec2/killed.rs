//! The broker is killed between any two calls to AWS: in the end exactly what was wanted, each thing bought once.

use super::account::{Cloud, Pools, skip};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use wharfinger::pb::{LeaseState, Outcome};

/// Lives of a host, with one kill in each. With `WHARFINGER_LONG=1` fifty.
fn rounds() -> u64 {
    if std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1") { 50 } else { 5 }
}

#[test]
fn killed_between_any_two_calls_it_buys_each_host_once_and_leaves_none() {
    if skip("killed_between_any_two_calls_it_buys_each_host_once_and_leaves_none") {
        return;
    }
    let pools = Pools { spot: "max = 1\nidle = \"1s\"", queue: false, ..Pools::default() };
    let mut cloud = Cloud::start(pools);
    let mut killed: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..rounds() {
        // First the calls that buy and end, before and after they are done; then whichever comes, in an order that visits all.
        let certain = [
            ("CreateLaunchTemplate", "after"),
            ("CreateFleet", "after"),
            ("CreateFleet", "before"),
            ("TerminateInstances", "after"),
            ("TerminateInstances", "before"),
        ];
        let (hold, mode) = match certain.get(usize::try_from(round).unwrap()) {
            Some((action, mode)) => (json!({ "left": 1, "mode": mode, "action": action }), *mode),
            None => {
                let mode = if round % 2 == 0 { "before" } else { "after" };
                (json!({ "left": 1 + round * 7 % 23, "mode": mode }), mode)
            }
        };
        cloud.account.chaos("hold", &hold);
        let lease = cloud.farm.ask("spot", "builder", false).id;
        let mut released = false;
        let mut dead = false;
        let place = format!("round {round}, {hold}");
        let begun = std::time::Instant::now();
        loop {
            assert!(
                begun.elapsed() < crate::support::PATIENCE,
                "{place}: {:?}\n{:#?}\n{}",
                cloud.account.alive(),
                cloud.farm.server.resources(),
                cloud.farm.server.log()
            );
            if !dead && let Some(action) = cloud.account.chaos("held", &json!({}))["action"].as_str() {
                *killed.entry(format!("{mode} {action}")).or_default() += 1;
                cloud.farm.server.kill();
                cloud.account.chaos("unhold", &json!({}));
                cloud.farm.server.run();
                dead = true;
            }
            if !released && cloud.farm.get(&lease).state() == LeaseState::Active {
                let now = cloud.farm.get(&lease);
                assert_eq!(cloud.account.alive().len(), 1, "{place}: {:?}", cloud.account.alive());
                assert_eq!(cloud.account.alive()[0].id, cloud.instance_of(&now.resource_id), "{place}");
                cloud.farm.release(&lease, Outcome::Ok);
                released = true;
            }
            if dead && released && cloud.account.alive().is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        let machines = cloud.account.machines();
        assert_eq!(machines.len() as u64, round + 1, "{place}: {machines:?}");
    }
    // The witness: no token bought two, and none was asked for with two requests.
    let mut tokens = BTreeSet::new();
    for call in cloud.account.launches() {
        assert_eq!(call.instances.len(), 1, "{call:?}");
        assert!(tokens.insert(call.token.clone()), "bought twice: {call:?}");
    }
    assert_eq!(tokens.len() as u64, rounds());
    println!("TABLE | broker killed between calls | {} times: {killed:?} |", rounds());
}
