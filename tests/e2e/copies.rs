//! The main job: builds in leased working copies, and what happens when a copy is mangled under them.

use crate::support::{local, text};

#[test]
fn a_build_runs_in_a_leased_copy_and_its_output_and_exit_code_come_back() {
    let server = local();
    let output = server.cli(&["run", "--pool", "copies", "--", "cat", "hello.txt"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");

    let output = server.cli(&["run", "--pool", "copies", "--branch", "feature", "--", "cat", "hello.txt"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello feature\n", "{}", text(&output));

    let output = server.cli(&["run", "--pool", "copies", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("err\n"));
}

#[test]
fn a_failing_command_costs_one_check() {
    let server = local();
    let output = server.cli(&["run", "--pool", "copies", "--", "false"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is healthy: the failure is the command's own"));
    server.wait("the clean-up to end", || {
        let free =
            |row: &serde_json::Value| row["state"] == "READY" && row["leases"].as_array().is_none_or(Vec::is_empty);
        server.resources().iter().any(|row| row["pool"] == "copies" && free(row)).then_some(())
    });
    let events = server.json(&["events", "--pool", "copies", "--limit", "1000"]);
    let of = |kind: &str| events["events"].as_array().unwrap().iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((of("resource.suspect"), of("resource.cleared")), (1, 1), "{events}");
}

#[test]
fn a_build_that_removes_dot_git_is_the_last_to_notice_it() {
    let server = local();
    // The work fails after it mangled its copy: the check finds it, the lease breaks, the copy is mended before anyone
    // gets it again.
    let output = server.cli(&["run", "--pool", "copies", "--retries", "0", "--", "sh", "-c", "rm -rf .git; exit 1"]);
    assert_eq!(output.status.code(), Some(75), "{}", text(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("GIT_DIR_MISSING"), "{}", text(&output));
    for _ in 0..3 {
        let output = server.cli(&["run", "--pool", "copies", "--", "git", "status", "--porcelain"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "the tree that was handed out is clean");
    }
    let events = server.json(&["events", "--pool", "copies", "--limit", "1000"]);
    let kinds: Vec<&str> = events["events"].as_array().unwrap().iter().filter_map(|e| e["kind"].as_str()).collect();
    assert!(kinds.contains(&"resource.suspect"), "{kinds:?}");
    assert!(kinds.contains(&"resource.repairing"), "{kinds:?}");
    assert!(kinds.contains(&"resource.cleared"), "{kinds:?}");
}

#[test]
fn a_copy_recycled_under_a_build_breaks_the_lease_and_the_build_is_retried() {
    let server = local();
    let marker = server.folder.path().join("tries");
    let script = format!("echo try >> {0}; test $(wc -l < {0}) -ge 2 || sleep 300", marker.display());
    let run = server.command(&["run", "--pool", "copies", "--retries", "2", "--", "sh", "-c", &script]);
    let mut run = { run }.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    server.wait("the first try to run", || marker.exists().then_some(()));
    let leases = server.json(&["ls"]);
    let lease = leases["leases"].as_array().unwrap().iter().find(|l| l["pool"] == "copies").unwrap().clone();
    let copy = lease["resource_id"].as_str().unwrap();
    let recycled = server.cli(&["recycle", copy, "--reason", "test"]);
    assert!(recycled.status.success(), "{}", text(&recycled));
    let code = server.wait("the run to end", || run.try_wait().unwrap());
    let output = run.wait_with_output().unwrap();
    assert!(code.success(), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(&marker).unwrap().lines().count(), 2);
    let told = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(told.contains("OPERATOR"), "the break is told with its cause: {told}");
    let broken = server.json(&["get", lease["id"].as_str().unwrap()]);
    assert_eq!(broken["state"], "BROKEN", "{broken}");
}

#[test]
fn work_for_a_ref_that_does_not_exist_fails_and_taints_nothing() {
    let server = local();
    let output = server.cli(&["run", "--pool", "copies", "--branch", "nowhere", "--", "true"]);
    assert_ne!(output.status.code(), Some(0));
    let told = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(told.contains("REF_NOT_FOUND") && told.contains("nowhere"), "{told}");
    let events = server.json(&["events", "--pool", "copies", "--limit", "1000"]);
    assert!(!events.to_string().contains("resource.suspect"), "nothing was tainted: {events}");
}
