//! A machine that flaps, and the rule that each of its losses makes the rest before the next resource longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger_core::{
    Batch, Core, Input, Machine, MachineKey, Millis, Notice, NoticeKind, NoticeTarget, Reason, Resource, ResourceId,
    ResourceState, Timestamp,
};

/// How long a resource of the machine that flaps is ready.
const WELL: Millis = Millis(1500);

/// The resources of a machine that flaps which are to die now, with the notice that tells it.
pub(crate) fn doomed(now: Timestamp, core: &Core) -> Vec<(ResourceId, Input)> {
    let of = |row: &&Arc<Resource>| {
        let ready = row.ready_at.is_some_and(|at| at.after(WELL) <= now);
        let stands = matches!(row.state, ResourceState::Ready | ResourceState::Suspect { .. });
        row.item.as_deref() == Some("h1") && ready && stands
    };
    let told = |row: &Arc<Resource>| {
        let (source, detail) = (Arc::from("world"), Arc::from("it flaps"));
        let target = NoticeTarget::Resource(row.id);
        let notice = Notice { pool: row.pool.clone(), target, kind: NoticeKind::Gone, source, detail };
        (row.id, Input::Notice(notice))
    };
    core.resources(None).filter(of).map(told).collect()
}

/// The losses of each machine, by the oracle's own count.
#[derive(Default)]
pub(crate) struct Rests {
    machines: BTreeMap<MachineKey, Arc<Machine>>,
    losses: BTreeMap<MachineKey, (u32, Timestamp)>,
    /// Losses that began a rest.
    pub(crate) rested: u64,
}

/// The shortest time from the last of some losses to the next resource.
fn rest(count: u32) -> Millis {
    match count.checked_sub(2) {
        None => Millis::ZERO,
        Some(doublings) => Millis::secs(600.min(1 << doublings.min(10))),
    }
}

impl Rests {
    /// 23: no machine is made again before its rest is over. `single`: the batch is of one input. In a batch of several inputs the
    /// order of a loss and of an operator's word that forgives is not known: the smaller count is taken, and nothing is judged.
    pub(crate) fn stored(
        &mut self,
        batch: &Batch,
        stood: &BTreeMap<ResourceId, Arc<Resource>>,
        single: bool,
    ) -> Result<(), String> {
        let out = |rests: &Self, key: &MachineKey| rests.machines.get(key).is_some_and(|machine| machine.out());
        for row in batch.resources.iter().filter(|row| row.parent.is_none()) {
            let Some(item) = &row.item else { continue };
            let key = MachineKey { pool: row.pool.clone(), item: item.clone() };
            let old = stood.get(&row.id);
            if over(row) && old.is_some_and(|old| !over(old) && is_lost(old, row)) && !out(self, &key) {
                let soon = row.ready_at.is_some_and(|at| batch.now.since(at) < Millis::secs(600));
                let before = self.losses.get(&key).filter(|_| soon).map_or(0, |(count, _)| *count);
                self.rested += u64::from(before > 0);
                self.losses.insert(key.clone(), (before + 1, batch.now));
            }
        }
        for machine in &batch.machines {
            match (&machine.losses, self.losses.get_mut(&machine.key)) {
                (None, _) => drop(self.losses.remove(&machine.key)),
                (Some(losses), Some((count, _))) if !single => *count = losses.count.min(*count),
                (Some(_), _) => {}
            }
            self.machines.insert(machine.key.clone(), machine.clone());
        }
        if !single {
            return Ok(());
        }
        for row in batch.resources.iter().filter(|row| row.parent.is_none() && !stood.contains_key(&row.id)) {
            let Some(item) = &row.item else { continue };
            let key = MachineKey { pool: row.pool.clone(), item: item.clone() };
            let Some((count, last)) = self.losses.get(&key) else { continue };
            if row.created_at < last.after(rest(*count)) {
                let since = row.created_at.since(*last);
                return Err(format!("(23) {key} was lost {count} times, and is made again {since} after the last"));
            }
        }
        Ok(())
    }
}

/// Whether it is being removed, or is gone.
fn over(row: &Resource) -> bool {
    matches!(row.state, ResourceState::Destroying { .. } | ResourceState::Orphaned { .. } | ResourceState::Gone { .. })
}

/// Whether its end is a loss: what a check or a notice found, and nothing that was announced.
fn is_lost(old: &Resource, row: &Resource) -> bool {
    let (ResourceState::Destroying { cause, .. }
    | ResourceState::Orphaned { cause, .. }
    | ResourceState::Gone { cause, .. }) = &row.state
    else {
        return false;
    };
    let found = cause.first().is_some_and(|link| {
        matches!(
            link.reason,
            Reason::ResourceGone
                | Reason::ResourceUnreachable
                | Reason::ResourceMangled
                | Reason::CleanFailed
                | Reason::CheckBlind
        )
    });
    found && old.ready_at.is_some() && old.ends_at.is_none() && old.announced.is_empty()
}
