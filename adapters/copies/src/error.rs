//! Errors of the steps on a host, and the party that each blames.

use wharfinger_adapter::{Failure, ShellError};

/// A state of the copy or the host that a script reported: a stable code, and the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// One of [`STATES`].
    pub(crate) reason: &'static str,
    /// The evidence, with the path.
    pub(crate) detail: String,
}

/// The error of a step. It is no [`Failure`], because a check distinguishes a silent host from one that answers.
#[derive(Debug)]
pub(crate) enum StepError {
    /// The command could not be started, or its end is unknown.
    Shell(ShellError),
    /// The host answers; the copy or the host is in this state.
    State(State),
    /// The failure is typed already.
    Failure(Failure),
}

/// All codes that the scripts report.
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
    "HOST_DIRECTORY_MISSING",
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
    /// Finds the state in the output of a script: a code, a tab and the details, which may have several lines.
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
                Failure::configuration(state.reason, format!("{}; repair the host", state.detail))
            }
            "CREDENTIALS_REFUSED" => {
                Failure::configuration(state.reason, format!("{}; correct the credentials of the pool", state.detail))
            }
            "LFS_MISSING" => Failure::configuration(
                state.reason,
                format!("{}; install git-lfs on the host, or remove lfs from the pool", state.detail),
            ),
            "ORIGIN_SHALLOW" => Failure::configuration(
                state.reason,
                format!(
                    "{}; complete it (git fetch --unshallow, in the origin), or set depth in the pool",
                    state.detail
                ),
            ),
            "COMMIT_UNFIT" => Failure::request(state.reason, state.detail),
            // The copy is sound; the call is obsolete.
            "FENCED" => Failure::provider(
                state.reason,
                format!("{}; look for a second broker that uses the same hosts", state.detail),
            ),
            "DISK_FULL" => Failure::resource(
                state.reason,
                format!("{}; free space on the host, or lower min_free_disk_mb of the pool", state.detail),
            ),
            reason => Failure::resource(reason, state.detail),
        }
    }
}

impl From<ShellError> for StepError {
    fn from(error: ShellError) -> Self {
        StepError::Shell(error)
    }
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        StepError::Failure(failure)
    }
}

impl From<State> for StepError {
    fn from(state: State) -> Self {
        StepError::State(state)
    }
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Failure(failure) => failure,
            StepError::State(state) => state.into(),
            StepError::Shell(ShellError::NotReached(text) | ShellError::Unreachable(text)) => {
                Failure::resource("UNREACHABLE", text)
            }
            StepError::Shell(ShellError::Closed(text)) => Failure::resource("SESSION_CLOSED", text),
            StepError::Shell(ShellError::WrongHost(text)) => Failure::resource("WRONG_HOST", text),
            StepError::Shell(ShellError::Refused(text)) => Failure::configuration("HOST_REFUSED", text),
            StepError::Shell(ShellError::NotStarted(text)) => {
                Failure::configuration("SHELL_MISSING", format!("{text}; install /bin/sh and git on the host"))
            }
            StepError::Shell(ShellError::File(text)) => Failure::resource("FILE_FAILED", text),
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
