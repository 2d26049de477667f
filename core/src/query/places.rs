//! The places of a pool in words: who holds its slots, and which machines are out by whose order.

use crate::Core;
use crate::lifecycle::configuration::because;
use crate::state::tables::Pool;
use crate::state::want::Want;
use crate::{Lease, LeaseId, Losses, MachineKey, ResourceId, Scope, Stage};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Maximum number of leases or machines that one text names.
const NAMED: usize = 3;

impl Core {
    /// The leases in view that hold the slots which a want could use, as the end of a sentence.
    pub(crate) fn users(&self, pool: &Pool, want: &Want, scope: &Scope) -> String {
        let fits = |id: &ResourceId| {
            self.resource(*id).is_some_and(|row| want.matches(&pool.config.name, &pool.config.labels, &row.labels))
        };
        let entries = pool.members.iter().filter(|id| fits(id)).filter_map(|id| self.entry(id));
        let leases = entries.flat_map(|entry| entry.slots.used().map(|(_, lease)| lease));
        let users: Vec<String> =
            leases.filter_map(|id| self.lease(id)).filter_map(|lease| self.user(lease, scope)).collect();
        listed(&users).map(|text| format!(": {text}")).unwrap_or_default()
    }

    /// The user of a slot: a lease with its holder, or a working copy with its lease. `None`: it is out of view.
    fn user(&self, lease: &Lease, scope: &Scope) -> Option<String> {
        let Some(copy) = lease.spec.child else {
            let tail = if lease.ended() { ", being cleaned" } else { "" };
            return scope.sees(lease).then(|| format!("{} ({}{tail})", lease.id, lease.spec.holder));
        };
        let pool = self.resource(copy).map(|row| row.pool.clone()).unwrap_or_default();
        let live = self.entry(&copy).and_then(|entry| entry.slots.used().map(|(_, lease)| lease).next());
        match live.and_then(|id: LeaseId| self.lease(id)) {
            Some(lease) => scope
                .sees(lease)
                .then(|| format!("{} ({}) on the copy {copy} of pool {pool}", lease.id, lease.spec.holder)),
            None => Some(format!("the idle copy {copy} of pool {pool}")),
        }
    }

    /// The machines of a pool that rest after losses and are not out, or the pool itself, each by its name.
    pub(crate) fn rests_in<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = (String, &'a Losses)> {
        let machines = pool.config.inventory.iter().flatten().filter(|item| item.enabled).filter_map(|item| {
            let key = MachineKey { pool: pool.config.name.clone(), item: item.name.clone() };
            let losses = self.rest_of_machine(&key).filter(|_| !self.is_out(&key))?;
            Some((format!("{key}"), losses))
        });
        self.rest_of_pool(pool).map(|losses| (format!("{}", pool.config.name), losses)).into_iter().chain(machines)
    }

    /// The machines of a pool that fit a want and are out, and the remedy. `held`: resources that get no new leases.
    pub(crate) fn held_machines(&self, pool: &Pool, want: &Want, held: u32) -> Option<(String, String)> {
        let (mut named, mut remedy, mut unseen): (Vec<String>, Option<String>, u32) = (Vec::new(), None, 0);
        let stand = self.resources_by_item(pool);
        for item in pool.config.inventory.iter().flatten() {
            if !want.matches(&pool.config.name, &pool.config.labels, &item.labels) {
                continue;
            }
            let key = MachineKey { pool: pool.config.name.clone(), item: item.name.clone() };
            let there = stand.get(&item.name);
            unseen += u32::from(there.is_none_or(|row| row.state.stage() == Stage::Leaving) && self.is_out(&key));
            for (order, said) in self.machine(&key).iter().flat_map(|machine| machine.orders()) {
                let why = if said.reason.is_empty() { String::new() } else { format!(": {}", said.reason) };
                named.push(format!("{key} is {order} by {}{why}", said.by));
                let verb = match order {
                    "cordoned" => "uncordon",
                    "drained" => "undrain",
                    _ => "recover",
                };
                remedy.get_or_insert_with(|| format!("wharfinger {verb} {key}"));
            }
            if !item.enabled {
                let why = because(item.disabled_reason.as_ref());
                named.push(format!("{key} is disabled in the configuration{why}"));
                remedy.get_or_insert_with(|| format!("set enabled = true for {key} and reload"));
                unseen += u32::from(there.is_none() && !self.is_out(&key));
            }
        }
        let all = held + unseen;
        if all == 0 {
            return None;
        }
        let tail = listed(&named).map(|text| format!(": {text}")).unwrap_or_default();
        let remedy = remedy.unwrap_or_else(|| String::from("wharfinger resources shows by whom"));
        Some((format!("{all} cordoned, draining, held or quarantined{tail}"), remedy))
    }
}

/// The first of these, and the number of the others; `None`: there are none.
fn listed(texts: &[String]) -> Option<String> {
    let mut text = texts.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if texts.len() > NAMED {
        text.push_str(&format!(" and {} more", texts.len() - NAMED));
    }
    (!texts.is_empty()).then_some(text)
}

/// The way to more slots, by the kind of the pool.
pub(crate) fn more_slots(pool: &Pool) -> &'static str {
    if pool.config.inventory.is_some() {
        "wait for a release, raise `slots`, or add a host"
    } else if !pool.config.on.is_empty() {
        "wait for a release, or raise `max` and, where the hosts are full, their `slots`"
    } else {
        "wait for a release, or raise `max`"
    }
}
