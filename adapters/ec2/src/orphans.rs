//! Terminates orphans: instances with the deployment's tag that no row of the broker owns.
//!
//! An orphan is in no row, neither as a host nor as the attempt that is under way. It is so in two lists, and in a second reading of
//! the rows just before its end. It is older than two launch times, so that no unfinished launch is meant. One sweep ends at most a
//! share of all instances, so that a broker with a wrong database does not empty the account.

use crate::account::Account;
use crate::broker::Row;
use crate::clock::now_ms;
use crate::cloud::Instance;
use crate::rate_limit::Kind;
use crate::record::Record;
use crate::tags;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Number of orphans that one sweep may always end.
const FLOOR: usize = 3;

/// Number of sweeps from one list of the templates to the next.
const TEMPLATES_EVERY: u32 = 40;

/// State between two sweeps.
#[derive(Default)]
pub(crate) struct Orphans {
    seen: BTreeSet<String>,
    logged: BTreeSet<String>,
    sweeps: u32,
}

impl Orphans {
    pub(crate) async fn sweep(
        &mut self,
        account: &Arc<Account>,
        listed: &BTreeMap<String, Instance>,
        rows: &[(Row, Record)],
    ) {
        let settings = account.settings();
        let oldest = now_ms() - 2 * i64::try_from(settings.launch.as_millis()).unwrap_or(i64::MAX / 4);
        let claims = Claims::of(rows);
        let alive: Vec<&Instance> = listed.values().filter(|instance| !instance.state.is_ended()).collect();
        let strays: BTreeSet<String> = alive
            .iter()
            .filter(|instance| instance.launched_unix_ms < oldest && !claims.hold(instance))
            .map(|instance| instance.id.clone())
            .collect();
        let twice: Vec<String> = strays.intersection(&self.seen).cloned().collect();
        self.seen = strays;
        self.logged.retain(|id| self.seen.contains(id));
        if !twice.is_empty() {
            let most = FLOOR.max(alive.len() * usize::try_from(settings.orphans_share).unwrap_or(0) / 100);
            self.collect(account, &twice, listed, most, settings.orphans_dry_run).await;
        }
        if self.sweeps % TEMPLATES_EVERY == 1 {
            self.templates(account, oldest).await;
        }
        self.sweeps = self.sweeps.wrapping_add(1);
    }

    async fn collect(
        &mut self,
        account: &Arc<Account>,
        twice: &[String],
        listed: &BTreeMap<String, Instance>,
        most: usize,
        dry_run: bool,
    ) {
        let Ok(now) = account.rows().await else { return };
        let claims = Claims::of(&now);
        let strays: Vec<String> =
            twice.iter().filter(|id| listed.get(*id).is_some_and(|instance| !claims.hold(instance))).cloned().collect();
        let news = strays.iter().any(|id| !self.logged.contains(id));
        if dry_run || strays.len() > most {
            if news {
                let why = if dry_run { "orphans_dry_run is set" } else { "orphans_share allows no more in one sweep" };
                tracing::warn!(
                    count = strays.len(),
                    most,
                    "orphans: {}; the sweep terminates {} of them, since {why}",
                    strays.join(" "),
                    if dry_run { 0 } else { most }
                );
            }
            self.logged.extend(strays.iter().cloned());
            if dry_run {
                return;
            }
        }
        for some in strays[..strays.len().min(most)].chunks(50) {
            tracing::warn!("terminating orphans: {}", some.join(" "));
            match account.call(Kind::Terminate, account.cloud.terminate(some)).await {
                Ok(()) => {
                    account.counters.orphans.fetch_add(some.len() as u64, Ordering::Relaxed);
                }
                // One unknown id fails the whole call, so each gets its own.
                Err(_) if some.len() > 1 => {
                    for id in some {
                        if account
                            .call(Kind::Terminate, account.cloud.terminate(std::slice::from_ref(id)))
                            .await
                            .is_ok()
                        {
                            account.counters.orphans.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                Err(error) => tracing::debug!("cannot terminate an orphan, and the next sweep tries again: {error}"),
            }
        }
    }

    /// Deletes templates that no pool and no request uses.
    async fn templates(&self, account: &Arc<Account>, oldest: i64) {
        let mut page = None;
        loop {
            let Ok(found) = account.call(Kind::Read, account.cloud.templates(&account.deployment, page)).await else {
                return;
            };
            let Ok(rows) = account.rows().await else { return };
            for (name, made) in found.items {
                let written = |(_, note): &(Row, Record)| match note {
                    Record::Launching { launch, .. } => launch.template.as_ref().is_some_and(|own| own.name == name),
                    Record::Launched { .. } | Record::Over { .. } | Record::Ready { .. } => false,
                };
                // A pool without a launch since the start of this process creates its template again at the next one.
                let used = account.uses_template(&name).await || rows.iter().any(written);
                if !used && made < oldest {
                    let _ = account.call(Kind::Terminate, account.cloud.delete_template(&name)).await;
                }
            }
            page = found.next;
            if page.is_none() {
                return;
            }
        }
    }
}

/// Instances that the rows own: hosts by their id, launches that are under way by resource and attempt.
struct Claims<'a> {
    hosts: BTreeSet<&'a str>,
    launches: BTreeSet<(&'a str, u32)>,
}

impl<'a> Claims<'a> {
    fn of(rows: &'a [(Row, Record)]) -> Self {
        let mut claims = Self { hosts: BTreeSet::new(), launches: BTreeSet::new() };
        for (row, note) in rows {
            match note {
                Record::Launched { host, .. } | Record::Ready { host, .. } => {
                    claims.hosts.insert(&host.instance);
                }
                Record::Launching { attempt, .. } => {
                    claims.launches.insert((&row.resource, *attempt));
                }
                Record::Over { .. } => {}
            }
        }
        claims
    }

    fn hold(&self, instance: &Instance) -> bool {
        let resource = instance.tags.get(tags::RESOURCE);
        let attempt = instance.tags.get(tags::ATTEMPT).and_then(|attempt| attempt.parse::<u32>().ok());
        let launching = resource.zip(attempt).is_some_and(|(id, at)| self.launches.contains(&(id.as_str(), at)));
        launching || self.hosts.contains(instance.id.as_str())
    }
}
