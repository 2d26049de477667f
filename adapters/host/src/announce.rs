//! Announcements of a host's owner on the host itself: one line of text, and the announcements so far.
//!
//! The line is `interruption WHEN [TEXT]`, `maintenance WHEN [TEXT]`, `at-risk [TEXT]` or `gone [TEXT]`; WHEN is seconds since
//! the Unix epoch by the host's clock, `+SECONDS` from now, or `now`. No line, or an empty one: nothing is announced.

use std::collections::BTreeMap;
use wharfinger_adapter::{Failure, NoticeKind, WallTime};

/// How a line is written, for messages.
pub const HOW_TO: &str = "write one line like `maintenance +600 kernel update`: interruption or maintenance with a time \
     (seconds since 1970, +SECONDS or now), or at-risk or gone, each with a text if you like";

/// As much of a line is kept, in bytes.
const LINE_BYTES_MAX: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Seconds since the epoch by the host's clock.
    At(i64),
    /// Seconds from when it was read.
    In(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Interruption(When),
    Maintenance(When),
    AtRisk,
    Gone,
}

/// The line with a span (`+600`) made a time, counted from when it was written (seconds since the epoch): a broker that is
/// restarted reads it again, and the end does not move.
pub fn dated(line: &str, written_s: i64) -> String {
    let (word, rest) = split(line.trim());
    let (when, text) = split(rest);
    let timed = matches!(parse(line), Ok(Some((Word::Interruption(When::In(_)) | Word::Maintenance(When::In(_)), _))));
    match timed.then(|| when_of(when)) {
        Some(Ok(When::In(span))) => format!("{word} {} {text}", written_s.saturating_add(span)).trim_end().to_string(),
        Some(Ok(When::At(_)) | Err(_)) | None => line.to_string(),
    }
}

/// Reads a line; `None`: nothing is announced.
fn parse(line: &str) -> Result<Option<(Word, &str)>, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let (word, rest) = split(line);
    let timed = |make: fn(When) -> Word| {
        let (when, text) = split(rest);
        when_of(when).map(|when| Some((make(when), text)))
    };
    match word {
        "interruption" => timed(Word::Interruption),
        "maintenance" => timed(Word::Maintenance),
        "at-risk" => Ok(Some((Word::AtRisk, rest))),
        "gone" => Ok(Some((Word::Gone, rest))),
        other => Err(format!("{other:?} is none of interruption, maintenance, at-risk, gone")),
    }
}

fn split(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (first, rest.trim_start())
}

fn when_of(text: &str) -> Result<When, String> {
    let digits = |text: &str| {
        let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Past the year 30,000 it is no time in seconds, but perhaps one in milliseconds.
        all.then(|| text.parse::<i64>().ok()).flatten().filter(|seconds| *seconds < 1 << 40)
    };
    let when = match text.strip_prefix('+') {
        Some(span) => digits(span).map(When::In),
        None if text == "now" => Some(When::In(0)),
        None => digits(text).map(When::At),
    };
    when.ok_or_else(|| format!("{text:?} is no time"))
}

/// In terms of our own clock. The host's may be wild: only the span between its now and the announced time counts.
fn kind_of(word: Word, host_now_s: i64, now_ms: i64) -> NoticeKind {
    let at = |when| {
        let span = match when {
            When::At(second) => second.saturating_sub(host_now_s).max(0),
            When::In(span) => span,
        };
        WallTime(now_ms.saturating_add(span.saturating_mul(1000)))
    };
    match word {
        Word::Interruption(when) => NoticeKind::Interruption(at(when)),
        Word::Maintenance(when) => NoticeKind::Maintenance(at(when)),
        Word::AtRisk => NoticeKind::AtRisk,
        Word::Gone => NoticeKind::Gone,
    }
}

/// The announcements of all sources of one host, so that each change is reported once, however often it is read.
#[derive(Debug, Default)]
pub struct Board {
    heard: BTreeMap<&'static str, Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    line: String,
    standing: Option<(NoticeKind, String)>,
}

/// The news in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// None: the line was reported before, or announces nothing.
    Nothing,
    /// Tell the broker.
    Tell {
        /// Kind of the notice.
        kind: NoticeKind,
        /// Source of the line.
        source: &'static str,
        /// In its own words.
        detail: String,
    },
    /// The line cannot be read, and the announcement before it stands. Reported once for each line.
    Unreadable(String),
}

impl Board {
    /// A source's line as it stands now, with the host's clock (seconds) and ours (milliseconds).
    ///
    /// A source that has nothing to say when it is heard for the first time says so: it may have said something to a
    /// broker that was restarted since, which takes it back. What other sources say stands.
    pub fn hear(&mut self, source: &'static str, line: &str, host_now_s: i64, now_unix_ms: i64) -> News {
        let mut end = line.len().min(LINE_BYTES_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let line = line[..end].trim();
        let first = !self.heard.contains_key(source);
        let heard = self.heard.entry(source).or_default();
        if heard.line == line && !first {
            return News::Nothing;
        }
        heard.line = line.to_string();
        match parse(line) {
            Err(why) => News::Unreadable(format!("{why} in {line:?}; {HOW_TO}")),
            Ok(Some((word, text))) => {
                let kind = kind_of(word, host_now_s, now_unix_ms);
                let detail = if text.is_empty() { line.to_string() } else { text.to_string() };
                heard.standing = Some((kind, detail.clone()));
                News::Tell { kind, source, detail }
            }
            Ok(None) if heard.standing.take().is_none() && !first => News::Nothing,
            Ok(None) => {
                let detail = if first { "nothing is announced" } else { "it was taken back" };
                News::Tell { kind: NoticeKind::Cancelled, source, detail: detail.to_string() }
            }
        }
    }

    /// Whether this source has spoken at all.
    pub fn has_heard(&self, source: &str) -> bool {
        self.heard.contains_key(source)
    }

    /// The end that stands announced, if there is one: by whom, and in its own words. What is to go is not made anew.
    pub fn end(&self) -> Option<(&'static str, &str)> {
        self.heard.iter().find_map(|(source, heard)| match heard.standing.as_ref()? {
            (NoticeKind::Interruption(_) | NoticeKind::Maintenance(_) | NoticeKind::Gone, text) => {
                Some((*source, text.as_str()))
            }
            (NoticeKind::AtRisk | NoticeKind::Cancelled | NoticeKind::ConnectionLost | NoticeKind::Silent, _) => None,
        })
    }
}

/// Why a host is not made ready while its end stands announced.
pub fn not_made(host: &str, source: &str, text: &str) -> Failure {
    Failure::provider(
        "END_ANNOUNCED",
        format!("{host}: {text} ({source}); it is made ready when that is over, or was taken back on the host"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn told(line: &str) -> (NoticeKind, String) {
        // The host's clock is ten years behind.
        match Board::default().hear("drop file", line, 1_500_000_000, NOW_MS) {
            News::Tell { kind, source: "drop file", detail } => (kind, detail),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_read_and_times_are_spans_of_the_hosts_clock() {
        let at = |seconds: i64| WallTime(NOW_MS + seconds * 1000);
        for (line, kind, detail) in [
            ("maintenance 1500000060", NoticeKind::Maintenance(at(60)), "maintenance 1500000060"),
            ("maintenance +600 new  kernel", NoticeKind::Maintenance(at(600)), "new  kernel"),
            ("  interruption\tnow  fire ", NoticeKind::Interruption(at(0)), "fire"),
            ("interruption 1400000000 late", NoticeKind::Interruption(at(0)), "late"),
            ("at-risk", NoticeKind::AtRisk, "at-risk"),
            ("at-risk +5 is text here", NoticeKind::AtRisk, "+5 is text here"),
            ("gone sold", NoticeKind::Gone, "sold"),
        ] {
            assert_eq!(told(line), (kind, detail.to_string()), "{line:?}");
        }
    }

    #[test]
    fn a_span_counts_from_when_it_was_written() {
        assert_eq!(dated("maintenance +600 new kernel", 1000), "maintenance 1600 new kernel");
        assert_eq!(dated("interruption +5", 1000), "interruption 1005");
        for line in ["maintenance 1600", "at-risk +5 is text", "maintenance +x", "", "gone"] {
            assert_eq!(dated(line, 1000), line);
        }
    }

    #[test]
    fn an_unreadable_line_is_refused_with_the_right_form() {
        for (line, word) in [
            ("reboot now", "\"reboot\""),
            ("maintenance", "\"\" is no time"),
            ("maintenance soon", "\"soon\""),
            ("maintenance -5", "\"-5\""),
            ("maintenance +-5", "\"+-5\""),
            ("maintenance 1700000000000", "1700000000000"),
            ("interruption 99999999999999999999", "no time"),
            ("Gone", "\"Gone\""),
        ] {
            let mut board = Board::default();
            let News::Unreadable(text) = board.hear("drop file", line, 0, 0) else { panic!("{line}") };
            assert!(text.contains(word) && text.contains("maintenance +600"), "{line:?}: {text}");
            assert_eq!(board.hear("drop file", line, 9, 9), News::Nothing, "said once");
            assert_eq!(board.hear("drop file", "", 9, 9), News::Nothing, "nothing was announced");
        }
        let mut board = Board::default();
        assert!(matches!(board.hear("drop file", &"é".repeat(5000), 0, 0), News::Unreadable(_)));
    }

    #[test]
    fn each_change_is_announced_once_and_the_last_line_counts() {
        let mut board = Board::default();
        // To a broker that knows of something said before a restart.
        let nothing = board.hear("drop file", "", 0, NOW_MS);
        assert!(matches!(nothing, News::Tell { kind: NoticeKind::Cancelled, source: "drop file", .. }));
        assert_eq!(board.hear("drop file", "", 0, NOW_MS), News::Nothing);
        assert!(matches!(board.hear("drop file", "maintenance +60", 0, NOW_MS), News::Tell { .. }));
        // The same line, read again over a new connection a minute later, is the same announcement.
        assert_eq!(board.hear("drop file", "maintenance +60", 60, NOW_MS + 60_000), News::Nothing);
        assert!(matches!(board.hear("drop file", "nonsense", 0, NOW_MS), News::Unreadable(_)), "the former stands");
        assert!(matches!(board.hear("systemd", "maintenance 90 reboot", 0, NOW_MS), News::Tell { .. }));
        let News::Tell { kind, source, .. } = board.hear("drop file", "", 0, NOW_MS) else { panic!() };
        assert_eq!((kind, source), (NoticeKind::Cancelled, "drop file"), "for itself; the other one stands");
        let News::Tell { kind, .. } = board.hear("systemd", "", 0, NOW_MS) else { panic!() };
        assert_eq!(kind, NoticeKind::Cancelled);
        assert_eq!(board.hear("systemd", "", 0, NOW_MS), News::Nothing);
    }

    #[test]
    fn an_end_stands_until_each_source_that_said_so_takes_it_back() {
        let mut board = Board::default();
        assert!(!board.has_heard("systemd") && board.end().is_none());
        let _ = board.hear("systemd", "", 0, NOW_MS);
        let _ = board.hear("drop file", "at-risk smoke", 0, NOW_MS);
        assert!(board.has_heard("systemd") && board.end().is_none());
        let _ = board.hear("drop file", "maintenance +60 new kernel", 0, NOW_MS);
        let _ = board.hear("drop file", "nonsense", 0, NOW_MS);
        assert_eq!(board.end(), Some(("drop file", "new kernel")));
        let _ = board.hear("systemd", "gone sold", 0, NOW_MS);
        let _ = board.hear("drop file", "", 0, NOW_MS);
        assert_eq!(board.end(), Some(("systemd", "sold")));
        let _ = board.hear("systemd", "", 0, NOW_MS);
        assert_eq!(board.end(), None);
    }
}
