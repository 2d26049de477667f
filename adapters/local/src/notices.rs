//! What is announced for this machine: the line of the file `notice` under the pool's root.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use wharfinger_adapter::announce::{Board, News, dated, not_made};
use wharfinger_adapter::clock::wall_ms;
use wharfinger_adapter::{Failure, Notice, NoticeSink, NoticeTarget};

/// From one look at the file to the next.
const LOOK: Duration = Duration::from_secs(1);

/// A longer file is none of ours; its first line counts.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The pool's hosts, all of which are this machine, and what each was told.
#[derive(Debug)]
pub(crate) struct Announcements {
    pool: String,
    file: PathBuf,
    told: Mutex<BTreeMap<String, Board>>,
}

impl Announcements {
    pub(crate) fn new(pool: String, file: PathBuf) -> Self {
        Self { pool, file, told: Mutex::default() }
    }

    /// Whether this machine is to go; then nothing is made on it.
    ///
    /// # Errors
    /// `END_ANNOUNCED` (provider).
    pub(crate) async fn no_end(&self, host: &str) -> Result<(), Failure> {
        let mut board = Board::default();
        let _ = board.hear("drop file", &self.line().await, 0, 0);
        board.end().map_or(Ok(()), |(source, text)| Err(not_made(host, source, text)))
    }

    /// This resource is there, and hears what is announced from now on.
    pub(crate) fn made(&self, resource: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.contains_key(resource) {
            told.insert(resource.to_string(), Board::default());
        }
    }

    /// This resource is there no more.
    pub(crate) fn gone(&self, resource: &str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(resource);
    }

    /// Looks at the file as long as somebody else holds this.
    pub(crate) fn watch(self: &Arc<Self>, sink: NoticeSink) {
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut before = String::new();
            let mut looks = tokio::time::interval(LOOK);
            loop {
                looks.tick().await;
                let Some(this) = weak.upgrade() else { return };
                let now = this.line().await;
                // Whoever writes a file empties it first: what is gone must be so twice.
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
        // Not there, or not to be read: nothing is announced.
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
        for (resource, board) in self.told.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            match board.hear("drop file", line, now_ms / 1000, now_ms) {
                News::Nothing => {}
                News::Unreadable(why) => {
                    let file = self.file.display();
                    tracing::warn!(pool = self.pool, resource, %file, "an announcement is not heeded: {why}");
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
