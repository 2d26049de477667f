//! Between two leases: nothing of the former one may run, and only what the pool keeps may stay.

use crate::checkout::{Done, Trusts};
use crate::clone::clone;
use crate::config::{Clean, Config};
use crate::error::{State, Trouble};
use crate::git::{CLEAN, Copy, NORMALISE, REBUILD_AND_PROVE};
use crate::parts::{Parts, all};
use crate::{mirror, submodules};
use futures::future::{BoxFuture, FutureExt};
use wharfinger_adapter::{CleanJob, ShellError, reaper};

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
    let stop = [lease, "clear", &token, &number, &copy.host_lease, &copy.host_dir];
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
        clone(copy, op).await?;
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
        clean_submodules(copy).await?;
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

/// Takes the submodules out of the tree. Unless the pool keeps files, it cleans them where they are then. A submodule that cannot be
/// cleaned is removed; the next lease that wants it clones it anew.
fn clean_submodules(parent: &Copy) -> BoxFuture<'_, Result<(), Trouble>> {
    async move {
        for copy in submodules::park(parent).await? {
            if parent.config.clean == Clean::Keep {
                continue;
            }
            let cleaned = async { empty(&copy, &copy.pinned().await?, None).await };
            match cleaned.await {
                // The host does not answer: the state of the submodule is unknown.
                Err(Trouble::Shell(error @ ShellError::Unreachable(_))) => return Err(error.into()),
                Err(trouble) => {
                    tracing::info!(resource = %copy.resource, submodule = %copy.at, ?trouble, "dropped");
                    submodules::remove(&copy).await?;
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
    .boxed()
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
