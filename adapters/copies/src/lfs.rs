//! Large files that git-lfs keeps outside of the repository.
//!
//! The filters are ours, told to each git by the prelude; where the content comes from follows from the pool's address, never
//! from the tree's `.lfsconfig`. Content is kept once per host, in `<root>/mirrors/lfs`, which builds may write to: the proof
//! after a checkout passes each file through the filter, which hashes it, so a spoilt one does not give its pointer. Then the
//! store's files are hashed, those that are not what their name says are removed, and are loaded again, once. What no lease
//! has needed for 30 days goes.

use crate::address::lfs_endpoint;
use crate::error::{State, StepError};
use crate::git::{LFS, STATE_FOUND, WorkingCopy};
use crate::mirror::list;
use wharfinger_adapter::{Exit, Failure};

/// Brings the content of the commit's large files to the host; `anew` if what is there may be spoilt.
pub(crate) async fn load(copy: &WorkingCopy, commit: &str, anew: bool) -> Result<(), StepError> {
    if !copy.config.lfs {
        return Ok(());
    }
    let word = if anew { "anew" } else { "before" };
    let output = copy.output(LFS, &[commit, word], copy.config.clone_timeout()).await?;
    let repository = &copy.config.repository;
    match output.exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(STATE_FOUND) => Err(match State::parse(&String::from_utf8_lossy(&output.stdout)) {
            Some(state) => state.into(),
            None => Failure::bug("UNREADABLE_STATE", format!("lfs said {:?}", output.text())).into(),
        }),
        Exit::TimedOut => Err(Failure::provider(
            "FETCH_TIMED_OUT",
            format!("the large files of {repository} took too long; raise clone_timeout_ms of the pool"),
        )
        .into()),
        _ => {
            // Whoever cannot be asked for refs cannot be blamed for files.
            list(copy, &[]).await?;
            let which = output.text().lines().take(3).collect::<Vec<_>>().join(", ");
            // Of a repository that lies in a directory there is nobody else who could be down. A server of large files is
            // another than that of the repository, and what it says is for people to read.
            let local = lfs_endpoint(repository).starts_with("file://");
            let blame = if local { Failure::request } else { Failure::provider };
            Err(blame(
                "LFS_OBJECT_MISSING",
                format!(
                    "commit {commit} of {repository} has large files that do not come ({which}); push them there (git lfs push), or look at the server: {}",
                    output.complaint()
                ),
            )
            .into())
        }
    }
}

/// After the checkout: none of them is a pointer.
pub(crate) async fn prove(copy: &WorkingCopy, commit: &str) -> Result<Result<(), State>, StepError> {
    if !copy.config.lfs {
        return Ok(Ok(()));
    }
    Ok(copy.try_run(LFS, &[commit, "after"], copy.config.command_timeout()).await?.map(drop))
}
