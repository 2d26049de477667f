//! The file `meta/lease` of a working copy on its host. While it is there, a check accepts another configuration: the holder may
//! change it.

use crate::error::StepError;
use crate::git::WorkingCopy;
use serde::{Deserialize, Serialize};
use wharfinger_adapter::{Failure, HolderWork};

/// The lease that has the copy, and the commit that it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseFile {
    pub(crate) lease: String,
    pub(crate) token: u64,
    pub(crate) commit: String,
}

impl LeaseFile {
    /// The JSON text of the file.
    pub(crate) fn text(work: &HolderWork, commit: &str) -> Result<String, Failure> {
        let file = LeaseFile { lease: work.lease.clone(), token: work.token, commit: commit.to_string() };
        serde_json::to_string(&file).map_err(|error| Failure::bug("BAD_NOTE", error.to_string()))
    }

    /// The JSON text of the file before and after the commit.
    pub(crate) fn around(work: &HolderWork) -> Result<(String, String), Failure> {
        let mut head = Self::text(work, "")?;
        // The commit is the last field.
        let tail = head.split_off(head.len() - "\"}".len());
        Ok((head, tail))
    }

    /// Writes the file on the host.
    pub(crate) async fn write(copy: &WorkingCopy, work: &HolderWork, commit: &str) -> Result<(), StepError> {
        let text = Self::text(work, commit)?;
        Ok(copy.shell.put(&copy.meta_path("lease"), text.into_bytes().into(), 0o600).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_are_the_text_around_the_commit() {
        let work = HolderWork { lease: "lse_\"1\"".into(), token: 7, ..HolderWork::default() };
        let (head, tail) = LeaseFile::around(&work).unwrap();
        assert_eq!(format!("{head}abc{tail}"), LeaseFile::text(&work, "abc").unwrap());
    }
}
