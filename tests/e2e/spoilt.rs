//! SIGKILL of the broker in the midst of its work on copies that builds spoil: the next lease gets a whole tree. Four rounds
//! always, thirty with WHARFINGER_LONG=1.

use crate::support::{local, text};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn the_broker_killed_amid_its_work_on_copies_hands_out_no_half_tree() {
    let rounds = if std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") { 30 } else { 4 };
    let mut server = local();
    let looks = "git rev-parse --abbrev-ref HEAD; git status --porcelain --ignored; cat hello.txt; ls -A .git/hooks";
    let spoils = [
        "rm -rf .git",
        "echo junk >.git/HEAD; mkfifo .git/refs/x; echo junk >hello.txt",
        "mkdir -p many; cd many; seq 3000 | xargs touch; git init -q nested",
        "rm -rf ../../mirrors; chmod 000 .git; echo x >>hello.txt",
    ];
    let mut odd = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..rounds {
        odd = odd.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let script = format!("{}; exit {}", spoils[round % spoils.len()], odd >> 63);
        let args = ["run", "--pool", "copies", "--retries", "0", "--branch", "feature", "--", "sh", "-c", &script];
        let mut build = server.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(50 + (odd >> 33) % 1500));
        server.kill();
        server.run();
        // It finds the broker again, or gives up; how it ends is not the question here.
        server.wait("the build to end", || build.try_wait().unwrap());
        let output = server.cli(&["run", "--pool", "copies", "--", "sh", "-c", looks]);
        assert_eq!(output.status.code(), Some(0), "round {round}: {}", text(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "HEAD\nhello\n", "round {round}: {}", text(&output));
    }
    let left = std::process::Command::new("find")
        .arg(server.folder.path().join("hosts"))
        .args(["-name", "tmp_*", "-o", "-name", "new.*", "-o", "-name", "*.new*"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}
