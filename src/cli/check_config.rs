//! `check-config`: reads the configuration as a server would, and says what it makes of it.

use super::error::Failure;
use super::exit::Exit;
use super::findings;
use super::ui::Ui;
use crate::adapters::{AdapterConfig, Finding, Health};
use crate::config::{ConfigError, Loaded, duration};
use crate::hooks::{HookSettings, Source, Way};
use crate::rpc::PoolCredentials;
use clap::Args;
use futures::future::join_all;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use wharfinger_core::{Brake, Millis, PoolConfig};

/// Arguments of `check-config`.
#[derive(Args, Debug)]
pub(crate) struct CheckConfigArgs {
    /// Which
    #[arg(value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    config: PathBuf,
    /// Log in to each host, ask each remote, fetch the keys of each issuer, and connect to the receiver of each hook and to the collector; change nothing there. Where holders log in by certificate, wrong ones are tried too
    #[arg(long, alias = "hosts")]
    connect: bool,
}

/// Loads a configuration, and reports all of its mistakes.
pub(crate) fn load(ui: &Ui, path: &Path) -> Result<Loaded, Failure> {
    crate::config::load(path).map_err(|error| match error {
        ConfigError::Invalid(report) => {
            ui.err(&report.render(ui.color_err));
            Failure::silent(Exit::Config)
        }
        other @ ConfigError::Unreadable { .. } => other.into(),
    })
}

/// Checks and prints a summary. With `--connect` the exit code is 78 if a host or a remote cannot be used.
pub(crate) async fn check(ui: &Ui, args: &CheckConfigArgs) -> Result<Exit, Failure> {
    let loaded = load(ui, &args.config)?;
    for pool in shared_keys(&loaded) {
        ui.warn(&format!(
            "pool {pool} gives one key to the holders of several tenants, and it opens all its hosts after a lease too: sign certificates \
             ([pool.ssh.ca], docs/login.md)"
        ));
    }
    let found = if args.connect { connect(&loaded).await } else { Vec::new() };
    let exit = if found.iter().any(|(_, one)| one.health == Health::Bad) { Exit::Config } else { Exit::Ok };
    let warned = !loaded.warnings.problems().is_empty();
    if warned && !ui.json {
        ui.err(&format!("{}\n", loaded.warnings.render(ui.color_err)));
    }
    if ui.json {
        let mut document = summary(&loaded);
        if args.connect {
            document["findings"] = findings::json(&found);
        }
        ui.document(&document)?;
        return Ok(exit);
    }
    ui.out(&format!("listen  {}", loaded.server.listen))?;
    if let Some(unix) = &loaded.server.unix {
        ui.out(&format!("listen  unix://{}", unix.path.display()))?;
    }
    ui.out(&format!("store   {}", loaded.store))?;
    if let Some(cluster) = &loaded.cluster {
        ui.out(&format!("cluster {}, a lead of {:?}", cluster.advertise, cluster.lead))?;
    }
    if !loaded.roles.own().is_empty() {
        let names: Vec<&str> = loaded.roles.own().iter().map(|role| &*role.name).collect();
        ui.out(&format!("roles   {}", names.join(", ")))?;
    }
    for issuer in loaded.auth.iter().flat_map(|auth| &auth.issuers) {
        ui.out(&format!(
            "issuer  {} {} for {}, grants: {}",
            issuer.name,
            issuer.issuer,
            issuer.audience,
            issuer.grants.len()
        ))?;
    }
    for hook in &loaded.hooks {
        ui.out(&format!("hook    {} {}: {}", hook.name, hook.way.as_str(), receiver(hook)))?;
    }
    if let Some(traces) = &loaded.traces {
        ui.out(&format!("traces  {}", traces.endpoint))?;
    }
    let mut table = ui.table(&[
        "POOL", "ADAPTER", "ON", "ENABLED", "MACHINES", "READY", "MAX", "SLOTS", "TTL", "IDLE", "DRAIN", "BRAKE",
        "LABELS",
    ]);
    for pool in &loaded.pools {
        let labels: Vec<String> = pool.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.add_row(vec![
            pool.name.as_ref().into(),
            pool.adapter.as_ref().into(),
            if pool.on.is_empty() { "-".into() } else { pool.on.join(",").into() },
            ui.state(if pool.enabled { "yes" } else { "no" }),
            machines(pool).into(),
            pool.min_ready.into(),
            pool.max.into(),
            pool.slots.into(),
            format!("{} to {}", duration::format(pool.default_ttl), duration::format(pool.max_ttl)).into(),
            pool.idle.map_or_else(|| "-".into(), duration::format).into(),
            drain(pool).into(),
            brake(pool).into(),
            comfy_table::Cell::from(labels.join(" ")),
        ]);
    }
    ui.out("")?;
    ui.print(table, "no pools: nothing can be leased until there is one")?;
    if args.connect {
        ui.out("")?;
        findings::print(ui, &found, "no pool has hosts that could be logged in to")?;
    }
    if exit == Exit::Ok {
        let but = if warned { ", but for the warnings" } else { "" };
        ui.out(&format!("\n{} is fine{but}", args.config.display()))?;
    }
    Ok(exit)
}

/// The pools that hand one key to all holders, where holders are of several tenants.
fn shared_keys(loaded: &Loaded) -> Vec<&str> {
    let Some(callers) = &loaded.auth else { return Vec::new() };
    let tokens = callers.tokens.iter().map(|token| &token.tenant);
    let tenants: BTreeSet<_> = tokens.chain(callers.certificates.iter().map(|grant| &grant.tenant)).collect();
    if tenants.len() < 2 {
        return Vec::new();
    }
    let hands_out = |settings: &AdapterConfig| matches!(settings.settings().credentials(), PoolCredentials::Source(_));
    loaded.adapters.iter().filter(|(_, settings)| hands_out(settings)).map(|(pool, _)| pool.as_str()).collect()
}

/// Logs in to the hosts of each pool, all at the same time, and asks the remotes from one host of each pool of hosts.
async fn connect(loaded: &Loaded) -> Vec<(String, Finding)> {
    let pools = loaded.pools.iter().filter(|pool| pool.enabled);
    let pools = pools.filter_map(|pool| Some((pool, loaded.adapters.get(&*pool.name)?)));
    let pools: Vec<_> = pools.collect();
    let reached = pools.iter().filter_map(|(pool, settings)| {
        let reached = settings.settings().reach(&pool.name)?;
        Some(async move { (pool.name.clone(), reached.await) })
    });
    let mut found = ask_issuers(loaded).await;
    found.extend(ask_receivers(loaded).await);
    let mut shells = BTreeMap::new();
    for (pool, hosts) in join_all(reached).await {
        for host in hosts {
            found.push((pool.to_string(), host.finding));
            if let Some(shell) = host.shell {
                shells.entry(pool.clone()).or_insert(shell);
            }
        }
    }
    for (pool, settings) in &pools {
        for on in &pool.on {
            let from = format!("from pool {on}");
            let Some(shell) = shells.get(on) else {
                let text = "no host of that pool can be logged in to now";
                found.push((pool.name.to_string(), Finding { what: from, health: Health::Untried, text: text.into() }));
                continue;
            };
            let Some(asked) = settings.settings().ask_remotes(shell) else { continue };
            for finding in asked.await {
                let finding = Finding { what: format!("{} {from}", finding.what), ..finding };
                found.push((pool.name.to_string(), finding));
            }
        }
    }
    found
}

/// Fetches the keys of each issuer of tokens.
async fn ask_issuers(loaded: &Loaded) -> Vec<(String, Finding)> {
    let issuers = loaded.auth.iter().flat_map(|auth| &auth.issuers);
    let asked = issuers.map(async |issuer| {
        let (health, text) = match issuer.fetch_keys().await {
            Ok(keys) if keys.left_out().is_empty() => (Health::Good, format!("keys: {}", keys.len())),
            Ok(keys) => (Health::Good, format!("keys: {}; left out: {}", keys.len(), keys.left_out().join("; "))),
            Err(error) => (Health::Bad, error),
        };
        ("[auth]".to_owned(), Finding { what: format!("issuer {}", issuer.name), health, text })
    });
    join_all(asked).await
}

/// The receiver of a hook, without what is secret of its URL.
fn receiver(hook: &HookSettings) -> String {
    match &hook.way {
        Way::Command { argv, .. } => argv.first().cloned().unwrap_or_default(),
        Way::CloudEvents { to, .. } | Way::Slack { to } | Way::Alertmanager { to } => match &to.url {
            Source::Here(url) => url.to_string(),
            Source::File(path) => format!("the URL in {}", path.display()),
        },
    }
}

/// Connects to the receivers of hooks and to the collector, and sends nothing.
async fn ask_receivers(loaded: &Loaded) -> Vec<(String, Finding)> {
    let asked = loaded.hooks.iter().map(async |hook| {
        let (health, text) = match crate::hooks::reach(hook).await {
            Ok(text) => (Health::Good, text),
            Err(error) => (Health::Bad, error),
        };
        ("[[hook]]".to_owned(), Finding { what: format!("hook {}", hook.name), health, text })
    });
    let mut found = join_all(asked).await;
    if let Some(traces) = &loaded.traces {
        let (health, text) = match crate::traces::reach(traces).await {
            Ok(text) => (Health::Good, text),
            Err(error) => (Health::Bad, error),
        };
        found.push(("[traces]".to_owned(), Finding { what: "collector".to_owned(), health, text }));
    }
    found
}

/// The fate of live leases when the configuration takes their resource away.
fn drain(pool: &PoolConfig) -> String {
    match pool.drain {
        None => "wait".into(),
        Some(Millis::ZERO) => "now".into(),
        Some(span) => duration::format(span),
    }
}

/// `over 50 % of zone`.
fn brake(pool: &PoolConfig) -> String {
    if !pool.on.is_empty() {
        return "-".into();
    }
    let mut text = match pool.brake.share {
        100 => "never".into(),
        share => format!("over {share} % of a {}", pool.domain.as_deref().unwrap_or("pool")),
    };
    if pool.doubt.dry_run {
        text.push_str(" (dry run)");
    }
    text
}

/// `3`, or `2 of 3` if one is not enabled.
fn machines(pool: &PoolConfig) -> String {
    let Some(items) = &pool.inventory else { return "-".into() };
    let enabled = items.iter().filter(|item| item.enabled).count();
    if enabled == items.len() { enabled.to_string() } else { format!("{enabled} of {}", items.len()) }
}

fn summary(loaded: &Loaded) -> serde_json::Value {
    let time = |span: Millis| duration::format(span);
    let pools: Vec<serde_json::Value> = loaded
        .pools
        .iter()
        .map(|pool| {
            json!({
                "name": &*pool.name,
                "adapter": &*pool.adapter,
                "on": pool.on.iter().map(|name| &**name).collect::<Vec<_>>(),
                "enabled": pool.enabled,
                "disabled_reason": pool.disabled_reason.as_deref(),
                "labels": pool.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>(),
                "machines": pool.inventory.as_ref().map(|items| {
                    items.iter().map(|item| json!({
                        "name": &*item.name,
                        "enabled": item.enabled,
                        "disabled_reason": item.disabled_reason.as_deref(),
                    })).collect::<Vec<_>>()
                }),
                "min_ready": pool.min_ready,
                "max": pool.max,
                "slots": pool.slots,
                "default_ttl": time(pool.default_ttl),
                "max_ttl": time(pool.max_ttl),
                "idle": pool.idle.map(time),
                "domain": pool.domain.as_deref(),
                "drain": drain(pool),
                "max_hold": time(pool.max_hold),
                "dry_run": pool.doubt.dry_run,
                "brake": brake_json(&pool.brake),
            })
        })
        .collect();
    json!({
        "listen": loaded.server.listen.to_string(),
        "listen_unix": loaded.server.unix.as_ref().map(|unix| unix.path.display().to_string()),
        "store": loaded.store.to_string(),
        "cluster": loaded.cluster.as_ref().map(|cluster| {
            json!({ "advertise": cluster.advertise, "lead_ms": cluster.lead.as_millis() as u64 })
        }),
        "brake": brake_json(&loaded.limits.brake),
        "roles": loaded.roles.own().iter().map(|role| role.name.to_string()).collect::<Vec<_>>(),
        "traces": loaded.traces.as_ref().map(|traces| traces.endpoint.to_string()),
        "hooks": loaded.hooks.iter().map(|hook| {
            json!({ "name": hook.name, "format": hook.way.as_str(), "receiver": receiver(hook) })
        }).collect::<Vec<_>>(),
        "warnings": loaded.warnings.problems().iter().map(|one| json!({
            "line": loaded.warnings.line(one), "message": one.message, "remedy": one.remedy,
        })).collect::<Vec<_>>(),
        "pools": pools,
    })
}

fn brake_json(brake: &Brake) -> serde_json::Value {
    json!({
        "floor": brake.floor,
        "share": brake.share,
        "hold": duration::format(brake.hold),
        "window": duration::format(brake.window),
    })
}
