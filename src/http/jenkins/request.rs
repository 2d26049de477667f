//! The body of an acquire as a request for leases.

use super::answer::Refused;
use super::lock::MOST;
use crate::pb;
use crate::random::random;
use axum::http::StatusCode;
use serde::Deserialize;
use std::collections::HashMap;

/// The tag of a lease with the variable that the step names.
pub(super) const VARIABLE: &str = "jenkins.variable";
/// The tag of a lease with the reason that the step gives.
const REASON: &str = "jenkins.reason";
/// The plugin's default time between two heartbeats, in seconds.
const INTERVAL: i64 = 10;
/// Maximum time between two heartbeats, in seconds.
const MAX_INTERVAL: i64 = 3_600;
/// Number of missed heartbeats after which a lease ends.
const MISSED: i64 = 6;
/// Minimum TTL, in seconds: a controller takes a while to start.
const MIN_TTL: i64 = 60;
/// Maximum length of a name of a variable, in bytes.
const MAX_VARIABLE: usize = 128;

/// The request of an acquire.
#[derive(Debug)]
pub(super) struct Asked {
    /// The request.
    pub(super) message: pb::LeaseRequest,
    /// Whether the step is skipped where nothing is free.
    pub(super) skip: bool,
    /// Whether the main target is a resource by its name.
    pub(super) by_name: bool,
}

/// The body. Later versions of the plugin may send more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Acquire {
    lock_request: Option<LockRequest>,
    client_id: Option<String>,
    heartbeat_interval_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LockRequest {
    resource: Option<String>,
    label: Option<String>,
    #[serde(default)]
    quantity: i32,
    variable: Option<String>,
    #[serde(default)]
    skip_if_locked: bool,
    #[serde(default)]
    extra: Vec<Target>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    timeout_for_allocate_resource: i64,
    timeout_unit: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    resource: Option<String>,
    label: Option<String>,
    #[serde(default)]
    quantity: i32,
}

fn refused(code: &'static str, message: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, code, message)
}

/// A text that is there, without the blanks around it.
fn given(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Reads the body.
///
/// # Errors
/// [`Refused`]: it asks for what cannot be leased, or for nothing.
pub(super) fn read(body: &[u8]) -> Result<Asked, Refused> {
    let body: Acquire = serde_json::from_slice(body)
        .map_err(|error| refused("INVALID_JSON", format!("the body is no request of the plugin: {error}")))?;
    let asked = body.lock_request.ok_or_else(|| refused("MISSING_LOCK_REQUEST", "the body has no `lockRequest`"))?;
    let ttl = match body.heartbeat_interval_seconds {
        None => INTERVAL,
        Some(seconds @ 1..=MAX_INTERVAL) => seconds,
        Some(other) => {
            let message = format!("`heartbeatIntervalSeconds` is {other}, and has to be from 1 to {MAX_INTERVAL}");
            return Err(refused("INVALID_HEARTBEAT_INTERVAL", message));
        }
    };
    let (resource, label) = (given(asked.resource), given(asked.label));
    let by_name = resource.is_some();
    let mut claims = Vec::new();
    if resource.is_some() || label.is_some() {
        claims.push(claim("lockRequest", resource, label, asked.quantity)?);
    }
    for (at, extra) in asked.extra.into_iter().enumerate() {
        let (resource, label) = (given(extra.resource), given(extra.label));
        if resource.is_none() && label.is_none() {
            let message = format!("extra[{at}] has neither `resource` nor `label`");
            return Err(refused("INVALID_EXTRA", message));
        }
        claims.push(claim(&format!("extra[{at}]"), resource, label, extra.quantity)?);
    }
    if claims.is_empty() {
        return Err(refused("MISSING_TARGET", "`lockRequest` has neither `resource` nor `label` nor `extra`"));
    }
    let count: i64 = claims.iter().map(|claim| i64::from(claim.count)).sum();
    if count > MOST as i64 {
        return Err(refused("TOO_MANY", format!("one lock has at most {MOST} leases, and this asks for {count}")));
    }
    let mut tags = HashMap::new();
    if let Some(variable) = given(asked.variable) {
        if !is_variable(&variable) {
            let message = format!("`variable` is no name of a variable: {variable:?}");
            return Err(refused("INVALID_VARIABLE", message));
        }
        tags.insert(VARIABLE.to_owned(), variable);
    }
    if let Some(reason) = given(asked.reason) {
        tags.insert(REASON.to_owned(), reason);
    }
    let message = pb::LeaseRequest {
        request_id: format!("jenkins-{:016x}{:016x}", random(), random()),
        holder: given(body.client_id).unwrap_or_else(|| "Jenkins".to_owned()),
        claims,
        priority: asked.priority,
        ttl: Some(seconds((ttl * MISSED).max(MIN_TTL))),
        queue_for: patience(asked.timeout_for_allocate_resource, asked.timeout_unit.as_deref())?,
        no_queue: asked.skip_if_locked,
        tags,
        ..pb::LeaseRequest::default()
    };
    Ok(Asked { message, skip: asked.skip_if_locked, by_name })
}

/// The claim of one target. A resource is a pool by its name, and one lease of it.
fn claim(place: &str, resource: Option<String>, label: Option<String>, quantity: i32) -> Result<pb::Claim, Refused> {
    let (selector, count) = match (resource, label) {
        (Some(pool), None) => (pb::Selector { pool, ..pb::Selector::default() }, 1),
        (None, Some(label)) if quantity >= 1 => (selector(&label)?, quantity),
        (None, Some(_)) => {
            let message = format!(
                "{place} has no `quantity`, which is all resources of the label; say how many: lock(label: …, quantity: 1)"
            );
            return Err(refused("MISSING_QUANTITY", message));
        }
        (_, _) => {
            return Err(refused(
                "INVALID_TARGET",
                format!("{place} has `resource` and `label`: leave one of them out"),
            ));
        }
    };
    Ok(pb::Claim { selector: Some(selector), count, params: HashMap::new() })
}

/// The selector of a label: the name of a pool, labels as `key=value`, or both, with `&&` between.
fn selector(label: &str) -> Result<pb::Selector, Refused> {
    let bad = |part: &str, why: &str| {
        let message =
            format!("{why} in the label: {part:?}; write the name of a pool, key=value, or both with && between");
        refused("UNSUPPORTED_LABEL", message)
    };
    let mut found = pb::Selector::default();
    for part in label.split("&&").map(str::trim) {
        let word =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b));
        match part.split_once('=') {
            Some((key, value)) if word(key.trim()) && word(value.trim()) => {
                if found.labels.insert(key.trim().to_owned(), value.trim().to_owned()).is_some() {
                    return Err(bad(part, "there is a key twice"));
                }
            }
            None if word(part) && found.pool.is_empty() => part.clone_into(&mut found.pool),
            None if word(part) => return Err(bad(part, "there are two pools")),
            _ => return Err(bad(part, "there is an expression that cannot be leased")),
        }
    }
    Ok(found)
}

/// The time in the queue.
fn patience(time: i64, unit: Option<&str>) -> Result<Option<prost_types::Duration>, Refused> {
    let factor = match unit.map(str::to_ascii_uppercase).as_deref() {
        Some("SECONDS") => 1,
        None | Some("MINUTES" | "") => 60,
        Some("HOURS") => 3_600,
        Some("DAYS") => 86_400,
        Some(_) => {
            return Err(refused("INVALID_TIMEOUT", "`timeoutUnit` is none of SECONDS, MINUTES, HOURS, DAYS"));
        }
    };
    match time.checked_mul(factor) {
        Some(0) => Ok(None),
        Some(time) if time > 0 => Ok(Some(seconds(time))),
        _ => Err(refused("INVALID_TIMEOUT", format!("`timeoutForAllocateResource` is {time}"))),
    }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn is_variable(name: &str) -> bool {
    let first = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
    name.len() <= MAX_VARIABLE
        && name.as_bytes().first().is_some_and(first)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
