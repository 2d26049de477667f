//! The keys of an issuer (RFC 7517). A key that is not safe here is left out, with the reason.

use crate::compact::decode;
use crate::json::Json;
use crate::{Algorithm, JwtError};
use std::collections::BTreeMap;

/// Maximum number of keys in a set.
pub(crate) const MAX_KEYS: usize = 64;
/// Bounds of an RSA modulus in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Maximum length of an RSA exponent in bytes.
const MAX_EXPONENT: usize = 4;

/// A public key of an issuer.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The only algorithm that it is for.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) material: Material,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point on the curve, uncompressed.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.material {
            Material::Rsa { .. } => "RSA",
            Material::P256(_) => "P-256",
            Material::P384(_) => "P-384",
            Material::Ed25519(_) => "Ed25519",
        };
        f.debug_struct("Key").field("kind", &kind).field("algorithm", &self.algorithm).finish()
    }
}

/// The keys of an issuer, by `kid`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    named: BTreeMap<String, Key>,
    unnamed: Vec<Key>,
    left_out: Vec<String>,
}

/// The fault of a key set as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is not a JSON Web Key Set.
    #[error("is not a JSON Web Key Set: an object with a list `keys`, each member once")]
    Form,
    /// It has too many keys.
    #[error("has {0} keys; at most {MAX_KEYS} are taken")]
    TooMany(usize),
    /// No key of it can be used.
    #[error("has no key that can be used ({})", if .0.is_empty() { "it is empty".into() } else { .0.join("; ") })]
    Empty(Vec<String>),
}

impl KeySet {
    /// Reads a set.
    ///
    /// # Errors
    /// [`KeySetError`]: nothing of it can be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        let json = Json::parse(bytes).map_err(|_| KeySetError::Form)?;
        let list = json.as_object().and_then(|set| set.get("keys")?.as_list()).ok_or(KeySetError::Form)?;
        if list.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(list.len()));
        }
        let mut set = KeySet::default();
        let mut twice = Vec::new();
        for (at, entry) in list.iter().enumerate() {
            let kid = entry.as_object().and_then(|key| key.get("kid")?.as_text());
            match (Key::parse(entry), kid) {
                (Ok(key), Some(kid)) => {
                    if set.named.insert(kid.to_owned(), key).is_some() {
                        twice.push(kid.to_owned());
                    }
                }
                (Ok(key), None) => set.unnamed.push(key),
                (Err(why), _) => set.left_out.push(format!("key {} {why}", at + 1)),
            }
        }
        for kid in twice {
            // Nothing says which of them is meant.
            set.named.remove(&kid);
            set.left_out.push("two keys have one `kid`".to_owned());
        }
        if set.named.is_empty() && set.unnamed.is_empty() {
            return Err(KeySetError::Empty(set.left_out));
        }
        Ok(set)
    }

    /// The key that a header means. Without a `kid` the set must have one key only.
    pub(crate) fn get(&self, kid: Option<&str>) -> Option<&Key> {
        match kid {
            Some(kid) => self.named.get(kid),
            None => {
                let mut all = self.named.values().chain(&self.unnamed);
                all.next().filter(|_| all.next().is_none())
            }
        }
    }

    /// Whether it has this key, under any name.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.named.values().chain(&self.unnamed).any(|known| known == key)
    }

    /// The reasons for which keys were left out.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The number of keys that can be used.
    pub fn len(&self) -> usize {
        self.named.len() + self.unnamed.len()
    }

    /// Whether no key can be used. No set that was read is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Key {
    /// Reads one key. The error is the end of a sentence.
    fn parse(json: &Json) -> Result<Self, &'static str> {
        let members = json.as_object().ok_or("is not an object")?;
        let text = |name: &str| members.get(name).and_then(Json::as_text);
        let bytes =
            |name: &str| text(name).and_then(|text| decode(text).ok()).ok_or("has a member that is not base64url");
        if members.get("use").is_some_and(|usage| usage.as_text() != Some("sig")) {
            return Err("is not for signatures (`use`)");
        }
        if members
            .get("key_ops")
            .is_some_and(|ops| !ops.as_list().unwrap_or_default().iter().any(|op| op.as_text() == Some("verify")))
        {
            return Err("is not for signatures (`key_ops`)");
        }
        if members.contains_key("d") {
            return Err("is a private key, which its issuer has shown to all");
        }
        let algorithm = match members.get("alg") {
            None => None,
            Some(name) => Some(name.as_text().and_then(Algorithm::parse).ok_or("has an `alg` that is not taken")?),
        };
        let material = match (text("kty"), text("crv")) {
            (Some("RSA"), _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                check_rsa(&n, &e)?;
                Material::Rsa { n, e }
            }
            (Some("EC"), Some("P-256")) => Material::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
            (Some("EC"), Some("P-384")) => Material::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
            (Some("OKP"), Some("Ed25519")) => {
                let x = bytes("x")?;
                if x.len() != 32 {
                    return Err("is not 32 bytes long");
                }
                Material::Ed25519(x)
            }
            (Some("oct"), _) => return Err("is symmetric (`oct`), so that all who read it could sign"),
            _ => return Err("is of a kind that is not taken"),
        };
        let key = Self { algorithm, material };
        if key.algorithm.is_some_and(|algorithm| !key.fits(algorithm)) {
            return Err("has an `alg` that does not fit its kind");
        }
        Ok(key)
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        match (&self.material, algorithm) {
            (Material::Rsa { .. }, Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512 | Algorithm::Ps256)
            | (Material::P256(_), Algorithm::Es256)
            | (Material::P384(_), Algorithm::Es384)
            | (Material::Ed25519(_), Algorithm::EdDsa) => true,
            (Material::Rsa { .. } | Material::P256(_) | Material::P384(_) | Material::Ed25519(_), _) => false,
        }
    }

    /// Checks the signature of a token.
    pub(crate) fn check(
        &self,
        algorithm: Algorithm,
        signed: &str,
        signature: &[u8],
        issuer: &std::sync::Arc<str>,
    ) -> Result<(), JwtError> {
        if algorithm.verifies(self, signed.as_bytes(), signature) {
            Ok(())
        } else {
            Err(JwtError::Signature(issuer.clone()))
        }
    }
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), &'static str> {
    let (Some(first), Some(last)) = (n.first(), n.last()) else { return Err("has no modulus") };
    if *first == 0 {
        return Err("has a modulus with zeros in front");
    }
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if !RSA_BITS.contains(&bits) {
        return Err("has an RSA modulus of fewer than 2048 or more than 8192 bits");
    }
    if last % 2 == 0 {
        return Err("has an RSA modulus that is even");
    }
    let exponent = e.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    if e.is_empty() || e.len() > MAX_EXPONENT || e[0] == 0 || exponent < 3 || exponent % 2 == 0 {
        return Err("has an RSA exponent that is not an odd number from 3 on");
    }
    Ok(())
}

fn point(x: &[u8], y: &[u8], length: usize) -> Result<Vec<u8>, &'static str> {
    if x.len() != length || y.len() != length {
        return Err("has coordinates of another length than its curve");
    }
    Ok([&[4], x, y].concat())
}
