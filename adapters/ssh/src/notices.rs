//! Notices of a host: the end of its kept connection, reported at once, and the announcements of its owner.

use crate::answers::Surroundings;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use wharfinger_adapter::clock::wall_ms;
use wharfinger_adapter::{Notice, NoticeKind, NoticeSink, NoticeTarget};
use wharfinger_host::announce::{Board, News};

/// How the source is called that reads what systemd has scheduled.
pub(crate) const SYSTEMD: &str = "systemd";

/// The watch on a host has not spoken yet.
#[derive(Debug)]
pub(crate) struct NotHeard;

/// Where the pool's notices go, once the broker has said so.
#[derive(Debug)]
pub(crate) struct Reporter {
    pool: String,
    sink: OnceLock<NoticeSink>,
    /// Announcements of each host so far. Kept here, so that a new connection reports nothing twice.
    boards: Mutex<BTreeMap<String, Board>>,
    /// Surroundings that the hosts of the pool have in common.
    pub(crate) surroundings: Arc<Surroundings>,
}

impl Reporter {
    pub(crate) fn new(pool: String) -> Self {
        Self { pool, sink: OnceLock::new(), boards: Mutex::default(), surroundings: Arc::default() }
    }

    pub(crate) fn subscribe(&self, sink: NoticeSink) {
        let _ = self.sink.set(sink);
    }

    /// The kept connection to this host broke, and not by our doing.
    pub(crate) async fn connection_lost(&self, host: &str, detail: String) {
        self.tell(host, NoticeKind::ConnectionLost, "ssh connection", detail).await;
    }

    /// This host has leases and shows no sign of life.
    pub(crate) async fn silent(&self, host: &str, detail: String) {
        self.tell(host, NoticeKind::Silent, "ssh pulse", detail).await;
    }

    /// A source on the host says this now, at this second of the host's clock.
    pub(crate) async fn announced(&self, host: &str, source: &'static str, line: &str, host_now_s: i64) {
        let now_ms = wall_ms();
        let news = {
            let mut boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
            boards.entry(host.to_string()).or_default().hear(source, line, host_now_s, now_ms)
        };
        match news {
            News::Nothing => {}
            News::Unreadable(why) => {
                tracing::warn!(pool = self.pool, host, source, "an announcement is not heeded: {why}")
            }
            News::Tell { kind, source, detail } => {
                if kind == NoticeKind::Cancelled {
                    tracing::debug!(pool = self.pool, host, source, "announced: {detail}");
                } else {
                    tracing::info!(pool = self.pool, host, source, ?kind, "announced: {detail}");
                }
                self.tell(host, kind, source, detail).await;
            }
        }
    }

    /// The end that stands announced for this host; `Err`: nothing was heard of it yet.
    pub(crate) fn end_of(&self, host: &str) -> Result<Option<(&'static str, String)>, NotHeard> {
        let boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one of a look at the host.
        let board = boards.get(host).filter(|board| board.has_heard(SYSTEMD)).ok_or(NotHeard)?;
        Ok(board.end().map(|(source, text)| (source, text.to_string())))
    }

    /// It is no more, and nothing announced of it counts.
    pub(crate) fn forget(&self, host: &str) {
        self.boards.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    async fn tell(&self, host: &str, kind: NoticeKind, source: &'static str, detail: String) {
        let Some(sink) = self.sink.get() else { return };
        let notice =
            Notice { pool: self.pool.clone(), target: NoticeTarget::Item(host.to_string()), kind, source, detail };
        // A broker that is gone needs no notice.
        let _ = sink.send(notice).await;
    }
}
