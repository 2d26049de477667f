//! Values of the core to messages.

use crate::pb;
use crate::store::StoredEvent;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use wharfinger_core::{
    BrakeView, CauseChain, Cordon, Ended, Explanation, FailReason, Fault, Finding, Hold, Impact, ItemView, Lease,
    LeaseState, LikelyStart, Losses, Millis, NoStart, Note, Order, Outcome, PoolCounters, PoolView, Provenance,
    QueueClass, QueueRow, Reading, Resource, ResourceState, Revision, Scope, SeenResource, Selector, Subject,
    TenantView, Texts, Timestamp, View, WorkFailure,
};

/// A tenant.
pub(crate) fn tenant(tenant: &TenantView) -> pb::Tenant {
    let by_pool = tenant.by_pool.iter().map(|(pool, slots)| (pool.to_string(), int(*slots)));
    pb::Tenant {
        name: tenant.name.to_string(),
        named: tenant.named,
        weight: tenant.limits.weight.into(),
        slots: int(tenant.slots),
        max_slots: tenant.limits.max_slots.map(i64::from),
        slots_by_pool: by_pool.collect(),
        waiting: int(tenant.waiting),
        max_queue: tenant.limits.max_queue.map(i64::from),
        oldest_wait: tenant.oldest_wait.map(span),
    }
}

/// Maximum number of ids of a kind in an impact.
const MAX_IDS: usize = 64;

/// The impact of a command, with the ids of the leases in view.
pub(crate) fn impact(impact: &Impact, view: View<'_>) -> pb::Impact {
    let Impact { broken, put_back, copies } = impact;
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let in_view = broken.iter().filter(|id| view.lease(**id).is_some());
    pb::Impact {
        broken_lease_ids: in_view.take(MAX_IDS).map(ToString::to_string).collect(),
        broken_count: count(broken.len()),
        put_back_count: count(put_back.len()),
        copy_ids: copies
            .iter()
            .filter(|id| view.resource(**id).is_some())
            .take(MAX_IDS)
            .map(ToString::to_string)
            .collect(),
        copy_count: count(copies.len()),
        revision: view.revision().0,
    }
}

/// A lease for a reader of this scope, without its credentials.
pub(crate) fn lease(lease: &Lease, scope: &Scope, clock: Reading) -> pb::Lease {
    let time = |at| time(at, clock);
    let spec = &lease.spec;
    let mut told = pb::Lease {
        id: lease.id.to_string(),
        revision: lease.revision.0,
        state: lease_state(&lease.state).into(),
        request_id: spec.request_id.to_string(),
        principal: spec.principal.to_string(),
        holder: spec.holder.to_string(),
        selector: Some(selector(&spec.selector)),
        priority: spec.priority,
        params: texts(&spec.params),
        tags: texts(&spec.tags),
        ttl: Some(span(spec.ttl)),
        created_at: Some(time(lease.created_at)),
        expires_at: lease.expires_at.map(time),
        expires_at_most: lease.expires_at_most.map(time),
        wait_until: spec.wait_until.map(time),
        pool: lease.pool.as_deref().unwrap_or_default().to_owned(),
        ends_at: lease.ends_at.map(time),
        doubt: lease.doubt_for(scope).map(|detail| pb::Doubt { detail: detail.to_string() }),
        attempts: int(lease.attempts),
        trouble: text(lease.trouble.as_ref()),
        group_id: spec.group.map(|id| id.to_string()).unwrap_or_default(),
        group_index: int(spec.index),
        replaces_id: spec.replaces.map(|id| id.to_string()).unwrap_or_default(),
        child_resource_id: spec.child.map(|id| id.to_string()).unwrap_or_default(),
        independent: spec.independent,
        expected_duration: spec.expected.map(span),
        work: text(spec.work.as_ref()),
        session_id: lease.session.map(|id| id.to_string()).unwrap_or_default(),
        holder_doubt_since: lease.holder_doubt.map(time),
        ..pb::Lease::default()
    };
    if let Some(assignment) = lease.assignment() {
        told.resource_id = assignment.resource.to_string();
        told.slot = int(assignment.slot);
        told.fencing_token = assignment.token;
    }
    match &lease.state {
        LeaseState::Queued | LeaseState::Preparing { .. } => {}
        LeaseState::Active { since, access, .. } => {
            told.active_at = Some(time(*since));
            told.access = Some(self::access(access));
        }
        LeaseState::Ended { how, at, cleanup } => {
            told.ended_at = Some(time(*at));
            told.cleaning = cleanup.is_some();
            ended(&mut told, how, scope, clock);
        }
    }
    told
}

fn ended(told: &mut pb::Lease, how: &Ended, scope: &Scope, clock: Reading) {
    match how {
        Ended::Released { outcome, note, finding } => {
            told.finding = finding.as_deref().map(|found| self::finding(found, scope));
            told.outcome = match outcome {
                Outcome::Ok => pb::Outcome::Ok,
                Outcome::Failed => pb::Outcome::Failed,
                Outcome::Tainted => pb::Outcome::Tainted,
                Outcome::Abandoned => pb::Outcome::Abandoned,
            }
            .into();
            told.note = note.to_string();
        }
        Ended::Expired | Ended::Cancelled => {}
        Ended::Broken { cause, replacement } => {
            told.causes = causes(cause, scope, clock);
            told.replacement_id = replacement.map(|id| id.to_string()).unwrap_or_default();
        }
        Ended::Failed { reason, code, detail } => {
            told.fail_reason = match reason {
                FailReason::WaitDeadline => pb::FailReason::WaitDeadline,
                FailReason::Request => pb::FailReason::Request,
                FailReason::BudgetSpent => pb::FailReason::BudgetSpent,
                FailReason::Group => pb::FailReason::Group,
            }
            .into();
            told.fail_code = code.to_string();
            told.fail_detail = detail.to_string();
        }
    }
}

fn finding(finding: &Finding, scope: &Scope) -> pb::Finding {
    let fault = match finding.fault {
        Fault::Open => pb::finding::Fault::Open,
        Fault::Undecided => pb::finding::Fault::Undecided,
        Fault::Resource => pb::finding::Fault::Resource,
        Fault::Work => pb::finding::Fault::Work,
    };
    pb::Finding { fault: fault.into(), detail: finding.detail_for(scope).to_string() }
}

/// A lease's state.
pub(crate) fn lease_state(state: &LeaseState) -> pb::LeaseState {
    match state {
        LeaseState::Queued => pb::LeaseState::Queued,
        LeaseState::Preparing { .. } => pb::LeaseState::Preparing,
        LeaseState::Active { .. } => pb::LeaseState::Active,
        LeaseState::Ended { how, .. } => match how {
            Ended::Released { .. } => pb::LeaseState::Released,
            Ended::Expired => pb::LeaseState::Expired,
            Ended::Broken { .. } => pb::LeaseState::Broken,
            Ended::Cancelled => pb::LeaseState::Cancelled,
            Ended::Failed { .. } => pb::LeaseState::Failed,
        },
    }
}

/// A resource with the leases in view that hold its slots.
pub(crate) fn resource(seen: &SeenResource, scope: &Scope, clock: Reading) -> pb::Resource {
    let SeenResource { resource, leases, in_use, in_cleaning } = seen;
    let causes = |chain| causes(chain, scope, clock);
    let time = |at| time(at, clock);
    let mut told = pb::Resource {
        id: resource.id.to_string(),
        revision: resource.revision.0,
        pool: resource.pool.to_string(),
        item: text(resource.item.as_ref()),
        state: resource_state(&resource.state).into(),
        labels: texts(&resource.labels),
        slots: int(resource.slots),
        slots_in_use: size(*in_use),
        slots_in_cleaning: size(*in_cleaning),
        created_at: Some(time(resource.created_at)),
        ready_at: resource.ready_at.map(time),
        idle_since: resource.idle_since.map(time),
        uses: int(resource.uses),
        access: Some(access(&resource.access)),
        ends_at: resource.ends_at.map(time),
        trouble: text(resource.trouble.as_ref()),
        lease_ids: leases.iter().map(|lease| lease.id.to_string()).collect(),
        at_risk: resource.at_risk.as_ref().map(|r| format!("{} ({})", r.detail, r.source)).unwrap_or_default(),
        failures: resource.failures.iter().map(|one| failure(one, clock)).collect(),
        note: resource.note.as_ref().map(|found| note(found, clock)),
        ..pb::Resource::default()
    };
    if let Some(parent) = &resource.parent {
        told.parent_lease_id = parent.lease.to_string();
        told.parent_id = parent.host.map(|id| id.to_string()).unwrap_or_default();
    }
    match &resource.state {
        ResourceState::Ready => {}
        ResourceState::Provisioning { attempt, retry_at, .. } => {
            told.attempt = int(*attempt);
            told.retry_at = retry_at.map(time);
        }
        ResourceState::Suspect { cause, retry_at, misses, held, .. } => {
            told.held = text(held.as_ref());
            told.causes = causes(cause);
            told.retry_at = retry_at.map(time);
            told.misses = int(*misses);
        }
        ResourceState::Repairing { cause, repairs, .. } => {
            told.causes = causes(cause);
            told.attempt = int(*repairs);
        }
        ResourceState::Quarantined { cordon, until, .. } => {
            let hold = Hold { by: cordon.by.clone(), reason: cordon.reason.clone(), until: *until };
            kept(&mut told, &hold, clock);
        }
        ResourceState::Draining { cause, deadline } => {
            told.causes = causes(cause);
            told.deadline = deadline.map(time);
        }
        ResourceState::Destroying { attempt, retry_at, cause, .. }
        | ResourceState::Orphaned { attempt, retry_at, cause, .. } => {
            told.causes = causes(cause);
            told.attempt = int(*attempt);
            told.retry_at = retry_at.map(time);
        }
        ResourceState::Gone { cause, .. } => told.causes = causes(cause),
    }
    cordoned(&mut told, resource.cordoned.as_ref());
    if let Some(hold) = &resource.hold {
        kept(&mut told, hold, clock);
    }
    told
}

fn kept(told: &mut pb::Resource, hold: &Hold, clock: Reading) {
    told.kept_by = hold.by.to_string();
    told.kept_reason = hold.reason.to_string();
    told.kept_until = hold.until.map(|at| time(at, clock));
}

fn failure(failure: &WorkFailure, clock: Reading) -> pb::WorkFailure {
    pb::WorkFailure {
        work: failure.work.to_string(),
        lease_id: failure.lease.to_string(),
        at: Some(time(failure.at, clock)),
        cleared: failure.cleared,
    }
}

fn cordoned(told: &mut pb::Resource, cordon: Option<&Cordon>) {
    if let Some(cordon) = cordon {
        told.cordoned = true;
        told.cordoned_by = cordon.by.to_string();
        told.cordon_reason = cordon.reason.to_string();
    }
}

/// A resource's state.
pub(crate) fn resource_state(state: &ResourceState) -> pb::ResourceState {
    match state {
        ResourceState::Provisioning { .. } => pb::ResourceState::Provisioning,
        ResourceState::Ready => pb::ResourceState::Ready,
        ResourceState::Suspect { .. } => pb::ResourceState::Suspect,
        ResourceState::Repairing { .. } => pb::ResourceState::Repairing,
        ResourceState::Quarantined { .. } => pb::ResourceState::Quarantined,
        ResourceState::Draining { .. } => pb::ResourceState::Draining,
        ResourceState::Destroying { .. } => pb::ResourceState::Destroying,
        ResourceState::Orphaned { .. } => pb::ResourceState::Orphaned,
        ResourceState::Gone { .. } => pb::ResourceState::Gone,
    }
}

/// Whether a resource is in one of these states. Without any: in every state but GONE.
pub(crate) fn is_of_states(states: &BTreeSet<pb::ResourceState>, resource: &Resource) -> bool {
    let state = resource_state(&resource.state);
    if states.is_empty() { state != pb::ResourceState::Gone } else { states.contains(&state) }
}

/// A pool.
pub(crate) fn pool(pool: &PoolView, clock: Reading) -> pb::Pool {
    let config = &pool.config;
    pb::Pool {
        name: config.name.to_string(),
        adapter: config.adapter.to_string(),
        labels: texts(&config.labels),
        enabled: config.enabled,
        configured: pool.configured,
        cordoned: pool.cordoned.is_some(),
        cordoned_by: pool.cordoned.as_ref().map(|cordon| cordon.by.to_string()).unwrap_or_default(),
        cordon_reason: pool.cordoned.as_ref().map(|cordon| cordon.reason.to_string()).unwrap_or_default(),
        on: config.on.iter().map(ToString::to_string).collect(),
        min_ready: int(config.min_ready),
        max: int(config.max),
        slots: int(config.slots),
        resources: pool.by_state.iter().map(|(state, count)| state_count(state, *count)).collect(),
        free_slots: int(pool.free_slots),
        leases: int(pool.leases),
        slots_in_cleaning: int(pool.cleaning),
        waiting: int(pool.waiting),
        items: pool.items.iter().map(|item| self::item(&config.name, item, clock)).collect(),
        trouble: pool.trouble.clone().unwrap_or_default(),
        domain: text(config.domain.as_ref()),
        dry_run: config.doubt.dry_run,
        brakes: pool.brakes.iter().map(|one| brake(one, clock)).collect(),
        counters: Some(counters(&pool.counters)),
        losses: pool.losses.as_ref().map(|found| losses(found, clock)),
        disabled_reason: text(config.disabled_reason.as_ref()),
    }
}

/// A machine with the orders of operators.
pub(crate) fn item(pool: &str, item: &ItemView, clock: Reading) -> pb::Item {
    let told = |order: Option<&Order>| {
        order.map(|order| pb::Order {
            by: order.by.to_string(),
            reason: order.reason.to_string(),
            at: Some(time(order.at, clock)),
            until: order.until.map(|at| time(at, clock)),
        })
    };
    let machine = item.machine.as_deref();
    pb::Item {
        name: item.name.to_string(),
        enabled: item.enabled,
        resource_id: item.resource.map(|id| id.to_string()).unwrap_or_default(),
        cordoned: told(machine.and_then(|machine| machine.cordoned.as_ref())),
        drained: told(machine.and_then(|machine| machine.drained.as_ref())),
        held: told(machine.and_then(|machine| machine.held.as_ref())),
        pool: pool.to_owned(),
        losses: item.losses.as_ref().map(|found| losses(found, clock)),
        disabled_reason: text(item.disabled_reason.as_ref()),
        note: item.note.as_ref().map(|found| note(found, clock)),
    }
}

fn note(note: &Note, clock: Reading) -> pb::Note {
    pb::Note { by: note.by.to_string(), text: note.text.to_string(), at: Some(time(note.at, clock)) }
}

fn losses(losses: &Losses, clock: Reading) -> pb::Losses {
    pb::Losses {
        count: int(losses.count),
        since: Some(time(losses.since, clock)),
        last_at: Some(time(losses.last, clock)),
        again_at: Some(time(losses.again_at, clock)),
        why: losses.why.to_string(),
    }
}

fn brake(brake: &BrakeView, clock: Reading) -> pb::Brake {
    pb::Brake {
        domain: brake.domain.to_string(),
        members: int(brake.members),
        troubled: int(brake.troubled),
        held_since: brake.held.as_ref().map(|(since, _)| time(*since, clock)),
        why: brake.held.as_ref().map(|(_, why)| why.to_string()).unwrap_or_default(),
    }
}

fn counters(counters: &PoolCounters) -> pb::PoolCounters {
    pb::PoolCounters {
        doubts: long(counters.doubts),
        cleared: long(counters.cleared),
        repairs: long(counters.repairs),
        lost: long(counters.lost),
        broken: long(counters.broken),
        held: long(counters.held),
        would_end: long(counters.would_end),
        would_break: long(counters.would_break),
    }
}

/// Why a lease waits.
pub(crate) fn explanation(told: pb::Lease, why: Explanation, history: Vec<pb::Event>) -> pb::ExplainResponse {
    let blockers = why.blockers.into_iter().map(|blocker| pb::Blocker {
        pool: blocker.pool.to_string(),
        code: blocker.code.as_str().to_owned(),
        detail: blocker.detail,
        remedy: blocker.remedy,
    });
    pb::ExplainResponse {
        lease: Some(told),
        summary: why.summary,
        position: int(why.position),
        satisfiable: why.satisfiable,
        blockers: blockers.collect(),
        history,
        revision: 0,
        likely_start: None,
        no_likely_start: String::new(),
    }
}

/// When a request is likely to start, or the reason for which that is not known.
pub(crate) fn likely_start(start: &Result<LikelyStart, NoStart>) -> (Option<pb::LikelyStart>, String) {
    match start {
        Ok(start) => {
            let (earliest, latest) = (Some(span(start.earliest)), Some(span(start.latest)));
            (Some(pb::LikelyStart { earliest, latest, basis: start.basis() }), String::new())
        }
        Err(why) => (None, why.as_str().to_owned()),
    }
}

/// A class of the queue.
pub(crate) fn queue_class(class: &QueueClass) -> pb::QueueClass {
    pb::QueueClass { wants: class.wants.clone(), requests: int(class.requests), leases: int(class.leases) }
}

/// A request that waits, of the class with this number in the answer.
pub(crate) fn queued_request(row: &QueueRow, class: usize, scope: &Scope, clock: Reading) -> pb::QueuedRequest {
    let (likely_start, no_likely_start) = likely_start(&row.start);
    pb::QueuedRequest {
        class_index: i32::try_from(class).unwrap_or(i32::MAX),
        position: int(row.position),
        lease: Some(lease(&row.lease, scope, clock)),
        leases: int(row.leases),
        likely_start,
        no_likely_start,
    }
}

/// An entry of the audit trail.
pub(crate) fn event(event: StoredEvent, clock: Reading) -> pb::Event {
    pb::Event {
        revision: event.revision,
        at: Some(time(Timestamp(event.at_unix_ms), clock)),
        kind: event.kind,
        actor: event.actor,
        subject: event.subject,
        pool: event.pool.unwrap_or_default(),
        resource_id: event.resource.map(|id| id.to_string()).unwrap_or_default(),
        lease_id: event.lease.map(|id| id.to_string()).unwrap_or_default(),
        detail: event.detail,
        caller: event.caller.as_deref().map(provenance),
    }
}

fn provenance(caller: &Provenance) -> pb::EventCaller {
    let text = |part: &Option<Arc<str>>| part.as_deref().unwrap_or_default().to_owned();
    pb::EventCaller {
        tenant: caller.tenant.to_string(),
        proof: caller.proof.to_string(),
        peer: text(&caller.peer),
        via: text(&caller.via),
        roles: caller.roles.to_string(),
        method: caller.method.to_string(),
        program: caller.program.map(|program| program.to_string()).unwrap_or_default(),
    }
}

/// An entry of a story that began at this time.
pub(crate) fn entry(
    told: StoredEvent,
    role: pb::TimelineRole,
    first_unix_ms: i64,
    clock: Reading,
) -> pb::TimelineEntry {
    let since_first = Some(span(Millis(told.at_unix_ms.saturating_sub(first_unix_ms))));
    pb::TimelineEntry { event: Some(event(told, clock)), role: role.into(), since_first }
}

/// A bookmark of a watch.
pub(crate) fn bookmark(revision: Revision, at: std::time::SystemTime, synced: bool) -> pb::WatchResponse {
    let bookmark = pb::Bookmark { at: Some(at.into()), synced };
    pb::WatchResponse { revision: revision.0, event: Some(pb::watch_response::Event::Bookmark(bookmark)) }
}

fn causes(chain: &CauseChain, scope: &Scope, clock: Reading) -> Vec<pb::Cause> {
    chain
        .iter()
        .map(|link| pb::Cause {
            subject: match &link.subject {
                pool @ Subject::Pool(_) => pool.to_string(),
                Subject::Resource(id) => id.to_string(),
                Subject::Lease(id) => id.to_string(),
                Subject::Session(id) => id.to_string(),
            },
            reason: link.reason.as_str().to_owned(),
            detail: link.detail_for(scope).to_string(),
            source: link.source.text(),
            at: Some(time(link.at, clock)),
        })
        .collect()
}

/// The state of the core has no credentials. If one has some all the same, they are left out.
fn access(access: &Texts) -> pb::Access {
    let public = access.iter().filter(|(key, _)| !wharfinger_adapter::access::CREDENTIALS.contains(&&***key));
    pb::Access::from_pairs(public.map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

/// The credentials of an answer to the holder.
pub(crate) fn credentials(credentials: wharfinger_adapter::Credentials) -> pb::Credentials {
    let mut pairs = credentials.into_access();
    pb::Credentials { private_key: pairs.remove(wharfinger_adapter::access::PRIVATE_KEY).unwrap_or_default() }
}

/// The states of the core and of the API have the same names; a test compares them.
fn state_count(state: &str, count: u32) -> pb::StateCount {
    let state = pb::ResourceState::from_str_name(&format!("RESOURCE_STATE_{state}")).unwrap_or_default();
    pb::StateCount { state: state.into(), count: int(count) }
}

/// The API has no unsigned counts.
fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn size(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn long(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn selector(selector: &Selector) -> pb::Selector {
    pb::Selector { pool: selector.pool.as_deref().unwrap_or_default().to_owned(), labels: texts(&selector.labels) }
}

fn texts(texts: &Texts) -> HashMap<String, String> {
    texts.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn text(text: Option<&Arc<str>>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// Wall time, which clients compare with their own clocks.
fn time(at: Timestamp, clock: Reading) -> prost_types::Timestamp {
    let at = clock.to_wall(at);
    let nanos = i32::try_from(at.0.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    prost_types::Timestamp { seconds: at.0.div_euclid(1000), nanos }
}

pub(super) fn span(span: Millis) -> prost_types::Duration {
    let nanos = i32::try_from(span.0 % 1000 * 1_000_000).unwrap_or(0);
    prost_types::Duration { seconds: span.0 / 1000, nanos }
}

#[cfg(test)]
mod tests;
