//! The gRPC services: lease, admin, watch, with reflection and health.
//!
//! This layer translates and protects, and decides nothing: a request is checked for its shape and becomes an input of
//! the core; what the core says becomes an answer. It never touches the store but for the audit trail.
//!
//! * `convert`: messages to inputs, with all problems of a request at once; the core's things to messages.
//! * `credentials`: the only place that reads credentials; they go into one answer, and nowhere else.
//! * `status`: the only map from errors to statuses.
//! * `principal`: the only place that says who calls.
//! * `limits`: how much at once; too much is refused, never queued.
//! * `lease`, `admin`, `watch`: the services.
//! * `timeline`: one story from many entries of the audit trail.
//! * `health`: whether it is well, and leads.
//! * `pass`, `proof`: what is for another server to decide goes there.
//! * `server`, `connection`: the port, and how it is closed.

mod admin;
mod check;
mod connection;
mod context;
mod convert;
mod credentials;
mod health;
mod lease;
mod limits;
mod pass;
mod principal;
mod proof;
mod server;
mod source;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timeline;
mod watch;

pub use context::{AnswerSources, WeatherSource};
pub use credentials::{CredentialSources, PoolCredentials};
pub use limits::RpcLimits;
pub use principal::Principal;
pub use server::{ServeError, serve};
pub use status::{DOMAIN, RpcError};
#[cfg(test)]
pub(crate) use testing::pool_config as pool_for_tests;
