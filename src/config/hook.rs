//! `[[hook]]`: the receivers of entries of the audit trail.

use super::duration;
use super::problem::{Problems, Span};
use super::reader::Reader;
use super::secret_file;
use super::types::PoolSection;
use crate::hooks::{Endpoint, Filter, HookSettings, HookUrl, Pattern, Secret, Severity, Source, Way};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use wharfinger_adapter::settings::{closest, is_name};
use wharfinger_core::{EventKind, Millis};

/// The formats of messages.
const FORMATS: [&str; 4] = ["cloudevents", "slack", "alertmanager", "command"];
/// Maximum number of hooks.
const MOST: usize = 50;
/// Maximum number of arguments of a program.
const MAX_ARGUMENTS: usize = 64;
/// Maximum length of `source` in bytes.
const MAX_SOURCE: usize = 256;
/// The default of `source`.
const SOURCE: &str = "wharfinger";

/// One `[[hook]]` as read.
#[derive(Debug)]
pub(crate) struct HookSection {
    span: Span,
    missing: bool,
    name: Option<Spanned<String>>,
    format: Option<Spanned<String>>,
    kinds: Vec<Spanned<String>>,
    pools: Vec<Spanned<String>>,
    severity: Option<Spanned<String>>,
    fold: Option<Spanned<Millis>>,
    give_up: Option<Spanned<Millis>>,
    timeout: Option<Spanned<Millis>>,
    url: Option<Spanned<String>>,
    url_file: Option<Spanned<String>>,
    secret_file: Option<Spanned<String>>,
    bearer_file: Option<Spanned<String>>,
    ca_file: Option<Spanned<String>>,
    source: Option<Spanned<String>>,
    command: Option<Vec<Spanned<String>>>,
}

pub(super) fn read(file: &mut Reader<'_>, problems: &mut Problems) -> Vec<HookSection> {
    let mut sections = Vec::new();
    for mut hook in file.tables("hook", "[[hook]]", problems) {
        sections.push(HookSection {
            span: hook.span().unwrap_or(0..0),
            missing: hook.value("name").is_none(),
            name: hook.text("name", problems),
            format: hook.text("format", problems),
            kinds: hook.strings("kinds", problems).unwrap_or_default(),
            pools: hook.strings("pools", problems).unwrap_or_default(),
            severity: hook.text("severity", problems),
            fold: hook.duration("fold", Millis::ZERO..=Millis::secs(3600), problems),
            give_up: hook.duration("give_up", Millis::secs(60)..=Millis::secs(30 * 86_400), problems),
            timeout: hook.duration("timeout", Millis(100)..=Millis::secs(600), problems),
            url: hook.text("url", problems),
            url_file: hook.text("url_file", problems),
            secret_file: hook.text("secret_file", problems),
            bearer_file: hook.text("bearer_file", problems),
            ca_file: hook.text("ca_file", problems),
            source: hook.text("source", problems),
            command: hook.strings("command", problems),
        });
        hook.finish(problems);
    }
    sections
}

/// The settings of the hooks. A hook with mistakes, which are noted, is left out.
pub(super) fn check(
    sections: &[HookSection],
    pools: &[PoolSection<'_>],
    keep_events: Millis,
    folder: &Path,
    problems: &mut Problems,
) -> Vec<HookSettings> {
    let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
    let mut hooks = Vec::new();
    if let Some(over) = sections.get(MOST) {
        problems.add(over.span.clone(), format!("there are more than {MOST} hooks"), "take some out");
    }
    for section in sections {
        if let Some(name) = &section.name
            && let Some(first) = seen.insert(name.get_ref(), name)
        {
            problems
                .add(
                    name.span(),
                    format!("two hooks have the name {:?}", name.get_ref()),
                    "give one of them another name",
                )
                .label("again here")
                .also(first.span(), "first here");
        }
        let before = problems.len();
        let hook = check_hook(section, pools, keep_events, folder, problems);
        hooks.extend(hook.filter(|_| problems.len() == before));
    }
    hooks
}

fn check_hook(
    section: &HookSection,
    pools: &[PoolSection<'_>],
    keep_events: Millis,
    folder: &Path,
    problems: &mut Problems,
) -> Option<HookSettings> {
    let name = check_name(section, problems);
    let filter = check_filter(section, pools, problems);
    let way = check_way(section, folder, problems)?;
    let fold = match &way {
        _ if section.fold.is_some() => section.fold.as_ref().map_or(Millis::ZERO, |fold| *fold.get_ref()),
        Way::Slack { .. } => Millis::secs(10),
        Way::Alertmanager { .. } => Millis::secs(1),
        Way::CloudEvents { .. } | Way::Command { .. } => Millis::ZERO,
    };
    let give_up = section.give_up.as_ref().map_or(Millis::secs(86_400).min(keep_events), |time| *time.get_ref());
    if let Some(own) = &section.give_up
        && give_up > keep_events
    {
        let remedy = format!("use at most {:?}, or raise `events`", duration::format(keep_events));
        problems.add(own.span(), "`give_up` is longer than [limits] keeps the entries of the audit trail", remedy);
    }
    Some(HookSettings {
        name: name?,
        filter,
        fold: time(fold),
        give_up: time(give_up),
        timeout: time(section.timeout.as_ref().map_or(Millis::secs(10), |limit| *limit.get_ref())),
        way,
    })
}

fn time(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis.0).unwrap_or(0))
}

fn check_name(section: &HookSection, problems: &mut Problems) -> Option<String> {
    let Some(name) = &section.name else {
        if section.missing {
            problems.add(section.span.clone(), "this hook has no `name`", "add one, as in name = \"slack\"");
        }
        return None;
    };
    if !is_name(name.get_ref()) {
        let message = format!("{:?} is not a valid name of a hook", name.get_ref());
        problems.add(name.span(), message, "use 1 to 63 of a to z, 0 to 9 and -");
        return None;
    }
    Some(name.get_ref().clone())
}

fn check_filter(section: &HookSection, pools: &[PoolSection<'_>], problems: &mut Problems) -> Filter {
    let mut filter = Filter {
        // Kinds that are named are wanted, whatever their severity.
        severity: if section.kinds.is_empty() { Severity::Warning } else { Severity::Info },
        ..Filter::default()
    };
    let star = "a `*` may stand at the end, as in \"lease.*\"";
    for text in &section.kinds {
        let (kind, names): (_, Vec<&str>) = (text.get_ref(), EventKind::ALL.iter().map(|kind| kind.as_str()).collect());
        match Pattern::parse(kind) {
            Some(pattern) if pattern.matches_a_kind() => filter.kinds.push(pattern),
            Some(_) => {
                let remedy = match closest(kind, &names) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => "the kinds are in docs/hooks.md, and in `wharfinger events --json`".to_owned(),
                };
                problems.add(text.span(), format!("no entry of the audit trail is of the kind {kind:?}"), remedy);
            }
            None => {
                problems.add(text.span(), format!("{kind:?} is no kind of entries"), star);
            }
        }
    }
    let names: Vec<&str> = pools.iter().filter_map(|pool| pool.name.as_ref()).map(|name| &**name.get_ref()).collect();
    for text in &section.pools {
        let pool = text.get_ref();
        match Pattern::parse(pool) {
            Some(pattern) => {
                if !names.iter().any(|name| pattern.matches(name)) {
                    let remedy = match closest(pool, &names) {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => "name a pool of this file, unless one that left it is meant".to_owned(),
                    };
                    problems.warn(text.span(), format!("no pool has the name {pool:?}"), remedy);
                }
                filter.pools.push(pattern);
            }
            None => {
                problems.add(text.span(), format!("{pool:?} is no name of a pool"), star);
            }
        }
    }
    if let Some(text) = &section.severity {
        match Severity::parse(text.get_ref()) {
            Some(severity) => filter.severity = severity,
            None => {
                let message = format!("`severity` is {:?}", text.get_ref());
                problems.add(text.span(), message, "write \"info\", \"warning\" or \"critical\"").label("not known");
            }
        }
    }
    filter
}

fn check_way(section: &HookSection, folder: &Path, problems: &mut Problems) -> Option<Way> {
    let Some(format) = &section.format else {
        let remedy = "add format = \"cloudevents\", \"slack\", \"alertmanager\" or \"command\"";
        problems.add(section.span.clone(), "this hook has no `format`", remedy);
        return None;
    };
    let name = format.get_ref().as_str();
    if !FORMATS.contains(&name) {
        let remedy = match closest(name, &FORMATS) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "use one of \"cloudevents\", \"slack\", \"alertmanager\", \"command\"".to_owned(),
        };
        problems.add(format.span(), format!("no hook has the format {name:?}"), remedy);
        return None;
    }
    refuse_strangers(section, name, problems);
    let source = check_source(section, problems);
    match name {
        "command" => Some(Way::Command { argv: check_command(section, problems)?, source }),
        "slack" => Some(Way::Slack { to: check_endpoint(section, name, folder, problems)? }),
        "alertmanager" => {
            let mut to = check_endpoint(section, name, folder, problems)?;
            if let (Source::Here(url), Some(text)) = (&to.url, &section.url)
                && !url.has_path()
                && let Ok(whole) = HookUrl::parse(&format!("{}/api/v2/alerts", text.get_ref().trim_end_matches('/')))
            {
                to.url = Source::Here(whole);
            }
            Some(Way::Alertmanager { to })
        }
        _ => {
            let to = check_endpoint(section, name, folder, problems)?;
            let secret_file = secret(section.secret_file.as_ref(), "secret", folder, problems);
            if let (Some(path), Some(text)) = (&secret_file, &section.secret_file)
                && let Ok(content) = std::fs::read_to_string(path)
                && let Err(fault) = Secret::parse(content.lines().next().unwrap_or_default())
            {
                let remedy = "make one: (printf whsec_; head -c 32 /dev/urandom | base64) > FILE";
                problems.add(text.span(), format!("the secret in {} {fault}", path.display()), remedy);
            }
            Some(Way::CloudEvents { to, secret_file, source })
        }
    }
}

/// Keys that this format has no use for.
fn refuse_strangers(section: &HookSection, format: &str, problems: &mut Problems) {
    let http = format != "command";
    let signs = format == "cloudevents";
    let named = signs || format == "command";
    for (key, span, fits) in [
        ("url", section.url.as_ref().map(Spanned::span), http),
        ("url_file", section.url_file.as_ref().map(Spanned::span), http),
        ("bearer_file", section.bearer_file.as_ref().map(Spanned::span), http),
        ("ca_file", section.ca_file.as_ref().map(Spanned::span), http),
        ("secret_file", section.secret_file.as_ref().map(Spanned::span), signs),
        ("source", section.source.as_ref().map(Spanned::span), named),
        ("command", section.command.as_ref().and_then(|list| Some(list.first()?.span())), !http),
    ] {
        if let Some(span) = span.filter(|_| !fits) {
            problems.add(span, format!("`{key}` is not for hooks with format = {format:?}"), "take it out");
        }
    }
}

fn check_source(section: &HookSection, problems: &mut Problems) -> String {
    let Some(source) = &section.source else { return SOURCE.to_owned() };
    let text = source.get_ref();
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || text.len() > MAX_SOURCE || !plain {
        let remedy = "write a URI that names this deployment, as in \"https://wharfinger.example.org\"";
        problems.add(source.span(), "`source` is no URI", remedy);
    }
    text.clone()
}

fn check_command(section: &HookSection, problems: &mut Problems) -> Option<Vec<String>> {
    let Some(program) = section.command.as_ref().and_then(|list| list.first()) else {
        let remedy = "add the program and its arguments, as in command = [\"/usr/local/bin/notify\", \"--farm\"]";
        problems.add(section.span.clone(), "this hook has no `command`", remedy);
        return None;
    };
    let list = section.command.as_deref().unwrap_or_default();
    let path = Path::new(program.get_ref());
    let runs = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if list.len() > MAX_ARGUMENTS || list.iter().any(|argument| argument.get_ref().contains('\0')) {
        let message = format!("`command` has more than {MAX_ARGUMENTS} words, or a word with NUL");
        problems.add(program.span(), message, "write a script, and name it here");
    } else if !path.is_absolute() {
        let message = format!("`command` begins with {:?}, which is no absolute path", program.get_ref());
        let remedy = "name the program by its path; it is started without a shell";
        problems.add(program.span(), message, remedy);
    } else if !runs(path) {
        let message = format!("{} is no program that can be started", path.display());
        problems.add(program.span(), message, "name an executable file");
    }
    Some(list.iter().map(|argument| argument.get_ref().clone()).collect())
}

fn check_endpoint(section: &HookSection, format: &str, folder: &Path, problems: &mut Problems) -> Option<Endpoint> {
    let url = match (&section.url, &section.url_file) {
        (Some(url), None) => {
            let parsed = HookUrl::parse(url.get_ref());
            if let Err(fault) = parsed {
                problems.add(
                    url.span(),
                    format!("`url` {fault}"),
                    "write it as in \"https://hooks.example.org/wharfinger\"",
                );
            }
            Source::Here(parsed.ok()?)
        }
        (None, Some(file)) => {
            let path = secret(Some(file), "URL", folder, problems)?;
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if let Err(fault) = HookUrl::parse(text.lines().next().unwrap_or_default().trim()) {
                let message = format!("the URL in {} {fault}", path.display());
                problems.add(file.span(), message, "write the URL into its first line");
            }
            Source::File(path)
        }
        (Some(_), Some(file)) => {
            problems.add(file.span(), "this hook has `url` and `url_file`", "take one of them out");
            return None;
        }
        (None, None) => {
            problems.add(
                section.span.clone(),
                "this hook has no `url`",
                "add `url`, or `url_file` if the URL is a secret",
            );
            return None;
        }
    };
    if let (Source::Here(_), Some(text), "slack") = (&url, &section.url, format) {
        let remedy = "write it into a file that only the server may read, and name that by `url_file`";
        problems.warn(text.span(), "a URL of Slack is a secret, and is in the configuration", remedy);
    }
    if let (Source::Here(address), Some(text)) = (&url, &section.url)
        && !address.is_https()
        && !address.is_loopback()
    {
        let remedy = "use https, with `ca_file` for an authority of your own";
        problems.warn(text.span(), "messages go over the network in plain text", remedy);
    }
    let ca_file = section.ca_file.as_ref().map(|file| {
        let path = folder.join(file.get_ref());
        if let Err(problem) = wharfinger_tls::WebTls::load(Some(&path)) {
            problems.add(file.span(), problem.to_string(), "name a file of certificates in PEM");
        }
        path
    });
    let bearer_file = secret(section.bearer_file.as_ref(), "token", folder, problems);
    Some(Endpoint { url, bearer_file, ca_file })
}

/// The path of a file with a secret.
fn secret(file: Option<&Spanned<String>>, noun: &str, folder: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let file = file?;
    let path = folder.join(file.get_ref());
    if let Some((message, remedy)) = secret_file::fault(noun, &path) {
        problems.add(file.span(), message, remedy);
        return None;
    }
    Some(path)
}
