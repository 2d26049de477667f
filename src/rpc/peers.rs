//! The other servers of a cluster: connections to the one that leads, and the certificates of those that forward calls.

use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use wharfinger_client::internal::Connector;
use wharfinger_tls::spiffe::Uri as Name;
use wharfinger_tls::{ClientSettings, ClientTls, Leaf, TlsProblem};

/// The other servers, by the names in their certificates. An address alone makes no server one of them.
#[derive(Clone, Debug)]
pub struct Peers {
    tls: ClientTls,
    names: Vec<Name>,
}

/// The reason why an address is not called.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressFault {
    #[error("it has no TLS, and the servers of this cluster speak TLS with each other")]
    Plaintext,
    #[error("it is not the address of a server: {0}")]
    Malformed(tonic::transport::Error),
}

impl Peers {
    /// Reads the certificates. A renewed one is used from the next connection on.
    ///
    /// # Errors
    /// [`TlsProblem`]: a file cannot be used.
    pub fn load(settings: ClientSettings, names: Vec<Name>) -> Result<Self, TlsProblem> {
        Ok(Self { tls: ClientTls::load_for(settings, names.clone())?, names })
    }

    /// Whether the certificate of a connection is a server's.
    pub(crate) fn has(&self, leaf: Option<&Leaf>) -> bool {
        leaf.is_some_and(|leaf| self.names.contains(&leaf.uri))
    }
}

/// The channel to a server. It connects at the first call.
pub(crate) fn channel(
    peers: Option<&Peers>,
    address: &str,
    limited: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, AddressFault> {
    let endpoint = |text: String| Endpoint::from_shared(text).map_err(AddressFault::Malformed);
    let Some(peers) = peers else {
        return Ok(limited(endpoint(address.to_string())?).connect_lazy());
    };
    let authority = address.strip_prefix("https://").ok_or(AddressFault::Plaintext)?;
    // The connector does the handshake, so the transport has nothing to know of it.
    let plain = endpoint(format!("http://{authority}"))?;
    let plain = match address.parse::<Uri>() {
        Ok(origin) => plain.origin(origin),
        Err(_) => plain,
    };
    Ok(limited(plain).connect_with_connector_lazy(Connector { tls: peers.tls.clone() }))
}
