//! Which entries a hook carries.

use super::severity::Severity;
use crate::store::StoredEvent;
use wharfinger_core::EventKind;

/// A text, or the begin of texts if it ends with `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern. `None`: it is empty, or has a `*` elsewhere than at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let begin = text.strip_suffix('*').unwrap_or(text);
        (!text.is_empty() && !begin.contains('*')).then(|| Self(text.to_owned()))
    }

    /// Whether it is of this text.
    pub fn matches(&self, text: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(begin) => text.starts_with(begin),
            None => text == self.0,
        }
    }

    /// Whether it is of a kind of entries that this version knows.
    pub fn matches_a_kind(&self) -> bool {
        EventKind::ALL.iter().any(|kind| self.matches(kind.as_str()))
    }
}

/// The filter of a hook. An entry passes if each part lets it pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Kinds of entries. Empty: all kinds.
    pub kinds: Vec<Pattern>,
    /// Pools. Empty: all entries, also those of no pool.
    pub pools: Vec<Pattern>,
    /// The least severity.
    pub severity: Severity,
}

impl Filter {
    /// Whether the entry passes.
    pub fn passes(&self, event: &StoredEvent) -> bool {
        let kind = self.kinds.is_empty() || self.kinds.iter().any(|pattern| pattern.matches(&event.kind));
        let of_pool = |pool: &String| self.pools.iter().any(|pattern| pattern.matches(pool));
        kind && Severity::of(&event.kind) >= self.severity
            && (self.pools.is_empty() || event.pool.as_ref().is_some_and(of_pool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_filter_lets_pass() {
        let event = |kind: &str, pool: Option<&str>| StoredEvent {
            kind: kind.into(),
            pool: pool.map(String::from),
            ..StoredEvent::default()
        };
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        let filter = Filter {
            kinds: patterns(&["pool.brake-*", "lease.broken"]),
            pools: patterns(&["hosts", "mac-*"]),
            severity: Severity::Warning,
        };
        for (kind, pool, passes) in [
            ("lease.broken", Some("hosts"), true),
            ("pool.brake-on", Some("mac-m2"), true),
            ("lease.broken", Some("hosts2"), false),
            ("lease.broken", None, false),
            ("lease.active", Some("hosts"), false),
            ("lease.failed", Some("hosts"), false),
        ] {
            assert_eq!(filter.passes(&event(kind, pool)), passes, "{kind} {pool:?}");
        }
        let severe = Filter { severity: Severity::Critical, ..Filter::default() };
        assert!(severe.passes(&event("pool.brake-on", None)) && !severe.passes(&event("lease.broken", None)));
        assert!(Filter::default().passes(&event("of another version", None)));
        for text in ["", "a*b", "**"] {
            assert_eq!(Pattern::parse(text), None, "{text:?}");
        }
        assert!(Pattern::parse("lease.*").unwrap().matches_a_kind());
        assert!(!Pattern::parse("lease.gone").unwrap().matches_a_kind());
    }
}
