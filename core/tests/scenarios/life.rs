//! A lease's life: time to live, renewal, expiry, a paused broker; and the clean-up of its slot.

use crate::world::{Kind, NO_OP, World, copies, inventory, lease_on_copy, want};
use wharfinger_core::{
    Blame, Caller, DoubtPolicy, Input, LeaseId, LeaseRequest, LeaseState, Millis, Outcome, PoolConfig, Reply,
};

#[test]
fn a_holder_that_vanishes_expires_and_leaves_doubt() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    let waiter = w.lease("hosts");

    w.pass(Millis::secs(59));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis::secs(2));

    assert_eq!(w.states(&[lease, waiter]), ["EXPIRED", "QUEUED"]);
    assert_eq!(w.stands(host), "SUSPECT", "it said nothing of the state it left");
    assert!(w.explain(waiter).contains("IN_DOUBT"), "{}", w.explain(waiter));
    w.works(Kind::Check);
    assert_eq!(w.state(waiter), "ACTIVE");
}

#[test]
fn doubt_after_a_lost_holder_can_be_switched_off() {
    let doubt = DoubtPolicy { after_lost: false, after_failed: false, ..DoubtPolicy::default() };
    let mut w = World::new(vec![PoolConfig { doubt, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.pass(Millis::secs(61));
    assert_eq!((w.state(lease), w.stands(host)), ("EXPIRED", "READY"));
    let lease = w.lease("hosts");
    w.release(lease, Outcome::Failed);
    assert_eq!(w.stands(host), "READY");
}

#[test]
fn a_holder_that_renews_lives_on() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    for _ in 0..10 {
        w.pass(Millis::secs(50));
        w.renew(lease).unwrap();
    }
    assert_eq!(w.state(lease), "ACTIVE");
    let long = Input::Renew { lease, caller: Caller::sole_tenant("ann"), ttl: Some(Millis::secs(86_400)) };
    assert_eq!(w.step(long).unwrap_err().reason, "TTL_TOO_LONG");
}

#[test]
fn one_that_is_refused_keeps_no_other_from_its_renewal() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2", "h3"])]);
    let leases = [w.lease("hosts"), w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    w.release(leases[1], Outcome::Ok);
    w.pass(Millis::secs(50));
    let (caller, never) = (Caller::sole_tenant("ann"), LeaseId::new(77));
    let ids = vec![leases[0], leases[1], never, leases[2]];
    let before = w.core.revision().0;
    let Ok(Reply::Each(each)) = w.step(Input::RenewAll { leases: ids, caller, ttl: None }) else { panic!() };
    let found: Vec<_> = each.iter().map(|one| one.as_ref().map(|row| row.id).map_err(|no| no.reason)).collect();
    assert_eq!(found, [Ok(leases[0]), Err("LEASE_ENDED"), Err("UNKNOWN_LEASE"), Ok(leases[2])]);
    assert_eq!(w.core.revision().0 - before, 2, "what is refused changes nothing");
    w.pass(Millis::secs(50));
    assert_eq!(w.states(&leases), ["ACTIVE", "RELEASED", "ACTIVE"]);
    w.pass(Millis::secs(11));
    assert_eq!(w.states(&leases), ["EXPIRED", "RELEASED", "EXPIRED"]);
}

#[test]
fn a_paused_broker_expires_no_lease() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();

    w.freeze(Millis::secs(3000));
    assert_eq!(w.state(lease), "ACTIVE", "nobody could renew while the broker did not listen");
    w.pass(Millis::secs(29));
    assert_eq!(w.state(lease), "ACTIVE");
    w.renew(lease).unwrap();
    w.pass(Millis::secs(10));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis::secs(61));
    assert_eq!(w.state(lease), "EXPIRED", "the grace ends");
}

#[test]
fn a_restarted_broker_expires_no_lease_before_the_grace_is_over() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    w.now = w.now.after(Millis::secs(3000));
    w.restart();
    w.pass(Millis::secs(29));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis::secs(2));
    assert_eq!(w.state(lease), "EXPIRED");
}

#[test]
fn a_clock_that_runs_backwards_is_not_believed() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let expires = w.row(lease).expires_at;
    w.now = wharfinger_core::Timestamp(0);
    w.step(Input::Tick).unwrap();
    w.restart();
    assert_eq!(w.row(lease).expires_at, expires);
    assert!(w.last.now.0 > 0);
}

#[test]
fn the_slot_of_a_copy_is_held_until_it_is_clean() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.configure(vec![inventory("hosts", &["h1", "h2"]), copies("copies", "hosts", 1)]);
    let next = w.lease("copies");

    w.release(lease, Outcome::Ok);
    assert_eq!(w.states(&[lease, next]), ["RELEASED", "QUEUED"], "no two writers");
    assert_eq!(w.on(lease), copy, "it keeps others out");
    w.works(Kind::Clean);
    assert_eq!(w.state(next), "PREPARING");
    w.works(Kind::Prepare);

    assert_eq!(w.state(next), "ACTIVE");
    assert!(w.row(lease).assignment().is_none());
}

#[test]
fn a_copy_that_cannot_be_cleaned_is_checked_cleaned_again_and_at_last_replaced() {
    let (mut w, lease, copy, _) = lease_on_copy(2);
    w.release(lease, Outcome::Ok);
    for _ in 0..2 {
        w.fails(Kind::Clean, Blame::Resource);
        assert_eq!(w.stands(copy), "SUSPECT");
        let LeaseState::Ended { cleanup: Some(cleanup), .. } = w.row(lease).state else { panic!() };
        assert_eq!(cleanup.op, NO_OP, "the slot is kept, and waits for the check");
        w.works(Kind::Check);
    }
    w.fails(Kind::Clean, Blame::Resource);
    assert_eq!(w.stands(copy), "DESTROYING");
    assert!(w.row(lease).assignment().is_none());
}

#[test]
fn a_late_answer_to_an_ended_operation_is_dropped() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.release(lease, Outcome::Failed);
    let clean = w.works(Kind::Clean);
    let check = w.works(Kind::Check);
    assert_eq!(w.stands(copy), "READY");

    let before = w.core.revision();
    w.answer(&clean, Some(crate::world::failure(Blame::Resource)));
    w.answer(&check, None);
    w.step(Input::Checked { resource: copy, op: check.op, result: Ok(crate::world::vanished()) }).unwrap();
    assert_eq!(w.core.revision(), before, "nothing changed");
}

#[test]
fn an_ended_lease_is_forgotten_after_the_retention_and_the_floor_rises() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let request = LeaseRequest { request_id: "r".into(), ..want("hosts") };
    let lease = w.ask(request.clone());
    w.all_works();
    w.release(lease, Outcome::Ok);
    let last = w.row(lease).revision;
    w.pass(Millis::secs(3601));
    assert!(w.core.lease(lease).is_none());
    assert!(w.core.floor() >= last, "a watch can't resume from before what is forgotten");
    assert_ne!(w.ask(request), lease);
}

/// A broker that was down for longer than the retention has many leases to forget, one retention after its start. It forgets
/// a part of them in each step, and serves others in between.
#[test]
fn many_that_are_too_old_are_forgotten_little_by_little() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    for _ in 0..1200 {
        let lease = w.lease("hosts");
        w.all_works();
        w.release(lease, Outcome::Ok);
    }
    w.freeze(Millis::secs(3601));
    let until = w.now.after(Millis::secs(3600));
    while w.now < until {
        assert_eq!(w.core.leases(None).count(), 1200, "a holder may still repeat its request");
        w.now = until.min(w.now.after(Millis::secs(5)));
        w.step(Input::Tick).unwrap();
    }
    assert_eq!((w.last.forgotten_leases.len(), w.core.leases(None).count()), (500, 700));
    assert!(w.core.next_deadline().is_some_and(|at| at <= w.now), "there is more to do at once");
    let lease = w.lease("hosts");
    assert_eq!(w.core.leases(None).count(), 201, "who asks meanwhile is served");
    assert_eq!(w.state(lease), "ACTIVE");
    w.step(Input::Tick).unwrap();
    assert_eq!(w.core.leases(None).count(), 1);
    assert!(w.core.next_deadline().is_none_or(|at| at > w.now));
}
