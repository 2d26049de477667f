//! `gitlab config`: the lease of a job, and its keeper.

use super::{LEASE, job};
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::lease::lost_failure;
use crate::cli::run::signals::Signals;
use crate::cli::run::wait::{self, Waited};
use crate::cli::select::Wanted;
use crate::cli::{ci, text};
use crate::pb;
use clap::Args;
use serde_json::json;
use wharfinger_adapter::access;

/// `gitlab config`.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Ask again at most N times when the lease is lost before the job begins
    #[arg(long, value_name = "N", default_value_t = 2)]
    retries: u32,
}

/// Leases. The runner calls it again after a failure: the request id of the job leads to the same lease.
pub(super) async fn config(context: &Context, args: ConfigArgs) -> Result<Exit, Failure> {
    let job = job()?;
    let mut request = args.wanted.request();
    job.fill(&mut request);
    if let Some(url) = Some(&job.holder).filter(|holder| !holder.is_empty()) {
        request.holder.clone_from(url);
    }
    let mut signals = Signals::listen()?;
    let client = tokio::select! {
        biased;
        signal = signals.recv() => return Ok(signal.exit()),
        client = context.connect_patient() => client?,
    };
    for attempt in 0..=args.retries {
        request.request_id = match attempt {
            0 => job.request_id.clone(),
            again => format!("{}-{}", job.request_id, again + 1),
        };
        let guard = client.acquire(request.clone()).await.map_err(|error| context.failure(error))?;
        match wait::active(context, &client, &guard, &mut signals).await {
            Waited::Active(lease) => {
                keep(context, &lease.id).await?;
                context.ui.event(&format!(
                    "lease {} ACTIVE on {} for job {}",
                    lease.id,
                    text::machine(lease.access.as_ref()),
                    job.request_id
                ));
                return context.ui.document(&answer(&lease)?).map(|()| Exit::Ok);
            }
            Waited::Lost(lost) => {
                let again = matches!(lost.lease().state(), pb::LeaseState::Broken | pb::LeaseState::Expired);
                if !again || attempt == args.retries {
                    return Err(lost_failure(&lost));
                }
                context.ui.event(&format!("{lost}; asking again"));
            }
            Waited::Interrupted(signal) => {
                let _ = guard.release(pb::Outcome::Ok, &format!("interrupted by {}", signal.name())).await;
                return Ok(signal.exit());
            }
        }
    }
    Err(Failure::new(Exit::Lost, "the lease was lost before the job began"))
}

/// The configuration of the job.
fn answer(lease: &pb::Lease) -> Result<serde_json::Value, Failure> {
    let pairs = lease.access_pairs();
    let path = pairs.get(access::PATH).filter(|path| !path.is_empty()).ok_or_else(|| {
        Failure::new(Exit::BadData, format!("{} has no directory for builds", lease.resource_id))
            .remedy("lease from a pool of hosts")
    })?;
    let path = path.trim_end_matches('/');
    let machine = text::machine(lease.access.as_ref());
    Ok(json!({
        "driver": { "name": "wharfinger", "version": env!("CARGO_PKG_VERSION") },
        "hostname": if machine == "-" { lease.resource_id.clone() } else { machine },
        "builds_dir": format!("{path}/builds"),
        "cache_dir": format!("{path}/cache"),
        "builds_dir_is_shared": false,
        "job_env": { LEASE: lease.id },
    }))
}

/// Starts what renews the lease between the stages: while the runner is there, and while the job is.
async fn keep(context: &Context, lease: &str) -> Result<(), Failure> {
    let internal = |why: String| Failure::new(Exit::Internal, format!("the lease cannot be kept: {why}"));
    let program = std::env::current_exe().map_err(|error| internal(error.to_string()))?;
    let runner = rustix::process::getppid().ok_or_else(|| internal("the runner is gone".into()))?;
    let mut command = tokio::process::Command::new(program);
    command.args(connection()).args(["keep", lease, "--detach", "--pid", &runner.as_raw_nonzero().to_string()]);
    // "Exists in every stage, and is removed during cleanup."
    if let Some(file) = ci::environment("JOB_RESPONSE_FILE") {
        command.args(["--file", &file]);
    }
    let output =
        command.stdin(std::process::Stdio::null()).output().await.map_err(|error| internal(error.to_string()))?;
    if !output.status.success() {
        return Err(internal(text::one_line(&String::from_utf8_lossy(&output.stderr))));
    }
    context
        .ui
        .event(&format!("lease {lease} is renewed while the runner's process {} is there", runner.as_raw_nonzero()));
    Ok(())
}

/// The options of the connection on our own command line, for a process of ours: those before and after `gitlab config` that every
/// verb has. The others come with the environment.
fn connection() -> Vec<std::ffi::OsString> {
    const VALUED: [&str; 8] = [
        "--server",
        "--follow-leader",
        "--ca-file",
        "--certificate",
        "--certificate-key",
        "--server-uri",
        "--oidc",
        "--audience",
    ];
    let mut found = Vec::new();
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if VALUED.contains(&text.as_ref()) {
            found.push(argument);
            found.extend(arguments.next());
        } else if VALUED.iter().any(|name| text.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))) {
            found.push(argument);
        }
    }
    found
}
