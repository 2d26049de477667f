//! A host as a connection needs it: address, keys, times and limits.

use crate::credential::HolderCredential;
use russh::keys::{PrivateKey, PublicKey};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where and how to log in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) key: Arc<PrivateKey>,
    /// A key pair with a certificate, which is used in place of `key`.
    pub(crate) certified: Option<Arc<HolderCredential>>,
    /// Where the key came from, for messages and handles.
    pub(crate) key_path: Option<PathBuf>,
    pub(crate) host_key: PublicKey,
    pub(crate) proxy_command: Option<String>,
    pub(crate) limits: Limits,
}

impl Endpoint {
    pub(crate) fn place(&self) -> String {
        format!("host {} ({}:{})", self.name, self.address, self.port)
    }
}

/// Times and limits of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) answer: Duration,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_max: usize,
    pub(crate) sessions: usize,
    pub(crate) watch: Option<Watch>,
}

/// What is looked at on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) notice_file: String,
    pub(crate) shutdown_file: String,
    pub(crate) command: String,
    pub(crate) command_source: &'static str,
    pub(crate) interval: Duration,
    /// Without a slash at its end.
    pub(crate) work_dir: String,
}
