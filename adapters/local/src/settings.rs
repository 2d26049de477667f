//! Reads and checks a pool's table of the configuration file.

use crate::config::Config;
use std::path::Path;
use wharfinger_adapter::Traits;
use wharfinger_adapter::settings::{ConfigProblem, PoolDefaults, Scope, Value, read};

/// The defaults of a pool.
pub fn defaults() -> PoolDefaults {
    PoolDefaults::hosts()
}

impl Config {
    /// The abilities of the adapter. Hosts are prepared too: the slot's fence is written, which shows that the host answers.
    pub const TRAITS: Traits = Traits { prepares: true, cleans: true, repairs: true, probes: true };

    /// Reads a pool's table. Without a table, or without `root`, the scratch directories are in `wharfinger-scratch` beside
    /// the configuration file.
    ///
    /// # Errors
    /// All mistakes in the table.
    pub fn read(table: Option<&Value>, scope: &Scope, folder: &Path) -> Result<Self, Vec<ConfigProblem>> {
        let mut table = table.cloned().unwrap_or_else(Value::table);
        if let Value::Table(entries) = &mut table {
            entries.entry("root".into()).or_insert_with(|| Value::Text("wharfinger-scratch".into()));
        }
        let mut config: Config = read(&table, scope)?;
        config.root = folder.join(&config.root);
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// All mistakes in the settings.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let fault = if !self.root.is_absolute() {
            Some(("is not an absolute path", "write one that begins with /"))
        } else if self.root.to_str().is_none() {
            Some(("is not UTF-8 text", "name another folder"))
        } else {
            None
        };
        let problem =
            |(fault, remedy)| ConfigProblem::new(format!("`root` {:?} {fault}", self.root), remedy).at(["root"]);
        fault.map(problem).into_iter().collect()
    }
}
