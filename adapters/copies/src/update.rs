//! Brings one working copy, and its submodules, to the wanted commit, and proves it.

use crate::checkout::{CheckoutReport, TrustedIndexes, Warmth, check_out};
use crate::error::{State, StepError};
use crate::git::{REMOVE_FILES, WorkingCopy};
use crate::lease_file::LeaseFile;
use crate::merge::{self, MergeRef, merge};
use crate::mirror::{FirstResult, FirstStep, Goal, Listing, Tip, normalise_and_list};
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

/// The lease that gets a working copy. A submodule has none: it belongs to its parent.
#[derive(Clone, Copy)]
pub(crate) struct ForLease<'a> {
    pub(crate) work: &'a HolderWork,
    /// The working copy is the only repository of the resource: its first step also gives the resource to the lease.
    pub(crate) first: bool,
    pub(crate) trusted: &'a TrustedIndexes,
}

/// The state of an updated working copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Updated {
    /// The full id of the commit in the tree.
    pub(crate) commit: String,
    /// The full id of the commit onto which others were merged, if any were.
    pub(crate) base: Option<String>,
    pub(crate) warmth: Warmth,
    /// Number of files that the checkout wrote.
    pub(crate) written: u64,
}

/// Brings one working copy, and its submodules, to the wanted commit with the others merged onto it. `op`: a number that no other
/// call has. `depth`: the number of working copies around this one.
///
/// # Errors
/// `PROOF_FAILED` and other states of the copy (resource), and the errors of [`resolve`], [`fetch`], [`merge`] and [`lfs::load`].
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
    let mut proved = None;
    let (plan, base) = match found {
        Some(found) => found,
        None => {
            let also = full_id(&git_config, wanted).unwrap_or_default();
            let first = whose.filter(|whose| whose.first);
            let alone = first.filter(|_| merges.is_empty() && !copy.config.submodules && !copy.config.lfs);
            let halves = alone.map(|whose| LeaseFile::around(whose.work)).transpose()?;
            let onward = halves.as_ref().map(|(head, tail)| onward(copy, &also, (head, tail), &trust));
            if let Some(whose) = alone {
                // The step may change the tree.
                whose.trusted.forget_tree(copy);
            }
            let names = candidates(copy, wanted);
            let step = FirstStep {
                git_config: &git_config,
                token: first.map(|whose| whose.work.token),
                names: &names,
                also: &also,
                index: !trust.is_empty(),
                onward,
            };
            let FirstResult { listing, proved: went_on } = normalise_and_list(copy, step).await?;
            if let (Some(whose), None) = (alone, &went_on) {
                // It did not. A failure of the remote costs the next lease no proof.
                whose.trusted.learn(copy, Some(trust.clone()).filter(|trust| !trust.is_empty()));
            }
            proved = went_on;
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
    // The tree changes from here on: the entry is invalid, even if this call fails.
    if let Some(whose) = whose {
        whose.trusted.forget_tree(copy);
    }
    let mut warmth = if plan.here { Warmth::Near } else { Warmth::Fetched };
    let mut done = match proved {
        // The branches of the remote were here, and the commit was, so that nothing was fetched or merged since.
        Some(proved) if plan.fresh => proved.map(|text| CheckoutReport::parse(&text)),
        Some(_) | None => check_out(copy, &commit, "gentle", &plan.default, &trust, &note).await?,
    };
    if done.as_ref().is_err_and(|state| state.reason == "DISK_FULL") {
        // Without the former tree there may be room. Objects that are fetched again would take more of it.
        copy.try_run(REMOVE_FILES, &[], copy.config.command_timeout()).await?.ok();
        warmth = Warmth::Cold;
        done = check_out(copy, &commit, "wipe", &plan.default, "", &note).await?;
    }
    if let Err(first) = done.as_ref().map_err(Clone::clone)
        && !matches!(first.reason, "COMMIT_UNFIT" | "DISK_FULL")
    {
        tracing::warn!(resource = %copy.resource, reason = first.reason, detail = %first.detail, "the checkout failed; every object is fetched again");
        // Every object is sent again. The mirror or the remote has those that are missing or damaged here.
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
        // A host without room says nothing of the copy. The files of the checkout are removed.
        Err(state) if state.reason == "DISK_FULL" => {
            copy.try_run(REMOVE_FILES, &[], copy.config.command_timeout()).await?.ok();
            return Err(state.into());
        }
        Err(state) => {
            copy.mark_suspect(&state).await?;
            let text = format!("the adapter cannot prove that {} is commit {commit}: {}", copy.tree, state.detail);
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

/// The arguments of `go_on.sh`. `note`: the text of the lease file around the commit.
fn onward<'a>(copy: &'a WorkingCopy, id: &'a str, note: (&'a str, &'a str), trust: &'a str) -> Vec<&'a str> {
    let mut args = vec![id, note.0, note.1, copy.config.clean.word(), "gentle", "", trust, "", ""];
    args.extend(copy.config.keep.iter().map(String::as_str));
    args
}

/// Refuses a copy whose origin has another object format now: no fetch works between formats. The next check reports the copy as
/// gone, and the broker makes another.
async fn same_format(
    copy: &WorkingCopy,
    git_config: &str,
    listing: &Result<Listing, Failure>,
) -> Result<(), StepError> {
    let ours = if git_config.contains("objectformat = sha256") { "sha256" } else { "sha1" };
    match listing.as_ref().ok().and_then(Listing::format) {
        Some(format) if format != ours => {
            let detail = format!(
                "{} has {format} ids, and {} has {ours} ids; the broker makes a new copy",
                copy.config.repository, copy.tree
            );
            let state = State { reason: "ORIGIN_FORMAT", detail };
            copy.mark_suspect(&state).await?;
            Err(state.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// Brings each submodule of the commit in the tree to its commit.
fn update_submodules(parent: &WorkingCopy, op: u64, depth: usize) -> BoxFuture<'_, Result<(), StepError>> {
    async move {
        let modules = submodules::list(parent).await?;
        if !modules.is_empty() && depth >= DEPTH_MAX {
            let text = format!(
                "the commit has submodules at depth {}; a pool takes at most {DEPTH_MAX}; move them up",
                depth + 1
            );
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
        tracing::info!(resource = %copy.resource, submodule = %copy.tree, why = ?done.err(), "the submodule is damaged; it is made anew");
        submodules::remove(copy).await?;
        again = true;
    }
}
