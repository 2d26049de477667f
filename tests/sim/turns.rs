//! Which request stands before which where holders are of several tenants: by level, then by patience, then by share, then by age.
//!
//! The oracle sees a turn after its end. The tokens of the grants show their order, and all other changes of a turn come before its first
//! grant. So the oracle takes the grants back one by one, and has the state before each: the slots that each tenant holds, the slots
//! that are free, and the requests in line. It does not see which slots are kept for a tenant's requests in line, and not when the
//! patience of a tenant last began anew. So the turn of a request has two bounds. One request certainly stands before another if
//! its latest turn is before the earliest turn of the other. Where the bounds overlap, the oracle says nothing.
//!
//! The rule never complains of a right order. Say that W certainly stands before the granted request G, and waits. The first request of W's
//! row (its tenant and priority) stands before G, and so do all between it and W: the core looks at all of them before G, and its claims
//! on free slots contain those of W, or those of a request that wants the same. No grant makes these claims worse, and a slot
//! that adds nothing to a matching of many claims adds nothing to one of fewer. So the slots of G add nothing to a matching of W's
//! claims alone, on the slots that are free after the grant.

use crate::queue::{Look, Matching, Place, Slot, Waiter};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wharfinger_core::{Lease, LeaseId, Millis, Selector, Tenants, Timestamp};

/// A tenant, or `None`: the broker, whose working copies wait for hosts.
pub(crate) type Party = Option<Arc<str>>;

/// The wants of the leases of a request: the selector of each, or the pools on which a working copy may lie.
pub(crate) type Class = Vec<(Arc<Selector>, Option<Vec<Arc<str>>>)>;

/// Slots by weight.
#[derive(Clone, Copy, Debug)]
struct Share {
    slots: u64,
    weight: u32,
}

impl Share {
    /// The share of copies that are made for no tenant.
    const LAST: Self = Self { slots: u64::MAX, weight: 1 };
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (u128::from(self.slots), u128::from(other.slots));
        (own * u128::from(other.weight)).cmp(&(others * u128::from(self.weight)))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Share {}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum By {
    Age,
    Share(Share),
}

/// The turn of a request: the least is next.
type Turn = (Reverse<i64>, By, u64);

/// The terms on which tenants share, and when the patience of each may have begun anew.
#[derive(Default)]
pub(crate) struct Terms {
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) patience: Millis,
    begun: BTreeMap<(Party, Arc<str>), Timestamp>,
    /// The same in all pools.
    begun_everywhere: BTreeMap<Party, Timestamp>,
    /// When the patience of each certainly began anew.
    begun_for_sure: BTreeMap<(Party, Arc<str>), Timestamp>,
}

impl Terms {
    pub(crate) fn new(tenants: Arc<Tenants>, patience: Millis) -> Self {
        Self { tenants, patience, ..Self::default() }
    }

    /// Whether time raises no request.
    pub(crate) fn are_impatient(&self) -> bool {
        self.patience <= Millis::ZERO
    }

    fn weight(&self, tenant: &str) -> u32 {
        self.tenants.of(tenant).map_or(1, |tenant| tenant.weight.max(1))
    }

    /// The maximum number of slots of a tenant. One that is not configured may have none.
    pub(crate) fn most(&self, tenant: &str) -> Option<u64> {
        self.tenants.of(tenant).map_or(Some(0), |tenant| tenant.max_slots.map(u64::from))
    }

    /// A request was granted, maybe before its turn: the patience of its party may begin anew in these pools. `certain`: it went before
    /// its turn.
    pub(crate) fn begins(&mut self, party: &Party, pools: &BTreeSet<Arc<str>>, now: Timestamp, certain: bool) {
        let begun = || pools.iter().map(|pool| ((party.clone(), pool.clone()), now));
        self.begun.extend(begun());
        if certain {
            self.begun_for_sure.extend(begun());
        }
    }

    /// The same in all pools.
    pub(crate) fn begins_everywhere(&mut self, party: Party, now: Timestamp) {
        self.begun_everywhere.insert(party, now);
    }

    /// The broker recovered, and does not know when patience began anew.
    pub(crate) fn forget(&mut self) {
        self.begun_for_sure.clear();
    }

    /// The broker may forget it of a party that does not wait.
    pub(crate) fn forget_but(&mut self, waiting: &BTreeSet<Party>) {
        self.begun_for_sure.retain(|(party, _), _| waiting.contains(party));
    }
}

/// The party of a request.
pub(crate) fn party(leases: &[&Lease]) -> Party {
    leases[0].spec.child.is_none().then(|| leases[0].spec.tenant.clone())
}

/// A request that was granted in a turn, with its slots.
pub(crate) struct Grant<'a> {
    pub(crate) request: Waiter<'a>,
    pub(crate) slots: Vec<Slot<'a>>,
    /// The token of its first lease.
    pub(crate) token: u64,
}

/// The state right before a grant of a turn.
pub(crate) struct Moment<'l, 'a> {
    look: &'l Look<'a>,
    terms: &'l Terms,
    /// Requests that are in line at this moment.
    line: Vec<&'l Waiter<'a>>,
    /// Requests that this turn granted before.
    before: Vec<&'l Waiter<'a>>,
    /// Leases that get their slots from this moment on.
    later: BTreeSet<LeaseId>,
    /// Slots that are free, with those of the grant.
    free: Vec<Slot<'a>>,
    /// Classes with requests that have constraints of their own: several of such a class may keep slots.
    choosy: BTreeSet<Class>,
    /// The earliest and the latest turn of each request in line.
    turns: BTreeMap<Place, (Turn, Turn)>,
    /// Slots that the pools can have as they are switched now.
    possible: Vec<Slot<'a>>,
}

impl<'l, 'a> Moment<'l, 'a> {
    /// Before the grant of this number. `waiters`: requests that wait at the end. `free`: slots that are free then.
    pub(crate) fn new(
        (look, terms): (&'l Look<'a>, &'l Terms),
        waiters: &'l [Waiter<'a>],
        (grants, n): (&'l [Grant<'a>], usize),
        free: &[Slot<'a>],
    ) -> Self {
        let later = grants[n..].iter().flat_map(|grant| &grant.request.leases).map(|lease| lease.id).collect();
        let line: Vec<&Waiter<'a>> = waiters.iter().chain(grants[n..].iter().map(|grant| &grant.request)).collect();
        // Those of the grant are the last.
        let slots = grants[n..].iter().rev().flat_map(|grant| &grant.slots);
        let free = free.iter().chain(slots).copied().collect();
        let choosy = line.iter().filter(|waiter| look.is_choosy(waiter)).map(|waiter| look.class(waiter)).collect();
        let before = grants[..n].iter().map(|grant| &grant.request).collect();
        let possible = if terms.tenants.is_empty() { Vec::new() } else { look.possible(true) };
        let mut moment = Self { look, terms, line, before, later, free, choosy, turns: BTreeMap::new(), possible };
        moment.turns = moment.line.iter().map(|waiter| (waiter.place, moment.bounds(waiter))).collect();
        moment
    }

    /// Slots that a tenant holds in these pools, or in all.
    fn held(&self, tenant: &str, pools: Option<&BTreeSet<Arc<str>>>) -> u64 {
        let of = |lease: &Arc<Lease>| {
            let Some(hold) = lease.assignment() else { return 0 };
            let Some(pools) = pools else { return 1 };
            let Some(row) = self.look.resources.get(&hold.resource) else { return 0 };
            let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.look.resources.get(&host));
            [Some(row), host].into_iter().flatten().filter(|row| pools.contains(&row.pool)).count() as u64
        };
        let own = |lease: &&Arc<Lease>| lease.spec.child.is_none() && *lease.spec.tenant == *tenant;
        self.look.leases.values().filter(own).filter(|lease| !self.later.contains(&lease.id)).map(of).sum()
    }

    /// The levels that a request may have at most and at least.
    fn levels(&self, waiter: &Waiter<'_>) -> (i64, i64) {
        let own = i64::from(waiter.place.0.0);
        if self.terms.are_impatient() {
            return (own, own);
        }
        let patience = self.terms.patience.0;
        let created = waiter.leases[0].created_at;
        let of = |since: Timestamp| own + self.look.now.since(since).0.max(0) / patience;
        let (pools, party) = (self.look.pools_of(waiter), party(&waiter.leases));
        let last = |begun: &BTreeMap<(Party, Arc<str>), Timestamp>| {
            let named = |pool: &Arc<str>| pools.as_ref().is_none_or(|pools| pools.contains(pool));
            let own = begun.iter().filter(|((other, pool), _)| *other == party && named(pool));
            own.map(|(_, at)| *at).max().unwrap_or(created)
        };
        let everywhere = self.terms.begun_everywhere.get(&party).copied().unwrap_or(created);
        let (sure, maybe) = (last(&self.terms.begun_for_sure), last(&self.terms.begun).max(everywhere));
        (of(created.max(sure)), of(created.max(maybe)))
    }

    /// Whether one may be looked at before the other one.
    fn may_go_before(&self, one: &Waiter<'_>, other: &Waiter<'_>) -> bool {
        if one.place.0 == other.place.0 && party(&one.leases) == party(&other.leases) {
            return one.place < other.place;
        }
        self.levels(one).0 >= self.levels(other).1
    }

    /// Whether a tenant may be the one for which the broker wants a host for this copy.
    fn wants_copy(&self, tenant: &str, copy: &Waiter<'_>, requests: &[&Waiter<'_>]) -> bool {
        let child = copy.leases[0].spec.child.and_then(|child| self.look.resources.get(&child));
        child.is_some_and(|child| {
            requests.iter().any(|waiter| {
                party(&waiter.leases).as_deref() == Some(tenant)
                    && self.look.pools_of(waiter).is_none_or(|pools| pools.contains(&child.pool))
            })
        })
    }

    /// The requests of a tenant, and of the broker for it, that may be looked at before this one; of each class one, where that is how
    /// many keep slots. A request of the same class keeps what this one would keep.
    fn ahead(&self, tenant: &str, of: &Waiter<'_>) -> Vec<&'l Waiter<'a>> {
        let own = self.look.class(of);
        let mut seen = BTreeSet::new();
        let all: Vec<&Waiter<'a>> = self.line.iter().chain(&self.before).copied().collect();
        let ahead = self.line.iter().copied().filter(|waiter| {
            let counts = match party(&waiter.leases) {
                Some(name) => *name == *tenant,
                None => self.wants_copy(tenant, waiter, &all),
            };
            if waiter.place == of.place || !counts || !self.may_go_before(waiter, of) {
                return false;
            }
            let class = self.look.class(waiter);
            self.choosy.contains(&class) || class != own && seen.insert(class)
        });
        ahead.collect()
    }

    /// Slots that are kept for a tenant at most when a request is looked at.
    fn kept(&self, tenant: &str, ahead: &[&Waiter<'_>]) -> u64 {
        let mut matching = Matching::new();
        let leases = ahead.iter().flat_map(|waiter| &waiter.leases);
        let kept = leases.filter(|lease| matching.add(self.look.options(lease, &self.free))).count();
        // Slots of hosts that the broker got for a tenant in this turn count as kept for it.
        let all: Vec<&Waiter<'a>> = self.line.iter().chain(&self.before).copied().collect();
        let copies = self.before.iter().filter(|waiter| waiter.leases[0].spec.child.is_some());
        (kept + copies.filter(|copy| self.wants_copy(tenant, copy, &all)).count()) as u64
    }

    /// The share that a tenant has with a request, at least and at most. `of`: the request, or the broker's for the tenant.
    fn share_of(&self, tenant: &str, of: &Waiter<'_>) -> (Share, Share) {
        let least = self.held(tenant, self.look.pools_of(of).as_ref()) + of.leases.len() as u64;
        let weight = self.terms.weight(tenant);
        let most = least + self.kept(tenant, &self.ahead(tenant, of));
        (Share { slots: least, weight }, Share { slots: most, weight })
    }

    /// The share of a request, at least and at most. The broker asks for the tenant with the least share of those that want the copy.
    fn share(&self, of: &Waiter<'_>) -> (Share, Share) {
        if let Some(tenant) = party(&of.leases) {
            return self.share_of(&tenant, of);
        }
        let all: Vec<&Waiter<'a>> = self.line.iter().chain(&self.before).copied().collect();
        let tenants: BTreeSet<Arc<str>> = all.iter().filter_map(|waiter| party(&waiter.leases)).collect();
        let wanting = |requests: &[&Waiter<'a>]| {
            let wants = |tenant: &&Arc<str>| self.wants_copy(tenant, of, requests);
            tenants.iter().filter(wants).map(|tenant| self.share_of(tenant, of)).collect::<Vec<_>>()
        };
        let least = wanting(&all).into_iter().map(|(least, _)| least).min();
        let most = wanting(&self.line).into_iter().map(|(_, most)| most).min();
        (least.unwrap_or(Share::LAST), most.unwrap_or(Share::LAST))
    }

    /// The earliest and the latest turn of a request.
    fn bounds(&self, of: &Waiter<'_>) -> (Turn, Turn) {
        let (most, least) = self.levels(of);
        let shares = self.share(of);
        let turn = |level: i64, share| {
            let by = if level > i64::from(of.place.0.0) { By::Age } else { By::Share(share) };
            (Reverse(level), by, of.place.1)
        };
        (turn(most, shares.0), turn(least, shares.1))
    }

    /// Whether several tenants are certainly in line. Where there is one, no share is looked at.
    fn is_contested(&self) -> bool {
        let tenants: BTreeSet<Arc<str>> = self.line.iter().filter_map(|waiter| party(&waiter.leases)).collect();
        tenants.len() > 1
    }

    /// Whether its tenant certainly may have it: no request before it and not itself goes beyond the quota.
    pub(crate) fn is_within_quota(&self, of: &Waiter<'_>) -> bool {
        let Some(tenant) = party(&of.leases) else { return true };
        let Some(most) = self.terms.most(&tenant) else { return true };
        // One that can never be granted as the pools and quotas are now is passed over, and those behind it are not.
        let may_be_next = |waiter: &&&Waiter<'_>| {
            waiter.leases.len() as u64 <= most && self.look.all_fit(&waiter.leases, &self.possible)
        };
        let of_tenant = |waiter: &&&Waiter<'_>| party(&waiter.leases).as_ref() == Some(&tenant);
        let own = self.line.iter().filter(of_tenant).filter(may_be_next);
        // Any of them may be the one after which the tenant is passed over.
        let largest = own.map(|waiter| waiter.leases.len()).max().unwrap_or(0).max(of.leases.len()) as u64;
        let counts = |waiter: &&Waiter<'_>| party(&waiter.leases).is_none_or(|other| other == tenant);
        let others = self.line.iter().copied().filter(|waiter| waiter.place != of.place);
        let ahead: Vec<&Waiter<'_>> = others.filter(counts).collect();
        self.held(&tenant, None) + self.kept(&tenant, &ahead) + largest <= most
    }

    /// How two requests certainly stand to each other; `None`: the bounds overlap.
    pub(crate) fn order(&self, one: &Waiter<'a>, other: &Waiter<'a>) -> Option<Ordering> {
        let (of_one, of_other) = (party(&one.leases), party(&other.leases));
        if of_one == of_other && one.place.0 == other.place.0 {
            return Some(one.place.cmp(&other.place));
        }
        if of_one.is_none() != of_other.is_none() && !self.is_contested() {
            return None;
        }
        if self.row_stands_before(one, other) {
            return Some(Ordering::Less);
        }
        self.row_stands_before(other, one).then_some(Ordering::Greater)
    }

    /// Whether a request and all before it in its row certainly stand before another one.
    fn row_stands_before(&self, one: &Waiter<'a>, other: &Waiter<'a>) -> bool {
        let (earliest, _) = self.turns[&other.place];
        let own = party(&one.leases);
        let mut row = self.line.iter().filter(|waiter| {
            waiter.place.0 == one.place.0 && waiter.place <= one.place && party(&waiter.leases) == own
        });
        row.all(|waiter| self.turns[&waiter.place].1 < earliest)
    }

    /// Whether a request was granted before its turn, maybe.
    pub(crate) fn may_be_patient(&self, of: &Waiter<'_>) -> bool {
        self.levels(of).0 > i64::from(of.place.0.0)
    }

    /// Whether it certainly was: it has risen, and a request of another tenant competes with it.
    pub(crate) fn is_patient(&self, of: &Waiter<'_>) -> bool {
        let own = party(&of.leases);
        let pools = self.look.pools_of(of);
        let competes = |waiter: &&&Waiter<'_>| match (&pools, self.look.pools_of(waiter)) {
            (Some(own), Some(other)) => !own.is_disjoint(&other),
            (None, _) | (_, None) => true,
        };
        let mut others = self.line.iter().filter(|waiter| {
            let other = party(&waiter.leases);
            other.is_some() && other != own
        });
        own.is_some() && self.levels(of).1 > i64::from(of.place.0.0) && others.any(|waiter| competes(&waiter))
    }

    /// Slots that are free after the grant.
    pub(crate) fn left(&self, grant: &Grant<'a>) -> &[Slot<'a>] {
        &self.free[..self.free.len() - grant.slots.len()]
    }

    /// Slots that are free before the grant.
    pub(crate) fn free(&self) -> &[Slot<'a>] {
        &self.free
    }

    /// All slots that a tenant holds.
    pub(crate) fn holds(&self, tenant: &str) -> u64 {
        self.held(tenant, None)
    }

    /// Whether a class has requests with constraints of their own.
    pub(crate) fn is_choosy(&self, class: &Class) -> bool {
        self.choosy.contains(class)
    }

    /// The bounds of these requests, and those of the grant.
    pub(crate) fn explained(&self, requests: &[&Waiter<'a>], grant: &Grant<'a>) -> String {
        let shown = |waiter: &Waiter<'a>| {
            let (earliest, latest) = self.turns[&waiter.place];
            format!("{} of {:?} from {earliest:?} to {latest:?}", waiter.leases[0].id, party(&waiter.leases))
        };
        let all: Vec<String> = requests.iter().copied().chain([&grant.request]).map(shown).collect();
        all.join("; ")
    }
}
