//! The stream of a WatchResources: the current state or what changed since a revision, then the latest state of what changes, with
//! bookmarks between.
//!
//! It has no queue: after a change it reads what changed since its last read. Three promises hold, whatever is slow or restarted:
//!
//! * nothing is missed: each read begins where the one before ended;
//! * no resource goes backwards: each is sent in the state in which it is at the read;
//! * the `revision` of a response is safe to resume from: everything up to it has been sent.
//!
//! A slow reader costs one read of its own, and gets the latest states alone.

use crate::auth::AuthError;
use crate::engine::Role;
use crate::pb;
use crate::pb::watch_resources_response::Event;
use crate::rpc::context::Context;
use crate::rpc::convert::{self, ResourceWatching, tell_pool, tell_resource};
use crate::rpc::source::{Source, scan};
use crate::rpc::status::RpcError;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Status;
use wharfinger_core::{PoolCounters, PoolView, Resource, ResourceId, ResourceState, Revision, SeenResource, View};

/// Messages that wait for the connection.
pub(crate) const CHANNEL: usize = 64;
/// Minimum time between two reads of one stream.
const PAUSE: Duration = Duration::from_millis(100);
/// Minimum time between two reads of all pools by one stream: a read counts all resources.
const POOL_PAUSE: Duration = Duration::from_secs(1);

/// An item of the stream.
pub(crate) type Message = Result<pb::WatchResourcesResponse, Status>;

/// Sends until the client is gone, the server stops, or there is no way to go on.
pub(crate) async fn run(
    context: Context,
    asked: ResourceWatching,
    out: mpsc::Sender<Message>,
    ended: impl Future<Output = AuthError>,
) {
    let stop = context.stop.clone();
    let error = tokio::select! {
        biased;
        () = out.closed() => return,
        () = stop.cancelled() => RpcError::Stopping,
        error = ended => error.into(),
        end = Watch::new(context, asked, &out).send_all() => match end {
            Err(End::ClientGone) => return,
            Err(End::Failed(error)) => error,
        },
    };
    // The client may not be reading; the connection is cut in the end.
    let _ = out.send(Err(error.into())).await;
}

enum End {
    ClientGone,
    Failed(RpcError),
}

impl<E: Into<RpcError>> From<E> for End {
    fn from(error: E) -> Self {
        End::Failed(error.into())
    }
}

/// The resources that the client may hold in a wanted state, where it asked for some states alone.
enum Held {
    /// A stream that began with the current state: those that it sent so.
    Sent(BTreeSet<ResourceId>),
    /// A stream that resumed another: all but those that it sent in a state that is not wanted.
    AllBut(BTreeSet<ResourceId>),
}

impl Held {
    /// Whether a resource is sent, now that it is in a wanted state or in another one.
    fn is_sent(&mut self, id: ResourceId, wanted: bool) -> bool {
        match (self, wanted) {
            (Held::Sent(ids), true) => {
                ids.insert(id);
                true
            }
            (Held::Sent(ids), false) => ids.remove(&id),
            (Held::AllBut(ids), true) => {
                ids.remove(&id);
                true
            }
            (Held::AllBut(ids), false) => ids.insert(id),
        }
    }

    /// A resource is gone, and nothing more comes of it.
    fn forget(&mut self, id: ResourceId) {
        let (Held::Sent(ids) | Held::AllBut(ids)) = self;
        ids.remove(&id);
    }
}

/// Part of what changed.
struct Page {
    found: Vec<SeenResource>,
    /// The place in the order of changes after which the next read begins. `None`: this was all.
    next: Option<(Revision, ResourceId)>,
    revision: Revision,
    floor: Revision,
}

struct Watch<'a> {
    context: Context,
    asked: Arc<ResourceWatching>,
    out: &'a mpsc::Sender<Message>,
    revision: watch::Receiver<Revision>,
    /// Everything up to here has been sent.
    told: Revision,
    held: Held,
    /// The pools as they were sent last.
    pools: BTreeMap<Arc<str>, PoolView>,
}

impl<'a> Watch<'a> {
    fn new(context: Context, asked: ResourceWatching, out: &'a mpsc::Sender<Message>) -> Self {
        let held = match asked.from {
            Revision(0) => Held::Sent(BTreeSet::new()),
            Revision(_) => Held::AllBut(BTreeSet::new()),
        };
        // Before the first read: a change during it is read after it.
        let revision = context.hub().revision();
        Self { told: asked.from, asked: Arc::new(asked), out, revision, held, pools: BTreeMap::new(), context }
    }

    async fn send_all(mut self) -> Result<Infallible, End> {
        if self.told == Revision(0) {
            if self.asked.min > Revision(0) {
                self.context.reach(self.asked.min).await?;
            }
            self.current_state().await?;
        } else {
            self.changes().await?;
        }
        self.send_pools().await?;
        self.bookmark(true).await?;

        let bookmarks = self.asked.bookmarks;
        let mut tick = tokio::time::interval_at(Instant::now() + bookmarks, bookmarks);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pools_read = Instant::now();
        let mut pools_due = false;
        loop {
            let moved = tokio::select! {
                biased;
                _ = tick.tick() => false,
                changed = self.revision.changed() => {
                    changed.map_err(|_| RpcError::Stopping)?;
                    true
                }
                () = tokio::time::sleep_until(pools_read + POOL_PAUSE), if pools_due => false,
            };
            let before = self.told;
            let sent = self.changes().await?;
            pools_due |= self.asked.pools_for.is_some() && self.told > before;
            let with_pools = pools_due && pools_read.elapsed() >= POOL_PAUSE;
            let sent = if with_pools {
                (pools_due, pools_read) = (false, Instant::now());
                self.send_pools().await? || sent
            } else {
                sent
            };
            if sent || !moved {
                self.bookmark(false).await?;
            }
            if moved {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn current_state(&mut self) -> Result<(), End> {
        let (mut after, mut base) = (None, None);
        loop {
            let asked = self.asked.clone();
            let read = move |view: View<'_>, _now| {
                let (found, last) =
                    scan(view.resources(after), |row| asked.has_pool(row) && asked.wants(row), usize::MAX);
                let found: Vec<SeenResource> = found.iter().map(|row| view.seen(row)).collect();
                (found, last, view.revision())
            };
            let (found, last, revision) = self.context.read(&self.asked.scope, read).await?;
            // Later pages show later states; only what the first one shows is known of all resources.
            let base = *base.get_or_insert(revision);
            for seen in &found {
                self.send_resource(seen).await?;
            }
            match last {
                Some(last) => after = Some(last),
                None => break self.told = base,
            }
        }
        Ok(())
    }

    /// Reads and sends what changed since the last read. Returns whether something was sent.
    async fn changes(&mut self) -> Result<bool, End> {
        self.revision.mark_unchanged();
        let mut sent = false;
        let mut next = (Revision(self.told.0 + 1), ResourceId::new(0));
        loop {
            let page = self.page(next).await?;
            if self.told < page.floor {
                return Err(RpcError::Compacted { after: self.told, floor: page.floor }.into());
            }
            if self.told > page.revision {
                self.context.reach(self.told).await?;
                continue;
            }
            for seen in &page.found {
                sent |= self.send_resource(seen).await?;
            }
            match page.next {
                Some(place) => next = place,
                // A resource that changed during the reads has a later place in the order, and was read there.
                None => {
                    self.told = self.told.max(page.revision);
                    return Ok(sent);
                }
            }
        }
    }

    async fn page(&self, after: (Revision, ResourceId)) -> Result<Page, End> {
        let asked = self.asked.clone();
        let read = move |view: View<'_>, _now| {
            let (found, next) = scan(view.resources_changed_after(after), |row| asked.has_pool(row), usize::MAX);
            let found = found.iter().map(|row| view.seen(row)).collect();
            Page { found, next, revision: view.revision(), floor: view.floor() }
        };
        Ok(self.context.read(&self.asked.scope, read).await?)
    }

    /// Sends the pools that differ from what was sent. Returns whether there were some.
    async fn send_pools(&mut self) -> Result<bool, End> {
        let Some(scope) = self.asked.pools_for.clone() else { return Ok(false) };
        let pools = self.context.read(&scope, |view: View<'_>, _now| view.pools()).await?;
        let mut gone: BTreeMap<Arc<str>, PoolView> = std::mem::take(&mut self.pools);
        let (mut sent, clock) = (false, self.context.reading());
        for mut pool in pools.into_iter().filter(|pool| self.asked.has_name(&pool.config.name)) {
            let follows = self.context.leadership().role() == Role::Following;
            if follows {
                pool.counters = PoolCounters::default();
            }
            let name = pool.config.name.clone();
            if gone.remove(&name).as_ref() != Some(&pool) {
                let mut told = tell_pool(&pool, clock);
                if follows {
                    told.counters = None;
                }
                self.send(Event::Pool(told)).await?;
                sent = true;
            }
            self.pools.insert(name, pool);
        }
        for name in gone.keys() {
            self.send(Event::Pool(pb::Pool { name: name.to_string(), ..pb::Pool::default() })).await?;
            sent = true;
        }
        Ok(sent)
    }

    /// Sends a resource, unless the client neither wants nor holds it.
    async fn send_resource(&mut self, seen: &SeenResource) -> Result<bool, End> {
        let wanted = self.asked.states.is_empty() || self.asked.wants(&seen.resource);
        if !self.asked.states.is_empty() && !self.held.is_sent(seen.resource.id, wanted) {
            return Ok(false);
        }
        let resource = tell_resource(seen, &self.asked.scope, self.context.reading());
        self.send(Event::Resource(resource)).await?;
        if matches!(seen.resource.state, ResourceState::Gone { .. }) {
            self.held.forget(seen.resource.id);
        }
        Ok(true)
    }

    async fn bookmark(&self, synced: bool) -> Result<(), End> {
        let at = Some(self.context.as_of()?.into());
        self.send(Event::Bookmark(pb::Bookmark { at, synced })).await
    }

    async fn send(&self, event: Event) -> Result<(), End> {
        let message = pb::WatchResourcesResponse { revision: self.told.0, event: Some(event) };
        self.out.send(Ok(message)).await.map_err(|_| End::ClientGone)
    }
}

impl ResourceWatching {
    fn has_name(&self, pool: &Arc<str>) -> bool {
        self.pools.is_empty() || self.pools.contains(pool)
    }

    fn has_pool(&self, row: &Resource) -> bool {
        self.has_name(&row.pool)
    }

    /// Whether a resource is of the wanted states. Of all, if none is named, but those that are gone.
    fn wants(&self, row: &Resource) -> bool {
        convert::is_of_states(&self.states, row)
    }
}

#[cfg(test)]
mod tests;
