//! When a request in line is likely to get its slots: from the leases that hold what it wants, the resources that are being made,
//! and those that go before it.

use crate::Core;
use crate::model::stable::stable_texts;
use crate::policy::capacity::Extent;
use crate::policy::start::{Forecast, Supply, Times};
use crate::state::learned::{Lengths, work_of};
use crate::state::queue::{Class, Place, Stand};
use crate::state::tables::Pool;
use crate::state::want::{ClassKey, Want};
use crate::{Lease, LeaseState, Millis, Resource, Stage, Timestamp};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Minimum number of leases that have ended, for an estimate that rests on their times.
const FEWEST: usize = 20;
/// Minimum number of makings, for an estimate that rests on their times.
const FEWEST_MAKINGS: usize = 5;
/// Maximum number of resources of a pool that are looked at. The others are taken to be like them.
const LOOKED_AT: usize = 2_000;
/// Maximum number of other classes that are compared with one. The others are taken to go before it as a whole.
const COMPARED: usize = 200;

/// When a request in line is likely to get its slots, from now; and from what that was computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LikelyStart {
    /// Hardly sooner: one in ten gets them by then.
    pub earliest: Millis,
    /// Hardly later: nine in ten have them by then.
    pub latest: Millis,
    /// Slots that may serve it.
    pub slots: u32,
    /// The time that half of the latest leases there did not reach, if enough have ended.
    pub usual: Option<Millis>,
    /// The number of those leases.
    pub leases: u32,
}

impl LikelyStart {
    /// From what it was computed, in words.
    pub fn basis(&self) -> String {
        let slots = if self.slots == 1 { "slot" } else { "slots" };
        match self.usual {
            Some(usual) => {
                format!("{} {slots}; of the last {} leases here half took at most {usual}", self.slots, self.leases)
            }
            None => format!("{} {slots}, by the times that their holders expect", self.slots),
        }
    }
}

stable_texts! {
    /// Reasons for which it is not known when a request starts. The set is open for clients: a later version may add codes.
    pub enum NoStart {
        /// The present configuration can never meet it.
        Never = "NEVER",
        /// The quota of its tenant keeps it waiting.
        Quota = "QUOTA",
        /// It waits for a time: a remote or a provider was down.
        Delayed = "DELAYED",
        /// Each pool that could serve it is disabled, cordoned or removed.
        Closed = "CLOSED",
        /// The brake of each pool that could serve it is on.
        Braked = "BRAKED",
        /// Enough slots are free, and none of them may serve it now.
        Unfit = "UNFIT",
        /// It wants different slots at once.
        Mixed = "MIXED",
        /// Too little is known of how long the leases there take.
        Unknown = "UNKNOWN",
        /// Too many go before it.
        Far = "FAR",
    }
}

/// The knowledge of the slots that a class may get.
pub(crate) struct Outlook<'c> {
    pools: Vec<&'c Pool>,
    forecast: Forecast,
    /// Resources that were looked at, of how many.
    looked: (u64, u64),
    slots: u32,
    usual: Option<Millis>,
    leases: u32,
    /// Of a slot or more it is not known how long its lease takes.
    blind: bool,
}

/// Leases that go before a request.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Ahead {
    /// Those which fit wherever this one does.
    sure: u64,
    /// Those that may be given what this one wants.
    most: u64,
}

/// The times that are known of a pool.
struct Known {
    leases: Option<Times>,
    works: BTreeMap<u64, Times>,
    cleaning: Times,
    /// A clean-up, on the average.
    cleaned: Millis,
    makings: Option<Times>,
}

impl Known {
    fn of(lengths: &Lengths) -> Self {
        let enough = |all: Vec<Millis>, fewest| (all.len() >= fewest).then(|| Times::of(all).and(lengths.cleaning()));
        let mut works = BTreeMap::new();
        for (work, _) in &lengths.leases {
            works.entry(*work).or_insert_with(|| lengths.of_work(*work));
        }
        let works = works.into_iter().filter_map(|(work, all)| Some((work, enough(all, FEWEST)?))).collect();
        Self {
            leases: enough(lengths.leases.iter().map(|(_, span)| *span).collect(), FEWEST),
            works,
            cleaning: Times::of(lengths.cleanings.iter().copied()),
            cleaned: lengths.cleaning(),
            makings: (lengths.makings.len() >= FEWEST_MAKINGS).then(|| Times::of(lengths.makings.iter().copied())),
        }
    }

    /// How long an active lease takes that has lasted for `age`. A holder that has outlasted its own expectation is like others.
    fn times(&self, lease: &Lease, age: Millis) -> Option<Times> {
        let expected = lease.spec.expected.filter(|expected| *expected > age);
        let expected = expected.map(|expected| Times::around(expected).and(self.cleaned));
        expected.or_else(|| self.works.get(&work_of(&lease.spec)).cloned()).or_else(|| self.leases.clone())
    }
}

impl Core {
    /// When a lease that waits is likely to start. `None`: it does not wait.
    pub(crate) fn likely_start(&self, lease: &Lease, now: Timestamp) -> Option<Result<LikelyStart, NoStart>> {
        let at = self.queue().place(lease.id)?;
        let outlook = self.outlook(&at.key, now);
        Some(self.starts(&outlook, &[(at.clone(), self.position(at), lease)], now).remove(0))
    }

    /// When these requests of one class are likely to start, each with its position and a lease of it.
    pub(crate) fn starts(
        &self,
        outlook: &Result<Outlook<'_>, NoStart>,
        rows: &[(Stand, u32, &Lease)],
        now: Timestamp,
    ) -> Vec<Result<LikelyStart, NoStart>> {
        let outlook = match outlook {
            Ok(outlook) => outlook,
            Err(why) => return alloc::vec![Err(*why); rows.len()],
        };
        let places: Vec<Place> = rows.iter().map(|(at, ..)| at.place).collect();
        let ahead = rows.first().map(|(at, ..)| self.ahead(at, outlook, &places)).unwrap_or_default();
        let start = |(at, position, lease): &(Stand, u32, &Lease)| {
            if self.quota_blocker(at).is_some() {
                return Err(NoStart::Quota);
            }
            if lease.not_before.is_some_and(|until| until > now) {
                return Err(NoStart::Delayed);
            }
            let ahead = ahead.get(&at.place).copied().unwrap_or_default();
            outlook.start(u64::from(*position) * at.key.len() as u64, ahead)
        };
        rows.iter().map(start).collect()
    }

    /// The knowledge of the slots that the requests of a class may get.
    pub(crate) fn outlook(&self, key: &ClassKey, now: Timestamp) -> Result<Outlook<'_>, NoStart> {
        let Some((want, others)) = key.split_first() else { return Err(NoStart::Never) };
        if !self.unmet(key, Extent::Configured).is_empty() {
            return Err(NoStart::Never);
        }
        if others.iter().any(|other| other != want) {
            return Err(NoStart::Mixed);
        }
        let names: Vec<_> = self.pools_of(want).map(|pool| pool.config.name.clone()).collect();
        let all: Vec<&Pool> = names.iter().filter_map(|name| self.pool_entry(name)).collect();
        let open: Vec<&Pool> = all.into_iter().filter(|pool| pool.open() && self.could_serve(pool, want)).collect();
        if open.is_empty() {
            return Err(NoStart::Closed);
        }
        let free = |pool: &Pool| self.brake_views(pool).iter().all(|brake| brake.held.is_none());
        let pools: Vec<&Pool> = open.into_iter().filter(|pool| free(pool)).collect();
        if pools.is_empty() {
            return Err(NoStart::Braked);
        }
        self.outlook_of(want, pools, key.len() as u32, now)
    }

    fn outlook_of<'c>(
        &'c self,
        want: &Want,
        pools: Vec<&'c Pool>,
        together: u32,
        now: Timestamp,
    ) -> Result<Outlook<'c>, NoStart> {
        let at_once = Times::of([Millis(0)]);
        // Times by the slot, as long as the forecast needs them.
        let mut supply: Vec<(Times, Millis)> = Vec::new();
        let (mut free, mut blind, mut looked) = (0, false, (0, 0));
        let (mut next, mut leases) = (Vec::new(), 0);
        for pool in &pools {
            let known = Known::of(&pool.learned);
            let fits = |row: &Resource| want.matches(&pool.config.name, &pool.config.labels, &row.labels);
            looked.0 += pool.members.len().min(LOOKED_AT) as u64;
            looked.1 += pool.members.len() as u64;
            for entry in pool.members.iter().take(LOOKED_AT).filter_map(|id| self.entry(id)) {
                let row = &*entry.row;
                match row.state.stage() {
                    // One that is to lie on a host waits for that first.
                    Stage::Coming if entry.counted.coming > 0 && row.parent.is_none() => match &known.makings {
                        Some(times) => {
                            let age = now.since(row.created_at);
                            supply.extend((0..row.slots).map(|_| (times.clone(), age)));
                        }
                        None => blind = true,
                    },
                    Stage::Ready if entry.counted.leasable && fits(row) => {
                        free += entry.counted.free;
                        for lease in entry.slots.used().filter_map(|(_, lease)| self.lease(lease)) {
                            match ends(&known, lease, now) {
                                Some(slot) => supply.push(slot),
                                None => blind = true,
                            }
                        }
                    }
                    Stage::Coming
                    | Stage::Ready
                    | Stage::Doubted
                    | Stage::Repairing
                    | Stage::Apart
                    | Stage::Draining
                    | Stage::Leaving
                    | Stage::Gone => {}
                }
            }
            // More than these are made when they are wanted, where nothing keeps the pool from it.
            let grows = pool.config.on.is_empty() && pool.members.len() <= LOOKED_AT;
            if let Some(times) = known.makings.as_ref().filter(|_| grows) {
                let more = u64::from(self.room(pool)) * u64::from(pool.config.slots.max(1));
                let more = usize::try_from(more).unwrap_or(LOOKED_AT).min(LOOKED_AT);
                supply.extend((0..more).map(|_| (times.clone(), Millis(0))));
            }
            if let Some(times) = known.leases {
                leases += pool.learned.leases.len() as u32;
                next.push(times);
            }
        }
        if free >= together {
            return Err(NoStart::Unfit);
        }
        supply.extend((0..free).map(|_| (at_once.clone(), Millis(-1))));
        if supply.is_empty() {
            return Err(NoStart::Unknown);
        }
        let slots: Vec<Supply<'_>> = supply.iter().map(|(times, age)| Supply { times, age: *age }).collect();
        let usual = next.first().filter(|_| next.len() == pools.len()).cloned();
        let forecast = Forecast::new(&slots, &usual.clone().unwrap_or_default());
        let slots = slots.len() as u64 * looked.1.max(1) / looked.0.max(1);
        let slots = u32::try_from(slots).unwrap_or(u32::MAX);
        let usual = usual.and_then(|times| times.median());
        Ok(Outlook { pools, forecast, looked, slots, usual, leases, blind })
    }

    /// For each of these places of a class, the leases of other classes that go before it: those of a higher priority, and older
    /// ones of the same. Each lane is walked once, whatever the number of places.
    fn ahead(&self, own: &Stand, outlook: &Outlook<'_>, places: &[Place]) -> BTreeMap<Place, Ahead> {
        let mut ahead: BTreeMap<Place, Ahead> = places.iter().map(|place| (*place, Ahead::default())).collect();
        let mut others: Vec<&Class> = Vec::new();
        for pool in &outlook.pools {
            for class in self.queue().classes_for(&pool.config.name).filter(|class| class.key != own.key) {
                if others.len() >= COMPARED {
                    let all = self.queue().len() as u64;
                    ahead.values_mut().for_each(|ahead| ahead.most = all);
                    return ahead;
                }
                if !others.iter().any(|known| core::ptr::eq(*known, class)) {
                    others.push(class);
                }
            }
        }
        for class in others {
            let sure = own.key.first().is_some_and(|want| class.key.iter().all(|other| is_wider(other, want)));
            let together = class.key.len() as u64;
            for ((_, priority), lane) in &class.lanes {
                let mut older = lane.keys().peekable();
                let mut count = 0;
                for ((of, seq), ahead) in &mut ahead {
                    if of < priority {
                        continue;
                    }
                    if of == priority {
                        while older.next_if(|other| *other < seq).is_some() {
                            count += together;
                        }
                    } else {
                        count = lane.len() as u64 * together;
                    }
                    ahead.most += count;
                    ahead.sure += if sure { count } else { 0 };
                }
            }
        }
        ahead
    }
}

impl Outlook<'_> {
    /// When a request has its slots, with the number of the last of them in its class, and those of others before it.
    fn start(&self, place: u64, ahead: Ahead) -> Result<LikelyStart, NoStart> {
        let scaled = |place: u64| (place * self.looked.0.max(1)).div_ceil(self.looked.1.max(1));
        let none = if self.blind || self.usual.is_none() { NoStart::Unknown } else { NoStart::Far };
        let (earliest, _) = self.forecast.at(scaled(place + ahead.sure));
        let (_, latest) = self.forecast.at(scaled(place + ahead.most));
        let (earliest, latest) = earliest.zip(latest).ok_or(none)?;
        Ok(LikelyStart { earliest, latest, slots: self.slots, usual: self.usual, leases: self.leases })
    }
}

/// The times of what holds a slot, and since when it does. `None`: not known.
fn ends(known: &Known, lease: &Lease, now: Timestamp) -> Option<(Times, Millis)> {
    match &lease.state {
        LeaseState::Active { since, .. } => {
            let age = now.since(*since);
            Some((known.times(lease, age)?, age))
        }
        LeaseState::Preparing { .. } => Some((known.times(lease, Millis(0))?, Millis(0))),
        LeaseState::Ended { at, .. } => known.cleaning.median().map(|_| (known.cleaning.clone(), now.since(*at))),
        LeaseState::Queued => None,
    }
}

/// Whether all that serves the second want serves the first.
fn is_wider(other: &Want, want: &Want) -> bool {
    match (other, want) {
        (Want::Selector(other), Want::Selector(want)) => {
            let pool = other.pool.is_none() || other.pool == want.pool;
            let among = other.among.is_all() || other.among == want.among;
            pool && among && other.labels.iter().all(|(key, value)| want.labels.get(key) == Some(value))
        }
        (other, want) => other == want,
    }
}
