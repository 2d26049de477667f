//! The session of a guard: one stream, whose heartbeats keep the lease, and over which it hears of changes.
//!
//! A task of its own opens the session, takes the lease into it, beats at a third of the TTL, and resumes the session by another
//! stream when one breaks, on whichever server leads then. A server of an older version has no sessions; a caller may lack the
//! verb; the leader may have an address that is not reachable from here. The guard then renews, as it always did.

use crate::backoff::{Backoff, jittered};
use crate::error::{ClientError, reason};
use crate::pb;
use crate::pb::session_answer::Answer;
use crate::pb::session_call::Call;
use crate::pb::watch_response::Event;
use crate::{Client, span};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

/// Maximum time until a stream has its session.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two bookmarks, and the number of them that may be missed.
const BOOKMARKS: (Duration, u32) = (Duration::from_secs(5), 3);
/// Number of the only call of a stream: it takes the lease into the session.
const KEEP: u64 = 1;

/// News of a session.
#[derive(Debug)]
pub(crate) enum Kept {
    /// The lease lasts at least for its TTL from this time.
    Heard(Instant),
    /// A state of the lease.
    Lease(Box<pb::Lease>),
    /// No session keeps the lease, and none will.
    Unusable,
}

/// Starts to keep a lease by a session. The task ends with its handle.
pub(crate) fn keep(client: Client, lease: &pb::Lease, ttl: Duration) -> (AbortOnDropHandle<()>, mpsc::Receiver<Kept>) {
    let (news, received) = mpsc::channel(64);
    let backoff = Backoff::new(Duration::from_millis(50), (ttl / 10).max(Duration::from_millis(200)));
    let (lease, holder) = (lease.id.clone(), lease.holder.clone());
    let mut keeper =
        SessionKeeper { client, lease, holder, ttl, news, session: None, revision: 0, refused: 0, backoff };
    // Ends with its handle, which is aborted when it is dropped.
    let task = tokio::spawn(async move { keeper.run().await });
    (AbortOnDropHandle::new(task), received)
}

struct SessionKeeper {
    client: Client,
    lease: String,
    holder: String,
    ttl: Duration,
    news: mpsc::Sender<Kept>,
    /// Id of the session, once it is open.
    session: Option<String>,
    /// Revision of the last event.
    revision: u64,
    /// Refusals in a row by servers that follow.
    refused: usize,
    backoff: Backoff,
}

/// The end of one stream.
enum End {
    /// Another stream may do better.
    Again(Status),
    /// The lease is kept by renewals, or not at all.
    Unusable,
}

impl SessionKeeper {
    async fn run(&mut self) {
        loop {
            match self.stream().await {
                End::Unusable => {
                    let _ = self.news.send(Kept::Unusable).await;
                    return;
                }
                End::Again(status) => {
                    tracing::debug!(lease = %self.lease, %status, "the stream of a session ended");
                    let asked = ClientError::from(status).retry_after();
                    tokio::time::sleep(self.backoff.wait(asked)).await;
                }
            }
        }
    }

    /// Serves one stream, until it ends.
    async fn stream(&mut self) -> End {
        let (requests, outgoing) = mpsc::channel(4);
        let sent = Instant::now();
        let renew = pb::RenewRequest { lease_id: self.lease.clone(), ..pb::RenewRequest::default() };
        let first = pb::SessionRequest {
            open: Some(self.opening()),
            calls: vec![pb::SessionCall { id: KEEP, call: Some(Call::Renew(renew)) }],
            ..pb::SessionRequest::default()
        };
        if requests.try_send(first).is_err() {
            return End::Unusable;
        }
        let mut calls = self.client.lease.clone();
        let opening = calls.session(ReceiverStream::new(outgoing));
        let responses = match timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return self.ended(status),
            Err(_) => return End::Again(Status::unavailable("the broker did not open the session in time")),
        };
        match self.converse(requests, responses, sent).await {
            Ok(end) => end,
            Err(status) => self.ended(status),
        }
    }

    fn opening(&self) -> pb::SessionOpen {
        let bookmark_interval = span(BOOKMARKS.0);
        match &self.session {
            Some(session) => pb::SessionOpen {
                session_id: session.clone(),
                from_revision: self.revision,
                bookmark_interval,
                ..pb::SessionOpen::default()
            },
            None => pb::SessionOpen {
                ttl: span(self.ttl),
                holder: self.holder.clone(),
                bookmark_interval,
                ..pb::SessionOpen::default()
            },
        }
    }

    async fn converse(
        &mut self,
        requests: mpsc::Sender<pb::SessionRequest>,
        mut responses: Streaming<pb::SessionResponse>,
        opened: Instant,
    ) -> Result<End, Status> {
        let third = jittered(self.ttl / 3, 0.8).max(Duration::from_millis(20));
        let mut beats = interval_at(Instant::now() + third, third);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Heartbeats without an answer, with the times at which they were sent.
        let mut sent: VecDeque<(u64, Instant)> = VecDeque::new();
        let (mut beat, mut kept) = (0, false);
        let mut heard = Instant::now();
        loop {
            let message = tokio::select! {
                _ = beats.tick() => {
                    beat += 1;
                    sent.push_back((beat, Instant::now()));
                    // A server that reads nothing is found by its silence.
                    let _ = requests.try_send(pb::SessionRequest { beat, ..pb::SessionRequest::default() });
                    continue;
                }
                message = timeout_at(heard + BOOKMARKS.0 * BOOKMARKS.1, responses.message()) => message,
            };
            let Ok(message) = message else { return Err(Status::unavailable("the broker is silent")) };
            let Some(message) = message? else {
                return Err(Status::unavailable("the broker ended the session's stream"));
            };
            heard = Instant::now();
            if let Some(opened) = message.opened {
                self.session = Some(opened.session_id);
                self.refused = 0;
                self.backoff.reset();
            }
            for answer in message.answers.into_iter().filter(|answer| answer.id == KEEP) {
                match answer.answer {
                    Some(Answer::Renew(pb::RenewResponse { lease: Some(lease), .. })) => {
                        kept = true;
                        self.tell(Kept::Heard(opened)).await;
                        self.tell(Kept::Lease(Box::new(lease))).await;
                    }
                    Some(Answer::Refusal(refusal)) => {
                        let status = Status::from(refusal);
                        return match status.code() {
                            Code::Unavailable | Code::ResourceExhausted => Err(status),
                            _ => Ok(End::Unusable),
                        };
                    }
                    _ => return Ok(End::Unusable),
                }
            }
            for event in message.events {
                self.revision = self.revision.max(event.revision);
                if let Some(Event::Lease(lease)) = event.event {
                    if lease.id == self.lease {
                        self.tell(Kept::Lease(Box::new(lease))).await;
                    }
                }
            }
            if message.beat > 0 {
                let mut at = None;
                while sent.front().is_some_and(|(number, _)| *number <= message.beat) {
                    at = sent.pop_front().map(|(_, at)| at);
                }
                if let Some(at) = at.filter(|_| kept) {
                    self.tell(Kept::Heard(at)).await;
                }
            }
        }
    }

    async fn tell(&mut self, news: Kept) {
        if let Kept::Lease(lease) = &news {
            self.client.seen.lease(Some(lease.as_ref()));
        }
        // While the lease is released no news is wanted, and the heartbeats go on: the end of the stream would be doubt.
        let _ = self.news.send(news).await;
    }

    /// The consequence of a status with which a stream was refused, or ended.
    fn ended(&mut self, status: Status) -> End {
        match (status.code(), reason(&status).as_deref()) {
            // It ended meanwhile: a new one takes the lease, if that lives.
            (Code::NotFound, Some("UNKNOWN_SESSION")) if self.session.is_some() => {
                (self.session, self.revision) = (None, 0);
                End::Again(status)
            }
            (Code::OutOfRange, _) if self.session.is_some() => {
                self.revision = 0;
                End::Again(status)
            }
            // The leader's address may not be for clients.
            (Code::Unavailable, Some("NOT_LEADER")) => {
                self.refused += 1;
                let most = 2 * self.client.endpoints.count().max(4);
                if self.session.is_none() && self.refused > most { End::Unusable } else { End::Again(status) }
            }
            (Code::FailedPrecondition, Some("SESSION_RESUMED")) => {
                (self.session, self.revision) = (None, 0);
                End::Again(status)
            }
            // The roles changed, or the token ended: another stream shows what is left.
            (Code::PermissionDenied, Some("NO_LONGER_ALLOWED")) | (Code::Unauthenticated, _)
                if self.session.is_some() =>
            {
                End::Again(status)
            }
            _ => match ClientError::from(status.clone()) {
                ClientError::Unavailable(_) | ClientError::Capacity(_) => End::Again(status),
                _ => End::Unusable,
            },
        }
    }
}

#[cfg(test)]
mod tests;
