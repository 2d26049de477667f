//! The rules of the queue in a world of several tenants: quotas, requests that wait beside free slots, and the order of grants.
//!
//! `turns.rs` says which order is certain. The counts show how often the rules were applied, and which situations they leave out.

use crate::queue::{Changes, Look, Matching, Slot, Waiter};
use crate::turns::{Grant, Moment, Terms, party};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{GroupId, Lease, LeaseId, LeaseState};

type Checked = Result<(), String>;

/// How often the rules between tenants were applied, by name.
#[derive(Default)]
pub(crate) struct Judged {
    counts: BTreeMap<&'static str, u64>,
}

impl Judged {
    /// All names, also of what never happened.
    const NAMES: [&'static str; 9] = [
        Self::EARLIER,
        Self::LATER,
        Self::OPEN,
        Self::QUOTA,
        Self::BESIDE,
        Self::AT_RISK,
        Self::GAVE_WAY,
        Self::SUCCESSORS,
        Self::PATIENT,
    ];
    /// A request of another party waits and could use a slot of a grant: it certainly stood before the grant.
    pub(crate) const EARLIER: &'static str = "orders judged: the one that waits was before";
    /// The same: it certainly stood behind.
    pub(crate) const LATER: &'static str = "orders judged: the one that waits was behind";
    /// The same: the bounds overlap.
    pub(crate) const OPEN: &'static str = "orders left open";
    /// A tenant with a quota got a slot.
    pub(crate) const QUOTA: &'static str = "grants within a quota";
    /// Requests that were asked for whether they wait beside free slots.
    pub(crate) const BESIDE: &'static str = "requests judged beside free slots";
    /// The order of a grant was left out: a slot may be taken away, so that some requests do without it.
    const AT_RISK: &'static str = "grants left out: a slot is at risk";
    /// The orders of a turn were left out: slots changed hands between its grants.
    const GAVE_WAY: &'static str = "grants left out: a group gave way";
    /// The order of a grant was left out: whether it was granted with others of its set is not known.
    const SUCCESSORS: &'static str = "grants left out: a successor of a set";
    /// A request of a tenant was granted, and may have gone before its turn.
    pub(crate) const PATIENT: &'static str = "grants after the patience";

    fn note(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    fn add(&mut self, name: &'static str, times: u64) {
        *self.counts.entry(name).or_default() += times;
    }

    /// A tenant with a quota got a slot.
    pub(crate) fn within_quota(&mut self) {
        self.note(Self::QUOTA);
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Self::NAMES.into_iter().map(|name| (name, self.counts.get(name).copied().unwrap_or(0)))
    }
}

impl<'a> Look<'a> {
    /// All rules between tenants. Notes when the patience of a tenant may have begun anew.
    pub(crate) fn check_tenants(
        &self,
        (terms, judged): (&mut Terms, &mut Judged),
        waiters: &[Waiter<'a>],
        mut free: Vec<Slot<'a>>,
        changes: &Changes,
    ) -> Checked {
        self.queues_within_quota(terms, changes)?;
        self.keeps_within_quota(terms, changes)?;
        let grants = self.grants(changes);
        let end = Moment::new((self, terms), waiters, (&grants, grants.len()), &free);
        if !free.iter().any(|slot| self.is_uncertain(slot)) {
            self.none_waits_beside_slots_for_all(&end, waiters, &free, judged)?;
        }
        free.extend(self.reclaimed(changes));
        for (n, grant) in grants.iter().enumerate() {
            let moment = Moment::new((self, terms), waiters, (&grants, n), &free);
            self.is_within_its_quota(&moment, terms, grant, judged)?;
            if changes.gave_way {
                judged.note(Judged::GAVE_WAY);
            } else if moment.free().iter().any(|slot| self.is_uncertain(slot)) {
                judged.note(Judged::AT_RISK);
            } else if grant.request.leases.iter().any(|lease| is_ambiguous(lease)) {
                judged.note(Judged::SUCCESSORS);
            } else {
                self.keeps_to_the_order(&moment, waiters, grant, changes, judged)?;
            }
            if moment.may_be_patient(&grant.request) {
                judged.add(Judged::PATIENT, u64::from(party(&grant.request.leases).is_some()));
                let certain = moment.is_patient(&grant.request) && !changes.gave_way;
                let all = || self.pools.iter().map(|pool| pool.config.name.clone()).collect();
                let pools = self.pools_of(&grant.request).unwrap_or_else(all);
                terms.begins(&party(&grant.request.leases), &pools, self.now, certain);
            }
        }
        terms.forget_but(&waiters.iter().map(|waiter| party(&waiter.leases)).collect());
        Ok(())
    }

    /// The requests that were granted, in the order of their grants.
    fn grants(&self, changes: &Changes) -> Vec<Grant<'a>> {
        let mut together: BTreeMap<GroupId, Vec<&'a Lease>> = BTreeMap::new();
        let mut requests: Vec<Vec<&'a Lease>> = Vec::new();
        for lease in changes.granted.iter().filter_map(|id| self.leases.get(id)) {
            let fresh = lease.attempts == 0 && lease.delays == 0;
            match lease.spec.group {
                Some(group) if !lease.spec.independent || fresh => together.entry(group).or_default().push(lease),
                Some(_) | None => requests.push(vec![lease]),
            }
        }
        requests.extend(together.into_values());
        let mut grants: Vec<Grant<'a>> = requests.into_iter().filter_map(|leases| self.grant(leases)).collect();
        grants.sort_by_key(|grant| grant.token);
        grants
    }

    fn grant(&self, mut leases: Vec<&'a Lease>) -> Option<Grant<'a>> {
        leases.sort_by_key(|lease| lease.spec.index);
        let holds = || leases.iter().filter_map(|lease| lease.assignment());
        let token = holds().map(|hold| hold.token).min()?;
        let slot = |id| {
            let row = self.resources.get(id)?;
            Some(Slot::of(self.pool(&row.pool)?, row))
        };
        let slots = holds().filter_map(|hold| slot(&hold.resource)).collect();
        let seq = leases.iter().map(|lease| lease.seq).min()?;
        let request = Waiter { place: (Reverse(leases[0].spec.priority), seq), leases };
        Some(Grant { request, slots, token })
    }

    /// `max_queue`: a request that waits was refused if its tenant had as many leases in line. `asked` are new, and those in
    /// line before it are the others, with those that this turn granted.
    fn queues_within_quota(&self, terms: &Terms, changes: &Changes) -> Checked {
        let of_client = |lease: &&Arc<Lease>| lease.spec.child.is_none() && lease.spec.replaces.is_none();
        let asked = || changes.asked.iter().filter_map(|id| self.leases.get(id)).filter(of_client);
        let waits = |lease: &Lease| matches!(lease.state, LeaseState::Queued);
        // A request for now or never is not bounded, and never waits.
        let Some(new) = asked().find(|lease| waits(lease)) else { return Ok(()) };
        let tenant = &new.spec.tenant;
        let Some(most) = terms.tenants.of(tenant).and_then(|tenant| tenant.max_queue) else { return Ok(()) };
        let known = |lease: &&Arc<Lease>| {
            lease.spec.tenant == *tenant
                && lease.spec.child.is_none()
                && (waits(lease) || changes.granted.contains(&lease.id))
                && !changes.asked.contains(&lease.id)
                && !changes.requeued.contains(&lease.id)
        };
        let (before, count) = (self.leases.values().filter(known).count(), asked().count());
        if before + count > most as usize {
            return Err(format!("(quota) {} is accepted beside {before} in line, more than {most}", new.id));
        }
        Ok(())
    }

    /// `max_held`: the resources that are kept at the request of a tenant.
    fn keeps_within_quota(&self, terms: &Terms, changes: &Changes) -> Checked {
        for tenant in &changes.kept_for {
            let Some(most) = terms.tenants.of(tenant).and_then(|tenant| tenant.max_held) else { continue };
            let kept = self.resources.values().filter(|row| row.held_for.as_ref() == Some(tenant)).count();
            if kept > most as usize {
                return Err(format!("(quota) {kept} resources are kept for {tenant}, more than {most}"));
            }
        }
        Ok(())
    }

    /// `max_slots`: a grant is within the quota of its tenant.
    fn is_within_its_quota(
        &self,
        moment: &Moment<'_, 'a>,
        terms: &Terms,
        grant: &Grant<'a>,
        judged: &mut Judged,
    ) -> Checked {
        let Some(tenant) = party(&grant.request.leases) else { return Ok(()) };
        let Some(most) = terms.most(&tenant) else { return Ok(()) };
        judged.note(Judged::QUOTA);
        let held = moment.holds(&tenant) + grant.request.leases.len() as u64;
        if held > most {
            let first = grant.request.leases[0].id;
            return Err(format!("(quota) with {first} {tenant} holds {held} slots, more than {most}"));
        }
        Ok(())
    }

    /// 10: a request is granted once its leases find slots beside all other requests, whichever stands before it.
    fn none_waits_beside_slots_for_all(
        &self,
        end: &Moment<'_, 'a>,
        waiters: &[Waiter<'a>],
        free: &[Slot<'a>],
        judged: &mut Judged,
    ) -> Checked {
        let mut asked = BTreeSet::new();
        for waiter in waiters {
            let class = self.class(waiter);
            if self.is_choosy(waiter) || asked.contains(&class) || !end.is_within_quota(waiter) {
                continue;
            }
            asked.insert(class.clone());
            judged.note(Judged::BESIDE);
            let mut seen = BTreeSet::from([class]);
            // Of a class with requests that have constraints of their own several may keep slots.
            let keeps = |other: &&Waiter<'a>| {
                let class = self.class(other);
                other.place != waiter.place && (end.is_choosy(&class) || seen.insert(class))
            };
            let mut matching = Matching::new();
            for lease in waiters.iter().filter(keeps).flat_map(|other| &other.leases) {
                matching.add(self.options(lease, free));
            }
            if waiter.leases.iter().all(|lease| matching.add(self.options(lease, free))) {
                return Err(format!("(10) {} waits beside slots that are free for all", waiter.leases[0].id));
            }
        }
        Ok(())
    }

    /// 10: the slots of a grant were kept for no request that certainly stood before it.
    fn keeps_to_the_order(
        &self,
        moment: &Moment<'_, 'a>,
        waiters: &[Waiter<'a>],
        grant: &Grant<'a>,
        changes: &Changes,
        judged: &mut Judged,
    ) -> Checked {
        let possible = self.possible(true);
        let mut classes = BTreeSet::new();
        let mut before: Vec<&Waiter<'a>> = Vec::new();
        for waiter in waiters {
            // A copy that is new in this turn asks for its host after the first grants.
            let late = |lease: &&Lease| lease.spec.child.is_some() && changes.asked.contains(&lease.id);
            if self.is_choosy(waiter) || waiter.leases.iter().any(late) || !self.all_fit(&waiter.leases, &possible) {
                continue;
            }
            let order = moment.order(waiter, &grant.request);
            let could_use = |slot: &Slot<'_>| waiter.leases.iter().any(|lease| self.fits(lease, slot));
            if party(&waiter.leases) != party(&grant.request.leases) && grant.slots.iter().any(could_use) {
                judged.note(match order {
                    Some(Ordering::Less) => Judged::EARLIER,
                    Some(_) => Judged::LATER,
                    None => Judged::OPEN,
                });
            }
            if order == Some(Ordering::Less) && moment.is_within_quota(waiter) && classes.insert(self.class(waiter)) {
                before.push(waiter);
            }
        }
        let matched = |slots: &[Slot<'_>]| {
            let mut matching = Matching::new();
            let leases = before.iter().flat_map(|waiter| &waiter.leases);
            leases.filter(|lease| matching.add(self.options(lease, slots))).count()
        };
        if matched(moment.free()) > matched(moment.left(grant)) {
            let ids: Vec<LeaseId> = before.iter().map(|waiter| waiter.leases[0].id).collect();
            let first = grant.request.leases[0].id;
            return Err(format!(
                "(10) {first} has a slot that was kept for one of {ids:?}: {}",
                moment.explained(&before, grant)
            ));
        }
        Ok(())
    }
}

/// Whether a lease may have been granted with others of its set, or alone.
fn is_ambiguous(lease: &Lease) -> bool {
    let again = lease.attempts > 0 || lease.delays > 0;
    again && lease.spec.group.is_some() && lease.spec.independent && lease.spec.replaces.is_some()
}
