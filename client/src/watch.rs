//! A watch that resumes after restarts of the broker, broken connections and silence.

use crate::Seen;
use crate::backoff::Backoff;
use crate::balancer::Endpoints;
use crate::error::ClientError;
use crate::pb;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::pb::watch_response::Event;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Status, Streaming};

/// Time between two bookmarks, if the request names none.
const DEFAULT_BOOKMARKS: Duration = Duration::from_secs(5);
/// Number of missed bookmarks in a row after which a connection is dead.
const SILENT_BOOKMARKS: u32 = 3;
/// Maximum time for the broker to accept a watch.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// One event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Watched {
    /// A lease in its latest state. The same state may come twice, an older one never does, but after `Resync`.
    Lease(Box<pb::Lease>),
    /// The current state is complete, or the changes since the revision of the request.
    Synced {
        /// Everything up to this revision was delivered.
        revision: u64,
    },
    /// Nothing else changed.
    Bookmark {
        /// Everything up to this revision was delivered.
        revision: u64,
    },
    /// The watch could not resume. The current state follows, with the ended leases that are kept, and then `Synced`. A lease
    /// that is not among them has ended and is forgotten.
    Resync,
}

type Opening = Pin<Box<dyn Future<Output = Result<Streaming<pb::WatchResponse>, Status>> + Send>>;

enum State {
    Closed { again: Instant },
    Opening(Opening),
    Open(Box<Streaming<pb::WatchResponse>>),
}

/// Delivers changes of leases without a gap. After a disconnect, an unavailable broker or a silence of more than three
/// bookmarks it resumes after the last revision that was delivered.
pub struct WatchStream {
    client: LeaseServiceClient<Endpoints>,
    request: pb::WatchRequest,
    seen: Seen,
    state: State,
    /// Everything up to this revision was delivered. 0: the current state is not complete.
    revision: u64,
    /// An event was delivered.
    began: bool,
    /// The stream was opened again after the end of the caller's token, and nothing was heard since.
    renewed: bool,
    heard: Instant,
    silence: Duration,
    backoff: Backoff,
}

impl WatchStream {
    pub(crate) fn new(client: LeaseServiceClient<Endpoints>, seen: Seen, request: pb::WatchRequest) -> Self {
        let interval = request.bookmark_interval.and_then(|interval| Duration::try_from(interval).ok());
        let now = Instant::now();
        Self {
            client,
            seen,
            state: State::Closed { again: now },
            revision: request.from_revision,
            began: false,
            renewed: false,
            heard: now,
            silence: interval.unwrap_or(DEFAULT_BOOKMARKS) * SILENT_BOOKMARKS,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
            request,
        }
    }

    /// Everything up to this revision was delivered, so that a later watch can resume from it. 0: the current state is not
    /// complete.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Waits for the next event. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// Errors that a repetition does not mend: [`ClientError::Request`], [`ClientError::NotFound`] (a lease that the
    /// request names is not known, or no longer), [`ClientError::State`], [`ClientError::Credentials`],
    /// [`ClientError::Certificate`], [`ClientError::Bug`].
    pub async fn next(&mut self) -> Result<Watched, ClientError> {
        loop {
            let next = match &mut self.state {
                State::Closed { again } => {
                    tokio::time::sleep_until(*again).await;
                    self.state = State::Opening(open(self.client.clone(), self.resuming()));
                    None
                }
                State::Opening(opening) => match opening.await {
                    Ok(stream) => {
                        self.heard = Instant::now();
                        self.state = State::Open(Box::new(stream));
                        None
                    }
                    Err(status) => self.closed(Some(status))?,
                },
                State::Open(stream) => {
                    match tokio::time::timeout_at(self.heard + self.silence, stream.message()).await {
                        Ok(Ok(Some(response))) => self.heard(response),
                        Ok(Ok(None)) | Err(_) => self.closed(None)?,
                        Ok(Err(status)) => self.closed(Some(status))?,
                    }
                }
            };
            if let Some(watched) = next {
                return Ok(watched);
            }
        }
    }

    fn resuming(&self) -> pb::WatchRequest {
        let min_revision = self.request.min_revision.max(self.seen.latest());
        pb::WatchRequest { from_revision: self.revision, min_revision, ..self.request.clone() }
    }

    fn heard(&mut self, response: pb::WatchResponse) -> Option<Watched> {
        self.heard = Instant::now();
        self.backoff.reset();
        self.began = true;
        self.renewed = false;
        self.revision = self.revision.max(response.revision);
        let revision = self.revision;
        match response.event? {
            Event::Lease(lease) => Some(Watched::Lease(Box::new(lease))),
            Event::Bookmark(pb::Bookmark { synced: true, .. }) => Some(Watched::Synced { revision }),
            Event::Bookmark(_) => Some(Watched::Bookmark { revision }),
        }
    }

    /// The stream ended, was refused, or is dead. No status: it ended without one.
    fn closed(&mut self, status: Option<Status>) -> Result<Option<Watched>, ClientError> {
        let error = status.map(ClientError::from);
        let asked = error.as_ref().and_then(ClientError::retry_after);
        self.state = State::Closed { again: Instant::now() + self.backoff.wait(asked) };
        match error {
            Some(ClientError::Resync(_)) => {
                self.seen.forget();
                Ok(Some(self.resync()))
            }
            // The token has ended, or was replaced: one try with the present one.
            Some(error) if error.is_unauthenticated() && self.began && !self.renewed => {
                self.renewed = true;
                Ok((self.revision == 0).then(|| self.resync()))
            }
            // Cut off within the current state: a delivered lease may have ended since, and only the ended leases show it.
            None | Some(ClientError::Unavailable(_) | ClientError::Capacity(_)) if self.began && self.revision == 0 => {
                Ok(Some(self.resync()))
            }
            None | Some(ClientError::Unavailable(_) | ClientError::Capacity(_)) => Ok(None),
            Some(
                error @ (ClientError::Address(_)
                | ClientError::Tls(_)
                | ClientError::Credentials(_)
                | ClientError::Certificate(_)
                | ClientError::Request(_)
                | ClientError::NotFound(_)
                | ClientError::State(_)
                | ClientError::Bug(_)),
            ) => Err(error),
        }
    }

    fn resync(&mut self) -> Watched {
        self.revision = 0;
        self.began = false;
        self.request.include_ended = true;
        Watched::Resync
    }
}

fn open(mut client: LeaseServiceClient<Endpoints>, request: pb::WatchRequest) -> Opening {
    Box::pin(async move {
        match tokio::time::timeout(OPEN_TIMEOUT, client.watch(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(Status::unavailable("the broker did not accept the watch in time")),
        }
    })
}

#[cfg(test)]
mod tests;
