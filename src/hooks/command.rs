//! One delivery to an own program: the event on its standard input, and its exit status as the answer.

use super::http::Delivery;
use super::message::plain;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, Command};
use tokio_util::task::AbortOnDropHandle;

/// Maximum number of bytes of a program's standard error that are kept for the log. The rest is read and dropped.
const MAX_SAID: usize = 4096;
/// Maximum length of it in the log, in characters.
const SHOWN: usize = 200;
/// Maximum time for which the end of its standard error is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The exit status by which a program refuses this message for good (`EX_DATAERR` of sysexits.h).
const REFUSED: i32 = 65;

/// Runs the program. Its arguments are those of the configuration alone: text of others comes by its standard input. Its environment has
/// `PATH` and the name of the hook.
pub(super) async fn run(hook: &str, argv: &[String], input: Vec<u8>, limit: Duration) -> Delivery {
    let Some((program, arguments)) = argv.split_first() else { return Delivery::later("there is no program") };
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()))
        .env("WHARFINGER_HOOK", hook)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // All that it starts ends with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Delivery::later(format!("{program} cannot be started: {error}")),
    };
    let mut group = Group(child.id());
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let said = AbortOnDropHandle::new(tokio::spawn(listen(stderr)));
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read it all may succeed all the same.
            let _ = stdin.write_all(&input).await;
        }
    };
    let status = tokio::time::timeout(limit, async { tokio::join!(child.wait(), feed).0 }).await;
    match status {
        // Its number may belong to another program by now.
        Ok(_) => group.0 = None,
        Err(_) => {
            drop(group);
            let _ = child.wait().await;
        }
    }
    // A program that it left running may keep the pipe open.
    let said = tokio::time::timeout(LAST_WORDS, said).await.ok().and_then(Result::ok).unwrap_or_default();
    let said = plain(&String::from_utf8_lossy(&said), SHOWN);
    let said = said.trim();
    let why = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
    match status {
        Err(_) => Delivery::later(why(format!("{program} did not end within {limit:?}, and was killed"))),
        Ok(Err(error)) => Delivery::later(format!("{program} was lost: {error}")),
        Ok(Ok(status)) if status.success() => Delivery::Done,
        Ok(Ok(status)) if status.code() == Some(REFUSED) => Delivery::Refused(why(format!("{program}: {status}"))),
        Ok(Ok(status)) => Delivery::later(why(format!("{program}: {status}"))),
    }
}

/// The first bytes of a program's standard error. All of it is read, so that the program does not wait.
async fn listen(stderr: Option<ChildStderr>) -> Vec<u8> {
    let mut said = Vec::new();
    let Some(mut stderr) = stderr else { return said };
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..count.min(MAX_SAID - said.len())]);
    }
    said
}

/// The process group of a program that was not waited for, which is killed when this is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // The group is gone if the program left nothing behind.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}
