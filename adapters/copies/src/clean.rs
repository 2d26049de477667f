//! Between two leases: nothing of the former one may run, and only what the pool keeps may stay.

use crate::config::Clean;
use crate::error::Trouble;
use crate::git::{Copy, NORMALISE, REBUILD};
use crate::parts::{Parts, all};
use crate::{mirror, provision, submodules};
use serde::{Deserialize, Serialize};
use wharfinger_adapter::{CleanJob, Failure, HolderWork, ShellError};

/// The note of who has the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) lease: String,
    pub(crate) token: u64,
    pub(crate) commit: String,
}

impl Note {
    pub(crate) async fn write(copy: &Copy, work: &HolderWork, commit: &str) -> Result<(), Trouble> {
        let note = Note { lease: work.lease.clone(), token: work.token, commit: commit.to_string() };
        let text = serde_json::to_vec(&note).map_err(|error| Failure::bug("BAD_NOTE", error.to_string()))?;
        Ok(copy.shell.put(&copy.meta("lease"), text.into(), 0o600).await?)
    }

    /// What is not there or cannot be read is no note.
    async fn read(copy: &Copy) -> Result<Option<Note>, Trouble> {
        match copy.shell.get(&copy.meta("lease"), 4096).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(ShellError::File(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Ends the former holder's processes, and empties the copies by the pool's policy.
pub(crate) async fn clean(parts: &Parts, job: &CleanJob) -> Result<(), Trouble> {
    let copy = &parts.whole;
    // A call that was held up somewhere must not clean under the next holder's feet.
    if let Some(note) = Note::read(copy).await?
        && note.token > job.work.token
    {
        return Err(Failure::provider(
            "FENCED",
            format!("{} belongs to lease {} with a later token; this clean-up comes too late", copy.tree(), note.lease),
        )
        .into());
    }
    copy.give_back(&job.work.lease, job.work.token).await?;
    parts.arrange(|_| true).await?;
    all(parts.each(|_, copy| one(copy, job.resource.op)).await).map(drop)
}

async fn one(copy: &Copy, op: u64) -> Result<(), Trouble> {
    if copy.config.clean == Clean::Fresh {
        provision::clone(copy, op).await?;
        return Ok(());
    }
    let pinned = copy.pinned().await?;
    empty(copy, &pinned).await?;
    // Nobody waits for this copy yet.
    mirror::settle(copy, &pinned).await
}

/// Brings a working copy, and its submodules, to the commit that its last holder left.
pub(crate) async fn empty(copy: &Copy, pinned: &str) -> Result<(), Trouble> {
    // A full disk is the state that this step is there to end.
    copy.must(NORMALISE, &[pinned, "strict", "0"], copy.config.command_timeout()).await?;
    if copy.config.submodules {
        submodules::put_away(copy).await?;
    }
    let head = copy.git(&["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]).await?;
    if head.exit.success() {
        let args = [&head.text(), policy(copy.config.clean), "gentle", ""];
        let limit = copy.config.command_timeout();
        let mut done = copy.ask(REBUILD, &args, limit).await?;
        if done.is_err() && copy.config.lfs {
            // The next lease brings large files again; until then their pointers will do, which need nobody else.
            let mut plain = copy.clone();
            plain.config.lfs = false;
            done = plain.ask(REBUILD, &args, limit).await?;
        }
        if let Err(state) = done {
            copy.doubt(&state).await?;
            return Err(state.into());
        }
    }
    Ok(())
}

/// The word for it that the scripts know.
pub(crate) fn policy(clean: Clean) -> &'static str {
    match clean {
        Clean::Keep => "keep",
        Clean::Clean | Clean::Fresh => "clean",
    }
}
