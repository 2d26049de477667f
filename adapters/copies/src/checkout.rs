//! Bringing the tree to a commit, and what is known of it afterwards.

use crate::error::{State, StepError};
use crate::git::{REBUILD_AND_PROVE, WorkingCopy};
use crate::lfs;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The words of [`WARMTH`](wharfinger_adapter::access::WARMTH).
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

/// What a checkout found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckoutReport {
    /// The commit that the tree was at; empty if there was none, or it could not be made use of.
    pub(crate) was: String,
    /// Files written.
    pub(crate) written: u64,
    /// What there is to know of the index; for [`TrustedIndexes`].
    pub(crate) trust: Option<String>,
}

impl CheckoutReport {
    /// Reads what `prove.sh` printed.
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

/// Checks out and proves. `trust` is what [`TrustedIndexes`] knows of the index, or empty; `note` is left for who looks at the
/// copy while it is leased.
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

/// What is known of the trees that nobody has: the digest of an index whose every file was hashed after its last holder
/// was gone, and what it is the index of. Kept here alone, since whatever lies on the host can be written by a build.
#[derive(Debug, Default)]
pub(crate) struct TrustedIndexes(Mutex<BTreeMap<String, BTreeMap<String, String>>>);

/// More resources than any broker has; the rest are proved in full.
const MOST: usize = 100_000;

impl TrustedIndexes {
    /// What is known of this tree. It stays known: if nothing else does, the digest tells.
    pub(crate) fn of(&self, copy: &WorkingCopy) -> Option<String> {
        self.lock().get(&copy.resource)?.get(&copy.tree).cloned()
    }

    pub(crate) fn learn(&self, copy: &WorkingCopy, trust: Option<String>) {
        let Some(trust) = trust else {
            return;
        };
        let mut all = self.lock();
        if all.len() < MOST || all.contains_key(&copy.resource) {
            all.entry(copy.resource.clone()).or_default().insert(copy.tree.clone(), trust);
        }
    }

    /// Somebody has this resource now, or it is made anew.
    pub(crate) fn forget(&self, resource: &str) {
        self.lock().remove(resource);
    }

    /// Somebody has this tree now.
    pub(crate) fn forget_tree(&self, copy: &WorkingCopy) {
        if let Some(trees) = self.lock().get_mut(&copy.resource) {
            trees.remove(&copy.tree);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeMap<String, String>>> {
        // A map is whole between any two calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
