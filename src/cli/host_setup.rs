//! `host-setup`: the script that prepares a machine of a pool for logins by certificate.

use super::check_config::load;
use super::error::Failure;
use super::exit::Exit;
use super::ui::Ui;
use crate::config::Loaded;
use clap::Args;
use std::path::PathBuf;
use std::process::Stdio;
use wharfinger_core::PoolConfig;

/// Arguments of `host-setup`.
#[derive(Args, Debug)]
pub(crate) struct HostSetupArgs {
    /// Which configuration
    #[arg(value_name = "FILE", env = "WHARFINGER_CONFIG", default_value = "wharfinger.toml")]
    config: PathBuf,
    /// The pool whose machine is prepared; needed if several pools sign certificates
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Number of slots of the machine; without it the greatest of the pool
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// The script that takes the set-up away
    #[arg(long)]
    undo: bool,
    /// Run the script on this machine, as root, instead of printing it
    #[arg(long)]
    apply: bool,
}

/// Prints the script, or runs it.
pub(crate) fn setup(ui: &Ui, args: &HostSetupArgs) -> Result<Exit, Failure> {
    let loaded = load(ui, &args.config)?;
    let (pool, script) = script(&loaded, args)?;
    if !args.apply {
        ui.out(script.trim_end())?;
        return Ok(Exit::Ok);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(Exit::Denied, "a machine is prepared by root").remedy(format!(
            "run it by sudo, or read it first: wharfinger host-setup --pool {pool} {}",
            args.config.display()
        )));
    }
    let failed = |why: String| Failure::new(Exit::Internal, format!("the script was not run: {why}"));
    let mut shell = std::process::Command::new("/bin/sh");
    let mut child = shell.arg("-s").stdin(Stdio::piped()).spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        use std::io::Write;
        // One that ends early says why by itself.
        let _ = stdin.write_all(script.as_bytes());
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    Ok(Exit::Command(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// The pool that is meant, and its script.
fn script(loaded: &Loaded, args: &HostSetupArgs) -> Result<(String, String), Failure> {
    let wrong = |message: String, remedy: &str| Failure::new(Exit::BadData, message).remedy(remedy);
    let setup = |pool: &PoolConfig| {
        let most = pool.inventory.iter().flatten().filter_map(|item| item.slots).max();
        let slots = args.slots.unwrap_or_else(|| most.unwrap_or(0).max(pool.slots));
        loaded.adapters.get(&*pool.name)?.settings().host_setup(&pool.name, slots, args.undo)
    };
    let named = |pool: &&PoolConfig| args.pool.as_ref().is_none_or(|name| **name == *pool.name);
    let mut found: Vec<_> =
        loaded.pools.iter().filter(named).filter_map(|pool| Some((pool.name.to_string(), setup(pool)?))).collect();
    match (found.pop(), found.is_empty()) {
        (Some((pool, script)), true) => {
            let script = script.map_err(|why| wrong(format!("pool {pool}: {why}"), "mend its authority"))?;
            Ok((pool, script))
        }
        (Some(_), false) => {
            Err(wrong("several pools sign certificates".into(), "name the one that is meant: --pool POOL"))
        }
        (None, _) => Err(wrong(
            match &args.pool {
                Some(name) => format!("no pool {name} signs certificates"),
                None => "no pool signs certificates".into(),
            },
            "add [pool.ssh.ca] to a pool of ssh machines",
        )),
    }
}
