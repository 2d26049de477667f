//! Lanes of time as lines of characters.

use super::sheet::Part;
use crate::overview::{Lane, Tone};

/// Width of the names.
const NAMES: usize = 8;

/// The character of a tone, so that colour is never alone.
fn block(tone: Tone) -> char {
    match tone {
        Tone::Good => '█',
        Tone::Busy => '▓',
        Tone::Bad => '▲',
        Tone::Kept => '▒',
        Tone::None => '·',
        Tone::Said => '◆',
    }
}

/// A line for each lane: the span from `from` to `to`, in milliseconds of the Unix epoch, in this number of columns.
pub(super) fn lines(lanes: &[Lane], from: i64, to: i64, columns: u16) -> Vec<Vec<Part>> {
    let width = usize::from(columns).saturating_sub(NAMES + 1).max(1);
    let length = (to - from).max(1);
    let cells = i64::try_from(width).unwrap_or(1);
    let place = |at: i64| {
        let at = (at.clamp(from, to) - from).saturating_mul(cells) / length;
        usize::try_from(at).unwrap_or(0).min(width - 1)
    };
    let mut lines = Vec::new();
    for lane in lanes {
        let mut row: Vec<Option<Tone>> = vec![None; width];
        for mark in lane.marks.iter().filter(|mark| mark.to.unwrap_or(mark.from) >= from && mark.from <= to) {
            for cell in &mut row[place(mark.from)..=place(mark.to.unwrap_or(mark.from))] {
                *cell = Some(mark.tone);
            }
        }
        let mut line = vec![Part::plain(format!("{:<NAMES$} ", lane.name))];
        for tones in row.chunk_by(|a, b| a == b) {
            let tone = tones[0];
            let text: String = std::iter::repeat_n(tone.map_or(' ', block), tones.len()).collect();
            line.push(Part { text, tone, strong: false });
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::Mark;

    #[test]
    fn a_lane_fills_its_columns_and_a_moment_is_one_of_them() {
        let mark = |from, to, tone| Mark { from, to, tone, title: String::new(), lease: String::new() };
        let state = Lane { name: "state", marks: vec![mark(0, Some(50), Tone::Good), mark(50, Some(100), Tone::Bad)] };
        let said = Lane { name: "said", marks: vec![mark(99, None, Tone::Said), mark(200, None, Tone::Said)] };
        let text = |line: &Vec<Part>| line.iter().map(|part| &*part.text).collect::<String>();
        let lines = lines(&[state, said], 0, 100, 19);
        assert_eq!(lines.iter().map(text).collect::<Vec<_>>(), ["state    █████▲▲▲▲▲", "said              ◆"]);
    }
}
