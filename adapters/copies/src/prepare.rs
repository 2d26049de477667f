//! From whatever a former lease left to the commit that the next holder wants, with a proof.
//!
//! Whose fault a failure is, is never read from git's words. The remote is asked first, outside the copy: it answers (then
//! what it does not list is the request's fault) or not (then it is the provider's). When something fails later, the copy
//! is inspected and the remote asked again, and the one that is found wanting is to blame.

use crate::clean::{Note, policy};
use crate::error::{State, Trouble};
use crate::git::{Copy, NORMALISE, PROVE, REBUILD};
use crate::params::Wanted;
use crate::probe::{Depth, inspect};
use std::collections::BTreeMap;
use wharfinger_adapter::{Access, Exit, Failure, HolderWork, Output, Prepared, access};

const HEADS: &str = "+refs/heads/*:refs/remotes/origin/*";
/// Where the wanted ref is put. A name of our own cannot collide with any that the remote has or had (`feat` and `feat/x`).
const WANT: &str = "refs/wharfinger/want";

/// Makes the copy ready for this work.
pub(crate) async fn prepare(copy: &Copy, work: &HolderWork) -> Result<Prepared, Trouble> {
    let wanted = Wanted::parse(&work.params)?;
    let limit = copy.config.command_timeout();
    copy.take(work.token).await?;
    let pinned = copy.pinned().await?;
    let min = copy.config.min_free_disk_mb.to_string();
    copy.must(NORMALISE, &[&pinned, "strict", &min], limit).await?;

    let mut plan = resolve(copy, &wanted).await?;
    fetch(copy, &pinned, &wanted, &plan).await?;
    let commit = match &wanted {
        Wanted::Commit(name) => find_commit(copy, &pinned, &wanted, name, &mut plan).await?,
        _ => peel(copy, &wanted).await?,
    };

    if let Err(first) = check_out(copy, &commit, "gentle", &plan.default).await? {
        tracing::warn!(resource = %copy.resource, reason = first.reason, detail = %first.detail, "first try failed");
        // Every object anew: what is missing or spoilt here is found at the remote.
        let again = fetch_with(copy, &plan, true).await?;
        let second = match again.exit {
            Exit::Code(0) => check_out(copy, &commit, "wipe", &plan.default).await?,
            _ => Err(State { reason: first.reason, detail: format!("{}; {}", first.detail, again.complaint()) }),
        };
        if let Err(state) = second {
            copy.doubt(&state).await?;
            let text = format!("cannot prove that {} is commit {commit}: {}", copy.tree(), state.detail);
            let reason = if state.reason == "CHECKOUT_FAILED" { "PROOF_FAILED" } else { state.reason };
            return Err(Failure::resource(reason, text).into());
        }
    }
    Note::write(copy, work, &commit).await?;
    let access = [(access::PATH, copy.tree()), (access::COMMIT, commit), (access::FENCE, copy.fence())];
    Ok(Prepared { access: access.into_iter().map(|(key, value)| (key.to_string(), value)).collect::<Access>() })
}

/// Checks out and proves.
async fn check_out(copy: &Copy, commit: &str, mode: &str, default: &str) -> Result<Result<(), State>, Trouble> {
    let (limit, policy) = (copy.config.command_timeout(), policy(copy.config.clean));
    match copy.ask(REBUILD, &[commit, policy, mode, default], limit).await? {
        Ok(_) => Ok(copy.ask(PROVE, &[commit, policy], limit).await?.map(drop)),
        Err(state) => Ok(Err(state)),
    }
}

/// What to fetch.
struct Plan {
    specs: Vec<String>,
    /// The remote's default branch without `refs/heads/`; empty if it has none.
    default: String,
}

/// Finds the wanted name among the remote's refs.
async fn resolve(copy: &Copy, wanted: &Wanted) -> Result<Plan, Trouble> {
    let tries = match wanted {
        Wanted::Default => match &copy.config.default_branch {
            Some(branch) => vec![format!("refs/heads/{branch}")],
            None => vec!["HEAD".to_string()],
        },
        Wanted::Branch(name) => vec![format!("refs/heads/{name}")],
        Wanted::Tag(name) => vec![format!("refs/tags/{name}")],
        Wanted::Ref(name) if name.starts_with("refs/") => vec![name.clone()],
        Wanted::Ref(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}"), format!("refs/{name}")],
        Wanted::Commit(_) => Vec::new(),
    };
    let listing = list(copy, &tries).await?;
    let mut specs = vec![HEADS.to_string()];
    if !tries.is_empty() {
        let found: Vec<&String> = tries.iter().filter(|name| listing.refs.contains_key(*name)).collect();
        let name = match found[..] {
            [name] => name,
            [] => return Err(not_found(copy, wanted, &tries).into()),
            [one, two, ..] => {
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
        specs.push(format!("+{name}:{WANT}"));
        if name.starts_with("refs/tags/") {
            specs.push(format!("+{name}:{name}"));
        }
    }
    Ok(Plan { specs, default: listing.default.unwrap_or_default() })
}

struct Listing {
    refs: BTreeMap<String, String>,
    default: Option<String>,
}

/// Asks the remote for these refs and its `HEAD`. Nothing of the copy takes part, so a failure is the remote's.
async fn list(copy: &Copy, names: &[String]) -> Result<Listing, Trouble> {
    let limit = copy.config.command_timeout();
    let mut args = vec!["ls-remote", "--symref", "--", copy.config.repository.as_str(), "HEAD"];
    args.extend(names.iter().map(String::as_str));
    let output = copy.remote(false, &args, limit).await?;
    let why = match &output.exit {
        Exit::Code(0) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut listing = Listing { refs: BTreeMap::new(), default: None };
            for (left, name) in text.lines().filter_map(|line| line.split_once('\t')) {
                match left.strip_prefix("ref: refs/heads/") {
                    Some(branch) if name == "HEAD" => listing.default = Some(branch.to_string()),
                    Some(_) => {}
                    None => drop(listing.refs.insert(name.to_string(), left.to_string())),
                }
            }
            return Ok(listing);
        }
        Exit::TimedOut => format!("no answer within {} s", limit.as_secs()),
        _ => output.complaint(),
    };
    Err(Failure::provider(
        "REMOTE_UNREACHABLE",
        format!(
            "{} cannot be read from this host: {why}; check the address, the network and the host's credentials",
            copy.config.repository
        ),
    )
    .into())
}

/// Whether the remote answers at all; blames the provider if not.
pub(crate) async fn reach(copy: &Copy) -> Result<(), Trouble> {
    list(copy, &[]).await.map(drop)
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

async fn fetch_with(copy: &Copy, plan: &Plan, anew: bool) -> Result<Output, Trouble> {
    // Pruned first, or a branch `feat/x` could not come where `feat` was.
    let mut args =
        vec!["fetch", "--quiet", "--force", "--prune", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"];
    if anew {
        args.push("--refetch");
    }
    args.push("origin");
    args.extend(plan.specs.iter().map(String::as_str));
    copy.remote(true, &args, if anew { copy.config.clone_timeout() } else { copy.config.fetch_timeout() }).await
}

async fn fetch(copy: &Copy, pinned: &str, wanted: &Wanted, plan: &Plan) -> Result<(), Trouble> {
    let output = fetch_with(copy, plan, false).await?;
    if output.exit.success() {
        return Ok(());
    }
    blame(copy, pinned, wanted, &output).await
}

/// A fetch failed: who is to blame? Always an error.
async fn blame(copy: &Copy, pinned: &str, wanted: &Wanted, output: &Output) -> Result<(), Trouble> {
    if let Err(state) = inspect(copy, pinned, Depth::Deep).await? {
        return Err(state.into());
    }
    // Deleted or moved away since it was listed, or the remote is down now: both are said by asking again.
    resolve(copy, wanted).await?;
    let repository = &copy.config.repository;
    Err(match output.exit {
        Exit::TimedOut => Failure::provider(
            "FETCH_TIMED_OUT",
            format!(
                "a fetch from {repository} took more than {} s; raise fetch_timeout_ms of the pool",
                copy.config.fetch_timeout().as_secs()
            ),
        ),
        _ => Failure::provider(
            "FETCH_FAILED",
            format!("a fetch from {repository} failed though both ends look well: {}", output.complaint()),
        ),
    }
    .into())
}

/// The commit that the fetched name stands for; a tag is followed to it.
async fn peel(copy: &Copy, wanted: &Wanted) -> Result<String, Trouble> {
    let output = copy.git(&["rev-parse", "--quiet", "--verify", &format!("{WANT}^{{commit}}")]).await?;
    if output.exit.success() {
        return Ok(output.text());
    }
    Err(Failure::request(
        "REF_NOT_A_COMMIT",
        format!(
            "{} of {} names something that is no commit; ask for a commit",
            wanted.describe(),
            copy.config.repository
        ),
    )
    .into())
}

/// Finds a commit by its id or the beginning of it, among what was fetched; a whole id also at the remote itself.
async fn find_commit(
    copy: &Copy,
    pinned: &str,
    wanted: &Wanted,
    name: &str,
    plan: &mut Plan,
) -> Result<String, Trouble> {
    let whole = if pinned.contains("objectformat = sha256") { 64 } else { 40 };
    if name.len() != whole {
        return abbreviated(copy, wanted, name).await;
    }
    if copy.git(&["cat-file", "-e", &format!("{name}^{{commit}}")]).await?.exit.success() {
        return Ok(name.to_string());
    }
    plan.specs.push(format!("+{name}:{WANT}"));
    let output = fetch_with(copy, plan, false).await?;
    if output.exit.success() {
        return peel(copy, wanted).await;
    }
    match blame(copy, pinned, wanted, &output).await {
        // Both ends are well, and the remote does not give it: it does not have it, or does not show it.
        Err(Trouble::Failure(failure)) if failure.reason == "FETCH_FAILED" => Err(not_found(copy, wanted, &[]).into()),
        Err(other) => Err(other),
        Ok(()) => Err(not_found(copy, wanted, &[]).into()),
    }
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
