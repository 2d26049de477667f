//! The pool's settings, and what of them is refused.

use crate::clean::check_keep;
use crate::credentials::Credentials;
use crate::params::check_ref_name;
use crate::sparse::check_part;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use std::collections::BTreeMap;
use std::time::Duration;
use wharfinger_adapter::settings::{ConfigProblem, Segment};

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
    pub fn validate(&self) -> Result<(), ConfigProblem> {
        self.check_sources()?;
        if let Some(credentials) = &self.credentials {
            credentials.validate(self.addresses()).map_err(|problem| problem.within("credentials"))?;
        }
        self.check_submodules()?;
        if let Some(root) = &self.root {
            check_root(root).map_err(|problem| problem.at(["root"]))?;
        }
        check_keep(self)?;
        check_part(self)?;
        for (key, value) in [
            ("clone_timeout_ms", self.clone_timeout_ms),
            ("fetch_timeout_ms", self.fetch_timeout_ms),
            ("command_timeout_ms", self.command_timeout_ms),
        ] {
            if value == 0 {
                return Err(bad([key], format!("`{key}` is 0"), "use 1 or more, or leave it out for the default"));
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

    fn check_sources(&self) -> Result<(), ConfigProblem> {
        if self.repositories.is_empty() {
            if self.repository.is_empty() {
                return Err(ConfigProblem::new(
                    "`repository` is missing",
                    "add repository = \"https://…\", or [pool.copies.repositories] with several",
                ));
            }
            if self.default.is_some() {
                return Err(bad(
                    ["default"],
                    "`default` is for several repositories, and there is one",
                    "leave it out",
                ));
            }
            check_repository("repository", &self.repository).map_err(|problem| problem.at(["repository"]))?;
            return check_branch(self.default_branch.as_deref());
        }
        if !self.repository.is_empty() {
            let message = "`repository` and `repositories` exclude each other";
            return Err(bad(["repository"], message, "give each repository its directory in `repositories`"));
        }
        if self.default_branch.is_some() {
            return Err(bad(
                ["default_branch"],
                "`default_branch` of several repositories belongs to one of them",
                "write it into its table: repositories.NAME = { repository = …, default_branch = … }",
            ));
        }
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (dir, source) in &self.repositories {
            let named = |message: String, remedy: &str| {
                ConfigProblem::new(message, remedy).at(["repositories"]).then(Segment::Name(dir.clone()))
            };
            check_directory(dir)
                .map_err(|why| named(format!("the directory {dir:?} {why}"), "use a plain name, as in \"app\""))?;
            if let Some(other) = seen.insert(dir.to_lowercase(), dir) {
                let message = format!("{other:?} and {dir:?} are the same where case does not count");
                return Err(named(message, "rename one of them"));
            }
            let inside = |problem: ConfigProblem| problem.within(dir).within("repositories");
            check_repository(&format!("repositories.{dir}"), &source.repository).map_err(inside)?;
            check_branch(source.default_branch.as_deref()).map_err(inside)?;
        }
        let list = || self.repositories.keys().cloned().collect::<Vec<_>>().join(", ");
        match &self.default {
            Some(default) if !self.repositories.contains_key(default) => {
                let message = format!("`default` {default:?} is none of the repositories");
                Err(bad(["default"], message, format!("use one of {}", list())))
            }
            None if self.repositories.len() > 1 => {
                let message = "`default` is missing: the repository of a lease that names none";
                Err(bad(["repositories"], message, format!("add default = one of {}", list())))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_submodules(&self) -> Result<(), ConfigProblem> {
        if !self.submodules && !self.submodule_urls.is_empty() {
            let message = "`submodule_urls` has no effect: submodules are not filled";
            return Err(bad(["submodule_urls"], message, "add submodules = true"));
        }
        for (at, prefix) in self.submodule_urls.iter().enumerate() {
            let entry = |problem: ConfigProblem| problem.within(at).within("submodule_urls");
            if !prefix.ends_with(['/', ':']) {
                // "https://example.org" is the beginning of "https://example.org.evil.example", too.
                let message = format!("{prefix:?} may end within a name");
                return Err(entry(ConfigProblem::new(message, "end it with '/', or ':' after a host")));
            }
            check_repository("submodule_urls", &format!("{prefix}x")).map_err(entry)?;
        }
        Ok(())
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

fn bad<const N: usize>(path: [&str; N], message: impl Into<String>, remedy: impl Into<String>) -> ConfigProblem {
    ConfigProblem::new(message, remedy).at(path)
}

fn check_branch(branch: Option<&str>) -> Result<(), ConfigProblem> {
    let Some(branch) = branch else { return Ok(()) };
    check_ref_name(branch).map_err(|why| {
        bad(["default_branch"], format!("`default_branch` {branch:?} {why}"), "name a branch of the repository")
    })
}

/// A name for a directory in the tree, and for that of our notes on it. Says what is wrong.
fn check_directory(dir: &str) -> Result<(), &'static str> {
    if dir.is_empty() {
        return Err("is empty");
    }
    if dir.len() > 100 {
        return Err("is longer than 100 bytes");
    }
    if dir.starts_with(['-', '.']) {
        return Err("begins with '-' or '.'");
    }
    if dir.contains('/') {
        return Err("lies in another");
    }
    // A comma is what a lease puts between them; the rest is for shells, and for file systems of other systems.
    if dir.chars().any(|c| c.is_control() || " ,=\\:*?\"'<>|$`".contains(c)) || dir.ends_with('.') {
        return Err("has a blank, a control character or one of ,=\\:*?\"'<>|$` or ends with '.'");
    }
    Ok(())
}

/// Git takes a `-` in front for an option, `ext::` for a command to run, and ssh a host `-oProxyCommand=…` for an option
/// (CVE-2017-1000117).
pub(crate) fn check_repository(key: &str, repository: &str) -> Result<(), ConfigProblem> {
    let remedy = "use https://, ssh://, git://, file://, user@host:path or an absolute path";
    let fault = |message: String, remedy: &str| ConfigProblem::new(message, remedy);
    if repository.is_empty() {
        return Err(fault(format!("`{key}` is empty"), remedy));
    }
    if repository.chars().any(char::is_control) {
        return Err(fault(format!("`{key}` has control characters"), remedy));
    }
    if repository.starts_with('-') {
        return Err(fault(format!("`{key}` {repository:?} begins with '-' and would be an option"), remedy));
    }
    if repository.starts_with('/') {
        return Ok(());
    }
    if let Some((helper, _)) = repository.split_once("::")
        && helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return Err(fault(format!("`{key}` uses the transport helper {helper:?}, which may run commands"), remedy));
    }
    if let Some((scheme, rest)) = repository.split_once("://") {
        if !["https", "ssh", "git", "file"].contains(&scheme) {
            return Err(fault(format!("`{key}` has the transport {scheme:?}"), remedy));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if scheme == "file" {
            let fits = authority.is_empty() && !path.is_empty();
            return if fits {
                Ok(())
            } else {
                Err(fault(format!("`{key}` {repository:?} is not a file URL"), "write file:///absolute/path"))
            };
        }
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(fault(
                format!("`{key}` has a password in it, which every holder of a copy could read"),
                "keep it in ~/.netrc on the host or use ssh",
            ));
        }
        if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
            return Err(fault(format!("`{key}` {repository:?} names no host"), remedy));
        }
        return Ok(());
    }
    // As git tells user@host:path from a path: a colon before the first slash.
    match repository.split_once(':') {
        Some((host, path)) if !host.is_empty() && !host.contains('/') && !path.is_empty() => {
            let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
            if name.is_empty() || name.starts_with('-') || path.starts_with('-') {
                return Err(fault(format!("`{key}` {repository:?} would be an option of ssh"), remedy));
            }
            Ok(())
        }
        _ => Err(fault(format!("`{key}` {repository:?} is neither a URL nor an absolute path"), remedy)),
    }
}

/// An absolute directory that is safe to make and remove things in.
pub(crate) fn check_root(root: &str) -> Result<(), ConfigProblem> {
    let fits = root.starts_with('/')
        && !root.trim_matches('/').is_empty()
        && !root.chars().any(char::is_control)
        && root.split('/').all(|part| part != ".." && part != ".");
    if fits {
        Ok(())
    } else {
        let message = format!("`root` {root:?} is not an absolute directory below /");
        Err(ConfigProblem::new(message, "name one, without '..'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let problem = Config::new(wrong).validate().expect_err(wrong);
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }

    /// A pool with several repositories.
    fn several(json: &str) -> Result<Config, String> {
        let config: Config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        config.validate().map(|()| config).map_err(|problem| problem.to_string())
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
            ("{}", "`repository` is missing"),
            (r#"{"repository":"/a","default":"app"}"#, "default"),
            (r#"{"repository":"/a","repositories":{"app":"/a"}}"#, "`repository` and `repositories`"),
            (r#"{"repositories":{"app":"/a","lib":"/b"}}"#, "default = one of app, lib"),
            (r#"{"repositories":{"app":"/a"},"default":"lib"}"#, "none of the repositories"),
            (r#"{"repositories":{"app":"/a"},"default_branch":"x"}"#, "default_branch"),
            (r#"{"repositories":{"app":"/a","App":"/b"},"default":"app"}"#, "case does not count"),
            (r#"{"repositories":{"app":"ext::sh -c x"}}"#, "repositories.app"),
            (
                r#"{"repositories":{"app":{"repository":"/a","default_branch":"-x"}}}"#,
                "`default_branch` \"-x\" begins with",
            ),
            (r#"{"repositories":{"app":{"repository":"/a","brnach":"x"}}}"#, "brnach"),
            (r#"{"repositories":{"app":7}}"#, "an address, or a table"),
        ] {
            let found = several(json).expect_err(json);
            assert!(found.contains(says), "{json}: {found}");
        }
        for dir in ["", ".", "..", ".git", ".GIT", "-x", "a/b", "a/../b", "a\nb", "a b", "a,b", "a=b", "$x", "a."] {
            let mut config = Config::new("");
            config
                .repositories
                .insert(dir.into(), Source { repository: "/a".into(), default_branch: None, sparse: Vec::new() });
            let problem = config.validate().expect_err(dir);
            assert!(problem.message.starts_with("the directory"), "{dir}: {problem}");
            assert_eq!(problem.path, [Segment::from("repositories"), Segment::Name(dir.into())]);
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
            config.validate().map_err(|problem| format!("{problem} at {:?}", problem.path))
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
            let problem = config.validate().expect_err(value);
            assert_eq!(problem.path, [Segment::from(key)], "{problem}");
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
            let problem = with(Clean::Clean, wrong).expect_err(wrong);
            assert_eq!(problem.path, [Segment::from("keep"), 0.into()], "{problem}");
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
