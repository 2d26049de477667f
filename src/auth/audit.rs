//! The caller of a change, as the audit trail keeps it.

use super::{Identity, Verb};
use wharfinger_core::Provenance;

/// How a caller proved who it is, from where it called, by which verb, and which of its roles have that verb. It has no secret.
pub(crate) fn provenance(identity: &Identity, verb: Verb) -> Provenance {
    let names: Vec<&str> = identity
        .roles
        .iter()
        .filter(|role| role.rules.iter().any(|rule| rule.verbs.has(verb)))
        .map(|role| &*role.name)
        .collect();
    Provenance {
        tenant: identity.tenant.clone(),
        proof: identity.proof.text().into(),
        peer: identity.peer.clone(),
        via: identity.via.clone(),
        program: Some(identity.program),
        roles: names.join(",").into(),
        method: verb.method().into(),
        trace: identity.trace.clone(),
    }
}
