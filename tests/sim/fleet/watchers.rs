//! Watchers that move between servers, with the promises of a watch: no event is missed, and none goes backwards.

use super::World;
use super::server::{Mail, Page, Phase};
use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger::engine::{Filter, Subscription, WatchEvent};
use wharfinger_core::{Lease, LeaseId, Revision, Scope};

/// Maximum number of events that wait for a watcher. It is small, so that some watchers are too slow.
const QUEUE: usize = 20;

pub(crate) struct Watcher {
    number: usize,
    known: BTreeMap<LeaseId, Arc<Lease>>,
    /// Revision up to which the watcher has all events.
    pub(crate) told: Revision,
    /// The server, its life, and its feed.
    pub(crate) at: Option<(usize, u64, Subscription)>,
    /// Number of connections so far.
    pub(crate) connection: u64,
    /// It waits for missed events; new events stay in its queue.
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

    /// The missed events, read from a server that knows all up to `told`.
    pub(crate) fn reads(&mut self, page: Page) -> Result<(), String> {
        if self.told < page.floor {
            // Out of range: it starts from the current state, which lacks ended and forgotten leases.
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

    /// It must have the last state of all of these. Of forgotten leases it may have any state.
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

    /// It requests the missed events from its server.
    fn watcher_reads(&mut self, w: usize) -> Result<(), String> {
        let (told, connection) = (self.watchers[w].told, self.watchers[w].connection);
        let Some((n, ..)) = self.watchers[w].at else { return Ok(()) };
        self.watchers[w].reading = true;
        if self.servers[n].leads() {
            self.post(n, Mail::Watch(w, connection, told));
            return Ok(());
        }
        let page = match self.servers[n].readable() {
            // A server that does not know the revision yet is asked again at the watcher's next look.
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
            // Only wrong clocks lead here: the server refuses, and the watcher tries another.
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

    /// A server has sent an event, or knows a later revision.
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
