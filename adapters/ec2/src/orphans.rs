//! Instances that carry our tag and are in nobody's books: terminated, late and seldom rather than wrongly.
//!
//! One is nobody's if no row speaks of it: neither as its host, nor as the attempt that is under way. It must be so in two
//! lists, and still be so when the rows are read again just before; it must be older than any launch that is not written
//! down yet could be. No more than a share of all goes in one sweep, so that a broker with the wrong database does not
//! empty the account.

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

/// As many may always go in one sweep.
const FLOOR: usize = 3;

/// Templates are listed in one sweep of so many.
const TEMPLATES_EVERY: u32 = 40;

/// What lasts from one sweep to the next.
#[derive(Default)]
pub(crate) struct Orphans {
    seen: BTreeSet<String>,
    told: BTreeSet<String>,
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
        self.told.retain(|id| self.seen.contains(id));
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
        let news = strays.iter().any(|id| !self.told.contains(id));
        if dry_run || strays.len() > most {
            if news {
                let why =
                    if dry_run { "orphans_dry_run is set" } else { "it is more than orphans_share allows at once" };
                tracing::warn!(
                    count = strays.len(),
                    most,
                    "instances in nobody's books: {}; terminated are {}, since {why}",
                    strays.join(" "),
                    if dry_run { 0 } else { most }
                );
            }
            self.told.extend(strays.iter().cloned());
            if dry_run {
                return;
            }
        }
        for some in strays[..strays.len().min(most)].chunks(50) {
            tracing::warn!("terminating what is in nobody's books: {}", some.join(" "));
            match account.call(Kind::Terminate, account.cloud.terminate(some)).await {
                Ok(()) => {
                    account.counters.orphans.fetch_add(some.len() as u64, Ordering::Relaxed);
                }
                // One that is not known fails them all: each by itself.
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
                Err(error) => tracing::debug!("not terminated, tried again at the next sweep: {error}"),
            }
        }
    }

    /// Templates of settings that nobody has any more.
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
                // A pool that has launched nothing since the start of this process makes its own again when it does.
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

/// What the rows speak of: hosts by their instance, launches that are under way by resource and attempt.
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
