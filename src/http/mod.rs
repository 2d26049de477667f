//! The port for meters and probes over HTTP: `/metrics`, `/livez`, `/readyz`, `/leader`. It serves no names of leases, holders or
//! hosts and no secrets, and takes no orders. The operator's page (`page`) and Jenkins' remote locks (`jenkins`) have ports of their own.

pub mod jenkins;
pub mod page;

use crate::engine::{Handle, Role};
use crate::telemetry::metrics::{Exposition, Metrics, ServerFacts};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wharfinger_core::Census;

/// Maximum time for which a scrape waits for the engine.
const ENGINE_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Served {
    handle: Handle,
    metrics: Metrics,
}

/// Serves the port until `stop` is cancelled.
///
/// # Errors
/// The port fails.
pub async fn serve(
    listener: TcpListener,
    handle: Handle,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), std::io::Error> {
    let routes = Router::new()
        .route("/metrics", get(exposition))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/leader", get(leader))
        .with_state(Served { handle, metrics });
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn exposition(State(served): State<Served>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Exposition::of_accept(accept);
    let leadership = served.handle.leadership();
    let leads = leadership.role() == Role::Leading;
    // One that follows has no pools to show: the sum over all servers would count each pool several times.
    let census: Option<Census> = match leads {
        true => tokio::time::timeout(ENGINE_PATIENCE, served.handle.read(|core, now| core.census(now)))
            .await
            .ok()
            .and_then(Result::ok),
        false => None,
    };
    let server = ServerFacts {
        leads,
        revision: served.handle.hub().revision().borrow().0,
        age: leadership.age(),
        watches: served.handle.hub().watchers(),
        backlog: served.handle.backlog(),
        partial: leads && census.is_none(),
    };
    let text = served.metrics.expose(format, &server, census.as_ref());
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

/// Whether the server answers: it leads, or follows with recent data. As the health service says.
async fn ready(State(served): State<Served>) -> Response {
    match served.handle.leadership().fresh() {
        Ok(()) if served.handle.leadership().role() == Role::Leading => "leads\n".into_response(),
        Ok(()) => "follows\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// Whether the server leads, for a proxy that sends all calls to the leader.
async fn leader(State(served): State<Served>) -> Response {
    match served.handle.leadership().role() {
        Role::Leading => "leads\n".into_response(),
        Role::Following => (StatusCode::SERVICE_UNAVAILABLE, "follows\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
