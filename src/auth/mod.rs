//! Who calls, and what that caller may do: one identity a call, made in one place (ADR 37).
//!
//! * `identity`: tenant, principal, roles, proof, and their text for a call that is forwarded.
//! * `trust`: the callers that this server knows, and how a call proves that it is one of them.
//! * `token`: static tokens.
//! * `unix`: users of this machine, by the Unix socket.
//! * `access`: the roles that may call each method.
//! * `audit`: what the audit trail keeps of a caller.

mod access;
mod audit;
mod identity;
mod token;
mod trust;
mod unix;

pub(crate) use access::{Access, access};
pub(crate) use audit::{allowing, provenance};
pub use identity::{Identity, Proof, Role, Roles};
pub(crate) use identity::{Passed, hex, unhex};
pub use token::{NewToken, StaticToken, TokenError};
pub(crate) use trust::Origin;
pub use trust::{AuthError, Callers, CertificateGrant, Trust};
pub(crate) use unix::UnixPeer;
pub use unix::{OVERFLOW, UnixGrant, UnixName};
