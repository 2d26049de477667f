//! SSH machines as hosts.
//!
//! An inventory in the configuration says which machines there are and which **host key** each of them has; no other
//! key is ever accepted. One connection per host is kept open, and its end is reported at once: that is how the broker
//! learns of a dead host within milliseconds instead of at the next probe. Commands whose output goes to a reader that
//! may be slow get a connection of their own (`connection.rs` says why), so that nothing can hold up a probe.
//!
//! The host needs POSIX sh and coreutils; nothing is installed there.

mod adapter;
mod address;
mod answers;
mod authority;
mod authority_problems;
mod canary;
mod certifier;
mod config;
mod connection;
mod credential;
mod dial;
mod endpoint;
mod error;
mod holder_key;
mod holders;
mod host_setup;
mod key;
mod key_file;
mod logins;
mod notices;
mod probe;
mod proxy;
mod pulse;
mod reach;
mod remote;
mod settings;
mod shell;
mod timeout;
mod watch_host;

pub use adapter::{Settings, SshAdapter};
pub use authority::{Authority, KeyType, Permit};
pub use certifier::Certifier;
pub use config::{Config, Host};
pub use credential::HolderCredential;
pub use holder_key::HolderKey;
pub use host_setup::HostSetup;
pub use key::{HostKey, HostKeyType, host_key, host_key_from, public_key, public_of};
pub use key_file::key_file_problem;
pub use reach::Reached;
pub use settings::defaults;
pub use shell::{KeySource, Target, connect_shell};
