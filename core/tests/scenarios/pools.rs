//! The configuration changes under those who wait and those who work.

use crate::world::{Kind, World, copies, inventory, lease_on_copy, made_at_will};
use wharfinger_core::{Input, Millis, Outcome, PoolConfig};

fn disabled(mut pool: PoolConfig, item: &str) -> PoolConfig {
    for entry in pool.inventory.iter_mut().flatten().filter(|entry| &*entry.name == item) {
        entry.enabled = false;
    }
    pool
}

#[test]
fn a_disabled_machine_drains_under_a_long_lease_and_gets_no_other() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.configure(vec![disabled(inventory("hosts", &["h1", "h2"]), "h1")]);
    assert_eq!((w.stands(host), w.state(lease)), ("DRAINING", "ACTIVE"));
    let (second, third) = (w.lease("hosts"), w.lease("hosts"));
    w.all_works();
    assert_eq!(w.states(&[second, third]), ["ACTIVE", "QUEUED"]);
    w.release(lease, Outcome::Ok);
    w.all_works();
    assert_eq!((w.stands(host), w.state(third)), ("GONE", "QUEUED"));
    w.configure(vec![inventory("hosts", &["h1", "h2"])]);
    w.all_works();
    assert_eq!(w.state(third), "ACTIVE");
}

#[test]
fn waiters_of_a_disabled_pool_wait_with_a_blocker() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let waiter = w.lease("hosts");
    w.configure(vec![PoolConfig { enabled: false, ..inventory("hosts", &["h1"]) }]);
    w.all_works();
    w.pass(Millis::secs(4000));
    assert_eq!(w.state(waiter), "QUEUED");
    assert!(w.explain(waiter).contains("DISABLED"), "{}", w.explain(waiter));
    w.configure(vec![inventory("hosts", &["h1"])]);
    w.all_works();
    assert_eq!(w.state(waiter), "ACTIVE");
}

#[test]
fn waiters_of_a_removed_pool_wait_over_restarts_until_it_comes_back() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), made_at_will("boats", 1)]);
    let (holder, waiter) = (w.lease("hosts"), w.lease("hosts"));
    w.all_works();
    let host = w.on(holder);
    w.configure(vec![made_at_will("boats", 1)]);
    assert_eq!((w.stands(host), w.state(holder)), ("DRAINING", "ACTIVE"));
    assert!(w.explain(waiter).contains("REMOVED"), "{}", w.explain(waiter));
    w.restart();
    w.release(holder, Outcome::Ok);
    w.all_works();
    w.pass(Millis::secs(100));
    w.restart();
    assert_eq!(w.state(waiter), "QUEUED");
    assert!(w.explain(waiter).contains("can never meet"), "{}", w.explain(waiter));
    w.configure(vec![inventory("hosts", &["h1"])]);
    w.all_works();
    assert_eq!(w.state(waiter), "ACTIVE");
}

#[test]
fn a_removed_pool_of_copies_lets_go_of_its_hosts() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    // This one waits for a host in vain.
    let config = || PoolConfig { slots: 1, ..inventory("hosts", &["h1"]) };
    let _second = w.lease("copies");
    w.configure(vec![config()]);
    assert_eq!((w.stands(copy), w.state(lease)), ("DRAINING", "ACTIVE"));
    w.release(lease, Outcome::Ok);
    w.all_works();
    assert!(w.resources_of("copies").is_empty());
    let direct = w.lease("hosts");
    w.all_works();
    assert_eq!(w.state(direct), "ACTIVE", "{}", w.explain(direct));
    assert_eq!(w.on(direct), host);
}

#[test]
fn copies_that_wait_for_a_host_go_with_their_pool() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let holder = w.lease("hosts");
    w.all_works();
    let waiter = w.lease("copies");
    w.configure(vec![inventory("hosts", &["h1"])]);
    assert!(w.resources_of("copies").is_empty(), "nothing of it was begun");
    w.release(holder, Outcome::Ok);
    w.configure(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    w.all_works();
    assert_eq!(w.state(waiter), "ACTIVE");
}

#[test]
fn more_and_fewer_slots_are_followed_without_breaking_anything() {
    let mut w = World::new(vec![PoolConfig { slots: 3, ..inventory("hosts", &["h1"]) }]);
    let leases = [w.lease("hosts"), w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    w.configure(vec![inventory("hosts", &["h1"])]);
    assert_eq!(w.states(&leases), ["ACTIVE"; 3]);
    let waiter = w.lease("hosts");
    w.release(leases[0], Outcome::Ok);
    w.release(leases[1], Outcome::Ok);
    assert_eq!(w.state(waiter), "QUEUED");
    w.release(leases[2], Outcome::Ok);
    assert_eq!(w.state(waiter), "ACTIVE");
    w.configure(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let second = w.lease("hosts");
    assert_eq!(w.state(second), "ACTIVE");
}

#[test]
fn a_larger_maximum_serves_those_who_wait() {
    let mut w = World::new(vec![made_at_will("boats", 1)]);
    let leases = [w.lease("boats"), w.lease("boats")];
    w.all_works();
    assert_eq!(w.states(&leases), ["ACTIVE", "QUEUED"]);
    w.configure(vec![made_at_will("boats", 2)]);
    w.all_works();
    assert_eq!(w.states(&leases), ["ACTIVE"; 2]);
}

#[test]
fn a_reload_with_nothing_new_changes_nothing() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let before = w.core.revision();
    w.configure(vec![inventory("hosts", &["h1"])]);
    assert_eq!((w.core.revision(), w.state(lease)), (before, "ACTIVE"));
    w.step(Input::Tick).unwrap();
    assert_eq!(w.waits_for(Kind::Provision), 0);
}
