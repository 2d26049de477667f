use super::*;
use crate::auth::{NewToken, OVERFLOW, UnixName, Verb};
use std::time::{Duration, UNIX_EPOCH};
use tonic::codegen::http::HeaderName;

const NEAR: &str = "127.0.0.1:5";
const FAR: &str = "10.0.0.1:5";

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in list {
        map.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    map
}

fn at(address: &str) -> Option<SocketAddr> {
    Some(address.parse().unwrap())
}

fn token(id: &str, roles: &[BuiltIn]) -> (NewToken, StaticToken) {
    let new = NewToken::make(id).unwrap();
    let (sha256, roles) = (vec![new.sha256], Roles::of(roles));
    let known = StaticToken { id: id.into(), sha256, tenant: "web".into(), roles, expires: None };
    (new, known)
}

fn passed(principal: &str, proof: Proof) -> Passed {
    Passed { principal: principal.into(), proof, expires: None, peer: Some("1.2.3.4:5".into()) }
}

#[test]
fn without_tokens_loopback_is_local_and_all_others_are_anonymous() {
    let trust = Trust::everyone();
    let name = |peer| trust.identify(peer, &headers(&[("authorization", "Bearer x")])).unwrap().principal.to_string();
    assert_eq!(name(at("127.77.1.2:5")), "local");
    assert_eq!(name(at("[::1]:5")), "local");
    assert_eq!(name(at("[::ffff:127.0.0.1]:5")), "local");
    assert_eq!(name(at("10.0.0.1:5")), "anonymous");
    assert_eq!(name(None), "anonymous");
    let local = trust.identify(at(NEAR), &HeaderMap::new()).unwrap();
    assert_eq!((&*local.tenant, local.roles.clone()), ("default", Roles::of(&[BuiltIn::Admin])));
}

#[test]
fn with_tokens_only_their_bearers_are_known() {
    let (new, known) = token("ci-7", &[BuiltIn::Agent]);
    let wrong = NewToken::make("ci-7").unwrap().text;
    let nobody = NewToken::make("ci-8").unwrap().text;
    let trust = Trust::tokens([known.clone()]).unwrap();
    let ask = |peer: &str, list: &[(&'static str, &str)]| trust.identify(at(peer), &headers(list));
    let bearer = |text: &str| format!("Bearer {text}");
    let good = bearer(&new.text);
    let who = ask(NEAR, &[("authorization", &good)]).unwrap();
    assert_eq!((&*who.tenant, &*who.principal, who.roles.clone()), ("web", "token:ci-7", Roles::of(&[BuiltIn::Agent])));
    assert!(ask(NEAR, &[("authorization", &format!("bearer {}", new.text))]).is_ok(), "schemes have no case");
    for (list, error) in [
        (&[][..], AuthError::NoCredentials),
        (&[("wharfinger-tenant", "web")], AuthError::NoCredentials),
        (&[("authorization", &*bearer(&wrong))], AuthError::Unknown),
        (&[("authorization", &*bearer(&nobody))], AuthError::Unknown),
        (&[("authorization", &*good), ("authorization", &*good)], AuthError::Malformed),
        (&[("authorization", &*good), ("authorization-bin", "eA")], AuthError::Malformed),
        (&[("authorization", &*format!("Basic {}", new.text))], AuthError::Malformed),
        (&[("authorization", &*format!("Bearer  {}", new.text))], AuthError::Malformed),
        (&[("authorization", &*format!("Bearer {},x", new.text))], AuthError::Malformed),
        (&[("authorization", &*new.text)], AuthError::Malformed),
        (&[("authorization", &*bearer(&"x".repeat(20_000)))], AuthError::Malformed),
    ] {
        assert_eq!(ask(NEAR, list), Err(error), "{list:?}");
    }
    assert_eq!(ask(FAR, &[("authorization", &good)]), Err(AuthError::Exposed), "anyone between could read it");
    let expired = StaticToken { expires: Some(UNIX_EPOCH + Duration::from_secs(1)), ..known.clone() };
    let late = Trust::tokens([expired]).unwrap();
    assert_eq!(late.identify(at(NEAR), &headers(&[("authorization", &good)])), Err(AuthError::Expired));
    assert_eq!(Trust::tokens([known.clone(), known]).unwrap_err(), TokenError::Twice("ci-7".into()));
}

#[tokio::test]
async fn a_call_that_goes_on_ends_with_its_token_and_with_its_roles() {
    let (new, known) = token("ci-7", &[BuiltIn::Agent]);
    let (_, other) = token("ci-8", &[BuiltIn::Agent]);
    let good = format!("Bearer {}", new.text);
    let leases = |roles: &Roles| roles.has(Verb::Lease);
    for (tokens, error) in [
        (Some(vec![other.clone()]), AuthError::Revoked),
        (Some(vec![StaticToken { roles: Roles::of(&[BuiltIn::Reader]), ..known.clone() }]), AuthError::NoLongerAllowed),
        (Some(vec![StaticToken { roles: Roles::default(), ..known.clone() }]), AuthError::NoLongerAllowed),
        // The same id with another secret alone: the one before was replaced.
        (Some(vec![StaticToken { sha256: other.sha256.clone(), ..known.clone() }]), AuthError::Revoked),
        (Some(vec![StaticToken { tenant: "else".into(), ..known.clone() }]), AuthError::Revoked),
        (None, AuthError::Revoked),
        (Some(vec![StaticToken { expires: Some(UNIX_EPOCH), ..known.clone() }]), AuthError::Expired),
    ] {
        let trust = Trust::tokens([known.clone(), other.clone()]).unwrap();
        let who = trust.identify(at(NEAR), &headers(&[("authorization", &good)])).unwrap();
        // A change that does not concern it.
        trust.set(Some(vec![known.clone()].into())).unwrap();
        let mut ended = Box::pin(trust.ended(&who, leases));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut ended).await.is_err(), "it stands");
        // A second secret, before the first one is taken away.
        let both = [&known, &other].map(|token| token.sha256[0]).to_vec();
        trust.set(Some(vec![StaticToken { sha256: both, ..known.clone() }].into())).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut ended).await.is_err(), "two secrets");
        // More roles, and others that allow the call as well.
        for roles in [&[BuiltIn::Agent, BuiltIn::Lead][..], &[BuiltIn::Admin]] {
            let more = StaticToken { roles: Roles::of(roles), ..known.clone() };
            trust.set(Some(vec![more].into())).unwrap();
            assert!(tokio::time::timeout(Duration::from_millis(20), &mut ended).await.is_err(), "{roles:?}");
        }
        trust.set(tokens.map(Callers::from)).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert_eq!(ended.expect("it ends"), error);
    }
    let trust = Trust::tokens([known.clone()]).unwrap();
    let who = trust.identify(at(NEAR), &headers(&[("authorization", &good)])).unwrap();
    let expires = Some(crate::clock::wall() + Duration::from_millis(30));
    assert_eq!(trust.ended(&Identity { expires, ..who }, leases).await, AuthError::Expired);
    assert!(trust.set(Some(vec![known.clone(), known].into())).is_err());
    assert!(trust.asks(), "a mistake changes nothing");
}

#[test]
fn a_forwarded_identity_gets_its_roles_here() {
    let (_, known) = token("ci-7", &[BuiltIn::Agent]);
    let trust = Trust::tokens([known.clone()]).unwrap();
    let via = at(FAR);
    let who = trust.vouched(passed("token:ci-7", Proof::token("ci-7".into())), via).unwrap();
    assert_eq!((&*who.tenant, who.roles.clone(), who.via.as_deref()), ("web", Roles::of(&[BuiltIn::Agent]), Some(FAR)));
    assert_eq!(who.peer.as_deref(), Some("1.2.3.4:5"));
    for (passed, error) in [
        (passed("token:ci-8", Proof::token("ci-8".into())), AuthError::Unknown),
        (passed("token:ci-7", Proof::token("ci-8".into())), AuthError::NoCredentials),
        (passed("token:ci-7", Proof::Local), AuthError::NoCredentials),
        (passed("local", Proof::Local), AuthError::NoCredentials),
        (
            Passed {
                expires: Some(UNIX_EPOCH + Duration::from_secs(1)),
                ..passed("token:ci-7", Proof::token("ci-7".into()))
            },
            AuthError::Expired,
        ),
    ] {
        assert_eq!(trust.vouched(passed.clone(), via), Err(error), "{passed:?}");
    }
    assert_eq!(trust.unvouched(at(NEAR), "local"), Err(AuthError::NoCredentials));
    let open = Trust::everyone();
    assert_eq!(&*open.vouched(passed("local", Proof::Local), via).unwrap().principal, "local");
    assert_eq!(open.vouched(passed("token:ci-7", Proof::token("ci-7".into())), via), Err(AuthError::NoCredentials));
}

/// A connection by TLS whose client has a certificate of this name.
fn certified(uri: &str) -> Origin {
    let leaf = Leaf {
        uri: Uri::parse(uri).unwrap(),
        serial: "1".into(),
        fingerprint: String::new(),
        not_after: crate::clock::wall() + Duration::from_secs(3600),
    };
    Origin { address: at(FAR), tls: true, leaf: Some(Arc::new(leaf)), ..Origin::default() }
}

#[test]
fn a_certificate_names_its_caller_by_the_first_grant_that_has_it() {
    let (new, known) = token("ci-7", &[BuiltIn::Agent]);
    let grant = |uri: &str, tenant: &str, role| CertificateGrant {
        uri: Pattern::parse(uri).unwrap(),
        tenant: tenant.into(),
        roles: Roles::of(&[role]),
    };
    let certificates = vec![
        grant("spiffe://farm/agents/ops", "ops", BuiltIn::Admin),
        grant("spiffe://farm/agents/", "web", BuiltIn::Agent),
    ];
    let trust = Trust::everyone();
    trust.set(Some(Callers { tokens: vec![known], certificates, ..Callers::default() })).unwrap();
    let who = |uri: &str, list: &[(&'static str, &str)]| trust.identify(certified(uri), &headers(list));
    let agent = who("spiffe://farm/agents/7", &[]).unwrap();
    assert_eq!((&*agent.tenant, &*agent.principal), ("web", "x509:spiffe://farm/agents/7"));
    assert_eq!(agent.roles, Roles::of(&[BuiltIn::Agent]));
    assert_eq!(&*who("spiffe://farm/agents/ops", &[]).unwrap().tenant, "ops");
    assert_eq!(who("spiffe://farm/stranger", &[]), Err(AuthError::Unknown));
    // A token wins, from afar too, and a bad one is not made good by a good certificate.
    let bearer = format!("Bearer {}", new.text);
    let by_token = who("spiffe://farm/agents/7", &[("authorization", &bearer)]).unwrap();
    assert_eq!(&*by_token.principal, "token:ci-7");
    assert_eq!(who("spiffe://farm/agents/7", &[("authorization", "Bearer x")]), Err(AuthError::Malformed));
    // The identity of a forwarded call is derived anew.
    let forwarded = Passed { peer: None, ..(&agent).into() };
    assert_eq!(&*trust.vouched(forwarded.clone(), at(FAR)).unwrap().tenant, "web");
    let other = Passed { principal: "x509:spiffe://farm/agents/ops".into(), ..forwarded };
    assert_eq!(trust.vouched(other, at(FAR)), Err(AuthError::NoCredentials));
    // Without grants each is an administrator of the one tenant, by its own name.
    trust.set(None).unwrap();
    let sole = who("spiffe://farm/stranger", &[]).unwrap();
    assert_eq!((&*sole.principal, sole.roles.clone()), ("x509:spiffe://farm/stranger", Roles::of(&[BuiltIn::Admin])));
}

fn user(uid: u32, gid: u32) -> Origin {
    Origin { unix: Some(UnixPeer { uid, gid, pid: Some(7) }), ..Origin::default() }
}

fn unix_grant(name: UnixName, tenant: &str, roles: &[BuiltIn]) -> UnixGrant {
    UnixGrant { name, tenant: tenant.into(), roles: Roles::of(roles) }
}

#[test]
fn a_user_of_this_machine_is_known_by_the_kernel_and_others_are_not() {
    let none = HeaderMap::new();
    let everyone = Trust::everyone();
    let who = everyone.identify(user(1000, 100), &none).unwrap();
    assert_eq!(
        (&*who.tenant, &*who.principal, who.roles.clone()),
        ("default", "unix:1000", Roles::of(&[BuiltIn::Admin]))
    );
    assert_eq!((who.peer.as_deref(), &who.proof), (Some("unix:pid=7"), &Proof::Unix { uid: 1000, gid: 100 }));
    // A user of another namespace has no name of its own.
    assert_eq!(&*everyone.identify(user(OVERFLOW, 100), &none).unwrap().principal, "anonymous");

    let (new, known) = token("ci-7", &[BuiltIn::Agent]);
    let unix = vec![
        unix_grant(UnixName::User(1000), "web", &[BuiltIn::Agent]),
        unix_grant(UnixName::Group(100), "ops", &[BuiltIn::Reader]),
        unix_grant(UnixName::User(OVERFLOW), "web", &[BuiltIn::Admin]),
        unix_grant(UnixName::Group(OVERFLOW), "web", &[BuiltIn::Admin]),
    ];
    let trust = Trust::everyone();
    trust.set(Some(Callers { unix, ..Callers::from(vec![known]) })).unwrap();
    for (uid, gid, found) in [
        (1000, 7, Some(("web", "unix:1000"))),
        (1000, 100, Some(("web", "unix:1000"))),
        (1001, 100, Some(("ops", "unix:1001"))),
        (1001, 101, None),
        (0, 0, None),
        (OVERFLOW, 100, None),
        (1001, OVERFLOW, None),
    ] {
        let who = trust.identify(user(uid, gid), &none);
        let said = who.as_ref().ok().map(|who| (&*who.tenant, &*who.principal));
        assert_eq!(said, found, "{uid}:{gid}");
        assert!(who.is_ok() || who == Err(AuthError::NoCredentials));
        // A follower says the same of it, and the server that leads decides.
        let passed = passed(&format!("unix:{uid}"), Proof::Unix { uid, gid });
        let vouched = trust.vouched(passed, at(FAR));
        assert_eq!(vouched.as_ref().ok().map(|who| (&*who.tenant, &*who.principal)), found, "{uid}:{gid}");
    }
    // A name that the proof does not have.
    let other = passed("unix:1000", Proof::Unix { uid: 1001, gid: 100 });
    assert_eq!(trust.vouched(other, at(FAR)), Err(AuthError::NoCredentials));
    // A token is taken by the socket, and a bad one is not made good by the user.
    let good = format!("Bearer {}", new.text);
    let who = trust.identify(user(1001, 101), &headers(&[("authorization", &good)])).unwrap();
    assert_eq!((&*who.principal, who.peer.as_deref()), ("token:ci-7", Some("unix:pid=7")));
    let bad = format!("Bearer {}", NewToken::make("ci-7").unwrap().text);
    assert_eq!(trust.identify(user(1000, 100), &headers(&[("authorization", &bad)])), Err(AuthError::Unknown));
}

/// A grant that moves a name to another tenant makes another caller of it.
#[tokio::test]
async fn a_call_that_goes_on_ends_when_its_name_is_granted_to_another_tenant() {
    let callers = |tenant: &str| Callers {
        certificates: vec![CertificateGrant {
            uri: Pattern::parse("spiffe://farm/agents/").unwrap(),
            tenant: tenant.into(),
            roles: Roles::of(&[BuiltIn::Agent]),
        }],
        unix: vec![unix_grant(UnixName::User(1000), tenant, &[BuiltIn::Agent])],
        ..Callers::default()
    };
    for origin in [certified("spiffe://farm/agents/7"), user(1000, 100)] {
        let trust = Trust::everyone();
        trust.set(Some(callers("web"))).unwrap();
        let who = trust.identify(origin, &HeaderMap::new()).unwrap();
        let mut ended = Box::pin(trust.ended(&who, |_| true));
        trust.set(Some(callers("web"))).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut ended).await.is_err(), "the same grant");
        trust.set(Some(callers("other"))).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert_eq!(ended.expect("it ends"), AuthError::Revoked);
    }
}

#[tokio::test]
async fn a_call_that_goes_on_ends_with_the_line_of_its_user() {
    let line = |name| Callers { unix: vec![unix_grant(name, "web", &[BuiltIn::Agent])], ..Callers::default() };
    for (name, ends) in [(UnixName::User(1001), true), (UnixName::Group(100), false)] {
        let trust = Trust::everyone();
        trust.set(Some(line(UnixName::User(1000)))).unwrap();
        let who = trust.identify(user(1000, 100), &HeaderMap::new()).unwrap();
        let mut ended = Box::pin(trust.ended(&who, |_| false));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut ended).await.is_err(), "it stands");
        trust.set(Some(line(name))).unwrap();
        let after = tokio::time::timeout(Duration::from_millis(50), &mut ended).await;
        assert_eq!(after.ok(), ends.then_some(AuthError::Revoked), "{name:?}");
    }
}
