//! Texts of others: holders, works, notes, reasons, output of hosts.

use crate::hidden::is_hidden;

/// Maximum number of characters of a text that are shown at first.
pub(crate) const CLIP: usize = 300;

/// The text with every character visible that a browser or a terminal would obey or hide.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push('⏎'),
            '\t' => shown.push(' '),
            c if is_hidden(c) => shown.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

/// The beginning of a text, visible, with a sign if there is more.
pub(crate) fn clipped(text: &str) -> String {
    match text.char_indices().nth(CLIP) {
        Some((end, _)) => visible(text.get(..end).unwrap_or_default()) + "…",
        None => visible(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_hidden_or_obeyed() {
        assert_eq!(visible("a\u{202e}b\u{0}c\u{200b}\u{1b}[2J\nd"), "a\\u{202e}b\\u{0}c\\u{200b}\\u{1b}[2J⏎d");
        assert_eq!(visible("größe 日本 ✓"), "größe 日本 ✓");
    }

    #[test]
    fn a_long_text_is_clipped() {
        assert_eq!(clipped(&"ä".repeat(301)).chars().count(), 301);
        assert_eq!(clipped(&"ä".repeat(300)).chars().count(), 300);
    }
}
