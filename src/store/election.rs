//! The lead over other servers: held for a while, renewed, and over by our own clock before it is over for others.

use super::{Epoch, Term};
use crate::clock::Moment;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Who would lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which server: no two say the same, not even two runs of one.
    pub holder: String,
    /// Where clients find it.
    pub address: String,
    /// For how long a lead lasts that is not renewed.
    pub ttl: Duration,
}

/// Who leads.
#[derive(Clone, PartialEq, Eq)]
pub struct Leader {
    /// Where clients find it.
    pub address: String,
    /// How long it still leads, as far as it does not renew.
    pub left: Duration,
    /// What only servers on the same database know, for as long as this lead lasts.
    pub pass: String,
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").field("address", &self.address).field("left", &self.left).finish_non_exhaustive()
    }
}

/// What became of an attempt to lead.
pub enum Election {
    /// We do.
    Won(Lead),
    /// Another does; `None`: nobody just now, or one that is not known.
    Lost(Option<Leader>),
}

/// A lead that was won. Whoever answers as leader asks [`Lead::holds`] first.
#[derive(Clone)]
pub struct Lead {
    inner: Arc<Inner>,
}

struct Inner {
    epoch: Epoch,
    term: Mutex<Term>,
    lost: CancellationToken,
    pass: String,
}

impl Lead {
    /// `sent`: from before the database was asked. It counts the time to live from later on.
    #[cfg(any(feature = "postgres", test))]
    pub(super) fn new(epoch: Epoch, pass: String, sent: Moment, ttl: Duration) -> Self {
        let term = Mutex::new(Term::new(sent.steady(), ttl));
        Lead { inner: Arc::new(Inner { epoch, term, lost: CancellationToken::new(), pass }) }
    }

    /// What only servers on the same database know, for as long as this lead lasts.
    pub(crate) fn pass(&self) -> &str {
        &self.inner.pass
    }

    /// As whom we write.
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// Whether nobody else can lead now.
    pub fn holds(&self) -> bool {
        !self.inner.lost.is_cancelled() && self.term().holds(Moment::now().steady())
    }

    /// Waits until it is over.
    pub async fn lost(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                self.lose();
            }
            tokio::select! {
                () = self.inner.lost.cancelled() => return,
                // It may be renewed meanwhile.
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// It is over, whatever the clock says.
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

    /// Zero if it is past.
    fn left(&self) -> Duration {
        self.term().until().saturating_sub(Moment::now().steady())
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").field("epoch", &self.inner.epoch).field("left", &self.left()).finish()
    }
}

/// One that lasts for a minute.
#[cfg(test)]
pub(crate) fn lead_for_tests(epoch: Epoch) -> Lead {
    Lead::new(epoch, String::new(), Moment::now(), Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lead_that_is_not_renewed_is_over_before_its_time() {
        // It ends a tenth before the time from which others may take it.
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
        assert!(!lead.holds(), "what is over stays over");
    }

    #[tokio::test]
    async fn one_that_is_renewed_goes_on() {
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
