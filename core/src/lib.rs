//! The lease core: every decision is made here, and nothing else is.
//!
//! The crate is `no_std` without dependencies, so the compiler proves that no clock, socket, thread, file or random
//! hash can even be named. Time comes in with each input; the same inputs at the same times give the same outputs,
//! byte for byte.
//!
//! # The contract
//!
//! ```text
//! let mut core = Core::recover(snapshot, limits, now);     // from what is stored
//! loop {
//!     for input in inputs { replies.push(core.step(now, input)); }
//!     let batch = core.take_batch();                       // what all of them changed
//!     store.commit(&batch);                                // one transaction
//!     // only now: replies, watch events, batch.effects
//!     // wake up again at core.next_deadline()
//! }
//! ```
//!
//! If a commit fails or is in doubt, the core is thrown away and recovered from the store.
#![no_std]
// A decision names the states for which it is made, so that a new one shows itself.
#![deny(clippy::wildcard_enum_match_arm)]

extern crate alloc;

mod capacity;
mod clock;
mod command;
mod core;
mod deadlock;
mod explain;
mod invariant;
mod lifecycle;
mod matching;
mod model;
mod near;
mod place;
mod policy;
mod replica;
mod size;
mod state;

pub use self::core::Limits;
pub use self::state::Core;
pub use clock::{HybridClock, Reading};
pub use model::cause::{CauseChain, Link, Reason, Source};
pub use model::effect::{Effect, Work};
pub use model::event::{Event, EventKind};
pub use model::id::{GroupId, IdError, LeaseId, Op, ResourceId, Revision, Subject};
pub use model::input::{
    AdminRequest, AdminVerb, Blame, CallFailure, Claim, Input, LeaseRequest, Made, Notice, NoticeKind, NoticeTarget,
    Prepared, Verdict,
};
pub use model::label::{Labels, Selector};
pub use model::lease::{
    Assignment, Cleanup, Ended, FailReason, Fault, Finding, Lease, LeaseSpec, LeaseState, Outcome, Texts,
};
pub use model::output::{Batch, Rejection, RejectionKind, Reply, Snapshot};
pub use model::pool::{Brake, Cordon, DoubtPolicy, Item, PoolConfig, PoolRow, Timeouts, Traits};
pub use model::resource::{AtRisk, Hold, Parent, Resource, ResourceState, Stage, WorkFailure};
pub use model::time::{Millis, Timestamp};
pub use model::view::{Blocker, BlockerCode, BrakeView, Explanation, ItemView, PoolCounters, PoolView};
