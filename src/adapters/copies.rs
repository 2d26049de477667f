//! Pools with `adapter = "copies"`: git working copies on hosts.

use super::{AdapterConfig, Kind, LiveAdapter, Settings, Shared, plain, same};
use crate::rpc::PoolCredentials;
use std::path::Path;
use std::sync::Arc;
use wharfinger_adapter::Failure;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value, fields};
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

    fn equals(&self, other: &dyn Settings) -> bool {
        same(self, other)
    }
}
