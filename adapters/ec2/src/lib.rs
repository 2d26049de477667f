//! EC2 instances as hosts: launched once, watched from three sides, replaced before they are missed.
//!
//! The adapter launches instances, observes their state and terminates them. The ssh adapter uses them: a known instance is an SSH
//! host with a pinned key (`adapter.rs`).
//!
//! All decisions use the trait [`cloud::Cloud`]; the AWS SDK is behind the feature `sdk`, in `aws.rs` alone. Pools of one account,
//! region and deployment share an [`account::Account`]: one list of instances, one queue, one rate.
//!
//! Words: a *place* is an instance type in a zone. A *market* is spot or on demand. A *launch* is one request for one instance, an
//! *attempt* its number. A *record* is the stored state of one resource. An *orphan* is an instance of the deployment that no record
//! names.

pub mod account;
mod accounts;
mod adapter;
#[cfg(feature = "sdk")]
mod aws;
mod backoff;
mod boot;
pub mod broker;
mod clock;
pub mod cloud;
mod config;
pub mod doctor;
pub mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod first_contact;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod launch;
mod market_stats;
pub mod notices;
mod orphans;
mod plan;
mod pool;
mod provision;
mod rate_limit;
mod reconcile;
mod record;
mod settings;
mod sqs;
pub mod state_reason;
pub mod tags;
mod terminate;
mod user_data;

#[cfg(test)]
mod tests;

pub use accounts::Accounts;
pub use adapter::Ec2Adapter;
pub use broker::{Broker, Phase, Row};
pub use config::{Address, Config, Market};
pub use market_stats::{MarketCounts, MarketReport};
pub use settings::defaults;
