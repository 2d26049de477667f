//! Request ids of a job that has several commands, one after the other or at once.
//!
//! The same command of the same job asks with the same id, so that one that is started again while its lease lives gets that lease. Two
//! that run at once on this machine must not share one: each holds a lock on its id, and takes the next number if it is taken.

use crate::cli::run::login::private_folder_of_user;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Maximum number of commands with one id.
const NUMBERS_MAX: u32 = 200;

/// An id that no other process of this machine uses now.
#[derive(Debug)]
pub(crate) struct Claim {
    base: String,
    number: u32,
    lock: Option<(OwnedFd, PathBuf)>,
}

impl Claim {
    /// The first id that is free.
    pub(crate) fn take(base: String) -> Self {
        let mut claim = Self { base, number: 0, lock: None };
        claim.advance();
        claim
    }

    /// The id.
    pub(crate) fn id(&self) -> String {
        match self.number {
            0 | 1 => self.base.clone(),
            number => format!("{}+{number}", self.base),
        }
    }

    /// Goes on to the next id that is free: the lease of this one is over. Returns whether there is one.
    pub(crate) fn advance(&mut self) -> bool {
        self.release();
        while self.number < NUMBERS_MAX {
            self.number += 1;
            // Without a place for locks the ids are taken one after the other, by the leases that are over.
            let Ok(folder) = private_folder_of_user() else { return true };
            let path = folder.join(format!("ci-{:016x}.lock", super::number(&self.id())));
            match lock(&path) {
                Lock::Ours(file) => {
                    self.lock = Some((file, path));
                    return true;
                }
                Lock::Taken => {}
                Lock::Unknown => return true,
            }
        }
        false
    }

    fn release(&mut self) {
        // Removed under the lock: one that waits for this file sees that it has no name any more.
        if let Some((_file, path)) = self.lock.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

enum Lock {
    Ours(OwnedFd),
    Taken,
    Unknown,
}

fn lock(path: &PathBuf) -> Lock {
    for _ in 0..3 {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = open(path, flags, Mode::RUSR | Mode::WUSR) else { return Lock::Unknown };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if fstat(&file).is_ok_and(|about| about.st_nlink > 0) => return Lock::Ours(file),
            // It lost its name between the two calls.
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Lock::Taken,
            Err(_) => return Lock::Unknown,
        }
    }
    Lock::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_once_have_ids_of_their_own() {
        let base = format!("test-{}", crate::random::request_id());
        let first = Claim::take(base.clone());
        let mut second = Claim::take(base.clone());
        assert_eq!((first.id(), second.id()), (base.clone(), format!("{base}+2")));
        drop(first);
        let third = Claim::take(base.clone());
        assert_eq!(third.id(), base, "one that has ended leaves its id");
        assert!(second.advance());
        assert_eq!(second.id(), format!("{base}+3"));
    }
}
