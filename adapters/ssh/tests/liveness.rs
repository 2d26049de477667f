//! Whether a host lives, over networks that lose packets: against a real sshd, with nftables in between.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::nft::{self, Fault};
use support::{Sshd, skip};
use tokio::sync::mpsc;
use wharfinger_adapter::{Adapter, Notice, NoticeKind, ProvisionJob, ResourceJob, Verdict};
use wharfinger_ssh::{Config, Host, SshAdapter};

fn host(sshd: &Sshd, name: &str) -> Host {
    Host {
        name: name.into(),
        address: sshd.address.to_string(),
        port: Some(sshd.port),
        user: Some(sshd.user.clone()),
        key: Some(sshd.key()),
        host_key: sshd.host_key(),
        labels: BTreeMap::new(),
        slots: None,
        enabled: true,
        proxy_command: None,
    }
}

fn config(sshd: &Sshd, hosts: usize) -> Config {
    Config {
        work_dir: sshd.folder().join("work").to_string_lossy().into_owned(),
        min_free_disk_mb: 1,
        hosts: (0..hosts).map(|i| host(sshd, &format!("host-{i}"))).collect(),
        ..Config::default()
    }
}

fn adapter(sshd: &Sshd, hosts: usize) -> Arc<SshAdapter> {
    Arc::new(SshAdapter::new("farm".into(), config(sshd, hosts)).expect("good settings"))
}

/// Makes host number `i` ready.
async fn made(adapter: &SshAdapter, i: usize) -> ResourceJob {
    let mut job = ResourceJob {
        pool: "farm".into(),
        resource: format!("res_{i}"),
        op: 1,
        item: Some(format!("host-{i}")),
        handle: None,
        parent: None,
    };
    let made = adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.expect("provision");
    job.handle = Some(made.handle);
    job
}

/// What is told, but for the first words of the watch on a host: that nothing is announced.
fn subscribed(adapter: &SshAdapter) -> mpsc::Receiver<Notice> {
    let (tx, mut all) = mpsc::channel(256);
    let (pass_on, rx) = mpsc::channel(256);
    adapter.subscribe(tx);
    tokio::spawn(async move {
        while let Some(notice) = all.recv().await {
            if notice.kind != NoticeKind::Cancelled && pass_on.send(notice).await.is_err() {
                return;
            }
        }
    });
    rx
}

/// The broker's rule of evidence with its proposed defaults, played over one adapter: what it would do, and how often it
/// was in doubt.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    questions: u32,
    single_misses: u32,
    in_a_row: u32,
    no_verdict: u32,
    given_up: u32,
}

const MISSES: u32 = 3;
const OVER: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(500);

/// Probes every `interval`; after a miss checks at once, then after each `RETRY`, until it answers or is given up.
async fn as_the_broker_asks(adapter: Arc<SshAdapter>, job: ResourceJob, interval: Duration, until: Instant) -> Tally {
    let mut tally = Tally::default();
    let (mut misses, mut first) = (0, Instant::now());
    while Instant::now() < until {
        // The first check follows the probe at once.
        tokio::time::sleep(match misses {
            0 => interval,
            1 => Duration::ZERO,
            _ => RETRY,
        })
        .await;
        let verdict = if misses == 0 { adapter.probe(&job).await } else { adapter.check(&job).await };
        tally.questions += 1;
        match verdict {
            Ok(Verdict::Healthy) => misses = 0,
            Err(_) => {
                tally.no_verdict += 1;
                misses = 0;
            }
            Ok(Verdict::Unreachable { reason, detail }) => {
                println!("{}: a miss: {reason}: {detail}", job.resource);
                if misses == 0 {
                    first = Instant::now();
                }
                misses += 1;
                tally.single_misses += 1;
                tally.in_a_row = tally.in_a_row.max(misses);
                if misses >= MISSES && first.elapsed() >= OVER {
                    tally.given_up += 1;
                    return tally;
                }
            }
            Ok(other) => panic!("{other:?} of a host that is well"),
        }
    }
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifth_of_all_packets_lost_breaks_nothing() {
    if skip("a_fifth_of_all_packets_lost_breaks_nothing") || nft::skip("a_fifth_of_all_packets_lost_breaks_nothing") {
        return;
    }
    let sshd = Sshd::start();
    let adapter = adapter(&sshd, 10);
    let mut notices = subscribed(&adapter);
    let mut jobs = Vec::new();
    for i in 0..10 {
        jobs.push(made(&adapter, i).await);
    }
    let _fault = Fault::lose_one_in(5, sshd.address);
    // Five times as often as the broker asks, so that a minute says as much as five.
    let (interval, until) = (Duration::from_secs(1), Instant::now() + Duration::from_secs(60));
    let asking: Vec<_> =
        jobs.into_iter().map(|job| tokio::spawn(as_the_broker_asks(adapter.clone(), job, interval, until))).collect();
    let mut all = Tally::default();
    for one in asking {
        let one = one.await.unwrap();
        all.questions += one.questions;
        all.single_misses += one.single_misses;
        all.no_verdict += one.no_verdict;
        all.given_up += one.given_up;
        all.in_a_row = all.in_a_row.max(one.in_a_row);
    }
    println!("20 % loss, 10 hosts, 60 s: {all:?}");
    assert_eq!(all.given_up, 0, "{all:?}");
    assert!(all.questions > 200, "{all:?}");
    assert!(notices.try_recv().is_err(), "no connection was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_is_unreachable_in_time_each_time_and_then_it_is_back() {
    let name = "a_black_hole_is_unreachable_in_time_each_time_and_then_it_is_back";
    if skip(name) || nft::skip(name) {
        return;
    }
    let sshd = Sshd::start();
    let adapter = adapter(&sshd, 1);
    let mut notices = subscribed(&adapter);
    let job = made(&adapter, 0).await;
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    let fault = Fault::black_hole(sshd.address);
    let begun = Instant::now();
    for question in ["probe", "check", "check", "probe"] {
        let asked = Instant::now();
        let verdict = if question == "probe" { adapter.probe(&job).await } else { adapter.check(&job).await };
        println!("{question} of a black hole took {:?}: {verdict:?}", asked.elapsed());
        assert!(matches!(verdict, Ok(Verdict::Unreachable { reason: "TIMEOUT", .. })), "{question}: {verdict:?}");
        assert!(asked.elapsed() < Duration::from_millis(3500), "{question} took {:?}", asked.elapsed());
    }
    assert!(notices.try_recv().is_err(), "silence is not the end of the connection");
    drop(fault);
    // The kept connection's next try is up to as far away as it has been silent; a new one is there at once.
    let back = Instant::now();
    let verdict = adapter.probe(&job).await;
    println!("after {:?} of silence it answers within {:?}", begun.elapsed(), back.elapsed());
    assert_eq!(verdict, Ok(Verdict::Healthy));
    let asked = Instant::now();
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    assert!(asked.elapsed() < Duration::from_secs(1), "the new connection is the kept one now: {:?}", asked.elapsed());
    assert!(notices.try_recv().is_err(), "the one that was stuck ends without a word");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_from_one_moment_to_the_next_is_given_up_in_fifteen_seconds() {
    let name = "a_black_hole_from_one_moment_to_the_next_is_given_up_in_fifteen_seconds";
    if skip(name) || nft::skip(name) {
        return;
    }
    let sshd = Sshd::start();
    let adapter = adapter(&sshd, 1);
    let job = made(&adapter, 0).await;
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    let _fault = Fault::black_hole(sshd.address);
    let begun = Instant::now();
    // The worst case: the hole opens right after a probe, and the interval is at its longest.
    let interval = Duration::from_millis(4400);
    let tally = as_the_broker_asks(adapter, job, interval, begun + Duration::from_secs(60)).await;
    println!("given up {:?} after the hole opened: {tally:?}", begun.elapsed());
    assert_eq!((tally.given_up, tally.single_misses), (1, 3));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_connection_and_a_busy_sshd_are_no_death() {
    let name = "a_stuck_connection_and_a_busy_sshd_are_no_death";
    if skip(name) {
        return;
    }
    let sshd = Sshd::start_with("MaxStartups 1");
    let adapter = adapter(&sshd, 1);
    let job = loop {
        // The harness's own look whether sshd is up takes the only place for a moment.
        let job = ResourceJob { item: Some("host-0".into()), ..blank() };
        if adapter.provision(&ProvisionJob { resource: job, attempt: 0 }).await.is_ok() {
            break made(&adapter, 0).await;
        }
    };
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    let _idle = tokio::net::TcpStream::connect((sshd.address, sshd.port)).await.unwrap();
    // The sessions hang, sshd itself only has no room.
    sshd.stop_sessions();
    for question in ["probe", "check", "check", "check"] {
        let verdict = if question == "probe" { adapter.probe(&job).await } else { adapter.check(&job).await };
        let failure = verdict.expect_err(question);
        assert_eq!(failure.reason, "SSHD_BUSY", "{question}: {failure}");
    }
    sshd.go_on();
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
}

fn blank() -> ResourceJob {
    ResourceJob { pool: "farm".into(), resource: "res_0".into(), op: 1, item: None, handle: None, parent: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_connection_is_replaced_and_its_command_comes_to_its_end() {
    if skip("a_stuck_connection_is_replaced_and_its_command_comes_to_its_end") {
        return;
    }
    let sshd = Sshd::start();
    let adapter = adapter(&sshd, 1);
    let mut notices = subscribed(&adapter);
    let job = made(&adapter, 0).await;
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    let shell = adapter.shell(&job).await.unwrap();
    let started = sshd.folder().join("started");
    let line = format!("touch {}; sleep 4; echo done", started.display());
    let running = tokio::spawn(async move { shell.run(wharfinger_adapter::Command::sh(line)).await });
    while !started.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sshd.stop_sessions();
    let asked = Instant::now();
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy), "sshd takes a new connection");
    println!("a stuck connection: answered after {:?}", asked.elapsed());
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    sshd.go_on();
    assert_eq!(running.await.unwrap().unwrap().text(), "done");
    assert!(notices.try_recv().is_err());
}

/// The test below runs this binary again with this test alone, and stops that process for a while.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_broker_that_was_stopped_declares_nothing_dead"]
async fn child_that_is_stopped() {
    let Ok(config) = std::env::var("WHARFINGER_TEST_STOPPED") else { panic!("only as a child") };
    let config: Config = toml::from_str(&config).unwrap();
    let hosts = config.hosts.len();
    let adapter = Arc::new(SshAdapter::new("farm".into(), config).unwrap());
    let mut notices = subscribed(&adapter);
    let mut jobs = Vec::new();
    for i in 0..hosts {
        jobs.push(made(&adapter, i).await);
    }
    println!("\nchild holds {hosts}");
    let until = Instant::now() + Duration::from_secs(40);
    let asking: Vec<_> = jobs
        .into_iter()
        .map(|job| tokio::spawn(as_the_broker_asks(adapter.clone(), job, Duration::from_millis(20), until)))
        .collect();
    for one in asking {
        println!("\nchild says {:?}", one.await.unwrap());
    }
    while let Ok(notice) = notices.try_recv() {
        println!("\nchild got {notice:?}");
    }
    println!("\nchild is done");
}

#[test]
fn a_broker_that_was_stopped_declares_nothing_dead() {
    if skip("a_broker_that_was_stopped_declares_nothing_dead") {
        return;
    }
    let sshd = Sshd::start();
    let mut config = format!("work_dir = {:?}\nmin_free_disk_mb = 1\n", sshd.folder().join("work"));
    for i in 0..10 {
        let (address, port, key, host_key) = (sshd.address, sshd.port, sshd.key(), sshd.host_key());
        config.push_str(&format!(
            "[[host]]\nname = 'host-{i}'\naddress = '{address}'\nport = {port}\nuser = 'root'\nkey = {key:?}\nhost_key = '{host_key}'\n"
        ));
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_stopped", "--ignored", "--nocapture"])
        .env("WHARFINGER_TEST_STOPPED", config)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut next = |begins: &str| loop {
        let line = lines.next().unwrap_or_else(|| panic!("the child ended before {begins:?}")).unwrap();
        assert!(!line.contains("a miss") && !line.contains("child got"), "{line}");
        if line.starts_with(begins) {
            return line;
        }
    };
    next("child holds 10");
    // In the middle of its questions: ten hosts are asked fifty times a second each.
    std::thread::sleep(Duration::from_millis(1500));
    let signal = |name: &str| {
        let status = std::process::Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        assert!(status.unwrap().success());
    };
    signal("STOP");
    std::thread::sleep(Duration::from_secs(30));
    signal("CONT");
    for _ in 0..10 {
        let said = next("child says");
        println!("{said}");
        assert!(said.contains("single_misses: 0") && said.contains("no_verdict: 0"), "{said}");
    }
    next("child is done");
    assert!(child.wait().unwrap().success());
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 10, "the connections of before are those of after");
}
