//! How this server stands: whether it leads, who does, and how old is what it says.

use crate::clock::Moment;
use crate::engine::handle::SubmitError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What a server is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It decides.
    Leading,
    /// It says what another has decided.
    Following,
}

/// Role and leader.
#[derive(Clone, PartialEq, Eq)]
pub struct Stand {
    /// What this server is.
    pub role: Role,
    /// Where the one is that leads, as far as that is known; of one that leads `None`.
    pub leader: Option<Leading>,
    /// What the others prove with, of one that leads, that they passed a call on; empty: nothing.
    pub pass: Arc<str>,
}

/// A server that leads.
#[derive(Clone, PartialEq, Eq)]
pub struct Leading {
    /// Where it is.
    pub address: Arc<str>,
    /// What to prove to it that a call is passed on by one of its own.
    pub pass: Arc<str>,
}

impl std::fmt::Debug for Leading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leading").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Shared by all parts of a server. Cheap to clone.
#[derive(Clone)]
pub struct Standing {
    stand: Arc<watch::Sender<Stand>>,
    news: Arc<Mutex<News>>,
}

#[derive(Debug)]
struct News {
    /// What is said was true at this time or later; `None`: nothing is known yet.
    heard: Option<Moment>,
    /// What is older is not said.
    max_age: Duration,
}

impl Standing {
    /// Of a server that decides.
    pub fn leading() -> Self {
        Self::new(Role::Leading, Duration::MAX)
    }

    /// Of one that follows, and says nothing that is older than this.
    pub fn following(max_age: Duration) -> Self {
        Self::new(Role::Following, max_age)
    }

    fn new(role: Role, max_age: Duration) -> Self {
        Self {
            stand: Arc::new(watch::Sender::new(Stand { role, leader: None, pass: Arc::from("") })),
            news: Arc::new(Mutex::new(News { heard: None, max_age })),
        }
    }

    /// How it stands, and each change of that.
    pub fn watch(&self) -> watch::Receiver<Stand> {
        self.stand.subscribe()
    }

    /// What this server is now.
    pub fn role(&self) -> Role {
        self.stand.borrow().role
    }

    /// Where the one is that leads, as far as that is known.
    pub fn leader(&self) -> Option<Arc<str>> {
        self.stand.borrow().leader.as_ref().map(|leader| leader.address.clone())
    }

    /// What a call has to be proved with that was passed on to here.
    pub(crate) fn pass(&self) -> Arc<str> {
        self.stand.borrow().pass.clone()
    }

    /// Another leads, or nobody does that is known. Says whether that is new.
    pub fn follow(&self, leader: Option<Leading>) -> bool {
        self.stand.send_if_modified(|stand| {
            let other = stand.leader != leader;
            stand.leader = leader;
            other
        })
    }

    /// From now on this server decides.
    pub(crate) fn lead(&self, pass: &str) {
        self.stand.send_replace(Stand { role: Role::Leading, leader: None, pass: Arc::from(pass) });
    }

    /// What is said now was true at this time.
    pub(crate) fn heard(&self, at: Moment) {
        self.news().heard = Some(at);
    }

    /// How old is what is said; zero if this server decides, `None` if it knows nothing yet.
    pub fn age(&self) -> Option<Duration> {
        match self.role() {
            Role::Leading => Some(Duration::ZERO),
            Role::Following => self.news().heard.map(Moment::past),
        }
    }

    /// Whether it may be said.
    ///
    /// # Errors
    /// [`SubmitError::Stale`] if it is too old, or nothing is known yet.
    pub fn fresh(&self) -> Result<(), SubmitError> {
        let max_age = self.news().max_age;
        match self.age() {
            Some(age) if age <= max_age => Ok(()),
            age => Err(SubmitError::Stale { age, max_age }),
        }
    }

    fn news(&self) -> std::sync::MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_is_not_said() {
        let standing = Standing::following(Duration::from_secs(5));
        assert!(matches!(standing.fresh(), Err(SubmitError::Stale { age: None, .. })));
        standing.heard(Moment::now());
        standing.fresh().unwrap();
        standing.heard(Moment::ago(Duration::from_secs(6)));
        assert!(matches!(standing.fresh(), Err(SubmitError::Stale { age: Some(_), .. })));
        standing.lead("x");
        standing.fresh().unwrap();
        assert_eq!((standing.role(), standing.age()), (Role::Leading, Some(Duration::ZERO)));
    }

    #[test]
    fn a_leader_that_stays_is_no_news() {
        let standing = Standing::following(Duration::from_secs(5));
        let leader = |pass: &str| Some(Leading { address: "http://a:1".into(), pass: pass.into() });
        assert!(standing.follow(leader("x")));
        assert!(!standing.follow(leader("x")));
        assert!(standing.follow(leader("y")), "another lead");
        assert!(standing.follow(None));
        assert_eq!(standing.leader(), None);
    }
}
