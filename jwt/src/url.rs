//! URLs of issuers and keys: `https` alone.

use hyper::Uri;
use std::fmt;
use std::sync::Arc;

/// A URL with `https`, without a user and without a fragment.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpsUrl(Uri);

/// The fault of a URL, as the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It has another scheme.
    #[error("does not begin with https://")]
    Scheme,
    /// It is no URL of a server.
    #[error("is not a URL with a host, without a user and without a fragment")]
    Form,
}

impl HttpsUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if !text.starts_with("https://") {
            return Err(UrlError::Scheme);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Form)?;
        let host = uri.host().unwrap_or_default();
        let user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
        if host.is_empty() || user || text.contains('#') || text.len() > 2048 {
            return Err(UrlError::Form);
        }
        Ok(Self(uri))
    }

    /// The URL at which an issuer publishes its settings (OpenID Connect Discovery 1.0, section 4).
    pub(crate) fn discovery(issuer: &str) -> Result<Self, UrlError> {
        Self::parse(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
    }

    /// The URL that a redirection from this one leads to.
    pub(crate) fn join(&self, location: &str) -> Result<Self, UrlError> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Self::parse(&format!("https://{}{location}", self.authority()));
        }
        Self::parse(location)
    }

    /// Host and port as written.
    pub(crate) fn authority(&self) -> &str {
        self.0.authority().map(|authority| authority.as_str()).unwrap_or_default()
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(443)
    }

    /// Path and query.
    pub(crate) fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Whether both are of one server.
    pub(crate) fn is_same_server(&self, other: &HttpsUrl) -> bool {
        self.host().eq_ignore_ascii_case(other.host()) && self.port() == other.port()
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpsUrl({})", self.0)
    }
}

impl From<&HttpsUrl> for Arc<str> {
    fn from(url: &HttpsUrl) -> Self {
        url.to_string().into()
    }
}
