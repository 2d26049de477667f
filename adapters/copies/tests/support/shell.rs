//! The smallest [`Shell`] that keeps the contract, on this machine.

use async_trait::async_trait;
use bytes::Bytes;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharfinger_adapter::{Command, Exit, OutputSink, Shell, ShellError, Stream};

#[derive(Default)]
pub(crate) struct TestShell {
    /// The environment of the host.
    pub(crate) env: Vec<(String, String)>,
    /// Put in front of every command.
    pub(crate) prefix: Vec<String>,
}

/// A connection that is lost for good after this number of commands: the last one runs to its end, and its caller never hears.
pub(crate) struct CutShell {
    pub(crate) inner: TestShell,
    pub(crate) left: AtomicUsize,
    pub(crate) cut: tokio::sync::Notify,
}

impl CutShell {
    pub(crate) fn after(commands: usize) -> Self {
        Self { inner: TestShell::default(), left: AtomicUsize::new(commands), cut: tokio::sync::Notify::new() }
    }

    async fn pass(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.cut.notify_one();
            std::future::pending().await
        }
    }
}

#[async_trait]
impl Shell for CutShell {
    async fn stream(&self, command: Command, output: OutputSink) -> Result<Exit, ShellError> {
        let exit = self.inner.stream(command, output).await;
        self.pass().await;
        exit
    }

    async fn put(&self, path: &str, content: Bytes, mode: u32) -> Result<(), ShellError> {
        let done = self.inner.put(path, content, mode).await;
        self.pass().await;
        done
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Bytes, ShellError> {
        self.inner.get(path, limit).await
    }
}

/// Kills the process group when the command's future goes away.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

async fn pump(mut from: impl tokio::io::AsyncRead + Unpin, stream: Stream, to: OutputSink) {
    let mut buffer = vec![0; 16384];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 || to.send((stream, Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
            break;
        }
    }
}

#[async_trait]
impl Shell for TestShell {
    async fn stream(&self, command: Command, output: OutputSink) -> Result<Exit, ShellError> {
        let argv = [&self.prefix[..], &command.argv[..]].concat();
        let mut child = tokio::process::Command::new(&argv[0])
            .args(&argv[1..])
            .envs(self.env.iter().cloned())
            .current_dir(command.cwd.as_deref().unwrap_or("/"))
            .envs(&command.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| ShellError::NotStarted(error.to_string()))?;
        let mut group = Group(child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)));
        let mut stdin = child.stdin.take().unwrap();
        let input = command.stdin.clone().unwrap_or_default();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let work = async {
            let feed = async move {
                let _ = stdin.write_all(&input).await;
            };
            let pumps = async {
                tokio::join!(feed, pump(out, Stream::Stdout, output.clone()), pump(err, Stream::Stderr, output.clone()))
            };
            let (status, _) = tokio::join!(child.wait(), pumps);
            status
        };
        let status = match command.timeout {
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(status) => status,
                Err(_) => return Ok(Exit::TimedOut),
            },
            None => work.await,
        };
        group.0 = None;
        let status = status.map_err(|error| ShellError::Unreachable(error.to_string()))?;
        Ok(match status.code() {
            Some(code) => Exit::Code(code),
            None => Exit::Signal("KILL".into()),
        })
    }

    async fn put(&self, path: &str, content: Bytes, _mode: u32) -> Result<(), ShellError> {
        let new = format!("{path}.put");
        std::fs::write(&new, content)
            .and_then(|()| std::fs::rename(&new, path))
            .map_err(|error| ShellError::File(error.to_string()))
    }

    async fn get(&self, path: &str, _limit: usize) -> Result<Bytes, ShellError> {
        std::fs::read(path).map(Bytes::from).map_err(|error| ShellError::File(error.to_string()))
    }
}

/// A host that answers every command with the same error.
pub(crate) struct DeadShell(pub(crate) ShellError);

#[async_trait]
impl Shell for DeadShell {
    async fn stream(&self, _command: Command, _output: OutputSink) -> Result<Exit, ShellError> {
        Err(self.0.clone())
    }

    async fn put(&self, _path: &str, _content: Bytes, _mode: u32) -> Result<(), ShellError> {
        Err(self.0.clone())
    }

    async fn get(&self, _path: &str, _limit: usize) -> Result<Bytes, ShellError> {
        Err(self.0.clone())
    }
}
