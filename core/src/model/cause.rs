//! Why something happened: typed, with evidence, as a chain from the nearest cause to the root.

use crate::{Scope, Subject, Timestamp};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// One link: an event, its subject and its source.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Link {
    /// To whom it happened.
    pub subject: Subject,
    /// The kind of the event.
    pub reason: Reason,
    /// The evidence, in words.
    pub detail: Arc<str>,
    /// The source.
    pub source: Source,
    /// When it was known.
    pub at: Timestamp,
}

impl Link {
    /// The evidence for a reader of this scope. Deeds of holders on a shared resource are described in general, unless the
    /// reader sees all leases: the words may name another tenant's lease, work or note.
    pub fn detail_for(&self, scope: &Scope) -> Arc<str> {
        match self.reason.in_general() {
            Some(general) if !scope.is_all() => Arc::from(general),
            Some(_) | None => self.detail.clone(),
        }
    }
}

/// Nearest cause first, root last; never empty.
pub type CauseChain = Vec<Link>;

/// Kinds of causes. The names are part of the API.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// The resource is proved gone.
    ResourceGone,
    /// No answer to several checks in a row.
    ResourceUnreachable,
    /// The resource answers but is not fit for use.
    ResourceMangled,
    /// The host under it is gone.
    ParentGone,
    /// The host under it was taken away (drained at its deadline, recycled).
    ParentLost,
    /// The provider took it, as announced.
    Interrupted,
    /// An operator ended it.
    Operator,
    /// A policy ended it: age, idleness, shrink.
    Policy,
    /// The configuration took it away: its pool or inventory entry was disabled or removed.
    Disabled,
    /// Another lease of the same request was broken.
    GroupBroken,
    /// It could not be made.
    ProvisionFailed,
    /// The slot could not be made ready.
    PrepareFailed,
    /// The slot could not be cleaned.
    CleanFailed,
    /// A holder reported failure.
    HolderFailed,
    /// A holder reported that it is mangled.
    HolderTainted,
    /// A holder abandoned its work, and may have left anything behind.
    HolderAbandoned,
    /// A holder met failures while it works, and asks whether the resource is at fault.
    HolderReported,
    /// The holder's TTL ran out.
    HolderExpired,
    /// A lease on it was broken, and its holder may have left anything behind.
    LeaseBroken,
    /// The kept connection to it broke.
    ConnectionLost,
    /// A probe got no answer.
    ProbeMissed,
    /// A notice came.
    Notice,
    /// Checks pass but different work keeps failing on it.
    CheckBlind,
    /// The same work was there when several resources were lost or mangled.
    WorkBlamed,
}

impl Reason {
    /// All of them, for tables and tests.
    pub const ALL: [Reason; 24] = [
        Reason::ResourceGone,
        Reason::ResourceUnreachable,
        Reason::ResourceMangled,
        Reason::ParentGone,
        Reason::ParentLost,
        Reason::Interrupted,
        Reason::Operator,
        Reason::Policy,
        Reason::Disabled,
        Reason::GroupBroken,
        Reason::ProvisionFailed,
        Reason::PrepareFailed,
        Reason::CleanFailed,
        Reason::HolderFailed,
        Reason::HolderTainted,
        Reason::HolderAbandoned,
        Reason::HolderReported,
        Reason::HolderExpired,
        Reason::LeaseBroken,
        Reason::ConnectionLost,
        Reason::ProbeMissed,
        Reason::Notice,
        Reason::CheckBlind,
        Reason::WorkBlamed,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::ResourceGone => "RESOURCE_GONE",
            Reason::ResourceUnreachable => "RESOURCE_UNREACHABLE",
            Reason::ResourceMangled => "RESOURCE_MANGLED",
            Reason::ParentGone => "PARENT_GONE",
            Reason::ParentLost => "PARENT_LOST",
            Reason::Interrupted => "INTERRUPTED",
            Reason::Operator => "OPERATOR",
            Reason::Policy => "POLICY",
            Reason::Disabled => "DISABLED",
            Reason::GroupBroken => "GROUP_BROKEN",
            Reason::ProvisionFailed => "PROVISION_FAILED",
            Reason::PrepareFailed => "PREPARE_FAILED",
            Reason::CleanFailed => "CLEAN_FAILED",
            Reason::HolderFailed => "HOLDER_FAILED",
            Reason::HolderTainted => "HOLDER_TAINTED",
            Reason::HolderAbandoned => "HOLDER_ABANDONED",
            Reason::HolderReported => "HOLDER_REPORTED",
            Reason::HolderExpired => "HOLDER_EXPIRED",
            Reason::LeaseBroken => "LEASE_BROKEN",
            Reason::ConnectionLost => "CONNECTION_LOST",
            Reason::ProbeMissed => "PROBE_MISSED",
            Reason::Notice => "NOTICE",
            Reason::CheckBlind => "CHECK_BLIND",
            Reason::WorkBlamed => "WORK_BLAMED",
        }
    }

    /// The text in place of a detail that may hold the words of holders. `None`: it never does.
    pub(crate) fn in_general(self) -> Option<&'static str> {
        match self {
            Reason::PrepareFailed => Some("a slot of it could not be prepared"),
            Reason::CleanFailed => Some("a slot of it could not be cleaned"),
            Reason::HolderFailed => Some("work failed on it"),
            Reason::HolderTainted => Some("it was reported as mangled"),
            Reason::HolderAbandoned => Some("work on it was abandoned"),
            Reason::HolderReported => Some("a holder reported failures"),
            Reason::HolderExpired => Some("a holder vanished and said nothing of the state it left"),
            Reason::LeaseBroken => Some("a lease on it was broken and may have left anything behind"),
            Reason::CheckBlind => Some("different works failed on it in a row though its check passes"),
            Reason::ResourceGone
            | Reason::ResourceUnreachable
            | Reason::ResourceMangled
            | Reason::ParentGone
            | Reason::ParentLost
            | Reason::Interrupted
            | Reason::Operator
            | Reason::Policy
            | Reason::Disabled
            | Reason::GroupBroken
            | Reason::ProvisionFailed
            | Reason::ConnectionLost
            | Reason::ProbeMissed
            | Reason::Notice
            | Reason::WorkBlamed => None,
        }
    }

    /// The reason with this name.
    pub fn parse(text: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

/// The source of a link.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The broker's own decision.
    Broker,
    /// A check or probe.
    Check,
    /// The adapter, while it did something.
    Adapter,
    /// The holder.
    Holder,
    /// An operator, by principal.
    Operator(Arc<str>),
    /// A notice, by its source's name.
    Notice(Arc<str>),
}

impl Source {
    /// `check`, `operator:ann`, `notice:sqs`.
    pub fn text(&self) -> String {
        match self {
            Source::Broker => String::from("broker"),
            Source::Check => String::from("check"),
            Source::Adapter => String::from("adapter"),
            Source::Holder => String::from("holder"),
            Source::Operator(who) => alloc::format!("operator:{who}"),
            Source::Notice(what) => alloc::format!("notice:{what}"),
        }
    }

    /// Reads [`Source::text`] back.
    pub fn parse(text: &str) -> Option<Source> {
        match text.split_once(':') {
            Some(("operator", who)) => Some(Source::Operator(Arc::from(who))),
            Some(("notice", what)) => Some(Source::Notice(Arc::from(what))),
            Some(_) => None,
            None => match text {
                "broker" => Some(Source::Broker),
                "check" => Some(Source::Check),
                "adapter" => Some(Source::Adapter),
                "holder" => Some(Source::Holder),
                _ => None,
            },
        }
    }
}
