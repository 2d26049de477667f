//! Merges refs onto the wanted commit, for a staging area: the result is the state after all of these merges.
//!
//! The host merges in a separate repository, which gets its objects over a transport that hashes each: a holder can forge objects
//! in the copy and in the mirror. Names, identities and times of the merge commits follow from the inputs alone, so each host makes
//! the same commits. Then the copy fetches the result, and checks it out as any other commit, with a proof. No hook, merge driver
//! or attribute takes part.

use crate::error::{State, StepError};
use crate::git::{MERGE, STATE_FOUND, WorkingCopy};
use crate::inspect::{Depth, inspect};
use crate::mirror::{self, Goal, Missing, Tip};
use crate::params::Wanted;
use wharfinger_adapter::{Exit, Failure};

/// Exit code of `merge.sh`: the mirror did not send the commits.
const MIRROR_FAILED: i32 = 95;

/// A ref to merge: the name that the holder gave, and its commit.
pub(crate) struct MergeRef {
    pub(crate) wanted: Wanted,
    pub(crate) commit: String,
}

/// How to make the mirror anew, if it lacks an object.
pub(crate) struct Origin<'a> {
    pub(crate) default: &'a str,
    pub(crate) offline: bool,
}

/// Merges the others onto `base`, in their order, and brings the result into the copy. With `anew` every object is sent again.
/// Returns the full id of the result.
///
/// # Errors
/// `MERGE_CONFLICT` and `UNRELATED_HISTORIES` (request), `FETCH_FAILED` (provider), `STEP_TIMED_OUT` and `MERGE_FAILED` (resource).
pub(crate) async fn merge(
    copy: &WorkingCopy,
    git_config: &str,
    base: &str,
    others: &[MergeRef],
    from: &Origin<'_>,
    anew: bool,
) -> Result<String, StepError> {
    let limit = copy.config.clone_timeout() + copy.config.command_timeout();
    let format = if base.len() == 64 { "sha256" } else { "sha1" };
    let (mirror, mode) = (copy.mirror(), if anew { "anew" } else { "into" });
    let lock_seconds = copy.config.clone_timeout().as_secs().max(1).to_string();
    let pairs: Vec<String> = others.iter().map(|other| format!("{} {}", other.commit, other.wanted.name())).collect();
    let mut args = vec![mirror.as_str(), format, mode, lock_seconds.as_str(), base];
    args.extend(pairs.iter().map(String::as_str));
    let mut again = false;
    loop {
        let output = copy.output(MERGE, &args, limit).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = |key: &str| text.lines().filter_map(|line| line.split_once('\t')).find(|(k, _)| *k == key);
        let value = |key: &str| said(key).map(|(_, value)| value.to_string());
        let with = |key: &str| value(key).and_then(|number| others.get(number.parse::<usize>().ok()?));
        match output.exit {
            Exit::Code(0) => {
                if let Some(commit) = value("commit") {
                    return Ok(commit);
                }
                if let Some(other) = with("conflict") {
                    return Err(conflict(base, others, other, &read_files(&text)).into());
                }
                if let Some(other) = with("unrelated") {
                    return Err(Failure::request(
                        "UNRELATED_HISTORIES",
                        format!(
                            "{} ({}) has no history in common with {base}; ask for a merge of related branches",
                            other.wanted.describe(),
                            other.commit
                        ),
                    )
                    .into());
                }
                return Err(
                    Failure::bug("UNREADABLE_MERGE", format!("step merge printed no known result: {text:?}")).into()
                );
            }
            Exit::Code(STATE_FOUND) => {
                return Err(match State::parse(&text) {
                    Some(state) => state.into(),
                    None => {
                        Failure::bug("UNREADABLE_STATE", format!("step merge printed no known result: {text:?}")).into()
                    }
                });
            }
            Exit::TimedOut => {
                return Err(Failure::resource(
                    "STEP_TIMED_OUT",
                    format!(
                        "the merge onto {base} did not end within {} s; raise clone_timeout_ms of the pool",
                        limit.as_secs()
                    ),
                )
                .into());
            }
            Exit::Code(MIRROR_FAILED) if !again => {
                tracing::warn!(resource = %copy.resource, %mirror, why = %output.complaint(), "the mirror is damaged; it is made anew");
                again = true;
                remake_mirror(copy, git_config, base, others, from, &value("mirror").unwrap_or_default()).await?;
            }
            _ => {
                inspect(copy, git_config, Depth::Deep).await??;
                return Err(Failure::resource(
                    "MERGE_FAILED",
                    format!(
                        "{} cannot fetch the merge onto {base}: {}; look at the host's disk",
                        copy.tree,
                        output.complaint()
                    ),
                )
                .into());
            }
        }
    }
}

/// Removes the mirror and makes it anew, with all commits of the merge.
async fn remake_mirror(
    copy: &WorkingCopy,
    git_config: &str,
    base: &str,
    others: &[MergeRef],
    from: &Origin<'_>,
    former: &str,
) -> Result<(), StepError> {
    let mut former = former.to_string();
    for id in std::iter::once(base).chain(others.iter().map(|other| other.commit.as_str())) {
        let tip = Tip { name: id.to_string(), id: id.to_string(), tag: None };
        let mut made = String::new();
        let goal = Goal::Mirror(&former, &mut made);
        let why = match mirror::pull(copy, git_config, Some(&tip), from.default, from.offline, goal).await? {
            Ok(_) => {
                // The mirror is new now; it is not removed again.
                former = String::new();
                continue;
            }
            Err(Missing::Objects(why)) => why,
            Err(Missing::Time) => "it did not end in time".to_string(),
            Err(Missing::Id | Missing::Commit) => "the origin no longer has it".to_string(),
        };
        let address = &copy.config.repository;
        return Err(Failure::provider(
            "FETCH_FAILED",
            format!("the host cannot fetch {id} from {address} again: {why}; look at the remote"),
        )
        .into());
    }
    Ok(())
}

/// Returns the files in the output of a script: the lines `file`, a tab and a name.
pub(crate) fn read_files(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("file\t")).map(str::to_string).collect()
}

/// Names the first 20 files, and the number of the others.
pub(crate) fn describe_files(files: &[String]) -> String {
    const SHOWN: usize = 20;
    let mut text = files.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if files.len() > SHOWN {
        text.push_str(&format!(" and {} more", files.len() - SHOWN));
    }
    text
}

fn conflict(base: &str, others: &[MergeRef], with: &MergeRef, files: &[String]) -> Failure {
    let before: Vec<&str> =
        others.iter().take_while(|other| !std::ptr::eq(*other, with)).map(|other| other.wanted.name()).collect();
    let onto = if before.is_empty() { String::new() } else { format!(" with {} merged", before.join(", ")) };
    Failure::request(
        "MERGE_CONFLICT",
        format!(
            "{} ({}) does not merge into {base}{onto}: conflicts in {}; merge it by hand and ask for the result",
            with.wanted.describe(),
            with.commit,
            describe_files(files)
        ),
    )
}
