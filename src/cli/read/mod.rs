//! Verbs that read and change nothing.

mod explain;
mod get;
mod list;
mod pools;
mod queue;
mod resources;
mod spot_stats;
mod watch_resources;

pub(crate) use explain::{explain, print_blockers, print_start};
pub(crate) use get::{OneLease, get, print_lease};
pub(crate) use list::{LsArgs, ls};
pub(crate) use pools::pools;
pub(crate) use queue::{QueueArgs, queue};
pub(crate) use resources::{OneResource, ResourcesArgs, resource, resource_why, resources};
pub(crate) use spot_stats::spot_stats;

use super::connect::Context;
use super::error::Failure;

/// Prints facts, one a line, with their names in a column.
fn print_facts(context: &Context, rows: &[(&str, String)]) -> Result<(), Failure> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        if *name == "state" {
            context.ui.out(&format!("{name:width$}  {}", context.ui.state_text(value).trim_end()))?;
        } else {
            context.ui.out(&format!("{name:width$}  {value}"))?;
        }
    }
    Ok(())
}

/// A hyphen in the place of an empty cell.
fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
