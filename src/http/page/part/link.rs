//! Links to other screens.

use super::text::{clipped, visible};
use crate::http::page::screen::Screen;
use maud::{Markup, html};

/// A link to a screen.
pub(crate) fn to(screen: &Screen, label: &str) -> Markup {
    html! { a href=(screen.url()) { (label) } }
}

/// A lease, by its id.
pub(crate) fn lease(id: &str) -> Markup {
    html! { @if id.is_empty() { span.none { "–" } } @else { a.id href=(Screen::Lease(id.to_owned()).url()) { (visible(id)) } } }
}

/// A resource, by its id.
pub(crate) fn resource(id: &str) -> Markup {
    html! { @if id.is_empty() { span.none { "–" } } @else { a.id href=(Screen::resource(id).url()) { (visible(id)) } } }
}

/// A resource by the name of its machine, or by its id if it stands for none.
pub(crate) fn machine(item: &str, id: &str) -> Markup {
    html! {
        @if item.is_empty() { (resource(id)) }
        @else { a href=(Screen::resource(id).url()) title=(visible(id)) { bdi { (clipped(item)) } } }
    }
}

/// A pool, by its name.
pub(crate) fn pool(name: &str) -> Markup {
    html! { @if name.is_empty() { span.none { "–" } } @else { a href=(Screen::Pool(name.to_owned()).url()) { bdi { (clipped(name)) } } } }
}

/// The subject of a cause or an entry: an id of a lease or resource, `pool NAME`, or a text.
pub(crate) fn subject(text: &str) -> Markup {
    match text.strip_prefix("pool ") {
        Some(name) => html! { "pool " (pool(name)) },
        None if text.starts_with("lse_") => lease(text),
        None if text.starts_with("res_") => resource(text),
        None => html! { bdi { (clipped(text)) } },
    }
}
