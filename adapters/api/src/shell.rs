//! Running commands on a host.

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Maximum length of one argument, and of one `NAME=VALUE` of the environment, in bytes: Linux (MAX_ARG_STRLEN) takes
/// 128 KiB with the NUL at the end.
const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// Maximum length of all arguments and variables of a command together, in bytes: Linux takes a quarter of the limit of the
/// stack, which is 2 MiB by default, and the host has variables of its own.
pub const COMMAND_BYTES_MAX: usize = 1536 * 1024;

/// Standard input that comes while the command runs: a pipe, say.
#[async_trait]
pub trait InputSource: Send + Sync {
    /// Waits for the next bytes and returns them, or `None` at the end of the input.
    async fn next(&self) -> Option<Bytes>;
}

/// A command to run on a host. It runs in a process group of its own. Its standard input is `stdin` and then `input`.
#[derive(Clone, Default)]
pub struct Command {
    /// Program and arguments. Not a shell line: each argument arrives as it is, whatever is in it.
    pub argv: Vec<String>,
    /// Directory to run in; the user's home if absent. Not there: [`ShellError::NotStarted`].
    pub cwd: Option<String>,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Fed to standard input.
    pub stdin: Option<Bytes>,
    /// Fed to standard input after `stdin`, as it comes. Without it the input ends after `stdin`.
    pub input: Option<Arc<dyn InputSource>>,
    /// The whole process group is killed after this time; `None`: never.
    pub timeout: Option<Duration>,
}

impl fmt::Debug for Command {
    /// Prints only the length of the standard input, which may have secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("argv", &self.argv)
            .field("cwd", &self.cwd)
            .field("env", &self.env)
            .field("stdin", &self.stdin.as_ref().map(|bytes| format!("{} bytes", bytes.len())))
            .field("input", &self.input.is_some())
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl Command {
    /// A command from its program and arguments.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// A line for `/bin/sh -c`; what comes from outside must be passed through [`quote`].
    pub fn sh(line: impl Into<String>) -> Self {
        Self::new(["/bin/sh".to_string(), "-c".to_string(), line.into()])
    }

    /// Runs in this directory.
    pub fn cwd(mut self, dir: impl Into<String>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Adds a variable to the environment.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(key.into(), value.into());
        self
    }

    /// Kills the process group after this time.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Refuses what no Linux system could start: an empty command, a NUL byte, a name that is no variable's, and arguments or
    /// variables that are too long.
    ///
    /// # Errors
    /// In words, with the remedy.
    pub fn check(&self) -> Result<(), String> {
        self.check_within(COMMAND_BYTES_MAX)
    }

    /// The same as [`Command::check`] with another limit of the arguments and variables together, in bytes.
    ///
    /// # Errors
    /// In words, with the remedy.
    pub fn check_within(&self, most: usize) -> Result<(), String> {
        if self.argv.is_empty() {
            return Err("the command is empty: it must name a program".to_string());
        }
        if self.argv.iter().chain(self.env.values()).chain(&self.cwd).any(|word| word.contains('\0')) {
            return Err("an argument, variable or directory has a NUL byte, which no command line can hold".to_string());
        }
        if let Some(name) = self.env.keys().find(|name| !is_variable(name)) {
            return Err(format!(
                "{name:?} cannot name an environment variable: use letters, digits and _, and begin with no digit"
            ));
        }
        let variables = self.env.iter().map(|(name, value)| (name.as_str(), name.len() + 1 + value.len()));
        let arguments = self.argv.iter().map(|argument| ("an argument", argument.len()));
        let mut total = 0;
        for (what, length) in variables.chain(arguments) {
            if length > ARGUMENT_BYTES_MAX {
                return Err(format!(
                    "{what} has {length} bytes, and Linux takes at most {ARGUMENT_BYTES_MAX}; pass it by standard input or a file"
                ));
            }
            total += length + 1;
        }
        if total > most {
            return Err(format!(
                "the arguments and variables have {total} bytes, and at most {most} are taken; pass the longest by \
                 standard input or a file"
            ));
        }
        Ok(())
    }

    /// Feeds standard input.
    pub fn stdin(mut self, bytes: impl Into<Bytes>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }
}

/// Which stream a chunk of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where output goes while the command runs. Bounded: a slow reader slows the command, not the memory.
pub type OutputSink = mpsc::Sender<(Stream, Bytes)>;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal (`KILL`, `TERM`).
    Signal(String),
    /// Killed after [`Command::timeout`].
    TimedOut,
}

impl Exit {
    /// Whether it ended with code 0.
    pub fn success(&self) -> bool {
        matches!(self, Exit::Code(0))
    }
}

/// A command that ran to its end, with what it printed (each stream cut at 1 MiB, its end kept).
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, trimmed.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_string()
    }

    /// The end of standard error (at most 2 KiB) as text, trimmed, for messages.
    pub fn complaint(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        let text = text.trim();
        let mut start = text.len().saturating_sub(2048);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_string()
    }
}

/// Why a command did not run, or why its end is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// The host could not be reached from here, so that the command was not started. Only [`Shell::stream`] returns it.
    #[error("{0}")]
    NotReached(String),
    /// The host does not answer, or the connection broke while the command ran. It may have run.
    #[error("{0}")]
    Unreachable(String),
    /// The host closed the command's session and kept the connection. The command may run on.
    #[error("{0}")]
    Closed(String),
    /// The host answers, but it is not the host that is expected (another host key).
    #[error("{0}")]
    WrongHost(String),
    /// The host refuses us: wrong user or key.
    #[error("{0}")]
    Refused(String),
    /// The command could not be started: no such program or directory.
    #[error("{0}")]
    NotStarted(String),
    /// A file could not be read or written.
    #[error("{0}")]
    File(String),
}

/// Runs commands on one host and moves files. Cheap to clone behind an `Arc`; any number of commands at once, within
/// the limits of the adapter.
#[async_trait]
pub trait Shell: Send + Sync + 'static {
    /// Runs the command and streams its output. Dropping the future kills the command's process group.
    async fn stream(&self, command: Command, output: OutputSink) -> Result<Exit, ShellError>;

    /// Runs the command and collects its output.
    async fn run(&self, command: Command) -> Result<Output, ShellError> {
        let (tx, mut rx) = mpsc::channel::<(Stream, Bytes)>(64);
        let collect = async move {
            let (mut out, mut err) = (Vec::<u8>::new(), Vec::<u8>::new());
            while let Some((stream, bytes)) = rx.recv().await {
                let buffer = match stream {
                    Stream::Stdout => &mut out,
                    Stream::Stderr => &mut err,
                };
                buffer.extend_from_slice(&bytes);
                const KEEP: usize = 1 << 20;
                if buffer.len() > 2 * KEEP {
                    buffer.drain(..buffer.len() - KEEP);
                }
            }
            (out, err)
        };
        let (exit, (stdout, stderr)) = futures::future::join(self.stream(command, tx), collect).await;
        Ok(Output { exit: exit?, stdout, stderr })
    }

    /// Writes a file (at most 64 MiB), atomically by rename, with this mode.
    async fn put(&self, path: &str, content: Bytes, mode: u32) -> Result<(), ShellError>;

    /// Reads a file of at most `limit` bytes; a longer one is an error.
    async fn get(&self, path: &str, limit: usize) -> Result<Bytes, ShellError>;
}

/// Whether POSIX allows this name of a variable, so that every kind of host takes the same ones.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Quotes one word for a POSIX shell.
pub fn quote(word: &str) -> String {
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b)) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{Command, quote};

    #[test]
    fn the_input_of_a_command_is_not_printed() {
        let said = format!("{:?}", Command::new(["ssh-add", "-"]).stdin("s3cret"));
        assert!(said.contains("6 bytes") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn a_command_that_no_system_could_start_is_refused() {
        let refused = |command: Command| command.check().unwrap_err();
        assert!(refused(Command::default()).contains("empty"));
        assert!(refused(Command::new(["a\0b"])).contains("NUL"));
        for name in ["1A", "my-var", "", "ä"] {
            assert!(refused(Command::new(["a"]).env(name, "x")).contains("variable"), "{name}");
        }
        assert_eq!(Command::new(["a".to_string(), "x".repeat(131_071)]).env("_A1", "").check(), Ok(()));
        assert!(refused(Command::new(["a".to_string(), "x".repeat(131_072)])).contains("an argument has 131072 bytes"));
        assert!(refused(Command::new(["a"]).env("BIG", "x".repeat(131_068))).contains("BIG has 131072 bytes"));
        assert!(refused(Command::new(vec!["x".repeat(100_000); 16])).contains("standard input"));
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quote("plain-1.0/x"), "plain-1.0/x");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's $HOME"), "'it'\\''s $HOME'");
    }
}
