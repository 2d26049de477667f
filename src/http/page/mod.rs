//! The operator's page, on a port of its own: what is wrong, since when, who is hit, and what the broker does about it.
//!
//! HTML comes from the server, and works without a script. The page is a client of the services in this process: it can do nothing that the
//! API cannot, and it decides nothing.
//!
//! * `guard`: which requests are let in, and what a browser may do with the answers.
//! * `port`: the connections, with TLS or without.
//! * `proxy`: the header of a proxy, and from where it is believed.
//! * `who`: the caller of a request.
//! * `oidc`: sign-in by an issuer.
//! * `live`: the streams of screens that change.
//! * `verb`, `act`: the verbs of operators, with a preview of what they break.
//! * `bulk`: one verb on several resources.
//! * `screen`: the screens by their addresses.
//! * `ask`: asks the services for what a screen shows.
//! * `view`, `part`: markup. They are pure.
//! * `asset`: the style sheet and the scripts.

mod act;
mod answer;
mod ask;
mod asset;
mod bulk;
mod guard;
mod live;
mod oidc;
mod part;
mod port;
mod proxy;
mod screen;
mod verb;
mod view;
mod who;

pub use proxy::ProxySettings;

use crate::rpc::{ConnectInfo, Inside, Port};
use act::Done;
use answer::Page;
use axum::Router;
use axum::extract::{ConnectInfo as From, Request, State};
use axum::response::Response;
use guard::Names;
use live::Live;
use oidc::SignIns;
use port::Connections;
use proxy::Proxy;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use wharfinger_jwt::ProviderSettings;
use wharfinger_tls::ServerTls;
use who::Sessions;

/// The settings of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSettings {
    /// The names by which the page is called, beside IP addresses and `localhost`.
    pub names: Vec<String>,
    /// Whether people reach it by https.
    pub secure: bool,
    /// The proxy before it that names people.
    pub proxy: Option<ProxySettings>,
    /// The issuer that signs people in.
    pub oidc: Option<ProviderSettings>,
}

/// The sockets of the page.
#[derive(Debug)]
pub struct PageSockets {
    /// The port.
    pub tcp: TcpListener,
    /// Its certificates. `None`: it has no TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// The socket of the proxy.
    pub unix: Option<UnixListener>,
}

/// Serves the page until `stop` is cancelled.
///
/// # Errors
/// The port fails.
pub async fn serve(
    sockets: PageSockets,
    inside: Inside,
    settings: PageSettings,
    stop: CancellationToken,
) -> Result<(), std::io::Error> {
    let PageSockets { tcp, tls, unix } = sockets;
    let connections = Connections::new(&inside, Port::web(tcp, tls, unix));
    let routes = routes(inside, settings, stop.clone()).into_make_service_with_connect_info::<ConnectInfo>();
    axum::serve(connections, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The page as a service.
pub(crate) fn routes(inside: Inside, settings: PageSettings, stop: CancellationToken) -> Router {
    let page = Page {
        inside,
        names: Names::new(settings.names),
        sessions: Sessions::new(settings.secure),
        proxy: settings.proxy.map(Proxy::new),
        sign_ins: settings.oidc.map(SignIns::new),
        live: Live::new(stop),
        done: Done::default(),
    };
    Router::new().fallback(answer).with_state(page)
}

async fn answer(State(page): State<Page>, From(from): From<ConnectInfo>, request: Request) -> Response {
    page.answer(from, request).await
}

#[cfg(test)]
mod tests;
