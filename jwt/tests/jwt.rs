//! Tokens that an attacker would send, each beside one that is taken; claims and grants.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::disallowed_methods, reason = "tokens are made by the clock of the machine")]

mod farm;
mod support;

use farm::{AUDIENCE, OTHER, RSA, claims, grant, is, jwks, set, settings, signature, text, verify};
use serde_json::{Value as Claims, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Signer, encode, now, with};
use wharfinger_jwt::{
    Algorithm, Attributes, Condition, Grant, HttpsUrl, IssuerSettings, JwtError, KeySet, KeySetError, Preset, Scalar,
    Template, TemplateError, Test, Value, Verified,
};

fn at(token: &str, offset: i64) -> Result<Verified, JwtError> {
    let time = UNIX_EPOCH + Duration::from_secs((now() + offset).unsigned_abs());
    settings().verify_with(token, &set(&[&RSA]), time)
}

fn header(changes: &Claims) -> String {
    with(&json!({ "alg": "RS256", "typ": "JWT", "kid": "r1" }), changes).to_string()
}

fn is_malformed(result: Result<Verified, JwtError>) -> bool {
    matches!(result, Err(JwtError::Malformed(_)))
}

#[test]
fn a_token_of_the_issuer_is_taken_and_shows_its_claims() {
    let verified = verify(&RSA.token(&claims())).unwrap();
    assert_eq!(verified.attributes.get("repository_owner_id"), Some(&Value::One(text("9919"))));
    assert_eq!(verified.attributes.get("jti"), None, "only claims that the settings name");
    let granted = settings().judge(&verified.attributes).unwrap();
    assert_eq!((&*granted.principal, &*granted.tenant), ("jwt:github/repository/1296269/run/777/1", "web"));
    assert_eq!(*granted.roles, [Arc::from("agent")]);
    // Another token of the same run is the same caller; a second attempt of it is another.
    let again = with(&claims(), &json!({ "jti": "x", "iat": now() - 5, "exp": now() + 200 }));
    let again = verify(&RSA.token(&again)).unwrap();
    assert_eq!(settings().judge(&again.attributes).unwrap(), granted);
    let rerun = verify(&RSA.token(&with(&claims(), &json!({ "run_attempt": "2" })))).unwrap();
    assert_ne!(settings().judge(&rerun.attributes).unwrap().principal, granted.principal);
}

#[test]
fn no_token_chooses_a_weaker_algorithm() {
    let body = claims().to_string();
    for alg in ["none", "None", "nOnE", "", "HS256", "hs256", "RS256 ", "rs256", "ES512"] {
        assert!(is_malformed(verify(&RSA.raw(&header(&json!({ "alg": alg })), &body))), "{alg}");
    }
    let unsigned = format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(&body));
    assert!(is_malformed(verify(&unsigned)));
    // The public key as the secret of an HMAC, in each form in which it is published.
    let jwk = RSA.jwk();
    for secret in [RSA.public(), jwk.to_string().into_bytes(), encode(RSA.public()).into_bytes(), Vec::new()] {
        let signed = format!("{}.{}", encode(header(&json!({ "alg": "HS256" }))), encode(&body));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        assert!(is_malformed(verify(&format!("{signed}.{}", encode(tag)))));
        // With a header that says RS256 it is a signature that does not fit.
        let signed = format!("{}.{}", encode(header(&json!({}))), encode(&body));
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        assert_eq!(verify(&format!("{signed}.{}", encode(tag))), Err(signature()));
    }
    // An algorithm that is known, and not one of the issuer's, or not that of the key.
    for alg in ["RS384", "RS512", "PS256", "ES256", "EdDSA"] {
        assert_eq!(verify(&RSA.raw(&header(&json!({ "alg": alg })), &body)), Err(signature()), "{alg}");
    }
    let all = IssuerSettings { algorithms: Algorithm::ALL.to_vec(), ..settings() };
    for alg in ["RS384", "PS256", "ES256", "EdDSA"] {
        let token = RSA.raw(&header(&json!({ "alg": alg })), &body);
        assert_eq!(all.verify_with(&token, &set(&[&RSA]), SystemTime::now()), Err(signature()), "{alg}");
    }
    let signed = format!("{}.{}", encode(header(&json!({ "alg": "PS256" }))), encode(&body));
    let pss = format!("{signed}.{}", encode(RSA.pss(signed.as_bytes())));
    assert_eq!(all.verify_with(&pss, &set(&[&RSA]), SystemTime::now()), Err(signature()), "the key is for RS256");
    let open = jwks(&[with(&RSA.jwk(), &json!({ "alg": null }))]).unwrap();
    assert!(all.verify_with(&pss, &open, SystemTime::now()).is_ok(), "a key for all algorithms of its kind");
    assert_eq!(
        settings().verify_with(&pss, &open, SystemTime::now()),
        Err(signature()),
        "the issuer lists RS256 alone"
    );
}

#[test]
fn each_kind_of_key_verifies_its_own_signatures_alone() {
    let signers = [Signer::rsa("a"), Signer::p256("b"), Signer::p384("c"), Signer::ed("d")];
    let all = IssuerSettings { algorithms: Algorithm::ALL.to_vec(), ..settings() };
    let keys = set(&signers.iter().collect::<Vec<_>>());
    let check = |token: &str| all.verify_with(token, &keys, SystemTime::now());
    for signer in &signers {
        let token = signer.token(&claims());
        assert!(check(&token).is_ok(), "{}", signer.alg());
        for other in &signers {
            if other.kid != signer.kid {
                let header = json!({ "alg": other.alg(), "kid": other.kid }).to_string();
                assert_eq!(check(&signer.raw(&header, &claims().to_string())), Err(signature()));
                let header = json!({ "alg": signer.alg(), "kid": other.kid }).to_string();
                assert_eq!(check(&signer.raw(&header, &claims().to_string())), Err(signature()));
            }
        }
        // One bit of the claims, and one of the signature.
        let (signed, mark) = token.rsplit_once('.').unwrap();
        let mut bytes = signer.signature(signed.as_bytes());
        bytes[7] ^= 1;
        assert_eq!(check(&format!("{signed}.{}", encode(&bytes))), Err(signature()));
        let changed = with(&claims(), &json!({ "repository_owner_id": "9920" }));
        let head = signed.split('.').next().unwrap();
        assert_eq!(check(&format!("{head}.{}.{mark}", encode(changed.to_string()))), Err(signature()));
    }
    // ECDSA: zeros, the order of the group, DER in place of two numbers.
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&order[2 * at..2 * at + 2], 16).unwrap()).collect();
    let signed = format!("{}.{}", encode(r#"{"alg":"ES256","kid":"b"}"#), encode(claims().to_string()));
    let right = signers[1].signature(signed.as_bytes());
    assert!(check(&format!("{signed}.{}", encode(&right))).is_ok());
    let der = [&[0x30, 68, 2, 32][..], &right[..32], &[2, 32], &right[32..]].concat();
    for wrong in
        [vec![0; 64], [order.clone(), right[32..].to_vec()].concat(), [right[..32].to_vec(), order].concat(), der]
    {
        assert_eq!(check(&format!("{signed}.{}", encode(wrong))), Err(signature()));
    }
}

#[test]
fn a_header_brings_no_key_and_no_other_rule() {
    let body = claims().to_string();
    assert!(verify(&RSA.raw(&header(&json!({ "x5t": "abc" })), &body)).is_ok(), "GitHub sends one");
    let stranger = Signer::rsa("r1");
    for (name, value) in [
        ("jku", json!("https://127.0.0.1:1/keys")),
        ("x5u", json!("https://127.0.0.1:1/chain")),
        ("x5c", json!(["MIIB"])),
        ("jwk", stranger.jwk()),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("kid", json!(7)),
        ("kid", json!("")),
        ("kid", json!("k".repeat(257))),
        ("typ", json!(1)),
        ("typ", json!("at+jwt")),
        ("typ", json!("JWE")),
        ("alg", json!(["RS256"])),
        ("alg", json!(null)),
    ] {
        for signer in [&*RSA, &stranger] {
            let token = signer.raw(&header(&json!({ name: value })), &body);
            assert!(is_malformed(verify(&token)), "{name} {value}");
        }
    }
    let listed = IssuerSettings { types: vec!["at+jwt".into()], ..settings() };
    let token = RSA.raw(&header(&json!({ "typ": "at+jwt" })), &body);
    assert!(listed.verify_with(&token, &set(&[&RSA]), SystemTime::now()).is_ok());
    for twice in [
        r#"{"alg":"RS256","alg":"RS256","kid":"r1"}"#,
        r#"{"alg":"HS256","kid":"r1","alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":"r2","kid":"r1"}"#,
        r#"{"alg":"RS256","kid":"r1","\u0061lg":"RS256"}"#,
    ] {
        assert!(is_malformed(verify(&RSA.raw(twice, &body))), "{twice}");
    }
    for other in ["[]", "\"RS256\"", "", "{", "{} x", "null"] {
        assert!(is_malformed(verify(&RSA.raw(other, &body))), "{other}");
    }
}

#[test]
fn a_token_has_one_form() {
    let good = RSA.token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, mark] = parts[..] else { panic!() };
    for wrong in [
        format!("{head}.{body}"),
        format!("{head}.{body}.{mark}.{mark}"),
        format!("{head}.{body}.{mark}.{mark}.{mark}"),
        format!("{head}.{body}."),
        format!(".{body}.{mark}"),
        format!("{head}..{mark}"),
        format!("{head}.{body}.{mark}="),
        format!("{head}.{body} .{mark}"),
        format!("{head}.{body}.{mark}\n"),
        format!(" {good}"),
        good.replace('_', "/").replace('-', "+") + "+",
        format!(r#"{{"protected":"{head}","payload":"{body}","signature":"{mark}"}}"#),
        "x".repeat(8193),
        format!("{good}{}", "A".repeat(8192)),
        String::new(),
    ] {
        assert!(is_malformed(verify(&wrong)), "{wrong}");
    }
    // The last character has bits that are not used: 256 bytes are 342 characters, and the last has four of them.
    let last = mark.chars().last().unwrap();
    let alphabet: Vec<char> = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']).collect();
    let place = alphabet.iter().position(|c| *c == last).unwrap();
    let twin = format!("{}{}", &good[..good.len() - 1], alphabet[place ^ 1]);
    assert!(is_malformed(verify(&twin)), "a token has one text");
    // A token within a token.
    assert!(is_malformed(verify(&RSA.raw(&header(&json!({})), &good))));
}

#[test]
fn each_member_comes_once() {
    let body = claims().to_string();
    for name in ["sub", "aud", "iss", "repository_owner_id"] {
        let twice = body.replacen('{', &format!(r#"{{"{name}":{},"#, claims()[name]), 1);
        assert!(is_malformed(verify(&RSA.raw(&header(&json!({})), &twice))), "{name}");
    }
    let nested = body.replacen('{', r#"{"act":{"a":1,"a":1},"#, 1);
    assert!(is_malformed(verify(&RSA.raw(&header(&json!({})), &nested))));
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(2000), "]".repeat(2000));
    assert!(is_malformed(verify(&RSA.raw(&header(&json!({})), &deep))));
}

#[test]
fn an_audience_is_ours_alone() {
    let audience = |aud: Claims| verify(&RSA.token(&with(&claims(), &json!({ "aud": aud }))));
    assert!(audience(json!([AUDIENCE])).is_ok());
    for other in [
        json!("https://else.example.org"),
        json!([]),
        json!(["https://else.example.org"]),
        json!([AUDIENCE, "https://else.example.org"]),
        json!([AUDIENCE, AUDIENCE]),
        json!(format!("{AUDIENCE}/")),
        json!(AUDIENCE.to_uppercase()),
        json!(&AUDIENCE[..AUDIENCE.len() - 1]),
        json!(""),
    ] {
        assert_eq!(audience(other.clone()), Err(JwtError::Audience(AUDIENCE.into())), "{other}");
    }
    for wrong in [json!(null), json!(7), json!({ "a": AUDIENCE }), json!([AUDIENCE, 7])] {
        assert!(is_malformed(audience(wrong.clone())), "{wrong}");
    }
    let others = IssuerSettings { other_audiences: true, ..settings() };
    let token = RSA.token(&with(&claims(), &json!({ "aud": [AUDIENCE, "https://else.example.org"] })));
    assert!(others.verify_with(&token, &set(&[&RSA]), SystemTime::now()).is_ok());
}

#[test]
fn an_issuer_is_compared_byte_for_byte() {
    for issuer in [
        "https://token.actions.githubusercontent.com/",
        "http://token.actions.githubusercontent.com",
        "https://TOKEN.actions.githubusercontent.com",
        "https://token.actions.githubusercontent.com/acme",
        "https://token.actions.githubusercontent.co\u{3bc}",
        "https://token.actions.githubusercontent.com:443",
        "",
    ] {
        let token = RSA.token(&with(&claims(), &json!({ "iss": issuer })));
        assert_eq!(verify(&token), Err(JwtError::UnknownIssuer), "{issuer}");
    }
    assert!(is_malformed(verify(&RSA.token(&with(&claims(), &json!({ "iss": null }))))));
}

#[test]
fn times_are_whole_seconds_and_clocks_may_differ_by_half_a_minute() {
    let body = claims().to_string();
    let time = |name: &str, value: &str| {
        let found = serde_json::from_str::<Claims>(&body).unwrap()[name].to_string();
        RSA.raw(&header(&json!({})), &body.replacen(&format!("\"{name}\":{found}"), &format!("\"{name}\":{value}"), 1))
    };
    for value in ["\"1\"", "1.5", "1e9", "1e400", "-1", "9223372036854775808", "99999999999999", "null", "true", "[1]"]
    {
        for name in ["exp", "iat", "nbf"] {
            assert!(is_malformed(verify(&time(name, value))), "{name} {value}");
        }
    }
    for name in ["exp", "iat"] {
        assert!(is_malformed(verify(&RSA.token(&with(&claims(), &json!({ name: null }))))), "{name}");
    }
    assert!(verify(&RSA.token(&with(&claims(), &json!({ "nbf": null })))).is_ok());
    // exp is in 300 seconds.
    let token = RSA.token(&claims());
    assert!(at(&token, 329).is_ok());
    assert_eq!(at(&token, 331), Err(JwtError::Expired));
    let future = |name: &str, offset: i64| {
        let times = json!({ "iat": now(), "nbf": now(), "exp": now() + 3000 });
        verify(&RSA.token(&with(&with(&claims(), &times), &json!({ name: now() + offset }))))
    };
    for name in ["iat", "nbf"] {
        assert!(future(name, 28).is_ok(), "{name}");
        assert_eq!(future(name, 33), Err(JwtError::NotYetValid), "{name}");
        assert_eq!(future(name, 2900), Err(JwtError::NotYetValid), "{name}");
    }
    let long = |seconds: i64| verify(&RSA.token(&with(&claims(), &json!({ "exp": now() + seconds, "iat": now() }))));
    assert!(long(3600).is_ok());
    assert_eq!(long(3601 + 5), Err(JwtError::Lifetime));
    assert_eq!(long(315_360_000), Err(JwtError::Lifetime));
}

#[test]
fn a_subject_hides_nothing() {
    let subject = |sub: Claims| verify(&RSA.token(&with(&claims(), &json!({ "sub": sub }))));
    assert!(subject(json!("s".repeat(255))).is_ok() && subject(json!("ü")).is_ok());
    for wrong in [
        json!(""),
        json!("s".repeat(256)),
        json!("a\nb"),
        json!("a\u{202e}b"),
        json!("a\u{200b}b"),
        json!(7),
        json!(null),
    ] {
        assert!(is_malformed(subject(wrong.clone())), "{wrong}");
    }
}

#[test]
fn keys_that_are_not_safe_are_left_out() {
    let good = OTHER.jwk();
    let rsa = |changes: Claims| with(&RSA.jwk(), &changes);
    let number = |bytes: &[u8]| encode(bytes);
    for (bad, says) in [
        (json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "r1", "alg": "HS256" }), "`alg`"),
        (json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "r1" }), "symmetric"),
        (rsa(json!({ "n": number(&[0xc1; 128]) })), "2048"),
        (rsa(json!({ "n": number(&[&[0x7f][..], &[0xc1; 255]].concat()) })), "2048"),
        (rsa(json!({ "n": number(&[0xc1; 1025]) })), "8192"),
        (rsa(json!({ "n": number(&[&[0xc1; 255][..], &[2]].concat()) })), "even"),
        (rsa(json!({ "e": number(&[1]) })), "exponent"),
        (rsa(json!({ "e": number(&[4]) })), "exponent"),
        (rsa(json!({ "e": number(&[1, 0, 0, 0, 1]) })), "exponent"),
        (rsa(json!({ "use": "enc" })), "`use`"),
        (rsa(json!({ "key_ops": ["encrypt"] })), "`key_ops`"),
        (rsa(json!({ "alg": "ES256" })), "does not fit"),
        (rsa(json!({ "alg": "RSA-OAEP" })), "`alg`"),
        (rsa(json!({ "d": "AAAA" })), "private"),
        (rsa(json!({ "n": "a=" })), "base64url"),
        (rsa(json!({ "kty": "EC" })), "kind"),
        (with(&Signer::p256("r1").jwk(), &json!({ "x": number(&[1; 31]) })), "coordinates"),
        (with(&Signer::p256("r1").jwk(), &json!({ "crv": "P-521" })), "kind"),
        (with(&Signer::ed("r1").jwk(), &json!({ "x": number(&[1; 33]) })), "32 bytes"),
        (json!("r1"), "object"),
    ] {
        let found = jwks(&[bad.clone(), good.clone()]).unwrap();
        assert_eq!((found.len(), found.left_out().len()), (1, 1), "{bad}");
        assert!(found.left_out()[0].contains(says), "{bad}: {:?}", found.left_out());
        let KeySetError::Empty(why) = jwks(std::slice::from_ref(&bad)).unwrap_err() else { panic!("{bad}") };
        assert!(why[0].contains(says));
        // The key that was left out verifies nothing, and the other key does.
        let unknown = settings().verify_with(&RSA.token(&claims()), &found, SystemTime::now());
        assert_eq!(unknown, Err(JwtError::UnknownKey("github".into())));
        assert!(settings().verify_with(&OTHER.token(&claims()), &found, SystemTime::now()).is_ok());
    }
    assert_eq!(
        jwks(&[good.clone(), good.clone()]).unwrap_err(),
        KeySetError::Empty(vec!["two keys have one `kid`".into()])
    );
    assert_eq!(jwks(&vec![good.clone(); 65]).unwrap_err(), KeySetError::TooMany(65));
    for form in ["", "[]", "{}", "{\"keys\":{}}", "<html>", "{\"keys\":[],\"keys\":[]}"] {
        assert_eq!(KeySet::parse(form.as_bytes()).unwrap_err(), KeySetError::Form, "{form}");
    }
    assert_eq!(jwks(&[]).unwrap_err(), KeySetError::Empty(Vec::new()));
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let two = set(&[&RSA, &OTHER]);
    let check =
        |header: String| settings().verify_with(&RSA.raw(&header, &claims().to_string()), &two, SystemTime::now());
    assert!(check(header(&json!({}))).is_ok());
    for kid in ["r3", "../../dev/null", "' OR 1=1 --", "R1", "r1 ", "*"] {
        assert_eq!(check(header(&json!({ "kid": kid }))), Err(JwtError::UnknownKey("github".into())), "{kid}");
    }
    assert_eq!(check(header(&json!({ "kid": "r2" }))), Err(signature()), "the other key did not sign it");
    assert_eq!(check(header(&json!({ "kid": null }))), Err(JwtError::UnknownKey("github".into())));
    let token = RSA.raw(&header(&json!({ "kid": null })), &claims().to_string());
    assert!(settings().verify_with(&token, &set(&[&RSA]), SystemTime::now()).is_ok(), "there is one key only");
}

fn judged(changes: &Claims) -> Result<(String, String), JwtError> {
    judged_by(&settings(), changes)
}

fn judged_by(settings: &IssuerSettings, changes: &Claims) -> Result<(String, String), JwtError> {
    let token = RSA.token(&with(&claims(), changes));
    let verified = settings.verify_with(&token, &set(&[&RSA]), SystemTime::now())?;
    settings.judge(&verified.attributes).map(|granted| (granted.principal.to_string(), granted.tenant.to_string()))
}

#[test]
fn a_grant_holds_for_ids_and_not_for_names() {
    assert!(judged(&json!({})).is_ok());
    for changes in [
        json!({ "repository_owner_id": "9920" }),
        // The name was registered again by a stranger.
        json!({ "repository_owner_id": "123456", "repository_owner": "acme" }),
        json!({ "repository_owner_id": 9919 }),
        json!({ "repository_owner_id": ["9919"] }),
        json!({ "repository_owner_id": { "9919": true } }),
        json!({ "repository_owner_id": null }),
        json!({ "event_name": "pull_request_target" }),
        json!({ "event_name": ["workflow_run"] }),
        json!({ "event_name": { "workflow_run": 1 } }),
        json!({ "event_name": true }),
        json!({ "runner_environment": "github-hosted" }),
        json!({ "runner_environment": null }),
        json!({ "run_id": null }),
        json!({ "run_id": "" }),
        json!({ "run_id": ["1"] }),
        json!({ "run_id": "9".repeat(300) }),
    ] {
        assert!(matches!(judged(&changes), Err(JwtError::NoGrant { .. })), "{changes}");
    }
    // A claim that is not there is not refused.
    assert!(judged(&json!({ "event_name": null })).is_ok());
}

#[test]
fn values_are_compared_by_type() {
    let with_grant = |when: Condition| IssuerSettings {
        grants: vec![Grant { when: vec![when], tenant: "web".into(), roles: vec!["agent".into()] }],
        ..settings()
    };
    let one = |test: Test| with_grant(Condition { claim: "x".into(), test });
    let holds = |settings: &IssuerSettings, x: Claims| judged_by(settings, &json!({ "x": x })).is_ok();
    let of_text = one(Test::Is(vec![text("true"), text("yes")]));
    assert!(holds(&of_text, json!("true")) && holds(&of_text, json!("yes")));
    for other in [json!(true), json!(["true"]), json!({ "true": 1 }), json!("TRUE"), json!("true "), json!(1)] {
        assert!(!holds(&of_text, other.clone()), "{other}");
    }
    let flag = one(Test::Is(vec![Scalar::Flag(true)]));
    assert!(holds(&flag, json!(true)) && !holds(&flag, json!("true")) && !holds(&flag, json!(1)));
    let number = one(Test::Is(vec![Scalar::Integer(7)]));
    assert!(holds(&number, json!(7)) && !holds(&number, json!("7")) && !holds(&number, json!(7.0)));
    let list = one(Test::Contains(vec![text("admins")]));
    assert!(holds(&list, json!(["users", "admins"])));
    for other in [json!("admins"), json!(["users"]), json!([["admins"]]), json!(["admins", {}]), json!({ "admins": 1 })]
    {
        assert!(!holds(&list, other.clone()), "{other}");
    }
    // Claims within claims.
    let nested = with_grant(is("kubernetes.io.serviceaccount.name", "ci"));
    assert!(judged_by(&nested, &json!({ "kubernetes.io": { "serviceaccount": { "name": "ci" } } })).is_ok());
    assert!(judged_by(&nested, &json!({ "kubernetes.io": { "serviceaccount": "ci" } })).is_err());
    let double =
        json!({ "kubernetes.io": { "serviceaccount": { "name": "ci" } }, "kubernetes.io.serviceaccount.name": "ci" });
    assert!(matches!(judged_by(&nested, &double), Err(JwtError::Malformed(_))));
}

#[test]
fn roles_of_grants_add_up_and_tenants_must_agree() {
    let main = |tenant: &str| IssuerSettings {
        grants: vec![
            grant(&[("repository_owner_id", "9919"), ("ref", "refs/heads/main")], tenant, &["lead", "agent"]),
            grant(&[("repository_owner_id", "9919")], "web", &["agent", "reader"]),
        ],
        ..settings()
    };
    let token = RSA.token(&claims());
    let check = |settings: &IssuerSettings| {
        let verified = settings.verify_with(&token, &set(&[&RSA]), SystemTime::now()).unwrap();
        settings.judge(&verified.attributes)
    };
    let granted = check(&main("web")).unwrap();
    assert_eq!(granted.roles.iter().map(|role| &**role).collect::<Vec<_>>(), ["agent", "lead", "reader"]);
    let tenants = vec!["deploy".into(), "web".into()];
    assert_eq!(check(&main("deploy")), Err(JwtError::TenantAmbiguous { issuer: "github".into(), tenants }));
    // Elsewhere one of the two holds.
    let (_, tenant) = judged_by(&main("deploy"), &json!({ "ref": "refs/heads/x" })).unwrap();
    assert_eq!(tenant, "web");
}

#[test]
fn names_that_are_the_same_for_all_products_mean_the_product_s_claim() {
    let alias = IssuerSettings { grants: vec![grant(&[("source_owner_id", "9919")], "web", &["agent"])], ..settings() };
    assert!(judged_by(&alias, &json!({})).is_ok());
    assert!(judged_by(&alias, &json!({ "repository_owner_id": "1", "source_owner_id": "9919" })).is_err());
    let custom = IssuerSettings { preset: None, ..alias };
    assert!(judged_by(&custom, &json!({ "source_owner_id": "9919" })).is_ok());
}

#[test]
fn no_two_claims_make_one_principal() {
    let template = |text: &str| IssuerSettings { principal: Template::parse(text).unwrap(), ..settings() };
    let two = template("{x}/{y}");
    let name = |x: &str, y: &str| judged_by(&two, &json!({ "x": x, "y": y })).unwrap().0;
    assert_eq!(name("a/b", "c"), "jwt:github/a%2Fb/c");
    let values =
        ["a", "b", "a/b", "b/a", "a%2Fb", "%", "%2F", "/", "//", ".", "..", "ü", "a b", "{x}", "A", "~", "a\u{0}"];
    let mut seen = std::collections::BTreeMap::new();
    for x in values {
        for y in values {
            let principal = name(x, y);
            assert!(principal.bytes().all(|byte| byte.is_ascii_graphic()), "{principal}");
            assert_eq!(seen.insert(principal, (x, y)), None, "{x} {y}");
        }
    }
    for (text, error) in [
        ("", TemplateError::NoClaim),
        ("repository", TemplateError::NoClaim),
        ("{a}{b}", TemplateError::Separator),
        ("{a}-{b}", TemplateError::Separator),
        ("{a}/{b}.{c}", TemplateError::Separator),
        ("{a", TemplateError::Brace),
        ("a}", TemplateError::Brace),
        ("{a{b}}", TemplateError::Brace),
        ("{}", TemplateError::Name),
        ("a b/{c}", TemplateError::Literal),
        ("%2F/{c}", TemplateError::Literal),
    ] {
        assert_eq!(Template::parse(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn claims_have_one_text_and_a_server_that_did_not_look_for_one_has_none() {
    let changes = json!({ "x": ["a+b", 1, true], "ref": "refs/heads/ü&=", "runner_environment": "self-hosted" });
    let asks = IssuerSettings {
        grants: vec![
            grant(&[("ref", "refs/heads/ü&=")], "web", &["agent"]),
            Grant {
                when: vec![Condition { claim: "x".into(), test: Test::Contains(vec![Scalar::Integer(1)]) }],
                tenant: "web".into(),
                roles: vec!["reader".into()],
            },
        ],
        ..settings()
    };
    let verified = asks.verify_with(&RSA.token(&with(&claims(), &changes)), &set(&[&RSA]), SystemTime::now()).unwrap();
    let text = verified.attributes.encode();
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    let again = Attributes::decode(&text).unwrap();
    assert_eq!(again, *verified.attributes);
    assert_eq!(asks.judge(&again), asks.judge(&verified.attributes));
    assert_eq!(asks.judge(&again).unwrap().roles.len(), 2);
    for wrong in [
        format!("{text}&"),
        format!("&{text}"),
        text.replacen("=t", "=i", 1),
        text.replacen("ref=", "re%66=", 1),
        text.to_lowercase(),
        format!("{text}&zz"),
        format!("{text}&zz=q"),
        format!("{text}&a=n"),
        format!("{text}&zz=i+5"),
        format!("{text}&zz=t%zz"),
    ] {
        assert!(wrong == text || Attributes::decode(&wrong).is_none(), "{wrong}");
    }
    assert_eq!(Attributes::decode(""), Some(Attributes::default()));
    // A claim that only this server's settings refuse: another server did not look, so that nothing is granted.
    let stricter = IssuerSettings { refuse: vec![is("actor", "mallory")], ..settings() };
    let other = settings().verify_with(&RSA.token(&claims()), &set(&[&RSA]), SystemTime::now()).unwrap();
    assert!(settings().judge(&other.attributes).is_ok());
    assert!(matches!(stricter.judge(&other.attributes), Err(JwtError::NoGrant { .. })));
    // Claims that are too long to be forwarded.
    let long = with(&claims(), &json!({ "ref": "x".repeat(3000) }));
    assert!(is_malformed(asks.verify_with(&RSA.token(&long), &set(&[&RSA]), SystemTime::now())));
}

#[test]
fn a_token_may_be_bound_to_a_certificate_and_to_nothing_else() {
    let bound = verify(&RSA.token(&with(&claims(), &json!({ "cnf": { "x5t#S256": encode([7; 32]) } })))).unwrap();
    assert_eq!(bound.bound, Some([7; 32]));
    for cnf in [
        json!({}),
        json!({ "jkt": "x" }),
        json!({ "x5t#S256": "AA" }),
        json!("x"),
        json!({ "x5t#S256": encode([7; 32]), "jkt": "x" }),
    ] {
        assert!(is_malformed(verify(&RSA.token(&with(&claims(), &json!({ "cnf": cnf }))))), "{cnf}");
    }
}

#[test]
fn presets_have_templates_that_can_be_read_and_claims_that_strangers_do_not_have() {
    for preset in Preset::ALL {
        assert!(Template::parse(preset.principal()).is_ok(), "{preset:?}");
        assert!(!preset.must().is_empty() && !preset.algorithms().is_empty());
        assert_eq!(preset.issuer().map(|url| HttpsUrl::parse(url).is_ok()), preset.issuer().map(|_| true));
    }
    assert_eq!(Preset::of_shared("https://gitlab.com"), Some(Preset::Gitlab));
    assert_eq!(Preset::of_shared("https://gitlab.example.org"), None);
}
