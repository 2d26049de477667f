//! The command line that a host's login shell gets, and the marks that report what became of it.
//!
//! The login shell may be anything (bash, fish, csh), so it sees one line of harmless characters: the script that does
//! the work (`sh/start.sh`) and its arguments are passed in octal escapes to `/bin/sh`. A script that is too long for a
//! command line comes as the first line of standard input instead; `read` takes that line and not a byte more. The script
//!
//! 1. goes to the directory, or reports `nodir`,
//! 2. makes sure that it leads a process group of its own (OpenSSH's sshd starts each command in a new session;
//!    elsewhere `setsid` does it, where there is one),
//! 3. leaves a watcher behind that ends the group when the sshd process of this connection dies while the command
//!    runs, so that a broken connection does not leave builds running without a reader,
//! 4. sets the environment, looks for the program, or reports `noprog`,
//! 5. prints a mark that no command can know on standard output, the mark and the group's number on standard error, and
//!    becomes the command.
//!
//! Because the script becomes the command (`exec`), sshd itself reports its exit code or signal. The output of a login
//! shell's start-up files, on either stream, comes before the mark and is dropped.
//!
//! A group that loses its leader before the connection breaks is not watched; what it leaves is found by
//! [`wharfinger_host::reaper`].

use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use wharfinger_adapter::{Command, quote};

/// Maximum length of the line for the login shell, which gets it as one argument: Linux takes 128 KiB (MAX_ARG_STRLEN).
const LINE_BYTES_MAX: usize = 120 * 1024;

/// Maximum length of what is kept of the start-up files' output, in bytes.
const NOISE_BYTES_MAX: usize = 16 * 1024;

/// Ends the command's group when its sshd is gone.
const WATCHER: &str = concat!(include_str!("sh/begun.sh"), include_str!("sh/watch.sh"));

const KILLER: &str = concat!(include_str!("sh/begun.sh"), include_str!("sh/kill.sh"));

const START: &str = include_str!("sh/start.sh");

/// A command that ends what [`Marks::target`] names.
pub(crate) fn killer(target: &str) -> Command {
    Command::new(["/bin/sh", "-c", KILLER, "wharfinger-kill", target])
}

/// Returns text that no command can print by chance, nor by intent before it has seen it.
pub(crate) fn nonce() -> String {
    use std::hash::{BuildHasher, RandomState};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Two differently keyed SipHashes of a counter; the keys come from the system's randomness.
    format!("{:016x}{:016x}", RandomState::new().hash_one(count), RandomState::new().hash_one(count))
}

/// The start of a command.
#[derive(Debug)]
pub(crate) struct Start {
    /// The line for the login shell.
    pub(crate) line: String,
    /// The text before the command's own standard input.
    pub(crate) head: Bytes,
}

/// Returns what starts a command. `watch`: leave a watcher behind (not for commands that end in no time).
///
/// # Errors
/// In words, if it is no command that a POSIX system could run.
pub(crate) fn start(command: &Command, nonce: &str, watch: bool) -> Result<Start, String> {
    command.check()?;
    let mut words =
        vec![format!("@wharfinger:{nonce}:"), if command.cwd.is_some() { "in" } else { "home" }.to_string()];
    words.push(command.cwd.clone().unwrap_or_default());
    words.push(if watch { WATCHER } else { "" }.to_string());
    words.push(command.env.len().to_string());
    words.extend(command.env.iter().map(|(name, value)| format!("{name}={value}")));
    words.extend(command.argv.iter().cloned());
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    let script = escape(&format!("set -- {}\n{START}", words.join(" ")));
    // `wf_w` holds the script itself, for a second start under setsid, where it does lead its group.
    let line = format!("exec /bin/sh -c 'wf_w=$(printf %b \"$1\"); eval \"$wf_w\"' wharfinger '{script}'");
    if line.len() <= LINE_BYTES_MAX {
        return Ok(Start { line, head: Bytes::new() });
    }
    let line =
        "exec /bin/sh -c 'IFS= read -r wf_w; wf_w=$(printf %b \"$wf_w\"); eval \"$wf_w\"' wharfinger".to_string();
    Ok(Start { line, head: Bytes::from(script + "\n") })
}

/// Octal escapes for `printf %b`, for all but characters that mean nothing to any shell.
fn escape(script: &str) -> String {
    let mut text = String::with_capacity(script.len() * 2);
    for byte in script.bytes() {
        if byte.is_ascii_alphanumeric() || b" _./:=@,+-".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("\\0{byte:03o}"));
        }
    }
    text
}

/// The report of the mark on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The command runs; this is the target of `kill.sh` (`-123@456`: the group of process 123, which began at 456).
    Started(String),
    NoDirectory,
    NoProgram,
}

/// One stream up to its mark.
struct Preface {
    prefix: Vec<u8>,
    held: Vec<u8>,
    over: bool,
}

impl Preface {
    fn new(nonce: &str) -> Self {
        Self { prefix: format!("@wharfinger:{nonce}:").into_bytes(), held: Vec::new(), over: false }
    }

    /// Takes a piece of the stream. Returns the word behind the mark, once, and what belongs to the command.
    fn take(&mut self, bytes: Bytes) -> (Option<String>, Bytes) {
        if self.over {
            return (None, bytes);
        }
        self.held.extend_from_slice(&bytes);
        let found = self.held.windows(self.prefix.len()).position(|window| window == self.prefix);
        let Some(at) = found else {
            // Keep the end: the mark may have come in half.
            let excess = self.held.len().saturating_sub(NOISE_BYTES_MAX);
            self.held.drain(..excess);
            return (None, Bytes::new());
        };
        let rest = at + self.prefix.len();
        let Some(length) = self.held[rest..].iter().position(|byte| *byte == b'\n') else {
            return (None, Bytes::new());
        };
        let word = String::from_utf8_lossy(&self.held[rest..rest + length]).into_owned();
        let after = Bytes::copy_from_slice(&self.held[rest + length + 1..]);
        self.held.truncate(at);
        self.over = true;
        (Some(word), after)
    }

    /// The output of the login shell itself, before the mark.
    fn noise(&self) -> String {
        String::from_utf8_lossy(&self.held).trim().chars().take(1000).collect()
    }
}

/// Looks for the marks on both streams, and lets through what comes after them.
pub(crate) struct Marks {
    stdout: Preface,
    stderr: Preface,
    pub(crate) mark: Option<Mark>,
}

impl Marks {
    pub(crate) fn new(nonce: &str) -> Self {
        Self { stdout: Preface::new(nonce), stderr: Preface::new(nonce), mark: None }
    }

    /// Takes a piece of standard output; returns what belongs to the command.
    pub(crate) fn take_stdout(&mut self, bytes: Bytes) -> Bytes {
        self.stdout.take(bytes).1
    }

    /// Takes a piece of standard error; returns what belongs to the command.
    pub(crate) fn take_stderr(&mut self, bytes: Bytes) -> Bytes {
        let (word, rest) = self.stderr.take(bytes);
        if let Some(word) = word {
            self.mark = Some(match word.as_str() {
                "nodir" => Mark::NoDirectory,
                "noprog" => Mark::NoProgram,
                _ => Mark::Started(word),
            });
        }
        rest
    }

    /// The target of `kill`, once the command runs.
    pub(crate) fn target(&self) -> Option<&str> {
        match &self.mark {
            Some(Mark::Started(target)) => Some(target),
            Some(Mark::NoDirectory | Mark::NoProgram) | None => None,
        }
    }

    /// The output of the login shell itself, before the marks.
    pub(crate) fn noise(&self) -> String {
        let both = [self.stderr.noise(), self.stdout.noise()];
        both.into_iter().filter(|noise| !noise.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_in_pieces_and_noise_is_dropped() {
        let (stdout, stderr) =
            (b"Welcome home\n@wharfinger:abc:\nreal output\n", b"motd\n@wharfinger:abc:-4711@99\nreal error\n");
        for cut in 0..stderr.len() {
            let mut marks = Marks::new("abc");
            let mut got = marks.take_stderr(Bytes::copy_from_slice(&stderr[..cut])).to_vec();
            got.extend_from_slice(&marks.take_stderr(Bytes::copy_from_slice(&stderr[cut..])));
            assert_eq!(got, b"real error\n", "cut at {cut}");
            let mut got = marks.take_stdout(Bytes::copy_from_slice(&stdout[..cut])).to_vec();
            got.extend_from_slice(&marks.take_stdout(Bytes::copy_from_slice(&stdout[cut..])));
            assert_eq!(got, b"real output\n", "cut at {cut}");
            assert_eq!(marks.target(), Some("-4711@99"));
            assert_eq!(marks.noise(), "motd; Welcome home");
        }
    }

    /// A host that hung runs the end of a command late. Its id may be another process's by then.
    #[test]
    fn a_process_that_got_the_id_of_an_ended_command_is_not_ended() {
        use std::os::unix::process::{CommandExt, ExitStatusExt};
        for shell in [&["/bin/dash"][..], &["/bin/bash", "--posix"], &["/bin/busybox", "sh"]] {
            if !std::path::Path::new(shell[0]).exists() {
                continue;
            }
            let mut other = std::process::Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
            let pid = other.id();
            let begun: u64 = begun(pid).parse().unwrap();
            let end = |target: &str| {
                let mut command = std::process::Command::new(shell[0]);
                command.args(&shell[1..]).args(["-c", KILLER, "wharfinger-kill", target]);
                assert!(command.status().unwrap().success(), "{shell:?} {target}");
            };
            end(&format!("-{pid}@{}", begun - 1));
            end(&format!("{pid}@{}", begun - 1));
            assert!(other.try_wait().unwrap().is_none(), "{shell:?}: it began later");
            end(&format!("-{pid}@{begun}"));
            assert_eq!(other.wait().unwrap().signal(), Some(15), "{shell:?}");
        }
    }

    fn begun(pid: u32) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_string()
    }

    /// A busy host starts the watcher of a command when the connection has been cut already.
    #[test]
    fn a_command_whose_connection_is_cut_before_its_watcher_begins_is_ended() {
        use std::os::unix::process::{CommandExt, ExitStatusExt};
        for shell in [&["/bin/dash"][..], &["/bin/bash", "--posix"], &["/bin/busybox", "sh"]] {
            if !std::path::Path::new(shell[0]).exists() {
                continue;
            }
            let watch = |leader: u32, server: u32, server_begun: &str| {
                let mut command = std::process::Command::new(shell[0]);
                command.args(&shell[1..]).args(["-c", WATCHER, "wharfinger-watch", &leader.to_string()]);
                command.args([&begun(leader), &server.to_string(), server_begun]).spawn().unwrap()
            };
            let sleep = || std::process::Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
            let (mut leader, mut server) = (sleep(), sleep());
            let server_begun = begun(server.id());
            let mut watcher = watch(leader.id(), server.id(), &server_begun);
            // It waits for the next look once it has a child.
            let children = format!("/proc/{0}/task/{0}/children", watcher.id());
            while std::fs::read_to_string(&children).unwrap().is_empty() {
                std::thread::yield_now();
            }
            assert!(leader.try_wait().unwrap().is_none(), "{shell:?}: the connection stands");
            watcher.kill().unwrap();
            watcher.wait().unwrap();
            server.kill().unwrap();
            server.wait().unwrap();
            let mut watcher = watch(leader.id(), server.id(), &server_begun);
            assert_eq!(leader.wait().unwrap().signal(), Some(15), "{shell:?}");
            assert!(watcher.wait().unwrap().success());
        }
    }

    /// The target is the process that the command becomes, with the time at which it began.
    #[test]
    fn the_target_names_the_process_and_its_begin() {
        let Start { line, .. } = start(&Command::new(["cat", "/proc/self/stat"]), "n", false).unwrap();
        let mut login = std::process::Command::new("setsid");
        let output = login.args(["--wait", "/bin/sh", "-c", &line]).output().unwrap();
        let mut marks = Marks::new("n");
        marks.take_stderr(Bytes::from(output.stderr));
        let stat = String::from_utf8(marks.take_stdout(Bytes::from(output.stdout)).to_vec()).unwrap();
        let (pid, rest) = (stat.split(' ').next().unwrap(), stat.rsplit_once(") ").unwrap().1);
        let begun = rest.split(' ').nth(19).unwrap();
        assert_eq!(marks.target(), Some(format!("-{pid}@{begun}")).as_deref());
    }

    #[test]
    fn the_login_shell_sees_harmless_characters_only() {
        let command = Command::new(["echo", "it's $x `y` \\ ! \n é"]).cwd("/a b").env("A", "1'2");
        let Start { line, head } = start(&command, "n", true).unwrap();
        assert!(line.is_ascii() && !line.contains('\n') && !line.contains('!') && !line.contains('`'), "{line}");
        assert_eq!((line.matches('\'').count(), head.len()), (4, 0), "{line}");
    }

    /// Runs it by each shell of this machine, as the login shell that sshd would start. Standard input has more than the head.
    fn by_every_login_shell(command: &Command, is_right: impl Fn(&str, &[u8])) {
        use std::io::Write;
        let Start { line, head } = start(command, "n", false).unwrap();
        let mut tried = 0;
        for shell in
            ["/bin/sh", "/bin/bash", "/bin/dash", "/usr/bin/fish", "/usr/bin/tcsh", "/usr/bin/zsh", "/bin/busybox"]
        {
            let mut login = std::process::Command::new(shell);
            if shell.ends_with("busybox") {
                login.arg("sh");
            }
            let piped = std::process::Stdio::piped;
            login.args(["-c", &line]).stdin(piped()).stdout(piped()).stderr(piped());
            let Ok(mut child) = login.spawn() else { continue };
            tried += 1;
            let (mut stdin, head) = (child.stdin.take().unwrap(), head.clone());
            let feeder = std::thread::spawn(move || {
                let _ = stdin.write_all(&head).and_then(|()| stdin.write_all(b"own input"));
            });
            let output = child.wait_with_output().unwrap();
            feeder.join().unwrap();
            let mut marks = Marks::new("n");
            marks.take_stderr(Bytes::from(output.stderr));
            assert!(marks.target().is_some(), "{shell}: {:?}", marks.noise());
            is_right(shell, &marks.take_stdout(Bytes::from(output.stdout)));
        }
        assert!(tried > 0, "no shell at all");
    }

    #[test]
    fn every_login_shell_runs_it() {
        let hard = "it's $x `y` \\ \\\\n ! %s\n\té";
        let command = Command::new(["printf", "%s|%s", hard, ""]).cwd("/").env("A", hard);
        by_every_login_shell(&command, |shell, stdout| {
            assert_eq!(String::from_utf8_lossy(stdout), format!("{hard}|"), "{shell}");
        });
    }

    #[test]
    fn every_login_shell_takes_long_arguments_by_standard_input_and_leaves_the_rest() {
        let (long, hard) = ("it's \\ %s\n".repeat(9000), "$x `y` \\n \té".repeat(5000));
        let check = "printf '%s %s ' ${#1} ${#A} && printf '%s' \"$1$A\" | cksum && cat";
        let command = Command::new(["/bin/sh", "-c", check, "sh", &long]).env("A", &hard);
        assert!(!start(&command, "n", false).unwrap().head.is_empty());
        let plain = std::process::Command::new("/bin/sh")
            .args(["-c", check, "sh", &long])
            .env("A", &hard)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let expected = format!("{}own input", String::from_utf8_lossy(&plain.stdout));
        by_every_login_shell(&command, |shell, stdout| {
            assert_eq!(String::from_utf8_lossy(stdout), expected, "{shell}");
        });
    }

    #[test]
    fn a_command_that_no_system_could_run_is_refused() {
        assert!(start(&Command::default(), "n", true).unwrap_err().contains("empty"));
        assert!(start(&Command::new(["a".to_string(), "x".repeat(200_000)]), "n", true).is_err());
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(nonce(), nonce());
    }
}
