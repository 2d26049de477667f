//! The audit trail: who, by what proof, from where, by which role; and refusals, which are lines in the log alone.

use crate::support::{LOCAL, PATIENCE, Server, text};
use serde_json::Value;
use std::io::BufRead;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A caller's token, and the lines with which the server knows it.
fn caller(server: &Server, id: &str, role: &str) -> (String, String) {
    let made = server.json(&["token", "new", id, "--tenant", "web", "--role", role, "--expires", "never"]);
    let part = |name: &str| made[name].as_str().unwrap().to_owned();
    (part("token"), part("configuration"))
}

struct Site {
    server: Server,
    agent: String,
    ops: String,
}

impl Site {
    fn start() -> Site {
        let mut server = Server::prepared("w.db");
        let (agent, agent_lines) = caller(&server, "web-ci", "agent");
        let (ops, ops_lines) = caller(&server, "ops", "admin");
        server.configure(&format!("{agent_lines}{ops_lines}"), LOCAL);
        server.spawn();
        let site = Site { server, agent, ops };
        site.until_up();
        site
    }

    fn until_up(&self) {
        self.server.wait("the server to answer", || self.ops(&["pools"]).status.success().then_some(()));
    }

    fn by(&self, token: &str, args: &[&str]) -> Command {
        let mut command = self.server.command(args);
        command.env("WHARFINGER_AUTH_TOKEN", token);
        command
    }

    fn ops(&self, args: &[&str]) -> Output {
        self.by(&self.ops, args).output().unwrap()
    }

    fn lease(&self) -> String {
        let args = ["lease", "--pool", "hosts", "--wait", "60s", "--json"];
        let output = self.by(&self.agent, &args).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let lease: Value = serde_json::from_slice(&output.stdout).unwrap();
        lease["lease"]["id"].as_str().unwrap().to_owned()
    }

    fn events(&self, args: &[&str]) -> Vec<Value> {
        let output = self.ops(&[&["events", "--json", "--limit", "10000"], args].concat());
        assert!(output.status.success(), "{}", text(&output));
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        listed["events"].as_array().unwrap().clone()
    }

    /// Starts an export that resumes at this cursor.
    fn follow(&self, more: &[&str]) -> Follow {
        let cursor = self.server.folder.path().join("cursor").display().to_string();
        let args = [&["events", "--follow", "--json", "--cursor", &cursor], more].concat();
        let mut child = self.by(&self.ops, &args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap());
        let got: Arc<Mutex<Vec<Value>>> = Arc::default();
        let sink = got.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                sink.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Follow { child, got }
    }
}

struct Follow {
    child: Child,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Follow {
    fn until(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) {
        let start = Instant::now();
        while !wanted(&self.got.lock().unwrap()) {
            assert!(start.elapsed() < PATIENCE, "{what}: {:#?}", self.got.lock().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn end(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut *self.got.lock().unwrap())
    }
}

fn has(events: &[Value], lease: &str, kind: &str) -> bool {
    events.iter().any(|event| event["lease_id"] == lease && event["kind"] == kind)
}

#[test]
fn each_change_says_who_made_it_by_what_proof_from_where_and_by_which_role() {
    let mut site = Site::start();
    let (released, broken) = (site.lease(), site.lease());
    assert!(site.by(&site.agent, &["release", &released]).output().unwrap().status.success());
    assert!(site.ops(&["break", &broken, "--reason", "a test"]).status.success());
    for (lease, kind, proof, roles, method) in [
        (&released, "lease.released", "token:web-ci", "agent", "Release"),
        (&broken, "lease.broken", "token:ops", "admin", "Break"),
    ] {
        let events = site.events(&["--lease", lease]);
        let asked = &events[0];
        let granted = ["lease.active", "lease.preparing", "lease.queued"];
        assert!(granted.iter().any(|kind| asked["kind"] == *kind), "{asked}");
        assert_eq!((&asked["actor"], &asked["caller"]["method"]), (&"token:web-ci".into(), &"Lease".into()), "{asked}");
        let ended = events.iter().find(|event| event["kind"] == kind).unwrap();
        let caller = &ended["caller"];
        assert_eq!((&caller["proof"], &caller["roles"]), (&proof.into(), &roles.into()), "{ended}");
        assert_eq!((&caller["method"], &caller["tenant"]), (&method.into(), &"web".into()), "{ended}");
        assert!(caller["peer"].as_str().unwrap().starts_with("127.0.0.1:") && caller["via"] == "", "{ended}");
    }
    let all = site.events(&["--after", "0"]);
    let own: Vec<&Value> = all.iter().filter(|event| event["actor"] == "wharfinger").collect();
    assert!(!own.is_empty() && own.iter().all(|event| event["caller"].is_null()), "{own:#?}");
    let by_token = site.events(&["--by", "token:web-ci", "--after", "0"]);
    assert!(has(&by_token, &released, "lease.released") && !has(&by_token, &broken, "lease.broken"), "{by_token:#?}");
    // The tenant reads what it read before: none of that.
    let why = site.by(&site.agent, &["why", &released, "--json"]).output().unwrap();
    assert!(why.status.success(), "{}", text(&why));
    assert!(!text(&why).contains("127.0.0.1") && !text(&why).contains("\"proof\""), "{}", text(&why));
    // A dump has it, and what is made from the dump.
    site.server.kill();
    let (config, dump) = (site.server.config(), site.server.folder.path().join("dump"));
    let (config, dump) = (config.to_str().unwrap(), dump.to_str().unwrap());
    let run = |args: &[&str]| {
        let output = site.server.cli(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
    };
    run(&["db", "dump", "--config", config, dump]);
    for name in ["w.db", "w.db-wal", "w.db-shm"] {
        let _ = std::fs::remove_file(site.server.folder.path().join(name));
    }
    run(&["db", "restore", "--config", config, dump]);
    for secret in [&site.agent, &site.ops] {
        assert!(!std::fs::read_to_string(dump).unwrap().contains(secret.as_str()));
    }
    site.server.spawn();
    site.until_up();
    let again = site.events(&["--after", "0"]);
    assert_eq!(again[..all.len()], all[..]);
}

/// An export that is ended at any moment, over a server that is killed, has each entry in the end.
#[test]
fn an_export_resumes_where_it_ended_over_restarts_of_both() {
    let mut site = Site::start();
    let first = site.lease();
    let export = site.follow(&["--after", "0"]);
    export.until("the first lease", |events| events.iter().any(|event| event["lease_id"] == *first));
    site.server.kill();
    site.server.spawn();
    site.until_up();
    let second = site.lease();
    export.until("the second lease", |events| events.iter().any(|event| event["lease_id"] == *second));
    let mut got = export.end();
    assert!(site.by(&site.agent, &["release", &second]).output().unwrap().status.success());
    let third = site.lease();
    let export = site.follow(&[]);
    export.until("the third lease", |events| {
        has(events, &second, "lease.released") && events.iter().any(|event| event["lease_id"] == *third)
    });
    let last = site.events(&["--after", "0"]).last().unwrap()["revision"].clone();
    export.until("the end", |events| events.iter().any(|event| event["revision"] == last));
    got.extend(export.end());
    let all = site.events(&["--after", "0"]);
    for event in all.iter().filter(|event| event["revision"].as_u64() <= last.as_u64()) {
        assert!(got.contains(event), "{event} is not exported");
    }
    // A cursor that is none is not taken for the beginning.
    std::fs::write(site.server.folder.path().join("cursor"), "x").unwrap();
    let mut bad = site.follow(&[]);
    assert_eq!(bad.child.wait().unwrap().code(), Some(65));
}

#[test]
fn refusals_are_lines_of_json_and_no_writes() {
    let site = Site::start();
    let all = || site.events(&["--after", "0"]);
    site.server.wait("the host", || all().iter().any(|event| event["kind"] == "resource.ready").then_some(()));
    let before = all();
    let wrong = site.agent[..site.agent.len() - 1].to_owned();
    for _ in 0..5 {
        assert_eq!(site.by(&wrong, &["ls"]).output().unwrap().status.code(), Some(77));
        assert_eq!(site.by(&site.agent, &["resources"]).output().unwrap().status.code(), Some(77));
    }
    let lines = || -> Vec<Value> {
        let log = site.server.log();
        let lines = log.lines().filter(|line| line.contains("\"target\":\"wharfinger::audit\""));
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let found = lines();
    let of = |reason: &str| found.iter().filter(|line| line["reason"] == reason).collect::<Vec<_>>();
    let [stranger] = of("MALFORMED_CREDENTIALS")[..] else { panic!("{found:#?}") };
    assert!(stranger["peer"].as_str().unwrap().starts_with("127.0.0.1:") && stranger["principal"].is_null());
    let [known] = of("NOT_ALLOWED")[..] else { panic!("{found:#?}") };
    assert_eq!((&known["principal"], &known["method"]), (&"token:web-ci".into(), &"ListResources".into()), "{known}");
    assert_eq!((&known["proof"], &known["tenant"]), (&"token:web-ci".into(), &"web".into()), "{known}");
    // The others are counted.
    site.server.wait("the counters", || {
        let again = lines().into_iter().filter(|line| line["message"] == "refused again").collect::<Vec<_>>();
        let counts: u64 = again.iter().filter_map(|line| line["count"].as_u64()).sum();
        (counts >= 8).then(|| assert_eq!(counts, 8, "{again:#?}"))
    });
    assert_eq!(all(), before, "no write");
    assert!(!site.server.log().contains(&wrong), "no token is in the log");
}
