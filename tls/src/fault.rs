//! Certificates that one side of a connection refuses.

use rustls::{AlertDescription, CertificateError};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A certificate that one side refuses. Another try does not mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// The client refuses that of the server.
    #[error("the server's certificate is not trusted: {detail}")]
    Server {
        /// The reason.
        why: Refusal,
        /// The reason in words.
        detail: String,
    },
    /// The server refuses that of the client.
    #[error("{}: {why}", refused(.file.as_deref()))]
    Client {
        /// The reason, as far as the server says it.
        why: Refusal,
        /// The file of the client's certificate. `None`: the client has none.
        file: Option<PathBuf>,
    },
}

/// The reason why a certificate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// One is required, and there is none.
    Missing,
    /// It has expired, or is not valid yet.
    Expired,
    /// It is revoked.
    Revoked,
    /// No known authority has signed it, or an authority's list of revoked certificates is out of date.
    UnknownAuthority,
    /// It has another name.
    Name,
    /// Another one.
    Other,
}

fn refused(file: Option<&Path>) -> String {
    match file {
        Some(file) => format!("the server refuses the certificate of {}", file.display()),
        None => "the server refuses the connection".to_owned(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Missing => "it requires a certificate, and there is none",
            Refusal::Expired => "it has expired, or is not valid yet",
            Refusal::Revoked => "it is revoked",
            Refusal::UnknownAuthority => "no authority that the server knows has signed it",
            Refusal::Name => "it has another name",
            Refusal::Other => "the server's log has the reason",
        })
    }
}

impl CertificateFault {
    /// The fault of the client's certificate that an alert of the server tells. `None`: the connection failed otherwise.
    pub fn told(error: &io::Error, file: Option<&Path>) -> Option<Self> {
        let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let rustls::Error::AlertReceived(alert) = tls else { return None };
        let why = match alert {
            AlertDescription::CertificateRequired => Refusal::Missing,
            AlertDescription::CertificateExpired => Refusal::Expired,
            AlertDescription::CertificateRevoked => Refusal::Revoked,
            AlertDescription::UnknownCA => Refusal::UnknownAuthority,
            AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => Refusal::Other,
            _ => return None,
        };
        Some(CertificateFault::Client { why, file: file.map(Path::to_path_buf) })
    }

    /// The fault of the server's certificate.
    pub(crate) fn of_server(error: &CertificateError, detail: String) -> Self {
        let why = match error {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Refusal::Expired,
            CertificateError::Revoked => Refusal::Revoked,
            CertificateError::UnknownIssuer => Refusal::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Refusal::Name,
            _ => Refusal::Other,
        };
        CertificateFault::Server { why, detail }
    }

    /// The reason.
    pub fn why(&self) -> Refusal {
        match self {
            CertificateFault::Server { why, .. } | CertificateFault::Client { why, .. } => *why,
        }
    }
}
