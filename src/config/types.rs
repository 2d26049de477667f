//! The configuration: as it was read, with the place of each value, and as it is used.

use super::cluster::{Cluster, ClusterSection};
use super::problem::Span;
use super::store::{StoreConfig, StoreSection};
use crate::adapters::AdapterConfig;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;
use wharfinger_core::{Limits, Millis, PoolConfig};

/// A configuration that was checked and can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file that it came from.
    pub path: PathBuf,
    /// Where and how to serve.
    pub server: Server,
    /// Where the truth is kept.
    pub store: StoreConfig,
    /// One of several servers, if it is.
    pub cluster: Option<Cluster>,
    /// Limits of the whole deployment.
    pub limits: Limits,
    /// For how long the audit trail is kept.
    pub keep_events: Millis,
    /// Pools in the order of the file, for [`wharfinger_core::Input::Configure`].
    pub pools: Vec<PoolConfig>,
    /// What the adapter of each pool needs, by the pool's name.
    pub adapters: BTreeMap<String, AdapterConfig>,
}

/// Where and how to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address and port of the API.
    pub listen: SocketAddr,
    /// Serve on an address that other machines reach, though there is neither encryption nor authentication.
    pub allow_remote: bool,
    /// How long a stop waits for calls under way.
    pub stop_grace: Duration,
}

impl Loaded {
    /// What `other` says otherwise that a running server can't take over: each in words, empty if nothing.
    pub fn needs_restart(&self, other: &Loaded) -> Vec<String> {
        let mut changes = Vec::new();
        if self.server != other.server {
            changes.push("[server]".to_string());
        }
        if self.store != other.store {
            changes.push("[store]".to_string());
        }
        if self.cluster != other.cluster {
            changes.push("[cluster]".to_string());
        }
        let limits = Limits { brake: self.limits.brake, ..other.limits.clone() };
        if self.limits != limits || self.keep_events != other.keep_events {
            changes.push("[limits]".to_string());
        }
        if self.limits.brake != other.limits.brake {
            changes.push("[brake]".to_string());
        }
        changes
    }
}

/// The file as read: what is missing is `None`, and nothing has been compared with anything else.
#[derive(Debug, Default)]
pub(crate) struct File<'a> {
    pub(crate) listen: Option<Spanned<String>>,
    pub(crate) allow_remote: Option<Spanned<bool>>,
    pub(crate) stop_grace: Option<Spanned<Millis>>,
    pub(crate) store: StoreSection,
    pub(crate) cluster: ClusterSection,
    pub(crate) limits: LimitsSection,
    pub(crate) brake: BrakeSection,
    pub(crate) pools: Vec<PoolSection<'a>>,
}

/// `[limits]` as read.
#[derive(Debug, Default)]
pub(crate) struct LimitsSection {
    pub(crate) queue: Option<Spanned<u32>>,
    pub(crate) claims: Option<Spanned<u32>>,
    pub(crate) retention: Option<Spanned<Millis>>,
    pub(crate) events: Option<Spanned<Millis>>,
    pub(crate) grace: Option<Spanned<Millis>>,
    pub(crate) pause: Option<Spanned<Millis>>,
    pub(crate) max_ttl: Option<Spanned<Millis>>,
}

/// `[brake]` or `[pool.brake]` as read.
#[derive(Debug, Default)]
pub(crate) struct BrakeSection {
    /// Of the table, if it is there.
    pub(crate) span: Option<Span>,
    pub(crate) floor: Option<Spanned<u32>>,
    pub(crate) share: Option<Spanned<u32>>,
    pub(crate) hold: Option<Spanned<Millis>>,
    pub(crate) window: Option<Spanned<Millis>>,
}

/// What becomes of live leases when the configuration takes their resource away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// They run to their end.
    Wait,
    /// They are broken after this time.
    After(Millis),
}

/// One `[[pool]]` as read.
#[derive(Debug)]
pub(crate) struct PoolSection<'a> {
    /// Of its header.
    pub(crate) span: Span,
    /// The keys that must be there and are not: a value of the wrong type is told as that, not as missing.
    pub(crate) missing: Vec<&'static str>,
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) adapter: Option<Spanned<String>>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) enabled: Option<Spanned<bool>>,
    pub(crate) slots: Option<Spanned<u32>>,
    pub(crate) min_ready: Option<Spanned<u32>>,
    pub(crate) max: Option<Spanned<u32>>,
    pub(crate) idle: Option<Spanned<Millis>>,
    pub(crate) max_age: Option<Spanned<Millis>>,
    pub(crate) max_uses: Option<Spanned<u32>>,
    pub(crate) max_per_parent: Option<Spanned<u32>>,
    pub(crate) default_ttl: Option<Spanned<Millis>>,
    pub(crate) max_ttl: Option<Spanned<Millis>>,
    pub(crate) attempts: Option<Spanned<u32>>,
    pub(crate) on: Vec<Spanned<String>>,
    pub(crate) domain: Option<Spanned<String>>,
    pub(crate) drain: Option<Spanned<Drain>>,
    pub(crate) max_hold: Option<Spanned<Millis>>,
    pub(crate) doubt: DoubtSection,
    pub(crate) brake: BrakeSection,
    pub(crate) timeouts: TimeoutsSection,
    /// The adapters' own tables that are there, by the adapter's name.
    pub(crate) tables: BTreeMap<&'static str, &'a Spanned<DeValue<'a>>>,
}

/// `[pool.doubt]` as read.
#[derive(Debug, Default)]
pub(crate) struct DoubtSection {
    pub(crate) after_failed: Option<Spanned<bool>>,
    pub(crate) after_lost: Option<Spanned<bool>>,
    pub(crate) probe_interval: Option<Spanned<Millis>>,
    pub(crate) retry_interval: Option<Spanned<Millis>>,
    pub(crate) misses: Option<Spanned<u32>>,
    pub(crate) over: Option<Spanned<Millis>>,
    pub(crate) repairs: Option<Spanned<u32>>,
    pub(crate) blind_after: Option<Spanned<u32>>,
    pub(crate) work_after: Option<Spanned<u32>>,
    pub(crate) dry_run: Option<Spanned<bool>>,
}

/// `[pool.timeouts]` as read.
#[derive(Debug, Default)]
pub(crate) struct TimeoutsSection {
    pub(crate) provision: Option<Spanned<Millis>>,
    pub(crate) prepare: Option<Spanned<Millis>>,
    pub(crate) clean: Option<Spanned<Millis>>,
    pub(crate) check: Option<Spanned<Millis>>,
    pub(crate) repair: Option<Spanned<Millis>>,
    pub(crate) destroy: Option<Spanned<Millis>>,
}
