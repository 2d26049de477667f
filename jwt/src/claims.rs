//! The claims of a token: those that RFC 7519 registers, and the way to any by its name.

use crate::JwtError;
use crate::json::Json;
use crate::value::Value;
use base64::Engine as _;
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum difference of the issuer's clock and ours.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// Maximum length of a subject in bytes.
const MAX_SUBJECT: usize = 255;
/// The latest time that is read as one: the year 9999.
const LAST: i64 = 253_402_300_799;

/// The registered claims of a token whose signature is right. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The audiences.
    pub audiences: Vec<String>,
    /// The end of its validity.
    pub expires: i64,
    /// The time at which it was issued.
    pub issued: i64,
    /// The beginning of its validity.
    pub not_before: Option<i64>,
    /// SHA-256 of the client's certificate that it is bound to (RFC 8705, section 3.1).
    pub bound: Option<[u8; 32]>,
}

pub(crate) type Members = BTreeMap<String, Json>;

/// Reads claims: one object.
pub(crate) fn parse(json: &[u8]) -> Result<Members, JwtError> {
    match Json::parse(json) {
        Ok(Json::Object(members)) => Ok(members),
        Ok(_) | Err(_) => Err(JwtError::Malformed("has claims that are not an object with each member once")),
    }
}

/// The `iss` of a token, of which nothing is verified yet.
pub(crate) fn issuer(members: &Members) -> Result<&str, JwtError> {
    members.get("iss").and_then(Json::as_text).ok_or(JwtError::Malformed("has no `iss` that is a text"))
}

impl Registered {
    /// Reads the registered claims. None is judged by the time yet.
    pub(crate) fn of(members: &Members) -> Result<Self, JwtError> {
        let subject = members.get("sub").and_then(Json::as_text);
        if !subject.is_some_and(is_subject) {
            return Err(JwtError::Malformed("has no `sub` of 1 to 255 bytes without control characters"));
        }
        let audiences = match members.get("aud") {
            Some(Json::Text(one)) => vec![one.clone()],
            Some(Json::List(list)) => list
                .iter()
                .map(|entry| entry.as_text().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or(JwtError::Malformed("has an `aud` that is not a list of texts"))?,
            Some(_) | None => return Err(JwtError::Malformed("has no `aud`")),
        };
        let time = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(Json::Integer(at)) if (0..=LAST).contains(at) => Ok(Some(*at)),
            Some(_) => Err(JwtError::Malformed("has a time that is not a whole number of seconds")),
        };
        Ok(Self {
            audiences,
            expires: time("exp")?.ok_or(JwtError::Malformed("has no `exp`"))?,
            issued: time("iat")?.ok_or(JwtError::Malformed("has no `iat`"))?,
            not_before: time("nbf")?,
            bound: bound(members)?,
        })
    }

    /// Judges the times. `now`: seconds since 1970.
    pub(crate) fn check(&self, now: i64, max_lifetime: Duration) -> Result<(), JwtError> {
        let leeway = LEEWAY.as_secs().cast_signed();
        if self.expires <= now - leeway {
            return Err(JwtError::Expired);
        }
        if self.issued > now + leeway || self.not_before.is_some_and(|at| at > now + leeway) {
            return Err(JwtError::NotYetValid);
        }
        let most = i64::try_from(max_lifetime.as_secs()).unwrap_or(i64::MAX);
        if self.expires - self.issued > most {
            return Err(JwtError::Lifetime);
        }
        Ok(())
    }
}

/// A subject without characters that hide or turn round what a log shows.
fn is_subject(text: &str) -> bool {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    (1..=MAX_SUBJECT).contains(&text.len()) && !text.chars().any(hides)
}

fn bound(members: &Members) -> Result<Option<[u8; 32]>, JwtError> {
    let Some(confirmation) = members.get("cnf") else { return Ok(None) };
    let unknown = JwtError::Malformed("has a `cnf` that is not `x5t#S256` alone");
    let Some(confirmation) = confirmation.as_object().filter(|members| members.len() == 1) else { return Err(unknown) };
    let text = confirmation.get("x5t#S256").and_then(Json::as_text).ok_or(unknown.clone())?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(|_| unknown.clone())?;
    bytes.try_into().map(Some).map_err(|_| unknown)
}

/// The value of a claim. Its name is that of a member, or of members with dots between: `kubernetes.io.namespace` is
/// `namespace` in `kubernetes.io`. Two members that could be meant are refused.
pub(crate) fn find(members: &Members, name: &str) -> Result<Value, JwtError> {
    let mut found = Vec::new();
    collect(members, name, &mut found);
    match found[..] {
        [] => Ok(Value::Absent),
        [one] => Ok(Value::of(one)),
        [..] => Err(JwtError::Malformed("has two claims of one name, one of them within another")),
    }
}

fn collect<'j>(members: &'j Members, name: &str, found: &mut Vec<&'j Json>) {
    found.extend(members.get(name));
    for (at, _) in name.match_indices('.') {
        if let Some(Json::Object(inner)) = members.get(&name[..at]) {
            collect(inner, &name[at + 1..], found);
        }
    }
}
