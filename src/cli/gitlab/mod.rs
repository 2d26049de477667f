//! `gitlab`: the driver of GitLab Runner's custom executor. A job of GitLab has a lease for all its stages.
//!
//! The runner tells three ends apart by exit codes that it gives in the environment: done, the build failed, the system failed.
//! A code of the build never becomes the driver's.

mod config;
mod stage;
mod state;

use super::ci::{self, Job, Product, Wish};
use super::connect::Context;
use super::error::Failure;
use super::exit::Exit;
use clap::Subcommand;

/// Stages of the custom executor.
#[derive(Subcommand, Debug)]
pub(crate) enum Stage {
    /// Lease for the job, keep the lease, and print the configuration of the job
    Config(Box<config::ConfigArgs>),
    /// See that the host has what the job needs
    Prepare(stage::PrepareArgs),
    /// Run one script of the job on the leased host
    Run(stage::RunArgs),
    /// Release the lease with the outcome of the job
    Cleanup,
}

/// The variable that carries the lease from `config` to the other stages.
const LEASE: &str = "WHARFINGER_LEASE";

/// Runs a stage. Whatever fails is a failure of the system, unless it is known to be the build's.
pub(crate) async fn gitlab(context: &Context, stage: Stage) -> Result<Exit, Failure> {
    let ended = match stage {
        Stage::Config(args) => config::config(context, *args).await,
        Stage::Prepare(args) => stage::prepare(context, args).await,
        Stage::Run(args) => stage::run(context, args).await,
        // Its result never changes that of the job; the runner only prints it.
        Stage::Cleanup => return stage::cleanup(context).await,
    };
    ended.map_err(|failure| match failure.exit {
        // Codes that were chosen for the runner, or a signal of the runner's.
        Exit::Command(_) => failure,
        _ => Failure { exit: system_failure(), ..failure },
    })
}

fn code(name: &str, usual: u8) -> u8 {
    ci::environment(name).and_then(|text| text.parse().ok()).filter(|code| *code > 0).unwrap_or(usual)
}

/// The end that makes the runner say `script_failure`.
fn build_failure() -> Exit {
    Exit::Command(code("BUILD_FAILURE_EXIT_CODE", 1))
}

/// The end that makes the runner say `runner_system_failure`, which `retry` can ask for.
fn system_failure() -> Exit {
    Exit::Command(code("SYSTEM_FAILURE_EXIT_CODE", 2))
}

/// A variable of the job, which the runner passes on with a prefix.
fn variable(name: &str) -> Option<String> {
    ci::environment(&format!("CUSTOM_ENV_{name}"))
}

/// The job by its variables.
fn job() -> Result<Job, Failure> {
    let job = ci::job(Wish::Is(Product::Gitlab), None, &variable)?;
    job.filter(|_| variable("CI_JOB_ID").is_some()).ok_or_else(|| {
        Failure::new(Exit::BadData, "CUSTOM_ENV_CI_JOB_ID is not in the environment")
            .remedy("this is a verb for GitLab Runner: see docs/ci.md for the lines of its config.toml")
    })
}

/// The lease of the job, which `config` put into the environment.
fn lease() -> Result<String, Failure> {
    ci::environment(LEASE).ok_or_else(|| {
        Failure::new(Exit::BadData, format!("{LEASE} is not in the environment"))
            .remedy("config_exec must be wharfinger gitlab config: it hands the lease to the other stages by job_env")
    })
}
