//! The compact form of a signed token (RFC 7515, section 3.1): `HEADER.CLAIMS.SIGNATURE`, each in base64url.

use crate::JwtError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Maximum length of a token in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// The parts of a token. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compact<'t> {
    /// The bytes that are signed.
    pub(crate) signed: &'t str,
    /// The header, as JSON.
    pub(crate) header: Vec<u8>,
    /// The claims, as JSON.
    pub(crate) claims: Vec<u8>,
    /// The signature.
    pub(crate) signature: Vec<u8>,
}

impl<'t> Compact<'t> {
    /// Splits a token. Its length and form are checked before anything is decoded.
    ///
    /// # Errors
    /// [`JwtError::Malformed`].
    pub fn parse(text: &'t str) -> Result<Self, JwtError> {
        if text.len() > MAX_TOKEN {
            return Err(JwtError::Malformed("is longer than 8 KiB"));
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::Malformed("has not three parts"));
        };
        let signed = &text[..header.len() + 1 + claims.len()];
        if signature.is_empty() {
            return Err(JwtError::Malformed("has no signature"));
        }
        Ok(Self { signed, header: decode(header)?, claims: decode(claims)?, signature: decode(signature)? })
    }
}

/// Reads base64url without padding. Bits beyond the last byte must be zero, so that each text has one reading.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Malformed("is not base64url without padding"))
}
