//! A place whose resources are lost soon after they are ready rests before the next one is made (ADR 72).

use crate::lifecycle::resource::backoff;
use crate::model::losses::WELL;
use crate::state::tables::Pool;
use crate::{Core, Link, Losses, MachineKey, Millis, Reason, Resource, ResourceId, Timestamp};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// The longest rest.
const REST_MOST: Millis = Millis::secs(600);

impl Core {
    /// Counts the loss of a host that was ready: from the second one in a row on, the next resource waits.
    pub(super) fn note_loss(&mut self, row: &Resource, cause: &[Link]) {
        let Some(first) = cause.first().filter(|link| is_loss(link.reason)) else { return };
        let announced = row.ends_at.is_some() || !row.announced.is_empty();
        let Some(ready_at) = row.ready_at.filter(|_| row.parent.is_none() && !announced) else { return };
        let now = self.now();
        let soon = now.since(ready_at) < WELL;
        // All readers of the pool see it.
        let detail = first.reason.in_general().unwrap_or(&first.detail);
        let why: Arc<str> = Arc::from(format!("{}: {detail}", first.reason.as_str()));
        match self.machine_of(row.id) {
            Some(key) if self.is_out(&key) => {}
            Some(key) => {
                let before = self.machine(&key).and_then(|machine| machine.losses.clone());
                let losses = one_more(before.filter(|_| soon), now, why);
                self.edit_machine(&key, |machine| machine.losses = Some(losses));
            }
            None => {
                let Some(pool) = self.pool_entry(&row.pool).filter(|pool| pool.config.on.is_empty()) else { return };
                let before = pool.losses.clone();
                // Of several that are lost at once, the first one counts.
                let follows = before.as_ref().is_none_or(|before| row.created_at >= before.last);
                if follows || before.as_ref().is_some_and(|before| !before.is_recent(now) && !soon) {
                    let losses = one_more(before.filter(|_| soon), now, why);
                    self.set_pool_losses(&row.pool, Some(losses));
                }
            }
        }
    }

    /// Forgets the losses of a machine, by the word of an operator: it is made again at once.
    pub(crate) fn forgive_machine(&mut self, key: &MachineKey) {
        if self.machine(key).is_some_and(|machine| machine.losses.is_some()) {
            self.edit_machine(key, |machine| machine.losses = None);
        }
    }

    /// The same for a pool that makes its hosts at will.
    pub(crate) fn forgive_pool(&mut self, name: &Arc<str>) {
        if self.pool_entry(name).is_some_and(|pool| pool.losses.is_some()) {
            self.set_pool_losses(name, None);
        }
    }

    /// The losses for which a machine rests now.
    pub(crate) fn rest_of_machine(&self, key: &MachineKey) -> Option<&Losses> {
        self.machine(key)?.losses.as_ref().filter(|losses| losses.rests(self.now()))
    }

    /// The losses for which a pool rests now.
    pub(crate) fn rest_of_pool<'a>(&self, pool: &'a Pool) -> Option<&'a Losses> {
        pool.losses.as_ref().filter(|losses| losses.rests(self.now()))
    }

    /// The rest that the end of a resource begins, as the detail of its last entry in the audit trail; empty without one.
    pub(super) fn rest_after(&self, id: ResourceId) -> String {
        let Some(row) = self.resource(id).filter(|row| row.parent.is_none()) else { return String::new() };
        let losses = match self.machine_of(id) {
            Some(key) => self.rest_of_machine(&key),
            None => self.pool_entry(&row.pool).and_then(|pool| self.rest_of_pool(pool)),
        };
        losses
            .map(|losses| format!("{}; the next one is made in {}", told(losses), losses.again_at.since(self.now())))
            .unwrap_or_default()
    }
}

/// `it was lost 4 times in 25 s, the last time by RESOURCE_GONE: REBOOTED: …`.
pub(crate) fn told(losses: &Losses) -> String {
    let Losses { count, since, last, why, .. } = losses;
    format!("it was lost {count} times in {}, the last time by {why}", last.since(*since))
}

/// The losses with one more now; `before`: those which it follows soon.
fn one_more(before: Option<Losses>, now: Timestamp, why: Arc<str>) -> Losses {
    let Some(before) = before else { return Losses { count: 1, since: now, last: now, again_at: now, why } };
    let count = before.count.saturating_add(1);
    Losses { count, since: before.since, last: now, again_at: now.after(backoff(count - 1, REST_MOST)), why }
}

/// Whether an end for this reason is a loss: the resource was found dead or unfit, and nothing ordered its end.
fn is_loss(reason: Reason) -> bool {
    match reason {
        Reason::ResourceGone
        | Reason::ResourceUnreachable
        | Reason::ResourceMangled
        | Reason::CleanFailed
        | Reason::CheckBlind => true,
        Reason::ParentGone
        | Reason::ParentLost
        | Reason::Interrupted
        | Reason::Operator
        | Reason::Policy
        | Reason::Disabled
        | Reason::GroupBroken
        | Reason::ProvisionFailed
        | Reason::PrepareFailed
        | Reason::HolderFailed
        | Reason::HolderTainted
        | Reason::HolderAbandoned
        | Reason::HolderReported
        | Reason::HolderExpired
        | Reason::LeaseBroken
        | Reason::ConnectionLost
        | Reason::ProbeMissed
        | Reason::Notice
        | Reason::WorkBlamed => false,
    }
}
