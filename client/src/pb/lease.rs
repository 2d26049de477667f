//! The rule by which a client decides: two times of a lease, never its state, so that it survives states of a later version.

use super::{Access, Lease, Refusal, Resource};
use std::collections::BTreeMap;

impl Lease {
    /// Whether the lease is over, whatever its state.
    pub fn is_over(&self) -> bool {
        self.ended_at.is_some()
    }

    /// Whether the holder may work, whatever the state.
    pub fn may_work(&self) -> bool {
        self.active_at.is_some() && !self.is_over()
    }

    /// Why the resource is in doubt, in words. Empty: it is in no doubt.
    pub fn doubt_detail(&self) -> &str {
        self.doubt.as_ref().map(|doubt| doubt.detail.as_str()).unwrap_or_default()
    }

    /// Returns the access as pairs, without credentials.
    pub fn access_pairs(&self) -> BTreeMap<String, String> {
        self.access.as_ref().map(Access::pairs).unwrap_or_default()
    }

    /// Whether the holder logs in by a certificate of the broker, which `Client::login` asks for.
    pub fn has_login(&self) -> bool {
        self.access.as_ref().is_some_and(|access| access.more.get("login").is_some_and(|way| way == "certificate"))
    }

    /// Returns the private key for the holder, if the answer carries one.
    pub fn private_key(&self) -> Option<&str> {
        self.credentials.as_ref().map(|credentials| credentials.private_key.as_str()).filter(|key| !key.is_empty())
    }
}

impl Resource {
    /// Returns the access as pairs.
    pub fn access_pairs(&self) -> BTreeMap<String, String> {
        self.access.as_ref().map(Access::pairs).unwrap_or_default()
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        Self::with_details(refusal.code.into(), refusal.message, refusal.details.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_times_decide_and_no_state_does() {
        let at = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        for state in [0, 1, 3, 4, 99] {
            let lease = |active_at, ended_at| Lease { state, active_at, ended_at, ..Lease::default() };
            assert!(!lease(None, None).may_work() && !lease(None, None).is_over(), "it waits");
            assert!(lease(at, None).may_work());
            assert!(lease(None, at).is_over() && lease(at, at).is_over() && !lease(at, at).may_work());
        }
    }
}
