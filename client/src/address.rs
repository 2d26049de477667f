//! The address of one server, and connections to it.

use crate::{ClientError, ClientOptions};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
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
    /// `None`: the server has no TLS.
    tls: Option<ClientTls>,
}

/// Reads addresses: `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`, several with commas between.
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
        let (secure, authority) = match text.split_once("://") {
            Some(("https", authority)) => (true, authority),
            Some(("http", authority)) => (false, authority),
            Some(_) => return Err(wrong()),
            None => (false, text),
        };
        // The connector does the handshake, so the transport has nothing to know of it.
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|_| wrong())?;
        if endpoint.uri().port().is_none() || !matches!(endpoint.uri().path(), "" | "/") {
            return Err(wrong());
        }
        let tls = match (secure, &*tls) {
            (false, _) => None,
            (true, Some(tls)) => Some(tls.clone()),
            (true, None) => {
                *tls = Some(ClientTls::load(options.tls.clone()).map_err(ClientError::Tls)?);
                tls.clone()
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
        if secure {
            let origin = Uri::try_from(format!("https://{authority}")).map_err(|_| wrong())?;
            endpoint = endpoint.origin(origin);
        }
        Ok(ServerAddress { endpoint, tls })
    }

    /// The canonical form: `HOST:PORT`.
    pub fn authority(&self) -> String {
        self.endpoint.uri().authority().map(ToString::to_string).unwrap_or_default()
    }

    /// The host.
    pub fn host(&self) -> Option<&str> {
        self.endpoint.uri().host()
    }

    /// Whether the server proves itself, and nothing between reads along.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A channel that connects at the first call. Must be called within a Tokio runtime.
    pub fn connect_lazy(&self) -> Channel {
        match &self.tls {
            None => self.endpoint.connect_lazy(),
            Some(tls) => self.endpoint.connect_with_connector_lazy(Connector { tls: tls.clone() }),
        }
    }

    /// A channel with a connection.
    ///
    /// # Errors
    /// The server does not answer, or is none that the client trusts.
    pub async fn connect(&self) -> Result<Channel, Error> {
        match &self.tls {
            None => self.endpoint.connect().await,
            Some(tls) => self.endpoint.connect_with_connector(Connector { tls: tls.clone() }).await,
        }
    }
}

/// Connects by TCP, and shakes hands.
#[derive(Clone)]
struct Connector {
    tls: ClientTls,
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
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((bare, uri.port_u16().unwrap_or_default())).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(bare, stream).await?))
        })
    }
}
