//! Reads the file into [`File`]: syntax, known keys, types and bounds.

use super::problem::{ConfigError, Problems, Report};
use super::reader::Reader;
use super::types::{
    BrakeSection, DoubtSection, File, LimitsSection, Loaded, PoolSection, SlotLimitsSection, TimeoutsSection,
};
use super::{
    audit, auth, build, check, cluster, hook, jenkins, log, page, per_address, role, store, tenant, tls, traces, unix,
};
use crate::adapters::KINDS;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::DeTable;
use wharfinger_core::{Isolation, Millis};

const DAY: i64 = 86_400;
/// Bounds of short times.
const SOON: RangeInclusive<Millis> = Millis(100)..=Millis::secs(3600);
/// Bounds of long times.
const LONG: RangeInclusive<Millis> = Millis(1000)..=Millis::secs(365 * DAY);
/// Bounds of a TTL.
const TTL: RangeInclusive<Millis> = Millis(1000)..=Millis::secs(30 * DAY);
/// Bounds of one call to an adapter.
const WORK: RangeInclusive<Millis> = Millis(100)..=Millis::secs(DAY);
/// Bounds of a slot's memory, in bytes: a shell and what starts it take some.
const MEMORY: RangeInclusive<u64> = 16 << 20..=1 << 50;
/// Bounds of a slot's processors, in thousandths: the kernel takes no quota below a hundredth.
const CPUS: RangeInclusive<u32> = 10..=4_096_000;
/// Bounds of a slot's processes: fewer start no build.
const PIDS: RangeInclusive<u32> = 8..=4_194_304;

/// Bounds of the leases of a healthy resource to one false alarm.
const FALSE_ALARM: RangeInclusive<u32> = 100..=100_000_000;

/// Reads and checks a configuration file.
///
/// # Errors
/// [`ConfigError::Unreadable`], or [`ConfigError::Invalid`] with all mistakes.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let source =
        std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_path_buf(), error })?;
    parse(path, &source)
}

/// Checks the text of a configuration. Relative paths in it start at the folder of `path`.
///
/// # Errors
/// [`ConfigError::Invalid`] with all mistakes.
pub fn parse(path: &Path, source: &str) -> Result<Loaded, ConfigError> {
    let mut problems = Problems::default();
    let (document, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        for error in errors {
            let end = source.len();
            problems.add(error.span().unwrap_or(end..end), error.message(), "").label("not TOML");
        }
        // Half a file has mistakes that the whole one does not have.
        return Err(ConfigError::Invalid(Report::new(path, source, problems)));
    }
    for (title, keys) in KINDS.iter().filter(|kind| !kind.is_hidden()).flat_map(|kind| kind.tables()) {
        problems.table(title, keys);
    }
    let mut reader = Reader::new(document.get_ref(), 0..0, "the file");
    let file = read_file(&mut reader, &mut problems);
    reader.finish(&mut problems);
    let folder = folder_of(path);
    let checked = check::check(&file, &folder, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(Report::new(path, source, problems)));
    }
    let loaded = build::build(path, &folder, &file, checked, Report::warnings(path, source, problems));
    Ok(Loaded { digest: crate::auth::hex(&Sha256::digest(source)[..8]), ..loaded })
}

/// The folder at which relative paths in the file start. It is absolute, since a server may change its own folder.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf())
}

fn read_file<'a>(reader: &mut Reader<'a>, problems: &mut Problems) -> File<'a> {
    let mut file = File::default();
    let mut server = reader.table("server", "[server]", problems);
    file.listen = server.text("listen", problems);
    file.allow_remote = server.flag("allow_remote", problems);
    file.stop_grace = server.duration("stop_grace", Millis::ZERO..=Millis::secs(600), problems);
    file.unix = unix::read_socket(&mut server, problems);
    file.tls = tls::read(&mut server, &tls::OF_SERVER, problems);
    file.per_address = per_address::read(&mut server, problems);
    server.finish(problems);
    file.store = store::read(reader, problems);
    file.cluster = cluster::read(reader, problems);
    let mut metrics = reader.table("metrics", "[metrics]", problems);
    file.metrics = metrics.text("listen", problems);
    metrics.finish(problems);
    file.log = log::read(reader, problems);
    file.hooks = hook::read(reader, problems);
    file.page = page::read(reader, problems);
    file.jenkins = jenkins::read(reader, problems);
    file.traces = traces::read(reader, problems);
    file.audit = audit::read(reader, problems);
    file.auth = auth::read(reader, problems);
    file.roles = role::read(reader, problems);
    file.tenants = tenant::read(reader, problems);
    let mut limits = reader.table("limits", "[limits]", problems);
    file.limits = LimitsSection {
        queue: limits.number("queue", 1..=10_000_000, problems),
        claims: limits.number("claims", 1..=1024, problems),
        retention: limits.duration("retention", Millis::secs(60)..=Millis::secs(30 * DAY), problems),
        events: limits.duration("events", Millis::secs(3600)..=Millis::secs(3650 * DAY), problems),
        grace: limits.duration("grace", Millis::ZERO..=Millis::secs(3600), problems),
        pause: limits.duration("pause", Millis::secs(1)..=Millis::secs(600), problems),
        max_ttl: limits.duration("max_ttl", TTL, problems),
        patience: limits.duration("patience", Millis::ZERO..=Millis::secs(30 * DAY), problems),
    };
    limits.finish(problems);
    file.brake = read_brake(reader, "[brake]", problems);
    for pool in reader.tables("pool", "[[pool]]", problems) {
        file.pools.push(read_pool(pool, problems));
    }
    file
}

fn read_pool<'a>(mut pool: Reader<'a>, problems: &mut Problems) -> PoolSection<'a> {
    let adapter = pool.text("adapter", problems);
    pool.set_adapter(adapter.as_ref().map(|adapter| adapter.get_ref().as_str()));
    let section = PoolSection {
        span: pool.span().unwrap_or(0..0),
        missing: ["name", "adapter"].into_iter().filter(|key| pool.value(key).is_none()).collect(),
        name: pool.text("name", problems),
        adapter,
        labels: pool.labels("labels", problems),
        enabled: pool.flag("enabled", problems),
        disabled_reason: pool.text("disabled_reason", problems),
        slots: pool.number("slots", 1..=1024, problems),
        min_ready: pool.number("min_ready", 0..=100_000, problems),
        max: pool.number("max", 1..=100_000, problems),
        idle: pool.duration("idle", LONG, problems),
        max_age: pool.duration("max_age", LONG, problems),
        max_uses: pool.number("max_uses", 1..=u32::MAX, problems),
        max_per_parent: pool.number("max_per_parent", 1..=100_000, problems),
        default_ttl: pool.duration("default_ttl", TTL, problems),
        max_ttl: pool.duration("max_ttl", TTL, problems),
        attempts: pool.number("attempts", 1..=1000, problems),
        on: pool.strings("on", problems).unwrap_or_default(),
        domain: pool.text("domain", problems),
        drain: pool.drain("drain", Millis::ZERO..=Millis::secs(365 * DAY), problems),
        max_hold: pool.duration("max_hold", Millis::ZERO..=Millis::secs(365 * DAY), problems),
        isolation: read_isolation(&mut pool, problems),
        reuse_across_tenants: pool.flag("reuse_across_tenants", problems),
        doubt: read_doubt(&mut pool, problems),
        brake: read_brake(&mut pool, "[pool.brake]", problems),
        timeouts: read_timeouts(&mut pool, problems),
        require_containment: pool.flag("require_containment", problems),
        slot_limits: read_slot_limits(&mut pool, problems),
        tables: KINDS
            .iter()
            .filter_map(|kind| pool.value(kind.name()).map(|table| (kind.name(), table)))
            .collect::<BTreeMap<_, _>>(),
    };
    pool.finish(problems);
    section
}

fn read_isolation(pool: &mut Reader<'_>, problems: &mut Problems) -> Option<Spanned<Isolation>> {
    let text = pool.text("isolation", problems)?;
    let isolation = match text.get_ref().as_str() {
        "none" => Isolation::None,
        "host" => Isolation::Host,
        other => {
            let remedy = "write \"host\" for one tenant at a time on each host, or \"none\"";
            problems.add(text.span(), format!("`isolation` is {other:?}"), remedy).label("not known");
            return None;
        }
    };
    Some(Spanned::new(text.span(), isolation))
}

fn read_doubt(pool: &mut Reader<'_>, problems: &mut Problems) -> DoubtSection {
    let mut doubt = pool.table("doubt", "[pool.doubt]", problems);
    doubt.replaced(
        "blind_after",
        "remove it: a resource is set apart by evidence beside the base rate of its pool; `false_alarm` sets how much, as in \
         \"one in 20,000 leases\", or \"never\" in place of 0",
        problems,
    );
    let section = DoubtSection {
        after_failed: doubt.flag("after_failed", problems),
        after_lost: doubt.flag("after_lost", problems),
        probe_interval: doubt.duration("probe_interval", SOON, problems),
        retry_interval: doubt.duration("retry_interval", SOON, problems),
        misses: doubt.number("misses", 1..=1000, problems),
        over: doubt.duration("over", Millis::ZERO..=Millis::secs(DAY), problems),
        repairs: doubt.number("repairs", 0..=100, problems),
        false_alarm: doubt.one_in("false_alarm", FALSE_ALARM, problems),
        work_after: doubt.number("work_after", 0..=1000, problems),
        dry_run: doubt.flag("dry_run", problems),
    };
    doubt.finish(problems);
    section
}

fn read_brake(reader: &mut Reader<'_>, title: &str, problems: &mut Problems) -> BrakeSection {
    let mut brake = reader.table("brake", title, problems);
    let section = BrakeSection {
        span: brake.span(),
        floor: brake.number("floor", 0..=100_000, problems),
        share: brake.number("share", 1..=100, problems),
        hold: brake.duration("hold", Millis::ZERO..=Millis::secs(DAY), problems),
        window: brake.duration("window", Millis::secs(1)..=Millis::secs(DAY), problems),
    };
    brake.finish(problems);
    section
}

fn read_slot_limits(pool: &mut Reader<'_>, problems: &mut Problems) -> SlotLimitsSection {
    let mut limits = pool.table("limits", "[pool.limits]", problems);
    let section = SlotLimitsSection {
        span: limits.span(),
        memory: limits.size("memory", MEMORY, problems),
        cpus: limits.processors("cpus", CPUS, problems),
        pids: limits.number("pids", PIDS, problems),
    };
    limits.finish(problems);
    section
}

fn read_timeouts(pool: &mut Reader<'_>, problems: &mut Problems) -> TimeoutsSection {
    let mut timeouts = pool.table("timeouts", "[pool.timeouts]", problems);
    let section = TimeoutsSection {
        provision: timeouts.duration("provision", WORK, problems),
        prepare: timeouts.duration("prepare", WORK, problems),
        clean: timeouts.duration("clean", WORK, problems),
        check: timeouts.duration("check", WORK, problems),
        repair: timeouts.duration("repair", WORK, problems),
        destroy: timeouts.duration("destroy", WORK, problems),
    };
    timeouts.finish(problems);
    section
}
