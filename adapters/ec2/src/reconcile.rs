//! Compares EC2's lists with the broker's rows, again and again.
//!
//! An error, a throttle or half a list proves nothing. An instance that three complete lists over a minute lack, and that EC2 does not
//! find by its id, is asked over SSH. It has ended if it is silent there, too (`adapter.rs`).

use crate::account::Account;
use crate::backoff::jitter;
use crate::broker::Phase;
use crate::clock::now_ms;
use crate::cloud::{Ask, Instance, LISTED_AFTER_MS, Which};
use crate::error::Class;
use crate::orphans::Orphans;
use crate::rate_limit::Kind;
use crate::state_reason::StateReason;
use crate::{sqs, tags};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wharfinger_adapter::{NoticeKind, WallTime};

/// Minimum number of complete lists in a row without an instance, before EC2 is asked for it by its id.
const MISSES: u32 = 3;

/// Minimum time that these lists span, in intervals of the list (a minute by default).
const MISSING_FOR: u32 = 4;

/// Sources of notices. A source cancels only its own notices.
const LIST: &str = "ec2 list";
const EVENTS: &str = "ec2 events";
const CHECKS: &str = "ec2 checks";

/// Starts the loops of an account. They end with it.
pub(crate) fn start(account: &Arc<Account>) {
    // Ends with the account, as those below.
    tokio::spawn(lists(Arc::downgrade(account)));
    tokio::spawn(statuses(Arc::downgrade(account)));
    tokio::spawn(boots(Arc::downgrade(account)));
    if account.queue.is_some() {
        tokio::spawn(sqs::run(Arc::downgrade(account)));
    }
}

/// Lists the booting instances while there are any.
async fn boots(account: Weak<Account>) {
    loop {
        let Some(own) = account.upgrade() else { return };
        let some = own.poll_wanted().await;
        let pause = if some { own.settings().boot_poll } else { Duration::from_millis(50) };
        drop(own);
        sleep(pause).await;
    }
}

async fn lists(account: Weak<Account>) {
    let mut sweep = Sweep::default();
    loop {
        let Some(own) = account.upgrade() else { return };
        sweep.once(&own).await;
        let pause = own.settings().reconcile;
        drop(own);
        sleep(pause - pause / 8 + jitter(pause / 4)).await;
    }
}

/// State between two lists.
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
    /// Compares one list with the rows, in both directions. The list is read first, so that every listed instance has its row.
    pub(crate) async fn once(&mut self, account: &Arc<Account>) {
        let which = Which::Tagged(tags::DEPLOYMENT, account.deployment.clone());
        let listed: BTreeMap<String, Instance> = match account.all_instances(&which).await {
            Ok(all) => all.into_iter().map(|instance| (instance.id.clone(), instance)).collect(),
            Err(error) => {
                account.counters.failed_sweeps.fetch_add(1, Ordering::Relaxed);
                if !self.failing {
                    tracing::warn!(
                        deployment = account.deployment,
                        "cannot list the instances of the deployment, which proves nothing about them: {error}"
                    );
                }
                self.failing = true;
                return;
            }
        };
        if self.failing {
            tracing::info!(deployment = account.deployment, "EC2 lists the instances of the deployment again");
        }
        self.failing = false;
        let Ok(rows) = account.rows().await else { return };
        let mut ours = BTreeSet::new();
        for (row, note) in &rows {
            let Some(host) = note.host() else { continue };
            ours.insert(host.instance.clone());
            if row.phase == Phase::Serving {
                self.compare(account, &host.instance, host.launched_ms, &listed).await;
            }
        }
        self.missing.retain(|id, _| ours.contains(id));
        let mut remembered = ours;
        remembered.extend(listed.keys().cloned());
        account.keep_only(&remembered);
        for instance in listed.values() {
            account.saw(instance.clone());
            account.count(instance);
        }
        self.orphans.sweep(account, &listed, &rows).await;
        account.counters.sweeps.fetch_add(1, Ordering::Relaxed);
    }

    async fn compare(
        &mut self,
        account: &Arc<Account>,
        id: &str,
        launched_ms: i64,
        listed: &BTreeMap<String, Instance>,
    ) {
        if let Some(instance) = listed.get(id) {
            self.missing.remove(id);
            account.saw(instance.clone());
            if !instance.state.is_over() {
                return;
            }
            if instance.reason.as_ref().is_some_and(StateReason::is_interruption) {
                account.interrupted(id);
            }
            let detail = format!("instance {id} is {}", instance.state_text());
            if let Err(failure) = account.tell(id, NoticeKind::Gone, LIST, detail).await {
                tracing::debug!("the notice is delivered at the next list: {failure}");
            }
            return;
        }
        if now_ms() - launched_ms < LISTED_AFTER_MS && account.instance(id).is_none() {
            return;
        }
        let now = Instant::now();
        let missing = self.missing.entry(id.to_string()).or_insert(Missing { lists: 0, since: now });
        missing.lists += 1;
        if missing.lists < MISSES || now.duration_since(missing.since) < account.settings().reconcile * MISSING_FOR {
            return;
        }
        match account.all_instances(&Which::Ids(vec![id.to_string()])).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                self.missing.remove(id);
                found.into_iter().for_each(|instance| account.saw(instance));
                return;
            }
            Err(_) => return,
        }
        if !account.is_vanished(id) {
            account.vanishes(id);
            let detail = format!("the last {} lists of EC2 lack instance {id}", missing.lists);
            tracing::warn!("{detail}; the host is asked over SSH");
            if let Err(failure) = account.tell(id, NoticeKind::ConnectionLost, LIST, detail).await {
                tracing::debug!("the notice is delivered at the next list: {failure}");
            }
        }
    }
}

async fn statuses(account: Weak<Account>) {
    let mut watch = Watch::default();
    loop {
        let Some(own) = account.upgrade() else { return };
        watch.once(&own).await;
        let pause = own.settings().status;
        drop(own);
        sleep(pause - pause / 8 + jitter(pause / 4)).await;
    }
}

/// Delivered notices, so that they can be cancelled.
#[derive(Default)]
pub(crate) struct Watch {
    scheduled: BTreeMap<String, i64>,
    impaired: BTreeMap<String, bool>,
    refused: bool,
}

impl Watch {
    /// Delivers scheduled events and cancels those that are gone. A host with a failed check is at risk.
    pub(crate) async fn once(&mut self, account: &Arc<Account>) {
        let mut scheduled: BTreeMap<String, (i64, String)> = BTreeMap::new();
        let mut impaired: BTreeSet<String> = BTreeSet::new();
        for ask in [Ask::Events, Ask::InstanceImpaired, Ask::SystemImpaired] {
            let mut page = None;
            loop {
                let found = match account.call(Kind::Read, account.cloud.statuses(ask, page)).await {
                    Ok(found) => found,
                    Err(error) => return self.failed(error.class == Class::Configuration, &error.to_string()),
                };
                for status in found.items {
                    // Other implementations of the API ignore the filter.
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
                let sent = account.tell(id, NoticeKind::Maintenance(WallTime(*at)), EVENTS, code.clone()).await;
                if matches!(sent, Ok(true)) {
                    self.scheduled.insert(id.clone(), *at);
                }
            }
        }
        for id in self.scheduled.keys().filter(|id| !scheduled.contains_key(*id)).cloned().collect::<Vec<_>>() {
            let text = "it is no longer scheduled".to_string();
            if account.tell(&id, NoticeKind::Cancelled, EVENTS, text).await.is_ok() {
                self.scheduled.remove(&id);
            }
        }
        for id in &impaired {
            match self.impaired.get(id) {
                // One failed check may be a fault of the check.
                None => drop(self.impaired.insert(id.clone(), false)),
                Some(true) => {}
                Some(false) => {
                    let text = "EC2's status checks fail".to_string();
                    if matches!(account.tell(id, NoticeKind::AtRisk, CHECKS, text).await, Ok(true)) {
                        self.impaired.insert(id.clone(), true);
                    }
                }
            }
        }
        for (id, sent) in self.impaired.clone() {
            if impaired.contains(&id) {
                continue;
            }
            let text = "EC2's status checks pass again".to_string();
            if !sent || account.tell(&id, NoticeKind::Cancelled, CHECKS, text).await.is_ok() {
                self.impaired.remove(&id);
            }
        }
    }

    /// Logs a missing permission once. Notices then come from the other sources.
    fn failed(&mut self, for_good: bool, why: &str) {
        if for_good && !self.refused {
            tracing::warn!(
                "cannot read scheduled events and status checks: {why}; run `wharfinger doctor ec2`, which lists the missing permissions"
            );
        }
        self.refused = for_good;
    }
}
