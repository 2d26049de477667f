//! Each mistake and the message that it gets.

use crate::support::{LOCAL, Server, local, text};
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Output};

fn refused(output: &Output, code: i32, words: &[&str]) {
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    for word in words {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
}

#[test]
fn requests() {
    let server = local();
    let lease = |args: &[&str]| {
        let mut all = vec!["lease", "--holder", "test"];
        all.extend(args);
        server.cli(&all)
    };
    refused(&lease(&["--pool", "nope"]), 65, &["no pool \"nope\"", "copies", "hosts"]);
    refused(&lease(&["--label", "colour=red"]), 65, &["label \"colour\""]);
    refused(&lease(&["--pool", "hosts", "--ttl", "0s"]), 65, &["ttl"]);
    refused(&lease(&["--pool", "hosts", "--ttl", "2000h"]), 65, &["ttl", "longest"]);
    refused(&lease(&["--pool", "hosts", "--ttl", "87600h"]), 2, &["ttl", "1000 days"]);
    refused(&server.cli(&["get", "lse_00000000000000000000000000"]), 65, &["no lease lse_00000000000000000000000000"]);
    refused(&server.cli(&["get", "nonsense"]), 65, &["lse_"]);

    let first = server.json(&["lease", "--pool", "hosts", "--holder", "ann", "--request-id", "build-1"]);
    let again = server.json(&["lease", "--pool", "hosts", "--holder", "ann", "--request-id", "build-1"]);
    assert_eq!(first["lease"]["id"], again["lease"]["id"], "the same request is the same lease");
    let other = server.cli(&["lease", "--pool", "hosts", "--holder", "bob", "--request-id", "build-1"]);
    refused(&other, 65, &["build-1", "another request"]);

    let id = first["lease"]["id"].as_str().unwrap();
    assert!(server.cli(&["release", id]).status.success());
    assert!(server.cli(&["release", id]).status.success(), "releasing twice is fine");
    refused(&server.cli(&["renew", id]), 75, &["RELEASED"]);
}

#[test]
fn a_holder_of_ten_megabytes_is_refused_and_disturbs_nobody() {
    let server = local();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let status = runtime.block_on(async {
        let mut api =
            wharfinger::pb::lease_service_client::LeaseServiceClient::connect(server.address.clone()).await.unwrap();
        let request = wharfinger::pb::LeaseRequest {
            request_id: "big".into(),
            holder: "x".repeat(10 << 20),
            selector: Some(wharfinger::pb::Selector { pool: "hosts".into(), ..Default::default() }),
            ..Default::default()
        };
        api.lease(request).await.unwrap_err()
    });
    assert!(
        matches!(
            status.code(),
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted | tonic::Code::InvalidArgument
        ),
        "{status}"
    );
    assert!(server.cli(&["pools"]).status.success());
}

#[test]
fn garbage_on_the_port_disturbs_nobody() {
    let server = local();
    for garbage in [
        &b"\x00\xff\xfe garbage \r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(server.address.strip_prefix("http://").unwrap()).unwrap();
        stream.write_all(garbage).unwrap();
    }
    assert!(server.cli(&["pools"]).status.success(), "{}", server.log());
}

/// Runs `serve` with a configuration that must be refused.
fn serve(config: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wharfinger.toml");
    std::fs::write(&path, config).unwrap();
    Command::new(env!("CARGO_BIN_EXE_wharfinger")).args(["serve", "--config"]).arg(&path).output().unwrap()
}

#[test]
fn configurations() {
    refused(&serve("[server]\nlissten = \"127.0.0.1:1\"\n"), 78, &["wharfinger.toml", "lissten", "2"]);
    refused(
        &serve("[server]\nlisten = \"127.0.0.1:0\"\n[[pool]]\nname = \"x\"\nadapter = \"spaceship\"\n"),
        78,
        &["spaceship"],
    );
    refused(
        &serve("[[pool]]\nname = \"c\"\nadapter = \"copies\"\non = \"nowhere\"\n[pool.copies]\nrepository = \"/x\"\n"),
        78,
        &["nowhere"],
    );
    refused(&serve("[server\n"), 78, &["1"]);
}

#[test]
fn a_database_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("wharfinger.toml");
    let pools = LOCAL.replace("{folder}", &folder.path().display().to_string());
    std::fs::write(&config, format!("[server]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"w.db\"\n{pools}")).unwrap();
    std::fs::write(
        folder.path().join("w.db"),
        "this is a text file, and a long one, of no use to anybody\n".repeat(50),
    )
    .unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_wharfinger")).args(["serve", "--config"]).arg(&config).output().unwrap();
    refused(&output, 78, &["w.db"]);
}

#[test]
fn a_second_server_on_the_same_database() {
    let server = Server::start(LOCAL);
    let port = crate::support::free_port();
    let config = std::fs::read_to_string(server.config()).unwrap();
    let own = server.address.rsplit(':').next().unwrap();
    let second = server.folder.path().join("second.toml");
    std::fs::write(&second, config.replace(own, &port.to_string())).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_wharfinger")).args(["serve", "--config"]).arg(&second).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("w.db"), "{}", text(&output));
}
