//! The registry of metrics, with a list of what is in it.

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Metric, Registry};

/// A metric that a server exposes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name, as rules and boards write it: with `_total`, without `_bucket`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its meaning, in a sentence.
    pub help: &'static str,
}

/// A registry that notes what is registered.
#[derive(Default)]
pub(super) struct Book {
    pub(super) registry: Registry,
    pub(super) entries: Vec<Entry>,
}

impl Book {
    /// Registers a metric of the broker: its name gets the prefix `wharfinger_`.
    pub(super) fn add(&mut self, name: &str, help: &'static str, metric: impl Metric) {
        self.add_plain(&format!("wharfinger_{name}"), help, metric);
    }

    /// Registers a metric by its full name, without the suffix of its kind.
    pub(super) fn add_plain(&mut self, name: &str, help: &'static str, metric: impl Metric) {
        let (kind, suffix) = match EncodeMetric::metric_type(&metric) {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Histogram => ("histogram", ""),
            MetricType::Info => ("gauge", "_info"),
            MetricType::Gauge | MetricType::Unknown => ("gauge", ""),
        };
        self.entries.push(Entry { name: format!("{name}{suffix}"), kind, help });
        self.registry.register(name, help, metric);
    }
}
