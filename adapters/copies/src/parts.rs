//! The working copies of one resource: one, or a directory for each of several repositories.
//!
//! ```text
//! <root>/<id>/tree/           the only repository, or:
//! <root>/<id>/tree/<dir>/     one of several
//! <root>/<id>/meta/           metadata of the resource, and of the only repository
//! <root>/<id>/parts/<dir>/    metadata of one of several; `parked` is the part itself while a lease wants it out of the tree
//! ```
//!
//! Processes are ended, and the fence is set, once for the resource. All other steps run for each part, in parallel.

use crate::config::Config;
use crate::error::{State, StepError};
use crate::git::{ARRANGE_PARTS, Handle, WorkingCopy};
use futures::future::join_all;
use wharfinger_adapter::{Blame, Failure, ResourceJob, Verdict};

/// All working copies of a resource.
pub(crate) struct Parts {
    /// The resource as one: its whole tree, with the metadata of the resource.
    pub(crate) whole: WorkingCopy,
    /// The working copies, in the order of their directories.
    pub(crate) list: Vec<WorkingCopy>,
    /// Index of the default part in `list`.
    pub(crate) default: usize,
}

impl Parts {
    /// Returns the copies of a job's resource.
    ///
    /// # Errors
    /// `BAD_HANDLE` (bug), and the errors of [`WorkingCopy::of`].
    pub(crate) fn of(job: &ResourceJob, config: &Config) -> Result<Self, Failure> {
        let handle = match job.handle.as_deref() {
            None | Some("") => None,
            Some(text) => Some(serde_json::from_str::<Handle>(text).map_err(|error| {
                Failure::bug("BAD_HANDLE", format!("cannot read the handle of {}: {error}", job.resource))
            })?),
        };
        let whole = WorkingCopy::of(job, config, handle.as_ref())?;
        Ok(Self::around(whole, config, handle.as_ref()))
    }

    /// The parts of this resource.
    pub(crate) fn around(whole: WorkingCopy, config: &Config, handle: Option<&Handle>) -> Self {
        let list: Vec<WorkingCopy> = if config.repositories.is_empty() {
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
                    WorkingCopy {
                        tree: format!("{}/tree/{dir}", whole.dir),
                        meta_dir: format!("{}/parts/{dir}", whole.dir),
                        part: dir.clone(),
                        // The whole resource has the locator.
                        locator: String::new(),
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

    /// The directories of the parts. One empty name if the tree is the only repository.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.list.iter().map(|copy| copy.part.as_str()).collect()
    }

    /// Moves each part into the tree or out of it. Removes other files beside them, unless the pool keeps files.
    pub(crate) async fn arrange(&self, inside: impl Fn(usize) -> bool) -> Result<(), StepError> {
        if !self.several() {
            return Ok(());
        }
        let placements = self.placements(inside);
        let mut args = vec![self.whole.config.clean.word()];
        args.extend(placements.iter().map(String::as_str));
        self.whole.run(ARRANGE_PARTS, &args, self.whole.config.command_timeout()).await.map(drop)
    }

    /// Returns the parts where they are now. A lease may have some of them out of the tree.
    pub(crate) async fn present(&self) -> Result<Vec<WorkingCopy>, StepError> {
        let mut list = self.list.clone();
        if self.several() {
            let placements = self.placements(|_| true);
            let mut args = vec!["look"];
            args.extend(placements.iter().map(String::as_str));
            let away = self.whole.run(ARRANGE_PARTS, &args, self.whole.config.command_timeout()).await?;
            for copy in list.iter_mut().filter(|copy| away.lines().any(|dir| dir == copy.part)) {
                copy.tree = copy.meta_path("parked");
            }
        }
        Ok(list)
    }

    fn placements(&self, inside: impl Fn(usize) -> bool) -> Vec<String> {
        let sign = |at| if inside(at) { '+' } else { '-' };
        self.list.iter().enumerate().map(|(at, copy)| format!("{}{}", sign(at), copy.part)).collect()
    }

    /// Runs a step for each part in parallel, and waits for all of them: an early error does not cancel the others.
    pub(crate) async fn each<'a, T, F>(
        &'a self,
        step: impl Fn(usize, &'a WorkingCopy) -> F,
    ) -> Vec<Result<T, StepError>>
    where
        F: Future<Output = Result<T, StepError>>,
    {
        let steps = self.list.iter().enumerate().map(|(at, copy)| {
            let step = step(at, copy);
            async move { step.await.map_err(|error| named(copy, error)) }
        });
        join_all(steps).await
    }
}

/// Returns the error with the name of the part in front of its message.
pub(crate) fn named(copy: &WorkingCopy, error: StepError) -> StepError {
    if copy.part.is_empty() {
        return error;
    }
    match error {
        StepError::State(State { reason, detail }) => {
            StepError::State(State { reason, detail: format!("{}: {detail}", copy.part) })
        }
        StepError::Failure(mut failure) => {
            failure.message = format!("{}: {}", copy.part, failure.message);
            StepError::Failure(failure)
        }
        // An error of the host concerns all parts.
        shell @ StepError::Shell(_) => shell,
    }
}

/// Returns all results, or the error of the first rank: a mistake of the request precedes those of the configuration, bugs, the
/// host, the copy and the provider.
pub(crate) fn all<T>(results: Vec<Result<T, StepError>>) -> Result<Vec<T>, StepError> {
    let mut done = Vec::new();
    let mut worst: Option<(u8, StepError)> = None;
    for result in results {
        match result {
            Ok(value) => done.push(value),
            Err(error) => {
                let rank = match &error {
                    StepError::Failure(failure) => match failure.blame {
                        Blame::Request => 0,
                        Blame::Configuration => 1,
                        Blame::Bug => 2,
                        Blame::Resource => 4,
                        Blame::Provider => 5,
                    },
                    StepError::Shell(_) => 3,
                    StepError::State(_) => 4,
                };
                if worst.as_ref().is_none_or(|(other, _)| rank < *other) {
                    worst = Some((rank, error));
                }
            }
        }
    }
    match worst {
        Some((_, error)) => Err(error),
        None => Ok(done),
    }
}

/// Returns the worst of the verdicts on the parts as the verdict on the whole.
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
