//! Whether a host lives, over networks that lose packets: against a real sshd, with nftables in between.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use pool::{PATIENCE, eventually, subscribed};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use support::nft::{self, Fault};
use support::{Sshd, skip};
use tokio::time::Instant;
use wharfinger_adapter::{Adapter, ProvisionJob, ResourceJob, Verdict};
use wharfinger_ssh::{Config, SshAdapter};

fn many_hosts(sshd: &Sshd, hosts: usize) -> Config {
    pool::config(sshd, (0..hosts).map(|i| pool::host(sshd, &format!("host-{i}"))).collect())
}

fn adapter(sshd: &Sshd, hosts: usize) -> Arc<SshAdapter> {
    Arc::new(SshAdapter::new("farm".into(), many_hosts(sshd, hosts)).expect("good settings"))
}

/// A check that comes while a probe is under way does not wait for the probe's end before its own time begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_joins_the_one_under_way() {
    if skip("a_question_joins_the_one_under_way") {
        return;
    }
    let sshd = Sshd::start();
    let adapter = adapter(&sshd, 1);
    let job = made(&adapter, 0).await;
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    sshd.stop();
    let begun = Instant::now();
    let silent = |verdict| assert!(matches!(verdict, Ok(Verdict::Unreachable { .. })), "{verdict:?}");
    silent(adapter.probe(&job).await);
    let alone = begun.elapsed();
    let begun = Instant::now();
    let (one, other) = tokio::join!(adapter.probe(&job), adapter.check(&job));
    let both = begun.elapsed();
    silent(one);
    silent(other);
    sshd.go_on();
    assert!(both < alone.mul_f64(1.7), "one takes {alone:?}, two at once take {both:?}");
}

/// Makes host number `i` ready.
async fn made(adapter: &SshAdapter, i: usize) -> ResourceJob {
    pool::made(adapter, pool::job_of("farm", &format!("host-{i}"), &format!("res_{i}"))).await.0
}

/// The broker's rule of evidence with its defaults, played over one adapter: what the broker would do, and how often it
/// would be in doubt.
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

/// How long the questions go on.
#[derive(Clone, Default)]
struct Course {
    over: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Course {
    /// One that ends after this time.
    fn of(span: Duration) -> Self {
        let course = Self::default();
        let over = course.over.clone();
        tokio::spawn(async move {
            tokio::time::sleep(span).await;
            over.store(true, Ordering::Relaxed);
        });
        course
    }
}

/// Probes every `interval`; after a miss checks at once, then after each `RETRY`, until the host answers or is given up.
async fn as_the_broker_asks(adapter: Arc<SshAdapter>, job: ResourceJob, interval: Duration, course: Course) -> Tally {
    let mut tally = Tally::default();
    let (mut misses, mut first) = (0, Instant::now());
    while !course.over.load(Ordering::Relaxed) {
        // The first check follows the probe at once.
        tokio::time::sleep(match misses {
            0 => interval,
            1 => Duration::ZERO,
            _ => RETRY,
        })
        .await;
        let verdict = if misses == 0 { adapter.probe(&job).await } else { adapter.check(&job).await };
        tally.questions += 1;
        course.asked.fetch_add(1, Ordering::Relaxed);
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

/// The variable of a process that runs one test of this binary.
const ALONE: &str = "WHARFINGER_TEST_ALONE";

/// Runs this binary again with one test alone, ahead of every ordinary process where the machine allows it: the test
/// measures time, and a busy machine is none of the faults that it is about.
fn run_ahead_of_others(test: &str) {
    let ahead = Command::new("chrt").args(["--rr", "1", "true"]).status().is_ok_and(|status| status.success());
    let binary = std::env::current_exe().unwrap();
    let mut command = if ahead {
        let mut command = Command::new("chrt");
        command.args(["--rr", "1"]).arg(binary);
        command
    } else {
        println!("chrt is refused here: the test depends on a quiet machine");
        Command::new(binary)
    };
    let status = command.args(["--exact", test, "--nocapture"]).env(ALONE, "1").status().unwrap();
    assert!(status.success(), "{test}, run alone: {status}");
}

#[test]
fn a_fifth_of_all_packets_lost_breaks_nothing() {
    let name = "a_fifth_of_all_packets_lost_breaks_nothing";
    if skip(name) || nft::skip(name) {
        return;
    }
    if std::env::var_os(ALONE).is_none() {
        run_ahead_of_others(name);
    } else {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(a_fifth_of_all_packets_lost());
    }
}

async fn a_fifth_of_all_packets_lost() {
    let sshd = Sshd::start();
    let adapter = adapter(&sshd, 10);
    let mut notices = subscribed(&adapter);
    let mut jobs = Vec::new();
    for i in 0..10 {
        jobs.push(made(&adapter, i).await);
    }
    let _fault = Fault::lose_one_in(5, sshd.address);
    // Five times as often as the broker asks, so that a minute covers as much as five.
    let (interval, course) = (Duration::from_secs(1), Course::of(Duration::from_secs(60)));
    let asking: Vec<_> = jobs
        .into_iter()
        .map(|job| tokio::spawn(as_the_broker_asks(adapter.clone(), job, interval, course.clone())))
        .collect();
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
    let tally = as_the_broker_asks(adapter, job, interval, Course::of(Duration::from_secs(60))).await;
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
    // The harness's own look whether sshd is up takes the only place for a moment.
    eventually("sshd has room for us", async || {
        let resource = pool::job_of("farm", "host-0", "res_0");
        adapter.provision(&ProvisionJob { resource, attempt: 0 }).await.is_ok()
    })
    .await;
    let job = made(&adapter, 0).await;
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
    // Until the sessions hang and are let go again, whatever the machine is busy with.
    let go_on = sshd.folder().join("go on");
    let argv = ["/bin/sh", "-c", "touch \"$1\"; until [ -e \"$2\" ]; do sleep 0.1; done; echo done", "sh"];
    let files = [&started, &go_on].map(|file| file.to_string_lossy().into_owned());
    let command = wharfinger_adapter::Command::new(argv.map(String::from).into_iter().chain(files));
    let running = tokio::spawn(async move { shell.run(command).await });
    eventually("the command runs", async || started.exists()).await;
    sshd.stop_sessions();
    let asked = Instant::now();
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy), "sshd takes a new connection");
    println!("a stuck connection: answered after {:?}", asked.elapsed());
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    sshd.go_on();
    std::fs::write(&go_on, "").unwrap();
    assert_eq!(running.await.unwrap().unwrap().text(), "done");
    assert!(notices.try_recv().is_err());
}

/// How long the broker stands still: longer than every time limit of a connection.
const STOPPED: Duration = Duration::from_secs(30);

/// Questions, by ten hosts together, that show that each host is being asked.
const MANY: u32 = 200;

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
    let course = Course::default();
    let asking: Vec<_> = jobs
        .into_iter()
        .map(|job| tokio::spawn(as_the_broker_asks(adapter.clone(), job, Duration::from_millis(20), course.clone())))
        .collect();
    let asked = async |more: u32| {
        let until = course.asked.load(Ordering::Relaxed) + more;
        eventually("the questions go on", async || course.asked.load(Ordering::Relaxed) >= until).await;
    };
    asked(MANY).await;
    println!("\nchild asks {hosts}");
    // A line is here when the process goes on.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()).unwrap()).await.unwrap();
    asked(MANY).await;
    course.over.store(true, Ordering::Relaxed);
    for one in asking {
        println!("\nchild reports {:?}", one.await.unwrap());
    }
    while let Ok(notice) = notices.try_recv() {
        println!("\nchild got {notice:?}");
    }
    println!("\nchild is done");
}

/// A child process, killed when the value is dropped, and its output.
struct Stoppable {
    child: Child,
    lines: Receiver<String>,
}

impl Stoppable {
    fn start(config: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_stopped", "--ignored", "--nocapture"])
            .env("WHARFINGER_TEST_STOPPED", config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (pass_on, lines) = std::sync::mpsc::sync_channel(1024);
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| pass_on.send(line)));
        Self { child, lines }
    }

    /// Waits for the line with this beginning. No host may miss a question before it.
    fn line(&self, begins: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|why| panic!("no line {begins:?}: {why}"));
            assert!(!line.contains("a miss") && !line.contains("child got"), "{line}");
            if line.starts_with(begins) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let mut child = Stoppable::start(&config);
    // In the middle of its questions: each of ten hosts is asked fifty times a second.
    child.line("child asks 10");
    let logins = || sshd.log().matches("Accepted publickey").count();
    let before = logins();
    child.signal("STOP");
    std::thread::sleep(STOPPED);
    child.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    child.signal("CONT");
    for _ in 0..10 {
        let report = child.line("child reports");
        println!("{report}");
        assert!(report.contains("single_misses: 0") && report.contains("no_verdict: 0"), "{report}");
    }
    child.line("child is done");
    assert!(child.child.wait().unwrap().success());
    assert!(before >= 10, "{before}");
    assert_eq!(logins(), before, "the connections of before are those of after");
}
