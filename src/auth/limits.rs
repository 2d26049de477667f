//! The limits of a rule: how much, and with which parameters. A request beyond them is refused, never cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{Millis, Texts, matches};

/// Limits of a rule. What has no limit here is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of leases of one request, all claims together.
    pub count: Option<u32>,
    /// Maximum TTL, of a request and of a renewal.
    pub ttl: Option<Millis>,
    /// Maximum time from the grant to the last end by renewals.
    pub total: Option<Millis>,
    /// Maximum time in the queue, which the request then has to give.
    pub wait_in_line: Option<Millis>,
    /// Lowest and highest priority.
    pub priority: Option<(i32, i32)>,
    /// Whether a broken lease may have a successor.
    pub replace: Option<bool>,
    /// Maximum time that a release keeps the resource.
    pub hold: Option<Millis>,
    /// The resources that a release may report as mangled.
    pub taint: Option<Taint>,
    /// The allowed values of each parameter, as patterns; parameters that are not here are refused. `None`: all are allowed.
    pub params: Option<BTreeMap<Arc<str>, Vec<Arc<str>>>>,
    /// Patterns of refused tags, by their keys.
    pub refuse_tags: Vec<Arc<str>>,
    /// The allowed values of labels. A selector has to give each of these labels.
    pub labels: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

/// The resources that a release may report as mangled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taint {
    /// No resource.
    Never,
    /// Those with one slot, which is the lease's alone.
    Copy,
    /// Those with several slots, too.
    Host,
}

impl Taint {
    /// All of them.
    pub const ALL: [Taint; 3] = [Taint::Never, Taint::Copy, Taint::Host];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Taint::Never => "never",
            Taint::Copy => "copy",
            Taint::Host => "host",
        }
    }
}

/// Whether a parameter's value matches a pattern. `*` alone matches each value. Another pattern with a `*` matches no value that
/// leaves its path or begins an option.
pub(crate) fn value_matches(pattern: &str, value: &str) -> bool {
    let strays = || value.starts_with('-') || value.split(['/', '\\']).any(|part| part == "..");
    pattern == value || matches(pattern, value) && (pattern == "*" || !strays())
}

impl Limits {
    /// Limits by their names in the configuration, each with its value as text.
    pub fn shown(&self) -> Vec<(String, String)> {
        let mut shown: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: Option<String>| shown.extend(value.map(|value| (name.to_owned(), value)));
        let span = |value: Option<Millis>| value.map(in_words);
        add("count", self.count.map(|count| count.to_string()));
        add("ttl", span(self.ttl));
        add("total", span(self.total));
        add("wait_in_line", span(self.wait_in_line));
        add("priority", self.priority.map(|(low, high)| format!("{low} to {high}")));
        add("replace", self.replace.map(|replace| replace.to_string()));
        add("hold", span(self.hold));
        add("taint", self.taint.map(|taint| taint.as_str().to_owned()));
        if let Some(params) = &self.params {
            add("params", Some(joined(params.keys())));
            for (key, values) in params {
                add(&format!("params.{key}"), Some(joined(values)));
            }
        }
        let refused = (!self.refuse_tags.is_empty()).then(|| joined(&self.refuse_tags));
        add("tags.refuse", refused);
        for (key, values) in &self.labels {
            add(&format!("labels.{key}"), Some(joined(values)));
        }
        shown
    }

    /// Whether each request within the other limits is within these.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        fn most<T: PartialOrd>(own: &Option<T>, other: &Option<T>) -> bool {
            own.as_ref().is_none_or(|own| other.as_ref().is_some_and(|other| other <= own))
        }
        let priority = match (self.priority, other.priority) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => own.0 <= other.0 && other.1 <= own.1,
        };
        let covered =
            |own: &[Arc<str>], value: &Arc<str>| own.iter().any(|pattern| **pattern == **value || **pattern == *"*");
        let params = match (&self.params, &other.params) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => other
                .iter()
                .all(|(key, values)| own.get(key).is_some_and(|own| values.iter().all(|value| covered(own, value)))),
        };
        let taint = self.taint.unwrap_or(Taint::Host) >= other.taint.unwrap_or(Taint::Host);
        let labels = self.labels.iter().all(|(key, own)| other.labels.get(key).is_some_and(|more| more.is_subset(own)));
        most(&self.count, &other.count)
            && most(&self.ttl, &other.ttl)
            && most(&self.total, &other.total)
            && most(&self.wait_in_line, &other.wait_in_line)
            && most(&self.hold, &other.hold)
            && (self.replace.unwrap_or(true) || !other.replace.unwrap_or(true))
            && self.refuse_tags.iter().all(|tag| other.refuse_tags.contains(tag))
            && priority
            && params
            && taint
            && labels
    }

    /// The first limit that a request for leases is beyond. The number is that of the checks that it passed.
    pub(crate) fn beyond(&self, wanted: &Wanted<'_>) -> Option<(u32, Beyond)> {
        let mut passed = 0;
        let mut check = |beyond: Option<Beyond>| {
            passed += u32::from(beyond.is_none());
            beyond.map(|beyond| (passed, beyond))
        };
        let over = |field: &str, asked: Option<Millis>, most: Option<Millis>, absent: &str| {
            let most = most?;
            match asked {
                Some(asked) if asked <= most => None,
                Some(asked) => Some(Beyond::new(field, in_words(asked), at_most(most))),
                None => Some(Beyond::new(field, absent, at_most(most))),
            }
        };
        let count: u32 = wanted.claims.iter().fold(0, |sum, claim| sum.saturating_add(claim.count));
        check(
            self.count.filter(|most| count > *most).map(|most| Beyond::new("count", count, format!("at most {most}"))),
        )
        .or_else(|| check(over("ttl", wanted.ttl, self.ttl, "the pool's default")))
        .or_else(|| {
            let queue_for = if wanted.no_queue { Some(Millis::ZERO) } else { wanted.queue_for };
            check(over("queue_for", queue_for, self.wait_in_line, "no limit"))
        })
        .or_else(|| {
            let (low, high) = self.priority.unwrap_or((i32::MIN, i32::MAX));
            let beyond = !(low..=high).contains(&wanted.priority);
            check(beyond.then(|| Beyond::new("priority", wanted.priority, format!("{low} to {high}"))))
        })
        .or_else(|| {
            let beyond = wanted.replace && self.replace == Some(false);
            check(beyond.then(|| Beyond::new("replace", "true", "false")))
        })
        .or_else(|| check(self.beyond_tags(wanted.tags)))
        .or_else(|| wanted.claims.iter().find_map(|claim| check(self.beyond_labels(claim))))
        .or_else(|| wanted.claims.iter().find_map(|claim| check(self.beyond_params(claim))))
    }

    fn beyond_tags(&self, tags: &Texts) -> Option<Beyond> {
        let refused = |key: &str| self.refuse_tags.iter().any(|pattern| matches(pattern, key));
        let (key, _) = tags.iter().find(|(key, _)| refused(key))?;
        Some(Beyond::new(&format!("tags[{key}]"), "set", format!("tags but {}", joined(&self.refuse_tags))))
    }

    fn beyond_labels(&self, claim: &WantedClaim<'_>) -> Option<Beyond> {
        self.labels.iter().find_map(|(key, values)| {
            let field = format!("{}selector.labels[{key}]", claim.at);
            match claim.labels.get(key) {
                Some(value) if values.contains(value) => None,
                Some(value) => Some(Beyond::new(&field, value, joined(values))),
                None => Some(Beyond::new(&field, "not set", joined(values))),
            }
        })
    }

    fn beyond_params(&self, claim: &WantedClaim<'_>) -> Option<Beyond> {
        let params = self.params.as_ref()?;
        claim.params.iter().find_map(|(key, value)| {
            let field = format!("{}params[{key}]", claim.at);
            match params.get(key) {
                None => Some(Beyond::new(&field, "set", format!("the parameters {}", joined(params.keys())))),
                Some(patterns) if patterns.iter().any(|pattern| value_matches(pattern, value)) => None,
                Some(patterns) => Some(Beyond::new(&field, format!("{value:?}"), joined(patterns))),
            }
        })
    }

    /// The limit that a release is beyond. `shared`: its resource has slots for other leases.
    pub(crate) fn beyond_release(&self, ending: Ending, shared: bool) -> Option<Beyond> {
        let hold = ending.hold.zip(self.hold).filter(|(asked, most)| asked > most);
        let hold = hold.map(|(asked, most)| Beyond::new("hold", in_words(asked), at_most(most)));
        hold.or_else(|| {
            let needed = if shared { Taint::Host } else { Taint::Copy };
            let most = self.taint.filter(|most| ending.tainted && *most < needed)?;
            let allowed = match most {
                Taint::Copy => "TAINTED for resources with one slot alone: report, or release as FAILED",
                Taint::Never | Taint::Host => "no TAINTED: report, or release as FAILED",
            };
            Some(Beyond::new("outcome", "TAINTED", allowed))
        })
    }

    /// The limit that a renewal is beyond. Without a TTL of its own it has that of the request.
    pub(crate) fn beyond_renewal(&self, ttl: Option<Millis>) -> Option<Beyond> {
        let (asked, most) = ttl.zip(self.ttl).filter(|(asked, most)| asked > most)?;
        Some(Beyond::new("ttl", in_words(asked), at_most(most)))
    }
}

/// A length of time as the configuration has it.
fn in_words(span: Millis) -> String {
    crate::duration::format(span.0)
}

fn at_most(span: Millis) -> String {
    format!("at most {}", in_words(span))
}

fn joined<'t>(texts: impl IntoIterator<Item = &'t Arc<str>>) -> String {
    let texts: Vec<&str> = texts.into_iter().map(|text| &**text).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

/// A request for leases, as far as limits are about it.
pub(crate) struct Wanted<'r> {
    pub(crate) claims: Vec<WantedClaim<'r>>,
    /// The TTL; that of the pool, if the request has none.
    pub(crate) ttl: Option<Millis>,
    pub(crate) queue_for: Option<Millis>,
    pub(crate) no_queue: bool,
    pub(crate) priority: i32,
    pub(crate) replace: bool,
    pub(crate) tags: &'r Texts,
}

/// One claim of it.
pub(crate) struct WantedClaim<'r> {
    /// Path of the claim in the request, with a dot at its end; empty for the only one.
    pub(crate) at: String,
    pub(crate) pool: Option<&'r str>,
    pub(crate) labels: &'r Texts,
    pub(crate) count: u32,
    pub(crate) params: &'r Texts,
}

/// The end of a lease by its holder, as far as limits are about it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) hold: Option<Millis>,
    pub(crate) tainted: bool,
}

/// A limit that a request is beyond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beyond {
    /// Path of the field in the request's message.
    pub(crate) field: String,
    pub(crate) asked: String,
    pub(crate) allowed: String,
}

impl Beyond {
    pub(crate) fn new(field: &str, asked: impl ToString, allowed: impl Into<String>) -> Self {
        Self { field: field.to_owned(), asked: asked.to_string(), allowed: allowed.into() }
    }
}
