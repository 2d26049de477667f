//! A database that an older version wrote, with leases of every state, is served by this version, and work goes on.

use crate::support::{Server, repository};
use std::path::Path;

/// Leases of the database that wait in its queue, the first with a higher priority.
const QUEUED: [&str; 2] = ["lse_01M8MJZG3XZM0000000000002C", "lse_01M8MJZG7ZZM0000000000002D"];
/// A lease that waits for a working copy, which was under way when the former server was killed.
const WAITS_FOR_COPY: &str = "lse_01M8MJZSY8ZM0000000000004T";

/// The pools of the database. Their hosts are in the folder of this server: this is another machine.
fn pools() -> String {
    let hosts = ["ready", "queue", "quarantined", "held", "drained", "gone", "cordoned"].map(|name| {
        let slots = if name == "queue" { 1 } else { 4 };
        format!(
            "[[pool]]\nname = \"{name}\"\nadapter = \"local\"\nslots = {slots}\nmin_ready = 1\n[pool.local]\n\
             root = \"{{folder}}/{name}\"\n"
        )
    });
    let copies = ["clones", "slow"].map(|name| {
        format!(
            "[[pool]]\nname = \"{name}\"\nadapter = \"copies\"\non = \"ready\"\nmax = 2\n[pool.copies]\n\
             repository = \"{{folder}}/origin\"\n"
        )
    });
    hosts.concat() + &copies.concat()
}

#[test]
fn a_database_of_schema_3_is_served_and_its_queue_goes_on() {
    let mut server = Server::prepared("w.db");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schema-3/w.db");
    std::fs::copy(file, server.folder.path().join("w.db")).unwrap();
    repository(&server.folder.path().join("origin"));
    server.configure("", &pools());
    server.run();

    let state = |id: &str| server.json(&["get", id])["state"].clone();
    let active = |id: &str| server.wait(&format!("{id} to be active"), || (state(id) == "ACTIVE").then_some(()));
    for id in QUEUED {
        active(id);
        assert!(server.cli(&["release", id]).status.success());
    }
    active(WAITS_FOR_COPY);
    let new = server.json(&["lease", "--pool", "ready", "--wait", "60s"])["lease"].clone();
    assert_eq!(new["state"], "ACTIVE", "{new}");

    // What an operator set is there, and so is the audit trail of the former server.
    let pools = server.json(&["pools"]).to_string();
    assert!(pools.contains("the whole pool"), "{pools}");
    let events = server.json(&["events", "--lease", QUEUED[0]]).to_string();
    assert!(events.contains("lease.queued") && events.contains("lease.released"), "{events}");
}
