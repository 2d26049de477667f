//! Alerts for Alertmanager's API, version 2. A state that lasts is an alert until an entry ends it; a moment is one for some minutes.

use super::message::{Line, plain, rfc3339};
use super::severity::Severity;
use crate::engine::words;
use crate::store::StoredEvent;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wharfinger_core::EventKind;

/// Time after which an alert ends that is not sent again, and the time that an alert of a moment lasts.
pub(super) const LASTS_MS: i64 = 5 * 60 * 1000;
/// Time between two deliveries of the alerts that last.
pub(super) const AGAIN: std::time::Duration = std::time::Duration::from_secs(60);
/// Maximum number of states that last. Beyond it the oldest is left out.
const MOST: usize = 1000;
/// Maximum length of a text in characters.
const TEXT: usize = 500;

/// A state that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    kind: String,
    subject: String,
    pool: Option<String>,
    resource: Option<String>,
    machine: Option<String>,
    summary: String,
    actor: String,
    at: i64,
    /// The screen of the operator's page about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// The states that last, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lasting(Vec<Open>);

/// Whether an entry of this kind begins a state that lasts.
fn begins(kind: &str) -> bool {
    matches!(
        EventKind::parse(kind),
        Some(
            EventKind::PoolBrakeOn
                | EventKind::ResourceQuarantined
                | EventKind::ResourceKept
                | EventKind::ResourceOrphaned
        )
    )
}

/// Whether an entry ends a state that lasts, whatever the filter of the hook says of it.
pub(super) fn may_end(event: &StoredEvent) -> bool {
    matches!(
        EventKind::parse(&event.kind),
        Some(
            EventKind::PoolBrakeOff
                | EventKind::PoolRemoved
                | EventKind::ResourceHoldOver
                | EventKind::ResourceOnTrial
                | EventKind::ResourceTrusted
                | EventKind::ResourceCleared
                | EventKind::ResourceReady
                | EventKind::ResourceRecoverAsked
                | EventKind::ResourceRecycleAsked
                | EventKind::ResourceDestroying
                | EventKind::ResourceGone
        )
    )
}

impl Open {
    /// Whether this entry ends the state.
    fn is_ended_by(&self, event: &StoredEvent) -> bool {
        let gone = event.kind == EventKind::ResourceGone.as_str();
        match EventKind::parse(&self.kind) {
            Some(EventKind::PoolBrakeOn) => {
                let ends = [EventKind::PoolBrakeOff, EventKind::PoolRemoved].map(EventKind::as_str);
                ends.contains(&&*event.kind) && event.pool == self.pool
            }
            // Only its removal ends that.
            Some(EventKind::ResourceOrphaned) => gone && event.subject == self.subject,
            _ => event.subject == self.subject && may_end(event),
        }
    }

    fn alert(&self, ends_at: i64) -> Value {
        let mut labels = json!({
            "alertname": name(&self.kind),
            "kind": self.kind,
            "severity": Severity::of(&self.kind).as_str(),
        });
        for (label, value) in [("pool", &self.pool), ("resource", &self.resource), ("machine", &self.machine)] {
            if let Some(value) = value {
                labels[label] = value.clone().into();
            }
        }
        let mut alert = json!({
            "labels": labels,
            "annotations": { "summary": self.summary, "actor": self.actor },
            "startsAt": rfc3339(self.at),
            "endsAt": rfc3339(ends_at),
        });
        if let Some(url) = &self.url {
            alert["generatorURL"] = url.clone().into();
        }
        alert
    }
}

impl Lasting {
    /// Whether nothing lasts.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The alerts of the states that last.
    pub(super) fn alerts(&self, now: i64) -> Vec<Value> {
        self.0.iter().map(|open| open.alert(now + LASTS_MS)).collect()
    }

    /// Takes an entry, and returns its alerts: the states that it ends, and its own if it passes the filter of the hook.
    pub(super) fn take(&mut self, line: &Line, passes: bool, now: i64) -> Vec<Value> {
        let event = &line.event;
        let (ended, kept): (Vec<Open>, Vec<Open>) =
            std::mem::take(&mut self.0).into_iter().partition(|open| open.is_ended_by(event));
        self.0 = kept;
        let mut alerts: Vec<Value> = ended.iter().map(|open| open.alert(event.at_unix_ms.min(now))).collect();
        if !passes {
            return alerts;
        }
        let open = Open {
            kind: event.kind.clone(),
            subject: event.subject.clone(),
            pool: event.pool.clone(),
            resource: event.resource.map(|id| id.to_string()),
            machine: line.facts.machine.clone(),
            summary: plain(&line.sentence(), TEXT),
            actor: plain(&event.actor, TEXT),
            at: event.at_unix_ms,
            url: line.facts.url.clone(),
        };
        if begins(&event.kind) {
            alerts.push(open.alert(now + LASTS_MS));
            self.0.retain(|other| (&other.kind, &other.subject) != (&open.kind, &open.subject));
            self.0.push(open);
            if self.0.len() > MOST {
                self.0.remove(0);
            }
        } else if event.kind != EventKind::PoolBrakeOff.as_str() {
            // An alert that is late is seen all the same.
            let mut alert = open.alert((event.at_unix_ms + LASTS_MS).max(now + LASTS_MS / 5));
            if let Some(lease) = event.lease {
                alert["labels"]["lease"] = lease.to_string().into();
            }
            alerts.push(alert);
        }
        alerts
    }
}

/// `WharfingerLeaseBroken` for `lease.broken`.
fn name(kind: &str) -> String {
    let words = words(kind);
    let camel = words.split(' ').map(|word| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
    });
    format!("Wharfinger{}", camel.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::message::Facts;
    use super::*;

    fn line(kind: &str, subject: &str, at: i64) -> Line {
        let pool = Some("hosts".to_owned());
        let event =
            StoredEvent { kind: kind.into(), subject: subject.into(), pool, at_unix_ms: at, ..StoredEvent::default() };
        Line { event, facts: Facts::default() }
    }

    #[test]
    fn a_state_lasts_until_an_entry_ends_it() {
        let mut lasting = Lasting::default();
        let on = lasting.take(&line("pool.brake-on", "hosts", 1000), true, 2000);
        assert_eq!(on.len(), 1);
        assert_eq!(on[0]["labels"]["alertname"], "WharfingerPoolBrakeOn");
        assert_eq!(on[0]["startsAt"], "1970-01-01T00:00:01Z");
        lasting.take(&line("resource.quarantined", "res_1", 1500), true, 2000);
        lasting.take(&line("resource.orphaned", "res_2", 1500), true, 2000);
        // Doubt of another resource, and a check of the orphan, end nothing.
        assert_eq!(lasting.take(&line("resource.cleared", "res_3", 1600), false, 2000), Vec::<Value>::new());
        assert_eq!(lasting.take(&line("resource.cleared", "res_2", 1600), false, 2000), Vec::<Value>::new());
        assert_eq!(lasting.alerts(10_000).len(), 3);
        let stored: Lasting = serde_json::from_str(&serde_json::to_string(&lasting).unwrap()).unwrap();
        assert_eq!(stored, lasting);
        let off = lasting.take(&line("pool.brake-off", "hosts", 3000), true, 4000);
        assert_eq!(off.len(), 1, "the end of the state, and no alert of its own: {off:?}");
        assert_eq!((&off[0]["endsAt"], &off[0]["labels"]), (&"1970-01-01T00:00:03Z".into(), &on[0]["labels"]));
        lasting.take(&line("resource.recover-asked", "res_1", 3500), false, 4000);
        lasting.take(&line("resource.gone", "res_2", 3500), false, 4000);
        assert!(lasting.is_empty());
        // A moment lasts for some minutes.
        let moment = lasting.take(&line("lease.broken", "lse_1", 1000), true, 2000);
        assert_eq!(moment[0]["endsAt"], "1970-01-01T00:05:01Z");
        assert!(lasting.is_empty());
    }
}
