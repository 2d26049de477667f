//! The defaults of a kind of pools.

use std::time::Duration;

/// The defaults of a kind of pools, where they differ from one kind to another. `None`: the general default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolDefaults {
    /// Whether its resources are hosts, on which other pools may lie. Others lie on hosts themselves.
    pub host: bool,
    /// Maximum number of resources of a pool without an inventory.
    pub max: u32,
    /// Time without a lease after which a resource is given up.
    pub idle: Option<Duration>,
    /// Time limit for making a resource.
    pub provision_timeout: Option<Duration>,
    /// Time limit for a check.
    pub check_timeout: Option<Duration>,
}

impl PoolDefaults {
    /// The defaults of hosts that cost nothing while they are idle.
    pub const fn hosts() -> Self {
        Self { host: true, max: 1, idle: None, provision_timeout: None, check_timeout: None }
    }
}
