//! Failures for people: a message, the details that help, a remedy, and the exit code.

use super::exit::Exit;
use crate::client::{CertificateFault, ClientError, Refusal, Violation};
#[cfg(feature = "server")]
use crate::config::ConfigError;
use std::fmt::Write as _;
use tonic::{Code, Status};

/// The reason why a command fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Lower case, no full stop.
    pub(crate) message: String,
    /// A stable reason of the server's.
    pub(crate) reason: Option<String>,
    /// Fields at fault, causes: a line each.
    pub(crate) details: Vec<String>,
    /// The remedy.
    pub(crate) remedy: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), reason: None, details: Vec::new(), remedy: None }
    }

    pub(crate) fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }

    pub(crate) fn detail(mut self, text: impl Into<String>) -> Self {
        self.details.push(text.into());
        self
    }

    /// Ends without a message: it was printed before, or the output is closed.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// The failure for a server's answer to a call. `server`: its address.
    pub(crate) fn of(error: ClientError, server: &str) -> Self {
        let reason = error.reason();
        let violations = error.violations();
        let exit = exit_of(&error);
        let mut failure = Failure::new(exit, message_of(&error, &violations));
        failure.reason = reason;
        // A single violation is what the message says already.
        if violations.len() > 1 || violations.iter().any(|v| !failure.message.contains(&v.description)) {
            failure.details = violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
        }
        failure.remedy = remedy_of(&error, failure.reason.as_deref(), server);
        failure
    }

    /// For standard error.
    pub(crate) fn render(&self, color: bool) -> String {
        let (red, bold, dim, off) =
            if color { ("\u{1b}[1;31m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[0m") } else { ("", "", "", "") };
        let mut text = format!("{red}error{off}{bold}:{off} {}", self.message);
        if let Some(reason) = &self.reason {
            let _ = write!(text, " {dim}({reason}){off}");
        }
        for detail in &self.details {
            let _ = write!(text, "\n  {detail}");
        }
        if let Some(remedy) = &self.remedy {
            let _ = write!(text, "\n  {bold}help:{off} {remedy}");
        }
        text
    }
}

fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Address(_)
        | ClientError::Tls(_)
        | ClientError::Request(_)
        | ClientError::NotFound(_)
        | ClientError::Resync(_) => Exit::BadData,
        ClientError::Credentials(_) | ClientError::Certificate(_) => Exit::Credentials,
        ClientError::State(status) => match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
            _ => Exit::BadData,
        },
        ClientError::Capacity(_) | ClientError::Unavailable(_) => Exit::Unavailable,
        ClientError::Bug(_) => Exit::Internal,
        // The enum may grow; a kind that is not known here is our error.
        _ => Exit::Internal,
    }
}

fn message_of(error: &ClientError, violations: &[Violation]) -> String {
    let said = error.to_string();
    match (said.is_empty(), violations.first()) {
        (true, Some(first)) => format!("{}: {}", first.field, first.description),
        (true, None) => format!("the server answered {}", error.status().map_or(Code::Unknown, Status::code)),
        (false, _) => said,
    }
}

fn remedy_of(error: &ClientError, reason: Option<&str>, server: &str) -> Option<String> {
    let text = match (error, reason) {
        (ClientError::Certificate(fault), _) => certificate_remedy(fault).into(),
        (ClientError::Address(_), _) => "write it as in --server http://127.0.0.1:7411".to_string(),
        (ClientError::Unavailable(_), _) if server.contains("https://") => {
            format!(
                "is a server with TLS at {server}, and does --ca-file name the authority that signed its certificate? \
                 A server that asks for certificates closes the connection of a client without --certificate and --key"
            )
        }
        (ClientError::Unavailable(_), Some("STOPPING" | "OVERLOADED" | "TIMED_OUT")) => {
            "do the same again in a moment".into()
        }
        (ClientError::Unavailable(_), Some("NOT_LEADER")) => {
            "another takes over in a moment; name all servers: --server HOST:PORT,HOST:PORT".into()
        }
        (ClientError::Unavailable(_), _) => {
            format!("is the server at {server} running? start it: wharfinger serve --config wharfinger.toml")
        }
        (ClientError::Request(_) | ClientError::NotFound(_), Some("UNKNOWN_POOL")) => "see wharfinger pools".into(),
        (ClientError::NotFound(_), Some("UNKNOWN_LEASE")) => {
            "see wharfinger ls --all, or wharfinger events --lease ID".into()
        }
        (ClientError::NotFound(_), Some("UNKNOWN_RESOURCE")) => "see wharfinger resources --all".into(),
        (ClientError::Capacity(_), _) => {
            let after = error.retry_after()?;
            format!("try again in {}", super::text::span_text(after))
        }
        (ClientError::Bug(_), _) => {
            "wharfinger serve and this program should be of the same version; if they are, report it".into()
        }
        _ => return None,
    };
    Some(text)
}

/// The remedy for a certificate that one side refuses.
fn certificate_remedy(fault: &CertificateFault) -> &'static str {
    match (fault, fault.why()) {
        (CertificateFault::Client { .. }, Refusal::Missing) => {
            "name one with --certificate and --certificate-key; `wharfinger pki client` makes one"
        }
        (CertificateFault::Client { .. }, Refusal::Expired) => {
            "renew the file, or look at the clocks; a renewed file is read at the next connection"
        }
        (CertificateFault::Client { .. }, Refusal::Revoked) => {
            "an operator issues a new one; --certificate and --certificate-key name it"
        }
        (CertificateFault::Client { .. }, Refusal::UnknownAuthority) => {
            "let an authority of the server's client_ca sign it; if one has, the server's list of revoked certificates is out of date"
        }
        (CertificateFault::Client { .. }, Refusal::Name | Refusal::Other) => {
            "the server's log says which rule it breaks; --certificate names another"
        }
        (CertificateFault::Server { .. }, Refusal::UnknownAuthority) => {
            "name the authority that signed it with --ca-file; if that is right, another server answers at this address"
        }
        (CertificateFault::Server { .. }, Refusal::Name) => {
            "call the server by a name in its certificate, or name its URI with --server-uri"
        }
        (CertificateFault::Server { .. }, Refusal::Expired) => {
            "an operator renews it; look at the clock of this machine too"
        }
        (CertificateFault::Server { .. }, Refusal::Missing | Refusal::Revoked | Refusal::Other) => {
            "an operator gives the server a certificate for servers, by an authority that --ca-file has"
        }
    }
}

#[cfg(feature = "server")]
impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let failure = Failure::new(Exit::Config, error.to_string());
        match error {
            ConfigError::Unreadable { .. } => {
                failure.remedy("name the file with --config; wharfinger.example.toml is one to start from")
            }
            ConfigError::Invalid(_) => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

    fn status(code: Code, reason: &str, message: &str) -> Status {
        Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, "wharfinger", []))
    }

    #[test]
    fn each_kind_has_its_exit_code_and_remedy() {
        for (status, exit, text) in [
            (
                status(Code::InvalidArgument, "UNKNOWN_POOL", "no pool \"x\""),
                65,
                "error: no pool \"x\" (UNKNOWN_POOL)\n  help: see wharfinger pools",
            ),
            (
                status(Code::PermissionDenied, "NOT_YOURS", "the lease is another's"),
                77,
                "error: the lease is another's (NOT_YOURS)",
            ),
            (
                status(Code::Unavailable, "STOPPING", "the server is stopping"),
                69,
                "error: the broker can't be reached or does not answer now: the server is stopping (STOPPING)\n  help: do the same again in a moment",
            ),
            (status(Code::FailedPrecondition, "LEASE_ENDED", "it has ended"), 65, "error: it has ended (LEASE_ENDED)"),
        ] {
            let failure = Failure::of(status.into(), "http://x:1");
            assert_eq!((failure.exit.code(), failure.render(false).as_str()), (exit, text));
        }
        let nobody = Failure::of(Status::unavailable("connection refused").into(), "http://x:1");
        assert!(nobody.render(false).contains("is the server at http://x:1 running?"), "{}", nobody.render(false));
    }

    #[test]
    fn all_fields_at_fault_are_reported() {
        let mut details = ErrorDetails::with_error_info("INVALID", "wharfinger", []);
        details.set_bad_request(vec![
            FieldViolation::new("ttl", "must be more"),
            FieldViolation::new("holder", "too long"),
        ]);
        details.set_retry_info(None);
        let failure = Failure::of(Status::with_error_details(Code::InvalidArgument, "2 fields", details).into(), "");
        assert_eq!(failure.render(false), "error: 2 fields (INVALID)\n  ttl: must be more\n  holder: too long");
    }
}
