//! The third side: what EC2's lists say of the instances that we think we have, again and again.
//!
//! An error, a throttle or half a list is no verdict. What is missing from whole lists three times over a minute, and is
//! not found by its own id, is asked over SSH; only silence there and absence here together are an end
//! (`adapter.rs`).

use crate::buckets::Kind;
use crate::cloud::{Ask, Instance, LISTED_AFTER_MS, Which};
use crate::error::Class;
use crate::hub::{Hub, Standing, now_ms};
use crate::orphans::Orphans;
use crate::{buckets, inbox, tags};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wharfinger_adapter::{NoticeKind, WallTime};

/// So many whole lists in a row without it…
const MISSES: u32 = 3;

/// …over so many intervals of the lists (a minute by default) make an instance one to ask for by itself.
const MISSING_FOR: u32 = 4;

/// Source names; each takes back only its own word.
const LIST: &str = "ec2 list";
const EVENTS: &str = "ec2 events";
const CHECKS: &str = "ec2 checks";

/// Starts the loops of a hub. They end with it.
pub(crate) fn start(hub: &Arc<Hub>) {
    tokio::spawn(lists(Arc::downgrade(hub)));
    tokio::spawn(statuses(Arc::downgrade(hub)));
    tokio::spawn(boots(Arc::downgrade(hub)));
    if hub.queue.is_some() {
        tokio::spawn(inbox::run(Arc::downgrade(hub)));
    }
}

/// Looks at what boots, as long as something does.
async fn boots(hub: Weak<Hub>) {
    loop {
        let Some(own) = hub.upgrade() else { return };
        let some = own.poll_wanted().await;
        let pause = if some { own.settings().boot_poll } else { Duration::from_millis(50) };
        drop(own);
        sleep(pause).await;
    }
}

async fn lists(hub: Weak<Hub>) {
    let mut sweep = Sweep::default();
    loop {
        let Some(own) = hub.upgrade() else { return };
        sweep.once(&own).await;
        let pause = own.settings().reconcile;
        drop(own);
        sleep(pause - pause / 8 + buckets::jitter(pause / 4)).await;
    }
}

/// What lasts from one list to the next.
#[derive(Default)]
pub(crate) struct Sweep {
    missing: BTreeMap<String, Missing>,
    orphans: Orphans,
    failing: bool,
}

struct Missing {
    lists: u32,
    since: Instant,
}

impl Sweep {
    /// One list, both directions. The list comes first: what is launched between it and the rows has a row.
    pub(crate) async fn once(&mut self, hub: &Arc<Hub>) {
        let which = Which::Tagged(tags::DEPLOYMENT, hub.deployment.clone());
        let listed: BTreeMap<String, Instance> = match hub.all_instances(&which).await {
            Ok(all) => all.into_iter().map(|instance| (instance.id.clone(), instance)).collect(),
            Err(error) => {
                hub.counters.failed_sweeps.fetch_add(1, Ordering::Relaxed);
                if !self.failing {
                    tracing::warn!(
                        deployment = hub.deployment,
                        "EC2 does not list our instances, which proves nothing of them: {error}"
                    );
                }
                self.failing = true;
                return;
            }
        };
        if self.failing {
            tracing::info!(deployment = hub.deployment, "EC2 lists our instances again");
        }
        self.failing = false;
        let Ok(rows) = hub.rows().await else { return };
        let mut ours = BTreeSet::new();
        for (row, note) in &rows {
            let Some(host) = note.host() else { continue };
            ours.insert(host.instance.clone());
            if row.standing == Standing::Serving {
                self.compare(hub, &host.instance, host.launched_ms, &listed).await;
            }
        }
        self.missing.retain(|id, _| ours.contains(id));
        let mut remembered = ours;
        remembered.extend(listed.keys().cloned());
        hub.keep_only(&remembered);
        for instance in listed.values() {
            hub.saw(instance.clone());
            hub.count(instance);
        }
        self.orphans.sweep(hub, &listed, &rows).await;
        hub.counters.sweeps.fetch_add(1, Ordering::Relaxed);
    }

    async fn compare(&mut self, hub: &Arc<Hub>, id: &str, launched_ms: i64, listed: &BTreeMap<String, Instance>) {
        if let Some(instance) = listed.get(id) {
            self.missing.remove(id);
            hub.saw(instance.clone());
            if !instance.state.is_over() {
                return;
            }
            let reason = instance.reason.clone().unwrap_or_else(|| "no reason given".to_string());
            if reason == "Server.SpotInstanceTermination" {
                hub.interrupted(id);
            }
            let detail = format!("instance {id} is {:?}: {reason}", instance.state);
            if let Err(failure) = hub.tell(id, NoticeKind::Gone, LIST, detail).await {
                tracing::debug!("told at the next list: {failure}");
            }
            return;
        }
        if now_ms() - launched_ms < LISTED_AFTER_MS && hub.instance(id).is_none() {
            return;
        }
        let now = Instant::now();
        let missing = self.missing.entry(id.to_string()).or_insert(Missing { lists: 0, since: now });
        missing.lists += 1;
        if missing.lists < MISSES || now.duration_since(missing.since) < hub.settings().reconcile * MISSING_FOR {
            return;
        }
        match hub.all_instances(&Which::Ids(vec![id.to_string()])).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                self.missing.remove(id);
                found.into_iter().for_each(|instance| hub.saw(instance));
                return;
            }
            Err(_) => return,
        }
        if !hub.is_vanished(id) {
            hub.vanishes(id);
            let detail = format!("instance {id} is in none of the last {} lists of EC2", missing.lists);
            tracing::warn!("{detail}; the host is asked");
            if let Err(failure) = hub.tell(id, NoticeKind::ConnectionLost, LIST, detail).await {
                tracing::debug!("told at the next list: {failure}");
            }
        }
    }
}

async fn statuses(hub: Weak<Hub>) {
    let mut watch = Watch::default();
    loop {
        let Some(own) = hub.upgrade() else { return };
        watch.once(&own).await;
        let pause = own.settings().status;
        drop(own);
        sleep(pause - pause / 8 + buckets::jitter(pause / 4)).await;
    }
}

/// What the last looks have told, so that what is over is taken back.
#[derive(Default)]
pub(crate) struct Watch {
    scheduled: BTreeMap<String, i64>,
    impaired: BTreeMap<String, bool>,
    refused: bool,
}

impl Watch {
    /// Scheduled events are told, and taken back when they are gone; a failing check puts a host at risk.
    pub(crate) async fn once(&mut self, hub: &Arc<Hub>) {
        let mut scheduled: BTreeMap<String, (i64, String)> = BTreeMap::new();
        let mut impaired: BTreeSet<String> = BTreeSet::new();
        for ask in [Ask::Events, Ask::InstanceImpaired, Ask::SystemImpaired] {
            let mut page = None;
            loop {
                let found = match hub.call(Kind::Read, hub.cloud.statuses(ask, page)).await {
                    Ok(found) => found,
                    Err(error) => return self.failed(error.class == Class::Configuration, &error.to_string()),
                };
                for status in found.items {
                    // Filters are not everywhere what they are at AWS.
                    let soonest = status
                        .events
                        .iter()
                        .filter(|event| {
                            !event.description.starts_with("[Completed]")
                                && !event.description.starts_with("[Canceled]")
                        })
                        .filter_map(|event| Some((event.not_before_unix_ms?, event.code.clone())))
                        .min();
                    if let Some(event) = soonest {
                        scheduled.insert(status.instance.clone(), event);
                    }
                    if status.impaired {
                        impaired.insert(status.instance);
                    }
                }
                page = found.next;
                if page.is_none() {
                    break;
                }
            }
        }
        self.refused = false;
        for (id, (at, code)) in &scheduled {
            if self.scheduled.get(id) != Some(at) {
                let told = hub.tell(id, NoticeKind::Maintenance(WallTime(*at)), EVENTS, code.clone()).await;
                if matches!(told, Ok(true)) {
                    self.scheduled.insert(id.clone(), *at);
                }
            }
        }
        for id in self.scheduled.keys().filter(|id| !scheduled.contains_key(*id)).cloned().collect::<Vec<_>>() {
            let text = "it is not scheduled any more".to_string();
            if hub.tell(&id, NoticeKind::Cancelled, EVENTS, text).await.is_ok() {
                self.scheduled.remove(&id);
            }
        }
        for id in &impaired {
            match self.impaired.get(id) {
                // Once may be a hiccup of the check.
                None => drop(self.impaired.insert(id.clone(), false)),
                Some(true) => {}
                Some(false) => {
                    let text = "EC2's status checks of it fail".to_string();
                    if matches!(hub.tell(id, NoticeKind::AtRisk, CHECKS, text).await, Ok(true)) {
                        self.impaired.insert(id.clone(), true);
                    }
                }
            }
        }
        for (id, told) in self.impaired.clone() {
            if impaired.contains(&id) {
                continue;
            }
            let text = "EC2's status checks of it pass again".to_string();
            if !told || hub.tell(&id, NoticeKind::Cancelled, CHECKS, text).await.is_ok() {
                self.impaired.remove(&id);
            }
        }
    }

    /// Without this permission notices come from the other sides.
    fn failed(&mut self, for_good: bool, why: &str) {
        if for_good && !self.refused {
            tracing::warn!(
                "scheduled events and status checks are not seen: {why}; `wharfinger doctor ec2` tells what is missing"
            );
        }
        self.refused = for_good;
    }
}
