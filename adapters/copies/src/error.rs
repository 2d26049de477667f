//! What went wrong on a host, and whose fault that is.

use wharfinger_adapter::{Failure, ShellError};

/// A state that a script found: a stable code, and the evidence in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// One of [`STATES`].
    pub(crate) reason: &'static str,
    /// What was found, with the path.
    pub(crate) detail: String,
}

/// Why a step did not work. Kept apart from [`Failure`] since a check must tell a host that is silent from one that
/// answers.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The command could not be run, or its end is not known.
    Shell(ShellError),
    /// The host answers, and the copy is in this state.
    State(State),
    /// Anything that is typed already.
    Failure(Failure),
}

/// All codes that the scripts say.
const STATES: &[&str] = &[
    "CANNOT_CREATE",
    "CANNOT_REMOVE",
    "CHECKOUT_FAILED",
    "COMMIT_UNFIT",
    "CONFIG_CHANGED",
    "CONTAINMENT_LOST",
    "CREDENTIALS_REFUSED",
    "DIRECTORY_MISSING",
    "DISK_FULL",
    "FENCED",
    "GIT_DIR_BROKEN",
    "GIT_DIR_MISSING",
    "GIT_DIR_REPLACED",
    "GIT_TOO_OLD",
    "HEAD_BROKEN",
    "LANDING_FAILED",
    "LFS_MISSING",
    "MERGE_FAILED",
    "MOUNT_INSIDE",
    "NOT_A_REPOSITORY",
    "NOT_CONTAINED",
    "NO_PROC",
    "OBJECTS_BROKEN",
    "ORIGIN_FORMAT",
    "ORIGIN_SHALLOW",
    "OTHER_RESOURCE",
    "PROCESSES_UNREADABLE",
    "PROCESS_SURVIVES",
    "PROOF_FAILED",
    "SHALLOW",
    "TREE_MISSING",
    "TREE_REPLACED",
];

impl State {
    /// Reads what a script printed. The details may have several lines.
    pub(crate) fn parse(stdout: &str) -> Option<Self> {
        let mut rest = stdout;
        loop {
            if let Some((word, detail)) = rest.split_once('\t')
                && let Some(reason) = STATES.iter().copied().find(|known| *known == word)
            {
                return Some(Self { reason, detail: detail.trim().to_string() });
            }
            rest = rest.split_once('\n')?.1;
        }
    }
}

impl From<State> for Failure {
    fn from(state: State) -> Self {
        match state.reason {
            "GIT_TOO_OLD" | "NOT_CONTAINED" | "NO_PROC" => {
                Failure::configuration(state.reason, format!("{}; mend the host", state.detail))
            }
            "CREDENTIALS_REFUSED" => {
                Failure::configuration(state.reason, format!("{}; mend the credentials of the pool", state.detail))
            }
            "LFS_MISSING" => Failure::configuration(
                state.reason,
                format!("{}; install git-lfs on the host, or take lfs out of the pool", state.detail),
            ),
            "ORIGIN_SHALLOW" => Failure::configuration(
                state.reason,
                format!(
                    "{}; complete it (git fetch --unshallow, in the origin), or set depth in the pool",
                    state.detail
                ),
            ),
            "COMMIT_UNFIT" => Failure::request(state.reason, state.detail),
            // Nothing is wrong with the copy: whoever speaks is behind the times.
            "FENCED" => Failure::provider(
                state.reason,
                format!("{}; look for a second broker with the same hosts", state.detail),
            ),
            "DISK_FULL" => Failure::resource(
                state.reason,
                format!("{}; free some room, or lower min_free_disk_mb of the pool", state.detail),
            ),
            reason => Failure::resource(reason, state.detail),
        }
    }
}

impl From<ShellError> for Trouble {
    fn from(error: ShellError) -> Self {
        Trouble::Shell(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Failure(failure)
    }
}

impl From<State> for Trouble {
    fn from(state: State) -> Self {
        Trouble::State(state)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Failure(failure) => failure,
            Trouble::State(state) => state.into(),
            Trouble::Shell(ShellError::NotReached(text) | ShellError::Unreachable(text)) => {
                Failure::resource("UNREACHABLE", text)
            }
            Trouble::Shell(ShellError::Closed(text)) => Failure::resource("SESSION_CLOSED", text),
            Trouble::Shell(ShellError::WrongHost(text)) => Failure::resource("WRONG_HOST", text),
            Trouble::Shell(ShellError::Refused(text)) => Failure::configuration("HOST_REFUSED", text),
            Trouble::Shell(ShellError::NotStarted(text)) => {
                Failure::configuration("SHELL_MISSING", format!("{text}; a working copy's host needs /bin/sh and git"))
            }
            Trouble::Shell(ShellError::File(text)) => Failure::resource("FILE_FAILED", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_found_behind_other_output() {
        let state = State::parse("noise\nHEAD_BROKEN\tline one\nline two\n").unwrap();
        assert_eq!((state.reason, state.detail.as_str()), ("HEAD_BROKEN", "line one\nline two"));
        assert_eq!(State::parse("NO_SUCH_STATE\tx"), None);
        assert_eq!(State::parse(""), None);
    }
}
