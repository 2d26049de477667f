//! Repositories with given bytes, and new clones to compare a copy with.

use super::sh;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Mode and content by path.
pub(crate) type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Writes the commits into the origin, as the branches c0, c1, … with the bytes as they are.
pub(crate) fn import(origin: &Path, commits: &[Files]) {
    let mut stream = Vec::new();
    for (n, files) in commits.iter().enumerate() {
        stream.extend(
            format!("commit refs/heads/c{n}\ncommitter a <a@b> {} +0000\ndata 1\nc\n", 1_700_000_000 + n).bytes(),
        );
        for (path, (mode, content)) in files {
            let mut name = String::new();
            for byte in path.as_os_str().as_bytes() {
                write!(name, "\\{byte:03o}").unwrap();
            }
            stream.extend(format!("M {mode:o} inline \"{name}\"\ndata {}\n", content.len()).bytes());
            stream.extend(content);
            stream.push(b'\n');
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), stream).unwrap();
    sh(origin, &format!("git fast-import --quiet --force <'{}'", file.path().display()));
    // Some histories have modes that git no longer writes.
    for n in (0..commits.len()).filter(|n| n % 3 == 1) {
        let tree = std::process::Command::new("git")
            .args(["cat-file", "tree", &format!("c{n}^{{tree}}")])
            .current_dir(origin)
            .output()
            .unwrap();
        let mut bytes = tree.stdout;
        let at: Vec<usize> =
            (0..bytes.len().saturating_sub(7)).filter(|at| bytes[*at..].starts_with(b"100644 ")).collect();
        for at in at {
            bytes[at + 3..at + 6].copy_from_slice(b"664");
        }
        std::fs::write(file.path(), bytes).unwrap();
        sh(
            origin,
            &format!(
                "git update-ref refs/heads/c{n} $(git commit-tree -m odd $(git hash-object -t tree -w --literally '{}'))",
                file.path().display()
            ),
        );
    }
}

/// All that lies in a tree but `.git`: what is no file and no link has mode 0.
pub(crate) fn of_tree(top: &Path) -> Files {
    fn walk(top: &Path, at: &Path, files: &mut Files) {
        for entry in std::fs::read_dir(at).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(top).unwrap().to_path_buf();
            let kind = entry.file_type().unwrap();
            if name == Path::new(".git") {
            } else if kind.is_dir() {
                walk(top, &path, files);
            } else if kind.is_symlink() {
                let to = std::fs::read_link(&path).unwrap();
                files.insert(name, (0o120_000, to.as_os_str().as_bytes().to_vec()));
            } else if kind.is_file() {
                let mode = std::fs::metadata(&path).unwrap().permissions().mode();
                files.insert(name, (mode, std::fs::read(&path).unwrap()));
            } else {
                files.insert(name, (0, Vec::new()));
            }
        }
    }
    let mut files = Files::new();
    walk(top, top, &mut files);
    files
}

/// A new clone of the origin at this commit, made by git alone.
pub(crate) fn clone(origin: &Path, id: &str, to: &Path) {
    let script = format!(
        "rm -rf '{to}'; git clone -q --no-local --no-checkout -- '{origin}' '{to}' && git -C '{to}' checkout -q --detach {id} 2>/dev/null",
        to = to.display(),
        origin = origin.display()
    );
    sh(origin, &format!("umask 022; {script}"));
}
