//! The settings of a pool of working copies.

use crate::credentials::Credentials;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// The files of a former lease that stay in the working copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clean {
    /// None: untracked files, ignored files and nested repositories are removed. A lease gets the files of its commit alone.
    #[default]
    Clean,
    /// Untracked and ignored files stay (`target/`, `node_modules/`), so that the next build is warm. Tracked files are those of the
    /// commit. A file in the way of one of the commit is removed. A rebuilt copy loses all untracked files.
    Keep,
    /// None, and no objects: the copy is removed and cloned anew after each lease.
    Fresh,
}

impl Clean {
    /// The value as an argument of the scripts.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Clean::Keep => "keep",
            Clean::Clean | Clean::Fresh => "clean",
        }
    }
}

/// One of several repositories: an address, or a table with `repository`, `default_branch` and `sparse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The same as [`Config::repository`].
    pub repository: String,
    /// The same as [`Config::default_branch`].
    pub default_branch: Option<String>,
    /// The same as [`Config::sparse`].
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

        // An untagged enum would report every mistake as "no variant matches".
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
    /// The address of the repository: `https://`, `ssh://`, `git://`, `file://`, `user@host:path`, or an absolute path on the host.
    /// Empty if `repositories` has several.
    #[serde(default)]
    pub repository: String,
    /// The branch of a lease that names none. The remote's `HEAD` if absent.
    #[serde(default)]
    pub default_branch: Option<String>,
    /// Several repositories in one copy. The keys are their directories in the tree.
    #[serde(default)]
    pub repositories: BTreeMap<String, Source>,
    /// The directory of the repository that parameters without a directory refer to. May be absent if there is one repository.
    #[serde(default)]
    pub default: Option<String>,
    /// Credentials for the remote. The host's own (netrc, ssh keys) if absent.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// Fills submodules recursively. Each is proved to be at the commit that its parent names.
    #[serde(default)]
    pub submodules: bool,
    /// Allowed prefixes of the addresses of submodules; each ends with `/` or `:`. Every address is allowed if empty.
    #[serde(default)]
    pub submodule_urls: Vec<String>,
    /// Prefixes of addresses in `.gitmodules`, and the replacement of each: for hosts that are gone, and for own mirrors.
    #[serde(default)]
    pub rewrite: BTreeMap<String, String>,
    /// A PEM file on the host with the certificate authorities of the remotes (`http.sslCAInfo`). The host's own if absent.
    #[serde(default)]
    pub ca_file: Option<String>,
    /// Loads the content of files that git-lfs stores elsewhere; otherwise the tree has their pointers. Needs git-lfs on the host.
    #[serde(default)]
    pub lfs: bool,
    /// Directories in the tree, in the cone mode of git-sparse-checkout(1): with everything below them, and the files beside and
    /// above them. The whole commit if empty.
    #[serde(default)]
    pub sparse: Vec<String>,
    /// Number of commits of each branch, and of the wanted name, that are fetched. All of them if absent.
    #[serde(default)]
    pub depth: Option<u32>,
    /// The files of a former lease that stay.
    #[serde(default)]
    pub clean: Clean,
    /// With `clean = "clean"`: patterns of untracked files that stay nevertheless (`target/`, `node_modules/`), in the format of
    /// gitignore(5). The next build is warm then. These files are as the former holders left them.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Absolute directory of the copies on the host. `<path of the host>/copies` if absent.
    #[serde(default)]
    pub root: Option<String>,
    /// Maximum time of a clone, and of the walk over all objects in a check, in milliseconds.
    #[serde(default = "clone_timeout")]
    pub clone_timeout_ms: u64,
    /// Maximum time of one fetch, in milliseconds.
    #[serde(default = "fetch_timeout")]
    pub fetch_timeout_ms: u64,
    /// Maximum time of each other step (checkout, clean-up, a listing of the remote), in milliseconds.
    #[serde(default = "command_timeout")]
    pub command_timeout_ms: u64,
    /// Minimum free space on the file system of a copy, in MiB. With less, a copy is neither made nor prepared.
    #[serde(default = "min_free_disk")]
    pub min_free_disk_mb: u64,
    /// Probes leased copies, too, at each `probe_interval` of the pool. A copy whose `.git` is removed or damaged during a build
    /// breaks its lease then, and not after the build. Off by default: each probe costs a command on the host, and a build that
    /// removes its own `.git` on purpose would lose its lease.
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
    /// Returns the settings of one repository, with the defaults.
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

    /// The addresses of all repositories.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        if self.repositories.is_empty() {
            return vec![&self.repository];
        }
        self.repositories.values().map(|source| source.repository.as_str()).collect()
    }

    /// Returns the address after `rewrite`. The longest matching prefix counts.
    pub(crate) fn rewritten(&self, address: &str) -> String {
        let fits = self.rewrite.iter().filter_map(|(from, to)| Some((from, to, address.strip_prefix(from.as_str())?)));
        match fits.max_by_key(|(from, ..)| from.len()) {
            Some((_, to, rest)) => format!("{to}{rest}"),
            None => address.to_string(),
        }
    }

    /// The directory of the default repository. Empty if the tree is the only repository.
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
