//! Settings of a pool of kind `local`.

use serde::Deserialize;
use std::path::PathBuf;
use wharfinger_host::containment::Containment;

/// Settings of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Absolute directory of the scratch directories (`<root>/hosts/<resource>`). It is created if it is missing. The first line of
    /// the file `<root>/notice` announces an end of the machine (see [`wharfinger_host::announce`]).
    pub root: PathBuf,
    /// Minimum free space on the file system of `root`, in MiB.
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
    /// Returns the settings for this directory, with the defaults.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), min_free_disk_mb: min_free_disk_mb(), containment: Containment::default() }
    }
}
