//! No two writers: a holder's process that will not end does not write any more when the next holder's begins.

use crate::farm::{Farm, Settings, send};
use crate::sshd::{Sshd, skip};
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use wharfinger::pb;
use wharfinger::pb::LeaseState;

/// Two builds on one copy, or on one host: the first writes until it is ended, and does not want to end; the second waits
/// for what the first has. Each line of the log, which lies outside of it, is the fencing token of who wrote it.
struct Builds {
    farm: Farm,
    first: Child,
    second: Child,
    lease: pb::Lease,
}

impl Drop for Builds {
    fn drop(&mut self) {
        for child in [&mut self.first, &mut self.second] {
            send(child.id(), Signal::KILL);
            let _ = child.wait();
        }
        // Where the broker failed to end them, we do not leave them running.
        processes_of(&self.lease.id).into_iter().for_each(|pid| send(pid, Signal::KILL));
    }
}

impl Builds {
    /// Both build in this pool. Until both are under way.
    fn start(pool: &str) -> Self {
        let farm = Farm::start(vec![Sshd::start()], Settings::default());
        let first = writer(&farm, pool, "first", 1_000_000);
        farm.server.wait("the first build to write", || (lines(&farm).len() > 20).then_some(()));
        let lease = held_by(&farm, "first");
        assert_eq!(lease.state(), LeaseState::Active);
        let second = writer(&farm, pool, "second", 200);
        farm.server.wait("the second build to wait", || {
            let leases = farm.server.json(&["ls", "--state", "queued"]);
            (leases["leases"].as_array().unwrap().len() == 1).then_some(())
        });
        Self { farm, first, second, lease }
    }

    /// The second build runs to its end on the same copy, and the first wrote nothing since it began.
    fn one_after_the_other(&mut self) {
        let farm = &self.farm;
        let second = &mut self.second;
        let ended = farm.server.wait("the second build to end", || second.try_wait().unwrap());
        assert!(ended.success(), "{ended:?}");
        let next = held_by(farm, "second");
        assert_eq!(next.resource_id, self.lease.resource_id, "the same copy, or host");
        let (old, new) = (self.lease.fencing_token.to_string(), next.fencing_token.to_string());
        assert!(next.fencing_token > self.lease.fencing_token);
        let lines = lines(farm);
        let begins = lines.iter().position(|line| *line == new).unwrap();
        assert!(lines[..begins].iter().all(|line| *line == old), "a third writer: {lines:?}");
        assert_eq!(lines[begins..].iter().filter(|line| **line == new).count(), 200);
        let late = lines[begins..].iter().filter(|line| **line != new).count();
        assert_eq!(late, 0, "lines of the old writer after the first of the new one");
        // And nothing is left of it, not even what left its process group.
        let left = processes_of(&self.lease.id);
        assert!(left.is_empty(), "{left:?}");
    }
}

fn log(farm: &Farm) -> PathBuf {
    farm.server.folder.path().join("written")
}

fn lines(farm: &Farm) -> Vec<String> {
    std::fs::read_to_string(log(farm)).unwrap_or_default().lines().map(String::from).collect()
}

fn held_by(farm: &Farm, holder: &str) -> pb::Lease {
    let request = pb::ListRequest {
        holders: vec![holder.into()],
        states: [LeaseState::Active, LeaseState::Released, LeaseState::Queued].map(i32::from).to_vec(),
        ..pb::ListRequest::default()
    };
    let found = farm.runtime.block_on(farm.client.list(request)).unwrap().leases;
    let id = found.first().unwrap_or_else(|| panic!("{holder} has no lease")).id.clone();
    // Its resource is shown only if it was active.
    farm.active(&id).lease
}

/// A build that writes its token a number of times, deaf to signals, with a child in a session of its own that writes too.
fn writer(farm: &Farm, pool: &str, holder: &str, times: u32) -> Child {
    let script = format!(
        "trap '' TERM HUP INT\n\
         write() {{ i=0; while [ $i -lt {times} ]; do echo $WHARFINGER_TOKEN >>{log}; i=$((i + 1)); sleep 0.01; done; }}\n\
         [ {times} -lt 1000 ] || setsid sh -c 'trap \"\" TERM HUP INT; while :; do echo $WHARFINGER_TOKEN >>{log}; sleep 0.01; done' &\n\
         write",
        log = log(farm).display()
    );
    let mut command: Command = farm.server.command(&["run", "--pool", pool, "--retries", "0", "--ttl", "3s"]);
    command
        .args(["--holder", holder, "--identity"])
        .arg(farm.hosts[0].key())
        .args(["--", "sh", "-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Processes on this machine of a lease, but for zombies. The client itself carries no such mark.
fn processes_of(lease: &str) -> Vec<u32> {
    let mark = format!("WHARFINGER_LEASE={lease}");
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter(|entry| {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[test]
fn a_lease_is_broken_by_an_operator_under_a_writer_that_will_not_end() {
    if skip("writers::a_lease_is_broken_by_an_operator_under_a_writer_that_will_not_end") {
        return;
    }
    let mut builds = Builds::start("copies");
    assert!(!processes_of(&builds.lease.id).is_empty());
    let broken = builds.farm.server.cli(&["break", &builds.lease.id, "--reason", "test"]);
    assert!(broken.status.success());
    builds.one_after_the_other();
    let first = &mut builds.first;
    let code = builds.farm.server.wait("the first run to end", || first.try_wait().unwrap());
    assert_eq!(code.code(), Some(75), "its holder was told");
}

#[test]
fn a_lease_is_broken_and_its_holder_hears_nothing_of_it() {
    if skip("writers::a_lease_is_broken_and_its_holder_hears_nothing_of_it") {
        return;
    }
    let mut builds = Builds::start("copies");
    // The agent hangs: its connection to the host stands, and its process there writes on.
    send(builds.first.id(), Signal::STOP);
    let broken = builds.farm.server.cli(&["break", &builds.lease.id, "--reason", "test"]);
    assert!(broken.status.success());
    builds.one_after_the_other();
}

#[test]
fn an_agent_is_killed_and_its_lease_expires_under_a_writer_that_will_not_end() {
    if skip("writers::an_agent_is_killed_and_its_lease_expires_under_a_writer_that_will_not_end") {
        return;
    }
    let mut builds = Builds::start("copies");
    send(builds.first.id(), Signal::KILL);
    builds.one_after_the_other();
    assert_eq!(builds.farm.get(&builds.lease.id).state(), LeaseState::Expired);
}

#[test]
fn an_agent_hangs_and_its_lease_expires_under_a_writer_that_will_not_end() {
    if skip("writers::an_agent_hangs_and_its_lease_expires_under_a_writer_that_will_not_end") {
        return;
    }
    let mut builds = Builds::start("copies");
    send(builds.first.id(), Signal::STOP);
    builds.one_after_the_other();
    assert_eq!(builds.farm.get(&builds.lease.id).state(), LeaseState::Expired);
}

#[test]
fn a_lease_on_a_host_itself_is_broken_and_its_holder_hears_nothing_of_it() {
    if skip("writers::a_lease_on_a_host_itself_is_broken_and_its_holder_hears_nothing_of_it") {
        return;
    }
    let mut builds = Builds::start("hosts");
    send(builds.first.id(), Signal::STOP);
    let broken = builds.farm.server.cli(&["break", &builds.lease.id, "--reason", "test"]);
    assert!(broken.status.success());
    builds.one_after_the_other();
}

#[test]
fn an_agent_on_a_host_itself_is_killed_and_its_lease_expires_under_a_writer_that_will_not_end() {
    if skip("writers::an_agent_on_a_host_itself_is_killed_and_its_lease_expires_under_a_writer_that_will_not_end") {
        return;
    }
    let mut builds = Builds::start("hosts");
    send(builds.first.id(), Signal::KILL);
    builds.one_after_the_other();
    assert_eq!(builds.farm.get(&builds.lease.id).state(), LeaseState::Expired);
}
