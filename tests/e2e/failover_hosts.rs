//! Several servers with real sshd's and working copies: builds go on through take-overs, and each leader hands out clean copies. One
//! round of each fault, five with WHARFINGER_LONG=1.

use crate::failover::Farm;
use crate::farm::NAMES;
use crate::history::{FAULTS, hurt};
use crate::postgresql::Cluster;
use crate::proxy::Mode;
use crate::sshd::{Sshd, skip};
use crate::support::{PATIENCE, Server, repository, text};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Hosts with two slots each and copies of one repository on them, the same for all servers.
struct Site {
    hosts: Vec<Sshd>,
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { hosts: vec![Sshd::start(), Sshd::start()], folder: tempfile::tempdir().unwrap() };
        repository(&site.folder.path().join("origin"));
        // All holders have the same key.
        let first = std::fs::read_to_string(site.hosts[0].folder().join("client_key.pub")).unwrap();
        let own = site.hosts[1].folder().join("authorized_keys");
        std::fs::write(&own, std::fs::read_to_string(&own).unwrap() + &first).unwrap();
        site
    }

    fn pools(&self) -> String {
        let folder = self.folder.path().display();
        let mut pools = format!(
            "[[pool]]\nname = \"hosts\"\nadapter = \"ssh\"\nslots = 2\n[pool.ssh]\nwork_dir = \"{folder}/work\"\n\
             holder_key = \"{}\"\n",
            self.hosts[0].key().display()
        );
        for (name, host) in NAMES.iter().zip(&self.hosts) {
            pools.push_str(&format!(
                "[[pool.ssh.host]]\nname = \"{name}\"\naddress = \"{}\"\nport = {}\nuser = \"{}\"\nkey = \"{}\"\nhost_key = \"{}\"\n",
                host.address,
                host.port,
                host.user,
                host.key().display(),
                host.host_key()
            ));
        }
        pools
            + &format!(
                "[[pool]]\nname = \"copies\"\nadapter = \"copies\"\non = \"hosts\"\nmax = 4\n[pool.copies]\n\
                 repository = \"{folder}/origin\"\n"
            )
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(self.log()).unwrap_or_default().lines().map(String::from).collect()
    }

    /// A build. It checks that the copy is exactly the commit, records its place and token, damages the copy, and runs `middle`.
    fn build(&self, list: &str, retries: &str, middle: &str) -> Command {
        let log = self.log();
        let script = format!(
            "[ -z \"$(git status --porcelain --ignored)\" ] || {{ git status; exit 8; }}\n\
             git diff --quiet origin/main || exit 9\n\
             echo \"begin $WHARFINGER_TOKEN $PWD\" >>{log}\n\
             echo spoilt >>junk; for f in $(git ls-files); do echo spoilt >>\"$f\"; done\n\
             {middle}\n\
             echo \"end $WHARFINGER_TOKEN $PWD\" >>{log}",
            log = log.display()
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
        command.env("WHARFINGER_SERVER", list);
        command.args(["run", "--pool", "copies", "--branch", "main", "--ttl", "1m", "--retries", retries]);
        command.args(["--", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn list(farm: &Farm) -> String {
    farm.servers.iter().map(|server| server.address.as_str()).collect::<Vec<_>>().join(",")
}

fn until(what: &str, farm: &Farm, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} does not come about:\n{}", farm.logs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asserts that each copy had one build at a time, with growing tokens, and that each build has ended.
fn one_at_a_time(lines: &[String]) {
    let mut places: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let (what, token, place) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let token: u64 = token.parse().unwrap();
        let (last, building) = places.entry(place).or_insert((0, false));
        match what {
            "begin" => {
                assert!(!*building, "two builds in {place}: {lines:#?}");
                assert!(*last < token, "tokens of {place} do not grow: {lines:#?}");
                (*last, *building) = (token, true);
            }
            _ => {
                assert!(*building && *last == token, "an end without its beginning in {place}: {lines:#?}");
                *building = false;
            }
        }
    }
    assert!(places.values().all(|(_, building)| !building), "a build was killed: {lines:#?}");
}

#[test]
fn builds_on_copies_live_through_every_fault_of_the_servers() {
    if skip("failover_hosts::builds_on_copies_live_through_every_fault_of_the_servers") {
        return;
    }
    let Some(mut cluster) = Cluster::start() else { return };
    let site = Site::new();
    let mut farm = Farm::start_with(&cluster, 3, &|_: &Server| site.pools());
    let rounds = if std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1") { 5 } else { 1 };
    let list = list(&farm);
    let (stop, built) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = std::thread::scope(|scope| {
        let builders: Vec<_> = (0..3)
            .map(|at| {
                let (site, list, stop, built) = (&site, &list, &stop, &built);
                scope.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        let output = site.build(list, "0", &format!("sleep 0.{}", 3 + 2 * at)).output().unwrap();
                        if !output.status.success() {
                            return Some(text(&output));
                        }
                        built.fetch_add(1, Ordering::SeqCst);
                    }
                    None
                })
            })
            .collect();
        let goes_on = |farm: &Farm, what: &str| {
            let before = built.load(Ordering::SeqCst);
            let failed = || builders.iter().any(|builder| builder.is_finished());
            let start = Instant::now();
            while built.load(Ordering::SeqCst) < before + 4 && !failed() {
                assert!(start.elapsed() < Duration::from_secs(90), "{what}: nothing is built\n{}", farm.logs());
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        goes_on(&farm, "at first");
        for round in 0..rounds {
            for fault in FAULTS {
                hurt(&mut farm, &mut cluster, fault);
                goes_on(&farm, &format!("round {round}, {fault:?}"));
            }
        }
        stop.store(true, Ordering::SeqCst);
        builders.into_iter().filter_map(|builder| builder.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "{}\n{}", failed.join("\n"), farm.logs());
    let lines = site.lines();
    eprintln!("BUILDS: {} through {} faults", lines.len() / 2, rounds * FAULTS.len() as u64);
    assert_eq!(lines.len(), 2 * built.load(Ordering::SeqCst), "each build ran once");
    one_at_a_time(&lines);
}

/// The next leader detects the fault itself: it breaks the lease, and the build runs on another host.
#[test]
fn a_host_that_dies_without_a_leader_is_found_lost_by_the_next_leader() {
    if skip("failover_hosts::a_host_that_dies_without_a_leader_is_found_lost_by_the_next_leader") {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let mut site = Site::new();
    let mut farm = Farm::start_with(&cluster, 2, &|_: &Server| site.pools());
    let leader = farm.leader();
    let go = site.folder.path().join("go");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    let build = site.build(&list(&farm), "2", &wait).spawn().unwrap();
    until("the build", &farm, || !site.lines().is_empty());
    let lease = farm.servers[leader].json(&["ls"])["leases"]
        .as_array()
        .unwrap()
        .iter()
        .find(|lease| lease["pool"] == "copies")
        .unwrap()
        .clone();
    let port = lease["access"]["port"].as_str().unwrap().to_string();
    let other = 1 - leader;
    farm.ways[other].set(Mode::Hold);
    farm.servers[leader].kill();
    let dead = site.hosts.iter().position(|host| host.port.to_string() == port).unwrap();
    site.hosts[dead].kill_hard();
    farm.ways[other].cut_and(Mode::Pass);
    assert_eq!(farm.leader(), other);
    until("another build", &farm, || site.lines().iter().filter(|line| line.starts_with("begin")).count() == 2);
    std::fs::write(&go, "").unwrap();
    let output = build.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output), farm.logs());
    // The holder may have reported it before the new leader detected it. In the end both have.
    let now = farm.servers[other].json(&["get", lease["id"].as_str().unwrap()]);
    assert!(["BROKEN", "RELEASED"].contains(&now["state"].as_str().unwrap()), "{now}");
    until("the copy to be given up", &farm, || {
        let copy = lease["resource_id"].as_str().unwrap();
        farm.servers[other].resources().iter().all(|one| one["id"] != copy || one["state"] == "GONE")
    });
    let second = site.lines().into_iter().filter(|line| line.starts_with("begin")).nth(1).unwrap();
    assert!(site.lines().contains(&second.replace("begin", "end")), "{:#?}", site.lines());
}
