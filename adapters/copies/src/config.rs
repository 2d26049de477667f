//! The pool's settings, and what of them is refused.

use crate::credentials::Credentials;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// What of a former lease's files survives in the working copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clean {
    /// Nothing: untracked and ignored files and nested repositories are removed. What a lease gets is the commit.
    #[default]
    Clean,
    /// Untracked and ignored files stay (`target/`, `node_modules/`), so that the next build is warm. Tracked files are
    /// the commit's all the same. Files in the way of the commit's own, or a copy that had to be rebuilt, lose them.
    Keep,
    /// Not even objects: the copy is removed and cloned anew after each lease.
    Fresh,
}

impl Clean {
    /// The argument of the scripts for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Clean::Keep => "keep",
            Clean::Clean | Clean::Fresh => "clean",
        }
    }
}

/// One of several repositories: an address alone, or a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As [`Config::repository`].
    pub repository: String,
    /// As [`Config::default_branch`].
    pub default_branch: Option<String>,
    /// As [`Config::sparse`].
    pub sparse: Vec<String>,
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            repository: String,
            #[serde(default)]
            default_branch: Option<String>,
            #[serde(default)]
            sparse: Vec<String>,
        }

        // Not an untagged enum: that would say of every mistake that nothing fits.
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Source;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an address, or a table with repository, default_branch and sparse")
            }

            fn visit_str<E>(self, address: &str) -> Result<Source, E> {
                Ok(Source { repository: address.to_string(), default_branch: None, sparse: Vec::new() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                let Table { repository, default_branch, sparse } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Source { repository, default_branch, sparse })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Settings of a pool of working copies.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to clone from: `https://`, `ssh://`, `git://`, `file://`, `user@host:path`, or an absolute path on the host.
    /// Empty where there are several.
    #[serde(default)]
    pub repository: String,
    /// The branch for leases that name nothing; the remote's own `HEAD` if absent.
    #[serde(default)]
    pub default_branch: Option<String>,
    /// Several repositories in one copy, by the directory that each has in it.
    #[serde(default)]
    pub repositories: BTreeMap<String, Source>,
    /// The directory of the one that a lease means when it names none; may be absent if there is only one.
    #[serde(default)]
    pub default: Option<String>,
    /// What the remote wants to see before it gives anything; the host's own (netrc, ssh keys) if absent.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Fill submodules, recursively, each proved to be the commit that its parent names.
    #[serde(default)]
    pub submodules: bool,
    /// Beginnings of the addresses that submodules may have, each ending with `/` or `:`; any if empty.
    #[serde(default)]
    pub submodule_urls: Vec<String>,
    /// Beginnings of addresses in `.gitmodules`, and what stands for each: for hosts that are gone, or mirrors of one's own.
    #[serde(default)]
    pub rewrite: BTreeMap<String, String>,
    /// A file on the host with the certificates of the authorities that sign for the remotes; the host's own if absent.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// Files that git-lfs keeps elsewhere are there with their content; otherwise they are pointers. Needs git-lfs on the host.
    #[serde(default)]
    pub lfs: bool,
    /// Directories that the tree has, with all below them, and the files beside them and above; all of the commit if empty.
    #[serde(default)]
    pub sparse: Vec<String>,
    /// How many commits of each branch come, and of what a lease names; all of them if absent.
    #[serde(default)]
    pub depth: Option<u32>,
    /// What survives from lease to lease.
    #[serde(default)]
    pub clean: Clean,
    /// With `clean = "clean"`: patterns, as in a `.gitignore`, of what survives although it is not tracked (`target/`,
    /// `node_modules/`), so that the next build is warm. What lies there is as the former holders left it.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Absolute directory on the host that holds the copies; `<the host's path>/copies` if absent.
    #[serde(default)]
    pub root: Option<String>,
    /// Limit for a whole clone, and for the walk over all objects in a check, in milliseconds.
    #[serde(default = "clone_timeout")]
    pub clone_timeout_ms: u64,
    /// Limit for one fetch, in milliseconds.
    #[serde(default = "fetch_timeout")]
    pub fetch_timeout_ms: u64,
    /// Limit for any other step (checkout, clean-up, a question to the remote), in milliseconds.
    #[serde(default = "command_timeout")]
    pub command_timeout_ms: u64,
    /// A copy is neither made nor prepared with less room than this on its file system, in MiB.
    #[serde(default = "min_free_disk")]
    pub min_free_disk_mb: u64,
    /// Look at leased copies too, every `probe_interval` of the pool: one whose `.git` is removed or broken under a
    /// build is noticed then, and its lease broken, instead of after the build. Off by default: it costs a command on
    /// the host each time, and a build that removes its own `.git` on purpose would be broken.
    #[serde(default)]
    pub probe_leased: bool,
}

fn clone_timeout() -> u64 {
    900_000
}

fn fetch_timeout() -> u64 {
    300_000
}

fn command_timeout() -> u64 {
    120_000
}

fn min_free_disk() -> u64 {
    512
}

impl Config {
    /// Settings with their defaults.
    pub fn new(repository: impl Into<String>) -> Self {
        Self {
            repository: repository.into(),
            default_branch: None,
            repositories: BTreeMap::new(),
            default: None,
            credentials: None,
            submodules: false,
            submodule_urls: Vec::new(),
            rewrite: BTreeMap::new(),
            ca_file: None,
            lfs: false,
            sparse: Vec::new(),
            depth: None,
            clean: Clean::default(),
            keep: Vec::new(),
            root: None,
            clone_timeout_ms: clone_timeout(),
            fetch_timeout_ms: fetch_timeout(),
            command_timeout_ms: command_timeout(),
            min_free_disk_mb: min_free_disk(),
            probe_leased: false,
        }
    }

    /// All repositories.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        if self.repositories.is_empty() {
            return vec![&self.repository];
        }
        self.repositories.values().map(|source| source.repository.as_str()).collect()
    }

    /// The address that stands for this one in the pool: the longest beginning in `rewrite` counts.
    pub(crate) fn rewritten(&self, address: &str) -> String {
        let fits = self.rewrite.iter().filter_map(|(from, to)| Some((from, to, address.strip_prefix(from.as_str())?)));
        match fits.max_by_key(|(from, ..)| from.len()) {
            Some((_, to, rest)) => format!("{to}{rest}"),
            None => address.to_string(),
        }
    }

    /// The directory of the default repository; empty if there is but one, which is all of the tree.
    pub(crate) fn default_part(&self) -> &str {
        self.default.as_deref().or_else(|| self.repositories.keys().next().map(String::as_str)).unwrap_or_default()
    }

    pub(crate) fn clone_timeout(&self) -> Duration {
        Duration::from_millis(self.clone_timeout_ms)
    }

    pub(crate) fn fetch_timeout(&self) -> Duration {
        Duration::from_millis(self.fetch_timeout_ms)
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        Duration::from_millis(self.command_timeout_ms)
    }
}
