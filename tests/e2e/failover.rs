//! Several servers on one PostgreSQL: one leads, the others follow, and take over when it dies, hangs, is cut off or stops.

use crate::kill::HOSTS;
use crate::postgresql::{Cluster, schema, shared};
use crate::proxy::{Mode, Proxy};
use crate::support::{PATIENCE, Server, outage_of, signal, text};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::{LeaseRequest, RenewRequest, Selector};

/// Time to live of a lead in these tests.
const LEAD: &str = "2s";

/// The id of a lease that does not exist.
const NO_LEASE: &str = "lse_00000000000000000000000000";

/// Servers that share a schema. Each has a proxy of its own to the database.
pub(crate) struct Farm {
    pub(crate) servers: Vec<Server>,
    pub(crate) ways: Vec<Proxy>,
    schema: String,
    runtime: tokio::runtime::Runtime,
    /// The folder of the hosts of all servers. It is removed after the servers have ended.
    _hosts: Option<tempfile::TempDir>,
}

impl Farm {
    /// Servers with one host, this machine.
    pub(crate) fn start(cluster: &Cluster, count: usize) -> Farm {
        // One folder for all servers, as if the hosts were the same machines.
        let hosts = tempfile::tempdir().unwrap();
        let folder = hosts.path().display().to_string();
        let farm = Farm::start_with(cluster, count, &|_| HOSTS.replace("{folder}", &folder));
        Farm { _hosts: Some(hosts), ..farm }
    }

    /// Servers with these pools.
    pub(crate) fn start_with(cluster: &Cluster, count: usize, pools: &dyn Fn(&Server) -> String) -> Farm {
        let mut farm = Farm::empty();
        for _ in 0..count {
            farm.add(cluster, "", pools, Vec::new());
        }
        farm.leader();
        farm
    }

    /// A farm in a new schema, without a server.
    pub(crate) fn empty() -> Farm {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Farm { servers: Vec::new(), ways: Vec::new(), schema: schema(), runtime, _hosts: None }
    }

    /// Starts one more server, with these lines before its pools and these variables in its environment.
    pub(crate) fn add(
        &mut self,
        cluster: &Cluster,
        head: &str,
        pools: &dyn Fn(&Server) -> String,
        env: Vec<(&'static str, String)>,
    ) {
        let way = Proxy::start(cluster.port());
        let url = cluster.url().replace(&format!(":{}/", cluster.port()), &format!(":{}/", way.port()));
        let mut server = Server::prepared("unused");
        server.env = env;
        server.engine = Some(format!(
            "engine = \"postgres\"\nurl = \"{url}\"\nschema = \"{}\"\nconnect_timeout = \"2s\"\n\
             [cluster]\nadvertise = \"{}\"\nlead = \"{LEAD}\"\nmax_age = \"3s\"",
            self.schema, server.address
        ));
        server.configure(head, &pools(&server));
        server.spawn();
        self.servers.push(server);
        self.ways.push(way);
    }

    /// Sends a call that only a leader answers: the renewal of a lease that does not exist. The call is marked as forwarded, so this
    /// server does not forward it.
    fn ask(&self, at: usize) -> Result<(), Status> {
        let address = self.servers[at].address.clone();
        self.runtime.block_on(async move {
            let asked = async {
                let unreachable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
                let mut api = LeaseServiceClient::connect(address).await.map_err(unreachable)?;
                let mut request = Request::new(RenewRequest { lease_id: NO_LEASE.into(), ..RenewRequest::default() });
                request.metadata_mut().insert("wharfinger-passed", MetadataValue::from_static("1"));
                match api.renew(request).await {
                    Err(status) if status.code() == Code::NotFound => Ok(()),
                    other => other.map(|_| panic!("there is no such lease")),
                }
            };
            let late = |_| Err(Status::deadline_exceeded("no answer"));
            tokio::time::timeout(Duration::from_secs(2), asked).await.unwrap_or_else(late)
        })
    }

    /// Waits until a server leads, and returns its number.
    pub(crate) fn leader(&self) -> usize {
        self.leader_but(usize::MAX)
    }

    pub(crate) fn leader_but(&self, not: usize) -> usize {
        let start = Instant::now();
        loop {
            for at in (0..self.servers.len()).filter(|at| *at != not) {
                if self.ask(at).is_ok() {
                    return at;
                }
            }
            assert!(start.elapsed() < PATIENCE, "nobody leads:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn logs(&self) -> String {
        self.servers.iter().map(|server| format!("---- {}\n{}", server.address, server.log())).collect()
    }

    /// Waits until this server returns the address of the leader.
    pub(crate) fn follows(&self, at: usize, leader: usize) {
        let start = Instant::now();
        loop {
            let said = self.ask(at).expect_err("two lead");
            let told = said.get_details_error_info();
            let told =
                told.filter(|info| info.reason == "NOT_LEADER").and_then(|info| info.metadata.get("leader").cloned());
            if told.as_ref() == Some(&self.servers[leader].address) {
                assert_eq!(said.code(), Code::Unavailable);
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{at} does not follow: {said:?}\n{}", self.logs());
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

    /// Asserts that these leases are as they were granted.
    fn has(&self, at: usize, leases: &[serde_json::Value]) {
        for lease in leases {
            let now = self.servers[at].json(&["get", lease["id"].as_str().unwrap()]);
            for what in ["state", "access", "fencing_token", "resource_id", "slot"] {
                assert_eq!(now[what], lease[what], "{what} of {lease}\n{}", self.logs());
            }
        }
    }
}

fn lease_request(holder: &str) -> LeaseRequest {
    LeaseRequest {
        request_id: holder.into(),
        holder: holder.into(),
        selector: Some(Selector { pool: "hosts".into(), ..Selector::default() }),
        ..LeaseRequest::default()
    }
}

/// Waits until all threads of the process are stopped. A thread that still runs would serve calls.
pub(crate) fn until_stopped(pid: u32) {
    let start = Instant::now();
    let stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
    };
    while !std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|task| stopped(task.unwrap())) {
        assert!(start.elapsed() < PATIENCE, "{pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Prints the time without a leader.
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
            farm.follows(at, leader);
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
            // A lease of the former leader is released at the next one.
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

/// A leader is stopped and receives calls. It wakes after another server has taken over. It must neither answer the calls as a
/// leader nor write.
#[test]
fn a_leader_that_was_stopped_wakes_as_none() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let before = farm.lease(leader);
    let id = before["id"].as_str().unwrap();
    let pid = farm.servers[leader].pid();
    signal(pid, "STOP");
    until_stopped(pid);
    let start = Instant::now();
    // Two writes wait in the socket until the server wakes.
    let address = farm.servers[leader].address.clone();
    let asked = lease_request("asked-asleep");
    let to = address.clone();
    let write = farm.runtime.spawn(async move {
        let mut api = LeaseServiceClient::connect(to).await.map_err(|error| Status::unavailable(error.to_string()))?;
        api.lease(asked).await.map(drop)
    });
    let renewed = RenewRequest { lease_id: id.into(), ..RenewRequest::default() };
    let renew = farm.runtime.spawn(async move {
        let mut api =
            LeaseServiceClient::connect(address).await.map_err(|error| Status::unavailable(error.to_string()))?;
        api.renew(renewed).await.map(drop)
    });
    let next = farm.leader_but(leader);
    note("SIGSTOP", start.elapsed());
    assert!(farm.servers[next].cli(&["release", id]).status.success());
    let after = farm.lease(next);
    signal(pid, "CONT");
    for (what, call) in [("write", write), ("renewal", renew)] {
        let said = farm.runtime.block_on(call).unwrap();
        assert!(said.is_err(), "the {what} was answered by one that does not lead\n{}", farm.logs());
    }
    farm.follows(leader, next);
    assert!(farm.servers[leader].is_up());
    assert_eq!(farm.servers[leader].pid(), pid, "the same process");
    farm.has(next, &[after]);
    let all = text(&farm.servers[next].cli(&["--json", "ls", "--all"]));
    assert!(!all.contains("asleep"), "{all}");
    assert!(farm.servers[leader].log().contains("lead"), "{}", farm.servers[leader].log());
}

/// Calls that the old leader receives after another one leads.
const POLLS_AFTER_TAKE_OVER: u32 = 20;

/// A leader that is cut off from the database stops answering before another one answers. Connected again, it follows.
#[test]
fn a_leader_without_its_database_leaves_the_lead() {
    let Some(cluster) = shared() else { return };
    let farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let lease = farm.lease(leader);
    let other = 1 - leader;
    farm.ways[leader].set(Mode::Hold);
    let start = Instant::now();
    let taken_over = AtomicBool::new(false);
    // Start of the last call that the old leader answered, and end of the first that the new one answered.
    let (last, first) = std::thread::scope(|scope| {
        let old = scope.spawn(|| {
            let mut last = None;
            let mut polls_left = POLLS_AFTER_TAKE_OVER;
            while polls_left > 0 && start.elapsed() < PATIENCE {
                polls_left -= u32::from(taken_over.load(Ordering::SeqCst));
                let at = start.elapsed();
                if farm.ask(leader).is_ok() {
                    last = Some(at);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            last
        });
        let new = scope.spawn(|| {
            while farm.ask(other).is_err() {
                std::thread::sleep(Duration::from_millis(5));
                assert!(start.elapsed() < PATIENCE, "{}", farm.logs());
            }
            taken_over.store(true, Ordering::SeqCst);
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
    farm.follows(leader, other);
}

/// A restart of the database takes longer than a lead. The next leader has all leases.
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
        outage_of(Duration::from_secs(3));
        let start = Instant::now();
        cluster.run();
        let leader = farm.leader();
        note("database restarted, from its start on", start.elapsed());
        farm.has(leader, std::slice::from_ref(&lease));
        assert!(farm.servers.iter_mut().all(Server::is_up), "{}", farm.logs());
        for at in (0..3).filter(|at| *at != leader) {
            farm.follows(at, leader);
        }
    }
}

/// A leader that is asked to stop gives the lead back, so the next one need not wait for its end.
#[test]
fn a_leader_that_stops_hands_over_at_once() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let lease = farm.lease(leader);
    let other = 1 - leader;
    farm.follows(other, leader);
    signal(farm.servers[leader].pid(), "TERM");
    let start = Instant::now();
    let next = farm.leader_but(leader);
    let without = start.elapsed();
    note("SIGTERM", without);
    assert_eq!(next, other);
    assert!(farm.servers[leader].wait_for_end().success());
    assert!(farm.servers[leader].log().contains("the lead is given back"), "{}", farm.servers[leader].log());
    farm.has(next, &[lease]);
    // A follower stops at once.
    farm.servers[leader].spawn();
    farm.follows(leader, next);
    assert!(farm.servers[leader].stop().success());
}

/// A lease with a short TTL does not expire at a take-over, if its holder could not renew for lack of a leader.
#[test]
fn no_lease_expires_for_the_time_without_a_leader() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 2);
    let leader = farm.leader();
    let args = ["lease", "--pool", "hosts", "--ttl", "4s", "--wait", "30s"];
    let lease = farm.servers[leader].json(&args)["lease"].clone();
    let other = 1 - leader;
    // No server leads for a while: the other one is cut off.
    farm.ways[other].set(Mode::Hold);
    farm.servers[leader].kill();
    outage_of(Duration::from_secs(6));
    farm.ways[other].cut_and(Mode::Pass);
    let next = farm.leader();
    assert_eq!(next, other);
    farm.has(next, std::slice::from_ref(&lease));
    assert!(farm.servers[next].cli(&["renew", lease["id"].as_str().unwrap()]).status.success());
}

/// Clients that know all servers see only a pause: a build runs on, once, and a watch receives every end.
#[test]
fn a_build_and_a_watch_live_through_failovers() {
    let Some(cluster) = shared() else { return };
    let mut farm = Farm::start(cluster, 3);
    let folder = tempfile::tempdir().unwrap();
    let (go, began) = (folder.path().join("go"), folder.path().join("began"));
    let all: Vec<&str> = farm.servers.iter().map(|server| server.address.as_str()).collect();
    let all = all.join(",");
    let client = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
        command.args(args).env("WHARFINGER_SERVER", &all).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        command
    };
    let build =
        format!("echo began >> {}; until [ -e {} ]; do sleep 0.1; done; echo built", began.display(), go.display());
    let run = client(&["run", "--pool", "hosts", "--ttl", "1m", "--", "sh", "-c", &build]).spawn().unwrap();
    let mut watch = client(&["--json", "watch"]).spawn().unwrap();
    let start = Instant::now();
    while !began.exists() {
        assert!(start.elapsed() < PATIENCE, "the build never began:\n{}", farm.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut released = Vec::new();
    let cycle = |released: &mut Vec<String>| {
        let output = client(&["--json", "lease", "--pool", "hosts", "--ttl", "1m", "--wait", "30s"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let lease: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let id = lease["lease"]["id"].as_str().unwrap().to_string();
        let output = client(&["release", &id]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        released.push(id);
    };
    cycle(&mut released);
    for how in ["KILL", "TERM", "STOP"] {
        let leader = farm.leader();
        signal(farm.servers[leader].pid(), how);
        let next = farm.leader_but(leader);
        assert_ne!(next, leader);
        cycle(&mut released);
        match how {
            "STOP" => signal(farm.servers[leader].pid(), "CONT"),
            _ => farm.servers[leader].spawn(),
        }
    }
    std::fs::write(&go, "").unwrap();
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output), farm.logs());
    assert!(String::from_utf8_lossy(&output.stdout).contains("built"));
    let runs = std::fs::read_to_string(&began).unwrap();
    assert_eq!(runs, "began\n", "the build ran once: {}\n{}", text(&output), farm.logs());
    cycle(&mut released);
    // The watch has received all ends when it has the last one.
    let mut told = String::new();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    while !released.iter().all(|id| told.lines().any(|line| line.contains(id.as_str()) && line.contains("RELEASED"))) {
        let line = lines.next().expect("the watch goes on").unwrap();
        told.push_str(&line);
        told.push('\n');
    }
    let _ = watch.kill();
    let _ = watch.wait();
}
