//! A clock that was two hours ahead and was set right: deadlines are kept all the same (invariant 19).
//!
//! libfaketime sets the wall clock of one process ahead. Its monotonic clocks stay right, as on a machine whose clock is set.

use crate::failover::Farm;
use crate::postgresql::shared;
use crate::support::{Server, text};
use std::path::Path;
use std::time::{Duration, Instant};

/// Leases of five seconds, with a short grace and short intervals of probes, so that deadlines come soon.
const POOLS: &str = r#"
[[pool]]
name = "hosts"
adapter = "local"
slots = 2
min_ready = 1
default_ttl = "5s"
[pool.doubt]
probe_interval = "1s"
[pool.local]
root = "{folder}/hosts"
"#;

const LIMITS: &str = "[limits]\ngrace = \"1s\"";

fn ahead(by: &str) -> Vec<(&'static str, String)> {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    assert!(Path::new(library).exists(), "this test needs libfaketime: apt-get install faketime");
    vec![
        ("LD_PRELOAD", library.into()),
        ("FAKETIME", by.into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_DONT_RESET", "1".into()),
    ]
}

fn leased(server: &Server) -> String {
    let lease = server.json(&["lease", "--pool", "hosts", "--holder", "test", "--wait", "20s"]);
    lease["lease"]["id"].as_str().unwrap_or_else(|| panic!("no lease: {lease}")).to_owned()
}

/// Seconds from now until this time, as a client sees it.
fn until(time: &serde_json::Value) -> i64 {
    let at: jiff::Timestamp = time.as_str().unwrap_or_else(|| panic!("no time: {time}")).parse().unwrap();
    at.duration_since(jiff::Timestamp::now()).as_secs()
}

#[test]
fn a_server_that_was_two_hours_ahead_once_goes_on_when_its_clock_is_right() {
    let mut server = Server::prepared("w.db");
    server.configure(LIMITS, POOLS);
    server.env = ahead("+2h");
    server.run();
    server.wait_for_state("hosts", "READY", 1);
    let lease = leased(&server);
    let expires = until(&server.json(&["get", &lease])["expires_at"]);
    assert!(expires > 7000, "the server's clock is ahead: {expires} s");
    assert!(server.stop().success());

    server.env.clear();
    let start = Instant::now();
    server.run();
    let row = server.json(&["get", &lease]);
    if row["state"] == "ACTIVE" {
        let expires = until(&row["expires_at"]);
        assert!(expires < 10, "clients see what is left: {expires} s");
    }
    server.wait("the expiry of a lease of five seconds", || {
        (server.json(&["get", &lease])["state"] == "EXPIRED").then_some(())
    });
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    // Operators see it as a warning of `pools`, a warning in the log, and a service of the health protocol.
    let pools = server.json(&["pools"]);
    let warning = pools["warnings"][0].as_str().unwrap_or_else(|| panic!("no warning: {pools}"));
    assert!(warning.contains("behind the time that the broker has stored"), "{warning}");
    let shown = text(&server.cli(&["pools"]));
    assert!(shown.contains("behind the time that the broker has stored"), "{shown}");
    assert!(server.log().contains("behind the time that the broker has stored"), "{}", server.log());
    assert!(!server.cli(&["health", "--service", "wharfinger.clock"]).status.success());
    assert!(server.cli(&["health"]).status.success(), "it serves nevertheless");

    // A probe finds that the host is gone. (The expiry of its lease led to a check, which passed.)
    let host = server.wait_for_state("hosts", "READY", 1)[0]["id"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(server.folder.path().join("hosts")).unwrap();
    server.wait("a probe to find that the host's folder is gone", || {
        let found = server.json(&["events", "--resource", &host]).to_string();
        found.contains("resource.repairing").then_some(())
    });
}

/// The leader's clock is two hours ahead and its time is in the database. The leader dies, and a server with a right clock
/// takes over.
#[test]
fn a_server_that_takes_over_from_one_that_was_ahead_does_what_is_due() {
    let Some(cluster) = shared() else { return };
    let hosts = tempfile::tempdir().unwrap();
    let pools = |_: &Server| POOLS.replace("{folder}", &hosts.path().display().to_string());
    let mut farm = Farm::empty();
    farm.add(cluster, LIMITS, &pools, ahead("+2h"));
    assert_eq!(farm.leader(), 0, "no other server leads, so one with a wrong clock does");
    farm.servers[0].wait_for_state("hosts", "READY", 1);
    let lease = leased(&farm.servers[0]);
    let expires = until(&farm.servers[0].json(&["get", &lease])["expires_at"]);
    assert!(expires > 7000, "the leader's clock is ahead: {expires} s");

    farm.add(cluster, LIMITS, &pools, Vec::new());
    farm.follows(1, 0);
    farm.servers[0].kill();
    assert_eq!(farm.leader(), 1);
    let next = &farm.servers[1];
    next.wait("the expiry of a lease of five seconds", || {
        (next.json(&["get", &lease])["state"] == "EXPIRED").then_some(())
    });
    let pools = next.json(&["pools"]);
    let warning = pools["warnings"][0].as_str().unwrap_or_else(|| panic!("no warning: {pools}"));
    assert!(warning.contains("behind the time that the broker has stored"), "{warning}");

    // The new leader probes: it finds that the host's folder is gone.
    let host = next.wait_for_state("hosts", "READY", 1)[0]["id"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(hosts.path().join("hosts")).unwrap();
    next.wait("a probe to find that the host's folder is gone", || {
        let found = next.json(&["events", "--resource", &host]).to_string();
        found.contains("resource.repairing").then_some(())
    });
}
