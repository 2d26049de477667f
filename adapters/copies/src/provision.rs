//! Makes and removes the copies of a resource.

use crate::clone::{begin, clone};
use crate::error::StepError;
use crate::git::{DESTROY, Handle, WorkingCopy};
use crate::inspect::{Depth, inspect};
use crate::parts::{Parts, all};
use std::collections::BTreeMap;
use wharfinger_adapter::{Access, Failure, Provisioned, access};

/// Makes the copies. Sound copies of an earlier call are used.
///
/// # Errors
/// Those of [`clone`].
pub(crate) async fn provision(parts: &Parts, op: u64) -> Result<Provisioned, StepError> {
    parts.whole.end_processes().await?;
    begin(&parts.whole).await?;
    parts.arrange(|_| true).await?;
    let formats = all(parts.each(|_, copy| clone_unless_sound(copy, op)).await)?;
    let default = &parts.list[parts.default];
    let handle = Handle {
        path: parts.whole.tree.clone(),
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
        access: Access::from([(access::PATH.to_string(), default.tree.clone())]),
        ..Provisioned::default()
    })
}

/// Clones a working copy, unless a sound one is there. Returns its object format.
async fn clone_unless_sound(copy: &WorkingCopy, op: u64) -> Result<String, StepError> {
    // A tree with the final name is complete: it got the name by a rename after the clone.
    match copy.read_meta("format").await? {
        Some(format) if is_sound(copy, &format).await? => Ok(format),
        _ => clone(copy, op).await,
    }
}

async fn is_sound(copy: &WorkingCopy, format: &str) -> Result<bool, StepError> {
    Ok(inspect(copy, &copy.git_config_in(format), Depth::Deep).await?.is_ok())
}

/// Ends the processes in the copy, then removes it.
pub(crate) async fn destroy(copy: &WorkingCopy) -> Result<(), StepError> {
    copy.end_processes().await?;
    copy.run(DESTROY, &[&copy.locator], copy.config.clone_timeout()).await.map(drop)
}
