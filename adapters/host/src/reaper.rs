//! Ends what a lease left running on a host.
//!
//! Processes in the control group of the slot end with the group, wherever they went ([`crate::containment`]). The marks find the rest,
//! and all of it on a host without control groups.
//!
//! Every command that runs for a holder carries `WHARFINGER_LEASE=<lease>` in its environment, and children inherit it:
//! also those that left their process group or lost their parent. The kernel shows it in `/proc/<pid>/environ`, so the
//! mark finds them wherever they hid, without any bookkeeping that a crash could lose.
//!
//! Some processes do not show their environment even to their own user: ssh-agent and gpg-agent. Two more marks find them.
//! [`crate::fence::guarded`] gives each command its lease's [`number`] as the soft limit of file locks, which every user can
//! read. And a process of the own user that is unreadable and began after the lease counts as the lease's, unless it may be
//! another live lease's. See docs/adr/0018-unreadable-processes.md.
//!
//! A holder that takes all marks away on purpose escapes. Hosts that are shared by people who do not trust each other need
//! containers or users of their own.

use crate::containment::{Hit, read_hits};
use crate::fence;
pub use crate::mark::{LEASE_VARIABLE, number};
use crate::refusal::{failure, left};
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Shell};

/// Finds processes and control groups and ends them, and compares tokens: libraries that precede a script. The heads of the files
/// name the variables that they take.
pub const LIBRARIES: &str =
    concat!(include_str!("sh/cgroup.sh"), include_str!("sh/processes.sh"), include_str!("sh/fence.sh"));

/// Never ends itself: its process group is left out (a [`Shell`] runs each command in a group of its own).
const REAP: &str = concat!(
    include_str!("sh/cgroup.sh"),
    include_str!("sh/processes.sh"),
    include_str!("sh/fence.sh"),
    include_str!("sh/reap.sh")
);

/// The result of a lease's end on its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// How many processes were signalled.
    pub killed: u32,
    /// The lease's own limits that the kernel acted for.
    pub hits: Vec<Hit>,
}

/// Ends the processes of this lease on the host: SIGTERM, up to two seconds of grace, SIGKILL, until two looks in a row find
/// none. Returns how many it signalled.
///
/// # Errors
/// `PROCESSES_LEFT` (resource) if some outlive SIGKILL for ten seconds (stuck in the kernel, or another user's);
/// `UNREACHABLE` and the like if the host could not be asked.
pub async fn kill_lease_processes(shell: &dyn Shell, lease: &str) -> Result<u32, Failure> {
    end(shell, lease, "", 0).await.map(|reaped| reaped.killed)
}

/// Removes the slot's fence, so that the lease starts nothing more, and then ends what it left running; in one round trip.
///
/// # Errors
/// As [`kill_lease_processes`]; `CONTAINMENT_LOST` (resource) if the slot's control group cannot be looked at; `PROCESSES_UNREADABLE` (resource) if a process cannot be read and may be another live lease's;
/// `FENCED` (provider), with nothing touched, if the slot belongs to a later lease.
pub async fn end_lease(shell: &dyn Shell, lease: &str, fence: &str, token: u64) -> Result<Reaped, Failure> {
    end(shell, lease, fence, token).await
}

async fn end(shell: &dyn Shell, lease: &str, fence: &str, token: u64) -> Result<Reaped, Failure> {
    let (token_text, number) = (token.to_string(), number(lease).to_string());
    let argv = ["/bin/sh", "-c", REAP, "reaper", lease, fence, &token_text, &number];
    let command = Command::new(argv).timeout(Duration::from_secs(60));
    let output = shell.run(command).await.map_err(failure)?;
    match output.exit {
        Exit::Code(0) => {
            let text = output.text();
            let killed = text.lines().next().and_then(|line| line.parse().ok());
            let killed =
                killed.ok_or_else(|| Failure::bug("REAPER_ANSWER", format!("the reaper script answered {text:?}")))?;
            Ok(Reaped { killed, hits: read_hits(&text) })
        }
        Exit::Code(fence::REFUSED) => Err(fence::fenced(fence, token, &output)),
        Exit::Code(5) => Err(Failure::resource(
            "FENCE_NOT_REMOVED",
            format!("{fence} cannot be removed: {}; look at the disk and its permissions", output.complaint()),
        )),
        ref exit => Err(left(exit, &format!("lease {lease}"), &output).unwrap_or_else(|| {
            let text = format!("looking for processes of lease {lease} ended with {exit:?}: {}", output.complaint());
            Failure::resource("CLEAN_FAILED", text)
        })),
    }
}
