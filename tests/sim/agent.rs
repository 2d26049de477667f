//! Agents: holders that keep their leases by a session. They beat, lose their streams, resume or not, and sometimes freeze.

use crate::rng::Rng;
use std::sync::Arc;
use wharfinger_core::{
    Caller, Input, LeaseRequest, Millis, Reply, SessionId, SessionRequest, SessionStream, Timestamp,
};

/// The state of an agent's session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Session {
    /// It has none.
    None,
    /// It has asked for one, or for another stream, and has no answer.
    Asked(Option<SessionId>),
    /// Its stream is over, and it will ask for another one.
    Cut(SessionId),
    Open(SessionStream),
}

/// The agent of a holder.
#[derive(Debug)]
pub(crate) struct Agent {
    session: Session,
    /// It is stopped until then, as by SIGSTOP: its stream stays open, and it says nothing.
    frozen_until: Timestamp,
}

impl Agent {
    pub(crate) fn new() -> Self {
        Self { session: Session::None, frozen_until: Timestamp(0) }
    }

    /// Its stream, if that is open.
    pub(crate) fn stream(&self) -> Option<SessionStream> {
        match self.session {
            Session::Open(stream) => Some(stream),
            Session::None | Session::Asked(_) | Session::Cut(_) => None,
        }
    }

    /// Time until which it does nothing.
    pub(crate) fn frozen(&self, now: Timestamp) -> Option<Timestamp> {
        (self.frozen_until > now).then_some(self.frozen_until)
    }

    /// The server's process is dead, and with it each stream.
    pub(crate) fn cut(&mut self) {
        self.session = match self.session {
            Session::Open(stream) => Session::Cut(stream.session),
            Session::Asked(Some(session)) => Session::Cut(session),
            Session::Asked(None) => Session::None,
            other => other,
        };
    }

    /// It is gone, and with it each sign of life. The next one has a session of its own.
    pub(crate) fn vanish(&mut self) {
        self.session = Session::None;
    }

    /// Returns the inputs about its session, which come before all others, and whether it may go on.
    pub(crate) fn act(&mut self, now: Timestamp, caller: &Caller, calm: bool, rng: &mut Rng) -> (Vec<Input>, bool) {
        match self.session {
            Session::None => {
                self.session = Session::Asked(None);
                let ttl = Millis::secs(rng.between(8, 30));
                let grace = rng.chance(500).then(|| Millis::secs(rng.between(1, 8)));
                let request =
                    SessionRequest { caller: caller.clone(), holder: Arc::from("agent"), ttl: Some(ttl), grace };
                (vec![Input::OpenSession(request)], false)
            }
            // The answer was lost: a session without a lease ends by its silence.
            Session::Asked(None) => {
                self.session = Session::None;
                (Vec::new(), false)
            }
            Session::Asked(Some(session)) | Session::Cut(session) => {
                if !calm && rng.chance(100) {
                    // It never comes back.
                    self.session = Session::None;
                    return (Vec::new(), false);
                }
                self.session = Session::Asked(Some(session));
                (vec![Input::ResumeSession { session, caller: caller.clone() }], false)
            }
            Session::Open(stream) if !calm && rng.chance(30) => {
                self.session = Session::Cut(stream.session);
                (vec![Input::StreamEnded(stream)], false)
            }
            Session::Open(_) if !calm && rng.chance(15) => {
                self.frozen_until = now.after(Millis::secs(rng.between(2, 50)));
                (Vec::new(), false)
            }
            Session::Open(stream) => (vec![Input::Beat(stream)], true),
        }
    }

    /// The answer to what it said about its session.
    pub(crate) fn answered(&mut self, reply: Option<&Reply>) {
        self.session = match (self.session, reply) {
            (Session::Asked(_), Some(Reply::Session(row))) => Session::Open(row.present()),
            // It was lost, or another stream has it.
            (Session::Asked(_) | Session::Open(_), None) => Session::None,
            (other, _) => other,
        };
    }

    /// Puts its present session into a request.
    pub(crate) fn keeps(&self, request: &mut LeaseRequest) {
        request.session = self.stream();
    }
}
