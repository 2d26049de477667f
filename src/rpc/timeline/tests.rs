//! Stories over the whole broker: in order, with all that belongs to them and nothing else.

use super::*;
use crate::client::{Client, ClientError};
use crate::engine::{Handle, Message, WatchHub};
use crate::rpc::testing::broker;
use crate::rpc::tests::{active, wanted};
use crate::rpc::{AnswerSources, RpcLimits};
use crate::store::MemoryStore;
use TimelineRole::{Lease, Pool, Resource, Successor};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use wharfinger_adapter::Verdict;
use wharfinger_core::{Batch, Core, Event, EventKind, Limits, Snapshot, Subject, Timestamp};

/// The source of a service.
fn in_full(handle: Handle) -> Context {
    Context::new(handle, &RpcLimits::default(), AnswerSources::default(), CancellationToken::new())
}

async fn story(client: &Client, id: &str, limit: i32) -> pb::TimelineResponse {
    let (mut lease_id, mut resource_id) = (String::new(), id.to_owned());
    if id.starts_with("lse_") {
        std::mem::swap(&mut lease_id, &mut resource_id);
    }
    client
        .timeline(pb::TimelineRequest { lease_id, resource_id, limit, ..pb::TimelineRequest::default() })
        .await
        .unwrap()
}

fn told(story: &pb::TimelineResponse) -> Vec<(TimelineRole, String)> {
    story.entries.iter().map(|entry| (entry.role(), entry.event.clone().unwrap().kind)).collect()
}

/// Waits until a resource is in one of these states.
async fn until(client: &Client, id: &str, states: &[pb::ResourceState]) {
    let mut admin = client.admin();
    loop {
        let request = pb::GetResourceRequest { resource_id: id.into(), ..pb::GetResourceRequest::default() };
        let resource = admin.get_resource(request).await.unwrap().into_inner().resource.unwrap();
        if states.contains(&resource.state()) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_broken_lease_has_its_doubt_its_break_and_its_successor_in_order() {
    let broker = broker(2, 1).await;
    let client = broker.client().await;
    let lease = active_with(&client, pb::LeaseRequest { replace: true, ..wanted("a") }).await;
    let bystander = active(&client, "b").await;
    let mangled = Verdict::Mangled { repairable: false, reason: "NO_GIT", detail: ".git is not there".into() };
    broker.fake.set_truth(&lease.resource_id, mangled);
    client.report(&lease.id, "no repository").await.unwrap();
    until(&client, &lease.resource_id, &[pb::ResourceState::Gone]).await;
    let broken = client.get(&lease.id).await.unwrap();
    assert_eq!(broken.state(), pb::LeaseState::Broken);
    client.release(&bystander.id, pb::Outcome::Ok, "").await.unwrap();

    let story = story(&client, &lease.id, 0).await;
    let told = told(&story);
    let place = |role, kind: &str| {
        let found = told.iter().position(|(r, k)| (*r, k.as_str()) == (role, kind));
        found.unwrap_or_else(|| panic!("no {role:?} {kind} in {told:?}"))
    };
    let order = [
        place(Lease, "lease.queued"),
        place(Resource, "resource.provisioning"),
        place(Resource, "resource.ready"),
        place(Lease, "lease.active"),
        place(Lease, "lease.reported"),
        place(Resource, "resource.suspect"),
        place(Lease, "lease.broken"),
        place(Resource, "resource.gone"),
    ];
    assert!(order.is_sorted(), "{told:?}");
    assert!(place(Lease, "lease.reported") < place(Successor, "lease.queued"), "{told:?}");
    let named = |id: &str| story.entries.iter().any(|entry| entry.event.as_ref().unwrap().subject == id);
    assert!(named(&broken.replacement_id) && !named(&bystander.id) && !named(&bystander.resource_id), "{story:?}");
    assert!(!story.truncated);
    let first = &story.entries[0];
    assert_eq!(first.since_first, Some(prost_types::Duration { seconds: 0, nanos: 0 }));
    let times: Vec<_> = story.entries.iter().map(|e| e.since_first.map(|s| (s.seconds, s.nanos)).unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

async fn active_with(client: &Client, request: pb::LeaseRequest) -> pb::Lease {
    let request = pb::LeaseRequest { wait: Some(prost_types::Duration { seconds: 30, nanos: 0 }), ..request };
    client.lease(request).await.unwrap().lease.unwrap()
}

#[tokio::test]
async fn a_failed_release_goes_on_to_the_check_and_a_good_one_ends_there() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let failed = active(&client, "a").await;
    client.release(&failed.id, pb::Outcome::Failed, "exit 1").await.unwrap();
    until(&client, &failed.resource_id, &[pb::ResourceState::Ready]).await;
    let good = active(&client, "b").await;
    assert_eq!(good.resource_id, failed.resource_id);
    client.release(&good.id, pb::Outcome::Ok, "").await.unwrap();
    // A later entry belongs to neither.
    let target = pb::CheckRequest { resource_id: good.resource_id.clone(), ..pb::CheckRequest::default() };
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    client.admin().check(target).await.unwrap();
    until(&client, &good.resource_id, &[pb::ResourceState::Ready]).await;

    let of_failed = told(&story(&client, &failed.id, 0).await);
    let last = of_failed.iter().rev().find(|(role, _)| *role == Resource).unwrap();
    assert_eq!(last.1, "resource.cleared", "{of_failed:?}");
    let of_good = told(&story(&client, &good.id, 0).await);
    assert!(!of_good.iter().any(|(_, kind)| kind == "resource.suspect"), "{of_good:?}");
    assert_eq!(of_good.last().unwrap(), &(Lease, "lease.released".to_owned()));

    // The resource has both of them, each with its end, and its own doubts.
    let life = story(&client, &good.resource_id, 0).await;
    let kinds = told(&life);
    for (kind, times) in [("lease.released", 2), ("lease.active", 2), ("resource.suspect", 2), ("resource.cleared", 2)]
    {
        assert_eq!(kinds.iter().filter(|(_, k)| k == kind).count(), times, "{kind} in {kinds:?}");
    }
    assert!(kinds.iter().all(|(role, kind)| (*role == Lease) == kind.starts_with("lease.")), "{kinds:?}");
    let revisions: Vec<u64> = life.entries.iter().map(|entry| entry.event.as_ref().unwrap().revision).collect();
    assert!(revisions.is_sorted(), "{revisions:?}");

    let newest = story(&client, &good.resource_id, 3).await;
    assert!(newest.truncated);
    assert_eq!(newest.entries.len(), 3);
    assert_eq!(newest.entries.last().unwrap().event, life.entries.last().unwrap().event);
    assert_eq!(newest.entries[0].since_first, Some(prost_types::Duration { seconds: 0, nanos: 0 }));
}

#[tokio::test]
async fn an_unknown_id_has_no_timeline() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    for (lease, resource) in [("lse_00000000000000000000000000", ""), ("", "res_00000000000000000000000000")] {
        let request = pb::TimelineRequest {
            lease_id: lease.into(),
            resource_id: resource.into(),
            limit: 0,
            ..pb::TimelineRequest::default()
        };
        let error = client.timeline(request).await.unwrap_err();
        assert!(matches!(&error, ClientError::NotFound(status) if status.code() == Code::NotFound), "{error:?}");
    }
}

/// When, in seconds; the kind; the subject; the pool and the resource that it names.
type Entry = (i64, &'static str, Subject, Option<&'static str>, Option<ResourceId>);

/// An engine without anything in it, over a trail of these entries.
fn over(entries: &[Entry]) -> Handle {
    let store = MemoryStore::new();
    let events = entries.iter().enumerate().map(|(n, (second, kind, subject, pool, resource))| Event {
        revision: Revision(n as u64 + 1),
        at: Timestamp(second * 1000),
        kind: EventKind::parse(kind).unwrap(),
        actor: "wharfinger".into(),
        subject: subject.clone(),
        pool: pool.map(Arc::from),
        resource: *resource,
        lease: None,
        detail: "".into(),
        caller: None,
    });
    let revision = Revision(entries.len() as u64);
    let batch = Batch { revision, events: events.collect(), ..Batch::default() };
    store.commit_now(&batch, store.acquire_now()).unwrap();
    let (mailbox, mut messages) = mpsc::channel(8);
    tokio::spawn(async move {
        let core = Core::recover(Snapshot::default(), Vec::new(), Limits::default(), Timestamp(0));
        while let Some(message) = messages.recv().await {
            if let Message::Read(read) = message {
                read(&core, Timestamp(0))();
            }
        }
    });
    Handle::new(mailbox, WatchHub::new(revision), Arc::new(store))
}

#[tokio::test]
async fn the_story_ends_when_the_resource_is_fit_again_or_ten_minutes_later() {
    let (lease, other, host) = (LeaseId::new(1), LeaseId::new(2), ResourceId::new(9));
    let (own, its, theirs) = (Subject::Lease(lease), Subject::Resource(host), Subject::Lease(other));
    let p = Some("p");
    let before = [
        (0, "resource.ready", its.clone(), p, Some(host)),
        (0, "pool.brake-on", Subject::Pool("p".into()), p, None),
        (1, "lease.queued", own.clone(), None, None),
        (2, "lease.active", own, p, Some(host)),
        (2, "lease.active", theirs, p, Some(host)),
        (3, "pool.brake-on", Subject::Pool("p".into()), p, None),
        (3, "pool.configured", Subject::Pool("p".into()), p, None),
        (3, "pool.brake-on", Subject::Pool("q".into()), Some("q"), None),
        (4, "resource.suspect", its.clone(), p, Some(host)),
        (5, "lease.broken", Subject::Lease(lease), p, None),
    ];
    let begun = [
        (Lease, "lease.queued"),
        (Lease, "lease.active"),
        (Pool, "pool.brake-on"),
        (Resource, "resource.suspect"),
        (Lease, "lease.broken"),
    ];
    let story = async |after: &[(i64, &'static str)]| {
        let after = after.iter().map(|(second, kind)| (*second, *kind, its.clone(), p, Some(host)));
        let handle = over(&before.iter().cloned().chain(after).collect::<Vec<_>>());
        let story = tell(&in_full(handle), &Scope::All, About::Lease(lease), 100).await.unwrap();
        let told = told(&story);
        for (n, (role, kind)) in begun.iter().enumerate() {
            assert_eq!((told[n].0, told[n].1.as_str()), (*role, *kind), "{told:?}");
        }
        told[begun.len()..].iter().map(|(_, kind)| kind.clone()).collect::<Vec<_>>()
    };
    // Fit again: what comes later is another story.
    let mended =
        [(6, "resource.repairing"), (7, "resource.repaired"), (8, "resource.cleared"), (9, "resource.suspect")];
    assert_eq!(story(&mended).await, ["resource.repairing", "resource.repaired", "resource.cleared"]);
    // Not fit for long.
    let long = [(100, "resource.repairing"), (605, "resource.repair-failed"), (606, "resource.gone")];
    assert_eq!(story(&long).await, ["resource.repairing", "resource.repair-failed"]);
}

#[tokio::test]
async fn a_lease_that_lives_has_no_end_of_its_story() {
    let (lease, host) = (LeaseId::new(1), ResourceId::new(9));
    let its = Subject::Resource(host);
    let handle = over(&[
        (1, "lease.queued", Subject::Lease(lease), None, None),
        (2, "lease.active", Subject::Lease(lease), Some("p"), Some(host)),
        (3, "resource.suspect", its.clone(), Some("p"), Some(host)),
        (4, "resource.cleared", its.clone(), Some("p"), Some(host)),
        (5000, "resource.suspect", its, Some("p"), Some(host)),
        (5001, "pool.brake-on", Subject::Pool("p".into()), Some("p"), None),
    ]);
    let story = tell(&in_full(handle), &Scope::All, About::Lease(lease), 3).await.unwrap();
    let kinds: Vec<String> = told(&story).into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["resource.cleared", "resource.suspect", "pool.brake-on"]);
    assert!(story.truncated);
    assert_eq!(story.entries[1].since_first, Some(prost_types::Duration { seconds: 4996, nanos: 0 }));
}
