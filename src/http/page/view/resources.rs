//! Resources, a page at a time, by a filter that is in the address.

use super::bulk;
use super::now::why;
use super::{cell, more};
use crate::auth::Verbs;
use crate::http::page::part::{self, clipped, resource_state, resource_word, time};
use crate::http::page::screen::{ResourceFilter, Screen};
use crate::pb;
use maud::{Markup, html};

/// A page of resources.
pub(crate) struct Resources {
    pub(crate) filter: ResourceFilter,
    pub(crate) list: Vec<pb::Resource>,
    /// The token of the next page. Empty: this is the last one.
    pub(crate) next: String,
    /// Number of resources that were looked at, if a text was searched.
    pub(crate) looked: Option<usize>,
    /// Names of all pools.
    pub(crate) pools: Vec<String>,
    /// The verbs that the caller may use.
    pub(crate) may: Verbs,
}

/// The states of a filter, in lower case.
pub(crate) fn state_words() -> impl Iterator<Item = (pb::ResourceState, String)> {
    (1..=9)
        .filter_map(|n| pb::ResourceState::try_from(n).ok())
        .map(|state| (state, resource_word(state).to_lowercase()))
}

/// The screen.
pub(crate) fn resources(shown: &Resources) -> Markup {
    let next = match shown.next.is_empty() {
        true => String::new(),
        false => Screen::Resources(ResourceFilter { after: shown.next.clone(), ..shown.filter.clone() }).url(),
    };
    let filter = &shown.filter;
    html! {
        h1 { "Resources" }
        form.filter action="/resources" method="get" {
            label { "Pool " input name="pool" list="pools" value=(filter.pool); }
            datalist #pools { @for name in &shown.pools { option value=(name) {} } }
            label { "State "
                select name="state" {
                    option value="" selected[filter.state.is_empty()] { "all but gone" }
                    option value="trouble" selected[filter.state == "trouble"] { "in need of a look" }
                    @for (_, word) in state_words() { option value=(word) selected[filter.state == word] { (word) } }
                }
            }
            label { "Text " input #filter name="q" type="search" value=(filter.text) maxlength="200" placeholder="machine, address, label, id"; }
            button { "Filter" }
        }
        @if let Some(looked) = shown.looked { p.none { "Looked at " (looked) " resources; found " (shown.list.len()) "." } }
        @if shown.list.is_empty() { p.none { "None." } }
        @else {
            @let choice = bulk::choice(&shown.may);
            @if choice.is_empty() { (table(&shown.list, false)) }
            @else {
                form.bulk action="/bulk" method="get" {
                    input type="hidden" name="pool" value=(filter.pool);
                    input type="hidden" name="state" value=(filter.state);
                    input type="hidden" name="q" value=(filter.text);
                    (table(&shown.list, true))
                    p.verbs {
                        label { "Verb " select name="verb" { @for (word, title) in &choice { option value=(word) { (title) } } } }
                        button { "For the selected…" }
                        button name="all" value="1" { "For all of this filter…" }
                    }
                }
            }
        }
        (more(&next, if shown.list.is_empty() { "look further" } else { "next page" }))
        @if !filter.after.is_empty() { p { a href=(Screen::Resources(ResourceFilter { after: String::new(), ..filter.clone() }).url()) { "first page" } } }
        @if !filter.pool.is_empty() { p { "Pool " (part::pool(&filter.pool)) " " span.none { (clipped(&filter.text)) } } }
    }
}

/// The rows, with a box for each if they can be selected.
fn table(list: &[pb::Resource], selects: bool) -> Markup {
    const COLUMNS: [&str; 9] = ["State", "Resource", "Pool", "On", "Slots", "Leases", "Why", "Uses", "Age"];
    html! {
        table {
            caption.unseen { "Resources" }
            thead {
                tr {
                    @if selects { th scope="col" { "Select" } }
                    @for column in COLUMNS { th scope="col" { (column) } }
                }
            }
            tbody {
                @for one in list {
                    tr id=(one.id) {
                        @if selects { (cell("Select", &bulk::select(one))) }
                        (cell("State", &resource_state(one.state())))
                        (cell("Resource", &part::machine(&one.item, &one.id)))
                        (cell("Pool", &part::pool(&one.pool)))
                        (cell("On", &part::resource(&one.parent_id)))
                        (cell("Slots", &html! { (one.slots_in_use) " of " (one.slots) }))
                        (cell("Leases", &html! {
                            @for id in one.lease_ids.iter().take(3) { span.item { (part::lease(id)) } }
                            @if one.lease_ids.len() > 3 { (one.lease_ids.len() - 3) " more" }
                            @if one.lease_ids.is_empty() { span.none { "–" } }
                        }))
                        (cell("Why", &html! { (why(one)) @if one.ends_at.is_some() { " ends " (time(one.ends_at.as_ref())) } }))
                        (cell("Uses", &html! { (one.uses) }))
                        (cell("Age", &time(one.created_at.as_ref())))
                    }
                }
            }
        }
    }
}
