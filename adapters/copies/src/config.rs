//! The pool's settings, and what of them is refused.

use crate::clean::check_keep;
use crate::params::check_ref_name;
use serde::Deserialize;
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

/// Settings of a pool of working copies.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to clone from: `https://`, `ssh://`, `git://`, `file://`, `user@host:path`, or an absolute path on the host.
    pub repository: String,
    /// The branch for leases that name nothing; the remote's own `HEAD` if absent.
    #[serde(default)]
    pub default_branch: Option<String>,
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
        check_repository(&self.repository)?;
        if let Some(branch) = &self.default_branch {
            check_ref_name(branch)
                .map_err(|why| bad(format!("default_branch {branch:?} {why}; name a branch of the repository")))?;
        }
        if let Some(root) = &self.root {
            check_root(root)?;
        }
        check_keep(self)?;
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

fn bad(message: impl Into<String>) -> Failure {
    Failure::configuration("BAD_SETTING", message)
}

/// Git takes a `-` in front for an option, `ext::` for a command to run, and ssh a host `-oProxyCommand=…` for an option
/// (CVE-2017-1000117).
fn check_repository(repository: &str) -> Result<(), Failure> {
    let remedy = "use https://, ssh://, git://, file://, user@host:path or an absolute path";
    if repository.is_empty() {
        return Err(bad(format!("repository is empty; {remedy}")));
    }
    if repository.chars().any(char::is_control) {
        return Err(bad(format!("repository has control characters; {remedy}")));
    }
    if repository.starts_with('-') {
        return Err(bad(format!("repository {repository:?} begins with '-' and would be an option; {remedy}")));
    }
    if repository.starts_with('/') {
        return Ok(());
    }
    if let Some((helper, _)) = repository.split_once("::")
        && helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return Err(bad(format!("repository uses the transport helper {helper:?}, which may run commands; {remedy}")));
    }
    if let Some((scheme, rest)) = repository.split_once("://") {
        if !["https", "ssh", "git", "file"].contains(&scheme) {
            return Err(bad(format!("repository has the transport {scheme:?}; {remedy}")));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if scheme == "file" {
            let fits = authority.is_empty() && !path.is_empty();
            return if fits { Ok(()) } else { Err(bad("repository is no file:///absolute/path; mend it")) };
        }
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return Err(bad(
                "repository has a password in it, which every holder of a copy could read; keep it in ~/.netrc on the host or use ssh",
            ));
        }
        if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
            return Err(bad(format!("repository {repository:?} names no host; {remedy}")));
        }
        return Ok(());
    }
    // As git tells user@host:path from a path: a colon before the first slash.
    match repository.split_once(':') {
        Some((host, path)) if !host.is_empty() && !host.contains('/') && !path.is_empty() => {
            let name = host.rsplit_once('@').map_or(host, |(_, name)| name);
            if name.is_empty() || name.starts_with('-') || path.starts_with('-') {
                return Err(bad(format!("repository {repository:?} would be an option of ssh; {remedy}")));
            }
            Ok(())
        }
        _ => Err(bad(format!("repository {repository:?} is neither a URL nor an absolute path; {remedy}"))),
    }
}

/// An absolute directory that is safe to make and remove things in.
pub(crate) fn check_root(root: &str) -> Result<(), Failure> {
    let fits = root.starts_with('/')
        && !root.trim_matches('/').is_empty()
        && !root.chars().any(char::is_control)
        && root.split('/').all(|part| part != ".." && part != ".");
    if fits {
        Ok(())
    } else {
        Err(bad(format!("root {root:?} is no absolute directory below /; name one, without '..'")))
    }
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
