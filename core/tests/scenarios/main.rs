//! Scenarios of the field over the bare core: what happens at the wharf, in the order in which it happens.
//!
//! Each step is committed to a store in memory, compared with it, and followed by `check_invariants()`.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a wrong turn of the story ends it")]

mod blame;
mod brake;
mod census;
mod changes;
mod clock;
mod drydock;
mod foretold;
mod groups;
mod isolation;
mod kept;
mod life;
mod line;
mod loss;
mod losses;
mod machines;
mod matching;
mod near;
mod notices;
mod operator;
mod peers;
mod pools;
mod queue;
mod quotas;
mod restart;
mod retry;
mod sessions;
mod shares;
mod sizing;
mod starts;
mod supply;
mod tenants;
mod unfit;
mod unreached;
mod world;
