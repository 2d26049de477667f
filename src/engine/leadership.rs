//! The leadership of this server: its role, the current leader, and the age of its data.

use crate::clock::Moment;
use crate::engine::handle::SubmitError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The role of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server decides.
    Leading,
    /// The server answers reads from what the leader has committed.
    Following,
}

/// The role and the leader at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Stand {
    /// The role of this server.
    pub role: Role,
    /// The leader, if this server follows and knows one.
    pub leader: Option<Leading>,
    /// The key with which followers sign the calls that they forward to this server. Empty unless this server leads.
    pub pass: Arc<str>,
}

/// The leader, as a follower knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Leading {
    /// The address of the leader.
    pub address: Arc<str>,
    /// The key that signs the calls forwarded to the leader.
    pub pass: Arc<str>,
}

impl std::fmt::Debug for Leading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leading").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The leadership of this server, which all its parts share. Cheap to clone.
#[derive(Clone)]
pub struct Standing {
    stand: Arc<watch::Sender<Stand>>,
    news: Arc<Mutex<News>>,
}

#[derive(Debug)]
struct News {
    /// Time of the latest successful read from the store; `None` before the first.
    heard: Option<Moment>,
    /// Maximum staleness of an answer.
    max_age: Duration,
}

impl Standing {
    /// Creates it for a server that leads.
    pub fn leading() -> Self {
        Self::new(Role::Leading, Duration::MAX)
    }

    /// Creates it for a server that follows. `max_age` is the maximum staleness of an answer.
    pub fn following(max_age: Duration) -> Self {
        Self::new(Role::Following, max_age)
    }

    fn new(role: Role, max_age: Duration) -> Self {
        Self {
            stand: Arc::new(watch::Sender::new(Stand { role, leader: None, pass: Arc::from("") })),
            news: Arc::new(Mutex::new(News { heard: None, max_age })),
        }
    }

    /// The current state and each change of it.
    pub fn watch(&self) -> watch::Receiver<Stand> {
        self.stand.subscribe()
    }

    /// The current role.
    pub fn role(&self) -> Role {
        self.stand.borrow().role
    }

    /// The address of the leader, if this server follows and knows one.
    pub fn leader(&self) -> Option<Arc<str>> {
        self.stand.borrow().leader.as_ref().map(|leader| leader.address.clone())
    }

    /// The key with which a call is signed that a follower forwards to this server.
    pub(crate) fn pass(&self) -> Arc<str> {
        self.stand.borrow().pass.clone()
    }

    /// Records the leader, or that none is known. Returns whether that is a change.
    pub fn follow(&self, leader: Option<Leading>) -> bool {
        self.stand.send_if_modified(|stand| {
            let other = stand.leader != leader;
            stand.leader = leader;
            other
        })
    }

    /// Records that this server leads from now on.
    pub(crate) fn lead(&self, pass: &str) {
        self.stand.send_replace(Stand { role: Role::Leading, leader: None, pass: Arc::from(pass) });
    }

    /// Records the time of a successful read from the store.
    pub(crate) fn heard(&self, at: Moment) {
        self.news().heard = Some(at);
    }

    /// The age of the data: zero if this server leads, `None` before the first read.
    pub fn age(&self) -> Option<Duration> {
        match self.role() {
            Role::Leading => Some(Duration::ZERO),
            Role::Following => self.news().heard.map(Moment::past),
        }
    }

    /// Checks that the data is recent enough for an answer.
    ///
    /// # Errors
    /// [`SubmitError::Stale`] if the data is older than the maximum, or nothing was read yet.
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
    fn data_that_is_too_old_is_refused() {
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
    fn a_leader_that_stays_is_no_change() {
        let standing = Standing::following(Duration::from_secs(5));
        let leader = |pass: &str| Some(Leading { address: "http://a:1".into(), pass: pass.into() });
        assert!(standing.follow(leader("x")));
        assert!(!standing.follow(leader("x")));
        assert!(standing.follow(leader("y")), "another lead");
        assert!(standing.follow(None));
        assert_eq!(standing.leader(), None);
    }
}
