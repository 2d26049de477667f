//! Cleans a copy between two leases: ends the processes of the former one, and removes the files that the pool does not keep.

use crate::checkout::{CheckoutReport, TrustedIndexes};
use crate::clone::clone;
use crate::config::{Clean, Config};
use crate::error::{State, StepError};
use crate::git::{CLEAN, NORMALISE, REBUILD_AND_PROVE, WorkingCopy};
use crate::parts::{Parts, all};
use crate::{mirror, submodules};
use futures::future::{BoxFuture, FutureExt};
use wharfinger_adapter::{CleanJob, ShellError};
use wharfinger_host::reaper;

/// Ends the former holder's processes, cleans the copies by the policy of the pool, and hashes the files that stay. The next
/// prepare hashes only files that changed since.
pub(crate) async fn clean(parts: &Parts, job: &CleanJob, trusted: &TrustedIndexes) -> Result<(), StepError> {
    trusted.forget(&job.resource.resource);
    let (lease, token, op) = (&job.work.lease, job.work.token, job.resource.op);
    let config = &parts.whole.config;
    // The first step compares tokens: a late call must not clean the copy of the next holder.
    if !parts.several() && config.clean != Clean::Fresh && !config.submodules && !config.lfs {
        return clean_in_one_step(&parts.list[0], lease, token, trusted).await;
    }
    parts.whole.release(lease, token).await?;
    parts.arrange(|_| true).await?;
    all(parts.each(|_, copy| clean_copy(copy, op, trusted)).await).map(drop)
}

/// Cleans the only repository in one step.
async fn clean_in_one_step(
    copy: &WorkingCopy,
    lease: &str,
    token: u64,
    trusted: &TrustedIndexes,
) -> Result<(), StepError> {
    let (git_config, token, number) = (copy.git_config().await?, token.to_string(), reaper::number(lease).to_string());
    let stop = [lease, "clear", &token, &number, &copy.host_lease, &copy.host_dir, ""];
    // No free space is required: this step frees space.
    let normalise = [git_config.as_str(), "strict", "0", ""];
    let mut args = [&stop[..], &normalise].concat();
    args.extend(rebuild_args(&copy.config));
    let done = copy.try_run(CLEAN, &args, copy.config.command_timeout() * 4).await?;
    record(copy, done, trusted).await?;
    mirror::repack(copy, &git_config).await
}

async fn clean_copy(copy: &WorkingCopy, op: u64, trusted: &TrustedIndexes) -> Result<(), StepError> {
    if copy.config.clean == Clean::Fresh {
        clone(copy, op).await?;
        return Ok(());
    }
    let git_config = copy.git_config().await?;
    clean_tree(copy, &git_config, Some(trusted)).await?;
    mirror::repack(copy, &git_config).await
}

/// Brings a working copy, and its submodules, to the commit that its last holder left in `HEAD`.
pub(crate) async fn clean_tree(
    copy: &WorkingCopy,
    git_config: &str,
    trusted: Option<&TrustedIndexes>,
) -> Result<(), StepError> {
    copy.run(NORMALISE, &[git_config, "strict", "0", ""], copy.config.command_timeout()).await?;
    if copy.config.submodules {
        clean_submodules(copy).await?;
    }
    let (args, limit) = (rebuild_args(&copy.config), copy.config.command_timeout() * 2);
    let mut done = copy.try_run(REBUILD_AND_PROVE, &args, limit).await?;
    if done.is_err() && copy.config.lfs {
        // Pointers in the place of large files need no server; the next lease loads the files again. The tree differs from the
        // index then, so the index is not trusted.
        let mut plain = copy.clone();
        plain.config.lfs = false;
        done = plain.try_run(REBUILD_AND_PROVE, &args, limit).await?.map(|_| String::new());
    }
    match trusted {
        Some(trusted) => record(copy, done, trusted).await,
        None => record(copy, done, &TrustedIndexes::default()).await,
    }
}

/// Takes the submodules out of the tree. Unless the pool keeps files, it cleans them where they are then. A submodule that cannot be
/// cleaned is removed; the next lease that wants it clones it anew.
fn clean_submodules(parent: &WorkingCopy) -> BoxFuture<'_, Result<(), StepError>> {
    async move {
        for copy in submodules::park(parent).await? {
            if parent.config.clean == Clean::Keep {
                continue;
            }
            let cleaned = async { clean_tree(&copy, &copy.git_config().await?, None).await };
            match cleaned.await {
                // The host does not answer: the state of the submodule is unknown.
                Err(StepError::Shell(error @ ShellError::Unreachable(_))) => return Err(error.into()),
                Err(error) => {
                    tracing::info!(resource = %copy.resource, submodule = %copy.tree, ?error, "dropped");
                    submodules::remove(&copy).await?;
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
    .boxed()
}

/// The arguments of `rebuild.sh` for the commit of `HEAD`.
fn rebuild_args(config: &Config) -> Vec<&str> {
    let mut args = vec!["HEAD", config.clean.word(), "gentle", "", "", "trust", ""];
    args.extend(config.keep.iter().map(String::as_str));
    args
}

async fn record(copy: &WorkingCopy, done: Result<String, State>, trusted: &TrustedIndexes) -> Result<(), StepError> {
    match done {
        Ok(text) => trusted.learn(copy, CheckoutReport::parse(&text).trust),
        Err(state) => {
            if let "CANNOT_REMOVE" | "CHECKOUT_FAILED" = state.reason {
                copy.mark_suspect(&state).await?;
            }
            return Err(state.into());
        }
    }
    Ok(())
}
