//! The command line as people and scripts use it.

use crate::support::{LOCAL, Server, local, signal, text};
use std::process::Stdio;

#[test]
fn tables_for_people_and_no_colour_off_a_terminal() {
    let server = local();
    for args in [&["pools"][..], &["resources"], &["ls"], &["events"]] {
        let output = server.cli(args);
        assert!(output.status.success(), "{}", text(&output));
        assert!(!output.stdout.contains(&0x1b), "no escape codes off a terminal: {}", text(&output));
    }
    let pools = String::from_utf8_lossy(&server.cli(&["pools"]).stdout).to_string();
    assert!(pools.contains("hosts") && pools.contains("copies"), "{pools}");
}

#[test]
fn interrupting_run_kills_the_command_and_releases_the_lease() {
    let server = local();
    for name in ["INT", "TERM", "HUP"] {
        let marker = server.folder.path().join(name);
        let script = format!("echo $$ $WHARFINGER_LEASE > {}; exec sleep 300", marker.display());
        let mut run = server
            .command(&["run", "--pool", "copies", "--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (pid, lease) = server.wait("the command to run", || {
            let text = std::fs::read_to_string(&marker).ok()?;
            let (pid, lease) = text.trim().split_once(' ')?;
            Some((pid.parse::<u32>().ok()?, lease.to_string()))
        });
        signal(run.id(), name);
        server.wait("the run to end", || run.try_wait().unwrap());
        server.wait("the command to be gone", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            (status.is_empty() || status.contains("State:\tZ")).then_some(())
        });
        server.wait("the lease to be released as abandoned", || {
            let lease = server.json(&["get", &lease]);
            (lease["state"] == "RELEASED" && lease["outcome"] == "ABANDONED").then_some(())
        });
    }
    server.wait("the checks to pass, and nobody to be blamed", || {
        let resources = server.json(&["resources"]);
        let all = resources["resources"].as_array().unwrap();
        assert!(all.iter().all(|r| r["state"] != "QUARANTINED" && r["failures"].as_array().unwrap().is_empty()));
        all.iter().all(|r| r["state"] == "READY").then_some(())
    });
}

#[test]
fn exec_local_runs_here_with_the_lease_in_its_environment() {
    let server = local();
    let output =
        server.cli(&["exec", "--local", "--pool", "copies", "--", "sh", "-c", "cat $WHARFINGER_PATH/hello.txt; env"]);
    assert!(output.status.success(), "{}", text(&output));
    let printed = String::from_utf8_lossy(&output.stdout).to_string();
    for word in ["hello\n", "WHARFINGER_LEASE=lse_", "WHARFINGER_TOKEN=", "WHARFINGER_POOL=copies"] {
        assert!(printed.contains(word), "{word:?} is not in {printed}");
    }
}

/// Users of services have homes that do not exist.
#[test]
fn a_server_and_a_client_without_a_home_run_commands_here() {
    let mut server = Server::prepared("w.db");
    let home = server.config().with_file_name("no-home");
    server.env = vec![("HOME", home.display().to_string())];
    server.configure("", "[[pool]]\nname = \"hosts\"\nadapter = \"local\"\nlocal.root = \"{folder}/scratch\"");
    server.run();
    let output = server
        .command(&["run", "--pool", "hosts", "--queue-for", "60s", "--", "pwd"])
        .env("HOME", &home)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"/"), "{}", text(&output));
}

#[test]
fn a_reload_disables_a_pool_and_its_waiters_wait() {
    let server = local();
    server.wait_for_state("hosts", "READY", 1);
    let disabled = "name = \"copies\"\nenabled = false\ndisabled_reason = \"the remote moves\"";
    server.configure("", &LOCAL.replace("name = \"copies\"", disabled));
    server.reload();
    server.wait("the pool to be disabled", || {
        let pools = server.json(&["pools"]);
        pools["pools"].as_array().unwrap().iter().any(|p| p["name"] == "copies" && p["enabled"] == false).then_some(())
    });
    let lease = server.json(&["lease", "--pool", "copies", "--holder", "test"]);
    let id = lease["lease"]["id"].as_str().unwrap();
    let explained = server.json(&["explain", id]);
    assert!(explained.to_string().contains("DISABLED"), "{explained}");
    let why = "is disabled in the configuration: the remote moves";
    assert!(explained.to_string().contains(why), "{explained}");
    assert!(text(&server.cli(&["pools"])).contains("the remote moves"));
    server.configure("", LOCAL);
    server.reload();
    server.wait("the lease to be served", || (server.json(&["get", id])["state"] == "ACTIVE").then_some(()));
}

#[test]
fn a_reload_with_a_mistake_keeps_what_runs() {
    let server = local();
    server.configure("", "[[pool]]\nname = \"broken\"\n");
    server.reload();
    server.wait("the log to say so", || server.log().contains("this pool has no `adapter`").then_some(()));
    assert!(server.cli(&["run", "--pool", "copies", "--", "true"]).status.success());
    let known = || server.json(&["servers"])["servers"][0].clone();
    let refused = known();
    assert!(refused["configuration_refused_since"].is_string(), "{refused}");
    let problem = refused["configuration_problem"].as_str().unwrap();
    assert!(problem.contains("1 mistake, the first in line") && problem.contains("check-config"), "{problem}");
    server.configure("", LOCAL);
    server.reload();
    server.wait("the text to be taken over", || known()["configuration_refused_since"].is_null().then_some(()));
    assert_eq!(known()["configuration_problem"], "");
}

#[test]
fn a_graceful_stop_ends_open_watches() {
    let mut server = local();
    let watch = server.command(&["--json", "watch"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.wait_for_state("hosts", "READY", 1);
    assert!(server.stop().success());
    let mut watch = watch;
    let _ = watch.kill();
    let _ = watch.wait();
}
