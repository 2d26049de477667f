//! Rules that a run leaves out on purpose, to see that the oracle notices.

/// What is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Break {
    /// The database takes a commit whoever sends it and however late it comes.
    AnyEpoch,
    /// A leader goes on after its time is over.
    NoClock,
    /// Answers leave before the commit.
    ReplyFirst,
    /// Who takes over makes the calls under numbers of its own.
    NewNumbers,
    /// No grace after a take-over, restart or pause.
    NoGrace,
    /// The core gets the time of the wall clock.
    WallClock,
}

impl Break {
    pub(crate) const ALL: [Break; 6] =
        [Break::AnyEpoch, Break::NoClock, Break::ReplyFirst, Break::NewNumbers, Break::NoGrace, Break::WallClock];

    /// By its name, as [`std::fmt::Debug`] tells it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|own| format!("{own:?}").eq_ignore_ascii_case(name))
    }
}
