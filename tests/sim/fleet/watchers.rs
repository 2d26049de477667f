//! Watchers that move between servers, with the promises of a watch: nothing is missed, nothing goes backwards.

use super::World;
use super::server::{Mail, Page, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger::engine::{Filter, Subscription, WatchEvent};
use wharfinger_core::{Lease, LeaseId, Revision, Scope};

/// Changes that wait for a watcher: few, so that some are too slow.
const QUEUE: usize = 20;

pub(crate) struct Watcher {
    number: usize,
    known: BTreeMap<LeaseId, Arc<Lease>>,
    /// Everything up to here has been told.
    pub(crate) told: Revision,
    /// The server, its life, and what it tells.
    pub(crate) at: Option<(usize, u64, Subscription)>,
    /// Grows with each connection.
    pub(crate) connection: u64,
    /// It waits for what it missed; what is told meanwhile stays in its queue.
    pub(crate) reading: bool,
}

impl Watcher {
    pub(crate) fn new(number: usize) -> Self {
        Self { number, known: BTreeMap::new(), told: Revision(0), at: None, connection: 0, reading: false }
    }

    fn lease(&mut self, lease: &Arc<Lease>) -> Result<(), String> {
        if lease.revision <= self.told {
            return Ok(());
        }
        if let Some(known) = self.known.get(&lease.id)
            && (known.revision > lease.revision || (known.ended() && !lease.ended()))
        {
            return Err(format!("(4) watcher {} is told {lease:?} after {known:?}", self.number));
        }
        self.known.insert(lease.id, lease.clone());
        self.told = lease.revision;
        Ok(())
    }

    /// What it missed, read from a server that knows all up to `told`.
    pub(crate) fn reads(&mut self, page: Page) -> Result<(), String> {
        if self.told < page.floor {
            // Out of range: from the current state. What has ended and is forgotten is not told any more.
            let now: BTreeMap<LeaseId, Arc<Lease>> =
                page.leases.iter().map(|lease| (lease.id, lease.clone())).collect();
            for (id, known) in &self.known {
                if now.get(id).is_some_and(|lease| lease.revision < known.revision) {
                    return Err(format!("(4) watcher {} knew {known:?}, and is shown {:?}", self.number, now.get(id)));
                }
            }
            self.known = now;
            self.told = page.revision;
            return Ok(());
        }
        for lease in &page.leases {
            self.lease(lease)?;
        }
        if page.revision < self.told {
            return Err(format!("(4) watcher {} goes back from {} to {}", self.number, self.told, page.revision));
        }
        self.told = page.revision;
        Ok(())
    }

    fn hears(&mut self) -> Result<bool, String> {
        while !self.reading
            && let Some((_, _, subscription)) = &mut self.at
            && let Some(told) = subscription.try_recv()
        {
            match told {
                WatchEvent::Lease(lease) => self.lease(&lease)?,
                WatchEvent::Lagged => return Ok(true),
            }
        }
        Ok(false)
    }

    /// It has the last state of all of these; of what is forgotten it may have any.
    pub(crate) fn knows(&self, leases: &[Arc<Lease>]) -> Result<(), String> {
        for lease in leases {
            if self.known.get(&lease.id) != Some(lease) {
                return Err(format!("(4) watcher {} has {:?} for {lease:?}", self.number, self.known.get(&lease.id)));
            }
        }
        let there = |id: &LeaseId| leases.iter().any(|lease| lease.id == *id);
        match self.known.values().find(|known| !known.ended() && !there(&known.id)) {
            Some(known) => Err(format!("(4) watcher {} was never told how {known:?} ended", self.number)),
            None => Ok(()),
        }
    }
}

impl World {
    /// It connects to some server, or leaves one.
    pub(super) fn watcher_moves(&mut self, w: usize) -> Result<(), String> {
        if self.watchers[w].at.take().is_some() && self.rng.chance(300) {
            self.soon(50, 8000, super::Due::Watcher(w));
            return Ok(());
        }
        let n = self.rng.below(self.servers.len() as u64) as usize;
        let server = &self.servers[n];
        let open = match server.phase {
            Phase::Down | Phase::Taking(_) => false,
            Phase::Following(_) => server.core.is_some(),
            Phase::Idle(_) | Phase::Busy(_) | Phase::Held(..) | Phase::Lost(_) => true,
        };
        if !open {
            self.soon(100, 1000, super::Due::Watcher(w));
            return Ok(());
        }
        let subscription = server.hub.subscribe(Filter::new(Scope::All), QUEUE);
        let life = server.life;
        let watcher = &mut self.watchers[w];
        watcher.connection += 1;
        (watcher.at, watcher.reading) = (Some((n, life, subscription)), true);
        self.watcher_reads(w)?;
        self.soon(500, 20_000, super::Due::Watcher(w));
        Ok(())
    }

    /// It asks its server for what it missed.
    fn watcher_reads(&mut self, w: usize) -> Result<(), String> {
        let (told, connection) = (self.watchers[w].told, self.watchers[w].connection);
        let Some((n, ..)) = self.watchers[w].at else { return Ok(()) };
        self.watchers[w].reading = true;
        if self.servers[n].leads() {
            self.post(n, Mail::Watch(w, connection, told));
            return Ok(());
        }
        let page = match self.servers[n].readable() {
            // One that has not heard of it yet is waited for: it is asked again at its next look.
            Some(core) if core.revision() >= told => Page::read(core, told),
            _ => return Ok(()),
        };
        self.watcher_has_read(w, connection, page)
    }

    pub(super) fn watcher_has_read(&mut self, w: usize, connection: u64, page: Page) -> Result<(), String> {
        if self.watchers[w].connection != connection || self.watchers[w].at.is_none() {
            return Ok(());
        }
        self.watchers[w].reading = false;
        if page.revision < self.watchers[w].told {
            // Only where clocks lie: the server refuses, and the watcher asks elsewhere.
            if !self.clocks_lie {
                return Err(format!(
                    "(4) watcher {w} at {} meets a leader at {}",
                    self.watchers[w].told, page.revision
                ));
            }
            self.watchers[w].at = None;
            return Ok(());
        }
        self.watchers[w].reads(page)?;
        self.watcher_hears(w)
    }

    fn watcher_hears(&mut self, w: usize) -> Result<(), String> {
        if self.watchers[w].hears()? {
            self.watcher_reads(w)?;
        }
        Ok(())
    }

    /// A server has told something, or knows more.
    pub(super) fn watchers_hear(&mut self, n: usize) -> Result<(), String> {
        for w in 0..self.watchers.len() {
            if self.watchers[w].at.as_ref().is_none_or(|at| at.0 != n) {
                continue;
            }
            if self.watchers[w].reading && !self.servers[n].leads() {
                self.watcher_reads(w)?;
            } else {
                self.watcher_hears(w)?;
            }
        }
        Ok(())
    }

    /// A server has lost its mailbox, or its life.
    pub(super) fn watchers_leave(&mut self, n: usize) {
        for watcher in &mut self.watchers {
            if watcher.at.as_ref().is_some_and(|at| at.0 == n) {
                (watcher.at, watcher.reading) = (None, false);
            }
        }
    }
}
