//! The inputs of the core.

use crate::{
    Caller, Configuration, LeaseId, MachineName, MachineVerb, Millis, Op, Outcome, ResourceId, Revision, Selector,
    SessionId, SessionRequest, SessionStream, Texts, Timestamp,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
pub use wharfinger_types::{Blame, Verdict};

/// One request, answer or notice. All of it is data: the core asks for nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A client requests leases.
    Lease(LeaseRequest),
    /// A holder is done, or stops waiting. A second release changes nothing.
    Release {
        /// The lease. Its whole group goes with it, unless its members are independent.
        lease: LeaseId,
        /// The caller.
        caller: Caller,
        /// The outcome of the work.
        outcome: Outcome,
        /// Free text.
        note: Arc<str>,
        /// How long the resource is held for triage; at most the pool's `max_hold`.
        hold: Option<Millis>,
    },
    /// A holder reports failures while it works: the resource is checked, and the lease goes on.
    Report {
        /// The lease.
        lease: LeaseId,
        /// The caller.
        caller: Caller,
        /// The failures, as text.
        note: Arc<str>,
    },
    /// A holder cannot get in to its resource: a new login of the broker decides whether that is the host's fault.
    Unreached {
        /// The lease.
        lease: LeaseId,
        /// The caller.
        caller: Caller,
        /// The holder's error.
        note: Arc<str>,
    },
    /// A holder extends its lease.
    Renew {
        /// The lease.
        lease: LeaseId,
        /// The caller.
        caller: Caller,
        /// The new TTL from now on; `None`: that of the request.
        ttl: Option<Millis>,
    },
    /// A holder extends several leases. Each has a result of its own.
    RenewAll {
        /// The leases.
        leases: Vec<LeaseId>,
        /// The caller.
        caller: Caller,
        /// The new TTL from now on; `None`: that of each request.
        ttl: Option<Millis>,
    },
    /// An agent opens a session.
    OpenSession(SessionRequest),
    /// An agent resumes its session by another stream.
    ResumeSession {
        /// The session.
        session: SessionId,
        /// The caller.
        caller: Caller,
    },
    /// The agent of a session lives.
    Beat(SessionStream),
    /// The stream of a session ended: its holder is in doubt.
    StreamEnded(SessionStream),
    /// An agent closes its session. Its leases go on by their own TTL.
    CloseSession {
        /// Its stream.
        stream: SessionStream,
        /// The caller.
        caller: Caller,
    },
    /// A session keeps several leases from now on. Each has a result of its own.
    KeepAll {
        /// The leases.
        leases: Vec<LeaseId>,
        /// The caller.
        caller: Caller,
        /// The stream of the session.
        stream: SessionStream,
    },
    /// A request of an operator.
    Admin(AdminRequest),
    /// An adapter that makes a resource writes down what it is about to do in the outside world, or what came of it, so
    /// that a restart finds it. Refused if the operation was given up: then it must not be done.
    Noted {
        /// The resource.
        resource: ResourceId,
        /// The operation's number.
        op: Op,
        /// Stands as the resource's handle until it is made, and for its removal if it never is.
        handle: Arc<str>,
    },
    /// An adapter made a resource, or did not.
    Provisioned {
        /// The resource.
        resource: ResourceId,
        /// The operation's number.
        op: Op,
        /// The result.
        result: Result<Made, CallFailure>,
    },
    /// An adapter made a slot ready, or did not.
    Prepared {
        /// For which lease.
        lease: LeaseId,
        /// The operation's number.
        op: Op,
        /// The slot that is ready.
        result: Result<Prepared, CallFailure>,
    },
    /// An adapter cleaned a slot, or did not.
    Cleaned {
        /// After which lease.
        lease: LeaseId,
        /// The operation's number.
        op: Op,
        /// The result.
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
        /// The result.
        result: Result<(), CallFailure>,
    },
    /// A destroy came back.
    Destroyed {
        /// Of which resource.
        resource: ResourceId,
        /// The operation's number.
        op: Op,
        /// The result.
        result: Result<(), CallFailure>,
    },
    /// A notice of the outside world.
    Notice(Notice),
    /// The configuration, whole. Already checked.
    Configure(Configuration),
    /// Time alone.
    Tick,
}

impl Input {
    /// The caller of a request. `None`: no caller made this input.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        match self {
            Input::Lease(request) => Some(&request.caller),
            Input::Release { caller, .. }
            | Input::Report { caller, .. }
            | Input::Unreached { caller, .. }
            | Input::Renew { caller, .. }
            | Input::RenewAll { caller, .. }
            | Input::ResumeSession { caller, .. }
            | Input::CloseSession { caller, .. }
            | Input::KeepAll { caller, .. } => Some(caller),
            Input::OpenSession(request) => Some(&request.caller),
            Input::Admin(request) => Some(&request.caller),
            Input::Noted { .. }
            | Input::Provisioned { .. }
            | Input::Prepared { .. }
            | Input::Cleaned { .. }
            | Input::Checked { .. }
            | Input::Probed { .. }
            | Input::Repaired { .. }
            | Input::Destroyed { .. }
            | Input::Notice(_)
            | Input::Configure(_)
            | Input::Beat(_)
            | Input::StreamEnded(_)
            | Input::Tick => None,
        }
    }
}

/// A request for one or several leases: all or nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseRequest {
    /// Chosen by the client.
    pub request_id: Arc<str>,
    /// The caller.
    pub caller: Caller,
    /// The holder's own name, as free text.
    pub holder: Arc<str>,
    /// The claims; at least one.
    pub claims: Vec<Claim>,
    /// Higher goes first.
    pub priority: i32,
    /// `None`: the pool's default.
    pub ttl: Option<Millis>,
    /// Maximum time in the queue; `None`: no limit.
    pub queue_for: Option<Millis>,
    /// The request is refused unless it can be granted at once.
    pub no_queue: bool,
    /// How long the work is likely to take.
    pub expected: Option<Millis>,
    /// For people.
    pub tags: Arc<Texts>,
    /// Members are released and broken on their own.
    pub independent: bool,
    /// When it breaks, queue a successor at once.
    pub replace: bool,
    /// The name of the work: failures of the same work are compared. `None`: see [`crate::LeaseSpec::work_key`].
    pub work: Option<Arc<str>>,
    /// Resources that failed this work before, and with a working copy its host: others go first.
    pub avoid: Vec<ResourceId>,
    /// Maximum life of each lease from when it is active, by the rule that allows the request; that of its tenant holds
    /// beside it.
    pub total: Option<Millis>,
    /// The stream of the session that keeps the leases. Its TTL is theirs.
    pub session: Option<SessionStream>,
}

impl LeaseRequest {
    /// A request of these claims, with the defaults of their pools and without a name of its holder.
    pub fn new(caller: Caller, request_id: impl Into<Arc<str>>, claims: Vec<Claim>) -> Self {
        Self {
            request_id: request_id.into(),
            caller,
            holder: Arc::from(""),
            claims,
            priority: 0,
            ttl: None,
            queue_for: None,
            no_queue: false,
            expected: None,
            tags: Arc::default(),
            independent: false,
            replace: false,
            work: None,
            avoid: Vec::new(),
            total: None,
            session: None,
        }
    }
}

/// One kind of thing wanted by a request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Claim {
    /// The resources that fit.
    pub selector: Arc<Selector>,
    /// Number of leases; each gets its own slot.
    pub count: u32,
    /// For the adapter.
    pub params: Arc<Texts>,
}

impl Claim {
    /// A claim on this number of leases, without parameters.
    pub fn of(selector: impl Into<Arc<Selector>>, count: u32) -> Self {
        Self { selector: selector.into(), count, params: Arc::default() }
    }
}

/// A resource that an adapter made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Made {
    /// The key by which the adapter finds it again.
    pub handle: Option<Arc<str>>,
    /// How to reach it.
    pub access: Texts,
    /// Labels found on the way.
    pub labels: Texts,
}

/// A call to an adapter that did not work.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallFailure {
    /// The party that must act.
    pub blame: Blame,
    /// A stable code.
    pub reason: Arc<str>,
    /// Free text.
    pub message: Arc<str>,
    /// Minimum time before the call is repeated.
    pub retry_after: Option<Millis>,
}

/// A notice of the outside world.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Notice {
    /// The pool.
    pub pool: Arc<str>,
    /// The subject.
    pub target: NoticeTarget,
    /// The kind.
    pub kind: NoticeKind,
    /// The source of the notice.
    pub source: Arc<str>,
    /// The text of the source.
    pub detail: Arc<str>,
}

/// The subject of a notice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NoticeTarget {
    /// A resource.
    Resource(ResourceId),
    /// An inventory entry.
    Item(Arc<str>),
}

/// The kind of a notice, in the core's time.
pub type NoticeKind = wharfinger_types::NoticeKind<Timestamp>;

/// A request of an operator.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AdminRequest {
    /// The caller.
    pub caller: Caller,
    /// The reason, as free text; of a note, its text.
    pub reason: Arc<str>,
    /// The kind.
    pub verb: AdminVerb,
    /// The revision of the state that the operator has seen: refused if a lease came to the object since. `None`: whatever came.
    pub if_revision: Option<Revision>,
}

/// The verbs of operators. Each is valid in every state but GONE; one that cannot apply changes nothing. A verb on a resource that
/// stands for a machine is an order on that machine.
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
    /// Keep it as it is for this time, once its leases have ended; those go on.
    Hold(ResourceId, Millis),
    /// The same for the resource of this lease.
    HoldLease(LeaseId, Millis),
    /// Back from quarantine or a hold, by way of a check.
    Recover(ResourceId),
    /// Destroy it now and make another.
    Recycle(ResourceId),
    /// End this lease.
    Break(LeaseId),
    /// Forget it, whatever it is: its clean-up becomes a debt and its capacity is free.
    ForceDestroy(ResourceId),
    /// A drain by an operator ends.
    Undrain(ResourceId),
    /// The reason of the request is its note from now on. An empty one removes the note.
    Note(ResourceId),
    /// A verb on a machine, and on the resource that stands for it, if there is one.
    OnMachine(MachineName, MachineVerb),
}

impl AdminVerb {
    /// The verb on a resource.
    pub fn on(resource: ResourceId, verb: MachineVerb) -> Self {
        match verb {
            MachineVerb::Cordon => Self::Cordon(resource),
            MachineVerb::Uncordon => Self::Uncordon(resource),
            MachineVerb::Drain(deadline) => Self::Drain(resource, deadline),
            MachineVerb::Undrain => Self::Undrain(resource),
            MachineVerb::Check => Self::Check(resource),
            MachineVerb::Taint => Self::Taint(resource),
            MachineVerb::Quarantine => Self::Quarantine(resource),
            MachineVerb::Hold(span) => Self::Hold(resource, span),
            MachineVerb::Recover => Self::Recover(resource),
            MachineVerb::Recycle => Self::Recycle(resource),
            MachineVerb::ForceDestroy => Self::ForceDestroy(resource),
            MachineVerb::Note => Self::Note(resource),
        }
    }
}

/// A slot that is ready for its holder, with shared texts.
pub type Prepared = wharfinger_types::Prepared<Arc<str>>;
