//! The API's messages for programs: `--json`. The only place that says how they look.
//!
//! Keys are the fields' names in the proto files; all of a message's keys are always there, `null` where a field is not
//! set. Enums are their names without the prefix; times are RFC 3339 in UTC; lengths of time are seconds with an `s`, as
//! in protobuf's own JSON. What changes here changes a contract.

use super::text;
use crate::pb;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// A message that can be told to programs.
pub(crate) trait Json {
    /// The message.
    fn json(&self) -> Value;
}

fn texts(map: &HashMap<String, String>) -> Value {
    let sorted: BTreeMap<&String, &String> = map.iter().collect();
    Value::Object(sorted.into_iter().map(|(key, value)| (key.clone(), json!(value))).collect())
}

fn time(at: Option<&prost_types::Timestamp>) -> Value {
    at.and_then(text::rfc3339).map_or(Value::Null, Value::String)
}

fn span(span: Option<&prost_types::Duration>) -> Value {
    let Some(span) = span else { return Value::Null };
    if span.nanos == 0 {
        return json!(format!("{}s", span.seconds));
    }
    let fraction = format!("{:09}", span.nanos.unsigned_abs());
    json!(format!("{}.{}s", span.seconds, fraction.trim_end_matches('0')))
}

/// Optional text: empty is not set.
fn some(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

fn list<T: Json>(items: &[T]) -> Value {
    Value::Array(items.iter().map(Json::json).collect())
}

fn chosen(name: &'static str) -> Value {
    if name == "UNSPECIFIED" { Value::Null } else { json!(name) }
}

impl Json for pb::WeatherLine {
    fn json(&self) -> Value {
        json!({
            "region": self.region,
            "zone": self.zone,
            "instance_type": self.instance_type,
            "market": text::market(self.market()),
            "launches": self.launches,
            "interruptions": self.interruptions,
            "capacity_errors": self.capacity_errors,
            "mean_life": span(self.mean_life.as_ref()),
            "resting": span(self.resting.as_ref()),
        })
    }
}

impl Json for pb::Tenant {
    fn json(&self) -> Value {
        let by_pool: BTreeMap<&String, &i32> = self.slots_by_pool.iter().collect();
        json!({
            "name": self.name,
            "named": self.named,
            "weight": self.weight,
            "slots": self.slots,
            "max_slots": self.max_slots,
            "slots_by_pool": by_pool,
            "waiting": self.waiting,
            "max_queue": self.max_queue,
            "oldest_wait": span(self.oldest_wait.as_ref()),
        })
    }
}

impl Json for pb::Selector {
    fn json(&self) -> Value {
        json!({ "pool": some(&self.pool), "labels": texts(&self.labels) })
    }
}

impl Json for pb::Cause {
    fn json(&self) -> Value {
        json!({
            "subject": self.subject,
            "reason": self.reason,
            "detail": self.detail,
            "source": self.source,
            "at": time(self.at.as_ref()),
        })
    }
}

impl Json for pb::Lease {
    fn json(&self) -> Value {
        let mut lease = Map::new();
        let mut put = |key: &str, value: Value| {
            lease.insert(key.into(), value);
        };
        put("id", json!(self.id));
        put("revision", json!(self.revision));
        put("state", chosen(text::lease_state(self)));
        put("request_id", json!(self.request_id));
        put("principal", json!(self.principal));
        put("holder", json!(self.holder));
        put("selector", self.selector.as_ref().map_or(Value::Null, Json::json));
        put("priority", json!(self.priority));
        put("params", texts(&self.params));
        put("tags", texts(&self.tags));
        put("ttl", span(self.ttl.as_ref()));
        put("created_at", time(self.created_at.as_ref()));
        put("active_at", time(self.active_at.as_ref()));
        put("expires_at", time(self.expires_at.as_ref()));
        put("expires_at_most", time(self.expires_at_most.as_ref()));
        put("ended_at", time(self.ended_at.as_ref()));
        put("wait_until", time(self.wait_until.as_ref()));
        put("resource_id", some(&self.resource_id));
        put("pool", some(&self.pool));
        put("slot", json!(self.slot));
        put("fencing_token", json!(self.fencing_token));
        put("access", json!(self.access_pairs()));
        let key = self.private_key().map(|key| json!({ "private_key": key }));
        put("credentials", key.unwrap_or(Value::Null));
        put("ends_at", time(self.ends_at.as_ref()));
        put("doubt", some(self.doubt_detail()));
        put("attempts", json!(self.attempts));
        put("trouble", some(&self.trouble));
        put("group_id", some(&self.group_id));
        put("group_index", json!(self.group_index));
        put("outcome", chosen(text::outcome(self.outcome())));
        put("note", some(&self.note));
        put("causes", list(&self.causes));
        put("replacement_id", some(&self.replacement_id));
        put("replaces_id", some(&self.replaces_id));
        put("fail_reason", chosen(text::fail_reason(self.fail_reason())));
        put("fail_code", some(&self.fail_code));
        put("fail_detail", some(&self.fail_detail));
        put("cleaning", json!(self.cleaning));
        put("child_resource_id", some(&self.child_resource_id));
        put("independent", json!(self.independent));
        put("expected_duration", span(self.expected_duration.as_ref()));
        put("work", some(&self.work));
        put("missing_credentials", self.missing_credentials.as_ref().map_or(Value::Null, Json::json));
        put("finding", self.finding.as_ref().map_or(Value::Null, Json::json));
        put("session_id", some(&self.session_id));
        put("holder_doubt_since", time(self.holder_doubt_since.as_ref()));
        Value::Object(lease)
    }
}

impl Json for pb::MissingCredentials {
    fn json(&self) -> Value {
        json!({ "reason": self.reason, "detail": self.detail })
    }
}

impl Json for pb::Finding {
    fn json(&self) -> Value {
        json!({ "fault": chosen(text::fault(self.fault())), "detail": self.detail })
    }
}

impl Json for pb::WorkFailure {
    fn json(&self) -> Value {
        json!({
            "work": self.work,
            "lease_id": self.lease_id,
            "at": time(self.at.as_ref()),
            "cleared": self.cleared,
        })
    }
}

impl Json for pb::Resource {
    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "revision": self.revision,
            "pool": self.pool,
            "item": some(&self.item),
            "state": chosen(text::resource_state(self)),
            "labels": texts(&self.labels),
            "slots": self.slots,
            "slots_in_use": self.slots_in_use,
            "slots_in_cleaning": self.slots_in_cleaning,
            "parent_id": some(&self.parent_id),
            "parent_lease_id": some(&self.parent_lease_id),
            "cordoned": self.cordoned,
            "cordoned_by": some(&self.cordoned_by),
            "cordon_reason": some(&self.cordon_reason),
            "created_at": time(self.created_at.as_ref()),
            "ready_at": time(self.ready_at.as_ref()),
            "idle_since": time(self.idle_since.as_ref()),
            "uses": self.uses,
            "access": self.access_pairs(),
            "ends_at": time(self.ends_at.as_ref()),
            "trouble": some(&self.trouble),
            "causes": list(&self.causes),
            "attempt": self.attempt,
            "retry_at": time(self.retry_at.as_ref()),
            "misses": self.misses,
            "deadline": time(self.deadline.as_ref()),
            "lease_ids": self.lease_ids,
            "at_risk": some(&self.at_risk),
            "kept_by": some(&self.kept_by),
            "kept_reason": some(&self.kept_reason),
            "kept_until": time(self.kept_until.as_ref()),
            "held": some(&self.held),
            "failures": list(&self.failures),
            "note": self.note.as_ref().map_or(Value::Null, Json::json),
        })
    }
}

impl Json for pb::Note {
    fn json(&self) -> Value {
        json!({ "by": self.by, "text": self.text, "at": time(self.at.as_ref()) })
    }
}

impl Json for pb::Impact {
    fn json(&self) -> Value {
        json!({
            "broken_lease_ids": self.broken_lease_ids,
            "broken_count": self.broken_count,
            "put_back_count": self.put_back_count,
            "copy_ids": self.copy_ids,
            "copy_count": self.copy_count,
            "revision": self.revision,
        })
    }
}

impl Json for pb::Item {
    fn json(&self) -> Value {
        let order = |order: &Option<pb::Order>| order.as_ref().map_or(Value::Null, Json::json);
        json!({
            "pool": self.pool,
            "name": self.name,
            "enabled": self.enabled,
            "resource_id": some(&self.resource_id),
            "cordoned": order(&self.cordoned),
            "drained": order(&self.drained),
            "held": order(&self.held),
            "losses": self.losses.as_ref().map_or(Value::Null, Json::json),
            "disabled_reason": some(&self.disabled_reason),
            "note": self.note.as_ref().map_or(Value::Null, Json::json),
        })
    }
}

impl Json for pb::Losses {
    fn json(&self) -> Value {
        json!({
            "count": self.count,
            "since": time(self.since.as_ref()),
            "last_at": time(self.last_at.as_ref()),
            "again_at": time(self.again_at.as_ref()),
            "why": self.why,
        })
    }
}

impl Json for pb::Order {
    fn json(&self) -> Value {
        json!({
            "by": self.by,
            "reason": self.reason,
            "at": time(self.at.as_ref()),
            "until": time(self.until.as_ref()),
        })
    }
}

impl Json for pb::Pool {
    fn json(&self) -> Value {
        let counts: BTreeMap<&str, i32> =
            self.resources.iter().map(|one| (text::state_name(one.state()), one.count)).collect();
        json!({
            "name": self.name,
            "adapter": self.adapter,
            "labels": texts(&self.labels),
            "enabled": self.enabled,
            "configured": self.configured,
            "cordoned": self.cordoned,
            "cordoned_by": some(&self.cordoned_by),
            "cordon_reason": some(&self.cordon_reason),
            "on": self.on,
            "min_ready": self.min_ready,
            "max": self.max,
            "slots": self.slots,
            "resources": counts,
            "free_slots": self.free_slots,
            "leases": self.leases,
            "slots_in_cleaning": self.slots_in_cleaning,
            "waiting": self.waiting,
            "items": list(&self.items),
            "trouble": some(&self.trouble),
            "domain": some(&self.domain),
            "dry_run": self.dry_run,
            "brakes": list(&self.brakes),
            "counters": self.counters.as_ref().map_or(Value::Null, Json::json),
            "losses": self.losses.as_ref().map_or(Value::Null, Json::json),
            "disabled_reason": some(&self.disabled_reason),
        })
    }
}

impl Json for pb::Brake {
    fn json(&self) -> Value {
        json!({
            "domain": self.domain,
            "members": self.members,
            "troubled": self.troubled,
            "held_since": time(self.held_since.as_ref()),
            "why": some(&self.why),
        })
    }
}

impl Json for pb::PoolCounters {
    fn json(&self) -> Value {
        json!({
            "doubts": self.doubts,
            "cleared": self.cleared,
            "repairs": self.repairs,
            "lost": self.lost,
            "broken": self.broken,
            "held": self.held,
            "would_end": self.would_end,
            "would_break": self.would_break,
        })
    }
}

impl Json for pb::TimelineEntry {
    fn json(&self) -> Value {
        json!({
            "event": self.event.as_ref().map_or(Value::Null, Json::json),
            "role": chosen(text::role(self.role())),
            "since_first": span(self.since_first.as_ref()),
        })
    }
}

impl Json for pb::TimelineResponse {
    fn json(&self) -> Value {
        json!({ "entries": list(&self.entries), "truncated": self.truncated, "revision": self.revision })
    }
}

impl Json for pb::EventCaller {
    fn json(&self) -> Value {
        json!({
            "tenant": self.tenant,
            "proof": self.proof,
            "peer": self.peer,
            "via": self.via,
            "roles": self.roles,
            "method": self.method,
            "program": some(&self.program),
        })
    }
}

impl Json for pb::Event {
    fn json(&self) -> Value {
        json!({
            "revision": self.revision,
            "at": time(self.at.as_ref()),
            "kind": self.kind,
            "actor": self.actor,
            "subject": self.subject,
            "pool": some(&self.pool),
            "resource_id": some(&self.resource_id),
            "lease_id": some(&self.lease_id),
            "detail": self.detail,
            "caller": self.caller.as_ref().map_or(Value::Null, Json::json),
        })
    }
}

impl Json for pb::Blocker {
    fn json(&self) -> Value {
        json!({ "pool": self.pool, "code": self.code, "detail": self.detail, "remedy": self.remedy })
    }
}

impl Json for pb::ExplainResponse {
    fn json(&self) -> Value {
        json!({
            "lease": self.lease.as_ref().map_or(Value::Null, Json::json),
            "summary": self.summary,
            "position": self.position,
            "satisfiable": self.satisfiable,
            "blockers": list(&self.blockers),
            "history": list(&self.history),
            "revision": self.revision,
            "likely_start": self.likely_start.as_ref().map_or(Value::Null, Json::json),
            "no_likely_start": some(&self.no_likely_start),
        })
    }
}

impl Json for pb::LikelyStart {
    fn json(&self) -> Value {
        json!({
            "earliest": span(self.earliest.as_ref()),
            "latest": span(self.latest.as_ref()),
            "basis": self.basis,
        })
    }
}

impl Json for pb::QueueClass {
    fn json(&self) -> Value {
        json!({ "wants": self.wants, "requests": self.requests, "leases": self.leases })
    }
}

impl Json for pb::QueuedRequest {
    fn json(&self) -> Value {
        json!({
            "class_index": self.class_index,
            "position": self.position,
            "lease": self.lease.as_ref().map_or(Value::Null, Json::json),
            "leases": self.leases,
            "likely_start": self.likely_start.as_ref().map_or(Value::Null, Json::json),
            "no_likely_start": some(&self.no_likely_start),
        })
    }
}

impl Json for pb::ListQueueResponse {
    fn json(&self) -> Value {
        json!({
            "classes": list(&self.classes),
            "requests": list(&self.requests),
            "next_page_token": some(&self.next_page_token),
            "revision": self.revision,
        })
    }
}

/// The answer to a request for leases, or to a release.
pub(crate) fn leases(leases: &[pb::Lease]) -> Value {
    json!({ "lease": leases.first().map_or(Value::Null, Json::json), "leases": list(leases) })
}

/// A list under its name.
pub(crate) fn listed<T: Json>(name: &str, items: &[T], revision: Option<u64>) -> Value {
    let mut document = Map::from_iter([(name.to_string(), list(items))]);
    if let Some(revision) = revision {
        document.insert("revision".into(), json!(revision));
    }
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_all_of_its_keys() {
        let lease = pb::Lease {
            id: "lse_1".into(),
            state: pb::LeaseState::Active.into(),
            ttl: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            active_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
            access: Some(pb::Access { path: "/srv".into(), ..pb::Access::default() }),
            ..pb::Lease::default()
        };
        let value = lease.json();
        assert_eq!(value["state"], "ACTIVE");
        assert_eq!(value["ttl"], "1.5s");
        assert_eq!(value["active_at"], "2023-11-14T22:13:20.005Z");
        assert_eq!(value["ended_at"], Value::Null);
        assert_eq!(value["outcome"], Value::Null);
        assert_eq!(value["access"]["path"], "/srv");
    }

    /// A field that is added to a message and forgotten here is found by this.
    #[test]
    fn every_field_of_the_api_is_printed() {
        let keys = |value: Value| -> Vec<String> {
            let Value::Object(map) = value else { panic!("no object") };
            map.keys().cloned().collect()
        };
        for (message, said) in [
            ("Lease", keys(pb::Lease::default().json())),
            ("Resource", keys(pb::Resource::default().json())),
            ("Pool", keys(pb::Pool::default().json())),
            ("Item", keys(pb::Item::default().json())),
            ("Order", keys(pb::Order::default().json())),
            ("Event", keys(pb::Event::default().json())),
            ("EventCaller", keys(pb::EventCaller::default().json())),
            ("Cause", keys(pb::Cause::default().json())),
            ("Selector", keys(pb::Selector::default().json())),
            ("Blocker", keys(pb::Blocker::default().json())),
            ("ExplainResponse", keys(pb::ExplainResponse::default().json())),
            ("LikelyStart", keys(pb::LikelyStart::default().json())),
            ("QueueClass", keys(pb::QueueClass::default().json())),
            ("QueuedRequest", keys(pb::QueuedRequest::default().json())),
            ("ListQueueResponse", keys(pb::ListQueueResponse::default().json())),
            ("Finding", keys(pb::Finding::default().json())),
            ("WorkFailure", keys(pb::WorkFailure::default().json())),
            ("Brake", keys(pb::Brake::default().json())),
            ("PoolCounters", keys(pb::PoolCounters::default().json())),
            ("TimelineEntry", keys(pb::TimelineEntry::default().json())),
            ("TimelineResponse", keys(pb::TimelineResponse::default().json())),
        ] {
            let mut wanted = fields(message);
            let mut said = said;
            wanted.sort_unstable();
            said.sort_unstable();
            assert_eq!(said, wanted, "{message}");
        }
    }

    /// The fields of a message by its descriptor.
    fn fields(message: &str) -> Vec<String> {
        use prost::Message as _;
        let set = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap();
        let found =
            set.file.iter().filter(|file| file.package() == "wharfinger.v1").flat_map(|file| &file.message_type);
        let message = found.into_iter().find(|m| m.name() == message).unwrap_or_else(|| panic!("no message {message}"));
        message.field.iter().map(|field| field.name().to_string()).collect()
    }
}
