//! `ssh-config`: an OpenSSH configuration for the host of a lease, so that ssh, scp, rsync, git and ansible work.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::run::login::{Login, SshFiles, Way, key_without_login};
use super::select::{Named, named};
use super::text;
use crate::pb;
use clap::Args;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wharfinger_adapter::{access, quote};

/// Arguments of `ssh-config`.
#[derive(Args, Debug)]
pub(crate) struct SshConfigArgs {
    /// Which: an active lease
    #[arg(value_name = "LEASE")]
    lease: String,
    /// Print nothing, and renew the certificate once half of its life is over; the printed configuration does it at each connection
    #[arg(long)]
    renew: bool,
    /// Include the command that the server names as the way to the host (proxy_command), also if the server is on another machine
    #[arg(long, env = "WHARFINGER_ALLOW_PROXY_COMMAND")]
    allow_proxy_command: bool,
}

/// The file with the time of the next certificate.
const RENEW_AT: &str = "renew_at";

/// Time after which unused files of a lease are removed, in seconds.
const FORGOTTEN_AFTER: u64 = 24 * 3600;

/// Writes key, certificate and host keys into a directory of the user, and prints a configuration that names them.
pub(crate) async fn print(context: &Context, args: SshConfigArgs) -> Result<Exit, Failure> {
    let Ok(Named::Lease(id)) = named(&args.lease) else {
        return Err(Failure::new(Exit::BadData, format!("{:?} is no lease", args.lease))
            .remedy("name an active lease: wharfinger ls shows those that are yours"));
    };
    let files = SshFiles::kept(&id)?;
    files.forget_others(|files| next_at(files).is_some_and(|at| at + FORGOTTEN_AFTER < now_s()));
    if args.renew && is_fresh(&files) {
        return Ok(Exit::Ok);
    }
    let client = context.connect().await?;
    let lease = client.get(&id).await.map_err(|error| context.failure(error))?;
    if !lease.may_work() {
        files.remove();
        return Err(Failure::new(Exit::BadData, format!("lease {id} is {}", text::lease_state(&lease))));
    }
    let pairs = lease.access_pairs();
    let known = |key: &str| pairs.get(key).cloned().filter(|value| !value.is_empty());
    if known(access::TRANSPORT).as_deref() != Some("ssh") {
        return Err(Failure::new(Exit::BadData, format!("{id} has no way in over SSH")));
    }
    let proxy = known(access::PROXY_COMMAND);
    if let Some(command) = proxy.as_ref().filter(|_| !args.allow_proxy_command && !context.is_here()) {
        let message = "the server says to reach the host by a command, and nothing proves who that server is";
        return Err(Failure::new(Exit::Denied, message)
            .detail(format!("proxy_command: {command:?}"))
            .remedy("pass --allow-proxy-command if the network up to the server is trusted"));
    }
    let (way, key) = if lease.has_login() {
        let key = files.path("key");
        let login = Login::make(context, &client, &lease, key.exists().then_some(&key)).await?;
        files.write_login(&login)?;
        files.write(RENEW_AT, &(now_s() + login.half_life.as_secs()).to_string())?;
        (login.way, None)
    } else {
        let internal = |why| Failure::new(Exit::Internal, format!("the access of {id} is no way in: {why}; report it"));
        let way = Way::of_lease(&lease).map_err(internal)?;
        files.write_host_keys(&id, &way)?;
        let key = key_without_login(&files, &lease)?;
        (way, Some(key))
    };
    if args.renew {
        return Ok(Exit::Ok);
    }
    let block = files.host_block(&id, &way, key.as_deref(), proxy.as_deref());
    let until = lease.expires_at.as_ref().and_then(text::rfc3339).unwrap_or_default();
    context.ui.out(&format!("# Lease {id}, until {until} unless it is renewed. Use: ssh -F THIS_FILE {id}"))?;
    if lease.has_login() {
        context.ui.out(&renewing(context, &lease))?;
    }
    context.ui.out(block.trim_end())?;
    Ok(Exit::Ok)
}

/// The lines with which ssh renews the certificate before it connects.
fn renewing(context: &Context, lease: &pb::Lease) -> String {
    let program = std::env::current_exe().map_or_else(|_| "wharfinger".into(), |path| path.display().to_string());
    let words =
        [program.as_str(), "--server", &context.server, "ssh-config", "--renew", &lease.id].map(quote).join(" ");
    // ssh takes % for a token of its own, and the quotes for the end of the text.
    let line = words.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
    format!("Match originalhost {} exec \"{line}\"", lease.id)
}

/// Whether the certificate has not reached half of its life.
fn is_fresh(files: &SshFiles) -> bool {
    // A time that is far off is of a clock that was set.
    let left = next_at(files).map(|at| at.saturating_sub(now_s()));
    left.is_some_and(|left| left > 0 && left < Duration::from_secs(24 * 3600).as_secs())
}

/// The time of the next certificate, in seconds since the Unix epoch.
fn next_at(files: &SshFiles) -> Option<u64> {
    std::fs::read_to_string(files.path(RENEW_AT)).ok()?.trim().parse().ok()
}

fn now_s() -> u64 {
    let now: SystemTime = crate::clock::wall();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
