//! The page of a refusal.

use maud::{Markup, html};

/// The page of a refusal.
pub(crate) fn problem(title: &str, message: &str, reason: &str) -> Markup {
    html! {
        h1 { (title) }
        p { (message) }
        @if !reason.is_empty() { p.none { "Reason: " code { (reason) } } }
        p { a href="/" { "Now" } }
    }
}
