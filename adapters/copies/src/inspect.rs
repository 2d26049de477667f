//! Compares a working copy with the one that the adapter made (`sh/inspect.sh`).

use crate::error::{State, StepError};
use crate::git::{INSPECT, WorkingCopy};

/// The depth of an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Files and `HEAD`. It takes milliseconds.
    Quick,
    /// Also the hash of every object (`git fsck`). The time grows with the history.
    Deep,
}

/// Inspects the copy. `Ok(Ok(()))`: it is sound. `Ok(Err(state))`: the first difference. `git_config`: the text that
/// `.git/config` must have.
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
