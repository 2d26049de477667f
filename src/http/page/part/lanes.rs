//! Lanes of time: bars from one moment to another, and marks. The same is in a table below them, for those who do not see them.

use crate::http::page::screen::Screen;
use crate::overview::{Lane, Tone};
use maud::{Markup, html};

/// Width of the lanes, in units of the drawing.
const WIDTH: i64 = 1_000;
/// Height of a lane, and the gap below it.
const HEIGHT: usize = 18;
const GAP: usize = 6;
/// Width of the names.
const NAMES: i64 = 90;

/// The class of a colour.
fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Busy => "busy",
        Tone::Bad => "bad",
        Tone::Kept => "kept",
        Tone::None => "none",
        Tone::Said => "said",
    }
}

/// The lanes of a span of time, in milliseconds of the Unix epoch.
pub(crate) fn lanes(from: i64, to: i64, list: &[Lane]) -> Markup {
    let length = (to - from).max(1);
    let place = |at: i64| NAMES + (at.clamp(from, to) - from).saturating_mul(WIDTH - NAMES) / length;
    let height = list.len() * (HEIGHT + GAP);
    html! {
        svg.lanes role="group" aria-label="Lanes of time; the table below says the same" viewBox=(format!("0 0 {WIDTH} {height}")) {
            @for (n, lane) in list.iter().enumerate() {
                @let y = n * (HEIGHT + GAP);
                text x="0" y=(y + HEIGHT - 5) { (lane.name) }
                rect.none x=(NAMES) y=(y) width=(WIDTH - NAMES) height=(HEIGHT) {}
                @for mark in lane.marks.iter().filter(|mark| mark.to.unwrap_or(mark.from) >= from && mark.from <= to) {
                    @let x = place(mark.from);
                    @let drawn = html! {
                        title { (mark.title) }
                        @match mark.to {
                            Some(end) => { rect.(class(mark.tone)) x=(x) y=(y) width=((place(end) - x).max(2)) height=(HEIGHT) {} }
                            None => { circle.(class(mark.tone)) cx=(x) cy=(y + HEIGHT / 2) r="5" {} }
                        }
                    };
                    @if mark.lease.is_empty() { g { (drawn) } } @else { a href=(Screen::Lease(mark.lease.clone()).url()) aria-label=(mark.title) { (drawn) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::Mark;

    #[test]
    fn bars_stay_within_the_span_and_what_is_before_it_is_left_out() {
        let mark = |from, to| Mark { from, to, tone: Tone::Good, title: "<b>".into(), lease: String::new() };
        let lane = Lane { name: "state", marks: vec![mark(0, Some(150)), mark(10, None), mark(190, Some(900))] };
        let page = lanes(100, 200, &[lane]).into_string();
        assert_eq!(page.matches("<rect class=\"good\"").count(), 2, "{page}");
        assert!(
            page.contains("x=\"90\" y=\"0\" width=\"455\"") && page.contains("x=\"909\" y=\"0\" width=\"91\""),
            "{page}"
        );
        assert!(!page.contains("<circle") && page.contains("&lt;b&gt;"), "{page}");
    }
}
