//! The verbs of operators by their addresses, and what each of them breaks.

use super::screen::Screen;
use crate::auth::Verb;
use crate::links::encoded;

/// The target of a verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A resource, by its id.
    Resource(String),
    /// A machine of an inventory, as POOL/ITEM, that no resource stands for.
    Machine(String),
    /// A pool, by its name.
    Pool(String),
    /// A lease, by its id.
    Lease(String),
}

impl Target {
    /// The name or id.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Resource(name) | Self::Machine(name) | Self::Pool(name) | Self::Lease(name) => name,
        }
    }

    /// The screen that shows it.
    pub(crate) fn screen(&self) -> Screen {
        match self {
            Self::Resource(id) => Screen::resource(id),
            Self::Machine(name) => Screen::Pool(name.split('/').next().unwrap_or_default().to_owned()),
            Self::Pool(name) => Screen::Pool(name.clone()),
            Self::Lease(id) => Screen::Lease(id.clone()),
        }
    }

    /// The verbs for it, in the order in which they are shown.
    pub(crate) fn verbs(&self) -> &'static [Verb] {
        match self {
            Self::Resource(_) => &[
                Verb::Check,
                Verb::Cordon,
                Verb::Uncordon,
                Verb::Hold,
                Verb::Recover,
                Verb::Drain,
                Verb::Undrain,
                Verb::Taint,
                Verb::Quarantine,
                Verb::Recycle,
                Verb::ForceDestroy,
                Verb::Note,
            ],
            Self::Machine(_) => &[Verb::Uncordon, Verb::Undrain, Verb::Recover, Verb::Note],
            Self::Pool(_) => &[Verb::Cordon, Verb::Uncordon],
            Self::Lease(_) => &[Verb::Release, Verb::Break],
        }
    }
}

/// A verb on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Act {
    pub(crate) verb: Verb,
    pub(crate) target: Target,
}

/// The word of a verb in an address, which is also that of the command line.
pub(crate) fn word(verb: Verb) -> &'static str {
    verb.as_str().rsplit('.').next().unwrap_or_default()
}

impl Act {
    /// The verb on a target of an address. `None`: there is none.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let (kind, name, act, verb) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if act != "act" || parts.next().is_some() {
            return None;
        }
        let name = super::screen::decoded(name)?;
        let target = match kind {
            "resources" => Target::Resource(name),
            "machines" => Target::Machine(name),
            "pools" => Target::Pool(name),
            "leases" => Target::Lease(name),
            _ => return None,
        };
        let verb = target.verbs().iter().copied().find(|known| word(*known) == verb)?;
        Some(Self { verb, target })
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        let kind = match self.target {
            Target::Resource(_) => "resources",
            Target::Machine(_) => "machines",
            Target::Pool(_) => "pools",
            Target::Lease(_) => "leases",
        };
        format!("/{kind}/{}/act/{}", encoded(self.target.name()), word(self.verb))
    }

    /// Whether it ends leases against their holders' will, at once or at a deadline.
    pub(crate) fn breaks(&self) -> bool {
        matches!(
            self.verb,
            Verb::Drain | Verb::Quarantine | Verb::Recycle | Verb::ForceDestroy | Verb::Break | Verb::Release
        )
    }

    /// Whether it ends leases with this text in the field of its time.
    pub(crate) fn ends_leases(&self, time: &str) -> bool {
        self.breaks() && (self.verb != Verb::Drain || !time.is_empty())
    }

    /// Whether it needs a reason. The trail takes one of each.
    pub(crate) fn needs_reason(&self) -> bool {
        !matches!(self.verb, Verb::Check | Verb::Uncordon | Verb::Undrain | Verb::Recover | Verb::Note)
    }

    /// Whether a person has to write what it destroys.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.verb, Verb::Recycle | Verb::ForceDestroy)
    }

    /// Its consequences, in words.
    pub(crate) fn meaning(&self) -> &'static str {
        match (self.verb, &self.target) {
            (Verb::Cordon, Target::Pool(_)) => "The pool gets no new leases until it is uncordoned. Nothing ends.",
            (Verb::Uncordon, Target::Pool(_)) => "The pool gets new leases again.",
            (Verb::Check, _) => "It is in doubt and checked now. Leases on it go on, unless the check finds it unfit.",
            (Verb::Cordon, _) => "It gets no new leases until it is uncordoned. Nothing ends.",
            (Verb::Uncordon, _) => "It gets new leases again, and a drain ends.",
            (Verb::Hold, _) => {
                "It gets no new leases, and stays as it is once its leases have ended by themselves. It returns to service by way of a check."
            }
            (Verb::Recover, _) => "It returns to service from a quarantine or a hold, by way of a check.",
            (Verb::Drain, _) => {
                "It gets no new leases, and is destroyed when the last one has ended. With a deadline the leases that are left are broken then. A drained machine stays away until it is undrained."
            }
            (Verb::Undrain, _) => "The drain ends.",
            (Verb::Taint, _) => "It is checked, then repaired or made anew even if the check passes.",
            (Verb::Quarantine, _) => "It is kept as it is until a person recovers it. Its leases are broken now.",
            (Verb::Recycle, _) => {
                "It is destroyed now, and its leases are broken. Another one is made if the pool needs it."
            }
            (Verb::ForceDestroy, _) => {
                "It is forgotten at once, whatever its state, and its leases are broken. The rest of it outside is a debt that the janitor pays later."
            }
            (Verb::Note, _) => {
                "All who look at it read the note, until a person replaces or removes it. It changes nothing else, and stays with the machine."
            }
            (Verb::Release, _) => {
                "The lease ends as if its holder had given it back, and so do the others of its group. Nothing counts as a failure."
            }
            (Verb::Break, _) => {
                "The lease ends against its holder's will. A holder that asked for it gets another one."
            }
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_back_to_its_verb() {
        let targets = [
            Target::Resource("res_1".into()),
            Target::Machine("farm/b3".into()),
            Target::Pool("farm".into()),
            Target::Lease("lse_1".into()),
        ];
        for target in targets {
            for verb in target.verbs() {
                let act = Act { verb: *verb, target: target.clone() };
                assert_eq!(Act::parse(&act.url()), Some(act.clone()), "{}", act.url());
                assert!(!act.meaning().is_empty(), "{}", act.url());
                assert_eq!(Screen::parse(&act.url(), ""), None, "a verb is no screen");
            }
        }
        for path in [
            "/resources/res_1/act/break",
            "/leases/lse_1/act/drain",
            "/pools/p/act/",
            "/pools/p/act/cordon/x",
            "/x/p/act/cordon",
        ] {
            assert_eq!(Act::parse(path), None, "{path}");
        }
    }
}
