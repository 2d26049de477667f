//! Less than all of a repository: some directories of it, or the last commits.

use crate::config::Config;
use wharfinger_adapter::settings::{ConfigProblem, Segment};

/// More than anybody writes by hand; each directory is an argument of every script.
const MOST: usize = 200;

/// Refuses directories that git or our scripts would take for something else, and what does not go together.
pub(crate) fn check_part(config: &Config) -> Result<(), ConfigProblem> {
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
        if dirs.len() > MOST {
            let message = format!("`sparse` has {} directories", dirs.len());
            return Err(fault(message, &format!("give at most {MOST}, higher up in the tree")));
        }
        for (at, dir) in dirs.iter().enumerate() {
            if let Some(why) = wrong(dir) {
                return Err(fault(format!("the directory {dir:?} {why}"), "give one like \"src/lib\"").then(at));
            }
        }
    }
    Ok(())
}

/// What is wrong with it.
fn wrong(dir: &str) -> Option<&'static str> {
    let plain = plain(dir);
    if plain.is_empty() {
        return Some("is empty, or all of the tree");
    }
    if plain.split('/').any(|part| matches!(part, "" | "." | ".." | ".git")) {
        return Some("has a part that is empty, '.', '..' or '.git'");
    }
    // Patterns, and what git writes in quotes.
    if plain.chars().any(|c| c.is_control() || "*?[],\\\"!#".contains(c)) {
        return Some("has a control character or one of *?[],\\\"!# in it; these are directories and no patterns");
    }
    None
}

fn plain(dir: &str) -> &str {
    dir.trim_matches('/')
}

/// The directories as the scripts take them: one a line, none within another. Empty: all of the tree.
pub(crate) fn lines(dirs: &[String]) -> String {
    let mut plain: Vec<&str> = dirs.iter().map(|dir| plain(dir)).collect();
    plain.sort_unstable();
    let mut kept: Vec<&str> = Vec::new();
    for dir in plain {
        if !kept.iter().any(|above| dir == *above || dir.starts_with(&format!("{above}/"))) {
            kept.push(dir);
        }
    }
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Config)) -> Result<(), ConfigProblem> {
        let mut config = Config::new("/srv/a.git");
        change(&mut config);
        config.validate()
    }

    #[test]
    fn directories_are_taken_or_refused() {
        for fine in ["src", "src/", "/src/lib", "a b", "ü/x", ".github", "a.git"] {
            assert_eq!(with(|config| config.sparse = vec![fine.into()]), Ok(()), "{fine}");
        }
        for wrong in [
            "", "/", ".", "..", "a/../b", "a//b", ".git", "a/.git", "*.c", "src/*", "!src", "a\nb", "a\"b", "a\\b",
            "a,b",
        ] {
            let problem = with(|config| config.sparse = vec![wrong.into()]).expect_err(wrong);
            assert_eq!(problem.path, [Segment::from("sparse"), 0.into()], "{problem}");
        }
        let many = (0..=MOST).map(|n| format!("d{n}")).collect();
        assert!(with(|config| config.sparse = many).is_err_and(|problem| problem.remedy.contains("at most 200")));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (what, says) in [("lfs", "lfs"), ("submodules", "submodules")] {
            let failure = with(|config| {
                config.sparse = vec!["src".into()];
                (config.lfs, config.submodules) = (what == "lfs", what == "submodules");
            });
            assert!(failure.is_err_and(|failure| failure.message.contains(says)));
        }
        assert!(with(|config| config.depth = Some(0)).is_err_and(|failure| failure.message.contains("`depth` is 0")));
        assert_eq!(with(|config| config.depth = Some(1)), Ok(()));
    }

    #[test]
    fn directories_within_others_go() {
        let dirs = ["src/lib/x", "docs/", "src/lib", "src-2", "/docs"].map(String::from);
        assert_eq!(lines(&dirs), "docs\nsrc-2\nsrc/lib");
        assert_eq!(lines(&[]), "");
    }
}
