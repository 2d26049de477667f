//! The operator's page, on a port of its own: what is wrong, since when, who is hit, and what the broker does about it.
//!
//! HTML comes from the server, and works without a script. The page is a client of the services in this process: it can do nothing that the
//! API cannot, and it decides nothing.
//!
//! * `guard`: which requests are let in, and what a browser may do with the answers.
//! * `who`: the caller of a request.
//! * `live`: the streams of screens that change.
//! * `verb`, `act`: the verbs of operators, with a preview of what they break.
//! * `screen`: the screens by their addresses.
//! * `ask`: asks the services for what a screen shows.
//! * `view`, `part`: markup. They are pure.
//! * `asset`: the style sheet and the scripts.

mod act;
mod answer;
mod ask;
mod asset;
mod guard;
mod live;
mod part;
mod screen;
mod verb;
mod view;
mod who;

use crate::rpc::Inside;
use act::Done;
use answer::Page;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use guard::Names;
use live::Live;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use who::Sessions;

/// The settings of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSettings {
    /// The names by which the page is called, beside IP addresses and `localhost`.
    pub names: Vec<String>,
    /// Whether people reach it by https, through a proxy.
    pub secure: bool,
}

/// Serves the page until `stop` is cancelled.
///
/// # Errors
/// The port fails.
pub async fn serve(
    listener: TcpListener,
    inside: Inside,
    settings: PageSettings,
    stop: CancellationToken,
) -> Result<(), std::io::Error> {
    let routes = routes(inside, settings, stop.clone()).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The page as a service.
pub(crate) fn routes(inside: Inside, settings: PageSettings, stop: CancellationToken) -> Router {
    let page = Page {
        inside,
        names: Names::new(settings.names),
        sessions: Sessions::new(settings.secure),
        live: Live::new(stop),
        done: Done::default(),
    };
    Router::new().fallback(answer).with_state(page)
}

async fn answer(State(page): State<Page>, ConnectInfo(from): ConnectInfo<SocketAddr>, request: Request) -> Response {
    page.answer(from, request).await
}

#[cfg(test)]
mod tests;
