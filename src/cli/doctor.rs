//! `doctor`: checks that everything outside of this machine that a configuration needs is there.

use super::check_config::load;
use super::error::Failure;
use super::exit::Exit;
use super::findings;
use super::ui::Ui;
use crate::adapters::{Finding, Health, Shared};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `doctor`.
#[derive(Subcommand, Debug)]
pub(crate) enum Patient {
    /// Try each permission that pools of kind ec2 need, and send one event through the queue; buys nothing
    Ec2(Ec2Args),
}

/// `doctor ec2`.
#[derive(Args, Debug)]
pub(crate) struct Ec2Args {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    config: PathBuf,
}

/// Examines the pools. The exit code is 78 if something is missing that is needed.
pub(crate) async fn examine(ui: &Ui, patient: &Patient) -> Result<Exit, Failure> {
    let Patient::Ec2(args) = patient;
    let loaded = load(ui, &args.config)?;
    let shared = Shared::new();
    let mut found: Vec<(String, Finding)> = Vec::new();
    for (pool, config) in &loaded.adapters {
        if let Some(examined) = config.settings().examine(pool, &shared) {
            found.extend(examined.await.into_iter().map(|finding| (pool.clone(), finding)));
        }
    }
    let bad = found.iter().any(|(_, finding)| finding.health == Health::Bad);
    if ui.json {
        ui.document(&json!({ "findings": findings::json(&found) }))?;
    } else {
        findings::print(ui, &found, "this configuration has no pool of kind ec2")?;
    }
    Ok(if bad { Exit::Config } else { Exit::Ok })
}
