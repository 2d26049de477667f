//! Reads a pool's table of the configuration file.

use crate::config::Config;
use std::time::Duration;
use wharfinger_adapter::Traits;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value, read};

/// The defaults of a pool. A check walks over the whole history.
pub fn defaults() -> PoolDefaults {
    PoolDefaults { host: false, max: 4, check_timeout: Some(Duration::from_secs(900)), ..PoolDefaults::hosts() }
}

impl Config {
    /// The abilities of the adapter with these settings.
    pub fn traits(&self) -> Traits {
        Traits { prepares: true, cleans: true, repairs: true, probes: self.probe_leased }
    }

    /// Reads a pool's table.
    ///
    /// # Errors
    /// All mistakes in the table; of settings that contradict each other, the first.
    pub fn read(table: Option<&Value>, scope: &Scope) -> Result<Self, Vec<ConfigProblem>> {
        let none = || {
            let remedy = "add [pool.copies] with repository = \"https://…\"";
            vec![ConfigProblem::new("this pool of copies names no repository", remedy)]
        };
        let config: Config = read(table.ok_or_else(none)?, scope)?;
        config.validate().map(|()| config).map_err(|problem| vec![problem])
    }
}
