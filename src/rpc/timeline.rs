//! One story from many entries of the audit trail: what happened to a lease with all that it hung on, or to a resource
//! with all that hung on it.
//!
//! Every entry has its subject, and a lease's own entries say little of why it ended. So its story is put together from
//! its own entries, those of each resource that it was on and of the host under it, from when it was asked for until
//! they were fit for use again, those of the brake of its pools, and the beginning of its successor.

use crate::pb;
use crate::pb::TimelineRole;
use crate::rpc::context::Context;
use crate::rpc::convert::{self, About};
use crate::rpc::status::RpcError;
use crate::store::{EventQuery, StoredEvent};
use std::collections::{BTreeMap, BTreeSet};
use wharfinger_core::{Ended, EventKind, LeaseId, LeaseState, Reading, ResourceId, Revision, Scope, View};

/// How long after a lease's end its resource may take to be fit for use again, and still belong to its story.
const AFTER_MS: i64 = 10 * 60 * 1000;
/// Entries read for one part of a story: more than are ever told.
const PART: usize = 2000;
/// Entries of a resource after a lease's end: a check and some repairs are few.
const TAIL: usize = 200;
/// Entries of a lease that is not what was asked for: a story has a few dozen at most.
const ASIDE: usize = 100;

/// The entries that end a lease.
const LEASE_ENDS: [EventKind; 5] = [
    EventKind::LeaseReleased,
    EventKind::LeaseExpired,
    EventKind::LeaseBroken,
    EventKind::LeaseCancelled,
    EventKind::LeaseFailed,
];
/// From these on a resource cannot be leased.
const OUT: [EventKind; 7] = [
    EventKind::ResourceSuspect,
    EventKind::ResourceRepairing,
    EventKind::ResourceQuarantined,
    EventKind::ResourceDraining,
    EventKind::ResourceDestroying,
    EventKind::ResourceOrphaned,
    EventKind::ResourceProvisioning,
];
/// With these it can be, or is no more.
const BACK: [EventKind; 3] = [EventKind::ResourceReady, EventKind::ResourceCleared, EventKind::ResourceGone];
/// When evidence was held back in a pool.
const BRAKE: [EventKind; 2] = [EventKind::PoolBrakeOn, EventKind::PoolBrakeOff];

/// Whether an entry is of one of these kinds. A kind of another version is of none.
fn is_one_of(event: &StoredEvent, kinds: &[EventKind]) -> bool {
    EventKind::parse(&event.kind).is_some_and(|kind| kinds.contains(&kind))
}

/// Tells the story, the newest `limit` entries of it.
pub(crate) async fn tell(
    context: &Context,
    scope: &Scope,
    about: About,
    limit: usize,
) -> Result<pb::TimelineResponse, RpcError> {
    let trail = &Trail { context, scope };
    let story = match about {
        About::Lease(id) => of_lease(trail, id).await?,
        About::Resource(id) => of_resource(trail, id, limit).await?,
    };
    Ok(story.told(limit, context.reading()))
}

/// The audit trail as one reader sees it.
struct Trail<'t> {
    context: &'t Context,
    scope: &'t Scope,
}

impl Trail<'_> {
    async fn events(&self, query: &EventQuery) -> Result<Vec<StoredEvent>, RpcError> {
        self.context.events(self.scope, query).await
    }
}

/// Entries by their place in the trail, each once.
#[derive(Default)]
struct Story {
    entries: BTreeMap<(u64, u64), (StoredEvent, TimelineRole)>,
    /// There are older ones.
    more: bool,
}

impl Story {
    fn add(&mut self, events: impl IntoIterator<Item = StoredEvent>, role: TimelineRole) {
        for event in events {
            self.entries.entry((event.revision, event.ordinal)).or_insert((event, role));
        }
    }

    fn told(self, limit: usize, clock: Reading) -> pb::TimelineResponse {
        let skipped = self.entries.len().saturating_sub(limit);
        let mut entries = self.entries.into_values().skip(skipped).peekable();
        let first = entries.peek().map_or(0, |(event, _)| event.at_unix_ms);
        pb::TimelineResponse {
            entries: entries.map(|(event, role)| convert::entry(event, role, first, clock)).collect(),
            truncated: skipped > 0 || self.more,
            revision: 0,
        }
    }
}

async fn of_lease(trail: &Trail<'_>, id: LeaseId) -> Result<Story, RpcError> {
    // The owner of a forgotten lease is not known.
    if !trail.scope.is_all() {
        let seen = trail.context.find(trail.scope, move |view, _| view.lease(id).map(drop));
        seen.await?.ok_or_else(|| RpcError::no_lease(id))?;
    }
    let own = trail.events(&EventQuery { lease: Some(id), limit: PART, ..EventQuery::default() }).await?;
    let (Some(first), Some(last)) = (own.first(), own.last()) else { return Err(RpcError::no_lease(id)) };
    let end = own.iter().find(|event| is_one_of(event, &LEASE_ENDS));
    let after = Revision(first.revision.saturating_sub(1));
    let window = Window { after, end: end.map(|event| (Revision(event.revision), event.at_unix_ms)) };
    let places: BTreeSet<ResourceId> = own.iter().filter_map(|event| event.resource).collect();
    let pools: BTreeSet<String> = own.iter().filter_map(|event| event.pool.clone()).collect();
    let mut until = Revision(last.revision);

    let asked: Vec<ResourceId> = places.iter().copied().collect();
    let read = move |view: View<'_>, _now| {
        let successor = match view.lease(id).map(|lease| &lease.state) {
            Some(LeaseState::Ended { how: Ended::Broken { replacement, .. }, .. }) => *replacement,
            _ => None,
        };
        (view.hosts_of(&asked), successor.filter(|successor| view.lease(*successor).is_some()))
    };
    let (hosts, successor) = trail.context.read(trail.scope, read).await?;
    let hosts = BTreeSet::from_iter(hosts);

    let mut story = Story { more: own.len() >= PART, ..Story::default() };
    story.add(own, TimelineRole::Lease);
    for (ids, role) in [(places, TimelineRole::Resource), (hosts, TimelineRole::Host)] {
        for id in ids {
            let events = window.of(trail, id).await?;
            until = until.max(events.last().map_or(until, |event| Revision(event.revision)));
            story.add(events, role);
        }
    }
    let to = window.end.map(|_| until);
    for pool in pools {
        let query = EventQuery { pool: Some(pool), itself: true, after, to, limit: PART, ..EventQuery::default() };
        let events = trail.events(&query).await?;
        story.add(events.into_iter().filter(|event| is_one_of(event, &BRAKE)), TimelineRole::Pool);
    }
    if let Some(successor) = successor {
        story.add(beginning(trail, successor).await?, TimelineRole::Successor);
    }
    Ok(story)
}

/// From when a lease was asked for until its end.
struct Window {
    after: Revision,
    /// Revision and time; `None`: it has not ended.
    end: Option<(Revision, i64)>,
}

impl Window {
    /// The entries of a resource itself within it, and those that follow from it: until it can be leased again.
    async fn of(&self, trail: &Trail<'_>, id: ResourceId) -> Result<Vec<StoredEvent>, RpcError> {
        let query = EventQuery { resource: Some(id), itself: true, after: self.after, ..EventQuery::default() };
        let during = EventQuery { to: self.end.map(|(end, _)| end), limit: PART, ..query.clone() };
        let mut found = trail.events(&during).await?;
        let Some((end, at)) = self.end else { return Ok(found) };
        found.extend(trail.events(&EventQuery { after: end, limit: TAIL, ..query }).await?);
        let mut events = Vec::with_capacity(found.len());
        let mut out = false;
        for event in found {
            // Consequences of the end itself are in the same step; later ones are another story, unless the doubt goes on.
            // By time: an entry that tells of no change has the revision of the change before it.
            let follows = event.at_unix_ms <= at || (out && event.at_unix_ms <= at + AFTER_MS);
            // A slot is cleaned after the end.
            if !follows && !is_one_of(&event, &[EventKind::ResourceCleanFailed]) {
                break;
            }
            out = stands(out, &event);
            events.push(event);
        }
        Ok(events)
    }
}

/// Whether it cannot be leased after this entry, if it could (not) before.
fn stands(out: bool, event: &StoredEvent) -> bool {
    (out || is_one_of(event, &OUT)) && !is_one_of(event, &BACK)
}

/// A lease's entries until it is active or ends.
async fn beginning(trail: &Trail<'_>, id: LeaseId) -> Result<Vec<StoredEvent>, RpcError> {
    let query = EventQuery { lease: Some(id), limit: ASIDE, ..EventQuery::default() };
    let mut events = trail.events(&query).await?;
    let stop = |event: &StoredEvent| is_one_of(event, &[EventKind::LeaseActive]) || is_one_of(event, &LEASE_ENDS);
    if let Some(at) = events.iter().position(stop) {
        events.truncate(at + 1);
    }
    Ok(events)
}

/// A resource's whole life, and the leases on it from when they came to it.
async fn of_resource(trail: &Trail<'_>, id: ResourceId, limit: usize) -> Result<Story, RpcError> {
    let query = EventQuery { resource: Some(id), newest_first: true, limit: limit + 1, ..EventQuery::default() };
    let mut events = trail.events(&query).await?;
    let shown = |event: &StoredEvent| event.pool.as_deref().is_some_and(|pool| trail.scope.shows_pool(pool));
    if events.is_empty() || !(trail.scope.is_all() || events.iter().any(shown)) {
        return Err(RpcError::no_resource(id));
    }
    let mut story = Story { more: events.len() > limit, ..Story::default() };
    events.truncate(limit);
    // The end of a lease that left its slot at once names no resource any more.
    let mut came: BTreeMap<LeaseId, u64> = BTreeMap::new();
    for event in &events {
        if let Some(lease) = event.lease {
            came.insert(lease, event.revision);
        }
    }
    let oldest = events.last().map_or(0, |event| event.revision);
    let (of_leases, own): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.lease.is_some());
    story.add(own, TimelineRole::Resource);
    story.add(of_leases, TimelineRole::Lease);
    for (lease, came) in came {
        let after = Revision(came.max(oldest));
        let query = EventQuery { lease: Some(lease), after, limit: ASIDE, ..EventQuery::default() };
        for event in trail.events(&query).await? {
            // It went elsewhere.
            if event.resource.is_some_and(|other| other != id) {
                break;
            }
            let left = is_one_of(&event, &[EventKind::LeaseRequeued, EventKind::LeaseDelayed]);
            story.add([event], TimelineRole::Lease);
            if left {
                break;
            }
        }
    }
    Ok(story)
}

#[cfg(test)]
mod tests;
