//! The audit trail, the newest entry first.

use super::{cell, head, more};
use crate::http::page::part::{self, clipped, others, time, visible};
use crate::http::page::screen::{EventFilter, Screen};
use crate::pb;
use maud::{Markup, html};

/// A page of the audit trail.
pub(crate) struct Events {
    pub(crate) filter: EventFilter,
    pub(crate) list: Vec<pb::Event>,
    /// The token of the next page. Empty: this is the last one.
    pub(crate) next: String,
    /// Number of entries that were looked at, if kinds were searched.
    pub(crate) looked: Option<usize>,
}

/// The screen.
pub(crate) fn events(shown: &Events) -> Markup {
    let filter = &shown.filter;
    let next = match shown.next.is_empty() {
        true => String::new(),
        false => Screen::Events(EventFilter { after: shown.next.clone(), ..filter.clone() }).url(),
    };
    html! {
        h1 { "Events" }
        form.filter action="/events" method="get" {
            label { "Pool " input name="pool" value=(visible(&filter.pool)); }
            label { "Kind begins with " input #filter name="kind" value=(visible(&filter.kind)) placeholder="lease.broken" maxlength="100"; }
            label { "Resource " input name="resource" value=(visible(&filter.resource)); }
            label { "Lease " input name="lease" value=(visible(&filter.lease)); }
            button { "Filter" }
        }
        @if let Some(looked) = shown.looked { p.none { "Looked at " (looked) " entries; found " (shown.list.len()) "." } }
        (table(&shown.list))
        (more(&next, "older entries"))
        @if !filter.after.is_empty() { p { a href=(Screen::Events(EventFilter { after: String::new(), ..filter.clone() }).url()) { "the newest entries" } } }
    }
}

/// A table of entries.
pub(super) fn table(list: &[pb::Event]) -> Markup {
    html! {
        @if list.is_empty() { p.none { "None." } }
        @else {
            table {
                caption.unseen { "Entries of the audit trail, the newest first" }
                (head(&["When", "What", "Subject", "Pool", "By", "Detail"]))
                tbody {
                    @for event in list {
                        tr {
                            (cell("When", &time(event.at.as_ref())))
                            (cell("What", &html! { b { (visible(&event.kind)) } }))
                            (cell("Subject", &part::subject(&event.subject)))
                            (cell("Pool", &part::pool(&event.pool)))
                            (cell("By", &by(event)))
                            (cell("Detail", &others(&event.detail)))
                        }
                    }
                }
            }
        }
    }
}

fn by(event: &pb::Event) -> Markup {
    html! {
        bdi { (clipped(&event.actor)) }
        @if let Some(caller) = &event.caller {
            @if !caller.program.is_empty() { " via " (clipped(&caller.program)) }
            span.said { " " (clipped(&caller.method)) " from " (clipped(&caller.peer)) ", proof " (clipped(&caller.proof)) }
        }
    }
}
