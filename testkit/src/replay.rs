//! Runs a function of bytes on the inputs that a fuzzer kept, and on variations of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Variations of each run.
const VARIATIONS: u64 = 2_000;
/// The variable with the seconds for which variations are made, in place of their number.
const SECONDS: &str = "WHARFINGER_FUZZ_SECONDS";
/// Maximum length of an input in bytes.
const LONGEST: usize = 4_096;

/// Runs all inputs of `fuzz/corpus/TARGET`, and variations of them: the same ones in each run, or more of them for as many
/// seconds as `WHARFINGER_FUZZ_SECONDS` has.
///
/// # Panics
/// The function panics, or there are fewer than four inputs. The input at fault is written to the folder for temporary files.
#[expect(clippy::disallowed_methods, reason = "it has no runtime")]
pub fn replay(repository: &Path, target: &str, run: fn(&[u8])) {
    let folder = repository.join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(PathBuf, Vec<u8>)> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let data = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, data)
        })
        .collect();
    inputs.sort();
    assert!(inputs.len() > 3, "{} has {} inputs", folder.display(), inputs.len());
    for (_, data) in &inputs {
        try_one(target, run, data);
    }
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut made = 0;
    while end.map_or(made < VARIATIONS, |end| Instant::now() < end) {
        let first = &inputs[random.below(inputs.len())].1;
        let second = &inputs[random.below(inputs.len())].1;
        try_one(target, run, &vary(first, second, &mut random));
        made += 1;
    }
    if seconds.is_some() {
        eprintln!("{target}: {made} variations");
    }
}

fn try_one(target: &str, run: fn(&[u8]), data: &[u8]) {
    if std::panic::catch_unwind(|| run(data)).is_err() {
        let path = std::env::temp_dir().join(format!("wharfinger-{target}-{}", std::process::id()));
        let _ = std::fs::write(&path, data);
        panic!("{target} has a fault; its input is {}: {:?}", path.display(), String::from_utf8_lossy(data));
    }
}

/// One input with some of it changed, doubled, taken out, or replaced by a part of another one.
fn vary(first: &[u8], second: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = first.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() + 1);
        let length = random.below(16).min(data.len() - at);
        match random.below(7) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 if at < data.len() => data[at] = random.byte(),
            2 => drop(data.drain(at..at + length)),
            3 => {
                let part = data[at..at + length].to_vec();
                data.splice(at..at, part);
            }
            4 => data.insert(at, random.byte()),
            5 => {
                let from = random.below(second.len() + 1);
                let to = from + random.below(64).min(second.len() - from);
                data.splice(at..at + length, second[from..to].iter().copied());
            }
            _ => {
                // Numbers at the edges, and signs that end something.
                let words: [&[u8]; 10] = [
                    b"0",
                    b"-1",
                    b"18446744073709551616",
                    b"\"",
                    b"\n",
                    b"\0",
                    b"\xff",
                    "\u{202e}".as_bytes(),
                    b"/../",
                    b"]]",
                ];
                data.splice(at..at, words[random.below(words.len())].iter().copied());
            }
        }
    }
    data.truncate(LONGEST);
    data
}

/// Numbers that look random, the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variations_are_many_and_the_same_in_each_run() {
        let make = || {
            let mut random = Random(7);
            (0..500).map(|_| vary(b"abcdefgh", b"12345678", &mut random)).collect::<Vec<_>>()
        };
        let made = make();
        assert_eq!(made, make());
        let distinct: std::collections::BTreeSet<_> = made.iter().collect();
        assert!(distinct.len() > 300, "{} are distinct", distinct.len());
        assert!(vary(&[], &[], &mut Random(1)).len() < 64);
    }

    #[test]
    #[should_panic(expected = "has a fault")]
    fn a_fault_is_reported_with_its_input() {
        try_one("none", |data| assert!(data.is_empty()), b"x");
    }
}
