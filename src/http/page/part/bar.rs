//! A bar of parts of a whole, with the same in words.

use maud::{Markup, html};

/// A bar. Each part has a class of colour, a word and a number; parts of nothing are left out.
pub(crate) fn bar(parts: &[(&str, &str, i32)]) -> Markup {
    let parts: Vec<_> = parts.iter().filter(|(_, _, count)| *count > 0).collect();
    let all: i32 = parts.iter().map(|(_, _, count)| count).sum();
    let words: Vec<String> = parts.iter().map(|(_, word, count)| format!("{count} {word}")).collect();
    let label = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
    let mut at = 0;
    html! {
        svg.bar role="img" aria-label=(label) viewBox=(format!("0 0 {} 1", all.max(1))) preserveAspectRatio="none" {
            rect.none x="0" y="0" width=(all.max(1)) height="1" {}
            @for (class, _, count) in &parts {
                rect.(class) x=(at) y="0" width=(count) height="1" {}
                ({ at += count; "" })
            }
        }
        span.words { (label) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_fill_the_bar_and_are_said() {
        let page = bar(&[("good", "free", 2), ("bad", "gone", 0), ("busy", "leased", 3)]).into_string();
        assert!(page.contains("aria-label=\"2 free, 3 leased\""), "{page}");
        assert!(page.contains("<rect class=\"busy\" x=\"2\" y=\"0\" width=\"3\""), "{page}");
        assert!(bar(&[]).into_string().contains("nothing"));
    }
}
