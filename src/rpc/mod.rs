//! The gRPC services: lease, admin, watch, with reflection and health.
//!
//! This layer translates and protects, and decides nothing. A request is validated and becomes an input of the core; the
//! reply of the core becomes an answer. The layer reads the audit trail from the store, and nothing else.
//!
//! * `convert`: messages to inputs, with all problems of a request at once; values of the core to messages.
//! * `credentials`: the only place that reads credentials; they go into one answer, and nowhere else.
//! * `status`: the only map from errors to statuses.
//! * `principal`: gives each call its identity (`auth`), and refuses methods whose verb its roles do not have.
//! * `allow`: asks the rules of a caller for pools, limits and leases.
//! * `judge`: judges a call without a server.
//! * `limits`: concurrency limits; excess calls are refused, never queued.
//! * `count`: counts calls by method and code.
//! * `quota`: the rate and the watches of each tenant.
//! * `about`: version, limits and features of the server.
//! * `lease`, `admin`, `trust`, `watch`: the services. `login`: certificates of holders.
//! * `resource_watch`: the stream of changes of resources and pools.
//! * `session`: the stream over which an agent keeps its leases.
//! * `timeline`: one story from many entries of the audit trail.
//! * `servers`: the servers on one database, as each reports itself.
//! * `health`: the health service: this server serves, and leads.
//! * `forward`, `forward_auth`, `peers`: calls that change something go to the server that leads.
//! * `inside`: the services for callers in this process, without a socket.
//! * `audit`: refusals in the log.
//! * `server`, `connection`: the port and its end.

mod about;
mod admin;
mod allow;
mod audit;
mod configuration;
mod connection;
mod context;
mod convert;
mod count;
mod credentials;
mod forward;
mod forward_auth;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod health;
mod inside;
mod judge;
mod lease;
mod limits;
mod login;
mod peers;
mod principal;
mod queue;
mod quota;
mod resource_watch;
mod server;
mod servers;
mod session;
mod source;
mod status;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timeline;
mod trust;
mod validate;
mod watch;

pub use about::API_MINOR;
pub use configuration::{ConfigurationStatus, RefusedConfiguration};
pub use connection::Port;
pub(crate) use connection::{ConnectInfo, Connection};
pub use context::{AnswerSources, WeatherSource};
pub use credentials::{CredentialSources, PoolCredentials};
pub use inside::{Inside, InsideCaller, InsideError, RefusalKind, Standing};
pub use judge::{Call, judge};
pub use limits::RpcLimits;
pub use peers::Peers;
pub use quota::Quotas;
pub use server::{ServeError, serve};
#[cfg(feature = "postgres")]
pub use servers::report as report_server;
pub use status::{DOMAIN, RpcError};
#[cfg(test)]
pub(crate) use testing::{broker as broker_for_tests, follower as follower_for_tests, pool_config as pool_for_tests};
#[cfg(test)]
pub(crate) fn lease_for_tests() -> wharfinger_core::Lease {
    testing::queued(1, 1)
}
