//! The queue: classes of requests that want the same, each with a lane for each tenant and priority. Within a lane age
//! decides; between lanes see `policy/fair.rs`. A request that goes back to the queue keeps its place.

use crate::state::lane::{Lane, Waiter};
use crate::state::numbered::Numbered;
use crate::state::reach::{ReachId, Reaches};
use crate::state::want::{ClassId, ClassKey};
use crate::{LeaseId, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Bound;

/// The place of a request: its priority, and its age. Unique.
pub(crate) type Place = (Reverse<i32>, u64);

/// A party in the queue: a tenant, or `None` for the broker itself, whose working copies wait for hosts.
pub(crate) type Party = Option<Arc<str>>;

#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) key: ClassKey,
    pub(crate) reach: ReachId,
    pub(crate) lanes: BTreeMap<(Party, Reverse<i32>), Lane>,
    /// Requests in it.
    pub(crate) requests: usize,
    /// Those of parties that have a quota.
    pub(crate) bounded: usize,
    /// Leases in it.
    pub(crate) leases: u32,
}

impl Class {
    /// The oldest request of the highest priority, of any tenant.
    pub(crate) fn first(&self) -> Option<(Place, &Waiter)> {
        let first =
            |((_, priority), lane): (&(Party, Reverse<i32>), &'_ Lane)| lane.first().map(|(seq, _)| (*priority, seq));
        let place = self.lanes.iter().filter_map(first).min()?;
        let lanes = self.lanes.iter().filter(|((_, priority), _)| *priority == place.0);
        lanes.filter_map(|(_, lane)| lane.get(place.1)).next().map(|waiter| (place, waiter))
    }
}

/// The first request of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) class: ClassId,
    /// Since when it waits.
    pub(crate) since: Timestamp,
}

/// The requests of a party in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InLine {
    /// The first request of each of its lanes, by the pools that they name.
    pub(crate) heads: BTreeMap<ReachId, BTreeMap<Place, Head>>,
    /// Its leases.
    pub(crate) leases: u32,
    /// It has a quota.
    pub(crate) bounded: bool,
}

impl InLine {
    /// The first of its heads with these reaches, from a place to another one, in an open class.
    pub(crate) fn first(
        &self,
        reaches: &BTreeSet<ReachId>,
        range: (Bound<Place>, Bound<Place>),
        open: impl Fn(ClassId) -> bool,
    ) -> Option<(Place, Head)> {
        let heads = self.heads.iter().filter(|(reach, _)| reaches.contains(reach));
        let firsts = heads.filter_map(|(_, heads)| heads.range(range).find(|(_, head)| open(head.class)));
        firsts.min_by_key(|(place, _)| **place).map(|(place, head)| (*place, *head))
    }
}

/// Where a lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) class: ClassId,
    pub(crate) key: ClassKey,
    pub(crate) place: Place,
    pub(crate) party: Party,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    known: BTreeMap<ClassKey, ClassId>,
    classes: Numbered<Class>,
    reaches: Reaches,
    /// The place of each lease.
    places: BTreeMap<LeaseId, Stand>,
    /// The requests of each party in it.
    parties: BTreeMap<Party, InLine>,
}

impl Queue {
    /// Leases in the queue.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The class of a key, which is made if there is none.
    fn class_of(&mut self, key: ClassKey) -> (ClassId, ClassKey, ReachId) {
        if let Some((known, id)) = self.known.get_key_value(&key)
            && let Some(class) = self.classes.get(*id)
        {
            return (*id, known.clone(), class.reach);
        }
        let reach = self.reaches.add(&key);
        let fresh = Class { key: key.clone(), reach, lanes: BTreeMap::new(), requests: 0, bounded: 0, leases: 0 };
        let id = self.classes.add(fresh);
        self.reaches.join(reach, id);
        self.known.insert(key.clone(), id);
        (id, key, reach)
    }

    /// Adds a request of a party. Its place must be free: a request that took another's place would lose the other.
    /// `bounded`: the party has a quota.
    pub(crate) fn push(&mut self, key: ClassKey, place: Place, party: Party, waiter: Waiter, bounded: bool) {
        let (id, key, reach) = self.class_of(key);
        for lease in &waiter.leases {
            let stand = Stand { class: id, key: key.clone(), place, party: party.clone() };
            self.places.insert(*lease, stand);
        }
        let own = self.parties.entry(party.clone()).or_insert_with(|| InLine { bounded, ..InLine::default() });
        let Some(class) = self.classes.get_mut(id) else { return };
        let leases = waiter.leases.len() as u32;
        class.leases += leases;
        class.requests += 1;
        class.bounded += usize::from(own.bounded);
        let (priority, seq) = place;
        let lane = class.lanes.entry((party, priority)).or_default();
        let first = lane.first().map(|(first, _)| first);
        let head = Head { class: id, since: waiter.since };
        let before = lane.insert(seq, waiter);
        debug_assert!(before.is_none(), "two requests at the place {place:?}: {before:?} is lost");
        own.leases += leases;
        if first.is_none_or(|first| seq < first) {
            let heads = own.heads.entry(reach).or_default();
            if let Some(first) = first {
                heads.remove(&(priority, first));
            }
            heads.insert(place, head);
        }
    }

    /// Takes the whole request of which this lease is a part out of the queue.
    pub(crate) fn remove(&mut self, lease: LeaseId) -> Option<(Party, Waiter)> {
        let Stand { class: id, key, place, party } = self.places.get(&lease)?.clone();
        let class = self.classes.get_mut(id)?;
        let name = (party.clone(), place.0);
        let lane = class.lanes.get_mut(&name)?;
        let waiter = lane.remove(place.1)?;
        let leases = waiter.leases.len() as u32;
        class.leases -= leases;
        class.requests -= 1;
        for lease in &waiter.leases {
            self.places.remove(lease);
        }
        if let Some(own) = self.parties.get_mut(&party) {
            own.leases -= leases;
            class.bounded -= usize::from(own.bounded);
            if let Some(heads) = own.heads.get_mut(&class.reach) {
                if heads.remove(&place).is_some()
                    && let Some((next, waiter)) = lane.first()
                {
                    heads.insert((place.0, next), Head { class: id, since: waiter.since });
                }
                if heads.is_empty() {
                    own.heads.remove(&class.reach);
                }
            }
            if own.heads.is_empty() {
                self.parties.remove(&party);
            }
        }
        if lane.is_empty() {
            class.lanes.remove(&name);
        }
        if class.lanes.is_empty() {
            let reach = class.reach;
            self.known.remove(&key);
            self.classes.remove(id);
            self.reaches.leave(reach, id);
        }
        Some((party, waiter))
    }

    /// Notes which parties have a quota.
    pub(crate) fn set_bounded(&mut self, is_bounded: impl Fn(&Party) -> bool) {
        for (party, own) in &mut self.parties {
            own.bounded = is_bounded(party);
        }
        for id in self.known.values() {
            if let Some(class) = self.classes.get_mut(*id) {
                let lanes = class.lanes.iter().filter(|((party, _), _)| is_bounded(party));
                class.bounded = lanes.map(|(_, lane)| lane.len()).sum();
            }
        }
    }

    /// Where a lease stands.
    pub(crate) fn place(&self, lease: LeaseId) -> Option<&Stand> {
        self.places.get(&lease)
    }

    /// A class by its number.
    pub(crate) fn class(&self, id: ClassId) -> Option<&Class> {
        self.classes.get(id)
    }

    /// All classes, in the order of their keys.
    pub(crate) fn classes(&self) -> impl Iterator<Item = &Class> {
        self.known.values().filter_map(|id| self.classes.get(*id))
    }

    /// Classes from one of this key on, or where it would be, in the order of their keys.
    pub(crate) fn classes_from(&self, key: Option<&ClassKey>) -> impl Iterator<Item = &Class> {
        let from = key.map_or(Bound::Unbounded, Bound::Included);
        self.known.range::<ClassKey, _>((from, Bound::Unbounded)).filter_map(|(_, id)| self.classes.get(*id))
    }

    /// Classes with these reaches, in the order of their keys.
    pub(crate) fn classes_in(&self, reaches: &BTreeSet<ReachId>) -> Vec<ClassId> {
        let within = |id: &ClassId| self.classes.get(*id).is_some_and(|class| reaches.contains(&class.reach));
        self.known.values().copied().filter(within).collect()
    }

    /// The requests of a party and a priority in a class.
    pub(crate) fn lane(&self, class: ClassId, party: &Party, priority: Reverse<i32>) -> Option<&Lane> {
        self.classes.get(class)?.lanes.get(&(party.clone(), priority))
    }

    /// The request at a place.
    pub(crate) fn waiter(&self, at: &Stand) -> Option<&Waiter> {
        self.lane(at.class, &at.party, at.place.0)?.get(at.place.1)
    }

    /// All parties with what they have in the queue.
    pub(crate) fn parties(&self) -> alloc::collections::btree_map::Iter<'_, Party, InLine> {
        self.parties.iter()
    }

    /// The requests of a party in the queue.
    pub(crate) fn party(&self, party: &Party) -> Option<&InLine> {
        self.parties.get(party)
    }

    /// The other leases that are granted with this one.
    pub(crate) fn together(&self, lease: LeaseId) -> &[LeaseId] {
        let waiter = self.places.get(&lease).and_then(|at| self.waiter(at));
        waiter.map_or(&[], |waiter| &waiter.leases)
    }

    /// The pools that the classes name.
    pub(crate) fn reaches(&self) -> &Reaches {
        &self.reaches
    }

    /// Classes that name this pool or go by labels alone.
    pub(crate) fn classes_for(&self, pool: &Arc<str>) -> impl Iterator<Item = &Class> {
        let reaches = self.reaches.of(pool).into_iter().filter_map(|id| self.reaches.get(id));
        reaches.flat_map(|reach| &reach.classes).filter_map(|id| self.classes.get(*id))
    }

    /// Whether a party has requests in classes that name this pool or go by labels alone.
    pub(crate) fn waits_for(&self, party: &Party, pool: &Arc<str>) -> bool {
        self.parties.get(party).is_some_and(|own| self.reaches.of(pool).iter().any(|id| own.heads.contains_key(id)))
    }

    /// The parties that have requests in classes that name this pool or go by labels alone.
    pub(crate) fn parties_for(&self, pool: &Arc<str>) -> Vec<Party> {
        let reaches = self.reaches.of(pool);
        let waits = |own: &InLine| own.heads.keys().any(|reach| reaches.contains(reach));
        self.parties.iter().filter(|(_, own)| waits(own)).map(|(party, _)| party.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Selector;
    use crate::state::want::Want;
    use alloc::vec;

    fn key(pools: &[&str]) -> ClassKey {
        pools.iter().map(|pool| Want::Selector(Arc::new(Selector::pool(pool)))).collect()
    }

    fn lease(number: u128) -> LeaseId {
        LeaseId::new(number)
    }

    fn waiter(leases: Vec<LeaseId>) -> Waiter {
        Waiter { leases, since: Timestamp(0) }
    }

    #[test]
    fn a_party_has_one_head_in_each_lane() {
        let mut queue = Queue::default();
        let party = |name: &str| -> Party { Some(Arc::from(name)) };
        let heads = |queue: &Queue, name: &str| -> Vec<u64> {
            let own = queue.party(&party(name));
            let mut heads: Vec<Place> =
                own.into_iter().flat_map(|own| own.heads.values()).flat_map(BTreeMap::keys).copied().collect();
            heads.sort_unstable();
            heads.into_iter().map(|place| place.1).collect()
        };
        for (n, name, pool, priority) in
            [(1, "ann", "a", 0), (2, "ann", "a", 0), (3, "bob", "a", 0), (4, "ann", "b", 0), (5, "ann", "a", 7)]
        {
            queue.push(
                key(&[pool]),
                (Reverse(priority), n),
                party(name),
                waiter(vec![lease(u128::from(n))]),
                name == "ann",
            );
        }
        assert_eq!(heads(&queue, "ann"), [5, 1, 4], "one for each class and priority");
        assert_eq!(heads(&queue, "bob"), [3]);
        assert_eq!(queue.party(&party("ann")).map(|own| own.leases), Some(4));
        let class = |queue: &Queue, pools: &[&str]| queue.class(queue.known[&key(pools)]).unwrap().clone();
        assert_eq!(class(&queue, &["a"]).first().map(|(place, _)| place.1), Some(5));
        assert_eq!((class(&queue, &["a"]).requests, class(&queue, &["a"]).bounded), (4, 3));
        queue.remove(lease(5));
        assert_eq!(heads(&queue, "ann"), [1, 4]);
        queue.remove(lease(2));
        assert_eq!(heads(&queue, "ann"), [1, 4], "a request behind the head is no head");
        queue.remove(lease(3));
        assert_eq!((queue.party(&party("bob")), class(&queue, &["a"]).requests), (None, 1));
        assert_eq!(class(&queue, &["a"]).bounded, 1);
        queue.set_bounded(|_| false);
        assert_eq!(class(&queue, &["a"]).bounded, 0);
        queue.remove(lease(1));
        assert_eq!(queue.classes().count(), 1, "a class is gone with its last request");
    }

    #[test]
    fn classes_compete_over_chains_of_pools() {
        let mut queue = Queue::default();
        for (n, pools) in [&["a", "b"][..], &["b", "c"], &["d"]].iter().enumerate() {
            let leases = (0..pools.len()).map(|m| lease((n * 10 + m) as u128)).collect();
            queue.push(key(pools), (Reverse(0), n as u64), None, waiter(leases), false);
        }
        let competing = |queue: &Queue| {
            let found = queue.reaches().competing(&[Arc::from("c")].into());
            let keys: Vec<ClassKey> =
                queue.classes_in(&found.reaches).into_iter().map(|id| queue.class(id).unwrap().key.clone()).collect();
            (keys, found)
        };
        let (keys, found) = competing(&queue);
        assert_eq!(keys, [key(&["a", "b"]), key(&["b", "c"])]);
        assert_eq!(found.pools, ["a", "b", "c"].map(Arc::from).into());
        assert!(!found.every);
        assert_eq!(queue.together(lease(1)), [lease(0), lease(1)]);
        assert!(queue.waits_for(&None, &Arc::from("a")) && !queue.waits_for(&None, &Arc::from("e")));
        queue.remove(lease(10));
        assert_eq!(competing(&queue).1.reaches, BTreeSet::new());
        let any: ClassKey = vec![Want::Selector(Arc::new(Selector::default()))].into();
        queue.push(any, (Reverse(0), 9), None, waiter(vec![lease(90)]), false);
        let (keys, found) = competing(&queue);
        assert!(found.every && keys.len() == 3, "one that goes by labels competes with all");
        assert!(queue.waits_for(&None, &Arc::from("e")));
        assert_eq!(queue.parties_for(&Arc::from("e")), [None]);
    }

    #[test]
    #[should_panic(expected = "two requests at the place")]
    fn no_request_takes_the_place_of_another() {
        let mut queue = Queue::default();
        queue.push(key(&["a"]), (Reverse(0), 1), None, waiter(vec![lease(1)]), false);
        queue.push(key(&["a"]), (Reverse(0), 1), None, waiter(vec![lease(2)]), false);
    }
}
