//! Making a copy, making it anew, removing it.

use crate::error::Trouble;
use crate::git::{BEGIN, CLONE, Copy, DESTROY, Handle, INSTALL};
use crate::mirror::{self, Goal, Missing, list};
use crate::parts::{Parts, all};
use crate::probe::{Depth, inspect};
use std::collections::BTreeMap;
use wharfinger_adapter::{Access, Exit, Failure, Provisioned, access};

/// Makes the copies, or goes on with what an earlier call made.
pub(crate) async fn provision(parts: &Parts, op: u64) -> Result<Provisioned, Trouble> {
    parts.whole.stop().await?;
    begin(&parts.whole).await?;
    parts.arrange(|_| true).await?;
    let formats = all(parts.each(|_, copy| make(copy, op)).await)?;
    let default = &parts.list[parts.default];
    let handle = Handle {
        path: parts.whole.tree(),
        repository: default.config.repository.clone(),
        object_format: formats[parts.default].clone(),
        parts: match parts.several() {
            true => parts.names().into_iter().map(str::to_string).zip(formats).collect(),
            false => BTreeMap::new(),
        },
    };
    let handle = serde_json::to_string(&handle).map_err(|error| Failure::bug("BAD_HANDLE", error.to_string()))?;
    Ok(Provisioned {
        handle,
        access: Access::from([(access::PATH.to_string(), default.tree())]),
        ..Provisioned::default()
    })
}

/// Makes one, unless it is there. Says its object format.
async fn make(copy: &Copy, op: u64) -> Result<String, Trouble> {
    // A tree under the final name is whole: it got there by a rename, after the clone.
    match format_of(copy).await? {
        Some(format) if found_well(copy, &format).await? => Ok(format),
        _ => clone(copy, op).await,
    }
}

/// The object format that an earlier call wrote down, if it got that far.
async fn format_of(copy: &Copy) -> Result<Option<String>, Trouble> {
    copy.note("format").await
}

async fn found_well(copy: &Copy, format: &str) -> Result<bool, Trouble> {
    Ok(inspect(copy, &copy.pinned_in(format), Depth::Deep).await?.is_ok())
}

async fn begin(copy: &Copy) -> Result<(), Trouble> {
    let min = copy.config.min_free_disk_mb.to_string();
    copy.must(BEGIN, &[&min, &copy.note], copy.config.command_timeout()).await.map(drop)
}

/// Clones into the tree's place, whatever is there, and proves the result. Says the object format.
pub(crate) async fn clone(copy: &Copy, op: u64) -> Result<String, Trouble> {
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
                let config = copy.pinned_in(format);
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
        let output = copy.raw(CLONE, &[&new, &from, &lock], limit).await?;
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
    let config = copy.pinned_in(&format);
    copy.must(INSTALL, &[&new, &config, &format], limit).await?;
    // Each object was hashed on its way, and that none is missing was found out by the clone itself.
    inspect(copy, &config, Depth::Quick).await??;
    Ok(format)
}

fn failed(copy: &Copy, missing: Missing) -> Failure {
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

/// Removes the copy. What runs in it goes first, or it would write on.
pub(crate) async fn destroy(copy: &Copy) -> Result<(), Trouble> {
    copy.stop().await?;
    copy.must(DESTROY, &[&copy.note], copy.config.clone_timeout()).await.map(drop)
}
