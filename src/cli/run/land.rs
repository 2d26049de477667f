//! `run --land`: what the command has made goes to a branch of the remote, from the copy's host, while the lease lasts.

use super::place::Place;
use super::signals::{Signal, Signals};
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::ui::Ui;
use crate::client::{LeaseGuard, Lost};
use crate::pb;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use wharfinger_adapter::{Blame, access};
pub(super) use wharfinger_copies::LandRequest as Request;
use wharfinger_copies::{Author, Credentials, LandRequest, LandedFrom, Landing, NotLanded, Push, land};

/// The landing of a result: its branch and its way.
#[derive(Args, Debug)]
pub(super) struct LandArgs {
    /// After the command succeeded, merge what the copy has into this branch and push it
    #[arg(long, value_name = "BRANCH", help_heading = "Landing")]
    land: Option<String>,
    /// Also what the command changed and did not commit, but for what git ignores
    #[arg(long, requires = "land", help_heading = "Landing")]
    land_changes: bool,
    /// As one commit on the branch, without the history that led to it
    #[arg(long, requires = "land", help_heading = "Landing")]
    squash: bool,
    /// Message of the commit that lands
    #[arg(long, requires = "land", value_name = "TEXT", help_heading = "Landing")]
    message: Option<String>,
    /// Author of the commit that lands, as in 'Ada Lovelace <ada@example.org>'
    #[arg(long, requires = "land", value_name = "AUTHOR", help_heading = "Landing")]
    author: Option<Author>,
    /// Do all but the push, and say what would be pushed
    #[arg(long, requires = "land", help_heading = "Landing")]
    land_dry_run: bool,
    /// Unique for this landing: the same again is recognised if it happened; the id of the lease's request if absent
    #[arg(long, requires = "land", value_name = "ID", help_heading = "Landing")]
    land_id: Option<String>,
    /// Merge again so often if others push to the branch meanwhile
    #[arg(long, requires = "land", value_name = "N", default_value_t = 10, help_heading = "Landing")]
    land_tries: u32,
    /// Private key here that the remote takes; without it the host's own credentials count
    #[arg(long, requires = "land", value_name = "KEYFILE", conflicts_with = "land_user", help_heading = "Landing")]
    land_key: Option<PathBuf>,
    /// User for an https remote
    #[arg(long, requires_all = ["land", "land_password_file"], value_name = "NAME", help_heading = "Landing")]
    land_user: Option<String>,
    /// File here with that user's password or token
    #[arg(long, requires_all = ["land", "land_user"], value_name = "FILE", help_heading = "Landing")]
    land_password_file: Option<PathBuf>,
}

impl LandArgs {
    /// The landing that is asked for, if one is. `id`: the first request's, so that a repetition is recognised.
    pub(super) fn request(&self, id: &str) -> Result<Option<LandRequest>, Failure> {
        let Some(target) = &self.land else { return Ok(None) };
        let file = |path: &PathBuf| std::path::absolute(path).unwrap_or(path.clone()).display().to_string();
        let credentials = match (&self.land_key, &self.land_user, &self.land_password_file) {
            (Some(key), _, _) => Some(Credentials::ssh_key(file(key))),
            (None, Some(user), Some(password)) => Some(Credentials::password(user, file(password))),
            _ => None,
        };
        let request = LandRequest {
            message: self.message.clone(),
            author: self.author.clone(),
            squash: self.squash,
            changes: self.land_changes,
            dry_run: self.land_dry_run,
            credentials,
            tries: self.land_tries,
            ..LandRequest::new(self.land_id.as_deref().unwrap_or(id), target)
        };
        request.check().map_err(|failure| refused(&failure))?;
        Ok(Some(request))
    }
}

/// How it ended.
pub(super) enum Ended {
    /// It is printed; the branch has it, or would have.
    Done,
    /// Nothing landed; whether the copy is to blame.
    Not(Failure, bool),
    /// The lease was lost meanwhile. The next try finds whether it landed.
    Lost(Lost),
    /// The host was lost meanwhile; the same.
    HostLost(String),
    /// We were asked to stop; the script on the host is dead. The same.
    Interrupted(Signal),
}

/// How long the news of a lost lease may take.
const NEWS: Duration = Duration::from_secs(2);

/// Lands it, until the lease ends or someone wants us to.
pub(super) async fn run(
    ui: Ui,
    request: &LandRequest,
    place: &Place,
    guard: &LeaseGuard,
    lease: &pb::Lease,
    signals: &mut Signals,
) -> Ended {
    let pairs = lease.access_pairs();
    let known = |key: &str| pairs.get(key).cloned().filter(|value| !value.is_empty());
    let (Place::There { shell, fence, .. }, Some(path), Some(repository)) =
        (place, known(access::PATH), known(access::REPOSITORY))
    else {
        let failure = Failure::new(Exit::BadData, format!("{} is no working copy that could land", lease.resource_id));
        return Ended::Not(failure.remedy("lease from a pool of working copies"), false);
    };
    let fence = fence.as_ref().map(|fence| fence.parts());
    let sparse = known(access::SPARSE).map(|dirs| dirs.split(',').map(String::from).collect()).unwrap_or_default();
    let ca_file = known(wharfinger_copies::CA_FILE).unwrap_or_default();
    let from = LandedFrom { resource: lease.resource_id.clone(), path, repository, fence, sparse, ca_file };
    ui.event(&format!("landing on {} of {}", request.target, from.repository));
    let landing = tokio::select! {
        biased;
        landing = land(shell.as_ref(), &from, request) => landing,
        signal = signals.recv() => return Ended::Interrupted(signal),
        lost = guard.broken() => return Ended::Lost(lost),
    };
    match landing {
        Ok(landing) => {
            for line in told(&landing, &request.target) {
                ui.event(&line);
            }
            Ended::Done
        }
        Err(NotLanded::Other(failure)) if matches!(failure.reason, "UNREACHABLE" | "WRONG_HOST") => {
            Ended::HostLost(failure.message)
        }
        Err(not) => {
            let failure = not.failure(&request.target);
            // The end of a lease ends the processes in its copy, and the news of it may come later.
            if (failure.reason == "FENCED" || failure.blame == Blame::Resource)
                && let Ok(lost) = tokio::time::timeout(NEWS, guard.broken()).await
            {
                return Ended::Lost(lost);
            }
            Ended::Not(refused(&failure), failure.blame == Blame::Resource)
        }
    }
}

/// The party that must act, as an exit code.
fn refused(failure: &wharfinger_adapter::Failure) -> Failure {
    let exit = match failure.blame {
        Blame::Request => Exit::BadData,
        Blame::Provider | Blame::Resource => Exit::Unavailable,
        Blame::Configuration => Exit::Denied,
        Blame::Bug => Exit::Internal,
    };
    let mut said = Failure::new(exit, failure.message.clone());
    said.reason = Some(failure.reason.to_string());
    said
}

/// In words.
fn told(landing: &Landing, branch: &str) -> Vec<String> {
    let commits = |push: &Push| match push.commits {
        1 => "1 commit".to_string(),
        many => format!("{many} commits"),
    };
    let left = |push: &Push| {
        (!push.left.is_empty())
            .then(|| format!("not landed, since git filters them: {}", push.left.join(", ")))
            .into_iter()
    };
    let tries = |push: &Push| match push.tries {
        0 | 1 => String::new(),
        more => format!(", at try {more}: others pushed meanwhile"),
    };
    match landing {
        Landing::Landed(push) => {
            let line = format!(
                "landed {} on {branch}: {} is now {}{}",
                commits(push),
                short(&push.onto),
                push.commit,
                tries(push)
            );
            std::iter::once(line).chain(left(push)).collect()
        }
        Landing::WouldLand(push) => {
            let line = format!(
                "dry run: would land {} on {branch}: {} would be {}",
                commits(push),
                short(&push.onto),
                push.commit
            );
            std::iter::once(line).chain(left(push)).collect()
        }
        Landing::Already { commit } => vec![format!("landed on {branch} before: {commit}")],
        Landing::Nothing { tip } => vec![format!("nothing to land: {branch} at {} has all of it", short(tip))],
    }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(commits: u64, tries: u32, left: &[&str]) -> Push {
        Push {
            commit: "b".repeat(40),
            onto: "a".repeat(40),
            commits,
            tries,
            left: left.iter().map(|name| (*name).to_string()).collect(),
        }
    }

    #[test]
    fn the_landed_commits_are_reported() {
        let (new, old) = ("b".repeat(40), "a".repeat(12));
        assert_eq!(
            told(&Landing::Landed(push(1, 1, &[])), "main"),
            [format!("landed 1 commit on main: {old} is now {new}")]
        );
        assert_eq!(
            told(&Landing::Landed(push(2, 3, &["x.big"])), "main"),
            [
                format!("landed 2 commits on main: {old} is now {new}, at try 3: others pushed meanwhile"),
                "not landed, since git filters them: x.big".to_string(),
            ]
        );
        assert_eq!(
            told(&Landing::WouldLand(push(2, 1, &[])), "main"),
            [format!("dry run: would land 2 commits on main: {old} would be {new}")]
        );
    }
}
