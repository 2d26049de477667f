//! The proof that a server on the same database forwarded a call: an HMAC over path, identity, time and message. Its key is
//! in the database, so that only its servers have it. The key never travels. Each lead draws a new one, so that a proof holds
//! at one server, and there for one lead.
//!
//! `make` and `holds` are the proof of the release before, over path, caller and time. It goes with the next release.

use crate::auth::{hex, unhex};
use crate::clock::wall_ms;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Maximum age of a proof, with the difference of two servers' clocks.
const WINDOW_MS: i64 = 60_000;

type Code = Hmac<Sha256>;

/// The HMAC. `None`: there is no key.
fn code(key: &str, path: &str, caller: &str, at_ms: i64) -> Option<Code> {
    if key.is_empty() {
        return None;
    }
    let mut code = Code::new_from_slice(key.as_bytes()).ok()?;
    // The parts hold no zero byte, so that a zero separates them.
    for part in [path, caller, &at_ms.to_string()] {
        code.update(part.as_bytes());
        code.update(&[0]);
    }
    Some(code)
}

/// Makes a proof with the present time.
pub(crate) fn make(key: &str, path: &str, caller: &str) -> Option<String> {
    at(key, path, caller, wall_ms())
}

fn at(key: &str, path: &str, caller: &str, at_ms: i64) -> Option<String> {
    let code = code(key, path, caller, at_ms)?.finalize().into_bytes();
    let mut text = format!("{at_ms}.");
    for byte in code {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

/// Whether the proof is valid.
pub(crate) fn holds(key: &str, path: &str, caller: &str, proof: &str) -> bool {
    let check = || {
        let (at, hex) = proof.split_once('.')?;
        let at: i64 = at.parse().ok()?;
        let near = wall_ms().checked_sub(at)?.checked_abs()? <= WINDOW_MS;
        let bytes: Option<Vec<u8>> =
            hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        // Compares in constant time.
        let same = code(key, path, caller, at)?.verify_slice(&bytes?).is_ok();
        Some(near && same)
    };
    check().unwrap_or(false)
}

/// The HMAC of a seal. Each part stands behind its length, so that no other parts have the same bytes.
fn seal_code(key: &str, path: &str, identity: &str, message: &[u8], at_ms: i64) -> Option<Code> {
    if key.is_empty() {
        return None;
    }
    let mut code = Code::new_from_slice(key.as_bytes()).ok()?;
    for part in [&b"wharfinger pass v2"[..], path.as_bytes(), identity.as_bytes(), &at_ms.to_be_bytes()] {
        code.update(&(part.len() as u64).to_be_bytes());
        code.update(part);
    }
    code.update(&Sha256::digest(message));
    Some(code)
}

/// Seals a call with the present time.
pub(crate) fn seal(key: &str, path: &str, identity: &str, message: &[u8]) -> Option<String> {
    seal_at(key, path, identity, message, wall_ms())
}

fn seal_at(key: &str, path: &str, identity: &str, message: &[u8], at_ms: i64) -> Option<String> {
    let code = seal_code(key, path, identity, message, at_ms)?.finalize().into_bytes();
    Some(format!("{at_ms}.{}", hex(&code)))
}

/// Whether the seal is valid.
pub(crate) fn is_sealed(key: &str, path: &str, identity: &str, message: &[u8], seal: &str) -> bool {
    let check = || {
        let (at, code) = seal.split_once('.')?;
        let at: i64 = at.parse().ok()?;
        let near = wall_ms().checked_sub(at)?.checked_abs()? <= WINDOW_MS;
        // Compares in constant time.
        let same = seal_code(key, path, identity, message, at)?.verify_slice(&unhex(code)?).is_ok();
        Some(near && same)
    };
    check().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_one_key_path_identity_and_message_and_for_a_minute() {
        let sealed = seal("key", "/a/B", "id", b"message").unwrap();
        assert!(is_sealed("key", "/a/B", "id", b"message", &sealed));
        for (key, path, identity, message) in [
            ("other", "/a/B", "id", &b"message"[..]),
            ("key", "/a/C", "id", b"message"),
            ("key", "/a/B", "ib", b"message"),
            ("key", "/a/B", "", b"message"),
            ("key", "/a/Bi", "d", b"message"),
            ("key", "/a/B", "id", b"massage"),
            ("key", "/a/B", "id", b""),
        ] {
            assert!(!is_sealed(key, path, identity, message, &sealed), "{key} {path} {identity} {message:?}");
        }
        for shift in [-WINDOW_MS - 1000, WINDOW_MS + 1000] {
            let other = seal_at("key", "/a/B", "id", b"message", wall_ms() + shift).unwrap();
            assert!(!is_sealed("key", "/a/B", "id", b"message", &other), "{shift} ms");
        }
        let near = seal_at("key", "/a/B", "id", b"message", wall_ms() - WINDOW_MS + 10_000).unwrap();
        assert!(is_sealed("key", "/a/B", "id", b"message", &near));
        let (at, code) = sealed.split_once('.').unwrap();
        let later = format!("{}.{code}", at.parse::<i64>().unwrap() + 1);
        for wrong in ["", ".", "1.", "x.y", &later, &sealed.to_uppercase(), &sealed[..sealed.len() - 2]] {
            assert!(wrong == sealed || !is_sealed("key", "/a/B", "id", b"message", wrong), "{wrong}");
        }
        // The former proof is none of this one, nor the other way round.
        let former = make("key", "/a/B", "id").unwrap();
        assert!(!is_sealed("key", "/a/B", "id", b"", &former) && !holds("key", "/a/B", "id", &sealed));
        assert_eq!(seal("", "/a/B", "id", b""), None);
        assert!(!is_sealed("", "/a/B", "id", b"", "1.00"));
    }

    #[test]
    fn only_who_has_the_key_can_prove_and_only_for_what_it_says() {
        let proof = make("key", "/a/B", "local").unwrap();
        assert!(holds("key", "/a/B", "local", &proof));
        for (key, path, caller) in [("other", "/a/B", "local"), ("key", "/a/C", "local"), ("key", "/a/B", "root")] {
            assert!(!holds(key, path, caller, &proof));
        }
        let old = at("key", "/a/B", "local", wall_ms() - WINDOW_MS - 1000).unwrap();
        assert!(!holds("key", "/a/B", "local", &old));
        for wrong in ["", ".", "x.y", "1.", &proof[..proof.len() - 2], &format!("{proof}00"), "9223372036854775807.aa"]
        {
            assert!(!holds("key", "/a/B", "local", wrong), "{wrong}");
        }
    }

    #[test]
    fn no_key_proves_nothing() {
        assert_eq!(make("", "/a/B", "local"), None);
        assert!(!holds("", "/a/B", "local", "1.00"));
    }
}
