//! How soon a silent host is noticed and given up: hosts with a lease each, some of which are stopped (SIGSTOP) or cut off
//! (nftables), one after the other. The others go on.
//!
//! Short in each run; with WHARFINGER_LONG=1 ten of twenty-four hosts for each fault. Figures:
//! `cargo test --test e2e pace:: -- --nocapture | grep TABLE`.

use crate::faults::{Loss, skip};
use crate::sshd::Sshd;
use crate::support::Server;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use wharfinger::client::{Client, Watched};
use wharfinger::pb;
use wharfinger::pb::{LeaseRequest, LeaseState, Selector};

/// Hosts of a farm, and how many of them fall silent. No more than half, or the brake would hold.
struct Size {
    hosts: usize,
    silent: usize,
}

const SHORT: Size = Size { hosts: 7, silent: 3 };
const LONG: Size = Size { hosts: 24, silent: 10 };

/// Time of work before the first fault: a few answers of each host are known then.
const AT_WORK: Duration = Duration::from_secs(6);

/// Between two faults, so that they come at all phases of a probe's interval.
const APART: Duration = Duration::from_millis(370);

/// When a lease was first in doubt, and when it ended and how.
#[derive(Clone, Copy, Default)]
struct Told {
    doubt: Option<SystemTime>,
    ended: Option<(SystemTime, LeaseState)>,
}

/// From the fault to the doubt and to the break, of each silent host.
struct Paces {
    told: Vec<Duration>,
    broken: Vec<Duration>,
}

/// Median, and the longest: of ten, the 99th percentile.
fn of(spans: &mut [Duration]) -> (Duration, Duration) {
    spans.sort();
    (spans[spans.len() / 2], spans[spans.len() - 1])
}

fn is_long() -> bool {
    std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1")
}

fn size() -> Size {
    if is_long() { LONG } else { SHORT }
}

fn measure(size: &Size, ssh: &str, mut hurt: impl FnMut(&Sshd) -> Option<Loss>) -> Paces {
    let sshds: Vec<Sshd> = (0..size.hosts).map(|_| Sshd::start()).collect();
    let work = tempfile::tempdir().unwrap();
    let inventory: String = sshds
        .iter()
        .enumerate()
        .map(|(n, sshd)| {
            let (key, host_key) = (sshd.key(), sshd.host_key());
            format!(
                "[[pool.ssh.host]]\nname = \"h{n}\"\naddress = \"{}\"\nport = {}\nkey = \"{}\"\nhost_key = \"{host_key}\"\n",
                sshd.address,
                sshd.port,
                key.display()
            )
        })
        .collect();
    let server = Server::start(&format!(
        "[[pool]]\nname = \"hosts\"\nadapter = \"ssh\"\nslots = 1\n[pool.ssh]\nuser = \"root\"\nwork_dir = \"{}\"\n{ssh}\n{inventory}",
        work.path().display()
    ));
    let ready = server.wait_for_state("hosts", "READY", size.hosts);
    let item_of = |resource: &str| {
        let row = ready.iter().find(|row| row["id"] == resource).unwrap();
        row["item"].as_str().unwrap()[1..].parse::<usize>().unwrap()
    };

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = runtime.block_on(Client::connect(&server.address)).unwrap();
    let mut leases = BTreeMap::new();
    for _ in 0..size.hosts {
        let request = LeaseRequest {
            holder: "pace".into(),
            selector: Some(Selector { pool: "hosts".into(), ..Selector::default() }),
            ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..LeaseRequest::default()
        };
        let lease = runtime.block_on(client.lease(request)).unwrap().lease.unwrap();
        assert_eq!(lease.state(), LeaseState::Active);
        leases.insert(item_of(&lease.resource_id), lease.id);
    }
    let told: Arc<Mutex<BTreeMap<String, Told>>> = Arc::default();
    let (sink, watcher) = (told.clone(), client.clone());
    runtime.spawn(async move {
        let mut watch = watcher.watch(pb::WatchRequest { include_ended: true, ..pb::WatchRequest::default() });
        while let Ok(watched) = watch.next().await {
            let Watched::Lease(lease) = watched else { continue };
            let mut told = sink.lock().unwrap();
            let one = told.entry(lease.id.clone()).or_default();
            let now = SystemTime::now();
            match (&lease.doubt, one.doubt) {
                (Some(_), None) => one.doubt = Some(now),
                // It was in doubt before its fault came.
                (None, Some(_)) if lease.ended_at.is_none() => one.doubt = None,
                _ => {}
            }
            if lease.ended_at.is_some() && one.ended.is_none() {
                one.ended = Some((now, lease.state()));
            }
        }
    });
    server.wait("the watch to see all leases", || (told.lock().unwrap().len() == size.hosts).then_some(()));
    std::thread::sleep(AT_WORK);

    let (mut faults, mut losses) = (BTreeMap::new(), Vec::new());
    for (n, sshd) in sshds.iter().enumerate().take(size.silent) {
        faults.insert(n, SystemTime::now());
        losses.push(hurt(sshd));
        std::thread::sleep(APART);
    }
    let (mut pace, mut false_breaks) = (Paces { told: Vec::new(), broken: Vec::new() }, 0);
    for (n, lease) in &leases {
        let Some(at) = faults.get(n) else { continue };
        let (ended, state) = server.wait("the break", || told.lock().unwrap()[lease].ended);
        assert_eq!(state, LeaseState::Broken);
        let doubt = told.lock().unwrap()[lease].doubt.unwrap_or(ended);
        pace.told.push(doubt.duration_since(*at).unwrap_or_default());
        pace.broken.push(ended.duration_since(*at).unwrap_or_default());
    }
    for (n, lease) in &leases {
        false_breaks += usize::from(!faults.contains_key(n) && told.lock().unwrap()[lease].ended.is_some());
    }
    sshds.iter().for_each(Sshd::go_on);
    drop(losses);
    assert_eq!(false_breaks, 0, "the others go on");
    pace
}

fn row(name: &str, pace: &mut Paces) {
    let (told, broken) = (of(&mut pace.told), of(&mut pace.broken));
    println!(
        "TABLE | {name}, n = {} | told: median {:.2} s, longest {:.2} s | BROKEN: median {:.2} s, longest {:.2} s",
        pace.told.len(),
        told.0.as_secs_f64(),
        told.1.as_secs_f64(),
        broken.0.as_secs_f64(),
        broken.1.as_secs_f64(),
    );
}

/// As it was before hosts with leases had a pulse.
const WITHOUT: &str = "pulse_interval_ms = 0";

/// Generous: the machine of a test is busy. Without the pulse the medians are 5 s and 12 s.
fn is_soon(name: &str, mut hurt: impl FnMut(&Sshd) -> Option<Loss>) {
    let mut pace = measure(&size(), "", &mut hurt);
    row(name, &mut pace);
    if is_long() {
        let mut before = measure(&LONG, WITHOUT, &mut hurt);
        row(&format!("{name}, {WITHOUT}"), &mut before);
        let halved = |now: &mut Vec<Duration>, before: &mut Vec<Duration>| of(now).0 * 2 <= of(before).0;
        assert!(halved(&mut pace.told, &mut before.told) && halved(&mut pace.broken, &mut before.broken));
    }
    let (told, broken) = (of(&mut pace.told).0, of(&mut pace.broken).0);
    assert!(told < Duration::from_secs(3) && broken < Duration::from_secs(9), "medians: {told:?}, {broken:?}");
}

#[test]
fn a_hung_host_is_reported_and_given_up_soon() {
    if crate::sshd::skip("pace::a_hung_host_is_reported_and_given_up_soon") {
        return;
    }
    is_soon("hung", |sshd| {
        sshd.stop();
        None
    });
}

#[test]
fn a_black_hole_is_reported_and_given_up_soon() {
    if skip("pace::a_black_hole_is_reported_and_given_up_soon") {
        return;
    }
    is_soon("black-holed", |sshd| Some(Loss::of_all(&[sshd.address])));
}
