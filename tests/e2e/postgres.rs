//! The server on a real PostgreSQL: all that it does on SQLite, and what only a database on another machine can do to it.

use crate::kill::{HOSTS, under_load};
use crate::postgresql::{Cluster, PASSWORD, schema, shared};
use crate::support::{LOCAL, Server, repository, text};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The lines of [store] for a schema in this database.
fn lines(cluster: &Cluster, schema: &str) -> String {
    format!("engine = \"postgres\"\nurl = \"{}\"\nschema = \"{schema}\"", cluster.url())
}

fn serving(cluster: &Cluster, schema: &str, pools: &str) -> Server {
    let mut server = Server::prepared("unused");
    server.engine = Some(lines(cluster, schema));
    repository(&server.folder.path().join("origin"));
    server.configure("", pools);
    server.run();
    server
}

fn stdout(server: &Server, args: &[&str]) -> String {
    let output = server.cli(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).to_string()
}

/// A lease on a working copy, a build in it, SIGKILL and a graceful stop between: nothing is lost, and nothing is in a file.
#[test]
fn a_server_on_postgresql() {
    let Some(cluster) = shared() else { return };
    let own = schema();
    let mut server = serving(cluster, &own, LOCAL);
    let lease = server.json(&["lease", "--pool", "copies", "--ttl", "1h", "--wait", "1m"])["lease"].clone();
    assert_eq!(lease["state"], "ACTIVE", "{lease}");
    let id = lease["id"].as_str().unwrap();
    let path = Path::new(lease["access"]["path"].as_str().unwrap());
    assert!(path.join("hello.txt").exists());
    server.kill();
    server.run();
    let again = server.json(&["get", id]);
    for what in ["state", "access", "fencing_token", "resource_id"] {
        assert_eq!(again[what], lease[what], "{what}");
    }
    assert!(stdout(&server, &["run", "--pool", "copies", "--", "cat", "hello.txt"]).contains("hello"));
    assert!(stdout(&server, &["events", "--lease", id]).contains("lease.active"));
    assert!(!stdout(&server, &["why", id]).is_empty());
    assert!(server.stop().success(), "a graceful stop ends with 0");
    server.run();
    assert!(server.cli(&["release", id]).status.success());
    server.wait("the lease to be released", || (server.json(&["get", id])["state"] == "RELEASED").then_some(()));
    // An operator finds it in the tables.
    let asked = format!("SELECT state, holder <> '' FROM {own}.leases WHERE id = '{id}'");
    assert_eq!(cluster.sql("wharf", &asked), "RELEASED|t");
    let log = server.log();
    assert!(!log.contains(PASSWORD) && !log.contains("p%40ss"), "{log}");
    assert!(
        log.contains(&format!("store=postgres://wharfinger@127.0.0.1:{}/wharf (schema {own})", cluster.port())),
        "{log}"
    );
    let files: Vec<_> =
        std::fs::read_dir(server.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().contains("db")), "{files:?}");
}

#[test]
fn sigkill_of_a_server_on_postgresql_under_load() {
    let Some(cluster) = shared() else { return };
    under_load(serving(cluster, &schema(), HOSTS), |server| {
        server.kill();
        server.run();
    });
}

#[test]
fn sigkill_of_postgresql_under_load() {
    let Some(mut cluster) = Cluster::start() else { return };
    let server = serving(&cluster, &schema(), HOSTS);
    under_load(server, |_| {
        cluster.kill();
        cluster.run();
    });
}

/// The database is stopped for longer than a lease lives. Its holder cannot renew, so it does not expire; a build with a longer
/// TTL goes on.
#[test]
fn a_database_that_is_away_breaks_no_lease() {
    let Some(mut cluster) = Cluster::start() else { return };
    let server = serving(&cluster, &schema(), LOCAL);
    let kept = server.json(&["lease", "--pool", "copies", "--ttl", "5s", "--wait", "1m"])["lease"].clone();
    let id = kept["id"].as_str().unwrap();
    let go = server.folder.path().join("go");
    let began = server.folder.path().join("began");
    let build =
        format!("echo began >> {}; until [ -e {} ]; do sleep 0.1; done; echo built", began.display(), go.display());
    let run = server
        .command(&["run", "--pool", "copies", "--ttl", "1m", "--", "sh", "-c", &build])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.wait("the build to run", || {
        let active =
            server.json(&["ls"])["leases"].as_array().unwrap().iter().filter(|l| l["state"] == "ACTIVE").count();
        (active >= 2).then_some(())
    });
    cluster.stop();
    let down = Instant::now();
    let mut refused = 0;
    while down.elapsed() < Duration::from_secs(8) {
        let output = server.cli(&["lease", "--pool", "copies"]);
        assert!(!output.status.success(), "nothing is promised without the database: {}", text(&output));
        refused += usize::from(output.status.code() == Some(69));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(refused > 0, "whoever asks is told");
    cluster.run();
    server.wait("the server to answer", || server.cli(&["pools"]).status.success().then_some(()));
    assert_eq!(server.json(&["get", id])["state"], "ACTIVE", "it could not be renewed, so it did not expire");
    std::fs::write(&go, "").unwrap();
    let output = run.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output), server.log());
    assert!(String::from_utf8_lossy(&output.stdout).contains("built"), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(&began).unwrap(), "began\n", "it ran once");
}

/// Two servers on one schema are a mistake: the later one has it, the other ends and says so, also if it is idle.
#[test]
fn a_second_server_ends_the_first() {
    let Some(cluster) = shared() else { return };
    let own = schema();
    let mut first = serving(cluster, &own, HOSTS);
    first.wait_for_state("hosts", "READY", 1);
    let second = serving(cluster, &own, HOSTS);
    // It has nothing to write, and finds out all the same.
    let ended = first.wait_for_end();
    assert_eq!(ended.code(), Some(78), "{}", first.log());
    let log = first.log();
    assert!(log.contains("another server has taken over the database") && log.contains("stop the other"), "{log}");
    second.wait_for_state("hosts", "READY", 1);
    let lease = second.json(&["lease", "--pool", "hosts", "--wait", "30s"])["lease"].clone();
    assert_eq!(lease["state"], "ACTIVE");
}

/// A fault on the way to the database is reported at the start, with an exit code that a supervisor understands.
#[test]
fn a_server_that_cannot_reach_its_database_says_why() {
    let Some(cluster) = shared() else { return };
    let server = Server::prepared("unused");
    let serve = |lines: &str| {
        let text = std::fs::read_to_string(server.config()).unwrap();
        let (head, rest) = text.split_once("[store]\n").unwrap();
        let rest = rest.split_once("[[pool]]").unwrap().1;
        std::fs::write(server.config(), format!("{head}[store]\n{lines}\n[[pool]]{rest}")).unwrap();
        let mut command = server.command(&["serve", "--config"]);
        command.arg(server.config()).output().unwrap()
    };
    server.configure("", HOSTS);
    let password = server.folder.path().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let port = cluster.port();
    let url = format!(
        "postgres://wharfinger@127.0.0.1:{port}/wharf?sslmode=verify-full&sslrootcert={}/ca.crt",
        cluster.folder().display()
    );
    let with_file =
        format!("engine = \"postgres\"\nurl = \"{url}\"\npassword_file = \"password\"\nschema = \"{}\"", schema());
    let output = serve(&with_file);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert!(text(&output).contains("does not let this user in"), "{}", text(&output));
    assert!(!text(&output).contains("wrong"), "{}", text(&output));

    let output = serve("engine = \"postgres\"\nurl = \"postgres://w:geheim@127.0.0.1:1/w\"");
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("does not answer") && !text(&output).contains("geheim"), "{}", text(&output));

    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let mut server = server;
    server.engine = Some(with_file);
    server.configure("", HOSTS);
    server.run();
    let shown = server.command(&["check-config"]).arg(server.config()).output().unwrap();
    assert!(
        shown.status.success() && text(&shown).contains("store   postgres://wharfinger@127.0.0.1"),
        "{}",
        text(&shown)
    );
}
