//! The directories of a partial tree.

/// Returns the directory without slashes at its ends.
pub(crate) fn plain(dir: &str) -> &str {
    dir.trim_matches('/')
}

/// The argument of the scripts: one directory a line, none within another. Empty for the whole tree.
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

    #[test]
    fn directories_within_others_go() {
        let dirs = ["src/lib/x", "docs/", "src/lib", "src-2", "/docs"].map(String::from);
        assert_eq!(lines(&dirs), "docs\nsrc-2\nsrc/lib");
        assert_eq!(lines(&[]), "");
    }
}
