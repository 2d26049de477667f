//! Sets of pools by patterns of their names.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// A set of pools: all of them, or those whose names match a pattern. In a pattern `*` stands for any characters. A pool that is
/// configured later belongs to it, too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Pools {
    /// All pools.
    #[default]
    All,
    /// Pools whose names match one of these; sorted, each once.
    Matching(Arc<[Arc<str>]>),
}

impl Pools {
    /// The pattern of all pools.
    const ANY: &'static str = "*";

    /// No pool.
    pub fn none() -> Self {
        Pools::Matching(Arc::from(Vec::new()))
    }

    /// The pools that match one of these patterns.
    pub fn matching<T: Into<Arc<str>>>(patterns: impl IntoIterator<Item = T>) -> Self {
        let mut patterns: Vec<Arc<str>> = patterns.into_iter().map(Into::into).collect();
        if patterns.iter().any(|pattern| &**pattern == Self::ANY) {
            return Pools::All;
        }
        patterns.sort_unstable();
        patterns.dedup();
        Pools::Matching(patterns.into())
    }

    /// Whether a pool belongs to it.
    pub fn has(&self, pool: &str) -> bool {
        match self {
            Pools::All => true,
            Pools::Matching(patterns) => patterns.iter().any(|pattern| matches(pattern, pool)),
        }
    }

    /// Whether each pool belongs to it.
    pub fn is_all(&self) -> bool {
        matches!(self, Pools::All)
    }

    /// Whether no pool belongs to it.
    pub fn is_none(&self) -> bool {
        match self {
            Pools::All => false,
            Pools::Matching(patterns) => patterns.is_empty(),
        }
    }

    /// The pools of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Pools::All, _) | (_, Pools::All) => Pools::All,
            (Pools::Matching(own), Pools::Matching(more)) => Self::matching(own.iter().chain(more.iter()).cloned()),
        }
    }

    /// Whether each pool of the other, present or later, belongs to this one by a single pattern.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Pools::All, _) => true,
            (Pools::Matching(_), Pools::All) => false,
            // A `*` of the other pattern is matched by a `*` alone, since no name has one.
            (Pools::Matching(own), Pools::Matching(more)) => {
                more.iter().all(|pattern| own.iter().any(|known| matches(known, pattern)))
            }
        }
    }

    /// The patterns, in order.
    pub fn patterns(&self) -> Vec<Arc<str>> {
        match self {
            Pools::All => alloc::vec![Arc::from(Self::ANY)],
            Pools::Matching(patterns) => patterns.to_vec(),
        }
    }
}

impl fmt::Display for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for pattern in self.patterns() {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(&pattern);
        }
        if text.is_empty() { f.write_str("none") } else { f.write_str(&text) }
    }
}

/// Whether a text matches a pattern, in which `*` stands for any characters. Each part is found at its first place, so that the
/// time is at most the product of both lengths.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(last) = parts.next_back() else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_with_any_characters_for_a_star() {
        for (pattern, text, expected) in [
            ("linux-*", "linux-1", true),
            ("linux-*", "linux-", true),
            ("linux-*", "linux", false),
            ("linux-*", "LINUX-1", false),
            ("linux-*", "xlinux-1", false),
            ("linux", "linux", true),
            ("linux", "linux-1", false),
            ("linux", "linu", false),
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "x", false),
            ("*-arm", "linux-arm", true),
            ("*-arm", "linux-arm-2", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a**a", "aa", true),
            ("e*", "été", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        // A pattern of many stars takes no exponential time.
        assert!(!matches(&"*a".repeat(200), &"b".repeat(20_000)));
    }

    #[test]
    fn a_set_covers_another_only_if_each_pool_of_it_belongs_to_it() {
        let set = |patterns: &[&str]| Pools::matching(patterns.iter().copied());
        assert!(set(&["linux-*"]).covers(&set(&["linux-1", "linux-arm-*"])));
        assert!(!set(&["linux-*"]).covers(&set(&["linux-1", "mac"])));
        assert!(!set(&["linux-a*"]).covers(&set(&["linux-*"])));
        assert!(!set(&["linux-*"]).covers(&Pools::All) && Pools::All.covers(&set(&["mac"])));
        assert!(set(&["mac"]).covers(&Pools::none()) && !Pools::none().covers(&set(&["mac"])));
        assert!(set(&["x", "*"]).is_all() && Pools::none().is_none() && !Pools::All.is_none());
        assert_eq!(set(&["b", "a"]).and(&set(&["a", "c"])), set(&["a", "b", "c"]));
        assert_eq!(set(&["b", "a"]).and(&Pools::All), Pools::All);
        let shown = [set(&["b", "a"]), Pools::All, Pools::none()].map(|set| alloc::format!("{set}"));
        assert_eq!(shown, ["a, b", "*", "none"]);
    }
}
