//! A server with TLS, whose callers are known by their certificates.

use crate::support::{LOCAL, Server, text};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use wharfinger_tls::pki::Authority;
use wharfinger_tls::spiffe::Uri;

/// The names that may call, and their roles.
const AUTH: &str = r#"
[[auth.certificate]]
uri = "spiffe://farm/agents/"
tenant = "web"
roles = ["agent"]
[[auth.certificate]]
uri = "spiffe://farm/ops"
tenant = "default"
roles = ["admin"]
"#;

fn settings(more: &str) -> String {
    format!(
        "[server.tls]\ncertificate = \"127.0.0.1.pem\"\nkey = \"127.0.0.1.key\"\nclient_ca = \"ca/ca.pem\"\n\
         crl = \"ca/revoked.pem\"\nreload_every = \"1s\"\n{more}\n{AUTH}"
    )
}

/// A command of the caller with the certificate `NAME.pem`.
fn as_caller(server: &Server, name: &str, args: &[&str]) -> Command {
    let folder = server.folder.path();
    let mut command = server.command(args);
    command
        .env("WHARFINGER_CA_FILE", folder.join("ca/ca.pem"))
        .env("WHARFINGER_CERTIFICATE", folder.join(format!("{name}.pem")))
        .env("WHARFINGER_CERTIFICATE_KEY", folder.join(format!("{name}.key")));
    command
}

/// A server that asks for certificates; `ops`, `7` and `gone` have one, and the last is revoked.
fn serving() -> Server {
    let mut server = Server::prepared("w.db");
    server.address = server.address.replace("http://", "https://");
    server.pki(&["init", "ca", "--domain", "farm"]);
    server.pki(&["server", "ca", "--name", "127.0.0.1", "--for", "1h"]);
    for name in ["spiffe://farm/ops", "spiffe://farm/agents/7", "spiffe://farm/agents/gone", "spiffe://farm/stranger"] {
        server.pki(&["client", "ca", "--uri", name, "--for", "1h"]);
    }
    server.pki(&["revoke", "ca", "gone.pem"]);
    server.configure(&settings(""), LOCAL);
    server.spawn();
    server.wait("the server to answer", || {
        as_caller(&server, "ops", &["pools"]).output().unwrap().status.success().then_some(())
    });
    server
}

#[test]
fn a_caller_is_known_by_its_certificate_and_others_do_not_get_in() {
    let server = serving();
    let output = as_caller(&server, "7", &["lease", "--pool", "hosts", "--wait", "60s", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let lease: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lease["lease"]["principal"], "x509:spiffe://farm/agents/7");
    let id = lease["lease"]["id"].as_str().unwrap();
    assert_eq!(as_caller(&server, "7", &["resources"]).output().unwrap().status.code(), Some(77));
    assert!(as_caller(&server, "7", &["release", id]).output().unwrap().status.success());
    // A name without a grant has a connection, and no call.
    assert_eq!(as_caller(&server, "stranger", &["ls"]).output().unwrap().status.code(), Some(77));
    // A revoked certificate, and none at all.
    for command in [&mut as_caller(&server, "gone", &["ls"]), &mut server.command(&["ls"])] {
        let output = command.env("WHARFINGER_CA_FILE", server.folder.path().join("ca/ca.pem")).output().unwrap();
        assert_eq!(output.status.code(), Some(76), "{}", text(&output));
        assert!(text(&output).contains("--certificate"), "{}", text(&output));
    }
    // A server whose authority the client does not know is not told anything.
    let mut blind = as_caller(&server, "ops", &["ls"]);
    let output = blind.env_remove("WHARFINGER_CA_FILE").output().unwrap();
    assert_eq!(output.status.code(), Some(76), "{}", text(&output));
    assert!(text(&output).contains("not trusted"), "{}", text(&output));
    // Plaintext.
    let plain = server.address.replace("https://", "http://");
    let output = as_caller(&server, "ops", &["ls", "--server", &plain]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    let log = server.log();
    assert!(log.contains("does not speak TLS") && log.contains("is refused"), "{log}");
}

#[test]
fn a_certificate_that_is_revoked_is_cut_and_one_that_is_renewed_is_used() {
    let server = serving();
    let watch =
        |name: &str| as_caller(&server, name, &["watch"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut gone, mut stays) = (watch("7"), watch("ops"));
    server.pki(&["revoke", "ca", "7.pem"]);
    server.wait("the connection to be cut", || server.log().contains("a connection is cut").then_some(()));
    let refused = as_caller(&server, "7", &["ls"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(76), "{}", text(&refused));
    assert!(stays.try_wait().unwrap().is_none(), "an operator goes on watching");
    // The pair is renewed, key and certificate one after the other.
    let folder = server.folder.path();
    server.pki(&["server", "ca", "--name", "127.0.0.1", "--for", "2h", "--out", "again"]);
    for name in ["127.0.0.1.key", "127.0.0.1.pem"] {
        std::fs::rename(folder.join("again").join(name), folder.join(name)).unwrap();
    }
    server.wait("the new pair to be read", || server.log().contains("are read again").then_some(()));
    assert!(as_caller(&server, "ops", &["pools"]).output().unwrap().status.success());
    // A broken file changes nothing, and is reported once.
    std::fs::write(folder.join("127.0.0.1.pem"), "x").unwrap();
    server.wait("the fault to be reported", || server.log().contains("the ones before stay").then_some(()));
    assert!(as_caller(&server, "ops", &["pools"]).output().unwrap().status.success());
    for child in [&mut gone, &mut stays] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A certificate that was issued two hours ago for one.
fn issued_before(server: &Server, uri: &str) {
    let (folder, hour) = (server.folder.path(), Duration::from_secs(3600));
    let authority = Authority::open(&folder.join("ca"), SystemTime::now()).unwrap();
    authority.client(folder, &Uri::parse(uri).unwrap(), hour, SystemTime::now() - 2 * hour).unwrap();
}

const BUILD: [&str; 7] = ["exec", "--local", "--pool", "hosts", "--holder", "build", "--"];

fn build(command: &[&'static str]) -> Vec<&'static str> {
    [&BUILD, command].concat()
}

/// Another try does not mend a refused certificate, and a run would be tried again for a minute.
#[test]
fn a_refused_certificate_ends_a_run_at_once_and_says_what_to_mend() {
    let server = serving();
    server.pki(&["init", "other", "--domain", "farm"]);
    server.pki(&["client", "other", "--uri", "spiffe://farm/agents/unsigned", "--for", "1h"]);
    issued_before(&server, "spiffe://farm/agents/late");
    let trusting = |mut command: Command, ca: &str| {
        command.env("WHARFINGER_CA_FILE", server.folder.path().join(ca));
        command
    };
    let own = |name: &str| as_caller(&server, name, &build(&["true"]));
    for (command, said, remedy) in [
        (own("gone"), "gone.pem: it is revoked", "issues a new one"),
        (own("late"), "late.pem: it has expired", "renew the file"),
        (own("unsigned"), "unsigned.pem: no authority that the server knows has signed it", "client_ca"),
        (trusting(server.command(&build(&["true"])), "ca/ca.pem"), "it requires a certificate", "--certificate-key"),
        (trusting(own("7"), "other/ca.pem"), "the server's certificate is not trusted", "--ca-file"),
    ] {
        let (mut command, begun) = (command, Instant::now());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(76), "{said}: {}", text(&output));
        assert!(text(&output).contains(said) && text(&output).contains(remedy), "{said}: {}", text(&output));
        assert!(begun.elapsed() < Duration::from_secs(30), "{said}: {:?}", begun.elapsed());
    }
    let output = own("7").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    // Of several servers one that is away may take the call when it is back.
    let away = "https://127.0.0.1:1";
    for list in [format!("{},{away}", server.address), format!("{away},{}", server.address)] {
        let output = as_caller(&server, "gone", &["ls"]).env("WHARFINGER_SERVER", &list).output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{list}: {}", text(&output));
    }
    let mut several = as_caller(&server, "7", &["ls"]);
    several.env("WHARFINGER_SERVER", format!("{away},{}", server.address));
    assert!(several.output().unwrap().status.success());
}

/// Reads the lines of a child's standard error until one has this text.
fn says(child: &mut std::process::Child, wanted: &str) {
    let mut seen = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.contains(wanted) {
            return;
        }
        seen.push(line);
    }
    panic!("it ended without {wanted:?}: {seen:#?}");
}

#[test]
fn a_run_reports_once_that_it_goes_on_trying() {
    let server = serving();
    let mut away = as_caller(&server, "7", &build(&["true"]));
    away.env("WHARFINGER_SERVER", "https://127.0.0.1:1,https://127.0.0.1:2");
    let mut away = away.stderr(Stdio::piped()).spawn().unwrap();
    says(&mut away, "trying again for at most");
    away.kill().unwrap();
    away.wait().unwrap();
}

/// A run keeps its lease while its certificate is replaced, and reports the refusal.
#[test]
fn a_run_outlives_the_revocation_of_its_certificate_if_it_gets_another() {
    let server = serving();
    let folder = server.folder.path();
    let file = folder.join("go");
    let script = format!("while [ ! -e '{}' ]; do sleep 0.05; done", file.display());
    let mut run = as_caller(&server, "7", &[&BUILD[..6], &["--ttl", "60s", "--", "sh", "-c", &script]].concat());
    let mut run = run.stderr(Stdio::piped()).spawn().unwrap();
    let leased = || {
        let output = as_caller(&server, "ops", &["ls", "--json"]).output().unwrap();
        let leases: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let lease = leases["leases"].get(0).filter(|lease| lease["state"] == "ACTIVE")?;
        Some((lease["id"].as_str()?.to_owned(), lease["holder_doubt_since"].is_string()))
    };
    let (lease, _) = server.wait("the build to run", leased);
    server.pki(&["revoke", "ca", "7.pem"]);
    says(&mut run, "7.pem: it is revoked; trying again for at most");
    server.wait("the end of the session's stream to be a doubt", || leased().filter(|(_, in_doubt)| *in_doubt));
    server.pki(&["client", "ca", "--uri", "spiffe://farm/agents/7", "--for", "1h", "--out", "again"]);
    for name in ["7.key", "7.pem"] {
        std::fs::rename(folder.join("again").join(name), folder.join(name)).unwrap();
    }
    server.wait("the session to go on with the other pair", || leased().filter(|(_, in_doubt)| !in_doubt));
    std::fs::write(&file, "").unwrap();
    assert!(run.wait().unwrap().success(), "{}", server.log());
    let output = as_caller(&server, "ops", &["get", &lease, "--json"]).output().unwrap();
    assert!(text(&output).contains("RELEASED"), "{}", text(&output));
}

#[test]
fn mistakes_of_tls_are_found_before_the_server_starts() {
    let server = Server::prepared("w.db");
    server.pki(&["init", "ca", "--domain", "farm"]);
    server.pki(&["server", "ca", "--name", "127.0.0.1"]);
    let check = |head: &str| {
        server.configure(head, LOCAL);
        server.cli(&["check-config", server.config().to_str().unwrap()])
    };
    let pair = "[server.tls]\ncertificate = \"127.0.0.1.pem\"\nkey = \"127.0.0.1.key\"\n";
    let output = check(pair);
    assert!(output.status.success(), "{}", text(&output));
    for (head, said) in [
        ("[server.tls]\ncertificate = \"127.0.0.1.pem\"\n".to_owned(), "has no `key`"),
        (pair.replace("127.0.0.1.key", "ca/ca.key"), "does not fit"),
        (pair.replace("127.0.0.1.pem", "nowhere.pem"), "cannot be read"),
        (format!("{pair}client_auth = \"required\"\n"), "no authority may sign"),
        (format!("{pair}client_auth = \"maybe\"\n"), "`client_auth` is \"maybe\""),
        (format!("{pair}{AUTH}"), "no client is asked for a certificate"),
        (
            format!("{pair}client_ca = \"ca/ca.pem\"\n[[server.tls.trust]]\nca = \"ca/ca.pem\"\n"),
            "lacks `ca` or `uris`",
        ),
    ] {
        let output = check(&head);
        assert_eq!(output.status.code(), Some(78), "{head}: {}", text(&output));
        assert!(text(&output).contains(said), "{head}: {}", text(&output));
    }
}
