//! Tags of instances.

/// Prefix of the broker's tags.
pub const PREFIX: &str = "wharfinger:";
/// Name of the broker in the account.
pub const DEPLOYMENT: &str = "wharfinger:deployment";
/// Name of the pool.
pub const POOL: &str = "wharfinger:pool";
/// Id of the resource.
pub const RESOURCE: &str = "wharfinger:resource";
/// Number of the launch of the resource, from 1.
pub const ATTEMPT: &str = "wharfinger:attempt";
