//! A connection through a command: bastions, session managers, whatever speaks on its standard streams.

use crate::error::{Kind, SshError};
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wharfinger_adapter::quote;

/// The command's standard streams. Dropped, the command is killed.
pub(crate) struct ProxyStream {
    _child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    complaint: Complaint,
}

/// Maximum time from the end of a command to the end of its standard error.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The beginning of the command's standard error, for messages.
#[derive(Clone, Default)]
pub(crate) struct Complaint {
    text: Arc<Mutex<String>>,
    whole: CancellationToken,
}

impl Complaint {
    /// Waits for the end of the text and returns it, trimmed.
    pub(crate) async fn text(&self) -> String {
        let _ = timeout(LAST_WORDS, self.whole.cancelled()).await;
        let text = self.text.lock().map(|text| text.trim().to_string()).unwrap_or_default();
        if text.is_empty() { "it printed nothing on standard error".to_string() } else { text }
    }

    fn add(&self, bytes: &[u8]) {
        if let Ok(mut text) = self.text.lock()
            && text.len() < 2048
        {
            text.push_str(&String::from_utf8_lossy(bytes));
        }
    }
}

/// Fills in `%h`, `%p` and `%%`; anything else after a `%` stays as it is.
pub(crate) fn fill_in(command: &str, address: &str, port: u16) -> String {
    let mut line = String::new();
    let mut characters = command.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, characters.peek()) {
            ('%', Some('h')) => line.push_str(&quote(address)),
            ('%', Some('p')) => line.push_str(&port.to_string()),
            ('%', Some('%')) => line.push('%'),
            (c, _) => {
                line.push(c);
                continue;
            }
        }
        characters.next();
    }
    line
}

impl ProxyStream {
    /// Starts the command.
    pub(crate) fn start(command: &str, address: &str, port: u16) -> Result<Self, SshError> {
        let line = fill_in(command, address, port);
        let failed = |what: String| SshError::new(Kind::Proxy, format!("proxy command `{line}`: {what}"));
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            // exec as OpenSSH does, so that killing the child kills the proxy and not a shell around it.
            .arg(format!("exec {line}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}")))?;
        let (Some(stdin), Some(stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("has no standard streams".to_string()));
        };
        let complaint = Complaint::default();
        let heard = complaint.clone();
        // Ends with the proxy, which has the other end of the pipe.
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
                heard.add(&buffer[..n]);
            }
            heard.whole.cancel();
        });
        Ok(Self { _child: child, stdin, stdout, complaint })
    }

    /// Its standard error, now and later.
    pub(crate) fn complaint(&self) -> Complaint {
        self.complaint.clone()
    }
}

impl AsyncRead for ProxyStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for ProxyStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::fill_in;

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(fill_in("nc -X connect %h %p", "10.0.0.1", 22), "nc -X connect 10.0.0.1 22");
        assert_eq!(fill_in("a %% %x %", "h", 1), "a % %x %");
        assert_eq!(fill_in("nc %h", "a;b", 1), "nc 'a;b'");
    }
}
