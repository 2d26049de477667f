//! The client's side of HTTPS servers that are not of this project: keys of token issuers.

use crate::client::{classified, roots};
use crate::files::Files;
use crate::problem::{Setting, TlsProblem};
use crate::provider;
use crate::{ClientStream, ConnectError, ServerName};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::version::TLS13;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// The protocol of these connections (RFC 9112).
const ALPN: &[u8] = b"http/1.1";

/// Makes TLS connections for HTTP/1.1: TLS 1.3 alone, no certificate of the client, the server checked by its host name.
#[derive(Clone, Debug)]
pub struct WebTls(Arc<ClientConfig>);

impl WebTls {
    /// Reads the file of the authorities. `None`: those that the machine trusts.
    ///
    /// # Errors
    /// [`TlsProblem`]: the file cannot be used.
    pub fn load(ca: Option<&Path>) -> Result<Self, TlsProblem> {
        let files = Files::read(ca.map(|path| (Setting::Ca, path)))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| TlsProblem::value(Setting::Ca, error.to_string(), "report this as a bug"))?;
        let mut config = builder.with_root_certificates(roots(ca, &files)?).with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// The client's handshake with the server of this name, or of this IP address. The caller limits its time.
    ///
    /// # Errors
    /// [`ConnectError`]: the connection is closed, and nothing was sent on it.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<ClientStream<S>, ConnectError> {
        let name = ServerName::try_from(host.to_string()).map_err(|_| ConnectError::Name(host.to_string()))?;
        TlsConnector::from(self.0.clone()).connect(name, stream).await.map_err(classified)
    }
}
