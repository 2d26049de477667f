//! The failure domains of all pools: who is in them, and whether evidence may end a resource now.

use crate::policy::brake::{Domain, Evidence, Lost, Share};
use crate::{BrakeView, Core, EventKind, Millis, PoolConfig, ResourceId, ResourceState, Stage, Subject, Timestamp};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// The part of a resource in its domains. Only hosts count: a working copy shares the fate of its host.
    pub(crate) fn share_of(&self, id: ResourceId) -> Share {
        let Some(entry) = self.entry(&id) else { return Share::default() };
        let row = &entry.row;
        let Some(pool) = self.pool_entry(&row.pool) else { return Share::default() };
        let missed = entry.liveness.misses > 0;
        let (mut misses, mut held) = (false, false);
        if let ResourceState::Suspect { misses: missed, held: why, .. } = &row.state {
            (misses, held) = (*missed > 0, why.is_some());
        }
        let (member, troubled, silent) = match row.state.stage() {
            Stage::Ready => (true, false, false),
            Stage::Draining => (true, missed, missed),
            Stage::Doubted => (true, misses || held, misses),
            Stage::Repairing => (true, true, false),
            Stage::Coming | Stage::Apart | Stage::Leaving | Stage::Gone => (false, false, false),
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
            old.count(id, false, before.troubled, false);
            if old.is_unused() {
                let old = domain.clone().unwrap_or_default();
                pool.domains.remove(&old);
            }
        }
        if let Some(new) = name.clone() {
            pool.domains.entry(new).or_default().count(id, true, false, share.troubled);
        }
        let silent = |share: Share| share.probed && share.silent;
        self.network.count(id, share.probed, silent(before), silent(share));
        if before.troubled && !share.troubled {
            self.ease(&row.pool, domain.as_ref());
        }
        (share, name)
    }

    /// Something in this domain is in trouble no more: is the brake needed still?
    fn ease(&mut self, pool: &Arc<str>, domain: Option<&Arc<str>>) {
        let now = self.now();
        let mut cleared: Vec<String> = Vec::new();
        if let Some(own) = self.pools.get_mut(pool) {
            let brake = own.config.brake;
            if let Some(domain) = domain.and_then(|name| own.domains.get_mut(name))
                && domain.is_on()
                && domain.over(&brake, now).is_none()
            {
                domain.release(now);
                let (members, troubled) = domain.counts();
                cleared.push(format!("{troubled} of {members} are in trouble still"));
            }
        }
        if self.network.is_on() && self.network.over(&self.limits().brake, now).is_none() {
            self.network.release(now);
            let (members, silent) = self.network.counts();
            cleared.push(format!("{silent} of {members} hosts are silent still"));
        }
        for why in cleared {
            self.own_event(EventKind::PoolBrakeOff, Subject::Pool(pool.clone()), why);
        }
    }

    /// Misses count from here on: before, the broker itself was away, or a common cause was likelier. A check that was
    /// under way when the brake went off says silence still, while all others are well again.
    pub(crate) fn misses_count_since(&self, id: ResourceId) -> Timestamp {
        let own = self.resource(id).and_then(|row| {
            let pool = self.pool_entry(&row.pool)?;
            pool.domains.get(&Self::domain_of(&pool.config, row))?.off_at()
        });
        [own, self.network.off_at()].into_iter().flatten().fold(self.heard_since(), Ord::max)
    }

    /// Whether this evidence may end the resource now; if so, it is counted. Otherwise says why it is held back.
    pub(crate) fn held_back(&mut self, id: ResourceId, evidence: Evidence) -> Option<Arc<str>> {
        let row = self.resource(id)?.clone();
        let now = self.now();
        let network_brake = self.limits().brake;
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
        let was_on = domain.is_on();
        let own = domain.ask(&brake, now, &called);
        let turned_on = !was_on && domain.is_on();
        let network_was_on = self.network.is_on();
        let all = match evidence {
            Evidence::Silence => self.network.ask(
                &network_brake,
                now,
                "hosts of all pools (the network of the broker itself is the first suspect)",
            ),
            Evidence::Check => Ok(()),
        };
        let network_on = !network_was_on && self.network.is_on();
        match own.and(all) {
            Ok(()) => {
                let lost = self.machine_of(id).map_or_else(|| Lost::Resource(row.pool.clone(), id), Lost::Machine);
                if let Some(pool) = self.pools.get_mut(&row.pool) {
                    let domain = pool.domains.entry(Self::domain_of(&pool.config, &row)).or_default();
                    domain.end(lost.clone(), id, &brake, now);
                }
                if evidence == Evidence::Silence {
                    self.network.end(lost, id, &network_brake, now);
                }
                None
            }
            Err(why) => {
                if turned_on || network_on {
                    self.own_event(EventKind::PoolBrakeOn, Subject::Pool(row.pool.clone()), &*why);
                }
                Some(why)
            }
        }
    }

    /// A host was made: the machine that was lost is back, or the resource that was lost is replaced.
    pub(crate) fn is_back(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).filter(|row| row.parent.is_none()).cloned() else { return };
        let machine = self.machine_of(id);
        let Some(pool) = self.pools.get_mut(&row.pool) else { return };
        let back = |domain: &mut Domain| match &machine {
            Some(machine) => domain.is_back(machine),
            None => domain.is_replaced(&row.pool, row.created_at),
        };
        match &machine {
            // Its labels may have changed.
            Some(_) => pool.domains.values_mut().for_each(back),
            None => {
                let name = Self::domain_of(&pool.config, &row);
                pool.domains.get_mut(&name).into_iter().for_each(back);
            }
        }
        back(&mut self.network);
        self.ease(&row.pool, Some(&Self::domain_of(&self.pools[&row.pool].config, &row)));
    }

    /// One fell silent: others of its domains are asked at once, so that the common cause shows before it is given up.
    pub(crate) fn ask_peers(&mut self, id: ResourceId) {
        for peer in self.peers_of(id) {
            let now = self.now();
            let Some(entry) = self.resources.get_mut(&peer) else { continue };
            let liveness = &mut entry.liveness;
            let probed = matches!(entry.row.state.stage(), Stage::Ready | Stage::Draining);
            if probed && !liveness.in_flight && liveness.heard_at.is_none_or(|at| at < now) {
                liveness.next = Some(now);
                self.arm_resource(peer);
            }
        }
    }

    /// Others to compare it with; none where its domain is too small for a brake.
    fn peers_of(&self, id: ResourceId) -> BTreeSet<ResourceId> {
        let mut peers = BTreeSet::new();
        let Some(entry) = self.entry(&id) else { return peers };
        let Some(pool) = self.pool_entry(&entry.row.pool) else { return peers };
        if !entry.share.probed {
            return peers;
        }
        if let Some(own) = entry.domain.as_ref().and_then(|name| pool.domains.get(name))
            && own.counts().0 > pool.config.brake.floor
        {
            peers.extend(own.peers(id));
        }
        if self.network.counts().0 > self.limits().brake.floor {
            peers.extend(self.network.peers(id));
        }
        peers
    }

    /// Silent since `first`: is it too early to say that it is alone in that? Until all others had their turn to be
    /// probed, most of those that were asked must have answered since.
    pub(crate) fn too_early(&self, id: ResourceId, first: Timestamp) -> bool {
        let Some(pool) = self.resource(id).and_then(|row| self.pool_entry(&row.pool)) else { return false };
        let policy = pool.config.doubt;
        let turn = Millis(policy.probe_interval.0 + policy.probe_interval.0 / 5 + policy.over.0);
        if first.after(turn) <= self.now() {
            return false;
        }
        let peers = self.peers_of(id);
        let heard = |peer: &&ResourceId| {
            self.entry(peer).is_some_and(|entry| entry.liveness.heard_at.is_some_and(|at| at >= first))
        };
        let answered = peers.iter().filter(heard).count();
        !peers.is_empty() && answered * 2 <= peers.len()
    }

    /// The domains of a pool of which some members are in trouble, and the whole network if its brake is on.
    pub(crate) fn brake_views(&self, pool: &crate::state::tables::Pool) -> Vec<BrakeView> {
        let now = self.now();
        let brake = &pool.config.brake;
        let mut views: Vec<BrakeView> = Vec::new();
        for (name, domain) in &pool.domains {
            let missing = domain.missing(brake, now);
            let (members, troubled) = domain.counts();
            let (members, troubled) = (members + missing, troubled + missing);
            if troubled == 0 {
                continue;
            }
            let held = domain.held(brake, now);
            views.push(BrakeView { domain: name.clone(), members, troubled, held });
        }
        if let Some(on) = self.network.held(&self.limits.brake, now)
            && pool.config.traits.probes
        {
            let (members, troubled) = self.network.counts();
            views.push(BrakeView { domain: Arc::from("*"), members, troubled, held: Some(on) });
        }
        views
    }
}
