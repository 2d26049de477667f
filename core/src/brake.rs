//! The brake: when much of a failure domain is in trouble at once, a common cause is likelier than as many single ones.
//!
//! Held is what rests on silence or on a check's word. Proof (another boot, another host key, the provider's word),
//! notices and operators are not. A small domain is never held, and the brake clears by itself.

use crate::machine::Core;
use crate::{Brake, BrakeView, Millis, PoolConfig, ResourceId, ResourceState, Subject, Timestamp};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// One failure domain: a pool, a part of it by label, or all hosts together (the broker's own network).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Domain {
    /// Resources that could be in trouble.
    pub(crate) members: u32,
    /// Those that are.
    pub(crate) troubled: u32,
    /// When resources were ended on evidence, oldest first.
    ended: VecDeque<Timestamp>,
    /// Since when the brake is on, and why.
    on: Option<(Timestamp, Arc<str>)>,
}

impl Domain {
    fn recent(&self, brake: &Brake, now: Timestamp) -> u32 {
        self.ended.iter().filter(|at| at.after(brake.window) > now).count() as u32
    }

    /// Members and those in trouble, with those ended within the window, if that is too much for a coincidence.
    fn over(&self, brake: &Brake, now: Timestamp) -> Option<(u32, u32)> {
        let recent = self.recent(brake, now);
        let (members, troubled) = (self.members + recent, self.troubled + recent);
        let over = members > brake.floor && u64::from(troubled) * 100 > u64::from(brake.share) * u64::from(members);
        over.then_some((members, troubled))
    }

    /// Whether one more may be ended now; `Err`: why not.
    fn ask(&mut self, brake: &Brake, now: Timestamp, name: &str) -> Result<(), Arc<str>> {
        let Some((members, troubled)) = self.over(brake, now) else {
            self.on = None;
            return Ok(());
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
        let let_go = since.after(brake.hold) <= now && self.recent(brake, now) < brake.floor.max(1);
        if let_go {
            return Ok(());
        }
        Err(self.on.as_ref().map(|(_, why)| why.clone()).unwrap_or_default())
    }

    fn end(&mut self, brake: &Brake, now: Timestamp) {
        while self.ended.front().is_some_and(|at| at.after(brake.window) <= now) {
            self.ended.pop_front();
        }
        self.ended.push_back(now);
    }
}

/// What a resource adds to its domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// It could be in trouble.
    pub(crate) member: bool,
    /// It is.
    pub(crate) troubled: bool,
    /// It is probed, so that its silence says something of the broker's own network.
    pub(crate) probed: bool,
    /// It does not answer.
    pub(crate) silent: bool,
}

/// What evidence is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// No answer, so many times over so long.
    Silence,
    /// A check says that it is not fit for use.
    Check,
}

impl Core {
    /// What a resource adds to its domains. Only roots count: what lies on a host shares its fate.
    pub(crate) fn share_of(&self, id: ResourceId) -> Share {
        let Some(entry) = self.resources.get(&id) else { return Share::default() };
        let row = &entry.row;
        let Some(pool) = self.pools.get(&row.pool) else { return Share::default() };
        let missed = entry.liveness.misses > 0;
        let (member, troubled, silent) = match &row.state {
            ResourceState::Ready => (true, false, false),
            ResourceState::Draining { .. } => (true, missed, missed),
            ResourceState::Suspect { misses, held, .. } => (true, *misses > 0 || held.is_some(), *misses > 0),
            ResourceState::Repairing { .. } => (true, true, false),
            ResourceState::Provisioning { .. }
            | ResourceState::Quarantined { .. }
            | ResourceState::Destroying { .. }
            | ResourceState::Orphaned { .. }
            | ResourceState::Gone { .. } => (false, false, false),
        };
        if row.parent.is_some() {
            return Share::default();
        }
        Share { member, troubled, probed: member && pool.config.traits.probes, silent }
    }

    /// The name of a resource's domain within its pool.
    pub(crate) fn domain_of(config: &PoolConfig, row: &crate::Resource) -> Arc<str> {
        let value = config.domain.as_ref().and_then(|key| row.labels.get(key).or_else(|| config.labels.get(key)));
        value.cloned().unwrap_or_default()
    }

    /// Counts a resource's share anew. `domain` is where it is counted now; returns where it is counted from now on.
    pub(crate) fn recount_share(
        &mut self,
        id: ResourceId,
        before: Share,
        domain: Option<Arc<str>>,
    ) -> (Share, Option<Arc<str>>) {
        let share = self.share_of(id);
        let Some(row) = self.resource(id).cloned() else { return (before, domain) };
        let Some(pool) = self.pools.get_mut(&row.pool) else { return (before, domain) };
        let name = share.member.then(|| Self::domain_of(&pool.config, &row));
        if share == before && name == domain {
            return (before, domain);
        }
        if let Some(old) = domain.as_ref().and_then(|old| pool.domains.get_mut(old)) {
            old.members -= u32::from(before.member);
            old.troubled -= u32::from(before.troubled);
            if old.members == 0 && old.ended.is_empty() {
                let old = domain.clone().unwrap_or_default();
                pool.domains.remove(&old);
            }
        }
        if let Some(new) = name.clone() {
            let new = pool.domains.entry(new).or_default();
            new.members += u32::from(share.member);
            new.troubled += u32::from(share.troubled);
        }
        let network = &mut self.network;
        network.members = network.members - u32::from(before.probed) + u32::from(share.probed);
        network.troubled =
            network.troubled - u32::from(before.probed && before.silent) + u32::from(share.probed && share.silent);
        if before.troubled && !share.troubled {
            self.ease(&row.pool, domain.as_ref());
        }
        (share, name)
    }

    /// Something in this domain is in trouble no more: is the brake needed still?
    fn ease(&mut self, pool: &Arc<str>, domain: Option<&Arc<str>>) {
        let now = self.now;
        let mut cleared: Vec<String> = Vec::new();
        if let Some(own) = self.pools.get_mut(pool) {
            let brake = own.config.brake;
            if let Some(domain) = domain.and_then(|name| own.domains.get_mut(name))
                && domain.on.is_some()
                && domain.over(&brake, now).is_none()
            {
                domain.on = None;
                cleared.push(format!("{} of {} are in trouble still", domain.troubled, domain.members));
            }
        }
        if self.network.on.is_some() && self.network.over(&self.limits.brake, now).is_none() {
            self.network.on = None;
            cleared.push(format!("{} of {} hosts are silent still", self.network.troubled, self.network.members));
        }
        for why in cleared {
            self.own_event("pool.brake-off", Subject::Pool(pool.clone()), why);
        }
    }

    /// Whether this evidence may end the resource now; if so, it is counted. Otherwise says why it is held back.
    pub(crate) fn held_back(&mut self, id: ResourceId, evidence: Evidence) -> Option<Arc<str>> {
        let row = self.resource(id)?.clone();
        let now = self.now;
        let network_brake = self.limits.brake;
        let pool = self.pools.get_mut(&row.pool)?;
        if pool.config.doubt.dry_run {
            let what = match evidence {
                Evidence::Silence => "given up",
                Evidence::Check => "repaired or replaced",
            };
            return Some(Arc::from(format!("it would be {what} now, but dry_run is set for pool {}", row.pool)));
        }
        if row.parent.is_some() {
            return None;
        }
        let brake = pool.config.brake;
        let domain_name = Self::domain_of(&pool.config, &row);
        let label = pool.config.domain.clone();
        let called = match label {
            Some(label) if !domain_name.is_empty() => format!("of pool {} with {label}={domain_name}", row.pool),
            _ => format!("of pool {}", row.pool),
        };
        let domain = pool.domains.entry(domain_name).or_default();
        let was_on = domain.on.is_some();
        let own = domain.ask(&brake, now, &called);
        let turned_on = !was_on && domain.on.is_some();
        let network_was_on = self.network.on.is_some();
        let all = match evidence {
            Evidence::Silence => self.network.ask(
                &network_brake,
                now,
                "hosts of all pools (the network of the broker itself is the first suspect)",
            ),
            Evidence::Check => Ok(()),
        };
        let network_on = !network_was_on && self.network.on.is_some();
        match own.and(all) {
            Ok(()) => {
                if let Some(pool) = self.pools.get_mut(&row.pool) {
                    pool.domains.entry(Self::domain_of(&pool.config, &row)).or_default().end(&brake, now);
                }
                if evidence == Evidence::Silence {
                    self.network.end(&network_brake, now);
                }
                None
            }
            Err(why) => {
                if turned_on || network_on {
                    self.own_event("pool.brake-on", Subject::Pool(row.pool.clone()), &*why);
                }
                Some(why)
            }
        }
    }

    /// Evidence is there and not acted upon: the resource stays in doubt, its leases live, and it is asked again.
    pub(crate) fn hold_back(&mut self, id: ResourceId, why: &Arc<str>, found: &str, misses: (u32, Option<Timestamp>)) {
        let Some(row) = self.resource(id).cloned() else { return };
        let ResourceState::Suspect { held: before, .. } = &row.state else { return };
        let first = before.is_none();
        let Some(pool) = self.pools.get(&row.pool) else { return };
        let policy = pool.config.doubt;
        let dry = policy.dry_run;
        // Not as often as when the answer decides something, but soon enough that the brake's end is used.
        let wait = policy.retry_interval.max(policy.probe_interval.min(Millis::secs(5))).max(Millis::secs(1));
        let retry = Some(self.now.after(wait));
        self.edit_resource(id, |row| {
            if let ResourceState::Suspect { op, retry_at, misses: m, first_miss, held, .. } = &mut row.state {
                *op = None;
                *retry_at = retry;
                *m = misses.0;
                *first_miss = misses.1;
                *held = Some(why.clone());
            }
            row.trouble = Some(Arc::from(format!("{found}; held: {why}")));
        });
        if first {
            let kind = if dry { "resource.would-end" } else { "resource.held-back" };
            self.own_event(kind, Subject::Resource(id), format!("{found}; {why}"));
            let leases = self.live_below(id).len() as u64;
            if let Some(pool) = self.pools.get_mut(&row.pool) {
                if dry {
                    pool.counters.would_end += 1;
                    pool.counters.would_break += leases;
                } else {
                    pool.counters.held += 1;
                }
            }
        }
    }

    /// The domains of a pool of which some members are in trouble, and the whole network if its brake is on.
    pub(crate) fn brake_views(&self, pool: &crate::tables::Pool) -> Vec<BrakeView> {
        let now = self.now;
        let brake = &pool.config.brake;
        let mut views: Vec<BrakeView> = Vec::new();
        for (name, domain) in &pool.domains {
            let recent = domain.recent(brake, now);
            if domain.troubled + recent == 0 {
                continue;
            }
            let held = domain.on.clone().filter(|_| domain.over(brake, now).is_some());
            let (members, troubled) = (domain.members + recent, domain.troubled + recent);
            views.push(BrakeView { domain: name.clone(), members, troubled, held });
        }
        if let Some(on) = &self.network.on
            && self.network.over(&self.limits.brake, now).is_some()
            && pool.config.traits.probes
        {
            let (members, troubled) = (self.network.members, self.network.troubled);
            views.push(BrakeView { domain: Arc::from("*"), members, troubled, held: Some(on.clone()) });
        }
        views
    }
}
