//! The cost of a kept connection: memory for each, CPU for each probe. Figures, no limits; run by hand:
//! `cargo test --release -p wharfinger-ssh --test many -- --ignored --nocapture --test-threads 1`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use std::sync::Arc;
use std::time::Duration;
use support::{Sshd, skip};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wharfinger_adapter::{Adapter, ProvisionJob, ResourceJob, Verdict};
use wharfinger_ssh::{Config, SshAdapter};

const SSHDS: usize = 4;

fn rss_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Probes all, `at_once` at a time; each must be healthy.
async fn probe_all(adapter: &Arc<SshAdapter>, jobs: &[ResourceJob], at_once: usize) {
    let turns = Arc::new(Semaphore::new(at_once));
    let asking: Vec<_> = jobs
        .iter()
        .map(|job| {
            let (adapter, job, turns) = (adapter.clone(), job.clone(), turns.clone());
            tokio::spawn(async move {
                let _turn = turns.acquire().await.unwrap();
                adapter.probe(&job).await
            })
        })
        .collect();
    for one in asking {
        assert_eq!(one.await.unwrap(), Ok(Verdict::Healthy));
    }
}

/// The cost of the pulse for hosts with leases, beside their probes: no host, then all, at the default interval.
async fn pulses(adapter: &Arc<SshAdapter>, jobs: &[ResourceJob], probe: Duration) {
    const SPAN: Duration = Duration::from_secs(10);
    let spent = async || {
        let before = cpu();
        tokio::time::sleep(SPAN).await;
        (cpu() - before).as_secs_f64() / SPAN.as_secs_f64()
    };
    let idle = spent().await;
    let begun = cpu();
    jobs.iter().for_each(|job| adapter.attend(job, true));
    let start = cpu() - begun;
    let beating = spent().await;
    jobs.iter().for_each(|job| adapter.attend(job, false));
    let share = 10_000.0 / jobs.len() as f64;
    // Each of 10,000 hosts is probed every 4 s.
    let probing = 2500.0 * probe.as_secs_f64();
    println!(
        "{} hosts with leases: {idle:.3} core without a pulse, {beating:.3} with one; 10,000 hosts: {:.3} core for the pulses of all, \
         {probing:.3} for their probes; {:?} for each call of attend",
        jobs.len(),
        (beating - idle) * share,
        start / u32::try_from(jobs.len()).unwrap()
    );
}

async fn many(hosts: usize, watch: bool) {
    let sshds: Vec<Sshd> = (0..SSHDS).map(|_| Sshd::start_with("MaxStartups 1000:30:2000")).collect();
    let host = |i: usize| pool::host(&sshds[i % SSHDS], &format!("host-{i}"));
    let config = Config {
        connect_timeout_ms: 60_000,
        answer_timeout_ms: 60_000,
        watch,
        ..pool::config(&sshds[0], (0..hosts).map(host).collect())
    };
    let adapter = Arc::new(SshAdapter::new("farm".into(), config).unwrap());
    let (tx, mut notices) = tokio::sync::mpsc::channel(4096);
    adapter.subscribe(tx);
    let job = |i: usize, handle: Option<String>| ResourceJob {
        handle,
        ..pool::job_of("farm", &format!("host-{i}"), "res_1")
    };
    // One host of each sshd is proved; the others are the same machine under other names.
    let mut handles = Vec::new();
    for i in 0..SSHDS {
        let made = adapter.provision(&ProvisionJob { resource: job(i, None), attempt: 0 }).await.unwrap();
        handles.push(made.handle);
    }
    let jobs: Vec<ResourceJob> = (0..hosts).map(|i| job(i, Some(handles[i % SSHDS].clone()))).collect();
    let (before, begun) = (rss_kb(), Instant::now());
    probe_all(&adapter, &jobs, 32).await;
    let (connected, took) = (rss_kb(), begun.elapsed());
    // Pings, and a command on every twelfth.
    let (cpu_before, begun) = (cpu(), Instant::now());
    for _ in 0..12 {
        probe_all(&adapter, &jobs, 256).await;
    }
    let (each, wall) = ((cpu() - cpu_before) / u32::try_from(12 * hosts).unwrap(), begun.elapsed());
    let after = rss_kb();
    let per_host = |kb: u64| kb.saturating_sub(before) as f64 / (hosts - SSHDS) as f64;
    println!(
        "{hosts} hosts, watch {watch}: connected in {took:?}; RSS {before} KiB before, {connected} connected ({:.1} KiB a host), \
         {after} after 12 probes each ({:.1} KiB a host); {each:?} of our CPU a probe (one in twelve a command), {wall:?} in all",
        per_host(connected),
        per_host(after)
    );
    pulses(&adapter, &jobs, each).await;
    while let Ok(notice) = notices.try_recv() {
        // The first words of the watches: that nothing is announced.
        assert_eq!(notice.kind, wharfinger_adapter::NoticeKind::Cancelled, "no connection was lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a thousand sshd processes, for figures"]
async fn a_thousand_kept_connections() {
    if !skip("a_thousand_kept_connections") {
        many(1000, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a few hundred sshd processes and loops, for figures"]
async fn three_hundred_that_are_watched() {
    if !skip("three_hundred_that_are_watched") {
        many(300, true).await;
    }
}
