//! Reads announcements for the machine: the first line of the file `notice` below the pool's root.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use wharfinger_adapter::clock::wall_ms;
use wharfinger_adapter::{Failure, Notice, NoticeSink, NoticeTarget};
use wharfinger_host::announce::{Board, News, dated, not_made};

/// Time between two reads of the file.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum size of the file, in bytes. A longer file is ignored.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The hosts of the pool, all on this machine, and the announcements that each has got.
#[derive(Debug)]
pub(crate) struct Announcements {
    pool: String,
    file: PathBuf,
    hosts: Mutex<BTreeMap<String, Board>>,
}

impl Announcements {
    pub(crate) fn new(pool: String, file: PathBuf) -> Self {
        Self { pool, file, hosts: Mutex::default() }
    }

    /// Refuses to make a host on a machine whose end is announced.
    ///
    /// # Errors
    /// `END_ANNOUNCED` (provider).
    pub(crate) async fn no_end(&self, host: &str) -> Result<(), Failure> {
        let mut board = Board::default();
        let _ = board.hear("drop file", &self.line().await, 0, 0);
        board.end().map_or(Ok(()), |(source, text)| Err(not_made(host, source, text)))
    }

    /// Adds a host, which gets announcements from now on. A known host stays as it is.
    pub(crate) fn made(&self, resource: &str) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if !hosts.contains_key(resource) {
            hosts.insert(resource.to_string(), Board::default());
        }
    }

    /// Removes a host.
    pub(crate) fn gone(&self, resource: &str) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).remove(resource);
    }

    /// Reads the file at each interval, until the last other reference is dropped.
    pub(crate) fn watch(self: &Arc<Self>, sink: NoticeSink) {
        let weak = Arc::downgrade(self);
        // Ends with the last other reference.
        tokio::spawn(async move {
            let mut before = String::new();
            let mut polls = tokio::time::interval(POLL_INTERVAL);
            loop {
                polls.tick().await;
                let Some(this) = weak.upgrade() else { return };
                let now = this.line().await;
                // Writing a file empties it first, so the file must be empty at two reads in a row.
                let counts = !now.is_empty() || before.is_empty();
                before.clone_from(&now);
                if !counts {
                    continue;
                }
                for notice in this.news(&now) {
                    if sink.send(notice).await.is_err() {
                        return;
                    }
                }
            }
        });
    }

    async fn line(&self) -> String {
        let about = tokio::fs::metadata(&self.file).await.ok();
        // A missing or unreadable file announces nothing.
        let Some(about) = about.filter(|m| m.is_file() && m.len() <= FILE_BYTES_MAX) else { return String::new() };
        let text = tokio::fs::read(&self.file).await.unwrap_or_default();
        let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_string();
        let written = about.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        match written.and_then(|since| i64::try_from(since.as_secs()).ok()) {
            Some(written) => dated(&line, written),
            None => line,
        }
    }

    fn news(&self, line: &str) -> Vec<Notice> {
        let now_ms = wall_ms();
        let mut notices = Vec::new();
        for (resource, board) in self.hosts.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            match board.hear("drop file", line, now_ms / 1000, now_ms) {
                News::Nothing => {}
                News::Unreadable(why) => {
                    let file = self.file.display();
                    tracing::warn!(pool = self.pool, resource, %file, "an announcement is ignored: {why}");
                }
                News::Tell { kind, source, detail } => notices.push(Notice {
                    pool: self.pool.clone(),
                    target: NoticeTarget::Resource(resource.clone()),
                    kind,
                    source,
                    detail,
                }),
            }
        }
        notices
    }
}
