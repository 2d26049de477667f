use super::*;
use crate::testing::{Broker, bookmark, lease, told};
use tonic::Status;

fn renewed(lease: pb::Lease) -> Result<pb::RenewResponse, Status> {
    Ok(pb::RenewResponse { lease: Some(lease), results: Vec::new() })
}

fn active(revision: u64) -> pb::Lease {
    lease(revision, pb::LeaseState::Active)
}

fn leased(lease: pb::Lease) -> Result<pb::LeaseResponse, Status> {
    Ok(pb::LeaseResponse { lease: Some(lease.clone()), leases: vec![lease] })
}

/// A guard over an active lease that is renewed for ever.
async fn held() -> (Broker, LeaseGuard) {
    let broker = Broker::start().await;
    broker.script.renew.lock().unwrap().push_back(renewed(active(1)));
    let guard = broker.client().await.keep(active(1));
    (broker, guard)
}

fn doubt(detail: &str) -> Option<pb::Doubt> {
    Some(pb::Doubt { detail: detail.into() })
}

async fn until(guard: &LeaseGuard, wanted: impl FnMut(&LeaseStatus) -> bool) -> LeaseStatus {
    guard.status().wait_for(wanted).await.unwrap().clone()
}

#[tokio::test]
async fn a_guard_renews_in_the_background_and_releases_with_the_outcome() {
    let (broker, guard) = held().await;
    assert_eq!(guard.active().await.unwrap().revision, 1);
    while *broker.script.renewals.lock().unwrap() < 3 {
        tokio::task::yield_now().await;
    }
    let lease = guard.release(pb::Outcome::Failed, "exit 1").await.unwrap();
    assert_eq!(lease.state(), pb::LeaseState::Released);
    let releases = broker.script.releases.lock().unwrap().clone();
    let [release] = &releases[..] else { panic!() };
    assert_eq!((release.outcome(), release.note.as_str()), (pb::Outcome::Failed, "exit 1"));
}

#[tokio::test]
async fn a_guard_reports_doubt_the_announced_end_and_the_break_with_its_causes() {
    let (mut broker, guard) = held().await;
    let (asked, tell) = broker.watches.recv().await.unwrap();
    assert_eq!(asked.lease_ids, [guard.id()]);

    tell.send(told(pb::Lease { doubt: doubt("a probe got no answer"), ..active(2) })).await.unwrap();
    let doubted = until(&guard, |status| matches!(status, LeaseStatus::Doubt(_))).await;
    assert!(matches!(doubted, LeaseStatus::Doubt(lease) if lease.doubt_detail() == "a probe got no answer"));

    let ends_at = Some(prost_types::Timestamp { seconds: 100, nanos: 0 });
    tell.send(told(pb::Lease { ends_at, ..active(3) })).await.unwrap();
    let end = until(&guard, |status| matches!(status, LeaseStatus::EndsAt(..))).await;
    assert!(matches!(end, LeaseStatus::EndsAt(_, at) if at == SystemTime::UNIX_EPOCH + Duration::from_secs(100)));

    let cause =
        |reason: &str, detail: &str| pb::Cause { reason: reason.into(), detail: detail.into(), ..Default::default() };
    let causes = vec![cause("PARENT_GONE", "its host is gone"), cause("RESOURCE_GONE", "terminated")];
    tell.send(told(pb::Lease { causes, ..lease(4, pb::LeaseState::Broken) })).await.unwrap();
    let lost = guard.broken().await;
    assert!(matches!(&lost, Lost::Ended(lease) if lease.state() == pb::LeaseState::Broken));
    assert_eq!(
        lost.to_string(),
        format!("lease {} is BROKEN: PARENT_GONE (its host is gone), because of RESOURCE_GONE: terminated", guard.id())
    );
}

#[tokio::test]
async fn an_older_answer_to_a_renewal_does_not_undo_an_event_of_the_watch() {
    let (mut broker, guard) = held().await;
    let (_, tell) = broker.watches.recv().await.unwrap();
    tell.send(told(pb::Lease { doubt: doubt("why"), ..active(9) })).await.unwrap();
    until(&guard, |status| matches!(status, LeaseStatus::Doubt(_))).await;
    let before = *broker.script.renewals.lock().unwrap();
    while *broker.script.renewals.lock().unwrap() < before + 2 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(*guard.status().borrow(), LeaseStatus::Doubt(_)));
}

#[tokio::test]
async fn without_contact_for_a_whole_ttl_it_is_lost() {
    let (broker, guard) = held().await;
    guard.active().await.unwrap();
    *broker.script.renew.lock().unwrap() = [Err(Status::unavailable("recovering"))].into();
    assert!(matches!(guard.broken().await, Lost::NoContact(_)));
    assert!(*broker.script.renewals.lock().unwrap() > 1, "it tried more than once");
}

#[tokio::test]
async fn a_renewal_that_finds_the_lease_ended_tells_how() {
    let (broker, guard) = held().await;
    *broker.script.renew.lock().unwrap() = [Err(Status::failed_precondition("it has ended"))].into();
    let expired = pb::GetResponse { lease: Some(lease(5, pb::LeaseState::Expired)), revision: 0 };
    broker.script.get.lock().unwrap().push_back(Ok(expired));
    assert!(matches!(guard.broken().await, Lost::Ended(lease) if lease.state() == pb::LeaseState::Expired));
}

#[tokio::test]
async fn a_lease_that_the_broker_forgot_is_lost() {
    let (mut broker, guard) = held().await;
    let (_, tell) = broker.watches.recv().await.unwrap();
    *broker.script.renew.lock().unwrap() = [Err(not_found())].into();
    tell.send(Err(not_found())).await.unwrap();
    assert!(matches!(guard.broken().await, Lost::Forgotten(_)));
}

#[tokio::test]
async fn a_guard_waits_in_the_queue_and_renews_only_an_active_lease() {
    let mut broker = Broker::start().await;
    broker.script.renew.lock().unwrap().push_back(renewed(active(3)));
    broker.script.lease.lock().unwrap().push_back(leased(lease(1, pb::LeaseState::Queued)));
    let guard = broker.client().await.acquire(pb::LeaseRequest::default()).await.unwrap();
    let (_, tell) = broker.watches.recv().await.unwrap();
    tell.send(bookmark(1, true)).await.unwrap();
    tell.send(told(lease(2, pb::LeaseState::Preparing))).await.unwrap();
    until(&guard, |status| matches!(status, LeaseStatus::Waiting(lease) if lease.revision == 2)).await;
    assert_eq!(*broker.script.renewals.lock().unwrap(), 0);
    tell.send(told(active(3))).await.unwrap();
    assert_eq!(guard.active().await.unwrap().revision, 3);

    let failed = pb::Lease { fail_detail: "no branch x".into(), ..lease(4, pb::LeaseState::Failed) };
    tell.send(told(failed)).await.unwrap();
    assert!(guard.broken().await.to_string().ends_with("is FAILED: no branch x"));
    assert!(guard.active().await.is_err());
}

#[tokio::test]
async fn an_unavailable_broker_is_asked_again_with_the_same_request_id() {
    let broker = Broker::start().await;
    let unavailable = || Err(Status::unavailable("recovering"));
    *broker.script.lease.lock().unwrap() = [unavailable(), unavailable(), leased(active(1))].into();
    let request = pb::LeaseRequest { holder: "me".into(), ..pb::LeaseRequest::default() };
    assert_eq!(broker.client().await.lease(request).await.unwrap().leases.len(), 1);
    let asked = broker.script.leases_asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3);
    assert!(!asked[0].request_id.is_empty() && asked.iter().all(|request| *request == asked[0]));
}

/// Says when it is dropped.
struct Work(Arc<std::sync::atomic::AtomicBool>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }
}

#[tokio::test]
async fn work_is_dropped_when_its_lease_breaks_and_not_before() {
    let (mut broker, guard) = held().await;
    let (_, tell) = broker.watches.recv().await.unwrap();
    assert_eq!(guard.run(async { 7 }).await.unwrap(), 7);

    let dropped = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let work = Work(dropped.clone());
    let begun = tokio::sync::Notify::new();
    let running = guard.run(async {
        let _work = work;
        begun.notify_one();
        std::future::pending::<()>().await;
    });
    let breaking = async {
        begun.notified().await;
        assert!(!dropped.load(std::sync::atomic::Ordering::Acquire), "the lease is held");
        tell.send(told(lease(4, pb::LeaseState::Broken))).await.unwrap();
    };
    let (ended, ()) = tokio::join!(running, breaking);
    assert!(matches!(ended, Err(Lost::Ended(_))), "{ended:?}");
    assert!(dropped.load(std::sync::atomic::Ordering::Acquire));

    // Work that comes too late does not begin.
    let late = guard.run(async { panic!("begun") }).await;
    assert!(matches!(late, Err(Lost::Ended(_))));
}

#[tokio::test]
async fn a_dropped_guard_releases_nothing_and_stops_to_renew() {
    let (mut broker, guard) = held().await;
    let (_, tell) = broker.watches.recv().await.unwrap();
    drop(guard);
    tell.closed().await;
    assert_eq!(broker.script.releases.lock().unwrap().len(), 0);
}

/// States of a later version: the times decide.
#[tokio::test]
async fn states_that_are_unknown_are_survived() {
    const UNKNOWN: i32 = 99;
    let (mut broker, guard) = held().await;
    let (_, tell) = broker.watches.recv().await.unwrap();
    tell.send(told(pb::Lease { state: UNKNOWN, ..active(2) })).await.unwrap();
    let active = until(&guard, |status| matches!(status, LeaseStatus::Active(lease) if lease.revision == 2)).await;
    assert!(matches!(active, LeaseStatus::Active(lease) if lease.state == UNKNOWN));
    let before = *broker.script.renewals.lock().unwrap();
    while *broker.script.renewals.lock().unwrap() < before + 2 {
        tokio::task::yield_now().await;
    }
    tell.send(told(pb::Lease { state: UNKNOWN, ..lease(3, pb::LeaseState::Broken) })).await.unwrap();
    assert!(matches!(guard.broken().await, Lost::Ended(lease) if lease.revision == 3), "it is not waited for");

    let waiting = pb::Lease { state: UNKNOWN, ..lease(1, pb::LeaseState::Queued) };
    let guard = broker.client().await.keep(waiting);
    let (_, tell) = broker.watches.recv().await.unwrap();
    assert!(matches!(*guard.status().borrow(), LeaseStatus::Waiting(_)));
    tell.send(told(pb::Lease { state: UNKNOWN, ..self::active(2) })).await.unwrap();
    assert_eq!(guard.active().await.unwrap().revision, 2);
}

fn not_found() -> Status {
    Status::not_found("no lease")
}

fn who(principal: &str) -> Result<pb::WhoAmIResponse, Status> {
    Ok(pb::WhoAmIResponse { principal: principal.into(), ..pb::WhoAmIResponse::default() })
}

/// A guard over a lease of `token:ci` that the broker does not find.
async fn unseen(answers: Vec<Result<pb::RenewResponse, Status>>) -> (Broker, LeaseGuard) {
    let broker = Broker::start().await;
    broker.script.renew.lock().unwrap().extend(answers);
    let guard = broker.client().await.keep(of_ci(1));
    (broker, guard)
}

fn of_ci(revision: u64) -> pb::Lease {
    pb::Lease { principal: "token:ci".into(), ..active(revision) }
}

#[tokio::test]
async fn a_lease_that_another_caller_does_not_see_is_kept_until_its_ttl_is_over() {
    let (mut broker, guard) = unseen(vec![Err(not_found())]).await;
    broker.script.who.lock().unwrap().push_back(who("token:other"));
    let (_, tell) = broker.watches.recv().await.unwrap();
    let begun = Instant::now();
    tell.send(Err(not_found())).await.unwrap();
    let lost = guard.broken().await;
    assert!(matches!(lost, Lost::NoContact(_)), "{lost:?}");
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    assert!(*broker.script.renewals.lock().unwrap() > 1, "it goes on trying");
}

#[tokio::test]
async fn with_the_right_credentials_again_it_renews_and_watches_as_before() {
    let (mut broker, guard) = unseen(vec![Err(not_found()), renewed(of_ci(2))]).await;
    broker.script.who.lock().unwrap().push_back(who("token:other"));
    let (_, tell) = broker.watches.recv().await.unwrap();
    tell.send(Err(not_found())).await.unwrap();
    let (asked, tell) = broker.watches.recv().await.unwrap();
    assert_eq!(asked.lease_ids, [guard.id()]);
    tell.send(told(pb::Lease { doubt: doubt("why"), ..of_ci(9) })).await.unwrap();
    until(&guard, |status| matches!(status, LeaseStatus::Doubt(_))).await;
}

#[tokio::test]
async fn a_lease_that_its_own_principal_does_not_see_is_forgotten() {
    for answer in [who("token:ci"), Err(Status::unimplemented("an older broker"))] {
        let (_broker, guard) = unseen(vec![Err(not_found())]).await;
        _broker.script.who.lock().unwrap().push_back(answer);
        let lost = guard.broken().await;
        assert!(matches!(lost, Lost::Forgotten(_)), "{lost:?}");
    }
}
