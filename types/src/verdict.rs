//! The answer to a probe or a check.

use alloc::string::String;

/// The state of a resource by its own answer. A call that returns an error instead is no verdict.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verdict {
    /// It is the resource that the broker made, and it is fit for use.
    Healthy,
    /// It answers, but it is not fit for use.
    Mangled {
        /// Whether a repair is worth a try.
        repairable: bool,
        /// A stable code in SCREAMING_SNAKE_CASE: `GIT_DIR_MISSING`, `DISK_FULL`.
        reason: &'static str,
        /// The damage, in words.
        detail: String,
    },
    /// It does not answer. One such verdict is a lost probe; several in a row over some time are evidence.
    Unreachable {
        /// A stable code: `CONNECTION_REFUSED`, `TIMEOUT`, `CONNECTION_LOST`.
        reason: &'static str,
        /// The attempt and its result, in words.
        detail: String,
    },
    /// It provably exists no more: the provider reports it as terminated, its directory is missing, or another host
    /// key or another boot answers at its address.
    Gone {
        /// A stable code: `DIRECTORY_MISSING`, `HOST_REPLACED`, `REBOOTED`.
        reason: &'static str,
        /// The proof, in words.
        detail: String,
    },
}
