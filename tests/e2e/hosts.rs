//! Real SSH hosts: leased, run on, refused, lost.

use crate::sshd::{Sshd, skip};
use crate::support::{Server, repository, text};
use std::process::Stdio;

/// A host of the inventory.
fn host(name: &str, sshd: &Sshd) -> String {
    format!(
        "[[pool.ssh.host]]\nname = \"{name}\"\naddress = \"{}\"\nport = {}\nuser = \"{}\"\nkey = \"{}\"\nhost_key = \"{}\"\n",
        sshd.address,
        sshd.port,
        sshd.user,
        sshd.key().display(),
        sshd.host_key()
    )
}

/// A pool of these hosts, and copies on them.
pub(crate) fn pools(sshd: &[(&str, &Sshd)], work: &std::path::Path) -> String {
    let key = sshd[0].1.key();
    let hosts: String = sshd.iter().map(|(name, sshd)| host(name, sshd)).collect();
    format!(
        r#"
[[pool]]
name = "hosts"
adapter = "ssh"
slots = 2
[pool.doubt]
probe_interval = "1s"
retry_interval = "200ms"
misses = 3
over = "600ms"
[pool.ssh]
work_dir = "{work}"
holder_key = "{key}"
{hosts}
[[pool]]
name = "copies"
adapter = "copies"
on = "hosts"
max = 4
[pool.copies]
repository = "{{folder}}/origin"
"#,
        work = work.display(),
        key = key.display()
    )
}

/// A server whose repository is made before it starts.
fn serve(sshd: &[(&str, &Sshd)], work: &std::path::Path) -> Server {
    let server = Server::start(&pools(sshd, work));
    repository(&server.folder.path().join("origin"));
    server
}

#[test]
fn lease_run_release_on_a_real_sshd() {
    if skip("lease_run_release_on_a_real_sshd") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], work.path());
    let output = server.cli(&["run", "--pool", "copies", "--", "sh", "-c", "cat hello.txt; echo $WHARFINGER_TOKEN"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let printed = String::from_utf8_lossy(&output.stdout).to_string();
    let mut lines = printed.lines();
    assert_eq!(lines.next(), Some("hello"));
    assert!(lines.next().is_some_and(|token| token.parse::<u64>().is_ok_and(|token| token > 0)), "{printed}");
}

#[test]
fn a_wrong_host_key_is_never_trusted_and_the_lease_waits() {
    if skip("a_wrong_host_key_is_never_trusted_and_the_lease_waits") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let config = pools(&[("a", &a)], work.path()).replace(&a.host_key(), &a.other_host_key());
    let server = Server::start(&config);
    waits_with(&server, "HOST_KEY_MISMATCH");
}

#[test]
fn a_wrong_key_is_reported_and_the_lease_waits() {
    if skip("a_wrong_key_is_reported_and_the_lease_waits") {
        return;
    }
    let a = Sshd::start();
    a.revoke(true);
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], work.path());
    waits_with(&server, "AUTH_FAILED");
    // The operator mends it; no other act is needed.
    a.revoke(false);
    let lease = server.json(&["ls"])["leases"][0]["id"].as_str().unwrap().to_string();
    server.wait("the lease to be served", || (server.json(&["get", &lease])["state"] == "ACTIVE").then_some(()));
}

/// A lease on the pool waits, and `explain` names the trouble.
fn waits_with(server: &Server, reason: &str) {
    let lease = server.json(&["lease", "--pool", "hosts", "--holder", "test"]);
    let id = lease["lease"]["id"].as_str().unwrap().to_string();
    server.wait(&format!("explain to say {reason}"), || {
        let explained = server.json(&["explain", &id]);
        explained.to_string().contains(reason).then_some(())
    });
    assert_eq!(server.json(&["get", &id])["state"], "QUEUED");
}

#[test]
fn a_host_dies_under_a_build_and_the_build_is_retried_on_the_other() {
    if skip("a_host_dies_under_a_build_and_the_build_is_retried_on_the_other") {
        return;
    }
    let (mut a, mut b) = (Sshd::start(), Sshd::start());
    // Each lets in the key of the first: the pool has one key for holders.
    let all = std::fs::read_to_string(a.key().with_extension("pub")).unwrap();
    let own = b.folder().join("authorized_keys");
    let both = format!("{}{all}", std::fs::read_to_string(&own).unwrap());
    std::fs::write(&own, both).unwrap();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a), ("b", &b)], work.path());
    server.wait_for_state("hosts", "READY", 2);

    let marker = server.folder.path().join("tries");
    let script = format!("echo try >> {0}; test $(wc -l < {0}) -ge 2 || exec sleep 300", marker.display());
    let mut run = server
        .command(&["run", "--pool", "copies", "--retries", "3", "--work", "job 7", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.wait("the first try to run", || marker.exists().then_some(()));
    let leases = server.json(&["ls"]);
    let build = leases["leases"].as_array().unwrap().iter().find(|l| l["pool"] == "copies").unwrap().clone();
    let copy = server.json(&["resource", build["resource_id"].as_str().unwrap()]);
    let host = server.json(&["resource", copy["parent_id"].as_str().unwrap()]);
    let killed = if host["item"] == "a" { &mut a } else { &mut b };
    killed.kill_hard();

    let code = server.wait("the run to end", || run.try_wait().unwrap());
    let output = run.wait_with_output().unwrap();
    assert!(code.success(), "{}", text(&output));

    // The lease, the copy and its lease on the host broke in the commit in which the host was given up.
    let id = build["id"].as_str().unwrap();
    let broken = server.json(&["get", id]);
    // Also if the connection of the holder broke first: it keeps the lease until the server has decided.
    assert_eq!(broken["state"], "BROKEN", "{broken}\n{}", text(&output));
    let subjects: Vec<_> = broken["causes"].as_array().unwrap().iter().map(|c| c["subject"].clone()).collect();
    assert_eq!(subjects.first(), Some(&copy["id"]), "the nearest cause is the copy: {broken}");
    assert!(subjects.contains(&host["id"]), "the chain leads to the host: {broken}");
    let told = text(&output).to_string();
    let item = host["item"].as_str().unwrap();
    assert!(told.contains(&format!("ACTIVE on hosts/{item} (")), "{told}");
    assert!(told.contains(&format!("lease {id} on hosts/{item} ({}) BROKEN", copy["id"].as_str().unwrap())), "{told}");
    let link = format!("attempt 2 of 4, the first was {id}");
    assert!(told.contains(&link), "{told}");
    let attempts = server.cli(&["why", "--work", "job 7"]);
    let listed = String::from_utf8_lossy(&attempts.stdout).to_string();
    assert!(listed.contains(id) && listed.contains("2 of 4, the first was") && listed.contains("BROKEN"), "{listed}");
    server.wait("the copy on the dead host to be gone", || {
        let state = server.json(&["resource", copy["id"].as_str().unwrap()])["state"].clone();
        (state == "GONE").then_some(())
    });
    let events = server.json(&["events", "--resource", host["id"].as_str().unwrap(), "--limit", "1000"]);
    let text = events.to_string();
    assert!(text.contains("CONNECTION_LOST"), "pushed, not polled: {text}");
    assert!(text.contains("RESOURCE_UNREACHABLE"), "given up by evidence: {text}");
}

#[test]
fn a_watcher_gets_the_break_with_its_cause() {
    if skip("a_watcher_gets_the_break_with_its_cause") {
        return;
    }
    let mut a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], work.path());
    let lease =
        server.json(&["lease", "--pool", "copies", "--wait", "60s", "--holder", "test", "--ttl", "10m"])["lease"]
            .clone();
    assert_eq!(lease["state"], "ACTIVE", "{lease}");
    let id = lease["id"].as_str().unwrap();
    let watch = server
        .command(&["--json", "watch", id, "--until-ended"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    a.kill_hard();
    let output = watch.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let told = String::from_utf8_lossy(&output.stdout).to_string();
    let last = told.lines().rfind(|line| line.contains("BROKEN")).unwrap_or_else(|| panic!("no break: {told}"));
    assert!(last.contains("PARENT_GONE") && last.contains("RESOURCE_UNREACHABLE"), "{last}");
    // One commit: all that broke with the host carries neighbouring revisions and one time.
    let events = server.json(&["events", "--limit", "1000"]);
    let all = events["events"].as_array().unwrap().clone();
    let broken = all.iter().find(|e| e["kind"] == "lease.broken" && e["lease_id"] == lease["id"]).unwrap();
    let lost = all.iter().filter(|e| e["kind"] == "resource.destroying" && e["at"] == broken["at"]).count();
    assert!(lost >= 2, "the host and the copy went at the time of the break: {events:#}");
}

/// A lease on a copy on the one host, and its watch until it ends.
fn held(server: &Server) -> (serde_json::Value, std::process::Child) {
    let args = ["lease", "--pool", "copies", "--wait", "60s", "--holder", "test", "--ttl", "10m"];
    let lease = server.json(&args)["lease"].clone();
    assert_eq!(lease["state"], "ACTIVE", "{lease}");
    let watch = server
        .command(&["--json", "watch", lease["id"].as_str().unwrap(), "--until-ended"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (lease, watch)
}

#[test]
fn a_host_that_hangs_is_given_up_by_evidence() {
    if skip("a_host_that_hangs_is_given_up_by_evidence") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], work.path());
    let (_, watch) = held(&server);
    a.stop();
    let output = watch.wait_with_output().unwrap();
    a.go_on();
    let told = String::from_utf8_lossy(&output.stdout).to_string();
    let last = told.lines().rfind(|line| line.contains("BROKEN")).unwrap_or_else(|| panic!("no break: {told}"));
    assert!(last.contains("RESOURCE_UNREACHABLE") && last.contains("times in a row"), "{last}");
    // It comes back, and serves again without a hand.
    server.wait_for_state("hosts", "READY", 1);
    let output = server.cli(&["run", "--pool", "copies", "--", "cat", "hello.txt"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn another_machine_at_the_same_address_is_not_the_host_that_was_leased() {
    if skip("another_machine_at_the_same_address_is_not_the_host_that_was_leased") {
        return;
    }
    let mut a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], work.path());
    let (_, watch) = held(&server);
    a.restart_with_new_host_key();
    let output = watch.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).to_string();
    let last = told.lines().rfind(|line| line.contains("BROKEN")).unwrap_or_else(|| panic!("no break: {told}"));
    assert!(last.contains("HOST_REPLACED"), "{last}");
    waits_with(&server, "HOST_KEY_MISMATCH");
}

#[test]
fn a_login_that_is_refused_is_the_operators_to_mend_and_breaks_nothing() {
    if skip("a_login_that_is_refused_is_the_operators_to_mend_and_breaks_nothing") {
        return;
    }
    let mut a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], work.path());
    let (lease, mut watch) = held(&server);
    let id = lease["id"].as_str().unwrap();
    a.revoke(true);
    a.kill_hard();
    a.run();
    server.wait("the check to be refused", || {
        server.json(&["resources"]).to_string().contains("AUTH_FAILED").then_some(())
    });
    let suspect = server.wait_for_state("hosts", "SUSPECT", 1);
    assert_eq!(server.json(&["get", id])["state"], "ACTIVE", "{suspect:?}");
    a.revoke(false);
    server.wait_for_state("hosts", "READY", 1);
    assert_eq!(server.json(&["get", id])["state"], "ACTIVE", "it was never lost");
    watch.kill().unwrap();
    watch.wait().unwrap();
}
