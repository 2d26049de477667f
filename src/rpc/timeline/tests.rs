//! Stories over the whole broker: in order, with all that belongs to them and nothing else.

use crate::client::{Client, ClientError};
use crate::pb;
use crate::rpc::testing::broker;
use crate::rpc::tests::{active, wanted};
use pb::TimelineRole::{Lease, Resource, Successor};
use tonic::Code;
use wharfinger_adapter::Verdict;

async fn story(client: &Client, id: &str, limit: u32) -> pb::TimelineResponse {
    let (mut lease_id, mut resource_id) = (String::new(), id.to_owned());
    if id.starts_with("lse_") {
        std::mem::swap(&mut lease_id, &mut resource_id);
    }
    client.timeline(pb::TimelineRequest { lease_id, resource_id, limit }).await.unwrap()
}

fn told(story: &pb::TimelineResponse) -> Vec<(pb::TimelineRole, String)> {
    story.entries.iter().map(|entry| (entry.role(), entry.event.clone().unwrap().kind)).collect()
}

/// Waits until a resource is in one of these states.
async fn until(client: &Client, id: &str, states: &[pb::ResourceState]) {
    let mut admin = client.admin();
    loop {
        let request = pb::GetResourceRequest { resource_id: id.into() };
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
    // What comes later is neither's.
    let target = pb::TargetRequest { resource_id: good.resource_id.clone(), ..pb::TargetRequest::default() };
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
async fn what_nobody_knows_has_no_story() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    for (lease, resource) in [("lse_00000000000000000000000000", ""), ("", "res_00000000000000000000000000")] {
        let request = pb::TimelineRequest { lease_id: lease.into(), resource_id: resource.into(), limit: 0 };
        let error = client.timeline(request).await.unwrap_err();
        assert!(matches!(&error, ClientError::NotFound(status) if status.code() == Code::NotFound), "{error:?}");
    }
}
