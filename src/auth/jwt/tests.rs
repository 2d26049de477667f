use crate::auth::trust::{AuthError, Callers, CertificateGrant, Origin, Trust};
use crate::auth::{BuiltIn, Identity, Passed, Proof, Roles, Verb};
use crate::clock::wall;
use crate::issuer_for_tests::{Signer, encode, github, now, with};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::codegen::http::HeaderMap;
use wharfinger_jwt::{Algorithm, Condition, Grant, IssuerSettings, JwtError, Keys, Preset, Scalar, Template, Test};
use wharfinger_tls::Leaf;
use wharfinger_tls::spiffe::{Pattern, Uri};

const NEAR: &str = "127.0.0.1:5";
const FAR: &str = "10.0.0.1:5";
const AUDIENCE: &str = "https://wharfinger.example.org";
const ISSUER: &str = "https://issuer.example.org";

struct World {
    folder: tempfile::TempDir,
    signer: Signer,
    trust: Trust,
}

fn is(claim: &str, value: &str) -> Condition {
    Condition { claim: claim.into(), test: Test::Is(vec![Scalar::Text(value.into())]) }
}

fn settings(folder: &Path, tenant: &str, roles: &[&str]) -> IssuerSettings {
    IssuerSettings {
        name: "ci".into(),
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        other_audiences: false,
        algorithms: vec![Algorithm::Es256],
        types: Vec::new(),
        max_lifetime: Duration::from_secs(3600),
        keys: Keys::File(folder.join("keys.json")),
        ca_file: None,
        stale_for: Duration::from_secs(86_400),
        principal: Template::parse(Preset::Github.principal()).unwrap(),
        require: Vec::new(),
        refuse: Vec::new(),
        grants: vec![Grant {
            when: vec![is("repository_owner_id", "9919")],
            tenant: tenant.into(),
            roles: roles.iter().map(|role| (*role).into()).collect(),
        }],
        preset: None,
    }
}

fn callers(issuers: Vec<IssuerSettings>) -> Option<Callers> {
    let certificates = vec![CertificateGrant {
        uri: Pattern::parse("spiffe://farm/ops").unwrap(),
        tenant: "ops".into(),
        roles: Roles::of(&[BuiltIn::Admin]),
    }];
    Some(Callers { certificates, issuers, ..Callers::default() })
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::p256("k1");
        std::fs::write(folder.path().join("keys.json"), json!({ "keys": [signer.jwk()] }).to_string()).unwrap();
        let trust = Trust::everyone();
        trust.set(callers(vec![settings(folder.path(), "web", &["agent"])])).unwrap();
        let world = Self { folder, signer, trust };
        // The first call waits for the keys.
        world.trust.look_for_keys(&headers(&world.token(&json!({})))).await;
        world
    }

    fn token(&self, changes: &Value) -> String {
        self.signer.token(&with(&github(ISSUER, AUDIENCE), changes))
    }

    fn ask(&self, origin: impl Into<Origin>, token: &str) -> Result<Identity, AuthError> {
        self.trust.identify(origin, &headers(token))
    }

    fn set(&self, issuers: Vec<IssuerSettings>) {
        self.trust.set(callers(issuers)).unwrap();
    }

    fn settings(&self, tenant: &str, roles: &[&str]) -> IssuerSettings {
        settings(self.folder.path(), tenant, roles)
    }
}

fn headers(token: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("authorization", format!("Bearer {token}").parse().unwrap());
    map
}

fn at(address: &str) -> Option<SocketAddr> {
    Some(address.parse().unwrap())
}

/// A connection by TLS whose client has a certificate of this name.
fn certified(uri: &str) -> Origin {
    let leaf = Leaf {
        uri: Uri::parse(uri).unwrap(),
        serial: "1".into(),
        fingerprint: "07".repeat(32),
        not_after: wall() + Duration::from_secs(3600),
    };
    Origin { address: at(FAR), tls: true, leaf: Some(Arc::new(leaf)), ..Origin::default() }
}

#[tokio::test]
async fn a_job_is_known_by_its_token_and_by_nothing_beside_it() {
    let world = World::new().await;
    let token = world.token(&json!({}));
    let who = world.ask(at(NEAR), &token).unwrap();
    assert_eq!((&*who.tenant, &*who.principal), ("web", "jwt:ci/repository/1296269/run/777/1"));
    assert_eq!((who.roles.clone(), who.peer.as_deref()), (Roles::of(&[BuiltIn::Agent]), Some(NEAR)));
    let left = who.expires.unwrap().duration_since(wall()).unwrap();
    assert!((Duration::from_secs(320)..=Duration::from_secs(331)).contains(&left), "{left:?}");
    // Another token of the same run is the same caller, whose leases it goes on with.
    let next = world.ask(at(NEAR), &world.token(&json!({ "jti": "x", "exp": now() + 200 }))).unwrap();
    assert_eq!((&next.principal, &next.tenant), (&who.principal, &who.tenant));
    for (changes, error) in [
        (json!({ "aud": "https://else" }), JwtError::Audience(AUDIENCE.into())),
        (json!({ "iss": "https://else" }), JwtError::UnknownIssuer),
        (json!({ "exp": now() - 31 }), JwtError::Expired),
    ] {
        assert_eq!(world.ask(at(NEAR), &world.token(&changes)), Err(AuthError::Jwt(error)), "{changes}");
    }
    let stranger = world.token(&json!({ "repository_owner_id": "1" }));
    assert!(matches!(world.ask(at(NEAR), &stranger), Err(AuthError::Jwt(JwtError::NoGrant { .. }))));
    assert_eq!(world.ask(at(FAR), &token), Err(AuthError::Exposed), "others could read it");
    // With a certificate the token decides, and a bad one is not made good by it.
    assert_eq!(&*world.ask(certified("spiffe://farm/ops"), &token).unwrap().tenant, "web");
    assert!(matches!(world.ask(certified("spiffe://farm/ops"), &stranger), Err(AuthError::Jwt(_))));
    assert_eq!(&*world.trust.identify(certified("spiffe://farm/ops"), &HeaderMap::new()).unwrap().tenant, "ops");
    // Another key under a name that is not known: a look at the keys may help, and does not.
    let other = Signer::p256("k2").token(&github(ISSUER, AUDIENCE));
    let error = world.ask(at(NEAR), &other).unwrap_err();
    assert!(error.wants_keys(), "{error:?}");
    // Without configured callers the server asks for no token.
    world.trust.set(None).unwrap();
    assert_eq!(&*world.ask(at(NEAR), &stranger).unwrap().principal, "local");
}

#[tokio::test]
async fn a_token_that_is_bound_is_taken_with_its_certificate_alone() {
    let world = World::new().await;
    let bound = |byte: u8| world.token(&json!({ "cnf": { "x5t#S256": encode([byte; 32]) } }));
    assert!(world.ask(certified("spiffe://farm/any"), &bound(7)).is_ok());
    for (origin, token) in [(certified("spiffe://farm/any"), bound(8)), (at(NEAR).into(), bound(7))] {
        assert_eq!(world.ask(origin, &token), Err(AuthError::Jwt(JwtError::Bound)));
    }
}

#[tokio::test]
async fn a_call_that_goes_on_ends_with_its_token_and_with_its_grant() {
    let world = World::new().await;
    let who = world.ask(at(NEAR), &world.token(&json!({}))).unwrap();
    let soon = Identity { expires: Some(wall() + Duration::from_millis(30)), ..who.clone() };
    assert_eq!(world.trust.ended(&soon, |roles: &Roles| roles.has(Verb::Lease)).await, AuthError::Ended);
    let gone = AuthError::Revoked;
    for (issuers, error) in [
        (vec![world.settings("web", &["reader"])], AuthError::NoLongerAllowed),
        (vec![world.settings("other", &["agent"])], gone.clone()),
        (vec![IssuerSettings { name: "else".into(), ..world.settings("web", &["agent"]) }], gone.clone()),
        (
            vec![IssuerSettings { principal: Template::parse("{sub}").unwrap(), ..world.settings("web", &["agent"]) }],
            gone.clone(),
        ),
        (Vec::new(), gone),
    ] {
        world.set(vec![world.settings("web", &["agent"])]);
        let mut ended = Box::pin(world.trust.ended(&who, |roles: &Roles| roles.has(Verb::Lease)));
        // A change that does not concern it.
        world.set(vec![IssuerSettings { max_lifetime: Duration::from_secs(600), ..world.settings("web", &["agent"]) }]);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut ended).await.is_err(), "it stands");
        world.set(issuers);
        assert_eq!(ended.await, error);
    }
}

#[tokio::test]
async fn a_call_that_goes_on_ends_with_the_key_of_its_token() {
    let mut world = World::new().await;
    let who = world.ask(at(NEAR), &world.token(&json!({}))).unwrap();
    let write = |keys: &[&Signer]| {
        let set = json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() });
        std::fs::write(world.folder.path().join("keys.json"), set.to_string()).unwrap();
        // The files are read again.
        world.set(vec![world.settings("web", &["agent"])]);
    };
    let next = Signer::p256("next");
    let mut ended = Box::pin(world.trust.ended(&who, |_| true));
    for keys in [&[&next, &world.signer][..], &[&world.signer]] {
        write(keys);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut ended).await.is_err(), "it stands");
    }
    // Another key in the place of the first one, under its name.
    write(&[&next, &Signer::p256(&world.signer.kid)]);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), ended).await, Ok(AuthError::Revoked));
    world.signer = next;
    assert!(world.ask(at(NEAR), &world.token(&json!({}))).is_ok());
}

#[tokio::test]
async fn a_server_that_leads_grants_by_its_own_configuration() {
    let world = World::new().await;
    let who = world.ask(at(NEAR), &world.token(&json!({}))).unwrap();
    let text = Passed::from(&who).encode().unwrap();
    let passed = Passed::decode(&text).unwrap();
    assert_eq!(passed, Passed::from(&who));
    assert!(!text.contains("eyJ"), "the token stays");
    let leader = Trust::everyone();
    let vouched = |passed: &Passed| leader.vouched(passed.clone(), at(FAR));
    assert_eq!(vouched(&passed), Err(AuthError::NoCredentials), "it knows no callers");
    leader.set(callers(vec![world.settings("deploy", &["lead", "agent"])])).unwrap();
    let there = vouched(&passed).unwrap();
    assert_eq!((&*there.tenant, there.roles.clone()), ("deploy", Roles::of(&[BuiltIn::Lead, BuiltIn::Agent])));
    assert_eq!(
        (&there.principal, there.proof.text(), there.via.as_deref()),
        (&who.principal, who.proof.text(), Some(FAR))
    );
    // Another principal than the claims make, and a call that took too long.
    let other = Passed { principal: "jwt:ci/repository/1/run/1/1".into(), ..passed.clone() };
    assert_eq!(vouched(&other), Err(AuthError::NoCredentials));
    let late = Passed { expires: Some(wall() - Duration::from_secs(1)), ..passed.clone() };
    assert_eq!(vouched(&late), Err(AuthError::Expired));
    let local = Passed { proof: Proof::Local, ..passed.clone() };
    assert_eq!(vouched(&local), Err(AuthError::NoCredentials));
    // A leader that refuses by a claim for which the other server did not look.
    let refuse = vec![is("actor", "mallory")];
    leader.set(callers(vec![IssuerSettings { refuse, ..world.settings("web", &["agent"]) }])).unwrap();
    assert!(matches!(vouched(&passed), Err(AuthError::Jwt(JwtError::NoGrant { .. }))));
    leader.set(callers(Vec::new())).unwrap();
    assert_eq!(vouched(&passed), Err(AuthError::Jwt(JwtError::UnknownIssuer)));
}

#[tokio::test]
async fn without_keys_a_token_is_not_called_bad() {
    let world = World::new().await;
    let trust = Trust::everyone();
    let nowhere = IssuerSettings { keys: Keys::File("/nowhere".into()), ..world.settings("web", &["agent"]) };
    trust.set(callers(vec![nowhere])).unwrap();
    let headers = headers(&world.token(&json!({})));
    trust.look_for_keys(&headers).await;
    let error = trust.identify(at(NEAR), &headers).unwrap_err();
    assert!(matches!(error, AuthError::Jwt(JwtError::KeysUnavailable { .. })), "{error:?}");
}
