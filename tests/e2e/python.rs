//! A Python client with stubs made by grpcio-tools.

use crate::grpcurl::tool;
use crate::support::{Server, local, text};
use std::path::Path;
use std::process::Command;

/// Makes the stubs in the server's folder.
fn stubs(server: &Server) -> Option<std::path::PathBuf> {
    let python = tool("python")?;
    let out = server.folder.path().join("stubs");
    std::fs::create_dir_all(&out).unwrap();
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let output = Command::new(python)
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(&proto)
        .arg(format!("--python_out={}", out.display()))
        .arg(format!("--grpc_python_out={}", out.display()))
        .args(["wharfinger/v1/types.proto", "wharfinger/v1/lease.proto", "wharfinger/v1/admin.proto"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    Some(out)
}

fn client(server: &Server, stubs: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(tool("python").unwrap());
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/client.py"))
        .arg(server.address.strip_prefix("http://").unwrap())
        .arg(stubs)
        .args(args);
    command
}

#[test]
fn a_whole_lease_life() {
    let server = local();
    let Some(stubs) = stubs(&server) else { return };
    let output = client(&server, &stubs, &["life"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_watch_that_broke_is_resumed_by_revision_and_misses_no_end() {
    let mut server = local();
    let Some(stubs) = stubs(&server) else { return };
    let held = client(&server, &stubs, &["hold"]).output().unwrap();
    assert!(held.status.success(), "{}", text(&held));
    let printed = String::from_utf8_lossy(&held.stdout).to_string();
    let (id, revision) = printed.trim().split_once(' ').unwrap();

    // The lease ends while it has no watch, and the server dies in between.
    let released = server.cli(&["release", id]);
    assert!(released.status.success(), "{}", text(&released));
    server.kill();
    server.run();
    let resumed = client(&server, &stubs, &["resume", id, revision]).output().unwrap();
    assert!(resumed.status.success(), "{}", text(&resumed));
    assert!(String::from_utf8_lossy(&resumed.stdout).contains("LEASE_STATE_RELEASED"), "{}", text(&resumed));
}
