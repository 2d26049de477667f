//! Is this the copy that we made, and is it fit for use? And the smallest step that mends it.

use crate::clone::clone;
use crate::error::{State, StepError};
use crate::git::{NORMALISE, REMOVE_FILES, WorkingCopy};
use crate::inspect::{Depth, inspect};
use crate::parts::{Parts, all, named, verdict_of};
use futures::future::join_all;
use wharfinger_adapter::{Failure, ShellError, Verdict};

/// The thorough question, with the host's silence and the copy's state told apart.
pub(crate) async fn check(parts: &Parts) -> Result<Verdict, Failure> {
    verdict_of_parts(parts, Depth::Deep).await
}

/// The cheap question, asked while a build works in the copy.
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

/// Mends the parts that need it, and leaves the others.
pub(crate) async fn repair(parts: &Parts, op: u64) -> Result<(), StepError> {
    parts.whole.end_processes().await?;
    parts.arrange(|_| true).await?;
    all(parts.each(|_, copy| repair_part(copy, op)).await).map(drop)
}

/// What a look at `.git` can mend first, a new clone if that is not enough.
async fn repair_part(copy: &WorkingCopy, op: u64) -> Result<(), StepError> {
    let git_config = copy.git_config().await?;
    let state = match inspect(copy, &git_config, Depth::Deep).await? {
        Ok(()) => return Ok(()),
        Err(state) => state,
    };
    let small = match state.reason {
        // Not ours to make again under this id: the broker makes another.
        "DIRECTORY_MISSING" | "OTHER_RESOURCE" | "ORIGIN_FORMAT" => return Err(state.into()),
        "DISK_FULL" => copy.try_run(REMOVE_FILES, &[], copy.config.command_timeout()).await?.is_ok(),
        "CONFIG_CHANGED" | "HEAD_BROKEN" | "NOT_A_REPOSITORY" | "OBJECTS_BROKEN" => {
            // Room is asked for by the inspection that follows.
            copy.try_run(NORMALISE, &[&git_config, "mend", "0", ""], copy.config.command_timeout()).await?.is_ok()
        }
        _ => false,
    };
    if small && inspect(copy, &git_config, Depth::Deep).await?.is_ok() {
        tracing::info!(resource = %copy.resource, found = state.reason, "mended in place");
        return Ok(());
    }
    if state.reason == "DISK_FULL" {
        return Err(state.into());
    }
    tracing::info!(resource = %copy.resource, found = state.reason, "cloning anew");
    clone(copy, op).await.map(drop)
}
