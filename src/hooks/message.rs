//! A message: one entry of the trail, or the entries of a storm folded into one.

use super::severity::Severity;
use crate::engine::{Handle, words};
use crate::hidden::is_hidden;
use crate::links::Links;
use crate::store::StoredEvent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use wharfinger_core::{Core, Ended, LeaseState};

/// Maximum number of entries that a folded message has in full. The others are counted.
pub(super) const IN_FULL: usize = 20;
/// Maximum number of kinds and of pools that a folded message counts by name.
const COUNTED: usize = 64;
/// Maximum time for which a message waits for the rows that it is about.
const ENGINE_PATIENCE: Duration = Duration::from_secs(1);

/// Facts of the rows that an entry is about, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The entry of the inventory.
    pub(super) machine: Option<String>,
    /// The free text of the holder.
    pub(super) holder: Option<String>,
    /// The lease that succeeds a broken one.
    pub(super) replacement: Option<String>,
    /// The screen of the operator's page about the lease, the resource or the pool of the entry.
    pub(super) url: Option<String>,
}

/// An entry with facts.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) event: StoredEvent,
    pub(super) facts: Facts,
}

impl Line {
    /// One sentence without the words of others but the entry's detail.
    pub(super) fn sentence(&self) -> String {
        let StoredEvent { kind, pool, resource, lease, detail, .. } = &self.event;
        let mut text = words(kind);
        let mut add = |label: &str, value: Option<String>| {
            if let Some(value) = value {
                text.push_str(&format!(" {label}{value}"));
            }
        };
        add("", lease.map(|id| id.to_string()));
        add("on ", self.facts.machine.clone().or_else(|| resource.map(|id| id.to_string())));
        add("in ", pool.clone());
        if !detail.is_empty() {
            text.push_str(": ");
            text.push_str(detail);
        }
        text
    }
}

/// Messages that were given up before this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Skipped {
    /// Their number.
    pub(super) messages: u64,
    /// The time of the first entry of the first, in milliseconds since 1970.
    pub(super) first_at: i64,
    /// The time of the last entry of the last.
    pub(super) last_at: i64,
}

/// The entries of one request.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The first entries in full.
    pub(super) lines: Vec<Line>,
    /// The number of all entries.
    pub(super) entries: u64,
    /// Numbers of entries by kind and by pool.
    pub(super) kinds: BTreeMap<String, u64>,
    pub(super) pools: BTreeMap<String, u64>,
    /// The highest severity.
    pub(super) severity: Severity,
    /// The last entry.
    pub(super) last: StoredEvent,
    /// The time of the first entry.
    pub(super) first_at: i64,
    /// Messages that were given up before.
    pub(super) skipped: Option<Skipped>,
    /// The screen of the operator's page about it: that of its entry, or the first one for several.
    pub(super) url: Option<String>,
}

impl Message {
    /// A message of one entry.
    pub(super) fn of(event: StoredEvent) -> Self {
        let first_at = event.at_unix_ms;
        let mut message = Self {
            lines: Vec::new(),
            entries: 0,
            kinds: BTreeMap::new(),
            pools: BTreeMap::new(),
            severity: Severity::Info,
            last: event.clone(),
            first_at,
            skipped: None,
            url: None,
        };
        message.add(event);
        message
    }

    /// Folds another entry in.
    pub(super) fn add(&mut self, event: StoredEvent) {
        self.entries += 1;
        self.severity = self.severity.max(Severity::of(&event.kind));
        count(&mut self.kinds, &event.kind);
        if let Some(pool) = &event.pool {
            count(&mut self.pools, pool);
        }
        self.last = event.clone();
        if self.lines.len() < IN_FULL {
            self.lines.push(Line { event, facts: Facts::default() });
        }
    }

    /// Its id, which is the same on each delivery: the place of its first entry in the trail, and for a folded one that of its last.
    pub(super) fn id(&self) -> String {
        let place = |event: &StoredEvent| format!("{}.{}", event.revision, event.ordinal);
        match self.lines.first() {
            Some(first) if self.entries > 1 => format!("{}-{}", place(&first.event), place(&self.last)),
            Some(_) | None => place(&self.last),
        }
    }

    /// Whether it has several entries.
    pub(super) fn is_folded(&self) -> bool {
        self.entries > 1
    }

    /// One line about all of it.
    pub(super) fn headline(&self) -> String {
        match self.lines.first() {
            Some(line) if !self.is_folded() => line.sentence(),
            Some(_) | None => {
                let counts = |map: &BTreeMap<String, u64>, words_of: fn(&str) -> String| {
                    let mut all: Vec<(&String, &u64)> = map.iter().collect();
                    all.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
                    let shown: Vec<String> =
                        all.into_iter().take(8).map(|(name, number)| format!("{number} {}", words_of(name))).collect();
                    shown.join(", ")
                };
                let kinds = counts(&self.kinds, words);
                let pools: Vec<&str> = self.pools.keys().take(8).map(String::as_str).collect();
                let place = if pools.is_empty() { String::new() } else { format!(" in {}", pools.join(", ")) };
                format!("{} entries: {kinds}{place}", self.entries)
            }
        }
    }

    /// Looks the facts of its entries up, and the screens of the page that are about them.
    pub(super) async fn look_up(&mut self, handle: &Handle, links: &Links) {
        let events: Vec<StoredEvent> = self.lines.iter().map(|line| line.event.clone()).collect();
        let read = handle.read(move |core, _| events.iter().map(|event| facts(core, event)).collect::<Vec<_>>());
        // Without an answer the message has fewer facts.
        if let Ok(Ok(found)) = tokio::time::timeout(ENGINE_PATIENCE, read).await {
            for (line, facts) in self.lines.iter_mut().zip(found) {
                line.facts = facts;
            }
        }
        for line in &mut self.lines {
            line.facts.url = screen(&line.event, links);
        }
        self.url = match &self.lines[..] {
            [line] if !self.is_folded() => line.facts.url.clone(),
            _ => links.page().map(str::to_owned),
        };
    }
}

fn count(map: &mut BTreeMap<String, u64>, name: &str) {
    match map.get_mut(name) {
        Some(number) => *number += 1,
        None => {
            let name = if map.len() < COUNTED { name } else { "other" };
            *map.entry(name.to_owned()).or_default() += 1;
        }
    }
}

fn facts(core: &Core, event: &StoredEvent) -> Facts {
    let resource = event.resource.and_then(|id| core.resource(id));
    let lease = event.lease.and_then(|id| core.lease(id));
    let replacement = lease.and_then(|lease| match &lease.state {
        LeaseState::Ended { how: Ended::Broken { replacement, .. }, .. } => *replacement,
        _ => None,
    });
    Facts {
        machine: resource.and_then(|row| row.item.as_deref()).map(String::from),
        holder: lease.map(|row| row.spec.holder.to_string()).filter(|holder| !holder.is_empty()),
        replacement: replacement.map(|id| id.to_string()),
        url: None,
    }
}

/// The screen of the lease, the resource or the pool of an entry; without one the page itself.
fn screen(event: &StoredEvent, links: &Links) -> Option<String> {
    let lease = event.lease.and_then(|id| links.lease(&id.to_string()));
    let resource = || event.resource.and_then(|id| links.resource(&id.to_string()));
    let pool = || event.pool.as_ref().and_then(|name| links.pool(name));
    lease.or_else(resource).or_else(pool).or_else(|| links.page().map(str::to_owned))
}

/// A time as RFC 3339 has it.
pub(super) fn rfc3339(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default().to_string()
}

/// A text of others for a person's eyes: one line, without control characters and without those that change the direction of text.
pub(super) fn plain(text: &str, most: usize) -> String {
    let clean: String = text.chars().map(|c| if is_hidden(c) { ' ' } else { c }).take(most + 1).collect();
    match clean.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &clean[..at]),
        None => clean,
    }
}
