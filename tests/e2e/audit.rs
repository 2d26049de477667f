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

    fn server_wait(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "in vain: {what}\n{}", self.server.log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
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
        assert_eq!(caller["program"], "cli", "{ended}");
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

/// The refusals of a file of their own: its mode, its rotation, its size.
#[test]
fn refusals_are_in_a_file_of_their_own_that_is_rotated_and_has_an_end() {
    use std::os::unix::fs::PermissionsExt;
    let mut site = Site::start();
    let file = site.server.folder.path().join("refusals");
    let before = std::fs::read_to_string(site.server.config()).unwrap();
    let with = format!("[audit]\nfile = \"refusals\"\nmax_size = \"4KiB\"\n{before}");
    std::fs::write(site.server.config(), with).unwrap();
    site.server.kill();
    site.server.spawn();
    site.until_up();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let refuse = |args: &[&str]| assert_eq!(site.by(&site.agent, args).output().unwrap().status.code(), Some(77));
    let log_before = site.server.log();
    refuse(&["resources"]);
    let [line] = &lines()[..] else { panic!("{:#?}", lines()) };
    assert_eq!((&line["reason"], &line["method"]), (&"NOT_ALLOWED".into(), &"ListResources".into()), "{line}");
    let log = site.server.log();
    assert!(!log[log_before.len()..].contains("wharfinger::audit"), "it is in the file alone: {log}");
    // Another program moves the file, and sends SIGHUP.
    let moved = file.with_extension("1");
    std::fs::rename(&file, &moved).unwrap();
    refuse(&["events"]);
    assert!(std::fs::read_to_string(&moved).unwrap().contains("\"method\":\"Events\""), "the open file is written on");
    site.server.reload();
    site.server_wait("the file", || file.exists());
    refuse(&["cordon", "--pool", "hosts"]);
    assert_eq!(lines().iter().filter(|line| line["reason"] == "NOT_ALLOWED").count(), 1, "{:#?}", lines());
    // It has an end. What comes after is counted.
    let resource = "res_01M8P5YYR4F9VG000000000001";
    for verb in ["drain", "undrain", "uncordon", "recycle", "recover", "hold", "taint", "quarantine", "force-destroy"] {
        for caller in [&*site.agent, &site.agent[..20]] {
            let _ = site.by(caller, &[verb, resource, "--reason", "x"]).output().unwrap();
            let _ = site.by(caller, &[verb, resource]).output().unwrap();
        }
    }
    for verb in ["ls", "pools", "weather", "tenants", "whoami"] {
        let _ = site.by(&site.agent[..20], &[verb]).output().unwrap();
    }
    site.server_wait("the log to say so", || site.server.log().contains("the file of refusals is full"));
    let length = std::fs::metadata(&file).unwrap().len();
    assert!(length <= 4096 && length > 3000, "{length}");
    std::fs::rename(&file, &moved).unwrap();
    site.server.reload();
    site.server_wait("the file", || file.exists());
    let first = &lines()[0];
    assert!(
        first["message"] == "refusals were left out: the file was full" && first["count"].as_u64() > Some(0),
        "{first}"
    );
    // A file that cannot be opened leaves the one before; at the start it is a mistake.
    std::fs::rename(&file, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &file).unwrap();
    site.server.reload();
    site.server_wait("the log to say so", || site.server.log().contains("the one before stays"));
    site.server.kill();
    site.server.spawn();
    assert_eq!(site.server.wait_for_end().code(), Some(78));
    assert!(site.server.log().contains("cannot be opened"), "{}", site.server.log());
}

/// An export that lies elsewhere shows what was changed in the database.
#[test]
fn a_trail_that_was_changed_in_the_database_differs_from_its_export() {
    let mut site = Site::start();
    let (kept, changed) = (site.lease(), site.lease());
    assert!(site.by(&site.agent, &["release", &changed]).output().unwrap().status.success());
    let export = site.follow(&["--after", "0"]);
    export.until("the release", |events| has(events, &changed, "lease.released") && has(events, &kept, "lease.active"));
    let lines: String = export.end().iter().map(|event| format!("{event}\n")).collect();
    let file = site.server.folder.path().join("export").display().to_string();
    // The process that wrote it was killed within a line; some lines came twice.
    let twice = lines.lines().next().unwrap();
    std::fs::write(&file, format!("{lines}{twice}\n{{\"revision\":9")).unwrap();
    let good = site.ops(&["events", "--verify", &file]);
    assert!(good.status.success() && text(&good).contains(" 0 differ"), "{}", text(&good));
    // A line is not in the export: the trail has more. (What came after the last line of the export is newer.)
    let shorter: String =
        lines.lines().filter(|line| !line.contains("resource.ready")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, shorter).unwrap();
    let differs = site.ops(&["events", "--verify", &file]);
    assert_eq!(
        (differs.status.code(), text(&differs).contains("not in the export")),
        (Some(65), true),
        "{}",
        text(&differs)
    );
    std::fs::write(&file, &lines).unwrap();
    // The database is changed: another holder appears to have released the lease.
    site.server.kill();
    let (config, dump) = (site.server.config(), site.server.folder.path().join("dump"));
    let (config, dump) = (config.to_str().unwrap(), dump.to_str().unwrap());
    let run = |args: &[&str]| {
        let output = site.server.cli(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
    };
    run(&["db", "dump", "--config", config, dump]);
    let whole = std::fs::read_to_string(dump).unwrap();
    let forged: String = whole
        .lines()
        .map(|line| match line.contains("lease.released") {
            true => line.replace("web-ci", "web-cj") + "\n",
            false => line.to_owned() + "\n",
        })
        .collect();
    assert_ne!(forged, whole);
    std::fs::write(dump, forged).unwrap();
    for name in ["w.db", "w.db-wal", "w.db-shm"] {
        let _ = std::fs::remove_file(site.server.folder.path().join(name));
    }
    run(&["db", "restore", "--config", config, dump]);
    site.server.spawn();
    site.until_up();
    let found = site.ops(&["events", "--verify", &file, "--json"]);
    assert_eq!(found.status.code(), Some(65), "{}", text(&found));
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let kinds: Vec<_> =
        found["differences"].as_array().unwrap().iter().map(|one| one["entry"]["kind"].clone()).collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| kind == "lease.released"), "{found}");
    assert!(found["agree"].as_u64() > Some(3), "{found}");
}
