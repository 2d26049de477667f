//! The services over the whole broker: engine, store in memory, fake adapter, real connections.

use crate::client::{Client, ClientError, LeaseStatus, Lost, WatchStream, Watched};
use crate::pb;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::rpc::testing::{Broker, broker};
use crate::store::Fault;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;
use wharfinger_adapter::Verdict;
use wharfinger_fake::Call;

pub(crate) fn wanted(id: &str) -> pb::LeaseRequest {
    pb::LeaseRequest {
        request_id: id.into(),
        holder: id.into(),
        selector: Some(pb::Selector { pool: "p".into(), ..pb::Selector::default() }),
        ..pb::LeaseRequest::default()
    }
}

fn waiting(id: &str, wait: Duration) -> pb::LeaseRequest {
    pb::LeaseRequest { wait: wait.try_into().ok(), ..wanted(id) }
}

pub(crate) async fn active(client: &Client, id: &str) -> pb::Lease {
    let lease = client.lease(waiting(id, Duration::from_secs(30))).await.unwrap().lease.unwrap();
    assert_eq!(lease.state(), pb::LeaseState::Active);
    lease
}

async fn until_called(broker: &Broker, call: Call) {
    while broker.fake.count(call) == 0 {
        tokio::task::yield_now().await;
    }
}

/// The next lease that a watch tells.
async fn told(watch: &mut WatchStream) -> pb::Lease {
    loop {
        if let Watched::Lease(lease) = watch.next().await.unwrap() {
            return *lease;
        }
    }
}

async fn synced(watch: &mut WatchStream) -> u64 {
    loop {
        if let Watched::Synced { revision } = watch.next().await.unwrap() {
            return revision;
        }
    }
}

#[tokio::test]
async fn a_waiting_call_is_answered_when_the_lease_is_active() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    broker.fake.hold(Call::Prepare);
    let waiter = tokio::spawn({
        let client = client.clone();
        async move { active(&client, "a").await }
    });
    until_called(&broker, Call::Prepare).await;
    assert!(!waiter.is_finished());
    broker.fake.let_go(Call::Prepare);
    assert!(waiter.await.unwrap().fencing_token > 0);
}

#[tokio::test]
async fn at_the_end_of_its_wait_a_call_tells_the_present_state_and_the_lease_goes_on() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let first = active(&client, "a").await;
    let begun = Instant::now();
    let second = client.lease(waiting("b", Duration::from_millis(100))).await.unwrap().lease.unwrap();
    assert_eq!(second.state(), pb::LeaseState::Queued);
    assert!(begun.elapsed() >= Duration::from_millis(100));

    client.release(&first.id, pb::Outcome::Ok, "").await.unwrap();
    // The same request again finds the same lease.
    assert_eq!(active(&client, "b").await.id, second.id);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_cancels_nothing() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let first = active(&client, "a").await;
    let impatient = client.lease(waiting("b", Duration::from_secs(60)));
    assert!(tokio::time::timeout(Duration::from_millis(100), impatient).await.is_err());
    client.release(&first.id, pb::Outcome::Ok, "").await.unwrap();
    active(&client, "b").await;
}

#[tokio::test]
async fn a_stop_ends_a_waiting_call_with_unavailable() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    active(&client, "a").await;
    let mut raw = LeaseServiceClient::connect(format!("http://{}", broker.server.address)).await.unwrap();
    let waiter = tokio::spawn(async move { raw.lease(waiting("b", Duration::from_secs(60))).await });
    let in_line = pb::ListRequest { states: vec![pb::LeaseState::Queued.into()], ..pb::ListRequest::default() };
    while client.list(in_line.clone()).await.unwrap().leases.is_empty() {}
    // It waits for changes now, and not only in line.
    while broker.handle.hub().watchers() == 0 {
        tokio::task::yield_now().await;
    }

    broker.server.shutdown.cancel();
    let status = waiter.await.unwrap().unwrap_err();
    assert_eq!((status.code(), crate::client::reason(&status).as_deref()), (Code::Unavailable, Some("STOPPING")));
    broker.server.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_watch_tells_a_life_and_resumes_behind_any_of_it() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let mut watch = client.watch(pb::WatchRequest::default());
    synced(&mut watch).await;

    let lease = active(&client, "a").await;
    client.release(&lease.id, pb::Outcome::Ok, "done").await.unwrap();
    let mut states = Vec::new();
    while states.last() != Some(&pb::LeaseState::Released) {
        states.push(told(&mut watch).await.state());
    }
    assert!(states.contains(&pb::LeaseState::Active), "{states:?}");

    let mut late = client.watch(pb::WatchRequest { from_revision: lease.revision, ..pb::WatchRequest::default() });
    let end = told(&mut late).await;
    assert_eq!((end.id.clone(), end.state(), end.note.as_str()), (lease.id.clone(), pb::LeaseState::Released, "done"));

    // A watch that names it gets its end, though ended ones are left out otherwise.
    let mut named = client.watch(pb::WatchRequest { lease_ids: vec![lease.id], ..pb::WatchRequest::default() });
    assert_eq!(told(&mut named).await.state(), pb::LeaseState::Released);
    let mut rest = client.watch(pb::WatchRequest::default());
    assert!(matches!(rest.next().await.unwrap(), Watched::Synced { .. }));
}

#[tokio::test]
async fn a_watch_from_another_deployment_starts_again_and_an_unknown_lease_is_not_found() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let mut future = client.watch(pb::WatchRequest { from_revision: 1_000_000, ..pb::WatchRequest::default() });
    assert_eq!(future.next().await.unwrap(), Watched::Resync);
    synced(&mut future).await;

    let id = "lse_00000000000000000000000000".to_owned();
    let mut unknown = client.watch(pb::WatchRequest { lease_ids: vec![id.clone()], ..pb::WatchRequest::default() });
    let error = unknown.next().await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound(_)) && error.to_string().contains(&id), "{error}");
}

#[tokio::test]
async fn a_commit_in_doubt_reaches_every_watcher() {
    let broker = broker(1, 4).await;
    let client = broker.client().await;
    let lease = active(&client, "a").await;
    let mut watch = client.watch(pb::WatchRequest::default());
    synced(&mut watch).await;

    // The release is stored, but the broker does not know; it recovers, and the client repeats its call.
    broker.store.inject(Fault::InDoubtStored);
    client.release(&lease.id, pb::Outcome::Ok, "").await.unwrap();

    let end = told(&mut watch).await;
    assert_eq!((end.id.clone(), end.state()), (lease.id, pb::LeaseState::Released));
}

#[tokio::test]
async fn a_guard_tells_the_break_by_an_operator_with_the_reason() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let guard = client.acquire(wanted("a")).await.unwrap();
    let lease = guard.active().await.unwrap();
    assert!(matches!(*guard.status().borrow(), LeaseStatus::Active(_)));

    let mut admin = client.admin();
    let nameless = pb::BreakRequest { lease_id: lease.id.clone(), ..pb::BreakRequest::default() };
    assert_eq!(admin.r#break(nameless.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    let broken = admin.r#break(pb::BreakRequest { reason: "power cut".into(), ..nameless }).await.unwrap();
    assert_eq!(broken.into_inner().lease.unwrap().state(), pb::LeaseState::Broken);

    let lost = guard.broken().await;
    let Lost::Ended(lease) = &lost else { panic!("{lost:?}") };
    assert_eq!(lease.causes.last().unwrap().reason, "OPERATOR");
    assert!(lost.to_string().contains("power cut"), "{lost}");
}

#[tokio::test]
async fn lists_come_in_pages_without_gap_or_repetition() {
    let broker = broker(3, 700).await;
    let client = broker.client().await;
    for request in 0..30 {
        let request = pb::LeaseRequest { count: 40, ..wanted(&format!("r{request}")) };
        assert_eq!(client.lease(request).await.unwrap().leases.len(), 40);
    }
    let mut found = BTreeSet::new();
    let mut request = pb::ListRequest { page_size: 700, ..pb::ListRequest::default() };
    let mut sizes = Vec::new();
    loop {
        let page = client.list(request.clone()).await.unwrap();
        sizes.push(page.leases.len());
        found.extend(page.leases.into_iter().map(|lease| lease.id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!((sizes, found.len()), (vec![700, 500], 1200));

    // And a watch of all of them takes more than one read.
    let mut watch = client.watch(pb::WatchRequest { holders: vec!["r7".into()], ..pb::WatchRequest::default() });
    let mut seen = BTreeSet::new();
    while seen.len() < 40 {
        seen.insert(told(&mut watch).await.id);
    }

    let mut admin = client.admin();
    let one = pb::ListResourcesRequest { page_size: 1, ..pb::ListResourcesRequest::default() };
    let first = admin.list_resources(one.clone()).await.unwrap().into_inner();
    let next = pb::ListResourcesRequest { page_token: first.next_page_token, ..one };
    let second = admin.list_resources(next).await.unwrap().into_inner();
    assert!(first.resources[0].id < second.resources[0].id);
}

#[tokio::test]
async fn an_operator_acts_on_pools_and_resources_and_finds_it_in_the_history() {
    let broker = broker(1, 2).await;
    let client = broker.client().await;
    let lease = active(&client, "a").await;
    let mut admin = client.admin();
    let pool = pb::CordonRequest { pool: "p".into(), reason: "triage".into(), ..pb::CordonRequest::default() };

    let cordoned = admin.cordon(pool.clone()).await.unwrap().into_inner().pool.unwrap();
    assert_eq!(
        (cordoned.cordoned, cordoned.cordoned_by.as_str(), cordoned.cordon_reason.as_str()),
        (true, "local", "triage")
    );
    let waits = client.lease(wanted("b")).await.unwrap().lease.unwrap();
    let why = client.explain(&waits.id).await.unwrap();
    assert!(why.satisfiable && why.position == 1, "{why:?}");
    assert!(!why.summary.is_empty() && !why.blockers.is_empty() && !why.history.is_empty(), "{why:?}");
    let uncordon = pb::UncordonRequest { pool: "p".into(), ..pb::UncordonRequest::default() };
    assert!(!admin.uncordon(uncordon).await.unwrap().into_inner().pool.unwrap().cordoned);

    let resource = pb::CordonRequest { resource_id: lease.resource_id.clone(), ..pb::CordonRequest::default() };
    let told = admin.cordon(resource.clone()).await.unwrap().into_inner().resource.unwrap();
    assert!(told.cordoned && told.lease_ids.contains(&lease.id), "{told:?}");
    let unknown = pb::CordonRequest { pool: "nope".into(), ..pool };
    assert_eq!(admin.cordon(unknown).await.unwrap_err().code(), Code::NotFound);

    let ask = pb::EventsRequest { pool: "p".into(), newest_first: true, page_size: 50, ..pb::EventsRequest::default() };
    let events = admin.events(ask).await.unwrap().into_inner().events;
    assert!(events.is_sorted_by_key(|event| std::cmp::Reverse(event.revision)));
    assert!(events.iter().any(|event| event.actor == "local" && event.detail.contains("triage")), "{events:?}");

    // The same in pages of every size, in both directions.
    for newest_first in [true, false] {
        let all = pb::EventsRequest { newest_first, page_size: 1000, ..pb::EventsRequest::default() };
        let answer = admin.events(all.clone()).await.unwrap().into_inner();
        assert!(answer.events.len() > 5 && answer.next_page_token.is_empty(), "{answer:?}");
        for page_size in 1..=4 {
            let mut request = pb::EventsRequest { page_size, ..all.clone() };
            let mut told = Vec::new();
            loop {
                let page = admin.events(request.clone()).await.unwrap().into_inner();
                assert!(page.events.len() <= page_size as usize && !page.events.is_empty());
                told.extend(page.events);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            assert_eq!(told, answer.events, "in pages of {page_size}");
        }
    }
}

#[tokio::test]
async fn an_operator_sees_what_a_verb_would_end_and_is_refused_if_more_came() {
    let broker = broker(1, 2).await;
    let client = broker.client().await;
    let first = active(&client, "a").await;
    let id = first.resource_id.clone();
    let mut admin = client.admin();
    let quarantine = |validate_only, if_revision| pb::QuarantineRequest {
        resource_id: id.clone(),
        reason: if validate_only { String::new() } else { "disk".into() },
        validate_only,
        if_revision,
        ..pb::QuarantineRequest::default()
    };
    let seen = admin.quarantine(quarantine(true, 0)).await.unwrap().into_inner();
    assert_eq!(seen.resource.unwrap().state(), pb::ResourceState::Ready, "it is as it was");
    let impact = seen.impact.unwrap();
    assert_eq!((impact.broken_lease_ids, impact.broken_count), (vec![first.id.clone()], 1));
    let second = active(&client, "b").await;
    for validate_only in [true, false] {
        let refused = admin.quarantine(quarantine(validate_only, impact.revision)).await.unwrap_err();
        let error = ClientError::from(refused);
        assert_eq!(error.reason().as_deref(), Some("CHANGED_SINCE"));
        assert_eq!(error.violations()[0].field, "if_revision");
    }
    for lease in [&first, &second] {
        assert_eq!(client.get(&lease.id).await.unwrap().state(), pb::LeaseState::Active);
    }
    let lease_id = second.id.clone();
    let only = pb::BreakRequest { lease_id, validate_only: true, ..pb::BreakRequest::default() };
    let told = admin.r#break(only).await.unwrap().into_inner();
    assert_eq!(told.lease.unwrap().state(), pb::LeaseState::Active);
    assert_eq!(told.impact.unwrap().broken_lease_ids, std::slice::from_ref(&second.id));
    let whole = pb::CordonRequest { pool: "p".into(), validate_only: true, ..pb::CordonRequest::default() };
    let told = admin.cordon(whole).await.unwrap().into_inner();
    assert_eq!((told.pool.unwrap().cordoned, told.impact.unwrap().broken_count), (false, 0));
    let seen = admin.quarantine(quarantine(true, 0)).await.unwrap().into_inner().impact.unwrap();
    let done = admin.quarantine(quarantine(false, seen.revision)).await.unwrap().into_inner();
    assert_eq!((done.resource.unwrap().state(), done.impact), (pb::ResourceState::Quarantined, None));
    assert_eq!(client.get(&second.id).await.unwrap().state(), pb::LeaseState::Broken);
}

#[tokio::test]
async fn a_server_reports_its_version_its_limits_and_its_features() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let server = client.server().await.unwrap();
    assert_eq!(server.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((server.api_minor, server.max_page_size), (crate::rpc::API_MINOR, 1000));
    assert!(server.features.iter().any(|feature| feature == "FORWARDING"), "{server:?}");
    // The limits are those that requests meet.
    let longer = |span: Option<prost_types::Duration>| {
        span.map(|span| prost_types::Duration { seconds: span.seconds + 1, ..span })
    };
    let max = server.max_count;
    let requests = [
        pb::LeaseRequest { wait: longer(server.max_wait), ..wanted("a") },
        pb::LeaseRequest { ttl: longer(server.max_ttl), ..wanted("a") },
        pb::LeaseRequest { count: max + 1, ..wanted("a") },
        pb::LeaseRequest { count: -1, ..wanted("a") },
    ];
    for (request, field) in requests.into_iter().zip(["wait", "ttl", "count", "count"]) {
        let error = client.lease(request).await.unwrap_err();
        assert_eq!(error.violations()[0].field, field);
    }
}

#[tokio::test]
async fn refusals_of_the_core_come_with_their_reason_and_field() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    active(&client, "a").await;

    let error = client.lease(pb::LeaseRequest { no_queue: true, ..wanted("b") }).await.unwrap_err();
    assert!(matches!(error, ClientError::Capacity(_)) && error.retry_after().is_some(), "{error:?}");
    let error = client.lease(pb::LeaseRequest { priority: 1, ..wanted("a") }).await.unwrap_err();
    assert!(matches!(&error, ClientError::State(status) if status.code() == Code::AlreadyExists), "{error:?}");
    let nowhere = pb::Selector { pool: "nope".into(), ..pb::Selector::default() };
    let error = client.lease(pb::LeaseRequest { selector: Some(nowhere), ..wanted("c") }).await.unwrap_err();
    assert_eq!(error.reason().as_deref(), Some("UNKNOWN_POOL"));
    assert_eq!(error.violations()[0].field, "selector.pool");
    let error = client.get("lse_00000000000000000000000000").await.unwrap_err();
    assert_eq!(error.reason().as_deref(), Some("UNKNOWN_LEASE"));
}

#[tokio::test]
async fn a_report_has_the_resource_checked_and_the_lease_goes_on_unless_it_is_at_fault() {
    let broker = broker(2, 1).await;
    let client = broker.client().await;
    let guard = client.acquire(wanted("a")).await.unwrap();
    let lease = guard.active().await.unwrap();

    broker.fake.hold(Call::Check);
    let asked = guard.report("odd link errors").await.unwrap();
    assert_eq!(asked.state(), pb::LeaseState::Active);
    assert!(asked.doubt_detail().contains("odd link errors"), "{asked:?}");
    assert_eq!(asked.credentials, None);
    broker.fake.let_go(Call::Check);
    let mut status = guard.status();
    status.wait_for(|now| matches!(now, LeaseStatus::Active(lease) if lease.revision > asked.revision)).await.unwrap();

    let mangled = Verdict::Mangled { repairable: false, reason: "NO_GIT", detail: ".git is not there".into() };
    broker.fake.set_truth(&lease.resource_id, mangled);
    guard.report("no repository").await.unwrap();
    let lost = guard.broken().await;
    assert!(lost.to_string().contains(".git is not there"), "{lost}");
    // It is over, and its end is sent again.
    assert_eq!(client.report(&lease.id, "again").await.unwrap().state(), pb::LeaseState::Broken);

    let error = client.report("lse_00000000000000000000000000", "").await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound(_)), "{error:?}");
}

#[tokio::test]
async fn a_finding_is_open_in_the_answer_to_the_release_and_the_watch_tells_its_end() {
    let broker = broker(1, 1).await;
    let client = broker.client().await;
    let lease = active(&client, "a").await;
    broker.fake.hold(Call::Check);
    let released = client.release(&lease.id, pb::Outcome::Failed, "exit 1").await.unwrap().lease.unwrap();
    let fault = |lease: &pb::Lease| lease.finding.as_ref().map(pb::Finding::fault);
    assert_eq!(fault(&released), Some(pb::finding::Fault::Open), "{released:?}");
    let request = pb::WatchRequest { lease_ids: vec![lease.id.clone()], ..pb::WatchRequest::default() };
    let mut watch = client.watch(request);
    assert_eq!(fault(&told(&mut watch).await), Some(pb::finding::Fault::Open));
    synced(&mut watch).await;
    broker.fake.let_go(Call::Check);
    let mut last = told(&mut watch).await;
    while fault(&last) == Some(pb::finding::Fault::Open) {
        last = told(&mut watch).await;
    }
    assert_eq!(fault(&last), Some(pb::finding::Fault::Undecided), "{last:?}");

    // A cancelled job asks for no finding.
    let lease = active(&client, "b").await;
    let released = client.release(&lease.id, pb::Outcome::Abandoned, "").await.unwrap().lease.unwrap();
    assert_eq!(fault(&released), None);
}

#[tokio::test]
async fn a_hold_keeps_the_resource_and_breaks_nothing() {
    let broker = broker(2, 1).await;
    let client = broker.client().await;
    let lease = active(&client, "a").await;
    let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let mut admin = client.admin();
    let hold = pb::HoldRequest {
        lease_id: lease.id.clone(),
        reason: "look at this".into(),
        hold: span(3600),
        ..pb::HoldRequest::default()
    };
    let kept = admin.hold(hold.clone()).await.unwrap().into_inner().resource.unwrap();
    assert_eq!((kept.id.clone(), kept.state()), (lease.resource_id.clone(), pb::ResourceState::Ready));
    assert_eq!((kept.kept_by.as_str(), kept.kept_reason.as_str()), ("local", "look at this"));
    assert!(kept.kept_until.is_some_and(|until| until.seconds > lease.created_at.unwrap().seconds + 3500));
    assert_eq!(client.get(&lease.id).await.unwrap().state(), pb::LeaseState::Active);

    client.release(&lease.id, pb::Outcome::Ok, "").await.unwrap();
    let set_apart = pb::GetResourceRequest { resource_id: kept.id.clone(), ..pb::GetResourceRequest::default() };
    let kept = admin.get_resource(set_apart).await.unwrap().into_inner().resource.unwrap();
    assert_eq!((kept.state(), kept.kept_reason.as_str()), (pb::ResourceState::Quarantined, "look at this"));
    let other = active(&client, "b").await;
    assert_ne!(other.resource_id, kept.id);

    // It has no resource any more.
    let error = ClientError::from(admin.hold(hold).await.unwrap_err());
    assert_eq!(error.reason().as_deref(), Some("NO_RESOURCE"));
    // Longer than the pool allows: nothing is done.
    let mut release =
        pb::ReleaseRequest { lease_id: other.id.clone(), hold: span(86_401), ..pb::ReleaseRequest::default() };
    let error = client.release_with(release.clone()).await.unwrap_err();
    assert_eq!(error.violations()[0].field, "hold");
    assert_eq!(client.get(&other.id).await.unwrap().state(), pb::LeaseState::Active);
    release.hold = span(86_400);
    release.note = "the build of 17".into();
    client.release_with(release).await.unwrap();
    let request = pb::GetResourceRequest { resource_id: other.resource_id, ..pb::GetResourceRequest::default() };
    let kept = admin.get_resource(request).await.unwrap().into_inner().resource.unwrap();
    assert!(kept.kept_reason.contains("the build of 17"), "{kept:?}");
}

/// Each id has its own result, in the order of the request, and all are one commit.
#[tokio::test]
async fn several_leases_are_renewed_in_one_commit_and_each_has_its_result() {
    let broker = broker(3, 1).await;
    let client = broker.client().await;
    let [first, over, last] = [active(&client, "a").await, active(&client, "b").await, active(&client, "c").await];
    client.release(&over.id, pb::Outcome::Ok, "").await.unwrap();
    let never = "lse_00000000000000000000000077".to_owned();
    let ids = [first.id.clone(), over.id.clone(), never, last.id.clone()];
    let results = client.renew_all(&ids, Some(Duration::from_secs(50))).await.unwrap();
    let ends = |lease: &pb::Lease| lease.expires_at.unwrap();
    let renewed = |n: usize, lease: &pb::Lease| {
        let now = results[n].as_ref().unwrap();
        assert_eq!(now.id, lease.id);
        assert!(now.revision > lease.revision && ends(now).seconds < ends(lease).seconds, "{now:?} {lease:?}");
    };
    renewed(0, &first);
    renewed(3, &last);
    assert_eq!(ends(results[0].as_ref().unwrap()), ends(results[3].as_ref().unwrap()), "one step of the core");
    let reason = |n: usize| results[n].as_ref().unwrap_err().reason();
    assert_eq!((reason(1).as_deref(), reason(2).as_deref()), (Some("LEASE_ENDED"), Some("UNKNOWN_LEASE")));
    assert!(matches!(results[2], Err(ClientError::NotFound(_))), "{results:?}");

    // The limits, and what excludes each other.
    let mut api = LeaseServiceClient::connect(format!("http://{}", broker.server.address)).await.unwrap();
    let many = pb::RenewRequest { lease_ids: vec![first.id.clone(); 1001], ..Default::default() };
    let both = pb::RenewRequest {
        lease_id: first.id.clone(),
        lease_ids: vec![first.id.clone(), "x".into()],
        ..Default::default()
    };
    for (request, fields) in [(many, &["lease_ids"][..]), (both, &["lease_id", "lease_ids[1]"])] {
        let status = api.renew(request).await.unwrap_err();
        let found: Vec<String> = crate::client::violations(&status).into_iter().map(|v| v.field).collect();
        assert!(status.code() == Code::InvalidArgument && found == fields, "{status:?}");
    }
    // More than go in one call.
    let results = client.renew_all(&vec![last.id.clone(); 1001], None).await.unwrap();
    assert!(results.len() == 1001 && results.iter().all(Result::is_ok));
}
