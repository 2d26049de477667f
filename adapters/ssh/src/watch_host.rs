//! A watch on the host: what its owner announces there reaches the broker within a second or two, unasked.
//!
//! One loop of shell per host, over a session of the kept connection, so that it costs no login and ends with it. It looks
//! once a second with what the shell has built in (no process but `sleep`), and prints a line when something changed:
//! source, the host's clock, the line that stands there now (empty: none).

use crate::connection::{Connection, Live, State};
use crate::endpoint::Watch;
use crate::error::SshError;
use crate::notices::{Reporter, SYSTEMD};
use crate::remote::{self, Marks};
use russh::ChannelMsg;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use wharfinger_adapter::Command;

/// After the loop ended by itself, until it is started again on the same connection.
const AGAIN: Duration = Duration::from_secs(30);

/// A longer line is none of ours.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The operator's command is the only text from outside that it runs.
const SCRIPT: &str = include_str!("sh/watch_host.sh");

/// Starts the watch over this connection, if the pool has a reporter.
pub(crate) fn start(connection: &Arc<Connection>, live: &Arc<Live>) {
    let (Some(reporter), Some(settings)) = (&connection.reporter, &connection.endpoint.limits.watch) else { return };
    let watch = Attending {
        host: connection.endpoint.name.clone(),
        reporter: Arc::clone(reporter),
        settings: settings.clone(),
        state: live.state(),
    };
    // Neither is held while the loop runs: its watch would keep a connection alive that is not kept.
    let (connection, live) = (Arc::downgrade(connection), Arc::downgrade(live));
    // Ends with the kept connection.
    tokio::spawn(async move {
        while let (Some(connection), Some(live)) = (connection.upgrade(), live.upgrade()) {
            let attended = match watch.open(connection, live).await {
                Ok(channel) => watch.attend(channel).await,
                Err(error) => Err(error.message),
            };
            if watch.is_over() {
                return;
            }
            let host = &watch.host;
            match attended {
                // A host that refuses it once does so again: said, and tried with the next connection.
                Err(why) => return tracing::warn!(host, "what is announced on the host is not heard: {why}"),
                Ok(()) => tracing::debug!(host, "the watch on the host ended; it is started again"),
            }
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = watch.state.retired.cancelled() => return,
            }
        }
    });
}

struct Attending {
    host: String,
    reporter: Arc<Reporter>,
    settings: Watch,
    state: Arc<State>,
}

struct Channel {
    channel: russh::Channel<russh::client::Msg>,
    marks: Marks,
}

impl Attending {
    fn is_over(&self) -> bool {
        self.state.retired.is_cancelled() || self.state.ended.is_cancelled()
    }

    async fn open(&self, connection: Arc<Connection>, live: Arc<Live>) -> Result<Channel, SshError> {
        let Watch { notice_file, shutdown_file, command, interval, work_dir, .. } = &self.settings;
        let every = format!("{}.{:03}", interval.as_secs(), interval.subsec_millis());
        // Whole seconds are all that POSIX's sleep knows.
        let every = every.trim_end_matches(".000");
        let argv =
            ["/bin/sh", "-c", SCRIPT, "wharfinger-watch-host", notice_file, shutdown_file, command, every, work_dir];
        let nonce = remote::nonce();
        let start = remote::start(&Command::new(argv), &nonce, false)
            .map_err(|why| SshError::new(crate::error::Kind::NotStarted, why))?;
        let channel = connection.open(&live).await?;
        channel
            .exec(false, start.line.as_bytes())
            .await
            .map_err(|_| SshError::new(crate::error::Kind::Lost, live.reason()))?;
        Ok(Channel { channel, marks: Marks::new(&nonce) })
    }

    /// Hears it to its end; `Err`: it never ran.
    async fn attend(&self, Channel { mut channel, mut marks }: Channel) -> Result<(), String> {
        let mut text = Vec::new();
        loop {
            let message = tokio::select! {
                message = channel.wait() => message,
                () = self.state.retired.cancelled() => {
                    let _ = channel.close().await;
                    return Ok(());
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => {
                    text.extend_from_slice(&marks.take_stdout(data));
                    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = text.drain(..=end).collect();
                        self.hear(&String::from_utf8_lossy(&line)).await;
                    }
                    if text.len() > LINE_BYTES_MAX {
                        text.clear();
                    }
                }
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => drop(marks.take_stderr(data)),
                Some(ChannelMsg::Close | ChannelMsg::Failure) | None => break,
                Some(_) => {}
            }
        }
        match marks.target() {
            Some(_) => Ok(()),
            None => Err(format!("the watching command was not started; {}", marks.noise())),
        }
    }

    async fn hear(&self, line: &str) {
        let mut parts = line.trim_end_matches('\n').splitn(3, '\t');
        // Also its heartbeat, which is an empty line.
        let (Some(source), Some(clock), Some(said)) = (parts.next(), parts.next(), parts.next()) else { return };
        let Ok(clock) = clock.parse() else { return };
        let (source, said) = match source {
            "file" => ("drop file", said.to_string()),
            "command" => (self.settings.command_source, said.to_string()),
            "scheduled" => (SYSTEMD, scheduled(said)),
            _ => return,
        };
        self.reporter.announced(&self.host, source, &said, clock).await;
    }
}

/// systemd's `USEC MODE` as a line of the common grammar.
fn scheduled(said: &str) -> String {
    let (microseconds, mode) = said.split_once(' ').unwrap_or((said, ""));
    match microseconds.parse::<u64>() {
        Ok(at) => {
            let mode = if mode.is_empty() { "shutdown" } else { mode };
            format!("maintenance {} {mode} is scheduled on the host", at / 1_000_000)
        }
        // None, or one that the reader of lines shall complain of.
        Err(_) => said.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::scheduled;

    #[test]
    fn systemds_file_becomes_a_line() {
        let line = "maintenance 1700000000 reboot is scheduled on the host";
        assert_eq!(scheduled("1700000000123456 reboot"), line);
        assert_eq!(scheduled("1700000000123456"), line.replace("reboot", "shutdown"));
        assert_eq!(scheduled(""), "");
        assert_eq!(scheduled("soon reboot"), "soon reboot");
    }
}
