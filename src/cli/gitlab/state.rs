//! The state of a job between its stages: whether its script succeeded or failed, as a file of the runner's user.

use crate::cli::run::login::private_folder_of_user;
use crate::pb;
use std::path::PathBuf;

/// The outcome of the scripts of a job so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No script of the user has ended.
    Open,
    Succeeded,
    Failed,
}

impl State {
    /// The outcome of the lease. A job that was cancelled has no result of its script.
    pub(super) fn outcome(self) -> pb::Outcome {
        match self {
            State::Open => pb::Outcome::Abandoned,
            State::Succeeded => pb::Outcome::Ok,
            State::Failed => pb::Outcome::Failed,
        }
    }

    pub(super) fn read(lease: &str) -> Self {
        let text = path(lease).and_then(|path| std::fs::read_to_string(path).ok());
        match text.as_deref() {
            Some("succeeded") => State::Succeeded,
            Some("failed") => State::Failed,
            _ => State::Open,
        }
    }

    /// Writes it. Without it the job counts as abandoned, which blames no one.
    pub(super) fn write(self, lease: &str) {
        let Some(path) = path(lease) else { return };
        let word = match self {
            State::Open => return,
            State::Succeeded => "succeeded",
            State::Failed => "failed",
        };
        let aside = path.with_extension("new");
        let _ = std::fs::write(&aside, word).and_then(|()| std::fs::rename(&aside, &path));
    }

    pub(super) fn remove(lease: &str) {
        if let Some(path) = path(lease) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn path(lease: &str) -> Option<PathBuf> {
    // The id comes from the environment.
    let plain = lease.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    plain.then(|| private_folder_of_user().ok()).flatten().map(|folder| folder.join(format!("gitlab-{lease}")))
}
