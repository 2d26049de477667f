//! Checks the settings of a pool. Refuses those that cannot work, and those that git or a script would read as an option, a pattern
//! or a command.

use crate::address::{bad, check_directory, check_repository, check_root};
use crate::config::{Clean, Config};
use crate::params::check_ref_name;
use crate::sparse::plain;
use std::collections::BTreeMap;
use wharfinger_adapter::settings::{ConfigProblem, Segment};

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first mistake, with its path in the table.
    pub fn validate(&self) -> Result<(), ConfigProblem> {
        self.check_sources()?;
        if let Some(credentials) = &self.credentials {
            credentials.validate(self.addresses()).map_err(|problem| problem.within("credentials"))?;
        }
        self.check_submodules()?;
        if let Some(root) = &self.root {
            check_root("root", root).map_err(|problem| problem.at(["root"]))?;
        }
        if let Some(file) = &self.ca_file {
            check_root("ca_file", file).map_err(|problem| problem.at(["ca_file"]))?;
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
                // "https://example.org" is a prefix of "https://example.org.evil.example", too.
                let message = format!("{prefix:?} may end within a name");
                return Err(entry(ConfigProblem::new(message, "end it with '/', or ':' after a host")));
            }
            check_repository("submodule_urls", &format!("{prefix}x")).map_err(entry)?;
        }
        if !self.submodules && !self.rewrite.is_empty() {
            let message = "`rewrite` has no effect: it changes addresses of submodules, and none are filled";
            return Err(bad(["rewrite"], message, "add submodules = true"));
        }
        for (from, to) in &self.rewrite {
            let entry = |problem: ConfigProblem| problem.within(from).within("rewrite");
            if !from.ends_with(['/', ':']) || !to.ends_with(['/', ':']) {
                let message = format!("`rewrite`: {from:?} = {to:?} may end within a name");
                return Err(entry(ConfigProblem::new(message, "end both with '/', or ':' after a host")));
            }
            check_repository("rewrite", &format!("{to}x")).map_err(entry)?;
        }
        Ok(())
    }
}

fn check_branch(branch: Option<&str>) -> Result<(), ConfigProblem> {
    let Some(branch) = branch else { return Ok(()) };
    check_ref_name(branch).map_err(|why| {
        bad(["default_branch"], format!("`default_branch` {branch:?} {why}"), "name a branch of the repository")
    })
}

/// Refuses patterns that git would read as an option, a negation or a comment, or that lead out of the tree or into `.git`.
fn check_keep(config: &Config) -> Result<(), ConfigProblem> {
    if !config.keep.is_empty() && config.clean != Clean::Clean {
        let message = "`keep` has an effect with clean = \"clean\" alone";
        return Err(ConfigProblem::new(message, "leave `keep` or `clean` out").at(["keep"]));
    }
    for (at, pattern) in config.keep.iter().enumerate() {
        let why = if pattern.trim().trim_matches('/').is_empty() {
            "is empty"
        } else if pattern.chars().any(char::is_control) {
            "has control characters"
        } else if pattern.starts_with(['-', '!', '#']) {
            "begins with '-', '!' or '#'"
        } else if pattern.split('/').any(|part| part == ".." || part == ".git") {
            "leads to '..' or '.git'"
        } else {
            continue;
        };
        let problem = ConfigProblem::new(format!("the pattern {pattern:?} {why}"), "give one like \"target/\"");
        return Err(problem.at(["keep"]).then(at));
    }
    Ok(())
}

/// Maximum number of directories of a partial tree: each is a part of an argument of every script.
const DIRECTORIES_MAX: usize = 200;

/// Refuses directories that git or a script would read as a pattern or an option, and settings that exclude each other.
fn check_part(config: &Config) -> Result<(), ConfigProblem> {
    if config.depth == Some(0) {
        return Err(ConfigProblem::new("`depth` is 0", "use 1 or more, or leave it out for all commits").at(["depth"]));
    }
    if !config.repositories.is_empty() && !config.sparse.is_empty() {
        let remedy = "write it into its table: repositories.NAME = { repository = …, sparse = […] }";
        let message = "`sparse` of several repositories belongs to one of them";
        return Err(ConfigProblem::new(message, remedy).at(["sparse"]));
    }
    let of = |dir: &String| vec!["repositories".into(), dir.into(), "sparse".into()];
    let lists = std::iter::once((vec![Segment::from("sparse")], &config.sparse))
        .chain(config.repositories.iter().map(|(dir, source)| (of(dir), &source.sparse)));
    for (path, dirs) in lists {
        let fault =
            |message: String, remedy: &str| ConfigProblem { path: path.clone(), ..ConfigProblem::new(message, remedy) };
        if dirs.is_empty() {
            continue;
        }
        if config.submodules || config.lfs {
            let other = if config.lfs { "lfs" } else { "submodules" };
            return Err(fault(format!("`sparse` and {other} = true exclude each other"), "leave one of them out"));
        }
        if dirs.len() > DIRECTORIES_MAX {
            let message = format!("`sparse` has {} directories", dirs.len());
            return Err(fault(message, &format!("give at most {DIRECTORIES_MAX}, higher up in the tree")));
        }
        for (at, dir) in dirs.iter().enumerate() {
            if let Some(why) = wrong(dir) {
                return Err(fault(format!("the directory {dir:?} {why}"), "give one like \"src/lib\"").then(at));
            }
        }
    }
    Ok(())
}

/// Returns the fault of a directory, if it has one.
fn wrong(dir: &str) -> Option<&'static str> {
    let plain = plain(dir);
    if plain.is_empty() {
        return Some("is empty, or all of the tree");
    }
    if plain.split('/').any(|part| matches!(part, "" | "." | ".." | ".git")) {
        return Some("has a part that is empty, '.', '..' or '.git'");
    }
    // Git reads these as patterns, or quotes them in its output.
    if plain.chars().any(|c| c.is_control() || "*?[],\\\"!#".contains(c)) {
        return Some("has a control character or one of *?[],\\\"!# in it; these are directories and no patterns");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

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
        // The names of the adapter are free: its directories are not beside the parts.
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
            assert!(config.validate().is_err_and(|problem| problem.message.contains("rewrite")), "{from} {to}");
        }
        config.submodules = false;
        assert!(config.validate().is_err_and(|problem| problem.remedy.contains("submodules = true")));
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
        for wrong in ["ca.pem", "/", "/a/../b", "~/ca.pem"] {
            let mut config = Config::new("/srv/a.git");
            config.ca_file = Some(wrong.into());
            assert!(config.validate().is_err_and(|problem| problem.path == [Segment::from("ca_file")]), "{wrong}");
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

    fn sparse_with(change: impl FnOnce(&mut Config)) -> Result<(), ConfigProblem> {
        let mut config = Config::new("/srv/a.git");
        change(&mut config);
        config.validate()
    }

    #[test]
    fn sparse_directories_are_taken_or_refused() {
        for fine in ["src", "src/", "/src/lib", "a b", "ü/x", ".github", "a.git"] {
            assert_eq!(sparse_with(|config| config.sparse = vec![fine.into()]), Ok(()), "{fine}");
        }
        for wrong in [
            "", "/", ".", "..", "a/../b", "a//b", ".git", "a/.git", "*.c", "src/*", "!src", "a\nb", "a\"b", "a\\b",
            "a,b",
        ] {
            let problem = sparse_with(|config| config.sparse = vec![wrong.into()]).expect_err(wrong);
            assert_eq!(problem.path, [Segment::from("sparse"), 0.into()], "{problem}");
        }
        let many = (0..=DIRECTORIES_MAX).map(|n| format!("d{n}")).collect();
        assert!(
            sparse_with(|config| config.sparse = many).is_err_and(|problem| problem.remedy.contains("at most 200"))
        );
    }

    #[test]
    fn a_setting_that_excludes_sparse_is_refused_beside_it() {
        for (what, says) in [("lfs", "lfs"), ("submodules", "submodules")] {
            let failure = sparse_with(|config| {
                config.sparse = vec!["src".into()];
                (config.lfs, config.submodules) = (what == "lfs", what == "submodules");
            });
            assert!(failure.is_err_and(|failure| failure.message.contains(says)));
        }
        assert!(
            sparse_with(|config| config.depth = Some(0)).is_err_and(|failure| failure.message.contains("`depth` is 0"))
        );
        assert_eq!(sparse_with(|config| config.depth = Some(1)), Ok(()));
    }
}
