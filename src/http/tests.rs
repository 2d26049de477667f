use super::*;
use crate::pb;
use crate::rpc::{broker_for_tests as broker, follower_for_tests as follower};
use crate::store::{EventQuery, Store};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A port for meters on this engine. It ends with the guard.
async fn port(handle: &Handle, metrics: &Metrics) -> (SocketAddr, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    tokio::spawn(serve(listener, handle.clone(), metrics.clone(), stop.clone()));
    (address, stop.drop_guard())
}

/// The status, the headers and the body of an answer.
async fn get(address: SocketAddr, path: &str, accept: &str) -> (u16, String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_string())
}

/// The value of a series, by its text; `None`: there is no such series.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn counters_equal_the_audit_trail_and_gauges_the_pools() {
    let broker = broker(2, 2).await;
    let metrics = Metrics::new();
    broker.handle.observed().set(metrics.observer());
    let (address, _port) = port(&broker.handle, &metrics).await;
    let client = broker.client().await;
    let mut held = Vec::new();
    for n in 0..3 {
        let request = pb::LeaseRequest {
            request_id: format!("secret-request-{n}"),
            holder: format!("secret-holder-{n}"),
            work: "secret-work".into(),
            selector: Some(pb::Selector { pool: "p".into(), ..pb::Selector::default() }),
            wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
            ..pb::LeaseRequest::default()
        };
        held.push(client.lease(request).await.unwrap().lease.unwrap());
    }
    client.release(&held[0].id, pb::Outcome::Ok, "secret note").await.unwrap();
    let text = get(address, "/metrics", "text/plain").await.2;
    let trail = broker.store.events(&EventQuery { limit: 1000, ..EventQuery::default() }).await.unwrap();
    let mut kinds: BTreeMap<(String, String), f64> = BTreeMap::new();
    // Those of the start were written before the observer was set.
    for event in trail.iter().filter(|event| event.kind != "pool.configured") {
        *kinds.entry((event.kind.clone(), event.pool.clone().unwrap_or_default())).or_default() += 1.0;
    }
    assert!(kinds.len() >= 5, "{kinds:?}");
    for ((kind, pool), count) in &kinds {
        let counted = value(&text, &format!("wharfinger_events_total{{kind=\"{kind}\",pool=\"{pool}\"}}"));
        assert_eq!(counted, Some(*count), "{kind} {pool}: {text}");
    }
    assert_eq!(text.matches("wharfinger_events_total{").count(), kinds.len(), "{text}");
    assert_eq!(value(&text, "wharfinger_leases_asked_total{pool=\"p\"}"), Some(3.0));
    assert_eq!(value(&text, "wharfinger_leases_granted_total{pool=\"p\"}"), Some(3.0));
    assert_eq!(value(&text, "wharfinger_leases_ended_total{pool=\"p\",how=\"released\",outcome=\"ok\"}"), Some(1.0));
    assert_eq!(value(&text, "wharfinger_lease_wait_seconds_count{pool=\"p\",result=\"active\"}"), Some(3.0));
    assert_eq!(value(&text, "wharfinger_leader"), Some(1.0));
    assert_eq!(value(&text, "wharfinger_pool_resources{pool=\"p\",state=\"ready\"}"), Some(2.0));
    let slots = |state| value(&text, &format!("wharfinger_pool_slots{{pool=\"p\",state=\"{state}\"}}")).unwrap();
    assert_eq!((slots("leased"), slots("free") + slots("cleaning") + slots("unusable")), (2.0, 2.0), "{text}");
    assert!(value(&text, "wharfinger_commits_total{result=\"ok\"}").unwrap() >= 4.0);
    assert!(
        value(&text, "wharfinger_adapter_calls_total{pool=\"p\",work=\"provision\",result=\"ok\"}").unwrap() >= 2.0
    );
    for secret in ["secret", "lse_", "res_"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn both_formats_are_served_and_orders_are_not() {
    let broker = broker(1, 1).await;
    let (address, _port) = port(&broker.handle, &Metrics::new()).await;
    let (status, head, text) = get(address, "/metrics", "*/*").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(!text.contains("# EOF") && text.contains("# TYPE wharfinger_leader gauge"), "{text}");
    let (_, head, text) = get(address, "/metrics", "application/openmetrics-text; version=1.0.0").await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    for path in ["/livez", "/readyz", "/leader"] {
        assert_eq!(get(address, path, "*/*").await.0, 200, "{path}");
    }
    for path in ["/", "/metrics/x", "/wharfinger.v1.LeaseService/Lease"] {
        assert_eq!(get(address, path, "*/*").await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn one_that_follows_shows_no_pools_and_is_ready_while_its_data_is_recent() {
    let broker = broker(1, 1).await;
    let (_server, follower) = follower(&broker, crate::rpc::RpcLimits::default()).await;
    let (address, _port) = port(&follower.handle, &Metrics::new()).await;
    let text = get(address, "/metrics", "*/*").await.2;
    assert_eq!(value(&text, "wharfinger_leader"), Some(0.0));
    assert!(value(&text, "wharfinger_feed_age_seconds").is_some(), "{text}");
    assert!(!text.contains("wharfinger_pool_") && !text.contains("wharfinger_queue_"), "{text}");
    assert_eq!(get(address, "/readyz", "*/*").await, (200, get(address, "/readyz", "*/*").await.1, "follows\n".into()));
    assert_eq!(get(address, "/leader", "*/*").await.0, 503);
}
