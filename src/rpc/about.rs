//! What a client may ask a server before anything else: version, limits, optional parts.

use crate::pb;
use crate::rpc::convert::{MAX_CLAIMS, MAX_COUNT, MAX_PAGE};
use crate::rpc::limits::RpcLimits;
use crate::rpc::validate::Span;

/// Minor version of the API `wharfinger.v1`. Raise it with each addition, and list the addition in docs/api.md.
pub const API_MINOR: i32 = 0;

/// The answer of `GetServer`.
pub(crate) fn server(limits: &RpcLimits) -> pb::GetServerResponse {
    let int = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let parts =
        [(cfg!(feature = "ec2"), "EC2"), (cfg!(feature = "postgres"), "POSTGRESQL"), (limits.forward, "FORWARDING")];
    pb::GetServerResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_minor: API_MINOR,
        max_wait: Some(Span::WAIT.longest()),
        max_claims: int(MAX_CLAIMS),
        max_count: i32::try_from(MAX_COUNT).unwrap_or(i32::MAX),
        max_ttl: Some(Span::LONG.longest()),
        max_page_size: i32::from(MAX_PAGE),
        max_request_bytes: int(limits.max_request_bytes),
        features: parts.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned()).collect(),
    }
}
