//! EC2 instances as hosts: launched once, watched from three sides, replaced before they are missed.
//!
//! The adapter buys instances, finds out what becomes of them, and gives them back. How a host is used is the ssh
//! adapter's: once an instance is known, it is an ordinary SSH host with a pinned key (`adapter.rs`).
//!
//! All that decides talks to [`cloud::Cloud`], a trait; the AWS SDK is behind the feature `sdk`, in `aws.rs` alone.
//! Pools of one account and region share a [`account::Account`]: one list of instances, one queue, one rate.

pub mod account;
mod accounts;
mod adapter;
#[cfg(feature = "sdk")]
mod aws;
mod backoff;
pub mod cloud;
mod config;
pub mod doctor;
pub mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod market_stats;
pub mod notices;
mod orphans;
mod provision;
mod rate_limit;
mod reconcile;
mod record;
mod sqs;
pub mod state_reason;
pub mod tags;
mod terminate;
mod user_data;

#[cfg(test)]
mod tests;

pub use account::{Broker, Phase, Row};
pub use accounts::Accounts;
pub use adapter::Ec2Adapter;
pub use config::{Address, Config, Market};
pub use market_stats::{MarketCounts, MarketReport};
