//! Callers with a token of an issuer, such as jobs of a CI product. The crate `wharfinger-jwt` verifies the tokens (ADR 44).

use super::identity::hex;
use super::trust::AuthError;
use super::{Identity, Passed, Proof, RoleTable, Roles};
use std::sync::Arc;
use wharfinger_core::Program;
use wharfinger_jwt::{Attributes, Granted, JwtError, Verified, Verifier};
use wharfinger_tls::Leaf;

/// The number of bytes of a token's SHA-256 that name the token.
const DIGEST: usize = 8;

/// The meaning of the names of roles in a grant. The configuration has all of them.
pub(super) fn roles(table: &RoleTable, names: &[Arc<str>]) -> Roles {
    names.iter().filter_map(|name| table.get(name).cloned()).collect()
}

/// The bearer of a token.
pub(super) fn bearer(
    (issuers, table): (&Verifier, &RoleTable),
    text: &str,
    leaf: Option<&Leaf>,
    peer: Option<Arc<str>>,
) -> Result<Identity, AuthError> {
    let verified = issuers.verify(text, crate::clock::wall())?;
    if verified.bound.is_some_and(|bound| leaf.is_none_or(|leaf| leaf.fingerprint != hex(&bound))) {
        return Err(JwtError::Bound.into());
    }
    let granted = seen(verified.granted.clone())?;
    let Verified { issuer, attributes, expires, digest, key, .. } = &*verified;
    let digest = hex(&digest[..DIGEST]).into();
    let proof = Proof::Jwt { issuer: issuer.clone(), digest, claims: attributes.clone(), key: Some(key.clone()) };
    Ok(Identity { expires: Some(*expires), peer, ..of(table, granted, proof) })
}

/// A caller that another server vouches for. Its principal, tenant and roles come from its claims anew.
pub(super) fn vouched(
    (issuers, table): (&Verifier, &RoleTable),
    passed: Passed,
    issuer: &str,
    claims: &Attributes,
    via: Option<Arc<str>>,
) -> Result<Identity, AuthError> {
    let granted = judge(issuers, issuer, claims)?;
    if granted.principal != passed.principal {
        return Err(AuthError::NoCredentials);
    }
    Ok(Identity { expires: passed.expires, peer: passed.peer, via, ..of(table, granted, passed.proof) })
}

/// The roles that a caller has now, if it has the same principal and tenant by these issuers.
pub(super) fn roles_now(
    issuers: &Verifier,
    table: &RoleTable,
    identity: &Identity,
    issuer: &str,
    claims: &Attributes,
) -> Option<Roles> {
    let granted = judge(issuers, issuer, claims).ok()?;
    let same = granted.principal == identity.principal && granted.tenant == identity.tenant;
    same.then(|| roles(table, &granted.roles))
}

fn judge(issuers: &Verifier, issuer: &str, claims: &Attributes) -> Result<Granted, AuthError> {
    seen(issuers.judge(issuer, claims).unwrap_or(Err(JwtError::UnknownIssuer)))
}

/// The judgement, whose error the log has at level DEBUG.
fn seen(judged: Result<Granted, JwtError>) -> Result<Granted, AuthError> {
    // The refusal does not name the claims that would do.
    judged.map_err(|error| {
        tracing::debug!(%error, "a token that is verified gives no identity");
        error.into()
    })
}

fn of(table: &RoleTable, granted: Granted, proof: Proof) -> Identity {
    Identity {
        roles: roles(table, &granted.roles),
        tenant: granted.tenant,
        principal: granted.principal,
        proof,
        expires: None,
        peer: None,
        via: None,
        program: Program::Api,
        trace: None,
    }
}

#[cfg(test)]
mod tests;
