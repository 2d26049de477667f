//! *Now*: whether all is well, and what needs a person: what is wrong, since when, who is hit, and the next step.

use super::pools::capacity;
use super::{cell, head};
use crate::http::page::part::{self, causes, clipped, others, resource_state, time, to, visible};
use crate::http::page::screen::{LeaseFilter, ResourceFilter, Screen};
use crate::overview::{Now, Piece, Place, Sign, Struck, attention, roots};
use crate::pb;
use maud::{Markup, html};

/// The screen.
pub(crate) fn now(shown: &Now) -> Markup {
    let rows = attention(shown);
    html! {
        h1 { "Now" }
        section.attention aria-labelledby="attention" {
            h2 #attention { "Attention" @if !rows.is_empty() { " (" (rows.len()) ")" } }
            @if rows.is_empty() {
                p.well { "Nothing needs you." }
            } @else {
                table {
                    caption.unseen { "What needs a person, the most urgent first" }
                    (head(&["What", "Since", "Who is hit", "Next step"]))
                    tbody {
                        @for row in &rows {
                            tr id=(row.id) {
                                (cell("What", &html! { @if row.sign != Sign::None { span.sign aria-hidden="true" { (row.sign.text()) } " " } @for piece in &row.what { (said(piece)) } }))
                                (cell("Since", &time(row.since.as_ref())))
                                (cell("Who is hit", &struck(&row.hit)))
                                (cell("Next step", &step(&row.place, row.step)))
                            }
                        }
                    }
                }
            }
        }
        @if let Some(pools) = &shown.pools { section aria-labelledby="capacity" { h2 #capacity { "Pools" } (capacity(pools)) } }
        @else { p.none { "Your roles do not let you read pools." } }
        section aria-labelledby="broken" {
            h2 #broken { "Broken in the last hour" }
            @match &shown.broken {
                None => p.none { "Your roles do not let you read the audit trail." },
                Some((leases, count)) => (broken(leases, *count)),
            }
        }
    }
}

fn broken(leases: &[pb::Lease], count: usize) -> Markup {
    let roots = roots(leases);
    html! {
        @if count == 0 { p.none { "No lease." } }
        @else {
            table {
                caption.unseen { "Leases that broke, by their root cause" }
                (head(&["Because", "When", "Leases"]))
                tbody {
                    @for (root, of) in &roots {
                        tr {
                            (cell("Because", &html! { b { (visible(&root.reason)) } " " (part::subject(&root.subject)) ": " (others(&root.detail)) }))
                            (cell("When", &time(root.at.as_ref())))
                            (cell("Leases", &html! {
                                @for lease in of {
                                    span.item {
                                        (part::lease(&lease.id)) " of " bdi { (clipped(&lease.holder)) }
                                        @if !lease.replacement_id.is_empty() { ", in its stead " (part::lease(&lease.replacement_id)) }
                                    }
                                }
                            }))
                        }
                    }
                }
            }
            @if count > leases.len() { p { (count) " leases broke; the latest " (leases.len()) " are shown. "
                (to(&Screen::Leases(LeaseFilter { state: "broken".into(), ..LeaseFilter::default() }), "All of them")) } }
        }
    }
}

/// A part of a sentence.
fn said(piece: &Piece) -> Markup {
    match piece {
        Piece::Text(text) => html! { (text) },
        Piece::Strong(text) => html! { b { (text) } },
        Piece::Others(text) => others(text),
        Piece::Pool(name) => part::pool(name),
        Piece::Lease(id) => part::lease(id),
        Piece::State(state) => resource_state(*state),
        Piece::Machine { item, id } => part::machine(item, id),
        Piece::Why(resource) => why(resource),
    }
}

fn struck(hit: &Struck) -> Markup {
    html! {
        @match hit {
            Struck::Unsaid => { span.none { "–" } }
            Struck::Everyone => { "everyone who asks" }
            Struck::LeasesOfPool(count) => { (count) " leases in the pool" }
            Struck::Requests(count) => { (count) " requests wait" }
            Struck::Holder(holder) => { bdi { (clipped(holder)) } }
            Struck::Leases { known, more } => {
                @for one in known { span.item { (part::lease(&one.lease)) " of " bdi { (clipped(&one.holder)) } } }
                @if *more > 0 { span.item { (more) @if known.is_empty() { " leases" } @else { " more" } } }
                @if known.is_empty() && *more == 0 { "no one" }
            }
        }
    }
}

fn step(place: &Place, label: &str) -> Markup {
    let screen = match place {
        Place::Outside => return html! { (label) },
        Place::Servers => Screen::Servers,
        Place::Trouble(pool) => Screen::Resources(ResourceFilter {
            pool: pool.clone(),
            state: "trouble".into(),
            ..ResourceFilter::default()
        }),
        Place::Lease(id) => Screen::Lease(id.clone()),
        Place::Queue(pool) => Screen::queue(pool),
        Place::Resource(id) => Screen::resource(id),
    };
    to(&screen, label)
}

/// Why a resource is where it is, a person's word first.
pub(super) fn why(resource: &pb::Resource) -> Markup {
    html! {
        @if !resource.kept_by.is_empty() {
            "kept by " bdi { (clipped(&resource.kept_by)) } ": " (others(&resource.kept_reason)) " "
        }
        @if resource.cordoned { "cordoned by " bdi { (clipped(&resource.cordoned_by)) } ": " (others(&resource.cordon_reason)) " " }
        @if let Some(note) = &resource.note { "note of " bdi { (clipped(&note.by)) } ": " (others(&note.text)) " " }
        @if !resource.held.is_empty() { "held: " (others(&resource.held)) " " }
        @if let Some(cause) = resource.causes.first() { b { (visible(&cause.reason)) } " " (others(&cause.detail)) }
        @else if !resource.trouble.is_empty() { (others(&resource.trouble)) }
        @if resource.causes.len() > 1 { details { summary { "the whole chain" } (causes(&resource.causes)) } }
    }
}
