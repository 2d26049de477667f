//! `Login`: a certificate over the holder's key, for the host of its active lease (ADR 46). Nothing is stored.

use crate::engine::SubmitError;
use crate::pb;
use crate::rpc::context::Context;
use crate::rpc::convert;
use crate::rpc::status::RpcError;
use std::time::Duration;
use wharfinger_adapter::login::{Certificate, LoginJob};
use wharfinger_adapter::{Blame, Failure, access};
use wharfinger_core::{Caller, Lease, LeaseId, LeaseState, Rejection, RejectionKind, Timestamp, View};

/// Maximum time that a signature may take.
const SIGN_LIMIT: Duration = Duration::from_secs(5);

/// Signs a certificate for the holder of a lease.
///
/// # Errors
/// `UNKNOWN_LEASE`, `NOT_YOURS`, `NOT_ALLOWED`, `HELD_BY_BROKER`, `LEASE_NOT_ACTIVE`, `LEASE_ENDED`, `NO_CERTIFICATES`, `KEY_REFUSED`, `CA_UNUSABLE`.
pub(crate) async fn login(
    context: &Context,
    caller: &Caller,
    request: &pb::LoginRequest,
) -> Result<pb::LoginResponse, RpcError> {
    let id: LeaseId = convert::id("lease_id", &request.lease_id)?;
    let lease = context.read(&caller.sees, move |view: View<'_>, _| view.lease(id).cloned()).await?;
    let lease = lease.ok_or_else(|| RpcError::no_lease(id))?;
    let (access, token) = active(&lease, caller)?;
    let source = context.sources.credentials.certificates(context, &lease, caller).await?;
    let (pool, source) = source.ok_or_else(|| RpcError::NoCertificates(lease.pool.as_deref().unwrap_or("").into()))?;
    let clock = context.reading();
    let job = LoginJob {
        lease: id.to_string(),
        token,
        pool,
        tenant: lease.spec.tenant.to_string(),
        public_key: request.public_key.clone(),
        now: seconds(clock.to_wall(clock.now)),
        expires_at: seconds(clock.to_wall(lease.expires_at.unwrap_or(clock.now))),
        access,
    };
    let signed = tokio::time::timeout(SIGN_LIMIT, source.certify(&job))
        .await
        .unwrap_or_else(|_| Err(Failure::configuration("CA_UNUSABLE", format!("no signature within {SIGN_LIMIT:?}"))));
    match signed {
        Ok(certificate) => {
            // It may have ended while the authority signed.
            let now = context.read(&caller.sees, move |view: View<'_>, _| view.lease(id).cloned()).await?;
            let now = now.ok_or_else(|| RpcError::no_lease(id))?;
            active(&now, caller)?;
            let (lease, principal) = (&job.lease, &lease.spec.principal);
            tracing::info!(%lease, token, %principal, pool = job.pool, "signed a certificate");
            Ok(answer(certificate, &job))
        }
        Err(failure) if failure.blame == Blame::Request => Err(RpcError::KeyRefused(failure.message)),
        Err(failure) => {
            tracing::error!(pool = job.pool, reason = failure.reason, "no certificate was signed: {}", failure.message);
            Err(RpcError::AuthorityUnusable(job.pool))
        }
    }
}

/// The access and the token of a lease that is the caller's own and active.
fn active(lease: &Lease, caller: &Caller) -> Result<(wharfinger_adapter::Access, u64), RpcError> {
    let refuse = |kind, reason, message| {
        let field = "lease_id".into();
        RpcError::Submit(SubmitError::Rejected(Rejection { kind, reason, field, message, retry_after: None }))
    };
    if let Some(child) = lease.spec.child {
        let message = format!("{} is held by {child}, which logs in by itself", lease.id);
        return Err(refuse(RejectionKind::Denied, "HELD_BY_BROKER", message));
    }
    if !caller.owns(&lease.spec) {
        let message = format!("{} belongs to {:?}, not to {:?}", lease.id, lease.spec.principal, caller.principal);
        return Err(refuse(RejectionKind::Denied, "NOT_YOURS", message));
    }
    if !caller.ends.sees(lease) {
        let pool = lease.pool.as_deref().unwrap_or_default();
        return Err(RpcError::NotAllowed(format!(
            "no role of {} has the verb login in the pool {pool}",
            caller.principal
        )));
    }
    match &lease.state {
        LeaseState::Active { access, assignment, .. } => {
            let access = access.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            Ok((access, assignment.token))
        }
        LeaseState::Queued | LeaseState::Preparing { .. } => {
            let message = format!("{} is not active yet: wait until it is", lease.id);
            Err(refuse(RejectionKind::Precondition, "LEASE_NOT_ACTIVE", message))
        }
        LeaseState::Ended { .. } => {
            let message = format!("{} is over: ask for a new one", lease.id);
            Err(refuse(RejectionKind::Precondition, "LEASE_ENDED", message))
        }
    }
}

fn answer(certificate: Certificate, job: &LoginJob) -> pb::LoginResponse {
    let known = |key: &str| job.access.get(key).cloned().unwrap_or_default();
    let half = certificate.valid_before.saturating_sub(job.now) / 2;
    pb::LoginResponse {
        certificate: certificate.text,
        valid_before: Some(stamp(certificate.valid_before)),
        renew_at: Some(stamp(job.now + half)),
        address: known(access::ADDRESS),
        port: known(access::PORT).parse().unwrap_or(22),
        user: known(access::USER),
        host_keys: Some(known(access::HOST_KEY)).filter(|key| !key.is_empty()).into_iter().collect(),
    }
}

/// A wall time in whole seconds since the Unix epoch.
fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.0.div_euclid(1000)).unwrap_or(0)
}

fn stamp(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

#[cfg(test)]
mod tests;
