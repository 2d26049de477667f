//! The port for meters, read by promtool and by a Prometheus of its own.

use crate::support::{Server, free_port, text};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wharfinger_testkit::{Need, need};

const POOL: &str = "[[pool]]\nname = \"hosts\"\nadapter = \"local\"\nslots = 2\nmin_ready = 1\n[pool.local]\nroot = \"{folder}/hosts\"\n";

/// Where `./test.sh` has unpacked Prometheus.
fn programs() -> Option<PathBuf> {
    let folder = std::env::var_os("WHARFINGER_PROMETHEUS").map(PathBuf::from);
    folder.filter(|folder| folder.join("promtool").exists())
}

/// The status and the body of an answer.
fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_string()))
}

fn scrape(port: u16) -> String {
    let (status, body) = get(port, "/metrics").unwrap();
    assert_eq!(status, 200, "{body}");
    body
}

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// A server with a port for meters.
fn server() -> (Server, u16) {
    let port = free_port();
    (Server::start_with(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\""), POOL), port)
}

#[test]
fn counters_equal_the_trail_of_this_lead_and_gauges_survive_a_kill() {
    let (mut server, port) = server();
    server.wait_for_state("hosts", "READY", 1);
    for outcome in ["true", "false"] {
        let _ = server.cli(&["run", "-q", "--retries", "0", "--pool", "hosts", "--", outcome]);
    }
    let held = server.json(&["lease", "--pool", "hosts", "--ttl", "10m", "--wait", "30s"]);
    let kinds = |server: &Server| {
        let events = server.json(&["events", "--limit", "1000"]);
        let events = events.as_array().cloned().unwrap_or_else(|| events["events"].as_array().unwrap().clone());
        let mut kinds: Vec<String> = events.iter().map(|event| event["kind"].as_str().unwrap().to_string()).collect();
        kinds.sort();
        kinds
    };
    // The clean-up after the second command may still write to the trail.
    let (trail, counted) = server.wait("the counters to equal the trail", || {
        let before = kinds(&server);
        let text = scrape(port);
        let counted = text.lines().filter(|line| line.starts_with("wharfinger_events_total{")).fold(
            Vec::new(),
            |mut all: Vec<String>, line| {
                let kind = line.split("kind=\"").nth(1).unwrap().split('"').next().unwrap();
                let count: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                all.extend(std::iter::repeat_n(kind.to_string(), count as usize));
                all
            },
        );
        let mut sorted = counted;
        sorted.sort();
        (sorted == before && kinds(&server) == before).then_some((before, text))
    });
    assert!(trail.iter().filter(|kind| *kind == "lease.released").count() >= 2, "{trail:?}");
    assert_eq!(value(&counted, "wharfinger_pool_leases{pool=\"hosts\",state=\"active\"}"), Some(1.0), "{counted}");
    let kept = "grpc_server_started_total{grpc_service=\"wharfinger.v1.LeaseService\",grpc_method=\"Session\"}";
    assert!(value(&counted, kept).is_some(), "{counted}");
    let id = held["lease"]["id"].as_str().unwrap_or_default().to_string();
    assert!(!id.is_empty() && !counted.contains(&id) && !counted.contains("127.0.0.1"), "{counted}");

    server.kill();
    assert_eq!(get(port, "/livez"), None);
    server.run();
    let text = scrape(port);
    assert_eq!(value(&text, "wharfinger_pool_leases{pool=\"hosts\",state=\"active\"}"), Some(1.0), "{text}");
    assert_eq!(value(&text, "wharfinger_leader"), Some(1.0));
    for path in ["/livez", "/readyz", "/leader"] {
        assert_eq!(get(port, path).unwrap().0, 200, "{path}");
    }
}

#[test]
fn a_refused_configuration_is_seen_until_it_is_mended() {
    let (server, port) = server();
    let good = std::fs::read_to_string(server.config()).unwrap();
    let taken = || value(&scrape(port), "wharfinger_config_last_reload_successful");
    assert_eq!(taken(), Some(1.0));
    std::fs::write(server.config(), good.replace("slots = 2", "slots = \"two\"")).unwrap();
    server.reload();
    server.wait("the refusal to be seen", || (taken() == Some(0.0)).then_some(()));
    std::fs::write(server.config(), good).unwrap();
    server.reload();
    server.wait("the mended file to be seen", || (taken() == Some(1.0)).then_some(()));
}

#[test]
fn promtool_finds_no_fault_in_the_exposition_and_the_rules() {
    let Some(programs) = need(Need::Prometheus, programs()) else { return };
    let (server, port) = server();
    server.wait_for_state("hosts", "READY", 1);
    let _ = server.cli(&["run", "-q", "--pool", "hosts", "--", "true"]);
    let mut check = Command::new(programs.join("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(scrape(port).as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observability");
    for args in [
        &["check", "rules", "alerts.yaml"][..],
        &["test", "rules", "alerts-test.yaml"],
        &["check", "config", "prometheus.yaml"],
    ] {
        let output = Command::new(programs.join("promtool")).args(args).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output));
    }
    // Each query of the board, as a rule.
    let board: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("board.json")).unwrap()).unwrap();
    let queries: Vec<String> = board["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default())
        .map(|target| target["expr"].as_str().unwrap().replace("$pool", ".*"))
        .collect();
    assert!(queries.len() >= 15, "{queries:?}");
    let rules: Vec<serde_json::Value> = queries
        .iter()
        .enumerate()
        .map(|(n, query)| serde_json::json!({ "record": format!("board:{n}"), "expr": query }))
        .collect();
    let file = server.folder.path().join("board.yaml");
    std::fs::write(&file, serde_json::json!({ "groups": [{ "name": "board", "rules": rules }] }).to_string()).unwrap();
    let output = Command::new(programs.join("promtool")).args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// A Prometheus. It ends with this value.
struct Prometheus(Child, u16);

impl Prometheus {
    fn start(programs: &Path, folder: &Path, targets: &[u16]) -> Self {
        let port = free_port();
        let list: Vec<String> = targets.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observability/alerts.yaml");
        let config = format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms }}\nrule_files: [\"{}\"]\n\
             scrape_configs: [{{ job_name: wharfinger, static_configs: [{{ targets: [{}] }}] }}]\n",
            rules.display(),
            list.join(", ")
        );
        std::fs::write(folder.join("prometheus.yaml"), config).unwrap();
        let child = Command::new(programs.join("prometheus"))
            .arg(format!("--config.file={}", folder.join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child, port)
    }

    /// The values of a query.
    fn ask(&self, query: &str) -> Vec<f64> {
        let bytes = query.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let Some((200, body)) = get(self.1, &format!("/api/v1/query?query={bytes}")) else { return Vec::new() };
        let start = body.find('{').unwrap_or(0);
        let end = body.rfind('}').map_or(0, |end| end + 1);
        let Ok(answer) = serde_json::from_str::<serde_json::Value>(&body[start..end]) else { return Vec::new() };
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        series.iter().filter_map(|series| series["value"][1].as_str()?.parse().ok()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_prometheus_sees_leases_and_that_no_server_leads_any_more() {
    let Some(programs) = need(Need::Prometheus, programs()) else { return };
    let (mut server, port) = server();
    let folder = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(&programs, folder.path(), &[port]);
    server.wait_for_state("hosts", "READY", 1);
    let held = server.json(&["lease", "--pool", "hosts", "--ttl", "10m", "--wait", "30s"]);
    assert!(held["lease"]["id"].is_string(), "{held}");
    server.wait("Prometheus to see the lease", || {
        (prometheus.ask("wharfinger_pool_leases{pool=\"hosts\",state=\"active\"}") == [1.0]).then_some(())
    });
    server.wait("Prometheus to see the leader", || (prometheus.ask("sum(wharfinger_leader)") == [1.0]).then_some(()));
    // Before the first scrape no server leads that it knows.
    let pending = "ALERTS{alertname=\"WharfingerNobodyLeads\"}";
    server.wait("the alert to go", || prometheus.ask(pending).is_empty().then_some(()));
    server.kill();
    // It fires after 30 seconds, as promtool's test shows.
    let begun = std::time::Instant::now();
    while prometheus.ask(pending).is_empty() {
        assert!(begun.elapsed() < crate::support::PATIENCE, "no alert is pending");
        std::thread::sleep(Duration::from_millis(100));
    }
}
