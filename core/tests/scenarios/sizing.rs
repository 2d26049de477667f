//! How many there are: by demand, by minimum, by age, use and idleness.

use crate::world::{Kind, World, copies, inventory, made_at_will};
use wharfinger_core::{Input, Millis, Outcome, PoolConfig};

#[test]
fn five_waiters_on_five_slots_start_one_resource() {
    let mut w = World::new(vec![PoolConfig { slots: 5, ..made_at_will("boats", 9) }]);
    let leases: Vec<_> = (0..5).map(|_| w.lease("boats")).collect();
    assert_eq!(w.waits_for(Kind::Provision), 1, "not five");
    w.restart();
    assert_eq!(w.waits_for(Kind::Provision), 1, "after a restart neither");
    w.works(Kind::Provision);
    assert_eq!(w.states(&leases), ["ACTIVE"; 5]);
    w.lease("boats");
    assert_eq!(w.waits_for(Kind::Provision), 1);
}

#[test]
fn the_minimum_is_kept_ready_without_waiters() {
    let mut w = World::new(vec![PoolConfig { min_ready: 2, ..made_at_will("boats", 5) }]);
    w.step(Input::Tick).unwrap();
    assert_eq!(w.waits_for(Kind::Provision), 2);
    w.all_works();
    let lease = w.lease("boats");
    assert_eq!(w.state(lease), "ACTIVE");
    assert_eq!(w.waits_for(Kind::Provision), 1, "one more in the stead of the one that was taken");
}

#[test]
fn idle_ones_above_the_minimum_go() {
    let config = PoolConfig { min_ready: 1, idle: Some(Millis::secs(300)), ..made_at_will("boats", 3) };
    let mut w = World::new(vec![config]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let leases: Vec<_> = (0..3).map(|_| w.lease("boats")).collect();
    w.all_works();
    for lease in &leases {
        w.release(*lease, Outcome::Ok);
    }
    w.pass(Millis::secs(299));
    assert_eq!(w.resources_of("boats").len(), 3);
    w.pass(Millis::secs(2));
    w.all_works();
    assert_eq!(w.resources_of("boats").len(), 1);
    w.pass(Millis::secs(2000));
    assert_eq!(w.resources_of("boats").len(), 1);
}

#[test]
fn an_idle_time_of_zero_does_not_hang_the_broker() {
    let config = PoolConfig { min_ready: 1, idle: Some(Millis(0)), ..made_at_will("boats", 3) };
    let mut w = World::new(vec![config]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    w.pass(Millis::secs(2));
    assert_eq!(w.resources_of("boats").len(), 1);
}

#[test]
fn a_resource_that_is_too_old_is_replaced_when_its_lease_has_ended() {
    let mut w = World::new(vec![PoolConfig { max_age: Some(Millis::secs(50)), ..made_at_will("boats", 1) }]);
    let lease = w.lease("boats");
    w.all_works();
    let boat = w.on(lease);
    w.pass(Millis::secs(51));
    assert_eq!((w.stands(boat), w.state(lease)), ("DRAINING", "ACTIVE"));
    let next = w.lease("boats");
    w.release(lease, Outcome::Ok);
    w.all_works();
    assert_eq!(w.state(next), "ACTIVE");
    assert_ne!(w.on(next), boat);
}

#[test]
fn a_resource_that_was_used_often_enough_is_replaced_over_a_restart_too() {
    let mut w = World::new(vec![PoolConfig { max_uses: Some(2), ..made_at_will("boats", 1) }]);
    let first = w.lease("boats");
    w.all_works();
    let boat = w.on(first);
    w.release(first, Outcome::Ok);
    w.restart();
    let second = w.lease("boats");
    assert_eq!(w.on(second), boat);
    w.restart();
    w.release(second, Outcome::Ok);
    assert_eq!(w.stands(boat), "DESTROYING");
}

#[test]
fn an_idle_copy_gives_its_hosts_slot_to_who_waits_for_it() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("red", "hosts", 1), copies("blue", "hosts", 1)]);
    let red = w.lease("red");
    w.all_works();
    w.release(red, Outcome::Ok);
    w.all_works();
    let blue = w.lease("blue");
    assert_eq!(w.calls.len(), 0, "it was just used: it is kept for a moment");
    w.pass(Millis::secs(6));
    w.all_works();
    assert_eq!(w.state(blue), "ACTIVE", "{}", w.explain(blue));
}

#[test]
fn a_host_carries_no_more_copies_of_a_pool_than_it_may() {
    let config = PoolConfig { max_per_parent: Some(1), ..copies("red", "hosts", 4) };
    let mut w = World::new(vec![
        PoolConfig { slots: 4, ..inventory("hosts", &["h1", "h2"]) },
        config,
        copies("blue", "hosts", 4),
    ]);
    let red: Vec<_> = (0..3).map(|_| w.lease("red")).collect();
    w.all_works();
    assert_eq!(w.states(&red), ["ACTIVE", "ACTIVE", "QUEUED"]);
    let blue = w.lease("blue");
    let direct = w.lease("hosts");
    w.all_works();
    assert_eq!(w.states(&[blue, direct]), ["ACTIVE"; 2], "others are not held up by it: {}", w.explain(blue));
}

#[test]
fn machines_share_the_load_and_made_ones_are_filled_up() {
    let mut w = World::new(vec![
        PoolConfig { slots: 2, min_ready: 2, ..inventory("hosts", &["h1", "h2"]) },
        PoolConfig { slots: 2, min_ready: 2, ..made_at_will("boats", 2) },
    ]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let (a, b) = (w.lease("hosts"), w.lease("hosts"));
    assert_ne!(w.on(a), w.on(b));
    let (a, b) = (w.lease("boats"), w.lease("boats"));
    assert_eq!(w.on(a), w.on(b), "so that the rest falls idle");
}
