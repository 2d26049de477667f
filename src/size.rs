//! Sizes of memory as people write them: `512MiB`, `2GiB`.

const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

/// Reads a size, in bytes.
///
/// # Errors
/// The fault and the remedy, as the end of a sentence.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    if number.is_empty() {
        return Err(format!("is {text:?}, which is no size; write it as in \"512MiB\" or \"2GiB\""));
    }
    if unit.is_empty() {
        return Err(format!("has no unit; write \"{number}MiB\" or \"{number}GiB\""));
    }
    if unit.starts_with(['.', ',']) {
        return Err("has a decimal point; write \"1536MiB\" for one and a half GiB".into());
    }
    let Some((_, shift)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("has the unit {unit:?}, which is not known; use KiB, MiB, GiB or TiB"));
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| format!("is {text:?}, more than there are bytes; use a smaller one"))
}

/// Writes a size in the largest unit that is whole.
pub(crate) fn format(bytes: u64) -> String {
    let whole = UNITS.iter().rev().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| format!("{bytes} bytes"), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [("512MiB", 512 << 20), ("2 GiB", 2 << 30), ("1TiB", 1 << 40), ("3KiB", 3072)] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(format(bytes), text.replace(' ', ""), "{text}");
        }
        for (text, fault) in [
            ("", "no size"),
            ("GiB", "no size"),
            ("512", "\"512MiB\" or \"512GiB\""),
            ("1.5GiB", "decimal point"),
            ("2GB", "\"GB\", which is not known"),
            ("2gib", "not known"),
            ("99999999999TiB", "smaller"),
        ] {
            assert!(parse(text).unwrap_err().contains(fault), "{text}: {:?}", parse(text));
        }
    }
}
