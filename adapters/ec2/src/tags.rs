//! The tags by which instances are found again.

/// All of ours begin so.
pub const PREFIX: &str = "wharfinger:";
/// Which broker.
pub const DEPLOYMENT: &str = "wharfinger:deployment";
/// Which pool.
pub const POOL: &str = "wharfinger:pool";
/// Which resource.
pub const RESOURCE: &str = "wharfinger:resource";
/// Which attempt to make it, from 1.
pub const ATTEMPT: &str = "wharfinger:attempt";
