//! The meaning of SQLite's errors for the operator.

use crate::store::StoreError;
use std::io;
use std::path::Path;

const BUSY: i32 = 5;
const NO_MEMORY: i32 = 7;
const READ_ONLY: i32 = 8;
const IO: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANT_OPEN: i32 = 14;
const NOT_A_DATABASE: i32 = 26;

/// The primary result code (https://sqlite.org/rescode.html).
fn code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Sorts an error by who must act, with a remedy in its text.
pub(super) fn sorted(path: &Path, error: &sqlx::Error) -> StoreError {
    let file = path.display();
    match code(error) {
        Some(FULL) => StoreError::Unavailable(format!("no space left for the database {file}: free some ({error})")),
        Some(READ_ONLY) => StoreError::Unavailable(format!(
            "the database {file} cannot be written: make it and its folder writable for this user ({error})"
        )),
        Some(BUSY) => StoreError::Unavailable(format!(
            "another process keeps the database {file} locked: end it, such as a shell with an open transaction ({error})"
        )),
        Some(IO | CANT_OPEN) => StoreError::Unavailable(format!(
            "the database {file} cannot be read or written: check the disk and the permissions of the file and its \
             folder ({error})"
        )),
        Some(NO_MEMORY) => StoreError::Unavailable(format!("not enough memory for the database {file} ({error})")),
        Some(CORRUPT | NOT_A_DATABASE) => {
            StoreError::Corrupt(format!("the database {file} is damaged: restore a backup ({error})"))
        }
        Some(_) => StoreError::Corrupt(format!(
            "the database {file} does not have the shape that this version expects: restore a backup, or report it \
             ({error})"
        )),
        None => StoreError::Unavailable(format!("the database {file} does not answer: {error}")),
    }
}

/// As [`sorted`], for errors of files.
pub(super) fn sorted_io(path: &Path, what: &str, error: &io::Error) -> StoreError {
    let file = path.display();
    StoreError::Unavailable(match error.kind() {
        io::ErrorKind::StorageFull => format!("cannot {what} {file}: no space left: free some"),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("cannot {what} {file}: the file system is read-only: choose another place or mount it writable")
        }
        io::ErrorKind::PermissionDenied => {
            format!("cannot {what} {file}: permission denied: give this user the right to read and write it")
        }
        _ => format!("cannot {what} {file}: {error}"),
    })
}
