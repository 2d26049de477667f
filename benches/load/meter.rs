//! Runs a call from many tasks for a while and measures it.

use std::future::Future;
use std::time::{Duration, Instant};

/// How much load.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) span: Duration,
}

/// The result of a measurement.
pub(crate) struct Figure {
    /// Calls per second.
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Cores that this process kept busy meanwhile.
    pub(crate) cores: f64,
}

/// Processor time of this process so far, in seconds.
pub(crate) fn busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of proc(5): user and system time in ticks of 10 ms.
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// Each client makes calls one after the other until the time is over. A call that fails ends the benchmark.
pub(crate) async fn measure<C, F, Fut>(plan: Plan, clients: Vec<C>, call: F) -> Figure
where
    C: Clone + Send + 'static,
    F: Fn(C) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (start, busy_before) = (Instant::now(), busy());
    let tasks: Vec<_> = clients
        .into_iter()
        .flat_map(|client| std::iter::repeat_n(client, plan.in_flight))
        .map(|client| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while start.elapsed() < plan.span {
                    let before = Instant::now();
                    call(client.clone()).await;
                    times.push(before.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a client task ended well"));
    }
    let span = start.elapsed();
    let cores = (busy() - busy_before) / span.as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Figure { rate: times.len() as f64 / span.as_secs_f64(), p50: at(0.5), p99: at(0.99), cores }
}

pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Opens `count` connections to an address.
pub(crate) async fn connect(address: &str, count: usize) -> Vec<tonic::transport::Channel> {
    let mut channels = Vec::new();
    for _ in 0..count {
        let endpoint =
            tonic::transport::Endpoint::from_shared(address.to_string()).expect("a good address").tcp_nodelay(true);
        channels.push(endpoint.connect().await.expect("the server listens"));
    }
    channels
}
