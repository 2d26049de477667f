//! The standard input of `run`: read as the command takes it, kept so that a second attempt gets it from the beginning.

use async_trait::async_trait;
use std::collections::VecDeque;
use std::io::{IsTerminal, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tonic::codegen::Bytes;
use wharfinger_adapter::InputSource;

/// Maximum length of the input that is kept for a further attempt, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// Standard input, or what stands for it in a test.
#[derive(Clone)]
pub(crate) struct Input(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// An attempt wants more.
    wanted: Condvar,
    /// There is more, or the end.
    arrived: Notify,
    kept_max: usize,
}

#[derive(Default)]
struct State {
    /// Pieces that are kept, and the number of those before them that are not.
    pieces: VecDeque<Bytes>,
    dropped: usize,
    kept: usize,
    /// Number of pieces that an attempt wants.
    wanted: usize,
    over: bool,
}

impl Input {
    /// The standard input of this process; `None` for a terminal, which is not passed on.
    pub(crate) fn stdin() -> Option<Self> {
        (!std::io::stdin().is_terminal()).then(|| Self::read_from(std::io::stdin(), KEPT_BYTES_MAX))
    }

    /// A file as the input of one command.
    pub(crate) fn of(file: std::fs::File) -> Self {
        Self::read_from(file, KEPT_BYTES_MAX)
    }

    /// Reads nothing before an attempt wants it. The thread is not waited for: a read may never return.
    fn read_from(mut source: impl Read + Send + 'static, kept_max: usize) -> Self {
        let shared =
            Arc::new(Shared { state: Mutex::default(), wanted: Condvar::new(), arrived: Notify::new(), kept_max });
        let reader = shared.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; READ_BYTES];
            loop {
                reader.until_wanted();
                let piece = loop {
                    match source.read(&mut buffer) {
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        // An input that cannot be read has ended, as for a command that reads it itself.
                        Err(_) | Ok(0) => break None,
                        Ok(n) => break Some(Bytes::copy_from_slice(&buffer[..n])),
                    }
                };
                if !reader.add(piece) {
                    return;
                }
            }
        });
        Self(shared)
    }

    /// The input from its beginning, for one attempt.
    pub(crate) fn reader_at_start(&self) -> Arc<dyn InputSource> {
        Arc::new(Reader { shared: self.0.clone(), next: tokio::sync::Mutex::new(0) })
    }

    /// Whether a further attempt can get all of it.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.lock().dropped == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn until_wanted(&self) {
        let mut state = self.lock();
        while state.wanted <= state.dropped + state.pieces.len() {
            state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Adds a piece, or the end. Returns whether there may be more.
    fn add(&self, piece: Option<Bytes>) -> bool {
        let more = piece.is_some();
        {
            let mut state = self.lock();
            state.over = !more;
            if let Some(piece) = piece {
                state.kept += piece.len();
                state.pieces.push_back(piece);
                // The piece that was wanted stays; those before it went to the attempt that wants it.
                while state.kept > self.kept_max && state.pieces.len() > 1 {
                    let first = state.pieces.pop_front().unwrap_or_default();
                    state.kept -= first.len();
                    state.dropped += 1;
                }
            }
        }
        self.arrived.notify_waiters();
        more
    }
}

struct Reader {
    shared: Arc<Shared>,
    next: tokio::sync::Mutex<usize>,
}

#[async_trait]
impl InputSource for Reader {
    async fn next(&self) -> Option<Bytes> {
        let mut next = self.next.lock().await;
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            // Before the look, so that nothing arrives unnoticed between the two.
            arrived.as_mut().enable();
            {
                let mut state = self.shared.lock();
                let there = next.checked_sub(state.dropped)?;
                if let Some(piece) = state.pieces.get(there) {
                    *next += 1;
                    return Some(piece.clone());
                }
                if state.over {
                    return None;
                }
                state.wanted = state.wanted.max(*next + 1);
            }
            self.shared.wanted.notify_one();
            arrived.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Ten pieces of one byte, and how many were read.
    struct Counted(Arc<AtomicUsize>);

    impl Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            buffer[0] = b'0' + u8::try_from(n).unwrap();
            Ok(usize::from(n < 10))
        }
    }

    async fn take(source: &Arc<dyn InputSource>, most: usize) -> String {
        let mut text = String::new();
        while text.len() < most
            && let Some(piece) = source.next().await
        {
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn a_further_attempt_gets_the_input_from_the_beginning() {
        let reads = Arc::new(AtomicUsize::new(0));
        let input = Input::read_from(Counted(reads.clone()), 1000);
        let first = input.reader_at_start();
        assert_eq!(take(&first, 3).await, "012");
        assert_eq!(reads.load(Ordering::Relaxed), 3, "read as it is taken");
        drop(first);
        let second = input.reader_at_start();
        assert_eq!(take(&second, 100).await, "0123456789");
        assert_eq!(second.next().await, None);
        assert!(input.is_whole());
    }

    #[tokio::test]
    async fn input_that_is_not_kept_is_reported() {
        let input = Input::read_from(Counted(Arc::default()), 4);
        let first = input.reader_at_start();
        assert_eq!(take(&first, 4).await, "0123");
        assert!(input.is_whole());
        assert_eq!(take(&first, 100).await, "456789");
        assert!(!input.is_whole());
    }
}
