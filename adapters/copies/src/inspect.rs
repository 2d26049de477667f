//! Compares a working copy with the one that the adapter made (`sh/inspect.sh`).

use crate::error::{State, StepError};
use crate::git::{INSPECT, WorkingCopy};

/// How far an inspection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Files and `HEAD`; some milliseconds.
    Quick,
    /// Also whether every object is there that a ref needs; as long as history is.
    Deep,
}

/// What state the copy is in; `Ok(Ok(()))` is a good one.
pub(crate) async fn inspect(
    copy: &WorkingCopy,
    git_config: &str,
    depth: Depth,
) -> Result<Result<(), State>, StepError> {
    let min = copy.config.min_free_disk_mb.to_string();
    let (word, limit) = match depth {
        Depth::Quick => ("quick", copy.config.command_timeout()),
        Depth::Deep => ("deep", copy.config.clone_timeout()),
    };
    Ok(copy.try_run(INSPECT, &[git_config, &min, word], limit).await?.map(drop))
}
