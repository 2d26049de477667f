//! The fence of a slot: a file on the host that holds the fencing token of the slot's present lease, and nothing else.
//!
//! Tokens grow with every lease of a slot. The adapter writes the file when it prepares the slot, and removes it, before all
//! else, when it cleans it; a command that is [`guarded`] runs only while its own token stands there. So a holder that has
//! not yet heard that its lease is over starts nothing any more, and one that passed just before carries the mark of its
//! lease already ([`crate::reaper`]) and is ended by the clean-up that removed the file.
//!
//! See docs/fencing.md for what this guards and what it does not.

use crate::reaper::failure;
use crate::{Command, Exit, Failure, Output, Shell};
use std::time::Duration;

/// Exit code of a guarded command that was refused.
pub const REFUSED: i32 = 113;

/// The least of commands takes this long only on a host that hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// Arguments: file, token, command.
const GUARD: &str = r#"
fence=$1 token=$2
shift 2
now=
{ read -r now <"$fence"; } 2>/dev/null
if [ "$now" != "$token" ]; then
  if [ -n "$now" ]; then now="token $now"; else now='no lease'; fi
  printf 'wharfinger: refused: this lease has token %s, and the slot belongs to %s\n' "$token" "$now" >&2
  exit 113
fi
command -v -- "$1" >/dev/null 2>&1 || { printf 'wharfinger: there is no program %s\n' "$1" >&2; exit 127; }
exec "$@""#;

/// Lets only a token pass that is not older than the one that stands there. In `fence` and `token`; sets `now`.
pub(crate) const COMPARE: &str = r#"
now=
{ read -r now <"$fence"; } 2>/dev/null
case $now in '' | *[!0-9]*) now=0 ;; esac
[ "$now" -le "$token" ] || { printf '%s\n' "$now" >&2; exit 113; }
"#;

const SET: &str = r#"
umask 022
new=$fence.new.$$
# Beside the owner's mark, for the sweep that comes when this resource was given up; see sweep.rs.
beside=${fence%/.wharfinger/*}.owner
if [ -d "$beside" ]; then
  note=$beside/lease.${fence##*.}
  printf '%s\n' "$lease" >"$note.new" && mv -f -- "$note.new" "$note" || exit 1
fi
mkdir -p -- "${fence%/*}" && printf '%s\n' "$token" >"$new" && mv -f -- "$new" "$fence" && exit
rm -f -- "$new" 2>/dev/null
exit 1"#;

/// The fence of a slot of a host, under the scratch directory of its resource.
pub fn path(scratch: &str, slot: u32) -> String {
    format!("{}/.wharfinger/fence.{slot}", scratch.trim_end_matches('/'))
}

/// The same command, behind the fence: the host's `/bin/sh` compares first, and ends with [`REFUSED`] and a word on standard
/// error if this is not the token that stands in the file. A program that is not there ends with 127, as a shell says it.
pub fn guarded(command: Command, path: &str, token: u64) -> Command {
    let mut argv: Vec<String> = ["/bin/sh", "-c", GUARD, "wharfinger-fence", path].map(String::from).into();
    argv.push(token.to_string());
    argv.extend(command.argv);
    Command { argv, ..command }
}

/// Says that the slot belongs to this token from now on, and notes the lease for [`crate::sweep`].
///
/// # Errors
/// `FENCED` (provider) if it belongs to a later one; `FENCE_NOT_WRITTEN` (resource); or what kept us from asking.
pub async fn set(shell: &dyn Shell, path: &str, token: u64, lease: &str) -> Result<(), Failure> {
    let output = shell.run(set_command(path, token, lease)).await.map_err(failure)?;
    was_set(path, token, &output)
}

/// The command behind [`set`], for adapters that run it their own way.
pub fn set_command(path: &str, token: u64, lease: &str) -> Command {
    let script = format!("fence=$1 token=$2 lease=$3\n{COMPARE}{SET}");
    Command::new(["/bin/sh", "-c", &script, "wharfinger-fence", path, &token.to_string(), lease]).timeout(LIMIT)
}

/// What [`set_command`] came to.
///
/// # Errors
/// As [`set`].
pub fn was_set(path: &str, token: u64, output: &Output) -> Result<(), Failure> {
    match output.exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(REFUSED) => Err(fenced(path, token, output)),
        ref exit => Err(Failure::resource(
            "FENCE_NOT_WRITTEN",
            format!("writing {path} ended with {exit:?}: {}; look at the disk and its permissions", output.complaint()),
        )),
    }
}

/// A later lease has the slot: whoever speaks is behind the times, and nothing is wrong with the resource.
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
