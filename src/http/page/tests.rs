//! The page of a broker over a store in memory, without a browser.

mod bulk;
mod oidc;
mod sign_in;
mod verbs;

use super::*;
use crate::auth::{BuiltIn, NewToken, Roles, StaticToken, Trust};
use crate::pb;
use crate::rpc::{
    AnswerSources, PoolCredentials, RpcLimits, broker_for_tests as broker, follower_for_tests as follower,
    pool_for_tests,
};
use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, StatusCode, header};
use std::collections::BTreeSet;
use std::sync::Arc;
use tower::ServiceExt;
use wharfinger_adapter::{CredentialSource, Credentials, Failure};
use wharfinger_core::{PoolConfig, Traits};

const NEAR: &str = "127.0.0.1:4711";
const HOSTILE: &str = "\"><script>alert(1)</script>\u{202e}javascript:x' onload=y";

/// The page of a broker, and what keeps it.
struct World {
    routes: Router,
    _stop: tokio_util::sync::DropGuard,
}

fn page_of(handle: &crate::engine::Handle, sources: AnswerSources) -> World {
    page_behind(handle, sources, None)
}

fn page_behind(handle: &crate::engine::Handle, sources: AnswerSources, proxy: Option<ProxySettings>) -> World {
    let stop = CancellationToken::new();
    let inside = Inside::new(handle.clone(), &RpcLimits::default(), sources, None, stop.clone());
    let settings = PageSettings { names: vec!["wharf.example.org".into()], proxy, ..PageSettings::default() };
    World { routes: routes(inside, settings, stop.clone()), _stop: stop.drop_guard() }
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl World {
    async fn ask(&self, method: Method, url: &str, more: &[(&str, &str)], body: &str) -> Answer {
        self.ask_from(ConnectInfo::plain(NEAR.parse().unwrap()), method, url, more, body).await
    }

    async fn ask_from(
        &self,
        from: ConnectInfo,
        method: Method,
        url: &str,
        more: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(url).header("host", "127.0.0.1:7412");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(From(from));
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, 1 << 22).await.unwrap().to_vec()).unwrap();
        for (name, _) in guard::ANSWER {
            assert!(parts.headers.contains_key(&name), "{name} of {url}");
        }
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn get(&self, url: &str) -> Answer {
        self.ask(Method::GET, url, &[], "").await
    }

    async fn get_with(&self, url: &str, cookie: &str) -> Answer {
        self.ask(Method::GET, url, &[("cookie", cookie)], "").await
    }

    async fn post(&self, url: &str, cookie: &str, body: &str) -> Answer {
        let own = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("sec-fetch-site", "same-origin"),
            ("cookie", cookie),
        ];
        self.ask(Method::POST, url, &own, body).await
    }
}

/// Markup without a script, a style or a handler in it, and without an id twice.
fn assert_clean(url: &str, page: &str) {
    for forbidden in ["<script>", " style=", " onload=\"", " onclick=", "href=\"javascript:", "\u{202e}", "\u{0}"] {
        assert!(!page.contains(forbidden), "{forbidden:?} in {url}: {page}");
    }
    let mut ids = BTreeSet::new();
    for id in page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ids.insert(id), "{id} twice in {url}");
    }
    assert_eq!(page.matches("<h1>").count(), 1, "{url}");
    assert!(page.len() < 100 * 1024, "{url} has {} bytes", page.len());
}

struct Key;

#[async_trait]
impl CredentialSource for Key {
    async fn read(&self) -> Result<Credentials, Failure> {
        Ok(Credentials::private_key("PLANTED-PRIVATE-KEY".into()))
    }
}

fn request(n: usize, holder: &str, pool: &str) -> pb::LeaseRequest {
    pb::LeaseRequest {
        request_id: format!("r{n}"),
        holder: holder.into(),
        work: holder.into(),
        selector: Some(pb::Selector { pool: pool.into(), ..pb::Selector::default() }),
        tags: [("build".to_string(), holder.to_string())].into(),
        wait: Some(prost_types::Duration { seconds: 5 * i64::from(n < 2), nanos: 0 }),
        ..pb::LeaseRequest::default()
    }
}

#[tokio::test]
async fn each_screen_shows_a_farm_and_no_text_of_others_is_markup() {
    let broker = broker(2, 1).await;
    broker.credentials.set("p", PoolCredentials::Source(Arc::new(Key)));
    let sources = AnswerSources { credentials: broker.credentials.clone(), ..AnswerSources::default() };
    let world = page_of(&broker.handle, sources);
    let client = broker.client().await;
    let mut leases = Vec::new();
    for n in 0..3 {
        leases.push(client.lease(request(n, HOSTILE, "p")).await.unwrap().lease.unwrap());
    }
    assert_eq!(client.get(&leases[0].id).await.unwrap().credentials.unwrap().private_key, "PLANTED-PRIVATE-KEY");
    let (held, doubted, waits) = (&leases[0], &leases[1], &leases[2]);
    let mut admin = client.admin();
    let reason = |reason: &str| pb::BreakRequest {
        lease_id: held.id.clone(),
        reason: reason.into(),
        ..pb::BreakRequest::default()
    };
    admin.r#break(reason(HOSTILE)).await.unwrap();
    let hold = pb::HoldRequest {
        resource_id: doubted.resource_id.clone(),
        reason: HOSTILE.into(),
        hold: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        ..pb::HoldRequest::default()
    };
    admin.hold(hold).await.unwrap();
    let urls = [
        "/".to_owned(),
        "/pools".into(),
        "/pools/p".into(),
        "/resources".into(),
        "/resources?state=trouble".into(),
        "/resources?q=nothing".into(),
        format!("/resources/{}", doubted.resource_id),
        format!("/resources/{}?span=1h", held.resource_id),
        "/leases".into(),
        "/leases?state=broken".into(),
        screen::Screen::holder(HOSTILE).url(),
        format!("/leases/{}", held.id),
        format!("/leases/{}", waits.id),
        "/queue".into(),
        "/queue?pool=p".into(),
        "/events".into(),
        "/events?kind=lease.".into(),
        "/map".into(),
        "/map?pool=p&by=zone".into(),
        "/spot-stats".into(),
        "/servers".into(),
        screen::Screen::work(HOSTILE).url(),
    ];
    for url in &urls {
        let answer = world.get(url).await;
        assert_eq!(answer.status, StatusCode::OK, "{url}: {}", answer.text);
        assert_clean(url, &answer.text);
        assert!(!answer.text.contains("PLANTED"), "{url}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.text.contains("local") && answer.text.contains("this server leads"), "{url}");
    }
    let text = |n: usize| world.get(&urls[n]);
    let shown = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}javascript:x";
    let now = text(0).await.text;
    assert!(now.contains("Broken in the last hour") && now.contains(shown) && now.contains(&held.id), "{now}");
    assert!(text(5).await.text.contains("Looked at 2 resources; found 0."));
    let life = text(7).await.text;
    assert!(life.contains("<svg class=\"lanes\"") && life.contains("lease.broken"), "{life}");
    let broken = text(11).await.text;
    assert!(broken.contains("Because") && broken.contains("OPERATOR"), "{broken}");
    assert!(text(10).await.text.contains(&held.id), "a holder's leases that have ended are listed too");
    assert!(text(15).await.text.contains("lease.broken"));
    let work = text(urls.len() - 1).await.text;
    assert!(
        work.contains(&held.id) && work.contains("Results of the work by resource") && work.contains("Other ends"),
        "{work}"
    );
    let other = world.get("/leases?work=another").await.text;
    assert!(!other.contains(&held.id) && other.contains("None."), "{other}");
}

#[tokio::test]
async fn a_request_that_waits_says_why_and_one_that_is_never_met_needs_a_person() {
    let broker = broker(2, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let client = broker.client().await;
    for n in 0..2 {
        client.lease(request(n, "ann", "p")).await.unwrap();
    }
    let waits = client.lease(request(2, "bob", "p")).await.unwrap().lease.unwrap();
    // A label that the pool has, and has no more.
    let traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };
    let plain = || pool_for_tests(2, 1, traits);
    let labelled = PoolConfig { labels: [("os".into(), "linux".into())].into(), ..plain() };
    broker.handle.configure(vec![labelled], || {}).await.unwrap();
    let selector = pb::Selector { labels: [("os".to_string(), "linux".to_string())].into(), ..Default::default() };
    let never = pb::LeaseRequest { selector: Some(selector), ..request(3, "eve", "p") };
    let never = client.lease(never).await.unwrap().lease.unwrap();
    broker.handle.configure(vec![plain()], || {}).await.unwrap();
    let page = world.get(&format!("/leases/{}", waits.id)).await.text;
    assert!(page.contains("Why it waits") && page.contains("BUSY") && page.contains("Number 1"), "{page}");
    let queue = world.get("/queue").await.text;
    assert!(queue.contains("bob") && queue.contains("never: ") && queue.contains("eve"), "{queue}");
    let now = world.get("/").await.text;
    let attention = now.split("id=\"capacity\"").next().unwrap();
    assert!(attention.contains(&never.id) && !attention.contains(&waits.id), "{attention}");
    client.release(&never.id, pb::Outcome::Ok, "").await.unwrap();
    let now = world.get("/").await.text;
    assert!(now.contains("Nothing needs you."), "{now}");
}

#[tokio::test]
async fn the_queue_is_in_the_order_of_service_page_by_page_with_likely_starts() {
    let broker = broker(1, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let client = broker.client().await;
    let hour = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let busy = pb::LeaseRequest { expected_duration: hour(3_600), ..request(0, "ann", "p") };
    client.lease(busy).await.unwrap();
    let first = client.lease(request(2, HOSTILE, "p")).await.unwrap().lease.unwrap();
    let mut last = first.clone();
    for n in 3..104 {
        last = client.lease(request(n, "bob", "p")).await.unwrap().lease.unwrap();
    }
    let page = world.get("/queue?pool=p").await.text;
    assert_clean("/queue?pool=p", &page);
    assert!(page.contains("pool p</bdi>: 102 requests") && page.contains("The first of these waits: "), "{page}");
    assert!(page.contains("1 slot, by the times that their holders expect"), "{page}");
    assert!(page.contains("not known: too little is known of how long the leases there take"), "{page}");
    let place = |id: &str| page.find(&format!("row-{id}")).unwrap_or(usize::MAX);
    assert!(place(&first.id) < place(&last.id) && place(&last.id) == usize::MAX, "a page has 100 rows");
    let next = page.split("<a href=\"").find(|part| part.contains("the next requests")).unwrap();
    let next = next.split('"').next().unwrap().replace("&amp;", "&");
    let page = world.get(&next).await.text;
    assert_clean(&next, &page);
    assert!(page.contains(&format!("row-{}", last.id)) && !page.contains("the next requests"), "{page}");
    assert_eq!(page.matches("<tr id=\"row-").count(), 2);
    // The line of the lease that waits, with what the start rests on.
    let page = world.get(&format!("/leases/{}", first.id)).await.text;
    assert!(page.contains("Likely start: <span title=") && page.contains("their holders expect"), "{page}");
    for (url, status) in [("/queue?pool=nothing", 404), ("/queue?after=x", 400)] {
        let answer = world.get(url).await;
        assert_eq!(answer.status.as_u16(), status, "{url}: {}", answer.text);
        assert_clean(url, &answer.text);
    }
}

#[tokio::test]
async fn a_missing_page_is_reported_and_each_answer_has_its_security_headers() {
    let broker = broker(1, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    for (url, status) in [
        ("/nothing", 404),
        ("/pools/nothing", 404),
        ("/leases/lse_01", 400),
        ("/leases/lse_00000000000000000000000001", 404),
        ("/resources/res_00000000000000000000000001", 404),
        ("/resources?after=%00", 400),
        ("/events?resource=x", 400),
    ] {
        let answer = world.get(url).await;
        assert_eq!(answer.status.as_u16(), status, "{url}: {}", answer.text);
        assert_clean(url, &answer.text);
    }
    for (q, to) in
        [("b3", "/resources?q=b3"), ("lse_1", "/leases/lse_1"), ("https%3A%2F%2Fx", "/leases?holder=https%3A%2F%2Fx")]
    {
        let answer = world.get(&format!("/go?q={q}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, to));
    }
    let strange = world.ask(Method::GET, "/", &[("host", "evil.test")], "").await;
    assert_eq!(strange.status.as_u16(), 421, "{}", strange.text);
    let foreign = [("content-type", "application/x-www-form-urlencoded"), ("origin", "http://evil.test")];
    assert_eq!(world.ask(Method::POST, "/theme", &foreign, "theme=dark").await.status.as_u16(), 403);
    assert_eq!(world.post("/theme", "", &"x".repeat(33 * 1024)).await.status.as_u16(), 413);
    let dark = world.post("/theme", "", "theme=dark&to=%2Fpools%3Fx").await;
    assert_eq!((dark.status.as_u16(), dark.header("location")), (303, "/pools"));
    assert!(dark.header("set-cookie").starts_with("theme=dark;"));
    for to in ["//evil.test/", "https://evil.test/", "javascript:x", "/\\evil.test", "/pools\r\nx: y"] {
        let form: String = form_urlencoded::Serializer::new(String::new()).append_pair("to", to).finish();
        assert_eq!(world.post("/theme", "", &form).await.header("location"), "/", "{to:?}");
    }
    assert!(world.get_with("/", "theme=dark").await.text.contains("data-theme=\"dark\""));
    let css = world.get(&format!("{}/page.css", *asset::FOLDER)).await;
    assert_eq!((css.status.as_u16(), css.header("content-type")), (200, "text/css; charset=utf-8"));
    assert!(css.header("cache-control").contains("immutable"));
}

#[tokio::test]
async fn a_person_signs_in_with_a_token_that_stays_at_the_server() {
    let broker = broker(1, 1).await;
    let new = NewToken::make("ann").unwrap();
    let known = |roles: &[BuiltIn]| StaticToken {
        id: "ann".into(),
        sha256: vec![new.sha256],
        tenant: "web".into(),
        roles: Roles::of(roles),
        expires: None,
    };
    let trust = Trust::tokens([known(&[BuiltIn::Admin])]).unwrap();
    let world = page_of(&broker.handle, AnswerSources { trust: trust.clone(), ..AnswerSources::default() });
    let closed = world.get("/pools").await;
    assert_eq!(closed.status, StatusCode::UNAUTHORIZED);
    assert!(
        closed.text.contains("<form class=\"sign-in\"") && closed.text.contains("value=\"/pools\""),
        "{}",
        closed.text
    );
    assert!(!closed.text.contains("Capacity") && !closed.text.contains("role=\"alert\""));
    assert!(closed.text.contains("<code>WHARFINGER_AUTH_TOKEN</code>"), "{}", closed.text);
    let wrong = world.post("/sign-in", "", "token=wf_ann_x&to=%2Fpools").await;
    assert_eq!((wrong.status, wrong.headers.contains_key(header::SET_COOKIE)), (StatusCode::UNAUTHORIZED, false));
    assert!(wrong.text.contains("role=\"alert\""), "{}", wrong.text);
    let right = world.post("/sign-in", "", &format!("token={}&to=%2Fpools", new.text)).await;
    assert_eq!((right.status.as_u16(), right.header("location")), (303, "/pools"));
    let set = right.header("set-cookie");
    assert!(set.contains("HttpOnly; SameSite=Strict") && !set.contains(&new.text), "{set}");
    let cookie = set.split(';').next().unwrap();
    let pools = world.get_with("/pools", cookie).await;
    assert_eq!(pools.status, StatusCode::OK, "{}", pools.text);
    assert!(pools.text.contains("token:ann") && pools.text.contains("Sign out") && !pools.text.contains(&new.text));
    // A link on another site brings no session; the page itself does.
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let step = world.ask(Method::GET, "/pools?x=1", &link, "").await;
    assert!(step.text.contains("content=\"0;url=/pools\""), "{}", step.text);
    // A token that is known no more ends its sessions.
    trust.set(Some(Vec::<StaticToken>::new().into())).unwrap();
    let gone = world.get_with("/pools", cookie).await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
    trust.set(Some(vec![known(&[BuiltIn::Admin])].into())).unwrap();
    assert_eq!(world.get_with("/pools", cookie).await.status, StatusCode::OK);
    let out = world.post("/sign-out", cookie, "").await;
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(world.get_with("/pools", cookie).await.status, StatusCode::UNAUTHORIZED);
    let by_itself = format!("Bearer {}", new.text);
    assert_eq!(world.ask(Method::GET, "/pools", &[("authorization", &by_itself)], "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_work_has_a_screen_that_says_where_it_failed_and_where_it_passed() {
    let broker = broker(1, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let client = broker.client().await;
    let mut resource = String::new();
    for (n, outcome) in [pb::Outcome::Ok, pb::Outcome::Failed].into_iter().enumerate() {
        let lease = client.lease(request(n, "w", "p")).await.unwrap().lease.unwrap();
        resource.clone_from(&lease.resource_id);
        client.release(&lease.id, outcome, "").await.unwrap();
    }
    client.lease(pb::LeaseRequest { work: "other".into(), ..request(2, "w", "p") }).await.unwrap();
    let page = world.get("/leases?work=w").await.text;
    assert!(page.contains(&format!("on-{resource}")), "{resource} is not in {page}");
    let tally = page.split_once(&format!("id=\"on-{resource}\"")).unwrap().1.split_once("</tr>").unwrap().0;
    for (column, number) in [("Passed", 1), ("Failed", 1), ("Other ends", 0)] {
        let cell = format!("data-label=\"{column}\"><div>{number}</div>");
        assert!(tally.contains(&cell), "{cell} is not in {tally}");
    }
}

#[tokio::test]
async fn each_screen_names_a_refused_configuration_until_one_is_taken_over() {
    let broker = broker(1, 1).await;
    let sources = AnswerSources::default();
    let status = sources.configuration.clone();
    let world = page_of(&broker.handle, sources);
    let why = "the file has 2 mistakes, the first in line 12 <b>";
    let shown = "the file has 2 mistakes, the first in line 12 &lt;b&gt;";
    let banner = format!("The configuration before stays: {shown}</div>");
    status.taken("aa", crate::links::Links::default());
    for url in ["/", "/pools", "/servers"] {
        let page = world.get(url).await.text;
        assert!(!page.contains("The configuration before stays"), "{page}");
    }
    status.refused(why);
    for url in ["/", "/pools", "/servers"] {
        assert!(world.get(url).await.text.contains(&banner), "{url}");
    }
    let now = world.get("/").await.text;
    assert!(now.contains("Configuration refused") && now.matches(shown).count() == 2, "{now}");
    assert!(world.get("/servers").await.text.contains("a later text of the file"));
    let view = world.get("/view?at=/pools").await.text;
    assert!(view.contains("\"configuration\":\"The configuration before stays: the file has 2 mistakes"), "{view}");
    status.taken("bb", crate::links::Links::default());
    assert!(!world.get("/").await.text.contains("Configuration refused"));
}

#[tokio::test]
async fn a_server_that_follows_shows_the_same_and_says_that_it_follows() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let lease = client.lease(request(0, "ann", "p")).await.unwrap().lease.unwrap();
    let (_server, follower) = follower(&broker, RpcLimits::default()).await;
    let world = page_of(&follower.handle, AnswerSources::default());
    let page = world.get(&format!("/leases/{}?since={}", lease.id, lease.revision)).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(page.text.contains("ann") && page.text.contains("no leader is known"), "{}", page.text);
    assert!(world.get("/").await.text.contains("No server leads"));
}
