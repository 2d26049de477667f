//! Lines of announcements on hosts, for `fuzz/` and the inputs that it kept.

use crate::announce::{Board, News, dated};

/// Two readings of one file, the second with the line dated: what is announced does not move.
pub fn announcement(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let line = text.lines().next().unwrap_or_default();
    let written = 1_900_000_000;
    let once = dated(line, written);
    assert_eq!(dated(&once, written + 60), once, "a dated line stays as it is");
    let mut board = Board::default();
    let mut hear = || board.hear("file", &once, written + 5, 1_900_000_005_000);
    assert!(matches!(hear(), News::Tell { .. } | News::Unreadable(_)));
    assert_eq!(hear(), News::Nothing, "the second time");
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_input_finds_a_fault() {
        let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        wharfinger_testkit::replay(repository.as_ref(), "announcement", super::announcement);
    }
}
