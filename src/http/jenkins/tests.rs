//! The port of a broker over a store in memory, called as the plugin calls.

use super::*;
use crate::auth::{BuiltIn, NewToken, Roles, StaticToken, Trust};
use crate::rpc::{AnswerSources, RpcLimits, broker_for_tests as broker, follower_for_tests as follower};
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

const NEAR: &str = "127.0.0.1:4711";

struct World {
    routes: Router,
    _stop: tokio_util::sync::DropGuard,
}

fn port_of(handle: &crate::engine::Handle, sources: AnswerSources) -> World {
    let stop = CancellationToken::new();
    let inside = Inside::new(handle.clone(), &RpcLimits::default(), sources, None, stop.clone());
    World { routes: routes(inside), _stop: stop.drop_guard() }
}

/// The status, and the document; `Null` without one.
type Answer = (u16, Value);

impl World {
    async fn ask(&self, method: Method, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "wharf.example.org");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(ConnectInfo(NEAR.parse::<SocketAddr>().unwrap()));
        let response = self.routes.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        let status = response.status().as_u16();
        assert_eq!(response.headers().contains_key("www-authenticate"), status == 401);
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let document = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        (status, document)
    }

    async fn acquire(&self, request: Value) -> Answer {
        let body =
            json!({ "lockRequest": request, "clientId": "https://ci.example.org/", "heartbeatIntervalSeconds": 10 });
        let media = [("content-type", "application/json")];
        self.ask(Method::POST, "/lockable-resources/remote/v1/acquire/", &media, &body.to_string()).await
    }

    async fn status(&self, lock: &str) -> Answer {
        self.ask(Method::GET, &format!("/lockable-resources/remote/v1/acquire/{lock}/"), &[], "").await
    }

    async fn lease(&self, lock: &str, verb: &str) -> u16 {
        self.ask(Method::POST, &format!("/lockable-resources/remote/v1/lease/{lock}/{verb}"), &[], "").await.0
    }

    /// Polls as the plugin does, until the lock is in another state than QUEUED.
    async fn settled(&self, lock: &str) -> Value {
        tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let (status, document) = self.status(lock).await;
                assert_eq!(status, 200, "{document}");
                if document["state"] != "QUEUED" {
                    return document;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap()
    }
}

fn text<'v>(document: &'v Value, key: &str) -> &'v str {
    document[key].as_str().unwrap_or_else(|| panic!("no {key} in {document}"))
}

#[tokio::test]
async fn a_lock_is_acquired_kept_and_released() {
    let broker = broker(1, 1).await;
    let world = port_of(&broker.handle, AnswerSources::default());
    let (status, accepted) =
        world.acquire(json!({ "label": "p", "quantity": 1, "variable": "HW", "reason": "flash" })).await;
    assert_eq!(status, 202, "{accepted}");
    let lock = text(&accepted, "lockId");
    let acquired = world.settled(lock).await;
    assert_eq!((text(&acquired, "state"), text(&acquired, "lockId")), ("ACQUIRED", lock));
    let variables = &acquired["lockEnvVars"];
    assert_eq!(text(variables, "WHARFINGER_LEASE"), lock);
    assert_eq!(text(variables, "HW"), text(variables, "WHARFINGER_RESOURCE"));
    assert_eq!(text(variables, "HW0"), text(variables, "HW"));
    assert_eq!(text(variables, "WHARFINGER_POOL"), "p");
    // The lease is one as of the API: its holder is the controller, and its TTL six heartbeats.
    let lease = broker.client().await.get(lock).await.unwrap();
    assert_eq!((lease.holder.as_str(), lease.ttl.unwrap().seconds), ("https://ci.example.org/", 60));
    assert_eq!(lease.tags["jenkins.reason"], "flash");
    assert_eq!(world.lease(lock, "heartbeat").await, 204);
    assert_eq!(world.lease(lock, "release").await, 204);
    assert_eq!(world.lease(lock, "release").await, 204, "once more");
    assert_eq!(world.lease(lock, "heartbeat").await, 410);
    assert_eq!(text(&world.status(lock).await.1, "state"), "CANCELLED");
    let lease = broker.client().await.get(lock).await.unwrap();
    assert_eq!(lease.outcome(), pb::Outcome::Abandoned);
}

#[tokio::test]
async fn a_taken_lock_is_waited_for_skipped_or_given_up() {
    let broker = broker(1, 1).await;
    let world = port_of(&broker.handle, AnswerSources::default());
    // A resource is a pool by its name.
    let first = world.acquire(json!({ "resource": "p" })).await.1;
    let first = text(&first, "lockId");
    assert_eq!(text(&world.settled(first).await, "state"), "ACQUIRED");
    let second = world.acquire(json!({ "label": "p", "quantity": 1, "priority": 5 })).await.1;
    let second = text(&second, "lockId");
    assert_eq!(text(&world.status(second).await.1, "state"), "QUEUED");
    let (status, skipped) = world.acquire(json!({ "label": "p", "quantity": 1, "skipIfLocked": true })).await;
    assert_eq!((status, text(&skipped, "state")), (202, "SKIPPED"));
    assert_eq!(text(&world.status(text(&skipped, "lockId")).await.1, "state"), "SKIPPED");
    assert_eq!(world.lease(text(&skipped, "lockId"), "release").await, 204);
    let late = json!({ "label": "p", "quantity": 1, "timeoutForAllocateResource": 1, "timeoutUnit": "SECONDS" });
    let late = world.acquire(late).await.1;
    let failed = world.settled(text(&late, "lockId")).await;
    assert_eq!((text(&failed, "state"), text(&failed, "errorCode")), ("FAILED", "LOCK_WAIT_TIMEOUT"));
    assert_eq!(world.lease(first, "release").await, 204);
    assert_eq!(text(&world.settled(second).await, "state"), "ACQUIRED");
}

#[tokio::test]
async fn several_resources_are_one_lock() {
    let broker = broker(2, 2).await;
    let world = port_of(&broker.handle, AnswerSources::default());
    let asked = json!({ "label": "p", "quantity": 2, "variable": "HW", "extra": [{ "resource": "p" }] });
    let accepted = world.acquire(asked).await.1;
    let lock = text(&accepted, "lockId");
    assert_eq!(lock.split('.').count(), 3, "{lock}");
    let acquired = world.settled(lock).await;
    assert_eq!(text(&acquired, "state"), "ACQUIRED");
    let variables = &acquired["lockEnvVars"];
    assert_eq!(text(variables, "WHARFINGER_LEASES"), lock.replace('.', ","));
    assert_eq!(text(variables, "HW").split(',').count(), 3);
    assert!(variables.get("HW2").is_some() && variables.get("HW3").is_none(), "{variables}");
    assert_eq!(world.lease(lock, "release").await, 204);
    for id in lock.split('.') {
        assert!(broker.client().await.get(id).await.unwrap().ended_at.is_some(), "{id}");
    }
}

#[tokio::test]
async fn a_lock_that_breaks_is_not_one_any_more() {
    let broker = broker(1, 1).await;
    let world = port_of(&broker.handle, AnswerSources::default());
    let accepted = world.acquire(json!({ "label": "p", "quantity": 1 })).await.1;
    let lock = text(&accepted, "lockId");
    world.settled(lock).await;
    let request =
        pb::BreakRequest { lease_id: lock.to_owned(), reason: "a test".into(), ..pb::BreakRequest::default() };
    broker.client().await.admin().r#break(request).await.unwrap();
    assert_eq!(world.lease(lock, "heartbeat").await, 410);
    let failed = world.status(lock).await.1;
    assert_eq!((text(&failed, "state"), text(&failed, "errorCode")), ("FAILED", "OPERATOR"));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_a_code() {
    let broker = broker(1, 1).await;
    let world = port_of(&broker.handle, AnswerSources::default());
    let long = "x".repeat(200);
    for (request, status, code) in [
        (json!({}), 400, "MISSING_TARGET"),
        (json!({ "resource": " " }), 400, "MISSING_TARGET"),
        (json!({ "label": "p" }), 400, "MISSING_QUANTITY"),
        (json!({ "label": "p", "quantity": 0 }), 400, "MISSING_QUANTITY"),
        (json!({ "label": "p", "quantity": -1 }), 400, "MISSING_QUANTITY"),
        (json!({ "label": "p", "quantity": 65 }), 400, "TOO_MANY"),
        (json!({ "label": "p", "resource": "p" }), 400, "INVALID_TARGET"),
        (json!({ "label": "p || q", "quantity": 1 }), 400, "UNSUPPORTED_LABEL"),
        (json!({ "label": "!p", "quantity": 1 }), 400, "UNSUPPORTED_LABEL"),
        (json!({ "label": "p && q", "quantity": 1 }), 400, "UNSUPPORTED_LABEL"),
        (json!({ "label": "a=b && a=c", "quantity": 1 }), 400, "UNSUPPORTED_LABEL"),
        (json!({ "label": "=b", "quantity": 1 }), 400, "UNSUPPORTED_LABEL"),
        (json!({ "label": "nowhere", "quantity": 1 }), 404, "UNKNOWN_LABEL"),
        (json!({ "resource": "nowhere" }), 404, "UNKNOWN_RESOURCE"),
        (json!({ "resource": "p", "extra": [{}] }), 400, "INVALID_EXTRA"),
        (json!({ "resource": "p", "variable": "A B" }), 400, "INVALID_VARIABLE"),
        (json!({ "resource": "p", "variable": long }), 400, "INVALID_VARIABLE"),
        (json!({ "resource": "p", "variable": "1" }), 400, "INVALID_VARIABLE"),
        (json!({ "resource": "p", "timeoutForAllocateResource": -1 }), 400, "INVALID_TIMEOUT"),
        (json!({ "resource": "p", "timeoutForAllocateResource": i64::MAX }), 400, "INVALID_TIMEOUT"),
        (json!({ "resource": "p", "timeoutUnit": "YEARS" }), 400, "INVALID_TIMEOUT"),
        (json!({ "resource": 3 }), 400, "INVALID_JSON"),
        (json!({ "resource": "p", "quantity": "1" }), 400, "INVALID_JSON"),
        (json!({ "resource": "p", "priority": 1000 }), 400, "INVALID_REQUEST"),
    ] {
        let (found, document) = world.acquire(request.clone()).await;
        assert_eq!((found, text(&document, "errorCode")), (status, code), "{request}: {document}");
        assert!(!text(&document, "message").is_empty(), "{request}");
    }
    let media = [("content-type", "application/json")];
    let path = "/lockable-resources/remote/v1/acquire/";
    for (body, status, code) in [
        ("", 400, "INVALID_JSON"),
        ("{}", 400, "MISSING_LOCK_REQUEST"),
        (
            "{\"lockRequest\": {\"resource\": \"p\"}, \"heartbeatIntervalSeconds\": 0}",
            400,
            "INVALID_HEARTBEAT_INTERVAL",
        ),
        (
            "{\"lockRequest\": {\"resource\": \"p\"}, \"heartbeatIntervalSeconds\": 99999}",
            400,
            "INVALID_HEARTBEAT_INTERVAL",
        ),
        (&" ".repeat(MAX_BODY + 1), 413, "PAYLOAD_TOO_LARGE"),
    ] {
        let (found, document) = world.ask(Method::POST, path, &media, body).await;
        assert_eq!((found, text(&document, "errorCode")), (status, code), "{document}");
    }
    // A form of another site has another type, and a script of one has an origin.
    let plain = [("content-type", "text/plain")];
    assert_eq!(world.ask(Method::POST, path, &plain, "{}").await.0, 415);
    for foreign in [("origin", "https://evil.test"), ("sec-fetch-site", "cross-site"), ("origin", "null")] {
        assert_eq!(world.ask(Method::POST, path, &[media[0], foreign], "{}").await.0, 403, "{foreign:?}");
    }
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/lockable-resources/remote/v1/acquire/"),
        (Method::PUT, "/lockable-resources/remote/v1/acquire/"),
        (Method::GET, "/lockable-resources/remote/v1/acquire/lr-1/"),
        (Method::GET, "/lockable-resources/remote/v1/acquire/lse_1../"),
        (Method::GET, "/lockable-resources/remote/v1/lease/lse_1/release"),
        (Method::POST, "/lockable-resources/remote/v1/lease/lse_1/steal"),
        (Method::POST, "/lockable-resources/remote/v2/acquire/"),
    ] {
        let (status, document) = world.ask(method, path, &[], "").await;
        assert_eq!((status, text(&document, "errorCode")), (404, "LOCK_NOT_FOUND"), "{path}");
    }
    let unknown = "lse_01M8P6KGEQJSM0000000000009";
    assert_eq!(world.status(unknown).await.0, 404);
    assert_eq!(world.lease(unknown, "heartbeat").await, 410);
    assert_eq!(world.lease(unknown, "release").await, 204);
}

#[tokio::test]
async fn a_caller_is_known_by_the_password_and_sees_its_own_locks() {
    let broker = broker(1, 1).await;
    let (own, other) = (NewToken::make("ci").unwrap(), NewToken::make("other").unwrap());
    let known = |id: &str, new: &NewToken, tenant: &str| StaticToken {
        id: id.into(),
        sha256: vec![new.sha256],
        tenant: tenant.into(),
        roles: Roles::of(&[BuiltIn::Agent]),
        expires: None,
    };
    let trust = Trust::tokens([known("ci", &own, "web"), known("other", &other, "far")]).unwrap();
    let world = port_of(&broker.handle, AnswerSources { trust, ..AnswerSources::default() });
    let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("jenkins:{token}")));
    let (own, other) = (basic(&own.text), basic(&other.text));
    let body = json!({ "lockRequest": { "label": "p", "quantity": 1 } }).to_string();
    let acquire = async |header: &str| {
        let headers = [("content-type", "application/json"), ("authorization", header)];
        let given = if header.is_empty() { &headers[..1] } else { &headers[..] };
        world.ask(Method::POST, "/lockable-resources/remote/v1/acquire/", given, &body).await
    };
    for (header, code) in [
        ("", "NO_CREDENTIALS"),
        ("Basic !", "MALFORMED_TOKEN"),
        ("Digest x", "MALFORMED_TOKEN"),
        (&basic(""), "MALFORMED_TOKEN"),
        (&basic("a b"), "MALFORMED_TOKEN"),
    ] {
        let (status, document) = acquire(header).await;
        assert_eq!((status, text(&document, "errorCode")), (401, code), "{header}: {document}");
    }
    assert_eq!(acquire(&basic("wfk_ci_x_y")).await.0, 401);
    let (status, accepted) = acquire(&own).await;
    assert_eq!(status, 202, "{accepted}");
    let lock = text(&accepted, "lockId");
    let status = format!("/lockable-resources/remote/v1/acquire/{lock}/");
    let heartbeat = format!("/lockable-resources/remote/v1/lease/{lock}/heartbeat");
    let release = format!("/lockable-resources/remote/v1/lease/{lock}/release");
    assert_eq!(world.ask(Method::GET, &status, &[("authorization", &own)], "").await.0, 200);
    assert_eq!(world.ask(Method::GET, &status, &[("authorization", &other)], "").await.0, 404);
    assert_eq!(world.ask(Method::POST, &heartbeat, &[("authorization", &other)], "").await.0, 410);
    assert_eq!(world.ask(Method::POST, &heartbeat, &[], "").await.0, 401);
    // It is released by its own caller alone.
    assert_eq!(world.ask(Method::POST, &release, &[("authorization", &other)], "").await.0, 204);
    let there = world.ask(Method::GET, &status, &[("authorization", &own)], "").await.1;
    assert_ne!(text(&there, "state"), "CANCELLED");
}

#[tokio::test]
async fn a_server_that_cannot_answer_says_so_and_forgets_nothing() {
    let broker = broker(1, 1).await;
    let (_server, follower) = follower(&broker, RpcLimits::default()).await;
    let world = port_of(&follower.handle, AnswerSources::default());
    let (status, document) = world.acquire(json!({ "resource": "p" })).await;
    assert_eq!(status, 503, "{document}");
    assert_eq!(world.lease("lse_01M8P6KGEQJSM0000000000009", "heartbeat").await, 503);
}
