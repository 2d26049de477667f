//! Why a lease waits, in words that a person can act on; and what pools look like.

use crate::Core;
use crate::lifecycle::configuration::because;
use crate::lifecycle::losses::told;
use crate::policy::capacity::Extent;
use crate::policy::scheduler::Round;
use crate::query::places::more_slots;
use crate::state::tables::Pool;
use crate::state::want::Want;
use crate::{
    Blocker, BlockerCode, Ended, Explanation, ItemView, Lease, LeaseId, LeaseState, MachineKey, PoolView, ResourceId,
    ResourceState, Scope, Stage, Timestamp,
};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Maximum number of blockers in the message of a lease that waited in vain.
const AWAITED_MAX: usize = 3;

/// Maximum number of machines at rest that are blockers of one pool.
const RESTS_MAX: usize = 3;

impl Core {
    /// All pools in the order of the configuration, then those removed from it of which something is left.
    pub fn pools(&self) -> Vec<PoolView> {
        self.pool_order().iter().filter_map(|name| self.pool(name)).collect()
    }

    /// One pool.
    pub fn pool(&self, name: &str) -> Option<PoolView> {
        let pool = self.pool_entry(name)?;
        let mut by_state: BTreeMap<&'static str, u32> = BTreeMap::new();
        let (mut leases, mut cleaning) = (0, 0);
        let stand = self.resources_by_item(pool);
        let view = |item: &crate::Item| {
            let key = MachineKey { pool: pool.config.name.clone(), item: item.name.clone() };
            self.item_view(&key, Some(item), stand.get(&item.name).map(|row| row.id))
        };
        let items = pool.config.inventory.iter().flatten().map(view).collect();
        for id in &pool.members {
            let Some(entry) = self.entry(id) else { continue };
            *by_state.entry(entry.row.state.as_str()).or_default() += 1;
            leases += entry.slots.len();
            let ended = |lease: LeaseId| self.lease(lease).is_some_and(|lease| lease.ended());
            cleaning += entry.slots.used().filter(|(_, lease)| ended(*lease)).count() as u32;
        }
        let waiting = self
            .queue()
            .classes_for(&pool.config.name)
            .filter(|class| class.key.iter().any(|want| self.could_serve(pool, want)))
            .map(|class| class.leases)
            .sum();
        Some(PoolView {
            config: pool.config.clone(),
            configured: pool.configured,
            cordoned: pool.cordoned.clone(),
            by_state,
            free_slots: pool.total.free_slots,
            leases,
            cleaning,
            waiting,
            items,
            losses: pool.losses.clone().filter(|losses| losses.is_recent(self.now())),
            trouble: self.pool_trouble(pool),
            brakes: self.brake_views(pool),
            counters: pool.counters,
        })
    }

    /// One machine. It counts as disabled if the configuration does not have it.
    pub fn item(&self, key: &MachineKey) -> ItemView {
        let items = self.pool_entry(&key.pool).and_then(|pool| pool.config.inventory.as_ref());
        let item = items.into_iter().flatten().find(|item| item.name == key.item);
        self.item_view(key, item, self.resource_of(key))
    }

    /// One machine; `item`: its entry, `resource`: the resource that stands for it now.
    fn item_view(&self, key: &MachineKey, item: Option<&crate::Item>, resource: Option<ResourceId>) -> ItemView {
        let machine = self.machine(key);
        let losses = machine.and_then(|machine| machine.losses.as_ref());
        ItemView {
            name: key.item.clone(),
            enabled: item.is_some_and(|item| item.enabled),
            disabled_reason: item.and_then(|item| item.disabled_reason.clone()),
            resource,
            machine: machine.filter(|machine| machine.out()).cloned(),
            losses: losses.filter(|losses| losses.is_recent(self.now())).cloned(),
            note: machine.and_then(|machine| machine.note.clone()),
        }
    }

    fn pool_trouble(&self, pool: &Pool) -> Option<String> {
        if let (Some(until), Some(why)) = (pool.backoff.until, &pool.backoff.why)
            && until > self.now()
        {
            return Some(format!("making one failed {} times: {why}", pool.backoff.failures));
        }
        if let Some((name, losses)) = self.rests_in(pool).next() {
            return Some(format!("{name} rests: {}", told(losses)));
        }
        pool.members.iter().filter_map(|id| self.resource(*id)).find_map(|row| {
            if let ResourceState::Provisioning { attempt, .. } = row.state
                && attempt > 0
            {
                let name = row.item.as_deref().map_or_else(|| format!("{}", row.id), String::from);
                row.trouble.as_ref().map(|why| format!("{name} can't be made ready ({attempt} tries): {why}"))
            } else {
                None
            }
        })
    }

    /// Why a lease waits, or what became of it.
    ///
    /// `None`: there is none in this scope.
    pub fn explain(&self, id: LeaseId, now: Timestamp, scope: &Scope) -> Option<Explanation> {
        let lease = self.lease(id).filter(|lease| scope.sees(lease))?;
        let plain = |summary| Explanation { summary, position: 0, satisfiable: true, blockers: Vec::new() };
        Some(match &lease.state {
            LeaseState::Queued => self.explain_waiting(lease, now, scope),
            LeaseState::Preparing { assignment, .. } => {
                plain(format!("slot {} of {} is being made ready for it", assignment.slot, assignment.resource))
            }
            LeaseState::Active { assignment, .. } => {
                let left = lease.expires_at.map(|at| format!(", {} left", at.since(now))).unwrap_or_default();
                let doubt =
                    lease.doubt_for(scope).map(|why| format!("; the resource is in doubt: {why}")).unwrap_or_default();
                plain(format!("active on slot {} of {}{left}{doubt}", assignment.slot, assignment.resource))
            }
            LeaseState::Ended { how, cleanup, .. } => {
                let mut summary = match how {
                    Ended::Released { outcome, finding, .. } => {
                        let found = finding
                            .as_ref()
                            .map(|found| {
                                format!("; whose fault: {} ({})", found.fault.as_str(), found.detail_for(scope))
                            })
                            .unwrap_or_default();
                        format!("released by its holder: {}{found}", outcome.as_str())
                    }
                    Ended::Expired => String::from("its TTL ran out: the holder did not renew it"),
                    Ended::Broken { cause, replacement } => {
                        let mut text = String::from("broken");
                        for (n, link) in cause.iter().enumerate() {
                            text.push_str(if n == 0 { ": " } else { " ← " });
                            text.push_str(&format!(
                                "{} {}: {}",
                                link.subject,
                                link.reason.as_str(),
                                link.detail_for(scope)
                            ));
                        }
                        if let Some(replacement) = replacement {
                            text.push_str(&format!("; in its stead: {replacement}"));
                        }
                        text
                    }
                    Ended::Cancelled => String::from("cancelled by its holder before it was active"),
                    Ended::Failed { reason, detail, .. } => format!("failed ({}): {detail}", reason.as_str()),
                };
                if cleanup.is_some() {
                    summary.push_str("; its slot is being cleaned");
                }
                plain(summary)
            }
        })
    }

    fn explain_waiting(&self, lease: &Lease, now: Timestamp, scope: &Scope) -> Explanation {
        let selector = self.want_of(lease);
        let group = self.queue().together(lease.id).len() > 1;
        let at = self.queue().place(lease.id);
        let position = at.map_or(0, |at| self.position(at));
        let wants = at.map(|at| at.key.clone()).unwrap_or_default();
        let unmet = self.unmet(&wants, Extent::Configured);
        let mut blockers: Vec<Blocker> = at.and_then(|at| self.quota_blocker(at)).into_iter().collect();
        let never = blockers.iter().any(|blocker| blocker.code == BlockerCode::NeverWithinQuota);
        let satisfiable = unmet.is_empty() && !never;
        if let Some(at) = lease.not_before
            && at > now
        {
            let why = lease.trouble.as_deref().unwrap_or("a call to the outside failed");
            blockers.push(Blocker {
                pool: lease.spec.selector.pool.clone().unwrap_or_else(|| Arc::from("*")),
                code: BlockerCode::Delayed,
                detail: format!("put off for {}: {why}", at.since(now)),
                remedy: String::from("mend what it says, or wait"),
            });
        }
        let lacking = if group { self.lacking_wants(lease.id, &wants) } else { alloc::vec![(selector.clone(), 0, 0)] };
        if group {
            blockers.extend(lacking.iter().map(|(want, has, all)| incomplete(want, *has, *all)));
        }
        for (want, ..) in &lacking {
            for pool in self.pools_of(want).filter(|pool| want.pools().is_some() || self.could_serve(pool, want)) {
                self.blockers_of(pool, lease, want, (now, scope), &mut blockers);
            }
        }
        let waited = now.since(lease.created_at);
        let why_there = at.map(|at| self.why_there(at)).unwrap_or_default();
        let summary = if never {
            let first = blockers.first().map(|b| format!(": {}", b.detail)).unwrap_or_default();
            format!("waits for {selector}, which the quota of its tenant never allows{first}")
        } else if !satisfiable && group {
            let count = unmet.len();
            let want = &wants[unmet[0]];
            format!(
                "waits for {} slots together, of which the present configuration can never meet {count} (the first for \
                 {want}): it waits for a new one",
                wants.len()
            )
        } else if !satisfiable {
            format!("waits for {selector}, which the present configuration can never meet: it waits for a new one")
        } else {
            let first = blockers.first().map(|b| format!(": {}", b.detail)).unwrap_or_default();
            format!("number {position} in line for {selector}, for {waited}{first}{why_there}")
        };
        Explanation { summary, position, satisfiable, blockers }
    }

    /// The blockers of a waiting lease in one line: those that `explain` shows at this time, at most three.
    pub(crate) fn awaited(&self, lease: &Lease) -> String {
        let owner = Scope::Own { tenant: lease.spec.tenant.clone(), principal: lease.spec.principal.clone() };
        let said = self.explain_waiting(lease, self.now(), &owner);
        if !said.satisfiable || said.blockers.is_empty() {
            return said.summary;
        }
        let mut text = String::new();
        for blocker in said.blockers.iter().take(AWAITED_MAX) {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&format!("pool {}: {} ({})", blocker.pool, blocker.detail, blocker.code.as_str()));
        }
        text
    }

    /// The wants of a group that have fewer slots than they need, with how many they have and need.
    fn lacking_wants(&self, id: LeaseId, wants: &[Want]) -> Vec<(Want, usize, usize)> {
        let mut counts: BTreeMap<Want, (usize, usize)> = BTreeMap::new();
        for (want, has) in self.shortfall(id) {
            let count = counts.entry(want).or_default();
            count.0 += usize::from(has);
            count.1 += 1;
        }
        let mut lacking: Vec<(Want, usize, usize)> = Vec::new();
        for want in wants {
            if let Some((has, all)) = counts.remove(want)
                && has < all
            {
                lacking.push((want.clone(), has, all));
            }
        }
        lacking
    }

    fn blockers_of(
        &self,
        pool: &Pool,
        lease: &Lease,
        want: &Want,
        (now, scope): (Timestamp, &Scope),
        blockers: &mut Vec<Blocker>,
    ) {
        let name = pool.config.name.clone();
        let mut add = |code, detail: String, remedy: &str| {
            blockers.push(Blocker { pool: name.clone(), code, detail, remedy: String::from(remedy) });
        };
        if !pool.configured {
            add(
                BlockerCode::Removed,
                format!("pool {name} was removed from the configuration"),
                "put it back, or release the lease",
            );
            return;
        }
        if !pool.config.enabled {
            add(
                BlockerCode::Disabled,
                format!(
                    "pool {name} is disabled in the configuration{}",
                    because(pool.config.disabled_reason.as_ref())
                ),
                "set enabled = true and reload",
            );
            return;
        }
        if let Some(cordon) = &pool.cordoned {
            let why = &cordon.reason;
            add(
                BlockerCode::Cordoned,
                format!("pool {name} is cordoned by {}: {why}", cordon.by),
                "wharfinger uncordon --pool",
            );
            return;
        }
        let states = self.states(pool, want);
        let anothers =
            |id: &ResourceId| self.resource(*id).is_some_and(|row| self.is_anothers(&Round::default(), lease, row));
        if states.free > 0 && pool.free.iter().any(|(_, id)| anothers(id)) {
            add(
                BlockerCode::Isolated,
                String::from("what is free is on a host that another tenant uses, or was used by another one"),
                "wait: a host is emptied, or a resource replaced, when it is the turn of this request",
            );
        }
        if states.free > 0 && lease.avoid.iter().any(|id| pool.free.iter().any(|(_, free)| free == id)) {
            add(
                BlockerCode::Avoided,
                String::from("what is free failed this lease before; another one is being made"),
                "wait",
            );
        }
        if states.free > 0 && pool.free.iter().any(|(_, id)| self.resource(*id).is_some_and(|r| r.at_risk.is_some())) {
            add(
                BlockerCode::AtRisk,
                String::from("what is free may be taken away, says a notice; another one is being made"),
                "wait",
            );
        }
        if states.free > 0
            && lease.spec.expected.is_some()
            && pool.free.iter().any(|(_, id)| self.resource(*id).is_some_and(|r| r.ends_at.is_some()))
        {
            add(
                BlockerCode::EndsTooSoon,
                String::from("what is free ends before the work would"),
                "wait, or expect less",
            );
        }
        if let Some(waiting) = states.for_host {
            let mut parts = self.explain_waiting(&waiting, now, scope);
            // A pool that does not exist for the reader gives no blocker.
            if parts.blockers.iter().any(|blocker| !scope.shows_pool(&blocker.pool)) {
                parts = Explanation { summary: String::from("none is free"), blockers: Vec::new(), ..parts };
            }
            let why = parts
                .blockers
                .first()
                .map_or_else(|| parts.summary.clone(), |b| format!("pool {}: {}", b.pool, b.detail));
            let remedy = parts.blockers.first().map_or_else(|| String::from("wait"), |b| b.remedy.clone());
            add(BlockerCode::NoHost, format!("the next one waits for a slot on a host; {why}"), &remedy);
        }
        if states.provisioning > 0 {
            let tail = self.pool_trouble(pool).map(|why| format!("; {why}")).unwrap_or_default();
            let remedy = if tail.is_empty() { "wait" } else { "mend what it says; it is tried again by itself" };
            add(BlockerCode::Provisioning, format!("{} being made ready{tail}", states.provisioning), remedy);
        }
        for brake in self.brake_views(pool) {
            if let Some((_, why)) = brake.held {
                add(
                    BlockerCode::Braked,
                    String::from(&*why),
                    "look for what they share: network, provider, credentials",
                );
            }
        }
        if states.doubt > 0 {
            // The trouble of a shared resource may be in the words of a holder.
            let why = if scope.tells_of(Some(&name)) { states.why.as_str() } else { "" };
            add(
                BlockerCode::InDoubt,
                format!("{} in doubt or being repaired; a check is under way{}", states.doubt, why),
                "wait for the check",
            );
        }
        if let Some((detail, remedy)) = self.held_machines(pool, want, states.held) {
            add(BlockerCode::Held, detail, &remedy);
        }
        if let (Some(until), Some(why)) = (pool.backoff.until, &pool.backoff.why)
            && until > now
        {
            let detail =
                format!("making one failed {} times, again in {}: {why}", pool.backoff.failures, until.since(now));
            add(BlockerCode::BackingOff, detail, "mend what it says; it is tried again by itself");
        }
        for (name, losses) in self.rests_in(pool).take(RESTS_MAX) {
            let detail = format!("{name} comes back in {}: {}", losses.again_at.since(now), told(losses));
            let verb = if pool.config.inventory.is_some() { "recover" } else { "uncordon --pool" };
            add(
                BlockerCode::BackingOff,
                detail,
                &format!("mend what it says; `wharfinger {verb} {name}` makes it now"),
            );
        }
        if states.full > 0 {
            let most = pool.config.max;
            let mut detail = format!("{} of {} slots are in use", states.used, states.slots);
            detail.push_str(&self.users(pool, want, scope));
            if pool.total.capacity >= most && pool.config.inventory.is_none() {
                detail.push_str(&format!("; pool {name} has as many resources as it may (max = {most})"));
            }
            add(BlockerCode::Busy, detail, more_slots(pool));
        } else if pool.config.max == 0 {
            add(BlockerCode::AtMax, format!("pool {name} may have none: max = 0"), "raise `max`");
        }
    }

    fn states(&self, pool: &Pool, want: &Want) -> States {
        let mut states = States::default();
        for row in pool.members.iter().filter_map(|id| self.resource(*id)) {
            if !want.matches(&pool.config.name, &pool.config.labels, &row.labels)
                && !matches!(row.state, ResourceState::Provisioning { .. })
            {
                continue;
            }
            match row.state.stage() {
                Stage::Coming => {
                    let host = row.parent.and_then(|parent| self.lease(parent.lease));
                    match host.filter(|lease| matches!(lease.state, LeaseState::Queued)) {
                        Some(lease) => states.for_host = states.for_host.or_else(|| Some(lease.clone())),
                        None => states.provisioning += 1,
                    }
                }
                Stage::Ready => {
                    let (free, used) =
                        self.entry(&row.id).map_or((0, 0), |entry| (entry.counted.free, entry.slots.len()));
                    if free > 0 || self.leasable(row) {
                        states.free += u32::from(free > 0);
                        states.full += u32::from(free == 0);
                        states.used += used;
                        states.slots += used + free;
                    } else if row.parent.is_some() && row.cordoned.is_none() {
                        states.doubt += 1;
                        states.why = String::from(" (its host is)");
                    } else {
                        states.held += 1;
                    }
                }
                Stage::Doubted | Stage::Repairing => {
                    states.doubt += 1;
                    if let Some(why) = &row.trouble {
                        states.why = format!(": {why}");
                    }
                }
                Stage::Apart | Stage::Draining => states.held += 1,
                Stage::Leaving | Stage::Gone => {}
            }
        }
        states
    }
}

/// A want of a group that has too few slots.
fn incomplete(want: &Want, has: usize, all: usize) -> Blocker {
    let pool = match want.pools() {
        Some([pool]) => pool.clone(),
        Some(_) | None => Arc::from("*"),
    };
    Blocker {
        pool,
        code: BlockerCode::Incomplete,
        detail: format!("its group has {has} of the {all} slots for {want}; all are granted together"),
        remedy: String::from("wait, or ask for fewer at once"),
    }
}

#[derive(Default)]
struct States {
    /// Resources with a free slot, and those without one.
    free: u32,
    full: u32,
    /// Slots of both that a lease holds, and all of their slots.
    used: u32,
    slots: u32,
    provisioning: u32,
    doubt: u32,
    held: u32,
    /// The lease on a host for which one that is to be made waits.
    for_host: Option<Arc<Lease>>,
    why: String,
}
