//! `check-config --connect`: the mistakes that a file alone does not show, with their remedies, before the server runs.

use crate::hosts::pools;
use crate::sshd::{Sshd, skip};
use crate::support::{Server, repository, text};

#[test]
fn check_config_logs_in_to_the_hosts_and_asks_the_remotes() {
    if skip("check_config_logs_in_to_the_hosts_and_asks_the_remotes") {
        return;
    }
    let (a, b) = (Sshd::start(), Sshd::start());
    let work = tempfile::tempdir().unwrap();
    let server = Server::prepared("w.db");
    repository(&server.folder.path().join("origin"));
    let good = pools(&[("a", &a)], work.path());
    server.configure("", &good);
    let config = server.config().display().to_string();
    let check = || server.cli(&["check-config", "--connect", &config]);

    let output = check();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("host a") && said.contains("logged in; Linux"), "{said}");
    assert!(said.contains("its default branch is main") && said.contains("from pool hosts"), "{said}");
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0, "nothing is made on the host");

    // One host refuses the key, one remote is not there.
    b.revoke(true);
    let bad = pools(&[("a", &a), ("b", &b)], work.path()).replace("{folder}/origin", "{folder}/nothing");
    server.configure("", &bad);
    let output = check();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("host b") && said.contains("AUTH_FAILED") && said.contains("authorized_keys"), "{said}");
    assert!(said.contains("REMOTE_UNREACHABLE") && said.contains("check the address"), "{said}");
    assert!(!said.contains("is fine"), "{said}");
    let found = server.cli(&["--json", "check-config", "--connect", &config]);
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let results: Vec<_> = found["findings"].as_array().unwrap().iter().map(|one| one["result"].clone()).collect();
    assert_eq!(results, ["good", "MISSING", "MISSING"], "{found}");

    // A directory that the user cannot make.
    let file = work.path().join("file");
    std::fs::write(&file, "").unwrap();
    server.configure("", &pools(&[("a", &a)], &file.join("below")));
    let output = check();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("WORK_DIR") && said.contains("set another work_dir"), "{said}");
    assert!(said.contains("no host of that pool can be logged in to now"), "{said}");

    // Without the option nothing is tried.
    assert_eq!(server.cli(&["check-config", &config]).status.code(), Some(0));
}
