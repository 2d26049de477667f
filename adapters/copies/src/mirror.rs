//! The host's mirror of a repository: it fetches from the origin, and all copies on the host fetch from it.
//!
//! ```text
//! <root>/mirrors/<hash of the address>/      a bare repository: branches, and commits that leases wanted
//! <root>/mirrors/<hash of the address>.lock  the lock of the writer
//! <root>/mirrors/<hash of the address>.use   the lock of the readers; repacking and removal wait for it
//! ```
//!
//! Builds run as the owner of the mirror, and can damage it. So each use keeps objects and refs of the mirror alone. Copies get
//! objects by a fetch, never by a link, alternates or a copy of a file: the fetch hashes each object, so no forged object arrives.
//! A mirror that lacks an object is removed, and made anew from the origin, once. docs/adr/0009 has the reasons and the figures.

use crate::error::{State, StepError};
use crate::git::{
    LIST_REFS, NORMALISE_AND_LIST, PULL, REPACK_MIRROR, STATE_FOUND, TAKE_AND_LIST, TAKE_LIST_AND_PROVE, WorkingCopy,
    mirror_config,
};
use crate::inspect::{Depth, inspect};
use crate::params::check_ref_name;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wharfinger_adapter::{Exit, Failure, Output};

/// The refs of the remote, and what the copy has of them.
pub(crate) struct Listing {
    /// Full ids by full name: of `HEAD`, and of the wanted names that the remote has.
    pub(crate) refs: BTreeMap<String, String>,
    /// The branch of the remote's `HEAD`, without `refs/heads/`.
    pub(crate) default: Option<String>,
    /// Of the listed ids, those whose objects the copy has.
    pub(crate) here: BTreeSet<String>,
    /// Of these, those of commits.
    pub(crate) commits: BTreeSet<String>,
    /// The copy's remote-tracking branches equal the branches of the remote.
    pub(crate) fresh: bool,
    /// The id of the first ref. `None` if the remote has no ref.
    any: Option<String>,
}

impl Listing {
    /// Parses the output of `list_refs.sh`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut listing = Self {
            refs: BTreeMap::new(),
            default: None,
            here: BTreeSet::new(),
            commits: BTreeSet::new(),
            fresh: false,
            any: None,
        };
        for (left, name) in text.lines().filter_map(|line| line.split_once('\t')) {
            match left.strip_prefix("ref: refs/heads/") {
                // The remote chooses the name, and it becomes a part of other refs.
                Some(branch) if name == "HEAD" && check_ref_name(branch).is_ok() => {
                    listing.default = Some(branch.to_string());
                }
                Some(_) => {}
                None if name == "any" => listing.any = Some(left.to_string()),
                None if left == "fresh" => listing.fresh = true,
                None if left == "have" => drop(listing.here.insert(name.to_string())),
                None if left == "commit" => {
                    listing.here.insert(name.to_string());
                    listing.commits.insert(name.to_string());
                }
                None => drop(listing.refs.insert(name.to_string(), left.to_string())),
            }
        }
        listing
    }

    /// The object format (`sha1` or `sha256`), by the length of an id. `None` if the remote has no ref.
    pub(crate) fn format(&self) -> Option<&'static str> {
        self.any.as_ref().map(|id| if id.len() == 64 { "sha256" } else { "sha1" })
    }
}

/// Lists the remote's `HEAD` and these names. The list of its branches stays on the host, in `meta/heads`.
///
/// # Errors
/// `REMOTE_UNREACHABLE` (provider).
pub(crate) async fn list(copy: &WorkingCopy, names: &[String]) -> Result<Listing, StepError> {
    let limit = copy.config.command_timeout();
    let args = [copy.config.repository.as_str(), &names.join("\n"), &seconds(limit), ""];
    // The script ends git at the limit; the script itself may take 20 s longer.
    read_listing(copy, &copy.output(LIST_REFS, &args, limit + Duration::from_secs(20)).await?)
}

/// The first step of a prepare.
pub(crate) struct FirstStep<'a> {
    /// The text that `.git/config` must have.
    pub(crate) git_config: &'a str,
    /// The resource is given to this token first, and processes of others are ended.
    pub(crate) token: Option<u64>,
    /// The names of refs to list, as for [`list`].
    pub(crate) names: &'a [String],
    /// One more id to look for in the copy, or empty.
    pub(crate) also: &'a str,
    /// The index stays.
    pub(crate) index: bool,
    /// The arguments of `go_on.sh`, with a token: if no fetch is needed, the step checks the commit out and proves it, too.
    pub(crate) onward: Option<Vec<&'a str>>,
}

/// The result of a [`FirstStep`].
pub(crate) struct FirstResult {
    /// The error is that of the remote.
    pub(crate) listing: Result<Listing, Failure>,
    /// The output of `prove.sh`, or the state that it found. `None` if the step ended with the listing.
    pub(crate) proved: Option<Result<String, State>>,
}

/// Brings the copy's `.git` to a known state, while the remote lists its refs as for [`list`].
pub(crate) async fn normalise_and_list(copy: &WorkingCopy, step: FirstStep<'_>) -> Result<FirstResult, StepError> {
    let limit = copy.config.command_timeout();
    let min = copy.config.min_free_disk_mb.to_string();
    let index = if step.index { "index" } else { "" };
    let (names, seconds) = (step.names.join("\n"), seconds(limit));
    let number = step.token.unwrap_or_default().to_string();
    let stop = ["", "set", &number, "", &copy.host_lease, &copy.host_dir, &copy.containment];
    let (script, stop, onward) = match (step.token, step.onward) {
        (Some(_), Some(onward)) => (TAKE_LIST_AND_PROVE, &stop[..], onward),
        (Some(_), None) => (TAKE_AND_LIST, &stop[..], Vec::new()),
        (None, _) => (NORMALISE_AND_LIST, &[][..], Vec::new()),
    };
    let limit = if onward.is_empty() { limit * 3 } else { limit * 5 };
    let ask = [copy.config.repository.as_str(), &names, &seconds];
    let normalise = [step.git_config, "strict", &min, index];
    let args = [stop, &ask, &normalise, &[step.also], &onward].concat();
    let mut output = copy.output(script, &args, limit).await?;
    if let Some(listed) = went_on(&output.stdout) {
        let rest = output.stdout.split_off(listed);
        let listing = Listing::parse(&String::from_utf8_lossy(&output.stdout));
        let proved = copy.read_output(script, Output { stdout: rest, ..output }, limit)?;
        return Ok(FirstResult { listing: Ok(listing), proved: Some(proved) });
    }
    let listing = match output.exit {
        Exit::Code(0 | NO_ANSWER | NO_ANSWER_IN_TIME) => match read_listing(copy, &output) {
            Ok(listing) => Ok(listing),
            Err(StepError::Failure(failure)) => Err(failure),
            Err(other) => return Err(other),
        },
        _ => {
            copy.read_output(script, output, limit)??;
            return Err(Failure::bug("UNREADABLE_STATE", "a step failed without a state").into());
        }
    };
    Ok(FirstResult { listing, proved: None })
}

/// The line by which `go_on.sh` reports that it goes on. No listing has it.
const ON: &[u8] = b"\non\t\n";

/// Returns the length of the listing and of the line [`ON`] behind it. `None`: the step ended with the listing.
fn went_on(stdout: &[u8]) -> Option<usize> {
    stdout.windows(ON.len()).position(|window| window == ON).map(|at| at + ON.len())
}

/// Exit code of `list_refs.sh`: the remote failed.
const NO_ANSWER: i32 = 97;
/// Exit code of `list_refs.sh`: the remote did not answer in time.
const NO_ANSWER_IN_TIME: i32 = 98;

/// Reads the exit and the output of `list_refs.sh`.
fn read_listing(copy: &WorkingCopy, output: &Output) -> Result<Listing, StepError> {
    let why = match &output.exit {
        Exit::Code(0) => {
            return Ok(Listing::parse(&String::from_utf8_lossy(&output.stdout)));
        }
        Exit::Code(STATE_FOUND) => {
            return Err(match State::parse(&output.text()) {
                Some(state) => state.into(),
                None => Failure::bug(
                    "UNREADABLE_STATE",
                    format!("step list_refs reported no known state: {:?}", output.text()),
                )
                .into(),
            });
        }
        Exit::Code(NO_ANSWER_IN_TIME) | Exit::TimedOut => {
            format!("no answer within {} s", copy.config.command_timeout().as_secs())
        }
        _ => output.complaint(),
    };
    Err(Failure::provider(
        "REMOTE_UNREACHABLE",
        format!(
            "this host cannot read {}: {why}; check the address, the network and the credentials. The host's git configuration (http.sslCAInfo, insteadOf, credential.helper) has no effect: set ca_file, rewrite or credentials in the pool",
            copy.config.repository
        ),
    )
    .into())
}

/// A commit or tag that is wanted beside the branches.
pub(crate) struct Tip {
    /// The full name of the ref on the remote, or the id if the lease named an id.
    pub(crate) name: String,
    /// The full id that the remote listed.
    pub(crate) id: String,
    /// The full name of the tag that the copy gets for it.
    pub(crate) tag: Option<String>,
}

/// The repository that has the wanted objects when [`pull`] returns.
pub(crate) enum Goal<'a> {
    /// The copy.
    Copy,
    /// The copy, with every object sent again.
    CopyAnew,
    /// The mirror. A mirror with the first mark is removed before; the mark of the present mirror is stored in the second.
    Mirror(&'a str, &'a mut String),
}

/// The reason why the objects are missing, if the copy is not to blame.
pub(crate) enum Missing {
    /// The remote answers, and does not send this id.
    Id,
    /// The wanted object is no commit.
    Commit,
    /// The time limit has passed.
    Time,
    /// The fetch failed, for this reason.
    Objects(String),
}

/// Exit code of `pull.sh`: the origin did not send the objects.
const ORIGIN_FAILED: i32 = 94;
/// Exit code of `pull.sh`: the origin does not have the id.
const ID_MISSING: i32 = 96;
/// Exit code of `pull.sh`: the time limit has passed.
const OUT_OF_TIME: i32 = 98;
/// Exit code of `pull.sh`: the wanted object is no commit.
const NO_COMMIT: i32 = 99;

/// Fetches the branches and a tip into the mirror, if it lacks them, and from there into the copy. Returns the full id of the tip's
/// commit; `None` without a tip. The branches are those that [`list`] left in `meta/heads`. With `offline` the origin is not used.
pub(crate) async fn pull(
    copy: &WorkingCopy,
    git_config: &str,
    tip: Option<&Tip>,
    default: &str,
    offline: bool,
    mut goal: Goal<'_>,
) -> Result<Result<Option<String>, Missing>, StepError> {
    let limit = copy.config.fetch_timeout() + copy.config.clone_timeout();
    let mut former = match &goal {
        Goal::Mirror(former, _) => (*former).to_string(),
        Goal::Copy | Goal::CopyAnew => String::new(),
    };
    // Another process may remove the mirror during the call, more than once.
    let mut tries = 3;
    loop {
        tries -= 1;
        let mode = match &goal {
            Goal::Copy => "into",
            Goal::CopyAnew => "anew",
            Goal::Mirror(..) => "mirror",
        };
        let (name, id) = tip.map_or(("", ""), |tip| (tip.name.as_str(), tip.id.as_str()));
        let tag = tip.and_then(|tip| tip.tag.as_deref()).unwrap_or_default();
        let offline = if offline { "offline" } else { "" };
        let head = mirror_args(copy, git_config, default);
        let mut args: Vec<&str> = head.iter().map(String::as_str).collect();
        args.extend([name, id, tag, mode, offline, &former]);
        let output = copy.output(PULL, &args, limit).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = |key: &str| {
            text.lines().filter_map(|line| line.split_once('\t')).find(|(k, _)| *k == key).map(|(_, v)| v.to_string())
        };
        match output.exit {
            Exit::Code(0) => {
                if let Goal::Mirror(_, made) = &mut goal {
                    **made = said("mirror").unwrap_or_default();
                }
                return Ok(Ok(said("commit")));
            }
            Exit::Code(STATE_FOUND) => {
                return Err(match State::parse(&text) {
                    Some(state) => state.into(),
                    None => {
                        Failure::bug("UNREADABLE_STATE", format!("step pull reported no known state: {text:?}")).into()
                    }
                });
            }
            // The mirror may be sound, so it stays. The next fetch may succeed.
            Exit::Code(ORIGIN_FAILED) if !offline.is_empty() || tries == 0 => {
                return Ok(Err(Missing::Objects(output.complaint())));
            }
            Exit::Code(ORIGIN_FAILED) => {
                tracing::warn!(resource = %copy.resource, mirror = %copy.mirror(), why = %output.complaint(), "the fetch failed and is repeated");
            }
            Exit::Code(ID_MISSING) => return Ok(Err(Missing::Id)),
            Exit::Code(OUT_OF_TIME) | Exit::TimedOut => return Ok(Err(Missing::Time)),
            Exit::Code(NO_COMMIT) => return Ok(Err(Missing::Commit)),
            _ => {
                // The mirror or the copy is damaged. An inspection of the copy decides. A new mirror is cheaper than an inspection of
                // the mirror.
                if !matches!(goal, Goal::Mirror(..)) {
                    inspect(copy, git_config, Depth::Deep).await??;
                }
                if tries == 0 {
                    return Ok(Err(Missing::Objects(output.complaint())));
                }
                tracing::warn!(resource = %copy.resource, mirror = %copy.mirror(), why = %output.complaint(), "the mirror is damaged; it is made anew");
                former = said("mirror").unwrap_or_default();
            }
        }
    }
}

/// Repacks the mirror, if that is due and no other process uses it. A failure of git is ignored: copies do not depend on it.
pub(crate) async fn repack(copy: &WorkingCopy, git_config: &str) -> Result<(), StepError> {
    let head = mirror_args(copy, git_config, "");
    let args: Vec<&str> = head.iter().map(String::as_str).collect();
    copy.output(REPACK_MIRROR, &args, copy.config.fetch_timeout() + copy.config.command_timeout()).await.map(drop)
}

/// The arguments of `mirror.sh`.
fn mirror_args(copy: &WorkingCopy, git_config: &str, default: &str) -> [String; 7] {
    [
        copy.mirror(),
        mirror_config(git_config),
        copy.config.repository.clone(),
        default.to_string(),
        seconds(copy.config.fetch_timeout()),
        seconds(copy.config.clone_timeout()),
        copy.config.min_free_disk_mb.to_string(),
    ]
}

/// The limit in whole seconds, at least 1: 0 means no limit for timeout(1).
fn seconds(limit: Duration) -> String {
    limit.as_secs().max(1).to_string()
}

#[cfg(test)]
mod tests {
    use super::Listing;

    #[test]
    fn the_remotes_default_branch_is_a_name_of_a_branch() {
        for (line, default) in [
            ("ref: refs/heads/main\tHEAD", Some("main")),
            ("ref: refs/heads/a/b\tHEAD", Some("a/b")),
            ("ref: refs/heads/../../config\tHEAD", None),
            ("ref: refs/heads/-x\tHEAD", None),
            ("ref: refs/heads/a b\tHEAD", None),
            ("ref: refs/heads/\tHEAD", None),
            ("ref: refs/heads/main\trefs/heads/other", None),
            ("ref: refs/tags/v1\tHEAD", None),
        ] {
            assert_eq!(Listing::parse(line).default.as_deref(), default, "{line:?}");
        }
    }
}
