//! Facts of a server that a client may ask for first: version, limits, optional parts.

use crate::engine::Role;
use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::convert::{MAX_CLAIMS, MAX_COUNT, MAX_PAGE};
use crate::rpc::validate::Span;

/// Minor version of the API `wharfinger.v1`. Raise it with each addition, and list the addition in docs/api.md.
pub const API_MINOR: i32 = 3;

/// The answer of `GetServer`.
pub(crate) fn server(context: &Context) -> pb::GetServerResponse {
    let (limits, leadership) = (&context.limits, context.leadership());
    let lead = leadership.lead_facts();
    let refused = context.sources.configuration.problem();
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
        leads: leadership.role() == Role::Leading,
        leader: leadership.leader().map(|leader| leader.to_string()).unwrap_or_default(),
        leads_since: lead.map(|lead| lead.since.into()),
        epoch: lead.map_or(0, |lead| lead.epoch),
        revision: context.revision(),
        age: leadership.age().and_then(|age| age.try_into().ok()),
        configuration: context.sources.configuration.digest(),
        configuration_refused_since: refused.as_ref().map(|refused| refused.since.into()),
        configuration_problem: refused.map(|refused| refused.why.to_string()).unwrap_or_default(),
        page_url: context.sources.configuration.page().page().unwrap_or_default().to_owned(),
        features: parts.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned()).collect(),
    }
}
