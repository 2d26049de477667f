//! `on`, `keep` and `ssh-config`: a lease that is held while others work in it.

use crate::sshd::{Sshd, skip};
use crate::support::{Server, local, repository, signal, text};
use serde_json::Value;
use std::process::{Command, Stdio};

fn lease(server: &Server, pool: &str, ttl: &str) -> String {
    let answer = server.json(&["lease", "--pool", pool, "--ttl", ttl, "--wait", "60s", "--holder", "test"]);
    answer["lease"]["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_string()
}

fn get(server: &Server, lease: &str) -> Value {
    server.json(&["get", lease])
}

#[test]
fn commands_run_on_a_lease_that_is_held_and_end_with_it() {
    let server = local();
    let id = lease(&server, "copies", "60s");
    let path = get(&server, &id)["access"]["path"].as_str().unwrap().to_string();
    std::fs::create_dir(format!("{path}/sub dir")).unwrap();
    let mut command = server.command(&[
        "on",
        &id,
        "--chdir",
        "sub dir",
        "-e",
        "X=y z",
        "--",
        "sh",
        "-c",
        "pwd; echo $X; cat; exit 7",
    ]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"input").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{path}/sub dir\ny z\ninput"));
    assert_eq!(get(&server, &id)["state"], "ACTIVE", "nothing is released");
    for (args, code) in [
        (&["--exit-failed", "4", "--", "false"][..], 4),
        (&["--", "/no/such/program"], 127),
        (&["--timeout", "200ms", "--", "sleep", "60"], 124),
        (&["--", "sh", "-c", "exit 113"], 113),
    ] {
        let output = server.cli(&[&["on", &id][..], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
    }

    let pid_file = server.folder.path().join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300", pid_file.display());
    for (ends, code) in [("TERM", 143), ("break", 9)] {
        let _ = std::fs::remove_file(&pid_file);
        let mut child = server
            .command(&["on", &id, "--exit-lost", "9", "--", "sh", "-c", &script])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        server.wait("the command to run", || pid_file.exists().then_some(()));
        let pid = std::fs::read_to_string(&pid_file).unwrap().trim().to_string();
        if ends == "break" {
            server.json(&["break", &id, "--reason", "test"]);
        } else {
            signal(child.id(), ends);
        }
        let status = server.wait("it to end", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(code), "{ends}");
        server.wait("the command to be gone", || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (state.is_empty() || state.contains(") Z ")).then_some(())
        });
    }
    // One that is over.
    let output = server.cli(&["on", &id, "--", "true"]);
    assert_eq!(output.status.code(), Some(75), "{}", text(&output));
    assert!(text(&output).contains("OPERATOR"), "{}", text(&output));
    let output = server.cli(&["on", "lse_none", "--", "true"]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
}

#[test]
fn a_command_that_fails_on_an_unfit_resource_ends_as_one_whose_lease_is_lost() {
    let server = local();
    let id = lease(&server, "copies", "60s");
    for (args, code) in [(&["--check", "--", "sh", "-c", "exit 3"][..], 3), (&["--check", "--", "true"], 0)] {
        let output = server.cli(&[&["on", &id][..], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
    }
    assert_eq!(get(&server, &id)["state"], "ACTIVE", "the resource has passed its check");
    // Without the check the failure counts as the command's, whatever has become of the copy.
    let mangle = "rm -rf .git; exit 3";
    let output = server.cli(&["on", &id, "--", "sh", "-c", mangle]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let output = server.cli(&["on", &id, "--check", "--exit-lost", "9", "--", "sh", "-c", mangle]);
    assert_eq!(output.status.code(), Some(9), "{}", text(&output));
    assert!(text(&output).contains("RESOURCE_MANGLED"), "{}", text(&output));
    assert_eq!(get(&server, &id)["state"], "BROKEN");
}

#[test]
fn a_lease_is_kept_while_its_process_or_file_is_there() {
    let server = local();
    // The parent is killed: its keeper, in a session of its own, lets the lease end by its TTL.
    let id = lease(&server, "copies", "3s");
    let mut parent = Command::new("sleep").arg("300").spawn().unwrap();
    let output = server.cli(&["keep", &id, "--detach", "--pid", &parent.id().to_string()]);
    assert!(output.status.success(), "{}", text(&output));
    let keeper = String::from_utf8_lossy(&output.stdout).trim().to_string();
    let session = Command::new("ps").args(["-o", "sid=", "-p", &keeper]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&session.stdout).trim(), keeper, "a session of its own");
    let first = get(&server, &id)["revision"].clone();
    let begun = std::time::Instant::now();
    server.wait("the lease to outlive its first TTL by far", || {
        let now = get(&server, &id);
        assert_eq!(now["state"], "ACTIVE", "{now}");
        (begun.elapsed().as_secs() > 7).then_some(())
    });
    assert!(!get(&server, &id)["session_id"].is_null(), "a session keeps it");
    parent.kill().unwrap();
    parent.wait().unwrap();
    server.wait("the lease to end by its TTL", || (get(&server, &id)["state"] == "EXPIRED").then_some(()));
    server.wait("the keeper to end", || (!std::path::Path::new(&format!("/proc/{keeper}")).exists()).then_some(()));
    assert!(!first.is_null());

    let id = lease(&server, "copies", "60s");
    let file = server.folder.path().join("while");
    std::fs::write(&file, "").unwrap();
    let keep = |more: &[&str]| {
        let mut command = server.command(&[&["keep", &id, "--file", file.to_str().unwrap()][..], more].concat());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = keep(&[]);
    std::fs::remove_file(&file).unwrap();
    let status = server.wait("the keeper to end", || child.try_wait().unwrap());
    assert!(matches!(status.code(), Some(0 | 65)), "{status}");
    assert_eq!(get(&server, &id)["state"], "ACTIVE", "nothing is released");
    std::fs::write(&file, "").unwrap();
    let mut child = keep(&["--exit-lost", "9"]);
    server.json(&["break", &id, "--reason", "test"]);
    let status = server.wait("the keeper to end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(9));
    for (args, code) in [
        (&["keep", &id][..], 2),
        (&["keep", &id, "--pid", "0"], 65),
        (&["keep", &id, "--file", "/no/such/file"], 65),
        (&["keep", &id, "--detach", "--file", file.to_str().unwrap()], 75),
        (&["keep", "lse_none", "--file", file.to_str().unwrap()], 65),
    ] {
        let output = server.cli(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
    }
}

#[test]
fn ssh_scp_rsync_and_git_work_through_the_configuration_of_a_lease() {
    if skip("ssh_scp_rsync_and_git_work_through_the_configuration_of_a_lease") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = Server::start(&crate::hosts::pools(&[("a", &a)], work.path()));
    let origin = server.folder.path().join("origin");
    repository(&origin);
    let id = lease(&server, "hosts", "60s");
    let printed = server.cli(&["ssh-config", &id]);
    assert!(printed.status.success(), "{}", text(&printed));
    let config = server.folder.path().join("ssh_config");
    std::fs::write(&config, &printed.stdout).unwrap();
    let (config, here) = (config.to_str().unwrap(), server.folder.path());
    std::fs::write(here.join("f"), "content").unwrap();
    let there = get(&server, &id)["access"]["path"].as_str().unwrap().to_string();
    let ssh = format!("ssh -F {config}");
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(here).env("GIT_SSH_COMMAND", &ssh).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).to_string()
    };
    assert_eq!(run("ssh", &["-F", config, &id, "echo hi"]), "hi\n");
    run("scp", &["-O", "-q", "-F", config, "f", &format!("{id}:{there}/scp")]);
    assert_eq!(run("ssh", &["-F", config, &id, &format!("cat {there}/scp")]), "content");
    run("rsync", &["-e", &ssh, &format!("{id}:{there}/scp"), "back"]);
    assert_eq!(std::fs::read_to_string(here.join("back")).unwrap(), "content");
    run("git", &["clone", "-q", &format!("{id}:{}", origin.display()), "clone"]);
    assert_eq!(std::fs::read_to_string(here.join("clone/hello.txt")).unwrap(), "hello\n");
}
