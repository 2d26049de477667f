//! The verbs of rules.

use std::fmt;
use wharfinger_adapter::settings::closest;

macro_rules! verbs {
    ($($verb:ident $name:literal $doc:literal),* $(,)?) => {
        /// A verb: what a rule allows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Verb {
            $(#[doc = $doc] $verb,)*
        }

        impl Verb {
            /// All verbs.
            pub const ALL: &'static [Verb] = &[$(Verb::$verb),*];

            /// The stable name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Verb::$verb => $name,)*
                }
            }
        }
    };
}

verbs! {
    Lease "lease" "Requests leases.",
    Release "release" "Ends a lease, with its outcome.",
    Renew "renew" "Renews a lease.",
    Report "report" "Reports failures of the work.",
    Login "login" "Gets a credential for the resource of a lease.",
    Get "get" "Reads one lease.",
    List "list" "Lists leases.",
    Watch "watch" "Watches leases.",
    Explain "explain" "Reads why a lease waits, or how it ended; lists the queue.",
    Timeline "timeline" "Reads the story of a lease.",
    GetPool "pool.get" "Reads and lists pools; lists tenants.",
    Break "lease.break" "Ends a lease against its holder's will.",
    GetResource "resource.get" "Reads and lists resources.",
    ResourceTimeline "resource.timeline" "Reads the story of a resource.",
    Cordon "resource.cordon" "Stops new leases on a resource or in a pool.",
    Uncordon "resource.uncordon" "Allows new leases again.",
    Drain "resource.drain" "Drains a resource.",
    Undrain "resource.undrain" "Ends a drain.",
    Check "resource.check" "Has a resource checked.",
    Taint "resource.taint" "Marks a resource as mangled.",
    Quarantine "resource.quarantine" "Keeps a resource as it is, and breaks its leases.",
    Hold "resource.hold" "Keeps a resource as it is once its leases have ended.",
    Recover "resource.recover" "Ends a quarantine or a hold.",
    Recycle "resource.recycle" "Destroys a resource, and makes another.",
    ForceDestroy "resource.force-destroy" "Forgets a resource at once.",
    Note "resource.note" "Writes a note on a resource.",
    Events "events" "Reads the audit trail.",
    Weather "weather" "Reads the counts of machines that the server buys.",
}

impl Verb {
    /// The verb of this name.
    pub fn parse(name: &str) -> Option<Verb> {
        Verb::ALL.iter().copied().find(|verb| verb.as_str() == name)
    }

    /// The remedy for a name that is no verb.
    pub fn remedy(name: &str) -> String {
        let names: Vec<&str> = Verb::ALL.iter().map(|verb| verb.as_str()).collect();
        match closest(name, &names) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the verbs are {}", names.join(", ")),
        }
    }

    /// Whether it is about what all tenants share, so that a rule for it needs `scope = "all"`.
    pub fn is_shared(self) -> bool {
        self.as_str().starts_with("resource.") || matches!(self, Verb::Events | Verb::Weather)
    }
}

impl Verb {
    /// The name of the method that it is for, such as `ForceDestroy`.
    pub(crate) fn method(self) -> String {
        let name = self.as_str().rsplit('.').next().unwrap_or_default();
        name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
    }

    /// The commands of operators.
    const COMMANDS: [Verb; 13] = [
        Verb::Cordon,
        Verb::Uncordon,
        Verb::Drain,
        Verb::Undrain,
        Verb::Check,
        Verb::Taint,
        Verb::Quarantine,
        Verb::Hold,
        Verb::Recover,
        Verb::Recycle,
        Verb::ForceDestroy,
        Verb::Note,
        Verb::Break,
    ];

    /// The command of operators whose method has this name. `None`: it is the method of another verb.
    pub(crate) fn command(method: &str) -> Option<Verb> {
        Verb::COMMANDS.into_iter().find(|verb| verb.method() == method)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verbs(u32);

impl Verbs {
    /// The verbs of this list.
    pub fn of(verbs: &[Verb]) -> Self {
        verbs.iter().copied().collect()
    }

    /// The verbs of a pattern of a rule: a verb, `*` for all, or `resource.*` for all that begin so. `None`: there is none.
    pub fn parse(pattern: &str) -> Option<Self> {
        let verbs: Self = match pattern.strip_suffix('*') {
            Some(start) if start.is_empty() || start.ends_with('.') => {
                Verb::ALL.iter().copied().filter(|verb| verb.as_str().starts_with(start)).collect()
            }
            _ => Verb::parse(pattern).into_iter().collect(),
        };
        (!verbs.is_empty()).then_some(verbs)
    }

    /// Whether it has a verb.
    pub fn has(self, verb: Verb) -> bool {
        self.0 & bit(verb) != 0
    }

    /// Whether it has no verb.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it has each verb of another.
    pub fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The verbs of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The verbs, in the order of [`Verb::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.iter().copied().filter(move |verb| self.has(*verb))
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<T: IntoIterator<Item = Verb>>(verbs: T) -> Self {
        Self(verbs.into_iter().fold(0, |bits, verb| bits | bit(verb)))
    }
}

fn bit(verb: Verb) -> u32 {
    1 << (verb as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_whole_names_and_a_star_for_all_that_begin_so() {
        let names = |pattern: &str| Verbs::parse(pattern).map(|verbs| verbs.iter().count());
        assert_eq!(names("*"), Some(Verb::ALL.len()));
        assert_eq!((names("lease"), names("lease.*"), names("resource.*")), (Some(1), Some(1), Some(14)));
        for wrong in ["", "Lease", "lease*", "l*", "*e", "resource.**", "resource.", "nothing.*", "* "] {
            assert_eq!(names(wrong), None, "{wrong:?}");
        }
        for verb in Verb::ALL {
            assert_eq!(Verb::parse(verb.as_str()), Some(*verb));
        }
        assert_eq!((Verb::command("ForceDestroy"), Verb::command("Lease")), (Some(Verb::ForceDestroy), None));
        assert_eq!(Verb::remedy("resource.drian"), "did you mean \"resource.drain\"?");
    }
}
