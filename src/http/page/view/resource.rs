//! One resource's life: its lanes, the table that says the same, and what it is now.

use super::now::why;
use super::{cell, fact, head, pairs};
use crate::http::page::part::{
    self, Lane, Mark, causes, clipped, instant, lanes, others, resource_state, time, to, visible, word_of,
};
use crate::http::page::screen::{EventFilter, LaneSpan, Screen};
use crate::pb;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// Maximum number of lanes of leases.
const LEASE_LANES: usize = 12;

/// One resource with its story.
pub(crate) struct OneResource {
    pub(crate) resource: pb::Resource,
    /// `None`: the caller's roles do not let it read the story.
    pub(crate) story: Option<pb::TimelineResponse>,
    /// The live leases on it, as far as they were looked up.
    pub(crate) leases: Vec<pb::Lease>,
    pub(crate) span: LaneSpan,
    /// Seconds of the Unix epoch.
    pub(crate) now: i64,
    /// The verbs that the caller may use.
    pub(crate) actions: Markup,
}

/// The screen.
pub(crate) fn resource(shown: &OneResource) -> Markup {
    let one = &shown.resource;
    html! {
        h1 { @if one.item.is_empty() { (visible(&one.id)) } @else { bdi { (clipped(&one.item)) } } }
        p.lead {
            (resource_state(one.state())) " in pool " (part::pool(&one.pool)) " · " (visible(&one.id))
            " · " (one.slots_in_use) " of " (one.slots) " slots · " (one.uses) " uses"
            @if one.misses > 0 { " · no answer to " (one.misses) " checks" }
            @if one.attempt > 0 { " · attempt " (one.attempt) ", next " (time(one.retry_at.as_ref())) }
        }
        p { (why(one)) }
        (shown.actions)
        section aria-labelledby="life" {
            h2 #life { "Life" }
            @match &shown.story {
                None => p.none { "Your roles do not let you read the story of a resource." },
                Some(story) => (life(shown, story)),
            }
        }
        section aria-labelledby="leases" {
            h2 #leases { "On it now" }
            @if one.lease_ids.is_empty() { p.none { "No lease." } } @else { (super::leases::table(&shown.leases)) }
            @let unseen = one.lease_ids.len().saturating_sub(shown.leases.len());
            @if unseen > 0 { p { @for id in one.lease_ids.iter().skip(shown.leases.len()).take(50) { span.item { (part::lease(id)) } } } }
        }
        section aria-labelledby="facts" {
            h2 #facts { "Facts" }
            (facts(one))
        }
        @if !one.failures.is_empty() { (failures(one)) }
        @if one.causes.len() > 1 { section aria-labelledby="chain" { h2 #chain { "Why it is so" } (causes(&one.causes)) } }
        p { "In a shell: " code { "wharfinger why " (visible(&one.id)) } }
    }
}

fn facts(one: &pb::Resource) -> Markup {
    html! {
        dl.facts {
            @if !one.parent_id.is_empty() { (fact("Lies on", &html! { (part::resource(&one.parent_id)) " by " (part::lease(&one.parent_lease_id)) })) }
            (fact("Made", &html! { (time(one.created_at.as_ref())) ", ready " (time(one.ready_at.as_ref())) }))
            @if one.idle_since.is_some() { (fact("Idle since", &time(one.idle_since.as_ref()))) }
            @if one.ends_at.is_some() { (fact("Announced end", &time(one.ends_at.as_ref()))) }
            @if one.deadline.is_some() { (fact("Leases are broken at", &time(one.deadline.as_ref()))) }
            @if !one.at_risk.is_empty() { (fact("At risk", &others(&one.at_risk))) }
            @if !one.kept_by.is_empty() {
                (fact("Kept", &html! { "by " bdi { (clipped(&one.kept_by)) } ": " (others(&one.kept_reason)) ", until "
                    @if one.kept_until.is_some() { (time(one.kept_until.as_ref())) } @else { "a person says so" } }))
            }
            @if one.cordoned { (fact("Cordoned", &html! { "by " bdi { (clipped(&one.cordoned_by)) } ": " (others(&one.cordon_reason)) })) }
            @if !one.trouble.is_empty() { (fact("Last failure", &others(&one.trouble))) }
            (fact("Labels", &pairs(&one.labels)))
            @if let Some(access) = &one.access {
                (fact("Reached at", &html! {
                    @match &access.via {
                        Some(pb::access::Via::Ssh(ssh)) => { bdi { (clipped(&ssh.user)) "@" (clipped(&ssh.address)) ":" (ssh.port) } }
                        Some(pb::access::Via::Local(local)) => { bdi { (clipped(&local.user)) "@" (clipped(&local.address)) } }
                        None => { span.none { "–" } }
                    }
                    " " bdi { (clipped(&access.path)) }
                }))
                @if !access.boot_id.is_empty() { (fact("Boot", &html! { bdi { (clipped(&access.boot_id)) } })) }
                @if !access.commit.is_empty() { (fact("Commit", &html! { bdi { (clipped(&access.commit)) } })) }
            }
        }
    }
}

fn failures(one: &pb::Resource) -> Markup {
    html! {
        section aria-labelledby="failures" {
            h2 #failures { "Work that failed on it" }
            table {
                caption.unseen { "Work that failed on it, the oldest first" }
                (head(&["Work", "Lease", "When", "A later check"]))
                tbody {
                    @for failure in &one.failures {
                        tr {
                            (cell("Work", &others(&failure.work)))
                            (cell("Lease", &part::lease(&failure.lease_id)))
                            (cell("When", &time(failure.at.as_ref())))
                            (cell("A later check", &html! { @if failure.cleared { "found nothing wrong" } @else { "is still to come, or found a fault" } }))
                        }
                    }
                }
            }
        }
    }
}

fn life(shown: &OneResource, story: &pb::TimelineResponse) -> Markup {
    let id = &shown.resource.id;
    let to_ms = shown.now * 1000;
    let first = story.entries.first().and_then(|entry| entry.event.as_ref()).and_then(at_ms).unwrap_or(to_ms);
    let from = match shown.span.seconds() {
        Some(seconds) => to_ms - seconds * 1000,
        None => first,
    };
    let list = lanes_of(id, story, to_ms);
    html! {
        p.spans { "Span: " @for span in LaneSpan::EACH {
            @if span == shown.span { b { (span.word()) } } @else { (to(&Screen::Resource { id: id.clone(), span }, span.word())) } " "
        } }
        (lanes(from, to_ms, &list))
        @if story.truncated { p { "Only the newest " (story.entries.len()) " entries are shown; "
            (to(&Screen::Events(EventFilter { resource: id.clone(), ..EventFilter::default() }), "all events")) "." } }
        (table(story))
    }
}

fn at_ms(event: &pb::Event) -> Option<i64> {
    instant(event.at.as_ref()).map(jiff::Timestamp::as_millisecond)
}

/// The table of a story, the oldest entry first.
pub(super) fn table(story: &pb::TimelineResponse) -> Markup {
    html! {
        table {
            caption { "The same as a table, the oldest entry first" }
            (head(&["When", "About", "What", "Subject", "By", "Detail"]))
            tbody {
                @for entry in &story.entries {
                    @let event = entry.event.clone().unwrap_or_default();
                    tr {
                        (cell("When", &time(event.at.as_ref())))
                        (cell("About", &html! { (word_of(entry.role().as_str_name(), "TIMELINE_ROLE_").to_lowercase()) }))
                        (cell("What", &html! { b { (visible(&event.kind)) } }))
                        (cell("Subject", &part::subject(&event.subject)))
                        (cell("By", &html! { bdi { (clipped(&event.actor)) } }))
                        (cell("Detail", &others(&event.detail)))
                    }
                }
            }
        }
    }
}

/// The class of the state that a kind of entries begins. `None`: it begins none.
fn begins(kind: &str) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        "resource.provisioning" => ("busy", "being made"),
        "resource.ready" | "resource.cleared" => ("good", "ready"),
        "resource.suspect" => ("bad", "in doubt"),
        "resource.repairing" => ("busy", "being repaired"),
        "resource.quarantined" => ("kept", "kept"),
        "resource.draining" => ("kept", "draining"),
        "resource.destroying" => ("busy", "being destroyed"),
        "resource.orphaned" => ("bad", "orphaned"),
        "resource.gone" => ("none", "gone"),
        _ => return None,
    })
}

fn ends_lease(kind: &str) -> bool {
    matches!(
        kind,
        "lease.released" | "lease.expired" | "lease.broken" | "lease.cancelled" | "lease.failed" | "lease.requeued"
    )
}

/// The lanes of a story: the state, what people said, and the leases.
fn lanes_of(id: &str, story: &pb::TimelineResponse, now: i64) -> Vec<Lane> {
    let mut state: Vec<Mark> = Vec::new();
    let mut said: Vec<Mark> = Vec::new();
    let mut leases: BTreeMap<&str, Mark> = BTreeMap::new();
    for event in story.entries.iter().filter_map(|entry| entry.event.as_ref()) {
        let Some(at) = at_ms(event) else { continue };
        if event.subject == id
            && let Some((class, word)) = begins(&event.kind)
        {
            if let Some(last) = state.last_mut() {
                last.to = Some(at);
            }
            let title = format!("{word}: {}", clipped(&event.detail));
            state.push(Mark { from: at, to: Some(now), class, title, url: String::new() });
        }
        if event.caller.is_some() || !matches!(&*event.actor, "" | "wharfinger") {
            let title = format!("{} by {}: {}", visible(&event.kind), clipped(&event.actor), clipped(&event.detail));
            said.push(Mark { from: at, to: None, class: "said", title, url: String::new() });
        }
        if event.lease_id.is_empty() || event.resource_id != id {
            continue;
        }
        let end = leases.get(&*event.lease_id).map(|mark| mark.from);
        match (&*event.kind, end) {
            ("lease.preparing" | "lease.active", None) => {
                let title = format!("{} {}", visible(&event.lease_id), clipped(&event.detail));
                let url = Screen::Lease(event.lease_id.clone()).url();
                leases.insert(&event.lease_id, Mark { from: at, to: Some(now), class: "busy", title, url });
            }
            (kind, Some(_)) if ends_lease(kind) => {
                if let Some(mark) = leases.get_mut(&*event.lease_id) {
                    mark.to = Some(at);
                    mark.class = if matches!(kind, "lease.broken" | "lease.expired") { "bad" } else { "busy" };
                    mark.title.push_str(&format!(", {}", visible(kind)));
                }
            }
            _ => {}
        }
    }
    let mut lanes = vec![Lane { name: "state".into(), marks: state }, Lane { name: "said".into(), marks: said }];
    // Leases that overlap stand below each other.
    let mut marks: Vec<Mark> = leases.into_values().collect();
    marks.sort_by_key(|mark| mark.from);
    let first = lanes.len();
    for mark in marks {
        let free = |lane: &Lane| lane.marks.last().is_none_or(|last| last.to.unwrap_or(last.from) <= mark.from);
        match lanes.iter().skip(first).position(free) {
            Some(at) => lanes[first + at].marks.push(mark),
            None if lanes.len() < first + LEASE_LANES => {
                lanes.push(Lane { name: "leases".into(), marks: vec![mark] });
            }
            None => {}
        }
    }
    lanes
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
        let lanes = lanes_of("res_1", &pb::TimelineResponse { entries, ..pb::TimelineResponse::default() }, 10_000);
        let spans = |lane: &Lane| lane.marks.iter().map(|mark| (mark.from, mark.to)).collect::<Vec<_>>();
        assert_eq!(spans(&lanes[0]), [(1000, Some(2000)), (2000, Some(5000)), (5000, Some(10_000))]);
        assert_eq!(spans(&lanes[1]), [(5000, None)]);
        assert_eq!(spans(&lanes[2]), [(3000, Some(6000)), (7000, Some(10_000))]);
        assert_eq!((lanes[2].marks[0].class, &*lanes[2].marks[0].url), ("bad", "/leases/lse_1"));
        assert_eq!(spans(&lanes[3]), [(4000, Some(10_000))]);
    }
}
