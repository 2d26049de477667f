//! Drydock's failures, each as it is met by the core. Those that need a real host or a real git are end to end;
//! `docs/acceptance.md` lists them all.

use crate::world::{Kind, World, copies, inventory, lease_on_copy, made_at_will, silent, want};
use wharfinger_core::{
    AdminVerb, Blame, Input, LeaseRequest, Made, Millis, NoticeKind, Outcome, PoolConfig, Reason, ResourceState,
    Traits, Work,
};

/// Copies of a host that was destroyed stayed ACTIVE, and were leased.
#[test]
fn drydock_a_host_killed_under_an_idle_copy_takes_the_copy_along() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"]), copies("copies", "hosts", 1)]);
    let lease = w.lease("copies");
    w.all_works();
    let copy = w.on(lease);
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    w.release(lease, Outcome::Ok);
    w.all_works();
    assert_eq!((w.stands(copy), w.row(lease).assignment().is_none()), ("READY", true));

    w.notice(host, NoticeKind::Gone);
    let ResourceState::Gone { cause, .. } = &w.resource(copy).state else { panic!("{}", w.stands(copy)) };
    let reasons: Vec<Reason> = cause.iter().map(|link| link.reason).collect();
    assert_eq!(reasons, [Reason::ParentGone, Reason::ResourceGone]);
    assert!([host, copy].iter().all(|id| w.last.resources.iter().any(|row| row.id == *id)), "in one commit");
    let next = w.lease("copies");
    assert_eq!(w.state(next), "QUEUED", "nobody gets what is not there");
    w.all_works();
    assert_eq!(w.state(next), "ACTIVE", "and its place in the pool is free");
    assert_ne!(w.on(next), copy);
}

#[test]
fn drydock_a_host_that_falls_silent_under_an_idle_copy_takes_the_copy_along() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.release(lease, Outcome::Ok);
    w.all_works();
    w.notice(host, NoticeKind::ConnectionLost);
    for _ in 0..6 {
        while w.waits_for(Kind::Check) > 0 {
            w.verdict(silent());
        }
        w.pass(Millis::secs(1));
    }
    assert_eq!(w.stands(copy), "GONE");
    assert!(!w.calls.iter().any(|call| call.resource.id == copy), "nobody is sent to clean up on a dead host");
}

/// A holder that crashed kept its lease for 24 hours.
#[test]
fn drydock_a_holder_that_crashes_gives_its_slot_back_by_its_ttl_and_the_copy_is_cleaned_and_checked() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.configure(vec![inventory("hosts", &["h1", "h2"]), copies("copies", "hosts", 1)]);
    let next = w.lease("copies");
    w.pass(Millis::secs(61));
    assert_eq!((w.state(lease), w.stands(copy)), ("EXPIRED", "SUSPECT"));
    assert_eq!((w.waits_for(Kind::Clean), w.waits_for(Kind::Check)), (1, 0), "what it left running is ended first");
    w.works(Kind::Clean);
    assert_eq!(w.state(next), "QUEUED", "nobody said that it is well");
    w.works(Kind::Check);
    w.works(Kind::Prepare);
    assert_eq!((w.state(next), w.on(next)), ("ACTIVE", copy));
}

/// Abort released the copy while the old process still ran in it: two writers in one tree.
#[test]
fn drydock_an_aborted_build_keeps_its_copy_until_its_processes_are_ended() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.configure(vec![inventory("hosts", &["h1", "h2"]), copies("copies", "hosts", 1)]);
    let next = w.lease("copies");
    w.release(lease, Outcome::Failed);
    let clean = w.take(Kind::Clean);
    let Work::Clean(of) = &clean.work else { panic!("{:?}", clean.work) };
    assert_eq!((of.id, clean.resource.id), (lease, copy));
    for _ in 0..10 {
        w.pass(Millis::secs(10));
        assert_eq!((w.state(lease), w.state(next)), ("RELEASED", "QUEUED"), "however long that takes");
        assert_eq!((w.waits_for(Kind::Prepare), w.waits_for(Kind::Check)), (0, 0));
    }
    w.answer(&clean, None);
    w.all_works();
    assert_eq!((w.state(next), w.on(next)), ("ACTIVE", copy));
}

/// The broker dies after the machine was made and before it wrote that down.
#[test]
fn drydock_a_crash_between_the_create_and_its_record_makes_nothing_twice() {
    let mut w = World::new(vec![made_at_will("boats", 3)]);
    let lease = w.lease("boats");
    let first = w.take(Kind::Provision);
    assert!(w.resources_of("boats").contains(&first.resource.id), "the intent is stored before the act");
    for _ in 0..3 {
        w.restart();
        assert_eq!(w.waits_for(Kind::Provision), 1);
        let again = w.take(Kind::Provision);
        assert_eq!((again.resource.id, again.op), (first.resource.id, first.op), "the adapter knows it by this number");
    }
    // The adapter finds what the first call made.
    let made = Made { handle: Some("i-1".into()), ..Made::default() };
    let (resource, op) = (first.resource.id, first.op);
    w.step(Input::Provisioned { resource, op, result: Ok(made) }).unwrap();
    assert_eq!((w.state(lease), w.on(lease), w.resources_of("boats").len()), ("ACTIVE", resource, 1));
}

/// Deleting a binding made every new lease of the blueprint break until someone released the orphan by hand.
#[test]
fn drydock_the_inventory_entry_of_a_live_host_is_deleted() {
    let hosts = |names: &[&str]| PoolConfig { slots: 2, min_ready: names.len() as u32, ..inventory("hosts", names) };
    let mut w = World::new(vec![hosts(&["h1", "h2"]), copies("copies", "hosts", 4)]);
    w.step(Input::Tick).unwrap();
    let lease = w.lease("copies");
    w.all_works();
    let copy = w.on(lease);
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    let other = if w.resource(host).item.as_deref() == Some("h1") { "h2" } else { "h1" };
    w.configure(vec![hosts(&[other]), copies("copies", "hosts", 4)]);
    assert_eq!((w.state(lease), w.stands(host), w.stands(copy)), ("ACTIVE", "DRAINING", "DRAINING"));
    let others = [w.lease("copies"), w.lease("copies")];
    w.all_works();
    assert_eq!(w.states(&others), ["ACTIVE"; 2], "the others are served: {}", w.explain(others[1]));
    w.restart();
    w.renew(lease).unwrap();
    w.release(lease, Outcome::Ok);
    w.all_works();
    assert_eq!((w.stands(copy), w.stands(host)), ("GONE", "GONE"), "no hand is needed");
}

/// The maximum of an inventory is the number of its entries, unless it is set: a machine that is no entry any more has no
/// place in it.
#[test]
fn drydock_the_machine_that_comes_for_a_deleted_one_need_not_wait_for_its_last_lease() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.ask(LeaseRequest { ttl: Some(Millis::secs(3600)), ..want("hosts") });
    w.all_works();
    w.configure(vec![inventory("hosts", &["h2"])]);
    let next = w.lease("hosts");
    w.all_works();
    assert_eq!(w.states(&[lease, next]), ["ACTIVE"; 2], "{}", w.explain(next));
}

/// A failing destroy was tried every five minutes for ever, kept its slot, and counted against the limit.
#[test]
fn drydock_a_destroy_on_an_unreachable_host_frees_the_capacity() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let lease = w.lease("copies");
    w.all_works();
    let copy = w.on(lease);
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    let direct = w.ask(LeaseRequest { ttl: Some(Millis::secs(3600)), ..want("hosts") });
    w.admin(AdminVerb::Recycle(copy)).unwrap();
    // Each try ends in silence; the host is asked, and does answer.
    for _ in 0..10 {
        if w.waits_for(Kind::Destroy) > 0 {
            w.fails(Kind::Destroy, Blame::Resource);
            assert_eq!(w.stands(host), "SUSPECT");
            w.works(Kind::Check);
        }
        w.pass(Millis::secs(61));
    }
    assert_eq!(w.stands(copy), "ORPHANED");
    assert_eq!((w.state(lease), w.stands(host)), ("BROKEN", "READY"));
    assert_eq!(w.on(direct), host, "its slot on the host serves others");
    // The debt stands, over a restart too, until it is paid.
    w.restart();
    w.release(direct, Outcome::Ok);
    w.pass(Millis::secs(700));
    w.works(Kind::Destroy);
    assert_eq!(w.stands(copy), "GONE");
}

#[test]
fn drydock_a_destroy_that_fails_because_its_host_is_dead_is_done_when_that_is_known() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.release(lease, Outcome::Ok);
    w.all_works();
    w.admin(AdminVerb::Recycle(copy)).unwrap();
    w.fails(Kind::Destroy, Blame::Resource);
    for _ in 0..6 {
        while w.waits_for(Kind::Check) > 0 {
            w.verdict(silent());
        }
        w.pass(Millis::secs(1));
    }
    assert_eq!((w.stands(host), w.stands(copy)), ("DESTROYING", "GONE"), "already gone is success");
    w.calls.clear();
    w.pass(Millis::secs(3000));
    w.restart();
    assert!(!w.calls.iter().any(|call| call.resource.id == copy), "and no debt is left");
}

#[test]
fn drydock_a_double_release_is_one_release() {
    let (mut w, lease, _, _) = lease_on_copy(1);
    w.release(lease, Outcome::Ok);
    w.release(lease, Outcome::Failed);
    assert_eq!(w.waits_for(Kind::Clean), 1);
    w.works(Kind::Clean);
    let before = w.core.revision();
    w.release(lease, Outcome::Tainted);
    assert_eq!((w.core.revision(), w.waits_for(Kind::Check)), (before, 0), "the slot is another's by now");
}

/// A release that came while a clone ran took effect minutes later, when a lock was free.
#[test]
fn drydock_a_release_during_the_clone_takes_effect_at_once() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let (impatient, next) = (w.lease("copies"), w.lease("copies"));
    w.works(Kind::Provision);
    let clone = w.take(Kind::Provision);
    w.release(impatient, Outcome::Ok);
    assert_eq!(w.state(impatient), "CANCELLED");
    // The clone goes on: another waits for what it makes, and nothing is begun twice.
    assert_eq!(w.waits_for(Kind::Provision), 0);
    w.answer(&clone, None);
    w.works(Kind::Prepare);
    assert_eq!((w.state(next), w.on(next)), ("ACTIVE", clone.resource.id));
}

/// Released while its slot is being prepared: what that began is ended before the slot is another's.
#[test]
fn drydock_a_release_during_the_checkout_is_cleaned_up_after() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let (impatient, next) = (w.lease("copies"), w.lease("copies"));
    w.works(Kind::Provision);
    w.works(Kind::Provision);
    let checkout = w.take(Kind::Prepare);
    w.release(impatient, Outcome::Ok);
    assert_eq!(w.states(&[impatient, next]), ["CANCELLED", "QUEUED"]);
    let clean = w.take(Kind::Clean);
    let before = w.core.revision();
    w.answer(&checkout, None);
    assert_eq!((w.core.revision(), w.state(next)), (before, "QUEUED"), "it makes nobody's lease active");
    w.answer(&clean, None);
    w.works(Kind::Prepare);
    assert_eq!(w.state(next), "ACTIVE");
}

/// A pool that was disabled broke all that waited for it, though only new allocations were to stop.
#[test]
fn drydock_a_pool_disabled_with_waiters_keeps_them_in_their_order() {
    let traits = Traits { prepares: true, cleans: true, repairs: false, probes: false };
    let pool = || PoolConfig { traits, ..inventory("hosts", &["h1"]) };
    let mut w = World::new(vec![pool()]);
    let holder = w.lease("hosts");
    w.all_works();
    let waiters = [w.lease("hosts"), w.lease("hosts"), w.lease("hosts")];
    w.configure(vec![PoolConfig { enabled: false, ..pool() }]);
    assert_eq!(w.state(holder), "ACTIVE", "the one that works may finish");
    w.release(holder, Outcome::Ok);
    w.all_works();
    let late = w.lease("hosts");
    w.pass(Millis::secs(90_000));
    w.restart();
    assert_eq!(w.states(&waiters), ["QUEUED"; 3]);
    w.configure(vec![pool()]);
    let mut order = Vec::new();
    for _ in 0..4 {
        w.all_works();
        let all = waiters.iter().chain([&late]);
        let now = *all.into_iter().find(|lease| w.state(**lease) == "ACTIVE").unwrap();
        order.push(now);
        w.release(now, Outcome::Ok);
    }
    assert_eq!(order, [waiters[0], waiters[1], waiters[2], late]);
}
