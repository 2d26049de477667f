//! `Lease` calls that wait for a group of which some leases are active and others went back to the queue.

use crate::engine::{ALL, World, pool, world_of};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use wharfinger::engine::EffectLimits;
use wharfinger::pb::lease_service_client::LeaseServiceClient;
use wharfinger::pb::{self};
use wharfinger::rpc::{self, AnswerSources, RpcLimits};
use wharfinger_adapter::{Failure, NoticeKind, NoticeTarget, WallTime};
use wharfinger_core::{Ended, Lease, LeaseId, LeaseState, Millis, PoolConfig, Timestamp};
use wharfinger_fake::{Call, Fake};

const TTL: Duration = Duration::from_secs(4);
const HOUR: i64 = 3_600_000;

/// A group of two, of which one lease is active and the other waits behind a check that does not end.
struct Half {
    world: World,
    /// The `Lease` call of the holder.
    call: JoinHandle<()>,
    active: LeaseId,
    /// The adapter of the waiting lease's pool.
    other: Fake,
    _stop: DropGuard,
}

impl Half {
    async fn new() -> Self {
        let named = |name: &str| PoolConfig { name: Arc::from(name), ..pool(1, 1) };
        let other = Fake::new("b", ALL);
        other.hold(Call::Check);
        other.fail_next(Call::Prepare, Failure::resource("MANGLED", "no .git"));
        let pools = vec![(named("a"), Fake::new("a", ALL)), (named("b"), other.clone())];
        let world = world_of(pools, EffectLimits::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serve = rpc::serve(
            listener,
            world.engine.handle.clone(),
            RpcLimits::default(),
            AnswerSources::default(),
            stop.clone(),
        );
        tokio::spawn(serve);
        let call = tokio::spawn(async move {
            let mut client = LeaseServiceClient::connect(address).await.unwrap();
            let answer = client.lease(request()).await.unwrap().into_inner();
            let active = pb::LeaseState::Active as i32;
            assert!(answer.leases.iter().all(|lease| lease.state == active), "{answer:?}");
        });
        let half = |leases: &[Arc<Lease>]| {
            let queued = leases.iter().any(|lease| matches!(lease.state, LeaseState::Queued) && lease.attempts > 0);
            leases.iter().find(|lease| queued && matches!(lease.state, LeaseState::Active { .. })).map(|lease| lease.id)
        };
        let found = async {
            loop {
                let read = |core: &wharfinger_core::Core, _| core.leases(None).cloned().collect::<Vec<_>>();
                if let Some(id) = half(&world.engine.handle.read(read).await.unwrap()) {
                    return id;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let active = tokio::time::timeout(Duration::from_secs(20), found).await.expect("half of the group is active");
        Self { world, call, active, other, _stop: stop.drop_guard() }
    }

    async fn expires_at(&self) -> Timestamp {
        self.world.active(self.active).await.expires_at.unwrap()
    }
}

fn request() -> pb::LeaseRequest {
    let claim = |name: &str| pb::Claim {
        selector: Some(pb::Selector { pool: name.into(), ..pb::Selector::default() }),
        ..pb::Claim::default()
    };
    pb::LeaseRequest {
        request_id: "group".into(),
        holder: "ann".into(),
        claims: vec![claim("a"), claim("b")],
        ttl: TTL.try_into().ok(),
        wait: Duration::from_secs(300).try_into().ok(),
        ..pb::LeaseRequest::default()
    }
}

fn millis(time: Duration) -> Millis {
    Millis(i64::try_from(time.as_millis()).unwrap())
}

#[tokio::test]
async fn a_waiting_call_renews_what_its_group_has_and_a_caller_that_left_does_not() {
    let half = Half::new().await;
    let first = half.expires_at().await;
    // Longer than the time to live: the lease would have ended without a renewal.
    let long = first.after(millis(TTL));
    half.world.wait(half.active, "renewed", |lease| lease.expires_at.is_some_and(|at| at > long)).await;
    half.call.abort();
    let expired = |lease: &Lease| matches!(lease.state, LeaseState::Ended { how: Ended::Expired, .. });
    half.world.wait(half.active, "EXPIRED", expired).await;
}

#[tokio::test]
async fn a_group_that_becomes_whole_is_the_answer_of_the_waiting_call() {
    let half = Half::new().await;
    half.other.let_go(Call::Check);
    let answered = tokio::time::timeout(Duration::from_secs(20), half.call).await;
    answered.expect("the call is answered").unwrap();
}

/// Each change of a lease wakes the call. Changes that come faster than the renewals must not put these off.
#[tokio::test]
async fn a_waiting_call_renews_also_while_its_leases_change_all_the_time() {
    let half = Half::new().await;
    let first = half.expires_at().await;
    let resource = half.world.active(half.active).await.assignment().unwrap().resource.to_string();
    let long = first.after(millis(TTL));
    let mut end = first.0 + HOUR;
    let renewed = async {
        while half.expires_at().await <= long {
            end -= 1000;
            let kind = NoticeKind::Interruption(WallTime(end));
            assert!(half.world.fake.notice(NoticeTarget::Resource(resource.clone()), kind, "earlier").await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.expect("it is renewed");
    half.call.abort();
}
