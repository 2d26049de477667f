//! From the core's types to columns.

use super::json::{DetailJson, EndedJson, FailureJson, KeepJson, RiskJson, json, links};
use super::{About, Sink};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger_core::{
    Cordon, Ended, Event, Lease, LeaseState, Op, PoolRow, Resource, ResourceId, ResourceState, Texts, Timestamp,
};

struct Put<'s, S: Sink>(&'s mut S);

impl<S: Sink> Put<'_, S> {
    fn int(&mut self, value: impl Into<i64>) {
        self.0.int(Some(value.into()));
    }
    fn number(&mut self, value: u64) {
        self.0.int(Some(value.cast_signed()));
    }
    fn time(&mut self, value: Option<Timestamp>) {
        self.0.int(value.map(|t| t.0));
    }
    fn op(&mut self, value: Option<Op>) {
        self.0.int(value.map(|op| op.0.cast_signed()));
    }
    fn text(&mut self, value: &Arc<str>) {
        self.0.text(Some(value));
    }
    fn maybe(&mut self, value: Option<&Arc<str>>) {
        self.0.text(value);
    }
    fn name(&mut self, value: &'static str) {
        self.0.string(Some(value.to_owned()));
    }
    fn id(&mut self, value: Option<impl ToString>) {
        self.0.string(value.map(|id| id.to_string()));
    }
    fn texts(&mut self, value: &Texts) {
        // An empty map is NULL: most are, and a NULL costs nothing.
        self.0.string(if value.is_empty() { None } else { json(value) });
    }
    fn json(&mut self, value: Option<&impl Serialize>) {
        self.0.string(value.and_then(json));
    }
    fn cordon(&mut self, value: Option<&Cordon>) {
        self.0.text(value.map(|c| &c.by));
        self.0.text(value.map(|c| &c.reason));
    }
}

/// Writes a lease, in the order of [`LEASE`].
pub(in crate::store) fn put_lease(lease: &Lease, sink: &mut impl Sink) {
    let mut put = Put(sink);
    let spec = &*lease.spec;
    let mut ended = None;
    let (state, op, since, access, ended_at) = match &lease.state {
        LeaseState::Queued => ("QUEUED", None, None, None, None),
        LeaseState::Preparing { op, .. } => ("PREPARING", Some(*op), None, None, None),
        LeaseState::Active { since, access, .. } => ("ACTIVE", None, Some(*since), Some(access), None),
        LeaseState::Ended { how, at, cleanup } => {
            ended = how_ended(how);
            (how.as_str(), cleanup.map(|c| c.op), None, None, Some(*at))
        }
    };
    put.id(Some(lease.id));
    put.number(lease.revision.0);
    put.name(state);
    put.maybe(spec.selector.pool.as_ref());
    put.texts(&spec.selector.labels);
    put.text(&spec.holder);
    put.text(&spec.principal);
    put.text(&spec.request_id);
    put.number(spec.fingerprint);
    put.int(spec.priority);
    put.int(spec.ttl.0);
    put.time(spec.wait_until);
    put.0.int(spec.expected.map(|t| t.0));
    put.texts(&spec.params);
    put.texts(&spec.tags);
    put.id(spec.group);
    put.int(spec.index);
    put.int(spec.independent);
    put.id(spec.child);
    put.int(spec.replace);
    put.id(spec.replaces);
    put.int(lease.created_at.0);
    put.number(lease.seq);
    put.time(lease.expires_at);
    put.int(lease.attempts);
    put.int(lease.delays);
    put.time(lease.not_before);
    put.maybe(lease.pool.as_ref());
    let avoid: Vec<String> = lease.avoid.iter().map(ResourceId::to_string).collect();
    put.json((!avoid.is_empty()).then_some(&avoid));
    put.maybe(lease.trouble.as_ref());
    put.time(lease.ends_at);
    put.maybe(lease.doubt.as_ref());
    let assignment = lease.assignment();
    put.id(assignment.map(|a| a.resource));
    put.0.int(assignment.map(|a| i64::from(a.slot)));
    put.0.int(assignment.map(|a| a.token.cast_signed()));
    put.op(op);
    put.time(since);
    match access {
        Some(access) => put.texts(access),
        None => put.0.string(None),
    }
    put.time(ended_at);
    put.json(ended.as_ref());
    put.maybe(spec.work.as_ref());
}

fn how_ended(how: &Ended) -> Option<EndedJson> {
    match how {
        Ended::Expired | Ended::Cancelled => None,
        Ended::Released { outcome, note, finding } => Some(EndedJson {
            outcome: Some(outcome.as_str().to_owned()),
            note: Some(note.clone()),
            fault: finding.as_ref().map(|found| found.fault.as_str().to_owned()),
            finding: finding.as_ref().map(|found| found.detail.clone()),
            ..EndedJson::default()
        }),
        Ended::Broken { cause, replacement } => Some(EndedJson {
            cause: Some(links(cause)),
            replacement: replacement.map(|id| id.to_string()),
            ..EndedJson::default()
        }),
        Ended::Failed { reason, code, detail } => Some(EndedJson {
            reason: Some(reason.as_str().to_owned()),
            code: Some(code.clone()),
            detail: Some(detail.clone()),
            ..EndedJson::default()
        }),
    }
}

/// Writes a resource, in the order of [`RESOURCE`].
pub(in crate::store) fn put_resource(resource: &Resource, sink: &mut impl Sink) {
    let mut put = Put(sink);
    let mut parts = (None, None, None, None, None);
    let mut detail = None;
    let (op, attempt, retry_at, since, cause) = &mut parts;
    match &resource.state {
        ResourceState::Ready => {}
        ResourceState::Provisioning { op: o, attempt: a, retry_at: r } => {
            (*op, *attempt, *retry_at) = (*o, Some(*a), *r);
        }
        ResourceState::Suspect { since: s, cause: c, op: o, retry_at: r, misses, first_miss, repairs, held } => {
            (*op, *retry_at, *since, *cause) = (*o, *r, Some(*s), Some(c));
            detail = Some(DetailJson {
                misses: Some(*misses),
                first_miss: first_miss.map(|t| t.0),
                repairs: Some(*repairs),
                held: held.clone(),
                ..DetailJson::default()
            });
        }
        ResourceState::Repairing { op: o, cause: c, repairs } => {
            (*op, *cause) = (Some(*o), Some(c));
            detail = Some(DetailJson { repairs: Some(*repairs), ..DetailJson::default() });
        }
        ResourceState::Quarantined { cordon, since: s, until } => {
            *since = Some(*s);
            detail = Some(DetailJson {
                by: Some(cordon.by.clone()),
                reason: Some(cordon.reason.clone()),
                until: until.map(|t| t.0),
                ..DetailJson::default()
            });
        }
        ResourceState::Draining { cause: c, deadline } => {
            *cause = Some(c);
            detail = Some(DetailJson { deadline: deadline.map(|t| t.0), ..DetailJson::default() });
        }
        ResourceState::Destroying { op: o, attempt: a, retry_at: r, cause: c, dead } => {
            (*op, *attempt, *retry_at, *cause) = (*o, Some(*a), *r, Some(c));
            detail = Some(DetailJson { dead: Some(*dead), ..DetailJson::default() });
        }
        ResourceState::Orphaned { op: o, attempt: a, retry_at: r, cause: c } => {
            (*op, *attempt, *retry_at, *cause) = (*o, Some(*a), *r, Some(c));
        }
        ResourceState::Gone { at, cause: c } => (*since, *cause) = (Some(*at), Some(c)),
    }
    put.id(Some(resource.id));
    put.number(resource.revision.0);
    put.name(resource.state.as_str());
    put.text(&resource.pool);
    put.maybe(resource.item.as_ref());
    put.texts(&resource.labels);
    put.int(resource.slots);
    put.id(resource.parent.map(|p| p.lease));
    put.id(resource.parent.and_then(|p| p.host));
    put.cordon(resource.cordoned.as_ref());
    put.int(resource.created_at.0);
    put.time(resource.ready_at);
    put.time(resource.idle_since);
    put.int(resource.uses);
    put.maybe(resource.handle.as_ref());
    put.texts(&resource.access);
    put.time(resource.ends_at);
    put.maybe(resource.trouble.as_ref());
    let (op, attempt, retry_at, since, cause) = parts;
    put.op(op);
    put.0.int(attempt.map(i64::from));
    put.time(retry_at);
    put.time(since);
    put.json(cause.map(links).as_ref());
    put.json(detail.as_ref());
    put.texts(&resource.found);
    let risk = resource.at_risk.as_ref();
    put.json(risk.map(|r| RiskJson { source: r.source.clone(), detail: r.detail.clone() }).as_ref());
    let hold = resource.hold.as_ref().map(|hold| KeepJson {
        by: hold.by.clone(),
        reason: hold.reason.clone(),
        until: hold.until.map(|t| t.0),
    });
    put.json(hold.as_ref());
    let failures: Vec<FailureJson> = resource
        .failures
        .iter()
        .map(|failure| FailureJson {
            work: failure.work.clone(),
            lease: failure.lease.to_string(),
            at: failure.at.0,
            cleared: failure.cleared,
        })
        .collect();
    put.json((!failures.is_empty()).then_some(&failures));
    let announced: BTreeMap<&str, i64> = resource.announced.iter().map(|(source, at)| (&**source, at.0)).collect();
    put.json((!announced.is_empty()).then_some(&announced));
}

/// Writes what an operator said of a pool, in the order of [`POOL`].
pub(in crate::store) fn put_pool(pool: &PoolRow, sink: &mut impl Sink) {
    let mut put = Put(sink);
    put.text(&pool.name);
    put.number(pool.revision.0);
    put.cordon(pool.cordoned.as_ref());
}

/// Writes an entry of the audit trail, in the order of [`EVENT`]. `ordinal` counts the entries of one revision.
pub(in crate::store) fn put_event(event: &Event, ordinal: i64, sink: &mut impl Sink) {
    let mut put = Put(sink);
    let about = About::of(event);
    put.number(event.revision.0);
    put.int(ordinal);
    put.int(event.at.0);
    put.name(event.kind.as_str());
    put.text(&event.actor);
    put.0.string(Some(event.subject.key()));
    put.maybe(about.pool);
    put.id(about.resource);
    put.id(about.lease);
    put.text(&event.detail);
}
