//! Pools with `adapter = "ssh"`: machines that are listed, reached by SSH.

use super::{AdapterConfig, Change, HostReached, Kind, LiveAdapter, Settings, Shared, same, tried};
use crate::rpc::PoolCredentials;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value, fields};
use wharfinger_adapter::{Adapter, Failure};
use wharfinger_core::{Item, Traits};
use wharfinger_host::containment::Containment;
use wharfinger_ssh::{Authority, Certifier, Config, HolderKey, HostSetup, SshAdapter};

pub(crate) struct Ssh;

impl Kind for Ssh {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn defaults(&self) -> PoolDefaults {
        wharfinger_ssh::defaults()
    }

    fn tables(&self) -> Vec<(&'static str, &'static [&'static str])> {
        vec![
            ("[pool.ssh]", fields::<Config>()),
            ("[pool.ssh.ca]", fields::<Authority>()),
            ("[[pool.ssh.host]]", Config::host_keys()),
        ]
    }

    fn read(&self, table: Option<&Value>, scope: &Scope, folder: &Path) -> Result<AdapterConfig, Vec<ConfigProblem>> {
        Config::read(table, scope, folder).map(|config| AdapterConfig::new(self, config))
    }
}

impl Settings for Config {
    fn traits(&self) -> Traits {
        Config::TRAITS
    }

    fn inventory(&self) -> Option<Vec<Item>> {
        let items = self.hosts.iter().map(|host| Item {
            name: host.name.as_str().into(),
            labels: host.labels.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
            slots: host.slots,
            enabled: host.enabled,
            disabled_reason: host.disabled_reason.as_deref().map(Arc::from),
        });
        Some(items.collect())
    }

    fn credentials(&self) -> PoolCredentials {
        holders(self)
    }

    fn contained(&self, containment: Containment) -> Option<AdapterConfig> {
        Some(AdapterConfig::new(&Ssh, Config { containment, ..self.clone() }))
    }

    fn make(&self, pool: &str, _: &Shared) -> Result<Arc<dyn LiveAdapter>, Failure> {
        Ok(Arc::new(Live(Arc::new(SshAdapter::new(pool.into(), self.clone())?))))
    }

    fn reach<'a>(&'a self, pool: &'a str) -> Option<BoxFuture<'a, Vec<HostReached>>> {
        let reached = async move {
            let adapter = match SshAdapter::new(pool.into(), self.clone()) {
                Ok(adapter) => adapter,
                Err(failure) => {
                    return vec![HostReached { finding: tried("hosts".into(), Err(failure)), shell: None }];
                }
            };
            let hosts = adapter.reach().await.into_iter().map(|host| {
                let (shell, result) = match host.result {
                    Ok((shell, said)) => (Some(shell), Ok(format!("logged in; {said}"))),
                    Err(failure) => (None, Err(failure)),
                };
                HostReached { finding: tried(format!("host {}", host.host), result), shell }
            });
            hosts.collect()
        };
        Some(reached.boxed())
    }

    fn host_setup(&self, pool: &str, slots: u32, undo: bool) -> Option<Result<String, String>> {
        host_setup(self, pool, slots, undo)
    }

    fn has_holders_apart(&self) -> bool {
        Config::has_holders_apart(self)
    }

    fn equals(&self, other: &dyn Settings) -> bool {
        same(self, other)
    }
}

/// The script that prepares a host of the pool, or undoes that. `None`: the pool signs no certificates.
pub(super) fn host_setup(config: &Config, pool: &str, slots: u32, undo: bool) -> Option<Result<String, String>> {
    let setup = HostSetup::of(pool, config, slots)?;
    Some(if undo { Ok(setup.undo()) } else { setup.script() })
}

/// The way in that a pool of hosts gives to holders, if it gives one: certificates, or a key.
pub(super) fn holders(config: &Config) -> PoolCredentials {
    match (Certifier::of(config), HolderKey::of(config)) {
        (Some(certifier), _) => PoolCredentials::Certificates(Arc::new(certifier)),
        (None, Some(key)) => PoolCredentials::Source(Arc::new(key)),
        (None, None) => PoolCredentials::None,
    }
}

/// An adapter whose inventory can change while it keeps its connections.
pub(crate) struct Live(pub(crate) Arc<SshAdapter>);

impl LiveAdapter for Live {
    fn adapter(&self) -> Arc<dyn Adapter> {
        self.0.clone()
    }

    fn change(&self, settings: &AdapterConfig) -> Option<Result<Change, Failure>> {
        let config = settings.downcast::<Config>()?.clone();
        let adapter = Arc::clone(&self.0);
        let checked = wharfinger_ssh::Settings::read(config);
        Some(checked.map(|settings| Box::new(move || adapter.adopt(settings)) as Change))
    }
}
