//! Gauges of the present state: made anew for each scrape, so that no series outlives its subject.

use super::Labels;
use super::book::Book;
use super::counted::seconds;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use wharfinger_core::{Census, PoolCensus, ResourceState};

/// Facts of the server itself for a scrape.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Whether it leads.
    pub leads: bool,
    /// The revision that it serves.
    pub revision: u64,
    /// The age of its data; `None` before the first read.
    pub age: Option<Duration>,
    /// Streams that watch.
    pub watches: usize,
    /// Messages that wait for the engine.
    pub backlog: usize,
    /// Whether the engine did not answer in time, so that this scrape lacks the pools.
    pub partial: bool,
}

type Numbers<const N: usize> = Family<Labels<N>, Gauge<f64, AtomicU64>>;

pub(super) fn register(book: &mut Book, server: &ServerFacts, census: Option<&Census>) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    book.add("build", "The version of this server", Info::new(version));
    one(book, "leader", "1 if this server leads", f64::from(u8::from(server.leads)));
    one(book, "revision", "The latest revision that this server serves", server.revision as f64);
    if let Some(age) = server.age {
        one(book, "feed_age_seconds", "Age of the data of a server that follows; 0 if it leads", age.as_secs_f64());
    }
    one(book, "watches", "Streams and waiting calls that hear of changes", server.watches as f64);
    one(book, "mailbox_messages", "Messages that wait for the engine", server.backlog as f64);
    let partial = f64::from(u8::from(server.partial));
    one(book, "scrape_partial", "1 if the engine did not answer in time: the pools are missing", partial);
    if let Some(census) = census {
        one(book, "queue_leases", "Leases in the queue, each once", f64::from(census.queued));
        let unmet = f64::from(census.unsatisfiable);
        one(book, "queue_unsatisfiable_leases", "Leases that the configuration can never meet", unmet);
        one(book, "sessions", "Sessions of agents", f64::from(census.sessions));
        let doubted = f64::from(census.sessions_in_doubt);
        one(book, "sessions_in_doubt", "Sessions whose stream is over, and that no other stream has resumed", doubted);
        pools(book, &census.pools);
    }
}

fn one(book: &mut Book, name: &str, help: &'static str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    book.add(name, help, gauge);
}

fn pools(book: &mut Book, pools: &[PoolCensus]) {
    let info: Numbers<3> = Family::default();
    let by_pool: [Numbers<1>; 6] = std::array::from_fn(|_| Family::default());
    let [max, min_ready, open, backing_off, waiting, oldest_wait] = &by_pool;
    let by_state: [Numbers<2>; 4] = std::array::from_fn(|_| Family::default());
    let [resources, oldest, slots, leases] = &by_state;
    let brakes: [Numbers<2>; 3] = std::array::from_fn(|_| Family::default());
    let [on, members, troubled] = &brakes;
    for pool in pools {
        let name = || pool.config.name.to_string();
        let set = |family: &Numbers<1>, value: f64| family.get_or_create_owned(&[("pool", name())]).set(value);
        let of = |family: &Numbers<2>, label: &'static str, word: &str, value: f64| {
            family.get_or_create_owned(&[("pool", name()), (label, word.to_lowercase())]).set(value);
        };
        let domain = pool.config.domain.as_deref().unwrap_or_default().to_string();
        info.get_or_create_owned(&[("pool", name()), ("adapter", pool.config.adapter.to_string()), ("domain", domain)])
            .set(1.0);
        set(max, f64::from(pool.config.max));
        set(min_ready, f64::from(pool.config.min_ready));
        set(open, f64::from(u8::from(pool.open)));
        set(backing_off, f64::from(u8::from(pool.backing_off)));
        set(waiting, f64::from(pool.waiting));
        set(oldest_wait, seconds(pool.oldest_wait));
        // A state without resources has a series, too. Resources that are gone have none.
        for state in ResourceState::NAMES.into_iter().filter(|name| *name != "GONE") {
            let found = pool.states.get(state).copied().unwrap_or_default();
            of(resources, "state", state, f64::from(found.count));
            if state != "READY" {
                of(oldest, "state", state, seconds(found.oldest));
            }
        }
        let used = pool.slots;
        for (word, count) in
            [("free", used.free), ("leased", used.leased), ("cleaning", used.cleaning), ("unusable", used.unusable)]
        {
            of(slots, "state", word, f64::from(count));
        }
        of(leases, "state", "preparing", f64::from(pool.preparing));
        of(leases, "state", "active", f64::from(pool.active));
        for brake in &pool.brakes {
            // All hosts of all pools are one domain, which each of its pools reports.
            let whole = &*brake.domain == "*";
            let labels =
                || [("pool", if whole { String::new() } else { name() }), ("domain", brake.domain.to_string())];
            on.get_or_create_owned(&labels()).set(f64::from(u8::from(brake.held.is_some())));
            members.get_or_create_owned(&labels()).set(f64::from(brake.members));
            troubled.get_or_create_owned(&labels()).set(f64::from(brake.troubled));
        }
    }
    let mut add = |name: &str, help: &'static str, family: &Numbers<1>| book.add(name, help, family.clone());
    add("pool_resources_max", "Maximum number of resources of a pool", max);
    add("pool_resources_min_ready", "Number of resources that a pool keeps ready and free", min_ready);
    add("pool_open", "1 if a pool is configured, enabled and not cordoned", open);
    add("pool_backing_off", "1 if a pool waits after a failed attempt to make a resource", backing_off);
    add(
        "pool_waiting_leases",
        "Queued leases that name the pool or that its labels meet; one may count in several",
        waiting,
    );
    add("pool_oldest_wait_seconds", "The longest wait of one of them", oldest_wait);
    book.add("pool_info", "1; what a pool is", info);
    let mut add = |name: &str, help: &'static str, family: &Numbers<2>| book.add(name, help, family.clone());
    add("pool_resources", "Resources by state", resources);
    add("pool_oldest_in_state_seconds", "How long the oldest resource has been in its state", oldest);
    add("pool_slots", "Slots by use; they add up to all slots", slots);
    add("pool_leases", "Leases on a pool by state", leases);
    add("brake_on", "1 if the brake of a failure domain is on; domain \"*\": all hosts", on);
    add("brake_members", "Machines in a failure domain of which some are in trouble", members);
    add("brake_troubled", "Those in trouble", troubled);
    spared(book, pools);
}

/// Counters of the core. They start anew when another server leads.
fn spared(book: &mut Book, pools: &[PoolCensus]) {
    let counters: [Family<Labels<1>, ConstCounterOf>; 3] = std::array::from_fn(|_| Family::default());
    let [repairs, held, would_end] = &counters;
    for pool in pools {
        let labels = || [("pool", pool.config.name.to_string())];
        repairs.get_or_create_owned(&labels()).0.store(pool.counters.repairs, std::sync::atomic::Ordering::Relaxed);
        held.get_or_create_owned(&labels()).0.store(pool.counters.held, std::sync::atomic::Ordering::Relaxed);
        would_end.get_or_create_owned(&labels()).0.store(pool.counters.would_end, std::sync::atomic::Ordering::Relaxed);
    }
    let mut add = |name: &str, help: &'static str, family: &Family<Labels<1>, ConstCounterOf>| {
        book.add(name, help, family.clone());
    };
    add("repairs", "Repairs begun since this server leads", repairs);
    add("brake_held", "Times that the brake held evidence back since this server leads", held);
    add("dry_run_spared", "Resources that a dry run would have ended since this server leads", would_end);
}

/// A counter whose value is read elsewhere.
#[derive(Clone, Debug, Default)]
struct ConstCounterOf(std::sync::Arc<AtomicU64>);

impl prometheus_client::encoding::EncodeMetric for ConstCounterOf {
    fn encode(&self, encoder: prometheus_client::encoding::MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        ConstCounter::new(self.0.load(std::sync::atomic::Ordering::Relaxed)).encode(encoder)
    }

    fn metric_type(&self) -> prometheus_client::metrics::MetricType {
        prometheus_client::metrics::MetricType::Counter
    }
}

impl prometheus_client::metrics::TypedMetric for ConstCounterOf {
    const TYPE: prometheus_client::metrics::MetricType = prometheus_client::metrics::MetricType::Counter;
}
