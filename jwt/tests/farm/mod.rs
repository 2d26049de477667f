//! Settings of an issuer as a farm has them, its keys, and its tokens.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::disallowed_methods, reason = "tokens are made by the clock of the machine")]

use crate::support::{Signer, github};
use serde_json::{Value as Claims, json};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};
use wharfinger_jwt::{
    Algorithm, Condition, Grant, IssuerSettings, JwtError, KeySet, KeySetError, Keys, Preset, Scalar, Template, Test,
    Verified,
};

pub(crate) const AUDIENCE: &str = "https://wharfinger.farm.example.org";
pub(crate) const ISSUER: &str = "https://token.actions.githubusercontent.com";

pub(crate) static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("r1"));
pub(crate) static OTHER: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("r2"));

pub(crate) fn text(text: &str) -> Scalar {
    Scalar::Text(text.into())
}

pub(crate) fn is(claim: &str, value: &str) -> Condition {
    Condition { claim: claim.into(), test: Test::Is(vec![text(value)]) }
}

pub(crate) fn grant(when: &[(&str, &str)], tenant: &str, roles: &[&str]) -> Grant {
    Grant {
        when: when.iter().map(|(claim, value)| is(claim, value)).collect(),
        tenant: tenant.into(),
        roles: roles.iter().map(|role| (*role).into()).collect(),
    }
}

pub(crate) fn settings() -> IssuerSettings {
    IssuerSettings {
        name: "github".into(),
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        other_audiences: false,
        algorithms: vec![Algorithm::Rs256],
        types: Vec::new(),
        max_lifetime: Duration::from_secs(3600),
        keys: Keys::Discover { hosts: Vec::new() },
        ca_file: None,
        stale_for: Duration::from_secs(86_400),
        principal: Template::parse(Preset::Github.principal()).unwrap(),
        require: vec![is("runner_environment", "self-hosted")],
        refuse: vec![Condition {
            claim: "event_name".into(),
            test: Test::Is(vec![text("pull_request_target"), text("workflow_run")]),
        }],
        grants: vec![grant(&[("repository_owner_id", "9919")], "web", &["agent"])],
        preset: Some(Preset::Github),
    }
}

pub(crate) fn set(keys: &[&Signer]) -> KeySet {
    jwks(&keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()).unwrap()
}

pub(crate) fn jwks(keys: &[Claims]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

pub(crate) fn claims() -> Claims {
    github(ISSUER, AUDIENCE)
}

pub(crate) fn verify(token: &str) -> Result<Verified, JwtError> {
    settings().verify_with(token, &set(&[&RSA]), SystemTime::now())
}

pub(crate) fn signature() -> JwtError {
    JwtError::Signature("github".into())
}
