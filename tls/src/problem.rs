//! Certificates, keys and lists that cannot be used.

use std::path::{Path, PathBuf};

/// The setting that names a file or a value at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The server's or the client's own certificate.
    Certificate,
    /// The private key of that certificate.
    Key,
    /// Authorities that sign client certificates.
    ClientCa,
    /// Authorities that sign server certificates.
    Ca,
    /// Lists of revoked certificates.
    Crl,
    /// The names that an authority may sign.
    Trust,
    /// The list of refused certificates.
    Revoked,
}

impl Setting {
    /// The key in a configuration file.
    pub fn key(self) -> &'static str {
        match self {
            Setting::Certificate => "certificate",
            Setting::Key => "key",
            Setting::ClientCa => "client_ca",
            Setting::Ca => "ca",
            Setting::Crl => "crl",
            Setting::Trust => "trust",
            Setting::Revoked => "revoked",
        }
    }
}

/// A file or a value that cannot be used. The configuration is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}; {remedy}", path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default())]
pub struct TlsProblem {
    /// The setting at fault.
    pub setting: Setting,
    /// The file at fault, if the fault is in one.
    pub path: Option<PathBuf>,
    /// The fault.
    pub message: String,
    /// The remedy.
    pub remedy: String,
}

impl TlsProblem {
    pub(crate) fn file(
        setting: Setting,
        path: &Path,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> TlsProblem {
        TlsProblem { setting, path: Some(path.into()), message: message.into(), remedy: remedy.into() }
    }

    pub(crate) fn value(setting: Setting, message: impl Into<String>, remedy: impl Into<String>) -> TlsProblem {
        TlsProblem { setting, path: None, message: message.into(), remedy: remedy.into() }
    }
}
