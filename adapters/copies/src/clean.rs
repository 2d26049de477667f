//! Between two leases: nothing of the former one may run, and only what the pool keeps may stay.

use crate::checkout::{Done, Trusts};
use crate::config::{Clean, Config};
use crate::error::{State, Trouble};
use crate::git::{CLEAN, Copy, NORMALISE, REBUILD_AND_PROVE};
use crate::parts::{Parts, all};
use crate::{mirror, provision, submodules};
use serde::{Deserialize, Serialize};
use wharfinger_adapter::{CleanJob, Failure, HolderWork, reaper};

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

    /// Leaves it there.
    pub(crate) async fn write(copy: &Copy, work: &HolderWork, commit: &str) -> Result<(), Trouble> {
        let text = Self::text(work, commit)?;
        Ok(copy.shell.put(&copy.meta("lease"), text.into_bytes().into(), 0o600).await?)
    }
}

/// Ends the former holder's processes, empties the copies by the pool's policy, and hashes what is left, so that the next
/// prepare need not: nobody waits for them yet.
pub(crate) async fn clean(parts: &Parts, job: &CleanJob, trusts: &Trusts) -> Result<(), Trouble> {
    trusts.forget(&job.resource.resource);
    let (lease, token, op) = (&job.work.lease, job.work.token, job.resource.op);
    let config = &parts.whole.config;
    // A call that was held up somewhere must not clean under the next holder's feet: the first step compares tokens.
    if !parts.several() && config.clean != Clean::Fresh && !config.submodules && !config.lfs {
        return at_once(&parts.list[0], lease, token, trusts).await;
    }
    parts.whole.give_back(lease, token).await?;
    parts.arrange(|_| true).await?;
    all(parts.each(|_, copy| one(copy, op, trusts)).await).map(drop)
}

/// All of it in one step.
async fn at_once(copy: &Copy, lease: &str, token: u64, trusts: &Trusts) -> Result<(), Trouble> {
    let (pinned, token, number) = (copy.pinned().await?, token.to_string(), reaper::number(lease).to_string());
    let stop = [lease, "clear", &token, &number, &copy.host_lease, &copy.host_dir, ""];
    // A full disk is the state that this step is there to end.
    let normalise = [pinned.as_str(), "strict", "0", ""];
    let mut args = [&stop[..], &normalise].concat();
    args.extend(rebuild(&copy.config));
    let done = copy.ask(CLEAN, &args, copy.config.command_timeout() * 4).await?;
    learn(copy, done, trusts).await?;
    mirror::settle(copy, &pinned).await
}

async fn one(copy: &Copy, op: u64, trusts: &Trusts) -> Result<(), Trouble> {
    if copy.config.clean == Clean::Fresh {
        provision::clone(copy, op).await?;
        return Ok(());
    }
    let pinned = copy.pinned().await?;
    empty(copy, &pinned, Some(trusts)).await?;
    mirror::settle(copy, &pinned).await
}

/// Brings a working copy, and its submodules, to the commit that its last holder left.
pub(crate) async fn empty(copy: &Copy, pinned: &str, trusts: Option<&Trusts>) -> Result<(), Trouble> {
    copy.must(NORMALISE, &[pinned, "strict", "0", ""], copy.config.command_timeout()).await?;
    if copy.config.submodules {
        submodules::put_away(copy).await?;
    }
    let (args, limit) = (rebuild(&copy.config), copy.config.command_timeout() * 2);
    let mut done = copy.ask(REBUILD_AND_PROVE, &args, limit).await?;
    if done.is_err() && copy.config.lfs {
        // The next lease brings large files again; until then their pointers will do, which need nobody else. They are not
        // what the index says that they are, so nothing is trusted.
        let mut plain = copy.clone();
        plain.config.lfs = false;
        done = plain.ask(REBUILD_AND_PROVE, &args, limit).await?.map(|_| String::new());
    }
    match trusts {
        Some(trusts) => learn(copy, done, trusts).await,
        None => learn(copy, done, &Trusts::default()).await,
    }
}

/// What `rebuild.sh` takes, for the commit that is there.
fn rebuild(config: &Config) -> Vec<&str> {
    let mut args = vec!["HEAD", config.clean.word(), "gentle", "", "", "trust", ""];
    args.extend(config.keep.iter().map(String::as_str));
    args
}

async fn learn(copy: &Copy, done: Result<String, State>, trusts: &Trusts) -> Result<(), Trouble> {
    match done {
        Ok(text) => trusts.learn(copy, Done::parse(&text).trust),
        Err(state) => {
            if let "CANNOT_REMOVE" | "CHECKOUT_FAILED" = state.reason {
                copy.doubt(&state).await?;
            }
            return Err(state.into());
        }
    }
    Ok(())
}
