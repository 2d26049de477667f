//! From whatever a former lease left to the commit that the next holder wants, with a proof.
//!
//! Whose fault a failure is, is never read from git's words. The remote is asked first, outside the copy: it answers (then
//! what it does not list is the request's fault) or not (then it is the provider's, unless a whole id is wanted and the
//! host's mirror has it). When something fails later, the copy is inspected and the remote asked again, and the one that is
//! found wanting is to blame.

use crate::checkout::{Trusts, Warmth, check_out};
use crate::clean::Note;
use crate::error::{State, Trouble};
use crate::git::{Copy, EMPTY, NORMALISE, PARK};
use crate::merge::{self, Other, merge};
use crate::mirror::{self, Goal, Listing, Missing, Tip, list, ready};
use crate::params::{Asked, Wanted};
use crate::parts::{Parts, all};
use crate::probe::{Depth, inspect};
use crate::{lfs, sparse, submodules};
use std::collections::BTreeMap;
use wharfinger_adapter::{Access, Blame, Failure, HolderWork, Prepared, access};

/// The key in a lease's access for the pool's `ca_file`, which its landing needs too.
pub const CA_FILE: &str = "ca_file";

/// Makes the copies ready for this work.
pub(crate) async fn prepare(parts: &Parts, work: &HolderWork, trusts: &Trusts) -> Result<Prepared, Trouble> {
    let asked = Asked::parse(&work.params, &parts.names(), parts.default)?;
    if let (Some(depth), true) = (parts.whole.config.depth, asked.merges.iter().any(|merges| !merges.is_empty())) {
        let text = format!(
            "a merge needs all history, and the copies of this pool have {depth} commits of it (depth); merge in another pool, or before"
        );
        return Err(Failure::request("MERGE_NEEDS_HISTORY", text).into());
    }
    let wants: Vec<bool> = asked.needed.iter().map(|needed| *needed || !asked.strict).collect();
    let mut inside = wants.clone();
    if parts.several() {
        parts.whole.take(work.token).await?;
        parts.arrange(|at| wants[at]).await?;
    }
    let (wanted, merges, wants) = (&asked.wanted, &asked.merges, &wants);
    let for_whom = For { work, first: !parts.several(), trusts };
    let mut results = parts
        .each(|at, copy| async move {
            match wants[at] {
                true => one(copy, &wanted[at], &merges[at], Some(for_whom), work.token, 0).await.map(Some),
                false => Ok(None),
            }
        })
        .await;
    for (at, result) in results.iter_mut().enumerate() {
        // The lease can do without it.
        if let Err(Trouble::Failure(failure)) = result
            && failure.blame == Blame::Provider
            && !asked.needed[at]
        {
            tracing::warn!(resource = %parts.whole.resource, reason = failure.reason, why = %failure.message, "put away");
            inside[at] = false;
            *result = Ok(None);
        }
    }
    let done: Vec<Option<Checked>> = all(results)?;
    if inside != *wants {
        parts.arrange(|at| inside[at]).await?;
    }
    let main = done[parts.default].clone().unwrap_or_default();
    if parts.several() || parts.whole.config.submodules {
        Note::write(&parts.whole, work, &main.commit).await?;
    }
    let mut access = Access::from([
        (access::PATH.to_string(), parts.list[parts.default].tree()),
        (access::COMMIT.to_string(), main.commit),
        (access::FENCE.to_string(), parts.whole.fence()),
        (access::REPOSITORY.to_string(), parts.list[parts.default].config.repository.clone()),
        (access::WARMTH.to_string(), main.warmth.word().to_string()),
        (access::CHANGED.to_string(), main.written.to_string()),
    ]);
    access.extend(parts.whole.config.ca_file.clone().map(|file| (CA_FILE.to_string(), file)));
    access.extend(main.base.map(|base| (access::BASE.to_string(), base)));
    access.extend(parts.whole.config.depth.map(|depth| (access::DEPTH.to_string(), depth.to_string())));
    access.extend(sparse_of(&parts.list[parts.default]).map(|dirs| (access::SPARSE.to_string(), dirs)));
    if parts.several() {
        access.insert(access::ROOT.to_string(), parts.whole.tree());
        for (copy, checked) in parts.list.iter().zip(done) {
            let Some(checked) = checked else { continue };
            access.insert(format!("{}.{}", access::COMMIT, copy.part), checked.commit);
            access.insert(format!("{}.{}", access::REPOSITORY, copy.part), copy.config.repository.clone());
            access.extend(checked.base.map(|base| (format!("{}.{}", access::BASE, copy.part), base)));
            access.extend(sparse_of(copy).map(|dirs| (format!("{}.{}", access::SPARSE, copy.part), dirs)));
        }
    }
    Ok(Prepared { near: near(work, &access), access })
}

/// What there is of it, where that is not all.
fn sparse_of(copy: &Copy) -> Option<String> {
    Some(sparse::lines(&copy.config.sparse).replace('\n', ",")).filter(|dirs| !dirs.is_empty())
}

/// What a later lease may want that is here already: these commits, and whatever stands near to what this lease named.
fn near(work: &HolderWork, access: &Access) -> BTreeMap<String, String> {
    let mut near = work.params.clone();
    let commits = access.iter().filter(|(key, _)| key.split('.').next() == Some(access::COMMIT));
    near.extend(commits.map(|(key, commit)| match key.split_once('.') {
        Some((_, part)) => (format!("{part}.commit"), commit.clone()),
        None => (key.clone(), commit.clone()),
    }));
    near
}

/// Whose a working copy becomes; a submodule is its parent's.
#[derive(Clone, Copy)]
pub(crate) struct For<'a> {
    work: &'a HolderWork,
    /// It is all that the resource has, so it takes the resource for this work as well.
    first: bool,
    trusts: &'a Trusts,
}

/// What a working copy was brought to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    /// What is checked out.
    commit: String,
    /// What others were merged onto, if any were.
    base: Option<String>,
    warmth: Warmth,
    /// Files that the checkout wrote.
    written: u64,
}

/// Brings one working copy, and its submodules, to what is wanted of it, with the others merged onto it. `op` is a number that no
/// other call has; `depth` counts the working copies around it.
pub(crate) async fn one(
    copy: &Copy,
    wanted: &Wanted,
    merges: &[Wanted],
    whose: Option<For<'_>>,
    op: u64,
    depth: usize,
) -> Result<Checked, Trouble> {
    let limit = copy.config.command_timeout();
    let pinned = copy.pinned().await?;
    let trust = whose.and_then(|whose| whose.trusts.of(copy)).unwrap_or_default();
    let at_hand = if depth > 0 { at_hand(copy, &pinned, wanted).await? } else { None };
    let (plan, base) = match at_hand {
        Some(found) => found,
        None => {
            let also = whole(&pinned, wanted).unwrap_or_default();
            let token = whose.filter(|whose| whose.first).map(|whose| whose.work.token);
            let listing = ready(copy, &pinned, token, &tries(copy, wanted), &also, !trust.is_empty()).await?;
            same_format(copy, &pinned, &listing).await?;
            let plan = plan(copy, &pinned, wanted, listing)?;
            let commit = match (&plan.tip, plan.fresh) {
                (Some(tip), true) => tip.id.clone(),
                _ => fetch(copy, &pinned, wanted, &plan).await?,
            };
            (plan, commit)
        }
    };
    let mut others = Vec::new();
    for wanted in merges {
        let plan = resolve(copy, &pinned, wanted).await?;
        let commit = fetch(copy, &pinned, wanted, &plan).await?;
        others.push(Other { wanted: wanted.clone(), commit });
    }
    let from = merge::From { default: &plan.default, offline: plan.offline.is_some() };
    let commit = match &others[..] {
        [] => base.clone(),
        others => merge(copy, &pinned, &base, others, &from, false).await?,
    };

    if copy.config.submodules {
        copy.must(PARK, &[], limit).await?;
    }
    lfs::bring(copy, &commit, false).await?;
    let note = match whose {
        Some(whose) if whose.first && !copy.config.submodules => Note::text(whose.work, &commit)?,
        Some(_) | None => String::new(),
    };
    // From here on it is the holder's: what was known of it is known no more, however this call ends.
    if let Some(whose) = whose {
        whose.trusts.forget_tree(copy);
    }
    let mut warmth = if plan.here { Warmth::Near } else { Warmth::Fetched };
    let mut done = check_out(copy, &commit, "gentle", &plan.default, &trust, &note).await?;
    if done.as_ref().is_err_and(|state| state.reason == "DISK_FULL") {
        // Without the former tree there may be room. Objects that were brought anew would take more of it.
        copy.ask(EMPTY, &[], limit).await?.ok();
        warmth = Warmth::Cold;
        done = check_out(copy, &commit, "wipe", &plan.default, "", &note).await?;
    }
    if let Err(first) = done.as_ref().map_err(Clone::clone)
        && !matches!(first.reason, "COMMIT_UNFIT" | "DISK_FULL")
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
        let came = match pull(copy, &pinned, wanted, &again, Goal::CopyAnew).await {
            Ok(_) if !others.is_empty() => merge(copy, &pinned, &base, &others, &from, true).await.map(drop),
            other => other.map(drop),
        };
        done = match came {
            Ok(()) => {
                lfs::bring(copy, &commit, true).await?;
                check_out(copy, &commit, "wipe", &plan.default, "", &note).await?
            }
            Err(Trouble::State(state)) => {
                Err(State { reason: first.reason, detail: format!("{}; {}", first.detail, state.detail) })
            }
            Err(Trouble::Failure(failure)) => {
                Err(State { reason: first.reason, detail: format!("{}; {}", first.detail, failure.message) })
            }
            Err(Trouble::Shell(error)) => return Err(error.into()),
        };
    }
    let done = match done {
        Ok(done) => done,
        Err(state) if state.reason == "COMMIT_UNFIT" => return Err(state.into()),
        // The host's want of room says nothing of the copy. What the checkout wrote is no use to anybody.
        Err(state) if state.reason == "DISK_FULL" => {
            copy.ask(EMPTY, &[], limit).await?.ok();
            return Err(state.into());
        }
        Err(state) => {
            copy.doubt(&state).await?;
            let text = format!("cannot prove that {} is commit {commit}: {}", copy.tree(), state.detail);
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
        submodules::fill(copy, op, depth).await?;
    }
    Ok(Checked { base: (!others.is_empty()).then_some(base), commit, warmth, written: done.written })
}

/// Refuses to go on with a copy whose origin was made anew in another object format: no fetch brings it there. The check reports
/// such a copy as gone, so that another is made.
async fn same_format(copy: &Copy, pinned: &str, listing: &Result<Listing, Failure>) -> Result<(), Trouble> {
    let ours = if pinned.contains("objectformat = sha256") { "sha256" } else { "sha1" };
    match listing.as_ref().ok().and_then(Listing::format) {
        Some(format) if format != ours => {
            let detail = format!(
                "{} has object names of {format}, and {} has those of {ours}; the copy is made anew",
                copy.config.repository,
                copy.tree()
            );
            let state = State { reason: "ORIGIN_FORMAT", detail };
            copy.doubt(&state).await?;
            Err(state.into())
        }
        Some(_) | None => Ok(()),
    }
}

/// What to fetch.
struct Plan {
    /// `None`: the branches are enough, what is wanted will be found in them.
    tip: Option<Tip>,
    /// The remote's default branch without `refs/heads/`; empty if it has none.
    default: String,
    /// The remote does not answer, for this reason; what is wanted may be in the mirror.
    offline: Option<Failure>,
    /// The copy has the objects.
    here: bool,
    /// It has all that a fetch would bring.
    fresh: bool,
}

/// A submodule's commit has one meaning only. What the mirror has of it is there without a word to the remote.
async fn at_hand(copy: &Copy, pinned: &str, wanted: &Wanted) -> Result<Option<(Plan, String)>, Trouble> {
    let Some(id) = whole(pinned, wanted) else { return Ok(None) };
    let min = copy.config.min_free_disk_mb.to_string();
    copy.must(NORMALISE, &[pinned, "strict", &min, ""], copy.config.command_timeout()).await?;
    let tip = Tip { name: id.clone(), id, tag: None };
    let found = mirror::pull(copy, pinned, Some(&tip), "", true, Goal::Copy).await?;
    let plan = Plan { tip: Some(tip), default: String::new(), offline: None, here: false, fresh: false };
    Ok(found.ok().flatten().map(|commit| (plan, commit)))
}

/// The names by which the remote may know what is wanted.
fn tries(copy: &Copy, wanted: &Wanted) -> Vec<String> {
    match wanted {
        Wanted::Default => match &copy.config.default_branch {
            Some(branch) => vec![format!("refs/heads/{branch}")],
            None => vec!["HEAD".to_string()],
        },
        Wanted::Branch(name) => vec![format!("refs/heads/{name}")],
        Wanted::Tag(name) => vec![format!("refs/tags/{name}")],
        Wanted::Ref(name) if name.starts_with("refs/") => vec![name.clone()],
        Wanted::Ref(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}"), format!("refs/{name}")],
        Wanted::Commit(_) => Vec::new(),
    }
}

/// Asks the remote again, and finds the wanted name among its refs.
async fn resolve(copy: &Copy, pinned: &str, wanted: &Wanted) -> Result<Plan, Trouble> {
    match list(copy, &tries(copy, wanted)).await {
        Ok(listing) => plan(copy, pinned, wanted, Ok(listing)),
        Err(Trouble::Failure(failure)) => plan(copy, pinned, wanted, Err(failure)),
        Err(other) => Err(other),
    }
}

/// Finds the wanted name among the remote's refs.
fn plan(copy: &Copy, pinned: &str, wanted: &Wanted, listing: Result<Listing, Failure>) -> Result<Plan, Trouble> {
    let tries = tries(copy, wanted);
    let listing = match listing {
        Ok(listing) => listing,
        // A name means what the remote says that it means. An id means the same everywhere.
        Err(failure) if failure.blame == Blame::Provider => match whole(pinned, wanted) {
            Some(id) => {
                let tip = Some(Tip { name: id.clone(), id, tag: None });
                return Ok(Plan { tip, default: String::new(), offline: Some(failure), here: true, fresh: false });
            }
            None => return Err(failure.into()),
        },
        Err(failure) => return Err(failure.into()),
    };
    let found: Vec<(&String, &String)> =
        tries.iter().filter_map(|name| Some((name, listing.refs.get(name)?))).collect();
    let tip = match (wanted, &found[..]) {
        (Wanted::Commit(_), _) => whole(pinned, wanted).map(|id| Tip { name: id.clone(), id, tag: None }),
        (_, [(name, id)]) => {
            let tag = name.starts_with("refs/tags/").then(|| name.to_string());
            Some(Tip { name: name.to_string(), id: id.to_string(), tag })
        }
        (_, []) => return Err(not_found(copy, wanted, &tries).into()),
        (_, [(one, _), (two, _), ..]) => {
            return Err(Failure::request(
                "REF_AMBIGUOUS",
                format!(
                    "{} of {} is both {one} and {two}; ask for one by its full name",
                    wanted.describe(),
                    copy.config.repository
                ),
            )
            .into());
        }
    };
    // Of an abbreviated id nobody knows yet; it is looked for among what is here.
    let here = tip.as_ref().is_none_or(|tip| listing.here.contains(&tip.id));
    let fresh = listing.fresh && tip.as_ref().is_some_and(|tip| tip.tag.is_none() && listing.commits.contains(&tip.id));
    Ok(Plan { tip, default: listing.default.unwrap_or_default(), offline: None, here, fresh })
}

/// The wanted commit, if it was given by its whole id in the copy's format.
fn whole(pinned: &str, wanted: &Wanted) -> Option<String> {
    let length = if pinned.contains("objectformat = sha256") { 64 } else { 40 };
    match wanted {
        Wanted::Commit(id) if id.len() == length => Some(id.clone()),
        _ => None,
    }
}

fn not_found(copy: &Copy, wanted: &Wanted, tries: &[String]) -> Failure {
    let looked = if tries.is_empty() { "every branch and the id itself".to_string() } else { tries.join(", ") };
    let text = format!("{} is not in {} (looked for {looked})", wanted.describe(), copy.config.repository);
    match wanted {
        Wanted::Default if copy.config.default_branch.is_some() => {
            Failure::configuration("DEFAULT_BRANCH_NOT_FOUND", format!("{text}; mend default_branch of the pool"))
        }
        _ => Failure::request("REF_NOT_FOUND", format!("{text}; push it first, or ask for another")),
    }
}

/// Brings what is wanted into the copy, and says which commit it is.
async fn fetch(copy: &Copy, pinned: &str, wanted: &Wanted, plan: &Plan) -> Result<String, Trouble> {
    match (pull(copy, pinned, wanted, plan, Goal::Copy).await?, wanted) {
        (Some(commit), _) => Ok(commit),
        (None, Wanted::Commit(name)) => abbreviated(copy, wanted, name).await,
        (None, _) => Err(Failure::bug("NO_COMMIT", format!("nothing was said of {}", wanted.describe())).into()),
    }
}

async fn pull(
    copy: &Copy,
    pinned: &str,
    wanted: &Wanted,
    plan: &Plan,
    goal: Goal<'_>,
) -> Result<Option<String>, Trouble> {
    let missing =
        match mirror::pull(copy, pinned, plan.tip.as_ref(), &plan.default, plan.offline.is_some(), goal).await? {
            Ok(commit) => return Ok(commit),
            Err(missing) => missing,
        };
    if let Some(failure) = &plan.offline {
        return Err(failure.clone().into());
    }
    if let Missing::Commit = missing {
        return Err(Failure::request(
            "REF_NOT_A_COMMIT",
            format!(
                "{} of {} names something that is no commit; ask for a commit",
                wanted.describe(),
                copy.config.repository
            ),
        )
        .into());
    }
    // A disk that has filled up meanwhile, say.
    inspect(copy, pinned, Depth::Quick).await??;
    // Deleted or moved away since it was listed, or the remote is down now: both are said by asking again.
    if let Some(failure) = Box::pin(resolve(copy, pinned, wanted)).await?.offline {
        return Err(failure.into());
    }
    let repository = &copy.config.repository;
    Err(match missing {
        // The remote is well and does not give it: it does not have it, or does not show it.
        Missing::Id | Missing::Commit => not_found(copy, wanted, &[]),
        Missing::Time => Failure::provider(
            "FETCH_TIMED_OUT",
            format!(
                "a fetch from {repository} took more than {} s; raise fetch_timeout_ms of the pool",
                copy.config.fetch_timeout().as_secs()
            ),
        ),
        Missing::Objects(why) => Failure::provider(
            "FETCH_FAILED",
            format!("a fetch from {repository} failed though both ends look well: {why}"),
        ),
    }
    .into())
}

async fn abbreviated(copy: &Copy, wanted: &Wanted, name: &str) -> Result<String, Trouble> {
    // Not `rev-parse name`: a ref of this name would win over the commit.
    let output = copy.git(&["rev-parse", &format!("--disambiguate={name}")]).await?;
    let mut found = Vec::new();
    for id in output.text().lines() {
        let kind = copy.git(&["cat-file", "-t", id]).await?;
        // What a former holder made here and the remote does not have cannot be meant, nor make a name ambiguous.
        let contains = ["for-each-ref", "--count=1", "--format=x", "--contains", id, "refs/remotes/origin"];
        if kind.text() == "commit" && !copy.git(&contains).await?.text().is_empty() {
            found.push(id.to_string());
        }
    }
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(not_found(copy, wanted, &[]).into()),
        _ => Err(Failure::request(
            "COMMIT_AMBIGUOUS",
            format!("commit {name} of {} may be any of {}; give more digits", copy.config.repository, found.join(", ")),
        )
        .into()),
    }
}
