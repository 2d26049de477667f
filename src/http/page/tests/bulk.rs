//! One verb on several resources.

use super::verbs::{form, hidden};
use super::*;
use crate::auth::{Limits, Role, Rule, RuleScope, Verb, Verbs};
use wharfinger_core::Pools;

async fn resources(client: &crate::client::Client) -> Vec<pb::Resource> {
    let mut list =
        client.admin().list_resources(pb::ListResourcesRequest::default()).await.unwrap().into_inner().resources;
    list.sort_by(|a, b| a.id.cmp(&b.id));
    list
}

/// The fields of a form with these more.
fn fields(page: &str, more: &[(&str, &str)]) -> String {
    let ids: Vec<&str> = page
        .split("type=\"hidden\" name=\"id\" value=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let (verb, seen, once) = (hidden(page, "verb"), hidden(page, "seen"), hidden(page, "once"));
    let mut all = vec![("verb", &*verb), ("seen", &*seen), ("once", &*once)];
    all.extend(ids.into_iter().map(|id| ("id", id)));
    form(&[&all, more].concat())
}

#[tokio::test]
async fn a_verb_is_carried_out_on_each_selected_resource_and_on_no_other() {
    let broker = broker(3, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let client = broker.client().await;
    for n in 0..3 {
        client.lease(request(n, HOSTILE, "p")).await.unwrap();
    }
    let all = resources(&client).await;
    assert_eq!(all.len(), 3);
    let list = world.get("/resources").await.text;
    assert!(
        list.contains("<form class=\"bulk\" action=\"/bulk\"") && list.matches("type=\"checkbox\"").count() == 3,
        "{list}"
    );
    let url = format!("/bulk?pool=&state=&q=&verb=cordon&id={}&id={}&id={}", all[0].id, all[1].id, all[0].id);
    let page = world.get(&url).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert_clean(&url, &page.text);
    assert!(page.text.contains("Cordon 2 resources?") && !page.text.contains(&all[2].id), "{}", page.text);
    let empty = world.post("/bulk", "", &fields(&page.text, &[("reason", " ")])).await;
    assert!(empty.status == StatusCode::CONFLICT && empty.text.contains("It needs a reason"), "{}", empty.text);
    let body = fields(&page.text, &[("reason", HOSTILE)]);
    let done = world.post("/bulk", "", &body).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    assert_clean("/bulk", &done.text);
    assert!(done.text.contains("Cordon: 2 done</h1>"), "{}", done.text);
    let after = resources(&client).await;
    assert_eq!(after.iter().map(|one| one.cordoned).collect::<Vec<_>>(), [true, true, false]);
    // One word is in the entries of all of them.
    let batch = done.text.split("ends with <code>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    assert!(batch.starts_with("batch ") && batch.ends_with(", 2 resources"), "{batch}");
    let request = pb::EventsRequest { page_size: 1000, ..pb::EventsRequest::default() };
    let trail = client.admin().events(request).await.unwrap().into_inner().events;
    let entries: Vec<_> = trail.iter().filter(|event| event.detail.contains(&batch)).collect();
    let mut on: Vec<&str> = entries.iter().map(|event| &*event.resource_id).collect();
    on.sort_unstable();
    on.dedup();
    assert_eq!(on, [&*all[0].id, &*all[1].id]);
    assert!(entries.iter().all(|event| event.detail.contains("<script>")), "{entries:?}");
    // The same form once more does nothing.
    let twice = world.post("/bulk", "", &body).await;
    assert!(twice.status == StatusCode::CONFLICT && twice.text.contains("carried out before"), "{}", twice.text);
}

#[tokio::test]
async fn all_of_a_filter_are_destroyed_only_as_shown_and_after_their_number_was_written() {
    let broker = broker(2, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let client = broker.client().await;
    let lease = client.lease(request(0, "ann", "p")).await.unwrap().lease.unwrap();
    while resources(&client).await.len() < 2 {
        client.lease(request(1, "bob", "p")).await.unwrap();
    }
    let url = "/bulk?verb=recycle&all=1&pool=p";
    let page = world.get(url).await.text;
    assert_clean(url, &page);
    assert!(
        page.contains("Recycle 2 resources?") && page.contains(&lease.id) && page.contains("It would break 2 leases"),
        "{page}"
    );
    let full = |page: &str, confirm: &str| fields(page, &[("reason", "old kernel"), ("confirm", confirm)]);
    let wrong = world.post("/bulk", "", &full(&page, "3")).await;
    assert!(wrong.text.contains("To confirm, write 2 into the last field."), "{}", wrong.text);
    // One of the leases ends between the look and the order.
    client.release(&lease.id, pb::Outcome::Ok, "").await.unwrap();
    let old = world.post("/bulk", "", &full(&page, "2")).await;
    assert!(old.status == StatusCode::CONFLICT && old.text.contains("Other leases are on it"), "{}", old.text);
    // The resource of a form is gone by the time of the order: the other one is destroyed all the same.
    let ids: Vec<String> = resources(&client).await.into_iter().map(|one| one.id).collect();
    let first = pb::ForceDestroyRequest {
        resource_id: ids[0].clone(),
        reason: "away".into(),
        ..pb::ForceDestroyRequest::default()
    };
    let now = world.get(url).await.text;
    client.admin().force_destroy(first).await.unwrap();
    let again = world.post("/bulk", "", &full(&now, "2")).await;
    let again = if again.status == StatusCode::CONFLICT {
        world.post("/bulk", "", &full(&again.text, "2")).await
    } else {
        again
    };
    assert_eq!(again.status, StatusCode::OK, "{}", again.text);
    assert!(
        again.text.contains("Recycle: 1 done, 1 refused</h1>") && again.text.contains("<b>refused: </b>"),
        "{}",
        again.text
    );
    let events = pb::EventsRequest { resource_id: ids[1].clone(), page_size: 1000, ..pb::EventsRequest::default() };
    let trail = client.admin().events(events).await.unwrap().into_inner().events;
    assert!(trail.iter().any(|event| event.detail.contains("old kernel (batch ")), "{trail:?}");
}

#[tokio::test]
async fn a_form_without_a_verb_or_resources_and_one_that_is_too_large_are_refused() {
    let broker = broker(1, 1).await;
    let world = page_of(&broker.handle, AnswerSources::default());
    let many: String = (0..501).map(|n| format!("&id=res_{n}")).collect();
    for (url, status, fault) in [
        ("/bulk".to_owned(), 400, "names no verb"),
        ("/bulk?verb=break&id=res_1".into(), 400, "names no verb"),
        ("/bulk?verb=cordon".into(), 400, "no resource is selected"),
        ("/bulk?verb=cordon&all=1&q=nothing".into(), 400, "no resource is selected"),
        ("/bulk?verb=cordon&id=res_00000000000000000000000001".into(), 404, "UNKNOWN_RESOURCE"),
        (format!("/bulk?verb=cordon{many}"), 400, "at most 500 at a time"),
    ] {
        let answer = world.get(&url).await;
        assert_eq!(answer.status.as_u16(), status, "{url}: {}", answer.text);
        assert!(answer.text.contains(fault), "{url}: {}", answer.text);
        assert_clean(&url, &answer.text);
    }
}

#[tokio::test]
async fn only_the_verbs_of_the_roles_are_offered_and_carried_out() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    client.lease(request(0, "ann", "p")).await.unwrap();
    let id = resources(&client).await[0].id.clone();
    let new = NewToken::make("ann").unwrap();
    let rule = Rule {
        verbs: Verbs::of(&[Verb::GetResource, Verb::GetPool, Verb::Get, Verb::List, Verb::Explain, Verb::Check]),
        pools: Pools::All,
        scope: RuleScope::All,
        limits: Limits::default(),
    };
    let role = Role { name: "checker".into(), rules: vec![rule] };
    let checker = StaticToken {
        id: "ann".into(),
        sha256: vec![new.sha256],
        tenant: "web".into(),
        roles: std::iter::once(Arc::new(role)).collect(),
        expires: None,
    };
    let sources = AnswerSources { trust: Trust::tokens([checker]).unwrap(), ..AnswerSources::default() };
    let world = page_of(&broker.handle, sources);
    let bearer = format!("Bearer {}", new.text);
    let own = [
        ("authorization", &*bearer),
        ("content-type", "application/x-www-form-urlencoded"),
        ("sec-fetch-site", "same-origin"),
    ];
    let list = world.ask(Method::GET, "/resources", &own[..1], "").await.text;
    assert!(list.contains("<option value=\"check\">") && !list.contains("<option value=\"cordon\">"), "{list}");
    let page = world.ask(Method::GET, &format!("/bulk?verb=cordon&id={id}"), &own[..1], "").await.text;
    let done = world.ask(Method::POST, "/bulk", &own, &fields(&page, &[("reason", "x")])).await;
    assert!(done.text.contains("Cordon: 0 done, 1 refused"), "{}", done.text);
    assert!(!resources(&client).await[0].cordoned);
}
