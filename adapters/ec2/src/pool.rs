//! One pool as the calls of its adapter use it.

use crate::account::Account;
use crate::cloud::TemplateSpec;
use crate::config::Config;
use std::sync::Arc;
use wharfinger_ssh::SshAdapter;

/// A pool with the account that it shares with others.
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) account: Arc<Account>,
    /// Uses an instance as an SSH host.
    pub(crate) ssh: Arc<SshAdapter>,
    /// The launch template of the pool's fleets.
    pub(crate) template: TemplateSpec,
}
