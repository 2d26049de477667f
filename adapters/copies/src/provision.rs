//! Making a copy, making it anew, removing it.

use crate::clone::{begin, clone};
use crate::error::Trouble;
use crate::git::{Copy, DESTROY, Handle};
use crate::inspect::{Depth, inspect};
use crate::parts::{Parts, all};
use std::collections::BTreeMap;
use wharfinger_adapter::{Access, Failure, Provisioned, access};

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

/// Removes the copy. What runs in it goes first, or it would write on.
pub(crate) async fn destroy(copy: &Copy) -> Result<(), Trouble> {
    copy.stop().await?;
    copy.must(DESTROY, &[&copy.note], copy.config.clone_timeout()).await.map(drop)
}
