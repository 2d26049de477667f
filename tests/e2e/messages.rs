//! Messages for people: why a lease waited in vain, and the log of the server.

use crate::hosts::pools;
use crate::sshd::{Sshd, skip};
use crate::support::{Server, text};

#[test]
fn a_lease_that_waited_in_vain_says_that_the_host_refused_the_key() {
    if skip("a_lease_that_waited_in_vain_says_that_the_host_refused_the_key") {
        return;
    }
    let a = Sshd::start();
    a.revoke(true);
    let work = tempfile::tempdir().unwrap();
    let server = Server::start(&pools(&[("a", &a)], work.path()));
    // The trouble is known before the lease gives up.
    server.wait("the refusal", || server.json(&["pools"]).to_string().contains("AUTH_FAILED").then_some(()));

    let output = server.cli(&["lease", "--pool", "hosts", "--queue-for", "500ms", "--wait", "60s"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("as long as it was asked to: pool hosts:"), "{said}");
    assert!(said.contains("AUTH_FAILED") && said.contains("(PROVISIONING)"), "{said}");
}

/// Each change is one line with the ids as fields.
#[test]
fn a_hosts_death_under_a_lease_leaves_its_lines_in_the_log() {
    if skip("a_hosts_death_under_a_lease_leaves_its_lines_in_the_log") {
        return;
    }
    let mut a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = Server::start(&pools(&[("a", &a)], work.path()));
    let leased = server.json(&["lease", "--pool", "hosts", "--replace", "--ttl", "10m", "--wait", "60s"]);
    let lease = &leased["lease"];
    let (id, host) = (lease["id"].as_str().unwrap(), lease["resource_id"].as_str().unwrap());
    a.kill_hard();
    let broken = server.wait("the break", || {
        let now = server.json(&["get", id]);
        (now["state"] == "BROKEN").then_some(now)
    });
    let replacement = broken["replacement_id"].as_str().unwrap();

    let lines = |message: &str, fields: &[String]| {
        let log = server.log();
        let found = |line: &&str| line.contains(" INFO ") && line.contains(message);
        log.lines().filter(found).filter(|line| fields.iter().all(|field| line.contains(field))).count()
    };
    let (on_host, of_lease) = (format!("resource={host}"), format!("lease={id}"));
    for (message, fields) in [
        ("resource launched", vec!["pool=\"hosts\"".to_owned(), on_host.clone()]),
        ("resource in doubt", vec![on_host.clone(), "detail=".to_owned()]),
        ("resource lost", vec![on_host.clone(), "detail=".to_owned()]),
        ("lease broken", vec![of_lease, on_host]),
        ("replacement queued", vec![format!("lease={replacement}"), format!("replaces={id}")]),
    ] {
        // The lines of one commit are written one after the other.
        server.wait(&format!("the line: {message}"), || (lines(message, &fields) > 0).then_some(()));
        assert_eq!(lines(message, &fields), 1, "{message} {fields:?}");
    }
}
