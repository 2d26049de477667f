//! Texts of others: holders, works, notes, reasons, output of hosts.

use super::link::subject;
use super::time::time;
pub(crate) use crate::overview::{CLIP, clipped, visible};
use crate::pb;
use maud::{Markup, html};

/// A text of others. A long one opens.
pub(crate) fn others(text: &str) -> Markup {
    const OPENED: usize = 4_096;
    html! {
        @if text.chars().nth(CLIP).is_some() {
            details.more {
                summary { bdi { (clipped(text)) } }
                @let end = text.char_indices().nth(OPENED).map_or(text.len(), |(end, _)| end);
                bdi { (visible(text.get(..end).unwrap_or_default())) @if end < text.len() { "… (" (text.len()) " bytes)" } }
            }
        } @else {
            bdi { (visible(text)) }
        }
    }
}

/// A number of things: `1 lease`, `2 leases`.
pub(crate) fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// The request of a lease, in words: `pool farm, os=linux`.
pub(crate) fn selector(selector: Option<&pb::Selector>) -> String {
    let Some(selector) = selector else { return "anything".into() };
    let pool = (!selector.pool.is_empty()).then(|| format!("pool {}", selector.pool));
    let mut labels: Vec<String> = selector.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort_unstable();
    let parts: Vec<String> = pool.into_iter().chain(labels).collect();
    if parts.is_empty() { "anything".into() } else { parts.join(", ") }
}

/// A chain of causes, the nearest one first.
pub(crate) fn causes(causes: &[pb::Cause]) -> Markup {
    html! {
        ol.causes {
            @for cause in causes {
                li {
                    b { (visible(&cause.reason)) } " " (subject(&cause.subject)) ": " (others(&cause.detail))
                    " " span.said { "said by " bdi { (clipped(&cause.source)) } ", " (time(cause.at.as_ref())) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_no_markup() {
        let page = others("\"><script>alert(1)</script>&").into_string();
        assert_eq!(page, "<bdi>&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;</bdi>");
    }

    #[test]
    fn a_long_text_is_clipped_and_opens() {
        let page = others(&"ä".repeat(1_000_000)).into_string();
        assert!(page.len() < 20_000, "{}", page.len());
        assert!(page.contains("<details") && page.contains("(2000000 bytes)"));
    }
}
