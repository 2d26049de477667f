//! Agents of CI products need the role `agent` and nothing else; what runs for them gets nothing of theirs.

use crate::support::{LOCAL, Server, repository, text};
use serde_json::json;

#[test]
fn the_role_of_agents_is_enough_for_all_of_it() {
    let mut server = Server::prepared("w.db");
    repository(&server.folder.path().join("origin"));
    let made = server.json(&["token", "new", "ci", "--tenant", "web", "--role", "agent", "--expires", "never"]);
    let token = made["token"].as_str().unwrap().to_owned();
    server.configure(made["configuration"].as_str().unwrap(), LOCAL);
    server.spawn();
    let cli = |args: &[&str]| server.command(args).env("WHARFINGER_AUTH_TOKEN", &token).output().unwrap();
    server.wait("the server to answer", || cli(&["pools"]).status.success().then_some(()));
    assert_eq!(cli(&["resources"]).status.code(), Some(77), "the operator's service is closed");

    let path = server.folder.path().join("r.json");
    let output = cli(&super::line(
        &path,
        &[
            "--pool",
            "copies",
            "--fetch",
            "f",
            "--fetch-to",
            "/tmp",
            "--fetch-on",
            "success",
            "--",
            "sh",
            "-c",
            "exit 3",
        ],
    ));
    let result = super::read(&path).unwrap();
    assert_eq!((output.status.code(), &result["fault"]), (Some(3), &json!("UNDECIDED")), "{}", text(&output));
    assert!(result["attempts"][0]["finding"].is_object(), "whose fault is told to the holder: {result:#}");

    let leased = cli(&["--json", "lease", "--pool", "hosts", "--ttl", "30s", "--wait", "60s"]);
    let leased: serde_json::Value = serde_json::from_slice(&leased.stdout).unwrap();
    let id = leased["lease"]["id"].as_str().unwrap();
    let file = server.folder.path().join("while");
    std::fs::write(&file, "").unwrap();
    let kept = cli(&["keep", id, "--detach", "--file", file.to_str().unwrap()]);
    assert!(kept.status.success(), "{}", text(&kept));
    let on = cli(&["on", id, "--", "sh", "-c", "echo ${WHARFINGER_AUTH_TOKEN:-none}; exit 4"]);
    assert_eq!(on.status.code(), Some(4), "{}", text(&on));
    std::fs::remove_file(&file).unwrap();
    assert!(cli(&["release", id]).status.success());

    let job = [
        ("CUSTOM_ENV_GITLAB_CI", "true"),
        ("CUSTOM_ENV_CI_JOB_ID", "7"),
        ("CUSTOM_ENV_CI_JOB_URL", "https://gitlab/7"),
    ];
    let gitlab = |lease: &str, args: &[&str]| {
        let mut command = server.command(args);
        command.env("WHARFINGER_AUTH_TOKEN", &token).envs(job);
        if !lease.is_empty() {
            command.env("WHARFINGER_LEASE", lease);
        }
        command.output().unwrap()
    };
    let answer = gitlab("", &["gitlab", "config", "--pool", "hosts"]);
    assert!(answer.status.success(), "{}", text(&answer));
    let again = gitlab("", &["gitlab", "config", "--pool", "hosts"]);
    assert_eq!(answer.stdout, again.stdout, "the same lease: {}", text(&again));
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    let id = answer["job_env"]["WHARFINGER_LEASE"].as_str().unwrap();
    let script = server.folder.path().join("script");
    std::fs::write(&script, "echo well\n").unwrap();
    let ran = gitlab(id, &["gitlab", "run", script.to_str().unwrap(), "step_script"]);
    assert_eq!((ran.status.code(), &*String::from_utf8_lossy(&ran.stdout)), (Some(0), "well\n"), "{}", text(&ran));
    // Without the lease in its environment: found by its job.
    let over = gitlab("", &["gitlab", "cleanup"]);
    assert!(over.status.success(), "{}", text(&over));
    let lease = cli(&["--json", "get", id]);
    let lease: serde_json::Value = serde_json::from_slice(&lease.stdout).unwrap();
    assert_eq!((&lease["state"], &lease["outcome"]), (&json!("RELEASED"), &json!("OK")), "{lease}");
}

#[test]
fn a_command_here_does_not_write_the_result_of_its_parent() {
    let server = crate::support::local();
    let path = server.folder.path().join("r.json");
    let script = "echo ${WHARFINGER_RESULT:-none} ${WHARFINGER_EXIT_FAILED:-none} ${WHARFINGER_CI:-none}; exit 3";
    let output = server
        .command(&["exec", "--local", "--pool", "hosts", "--no-check", "--", "sh", "-c", script])
        .env("WHARFINGER_RESULT", &path)
        .env("WHARFINGER_EXIT_FAILED", "9")
        .env("WHARFINGER_CI", "auto")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "none none none\n", "{}", text(&output));
    let result = super::read(&path).unwrap();
    assert_eq!((output.status.code(), &result["exit_code"]), (Some(9), &json!(3)), "{result:#}");
}
