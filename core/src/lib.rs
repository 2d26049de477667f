//! The lease core: every decision of the broker is made here, and nothing else is.
//!
//! The crate is `no_std` and depends on `wharfinger-types` alone, which is so too. It cannot name a clock, socket,
//! thread, file or random hash. Time comes in with each input. The same inputs at the same times give the same outputs,
//! byte for byte.
//!
//! # The contract
//!
//! [`Core::step`] takes one [`Input`] at a time and returns a [`Reply`] or a [`Rejection`]. [`Core::take_batch`]
//! returns what all steps since its last call changed. The caller stores the [`Batch`] in one transaction. Replies,
//! watch events and [`Batch::effects`] leave only after that. If a commit fails or is in doubt, the caller throws the
//! core away and makes another by [`Core::recover`].
//!
//! ```
//! use std::sync::Arc;
//! use wharfinger_core::{
//!     Caller, Claim, Core, Input, LeaseRequest, LeaseState, Limits, Made, Outcome, PoolConfig, Reply, Selector, Snapshot,
//!     Timestamp, Work,
//! };
//!
//! // From an empty store, with one pool of at most one machine.
//! let now = Timestamp(1_000_000);
//! let mut core = Core::recover(Snapshot::default(), vec![PoolConfig::named("hosts")], Limits::default(), now);
//!
//! // A client wants a host. None is there, so the lease waits and the batch asks the adapter for one.
//! let claims = vec![Claim::of(Selector::pool("hosts"), 1)];
//! let request = LeaseRequest::new(Caller::sole_tenant("ann"), "build-1", claims);
//! let Ok(Reply::Leases(leases)) = core.step(now, Input::Lease(request)) else { panic!("the request is valid") };
//! assert_eq!(leases[0].state, LeaseState::Queued);
//! let batch = core.take_batch();
//! assert_eq!(batch.leases.len(), 1);
//! let call = &batch.effects[0];
//! assert_eq!(call.work, Work::Provision(0));
//!
//! // The adapter made the host: the lease is active in the same step.
//! let later = Timestamp(1_060_000);
//! let made = Input::Provisioned { resource: call.resource.id, op: call.op, result: Ok(Made::default()) };
//! core.step(later, made).unwrap();
//! let lease = core.lease(leases[0].id).unwrap();
//! assert!(matches!(lease.state, LeaseState::Active { .. }));
//! assert_eq!(lease.assignment().unwrap().resource, call.resource.id);
//!
//! // The holder is done, and says how its work went.
//! let (lease, note) = (leases[0].id, Arc::from(""));
//! let done = Input::Release { lease, caller: Caller::sole_tenant("ann"), outcome: Outcome::Ok, note, hold: None };
//! core.step(later, done).unwrap();
//! assert!(core.lease(lease).unwrap().ended());
//! ```
//!
//! # Rows
//!
//! A [`Lease`] is one holder's claim on one slot of one resource. Its state goes from QUEUED over PREPARING to ACTIVE
//! and to an end ([`Ended`]). A lease whose resource could not be prepared goes back to its place in the queue. From
//! its grant to the end of its clean-up a lease has an [`Assignment`], which no other lease has at the same time.
//!
//! A [`Resource`] is one leasable thing: a host, or a working copy on a host. [`ResourceState`] names its states, and
//! [`Stage`] what they mean to decisions. Only a READY resource gets new leases. Doubt breaks no lease: evidence does,
//! a verdict or silence over a time. A resource that is removed takes its leases and the resources on it with it.
//!
//! A [`Session`] is one stream of one agent. Its heartbeats keep its leases, and change no row. The end of the stream is doubt in the
//! holder; silence for longer than its TTL or its grace ends it, and its leases.
//!
//! A [`Machine`] is an entry of an inventory: what operators ordered for it holds whatever becomes of the resources that
//! stand for it one after the other.
//!
//! A [`PoolConfig`] says how many resources there may be, and how doubt, holds and the brake are handled.
//!
//! # What holds after every step
//!
//! [`Core::check_invariants`] verifies it:
//!
//! 1. A slot has at most one lease, and the resource and the lease agree on it.
//! 2. No lease is live on a resource that is being made, set apart, removed or gone.
//! 3. A working copy has a lease on its host, and goes with it.
//! 4. Each queued lease stands in the queue once, with those that are granted with it.
//! 5. Counters and indices are what counting anew gives.
//! 6. A resource has the cordon of its machine.
//! 7. A finding that is open has a check to come.
//! 8. Nothing that follows from a change is left to do.
//! 9. A lease that a session keeps has no TTL of its own, and shows the doubt of its session.
//!
//! # Rooms
//!
//! Modules are private; the order of dependence is: `model` (data), `state` (rows and indices, with private fields),
//! `policy` (decisions that change nothing), `lifecycle` (what follows from what), `command` (one file an input),
//! `replica` (recovery and followers), `query` (answers for people).
#![no_std]
// A decision names the states for which it is made, so that a new one shows itself.
#![deny(clippy::wildcard_enum_match_arm, missing_docs)]

extern crate alloc;

mod clock;
mod command;
mod core;
mod invariant;
mod lifecycle;
mod model;
mod policy;
mod query;
mod replica;
mod state;

pub use self::core::Limits;
pub use self::state::Core;
pub use self::state::learned::Learned;
pub use clock::{HybridClock, Reading};
pub use command::Impact;
pub use model::caller::{Caller, Program, Provenance, Scope, Within};
pub use model::cause::{CauseChain, Link, Reason, Source};
pub use model::effect::{Effect, Work};
pub use model::event::{Event, EventKind};
pub use model::evidence::{Evidence, Record, Run, Uses, Weight};
pub use model::id::{GroupId, IdError, LeaseId, Op, ResourceId, Revision, SessionId, Subject};
pub use model::input::{
    AdminRequest, AdminVerb, Blame, CallFailure, Claim, Input, LeaseRequest, Made, Notice, NoticeKind, NoticeTarget,
    Prepared, Verdict,
};
pub use model::label::{Labels, Selector};
pub use model::lease::{
    Assignment, Cleanup, Ended, FailReason, Fault, Finding, Lease, LeaseSpec, LeaseState, Outcome, Texts,
};
pub use model::losses::Losses;
pub use model::machine::{Machine, MachineKey, MachineName, MachineVerb, Note, Order};
pub use model::output::{Batch, Rejection, RejectionKind, Reply, Snapshot};
pub use model::pool::{Brake, Cordon, DoubtPolicy, Isolation, Item, PoolConfig, PoolRow, Timeouts, Traits};
pub use model::pools::{Pools, matches};
pub use model::resource::{AtRisk, Hold, Parent, Resource, ResourceState, Stage, WorkFailure};
pub use model::session::{Session, SessionRequest, SessionStream};
pub use model::tenant::{Configuration, Rate, Tenant, Tenants};
pub use model::time::{Millis, Timestamp};
pub use model::view::{Blocker, BlockerCode, BrakeView, Explanation, ItemView, PoolCounters, PoolView, TenantView};
pub use query::{
    Census, LikelyStart, NoStart, PoolCensus, QueueClass, QueuePage, QueuePlace, QueueRow, SeenResource, SlotCensus,
    StateCensus, View,
};
