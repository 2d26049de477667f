//! That a call was passed on by a server on the same database: a code over who called what and when, keyed with what the
//! database tells its servers and nobody else. The key itself never leaves them, and changes with each lead.

use crate::clock::wall_ms;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::Write as _;

/// How far the clocks of two servers may be apart, and how long a proof may be on its way.
const WINDOW_MS: i64 = 60_000;

type Code = Hmac<Sha256>;

/// Without a key there is none.
fn code(key: &str, path: &str, caller: &str, at_ms: i64) -> Option<Code> {
    if key.is_empty() {
        return None;
    }
    let mut code = Code::new_from_slice(key.as_bytes()).ok()?;
    // No part has a zero in it.
    for part in [path, caller, &at_ms.to_string()] {
        code.update(part.as_bytes());
        code.update(&[0]);
    }
    Some(code)
}

/// A proof, made now.
pub(crate) fn make(key: &str, path: &str, caller: &str) -> Option<String> {
    at(key, path, caller, wall_ms())
}

fn at(key: &str, path: &str, caller: &str, at_ms: i64) -> Option<String> {
    let code = code(key, path, caller, at_ms)?.finalize().into_bytes();
    let mut text = format!("{at_ms}.");
    for byte in code {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

/// Whether this is one.
pub(crate) fn holds(key: &str, path: &str, caller: &str, proof: &str) -> bool {
    let check = || {
        let (at, hex) = proof.split_once('.')?;
        let at: i64 = at.parse().ok()?;
        let near = wall_ms().checked_sub(at)?.checked_abs()? <= WINDOW_MS;
        let bytes: Option<Vec<u8>> =
            hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        // Compared in constant time.
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
