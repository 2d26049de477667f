//! The caller of a call and its rights: one identity a call, made in one place (ADR 37).
//!
//! * `identity`: tenant, principal, roles, proof, and their text for a call that is forwarded.
//! * `verb`, `limits`, `role`: what a caller may call, by roles of rules (ADR 43); `built_in`: the roles of each configuration.
//! * `trust`: the callers that this server knows, and how a call proves that it is one of them.
//! * `token`: static tokens.
//! * `jwt`: tokens of issuers, such as CI products.
//! * `unix`: users of this machine, by the Unix socket.
//! * `proxy`: people whom a proxy before the operator's page names.
//! * `access`: the verb that each method needs.
//! * `audit`: what the audit trail keeps of a caller.
//! * `address`: limits of each address, before it is known who calls (ADR 63).

mod access;
mod address;
mod audit;
mod built_in;
mod identity;
mod jwt;
mod limits;
mod proxy;
mod role;
mod token;
mod trust;
mod unix;
mod verb;

pub(crate) use access::{Access, access};
pub use address::{AddressLimits, Network};
pub(crate) use address::{AddressPlace, Addresses};
pub use built_in::{BuiltIn, RoleTable};
pub use identity::{Identity, Proof};
pub(crate) use identity::{Passed, hex, unhex};
pub(crate) use limits::{Beyond, Ending, Wanted, WantedClaim};
pub use limits::{Limits, Taint};
pub use proxy::ProxyGrant;
pub(crate) use proxy::is_name as is_proxied_name;
pub(crate) use role::{Allowed, Reach};
pub use role::{Refusal, Role, Roles, Rule, RuleScope, Whose};
pub use token::{NewToken, StaticToken, TokenError};
pub(crate) use trust::Origin;
pub use trust::{AuthError, Callers, CertificateGrant, Grant, Trust};
pub(crate) use unix::UnixPeer;
pub use unix::{OVERFLOW, UnixGrant, UnixName};
pub use verb::{Verb, Verbs};
