//! The cost of the log: leases that queue and are released, a second of them at a time, at servers whose logs go to files.
//!
//! Figures: `cargo test --test e2e log_cost:: -- --nocapture | grep TABLE`; more rounds with WHARFINGER_LONG=1.

use crate::support::{Server, quiet};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wharfinger::client::Client;
use wharfinger::pb::{LeaseRequest, Outcome, Selector};

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 32;

/// A server with its log in a file. It is killed when it is dropped.
struct Logging {
    server: Server,
    child: Child,
    name: &'static str,
    clients: Vec<Client>,
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Logging {
    async fn start(name: &'static str, log: &str) -> Self {
        let server = Server::prepared("w.db");
        let pool = "[[pool]]\nname = \"none\"\nadapter = \"local\"\nslots = 1\n[pool.local]\nroot = \"{folder}/hosts\"";
        server.configure(&format!("[log]\n{log}"), pool);
        let file = File::create(server.folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_wharfinger"))
            .args(["serve", "--config"])
            .arg(server.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !server.cli(&["pools"]).status.success() {
            assert!(begun.elapsed() < crate::support::PATIENCE, "the server does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Client::connect(&server.address).await.unwrap());
        }
        // The only slot is taken, so that no other lease needs a host.
        assert_eq!(
            server.json(&["lease", "--pool", "none", "--ttl", "1h", "--wait", "60s"])["lease"]["state"],
            "ACTIVE"
        );
        Self { server, child, name, clients }
    }

    /// Pairs of `Lease` and `Release` a second, over this time.
    ///
    /// Returns also the processor time of the server for each, without that of the thread that writes the log, and that thread's.
    async fn pairs(&self, span: Duration) -> [f64; 3] {
        let before = self.cpu();
        let (done, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let mut tasks = tokio::task::JoinSet::new();
        for client in &self.clients {
            for _ in 0..IN_FLIGHT {
                let (client, done) = (client.clone(), done.clone());
                tasks.spawn(async move {
                    while begun.elapsed() < span {
                        let request = LeaseRequest {
                            holder: "cost".into(),
                            selector: Some(Selector { pool: "none".into(), ..Selector::default() }),
                            ..LeaseRequest::default()
                        };
                        let lease = client.lease(request).await.unwrap().lease.unwrap();
                        client.release(&lease.id, Outcome::Ok, "").await.unwrap();
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        while tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {}
        let (after, count) = (self.cpu(), done.load(Ordering::Relaxed) as f64);
        let (all, log) = (after.0 - before.0, after.1 - before.1);
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / count;
        [count / begun.elapsed().as_secs_f64(), each(all - log), each(log)]
    }

    /// Processor time of the server so far, and of its thread that writes the trail among it.
    fn cpu(&self) -> (Duration, Duration) {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten();
        let (mut all, mut log) = (Duration::ZERO, Duration::ZERO);
        for thread in threads {
            // proc_pid_stat(5): the name in parentheses, then utime and stime in ticks of 10 ms.
            let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else { continue };
            let (name, rest) = stat.rsplit_once(") ").unwrap();
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            let spent = Duration::from_millis(ticks * 10);
            all += spent;
            if name.ends_with("(trail-log") {
                log += spent;
            }
        }
        (all, log)
    }

    fn lines(&self) -> usize {
        std::fs::read_to_string(self.server.folder.path().join("log")).unwrap().lines().count()
    }
}

#[test]
fn the_log_costs_little() {
    let _quiet = quiet();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(compare());
}

/// Measures in turns.
async fn compare() {
    let rounds = if std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") { 11 } else { 3 };
    let servers = [
        Logging::start("off", "level = \"off\"").await,
        Logging::start("text", "format = \"text\"").await,
        Logging::start("JSON", "format = \"json\"").await,
    ];
    let mut rates = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        for (server, rates) in servers.iter().zip(&mut rates) {
            let rate = server.pairs(Duration::from_secs(1)).await;
            // The first round warms up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    let median = |rounds: &[[f64; 3]], at: usize| {
        let mut values: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let medians: Vec<[f64; 3]> = rates.iter().map(|rounds| [0, 1, 2].map(|at| median(rounds, at))).collect();
    for (server, [rate, own, log]) in servers.iter().zip(&medians) {
        println!(
            "TABLE | log {} | {rate:.0} Lease and Release a second, {:.2} of those without | {own:.0} us of the server's processors each, \
             {:.2} of those without, and {log:.0} us of the thread of the log | {} lines",
            server.name,
            rate / medians[0][0],
            own / medians[0][1],
            server.lines()
        );
    }
    assert!(servers[1].lines() > 100 && servers[2].lines() > 100, "there is a log");
    // Processor time, since the machine may be busy.
    assert!(medians.iter().all(|[_, own, _]| own / medians[0][1] < 1.5), "{medians:?}");
}
