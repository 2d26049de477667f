//! Leftovers of a resource on a host that was given up, swept when the host comes back.
//!
//! A host that does not answer is given up. The processes of its leases run on, and its directory stays. When it answers
//! again, it is a new resource with a directory of its own. So each scratch directory has another one beside it, out of
//! the way of a build's slips:
//!
//! ```text
//! <hosts>/<resource>/               the scratch directory
//! <hosts>/<resource>.owner/mark     one line: deployment, pool, inventory entry
//! <hosts>/<resource>.owner/lease.N  the last lease of slot N
//! <hosts>/<resource>.owner/copy.C   where working copy C lies, if elsewhere
//! <hosts>/.wharfinger-trash.*       what is being removed
//! ```
//!
//! [`claim`] looks for marks that are, but for the id, its own. What such a resource left is renamed, its fences with it, so
//! that nothing is started there any more. Then the processes are ended that are in a control group of its slots, or carry one of its leases or a fence in its directories
//! ([`crate::reaper`]), or whose directory or program lies there; what runs for another resource matches none of these.
//! The trees are removed in the background, with the least priority, by a process that outlives the connection.
//!
//! Ids sort by age, and only what is older is swept: a call that was held up somewhere finds nothing. An entry has one
//! resource at a time, so that what is older is over. Pools without an inventory have several on one machine; they are not swept.

use crate::refusal::{failure, left};
use std::collections::BTreeMap;
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, ResourceId, ResourceJob, Shell};

const SCRIPT: &str =
    concat!(include_str!("sh/cgroup.sh"), include_str!("sh/processes.sh"), include_str!("sh/sweep.sh"));
const REMOVER: &str = include_str!("sh/remover.sh");

/// Ending processes takes 24 seconds at most, and everything else is renaming.
const LIMIT: Duration = Duration::from_secs(60);

/// The result of [`claim`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Resources whose leftovers were taken away.
    pub resources: u32,
    /// Processes that were signalled.
    pub processes: u32,
    /// Directories that could not be renamed (something is mounted there, or they are another user's).
    pub kept: String,
    /// Whether the mark was written; if not, the disk or its permissions are to blame.
    pub marked: bool,
}

/// The directory beside a scratch directory.
pub fn beside(scratch: &str) -> String {
    format!("{}.owner", scratch.trim_end_matches('/'))
}

/// The line that tells whose a directory is. `None`: a resource without an inventory entry, or with an id that no broker made.
pub fn owner(job: &ResourceJob) -> Option<String> {
    let item = job.item.as_deref()?;
    let deployment = job.resource.parse::<ResourceId>().ok()?.salt();
    // Escaped, so that it is one line whatever the names are.
    Some(format!("wharfinger 1 deployment={deployment:04x} pool={:?} item={item:?}", job.pool))
}

/// Marks a resource's directory as this owner's, and takes away what earlier resources of the same owner left on this host.
///
/// # Errors
/// `PROCESSES_LEFT` (resource) if some outlive SIGKILL; `PROCESSES_UNREADABLE` (resource), see [`crate::reaper`]; `PROC_MISSING` (configuration); `SWEEP_FAILED` (resource); or what kept
/// us from asking. The next call goes on from there.
pub async fn claim(shell: &dyn Shell, scratch: &str, owner: &str) -> Result<Swept, Failure> {
    let (hosts, resource) = scratch
        .trim_end_matches('/')
        .rsplit_once('/')
        .ok_or_else(|| Failure::bug("SCRATCH_RELATIVE", format!("{scratch:?} is no absolute path")))?;
    let argv = ["/bin/sh", "-c", SCRIPT, "wharfinger-sweep", hosts, resource, owner, REMOVER];
    let output = shell.run(Command::new(argv).timeout(LIMIT)).await.map_err(failure)?;
    match output.exit {
        Exit::Code(0) => {}
        ref exit => {
            return Err(left(exit, "an earlier lease of this host", &output).unwrap_or_else(|| {
                let text = format!(
                    "looking under {hosts} for what earlier resources left ended with {exit:?}: {}",
                    output.complaint()
                );
                Failure::resource("SWEEP_FAILED", text)
            }));
        }
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let said: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let number = |key: &str| said.get(key).and_then(|value| value.parse().ok());
    match (number("swept"), number("killed"), said.get("marked"), said.get("kept")) {
        (Some(resources), Some(processes), Some(marked), Some(kept)) => {
            Ok(Swept { resources, processes, kept: kept.trim().to_string(), marked: *marked == "yes" })
        }
        _ => Err(Failure::bug("SWEEP_ANSWER", format!("the sweeping script answered {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_one_line_and_tells_pools_and_entries_apart() {
        let job = |pool: &str, item: Option<&str>| ResourceJob {
            pool: pool.into(),
            resource: "res_01KAV9FT00QVQG00000000001A".into(),
            op: 1,
            item: item.map(String::from),
            handle: None,
            parent: None,
        };
        let mark = owner(&job("farm", Some("alpha"))).unwrap();
        assert_eq!(mark, "wharfinger 1 deployment=beef pool=\"farm\" item=\"alpha\"");
        assert_ne!(owner(&job("farm\" item=\"a", Some("b"))), owner(&job("farm", Some("a\" item=\"b"))));
        assert!(!owner(&job("a\nb", Some("c\nd"))).unwrap().contains('\n'));
        assert_eq!(owner(&job("farm", None)), None);
        let foreign = ResourceJob { resource: "res_1".into(), ..job("farm", Some("alpha")) };
        assert_eq!(owner(&foreign), None, "an id that no broker made");
    }
}
