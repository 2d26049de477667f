//! The Unix socket: callers are users of this machine, by the kernel's word.

use crate::support::{LOCAL, Server, text};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use wharfinger_testkit::{Need, need};

/// Users that exist in no file: the kernel knows numbers alone.
const AGENT: u32 = 23_001;
const READER: u32 = 23_002;
const STRANGER: u32 = 23_003;
/// The primary group of [`READER`].
const GROUP: u32 = 23_050;

const AUTH: &str = r#"
[[auth.unix]]
uid = 23001
tenant = "web"
roles = ["agent"]
[[auth.unix]]
gid = 23050
tenant = "web"
roles = ["reader"]
[[auth.unix]]
uid = "root"
tenant = "ops"
roles = ["admin"]
"#;

/// Present if this test may become other users.
fn other_users() -> Option<()> {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    (root && Command::new("setpriv").arg("--version").output().is_ok()).then_some(())
}

fn socket(server: &Server) -> PathBuf {
    server.folder.path().join("run/w.sock")
}

/// A server that was not started, with a socket that has these lines, and these callers.
fn prepared(socket_lines: &str, auth: &str) -> Server {
    let server = Server::prepared("w.db");
    // Other users pass through the folder, and read nothing in it.
    std::fs::set_permissions(server.folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    server.configure(auth, LOCAL);
    let config = std::fs::read_to_string(server.config()).unwrap();
    let lines = format!("[server]\nlisten_unix = \"run/w.sock\"\n{socket_lines}\n");
    std::fs::write(server.config(), config.replacen("[server]\n", &lines, 1)).unwrap();
    server
}

/// The command line as another user, by the socket.
fn by_socket(path: &Path, uid: u32, gid: u32, args: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
    command.arg(env!("CARGO_BIN_EXE_wharfinger")).args(args);
    command.env("WHARFINGER_SERVER", format!("unix://{}", path.display())).output().unwrap()
}

fn until_up(server: &Server) {
    let path = socket(server);
    server.wait("the socket to answer", || by_socket(&path, 0, 0, &["health"]).status.success().then_some(()));
}

fn id_of(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    let lease: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    lease["lease"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn each_user_of_the_socket_is_a_caller_of_its_own() {
    let Some(()) = need(Need::Root, other_users()) else { return };
    let mut server = prepared("unix_mode = \"0666\"", AUTH);
    server.spawn();
    until_up(&server);
    let path = socket(&server);
    let lease = by_socket(&path, AGENT, AGENT, &["lease", "--pool", "hosts", "--wait", "60s", "--json"]);
    let id = id_of(&lease);
    assert!(text(&lease).contains("\"unix:23001\""), "{}", text(&lease));
    // A reader of the tenant sees it, by its primary group, and ends nothing.
    let seen = by_socket(&path, READER, GROUP, &["get", &id]);
    assert!(seen.status.success(), "{}", text(&seen));
    assert_eq!(by_socket(&path, READER, GROUP, &["release", &id]).status.code(), Some(77));
    // A stranger reads the server's health and nothing else.
    for args in [&["get", &*id][..], &["ls"], &["pools"]] {
        let refused = by_socket(&path, STRANGER, STRANGER, args);
        assert_eq!(refused.status.code(), Some(77), "{}", text(&refused));
    }
    let health = by_socket(&path, STRANGER, STRANGER, &["health"]);
    assert!(health.status.success() && text(&health).contains("w.sock"), "{}", text(&health));
    // Another user of the agent's group is a stranger, and so is the user of other namespaces, whatever its group.
    for (uid, gid) in [(STRANGER, AGENT), (65_534, GROUP), (65_534, 65_534)] {
        let refused = by_socket(&path, uid, gid, &["ls"]);
        assert_eq!(refused.status.code(), Some(77), "{uid}: {}", text(&refused));
    }
    // The port knows none of them.
    assert_eq!(server.cli(&["ls"]).status.code(), Some(77));
    let all = by_socket(&path, 0, 0, &["resources"]);
    assert!(all.status.success(), "{}", text(&all));
    let broken = by_socket(&path, 0, 0, &["break", &id, "--reason", "by an operator"]);
    assert!(broken.status.success(), "{}", text(&broken));
    assert!(server.stop().success());
    assert!(!path.exists(), "the socket goes with its server");
}

#[test]
fn without_callers_the_mode_of_the_socket_decides_who_is_an_administrator() {
    let Some(()) = need(Need::Root, other_users()) else { return };
    let mut server = prepared("", "");
    server.spawn();
    until_up(&server);
    let path = socket(&server);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
    let lease = by_socket(&path, 0, 0, &["lease", "--pool", "hosts", "--wait", "60s", "--json"]);
    assert!(text(&lease).contains("\"unix:0\""), "{}", text(&lease));
    let refused = by_socket(&path, STRANGER, STRANGER, &["pools"]);
    assert_eq!(refused.status.code(), Some(69), "{}", text(&refused));
    // A member of the server's group, which may pass through the directory.
    let member = by_socket(&path, STRANGER, 0, &["pools"]);
    assert!(member.status.success(), "{}", text(&member));

    // A second server takes nothing away.
    let other = prepared("", "");
    let config = std::fs::read_to_string(other.config()).unwrap();
    let absolute = config.replace("run/w.sock", path.to_str().unwrap());
    std::fs::write(other.config(), absolute).unwrap();
    let mut second = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
    let output = second.args(["serve", "--config"]).arg(other.config()).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
    assert!(text(&output).contains("another process listens"), "{}", text(&output));
    assert!(by_socket(&path, 0, 0, &["health"]).status.success());

    // One that was killed leaves its socket, and the next one replaces it.
    server.kill();
    assert!(path.exists());
    server.spawn();
    until_up(&server);
    let id = id_of(&lease);
    assert!(by_socket(&path, 0, 0, &["release", &id]).status.success());
}
