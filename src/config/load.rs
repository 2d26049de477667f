//! Reads the file into [`File`]: syntax, known keys, types and bounds.

use super::adapters::Kind;
use super::problem::{ConfigError, Problems, Report};
use super::reader::Reader;
use super::types::{BrakeSection, DoubtSection, File, LimitsSection, Loaded, PoolSection, TimeoutsSection};
use super::{build, check, cluster, store};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use toml::de::DeTable;
use wharfinger_core::Millis;

const DAY: i64 = 86_400;
/// Bounds of what must happen soon.
const SOON: RangeInclusive<Millis> = Millis(100)..=Millis::secs(3600);
/// Bounds of what may take long.
const LONG: RangeInclusive<Millis> = Millis(1000)..=Millis::secs(365 * DAY);
/// Bounds of a TTL.
const TTL: RangeInclusive<Millis> = Millis(1000)..=Millis::secs(30 * DAY);
/// Bounds of one piece of an adapter's work.
const WORK: RangeInclusive<Millis> = Millis(100)..=Millis::secs(DAY);

/// More failures in a row of one resource are not remembered.
const REMEMBERED: u32 = wharfinger_core::Resource::MAX_FAILURES as u32;

/// Reads and checks a configuration file.
///
/// # Errors
/// [`ConfigError::Unreadable`] or, with all that is wrong, [`ConfigError::Invalid`].
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let source =
        std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_path_buf(), error })?;
    parse(path, &source)
}

/// Checks the text of a configuration; `path` says where it came from, and what its relative paths are relative to.
///
/// # Errors
/// [`ConfigError::Invalid`] with all that is wrong.
pub fn parse(path: &Path, source: &str) -> Result<Loaded, ConfigError> {
    let mut problems = Problems::default();
    let (document, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        for error in errors {
            let end = source.len();
            problems.add(error.span().unwrap_or(end..end), error.message(), "").label("not TOML");
        }
        // What could be read in spite of it would give mistakes that are none.
        return Err(ConfigError::Invalid(Report::new(path, source, problems)));
    }
    let mut reader = Reader::new(document.get_ref(), 0..0, "the file");
    let file = read_file(&mut reader, &mut problems);
    reader.finish(&mut problems);
    let folder = folder_of(path);
    let checked = check::check(&file, &folder, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(Report::new(path, source, problems)));
    }
    Ok(build::build(path, &folder, &file, checked))
}

/// The folder that relative paths in the file are relative to; absolute, since a server may change its own.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf())
}

fn read_file<'a>(reader: &mut Reader<'a>, problems: &mut Problems) -> File<'a> {
    let mut file = File::default();
    if let Some(mut server) = reader.table("server", "[server]", problems) {
        file.listen = server.text("listen", problems);
        file.allow_remote = server.flag("allow_remote", problems);
        file.stop_grace = server.duration("stop_grace", Millis::ZERO..=Millis::secs(600), problems);
        server.finish(problems);
    }
    file.store = store::read(reader, problems);
    file.cluster = cluster::read(reader, problems);
    if let Some(mut limits) = reader.table("limits", "[limits]", problems) {
        file.limits = LimitsSection {
            queue: limits.number("queue", 1..=10_000_000, problems),
            claims: limits.number("claims", 1..=1024, problems),
            retention: limits.duration("retention", Millis::secs(60)..=Millis::secs(30 * DAY), problems),
            events: limits.duration("events", Millis::secs(3600)..=Millis::secs(3650 * DAY), problems),
            grace: limits.duration("grace", Millis::ZERO..=Millis::secs(3600), problems),
            pause: limits.duration("pause", Millis::secs(1)..=Millis::secs(600), problems),
            max_ttl: limits.duration("max_ttl", TTL, problems),
        };
        limits.finish(problems);
    }
    file.brake = read_brake(reader, "[brake]", problems);
    for pool in reader.tables("pool", "[[pool]]", problems) {
        file.pools.push(read_pool(pool, problems));
    }
    file
}

fn read_pool<'a>(mut pool: Reader<'a>, problems: &mut Problems) -> PoolSection<'a> {
    let section = PoolSection {
        span: pool.span(),
        missing: ["name", "adapter"].into_iter().filter(|key| pool.value(key).is_none()).collect(),
        name: pool.text("name", problems),
        adapter: pool.text("adapter", problems),
        labels: pool.labels("labels", problems),
        enabled: pool.flag("enabled", problems),
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
        doubt: read_doubt(&mut pool, problems),
        brake: read_brake(&mut pool, "[pool.brake]", problems),
        timeouts: read_timeouts(&mut pool, problems),
        tables: Kind::ALL
            .iter()
            .filter_map(|kind| pool.value(kind.as_str()).map(|table| (kind.as_str(), table)))
            .collect::<BTreeMap<_, _>>(),
    };
    pool.finish(problems);
    section
}

fn read_doubt(pool: &mut Reader<'_>, problems: &mut Problems) -> DoubtSection {
    let Some(mut doubt) = pool.table("doubt", "[pool.doubt]", problems) else { return DoubtSection::default() };
    let section = DoubtSection {
        after_failed: doubt.flag("after_failed", problems),
        after_lost: doubt.flag("after_lost", problems),
        probe_interval: doubt.duration("probe_interval", SOON, problems),
        retry_interval: doubt.duration("retry_interval", SOON, problems),
        misses: doubt.number("misses", 1..=1000, problems),
        over: doubt.duration("over", Millis::ZERO..=Millis::secs(DAY), problems),
        repairs: doubt.number("repairs", 0..=100, problems),
        blind_after: doubt.number("blind_after", 0..=REMEMBERED, problems),
        work_after: doubt.number("work_after", 0..=1000, problems),
        dry_run: doubt.flag("dry_run", problems),
    };
    doubt.finish(problems);
    section
}

fn read_brake(reader: &mut Reader<'_>, title: &str, problems: &mut Problems) -> BrakeSection {
    let Some(mut brake) = reader.table("brake", title, problems) else { return BrakeSection::default() };
    let section = BrakeSection {
        span: Some(brake.span()),
        floor: brake.number("floor", 0..=100_000, problems),
        share: brake.number("share", 1..=100, problems),
        hold: brake.duration("hold", Millis::ZERO..=Millis::secs(DAY), problems),
        window: brake.duration("window", Millis::secs(1)..=Millis::secs(DAY), problems),
    };
    brake.finish(problems);
    section
}

fn read_timeouts(pool: &mut Reader<'_>, problems: &mut Problems) -> TimeoutsSection {
    let Some(mut timeouts) = pool.table("timeouts", "[pool.timeouts]", problems) else {
        return TimeoutsSection::default();
    };
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
