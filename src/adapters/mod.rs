//! The registry of adapters. A kind of pools is registered in [`KINDS`] and described in a file of its own.
//!
//! The rest of the program asks a [`Kind`] for its defaults and its settings, and the settings for the adapter. It names no
//! adapter crate.
#![cfg_attr(
    not(all(feature = "cli", feature = "ec2")),
    allow(dead_code, reason = "the command line makes adapters, and EC2 alone has something to examine")
)]

mod copies;
#[cfg(feature = "ec2")]
mod ec2;
#[cfg(feature = "ec2")]
mod ec2_inventory;
#[cfg(test)]
mod fake;
mod local;
mod ssh;

use crate::engine::Handle;
use crate::pb;
use crate::rpc::PoolCredentials;
use futures::future::BoxFuture;
use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value};
use wharfinger_adapter::{Adapter, Failure, Shell};
use wharfinger_core::{Item, Traits};
use wharfinger_host::containment::Containment;

/// All kinds of this program, in the order in which messages list them.
pub(crate) static KINDS: &[&dyn Kind] = &[
    &ssh::Ssh,
    &local::Local,
    &copies::Copies,
    #[cfg(feature = "ec2")]
    &ec2::Ec2,
    #[cfg(test)]
    &fake::FakeKind,
];

/// Names of kinds that exist, and that this program was built without.
pub(crate) const LEFT_OUT: &[&str] = if cfg!(feature = "ec2") { &[] } else { &["ec2"] };

/// A kind of pools.
pub(crate) trait Kind: Sync {
    /// The value of `adapter` in the configuration, and the name of the kind's own table in the pool.
    fn name(&self) -> &'static str;

    /// Whether messages leave it out.
    fn is_hidden(&self) -> bool {
        false
    }

    /// The defaults of its pools.
    fn defaults(&self) -> PoolDefaults;

    /// The tables of its configuration by their titles, each with its keys.
    fn tables(&self) -> Vec<(&'static str, &'static [&'static str])>;

    /// Reads the settings of a pool from its own table. Relative paths start at the folder of the configuration.
    fn read(&self, table: Option<&Value>, scope: &Scope, folder: &Path) -> Result<AdapterConfig, Vec<ConfigProblem>>;
}

/// The kind with this name.
pub(crate) fn kind(name: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

/// The names of all kinds, for messages.
pub(crate) fn names() -> Vec<&'static str> {
    KINDS.iter().filter(|kind| !kind.is_hidden()).map(|kind| kind.name()).collect()
}

/// The settings of one pool, as its kind knows them.
pub(crate) trait Settings: fmt::Debug + Any + Send + Sync {
    /// The abilities of the adapter. They are known before the adapter is made, so that a file can be checked anywhere.
    fn traits(&self) -> Traits;

    /// The machines, for pools that list them.
    fn inventory(&self) -> Option<Vec<Item>> {
        None
    }

    /// The source of the credentials of the pool's leases.
    fn credentials(&self) -> PoolCredentials {
        PoolCredentials::None
    }

    /// These settings for a pool that asks this of its hosts. `None`: its resources are no hosts.
    fn contained(&self, containment: Containment) -> Option<AdapterConfig> {
        let _ = containment;
        None
    }

    /// Makes the adapter of a pool.
    fn make(&self, pool: &str, shared: &Shared) -> Result<Arc<dyn LiveAdapter>, Failure>;

    /// Tries everything that the pool needs outside of this machine. `None`: the kind has nothing to try.
    fn examine<'a>(&'a self, pool: &'a str, shared: &'a Shared) -> Option<BoxFuture<'a, Vec<Finding>>> {
        let _ = (pool, shared);
        None
    }

    /// Logs in to the hosts of the pool, and changes nothing there. `None`: the pool has no hosts that exist already.
    fn reach<'a>(&'a self, pool: &'a str) -> Option<BoxFuture<'a, Vec<HostReached>>> {
        let _ = pool;
        None
    }

    /// The script that prepares a host of the pool for logins by certificate, or undoes that. `None`: the pool needs none.
    fn host_setup(&self, pool: &str, slots: u32, undo: bool) -> Option<Result<String, String>> {
        let _ = (pool, slots, undo);
        None
    }

    /// Whether holders log in to hosts as other users than the broker.
    fn has_holders_apart(&self) -> bool {
        false
    }

    /// Asks the remotes of the pool from a host. `None`: the kind has none.
    fn ask_remotes<'a>(&'a self, shell: &'a Arc<dyn Shell>) -> Option<BoxFuture<'a, Vec<Finding>>> {
        let _ = shell;
        None
    }

    /// Whether other settings are equal to these.
    fn equals(&self, other: &dyn Settings) -> bool;
}

/// The settings of one pool's adapter.
#[derive(Clone, Debug)]
pub struct AdapterConfig {
    kind: &'static str,
    settings: Arc<dyn Settings>,
}

impl AdapterConfig {
    pub(crate) fn new(kind: &dyn Kind, settings: impl Settings) -> Self {
        Self { kind: kind.name(), settings: Arc::new(settings) }
    }

    /// The name of the adapter in the configuration.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The settings as the type of their adapter, if they are of that type.
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        (&*self.settings as &dyn Any).downcast_ref()
    }

    pub(crate) fn settings(&self) -> &dyn Settings {
        &*self.settings
    }
}

impl PartialEq for AdapterConfig {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.settings.equals(&*other.settings)
    }
}

impl Eq for AdapterConfig {}

/// Whether settings of any type are equal to these of a known one.
pub(crate) fn same<T: PartialEq + 'static>(one: &T, other: &dyn Settings) -> bool {
    (other as &dyn Any).downcast_ref::<T>().is_some_and(|other| one == other)
}

/// A change of a live adapter that was checked, and cannot fail any more.
pub(crate) type Change = Box<dyn FnOnce() + Send>;

/// An adapter that serves a pool.
pub(crate) trait LiveAdapter: Any + Send + Sync {
    /// The adapter itself.
    fn adapter(&self) -> Arc<dyn Adapter>;

    /// Checks other settings, and returns the change to them. `None`: they need a new adapter.
    fn change(&self, settings: &AdapterConfig) -> Option<Result<Change, Failure>> {
        let _ = settings;
        None
    }

    /// Gives the adapter access to the broker's rows.
    fn attend(&self, handle: &Handle) {
        let _ = handle;
    }
}

/// A live adapter without any needs of its own.
struct Plain(Arc<dyn Adapter>);

impl LiveAdapter for Plain {
    fn adapter(&self) -> Arc<dyn Adapter> {
        Arc::clone(&self.0)
    }
}

fn plain(adapter: impl Adapter) -> Arc<dyn LiveAdapter> {
    Arc::new(Plain(Arc::new(adapter)))
}

/// Everything that the adapters of one process share.
#[derive(Clone)]
pub(crate) struct Shared {
    #[cfg(feature = "ec2")]
    accounts: wharfinger_ec2::Accounts,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(feature = "ec2")]
            accounts: wharfinger_ec2::Accounts::aws(),
        }
    }

    /// Statistics of the launches of spot instances.
    #[cfg(feature = "ec2")]
    pub(crate) fn spot_stats(&self) -> Vec<pb::WeatherLine> {
        ec2_inventory::spot_stats(&self.accounts)
    }

    /// Without EC2 there are none.
    #[cfg(not(feature = "ec2"))]
    #[expect(clippy::unused_self, reason = "the same signature with and without EC2")]
    pub(crate) fn spot_stats(&self) -> Vec<pb::WeatherLine> {
        Vec::new()
    }
}

/// The result of a login to one host, as `check-config --connect` makes it.
pub(crate) struct HostReached {
    pub(crate) finding: Finding,
    /// A shell on the host, if it could be used.
    pub(crate) shell: Option<Arc<dyn Shell>>,
}

/// The finding of an attempt whose error has its remedy.
fn tried(what: String, result: Result<String, Failure>) -> Finding {
    match result {
        Ok(text) => Finding { what, health: Health::Good, text },
        Err(failure) => Finding { what, health: Health::Bad, text: format!("{}: {}", failure.reason, failure.message) },
    }
}

/// The result of one attempt of `doctor` or `check-config --connect`.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// The permission or setting.
    pub(crate) what: String,
    pub(crate) health: Health,
    /// The result and its remedy.
    pub(crate) text: String,
}

/// Whether something that a pool needs is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Good,
    /// Missing and needed.
    Bad,
    /// Missing, and the pool works without it.
    Minor,
    Untried,
}

#[cfg(test)]
pub(crate) use ssh::Live as LiveSsh;

#[cfg(test)]
mod tests;
