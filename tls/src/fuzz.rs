//! Parsers of certificates and names that strangers feed, for `fuzz/` and the inputs that it kept.

use crate::leaf::Leaf;
use crate::spiffe::{Pattern, Uri};

/// A certificate as DER, and a name as text.
pub fn leaf(data: &[u8]) {
    if let Ok(leaf) = Leaf::parse(data) {
        assert_eq!(Uri::parse(leaf.uri.as_str()).as_ref(), Ok(&leaf.uri));
        assert_eq!(leaf.fingerprint.len(), 64);
        assert!(!leaf.serial.is_empty() && leaf.serial.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(uri) = Uri::parse(text) {
        assert_eq!(uri.as_str(), text);
        assert_eq!(format!("spiffe://{}{}", uri.domain(), uri.path()), text);
        // The sign that separates a name from a serial number.
        assert!(!text.contains('#') && text.is_ascii());
        assert!(Pattern::parse(text).is_ok_and(|pattern| pattern.has(&uri)));
    }
    if let Ok(Pattern::Prefix(prefix)) = Pattern::parse(text) {
        let below = Uri::parse(&format!("{prefix}x"));
        assert!(below.is_ok_and(|uri| Pattern::Prefix(prefix).has(&uri)));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_input_finds_a_fault() {
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        wharfinger_testkit::replay(repository.as_ref(), "leaf", super::leaf);
    }
}
