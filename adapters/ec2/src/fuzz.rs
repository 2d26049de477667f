//! Bodies of messages in a queue, for `fuzz/` and the inputs that it kept.

use crate::notices::read;

/// The body of a message: it has at least one event, and says the same twice.
pub fn sqs(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let events = read(text, 1_900_000_000_000);
    assert!(!events.is_empty());
    assert_eq!(format!("{events:?}"), format!("{:?}", read(text, 1_900_000_000_000)));
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_input_finds_a_fault() {
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        wharfinger_testkit::replay(repository.as_ref(), "sqs", super::sqs);
    }
}
