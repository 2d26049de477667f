//! Meters of the engine: committed batches, turns, commits and calls of adapters.

use super::table::meters;
use super::{Labels, long, short};
use crate::auth::Verb;
use crate::clock::wall;
use crate::engine::{CallReport, CommitResult, Observer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};
use wharfinger_core::{
    Batch, Ended, Event, EventKind, Lease, LeaseId, LeaseState, Millis, Program, Provenance, Reason, Resource,
    ResourceId, ResourceState, Timestamp,
};

/// The pool of a request that goes by labels alone.
const ANY: &str = "any";

/// Buckets of the time from evidence to the watches of holders.
fn told_seconds() -> Histogram {
    Histogram::new([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0])
}

/// Buckets of the time in the queue.
fn wait_seconds() -> Histogram {
    Histogram::new([0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0])
}

/// Buckets of the time from evidence to a decision.
fn detection_seconds() -> Histogram {
    Histogram::new([0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0])
}

/// Buckets of the time that an announced end leaves.
fn warning_seconds() -> Histogram {
    Histogram::new([1.0, 5.0, 15.0, 30.0, 60.0, 90.0, 120.0, 300.0, 3600.0])
}

meters! {
    by add;
    /// All counters and histograms of the engine.
    pub(super) struct Counted {
        events: Family<Labels<2>, Counter> = Family::default(), "events", "Entries of the audit trail, by kind";
        asked: Family<Labels<1>, Counter> = Family::default(), "leases_asked", "Leases that were asked for; pool \"any\": by labels alone";
        granted: Family<Labels<1>, Counter> = Family::default(), "leases_granted", "Leases that became active";
        ended: Family<Labels<3>, Counter> = Family::default(), "leases_ended", "Leases that ended, by how, and by the outcome of those that were released";
        broken: Family<Labels<2>, Counter> = Family::default(), "leases_broken", "Leases that ended against the will of their holder, by the root of the causes";
        requeued: Family<Labels<1>, Counter> = Family::default(), "leases_requeued", "Leases that went back to the queue: their resource could not serve them";
        doubts: Family<Labels<2>, Counter> = Family::default(), "doubts", "Times that a resource fell into doubt, by the root of the causes";
        cleared: Family<Labels<1>, Counter> = Family::default(), "doubts_cleared", "Doubts that a check cleared";
        lost: Family<Labels<2>, Counter> = Family::default(), "resources_lost", "Resources that ended by themselves, by the kind of evidence";
        findings: Family<Labels<2>, Counter> = Family::default(), "findings", "Findings after a failure of work, by fault";
        actions: Family<Labels<2>, Counter> = Family::default(), "operator_actions", "Commands of operators that left an entry in the audit trail, by verb, and by the program of the operator";
        wait: Family<Labels<2>, Histogram> = Family::new_with_constructor(wait_seconds), "lease_wait_seconds", "From the request to its lease being active, or to its end while it waited";
        detection: Family<Labels<2>, Histogram> = Family::new_with_constructor(detection_seconds), "detection_seconds", "From the first evidence against a resource that is lost to the decision";
        told: Family<Labels<1>, Histogram> = Family::new_with_constructor(told_seconds), "told_seconds", "From the arrival of evidence to its publication to the watches of holders, by what they hear; an upper bound";
        warning: Family<Labels<1>, Histogram> = Family::new_with_constructor(warning_seconds), "warning_seconds", "Time that an announced end leaves to the holder of a lease when it hears of it";
        turn: Histogram = short(), "turn_seconds", "Turns of the engine, with their commits";
        turn_inputs: Histogram = Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]), "turn_inputs", "Inputs of one turn";
        commit: Histogram = short(), "commit_seconds", "Commits to the store";
        commits: Family<Labels<1>, Counter> = Family::default(), "commits", "Commits to the store, by result";
        recoveries: Counter = Counter::default(), "recoveries", "Times that the engine threw its memory away and recovered from its store";
        lines_dropped: Counter = Counter::default(), "log_lines_dropped", "Lines of the audit trail that are not in the log, since it was read too slowly";
        calls: Family<Labels<3>, Counter> = Family::default(), "adapter_calls", "Calls of adapters that ended, by result";
        call_seconds: Family<Labels<2>, Histogram> = Family::new_with_constructor(long), "adapter_call_seconds", "Calls of adapters, from their begin to their end";
        calls_running: Family<Labels<1>, Gauge> = Family::default(), "adapter_calls_running", "Calls of adapters under way";
        calls_waiting: Family<Labels<1>, Gauge> = Family::default(), "adapter_calls_waiting", "Calls of adapters that wait for a permit of their pool";
        reload_successful: Gauge = Gauge::default(), "config_last_reload_successful", "1 if the last reading of the configuration was taken over";
        reload_time: Gauge<f64, AtomicU64> = Gauge::default(), "config_last_reload_success_timestamp_seconds", "When a configuration was last taken over, in seconds since 1970";
    }
}

/// The rows of a batch by their ids. An index, because a batch may have thousands of events.
struct Rows<'a> {
    leases: HashMap<LeaseId, &'a Lease>,
    resources: HashMap<ResourceId, &'a Resource>,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a Batch) -> Self {
        Self {
            leases: batch.leases.iter().map(|lease| (lease.id, &**lease)).collect(),
            resources: batch.resources.iter().map(|row| (row.id, &**row)).collect(),
        }
    }
}

impl Counted {
    pub(super) fn reloaded(&self, taken: bool) {
        self.reload_successful.set(i64::from(taken));
        if taken {
            let now = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.reload_time.set(now.as_secs_f64());
        }
    }

    /// Counts what an entry of the trail says, with the row that it is about.
    fn event(&self, rows: &Rows<'_>, event: &Event) {
        let pool = || event.pool.as_deref().unwrap_or("").to_string();
        self.events.get_or_create_owned(&[("kind", event.kind.as_str().to_string()), ("pool", pool())]).inc();
        let lease = || event.lease.and_then(|id| rows.leases.get(&id).copied());
        let resource = || event.resource.and_then(|id| rows.resources.get(&id).copied());
        match event.kind {
            EventKind::LeaseActive => {
                self.granted.get_or_create_owned(&[("pool", pool())]).inc();
                if let Some(lease) = lease()
                    && let LeaseState::Active { since, .. } = lease.state
                {
                    self.waited(&pool(), "active", since.since(lease.created_at));
                }
            }
            EventKind::LeaseRequeued => {
                self.requeued.get_or_create_owned(&[("pool", pool())]).inc();
            }
            EventKind::LeaseReleased
            | EventKind::LeaseExpired
            | EventKind::LeaseBroken
            | EventKind::LeaseCancelled
            | EventKind::LeaseFailed => {
                if let Some(lease) = lease() {
                    self.lease_ended(lease);
                }
            }
            EventKind::LeaseFinding => {
                if let Some(fault) = lease().and_then(fault_of) {
                    self.findings.get_or_create_owned(&[("pool", pool()), ("fault", fault.to_string())]).inc();
                }
            }
            EventKind::ResourceSuspect => {
                let root = resource().and_then(root_of).map_or("unknown", |(reason, _)| reason.as_str());
                self.doubts.get_or_create_owned(&[("pool", pool()), ("reason", root.to_string())]).inc();
            }
            EventKind::ResourceCleared => {
                self.cleared.get_or_create_owned(&[("pool", pool())]).inc();
            }
            EventKind::ResourceDestroying => {
                if let Some(row) = resource()
                    && let Some((evidence, first)) = lost(row)
                {
                    let labels = || [("pool", pool()), ("evidence", evidence.to_string())];
                    self.lost.get_or_create_owned(&labels()).inc();
                    self.detection.get_or_create_owned(&labels()).observe(seconds(event.at.since(first)));
                }
            }
            // Counted by kind alone.
            _ => {}
        }
    }

    fn waited(&self, pool: &str, result: &str, time: Millis) {
        let labels = [("pool", pool.to_string()), ("result", result.to_string())];
        self.wait.get_or_create_owned(&labels).observe(seconds(time));
    }

    fn lease_ended(&self, lease: &Lease) {
        let LeaseState::Ended { how, at, .. } = &lease.state else { return };
        let pool = lease.pool.as_deref().or(lease.spec.selector.pool.as_deref()).unwrap_or(ANY).to_string();
        let outcome = match how {
            Ended::Released { outcome, .. } => outcome.as_str().to_lowercase(),
            Ended::Expired | Ended::Broken { .. } | Ended::Cancelled | Ended::Failed { .. } => String::new(),
        };
        let labels = [("pool", pool.clone()), ("how", how.as_str().to_lowercase()), ("outcome", outcome)];
        self.ended.get_or_create_owned(&labels).inc();
        match how {
            Ended::Broken { cause, .. } => {
                let root = cause.last().map_or("unknown", |link| link.reason.as_str());
                self.broken.get_or_create_owned(&[("pool", pool), ("root", root.to_string())]).inc();
            }
            Ended::Cancelled | Ended::Failed { .. } => {
                self.waited(&pool, &how.as_str().to_lowercase(), at.since(lease.created_at));
            }
            Ended::Released { .. } | Ended::Expired => {}
        }
    }

    /// Counts the commands of operators, once for each: all entries of a command have one caller.
    fn acted(&self, events: &[Event]) {
        let callers = events.iter().filter_map(|event| event.caller.as_ref());
        let mut latest: Option<&Arc<Provenance>> = None;
        for caller in callers {
            if latest.is_some_and(|known| Arc::ptr_eq(known, caller)) {
                continue;
            }
            latest = Some(caller);
            let Some(verb) = Verb::command(&caller.method) else { continue };
            let via = caller.program.unwrap_or(Program::Api).to_string();
            self.actions.get_or_create_owned(&[("verb", verb.to_string()), ("via", via)]).inc();
        }
    }

    /// Counts the notifications of holders by this batch, once for each lease.
    fn holders_hear(&self, batch: &Batch, heard: Duration) {
        for lease in &batch.leases {
            let what = match &lease.state {
                LeaseState::Ended { how: Ended::Broken { .. }, at, .. } if *at == batch.now => "broken",
                LeaseState::Active { .. } if lease.doubt.is_some() => "doubt",
                LeaseState::Active { .. } if lease.ends_at.is_some() => "end announced",
                LeaseState::Queued
                | LeaseState::Preparing { .. }
                | LeaseState::Active { .. }
                | LeaseState::Ended { .. } => continue,
            };
            self.told.get_or_create_owned(&[("what", what.replace(' ', "_"))]).observe(heard.as_secs_f64());
            if what == "end announced"
                && let Some(ends) = lease.ends_at
            {
                let pool = lease.pool.as_deref().unwrap_or_default().to_string();
                self.warning.get_or_create_owned(&[("pool", pool)]).observe(seconds(ends.since(batch.now)));
            }
        }
    }
}

impl Observer for Counted {
    fn committed(&self, batch: &Batch, heard: Option<Duration>) {
        // A row that is new in this batch has the revision of its request after the batch's base.
        let new = batch.leases.iter().filter(|lease| lease.seq > batch.base.0 && lease.spec.child.is_none());
        for lease in new {
            let wanted = lease.spec.selector.pool.as_deref().unwrap_or(ANY);
            self.asked.get_or_create_owned(&[("pool", wanted.to_string())]).inc();
        }
        let rows = Rows::of(batch);
        for event in &batch.events {
            self.event(&rows, event);
        }
        self.acted(&batch.events);
        if let Some(heard) = heard {
            self.holders_hear(batch, heard);
        }
    }

    fn turn(&self, inputs: usize, took: Duration) {
        self.turn.observe(took.as_secs_f64());
        self.turn_inputs.observe(inputs as f64);
    }

    fn commit(&self, result: CommitResult, took: Duration) {
        let word = match result {
            CommitResult::Ok => "ok",
            CommitResult::NotCommitted => "not_committed",
            CommitResult::InDoubt => "in_doubt",
            CommitResult::Deposed => "deposed",
        };
        self.commits.get_or_create_owned(&[("result", word.to_string())]).inc();
        self.commit.observe(took.as_secs_f64());
    }

    fn recovered(&self) {
        self.recoveries.inc();
    }

    fn call_waits(&self, permit: &'static str, waits: bool) {
        let count = self.calls_waiting.get_or_create_owned(&[("permit", permit.to_string())]);
        let _ = if waits { count.inc() } else { count.dec() };
    }

    fn call_begins(&self, permit: &'static str) {
        self.calls_running.get_or_create_owned(&[("permit", permit.to_string())]).inc();
    }

    fn call_ends(&self, call: &CallReport<'_>) {
        self.calls_running.get_or_create_owned(&[("permit", call.permit.to_string())]).dec();
        let (pool, work, result) = (call.pool.to_string(), call.work.to_string(), call.result.to_string());
        self.call_seconds
            .get_or_create_owned(&[("work", work.clone()), ("result", result.clone())])
            .observe(call.took.as_secs_f64());
        self.calls.get_or_create_owned(&[("pool", pool), ("work", work), ("result", result)]).inc();
    }

    fn lines_dropped(&self, count: usize) {
        self.lines_dropped.inc_by(count as u64);
    }
}

/// Milliseconds in seconds; a time before its begin counts as zero.
pub(super) fn seconds(time: Millis) -> f64 {
    Duration::from_millis(u64::try_from(time.0).unwrap_or(0)).as_secs_f64()
}

fn fault_of(lease: &Lease) -> Option<&'static str> {
    match &lease.state {
        LeaseState::Ended { how: Ended::Released { finding, .. }, .. } => {
            finding.as_ref().map(|finding| finding.fault.as_str())
        }
        LeaseState::Ended { .. } | LeaseState::Queued | LeaseState::Preparing { .. } | LeaseState::Active { .. } => {
            None
        }
    }
}

/// The root of the causes of a resource's state, and when it was known.
fn root_of(row: &Resource) -> Option<(Reason, Timestamp)> {
    let cause = match &row.state {
        ResourceState::Suspect { cause, .. }
        | ResourceState::Repairing { cause, .. }
        | ResourceState::Draining { cause, .. }
        | ResourceState::Destroying { cause, .. }
        | ResourceState::Orphaned { cause, .. }
        | ResourceState::Gone { cause, .. } => cause,
        ResourceState::Provisioning { .. } | ResourceState::Ready | ResourceState::Quarantined { .. } => return None,
    };
    cause.last().map(|link| (link.reason, link.at))
}

/// The kind of evidence by which a resource is lost, and when the first of it was known. `None`: the broker or an operator
/// ended it. At the end of its batch a resource that has nothing to remove is gone already.
fn lost(row: &Resource) -> Option<(&'static str, Timestamp)> {
    let (ResourceState::Destroying { dead: true, cause, .. } | ResourceState::Gone { cause, .. }) = &row.state else {
        return None;
    };
    let evidence = match cause.first()?.reason {
        Reason::ResourceUnreachable => "silence",
        Reason::ResourceGone => "proved",
        Reason::ParentGone => "host",
        Reason::ResourceMangled => "check",
        _ => return None,
    };
    cause.last().map(|link| (evidence, link.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::book::Book;
    use rustix::time::{ClockId, clock_gettime};
    use wharfinger_core::{Caller, LeaseSpec, Revision, Subject};

    /// A batch in which each lease of a farm expires.
    fn expired(count: u64) -> Batch {
        let at = Timestamp(1);
        let spec = LeaseSpec::new("", Arc::from(Caller::DEFAULT_TENANT), Arc::default(), Millis::secs(1));
        let mut batch = Batch::default();
        for number in 1..=count {
            let mut lease = Lease::queued(LeaseId::new(u128::from(number)), spec.clone(), at, 0);
            lease.state = LeaseState::Ended { how: Ended::Expired, at, cleanup: None };
            batch.events.push(Event {
                revision: Revision(number),
                at,
                kind: EventKind::LeaseExpired,
                actor: Arc::from("wharfinger"),
                subject: Subject::Lease(lease.id),
                pool: None,
                resource: None,
                lease: Some(lease.id),
                detail: Arc::from(""),
                caller: None,
            });
            batch.leases.push(Arc::new(lease));
        }
        batch
    }

    /// The shortest of some runs, in the processor's time of this thread, so that a busy machine does not count.
    #[expect(clippy::disallowed_methods, reason = "the processor's time of a thread is no time of day")]
    fn time_of(batch: &Batch) -> Duration {
        let counted = Counted::registered(&mut Book::default());
        let spent = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
        let once = || {
            let start = spent();
            counted.committed(batch, None);
            spent() - start
        };
        (0..5).map(|_| once()).min().unwrap_or_default()
    }

    #[test]
    fn a_command_of_an_operator_counts_once_by_its_program_and_no_other_call_does() {
        let counted = Counted::registered(&mut Book::default());
        let by = |method: &str, program| {
            let caller = Provenance {
                tenant: Arc::from("ops"),
                proof: Arc::from("token:ann"),
                peer: None,
                via: None,
                program,
                roles: Arc::from("admin"),
                method: Arc::from(method),
                trace: None,
            };
            Some(Arc::new(caller))
        };
        let page = by("Drain", Some(Program::Page));
        let callers = [
            by("Lease", Some(Program::Cli)),
            page.clone(),
            None,
            page,
            by("Drain", Some(Program::Page)),
            by("ForceDestroy", Some(Program::Cli)),
            by("ForceDestroy", None),
        ];
        let mut batch = expired(callers.len() as u64);
        for (event, caller) in batch.events.iter_mut().zip(callers) {
            event.caller = caller;
        }
        counted.committed(&batch, None);
        let count = |verb: &str, via: &str| {
            counted.actions.get_or_create_owned(&[("verb", verb.to_owned()), ("via", via.to_owned())]).get()
        };
        assert_eq!((count("resource.drain", "page"), count("resource.drain", "api")), (2, 0));
        assert_eq!((count("resource.force-destroy", "cli"), count("resource.force-destroy", "api")), (1, 1));
        assert_eq!(count("lease", "cli"), 0);
    }

    #[test]
    fn the_time_of_a_batch_grows_with_its_events_and_not_with_their_square() {
        let (small, large) = (expired(500), expired(20_000));
        let (small, large) = (time_of(&small), time_of(&large));
        // Forty times the events: a search of the rows for each takes 1,600 times as long.
        assert!(large < small * 200, "500 events took {small:?}, 20,000 took {large:?}");
    }
}
