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

/// What to fetch.
pub(crate) struct Plan {
    /// `None`: the branches are enough, what is wanted will be found in them.
    pub(crate) tip: Option<Tip>,
    /// The remote's default branch without `refs/heads/`; empty if it has none.
    pub(crate) default: String,
    /// The remote does not answer, for this reason; what is wanted may be in the mirror.
    pub(crate) offline: Option<Failure>,
    /// The copy has the objects.
    pub(crate) here: bool,
    /// It has all that a fetch would bring.
    pub(crate) fresh: bool,
}

/// A submodule's commit has one meaning only. What the mirror has of it is there without a word to the remote.
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

/// The names by which the remote may know what is wanted.
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

/// Asks the remote again, and finds the wanted name among its refs.
pub(crate) async fn resolve(copy: &WorkingCopy, git_config: &str, wanted: &Wanted) -> Result<Plan, StepError> {
    match list(copy, &candidates(copy, wanted)).await {
        Ok(listing) => plan(copy, git_config, wanted, Ok(listing)),
        Err(StepError::Failure(failure)) => plan(copy, git_config, wanted, Err(failure)),
        Err(other) => Err(other),
    }
}

/// Finds the wanted name among the remote's refs.
pub(crate) fn plan(
    copy: &WorkingCopy,
    git_config: &str,
    wanted: &Wanted,
    listing: Result<Listing, Failure>,
) -> Result<Plan, StepError> {
    let names = candidates(copy, wanted);
    let listing = match listing {
        Ok(listing) => listing,
        // A name means what the remote says that it means. An id means the same everywhere.
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
pub(crate) fn full_id(git_config: &str, wanted: &Wanted) -> Option<String> {
    let length = if git_config.contains("objectformat = sha256") { 64 } else { 40 };
    match wanted {
        Wanted::Commit(id) if id.len() == length => Some(id.clone()),
        _ => None,
    }
}

fn not_found(copy: &WorkingCopy, wanted: &Wanted, names: &[String]) -> Failure {
    let looked = if names.is_empty() { "every branch and the id itself".to_string() } else { names.join(", ") };
    let text = format!("{} is not in {} (looked for {looked})", wanted.describe(), copy.config.repository);
    match wanted {
        Wanted::Default if copy.config.default_branch.is_some() => {
            Failure::configuration("DEFAULT_BRANCH_NOT_FOUND", format!("{text}; mend default_branch of the pool"))
        }
        _ => Failure::request("REF_NOT_FOUND", format!("{text}; push it first, or ask for another")),
    }
}

/// Brings what is wanted into the copy, and says which commit it is.
pub(crate) async fn fetch(
    copy: &WorkingCopy,
    git_config: &str,
    wanted: &Wanted,
    plan: &Plan,
) -> Result<String, StepError> {
    match (pull(copy, git_config, wanted, plan, Goal::Copy).await?, wanted) {
        (Some(commit), _) => Ok(commit),
        (None, Wanted::Commit(name)) => abbreviated(copy, wanted, name).await,
        (None, _) => Err(Failure::bug("NO_COMMIT", format!("nothing was said of {}", wanted.describe())).into()),
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
                "{} of {} names something that is no commit; ask for a commit",
                wanted.describe(),
                copy.config.repository
            ),
        )
        .into());
    }
    // A disk that has filled up meanwhile, say.
    inspect(copy, git_config, Depth::Quick).await??;
    // Deleted or moved away since it was listed, or the remote is down now: both are said by asking again.
    if let Some(failure) = Box::pin(resolve(copy, git_config, wanted)).await?.offline {
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

async fn abbreviated(copy: &WorkingCopy, wanted: &Wanted, name: &str) -> Result<String, StepError> {
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
