//! Checks of values against each other: equal names, references to nothing, numbers that contradict each other.

use super::audit;
use super::auth::{self, Ways};
use super::cluster::{self, Cluster};
use super::duration;
use super::hook;
use super::jenkins;
use super::log;
use super::page::{self, Page};
use super::per_address;
use super::problem::Problems;
use super::reader::check_label_name;
use super::role;
use super::store::{self, StoreConfig};
use super::tables;
use super::tenant;
use super::tls::{self, Tls};
use super::traces;
use super::types::{File, PoolSection};
use super::unix;
use crate::adapters::{self, AdapterConfig, Kind};
use crate::auth::{AddressLimits, Callers, RoleTable};
use crate::hooks::HookSettings;
use crate::socket::UnixSocket;
use crate::telemetry::{AuditSettings, LogSettings};
use crate::traces::TraceSettings;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use toml::Spanned;
use wharfinger_adapter::settings::{closest, disabled_reason_fault, is_name};
use wharfinger_core::{Millis, Tenants};
use wharfinger_host::containment::{Containment, Limits};
use wharfinger_tls::{ClientAuth, Protocol};

/// The default address of the API.
pub(crate) const LISTEN: &str = "127.0.0.1:7411";
/// An example of an address for meters. The port is the one that Prometheus' users expect of an exporter.
const METRICS: &str = "127.0.0.1:9464";
/// Age at which entries of the audit trail are deleted.
pub(crate) const KEEP_EVENTS: Millis = Millis::secs(90 * 86_400);
/// The default of the longest TTL.
pub(crate) const MAX_TTL: Millis = Millis::secs(86_400);

/// The results of the checks.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) unix: Option<UnixSocket>,
    pub(crate) tls: Option<Tls>,
    pub(crate) per_address: AddressLimits,
    pub(crate) store: Option<StoreConfig>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) log: LogSettings,
    pub(crate) audit: Option<AuditSettings>,
    pub(crate) hooks: Vec<HookSettings>,
    pub(crate) page: Option<Page>,
    pub(crate) jenkins: Option<SocketAddr>,
    pub(crate) traces: Option<TraceSettings>,
    pub(crate) auth: Option<Callers>,
    pub(crate) roles: RoleTable,
    pub(crate) tenants: Tenants,
    /// One entry for each pool, in the order of the file; `None` for a pool with mistakes.
    pub(crate) pools: Vec<Option<AdapterConfig>>,
}

/// Checks the whole file.
pub(crate) fn check(file: &File<'_>, folder: &Path, problems: &mut Problems) -> Checked {
    let store = store::check(&file.store, folder, problems);
    let tls = tls::check(&file.tls, Protocol::Http2, folder, problems);
    // A table with mistakes is a mistake of its own.
    let asks = file.tls.is_there() && tls.as_ref().is_none_or(|tls| tls.files.client_auth != ClientAuth::None);
    let asks = asks || file.page.tls.asks();
    let roles = role::check(&file.roles, &file.pools, problems);
    let keep_events = file.limits.events.as_ref().map_or(KEEP_EVENTS, |time| *time.get_ref());
    let mut checked = Checked {
        listen: check_listen(file, tls.as_ref(), problems),
        cluster: cluster::check(&file.cluster, store.as_ref(), file.tls.is_there(), tls.as_ref(), folder, problems),
        tls,
        per_address: per_address::check(&file.per_address, problems),
        unix: unix::check_socket(&file.unix, file.auth.is_there(), folder, problems),
        auth: auth::check(
            &file.auth,
            Ways { certificates: asks, socket: file.unix.is_there(), proxy: file.page.proxy.is_there() },
            folder,
            &roles,
            problems,
        ),
        roles,
        metrics: file.metrics.as_ref().and_then(|listen| address(listen, METRICS, problems)),
        log: log::check(&file.log, problems),
        audit: audit::check(&file.audit, folder, problems),
        hooks: hook::check(&file.hooks, &file.pools, keep_events, folder, problems),
        traces: traces::check(&file.traces, folder, problems),
        tenants: tenant::check(&file.tenants, &file.auth, problems),
        store,
        page: None,
        jenkins: None,
        pools: Vec::new(),
    };
    let around = page::Around {
        auth: file.auth.is_there(),
        issuers: checked.auth.as_ref().map_or(&[], |callers| &callers.issuers),
        issuers_are_right: checked.auth.is_some() || !file.auth.is_there(),
        allow_remote: file.allow_remote.as_ref().is_some_and(|allow| *allow.get_ref()),
        taken: &[("[server]", checked.listen), ("[metrics]", checked.metrics)],
    };
    let beside = (checked.unix.as_ref(), file.auth.has_proxied());
    checked.page = page::check(&file.page, &around, beside, folder, problems);
    let listen = checked.page.as_ref().map(|page| page.listen);
    let taken = [around.taken[0], around.taken[1], ("[page]", listen)];
    checked.jenkins = jenkins::check(&file.jenkins, &page::Around { taken: &taken, ..around }, problems);
    let given: Vec<_> = checked.auth.iter().flat_map(Callers::each).map(|caller| caller.roles).collect();
    // Callers with mistakes are mistakes of their own.
    if checked.auth.is_some() || !file.auth.is_there() {
        role::warn_of_unused(&file.roles, &given, file.auth.is_there(), problems);
    }
    let kinds: Vec<Option<&dyn Kind>> = file.pools.iter().map(|pool| check_kind(pool, problems)).collect();
    check_names(&file.pools, problems);
    for (pool, kind) in file.pools.iter().zip(&kinds) {
        check_references(pool, *kind, &file.pools, &kinds, problems);
        let config = kind.and_then(|kind| check_table(pool, kind, folder, problems));
        let config = config.map(|config| check_containment(pool, config, problems));
        check_sizes(pool, config.as_ref(), problems);
        check_disabled(pool, problems);
        check_ttls(pool, file.limits.max_ttl.as_ref(), problems);
        check_blame(pool, *kind, problems);
        checked.pools.push(config);
    }
    check_holders_apart(&file.pools, &checked.pools, problems);
    checked
}

/// Working copies are their host's user's, so holders have to log in as that user.
fn check_holders_apart(pools: &[PoolSection<'_>], configs: &[Option<AdapterConfig>], problems: &mut Problems) {
    for pool in pools {
        for target in &pool.on {
            let name =
                |pool: &PoolSection<'_>| pool.name.as_ref().is_some_and(|name| name.get_ref() == target.get_ref());
            let config = pools.iter().zip(configs).find(|(pool, _)| name(pool)).and_then(|(_, config)| config.as_ref());
            if config.is_some_and(|config| config.settings().has_holders_apart()) {
                let target_name = target.get_ref();
                problems.add(
                    target.span(),
                    format!("holders of {target_name:?} log in as other users than the pool's, who may not write in working copies"),
                    "set `user` in the pool's table `ca` to the user of the pool, or use another pool of hosts",
                );
            }
        }
    }
}

/// Reads an address with a port. `usual`: an example.
pub(super) fn address(listen: &Spanned<String>, usual: &str, problems: &mut Problems) -> Option<SocketAddr> {
    let text = listen.get_ref();
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let port = usual.rsplit(':').next().unwrap_or_default();
    let remedy = if text.starts_with("localhost") {
        format!("write {:?}", text.replacen("localhost", "127.0.0.1", 1))
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        format!("add the port: \"{text}:{port}\"")
    } else {
        format!("write an IP address and a port, as in {usual:?}")
    };
    problems.add(listen.span(), format!("`listen` is not an address with a port: {text:?}"), remedy);
    None
}

fn check_listen(file: &File<'_>, tls: Option<&Tls>, problems: &mut Problems) -> Option<SocketAddr> {
    let Some(listen) = &file.listen else { return LISTEN.parse().ok() };
    let address = address(listen, LISTEN, problems)?;
    // A table with mistakes is a mistake of its own.
    let known = file.tls.is_there()
        && (file.auth.is_there() || tls.is_none_or(|tls| tls.files.client_auth == ClientAuth::Required));
    let allowed = known || file.allow_remote.as_ref().is_some_and(|allow| *allow.get_ref());
    if !address.ip().is_loopback() && !allowed {
        problems
            .add(
                listen.span(),
                format!("`listen` is an address that other machines reach: {}", address.ip()),
                "listen on 127.0.0.1 or [::1], or know the callers ([server.tls] with [auth], or with client_auth = \"required\"), or set `allow_remote = true` on a network where everyone may do everything",
            )
            .label("not a loopback address");
    }
    Some(address)
}

fn check_kind(pool: &PoolSection<'_>, problems: &mut Problems) -> Option<&'static dyn Kind> {
    let quoted = |names: Vec<&str>| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let Some(adapter) = &pool.adapter else {
        if pool.missing.contains(&"adapter") {
            problems.add(
                pool.span.clone(),
                "this pool has no `adapter`",
                format!("add adapter = one of {}", quoted(adapters::names())),
            );
        }
        return None;
    };
    let text = adapter.get_ref();
    let kind = adapters::kind(text);
    if kind.is_none() {
        if adapters::LEFT_OUT.contains(&text.as_str()) {
            problems
                .add(
                    adapter.span(),
                    format!("this program was built without the adapter {text:?}"),
                    format!("build it with the feature `{text}`, which is on by default, or leave the pool out"),
                )
                .label("built without it");
        } else {
            let names = adapters::names();
            let remedy = match closest(text, &names) {
                Some(near) => format!("did you mean {near:?}? The adapters are {}", quoted(names)),
                None => format!("use one of {}", quoted(names)),
            };
            problems.add(adapter.span(), format!("no adapter has the name {text:?}"), remedy);
        }
    }
    kind
}

fn check_names(pools: &[PoolSection<'_>], problems: &mut Problems) {
    let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
    for pool in pools {
        let Some(name) = &pool.name else {
            if pool.missing.contains(&"name") {
                problems.add(pool.span.clone(), "this pool has no `name`", "add one, as in name = \"hosts\"");
            }
            continue;
        };
        let text = name.get_ref().as_str();
        if !is_name(text) {
            problems.add(
                name.span(),
                format!("{text:?} is not a valid pool name"),
                "use 1 to 63 of a to z, 0 to 9 and -",
            );
        }
        if let Some(first) = seen.get(text) {
            problems
                .add(name.span(), format!("two pools have the name {text:?}"), "give one of them another name")
                .label("again here")
                .also(first.span(), "first here");
        } else {
            seen.insert(text, name);
        }
    }
}

fn check_references(
    pool: &PoolSection<'_>,
    kind: Option<&dyn Kind>,
    pools: &[PoolSection<'_>],
    kinds: &[Option<&dyn Kind>],
    problems: &mut Problems,
) {
    let Some(kind) = kind else { return };
    let own = pool.name.as_ref().map(|name| name.get_ref().as_str());
    if kind.defaults().host {
        if let Some(first) = pool.on.first() {
            problems.add(
                first.span(),
                format!("`on` is for pools that lie on others; {} machines lie on nothing", kind.name()),
                "take it out",
            );
        }
        if let Some(limit) = &pool.max_per_parent {
            problems.add(
                limit.span(),
                format!("`max_per_parent` is for pools that lie on others; {} machines lie on nothing", kind.name()),
                "take it out",
            );
        }
        return;
    }
    if pool.on.is_empty() {
        problems.add(
            pool.span.clone(),
            format!("this pool of {} has no `on`: the hosts they lie on", kind.name()),
            "add the pools of hosts, as in on = [\"hosts\"]",
        );
    }
    let names: Vec<&str> = pools.iter().filter_map(|p| p.name.as_ref()).map(|n| n.get_ref().as_str()).collect();
    let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
    for target in &pool.on {
        let text = target.get_ref().as_str();
        if let Some(first) = seen.insert(text, target) {
            problems
                .add(target.span(), format!("`on` names the pool {text:?} twice"), "take one out")
                .also(first.span(), "first here");
            continue;
        }
        let found = pools.iter().position(|p| p.name.as_ref().is_some_and(|name| name.get_ref() == text));
        let Some(found) = found else {
            let remedy = match closest(text, &names) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("pools in this file: {}", names.join(", ")),
            };
            problems.add(target.span(), format!("no pool has the name {text:?}"), remedy).label("not in this file");
            continue;
        };
        if own == Some(text) {
            problems.add(target.span(), format!("pool {text:?} lies on itself"), "name a pool of hosts");
        } else if let Some(way) = own.and_then(|own| way_back(pools, found, own)) {
            problems.add(
                target.span(),
                format!("the pools lie on each other in a circle: {} -> {way}", own.unwrap_or_default()),
                "name a pool of hosts",
            );
        } else if kinds[found].is_some_and(|kind| !kind.defaults().host) {
            problems.add(
                target.span(),
                format!("pool {text:?} is not a pool of hosts"),
                "name a pool with the adapter \"ssh\" or \"local\"",
            );
        }
    }
}

/// The way from this pool to the one called `goal`, over `on`.
fn way_back(pools: &[PoolSection<'_>], from: usize, goal: &str) -> Option<String> {
    let name = |at: usize| pools[at].name.as_ref().map(|n| n.get_ref().as_str()).unwrap_or_default();
    let mut ways = vec![vec![from]];
    let mut seen = vec![from];
    while let Some(way) = ways.pop() {
        let last = *way.last()?;
        for target in &pools[last].on {
            if target.get_ref() == goal {
                let mut names: Vec<&str> = way.iter().map(|at| name(*at)).collect();
                names.push(goal);
                return Some(names.join(" -> "));
            }
            let next = (0..pools.len()).find(|at| name(*at) == target.get_ref());
            if let Some(next) = next.filter(|next| !seen.contains(next)) {
                seen.push(next);
                ways.push(way.iter().copied().chain([next]).collect());
            }
        }
    }
    None
}

fn check_table(
    pool: &PoolSection<'_>,
    kind: &'static dyn Kind,
    folder: &Path,
    problems: &mut Problems,
) -> Option<AdapterConfig> {
    for (other, table) in &pool.tables {
        if *other != kind.name() {
            problems.add(
                table.span(),
                format!("[pool.{other}] in a pool with the adapter \"{}\"", kind.name()),
                format!("write [pool.{}], or adapter = \"{other}\"", kind.name()),
            );
        }
    }
    let table = pool.tables.get(kind.name()).copied();
    tables::read(kind, table, &pool.span, folder, problems)
}

/// The settings with what the pool asks of its hosts.
fn check_containment(pool: &PoolSection<'_>, config: AdapterConfig, problems: &mut Problems) -> AdapterConfig {
    let limits = &pool.slot_limits;
    let containment = Containment {
        required: pool.require_containment.as_ref().is_some_and(|required| *required.get_ref()),
        limits: Limits {
            memory: limits.memory.as_ref().map(|memory| *memory.get_ref()),
            cpus: limits.cpus.as_ref().map(|cpus| *cpus.get_ref()),
            pids: limits.pids.as_ref().map(|pids| *pids.get_ref()),
        },
    };
    if containment == Containment::default() && limits.span.is_none() {
        return config;
    }
    if let Some(config) = config.settings().contained(containment) {
        return config;
    }
    let remedy = "write it in the pool of the hosts: what runs in a working copy is contained by its host's slot";
    if let Some(required) = &pool.require_containment {
        problems.add(required.span(), "`require_containment` is for pools of hosts", remedy);
    }
    if let Some(span) = &limits.span {
        problems.add(span.clone(), "[pool.limits] is for pools of hosts", remedy);
    }
    config
}

fn check_disabled(pool: &PoolSection<'_>, problems: &mut Problems) {
    let Some(reason) = &pool.disabled_reason else { return };
    let enabled = pool.enabled.as_ref().is_none_or(|enabled| *enabled.get_ref());
    if let Some((message, remedy)) = disabled_reason_fault(reason.get_ref(), enabled) {
        problems.add(reason.span(), message, remedy);
    }
}

fn check_sizes(pool: &PoolSection<'_>, config: Option<&AdapterConfig>, problems: &mut Problems) {
    if let (Some(min_ready), Some(max)) = (&pool.min_ready, &pool.max)
        && min_ready.get_ref() > max.get_ref()
    {
        problems
            .add(
                min_ready.span(),
                format!("`min_ready` is {}, more than `max`", min_ready.get_ref()),
                format!("use at most {}, or raise `max`", max.get_ref()),
            )
            .also(max.span(), "the most there may be");
    }
    let items = config.and_then(|config| config.settings().inventory());
    if let (Some(items), Some(min_ready)) = (&items, &pool.min_ready)
        && usize::try_from(*min_ready.get_ref()).is_ok_and(|wanted| wanted > items.len())
    {
        problems.add(
            min_ready.span(),
            format!("`min_ready` is {}, more than the machines of the pool", min_ready.get_ref()),
            format!("use at most {}, or leave it out: then all of them are kept ready", items.len()),
        );
    }
}

fn check_ttls(pool: &PoolSection<'_>, limit: Option<&Spanned<Millis>>, problems: &mut Problems) {
    if let (Some(own), Some(limit)) = (&pool.max_ttl, limit)
        && own.get_ref() > limit.get_ref()
    {
        problems
            .add(
                own.span(),
                format!("`max_ttl` is {}, more than [limits] allows", duration::format(*own.get_ref())),
                format!("use at most \"{}\", or raise `max_ttl` in [limits]", duration::format(*limit.get_ref())),
            )
            .also(limit.span(), "the most there may be");
    }
    let longest = pool.max_ttl.as_ref().or(limit);
    let most = longest.map_or(MAX_TTL, |limit| *limit.get_ref());
    if let Some(default) = &pool.default_ttl
        && *default.get_ref() > most
    {
        let problem = problems.add(
            default.span(),
            format!("`default_ttl` is {}, more than the longest TTL", duration::format(*default.get_ref())),
            format!("use at most \"{}\", or raise `max_ttl`", duration::format(most)),
        );
        if let Some(longest) = longest {
            problem.also(longest.span(), "the longest TTL");
        }
    }
}

fn check_blame(pool: &PoolSection<'_>, kind: Option<&dyn Kind>, problems: &mut Problems) {
    if let Some(value) = &pool.doubt.work_after
        && *value.get_ref() == 1
    {
        problems
            .add(value.span(), "`work_after` is 1", "use 2 or more, or 0 for never")
            .label("one failure can be compared with nothing");
    }
    if let Some(domain) = &pool.domain {
        check_label_name(domain.get_ref(), domain.span(), problems);
    }
    // A resource on a host shares the fate of the host, so only hosts have a brake.
    if kind.is_some_and(|kind| !kind.defaults().host) {
        let remedy = "write it in the pool of the hosts";
        if let Some(domain) = &pool.domain {
            problems.add(domain.span(), "`domain` is for pools of hosts; a resource on a host shares its fate", remedy);
        }
        if let Some(span) = &pool.brake.span {
            problems.add(
                span.clone(),
                "[pool.brake] is for pools of hosts; a resource on a host shares its fate",
                remedy,
            );
        }
    }
}
