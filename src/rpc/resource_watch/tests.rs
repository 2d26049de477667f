use super::*;
use crate::client::{Client, ClientOptions};
use crate::rpc::RpcLimits;
use crate::rpc::testing::{Broker, broker, follower};
use crate::rpc::tests::wanted;
use tonic::{Code, Streaming};

type Messages = Streaming<pb::WatchResourcesResponse>;

/// A client of the server at this address alone.
async fn client_of(address: std::net::SocketAddr) -> Client {
    Client::connect_with(&address.to_string(), ClientOptions::default()).await.unwrap()
}

async fn open(client: &Client, request: pb::WatchResourcesRequest) -> Messages {
    client.admin().watch_resources(request).await.unwrap().into_inner()
}

/// All of a stream until a bookmark for which this holds, and its revision.
async fn until(messages: &mut Messages, holds: impl Fn(&pb::Bookmark, &[Event]) -> bool) -> (Vec<Event>, u64) {
    let mut heard = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), messages.message()).await;
        let message = next.expect("the stream goes on").unwrap().expect("the stream stays");
        match message.event.unwrap() {
            Event::Bookmark(mark) if holds(&mark, &heard) => return (heard, message.revision),
            Event::Bookmark(_) => {}
            event => heard.push(event),
        }
    }
}

async fn beginning(messages: &mut Messages) -> (Vec<Event>, u64) {
    until(messages, |mark, _| mark.synced).await
}

/// All of a stream until something was heard.
async fn next(messages: &mut Messages) -> (Vec<Event>, u64) {
    until(messages, |_, heard| !heard.is_empty()).await
}

fn resources(heard: &[Event]) -> Vec<pb::Resource> {
    let resource = |event: &Event| match event {
        Event::Resource(resource) => Some(resource.clone()),
        Event::Pool(_) | Event::Bookmark(_) => None,
    };
    heard.iter().filter_map(resource).collect()
}

fn pools(heard: &[Event]) -> Vec<pb::Pool> {
    let pool = |event: &Event| match event {
        Event::Pool(pool) => Some(pool.clone()),
        Event::Resource(_) | Event::Bookmark(_) => None,
    };
    heard.iter().filter_map(pool).collect()
}

async fn lease(broker: &Broker, request_id: &str) -> pb::Lease {
    let wait = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let request = pb::LeaseRequest { request_id: request_id.into(), wait, ..wanted("x") };
    let lease = broker.client().await.lease(request).await.unwrap().lease.unwrap();
    assert_eq!(lease.state(), pb::LeaseState::Active, "{lease:?}");
    lease
}

async fn note(client: &Client, resource_id: &str, text: &str) {
    let request = pb::NoteRequest { resource_id: resource_id.into(), text: text.into(), ..pb::NoteRequest::default() };
    client.admin().note(request).await.unwrap();
}

#[tokio::test]
async fn a_stream_begins_with_the_state_and_goes_on_with_what_changes() {
    let broker = broker(2, 1).await;
    let client = broker.client().await;
    let first = lease(&broker, "1").await;
    let mut stream = open(&client, pb::WatchResourcesRequest::default()).await;
    let (heard, revision) = beginning(&mut stream).await;
    let seen = resources(&heard);
    assert_eq!((seen.len(), &*seen[0].id, &seen[0].lease_ids), (1, &*first.resource_id, &vec![first.id.clone()]));
    assert!(revision > 0 && pools(&heard).is_empty(), "{heard:?}");
    note(&client, &first.resource_id, "loud fan").await;
    let (heard, later) = next(&mut stream).await;
    let seen = resources(&heard);
    assert_eq!((seen.len(), &*seen[0].id), (1, &*first.resource_id));
    assert_eq!(seen[0].note.as_ref().map(|note| &*note.text), Some("loud fan"));
    assert!(later > revision);
    // The end of a lease is a change of the resource that it was on.
    client.release(&first.id, pb::Outcome::Ok, "").await.unwrap();
    let (heard, _) =
        until(&mut stream, |_, heard| resources(heard).last().is_some_and(|resource| resource.slots_in_use == 0)).await;
    assert!(resources(&heard).iter().all(|resource| resource.id == first.resource_id), "{heard:?}");
}

#[tokio::test]
async fn a_stream_that_resumes_gets_what_changed_since_and_a_follower_serves_it_too() {
    let broker = broker(2, 1).await;
    let (server, follows) = follower(&broker, RpcLimits::default()).await;
    let (here, there) = (broker.client().await, client_of(server.address).await);
    let (one, two) = (lease(&broker, "1").await, lease(&broker, "2").await);
    let mut stream = open(&here, pb::WatchResourcesRequest::default()).await;
    let (heard, revision) = beginning(&mut stream).await;
    assert_eq!(resources(&heard).len(), 2, "{heard:?}");
    drop(stream);
    note(&here, &two.resource_id, "a").await;
    note(&here, &two.resource_id, "b").await;
    follows.handle.refresh().await.unwrap();
    for client in [&here, &there] {
        let resumed = pb::WatchResourcesRequest { from_revision: revision, ..Default::default() };
        let mut stream = open(client, resumed).await;
        let (heard, now) = beginning(&mut stream).await;
        let seen = resources(&heard);
        assert_eq!((seen.len(), &*seen[0].id), (1, &*two.resource_id), "{heard:?}");
        assert_eq!(seen[0].note.as_ref().map(|note| &*note.text), Some("b"), "the latest state");
        assert!(now > revision);
        let again = pb::WatchResourcesRequest { from_revision: now, ..Default::default() };
        assert_eq!(beginning(&mut open(client, again).await).await.0, [], "nothing changed since");
    }
    let mut stream = open(&there, pb::WatchResourcesRequest::default()).await;
    assert_eq!(resources(&beginning(&mut stream).await.0).len(), 2);
    note(&here, &one.resource_id, "c").await;
    follows.handle.refresh().await.unwrap();
    let seen = resources(&next(&mut stream).await.0);
    assert_eq!((seen.len(), &*seen[0].id), (1, &*one.resource_id), "{seen:?}");
}

#[tokio::test]
async fn a_resource_that_leaves_the_wanted_states_is_sent_once_more() {
    let broker = broker(2, 1).await;
    let client = broker.client().await;
    let (one, _two) = (lease(&broker, "1").await, lease(&broker, "2").await);
    let ready = pb::WatchResourcesRequest { states: vec![pb::ResourceState::Ready.into()], ..Default::default() };
    let mut stream = open(&client, ready.clone()).await;
    let (heard, revision) = beginning(&mut stream).await;
    assert_eq!(resources(&heard).len(), 2, "{heard:?}");
    let reason = "look".to_owned();
    let order = pb::QuarantineRequest { resource_id: one.resource_id.clone(), reason, ..Default::default() };
    client.admin().quarantine(order).await.unwrap();
    let seen = resources(&next(&mut stream).await.0);
    assert_eq!((&*seen[0].id, seen[0].state()), (&*one.resource_id, pb::ResourceState::Quarantined), "{seen:?}");
    // It is none of the client's now.
    note(&client, &one.resource_id, "not seen").await;
    let request = pb::RecoverRequest { resource_id: one.resource_id.clone(), ..Default::default() };
    client.admin().recover(request).await.unwrap();
    let (heard, _) = until(&mut stream, |_, heard| !resources(heard).is_empty()).await;
    assert!(resources(&heard).iter().all(|resource| resource.state() == pb::ResourceState::Ready), "{heard:?}");
    // Another stream may have sent it before: one that resumes sends it, too.
    let resumed = pb::WatchResourcesRequest { from_revision: revision, ..ready };
    let seen = resources(&beginning(&mut open(&client, resumed).await).await.0);
    assert!(seen.iter().any(|resource| resource.id == one.resource_id), "{seen:?}");
    // States and pools that there are not.
    let wrong = pb::WatchResourcesRequest { states: vec![77], ..Default::default() };
    assert_eq!(client.admin().watch_resources(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    let none = pb::WatchResourcesRequest { pools: vec!["other".into()], ..Default::default() };
    assert_eq!(beginning(&mut open(&client, none).await).await.0, []);
}

#[tokio::test]
async fn pools_come_first_and_then_when_something_changes_them() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let request = pb::WatchResourcesRequest { include_pools: true, ..Default::default() };
    let mut stream = open(&client, request).await;
    let told = pools(&beginning(&mut stream).await.0);
    assert_eq!((told.len(), &*told[0].name, told[0].leases), (1, "p", 0), "{told:?}");
    lease(&broker, "1").await;
    until(&mut stream, |_, heard| pools(heard).last().is_some_and(|pool| pool.leases == 1)).await;
    let order = pb::CordonRequest { pool: "p".into(), reason: "new switch".into(), ..Default::default() };
    client.admin().cordon(order).await.unwrap();
    let (heard, _) = until(&mut stream, |_, heard| pools(heard).last().is_some_and(|pool| pool.cordoned)).await;
    assert_eq!(pools(&heard).last().unwrap().cordon_reason, "new switch");
}

#[tokio::test]
async fn a_slow_reader_gets_fewer_states_and_the_latest_one() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let held = lease(&broker, "1").await;
    let mut stream = open(&client, pb::WatchResourcesRequest::default()).await;
    beginning(&mut stream).await;
    const CHANGES: usize = 300;
    for number in 0..CHANGES {
        note(&client, &held.resource_id, &format!("note {number}")).await;
    }
    let last = format!("note {}", CHANGES - 1);
    let is_last = |resource: &pb::Resource| resource.note.as_ref().is_some_and(|note| note.text == last);
    let (heard, _) = until(&mut stream, |_, heard| resources(heard).last().is_some_and(is_last)).await;
    assert!(heard.len() < CHANGES, "{} states of {CHANGES}", heard.len());
    let revisions: Vec<u64> = resources(&heard).iter().map(|resource| resource.revision).collect();
    assert!(revisions.is_sorted(), "no resource goes backwards: {revisions:?}");
}

#[test]
fn a_resource_is_sent_while_the_client_may_hold_it() {
    let (one, two) = (ResourceId::new(1), ResourceId::new(2));
    let mut fresh = Held::Sent(BTreeSet::new());
    assert!(!fresh.is_sent(one, false), "it was never sent");
    assert!(fresh.is_sent(one, true) && fresh.is_sent(one, true));
    assert!(fresh.is_sent(one, false) && !fresh.is_sent(one, false));
    let mut resumed = Held::AllBut(BTreeSet::new());
    assert!(resumed.is_sent(two, false) && !resumed.is_sent(two, false), "another stream may have sent it");
    assert!(resumed.is_sent(two, true) && resumed.is_sent(two, false));
}
