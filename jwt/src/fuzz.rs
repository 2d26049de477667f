//! Tokens and keys that strangers feed, for `fuzz/` and the inputs that it kept.

use crate::{
    Algorithm, Condition, Grant, Header, IssuerSettings, Json, JwtError, KeySet, Keys, Scalar, Template, Test,
    is_compact,
};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The issuer, its keys, and the key pair that signs.
struct World {
    settings: IssuerSettings,
    keys: KeySet,
    pair: Ed25519KeyPair,
}

/// The present time of the corpus.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap_or_else(|error| panic!("{error}"));
        let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let keys = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{public}","kid":"k"}}]}}"#);
        let when = Condition { claim: "owner".into(), test: Test::Is(vec![Scalar::Text("9919".into())]) };
        let settings = IssuerSettings {
            name: "fuzz".into(),
            issuer: "https://i".into(),
            audience: "a".into(),
            other_audiences: false,
            algorithms: vec![Algorithm::EdDsa],
            types: Vec::new(),
            max_lifetime: Duration::from_secs(3600),
            keys: Keys::File("/nowhere".into()),
            ca_file: None,
            stale_for: Duration::from_secs(3600),
            principal: Template::parse("{sub}").unwrap_or_else(|error| panic!("{error}")),
            require: Vec::new(),
            refuse: Vec::new(),
            grants: vec![Grant { when: vec![when], tenant: "web".into(), roles: vec!["agent".into()] }],
            preset: None,
        };
        let keys = KeySet::parse(keys.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        World { settings, keys, pair }
    })
}

/// The first byte selects what the rest is: a key set, the header and the claims of a token that is signed here with a line break between,
/// or else the text of a token without a valid signature.
pub fn jwt(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        b'k' => key_set(rest),
        b's' => signed(rest),
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            let World { settings, keys, .. } = world();
            let refused = settings.verify_with(text, keys, now());
            assert!(refused.is_err(), "{refused:?}");
        }
    }
}

fn key_set(bytes: &[u8]) {
    let Ok(set) = KeySet::parse(bytes) else { return };
    assert!((1..=64).contains(&set.len()) && !set.is_empty());
    assert_eq!(KeySet::parse(bytes).as_ref(), Ok(&set), "one reading");
}

fn signed(bytes: &[u8]) {
    let World { settings, keys, pair } = world();
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, claims) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let body = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let token = format!("{body}.{}", URL_SAFE_NO_PAD.encode(pair.sign(body.as_bytes())));
    let Ok(verified) = settings.verify_with(&token, keys, now()) else { return };
    // A token that is taken has all that is asked for, by another reader.
    assert!(Header::parse(header).is_ok_and(|header| header.algorithm == Algorithm::EdDsa));
    let claims: serde_json::Value = serde_json::from_slice(claims).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((&claims["iss"], claims["sub"].is_string()), (&"https://i".into(), true));
    assert!(claims["aud"] == "a" || claims["aud"] == serde_json::json!(["a"]), "{claims}");
    let time = |name: &str| claims[name].as_i64().unwrap_or_else(|| panic!("{name} of {claims}"));
    assert!(time("exp") > 1_800_000_000 - 30 && time("iat") <= 1_800_000_000 + 30 && time("exp") - time("iat") <= 3600);
    assert_eq!(verified.expires, UNIX_EPOCH + Duration::from_secs(time("exp").unsigned_abs() + 30));
    match settings.judge(&verified.attributes) {
        Ok(granted) => {
            assert_eq!(claims["owner"], "9919");
            assert!(granted.principal.starts_with("jwt:fuzz/") && granted.principal.len() <= 256);
            assert!(granted.principal.bytes().all(|byte| byte.is_ascii_graphic()), "{}", granted.principal);
        }
        Err(error) => assert!(matches!(error, JwtError::NoGrant { .. }), "{error}"),
    }
    // One bit of the signature, and no token is one by its beginning alone.
    let other = if token.ends_with('A') { 'Q' } else { 'A' };
    let changed = format!("{}{other}", &token[..token.len() - 1]);
    assert!(settings.verify_with(&changed, keys, now()).is_err());
    assert!(Json::parse(header).is_ok());
    let _ = is_compact(&token);
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_input_finds_a_fault() {
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        wharfinger_testkit::replay(repository.as_ref(), "jwt", super::jwt);
    }
}
