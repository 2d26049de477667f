//! Reports and orders of holders and operators on failures, by the command line, on real working copies: hold, report, why, drains by
//! configuration, dry runs, whose fault it was.

use crate::support::{LOCAL, Server, local, repository, text};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A server with these pools and the repository that they name.
fn serving(pools: &str) -> Server {
    let mut server = Server::prepared("w.db");
    repository(&server.folder.path().join("origin"));
    server.configure("", pools);
    server.run();
    server
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_string()
}

fn resource_of(lease: &Value) -> String {
    lease["resource_id"].as_str().unwrap().to_string()
}

fn path_of(lease: &Value) -> PathBuf {
    PathBuf::from(lease["access"]["path"].as_str().unwrap())
}

/// An active lease on a working copy. It is not renewed, so it has time.
fn lease(server: &Server, more: &[&str]) -> Value {
    let mut args = vec!["lease", "--pool", "copies", "--ttl", "1h", "--wait", "1m"];
    args.extend(more);
    let lease = server.json(&args)["lease"].clone();
    assert_eq!(lease["state"], "ACTIVE", "{lease}");
    lease
}

fn release(server: &Server, lease: &Value) {
    done(server, &["release", &id(lease)]);
}

/// Runs a command that must work, and what it printed.
fn done(server: &Server, args: &[&str]) -> String {
    let output = server.cli(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).to_string()
}

fn is_in_state(server: &Server, resource: &str, state: &str) -> bool {
    server.json(&["resource", resource])["state"] == state
}

fn until_state(server: &Server, resource: &str, state: &str) {
    server.wait(&format!("{resource} to be {state}"), || is_in_state(server, resource, state).then_some(()));
}

fn until_lease(server: &Server, lease: &Value, state: &str) -> Value {
    let id = id(lease);
    server.wait(&format!("{id} to be {state}"), || Some(server.json(&["get", &id])).filter(|now| now["state"] == state))
}

fn mangle(copy: &Path) {
    std::fs::remove_dir_all(copy.join(".git")).unwrap();
}

#[test]
fn a_failed_builds_copy_is_kept_until_the_hold_is_over() {
    let server = local();
    let script = "echo clue > clue.txt; exit 3";
    let output = server.cli(&["run", "--pool", "copies", "--hold-on-failure", "1h", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let told = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(told.contains("is kept for 1h") && told.contains("wharfinger ssh res_"), "{told}");
    assert!(told.contains("wharfinger recover res_") && told.contains("deletes what is in it"), "{told}");
    let kept = id(&server.wait_for_state("copies", "QUARANTINED", 1)[0]);

    // Its files are where `wharfinger resource` says.
    let shown = done(&server, &["resource", &kept]);
    assert!(shown.contains("kept by local until ") && shown.contains("exit code 3"), "{shown}");
    let path = shown.lines().find_map(|line| line.strip_prefix("access")?.trim().strip_prefix("path=")).unwrap();
    let clue = Path::new(path).join("clue.txt");
    assert_eq!(std::fs::read_to_string(&clue).unwrap(), "clue\n");

    // A shell in it, as the message says.
    assert_eq!(done(&server, &["ssh", &kept, "--", "cat", "clue.txt"]), "clue\n");

    // Others go elsewhere, one after the other, and none comes near it.
    for _ in 0..3 {
        let other = lease(&server, &[]);
        assert_ne!(resource_of(&other), kept);
        assert!(!path_of(&other).join("clue.txt").exists());
        release(&server, &other);
    }
    assert!(is_in_state(&server, &kept, "QUARANTINED") && clue.exists());

    // Looked at for long enough: it comes back by way of a check, and is clean for its next holder.
    let said = done(&server, &["hold", &kept, "--for", "1s", "--reason", "nearly done"]);
    assert!(said.contains("QUARANTINED: kept by local until "), "{said}");
    until_state(&server, &kept, "READY");
    let story = done(&server, &["why", &kept]);
    // The report before the release was cleared too.
    let place = |what: &str| {
        let found = if what == "resource.cleared" { story.rfind(what) } else { story.find(what) };
        found.unwrap_or_else(|| panic!("no {what} in {story}"))
    };
    let places = ["resource.kept", "resource.quarantined", "nearly done", "resource.hold-over", "resource.cleared"];
    assert!(places.map(place).is_sorted(), "{story}");
    let both = [lease(&server, &[]), lease(&server, &[])];
    let served = both.iter().find(|lease| resource_of(lease) == kept).unwrap_or_else(|| panic!("{both:?}"));
    assert!(!path_of(served).join("clue.txt").exists());
    assert!(path_of(served).join("hello.txt").exists());
}

#[test]
fn a_hold_under_a_live_lease_lets_it_go_on() {
    let server = local();
    let held = lease(&server, &[]);
    let said = done(&server, &["hold", &id(&held), "--for", "2h", "--reason", "strange timings"]);
    assert!(
        said.contains("READY") && said.contains("kept by local until ") && said.contains("strange timings"),
        "{said}"
    );
    assert_eq!(server.json(&["get", &id(&held)])["state"], "ACTIVE");
    // The list shows why it gives no leases.
    assert!(done(&server, &["resources", "--pool", "copies"]).contains("strange timings"));
    let other = lease(&server, &[]);
    assert_ne!(resource_of(&other), resource_of(&held));

    std::fs::write(path_of(&held).join("clue.txt"), "clue\n").unwrap();
    let longer = server.cli(&["release", &id(&other), "--hold", "2d"]);
    assert!(String::from_utf8_lossy(&longer.stderr).contains("max_hold"), "{}", text(&longer));
    assert_eq!(server.json(&["get", &id(&other)])["state"], "ACTIVE", "what is refused changes nothing");
    release(&server, &held);
    until_state(&server, &resource_of(&held), "QUARANTINED");
    assert!(path_of(&held).join("clue.txt").exists(), "it is as its holder left it");

    done(&server, &["recover", &resource_of(&held)]);
    until_state(&server, &resource_of(&held), "READY");
    server.wait("its slot to be cleaned", || (!path_of(&held).join("clue.txt").exists()).then_some(()));
    let again = lease(&server, &[]);
    assert_eq!(resource_of(&again), resource_of(&held));
}

#[test]
fn a_report_changes_nothing_on_a_healthy_copy_and_replaces_a_mangled_one() {
    let server = local();
    let held = lease(&server, &["--replace"]);
    let said = done(&server, &["report", &id(&held), "the linker crashed"]);
    assert!(said.contains("ACTIVE") && said.contains("is being checked"), "{said}");
    until_state(&server, &resource_of(&held), "READY");
    let now = server.json(&["get", &id(&held)]);
    assert_eq!((&now["state"], &now["doubt"]), (&Value::from("ACTIVE"), &Value::Null), "{now}");
    assert_eq!((&now["resource_id"], &now["fencing_token"]), (&held["resource_id"], &held["fencing_token"]));

    mangle(&path_of(&held));
    done(&server, &["report", &id(&held), "no repository"]);
    let broken = until_lease(&server, &held, "BROKEN");
    assert_eq!(broken["causes"][0]["reason"], "RESOURCE_MANGLED", "{broken}");
    // Over is over, and says so to a script.
    let late = server.cli(&["report", &id(&held)]);
    assert_eq!(late.status.code(), Some(75), "{}", text(&late));
    let replacement = serde_json::json!({ "id": broken["replacement_id"] });
    let replacement = until_lease(&server, &replacement, "ACTIVE");
    assert_eq!(replacement["replaces_id"], held["id"]);
    assert!(path_of(&replacement).join(".git").exists());

    let waiting = server.cli(&["report", "lse_00000000000000000000000000"]);
    assert!(!waiting.status.success(), "{}", text(&waiting));
}

/// [`LOCAL`] with these lines in the pool of the copies.
fn copies_with(lines: &str) -> String {
    LOCAL.replace("name = \"copies\"", &format!("name = \"copies\"\n{lines}"))
}

fn reload(server: &Server, pools: &str, enabled: bool) {
    server.configure("", pools);
    server.reload();
    server.wait("the reload", || {
        let pools = server.json(&["pools"]);
        let copies = pools["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "copies")?;
        (copies["enabled"] == enabled).then_some(())
    });
}

#[test]
fn a_pool_that_is_disabled_drains_as_its_policy_says_and_serves_again() {
    for (policy, breaks) in [("drain = \"now\"", true), ("drain = \"1s\"", true), ("drain = \"wait\"", false)] {
        let server = serving(&copies_with(policy));
        let held = lease(&server, &[]);
        reload(&server, &copies_with(&format!("{policy}\nenabled = false")), false);
        if breaks {
            let broken = until_lease(&server, &held, "BROKEN");
            assert_eq!(
                broken["causes"].as_array().unwrap().last().unwrap()["reason"],
                "DISABLED",
                "{policy}: {broken}"
            );
        } else {
            until_state(&server, &resource_of(&held), "DRAINING");
            assert_eq!(server.json(&["get", &id(&held)])["state"], "ACTIVE");
            assert!(path_of(&held).join("hello.txt").exists());
        }
        // New requests wait; nothing fails.
        let waiting = server.json(&["lease", "--pool", "copies", "--ttl", "1h"])["lease"].clone();
        assert_eq!(waiting["state"], "QUEUED", "{policy}");
        if !breaks {
            release(&server, &held);
        }
        until_state(&server, &resource_of(&held), "GONE");
        assert_eq!(server.json(&["get", &id(&waiting)])["state"], "QUEUED", "{policy}");

        reload(&server, &copies_with(policy), true);
        let served = until_lease(&server, &waiting, "ACTIVE");
        assert!(path_of(&served).join("hello.txt").exists(), "{policy}");
    }
}

#[test]
fn a_drain_that_is_called_off_leaves_the_lease_and_its_copy_in_service() {
    let server = serving(LOCAL);
    let held = lease(&server, &[]);
    reload(&server, &copies_with("enabled = false"), false);
    until_state(&server, &resource_of(&held), "DRAINING");
    reload(&server, LOCAL, true);
    until_state(&server, &resource_of(&held), "READY");
    assert_eq!(server.json(&["get", &id(&held)])["state"], "ACTIVE");
    release(&server, &held);
    // While the slot is cleaned, who asks may get another copy first.
    let clean = || (server.json(&["get", &id(&held)])["cleaning"] == false).then_some(());
    server.wait("the slot to be clean", clean);
    assert_eq!(resource_of(&lease(&server, &[])), resource_of(&held));
}

#[test]
fn why_tells_notice_doubt_break_and_successor_in_order() {
    let server = local();
    let held = lease(&server, &["--replace"]);
    // A notice for the host belongs to the story of the lease on its copy.
    std::fs::write(server.folder.path().join("hosts/notice"), "at-risk a disk reports errors\n").unwrap();
    let host = server.json(&["resource", &resource_of(&held)])["parent_id"].as_str().unwrap().to_string();
    server.wait("the notice", || (!server.json(&["resource", &host])["at_risk"].is_null()).then_some(()));
    assert!(done(&server, &["resource", &host]).contains("a disk reports errors"));
    mangle(&path_of(&held));
    done(&server, &["report", &id(&held), "no repository"]);
    let broken = until_lease(&server, &held, "BROKEN");
    until_lease(&server, &serde_json::json!({ "id": broken["replacement_id"] }), "ACTIVE");
    server.wait("the copy to be mended or gone", || {
        let state = server.json(&["resource", &resource_of(&held)])["state"].clone();
        (state == "READY" || state == "GONE").then_some(())
    });

    let story = done(&server, &["why", &id(&held)]);
    let place = |role: &str, what: &str| {
        let line = story.lines().position(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first().is_some_and(|at| at.starts_with('+')) && words.get(2..4) == Some(&[role, what])
        });
        line.unwrap_or_else(|| panic!("no {role} {what} in\n{story}"))
    };
    let order = [
        place("lease", "lease.queued"),
        place("lease", "lease.active"),
        place("host", "resource.at-risk"),
        place("lease", "lease.reported"),
        place("resource", "resource.suspect"),
        place("lease", "lease.broken"),
        place("successor", "lease.active"),
    ];
    assert!(order.is_sorted(), "{order:?}\n{story}");
    assert!(place("resource", "resource.suspect") < place("successor", "lease.queued"), "{story}");
    assert!(story.contains(" +0.000 s") && story.contains("a disk reports errors"), "{story}");

    let told = server.json(&["why", &id(&held)]);
    let entries = told["entries"].as_array().unwrap();
    assert_eq!(
        (&entries[0]["since_first"], &entries[0]["role"]),
        (&Value::from("0s"), &Value::from("LEASE")),
        "{told}"
    );
    let kinds: Vec<&str> = entries.iter().map(|entry| entry["event"]["kind"].as_str().unwrap()).collect();
    assert!(!story.contains("warning") && kinds.len() + 2 == story.lines().count(), "{kinds:?}\n{story}");

    let nobody = server.cli(&["why", "res_00000000000000000000000000"]);
    assert!(!nobody.status.success() && nobody.stdout.is_empty(), "{}", text(&nobody));
}

#[test]
fn a_dry_run_counts_and_breaks_nothing() {
    let dry = LOCAL.to_string() + "[pool.doubt]\ndry_run = true\n";
    let server = serving(&dry);
    let held = lease(&server, &[]);
    mangle(&path_of(&held));
    done(&server, &["report", &id(&held), "no repository"]);
    let copy = server.wait("the evidence to be held back", || {
        Some(server.json(&["resource", &resource_of(&held)])).filter(|copy| !copy["held"].is_null())
    });
    assert_eq!(copy["state"], "SUSPECT", "{copy}");
    assert!(done(&server, &["resource", &resource_of(&held)]).contains("dry_run is set"));
    assert_eq!(server.json(&["get", &id(&held)])["state"], "ACTIVE");
    let explained = done(&server, &["explain", &id(&held)]);
    assert!(explained.contains("nothing follows from the evidence") && explained.contains("dry_run"), "{explained}");
    let shown = done(&server, &["pools"]);
    assert!(shown.contains("DRY RUN") && shown.contains("ended 1 resources and broken 1 leases"), "{shown}");
    let pools = server.json(&["pools"]);
    let copies = pools["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "copies").unwrap();
    let counted = &copies["counters"];
    assert_eq!((&counted["would_end"], &counted["would_break"]), (&Value::from(1), &Value::from(1)), "{copies}");
    assert_eq!((&counted["broken"], &counted["repairs"]), (&Value::from(0), &Value::from(0)), "{copies}");

    // Meant in earnest, the same evidence counts.
    server.configure("", LOCAL);
    server.reload();
    until_lease(&server, &held, "BROKEN");
}

#[test]
fn work_that_fails_everywhere_is_to_blame_and_run_says_so() {
    let pools = LOCAL
        .replace("slots = 4\nmin_ready = 1", "slots = 1\nmax = 2")
        .replace("max = 2\n[pool.copies]", "max = 2\nmax_per_parent = 1\n[pool.copies]");
    let server = serving(&pools);
    let fails = |server: &Server| {
        let output = server.cli(&["run", "--pool", "copies", "--work", "nightly@1234", "--", "false"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        String::from_utf8_lossy(&output.stderr).to_string()
    };
    let first = lease(&server, &[]);
    // On the other of the two, each on a host of its own.
    let once = fails(&server);
    assert!(!once.contains("whose fault"), "one failure tells nothing: {once}");
    let second = lease(&server, &[]);
    assert_ne!(resource_of(&first), resource_of(&second));
    release(&server, &first);
    let failures = server.json(&["resource", &resource_of(&second)])["failures"].clone();
    assert_eq!((&failures[0]["work"], &failures[0]["cleared"]), (&Value::from("nightly@1234"), &Value::from(true)));
    assert!(done(&server, &["resource", &resource_of(&second)]).contains("nightly@1234"), "{failures}");

    let twice = fails(&server);
    let line = twice.lines().find(|line| line.contains("whose fault: ")).unwrap_or_else(|| panic!("{twice}"));
    assert!(line.starts_with("wharfinger: whose fault: WORK: ") && line.contains("nightly@1234"), "{line}");
    // Both failures are put down to it, and both copies are cleared.
    let leases = server.json(&["ls", "--all", "--pool", "copies"]);
    let leases: Vec<&Value> =
        leases["leases"].as_array().unwrap().iter().filter(|lease| lease["work"] == "nightly@1234").collect();
    assert_eq!(leases.len(), 2);
    for lease in leases {
        assert_eq!(lease["finding"]["fault"], "WORK", "{lease}");
        assert!(done(&server, &["get", &id(lease)]).contains("whose fault"), "{lease}");
    }
    for copy in [&first, &second] {
        assert_eq!(server.json(&["resource", &resource_of(copy)])["failures"], serde_json::json!([]));
    }
}

#[test]
fn a_command_whose_work_is_to_blame_is_not_run_again() {
    let pools = LOCAL.replace("[pool.copies]", "[pool.doubt]\nrepairs = 0\n[pool.copies]");
    let server = serving(&pools);
    let run = |more: &[&str]| {
        let mut args = vec!["run", "--pool", "copies", "--retries", "4"];
        args.extend(more);
        args.extend(["--", "sh", "-c", "rm -rf .git; exit 3"]);
        let output = server.cli(&args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).to_string())
    };
    let (code, said) = run(&["--work", "poison@1"]);
    assert_eq!(code, Some(3), "it exits as the command failed: {said}");
    assert!(said.contains("the work is to blame") && said.contains("WORK_BLAMED"), "{said}");
    assert_eq!(said.matches("trying again elsewhere").count(), 2, "the third copy is enough: {said}");
    // Work without a name is never blamed: it is tried as often as was asked for.
    let (code, said) = run(&[]);
    assert_eq!(code, Some(75), "{said}");
    assert!(!said.contains("WORK_BLAMED"), "{said}");
}
