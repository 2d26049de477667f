//! The oracle of sessions: what a session that beats keeps never expires, and what a silent one kept ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use wharfinger_core::{Batch, Input, Lease, LeaseState, Millis, Session, SessionId, Timestamp};

/// A session as the oracle knows it, also after its end.
#[derive(Clone, Debug)]
struct Known {
    /// Its last row.
    row: Arc<Session>,
    /// The last word of its agent that the broker took, at least the last start of the broker.
    heard: Timestamp,
    lives: bool,
}

impl Known {
    /// How long after the last word it ends.
    fn patience(&self) -> Millis {
        if self.row.doubt.is_some() { self.row.grace } else { self.row.ttl }
    }
}

/// All sessions of a run.
#[derive(Default)]
pub(crate) struct Sessions {
    known: BTreeMap<SessionId, Known>,
    lost: u64,
    resumed: u64,
}

impl Sessions {
    /// A stored batch. A session ends only after it was silent for too long, or by its agent.
    pub(crate) fn stored(&mut self, batch: &Batch, grace_until: Timestamp) -> Result<(), String> {
        for row in &batch.sessions {
            let known = self.known.entry(row.id).or_insert(Known { row: row.clone(), heard: batch.now, lives: true });
            self.resumed += u64::from(known.row.stream < row.stream);
            known.row = row.clone();
            known.heard = known.heard.max(row.doubt.unwrap_or(row.opened_at));
        }
        for id in &batch.ended_sessions {
            let Some(known) = self.known.get_mut(id) else { return Err(format!("{id} ended, and never was")) };
            known.lives = false;
            let silent = known.heard.after(known.patience()) <= batch.now && grace_until <= batch.now;
            let closed = batch.events.iter().any(|event| {
                event.kind == wharfinger_core::EventKind::SessionClosed
                    && event.subject == wharfinger_core::Subject::Session(*id)
            });
            self.lost += u64::from(!closed);
            if !silent && !closed {
                return Err(format!("{id} was lost at {:?}, and was heard at {:?}", batch.now, known.heard));
            }
        }
        Ok(())
    }

    /// The broker took these inputs.
    pub(crate) fn heard(&mut self, inputs: &[Input], now: Timestamp) {
        for input in inputs {
            let stream = match input {
                Input::Beat(stream) | Input::KeepAll { stream, .. } => *stream,
                Input::Lease(request) => match request.session {
                    Some(stream) => stream,
                    None => continue,
                },
                Input::ResumeSession { session, .. } => {
                    // The row of the batch shows whether it was resumed.
                    if let Some(known) =
                        self.known.get_mut(session).filter(|known| known.lives && known.row.doubt.is_none())
                    {
                        known.heard = now;
                    }
                    continue;
                }
                _ => continue,
            };
            if let Some(known) = self.known.get_mut(&stream.session).filter(|known| known.lives)
                && known.row.stream == stream.number
            {
                known.heard = now;
            }
        }
    }

    /// The broker recovered from its store: the clock of each session begins anew.
    pub(crate) fn recovered(&mut self, now: Timestamp) {
        self.known.values_mut().filter(|known| known.lives).for_each(|known| known.heard = now);
    }

    /// The latest sign of life of a lease's holder by its session, and the TTL by that.
    pub(crate) fn sign(&self, lease: &Lease) -> Option<(Timestamp, Millis)> {
        let known = self.known.get(&lease.session?)?;
        Some((known.heard, known.row.ttl))
    }

    /// Whether a lease may expire: its session was lost, and its TTL by that is over.
    pub(crate) fn may_expire(&self, old: &Lease, at: Timestamp) -> bool {
        let Some(known) = old.session.and_then(|id| self.known.get(&id)) else { return false };
        let LeaseState::Active { since, .. } = old.state else { return false };
        // A lease that became active after the last word counts from then.
        !known.lives && known.heard.max(since).after(known.patience()) <= at
    }

    /// How many were lost, and how many times one was resumed.
    pub(crate) fn counts(&self) -> [u64; 2] {
        [self.lost, self.resumed]
    }

    /// No session outlives its silence.
    pub(crate) fn none_is_silent(&self, now: Timestamp, grace_until: Timestamp) -> Result<(), String> {
        let late = |known: &&Known| {
            known.lives && now > known.heard.after(known.patience()).max(grace_until).after(Millis::secs(2))
        };
        match self.known.values().find(late) {
            Some(known) => {
                Err(format!("{} was heard at {:?}, and has not ended by {now:?}", known.row.id, known.heard))
            }
            None => Ok(()),
        }
    }
}
