//! Messages to inputs of the core. Each function reports all problems of its message at once.

mod command;
mod target;

pub(crate) use command::{
    Command, OnResource, OnResourceOrPool, break_lease, drain, hold, note, on_resource, on_resource_or_pool,
};
pub(crate) use target::{About, Target};
use target::{one_of, resource_or_machine};

use crate::engine::Filter;
use crate::pb;
use crate::rpc::status::RpcError;
use crate::rpc::validate::{Id, Lines, MAX_TEXT, MAX_VALUE, Problems, Span, quoted};
use crate::store::{EventQuery, StoredEvent};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use wharfinger_core::{
    Caller, Claim, Input, Lease, LeaseId, LeaseRequest, Millis, Outcome, ResourceId, Revision, Scope, Selector, Texts,
};

pub(super) const MAX_HOLDER: usize = 1024;
const MAX_REQUEST_ID: usize = 128;
/// Maximum number of leases of one claim.
pub(crate) const MAX_COUNT: u32 = 64;
/// Maximum number of claims of a request.
pub(crate) const MAX_CLAIMS: usize = 64;
/// Maximum number of leases of a renewal.
pub(crate) const MAX_RENEWALS: usize = 1000;
const PRIORITY: std::ops::RangeInclusive<i32> = -100..=100;
const DEFAULT_PAGE: u16 = 100;
/// Maximum number of entries of a page.
pub(crate) const MAX_PAGE: u16 = 1000;
pub(super) const DEFAULT_BOOKMARKS: Millis = Millis::secs(5);

/// A lease request, and the maximum time that its call waits.
pub(crate) fn lease(request: &pb::LeaseRequest, caller: Caller) -> Result<(LeaseRequest, Duration), RpcError> {
    let mut p = Problems::default();
    let request_id = &request.request_id;
    if request_id.is_empty() {
        p.add("request_id", "is required: choose one for each request, and use it again when you repeat the request");
    } else if request_id.len() > MAX_REQUEST_ID || !request_id.bytes().all(|b| b.is_ascii_graphic()) {
        p.add("request_id", format!("must be 1 to {MAX_REQUEST_ID} visible ASCII characters, without spaces"));
    }
    if !PRIORITY.contains(&request.priority) {
        p.add("priority", format!("must be from -100 to 100; got {}", request.priority));
    }
    if request.no_queue && request.queue_for.is_some() {
        p.add("queue_for", "excludes no_queue; set one of them");
    }
    let wanted = LeaseRequest {
        request_id: Arc::from(request_id.as_str()),
        caller,
        holder: p.text("holder", &request.holder, MAX_HOLDER, Lines::One),
        claims: claims(&mut p, request),
        priority: request.priority,
        ttl: p.span("ttl", request.ttl.as_ref(), &Span::LONG),
        queue_for: p.span("queue_for", request.queue_for.as_ref(), &Span::LONG),
        no_queue: request.no_queue,
        expected: p.span("expected_duration", request.expected_duration.as_ref(), &Span::LONG),
        tags: Arc::new(p.texts("tags", &request.tags, MAX_VALUE, Lines::One)),
        independent: request.independent,
        replace: request.replace,
        work: optional(p.text("work", &request.work, MAX_VALUE, Lines::One)),
        avoid: avoided(&mut p, &request.avoid),
        total: None,
        session: None,
    };
    let wait = p.span("wait", request.wait.as_ref(), &Span::WAIT).unwrap_or(Millis::ZERO);
    p.finish((wanted, duration(wait)))
}

fn avoided(p: &mut Problems, ids: &[String]) -> Vec<ResourceId> {
    if ids.len() > Lease::MAX_AVOID {
        p.add("avoid", format!("has {} entries; at most {} are taken", ids.len(), Lease::MAX_AVOID));
        return Vec::new();
    }
    ids.iter().enumerate().filter_map(|(i, id)| p.id(format!("avoid[{i}]"), id)).collect()
}

fn claims(p: &mut Problems, request: &pb::LeaseRequest) -> Vec<Claim> {
    if request.claims.is_empty() {
        if request.selector.is_none() {
            p.add("selector", "is required: name a pool, labels, or both (or give claims)");
            return Vec::new();
        }
        return vec![claim(p, "", request.selector.as_ref(), request.count, &request.params)];
    }
    if request.selector.is_some() {
        p.add("claims", "exclude selector: put it into the claims");
    }
    if request.count != 0 {
        p.add("count", "belongs to selector; each claim has its own");
    }
    if !request.params.is_empty() {
        p.add("params", "belong to selector; each claim has its own");
    }
    if request.claims.len() > MAX_CLAIMS {
        p.add("claims", format!("has {} entries; at most {MAX_CLAIMS} are taken", request.claims.len()));
        return Vec::new();
    }
    let each = request.claims.iter().enumerate();
    each.map(|(i, c)| claim(p, &format!("claims[{i}]."), c.selector.as_ref(), c.count, &c.params)).collect()
}

/// `at` is the path of the message that has the fields, with a dot at its end.
fn claim(
    p: &mut Problems,
    at: &str,
    selector: Option<&pb::Selector>,
    count: i32,
    params: &HashMap<String, String>,
) -> Claim {
    let known = u32::try_from(count).ok().filter(|count| *count <= MAX_COUNT);
    if known.is_none() {
        p.add(format!("{at}count"), format!("must be from 0 to {MAX_COUNT}; got {count}"));
    }
    let selector = match selector {
        Some(selector) if selector.pool.is_empty() && selector.labels.is_empty() => {
            p.add(format!("{at}selector"), "is empty: name a pool, labels, or both");
            Selector::default()
        }
        Some(selector) => Selector {
            pool: optional(p.text(format!("{at}selector.pool"), &selector.pool, MAX_VALUE, Lines::One)),
            labels: p.texts(&format!("{at}selector.labels"), &selector.labels, MAX_VALUE, Lines::One),
            ..Selector::default()
        },
        None => {
            p.add(format!("{at}selector"), "is required: name a pool, labels, or both");
            Selector::default()
        }
    };
    let params: Texts = p.texts(&format!("{at}params"), params, MAX_TEXT, Lines::Many);
    Claim { selector: Arc::new(selector), count: known.unwrap_or(1).max(1), params: Arc::new(params) }
}

/// The end of a lease by its holder.
pub(crate) fn release(request: &pb::ReleaseRequest, caller: Caller) -> Result<(LeaseId, Input), RpcError> {
    let mut p = Problems::default();
    let lease = p.id("lease_id", &request.lease_id);
    let outcome = match pb::Outcome::try_from(request.outcome) {
        Ok(pb::Outcome::Ok) => Outcome::Ok,
        Ok(pb::Outcome::Failed) => Outcome::Failed,
        Ok(pb::Outcome::Tainted) => Outcome::Tainted,
        // A caller that failed before it knew reports no success.
        Ok(pb::Outcome::Unspecified | pb::Outcome::Abandoned) => Outcome::Abandoned,
        Err(_) => {
            p.add("outcome", format!("{} is unknown; use OK, FAILED, TAINTED or ABANDONED", request.outcome));
            Outcome::Abandoned
        }
    };
    let note = p.text("note", &request.note, MAX_TEXT, Lines::Many);
    let hold = p.span("hold", request.hold.as_ref(), &Span::LONG);
    let lease = p.found(lease)?;
    Ok((lease, Input::Release { lease, caller, outcome, note, hold }))
}

/// A holder's report of failures.
pub(crate) fn report(request: &pb::ReportRequest, caller: Caller) -> Result<(LeaseId, Input), RpcError> {
    let mut p = Problems::default();
    let lease = p.id("lease_id", &request.lease_id);
    let note = p.text("note", &request.note, MAX_TEXT, Lines::Many);
    let lease = p.found(lease)?;
    let input = match request.unreached {
        true => Input::Unreached { lease, caller, note },
        false => Input::Report { lease, caller, note },
    };
    Ok((lease, input))
}

/// The leases of a renewal.
#[derive(Debug)]
pub(crate) enum Renewal {
    /// One lease.
    One(LeaseId),
    /// Several leases.
    Several(Vec<LeaseId>),
}

/// A renewal by a holder, and the new TTL.
pub(crate) fn renew(request: &pb::RenewRequest) -> Result<(Renewal, Option<Millis>), RpcError> {
    let mut p = Problems::default();
    let ttl = p.span("ttl", request.ttl.as_ref(), &Span::LONG);
    if request.lease_ids.is_empty() {
        let lease = p.id("lease_id", &request.lease_id);
        let lease = p.found(lease)?;
        return Ok((Renewal::One(lease), ttl));
    }
    if !request.lease_id.is_empty() {
        p.add("lease_id", "excludes lease_ids; set one of them");
    }
    if request.lease_ids.len() > MAX_RENEWALS {
        p.add("lease_ids", format!("has {} leases; at most {MAX_RENEWALS}", request.lease_ids.len()));
    }
    // Ids beyond the limit are not read.
    let ids = request.lease_ids.iter().take(MAX_RENEWALS).enumerate();
    let ids = ids.filter_map(|(n, id)| p.id(format!("lease_ids[{n}]"), id)).collect();
    p.finish((Renewal::Several(ids), ttl))
}

/// The id of a request that has no other field.
pub(crate) fn id<T: Id>(field: &str, text: &str) -> Result<T, RpcError> {
    let mut p = Problems::default();
    let id = p.id(field, text);
    p.found(id)
}

impl Problems {
    /// The id, if the request has no problem.
    fn found<T>(self, id: Option<T>) -> Result<T, RpcError> {
        self.finish(())?;
        id.ok_or(RpcError::Bug("an id was neither read nor refused"))
    }
}

/// Parameters of a watch.
pub(crate) struct Watching {
    /// Caller whose own leases are sent with their credentials. `None`: the filter names no lease, and none is.
    pub(crate) owner: Option<Caller>,
    pub(crate) filter: Filter,
    /// Revision to resume after. 0: the current state first.
    pub(crate) from: Revision,
    pub(crate) include_ended: bool,
    /// Minimum revision of the current state.
    pub(crate) min: Revision,
    pub(crate) bookmarks: Duration,
}

/// A watch.
pub(crate) fn watch(request: &pb::WatchRequest, caller: Caller) -> Result<Watching, RpcError> {
    let mut p = Problems::default();
    let leases = p.each("lease_ids", &request.lease_ids, |p, at, text| p.id(at, text));
    let filter = Filter {
        scope: caller.sees.clone(),
        leases: leases.into_iter().flatten().collect(),
        holders: names(&mut p, "holders", &request.holders, MAX_HOLDER),
        pools: names(&mut p, "pools", &request.pools, MAX_VALUE),
        session: None,
    };
    let bookmarks = p.span("bookmark_interval", request.bookmark_interval.as_ref(), &Span::BOOKMARK);
    p.finish(Watching {
        owner: (!filter.leases.is_empty()).then_some(caller),
        filter,
        from: Revision(request.from_revision),
        include_ended: request.include_ended,
        min: Revision(request.min_revision),
        bookmarks: duration(bookmarks.unwrap_or(DEFAULT_BOOKMARKS)),
    })
}

fn names(p: &mut Problems, field: &str, values: &[String], max: usize) -> BTreeSet<Arc<str>> {
    p.each(field, values, |p, at, text| p.text(at, text, max, Lines::One)).into_iter().collect()
}

/// A page of leases.
pub(crate) struct Listing {
    pub(crate) filter: Filter,
    /// Empty: leases that have not ended.
    pub(crate) states: BTreeSet<pb::LeaseState>,
    pub(crate) resource: Option<ResourceId>,
    /// Empty: all.
    pub(crate) works: BTreeSet<Arc<str>>,
    pub(crate) size: usize,
    pub(crate) after: Option<LeaseId>,
}

/// A list of leases.
pub(crate) fn list(request: &pb::ListRequest, scope: Scope) -> Result<Listing, RpcError> {
    let mut p = Problems::default();
    let mut states = BTreeSet::new();
    for (i, state) in request.states.iter().enumerate() {
        match pb::LeaseState::try_from(*state) {
            Ok(state) if state != pb::LeaseState::Unspecified => {
                states.insert(state);
            }
            Ok(_) | Err(_) => p.add(format!("states[{i}]"), format!("{state} is no state of a lease")),
        }
    }
    let filter = Filter {
        scope,
        leases: BTreeSet::new(),
        holders: names(&mut p, "holders", &request.holders, MAX_HOLDER),
        pools: names(&mut p, "pools", &request.pools, MAX_VALUE),
        session: None,
    };
    let resource = p.optional_id("resource_id", &request.resource_id);
    let works = names(&mut p, "works", &request.works, MAX_VALUE);
    let (size, after) = page(&mut p, request.page_size, &request.page_token);
    p.finish(Listing { filter, states, resource, works, size, after })
}

/// A page of resources.
pub(crate) struct ResourceListing {
    pub(crate) pools: BTreeSet<Arc<str>>,
    /// Empty: resources that are not gone.
    pub(crate) states: BTreeSet<pb::ResourceState>,
    pub(crate) size: usize,
    pub(crate) after: Option<ResourceId>,
}

fn resource_states(p: &mut Problems, wanted: &[i32]) -> BTreeSet<pb::ResourceState> {
    let mut states = BTreeSet::new();
    for (i, state) in wanted.iter().enumerate() {
        match pb::ResourceState::try_from(*state) {
            Ok(state) if state != pb::ResourceState::Unspecified => {
                states.insert(state);
            }
            Ok(_) | Err(_) => p.add(format!("states[{i}]"), format!("{state} is no state of a resource")),
        }
    }
    states
}

/// A list of resources.
pub(crate) fn list_resources(request: &pb::ListResourcesRequest) -> Result<ResourceListing, RpcError> {
    let mut p = Problems::default();
    let states = resource_states(&mut p, &request.states);
    let pools = names(&mut p, "pools", &request.pools, MAX_VALUE);
    let (size, after) = page(&mut p, request.page_size, &request.page_token);
    p.finish(ResourceListing { pools, states, size, after })
}

/// A watch of resources.
#[derive(Clone, Debug)]
pub(crate) struct ResourceWatching {
    pub(crate) scope: Scope,
    /// The scope in which pools are read. `None`: the watch is of resources alone.
    pub(crate) pools_for: Option<Scope>,
    /// Empty: all.
    pub(crate) pools: BTreeSet<Arc<str>>,
    /// Empty: all.
    pub(crate) states: BTreeSet<pb::ResourceState>,
    pub(crate) from: Revision,
    pub(crate) min: Revision,
    pub(crate) bookmarks: Duration,
}

/// A watch of resources in a scope; `pools_for`: the scope in which pools are read, if the request wants them.
pub(crate) fn watch_resources(
    request: &pb::WatchResourcesRequest,
    scope: Scope,
    pools_for: Option<Scope>,
) -> Result<ResourceWatching, RpcError> {
    let mut p = Problems::default();
    let bookmarks = p.span("bookmark_interval", request.bookmark_interval.as_ref(), &Span::BOOKMARK);
    let watching = ResourceWatching {
        scope,
        pools_for,
        pools: names(&mut p, "pools", &request.pools, MAX_VALUE),
        states: resource_states(&mut p, &request.states),
        from: Revision(request.from_revision),
        min: Revision(request.min_revision),
        bookmarks: duration(bookmarks.unwrap_or(DEFAULT_BOOKMARKS)),
    };
    p.finish(watching)
}

/// A page of the queue.
pub(crate) struct QueueListing {
    pub(crate) pool: Option<Arc<str>>,
    pub(crate) size: usize,
    pub(crate) after: Option<LeaseId>,
}

/// A list of the queue.
pub(crate) fn list_queue(request: &pb::ListQueueRequest) -> Result<QueueListing, RpcError> {
    let mut p = Problems::default();
    let named = Some(request.pool.clone()).filter(|pool| !pool.is_empty());
    let pool = names(&mut p, "pool", named.as_slice(), MAX_VALUE).pop_first();
    let (size, after) = page(&mut p, request.page_size, &request.page_token);
    p.finish(QueueListing { pool, size, after })
}

/// The size of a page and the id that it begins after. The token is the last id of the page before.
fn page<T: Id>(p: &mut Problems, size: i32, token: &str) -> (usize, Option<T>) {
    let after = if token.is_empty() {
        None
    } else {
        let after = token.parse().ok();
        if after.is_none() {
            p.add(
                "page_token",
                format!("{} is not a page token of this list: pass next_page_token of the page before", quoted(token)),
            );
        }
        after
    };
    (limit(p, "page_size", size), after)
}

fn limit(p: &mut Problems, field: &str, asked: i32) -> usize {
    match u16::try_from(asked).ok().filter(|size| *size <= MAX_PAGE) {
        Some(0) => usize::from(DEFAULT_PAGE),
        Some(size) => usize::from(size),
        None => {
            p.add(field, format!("must be from 0 to {MAX_PAGE}; got {asked}"));
            usize::from(DEFAULT_PAGE)
        }
    }
}

/// The resource, or the machine for which it stands.
pub(crate) fn get_resource(request: &pb::GetResourceRequest) -> Result<Target, RpcError> {
    let mut p = Problems::default();
    let target = resource_or_machine(&mut p, &request.resource_id, &request.machine);
    p.found(target).map(Target::from)
}

/// A story and its maximum number of entries.
pub(crate) fn timeline(request: &pb::TimelineRequest) -> Result<(About, usize), RpcError> {
    let mut p = Problems::default();
    let about = one_of(&mut p, &request.lease_id, &request.resource_id);
    let limit = limit(&mut p, "limit", request.limit);
    Ok((p.found(about)?, limit))
}

/// A page of the audit trail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EventsPage {
    /// Reads `skip` entries before the page and one after it.
    query: EventQuery,
    size: usize,
    /// Revision of the page token, of which entries were returned before.
    from: Option<Revision>,
    skip: usize,
}

/// The place after an entry: its revision, and how many of its entries were returned.
fn event_token(revision: u64, returned: usize) -> String {
    format!("{revision}.{returned}")
}

/// A revision that has more entries than a query returns cannot be paged.
const MAX_SKIP: usize = EventQuery::MAX - MAX_PAGE as usize - 1;

fn read_event_token(p: &mut Problems, token: &str) -> Option<(Revision, usize)> {
    if token.is_empty() {
        return None;
    }
    let read = || {
        let (revision, returned) = token.split_once('.')?;
        Some((Revision(revision.parse().ok().filter(|revision| *revision > 0)?), returned.parse::<usize>().ok()?))
    };
    match read() {
        Some((revision, returned)) if returned > MAX_SKIP => {
            let text =
                format!("revision {revision} has more than {MAX_SKIP} entries that match: name a resource or a lease");
            p.add("page_token", text);
            None
        }
        Some(place) => Some(place),
        None => {
            let text = "is not a page token of this list: pass next_page_token of the page before";
            p.add("page_token", format!("{} {text}", quoted(token)));
            None
        }
    }
}

impl EventsPage {
    /// The query for the entries of the page.
    pub(crate) fn query(&self) -> &EventQuery {
        &self.query
    }

    /// Cuts the page out of what was read, with the token of the next one. Empty: there is none.
    pub(crate) fn cut(&self, mut read: Vec<StoredEvent>) -> (Vec<StoredEvent>, String) {
        // Entries of this revision may have been trimmed since the page before.
        let of_token = read.iter().take(self.skip).filter(|event| Some(Revision(event.revision)) == self.from).count();
        read.drain(..of_token);
        if read.len() <= self.size {
            return (read, String::new());
        }
        read.truncate(self.size);
        let Some(last) = read.last().map(|event| event.revision) else { return (read, String::new()) };
        let mut returned = read.iter().rev().take_while(|event| event.revision == last).count();
        if self.from == Some(Revision(last)) {
            returned += of_token;
        }
        (read, event_token(last, returned))
    }
}

/// A page of the audit trail.
pub(crate) fn events(request: &pb::EventsRequest) -> Result<EventsPage, RpcError> {
    let mut p = Problems::default();
    let pool = p.text("pool", &request.pool, MAX_VALUE, Lines::One);
    let size = limit(&mut p, "page_size", request.page_size);
    let place = read_event_token(&mut p, &request.page_token);
    let (from, skip) = (place.map(|(revision, _)| revision), place.map_or(0, |(_, returned)| returned));
    let mut query = EventQuery {
        pool: optional(pool).map(|pool| pool.to_string()),
        resource: p.optional_id("resource_id", &request.resource_id),
        lease: p.optional_id("lease_id", &request.lease_id),
        itself: false,
        after: Revision(request.after_revision),
        to: None,
        newest_first: request.newest_first,
        limit: skip + size + 1,
    };
    match from {
        Some(from) if request.newest_first => query.to = Some(from),
        Some(from) => query.after = query.after.max(Revision(from.0 - 1)),
        None => {}
    }
    p.finish(EventsPage { query, size, from, skip })
}

fn optional(text: Arc<str>) -> Option<Arc<str>> {
    if text.is_empty() { None } else { Some(text) }
}

pub(super) fn duration(span: Millis) -> Duration {
    Duration::from_millis(span.0.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests;
