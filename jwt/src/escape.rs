//! Texts of claims within other texts: each byte but letters, digits, `.`, `_` and `-` as `%XX`.

use std::fmt::Write as _;

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Appends the only escaped form of a text.
pub(crate) fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if is_plain(byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// Reads [`escape`]. Another form than the only one is refused.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    let found = String::from_utf8(bytes).ok()?;
    let mut again = String::with_capacity(text.len());
    escape(&found, &mut again);
    (again == text).then_some(found)
}
