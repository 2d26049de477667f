//! `wharfinger db`: leases live through a move to another database, a dump and a restore.

use crate::kill::HOSTS;
use crate::postgresql::{Cluster, schema, shared};
use crate::support::{Server, text};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use wharfinger::client::{Client, Watched};
use wharfinger::pb::{LeaseRequest, LeaseState, Selector, WatchRequest};

fn lines(cluster: &Cluster, schema: &str) -> String {
    format!("engine = \"postgres\"\nurl = \"{}\"\nschema = \"{schema}\"", cluster.url())
}

/// The configuration of a server with another [store], in a file beside its own.
fn other(server: &Server, name: &str, store: &str) -> PathBuf {
    let text = std::fs::read_to_string(server.config()).unwrap();
    let (head, rest) = text.split_once("[store]\n").unwrap();
    let pools = rest.split_once("[[pool]]").unwrap().1;
    let path = server.folder.path().join(name);
    std::fs::write(&path, format!("{head}[store]\n{store}\n[[pool]]{pools}")).unwrap();
    path
}

fn db(server: &Server, args: &[&str], files: &[&Path]) -> std::process::Output {
    server.command(&["db"]).args(args).args(files).output().unwrap()
}

fn done(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).to_string()
}

/// A farm that has outgrown its file: many leases live, watches run, and none notices more than a pause.
#[test]
fn a_move_to_postgresql_with_leases_live() {
    let Some(cluster) = shared() else { return };
    let count: usize = if std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1") { 10_000 } else { 300 };
    let pools = HOSTS.replace("slots = 40", "slots = 1000").replace("[pool.local]", "max = 12\n[pool.local]");
    let mut server = Server::start(&pools);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(Client::connect(&server.address)).unwrap();
    let request = |n: usize| LeaseRequest {
        request_id: format!("move-{n}"),
        holder: "mover".into(),
        selector: Some(Selector { pool: "hosts".into(), ..Selector::default() }),
        wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..LeaseRequest::default()
    };
    let mut leases = Vec::new();
    for first in (0..count).step_by(50) {
        let asked: Vec<_> = (first..(first + 50).min(count))
            .map(|n| {
                let (client, request) = (client.clone(), request(n));
                runtime.spawn(async move { client.lease(request).await.unwrap().lease.unwrap() })
            })
            .collect();
        leases.extend(asked.into_iter().map(|lease| runtime.block_on(lease).unwrap()));
    }
    assert!(leases.iter().all(|lease| lease.state() == LeaseState::Active));

    // Two watches that were there before: one of everything, one of a single lease.
    let seen: Arc<Mutex<Vec<Watched>>> = Arc::default();
    let watching: Vec<_> = [Vec::new(), vec![leases[7].id.clone()]]
        .into_iter()
        .map(|lease_ids| {
            let (client, seen) = (client.clone(), seen.clone());
            runtime.spawn(async move {
                let mut watch = client.watch(WatchRequest { lease_ids, ..WatchRequest::default() });
                loop {
                    let told = watch.next().await.unwrap();
                    seen.lock().unwrap().push(told);
                }
            })
        })
        .collect();
    server.wait("both watches to have the current state", || {
        let synced = |told: &&Watched| matches!(told, Watched::Synced { .. });
        (seen.lock().unwrap().iter().filter(synced).count() == 2).then_some(())
    });
    seen.lock().unwrap().clear();

    let to = other(&server, "new.toml", &lines(cluster, &schema()));
    let refused = db(&server, &["move", "--config"], &[&server.config(), Path::new("--to"), &to]);
    assert_eq!(refused.status.code(), Some(78), "not under a running server: {}", text(&refused));
    assert!(text(&refused).contains("another wharfinger serves the database"), "{}", text(&refused));
    server.kill();
    let start = Instant::now();
    let said = done(&db(&server, &["move", "--config"], &[&server.config(), Path::new("--to"), &to]));
    eprintln!("MOVE of {count} leases: {:?}", start.elapsed());
    assert!(said.starts_with("moved: postgres://") && said.contains(&format!("{count} leases")), "{said}");
    std::fs::copy(&to, server.config()).unwrap();
    server.run();

    for lease in &leases {
        let now = runtime.block_on(client.get(&lease.id)).unwrap();
        assert_eq!(
            (now.state(), now.fencing_token, &now.resource_id),
            (LeaseState::Active, lease.fencing_token, &lease.resource_id)
        );
    }
    // Asked again, the same request has the same lease; and it goes on.
    let again = runtime.block_on(client.lease(request(3))).unwrap().lease.unwrap();
    assert_eq!(again.id, leases[3].id);
    runtime.block_on(client.renew(&leases[3].id, None)).unwrap();
    runtime.block_on(client.release(&leases[7].id, wharfinger::pb::Outcome::Ok, "")).unwrap();
    server.wait("both watches to see the end", || {
        let ended = |told: &&Watched| matches!(told, Watched::Lease(lease) if lease.id == leases[7].id && lease.state() == LeaseState::Released);
        (seen.lock().unwrap().iter().filter(ended).count() >= 2).then_some(())
    });
    assert!(!seen.lock().unwrap().contains(&Watched::Resync), "they resumed where they were");
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    // Earlier events are in the trail too.
    let trail = server.cli(&["events", "--lease", &leases[0].id]);
    assert!(done(&trail).contains("lease.active"));
}

#[test]
fn a_dump_is_made_under_a_running_server_and_restored_elsewhere() {
    let Some(cluster) = shared() else { return };
    let mut server = Server::prepared("unused");
    server.engine = Some(lines(cluster, &schema()));
    server.configure("", HOSTS);
    server.run();
    let lease = server.json(&["lease", "--pool", "hosts", "--ttl", "1h", "--wait", "30s"])["lease"].clone();
    let id = lease["id"].as_str().unwrap().to_string();
    let file = server.folder.path().join("dump.jsonl");
    let said = done(&db(&server, &["dump", "--config"], &[&server.config(), &file]));
    assert!(said.starts_with("dumped: postgres://") && said.contains("1 leases"), "{said}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(server.cli(&["pools"]).status.success(), "the server is not disturbed");
    let refused = db(&server, &["dump", "--config"], &[&server.config(), &file]);
    assert!(!refused.status.success() && text(&refused).contains("not there yet"), "{}", text(&refused));
    let refused = db(&server, &["restore", "--config"], &[&server.config(), &file]);
    assert_eq!(refused.status.code(), Some(78), "not over what is there: {}", text(&refused));
    assert!(text(&refused).contains("something in the schema"), "{}", text(&refused));
    assert!(server.stop().success());

    let half = server.folder.path().join("half.jsonl");
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&half, &whole[..whole.len() * 2 / 3]).unwrap();
    for store in ["path = \"restored.db\"".to_string(), lines(cluster, &schema())] {
        let config = other(&server, "other.toml", &store);
        let refused = db(&server, &["restore", "--config"], &[&config, &half]);
        assert_eq!(refused.status.code(), Some(65), "{}", text(&refused));
        if store.starts_with("path") {
            let there = server.folder.path().join("restored.db").exists();
            assert!(!there, "nothing is there that could be taken for it");
        }
        let said = done(&db(&server, &["restore", "--config"], &[&config, &file]));
        assert!(said.starts_with("restored: ") && said.contains("1 leases"), "{said}");
        std::fs::copy(&config, server.config()).unwrap();
        server.run();
        let now = server.json(&["get", &id]);
        for what in ["state", "access", "fencing_token", "resource_id", "slot"] {
            assert_eq!(now[what], lease[what], "{what}");
        }
        assert!(server.stop().success());
    }
    let left: Vec<_> =
        std::fs::read_dir(server.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("restoring")), "{left:?}");
}

/// A backup of yesterday: what was granted since is lost. Tokens grow all the same, and watches start again.
#[test]
fn an_old_dump_gives_no_token_twice() {
    let Some(cluster) = shared() else { return };
    let mut server = Server::prepared("unused");
    server.engine = Some(lines(cluster, &schema()));
    server.configure("", HOSTS);
    server.run();
    let lease = || server.json(&["lease", "--pool", "hosts", "--ttl", "1h", "--wait", "30s"])["lease"].clone();
    let token = |lease: &serde_json::Value| lease["fencing_token"].as_u64().unwrap();
    let kept = lease();
    let file = server.folder.path().join("dump.jsonl");
    done(&db(&server, &["dump", "--config"], &[&server.config(), &file]));
    let lost = lease();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(Client::connect(&server.address)).unwrap();
    let revision = token(&lost);
    server.kill();

    let config = other(&server, "other.toml", &lines(cluster, &schema()));
    done(&db(&server, &["restore", "--stale", "--config"], &[&config, &file]));
    std::fs::copy(&config, server.config()).unwrap();
    server.run();
    let now = server.json(&["get", kept["id"].as_str().unwrap()]);
    assert_eq!((&now["state"], &now["fencing_token"]), (&kept["state"], &kept["fencing_token"]));
    assert!(!server.cli(&["get", lost["id"].as_str().unwrap()]).status.success(), "nobody knows of it");
    let next = server.json(&["lease", "--pool", "hosts", "--ttl", "1h", "--wait", "30s"])["lease"].clone();
    assert!(token(&next) > token(&lost), "{next}");
    let resumed = WatchRequest { from_revision: revision, ..WatchRequest::default() };
    let told = runtime.block_on(async { client.watch(resumed).next().await.unwrap() });
    assert_eq!(told, Watched::Resync);
}

#[test]
fn migrate_makes_what_is_missing() {
    let Some(cluster) = shared() else { return };
    let own = schema();
    let mut server = Server::prepared("unused");
    server.engine = Some(lines(cluster, &own));
    server.configure("", HOSTS);
    for _ in 0..2 {
        let said = done(&db(&server, &["migrate", "--config"], &[&server.config()]));
        assert!(said.contains("is of this version's schema"), "{said}");
    }
    assert_eq!(cluster.sql("wharf", &format!("SELECT count(*) FROM {own}.meta")), "1");
    server.run();
}
