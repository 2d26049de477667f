//! The turn of each party's next request, as it follows from the queue, the slots that are held, and time.

use crate::policy::turn::{By, Share, Turn};
use crate::state::queue::{Party, Place};
use crate::state::ranks::{Ranked, Ranks};
use crate::state::want::ClassKey;
use crate::{Core, Millis, Timestamp};
use core::cmp::Reverse;
use core::ops::Bound;

impl Core {
    /// Ranks those that changed since, and those of which time changed the turn.
    pub(crate) fn up_to_date(&self, mut ranks: Ranks) -> Ranks {
        match self.changed_since(&mut ranks) {
            Some(parties) => {
                for party in parties {
                    ranks.remove(party);
                    self.rank_party(&mut ranks, party);
                }
            }
            None => {
                ranks.clear();
                for (party, _) in self.queue().parties() {
                    self.rank_party(&mut ranks, party);
                }
            }
        }
        while let Some(party) = ranks.risen(self.now()) {
            ranks.remove(&party);
            self.rank_party(&mut ranks, &party);
        }
        ranks
    }

    /// Adds the rows of a party.
    fn rank_party(&self, ranks: &mut Ranks, party: &Party) {
        let Some(own) = self.queue().party(party) else { return };
        let has_none_left = self.quota_left(party) == Some(0);
        let mut from = Bound::Unbounded;
        while let Some((place, head)) = own.first(&ranks.reaches, (from, Bound::Unbounded), |_| true) {
            from = Bound::Excluded((place.0, u64::MAX));
            let Some(class) = self.queue().class(head.class) else { continue };
            let mut row = Ranked { class: head.class, turn: None, rises_at: None };
            if party.is_some() {
                let (bonus, rises_at) = self.bonus(party, &class.key, head.since);
                row.rises_at = rises_at;
                row.turn = (!has_none_left).then(|| turn(place, bonus, self.share(party, &class.key, 0)));
            }
            ranks.add((party.clone(), place.0), row);
        }
    }

    /// The share that a party would have with a request, if it had these slots more.
    pub(crate) fn share(&self, party: &Party, key: &ClassKey, more: u64) -> Share {
        let weight = self.tenant(party).map_or(1, |tenant| tenant.weight);
        Share::new(self.held_for(party, key) + more + key.len() as u64, weight)
    }

    /// The levels by which a request has risen, and when it rises again.
    pub(crate) fn bonus(&self, party: &Party, key: &ClassKey, since: Timestamp) -> (i64, Option<Timestamp>) {
        let patience = self.limits().patience;
        if patience <= Millis::ZERO {
            return (0, None);
        }
        let since = since.max(self.patience_since(party, key));
        let bonus = self.now().since(since).0 / patience.0;
        (bonus, Some(since.after(Millis(patience.0.saturating_mul(bonus + 1)))))
    }
}

/// The turn of a request that has risen by these levels.
pub(crate) fn turn(place: Place, bonus: i64, share: Share) -> Turn {
    Turn {
        level: Reverse(i64::from(place.0.0).saturating_add(bonus)),
        by: if bonus > 0 { By::Age } else { By::Share(share) },
        seq: place.1,
    }
}
