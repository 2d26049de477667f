//! GitLab Runner's custom executor: the driver under a double of the runner (`gitlab_runner.py`).

use crate::sshd::{Sshd, skip};
use crate::support::{LOCAL, PATIENCE, Server, local, repository, signal};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A job under the double.
struct Job {
    runner: Child,
    id: u32,
}

/// The lines of the double: the stages, and the end.
struct Over {
    stages: Vec<(String, i64, f64)>,
    lease: String,
    status: String,
    exit_code: Value,
    said: String,
}

impl Job {
    fn start(server: &Server, pool: &str, id: u32, scripts: Value, job: Value) -> Self {
        Self::of_commit(server, pool, id, id, scripts, job)
    }

    fn of_commit(server: &Server, pool: &str, id: u32, commit: u32, scripts: Value, job: Value) -> Self {
        let line = |verb: &str| vec!["gitlab".to_string(), verb.to_string()];
        let config = [line("config"), ["--pool", pool, "--ttl", "6s"].map(String::from).to_vec()].concat();
        let given = json!({
            "program": env!("CARGO_BIN_EXE_wharfinger"),
            "arguments": { "config": config, "prepare": line("prepare"), "run": line("run"), "cleanup": line("cleanup") },
            "variables": {
                "GITLAB_CI": "true", "CI_JOB_ID": id.to_string(), "CI_PROJECT_PATH": "group/app", "CI_JOB_NAME": "test",
                "CI_COMMIT_SHA": format!("{commit:040}"), "CI_JOB_URL": format!("https://gitlab.example/group/app/-/jobs/{id}"),
            },
            "scripts": scripts,
            "job": job,
        });
        let mut runner = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/ci/gitlab_runner.py"))
            .env("WHARFINGER_SERVER", &server.address)
            // A double that is killed leaves its folder.
            .env("TMPDIR", server.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        runner.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
        Self { runner, id }
    }

    /// The lease of the job, once it is active.
    fn lease(&self, server: &Server) -> String {
        server.wait("the job to have a lease", || {
            let all = server.json(&["ls"]);
            let holder = format!("https://gitlab.example/group/app/-/jobs/{}", self.id);
            let lease =
                all["leases"].as_array().unwrap().iter().find(|l| l["holder"] == holder && l["state"] == "ACTIVE");
            lease.map(|lease| lease["id"].as_str().unwrap().to_string())
        })
    }

    fn end(self) -> Over {
        let output = self.runner.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).to_string();
        let text = String::from_utf8_lossy(&output.stdout).to_string();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let end = lines.last().filter(|line| line["status"].is_string()).unwrap_or_else(|| panic!("{text}\n{said}"));
        let stage = |line: &Value| {
            let name = line["stage"].as_str()?.to_string();
            Some((name, line["code"].as_i64().unwrap(), line["seconds"].as_f64().unwrap()))
        };
        let lease = lines.iter().find_map(|line| line["answer"]["job_env"]["WHARFINGER_LEASE"].as_str());
        Over {
            stages: lines.iter().filter_map(stage).collect(),
            lease: lease.unwrap_or_default().to_string(),
            status: end["status"].as_str().unwrap().to_string(),
            exit_code: end["exit_code"].clone(),
            said,
        }
    }
}

impl Over {
    fn code(&self, stage: &str) -> i64 {
        self.stages.iter().find(|(name, _, _)| name == stage).unwrap_or_else(|| panic!("{stage}: {:?}", self.stages)).1
    }
}

fn run(server: &Server, pool: &str, id: u32, scripts: Value) -> Over {
    Job::start(server, pool, id, scripts, json!({})).end()
}

fn outcome(server: &Server, lease: &str) -> (String, String) {
    let lease = server.json(&["get", lease]);
    (lease["state"].as_str().unwrap().into(), lease["outcome"].as_str().unwrap_or_default().into())
}

fn pair(state: &str, outcome: &str) -> (String, String) {
    (state.into(), outcome.into())
}

#[test]
fn a_job_of_gitlab_ends_as_its_script_or_its_system_does() {
    let server = local();
    // All stages in their order, in one lease, with what one leaves for the next.
    let scripts = json!({ "get_sources": "echo hello > file", "step_script": "cat file; test -n \"$WHARFINGER_LEASE\"; ! read x", "after_script": "cat file" });
    let over = run(&server, "hosts", 1, scripts);
    assert_eq!((over.status.as_str(), &over.exit_code), ("success", &json!(null)), "{}", over.said);
    let names: Vec<&str> = over.stages.iter().map(|(name, _, _)| name.as_str()).collect();
    let all = "config prepare prepare_script get_sources restore_cache download_artifacts step_script after_script archive_cache \
               upload_artifacts_on_success cleanup_file_variables cleanup";
    assert_eq!(names.join(" "), all);
    assert!(over.stages.iter().all(|(_, code, _)| *code == 0), "{:?}", over.stages);
    assert_eq!(outcome(&server, &over.lease), pair("RELEASED", "OK"));
    let lease = server.json(&["get", &over.lease]);
    assert_eq!((&lease["request_id"], &lease["tags"]["ci"]), (&json!("gl-1"), &json!("gitlab")), "{lease}");

    // The script's own code is in the file, and never the driver's: 2 would be the system's.
    for (id, code) in [(2, 3), (3, 2)] {
        let over = run(&server, "hosts", id, json!({ "step_script": format!("exit {code}") }));
        assert_eq!(
            (over.status.as_str(), &over.exit_code),
            ("script_failure", &json!(code.to_string())),
            "{}",
            over.said
        );
        assert_eq!((over.code("step_script"), over.code("after_script")), (1, 0), "{:?}", over.stages);
        assert_eq!(outcome(&server, &over.lease), pair("RELEASED", "FAILED"));
    }

    // A failure on a tree that a check finds mangled is the system's.
    let over = run(&server, "copies", 4, json!({ "step_script": "rm -rf \"$WHARFINGER_PATH/.git\"; exit 3" }));
    assert_eq!((over.status.as_str(), &over.exit_code), ("runner_system_failure", &json!(null)), "{}", over.said);
    assert_eq!(outcome(&server, &over.lease).0, "BROKEN");
    assert!(over.said.contains("RESOURCE_MANGLED"), "{}", over.said);

    // A pool that is not there.
    let over = run(&server, "nothing", 5, json!({}));
    assert_eq!((over.status.as_str(), over.code("config")), ("runner_system_failure", 2), "{}", over.said);

    // Artifacts without gitlab-runner on the host: found out before the job.
    let over = Job::start(&server, "hosts", 6, json!({}), json!({ "artifacts": [{ "name": "x" }] })).end();
    assert_eq!((over.status.as_str(), over.code("prepare")), ("runner_system_failure", 2), "{}", over.said);
    assert!(over.said.contains("gitlab-runner is not on the host"), "{}", over.said);
    let leases = server.json(&["ls", "--pool", "hosts"]);
    assert!(
        leases["leases"].as_array().unwrap().iter().all(|l| l["request_id"] != "gl-6"),
        "config was called again, for one lease"
    );
}

#[test]
fn a_job_that_is_cancelled_or_whose_runner_is_killed_gives_its_lease_back() {
    let mut server = local();
    let started = server.folder.path().join("started");
    let script = json!({ "step_script": format!("touch {}; sleep 300", started.display()) });
    let begin = |server: &Server, id: u32| {
        let _ = std::fs::remove_file(&started);
        let job = Job::start(server, "hosts", id, script.clone(), json!({}));
        server.wait("the script to run", || started.exists().then_some(()));
        job
    };
    let job = begin(&server, 1);
    signal(job.runner.id(), "USR1");
    let over = job.end();
    assert_eq!(over.status, "canceled", "{}", over.said);
    assert_eq!(outcome(&server, &over.lease), pair("RELEASED", "ABANDONED"));

    // Killed: nothing renews the lease, and it ends by its TTL.
    let mut job = begin(&server, 2);
    let lease = job.lease(&server);
    job.runner.kill().unwrap();
    job.runner.wait().unwrap();
    server.wait("the lease to end by its TTL", || (outcome(&server, &lease).0 == "EXPIRED").then_some(()));

    // A broker that is started again is not seen, and the stages go on for longer than the TTL.
    let done = server.folder.path().join("done");
    let script = json!({ "step_script": format!("touch {}; until [ -e {} ]; do sleep 0.1; done", started.display(), done.display()) });
    let _ = std::fs::remove_file(&started);
    let job = Job::start(&server, "hosts", 3, script, json!({}));
    server.wait("the script to run", || started.exists().then_some(()));
    let lease = job.lease(&server);
    server.kill();
    server.run();
    server.wait("the keeper's session to be resumed", || {
        let events = server.json(&["events"]);
        events["events"].as_array()?.iter().any(|event| event["kind"] == "session.resumed").then_some(())
    });
    assert_eq!(server.json(&["get", &lease])["state"], "ACTIVE");
    std::fs::write(&done, "").unwrap();
    let over = job.end();
    assert_eq!((over.status.as_str(), over.lease.as_str()), ("success", lease.as_str()), "{}", over.said);
}

#[test]
fn a_host_that_dies_under_a_job_is_the_systems_failure() {
    if skip("a_host_that_dies_under_a_job_is_the_systems_failure") {
        return;
    }
    let mut a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = Server::start(&crate::hosts::pools(&[("a", &a)], work.path()));
    let started = server.folder.path().join("started");
    let script = json!({ "step_script": format!("touch {}; sleep 300", started.display()) });
    let job = Job::start(&server, "hosts", 1, script, json!({}));
    server.wait("the script to run", || started.exists().then_some(()));
    a.kill_hard();
    let killed = Instant::now();
    let over = job.end();
    assert!(killed.elapsed() < PATIENCE, "{:?}", killed.elapsed());
    assert_eq!((over.status.as_str(), over.code("step_script")), ("runner_system_failure", 2), "{}", over.said);
    assert_eq!(outcome(&server, &over.lease).0, "BROKEN");
    // The stages after it are refused at once.
    for (stage, code, seconds) in over.stages.iter().skip_while(|(stage, _, _)| stage != "step_script").skip(1) {
        assert_eq!(*code, if stage == "cleanup" { 0 } else { 2 }, "{stage}: {}", over.said);
        assert!(*seconds < 10.0, "{stage} took {seconds} s");
    }
}

#[test]
fn a_job_that_breaks_several_trees_has_failed_and_is_not_run_again() {
    let pools = LOCAL.replace("[pool.copies]", "[pool.doubt]\nrepairs = 0\n[pool.copies]");
    let server = Server::start(&pools);
    repository(&server.folder.path().join("origin"));
    let script = json!({ "step_script": "rm -rf \"$WHARFINGER_PATH/.git\"; exit 3" });
    let mut ends = Vec::new();
    // As GitLab runs it again: other jobs of the same commit.
    for id in 1..=3 {
        let over = Job::of_commit(&server, "copies", id, 1, script.clone(), json!({})).end();
        let blamed = over.said.contains("WORK_BLAMED");
        assert_eq!(blamed, over.status == "script_failure", "{}", over.said);
        ends.push(over.status);
    }
    assert_eq!(ends, ["runner_system_failure", "runner_system_failure", "script_failure"]);
}
