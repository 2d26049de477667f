//! What a build has made lands on a branch of the remote: merged into its tip, pushed with a compare, once.
//!
//! All of it is one script on the copy's host (`sh/land.sh`): it takes the copy's commit over a transport into a repository
//! of its own, so that every object is hashed, merges it with the tip of the branch there, and pushes the result if the
//! branch still has that tip. If it has moved, that is done again, a bounded number of times. Landings on one branch from
//! one host wait for each other; between hosts the remote compares.
//!
//! **Safe to repeat.** A landing has an id, which stands in the message of the commit that it makes (`Wharfinger-Landing`).
//! Before a push the branch's history is searched for it, so a landing whose answer was lost is found and not done twice.

use crate::credentials::Credentials;
use crate::error::{State, StepError};
use crate::git::{LAND, STATE_FOUND, TOOL_MISSING, mirror_of};
use crate::merge::{describe_files, read_files};
use crate::params::check_ref_name;
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Output, Shell};

/// The copy that it lands from, as its lease's access describes it.
#[derive(Clone, Debug)]
pub struct LandedFrom {
    /// The resource, which is in the path.
    pub resource: String,
    /// Absolute path of the working copy.
    pub path: String,
    /// The address to push to. From the pool's settings, never from the copy: a build can write what stands there.
    pub repository: String,
    /// The fence of the copy and the token of the lease: without the lease nothing lands.
    pub fence: Option<(String, u64)>,
    /// The directories that the pool has of the tree ([`Config::sparse`](crate::Config::sparse)); all of it if empty.
    pub sparse: Vec<String>,
    /// The file on the host with the certificates of authorities ([`crate::CA_FILE`] of the lease's access), or empty.
    pub ca_file: String,
}

/// Who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
}

impl std::str::FromStr for Author {
    type Err = String;

    /// `Name <address>`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no author; write it as in 'Ada Lovelace <ada@example.org>'");
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

/// What is to land, and how.
#[derive(Clone, Debug)]
pub struct LandRequest {
    /// The same each time that this landing is tried, and different for each other one: 1 to 200 letters, digits and `._:-`.
    pub id: String,
    /// The branch, without `refs/heads/`.
    pub target: String,
    /// The message of the commit that is made, if one is: otherwise it is made up. With a message a merge gets a commit of
    /// its own also where the branch could just be moved forward.
    pub message: Option<String>,
    /// The author of that commit: for a squash that of the last commit if absent, otherwise us.
    pub author: Option<Author>,
    /// As one commit on the tip, without the history that led to it.
    pub squash: bool,
    /// What was changed in the tree and not committed lands too, but for what git ignores.
    pub changes: bool,
    /// All but the push.
    pub dry_run: bool,
    /// What the remote wants to see; the host's own if absent.
    pub credentials: Option<Credentials>,
    /// How often it is merged with a new tip, if others push meanwhile.
    pub tries: u32,
    /// How long all of it may take, and how long it waits for others.
    pub limit: Duration,
}

impl LandRequest {
    /// A landing on this branch, with the defaults.
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

    /// Refuses what no remote could be asked.
    pub fn check(&self) -> Result<(), Failure> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if !(1..=200).contains(&self.id.len()) || !self.id.bytes().all(fits) {
            return Err(Failure::request(
                "BAD_LANDING_ID",
                format!("landing id {:?} is not 1 to 200 letters, digits and ._:-; give another", self.id),
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
            return Err(Failure::request("BAD_MESSAGE", "the message is empty or has a NUL; write one, or none"));
        }
        Ok(())
    }
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    /// It is on the branch now.
    Landed(Push),
    /// It would be, but for the dry run.
    WouldLand(Push),
    /// An earlier call with the same id has done it, with this commit.
    Already {
        /// What was pushed.
        commit: String,
    },
    /// The branch, at this tip, has all of it.
    Nothing {
        /// The branch's tip.
        tip: String,
    },
}

/// What is pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The new tip.
    pub commit: String,
    /// The tip before.
    pub onto: String,
    /// How many commits the branch gets.
    pub commits: u64,
    /// In which try.
    pub tries: u32,
    /// Changed files that stay as they were in the commit, since git passes them through a filter, and a filter is a
    /// program that the copy's holder chose.
    pub left: Vec<String>,
}

/// Why nothing landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLanded {
    /// It does not merge into the branch.
    Conflict {
        /// The branch's tip.
        tip: String,
        /// What should land.
        from: String,
        /// Where they conflict; the first 200.
        files: Vec<String>,
    },
    /// The remote does not take it: a hook, a protected branch.
    Refused {
        /// What the remote said.
        words: String,
    },
    /// Others pushed to the branch each time.
    Raced {
        /// How often it was tried.
        tries: u32,
    },
    /// Anything else; of all of them, nothing is on the branch that was not there before, as far as is known: if the host
    /// was lost, the same call tells.
    Other(Failure),
}

impl From<Failure> for NotLanded {
    fn from(failure: Failure) -> Self {
        NotLanded::Other(failure)
    }
}

impl NotLanded {
    /// Who must act, in words. `target`: the branch.
    pub fn failure(&self, target: &str) -> Failure {
        match self {
            NotLanded::Conflict { tip, from, files } => Failure::request(
                "MERGE_CONFLICT",
                format!(
                    "{from} does not merge into {target} at {tip}: conflicts in {}; bring it up to date with {target} and build again",
                    describe_files(files)
                ),
            ),
            NotLanded::Refused { words } => Failure::request(
                "PUSH_REFUSED",
                format!("the remote does not take the push to {target}: {words}; nothing landed"),
            ),
            NotLanded::Raced { tries } => Failure::provider(
                "LANDING_RACED",
                format!("others pushed to {target} in each of {tries} tries; nothing landed, try again"),
            ),
            NotLanded::Other(failure) => failure.clone(),
        }
    }
}

/// Lands it. Dropping the future kills the script on the host; the same call again then tells how far it had come.
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

/// Seconds for each of the two locks: who waits in vain should hear of it, and not be cut off.
fn lock_seconds(limit: Duration) -> u64 {
    (limit.as_secs() / 3).max(1)
}

/// The resource's directory, and the part's in its tree; empty if the tree is the copy.
fn locate(from: &LandedFrom) -> Result<(String, String), Failure> {
    let wrong = || {
        Failure::bug(
            "NO_COPY",
            format!(
                "{:?} is no path of the working copy {:?}; land from a copy of this broker",
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
                .unwrap_or_else(|| Failure::bug("UNREADABLE_STATE", format!("land said {text:?}")))
                .into());
        }
        Exit::Code(TOOL_MISSING) => {
            let text = format!("the host has no git, or a tool that landing needs: {}; install it", output.complaint());
            return Err(Failure::configuration("GIT_MISSING", text).into());
        }
        Exit::TimedOut => {
            let text =
                format!("not done within {} s; do the same again, which tells how far it had come", limit.as_secs());
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
            format!("{} has no history in common with {target} at {tip}; land on another branch", from.path),
        )
    } else if said("missing").is_some() {
        Failure::request(
            "REF_NOT_FOUND",
            format!("{address} has no branch {target}; make it first, or land on another"),
        )
    } else if let Some(path) = said("nested") {
        Failure::request(
            "NESTED_REPOSITORY",
            format!("{path} among the changes is a repository of its own; remove it, or have git ignore it"),
        )
    } else if let Some(commit) = said("cut") {
        Failure::request(
            "LANDING_NEEDS_HISTORY",
            format!(
                "the copy's history is cut off at {commit}, which {address} does not have on any branch; land from a pool without depth"
            ),
        )
    } else if let Some(words) = said("denied") {
        Failure::configuration(
            "PUSH_DENIED",
            format!("{address} can be read and not pushed to: {words}; check the right of the host's user to push"),
        )
    } else if let Some(words) = said("unreachable") {
        Failure::provider(
            "REMOTE_UNREACHABLE",
            format!(
                "{address} cannot be read from this host: {words}; check the address, the network and the credentials"
            ),
        )
    } else if let Some(who) = said("busy") {
        Failure::provider("LANDING_BUSY", format!("waited {} s for {who}; try again", lock_seconds(limit)))
    } else if let Some(now) = said("lost") {
        Failure::provider("FENCED", format!("the copy belongs to {now}: the lease is over, nothing landed"))
    } else {
        Failure::bug("UNREADABLE_LANDING", format!("land said {text:?}"))
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
