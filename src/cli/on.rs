//! `on`: a command in a lease that is held, from any process of its holder.

use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use super::held::{self, Ended, Held, Job, WayArgs};
use super::run::input::Input;
use super::run::signals::Signals;
use super::select::{pair, time};
use crate::client::Lost;
use clap::Args;
use std::time::Duration;
use wharfinger_adapter::COMMAND_BYTES_MAX;

/// Room for the variables of a lease, in bytes.
const LEASE_BYTES: usize = 64 << 10;

/// Maximum time for the check of `--check`.
const CHECK: Duration = Duration::from_secs(120);

/// Arguments of `on`.
#[derive(Args, Debug)]
pub(crate) struct OnArgs {
    /// Which: an active lease
    #[arg(value_name = "LEASE", env = "WHARFINGER_LEASE")]
    lease: String,
    #[command(flatten)]
    way: WayArgs,
    /// Run it in this directory; relative to the leased tree
    #[arg(long, value_name = "DIR")]
    chdir: Option<String>,
    /// Variable for the command; may be repeated
    #[arg(long = "env", short, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Give the command an empty standard input; without it, one that is no terminal is passed on
    #[arg(long, short = 'n')]
    no_input: bool,
    /// End the command after this time, and exit with 124
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// When the command fails, have the resource checked first; exit as for a lost lease if it is unfit
    #[arg(long)]
    check: bool,
    /// Exit with this code, in place of 75 and 69, when the lease is lost or its host is not reached
    #[arg(long, value_name = "CODE", env = "WHARFINGER_EXIT_LOST", value_parser = clap::value_parser!(u8).range(1..))]
    exit_lost: Option<u8>,
    /// Exit with this code, in place of the command's own, when the command failed
    #[arg(long, value_name = "CODE", env = "WHARFINGER_EXIT_FAILED", value_parser = clap::value_parser!(u8).range(1..))]
    exit_failed: Option<u8>,
    /// After a signal, end within this time
    #[arg(long, value_name = "TIME", value_parser = time, env = "WHARFINGER_CANCEL_GRACE", default_value = "6s")]
    cancel_grace: Duration,
    /// Command to run, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it.
pub(crate) async fn on(context: &Context, args: OnArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen_with(Some(args.cancel_grace), |_| {})?;
    let command = wharfinger_adapter::Command {
        argv: args.command.clone(),
        env: args.env.iter().cloned().collect(),
        ..wharfinger_adapter::Command::default()
    };
    let fits = command.check_within(COMMAND_BYTES_MAX - LEASE_BYTES);
    fits.map_err(|why| Failure::new(Exit::BadData, why))?;
    let opened = tokio::select! {
        biased;
        signal = signals.recv() => return Ok(signal.exit()),
        opened = async { Held::open(context, context.connect_patient().await?, &args.lease).await } => opened?,
    };
    let held = match opened {
        Ok(held) => held,
        Err(lost) => return Err(held::lost(&lost, args.exit_lost)),
    };
    let input = if args.no_input { None } else { Input::stdin() };
    let job = Job {
        argv: args.command.clone(),
        env: args.env.iter().cloned().collect(),
        input: input.as_ref().map(Input::reader_at_start),
        chdir: args.chdir.as_deref(),
        timeout: args.timeout,
    };
    let failed = |own: Exit| args.exit_failed.map_or(own, Exit::Command);
    match held.run(context, &args.way, job, &mut signals).await? {
        Ended::Exit(exit) if exit.success() => Ok(Exit::Ok),
        Ended::Exit(exit) => {
            let own = Exit::of(&exit);
            if args.check {
                let note = format!("the command ended with exit code {}", own.code());
                let checked = tokio::select! {
                    biased;
                    signal = signals.recv() => return Ok(signal.exit()),
                    checked = held.check(&note, CHECK) => checked,
                };
                if let Some(lost) = checked {
                    return Err(is_lost(&lost, &args));
                }
            }
            Ok(failed(own))
        }
        Ended::NotStarted(why) => Err(Failure::new(failed(Exit::NotFound), why)),
        Ended::Interrupted(signal) => Ok(signal.exit()),
        Ended::Lost(lost) => Err(is_lost(&lost, &args)),
        Ended::Unreached(why) => {
            let exit = args.exit_lost.map_or(Exit::Unavailable, Exit::Command);
            Err(Failure::new(exit, format!("the host of lease {} is not reached: {why}", args.lease)))
        }
    }
}

/// The failure for a lease that is lost. One that the work is to blame for is a failure of the work.
fn is_lost(lost: &Lost, args: &OnArgs) -> Failure {
    let exit = if held::is_works(lost) { Some(args.exit_failed.unwrap_or(1)) } else { args.exit_lost };
    held::lost(lost, exit)
}
