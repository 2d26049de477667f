//! Clones a repository into the place of a working copy, by the host's mirror (`sh/clone.sh`, `sh/install.sh`).

use crate::error::StepError;
use crate::git::{CLONE, INSTALL, MAKE_DIRECTORY, WorkingCopy};
use crate::inspect::{Depth, inspect};
use crate::mirror::{self, Goal, Missing, list};
use wharfinger_adapter::{Exit, Failure};

/// Makes the directory of the copy, and checks the host's git and its free space.
pub(crate) async fn begin(copy: &WorkingCopy) -> Result<(), StepError> {
    let min = copy.config.min_free_disk_mb.to_string();
    // A copy in its host's directory does not make that directory: the host's own check has to find it missing.
    let inside = copy.dir.starts_with(&format!("{}/", copy.host_dir.trim_end_matches('/')));
    let host_dir = if inside { copy.host_dir.as_str() } else { "" };
    copy.run(MAKE_DIRECTORY, &[&min, &copy.locator, host_dir], copy.config.command_timeout()).await.map(drop)
}

/// Clones the repository, replaces the tree by the clone, and inspects it. Returns the object format (`sha1` or `sha256`).
///
/// # Errors
/// `CLONE_FAILED` and `CLONE_TIMED_OUT`, and the errors of [`list`].
pub(crate) async fn clone(copy: &WorkingCopy, op: u64) -> Result<String, StepError> {
    begin(copy).await?;
    let listing = list(copy, &[]).await?;
    // The clone of an earlier call may still run. It fails: its directory is removed, and it has another name.
    let new = format!("new.{op}");
    let limit = copy.config.clone_timeout();
    let mut former = String::new();
    let output = loop {
        // An empty repository needs no mirror, and does not show its object format.
        let mut made = String::new();
        let (from, lock) = match listing.format() {
            None => (copy.config.repository.clone(), String::new()),
            Some(format) => {
                let default = listing.default.as_deref().unwrap_or_default();
                let config = copy.git_config_in(format);
                match mirror::pull(copy, &config, None, default, false, Goal::Mirror(&former, &mut made)).await? {
                    Ok(_) => (copy.mirror(), format!("{}.use", copy.mirror())),
                    Err(missing) => {
                        begin(copy).await?; // reports a full disk
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
        begin(copy).await?; // removes the incomplete clone, and reports a full disk
        if output.exit == Exit::TimedOut {
            return Err(failed(copy, Missing::Time).into());
        }
        if lock.is_empty() || !former.is_empty() {
            list(copy, &[]).await?;
            return Err(Failure::resource(
                "CLONE_FAILED",
                format!(
                    "the host cannot clone {}: {}; look at its git and its disk",
                    copy.config.repository,
                    output.complaint()
                ),
            )
            .into());
        }
        tracing::warn!(resource = %copy.resource, mirror = %from, why = %output.complaint(), "the mirror is damaged; it is made anew");
        former = made;
    };
    let format = output.text();
    let config = copy.git_config_in(&format);
    copy.run(INSTALL, &[&new, &config, &format], limit).await?;
    // Git hashed each object that it received, and checked that no object is missing.
    inspect(copy, &config, Depth::Quick).await??;
    Ok(format)
}

fn failed(copy: &WorkingCopy, missing: Missing) -> Failure {
    let repository = &copy.config.repository;
    match missing {
        Missing::Time => Failure::provider(
            "CLONE_TIMED_OUT",
            format!(
                "the clone of {repository} did not end within {} s; raise clone_timeout_ms of the pool",
                copy.config.clone_timeout().as_secs()
            ),
        ),
        Missing::Objects(why) => Failure::provider(
            "CLONE_FAILED",
            format!("the host cannot clone {repository}, which answers: {why}; look at the repository (git fsck)"),
        ),
        Missing::Id | Missing::Commit => Failure::bug("CLONE_FAILED", "a mirror reported a commit that no call wanted"),
    }
}
