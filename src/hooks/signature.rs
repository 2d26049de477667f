//! Signatures of messages as of Standard Webhooks 1.0 (https://www.standardwebhooks.com), symmetric: HMAC-SHA256.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt;

/// Bounds of a secret in bytes, as the standard has them.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that signs.
pub struct Secret(Vec<u8>);

/// The fault of a secret, as the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// It is no base64.
    #[error("is not `whsec_` and base64")]
    Form,
    /// Its length.
    #[error("has fewer than 24 or more than 64 bytes")]
    Length,
}

impl Secret {
    /// Reads `whsec_BASE64`, or the base64 alone.
    ///
    /// # Errors
    /// [`SecretFault`].
    pub fn parse(text: &str) -> Result<Self, SecretFault> {
        let text = text.trim();
        let bytes = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).map_err(|_| SecretFault::Form)?;
        if LENGTH.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(SecretFault::Length) }
    }

    /// The value of `webhook-signature` for a message with this id at this time, in seconds since 1970.
    pub fn sign(&self, id: &str, at: u64, body: &[u8]) -> String {
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{at}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's own test vectors.
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(Secret::parse("whsec_YWJj").err(), Some(SecretFault::Length));
        assert_eq!(Secret::parse("not base64!").err(), Some(SecretFault::Form));
    }
}
