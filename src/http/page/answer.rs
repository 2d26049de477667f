//! The answer to each request.

use super::act::Done;
use super::ask::{Ask, Shown};
use super::asset::{FOLDER, asset};
use super::guard::{self, MAX_FORM, Names, Refusal};
use super::live::Live;
use super::oidc::SignIns;
use super::proxy::Proxy;
use super::screen::Screen;
use super::verb::{Act, word};
use super::view::{self, Frame, Redirect, Theme};
use super::who::{Sessions, cookie, token_of};
use crate::auth::{Verb, Verbs};
use crate::pb;
use crate::rpc::{ConnectInfo, Inside, InsideCaller, InsideError, RefusalKind};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use form_urlencoded::parse;
use maud::Markup;

/// The cookie of the colours.
const THEME: &str = "theme";

/// The parts of the page. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Page {
    pub(super) inside: Inside,
    pub(super) names: Names,
    pub(super) sessions: Sessions,
    pub(super) proxy: Option<Proxy>,
    pub(super) sign_ins: Option<SignIns>,
    pub(super) live: Live,
    pub(super) done: Done,
}

/// A request that was let in.
pub(super) struct Asked<'r> {
    pub(super) headers: &'r HeaderMap,
    pub(super) path: &'r str,
    pub(super) query: &'r str,
    pub(super) caller: InsideCaller,
}

impl Asked<'_> {
    fn theme(&self) -> Theme {
        cookie(self.headers, THEME).map(Theme::parse).unwrap_or_default()
    }

    /// The address of the request.
    fn url(&self) -> String {
        if self.query.is_empty() { self.path.to_owned() } else { format!("{}?{}", self.path, self.query) }
    }
}

/// The fields of a form.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self(parse(bytes).map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    /// All values of a field.
    pub(super) fn values<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The value of a field; empty without one.
    pub(super) fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

impl Page {
    /// Answers a request. Whatever it is, the answer has the headers of the guard.
    pub(crate) async fn answer(&self, from: ConnectInfo, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let judged = guard::judge(&parts.method, &parts.headers, &self.names);
        let named = judged.and_then(|()| match &self.proxy {
            Some(proxy) => proxy.user(&from, &parts.headers),
            None => Ok(None),
        });
        let mut response = match named {
            Err(refusal) => refused(refusal),
            Ok(named) => {
                let asked = Asked {
                    headers: &parts.headers,
                    path: parts.uri.path(),
                    query: parts.uri.query().unwrap_or_default(),
                    caller: self.sessions.caller(from.for_others().naming(named), &parts.headers),
                };
                match parts.method {
                    Method::POST => self.post(&asked, body).await,
                    _ => self.get(&asked).await,
                }
            }
        };
        guard::dress(response.headers_mut());
        response
    }

    async fn get(&self, asked: &Asked<'_>) -> Response {
        if let Some((headers, text)) = asset(asked.path) {
            return (headers, text).into_response();
        }
        let form = || Form::read(asked.query.as_bytes());
        match asked.path {
            "/sign-in" => return self.sign_in(asked, &back(form().value("to")), ""),
            "/sign-in/begin" => return self.begin_sign_in(asked, &form()).await,
            "/sign-in/callback" => return self.end_sign_in(asked, &form()).await,
            "/go" => return see_other(&Screen::of_text(form().value("q")).url()),
            "/live" => return self.live_stream(asked, &form()).await,
            "/view" => return self.live_view(asked, &form()).await,
            "/bulk" => return self.bulk_form(asked, &form()).await,
            _ => {}
        }
        if let Some(act) = Act::parse(asked.path) {
            return self.act_form(asked, &act).await;
        }
        match Screen::parse(asked.path, asked.query) {
            Some(screen) => self.screen(asked, &screen).await,
            None => self.missing(asked).await,
        }
    }

    async fn screen(&self, asked: &Asked<'_>, screen: &Screen) -> Response {
        let told = match self.who(&asked.caller).await {
            Ok(told) => told,
            Err(error) => return self.failed(asked, &error, None),
        };
        let since = Form::read(asked.query.as_bytes()).value("since").parse().unwrap_or(0);
        let ask = Ask { inside: &self.inside, caller: &asked.caller, since, verbs: verbs(&told) };
        match ask.screen(screen).await {
            Ok(Shown { title, main }) => {
                self.framed(asked, Some(&told.principal), StatusCode::OK, (&title, Some(screen)), &main)
            }
            Err(error) => self.failed(asked, &error, Some(&told.principal)),
        }
    }

    /// The caller, as the server knows it.
    pub(super) async fn who(&self, caller: &InsideCaller) -> Result<pb::WhoAmIResponse, InsideError> {
        self.inside.who_am_i(caller, pb::WhoAmIRequest {}).await
    }

    /// The principal of a caller.
    async fn principal(&self, caller: &InsideCaller) -> Result<String, InsideError> {
        Ok(self.who(caller).await?.principal)
    }

    /// The stream of the screen at an address.
    async fn live_stream(&self, asked: &Asked<'_>, form: &Form) -> Response {
        let Some(screen) = screen_of(form.value("at")) else { return StatusCode::NOT_FOUND.into_response() };
        let told = match self.who(&asked.caller).await {
            Ok(told) => told,
            Err(error) => return (StatusCode::UNAUTHORIZED, error.message).into_response(),
        };
        let since = form.value("since").parse().unwrap_or(0);
        match self.live.place() {
            Some(place) => self.stream(place, asked.caller.clone(), (screen, verbs(&told)), since),
            None => (StatusCode::SERVICE_UNAVAILABLE, "too many streams\n").into_response(),
        }
    }

    /// The screen at an address once, for the script.
    async fn live_view(&self, asked: &Asked<'_>, form: &Form) -> Response {
        let Some(screen) = screen_of(form.value("at")) else { return StatusCode::NOT_FOUND.into_response() };
        let view = async {
            let told = self.who(&asked.caller).await?;
            self.once(&asked.caller, (screen, verbs(&told))).await
        };
        match view.await {
            Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.message).into_response(),
        }
    }

    async fn missing(&self, asked: &Asked<'_>) -> Response {
        match self.principal(&asked.caller).await {
            Err(error) => self.failed(asked, &error, None),
            Ok(who) => {
                let main = view::problem("No such page", "The page has no screen at this address.", "");
                self.page(asked, Some(&who), StatusCode::NOT_FOUND, "No such page", &main)
            }
        }
    }

    /// The answer to a refused call.
    pub(super) fn failed(&self, asked: &Asked<'_>, error: &InsideError, who: Option<&str>) -> Response {
        if error.kind == RefusalKind::Unknown && self.inside.asks() {
            // A link on another site brings no session. The page itself does.
            if guard::is_from_elsewhere(asked.headers)
                && let Some(screen) = Screen::parse(asked.path, asked.query)
            {
                return Html(view::redirect(&Redirect { to: &screen.url() }).into_string()).into_response();
            }
            let why = if asked.caller.proves() { &*error.message } else { "" };
            return self.sign_in(asked, &asked.url(), why);
        }
        let (status, title) = match error.kind {
            RefusalKind::Unknown => (StatusCode::UNAUTHORIZED, "The server does not know you"),
            RefusalKind::NotAllowed => (StatusCode::FORBIDDEN, "Your roles do not allow that"),
            RefusalKind::NotFound => (StatusCode::NOT_FOUND, "There is no such thing"),
            RefusalKind::Request => (StatusCode::BAD_REQUEST, "That cannot be done"),
            RefusalKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "The server cannot answer now"),
            RefusalKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "The server failed"),
        };
        let main = view::problem(title, &super::part::clipped(&error.message), &error.reason);
        self.page(asked, who, status, title, &main)
    }

    /// The form to sign in. `refused`: why the last try failed; empty: there was none.
    pub(super) fn sign_in(&self, asked: &Asked<'_>, to: &str, refused: &str) -> Response {
        if !self.inside.asks() {
            return see_other(to);
        }
        let main = view::sign_in(to, refused, self.sign_ins.as_ref().map(SignIns::host));
        self.page(asked, None, StatusCode::UNAUTHORIZED, "Sign in", &main)
    }

    /// A page that is no screen.
    pub(super) fn page(
        &self,
        asked: &Asked<'_>,
        who: Option<&str>,
        status: StatusCode,
        title: &str,
        main: &Markup,
    ) -> Response {
        self.framed(asked, who, status, (title, None), main)
    }

    fn framed(
        &self,
        asked: &Asked<'_>,
        who: Option<&str>,
        status: StatusCode,
        (title, at): (&str, Option<&Screen>),
        main: &Markup,
    ) -> Response {
        let standing = self.inside.standing();
        let url = at.map_or_else(|| "/".to_owned(), Screen::url);
        let done = at.map_or_else(String::new, |_| done(asked.query));
        let frame = Frame {
            title,
            theme: asked.theme(),
            url: &url,
            at,
            standing: &standing,
            who,
            signed_in: asked.caller.token.is_some() && self.inside.asks(),
            assets: &FOLDER,
            live: at.is_some(),
            done: &done,
        };
        (status, Html(view::frame(&frame, main).into_string())).into_response()
    }

    async fn post(&self, asked: &Asked<'_>, body: Body) -> Response {
        let Ok(bytes) = to_bytes(body, MAX_FORM).await else {
            return (StatusCode::PAYLOAD_TOO_LARGE, format!("A form has at most {MAX_FORM} bytes.\n")).into_response();
        };
        let form = Form::read(&bytes);
        match asked.path {
            "/theme" => {
                let theme = Theme::parse(form.value("theme"));
                let set = format!("{THEME}={}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000", theme.word());
                with_cookie(see_other(&back(form.value("to"))), &set)
            }
            "/sign-out" => with_cookie(see_other("/"), &self.sessions.end(asked.headers)),
            "/sign-in" => self.signed_in(asked, &form).await,
            "/bulk" => self.bulk(asked, &form).await,
            _ => match Act::parse(asked.path) {
                Some(act) => self.act(asked, &act, &form).await,
                None => self.missing(asked).await,
            },
        }
    }

    /// Begins a session, if the token is one.
    async fn signed_in(&self, asked: &Asked<'_>, form: &Form) -> Response {
        let to = back(form.value("to"));
        let Some(token) = token_of(form.value("token")) else {
            return self.sign_in(asked, &to, "The token is empty, or has characters that no token has.");
        };
        let caller = InsideCaller { token: Some(token.into()), ..asked.caller.clone() };
        match self.principal(&caller).await {
            Ok(_) => with_cookie(see_other(&to), &self.sessions.begin(token)),
            Err(error) => self.sign_in(asked, &to, &error.message),
        }
    }
}

/// The verbs that a caller has somewhere.
pub(super) fn verbs(told: &pb::WhoAmIResponse) -> Verbs {
    told.rules.iter().flat_map(|rule| &rule.verbs).filter_map(|name| Verb::parse(name)).collect()
}

/// The verb that was just carried out, in words. Empty: none was.
fn done(query: &str) -> String {
    let form = Form::read(query.as_bytes());
    let known = Verb::ALL.iter().map(|verb| word(*verb)).find(|word| *word == form.value("done"));
    known.map(|word| format!("Done: {word}.")).unwrap_or_default()
}

/// The screen at an address.
fn screen_of(url: &str) -> Option<Screen> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    Screen::parse(path, query)
}

fn refused(refusal: Refusal) -> Response {
    (refusal.status, format!("{}\n", refusal.message)).into_response()
}

/// A redirect to an address of the page, after which a reload repeats nothing.
pub(super) fn see_other(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// The answer with one more cookie.
pub(super) fn with_cookie(mut response: Response, set: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(set) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

/// The address of the screen that a text is. Another one is *Now*: no text leads to another site.
pub(super) fn back(to: &str) -> String {
    screen_of(to).unwrap_or(Screen::Now).url()
}
