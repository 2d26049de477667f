//! The trace of a run: its inputs, batches, answers and effects as text, in their order.

use std::fmt::Write;
use wharfinger_core::Timestamp;

/// Use of the text. Most runs end without a fault and need none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The text is not made.
    No,
    /// The text is kept until the end of the run.
    Yes,
    /// Each line is printed at once, so that a run without an end shows its progress.
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
