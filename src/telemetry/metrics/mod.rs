//! Metrics for Prometheus: what was committed, how long things took, and what there is now.
//!
//! Counters grow by committed batches, so that they agree with the audit trail and nothing is counted twice after a recovery.
//! Gauges are made for each scrape, from one read of the core. No label has the name or id of a lease, resource, holder, work or
//! address: each pool and each kind has one series, however many there are of each.

mod book;
mod calls;
mod counted;
mod gauges;
mod process;
mod table;
mod told;

pub use book::Entry;
pub use calls::Calls;
pub use gauges::ServerFacts;
pub use told::Told;

use book::Book;
use counted::Counted;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use wharfinger_core::Census;

/// The text formats of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// The format that an HTTP client asks for by `Accept`. The default is [`Exposition::Text`].
    pub fn of_accept(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The metrics of a process. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Metrics(Arc<Parts>);

struct Parts {
    registry: Registry,
    entries: Vec<Entry>,
    counted: Arc<Counted>,
    calls: Calls,
    told: Told,
}

impl Metrics {
    /// Metrics that have counted nothing.
    pub fn new() -> Self {
        let mut book = Book::default();
        let counted = Arc::new(Counted::registered(&mut book));
        counted.reloaded(true);
        let calls = Calls::registered(&mut book);
        let told = Told::registered(&mut book);
        let Book { registry, entries } = book;
        Self(Arc::new(Parts { registry, entries, counted, calls, told }))
    }

    /// All metrics that a server exposes, by name.
    pub fn catalogue(&self) -> Vec<Entry> {
        let mut now = Book::default();
        let server = ServerFacts { leads: true, revision: 0, age: None, watches: 0, backlog: 0, partial: false };
        gauges::register(
            &mut now,
            &ServerFacts { age: Some(std::time::Duration::ZERO), ..server },
            Some(&Census::default()),
        );
        process::register(&mut now);
        let mut all = [self.0.entries.clone(), now.entries].concat();
        all.sort();
        all
    }

    /// Counts what the engine reports.
    pub fn observer(&self) -> Arc<dyn crate::engine::Observer> {
        self.0.counted.clone()
    }

    /// Counts calls of the gRPC port.
    pub fn calls(&self) -> Calls {
        self.0.calls.clone()
    }

    /// Counts deliveries of hooks, and spans.
    pub fn told(&self) -> Told {
        self.0.told.clone()
    }

    /// A configuration was read again, or refused.
    pub fn reloaded(&self, taken: bool) {
        self.0.counted.reloaded(taken);
    }

    /// The exposition. `census`: `None` if this server follows, or if its engine does not answer.
    pub fn expose(&self, format: Exposition, server: &ServerFacts, census: Option<&Census>) -> String {
        let mut now = Book::default();
        gauges::register(&mut now, server, census);
        process::register(&mut now);
        let now = now.registry;
        let mut text = String::new();
        // Writing into a text does not fail.
        let _ = match format {
            Exposition::Text => prometheus_text::encode(&mut text, &self.0.registry)
                .and_then(|()| prometheus_text::encode(&mut text, &now)),
            Exposition::OpenMetrics => text::encode_registry(&mut text, &self.0.registry)
                .and_then(|()| text::encode_registry(&mut text, &now))
                .and_then(|()| text::encode_eof(&mut text)),
        };
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Labels by name.
type Labels<const N: usize> = [(&'static str, String); N];

/// A histogram in seconds, of times of about the length of a commit.
fn short() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0])
}

/// A histogram in seconds, of calls to hosts and providers.
fn long() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0])
}

#[cfg(test)]
mod tests;
