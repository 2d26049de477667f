//! What happened, as text: all inputs, batches, answers and effects in their order.

use std::fmt::Write;
use wharfinger_core::Timestamp;

/// What becomes of the text. Most runs are over without a word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nobody reads it, and it is not even made.
    No,
    /// For the end.
    Yes,
    /// Printed at once, so that a run that never ends tells how far it got.
    Printed,
}

pub(crate) struct Trace {
    text: String,
    kept: Kept,
    start: Timestamp,
}

impl Trace {
    pub(crate) fn new(kept: Kept, start: Timestamp) -> Self {
        Self { text: String::new(), kept, start }
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, now: Timestamp, words: impl FnOnce() -> String) {
        if self.kept == Kept::No {
            return;
        }
        let since = now.since(self.start).0;
        let (words, secs, ms) = (words(), since / 1000, since % 1000);
        match self.kept {
            Kept::No => {}
            Kept::Yes => writeln!(self.text, "{secs:>5}.{ms:03} {words}").expect("a string takes all"),
            Kept::Printed => println!("{secs:>5}.{ms:03} {words}"),
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}
