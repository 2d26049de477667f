//! Three servers, clients of all of them, and one fault after the other. The answers to clients are recorded and compared at the end.
//! Two rounds of each fault, twenty with WHARFINGER_LONG=1.

use crate::failover::{Farm, until_stopped};
use crate::postgresql::Cluster;
use crate::proxy::Mode;
use crate::support::{outage_of, signal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wharfinger::client::{Client, ClientOptions, Watched};
use wharfinger::pb::{LeaseRequest, LeaseState, ListRequest, Outcome, Selector, WatchRequest};

/// One lease as its holder saw it.
#[derive(Clone, Debug)]
struct Held {
    id: String,
    slot: (String, i32),
    token: u64,
    /// Time of the answer that the lease is active, and time of its release. In between no other lease has the slot.
    from: Instant,
    to: Instant,
}

#[derive(Default)]
struct History {
    held: Mutex<Vec<Held>>,
    /// Leases whose release was acknowledged.
    released: Mutex<BTreeSet<String>>,
    /// By watcher and lease: the last state that was received, and its revision.
    watched: Mutex<BTreeMap<(usize, String), (LeaseState, u64)>>,
    requests: AtomicU64,
    /// The highest revision of an acknowledged release.
    revision: AtomicU64,
}

fn patient(list: &str) -> Client {
    let options = ClientOptions { retry_for: Duration::from_secs(120), ..ClientOptions::default() };
    Client::connect_lazy(list, options).unwrap()
}

async fn holder(client: Client, history: Arc<History>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let number = history.requests.fetch_add(1, Ordering::SeqCst);
        let request = LeaseRequest {
            request_id: format!("h-{number}"),
            holder: "history".into(),
            selector: Some(Selector { pool: "hosts".into(), ..Selector::default() }),
            wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
            ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
            ..LeaseRequest::default()
        };
        let lease = loop {
            let lease = client.lease(request.clone()).await.unwrap().lease.unwrap();
            match lease.state() {
                LeaseState::Active => break lease,
                LeaseState::Queued | LeaseState::Preparing => {}
                other => panic!("lease {} is {other:?}: {lease:?}", lease.id),
            }
        };
        let from = Instant::now();
        tokio::time::sleep(Duration::from_millis(number * 7 % 40)).await;
        let held = Held {
            id: lease.id.clone(),
            slot: (lease.resource_id.clone(), lease.slot),
            token: lease.fencing_token,
            from,
            to: Instant::now(),
        };
        history.held.lock().unwrap().push(held);
        let told = client.release(&lease.id, Outcome::Ok, "").await.unwrap().lease.unwrap();
        assert_eq!(told.state(), LeaseState::Released);
        history.revision.fetch_max(told.revision, Ordering::SeqCst);
        history.released.lock().unwrap().insert(lease.id);
    }
}

async fn watcher(number: usize, client: Client, history: Arc<History>) {
    let mut watch = client.watch(WatchRequest { include_ended: true, ..WatchRequest::default() });
    let mut revision = 0;
    loop {
        match watch.next().await.unwrap() {
            Watched::Lease(lease) => {
                let told = (lease.state(), lease.revision);
                let before = history.watched.lock().unwrap().insert((number, lease.id.clone()), told);
                assert!(
                    before.is_none_or(|(_, before)| before <= lease.revision),
                    "{number}: {lease:?} came after {before:?}"
                );
            }
            Watched::Resync => panic!("nothing was forgotten, so nothing has to start again"),
            Watched::Synced { revision: told } | Watched::Bookmark { revision: told } => {
                assert!(told >= revision, "revisions never go back");
                revision = told;
            }
        }
    }
}

/// A fault of the leader, of a follower, or of all servers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Kill,
    Pause,
    Cut,
    Stop,
    Apart,
    Database,
}

/// All faults.
pub(crate) const FAULTS: [Fault; 6] =
    [Fault::Kill, Fault::Pause, Fault::Cut, Fault::Stop, Fault::Apart, Fault::Database];

pub(crate) fn hurt(farm: &mut Farm, cluster: &mut Cluster, fault: Fault) {
    let leader = farm.leader();
    match fault {
        Fault::Kill => {
            farm.servers[leader].kill();
            farm.leader_but(leader);
            farm.servers[leader].spawn();
        }
        Fault::Pause => {
            let pid = farm.servers[leader].pid();
            signal(pid, "STOP");
            until_stopped(pid);
            farm.leader_but(leader);
            outage_of(Duration::from_millis(500));
            signal(pid, "CONT");
        }
        Fault::Cut => {
            farm.ways[leader].set(Mode::Hold);
            farm.leader_but(leader);
            farm.ways[leader].cut_and(Mode::Pass);
        }
        Fault::Stop => {
            assert!(farm.servers[leader].stop().success());
            farm.servers[leader].spawn();
        }
        // For longer than the maximum staleness of its answers.
        Fault::Apart => {
            let apart = (leader + 1) % 3;
            farm.ways[apart].set(Mode::Hold);
            outage_of(Duration::from_secs(4));
            farm.ways[apart].cut_and(Mode::Pass);
        }
        Fault::Database => {
            cluster.kill();
            cluster.run();
        }
    }
    farm.leader();
}

#[test]
fn answers_to_clients_stay_true_through_every_fault() {
    let Some(mut cluster) = Cluster::start() else { return };
    let rounds = if std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1") { 20 } else { 2 };
    let all: Vec<Fault> = (0..rounds).flat_map(|_| FAULTS).collect();
    let farm = Farm::start(&cluster, 3);
    stays_true(farm, all.len(), |farm, at| hurt(farm, &mut cluster, all[at]));
}

/// The database's machine is lost, its synchronous replica is promoted, and the address leads there.
#[test]
fn a_database_that_fails_over_to_its_replica_loses_nothing() {
    let Some(mut cluster) = Cluster::start() else { return };
    let farm = Farm::start(&cluster, 3);
    let replica = cluster.replica();
    stays_true(farm, 1, |farm, _| {
        cluster.kill();
        replica.promote();
        farm.ways.iter().for_each(|way| way.lead_to(replica.port()));
        farm.leader();
    });
}

/// Leases and releases while one fault follows the other, and compares the recorded answers.
fn stays_true(mut farm: Farm, faults: usize, mut hurt: impl FnMut(&mut Farm, usize)) {
    let list: Vec<&str> = farm.servers.iter().map(|server| server.address.as_str()).collect();
    let list = list.join(",");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let history: Arc<History> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    // Half of the clients know all servers. The others know one server, which may lead or follow.
    let ways = |number: usize| match number % 2 {
        0 => patient(&list),
        _ => patient(&farm.servers[number / 2 % 3].address),
    };
    let holders: Vec<_> =
        (0..6).map(|number| runtime.spawn(holder(ways(number), history.clone(), stop.clone()))).collect();
    let watching: Vec<_> = (0..6).map(|number| runtime.spawn(watcher(number, ways(number), history.clone()))).collect();
    for fault in 0..=faults {
        // Leases go on after each fault. The next fault comes at another moment each time.
        let before = history.released.lock().unwrap().len();
        let more = 10 + fault * 17 % 30;
        let start = Instant::now();
        while history.released.lock().unwrap().len() < before + more {
            assert!(start.elapsed() < Duration::from_secs(90), "fault {fault}: nothing goes on\n{}", farm.logs());
            assert!(
                !holders.iter().any(|holder| holder.is_finished()),
                "fault {fault}: a holder was told something odd"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        if fault < faults {
            hurt(&mut farm, fault);
        }
    }
    stop.store(true, Ordering::SeqCst);
    for holder in holders {
        runtime.block_on(holder).unwrap();
    }

    let held = history.held.lock().unwrap().clone();
    let released = history.released.lock().unwrap().clone();
    eprintln!("HISTORY: {} leases through {faults} faults", held.len());
    // No slot had two holders at once, and the tokens of a slot grow with time.
    let mut slots: BTreeMap<(String, i32), Vec<Held>> = BTreeMap::new();
    for one in held {
        slots.entry(one.slot.clone()).or_default().push(one);
    }
    for (slot, mut all) in slots {
        all.sort_by_key(|held| held.from);
        for pair in all.windows(2) {
            assert_ne!(pair[0].id, pair[1].id, "one lease was given to two");
            assert!(pair[0].to <= pair[1].from, "slot {slot:?} was held twice: {pair:?}");
            assert!(pair[0].token < pair[1].token, "tokens of {slot:?} do not grow: {pair:?}");
        }
    }
    // Every acknowledged end is stored, and every watch has received it.
    let client = patient(&list);
    // A follower may not have read the last ends. With `min_revision` it waits for them or refuses.
    let known = history.revision.load(Ordering::SeqCst);
    let all = ListRequest { min_revision: known, ..ListRequest::default() };
    runtime.block_on(client.list(all)).unwrap();
    for id in &released {
        let lease = runtime.block_on(client.get(id)).unwrap();
        assert_eq!(lease.state(), LeaseState::Released, "{id} was acknowledged as released");
    }
    let start = Instant::now();
    loop {
        let missing: Vec<String> = {
            let watched = history.watched.lock().unwrap();
            let told = |number: usize, id: &String| watched.get(&(number, id.clone())).map(|told| told.0);
            let all = released.iter().flat_map(|id| (0..6).map(move |number| (number, id)));
            all.filter(|(number, id)| told(*number, id) != Some(LeaseState::Released))
                .map(|(number, id)| format!("{number}: {id}"))
                .collect()
        };
        if missing.is_empty() {
            break;
        }
        assert!(!watching.iter().any(|watch| watch.is_finished()), "a watch ended");
        assert!(start.elapsed() < Duration::from_secs(60), "the watcher never saw the end of {missing:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    watching.iter().for_each(|watch| watch.abort());
}
