//! Several servers on one PostgreSQL: one leads, the others stand by, and take over when it dies, hangs, is cut off or stops.

use crate::kill::HOSTS;
use crate::postgresql::{Cluster, schema, shared};
use crate::proxy::{Mode, Proxy};
use crate::support::{PATIENCE, Server, signal, text};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long a lead lasts in these tests.
const LEAD: &str = "2s";

/// Servers that share a schema, each with its own way to the database.
struct Farm {
    servers: Vec<Server>,
    ways: Vec<Proxy>,
}

impl Farm {
    fn start(cluster: &Cluster, count: usize) -> Farm {
        let own = schema();
        let mut farm = Farm { servers: Vec::new(), ways: Vec::new() };
        // One place for all, as the same machines would be.
        let hosts = tempfile::tempdir().unwrap().keep();
        for _ in 0..count {
            let way = Proxy::start(cluster.port());
            let url = cluster.url().replace(&format!(":{}/", cluster.port()), &format!(":{}/", way.port()));
            let mut server = Server::prepared("unused");
            server.engine = Some(format!(
                "engine = \"postgres\"\nurl = \"{url}\"\nschema = \"{own}\"\nconnect_timeout = \"2s\"\n\
                 [cluster]\nadvertise = \"{}\"\nlead = \"{LEAD}\"",
                server.address
            ));
            server.configure("", &HOSTS.replace("{folder}", &hosts.display().to_string()));
            server.spawn();
            farm.servers.push(server);
            farm.ways.push(way);
        }
        farm.leader();
        farm
    }

    /// Waits until one leads, and says which.
    fn leader(&self) -> usize {
        self.leader_but(usize::MAX)
    }

    fn leader_but(&self, not: usize) -> usize {
        let start = Instant::now();
        loop {
            for (at, server) in self.servers.iter().enumerate() {
                if at != not && server.cli(&["pools"]).status.success() {
                    return at;
                }
            }
            assert!(start.elapsed() < PATIENCE, "nobody leads:\n{}", self.logs());
        }
    }

    fn logs(&self) -> String {
        self.servers.iter().map(|server| format!("---- {}\n{}", server.address, server.log())).collect()
    }

    /// Waits until this one says that another leads, and where.
    fn stands_by(&self, at: usize, leader: usize) {
        let start = Instant::now();
        let wanted = format!("the one at {} leads", self.servers[leader].address);
        loop {
            let output = self.servers[at].cli(&["pools"]);
            assert_ne!(output.status.code(), Some(0), "two lead:\n{}", self.logs());
            if text(&output).contains(&wanted) && text(&output).contains("NOT_LEADER") {
                assert_eq!(output.status.code(), Some(69), "{}", text(&output));
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{at} does not stand by: {}\n{}", text(&output), self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// An active lease, from this server.
    fn lease(&self, at: usize) -> serde_json::Value {
        let args = ["lease", "--pool", "hosts", "--ttl", "1h", "--wait", "30s"];
        let lease = self.servers[at].json(&args)["lease"].clone();
        assert_eq!(lease["state"], "ACTIVE", "{lease}\n{}", self.logs());
        lease
    }

    /// All of these leases are as they were granted.
    fn has(&self, at: usize, leases: &[serde_json::Value]) {
        for lease in leases {
            let now = self.servers[at].json(&["get", lease["id"].as_str().unwrap()]);
            for what in ["state", "access", "fencing_token", "resource_id", "slot"] {
                assert_eq!(now[what], lease[what], "{what} of {lease}\n{}", self.logs());
            }
        }
    }
}

/// For the notes: how long nobody led.
fn note(what: &str, without: Duration) {
    eprintln!("FAILOVER {what}: {} ms without a leader (a lead of {LEAD})", without.as_millis());
}

#[test]
fn a_leader_that_dies_is_followed_by_another() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 3);
    let mut leases = Vec::new();
    for round in 0..3 {
        let leader = farm.leader();
        for at in (0..3).filter(|at| *at != leader) {
            farm.stands_by(at, leader);
        }
        leases.push(farm.lease(leader));
        farm.servers[leader].kill();
        let start = Instant::now();
        let next = farm.leader();
        note("SIGKILL", start.elapsed());
        assert_ne!(next, leader);
        farm.has(next, &leases);
        farm.servers[leader].spawn();
        if round == 0 {
            // What was leased before may be given back after.
            let id = leases.pop().unwrap()["id"].as_str().unwrap().to_string();
            assert!(farm.servers[next].cli(&["release", &id]).status.success());
        }
    }
    let tokens: std::collections::BTreeSet<u64> = leases
        .iter()
        .map(|lease| {
            lease["fencing_token"]
                .as_str()
                .map_or_else(|| lease["fencing_token"].as_u64().unwrap(), |t| t.parse().unwrap())
        })
        .collect();
    assert_eq!(tokens.len(), leases.len(), "tokens are not given twice");
}

/// It is asked while it sleeps, and wakes when another leads: it must not answer what it finds in its port as if nothing had
/// happened, and must not write.
#[test]
fn a_leader_that_was_stopped_wakes_as_none() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let before = farm.lease(leader);
    let id = before["id"].as_str().unwrap();
    let pid = farm.servers[leader].pid();
    signal(pid, "STOP");
    let start = Instant::now();
    let sleeping = |args: &[&str]| {
        farm.servers[leader].command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // A write and a read, which lie in its port until it wakes.
    let write = sleeping(&["lease", "--pool", "hosts", "--request-id", "asked-asleep"]);
    let read = sleeping(&["get", id]);
    let next = farm.leader_but(leader);
    note("SIGSTOP", start.elapsed());
    assert!(farm.servers[next].cli(&["release", id]).status.success());
    let after = farm.lease(next);
    signal(pid, "CONT");
    for (what, child) in [("write", write), ("read", read)] {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{what}: {}\n{}", text(&output), farm.logs());
    }
    farm.stands_by(leader, next);
    assert!(farm.servers[leader].is_up());
    assert_eq!(farm.servers[leader].pid(), pid, "the same process");
    farm.has(next, &[after]);
    let all = text(&farm.servers[next].cli(&["--json", "ls", "--all"]));
    assert!(!all.contains("asked-asleep"), "{all}");
    assert!(farm.servers[leader].log().contains("lead"), "{}", farm.servers[leader].log());
}

/// Cut off from the database, a leader stops answering before another does; back again, it stands by.
#[test]
fn a_leader_without_its_database_leaves_the_lead() {
    let Some(cluster) = shared() else { return };
    let farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let lease = farm.lease(leader);
    let other = 1 - leader;
    farm.ways[leader].set(Mode::Hold);
    let start = Instant::now();
    let id = lease["id"].as_str().unwrap();
    // When the last answer that it gave was asked for, and when the first of the other had come.
    let (last, first) = std::thread::scope(|scope| {
        let old = scope.spawn(|| {
            let mut last = None;
            while start.elapsed() < Duration::from_secs(8) {
                let done = farm.servers[leader].cli(&["get", id]).status.success();
                if done {
                    last = Some(start.elapsed());
                }
            }
            last
        });
        let new = scope.spawn(|| {
            while !farm.servers[other].cli(&["get", id]).status.success() {
                assert!(start.elapsed() < PATIENCE, "{}", farm.logs());
            }
            start.elapsed()
        });
        (old.join().unwrap(), new.join().unwrap())
    });
    note("cut from the database", first);
    if let Some(last) = last {
        assert!(last < first, "the old one still answered at {last:?}, the new one at {first:?}\n{}", farm.logs());
    }
    farm.has(other, std::slice::from_ref(&lease));
    farm.ways[leader].cut_and(Mode::Pass);
    farm.stands_by(leader, other);
}

/// A restart of the database takes longer than the lead lasts. Whoever leads then, all is there.
#[test]
fn the_database_is_restarted_under_all_of_them() {
    let Some(mut cluster) = Cluster::start() else { return };
    let mut farm = Farm::start(&cluster, 3);
    let lease = farm.lease(farm.leader());
    for kill in [true, false] {
        if kill {
            cluster.kill()
        } else {
            cluster.stop()
        }
        std::thread::sleep(Duration::from_secs(3));
        let start = Instant::now();
        cluster.run();
        let leader = farm.leader();
        note("database restarted, from its start on", start.elapsed());
        farm.has(leader, std::slice::from_ref(&lease));
        assert!(farm.servers.iter_mut().all(Server::is_up), "{}", farm.logs());
        for at in (0..3).filter(|at| *at != leader) {
            farm.stands_by(at, leader);
        }
    }
}

/// Asked to stop, a leader gives the lead away: nobody waits for its end.
#[test]
fn a_leader_that_stops_hands_over_at_once() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let lease = farm.lease(leader);
    let other = 1 - leader;
    farm.stands_by(other, leader);
    signal(farm.servers[leader].pid(), "TERM");
    let start = Instant::now();
    let next = farm.leader_but(leader);
    let without = start.elapsed();
    note("SIGTERM", without);
    assert_eq!(next, other);
    assert!(farm.servers[leader].wait_for_end().success());
    assert!(farm.servers[leader].log().contains("the lead is given back"), "{}", farm.servers[leader].log());
    farm.has(next, &[lease]);
    // One that stands by just goes.
    farm.servers[leader].spawn();
    farm.stands_by(leader, next);
    assert!(farm.servers[leader].stop().success());
}

/// A lease with a short TTL whose holder could not renew, since nobody led, does not expire when the next one leads.
#[test]
fn no_lease_expires_because_nobody_led() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let args = ["lease", "--pool", "hosts", "--ttl", "4s", "--wait", "30s"];
    let lease = farm.servers[leader].json(&args)["lease"].clone();
    let other = 1 - leader;
    // Nobody can lead for a while: the other one is cut off.
    farm.ways[other].set(Mode::Hold);
    farm.servers[leader].kill();
    std::thread::sleep(Duration::from_secs(6));
    farm.ways[other].cut_and(Mode::Pass);
    let next = farm.leader();
    assert_eq!(next, other);
    farm.has(next, std::slice::from_ref(&lease));
    assert!(farm.servers[next].cli(&["renew", lease["id"].as_str().unwrap()]).status.success());
}
