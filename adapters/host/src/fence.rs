//! The fence of a slot: a file on the host that holds the fencing token of the slot's present lease, and nothing else.
//!
//! Tokens grow with every lease of a slot. The adapter writes the file when it prepares the slot, and removes it, before all
//! else, when it cleans it; a command that is [`guarded`] runs only while its own token stands there. So a holder that has
//! not yet heard that its lease is over starts nothing any more, and one that passed just before carries the mark of its
//! lease already ([`crate::reaper`]) and is ended by the clean-up that removed the file.
//!
//! See docs/fencing.md for what this guards and what it does not.

use crate::containment::Containment;
use crate::mark::{self, LEASE_VARIABLE};
use crate::refusal::{failure, left};
use std::time::Duration;
use wharfinger_adapter::{Command, Exit, Failure, Output, Shell};

/// Exit code of a guarded command that was refused.
pub const REFUSED: i32 = 113;

/// The least of commands takes this long only on a host that hangs.
const LIMIT: Duration = Duration::from_secs(30);

const GUARD: &str = include_str!("sh/guard.sh");

const SET: &str = concat!(include_str!("sh/cgroup.sh"), include_str!("sh/fence.sh"), include_str!("sh/set_fence.sh"));

/// The fence of a slot of a host, under the scratch directory of its resource.
pub fn path(scratch: &str, slot: u32) -> String {
    format!("{}/.wharfinger/fence.{slot}", scratch.trim_end_matches('/'))
}

/// The same command, behind the fence and in the control groups of the slot: the host's `/bin/sh` compares first, and ends with [`REFUSED`] and a message on standard
/// error if the file has another token. A program that is not there ends with 127, as in a shell. The lease is taken from the
/// command's [`LEASE_VARIABLE`]: its number marks what the command starts (see [`crate::reaper`]).
pub fn guarded(command: Command, path: &str, token: u64) -> Command {
    let number = command.env.get(LEASE_VARIABLE).map(|lease| mark::number(lease).to_string()).unwrap_or_default();
    let mut argv: Vec<String> = ["/bin/sh", "-c", GUARD, "wharfinger-fence", path].map(String::from).into();
    argv.extend([token.to_string(), number]);
    argv.extend(command.argv);
    Command { argv, ..command }
}

/// Says that the slot belongs to this token from now on, notes the lease for [`crate::sweep`], and makes the slot's control
/// groups (`containment.required`: or fails).
///
/// # Errors
/// `FENCED` (provider) if it belongs to a later one; `FENCE_NOT_WRITTEN` (resource); `NOT_CONTAINED` (configuration) if a group
/// cannot be made or a limit cannot be set; `PROCESSES_LEFT` (resource) if a former lease left what does not end; or what kept
/// us from asking.
pub async fn set(
    shell: &dyn Shell,
    path: &str,
    token: u64,
    lease: &str,
    containment: &Containment,
) -> Result<(), Failure> {
    let output = shell.run(set_command(path, token, lease, containment)).await.map_err(failure)?;
    was_set(path, token, &output)
}

/// The command behind [`set`], for adapters that run it their own way.
pub fn set_command(path: &str, token: u64, lease: &str, containment: &Containment) -> Command {
    let (token, number) = (token.to_string(), mark::number(lease).to_string());
    let must = if containment.required { "yes" } else { "" };
    let [memory, cpu, pids] = containment.limits.arguments();
    let argv = ["/bin/sh", "-c", SET, "wharfinger-fence", path, &token, lease, &number, must, &memory, &cpu, &pids];
    Command::new(argv).timeout(LIMIT)
}

/// The result of [`set_command`].
///
/// # Errors
/// As [`set`].
pub fn was_set(path: &str, token: u64, output: &Output) -> Result<(), Failure> {
    match output.exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(REFUSED) => Err(fenced(path, token, output)),
        Exit::Code(7) => Err(Failure::configuration(
            "NOT_CONTAINED",
            format!(
                "the slot of {path} cannot be contained: {}; let the broker's user make control groups on the host, or take \
                 require_containment and [pool.limits] out of the pool",
                output.complaint()
            ),
        )),
        ref exit => Err(left(exit, "an earlier lease of this slot", output).unwrap_or_else(|| {
            let text = output.complaint();
            Failure::resource(
                "FENCE_NOT_WRITTEN",
                format!("writing {path} ended with {exit:?}: {text}; look at the disk and its permissions"),
            )
        })),
    }
}

/// A later lease has the slot: the caller is outdated, and the resource is well.
pub(crate) fn fenced(path: &str, token: u64, output: &Output) -> Failure {
    Failure::provider(
        "FENCED",
        format!(
            "{path} belongs to token {}, which is later than {token}: another broker, or a later state of this one, has \
             leased the slot since; look for a second broker with the same hosts",
            output.complaint()
        ),
    )
}
