//! The settings of hooks.

use super::filter::Filter;
use hyper::Uri;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// Its name, by which its place in the trail is stored.
    pub name: String,
    /// The entries that it carries.
    pub filter: Filter,
    /// Entries within this time of the first one are one message. Zero: each entry is a message.
    pub fold: Duration,
    /// The age of an entry after which its message is given up.
    pub give_up: Duration,
    /// Maximum time of one delivery.
    pub timeout: Duration,
    /// The way to the receiver.
    pub way: Way,
}

/// The way to a receiver, and the form of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// CloudEvents 1.0 over HTTP, structured mode.
    CloudEvents {
        /// The receiver.
        to: Endpoint,
        /// The file of the secret that signs. `None`: nothing is signed.
        secret_file: Option<PathBuf>,
        /// The attribute `source` of the events.
        source: String,
    },
    /// An incoming webhook of Slack.
    Slack {
        /// The receiver.
        to: Endpoint,
    },
    /// Alertmanager's API, version 2.
    Alertmanager {
        /// The receiver.
        to: Endpoint,
    },
    /// An own program, which gets a CloudEvent on its standard input.
    Command {
        /// The program and its arguments.
        argv: Vec<String>,
        /// The attribute `source` of the events.
        source: String,
    },
}

impl Way {
    /// The name of the format.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::CloudEvents { .. } => "cloudevents",
            Self::Slack { .. } => "slack",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Command { .. } => "command",
        }
    }

    /// The receiver of messages over HTTP.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::CloudEvents { to, .. } | Self::Slack { to } | Self::Alertmanager { to } => Some(to),
            Self::Command { .. } => None,
        }
    }
}

/// A receiver over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its URL, or the file with it.
    pub url: Source,
    /// The file of a token for `Authorization: Bearer`.
    pub bearer_file: Option<PathBuf>,
    /// The file of the authorities. `None`: those that the machine trusts.
    pub ca_file: Option<PathBuf>,
}

/// The place of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the configuration.
    Here(HookUrl),
    /// The first line of a file: the URL is a secret. Read for each delivery.
    File(PathBuf),
}

/// A URL with `http` or `https`. Its path may be a secret, so only its server is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl(Uri);

/// The fault of a URL, as the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// It has another scheme.
    #[error("does not begin with https:// or http://")]
    Scheme,
    /// It is no URL of a server.
    #[error("is not a URL with a host, without a user and without a fragment")]
    Form,
}

impl HookUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`UrlFault`].
    pub fn parse(text: &str) -> Result<Self, UrlFault> {
        if !text.starts_with("https://") && !text.starts_with("http://") {
            return Err(UrlFault::Scheme);
        }
        let uri: Uri = text.parse().map_err(|_| UrlFault::Form)?;
        let user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
        if uri.host().is_none_or(str::is_empty) || user || text.contains('#') || text.len() > 2048 {
            return Err(UrlFault::Form);
        }
        Ok(Self(uri))
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Whether its host is this machine by its name or address.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether it names a path.
    pub fn has_path(&self) -> bool {
        !matches!(self.0.path(), "" | "/")
    }

    /// Host and port as written.
    pub(super) fn authority(&self) -> &str {
        self.0.authority().map(|authority| authority.as_str()).unwrap_or_default()
    }

    /// The host, without brackets.
    pub(super) fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub(super) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// Path and query.
    pub(super) fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without path and query.
impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme_str().unwrap_or_default(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_its_server_alone() {
        let url = HookUrl::parse("https://hooks.example.org/services/T0/B0/geheim?t=geheim").unwrap();
        assert_eq!((url.to_string(), format!("{url:?}")).0, "https://hooks.example.org");
        assert!(!format!("{url:?}").contains("geheim"));
        assert_eq!((url.host(), url.port(), url.path()), ("hooks.example.org", 443, "/services/T0/B0/geheim?t=geheim"));
        let here = HookUrl::parse("http://[::1]:9093").unwrap();
        assert!(here.is_loopback() && !here.has_path() && (here.host(), here.port()) == ("::1", 9093));
        for (text, fault) in [
            ("ftp://a/", UrlFault::Scheme),
            ("a.example.org", UrlFault::Scheme),
            ("https://", UrlFault::Form),
            ("https://ann:geheim@a/", UrlFault::Form),
            ("https://a/#b", UrlFault::Form),
            ("https://a b/", UrlFault::Form),
        ] {
            assert_eq!(HookUrl::parse(text), Err(fault), "{text}");
        }
    }
}
