//! Questions to the remotes of a pool from one host, for `check-config --connect`. They leave nothing on the host.

use crate::config::Config;
use crate::git::WorkingCopy;
use crate::mirror::list;
use crate::parts::Parts;
use std::sync::Arc;
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Shell, ShellError};

/// Maximum time for the directory in which the answer is kept.
const LIMIT: Duration = Duration::from_secs(20);

/// The answer of one remote.
pub struct Asked {
    /// Its address.
    pub repository: String,
    /// Its branches in words; or the reason why it does not answer, with the remedy.
    pub result: Result<String, Failure>,
}

/// Asks each remote of the pool for its branches, as a lease on this host would, with the credentials of the pool.
pub async fn ask_remotes(shell: &Arc<dyn Shell>, config: &Config) -> Vec<Asked> {
    let made = scratch(shell).await;
    let copies = match &made {
        Ok(dir) => Parts::around(WorkingCopy::for_questions(Arc::clone(shell), dir, config), config, None).list,
        Err(_) => Vec::new(),
    };
    let mut asked = Vec::new();
    if let Err(failure) = &made {
        asked.push(Asked { repository: config.repository.clone(), result: Err(failure.clone()) });
    }
    for copy in copies {
        // One directory for all: they are asked one after the other.
        let copy = WorkingCopy { meta_dir: copy.dir.clone(), ..copy };
        asked.push(Asked { repository: copy.config.repository.clone(), result: ask(&copy).await });
    }
    if let Ok(dir) = made {
        let removed =
            shell.run(Command::new(["rm", "-rf", "--", &dir].map(String::from).to_vec()).timeout(LIMIT)).await;
        if !matches!(&removed, Ok(output) if output.exit == Exit::Code(0)) {
            tracing::warn!(dir, "the directory of a question cannot be removed");
        }
    }
    asked
}

async fn scratch(shell: &Arc<dyn Shell>) -> Result<String, Failure> {
    let argv = ["mktemp", "-d", "/tmp/wharfinger.XXXXXXXX"].map(String::from).to_vec();
    let output = shell.run(Command::new(argv).timeout(LIMIT)).await.map_err(failed)?;
    match output.exit {
        Exit::Code(0) => Ok(output.text()),
        Exit::Code(_) | Exit::Signal(_) | Exit::TimedOut => Err(Failure::configuration(
            "CANNOT_CREATE",
            format!("cannot make a directory in /tmp: {}; mend the host", output.complaint()),
        )),
    }
}

fn failed(error: ShellError) -> Failure {
    crate::error::StepError::from(error).into()
}

async fn ask(copy: &WorkingCopy) -> Result<String, Failure> {
    let wanted = copy.config.default_branch.as_ref().map(|branch| format!("refs/heads/{branch}"));
    let names: Vec<String> = wanted.iter().cloned().collect();
    let listing = list(copy, &names).await.map_err(Failure::from)?;
    match (&copy.config.default_branch, listing.default) {
        (Some(branch), _) if wanted.is_some_and(|name| listing.refs.contains_key(&name)) => {
            Ok(format!("answers; it has branch {branch}"))
        }
        (Some(branch), _) => Err(Failure::configuration(
            "UNKNOWN_REF",
            format!("has no branch {branch:?}; mend default_branch of the pool"),
        )),
        (None, Some(branch)) => Ok(format!("answers; its default branch is {branch}")),
        (None, None) => Ok("answers; it names no default branch, so that a lease has to name one".into()),
    }
}
