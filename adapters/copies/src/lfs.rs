//! Large files that git-lfs stores outside of the repository.
//!
//! The prelude sets the filters of each git. The server follows from the address of the pool, never from the tree's `.lfsconfig`.
//! All copies on a host share one store, `<root>/mirrors/lfs`, which builds can write. The proof after a checkout passes each
//! file through the filter, which hashes it: a damaged file does not give its pointer. Then the adapter hashes the files of the
//! store, removes the damaged ones, and loads them again, once. A file that no lease has needed for 30 days is removed.

use crate::address::lfs_endpoint;
use crate::error::{State, StepError};
use crate::git::{LFS, STATE_FOUND, WorkingCopy};
use crate::mirror::list;
use wharfinger_adapter::{Exit, Failure};

/// Loads the content of the commit's large files into the host's store. With `anew` the damaged ones there are removed first.
///
/// # Errors
/// `FETCH_TIMED_OUT` (provider), `LFS_OBJECT_MISSING` (request for a repository in a directory, otherwise provider), and the
/// errors of [`list`].
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
            None => Failure::bug("UNREADABLE_STATE", format!("step lfs reported no known state: {:?}", output.text()))
                .into(),
        }),
        Exit::TimedOut => Err(Failure::provider(
            "FETCH_TIMED_OUT",
            format!("the large files of {repository} did not arrive in time; raise clone_timeout_ms of the pool"),
        )
        .into()),
        _ => {
            // A remote that does not list its refs fails the call here.
            list(copy, &[]).await?;
            let which = output.text().lines().take(3).collect::<Vec<_>>().join(", ");
            // A repository in a directory has no server that could be down. The server of large files may be another than that of
            // the repository, and its answers are texts for people.
            let local = lfs_endpoint(repository).starts_with("file://");
            let blame = if local { Failure::request } else { Failure::provider };
            Err(blame(
                "LFS_OBJECT_MISSING",
                format!(
                    "the server does not send large files of commit {commit} of {repository} ({which}); push them (git lfs push), or look at the server: {}",
                    output.complaint()
                ),
            )
            .into())
        }
    }
}

/// Proves that no large file is a pointer in the tree, after a checkout.
pub(crate) async fn prove(copy: &WorkingCopy, commit: &str) -> Result<Result<(), State>, StepError> {
    if !copy.config.lfs {
        return Ok(Ok(()));
    }
    Ok(copy.try_run(LFS, &[commit, "after"], copy.config.command_timeout()).await?.map(drop))
}
