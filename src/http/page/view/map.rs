//! The farm by failure domain.

use super::{cell, head};
use crate::http::page::part::{self, bar, clipped, counted, others, time, to, visible};
use crate::http::page::screen::{ResourceFilter, Screen};
use crate::overview::{Domain, Map};
use crate::pb;
use maud::{Markup, html};
use pb::ResourceState as State;

/// The screen.
pub(crate) fn map(shown: &Map) -> Markup {
    let rows = shown.domains.len() - usize::from(shown.together > 0);
    html! {
        h1 { "Map" }
        form.filter action="/map" method="get" {
            label { "Pool " input name="pool" list="pools" value=(visible(&shown.pool)); }
            datalist #pools { @for name in &shown.pools { option value=(visible(name)) {} } }
            label { "By label " input #filter name="by" list="labels" value=(visible(&shown.by)); }
            datalist #labels { @for label in &shown.labels { option value=(visible(label)) {} } }
            button { "Filter" }
        }
        @if shown.more {
            p.strip { "Only the first " (shown.looked) " resources are counted here: choose a pool. " (to(&Screen::Pools, "Pools")) " has the counts of all." }
        }
        @if shown.domains.is_empty() { p.none { "None." } }
        @else {
            table {
                caption.unseen { "Resources by " (visible(&shown.by)) }
                (head(&["Domain", "Resources", "Ready", "In doubt", "Kept or draining", "Being made or mended", "Slots in use", "Leases", "Brake"]))
                tbody {
                    @for (n, (value, domain)) in shown.domains.iter().enumerate() {
                        tr {
                            (cell("Domain", &html! {
                                @if n >= rows { (counted(shown.together, "other value", "other values")) }
                                @else if value.is_empty() { span.none { "no " bdi { (clipped(&shown.by)) } } }
                                @else { (to(&resources(&shown.pool, value), &visible(value))) }
                            }))
                            (row(domain))
                        }
                    }
                }
            }
        }
    }
}

/// The list of the resources of a domain.
fn resources(pool: &str, value: &str) -> Screen {
    Screen::Resources(ResourceFilter { pool: pool.to_owned(), text: value.to_owned(), ..ResourceFilter::default() })
}

fn row(domain: &Domain) -> Markup {
    let ready = domain.count(&[State::Ready]);
    let bad = domain.count(&[State::Suspect, State::Orphaned]);
    let kept = domain.count(&[State::Quarantined, State::Draining]);
    let busy = domain.count(&[State::Provisioning, State::Repairing, State::Destroying]);
    html! {
        (cell("Resources", &bar(&[("good", "ready", ready), ("bad", "in doubt", bad), ("kept", "kept or draining", kept), ("busy", "being made or mended", busy)])))
        (cell("Ready", &html! { (ready) }))
        (cell("In doubt", &html! { @if bad > 0 { b.sign { (bad) } } @else { "0" } }))
        (cell("Kept or draining", &html! { (kept) }))
        (cell("Being made or mended", &html! { (busy) }))
        (cell("Slots in use", &html! { (domain.in_use) " of " (domain.slots) }))
        (cell("Leases", &html! { (domain.leases) }))
        (cell("Brake", &html! {
            @for (pool, brake) in &domain.brakes {
                span.item {
                    (part::pool(pool)) ": " (brake.troubled) " of " (brake.members) " in trouble"
                    @if brake.held_since.is_some() { ", " b { "brake on" } " since " (time(brake.held_since.as_ref())) ": " (others(&brake.why)) }
                }
            }
            @if domain.brakes.is_empty() { span.none { "–" } }
        }))
    }
}
