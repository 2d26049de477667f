//! The thread that formats and writes the lines of the trail, so that the engine does not wait for its log (ADR 65).
//!
//! Lines keep their order. At most [`LINES_MAX`] wait, in at most [`BATCHES_MAX`] batches. Where the reader of the log is slower than the engine for long, lines are
//! dropped, counted by a metric, and the log says how many.

use crate::engine::log_changes::{Line, lines};
use crate::engine::observe::Observed;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tracing::Dispatch;
use wharfinger_core::{Batch, Core};

/// Maximum number of lines that wait for the thread: 20 MB of them.
const LINES_MAX: usize = 100_000;

/// Maximum number of batches that wait: a batch has one line or more.
const BATCHES_MAX: usize = 10_000;

/// Maximum time for the lines that wait when the engine ends.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The queue of lines, and its thread. When it is dropped, also by a panic, the lines that wait are written first.
pub(super) struct TrailLog {
    /// `None` once no more comes, or if there is no thread.
    queue: Option<mpsc::SyncSender<Vec<Line>>>,
    ended: mpsc::Receiver<()>,
    shared: Arc<Shared>,
    observed: Observed,
    most: usize,
}

#[derive(Default)]
struct Shared {
    /// Number of lines in the queue.
    waiting: AtomicUsize,
    /// Number of lines that were dropped since the log last said so.
    dropped: AtomicUsize,
}

impl TrailLog {
    /// Starts the thread. It writes to the log of the calling thread.
    pub(super) fn start(observed: Observed) -> Self {
        Self::with_room(observed, LINES_MAX)
    }

    fn with_room(observed: Observed, most: usize) -> Self {
        let (queue, lines) = mpsc::sync_channel::<Vec<Line>>(BATCHES_MAX);
        let (end, ended) = mpsc::sync_channel(1);
        let shared = Arc::<Shared>::default();
        let log = tracing::dispatcher::get_default(Dispatch::clone);
        let of_thread = Arc::clone(&shared);
        let body = move || {
            tracing::dispatcher::with_default(&log, || write_all(&lines, &of_thread));
            // Its end is the sign.
            drop(end);
        };
        let queue = match std::thread::Builder::new().name("trail-log".into()).spawn(body) {
            Ok(_) => Some(queue),
            Err(error) => {
                tracing::error!(%error, "no thread for the lines of the trail; the engine writes them itself");
                None
            }
        };
        Self { queue, ended, shared, observed, most }
    }

    /// Logs the changes of a batch. Call it after the commit; `core` has the state of that commit.
    pub(super) fn log(&self, batch: &Batch, core: &Core) {
        self.put(lines(batch, core));
    }

    fn put(&self, lines: Vec<Line>) {
        let count = lines.len();
        let Some(queue) = &self.queue else { return lines.iter().for_each(Line::write) };
        if count == 0 {
            return;
        }
        // A batch alone is never too long.
        let before = self.shared.waiting.fetch_add(count, Ordering::Relaxed);
        if before > 0 && before + count > self.most {
            return self.drop_lines(count);
        }
        match queue.try_send(lines) {
            Ok(()) => {}
            Err(mpsc::TrySendError::Full(_)) => self.drop_lines(count),
            // The thread panicked.
            Err(mpsc::TrySendError::Disconnected(lines)) => lines.iter().for_each(Line::write),
        }
    }

    /// Counts lines that do not go to the thread.
    fn drop_lines(&self, count: usize) {
        self.shared.waiting.fetch_sub(count, Ordering::Relaxed);
        self.shared.dropped.fetch_add(count, Ordering::Relaxed);
        self.observed.report(|observer| observer.lines_dropped(count));
    }
}

impl Drop for TrailLog {
    fn drop(&mut self) {
        if self.queue.take().is_some() {
            let _ = self.ended.recv_timeout(FLUSH_LIMIT);
        }
    }
}

/// Writes what comes until nothing comes any more.
fn write_all(queue: &mpsc::Receiver<Vec<Line>>, shared: &Shared) {
    while let Ok(lines) = queue.recv() {
        for line in &lines {
            line.write();
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        say_dropped(shared);
    }
    say_dropped(shared);
}

fn say_dropped(shared: &Shared) {
    let dropped = shared.dropped.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        tracing::warn!(
            target: "wharfinger::trail",
            dropped,
            "lines of the trail are missing here: the log is read too slowly; `wharfinger events` has all entries"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::log_changes::test_line;
    use crate::engine::observe::{CallReport, CommitResult};
    use std::io::Write;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// A log whose reader stands still while its lock is held.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn revisions(&self) -> Vec<u64> {
            let text = String::from_utf8(self.lock().clone()).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            lines.filter_map(|line| line["revision"].as_u64()).collect()
        }

        fn said_dropped(&self) -> u64 {
            let text = String::from_utf8(self.lock().clone()).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            lines.filter_map(|line| line["dropped"].as_u64()).sum()
        }

        fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + 'static {
            let sink = self.clone();
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || sink.clone()).finish()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl crate::engine::Observer for Count {
        fn committed(&self, _: &Batch, _: Option<Duration>) {}
        fn turn(&self, _: usize, _: Duration) {}
        fn commit(&self, _: CommitResult, _: Duration) {}
        fn recovered(&self) {}
        fn call_waits(&self, _: &'static str, _: bool) {}
        fn call_begins(&self, _: &'static str) {}
        fn call_ends(&self, _: &CallReport<'_>) {}
        fn lines_dropped(&self, count: usize) {
            self.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_line_is_written_in_order_before_the_log_ends() {
        let sink = Sink::default();
        tracing::subscriber::with_default(sink.subscriber(), || {
            let log = TrailLog::start(Observed::default());
            for batch in 0..100 {
                log.put((0..10).map(|n| test_line(batch * 10 + n)).collect());
            }
        });
        assert_eq!(sink.revisions(), (0..1000).collect::<Vec<u64>>());
        assert_eq!(sink.said_dropped(), 0);
    }

    #[test]
    fn a_panic_of_the_engine_loses_no_line() {
        let sink = Sink::default();
        let panicked = tracing::subscriber::with_default(sink.subscriber(), || {
            let log = TrailLog::start(Observed::default());
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                log.put((0..500).map(test_line).collect());
                panic!("the engine is at its end");
            }))
        });
        assert!(panicked.is_err());
        assert_eq!(sink.revisions(), (0..500).collect::<Vec<u64>>());
    }

    /// The engine does not wait for a reader that stands still, and the log says what is missing.
    #[test]
    fn lines_that_find_no_room_are_counted_and_said() {
        let (sink, count) = (Sink::default(), Arc::new(Count::default()));
        let observed = Observed::default();
        observed.set(count.clone());
        tracing::subscriber::with_default(sink.subscriber(), || {
            let log = TrailLog::with_room(observed, 100);
            {
                let _standing_still = sink.lock();
                for batch in 0..30 {
                    log.put((0..10).map(|n| test_line(batch * 10 + n)).collect());
                }
            }
            drop(log);
        });
        let (revisions, dropped) = (sink.revisions(), count.0.load(Ordering::Relaxed));
        assert!(revisions.is_sorted(), "{revisions:?}");
        // The thread may have taken some from the queue, and stands at the first.
        assert_eq!((revisions.len(), dropped), (100, 200));
        assert_eq!(sink.said_dropped(), 200);
    }
}
