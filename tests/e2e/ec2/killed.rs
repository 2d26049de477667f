//! The broker is killed between two calls to AWS. In the end each host was launched once and none is left.

use super::account::{Cloud, Pools, skip};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};
use wharfinger::pb::{LeaseState, Outcome};

/// Number of hosts, with one kill for each: 5, and 50 with `WHARFINGER_LONG=1`.
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
        // The first kills are before and after the calls that launch and end; the others visit all calls.
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
            std::thread::sleep(Duration::from_millis(30));
        }
        let machines = cloud.account.machines();
        assert_eq!(machines.len() as u64, round + 1, "{place}: {machines:?}");
    }
    // Each token launched one instance with one request.
    let mut tokens = BTreeSet::new();
    for call in cloud.account.launches() {
        assert_eq!(call.instances.len(), 1, "{call:?}");
        assert!(tokens.insert(call.token.clone()), "launched twice: {call:?}");
    }
    assert_eq!(tokens.len() as u64, rounds());
    println!("TABLE | broker killed between calls | {} times: {killed:?} |", rounds());
}

/// The broker is killed after it received, delivered or deleted a warning. The next broker has the notice: SQS delivers a message that was not
/// deleted again, and the change of a deleted one is durable.
#[test]
fn killed_with_a_warning_in_hand_it_tells_the_holder_and_replaces_the_host_once() {
    if skip("killed_with_a_warning_in_hand_it_tells_the_holder_and_replaces_the_host_once") {
        return;
    }
    // The queue is the only source.
    let mut cloud = Cloud::start(Pools { spot: "max = 1", ..Pools::default() });
    let mut lease = cloud.farm.active(&cloud.farm.ask("spot", "builder", true).id).lease;
    let moments = [("ReceiveMessage", "after"), ("DeleteMessageBatch", "before"), ("DeleteMessageBatch", "after")];
    for (round, (action, mode)) in moments.into_iter().enumerate() {
        let place = format!("{mode} {action}");
        let instance = cloud.instance_of(&lease.resource_id);
        cloud.account.chaos("hold", &json!({ "left": 1, "mode": mode, "action": action }));
        let mut warned = SystemTime::now();
        cloud.account.warn(&instance);
        cloud.farm.server.wait(&format!("{place}: the call"), || {
            // The call that was under way received the message.
            if action == "ReceiveMessage" && warned.elapsed().unwrap() > Duration::from_secs(1) {
                warned = SystemTime::now();
                cloud.account.warn(&instance);
            }
            (cloud.account.chaos("held", &json!({}))["action"] == action).then_some(())
        });
        cloud.farm.server.kill();
        cloud.account.chaos("unhold", &json!({}));
        cloud.farm.server.run();
        let what = format!("{place}: the end of {}", lease.id);
        cloud.farm.server.wait(&what, || cloud.farm.get(&lease.id).ends_at.map(drop));
        assert_eq!(cloud.farm.get(&lease.id).state(), LeaseState::Active, "{place}: it works on until then");
        cloud.until_alive(2);
        cloud.farm.server.wait_for_state("spot", "READY", 1);
        cloud.account.take_away(&instance);
        let next = cloud.farm.server.wait(&format!("{place}: a successor"), || {
            let broken = cloud.farm.get(&lease.id);
            (broken.state() == LeaseState::Broken).then_some(broken.replacement_id)
        });
        lease = cloud.farm.server.wait(&format!("{place}: its host"), || {
            Some(cloud.farm.get(&next)).filter(|lease| lease.state() == LeaseState::Active)
        });
        assert_eq!(cloud.account.launches().len(), round + 2, "{place}: one for one");
        cloud.farm.server.wait(&format!("{place}: an empty queue"), || {
            (cloud.account.chaos("queue", &json!({}))["messages"] == 0).then_some(())
        });
    }
}
