//! `[store]`: the engine and its settings.

use super::problem::{Problems, Span};
use super::reader::Reader;
use super::secret_file;
use crate::store::PostgresSettings;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use wharfinger_adapter::settings::closest;
use wharfinger_core::Millis;

/// The place of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// A SQLite file. The path is absolute if that of the configuration was.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(PostgresSettings),
}

/// Leaves the password out.
impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreConfig::Sqlite(path) => path.display().fmt(f),
            StoreConfig::Postgres(settings) => settings.fmt(f),
        }
    }
}

/// `[store]` as read.
#[derive(Debug, Default)]
pub(crate) struct StoreSection {
    span: Option<Span>,
    engine: Option<Spanned<String>>,
    path: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
    password_file: Option<Spanned<String>>,
    schema: Option<Spanned<String>>,
    connect_timeout: Option<Spanned<Millis>>,
    statement_timeout: Option<Spanned<Millis>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

const ENGINES: [&str; 2] = ["sqlite", "postgres"];

/// Known parameters of the URL. The driver ignores others without a message.
const PARAMETERS: [&str; 6] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "application_name"];

/// Modes of TLS, without "allow": the driver reads it as "disable".
const TLS_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

pub(crate) fn read(reader: &mut Reader<'_>, problems: &mut Problems) -> StoreSection {
    let mut store = reader.table("store", "[store]", problems);
    let time = Millis(100)..=Millis::secs(600);
    let section = StoreSection {
        span: store.span(),
        engine: store.text("engine", problems),
        path: store.text("path", problems),
        url: store.text("url", problems),
        password_file: store.text("password_file", problems),
        schema: store.text("schema", problems),
        connect_timeout: store.duration("connect_timeout", time.clone(), problems),
        statement_timeout: store.duration("statement_timeout", time, problems),
    };
    store.finish(problems);
    section
}

/// Checks the table. `None`: it has mistakes, which are noted.
pub(crate) fn check(section: &StoreSection, folder: &Path, problems: &mut Problems) -> Option<StoreConfig> {
    let engine = check_engine(section, problems)?;
    let before = problems.len();
    refuse_strangers(section, engine, problems);
    let config = match engine {
        Engine::Sqlite => {
            if let Some(path) = &section.path
                && (path.get_ref().is_empty() || path.get_ref().ends_with('/'))
            {
                problems.add(path.span(), "`path` names no file", "name the database file, as in \"wharfinger.db\"");
            }
            let path = section.path.as_ref().map_or("wharfinger.db", |path| path.get_ref());
            StoreConfig::Sqlite(folder.join(path))
        }
        Engine::Postgres => StoreConfig::Postgres(check_postgres(section, folder, problems)?),
    };
    (problems.len() == before).then_some(config)
}

fn check_engine(section: &StoreSection, problems: &mut Problems) -> Option<Engine> {
    let Some(engine) = &section.engine else { return Some(Engine::Sqlite) };
    match engine.get_ref().as_str() {
        "sqlite" => Some(Engine::Sqlite),
        "postgres" if cfg!(feature = "postgres") => Some(Engine::Postgres),
        "postgres" => {
            problems.add(
                engine.span(),
                "this wharfinger was built without PostgreSQL",
                "build it with the feature \"postgres\", or use engine = \"sqlite\"",
            );
            None
        }
        text => {
            let remedy = match closest(text, &ENGINES) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "use \"sqlite\" (the default) or \"postgres\"".into(),
            };
            problems.add(engine.span(), format!("no store has the name {text:?}"), remedy);
            None
        }
    }
}

/// Refuses keys of the other engine: they would have no effect.
fn refuse_strangers(section: &StoreSection, engine: Engine, problems: &mut Problems) {
    let text = |value: &Option<Spanned<String>>| value.as_ref().map(Spanned::span);
    let time = |value: &Option<Spanned<Millis>>| value.as_ref().map(Spanned::span);
    let (of, strangers) = match engine {
        Engine::Sqlite => (
            "postgres",
            vec![
                ("url", text(&section.url)),
                ("password_file", text(&section.password_file)),
                ("schema", text(&section.schema)),
                ("connect_timeout", time(&section.connect_timeout)),
                ("statement_timeout", time(&section.statement_timeout)),
            ],
        ),
        Engine::Postgres => ("sqlite", vec![("path", text(&section.path))]),
    };
    for (key, span) in strangers {
        if let Some(span) = span {
            let remedy = format!("take it out, or write engine = \"{of}\"");
            problems.add(span, format!("`{key}` is for the engine \"{of}\""), remedy);
        }
    }
}

fn check_postgres(section: &StoreSection, folder: &Path, problems: &mut Problems) -> Option<PostgresSettings> {
    let Some(url) = &section.url else {
        let span = section.engine.as_ref().map(Spanned::span).or(section.span.clone()).unwrap_or(0..0);
        problems.add(
            span,
            "this store has no address of a database",
            "add url = \"postgres://USER@HOST/DATABASE?sslmode=verify-full\"",
        );
        return None;
    };
    let mut settings = PostgresSettings::new(url.get_ref().clone());
    let before = problems.len();
    check_url(url, section.password_file.as_ref(), problems);
    #[cfg(feature = "postgres")]
    if problems.len() == before
        && let Err(error) = crate::store::PostgresStore::understands(&settings)
    {
        problems.add(url.span(), error.to_string(), "write postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full");
    }
    #[cfg(not(feature = "postgres"))]
    let _ = before;
    if let Some(file) = &section.password_file {
        let path = folder.join(file.get_ref());
        if let Some((what, remedy)) = secret_file::fault("password", &path) {
            problems.add(file.span(), what, remedy);
        }
        settings.password_file = Some(path);
    }
    if let Some(schema) = &section.schema {
        let text = schema.get_ref();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with(|c: char| c.is_ascii_digit());
        if !fits || text.starts_with("pg_") {
            problems.add(
                schema.span(),
                format!("{text:?} is not a valid schema name"),
                "use 1 to 63 of a to z, 0 to 9 and _, not beginning with a digit or pg_",
            );
        }
        settings.schema.clone_from(text);
    }
    let time = |value: &Option<Spanned<Millis>>| {
        value.as_ref().map(|span| Duration::from_millis(u64::try_from(span.get_ref().0).unwrap_or(0)))
    };
    settings.connect_timeout = time(&section.connect_timeout).unwrap_or(settings.connect_timeout);
    settings.statement_timeout = time(&section.statement_timeout).unwrap_or(settings.statement_timeout);
    Some(settings)
}

/// Checks settings that the driver ignores, or refuses only at the start.
fn check_url(url: &Spanned<String>, password_file: Option<&Spanned<String>>, problems: &mut Problems) {
    let text = url.get_ref().as_str();
    let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) else {
        problems.add(
            url.span(),
            "`url` is not the address of a PostgreSQL database",
            "write postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full, or postgres:///DATABASE?host=/run/postgresql",
        );
        return;
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if database.is_empty() || database.contains(['/', '@']) {
        problems.add(
            url.span(),
            "`url` names no database",
            "write it behind the host, as in postgres://HOST/DATABASE; signs like / and @ in a password as %2F and %40",
        );
    }
    if let (Some((_, _)), Some(file)) = (user.split_once(':'), password_file) {
        problems
            .add(url.span(), "the password is in `url` and in `password_file`", "take it out of `url`")
            .also(file.span(), "and here");
    }
    let mut tls = None;
    let mut socket = host.starts_with("%2F") || host.starts_with("%2f");
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "sslmode" => tls = Some(value),
            "host" => socket |= value.starts_with('/') || value.starts_with("%2F"),
            _ => {}
        }
        if !PARAMETERS.contains(&key) {
            let remedy = match (key, closest(key, &PARAMETERS)) {
                ("password", _) => "use `password_file`, or postgres://USER:PASSWORD@HOST/…".into(),
                (_, Some(near)) => format!("did you mean {near}?"),
                (_, None) => format!("known here: {}", PARAMETERS.join(", ")),
            };
            problems.add(url.span(), format!("`url` has a parameter that is not known: {key}"), remedy);
        }
    }
    match tls {
        Some(mode) if !TLS_MODES.contains(&mode) => {
            let remedy = match closest(mode, &TLS_MODES) {
                Some(near) if mode != "allow" => format!("did you mean {near}?"),
                _ => format!("use one of {}", TLS_MODES.join(", ")),
            };
            problems.add(url.span(), format!("`sslmode` is {mode:?}"), remedy);
        }
        Some(_) => {}
        None if socket || is_this_machine(host) => {}
        None => {
            problems
                .add(
                    url.span(),
                    "`url` leads to another machine, and has no mode of TLS",
                    "add ?sslmode=verify-full (with sslrootcert=FILE for a CA of your own), or ?sslmode=disable on a network that you trust",
                )
                .label("no sslmode");
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.is_empty()
        || name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
