//! From whatever a former lease left to the commit that the next holder wants, with a proof.
//!
//! Whose fault a failure is, is never read from git's words. The remote is asked first, outside the copy: it answers (then
//! what it does not list is the request's fault) or not (then it is the provider's, unless a whole id is wanted and the
//! host's mirror has it). When something fails later, the copy is inspected and the remote asked again, and the one that is
//! found wanting is to blame.

use crate::checkout::{Trusts, Warmth, check_out};
use crate::clean::Note;
use crate::error::{State, Trouble};
use crate::git::Copy;
use crate::mirror::{self, Goal, Listing, Missing, Tip, list, take};
use crate::params::Wanted;
use crate::probe::{Depth, inspect};
use wharfinger_adapter::{Access, Blame, Failure, HolderWork, Prepared, access};

/// Makes the copy ready for this work.
pub(crate) async fn prepare(copy: &Copy, work: &HolderWork, trusts: &Trusts) -> Result<Prepared, Trouble> {
    let wanted = Wanted::parse(&work.params)?;
    let pinned = copy.pinned().await?;
    let trust = trusts.of(copy).unwrap_or_default();
    let also = whole(&pinned, &wanted).unwrap_or_default();
    let listing = take(copy, &pinned, work.token, &tries(copy, &wanted), &also, !trust.is_empty()).await?;
    let plan = plan(copy, &pinned, &wanted, listing)?;
    let commit = fetch(copy, &pinned, &wanted, &plan).await?;

    let note = Note::text(work, &commit)?;
    // From here on it is the holder's: what was known of it is known no more, however this call ends.
    trusts.forget(&copy.resource);
    let mut warmth = if plan.here { Warmth::Near } else { Warmth::Fetched };
    let mut done = check_out(copy, &commit, "gentle", &plan.default, &trust, &note).await?;
    if let Err(first) = done {
        tracing::warn!(resource = %copy.resource, reason = first.reason, detail = %first.detail, "first try failed");
        // Every object anew: what is missing or spoilt here is found in the mirror, or at the remote.
        let tip = Tip { name: commit.clone(), id: commit.clone(), tag: None };
        let again = Plan { tip: Some(tip), default: plan.default.clone(), offline: plan.offline.clone(), here: false };
        warmth = Warmth::Cold;
        done = match pull(copy, &pinned, &wanted, &again, Goal::CopyAnew).await {
            Ok(_) => check_out(copy, &commit, "wipe", &plan.default, "", &note).await?,
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
    let access = [
        (access::PATH, copy.tree()),
        (access::COMMIT, commit),
        (access::FENCE, copy.fence()),
        (access::WARMTH, warmth.word().to_string()),
        (access::CHANGED, done.written.to_string()),
    ];
    Ok(Prepared { access: access.into_iter().map(|(key, value)| (key.to_string(), value)).collect::<Access>() })
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
                return Ok(Plan { tip, default: String::new(), offline: Some(failure), here: true });
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
    Ok(Plan { tip, default: listing.default.unwrap_or_default(), offline: None, here })
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
