//! `gitlab prepare`, `run` and `cleanup`: the stages of a job in its lease.

use super::state::State;
use super::{build_failure, job, lease, system_failure};
use crate::cli::connect::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::held::{self, Ended, Held, Job, WayArgs};
use crate::cli::run::input::Input;
use crate::cli::run::signals::Signals;
use crate::cli::{ci, text};
use crate::client::{Client, ClientError, Lost};
use crate::pb;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use wharfinger_adapter::Exit as CommandExit;

/// How long the check of a host may take before its build is blamed.
const CHECK: Duration = Duration::from_secs(120);
/// After a signal the runner waits for 10 minutes by default, and less is better.
const GRACE: Duration = Duration::from_secs(6);

/// `gitlab prepare`.
#[derive(Args, Debug)]
pub(crate) struct PrepareArgs {
    #[command(flatten)]
    way: WayArgs,
}

/// `gitlab run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    way: WayArgs,
    /// The script, in a file of this machine
    #[arg(value_name = "SCRIPT")]
    script: PathBuf,
    /// The stage of the job: get_sources, step_script and others
    #[arg(value_name = "STAGE")]
    stage: String,
}

/// Names what is missing on the host, a word each.
const LOOK: &str = r#"
for program do command -v "$program" >/dev/null 2>&1 || { echo "$program is not on the host" >&2; missing=1; }; done
[ -z "$missing" ] || exit 79
mkdir -p builds cache
"#;
/// The exit code of [`LOOK`] when something is missing.
const MISSING: i32 = 79;

/// Runs the script that comes by standard input. The scripts of the runner read nothing from it themselves.
const SCRIPT: &str = "if command -v bash >/dev/null 2>&1; then exec bash -s; else exec sh -s; fi";

/// Sees that the host has what the job needs: stage 9 is too late to find out.
pub(super) async fn prepare(context: &Context, args: PrepareArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen_with(Some(GRACE), |_| {})?;
    let held = match open(context).await? {
        Ok(held) => held,
        Err(lost) => return Err(held::lost(&lost, None)),
    };
    let mut programs = vec!["git"];
    if uses_runner() {
        programs.push("gitlab-runner");
    }
    let argv = ["/bin/sh", "-c", LOOK, "wharfinger-gitlab"].into_iter().chain(programs).map(String::from).collect();
    let job = Job { argv, env: BTreeMap::new(), input: None, chdir: None, timeout: None };
    match held.run(context, &args.way, job, &mut signals).await? {
        Ended::Exit(exit) if exit.success() => {
            context.ui.event(&format!("{} is ready", held.lease.resource_id));
            Ok(Exit::Ok)
        }
        Ended::Exit(CommandExit::Code(MISSING)) => {
            Err(Failure::new(Exit::Config, format!("{} lacks a program that the job needs", held.lease.resource_id))
                .remedy("install it on the hosts of the pool; artifacts and caches need gitlab-runner there, in PATH"))
        }
        Ended::Exit(exit) => Err(Failure::new(Exit::Internal, format!("the host cannot be prepared: {exit:?}"))),
        other => stopped(&held, other),
    }
}

/// Whether the job has artifacts or a cache, whose stages run `gitlab-runner` on the host.
fn uses_runner() -> bool {
    let Some(file) = ci::environment("JOB_RESPONSE_FILE") else { return false };
    let Ok(text) = std::fs::read(file) else { return false };
    let Ok(job) = serde_json::from_slice::<serde_json::Value>(&text) else { return false };
    ["artifacts", "cache", "dependencies"].iter().any(|key| job[key].as_array().is_some_and(|all| !all.is_empty()))
}

/// Whether a stage is a script of the user's, and decides how the job went.
fn is_users(stage: &str) -> bool {
    stage == "build_script" || stage == "step_script" || stage.starts_with("step_")
}

/// Runs one script.
pub(super) async fn run(context: &Context, args: RunArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::listen_with(Some(GRACE), |_| {})?;
    let script = std::fs::File::open(&args.script)
        .map_err(|error| Failure::new(Exit::BadData, format!("{}: {error}", args.script.display())))?;
    // After a loss the runner goes on with after_script and the upload of artifacts: they are refused at once.
    let held = match open(context).await? {
        Ok(held) => held,
        Err(lost) => return Err(ended_by(&lost)),
    };
    let input = Input::of(script);
    let job = Job {
        argv: ["/bin/sh", "-c", SCRIPT].map(String::from).into(),
        env: BTreeMap::new(),
        input: Some(input.reader_at_start()),
        chdir: None,
        timeout: None,
    };
    let ended = held.run(context, &args.way, job, &mut signals).await?;
    let id = held.lease.id.as_str();
    match ended {
        Ended::Exit(exit) if exit.success() => {
            if is_users(&args.stage) && State::read(id) != State::Failed {
                State::Succeeded.write(id);
            }
            Ok(Exit::Ok)
        }
        Ended::Exit(exit) => {
            let code = Exit::of(&exit).code();
            let note = format!("{} ended with exit code {code}", args.stage);
            // Before the build is blamed its host is checked; after_script is no evidence.
            if args.stage != "after_script" {
                let checked = tokio::select! {
                    biased;
                    signal = signals.recv() => return Ok(signal.exit()),
                    checked = held.check(&note, CHECK) => checked,
                };
                if let Some(lost) = checked {
                    return Err(ended_by(&lost));
                }
            }
            if is_users(&args.stage) {
                State::Failed.write(id);
            }
            if let Some(file) = ci::environment("BUILD_EXIT_CODE_FILE")
                && let Err(error) = std::fs::write(&file, format!("{code}\n"))
            {
                context.ui.warn(&format!("the exit code is not in {file}: {error}"));
            }
            context.ui.event(&note);
            Ok(build_failure())
        }
        other => stopped(&held, other),
    }
}

/// The end of a stage whose command has no end of its own.
fn stopped(held: &Held, ended: Ended) -> Result<Exit, Failure> {
    match ended {
        Ended::Interrupted(signal) => Ok(signal.exit()),
        Ended::Lost(lost) => Err(ended_by(&lost)),
        Ended::Unreached(why) => {
            Err(Failure::new(Exit::Unavailable, format!("{} is not reached: {why}", held.lease.resource_id)))
        }
        Ended::NotStarted(why) => Err(Failure::new(Exit::NotFound, why)),
        Ended::Exit(exit) => Ok(Exit::of(&exit)),
    }
}

/// A lease that is lost is the system's failure, unless the work is to blame: then no one runs the job again.
fn ended_by(lost: &Lost) -> Failure {
    let exit = if held::is_works(lost) { build_failure() } else { system_failure() };
    Failure { exit, ..held::lost(lost, None) }
}

async fn open(context: &Context) -> Result<Result<Held, Lost>, Failure> {
    let id = lease()?;
    let client = context.connect_patient().await?;
    Held::open(context, client, &id).await
}

/// Releases the lease of the job. Also one that `config` asked for and could not hand over.
pub(super) async fn cleanup(context: &Context) -> Result<Exit, Failure> {
    let job = job()?;
    let client = context.connect_patient().await?;
    let mut ids: Vec<String> = lease().into_iter().collect();
    if ids.is_empty() {
        ids = left_by(&client, &job).await.map_err(|error| context.failure(error))?;
    }
    for id in ids {
        let outcome = State::read(&id).outcome();
        State::remove(&id);
        match client.release(&id, outcome, &format!("job {} is over", job.request_id)).await {
            Ok(answer) => {
                let lease = answer.lease.unwrap_or_default();
                let said = format!("lease {id} {}: {}", text::lease_state(&lease), text::why(&lease));
                context.ui.event(&said);
            }
            Err(ClientError::State(_) | ClientError::NotFound(_)) => context.ui.event(&format!("lease {id} is over")),
            Err(error) => context.ui.warn(&format!("lease {id} was not released and ends by its TTL: {error}")),
        }
    }
    Ok(Exit::Ok)
}

/// Leases of the job that are not over.
async fn left_by(client: &Client, job: &ci::Job) -> Result<Vec<String>, ClientError> {
    if job.holder.is_empty() {
        return Ok(Vec::new());
    }
    let request = pb::ListRequest { holders: vec![job.holder.clone()], ..pb::ListRequest::default() };
    let answer = client.list(request).await?;
    let of_job = |id: &str| {
        id.strip_prefix(job.request_id.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    Ok(answer.leases.into_iter().filter(|lease| of_job(&lease.request_id)).map(|lease| lease.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_stages_decide() {
        for stage in ["build_script", "step_script", "step_release"] {
            assert!(is_users(stage), "{stage}");
        }
        for stage in ["prepare_script", "get_sources", "restore_cache", "after_script", "upload_artifacts_on_failure"] {
            assert!(!is_users(stage), "{stage}");
        }
    }
}
