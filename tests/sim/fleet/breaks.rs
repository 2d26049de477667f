//! Rules that a run omits on purpose, so that the oracle must report a breach.

/// The rule that is omitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Break {
    /// The database accepts each commit, from any server and at any time.
    AnyEpoch,
    /// A leader continues after the end of its term.
    NoClock,
    /// Answers leave before the commit.
    ReplyFirst,
    /// A new leader repeats the calls under new operation numbers.
    NewNumbers,
    /// No grace after a take-over, restart or pause.
    NoGrace,
    /// The core gets the time of the wall clock.
    WallClock,
}

impl Break {
    pub(crate) const ALL: [Break; 6] =
        [Break::AnyEpoch, Break::NoClock, Break::ReplyFirst, Break::NewNumbers, Break::NoGrace, Break::WallClock];

    /// The rule of this name, as [`std::fmt::Debug`] prints it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| format!("{own:?}").eq_ignore_ascii_case(name))
    }
}
