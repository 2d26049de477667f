//! TLS for the parts of Wharfinger: a server whose certificates are read again while it runs, client certificates that name one
//! caller each, connections that verify a server, and a small certificate authority.
//!
//! The rules, all of which hold everywhere:
//!
//! * TLS 1.3 alone, by aws-lc-rs alone, with ALPN `h2`, but for a port for browsers. No resumption: a resumed session skips the check of the client's certificate.
//! * A client certificate has exactly one URI, `spiffe://DOMAIN/PATH`, which names its caller. Other names in it mean nothing.
//! * Files that cannot be used change nothing: the state before them stays.
//!
//! ```
//! # fn main() -> Result<(), wharfinger_tls::TlsProblem> {
//! use wharfinger_tls::spiffe::Uri;
//! let uri = Uri::parse("spiffe://farm.example.org/agent/7").unwrap();
//! assert_eq!((uri.domain(), uri.path()), ("farm.example.org", "/agent/7"));
//! # Ok(())
//! # }
//! ```

mod client;
mod fault;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod leaf;
#[cfg(feature = "pki")]
pub mod pki;
mod problem;
mod server;
mod signature;
pub mod spiffe;
mod verify;
mod web;

pub use client::{ClientSettings, ClientTls, ConnectError, ServerName};
pub use fault::{CertificateFault, Refusal};
pub use leaf::{Leaf, LeafError};
pub use problem::{Setting, TlsProblem};
pub use server::{
    AcceptError, Accepted, ClientAuth, Peer, Protocol, Revoked, ServerSettings, ServerTls, TrustSettings,
};
pub use tokio_rustls::client::TlsStream as ClientStream;
pub use tokio_rustls::server::TlsStream as ServerStream;
pub use web::WebTls;

/// The protocol of all connections (RFC 9113, section 3.2).
const ALPN: &[u8] = b"h2";

/// The one crypto provider. It is named explicitly everywhere, because a process default is a panic when two are compiled in.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Lowercase hexadecimal digits of these bytes.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
