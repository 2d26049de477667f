//! Lands the result of a build on a branch of the remote: merges it into the tip, and pushes it by compare-and-swap, once.
//!
//! One script on the copy's host (`sh/land.sh`) does all of it. It fetches the copy's commit into a separate repository over a
//! transport that hashes each object. It merges the commit with the tip of the branch, and pushes the result if the branch still has
//! that tip (`--force-with-lease`, git-push(1)). If the branch has moved, it repeats that, at most [`LandRequest::tries`] times.
//! Landings from one host on one branch wait for each other; between hosts the remote compares.
//!
//! **Safe to repeat.** The message of the commit has the id of the landing (`Wharfinger-Landing`). Before a push the script searches
//! the history of the branch for the id: a landing whose answer was lost is found and not repeated.

use crate::credentials::Credentials;
use crate::error::{State, StepError};
use crate::git::{LAND, STATE_FOUND, TOOL_MISSING, mirror_of};
use crate::merge::{describe_files, read_files};
use crate::params::check_ref_name;
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Output, Shell};

/// The copy from which a result lands, as the access of its lease describes it.
#[derive(Clone, Debug)]
pub struct LandedFrom {
    /// Id of the resource. It is a part of `path`.
    pub resource: String,
    /// Absolute path of the working copy.
    pub path: String,
    /// The address to which the result is pushed. It comes from the pool's settings, never from the copy, which a build can write.
    pub repository: String,
    /// Path of the copy's fence, and the token of the lease. If the fence has another token, nothing lands.
    pub fence: Option<(String, u64)>,
    /// The directories in the tree ([`Config::sparse`](crate::Config::sparse)). The whole commit if empty.
    pub sparse: Vec<String>,
    /// The PEM file with certificate authorities on the host ([`crate::CA_FILE`] of the lease's access), or empty.
    pub ca_file: String,
}

/// The author of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Name of the author.
    pub name: String,
    /// E-mail address of the author.
    pub email: String,
}

impl std::str::FromStr for Author {
    type Err = String;

    /// Parses `Name <address>`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not an author; write a name and an address: 'Ada Lovelace <ada@example.org>'");
        let (name, rest) = text.split_once('<').ok_or_else(wrong)?;
        let email = rest.trim_end().strip_suffix('>').ok_or_else(wrong)?;
        let (name, email) = (name.trim(), email.trim());
        let fits = |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_control() || "<>".contains(c));
        if fits(name) && fits(email) {
            Ok(Self { name: name.to_string(), email: email.to_string() })
        } else {
            Err(wrong())
        }
    }
}

/// A request to land a result.
#[derive(Clone, Debug)]
pub struct LandRequest {
    /// Id of the landing: 1 to 200 letters, digits and `._:-`. Repeated calls of one landing have the same id; each landing has
    /// another.
    pub id: String,
    /// The branch, without `refs/heads/`.
    pub target: String,
    /// Message of the commit that the landing creates. If absent, the landing writes one. With a message, a commit is created even
    /// if the branch could be fast-forwarded.
    pub message: Option<String>,
    /// Author of that commit. If absent: the author of the last commit for a squash, otherwise `Wharfinger`.
    pub author: Option<Author>,
    /// Lands one commit on the tip, without the commits of the copy.
    pub squash: bool,
    /// Lands the uncommitted changes in the tree, too, except files that git ignores.
    pub changes: bool,
    /// Does everything except the push.
    pub dry_run: bool,
    /// Credentials for the remote. The host's own if absent.
    pub credentials: Option<Credentials>,
    /// Maximum number of merges, if others push in between.
    pub tries: u32,
    /// Maximum time of the landing, with its waits for other landings.
    pub limit: Duration,
}

impl LandRequest {
    /// Returns a request for this branch, with the defaults: 10 tries, 900 s.
    pub fn new(id: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            target: target.into(),
            message: None,
            author: None,
            squash: false,
            changes: false,
            dry_run: false,
            credentials: None,
            tries: 10,
            limit: Duration::from_secs(900),
        }
    }

    /// Checks the request, before a command runs.
    ///
    /// # Errors
    /// `BAD_LANDING_ID`, `BAD_REF_NAME` and `BAD_MESSAGE` (request); `BAD_CREDENTIALS` (configuration).
    pub fn check(&self) -> Result<(), Failure> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if !(1..=200).contains(&self.id.len()) || !self.id.bytes().all(fits) {
            return Err(Failure::request(
                "BAD_LANDING_ID",
                format!("landing id {:?} is not 1 to 200 letters, digits and ._:-; choose another", self.id),
            ));
        }
        let target = self.target.strip_prefix("refs/heads/").unwrap_or(&self.target);
        check_ref_name(target).map_err(|why| {
            Failure::request("BAD_REF_NAME", format!("branch {:?} {why}; give a name that git allows", self.target))
        })?;
        if let Some(credentials) = &self.credentials {
            credentials.readable()?;
        }
        if self.message.as_ref().is_some_and(|text| text.trim().is_empty() || text.contains('\0')) {
            return Err(Failure::request(
                "BAD_MESSAGE",
                "the message is empty or has a NUL character; write a text, or leave it out",
            ));
        }
        Ok(())
    }
}

/// The result of a landing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    /// The result is on the branch now.
    Landed(Push),
    /// The result would land without `dry_run`.
    WouldLand(Push),
    /// An earlier call with the same id has landed this commit.
    Already {
        /// Full id of the pushed commit.
        commit: String,
    },
    /// The branch has all of it already.
    Nothing {
        /// Full id of the branch's tip.
        tip: String,
    },
}

/// A push to the branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Full id of the new tip.
    pub commit: String,
    /// Full id of the former tip.
    pub onto: String,
    /// Number of commits that the branch gets.
    pub commits: u64,
    /// Number of tries, from 1.
    pub tries: u32,
    /// Changed files that do not land, because git passes them through a filter: a program that the holder chose. At most 200.
    pub left: Vec<String>,
}

/// The reason why nothing landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLanded {
    /// The result conflicts with the branch.
    Conflict {
        /// Full id of the branch's tip.
        tip: String,
        /// Full id of the commit to land.
        from: String,
        /// The first 200 files in conflict.
        files: Vec<String>,
    },
    /// The remote refuses the push: by a hook, or because the branch is protected.
    Refused {
        /// The message of the remote.
        words: String,
    },
    /// Others pushed to the branch before each push.
    Raced {
        /// Number of tries.
        tries: u32,
    },
    /// Another failure. Nothing landed, as far as known. If the host was lost, the same call finds out.
    Other(Failure),
}

impl From<Failure> for NotLanded {
    fn from(failure: Failure) -> Self {
        NotLanded::Other(failure)
    }
}

impl NotLanded {
    /// Returns the failure with the party that must act. `target`: the branch.
    pub fn failure(&self, target: &str) -> Failure {
        match self {
            NotLanded::Conflict { tip, from, files } => Failure::request(
                "MERGE_CONFLICT",
                format!(
                    "{from} conflicts with {target} at {tip} in {}; merge {target} into it and build again",
                    describe_files(files)
                ),
            ),
            NotLanded::Refused { words } => Failure::request(
                "PUSH_REFUSED",
                format!("the remote refuses the push to {target}: {words}; nothing landed"),
            ),
            NotLanded::Raced { tries } => Failure::provider(
                "LANDING_RACED",
                format!("others pushed to {target} during each of {tries} tries; nothing landed; try again"),
            ),
            NotLanded::Other(failure) => failure.clone(),
        }
    }
}

/// Lands the result. Dropping the future ends the script on the host; the same call finds out then how far it got.
///
/// # Errors
/// Reasons of [`NotLanded::Other`]: those of [`LandRequest::check`]; `UNRELATED_HISTORIES`, `REF_NOT_FOUND`, `NESTED_REPOSITORY` and
/// `LANDING_NEEDS_HISTORY` (request); `PUSH_DENIED` and `GIT_MISSING` (configuration); `REMOTE_UNREACHABLE`, `LANDING_BUSY`,
/// `LANDING_TIMED_OUT` and `FENCED` (provider); states of the copy (resource).
pub async fn land(shell: &dyn Shell, from: &LandedFrom, request: &LandRequest) -> Result<Landing, NotLanded> {
    request.check()?;
    let (dir, part) = locate(from)?;
    let words: Vec<&str> = [(request.squash, "squash"), (request.changes, "changes"), (request.dry_run, "dry")]
        .into_iter()
        .filter_map(|(wanted, word)| wanted.then_some(word))
        .collect();
    let (fence, token) = match &from.fence {
        Some((path, token)) => (path.as_str(), token.to_string()),
        None => ("", String::new()),
    };
    let target = request.target.strip_prefix("refs/heads/").unwrap_or(&request.target);
    let tries = request.tries.max(1).to_string();
    let lock_seconds = lock_seconds(request.limit).to_string();
    let mirror = mirror_of(&dir, &from.repository);
    let (name, email) = request.author.as_ref().map_or(("", ""), |author| (&author.name, &author.email));
    let message = request.message.as_deref().unwrap_or_default().trim();
    let args = [
        from.repository.as_str(),
        target,
        &request.id,
        &words.join(" "),
        &tries,
        &lock_seconds,
        &mirror,
        fence,
        &token,
        name,
        email,
        message,
    ];
    let notes = if part.is_empty() { format!("{dir}/meta") } else { format!("{dir}/parts/{part}") };
    let sparse = crate::sparse::lines(&from.sparse);
    let mut command =
        Command::new(LAND.argv(&[&dir, &from.resource, &from.path, &notes, "", &sparse, "", &from.ca_file], &args))
            .timeout(request.limit);
    if let Some(credentials) = &request.credentials {
        let credentials = credentials.clone().bound_to([from.repository.as_str()]);
        credentials.validate([from.repository.as_str()]).map_err(crate::credentials::failure)?;
        if let Some(secret) = credentials.input(&from.repository, request.limit)? {
            command = command.stdin(secret.into_bytes());
        }
    }
    let output = shell.run(command).await.map_err(|error| Failure::from(StepError::Shell(error)))?;
    read(from, target, request.limit, &output)
}

/// Maximum wait for each of the two locks, in seconds: the landing reports a busy lock before its own limit.
fn lock_seconds(limit: Duration) -> u64 {
    (limit.as_secs() / 3).max(1)
}

/// Returns the directory of the resource, and that of the part in its tree. The second is empty if the tree is the copy.
fn locate(from: &LandedFrom) -> Result<(String, String), Failure> {
    let wrong = || {
        Failure::bug(
            "NO_COPY",
            format!(
                "{:?} is not a path of the working copy {:?}; land from a copy of this broker",
                from.path, from.resource
            ),
        )
    };
    let inner = format!("/{}/tree", from.resource);
    let at = from.path.find(&inner).filter(|_| !from.resource.is_empty() && from.path.starts_with('/'));
    let end = at.ok_or_else(wrong)? + inner.len();
    if !(from.path.len() == end || from.path[end..].starts_with('/')) || from.path.split('/').any(|part| part == "..") {
        return Err(wrong());
    }
    let part = from.path[end..].trim_start_matches('/');
    Ok((from.path[..end - "/tree".len()].to_string(), part.to_string()))
}

fn read(from: &LandedFrom, target: &str, limit: Duration, output: &Output) -> Result<Landing, NotLanded> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let address = &from.repository;
    match &output.exit {
        Exit::Code(0) => {}
        Exit::Code(STATE_FOUND) => {
            let state = State::parse(&text).map(Failure::from);
            return Err(state
                .unwrap_or_else(|| {
                    Failure::bug("UNREADABLE_STATE", format!("step land printed no known result: {text:?}"))
                })
                .into());
        }
        Exit::Code(TOOL_MISSING) => {
            let text = format!(
                "the host has no git, or lacks a tool that a landing needs: {}; install it",
                output.complaint()
            );
            return Err(Failure::configuration("GIT_MISSING", text).into());
        }
        Exit::TimedOut => {
            let text = format!(
                "the landing did not end within {} s; repeat it with the same id, which finds out how far it got",
                limit.as_secs()
            );
            return Err(Failure::provider("LANDING_TIMED_OUT", text).into());
        }
        other => {
            let text = format!("landing from {} ended with {other:?}: {}", from.path, output.complaint());
            return Err(Failure::resource("LANDING_FAILED", text).into());
        }
    }
    let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
    let get = |key: &str| lines.iter().find(|(k, _)| *k == key).map(|(_, value)| (*value).to_string());
    let number = |key: &str| get(key).and_then(|value| value.parse().ok()).unwrap_or_default();
    let push = |commit: String| Push {
        commit,
        onto: get("onto").unwrap_or_default(),
        commits: number("count"),
        tries: u32::try_from(number("tries")).unwrap_or(u32::MAX),
        left: lines.iter().filter(|(key, _)| *key == "left").map(|(_, value)| (*value).to_string()).collect(),
    };
    if let Some(commit) = get("landed") {
        return Ok(Landing::Landed(push(commit)));
    }
    if let Some(commit) = get("would") {
        return Ok(Landing::WouldLand(push(commit)));
    }
    if let Some(commit) = get("already") {
        return Ok(Landing::Already { commit });
    }
    if let Some(tip) = get("contained") {
        return Ok(Landing::Nothing { tip });
    }
    if let Some(tip) = get("conflict") {
        return Err(NotLanded::Conflict { tip, from: get("from").unwrap_or_default(), files: read_files(&text) });
    }
    if let Some(words) = get("refused") {
        return Err(NotLanded::Refused { words: words.trim().to_string() });
    }
    if get("raced").is_some() {
        return Err(NotLanded::Raced { tries: u32::try_from(number("raced")).unwrap_or(u32::MAX) });
    }
    let said = |key: &str| get(key).map(|words| words.trim().to_string());
    let failure = if let Some(tip) = said("unrelated") {
        Failure::request(
            "UNRELATED_HISTORIES",
            format!("{} has no history in common with {target} at {tip}; land on a related branch", from.path),
        )
    } else if said("missing").is_some() {
        Failure::request("REF_NOT_FOUND", format!("{address} has no branch {target}; create it, or land on another"))
    } else if let Some(path) = said("nested") {
        Failure::request(
            "NESTED_REPOSITORY",
            format!("the changes have another repository in {path}; remove it, or add it to .gitignore"),
        )
    } else if let Some(commit) = said("cut") {
        Failure::request(
            "LANDING_NEEDS_HISTORY",
            format!(
                "the history of the copy ends at {commit}, which no branch of {address} has; land from a pool without depth"
            ),
        )
    } else if let Some(words) = said("denied") {
        Failure::configuration(
            "PUSH_DENIED",
            format!(
                "{address} refuses the push, though it can be read: {words}; give the credentials the right to push"
            ),
        )
    } else if let Some(words) = said("unreachable") {
        Failure::provider(
            "REMOTE_UNREACHABLE",
            format!("this host cannot read {address}: {words}; check the address, the network and the credentials"),
        )
    } else if let Some(who) = said("busy") {
        Failure::provider("LANDING_BUSY", format!("the landing waited {} s for {who}; try again", lock_seconds(limit)))
    } else if let Some(now) = said("lost") {
        Failure::provider("FENCED", format!("the lease is over, and nothing landed: the fence of the copy has {now}"))
    } else {
        Failure::bug("UNREADABLE_LANDING", format!("step land printed no known result: {text:?}"))
    };
    Err(failure.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_are_read() {
        assert_eq!(
            "Ada Lovelace <ada@example.org>".parse(),
            Ok(Author { name: "Ada Lovelace".into(), email: "ada@example.org".into() })
        );
        for wrong in ["", "Ada", "<a@b>", "Ada <>", "Ada <a@b", "A\nB <a@b>", "A <a@b> x", "A <a<b>"] {
            assert!(wrong.parse::<Author>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn requests_are_checked_before_anything_runs() {
        let reason = |request: &LandRequest| request.check().expect_err("wrong").reason;
        assert_eq!(LandRequest::new("cli-1:2.3_x", "refs/heads/main").check(), Ok(()));
        for id in ["", "a b", "a\nb", "a,b", &"x".repeat(201)] {
            assert_eq!(reason(&LandRequest::new(id, "main")), "BAD_LANDING_ID");
        }
        for branch in ["", "-f", "a:b", "a..b", "*"] {
            assert_eq!(reason(&LandRequest::new("x", branch)), "BAD_REF_NAME", "{branch}");
        }
        let empty = LandRequest { message: Some(" \n".into()), ..LandRequest::new("x", "main") };
        assert_eq!(reason(&empty), "BAD_MESSAGE");
    }

    #[test]
    fn the_resource_is_found_in_the_path() {
        let of = |path: &str| {
            let from = LandedFrom {
                resource: "res_1".into(),
                path: path.into(),
                repository: String::new(),
                fence: None,
                sparse: Vec::new(),
                ca_file: String::new(),
            };
            locate(&from).ok()
        };
        assert_eq!(of("/srv/copies/res_1/tree"), Some(("/srv/copies/res_1".into(), String::new())));
        assert_eq!(of("/srv/copies/res_1/tree/lib"), Some(("/srv/copies/res_1".into(), "lib".into())));
        for wrong in [
            "",
            "/srv/res_2/tree",
            "/srv/res_1/treetop",
            "srv/res_1/tree",
            "/srv/res_1/tree/../x",
            "/srv/res_1/tree/..",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
