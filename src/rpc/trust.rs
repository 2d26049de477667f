//! `TrustService`: the caller to itself.

use crate::auth::{Limits, RuleScope, Verb};
use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::principal;
use crate::rpc::status::RpcError;
use crate::rpc::validate::{Problem, quoted};
use tonic::{Request, Response, Status, async_trait};
use wharfinger_core::View;

/// The service `TrustService`.
pub(crate) struct TrustApi(pub(crate) Context);

#[async_trait]
impl pb::trust_service_server::TrustService for TrustApi {
    async fn who_am_i(&self, request: Request<pb::WhoAmIRequest>) -> Result<Response<pb::WhoAmIResponse>, Status> {
        let identity = principal::identity(&request)?;
        let rules = identity.roles.rules().map(|(name, rule)| pb::RoleRule {
            role: name.role.name.to_string(),
            verbs: rule.verbs.iter().map(|verb| verb.to_string()).collect(),
            pools: rule.pools.patterns().iter().map(ToString::to_string).collect(),
            scope: scope(rule.scope).into(),
            limits: limits(&rule.limits),
        });
        Ok(Response::new(pb::WhoAmIResponse {
            tenant: identity.tenant.to_string(),
            principal: identity.principal.to_string(),
            roles: identity.roles.iter().map(|role| role.name.to_string()).collect(),
            proof: identity.proof.text(),
            expires_at: identity.expires.map(Into::into),
            rules: rules.collect(),
        }))
    }

    async fn can_i(&self, request: Request<pb::CanIRequest>) -> Result<Response<pb::CanIResponse>, Status> {
        let identity = principal::identity(&request)?;
        let pb::CanIRequest { verb, pool } = request.get_ref();
        let Some(verb) = Verb::parse(verb) else {
            let description = format!("{} is no verb: {}", quoted(verb), Verb::remedy(verb));
            return Err(RpcError::Invalid(vec![Problem { field: "verb".to_owned(), description }]).into());
        };
        let pool = Some(pool.as_str()).filter(|pool| !pool.is_empty());
        let work = async {
            if let Some(name) = pool {
                let wanted = name.to_owned();
                // Each pool of its rules exists for the caller, and no other.
                let read = move |view: View<'_>, _now| view.pool(&wanted).is_some();
                if !self.0.read(&identity.leases().sees, read).await? {
                    let message = format!("no pool {}: see ListPools for those that are configured", quoted(name));
                    return Ok(pb::CanIResponse { reason: "UNKNOWN_POOL".to_owned(), message, ..Default::default() });
                }
            }
            Ok(match identity.roles.can(verb, pool) {
                Ok((name, rule)) => pb::CanIResponse {
                    allowed: true,
                    role: name.role.name.to_string(),
                    scope: scope(rule.scope).into(),
                    limits: limits(&rule.limits),
                    ..Default::default()
                },
                Err(refusal) => pb::CanIResponse {
                    reason: "NOT_ALLOWED".to_owned(),
                    message: refusal.message,
                    ..Default::default()
                },
            })
        };
        self.0.answer(work).await
    }
}

fn scope(scope: RuleScope) -> pb::RuleScope {
    match scope {
        RuleScope::Own => pb::RuleScope::Own,
        RuleScope::Tenant => pb::RuleScope::Tenant,
        RuleScope::All => pb::RuleScope::All,
    }
}

fn limits(limits: &Limits) -> Vec<pb::RuleLimit> {
    limits.shown().into_iter().map(|(name, allowed)| pb::RuleLimit { name, allowed }).collect()
}
