//! Verbs and live screens.

use super::*;
use http_body_util::BodyExt;

/// The hidden fields of a form.
pub(super) fn hidden(page: &str, name: &str) -> String {
    let start = format!("name=\"{name}\" value=\"");
    page.split(&start).nth(1).unwrap_or_else(|| panic!("no {name} in {page}")).split('"').next().unwrap().to_owned()
}

pub(super) fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// The entries about a resource that a caller has made.
async fn orders(client: &crate::client::Client, resource: &str) -> Vec<pb::Event> {
    let request = pb::EventsRequest { resource_id: resource.into(), page_size: 1000, ..pb::EventsRequest::default() };
    let told = client.admin().events(request).await.unwrap().into_inner();
    let by_call = |event: &pb::Event| event.caller.as_ref().is_some_and(|caller| caller.method == "Recycle");
    told.events.into_iter().filter(by_call).collect()
}

#[tokio::test]
async fn a_verb_that_breaks_leases_shows_them_first_and_is_refused_when_others_have_come() {
    let broker = broker(1, 2).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let client = broker.client().await;
    let lease = client.lease(request(0, HOSTILE, "p")).await.unwrap().lease.unwrap();
    let url = format!("/resources/{}/act/recycle", lease.resource_id);
    let page = world.get(&url).await;
    assert_clean(&url, &page.text);
    assert!(page.text.contains("It would break 1 lease of 1 holder") && page.text.contains(&lease.id), "{}", page.text);
    let (seen, once) = (hidden(&page.text, "seen"), hidden(&page.text, "once"));
    let name = lease.resource_id.clone();
    let full = |reason: &str, confirm: &str| {
        form(&[("seen", &seen), ("once", &once), ("reason", reason), ("confirm", confirm)])
    };
    for (body, fault) in [
        (full(" ", &name), "It needs a reason"),
        (full(&"x".repeat(4097), &name), "more than 4,096 bytes"),
        (full("old", "res_1"), "To confirm, write"),
        (form(&[("once", "1"), ("reason", "old"), ("confirm", &name)]), "Other leases are on it"),
    ] {
        let answer = world.post(&url, "", &body).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{fault}: {}", answer.text);
        assert!(answer.text.contains(fault), "{fault}: {}", answer.text);
    }
    // A lease comes between the look and the order.
    let other = client.lease(request(1, "bob", "p")).await.unwrap().lease.unwrap();
    assert_eq!(other.resource_id, lease.resource_id);
    let refused = world.post(&url, "", &full("old", &name)).await;
    assert!(refused.text.contains("Other leases are on it") && refused.text.contains(&other.id), "{}", refused.text);
    assert_eq!(client.get(&lease.id).await.unwrap().state(), pb::LeaseState::Active);
    let again =
        form(&[("seen", &hidden(&refused.text, "seen")), ("once", &once), ("reason", HOSTILE), ("confirm", &name)]);
    let done = world.post(&url, "", &again).await;
    assert_eq!(done.status.as_u16(), 303, "{}", done.text);
    let to = done.header("location").to_owned();
    assert!(to.starts_with(&format!("/resources/{name}?done=recycle&since=")), "{to}");
    let page = world.get(&to).await;
    assert!(page.text.contains("Done: recycle."), "{}", page.text);
    assert_eq!(client.get(&lease.id).await.unwrap().state(), pb::LeaseState::Broken);
    let before = orders(&client, &name).await;
    assert!(before.iter().any(|event| event.detail.contains("<script>")), "the reason is in the trail: {before:?}");
    // The same form once more does nothing.
    let twice = world.post(&url, "", &again).await;
    assert!(twice.status.as_u16() == 303 || twice.status == StatusCode::CONFLICT, "{}", twice.status);
    assert_eq!(orders(&client, &name).await.len(), before.len());
}

#[tokio::test]
async fn each_verb_is_carried_out_once_and_by_its_method() {
    let broker = broker(1, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let client = broker.client().await;
    let lease = client.lease(request(0, "ann", "p")).await.unwrap().lease.unwrap();
    let id = lease.resource_id.clone();
    let resource = || async {
        let request = pb::GetResourceRequest { resource_id: id.clone(), ..pb::GetResourceRequest::default() };
        client.admin().get_resource(request).await.unwrap().into_inner().resource.unwrap()
    };
    let act = async |url: &str, more: &[(&str, &str)]| {
        let page = world.get(url).await;
        assert_eq!(page.status, StatusCode::OK, "{url}: {}", page.text);
        assert_clean(url, &page.text);
        let (seen, once) = (hidden(&page.text, "seen"), hidden(&page.text, "once"));
        let fields = [&[("seen", &*seen), ("once", &*once), ("reason", "maintenance")], more].concat();
        let answer = world.post(url, "", &form(&fields)).await;
        assert_eq!(answer.status.as_u16(), 303, "{url}: {}", answer.text);
        let screen = world.get(answer.header("location")).await;
        assert!(screen.text.contains("Done: "), "{url}: {}", screen.text);
        fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let of = |verb: &str| format!("/resources/{id}/act/{verb}");
    let sent = act(&of("cordon"), &[]).await;
    assert_eq!(resource().await.cordon_reason, "maintenance");
    act(&of("uncordon"), &[]).await;
    assert!(!resource().await.cordoned);
    // A form that comes twice counts once.
    let twice: Vec<(&str, &str)> = sent.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(world.post(&of("cordon"), "", &form(&twice)).await.status.as_u16(), 303);
    assert!(!resource().await.cordoned, "the form was carried out before");
    act(&of("drain"), &[]).await;
    assert_eq!(resource().await.state(), pb::ResourceState::Draining);
    act(&of("undrain"), &[]).await;
    let bad = world.get(&of("hold")).await.text;
    let fields = [("seen", &*hidden(&bad, "seen")), ("once", "x"), ("reason", "look"), ("time", "2 hours")];
    let refused = world.post(&of("hold"), "", &form(&fields)).await;
    assert!(refused.status == StatusCode::CONFLICT && refused.text.contains("The time "), "{}", refused.text);
    act(&of("hold"), &[("time", "2h")]).await;
    assert_eq!((resource().await.kept_reason, resource().await.kept_by), ("maintenance".into(), "local".into()));
    act(&of("recover"), &[]).await;
    act(&of("note"), &[]).await;
    let noted = resource().await.note.unwrap_or_default();
    assert_eq!((&*noted.text, &*noted.by), ("maintenance", "local"));
    let form_of_note = world.get(&of("note")).await.text;
    assert!(form_of_note.contains(">maintenance</textarea>"), "the note is there to be changed: {form_of_note}");
    for screen in [format!("/resources/{id}"), "/resources".to_owned()] {
        let shown = world.get(&screen).await.text;
        assert!(shown.contains("note of <bdi>local</bdi>: <bdi>maintenance</bdi>"), "{screen}: {shown}");
    }
    act("/pools/p/act/cordon", &[]).await;
    assert!(world.get("/pools/p").await.text.contains("cordoned by <bdi>local</bdi>"));
    act("/pools/p/act/uncordon", &[]).await;
    let lease_url = format!("/leases/{}/act/break", lease.id);
    act(&lease_url, &[]).await;
    let told = client.get(&lease.id).await.unwrap();
    assert_eq!((told.state(), &*told.causes.last().unwrap().detail), (pb::LeaseState::Broken, "maintenance"));
    // A lease that is over has no verbs.
    assert!(!world.get(&format!("/leases/{}", lease.id)).await.text.contains("ul class=\"verbs\""));
    for url in
        ["/leases/lse_00000000000000000000000001/act/break", "/resources/res_00000000000000000000000001/act/drain"]
    {
        assert_eq!(world.get(url).await.status, StatusCode::NOT_FOUND, "{url}");
    }
    let request = pb::EventsRequest { page_size: 1000, ..pb::EventsRequest::default() };
    let trail = client.admin().events(request).await.unwrap().into_inner().events;
    let called = trail.into_iter().filter_map(|event| event.caller).map(|caller| (caller.method, caller.program));
    let called: BTreeSet<(String, String)> = called.collect();
    for method in ["Cordon", "Uncordon", "Drain", "Undrain", "Hold", "Recover", "Note", "Break"] {
        assert!(called.contains(&(method.to_owned(), "page".to_owned())), "{method} in {called:?}");
    }
    assert!(called.contains(&("Lease".to_owned(), "api".to_owned())), "{called:?}");
}

#[tokio::test]
async fn a_verb_that_the_roles_do_not_have_is_neither_shown_nor_carried_out() {
    let broker = broker(1, 1).await;
    let new = NewToken::make("ann").unwrap();
    let reader = StaticToken {
        id: "ann".into(),
        sha256: vec![new.sha256],
        tenant: "web".into(),
        roles: Roles::of(&[BuiltIn::Reader]),
        expires: None,
    };
    let sources = AnswerSources { trust: Trust::tokens([reader]).unwrap(), ..AnswerSources::default() };
    let world = page_of(&broker.handle, sources);
    let bearer = format!("Bearer {}", new.text);
    let own = [
        ("authorization", &*bearer),
        ("content-type", "application/x-www-form-urlencoded"),
        ("sec-fetch-site", "same-origin"),
    ];
    let pool = world.ask(Method::GET, "/pools/p", &own[..1], "").await;
    assert_eq!(pool.status, StatusCode::OK, "{}", pool.text);
    assert!(!pool.text.contains("/act/"), "{}", pool.text);
    assert!(pool.text.contains("Your roles do not let you read the audit trail."));
    let body = form(&[("reason", "x"), ("once", "1")]);
    let refused = world.ask(Method::POST, "/pools/p/act/cordon", &own, &body).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text);
    assert!(refused.text.contains("NOT_ALLOWED"), "{}", refused.text);
    assert!(
        !broker
            .client()
            .await
            .admin()
            .get_pool(pb::GetPoolRequest { name: "p".into(), min_revision: 0 })
            .await
            .unwrap()
            .into_inner()
            .pool
            .unwrap()
            .cordoned
    );
}

/// Reads a stream until it has this text behind what was read before.
async fn until(body: &mut Body, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(30), body.frame()).await;
        let frame = frame.unwrap_or_else(|_| panic!("no {text:?} in {read}")).expect("the stream goes on").unwrap();
        read.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    read
}

#[tokio::test]
async fn an_open_tab_gets_each_change_and_a_stop_ends_it() {
    let broker = broker(1, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let stream = async || {
        let mut request = Request::builder().uri("/live?at=%2Fleases&since=0").header("host", "127.0.0.1");
        request = request.header("sec-fetch-site", "same-origin");
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(From(ConnectInfo::plain(NEAR.parse().unwrap())));
        world.routes.clone().oneshot(request).await.unwrap()
    };
    let response = stream().await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let first = until(&mut body, "event: tick").await;
    assert!(first.contains("event: view") && first.contains("None.") && first.contains("<h1>Leases</h1>"), "{first}");
    let lease = broker.client().await.lease(request(0, HOSTILE, "p")).await.unwrap().lease.unwrap();
    let next = until(&mut body, &lease.id).await;
    assert!(next.contains("event: view") && !next.contains("<script>"), "{next}");
    let once = world.get("/view?at=%2Fleases").await;
    let told: serde_json::Value = serde_json::from_str(&once.text).unwrap();
    assert!(told["view"].as_str().unwrap().contains(&lease.id) && told["tick"]["fresh"] == true, "{told}");
    assert_eq!(world.get("/live?at=%2Fnothing").await.status, StatusCode::NOT_FOUND);
    // A full house refuses at once.
    let mut kept = Vec::new();
    let refused = loop {
        let response = stream().await;
        if response.status() != StatusCode::OK {
            break response.status();
        }
        kept.push(response);
        assert!(kept.len() <= 256);
    };
    assert_eq!((refused, kept.len()), (StatusCode::SERVICE_UNAVAILABLE, 255));
    drop(world);
    let end = async { while body.frame().await.is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), end).await.expect("the stream ends with the server");
}
