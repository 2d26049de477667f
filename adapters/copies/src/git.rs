//! Commands on one copy's host, hardened: every git that this crate runs goes through here.
//!
//! The commands are POSIX shell scripts (`src/sh`), so that one step is one round trip to the host. Arguments reach them
//! as positional parameters, never as shell text. What all of them set, and why, stands in `prelude.sh`.

use crate::address::check_root;
use crate::config::Config;
use crate::error::{State, Trouble};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Output, ResourceJob, Shell, access, containment, reaper, sweep};

/// Exit code by which a script says that its output is a [`State`].
pub(crate) const SAID: i32 = 93;
/// What the shell says of a program that is not there.
pub(crate) const NOT_FOUND: i32 = 127;

const PRELUDE: &str = include_str!("sh/prelude.sh");

/// A script of `src/sh`.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    /// For messages.
    name: &'static str,
    /// It talks to the remote, and reads from its standard input what the remote wants to see.
    remote: bool,
    /// It ends processes.
    ends: bool,
    text: &'static str,
}

impl Script {
    /// The command that runs it. `at`: what the prelude takes.
    pub(crate) fn argv(&self, at: &[&str], args: &[&str]) -> Vec<String> {
        let library = if self.ends { reaper::PROCESSES } else { "" };
        let text = format!("{PRELUDE}\n{library}\n{}", self.text);
        let mut argv = vec!["/bin/sh".to_string(), "-c".to_string(), text, "wharfinger".to_string()];
        argv.extend(at.iter().chain(args).map(|arg| (*arg).to_string()));
        argv
    }
}

macro_rules! scripts {
    ($($constant:ident = $file:literal $($more:literal)*;)*) => {
        $(pub(crate) const $constant: Script = Script {
            name: concat!($file $(, "+", $more)*),
            remote: matches!($file.as_bytes(), b"credentials") $(|| matches!($more.as_bytes(), b"credentials"))*,
            ends: matches!($file.as_bytes(), b"stop"),
            text: concat!(include_str!(concat!("sh/", $file, ".sh")) $(, include_str!(concat!("sh/", $more, ".sh")))*),
        };)*
    };
}

scripts! {
    ARRANGE = "arrange";
    BEGIN = "begin";
    CLEAN = "stop" "normalise" "convert" "rebuild" "prove";
    CLONE = "credentials" "clone";
    DESTROY = "destroy";
    DROP = "drop";
    EMPTY = "empty";
    GIT = "git";
    INSPECT = "inspect";
    INSTALL = "install";
    LAND = "credentials" "scratch" "land";
    LFS = "credentials" "lfs";
    LIST = "credentials" "ask" "list";
    MERGE = "scratch" "merge";
    MODULES = "modules";
    NORMALISE = "normalise";
    NOTE = "note";
    PARK = "park";
    PLACE = "place";
    PULL = "credentials" "mirror" "pull";
    READY = "credentials" "ask" "normalise" "list";
    REBUILD_AND_PROVE = "convert" "rebuild" "prove";
    SETTLE = "mirror" "settle";
    STOP = "stop";
    TAKE = "stop" "credentials" "ask" "normalise" "list";
}

/// What the broker keeps of a copy, as JSON in [`wharfinger_adapter::Provisioned::handle`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handle {
    /// The tree.
    pub(crate) path: String,
    /// What it, or its default part, was cloned from.
    pub(crate) repository: String,
    /// `sha1` or `sha256`. Kept here and not read from the copy, whose holders can write everything in it.
    pub(crate) object_format: String,
    /// The same for each part, by its directory, where there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) parts: BTreeMap<String, String>,
}

/// One git working copy on its host: all of a resource's tree, a part of it, or a submodule. See [`crate::parts`].
#[derive(Clone)]
pub(crate) struct Copy {
    pub(crate) shell: Arc<dyn Shell>,
    /// Absolute directory of the resource: `tree` and `meta` lie in it.
    pub(crate) dir: String,
    /// The working copy, absolute.
    pub(crate) at: String,
    /// The directory of our notes on it.
    pub(crate) notes: String,
    /// How messages call it; empty if it is all there is.
    pub(crate) part: String,
    pub(crate) resource: String,
    /// A file on the host, for a copy that lies outside its host's directory: who sweeps what that host's resource left
    /// finds the copy by it. Empty for one that lies inside.
    pub(crate) note: String,
    /// The lease that the resource has on its host, or empty.
    pub(crate) host_lease: String,
    /// The scratch directory of its host, or empty.
    pub(crate) host_dir: String,
    /// What the host's pool asks for a slot, as `stop.sh` takes it.
    pub(crate) containment: String,
    /// `sha1` or `sha256`, as far as the broker knows.
    pub(crate) format: Option<String>,
    /// The pool's settings, with `repository` and `default_branch` being this one's.
    pub(crate) config: Config,
}

impl Copy {
    /// Finds out where the job's resource lies.
    pub(crate) fn of(job: &ResourceJob, config: &Config, handle: Option<&Handle>) -> Result<Self, Failure> {
        let Some(parent) = &job.parent else {
            return Err(Failure::bug(
                "NO_PARENT",
                format!("working copy {} came without the host it lies on", job.resource),
            ));
        };
        let safe = job.resource.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        // "mirrors" lies among the copies.
        if job.resource.is_empty() || !safe || job.resource.starts_with('-') || job.resource == "mirrors" {
            return Err(Failure::bug(
                "BAD_RESOURCE_ID",
                format!("resource id {:?} is not safe in a file name", job.resource),
            ));
        }
        // A copy stays where it was made, also when the pool's root is changed meanwhile.
        let dir = match handle.and_then(|handle| handle.path.strip_suffix("/tree")) {
            Some(dir) => dir.to_string(),
            None => {
                let base = match (&config.root, parent.access.get(access::PATH)) {
                    (Some(root), _) => root.trim_end_matches('/').to_string(),
                    (None, Some(path)) => format!("{}/copies", path.trim_end_matches('/')),
                    (None, None) => {
                        return Err(Failure::configuration(
                            "NO_ROOT",
                            format!(
                                "host {} has no path to put working copies in; set root in the pool",
                                parent.resource
                            ),
                        ));
                    }
                };
                format!("{base}/{}", job.resource)
            }
        };
        check_root("root", &dir).map_err(|problem| problem.into_failure("BAD_SETTING"))?;
        let note = match parent.access.get(access::PATH) {
            Some(path) if !dir.starts_with(&format!("{}/", path.trim_end_matches('/'))) => {
                format!("{}/copy.{}", sweep::beside(path), job.resource)
            }
            Some(_) | None => String::new(),
        };
        Ok(Self {
            shell: Arc::clone(&parent.shell),
            note,
            host_lease: parent.lease.clone(),
            host_dir: parent.access.get(access::PATH).cloned().unwrap_or_default(),
            containment: containment::words(&parent.access),
            at: format!("{dir}/tree"),
            notes: format!("{dir}/meta"),
            part: String::new(),
            dir,
            resource: job.resource.clone(),
            format: handle.map(|handle| handle.object_format.clone()),
            config: config.clone(),
        })
    }

    /// The directory that holders get.
    pub(crate) fn tree(&self) -> String {
        self.at.clone()
    }

    /// A file of our own on it, which lies outside of it.
    pub(crate) fn meta(&self, name: &str) -> String {
        format!("{}/{name}", self.notes)
    }

    /// The host's mirror of the repository: beside the copies, so that it is there for all of them. Another repository
    /// with the same hash would only be fetched in turn, for a mirror's configuration is written before each use.
    pub(crate) fn mirror(&self) -> String {
        match self.config.depth {
            // What is cut off for some would be missing for the others.
            Some(depth) => mirror_of(&self.dir, &format!("{} {depth}", self.config.repository)),
            None => mirror_of(&self.dir, &self.config.repository),
        }
    }

    /// The whole of `.git/config`, as it must be before git is run in the copy.
    pub(crate) async fn pinned(&self) -> Result<String, Trouble> {
        let format = match &self.format {
            Some(format) => format.clone(),
            None => self.note("format").await?.unwrap_or_default(),
        };
        Ok(self.pinned_in(&format))
    }

    /// The same, in this object format.
    pub(crate) fn pinned_in(&self, format: &str) -> String {
        let mut text = pinned(&self.config.repository, format);
        if self.config.submodules {
            // So that a holder's `git submodule` sees those that are there.
            text.push_str("[submodule]\n\tactive = .\n");
        }
        if !self.config.sparse.is_empty() {
            // So that a holder's git takes what is not there for meant.
            text.push_str("[core]\n\tsparseCheckout = true\n\tsparseCheckoutCone = true\n[index]\n\tsparse = false\n");
        }
        if self.config.lfs {
            // The filters for a holder's git; ours is told by the prelude. Git-lfs adds the version where it is missing.
            text.push_str("[filter \"lfs\"]\n\tprocess = git-lfs filter-process\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\trequired = true\n[lfs]\n\trepositoryformatversion = 0\n");
        }
        text
    }

    /// Runs a script and hands back all there is to know.
    pub(crate) async fn raw(&self, script: Script, args: &[&str], limit: Duration) -> Result<Output, Trouble> {
        let large = if self.config.lfs { crate::lfs::endpoint(&self.config.repository) } else { String::new() };
        let sparse = crate::sparse::lines(&self.config.sparse);
        let depth = self.config.depth.map(|depth| depth.to_string()).unwrap_or_default();
        let ca = self.config.ca_file.clone().unwrap_or_default();
        let at = [&self.dir, &self.resource, &self.at, &self.notes, &large, &sparse, &depth, &ca];
        let argv = script.argv(&at.map(String::as_str), args);
        let mut command = Command::new(argv).timeout(limit);
        if let (true, Some(credentials)) = (script.remote, &self.config.credentials)
            && let Some(secret) = credentials.input(&self.config.repository, limit)?
        {
            command = command.stdin(secret.into_bytes());
        }
        let output = self.shell.run(command).await?;
        tracing::debug!(resource = %self.resource, script = script.name, exit = ?output.exit, "ran");
        if output.exit == Exit::Code(NOT_FOUND) {
            return Err(Failure::configuration(
                "GIT_MISSING",
                format!(
                    "the host has no git, or a tool that {} needs is missing: {}; install git 2.36 or newer",
                    script.name,
                    output.complaint()
                ),
            )
            .into());
        }
        Ok(output)
    }

    /// Runs a script that says in what state it found the copy.
    pub(crate) async fn ask(
        &self,
        script: Script,
        args: &[&str],
        limit: Duration,
    ) -> Result<Result<String, State>, Trouble> {
        self.judge(script, self.raw(script, args, limit).await?, limit)
    }

    /// What such a script said.
    pub(crate) fn judge(
        &self,
        script: Script,
        output: Output,
        limit: Duration,
    ) -> Result<Result<String, State>, Trouble> {
        match &output.exit {
            Exit::Code(0) => Ok(Ok(output.text())),
            Exit::Code(SAID) => match State::parse(&String::from_utf8_lossy(&output.stdout)) {
                Some(state) => Ok(Err(state)),
                None => Err(Failure::bug("UNREADABLE_STATE", format!("{} said {:?}", script.name, output.text())).into()),
            },
            Exit::TimedOut => Err(Failure::resource(
                "STEP_TIMED_OUT",
                format!("step {} on {} was not done within {} s; look at the host's load and disk, or raise the pool's limit", script.name, self.at, limit.as_secs()),
            )
            .into()),
            other => Err(Failure::resource(
                "STEP_FAILED",
                format!("step {} on {} ended with {other:?}: {}", script.name, self.at, output.complaint()),
            )
            .into()),
        }
    }

    /// Runs a script that must find all well.
    pub(crate) async fn must(&self, script: Script, args: &[&str], limit: Duration) -> Result<String, Trouble> {
        Ok(self.ask(script, args, limit).await??)
    }

    /// Notes that the copy let us down in a way that no look at it may find again, so that the next check says so and
    /// the copy is made anew. Without this a blind check would hand it out for ever.
    pub(crate) async fn doubt(&self, state: &State) -> Result<(), Trouble> {
        let text = format!("{}: {}", state.reason, state.detail);
        Ok(self.shell.put(&self.meta("suspect"), text.into_bytes().into(), 0o600).await?)
    }

    /// Where the fencing token of the present lease stands: beside the tree, which holders empty and git cleans.
    pub(crate) fn fence(&self) -> String {
        format!("{}/meta/fence", self.dir)
    }

    /// Ends what a former holder, or an earlier call, left running on the host.
    pub(crate) async fn stop(&self) -> Result<(), Trouble> {
        self.must(STOP, &["", "", "", "", &self.host_lease, &self.host_dir, ""], self.config.command_timeout())
            .await
            .map(drop)
    }

    /// The same, once the resource belongs to this token.
    pub(crate) async fn take(&self, token: u64) -> Result<(), Trouble> {
        let token = token.to_string();
        let args = ["", "set", &token, "", &self.host_lease, &self.host_dir, &self.containment];
        self.must(STOP, &args, self.config.command_timeout()).await.map(drop)
    }

    /// The same, and what this lease started, once the copy belongs to nobody.
    pub(crate) async fn give_back(&self, lease: &str, token: u64) -> Result<(), Trouble> {
        let (token, number) = (token.to_string(), reaper::number(lease).to_string());
        let args = [lease, "clear", &token, &number, &self.host_lease, &self.host_dir, ""];
        self.must(STOP, &args, self.config.command_timeout()).await.map(drop)
    }

    /// What stands in a note of ours on the host; `None` if it is not there, or is no plain file.
    pub(crate) async fn note(&self, name: &str) -> Result<Option<String>, Trouble> {
        let text = self.must(NOTE, &[name], self.config.command_timeout()).await?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Runs git in the copy, on the host alone.
    pub(crate) async fn git(&self, args: &[&str]) -> Result<Output, Trouble> {
        self.raw(GIT, args, self.config.command_timeout()).await
    }
}

/// Where the host's mirror of this repository lies, for the resource in `dir`.
pub(crate) fn mirror_of(dir: &str, repository: &str) -> String {
    let base = dir.rsplit_once('/').map_or("", |(base, _)| base);
    format!("{base}/mirrors/{}", hashed(repository))
}

/// A name for a file that stands for this text.
pub(crate) fn hashed(text: &str) -> String {
    format!("{:032x}", hash(text))
}

/// FNV-1a with 128 bits: the same in every release, which the standard library's is not.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// `.git/config` as it must be. Made from the pool's settings and not read from the host: a holder can write whatever
/// lies there.
fn pinned(repository: &str, object_format: &str) -> String {
    let (version, extensions) = match object_format {
        "sha256" => ("1", "[extensions]\n\tobjectformat = sha256\n"),
        _ => ("0", ""),
    };
    let url = repository.replace('\\', "\\\\").replace('"', "\\\"");
    // Housekeeping in the background would outlive the holder's own git, and the lease.
    format!(
        "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n{extensions}\
         [remote \"origin\"]\n\turl = \"{url}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n\
         [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
    )
}

/// The configuration of a mirror, from that of its copies. The far end of a fetch knows no other.
pub(crate) fn mirror_config(pinned: &str) -> String {
    let bare = pinned.replacen("bare = false", "bare = true\n\tuseReplaceRefs = false\n\tcommitGraph = false", 1);
    bare.replacen("logallrefupdates = true", "logallrefupdates = false", 1).replacen(
        "\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        "",
        1,
    )
}
