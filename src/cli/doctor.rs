//! `doctor`: tries what a configuration needs outside of this machine, and says what is missing.

use super::check_config::load;
use super::error::Failure;
use super::exit::Exit;
use super::ui::Ui;
use crate::config::AdapterConfig;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;
use wharfinger_ec2::Accounts;
use wharfinger_ec2::doctor::{Finding, Health};

/// `doctor`.
#[derive(Subcommand, Debug)]
pub(crate) enum Patient {
    /// Each permission that pools of kind ec2 need, without buying anything, and one event through the queue
    Ec2(Ec2Args),
}

/// `doctor ec2`.
#[derive(Args, Debug)]
pub(crate) struct Ec2Args {
    /// The configuration
    #[arg(long, short, value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    config: PathBuf,
}

/// Examines, and exits with 78 if something is missing that is needed.
pub(crate) async fn examine(ui: &Ui, patient: &Patient) -> Result<Exit, Failure> {
    let Patient::Ec2(args) = patient;
    let loaded = load(ui, &args.config)?;
    let accounts = Accounts::aws();
    let mut found: Vec<(String, Finding)> = Vec::new();
    for (pool, config) in &loaded.adapters {
        let AdapterConfig::Ec2(config) = config else { continue };
        found.extend(accounts.examine(pool, config).await.into_iter().map(|finding| (pool.clone(), finding)));
    }
    let bad = found.iter().any(|(_, finding)| finding.health == Health::Bad);
    if ui.json {
        let findings: Vec<_> = found
            .iter()
            .map(|(pool, one)| json!({ "pool": pool, "what": one.what, "result": word(&one.health), "text": one.text }))
            .collect();
        ui.document(&json!({ "findings": findings }))?;
    } else {
        let mut table = ui.table(&["POOL", "WHAT", "RESULT", "TEXT"]);
        for (pool, one) in &found {
            table.add_row(vec![pool.as_str(), one.what.as_str(), word(&one.health), one.text.as_str()]);
        }
        ui.print(table, "no pool of kind ec2 in this configuration")?;
    }
    Ok(if bad { Exit::Config } else { Exit::Ok })
}

fn word(health: &Health) -> &'static str {
    match health {
        Health::Good => "good",
        Health::Bad => "MISSING",
        Health::Minor => "missing, not needed",
        Health::Untried => "not tried",
    }
}
