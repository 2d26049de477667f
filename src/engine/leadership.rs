//! The leadership of this server: its role, the current leader, and the age of its data.

use crate::clock::Moment;
use crate::engine::handle::SubmitError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
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
pub struct LeadershipState {
    /// The role of this server.
    pub role: Role,
    /// The leader, if this server follows and knows one.
    pub leader: Option<LeaderInfo>,
    /// The key with which followers sign the calls that they forward to this server. Empty unless this server leads.
    pub forwarding_key: Arc<str>,
}

/// The leader, as a follower knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaderInfo {
    /// The address of the leader.
    pub address: Arc<str>,
    /// The key that signs the calls forwarded to the leader.
    pub forwarding_key: Arc<str>,
}

impl std::fmt::Debug for LeaderInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderInfo").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The leadership of this server, which all its parts share. Cheap to clone.
#[derive(Clone)]
pub struct Leadership {
    state: Arc<watch::Sender<LeadershipState>>,
    news: Arc<Mutex<News>>,
}

/// The lead of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadFacts {
    /// The epoch with which it writes.
    pub epoch: u64,
    /// Time since which it leads.
    pub since: SystemTime,
}

#[derive(Debug)]
struct News {
    /// Time of the latest successful read from the store; `None` before the first.
    heard: Option<Moment>,
    /// Maximum staleness of an answer.
    max_age: Duration,
    /// The lead. `None`: the server follows, or has not begun to lead yet.
    lead: Option<LeadFacts>,
}

impl Leadership {
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
            state: Arc::new(watch::Sender::new(LeadershipState { role, leader: None, forwarding_key: Arc::from("") })),
            news: Arc::new(Mutex::new(News { heard: None, max_age, lead: None })),
        }
    }

    /// The current state and each change of it.
    pub fn watch(&self) -> watch::Receiver<LeadershipState> {
        self.state.subscribe()
    }

    /// The current role.
    pub fn role(&self) -> Role {
        self.state.borrow().role
    }

    /// The address of the leader, if this server follows and knows one.
    pub fn leader(&self) -> Option<Arc<str>> {
        self.state.borrow().leader.as_ref().map(|leader| leader.address.clone())
    }

    /// The key with which a call is signed that a follower forwards to this server.
    pub(crate) fn forwarding_key(&self) -> Arc<str> {
        self.state.borrow().forwarding_key.clone()
    }

    /// Records the leader, or that none is known. Returns whether that is a change.
    pub fn follow(&self, leader: Option<LeaderInfo>) -> bool {
        self.state.send_if_modified(|state| {
            let other = state.leader != leader;
            state.leader = leader;
            other
        })
    }

    /// Records that this server leads from now on.
    pub(crate) fn lead(&self, forwarding_key: &str) {
        self.state.send_replace(LeadershipState {
            role: Role::Leading,
            leader: None,
            forwarding_key: Arc::from(forwarding_key),
        });
    }

    /// Records the lead that this server begins.
    pub(crate) fn begins(&self, epoch: u64) {
        self.news().lead = Some(LeadFacts { epoch, since: crate::clock::wall() });
    }

    /// The lead of this server. `None`: it follows.
    pub fn lead_facts(&self) -> Option<LeadFacts> {
        self.news().lead.filter(|_| self.role() == Role::Leading)
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
        let leadership = Leadership::following(Duration::from_secs(5));
        assert!(matches!(leadership.fresh(), Err(SubmitError::Stale { age: None, .. })));
        leadership.heard(Moment::now());
        leadership.fresh().unwrap();
        leadership.heard(Moment::ago(Duration::from_secs(6)));
        assert!(matches!(leadership.fresh(), Err(SubmitError::Stale { age: Some(_), .. })));
        leadership.lead("x");
        leadership.fresh().unwrap();
        assert_eq!((leadership.role(), leadership.age()), (Role::Leading, Some(Duration::ZERO)));
    }

    #[test]
    fn a_leader_that_stays_is_no_change() {
        let leadership = Leadership::following(Duration::from_secs(5));
        let leader = |pass: &str| Some(LeaderInfo { address: "http://a:1".into(), forwarding_key: pass.into() });
        assert!(leadership.follow(leader("x")));
        assert!(!leadership.follow(leader("x")));
        assert!(leadership.follow(leader("y")), "another lead");
        assert!(leadership.follow(None));
        assert_eq!(leadership.leader(), None);
    }
}
