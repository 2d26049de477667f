//! Commands and files on an SSH host.

use crate::connection::{Connection, Live};
use crate::credential::HolderCredential;
use crate::endpoint::{Endpoint, Limits};
use crate::error::{Kind, SshError};
use crate::key;
use crate::remote::{self, Mark, Marks};
use async_trait::async_trait;
use bytes::Bytes;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wharfinger_adapter::{Command, Exit, InputSource, Output, OutputSink, Shell, ShellError, Stream};

/// How long output may stay away after the command's end before what still holds it open is left behind.
const AFTERGLOW: Duration = Duration::from_secs(1);

/// How long a killed command's last output is waited for: the killer's grace, and a bit.
const LAST_WORDS: Duration = Duration::from_millis(2500);

/// Maximum length of each stream that `run` keeps, in bytes.
const KEEP_BYTES: usize = 1 << 20;

/// Maximum length that `put` takes, in bytes.
const PUT_BYTES_MAX: usize = 64 << 20;

/// Runs commands on one host.
pub(crate) struct SshShell {
    pub(crate) connection: Arc<Connection>,
}

/// Where a private key comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file in OpenSSH format.
    File(PathBuf),
    /// The key itself, as it stands in such a file.
    Text(String),
    /// A key pair with a certificate. Each login uses the certificate of its time.
    Certified(Arc<HolderCredential>),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::File(path) => f.debug_tuple("File").field(path).finish(),
            KeySource::Text(_) => f.write_str("Text(…)"),
            KeySource::Certified(credential) => credential.fmt(f),
        }
    }
}

/// A host to run commands on, outside any pool: what a lease's `access` says.
#[derive(Clone, Debug)]
pub struct Target {
    /// How messages call it.
    pub name: String,
    /// Host name or address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// User to log in as.
    pub user: String,
    /// Key to log in with.
    pub key: KeySource,
    /// The only host key that is accepted (`ssh-ed25519 AAAA…`).
    pub host_key: String,
    /// Command that carries the connection; `%h`, `%p` and `%%` are filled in.
    pub proxy_command: Option<String>,
}

/// A shell on this host. Connects at the first command, and again when the connection broke in between.
///
/// # Errors
/// [`ShellError::Refused`] if the keys cannot be read; nothing else, since nothing is connected yet.
pub fn connect_shell(target: &Target) -> Result<Arc<dyn Shell>, ShellError> {
    let refuse = |why: key::KeyFault| ShellError::Refused(format!("host {}: {why}", target.name));
    let (key, key_path) = match &target.key {
        KeySource::File(path) => (key::read_private(path), Some(path.clone())),
        KeySource::Text(text) => (key::parse_private(text), None),
        KeySource::Certified(credential) => (Ok((*credential.key()).clone()), None),
    };
    let certified = match &target.key {
        KeySource::Certified(credential) => Some(Arc::clone(credential)),
        KeySource::File(_) | KeySource::Text(_) => None,
    };
    let endpoint = Endpoint {
        name: target.name.clone(),
        address: target.address.clone(),
        port: target.port,
        user: target.user.clone(),
        key: Arc::new(key.map_err(refuse)?),
        certified,
        key_path,
        host_key: key::parse_host_key(&target.host_key).map_err(refuse)?,
        proxy_command: target.proxy_command.clone(),
        limits: Limits::default(),
    };
    Ok(Arc::new(SshShell { connection: Arc::new(Connection::unreported(endpoint)) }))
}

/// Where a command's output goes.
enum Sink {
    /// To a reader that may be slow: only over a connection of its own.
    Pass(OutputSink),
    /// Into memory: the end of each stream, or its beginning up to a limit.
    Keep { stdout: Vec<u8>, stderr: Vec<u8>, most: usize, end: bool },
}

impl Sink {
    fn keep_end() -> Self {
        Sink::Keep { stdout: Vec::new(), stderr: Vec::new(), most: KEEP_BYTES, end: true }
    }

    async fn take(&mut self, stream: Stream, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        match self {
            // A reader that is gone is no reason to stop the command.
            Sink::Pass(sink) => drop(sink.send((stream, bytes)).await),
            Sink::Keep { stdout, stderr, most, end } => {
                let buffer = if stream == Stream::Stdout { stdout } else { stderr };
                if *end {
                    buffer.extend_from_slice(&bytes);
                    // Twice the size before we cut, so that each byte is moved once at most.
                    if buffer.len() > 2 * *most {
                        buffer.drain(..buffer.len() - *most);
                    }
                } else {
                    let room = most.saturating_sub(buffer.len());
                    buffer.extend_from_slice(&bytes[..room.min(bytes.len())]);
                }
            }
        }
    }
}

/// One command on its way.
struct Run {
    connection: Arc<Connection>,
    live: Arc<Live>,
    start: remote::Start,
    nonce: String,
    stdin: Option<Bytes>,
    input: Option<Arc<dyn InputSource>>,
    limit: Option<Duration>,
    cancel: CancellationToken,
}

/// How far a command has come.
struct Progress {
    marks: Marks,
    exit: Option<Exit>,
    /// The server refused to run anything.
    refused: bool,
    ended: bool,
}

impl Run {
    /// Opens a channel; on a connection of its own if the other has as many sessions as the server allows (MaxSessions).
    async fn open(&mut self) -> Result<Channel<Msg>, SshError> {
        match self.connection.open(&self.live).await {
            Err(error) if error.kind == Kind::NoSession => {
                self.live = Arc::new(self.connection.own().await?);
                self.connection.open(&self.live).await
            }
            opened => opened,
        }
    }

    async fn attend(mut self, mut sink: Sink) -> Result<(Exit, Sink), SshError> {
        let channel = self.open().await?;
        let place = &self.connection.endpoint.name;
        let lost = || {
            let text = format!("the connection to host {place} was lost while a command ran: {}", self.live.reason());
            SshError::new(Kind::Lost, text)
        };
        if self.cancel.is_cancelled() {
            let _ = channel.close().await;
            return Ok((Exit::TimedOut, sink));
        }
        channel.exec(true, self.start.line.as_bytes()).await.map_err(|_| lost())?;
        let (mut reading, writing) = channel.split();
        let writing = Arc::new(writing);
        let ready = [self.start.head.clone(), self.stdin.clone().unwrap_or_default()];
        let feeder = tokio::spawn(feed(Arc::clone(&writing), ready, self.input.clone()));
        let mut progress = Progress { marks: Marks::new(&self.nonce), exit: None, refused: false, ended: false };
        let expired = async {
            match self.limit {
                Some(limit) => sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let timed_out = tokio::select! {
            () = until_exit(&mut reading, &mut progress, &mut sink) => false,
            () = expired => true,
            () = self.cancel.cancelled() => true,
        };
        if timed_out {
            self.end(&mut reading, &mut progress, &mut sink).await;
            feeder.abort();
            let _ = writing.close().await;
            return Ok((Exit::TimedOut, sink));
        }
        // From here on only the reader can be slow, and it may.
        tokio::select! {
            () = afterglow(&mut reading, &mut progress, &mut sink) => {}
            () = self.cancel.cancelled() => {}
        }
        feeder.abort();
        let _ = writing.close().await;
        match (progress.exit, &progress.marks.mark) {
            (_, Some(Mark::NoDirectory)) => {
                Err(SshError::new(Kind::NotStarted, format!("the directory is not there on host {place}")))
            }
            (_, Some(Mark::NoProgram)) => {
                Err(SshError::new(Kind::NotStarted, format!("the program is not there on host {place}")))
            }
            (Some(exit), Some(Mark::Started(_))) => Ok((exit, sink)),
            (None, _) if !self.live.is_open() => Err(lost()),
            (None, Some(Mark::Started(_))) => {
                let text = format!(
                    "sshd on host {place} closed the session of a command that had not ended, and kept the connection; look for \
                     ChannelTimeout in its sshd_config, which ends sessions without output"
                );
                Err(SshError::new(Kind::SessionClosed, text))
            }
            (exit, None) => {
                let user = &self.connection.endpoint.user;
                let noise = progress.marks.noise();
                let text = if progress.refused {
                    format!(
                        "sshd of host {place} lets {user} run no commands; look for ForceCommand and PermitTTY there"
                    )
                } else {
                    format!(
                        "the login shell of {user} on host {place} did not run the command but ended with {exit:?}: \
                         {noise}; it must take a command by -c, and /bin/sh must be there"
                    )
                };
                Err(SshError::new(Kind::NotStarted, text))
            }
        }
    }

    /// Ends the command's group on the host, and takes its last words.
    async fn end(&self, reading: &mut ChannelReadHalf, progress: &mut Progress, sink: &mut Sink) {
        let patience = self.connection.endpoint.limits.connect;
        // It may not have said yet what to kill.
        let _ = timeout(patience, async {
            while progress.marks.mark.is_none() && !progress.ended {
                step(reading, progress, &mut Sink::keep_end()).await;
            }
        })
        .await;
        let Some(target) = progress.marks.target().map(str::to_string) else { return };
        if progress.ended && !self.live.is_open() {
            // The watcher on the host ends it.
            return;
        }
        let kill = self.kill(&target);
        if self.cancel.is_cancelled() {
            return kill.await;
        }
        let last_words = async {
            while !progress.ended {
                step(reading, progress, sink).await;
            }
        };
        let ((), _) = tokio::join!(kill, timeout(LAST_WORDS, last_words));
    }

    async fn kill(&self, target: &str) {
        let host = &self.connection.endpoint.name;
        let command = remote::killer(target);
        let killed = async {
            let _turn = self.connection.kills.acquire().await;
            // The kept connection, since a slow reader may fill the command's own.
            let live = self.connection.kept().await?;
            quick(&self.connection, live, command).await
        };
        let patience = self.connection.endpoint.limits.connect.saturating_mul(2);
        match timeout(patience, killed).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(host, target, "a command could not be killed: {}", error.message),
            Err(_) => tracing::warn!(host, target, "a command could not be killed: no answer"),
        }
    }
}

/// Feeds standard input with what is there and then with what comes, and closes it.
async fn feed(writing: Arc<ChannelWriteHalf<Msg>>, ready: [Bytes; 2], input: Option<Arc<dyn InputSource>>) {
    for bytes in ready {
        if !bytes.is_empty() && writing.data_bytes(bytes).await.is_err() {
            return;
        }
    }
    if let Some(input) = input {
        while let Some(bytes) = input.next().await {
            if writing.data_bytes(bytes).await.is_err() {
                return;
            }
        }
    }
    let _ = writing.eof().await;
}

async fn until_exit(reading: &mut ChannelReadHalf, progress: &mut Progress, sink: &mut Sink) {
    while progress.exit.is_none() && !progress.ended {
        step(reading, progress, sink).await;
    }
}

/// Takes what still comes after the exit code; what a command leaves behind may hold its output open for ever.
async fn afterglow(reading: &mut ChannelReadHalf, progress: &mut Progress, sink: &mut Sink) {
    while !progress.ended {
        match timeout(AFTERGLOW, reading.wait()).await {
            Ok(message) => digest(message, progress, sink).await,
            Err(_) => return,
        }
    }
}

async fn step(reading: &mut ChannelReadHalf, progress: &mut Progress, sink: &mut Sink) {
    let message = reading.wait().await;
    digest(message, progress, sink).await;
}

async fn digest(message: Option<ChannelMsg>, progress: &mut Progress, sink: &mut Sink) {
    match message {
        Some(ChannelMsg::Data { data }) => {
            let data = progress.marks.take_stdout(data);
            sink.take(Stream::Stdout, data).await;
        }
        Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
            let data = progress.marks.take_stderr(data);
            sink.take(Stream::Stderr, data).await;
        }
        Some(ChannelMsg::ExitStatus { exit_status }) => {
            progress.exit = Some(Exit::Code(i32::try_from(exit_status).unwrap_or(i32::MAX)));
        }
        Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
            progress.exit = Some(Exit::Signal(signal_text(signal_name)))
        }
        Some(ChannelMsg::Failure) => {
            progress.refused = true;
            progress.ended = true;
        }
        Some(ChannelMsg::Close) | None => progress.ended = true,
        // End of output comes before the exit code or after it, and says nothing that Close does not.
        Some(_) => {}
    }
}

fn signal_text(signal: Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT".to_string(),
        Sig::ALRM => "ALRM".to_string(),
        Sig::FPE => "FPE".to_string(),
        Sig::HUP => "HUP".to_string(),
        Sig::ILL => "ILL".to_string(),
        Sig::INT => "INT".to_string(),
        Sig::KILL => "KILL".to_string(),
        Sig::PIPE => "PIPE".to_string(),
        Sig::QUIT => "QUIT".to_string(),
        Sig::SEGV => "SEGV".to_string(),
        Sig::TERM => "TERM".to_string(),
        Sig::USR1 => "USR1".to_string(),
        // OpenSSH says BUS@openssh.com and the like for what the RFC does not name.
        Sig::Custom(name) => name.split('@').next().unwrap_or_default().to_string(),
    }
}

/// Runs the command and sees it to its end; if we are dropped meanwhile, the command's group is killed.
async fn run_on(
    connection: &Arc<Connection>,
    live: Arc<Live>,
    command: &Command,
    watch: bool,
    sink: Sink,
) -> Result<(Exit, Sink), SshError> {
    let nonce = remote::nonce();
    let start = remote::start(command, &nonce, watch).map_err(|why| SshError::new(Kind::NotStarted, why))?;
    // A task of its own, so that a caller that drops us leaves someone behind who ends the group.
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    let run = Run {
        connection: Arc::clone(connection),
        live,
        start,
        nonce,
        stdin: command.stdin.clone(),
        input: command.input.clone(),
        limit: command.timeout,
        cancel,
    };
    let result = tokio::spawn(run.attend(sink)).await;
    drop(guard.disarm());
    result.unwrap_or_else(|error| Err(SshError::new(Kind::Lost, format!("the command's task ended early: {error}"))))
}

/// Runs a command that ends in no time, without a watcher and without waiting for a turn.
///
/// Boxed by name, since it is recursive: a command that is dropped kills, and a kill is a command.
pub(crate) fn quick(
    connection: &Arc<Connection>,
    live: Arc<Live>,
    command: Command,
) -> Pin<Box<dyn Future<Output = Result<Output, SshError>> + Send>> {
    let connection = Arc::clone(connection);
    Box::pin(async move {
        let (exit, sink) = run_on(&connection, live, &command, false, Sink::keep_end()).await?;
        Ok(output(exit, sink))
    })
}

fn output(exit: Exit, sink: Sink) -> Output {
    match sink {
        Sink::Keep { stdout, stderr, .. } => Output { exit, stdout, stderr },
        Sink::Pass(_) => Output { exit, stdout: Vec::new(), stderr: Vec::new() },
    }
}

impl SshShell {
    /// Runs the command over the kept connection.
    pub(crate) async fn run_kept(&self, command: &Command) -> Result<Output, SshError> {
        let (exit, sink) = self.collect(command, true, Sink::keep_end()).await?;
        Ok(output(exit, sink))
    }

    async fn collect(&self, command: &Command, watch: bool, sink: Sink) -> Result<(Exit, Sink), SshError> {
        let _turn = self.connection.sessions.acquire().await;
        let live = self.connection.kept().await?;
        run_on(&self.connection, live, command, watch, sink).await
    }

    async fn put_file(&self, path: &str, content: Bytes, mode: u32) -> Result<(), SshError> {
        const PUT: &str = include_str!("sh/put.sh");
        let fail = |why: String| {
            SshError::new(Kind::File, format!("cannot write {path:?} on host {}: {why}", self.connection.endpoint.name))
        };
        if content.len() > PUT_BYTES_MAX {
            return Err(fail(format!("{} bytes are more than {PUT_BYTES_MAX}", content.len())));
        }
        let temporary = format!("{path}.wharfinger-{}", &remote::nonce()[..16]);
        let (mode, length) = (format!("{mode:o}"), content.len().to_string());
        let command =
            Command::new(["/bin/sh", "-c", PUT, "wharfinger-put", &temporary, &mode, path, &length]).stdin(content);
        let (exit, sink) = self.collect(&command, false, Sink::keep_end()).await?;
        let output = output(exit, sink);
        if output.exit.success() { Ok(()) } else { Err(fail(output.complaint())) }
    }

    async fn get_file(&self, path: &str, limit: usize) -> Result<Bytes, SshError> {
        const GET: &str = include_str!("sh/get.sh");
        let fail = |why: String| {
            SshError::new(Kind::File, format!("cannot read {path:?} on host {}: {why}", self.connection.endpoint.name))
        };
        let most = limit.saturating_add(1);
        let command = Command::new(["/bin/sh", "-c", GET, "wharfinger-get", path, &most.to_string()]);
        let sink = Sink::Keep { stdout: Vec::new(), stderr: Vec::new(), most, end: false };
        let (exit, sink) = self.collect(&command, false, sink).await?;
        let output = output(exit, sink);
        if !output.exit.success() {
            return Err(fail(output.complaint()));
        }
        if output.stdout.len() > limit {
            return Err(fail(format!("it is longer than {limit} bytes")));
        }
        Ok(output.stdout.into())
    }
}

#[async_trait]
impl Shell for SshShell {
    async fn stream(&self, command: Command, sink: OutputSink) -> Result<Exit, ShellError> {
        let _turn = self.connection.streams.acquire().await;
        let live = Arc::new(self.connection.own().await.map_err(SshError::before_the_start)?);
        let (exit, _) = run_on(&self.connection, live, &command, true, Sink::Pass(sink)).await?;
        Ok(exit)
    }

    async fn run(&self, command: Command) -> Result<Output, ShellError> {
        Ok(self.run_kept(&command).await?)
    }

    async fn put(&self, path: &str, content: Bytes, mode: u32) -> Result<(), ShellError> {
        Ok(self.put_file(path, content, mode).await?)
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Bytes, ShellError> {
        Ok(self.get_file(path, limit).await?)
    }
}
