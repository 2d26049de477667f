//! The answer to a probe or a check.

/// What a resource is, by its own answer. An `Err` in its place means: not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the resource that we made, and it is fit for use.
    Healthy,
    /// It answers, but it is not fit for use.
    Mangled {
        /// Whether [`crate::Adapter::repair`] is worth a try.
        repairable: bool,
        /// A stable code in SCREAMING_SNAKE_CASE: `GIT_DIR_MISSING`, `DISK_FULL`.
        reason: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// No answer. One is a lost probe; several in a row over some time are evidence.
    Unreachable {
        /// A stable code: `CONNECTION_REFUSED`, `TIMEOUT`, `CONNECTION_LOST`.
        reason: &'static str,
        /// What was tried and what came back.
        detail: String,
    },
    /// It is certain that it exists no more: the provider says terminated, the directory is not there, another host
    /// key or another boot answers at its address.
    Gone {
        /// A stable code: `DIRECTORY_MISSING`, `HOST_REPLACED`, `REBOOTED`.
        reason: &'static str,
        /// What proves it.
        detail: String,
    },
}
