//! The caller of a request, the leases that it sees, and those that it may end.

use crate::Pools;
use crate::model::stable::stable_texts;
use alloc::sync::Arc;

/// The caller of a request, as far as the core has to know it. The shell authenticates it and derives what it sees.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Caller {
    /// The tenant: a principal of another one is another caller, whatever its name.
    pub tenant: Arc<str>,
    /// The authenticated principal. Leases belong to it, within the tenant.
    pub principal: Arc<str>,
    /// The leases that exist for it.
    pub sees: Scope,
    /// The leases on which this call may act: by verb, pool and limits.
    pub ends: Scope,
    /// How and from where it called, for the audit trail alone. `None`: no call over the network.
    pub proved: Option<Arc<Provenance>>,
}

/// How a caller proved who it is, and from where it called, as the audit trail keeps it. It has no secret. The core decides nothing by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Provenance {
    /// The tenant of the caller.
    pub tenant: Arc<str>,
    /// The kind of the proof and its public name, such as `token:ci-7`.
    pub proof: Arc<str>,
    /// The address or the process of the caller.
    pub peer: Option<Arc<str>>,
    /// The address of the server that forwarded the call.
    pub via: Option<Arc<str>>,
    /// The program by which it called. `None`: the entry is of an older version.
    pub program: Option<Program>,
    /// The names of the roles that allowed the call.
    pub roles: Arc<str>,
    /// The name of the method.
    pub method: Arc<str>,
    /// The place of the call in its caller's trace, as W3C Trace Context writes it.
    pub trace: Option<Arc<str>>,
}

stable_texts! {
    /// The programs by which a caller acts.
    pub enum Program {
        /// The operator's page.
        Page = "page",
        /// The command line.
        Cli = "cli",
        /// The plugin of Jenkins, by its remote locks.
        Jenkins = "jenkins",
        /// Another client of the API.
        Api = "api",
    }
}

impl Caller {
    /// The tenant of a broker that knows no other.
    pub const DEFAULT_TENANT: &'static str = "default";

    /// A caller of a broker without tenants: it sees all leases, and releases its own.
    pub fn sole_tenant(principal: impl Into<Arc<str>>) -> Self {
        let (tenant, principal): (Arc<str>, Arc<str>) = (Arc::from(Self::DEFAULT_TENANT), principal.into());
        let ends = Scope::Own { tenant: tenant.clone(), principal: principal.clone() };
        Self { tenant, principal, sees: Scope::All, ends, proved: None }
    }
}

/// The leases that exist for a reader. A lease out of scope is answered as one that never was.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// Those of one principal.
    Own {
        /// The tenant.
        tenant: Arc<str>,
        /// The principal.
        principal: Arc<str>,
    },
    /// Those of one tenant.
    Tenant(Arc<str>),
    /// All leases, and the broker's own on the hosts of working copies.
    All,
    /// Those of some pools.
    Within(Arc<Within>),
}

/// A scope by pools. A lease that waits by labels alone belongs to no pool: it is in the scope of its principal, and else in that of
/// all pools alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Within {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The principal.
    pub principal: Arc<str>,
    /// The pools whose leases of this principal are in it.
    pub own: Pools,
    /// The pools whose leases of the tenant are in it.
    pub of_tenant: Pools,
    /// The pools whose leases of all tenants are in it, and the broker's own.
    pub of_all: Pools,
    /// The pools that exist for the reader.
    pub pools: Pools,
}

impl Scope {
    /// Whether texts that may name leases, works and notes of any tenant are for this reader.
    pub fn is_all(&self) -> bool {
        match self {
            Scope::All => true,
            Scope::Own { .. } | Scope::Tenant(_) | Scope::Within(_) => false,
        }
    }

    /// Whether the words of holders and operators about what is in this pool are for this reader.
    pub fn tells_of(&self, pool: Option<&str>) -> bool {
        match self {
            Scope::All => true,
            Scope::Own { .. } | Scope::Tenant(_) => false,
            Scope::Within(within) => pool.is_some_and(|pool| within.of_all.has(pool)),
        }
    }

    /// Whether this reader may see the leases and the queue of a tenant.
    pub fn shows_tenant(&self, name: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Own { tenant, .. } | Scope::Tenant(tenant) => **tenant == *name,
            Scope::Within(within) => within.of_all.is_all() || *within.tenant == *name,
        }
    }

    /// Whether a pool exists for this reader.
    pub fn shows_pool(&self, pool: &str) -> bool {
        match self {
            Scope::Own { .. } | Scope::Tenant(_) | Scope::All => true,
            Scope::Within(within) => within.pools.has(pool),
        }
    }
}
