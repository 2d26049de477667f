//! Findings of `doctor` and `check-config --connect`, for people and for programs.

use super::error::Failure;
use super::ui::Ui;
use crate::adapters::{Finding, Health};
use serde_json::Value;

/// Findings as JSON, each with its pool.
pub(crate) fn json(found: &[(String, Finding)]) -> Value {
    let one = |(pool, one): &(String, Finding)| serde_json::json!({ "pool": pool, "what": one.what, "result": word(one.health), "text": one.text });
    found.iter().map(one).collect()
}

/// Prints findings as a table. `nothing`: the line for no findings.
pub(crate) fn print(ui: &Ui, found: &[(String, Finding)], nothing: &str) -> Result<(), Failure> {
    let mut table = ui.table(&["POOL", "WHAT", "RESULT", "TEXT"]);
    for (pool, one) in found {
        table.add_row(vec![pool.as_str(), one.what.as_str(), word(one.health), one.text.as_str()]);
    }
    ui.print(table, nothing)
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Good => "good",
        Health::Bad => "MISSING",
        Health::Minor => "missing, not needed",
        Health::Untried => "not tried",
    }
}
