//! A machine outlives the resources that stand for it: orders of operators over reboots of a real sshd, restarts and reloads of the
//! broker; and a rolling restart of a whole pool.

use crate::farm::{Farm, Settings};
use crate::sshd::{Sshd, skip};
use crate::support::text;
use serde_json::Value;
use std::time::{Duration, SystemTime};
use wharfinger::pb::{LeaseState, Outcome};

/// Hosts that are kept ready, and whose loss is known soon.
const QUICK: Settings = Settings {
    hosts: "[pool.doubt]\nprobe_interval = \"1s\"\nretry_interval = \"200ms\"\nmisses = 3\nover = \"600ms\"",
    ssh: "",
    copies: "max = 2",
    git: "",
};

fn farm(hosts: usize) -> Farm {
    let hosts: Vec<Sshd> = (0..hosts).map(|_| Sshd::start()).collect();
    let count = hosts.len();
    let farm = Farm::start(hosts, QUICK);
    farm.server.wait_for_state("hosts", "READY", count);
    farm
}

fn done(farm: &Farm, args: &[&str]) -> String {
    let output = farm.server.cli(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The machine of this name, as `pools` lists it.
fn machine(farm: &Farm, name: &str) -> Value {
    let pools = farm.server.json(&["pools"]);
    let pools = pools["pools"].as_array().unwrap();
    let items = pools.iter().find(|pool| pool["name"] == "hosts").unwrap()["items"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).unwrap().clone()
}

fn is_ordered(farm: &Farm, name: &str) -> bool {
    let machine = machine(farm, name);
    ["cordoned", "drained", "held"].iter().any(|order| !machine[*order].is_null())
}

/// The sshd of a host ends with all its sessions, and comes back once its resource is given up.
fn reboot(farm: &mut Farm, name: &str) {
    let before = machine(farm, name)["resource_id"].clone();
    farm.host(name).kill_hard();
    if let Some(id) = before.as_str() {
        // A machine that is set apart is left alone, reachable or not.
        farm.server.wait("the host to be given up", || {
            let state = farm.server.json(&["resource", id])["state"].clone();
            (state == "GONE" || state == "QUARANTINED").then_some(())
        });
    }
    farm.host(name).run();
}

/// The server reads its configuration again.
fn reload(farm: &Farm) {
    let times = || farm.server.log().matches("the configuration was read again").count();
    let before = times();
    farm.server.reload();
    farm.server.wait("the reload", || (times() > before).then_some(()));
}

/// Whether something is ordered still, as a word.
fn word(holds: bool) -> &'static str {
    if holds { "holds" } else { "ends" }
}

#[test]
fn a_note_stays_with_its_machine_over_restart_reload_and_reboot() {
    if skip("a_note_stays_with_its_machine_over_restart_reload_and_reboot") {
        return;
    }
    let mut farm = farm(2);
    let shown = done(&farm, &["note", "hosts/a", "loud fan"]);
    assert!(shown.contains("note of local at ") && shown.contains(": loud fan"), "{shown}");
    let note = |farm: &Farm| machine(farm, "a")["note"]["text"].as_str().map(str::to_owned);
    farm.server.kill();
    farm.server.run();
    assert_eq!(note(&farm).as_deref(), Some("loud fan"));
    reload(&farm);
    assert_eq!(note(&farm).as_deref(), Some("loud fan"));
    let before = machine(&farm, "a")["resource_id"].clone();
    reboot(&mut farm, "a");
    farm.server.wait_for_state("hosts", "READY", 2);
    let after = farm.server.json(&["resource", "hosts/a"]);
    assert_ne!(after["id"], before);
    assert_eq!((&after["note"]["text"], &after["note"]["by"]), (&"loud fan".into(), &"local".into()), "{after}");
    assert!(done(&farm, &["resources"]).contains("loud fan"));
    done(&farm, &["note", "hosts/a", ""]);
    assert_eq!(note(&farm), None);
    let events = done(&farm, &["events"]);
    assert!(events.contains("resource.noted") && events.contains("resource.note-removed"), "{events}");
    assert!(events.contains("local via cli ("), "{events}");
}

/// The table of docs/operations.md is what this farm does.
#[test]
fn each_order_survives_what_the_documentation_says() {
    if skip("each_order_survives_what_the_documentation_says") {
        return;
    }
    let mut farm = farm(2);
    let mut table = String::from("| order | the broker restarts | a reload | the host reboots |\n|---|---|---|---|\n");
    for (order, args, withdrawn) in [
        ("`cordon` of a machine", vec!["cordon", "hosts/a", "-m", "disk"], "uncordon"),
        ("`drain` of a machine", vec!["drain", "hosts/a", "-m", "disk"], "undrain"),
        ("`hold` of a machine", vec!["hold", "a", "--for", "1h", "-m", "disk"], "recover"),
        ("`quarantine` of a machine", vec!["quarantine", "hosts/a", "-m", "disk"], "recover"),
    ] {
        done(&farm, &args);
        assert!(is_ordered(&farm, "a"), "{args:?}");
        farm.server.kill();
        farm.server.run();
        let restart = word(is_ordered(&farm, "a"));
        reload(&farm);
        let reloaded = word(is_ordered(&farm, "a"));
        reboot(&mut farm, "a");
        // Longer than a host takes to come back.
        farm.throughout(Duration::from_secs(4), |farm| {
            let at = machine(farm, "a")["resource_id"].clone();
            let state = at.as_str().map(|id| farm.server.json(&["resource", id])["state"].clone());
            assert!(state.as_ref().is_none_or(|state| state != "READY"), "{order}: {state:?}");
        });
        let rebooted = word(is_ordered(&farm, "a"));
        table.push_str(&format!("| {order} | {restart} | {reloaded} | {rebooted} |\n"));
        // Each list names it, and no lease goes there.
        for list in ["pools", "resources"] {
            let told = done(&farm, &[list]);
            assert!(
                told.contains("machine hosts/a: ") && told.contains("by local since ") && told.contains(": disk"),
                "{told}"
            );
        }
        let story = done(&farm, &["why", "hosts/a"]);
        assert!(story.contains("machine hosts/a: ") && story.contains(": disk"), "{story}");
        let (one, two) = (farm.ask("hosts", "one", false), farm.ask("hosts", "two", false));
        farm.active(&one.id);
        let why = done(&farm, &["explain", &two.id]);
        assert!(why.contains("hosts/a is ") && why.contains("by local: disk"), "{why}");
        assert!(done(&farm, &["why", &two.id]).contains("hosts/a is "), "why says what explain says");
        for lease in [two, one] {
            farm.release(&lease.id, Outcome::Ok);
        }
        done(&farm, &[withdrawn, "hosts/a"]);
        farm.server.wait_for_state("hosts", "READY", 2);
        assert!(!is_ordered(&farm, "a"));
    }
    // A working copy, as an instance that was bought, has no name that outlives it.
    let lease = farm.active(&farm.ask("copies", "holder", false).id).lease;
    let copy = lease.resource_id.clone();
    let host = farm.resource(&farm.resource(&copy).parent_id).item;
    let told = done(&farm, &["cordon", &copy, "-m", "disk"]);
    assert!(told.contains("the cordon ends with this resource"), "{told}");
    let cordoned = |farm: &Farm| farm.server.json(&["resource", &copy])["cordoned"] == true;
    farm.server.kill();
    farm.server.run();
    let restart = word(cordoned(&farm));
    reload(&farm);
    let reloaded = word(cordoned(&farm));
    reboot(&mut farm, &host);
    let gone = farm
        .server
        .wait("the copy to be gone", || (farm.server.json(&["resource", &copy])["state"] == "GONE").then_some(true));
    table.push_str(&format!(
        "| `cordon` of a working copy or an instance | {restart} | {reloaded} | {} |\n",
        word(!gone)
    ));
    let refused = farm.server.cli(&["cordon", &copy]);
    assert!(!refused.status.success() && text(&refused).contains("RESOURCE_GONE"), "{}", text(&refused));

    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    assert!(page.contains(&table), "docs/operations.md should have this table:\n{table}");
}

#[test]
fn a_rolling_restart_breaks_each_lease_at_once_and_the_brake_holds_none_back() {
    if skip("a_rolling_restart_breaks_each_lease_at_once_and_the_brake_holds_none_back") {
        return;
    }
    let mut farm = farm(3);
    let leases: Vec<_> =
        (0..3).map(|n| farm.active(&farm.ask("hosts", &format!("holder {n}"), false).id).lease).collect();
    for lease in &leases {
        let host = farm.resource(&lease.resource_id).item;
        let killed = SystemTime::now();
        farm.host(&host).kill_hard();
        farm.told(&lease.id, killed, "that it is broken", |lease| lease.state() == LeaseState::Broken);
        farm.host(&host).run();
        farm.server.wait_for_state("hosts", "READY", 3);
        let pool = farm.server.json(&["pools"])["pools"][0].clone();
        assert_eq!(pool["brakes"].as_array().map(Vec::len), Some(0), "{pool}");
    }
    let held = ["pool.brake-on", "resource.held-back"];
    let events = farm.events(0);
    assert!(!events.iter().any(|event| held.contains(&event.kind.as_str())), "{events:#?}");
}

#[test]
fn a_verb_on_a_resource_that_is_gone_names_its_successor() {
    if skip("a_verb_on_a_resource_that_is_gone_names_its_successor") {
        return;
    }
    let mut farm = farm(1);
    let first = machine(&farm, "a")["resource_id"].as_str().unwrap().to_string();
    reboot(&mut farm, "a");
    let next = farm.server.wait_for_state("hosts", "READY", 1)[0]["id"].as_str().unwrap().to_string();
    assert_ne!(first, next);
    let refused = farm.server.cli(&["drain", &first]);
    let told = text(&refused).to_string();
    assert!(!refused.status.success() && told.contains("RESOURCE_GONE"), "{told}");
    assert!(told.contains(&format!("hosts/a is {next} now")), "{told}");
    assert_eq!(farm.server.json(&["resource", "a"])["id"], next.as_str());
    for (name, reason) in [("hosts/x", "UNKNOWN_MACHINE"), ("x", "UNKNOWN_MACHINE"), ("a/b/c", "machine")] {
        let refused = farm.server.cli(&["cordon", name]);
        assert!(!refused.status.success() && text(&refused).contains(reason), "{name}: {}", text(&refused));
    }
}

#[test]
fn a_shell_opens_in_the_tree_of_a_lease_with_the_pinned_key() {
    if skip("a_shell_opens_in_the_tree_of_a_lease_with_the_pinned_key") {
        return;
    }
    let mut farm = farm(1);
    let lease = farm.active(&farm.ask("copies", "holder", false).id).lease;
    let path = lease.access_pairs()["path"].clone();
    let key = farm.host("a").key().display().to_string();
    for place in [&lease.id, &lease.resource_id] {
        let args = [
            "ssh",
            "-i",
            &key,
            place,
            "--",
            "sh",
            "-c",
            "pwd; cat hello.txt; printf '%s\\n' \"$1\"; exit 3",
            "sh",
            "it's $HOME",
        ];
        let output = farm.server.cli(&args);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let printed = String::from_utf8_lossy(&output.stdout).to_string();
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines, [path.as_str(), "hello", "it's $HOME"], "{}", text(&output));
    }
    // Another key at the same address is refused.
    farm.host("a").restart_with_new_host_key();
    let output = farm.server.cli(&["ssh", "-i", &key, &lease.resource_id, "--", "true"]);
    assert!(!output.status.success(), "{}", text(&output));
}
