//! The gRPC services: lease, admin, watch, with reflection and health.
//!
//! This layer translates and protects, and decides nothing. A request is validated and becomes an input of the core; the
//! reply of the core becomes an answer. The layer reads the audit trail from the store, and nothing else.
//!
//! * `convert`: messages to inputs, with all problems of a request at once; values of the core to messages.
//! * `credentials`: the only place that reads credentials; they go into one answer, and nowhere else.
//! * `status`: the only map from errors to statuses.
//! * `principal`: gives each call its identity (`auth`), and refuses methods that its roles may not call.
//! * `limits`: concurrency limits; excess calls are refused, never queued.
//! * `quota`: the rate and the watches of each tenant.
//! * `about`: version, limits and features of the server.
//! * `lease`, `admin`, `watch`: the services.
//! * `timeline`: one story from many entries of the audit trail.
//! * `health`: the health service: this server serves, and leads.
//! * `forward`, `forward_auth`: calls that change something go to the server that leads.
//! * `server`, `connection`: the port and its end.

mod about;
mod admin;
mod connection;
mod context;
mod convert;
mod credentials;
mod forward;
mod forward_auth;
mod health;
mod lease;
mod limits;
mod principal;
mod quota;
mod server;
mod source;
mod status;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timeline;
mod validate;
mod watch;

pub use about::API_MINOR;
pub use connection::Port;
pub use context::{AnswerSources, WeatherSource};
pub use credentials::{CredentialSources, PoolCredentials};
pub use limits::RpcLimits;
pub use quota::Quotas;
pub use server::{ServeError, serve};
pub use status::{DOMAIN, RpcError};
#[cfg(test)]
pub(crate) use testing::pool_config as pool_for_tests;
