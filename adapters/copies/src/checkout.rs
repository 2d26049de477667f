//! Checks out a commit, proves it, and remembers the proved index for the next checkout.

use crate::error::{State, StepError};
use crate::git::{REBUILD_AND_PROVE, WorkingCopy};
use crate::lfs;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The values of [`WARMTH`](wharfinger_adapter::access::WARMTH).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Warmth {
    Same,
    Near,
    Fetched,
    #[default]
    Cold,
}

impl Warmth {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Warmth::Same => "same",
            Warmth::Near => "near",
            Warmth::Fetched => "fetched",
            Warmth::Cold => "cold",
        }
    }
}

/// The report of a checkout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckoutReport {
    /// The former commit of the tree. Empty if it had none, or an unusable one.
    pub(crate) was: String,
    /// Number of files that the checkout wrote.
    pub(crate) written: u64,
    /// The digest of the proved index with its properties, for [`TrustedIndexes`].
    pub(crate) trust: Option<String>,
}

impl CheckoutReport {
    /// Parses the output of `prove.sh`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut done = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('\t')) {
            match key {
                "was" => done.was = value.to_string(),
                "written" => done.written = value.trim().parse().unwrap_or_default(),
                "trust" => done.trust = Some(value.to_string()),
                _ => {}
            }
        }
        done
    }
}

/// Checks out the commit and proves the tree. `mode`: "gentle", or "wipe" to write every file again. `default`: the remote's default
/// branch, or empty. `trust`: the entry of [`TrustedIndexes`] for this tree, or empty. `note`: the text of the lease file, or empty.
pub(crate) async fn check_out(
    copy: &WorkingCopy,
    commit: &str,
    mode: &str,
    default: &str,
    trust: &str,
    note: &str,
) -> Result<Result<CheckoutReport, State>, StepError> {
    let limit = copy.config.command_timeout() * 2;
    let mut args = vec![commit, copy.config.clean.word(), mode, default, trust, "", note];
    args.extend(copy.config.keep.iter().map(String::as_str));
    match copy.try_run(REBUILD_AND_PROVE, &args, limit).await? {
        Ok(text) => Ok(lfs::prove(copy, commit).await?.map(|()| CheckoutReport::parse(&text))),
        Err(state) => Ok(Err(state)),
    }
}

/// For each tree without a holder: the digest of an index whose files were all hashed after the processes of the last holder had
/// ended. They are in the broker's memory alone: a build can write every file on the host.
#[derive(Debug, Default)]
pub(crate) struct TrustedIndexes(Mutex<BTreeMap<String, BTreeMap<String, String>>>);

/// Maximum number of resources with an entry. The trees of others are proved in full.
const RESOURCES_MAX: usize = 100_000;

impl TrustedIndexes {
    /// Returns the entry of this tree. A stale entry does no harm: its digest does not match.
    pub(crate) fn of(&self, copy: &WorkingCopy) -> Option<String> {
        self.lock().get(&copy.resource)?.get(&copy.tree).cloned()
    }

    pub(crate) fn learn(&self, copy: &WorkingCopy, trust: Option<String>) {
        let Some(trust) = trust else {
            return;
        };
        let mut all = self.lock();
        if all.len() < RESOURCES_MAX || all.contains_key(&copy.resource) {
            all.entry(copy.resource.clone()).or_default().insert(copy.tree.clone(), trust);
        }
    }

    /// Removes the entries of a resource that gets a holder or is made anew.
    pub(crate) fn forget(&self, resource: &str) {
        self.lock().remove(resource);
    }

    /// Removes the entry of a tree that gets a holder.
    pub(crate) fn forget_tree(&self, copy: &WorkingCopy) {
        if let Some(trees) = self.lock().get_mut(&copy.resource) {
            trees.remove(&copy.tree);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeMap<String, String>>> {
        // A panic cannot leave the map between two states.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
