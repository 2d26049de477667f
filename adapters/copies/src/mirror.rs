//! The host's mirror of a repository: origin is asked once for what is new, and all copies on the host take it from there.
//!
//! ```text
//! <root>/mirrors/<hash of the address>/      a bare repository: branches, and what leases wanted
//! <root>/mirrors/<hash of the address>.lock  who writes
//! <root>/mirrors/<hash of the address>.use   who reads; nobody repacks or removes under them
//! ```
//!
//! Builds run as the user that owns the mirror, and can spoil it. So nothing but objects and refs is taken from one use to
//! the next, and copies take objects by a fetch, never by a link, alternates or a copy of the file: each object is hashed
//! on its way, so that what arrives is what its name says, or does not arrive. A mirror that does not give what it should
//! is removed, and made again from the origin, once. docs/adr/0009 has the reasons and the figures.

use crate::error::{State, Trouble};
use crate::git::{Copy, LIST, PULL, READY, SAID, SETTLE, TAKE, mirror_config};
use crate::params::check_ref_name;
use crate::probe::{Depth, inspect};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wharfinger_adapter::{Exit, Failure, Output};

/// What the remote says that it has.
pub(crate) struct Listing {
    /// Ids by full name: `HEAD`, and the names that were asked for.
    pub(crate) refs: BTreeMap<String, String>,
    /// What the remote's `HEAD` stands for, without `refs/heads/`.
    pub(crate) default: Option<String>,
    /// Of the ids that were asked for, those whose objects the copy has.
    pub(crate) here: BTreeSet<String>,
    /// Those of them that are commits.
    pub(crate) commits: BTreeSet<String>,
    /// The copy's branches of the remote are the remote's.
    pub(crate) fresh: bool,
    /// Any id; none if there are no refs at all.
    any: Option<String>,
}

impl Listing {
    /// Reads what `list.sh` printed.
    fn parse(text: &str) -> Self {
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
                // The remote chooses it, and it becomes part of the names of refs.
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

    /// The object format, if there is any object to tell it from.
    pub(crate) fn format(&self) -> Option<&'static str> {
        self.any.as_ref().map(|id| if id.len() == 64 { "sha256" } else { "sha1" })
    }
}

/// Asks the remote for its branches (which stay on the host), its `HEAD`, and these names. A failure is the remote's.
pub(crate) async fn list(copy: &Copy, names: &[String]) -> Result<Listing, Trouble> {
    let limit = copy.config.command_timeout();
    let args = [copy.config.repository.as_str(), &names.join("\n"), &seconds(limit), ""];
    // The limit is git's; it is the host's own end that may take a little more.
    answer(copy, &copy.raw(LIST, &args, limit + Duration::from_secs(20)).await?)
}

/// Brings the copy's `.git` to what we know, while the remote is asked the same as by [`list`]. With a token the whole resource
/// is taken for it first, and what runs in it is ended. `also` is an id to look for in the copy, or empty. With `index` the
/// index stays as it is.
pub(crate) async fn ready(
    copy: &Copy,
    pinned: &str,
    token: Option<u64>,
    names: &[String],
    also: &str,
    index: bool,
) -> Result<Result<Listing, Failure>, Trouble> {
    let limit = copy.config.command_timeout();
    let min = copy.config.min_free_disk_mb.to_string();
    let index = if index { "index" } else { "" };
    let (names, seconds) = (names.join("\n"), seconds(limit));
    let number = token.unwrap_or_default().to_string();
    let stop = ["", "set", &number, "", &copy.host_lease, &copy.host_dir, &copy.containment];
    let (script, stop) = match token {
        Some(_) => (TAKE, &stop[..]),
        None => (READY, &[][..]),
    };
    let ask = [copy.config.repository.as_str(), &names, &seconds];
    let normalise = [pinned, "strict", &min, index];
    let output = copy.raw(script, &[stop, &ask, &normalise, &[also]].concat(), limit * 3).await?;
    match output.exit {
        Exit::Code(0 | NO_ANSWER | NO_ANSWER_IN_TIME) => match answer(copy, &output) {
            Ok(listing) => Ok(Ok(listing)),
            Err(Trouble::Failure(failure)) => Ok(Err(failure)),
            Err(other) => Err(other),
        },
        _ => {
            copy.judge(script, output, limit * 3)??;
            Err(Failure::bug("UNREADABLE_STATE", "a script succeeded and failed").into())
        }
    }
}

/// Exit codes of `list.sh`.
const NO_ANSWER: i32 = 97;
const NO_ANSWER_IN_TIME: i32 = 98;

/// Reads what `list.sh` printed.
fn answer(copy: &Copy, output: &Output) -> Result<Listing, Trouble> {
    let why = match &output.exit {
        Exit::Code(0) => {
            return Ok(Listing::parse(&String::from_utf8_lossy(&output.stdout)));
        }
        Exit::Code(SAID) => {
            return Err(match State::parse(&output.text()) {
                Some(state) => state.into(),
                None => Failure::bug("UNREADABLE_STATE", format!("list said {:?}", output.text())).into(),
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
            "{} cannot be read from this host: {why}; check the address, the network and the credentials. The host's git configuration (http.sslCAInfo, insteadOf, credential.helper) does not count: use ca_file, rewrite or credentials of the pool",
            copy.config.repository
        ),
    )
    .into())
}

/// Something that is wanted beside the branches.
pub(crate) struct Tip {
    /// What the remote calls it; the id itself if it was asked for by id.
    pub(crate) name: String,
    /// The id that the remote has listed for it.
    pub(crate) id: String,
    /// The tag that the copy gets for it.
    pub(crate) tag: Option<String>,
}

/// Where it is to be when [`pull`] returns.
pub(crate) enum Goal<'a> {
    /// In the copy.
    Copy,
    /// In the copy, with every object sent again.
    CopyAnew,
    /// In the mirror, which is not to be the one of this mark, and whose own mark is put into the second.
    Mirror(&'a str, &'a mut String),
}

/// Why it is not there, when the copy is not to blame.
pub(crate) enum Missing {
    /// The remote answers, and does not give this id.
    Id,
    /// What is wanted is no commit.
    Commit,
    /// It took too long.
    Time,
    /// Objects did not come.
    Objects(String),
}

/// Brings branches and a tip into the mirror, from the origin if they are not there, and on into the copy. Says the tip's
/// commit. The list of branches is the one that [`list`] left on the host.
pub(crate) async fn pull(
    copy: &Copy,
    pinned: &str,
    tip: Option<&Tip>,
    default: &str,
    offline: bool,
    mut goal: Goal<'_>,
) -> Result<Result<Option<String>, Missing>, Trouble> {
    let limit = copy.config.fetch_timeout() + copy.config.clone_timeout();
    let mut former = match &goal {
        Goal::Mirror(former, _) => (*former).to_string(),
        Goal::Copy | Goal::CopyAnew => String::new(),
    };
    // A mirror that is removed while we are at it can let us down more than once.
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
        let head = head(copy, pinned, default);
        let mut args: Vec<&str> = head.iter().map(String::as_str).collect();
        args.extend([name, id, tag, mode, offline, &former]);
        let output = copy.raw(PULL, &args, limit).await?;
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
            Exit::Code(SAID) => {
                return Err(match State::parse(&text) {
                    Some(state) => state.into(),
                    None => Failure::bug("UNREADABLE_STATE", format!("pull said {text:?}")).into(),
                });
            }
            // Nothing is known against the mirror, so it stays; what disturbed the fetch may be over.
            Exit::Code(94) if !offline.is_empty() || tries == 0 => {
                return Ok(Err(Missing::Objects(output.complaint())));
            }
            Exit::Code(94) => {
                tracing::warn!(resource = %copy.resource, mirror = %copy.mirror(), why = %output.complaint(), "fetched again");
            }
            Exit::Code(96) => return Ok(Err(Missing::Id)),
            Exit::Code(98) | Exit::TimedOut => return Ok(Err(Missing::Time)),
            Exit::Code(99) => return Ok(Err(Missing::Commit)),
            _ => {
                // The mirror or the copy. The copy can be looked at; a mirror is cheaper made than examined.
                if !matches!(goal, Goal::Mirror(..)) {
                    inspect(copy, pinned, Depth::Deep).await??;
                }
                if tries == 0 {
                    return Ok(Err(Missing::Objects(output.complaint())));
                }
                tracing::warn!(resource = %copy.resource, mirror = %copy.mirror(), why = %output.complaint(), "the mirror is spoilt");
                former = said("mirror").unwrap_or_default();
            }
        }
    }
}

/// Repacks the mirror if that is due and nobody uses it. That it does not work is no reason to doubt a copy.
pub(crate) async fn settle(copy: &Copy, pinned: &str) -> Result<(), Trouble> {
    let head = head(copy, pinned, "");
    let args: Vec<&str> = head.iter().map(String::as_str).collect();
    copy.raw(SETTLE, &args, copy.config.fetch_timeout() + copy.config.command_timeout()).await.map(drop)
}

/// What `mirror.sh` takes.
fn head(copy: &Copy, pinned: &str, default: &str) -> [String; 7] {
    [
        copy.mirror(),
        mirror_config(pinned),
        copy.config.repository.clone(),
        default.to_string(),
        seconds(copy.config.fetch_timeout()),
        seconds(copy.config.clone_timeout()),
        copy.config.min_free_disk_mb.to_string(),
    ]
}

/// At least one: 0 would be no limit at all.
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
