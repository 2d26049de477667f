//! The screens: what was asked for in, markup out. A view calls no service, decides nothing, and reads no request.

mod act;
mod bulk;
mod events;
mod frame;
mod lease;
mod leases;
mod map;
mod now;
mod pools;
mod problem;
mod queue;
mod resource;
mod resources;
mod servers;
mod sign_in;
mod spot_stats;

pub(crate) use act::{ActForm, Preview, act, title, verbs};
pub(crate) use bulk::{BulkForm, Carried, bulk, carried};
pub(crate) use events::{Events, events};
pub(crate) use frame::{Frame, Theme, configuration, frame, role};
pub(crate) use lease::{OneLease, lease};
pub(crate) use leases::{Leases, leases, state_words as lease_states};
pub(crate) use map::map;
pub(crate) use now::now;
pub(crate) use pools::{OnePool, pool, pools};
pub(crate) use problem::problem;
pub(crate) use queue::queue;
pub(crate) use resource::{OneResource, resource};
pub(crate) use resources::{Resources, resources, state_words as resource_states};
pub(crate) use servers::{Servers, servers};
pub(crate) use sign_in::{Redirect, redirect, sign_in};
pub(crate) use spot_stats::spot_stats;

use crate::http::page::part::clipped;
use maud::{Markup, html};

/// A cell of a table, which on a narrow screen has its column's name beside it.
fn cell(column: &str, content: &Markup) -> Markup {
    html! { td data-label=(column) { div { (content) } } }
}

/// The head of a table.
fn head(columns: &[&str]) -> Markup {
    html! { thead { tr { @for column in columns { th scope="col" { (column) } } } } }
}

/// A fact, as a row of a list of facts.
fn fact(name: &str, content: &Markup) -> Markup {
    html! { dt { (name) } dd { (content) } }
}

/// Pairs of a map, in one order.
fn pairs<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Markup {
    let mut pairs: Vec<_> = map.into_iter().collect();
    pairs.sort_unstable();
    html! { @for (key, value) in pairs { span.pair { bdi { (clipped(key)) } "=" bdi { (clipped(value)) } } " " } }
}

/// The link to the next page of a list. Without one it says that this is all.
fn more(url: &str, label: &str) -> Markup {
    html! { nav.more aria-label="Pages" { @if url.is_empty() { span.none { "the end of the list" } } @else { a href=(url) rel="next" { (label) } } } }
}
