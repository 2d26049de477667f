//! Many watches over three servers, and one event that all of them want (the host of all leases is taken away): each gets it, and the cost is printed.
//! Some hundred always, ten thousand with WHARFINGER_LONG=1:
//! `WHARFINGER_LONG=1 cargo test --test e2e many_watches:: -- --nocapture | grep WATCHES`.

use crate::failover::Farm;
use crate::postgresql::shared;
use crate::support::{PATIENCE, quiet, text};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Barrier;
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::watch_response::Event;
use wharfinger::pb::{LeaseState, WatchRequest};

/// Leases that the event concerns: each watch gets each.
const LEASES: usize = 5;
/// Watches of one connection.
const STREAMS: usize = 50;

/// Processor time of a process so far, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // utime and stime, proc_pid_stat(5), counted from the state on.
    rest[11].parse::<u64>().unwrap() + rest[12].parse::<u64>().unwrap()
}

/// Memory of a process, in KiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn one_event_reaches_every_watch_on_every_server() {
    let Some(cluster) = shared() else { return };
    let _alone = quiet();
    let long = std::env::var("WHARFINGER_LONG").is_ok_and(|long| long == "1");
    let each = if long { 3350 } else { 150 };
    let farm = Farm::start(cluster, 3);
    let leader = farm.leader();
    for _ in 0..LEASES {
        let args = ["lease", "--pool", "hosts", "--ttl", "1h", "--wait", "30s"];
        assert_eq!(farm.servers[leader].json(&args)["lease"]["state"], "ACTIVE");
    }
    let leases = farm.servers[leader].json(&["ls"])["leases"].as_array().unwrap().clone();
    let resource = leases[0]["resource_id"].as_str().unwrap().to_string();
    assert!(
        leases.len() == LEASES && leases.iter().all(|lease| lease["resource_id"] == resource.as_str()),
        "{leases:?}"
    );

    let pids: Vec<u32> = farm.servers.iter().map(crate::support::Server::pid).collect();
    let before: Vec<u64> = pids.iter().map(|pid| memory(*pid)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let count = each * farm.servers.len();
    let ready = Arc::new(Barrier::new(count + 1));
    let told = Arc::new(AtomicUsize::new(0));
    let mut watches = Vec::with_capacity(count);
    for server in &farm.servers {
        let mut api = None;
        for number in 0..each {
            if number % STREAMS == 0 {
                api = Some(runtime.block_on(LeaseServiceClient::connect(server.address.clone())).unwrap());
            }
            let (mut api, ready, told) = (api.clone().unwrap(), ready.clone(), told.clone());
            watches.push(runtime.spawn(async move {
                // Bookmarks seldom, so that what is measured is the event.
                let bookmark_interval = Some(prost_types::Duration { seconds: 60, nanos: 0 });
                let request = WatchRequest { pools: vec!["hosts".into()], bookmark_interval, ..Default::default() };
                let mut stream = api.watch(request).await.unwrap().into_inner();
                loop {
                    let response = stream.message().await.unwrap().unwrap();
                    if let Some(Event::Bookmark(bookmark)) = response.event
                        && bookmark.synced
                    {
                        break;
                    }
                }
                ready.wait().await;
                let mut ends = std::collections::BTreeSet::new();
                while ends.len() < LEASES {
                    let response = stream.message().await.unwrap().unwrap();
                    if let Some(Event::Lease(lease)) = response.event
                        && lease.state() == LeaseState::Broken
                    {
                        ends.insert(lease.id);
                    }
                }
                told.fetch_add(1, Ordering::SeqCst);
                // It stays open until all have their events.
                ready.wait().await;
            }));
        }
    }
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 3, ready.wait()).await }).expect("all watches are open");
    // The cost of the watches at their start is over when no server has anything to do.
    let spent = || pids.iter().map(|pid| ticks(*pid)).sum::<u64>();
    let (mut last, start) = (spent(), Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = spent();
        if now <= last + 2 || start.elapsed() > PATIENCE {
            break;
        }
        last = now;
    }
    let after: Vec<u64> = pids.iter().map(|pid| memory(*pid)).collect();
    let busy: Vec<u64> = pids.iter().map(|pid| ticks(*pid)).collect();
    let start = Instant::now();
    let lost = farm.servers[leader].cli(&["quarantine", &resource, "--reason", "a test"]);
    assert!(lost.status.success(), "{}", text(&lost));
    while told.load(Ordering::SeqCst) < count {
        assert!(start.elapsed() < PATIENCE * 2, "{} of {count} are told\n{}", told.load(Ordering::SeqCst), farm.logs());
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    let spent: Vec<u64> = pids.iter().zip(&busy).map(|(pid, before)| (ticks(*pid) - before) * 10_000).collect();
    let messages = (each * LEASES) as u64;
    for (at, _) in pids.iter().enumerate() {
        let role = if at == leader { "leads" } else { "follows" };
        let grown = (after[at].saturating_sub(before[at])) as f64 / each as f64;
        eprintln!(
            "WATCHES {each} on the server that {role}: {grown:.1} KiB and {} us of its processor for {LEASES} messages each ({:.1} us a message)",
            spent[at] / each as u64,
            spent[at] as f64 / messages as f64
        );
    }
    eprintln!("WATCHES {count} were told of {LEASES} leases on three servers within {} ms", took.as_millis());
    runtime.block_on(ready.wait());
    for watch in watches {
        runtime.block_on(watch).unwrap();
    }
}
