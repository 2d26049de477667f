//! `[[role]]`: the rules by which callers may call.

use super::duration;
use super::problem::{Problems, Span};
use super::reader::{Reader, wrong_type};
use super::types::PoolSection;
use crate::auth::{BuiltIn, Limits, Role, RoleTable, Roles, Rule, RuleScope, Taint, Verb, Verbs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use toml::Spanned;
use toml::de::DeValue;
use wharfinger_adapter::settings::{closest, is_name};
use wharfinger_core::{Millis, Pools};

const DAY: i64 = 86_400;
/// Bounds of the number of leases of one request.
const COUNT: std::ops::RangeInclusive<u32> = 1..=1024;
/// Bounds of a TTL, and of a whole life.
const LIFE: std::ops::RangeInclusive<Millis> = Millis(1000)..=Millis::secs(365 * DAY);
/// Bounds of a time that may be none.
const UP_TO: std::ops::RangeInclusive<Millis> = Millis::ZERO..=Millis::secs(365 * DAY);
/// Bounds of a priority.
const PRIORITY: std::ops::RangeInclusive<i32> = -100..=100;

/// Lists of strings by key, each with its place.
type Lists = BTreeMap<String, (Span, Vec<Spanned<String>>)>;

/// One `[[role]]` as read.
#[derive(Debug)]
pub(crate) struct RoleSection {
    span: Span,
    name: Option<Spanned<String>>,
    rules: Vec<RuleSection>,
}

/// One `[[role.allow]]` as read.
#[derive(Debug)]
struct RuleSection {
    span: Span,
    verbs: Option<Vec<Spanned<String>>>,
    pools: Option<Vec<Spanned<String>>>,
    scope: Option<Spanned<String>>,
    /// Whether `scope` is there, of whatever type.
    has_scope: bool,
    limits: LimitsSection,
}

/// `[role.allow.limits]` as read.
#[derive(Debug, Default)]
struct LimitsSection {
    /// The place of each key that is there.
    places: BTreeMap<&'static str, Span>,
    count: Option<Spanned<u32>>,
    ttl: Option<Spanned<Millis>>,
    total: Option<Spanned<Millis>>,
    wait_in_line: Option<Spanned<Millis>>,
    priority: Option<(i32, i32)>,
    replace: Option<Spanned<bool>>,
    hold: Option<Spanned<Millis>>,
    taint: Option<Spanned<String>>,
    params: Option<Lists>,
    refuse_tags: Vec<Spanned<String>>,
    labels: Lists,
}

/// The limits, each with the verbs for which it is.
const LIMITS: [(&str, &[Verb]); 11] = [
    ("count", &[Verb::Lease]),
    ("ttl", &[Verb::Lease, Verb::Renew]),
    ("total", &[Verb::Lease]),
    ("wait_in_line", &[Verb::Lease]),
    ("priority", &[Verb::Lease]),
    ("replace", &[Verb::Lease]),
    ("hold", &[Verb::Release]),
    ("taint", &[Verb::Release]),
    ("params", &[Verb::Lease]),
    ("tags", &[Verb::Lease]),
    ("labels", &[Verb::Lease]),
];

pub(crate) fn read(reader: &mut Reader<'_>, problems: &mut Problems) -> Vec<RoleSection> {
    let mut sections = Vec::new();
    for mut role in reader.tables("role", "[[role]]", problems) {
        let mut rules = Vec::new();
        for mut rule in role.tables("allow", "[[role.allow]]", problems) {
            rules.push(RuleSection {
                span: rule.span().unwrap_or(0..0),
                has_scope: rule.value("scope").is_some(),
                verbs: rule.strings("verbs", problems),
                pools: rule.strings("pools", problems),
                scope: rule.text("scope", problems),
                limits: read_limits(&mut rule, problems),
            });
            rule.finish(problems);
        }
        sections.push(RoleSection { span: role.span().unwrap_or(0..0), name: role.text("name", problems), rules });
        role.finish(problems);
    }
    sections
}

fn read_limits(rule: &mut Reader<'_>, problems: &mut Problems) -> LimitsSection {
    let mut limits = rule.table("limits", "[role.allow.limits]", problems);
    let places = LIMITS.iter().filter_map(|(key, _)| Some((*key, limits.value(key)?.span()))).collect();
    let mut tags = limits.table("tags", "[role.allow.limits.tags]", problems);
    let refuse_tags = tags.strings("refuse", problems).unwrap_or_default();
    tags.finish(problems);
    let section = LimitsSection {
        places,
        count: limits.number("count", COUNT, problems),
        ttl: limits.duration("ttl", LIFE, problems),
        total: limits.duration("total", LIFE, problems),
        wait_in_line: limits.duration("wait_in_line", UP_TO, problems),
        priority: read_priority(&mut limits, problems),
        replace: limits.flag("replace", problems),
        hold: limits.duration("hold", UP_TO, problems),
        taint: limits.text("taint", problems),
        params: limits.value("params").map(|value| read_lists("params", value, problems)),
        refuse_tags,
        labels: limits.value("labels").map(|value| read_lists("labels", value, problems)).unwrap_or_default(),
    };
    limits.finish(problems);
    section
}

/// `[-100, 0]`.
fn read_priority(limits: &mut Reader<'_>, problems: &mut Problems) -> Option<(i32, i32)> {
    let value = limits.value("priority")?;
    let wanted = "the lowest and the highest priority, as in [-100, 0]";
    let Some(list) = value.get_ref().as_array() else {
        wrong_type(problems, "`priority`", value, wanted);
        return None;
    };
    let number = |value: &Spanned<DeValue<'_>>| {
        let integer = value.get_ref().as_integer()?;
        i32::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|number| PRIORITY.contains(number))
    };
    let numbers: Vec<Option<i32>> = list.iter().map(number).collect();
    match numbers[..] {
        [Some(low), Some(high)] if low <= high => return Some((low, high)),
        [Some(low), Some(high)] => {
            let remedy = format!("write the lower one first: [{high}, {low}]");
            problems.add(value.span(), format!("`priority` allows nothing: {low} is more than {high}"), remedy);
        }
        _ => drop(problems.add(
            value.span(),
            "`priority` is not two numbers from -100 to 100",
            format!("write {wanted}"),
        )),
    }
    None
}

/// `{ branch = ["main", "release/*"], ref = [] }`.
fn read_lists(what: &str, value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Lists {
    let mut lists = Lists::new();
    let Some(table) = value.get_ref().as_table() else {
        wrong_type(problems, &format!("`{what}`"), value, "a table of lists, as in { branch = [\"main\"] }");
        return lists;
    };
    for (key, entry) in table {
        let name = key.get_ref().to_string();
        let texts = match (entry.get_ref().as_array(), entry.get_ref().as_str()) {
            (Some(list), _) => list.iter().map(|entry| (entry.get_ref().as_str(), entry)).collect(),
            (None, Some(text)) => vec![(Some(text), entry)],
            (None, None) => vec![(None, entry)],
        };
        let mut list = Vec::new();
        for (text, entry) in texts {
            match text {
                Some(text) => list.push(Spanned::new(entry.span(), text.to_owned())),
                None => wrong_type(problems, &format!("`{what}.{name}`"), entry, "a list of strings"),
            }
        }
        lists.insert(name, (key.span(), list));
    }
    lists
}

/// Checks the roles. A role with mistakes is left out; the mistakes are noted.
pub(crate) fn check(sections: &[RoleSection], pools: &[PoolSection<'_>], problems: &mut Problems) -> RoleTable {
    let mut seen: BTreeMap<&str, &Spanned<String>> = BTreeMap::new();
    let mut roles = Vec::new();
    for section in sections {
        let Some(name) = &section.name else {
            problems.add(section.span.clone(), "this role has no `name`", "add one, as in name = \"ci\"");
            continue;
        };
        let text = name.get_ref().as_str();
        if !is_name(text) {
            problems.add(
                name.span(),
                format!("{text:?} is not a valid name of a role"),
                "use 1 to 63 of a to z, 0 to 9 and -",
            );
        }
        if BuiltIn::ALL.iter().any(|known| known.as_str() == text) {
            let remedy =
                format!("choose another name; `wharfinger policy roles {text}` prints the rules of the built-in one");
            problems.add(name.span(), format!("the role {text:?} is built in"), remedy);
        }
        if let Some(first) = seen.insert(text, name) {
            problems
                .add(
                    name.span(),
                    format!("two roles have the name {text:?}"),
                    "give one of them another name, or give its rules to the first",
                )
                .label("again here")
                .also(first.span(), "first here");
        }
        if section.rules.is_empty() {
            problems.add(
                section.span.clone(),
                "this role has no rule, so that it allows nothing",
                "add [[role.allow]] with verbs, pools and scope",
            );
        }
        let rules: Vec<Option<Rule>> = section.rules.iter().map(|rule| check_rule(rule, pools, problems)).collect();
        warn_of_covered(section, &rules, problems);
        roles.push(Arc::new(Role { name: Arc::from(text), rules: rules.into_iter().flatten().collect() }));
    }
    RoleTable::new(roles)
}

/// Warns of rules that change nothing.
fn warn_of_covered(section: &RoleSection, rules: &[Option<Rule>], problems: &mut Problems) {
    for (n, rule) in rules.iter().enumerate() {
        let Some(rule) = rule else { continue };
        // Of two equal rules the second is too much.
        let covers = |(m, other): &(usize, &Option<Rule>)| {
            *m != n && other.as_ref().is_some_and(|other| other.covers(rule) && (*m < n || !rule.covers(other)))
        };
        if let Some((m, _)) = rules.iter().enumerate().find(covers) {
            problems
                .warn(
                    section.rules[n].span.clone(),
                    "another rule of this role allows all of this one",
                    "take it out, or narrow the other",
                )
                .also(section.rules[m].span.clone(), "this one");
        }
    }
}

fn check_rule(section: &RuleSection, pools: &[PoolSection<'_>], problems: &mut Problems) -> Option<Rule> {
    let before = problems.len();
    let verbs = check_verbs(section, problems);
    let set = check_pools(section, pools, problems);
    let scope = check_scope(section, verbs, &set, problems);
    let limits = check_limits(section, verbs, problems);
    if problems.len() > before {
        return None;
    }
    let rule = Rule { verbs, pools: set, scope: scope?, limits };
    warn_of_limits(section, &rule, pools, problems);
    Some(rule)
}

fn check_verbs(section: &RuleSection, problems: &mut Problems) -> Verbs {
    let list = section.verbs.as_deref().unwrap_or_default();
    if list.is_empty() {
        problems.add(
            section.span.clone(),
            "this rule has no `verbs`, so that it allows nothing",
            "add them, as in verbs = [\"lease\", \"release\", \"renew\"]; \"*\" is all",
        );
    }
    let mut verbs = Verbs::default();
    for verb in list {
        match Verbs::parse(verb.get_ref()) {
            Some(more) => verbs = verbs.and(more),
            None => drop(problems.add(
                verb.span(),
                format!("no verb has the name {:?}", verb.get_ref()),
                Verb::remedy(verb.get_ref()),
            )),
        }
    }
    verbs
}

fn check_pools(section: &RuleSection, pools: &[PoolSection<'_>], problems: &mut Problems) -> Pools {
    let list = section.pools.as_deref().unwrap_or_default();
    if list.is_empty() {
        problems.add(
            section.span.clone(),
            "this rule has no `pools`, so that it allows nothing",
            "add them, as in pools = [\"linux-*\"]; \"*\" is all",
        );
    }
    let names: Vec<&str> =
        pools.iter().filter_map(|pool| pool.name.as_ref()).map(|name| name.get_ref().as_str()).collect();
    for pattern in list {
        let text = pattern.get_ref().as_str();
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'*';
        if text.is_empty() || text.len() > 63 || !text.bytes().all(valid) {
            problems.add(
                pattern.span(),
                format!("{text:?} is no pattern of the names of pools"),
                "use 1 to 63 of a to z, 0 to 9 and -, with * for any of them",
            );
        } else if text != "*" && !names.iter().any(|name| wharfinger_core::matches(text, name)) {
            let remedy = match closest(text, &names) {
                Some(near) => format!("did you mean {near:?}? A pool that is added later counts"),
                None => "a pool that is added later counts".to_owned(),
            };
            problems.warn(pattern.span(), format!("no pool in this file matches {text:?}"), remedy);
        }
    }
    Pools::matching(list.iter().map(|pattern| pattern.get_ref().as_str()))
}

fn check_scope(section: &RuleSection, verbs: Verbs, pools: &Pools, problems: &mut Problems) -> Option<RuleScope> {
    let all = RuleScope::ALL.map(RuleScope::as_str);
    let Some(scope) = &section.scope else {
        if !section.has_scope {
            problems.add(
                section.span.clone(),
                "this rule has no `scope`",
                "add scope = \"own\", \"tenant\" or \"all\": the leases for which it is",
            );
        }
        return None;
    };
    let found = RuleScope::ALL.into_iter().find(|known| known.as_str() == scope.get_ref());
    let Some(found) = found else {
        let remedy = match closest(scope.get_ref(), &all) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "use \"own\", \"tenant\" or \"all\"".to_owned(),
        };
        problems.add(scope.span(), format!("no scope has the name {:?}", scope.get_ref()), remedy);
        return None;
    };
    if let Some(verb) = verbs.iter().find(|verb| verb.is_shared() && found != RuleScope::All) {
        let remedy = "write scope = \"all\", or give this verb a rule of its own";
        problems.add(
            scope.span(),
            format!("`{verb}` is about what all tenants share, and the scope is {:?}", found.as_str()),
            remedy,
        );
    }
    if verbs.has(Verb::Weather) && !pools.is_all() {
        problems.add(
            section.span.clone(),
            "`weather` is about all pools, and this rule about some",
            "give it a rule of its own with pools = [\"*\"], or leave it out",
        );
    }
    Some(found)
}

fn check_limits(section: &RuleSection, verbs: Verbs, problems: &mut Problems) -> Limits {
    let limits = &section.limits;
    for (key, of) in LIMITS {
        if let Some(place) =
            limits.places.get(key).filter(|_| !verbs.is_empty() && !of.iter().any(|verb| verbs.has(*verb)))
        {
            let names: Vec<String> = of.iter().map(|verb| format!("`{verb}`")).collect();
            let names = names.join(" or ");
            problems.add(
                place.clone(),
                format!("`{key}` is a limit of {names}, which this rule does not have"),
                format!("add {names}, or take the limit out"),
            );
        }
    }
    if let (Some(ttl), Some(total)) = (&limits.ttl, &limits.total)
        && ttl.get_ref() > total.get_ref()
    {
        problems
            .add(
                ttl.span(),
                format!("`ttl` is {}, more than `total`", duration::format(*ttl.get_ref())),
                format!("use at most \"{}\"", duration::format(*total.get_ref())),
            )
            .also(total.span(), "the whole life of a lease");
    }
    let taint = limits.taint.as_ref().and_then(|taint| {
        let found = Taint::ALL.into_iter().find(|known| known.as_str() == taint.get_ref());
        if found.is_none() {
            problems.add(
                taint.span(),
                format!("`taint` is {:?}", taint.get_ref()),
                "use \"never\", \"copy\" or \"host\"",
            );
        }
        found
    });
    for (key, (place, values)) in &limits.labels {
        if values.is_empty() {
            problems.add(
                place.clone(),
                format!("no value of the label {key:?} is allowed, so that nothing can be leased"),
                "add the allowed values",
            );
        }
    }
    let patterns = |list: &[Spanned<String>]| {
        list.iter().map(|text| Arc::from(text.get_ref().as_str())).collect::<Vec<Arc<str>>>()
    };
    let value = |span: &Option<Spanned<Millis>>| span.as_ref().map(|span| *span.get_ref());
    Limits {
        count: limits.count.as_ref().map(|count| *count.get_ref()),
        ttl: value(&limits.ttl),
        total: value(&limits.total),
        wait_in_line: value(&limits.wait_in_line),
        priority: limits.priority,
        replace: limits.replace.as_ref().map(|replace| *replace.get_ref()),
        hold: value(&limits.hold),
        taint,
        params: limits
            .params
            .as_ref()
            .map(|lists| lists.iter().map(|(key, (_, values))| (Arc::from(key.as_str()), patterns(values))).collect()),
        refuse_tags: patterns(&limits.refuse_tags),
        labels: limits
            .labels
            .iter()
            .map(|(key, (_, values))| (Arc::from(key.as_str()), patterns(values).into_iter().collect::<BTreeSet<_>>()))
            .collect(),
    }
}

/// Warns of limits beyond those of each pool of the rule.
fn warn_of_limits(section: &RuleSection, rule: &Rule, pools: &[PoolSection<'_>], problems: &mut Problems) {
    let here = || pools.iter().filter(|pool| pool.name.as_ref().is_some_and(|name| rule.pools.has(name.get_ref())));
    let mut beyond =
        |limit: &Option<Spanned<Millis>>, key: &str, of_pool: &dyn Fn(&PoolSection<'_>) -> Option<Millis>| {
            let Some(limit) = limit else { return };
            let most: Option<Vec<Millis>> = here().map(of_pool).collect();
            if let Some(most) = most.and_then(|most| most.into_iter().max()).filter(|most| most < limit.get_ref()) {
                let message =
                    format!("the limit is more than each pool of this rule allows: \"{}\"", duration::format(most));
                problems.warn(limit.span(), message, format!("lower it, or raise `{key}` of a pool"));
            }
        };
    let of = |span: &Option<Spanned<Millis>>| span.as_ref().map(|span| *span.get_ref());
    beyond(&section.limits.ttl, "max_ttl", &|pool| of(&pool.max_ttl));
    beyond(&section.limits.hold, "max_hold", &|pool| of(&pool.max_hold));
}

/// The roles that a grant names.
pub(crate) fn check_grant(list: &[Spanned<String>], table: &RoleTable, problems: &mut Problems) -> Roles {
    let mut roles = Vec::new();
    for role in list {
        match table.get(role.get_ref()) {
            Some(known) => roles.push(known.clone()),
            None => {
                let all: Vec<&str> = table.iter().map(|role| &*role.name).collect();
                let remedy = match closest(role.get_ref(), &all) {
                    Some(near) => format!("did you mean {near:?}? The roles are {}", names(table)),
                    None => format!("use one of {}", names(table)),
                };
                problems.add(role.span(), format!("no role has the name {:?}", role.get_ref()), remedy);
            }
        }
    }
    roles.into_iter().collect()
}

/// The names of all roles, in quotes.
pub(crate) fn names(table: &RoleTable) -> String {
    table.iter().map(|role| format!("{:?}", role.name)).collect::<Vec<_>>().join(", ")
}

/// Warns of roles that no caller has. `given`: the roles of all grants.
pub(crate) fn warn_of_unused(sections: &[RoleSection], given: &[Roles], with_auth: bool, problems: &mut Problems) {
    for name in sections.iter().filter_map(|section| section.name.as_ref()) {
        let has = |roles: &Roles| roles.iter().any(|role| *role.name == *name.get_ref().as_str());
        if given.iter().any(has) {
            continue;
        }
        let remedy = match with_auth {
            true => "name it in `roles` of a caller in [auth], or take it out",
            false => "without [auth] everyone who reaches the port is an administrator: add [auth]",
        };
        problems.warn(name.span(), format!("no caller has the role {:?}", name.get_ref()), remedy);
    }
}
