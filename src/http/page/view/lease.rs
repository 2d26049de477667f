//! One lease: why it waits, or the chain of its causes and what came in its stead.

use super::{cell, fact, head, pairs};
use crate::http::page::part::{
    self, causes, clipped, instant, lease_state, likely_start, others, selector, span, time, to, visible, word_of,
};
use crate::http::page::screen::{EventFilter, Screen};
use crate::overview::seconds;
use crate::pb;
use maud::{Markup, html};
use pb::LeaseState as State;

/// One lease with its story.
pub(crate) struct OneLease {
    pub(crate) said: pb::ExplainResponse,
    /// `None`: the caller's roles do not let it read the story.
    pub(crate) story: Option<pb::TimelineResponse>,
    /// The leases before it, of which each came in the stead of the one before, the oldest first.
    pub(crate) before: Vec<pb::Lease>,
    /// Those after it, the next one first.
    pub(crate) after: Vec<pb::Lease>,
    /// The verbs that the caller may use.
    pub(crate) actions: Markup,
}

/// The screen.
pub(crate) fn lease(shown: &OneLease) -> Markup {
    let said = &shown.said;
    let lease = said.lease.clone().unwrap_or_default();
    html! {
        h1 { "Lease of " bdi { (clipped(&lease.holder)) } }
        p.lead {
            (lease_state(lease.state())) " " (visible(&lease.id))
            @if !lease.pool.is_empty() { " in pool " (part::pool(&lease.pool)) }
            @if !lease.resource_id.is_empty() { " on " (part::resource(&lease.resource_id)) " slot " (lease.slot) }
        }
        p { (others(&said.summary)) }
        @if let Some(doubt) = &lease.doubt { p.strip { "▲ Its resource is in doubt: " (others(&doubt.detail)) } }
        (shown.actions)
        @if lease.state() == State::Queued { (waits(said, &lease)) }
        @if !lease.causes.is_empty() {
            section aria-labelledby="because" { h2 #because { "Because" } (causes(&lease.causes)) }
        }
        @if !lease.fail_code.is_empty() || !lease.fail_detail.is_empty() {
            section aria-labelledby="failed" { h2 #failed { "It failed" }
                p { b { (word_of(lease.fail_reason().as_str_name(), "FAIL_REASON_")) " " (visible(&lease.fail_code)) } " " (others(&lease.fail_detail)) } }
        }
        (chain(shown, &lease))
        section aria-labelledby="times" { h2 #times { "Times" } (times(&lease)) }
        section aria-labelledby="facts" { h2 #facts { "Facts" } (facts(&lease)) }
        section aria-labelledby="story" {
            h2 #story { "Story" }
            @match &shown.story {
                None => p.none { "Your roles do not let you read the story." },
                Some(story) => {
                    (super::resource::table(story))
                    @if story.truncated { p { (to(&Screen::Events(EventFilter { lease: lease.id.clone(), ..EventFilter::default() }), "all events")) } }
                },
            }
        }
        p { "In a shell: " code { "wharfinger why " (visible(&lease.id)) } }
    }
}

fn waits(said: &pb::ExplainResponse, lease: &pb::Lease) -> Markup {
    html! {
        section aria-labelledby="waits" {
            h2 #waits { "Why it waits" }
            p {
                @if !said.satisfiable { b { "The configuration can never meet it. " } }
                "Number " (said.position) " among those that want " bdi { (clipped(&selector(lease.selector.as_ref()))) } "."
                " Likely start: " (likely_start(said.likely_start.as_ref(), &said.no_likely_start, seconds()))
                @if let Some(start) = &said.likely_start { ", from " (others(&start.basis)) } "."
                @if lease.wait_until.is_some() { " It fails at " (time(lease.wait_until.as_ref())) "." }
            }
            @if said.blockers.is_empty() { p.none { "Nothing blocks it: it is next." } }
            @else {
                table {
                    caption.unseen { "What keeps it waiting" }
                    (head(&["Pool", "Code", "What is the case", "What to do"]))
                    tbody {
                        @for blocker in &said.blockers {
                            tr {
                                (cell("Pool", &html! { @if blocker.pool == "*" { "any" } @else { (part::pool(&blocker.pool)) } }))
                                (cell("Code", &html! { b { (visible(&blocker.code)) } }))
                                (cell("What is the case", &others(&blocker.detail)))
                                (cell("What to do", &others(&blocker.remedy)))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn chain(shown: &OneLease, own: &pb::Lease) -> Markup {
    let one = |lease: &pb::Lease| {
        html! { li { (lease_state(lease.state())) " " (part::lease(&lease.id))
        @if !lease.resource_id.is_empty() { " on " (part::resource(&lease.resource_id)) }
        ", asked " (time(lease.created_at.as_ref())) } }
    };
    html! {
        @if !shown.before.is_empty() || !shown.after.is_empty() {
            section aria-labelledby="chain" {
                h2 #chain { "In its stead" }
                ol.chain {
                    @for lease in &shown.before { (one(lease)) }
                    li aria-current="true" { b { (lease_state(own.state())) " this lease" } }
                    @for lease in &shown.after { (one(lease)) }
                }
            }
        }
    }
}

fn times(lease: &pb::Lease) -> Markup {
    let between = |from: Option<&prost_types::Timestamp>, to: Option<&prost_types::Timestamp>| {
        let (from, to) = (instant(from)?, instant(to)?);
        Some(span(to.as_second() - from.as_second()))
    };
    let waited = between(lease.created_at.as_ref(), lease.active_at.as_ref());
    let lived = between(lease.created_at.as_ref(), lease.ended_at.as_ref());
    html! {
        dl.facts {
            (fact("Asked", &time(lease.created_at.as_ref())))
            @if lease.active_at.is_some() { (fact("Active", &html! { (time(lease.active_at.as_ref())) @if let Some(waited) = waited { " after " (waited) } })) }
            @if lease.ended_at.is_some() { (fact("Ended", &html! { (time(lease.ended_at.as_ref())) @if let Some(lived) = lived { ", " (lived) " after it was asked for" } })) }
            @else if lease.expires_at.is_some() { (fact("Expires without a renewal", &time(lease.expires_at.as_ref()))) }
            @else if !lease.session_id.is_empty() { (fact("Kept by", &html! { "the session " (lease.session_id) })) }
            @if lease.holder_doubt_since.is_some() { (fact("Holder in doubt", &html! { "its stream is over since " (time(lease.holder_doubt_since.as_ref())) })) }
            @if lease.ends_at.is_some() { (fact("Announced end", &time(lease.ends_at.as_ref()))) }
            @if lease.expires_at_most.is_some() { (fact("No renewal goes beyond", &time(lease.expires_at_most.as_ref()))) }
        }
    }
}

fn facts(lease: &pb::Lease) -> Markup {
    html! {
        dl.facts {
            (fact("Holder", &html! {
                (others(&lease.holder))
                @if is_web(&lease.holder) { " " a href=(lease.holder) rel="noopener noreferrer" target="_blank" { "open" } }
                " · " (to(&Screen::holder(&lease.holder), "all its leases"))
            }))
            (fact("Principal", &html! { bdi { (clipped(&lease.principal)) } }))
            @if !lease.work.is_empty() { (fact("Work", &html! { (others(&lease.work)) " · " (to(&Screen::work(&lease.work), "where it failed, where it passed")) })) }
            (fact("Wants", &html! { bdi { (clipped(&selector(lease.selector.as_ref()))) } }))
            (fact("Priority", &html! { (lease.priority) }))
            @if lease.attempts > 0 { (fact("Back to the queue", &html! { (lease.attempts) " times" })) }
            @if !lease.trouble.is_empty() { (fact("Last failure", &others(&lease.trouble))) }
            @if let Some(finding) = &lease.finding {
                (fact("Whose fault", &html! { b { (word_of(finding.fault().as_str_name(), "FAULT_")) } " " (others(&finding.detail)) }))
            }
            @if lease.state() == State::Released { (fact("Outcome", &html! { (word_of(lease.outcome().as_str_name(), "OUTCOME_")) " " (others(&lease.note)) })) }
            @if !lease.child_resource_id.is_empty() { (fact("Held by", &html! { "the copy " (part::resource(&lease.child_resource_id)) })) }
            @if !lease.group_id.is_empty() { (fact("Group", &html! { (visible(&lease.group_id)) ", number " (lease.group_index + 1) })) }
            @if !lease.params.is_empty() { (fact("Parameters", &pairs(&lease.params))) }
            @if !lease.tags.is_empty() { (fact("Tags", &pairs(&lease.tags))) }
            (fact("Request", &html! { bdi { (clipped(&lease.request_id)) } }))
        }
    }
}

/// Whether a text of others may be a link: an address of the web, in visible ASCII.
fn is_web(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = text.len() <= 2_000 && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&b));
    plain && rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_the_web_is_a_link() {
        for (text, is) in [
            ("https://ci.example.org/job/1?x=2#y", true),
            ("http://[::1]/", true),
            ("javascript:alert(1)", false),
            ("https://\"><script>", false),
            ("https:///x", false),
            (" https://x", false),
            ("https://x y", false),
            ("https://ex\u{202e}ample", false),
            ("nightly", false),
        ] {
            assert_eq!(is_web(text), is, "{text}");
        }
    }
}
