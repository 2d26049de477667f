//! The id of a lock: the ids of its leases, with dots between.

use std::fmt;

/// Maximum number of leases of a lock, as in the API.
pub(super) const MOST: usize = 64;
/// The id of a lock that was skipped: nothing was free.
const SKIPPED: &str = "skipped";

/// A lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// `skipIfLocked`, and nothing was free.
    Skipped,
    /// Leases of one request.
    Leases(Vec<String>),
}

impl Lock {
    /// The lock of these leases. The first one may come twice. `None`: there is none.
    pub(super) fn of(ids: impl Iterator<Item = String>) -> Option<Self> {
        let mut leases: Vec<String> = Vec::new();
        for id in ids {
            if !leases.contains(&id) {
                leases.push(id);
            }
        }
        (!leases.is_empty()).then_some(Lock::Leases(leases))
    }

    /// Reads an id. `None`: no lock has such an id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == SKIPPED {
            return Some(Lock::Skipped);
        }
        let is_id = |id: &str| {
            id.len() <= 64
                && id.strip_prefix("lse_").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_alphanumeric()))
        };
        let leases: Vec<String> = text.split('.').map(str::to_owned).collect();
        (leases.len() <= MOST && leases.iter().all(|id| is_id(id))).then_some(Lock::Leases(leases))
    }

    /// The leases. None of a lock that was skipped.
    pub(super) fn leases(&self) -> &[String] {
        match self {
            Lock::Skipped => &[],
            Lock::Leases(leases) => leases,
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lock::Skipped => f.write_str(SKIPPED),
            Lock::Leases(leases) => f.write_str(&leases.join(".")),
        }
    }
}
