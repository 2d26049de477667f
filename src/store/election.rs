//! Leadership: a lead expires by the clock of its server before another server may treat it as expired.

use super::{Epoch, Term};
use crate::clock::Moment;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A server that wants to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Unique id of this process; new at each start.
    pub holder: String,
    /// The address for clients.
    pub address: String,
    /// Time after which a lead ends that is not renewed.
    pub ttl: Duration,
}

/// The server that leads.
#[derive(Clone, PartialEq, Eq)]
pub struct Leader {
    /// The address for clients.
    pub address: String,
    /// Time until its lead ends, unless it renews.
    pub left: Duration,
    /// The forwarding key of this lead, which only servers on the same database know.
    pub forwarding_key: String,
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").field("address", &self.address).field("left", &self.left).finish_non_exhaustive()
    }
}

/// The result of an attempt to lead.
pub enum Election {
    /// This server leads.
    Won(Lead),
    /// Another server leads. `None`: no server leads now, or the leader is not known.
    Lost(Option<Leader>),
}

/// A lead that was won. A server checks [`Lead::holds`] before each answer as leader.
#[derive(Clone)]
pub struct Lead {
    inner: Arc<Inner>,
}

struct Inner {
    epoch: Epoch,
    term: Mutex<Term>,
    lost: CancellationToken,
    forwarding_key: String,
}

impl Lead {
    /// `sent` is a time before the request. The database counts the time to live from a later time.
    #[cfg(any(feature = "postgres", test))]
    pub(super) fn new(epoch: Epoch, forwarding_key: String, sent: Moment, ttl: Duration) -> Self {
        let term = Mutex::new(Term::new(sent.steady(), ttl));
        Lead { inner: Arc::new(Inner { epoch, term, lost: CancellationToken::new(), forwarding_key }) }
    }

    /// The forwarding key of this lead.
    pub(crate) fn forwarding_key(&self) -> &str {
        &self.inner.forwarding_key
    }

    /// The epoch with which this server writes.
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// Whether no other server can lead now.
    pub fn holds(&self) -> bool {
        !self.inner.lost.is_cancelled() && self.term().holds(Moment::now().steady())
    }

    /// Waits until the lead is over.
    pub async fn lost(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                self.lose();
            }
            tokio::select! {
                () = self.inner.lost.cancelled() => return,
                // It may have been renewed meanwhile.
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// Ends the lead before its time.
    pub(super) fn lose(&self) {
        self.inner.lost.cancel();
    }

    #[cfg(any(feature = "postgres", test))]
    pub(super) fn renewed(&self, sent: Moment, ttl: Duration) {
        *self.inner.term.lock().unwrap_or_else(PoisonError::into_inner) = Term::new(sent.steady(), ttl);
    }

    fn term(&self) -> Term {
        *self.inner.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time until the end; zero after it.
    fn left(&self) -> Duration {
        self.term().until().saturating_sub(Moment::now().steady())
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").field("epoch", &self.inner.epoch).field("left", &self.left()).finish()
    }
}

/// A lead of one minute.
#[cfg(test)]
pub(crate) fn lead_for_tests(epoch: Epoch) -> Lead {
    Lead::new(epoch, String::new(), Moment::now(), Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lead_that_is_not_renewed_is_over_before_its_time() {
        // It ends a tenth before the time at which others may take it.
        let ttl = Duration::from_secs(60);
        let old = Lead::new(Epoch(4), String::new(), Moment::ago(ttl - ttl / 20), ttl);
        assert!(!old.holds(), "over in its last twentieth");
        let young = Lead::new(Epoch(4), String::new(), Moment::ago(ttl / 2), ttl);
        assert!(young.holds());
        assert!(young.left() <= ttl / 2 - ttl / 10);

        let ttl = Duration::from_millis(300);
        let lead = Lead::new(Epoch(4), String::new(), Moment::now(), ttl);
        assert!(lead.holds());
        lead.lost().await;
        assert!(!lead.holds());
        lead.renewed(Moment::now(), ttl);
        assert!(!lead.holds(), "a lead that is over stays over");
    }

    #[tokio::test]
    async fn a_lead_that_is_renewed_goes_on() {
        let ttl = Duration::from_secs(60);
        let lead = Lead::new(Epoch(4), String::new(), Moment::now(), ttl);
        lead.renewed(Moment::now(), ttl);
        assert!(tokio::time::timeout(Duration::from_millis(50), lead.lost()).await.is_err());
        assert!(lead.holds());
        lead.lose();
        lead.lost().await;
        assert!(!lead.holds());
    }
}
