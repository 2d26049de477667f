//! Brings one working copy, and its submodules, to the wanted commit, and proves it.

use crate::checkout::{TrustedIndexes, Warmth, check_out};
use crate::error::{State, StepError};
use crate::git::WorkingCopy;
use crate::lease_file::LeaseFile;
use crate::merge::{self, MergeRef, merge};
use crate::mirror::{Goal, Listing, Tip, normalise_and_list};
use crate::params::Wanted;
use crate::parts::{all, named};
use crate::resolve::{Plan, candidates, fetch, full_id, in_mirror, plan, pull, resolve};
use crate::submodules::Submodule;
use crate::{lfs, submodules};
use futures::future::{BoxFuture, FutureExt, join_all};
use wharfinger_adapter::{Blame, Failure, HolderWork};

/// Maximum number of working copies around a submodule.
const DEPTH_MAX: usize = 8;
/// Maximum number of submodules of one working copy that are updated at the same time.
const PARALLEL_MAX: usize = 4;

/// Whose a working copy becomes; a submodule is its parent's.
#[derive(Clone, Copy)]
pub(crate) struct ForLease<'a> {
    pub(crate) work: &'a HolderWork,
    /// It is all that the resource has, so it takes the resource for this work as well.
    pub(crate) first: bool,
    pub(crate) trusted: &'a TrustedIndexes,
}

/// What a working copy was brought to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Updated {
    /// What is checked out.
    pub(crate) commit: String,
    /// What others were merged onto, if any were.
    pub(crate) base: Option<String>,
    pub(crate) warmth: Warmth,
    /// Files that the checkout wrote.
    pub(crate) written: u64,
}

/// Brings one working copy, and its submodules, to what is wanted of it, with the others merged onto it. `op` is a number that no
/// other call has; `depth` counts the working copies around it.
pub(crate) async fn update(
    copy: &WorkingCopy,
    wanted: &Wanted,
    merges: &[Wanted],
    whose: Option<ForLease<'_>>,
    op: u64,
    depth: usize,
) -> Result<Updated, StepError> {
    let git_config = copy.git_config().await?;
    let trust = whose.and_then(|whose| whose.trusted.of(copy)).unwrap_or_default();
    let found = if depth > 0 { in_mirror(copy, &git_config, wanted).await? } else { None };
    let (plan, base) = match found {
        Some(found) => found,
        None => {
            let also = full_id(&git_config, wanted).unwrap_or_default();
            let token = whose.filter(|whose| whose.first).map(|whose| whose.work.token);
            let listing =
                normalise_and_list(copy, &git_config, token, &candidates(copy, wanted), &also, !trust.is_empty())
                    .await?;
            same_format(copy, &git_config, &listing).await?;
            let plan = plan(copy, &git_config, wanted, listing)?;
            let commit = match (&plan.tip, plan.fresh) {
                (Some(tip), true) => tip.id.clone(),
                _ => fetch(copy, &git_config, wanted, &plan).await?,
            };
            (plan, commit)
        }
    };
    let mut others = Vec::new();
    for wanted in merges {
        let plan = resolve(copy, &git_config, wanted).await?;
        let commit = fetch(copy, &git_config, wanted, &plan).await?;
        others.push(MergeRef { wanted: wanted.clone(), commit });
    }
    let from = merge::Origin { default: &plan.default, offline: plan.offline.is_some() };
    let commit = match &others[..] {
        [] => base.clone(),
        others => merge(copy, &git_config, &base, others, &from, false).await?,
    };

    if copy.config.submodules {
        submodules::park(copy).await?;
    }
    lfs::load(copy, &commit, false).await?;
    let note = match whose {
        Some(whose) if whose.first && !copy.config.submodules => LeaseFile::text(whose.work, &commit)?,
        Some(_) | None => String::new(),
    };
    // From here on it is the holder's: what was known of it is known no more, however this call ends.
    if let Some(whose) = whose {
        whose.trusted.forget_tree(copy);
    }
    let mut warmth = if plan.here { Warmth::Near } else { Warmth::Fetched };
    let mut done = check_out(copy, &commit, "gentle", &plan.default, &trust, &note).await?;
    if let Err(first) = done.as_ref().map_err(Clone::clone)
        && first.reason != "COMMIT_UNFIT"
    {
        tracing::warn!(resource = %copy.resource, reason = first.reason, detail = %first.detail, "first try failed");
        // Every object anew: what is missing or spoilt here is found in the mirror, or at the remote.
        let tip = Tip { name: base.clone(), id: base.clone(), tag: None };
        let again = Plan {
            tip: Some(tip),
            default: plan.default.clone(),
            offline: plan.offline.clone(),
            here: false,
            fresh: false,
        };
        warmth = Warmth::Cold;
        let came = match pull(copy, &git_config, wanted, &again, Goal::CopyAnew).await {
            Ok(_) if !others.is_empty() => merge(copy, &git_config, &base, &others, &from, true).await.map(drop),
            other => other.map(drop),
        };
        done = match came {
            Ok(()) => {
                lfs::load(copy, &commit, true).await?;
                check_out(copy, &commit, "wipe", &plan.default, "", &note).await?
            }
            Err(StepError::State(state)) => {
                Err(State { reason: first.reason, detail: format!("{}; {}", first.detail, state.detail) })
            }
            Err(StepError::Failure(failure)) => {
                Err(State { reason: first.reason, detail: format!("{}; {}", first.detail, failure.message) })
            }
            Err(StepError::Shell(error)) => return Err(error.into()),
        };
    }
    let done = match done {
        Ok(done) => done,
        Err(state) if state.reason == "COMMIT_UNFIT" => return Err(state.into()),
        Err(state) => {
            copy.mark_suspect(&state).await?;
            let text = format!("cannot prove that {} is commit {commit}: {}", copy.tree, state.detail);
            let reason = if state.reason == "CHECKOUT_FAILED" { "PROOF_FAILED" } else { state.reason };
            return Err(Failure::resource(reason, text).into());
        }
    };
    if done.was == commit {
        warmth = Warmth::Same;
    } else if done.was.is_empty() {
        warmth = Warmth::Cold;
    }
    if copy.config.submodules {
        update_submodules(copy, op, depth).await?;
    }
    Ok(Updated { base: (!others.is_empty()).then_some(base), commit, warmth, written: done.written })
}

/// Refuses to go on with a copy whose origin was made anew in another object format: no fetch brings it there. The check reports
/// such a copy as gone, so that another is made.
async fn same_format(
    copy: &WorkingCopy,
    git_config: &str,
    listing: &Result<Listing, Failure>,
) -> Result<(), StepError> {
    let ours = if git_config.contains("objectformat = sha256") { "sha256" } else { "sha1" };
    match listing.as_ref().ok().and_then(Listing::format) {
        Some(format) if format != ours => {
            let detail = format!(
                "{} has object names of {format}, and {} has those of {ours}; the copy is made anew",
                copy.config.repository, copy.tree
            );
            let state = State { reason: "ORIGIN_FORMAT", detail };
            copy.mark_suspect(&state).await?;
            Err(state.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Fills the submodules of the commit that is in the tree.
fn update_submodules(parent: &WorkingCopy, op: u64, depth: usize) -> BoxFuture<'_, Result<(), StepError>> {
    async move {
        let modules = submodules::list(parent).await?;
        if !modules.is_empty() && depth >= DEPTH_MAX {
            let text = format!("submodules lie more than {DEPTH_MAX} deep in each other; the pool does not go further");
            return Err(submodules::bad_commit("SUBMODULES_TOO_DEEP", text).into());
        }
        for some in modules.chunks(PARALLEL_MAX) {
            let results = join_all(some.iter().map(|module| async move {
                let copy = submodules::working_copy(parent, module);
                update_submodule(parent, &copy, module, op, depth)
                    .await
                    .map_err(|error| named(&copy, submodules::blame_parent(error, module)))
            }))
            .await;
            all(results)?;
        }
        Ok(())
    }
    .boxed()
}

async fn update_submodule(
    parent: &WorkingCopy,
    copy: &WorkingCopy,
    module: &Submodule,
    op: u64,
    depth: usize,
) -> Result<(), StepError> {
    let mut again = false;
    loop {
        let made = match submodules::move_into_place(parent, module).await? {
            true => Ok(()),
            false => submodules::clone_submodule(copy, op).await,
        };
        let done = match made {
            Ok(()) => update(copy, &Wanted::Commit(module.id.clone()), &[], None, op, depth + 1).await.map(drop),
            Err(error) => Err(error),
        };
        let spoilt = match &done {
            Err(StepError::State(_)) => true,
            Err(StepError::Failure(failure)) => failure.blame == Blame::Resource,
            Err(StepError::Shell(_)) | Ok(()) => false,
        };
        if again || !spoilt {
            return done;
        }
        tracing::info!(resource = %copy.resource, submodule = %copy.tree, why = ?done.err(), "made anew");
        submodules::remove(copy).await?;
        again = true;
    }
}
