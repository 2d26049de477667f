//! Turns and shares: what the order of the line compares.

use core::cmp::{Ordering, Reverse};

/// A share: slots by weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    slots: u64,
    weight: u32,
}

impl Share {
    pub(crate) fn new(slots: u64, weight: u32) -> Self {
        Self { slots, weight: weight.max(1) }
    }
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let by = |share: &Self, weight: u32| u128::from(share.slots) * u128::from(weight);
        by(self, other.weight).cmp(&by(other, self.weight))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Share {}

/// The turn of a request: the least is next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Turn {
    pub(crate) level: Reverse<i64>,
    pub(crate) by: By,
    pub(crate) seq: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum By {
    /// It has been patient.
    Age,
    Share(Share),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_compared_without_loss() {
        let share = Share::new;
        assert!(share(1, 2) == share(2, 4) && share(1, 3) < share(1, 2) && share(7, 3) > share(2, 1));
        let most = u64::MAX;
        assert!(share(most, u32::MAX) < share(most, u32::MAX - 1));
        assert!(share(most - 1, 1) < share(most, 1));
        assert_eq!(share(5, 0), share(5, 1), "no weight is a weight of one");
    }

    #[test]
    fn the_order_is_level_then_patience_then_share_then_age() {
        let turn = |level, by, seq| Turn { level: Reverse(level), by, seq };
        let share = |slots| By::Share(Share::new(slots, 1));
        let order = [
            turn(7, share(9), 9),
            turn(1, By::Age, 4),
            turn(1, By::Age, 5),
            turn(1, share(2), 8),
            turn(1, share(3), 1),
            turn(1, share(3), 2),
            turn(0, By::Age, 0),
        ];
        assert!(order.is_sorted());
    }
}
