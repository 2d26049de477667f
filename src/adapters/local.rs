//! Pools with `adapter = "local"`: this machine as a host.

use super::{AdapterConfig, Finding, Health, HostReached, Kind, LiveAdapter, Settings, Shared, plain, same};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value, fields};
use wharfinger_adapter::{Failure, Shell};
use wharfinger_core::Traits;
use wharfinger_host::containment::Containment;
use wharfinger_local::{Config, LocalAdapter, LocalShell};

pub(crate) struct Local;

impl Kind for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn defaults(&self) -> PoolDefaults {
        wharfinger_local::defaults()
    }

    fn tables(&self) -> Vec<(&'static str, &'static [&'static str])> {
        vec![("[pool.local]", fields::<Config>())]
    }

    fn read(&self, table: Option<&Value>, scope: &Scope, folder: &Path) -> Result<AdapterConfig, Vec<ConfigProblem>> {
        Config::read(table, scope, folder).map(|config| AdapterConfig::new(self, config))
    }
}

impl Settings for Config {
    fn traits(&self) -> Traits {
        Config::TRAITS
    }

    fn contained(&self, containment: Containment) -> Option<AdapterConfig> {
        Some(AdapterConfig::new(&Local, Config { containment, ..self.clone() }))
    }

    fn make(&self, pool: &str, _: &Shared) -> Result<Arc<dyn LiveAdapter>, Failure> {
        Ok(plain(LocalAdapter::new(pool.into(), self.clone())))
    }

    fn reach<'a>(&'a self, _: &'a str) -> Option<BoxFuture<'a, Vec<HostReached>>> {
        let here = Finding { what: "this machine".into(), health: Health::Good, text: "is here".into() };
        let shell: Arc<dyn Shell> = Arc::new(LocalShell);
        Some(async { vec![HostReached { finding: here, shell: Some(shell) }] }.boxed())
    }

    fn equals(&self, other: &dyn Settings) -> bool {
        same(self, other)
    }
}
