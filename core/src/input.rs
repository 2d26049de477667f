//! What comes in.

use crate::{LeaseId, Millis, Op, Outcome, PoolConfig, ResourceId, Selector, Texts, Timestamp};
use alloc::sync::Arc;
use alloc::vec::Vec;
pub use wharfinger_types::{Blame, Verdict};

/// One thing that happened. All of it is data: the core asks for nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A client wants something.
    Lease(LeaseRequest),
    /// A holder is done, or does not want to wait any more. Releasing twice is fine.
    Release {
        /// Which lease; its whole group goes with it unless its members are independent.
        lease: LeaseId,
        /// Who says so.
        principal: Arc<str>,
        /// How the work went.
        outcome: Outcome,
        /// In words.
        note: Arc<str>,
        /// Keep the resource as it is for so long, to be looked at. Within the pool's limit.
        hold: Option<Millis>,
    },
    /// A holder meets failures while it works and asks whether the resource is at fault: it is checked, the lease goes on.
    Report {
        /// Which lease.
        lease: LeaseId,
        /// Who says so.
        principal: Arc<str>,
        /// What was seen.
        note: Arc<str>,
    },
    /// A holder cannot get in to its resource: a new login of the broker's decides whether that is the host's fault.
    Unreached {
        /// Which lease.
        lease: LeaseId,
        /// Its principal.
        principal: Arc<str>,
        /// The holder's error.
        note: Arc<str>,
    },
    /// A holder is still there.
    Renew {
        /// Which lease.
        lease: LeaseId,
        /// Who says so.
        principal: Arc<str>,
        /// A new TTL from now on; `None`: the one asked for.
        ttl: Option<Millis>,
    },
    /// An operator acts.
    Admin(AdminRequest),
    /// An adapter that makes a resource writes down what it is about to do in the outside world, or what came of it, so
    /// that a restart finds it. Refused if nobody waits for the operation any more: then it must not be done.
    Noted {
        /// Which.
        resource: ResourceId,
        /// The operation's number.
        op: Op,
        /// Stands as the resource's handle until it is made, and for its removal if it never is.
        handle: Arc<str>,
    },
    /// An adapter made a resource, or did not.
    Provisioned {
        /// Which.
        resource: ResourceId,
        /// The operation's number.
        op: Op,
        /// What came of it.
        result: Result<Made, CallFailure>,
    },
    /// An adapter made a slot ready, or did not.
    Prepared {
        /// For which lease.
        lease: LeaseId,
        /// The operation's number.
        op: Op,
        /// What was made.
        result: Result<Prepared, CallFailure>,
    },
    /// An adapter cleaned a slot, or did not.
    Cleaned {
        /// After which lease.
        lease: LeaseId,
        /// The operation's number.
        op: Op,
        /// What came of it.
        result: Result<(), CallFailure>,
    },
    /// A check came back.
    Checked {
        /// Of which resource.
        resource: ResourceId,
        /// The operation's number.
        op: Op,
        /// The verdict; an error is no verdict.
        result: Result<Verdict, CallFailure>,
    },
    /// A probe came back.
    Probed {
        /// Of which resource.
        resource: ResourceId,
        /// The verdict; an error is no verdict.
        result: Result<Verdict, CallFailure>,
    },
    /// A repair came back.
    Repaired {
        /// Of which resource.
        resource: ResourceId,
        /// The operation's number.
        op: Op,
        /// What came of it.
        result: Result<(), CallFailure>,
    },
    /// A destroy came back.
    Destroyed {
        /// Of which resource.
        resource: ResourceId,
        /// The operation's number.
        op: Op,
        /// What came of it.
        result: Result<(), CallFailure>,
    },
    /// The world said something unasked.
    Notice(Notice),
    /// The configuration, whole, in the order of the file. Already checked.
    Configure(Vec<PoolConfig>),
    /// Nothing but time.
    Tick,
}

/// A request for one or several leases: all or nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseRequest {
    /// Chosen by the client.
    pub request_id: Arc<str>,
    /// Who asks, authenticated.
    pub principal: Arc<str>,
    /// Who asks, in their own words.
    pub holder: Arc<str>,
    /// What is wanted; at least one.
    pub claims: Vec<Claim>,
    /// Higher goes first.
    pub priority: i32,
    /// `None`: the pool's default.
    pub ttl: Option<Millis>,
    /// How long to stay in line; `None`: for ever.
    pub queue_for: Option<Millis>,
    /// Fail at once if it can't be granted at once.
    pub no_queue: bool,
    /// How long the work is likely to take.
    pub expected: Option<Millis>,
    /// For people.
    pub tags: Arc<Texts>,
    /// Members are released and broken on their own.
    pub independent: bool,
    /// When it breaks, queue a successor at once.
    pub replace: bool,
    /// What work this is: failures of the same work are compared. `None`: see [`crate::LeaseSpec::work_key`].
    pub work: Option<Arc<str>>,
    /// Resources that failed this work before, and with a working copy its host: others go first.
    pub avoid: Vec<ResourceId>,
}

/// One kind of thing wanted by a request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    /// Of what.
    pub selector: Arc<Selector>,
    /// So many, each on a slot of its own.
    pub count: u32,
    /// For the adapter.
    pub params: Arc<Texts>,
}

/// What an adapter made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Made {
    /// What the adapter needs to find it again.
    pub handle: Option<Arc<str>>,
    /// How to reach it.
    pub access: Texts,
    /// Labels found on the way.
    pub labels: Texts,
}

/// A call to an adapter that did not work.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallFailure {
    /// Who must act.
    pub blame: Blame,
    /// A stable code.
    pub reason: Arc<str>,
    /// In words.
    pub message: Arc<str>,
    /// Not before this long from now.
    pub retry_after: Option<Millis>,
}

/// What the outside world says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Notice {
    /// Of which pool.
    pub pool: Arc<str>,
    /// About what.
    pub target: NoticeTarget,
    /// What.
    pub kind: NoticeKind,
    /// Which source spoke.
    pub source: Arc<str>,
    /// In its own words.
    pub detail: Arc<str>,
}

/// About what a notice is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NoticeTarget {
    /// A resource.
    Resource(ResourceId),
    /// An inventory entry.
    Item(Arc<str>),
}

/// The kind of a notice, in the core's time.
pub type NoticeKind = wharfinger_types::NoticeKind<Timestamp>;

/// An operator's word.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AdminRequest {
    /// Who.
    pub principal: Arc<str>,
    /// Why, in their words.
    pub reason: Arc<str>,
    /// What.
    pub verb: AdminVerb,
}

/// What an operator can say. Each is valid in every state: what can't apply any more changes nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AdminVerb {
    /// No new leases in this pool.
    CordonPool(Arc<str>),
    /// New leases in this pool again.
    UncordonPool(Arc<str>),
    /// No new leases on this resource.
    Cordon(ResourceId),
    /// New leases again; a drain by an operator ends.
    Uncordon(ResourceId),
    /// No new leases; destroyed when the last one ends, or at the deadline.
    Drain(ResourceId, Option<Millis>),
    /// Check it now.
    Check(ResourceId),
    /// It is mangled: check, repair or recycle.
    Taint(ResourceId),
    /// Keep it as it is; its leases are broken.
    Quarantine(ResourceId),
    /// Keep it as it is for so long, once its leases have ended; those go on.
    Hold(ResourceId, Millis),
    /// The same, for the resource of this lease.
    HoldLease(LeaseId, Millis),
    /// Back from quarantine or a hold, by way of a check.
    Recover(ResourceId),
    /// Destroy it now and make another.
    Recycle(ResourceId),
    /// End this lease.
    Break(LeaseId),
    /// Forget it, whatever it is: its clean-up becomes a debt and its capacity is free.
    ForceDestroy(ResourceId),
}

/// A slot that is ready for its holder, with shared texts.
pub type Prepared = wharfinger_types::Prepared<Arc<str>>;
