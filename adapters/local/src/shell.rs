//! Runs commands on the broker's machine.

use crate::error::{file, not_started};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use wharfinger_adapter::{Command, Exit, InputSource, OutputSink, Shell, ShellError, Stream};

/// Time from SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// Maximum wait for more output after the end of the command. Processes that it left may hold its output open for ever.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// Runs commands on this machine, as the broker's user.
///
/// Commands get the broker's environment without the `WHARFINGER_*` variables: these are settings and secrets of the broker, or the
/// mark of an outer lease.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalShell;

#[async_trait]
impl Shell for LocalShell {
    async fn stream(&self, command: Command, output: OutputSink) -> Result<Exit, ShellError> {
        let (child, group) = start(&command)?;
        // A separate task ends the process group with its grace time, even if the caller drops the future.
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        let limit = command.timeout;
        let feed = (command.stdin, command.input);
        let task = tokio::spawn(async move { attend(child, group, feed, limit, output, cancel).await });
        let result = task.await;
        drop(guard);
        result.unwrap_or_else(|error| Err(ShellError::Unreachable(format!("the command's task ended early: {error}"))))
    }

    async fn put(&self, path: &str, content: Bytes, mode: u32) -> Result<(), ShellError> {
        let path = path.to_string();
        blocking(move || write_file(&path, &content, mode).map_err(|e| file("write", &path, &e))).await
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Bytes, ShellError> {
        let path = path.to_string();
        blocking(move || read_file(&path, limit).map_err(|e| file("read", &path, &e))).await
    }
}

/// The process group of a running command. A value that is dropped before `disarm` kills the group: the runtime shuts down.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // An error means that the group has ended.
            let _ = kill_process_group(pid, signal);
        }
    }

    fn is_alive(&self) -> bool {
        self.0.is_some_and(|pid| test_kill_process_group(pid) != Err(rustix::io::Errno::SRCH))
    }

    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn start(command: &Command) -> Result<(Child, Group), ShellError> {
    command.check().map_err(ShellError::NotStarted)?;
    let Some((program, arguments)) = command.argv.split_first() else {
        return Err(ShellError::NotStarted("the command is empty: it must name a program".to_string()));
    };
    let dir = command.cwd.as_ref().map_or_else(|| usual_dir(std::env::home_dir()), PathBuf::from);
    if !dir.is_dir() {
        return Err(ShellError::NotStarted(format!("directory {dir:?} is missing on this machine")));
    }
    let mut process = tokio::process::Command::new(program);
    process.args(arguments).current_dir(dir).process_group(0);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("WHARFINGER_")) {
            process.env_remove(name);
        }
    }
    process.envs(&command.env);
    let fed = command.stdin.is_some() || command.input.is_some();
    process.stdin(if fed { Stdio::piped() } else { Stdio::null() });
    process.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = process.spawn().map_err(|error| not_started(program, &error))?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    Ok((child, group))
}

/// The directory of a command that names none: the home, or the root where the home cannot be entered, as with sshd. Users of services
/// have homes that do not exist.
fn usual_dir(home: Option<PathBuf>) -> PathBuf {
    // The dot is looked up within the directory, which takes the right to enter it.
    home.filter(|home| home.join(".").is_dir()).unwrap_or_else(|| "/".into())
}

/// Writes the input of the command, passes its output on, and waits for its end.
async fn attend(
    mut child: Child,
    mut group: Group,
    (stdin, input): (Option<Bytes>, Option<Arc<dyn InputSource>>),
    limit: Option<Duration>,
    output: OutputSink,
    cancel: CancellationToken,
) -> Result<Exit, ShellError> {
    let exited = CancellationToken::new();
    let mut pump = tokio::spawn(pump(child.stdout.take(), child.stderr.take(), output, exited.clone()));
    // A command may close its input without reading it. That is no error.
    let feeder = tokio::spawn(feed(child.stdin.take(), stdin, input));
    let expired = async {
        match limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let status = tokio::select! {
        status = child.wait() => Some(status),
        () = expired => None,
        () = cancel.cancelled() => None,
    };
    exited.cancel();
    // The rest of the input has no reader.
    feeder.abort();
    let Some(status) = status else {
        end_group(&mut child, &mut group).await;
        // Output from before the end may still be on its way. A reader that takes none gets no more.
        if cancel.is_cancelled() || timeout(GRACE, &mut pump).await.is_err() {
            pump.abort();
        }
        return Ok(Exit::TimedOut);
    };
    group.disarm();
    // Only a slow reader can delay the end from here on. It has no time limit.
    tokio::select! {
        _ = &mut pump => {}
        () = cancel.cancelled() => pump.abort(),
    }
    status.map(exit_of).map_err(|error| ShellError::Unreachable(format!("the exit of the command is unknown: {error}")))
}

/// Writes the text, then the chunks of the source.
async fn feed(pipe: Option<ChildStdin>, stdin: Option<Bytes>, input: Option<Arc<dyn InputSource>>) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    if let Some(bytes) = stdin {
        pipe.write_all(&bytes).await?;
    }
    if let Some(input) = input {
        while let Some(bytes) = input.next().await {
            pipe.write_all(&bytes).await?;
        }
    }
    Ok(())
}

/// Sends SIGTERM to the group, and SIGKILL after [`GRACE`] at the latest.
async fn end_group(child: &mut Child, group: &mut Group) {
    group.signal(Signal::TERM);
    let end = Instant::now() + GRACE;
    while Instant::now() < end {
        // Reaped early: a zombie would count as a live process of the group.
        let _ = child.try_wait();
        if !group.is_alive() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    group.signal(Signal::KILL);
    group.disarm();
    let _ = child.wait().await;
}

/// Passes both streams on until both end.
async fn pump(stdout: Option<ChildStdout>, stderr: Option<ChildStderr>, output: OutputSink, exited: CancellationToken) {
    let out = carry(stdout, Stream::Stdout, output.clone(), &exited);
    let err = carry(stderr, Stream::Stderr, output, &exited);
    tokio::join!(out, err);
}

/// Passes one stream on. After the reader has left, the output is read and dropped, so that the command goes on.
async fn carry(pipe: Option<impl AsyncRead + Unpin>, stream: Stream, output: OutputSink, exited: &CancellationToken) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(32 * 1024);
        // A process that the command left in the background may hold its output open for ever.
        let left_behind = async {
            exited.cancelled().await;
            sleep(OUTPUT_GRACE).await;
        };
        let read = tokio::select! {
            read = pipe.read_buf(&mut buffer) => read,
            () = left_behind => return,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let _ = output.send((stream, buffer.split().freeze())).await;
            }
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal_name(signal)),
        (None, None) => Exit::Signal("UNKNOWN".to_string()),
    }
}

/// The name of a signal without SIG, as in SSH (RFC 4254, section 6.10).
fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        5 => "TRAP",
        6 => "ABRT",
        7 => "BUS",
        8 => "FPE",
        9 => "KILL",
        10 => "USR1",
        11 => "SEGV",
        12 => "USR2",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        24 => "XCPU",
        25 => "XFSZ",
        31 => "SYS",
        other => return other.to_string(),
    };
    name.to_string()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ShellError> + Send + 'static,
) -> Result<T, ShellError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(ShellError::File(format!("the file task ended early: {error}"))))
}

fn write_file(path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let unique = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = format!("{path}.wharfinger-{}-{unique}", std::process::id());
    let result = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        // Set after the creation, which applies the umask.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        std::fs::rename(&temporary, path)
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

fn read_file(path: &str, limit: usize) -> io::Result<Bytes> {
    use std::io::Read;
    let mut content = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(most).read_to_end(&mut content)?;
    if content.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_home_that_cannot_be_entered_is_replaced_by_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_path_buf();
        assert_eq!(usual_dir(Some(home.clone())), home);
        std::fs::write(home.join("file"), "").unwrap();
        for bad in [Some(home.join("missing")), Some(home.join("file")), None] {
            assert_eq!(usual_dir(bad.clone()), PathBuf::from("/"), "{bad:?}");
        }
        // A directory that the command itself names has to be there.
        let asked = Command { cwd: Some(home.join("missing").display().to_string()), ..Command::sh("pwd") };
        assert!(matches!(LocalShell.run(asked).await, Err(ShellError::NotStarted(_))));
    }
}
