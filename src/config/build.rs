//! Turns a file that was checked into what the broker works with.

use super::adapters::{Kind, Settings};
use super::check::{Checked, MAX_TTL};
use super::store::StoreConfig;
use super::types::{
    BrakeSection, DoubtSection, Drain, File, LimitsSection, Loaded, PoolSection, Server, TimeoutsSection,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use wharfinger_core::{Brake, DoubtPolicy, Labels, Limits, Millis, PoolConfig, Timeouts, Traits};

/// Leases at once on one resource, unless the configuration says otherwise.
const SLOTS: u32 = 1;
/// Working copies of a pool, unless the configuration says otherwise.
const MAX_COPIES: u32 = 4;
/// Instances of a pool, unless the configuration says otherwise.
#[cfg(feature = "ec2")]
const MAX_INSTANCES: u32 = 4;
/// An instance without a lease is given up after so long, unless the configuration says otherwise: it costs money.
#[cfg(feature = "ec2")]
const IDLE_INSTANCE: Millis = Millis::secs(600);
/// The TTL of a lease that names none, unless the configuration says otherwise.
const DEFAULT_TTL: Millis = Millis::secs(60);
/// How often a lease is sent back to the queue, unless the configuration says otherwise.
const ATTEMPTS: u32 = 5;
/// How long a holder may have its resource kept, unless the configuration says otherwise.
const MAX_HOLD: Millis = Millis::secs(86_400);
/// For how long the audit trail is kept, unless the configuration says otherwise.
const KEEP_EVENTS: Millis = Millis::secs(90 * 86_400);
/// How long a stop waits, unless the configuration says otherwise.
const STOP_GRACE: Millis = Millis::secs(10);

/// Builds it; everything was checked.
pub(crate) fn build(path: &Path, folder: &Path, file: &File<'_>, checked: Checked) -> Loaded {
    let listen = checked.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 7411)));
    let max_ttl = or(&file.limits.max_ttl, MAX_TTL);
    let mut pools = Vec::new();
    let mut adapters = BTreeMap::new();
    for (section, settings) in file.pools.iter().zip(checked.pools) {
        let (Some(name), Some((kind, settings))) = (&section.name, settings) else { continue };
        let Settings { config, items } = settings;
        pools.push(build_pool(name.get_ref(), section, kind, config.traits(), items, max_ttl));
        adapters.insert(name.get_ref().clone(), config);
    }
    Loaded {
        path: path.to_path_buf(),
        server: Server {
            listen,
            allow_remote: or(&file.allow_remote, false),
            stop_grace: duration(or(&file.stop_grace, STOP_GRACE)),
        },
        store: checked.store.unwrap_or_else(|| StoreConfig::Sqlite(folder.join("wharfinger.db"))),
        cluster: checked.cluster,
        keep_events: or(&file.limits.events, KEEP_EVENTS),
        limits: build_limits(&file.limits, &file.brake),
        pools,
        adapters,
    }
}

fn build_pool(
    name: &str,
    section: &PoolSection<'_>,
    kind: Kind,
    traits: Traits,
    inventory: Option<Vec<wharfinger_core::Item>>,
    longest_ttl: Millis,
) -> PoolConfig {
    let count = |items: usize| u32::try_from(items).unwrap_or(u32::MAX);
    let usual_max = match (&inventory, kind) {
        (Some(items), _) => count(items.len()).max(1),
        (None, Kind::Copies) => MAX_COPIES,
        (None, Kind::Local | Kind::Ssh) => 1,
        #[cfg(feature = "ec2")]
        (None, Kind::Ec2) => MAX_INSTANCES,
    };
    let max = or(&section.max, usual_max);
    // The machines of an inventory are there anyway: kept ready, a dead one is noticed before someone waits for it.
    let usual_ready =
        inventory.as_ref().map_or(0, |items| count(items.iter().filter(|item| item.enabled).count()).min(max));
    let usual_idle = match kind {
        Kind::Local | Kind::Ssh | Kind::Copies => None,
        #[cfg(feature = "ec2")]
        Kind::Ec2 => Some(IDLE_INSTANCE),
    };
    let max_ttl = or(&section.max_ttl, longest_ttl);
    PoolConfig {
        name: name.into(),
        adapter: kind.as_str().into(),
        labels: labels(&section.labels),
        enabled: or(&section.enabled, true),
        on: section.on.iter().map(|pool| Arc::from(pool.get_ref().as_str())).collect(),
        inventory,
        min_ready: or(&section.min_ready, usual_ready),
        max,
        max_per_parent: some(&section.max_per_parent),
        slots: or(&section.slots, SLOTS),
        idle: some(&section.idle).or(usual_idle),
        max_age: some(&section.max_age),
        max_uses: some(&section.max_uses),
        traits,
        doubt: build_doubt(&section.doubt),
        default_ttl: or(&section.default_ttl, DEFAULT_TTL.min(max_ttl)),
        max_ttl,
        attempts: or(&section.attempts, ATTEMPTS),
        timeouts: build_timeouts(&section.timeouts, kind),
        brake: build_brake(&section.brake),
        domain: section.domain.as_ref().map(|label| Arc::from(label.get_ref().as_str())),
        drain: match some(&section.drain) {
            None | Some(Drain::Wait) => None,
            Some(Drain::After(span)) => Some(span),
        },
        max_hold: or(&section.max_hold, MAX_HOLD),
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
        blind_after: or(&section.blind_after, usual.blind_after),
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

fn build_timeouts(section: &TimeoutsSection, kind: Kind) -> Timeouts {
    let usual = match kind {
        // A thorough check walks over the whole history.
        Kind::Copies => Timeouts { check: Millis::secs(900), ..Timeouts::default() },
        Kind::Local | Kind::Ssh => Timeouts::default(),
        // A launch, a boot, and some patience.
        #[cfg(feature = "ec2")]
        Kind::Ec2 => Timeouts { provision: Millis::secs(1200), ..Timeouts::default() },
    };
    Timeouts {
        provision: or(&section.provision, usual.provision),
        prepare: or(&section.prepare, usual.prepare),
        clean: or(&section.clean, usual.clean),
        check: or(&section.check, usual.check),
        repair: or(&section.repair, usual.repair),
        destroy: or(&section.destroy, usual.destroy),
    }
}

/// Labels as the core has them.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> Labels {
    labels.iter().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str()))).collect()
}

fn some<T: Copy>(value: &Option<Spanned<T>>) -> Option<T> {
    value.as_ref().map(|value| *value.get_ref())
}

fn or<T: Copy>(value: &Option<Spanned<T>>, usual: T) -> T {
    some(value).unwrap_or(usual)
}

fn duration(span: Millis) -> Duration {
    Duration::from_millis(u64::try_from(span.0).unwrap_or(0))
}
