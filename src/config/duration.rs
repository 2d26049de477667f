//! Lengths of time in the configuration, as the core counts them.

use wharfinger_core::Millis;

/// Reads a length of time.
///
/// # Errors
/// The fault and the remedy, as the end of a sentence.
pub fn parse(text: &str) -> Result<Millis, String> {
    crate::duration::parse(text).map(Millis)
}

/// Writes a length of time; [`parse`] reads the same value from it.
pub fn format(span: Millis) -> String {
    crate::duration::format(span.0)
}
