//! SIGKILL of the server under load: no acknowledged lease is lost, no slot is granted twice, and a resumed watch receives the end
//! states. Three rounds, twenty with WHARFINGER_LONG=1.

use crate::support::{PATIENCE, Server, text};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::watch_response::Event;
use wharfinger::pb::{GetRequest, LeaseRequest, LeaseState, Outcome, ReleaseRequest, Selector, WatchRequest};

pub(crate) const HOSTS: &str = r#"
[[pool]]
name = "hosts"
adapter = "local"
slots = 40
min_ready = 1
default_ttl = "10m"
[pool.local]
root = "{folder}/hosts"
"#;

/// The answers to clients: released leases, and active leases with their slots and tokens.
#[derive(Default)]
struct Told {
    released: BTreeSet<String>,
    active: BTreeMap<String, (String, i32, u64)>,
}

#[test]
fn sigkill_at_random_instants_under_load() {
    under_load(Server::start(HOSTS), |server| {
        server.kill();
        server.run();
    });
}

/// Repeats a fault under a server with [`HOSTS`] while clients lease and release, and checks the answers that they received.
pub(crate) fn under_load(mut server: Server, mut hurt: impl FnMut(&mut Server)) {
    let rounds = if std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") { 20 } else { 3 };
    server.wait_for_state("hosts", "READY", 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let told = Arc::new(Mutex::new(Told::default()));
    let stop = Arc::new(AtomicBool::new(false));
    let number = Arc::new(AtomicU64::new(0));
    let seen: Arc<Mutex<BTreeMap<String, i32>>> = Arc::default();
    let clients: Vec<_> = (0..8)
        .map(|_| runtime.spawn(client(server.address.clone(), told.clone(), stop.clone(), number.clone())))
        .collect();
    let watcher = runtime.spawn(watch(server.address.clone(), seen.clone(), stop.clone()));
    let mut odd = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..rounds {
        odd = odd.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        releases(&told, 20 + (odd >> 33) % 200);
        hurt(&mut server);
    }
    releases(&told, 20);
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        runtime.block_on(client).unwrap();
    }

    let told = told.lock().unwrap();
    assert!(told.released.len() > 50, "there was load: {}", told.released.len());
    // No token of a slot is used twice.
    let mut tokens = BTreeSet::new();
    for (resource, slot, token) in told.active.values() {
        assert!(tokens.insert((resource.clone(), *slot, *token)), "slot {slot} token {token} was given twice");
    }
    // Every acknowledged lease is stored.
    runtime.block_on(async {
        let mut api = LeaseServiceClient::connect(server.address.clone()).await.unwrap();
        for id in &told.released {
            let lease = api
                .get(GetRequest { lease_id: id.clone(), ..GetRequest::default() })
                .await
                .unwrap()
                .into_inner()
                .lease
                .unwrap();
            assert_eq!(lease.state(), LeaseState::Released, "{id} was acknowledged as released");
        }
        for id in told.active.keys().filter(|id| !told.released.contains(*id)) {
            let lease = api
                .get(GetRequest { lease_id: id.clone(), ..GetRequest::default() })
                .await
                .unwrap()
                .into_inner()
                .lease
                .unwrap();
            assert!(matches!(lease.state(), LeaseState::Active | LeaseState::Released), "{id} is {:?}", lease.state());
        }
    });
    // The watch resumed after each kill and received each end.
    let start = Instant::now();
    loop {
        let missing: Vec<String> = {
            let seen = seen.lock().unwrap();
            told.released.iter().filter(|id| seen.get(*id) != Some(&(LeaseState::Released as i32))).cloned().collect()
        };
        if missing.is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the watcher never saw the end of {missing:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    watcher.abort();
    assert!(server.stop().success(), "a graceful stop ends with 0");
    let output = server.command(&["pools"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "no server, a clear end: {}", text(&output));
}

/// Waits for this number of further acknowledged releases.
fn releases(told: &Mutex<Told>, more: u64) {
    let released = || told.lock().unwrap().released.len() as u64;
    let (before, start) = (released(), Instant::now());
    while released() < before + more {
        assert!(start.elapsed() < PATIENCE, "the load stands still after {} of {more} releases", released() - before);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Leases and releases. It repeats each call with the same content until the answer.
async fn client(address: String, told: Arc<Mutex<Told>>, stop: Arc<AtomicBool>, number: Arc<AtomicU64>) {
    while !stop.load(Ordering::SeqCst) {
        let request = LeaseRequest {
            request_id: format!("load-{}", number.fetch_add(1, Ordering::SeqCst)),
            holder: "load".into(),
            selector: Some(Selector { pool: "hosts".into(), ..Selector::default() }),
            wait: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            ..LeaseRequest::default()
        };
        let lease = loop {
            let answer = async {
                let mut api = LeaseServiceClient::connect(address.clone()).await.ok()?;
                api.lease(request.clone()).await.ok()?.into_inner().lease
            };
            match answer.await {
                Some(lease) if lease.state() == LeaseState::Active => break lease,
                Some(_) | None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        told.lock()
            .unwrap()
            .active
            .insert(lease.id.clone(), (lease.resource_id.clone(), lease.slot, lease.fencing_token));
        loop {
            let released = async {
                let mut api = LeaseServiceClient::connect(address.clone()).await.ok()?;
                api.release(ReleaseRequest {
                    lease_id: lease.id.clone(),
                    outcome: Outcome::Ok.into(),
                    ..ReleaseRequest::default()
                })
                .await
                .ok()
            };
            if released.await.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        told.lock().unwrap().released.insert(lease.id);
    }
}

/// One watcher that resumes by revision.
async fn watch(address: String, seen: Arc<Mutex<BTreeMap<String, i32>>>, stop: Arc<AtomicBool>) {
    let mut revision = 0;
    let _ = stop;
    loop {
        let stream = async {
            let mut api = LeaseServiceClient::connect(address.clone()).await.ok()?;
            let request = WatchRequest { from_revision: revision, include_ended: true, ..WatchRequest::default() };
            Some(api.watch(request).await.ok()?.into_inner())
        };
        if let Some(mut stream) = stream.await {
            while let Ok(Some(told)) = stream.message().await {
                assert!(told.revision >= revision, "revisions never go back");
                revision = told.revision;
                if let Some(Event::Lease(lease)) = told.event {
                    seen.lock().unwrap().insert(lease.id.clone(), lease.state);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
