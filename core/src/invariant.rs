//! Invariants that hold after every step; checked by tests and by the simulator, never in production.

use crate::Core;
use crate::state::queue::{Party, Place};
use crate::state::ranks::Ranks;
use crate::{Ended, Fault, LeaseId, LeaseState, ResourceId, Revision, SessionId, Stage};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

impl Core {
    /// Checks the state against the invariants and the indices against the tables.
    ///
    /// # Errors
    ///
    /// The first violation, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        if self.is_unsettled() {
            return Err(format!("the last step did not settle: {:?}", self.dirty()));
        }
        if !self.consequences().is_empty() {
            return Err(format!("the last step left consequences: {:?}", self.consequences()));
        }
        self.check_slots()?;
        self.check_families()?;
        self.check_machines()?;
        self.check_changes()?;
        self.check_findings()?;
        self.check_queue()?;
        self.check_parties()?;
        self.check_ranks()?;
        self.check_held()?;
        self.check_sessions()?;
        self.check_counters()
    }

    /// 1: a slot is held by at most one live lease, and each holder stands in its resource's table.
    fn check_slots(&self) -> Result<(), String> {
        let mut held: BTreeMap<(ResourceId, u32), LeaseId> = BTreeMap::new();
        for entry in self.lease_entries() {
            let lease = &entry.row;
            let Some(assignment) = lease.assignment() else { continue };
            if let Some(other) = held.insert((assignment.resource, assignment.slot), lease.id) {
                return Err(format!(
                    "slot {} of {} is held by {other} and {}",
                    assignment.slot, assignment.resource, lease.id
                ));
            }
            let Some(resource) = self.entry(&assignment.resource) else {
                return Err(format!("{} holds a slot of {}, which is not there", lease.id, assignment.resource));
            };
            if !resource.slots.used().any(|(slot, by)| slot == assignment.slot && by == lease.id) {
                return Err(format!(
                    "{} holds slot {} of {}, which does not know it",
                    lease.id, assignment.slot, assignment.resource
                ));
            }
            // An idle copy stays on a host that is set apart.
            let idle_copy = resource.row.state.stage() == Stage::Apart
                && lease.spec.child.is_some_and(|copy| self.live_on(copy).is_empty());
            if !lease.ended()
                && !idle_copy
                && matches!(resource.row.state.stage(), Stage::Coming | Stage::Apart | Stage::Leaving | Stage::Gone)
            {
                let state = resource.row.state.as_str();
                return Err(format!("{} is live on {}, which is {state}", lease.id, assignment.resource));
            }
        }
        for entry in self.entries() {
            let id = &entry.row.id;
            for (slot, lease) in entry.slots.used() {
                if held.get(&(*id, slot)) != Some(&lease) {
                    return Err(format!("{id} says that {lease} holds its slot {slot}; it does not"));
                }
            }
        }
        Ok(())
    }

    /// 9: a finding that is open has a check to come, which settles it.
    fn check_findings(&self) -> Result<(), String> {
        let pending: BTreeSet<LeaseId> =
            self.entries().flat_map(|entry| &entry.row.failures).filter(|f| !f.cleared).map(|f| f.lease).collect();
        for entry in self.lease_entries() {
            if let LeaseState::Ended { how: Ended::Released { finding: Some(finding), .. }, .. } = &entry.row.state
                && finding.fault == Fault::Open
                && !pending.contains(&entry.row.id)
            {
                return Err(format!("the finding of {} stays open", entry.row.id));
            }
        }
        Ok(())
    }

    /// 8: a child lives no longer than its host, and each knows the other.
    fn check_families(&self) -> Result<(), String> {
        for entry in self.entries() {
            let id = &entry.row.id;
            let row = &entry.row;
            let Some(parent) = row.parent else { continue };
            let over = row.state.is_leaving();
            let Some(host) = parent.host else { continue };
            if over {
                continue;
            }
            let Some(host) = self.entry(&host) else {
                return Err(format!("{id} lives, its host {host} is not there"));
            };
            if host.row.state.is_leaving() {
                return Err(format!(
                    "{id} is {}, its host {} is {}",
                    row.state.as_str(),
                    host.row.id,
                    host.row.state.as_str()
                ));
            }
            if !host.children.contains(id) {
                return Err(format!("{} does not know its child {id}", host.row.id));
            }
            let holds = self.lease(parent.lease).is_some_and(|lease| matches!(lease.state, LeaseState::Active { .. }));
            if !holds {
                return Err(format!("{id} lives without its lease {} on its host", parent.lease));
            }
        }
        Ok(())
    }

    /// Each resource has one place in the order of changes, at its own latest change or after it.
    fn check_changes(&self) -> Result<(), String> {
        let all = self.resources_changed_after((Revision(0), ResourceId::new(0)));
        let mut places = 0;
        for ((at, id), row) in all {
            places += 1;
            if at < row.revision || self.entry(&id).is_none_or(|entry| entry.changed != at) {
                return Err(format!("{id} changed at {}, and its place is {}", row.revision.0, at.0));
            }
        }
        if (places, places) != (self.entries().count(), self.resource_change_count()) {
            return Err(format!("{places} of the resources have a place in the order of changes"));
        }
        Ok(())
    }

    /// 22: what an operator ordered for a machine is what its resource shows.
    fn check_machines(&self) -> Result<(), String> {
        for entry in self.entries() {
            let row = &entry.row;
            let Some(key) = self.machine_of(row.id).filter(|_| row.state.stage() != Stage::Gone) else { continue };
            let ordered = self.machine(&key).and_then(|machine| machine.cordoned.as_ref()).map(crate::Order::cordon);
            if ordered != row.cordoned {
                return Err(format!("{key} is cordoned: {ordered:?}; {} shows {:?}", row.id, row.cordoned));
            }
            let note = self.machine(&key).and_then(|machine| machine.note.as_ref());
            if note != row.note.as_ref() {
                return Err(format!("{key} has the note {note:?}; {} shows {:?}", row.id, row.note));
            }
            let drained = self.machine(&key).is_some_and(|machine| machine.drained.is_some());
            if drained && matches!(row.state.stage(), Stage::Coming | Stage::Ready | Stage::Doubted | Stage::Repairing)
            {
                return Err(format!("{key} is drained, and {} is {}", row.id, row.state.as_str()));
            }
        }
        Ok(())
    }

    /// 10: each queued lease is in the queue once, and no other one is.
    fn check_queue(&self) -> Result<(), String> {
        let mut seen: BTreeSet<LeaseId> = BTreeSet::new();
        for class in self.queue().classes() {
            let key = &class.key;
            let mut count = 0;
            let places =
                class.lanes.iter().flat_map(|((_, priority), lane)| lane.iter().map(|(n, w)| ((*priority, *n), w)));
            for (place, waiter) in places {
                if waiter.leases.len() != key.len() {
                    return Err(format!("a request of {} leases in a class of {}", waiter.leases.len(), key.len()));
                }
                for lease in &waiter.leases {
                    count += 1;
                    let at = self.queue().place(*lease);
                    if at.is_none_or(|at| at.place != place || at.key != *key) {
                        return Err(format!("{lease} stands at {place:?}, and is looked for at {at:?}"));
                    }
                    if !seen.insert(*lease) {
                        return Err(format!("{lease} stands in line twice"));
                    }
                    if !self.lease(*lease).is_some_and(|row| matches!(row.state, LeaseState::Queued)) {
                        return Err(format!("{lease} stands in line and is not queued"));
                    }
                }
            }
            if count != class.leases {
                return Err(format!("a class counts {} leases and has {count}", class.leases));
            }
        }
        for entry in self.lease_entries() {
            if matches!(entry.row.state, LeaseState::Queued) && !seen.contains(&entry.row.id) {
                return Err(format!("{} is queued and stands in no line", entry.row.id));
            }
        }
        Ok(())
    }

    /// Each party's heads are the first of its lanes, and its leases are counted.
    fn check_parties(&self) -> Result<(), String> {
        let mut fresh: BTreeMap<&Party, (BTreeSet<Place>, u32)> = BTreeMap::new();
        for ((party, priority), lane) in self.queue().classes().flat_map(|class| &class.lanes) {
            if !lane.is_counted() {
                return Err(format!("the requests of {party:?} are counted wrongly: {lane:?}"));
            }
            let (heads, leases) = fresh.entry(party).or_default();
            heads.extend(lane.first().map(|(seq, _)| (*priority, seq)));
            *leases += lane.values().map(|waiter| waiter.leases.len() as u32).sum::<u32>();
        }
        let own = self
            .queue()
            .parties()
            .map(|(party, own)| (party, (own.heads.values().flat_map(BTreeMap::keys).copied().collect(), own.leases)));
        let own: BTreeMap<&Party, (BTreeSet<Place>, u32)> = own.collect();
        if own != fresh { Err(format!("the parties in line are {own:?}, and should be {fresh:?}")) } else { Ok(()) }
    }

    /// The orders that are kept are those that ranking all parties anew gives.
    fn check_ranks(&self) -> Result<(), String> {
        for kept in self.kept_ranks() {
            let own = self.up_to_date(kept.clone());
            let fresh = self.up_to_date(Ranks::of(kept.reaches.clone()));
            if !own.is_like(&fresh) {
                return Err(format!("the kept order is {own:?}, and should be {fresh:?}"));
            }
        }
        Ok(())
    }

    /// The slots that a tenant counts are those that its leases hold.
    fn check_held(&self) -> Result<(), String> {
        let mut fresh: BTreeMap<&Arc<str>, u32> = BTreeMap::new();
        for lease in self.lease_entries().map(|entry| &entry.row) {
            if lease.spec.child.is_none() && lease.assignment().is_some() {
                *fresh.entry(&lease.spec.tenant).or_default() += 1;
            }
        }
        let own: BTreeMap<&Arc<str>, u32> = self.holding().map(|(name, held)| (name, held.slots)).collect();
        if own != fresh {
            return Err(format!("tenants count {own:?} slots, and hold {fresh:?}"));
        }
        for (name, held) in self.holding() {
            let mut by_pool: BTreeMap<Arc<str>, u32> = BTreeMap::new();
            let leases = self.lease_entries().map(|entry| &entry.row);
            for lease in leases.filter(|lease| lease.spec.child.is_none() && lease.spec.tenant == *name) {
                let Some(row) = lease.assignment().and_then(|hold| self.resource(hold.resource)) else { continue };
                let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resource(host));
                for row in [Some(row), host].into_iter().flatten() {
                    *by_pool.entry(row.pool.clone()).or_default() += 1;
                }
            }
            if held.by_pool != by_pool {
                return Err(format!("tenant {name} counts {:?} by pool, and holds {by_pool:?}", held.by_pool));
            }
        }
        Ok(())
    }

    /// A lease that a session keeps stands in its table, has no TTL of its own, and shows the doubt of its session. Each other
    /// active lease of a client has a TTL. The sessions of each principal are counted.
    fn check_sessions(&self) -> Result<(), String> {
        let mut kept: BTreeMap<SessionId, BTreeSet<LeaseId>> = BTreeMap::new();
        for lease in self.lease_entries().map(|entry| &entry.row).filter(|lease| !lease.ended()) {
            let id = lease.id;
            let active = matches!(lease.state, LeaseState::Active { .. });
            match lease.session.and_then(|session| self.session(session)) {
                Some(session) => {
                    kept.entry(session.id).or_default().insert(id);
                    if lease.holder_doubt != session.doubt {
                        let (own, other) = (lease.holder_doubt, session.doubt);
                        return Err(format!("{id} shows the doubt {own:?} in its holder, its session {other:?}"));
                    }
                    if active && lease.expires_at != lease.expires_at_most {
                        return Err(format!("{id} is kept by {}, and has a TTL of its own", session.id));
                    }
                }
                None if lease.holder_doubt.is_some() => {
                    return Err(format!("{id} shows doubt in its holder, and has no session"));
                }
                None if active && lease.spec.child.is_none() && lease.expires_at.is_none() => {
                    return Err(format!("{id} is kept by nothing, and has no TTL"));
                }
                None => {}
            }
        }
        let mut counts: BTreeMap<(&Arc<str>, &Arc<str>), u32> = BTreeMap::new();
        for session in self.sessions() {
            *counts.entry((&session.tenant, &session.principal)).or_default() += 1;
            let own: BTreeSet<LeaseId> = self.leases_of_session(session.id).into_iter().collect();
            let fresh = kept.remove(&session.id).unwrap_or_default();
            if own != fresh {
                return Err(format!("{} keeps {own:?}, and should keep {fresh:?}", session.id));
            }
        }
        for ((tenant, principal), fresh) in counts {
            let own = self.sessions_by(tenant, principal);
            if own != fresh {
                return Err(format!("{principal:?} of {tenant} counts {own} sessions, and has {fresh}"));
            }
        }
        Ok(())
    }

    /// The counters are what counting anew gives; no pool is above its maximum but by a reload that lowered it.
    fn check_counters(&self) -> Result<(), String> {
        let mut again = self.clone();
        again.reindex_all();
        let (own, fresh) = (self.network().counts(), again.network().counts());
        if own != fresh {
            return Err(format!("all hosts count {own:?}, and are {fresh:?}"));
        }
        for pool in self.pool_entries() {
            let name = &pool.config.name;
            let Some(fresh) = again.pool_entry(name) else { continue };
            let domains = |pool: &crate::state::tables::Pool| -> BTreeMap<_, _> {
                let counted = pool.domains.iter().map(|(name, d)| (name.clone(), d.counts()));
                counted.filter(|(_, counts)| *counts != (0, 0)).collect()
            };
            if domains(pool) != domains(fresh) {
                return Err(format!(
                    "pool {name} counts {:?} in its domains, and has {:?}",
                    domains(pool),
                    domains(fresh)
                ));
            }
            if pool.total != fresh.total || pool.free != fresh.free {
                return Err(format!("pool {name} counts {:?}, and has {:?}", pool.total, fresh.total));
            }
            if pool.no_room && self.room(pool) > 0 {
                return Err(format!("pool {name} is known to have no room, and has {}", self.room(pool)));
            }
            if pool.near != fresh.near {
                return Err(format!("pool {name} finds {:?} near, and has {:?}", pool.near, fresh.near));
            }
        }
        Ok(())
    }
}
