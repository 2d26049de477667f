//! The party that must act after a failure.

/// The party that must act so that a failed call can work. It decides the broker's next step; the text never does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Blame {
    /// The holder: no such branch, a bad path. The lease fails at once, and the resource stays free of doubt.
    Request,
    /// The resource: unreachable, out of disk, mangled. The resource is in doubt; the lease tries elsewhere.
    Resource,
    /// The provider: out of capacity, throttled, its API down. The broker retries later; no resource is judged.
    Provider,
    /// The operator: wrong key, wrong user, another host key, git missing. Leases wait, and `explain` reports it.
    Configuration,
    /// The developers: a bug in the broker or in an adapter.
    Bug,
}

impl Blame {
    /// The stable name in the audit trail and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Blame::Request => "request",
            Blame::Resource => "resource",
            Blame::Provider => "provider",
            Blame::Configuration => "configuration",
            Blame::Bug => "bug",
        }
    }
}
