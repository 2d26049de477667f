//! A server with a thousand signals, and without file descriptors.

use crate::support::Server;
use std::net::TcpStream;
use std::process::Command;

const POOL: &str = "[[pool]]\nname = \"hosts\"\nadapter = \"local\"\n[pool.local]\nroot = \"{folder}/hosts\"\n";

/// Sends signals from one shell, and waits for it.
fn flood(pid: u32, name: &str, count: u32) {
    let text =
        format!("i=0; while [ $i -lt {count} ]; do kill -s {name} {pid} 2>/dev/null || exit 0; i=$((i+1)); done");
    assert!(Command::new("sh").args(["-c", &text]).status().unwrap().success());
}

/// The number of pools that the server lists, below the heads of the columns.
fn pools(server: &Server) -> usize {
    let output = server.cli(&["pools"]);
    if output.status.success() { String::from_utf8(output.stdout).unwrap().lines().count() - 1 } else { 0 }
}

#[test]
fn n28_a_thousand_signals_end_in_the_last_configuration_and_a_stop_wins() {
    let mut server = Server::start(POOL);
    let pid = server.pid();
    assert_eq!(pools(&server), 1);
    flood(pid, "HUP", 1000);
    server.configure("", &format!("{POOL}{}", POOL.replace("hosts", "second")));
    flood(pid, "HUP", 1000);
    server.wait("the second pool", || (pools(&server) == 2).then_some(()));
    let lease = server.cli(&["run", "--pool", "second", "--", "true"]);
    assert!(lease.status.success(), "{lease:?}");
    // The flood goes on until the process is gone.
    let signals = std::thread::spawn(move || flood(pid, "HUP", 100_000));
    let status = server.stop();
    assert!(status.success(), "{status:?}: {}", server.log());
    signals.join().unwrap();
}

#[test]
fn n17_a_server_without_file_descriptors_goes_on_once_it_has_some() {
    let server = Server::start(POOL);
    let pid = server.pid();
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = open() + 20;
    let lowered = Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={limit}:")]).status();
    assert!(lowered.unwrap().success());
    let address = server.address.trim_start_matches("http://").to_string();
    let held: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(&address).unwrap()).collect();
    server.wait("the last descriptor", || (open() + 1 >= limit).then_some(()));
    drop(held);
    server.wait("the server to answer", || server.cli(&["pools"]).status.success().then_some(()));
    assert_eq!(server.pid(), pid);
}
