//! The settings of traces.

use std::net::IpAddr;
use std::path::PathBuf;
use tonic::codegen::http::Uri;

/// The table `[traces]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// The collector.
    pub endpoint: Endpoint,
    /// The file of the authorities that sign its certificate. `None`: those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// The file of a token for `authorization: Bearer`, read for each export.
    pub bearer_file: Option<PathBuf>,
    /// The leases without a trace of their caller that are exported.
    pub unparented: Unparented,
}

/// The leases without a trace of their caller that have a trace of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unparented {
    /// None of them.
    None,
    /// Those that were broken, have expired or failed.
    #[default]
    Failed,
    /// All of them.
    All,
}

/// The address of a collector for OTLP over gRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) uri: Uri,
}

impl Endpoint {
    /// Reads `http://HOST:PORT` or `https://HOST:PORT`. `None`: it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let bare = matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/"));
        let host = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16().is_some();
        (scheme && authority && bare && host && !text.contains('#')).then_some(Self { uri })
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Whether its host is this machine by its name or address.
    pub fn is_loopback(&self) -> bool {
        let host = self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let authority = self.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        write!(f, "{}://{authority}", self.uri.scheme_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_server() {
        for text in ["http://127.0.0.1:4317", "https://otel.example.org:4317/", "http://[::1]:4317"] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), text.trim_end_matches('/'));
        }
        assert!(Endpoint::parse("http://[::1]:4317").unwrap().is_loopback());
        for text in ["127.0.0.1:4317", "http://host", "grpc://host:1", "http://a@host:1", "http://host:1/v1/traces", ""]
        {
            assert_eq!(Endpoint::parse(text), None, "{text:?}");
        }
    }
}
