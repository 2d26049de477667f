//! The pool's settings, and what of them is refused.

use crate::address::{bad, check_directory, check_repository, check_root};
use crate::clean::check_keep;
use crate::credentials::Credentials;
use crate::params::check_ref_name;
use crate::sparse::check_part;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use std::collections::BTreeMap;
use std::time::Duration;
use wharfinger_adapter::Failure;

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

    /// Refuses what could not work, or what could be taken for an option or a command.
    pub fn validate(&self) -> Result<(), Failure> {
        self.check_sources()?;
        if let Some(credentials) = &self.credentials {
            credentials.validate(self.addresses())?;
        }
        self.check_submodules()?;
        if let Some(root) = &self.root {
            check_root("root", root)?;
        }
        if let Some(file) = &self.ca_file {
            check_root("ca_file", file)?;
        }
        check_keep(self)?;
        check_part(self)?;
        for (key, value) in [
            ("clone_timeout_ms", self.clone_timeout_ms),
            ("fetch_timeout_ms", self.fetch_timeout_ms),
            ("command_timeout_ms", self.command_timeout_ms),
        ] {
            if value == 0 {
                return Err(bad(format!(
                    "{key} is 0, so nothing could ever end in time; leave it out for the default"
                )));
            }
        }
        Ok(())
    }

    /// All repositories.
    pub(crate) fn addresses(&self) -> Vec<&str> {
        if self.repositories.is_empty() {
            return vec![&self.repository];
        }
        self.repositories.values().map(|source| source.repository.as_str()).collect()
    }

    fn check_sources(&self) -> Result<(), Failure> {
        if self.repositories.is_empty() {
            if self.repository.is_empty() {
                return Err(bad(
                    "repository is missing; add repository = \"https://…\", or [pool.copies.repositories] with several",
                ));
            }
            if self.default.is_some() {
                return Err(bad("default names one of several repositories, and there is but one; leave it out"));
            }
            check_repository("repository", &self.repository)?;
            return check_branch("default_branch", self.default_branch.as_deref());
        }
        if !self.repository.is_empty() {
            return Err(bad("repository and repositories are both there; give each its directory in repositories"));
        }
        if self.default_branch.is_some() {
            return Err(bad(
                "default_branch does not say of which repository; write it into its table: repositories.NAME = { repository = …, default_branch = … }",
            ));
        }
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (dir, source) in &self.repositories {
            check_directory(dir)
                .map_err(|why| bad(format!("repositories: directory {dir:?} {why}; name one that is plain")))?;
            if let Some(other) = seen.insert(dir.to_lowercase(), dir) {
                return Err(bad(format!(
                    "repositories: {other:?} and {dir:?} are the same where case does not count; rename one of them"
                )));
            }
            check_repository(&format!("repositories.{dir}"), &source.repository)?;
            check_branch(&format!("repositories.{dir}: default_branch"), source.default_branch.as_deref())?;
        }
        let list = || self.repositories.keys().cloned().collect::<Vec<_>>().join(", ");
        match &self.default {
            Some(default) if !self.repositories.contains_key(default) => {
                Err(bad(format!("default {default:?} is none of the repositories; name one of {}", list())))
            }
            None if self.repositories.len() > 1 => Err(bad(format!(
                "repositories has several, and nothing says which one a lease means that names none; add default = one of {}",
                list()
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn check_submodules(&self) -> Result<(), Failure> {
        if !self.submodules && !self.submodule_urls.is_empty() {
            return Err(bad("submodule_urls says which submodules may be filled, and none are; add submodules = true"));
        }
        for prefix in &self.submodule_urls {
            if !prefix.ends_with(['/', ':']) {
                // "https://example.org" is the beginning of "https://example.org.evil.example", too.
                return Err(bad(format!(
                    "submodule_urls: {prefix:?} may end within a name; end it with '/', or ':' after a host"
                )));
            }
            check_repository("submodule_urls", &format!("{prefix}x"))?;
        }
        if !self.submodules && !self.rewrite.is_empty() {
            return Err(bad("rewrite changes addresses of submodules, and none are filled; add submodules = true"));
        }
        for (from, to) in &self.rewrite {
            if !from.ends_with(['/', ':']) || !to.ends_with(['/', ':']) {
                return Err(bad(format!(
                    "rewrite: {from:?} = {to:?} may end within a name; end both with '/', or ':' after a host"
                )));
            }
            check_repository("rewrite", &format!("{to}x"))?;
        }
        Ok(())
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

fn check_branch(key: &str, branch: Option<&str>) -> Result<(), Failure> {
    let Some(branch) = branch else { return Ok(()) };
    check_ref_name(branch).map_err(|why| bad(format!("{key} {branch:?} {why}; name a branch of the repository")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharfinger_adapter::Blame;

    #[test]
    fn repositories_are_taken_or_refused() {
        for fine in [
            "https://example.org/a.git",
            "https://user@example.org:8443/a.git",
            "ssh://git@example.org:2222/a.git",
            "git://example.org/a",
            "file:///srv/a.git",
            "/srv/with space/a.git",
            "git@example.org:team/a.git",
            "host:a.git",
        ] {
            assert_eq!(Config::new(fine).validate(), Ok(()), "{fine}");
        }
        for wrong in [
            "",
            "-u/evil",
            "--upload-pack=touch /tmp/x",
            "ext::sh -c true",
            "fd::7",
            "http://example.org/a.git",
            "ftp://example.org/a.git",
            "relative/path",
            "../up",
            "./a:b",
            "/srv/a\nb",
            "ssh://-oProxyCommand=true/x",
            "-oProxyCommand=true:x",
            "git@-oProxyCommand=true:x",
            "git@host:-x",
            "https:///a.git",
            "https://user:secret@example.org/a.git",
            "file://host/a.git",
        ] {
            let failure = Config::new(wrong).validate().expect_err(wrong);
            assert_eq!(failure.blame, Blame::Configuration, "{wrong}");
            assert!(!failure.message.contains("secret"), "{}", failure.message);
        }
    }

    /// A pool with several repositories.
    fn several(json: &str) -> Result<Config, Failure> {
        let config: Config = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
        config.validate().map(|()| config)
    }

    #[test]
    fn several_repositories_have_directories_and_a_default() {
        let fine = several(
            r#"{"repositories":{"app":"/srv/app.git","lib-2":{"repository":"/srv/l.git","default_branch":"x"}},"default":"app"}"#,
        )
        .unwrap();
        assert_eq!(fine.default_part(), "app");
        assert_eq!(fine.repositories["lib-2"].default_branch.as_deref(), Some("x"));
        assert_eq!(several(r#"{"repositories":{"app":"/srv/app.git"}}"#).unwrap().default_part(), "app");
        for (json, says) in [
            ("{}", "repository is missing"),
            (r#"{"repository":"/a","default":"app"}"#, "default"),
            (r#"{"repository":"/a","repositories":{"app":"/a"}}"#, "repository and repositories"),
            (r#"{"repositories":{"app":"/a","lib":"/b"}}"#, "default = one of app, lib"),
            (r#"{"repositories":{"app":"/a"},"default":"lib"}"#, "none of the repositories"),
            (r#"{"repositories":{"app":"/a"},"default_branch":"x"}"#, "default_branch"),
            (r#"{"repositories":{"app":"/a","App":"/b"},"default":"app"}"#, "case does not count"),
            (r#"{"repositories":{"app":"ext::sh -c x"}}"#, "repositories.app"),
            (
                r#"{"repositories":{"app":{"repository":"/a","default_branch":"-x"}}}"#,
                "repositories.app: default_branch",
            ),
            (r#"{"repositories":{"app":{"repository":"/a","brnach":"x"}}}"#, "brnach"),
            (r#"{"repositories":{"app":7}}"#, "an address, or a table"),
        ] {
            let failure = several(json).expect_err(json);
            assert!(failure.message.contains(says), "{json}: {failure}");
        }
        for dir in ["", ".", "..", ".git", ".GIT", "-x", "a/b", "a/../b", "a\nb", "a b", "a,b", "a=b", "$x", "a."] {
            let mut config = Config::new("");
            config
                .repositories
                .insert(dir.into(), Source { repository: "/a".into(), default_branch: None, sparse: Vec::new() });
            let failure = config.validate().expect_err(dir);
            assert!(failure.message.starts_with("repositories: directory"), "{dir}: {failure}");
        }
        // Ours do not lie where the parts do.
        for dir in ["mirrors", "meta", "tree", "parts", "git"] {
            let mut config = Config::new("");
            config
                .repositories
                .insert(dir.into(), Source { repository: "/a".into(), default_branch: None, sparse: Vec::new() });
            assert_eq!(config.validate(), Ok(()), "{dir}");
        }
    }

    #[test]
    fn beginnings_of_addresses_end_where_names_end() {
        let with = |submodules, prefix: &str| {
            let mut config = Config::new("/srv/a.git");
            config.submodules = submodules;
            config.submodule_urls = vec![prefix.into()];
            config.validate().map_err(|failure| failure.message)
        };
        for fine in ["https://example.org/", "https://example.org/team/", "git@example.org:", "/srv/git/"] {
            assert_eq!(with(true, fine), Ok(()));
        }
        for wrong in ["https://example.org", "git@example.org", "ext::", "http://example.org/", "", "../"] {
            assert!(with(true, wrong).is_err_and(|why| why.contains("submodule_urls")), "{wrong}");
        }
        assert!(with(false, "https://example.org/").is_err_and(|why| why.contains("submodules = true")));
    }

    #[test]
    fn the_longest_beginning_is_rewritten() {
        let mut config = Config::new("/srv/a.git");
        config.submodules = true;
        let pairs = [("git://gone.example/", "https://example.org/"), ("git://gone.example/team/", "git@example.org:")];
        config.rewrite = pairs.map(|(from, to)| (from.to_string(), to.to_string())).into();
        assert_eq!(config.validate(), Ok(()));
        for (address, wanted) in [
            ("git://gone.example/a.git", "https://example.org/a.git"),
            ("git://gone.example/team/a.git", "git@example.org:a.git"),
            ("git://gone.example.org/a.git", "git://gone.example.org/a.git"),
        ] {
            assert_eq!(config.rewritten(address), wanted);
        }
        for (from, to) in
            [("git://gone.example", "https://example.org/"), ("x/", "https://example.org"), ("x/", "ext::")]
        {
            config.rewrite = BTreeMap::from([(from.to_string(), to.to_string())]);
            assert!(config.validate().is_err_and(|failure| failure.message.contains("rewrite")), "{from} {to}");
        }
        config.submodules = false;
        assert!(config.validate().is_err_and(|failure| failure.message.contains("submodules = true")));
    }

    #[test]
    fn other_settings_are_checked_too() {
        for (key, value) in [
            ("root", "relative"),
            ("root", "/"),
            ("root", "/a/../b"),
            ("default_branch", "-x"),
            ("default_branch", "a..b"),
        ] {
            let mut config = Config::new("/srv/a.git");
            match key {
                "root" => config.root = Some(value.into()),
                _ => config.default_branch = Some(value.into()),
            }
            let failure = config.validate().expect_err(value);
            assert!(failure.message.contains(key), "{}", failure.message);
        }
        for wrong in ["ca.pem", "/", "/a/../b", "~/ca.pem"] {
            let mut config = Config::new("/srv/a.git");
            config.ca_file = Some(wrong.into());
            assert!(config.validate().is_err_and(|failure| failure.message.contains("ca_file")), "{wrong}");
        }
        let mut config = Config::new("/srv/a.git");
        config.fetch_timeout_ms = 0;
        assert!(config.validate().is_err());
    }

    #[test]
    fn patterns_that_are_kept_are_taken_or_refused() {
        let with = |clean, pattern: &str| {
            let mut config = Config::new("/srv/a.git");
            (config.clean, config.keep) = (clean, vec![pattern.to_string()]);
            config.validate()
        };
        for fine in ["target/", "node_modules/", "/build", "**/*.o", "a b", "a/..b", "dir/.gitx"] {
            assert_eq!(with(Clean::Clean, fine), Ok(()), "{fine}");
        }
        for wrong in ["", " ", "/", "-x", "!a", "#a", "a\nb", "../up", "a/../b", ".git", "a/.git/x"] {
            let failure = with(Clean::Clean, wrong).expect_err(wrong);
            assert_eq!(failure.blame, Blame::Configuration, "{wrong}");
            assert!(failure.message.contains("keep"), "{}", failure.message);
        }
        assert!(with(Clean::Keep, "target/").is_err() && with(Clean::Fresh, "target/").is_err());
    }

    #[test]
    fn unknown_keys_are_refused_and_the_rest_has_defaults() {
        let config: Config = serde_json::from_str(r#"{"repository":"/srv/a.git","clean":"keep"}"#).unwrap();
        assert_eq!(config.clean, Clean::Keep);
        assert_eq!(config.clone_timeout_ms, 900_000);
        assert!(serde_json::from_str::<Config>(r#"{"repository":"/srv/a.git","brnach":"x"}"#).is_err());
    }
}
