//! How things are written for people: states, times, causes.

use crate::duration;
use crate::hidden::is_hidden;
use crate::pb;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::Duration;

/// `ACTIVE`, without the prefix that protobuf wants.
pub(crate) fn lease_state(lease: &pb::Lease) -> &'static str {
    state_of_lease(lease.state())
}

/// The word for people: `ACTIVE`.
pub(crate) fn state_of_lease(state: pb::LeaseState) -> &'static str {
    bare(state.as_str_name(), "LEASE_STATE_")
}

/// The word for people: `READY`.
pub(crate) fn resource_state(resource: &pb::Resource) -> &'static str {
    state_name(resource.state())
}

/// The word for people: `READY`.
pub(crate) fn state_name(state: pb::ResourceState) -> &'static str {
    bare(state.as_str_name(), "RESOURCE_STATE_")
}

/// The word for people: `spot`.
pub(crate) fn market(market: pb::Market) -> &'static str {
    match market {
        pb::Market::Unspecified => "unknown",
        pb::Market::Spot => "spot",
        pb::Market::OnDemand => "on_demand",
    }
}

/// The word for people: `FAILED`.
pub(crate) fn outcome(outcome: pb::Outcome) -> &'static str {
    bare(outcome.as_str_name(), "OUTCOME_")
}

/// The word for people: `REQUEST`.
pub(crate) fn fail_reason(reason: pb::FailReason) -> &'static str {
    bare(reason.as_str_name(), "FAIL_REASON_")
}

/// The word for people: `WORK`.
pub(crate) fn fault(fault: pb::finding::Fault) -> &'static str {
    bare(fault.as_str_name(), "FAULT_")
}

/// The word for people: `RESOURCE`.
pub(crate) fn role(role: pb::TimelineRole) -> &'static str {
    bare(role.as_str_name(), "TIMELINE_ROLE_")
}

/// The fault of a failure: `WORK: it failed on 3 machines whose checks pass`.
pub(crate) fn finding(finding: &pb::Finding) -> String {
    with_detail(fault(finding.fault()), &finding.detail)
}

/// Why credentials are missing: `HOLDER_KEY_UNUSABLE: this server cannot read …`.
pub(crate) fn missing(missing: &pb::MissingCredentials) -> String {
    with_detail(&missing.reason, &missing.detail)
}

fn bare(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// The machine that is reached in this way: `linux/builder-3`; `-` if there is none by name.
pub(crate) fn machine(access: Option<&pb::Access>) -> String {
    access.and_then(|access| access.more.get("machine")).map_or_else(|| "-".into(), |name| one_line(name))
}

/// Whether nothing more can come of it.
pub(crate) fn ended(lease: &pb::Lease) -> bool {
    lease.is_over()
}

/// A selector: `pool hosts, os=linux`.
pub(crate) fn selector(selector: Option<&pb::Selector>) -> String {
    let Some(selector) = selector else { return "anything".into() };
    let mut parts = Vec::new();
    if !selector.pool.is_empty() {
        parts.push(format!("pool {}", selector.pool));
    }
    let mut labels: Vec<String> = selector.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort_unstable();
    parts.extend(labels);
    if parts.is_empty() { "anything".into() } else { parts.join(", ") }
}

/// Sorted `key=value` pairs.
pub(crate) fn pairs<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let mut pairs: Vec<String> = map.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort_unstable();
    pairs.join(" ")
}

/// A moment, if it is one.
pub(crate) fn timestamp(at: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok()
}

/// The wall clock.
fn now() -> Timestamp {
    Timestamp::try_from(crate::clock::wall()).unwrap_or_default()
}

/// RFC 3339, to the millisecond.
pub(crate) fn rfc3339(at: &prost_types::Timestamp) -> Option<String> {
    timestamp(at).map(|at| format!("{at:.3}"))
}

/// The time of day here, with the date if it is another day.
pub(crate) fn clock(at: Option<&prost_types::Timestamp>) -> String {
    let Some(at) = at.and_then(timestamp) else { return "-".into() };
    let zone = TimeZone::system();
    let (then, today) = (zone.to_datetime(at), zone.to_datetime(now()));
    let format = if then.date() == today.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    then.strftime(format).to_string()
}

/// The time of day now and here, to the millisecond.
pub(crate) fn clock_now() -> String {
    TimeZone::system().to_datetime(now()).strftime("%H:%M:%S%.3f").to_string()
}

/// How long ago: `12s`, `3m`, `4h`, `5d`.
pub(crate) fn ago(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(timestamp).map_or_else(|| "-".into(), |at| short(now().duration_since(at).as_secs()))
}

/// How long until: `12s`; `now` if it is past.
pub(crate) fn until(at: Option<&prost_types::Timestamp>) -> String {
    let Some(at) = at.and_then(timestamp) else { return "-".into() };
    let left = at.duration_since(now()).as_secs();
    if left <= 0 { "now".into() } else { short(left) }
}

fn short(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// A span of time: `1m30s`.
pub(crate) fn span_text(span: Duration) -> String {
    duration::format(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}

/// `1m30s` of a protobuf duration; `-` if there is none.
pub(crate) fn span(span: Option<&prost_types::Duration>) -> String {
    span.and_then(|span| Duration::try_from(*span).ok()).map_or_else(|| "-".into(), span_text)
}

/// One link: `RESOURCE_MANGLED: .git is not there (res_…, said by check, 12:00:01)`.
pub(crate) fn cause(cause: &pb::Cause) -> String {
    let (subject, source) = (&cause.subject, &cause.source);
    format!("{} ({subject}, said by {source}, {})", cause_short(cause), clock(cause.at.as_ref()))
}

/// One link without who and when: `RESOURCE_MANGLED: .git is not there`.
pub(crate) fn cause_short(cause: &pb::Cause) -> String {
    with_detail(&cause.reason, &cause.detail)
}

fn with_detail(what: &str, detail: &str) -> String {
    if detail.is_empty() { what.to_string() } else { format!("{what}: {}", one_line(detail)) }
}

/// A cause chain, a line each, from the nearest to the root.
pub(crate) fn causes(causes: &[pb::Cause]) -> Vec<String> {
    causes
        .iter()
        .enumerate()
        .map(|(at, link)| if at == 0 { cause(link) } else { format!("because of {}", cause(link)) })
        .collect()
}

/// Why a lease is where it is, in a few words; empty if there is nothing to say.
pub(crate) fn why(lease: &pb::Lease) -> String {
    match lease.state() {
        pb::LeaseState::Broken => match (lease.causes.first(), lease.causes.last()) {
            (Some(near), Some(root)) if lease.causes.len() > 1 => {
                format!("{}, because of {}", near.reason, cause_short(root))
            }
            (Some(only), _) => cause_short(only),
            (None, _) => String::new(),
        },
        pb::LeaseState::Failed if lease.fail_code.is_empty() => {
            with_detail(fail_reason(lease.fail_reason()), &lease.fail_detail)
        }
        pb::LeaseState::Failed => with_detail(&lease.fail_code, &lease.fail_detail),
        pb::LeaseState::Released => with_detail(outcome(lease.outcome()), &lease.note),
        pb::LeaseState::Active if lease.doubt.is_some() => format!("in doubt: {}", one_line(lease.doubt_detail())),
        pb::LeaseState::Active if lease.ends_at.is_some() => format!("ends in {}", until(lease.ends_at.as_ref())),
        pb::LeaseState::Queued | pb::LeaseState::Preparing => one_line(&lease.trouble),
        pb::LeaseState::Unspecified | pb::LeaseState::Active | pb::LeaseState::Expired | pb::LeaseState::Cancelled => {
            String::new()
        }
    }
}

/// Foreign text for a terminal: on one line, and without characters that a terminal obeys or hides.
pub(crate) fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c == '\n' || c == '\t' { ' ' } else { c }).filter(|c| !is_hidden(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\r\t d "), "a[2Jb c  d");
        assert_eq!(one_line("gpj\u{202e}exe\u{200b}.sh"), "gpjexe.sh", "no text turns the rest of its line");
    }

    #[test]
    fn a_chain_reads_from_the_nearest_to_the_root() {
        let link = |reason: &str, detail: &str| pb::Cause {
            subject: "res_1".into(),
            reason: reason.into(),
            detail: detail.into(),
            source: "check".into(),
            at: None,
        };
        let lease = pb::Lease {
            state: pb::LeaseState::Broken.into(),
            causes: vec![link("PARENT_GONE", "the host is gone"), link("RESOURCE_GONE", "rebooted")],
            ..pb::Lease::default()
        };
        assert_eq!(
            causes(&lease.causes),
            [
                "PARENT_GONE: the host is gone (res_1, said by check, -)",
                "because of RESOURCE_GONE: rebooted (res_1, said by check, -)"
            ]
        );
        assert_eq!(why(&lease), "PARENT_GONE, because of RESOURCE_GONE: rebooted");
    }

    #[test]
    fn selectors_are_written_in_one_order() {
        let labels = [("os", "linux"), ("arch", "arm")].map(|(k, v)| (k.to_string(), v.to_string())).into();
        assert_eq!(selector(Some(&pb::Selector { pool: "a".into(), labels })), "pool a, arch=arm, os=linux");
        assert_eq!(selector(None), "anything");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([5, 119, 120, 7200, 172_800].map(short), ["5s", "119s", "2m", "2h", "2d"]);
    }
}
