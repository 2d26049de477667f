//! Is this the copy that we made, and is it fit for use? And the smallest step that mends it.

use crate::clone::clone;
use crate::error::{State, Trouble};
use crate::git::{Copy, EMPTY, NORMALISE};
use crate::inspect::{Depth, inspect};
use crate::parts::{Parts, all, named, verdict_of};
use futures::future::join_all;
use wharfinger_adapter::{Failure, ShellError, Verdict};

/// The configuration to expect. A copy whose notes are gone is not ours any more; the inspection says how.
async fn expected(copy: &Copy) -> Result<String, Trouble> {
    copy.pinned().await
}

/// The thorough question, with the host's silence and the copy's state told apart.
pub(crate) async fn check(parts: &Parts) -> Result<Verdict, Failure> {
    look(parts, Depth::Deep).await
}

/// The cheap question, asked while a build works in the copy.
pub(crate) async fn probe(parts: &Parts) -> Result<Verdict, Failure> {
    look(parts, Depth::Quick).await
}

async fn look(parts: &Parts, depth: Depth) -> Result<Verdict, Failure> {
    let present = match parts.present().await {
        Ok(present) => present,
        Err(trouble) => return verdict(Err(trouble)),
    };
    let verdicts = join_all(present.iter().map(|copy| async move {
        let answer = async {
            let pinned = expected(copy).await?;
            match inspect(copy, &pinned, Depth::Quick).await? {
                Ok(()) if depth == Depth::Deep => inspect(copy, &pinned, Depth::Deep).await,
                said => Ok(said),
            }
        };
        let answer = match answer.await {
            Ok(said) => said.map_err(Trouble::from),
            Err(trouble) => Err(trouble),
        };
        verdict(answer.map_err(|trouble| named(copy, trouble)))
    }))
    .await;
    Ok(verdict_of(verdicts.into_iter().collect::<Result<_, _>>()?))
}

fn verdict(answer: Result<(), Trouble>) -> Result<Verdict, Failure> {
    match answer {
        Ok(()) => Ok(Verdict::Healthy),
        Err(Trouble::State(State {
            reason: reason @ ("DIRECTORY_MISSING" | "OTHER_RESOURCE" | "ORIGIN_FORMAT"),
            detail,
        })) => Ok(Verdict::Gone { reason, detail }),
        Err(Trouble::State(State { reason, detail })) => {
            Ok(Verdict::Mangled { repairable: reason != "MOUNT_INSIDE", reason, detail })
        }
        Err(Trouble::Shell(ShellError::Unreachable(detail))) => {
            Ok(Verdict::Unreachable { reason: "HOST_UNREACHABLE", detail })
        }
        Err(Trouble::Shell(ShellError::WrongHost(detail))) => Ok(Verdict::Gone { reason: "HOST_REPLACED", detail }),
        Err(other) => Err(other.into()),
    }
}

/// Mends the parts that need it, and leaves the others.
pub(crate) async fn repair(parts: &Parts, op: u64) -> Result<(), Trouble> {
    parts.whole.stop().await?;
    parts.arrange(|_| true).await?;
    all(parts.each(|_, copy| mend(copy, op)).await).map(drop)
}

/// What a look at `.git` can mend first, a new clone if that is not enough.
async fn mend(copy: &Copy, op: u64) -> Result<(), Trouble> {
    let pinned = expected(copy).await?;
    let state = match inspect(copy, &pinned, Depth::Deep).await? {
        Ok(()) => return Ok(()),
        Err(state) => state,
    };
    let small = match state.reason {
        // Not ours to make again under this id: the broker makes another.
        "DIRECTORY_MISSING" | "OTHER_RESOURCE" | "ORIGIN_FORMAT" => return Err(state.into()),
        "DISK_FULL" => copy.ask(EMPTY, &[], copy.config.command_timeout()).await?.is_ok(),
        "CONFIG_CHANGED" | "HEAD_BROKEN" | "NOT_A_REPOSITORY" | "OBJECTS_BROKEN" => {
            // Room is asked for by the inspection that follows.
            copy.ask(NORMALISE, &[&pinned, "mend", "0", ""], copy.config.command_timeout()).await?.is_ok()
        }
        _ => false,
    };
    if small && inspect(copy, &pinned, Depth::Deep).await?.is_ok() {
        tracing::info!(resource = %copy.resource, found = state.reason, "mended in place");
        return Ok(());
    }
    if state.reason == "DISK_FULL" {
        return Err(state.into());
    }
    tracing::info!(resource = %copy.resource, found = state.reason, "cloning anew");
    clone(copy, op).await.map(drop)
}
