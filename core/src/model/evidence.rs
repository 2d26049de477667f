//! Evidence against a resource, and the base rate of its pool.

/// Uses that count, by how they went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Uses {
    /// The work went well.
    pub good: u64,
    /// The work failed, and a check of the resource passed.
    pub bad: u64,
    /// Of `bad`: the same work passed elsewhere since.
    pub confirmed: u64,
}

/// How the uses of a pool went: the base rate beside which one resource is judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Record {
    /// All uses.
    pub ever: Uses,
    /// The latest uses: they are halved when they become too many.
    pub recent: Uses,
    /// How many times `recent` was halved.
    pub halvings: u32,
}

/// Uses of one resource in a row, since nothing spoke against it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Run {
    /// Uses that speak for it.
    pub good: u64,
    /// Uses that speak against it. Zero: there is no run.
    pub bad: u64,
    /// All uses of its pool when the run began.
    pub since: Uses,
}

/// The evidence that the uses of a resource give.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Evidence {
    /// Its part in its pool's [`Record::recent`].
    pub recent: Uses,
    /// How many times the pool's `recent` had been halved when this part was last brought up to date.
    pub halvings: u32,
    /// All failures with a passed check.
    pub run: Run,
    /// Failures of work that passed elsewhere.
    pub confirmed: Run,
    /// The audit trail has an entry that it is not set apart, and why.
    pub said: bool,
    /// How many times in a row it was set apart for it.
    pub apart: u32,
    /// It is on trial after that: it has one slot, and is trusted again after this many uses that go well.
    pub trial: Option<u32>,
    /// Repairs since work last went well on it.
    pub repairs: u32,
    /// Preparations that failed by its fault since work last went well on it.
    pub unfit: u32,
}

/// The weight of a failure with a passed check against its resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Weight {
    /// Nothing: no check has passed yet, or the same work failed there before.
    #[default]
    None,
    /// A failure.
    Counted,
    /// A failure of work that passed elsewhere.
    Confirmed,
    /// Nothing: the work fails elsewhere too.
    Excused,
}

impl Weight {
    /// All weights, for tables and tests.
    pub const ALL: [Weight; 4] = [Weight::None, Weight::Counted, Weight::Confirmed, Weight::Excused];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Weight::None => "NONE",
            Weight::Counted => "COUNTED",
            Weight::Confirmed => "CONFIRMED",
            Weight::Excused => "EXCUSED",
        }
    }
}
