//! Leases, a page at a time.

use super::{cell, head, more};
use crate::http::page::part::{self, clipped, lease_state, lease_word, others, selector, time, visible};
use crate::http::page::screen::{LeaseFilter, Screen};
use crate::pb;
use maud::{Markup, html};

/// A page of leases.
pub(crate) struct Leases {
    pub(crate) filter: LeaseFilter,
    pub(crate) list: Vec<pb::Lease>,
    /// The token of the next page. Empty: this is the last one.
    pub(crate) next: String,
}

/// The states of a filter, in lower case.
pub(crate) fn state_words() -> impl Iterator<Item = (pb::LeaseState, String)> {
    (1..=8).filter_map(|n| pb::LeaseState::try_from(n).ok()).map(|state| (state, lease_word(state).to_lowercase()))
}

/// The screen.
pub(crate) fn leases(shown: &Leases) -> Markup {
    let filter = &shown.filter;
    let next = match shown.next.is_empty() {
        true => String::new(),
        false => Screen::Leases(LeaseFilter { after: shown.next.clone(), ..filter.clone() }).url(),
    };
    html! {
        h1 { "Leases" }
        form.filter action="/leases" method="get" {
            label { "Pool " input name="pool" value=(filter.pool); }
            label { "State "
                select name="state" {
                    option value="" selected[filter.state.is_empty()] { "all that have not ended" }
                    @for (_, word) in state_words() { option value=(word) selected[filter.state == word] { (word) } }
                }
            }
            label { "Holder " input #filter name="holder" type="search" value=(visible(&filter.holder)) maxlength="1024"; }
            button { "Filter" }
        }
        (table(&shown.list))
        (more(&next, "next page"))
        @if !filter.after.is_empty() { p { a href=(Screen::Leases(LeaseFilter { after: String::new(), ..filter.clone() }).url()) { "first page" } } }
        p.none { "Leases that have ended are listed as long as the server keeps them." }
    }
}

/// A table of leases.
pub(super) fn table(list: &[pb::Lease]) -> Markup {
    html! {
        @if list.is_empty() { p.none { "None." } }
        @else {
            table {
                caption.unseen { "Leases" }
                (head(&["State", "Lease", "Holder", "Work", "Wants", "On", "Asked", "Ends", "Why"]))
                tbody {
                    @for one in list {
                        tr id=(format!("row-{}", one.id)) {
                            (cell("State", &lease_state(one.state())))
                            (cell("Lease", &part::lease(&one.id)))
                            (cell("Holder", &html! { bdi { (clipped(&one.holder)) } }))
                            (cell("Work", &html! { bdi { (clipped(&one.work)) } }))
                            (cell("Wants", &html! { bdi { (clipped(&selector(one.selector.as_ref()))) } }))
                            (cell("On", &part::resource(&one.resource_id)))
                            (cell("Asked", &time(one.created_at.as_ref())))
                            (cell("Ends", &time(one.ended_at.as_ref().or(one.expires_at.as_ref()))))
                            (cell("Why", &why(one)))
                        }
                    }
                }
            }
        }
    }
}

fn why(lease: &pb::Lease) -> Markup {
    html! {
        @if let Some(doubt) = &lease.doubt { "in doubt: " (others(&doubt.detail)) }
        @else if let Some(root) = lease.causes.last() { b { (visible(&root.reason)) } " " (others(&root.detail)) }
        @else if !lease.fail_detail.is_empty() { (others(&lease.fail_detail)) }
        @else if !lease.child_resource_id.is_empty() { "for the copy " (part::resource(&lease.child_resource_id)) }
        @else { (others(&lease.trouble)) }
    }
}
