//! The stream of a Watch: the current state or the changes since a revision, then each change, with bookmarks between.
//!
//! Three promises hold, whatever is slow or restarted:
//!
//! * nothing is missed: the watch subscribes before it reads, and reads what it was too slow for;
//! * no lease goes backwards: a lease that was sent in a later state is dropped when it comes again in an earlier one;
//! * the `revision` of a response is safe to resume from: everything up to it has been told. While the current state
//!   is being told that is revision 0: who is cut off there starts again.

use crate::auth::AuthError;
use crate::engine::{Filter, Subscription, WatchEvent};
use crate::pb;
use crate::rpc::convert::{Watching, bookmark, tell_lease};
use crate::rpc::source::{Cursor, Source};
use crate::rpc::status::RpcError;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wharfinger_core::{Caller, Lease, LeaseId, Revision};

/// Changes that wait for a watcher before it has to read instead.
const QUEUE: usize = 256;
/// Messages that wait for the connection.
pub(crate) const CHANNEL: usize = 64;

/// An item of a watch's stream.
pub(crate) type Message = Result<pb::WatchResponse, Status>;

/// Tells until the client is gone, the server stops, or there is no way to go on.
pub(crate) async fn run<S: Source>(
    source: S,
    asked: Watching,
    out: mpsc::Sender<Message>,
    stop: CancellationToken,
    ended: impl Future<Output = AuthError>,
) {
    let error = tokio::select! {
        biased;
        () = out.closed() => return,
        () = stop.cancelled() => RpcError::Stopping,
        error = ended => error.into(),
        end = Watch::new(source, &asked, &out).tell(asked.from, asked.bookmarks) => match end {
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

struct Watch<'a, S> {
    source: S,
    filter: Arc<Filter>,
    /// Caller whose own leases are sent with their credentials.
    owner: Option<Caller>,
    ended: bool,
    min: Revision,
    out: &'a mpsc::Sender<Message>,
    changes: Subscription,
    revision: watch::Receiver<Revision>,
    /// Everything up to here has been told.
    told: Revision,
    /// Leases of the current state that were sent with a later revision than `told`.
    ahead: BTreeMap<LeaseId, Revision>,
}

impl<'a, S: Source> Watch<'a, S> {
    fn new(source: S, asked: &Watching, out: &'a mpsc::Sender<Message>) -> Self {
        // Before the first read: changes during it are sent after it.
        let changes = source.hub().subscribe(asked.filter.clone(), QUEUE);
        Self {
            filter: Arc::new(asked.filter.clone()),
            owner: asked.owner.clone(),
            ended: asked.include_ended,
            min: asked.min,
            out,
            changes,
            revision: source.hub().revision(),
            source,
            told: asked.from,
            ahead: BTreeMap::new(),
        }
    }

    async fn tell(mut self, from: Revision, bookmarks: Duration) -> Result<Infallible, End> {
        if from == Revision(0) {
            if self.min > Revision(0) {
                self.source.reach(self.min).await?;
            }
            self.current_state().await?;
        } else {
            self.catch_up().await?;
        }
        let at = self.source.as_of()?;
        self.send(bookmark(self.told, at, true)).await?;

        let mut tick = tokio::time::interval_at(Instant::now() + bookmarks, bookmarks);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => self.bookmark().await?,
                told = self.changes.recv() => self.change(told).await?,
            }
        }
    }

    async fn current_state(&mut self) -> Result<(), End> {
        let mut cursor = Cursor::State(None);
        let mut first = None;
        let mut refreshed = false;
        loop {
            let page = self.source.page(cursor, self.filter.clone(), self.ended).await?;
            // It may have been made just now, through another server.
            if page.missing.is_some() && !std::mem::replace(&mut refreshed, true) {
                self.source.refresh().await?;
                continue;
            }
            // Later pages show later states; only what the first one shows is known of all leases.
            let base = *first.get_or_insert(page.revision);
            if let Some(id) = page.missing {
                return Err(RpcError::no_lease(id).into());
            }
            for lease in page.leases {
                if lease.revision > base {
                    self.ahead.insert(lease.id, lease.revision);
                }
                self.send_lease(&lease, Revision(0)).await?;
            }
            match page.next {
                Some(next) => cursor = next,
                None => break self.told = base,
            }
        }
        Ok(())
    }

    /// Reads the changes since the last one that was sent.
    async fn catch_up(&mut self) -> Result<(), End> {
        loop {
            let after = self.told;
            let page = self.source.page(Cursor::Changes(after), self.filter.clone(), true).await?;
            if after < page.floor {
                return Err(RpcError::Compacted { after, floor: page.floor }.into());
            }
            if after > page.revision {
                self.source.reach(after).await?;
                continue;
            }
            for lease in page.leases {
                self.lease(&lease).await?;
            }
            // Also over what the filter left out.
            match page.next {
                Some(Cursor::Changes(seen)) => self.told = self.told.max(seen),
                Some(Cursor::State(_)) | None => {
                    self.told = self.told.max(page.revision);
                    return Ok(());
                }
            }
        }
    }

    async fn change(&mut self, told: WatchEvent) -> Result<(), End> {
        match told {
            WatchEvent::Lease(lease) => self.lease(&lease).await,
            WatchEvent::Lagged => self.catch_up().await,
        }
    }

    async fn lease(&mut self, lease: &Lease) -> Result<(), End> {
        if lease.revision <= self.told {
            return Ok(());
        }
        let told_later = self.ahead.get(&lease.id).is_some_and(|ahead| *ahead >= lease.revision);
        if !told_later {
            self.send_lease(lease, lease.revision).await?;
        }
        self.told = lease.revision;
        self.ahead.retain(|_, revision| *revision > self.told);
        Ok(())
    }

    /// Tells how far the broker is. The hub's revision advances after the offers, so what is not in the queue when the
    /// revision has been read does not belong to it.
    async fn bookmark(&mut self) -> Result<(), End> {
        let at = self.source.as_of()?;
        let revision = *self.revision.borrow();
        while self.told < revision
            && let Some(told) = self.changes.try_recv()
        {
            self.change(told).await?;
        }
        self.told = self.told.max(revision);
        self.send(bookmark(self.told, at, false)).await
    }

    async fn send_lease(&self, lease: &Lease, revision: Revision) -> Result<(), End> {
        let lease = match &self.owner {
            Some(owner) => self.source.tell(lease, owner).await?,
            None => tell_lease(lease, &self.filter.scope, self.source.reading()),
        };
        let event = Some(pb::watch_response::Event::Lease(lease));
        self.send(pb::WatchResponse { revision: revision.0, event }).await
    }

    async fn send(&self, message: pb::WatchResponse) -> Result<(), End> {
        self.out.send(Ok(message)).await.map_err(|_| End::ClientGone)
    }
}

#[cfg(test)]
mod tests;
