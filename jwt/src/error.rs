//! Why a token gives no identity.

use std::sync::Arc;

/// Why a token gives no identity. No value of the token is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The token has another form, or a part of it that is refused. The text is the end of a sentence.
    #[error("the token {0}")]
    Malformed(&'static str),
    /// No issuer of the configuration has the token's `iss`.
    #[error("no issuer of the configuration has the token's `iss`")]
    UnknownIssuer,
    /// The issuer has no key with the token's `kid`.
    #[error("the issuer {0} has no key with the token's `kid`")]
    UnknownKey(Arc<str>),
    /// The algorithm is not one of the issuer's, does not fit the key, or the signature is wrong.
    #[error("the signature of the token is not one of the issuer {0}")]
    Signature(Arc<str>),
    /// The token is for another audience, or for others too. The audience that is wanted.
    #[error("the token is not for the audience {0} alone")]
    Audience(Arc<str>),
    /// The token has expired.
    #[error("the token has expired")]
    Expired,
    /// The token is not valid yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token is valid for longer than the issuer's tokens may be.
    #[error("the token is valid for longer than the configuration allows")]
    Lifetime,
    /// A certificate of the client is bound to the token, and the connection has another one or none.
    #[error("the token is bound to a certificate that the connection does not have")]
    Bound,
    /// No grant of the issuer holds for the token's claims. The text is for the log of the server.
    #[error("no grant of the issuer {issuer} holds: {detail}")]
    NoGrant {
        /// The name of the issuer.
        issuer: Arc<str>,
        /// The claim at fault.
        detail: String,
    },
    /// Grants that hold have several tenants.
    #[error("grants of the issuer {issuer} hold for the tenants {}", tenants.join(", "))]
    TenantAmbiguous {
        /// The name of the issuer.
        issuer: Arc<str>,
        /// The tenants.
        tenants: Vec<Arc<str>>,
    },
    /// The keys of the issuer could not be fetched yet, or not for too long.
    #[error("the keys of the issuer {issuer} are not available")]
    KeysUnavailable {
        /// The name of the issuer.
        issuer: Arc<str>,
        /// Seconds until the next try.
        retry_seconds: u32,
    },
}

impl JwtError {
    /// Whether another look at the issuer's keys may help.
    pub fn wants_keys(&self) -> bool {
        matches!(self, JwtError::UnknownKey(_) | JwtError::KeysUnavailable { .. })
    }
}
