//! What a pool of kind `local` says in the configuration.

use serde::Deserialize;
use std::path::PathBuf;
use wharfinger_adapter::containment::Containment;

/// Settings of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Directory for the scratch directories (`<root>/hosts/<resource>`); absolute. Made if it is not there. The line of
    /// the file `<root>/notice` announces what will become of this machine (see [`wharfinger_adapter::announce`]).
    pub root: PathBuf,
    /// Free space that the file system of `root` must have, in MiB.
    #[serde(default = "min_free_disk_mb")]
    pub min_free_disk_mb: u64,
    /// From the pool's own table: `require_containment` and `[pool.limits]`.
    #[serde(skip)]
    pub containment: Containment,
}

fn min_free_disk_mb() -> u64 {
    512
}

impl Config {
    /// Settings with all defaults.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), min_free_disk_mb: min_free_disk_mb(), containment: Containment::default() }
    }
}
