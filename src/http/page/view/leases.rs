//! Leases, a page at a time.

use super::{cell, head, more};
use crate::http::page::part::{self, clipped, lease_state, lease_word, others, selector, time, visible, word_of};
use crate::http::page::screen::{LeaseFilter, Screen};
use crate::pb;
use maud::{Markup, html};
use pb::finding::Fault;
use std::collections::BTreeMap;

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
            label { "Work " input name="work" type="search" value=(visible(&filter.work)) maxlength="1024"; }
            button { "Filter" }
        }
        @if !filter.work.is_empty() { (results(&filter.work, &shown.list)) }
        (table(&shown.list))
        (more(&next, "next page"))
        @if !filter.after.is_empty() { p { a href=(Screen::Leases(LeaseFilter { after: String::new(), ..filter.clone() }).url()) { "first page" } } }
        p.none { "Leases that have ended are listed as long as the server keeps them." }
    }
}

/// How often a work failed and passed on one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    /// Broken, expired, abandoned, or not over yet: no sign of the work or of the resource.
    other: usize,
}

/// The tallies of the leases of a work, by resource.
fn tallies(list: &[pb::Lease]) -> BTreeMap<&str, Tally> {
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for lease in list.iter().filter(|lease| !lease.resource_id.is_empty()) {
        let tally = tallies.entry(&lease.resource_id).or_default();
        match (lease.state(), lease.outcome()) {
            (pb::LeaseState::Released, pb::Outcome::Ok) => tally.passed += 1,
            (pb::LeaseState::Released, pb::Outcome::Failed) => tally.failed += 1,
            _ => tally.other += 1,
        }
    }
    tallies
}

/// Where a work failed and where it passed, and the verdicts, of the leases of this page.
fn results(work: &str, list: &[pb::Lease]) -> Markup {
    let tallies = tallies(list);
    let blamed = list.iter().rev().find_map(|lease| {
        let finding = lease.finding.as_ref()?;
        matches!(finding.fault(), Fault::Work | Fault::Resource).then_some((lease, finding))
    });
    html! {
        section aria-labelledby="work" {
            h2 #work { "Work " bdi { (clipped(work)) } }
            @if let Some((lease, finding)) = blamed {
                p { "Whose fault, at last: " b { (word_of(finding.fault().as_str_name(), "FAULT_")) } " " (others(&finding.detail)) " (" (part::lease(&lease.id)) ")" }
            } @else if !list.is_empty() { p { "No check and no comparison has found whose fault its failures are." } }
            @if !tallies.is_empty() {
                table {
                    caption.unseen { "Results of the work by resource" }
                    (head(&["Resource", "Passed", "Failed", "Other ends"]))
                    tbody {
                        @for (resource, tally) in &tallies {
                            tr id=(format!("on-{resource}")) {
                                (cell("Resource", &part::resource(resource)))
                                (cell("Passed", &html! { (tally.passed) }))
                                (cell("Failed", &html! { (tally.failed) }))
                                (cell("Other ends", &html! { (tally.other) }))
                            }
                        }
                    }
                }
            }
        }
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
                            (cell("Holder", &html! { a href=(Screen::holder(&one.holder).url()) { bdi { (clipped(&one.holder)) } } }))
                            (cell("Work", &html! { @if !one.work.is_empty() { a href=(Screen::work(&one.work).url()) { bdi { (clipped(&one.work)) } } } }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_has_a_tally_for_each_resource() {
        let lease = |resource: &str, state: pb::LeaseState, outcome: pb::Outcome| pb::Lease {
            resource_id: resource.into(),
            state: state.into(),
            outcome: outcome.into(),
            ..pb::Lease::default()
        };
        let list = [
            lease("res_a", pb::LeaseState::Released, pb::Outcome::Failed),
            lease("res_a", pb::LeaseState::Released, pb::Outcome::Failed),
            lease("res_a", pb::LeaseState::Broken, pb::Outcome::Unspecified),
            lease("res_b", pb::LeaseState::Released, pb::Outcome::Ok),
            lease("res_b", pb::LeaseState::Active, pb::Outcome::Unspecified),
            lease("", pb::LeaseState::Queued, pb::Outcome::Unspecified),
        ];
        let expected =
            [("res_a", Tally { passed: 0, failed: 2, other: 1 }), ("res_b", Tally { passed: 1, failed: 0, other: 1 })];
        assert_eq!(tallies(&list), expected.into());
    }
}
