//! Meters of deliveries of hooks, and of spans.

use super::Labels;
use super::table::meters;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::atomic::AtomicU64;

meters! {
    by add;
    /// Meters of hooks and traces. Cheap to clone.
    #[derive(Clone)]
    pub struct Told {
        deliveries: Family<Labels<2>, Counter> = Family::default(), "hook_deliveries", "Attempts of hooks to deliver a message, by result; \"skipped\": the message was given up";
        failing: Family<Labels<1>, Gauge> = Family::default(), "hook_failing", "1 if the latest attempt of the hook failed";
        pending_since: Family<Labels<1>, Gauge<f64, AtomicU64>> = Family::default(), "hook_pending_since_timestamp_seconds", "Time of the oldest entry that the hook has still to deliver, in seconds since 1970; 0: there is none";
        spans: Family<Labels<1>, Counter> = Family::default(), "trace_spans", "Spans of leases, by result; \"skipped\": the collector was away for too long, or there were too many";
        traces_failing: Gauge = Gauge::default(), "traces_failing", "1 if the latest export of spans failed";
    }
}

const RESULTS: [&str; 3] = ["ok", "failed", "skipped"];

impl Told {
    /// A hook is there, so that its series are, too.
    pub fn known(&self, hook: &str) {
        for result in RESULTS {
            let _ = self.deliveries.get_or_create_owned(&[("hook", hook.to_owned()), ("result", result.to_owned())]);
        }
        self.failing.get_or_create_owned(&[("hook", hook.to_owned())]).set(0);
        self.oldest(hook, None);
    }

    /// A hook left the configuration.
    pub fn forget(&self, hook: &str) {
        for result in RESULTS {
            self.deliveries.remove(&[("hook", hook.to_owned()), ("result", result.to_owned())]);
        }
        self.failing.remove(&[("hook", hook.to_owned())]);
        self.pending_since.remove(&[("hook", hook.to_owned())]);
    }

    /// A message was delivered.
    pub fn delivered(&self, hook: &str) {
        self.attempt(hook, "ok", false);
    }

    /// An attempt failed.
    pub fn failed(&self, hook: &str) {
        self.attempt(hook, "failed", true);
    }

    /// A message was given up.
    pub fn skipped(&self, hook: &str) {
        self.attempt(hook, "skipped", true);
    }

    fn attempt(&self, hook: &str, result: &str, failing: bool) {
        self.deliveries.get_or_create_owned(&[("hook", hook.to_owned()), ("result", result.to_owned())]).inc();
        self.failing.get_or_create_owned(&[("hook", hook.to_owned())]).set(i64::from(failing));
    }

    /// The time of the oldest entry that is to be delivered, in milliseconds since 1970.
    pub fn oldest(&self, hook: &str, at_unix_ms: Option<i64>) {
        let seconds = at_unix_ms.map_or(0.0, |at| at as f64 / 1000.0);
        self.pending_since.get_or_create_owned(&[("hook", hook.to_owned())]).set(seconds);
    }

    /// Spans were exported.
    pub fn exported(&self, spans: usize) {
        self.spans.get_or_create_owned(&[("result", "ok".to_owned())]).inc_by(spans as u64);
        self.traces_failing.set(0);
    }

    /// Spans were given up.
    pub fn spans_skipped(&self, spans: usize) {
        self.spans.get_or_create_owned(&[("result", "skipped".to_owned())]).inc_by(spans as u64);
    }

    /// An export failed.
    pub fn export_failed(&self) {
        self.traces_failing.set(1);
    }
}
