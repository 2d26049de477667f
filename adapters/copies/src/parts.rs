//! The working copies that one resource holds: one, or a directory for each of several repositories.
//!
//! ```text
//! <root>/<id>/tree/           the only repository, or:
//! <root>/<id>/tree/<dir>/     one of several
//! <root>/<id>/meta/           notes on the resource, and on the only repository
//! <root>/<id>/parts/<dir>/    notes on one of several; in `parked` it lies while a lease lasts that wants it out of the tree
//! ```
//!
//! Processes are ended, and the fence is set, once for the resource; all else happens part by part, and beside each other.

use crate::config::Config;
use crate::error::{State, Trouble};
use crate::git::{ARRANGE, Copy, Handle};
use futures::future::join_all;
use wharfinger_adapter::{Blame, Failure, ResourceJob, Verdict};

/// All working copies of a resource.
pub(crate) struct Parts {
    /// The resource as one: its whole tree, and the notes on it.
    pub(crate) whole: Copy,
    /// Its working copies, by their directories.
    pub(crate) list: Vec<Copy>,
    /// Which of them a lease means that names none.
    pub(crate) default: usize,
}

impl Parts {
    /// Finds out where the job's copies lie.
    pub(crate) fn of(job: &ResourceJob, config: &Config) -> Result<Self, Failure> {
        let handle = match job.handle.as_deref() {
            None | Some("") => None,
            Some(text) => Some(serde_json::from_str::<Handle>(text).map_err(|error| {
                Failure::bug("BAD_HANDLE", format!("cannot read the handle of {}: {error}", job.resource))
            })?),
        };
        let whole = Copy::of(job, config, handle.as_ref())?;
        Ok(Self::around(whole, config, handle.as_ref()))
    }

    /// The parts of this resource.
    pub(crate) fn around(whole: Copy, config: &Config, handle: Option<&Handle>) -> Self {
        let list: Vec<Copy> = if config.repositories.is_empty() {
            vec![whole.clone()]
        } else {
            config
                .repositories
                .iter()
                .map(|(dir, source)| {
                    let mut config = config.clone();
                    config.repository = source.repository.clone();
                    config.default_branch = source.default_branch.clone();
                    config.sparse = source.sparse.clone();
                    Copy {
                        at: format!("{}/tree/{dir}", whole.dir),
                        notes: format!("{}/parts/{dir}", whole.dir),
                        part: dir.clone(),
                        // That there is a copy is noted once, for the whole.
                        note: String::new(),
                        format: handle.and_then(|handle| handle.parts.get(dir)).cloned(),
                        config,
                        ..whole.clone()
                    }
                })
                .collect()
        };
        let default = config.default_part();
        let default = list.iter().position(|copy| copy.part == default).unwrap_or_default();
        Self { whole, list, default }
    }

    /// Whether the tree holds several repositories.
    pub(crate) fn several(&self) -> bool {
        self.list.iter().any(|copy| !copy.part.is_empty())
    }

    /// The directories; one that is empty if the tree is the repository.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.list.iter().map(|copy| copy.part.as_str()).collect()
    }

    /// Brings each part into the tree, or out of it, and removes what lies beside them if the pool wants it clean.
    pub(crate) async fn arrange(&self, inside: impl Fn(usize) -> bool) -> Result<(), Trouble> {
        if !self.several() {
            return Ok(());
        }
        let words = self.words(inside);
        let mut args = vec![self.whole.config.clean.word()];
        args.extend(words.iter().map(String::as_str));
        self.whole.must(ARRANGE, &args, self.whole.config.command_timeout()).await.map(drop)
    }

    /// The parts where they are now: a lease may have some of them put away.
    pub(crate) async fn present(&self) -> Result<Vec<Copy>, Trouble> {
        let mut list = self.list.clone();
        if self.several() {
            let words = self.words(|_| true);
            let mut args = vec!["look"];
            args.extend(words.iter().map(String::as_str));
            let away = self.whole.must(ARRANGE, &args, self.whole.config.command_timeout()).await?;
            for copy in list.iter_mut().filter(|copy| away.lines().any(|dir| dir == copy.part)) {
                copy.at = copy.meta("parked");
            }
        }
        Ok(list)
    }

    fn words(&self, inside: impl Fn(usize) -> bool) -> Vec<String> {
        let sign = |at| if inside(at) { '+' } else { '-' };
        self.list.iter().enumerate().map(|(at, copy)| format!("{}{}", sign(at), copy.part)).collect()
    }

    /// Does something with each part, all at once, and waits for all: what ends early must not cut off the others.
    pub(crate) async fn each<'a, T, F>(&'a self, step: impl Fn(usize, &'a Copy) -> F) -> Vec<Result<T, Trouble>>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let steps = self.list.iter().enumerate().map(|(at, copy)| {
            let step = step(at, copy);
            async move { step.await.map_err(|trouble| named(copy, trouble)) }
        });
        join_all(steps).await
    }
}

/// The trouble, with the part's name in front of what it says.
pub(crate) fn named(copy: &Copy, trouble: Trouble) -> Trouble {
    if copy.part.is_empty() {
        return trouble;
    }
    match trouble {
        Trouble::State(State { reason, detail }) => {
            Trouble::State(State { reason, detail: format!("{}: {detail}", copy.part) })
        }
        Trouble::Failure(mut failure) => {
            failure.message = format!("{}: {}", copy.part, failure.message);
            Trouble::Failure(failure)
        }
        // The host's, whichever part it was about.
        shell @ Trouble::Shell(_) => shell,
    }
}

/// All of the results, or the trouble that matters most: a request that cannot be served is told so, whatever else is wrong.
pub(crate) fn all<T>(results: Vec<Result<T, Trouble>>) -> Result<Vec<T>, Trouble> {
    let mut done = Vec::new();
    let mut worst: Option<(u8, Trouble)> = None;
    for result in results {
        match result {
            Ok(value) => done.push(value),
            Err(trouble) => {
                let rank = match &trouble {
                    Trouble::Failure(failure) => match failure.blame {
                        Blame::Request => 0,
                        Blame::Configuration => 1,
                        Blame::Bug => 2,
                        Blame::Resource => 4,
                        Blame::Provider => 5,
                    },
                    Trouble::Shell(_) => 3,
                    Trouble::State(_) => 4,
                };
                if worst.as_ref().is_none_or(|(other, _)| rank < *other) {
                    worst = Some((rank, trouble));
                }
            }
        }
    }
    match worst {
        Some((_, trouble)) => Err(trouble),
        None => Ok(done),
    }
}

/// The verdict on the whole from those on its parts: the one that leaves the least to be done with it.
pub(crate) fn verdict_of(verdicts: Vec<Verdict>) -> Verdict {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Gone { .. } => 0,
        Verdict::Unreachable { .. } => 1,
        Verdict::Mangled { repairable: false, .. } => 2,
        Verdict::Mangled { repairable: true, .. } => 3,
        Verdict::Healthy => 4,
    };
    verdicts.into_iter().min_by_key(rank).unwrap_or(Verdict::Healthy)
}
