//! The queue in the order of service: the requests in view with their places and likely starts, by class.
//!
//! A read of it is bounded, whatever waits: it numbers the requests while it walks, and never looks for the place of one by one.

use crate::Core;
use crate::policy::turn::Share;
use crate::query::start::{LikelyStart, NoStart};
use crate::state::lane::{Lane, Waiter};
use crate::state::queue::{Class, Party, Place, Stand};
use crate::state::want::{ClassKey, Want};
use crate::{Lease, LeaseId, Scope, Timestamp};
use alloc::collections::btree_map::Range;
use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::{Bound, ControlFlow};

/// Maximum number of requests that one read looks at.
const SEEN: usize = 5_000;
/// Maximum number of classes that one read walks over.
const WALKED: usize = 1_000;
/// Maximum number of classes with rows in one read.
const CLASSES: usize = 10;

/// Requests that want the same, and wait.
#[derive(Clone, Debug)]
pub struct QueueClass {
    key: ClassKey,
    /// Their wants, in words.
    pub wants: String,
    /// Number of the requests, of all tenants.
    pub requests: u32,
    /// Number of their leases.
    pub leases: u32,
}

impl QueueClass {
    /// Whether this is the same class, in another page.
    pub fn same_as(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// One request in line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueRow {
    /// Its class, by its number in the page.
    pub class: usize,
    /// Its place among the requests that want the same, from 1.
    pub position: u32,
    /// Its first lease in view.
    pub lease: Arc<Lease>,
    /// Its leases, which are granted together.
    pub leases: u32,
    /// When it is likely to start.
    pub start: Result<LikelyStart, NoStart>,
}

/// A part of the queue.
#[derive(Clone, Debug, Default)]
pub struct QueuePage {
    /// The classes of the rows, each once.
    pub classes: Vec<QueueClass>,
    /// The requests in view, by class, each class in the order of service.
    pub rows: Vec<QueueRow>,
    /// Where to go on. `None`: this was all.
    pub next: Option<QueuePlace>,
}

/// A place in the queue: a page begins after it.
#[derive(Clone, Debug)]
pub struct QueuePlace {
    key: ClassKey,
    /// In the class, after this request. `None`: from its first one on.
    after: Option<After>,
}

/// A request in a class, whether it still stands there or not.
#[derive(Clone, Debug)]
struct After {
    party: Party,
    place: Place,
    /// It has left the queue, and has the slots for which it waited.
    holds: bool,
}

/// A request in the order of service.
struct Served<'q> {
    position: u32,
    party: &'q Party,
    place: Place,
    waiter: &'q Waiter,
}

/// A lane, and how far it has been walked.
struct Walk<'q> {
    party: &'q Party,
    lane: &'q Lane,
    rest: Range<'q, u64, Waiter>,
    /// The requests of it that went before.
    before: u64,
    /// The slots that its tenant holds in the pools of the class, those of one request, and its weight.
    held: u64,
    together: u64,
    weight: u32,
}

impl Core {
    /// The place of a lease in the queue, or the one that it had. `None`: there is no such lease in this scope, or none that waited.
    pub(crate) fn queue_place(&self, id: LeaseId, scope: &Scope) -> Option<QueuePlace> {
        let lease = self.lease(id).filter(|lease| scope.sees(lease))?;
        if let Some(at) = self.queue().place(id) {
            return Some(QueuePlace {
                key: at.key.clone(),
                after: Some(After { party: at.party.clone(), place: at.place, holds: false }),
            });
        }
        // It has left the queue. Its request is that of all leases that stood with it.
        let whole = self.with_group(id);
        let together: Vec<&Arc<Lease>> =
            whole.iter().filter(|one| !one.spec.independent || one.id == id || one.attempts == 0).collect();
        let key: ClassKey = together.iter().map(|one| self.want_of(one)).collect::<Vec<Want>>().into();
        let party = lease.spec.child.is_none().then(|| lease.spec.tenant.clone());
        let seq = together.iter().map(|one| one.seq).min().unwrap_or(lease.seq);
        let (place, holds) = ((Reverse(lease.spec.priority), seq), lease.assignment().is_some());
        Some(QueuePlace { key, after: Some(After { party, place, holds }) })
    }

    /// A part of the queue, at most this many rows: of the classes that a pool could serve, or of all.
    pub(crate) fn queue_page(
        &self,
        (pool, scope): (Option<&str>, &Scope),
        from: Option<&QueuePlace>,
        room: usize,
        now: Timestamp,
    ) -> QueuePage {
        let pool = pool.map(|name| self.pool_entry(name));
        if pool.is_some_and(|pool| pool.is_none()) {
            return QueuePage::default();
        }
        let pool = pool.flatten();
        let mut page = QueuePage::default();
        let mut seen = 0;
        let classes = self.queue().classes_from(from.map(|from| &from.key));
        for (walked, class) in classes.enumerate() {
            if page.rows.len() >= room || seen >= SEEN || walked >= WALKED || page.classes.len() >= CLASSES {
                page.next = Some(QueuePlace { key: class.key.clone(), after: None });
                return page;
            }
            if pool.is_some_and(|pool| !class.key.iter().any(|want| is_for(self, pool, want))) {
                continue;
            }
            let after = from.filter(|from| from.key == class.key).and_then(|from| from.after.as_ref());
            if !class.lanes.keys().any(|(party, _)| may_show(scope, party)) {
                continue;
            }
            let mut rows: Vec<(Served<'_>, &Arc<Lease>)> = Vec::new();
            let found = page.rows.len();
            let next = &mut page.next;
            let _ = self.show_in_turn(class, after, &mut |served| {
                seen += 1;
                *next = Some(QueuePlace {
                    key: class.key.clone(),
                    after: Some(After { party: served.party.clone(), place: served.place, holds: false }),
                });
                if may_show(scope, served.party) {
                    let mut leases = served.waiter.leases.iter().filter_map(|id| self.lease(*id));
                    rows.extend(leases.find(|lease| scope.sees(lease)).map(|lease| (served, lease)));
                }
                if found + rows.len() >= room || seen >= SEEN {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            self.add_rows(&mut page, class, rows, now);
            if page.rows.len() >= room || seen >= SEEN {
                return page;
            }
            page.next = None;
        }
        page.next = None;
        page
    }

    fn add_rows(&self, page: &mut QueuePage, class: &Class, rows: Vec<(Served<'_>, &Arc<Lease>)>, now: Timestamp) {
        if rows.is_empty() {
            return;
        }
        let number = page.classes.len();
        page.classes.push(QueueClass {
            key: class.key.clone(),
            wants: wants(&class.key),
            requests: u32::try_from(class.requests).unwrap_or(u32::MAX),
            leases: class.leases,
        });
        let outlook = self.outlook(&class.key, now);
        let stand = |served: &Served<'_>, lease: &Lease| Stand {
            class: self.queue().place(lease.id).map_or(0, |at| at.class),
            key: class.key.clone(),
            place: served.place,
            party: served.party.clone(),
        };
        let stands: Vec<(Stand, u32, &Lease)> =
            rows.iter().map(|(served, lease)| (stand(served, lease), served.position, &***lease)).collect();
        let starts = self.starts(&outlook, &stands, now);
        page.rows.extend(rows.into_iter().zip(starts).map(|((served, lease), start)| QueueRow {
            class: number,
            position: served.position,
            lease: lease.clone(),
            leases: served.waiter.leases.len() as u32,
            start,
        }));
    }

    /// Shows the requests of a class in the order of service, after one of them, until it is enough.
    fn show_in_turn<'q>(&'q self, class: &'q Class, after: Option<&After>, show: &mut Show<'_, 'q>) -> ControlFlow<()> {
        let mut levels: BTreeMap<Reverse<i32>, Vec<(&Party, &Lane)>> = BTreeMap::new();
        for ((party, priority), lane) in &class.lanes {
            levels.entry(*priority).or_default().push((party, lane));
        }
        let mut base = 0;
        for (priority, lanes) in levels {
            let from = after.filter(|after| after.place.0 == priority);
            if after.is_none_or(|after| after.place.0 <= priority) {
                let level = Level { priority, base };
                let walks = self.walks(&class.key, &lanes, from);
                let own = lanes.iter().find(|(party, _)| party.is_none()).copied();
                level.serve(walks, own, from, show)?;
            }
            base += lanes.iter().map(|(_, lane)| lane.len() as u64).sum::<u64>();
        }
        ControlFlow::Continue(())
    }

    /// The lanes of tenants, each after what went before a request of this priority.
    fn walks<'q>(&self, key: &ClassKey, lanes: &[(&'q Party, &'q Lane)], after: Option<&After>) -> Vec<Walk<'q>> {
        let of_tenants = lanes.iter().copied().filter(|(party, _)| party.is_some());
        let mut walks: Vec<Walk<'q>> = of_tenants.map(|(party, lane)| self.walk(key, party, lane)).collect();
        match after {
            None => {}
            // After one of the broker's own: those of tenants came before.
            Some(After { party: None, .. }) => walks.iter_mut().for_each(Walk::pass_all),
            Some(After { party, place: (_, seq), holds }) => {
                let empty = Lane::default();
                let lane = lanes.iter().find(|(of, _)| *of == party).map_or(&empty, |(_, lane)| *lane);
                let older = lane.older_than(*seq) as u64;
                let last = self.walk(key, party, lane);
                let last = last.share(older + u64::from(!holds || lane.get(*seq).is_some()));
                walks.iter_mut().for_each(|walk| walk.pass((last, *seq)));
            }
        }
        walks
    }

    fn walk<'q>(&self, key: &ClassKey, party: &'q Party, lane: &'q Lane) -> Walk<'q> {
        let weight = self.tenant(party).map_or(1, |tenant| tenant.weight);
        let (held, together) = (self.held_for(party, key), key.len() as u64);
        Walk { party, lane, rest: lane.range(..), before: 0, held, together, weight }
    }
}

/// Is shown each request in turn, and says whether it is enough.
type Show<'s, 'q> = dyn FnMut(Served<'q>) -> ControlFlow<()> + 's;

/// The requests of one priority.
struct Level {
    priority: Reverse<i32>,
    /// Requests of higher ones.
    base: u64,
}

impl Level {
    /// Shows the lanes of tenants by their shares, then the broker's own lane.
    fn serve<'q>(
        &self,
        mut walks: Vec<Walk<'q>>,
        own: Option<(&'q Party, &'q Lane)>,
        after: Option<&After>,
        show: &mut Show<'_, 'q>,
    ) -> ControlFlow<()> {
        let own_before = |seq: u64| own.map_or(0, |(_, lane)| lane.older_than(seq));
        let place = |before: usize| u32::try_from(self.base + before as u64 + 1).unwrap_or(u32::MAX);
        let mut passed: usize = walks.iter().map(|walk| walk.before as usize).sum();
        let mut next: BinaryHeap<Reverse<(Share, u64, usize)>> = BinaryHeap::new();
        next.extend(
            walks.iter().enumerate().filter_map(|(n, walk)| walk.head().map(|(share, seq)| Reverse((share, seq, n)))),
        );
        while let Some(Reverse((_, seq, n))) = next.pop() {
            let walk = &mut walks[n];
            let Some((_, waiter)) = walk.rest.next() else { continue };
            walk.before += 1;
            let position = place(passed + own_before(seq));
            passed += 1;
            next.extend(walk.head().map(|(share, seq)| Reverse((share, seq, n))));
            show(Served { position, party: walk.party, place: (self.priority, seq), waiter })?;
        }
        let Some((party, lane)) = own else { return ControlFlow::Continue(()) };
        let mut of_tenants: Vec<u64> = walks.iter().flat_map(|walk| walk.lane.keys().copied()).collect();
        of_tenants.sort_unstable();
        let own_after = after.filter(|after| after.party.is_none());
        let from = own_after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.place.1));
        for (seq, waiter) in lane.range((from, Bound::Unbounded)) {
            let older = own_before(*seq) + of_tenants.partition_point(|other| other < seq);
            show(Served { position: place(older), party, place: (self.priority, *seq), waiter })?;
        }
        ControlFlow::Continue(())
    }
}

impl Walk<'_> {
    /// The share of its tenant with this number of its requests.
    fn share(&self, requests: u64) -> Share {
        Share::new(self.held + requests * self.together, self.weight)
    }

    /// The next request: the share with it, and its age.
    fn head(&self) -> Option<(Share, u64)> {
        self.rest.clone().next().map(|(seq, _)| (self.share(self.before + 1), *seq))
    }

    /// Goes past all of them.
    fn pass_all(&mut self) {
        self.before = self.lane.len() as u64;
        self.rest = self.lane.none();
    }

    /// Goes past those that are served up to a share and an age.
    fn pass(&mut self, last: (Share, u64)) {
        // The share grows with each request, whatever its age.
        let (mut least, mut most) = (0, self.lane.len() as u64);
        while least < most {
            let middle = least + (most - least) / 2;
            if self.share(middle + 1) < last.0 { least = middle + 1 } else { most = middle }
        }
        if self.before < least {
            self.before = least;
            self.rest = self.lane.behind(least as usize);
        }
        while self.head().is_some_and(|head| head <= last) {
            self.before += 1;
            self.rest.next();
        }
    }
}

/// Whether leases of a party may be in a scope.
fn may_show(scope: &Scope, party: &Party) -> bool {
    match scope {
        Scope::All => true,
        Scope::Own { tenant, .. } | Scope::Tenant(tenant) => party.as_ref() == Some(tenant),
        Scope::Within(within) => !within.of_all.is_none() || party.as_ref() == Some(&within.tenant),
    }
}

/// Whether a pool could serve a want.
fn is_for(core: &Core, pool: &crate::state::tables::Pool, want: &Want) -> bool {
    want.pools().is_none_or(|names| names.contains(&pool.config.name)) && core.could_serve(pool, want)
}

/// The wants of the requests of a class, in words.
fn wants(key: &ClassKey) -> String {
    let mut kinds: BTreeMap<&Want, u32> = BTreeMap::new();
    for want in key.iter() {
        *kinds.entry(want).or_default() += 1;
    }
    let one = |(want, count): (&Want, u32)| if count == 1 { format!("{want}") } else { format!("{count} × {want}") };
    kinds.into_iter().map(one).collect::<Vec<String>>().join(" with ")
}
