//! A verb on several resources before and after it is carried out, and the boxes that select them.

use super::act::{broken, fields, title};
use super::{Preview, cell, head};
use crate::auth::{Verb, Verbs};
use crate::http::page::part::{self, clipped, counted, others, resource_state, to};
use crate::http::page::screen::{EventFilter, ResourceFilter, Screen};
use crate::http::page::verb::{Act, Target, word};
use crate::pb;
use maud::{Markup, html};

/// The form of a verb on several resources.
pub(crate) struct BulkForm<'f> {
    /// The verb. Its target has no name.
    pub(crate) act: &'f Act,
    pub(crate) resources: &'f [pb::Resource],
    pub(crate) preview: &'f Preview,
    /// The text that has to be written before something is destroyed. Empty: none.
    pub(crate) confirm: &'f str,
    /// The digest of what the preview shows.
    pub(crate) seen: &'f str,
    /// A number of the form, so that it counts once.
    pub(crate) once: &'f str,
    /// Why the form was refused. Empty: it was not.
    pub(crate) refused: &'f str,
    pub(crate) reason: &'f str,
    pub(crate) time: &'f str,
}

/// Maximum number of rows of a table here.
const LISTED: usize = 100;

/// The number of rows that a table leaves out.
fn unlisted(count: usize) -> Markup {
    html! { @if count > LISTED { p { "And " (count - LISTED) " more that are not listed." } } }
}

/// The end of a call for one resource.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    pub(crate) id: String,
    /// Its machine; empty: it stands for none.
    pub(crate) item: String,
    /// The message of the refusal. Empty: it was carried out.
    pub(crate) refused: String,
}

/// The verbs for several resources that a caller may use, by their words and titles.
pub(super) fn choice(may: &Verbs) -> Vec<(&'static str, String)> {
    let verbs = Target::Resource(String::new()).verbs().iter().copied();
    verbs.filter(|verb| may.has(*verb)).map(|verb| (word(verb), title(verb))).collect()
}

/// The box that selects a resource. One that is gone has none.
pub(super) fn select(resource: &pb::Resource) -> Markup {
    let name = if resource.item.is_empty() { &resource.id } else { &resource.item };
    html! {
        @if resource.state() == pb::ResourceState::Gone { span.none { "–" } }
        @else { input type="checkbox" name="id" value=(resource.id) aria-label=(format!("Select {}", clipped(name))) autocomplete="off"; }
    }
}

/// The page of a verb on several resources.
pub(crate) fn bulk(form: &BulkForm<'_>) -> Markup {
    let act = form.act;
    let count = counted(form.resources.len(), "resource", "resources");
    html! {
        h1 { (title(act.verb)) " " (count) "?" }
        p.lead { (act.meaning()) " This happens to each of them." }
        @if !form.refused.is_empty() { p.strip role="alert" { (form.refused) } }
        @if act.breaks() { (broken(act, form.preview)) }
        section aria-labelledby="selected" {
            h2 #selected { (count) }
            table {
                caption.unseen { "Resources of the form" }
                (head(&["State", "Resource", "Pool", "Leases"]))
                tbody {
                    @for one in form.resources.iter().take(LISTED) {
                        tr {
                            (cell("State", &resource_state(one.state())))
                            (cell("Resource", &part::machine(&one.item, &one.id)))
                            (cell("Pool", &part::pool(&one.pool)))
                            (cell("Leases", &html! { (one.lease_ids.len()) }))
                        }
                    }
                }
            }
            (unlisted(form.resources.len()))
        }
        form.act action="/bulk" method="post" {
            input type="hidden" name="verb" value=(word(act.verb));
            @for one in form.resources { input type="hidden" name="id" value=(one.id); }
            (fields(act, (form.seen, form.once), (form.reason, form.time), form.confirm))
            p {
                button.breaks[act.breaks()] { (title(act.verb)) " " (count) " now" } " "
                (to(&Screen::Resources(ResourceFilter::default()), "Go back; do nothing"))
            }
        }
    }
}

/// The page after a form was carried out. `batch`: the words that the reason of each entry ends with.
pub(crate) fn carried(verb: Verb, batch: &str, list: &[Carried]) -> Markup {
    let (done, refusals): (Vec<_>, Vec<_>) = list.iter().partition(|one| one.refused.is_empty());
    let refused = refusals.len();
    let events = Screen::Events(EventFilter { kind: "resource.".into(), ..EventFilter::default() });
    html! {
        h1 { (title(verb)) ": " (done.len()) " done" @if refused > 0 { ", " (refused) " refused" } }
        p { "The reason of each entry of " (to(&events, "the audit trail")) " ends with " code { (batch) } "." }
        table {
            caption.unseen { "Results by resource" }
            (head(&["Resource", "Result"]))
            tbody {
                @for one in refusals.iter().chain(&done).take(LISTED) {
                    tr {
                        (cell("Resource", &part::machine(&one.item, &one.id)))
                        (cell("Result", &html! { @if one.refused.is_empty() { "done" } @else { b { "refused: " } (others(&one.refused)) } }))
                    }
                }
            }
        }
        (unlisted(list.len()))
        p { (to(&Screen::Resources(ResourceFilter::default()), "Resources")) }
    }
}
