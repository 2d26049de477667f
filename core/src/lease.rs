//! A lease as it is stored and told.

use crate::{CauseChain, GroupId, LeaseId, Millis, Op, ResourceId, Revision, Selector, Timestamp};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// String keys to string values: parameters for the adapter, tags of the holder, access.
pub type Texts = BTreeMap<Arc<str>, Arc<str>>;

/// One holder's claim on one slot of one resource.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// When it last changed.
    pub revision: Revision,
    /// What was asked for; never changes.
    pub spec: Arc<LeaseSpec>,
    /// Where it stands.
    pub state: LeaseState,
    /// The pool that serves it; `None` while it is in line.
    pub pool: Option<Arc<str>>,
    /// When it was asked for. With the priority, its place in the line.
    pub created_at: Timestamp,
    /// The revision at which it was asked for: breaks ties between equal ages.
    pub seq: u64,
    /// When its TTL runs out; `None` until it is active.
    pub expires_at: Option<Timestamp>,
    /// How many times it was sent back to the queue.
    pub attempts: u32,
    /// How many times it was put off through nobody's fault here: the remote or the provider was down.
    pub delays: u32,
    /// In line, but not to be served before this.
    pub not_before: Option<Timestamp>,
    /// Resources that failed it, newest last; at most [`Lease::MAX_AVOID`].
    pub avoid: Vec<ResourceId>,
    /// What went wrong the last time, for `explain`.
    pub trouble: Option<Arc<str>>,
    /// The resource will end at this time, as far as is known.
    pub ends_at: Option<Timestamp>,
    /// The resource under it is in doubt, and why. The lease holds until there is evidence.
    pub doubt: Option<Arc<str>>,
}

impl Lease {
    /// How many resources a lease remembers to avoid.
    pub const MAX_AVOID: usize = 16;

    /// The slot that it keeps others out of: while preparing, active, or being cleaned up after it.
    pub fn hold(&self) -> Option<&Hold> {
        match &self.state {
            LeaseState::Queued => None,
            LeaseState::Preparing { hold, .. } | LeaseState::Active { hold, .. } => Some(hold),
            LeaseState::Ended { cleanup, .. } => cleanup.as_ref().map(|c| &c.hold),
        }
    }

    /// Whether a repetition of its request is answered with it, and its group.
    pub(crate) fn is_of_request(&self) -> bool {
        self.spec.child.is_none() && self.spec.replaces.is_none() && self.spec.index == 0
    }

    /// Whether nothing more can come of it for its holder.
    pub fn ended(&self) -> bool {
        matches!(self.state, LeaseState::Ended { .. })
    }
}

/// What was asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseSpec {
    /// Chosen by the client; the same id is the same request.
    pub request_id: Arc<str>,
    /// Hash of the whole request, to tell a repetition from a mistake.
    pub fingerprint: u64,
    /// Who asked, authenticated.
    pub principal: Arc<str>,
    /// Who asked, in their own words.
    pub holder: Arc<str>,
    /// Of what.
    pub selector: Arc<Selector>,
    /// Higher goes first.
    pub priority: i32,
    /// From grant or renewal to the end.
    pub ttl: Millis,
    /// Give up waiting at this time.
    pub wait_until: Option<Timestamp>,
    /// How long the work is likely to take.
    pub expected: Option<Millis>,
    /// For the adapter.
    pub params: Arc<Texts>,
    /// For people: build URL, ticket.
    pub tags: Arc<Texts>,
    /// The request that it is part of, if that asked for several.
    pub group: Option<GroupId>,
    /// Its number within the group.
    pub index: u32,
    /// Released and broken on its own, though part of a group.
    pub independent: bool,
    /// The child resource that holds it; `None`: a client does.
    pub child: Option<ResourceId>,
    /// When it breaks, queue a successor at once.
    pub replace: bool,
    /// Whose successor it is.
    pub replaces: Option<LeaseId>,
    /// What work this is, in the holder's words: failures of the same work are compared.
    pub work: Option<Arc<str>>,
}

impl LeaseSpec {
    /// What counts as the same work: what the holder calls it; failing that, what the adapter was asked for; failing
    /// that, who asked.
    pub fn work_key(&self) -> Arc<str> {
        if let Some(work) = &self.work {
            return work.clone();
        }
        if self.params.is_empty() {
            return self.holder.clone();
        }
        let mut text = String::new();
        if let Some(pool) = &self.selector.pool {
            text.push_str(pool);
        }
        for (key, value) in &*self.params {
            text.push(' ');
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        Arc::from(text)
    }
}

/// A slot, held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hold {
    /// Of this resource.
    pub resource: ResourceId,
    /// This slot.
    pub slot: u32,
    /// Fencing token: the revision of the grant. Grows with every lease of the slot.
    pub token: u64,
}

/// Where a lease stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LeaseState {
    /// In line.
    Queued,
    /// A slot is its own; the adapter makes it ready.
    Preparing {
        /// Which slot.
        hold: Hold,
        /// The operation under way.
        op: Op,
    },
    /// The holder may work.
    Active {
        /// Which slot.
        hold: Hold,
        /// Since when.
        since: Timestamp,
        /// How to reach it.
        access: Arc<Texts>,
    },
    /// Over.
    Ended {
        /// How.
        how: Ended,
        /// When.
        at: Timestamp,
        /// The slot is still being cleaned; others are kept out.
        cleanup: Option<Cleanup>,
    },
}

/// Clean-up of a slot after its lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cleanup {
    /// Which slot.
    pub hold: Hold,
    /// The operation under way.
    pub op: Op,
}

/// How a lease ended.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ended {
    /// By its holder.
    Released {
        /// How the work went.
        outcome: Outcome,
        /// In the holder's words.
        note: Arc<str>,
        /// Whose fault a failure was, once that is known.
        finding: Option<Arc<Finding>>,
    },
    /// The TTL ran out.
    Expired,
    /// Against the holder's will.
    Broken {
        /// Why.
        cause: CauseChain,
        /// The lease that is queued or active in its stead.
        replacement: Option<LeaseId>,
    },
    /// By its holder, before it was active.
    Cancelled,
    /// It will never be active.
    Failed {
        /// Why.
        reason: FailReason,
        /// The adapter's stable code, if it was an adapter's word.
        code: Arc<str>,
        /// In words.
        detail: Arc<str>,
    },
}

impl Ended {
    /// The stable name of the state.
    pub fn as_str(&self) -> &'static str {
        match self {
            Ended::Released { .. } => "RELEASED",
            Ended::Expired => "EXPIRED",
            Ended::Broken { .. } => "BROKEN",
            Ended::Cancelled => "CANCELLED",
            Ended::Failed { .. } => "FAILED",
        }
    }
}

/// What the check after a failure found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Finding {
    /// Whose fault it was.
    pub fault: Fault,
    /// The evidence, in words.
    pub detail: Arc<str>,
}

/// Whose fault a failure was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// The resource passed its check; nothing more is known.
    Undecided,
    /// The resource: a check found it unfit, or different work keeps failing on it.
    Resource,
    /// The work: it failed on several resources whose checks pass.
    Work,
}

impl Fault {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Undecided => "UNDECIDED",
            Fault::Resource => "RESOURCE",
            Fault::Work => "WORK",
        }
    }
}

/// How the work went.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// Well.
    Ok,
    /// It failed: check the resource.
    Failed,
    /// The holder knows that the resource is mangled.
    Tainted,
    /// Its owner ended it, or its end is unknown: the resource is checked as after a failure, and nothing is counted.
    Abandoned,
}

impl Outcome {
    /// All outcomes, for tables and tests.
    pub const ALL: [Outcome; 4] = [Outcome::Ok, Outcome::Failed, Outcome::Tainted, Outcome::Abandoned];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "OK",
            Outcome::Failed => "FAILED",
            Outcome::Tainted => "TAINTED",
            Outcome::Abandoned => "ABANDONED",
        }
    }
}

/// Why a lease failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FailReason {
    /// It waited as long as it was asked to.
    WaitDeadline,
    /// Its own fault.
    Request,
    /// It was sent back to the queue too often.
    BudgetSpent,
    /// Another lease of the same request failed.
    Group,
}

impl FailReason {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            FailReason::WaitDeadline => "WAIT_DEADLINE",
            FailReason::Request => "REQUEST",
            FailReason::BudgetSpent => "BUDGET_SPENT",
            FailReason::Group => "GROUP",
        }
    }
}
