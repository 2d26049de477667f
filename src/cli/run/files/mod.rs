//! `run --put` and `--fetch`: files to and from the leased tree, as tar streams behind the fence.

mod pack;
mod unpack;

use super::place::{Place, Work};
use super::signals::{Signal, Signals};
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::client::{LeaseGuard, Lost};
use async_trait::async_trait;
use clap::{Args, ValueEnum};
use pack::Put;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::codegen::Bytes;
pub(super) use unpack::Staged;
use wharfinger_adapter::{Exit as CommandExit, InputSource, ShellError, Stream};

const HEADING: &str = "Files";

/// Files that go there before the command, and come here after it.
#[derive(Args, Debug)]
pub(super) struct FileArgs {
    /// Bring this file or directory into the leased tree before the command; PATH is relative to the tree; may be repeated
    #[arg(long, value_name = "FILE[:PATH]", value_parser = Put::parse, help_heading = HEADING)]
    put: Vec<Put>,
    /// Bring what matches from the leased tree after the command, as in 'target/*.deb'; directories come whole; may be
    /// repeated. Nothing comes from a lease that was lost
    #[arg(long, value_name = "PATTERN", value_parser = pattern, help_heading = HEADING)]
    fetch: Vec<String>,
    /// Directory here for what is fetched
    #[arg(long, value_name = "DIR", default_value = ".", requires = "fetch", help_heading = HEADING)]
    fetch_to: PathBuf,
    /// When to fetch
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = FetchOn::Always, requires = "fetch", help_heading = HEADING)]
    fetch_on: FetchOn,
    /// Fetch at most this much in all, as in 512MiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size, requires = "fetch", help_heading = HEADING)]
    fetch_max: u64,
}

/// The ends of a command after which files are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FetchOn {
    /// After a success and after a failure
    Always,
    /// After a success
    Success,
    /// After a failure
    Failure,
}

/// A pattern of the shell for paths below the tree.
fn pattern(text: &str) -> Result<String, String> {
    if text.is_empty() || !pack::stays_below(std::path::Path::new(text)) {
        return Err("it must be relative to the tree and must not contain ..".into());
    }
    if text.contains("**") {
        return Err("** is not known: name the directory, which comes whole".into());
    }
    if text.chars().any(char::is_control) {
        return Err("it has a control character".into());
    }
    Ok(text.into())
}

fn size(text: &str) -> Result<u64, String> {
    crate::size::parse(text).map_err(|why| format!("it {why}"))
}

/// A transfer that did not come to its end.
pub(super) enum Cut {
    /// The files of this machine, or the tree that they go to.
    Here(String),
    /// The host's `tar` failed.
    There(String),
    /// The fence may have refused it.
    Fence(CommandExit),
    Shell(ShellError),
    Lost(Lost),
    Interrupted(Signal),
}

/// Files that came, or the reason why they did not.
pub(super) type Fetched = Result<Option<(Staged, Option<String>)>, Cut>;

/// The exit code of [`SEND`] when nothing matches.
const NOTHING: i32 = 66;

/// Expands the patterns that are its arguments, and sends what matches. With an empty IFS a pattern stays one word, and what
/// the shell expands it to is not expanded again.
const SEND: &str = r#"
IFS=
n=$#
for pattern do
    for found in $pattern; do
        if [ -e "$found" ] || [ -L "$found" ]; then set -- "$@" "./$found"; fi
    done
done
shift "$n"
[ $# -gt 0 ] || exit 66
exec tar -cf - -- "$@"
"#;

/// A place on a host, and all that ends a transfer there.
pub(super) struct Transfer<'a> {
    pub(super) place: &'a Place,
    pub(super) guard: &'a LeaseGuard,
    pub(super) env: BTreeMap<String, String>,
    pub(super) signals: Signals,
}

impl FileArgs {
    /// Sees that the files to put are there, before anything is leased.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.put.iter().try_for_each(Put::check).map_err(|why| {
            Failure::new(Exit::BadData, format!("--put: {why}")).remedy("name a file or a directory of this machine")
        })
    }

    /// Brings the files there.
    pub(super) async fn put(&self, transfer: &Transfer<'_>) -> Result<(), Cut> {
        if self.put.is_empty() {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel(16);
        let files = self.put.clone();
        let packing = tokio::task::spawn_blocking(move || {
            pack::pack(&files, std::io::BufWriter::with_capacity(64 << 10, Sending(sender)))
        });
        let input: Arc<dyn InputSource> = Arc::new(Pipe(tokio::sync::Mutex::new(receiver)));
        // Owners are not taken over, also by a user who might.
        let argv = ["tar", "-xof", "-"].map(String::from).into();
        let (exit, said) = transfer.run(Work { argv, env: transfer.env.clone(), input: Some(input) }, None).await?;
        let packed = packing.await.unwrap_or_else(|error| Err(error.to_string()));
        match (exit, packed) {
            (CommandExit::Code(0), Ok(())) => Ok(()),
            // The reader of the stream went away first.
            (CommandExit::Code(0), Err(why)) => Err(Cut::Here(why)),
            (exit, _) => Err(transfer.not_there(exit, &said)),
        }
    }

    /// Brings files here, beside their place. `success`: the command's.
    pub(super) async fn fetch(&self, transfer: &Transfer<'_>, success: bool) -> Fetched {
        let wanted = match self.fetch_on {
            FetchOn::Always => true,
            FetchOn::Success => success,
            FetchOn::Failure => !success,
        };
        if self.fetch.is_empty() || !wanted {
            return Ok(None);
        }
        let (sender, receiver) = mpsc::channel::<Bytes>(16);
        let (to, limit) = (self.fetch_to.clone(), self.fetch_max);
        let name = transfer.guard.id().to_string();
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut source = Receiving { receiver, rest: Bytes::new() };
            let staged = unpack::unpack(&mut source, &to, &name, limit)?;
            // The padding behind the end; a host that sends more is cut off.
            let _ = std::io::copy(&mut source.take(1 << 20), &mut std::io::sink());
            Ok::<_, String>(staged)
        });
        let argv = ["/bin/sh", "-c", SEND, "wharfinger-fetch"].into_iter().map(String::from);
        let argv = argv.chain(self.fetch.iter().cloned()).collect();
        let ran = transfer.run(Work { argv, env: transfer.env.clone(), input: None }, Some(sender)).await;
        let staged = unpacking.await.unwrap_or_else(|error| Err(error.to_string()));
        let (exit, said) = ran?;
        match (exit, staged) {
            (CommandExit::Code(0), Ok(staged)) => Ok(Some((staged, None))),
            (CommandExit::Code(0), Err(why)) => Err(Cut::Here(why)),
            (CommandExit::Code(NOTHING), _) => {
                Err(Cut::Here(format!("nothing in the tree matches {}", self.fetch.join(" "))))
            }
            // Some files could not be read there; the others came.
            (CommandExit::Code(code @ (1 | 2)), Ok(staged)) if !said.is_empty() => {
                Ok(Some((staged, Some(format!("tar on the host ended with {code}: {said}")))))
            }
            (_, Err(why)) if said.is_empty() => Err(Cut::Here(why)),
            (exit, _) => Err(transfer.not_there(exit, &said)),
        }
    }
}

/// The reader of a stream wants no more of it.
struct Enough;

/// Maximum length of what a host's `tar` says, in bytes.
const SAID_BYTES_MAX: usize = 2048;

impl Transfer<'_> {
    /// Runs a command there, behind the fence. Returns its end, and what it said on standard error.
    async fn run(&self, work: Work, output: Option<mpsc::Sender<Bytes>>) -> Result<(CommandExit, String), Cut> {
        let mut signals = self.signals.clone();
        let (sink, mut chunks) = mpsc::channel(16);
        let running = self.place.execute_to(work, sink);
        let reading = async {
            let mut said = Vec::new();
            while let Some((stream, bytes)) = chunks.recv().await {
                match (stream, &output) {
                    (Stream::Stdout, Some(output)) => {
                        if output.send(bytes).await.is_err() {
                            return Err(Enough);
                        }
                    }
                    (Stream::Stdout, None) => {}
                    (Stream::Stderr, _) => {
                        let most = SAID_BYTES_MAX.saturating_sub(said.len()).min(bytes.len());
                        said.extend_from_slice(&bytes[..most]);
                    }
                }
            }
            drop(chunks);
            drop(output);
            Ok(crate::cli::text::one_line(&String::from_utf8_lossy(&said)))
        };
        let both = async {
            tokio::pin!(running, reading);
            // A reader that has enough ends the command: it might send for ever.
            tokio::select! {
                biased;
                exit = &mut running => (exit, reading.await.unwrap_or_default()),
                said = &mut reading => match said {
                    Ok(said) => (running.await, said),
                    Err(Enough) => (Ok(CommandExit::Code(0)), String::new()),
                },
            }
        };
        tokio::select! {
            biased;
            signal = signals.recv() => Err(Cut::Interrupted(signal)),
            lost = self.guard.broken() => Err(Cut::Lost(lost)),
            (exit, said) = both => exit.map(|exit| (exit, said)).map_err(Cut::Shell),
        }
    }

    /// The failure of a command there.
    fn not_there(&self, exit: CommandExit, said: &str) -> Cut {
        if self.place.may_be_refused(&exit) {
            return Cut::Fence(exit);
        }
        let (ended, said) = match exit {
            CommandExit::Code(127) => ("is not on the host".to_string(), ""),
            CommandExit::Code(code) => (format!("ended with exit code {code}"), said),
            CommandExit::Signal(name) => (format!("ended with signal {name}"), said),
            CommandExit::TimedOut => ("ended with a time-out".to_string(), said),
        };
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        Cut::There(format!("tar {ended}{said}"))
    }
}

/// The end of a pipe that a command on a host reads.
struct Pipe(tokio::sync::Mutex<mpsc::Receiver<Bytes>>);

#[async_trait]
impl InputSource for Pipe {
    async fn next(&self) -> Option<Bytes> {
        self.0.lock().await.recv().await
    }
}

/// The other end, for a thread.
struct Sending(mpsc::Sender<Bytes>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The output of a command on a host, for a thread.
struct Receiving {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(bytes) => self.rest = bytes,
                None => return Ok(0),
            }
        }
        let most = buffer.len().min(self.rest.len());
        buffer[..most].copy_from_slice(&self.rest.split_to(most));
        Ok(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stays_below_the_tree() {
        for good in ["target/*.deb", "a b/[x-z]?.txt", "-x", "$(id)", "out"] {
            assert!(pattern(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/*", "../*", "a/../b", "**/x", "a\nb"] {
            assert!(pattern(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pattern_is_never_a_part_of_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), name).unwrap();
        for name in ["a.txt", "b c.txt", "$(touch made)", "-rf", "*lit", "`touch made`"] {
            write(name);
        }
        let sent = |patterns: &[&str]| {
            let output = std::process::Command::new("/bin/sh")
                .args(["-c", SEND, "x"])
                .args(patterns)
                .current_dir(folder.path())
                .output()
                .unwrap();
            let mut archive = tar::Archive::new(&output.stdout[..]);
            let mut names: Vec<String> = archive
                .entries()
                .map(|all| {
                    all.filter_map(Result::ok).map(|e| String::from_utf8_lossy(&e.path_bytes()).into()).collect()
                })
                .unwrap_or_default();
            names.sort();
            (output.status.code(), names)
        };
        assert_eq!(sent(&["*.txt"]), (Some(0), vec!["./a.txt".into(), "./b c.txt".into()]));
        assert_eq!(sent(&["$(touch made)", "-rf"]), (Some(0), vec!["./$(touch made)".into(), "./-rf".into()]));
        assert_eq!(sent(&["`touch made`"]), (Some(0), vec!["./`touch made`".into()]));
        assert_eq!(sent(&["no*such", "$HOME"]).0, Some(NOTHING));
        assert!(!folder.path().join("made").exists());
    }
}
