//! EC2 instances as hosts: launched once, watched from three sides, replaced before they are missed.
//!
//! The adapter buys instances, finds out what becomes of them, and gives them back. How a host is used is the ssh
//! adapter's: once an instance is known, it is an ordinary SSH host with a pinned key (`adapter.rs`).
//!
//! All that decides talks to [`cloud::Cloud`], a trait; the AWS SDK is behind the feature `sdk`, in `aws.rs` alone.
//! Pools of one account and region share a [`hub::Hub`]: one list of instances, one queue, one rate.

mod adapter;
#[cfg(feature = "sdk")]
mod aws;
mod backoff;
mod buckets;
pub mod cloud;
mod clouds;
mod config;
pub mod doctor;
pub mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod hub;
mod inbox;
mod note;
pub mod notices;
mod orphans;
mod provision;
mod reconcile;
pub mod state_reason;
pub mod tags;
mod terminate;
mod user_data;
mod weather;

#[cfg(test)]
mod tests;

pub use adapter::Ec2Adapter;
pub use clouds::Clouds;
pub use config::{Address, Config, Market};
pub use hub::{Broker, Row, Standing};
pub use weather::{Counts, Report};
