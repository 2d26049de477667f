//! A lease as it is stored and served.

use crate::{
    Caller, CauseChain, GroupId, LeaseId, Millis, Op, ResourceId, Revision, Scope, Selector, SessionId, Timestamp,
};
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
    /// The request; it never changes.
    pub spec: Arc<LeaseSpec>,
    /// Its state.
    pub state: LeaseState,
    /// The pool that serves it; `None` while it is queued.
    pub pool: Option<Arc<str>>,
    /// The time of the request. With the priority, its place in the queue.
    pub created_at: Timestamp,
    /// The revision of the request: breaks ties between equal ages.
    pub seq: u64,
    /// When its TTL runs out; `None` until it is active. While a session keeps it, that is the end of its life, if that has a limit.
    pub expires_at: Option<Timestamp>,
    /// No renewal goes beyond this; `None` until it is active, and where its life has no limit.
    pub expires_at_most: Option<Timestamp>,
    /// How many times it was sent back to the queue.
    pub attempts: u32,
    /// Number of delays because a remote or a provider was down.
    pub delays: u32,
    /// A queued lease is not served before this time.
    pub not_before: Option<Timestamp>,
    /// Resources that failed it, newest last; at most [`Lease::MAX_AVOID`].
    pub avoid: Vec<ResourceId>,
    /// The latest failure, for `explain`.
    pub trouble: Option<Arc<str>>,
    /// The resource will end at this time, as far as is known.
    pub ends_at: Option<Timestamp>,
    /// The resource under it is in doubt, and why. The lease holds until there is evidence.
    pub doubt: Option<Arc<str>>,
    /// The session that keeps it. It may have ended since: then the lease has a TTL of its own.
    pub session: Option<SessionId>,
    /// The stream of its session ended at this time, and none has resumed it. The lease holds until the session ends.
    pub holder_doubt: Option<Timestamp>,
}

impl Lease {
    /// How many resources a lease remembers to avoid.
    pub const MAX_AVOID: usize = 16;

    /// A new lease in the queue. `seq`: the revision of its request.
    pub fn queued(id: LeaseId, spec: LeaseSpec, at: Timestamp, seq: u64) -> Self {
        Self {
            id,
            revision: Revision(0),
            spec: Arc::new(spec),
            state: LeaseState::Queued,
            pool: None,
            created_at: at,
            seq,
            expires_at: None,
            expires_at_most: None,
            attempts: 0,
            delays: 0,
            not_before: None,
            avoid: Vec::new(),
            trouble: None,
            ends_at: None,
            doubt: None,
            session: None,
            holder_doubt: None,
        }
    }

    /// The slot that it keeps others out of: while preparing, active, or being cleaned up after it.
    pub fn assignment(&self) -> Option<&Assignment> {
        match &self.state {
            LeaseState::Queued => None,
            LeaseState::Preparing { assignment, .. } | LeaseState::Active { assignment, .. } => Some(assignment),
            LeaseState::Ended { cleanup, .. } => cleanup.as_ref().map(|c| &c.assignment),
        }
    }

    /// The doubt in its resource, for a reader of this scope: the words may be those of another holder.
    pub fn doubt_for(&self, scope: &Scope) -> Option<Arc<str>> {
        match &self.doubt {
            Some(_) if !scope.tells_of(self.pool.as_deref()) => Some(Arc::from("a check is under way")),
            doubt => doubt.clone(),
        }
    }

    /// The tenant and the id of its request, which no other request has.
    pub(crate) fn request_key(&self) -> (Arc<str>, Arc<str>) {
        (self.spec.tenant.clone(), self.spec.request_id.clone())
    }

    /// Whether a repetition of its request is answered with it, and its group.
    pub(crate) fn is_of_request(&self) -> bool {
        self.spec.child.is_none() && self.spec.replaces.is_none() && self.spec.index == 0
    }

    /// Its TTL and its life begin. `kept`: a session keeps it, and it has no TTL of its own.
    pub(crate) fn begin(&mut self, now: Timestamp, kept: bool) {
        self.expires_at_most = self.spec.total.map(|total| now.after(total));
        if kept {
            self.expires_at = self.expires_at_most;
        } else {
            self.end_at(now.after(self.spec.ttl));
        }
    }

    /// Its TTL ends at this time, at most at the end of its life.
    pub(crate) fn end_at(&mut self, until: Timestamp) {
        self.expires_at = Some(self.expires_at_most.map_or(until, |most| until.min(most)));
    }

    /// The session in whose table of leases it stands.
    pub(crate) fn in_session(&self) -> Option<SessionId> {
        self.session.filter(|_| !self.ended())
    }

    /// Whether it is over for its holder.
    pub fn ended(&self) -> bool {
        matches!(self.state, LeaseState::Ended { .. })
    }
}

/// The request of one lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseSpec {
    /// Chosen by the client; the same id is the same request.
    pub request_id: Arc<str>,
    /// Hash of the whole request: it distinguishes a repetition from a mistake.
    pub fingerprint: u64,
    /// The tenant to which it belongs.
    pub tenant: Arc<str>,
    /// The authenticated principal, within the tenant.
    pub principal: Arc<str>,
    /// The holder's own name, as free text.
    pub holder: Arc<str>,
    /// The resources that fit.
    pub selector: Arc<Selector>,
    /// Higher goes first.
    pub priority: i32,
    /// From grant or renewal to the end.
    pub ttl: Millis,
    /// The time at which it fails if it still waits.
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
    /// The broken lease that it succeeds.
    pub replaces: Option<LeaseId>,
    /// The holder's name of the work: failures of the same work are compared.
    pub work: Option<Arc<str>>,
    /// Maximum life from when it is active.
    pub total: Option<Millis>,
}

impl LeaseSpec {
    /// A request for one lease of its tenant, by a principal of the same name, without a name of its holder.
    pub fn new(request_id: impl Into<Arc<str>>, tenant: Arc<str>, selector: Arc<Selector>, ttl: Millis) -> Self {
        Self {
            request_id: request_id.into(),
            fingerprint: 0,
            principal: tenant.clone(),
            tenant,
            holder: Arc::from(""),
            selector,
            priority: 0,
            ttl,
            wait_until: None,
            expected: None,
            params: Arc::default(),
            tags: Arc::default(),
            group: None,
            index: 0,
            independent: false,
            child: None,
            replace: false,
            replaces: None,
            work: None,
            total: None,
        }
    }

    /// The key of the same work: the holder's name of it; failing that, the parameters for the adapter; failing
    /// that, the holder. Works of different tenants are different.
    pub fn work_key(&self) -> Arc<str> {
        let own = self.own_work_key();
        if *self.tenant == *Caller::DEFAULT_TENANT { own } else { Arc::from(alloc::format!("{}/{own}", self.tenant)) }
    }

    fn own_work_key(&self) -> Arc<str> {
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

/// The slot of a lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Assignment {
    /// The resource.
    pub resource: ResourceId,
    /// The number of the slot.
    pub slot: u32,
    /// Fencing token: the revision of the grant. Grows with every lease of the slot.
    pub token: u64,
}

/// The state of a lease.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LeaseState {
    /// It waits in the queue.
    Queued,
    /// It has a slot, and the adapter makes that ready.
    Preparing {
        /// Its slot.
        assignment: Assignment,
        /// The operation under way.
        op: Op,
    },
    /// The holder may work.
    Active {
        /// Its slot.
        assignment: Assignment,
        /// Since when.
        since: Timestamp,
        /// How to reach it.
        access: Arc<Texts>,
    },
    /// It is over.
    Ended {
        /// How it ended.
        how: Ended,
        /// When it ended.
        at: Timestamp,
        /// The slot is still being cleaned; others are kept out.
        cleanup: Option<Cleanup>,
    },
}

/// Clean-up of a slot after its lease.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cleanup {
    /// The slot.
    pub assignment: Assignment,
    /// The operation under way.
    pub op: Op,
}

/// How a lease ended.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ended {
    /// By its holder.
    Released {
        /// The outcome of the work.
        outcome: Outcome,
        /// The holder's note.
        note: Arc<str>,
        /// The fault of a failure, once it is known.
        finding: Option<Arc<Finding>>,
    },
    /// The TTL ran out.
    Expired,
    /// Against the holder's will.
    Broken {
        /// The causes, up to the root.
        cause: CauseChain,
        /// The lease that succeeds it.
        replacement: Option<LeaseId>,
    },
    /// By its holder, before it was active.
    Cancelled,
    /// It will never be active.
    Failed {
        /// The reason.
        reason: FailReason,
        /// The adapter's stable code, if an adapter refused.
        code: Arc<str>,
        /// Free text.
        detail: Arc<str>,
    },
}

impl LeaseState {
    /// The stable names of all states. An ended lease has the name of its end: see [`Ended::as_str`].
    pub const NAMES: [&'static str; 8] =
        ["QUEUED", "PREPARING", "ACTIVE", "RELEASED", "EXPIRED", "BROKEN", "CANCELLED", "FAILED"];
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

/// The finding of the check after a failure.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Finding {
    /// The fault.
    pub fault: Fault,
    /// The evidence, as text.
    pub detail: Arc<str>,
}

impl Finding {
    /// The evidence, for a reader of this scope: what failed on a shared resource may name other tenants' works.
    pub fn detail_for(&self, scope: &Scope) -> Arc<str> {
        match self.fault {
            Fault::Resource if !scope.is_all() => Arc::from("the resource was found unfit"),
            Fault::Open | Fault::Resource | Fault::Undecided | Fault::Work => self.detail.clone(),
        }
    }
}

/// The fault of a failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// A check is under way.
    Open,
    /// The resource passed its check; nothing more is known.
    Undecided,
    /// The resource: a check found it unfit, or different work keeps failing on it.
    Resource,
    /// The work: it failed on several resources whose checks pass.
    Work,
}

impl Fault {
    /// All of them, for tables and tests.
    pub const ALL: [Fault; 4] = [Fault::Open, Fault::Undecided, Fault::Resource, Fault::Work];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Open => "OPEN",
            Fault::Undecided => "UNDECIDED",
            Fault::Resource => "RESOURCE",
            Fault::Work => "WORK",
        }
    }
}

/// The outcome of the work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// It succeeded.
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

/// The reason for which a lease failed.
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
