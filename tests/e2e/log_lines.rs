//! The log of a server as an operator greps it, and the secrets that are in none of its lines.

use crate::hosts::pools;
use crate::sshd::{Sshd, skip};
use crate::support::{LOCAL, Server, text};
use serde_json::Value;

/// The lines of a log that are about a lease, as JSON. All lines that name it are JSON.
fn lines_of(server: &Server, lease: &str) -> Vec<Value> {
    let log = server.log();
    let named = log.lines().filter(|line| line.contains(lease));
    let named = named.map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    named.filter(|line| line["lease"] == lease).collect()
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["kind"].as_str()).collect()
}

#[test]
fn a_grep_for_a_lease_gives_its_history_in_the_texts_of_its_events() {
    if skip("a_grep_for_a_lease_gives_its_history_in_the_texts_of_its_events") {
        return;
    }
    let mut a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let one_slot = pools(&[("a", &a)], work.path()).replace("slots = 2", "slots = 1");
    let server = Server::start_with("[log]\nformat = \"json\"", &one_slot);
    let lease = |holder: &str, wait: &str| {
        let leased = server.json(&["lease", "--pool", "hosts", "--ttl", "10m", "--wait", wait, "--holder", holder]);
        leased["lease"]["id"].as_str().unwrap().to_owned()
    };
    let first = lease("first", "60s");
    let second = lease("second", "0s");
    assert!(server.cli(&["release", &first, "--outcome", "failed", "--note", "tests fail"]).status.success());
    server.wait("the second lease", || (server.json(&["get", &second])["state"] == "ACTIVE").then_some(()));
    a.kill_hard();
    server.wait("the break", || (server.json(&["get", &second])["state"] == "BROKEN").then_some(()));
    server.wait("its line", || kinds(&lines_of(&server, &second)).contains(&"lease.broken").then_some(()));

    // Each line of the log is JSON, and those of a lease are its entries in the trail, in order.
    for (id, end) in [(&first, "lease.released"), (&second, "lease.broken")] {
        let events = server.json(&["events", "--lease", id, "--limit", "1000"]);
        let events = events.as_array().cloned().unwrap_or_else(|| events["events"].as_array().unwrap().clone());
        let mut entries: Vec<(u64, String)> = events
            .iter()
            .map(|event| {
                let revision = &event["revision"];
                let revision = revision.as_u64().or_else(|| revision.as_str()?.parse().ok()).unwrap();
                (revision, event["kind"].as_str().unwrap().to_owned())
            })
            .collect();
        entries.sort();
        let mut logged: Vec<(u64, String)> = lines_of(&server, id)
            .iter()
            .filter_map(|line| Some((line["revision"].as_u64()?, line["kind"].as_str()?.to_owned())))
            .collect();
        logged.sort();
        assert_eq!(logged, entries, "{id}");
        let lines = lines_of(&server, id);
        let last = lines.iter().find(|line| line["kind"] == end).unwrap();
        assert_eq!((&last["pool"], &last["machine"]), (&"hosts".into(), &"a".into()), "{last}");
        assert!(last["resource"].as_str().unwrap().starts_with("res_"), "{last}");
        assert_eq!(last["lease"].as_str(), Some(id.as_str()));
    }
    let story = lines_of(&server, &second);
    let kinds = kinds(&story);
    let place = |kind: &str| kinds.iter().position(|one| *one == kind).unwrap_or_else(|| panic!("{kind}: {kinds:?}"));
    assert!(place("lease.queued") < place("lease.preparing"), "{kinds:?}");
    assert!(place("lease.preparing") < place("lease.active"), "{kinds:?}");
    assert!(place("lease.active") < place("lease.broken"), "{kinds:?}");
    let broken = &story[story.iter().position(|line| line["kind"] == "lease.broken").unwrap()];
    assert_eq!(broken["message"], "lease broken");
    assert!(!broken["reason"].as_str().unwrap_or_default().is_empty(), "a stable reason: {broken}");
    let released = lines_of(&server, &first);
    let released = released.iter().find(|line| line["kind"] == "lease.released").unwrap();
    assert_eq!(released["reason"], "FAILED", "{released}");
}

#[test]
fn the_level_of_the_log_changes_while_the_server_runs() {
    let server = Server::start_with("[log]\nlevel = \"warn\"", LOCAL);
    let run = || {
        let ran = server.cli(&["run", "-q", "--pool", "hosts", "--", "true"]);
        assert!(ran.status.success(), "{}", text(&ran));
    };
    run();
    assert!(!server.log().contains("lease released"), "{}", server.log());
    server.configure("[log]\nlevel = \"info\"", LOCAL);
    server.reload();
    server.wait("the new filter", || server.log().contains("the filter of the log has changed").then_some(()));
    run();
    server.wait("the story", || server.log().contains("lease released").then_some(()));
    // A mistake changes nothing.
    server.configure("[log]\nlevel = \"loud\"", LOCAL);
    server.reload();
    server.wait("the refusal", || server.log().contains("it has mistakes; the one before stays").then_some(()));
    let before = server.log().matches("lease released").count();
    run();
    server.wait("more of it", || (server.log().matches("lease released").count() > before).then_some(()));
    server.configure("[log]\nlevel = \"info,wharfinger::trail=warn\"", LOCAL);
    server.reload();
    server.wait("another filter", || {
        (server.log().matches("the filter of the log has changed").count() == 2).then_some(())
    });
    let before = server.log().matches("lease released").count();
    run();
    assert_eq!(server.log().matches("lease released").count(), before);
}

/// A private key that holders get, and the token of a caller: at the finest level of the log, and in what hooks send.
#[test]
fn no_secret_is_in_a_log_or_a_message_of_a_hook() {
    if skip("no_secret_is_in_a_log_or_a_message_of_a_hook") {
        return;
    }
    let mut a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let mut server = Server::prepared("w.db");
    let made = server.json(&["token", "new", "ci", "--tenant", "web", "--role", "admin", "--expires", "never"]);
    let (token, caller) = (made["token"].as_str().unwrap(), made["configuration"].as_str().unwrap());
    let out = server.folder.path().join("hook.out");
    let head = format!(
        "{caller}\n[log]\nlevel = \"trace\"\nformat = \"json\"\n[[hook]]\nname = \"all\"\nformat = \"command\"\nkinds = [\"*\"]\n\
         command = [\"/bin/sh\", \"-c\", \"cat >> \\\"$0\\\"\", \"{}\"]\n",
        out.display()
    );
    server.configure(&head, &pools(&[("a", &a)], work.path()));
    server.spawn();
    let cli = |args: &[&str]| server.command(args).env("WHARFINGER_AUTH_TOKEN", token).output().unwrap();
    server.wait("the server to answer", || cli(&["pools"]).status.success().then_some(()));
    let leased = cli(&["lease", "--pool", "hosts", "--ttl", "10m", "--wait", "60s", "--json"]);
    let leased: Value = serde_json::from_slice(&leased.stdout).unwrap();
    assert!(leased["lease"].to_string().contains("PRIVATE KEY"), "the holder has the key");
    a.kill_hard();
    let id = leased["lease"]["id"].as_str().unwrap().to_owned();
    let told = || std::fs::read_to_string(&out).unwrap_or_default();
    server.wait("the break to be told", || told().contains("lease.broken").then_some(()));
    let (log, told) = (server.log(), told());
    assert!(log.contains("\"TRACE\"") && log.contains(&id) && told.contains(&id));
    let key = std::fs::read_to_string(a.key()).unwrap();
    let secrets: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).chain([token]).collect();
    assert!(secrets.len() > 3, "{secrets:?}");
    for secret in secrets {
        assert!(!log.contains(secret) && !told.contains(secret), "a secret is told: {secret}");
    }
}
