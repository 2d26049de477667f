//! The sequential test: are the failures on one resource improbable beside those of the others of its pool?
//!
//! A CUSUM over the uses that count. A failure adds `log2(q1 / q0)`, a success takes away `log2(3)`. `q0` is the rate at
//! which work fails on the others, `q1` that of a resource on which a third of what should go well does. At zero the
//! run ends. So as long as `q0` is not too low, the mean number of uses of a healthy resource to a false alarm is at
//! least two to the power of the limit (Lorden 1971). All numbers are integers: rates in 1/65536, scores in 1/65536 bit.

use crate::{Evidence, Record, Run, Uses};

/// One, for rates; one bit, for scores.
pub(crate) const ONE: u64 = 1 << 16;

/// Uses of a pool after which those before count half.
const WINDOW: u64 = 4096;

/// The base rate of a pool of which nothing is known: a third, as of this many uses.
const PRIOR: Uses = Uses { good: 16, bad: 8, confirmed: 8 };

/// The uses of the others during a run are compared with the base rate as if this many more had gone as usual.
const USUAL: u64 = 8;

/// The least base rate. Without it two failures would do where nothing ever failed before.
const LEAST: u64 = ONE / 32;

/// The least number of different failures that sets a resource apart, at any base rate.
pub(crate) const FEWEST: u64 = 3;

/// The binary logarithm of 3.
const LOG3: i64 = 103_872;

impl Uses {
    fn halve(&mut self, times: u32) {
        for part in [&mut self.good, &mut self.bad, &mut self.confirmed] {
            *part = part.checked_shr(times).unwrap_or(0);
        }
    }

    fn less(&self, other: &Uses) -> Uses {
        Uses {
            good: self.good.saturating_sub(other.good),
            bad: self.bad.saturating_sub(other.bad),
            confirmed: self.confirmed.saturating_sub(other.confirmed),
        }
    }
}

impl Record {
    /// Counts a use, or changes how one counts.
    pub(crate) fn count(&mut self, change: impl Fn(&mut Uses)) {
        change(&mut self.ever);
        change(&mut self.recent);
        if self.recent.good + self.recent.bad >= WINDOW {
            self.recent.halve(1);
            self.halvings = self.halvings.wrapping_add(1);
        }
    }
}

impl Run {
    /// The evidence for a bad resource beside this base rate, in 1/65536 bit.
    pub(crate) fn score(&self, rate: u64) -> i64 {
        let bad = ONE - (ONE - rate) / 3;
        let (against, in_favour) = (self.bad.min(1 << 20) as i64, self.good.min(1 << 20) as i64);
        against * log2(bad * ONE / rate) - in_favour * LOG3
    }
}

/// The base rates beside which a resource is judged, of one kind of failures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rates {
    /// As learned over the latest uses of the others.
    pub(crate) learned: u64,
    /// The same, or the rate of the others during the run, if that is higher.
    pub(crate) judged: u64,
}

impl Rates {
    /// `bad` reads the failures of this kind.
    fn of(others: Uses, meanwhile: Uses, bad: impl Fn(&Uses) -> u64) -> Self {
        let all = others.good + bad(&others) + PRIOR.good + PRIOR.bad;
        let mean = (bad(&others) + PRIOR.bad) * ONE / all;
        // One standard error more: a rate that is known badly is not taken for a low one.
        let learned = (mean + (mean * (ONE - mean) / all).isqrt()).clamp(LEAST, ONE - 1);
        let near = (bad(&meanwhile) * ONE + USUAL * mean) / (meanwhile.good + bad(&meanwhile) + USUAL);
        Self { learned, judged: learned.max(near).min(ONE - 1) }
    }
}

impl Evidence {
    /// Brings its part in the pool's latest uses up to date.
    fn catch_up(&mut self, record: &Record) {
        self.recent.halve(record.halvings.wrapping_sub(self.halvings));
        self.halvings = record.halvings;
    }

    /// Changes its part in the pool's latest uses.
    pub(crate) fn count(&mut self, record: &Record, change: impl Fn(&mut Uses)) {
        self.catch_up(record);
        change(&mut self.recent);
    }

    /// A use went well. The record has it already.
    pub(crate) fn good(&mut self, record: &Record) {
        self.count(record, |uses| uses.good += 1);
        for run in [&mut self.run, &mut self.confirmed] {
            run.good += u64::from(run.bad > 0);
        }
        self.settle(record);
    }

    /// A use failed though the check passed. The record has it already.
    pub(crate) fn bad(&mut self, record: &Record) {
        self.count(record, |uses| uses.bad += 1);
        if self.run.bad == 0 {
            self.run.since = record.ever.less(&Uses { bad: 1, ..Uses::default() });
        }
        self.run.bad += 1;
    }

    /// The work of such a failure passed elsewhere. The record has it already.
    pub(crate) fn confirm(&mut self, record: &Record) {
        self.count(record, |uses| uses.confirmed += 1);
        if self.confirmed.bad == 0 {
            self.confirmed.since = record.ever.less(&Uses { confirmed: 1, ..Uses::default() });
        }
        self.confirmed.bad += 1;
    }

    /// A failure counts no more. The record has that already.
    pub(crate) fn excuse(&mut self, record: &Record) {
        self.count(record, |uses| uses.bad = uses.bad.saturating_sub(1));
        self.run.bad = self.run.bad.saturating_sub(1);
        self.settle(record);
    }

    /// Ends the runs in which nothing speaks against the resource any more.
    fn settle(&mut self, record: &Record) {
        let (all, confirmed) = self.rates(record);
        if self.run.bad == 0 || self.run.score(all.judged) <= 0 {
            self.run = Run::default();
        }
        if self.confirmed.bad == 0 || self.confirmed.score(confirmed.judged) <= 0 {
            self.confirmed = Run::default();
        }
        self.said &= !self.is_none();
    }

    /// Forgets what speaks against the resource; its part in the base rate stays.
    pub(crate) fn forget(&mut self) {
        (self.run, self.confirmed, self.said) = (Run::default(), Run::default(), false);
    }

    /// Whether nothing speaks against the resource.
    pub(crate) fn is_none(&self) -> bool {
        self.run.bad == 0 && self.confirmed.bad == 0
    }

    /// The base rates of the others: of all failures, and of those that passed elsewhere.
    pub(crate) fn rates(&self, record: &Record) -> (Rates, Rates) {
        let mut own = *self;
        own.catch_up(record);
        let others = record.recent.less(&own.recent);
        let meanwhile = |run: &Run, own: Uses| {
            if run.bad == 0 { Uses::default() } else { record.ever.less(&run.since).less(&own) }
        };
        let all = Uses { good: self.run.good, bad: self.run.bad, confirmed: 0 };
        let passed = Uses { good: self.confirmed.good, bad: 0, confirmed: self.confirmed.bad };
        (
            Rates::of(others, meanwhile(&self.run, all), |uses| uses.bad),
            Rates::of(others, meanwhile(&self.confirmed, passed), |uses| uses.confirmed),
        )
    }

    /// Whether the failures are improbable, by the rates that `choose` picks: at most one false alarm in this many uses of
    /// a healthy resource.
    pub(crate) fn convicts(&self, record: &Record, false_alarm: u32, choose: impl Fn(Rates) -> u64) -> bool {
        self.convicts_by_part(1, record, false_alarm, choose)
    }

    /// The same, if only one in `divisor` of the failures counts.
    pub(crate) fn convicts_by_part(
        &self,
        divisor: u64,
        record: &Record,
        false_alarm: u32,
        choose: impl Fn(Rates) -> u64,
    ) -> bool {
        // Two tests run side by side, so each may err half as often.
        let limit = log2(u64::from(false_alarm) * 2 * ONE);
        let (all, confirmed) = self.rates(record);
        let strong = |run: &Run, rates| {
            let part = Run { bad: run.bad / divisor, ..*run };
            part.bad >= FEWEST && part.score(choose(rates)) >= limit
        };
        false_alarm > 0 && (strong(&self.run, all) || strong(&self.confirmed, confirmed))
    }
}

/// The binary logarithm of a number in 1/65536, in 1/65536.
fn log2(number: u64) -> i64 {
    let mut value = u128::from(number.max(1)) << 32;
    let one = 1u128 << 48;
    let mut result = 0i64;
    while value >= 2 * one {
        value >>= 1;
        result += ONE as i64;
    }
    while value < one {
        value <<= 1;
        result -= ONE as i64;
    }
    let mut bit = ONE as i64 / 2;
    while bit > 0 {
        value = (value * value) >> 48;
        if value >= 2 * one {
            value >>= 1;
            result += bit;
        }
        bit /= 2;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_that_of_two() {
        for power in 0..30 {
            assert_eq!(log2(ONE << power), power * ONE as i64);
        }
        assert_eq!(log2(ONE / 4), -2 * ONE as i64);
        assert!((log2(3 * ONE) - LOG3).abs() <= 1);
        assert!((log2(10 * ONE) - 217_706).abs() <= 2, "3.3219 bits");
    }

    #[test]
    fn a_resource_is_judged_beside_the_others_and_not_beside_itself() {
        let mut record = Record::default();
        let mut bad = Evidence::default();
        for n in 0..100 {
            record.count(|uses| uses.good += 1);
            if n % 4 == 0 {
                record.count(|uses| uses.bad += 1);
                bad.bad(&record);
            }
        }
        let (all, _) = bad.rates(&record);
        assert!(all.learned < ONE / 6, "25 failures of its own say nothing of the others: {all:?}");
        assert!(bad.convicts(&record, 20_000, |rates| rates.judged));
    }

    #[test]
    fn a_loss_shared_with_other_hosts_is_no_evidence() {
        let mut record = Record::default();
        for _ in 0..1000 {
            record.count(|uses| uses.good += 1);
        }
        let mut one = Evidence::default();
        for _ in 0..12 {
            record.count(|uses| uses.bad += 1);
            one.bad(&record);
            for _ in 0..9 {
                record.count(|uses| uses.bad += 1);
            }
        }
        assert!(one.convicts(&record, 20_000, |rates| rates.learned));
        assert!(!one.convicts(&record, 20_000, |rates| rates.judged));
    }

    #[test]
    fn a_pool_is_judged_by_its_latest_uses() {
        let mut record = Record::default();
        for _ in 0..50_000 {
            record.count(|uses| uses.bad += 1);
        }
        assert!(record.recent.bad < WINDOW && record.halvings > 10);
        for _ in 0..20_000 {
            record.count(|uses| uses.good += 1);
        }
        let (all, _) = Evidence::default().rates(&record);
        assert!(all.learned < ONE / 10, "{all:?}");
        assert_eq!(record.ever, Uses { good: 20_000, bad: 50_000, confirmed: 0 });
    }

    #[test]
    fn a_part_is_halved_as_often_as_the_whole() {
        let mut record = Record::default();
        let mut own = Evidence::default();
        for _ in 0..10_000 {
            record.count(|uses| uses.good += 1);
            own.good(&record);
        }
        own.catch_up(&record);
        assert_eq!(record.recent, own.recent, "all uses are its own");
    }
}
