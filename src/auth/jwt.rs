//! Callers with a token of an issuer, such as jobs of a CI product. The crate `wharfinger-jwt` verifies the tokens (ADR 44).

use super::identity::hex;
use super::trust::AuthError;
use super::{Identity, Passed, Proof, Role, Roles};
use std::sync::Arc;
use wharfinger_jwt::{Attributes, Granted, JwtError, Verified, Verifier};
use wharfinger_tls::Leaf;

/// The number of bytes of a token's SHA-256 that name the token.
const DIGEST: usize = 8;

/// What the names of roles in a grant stand for.
fn roles(names: &[Arc<str>]) -> Roles {
    let known = Role::ALL.into_iter().filter(|role| names.iter().any(|name| **name == *role.as_str()));
    Roles::of(&known.collect::<Vec<_>>())
}

/// The bearer of a token.
pub(super) fn bearer(
    issuers: &Verifier,
    text: &str,
    leaf: Option<&Leaf>,
    peer: Option<Arc<str>>,
) -> Result<Identity, AuthError> {
    let verified = issuers.verify(text, crate::clock::wall())?;
    if verified.bound.is_some_and(|bound| leaf.is_none_or(|leaf| leaf.fingerprint != hex(&bound))) {
        return Err(JwtError::Bound.into());
    }
    let granted = judge(issuers, &verified.issuer, &verified.attributes)?;
    let Verified { issuer, attributes, expires, digest, .. } = &*verified;
    let digest = hex(&digest[..DIGEST]).into();
    let proof = Proof::Jwt { issuer: issuer.clone(), digest, claims: attributes.clone() };
    Ok(Identity { expires: Some(*expires), peer, ..of(granted, proof) })
}

/// A caller that another server vouches for. Its principal, tenant and roles come from its claims anew.
pub(super) fn vouched(
    issuers: &Verifier,
    passed: Passed,
    issuer: &str,
    claims: &Attributes,
    via: Option<Arc<str>>,
) -> Result<Identity, AuthError> {
    let granted = judge(issuers, issuer, claims)?;
    if granted.principal != passed.principal {
        return Err(AuthError::NoCredentials);
    }
    Ok(Identity { expires: passed.expires, peer: passed.peer, via, ..of(granted, passed.proof) })
}

/// Whether a caller has the same principal, tenant and roles by these issuers.
pub(super) fn stands(issuers: &Verifier, identity: &Identity, issuer: &str, claims: &Attributes) -> bool {
    judge(issuers, issuer, claims).is_ok_and(|granted| {
        granted.principal == identity.principal
            && granted.tenant == identity.tenant
            && roles(&granted.roles) == identity.roles
    })
}

fn judge(issuers: &Verifier, issuer: &str, claims: &Attributes) -> Result<Granted, AuthError> {
    let judged = issuers.judge(issuer, claims).unwrap_or(Err(JwtError::UnknownIssuer));
    // The caller is not told which claims would do.
    judged.map_err(|error| {
        tracing::debug!(%error, "a token that is verified gives no identity");
        error.into()
    })
}

fn of(granted: Granted, proof: Proof) -> Identity {
    Identity {
        roles: roles(&granted.roles),
        tenant: granted.tenant,
        principal: granted.principal,
        proof,
        expires: None,
        peer: None,
        via: None,
    }
}

#[cfg(test)]
mod tests;
