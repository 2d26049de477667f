//! Many hosts, probed over a transport that costs nothing: what the broker itself spends on it.

use crate::meter::busy;
use crate::wharf::pool;
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use wharfinger::engine::{self, Adapters, EffectLimits, EngineConfig, Observed};
use wharfinger::store::MemoryStore;
use wharfinger_adapter::{
    Adapter, CleanJob, Failure, PrepareJob, Prepared, ProvisionJob, Provisioned, ResourceJob, Shell, Traits, Verdict,
};
use wharfinger_core::{DoubtPolicy, Limits, Millis, PoolConfig};

/// Hosts that answer after a millisecond.
struct Far {
    probes: AtomicU64,
}

#[async_trait]
impl Adapter for Far {
    fn traits(&self) -> Traits {
        Traits { prepares: false, cleans: false, repairs: false, probes: true }
    }

    async fn provision(&self, _job: &ProvisionJob) -> Result<Provisioned, Failure> {
        Ok(Provisioned::default())
    }

    async fn prepare(&self, _job: &PrepareJob) -> Result<Prepared, Failure> {
        Ok(Prepared::default())
    }

    async fn clean(&self, _job: &CleanJob) -> Result<(), Failure> {
        Ok(())
    }

    async fn check(&self, _job: &ResourceJob) -> Result<Verdict, Failure> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.probes.fetch_add(1, Ordering::Relaxed);
        Ok(Verdict::Healthy)
    }

    async fn repair(&self, _job: &ResourceJob) -> Result<(), Failure> {
        Ok(())
    }

    async fn destroy(&self, _job: &ResourceJob) -> Result<(), Failure> {
        Ok(())
    }

    async fn shell(&self, _job: &ResourceJob) -> Result<Arc<dyn Shell>, Failure> {
        Err(Failure::bug("NO_SHELL", "nobody runs anything on these hosts"))
    }
}

/// These numbers of hosts, at each of these intervals in turn.
pub(crate) async fn run(hosts: u32, span: Duration) {
    println!("\n{hosts} hosts; a probe takes 1 ms and no processor; {} s each\n", span.as_secs());
    println!("{:<24} {:>14} {:>8} {:>16}", "probed every", "probes/s", "cores", "us of CPU each");
    for interval in [Millis::ZERO, Millis::secs(10), Millis::secs(4)] {
        let far = Arc::new(Far { probes: AtomicU64::new(0) });
        let adapters = Adapters::default();
        adapters.insert("bench", far.clone());
        let pool = PoolConfig {
            min_ready: hosts,
            max: hosts,
            slots: 1,
            traits: Traits { prepares: false, cleans: false, repairs: false, probes: true },
            doubt: DoubtPolicy { probe_interval: interval, ..DoubtPolicy::default() },
            ..pool(1)
        };
        let config = EngineConfig {
            store: Arc::new(MemoryStore::new()),
            configuration: vec![pool].into(),
            limits: Limits::default(),
            adapters,
            effects: EffectLimits::default(),
            observed: Observed::default(),
        };
        let stop = CancellationToken::new();
        let engine = engine::start(config, stop.clone()).await.expect("it starts");
        // Until all are made, and the first round has spread over its interval.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let (before, busy_before, begun) = (far.probes.load(Ordering::Relaxed), busy(), Instant::now());
        tokio::time::sleep(span).await;
        let probes = (far.probes.load(Ordering::Relaxed) - before) as f64;
        let (cores, rate) =
            ((busy() - busy_before) / begun.elapsed().as_secs_f64(), probes / begun.elapsed().as_secs_f64());
        let name = if interval == Millis::ZERO { "never".to_string() } else { interval.to_string() };
        let each = if probes > 0.0 { format!("{:.0}", cores * 1e6 / rate) } else { "-".into() };
        println!("{name:<24} {rate:>14.0} {cores:>8.3} {each:>16}");
        stop.cancel();
        let _ = engine.task.await;
    }
    println!("\nbudget: 10,000 hosts every 10 s on <= 0.5 core");
}
