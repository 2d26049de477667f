//! Who asks, whose leases it sees, and whose it may end.

use crate::LeaseSpec;
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
    /// The leases that it may release though they are not its own.
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
    /// The names of the roles that allowed the call.
    pub roles: Arc<str>,
    /// The name of the method.
    pub method: Arc<str>,
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

    /// Whether a lease belongs to it.
    pub fn owns(&self, spec: &LeaseSpec) -> bool {
        spec.tenant == self.tenant && spec.principal == self.principal
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
}

impl Scope {
    /// Whether a lease of this request is in it.
    pub fn sees(&self, spec: &LeaseSpec) -> bool {
        match self {
            Scope::All => true,
            // A lease that a working copy holds is the broker's.
            Scope::Own { .. } | Scope::Tenant(_) if spec.child.is_some() => false,
            Scope::Own { tenant, principal } => spec.tenant == *tenant && spec.principal == *principal,
            Scope::Tenant(tenant) => spec.tenant == *tenant,
        }
    }

    /// Whether texts that may name leases, works and notes of any tenant are for this reader.
    pub fn is_all(&self) -> bool {
        match self {
            Scope::All => true,
            Scope::Own { .. } | Scope::Tenant(_) => false,
        }
    }
}
