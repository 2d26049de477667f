//! Signals: whatever the instant, the result file is whole, the end is soon, and nothing is held for long.

use super::{line, read};
use crate::support::{local, signal, text};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Number of signals: 12, and 300 with `WHARFINGER_LONG=1`.
fn rounds() -> u32 {
    if std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1") { 300 } else { 12 }
}

/// The end of a run after a signal, with room for a busy machine. The grace is 6 s.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_signal_at_any_instant_leaves_a_whole_result() {
    use std::os::unix::process::ExitStatusExt;
    let server = local();
    server.wait_for_state("copies", "READY", 0);
    let path = server.folder.path().join("r.json");
    let mut ends = std::collections::BTreeMap::<String, u32>::new();
    for round in 0..rounds() {
        let name = ["TERM", "INT", "HUP"][round as usize % 3];
        let args = line(&path, &["--pool", "copies", "--ttl", "20s", "--", "sh", "-c", "sleep 0.4; exit 3"]);
        let _ = std::fs::remove_file(&path);
        let begun = Instant::now();
        let child = server.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // From the first instructions of the program to its last: the instants are spread over what a run takes.
        let at = Duration::from_millis(u64::from(round) * 1500 / u64::from(rounds()));
        std::thread::sleep(at.saturating_sub(begun.elapsed()));
        // It may be over.
        let _ = std::process::Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).output();
        let sent = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(sent.elapsed() < SOON, "{:?} after SIG{name} at {at:?}: {}", sent.elapsed(), text(&output));
        if output.status.signal().is_some() {
            // Before the program hears signals nothing was asked for.
            assert!(!path.exists(), "killed at {at:?}, and there is a file");
            *ends.entry("killed".into()).or_default() += 1;
            continue;
        }
        let result = read(&path).unwrap_or_else(|why| panic!("SIG{name} at {at:?}: {why}: {}", text(&output)));
        let ended = result["ended"].as_str().unwrap().to_string();
        match ended.as_str() {
            "cancelled" => {
                assert_eq!(result["signal"], name);
                assert!(result["exits_with"].as_u64().unwrap() > 128, "{result:#}");
                assert_eq!((result["fault"].as_str(), result["retry"].as_bool()), (Some("NONE"), Some(false)));
            }
            "command" => assert_eq!(result["exit_code"], 3, "{result:#}"),
            other => panic!("{other}: {result:#}"),
        }
        assert_eq!(output.status.code().map(i64::from), result["exits_with"].as_i64());
        *ends.entry(ended).or_default() += 1;
        for attempt in result["attempts"].as_array().unwrap() {
            let id = attempt["lease"].as_str().unwrap();
            server.wait("the lease to be over", || {
                let lease = server.json(&["get", id]);
                ["RELEASED", "CANCELLED", "EXPIRED"].contains(&lease["state"].as_str().unwrap()).then_some(())
            });
        }
    }
    assert!(ends.get("cancelled").is_some_and(|count| *count > 1), "the instants hit the run: {ends:?}");
    server.wait("nothing to be held", || {
        let leases = server.json(&["ls", "--pool", "copies"]);
        leases["leases"].as_array().unwrap().is_empty().then_some(())
    });
}

#[test]
fn a_server_that_hangs_does_not_keep_a_cancelled_run() {
    let server = local();
    let path = server.folder.path().join("r.json");
    let started = server.folder.path().join("started");
    let script = format!("touch {}; exec sleep 300", started.display());
    for second in [false, true] {
        let _ = std::fs::remove_file(&started);
        let grace = if second { "60s" } else { "2s" };
        let args =
            line(&path, &["--pool", "copies", "--ttl", "3s", "--cancel-grace", grace, "--", "sh", "-c", &script]);
        let mut child = server.command(&args).stderr(Stdio::null()).spawn().unwrap();
        server.wait("the command to run", || started.exists().then_some(()));
        signal(server.pid(), "STOP");
        signal(child.id(), "TERM");
        if second {
            std::thread::sleep(Duration::from_millis(200));
            signal(child.id(), "INT");
        }
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < SOON, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        signal(server.pid(), "CONT");
        let result = read(&path).unwrap();
        assert_eq!(
            (result["ended"].as_str(), result["signal"].as_str()),
            (Some("cancelled"), Some("TERM")),
            "{result:#}"
        );
        assert!(status.code().is_some_and(|code| code > 128), "{status}");
        let id = result["lease"].as_str().unwrap().to_string();
        server.wait("the lease to end", || {
            let state = server.json(&["get", &id])["state"].clone();
            (state == "EXPIRED" || state == "RELEASED").then_some(())
        });
    }
}
