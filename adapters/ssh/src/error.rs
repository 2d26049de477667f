//! Errors between the broker and a host, typed where they happen and never guessed from text.

use wharfinger_adapter::{Failure, ShellError};

/// The kind of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The address has no numeric form: the name server or the configuration is to blame, not the host.
    NotResolved,
    /// Nothing listens at the port.
    ConnectionRefused,
    /// The network says that there is no way there.
    NoRoute,
    /// No answer in time, not one packet.
    Timeout,
    /// The host answers, and a login or a command takes too long: start-up files, PAM, UseDNS.
    Slow,
    /// The connection broke.
    Lost,
    /// It took the connection and closed it before it said anything: MaxStartups, a penalty, a TCP wrapper.
    Busy,
    /// The proxy command ended before the host answered. It runs here, so that its end is no evidence against the host.
    Proxy,
    /// Another host key.
    WrongHost {
        /// SHA256 fingerprint of the key that answered; `None` if it had none of a kind that we can check.
        got: Option<String>,
    },
    /// Wrong user or key.
    Auth,
    /// It takes no further session on this connection.
    NoSession,
    /// The server closed the session of a command without its exit code, and kept the connection (ChannelTimeout).
    SessionClosed,
    /// The command could not be started there.
    NotStarted,
    /// It does not speak SSH as we do.
    Protocol,
    /// A file there could not be read or written.
    File,
}

/// An error: its kind, and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SshError {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

impl SshError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The stable code of a host that does not answer, or `None` for an error that is no evidence of that.
    pub(crate) fn unreachable_reason(&self) -> Option<&'static str> {
        match self.kind {
            Kind::ConnectionRefused => Some("CONNECTION_REFUSED"),
            Kind::NoRoute => Some("NO_ROUTE"),
            Kind::Timeout => Some("TIMEOUT"),
            Kind::Lost => Some("CONNECTION_LOST"),
            Kind::NotResolved
            | Kind::Proxy
            | Kind::Slow
            | Kind::SessionClosed
            | Kind::Busy
            | Kind::WrongHost { .. }
            | Kind::Auth
            | Kind::NoSession
            | Kind::NotStarted
            | Kind::Protocol
            | Kind::File => None,
        }
    }
}

impl SshError {
    /// The error of a command that was never started, since no connection could be made for it.
    pub(crate) fn before_the_start(self) -> ShellError {
        match ShellError::from(self) {
            ShellError::Unreachable(text) => ShellError::NotReached(text),
            other => other,
        }
    }
}

impl From<SshError> for ShellError {
    fn from(error: SshError) -> Self {
        let text = error.message;
        match error.kind {
            Kind::WrongHost { .. } => ShellError::WrongHost(text),
            Kind::Auth => ShellError::Refused(text),
            Kind::NotStarted => ShellError::NotStarted(text),
            Kind::File => ShellError::File(text),
            Kind::NotResolved
            | Kind::ConnectionRefused
            | Kind::NoRoute
            | Kind::Timeout
            | Kind::Lost
            | Kind::Busy
            | Kind::Proxy
            | Kind::Slow
            | Kind::NoSession
            | Kind::Protocol => ShellError::Unreachable(text),
            Kind::SessionClosed => ShellError::Closed(text),
        }
    }
}

impl From<SshError> for Failure {
    fn from(error: SshError) -> Self {
        let text = error.message;
        match error.kind {
            Kind::NotResolved => Failure::configuration("ADDRESS_NOT_RESOLVED", text),
            Kind::WrongHost { .. } => Failure::configuration("HOST_KEY_MISMATCH", text),
            Kind::Auth => Failure::configuration("AUTH_FAILED", text),
            Kind::Protocol => Failure::configuration("SSH_PROTOCOL", text),
            Kind::NotStarted => Failure::resource("COMMAND_NOT_STARTED", text),
            Kind::Proxy => Failure::configuration("PROXY_FAILED", text),
            Kind::Slow => Failure::resource("LOGIN_SLOW", text),
            Kind::SessionClosed => Failure::resource("SESSION_CLOSED", text),
            Kind::Busy => Failure::resource("SSHD_BUSY", text),
            Kind::NoSession => Failure::resource("SESSIONS_EXHAUSTED", text),
            Kind::File => Failure::resource("FILE_FAILED", text),
            Kind::ConnectionRefused | Kind::NoRoute | Kind::Timeout | Kind::Lost => {
                Failure::resource("UNREACHABLE", text)
            }
        }
    }
}
