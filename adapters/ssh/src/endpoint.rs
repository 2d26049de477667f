//! A host as a connection needs it: address, keys, times and limits.

use crate::credential::HolderCredential;
use russh::keys::{PrivateKey, PublicKey};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Attempts under way at once for one kept connection, and beside one that is silent. With the other logins to the host they
/// are fewer than the ten at which sshd begins to drop them.
const ATTEMPTS_MAX: usize = 3;
const EAGER_MAX: usize = 5;

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
    /// From one ping to the next on a host with leases; `None`: no pings.
    pub(crate) pulse: Option<Duration>,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_max: usize,
    pub(crate) sessions: usize,
    pub(crate) watch: Option<Watch>,
}

/// Sources of announcements on a host.
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

/// How many attempts at one connection stand beside each other.
#[derive(Clone, Copy)]
pub(crate) struct Attempts {
    pub(crate) most: usize,
    /// From one to the next.
    pub(crate) next: Duration,
}

impl Attempts {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        // A proxy is a process here, and perhaps a login elsewhere: one is enough.
        let most = if endpoint.proxy_command.is_some() { 1 } else { ATTEMPTS_MAX };
        Self { most, next: endpoint.limits.answer }
    }

    /// For a host that answered a moment ago. Simulated with bursts of 30 % loss, five attempts half a second apart come through
    /// before the host would be given up, where of three attempts a second apart one in 10,000 bursts leaves none.
    pub(crate) fn eager(endpoint: &Endpoint) -> Self {
        let usual = Self::of(endpoint);
        if usual.most == 1 || endpoint.limits.pulse.is_none() {
            return usual;
        }
        Self { most: EAGER_MAX, next: endpoint.limits.answer / 6 }
    }
}
