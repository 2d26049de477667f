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

/// What came of it.
pub(crate) struct Figure {
    /// Calls per second.
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Each client makes calls one after the other until the time is over. A call that fails ends the benchmark.
pub(crate) async fn measure<C, F, Fut>(plan: Plan, clients: Vec<C>, call: F) -> Figure
where
    C: Clone + Send + 'static,
    F: Fn(C) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let start = Instant::now();
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
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    Figure { rate: times.len() as f64 / span.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

pub(crate) fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// So many connections to an address.
pub(crate) async fn connect(address: &str, count: usize) -> Vec<tonic::transport::Channel> {
    let mut channels = Vec::new();
    for _ in 0..count {
        let endpoint =
            tonic::transport::Endpoint::from_shared(address.to_string()).expect("a good address").tcp_nodelay(true);
        channels.push(endpoint.connect().await.expect("the server listens"));
    }
    channels
}
