//! The proof that a server on the same database forwarded a call: an HMAC over path, caller and time. Its key is in the
//! database, so that only its servers have it. The key never travels, and changes with each leader.

use crate::clock::wall_ms;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
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

#[cfg(test)]
mod tests {
    use super::*;

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
