//! Agents as processes of their own, whose sessions keep their leases: killed, frozen, and under a server that dies.

use crate::support::{Server, signal};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const HOSTS: &str = r#"
[limits]
grace = "1s"
[[pool]]
name = "hosts"
adapter = "local"
slots = 4
min_ready = 1
[pool.local]
root = "{folder}/hosts"
"#;

/// An agent: `wharfinger keep`, for as long as this test runs.
struct Agent {
    child: Child,
    lease: String,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Agent {
    /// A lease with this TTL, and an agent whose session keeps it.
    fn start(server: &Server, ttl: &str) -> Agent {
        let lease = server.json(&["lease", "--pool", "hosts", "--ttl", ttl, "--wait", "30s"]);
        let lease = lease["lease"]["id"].as_str().unwrap().to_owned();
        let pid = std::process::id().to_string();
        let mut command = server.command(&["keep", &lease, "--pid", &pid]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let agent = Agent { child, lease };
        server.wait("the session to keep the lease", || (!agent.row(server)["session_id"].is_null()).then_some(()));
        assert!(agent.row(server)["expires_at"].is_null(), "it has no TTL of its own");
        agent
    }

    fn row(&self, server: &Server) -> serde_json::Value {
        server.json(&["get", &self.lease])
    }

    fn state(&self, server: &Server) -> String {
        self.row(server)["state"].as_str().unwrap().to_owned()
    }
}

/// The kinds of the entries of the audit trail on sessions.
fn entries(server: &Server) -> Vec<String> {
    let events = server.json(&["events", "--limit", "1000"]);
    let mut events: Vec<(u64, String)> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["revision"].as_u64().unwrap(), event["kind"].as_str().unwrap().to_owned()))
        .collect();
    events.sort();
    events.into_iter().map(|(_, kind)| kind).filter(|kind| kind.starts_with("session.")).collect()
}

/// Watches in this process: a call of the command line takes longer than what is measured.
async fn until(address: &str, lease: &str, mut wanted: impl FnMut(&wharfinger::pb::Lease) -> bool) -> Instant {
    let client = wharfinger::client::Client::connect(address).await.unwrap();
    let request = wharfinger::pb::WatchRequest { lease_ids: vec![lease.to_owned()], ..Default::default() };
    let mut watch = client.watch(request);
    loop {
        if let wharfinger::client::Watched::Lease(lease) = watch.next().await.unwrap()
            && wanted(&lease)
        {
            return Instant::now();
        }
    }
}

/// Waits in a thread until a lease is so.
fn watched(
    server: &Server,
    agent: &Agent,
    wanted: impl Fn(&wharfinger::pb::Lease) -> bool + Send + 'static,
) -> std::thread::JoinHandle<Instant> {
    let (address, lease) = (server.address.clone(), agent.lease.clone());
    let (ready, begun) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut first = Some(ready);
        runtime.block_on(until(&address, &lease, move |row| {
            // The watch runs: it has shown the present state.
            if let Some(ready) = first.take() {
                let _ = ready.send(());
            }
            wanted(row)
        }))
    });
    begun.recv().unwrap();
    thread
}

#[test]
fn the_leases_of_a_killed_agent_are_in_doubt_at_once_and_end_after_the_grace() {
    let server = Server::start(HOSTS);
    let mut agent = Agent::start(&server, "4s");
    let doubted = watched(&server, &agent, |row| row.holder_doubt_since.is_some());
    let killed = Instant::now();
    agent.child.kill().unwrap();
    let doubt = doubted.join().unwrap() - killed;
    println!("in doubt {doubt:?} after the agent was killed");
    // 50 ms on a quiet machine: docs/scale.md. Other processes may take the cores here.
    assert!(doubt < Duration::from_secs(2), "{doubt:?}");
    assert_eq!(agent.state(&server), "ACTIVE", "doubt ends nothing");
    server.wait("the lease to end", || (agent.state(&server) == "EXPIRED").then_some(()));
    let ended = killed.elapsed();
    println!("EXPIRED {ended:?} after the agent was killed, with a grace of 4 s");
    assert!(ended >= Duration::from_secs(4), "{ended:?}");
    assert_eq!(entries(&server), ["session.opened", "session.doubt", "session.lost"]);
}

#[test]
fn the_leases_of_a_frozen_agent_end_by_the_ttl_of_its_session() {
    let server = Server::start(HOSTS);
    let agent = Agent::start(&server, "4s");
    let expired = watched(&server, &agent, |row| row.ended_at.is_some());
    let frozen = Instant::now();
    signal(agent.child.id(), "STOP");
    let ended = expired.join().unwrap() - frozen;
    println!("EXPIRED {ended:?} after the agent was stopped, with a TTL of 4 s");
    // The last heartbeat was at most a third of the TTL before.
    assert!(ended >= Duration::from_millis(2500), "{ended:?}");
    assert_eq!(agent.state(&server), "EXPIRED");
    assert_eq!(entries(&server), ["session.opened", "session.lost"], "its stream was open all the time");
    // An agent that wakes up finds its lease lost.
    signal(agent.child.id(), "CONT");
    let mut agent = agent;
    let status = agent.child.wait().unwrap();
    assert_eq!(status.code(), Some(75), "{status:?}");
}

#[test]
fn a_session_is_resumed_with_nothing_lost_after_the_server_was_killed() {
    let mut server = Server::start(HOSTS);
    let agents = [Agent::start(&server, "3s"), Agent::start(&server, "3s")];
    let rows = agents.each_ref().map(|agent| agent.row(&server));
    for _ in 0..2 {
        server.kill();
        server.run();
        let back = Instant::now();
        // Twice the TTL: each lease would be over by then without heartbeats.
        server.wait("twice the TTL", || (back.elapsed() > Duration::from_secs(6)).then_some(()));
        for (agent, row) in agents.iter().zip(&rows) {
            let now = agent.row(&server);
            assert_eq!((&now["state"], &now["session_id"]), (&row["state"], &row["session_id"]), "{}", server.log());
            assert_eq!(now["fencing_token"], row["fencing_token"]);
        }
    }
    let entries = entries(&server);
    assert!(!entries.iter().any(|kind| kind == "session.lost"), "{entries:?}");
    assert_eq!(entries.iter().filter(|kind| *kind == "session.resumed").count(), 4, "{entries:?}");
}

#[test]
fn a_run_that_ends_leaves_no_doubt() {
    let server = Server::start(HOSTS);
    for (command, code) in [("true", 0), ("false", 1), ("false", 1), ("true", 0), ("false", 1)] {
        let output = server.cli(&["run", "--pool", "hosts", "--", command]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    server.wait("each session to be closed", || {
        (entries(&server).iter().filter(|kind| *kind == "session.closed").count() == 5).then_some(())
    });
    let entries = entries(&server);
    assert!(!entries.iter().any(|kind| kind == "session.doubt"), "{entries:?}");
}
