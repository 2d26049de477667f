//! Calls of adapters that hang, and calls that are under way when the store fails.

use crate::engine::{ALL, World, pool, request, world, world_of};
use std::sync::Arc;
use std::time::Duration;
use wharfinger::engine::EffectLimits;
use wharfinger::store::Fault;
use wharfinger_core::{AdminVerb, Caller, Input, LeaseRequest, Outcome, PoolConfig, ResourceState, Selector};
use wharfinger_fake::{Call, Fake};

/// A limit for what a test waits for; it is reached only by a failure.
const LONG: Duration = Duration::from_secs(20);

async fn made(fake: &Fake, call: Call, count: usize) {
    let calls = fake.wait_for(|calls| calls.iter().filter(|made| made.call == call).count() >= count);
    if tokio::time::timeout(LONG, calls).await.is_err() {
        panic!("waited in vain for {count} calls {call:?}: {:?}", fake.calls());
    }
}

/// A pool of this name, whose resources have one slot each.
fn named(name: &str, max: u32) -> PoolConfig {
    PoolConfig { name: Arc::from(name), ..pool(max, 1) }
}

fn of(pool: &str, id: &str) -> LeaseRequest {
    let mut request = request(id);
    request.claims[0].selector = Arc::new(Selector::pool(pool));
    request
}

/// Goes once through all kinds of calls on one resource of this pool.
async fn goes_through_all(world: &World, fake: &Fake, pool: &str) {
    let lease = world.ask(of(pool, &format!("all of {pool}"))).await;
    let resource = world.active(lease).await.assignment().unwrap().resource;
    world.release(lease, Outcome::Tainted).await;
    made(fake, Call::Clean, 1).await;
    made(fake, Call::Repair, 1).await;
    world.until(resource, "READY", |state| matches!(state, ResourceState::Ready)).await;
    world.admin(AdminVerb::Recycle(resource)).await;
    world.until(resource, "GONE", |state| matches!(state, ResourceState::Gone { .. })).await;
}

#[tokio::test]
async fn a_pool_that_boots_slowly_holds_no_other_pool_up() {
    // More than any class of calls that work may have at once.
    let boots = 100;
    let slow = Fake::new("slow", ALL);
    slow.boots();
    slow.hold(Call::Provision);
    let quick = Fake::new("quick", ALL);
    let pools = vec![(named("slow", boots), slow.clone()), (named("quick", 2), quick.clone())];
    let world = world_of(pools, EffectLimits::default()).await;
    for n in 0..boots {
        world.ask(of("slow", &format!("slow {n}"))).await;
    }
    made(&slow, Call::Provision, boots as usize).await;
    goes_through_all(&world, &quick, "quick").await;
    // Nor does it hold up its own other work.
    slow.let_go(Call::Provision);
    made(&slow, Call::Prepare, boots as usize).await;
}

#[tokio::test]
async fn calls_of_any_kind_that_hang_in_one_pool_hold_no_other_pool_up() {
    let limits = EffectLimits { work: 2, provisions: 2, boots: 2, checks: 2, probes: 2 };
    for call in [Call::Provision, Call::Prepare, Call::Clean, Call::Check, Call::Repair, Call::Destroy] {
        let stuck = Fake::new("stuck", ALL);
        let quick = Fake::new("quick", ALL);
        let pools = vec![(named("stuck", 4), stuck.clone()), (named("quick", 2), quick.clone())];
        let world = world_of(pools, limits).await;
        stuck.hold(call);
        // A repair ends the clean-up under it, which is then made again.
        let outcome = if call == Call::Clean { Outcome::Ok } else { Outcome::Tainted };
        let mut leases = Vec::new();
        for n in 0..4 {
            leases.push(world.ask(of("stuck", &format!("stuck {n}"))).await);
        }
        if !matches!(call, Call::Provision | Call::Prepare) {
            for lease in leases {
                let resource = world.active(lease).await.assignment().unwrap().resource;
                world.release(lease, outcome).await;
                if call == Call::Destroy {
                    world.admin(AdminVerb::Recycle(resource)).await;
                }
            }
        }
        made(&stuck, call, 2).await;
        goes_through_all(&world, &quick, "quick").await;
        assert_eq!(stuck.count(call), 2, "{call:?}: at most as many as the pool may have");
    }
}

#[tokio::test]
async fn provisions_that_hang_hold_no_other_work_of_their_pool_up() {
    let fake = Fake::new("pool", ALL);
    let limits = EffectLimits { work: 2, provisions: 2, ..EffectLimits::default() };
    let world = world_of(vec![(pool(5, 1), fake.clone())], limits).await;
    let first = world.lease("first").await;
    world.active(first).await;
    fake.hold(Call::Provision);
    for n in 0..4 {
        world.lease(&format!("n{n}")).await;
    }
    made(&fake, Call::Provision, 3).await;
    world.release(first, Outcome::Ok).await;
    made(&fake, Call::Clean, 1).await;
    // The slot goes to one of those that wait.
    made(&fake, Call::Prepare, 2).await;
}

#[tokio::test]
async fn a_commit_that_fails_ends_no_clone() {
    for fault in [Fault::NotCommitted, Fault::InDoubtLost, Fault::InDoubtStored] {
        let world = world(pool(1, 2)).await;
        world.fake.hold(Call::Provision);
        let first = world.lease("first").await;
        made(&world.fake, Call::Provision, 1).await;
        world.store.inject(fault);
        let second = world.lease("second").await;
        world.fake.let_go(Call::Provision);
        world.active(first).await;
        world.active(second).await;
        assert_eq!(world.fake.count(Call::Provision), 1, "{fault:?}: it went on");
    }
}

#[tokio::test]
async fn an_answer_whose_commit_fails_is_taken_after_the_recovery() {
    for fault in [Fault::NotCommitted, Fault::InDoubtLost, Fault::InDoubtStored] {
        let world = world(pool(1, 1)).await;
        world.fake.hold(Call::Provision);
        let first = world.lease("first").await;
        made(&world.fake, Call::Provision, 1).await;
        world.store.inject(fault);
        world.fake.let_go(Call::Provision);
        world.active(first).await;
        assert_eq!(world.fake.count(Call::Provision), 1, "{fault:?}: its answer was kept");
        assert_eq!(world.fake.count(Call::Prepare), 1, "{fault:?}: and counted once");
    }
}

/// Cuts the store off, and lets a commit fail so that the engine knows.
async fn store_goes_away(world: &World) {
    world.store.inject(Fault::NotCommitted);
    world.store.cut(true);
    let lost = world.engine.handle.submit(Input::Lease(request("lost"))).await;
    assert!(lost.is_err(), "{lost:?}");
}

#[tokio::test]
async fn an_answer_that_comes_while_the_store_is_away_is_taken_when_it_is_back() {
    let world = world(pool(1, 1)).await;
    world.fake.hold(Call::Provision);
    let first = world.lease("first").await;
    made(&world.fake, Call::Provision, 1).await;
    store_goes_away(&world).await;
    world.fake.let_go(Call::Provision);
    // It is made, and the engine still recovers.
    while world.fake.alive().is_empty() {
        tokio::task::yield_now().await;
    }
    // An answer is in the mailbox before this, so that it is looked at first.
    let refused = world.engine.handle.submit(Input::Lease(request("refused"))).await;
    assert!(refused.is_err(), "{refused:?}");
    world.store.cut(false);
    world.active(first).await;
    assert_eq!(world.fake.count(Call::Provision), 1);
}

#[tokio::test]
async fn a_note_that_the_store_does_not_take_is_written_again_before_its_call_acts() {
    let world = world(pool(1, 1)).await;
    world.fake.hold(Call::Provision);
    world.fake.notes("launching 1");
    let first = world.lease("first").await;
    made(&world.fake, Call::Provision, 1).await;
    store_goes_away(&world).await;
    world.fake.let_go(Call::Provision);
    // Its note is refused by the engine, which is the only one who reads the mailbox.
    for n in 0..3 {
        let refused = world.engine.handle.submit(Input::Lease(request(&format!("refused {n}")))).await;
        assert!(refused.is_err(), "{refused:?}");
        assert!(world.fake.alive().is_empty(), "it acts only on what is durable");
    }
    world.store.cut(false);
    world.active(first).await;
    assert_eq!(world.fake.count(Call::Provision), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_the_recovered_core_does_not_name_is_ended_before_others_start() {
    let world = world(pool(1, 1)).await;
    world.fake.hold(Call::Prepare);
    // An aborted call ends when its task is next scheduled, or later. Whatever does not wait for that starts before it.
    world.fake.lingers(Duration::from_millis(300));
    let first = world.lease("first").await;
    made(&world.fake, Call::Prepare, 1).await;
    // The release is stored, though its commit says nothing: the recovered core wants a clean-up instead.
    world.store.inject(Fault::InDoubtStored);
    let input = Input::Release {
        lease: first,
        caller: Caller::sole_tenant("test"),
        outcome: Outcome::Ok,
        note: Arc::from(""),
        hold: None,
    };
    assert!(world.engine.handle.submit(input).await.is_err());
    made(&world.fake, Call::Clean, 1).await;
    world.fake.let_go(Call::Prepare);
    let second = world.lease("second").await;
    world.active(second).await;
    assert_eq!(world.fake.count(Call::Prepare), 2);
    assert_eq!(world.fake.overlaps(), []);
}

/// The check that a report asked for during a check is not stored: one that began before it must not clear the resource.
#[tokio::test]
async fn a_check_under_way_is_asked_anew_after_a_recovery() {
    let world = world(pool(1, 2)).await;
    let first = world.lease("first").await;
    let resource = world.active(first).await.assignment().unwrap().resource;
    world.fake.hold(Call::Check);
    world.admin(AdminVerb::Check(resource)).await;
    made(&world.fake, Call::Check, 1).await;
    world.store.inject(Fault::NotCommitted);
    world.lease("second").await;
    made(&world.fake, Call::Check, 2).await;
    world.fake.let_go(Call::Check);
    world.until(resource, "READY", |state| matches!(state, ResourceState::Ready)).await;
    assert_eq!(world.fake.count(Call::Check), 2);
}
