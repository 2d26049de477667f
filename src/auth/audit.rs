//! What the audit trail keeps of the caller of a change.

use super::{Identity, Role};
use std::sync::Arc;
use wharfinger_core::Provenance;

/// The names of the roles that allow this caller a method, of those that may call it.
pub(crate) fn allowing(identity: &Identity, callers: &[Role]) -> Arc<str> {
    let names = callers.iter().filter(|role| identity.roles.any(&[**role])).map(|role| role.as_str());
    names.collect::<Vec<_>>().join(",").into()
}

/// How a caller proved who it is, from where it called which method, and what allowed it. It has no secret.
pub(crate) fn provenance(identity: &Identity, allowed_by: Arc<str>, method: &str) -> Provenance {
    Provenance {
        tenant: identity.tenant.clone(),
        proof: identity.proof.text().into(),
        peer: identity.peer.clone(),
        via: identity.via.clone(),
        roles: allowed_by,
        method: method.into(),
    }
}
