//! The queue: who waits, for what, at which place, and why.

use super::{cell, head};
use crate::http::page::part::{self, clipped, others, selector, time, visible};
use crate::overview::Queue;
use crate::pb;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// The screen.
pub(crate) fn queue(shown: &Queue) -> Markup {
    let said: BTreeMap<&str, &pb::ExplainResponse> =
        shown.said.iter().filter_map(|said| Some((&*said.lease.as_ref()?.id, said))).collect();
    let mut classes: BTreeMap<String, Vec<&pb::Lease>> = BTreeMap::new();
    for lease in &shown.list {
        classes.entry(selector(lease.selector.as_ref())).or_default().push(lease);
    }
    // A lease without an explanation comes behind those with one.
    let place = |lease: &pb::Lease| said.get(&*lease.id).map_or(i32::MAX, |said| said.position);
    html! {
        h1 { "Queue" }
        form.filter action="/queue" method="get" {
            label { "Pool " input #filter name="pool" value=(visible(&shown.pool)); }
            button { "Filter" }
        }
        @if shown.list.is_empty() { p.well { "No request waits." } }
        @for (n, (class, list)) in classes.iter().enumerate() {
            @let mut list = list.clone();
            ({ list.sort_by_key(|lease| (place(lease), -lease.priority)); "" })
            section aria-labelledby=(format!("class-{n}")) {
                h2 id=(format!("class-{n}")) { bdi { (clipped(class)) } ": " (list.len()) @if shown.more { " or more" } " waiting" }
                table {
                    caption.unseen { "Requests in the order of service" }
                    (head(&["Place", "Since", "Holder", "Priority", "Lease", "Why it waits"]))
                    tbody {
                        @for lease in &list {
                            tr id=(format!("row-{}", lease.id)) {
                                (cell("Place", &html! { @if let Some(said) = said.get(&*lease.id) { (said.position) } @else { span.none { "later" } } }))
                                (cell("Since", &time(lease.created_at.as_ref())))
                                (cell("Holder", &html! { bdi { (clipped(&lease.holder)) } }))
                                (cell("Priority", &html! { (lease.priority) }))
                                (cell("Lease", &part::lease(&lease.id)))
                                (cell("Why it waits", &html! {
                                    @match said.get(&*lease.id) {
                                        Some(said) if !said.satisfiable => { b { "never: " } (others(&said.summary)) }
                                        Some(said) => {
                                            @if let Some(first) = said.blockers.first() { b { (visible(&first.code)) } " " (others(&first.detail)) }
                                            @else { "nothing blocks it" }
                                        }
                                        None => { (others(&lease.trouble)) }
                                    }
                                }))
                            }
                        }
                    }
                }
            }
        }
        @if shown.more { p { "The " (shown.list.len()) " oldest requests are shown." } }
    }
}
