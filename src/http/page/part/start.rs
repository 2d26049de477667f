//! When a request is likely to start.

use super::text::clipped;
use super::time::time;
use crate::likely;
use crate::pb;
use maud::{Markup, html};

/// The range as two times, or the reason for which there is none. They are rounded to ten seconds, so that a screen that is rendered
/// again for another reason mostly shows the same.
pub(crate) fn likely_start(start: Option<&pb::LikelyStart>, code: &str, now: i64) -> Markup {
    const ROUND: i64 = 10;
    let at = |span: Option<&prost_types::Duration>, up: i64| {
        let seconds = (now + span.map_or(0, |span| span.seconds) + up).div_euclid(ROUND) * ROUND;
        time(Some(&prost_types::Timestamp { seconds, nanos: 0 }))
    };
    html! {
        @match start {
            Some(start) => {
                span title=(clipped(&start.basis)) {
                    (at(start.earliest.as_ref(), 0)) " to " (at(start.latest.as_ref(), ROUND - 1))
                }
            }
            None if code.is_empty() => { span.none { "–" } }
            None => { span.none { "not known: " (clipped(&likely::unknown(code))) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_times_and_else_there_is_the_reason() {
        let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let start = pb::LikelyStart { earliest: span(61), latest: span(121), basis: "\"<5 slots>".into() };
        let page = likely_start(Some(&start), "", 1_700_000_000).into_string();
        assert!(page.contains("22:14:20") && page.contains("22:15:30"), "{page}");
        assert!(page.contains("title=\"&quot;&lt;5 slots&gt;\""), "{page}");
        assert_eq!(
            page,
            likely_start(Some(&start), "", 1_700_000_001).into_string(),
            "within ten seconds it is the same"
        );
        assert_eq!(likely_start(None, "<FAR>", 0).into_string(), "<span class=\"none\">not known: &lt;FAR&gt;</span>");
        assert!(likely_start(None, "", 0).into_string().contains('–'));
    }
}
