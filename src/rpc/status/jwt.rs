//! Refusals of tokens of issuers. None repeats a value of the token, or says which claims would do.

use super::Answer;
use std::time::Duration;
use tonic::{Code, Status};
use wharfinger_jwt::JwtError;

/// The status of a call whose token gives no identity.
pub(super) fn refused(error: JwtError) -> Status {
    let answer = match error {
        JwtError::Malformed(why) => {
            Answer::new(Code::Unauthenticated, "MALFORMED_CREDENTIALS", format!("the token {why}"))
        }
        JwtError::UnknownIssuer => Answer::new(
            Code::Unauthenticated,
            "UNKNOWN_ISSUER",
            "this server does not take tokens of this issuer: `iss` must be equal to an `issuer` of its configuration, byte \
             for byte"
                .into(),
        ),
        JwtError::UnknownKey(issuer) => Answer::new(
            Code::Unauthenticated,
            "UNKNOWN_KEY",
            format!("the issuer {issuer} has no key with the token's `kid`; new keys are looked for every 30 s"),
        ),
        JwtError::Signature(issuer) => Answer::new(
            Code::Unauthenticated,
            "SIGNATURE",
            format!("the token's signature is not one of the issuer {issuer}, by one of its algorithms"),
        ),
        JwtError::Audience(audience) => Answer::new(
            Code::Unauthenticated,
            "AUDIENCE_MISMATCH",
            format!("the token is for others: ask the issuer for one with the audience {audience} alone"),
        )
        .with("audience", audience),
        JwtError::Expired => Answer::new(
            Code::Unauthenticated,
            "TOKEN_EXPIRED",
            "the token has expired: ask its issuer for a new one".into(),
        ),
        JwtError::NotYetValid => Answer::new(
            Code::Unauthenticated,
            "TOKEN_NOT_YET_VALID",
            "the token is not valid yet: are the clocks of this server and of the issuer right?".into(),
        ),
        JwtError::Lifetime => Answer::new(
            Code::Unauthenticated,
            "LIFETIME",
            "the token is valid for longer than `max_lifetime` of its issuer: ask for one that ends sooner".into(),
        ),
        JwtError::Bound => Answer::new(
            Code::Unauthenticated,
            "TOKEN_BOUND",
            "the token is bound to a certificate: connect with that certificate".into(),
        ),
        JwtError::NoGrant { issuer, .. } => Answer::new(
            Code::PermissionDenied,
            "NO_GRANT",
            format!("no grant of the issuer {issuer} holds for the claims of this token: ask the operator, whose log has the claim"),
        ),
        JwtError::TenantAmbiguous { issuer, .. } => Answer::new(
            Code::PermissionDenied,
            "TENANT_AMBIGUOUS",
            format!("grants of the issuer {issuer} hold that name several tenants: ask the operator to narrow them"),
        ),
        JwtError::KeysUnavailable { issuer, retry_seconds } => Answer::new(
            Code::Unavailable,
            "KEYS_UNAVAILABLE",
            format!("the keys of the issuer {issuer} cannot be fetched now, so that no token of it can be checked; try again"),
        )
        .retry(Duration::from_secs(retry_seconds.into())),
    };
    answer.status()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt;

    #[test]
    fn a_refusal_says_who_must_act_and_shows_no_claims() {
        let no_grant = JwtError::NoGrant { issuer: "github".into(), detail: "the claim \"secret_claim\"".into() };
        let tenants = JwtError::TenantAmbiguous { issuer: "github".into(), tenants: vec!["secret_team".into()] };
        for (error, code, reason) in [
            (no_grant, Code::PermissionDenied, "NO_GRANT"),
            (tenants, Code::PermissionDenied, "TENANT_AMBIGUOUS"),
            (JwtError::Audience("https://w".into()), Code::Unauthenticated, "AUDIENCE_MISMATCH"),
            (JwtError::Expired, Code::Unauthenticated, "TOKEN_EXPIRED"),
            (JwtError::UnknownKey("github".into()), Code::Unauthenticated, "UNKNOWN_KEY"),
        ] {
            let status = refused(error);
            let info = status.get_details_error_info().unwrap();
            assert_eq!((status.code(), info.reason.as_str()), (code, reason));
            assert!(!status.message().contains("secret"), "{}", status.message());
            assert_eq!(
                info.metadata.get("audience").map(String::as_str),
                (reason == "AUDIENCE_MISMATCH").then_some("https://w")
            );
        }
        let keys = refused(JwtError::KeysUnavailable { issuer: "github".into(), retry_seconds: 3 });
        assert_eq!(keys.code(), Code::Unavailable, "an agent comes back");
        let delay = keys.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_secs(3)));
    }
}
