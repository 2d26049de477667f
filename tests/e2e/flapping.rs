//! A host that comes up, is lost and comes up again in a loop: a real sshd, and what the server, its trail and its lists say of it.

use crate::farm::{Farm, Settings};
use crate::sshd::{Sshd, skip};
use crate::support::text;
use serde_json::Value;
use std::time::Duration;
use wharfinger::pb;

/// Hosts that are kept ready, and whose loss is known soon.
const QUICK: Settings = Settings {
    hosts: "[pool.doubt]\nprobe_interval = \"1s\"\nretry_interval = \"200ms\"\nmisses = 3\nover = \"600ms\"",
    ssh: "",
    copies: "",
    git: "",
};

fn machine(farm: &Farm) -> Value {
    let pools = farm.server.json(&["pools"]);
    let pools = pools["pools"].as_array().unwrap();
    pools.iter().find(|pool| pool["name"] == "hosts").unwrap()["items"][0].clone()
}

fn said(farm: &Farm, args: &[&str]) -> String {
    let output = farm.server.cli(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    text(&output)
}

/// Ends the sshd of the host each time it is ready, until its machine was lost this often.
fn flap(farm: &mut Farm, times: u64) {
    loop {
        let found = farm.server.wait("the host to be ready, or at rest", || {
            let machine = machine(farm);
            if machine["losses"]["count"].as_u64().is_some_and(|count| count >= times)
                && machine["resource_id"].is_null()
            {
                return Some(None);
            }
            let id = machine["resource_id"].as_str()?.to_owned();
            (farm.server.json(&["resource", &id])["state"] == "READY").then_some(Some(id))
        });
        let Some(id) = found else { return };
        farm.host("a").kill_hard();
        farm.server.wait("the host to be given up", || {
            (farm.server.json(&["resource", &id])["state"] == "GONE").then_some(())
        });
        farm.host("a").run();
    }
}

/// From each loss of a resource of the host to the beginning of the next one, with the detail of its last entry.
fn rests(farm: &Farm) -> Vec<(Duration, String)> {
    let at = |event: &pb::Event| {
        let at = event.at.unwrap();
        Duration::new(at.seconds.unsigned_abs(), at.nanos.unsigned_abs())
    };
    let (mut rests, mut lost, mut detail) = (Vec::new(), None, String::new());
    for event in farm.events(0) {
        match event.kind.as_str() {
            "resource.destroying" => lost = Some(at(&event)),
            "resource.gone" => detail = event.detail,
            "resource.provisioning" => {
                rests.extend(lost.take().map(|lost| (at(&event).saturating_sub(lost), detail.clone())));
            }
            _ => {}
        }
    }
    rests
}

#[test]
fn a_host_that_flaps_rests_longer_each_time_and_says_when_it_comes_back() {
    if skip("a_host_that_flaps_rests_longer_each_time_and_says_when_it_comes_back") {
        return;
    }
    let mut farm = Farm::start(vec![Sshd::start()], QUICK);
    farm.server.wait_for_state("hosts", "READY", 1);
    flap(&mut farm, 7);
    // A rest of 32 s is under way.
    let told = ["was lost 7 times since ", " by RESOURCE_", "; comes back at "];
    for list in ["pools", "resources"] {
        let text = said(&farm, &[list]);
        let line = text.lines().find(|line| line.starts_with("machine hosts/a: ")).unwrap_or_else(|| panic!("{text}"));
        assert!(told.iter().all(|part| line.contains(part)), "{line}");
    }
    let waits = farm.ask("hosts", "waits", false);
    let why = said(&farm, &["explain", &waits.id]);
    assert!(why.contains("hosts/a comes back in ") && why.contains("it was lost 7 times in "), "{why}");
    assert!(why.contains("wharfinger recover hosts/a"), "{why}");
    // The rest is stored.
    let again_at = machine(&farm)["losses"]["again_at"].clone();
    farm.server.kill();
    farm.server.run();
    let machine_now = machine(&farm);
    assert_eq!(machine_now["losses"]["again_at"], again_at);
    assert!(machine_now["resource_id"].is_null(), "the restart is no way around the rest: {machine_now}");
    // The word of an operator ends it.
    said(&farm, &["recover", "hosts/a", "-m", "a new cable"]);
    farm.active(&waits.id);
    assert!(machine(&farm)["losses"].is_null());
    let rests = rests(&farm);
    let least: Vec<u64> = vec![0, 1, 2, 4, 8, 16];
    assert_eq!(rests.len(), least.len() + 1, "each loss has one end and one beginning: {rests:?}");
    for ((rest, detail), least) in rests.iter().zip(least) {
        // The core's clock may slew by a little between the two.
        assert!(*rest + Duration::from_millis(100) >= Duration::from_secs(least), "{rests:?}");
        assert_eq!(detail.is_empty(), least == 0, "a single loss rests not at all: {rests:?}");
    }
    let (last, detail) = rests.last().unwrap();
    assert!(*last < Duration::from_secs(32) && detail.contains("; the next one is made in "), "{rests:?}");
}
