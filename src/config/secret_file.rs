//! Files with a secret: a password, a token, a URL that lets one in.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The fault of a file that should hold a secret in its first line, and its remedy. `noun`: what is in it, such as `password`.
pub(super) fn fault(noun: &str, path: &Path) -> Option<(String, String)> {
    let name = path.display();
    let unreadable = |error: &std::io::Error| {
        (format!("the {noun} file {name} cannot be read: {error}"), "let the broker's user read it".to_string())
    };
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some((
                format!("the {noun} file {name} does not exist"),
                format!("write the {noun} into it, in one line, and run chmod 600"),
            ));
        }
        Err(error) => return Some(unreadable(&error)),
    };
    let mode = meta.permissions().mode() & 0o777;
    // The group may read the file: so are secrets mounted into containers.
    if mode & 0o027 != 0 {
        return Some((
            format!("the {noun} file {name} has mode {mode:04o}, so others may read it"),
            format!("run: chmod 600 {name}"),
        ));
    }
    match std::fs::read_to_string(path) {
        Ok(text) if text.lines().next().is_none_or(str::is_empty) => {
            Some((format!("the {noun} file {name} is empty"), format!("write the {noun} into it, in one line")))
        }
        Ok(_) => None,
        Err(error) => Some(unreadable(&error)),
    }
}
