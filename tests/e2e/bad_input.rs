//! Each mistake and the message that it gets.

use crate::support::{LOCAL, Server, local, text};
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Output};
use wharfinger_testkit::{Need, need};

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
    // It has its host before it is released: one that waits is cancelled.
    let again = ["lease", "--pool", "hosts", "--holder", "ann", "--request-id", "build-1", "--wait", "60s"];
    let again = server.json(&again);
    assert_eq!(first["lease"]["id"], again["lease"]["id"], "the same request is the same lease");
    let other = server.cli(&["lease", "--pool", "hosts", "--holder", "bob", "--request-id", "build-1"]);
    refused(&other, 65, &["build-1", "another request"]);

    let id = first["lease"]["id"].as_str().unwrap();
    assert!(server.cli(&["release", id]).status.success());
    assert!(server.cli(&["release", id]).status.success(), "releasing twice is fine");
    refused(&server.cli(&["renew", id]), 75, &["RELEASED"]);
}

#[test]
fn a_holder_name_of_ten_megabytes_is_refused_and_disturbs_no_client() {
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
fn garbage_on_the_port_disturbs_no_client() {
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

/// A small file system of its own, unmounted at the end.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&at).output().unwrap();
        need(Need::Root, mounted.status.success().then(|| Self(at)))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let mut server = Server::prepared("disk/w.db");
    let Some(disk) = SmallDisk::mount(server.folder.path().join("disk"), "size=4m") else { return };
    server.configure("", LOCAL);
    server.run();
    server.wait_for_state("hosts", "READY", 1);
    let ballast = disk.0.join("ballast");
    let _ = std::fs::write(&ballast, vec![1u8; 8 << 20]);
    let lease = |n: usize| {
        server.cli(&["lease", "--pool", "hosts", "--no-queue", "--holder", "test", "--request-id", &format!("n{n}")])
    };
    // Some may still fit into what the database has already; then it is refused, clearly, and nothing is promised.
    let refused_one = (0..200)
        .map(|n| {
            let output = lease(n);
            if output.status.success() {
                let id = serde_json::from_slice::<serde_json::Value>(
                    &server
                        .cli(&[
                            "--json",
                            "lease",
                            "--pool",
                            "hosts",
                            "--no-queue",
                            "--holder",
                            "test",
                            "--request-id",
                            &format!("n{n}"),
                        ])
                        .stdout,
                );
                if let Ok(told) = id {
                    let _ = server.cli(&["release", told["lease"]["id"].as_str().unwrap_or_default()]);
                }
            }
            output
        })
        .find(|output| !output.status.success());
    let told = refused_one.expect("a full disk is noticed");
    refused(&told, 69, &["store"]);
    std::fs::remove_file(&ballast).unwrap();
    server.wait("a lease after there is room again", || lease(1000).status.success().then_some(()));
    server.kill();
    drop(disk);
}
