//! The only map from errors to gRPC statuses.
//!
//! Every status has an `ErrorInfo` with a stable reason and the domain [`DOMAIN`]. `BadRequest` names the fields at fault,
//! `RetryInfo` the time until another try is worth it, `QuotaFailure` the tenant at its limit. docs/api.md lists all reasons.

mod jwt;

use crate::auth::{AuthError, Refusal};
use crate::engine::SubmitError;
use crate::pb;
use crate::rpc::validate::{Problem, quoted};
use crate::store::StoreError;
use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, QuotaViolation, StatusExt};
use wharfinger_core::{LeaseId, Millis, Rejection, RejectionKind, ResourceId, Revision};

/// Domain of all reasons. Part of the API: it never changes.
pub const DOMAIN: &str = "wharfinger";

/// Time until the next try, if nothing better is known.
const SOON: Duration = Duration::from_secs(1);

/// Time until the next try where another server may answer, or take over.
const ELSEWHERE: Duration = Duration::from_millis(200);

/// Maximum number of problems in the details, which travel in a header of limited size.
const MAX_PROBLEMS: usize = 32;
/// Maximum number of problems in the message.
const MAX_IN_MESSAGE: usize = 4;
/// Maximum length of a message in bytes, which travels in a header too.
const MAX_MESSAGE: usize = 2000;

/// The error of a call.
#[derive(Debug)]
pub enum RpcError {
    /// The engine refused the input.
    Submit(SubmitError),
    /// The store did not answer.
    Store(StoreError),
    /// The request has problems.
    Invalid(Vec<Problem>),
    /// The lease, resource or pool does not exist.
    NotFound {
        /// Its kind: `lease`, `resource`, `pool`.
        what: &'static str,
        /// Its id or name.
        id: String,
        /// Way to find the right one.
        remedy: &'static str,
    },
    /// This server follows another.
    NotLeader {
        /// Address of the server that leads, if it is known.
        leader: Option<String>,
    },
    /// The server that led was lost with a forwarded call.
    LeaderLost,
    /// The caller's own deadline is over; it may have been done.
    OverDeadline,
    /// A watch resumes from a revision that is no longer kept.
    Compacted {
        /// Revision of the request.
        after: Revision,
        /// Oldest revision that is kept.
        floor: Revision,
    },
    /// A watch resumes from a revision that this server never reached.
    FromTheFuture {
        /// Revision of the request.
        after: Revision,
        /// Present revision.
        revision: Revision,
    },
    /// A limit on watches or waiting calls is reached.
    TooMany {
        /// Noun of what is limited.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// Too many calls of an address had wrong proofs; this one was not looked at.
    AddressFailures {
        /// Time until one is.
        wait: Duration,
    },
    /// A tenant requests leases more often than it may; nothing was done.
    RateLimited {
        /// The tenant.
        tenant: String,
        /// Time until it may.
        wait: Duration,
    },
    /// A tenant has as many watches and waiting calls at this server as it may.
    TenantWatches {
        /// The tenant.
        tenant: String,
        /// The limit.
        max: u32,
    },
    /// Too many calls at once; nothing was done.
    Overloaded {
        /// The limit.
        max: usize,
    },
    /// The engine did not answer in time.
    TimedOut(Duration),
    /// The server stops.
    Stopping,
    /// The request is longer than the limit.
    MessageTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The request is no valid message of its kind.
    Malformed(String),
    /// The call has no identity.
    Unauthenticated(AuthError),
    /// No role of the caller may do this.
    NotAllowed(String),
    /// Holders of the pool log in without certificates.
    NoCertificates(String),
    /// The holder's public key gets no certificate.
    KeyRefused(String),
    /// The pool's authority does not sign. The log has the cause.
    AuthorityUnusable(String),
    /// No rule of the caller allows all of the request.
    Refused(Refusal),
    /// There is no such method.
    NoMethod,
    /// A mistake of this program.
    Bug(&'static str),
}

impl RpcError {
    /// The lease does not exist.
    pub(crate) fn no_lease(id: LeaseId) -> Self {
        let remedy = "it never was, or it ended and is no longer kept; see its events for what became of it";
        RpcError::NotFound { what: "lease", id: id.to_string(), remedy }
    }

    /// The resource does not exist.
    pub(crate) fn no_resource(id: ResourceId) -> Self {
        let remedy = "it never was, or it is gone and no longer kept; see its events for what became of it";
        RpcError::NotFound { what: "resource", id: id.to_string(), remedy }
    }

    /// The pool does not exist.
    pub(crate) fn no_pool(name: &str) -> Self {
        RpcError::NotFound { what: "pool", id: quoted(name), remedy: "see ListPools for those that are configured" }
    }
}

impl From<AuthError> for RpcError {
    fn from(error: AuthError) -> Self {
        RpcError::Unauthenticated(error)
    }
}

impl From<SubmitError> for RpcError {
    fn from(error: SubmitError) -> Self {
        RpcError::Submit(error)
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { after, floor } => RpcError::Compacted { after, floor },
            StoreError::Configuration(_)
            | StoreError::Unavailable(_)
            | StoreError::Corrupt(_)
            | StoreError::Deposed { .. } => RpcError::Store(error),
        }
    }
}

impl From<RpcError> for Status {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Submit(SubmitError::Rejected(rejection)) => rejected(rejection),
            RpcError::Submit(SubmitError::Unavailable(message)) => {
                Answer::new(Code::Unavailable, "UNAVAILABLE", message).retry(SOON).status()
            }
            RpcError::Submit(SubmitError::NotLeader(leader)) => {
                RpcError::NotLeader { leader: leader.map(|leader| leader.to_string()) }.into()
            }
            RpcError::Submit(SubmitError::Stale { age, max_age }) => stale(age, max_age),
            RpcError::Submit(SubmitError::Behind { have, wanted }) => Answer::new(
                Code::Unavailable,
                "BEHIND",
                format!("this server follows, and has not heard of revision {wanted} yet, only of {have}; try again, or elsewhere"),
            )
            .with("revision", have)
            .retry(ELSEWHERE)
            .status(),
            RpcError::Submit(SubmitError::Future { have, wanted }) => {
                RpcError::FromTheFuture { after: wanted, revision: have }.into()
            }
            RpcError::Store(error) => store(&error),
            RpcError::Invalid(problems) => invalid(problems),
            RpcError::NotFound { what, id, remedy } => Answer::new(
                Code::NotFound,
                &format!("UNKNOWN_{}", what.to_uppercase()),
                format!("no {what} {id}: {remedy}"),
            )
            .with(what, id)
            .status(),
            RpcError::Compacted { after, floor } => Answer::new(
                Code::OutOfRange,
                "REVISION_TOO_OLD",
                format!(
                    "revision {after} is older than the oldest that is kept, {floor}; watch from the current state"
                ),
            )
            .with("oldest_revision", floor)
            .status(),
            RpcError::FromTheFuture { after, revision } => Answer::new(
                Code::OutOfRange,
                "REVISION_FROM_THE_FUTURE",
                format!(
                    "revision {after} is not reached yet, the broker is at {revision}: it is another deployment or a \
                     restored database; begin from the current state"
                ),
            )
            .with("revision", revision)
            .status(),
            RpcError::TooMany { what, max } => Answer::new(
                Code::ResourceExhausted,
                "TOO_MANY",
                format!("there are {max} {what} already, and no more are taken; one watch can have many filters"),
            )
            .with("limit", max)
            .retry(SOON * 5)
            .status(),
            RpcError::AddressFailures { wait } => Answer::new(
                Code::ResourceExhausted,
                "ADDRESS_FAILURES",
                format!(
                    "too many calls from this address had credentials that are wrong; nothing was done, try again in {wait:?}, and \
                     look for the program that repeats them"
                ),
            )
            .retry(wait)
            .status(),
            RpcError::RateLimited { tenant, wait } => Answer::new(
                Code::ResourceExhausted,
                "RATE_LIMITED",
                format!("tenant {tenant} requests leases more often than its rate allows; nothing was done, try again in {wait:?}"),
            )
            .quota(&tenant)
            .retry(wait)
            .status(),
            RpcError::TenantWatches { tenant, max } => Answer::new(
                Code::ResourceExhausted,
                "TENANT_WATCHES",
                format!(
                    "tenant {tenant} has {max} watches and waiting calls at this server, its max_watches; one watch can have \
                     many filters"
                ),
            )
            .quota(&tenant)
            .with("limit", max)
            .retry(SOON * 5)
            .status(),
            RpcError::Overloaded { max } => Answer::new(
                Code::Unavailable,
                "OVERLOADED",
                format!("{max} calls are under way, and no more are taken; nothing was done, try again"),
            )
            .retry(SOON)
            .status(),
            RpcError::TimedOut(after) => Answer::new(
                Code::Unavailable,
                "TIMED_OUT",
                format!("no answer from the engine within {after:?}; it may have been done, repeat it as it is"),
            )
            .retry(SOON)
            .status(),
            RpcError::Stopping => {
                Answer::new(Code::Unavailable, "STOPPING", "the server is stopping; try again".into())
                    .retry(SOON)
                    .status()
            }
            RpcError::NotLeader { leader: Some(leader) } => Answer::new(
                Code::Unavailable,
                "NOT_LEADER",
                format!("this server follows; the one at {leader} leads: ask there"),
            )
            .with("leader", leader)
            .retry(ELSEWHERE)
            .status(),
            RpcError::NotLeader { leader: None } => Answer::new(
                Code::Unavailable,
                "NOT_LEADER",
                "this server follows, and none leads just now; try again".into(),
            )
            .retry(ELSEWHERE)
            .status(),
            RpcError::LeaderLost => Answer::new(
                Code::Unavailable,
                "LEADER_LOST",
                "the server that led was lost while it had this call; it may have been done, repeat it as it is".into(),
            )
            .retry(ELSEWHERE)
            .status(),
            RpcError::OverDeadline => Answer::new(
                Code::DeadlineExceeded,
                "DEADLINE",
                "the call's deadline is over; it may have been done, repeat it as it is".into(),
            )
            .status(),
            RpcError::MessageTooLarge { max } => Answer::new(
                Code::InvalidArgument,
                "MESSAGE_TOO_LARGE",
                format!("the request is longer than {max} bytes; a holder has at most 1024, a parameter 4096"),
            )
            .with("limit", max)
            .status(),
            RpcError::Malformed(message) => Answer::new(
                Code::InvalidArgument,
                "MALFORMED",
                format!("the request cannot be read ({message}); use the proto files of this server's version"),
            )
            .status(),
            RpcError::Unauthenticated(error) => unauthenticated(error),
            RpcError::NotAllowed(message) => Answer::new(Code::PermissionDenied, "NOT_ALLOWED", message).status(),
            RpcError::NoCertificates(pool) => Answer::new(
                Code::FailedPrecondition,
                "NO_CERTIFICATES",
                format!("holders of the pool {pool} log in without certificates: use the credentials of the lease, or a key of your own"),
            )
            .status(),
            RpcError::KeyRefused(message) => {
                let mut answer = Answer::new(Code::InvalidArgument, "KEY_REFUSED", message.clone());
                answer.details.set_bad_request(vec![FieldViolation::new("public_key", message)]);
                answer.status()
            }
            RpcError::AuthorityUnusable(pool) => Answer::new(
                Code::Unavailable,
                "CA_UNUSABLE",
                format!("this server cannot sign certificates for the pool {pool} now, and its log says why: ask its operator, then again"),
            )
            .retry(SOON * 5)
            .status(),
            RpcError::Refused(refusal) => refused(refusal),
            RpcError::NoMethod => Status::unimplemented(""),
            RpcError::Bug(what) => {
                tracing::error!(what, "a call came to a place that should not be reached");
                Answer::new(Code::Internal, "BUG", format!("{what}; please report this")).status()
            }
        }
    }
}

/// The texts do not tell which tokens exist.
fn unauthenticated(error: AuthError) -> Status {
    let answer = match error {
        AuthError::NoCredentials => Answer::new(
            Code::Unauthenticated,
            "NO_CREDENTIALS",
            "this server asks for a token: send it as metadata `authorization: Bearer TOKEN`; or for a certificate or a user that \
             it knows"
                .into(),
        ),
        AuthError::Malformed => Answer::new(
            Code::Unauthenticated,
            "MALFORMED_CREDENTIALS",
            "the metadata `authorization` must come once, as `Bearer TOKEN`".into(),
        ),
        AuthError::Unknown => Answer::new(
            Code::Unauthenticated,
            "TOKEN_UNKNOWN",
            "this server does not know the token: use the present one, or ask the operator".into(),
        ),
        AuthError::Expired => Answer::new(
            Code::Unauthenticated,
            "TOKEN_EXPIRED",
            "the token has expired: ask the operator for a new one".into(),
        ),
        AuthError::Revoked => Answer::new(
            Code::Unauthenticated,
            "REVOKED",
            "the caller of this call is not known any more: call again with the present credentials".into(),
        ),
        AuthError::NoLongerAllowed => Answer::new(
            Code::PermissionDenied,
            "NO_LONGER_ALLOWED",
            "the roles of the caller allow this call no longer, or only a part of it: call again for what they allow".into(),
        ),
        AuthError::Exposed => Answer::new(
            Code::Unauthenticated,
            "TOKEN_EXPOSED",
            "the token came over a connection without TLS, where others can read it: ask the operator to replace it, and \
             call from the server's own machine"
                .into(),
        ),
        AuthError::Ended => Answer::new(
            Code::Unauthenticated,
            "CREDENTIAL_EXPIRED",
            "the token by which this call was made has ended: call again with a fresh one".into(),
        ),
        AuthError::Jwt(error) => return jwt::refused(error),
    };
    answer.status()
}

fn refused(Refusal { field, limit, message }: Refusal) -> Status {
    let mut answer = match limit {
        true => Answer::new(Code::PermissionDenied, "LIMIT", message.clone()),
        false => Answer::new(Code::PermissionDenied, "NOT_ALLOWED", message.clone()),
    };
    if !field.is_empty() {
        answer.details.set_bad_request(vec![FieldViolation::new(field, message)]);
    }
    answer.status()
}

/// The status of a call, within the answer of another one.
pub(crate) fn refusal(error: RpcError) -> pb::Refusal {
    let status = Status::from(error);
    let (code, message) = (i32::from(status.code()), status.message().to_owned());
    pb::Refusal { code, message, details: status.details().to_vec() }
}

/// Whether a server that follows refused the call and did nothing.
pub(crate) fn refused_by_follower(status: &Status) -> bool {
    status.code() == Code::Unavailable
        && status.get_details_error_info().is_some_and(|info| info.reason == "NOT_LEADER" && info.domain == DOMAIN)
}

/// Whether a leader refused a forwarded call because it proves no caller.
pub(crate) fn refused_without_proof(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        && status.get_details_error_info().is_some_and(|info| info.reason == "NO_CREDENTIALS" && info.domain == DOMAIN)
}

fn stale(age: Option<Duration>, max_age: Duration) -> Status {
    let message = match age {
        Some(age) => format!(
            "this server follows, and has not heard from the database for {} s; it says nothing that is older than {} s; \
             ask another",
            age.as_secs(),
            max_age.as_secs()
        ),
        None => "this server has not loaded the state yet; try again, or ask another".into(),
    };
    Answer::new(Code::Unavailable, "STALE", message).retry(SOON).status()
}

fn rejected(rejection: Rejection) -> Status {
    let Rejection { kind, reason, field, message, retry_after } = rejection;
    let code = match kind {
        RejectionKind::Invalid => Code::InvalidArgument,
        RejectionKind::NotFound => Code::NotFound,
        RejectionKind::Conflict => Code::AlreadyExists,
        RejectionKind::Denied => Code::PermissionDenied,
        RejectionKind::Exhausted | RejectionKind::Quota => Code::ResourceExhausted,
        RejectionKind::Precondition => Code::FailedPrecondition,
    };
    let mut answer = Answer::new(code, reason, message.clone());
    match kind {
        RejectionKind::Quota => {
            answer.details.set_quota_failure(vec![QuotaViolation::new(field, message)]);
        }
        _ if field.is_empty() => {}
        RejectionKind::Invalid
        | RejectionKind::NotFound
        | RejectionKind::Conflict
        | RejectionKind::Denied
        | RejectionKind::Exhausted
        | RejectionKind::Precondition => {
            answer.details.set_bad_request(vec![FieldViolation::new(field, message)]);
        }
    }
    let delay = match (retry_after, kind) {
        (Some(Millis(ms)), _) => Some(Duration::from_millis(ms.max(0).unsigned_abs())),
        (None, RejectionKind::Exhausted | RejectionKind::Quota) => Some(SOON),
        (None, _) => None,
    };
    match delay {
        Some(delay) => answer.retry(delay).status(),
        None => answer.status(),
    }
}

fn store(error: &StoreError) -> Status {
    match error {
        StoreError::Unavailable(message) => {
            Answer::new(Code::Unavailable, "STORE_UNAVAILABLE", message.clone()).retry(SOON).status()
        }
        StoreError::Configuration(message) => {
            Answer::new(Code::FailedPrecondition, "STORE_CONFIGURATION", message.clone()).status()
        }
        StoreError::Corrupt(message) => Answer::new(Code::DataLoss, "STORE_CORRUPT", message.clone()).status(),
        StoreError::Compacted { after, floor } => RpcError::Compacted { after: *after, floor: *floor }.into(),
        StoreError::Deposed { .. } => {
            Answer::new(Code::Unavailable, "STOPPING", "another server leads now".into()).retry(SOON).status()
        }
    }
}

fn invalid(problems: Vec<Problem>) -> Status {
    let count = problems.len();
    let mut message: Vec<_> = problems
        .iter()
        .take(MAX_IN_MESSAGE)
        .map(|problem| format!("{}: {}", problem.field, problem.description))
        .collect();
    if count > MAX_IN_MESSAGE {
        message.push(format!("and {} more", count - MAX_IN_MESSAGE));
    }
    let mut answer = Answer::new(Code::InvalidArgument, "INVALID_REQUEST", message.join("; "));
    if count > MAX_PROBLEMS {
        answer = answer.with("problems", count);
    }
    let violations = problems.into_iter().take(MAX_PROBLEMS);
    answer.details.set_bad_request(violations.map(|p| FieldViolation::new(p.field, p.description)).collect::<Vec<_>>());
    answer.status()
}

/// Gives a refusal by tonic itself a reason. Every status of this module has details; one without comes from tonic.
pub(crate) fn explained(status: &Status, max_request_bytes: usize) -> Option<Status> {
    if status.code() == Code::Ok || !status.details().is_empty() {
        return None;
    }
    match status.code() {
        // The decoder's code for a message over the limit.
        Code::OutOfRange => Some(RpcError::MessageTooLarge { max: max_request_bytes }.into()),
        // The decoder's code for bytes that are no valid message.
        Code::Internal => Some(RpcError::Malformed(shortened(status.message().to_owned())).into()),
        _ => None,
    }
}

/// A status that is being built.
struct Answer {
    code: Code,
    message: String,
    reason: String,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

impl Answer {
    fn new(code: Code, reason: &str, message: String) -> Self {
        Self { code, message, reason: reason.to_owned(), metadata: HashMap::new(), details: ErrorDetails::new() }
    }

    fn with(mut self, key: &str, value: impl Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    fn quota(mut self, tenant: &str) -> Self {
        self.details.set_quota_failure(vec![QuotaViolation::new(format!("tenant:{tenant}"), self.message.clone())]);
        self
    }

    fn retry(mut self, after: Duration) -> Self {
        self.details.set_retry_info(Some(after));
        self
    }

    fn status(mut self) -> Status {
        self.details.set_error_info(self.reason, DOMAIN, self.metadata);
        Status::with_error_details(self.code, shortened(self.message), self.details)
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: &Status) -> String {
        let info = status.get_error_details().error_info().cloned().unwrap();
        assert_eq!(info.domain, DOMAIN);
        info.reason
    }

    fn rejection(kind: RejectionKind) -> RpcError {
        SubmitError::Rejected(Rejection {
            kind,
            reason: "WHY",
            field: "selector.pool".into(),
            message: "no pool x; pools: a, b".into(),
            retry_after: None,
        })
        .into()
    }

    #[test]
    fn each_kind_of_rejection_has_its_code_with_reason_and_field() {
        for (kind, code) in [
            (RejectionKind::Invalid, Code::InvalidArgument),
            (RejectionKind::NotFound, Code::NotFound),
            (RejectionKind::Conflict, Code::AlreadyExists),
            (RejectionKind::Denied, Code::PermissionDenied),
            (RejectionKind::Exhausted, Code::ResourceExhausted),
            (RejectionKind::Precondition, Code::FailedPrecondition),
        ] {
            let status = Status::from(rejection(kind));
            assert_eq!((status.code(), reason(&status).as_str()), (code, "WHY"));
            assert_eq!(status.message(), "no pool x; pools: a, b");
            let details = status.get_error_details();
            assert_eq!(details.bad_request().unwrap().field_violations[0].field, "selector.pool");
            assert_eq!(details.retry_info().is_some(), kind == RejectionKind::Exhausted);
        }
    }

    #[test]
    fn unavailable_says_when_to_come_back() {
        for (error, why) in [
            (RpcError::Submit(SubmitError::Unavailable("stopping".into())), "UNAVAILABLE"),
            (RpcError::Store(StoreError::Unavailable("disk full".into())), "STORE_UNAVAILABLE"),
            (RpcError::Stopping, "STOPPING"),
            (RpcError::LeaderLost, "LEADER_LOST"),
            (RpcError::NotLeader { leader: None }, "NOT_LEADER"),
            (RpcError::NotLeader { leader: Some("http://a:1".into()) }, "NOT_LEADER"),
            (RpcError::Overloaded { max: 3 }, "OVERLOADED"),
            (RpcError::Submit(SubmitError::NotLeader(Some("http://a:1".into()))), "NOT_LEADER"),
            (RpcError::Submit(SubmitError::Behind { have: Revision(3), wanted: Revision(4) }), "BEHIND"),
            (RpcError::Submit(SubmitError::Stale { age: None, max_age: SOON }), "STALE"),
            (RpcError::Submit(SubmitError::Stale { age: Some(SOON * 9), max_age: SOON }), "STALE"),
            (RpcError::TimedOut(Duration::from_secs(5)), "TIMED_OUT"),
        ] {
            let status = Status::from(error);
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, why));
            assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
        }
    }

    #[test]
    fn a_revision_out_of_range_names_the_oldest() {
        let status = Status::from(RpcError::from(StoreError::Compacted { after: Revision(3), floor: Revision(9) }));
        assert_eq!((status.code(), reason(&status).as_str()), (Code::OutOfRange, "REVISION_TOO_OLD"));
        assert_eq!(status.get_error_details().error_info().unwrap().metadata["oldest_revision"], "9");
    }

    #[test]
    fn a_thousand_problems_fit_into_a_header() {
        let problem = |n| Problem { field: format!("claims[{n}].selector.labels[key]"), description: "x".repeat(120) };
        let status = Status::from(RpcError::Invalid((0..1000).map(problem).collect()));

        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations.len(), MAX_PROBLEMS);
        assert_eq!(details.error_info().unwrap().metadata["problems"], "1000");
        assert!(status.message().ends_with("and 996 more"), "{}", status.message());
        assert!(status.details().len() + status.message().len() < 8192, "{}", status.details().len());
    }

    #[test]
    fn a_refusal_of_tonic_is_explained_and_one_of_the_server_is_left_alone() {
        let large = explained(&Status::out_of_range("Error, decoded message length too large"), 1000).unwrap();
        assert_eq!((large.code(), reason(&large).as_str()), (Code::InvalidArgument, "MESSAGE_TOO_LARGE"));
        let broken = explained(&Status::internal("failed to decode Protobuf message"), 1000).unwrap();
        assert_eq!((broken.code(), reason(&broken).as_str()), (Code::InvalidArgument, "MALFORMED"));
        assert!(explained(&RpcError::Bug("x").into(), 1000).is_none());
        assert!(explained(&Status::unimplemented("no such method"), 1000).is_none());
    }
}
