//! The life of one resource as lanes of time: its state, what people said, and its leases.

use super::foreign::{clipped, visible};
use super::instant;
use crate::pb;
use std::collections::BTreeMap;

/// Maximum number of lanes of leases.
const LEASE_LANES: usize = 12;

/// The meaning of a mark's colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Busy,
    Bad,
    Kept,
    None,
    Said,
}

/// A bar or a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Milliseconds of the Unix epoch.
    pub(crate) from: i64,
    /// The end. `None`: it is a moment.
    pub(crate) to: Option<i64>,
    pub(crate) tone: Tone,
    /// The text for people, with every character visible.
    pub(crate) title: String,
    /// The lease that it is of; empty if of none.
    pub(crate) lease: String,
}

/// A lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    pub(crate) marks: Vec<Mark>,
}

/// The moment of an entry, in milliseconds of the Unix epoch.
fn at_ms(event: &pb::Event) -> Option<i64> {
    instant(event.at.as_ref()).map(jiff::Timestamp::as_millisecond)
}

/// The tone and the word of the state that a kind of entries begins. `None`: it begins none.
fn begins(kind: &str) -> Option<(Tone, &'static str)> {
    Some(match kind {
        "resource.provisioning" => (Tone::Busy, "being made"),
        "resource.ready" | "resource.cleared" => (Tone::Good, "ready"),
        "resource.suspect" => (Tone::Bad, "in doubt"),
        "resource.repairing" => (Tone::Busy, "being repaired"),
        "resource.quarantined" => (Tone::Kept, "kept"),
        "resource.draining" => (Tone::Kept, "draining"),
        "resource.destroying" => (Tone::Busy, "being destroyed"),
        "resource.orphaned" => (Tone::Bad, "orphaned"),
        "resource.gone" => (Tone::None, "gone"),
        _ => return None,
    })
}

fn ends_lease(kind: &str) -> bool {
    matches!(
        kind,
        "lease.released" | "lease.expired" | "lease.broken" | "lease.cancelled" | "lease.failed" | "lease.requeued"
    )
}

/// The lanes of a story, and the moment of its first entry. `now`: milliseconds of the Unix epoch.
pub(crate) fn lanes_of(id: &str, story: &pb::TimelineResponse, now: i64) -> (Vec<Lane>, i64) {
    let mut state: Vec<Mark> = Vec::new();
    let mut said: Vec<Mark> = Vec::new();
    let mut leases: BTreeMap<&str, Mark> = BTreeMap::new();
    let first = story.entries.first().and_then(|entry| entry.event.as_ref()).and_then(at_ms).unwrap_or(now);
    for event in story.entries.iter().filter_map(|entry| entry.event.as_ref()) {
        let Some(at) = at_ms(event) else { continue };
        if event.subject == id
            && let Some((tone, word)) = begins(&event.kind)
        {
            if let Some(last) = state.last_mut() {
                last.to = Some(at);
            }
            let title = format!("{word}: {}", clipped(&event.detail));
            state.push(Mark { from: at, to: Some(now), tone, title, lease: String::new() });
        }
        if event.caller.is_some() || !matches!(&*event.actor, "" | "wharfinger") {
            let title = format!("{} by {}: {}", visible(&event.kind), clipped(&event.actor), clipped(&event.detail));
            said.push(Mark { from: at, to: None, tone: Tone::Said, title, lease: String::new() });
        }
        if event.lease_id.is_empty() || event.resource_id != id {
            continue;
        }
        let known = leases.contains_key(&*event.lease_id);
        match (&*event.kind, known) {
            ("lease.preparing" | "lease.active", false) => {
                let title = format!("{} {}", visible(&event.lease_id), clipped(&event.detail));
                let lease = event.lease_id.clone();
                leases.insert(&event.lease_id, Mark { from: at, to: Some(now), tone: Tone::Busy, title, lease });
            }
            (kind, true) if ends_lease(kind) => {
                if let Some(mark) = leases.get_mut(&*event.lease_id) {
                    mark.to = Some(at);
                    mark.tone = if matches!(kind, "lease.broken" | "lease.expired") { Tone::Bad } else { Tone::Busy };
                    mark.title.push_str(&format!(", {}", visible(kind)));
                }
            }
            _ => {}
        }
    }
    let mut lanes = vec![Lane { name: "state", marks: state }, Lane { name: "said", marks: said }];
    // Leases that overlap stand below each other.
    let mut marks: Vec<Mark> = leases.into_values().collect();
    marks.sort_by_key(|mark| mark.from);
    let others = lanes.len();
    for mark in marks {
        let free = |lane: &Lane| lane.marks.last().is_none_or(|last| last.to.unwrap_or(last.from) <= mark.from);
        match lanes.iter().skip(others).position(free) {
            Some(at) => lanes[others + at].marks.push(mark),
            None if lanes.len() < others + LEASE_LANES => lanes.push(Lane { name: "leases", marks: vec![mark] }),
            None => {}
        }
    }
    (lanes, first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_cover_the_life_without_overlap_and_end_where_their_lease_ends() {
        let event = |seconds, kind: &str, lease: &str, actor: &str| pb::TimelineEntry {
            event: Some(pb::Event {
                at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
                kind: kind.into(),
                actor: actor.into(),
                subject: if lease.is_empty() { "res_1".into() } else { lease.into() },
                resource_id: "res_1".into(),
                lease_id: lease.into(),
                ..pb::Event::default()
            }),
            ..pb::TimelineEntry::default()
        };
        let entries = vec![
            event(1, "resource.provisioning", "", "wharfinger"),
            event(2, "resource.ready", "", "wharfinger"),
            event(3, "lease.preparing", "lse_1", "wharfinger"),
            event(4, "lease.active", "lse_1", "wharfinger"),
            event(4, "lease.preparing", "lse_2", "wharfinger"),
            event(5, "resource.suspect", "", "ann"),
            event(6, "lease.broken", "lse_1", "wharfinger"),
            event(7, "lease.preparing", "lse_3", "wharfinger"),
        ];
        let (lanes, first) =
            lanes_of("res_1", &pb::TimelineResponse { entries, ..pb::TimelineResponse::default() }, 10_000);
        assert_eq!(first, 1000);
        let spans = |lane: &Lane| lane.marks.iter().map(|mark| (mark.from, mark.to)).collect::<Vec<_>>();
        assert_eq!(spans(&lanes[0]), [(1000, Some(2000)), (2000, Some(5000)), (5000, Some(10_000))]);
        assert_eq!(spans(&lanes[1]), [(5000, None)]);
        assert_eq!(spans(&lanes[2]), [(3000, Some(6000)), (7000, Some(10_000))]);
        assert_eq!((lanes[2].marks[0].tone, &*lanes[2].marks[0].lease), (Tone::Bad, "lse_1"));
        assert_eq!(spans(&lanes[3]), [(4000, Some(10_000))]);
    }
}
