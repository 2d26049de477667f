//! The lease core: every decision is made here, and nothing else is.
//!
//! The crate is `no_std` and depends on `wharfinger-types` alone, which is so too: the compiler proves that no clock,
//! socket, thread, file or random hash can even be named. Time comes in with each input; the same inputs at the same times give the same outputs,
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

extern crate alloc;

mod blame;
mod brake;
mod capacity;
mod cause;
mod clock;
mod command;
mod common;
mod deadlock;
mod doubt;
mod effect;
mod ending;
mod event;
mod explain;
mod fate;
mod follow;
mod id;
mod input;
mod invariant;
mod keep;
mod label;
mod lease;
mod machine;
mod matching;
mod near;
mod pending;
mod place;
mod pool;
mod queue;
mod recover;
mod resource;
mod size;
mod slots;
mod step;
mod tables;
mod time;
mod timer;
mod view;

pub use cause::{CauseChain, Link, Reason, Source};
pub use clock::{HybridClock, Reading};
pub use effect::{Effect, Work};
pub use event::Event;
pub use id::{GroupId, IdError, LeaseId, Op, ResourceId, Revision, Subject};
pub use input::{
    AdminRequest, AdminVerb, Blame, CallFailure, Claim, Input, LeaseRequest, Made, Notice, NoticeKind, NoticeTarget,
    Prepared, Verdict,
};
pub use label::{Labels, Selector};
pub use lease::{Cleanup, Ended, FailReason, Fault, Finding, Hold, Lease, LeaseSpec, LeaseState, Outcome, Texts};
pub use machine::{Core, Limits};
pub use pool::{Brake, Cordon, DoubtPolicy, Item, PoolConfig, PoolRow, Timeouts, Traits};
pub use resource::{AtRisk, Keep, Parent, Resource, ResourceState, WorkFailure};
pub use step::{Batch, Rejection, RejectionKind, Reply, Snapshot};
pub use time::{Millis, Timestamp};
pub use view::{Blocker, BrakeView, Explanation, ItemView, PoolCounters, PoolView};
