//! Keys of issuers: by discovery, from a URL and from a file, on a real HTTPS server that fails, moves and rotates them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
#![allow(clippy::disallowed_methods, reason = "tokens are made by the clock of the machine")]

mod farm;
mod support;

use farm::{AUDIENCE, OTHER, RSA, settings, signature};
use serde_json::{Value as Claims, json};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use support::{Issuer, Mode, encode, github};
use wharfinger_jwt::{Attributes, HttpsUrl, IssuerSettings, JwtError, Keys, Verified, Verifier};

/// Settings of an issuer with a server.
fn served(issuer: &Issuer, keys: Keys) -> IssuerSettings {
    IssuerSettings { issuer: issuer.url.as_str().into(), keys, ca_file: Some(issuer.ca.clone()), ..settings() }
}

fn discover() -> Keys {
    Keys::Discover { hosts: Vec::new() }
}

/// Verifies, and looks for keys once if they are wanted.
async fn ask(verifier: &Verifier, token: &str) -> Result<Arc<Verified>, JwtError> {
    match verifier.verify(token, SystemTime::now()) {
        Err(error) if error.wants_keys() => {
            verifier.look_for_keys(token).await;
            verifier.verify(token, SystemTime::now())
        }
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_by_discovery_from_a_url_and_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), &[&RSA]);
    let file = folder.path().join("keys.json");
    std::fs::write(&file, json!({ "keys": [RSA.jwk()] }).to_string()).unwrap();
    let token = RSA.token(&github(&issuer.url, AUDIENCE));
    let url = HttpsUrl::parse(&format!("{}/keys", issuer.url)).unwrap();
    for keys in [discover(), Keys::Url(url.clone()), Keys::File(file)] {
        let verifier = Verifier::new(vec![served(&issuer, keys.clone())], None);
        assert!(ask(&verifier, &token).await.is_ok(), "{keys:?}");
        assert!(verifier.judge("github", &ask(&verifier, &token).await.unwrap().attributes).unwrap().is_ok());
        assert_eq!(verifier.judge("other", &Attributes::default()), None);
    }
    issuer.set(Mode::Moved);
    let verifier = Verifier::new(vec![served(&issuer, Keys::Url(url))], None);
    assert!(ask(&verifier, &token).await.is_ok(), "a redirection on the same server is followed");
    // Another authority signed the server's certificate.
    let stranger = IssuerSettings { ca_file: None, ..served(&issuer, discover()) };
    let verifier = Verifier::new(vec![stranger], None);
    assert!(matches!(ask(&verifier, &token).await, Err(JwtError::KeysUnavailable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_gives_no_keys_and_takes_none_away() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), &[&RSA]);
    // By the same authority, so that nothing but the rule keeps the client from it.
    let elsewhere = Issuer::start(folder.path(), &[&OTHER]);
    let mut url = elsewhere.url.clone();
    url.push_str("/keys");
    let token = RSA.token(&github(&issuer.url, AUDIENCE));
    let wide = |key: Claims| json!({ "keys": vec![key; 65] }).to_string();
    let faults = [
        Mode::Status(500),
        Mode::Status(404),
        Mode::Down,
        Mode::Hang,
        Mode::Keys("<html>".into()),
        Mode::Keys("{\"keys\":[]}".into()),
        Mode::Keys(wide(RSA.jwk())),
        Mode::Keys(json!({ "keys": [{ "kty": "oct", "k": "AAAA", "kid": "r1" }] }).to_string()),
        Mode::Large(300_000),
        Mode::Redirect(url.clone()),
        Mode::Redirect(url.replace("https://", "http://")),
        Mode::Redirect("http://169.254.169.254/latest/meta-data".into()),
        Mode::Redirect("/keys".into()),
        Mode::Other,
        Mode::JwksUri("https://169.254.169.254/latest".into()),
        Mode::JwksUri(url.replace("https://", "http://")),
        Mode::JwksUri("file:///etc/passwd".into()),
    ];
    for fault in faults {
        issuer.set(fault.clone());
        let verifier = Verifier::new(vec![served(&issuer, discover())], None);
        let began = Instant::now();
        let Err(JwtError::KeysUnavailable { retry_seconds, .. }) = ask(&verifier, &token).await else {
            panic!("{fault:?}")
        };
        assert!((1..=3).contains(&retry_seconds) && began.elapsed() < Duration::from_secs(4), "{fault:?}");
    }
    assert!(elsewhere.requests().is_empty(), "no one was sent on to another server");

    // With keys at hand each of them changes nothing.
    issuer.set(Mode::Serve);
    let verifier = Verifier::new(vec![served(&issuer, discover())], None);
    assert!(ask(&verifier, &token).await.is_ok());
    issuer.set(Mode::Status(500));
    let unknown = OTHER.token(&github(&issuer.url, AUDIENCE));
    assert_eq!(ask(&verifier, &unknown).await, Err(JwtError::UnknownKey("github".into())));
    assert!(ask(&verifier, &token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_the_list_may_have_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), &[&RSA]);
    // Another name of the same machine, for which the certificate is not made.
    issuer.set(Mode::JwksUri(format!("{}/keys", issuer.url.replace("127.0.0.1", "127.0.0.2"))));
    let token = RSA.token(&github(&issuer.url, AUDIENCE));
    let verifier = Verifier::new(vec![served(&issuer, discover())], None);
    assert!(matches!(ask(&verifier, &token).await, Err(JwtError::KeysUnavailable { .. })));
    let asked = issuer.requests();
    assert_eq!(asked, ["/.well-known/openid-configuration"]);
    issuer.set(Mode::Serve);
    let listed = Keys::Discover { hosts: vec!["127.0.0.2".into()] };
    let verifier = Verifier::new(vec![served(&issuer, listed)], None);
    assert!(ask(&verifier, &token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_taken_at_once_and_strangers_make_no_fetches() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), &[&RSA]);
    let verifier = Verifier::new(vec![served(&issuer, discover())], None);
    let claims = github(&issuer.url, AUDIENCE);
    assert!(ask(&verifier, &RSA.token(&claims)).await.is_ok());
    issuer.set_keys(&[&RSA, &OTHER]);
    assert!(ask(&verifier, &OTHER.token(&claims)).await.is_ok(), "one more fetch");
    assert_eq!(issuer.requests().len(), 4);
    // Random names of keys, and a good token among them.
    let head = |kid: &str| json!({ "alg": "RS256", "kid": kid }).to_string();
    let body = claims.to_string();
    let began = Instant::now();
    for number in 0..2000 {
        let token = format!("{}.{}.{}", encode(head(&format!("random {number}"))), encode(&body), encode([1; 256]));
        assert_eq!(ask(&verifier, &token).await, Err(JwtError::UnknownKey("github".into())));
        assert!(number % 100 != 0 || ask(&verifier, &RSA.token(&claims)).await.is_ok());
    }
    assert_eq!(issuer.requests().len(), 4, "all within 30 seconds of the last fetch");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_key_that_is_withdrawn_are_forgotten_and_a_reload_keeps_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), &[&RSA]);
    let first = Verifier::new(vec![served(&issuer, discover())], None);
    let token = RSA.token(&github(&issuer.url, AUDIENCE));
    assert!(ask(&first, &token).await.is_ok());
    // Grants change, keys stay without a gap, and are fetched again.
    let other = IssuerSettings { grants: Vec::new(), ..served(&issuer, discover()) };
    let second = Verifier::new(vec![other], Some(&first));
    drop(first);
    assert!(second.verify(&token, SystemTime::now()).is_ok());
    let began = Instant::now();
    while issuer.requests().len() < 4 {
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", issuer.requests());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The issuer withdraws the key. A token by another key makes the fetch.
    issuer.set_keys(&[&OTHER]);
    assert!(ask(&second, &OTHER.token(&github(&issuer.url, AUDIENCE))).await.is_ok());
    assert_eq!(second.verify(&token, SystemTime::now()), Err(JwtError::UnknownKey("github".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_verified_expires_and_is_one_of_its_own_issuer() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(folder.path(), &[&RSA]);
    let second = Issuer::start(&folder.path().join("b"), &[&OTHER]);
    let other = IssuerSettings { name: "second".into(), ..served(&second, discover()) };
    let verifier = Verifier::new(vec![served(&issuer, discover()), other], None);
    let token = RSA.token(&github(&issuer.url, AUDIENCE));
    assert_eq!(&*ask(&verifier, &token).await.unwrap().issuer, "github");
    let later = SystemTime::now() + Duration::from_secs(331);
    assert_eq!(verifier.verify(&token, later), Err(JwtError::Expired));
    // A key of one issuer signs nothing of the other.
    assert_eq!(&*ask(&verifier, &OTHER.token(&github(&second.url, AUDIENCE))).await.unwrap().issuer, "second");
    let crossed = OTHER.token(&github(&issuer.url, AUDIENCE));
    assert_eq!(ask(&verifier, &crossed).await, Err(JwtError::UnknownKey("github".into())));
    let named =
        OTHER.raw(&json!({ "alg": "RS256", "kid": "r1" }).to_string(), &github(&issuer.url, AUDIENCE).to_string());
    assert_eq!(ask(&verifier, &named).await, Err(signature()));
}
