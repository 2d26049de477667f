//! The state of a lock by its leases, and refusals, as JSON.

use super::lock::Lock;
use super::request::VARIABLE;
use crate::pb;
use crate::rpc::{InsideError, RefusalKind};
use axum::http::header;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// A refusal, as the plugin reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// Stable code, as of the plugin where it has one.
    pub(super) code: String,
    /// The fault and the remedy.
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }
}

impl From<InsideError> for Refused {
    fn from(error: InsideError) -> Self {
        let status = match error.kind {
            RefusalKind::Unknown => StatusCode::UNAUTHORIZED,
            RefusalKind::NotAllowed => StatusCode::FORBIDDEN,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Request => StatusCode::BAD_REQUEST,
            RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.reason, error.message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json(&json!({ "errorCode": self.code, "message": self.message }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let asks = header::HeaderValue::from_static("Basic realm=\"wharfinger\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, asks);
        }
        response
    }
}

/// A document with its media type.
pub(super) fn json(document: &Value) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/json;charset=UTF-8")], document.to_string())
}

/// The state of a lock. A lease that is over decides; else one that waits.
pub(super) fn state(lock: &Lock, leases: &[pb::Lease]) -> Value {
    let lock_id = lock.to_string();
    if *lock == Lock::Skipped {
        return json!({ "lockId": lock_id, "state": "SKIPPED" });
    }
    // Of a group that failed, the lease that is at fault, and not one that fell with it.
    let over = || leases.iter().filter(|lease| lease.ended_at.is_some());
    let fell = |lease: &&pb::Lease| lease.fail_reason() == pb::FailReason::Group;
    if let Some(lease) = over().find(|lease| !fell(lease)).or_else(|| over().next()) {
        let (state, code, message) = end(lease);
        return json!({ "lockId": lock_id, "state": state, "errorCode": code, "message": message });
    }
    if leases.iter().any(|lease| lease.active_at.is_none()) {
        let trouble = leases.iter().map(|lease| lease.trouble.as_str()).find(|trouble| !trouble.is_empty());
        return json!({ "lockId": lock_id, "state": "QUEUED", "message": trouble.unwrap_or_default() });
    }
    json!({ "lockId": lock_id, "state": "ACQUIRED", "lockEnvVars": variables(leases) })
}

/// How a lease ended: the state, the code and the words.
fn end(lease: &pb::Lease) -> (&'static str, String, String) {
    match lease.state() {
        pb::LeaseState::Failed if lease.fail_reason() == pb::FailReason::WaitDeadline => {
            ("FAILED", "LOCK_WAIT_TIMEOUT".to_owned(), lease.fail_detail.clone())
        }
        pb::LeaseState::Failed => ("FAILED", lease.fail_code.clone(), lease.fail_detail.clone()),
        pb::LeaseState::Broken => {
            let (near, root) = (lease.causes.first(), lease.causes.last());
            let code = near.map(|cause| cause.reason.clone()).unwrap_or_default();
            let message = root.map(|cause| format!("{}: {}", cause.reason, cause.detail)).unwrap_or_default();
            ("FAILED", code, message)
        }
        pb::LeaseState::Expired => {
            ("EXPIRED", "LOCK_EXPIRED".to_owned(), "no heartbeat came for the whole TTL".to_owned())
        }
        pb::LeaseState::Released | pb::LeaseState::Cancelled => {
            ("CANCELLED", "LOCK_RELEASED".to_owned(), "it was released".to_owned())
        }
        _ => ("FAILED", "LOCK_NOT_FOUND".to_owned(), "it has ended".to_owned()),
    }
}

/// The variables of the step's body.
fn variables(leases: &[pb::Lease]) -> Map<String, Value> {
    let mut found = Map::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            found.insert(name.to_owned(), Value::from(value));
        }
    };
    let all = |each: fn(&pb::Lease) -> &str| leases.iter().map(each).collect::<Vec<_>>().join(",");
    let Some(first) = leases.first() else { return Map::new() };
    if let Some(variable) = first.tags.get(VARIABLE) {
        put(variable, &all(|lease| &lease.resource_id));
        for (at, lease) in leases.iter().enumerate() {
            put(&format!("{variable}{at}"), &lease.resource_id);
        }
    }
    put("WHARFINGER_LEASE", &first.id);
    put("WHARFINGER_TOKEN", &first.fencing_token.to_string());
    put("WHARFINGER_RESOURCE", &first.resource_id);
    put("WHARFINGER_POOL", &first.pool);
    if leases.len() > 1 {
        put("WHARFINGER_LEASES", &all(|lease| &lease.id));
    }
    if let Some(access) = &first.access {
        put("WHARFINGER_PATH", &access.path);
        put("WHARFINGER_COMMIT", &access.commit);
        match &access.via {
            Some(pb::access::Via::Ssh(ssh)) => put("WHARFINGER_ADDRESS", &ssh.address),
            Some(pb::access::Via::Local(local)) => put("WHARFINGER_ADDRESS", &local.address),
            None => {}
        }
    }
    found
}
