//! Rules for names, and the nearest known name.

/// Whether this is a name for a pool or a machine: `[a-z0-9-]{1,63}`, which is safe in file names, in host names and on
/// command lines.
pub fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
}

/// The fault of a label's name, and its remedy.
pub fn label_name_fault(name: &str) -> Option<(String, &'static str)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let fits = !name.is_empty() && name.len() <= 63 && name.chars().all(plain);
    (!fits)
        .then(|| (format!("{name:?} is not a valid label name"), "use 1 to 63 letters, digits and the signs . _ / -"))
}

/// The fault of a label's value, and its remedy.
pub fn label_value_fault(name: &str, value: &str) -> Option<(String, &'static str)> {
    let fits = !value.is_empty() && value.len() <= 255 && !value.chars().any(char::is_control);
    (!fits).then(|| {
        (format!("label `{name}` has a value that cannot be matched"), "use 1 to 255 bytes without control characters")
    })
}

/// The fault of a `disabled_reason`, and its remedy. `enabled`: of what it is the reason for.
pub fn disabled_reason_fault(reason: &str, enabled: bool) -> Option<(&'static str, &'static str)> {
    if enabled {
        return Some(("`disabled_reason` is given, and it is enabled", "add enabled = false, or take the reason out"));
    }
    let fits = !reason.trim().is_empty() && reason.len() <= 1024 && !reason.chars().any(char::is_control);
    (!fits).then_some((
        "`disabled_reason` is no reason",
        "write one line of at most 1,024 bytes, as in \"new disk on Monday\"",
    ))
}

/// The known name that was probably meant.
pub fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), *candidate))
        .filter(|(distance, candidate)| {
            let begins = !word.is_empty() && (candidate.starts_with(word) || word.starts_with(candidate));
            let shared = word.bytes().zip(candidate.bytes()).take_while(|(a, b)| a == b).count();
            // "copy" for "copies": another ending of the same word.
            let ending = *distance <= 3 && shared >= 3 && shared * 2 >= word.len().max(candidate.len());
            *distance <= 2.min(candidate.len() / 2) || begins || ending
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_has_a_nearest_one() {
        let known = ["slots", "max", "min_ready", "enabled"];
        assert_eq!(closest("slot", &known), Some("slots"));
        assert_eq!(closest("solts", &known), Some("slots"));
        assert_eq!(closest("enable", &known), Some("enabled"));
        assert_eq!(closest("minready", &known), Some("min_ready"));
        assert_eq!(closest("colour", &known), None);
        assert_eq!(closest("", &known), None);
        assert_eq!(closest("copy", &["ssh", "local", "copies", "ec2"]), Some("copies"));
    }
}
