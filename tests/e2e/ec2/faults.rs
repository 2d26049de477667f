//! AWS is down, throttles, has no capacity, or refuses a setting.

use super::account::{Account, Cloud, Pools, skip};
use serde_json::json;
use std::time::{Duration, SystemTime};
use wharfinger::pb::{LeaseState, Outcome};

const ONE_PLACE: Pools = Pools {
    spot: "max = 3",
    ec2: "",
    ssh: "",
    copies: "max = 3\nidle = \"1s\"",
    queue: true,
    types: &["m7i.large"],
    zones: 1,
    calm: false,
};

#[test]
fn aws_is_away_and_no_lease_is_lost() {
    if skip("aws_is_away_and_no_lease_is_lost") {
        return;
    }
    let cloud = Cloud::start(Pools { spot: "max = 2\nslots = 2", ..ONE_PLACE });
    let farm = &cloud.farm;
    let lease = farm.active(&farm.ask("copies", "builder", true).id).lease;
    let instance = cloud.instance_of(&cloud.host_of(&lease.resource_id));
    let mut calm = 0;
    // The queue is down; then all services; then all calls have expired credentials; then all calls are throttled.
    for (what, set) in [
        ("queue", json!({ "sqs_down": true })),
        ("all", json!({ "down": true })),
        ("keys", json!({ "down": false, "sqs_down": false, "expired": "ExpiredToken" })),
        ("throttle", json!({ "expired": "RequestLimitExceeded" })),
    ] {
        cloud.account.chaos("set", &set);
        let before = cloud.account.count("DescribeInstances");
        // Many lists, many looks: the intervals are half a second here.
        farm.throughout(Duration::from_secs(4), |farm| {
            let now = farm.get(&lease.id);
            assert_eq!((now.state(), now.fencing_token), (LeaseState::Active, lease.fencing_token), "{what}: {now:?}");
        });
        // Present hosts serve new leases without a call to AWS.
        let other = farm.active(&farm.ask("spot", "other", false).id).lease;
        farm.release(&other.id, Outcome::Ok);
        let calls = cloud.account.count("DescribeInstances") - before;
        if what == "queue" {
            calm = calls;
        } else if what == "throttle" {
            assert!(calls < calm, "a throttle reduces the calls: {calls} calls, and {calm} before");
        }
    }
    let since = SystemTime::now();
    cloud.account.chaos("set", &json!({ "expired": null }));
    // The queue works again.
    cloud.account.warn(&instance);
    farm.told(&lease.id, since, "its end", |lease| lease.ends_at.is_some());
    assert_eq!(cloud.account.launches().iter().filter(|call| call.instances.contains(&instance)).count(), 1);
}

#[test]
fn an_answer_that_is_lost_buys_nothing_twice() {
    if skip("an_answer_that_is_lost_buys_nothing_twice") {
        return;
    }
    for (pools, action) in [(ONE_PLACE, "RunInstances"), (Pools::default(), "CreateFleet")] {
        let account = Account::start();
        for mode in ["before", "after"] {
            account.chaos("fault", &json!({ "action": action, "mode": mode, "drop": true }));
        }
        account.chaos("fault", &json!({ "action": action, "code": "InternalError", "status": 500 }));
        let cloud = Cloud::start_in(account, pools);
        let lease = cloud.farm.active(&cloud.farm.ask("spot", "builder", false).id).lease;
        assert_eq!(lease.state(), LeaseState::Active);
        assert_eq!(cloud.account.machines().len(), 1, "{action}");
        let calls = cloud.account.calls();
        let tokens: Vec<_> = calls.iter().filter(|call| call.action == action).map(|call| call.token.clone()).collect();
        assert!(tokens.len() >= 3 && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    }
}

#[test]
fn capacity_is_gone_in_one_zone_then_in_all_and_it_says_so() {
    if skip("capacity_is_gone_in_one_zone_then_in_all_and_it_says_so") {
        return;
    }
    let account = Account::start();
    let first = account.subnets.values().next().unwrap().clone();
    account.chaos("empty", &json!({ "places": [["*", first, true]] }));
    let cloud = Cloud::start_in(account, Pools { ec2: "cool_ms = 3000", ..Pools::default() });
    let farm = &cloud.farm;
    farm.active(&farm.ask("spot", "one", false).id);
    let machines = cloud.account.machines();
    assert!(machines[0].spot && machines[0].zone.ends_with('b'), "{machines:?}");

    // No spot anywhere: on demand.
    cloud.account.chaos("empty", &json!({ "places": [["*", "*", true]] }));
    farm.active(&farm.ask("spot", "two", false).id);
    assert!(!cloud.account.machines()[1].spot);

    // No capacity anywhere: the request waits, and `explain` has the reason.
    cloud.account.chaos("empty", &json!({ "places": [["*", "*", true], ["*", "*", false]] }));
    let waiting = farm.ask("spot", "three", false);
    let why = farm.server.wait("the reason", || {
        let output = farm.server.cli(&["explain", &waiting.id]);
        let text = String::from_utf8_lossy(&output.stdout).to_string();
        text.contains("NO_CAPACITY").then_some(text)
    });
    assert!(why.contains("spot or on-demand"), "{why}");
    assert_eq!(farm.get(&waiting.id).state(), LeaseState::Queued);
    // Spot has capacity again.
    cloud.account.chaos("empty", &json!({ "places": [] }));
    farm.active(&waiting.id);
    assert!(cloud.account.machines()[2].spot);
    assert_eq!(cloud.account.machines().len(), 3);
    // The statistics have all of it.
    let told = farm.server.json(&["weather"]);
    let sum = |market: &str, key: &str| -> u64 {
        let lines = told["lines"].as_array().unwrap().iter().filter(|line| line["market"] == market);
        lines.map(|line| line[key].as_u64().unwrap()).sum()
    };
    assert_eq!((sum("spot", "launches"), sum("on_demand", "launches")), (2, 1), "{told:#}");
    assert!(sum("spot", "capacity_errors") >= 3 && sum("on_demand", "capacity_errors") >= 1, "{told:#}");
}

#[test]
fn a_quota_or_a_wrong_image_lets_the_request_wait_and_say_why() {
    if skip("a_quota_or_a_wrong_image_lets_the_request_wait_and_say_why") {
        return;
    }
    for fleet in [false, true] {
        let base = if fleet { Pools::default() } else { ONE_PLACE };
        let mut cloud = Cloud::start(Pools { ec2: "image = \"ami-wrong\"", ..base });
        let waiting = cloud.farm.ask("spot", "builder", false).id;
        let told = |cloud: &Cloud, reason: &str| {
            cloud.farm.server.wait(reason, || {
                let output = cloud.farm.server.cli(&["explain", &waiting]);
                String::from_utf8_lossy(&output.stdout).contains(reason).then_some(())
            });
            assert_eq!(cloud.farm.get(&waiting).state(), LeaseState::Queued);
        };
        told(&cloud, "IMAGE_INVALID");
        assert!(cloud.account.machines().is_empty());
        cloud.account.chaos("set", &json!({ "quota": { "spot": 0, "on_demand": 0 } }));
        cloud.reconfigure(|pools| pools.ec2 = "");
        told(&cloud, "QUOTA_REACHED");
        assert!(cloud.account.machines().is_empty());
    }
}

#[test]
fn another_machine_at_the_address_is_never_used() {
    if skip("another_machine_at_the_address_is_never_used") {
        return;
    }
    let cloud = Cloud::start(Pools { ec2: "launch_timeout_ms = 6000", ..ONE_PLACE });
    let farm = &cloud.farm;
    let lease = farm.active(&farm.ask("spot", "builder", true).id).lease;
    let instance = cloud.instance_of(&lease.resource_id);
    // Another machine gets the address, with another host key.
    let since = SystemTime::now();
    cloud.account.chaos("other_key", &json!({ "id": instance }));
    let broken = farm.told(&lease.id, since, "that it is broken", |lease| lease.state() == LeaseState::Broken);
    let events = farm.events(0);
    assert!(events.iter().any(|event| event.detail.contains("HOST_REPLACED")), "{events:#?}");
    let next = farm.active(&broken.lease.replacement_id).lease;
    assert_ne!(cloud.instance_of(&next.resource_id), instance);
    farm.server.wait("its end", || cloud.account.alive().iter().all(|one| one.id != instance).then_some(()));
}

#[test]
fn a_host_that_says_another_name_is_given_up() {
    if skip("a_host_that_says_another_name_is_given_up") {
        return;
    }
    let account = Account::start();
    account.chaos("identities", &json!({ "all": "i-0bbbbbbbbbbbbbbbb" }));
    let cloud = Cloud::start_in(account, Pools { ec2: "launch_timeout_ms = 3000", ..ONE_PLACE });
    let farm = &cloud.farm;
    let lease = farm.ask("spot", "builder", false);
    farm.server.wait("the reason", || {
        let events = farm.events(0);
        events.iter().any(|event| event.detail.contains("ANOTHER_INSTANCE")).then_some(())
    });
    assert_ne!(farm.get(&lease.id).state(), LeaseState::Active);
    cloud.account.chaos("identities", &json!({ "all": null }));
    farm.active(&lease.id);
    let alive = cloud.until_alive(1);
    assert_eq!(alive[0].id, cloud.instance_of(&farm.get(&lease.id).resource_id));
}

#[test]
fn want_of_capacity_that_comes_as_an_error_of_the_server_is_not_asked_for_again_and_again() {
    if skip("want_of_capacity_that_comes_as_an_error_of_the_server_is_not_asked_for_again_and_again") {
        return;
    }
    let account = Account::start();
    account.chaos("empty", &json!({ "places": [["*", "*", true], ["*", "*", false]] }));
    let cloud = Cloud::start_in(account, ONE_PLACE);
    let waiting = cloud.farm.ask("spot", "builder", false);
    cloud.farm.server.wait("the reason", || {
        let output = cloud.farm.server.cli(&["explain", &waiting.id]);
        String::from_utf8_lossy(&output.stdout).contains("NO_CAPACITY").then_some(())
    });
    cloud.throughout_lists(4, |_| {
        assert_eq!(cloud.account.count("RunInstances"), 2, "once as spot, once on demand; then the place rests");
    });
    cloud.account.chaos("empty", &json!({ "places": [] }));
}

#[test]
fn an_instance_with_our_tag_and_no_record_is_ended_and_nothing_else_is() {
    if skip("an_instance_with_our_tag_and_no_record_is_ended_and_nothing_else_is") {
        return;
    }
    let account = Account::start();
    let tags = |deployment: &str| {
        json!({ "wharfinger:deployment": deployment, "wharfinger:pool": "spot", "wharfinger:attempt": "1",
                "wharfinger:resource": "res_01KAV9FT00QVQG00000000001A" })
    };
    // A broker that lost its database leaves this instance behind.
    let (stray, foreign, bare) =
        (account.stray(&tags("e2e")), account.stray(&tags("other")), account.stray(&json!({})));
    let cloud = Cloud::start_in(account, Pools { ec2: "launch_timeout_ms = 10000", ..ONE_PLACE });
    let lease = cloud.farm.active(&cloud.farm.ask("spot", "builder", false).id).lease;
    let own = cloud.instance_of(&lease.resource_id);
    let alive = || cloud.account.alive().into_iter().map(|one| one.id).collect::<Vec<_>>();
    cloud.farm.server.wait("its end", || (!alive().contains(&stray)).then_some(()));
    // The sweep that follows two lists would end other instances, too.
    cloud.throughout_lists(6, |farm| {
        assert_eq!(farm.get(&lease.id).state(), LeaseState::Active);
    });
    for kept in [&foreign, &bare, &own] {
        assert!(alive().contains(kept), "{kept} of {:?}", cloud.account.machines());
    }
}
