//! Refs merged onto the wanted commit, as a staging area wants it: what would be, if all of them were merged now.
//!
//! The merge is made on the host, in a repository of its own that was filled by a transport, so that each object in it was
//! hashed: a holder can forge objects in the copy and in the mirror. The commits' names, identity and times come from the
//! inputs alone, so each host makes the same ones. Then the copy fetches the result, and it is checked out and proved as any
//! other commit. No hook, no merge driver and no attribute takes part.

use crate::error::{State, StepError};
use crate::git::{MERGE, STATE_FOUND, WorkingCopy};
use crate::inspect::{Depth, inspect};
use crate::mirror::{self, Goal, Missing, Tip};
use crate::params::Wanted;
use wharfinger_adapter::{Exit, Failure};

/// What is merged: the name that the holder gave, and the commit that it stands for.
pub(crate) struct MergeRef {
    pub(crate) wanted: Wanted,
    pub(crate) commit: String,
}

/// Where objects come from, for whom the mirror lets down.
pub(crate) struct Origin<'a> {
    pub(crate) default: &'a str,
    pub(crate) offline: bool,
}

/// Merges the others onto `base` and brings the result into the copy; with `anew` every object of it again. Says its commit.
/// A merge that does not go is the request's fault.
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
                            "{} ({}) has no history in common with {base}; merge what was branched off from it",
                            other.wanted.describe(),
                            other.commit
                        ),
                    )
                    .into());
                }
                return Err(Failure::bug("UNREADABLE_MERGE", format!("merge said {text:?}")).into());
            }
            Exit::Code(STATE_FOUND) => {
                return Err(match State::parse(&text) {
                    Some(state) => state.into(),
                    None => Failure::bug("UNREADABLE_STATE", format!("merge said {text:?}")).into(),
                });
            }
            Exit::TimedOut => {
                return Err(Failure::resource(
                    "STEP_TIMED_OUT",
                    format!("a merge onto {base} was not done within {} s; raise clone_timeout_ms", limit.as_secs()),
                )
                .into());
            }
            Exit::Code(95) if !again => {
                tracing::warn!(resource = %copy.resource, %mirror, why = %output.complaint(), "the mirror is spoilt");
                again = true;
                remake_mirror(copy, git_config, base, others, from, &value("mirror").unwrap_or_default()).await?;
            }
            _ => {
                inspect(copy, git_config, Depth::Deep).await??;
                return Err(Failure::resource(
                    "MERGE_FAILED",
                    format!("a merge onto {base} does not come into {}: {}", copy.tree, output.complaint()),
                )
                .into());
            }
        }
    }
}

/// Has the mirror removed and made anew, with all that is to be merged.
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
                // Only once: the one that is there now is new.
                former = String::new();
                continue;
            }
            Err(Missing::Objects(why)) => why,
            Err(Missing::Time) => "it took too long".to_string(),
            Err(Missing::Id | Missing::Commit) => "the origin does not have it any more".to_string(),
        };
        let address = &copy.config.repository;
        return Err(Failure::provider("FETCH_FAILED", format!("cannot fetch {id} from {address} again: {why}")).into());
    }
    Ok(())
}

/// The files that a script names.
pub(crate) fn read_files(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("file\t")).map(str::to_string).collect()
}

/// The first of them, and how many more.
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
