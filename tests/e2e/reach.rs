//! `run` and its hosts: what it passes on, what it refuses, and what it cannot reach.

use crate::sshd::{Sshd, skip};
use crate::support::{Server, text};
use std::process::{Command, Output, Stdio};

/// A pool `hosts` of these sshd's, two slots each, with the key of the first for holders.
fn serve(hosts: &[(&str, &Sshd)], ssh: &str, work: &std::path::Path) -> Server {
    let key = hosts[0].1.key();
    let (key, work) = (key.display(), work.display());
    let mut config = format!(
        "[[pool]]\nname = \"hosts\"\nadapter = \"ssh\"\nslots = 2\nmin_ready = {}\n[pool.ssh]\nuser = \"root\"\nkey = \"{key}\"\n\
         work_dir = \"{work}\"\nholder_key = \"{key}\"\n{ssh}\n",
        hosts.len()
    );
    for (name, sshd) in hosts {
        // Each lets in the key of the first.
        std::fs::copy(hosts[0].1.folder().join("client_key.pub"), sshd.folder().join("authorized_keys")).unwrap();
        let (address, port, host_key) = (sshd.address, sshd.port, sshd.host_key());
        config.push_str(&format!(
            "[[pool.ssh.host]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {port}\nhost_key = \"{host_key}\"\n"
        ));
    }
    let server = Server::start(&config);
    server.wait_for_state("hosts", "READY", hosts.len());
    server
}

fn leases(server: &Server) -> usize {
    server.json(&["ls", "--all"])["leases"].as_array().map_or(0, Vec::len)
}

/// The kinds of all events so far.
fn events(server: &Server) -> String {
    server.json(&["events", "--limit", "1000"]).to_string()
}

#[test]
fn a_script_on_standard_input_runs_on_the_host() {
    if skip("a_script_on_standard_input_runs_on_the_host") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], "", work.path());
    let script = work.path().join("build.sh");
    std::fs::write(&script, "echo built\nexit 3\n").unwrap();
    let run = |options: &[&str]| {
        let arguments = [&["run", "--pool", "hosts"], options, &["--", "sh", "-s"]].concat();
        server.command(&arguments).stdin(std::fs::File::open(&script).unwrap()).output().unwrap()
    };
    let output = run(&[]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"built\n"[..]), "{}", text(&output));
    let output = run(&["--no-input"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b""[..]), "{}", text(&output));
}

#[test]
fn arguments_and_variables_near_the_kernels_limit_arrive() {
    if skip("arguments_and_variables_near_the_kernels_limit_arrive") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], "", work.path());
    let long = "it's {\"id\": %s}\n".repeat(7000);
    let (variable, check) = (format!("EVENT={long}"), "test \"$1\" = \"$EVENT\" && printf %s \"$1\" | wc -c");
    let output = server.cli(&["run", "--pool", "hosts", "-e", &variable, "--", "sh", "-c", check, "sh", &long]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), long.len().to_string());
    assert!(!events(&server).contains("resource.suspect"));
}

#[test]
fn a_command_that_no_host_could_start_leases_nothing() {
    if skip("a_command_that_no_host_could_start_leases_nothing") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], "", work.path());
    let output = server.cli(&["run", "--pool", "hosts", "-e", "my-var=1", "--", "true"]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
    assert!(text(&output).contains("my-var"), "{}", text(&output));
    let many: Vec<String> = (0..20).map(|_| "x".repeat(90_000)).collect();
    let arguments: Vec<&str> =
        ["run", "--pool", "hosts", "--", "true"].into_iter().chain(many.iter().map(String::as_str)).collect();
    let output = server.cli(&arguments);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
    assert_eq!(leases(&server), 0);
}

/// The way to the hosts, which a process with NO_WAY in its environment does not have.
const WAY: &str = r#"proxy_command = """bash -c '[ -z \"$NO_WAY\" ] || { echo no way here >&2; exit 1; }; exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3'""""#;

#[test]
fn an_agent_without_a_way_to_the_hosts_takes_none_of_them_out() {
    if skip("an_agent_without_a_way_to_the_hosts_takes_none_of_them_out") {
        return;
    }
    let (a, b) = (Sshd::start(), Sshd::start());
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a), ("b", &b)], WAY, work.path());
    let others: Vec<String> = (0..2)
        .map(|i| {
            let holder = format!("other {i}");
            let lease =
                server.json(&["lease", "--pool", "hosts", "--wait", "60s", "--ttl", "10m", "--holder", &holder]);
            lease["lease"]["id"].as_str().unwrap().to_string()
        })
        .collect();
    let output = server.command(&["run", "--pool", "hosts", "--", "true"]).env("NO_WAY", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", text(&output));
    assert!(text(&output).contains("could be reached from here"), "{}", text(&output));
    assert!(text(&output).contains("no way here"), "{}", text(&output));
    // The server's own logins decide, and clear each host.
    server.wait_for_state("hosts", "READY", 2);
    let told = events(&server);
    assert!(told.contains("lease.unreached") && !told.contains("TAINTED"), "{told}");
    assert!(!told.contains("resource.suspect"), "each host serves others all the time: {told}");
    for lease in others {
        let lease = server.json(&["get", &lease]);
        assert_eq!(lease["state"], "ACTIVE", "{lease}");
    }
    let output = server.cli(&["run", "--pool", "hosts", "--", "true"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_host_that_takes_no_new_logins_is_taken_out_and_its_jobs_run_elsewhere() {
    if skip("a_host_that_takes_no_new_logins_is_taken_out_and_its_jobs_run_elsewhere") {
        return;
    }
    let (a, b) = (Sshd::start(), Sshd::start());
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a), ("b", &b)], "", work.path());
    a.revoke(true);
    // Three jobs at once do not fit on one host.
    let jobs: Vec<std::process::Child> = (0..3)
        .map(|_| {
            let mut job: Command = server.command(&["run", "--pool", "hosts", "--", "sleep", "1"]);
            job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let outputs: Vec<Output> = jobs.into_iter().map(|job| job.wait_with_output().unwrap()).collect();
    for output in &outputs {
        assert_eq!(output.status.code(), Some(0), "{}", text(output));
    }
    server.wait_for_state("hosts", "SUSPECT", 1);
    assert!(server.json(&["resources"]).to_string().contains("AUTH_FAILED"));
    for _ in 0..2 {
        let output = server.cli(&["run", "--pool", "hosts", "--", "true"]);
        assert_eq!(output.status.code(), Some(0), "no next victim: {}", text(&output));
    }
    a.revoke(false);
    server.wait_for_state("hosts", "READY", 2);
}

#[test]
fn a_holder_reports_that_it_cannot_reach_its_resource() {
    if skip("a_holder_reports_that_it_cannot_reach_its_resource") {
        return;
    }
    let a = Sshd::start();
    let work = tempfile::tempdir().unwrap();
    let server = serve(&[("a", &a)], "", work.path());
    let lease = server.json(&["lease", "--pool", "hosts", "--wait", "60s", "--ttl", "10m", "--holder", "agent"]);
    let id = lease["lease"]["id"].as_str().unwrap();
    let output = server.cli(&["report", id, "--unreached", "no route from the agent"]);
    assert!(output.status.success() && text(&output).contains("is in no doubt"), "{}", text(&output));
    let told = events(&server);
    assert!(told.contains("lease.unreached") && told.contains("no route from the agent"), "{told}");
    // A login by the server decides: it gets in, so that the host serves on.
    assert!(!told.contains("lease.reported") && !told.contains("resource.suspect"), "{told}");
    // Where the server cannot get in either, no new lease goes there.
    a.revoke(true);
    assert!(server.cli(&["report", id, "--unreached"]).status.success());
    server.wait_for_state("hosts", "SUSPECT", 1);
    assert_eq!(server.json(&["get", id])["state"], "ACTIVE");
    a.revoke(false);
    server.wait_for_state("hosts", "READY", 1);
}
