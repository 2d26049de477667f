//! Holds: what a failed build left is kept to be looked at, and goes back to service by itself.

use crate::world::{Kind, World, copies, inventory, lease_on_copy, want};
use std::sync::Arc;
use wharfinger_core::{AdminVerb, Caller, Input, LeaseId, Millis, NoticeKind, Outcome, PoolConfig, ResourceState};

fn release_and_hold(w: &mut World, lease: LeaseId, span: Millis) -> Result<(), &'static str> {
    let input = Input::Release {
        lease,
        caller: Caller::sole_tenant("ann"),
        outcome: Outcome::Failed,
        note: Arc::from("exit 1"),
        hold: Some(span),
    };
    w.step(input).map(|_| ()).map_err(|rejection| rejection.reason)
}

#[test]
fn a_failed_build_may_keep_its_copy_for_a_while() {
    let (mut w, lease, copy, host) = lease_on_copy(2);
    release_and_hold(&mut w, lease, Millis::secs(600)).unwrap();
    assert_eq!(w.stands(copy), "QUARANTINED");
    assert_eq!(w.waits_for(Kind::Clean) + w.waits_for(Kind::Check), 0, "it is kept as it was left");
    let next = w.lease("copies");
    w.all_works();
    assert_ne!(w.on(next), copy, "nobody else gets it");
    w.pass(Millis::secs(599));
    w.all_works();
    assert_eq!(w.stands(copy), "QUARANTINED");
    assert_eq!(w.stands(host), "READY");
    w.pass(Millis::secs(2));
    assert_eq!(w.stands(copy), "SUSPECT", "back by way of a check");
    w.all_works();
    assert_eq!(w.stands(copy), "READY");
    assert_eq!(w.calls.len(), 0);
    let last = w.row(lease);
    assert!(last.assignment().is_none(), "and cleaned");
}

#[test]
fn a_holder_cannot_hold_for_longer_than_the_pool_allows() {
    let mut w = World::new(vec![PoolConfig { max_hold: Millis::secs(60), ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.all_works();
    assert_eq!(release_and_hold(&mut w, lease, Millis::secs(61)), Err("HOLD_TOO_LONG"));
    assert_eq!(w.state(lease), "ACTIVE", "a refused release changes nothing");
    assert_eq!(release_and_hold(&mut w, lease, Millis::secs(60)), Ok(()));
}

#[test]
fn an_operators_hold_breaks_no_lease() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let (a, b) = (w.lease("hosts"), w.lease("hosts"));
    w.all_works();
    let host = w.on(a);
    w.admin(AdminVerb::HoldLease(a, Millis::secs(3600))).unwrap();
    assert_eq!(w.states(&[a, b]), ["ACTIVE", "ACTIVE"]);
    let waiter = w.lease("hosts");
    w.release(a, Outcome::Ok);
    assert_eq!(w.stands(host), "READY", "the other one works on");
    assert_eq!(w.state(waiter), "QUEUED", "no new lease meanwhile");
    w.release(b, Outcome::Ok);
    assert_eq!(w.stands(host), "QUARANTINED");
    assert_eq!(w.state(waiter), "QUEUED");
    w.admin(AdminVerb::Recover(host)).unwrap();
    w.all_works();
    assert_eq!(w.state(waiter), "ACTIVE");
}

#[test]
fn a_hold_that_ends_before_the_lease_does_changes_nothing_for_it() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.ask(wharfinger_core::LeaseRequest { ttl: Some(Millis::secs(3000)), ..want("hosts") });
    w.all_works();
    let host = w.on(lease);
    w.admin(AdminVerb::Hold(host, Millis::secs(10))).unwrap();
    w.pass(Millis::secs(11));
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
    assert_eq!(w.resource(host).hold, None);
    w.release(lease, Outcome::Ok);
    assert_eq!(w.stands(host), "READY");
}

#[test]
fn the_host_of_a_kept_copy_is_kept_too_but_not_against_the_world() {
    let mut w = World::new(vec![
        PoolConfig { slots: 2, max_age: Some(Millis::secs(60)), ..inventory("hosts", &["h1"]) },
        copies("copies", "hosts", 2),
    ]);
    let lease = w.lease("copies");
    w.all_works();
    let copy = w.on(lease);
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    release_and_hold(&mut w, lease, Millis::secs(600)).unwrap();
    w.pass(Millis::secs(120));
    w.all_works();
    assert_eq!(w.stands(host), "DRAINING", "it is too old, and waits for what is kept on it");
    assert_eq!(w.stands(copy), "QUARANTINED");
    w.notice(host, NoticeKind::Gone);
    assert_eq!((w.stands(host), w.stands(copy)), ("DESTROYING", "GONE"));
}

#[test]
fn a_hold_is_valid_in_every_state_and_restarts() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.admin(AdminVerb::Hold(copy, Millis::secs(600))).unwrap();
    w.restart();
    w.all_works();
    w.release(lease, Outcome::Failed);
    assert_eq!(w.stands(copy), "QUARANTINED");
    w.restart();
    w.all_works();
    assert!(matches!(w.resource(copy).state, ResourceState::Quarantined { until: Some(_), .. }));
    // Longer, while it is kept.
    w.admin(AdminVerb::Hold(copy, Millis::secs(7200))).unwrap();
    w.pass(Millis::secs(700));
    assert_eq!(w.stands(copy), "QUARANTINED");
    w.admin(AdminVerb::Recycle(copy)).unwrap();
    w.all_works();
    assert_eq!(w.stands(copy), "GONE");
    assert_eq!(w.admin(AdminVerb::Hold(copy, Millis::secs(10))).unwrap_err().reason, "RESOURCE_GONE");
    let next = w.lease("copies");
    w.all_works();
    let copy = w.on(next);
    assert_eq!(w.admin(AdminVerb::Hold(copy, Millis::ZERO)).unwrap_err().reason, "HOLD_NOT_POSITIVE");
}
