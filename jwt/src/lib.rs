//! Identities of CI jobs by the OIDC tokens that their products issue (RFC 7519, OpenID Connect Discovery 1.0).
//!
//! * [`Verifier`] verifies tokens of several issuers, and remembers those that it verified.
//! * [`IssuerSettings`] has the rules of one issuer: algorithms, lifetime, conditions, grants, the principal's template.
//! * [`Preset`] has the usual rules of a product, and the claims that a grant of it must name.
//! * [`KeySet`] is the issuer's keys. Keys of unsafe kinds are left out when a set is read.
//! * [`Provider`] signs people in: the authorization code flow with PKCE.
//! * `source` fetches a set in the background, and stores it while the issuer is out of reach.
//!
//! Each function that judges time takes the present time as an argument.
//!
//! ```
//! # fn main() -> Result<(), wharfinger_jwt::TemplateError> {
//! use wharfinger_jwt::Template;
//! let template = Template::parse("repository/{repository_id}/run/{run_id}/{run_attempt}")?;
//! assert_eq!(template.claims().collect::<Vec<_>>(), ["repository_id", "run_id", "run_attempt"]);
//! # Ok(())
//! # }
//! ```

mod algorithm;
mod cache;
mod claims;
mod compact;
mod condition;
mod error;
mod escape;
mod fetch;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod header;
mod issuer;
mod json;
mod key;
mod preset;
mod provider;
mod source;
mod template;
mod url;
mod value;
mod verifier;

pub use algorithm::Algorithm;
pub use claims::{LEEWAY, Registered};
pub use compact::{Compact, MAX_TOKEN};
pub use condition::{Condition, Test};
pub use error::JwtError;
pub use header::Header;
pub use issuer::{Grant, Granted, IssuerSettings, Keys, Verified};
pub use json::{Json, JsonError};
pub use key::{Key, KeySet, KeySetError};
pub use preset::Preset;
pub use provider::{Begun, Pending, Provider, ProviderError, ProviderSettings};
pub use template::{Template, TemplateError};
pub use url::{HttpsUrl, UrlError};
pub use value::{Attributes, Scalar, Value};
pub use verifier::Verifier;

/// Whether a bearer's text has the form of a signed token: three parts, and not the prefix of another kind.
pub fn is_compact(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() >= 2
}
