//! The seam to the adapters: which there are, what they can do, and their own tables in the file.

use super::build::labels;
use super::check::is_name;
use super::problem::{Problems, Span};
use super::reader::{closest, read_labels};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};
use wharfinger_core::{Item, Traits};

/// What the adapter of a pool is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterConfig {
    /// This machine.
    Local(wharfinger_local::Config),
    /// SSH machines.
    Ssh(wharfinger_ssh::Config),
    /// Git working copies.
    Copies(wharfinger_copies::Config),
    /// EC2 instances.
    #[cfg(feature = "ec2")]
    Ec2(Box<wharfinger_ec2::Config>),
}

/// Which adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ssh,
    Local,
    Copies,
    #[cfg(feature = "ec2")]
    Ec2,
}

/// An adapter's table, read and checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: AdapterConfig,
    /// The machines, for pools that list them.
    pub(crate) items: Option<Vec<Item>>,
}

impl Kind {
    pub(crate) const ALL: &[Kind] = &[
        Kind::Ssh,
        Kind::Local,
        Kind::Copies,
        #[cfg(feature = "ec2")]
        Kind::Ec2,
    ];

    /// As it stands in the file.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Ssh => "ssh",
            Kind::Local => "local",
            Kind::Copies => "copies",
            #[cfg(feature = "ec2")]
            Kind::Ec2 => "ec2",
        }
    }

    /// All of them in a sentence.
    pub(crate) fn listed(prefix: &str) -> String {
        let words: Vec<String> = Kind::ALL.iter().map(|kind| format!("{prefix}\"{}\"", kind.as_str())).collect();
        words.join(", ")
    }

    /// Whether other pools may lie on it.
    pub(crate) fn is_host(self) -> bool {
        match self {
            Kind::Ssh | Kind::Local => true,
            Kind::Copies => false,
            #[cfg(feature = "ec2")]
            Kind::Ec2 => true,
        }
    }
}

impl AdapterConfig {
    /// The adapter's name, as it stands in the file.
    pub fn kind(&self) -> &'static str {
        match self {
            AdapterConfig::Local(_) => Kind::Local.as_str(),
            AdapterConfig::Ssh(_) => Kind::Ssh.as_str(),
            AdapterConfig::Copies(_) => Kind::Copies.as_str(),
            #[cfg(feature = "ec2")]
            AdapterConfig::Ec2(_) => Kind::Ec2.as_str(),
        }
    }

    /// What the adapter will say of itself. It is known before there is one, so that a file can be checked anywhere.
    pub(crate) fn traits(&self) -> Traits {
        match self {
            // Hosts are prepared too: the fence of the slot is written, and shows that the host is there.
            AdapterConfig::Local(_) => Traits { prepares: true, cleans: true, repairs: true, probes: true },
            AdapterConfig::Ssh(_) => Traits { prepares: true, cleans: true, repairs: false, probes: true },
            #[cfg(feature = "ec2")]
            AdapterConfig::Ec2(_) => Traits { prepares: true, cleans: true, repairs: false, probes: true },
            AdapterConfig::Copies(config) => {
                Traits { prepares: true, cleans: true, repairs: true, probes: config.probe_leased }
            }
        }
    }
}

/// Reads the adapter's own table. `None` if something is wrong, which is then noted.
pub(crate) fn read(
    kind: Kind,
    table: Option<&Spanned<DeValue<'_>>>,
    pool: &Span,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Settings> {
    match kind {
        Kind::Local => read_local(table, pool, folder, problems),
        Kind::Ssh => read_ssh(table, pool, folder, problems),
        Kind::Copies => read_copies(table, pool, problems),
        #[cfg(feature = "ec2")]
        Kind::Ec2 => read_ec2(table, pool, folder, problems),
    }
}

fn read_local(
    table: Option<&Spanned<DeValue<'_>>>,
    pool: &Span,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Settings> {
    let usual = folder.join("wharfinger-scratch");
    let mut table = table.cloned().unwrap_or_else(|| Spanned::new(pool.clone(), DeValue::Table(DeTable::new())));
    if let DeValue::Table(entries) = table.get_mut()
        && !entries.contains_key("root")
    {
        let text = DeValue::String(Cow::Owned(usual.display().to_string()));
        entries.insert(Spanned::new(pool.clone(), Cow::Borrowed("root")), Spanned::new(pool.clone(), text));
    }
    let mut config: wharfinger_local::Config = deserialize(&table, "[pool.local]", problems)?;
    config.root = folder.join(&config.root);
    judge(config.validate(), &table, problems)?;
    Some(Settings { config: AdapterConfig::Local(config), items: None })
}

fn read_copies(table: Option<&Spanned<DeValue<'_>>>, pool: &Span, problems: &mut Problems) -> Option<Settings> {
    let Some(table) = table else {
        problems.add(
            pool.clone(),
            "this pool of copies does not say of what",
            "add [pool.copies] with repository = \"https://…\"",
        );
        return None;
    };
    let config: wharfinger_copies::Config = deserialize(table, "[pool.copies]", problems)?;
    judge(config.validate(), table, problems)?;
    Some(Settings { config: AdapterConfig::Copies(config), items: None })
}

#[cfg(feature = "ec2")]
fn read_ec2(
    table: Option<&Spanned<DeValue<'_>>>,
    pool: &Span,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Settings> {
    let Some(table) = table else {
        problems.add(
            pool.clone(),
            "this pool of instances does not say what to launch, and where",
            "add [pool.ec2] with deployment, region, image, types and subnets, and [pool.ec2.ssh] with user and key",
        );
        return None;
    };
    let mut config: wharfinger_ec2::Config = deserialize(table, "[pool.ec2]", problems)?;
    judge(config.validate(), table, problems)?;
    let before = problems.len();
    let ssh = entry(table, "ssh").unwrap_or(table);
    for path in config.ssh.key.iter_mut().chain(&mut config.ssh.holder_key) {
        *path = resolve(folder, path);
    }
    for (key, path) in [("key", &config.ssh.key), ("holder_key", &config.ssh.holder_key)] {
        check_key_file(path.as_deref(), entry(ssh, key), problems);
    }
    if problems.len() > before {
        return None;
    }
    // What is in the key's file, and what only the ssh adapter can tell.
    if let Some(key) = &config.ssh.key {
        judge(wharfinger_ssh::public_of(key).map(drop), entry(ssh, "key").unwrap_or(ssh), problems)?;
    }
    judge(wharfinger_ssh::SshAdapter::new("check".into(), config.ssh.clone()).map(drop), ssh, problems)?;
    Some(Settings { config: AdapterConfig::Ec2(Box::new(config)), items: None })
}

fn read_ssh(
    table: Option<&Spanned<DeValue<'_>>>,
    pool: &Span,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Settings> {
    const NO_HOSTS: &str = "list them under [[pool.ssh.host]], each with name, address and host_key";
    let Some(table) = table else {
        problems.add(pool.clone(), "this pool of ssh machines lists none", NO_HOSTS);
        return None;
    };
    let mut config: wharfinger_ssh::Config = deserialize(table, "[pool.ssh]", problems)?;
    if config.hosts.is_empty() {
        problems.add(table.span(), "this pool of ssh machines lists none", NO_HOSTS);
        return None;
    }
    let before = problems.len();
    for path in config.key.iter_mut().chain(&mut config.holder_key) {
        *path = resolve(folder, path);
    }
    for (key, path) in [("key", &config.key), ("holder_key", &config.holder_key)] {
        check_key_file(path.as_deref(), entry(table, key), problems);
    }
    let pool_key_is_fine = problems.len() == before;
    let entries = entry(table, "host").and_then(|hosts| hosts.get_ref().as_array());
    for (at, host) in config.hosts.iter_mut().enumerate() {
        host.key = host.key.take().map(|key| resolve(folder, &key));
        if let Some(entry) = entries.and_then(|entries| entries.get(at)) {
            check_host_values(host, entry, problems);
        }
    }
    check_host_names(&config, entries, problems);
    // What only the adapter can tell, it tells of one host at a time, so that all of them are told.
    let alone =
        |hosts| wharfinger_ssh::SshAdapter::new("check".into(), wharfinger_ssh::Config { hosts, ..config.clone() });
    judge(alone(Vec::new()).map(drop), table, problems);
    for (at, host) in config.hosts.iter().enumerate() {
        let key_was_told = if host.key.is_some() {
            host.key.as_deref().is_some_and(|key| key_file_fault(key).is_some())
        } else {
            !pool_key_is_fine
        };
        if key_was_told || host.name.is_empty() {
            continue;
        }
        if let (Err(failure), Some(entry)) = (alone(vec![host.clone()]), entries.and_then(|entries| entries.get(at))) {
            let prefix = format!("host {:?}: ", host.name);
            let why = failure.message.strip_prefix(&prefix).unwrap_or(&failure.message);
            judge(Err(why), if host.key.is_none() && why.starts_with("private key") { table } else { entry }, problems);
        }
    }
    if problems.len() > before {
        return None;
    }
    let items = config.hosts.iter().map(|host| item(&host.name, &host.labels, host.slots, host.enabled)).collect();
    Some(Settings { config: AdapterConfig::Ssh(config), items: Some(items) })
}

fn check_host_values(host: &wharfinger_ssh::Host, table: &Spanned<DeValue<'_>>, problems: &mut Problems) {
    let span_of = |key: &str| entry(table, key).map_or_else(|| table.span(), Spanned::span);
    if !is_name(&host.name) {
        problems.add(
            span_of("name"),
            format!("{:?} is no name for a machine", host.name),
            "use 1 to 63 of a to z, 0 to 9 and -; the address may be anything",
        );
    }
    if let Some(slots) = host.slots.filter(|slots| !(1..=1024).contains(slots)) {
        problems.add(span_of("slots"), format!("`slots` is {slots}"), "use 1 to 1024, or enabled = false");
    }
    if let Some(labels) = entry(table, "labels") {
        read_labels("`labels`", labels, problems);
    }
    check_key_file(host.key.as_deref(), entry(table, "key"), problems);
}

fn check_host_names(config: &wharfinger_ssh::Config, entries: Option<&DeArray<'_>>, problems: &mut Problems) {
    let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
    for (at, host) in config.hosts.iter().enumerate() {
        let Some(name) = entries.and_then(|entries| entries.get(at)).and_then(|table| entry(table, "name")) else {
            continue;
        };
        if let Some(first) = seen.get(host.name.as_str()) {
            problems
                .add(
                    name.span(),
                    format!("two machines have the name {:?}", host.name),
                    "give one of them another name",
                )
                .label("again here")
                .also(first.clone(), "first here");
        } else {
            seen.insert(&host.name, name.span());
        }
    }
}

fn check_key_file(path: Option<&Path>, value: Option<&Spanned<DeValue<'_>>>, problems: &mut Problems) {
    if let (Some((what, remedy)), Some(value)) = (path.and_then(key_file_fault), value) {
        problems.add(value.span(), what, remedy);
    }
}

fn entry<'v, 'i>(table: &'v Spanned<DeValue<'i>>, key: &str) -> Option<&'v Spanned<DeValue<'i>>> {
    table.get_ref().as_table()?.get(key)
}

/// Relative to the configuration's folder, `~` being the home of the broker's user.
fn resolve(folder: &Path, path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => folder.join(path),
    }
}

/// Reads a table through serde. Keys that it does not know are noted one after the other; anything else ends it.
fn deserialize<T: DeserializeOwned>(table: &Spanned<DeValue<'_>>, title: &str, problems: &mut Problems) -> Option<T> {
    let mut table = table.clone();
    let mut clean = true;
    loop {
        let error = match T::deserialize(toml::de::ValueDeserializer::from(table.clone())) {
            Ok(config) => return clean.then_some(config),
            Err(error) => error,
        };
        clean = false;
        let span = error.span().unwrap_or_else(|| table.span());
        let message = error.message();
        if let Some((key, rest)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
            let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
            let remedy = match closest(key, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            problems.add(span.clone(), format!("unknown key `{key}` in {title}"), remedy).label("not known here");
            if remove_key(table.get_mut(), &span) {
                continue;
            }
        } else if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            problems.add(span, format!("`{key}` is missing in {title}"), format!("add {key} = …"));
        } else if let Some((found, wanted)) =
            message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
        {
            problems.add(span, format!("this is the {found}"), format!("write {wanted}")).label("wrong type");
        } else {
            let (what, remedy) = message.split_once(", expected ").unwrap_or((message, ""));
            let remedy = if remedy.is_empty() { String::new() } else { format!("write {remedy}") };
            problems.add(span, what, remedy);
        }
        return None;
    }
}

/// Takes out the key at this place, wherever it is.
fn remove_key(value: &mut DeValue<'_>, span: &Span) -> bool {
    match value {
        DeValue::Table(table) => {
            let found = table.keys().find(|key| key.span() == *span).map(|key| key.get_ref().to_string());
            match found {
                Some(key) => table.remove(key.as_str()).is_some(),
                None => table.iter_mut().any(|(_, entry)| remove_key(entry.get_mut(), span)),
            }
        }
        DeValue::Array(list) => list.iter_mut().any(|entry| remove_key(entry.get_mut(), span)),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            false
        }
    }
}

/// Notes what the adapter itself says of its settings. It names the key at fault in front, which is where the caret goes.
fn judge<E: Display>(said: Result<(), E>, table: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<()> {
    let Err(why) = said else { return Some(()) };
    let why = why.to_string();
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let entries = table.get_ref().as_table();
    let span = why
        .split(word)
        .find_map(|key| entries.and_then(|entries| entries.get(key)))
        .map_or_else(|| table.span(), Spanned::span);
    let (what, remedy) = why.rsplit_once("; ").unwrap_or((&why, ""));
    problems.add(span, what, remedy);
    None
}

/// What is wrong with a file that holds a private key, and how to mend it.
pub(crate) fn key_file_fault(path: &Path) -> Option<(String, String)> {
    let name = path.display();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => {
            return Some(if error.kind() == std::io::ErrorKind::NotFound {
                (format!("the key file {name} is not there"), format!("make one with: ssh-keygen -t ed25519 -f {name}"))
            } else {
                (format!("the key file {name} can not be read: {error}"), "let the broker's user read it".into())
            });
        }
    };
    if !meta.is_file() {
        return Some((format!("the key file {name} is no file"), "name the file with the private key".into()));
    }
    let mode = meta.permissions().mode() & 0o777;
    // Its group may read it, as it does where secrets are mounted into containers.
    if mode & 0o027 != 0 {
        return Some((
            format!("the key file {name} has mode {mode:04o}, so others may use it"),
            format!("run: chmod 600 {name}"),
        ));
    }
    if let Err(error) = std::fs::File::open(path) {
        return Some((format!("the key file {name} can not be read: {error}"), "let the broker's user read it".into()));
    }
    None
}

/// The core's view of one machine of an inventory.
fn item(name: &str, own_labels: &BTreeMap<String, String>, slots: Option<u32>, enabled: bool) -> Item {
    Item { name: name.into(), labels: labels(own_labels), slots, enabled }
}
