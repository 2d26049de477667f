//! Why a call failed, by who must act.

use crate::CredentialsError;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use wharfinger_tls::{CertificateFault, TlsProblem};

/// Why a call failed, by who must act.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address makes no sense. The caller must act.
    #[error("{0} is no address of a broker: write HOST:PORT or https://HOST:PORT, several with commas between")]
    Address(String),
    /// A certificate, key or list of the client cannot be used. The caller must act.
    #[error("{0}")]
    Tls(TlsProblem),
    /// There is no token to send. The caller must act.
    #[error("{0}")]
    Credentials(CredentialsError),
    /// A server refuses the client's certificate, or the client that of the server; of several servers, each. The caller must act, or
    /// the operator: another try does not mend it.
    #[error("{0}")]
    Certificate(CertificateFault),
    /// The request is wrong, now and always. The caller must act; [`ClientError::violations`] says where.
    #[error("{}", .0.message())]
    Request(Status),
    /// There is no such lease, resource or pool (any more). The caller must act.
    #[error("{}", .0.message())]
    NotFound(Status),
    /// It is not theirs, or not in a state for it: the lease has ended, the request id was used for another request.
    #[error("{}", .0.message())]
    State(Status),
    /// No capacity now, or a limit was reached. Come back after [`ClientError::retry_after`], or queue.
    #[error("{}", .0.message())]
    Capacity(Status),
    /// A watch wants to resume from a revision that the broker no longer has: start from the current state.
    #[error("{}", .0.message())]
    Resync(Status),
    /// The broker cannot be reached or cannot answer now. The operator must act if it stays so; what was asked may have
    /// been done, so repeat it as it is.
    #[error("the broker can't be reached or does not answer now: {}", described(.0))]
    Unavailable(Status),
    /// A mistake of the broker or of this client. Report it.
    #[error("the broker failed: {}", described(.0))]
    Bug(Status),
}

/// One field of a request, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request's message.
    pub field: String,
    /// The mistake, and what would be right.
    pub description: String,
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        if let Some(error) = source_of(&status) {
            return ClientError::Credentials(error);
        }
        if let Some(fault) = source_of(&status) {
            return ClientError::Certificate(fault);
        }
        if lost_contact(&status) {
            return ClientError::Unavailable(status);
        }
        match status.code() {
            Code::InvalidArgument => ClientError::Request(status),
            Code::NotFound => ClientError::NotFound(status),
            Code::AlreadyExists | Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => {
                ClientError::State(status)
            }
            Code::ResourceExhausted => ClientError::Capacity(status),
            Code::OutOfRange => ClientError::Resync(status),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
                ClientError::Unavailable(status)
            }
            Code::Ok | Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                ClientError::Bug(status)
            }
        }
    }
}

/// Where the server is that leads, as one says that follows.
pub(super) fn leader(status: &Status) -> Option<String> {
    status.get_details_error_info()?.metadata.get("leader").cloned()
}

/// The reason of this type for which a call was not sent.
fn source_of<E: std::error::Error + Clone + 'static>(status: &Status) -> Option<E> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found.clone());
        }
        source = error.source();
    }
    None
}

/// A status that no server sent: the connection broke. What broke it is kept as the source.
fn lost_contact(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled)
        && std::error::Error::source(status).is_some()
}

impl ClientError {
    /// The status of the broker or of the transport.
    pub fn status(&self) -> Option<&Status> {
        match self {
            ClientError::Address(_)
            | ClientError::Tls(_)
            | ClientError::Credentials(_)
            | ClientError::Certificate(_) => None,
            ClientError::Request(status)
            | ClientError::NotFound(status)
            | ClientError::State(status)
            | ClientError::Capacity(status)
            | ClientError::Resync(status)
            | ClientError::Unavailable(status)
            | ClientError::Bug(status) => Some(status),
        }
    }

    /// The broker's stable reason, such as `UNKNOWN_POOL`.
    pub fn reason(&self) -> Option<String> {
        reason(self.status()?)
    }

    /// A value of the broker's reason, such as `oldest_revision`.
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.status()?.get_details_error_info()?.metadata.get(key).cloned()
    }

    /// The fields at fault.
    pub fn violations(&self) -> Vec<Violation> {
        self.status().map(violations).unwrap_or_default()
    }

    /// When another try is worth it.
    pub fn retry_after(&self) -> Option<Duration> {
        self.status()?.get_details_retry_info()?.retry_delay
    }

    /// Whether the server refused the caller's token, or had none: a fresh one may do.
    pub fn is_unauthenticated(&self) -> bool {
        self.status().is_some_and(|status| status.code() == Code::Unauthenticated)
    }

    /// Whether the same call may work a little later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, ClientError::Unavailable(_))
    }
}

/// The stable reason of a status, if it has one.
pub fn reason(status: &Status) -> Option<String> {
    Some(status.get_details_error_info()?.reason)
}

/// The fields at fault of a status.
pub fn violations(status: &Status) -> Vec<Violation> {
    let found = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
    found.into_iter().map(|v| Violation { field: v.field, description: v.description }).collect()
}

/// With its source: "transport error" alone names no cause.
fn described(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let layer = error.to_string();
        if !text.contains(&layer) {
            text.push_str(": ");
            text.push_str(&layer);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, FieldViolation};

    #[test]
    fn a_status_says_who_must_act_and_what_the_broker_said() {
        let mut details = ErrorDetails::with_error_info("UNKNOWN_POOL", "wharfinger", [("pools".into(), "a".into())]);
        details.set_bad_request(vec![FieldViolation::new("selector.pool", "no pool x")]);
        details.set_retry_info(Some(Duration::from_secs(3)));
        let status = Status::with_error_details(Code::InvalidArgument, "no pool x; pools: a", details);

        let error = ClientError::from(status);

        assert!(matches!(error, ClientError::Request(_)));
        assert_eq!(error.to_string(), "no pool x; pools: a");
        assert_eq!(error.reason().as_deref(), Some("UNKNOWN_POOL"));
        assert_eq!(error.metadata("pools").as_deref(), Some("a"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
        let [Violation { field, description }] = &error.violations()[..] else { panic!("{error:?}") };
        assert_eq!((field.as_str(), description.as_str()), ("selector.pool", "no pool x"));
    }

    #[test]
    fn a_broken_connection_is_no_bug() {
        let error = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let status = Status::from_error(Box::new(error));
        assert!(ClientError::from(status).is_unavailable());
        assert!(matches!(ClientError::from(Status::unknown("what?")), ClientError::Bug(_)));
    }
}
