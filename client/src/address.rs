//! The address of one server, and connections to it.

use crate::faults::{Faults, Noting};
use crate::{ClientError, ClientOptions};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tonic::Status;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint, Error};
use wharfinger_tls::{ClientStream, ClientTls, ConnectError};

/// Time without traffic after which the kernel asks a silent server.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// The address of one server.
#[derive(Clone, Debug)]
pub struct ServerAddress {
    endpoint: Endpoint,
    way: Way,
}

/// The way to a server.
#[derive(Clone, Debug)]
enum Way {
    /// TCP, without TLS.
    Plain,
    Tls(ClientTls),
    /// The Unix socket of a server on this machine, by its absolute path.
    Unix(PathBuf),
}

/// Reads addresses: `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`, several with commas between.
///
/// # Errors
/// [`ClientError::Address`]; [`ClientError::Tls`] if a server has TLS and a file of it cannot be used.
pub fn parse_addresses(endpoints: &str, options: &ClientOptions) -> Result<Vec<ServerAddress>, ClientError> {
    let several = endpoints.contains(',');
    let mut tls = None;
    endpoints.split(',').map(|text| ServerAddress::parse(text.trim(), several, options, &mut tls)).collect()
}

impl ServerAddress {
    /// Reads one address. `tls` is loaded once for all addresses.
    pub(crate) fn parse(
        text: &str,
        several: bool,
        options: &ClientOptions,
        tls: &mut Option<ClientTls>,
    ) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(format!("{text:?}"));
        let (secure, authority, socket) = match text.split_once("://") {
            Some(("https", authority)) => (true, authority, None),
            Some(("http", authority)) => (false, authority, None),
            // The host's name is for the request alone.
            Some(("unix", path)) if path.starts_with('/') && !path.ends_with('/') => {
                (false, "localhost:0", Some(PathBuf::from(path)))
            }
            Some(_) => return Err(wrong()),
            None => (false, text, None),
        };
        // The connector does the handshake, so the transport has nothing to know of it.
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|_| wrong())?;
        if endpoint.uri().port().is_none() || !matches!(endpoint.uri().path(), "" | "/") {
            return Err(wrong());
        }
        let way = match (socket, secure) {
            (Some(path), _) => Way::Unix(path),
            (None, false) => Way::Plain,
            (None, true) => {
                let loaded = match tls.take() {
                    Some(loaded) => loaded,
                    None => ClientTls::load(options.tls.clone()).map_err(ClientError::Tls)?,
                };
                Way::Tls(tls.insert(loaded).clone())
            }
        };
        // With several servers a silent one is given up sooner.
        let (interval, timeout) = if several { (5, 3) } else { (20, 10) };
        let mut endpoint = endpoint
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(TCP_KEEPALIVE))
            .http2_keep_alive_interval(Duration::from_secs(interval))
            .keep_alive_timeout(Duration::from_secs(timeout))
            .keep_alive_while_idle(true);
        if let Some(agent) = &options.user_agent {
            endpoint = endpoint.clone().user_agent(&**agent).unwrap_or(endpoint);
        }
        if secure {
            let origin = Uri::try_from(format!("https://{authority}")).map_err(|_| wrong())?;
            endpoint = endpoint.origin(origin);
        }
        Ok(ServerAddress { endpoint, way })
    }

    /// The canonical form: `HOST:PORT`, or `unix:///PATH`.
    pub fn authority(&self) -> String {
        if let Way::Unix(path) = &self.way {
            return format!("unix://{}", path.display());
        }
        self.endpoint.uri().authority().map(ToString::to_string).unwrap_or_default()
    }

    /// The host. `None`: the address is a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match self.way {
            Way::Plain | Way::Tls(_) => self.endpoint.uri().host(),
            Way::Unix(_) => None,
        }
    }

    /// Whether the address is a Unix socket of this machine.
    pub fn is_socket(&self) -> bool {
        matches!(self.way, Way::Unix(_))
    }

    /// Whether nothing between reads along: there is TLS, or nothing between.
    pub fn is_private(&self) -> bool {
        !matches!(self.way, Way::Plain)
    }

    /// A channel that connects at the first call, and the faults of its certificates. Must be called within a Tokio runtime.
    pub(crate) fn connect_lazy(&self) -> (Channel, Faults) {
        let faults = Faults::default();
        let channel = match &self.way {
            Way::Plain => self.endpoint.connect_lazy(),
            Way::Tls(tls) => {
                self.endpoint.connect_with_connector_lazy(Noting { tls: tls.clone(), faults: faults.clone() })
            }
            Way::Unix(path) => self.endpoint.connect_with_connector_lazy(Socket { path: path.clone() }),
        };
        (channel, faults)
    }

    /// A channel with a connection, for calls that are repeated. The error has the fault of a certificate as its source.
    pub(crate) async fn connect_noting(&self) -> Result<(Channel, Faults), Status> {
        let faults = Faults::default();
        let connected = match &self.way {
            Way::Tls(tls) => {
                self.endpoint.connect_with_connector(Noting { tls: tls.clone(), faults: faults.clone() }).await
            }
            Way::Plain | Way::Unix(_) => self.connect().await,
        };
        match (connected, faults.noted()) {
            (Ok(channel), _) => Ok((channel, faults)),
            (Err(_), Some(fault)) => Err(Status::from_error(Box::new(fault))),
            (Err(error), None) => Err(Status::from_error(Box::new(error))),
        }
    }

    /// A channel with a connection.
    ///
    /// # Errors
    /// The server does not answer, or is none that the client trusts.
    pub async fn connect(&self) -> Result<Channel, Error> {
        match &self.way {
            Way::Plain => self.endpoint.connect().await,
            Way::Tls(tls) => self.endpoint.connect_with_connector(Connector { tls: tls.clone() }).await,
            Way::Unix(path) => self.endpoint.connect_with_connector(Socket { path: path.clone() }).await,
        }
    }
}

/// Connects by TCP, and shakes hands.
#[derive(Clone, Debug)]
pub struct Connector {
    /// The certificates.
    pub tls: ClientTls,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<ClientStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move { Ok(TokioIo::new(shake_hands(&tls, &uri).await?)) })
    }
}

/// A connection with TLS to this address.
pub(crate) async fn shake_hands(tls: &ClientTls, uri: &Uri) -> Result<ClientStream<TcpStream>, ConnectError> {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, uri.port_u16().unwrap_or_default())).await?;
    stream.set_nodelay(true)?;
    tls.connect(bare, stream).await
}

/// Connects to a Unix socket.
#[derive(Clone)]
struct Socket {
    path: PathBuf,
}

impl Service<Uri> for Socket {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.path.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}
