//! When a request is likely to start, in words, for the command line, the terminal and the page.

use crate::pb;
use std::borrow::Cow;

/// The range in words: `in 4 to 9 min`, `within 40 s`.
pub(crate) fn range(start: &pb::LikelyStart) -> String {
    let seconds = |span: &Option<prost_types::Duration>| span.as_ref().map_or(0, |span| span.seconds.max(0));
    let (from, to) = (seconds(&start.earliest), seconds(&start.latest));
    // The unit of the end, in which the end is rounded up.
    let (size, unit) = match to {
        0..=119 => (1, "s"),
        120..=7_199 => (60, "min"),
        _ => (3_600, "h"),
    };
    let (first, last) = (from / size, to / size + i64::from(to % size > 0 || to == 0));
    if first == last {
        format!("in {last} {unit}")
    } else if first == 0 || from < 5 {
        format!("within {last} {unit}")
    } else {
        format!("in {first} to {last} {unit}")
    }
}

/// The reason for which no start is known, in words; an unknown code as it is.
pub(crate) fn unknown(code: &str) -> Cow<'_, str> {
    Cow::Borrowed(match code {
        "NEVER" => "the configuration can never meet it",
        "QUOTA" => "the quota of its tenant keeps it waiting",
        "DELAYED" => "it is put off for a time",
        "CLOSED" => "each pool that could serve it is closed",
        "BRAKED" => "the brake of each pool that could serve it is on",
        "UNFIT" => "what is free may not serve it now",
        "MIXED" => "it wants different slots at once",
        "UNKNOWN" => "too little is known of how long the leases there take",
        "FAR" => "too many go before it",
        other => other,
    })
}

/// Both in one text; empty for a request that has neither.
pub(crate) fn said(start: Option<&pb::LikelyStart>, code: &str) -> String {
    match (start, code) {
        (Some(start), _) => format!("{} ({})", range(start), start.basis),
        (None, "") => String::new(),
        (None, code) => format!("not known: {}", unknown(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(from: i64, to: i64) -> pb::LikelyStart {
        let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        pb::LikelyStart { earliest: span(from), latest: span(to), basis: "1 slot".into() }
    }

    #[test]
    fn a_range_has_the_unit_of_its_end() {
        for (from, to, text) in [
            (0, 0, "within 1 s"),
            (2, 40, "within 40 s"),
            (20, 40, "in 20 to 40 s"),
            (60, 60, "in 60 s"),
            (30, 300, "within 5 min"),
            (240, 541, "in 4 to 10 min"),
            (3_600, 7_200, "in 1 to 2 h"),
            (1_800, 90_000, "within 25 h"),
        ] {
            assert_eq!(range(&start(from, to)), text);
        }
        assert_eq!(said(Some(&start(240, 540)), ""), "in 4 to 9 min (1 slot)");
        assert_eq!((said(None, ""), said(None, "NEW_CODE")), (String::new(), "not known: NEW_CODE".into()));
    }

    /// A code that is added to the core and forgotten here is found by this.
    #[cfg(feature = "server")]
    #[test]
    fn each_code_of_the_core_has_its_words() {
        for code in wharfinger_core::NoStart::ALL {
            assert_ne!(unknown(code.as_str()), code.as_str());
        }
    }
}
