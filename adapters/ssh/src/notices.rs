//! What a host says by falling silent: the end of its kept connection, told at once.

use std::sync::OnceLock;
use wharfinger_adapter::{Notice, NoticeKind, NoticeSink, NoticeTarget};

/// Where the pool's notices go, once the broker has said so.
#[derive(Debug)]
pub(crate) struct Reporter {
    pool: String,
    sink: OnceLock<NoticeSink>,
}

impl Reporter {
    pub(crate) fn new(pool: String) -> Self {
        Self { pool, sink: OnceLock::new() }
    }

    pub(crate) fn subscribe(&self, sink: NoticeSink) {
        let _ = self.sink.set(sink);
    }

    /// The kept connection to this host broke, and not by our doing.
    pub(crate) async fn connection_lost(&self, host: &str, detail: String) {
        let Some(sink) = self.sink.get() else { return };
        let notice = Notice {
            pool: self.pool.clone(),
            target: NoticeTarget::Item(host.to_string()),
            kind: NoticeKind::ConnectionLost,
            source: "ssh connection",
            detail,
        };
        // A broker that is gone needs no notice.
        let _ = sink.send(notice).await;
    }
}
