//! Reports of the engine's own work, to meters. An observer decides nothing and delays nothing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use wharfinger_core::Batch;

/// Hears of what was committed and of how long things took. Each method returns at once.
pub trait Observer: Send + Sync {
    /// A batch is committed and published. Each batch comes once. `heard`: the time since the oldest input of its turn came in,
    /// from a caller, a notice or an adapter.
    fn committed(&self, batch: &Batch, heard: Option<Duration>);

    /// A turn of this number of inputs has ended, with its commit.
    fn turn(&self, inputs: usize, took: Duration);

    /// A commit has ended.
    fn commit(&self, result: CommitResult, took: Duration);

    /// The engine recovered from its store.
    fn recovered(&self);

    /// A call of an adapter begins to wait for a permit of this kind, or ends to.
    fn call_waits(&self, permit: &'static str, waits: bool);

    /// A call of an adapter has begun with a permit of this kind.
    fn call_begins(&self, permit: &'static str);

    /// A call of an adapter has ended.
    fn call_ends(&self, call: &CallReport<'_>);

    /// This number of lines of the trail found no room on their way to the log.
    fn lines_dropped(&self, count: usize);
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitResult {
    /// It is durable.
    Ok,
    /// Nothing of it is stored.
    NotCommitted,
    /// It may be stored or not.
    InDoubt,
    /// Another server leads.
    Deposed,
}

/// One call of an adapter.
#[derive(Clone, Copy, Debug)]
pub struct CallReport<'a> {
    /// The pool.
    pub pool: &'a str,
    /// The kind of its permit: `work`, `provisions`, `boots`, `checks`, `probes`.
    pub permit: &'static str,
    /// The kind of call: `provision`, `prepare`, `clean`, `check`, `probe`, `repair`, `destroy`.
    pub work: &'static str,
    /// `ok`, a class of failure by who must act, `timeout`, or `ended` (for another call on the same resource).
    pub result: &'static str,
    /// From its begin to its end, without the wait for a permit.
    pub took: Duration,
}

/// The place of the one observer of a process. Without one, reports go nowhere.
#[derive(Clone, Default)]
pub struct Observed(Arc<OnceLock<Arc<dyn Observer>>>);

impl Observed {
    /// Sets the observer. Only the first call has an effect.
    pub fn set(&self, observer: Arc<dyn Observer>) {
        let _ = self.0.set(observer);
    }

    /// Reports to the observer, if there is one.
    pub(crate) fn report(&self, report: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = self.0.get() {
            report(&**observer);
        }
    }
}
