//! The queue: who waits, for what, at which place, until when, and why.

use super::{cell, head};
use crate::http::page::part::{self, clipped, counted, likely_start, others, time, to, visible};
use crate::http::page::screen::Screen;
use crate::overview::{Queue, QueueClass};
use maud::{Markup, html};

/// The screen at this time, in seconds of the Unix epoch.
pub(crate) fn queue(shown: &Queue, now: i64) -> Markup {
    let classes = shown.classes();
    let next = shown.page.as_ref().map_or("", |page| &*page.next_page_token);
    html! {
        h1 { "Queue" }
        form.filter action="/queue" method="get" {
            label { "Pool " input #filter name="pool" value=(visible(&shown.pool)); }
            button { "Filter" }
        }
        @if shown.page.is_none() { p.none { "Your roles do not let you read why requests wait." } }
        @else if classes.is_empty() { p.well { "No request waits." } }
        @for (n, class) in classes.iter().enumerate() { (of_class(n, class, now)) }
        @if !next.is_empty() {
            p { (to(&Screen::Queue { pool: shown.pool.clone(), after: next.to_owned() }, "the next requests")) }
        }
    }
}

fn of_class(n: usize, shown: &QueueClass<'_>, now: i64) -> Markup {
    let count = |count: i32| usize::try_from(count).unwrap_or(0);
    let (requests, leases) = (count(shown.class.requests), count(shown.class.leases));
    html! {
        section aria-labelledby=(format!("class-{n}")) {
            h2 id=(format!("class-{n}")) {
                bdi { (clipped(&shown.class.wants)) } ": " (counted(requests, "request", "requests"))
                @if leases != requests { ", " (counted(leases, "lease", "leases")) }
            }
            @if let Some(said) = shown.said {
                p {
                    "The first of these waits: "
                    @match said.blockers.first() {
                        _ if !said.satisfiable => { b { "never: " } (others(&said.summary)) }
                        Some(first) => { b { (visible(&first.code)) } " " (others(&first.detail)) }
                        None => { "nothing blocks it" }
                    }
                }
            }
            table {
                caption.unseen { "Requests in the order of service" }
                (head(&["Place", "Since", "Holder", "Work", "Priority", "Likely start", "Lease"]))
                tbody {
                    @for request in &shown.requests {
                        @let lease = request.lease.clone().unwrap_or_default();
                        tr id=(format!("row-{}", lease.id)) {
                            (cell("Place", &html! { (request.position) @if request.leases > 1 { ", for " (request.leases) " leases" } }))
                            (cell("Since", &time(lease.created_at.as_ref())))
                            (cell("Holder", &html! { bdi { (clipped(&lease.holder)) } }))
                            (cell("Work", &html! {
                                @if lease.work.is_empty() { span.none { "–" } } @else { bdi { (clipped(&lease.work)) } }
                            }))
                            (cell("Priority", &html! { (lease.priority) }))
                            (cell("Likely start", &likely_start(request.likely_start.as_ref(), &request.no_likely_start, now)))
                            (cell("Lease", &part::lease(&lease.id)))
                        }
                    }
                }
            }
        }
    }
}
