//! Pools with `adapter = "copies"`: git working copies on hosts.

use super::{AdapterConfig, Finding, Kind, LiveAdapter, Settings, Shared, plain, same, tried};
use crate::rpc::PoolCredentials;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value, fields};
use wharfinger_adapter::{Failure, Shell};
use wharfinger_copies::{Config, CopiesAdapter};
use wharfinger_core::Traits;

pub(crate) struct Copies;

impl Kind for Copies {
    fn name(&self) -> &'static str {
        "copies"
    }

    fn defaults(&self) -> PoolDefaults {
        wharfinger_copies::defaults()
    }

    fn tables(&self) -> Vec<(&'static str, &'static [&'static str])> {
        vec![("[pool.copies]", fields::<Config>())]
    }

    fn read(&self, table: Option<&Value>, scope: &Scope, _: &Path) -> Result<AdapterConfig, Vec<ConfigProblem>> {
        Config::read(table, scope).map(|config| AdapterConfig::new(self, config))
    }
}

impl Settings for Config {
    fn traits(&self) -> Traits {
        Config::traits(self)
    }

    /// The pool of the host hands them out.
    fn credentials(&self) -> PoolCredentials {
        PoolCredentials::OfHost
    }

    fn make(&self, pool: &str, _: &Shared) -> Result<Arc<dyn LiveAdapter>, Failure> {
        CopiesAdapter::new(pool.into(), self.clone()).map(plain)
    }

    fn ask_remotes<'a>(&'a self, shell: &'a Arc<dyn Shell>) -> Option<BoxFuture<'a, Vec<Finding>>> {
        let asked = wharfinger_copies::ask_remotes(shell, self);
        let findings = asked.map(|all| all.into_iter().map(|one| tried(one.repository, one.result)).collect());
        Some(findings.boxed())
    }

    fn equals(&self, other: &dyn Settings) -> bool {
        same(self, other)
    }
}
