//! Between two leases: nothing of the former one may run, and only what the pool keeps may stay.

use crate::checkout::{Done, Trusts};
use crate::config::{Clean, Config};
use crate::error::Trouble;
use crate::git::{CLEAN, Copy};
use crate::{mirror, provision};
use serde::{Deserialize, Serialize};
use wharfinger_adapter::{CleanJob, Failure, HolderWork};

/// The note of who has the copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) lease: String,
    pub(crate) token: u64,
    pub(crate) commit: String,
}

impl Note {
    /// The text to leave on the host.
    pub(crate) fn text(work: &HolderWork, commit: &str) -> Result<String, Failure> {
        let note = Note { lease: work.lease.clone(), token: work.token, commit: commit.to_string() };
        serde_json::to_string(&note).map_err(|error| Failure::bug("BAD_NOTE", error.to_string()))
    }
}

/// Ends the former holder's processes, empties the copy by the pool's policy, and hashes what is left, so that the next
/// prepare need not: nobody waits for this copy yet.
pub(crate) async fn clean(copy: &Copy, job: &CleanJob, trusts: &Trusts) -> Result<(), Trouble> {
    trusts.forget(&copy.resource);
    if copy.config.clean == Clean::Fresh {
        copy.give_back(&job.work.lease, job.work.token).await?;
        provision::clone(copy, job.resource.op).await?;
        return Ok(());
    }
    let (pinned, token) = (copy.pinned().await?, job.work.token.to_string());
    // A call that was held up somewhere must not clean under the next holder's feet: the first step compares tokens.
    let stop = [job.work.lease.as_str(), "clear", &token];
    // A full disk is the state that this step is there to end.
    let normalise = [pinned.as_str(), "strict", "0", ""];
    let rebuild = ["HEAD", policy(copy.config.clean), "gentle", "", "", "trust", ""];
    let mut args = [&stop[..], &normalise, &rebuild].concat();
    args.extend(copy.config.keep.iter().map(String::as_str));
    match copy.ask(CLEAN, &args, copy.config.command_timeout() * 4).await? {
        Ok(text) => trusts.learn(copy, Done::parse(&text).trust),
        Err(state) => {
            if let "CANNOT_REMOVE" | "CHECKOUT_FAILED" = state.reason {
                copy.doubt(&state).await?;
            }
            return Err(state.into());
        }
    }
    mirror::settle(copy, &pinned).await
}

/// Refuses patterns that git would take for something else, or that would keep what nobody means to keep.
pub(crate) fn check_keep(config: &Config) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::configuration("BAD_SETTING", text));
    if !config.keep.is_empty() && config.clean != Clean::Clean {
        return refuse("keep says what survives clean = \"clean\"; leave one of the two out".to_string());
    }
    for pattern in &config.keep {
        let why = if pattern.trim().trim_matches('/').is_empty() {
            "is empty"
        } else if pattern.chars().any(char::is_control) {
            "has control characters"
        } else if pattern.starts_with(['-', '!', '#']) {
            "begins with '-', '!' or '#'"
        } else if pattern.split('/').any(|part| part == ".." || part == ".git") {
            "leads to '..' or '.git'"
        } else {
            continue;
        };
        return refuse(format!("keep pattern {pattern:?} {why}; give one like \"target/\""));
    }
    Ok(())
}

/// The word for it that the scripts know.
pub(crate) fn policy(clean: Clean) -> &'static str {
    match clean {
        Clean::Keep => "keep",
        Clean::Clean | Clean::Fresh => "clean",
    }
}
