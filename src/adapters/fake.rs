//! Pools with `adapter = "fake"`: hosts in memory, for tests. It shows what a new kind has to bring.

use super::{AdapterConfig, Kind, LiveAdapter, Settings, Shared, plain, same};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use wharfinger_adapter::Failure;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value, fields, read};
use wharfinger_core::Traits;
use wharfinger_fake::Fake;

const TRAITS: Traits = Traits { prepares: true, cleans: true, repairs: false, probes: false };

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) seed: u32,
}

pub(crate) struct FakeKind;

impl Kind for FakeKind {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn is_hidden(&self) -> bool {
        true
    }

    fn defaults(&self) -> PoolDefaults {
        PoolDefaults { max: 3, ..PoolDefaults::hosts() }
    }

    fn tables(&self) -> Vec<(&'static str, &'static [&'static str])> {
        vec![("[pool.fake]", fields::<Config>())]
    }

    fn read(&self, table: Option<&Value>, scope: &Scope, _: &Path) -> Result<AdapterConfig, Vec<ConfigProblem>> {
        let config = table.map_or(Ok(Config::default()), |table| read::<Config>(table, scope))?;
        if config.seed == 13 {
            return Err(vec![ConfigProblem::new("`seed` is 13", "use another number").at(["seed"])]);
        }
        Ok(AdapterConfig::new(self, config))
    }
}

impl Settings for Config {
    fn traits(&self) -> Traits {
        TRAITS
    }

    fn make(&self, pool: &str, _: &Shared) -> Result<Arc<dyn LiveAdapter>, Failure> {
        Ok(plain(Fake::new(pool, TRAITS)))
    }

    fn equals(&self, other: &dyn Settings) -> bool {
        same(self, other)
    }
}
