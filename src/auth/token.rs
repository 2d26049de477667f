//! Static tokens: `wfk_<id>_<secret>_<checksum>`. A server keeps the SHA-256 of the whole text, and never the text.
//!
//! The secret has 256 random bits, so that its hash needs no salt and no slow function. The prefix and the checksum let a
//! scanner find a token in a repository, and a typing error be told before anything is looked up.

use super::Roles;
use super::identity::hex;
use crate::random::random;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::SystemTime;

/// The beginning of each token.
const PREFIX: &str = "wfk_";
/// Maximum length of an id in bytes.
const MAX_ID: usize = 32;
/// The secret in bytes; two digits each.
const SECRET: usize = 32;
/// Digits of the checksum.
const CHECK: usize = 8;
/// Hashes of one token: the present one, and another during a rotation.
const MAX_HASHES: usize = 2;

/// The SHA-256 of a token.
type Hash = [u8; 32];

/// A static token, as a server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticToken {
    /// The id: 1 to 32 of `a` to `z`, digits and `-`.
    pub id: Arc<str>,
    /// The SHA-256 of the text; two during a rotation.
    pub sha256: Vec<[u8; 32]>,
    /// The tenant of its bearer.
    pub tenant: Arc<str>,
    /// The roles of its bearer.
    pub roles: Roles,
    /// The token is refused from then on.
    pub expires: Option<SystemTime>,
}

/// A token that was just made. Its text is shown once.
pub struct NewToken {
    /// The text, for its bearer.
    pub text: String,
    /// The SHA-256 of the text, for the configuration.
    pub sha256: [u8; 32],
}

/// Why a text or a token of the configuration is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The id has other characters, or too many.
    #[error("the id {0:?} of a token must be 1 to {MAX_ID} of a to z, 0 to 9 and -")]
    Id(String),
    /// No hash, or too many.
    #[error("the token {0:?} needs one sha256, or {MAX_HASHES} while it is replaced")]
    Hashes(String),
    /// Two tokens have one id.
    #[error("two tokens have the id {0:?}")]
    Twice(String),
    /// The text has another form, or a typing error.
    #[error("this is no token: it has another form than {PREFIX}ID_SECRET_CHECKSUM, or a typing error")]
    Form,
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl StaticToken {
    /// Whether a token may have this id.
    pub fn is_id(id: &str) -> bool {
        is_id(id)
    }

    /// Checks what the configuration says of it.
    pub(super) fn check(&self) -> Result<(), TokenError> {
        if !is_id(&self.id) {
            return Err(TokenError::Id(self.id.to_string()));
        }
        if self.sha256.is_empty() || self.sha256.len() > MAX_HASHES {
            return Err(TokenError::Hashes(self.id.to_string()));
        }
        Ok(())
    }

    /// The hash of this text, if it is one of the token's. The time does not tell how much of a hash is equal.
    pub(super) fn hash_of(&self, text: &str) -> Option<Hash> {
        let hash = sha256(text);
        let same = |known: &Hash| known.iter().zip(&hash).fold(0, |other, (a, b)| other | (a ^ b)) == 0;
        self.sha256.iter().fold(false, |found, known| found | same(known)).then_some(hash)
    }
}

/// The SHA-256 of a token's text.
fn sha256(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

impl NewToken {
    /// Makes a token for this id.
    ///
    /// # Errors
    /// [`TokenError::Id`].
    pub fn make(id: &str) -> Result<Self, TokenError> {
        if !is_id(id) {
            return Err(TokenError::Id(id.to_owned()));
        }
        let secret: Vec<u8> = (0..SECRET / 8).flat_map(|_| random().to_be_bytes()).collect();
        let body = format!("{PREFIX}{id}_{}", hex(&secret));
        let text = format!("{body}_{}", checksum(&body));
        Ok(NewToken { sha256: sha256(&text), text })
    }
}

/// Prints no secret.
impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").finish_non_exhaustive()
    }
}

/// The id of a text that has the form of a token.
pub(super) fn id_of(text: &str) -> Result<&str, TokenError> {
    let read = || {
        let (body, check) = text.rsplit_once('_')?;
        let (id, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
        let digits = |text: &str, count: usize| {
            text.len() == count && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let whole = is_id(id) && digits(secret, SECRET * 2) && digits(check, CHECK) && *check == checksum(body);
        whole.then_some(id)
    };
    read().ok_or(TokenError::Form)
}

/// The first bytes of a SHA-256. It finds typing errors, and protects nothing.
fn checksum(body: &str) -> String {
    hex(&sha256(body)[..CHECK / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(new: &NewToken, id: &str) -> StaticToken {
        let sha256 = vec![new.sha256];
        StaticToken { id: id.into(), sha256, tenant: "web".into(), roles: Roles::default(), expires: None }
    }

    #[test]
    fn a_new_token_is_known_by_its_hash_and_no_other_text_is_it() {
        let new = NewToken::make("ci-7").unwrap();
        let token = known(&new, "ci-7");
        assert_eq!(id_of(&new.text), Ok("ci-7"));
        assert!(token.hash_of(&new.text) == Some(new.sha256) && !format!("{new:?} {token:?}").contains(&new.text));
        let other = NewToken::make("ci-7").unwrap();
        assert!(id_of(&other.text).is_ok() && token.hash_of(&other.text).is_none(), "another secret");
        let rotated = StaticToken { sha256: vec![new.sha256, other.sha256], ..token.clone() };
        assert_eq!([&new, &other].map(|one| rotated.hash_of(&one.text)), [&new, &other].map(|one| Some(one.sha256)));
        let mut typo = new.text.clone().into_bytes();
        typo[12] = if typo[12] == b'0' { b'1' } else { b'0' };
        let (upper, cut) = (new.text.to_uppercase(), &new.text[..new.text.len() - 1]);
        let typo = String::from_utf8(typo).unwrap();
        for wrong in ["", "wfk_", "wfk_ci-7", &typo, &upper, cut, &format!(" {}", new.text), &format!("{}0", new.text)]
        {
            assert_eq!(id_of(wrong), Err(TokenError::Form), "{wrong}");
        }
    }

    /// N33. The least time of many does not depend on the load of the machine.
    #[test]
    fn the_time_of_a_comparison_does_not_depend_on_the_characters_that_are_right() {
        let new = NewToken::make("ci-7").unwrap();
        let token = known(&new, "ci-7");
        let mut times = Vec::new();
        for right in [0, 8, 16, 24, 32, 40] {
            let from = PREFIX.len() + "ci-7_".len() + right;
            let wrong: String = new.text[from..].chars().map(|c| if c == '0' { '1' } else { '0' }).collect();
            let text = format!("{}{wrong}", &new.text[..from]);
            let least = (0..200).map(|_| {
                let begun = tokio::time::Instant::now();
                assert!((0..50).all(|_| token.hash_of(std::hint::black_box(&text)).is_none()));
                begun.elapsed()
            });
            times.push(least.min().unwrap());
        }
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*most < *least * 3 / 2, "{times:?}");
        assert!(token.hash_of(&new.text).is_some());
    }

    #[test]
    fn ids_and_hashes_are_checked() {
        for wrong in ["", "A", "a_b", "a b", "ä", &"x".repeat(33)] {
            assert_eq!(NewToken::make(wrong).unwrap_err(), TokenError::Id(wrong.to_owned()));
        }
        let new = NewToken::make("a").unwrap();
        let token = known(&new, "a");
        token.check().unwrap();
        let none = StaticToken { sha256: Vec::new(), ..token.clone() };
        let many = StaticToken { sha256: vec![new.sha256; 3], ..token.clone() };
        for wrong in [none, many] {
            assert_eq!(wrong.check(), Err(TokenError::Hashes("a".into())));
        }
        assert!(StaticToken { id: "A".into(), ..token }.check().is_err());
    }
}
