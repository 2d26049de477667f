//! When a request in line is likely to get a slot: the slots that become free, counted over time, from how long things
//! took lately.
//!
//! A slot becomes free at a time that is not known, but its distribution is: leases of the same work took so long. The
//! number of slots that are free by a time then has a mean and a variance. The range begins where the request has its
//! slot with a probability of one in ten, and ends where it has it with nine in ten, both by the normal distribution.

use crate::Millis;
use alloc::vec::Vec;

/// Equally likely times that stand for all samples of one kind.
const ATOMS: usize = 16;
/// Times that one slot counts: the leases that come into it after this one are as long as the usual ones.
const ROUNDS: u64 = 10;
/// Points in time.
const STEPS: usize = 1_024;
/// Maximum distance of the last point.
const HORIZON: i64 = 30 * 86_400_000;
/// One slot, in the units of the counts.
const ONE: i128 = 1 << 12;
/// The square of the quantile of nine in ten of the normal distribution, in hundredths.
const SQUARE: i128 = 164;

/// How long things of one kind take: equally likely times, the shortest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times(Vec<i64>);

impl Times {
    /// The times of samples, evenly thinned out.
    pub(crate) fn of(samples: impl IntoIterator<Item = Millis>) -> Self {
        let mut all: Vec<i64> = samples.into_iter().map(|span| span.0.max(0)).collect();
        all.sort_unstable();
        if all.len() > ATOMS {
            all = (0..ATOMS).map(|n| all[(2 * n + 1) * all.len() / (2 * ATOMS)]).collect();
        }
        Self(all)
    }

    /// Times around the one that a holder expects.
    pub(crate) fn around(expected: Millis) -> Self {
        Self([8, 9, 10, 11, 12].map(|tenths| expected.0.max(0) / 10 * tenths).into())
    }

    /// Each time with this one more.
    #[must_use]
    pub(crate) fn and(&self, more: Millis) -> Self {
        Self(self.0.iter().map(|span| span.saturating_add(more.0)).collect())
    }

    /// The time that half of them do not reach. `None`: nothing is known.
    pub(crate) fn median(&self) -> Option<Millis> {
        self.0.get(self.0.len() / 2).copied().map(Millis)
    }

    /// Those that something which has lasted for `age` can still reach.
    fn left(&self, age: i64) -> &[i64] {
        &self.0[self.0.partition_point(|span| *span <= age)..]
    }

    fn mean(&self) -> i64 {
        let all: i128 = self.0.iter().map(|span| i128::from(*span)).sum();
        i64::try_from(all / (self.0.len() as i128).max(1)).unwrap_or(i64::MAX)
    }
}

/// A slot that may become free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supply<'t> {
    /// How long what holds it takes.
    pub(crate) times: &'t Times,
    /// For how long it has held it.
    pub(crate) age: Millis,
}

/// The slots that are free by each point in time.
#[derive(Clone, Debug)]
pub(crate) struct Forecast {
    step: i64,
    /// Their mean and its variance, in [`ONE`] and its square.
    points: Vec<(i128, i128)>,
}

impl Forecast {
    /// From the slots, and how long the leases take that come into them next.
    pub(crate) fn new(supply: &[Supply<'_>], next: &Times) -> Self {
        let lefts: Vec<(&[i64], i64)> = supply
            .iter()
            .map(|slot| (slot.times.left(slot.age.0), slot.age.0))
            .filter(|left| !left.0.is_empty())
            .collect();
        let last = lefts.iter().filter_map(|(left, age)| left.last().map(|span| span - age)).max().unwrap_or(0);
        let rounds = if next.0.is_empty() { 1 } else { ROUNDS };
        let far = last.saturating_add(next.mean().saturating_mul(rounds as i64 - 1)).min(HORIZON);
        // Each round is rounded up to a point: those points are beside the last one.
        let step = far.div_euclid(STEPS as i64 - 1 - ROUNDS as i64) + 1;
        let point = |span: i64| usize::try_from((span + step - 1) / step).unwrap_or(usize::MAX);
        let mut change = alloc::vec![(0_i128, 0_i128); STEPS];
        for (left, age) in &lefts {
            let of = |n: usize| ONE * n as i128 / left.len() as i128;
            for (n, span) in left.iter().enumerate() {
                let Some(at) = change.get_mut(point(span - age)) else { continue };
                let (before, after) = (of(n), of(n + 1));
                at.0 += after - before;
                at.1 += after * (ONE - after) - before * (ONE - before);
            }
        }
        let mut points = Vec::with_capacity(STEPS);
        let mut sum = (0, 0);
        for (mean, variance) in change {
            sum = (sum.0 + mean, sum.1 + variance);
            points.push(sum);
        }
        let shifts: Vec<usize> = next.0.iter().map(|span| point((*span).max(step))).collect();
        Self { step, points: again(&points, &shifts, rounds, lefts.len() as i128) }
    }

    /// When the slot number `place` is free, from 1: hardly sooner, hardly later. `None`: not by the last point.
    pub(crate) fn at(&self, place: u64) -> (Option<Millis>, Option<Millis>) {
        let wanted = 2 * i128::from(place) * ONE - ONE;
        let beyond = |(mean, variance): &(i128, i128)| {
            let left = 2 * mean - wanted;
            (left >= 0, left * left * 100 >= 4 * SQUARE * variance)
        };
        let first = |reached: &dyn Fn(&(i128, i128)) -> bool| {
            let n = self.points.iter().position(reached)?;
            i64::try_from(n).ok().map(|n| Millis(n * self.step))
        };
        let likely = first(&|point| beyond(point) == (true, true));
        let possible = first(&|point| point.0 > 0 && beyond(point) != (false, true));
        (possible, likely)
    }
}

/// The same with the leases that come into the slots later. The number of times that a slot is free is at least r with the
/// probability P(r), so that its square has the mean of all (2r - 1) P(r).
fn again(first: &[(i128, i128)], shifts: &[usize], rounds: u64, slots: i128) -> Vec<(i128, i128)> {
    let mut round: Vec<i128> = first.iter().map(|point| point.0).collect();
    // The sum of P(r), and of (2r - 1) P(r), of all slots.
    let mut sums: Vec<(i128, i128)> = round.iter().map(|mean| (*mean, *mean)).collect();
    for r in 2..=rounds {
        let before = round;
        let earlier = |n: usize, shift: &usize| n.checked_sub(*shift).map_or(0, |n| before[n]);
        let mean = |n| shifts.iter().map(|shift| earlier(n, shift)).sum::<i128>() / (shifts.len() as i128).max(1);
        round = (0..before.len()).map(mean).collect();
        for (sum, mean) in sums.iter_mut().zip(&round) {
            sum.0 += mean;
            sum.1 += i128::from(2 * r - 1) * mean;
        }
    }
    let slots = slots.max(1);
    let points = first.iter().zip(sums).map(|((once, variance), (mean, square))| {
        let of_all = square * ONE - mean * mean / slots;
        let of_one = once * ONE - once * once / slots;
        (mean, (variance + of_all - of_one).max(0))
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const MINUTE: i64 = 60_000;

    fn minutes(all: &[i64]) -> Times {
        Times::of(all.iter().map(|n| Millis(n * MINUTE)))
    }

    /// The range of a place in seconds.
    fn range(forecast: &Forecast, place: u64) -> (i64, i64) {
        let (from, to) = forecast.at(place);
        (from.unwrap().0 / 1000, to.unwrap().0 / 1000)
    }

    #[test]
    fn the_end_of_one_lease_of_which_all_is_known_is_the_range() {
        let times = minutes(&[10]);
        let forecast = Forecast::new(&[Supply { times: &times, age: Millis(4 * MINUTE) }], &Times::default());
        assert_eq!(range(&forecast, 1), (360, 360));
        assert_eq!(forecast.at(2), (None, None), "one slot serves one, where nothing is known of the next lease");
    }

    #[test]
    fn the_range_of_one_slot_is_that_of_one_in_ten_to_nine_in_ten() {
        let times = minutes(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let fresh = Forecast::new(&[Supply { times: &times, age: Millis(0) }], &Times::default());
        let (from, to) = range(&fresh, 1);
        assert!((60..=120).contains(&from) && (540..=600).contains(&to), "{from} {to}");
        // One that has lasted for 8 minutes lasts for 9 or 10.
        let old = Forecast::new(&[Supply { times: &times, age: Millis(8 * MINUTE) }], &Times::default());
        let (from, to) = range(&old, 1);
        assert!((59..=61).contains(&from) && (119..=121).contains(&to), "{from} {to}");
    }

    #[test]
    fn the_first_of_several_slots_is_free_sooner_than_each_of_them() {
        let times = minutes(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let supply = vec![Supply { times: &times, age: Millis(0) }; 5];
        let forecast = Forecast::new(&supply, &Times::default());
        // Of five, one has ended by then with nine in ten: 1 - (1 - p)^5, at p = 0.37.
        let (from, to) = range(&forecast, 1);
        assert!(from <= 60 && (180..=300).contains(&to), "{from} {to}");
        let (from, to) = range(&forecast, 5);
        assert!((360..=540).contains(&from) && (540..=600).contains(&to), "{from} {to}");
        assert_eq!(forecast.at(6), (None, None));
    }

    #[test]
    fn a_slot_serves_again_once_the_next_lease_in_it_has_ended() {
        let times = minutes(&[10]);
        let supply = vec![Supply { times: &times, age: Millis(0) }; 2];
        let forecast = Forecast::new(&supply, &times);
        for (place, minutes) in [(1, 10), (2, 10), (3, 20), (4, 20), (5, 30), (20, 100)] {
            let (from, to) = range(&forecast, place);
            // A point is at most a thousandth of all away, in each round.
            let about = minutes * 60..=minutes * 60 + 10 * 6;
            assert!(about.contains(&from) && about.contains(&to), "{place}: {from} {to}");
        }
        assert_eq!(forecast.at(21), (None, None), "ten rounds of two slots");
    }

    #[test]
    fn one_that_has_lasted_longer_than_all_before_gives_no_slot() {
        let times = minutes(&[1, 2, 3]);
        let supply = [Supply { times: &times, age: Millis(3 * MINUTE) }];
        assert_eq!(Forecast::new(&supply, &times).at(1), (None, None));
        assert_eq!(Forecast::new(&[], &times).at(1), (None, None));
    }

    #[test]
    fn an_expectation_is_a_range_and_samples_are_thinned_out_evenly() {
        assert_eq!(Times::around(Millis(100)).0, [80, 90, 100, 110, 120]);
        let many = Times::of((0..256).map(Millis));
        assert_eq!((many.0.len(), many.0[0], many.0[15], many.median()), (16, 8, 248, Some(Millis(136))));
        assert_eq!(Times::default().median(), None);
        assert_eq!(Times::of([Millis(5)]).and(Millis(2)).0, [7]);
    }

    /// Leases of a known distribution, in turns: the range of a place holds most of the true starts.
    #[test]
    fn the_range_holds_eight_of_ten_starts() {
        let mut seed = 7_u64;
        let mut number = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as i64
        };
        // From 2 to 22 minutes, most of them short.
        let mut span = move || MINUTE * 2 + number() % (10 * MINUTE) * (1 + i64::from(number() % 4 == 0));
        let samples: Vec<Millis> = (0..256).map(|_| Millis(span())).collect();
        let times = Times::of(samples);
        for (slots, place) in [(1, 1), (3, 1), (3, 7), (10, 4), (10, 35)] {
            let supply = vec![Supply { times: &times, age: Millis(0) }; slots];
            let (from, to) = Forecast::new(&supply, &times).at(place);
            let (from, to) = (from.unwrap().0, to.unwrap().0);
            let (mut within, tries) = (0, 400);
            for _ in 0..tries {
                let mut ends: Vec<i64> = (0..slots).map(|_| span()).collect();
                let mut start = 0;
                for _ in 0..place {
                    let first = (0..slots).min_by_key(|n| ends[*n]).unwrap();
                    start = ends[first];
                    ends[first] += span();
                }
                within += i32::from((from..=to).contains(&start));
            }
            let share = within * 100 / tries;
            assert!((70..=95).contains(&share), "{slots} slots, place {place}: {share} of 100 in {from} to {to}");
        }
    }
}
