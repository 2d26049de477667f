//! Finds the commit that a name means, and fetches it into the working copy.
//!
//! No failure is blamed by the text of git. The remote is asked first, outside the copy. If it answers, a name that it does not
//! list blames the request. If it does not answer, the provider is to blame, unless the mirror has the wanted full id. If a later
//! step fails, the copy is inspected and the remote asked again.

use crate::error::StepError;
use crate::git::{NORMALISE, WorkingCopy};
use crate::inspect::{Depth, inspect};
use crate::mirror::{self, Goal, Listing, Missing, Tip, list};
use crate::params::Wanted;
use wharfinger_adapter::{Blame, Failure};

/// The objects to fetch.
pub(crate) struct Plan {
    /// The ref or id to fetch beside the branches. `None`: an abbreviated id is searched in the branches.
    pub(crate) tip: Option<Tip>,
    /// The remote's default branch without `refs/heads/`. Empty if it has none.
    pub(crate) default: String,
    /// The failure of a remote that does not answer. The mirror may have the wanted id.
    pub(crate) offline: Option<Failure>,
    /// The copy has the objects.
    pub(crate) here: bool,
    /// The copy has the branches of the remote, too: no fetch is needed.
    pub(crate) fresh: bool,
}

/// Takes a wanted full id from the mirror, without a connection to the remote. `None` if the mirror lacks it.
pub(crate) async fn in_mirror(
    copy: &WorkingCopy,
    git_config: &str,
    wanted: &Wanted,
) -> Result<Option<(Plan, String)>, StepError> {
    let Some(id) = full_id(git_config, wanted) else { return Ok(None) };
    let min = copy.config.min_free_disk_mb.to_string();
    copy.run(NORMALISE, &[git_config, "strict", &min, ""], copy.config.command_timeout()).await?;
    let tip = Tip { name: id.clone(), id, tag: None };
    let found = mirror::pull(copy, git_config, Some(&tip), "", true, Goal::Copy).await?;
    let plan = Plan { tip: Some(tip), default: String::new(), offline: None, here: false, fresh: false };
    Ok(found.ok().flatten().map(|commit| (plan, commit)))
}

/// The full names that the remote may have for the wanted ref. None for a commit.
pub(crate) fn candidates(copy: &WorkingCopy, wanted: &Wanted) -> Vec<String> {
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

/// Lists the remote, and finds the wanted name among its refs.
pub(crate) async fn resolve(copy: &WorkingCopy, git_config: &str, wanted: &Wanted) -> Result<Plan, StepError> {
    match list(copy, &candidates(copy, wanted)).await {
        Ok(listing) => plan(copy, git_config, wanted, Ok(listing)),
        Err(StepError::Failure(failure)) => plan(copy, git_config, wanted, Err(failure)),
        Err(other) => Err(other),
    }
}

/// Finds the wanted name among the listed refs.
///
/// # Errors
/// `REF_NOT_FOUND` and `REF_AMBIGUOUS` (request), `DEFAULT_BRANCH_NOT_FOUND` (configuration), `REMOTE_UNREACHABLE` (provider).
pub(crate) fn plan(
    copy: &WorkingCopy,
    git_config: &str,
    wanted: &Wanted,
    listing: Result<Listing, Failure>,
) -> Result<Plan, StepError> {
    let names = candidates(copy, wanted);
    let listing = match listing {
        Ok(listing) => listing,
        // Only the remote knows the commit of a name. A full id needs no remote.
        Err(failure) if failure.blame == Blame::Provider => match full_id(git_config, wanted) {
            Some(id) => {
                let tip = Some(Tip { name: id.clone(), id, tag: None });
                return Ok(Plan { tip, default: String::new(), offline: Some(failure), here: true, fresh: false });
            }
            None => return Err(failure.into()),
        },
        Err(failure) => return Err(failure.into()),
    };
    let found: Vec<(&String, &String)> =
        names.iter().filter_map(|name| Some((name, listing.refs.get(name)?))).collect();
    let tip = match (wanted, &found[..]) {
        (Wanted::Commit(_), _) => full_id(git_config, wanted).map(|id| Tip { name: id.clone(), id, tag: None }),
        (_, [(name, id)]) => {
            let tag = name.starts_with("refs/tags/").then(|| name.to_string());
            Some(Tip { name: name.to_string(), id: id.to_string(), tag })
        }
        (_, []) => return Err(not_found(copy, wanted, &names).into()),
        (_, [(one, _), (two, _), ..]) => {
            return Err(Failure::request(
                "REF_AMBIGUOUS",
                format!(
                    "{} of {} is both {one} and {two}; ask for the full name of one",
                    wanted.describe(),
                    copy.config.repository
                ),
            )
            .into());
        }
    };
    // An abbreviated id is searched in the copy after the fetch.
    let here = tip.as_ref().is_none_or(|tip| listing.here.contains(&tip.id));
    let fresh = listing.fresh && tip.as_ref().is_some_and(|tip| tip.tag.is_none() && listing.commits.contains(&tip.id));
    Ok(Plan { tip, default: listing.default.unwrap_or_default(), offline: None, here, fresh })
}

/// Returns the wanted full id: 40 digits, or 64 in a copy with `sha256`. `None` for a name or an abbreviated id.
pub(crate) fn full_id(git_config: &str, wanted: &Wanted) -> Option<String> {
    let length = if git_config.contains("objectformat = sha256") { 64 } else { 40 };
    match wanted {
        Wanted::Commit(id) if id.len() == length => Some(id.clone()),
        _ => None,
    }
}

fn not_found(copy: &WorkingCopy, wanted: &Wanted, names: &[String]) -> Failure {
    let looked = if names.is_empty() { "every branch and the id itself".to_string() } else { names.join(", ") };
    let text = format!("{} is not in {} (searched {looked})", wanted.describe(), copy.config.repository);
    match wanted {
        Wanted::Default if copy.config.default_branch.is_some() => {
            Failure::configuration("DEFAULT_BRANCH_NOT_FOUND", format!("{text}; correct default_branch of the pool"))
        }
        _ => Failure::request("REF_NOT_FOUND", format!("{text}; push it, or ask for another")),
    }
}

/// Fetches the wanted objects into the copy. Returns the full id of the commit.
///
/// # Errors
/// `REF_NOT_A_COMMIT`, `COMMIT_AMBIGUOUS` and `REF_NOT_FOUND` (request), `FETCH_TIMED_OUT` and `FETCH_FAILED` (provider).
pub(crate) async fn fetch(
    copy: &WorkingCopy,
    git_config: &str,
    wanted: &Wanted,
    plan: &Plan,
) -> Result<String, StepError> {
    match (pull(copy, git_config, wanted, plan, Goal::Copy).await?, wanted) {
        (Some(commit), _) => Ok(commit),
        (None, Wanted::Commit(name)) => abbreviated(copy, wanted, name).await,
        (None, _) => {
            Err(Failure::bug("NO_COMMIT", format!("the fetch reported no commit for {}", wanted.describe())).into())
        }
    }
}

pub(crate) async fn pull(
    copy: &WorkingCopy,
    git_config: &str,
    wanted: &Wanted,
    plan: &Plan,
    goal: Goal<'_>,
) -> Result<Option<String>, StepError> {
    let missing =
        match mirror::pull(copy, git_config, plan.tip.as_ref(), &plan.default, plan.offline.is_some(), goal).await? {
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
                "{} of {} is not a commit; ask for a commit, or a tag of one",
                wanted.describe(),
                copy.config.repository
            ),
        )
        .into());
    }
    // The disk may be full now.
    inspect(copy, git_config, Depth::Quick).await??;
    // A second listing finds out whether the ref is gone or the remote is down.
    if let Some(failure) = Box::pin(resolve(copy, git_config, wanted)).await?.offline {
        return Err(failure.into());
    }
    let repository = &copy.config.repository;
    Err(match missing {
        // The remote answers and does not send the id: it lacks the id, or hides it.
        Missing::Id | Missing::Commit => not_found(copy, wanted, &[]),
        Missing::Time => Failure::provider(
            "FETCH_TIMED_OUT",
            format!(
                "the fetch from {repository} did not end within {} s; raise fetch_timeout_ms of the pool",
                copy.config.fetch_timeout().as_secs()
            ),
        ),
        Missing::Objects(why) => Failure::provider(
            "FETCH_FAILED",
            format!("the fetch from {repository} failed, though the copy is sound and the remote answers: {why}; look at the remote"),
        ),
    }
    .into())
}

async fn abbreviated(copy: &WorkingCopy, wanted: &Wanted, name: &str) -> Result<String, StepError> {
    // `rev-parse NAME` would prefer a ref of this name to the commit.
    let output = copy.git(&["rev-parse", &format!("--disambiguate={name}")]).await?;
    let mut found = Vec::new();
    for id in output.text().lines() {
        let kind = copy.git(&["cat-file", "-t", id]).await?;
        // Commits of former holders that the remote lacks do not count.
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
            format!(
                "commit {name} of {} is ambiguous: it may be {}; give more digits",
                copy.config.repository,
                found.join(", ")
            ),
        )
        .into()),
    }
}
