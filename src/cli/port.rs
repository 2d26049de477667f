//! The port: bound once for the life of the process, and served.

use super::error::Failure;
use super::exit::Exit;
use crate::config::{Loaded, Page, Server, Tls, UnixSocket};
use crate::engine::Handle;
use crate::http::page::{PageSettings, PageSockets, ProxySettings};
use crate::rpc::{AnswerSources, Inside, Peers, Port, RpcLimits, ServeError};
use crate::socket::SocketFile;
use crate::telemetry::metrics::Metrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharfinger_tls::{ClientAuth, ServerTls, TlsProblem};

const DAY: Duration = Duration::from_secs(86_400);
/// Before the end of the port's certificate: the time from which on the log says so, once a day.
const WARN_BEFORE: Duration = Duration::from_secs(3 * 86_400);

/// After the lead is lost: for those who wait to be told.
const AFTER_LEAD: Duration = Duration::from_millis(500);
/// After a server was killed, a program that it was just starting may have its port for a moment.
const PORT_PATIENCE: Duration = Duration::from_millis(500);

/// The sockets of a server, bound before it touches its store.
pub(super) struct Bound {
    tcp: TcpListener,
    unix: Option<(UnixListener, SocketFile)>,
    /// For meters and probes.
    http: Option<TcpListener>,
    page: Option<BoundPage>,
    /// For Jenkins' remote locks.
    jenkins: Option<TcpListener>,
}

/// The sockets of the page.
struct BoundPage {
    tcp: TcpListener,
    /// Of the proxy before it.
    unix: Option<(UnixListener, SocketFile)>,
    tls: Option<Tls>,
    settings: PageSettings,
}

impl From<TcpListener> for Bound {
    fn from(tcp: TcpListener) -> Self {
        Bound { tcp, unix: None, http: None, page: None, jenkins: None }
    }
}

/// Binds all of them.
pub(super) async fn bind(loaded: &Loaded) -> Result<Bound, Failure> {
    // The port first: a second server with the same configuration takes nothing away.
    let tcp = bind_port(loaded.server.listen).await?;
    let unix = match &loaded.server.unix {
        Some(socket) => Some(bind_socket(socket).await?),
        None => None,
    };
    let http = match loaded.metrics {
        Some(address) => Some(bind_port(address).await?),
        None => None,
    };
    let page = match &loaded.page {
        Some(page) => Some(bind_page(page).await?),
        None => None,
    };
    let jenkins = match loaded.jenkins {
        Some(address) => Some(bind_port(address).await?),
        None => None,
    };
    Ok(Bound { tcp, unix, http, page, jenkins })
}

async fn bind_page(page: &Page) -> Result<BoundPage, Failure> {
    let tcp = bind_port(page.listen).await?;
    let unix = match page.proxy.as_ref().and_then(|proxy| proxy.socket.as_ref()) {
        Some(socket) => Some(bind_socket(socket).await?),
        None => None,
    };
    let proxy = page.proxy.as_ref();
    let proxy = proxy.map(|proxy| ProxySettings { header: proxy.header.clone(), from: proxy.from.clone() });
    let oidc = page.oidc.clone();
    let settings = PageSettings { names: page.names.clone(), secure: page.is_secure(), proxy, oidc };
    Ok(BoundPage { tcp, unix, tls: page.tls.clone(), settings })
}

async fn bind_socket(socket: &UnixSocket) -> Result<(UnixListener, SocketFile), Failure> {
    socket.bind().await.map_err(|fault| {
        Failure::new(Exit::Unavailable, format!("{} {fault}", socket.path.display())).remedy(fault.remedy())
    })
}

async fn bind_port(address: SocketAddr) -> Result<TcpListener, Failure> {
    let mut waited = Duration::ZERO;
    let bound = loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && waited < PORT_PATIENCE => {}
            bound => break bound,
        }
        let pause = Duration::from_millis(20);
        tokio::time::sleep(pause).await;
        waited += pause;
    };
    bound.map_err(|error| {
        let failure = Failure::new(Exit::Unavailable, format!("{address} can not be listened on: {error}"));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                failure.remedy("another server may be there already (see wharfinger pools); or set another `listen`")
            }
            _ => failure,
        }
    })
}

/// The services on it.
pub(super) struct Serving {
    task: JoinHandle<Result<(), ServeError>>,
    stop: CancellationToken,
    tls: Option<Arc<ServerTls>>,
    page_tls: Option<Arc<ServerTls>>,
    /// Removed with the services.
    _socket: Option<SocketFile>,
}

impl Serving {
    pub(super) fn start(
        bound: Bound,
        server: &Server,
        handle: Handle,
        limits: RpcLimits,
        sources: AnswerSources,
        peers: Option<Peers>,
        metrics: &Metrics,
    ) -> Result<Self, Failure> {
        let (stop, listener) = (CancellationToken::new(), bound.tcp);
        let tls = server.tls.as_ref().map(|tls| secure(tls, "[server.tls]", &stop)).transpose()?;
        if let Ok(address) = listener.local_addr()
            && !address.ip().is_loopback()
        {
            let known = if sources.trust.asks() {
                "a caller has a token"
            } else {
                "everyone who reaches it is an administrator"
            };
            match server.tls.as_ref().map(|tls| tls.files.client_auth) {
                None if sources.trust.asks() => tracing::warn!(
                    %address,
                    "other machines can reach this address, and there is no TLS: tokens are taken from this machine alone"
                ),
                None => tracing::warn!(%address, "other machines can reach this address, and there is no TLS: {known}"),
                Some(ClientAuth::Required) => {}
                Some(ClientAuth::None | ClientAuth::Optional) if sources.trust.asks() => {}
                Some(ClientAuth::None | ClientAuth::Optional) => {
                    tracing::warn!(%address, "other machines can reach this address, and a client needs no certificate: {known}");
                }
            }
        }
        let port = match &tls {
            Some(tls) => Port::with_tls(listener, tls.clone()),
            None => Port::from(listener),
        };
        let (unix, socket) = bound.unix.unzip();
        let port = port.with_unix(unix).with_peers(peers.clone());
        if let Some(http) = bound.http {
            // A failure of this port ends no lease.
            let (handle, metrics, stop) = (handle.clone(), metrics.clone(), stop.clone());
            // Ends with `stop`.
            tokio::spawn(async move {
                if let Err(error) = crate::http::serve(http, handle, metrics, stop).await {
                    tracing::error!(%error, "the port for meters is not served any more");
                }
            });
        }
        let mut page_tls = None;
        if let Some(BoundPage { tcp, unix, tls, settings }) = bound.page {
            let inside = Inside::new(handle.clone(), &limits, sources.clone(), peers.clone(), stop.clone());
            page_tls = tls.as_ref().map(|tls| secure(tls, "[page.tls]", &stop)).transpose()?;
            let (unix, file) = unix.unzip();
            let sockets = PageSockets { tcp, tls: page_tls.clone(), unix };
            let stop = stop.clone();
            // Ends with `stop`.
            tokio::spawn(async move {
                // Removed with the page.
                let _file = file;
                if let Err(error) = crate::http::page::serve(sockets, inside, settings, stop).await {
                    tracing::error!(%error, "the operator's page is not served any more");
                }
            });
        }
        if let Some(jenkins) = bound.jenkins {
            let inside = Inside::new(handle.clone(), &limits, sources.clone(), peers, stop.clone());
            let stop = stop.clone();
            // Ends with `stop`.
            tokio::spawn(async move {
                if let Err(error) = crate::http::jenkins::serve(jenkins, inside, stop).await {
                    tracing::error!(%error, "Jenkins' remote locks are not served any more");
                }
            });
        }
        let task = tokio::spawn(crate::rpc::serve(port, handle, limits, sources, stop.clone()));
        Ok(Serving { task, stop, tls, page_tls, _socket: socket })
    }

    /// Takes over other certificates. Those that cannot be used leave the ones before.
    pub(super) fn change_tls(&self, server: &Server, page: Option<&Page>) -> Result<(), Failure> {
        let of_page = page.and_then(|page| page.tls.as_ref());
        for (table, own, new) in
            [("[server.tls]", &self.tls, server.tls.as_ref()), ("[page.tls]", &self.page_tls, of_page)]
        {
            let (Some(own), Some(new)) = (own, new) else { continue };
            own.change(new.files.clone(), crate::clock::wall()).map_err(|problem| unusable(table, &problem))?;
        }
        Ok(())
    }

    /// Waits until it ends, which it should not, and says why it did.
    pub(super) async fn failed(&mut self) -> Failure {
        let why = match (&mut self.task).await {
            Ok(Ok(())) => "it ended by itself".to_string(),
            Ok(Err(error)) => {
                std::error::Error::source(&error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
            }
            Err(error) => error.to_string(),
        };
        Failure::new(Exit::Internal, format!("the port is not served any more: {why}"))
    }

    /// Calls under way are answered, watches are ended.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the port's task ended badly");
        }
    }

    /// Soon: there is nothing left that could be answered.
    pub(super) async fn stop_soon(&mut self) {
        self.stop.cancel();
        if tokio::time::timeout(AFTER_LEAD, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// The certificates of the port. A task reads them again until the server stops.
fn secure(tls: &Tls, table: &str, stop: &CancellationToken) -> Result<Arc<ServerTls>, Failure> {
    let own = ServerTls::load(tls.files.clone(), crate::clock::wall()).map_err(|problem| unusable(table, &problem))?;
    let own = Arc::new(own);
    // Ends with `stop`.
    tokio::spawn(renew(own.clone(), tls.reload_every, stop.clone()));
    Ok(own)
}

fn unusable(table: &str, problem: &TlsProblem) -> Failure {
    Failure::new(Exit::Config, format!("{table} {problem}"))
}

/// Reads the files again and again. Each problem is reported once, and the end of the certificate each day before it comes.
async fn renew(tls: Arc<ServerTls>, every: Duration, stop: CancellationToken) {
    let mut said: Option<TlsProblem> = None;
    let mut warned: Option<Duration> = None;
    loop {
        let now = crate::clock::wall();
        match tls.reload(now) {
            Ok(changed) => {
                if changed {
                    tracing::info!("the certificates of the port are read again");
                }
                said = None;
            }
            Err(problem) if said.as_ref() != Some(&problem) => {
                tracing::error!(%problem, "the certificates of the port are not read again; the ones before stay");
                said = Some(problem);
            }
            Err(_) => {}
        }
        let left = tls.not_after().duration_since(now).unwrap_or_default();
        if left > WARN_BEFORE {
            warned = None;
        } else if warned.is_none_or(|warned| warned > left + DAY || left.is_zero() != warned.is_zero()) {
            tracing::warn!(
                hours = left.as_secs() / 3600,
                "the certificate of the port ends soon, or has ended: renew it"
            );
            warned = Some(left);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}
