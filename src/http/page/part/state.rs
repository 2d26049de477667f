//! States as a word, a sign and a colour. The colour is never alone.

use crate::pb;
use maud::{Markup, html};

/// A state's word for people, its sign, and the class of its colour.
fn cell(word: &str, sign: &str, class: &str) -> Markup {
    html! { span.state.(class) { span aria-hidden="true" { (sign) } " " (word) } }
}

/// The word for a state of a resource: `READY`.
pub(crate) fn resource_word(state: pb::ResourceState) -> &'static str {
    word_of(state.as_str_name(), "RESOURCE_STATE_")
}

/// The word for a state of a lease: `ACTIVE`.
pub(crate) fn lease_word(state: pb::LeaseState) -> &'static str {
    word_of(state.as_str_name(), "LEASE_STATE_")
}

/// The name of a value without the prefix of its kind.
pub(crate) fn word_of(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// The state of a resource.
pub(crate) fn resource_state(state: pb::ResourceState) -> Markup {
    use pb::ResourceState as State;
    let (sign, class) = match state {
        State::Ready => ("●", "good"),
        State::Provisioning => ("◐", "busy"),
        State::Suspect => ("▲", "bad"),
        State::Repairing => ("✚", "busy"),
        State::Quarantined => ("⏸", "kept"),
        State::Draining => ("↘", "kept"),
        State::Destroying => ("✕", "busy"),
        State::Orphaned => ("⚑", "bad"),
        State::Gone | State::Unspecified => ("○", "over"),
    };
    cell(resource_word(state), sign, class)
}

/// The state of a lease.
pub(crate) fn lease_state(state: pb::LeaseState) -> Markup {
    use pb::LeaseState as State;
    let (sign, class) = match state {
        State::Queued => ("◌", "kept"),
        State::Preparing => ("◐", "busy"),
        State::Active => ("●", "good"),
        State::Released => ("✓", "over"),
        State::Broken | State::Failed => ("✕", "bad"),
        State::Expired => ("⌛", "bad"),
        State::Cancelled | State::Unspecified => ("○", "over"),
    };
    cell(lease_word(state), sign, class)
}
