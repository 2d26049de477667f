//! People whom a proxy before the operator's page names in a header, which is believed from that proxy alone.

use super::{Identity, Proof, Roles};
use std::sync::Arc;
use wharfinger_core::{Program, matches};

/// Maximum length of a name in bytes.
pub(crate) const MAX_NAME: usize = 256;

/// The tenant and the roles of people whom a proxy names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyGrant {
    /// Their names. A `*` stands for any characters.
    pub user: Arc<str>,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The roles.
    pub roles: Roles,
}

/// The principal of a person whom a proxy names.
pub(crate) fn principal(name: &str) -> Arc<str> {
    Arc::from(format!("proxy:{name}"))
}

/// Whether a text may be the name of a person: visible ASCII.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The first grant that has this name.
pub(crate) fn grant<'g>(grants: &'g [ProxyGrant], name: &str) -> Option<&'g ProxyGrant> {
    grants.iter().find(|grant| is_name(name) && matches(&grant.user, name))
}

impl ProxyGrant {
    /// The person of this name.
    pub(crate) fn identity(&self, name: &str, peer: Option<Arc<str>>, via: Option<Arc<str>>) -> Identity {
        Identity {
            tenant: self.tenant.clone(),
            principal: principal(name),
            roles: self.roles.clone(),
            proof: Proof::Proxy { user: Arc::from(name) },
            expires: None,
            peer,
            via,
            program: Program::Api,
            trace: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::BuiltIn;

    #[test]
    fn the_first_grant_that_has_a_name_counts() {
        let one = |user: &str, tenant: &str| ProxyGrant {
            user: user.into(),
            tenant: tenant.into(),
            roles: Roles::of(&[BuiltIn::Reader]),
        };
        let grants = [one("ann@example.org", "web"), one("*@example.org", "all")];
        let tenant = |name: &str| grant(&grants, name).map(|grant| grant.tenant.to_string());
        assert_eq!(tenant("ann@example.org").as_deref(), Some("web"));
        assert_eq!(tenant("bob@example.org").as_deref(), Some("all"));
        for name in ["bob@example.com", "", "ann@example.org ", "a\u{e4}@example.org", &"x".repeat(300)] {
            assert_eq!(tenant(name), None, "{name}");
        }
        let everyone = [one("*", "all")];
        assert!(grant(&everyone, "x").is_some() && grant(&everyone, "").is_none() && grant(&everyone, "a b").is_none());
    }
}
