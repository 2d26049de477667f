//! The spans of one lease, made from its entries in the audit trail after its end.

use super::ids::{HOLD, LEASE, TraceParent, span_of, trace_of};
use crate::store::StoredEvent;
use wharfinger_core::EventKind;

/// The names of spans beside [`LEASE`] and [`HOLD`].
const WAIT: &str = "lease.wait";
const PREPARE: &str = "lease.prepare";
const CLEAN: &str = "lease.clean";
const CHECK: &str = "resource.check";
const BREAK: &str = "lease.break";

/// Facts that the entries of a lease lack.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The entry of the inventory.
    pub(super) machine: Option<String>,
    /// The free text of the holder.
    pub(super) holder: Option<String>,
    /// The broken lease in whose stead this one was queued.
    pub(super) replaces: Option<String>,
    /// When the slot was clean, in milliseconds since 1970.
    pub(super) clean_at: Option<i64>,
}

/// A span that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) trace: [u8; 16],
    pub(super) id: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
    pub(super) name: &'static str,
    /// In milliseconds since 1970.
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) attributes: Vec<(&'static str, String)>,
    pub(super) events: Vec<Moment>,
    /// The reason why it failed.
    pub(super) error: Option<String>,
    /// Spans to which it is linked.
    pub(super) links: Vec<([u8; 16], [u8; 8])>,
}

/// An event of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) at: i64,
    pub(super) name: String,
    pub(super) attributes: Vec<(&'static str, String)>,
}

impl Moment {
    fn of(event: &StoredEvent) -> Self {
        let mut attributes = vec![("wharfinger.actor", event.actor.clone())];
        if !event.detail.is_empty() {
            attributes.push(("wharfinger.detail", event.detail.clone()));
        }
        Self { at: event.at_unix_ms, name: event.kind.clone(), attributes }
    }
}

/// Whether an entry ends its lease.
pub(super) fn ends(event: &StoredEvent) -> bool {
    event.lease.is_some()
        && matches!(
            EventKind::parse(&event.kind),
            Some(
                EventKind::LeaseReleased
                    | EventKind::LeaseExpired
                    | EventKind::LeaseBroken
                    | EventKind::LeaseCancelled
                    | EventKind::LeaseFailed
            )
        )
}

/// Whether an entry ends its lease against the will of its holder.
pub(super) fn fails(event: &StoredEvent) -> bool {
    matches!(
        EventKind::parse(&event.kind),
        Some(EventKind::LeaseExpired | EventKind::LeaseBroken | EventKind::LeaseFailed)
    )
}

/// The entry of a request, with its caller: the first one of a lease that was not queued by the broker itself.
pub(super) fn begins(event: &StoredEvent) -> bool {
    event.caller.is_some()
        && matches!(
            EventKind::parse(&event.kind),
            Some(EventKind::LeaseQueued | EventKind::LeasePreparing | EventKind::LeaseActive | EventKind::LeaseFailed)
        )
}

/// Makes the spans. `entries`: those of the lease, oldest first. `of_resource`: those of its resource itself. Empty: the lease has not ended.
pub(super) fn spans(
    lease: &str,
    entries: &[StoredEvent],
    of_resource: &[StoredEvent],
    facts: &Facts,
    parent: Option<TraceParent>,
) -> Vec<Span> {
    let (Some(first), Some(end)) = (entries.first(), entries.iter().find(|event| ends(event))) else {
        return Vec::new();
    };
    let mut story = Story {
        lease,
        trace: parent.map_or_else(|| trace_of(lease), |parent| parent.trace),
        done: Vec::new(),
        open: None,
        root: span_of(lease, LEASE),
        late: Vec::new(),
    };
    for event in entries {
        story.take(event);
    }
    let hold = story.done.iter().rev().find(|span| span.name == HOLD).map(|span| (span.id, span.start, span.end));
    if let Some((id, start, until)) = hold {
        story.checks(of_resource, id, start, until);
    }
    if end.kind == EventKind::LeaseBroken.as_str() {
        let begun = story.done.iter().rev().find(|span| span.name == CHECK && span.end == end.at_unix_ms);
        let begun = begun.map_or(end.at_unix_ms, |check| check.start);
        let mut span = story.span(BREAK, hold.map_or(story.root, |(id, ..)| id), begun, end.at_unix_ms);
        span.error = Some(end.detail.clone());
        span.events.push(Moment::of(end));
        story.done.push(span);
    }
    if let Some(clean_at) = facts.clean_at.filter(|at| *at >= end.at_unix_ms) {
        let span = story.span(CLEAN, story.root, end.at_unix_ms, clean_at);
        story.done.push(span);
    }
    let root = story.root(first, end, entries, facts, parent);
    let mut all = vec![root];
    all.append(&mut story.done);
    all
}

struct Story<'l> {
    lease: &'l str,
    trace: [u8; 16],
    root: [u8; 8],
    done: Vec<Span>,
    open: Option<Span>,
    /// Entries behind the end.
    late: Vec<Moment>,
}

impl Story<'_> {
    /// A span with an id of its own.
    fn span(&self, name: &'static str, parent: [u8; 8], start: i64, end: i64) -> Span {
        let before = self.done.iter().filter(|span| span.name == name).count();
        let id = match before {
            0 => span_of(self.lease, name),
            more => span_of(self.lease, &format!("{name}#{more}")),
        };
        Span {
            trace: self.trace,
            id,
            parent: Some(parent),
            name,
            start,
            end: end.max(start),
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
            links: Vec::new(),
        }
    }

    fn close(&mut self, at: i64, error: Option<&StoredEvent>) {
        if let Some(mut span) = self.open.take() {
            span.end = at.max(span.start);
            if let Some(event) = error {
                span.error = Some(event.detail.clone());
                span.events.push(Moment::of(event));
            }
            self.done.push(span);
        }
    }

    fn take(&mut self, event: &StoredEvent) {
        let (kind, at) = (EventKind::parse(&event.kind), event.at_unix_ms);
        let next = match kind {
            Some(EventKind::LeaseQueued | EventKind::LeaseRequeued | EventKind::LeaseDelayed) => Some(WAIT),
            Some(EventKind::LeasePreparing) => Some(PREPARE),
            Some(EventKind::LeaseActive) => Some(HOLD),
            _ => None,
        };
        if let Some(name) = next {
            let failed = matches!(kind, Some(EventKind::LeaseRequeued | EventKind::LeaseDelayed));
            self.close(at, failed.then_some(event));
            let mut span = self.span(name, self.root, at, at);
            if let Some(resource) = event.resource {
                span.attributes.push(("wharfinger.resource.id", resource.to_string()));
            }
            self.open = Some(span);
        } else if ends(event) {
            self.close(at, fails(event).then_some(event));
        } else {
            match &mut self.open {
                Some(span) => span.events.push(Moment::of(event)),
                None => self.late.push(Moment::of(event)),
            }
        }
    }

    /// The checks of the resource while the holder worked on it.
    fn checks(&mut self, of_resource: &[StoredEvent], hold: [u8; 8], start: i64, end: i64) {
        let mut open: Option<Span> = None;
        for event in of_resource.iter().filter(|event| (start..=end).contains(&event.at_unix_ms)) {
            let cleared = match EventKind::parse(&event.kind) {
                Some(EventKind::ResourceSuspect) => {
                    if open.is_none() {
                        open = Some(self.span(CHECK, hold, event.at_unix_ms, event.at_unix_ms));
                    }
                    None
                }
                Some(EventKind::ResourceCleared) => Some(true),
                Some(EventKind::ResourceDestroying | EventKind::ResourceGone | EventKind::ResourceQuarantined) => {
                    Some(false)
                }
                _ => None,
            };
            let Some(span) = &mut open else { continue };
            span.events.push(Moment::of(event));
            if let Some(cleared) = cleared {
                span.end = event.at_unix_ms;
                span.error = (!cleared).then(|| event.detail.clone());
                self.done.extend(open.take());
            }
        }
        if let Some(mut span) = open {
            span.end = end;
            self.done.push(span);
        }
    }

    fn root(
        &mut self,
        first: &StoredEvent,
        end: &StoredEvent,
        entries: &[StoredEvent],
        facts: &Facts,
        parent: Option<TraceParent>,
    ) -> Span {
        let last = facts.clean_at.unwrap_or(end.at_unix_ms);
        let mut root = self.span(LEASE, [0; 8], first.at_unix_ms, last.max(end.at_unix_ms));
        root.parent = parent.map(|parent| parent.span);
        let newest = |of: fn(&StoredEvent) -> Option<String>| entries.iter().rev().find_map(of);
        let outcome = end.kind.strip_prefix("lease.").unwrap_or(&end.kind).to_uppercase();
        for (name, value) in [
            ("wharfinger.lease.id", Some(self.lease.to_owned())),
            ("wharfinger.lease.end", Some(outcome)),
            ("wharfinger.pool", newest(|event| event.pool.clone())),
            ("wharfinger.resource.id", newest(|event| event.resource.map(|id| id.to_string()))),
            ("wharfinger.machine", facts.machine.clone()),
            ("wharfinger.tenant", first.caller.as_ref().map(|caller| caller.tenant.to_string())),
            ("wharfinger.principal", Some(first.actor.clone())),
            ("wharfinger.holder", facts.holder.clone()),
            ("wharfinger.replaces", facts.replaces.clone()),
        ] {
            root.attributes.extend(value.map(|value| (name, value)));
        }
        if fails(end) {
            root.error = Some(end.detail.clone());
        }
        root.events = std::mem::take(&mut self.late);
        if let Some(replaced) = &facts.replaces {
            root.links.push((self.trace, span_of(replaced, LEASE)));
        }
        root
    }
}
