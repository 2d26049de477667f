//! Restoring: the file is filled beside its place, and moved there when it is complete.

use super::SqliteStore;
use super::error::sorted_io;
use crate::store::StoreError;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

fn named(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    PathBuf::from(name)
}

fn beside(path: &Path) -> PathBuf {
    named(path, ".restoring")
}

/// Removes a database with its log and lock.
fn remove(path: &Path) -> Result<(), StoreError> {
    for more in ["", "-wal", "-shm", ".lock"] {
        let file = named(path, more);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(sorted_io(&file, "remove", &error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

impl SqliteStore {
    /// Opens an empty store beside its place.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] if the place has a file already; as of [`SqliteStore::open`].
    pub async fn open_beside(path: &Path) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Configuration(format!(
                "there is a file {} already: move it out of the way, or name another",
                path.display()
            )));
        }
        // The remains of an interrupted attempt.
        remove(&beside(path))?;
        SqliteStore::open(&beside(path)).await
    }

    /// Moves the filled file into its place. The store must be closed and dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the file cannot be renamed.
    pub fn put_in_place(path: &Path) -> Result<(), StoreError> {
        let from = beside(path);
        // A closed database is one file.
        let log = named(&from, "-wal");
        if log.exists() {
            return Err(StoreError::Unavailable(format!("the log {} was not moved into the database", log.display())));
        }
        fs::rename(&from, path).map_err(|error| sorted_io(path, "put the database in its place,", &error))?;
        remove(&from)
    }
}
