//! The results of adapters' calls, as inputs of the core.

use crate::engine::effects::unreachable;
use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger_adapter as adapter;
use wharfinger_adapter::{Failure, Prepared, Provisioned, WallTime};
use wharfinger_core::{
    Blame, CallFailure, Effect, Input, Lease, Made, Millis, Notice, NoticeTarget, Reading, Texts, Timestamp, Verdict,
    Work,
};

pub(crate) fn texts(texts: &Texts) -> BTreeMap<String, String> {
    texts.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn core_texts(texts: BTreeMap<String, String>) -> Texts {
    texts.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))).collect()
}

/// An adapter's access in the form that the core stores, always without credentials.
fn core_access(effect: &Effect, mut access: adapter::Access) -> Texts {
    for key in adapter::access::CREDENTIALS {
        if access.remove(key).is_some() {
            tracing::error!(pool = %effect.resource.pool, key, "an adapter answered with credentials; they are dropped");
        }
    }
    core_texts(access)
}

fn failure(failure: Failure) -> CallFailure {
    CallFailure {
        blame: failure.blame,
        reason: Arc::from(failure.reason),
        message: Arc::from(failure.message),
        retry_after: failure.retry_after.map(|span| Millis(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))),
    }
}

pub(crate) fn provisioned(effect: &Effect, result: Result<Provisioned, Failure>) -> Input {
    let result = result.map_err(failure).map(|made| Made {
        handle: (!made.handle.is_empty()).then(|| Arc::from(made.handle)),
        access: core_access(effect, made.access),
        labels: core_texts(made.labels),
    });
    Input::Provisioned { resource: effect.resource.id, op: effect.op, result }
}

pub(crate) fn prepared(effect: &Effect, lease: &Lease, result: Result<Prepared, Failure>) -> Input {
    let result = result.map_err(failure).map(|made| wharfinger_core::Prepared {
        access: core_access(effect, made.access),
        near: core_texts(made.near),
    });
    Input::Prepared { lease: lease.id, op: effect.op, result }
}

pub(crate) fn cleaned(effect: &Effect, lease: &Lease, result: Result<(), Failure>) -> Input {
    Input::Cleaned { lease: lease.id, op: effect.op, result: result.map_err(failure) }
}

pub(crate) fn checked(effect: &Effect, result: Result<Verdict, Failure>) -> Input {
    Input::Checked { resource: effect.resource.id, op: effect.op, result: result.map_err(failure) }
}

pub(crate) fn probed(effect: &Effect, result: Result<Verdict, Failure>) -> Input {
    Input::Probed { resource: effect.resource.id, result: result.map_err(failure) }
}

pub(crate) fn repaired(effect: &Effect, result: Result<(), Failure>) -> Input {
    Input::Repaired { resource: effect.resource.id, op: effect.op, result: result.map_err(failure) }
}

pub(crate) fn destroyed(effect: &Effect, result: Result<(), Failure>) -> Input {
    Input::Destroyed { resource: effect.resource.id, op: effect.op, result: result.map_err(failure) }
}

/// The result of a call that was not made.
pub(crate) fn not_called(effect: &Effect, reason: Failure) -> Input {
    match &effect.work {
        // The host does not answer, which is a verdict about the host.
        Work::Check if reason.blame == Blame::Resource => checked(effect, Ok(unreachable(&reason))),
        Work::Probe if reason.blame == Blame::Resource => probed(effect, Ok(unreachable(&reason))),
        Work::Provision(_) => provisioned(effect, Err(reason)),
        Work::Prepare(lease) => prepared(effect, lease, Err(reason)),
        Work::Clean(lease) => cleaned(effect, lease, Err(reason)),
        Work::Check => checked(effect, Err(reason)),
        Work::Probe => probed(effect, Err(reason)),
        Work::Repair => repaired(effect, Err(reason)),
        Work::Destroy => destroyed(effect, Err(reason)),
    }
}

/// The result of a call that reached its time limit.
pub(crate) fn timed_out(effect: &Effect) -> Input {
    let message = format!("gave up after {}", effect.timeout);
    match &effect.work {
        // A walk over a long history may take longer. The host's own probes check the host.
        Work::Check if effect.host.is_some() => checked(effect, Err(Failure::resource("TIMEOUT", message))),
        Work::Check
        | Work::Probe
        | Work::Provision(_)
        | Work::Prepare(_)
        | Work::Clean(_)
        | Work::Repair
        | Work::Destroy => not_called(effect, Failure::resource("TIMEOUT", message)),
    }
}

/// The result of a call that was ended on purpose.
pub(crate) fn cancelled(effect: &Effect) -> Input {
    not_called(effect, Failure::resource("CANCELLED", "the call was ended for another on the same resource"))
}

/// The result of a call that panicked.
pub(crate) fn panicked(effect: &Effect, why: &str) -> Input {
    tracing::error!(resource = %effect.resource.id, pool = %effect.resource.pool, why, "an adapter panicked");
    not_called(effect, Failure::bug("ADAPTER_PANICKED", format!("the adapter panicked: {why}; please report it")))
}

/// The result in a word: `ok`, or who must act on the failure.
pub(crate) fn word(input: &Input) -> &'static str {
    let failed = match input {
        Input::Provisioned { result, .. } => result.as_ref().err(),
        Input::Prepared { result, .. } => result.as_ref().err(),
        Input::Cleaned { result, .. } | Input::Repaired { result, .. } | Input::Destroyed { result, .. } => {
            result.as_ref().err()
        }
        Input::Checked { result, .. } | Input::Probed { result, .. } => result.as_ref().err(),
        _ => None,
    };
    failed.map_or("ok", |failure| failure.blame.as_str())
}

/// A notice as an input; `None` if its resource id is not valid. Announced ends are wall times: `reading` translates them
/// into the core's time.
pub(crate) fn notice(notice: adapter::Notice, reading: Reading) -> Option<Input> {
    let target = match notice.target {
        adapter::NoticeTarget::Resource(id) => NoticeTarget::Resource(id.parse().ok()?),
        adapter::NoticeTarget::Item(item) => NoticeTarget::Item(Arc::from(item)),
    };
    Some(Input::Notice(Notice {
        pool: Arc::from(notice.pool),
        target,
        kind: notice.kind.map_time(|WallTime(unix_ms)| reading.from_wall(Timestamp(unix_ms))),
        source: Arc::from(notice.source),
        detail: Arc::from(notice.detail),
    }))
}
