//! Turns a checked file into the settings of the broker.

use super::check::{Checked, KEEP_EVENTS, MAX_TTL};
use super::problem::Report;
use super::store::StoreConfig;
use super::types::{
    BrakeSection, DoubtSection, Drain, File, LimitsSection, Loaded, PoolSection, Server, TimeoutsSection,
};
use crate::adapters::{AdapterConfig, kind};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use wharfinger_adapter::settings::PoolDefaults;
use wharfinger_core::{Brake, DoubtPolicy, Isolation, Labels, Limits, Millis, PoolConfig, Timeouts};

// Defaults for all kinds of pools; those that differ come from the adapters.
/// Leases at once on one resource.
const SLOTS: u32 = 1;
/// TTL of a lease that names none.
const DEFAULT_TTL: Millis = Millis::secs(60);
/// Maximum number of times that a lease returns to the queue.
const ATTEMPTS: u32 = 5;
/// Maximum time for which a holder may hold its resource after a failure.
const MAX_HOLD: Millis = Millis::secs(86_400);
/// Maximum time that a stop waits for calls under way.
const STOP_GRACE: Millis = Millis::secs(10);

/// Builds the settings from a file that was checked.
pub(crate) fn build(path: &Path, folder: &Path, file: &File<'_>, checked: Checked, warnings: Report) -> Loaded {
    let listen = checked.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 7411)));
    let max_ttl = or(&file.limits.max_ttl, MAX_TTL);
    let mut pools = Vec::new();
    let mut adapters = BTreeMap::new();
    for (section, config) in file.pools.iter().zip(checked.pools) {
        let (Some(name), Some(config)) = (&section.name, config) else { continue };
        let Some(kind) = kind(config.kind()) else { continue };
        pools.push(build_pool(name.get_ref(), section, &config, kind.defaults(), max_ttl));
        adapters.insert(name.get_ref().clone(), config);
    }
    Loaded {
        path: path.to_path_buf(),
        digest: String::new(),
        server: Server {
            listen,
            unix: checked.unix,
            allow_remote: or(&file.allow_remote, false),
            stop_grace: duration(or(&file.stop_grace, STOP_GRACE)),
            tls: checked.tls,
            per_address: checked.per_address,
        },
        store: checked.store.unwrap_or_else(|| StoreConfig::Sqlite(folder.join("wharfinger.db"))),
        cluster: checked.cluster,
        metrics: checked.metrics,
        log: checked.log,
        audit: checked.audit,
        hooks: checked.hooks,
        page: checked.page,
        jenkins: checked.jenkins,
        traces: checked.traces,
        auth: checked.auth,
        roles: checked.roles,
        warnings,
        keep_events: or(&file.limits.events, KEEP_EVENTS),
        limits: build_limits(&file.limits, &file.brake),
        pools,
        tenants: Arc::new(checked.tenants),
        adapters,
    }
}

fn build_pool(
    name: &str,
    section: &PoolSection<'_>,
    config: &AdapterConfig,
    defaults: PoolDefaults,
    longest_ttl: Millis,
) -> PoolConfig {
    let inventory = config.settings().inventory();
    let count = |items: usize| u32::try_from(items).unwrap_or(u32::MAX);
    let usual_max = inventory.as_ref().map_or(defaults.max, |items| count(items.len()).max(1));
    let max = or(&section.max, usual_max);
    // The machines of an inventory exist anyway. Kept ready, a dead one is noticed before a request waits for it.
    let usual_ready =
        inventory.as_ref().map_or(0, |items| count(items.iter().filter(|item| item.enabled).count()).min(max));
    let max_ttl = or(&section.max_ttl, longest_ttl);
    PoolConfig {
        name: name.into(),
        adapter: config.kind().into(),
        labels: labels(&section.labels),
        enabled: or(&section.enabled, true),
        disabled_reason: section.disabled_reason.as_ref().map(|reason| Arc::from(reason.get_ref().as_str())),
        on: section.on.iter().map(|pool| Arc::from(pool.get_ref().as_str())).collect(),
        inventory,
        min_ready: or(&section.min_ready, usual_ready),
        max,
        max_per_parent: some(&section.max_per_parent),
        slots: or(&section.slots, SLOTS),
        idle: some(&section.idle).or(defaults.idle.map(millis)),
        max_age: some(&section.max_age),
        max_uses: some(&section.max_uses),
        traits: config.settings().traits(),
        doubt: build_doubt(&section.doubt),
        default_ttl: or(&section.default_ttl, DEFAULT_TTL.min(max_ttl)),
        max_ttl,
        attempts: or(&section.attempts, ATTEMPTS),
        timeouts: build_timeouts(&section.timeouts, &defaults),
        brake: build_brake(&section.brake),
        domain: section.domain.as_ref().map(|label| Arc::from(label.get_ref().as_str())),
        drain: match some(&section.drain) {
            None | Some(Drain::Wait) => None,
            Some(Drain::After(span)) => Some(span),
        },
        max_hold: or(&section.max_hold, MAX_HOLD),
        isolation: some(&section.isolation).unwrap_or(Isolation::None),
        reuse_across_tenants: or(&section.reuse_across_tenants, true),
    }
}

fn build_limits(section: &LimitsSection, brake: &BrakeSection) -> Limits {
    let usual = Limits::default();
    Limits {
        queue: some(&section.queue).and_then(|queue| usize::try_from(queue).ok()).unwrap_or(usual.queue),
        claims: or(&section.claims, usual.claims),
        retention: or(&section.retention, usual.retention),
        grace: or(&section.grace, usual.grace),
        pause: or(&section.pause, usual.pause),
        brake: build_brake(brake),
        patience: or(&section.patience, usual.patience),
        // Constants of the API.
        sessions: usual.sessions,
        session_ttl: usual.session_ttl,
    }
}

fn build_doubt(section: &DoubtSection) -> DoubtPolicy {
    let usual = DoubtPolicy::default();
    DoubtPolicy {
        after_failed: or(&section.after_failed, usual.after_failed),
        after_lost: or(&section.after_lost, usual.after_lost),
        probe_interval: or(&section.probe_interval, usual.probe_interval),
        retry_interval: or(&section.retry_interval, usual.retry_interval),
        misses: or(&section.misses, usual.misses),
        over: or(&section.over, usual.over),
        repairs: or(&section.repairs, usual.repairs),
        false_alarm: or(&section.false_alarm, usual.false_alarm),
        work_after: or(&section.work_after, usual.work_after),
        dry_run: or(&section.dry_run, usual.dry_run),
    }
}

fn build_brake(section: &BrakeSection) -> Brake {
    let usual = Brake::default();
    Brake {
        floor: or(&section.floor, usual.floor),
        share: or(&section.share, usual.share),
        hold: or(&section.hold, usual.hold),
        window: or(&section.window, usual.window),
    }
}

fn build_timeouts(section: &TimeoutsSection, defaults: &PoolDefaults) -> Timeouts {
    let usual = Timeouts::default();
    Timeouts {
        provision: or(&section.provision, defaults.provision_timeout.map_or(usual.provision, millis)),
        prepare: or(&section.prepare, usual.prepare),
        clean: or(&section.clean, usual.clean),
        check: or(&section.check, defaults.check_timeout.map_or(usual.check, millis)),
        repair: or(&section.repair, usual.repair),
        destroy: or(&section.destroy, usual.destroy),
    }
}

/// Labels as the core has them.
fn labels(labels: &BTreeMap<String, String>) -> Labels {
    labels.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))).collect()
}

fn some<T: Copy>(value: &Option<Spanned<T>>) -> Option<T> {
    value.as_ref().map(|value| *value.get_ref())
}

fn or<T: Copy>(value: &Option<Spanned<T>>, usual: T) -> T {
    some(value).unwrap_or(usual)
}

fn millis(span: Duration) -> Millis {
    Millis(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}

fn duration(span: Millis) -> Duration {
    Duration::from_millis(u64::try_from(span.0).unwrap_or(0))
}
