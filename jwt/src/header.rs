//! The header of a token (RFC 7515, section 4), read strictly: nothing in it chooses a key but `kid`.

use crate::json::Json;
use crate::{Algorithm, JwtError};

/// Members with which a token would bring its own key, another encoding or another rule.
const REFUSED: [&str; 8] = ["jku", "jwk", "x5u", "x5c", "b64", "zip", "crit", "cty"];
/// Maximum length of a `kid` in bytes.
const MAX_KID: usize = 256;

/// The header of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The name of the key.
    pub kid: Option<String>,
    /// The media type, if it is not the usual one.
    pub typ: Option<String>,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`JwtError::Malformed`].
    pub fn parse(json: &[u8]) -> Result<Self, JwtError> {
        let json = Json::parse(json)
            .map_err(|_| JwtError::Malformed("has a header that is not JSON with each member once"))?;
        let members = json.as_object().ok_or(JwtError::Malformed("has a header that is not an object"))?;
        if REFUSED.iter().any(|name| members.contains_key(*name)) {
            return Err(JwtError::Malformed(
                "has a header with `jku`, `jwk`, `x5u`, `x5c`, `b64`, `zip`, `crit` or `cty`",
            ));
        }
        let algorithm = members.get("alg").and_then(Json::as_text).and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or(JwtError::Malformed("has an algorithm that is not known here"))?;
        let kid = match members.get("kid") {
            None => None,
            Some(Json::Text(kid)) if (1..=MAX_KID).contains(&kid.len()) => Some(kid.clone()),
            Some(_) => return Err(JwtError::Malformed("has a `kid` that is not a text of at most 256 bytes")),
        };
        let typ = match members.get("typ") {
            None => None,
            Some(Json::Text(typ)) if ["JWT", "JOSE"].iter().any(|usual| typ.eq_ignore_ascii_case(usual)) => None,
            Some(Json::Text(typ)) => Some(typ.clone()),
            Some(_) => return Err(JwtError::Malformed("has a `typ` that is not a text")),
        };
        Ok(Self { algorithm, kid, typ })
    }
}
