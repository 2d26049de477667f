//! Times. They are absolute, so that a screen changes only with what it shows; the script adds how long ago that was.

use crate::clock::wall;
pub(crate) use crate::overview::instant;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

/// The time of day at the server, with the date if it is another day.
pub(crate) fn time(at: Option<&prost_types::Timestamp>) -> Markup {
    let Some(at) = instant(at) else { return html! { span.none { "–" } } };
    let zone = TimeZone::system();
    let (then, today) = (zone.to_datetime(at), zone.to_datetime(Timestamp::try_from(wall()).unwrap_or_default()));
    let format = if then.date() == today.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    html! { time datetime=(format!("{at:.3}")) title=(format!("{at:.3}")) { (then.strftime(format)) } }
}

/// A length of time, in its two largest units.
pub(crate) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_whenever_it_is_written() {
        let at = prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 };
        let page = time(Some(&at)).into_string();
        assert!(page.starts_with("<time datetime=\"2023-11-14T22:13:20.005Z\""), "{page}");
        assert_eq!(page, time(Some(&at)).into_string());
        assert_eq!(time(None).into_string(), "<span class=\"none\">–</span>");
        assert_eq!([5, 120, 7_200, 172_800].map(span), ["5 s", "2 min", "2 h", "2 d"]);
    }
}
