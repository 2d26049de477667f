//! A server with TLS, whose callers are known by their certificates.

use crate::support::{LOCAL, Server, text};
use std::process::{Command, Stdio};

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
        assert_eq!(output.status.code(), Some(69), "{}", text(&output));
        assert!(text(&output).contains("--certificate"), "{}", text(&output));
    }
    // A server whose authority the client does not know is not told anything.
    let mut blind = as_caller(&server, "ops", &["ls"]);
    let output = blind.env_remove("WHARFINGER_CA_FILE").output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
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
    assert_eq!(refused.status.code(), Some(69), "{}", text(&refused));
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
