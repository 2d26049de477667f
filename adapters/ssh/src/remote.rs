//! The command line that a host's login shell gets, and the marks by which we know what became of it.
//!
//! The login shell may be anything (bash, fish, csh), so it sees one line of harmless characters: the script that does
//! the work (`sh/start.sh`) and its arguments are passed in octal escapes to `/bin/sh`. That script
//!
//! 1. goes to the directory, or says `nodir`,
//! 2. makes sure that it leads a process group of its own (OpenSSH's sshd starts each command in a new session;
//!    elsewhere `setsid` does it, where there is one),
//! 3. leaves a watcher behind that ends the group when the sshd process of this connection dies while the command
//!    runs, so that a broken connection does not leave builds running that nobody listens to,
//! 4. sets the environment, looks for the program, or says `noprog`,
//! 5. says the group's number on standard error, behind a mark that no one else can know, and becomes the command.
//!
//! Because the script becomes the command (`exec`), sshd itself tells us its exit code or signal. Whatever a login
//! shell's start-up files print on standard error comes before the mark and is dropped.
//!
//! A group that loses its leader before the connection breaks is not watched; what it leaves is found by
//! [`wharfinger_adapter::reaper`].

use std::sync::atomic::{AtomicU64, Ordering};
use wharfinger_adapter::{Command, quote};

/// A single argument may have 128 KiB on Linux (MAX_ARG_STRLEN), and the login shell gets ours as one.
const LINE_BYTES_MAX: usize = 120 * 1024;

/// How long a login shell's own words may be before we stop keeping them, in bytes.
const NOISE_BYTES_MAX: usize = 16 * 1024;

/// Ends the command's group when its sshd is gone.
const WATCHER: &str = include_str!("sh/watch.sh");

const KILLER: &str = include_str!("sh/kill.sh");

const START: &str = include_str!("sh/start.sh");

/// A command that ends what [`Marks::target`] names.
pub(crate) fn killer(target: &str) -> Command {
    Command::new(["/bin/sh", "-c", KILLER, "wharfinger-kill", target])
}

/// A word that no command can print by chance, and none by intent before it has seen it.
pub(crate) fn nonce() -> String {
    use std::hash::{BuildHasher, RandomState};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Two differently keyed SipHashes of a counter; the keys come from the system's randomness.
    format!("{:016x}{:016x}", RandomState::new().hash_one(count), RandomState::new().hash_one(count))
}

/// The line for the login shell. `watch`: leave a watcher behind (not for commands that end in no time).
///
/// # Errors
/// In words, if it is no command that a POSIX system could run.
pub(crate) fn command_line(command: &Command, nonce: &str, watch: bool) -> Result<String, String> {
    if command.argv.is_empty() {
        return Err("the command is empty: it must name a program".to_string());
    }
    let words = command.argv.iter().chain(command.env.values()).chain(command.cwd.iter());
    if words.into_iter().any(|word| word.contains('\0')) {
        return Err("an argument, variable or directory has a NUL byte, which no command line can hold".to_string());
    }
    if let Some(name) = command.env.keys().find(|name| !is_name(name)) {
        return Err(format!("{name:?} cannot name an environment variable"));
    }
    let mut words =
        vec![format!("@wharfinger:{nonce}:"), if command.cwd.is_some() { "in" } else { "home" }.to_string()];
    words.push(command.cwd.clone().unwrap_or_default());
    words.push(if watch { WATCHER } else { "" }.to_string());
    words.push(command.env.len().to_string());
    words.extend(command.env.iter().map(|(name, value)| format!("{name}={value}")));
    words.extend(command.argv.iter().cloned());
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    let script = format!("set -- {}\n{START}", words.join(" "));
    // `wf_w` holds the script itself, for a second start under setsid, where it does lead its group.
    let start = "wf_w=$(printf %b \"$1\"); eval \"$wf_w\"";
    let line = format!("exec /bin/sh -c '{start}' wharfinger '{}'", escape(&script));
    if line.len() > LINE_BYTES_MAX {
        return Err(format!(
            "the command line has {} bytes and ssh carries at most {LINE_BYTES_MAX}; pass what is long by standard input or a file",
            line.len()
        ));
    }
    Ok(line)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
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

/// What the marks on standard error said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The command runs; this is what `kill` must be told (`-123`: the group).
    Started(String),
    NoDirectory,
    NoProgram,
}

/// Looks for the mark in standard error, and lets through what comes after it.
pub(crate) struct Marks {
    prefix: String,
    held: Vec<u8>,
    pub(crate) mark: Option<Mark>,
}

impl Marks {
    pub(crate) fn new(nonce: &str) -> Self {
        Self { prefix: format!("@wharfinger:{nonce}:"), held: Vec::new(), mark: None }
    }

    /// Takes a piece of standard error; returns what belongs to the command.
    pub(crate) fn take(&mut self, bytes: bytes::Bytes) -> bytes::Bytes {
        if self.mark.is_some() {
            return bytes;
        }
        self.held.extend_from_slice(&bytes);
        let prefix = self.prefix.as_bytes();
        let Some(at) = self.held.windows(prefix.len()).position(|window| window == prefix) else {
            // Keep the end: the mark may have come in half.
            let excess = self.held.len().saturating_sub(NOISE_BYTES_MAX);
            self.held.drain(..excess);
            return bytes::Bytes::new();
        };
        let rest = at + prefix.len();
        let Some(length) = self.held[rest..].iter().position(|byte| *byte == b'\n') else {
            return bytes::Bytes::new();
        };
        let word = String::from_utf8_lossy(&self.held[rest..rest + length]).into_owned();
        let after = bytes::Bytes::copy_from_slice(&self.held[rest + length + 1..]);
        self.held.truncate(at);
        self.mark = Some(match word.as_str() {
            "nodir" => Mark::NoDirectory,
            "noprog" => Mark::NoProgram,
            _ => Mark::Started(word),
        });
        after
    }

    /// What `kill` must be told, once the command runs.
    pub(crate) fn target(&self) -> Option<&str> {
        match &self.mark {
            Some(Mark::Started(target)) => Some(target),
            Some(Mark::NoDirectory | Mark::NoProgram) | None => None,
        }
    }

    /// What was said before the mark: the login shell's own words.
    pub(crate) fn noise(&self) -> String {
        String::from_utf8_lossy(&self.held).trim().chars().take(1000).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn marks_are_found_in_pieces_and_noise_is_dropped() {
        let text = b"motd says hello\n@wharfinger:abc:-4711\nreal error\n";
        for cut in 0..text.len() {
            let mut marks = Marks::new("abc");
            let mut got = marks.take(Bytes::copy_from_slice(&text[..cut])).to_vec();
            got.extend_from_slice(&marks.take(Bytes::copy_from_slice(&text[cut..])));
            assert_eq!(got, b"real error\n", "cut at {cut}");
            assert_eq!(marks.target(), Some("-4711"));
            assert_eq!(marks.noise(), "motd says hello");
        }
    }

    #[test]
    fn the_login_shell_sees_harmless_characters_only() {
        let command = Command::new(["echo", "it's $x `y` \\ ! \n é"]).cwd("/a b").env("A", "1'2");
        let line = command_line(&command, "n", true).unwrap();
        assert!(line.is_ascii() && !line.contains('\n') && !line.contains('!') && !line.contains('`'), "{line}");
        assert_eq!(line.matches('\'').count(), 4, "{line}");
    }

    /// Whatever shells this machine has, each as the login shell that sshd would start.
    #[test]
    fn every_login_shell_runs_it() {
        let hard = "it's $x `y` \\ \\\\n ! %s\n\té";
        let command = Command::new(["printf", "%s|%s", hard, ""]).cwd("/").env("A", hard);
        let line = command_line(&command, "n", false).unwrap();
        let mut tried = 0;
        for shell in
            ["/bin/sh", "/bin/bash", "/bin/dash", "/usr/bin/fish", "/usr/bin/tcsh", "/usr/bin/zsh", "/bin/busybox"]
        {
            let mut login = std::process::Command::new(shell);
            if shell.ends_with("busybox") {
                login.arg("sh");
            }
            let Ok(output) = login.args(["-c", &line]).output() else { continue };
            tried += 1;
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{hard}|"), "{shell}");
            let mut marks = Marks::new("n");
            marks.take(Bytes::from(output.stderr));
            assert!(marks.target().is_some(), "{shell}: {:?}", marks.noise());
        }
        assert!(tried > 0, "no shell at all");
    }

    #[test]
    fn what_no_system_could_run_is_refused() {
        let refused = |command: Command| command_line(&command, "n", true).unwrap_err();
        assert!(refused(Command::default()).contains("empty"));
        assert!(refused(Command::new(["a\0b"])).contains("NUL"));
        assert!(refused(Command::new(["a"]).env("1A", "x")).contains("variable"));
        assert!(refused(Command::new(["a".to_string(), "x".repeat(200_000)])).contains("standard input"));
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(nonce(), nonce());
    }
}
