//! Launches that EC2 or the image fails, with the reason in front of the holder who waits.

use super::account::{Account, Cloud, Pools, skip};
use serde_json::json;
use wharfinger::pb::LeaseState;

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

/// Waits until `explain` has all these parts, and returns its text.
fn explained(cloud: &Cloud, lease: &str, parts: &[&str]) -> String {
    cloud.farm.server.wait(&format!("{parts:?} in explain"), || {
        let output = cloud.farm.server.cli(&["explain", lease]);
        let text = String::from_utf8_lossy(&output.stdout).to_string();
        parts.iter().all(|part| text.contains(part)).then_some(text)
    })
}

#[test]
fn an_instance_that_ends_at_once_is_reported_with_its_reason_and_not_bought_again_and_again() {
    if skip("an_instance_that_ends_at_once_is_reported_with_its_reason_and_not_bought_again_and_again") {
        return;
    }
    for pools in [ONE_PLACE, Pools::default()] {
        let account = Account::start();
        let code = "Client.InvalidKMSKey.InvalidState";
        let message = format!("{code}: The KMS key provided is in an incorrect state");
        account.chaos("set", &json!({ "fails": { "code": code, "message": message } }));
        let cloud = Cloud::start_in(account, pools);
        let lease = cloud.farm.ask("spot", "builder", false).id;
        explained(&cloud, &lease, &["LAUNCH_FAILED", &message, "kms:CreateGrant"]);
        // The next attempt comes ten seconds later; EC2 is listed each half second.
        cloud.throughout_lists(4, |farm| {
            assert_eq!(farm.get(&lease).state(), LeaseState::Queued);
            assert_eq!(cloud.account.machines().len(), 1);
        });
        cloud.account.chaos("set", &json!({ "fails": null }));
        cloud.farm.active(&lease);
        assert_eq!((cloud.account.machines().len(), cloud.account.alive().len()), (2, 1));
    }
}

#[test]
fn an_image_in_fips_mode_gets_an_ecdsa_host_key_by_its_setting() {
    if skip("an_image_in_fips_mode_gets_an_ecdsa_host_key_by_its_setting") {
        return;
    }
    let account = Account::start();
    account.chaos("set", &json!({ "fips": true }));
    let mut cloud = Cloud::start_in(account, Pools { ec2: "launch_timeout_ms = 2000", ..ONE_PLACE });
    let lease = cloud.farm.ask("spot", "builder", false).id;
    // No sshd listens, and the message names the setting.
    cloud.farm.server.wait("the setting in the trail", || {
        let events = cloud.farm.events(0);
        let names_it = |text: &str| text.contains("UNREACHABLE") && text.contains("host_key_type = \"ecdsa\"");
        events.iter().any(|event| names_it(&event.detail)).then_some(())
    });
    cloud.reconfigure(|pools| pools.ec2 = "host_key_type = \"ecdsa\"");
    let host = cloud.farm.active(&lease).lease.resource_id;
    let instance = cloud.instance_of(&host);
    assert!(cloud.account.alive().iter().any(|machine| machine.id == instance));
}

#[test]
fn an_image_that_keeps_its_own_host_key_is_reported_and_its_instances_are_ended() {
    if skip("an_image_that_keeps_its_own_host_key_is_reported_and_its_instances_are_ended") {
        return;
    }
    let account = Account::start();
    account.chaos("set", &json!({ "own_keys": true }));
    let cloud = Cloud::start_in(account, Pools { ec2: "launch_timeout_ms = 4000", ..ONE_PLACE });
    let lease = cloud.farm.ask("spot", "builder", false).id;
    explained(&cloud, &lease, &["HOST_KEY_MISMATCH", "its user data", "host_key_type"]);
    cloud.until_alive(0);
    cloud.account.chaos("set", &json!({ "own_keys": false }));
    cloud.farm.active(&lease);
    assert_eq!(cloud.account.alive().len(), 1);
}

#[test]
fn a_fleets_error_for_one_place_rests_that_place_alone() {
    if skip("a_fleets_error_for_one_place_rests_that_place_alone") {
        return;
    }
    let account = Account::start();
    let subnets: Vec<String> = account.subnets.values().cloned().collect();
    let refused = |kind: &str, at: usize, spot: bool| json!([kind, subnets[at], spot, "InvalidFleetConfiguration"]);
    account.chaos("refuse", &json!({ "places": [refused("m7i.large", 0, true)] }));
    let cloud = Cloud::start_in(account, Pools { ec2: "cool_ms = 1000", ..Pools::default() });
    cloud.farm.active(&cloud.farm.ask("spot", "one", false).id);
    assert!(cloud.account.machines()[0].spot, "the other places of the same market");
    // The others have no spot capacity: on demand, although one place is refused.
    cloud.account.chaos("empty", &json!({ "places": [["*", "*", true]] }));
    cloud.farm.active(&cloud.farm.ask("spot", "two", false).id);
    assert!(!cloud.account.machines()[1].spot);
    // Every place is refused in both markets: the operator's to correct.
    let mut all = Vec::new();
    for kind in ["m7i.large", "m6i.large"] {
        for at in 0..2 {
            all.extend([refused(kind, at, true), refused(kind, at, false)]);
        }
    }
    cloud.account.chaos("refuse", &json!({ "places": all }));
    let waiting = cloud.farm.ask("spot", "three", false).id;
    explained(&cloud, &waiting, &["REFUSED_BY_EC2", "InvalidFleetConfiguration", "`subnets`"]);
    cloud.account.chaos("refuse", &json!({ "places": [] }));
    cloud.account.chaos("empty", &json!({ "places": [] }));
    cloud.farm.active(&waiting);
    assert_eq!(cloud.account.machines().len(), 3);
}
