//! A database that an older version wrote, with leases of every state, is served by this version, and work goes on.

use crate::support::{Server, repository};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, query, query_scalar};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Leases of the database that wait in its queue, the first with a higher priority.
const QUEUED: [&str; 2] = ["lse_01M8MJZG3XZM0000000000002C", "lse_01M8MJZG7ZZM0000000000002D"];
/// A lease that waits for a working copy, which was under way when the former server was killed.
const WAITS_FOR_COPY: &str = "lse_01M8MJZSY8ZM0000000000004T";

/// The lease that has the only slot of the pool `queue`.
const IN_QUEUE: &str = "lse_01M8MJZEXVZM00000000000026";
/// Active leases of hosts: two of the pool `ready`, a group on a machine that is held, one on a machine that is drained.
const ON_HOSTS: [&str; 5] = [
    "lse_01M8MJZE0PZM0000000000001K",
    "lse_01M8MJZE20ZM0000000000001R",
    "lse_01M8MJZEGQZM00000000000020",
    "lse_01M8MJZEGQZM00000000000021",
    "lse_01M8MJZHMBZM00000000000038",
];
/// The boot of the machine on which the database was written.
const BOOT_ID: &str = "3b4ec7f6-0b70-49ea-8fbc-d09137f3753d";

/// The pools of the database.
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

/// Makes the database one of this machine, of now, and of hosts in this folder. The working copies are not there.
fn move_to(folder: &Path) {
    const MOVES: [&str; 3] = [
        "UPDATE resources SET handle = replace(handle, ?1, ?2)",
        "UPDATE resources SET access = replace(access, ?1, ?2)",
        "UPDATE leases SET access = replace(access, ?1, ?2)",
    ];
    const EXPIRE: &str = "UPDATE leases SET expires_at = ?1 WHERE expires_at IS NOT NULL AND ended_at IS NULL";
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let changes = [("/tmp/wf-data/d", folder.to_str().unwrap()), (BOOT_ID, boot_id.trim())];
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(12 * 3600);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = SqliteConnectOptions::new().filename(folder.join("w.db"));
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        for (before, after) in changes {
            for statement in MOVES {
                query(statement).bind(before).bind(after).execute(&mut connection).await.unwrap();
            }
        }
        let expiry = i64::try_from(expiry.as_millis()).unwrap();
        query(EXPIRE).bind(expiry).execute(&mut connection).await.unwrap();
        let hosts =
            "SELECT json_extract(handle, '$.path') FROM resources WHERE parent_host IS NULL AND handle IS NOT NULL";
        let hosts: Vec<String> = query_scalar(hosts).fetch_all(&mut connection).await.unwrap();
        for host in hosts {
            std::fs::create_dir_all(host).unwrap();
        }
        connection.close().await.unwrap();
    });
}

#[test]
fn a_database_of_schema_3_is_served_and_its_queue_goes_on() {
    let mut server = Server::prepared("w.db");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schema-3/w.db");
    std::fs::copy(file, server.folder.path().join("w.db")).unwrap();
    move_to(server.folder.path());
    repository(&server.folder.path().join("origin"));
    server.configure("", &pools());
    server.run();

    let granted = |id: &str| {
        let state = || server.json(&["get", id])["state"].clone();
        server.wait(&format!("{id} to be active"), || (state() == "ACTIVE").then_some(()));
    };
    let release = |id: &str| assert!(server.cli(&["release", id]).status.success(), "{id}");
    release(IN_QUEUE);
    for id in QUEUED {
        granted(id);
        release(id);
    }
    granted(WAITS_FOR_COPY);
    // The upgrade ended no lease of a host.
    for id in ON_HOSTS {
        granted(id);
    }
    release(ON_HOSTS[0]);
    let new = server.json(&["lease", "--pool", "ready", "--wait", "60s"])["lease"].clone();
    assert_eq!(new["state"], "ACTIVE", "{new}");

    // The orders of an operator are there, and so is the audit trail of the former server.
    let pools = server.json(&["pools"]).to_string();
    assert!(pools.contains("the whole pool"), "{pools}");
    let events = server.json(&["events", "--lease", QUEUED[0]]).to_string();
    assert!(events.contains("lease.queued") && events.contains("lease.released"), "{events}");
}
