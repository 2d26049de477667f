//! One resource's life: its lanes, the table that says the same, and what it is now.

use super::now::why;
use super::{cell, fact, head, pairs};
use crate::http::page::part::{self, causes, clipped, lanes, others, resource_state, time, to, visible, word_of};
use crate::http::page::screen::{EventFilter, LaneSpan, Screen};
use crate::overview::lanes_of;
use crate::pb;
use maud::{Markup, html};

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
            @if let Some(note) = &one.note {
                (fact("Note", &html! { (others(&note.text)) ", by " bdi { (clipped(&note.by)) } " at " (time(note.at.as_ref())) }))
            }
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
    let (list, first) = lanes_of(id, story, to_ms);
    let from = match shown.span.seconds() {
        Some(seconds) => to_ms - seconds * 1000,
        None => first,
    };
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
