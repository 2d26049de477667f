//! Sign-in by an issuer: the browser goes there, and comes back with a code.
//!
//! A sign-in stays in this server for ten minutes, and belongs to the browser that began it, by a cookie. The ID token that comes of it is the
//! token of the session: each call is judged by it, and by `[[auth.issuer]]`, as with any other token.

use super::answer::{Asked, Form, Page, back, see_other, with_cookie};
use super::part::clipped;
use super::view::{self, Redirect};
use super::who::{Sessions, cookie, token_of};
use crate::clock::Moment;
use crate::random::random;
use crate::rpc::InsideCaller;
use axum::response::{Html, IntoResponse, Response};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wharfinger_jwt::{Begun, Pending, Provider, ProviderError, ProviderSettings};

/// Maximum time from the beginning of a sign-in to its end.
const LIFE: Duration = Duration::from_secs(600);
/// Maximum number of sign-ins under way. The oldest one ends for the next.
const PENDING: usize = 1_024;
/// Maximum length of a code in bytes.
const MAX_CODE: usize = 4_096;
const NOT_BEGUN: &str =
    "This sign-in did not begin in this browser, or it began more than ten minutes ago: begin again.";

/// The sign-ins of a server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SignIns {
    provider: Arc<Provider>,
    pending: Arc<Mutex<BTreeMap<String, Waiting>>>,
}

/// A sign-in under way.
struct Waiting {
    pending: Pending,
    /// The value of the cookie of its browser.
    browser: String,
    /// The address of the page to which it leads.
    to: String,
    begun: Moment,
}

impl SignIns {
    pub(crate) fn new(settings: ProviderSettings) -> Self {
        Self { provider: Arc::new(Provider::new(settings)), pending: Arc::default() }
    }

    /// The host of the issuer.
    pub(super) fn host(&self) -> &str {
        self.provider.host()
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<String, Waiting>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, state: String, waiting: Waiting) {
        let mut pending = self.pending();
        pending.retain(|_, waiting| waiting.begun.past() < LIFE);
        if pending.len() >= PENDING
            && let Some(oldest) = pending.iter().max_by_key(|(_, one)| one.begun.past()).map(|(state, _)| state.clone())
        {
            pending.remove(&oldest);
        }
        pending.insert(state, waiting);
    }

    /// The sign-in of this state and this browser, which counts once.
    fn take(&self, state: &str, browser: Option<&str>) -> Option<Waiting> {
        let mut pending = self.pending();
        let own = pending.get(state).is_some_and(|waiting| {
            waiting.begun.past() < LIFE && browser.is_some_and(|browser| browser == waiting.browser)
        });
        if own { pending.remove(state) } else { None }
    }
}

impl Sessions {
    fn sign_in_cookie(&self) -> &'static str {
        if self.is_secure() { "__Host-wharfinger-sign-in" } else { "wharfinger-sign-in" }
    }

    /// The cookie of a sign-in. It has to come with the browser when another site sends it back, so it is not a strict one.
    fn mark(&self, value: &str, life: Duration) -> String {
        let secure = if self.is_secure() { "; Secure" } else { "" };
        let name = self.sign_in_cookie();
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}", life.as_secs())
    }
}

impl Page {
    /// Sends the browser to the issuer.
    pub(super) async fn begin_sign_in(&self, asked: &Asked<'_>, form: &Form) -> Response {
        let to = back(form.value("to"));
        let Some(sign_ins) = &self.sign_ins else { return self.sign_in(asked, &to, "") };
        match sign_ins.provider.begin().await {
            Ok(Begun { url, state, pending }) => {
                let browser: String = (0..4).map(|_| format!("{:016x}", random())).collect();
                let set = self.sessions.mark(&browser, LIFE);
                sign_ins.keep(state, Waiting { pending, browser, to, begun: Moment::now() });
                with_cookie(see_other(&url), &set)
            }
            Err(error) => self.not_signed_in(asked, &to, &error),
        }
    }

    /// Ends a sign-in: the browser is back from the issuer.
    pub(super) async fn end_sign_in(&self, asked: &Asked<'_>, form: &Form) -> Response {
        let Some(sign_ins) = &self.sign_ins else { return self.sign_in(asked, "/", "") };
        let browser = cookie(asked.headers, self.sessions.sign_in_cookie());
        let Some(waiting) = sign_ins.take(form.value("state"), browser) else {
            return self.sign_in(asked, "/", NOT_BEGUN);
        };
        let to = waiting.to;
        if !form.value("error").is_empty() {
            let (error, more) = (clipped(form.value("error")), clipped(form.value("error_description")));
            return self.sign_in(asked, &to, &format!("The issuer refused: {error} {more}"));
        }
        let code = form.value("code");
        if code.is_empty() || code.len() > MAX_CODE {
            return self.sign_in(asked, &to, "The issuer sent no code: begin again.");
        }
        let token = match sign_ins.provider.finish(&waiting.pending, code).await {
            Ok(token) => token,
            Err(error) => return self.not_signed_in(asked, &to, &error),
        };
        let Some(token) = token_of(&token) else {
            return self.sign_in(asked, &to, "The issuer's token has characters that no token has.");
        };
        let caller = InsideCaller { token: Some(token.into()), ..asked.caller.clone() };
        match self.who(&caller).await {
            Ok(_) => {
                // The strict cookie of the session comes with requests of the page itself alone: one step leads there.
                let step = Html(view::redirect(&Redirect { to: &to }).into_string()).into_response();
                let step = with_cookie(step, &self.sessions.begin(token));
                with_cookie(step, &self.sessions.mark("", Duration::ZERO))
            }
            Err(error) => self.sign_in(asked, &to, &error.message),
        }
    }

    /// The form once more. The log has the cause, which the operator of the server mends.
    fn not_signed_in(&self, asked: &Asked<'_>, to: &str, error: &ProviderError) -> Response {
        tracing::warn!(%error, "a person was not signed in by the issuer of [page.oidc]");
        self.sign_in(asked, to, &format!("You were not signed in: {}.", clipped(&error.to_string())))
    }
}
