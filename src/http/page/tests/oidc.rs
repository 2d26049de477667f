//! Sign-in by an issuer, with a real HTTPS server of it.

use super::*;
use crate::auth::{Callers, RoleTable};
use crate::issuer_for_tests::{Issuer, Mode, Signer, now, with};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use form_urlencoded::parse;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;
use wharfinger_jwt::{Algorithm, Condition, Grant, IssuerSettings, Keys, ProviderSettings, Scalar, Template, Test};

const CLIENT: &str = "wharf";
const REDIRECT: &str = "https://wharf.example.org/sign-in/callback";

/// A page whose people an issuer signs in.
struct Farm {
    world: World,
    issuer: Issuer,
    key: Signer,
    _folder: tempfile::TempDir,
}

/// A sign-in that began: the fields that the issuer gets, and the cookie of the browser.
struct Begun {
    fields: BTreeMap<String, String>,
    cookie: String,
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    parse(text.as_bytes()).map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

impl Farm {
    fn new(handle: &crate::engine::Handle) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = Signer::p256("k");
        let issuer = Issuer::start(folder.path(), &[&key]);
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "s/e c:ret\n").unwrap();
        let trusted = IssuerSettings {
            name: "sso".into(),
            issuer: issuer.url.as_str().into(),
            audience: CLIENT.into(),
            other_audiences: false,
            algorithms: vec![Algorithm::Es256],
            types: Vec::new(),
            max_lifetime: Duration::from_secs(3600),
            keys: Keys::Discover { hosts: Vec::new() },
            ca_file: Some(issuer.ca.clone()),
            stale_for: Duration::from_secs(60),
            principal: Template::parse("{email}").unwrap(),
            require: vec![Condition { claim: "email_verified".into(), test: Test::Is(vec![Scalar::Flag(true)]) }],
            refuse: Vec::new(),
            grants: vec![Grant {
                when: vec![Condition {
                    claim: "groups".into(),
                    test: Test::Contains(vec![Scalar::Text("infra".into())]),
                }],
                tenant: "ops".into(),
                roles: vec!["admin".into()],
            }],
            preset: None,
        };
        let callers = Callers { issuers: vec![trusted], table: RoleTable::default(), ..Callers::default() };
        let trust = Trust::everyone();
        trust.set(Some(callers)).unwrap();
        let oidc = ProviderSettings {
            issuer: issuer.url.as_str().into(),
            ca_file: Some(issuer.ca.clone()),
            hosts: Vec::new(),
            client_id: CLIENT.into(),
            client_secret_file: Some(secret),
            scopes: vec!["openid".into(), "email".into()],
            redirect: REDIRECT.into(),
        };
        let stop = CancellationToken::new();
        let sources = AnswerSources { trust, ..AnswerSources::default() };
        let inside = Inside::new(handle.clone(), &RpcLimits::default(), sources, None, stop.clone());
        let settings = PageSettings { oidc: Some(oidc), ..PageSettings::default() };
        let world = World { routes: routes(inside, settings, stop.clone()), _stop: stop.drop_guard() };
        Self { world, issuer, key, _folder: folder }
    }

    async fn begin(&self, to: &str) -> Begun {
        let sent = self.world.get(&format!("/sign-in/begin?to={to}")).await;
        assert_eq!(sent.status.as_u16(), 303, "{}", sent.text);
        let (at, query) = sent.header("location").split_once("?tenant=1&").unwrap();
        assert_eq!(at, format!("{}/authorize", self.issuer.url));
        let set = sent.header("set-cookie");
        assert!(
            set.starts_with("wharfinger-sign-in=") && set.contains("; HttpOnly; SameSite=Lax; Max-Age=600"),
            "{set}"
        );
        Begun { fields: pairs(query), cookie: set.split(';').next().unwrap().to_owned() }
    }

    /// A token of this nonce, with these other claims.
    fn token(&self, nonce: &str, other: &serde_json::Value) -> String {
        let claims = json!({
            "iss": self.issuer.url, "aud": CLIENT, "sub": "1", "iat": now(), "exp": now() + 300,
            "email": "ann@example.org", "email_verified": true, "groups": ["infra"], "nonce": nonce,
        });
        self.key.token(&with(&claims, other))
    }

    /// The issuer gives this token for each code.
    fn give(&self, token: String) {
        self.issuer.exchange(move |_, _| (200, json!({ "id_token": token, "access_token": "x" }).to_string()));
    }

    async fn back(&self, begun: &Begun, cookie: &str, more: &str) -> Answer {
        let url = format!("/sign-in/callback?state={}&{more}", begun.fields["state"]);
        // As a browser comes back from another site.
        let headers = [
            ("cookie", cookie),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        self.world.ask(Method::GET, &url, &headers, "").await
    }
}

#[tokio::test]
async fn a_person_signs_in_by_the_issuer_and_comes_back_to_the_same_screen() {
    let broker = broker(1, 1).await;
    let farm = Farm::new(&broker.handle);
    let closed = farm.world.get("/pools").await;
    assert_eq!(closed.status, StatusCode::UNAUTHORIZED);
    assert!(closed.text.contains("href=\"/sign-in/begin?to=%2Fpools\">Sign in with <bdi>127.0.0.1"), "{}", closed.text);
    let begun = farm.begin("%2Fpools").await;
    let field = |name: &str| begun.fields[name].clone();
    assert_eq!(
        [
            field("response_type"),
            field("client_id"),
            field("redirect_uri"),
            field("scope"),
            field("code_challenge_method")
        ],
        ["code", CLIENT, REDIRECT, "openid email", "S256"]
    );
    let (token, challenge) = (farm.token(&field("nonce"), &json!({})), field("code_challenge"));
    let given = token.clone();
    farm.issuer.exchange(move |head, form| {
        let form = pairs(form);
        let verified = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"])) == challenge;
        // The id and the secret, each encoded as in a form: `wharf:s%2Fe+c%3Aret`.
        let known = head.contains("uthorization: Basic d2hhcmY6cyUyRmUrYyUzQXJldA==");
        match verified && known && form["code"] == "c o/de" && form["redirect_uri"] == REDIRECT {
            true => (200, json!({ "id_token": given }).to_string()),
            false => (400, json!({ "error": "invalid_grant" }).to_string()),
        }
    });
    let back = farm.back(&begun, &begun.cookie, "code=c+o%2Fde").await;
    assert_eq!(back.status, StatusCode::OK, "{}", back.text);
    assert!(back.text.contains("content=\"0;url=/pools\"") && !back.text.contains(&token), "{}", back.text);
    let cookies: Vec<&str> =
        back.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
    assert!(
        cookies[0].contains("HttpOnly; SameSite=Strict") && cookies[1].starts_with("wharfinger-sign-in=;"),
        "{cookies:?}"
    );
    let session = cookies[0].split(';').next().unwrap();
    let pools = farm.world.get_with("/pools", session).await;
    assert!(pools.status == StatusCode::OK && pools.text.contains("jwt:sso/ann%40example.org"), "{}", pools.text);
    // The code and the state count once.
    let twice = farm.back(&begun, &begun.cookie, "code=c+o%2Fde").await;
    assert!(
        twice.text.contains("did not begin in this browser") && twice.status == StatusCode::UNAUTHORIZED,
        "{}",
        twice.text
    );
    assert!(farm.world.post("/sign-out", session, "").await.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(farm.world.get_with("/pools", session).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_sign_in_that_is_not_this_browsers_or_not_the_issuers_begins_no_session() {
    let broker = broker(1, 1).await;
    let farm = Farm::new(&broker.handle);
    let refused = |answer: &Answer, why: &str| {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{why}: {}", answer.text);
        assert!(answer.text.contains(why) && answer.text.contains("role=\"alert\""), "{why}: {}", answer.text);
        assert!(!answer.headers.contains_key(header::SET_COOKIE), "{why}");
        assert_clean("/sign-in/callback", &answer.text);
    };
    // The state of another browser, as in a link that an attacker sends around.
    let begun = farm.begin("%2F").await;
    let other = farm.begin("%2F").await;
    farm.give(farm.token(&begun.fields["nonce"], &json!({})));
    for cookie in ["", &*other.cookie, "wharfinger-sign-in="] {
        refused(&farm.back(&begun, cookie, "code=c").await, "did not begin in this browser");
    }
    for (more, why) in [
        ("error=access_denied&error_description=%3Cscript%3E", "The issuer refused: access_denied &lt;script&gt;"),
        ("code=", "The issuer sent no code"),
    ] {
        let begun = farm.begin("%2F").await;
        refused(&farm.back(&begun, &begun.cookie, more).await, why);
        refused(&farm.back(&begun, &begun.cookie, "code=c").await, "did not begin in this browser");
    }
    let tokens: [(serde_json::Value, &str); 5] = [
        (json!({ "nonce": other.fields["nonce"] }), "of another sign-in"),
        (json!({ "nonce": null }), "of another sign-in"),
        (json!({ "aud": "another" }), "audience"),
        (json!({ "email_verified": false }), "no grant of the issuer sso holds"),
        (json!({ "groups": ["web"] }), "no grant of the issuer sso holds"),
    ];
    for (claims, why) in tokens {
        let begun = farm.begin("%2F").await;
        farm.give(farm.token(&begun.fields["nonce"], &claims));
        refused(&farm.back(&begun, &begun.cookie, "code=c").await, why);
    }
    let answers: [(u16, &str, &str); 5] = [
        (
            400,
            r#"{"error":"invalid_grant","error_description":"used"}"#,
            "the issuer refused the code: invalid_grant used",
        ),
        (500, "oh", "the issuer refused the code: 500"),
        (200, "oh", "is no JSON"),
        (200, "{}", "has no `id_token`"),
        (200, r#"{"id_token":"x"}"#, "no signed token"),
    ];
    for (status, text, why) in answers {
        let begun = farm.begin("%2F").await;
        farm.issuer.exchange(move |_, _| (status, text.to_owned()));
        refused(&farm.back(&begun, &begun.cookie, "code=c").await, why);
    }
}

#[tokio::test]
async fn an_issuer_that_is_away_is_named_and_the_token_still_signs_in() {
    let broker = broker(1, 1).await;
    let farm = Farm::new(&broker.handle);
    farm.issuer.set(Mode::Down);
    let answer = farm.world.get("/sign-in/begin?to=%2Fpools").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text);
    assert!(answer.text.contains("You were not signed in: the issuer cannot be asked"), "{}", answer.text);
    assert!(answer.text.contains("name=\"token\"") && answer.text.contains("value=\"/pools\""), "{}", answer.text);
    // Others drive no fetches: one that failed holds for a moment.
    let asked = farm.issuer.requests().len();
    for _ in 0..20 {
        farm.world.get("/sign-in/begin?to=%2F").await;
    }
    assert_eq!(farm.issuer.requests().len(), asked);
    // A page without an issuer has no such addresses.
    let plain = page_of(&broker.handle, AnswerSources::default());
    assert_eq!(plain.get("/sign-in/begin").await.header("location"), "/");
}
