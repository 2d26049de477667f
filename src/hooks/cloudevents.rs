//! CloudEvents 1.0 in structured JSON (https://github.com/cloudevents/spec).

use super::message::{Line, Message, rfc3339};
use super::severity::Severity;
use serde_json::{Value, json};

/// The media type of one event.
pub(super) const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// The type of a folded message.
const FOLDED: &str = "dev.wharfinger.folded.v1";

/// The event of a message.
pub(super) fn event(message: &Message, source: &str) -> Value {
    let (kind, subject, data) = match message.lines.first() {
        Some(line) if !message.is_folded() => {
            (format!("dev.wharfinger.{}.v1", line.event.kind), Some(line.event.subject.clone()), entry(line))
        }
        Some(_) | None => (FOLDED.to_owned(), None, folded(message)),
    };
    let mut data = data;
    if let Some(url) = &message.url {
        data["url"] = url.clone().into();
    }
    if let Some(skipped) = &message.skipped {
        data["skipped"] = json!({
            "messages": skipped.messages,
            "first_at": rfc3339(skipped.first_at),
            "last_at": rfc3339(skipped.last_at),
        });
    }
    let mut event = json!({
        "specversion": "1.0",
        "id": message.id(),
        "source": source,
        "type": kind,
        "time": rfc3339(message.last.at_unix_ms),
        "datacontenttype": "application/json",
        "severity": message.severity.as_str(),
        "data": data,
    });
    if let Some(subject) = subject {
        event["subject"] = subject.into();
    }
    event
}

fn folded(message: &Message) -> Value {
    json!({
        "entries": message.entries,
        "kinds": message.kinds,
        "pools": message.pools,
        "first_at": rfc3339(message.first_at),
        "last_at": rfc3339(message.last.at_unix_ms),
        "summary": message.headline(),
        "first": message.lines.iter().map(entry).collect::<Vec<_>>(),
    })
}

/// An entry of the trail, with the names that `wharfinger events --json` has.
fn entry(line: &Line) -> Value {
    let Line { event, facts } = line;
    let mut entry = json!({
        "revision": event.revision,
        "ordinal": event.ordinal,
        "at": rfc3339(event.at_unix_ms),
        "kind": event.kind,
        "severity": Severity::of(&event.kind).as_str(),
        "actor": event.actor,
        "detail": event.detail,
    });
    for (name, value) in [
        ("pool", event.pool.clone()),
        ("resource", event.resource.map(|id| id.to_string())),
        ("lease", event.lease.map(|id| id.to_string())),
        ("machine", facts.machine.clone()),
        ("holder", facts.holder.clone()),
        ("replacement", facts.replacement.clone()),
        ("url", facts.url.clone()),
    ] {
        if let Some(value) = value {
            entry[name] = value.into();
        }
    }
    entry
}
