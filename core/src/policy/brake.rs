//! The brake: when much of a failure domain is in trouble at once, a common cause is likelier than as many single ones.
//!
//! Held is what rests on silence or on a check's word. Proof (another boot, another host key, the provider's word),
//! notices and operators are not. A small domain is never held, and the brake clears by itself.
//!
//! Counted are machines that are in trouble now: a machine that was lost counts until it is back, and its former incarnations
//! count no more.

use crate::{Brake, MachineKey, ResourceId, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::Arc;

/// Number of other hosts that are probed when one falls silent.
const PEERS: usize = 8;

/// A number that has nothing to do with the id's age.
fn scrambled(id: ResourceId) -> u64 {
    (id.value() as u64 ^ (id.value() >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A loss: a machine of an inventory, or a resource that another one replaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lost {
    Machine(MachineKey),
    /// A resource of this pool.
    Resource(Arc<str>, ResourceId),
}

/// One failure domain: a pool, a part of it by label, or all hosts together (the broker's own network).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Domain {
    /// Resources that could be in trouble, in an order that has nothing to do with their ages.
    members: BTreeSet<(u64, ResourceId)>,
    /// How many of them are.
    troubled: u32,
    /// When resources were ended on evidence, oldest first: their rate is limited.
    ended: VecDeque<Timestamp>,
    /// Losses on evidence that are not back, with the time and the resource that stood for each.
    lost: BTreeMap<Lost, (Timestamp, ResourceId)>,
    /// Since when the brake is on, and why.
    on: Option<(Timestamp, Arc<str>)>,
    /// When it went off the last time.
    off_at: Option<Timestamp>,
}

impl Domain {
    /// Members and those in trouble.
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.members.len() as u32, self.troubled)
    }

    /// Whether the brake is on.
    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Since when the brake is on, and why, if there is a reason still.
    pub(crate) fn held(&self, brake: &Brake, now: Timestamp) -> Option<(Timestamp, Arc<str>)> {
        self.on.clone().filter(|_| self.over(brake, now).is_some())
    }

    /// When the brake went off the last time.
    pub(crate) fn off_at(&self) -> Option<Timestamp> {
        self.off_at
    }

    /// Without members, and without an end that counts.
    pub(crate) fn is_unused(&self) -> bool {
        self.members.is_empty() && self.ended.is_empty() && self.lost.is_empty()
    }

    /// Forgets who is in it, but not what happened.
    pub(crate) fn clear_counts(&mut self) {
        self.members.clear();
        self.troubled = 0;
    }

    pub(crate) fn count(&mut self, id: ResourceId, member: bool, before: bool, troubled: bool) {
        if member {
            self.members.insert((scrambled(id), id));
        } else {
            self.members.remove(&(scrambled(id), id));
        }
        self.troubled = self.troubled - u32::from(before) + u32::from(troubled);
    }

    /// Some others of it, always the same for one.
    pub(crate) fn peers(&self, id: ResourceId) -> impl Iterator<Item = ResourceId> {
        let own = (scrambled(id), id);
        let after = self.members.range((core::ops::Bound::Excluded(own), core::ops::Bound::Unbounded));
        after.chain(self.members.range(..own)).map(|(_, id)| *id).take(PEERS)
    }

    fn ended_within(&self, brake: &Brake, now: Timestamp) -> u32 {
        self.ended.iter().filter(|at| at.after(brake.window) > now).count() as u32
    }

    /// Losses within the window that are not back. A resource under repair is a member still.
    pub(crate) fn missing(&self, brake: &Brake, now: Timestamp) -> u32 {
        let counts = |(at, id): &&(Timestamp, ResourceId)| {
            at.after(brake.window) > now && !self.members.contains(&(scrambled(*id), *id))
        };
        self.lost.values().filter(counts).count() as u32
    }

    /// Members and those in trouble, with those lost within the window, if that is too much for a coincidence.
    pub(crate) fn over(&self, brake: &Brake, now: Timestamp) -> Option<(u32, u32)> {
        let missing = self.missing(brake, now);
        let (members, troubled) = (self.members.len() as u32 + missing, self.troubled + missing);
        let over = members > brake.floor && u64::from(troubled) * 100 > u64::from(brake.share) * u64::from(members);
        over.then_some((members, troubled))
    }

    /// Whether one more may be ended now; `Err`: why not.
    pub(crate) fn ask(&mut self, brake: &Brake, now: Timestamp, name: &str) -> Result<(), Arc<str>> {
        let Some((members, troubled)) = self.over(brake, now) else {
            // Evidence that was gathered while it was on is evidence of the common cause, and of no single resource.
            return self.release(now).map_or(Ok(()), Err);
        };
        let since = match &self.on {
            Some((since, _)) => *since,
            None => {
                let why = format!(
                    "{troubled} of {members} {name} are in trouble at once: a common cause is likelier than as many \
                     single ones, so nothing is ended for {} and then {} in {}; this ends by itself when no more than \
                     {} % are in trouble",
                    brake.hold,
                    brake.floor.max(1),
                    brake.window,
                    brake.share
                );
                self.on = Some((now, Arc::from(why)));
                now
            }
        };
        let let_go = since.after(brake.hold) <= now && self.ended_within(brake, now) < brake.floor.max(1);
        if let_go {
            return Ok(());
        }
        Err(self.on.as_ref().map(|(_, why)| why.clone()).unwrap_or_default())
    }

    /// Sets the brake off. Returns the reason for which it was on.
    pub(crate) fn release(&mut self, now: Timestamp) -> Option<Arc<str>> {
        let (_, why) = self.on.take()?;
        self.off_at = Some(now);
        Some(why)
    }

    /// Something was ended on evidence.
    pub(crate) fn end(&mut self, lost: Lost, id: ResourceId, brake: &Brake, now: Timestamp) {
        while self.ended.front().is_some_and(|at| at.after(brake.window) <= now) {
            self.ended.pop_front();
        }
        self.ended.push_back(now);
        self.lost.retain(|_, (at, _)| at.after(brake.window) > now);
        self.lost.insert(lost, (now, id));
    }

    /// A machine is back.
    pub(crate) fn is_back(&mut self, machine: &MachineKey) {
        self.lost.remove(&Lost::Machine(machine.clone()));
    }

    /// A resource was made that was asked for at this time: it takes the place of the first of its pool that was lost before.
    pub(crate) fn is_replaced(&mut self, pool: &Arc<str>, asked_at: Timestamp) {
        let lost = self
            .lost
            .iter()
            .filter(|(lost, (at, _))| matches!(lost, Lost::Resource(name, _) if name == pool) && *at <= asked_at);
        if let Some(first) = lost.min_by_key(|(_, (at, _))| *at).map(|(lost, _)| lost.clone()) {
            self.lost.remove(&first);
        }
    }
}

/// The part of a resource in its domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// It could be in trouble.
    pub(crate) member: bool,
    /// It is.
    pub(crate) troubled: bool,
    /// It is probed, so that its silence is evidence on the broker's own network.
    pub(crate) probed: bool,
    /// It does not answer.
    pub(crate) silent: bool,
}

/// The kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// No answer to several checks in a row.
    Silence,
    /// A check found it unfit for use.
    Check,
}
