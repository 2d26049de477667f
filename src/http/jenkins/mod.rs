//! The remote lockable resources of Jenkins, on a port of their own: `lock(label: …, serverId: 'wharfinger')` leases here.
//!
//! The paths and the JSON are those of the plugin lockable-resources (its `remote-api-curl.md`, version 1560). This is a client of the
//! services in this process: it can do nothing that the API cannot, and it keeps no state. The id of a lock is made of the ids of its
//! leases, so that a lock survives a restart and is known to each server of a cluster.
//!
//! * `request`: the body of an acquire as a request for leases.
//! * `lock`: the id of a lock.
//! * `answer`: the state of a lock by its leases, and refusals.

mod answer;
mod lock;
mod request;

use crate::pb;
use crate::rpc::{Inside, InsideCaller, InsideError, RefusalKind};
use answer::{Refused, state};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lock::Lock;
use request::Asked;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wharfinger_core::Program;

/// The path below which the plugin calls.
const BASE: &str = "/lockable-resources/remote/v1/";
/// Maximum length of a body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// Maximum length of a token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// Serves the port until `stop` is cancelled.
///
/// # Errors
/// The port fails.
pub async fn serve(listener: TcpListener, inside: Inside, stop: CancellationToken) -> Result<(), std::io::Error> {
    let routes = routes(inside).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The port as a service.
fn routes(inside: Inside) -> Router {
    Router::new().fallback(answer).with_state(inside)
}

/// A call of the plugin, by its path.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Acquire,
    Status(Lock),
    Heartbeat(Lock),
    Release(Lock),
}

impl Call {
    /// `None`: the path has no meaning here.
    fn parse(method: &Method, path: &str) -> Option<Self> {
        let rest = path.strip_prefix(BASE)?;
        let parts: Vec<&str> = rest.strip_suffix('/').unwrap_or(rest).split('/').collect();
        match (method, parts.as_slice()) {
            (&Method::POST, ["acquire"]) => Some(Call::Acquire),
            (&Method::GET, ["acquire", lock]) => Lock::parse(lock).map(Call::Status),
            (&Method::POST, ["lease", lock, "heartbeat"]) => Lock::parse(lock).map(Call::Heartbeat),
            (&Method::POST, ["lease", lock, "release"]) => Lock::parse(lock).map(Call::Release),
            _ => None,
        }
    }
}

async fn answer(
    State(inside): State<Inside>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let mut response = handle(&inside, from, request).await.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn handle(inside: &Inside, from: SocketAddr, request: Request) -> Result<Response, Refused> {
    let (parts, body) = request.into_parts();
    // A browser says where a request comes from. A page of another site could call through its visitor.
    if parts.headers.contains_key(header::ORIGIN) || parts.headers.contains_key("sec-fetch-site") {
        return Err(Refused::new(StatusCode::FORBIDDEN, "NO_BROWSERS", "this port is for programs"));
    }
    let call = Call::parse(&parts.method, parts.uri.path()).ok_or_else(|| {
        Refused::new(StatusCode::NOT_FOUND, "LOCK_NOT_FOUND", "there is no such lock, and no such path of the plugin")
    })?;
    let caller = InsideCaller::at(from, token(&parts.headers)?, Program::Jenkins);
    match call {
        Call::Acquire => acquire(inside, &caller, &parts.headers, body).await,
        Call::Status(lock) => status(inside, &caller, &lock).await,
        Call::Heartbeat(lock) => heartbeat(inside, &caller, &lock).await,
        Call::Release(lock) => release(inside, &caller, &lock).await,
    }
}

/// The token of a caller. The plugin sends a user name with a password, and the password is the token; the name does not count.
fn token(headers: &HeaderMap) -> Result<Option<Arc<str>>, Refused> {
    let malformed = || {
        let message = "the credentials of the connection have no token: set a user name, and a token as the password";
        Refused::new(StatusCode::UNAUTHORIZED, "MALFORMED_TOKEN", message)
    };
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let (scheme, rest) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(malformed)?;
    let token = if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.and_then(|pair| pair.split_once(':').map(|(_, password)| password.to_owned()))
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Some(rest.trim().to_owned())
    } else {
        None
    };
    let is_token =
        |text: &String| !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|b| b.is_ascii_graphic());
    token.filter(is_token).map(|token| Some(Arc::from(token))).ok_or_else(malformed)
}

async fn acquire(inside: &Inside, caller: &InsideCaller, headers: &HeaderMap, body: Body) -> Result<Response, Refused> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let message = "the body has to be application/json";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_JSON", message));
    }
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| {
        let message = "the body has more than 65,536 bytes, or was cut off";
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
    })?;
    let Asked { message, skip, by_name } = request::read(&body)?;
    let (lock, state) = match inside.lease(caller, message).await {
        Ok(answer) => {
            let ids = answer.lease.into_iter().chain(answer.leases).map(|lease| lease.id);
            let lock = Lock::of(ids).ok_or_else(|| {
                let message = "the broker answered without a lease: report it";
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
            })?;
            (lock, "QUEUED")
        }
        Err(error) if skip && error.reason == "NO_CAPACITY" => (Lock::Skipped, "SKIPPED"),
        Err(error) if error.reason == "UNKNOWN_POOL" => {
            let code = if by_name { "UNKNOWN_RESOURCE" } else { "UNKNOWN_LABEL" };
            return Err(Refused::new(StatusCode::NOT_FOUND, code, error.message));
        }
        Err(error) => return Err(error.into()),
    };
    Ok((StatusCode::ACCEPTED, answer::json(&serde_json::json!({ "lockId": lock.to_string(), "state": state })))
        .into_response())
}

async fn status(inside: &Inside, caller: &InsideCaller, lock: &Lock) -> Result<Response, Refused> {
    let mut leases = Vec::new();
    for id in lock.leases() {
        let request = pb::GetRequest { lease_id: id.clone(), ..pb::GetRequest::default() };
        match inside.get(caller, request).await {
            Ok(answer) => leases.extend(answer.lease),
            Err(error) if is_over(&error) => {
                return Err(Refused::new(StatusCode::NOT_FOUND, "LOCK_NOT_FOUND", error.message));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((StatusCode::OK, answer::json(&state(lock, &leases))).into_response())
}

async fn heartbeat(inside: &Inside, caller: &InsideCaller, lock: &Lock) -> Result<Response, Refused> {
    let gone = |message: String| Refused::new(StatusCode::GONE, "LOCK_NOT_FOUND", message);
    // The others of the group are renewed with it.
    let Some(first) = lock.leases().first() else { return Err(gone("nothing was locked".to_owned())) };
    match inside.renew(caller, pb::RenewRequest { lease_id: first.clone(), ..pb::RenewRequest::default() }).await {
        Ok(_) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) if is_over(&error) => Err(gone(error.message)),
        Err(error) => Err(error.into()),
    }
}

/// Ends a lock. How the work went is not told, so that nothing counts.
async fn release(inside: &Inside, caller: &InsideCaller, lock: &Lock) -> Result<Response, Refused> {
    if let Some(first) = lock.leases().first() {
        let request = pb::ReleaseRequest {
            lease_id: first.clone(),
            outcome: pb::Outcome::Abandoned.into(),
            note: "released by Jenkins".to_owned(),
            ..pb::ReleaseRequest::default()
        };
        match inside.release(caller, request).await {
            // One that has ended, or is not known any more, is released.
            Err(error) if !is_over(&error) => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether a lease has ended, or is not known.
fn is_over(error: &InsideError) -> bool {
    matches!(error.kind, RefusalKind::NotFound | RefusalKind::Request)
}

#[cfg(test)]
mod tests;
