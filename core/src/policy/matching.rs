//! A bipartite matching of claims to seats, kept maximal claim by claim.
//!
//! A claim lists the seats that may serve it, best first, and wants one unit or several. A seat has room for a number
//! of units. [`Matching::fill`] adds units along augmenting paths: it moves units of other claims to other seats of
//! theirs, and takes nothing from any claim. So claims that are filled in order of priority keep what they have.

use alloc::collections::BTreeMap;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Claims, seats, and which units of a claim are on which seat.
pub(crate) struct Matching<S> {
    claims: Vec<Claim<S>>,
    seats: BTreeMap<S, Seat>,
}

struct Claim<S> {
    /// Best first.
    options: Vec<S>,
    /// Units that have no seat yet.
    missing: u32,
}

#[derive(Default)]
struct Seat {
    room: u32,
    used: u32,
    /// Units by claim; none is zero.
    by: BTreeMap<usize, u32>,
}

impl<S> Default for Matching<S> {
    fn default() -> Self {
        Self { claims: Vec::new(), seats: BTreeMap::new() }
    }
}

impl<S: Ord + Clone> Matching<S> {
    /// Sets the number of units for which a seat has room.
    pub(crate) fn set_room(&mut self, seat: S, room: u32) {
        self.seats.entry(seat).or_default().room = room;
    }

    /// Units on a seat.
    pub(crate) fn used(&self, seat: &S) -> u32 {
        self.seats.get(seat).map_or(0, |seat| seat.used)
    }

    /// Units that have a seat, of all claims.
    pub(crate) fn seated(&self) -> u32 {
        self.seats.values().fold(0, |sum, seat| sum.saturating_add(seat.used))
    }

    /// Whether no claim has a seat.
    pub(crate) fn is_empty(&self) -> bool {
        self.seats.values().all(|seat| seat.used == 0)
    }

    /// Number of claims.
    pub(crate) fn len(&self) -> usize {
        self.claims.len()
    }

    /// Adds a claim on this number of units. It has no seat until it is filled.
    pub(crate) fn add(&mut self, options: Vec<S>, wanted: u32) -> usize {
        self.claims.push(Claim { options, missing: wanted });
        self.claims.len() - 1
    }

    /// Adds a seat that serves the claim less well than those it lists already.
    pub(crate) fn offer(&mut self, claim: usize, seat: S) {
        self.claims[claim].options.push(seat);
    }

    /// Units of the claim that have no seat.
    pub(crate) fn missing(&self, claim: usize) -> u32 {
        self.claims[claim].missing
    }

    /// The best seat on which the claim has a unit.
    pub(crate) fn seat(&self, claim: usize) -> Option<&S> {
        let on = |seat: &&S| self.seats.get(*seat).is_some_and(|seat| seat.by.contains_key(&claim));
        self.claims[claim].options.iter().find(on)
    }

    /// Takes the claim off its seats. It wants nothing afterwards.
    pub(crate) fn withdraw(&mut self, claim: usize) {
        for option in core::mem::take(&mut self.claims[claim].options) {
            if let Some(seat) = self.seats.get_mut(&option) {
                seat.used -= seat.by.remove(&claim).unwrap_or(0);
            }
        }
        self.claims[claim].missing = 0;
    }

    /// Gives the claim as many seats as can be without taking any from another claim. Returns whether it has all.
    pub(crate) fn fill(&mut self, claim: usize) -> bool {
        while self.claims[claim].missing > 0 {
            if !self.augment(claim) {
                return false;
            }
        }
        true
    }

    /// Moves as many units as fit along the shortest augmenting path; false if there is none.
    fn augment(&mut self, start: usize) -> bool {
        // The claim over which a seat was reached, and the seat from which a claim would be moved.
        let mut over: BTreeMap<S, usize> = BTreeMap::new();
        let mut from: BTreeMap<usize, S> = BTreeMap::new();
        let mut next = VecDeque::from([start]);
        while let Some(claim) = next.pop_front() {
            for option in &self.claims[claim].options {
                if over.contains_key(option) {
                    continue;
                }
                let Some(seat) = self.seats.get(option) else { continue };
                over.insert(option.clone(), claim);
                if seat.used < seat.room {
                    let end = option.clone();
                    self.shift(start, end, &over, &from);
                    return true;
                }
                for other in seat.by.keys().copied() {
                    if other != start && !from.contains_key(&other) {
                        from.insert(other, option.clone());
                        next.push_back(other);
                    }
                }
            }
        }
        false
    }

    fn shift(&mut self, start: usize, end: S, over: &BTreeMap<S, usize>, from: &BTreeMap<usize, S>) {
        let mut path: Vec<(usize, S)> = Vec::new();
        let mut seat = end;
        loop {
            let claim = over[&seat];
            path.push((claim, seat));
            if claim == start {
                break;
            }
            seat = from[&claim].clone();
        }
        let last = &self.seats[&path[0].1];
        let mut units = (last.room - last.used).min(self.claims[start].missing);
        for (claim, _) in path.iter().filter(|(claim, _)| *claim != start) {
            units = units.min(self.seats[&from[claim]].by[claim]);
        }
        for (claim, to) in path {
            let seat = self.seats.entry(to).or_default();
            seat.used += units;
            *seat.by.entry(claim).or_default() += units;
            if let Some(seat) = from.get(&claim).filter(|_| claim != start).and_then(|left| self.seats.get_mut(left)) {
                seat.used -= units;
                let rest = seat.by.get(&claim).copied().unwrap_or(0) - units;
                if rest == 0 {
                    seat.by.remove(&claim);
                } else {
                    seat.by.insert(claim, rest);
                }
            }
        }
        self.claims[start].missing -= units;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next number of SplitMix64.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % end
        }
    }

    /// Options of each claim, and the units that it wants.
    type Claims = Vec<(Vec<u8>, u32)>;

    fn chosen(chance: &mut Chance) -> (Claims, Vec<u32>) {
        let seats = 1 + chance.below(4);
        let rooms = (0..seats).map(|_| chance.below(4) as u32).collect();
        let claims = (0..=chance.below(5)).map(|_| {
            let mut options: Vec<u8> = (0..seats as u8).filter(|_| chance.below(2) == 0).collect();
            if chance.below(2) == 0 {
                options.reverse();
            }
            (options, 1 + chance.below(2) as u32)
        });
        (claims.collect(), rooms)
    }

    /// Units that can have seats at most, by trying everything.
    fn brute(claims: &[(Vec<u8>, u32)], rooms: &mut Vec<u32>) -> u32 {
        let Some(((options, wanted), rest)) = claims.split_first() else { return 0 };
        let fewer: Claims = if *wanted > 1 {
            [(options.clone(), wanted - 1)].into_iter().chain(rest.to_vec()).collect()
        } else {
            rest.to_vec()
        };
        let mut best = brute(&fewer, rooms);
        for option in options {
            if rooms[usize::from(*option)] > 0 {
                rooms[usize::from(*option)] -= 1;
                best = best.max(1 + brute(&fewer, rooms));
                rooms[usize::from(*option)] += 1;
            }
        }
        best
    }

    fn holds(matching: &Matching<u8>, claims: &Claims, rooms: &[u32]) {
        let mut had = alloc::vec![0; claims.len()];
        for (name, seat) in &matching.seats {
            assert_eq!(seat.used, seat.by.values().sum::<u32>());
            assert!(seat.used <= rooms[usize::from(*name)], "no seat is used beyond its room");
            for (claim, units) in &seat.by {
                assert!(*units > 0 && claims[*claim].0.contains(name), "a claim sits where it may");
                had[*claim] += units;
            }
        }
        for (n, (_, wanted)) in claims.iter().enumerate() {
            assert_eq!(had[n] + matching.missing(n), *wanted);
        }
    }

    #[test]
    fn a_matching_is_a_maximum_and_a_seated_claim_keeps_a_seat() {
        let mut chance = Chance(7);
        for _ in 0..3000 {
            let (claims, rooms) = chosen(&mut chance);
            let mut matching = Matching::default();
            rooms.iter().enumerate().for_each(|(seat, room)| matching.set_room(seat as u8, *room));
            let mut had: Vec<u32> = Vec::new();
            for (n, (options, wanted)) in claims.iter().enumerate() {
                let claim = matching.add(options.clone(), *wanted);
                assert_eq!(claim, n);
                assert_eq!(matching.fill(claim), matching.missing(claim) == 0);
                had.push(matching.missing(claim));
                let now: Vec<u32> = (0..=n).map(|n| matching.missing(n)).collect();
                assert_eq!(now, had, "nothing is taken from those before");
                let first = claims[..=n].to_vec();
                holds(&matching, &first, &rooms);
                let wanted: u32 = first.iter().map(|(_, wanted)| wanted).sum();
                let best = brute(&first, &mut rooms.clone());
                assert_eq!(wanted - had.iter().sum::<u32>(), best, "{first:?} on {rooms:?}");
            }
        }
    }

    #[test]
    fn a_matching_grows_with_its_seats_and_forgets_a_withdrawn_claim() {
        let mut chance = Chance(11);
        for _ in 0..2000 {
            let (mut claims, mut rooms) = chosen(&mut chance);
            let mut matching = Matching::default();
            rooms.iter().enumerate().for_each(|(seat, room)| matching.set_room(seat as u8, *room));
            for (options, wanted) in &claims {
                let claim = matching.add(options.clone(), *wanted);
                matching.fill(claim);
            }
            let gone = chance.below(claims.len() as u64) as usize;
            matching.withdraw(gone);
            claims[gone] = (Vec::new(), 0);
            let grown = chance.below(rooms.len() as u64) as usize;
            rooms[grown] += 1;
            matching.set_room(grown as u8, rooms[grown]);
            for claim in 0..claims.len() {
                matching.fill(claim);
            }
            holds(&matching, &claims, &rooms);
            let left: Claims = claims.iter().filter(|(_, wanted)| *wanted > 0).cloned().collect();
            let missing: u32 = (0..claims.len()).map(|claim| matching.missing(claim)).sum();
            let wanted: u32 = left.iter().map(|(_, wanted)| wanted).sum();
            assert_eq!(wanted - missing, brute(&left, &mut rooms.clone()));
        }
    }

    #[test]
    fn the_best_free_seat_comes_before_moving_anybody() {
        let mut matching = Matching::default();
        for seat in [1, 2, 3] {
            matching.set_room(seat, 1);
        }
        let first = matching.add(alloc::vec![1, 2], 1);
        let second = matching.add(alloc::vec![1, 3], 1);
        assert!(matching.fill(first) && matching.fill(second));
        assert_eq!((matching.seat(first), matching.seat(second)), (Some(&1), Some(&3)));
        let third = matching.add(alloc::vec![1], 1);
        assert!(matching.fill(third), "the first moves to its second choice");
        assert_eq!((matching.seat(first), matching.seat(third)), (Some(&2), Some(&1)));
        assert_eq!((matching.used(&1), matching.used(&2), matching.is_empty(), matching.len()), (1, 1, false, 3));
        assert_eq!(matching.seated(), 3);
    }
}
