//! Lengths of time as people write them: `90s`, `5m`, `1h30m`, `250ms`, `7d`.

/// Maximum length of time: far above every limit, and far below an overflow.
const MAX_MS: i64 = 1000 * 86_400_000;

const UNITS: [(&str, i64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a length of time, in milliseconds.
///
/// # Errors
/// The fault and the remedy, as the end of a sentence.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty; write it as in \"90s\", \"5m\" or \"1h30m\"".into());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(if text.bytes().all(|b| b == b'0') {
            "has no unit; write \"0s\"".into()
        } else {
            format!("has no unit; write \"{text}s\" for seconds, \"{text}m\" for minutes")
        });
    }
    let mut total: i64 = 0;
    let mut rest = text;
    let mut allowed = UNITS.as_slice();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        if digits == 0 || letters == 0 {
            let decimal = rest[digits..].starts_with('.');
            return Err(if decimal {
                "has a decimal point; write \"1h30m\" for one and a half hours".into()
            } else {
                format!("is not a length of time at {rest:?}; write it as in \"90s\", \"5m\" or \"1h30m\"")
            });
        }
        let unit = &rest[digits..digits + letters];
        let Some(at) = allowed.iter().position(|(name, _)| *name == unit) else {
            return Err(if UNITS.iter().any(|(name, _)| *name == unit) {
                format!(
                    "has its units out of order at {unit:?}; write days, hours, minutes, seconds, milliseconds, each once"
                )
            } else {
                format!("has the unit {unit:?}, which is not known; use d, h, m, s or ms")
            });
        };
        total = rest[..digits]
            .parse::<i64>()
            .ok()
            .and_then(|number| number.checked_mul(allowed[at].1))
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= MAX_MS)
            .ok_or("is longer than 1000 days")?;
        allowed = &allowed[at + 1..];
        rest = &rest[digits + letters..];
    }
    Ok(total)
}

/// Writes a length of time in milliseconds; [`parse`] reads the same value from it.
pub(crate) fn format(span: i64) -> String {
    if span <= 0 {
        return "0s".into();
    }
    let mut rest = span;
    let mut text = String::new();
    for (unit, size) in UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written_back() {
        for (text, ms) in [
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1s500ms", 1500),
            ("2d", 172_800_000),
            ("0s", 0),
            ("1d2h3m4s5ms", 93_784_005),
            (" 10s ", 10_000),
        ] {
            let span = parse(text).unwrap();
            assert_eq!(span, ms, "{text}");
            assert_eq!(parse(&format(span)), Ok(span), "{text}");
        }
        assert_eq!(format(90_000), "1m30s");
    }

    #[test]
    fn each_mistake_has_its_remedy() {
        for (text, says) in [
            ("", "is empty"),
            ("90", "write \"90s\" for seconds"),
            ("0", "write \"0s\""),
            ("1.5h", "write \"1h30m\""),
            ("5 m", "is not a length of time at \"5 m\""),
            ("-5s", "is not a length of time"),
            ("s", "is not a length of time"),
            ("5min", "the unit \"min\", which is not known"),
            ("5s1m", "units out of order at \"m\""),
            ("5s5s", "units out of order"),
            ("1001d", "longer than 1000 days"),
            ("99999999999999999999s", "longer than 1000 days"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(says), "{text:?}: {message}");
        }
    }
}
