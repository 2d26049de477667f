//! Between two leases: nothing of the former one may run, and only what the pool keeps may stay.

use crate::config::Clean;
use crate::error::Trouble;
use crate::git::{Copy, NORMALISE, REBUILD};
use crate::{mirror, provision};
use serde::{Deserialize, Serialize};
use wharfinger_adapter::{CleanJob, Failure, HolderWork};

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
        Ok(copy.note("lease").await?.and_then(|text| serde_json::from_str(&text).ok()))
    }
}

/// Ends the former holder's processes, and empties the copy by the pool's policy.
pub(crate) async fn clean(copy: &Copy, job: &CleanJob) -> Result<(), Trouble> {
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
    if copy.config.clean == Clean::Fresh {
        provision::clone(copy, job.resource.op).await?;
        return Ok(());
    }
    let pinned = copy.pinned().await?;
    // A full disk is the state that this step is there to end.
    copy.must(NORMALISE, &[&pinned, "strict", "0"], copy.config.command_timeout()).await?;
    let head = copy.git(&["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]).await?;
    if head.exit.success() {
        let args = [&head.text(), policy(copy.config.clean), "gentle", ""];
        if let Err(state) = copy.ask(REBUILD, &args, copy.config.command_timeout()).await? {
            copy.doubt(&state).await?;
            return Err(state.into());
        }
    }
    // Nobody waits for this copy yet.
    mirror::settle(copy, &pinned).await
}

/// The word for it that the scripts know.
pub(crate) fn policy(clean: Clean) -> &'static str {
    match clean {
        Clean::Keep => "keep",
        Clean::Clean | Clean::Fresh => "clean",
    }
}
