//! Runs the scripts of `src/sh` on the host of a copy. Every git command of this crate is in one of them.
//!
//! One script is one step, and one round trip to the host. Arguments are positional parameters, never shell text. `prelude.sh`
//! hardens git for all scripts.

use crate::address::{check_root, lfs_endpoint};
use crate::config::Config;
use crate::error::{State, StepError};
use crate::sparse;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Output, ResourceJob, Shell, access};
use wharfinger_host::{containment, reaper, sweep};

/// Exit code of a script whose output is a [`State`].
pub(crate) const STATE_FOUND: i32 = 93;
/// Exit code of the shell for a missing program (POSIX, "Exit Status for Commands").
pub(crate) const TOOL_MISSING: i32 = 127;

const PRELUDE: &str = include_str!("sh/prelude.sh");

/// A script of `src/sh`.
#[derive(Clone, Copy)]
pub(crate) struct Script {
    /// The names of its files, for messages.
    name: &'static str,
    /// The script connects to the remote, and reads the credentials from standard input.
    remote: bool,
    /// The script ends processes.
    ends: bool,
    text: &'static str,
}

impl Script {
    /// Returns the command that runs the script. `at`: the eight arguments of the prelude. `args`: those of the script.
    pub(crate) fn argv(&self, at: &[&str], args: &[&str]) -> Vec<String> {
        let library = if self.ends { reaper::LIBRARIES } else { "" };
        // The host's shell parses it each time.
        let lines = [PRELUDE, library, self.text].into_iter().flat_map(str::lines);
        let text = lines.filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
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
    ARRANGE_PARTS = "arrange_parts";
    CLEAN = "stop" "normalise" "convert" "rebuild" "prove";
    CLONE = "credentials" "clone";
    DESTROY = "destroy";
    INSPECT = "inspect";
    INSTALL = "install";
    LAND = "credentials" "scratch" "land";
    LFS = "credentials" "lfs";
    LIST_REFS = "credentials" "query_remote" "list_refs";
    LIST_SUBMODULES = "list_submodules";
    MAKE_DIRECTORY = "make_directory";
    MERGE = "scratch" "merge";
    NORMALISE = "normalise";
    NORMALISE_AND_LIST = "credentials" "query_remote" "normalise" "list_refs";
    PARK_SUBMODULES = "park_submodules";
    PULL = "credentials" "mirror" "pull";
    READ_META = "read_meta";
    REBUILD_AND_PROVE = "convert" "rebuild" "prove";
    REMOVE_FILES = "remove_files";
    REMOVE_SUBMODULE = "remove_submodule";
    REPACK_MIRROR = "mirror" "repack_mirror";
    RESTORE_SUBMODULE = "restore_submodule";
    RUN_GIT = "run_git";
    STOP = "stop";
    TAKE_AND_LIST = "stop" "credentials" "query_remote" "normalise" "list_refs";
    TAKE_LIST_AND_PROVE = "stop" "credentials" "query_remote" "normalise" "list_refs" "go_on" "convert" "rebuild" "prove";
}

/// The record of a copy in the broker, as JSON in [`wharfinger_adapter::Provisioned::handle`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handle {
    /// Absolute path of the tree.
    pub(crate) path: String,
    /// The address of the repository, or of the default part.
    pub(crate) repository: String,
    /// `sha1` or `sha256`. The copy's own configuration does not count: holders can write it.
    pub(crate) object_format: String,
    /// The object format of each part, by its directory. Empty if the tree is the only repository.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) parts: BTreeMap<String, String>,
}

/// One git working copy on its host: the whole tree of a resource, a part of it ([`crate::parts`]), or a submodule.
#[derive(Clone)]
pub(crate) struct WorkingCopy {
    pub(crate) shell: Arc<dyn Shell>,
    /// Absolute path of the resource's directory, which has `tree` and `meta`.
    pub(crate) dir: String,
    /// Absolute path of the working copy. Holders get this directory.
    pub(crate) tree: String,
    /// Absolute path of the metadata directory, outside the working copy.
    pub(crate) meta_dir: String,
    /// The name in messages: the directory of the part, or the path of the submodule. Empty for the only repository.
    pub(crate) part: String,
    pub(crate) resource: String,
    /// A file on the host with the directory of a copy that is outside its host's directory. The sweep of the host finds the
    /// copy by it. Empty for a copy inside.
    pub(crate) locator: String,
    /// The lease of the resource on its host, or empty.
    pub(crate) host_lease: String,
    /// The scratch directory of the host, or empty.
    pub(crate) host_dir: String,
    /// The containment that the pool of the host demands of a slot, as `stop.sh` takes it.
    pub(crate) containment: String,
    /// `sha1` or `sha256`. `None` if the broker has no record of it.
    pub(crate) format: Option<String>,
    /// The settings of the pool. `repository`, `default_branch` and `sparse` are those of this working copy.
    pub(crate) config: Config,
}

impl WorkingCopy {
    /// A copy that is not there, in a directory of its own, with which the remote can be asked.
    pub(crate) fn for_questions(shell: Arc<dyn Shell>, dir: &str, config: &Config) -> Self {
        Self {
            shell,
            locator: String::new(),
            host_lease: String::new(),
            host_dir: String::new(),
            containment: String::new(),
            tree: format!("{dir}/tree"),
            meta_dir: dir.to_string(),
            part: String::new(),
            dir: dir.to_string(),
            resource: "check-config".to_string(),
            format: None,
            config: config.clone(),
        }
    }

    /// Returns the working copy of a job's resource.
    ///
    /// # Errors
    /// `NO_PARENT` and `BAD_RESOURCE_ID` (bug); `NO_ROOT` and `BAD_SETTING` (configuration).
    pub(crate) fn of(job: &ResourceJob, config: &Config, handle: Option<&Handle>) -> Result<Self, Failure> {
        let Some(parent) = &job.parent else {
            return Err(Failure::bug("NO_PARENT", format!("the job of working copy {} names no host", job.resource)));
        };
        let safe = job.resource.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        // The directory "mirrors" is beside the copies.
        if job.resource.is_empty() || !safe || job.resource.starts_with('-') || job.resource == "mirrors" {
            return Err(Failure::bug(
                "BAD_RESOURCE_ID",
                format!("resource id {:?} is not safe in a file name", job.resource),
            ));
        }
        // A copy stays in its directory after a change of the pool's root.
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
                                "host {} has no directory for working copies; set root in the pool",
                                parent.resource
                            ),
                        ));
                    }
                };
                format!("{base}/{}", job.resource)
            }
        };
        check_root("root", &dir).map_err(|problem| problem.into_failure("BAD_SETTING"))?;
        let locator = match parent.access.get(access::PATH) {
            Some(path) if !dir.starts_with(&format!("{}/", path.trim_end_matches('/'))) => {
                format!("{}/copy.{}", sweep::beside(path), job.resource)
            }
            Some(_) | None => String::new(),
        };
        Ok(Self {
            shell: Arc::clone(&parent.shell),
            locator,
            host_lease: parent.lease.clone(),
            host_dir: parent.access.get(access::PATH).cloned().unwrap_or_default(),
            containment: containment::words(&parent.access),
            tree: format!("{dir}/tree"),
            meta_dir: format!("{dir}/meta"),
            part: String::new(),
            dir,
            resource: job.resource.clone(),
            format: handle.map(|handle| handle.object_format.clone()),
            config: config.clone(),
        })
    }

    /// Returns the path of a file in the metadata directory.
    pub(crate) fn meta_path(&self, name: &str) -> String {
        format!("{}/{name}", self.meta_dir)
    }

    /// Returns the path of the host's mirror of the repository. All copies on the host share it. Two repositories with one hash
    /// would only be fetched in turn: the configuration of a mirror is written before each use.
    pub(crate) fn mirror(&self) -> String {
        match self.config.depth {
            // A shallow mirror would lack history that other pools need.
            Some(depth) => mirror_of(&self.dir, &format!("{} {depth}", self.config.repository)),
            None => mirror_of(&self.dir, &self.config.repository),
        }
    }

    /// Returns the text that `.git/config` must have before git runs in the copy.
    pub(crate) async fn git_config(&self) -> Result<String, StepError> {
        let format = match &self.format {
            Some(format) => format.clone(),
            None => self.read_meta("format").await?.unwrap_or_default(),
        };
        Ok(self.git_config_in(&format))
    }

    /// Returns the text of `.git/config` for this object format.
    pub(crate) fn git_config_in(&self, format: &str) -> String {
        let mut text = git_config(&self.config.repository, format);
        if self.config.submodules {
            // The holder's `git submodule` lists the submodules by this setting.
            text.push_str("[submodule]\n\tactive = .\n");
        }
        if !self.config.sparse.is_empty() {
            // The holder's git does not report the files outside the directories as deleted.
            text.push_str("[core]\n\tsparseCheckout = true\n\tsparseCheckoutCone = true\n[index]\n\tsparse = false\n");
        }
        if self.config.lfs {
            // The filters of the holder's git; the prelude sets those of the scripts. Git-lfs would add a missing version.
            text.push_str("[filter \"lfs\"]\n\tprocess = git-lfs filter-process\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n\trequired = true\n[lfs]\n\trepositoryformatversion = 0\n");
        }
        text
    }

    /// Runs a script and returns its exit and its output. The time limit does not count as an error.
    ///
    /// # Errors
    /// `GIT_MISSING` (configuration), `BAD_CREDENTIALS` (configuration), and errors of the shell.
    pub(crate) async fn output(&self, script: Script, args: &[&str], limit: Duration) -> Result<Output, StepError> {
        let large = if self.config.lfs { lfs_endpoint(&self.config.repository) } else { String::new() };
        let sparse = sparse::lines(&self.config.sparse);
        let depth = self.config.depth.map(|depth| depth.to_string()).unwrap_or_default();
        let ca = self.config.ca_file.clone().unwrap_or_default();
        let at = [&self.dir, &self.resource, &self.tree, &self.meta_dir, &large, &sparse, &depth, &ca];
        let argv = script.argv(&at.map(String::as_str), args);
        let mut command = Command::new(argv).timeout(limit);
        if let (true, Some(credentials)) = (script.remote, &self.config.credentials)
            && let Some(secret) = credentials.input(&self.config.repository, limit)?
        {
            command = command.stdin(secret.into_bytes());
        }
        let output = self.shell.run(command).await?;
        tracing::debug!(resource = %self.resource, script = script.name, exit = ?output.exit, "ran");
        if output.exit == Exit::Code(TOOL_MISSING) {
            return Err(Failure::configuration(
                "GIT_MISSING",
                format!(
                    "the host has no git, or lacks a tool that step {} needs: {}; install it (git must be 2.36 or newer)",
                    script.name,
                    output.complaint()
                ),
            )
            .into());
        }
        Ok(output)
    }

    /// Runs a script. Returns its standard output, trimmed, or the state that it reported.
    ///
    /// # Errors
    /// Those of [`Self::output`] and [`Self::read_output`].
    pub(crate) async fn try_run(
        &self,
        script: Script,
        args: &[&str],
        limit: Duration,
    ) -> Result<Result<String, State>, StepError> {
        self.read_output(script, self.output(script, args, limit).await?, limit)
    }

    /// Reads the output of a script: its standard output, trimmed, or the state that it reported.
    ///
    /// # Errors
    /// `STEP_TIMED_OUT` and `STEP_FAILED` (resource); `UNREADABLE_STATE` (bug).
    pub(crate) fn read_output(
        &self,
        script: Script,
        output: Output,
        limit: Duration,
    ) -> Result<Result<String, State>, StepError> {
        match &output.exit {
            Exit::Code(0) => Ok(Ok(output.text())),
            Exit::Code(STATE_FOUND) => match State::parse(&String::from_utf8_lossy(&output.stdout)) {
                Some(state) => Ok(Err(state)),
                None => Err(Failure::bug("UNREADABLE_STATE", format!("step {} reported no known state: {:?}", script.name, output.text())).into()),
            },
            Exit::TimedOut => Err(Failure::resource(
                "STEP_TIMED_OUT",
                format!("step {} on {} did not end within {} s; look at the host's load and disk, or raise the timeouts of the pool", script.name, self.tree, limit.as_secs()),
            )
            .into()),
            other => Err(Failure::resource(
                "STEP_FAILED",
                format!("step {} on {} ended with {other:?}: {}", script.name, self.tree, output.complaint()),
            )
            .into()),
        }
    }

    /// Runs a script, and returns a reported state as an error.
    pub(crate) async fn run(&self, script: Script, args: &[&str], limit: Duration) -> Result<String, StepError> {
        Ok(self.try_run(script, args, limit).await??)
    }

    /// Records that the copy failed in a way that no inspection may find again. The next check reports it, and the copy is made
    /// anew. Without the record a copy that passes each inspection would fail lease after lease.
    pub(crate) async fn mark_suspect(&self, state: &State) -> Result<(), StepError> {
        let text = format!("{}: {}", state.reason, state.detail);
        Ok(self.shell.put(&self.meta_path("suspect"), text.into_bytes().into(), 0o600).await?)
    }

    /// Returns the path of the file with the fencing token of the lease. It is outside the tree, which holders and git clean.
    pub(crate) fn fence(&self) -> String {
        format!("{}/meta/fence", self.dir)
    }

    /// Ends the processes that a former holder, or an earlier call, left on the host.
    pub(crate) async fn end_processes(&self) -> Result<(), StepError> {
        self.run(STOP, &["", "", "", "", &self.host_lease, &self.host_dir, ""], self.config.command_timeout())
            .await
            .map(drop)
    }

    /// Gives the resource to this token, then ends the processes that others left.
    ///
    /// # Errors
    /// `FENCED` if a later token has the resource.
    pub(crate) async fn take_for(&self, token: u64) -> Result<(), StepError> {
        let token = token.to_string();
        let args = ["", "set", &token, "", &self.host_lease, &self.host_dir, &self.containment];
        self.run(STOP, &args, self.config.command_timeout()).await.map(drop)
    }

    /// Takes the resource from this token, then ends the processes of its lease.
    ///
    /// # Errors
    /// `FENCED` if a later token has the resource.
    pub(crate) async fn release(&self, lease: &str, token: u64) -> Result<(), StepError> {
        let (token, number) = (token.to_string(), reaper::number(lease).to_string());
        let args = [lease, "clear", &token, &number, &self.host_lease, &self.host_dir, ""];
        self.run(STOP, &args, self.config.command_timeout()).await.map(drop)
    }

    /// Returns the text of a file in the metadata directory. `None` if it is missing, empty or not a plain file.
    pub(crate) async fn read_meta(&self, name: &str) -> Result<Option<String>, StepError> {
        let text = self.run(READ_META, &[name], self.config.command_timeout()).await?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Runs git in the copy, without a connection to the remote.
    pub(crate) async fn git(&self, args: &[&str]) -> Result<Output, StepError> {
        self.output(RUN_GIT, args, self.config.command_timeout()).await
    }
}

/// Returns the path of the host's mirror of this repository. `dir`: the directory of a resource on the host.
pub(crate) fn mirror_of(dir: &str, repository: &str) -> String {
    let base = dir.rsplit_once('/').map_or("", |(base, _)| base);
    format!("{base}/mirrors/{}", hashed(repository))
}

/// Returns a file name for this text: 32 hexadecimal digits.
pub(crate) fn hashed(text: &str) -> String {
    format!("{:032x}", hash(text))
}

/// FNV-1a with 128 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): the value is the same in every release.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// Returns the text of `.git/config` from the settings alone: holders can write every file on the host.
fn git_config(repository: &str, object_format: &str) -> String {
    let (version, extensions) = match object_format {
        "sha256" => ("1", "[extensions]\n\tobjectformat = sha256\n"),
        _ => ("0", ""),
    };
    let url = repository.replace('\\', "\\\\").replace('"', "\\\"");
    // Maintenance in the background would outlive the holder's git command, and the lease.
    format!(
        "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n{extensions}\
         [remote \"origin\"]\n\turl = \"{url}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n\
         [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"
    )
}

/// Returns the configuration of a mirror, from that of its copies. The serving end of a fetch reads no other.
pub(crate) fn mirror_config(git_config: &str) -> String {
    let bare = git_config.replacen("bare = false", "bare = true\n\tuseReplaceRefs = false\n\tcommitGraph = false", 1);
    bare.replacen("logallrefupdates = true", "logallrefupdates = false", 1).replacen(
        "\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        "",
        1,
    )
}
