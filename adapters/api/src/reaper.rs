//! Ends what a lease left running on a host.
//!
//! Every command that runs for a holder carries `WHARFINGER_LEASE=<lease>` in its environment, and children inherit it:
//! also those that left their process group or lost their parent. The kernel shows it in `/proc/<pid>/environ`, so the
//! mark finds them wherever they hid, without any bookkeeping that a crash could lose.
//!
//! A holder that wants to escape (an emptied environment **and** a session of its own) can. That is beyond this
//! module: hosts that are shared by people who do not trust each other need containers or users of their own.

use crate::{Command, Exit, Failure, Shell, ShellError, fence};
use std::time::Duration;

/// The variable that marks the processes of a lease.
pub const LEASE_VARIABLE: &str = "WHARFINGER_LEASE";

/// One script for every kind of host: POSIX sh, `cat`, `grep`, `awk`, `sleep`; Linux for its `/proc`.
///
/// It never kills itself, also where its own environment carries the mark: its process group is left out (a
/// [`Shell`] runs each command in a group of its own). A process whose environment we may not read is not ours.
const SCRIPT: &str = r#"
lease=$1 fence=$2 token=$3
if [ -n "$fence" ]; then
@COMPARE@
rm -f -- "$fence" || exit 5
fi
unset WHARFINGER_LEASE
[ -r /proc/self/stat ] || { echo 'no /proc on this host' >&2; exit 4; }
mark="WHARFINGER_LEASE=$lease"
if printf 'a\0b\0' | grep -qzxF b 2>/dev/null; then zero=yes; else zero=; fi

# The processes that carry the mark. A name in /proc may vanish at any time; that is no error.
marked() {
  if [ -n "$zero" ]; then
    grep -lzxF -- "$mark" /proc/[0-9]*/environ 2>/dev/null
  else
    for file in /proc/[0-9]*/environ; do
      tr '\0' '\n' <"$file" 2>/dev/null | grep -qxF -- "$mark" && echo "$file"
    done
  fi | while IFS=/ read -r _ _ pid _; do echo "$pid"; done
}
@ENDING@
end_all
echo "$ended"
"#;

/// Defines `end_all`: ends whatever `marked` prints, and says in `ended` how many it signalled.
pub(crate) const ENDING: &str = r#"
own_group() {
  read -r line <"/proc/$$/stat"
  line=${line##*) }
  set -- $line
  own=$3
}

# Adds to $groups each process group whose leader is marked: whoever is in it is theirs, marked or not. Leaves in $others
# the marked processes that are not our own: a subshell shows the environment that its shell began with.
groups=' '
sort_out() {
  others=
  for pid in $1; do
    { read -r line <"/proc/$pid/stat"; } 2>/dev/null || continue
    line=${line##*) }
    set -- $line
    [ "$3" != "$own" ] || continue
    others="$others $pid"
    [ "$3" = "$pid" ] || continue
    case $groups in *" $3 "*) ;; *) groups="$groups$3 " ;; esac
  done
}

# The living members of the noted groups.
members() {
  [ "$groups" != ' ' ] || return 0
  cat /proc/[0-9]*/stat 2>/dev/null | awk -v groups="$groups" '
    { pid = $1; sub(/^.*\) /, ""); if ($1 != "Z" && $1 != "X" && index(groups, " " $3 " ")) print pid }'
}

find_all() {
  sort_out "$(marked)"
  all=' '
  for pid in $others $(members); do
    case $all in *" $pid "*) ;; *) all="$all$pid " ;; esac
  done
}

# One that forks while we look may slip through one look, hardly through two in a row.
end_all() {
  own_group
  seen=' '
  ended=0
  rounds=0
  calm=0
  while :; do
    find_all
    if [ "$all" = ' ' ]; then
      calm=$((calm + 1))
      [ $calm -lt 2 ] || break
      continue
    fi
    calm=0
    [ $rounds -lt 120 ] || { echo "still running after SIGKILL:$all" >&2; exit 3; }
    for pid in $all; do
      if [ $rounds -ge 20 ]; then
        kill -s KILL "$pid" 2>/dev/null
      else
        case $seen in *" $pid "*) ;; *) kill -s TERM "$pid" 2>/dev/null ;; esac
      fi
      case $seen in *" $pid "*) ;; *) seen="$seen$pid "; ended=$((ended + 1)) ;; esac
    done
    rounds=$((rounds + 1))
    sleep 0.1 2>/dev/null || { sleep 1; rounds=$((rounds + 9)); }
  done
}
"#;

/// Kills the processes of this lease on the host: SIGTERM, up to two seconds of grace, SIGKILL, until two looks in a
/// row find none. Says how many it signalled.
///
/// # Errors
/// `PROCESSES_LEFT` (resource) if some outlive SIGKILL for ten seconds (stuck in the kernel, or another user's);
/// `UNREACHABLE` and the like if the host could not be asked.
pub async fn kill_lease_processes(shell: &dyn Shell, lease: &str) -> Result<u32, Failure> {
    end(shell, lease, "", 0).await
}

/// Removes the slot's fence, so that the lease starts nothing any more, and then ends what it left running; in one round
/// trip.
///
/// # Errors
/// As [`kill_lease_processes`]; `FENCED` (provider), with nothing touched, if the slot belongs to a later lease.
pub async fn end_lease(shell: &dyn Shell, lease: &str, fence: &str, token: u64) -> Result<u32, Failure> {
    end(shell, lease, fence, token).await
}

async fn end(shell: &dyn Shell, lease: &str, fence: &str, token: u64) -> Result<u32, Failure> {
    let script = SCRIPT.replace("@COMPARE@", fence::COMPARE).replace("@ENDING@", ENDING);
    let argv = ["/bin/sh", "-c", &script, "reaper", lease, fence, &token.to_string()];
    let command = Command::new(argv).timeout(Duration::from_secs(60));
    let output = shell.run(command).await.map_err(failure)?;
    match output.exit {
        Exit::Code(0) => output
            .text()
            .parse()
            .map_err(|_| Failure::bug("REAPER_ANSWER", format!("the reaper script answered {:?}", output.text()))),
        Exit::Code(3) => Err(Failure::resource(
            "PROCESSES_LEFT",
            format!(
                "processes of lease {lease} do not end: {}; look at them on the host, or recycle it",
                output.complaint()
            ),
        )),
        Exit::Code(fence::REFUSED) => Err(fence::fenced(fence, token, &output)),
        Exit::Code(5) => Err(Failure::resource(
            "FENCE_NOT_REMOVED",
            format!("{fence} can not be removed: {}; look at the disk and its permissions", output.complaint()),
        )),
        Exit::Code(4) => Err(Failure::configuration(
            "PROC_MISSING",
            "the host has no /proc, so a lease's processes can not be found; hosts must run Linux with /proc mounted",
        )),
        ref exit => Err(Failure::resource(
            "CLEAN_FAILED",
            format!("looking for processes of lease {lease} ended with {exit:?}: {}", output.complaint()),
        )),
    }
}

/// What a shell that does not work means for the call that needed it.
pub(crate) fn failure(error: ShellError) -> Failure {
    match error {
        ShellError::Unreachable(text) => Failure::resource("UNREACHABLE", text),
        ShellError::WrongHost(text) => Failure::configuration("HOST_KEY_MISMATCH", text),
        ShellError::Refused(text) => Failure::configuration("AUTH_FAILED", text),
        ShellError::NotStarted(text) => Failure::resource("COMMAND_NOT_STARTED", text),
        ShellError::File(text) => Failure::resource("FILE_FAILED", text),
    }
}
