//! Counts and ages for meters. That the counts equal what the pools show is checked in every step of every scenario.

use crate::world::{World, inventory, made_at_will, want};
use std::sync::Arc;
use wharfinger_core::{AdminVerb, Labels, LeaseRequest, Millis, Selector};

#[test]
fn the_longest_wait_is_that_of_the_oldest_whatever_its_priority() {
    let mut world = World::new(vec![inventory("hosts", &["a"])]);
    let held = world.lease("hosts");
    world.all_works();
    world.pass(Millis::secs(5));
    world.ask(LeaseRequest { priority: -7, ..want("hosts") });
    world.pass(Millis::secs(20));
    world.ask(LeaseRequest { priority: 7, ..want("hosts") });
    world.pass(Millis::secs(3));
    let census = world.core.census(world.now);
    let pool = &census.pools[0];
    assert_eq!((pool.waiting, pool.oldest_wait, census.queued), (2, Millis::secs(23), 2));
    assert_eq!((pool.slots.leased, pool.slots.free, pool.active), (1, 0, 1));
    assert_eq!(world.state(held), "ACTIVE");
}

#[test]
fn requests_by_labels_count_where_the_labels_are_and_what_can_never_be_met_is_counted() {
    let mut big = made_at_will("big", 1);
    big.labels = Labels::from([(Arc::from("size"), Arc::from("big"))]);
    let mut world = World::new(vec![big.clone(), made_at_will("small", 1)]);
    let by = |size: &str| Selector {
        pool: None,
        among: wharfinger_core::Pools::All,
        labels: Labels::from([(Arc::from("size"), Arc::from(size))]),
    };
    world.ask(crate::world::want_by(by("big"), 1));
    let counts = |world: &World| {
        let census = world.core.census(world.now);
        let waiting: Vec<u32> = census.pools.iter().map(|pool| pool.waiting).collect();
        (waiting, census.queued, census.unsatisfiable)
    };
    assert_eq!(counts(&world), (vec![1, 0], 1, 0));
    // Another configuration, which has no such label.
    big.labels = Labels::new();
    world.configure(vec![big, made_at_will("small", 1)]);
    assert_eq!(counts(&world), (vec![0, 0], 1, 1));
}

#[test]
fn ages_are_those_of_the_state_and_a_cordoned_slot_is_unusable() {
    let mut world = World::new(vec![wharfinger_core::PoolConfig { min_ready: 2, ..inventory("hosts", &["a", "b"]) }]);
    world.all_works();
    world.pass(Millis::secs(10));
    let first = world.resources_of("hosts")[0];
    world.admin(AdminVerb::Cordon(first)).unwrap();
    let census = world.core.census(world.now);
    let pool = &census.pools[0];
    assert_eq!(pool.states["READY"].count, 2);
    assert_eq!(pool.states["READY"].oldest, Millis::secs(10));
    assert_eq!((pool.slots.free, pool.slots.unusable), (1, 1));
    assert!(pool.open && !pool.backing_off);
}
