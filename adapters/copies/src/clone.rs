//! Clones a repository into the place of a working copy, by the host's mirror (`sh/clone.sh`, `sh/install.sh`).

use crate::error::StepError;
use crate::git::{CLONE, INSTALL, MAKE_DIRECTORY, WorkingCopy};
use crate::inspect::{Depth, inspect};
use crate::mirror::{self, Goal, Missing, list};
use wharfinger_adapter::{Exit, Failure};

/// Makes the directory of the copy, and checks the host's git and its free space.
pub(crate) async fn begin(copy: &WorkingCopy) -> Result<(), StepError> {
    let min = copy.config.min_free_disk_mb.to_string();
    copy.run(MAKE_DIRECTORY, &[&min, &copy.locator], copy.config.command_timeout()).await.map(drop)
}

/// Clones into the tree's place, whatever is there, and proves the result. Says the object format.
pub(crate) async fn clone(copy: &WorkingCopy, op: u64) -> Result<String, StepError> {
    begin(copy).await?;
    let listing = list(copy, &[]).await?;
    // A clone of an earlier call that is still running somewhere fails by itself: its directory was removed under it,
    // and it does not know this name.
    let new = format!("new.{op}");
    let limit = copy.config.clone_timeout();
    let mut former = String::new();
    let output = loop {
        // What has no objects needs no mirror, and does not say in which format it would have them.
        let mut made = String::new();
        let (from, lock) = match listing.format() {
            None => (copy.config.repository.clone(), String::new()),
            Some(format) => {
                let default = listing.default.as_deref().unwrap_or_default();
                let config = copy.git_config_in(format);
                match mirror::pull(copy, &config, None, default, false, Goal::Mirror(&former, &mut made)).await? {
                    Ok(_) => (copy.mirror(), format!("{}.use", copy.mirror())),
                    Err(missing) => {
                        begin(copy).await?; // says so if the disk is full
                        list(copy, &[]).await?;
                        return Err(failed(copy, missing).into());
                    }
                }
            }
        };
        let output = copy.output(CLONE, &[&new, &from, &lock], limit).await?;
        if output.exit == Exit::Code(0) {
            break output;
        }
        begin(copy).await?; // removes the half clone, and says so if the disk is full
        if output.exit == Exit::TimedOut {
            return Err(failed(copy, Missing::Time).into());
        }
        if lock.is_empty() || !former.is_empty() {
            list(copy, &[]).await?;
            return Err(Failure::resource(
                "CLONE_FAILED",
                format!("cannot clone {} on this host: {}", copy.config.repository, output.complaint()),
            )
            .into());
        }
        tracing::warn!(resource = %copy.resource, mirror = %from, why = %output.complaint(), "the mirror is spoilt");
        former = made;
    };
    let format = output.text();
    let config = copy.git_config_in(&format);
    copy.run(INSTALL, &[&new, &config, &format], limit).await?;
    // Each object was hashed on its way, and that none is missing was found out by the clone itself.
    inspect(copy, &config, Depth::Quick).await??;
    Ok(format)
}

fn failed(copy: &WorkingCopy, missing: Missing) -> Failure {
    let repository = &copy.config.repository;
    match missing {
        Missing::Time => Failure::provider(
            "CLONE_TIMED_OUT",
            format!(
                "cloning {repository} took more than {} s; raise clone_timeout_ms of the pool",
                copy.config.clone_timeout().as_secs()
            ),
        ),
        Missing::Objects(why) => {
            Failure::provider("CLONE_FAILED", format!("{repository} answers, and cannot be cloned: {why}"))
        }
        Missing::Id | Missing::Commit => Failure::bug("CLONE_FAILED", "a mirror was asked for no commit"),
    }
}
