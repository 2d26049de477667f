//! The configuration in two forms: as read, with the place of each value, and as used by the broker.

use super::audit::AuditSection;
use super::auth::AuthSection;
use super::cluster::{Cluster, ClusterSection};
use super::hook::HookSection;
use super::jenkins::JenkinsSection;
use super::log::LogSection;
use super::page::{Page, PageSection};
use super::per_address::PerAddressSection;
use super::problem::{Report, Span};
use super::role::RoleSection;
use super::store::{StoreConfig, StoreSection};
use super::tenant::TenantSection;
use super::tls::{Tls, TlsSection};
use super::traces::TracesSection;
use super::unix::SocketSection;
use crate::adapters::AdapterConfig;
use crate::auth::{AddressLimits, Callers, RoleTable};
use crate::hooks::HookSettings;
use crate::socket::UnixSocket;
use crate::telemetry::{AuditSettings, LogSettings};
use crate::traces::TraceSettings;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;
use wharfinger_core::{Configuration, Isolation, Limits, Millis, PoolConfig, Tenants};

/// A configuration that was checked and can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The path of the file.
    pub path: PathBuf,
    /// Digest of the text of the file: 16 hexadecimal digits.
    pub digest: String,
    /// The address of the API and the rules of a stop.
    pub server: Server,
    /// The store.
    pub store: StoreConfig,
    /// The settings of a server that shares its database. `None`: it is the only server.
    pub cluster: Option<Cluster>,
    /// The address of the port for meters and probes. `None`: there is none.
    pub metrics: Option<SocketAddr>,
    /// The format and the filter of the log.
    pub log: LogSettings,
    /// The file of refusals. `None`: they are in the log.
    pub audit: Option<AuditSettings>,
    /// The hooks.
    pub hooks: Vec<HookSettings>,
    /// The operator's page. `None`: there is none.
    pub page: Option<Page>,
    /// The address of the port of Jenkins' remote locks. `None`: there is none.
    pub jenkins: Option<SocketAddr>,
    /// The collector of spans. `None`: there are no traces.
    pub traces: Option<TraceSettings>,
    /// The callers that the server knows. `None`: it trusts everyone who reaches its port.
    pub auth: Option<Callers>,
    /// The roles: the built-in ones, and those of the file.
    pub roles: RoleTable,
    /// Warnings about the file.
    pub warnings: Report,
    /// Limits of the whole deployment.
    pub limits: Limits,
    /// Age at which entries of the audit trail are deleted.
    pub keep_events: Millis,
    /// Pools in the order of the file.
    pub pools: Vec<PoolConfig>,
    /// The shares and the limits of tenants.
    pub tenants: Arc<Tenants>,
    /// The settings of each pool's adapter, by the name of the pool.
    pub adapters: BTreeMap<String, AdapterConfig>,
}

/// The address of the API and the rules of a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address and port of the API.
    pub listen: SocketAddr,
    /// The Unix socket beside the port. `None`: there is none.
    pub unix: Option<UnixSocket>,
    /// TLS on the port. `None`: it has none.
    pub tls: Option<Tls>,
    /// Whether an address is allowed that other machines reach, without TLS that asks each client for a certificate.
    pub allow_remote: bool,
    /// Limits of each address, before it is known who calls.
    pub per_address: AddressLimits,
    /// Maximum time that a stop waits for calls under way.
    pub stop_grace: Duration,
}

impl Loaded {
    /// Pools and tenants, for [`wharfinger_core::Input::Configure`].
    pub fn configuration(&self) -> Configuration {
        Configuration { pools: self.pools.clone(), tenants: self.tenants.clone() }
    }

    /// The tables in which `other` differs and that a running server cannot take over. Empty if there are none.
    pub fn needs_restart(&self, other: &Loaded) -> Vec<String> {
        let mut changes = Vec::new();
        // Other files of certificates are taken over; TLS itself is not.
        let tls = self.server.tls.is_some() == other.server.tls.is_some();
        if self.server != (Server { tls: self.server.tls.clone(), ..other.server.clone() }) || !tls {
            changes.push("[server]".to_string());
        }
        if self.store != other.store {
            changes.push("[store]".to_string());
        }
        if self.cluster != other.cluster {
            changes.push("[cluster]".to_string());
        }
        if self.metrics != other.metrics {
            changes.push("[metrics]".to_string());
        }
        if self.log.format != other.log.format {
            changes.push("`format` in [log]".to_string());
        }
        // Other certificates are taken over.
        let with_tls = |page: &Page| page.tls.is_some();
        let other_page = other.page.clone().map(|page| match &self.page {
            Some(own) if with_tls(own) == with_tls(&page) => Page { tls: own.tls.clone(), ..page },
            _ => page,
        });
        if self.page != other_page {
            changes.push("[page]".to_string());
        }
        if self.jenkins != other.jenkins {
            changes.push("[jenkins]".to_string());
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

/// The file as read. A value that the file does not have is `None`; nothing has been compared with anything else.
#[derive(Debug, Default)]
pub(crate) struct File<'a> {
    pub(crate) listen: Option<Spanned<String>>,
    pub(crate) allow_remote: Option<Spanned<bool>>,
    pub(crate) stop_grace: Option<Spanned<Millis>>,
    pub(crate) unix: SocketSection,
    pub(crate) tls: TlsSection,
    pub(crate) per_address: PerAddressSection,
    pub(crate) store: StoreSection,
    pub(crate) cluster: ClusterSection,
    pub(crate) metrics: Option<Spanned<String>>,
    pub(crate) log: LogSection,
    pub(crate) audit: AuditSection,
    pub(crate) hooks: Vec<HookSection>,
    pub(crate) page: PageSection,
    pub(crate) jenkins: JenkinsSection,
    pub(crate) traces: TracesSection,
    pub(crate) auth: AuthSection,
    pub(crate) roles: Vec<RoleSection>,
    pub(crate) tenants: Vec<TenantSection>,
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
    pub(crate) patience: Option<Spanned<Millis>>,
}

/// `[brake]` or `[pool.brake]` as read.
#[derive(Debug, Default)]
pub(crate) struct BrakeSection {
    /// The place of the table's header, if the file has the table.
    pub(crate) span: Option<Span>,
    pub(crate) floor: Option<Spanned<u32>>,
    pub(crate) share: Option<Spanned<u32>>,
    pub(crate) hold: Option<Spanned<Millis>>,
    pub(crate) window: Option<Spanned<Millis>>,
}

/// The policy for live leases of a resource that the configuration takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// The leases run to their end.
    Wait,
    /// The leases are broken after this time.
    After(Millis),
}

/// One `[[pool]]` as read.
#[derive(Debug)]
pub(crate) struct PoolSection<'a> {
    /// The place of its header.
    pub(crate) span: Span,
    /// The required keys that are missing. A value of a wrong type is not missing.
    pub(crate) missing: Vec<&'static str>,
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) adapter: Option<Spanned<String>>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) enabled: Option<Spanned<bool>>,
    pub(crate) disabled_reason: Option<Spanned<String>>,
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
    pub(crate) isolation: Option<Spanned<Isolation>>,
    pub(crate) reuse_across_tenants: Option<Spanned<bool>>,
    pub(crate) doubt: DoubtSection,
    pub(crate) brake: BrakeSection,
    pub(crate) timeouts: TimeoutsSection,
    pub(crate) require_containment: Option<Spanned<bool>>,
    pub(crate) slot_limits: SlotLimitsSection,
    /// The adapters' own tables in the file, by the name of the adapter.
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
    pub(crate) false_alarm: Option<Spanned<u32>>,
    pub(crate) work_after: Option<Spanned<u32>>,
    pub(crate) dry_run: Option<Spanned<bool>>,
}

/// `[pool.limits]` as read.
#[derive(Debug, Default)]
pub(crate) struct SlotLimitsSection {
    /// The place of its header.
    pub(crate) span: Option<Span>,
    /// In bytes.
    pub(crate) memory: Option<Spanned<u64>>,
    /// In thousandths of a processor.
    pub(crate) cpus: Option<Spanned<u32>>,
    pub(crate) pids: Option<Spanned<u32>>,
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
