//! Times: the present one, and those in texts of AWS.

/// The present time in milliseconds since the epoch, by a clock that tests can stop.
#[cfg(test)]
pub(crate) fn now_ms() -> i64 {
    use std::sync::OnceLock;
    use tokio::time::Instant;
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = *BEGAN.get_or_init(Instant::now);
    1_800_000_000_000 + i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
}

/// The present time in milliseconds since the epoch.
#[cfg(not(test))]
pub(crate) fn now_ms() -> i64 {
    wharfinger_adapter::clock::wall_ms()
}

/// Parses an RFC 3339 time into milliseconds since the epoch.
pub(crate) fn rfc3339(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Parses a time such as `Sat, 05 Jun 2016 15:10:09 GMT` into milliseconds since the epoch. The weekday is not checked: AWS's own
/// example has a wrong one.
pub(crate) fn rfc2822(text: &str) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    parser.parse_timestamp(text).ok().map(jiff::Timestamp::as_millisecond)
}

/// Parses the time in `User initiated (2026-11-28 03:00:00 GMT)` into milliseconds since the epoch. EC2 has the time of a state
/// change nowhere else, and some of these texts lack it.
#[cfg(any(test, feature = "sdk"))]
pub(crate) fn transition_time(text: &str) -> Option<i64> {
    let time = text.split_once('(')?.1.split_once(" GMT)")?.0;
    rfc3339(&format!("{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_state_change_is_parsed_if_there_is_one() {
        let time = transition_time("Service initiated (2026-11-28 03:00:00 GMT)");
        assert_eq!(time, rfc3339("2026-11-28T03:00:00Z"));
        for other in ["", "Server.SpotInstanceTermination", "User initiated (yesterday GMT)", "User initiated ()"] {
            assert_eq!(transition_time(other), None, "{other}");
        }
    }
}
