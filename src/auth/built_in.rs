//! The roles that each configuration has.

use super::limits::Limits;
use super::role::{Role, Roles, Rule, RuleScope};
use super::verb::{Verb, Verbs};
use std::sync::{Arc, LazyLock};
use wharfinger_core::Pools;

/// A role that each configuration has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuiltIn {
    /// Leases, and sees and ends its own leases.
    Agent,
    /// Sees the leases of its tenant.
    Reader,
    /// Sees, releases and breaks the leases of its tenant.
    Lead,
    /// Sees everything, and has every verb of operators.
    Admin,
}

/// Verbs that keep a lease.
const HOLDER: &[Verb] = &[Verb::Lease, Verb::Release, Verb::Renew, Verb::Report, Verb::Login];
/// Verbs that read leases and pools.
const READER: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch, Verb::Explain, Verb::Timeline, Verb::GetPool];
/// Verbs of operators.
const OPERATOR: &[Verb] = &[
    Verb::Break,
    Verb::GetResource,
    Verb::ResourceTimeline,
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
    Verb::Events,
    Verb::Weather,
];

static ROLES: LazyLock<[Arc<Role>; 4]> = LazyLock::new(|| BuiltIn::ALL.map(|role| Arc::new(role.defined())));

impl BuiltIn {
    /// All of them.
    pub const ALL: [BuiltIn; 4] = [BuiltIn::Agent, BuiltIn::Reader, BuiltIn::Lead, BuiltIn::Admin];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            BuiltIn::Agent => "agent",
            BuiltIn::Reader => "reader",
            BuiltIn::Lead => "lead",
            BuiltIn::Admin => "admin",
        }
    }

    /// The role with its rules.
    pub fn role(self) -> Arc<Role> {
        ROLES[self as usize].clone()
    }

    fn defined(self) -> Role {
        let rule = |lists: &[&[Verb]], scope| Rule {
            verbs: lists.iter().fold(Verbs::default(), |verbs, list| verbs.and(Verbs::of(list))),
            pools: Pools::All,
            scope,
            limits: Limits::default(),
        };
        let rules = match self {
            BuiltIn::Agent => vec![rule(&[HOLDER, READER], RuleScope::Own)],
            BuiltIn::Reader => vec![rule(&[READER], RuleScope::Tenant)],
            BuiltIn::Lead => vec![rule(&[READER, &[Verb::Release, Verb::Break]], RuleScope::Tenant)],
            // An administrator breaks the leases of others, and releases and renews none of them.
            BuiltIn::Admin => vec![rule(&[HOLDER], RuleScope::Own), rule(&[READER, OPERATOR], RuleScope::All)],
        };
        Role { name: Arc::from(self.as_str()), rules }
    }
}

impl Roles {
    /// These roles.
    pub fn of(roles: &[BuiltIn]) -> Self {
        roles.iter().map(|role| role.role()).collect()
    }
}

/// The roles of a configuration by their names: its own, and the built-in ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleTable {
    own: Vec<Arc<Role>>,
}

impl RoleTable {
    /// The built-in roles and these, none of which has the name of a built-in one.
    pub fn new(own: Vec<Arc<Role>>) -> Self {
        Self { own }
    }

    /// All roles, the built-in ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Role>> {
        ROLES.iter().chain(&self.own)
    }

    /// The roles of the configuration's own.
    pub fn own(&self) -> &[Arc<Role>] {
        &self.own
    }

    /// The role of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Role>> {
        self.iter().find(|role| *role.name == *name)
    }

    /// The roles of these names.
    ///
    /// # Errors
    /// The first name that no role has.
    pub fn roles<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Roles, &'n str> {
        names.into_iter().map(|name| self.get(name).cloned().ok_or(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_has_each_verb_and_the_others_no_verb_of_operators() {
        for verb in Verb::ALL {
            assert!(Roles::of(&[BuiltIn::Admin]).has(*verb), "{verb}");
            let shared = Roles::of(&[BuiltIn::Agent, BuiltIn::Reader, BuiltIn::Lead]).has(*verb);
            assert_eq!(shared, !verb.is_shared(), "{verb}");
        }
    }

    #[test]
    fn names_are_looked_up_in_both() {
        let own = Arc::new(Role { name: "ci".into(), rules: Vec::new() });
        let table = RoleTable::new(vec![own]);
        assert_eq!(table.roles(["ci", "agent", "ci"]).unwrap().to_string(), "agent, ci");
        assert_eq!(table.roles(["ci", "agnet"]), Err("agnet"));
        assert_eq!(Roles::default().to_string(), "none");
    }
}
