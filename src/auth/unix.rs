//! Callers on the broker's own machine that come by the Unix socket: the kernel says which user each is.

use super::{BuiltIn, Identity, Proof, Roles};
use std::fmt;
use std::sync::Arc;
use wharfinger_core::{Caller, Program};

/// The number that stands for users and groups of other user namespaces (user_namespaces(7)). It names no caller.
pub const OVERFLOW: u32 = 65_534;

/// The process at the other end of a Unix socket, as of its connect(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnixPeer {
    /// Its user.
    pub(crate) uid: u32,
    /// Its primary group.
    pub(crate) gid: u32,
    /// The process, for the audit trail alone: the number may belong to another one by now.
    pub(crate) pid: Option<i32>,
}

impl UnixPeer {
    /// The peer of an identity.
    pub(crate) fn shown(&self) -> Arc<str> {
        match self.pid {
            Some(pid) => format!("unix:pid={pid}").into(),
            None => "unix".into(),
        }
    }

    pub(super) fn proof(&self) -> Proof {
        Proof::Unix { uid: self.uid, gid: self.gid }
    }

    /// The caller where none are configured: an administrator by its own name.
    pub(crate) fn sole(&self) -> Identity {
        let known = self.uid != OVERFLOW;
        Identity {
            tenant: Arc::from(Caller::DEFAULT_TENANT),
            principal: if known { principal(self.uid) } else { Arc::from(Identity::ANONYMOUS) },
            roles: Roles::of(&[BuiltIn::Admin]),
            proof: if known { self.proof() } else { Proof::None },
            expires: None,
            peer: Some(self.shown()),
            via: None,
            program: Program::Api,
            trace: None,
        }
    }
}

/// The principal of a user.
pub(crate) fn principal(uid: u32) -> Arc<str> {
    Arc::from(format!("unix:{uid}"))
}

/// A user, or the users with a primary group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixName {
    /// The user with this number.
    User(u32),
    /// The users whose primary group has this number.
    Group(u32),
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixName::User(uid) => write!(f, "unix:{uid}"),
            UnixName::Group(gid) => write!(f, "unix:* (group {gid})"),
        }
    }
}

/// The tenant and the roles of users of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixGrant {
    /// The users.
    pub name: UnixName,
    /// The tenant.
    pub tenant: Arc<str>,
    /// The roles.
    pub roles: Roles,
}

/// The first grant for this user. Users of other namespaces have none.
pub(crate) fn grant(grants: &[UnixGrant], uid: u32, gid: u32) -> Option<&UnixGrant> {
    grants.iter().find(|grant| match grant.name {
        UnixName::User(user) => uid != OVERFLOW && user == uid,
        UnixName::Group(group) => uid != OVERFLOW && gid != OVERFLOW && group == gid,
    })
}

impl UnixGrant {
    /// The caller with this user and primary group.
    pub(crate) fn identity(&self, uid: u32, gid: u32, peer: Option<Arc<str>>, via: Option<Arc<str>>) -> Identity {
        Identity {
            tenant: self.tenant.clone(),
            principal: principal(uid),
            roles: self.roles.clone(),
            proof: Proof::Unix { uid, gid },
            expires: None,
            peer,
            via,
            program: Program::Api,
            trace: None,
        }
    }
}
