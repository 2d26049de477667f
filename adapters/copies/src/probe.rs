//! Checks, probes and repairs a copy.

use crate::clone::clone;
use crate::error::{State, StepError};
use crate::git::{NORMALISE, REMOVE_FILES, WorkingCopy};
use crate::inspect::{Depth, inspect};
use crate::parts::{Parts, all, named, verdict_of};
use futures::future::join_all;
use wharfinger_adapter::{Failure, ShellError, Verdict};

/// Checks the parts in depth (`git fsck`). Silence of the host and the state of the copy are different verdicts.
pub(crate) async fn check(parts: &Parts) -> Result<Verdict, Failure> {
    verdict_of_parts(parts, Depth::Deep).await
}

/// Checks the parts quickly, also during a build.
pub(crate) async fn probe(parts: &Parts) -> Result<Verdict, Failure> {
    verdict_of_parts(parts, Depth::Quick).await
}

async fn verdict_of_parts(parts: &Parts, depth: Depth) -> Result<Verdict, Failure> {
    let present = match parts.present().await {
        Ok(present) => present,
        Err(error) => return verdict(Err(error)),
    };
    let verdicts = join_all(present.iter().map(|copy| async move {
        let answer = async {
            let git_config = copy.git_config().await?;
            match inspect(copy, &git_config, Depth::Quick).await? {
                Ok(()) if depth == Depth::Deep => inspect(copy, &git_config, Depth::Deep).await,
                said => Ok(said),
            }
        };
        let answer = match answer.await {
            Ok(said) => said.map_err(StepError::from),
            Err(error) => Err(error),
        };
        verdict(answer.map_err(|error| named(copy, error)))
    }))
    .await;
    Ok(verdict_of(verdicts.into_iter().collect::<Result<_, _>>()?))
}

fn verdict(answer: Result<(), StepError>) -> Result<Verdict, Failure> {
    match answer {
        Ok(()) => Ok(Verdict::Healthy),
        Err(StepError::State(State {
            reason: reason @ ("DIRECTORY_MISSING" | "OTHER_RESOURCE" | "ORIGIN_FORMAT"),
            detail,
        })) => Ok(Verdict::Gone { reason, detail }),
        Err(StepError::State(State { reason, detail })) => {
            Ok(Verdict::Mangled { repairable: reason != "MOUNT_INSIDE", reason, detail })
        }
        Err(StepError::Shell(ShellError::Unreachable(detail))) => {
            Ok(Verdict::Unreachable { reason: "HOST_UNREACHABLE", detail })
        }
        Err(StepError::Shell(ShellError::WrongHost(detail))) => Ok(Verdict::Gone { reason: "HOST_REPLACED", detail }),
        Err(other) => Err(other.into()),
    }
}

/// Repairs the damaged parts.
pub(crate) async fn repair(parts: &Parts, op: u64) -> Result<(), StepError> {
    parts.whole.end_processes().await?;
    parts.arrange(|_| true).await?;
    all(parts.each(|_, copy| repair_part(copy, op)).await).map(drop)
}

/// Repairs `.git` in place if that can suffice; otherwise clones anew.
async fn repair_part(copy: &WorkingCopy, op: u64) -> Result<(), StepError> {
    let git_config = copy.git_config().await?;
    let state = match inspect(copy, &git_config, Depth::Deep).await? {
        Ok(()) => return Ok(()),
        Err(state) => state,
    };
    let small = match state.reason {
        // The directory cannot be used under this id: the broker makes another copy.
        "DIRECTORY_MISSING" | "OTHER_RESOURCE" | "ORIGIN_FORMAT" => return Err(state.into()),
        "DISK_FULL" => copy.try_run(REMOVE_FILES, &[], copy.config.command_timeout()).await?.is_ok(),
        "CONFIG_CHANGED" | "HEAD_BROKEN" | "NOT_A_REPOSITORY" | "OBJECTS_BROKEN" => {
            // The inspection after this step requires free space.
            copy.try_run(NORMALISE, &[&git_config, "mend", "0", ""], copy.config.command_timeout()).await?.is_ok()
        }
        _ => false,
    };
    if small && inspect(copy, &git_config, Depth::Deep).await?.is_ok() {
        tracing::info!(resource = %copy.resource, found = state.reason, "repaired in place");
        return Ok(());
    }
    if state.reason == "DISK_FULL" {
        return Err(state.into());
    }
    tracing::info!(resource = %copy.resource, found = state.reason, "cloned anew");
    clone(copy, op).await.map(drop)
}
