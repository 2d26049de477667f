//! The caller of each request, for the services.
//!
//! Without `[auth]` it is everyone who reaches the port, as at the gRPC port. With it a person signs in with a token. The token stays in
//! this process: the browser gets a random number in its place. Each call is judged by the token anew, so that a token that is revoked
//! or expires ends its sessions. A client certificate, and a name in the header of a proxy, need no session: they come with each request.

use crate::clock::Moment;
use crate::random::random;
use crate::rpc::{ConnectInfo, InsideCaller};
use axum::http::header::{self, HeaderMap};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wharfinger_core::Program;

/// Maximum length of a session.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Maximum number of sessions. The oldest one ends for the next.
const SESSIONS: usize = 1_024;
/// Maximum length of a token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// The sessions of a server. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sessions {
    kept: Arc<Mutex<BTreeMap<String, Session>>>,
    /// Whether people reach the page by https, through a proxy.
    secure: bool,
}

struct Session {
    token: Arc<str>,
    begun: Moment,
}

impl Sessions {
    pub(crate) fn new(secure: bool) -> Self {
        Self { kept: Arc::default(), secure }
    }

    /// Whether people reach the page by https.
    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the cookie. A browser takes the longer one over https alone.
    fn cookie(&self) -> &'static str {
        if self.secure { "__Host-wharfinger" } else { "wharfinger" }
    }

    /// The caller of a request with these headers.
    pub(crate) fn caller(&self, connection: ConnectInfo, headers: &HeaderMap) -> InsideCaller {
        let own = bearer(headers).map(Arc::from);
        let token = own.or_else(|| {
            let id = cookie(headers, self.cookie())?;
            let mut kept = self.kept();
            kept.retain(|_, session| session.begun.past() < LIFE);
            kept.get(id).map(|session| session.token.clone())
        });
        InsideCaller { connection, token, program: Program::Page }
    }

    /// Begins a session with this token. Returns the cookie to set.
    pub(crate) fn begin(&self, token: &str) -> String {
        let id: String = (0..4).map(|_| format!("{:016x}", random())).collect();
        let mut kept = self.kept();
        if kept.len() >= SESSIONS
            && let Some(oldest) = kept.iter().max_by_key(|(_, session)| session.begun.past()).map(|(id, _)| id.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(id.clone(), Session { token: Arc::from(token), begun: Moment::now() });
        self.set(&id, LIFE)
    }

    /// Ends the session of a request. Returns the cookie to set.
    pub(crate) fn end(&self, headers: &HeaderMap) -> String {
        if let Some(id) = cookie(headers, self.cookie()) {
            self.kept().remove(id);
        }
        self.set("", Duration::ZERO)
    }

    fn set(&self, value: &str, life: Duration) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", self.cookie(), life.as_secs())
    }
}

/// The token of a form, without the blanks around it. `None`: it can be none.
pub(crate) fn token_of(text: &str) -> Option<&str> {
    let text = text.trim();
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    (!text.is_empty() && text.len() <= MAX_TOKEN && visible).then_some(text)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token).and_then(token_of)
}

/// The value of a cookie.
pub(crate) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_session_keeps_its_token_out_of_the_browser_and_ends() {
        let (sessions, address) = (Sessions::new(false), ConnectInfo::plain("127.0.0.1:5".parse().unwrap()));
        let set = sessions.begin("secret");
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200"), "{set}");
        assert!(!set.contains("secret"));
        let headers = with(header::COOKIE, &format!("theme=dark; {}", set.split(';').next().unwrap()));
        assert_eq!(sessions.caller(address.clone(), &headers).token.as_deref(), Some("secret"));
        assert_eq!(sessions.caller(address.clone(), &with(header::COOKIE, "wharfinger=x")).token, None);
        assert_eq!(Sessions::new(false).caller(address.clone(), &headers).token, None, "another server");
        assert!(sessions.end(&headers).contains("Max-Age=0"));
        assert_eq!(sessions.caller(address.clone(), &headers).token, None);
        let set = Sessions::new(true).begin("x");
        assert!(set.starts_with("__Host-wharfinger=") && set.ends_with("; Secure"), "{set}");
    }

    #[test]
    fn the_oldest_session_ends_for_the_next() {
        let sessions = Sessions::new(false);
        for _ in 0..SESSIONS + 3 {
            sessions.begin("x");
        }
        assert_eq!(sessions.kept().len(), SESSIONS);
    }

    #[test]
    fn a_program_brings_its_token_by_itself() {
        let (sessions, address) = (Sessions::new(false), ConnectInfo::plain("127.0.0.1:5".parse().unwrap()));
        for (value, token) in
            [("Bearer a.b", Some("a.b")), ("bearer a", Some("a")), ("Basic a", None), ("Bearer ", None)]
        {
            let caller = sessions.caller(address.clone(), &with(header::AUTHORIZATION, value));
            assert_eq!(caller.token.as_deref(), token, "{value}");
        }
        for (text, is) in [(" a \n", Some("a")), ("", None), ("a b", None), ("ä", None), ("a\r\nb", None)] {
            assert_eq!(token_of(text), is, "{text:?}");
        }
    }
}
