//! A verb before it is carried out: what it would break, and the form for it. And the list of verbs for a target.

use super::{cell, head};
use crate::auth::Verb;
use crate::http::page::part::{self, clipped, counted, lease_state, time, to, visible};
use crate::http::page::verb::{Act, Target, word};
use crate::pb;
use maud::{Markup, html};

/// Maximum number of leases of a preview of several targets.
const LISTED: usize = 100;

/// The leases and copies that a verb would end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preview {
    /// The leases of people that the reader may see, also those on copies and those of their groups.
    pub(crate) leases: Vec<pb::Lease>,
    /// Number of further leases.
    pub(crate) unseen: usize,
    /// Number of leases in preparation that go back to their places in the queue.
    pub(crate) put_back: usize,
    /// Number of copies that go with their host.
    pub(crate) copies: usize,
    /// The revision of the state that it shows.
    pub(crate) revision: u64,
    /// The note on the target, if the verb replaces it.
    pub(crate) note: String,
}

impl Preview {
    /// Number of leases that would end.
    pub(crate) fn count(&self) -> usize {
        self.leases.len() + self.unseen
    }

    /// Adds what the verb ends at another target. A lease of both counts once.
    pub(crate) fn add(&mut self, other: Self) {
        self.unseen += other.unseen;
        self.put_back += other.put_back;
        self.copies += other.copies;
        for lease in other.leases {
            if self.leases.iter().any(|known| known.id == lease.id) {
                continue;
            }
            if self.leases.len() < LISTED { self.leases.push(lease) } else { self.unseen += 1 }
        }
    }
}

/// The form of a verb.
pub(crate) struct ActForm<'f> {
    pub(crate) act: &'f Act,
    /// The machine of the target, or its own name.
    pub(crate) name: &'f str,
    pub(crate) preview: &'f Preview,
    /// The text that has to be written before something is destroyed. Empty: none.
    pub(crate) confirm: &'f str,
    /// The revision of the state that the preview shows.
    pub(crate) seen: &'f str,
    /// A number of the form, so that it counts once.
    pub(crate) once: &'f str,
    /// Why the form was refused. Empty: it was not.
    pub(crate) refused: &'f str,
    pub(crate) reason: &'f str,
    pub(crate) time: &'f str,
}

/// The page of a verb.
pub(crate) fn act(form: &ActForm<'_>) -> Markup {
    let (act, preview) = (form.act, form.preview);
    let word = word(act.verb);
    html! {
        h1 { (title(act.verb)) " " @match &act.target { Target::Pool(name) => { "pool " bdi { (clipped(name)) } }, _ => { bdi { (clipped(form.name)) } } } "?" }
        p.lead { (act.meaning()) }
        @if !form.refused.is_empty() { p.strip role="alert" { (form.refused) } }
        @if act.breaks() { (broken(act, preview)) }
        form.act action=(act.url()) method="post" {
            (fields(act, (form.seen, form.once), (form.reason, form.time), form.confirm))
            p {
                button.breaks[act.breaks()] { (title(act.verb)) " now" } " "
                (to(&act.target.screen(), "Go back; do nothing"))
            }
        }
        @if !matches!(act.target, Target::Pool(_)) { p.none { "In a shell: " code { "wharfinger " (word) " " (visible(act.target.name())) } } }
    }
}

/// The fields of a form: hidden ones, those of the verb, the reason, and the text that confirms it.
pub(super) fn fields(act: &Act, (seen, once): (&str, &str), (reason, time): (&str, &str), confirm: &str) -> Markup {
    html! {
        input type="hidden" name="seen" value=(seen);
        input type="hidden" name="once" value=(once);
        @match act.verb {
            Verb::Hold => {
                label for="time" { "For how long" }
                input #time name="time" type="text" required value=(if time.is_empty() { "2h" } else { time }) aria-describedby="time-help";
                span.none #time-help { "As in 30m, 2h, 1d or 7d. It ends by itself." }
            }
            Verb::Drain => {
                label for="time" { "Deadline, from now on" }
                input #time name="time" type="text" value=(time) aria-describedby="time-help";
                span.none #time-help { "As in 30m or 2h. Empty: the leases run to their end." }
            }
            _ => {}
        }
        label for="reason" { @if act.verb == Verb::Note { "Note; an empty one removes it" } @else { "Reason, for the audit trail and for readers" } @if !act.needs_reason() && act.verb != Verb::Note { " (may be empty)" } }
        textarea #reason name="reason" rows="3" maxlength="4096" required[act.needs_reason()] { (reason) }
        @if !confirm.is_empty() {
            label for="confirm" { "Write " code { (visible(confirm)) } " to confirm" }
            input #confirm name="confirm" type="text" required autocomplete="off";
        }
    }
}

/// The leases that a verb would end.
pub(super) fn broken(act: &Act, preview: &Preview) -> Markup {
    let holders: std::collections::BTreeSet<&str> = preview.leases.iter().map(|lease| &*lease.holder).collect();
    html! {
        section aria-labelledby="breaks" {
            h2 #breaks {
                @if act.verb == Verb::Drain { "With a deadline it would break " } @else if act.verb == Verb::Release { "It would end " } @else { "It would break " }
                (counted(preview.count(), "lease", "leases")) " of " (counted(holders.len(), "holder", "holders"))
                @if preview.copies > 0 { "; " (counted(preview.copies, "copy goes", "copies go")) " with it" }
                @if preview.put_back > 0 { "; " (counted(preview.put_back, "lease in preparation goes", "leases in preparation go")) " back to the queue" }
            }
            @if !preview.leases.is_empty() {
                table {
                    caption.unseen { "Leases that would end" }
                    (head(&["Lease", "State", "Holder", "Work", "Since", "Gets another one"]))
                    tbody {
                        @for lease in &preview.leases {
                            tr {
                                (cell("Lease", &part::lease(&lease.id)))
                                (cell("State", &lease_state(lease.state())))
                                (cell("Holder", &html! { bdi { (clipped(&lease.holder)) } }))
                                (cell("Work", &html! { bdi { (clipped(&lease.work)) } }))
                                (cell("Since", &time(lease.active_at.as_ref().or(lease.created_at.as_ref()))))
                                (cell("Gets another one", &html! { @if lease.replaces_id.is_empty() { "if it asked for one" } @else { "it came in the stead of " (part::lease(&lease.replaces_id)) } }))
                            }
                        }
                    }
                }
            }
            @if preview.unseen > 0 { p { "And " (preview.unseen) " more that are not listed." } }
        }
    }
}

/// The verb as the beginning of a sentence.
pub(crate) fn title(verb: Verb) -> String {
    let text = word(verb).replace('-', " ");
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The verbs for a target that the caller may use.
pub(crate) fn verbs(target: &Target, allowed: &dyn Fn(Verb) -> bool) -> Markup {
    let list: Vec<Verb> = target.verbs().iter().copied().filter(|verb| allowed(*verb)).collect();
    html! {
        @if !list.is_empty() {
            ul.verbs aria-label="Verbs" {
                @for verb in list {
                    @let act = Act { verb, target: target.clone() };
                    li { a href=(act.url()) { (title(verb)) @if act.breaks() { "…" } } }
                }
            }
        }
    }
}
