//! The order of changes of resources: readers that go on after a revision see each resource that changed since, and each on which a
//! lease came or went.

use crate::world::{World, inventory};
use wharfinger_core::{AdminVerb, Caller, Core, Input, Limits, Millis, Outcome, PoolConfig, ResourceId, Revision};

/// Two hosts with two slots each, both ready.
fn two() -> (World, Vec<ResourceId>) {
    let mut w = World::new(vec![PoolConfig { min_ready: 2, slots: 2, ..inventory("hosts", &["h1", "h2"]) }]);
    w.all_works();
    let hosts = w.core.resources(None).map(|row| row.id).collect();
    (w, hosts)
}

/// The resources that a reader sees anew who knows everything up to this revision.
fn since(core: &Core, revision: Revision) -> Vec<ResourceId> {
    let from = (Revision(revision.0 + 1), ResourceId::new(0));
    core.resources_changed_after(from).map(|(_, row)| row.id).collect()
}

#[test]
fn a_lease_that_comes_or_goes_changes_its_resource_and_a_renewal_does_not() {
    let (mut w, _) = two();
    let before = w.core.revision();
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    assert_eq!(since(&w.core, before), [host]);
    let granted = w.core.revision();
    assert_eq!(since(&w.core, granted), []);
    let caller = Caller::sole_tenant(w.core.lease(lease).unwrap().spec.principal.clone());
    w.step(Input::Renew { lease, caller, ttl: Some(Millis::secs(300)) }).unwrap();
    assert!(w.core.revision() > granted);
    assert_eq!(since(&w.core, granted), [], "a renewal is none of its changes");
    let renewed = w.core.revision();
    w.release(lease, Outcome::Ok);
    assert_eq!(since(&w.core, renewed), [host]);
    let released = w.core.revision();
    w.all_works();
    // The slot was cleaned, or was clean.
    assert!(since(&w.core, released).iter().all(|id| *id == host));
    assert!(w.core.leases_on(host).is_empty());
}

#[test]
fn each_change_of_a_row_is_in_order_and_the_latest_one_counts() {
    let (mut w, hosts) = two();
    let before = w.core.revision();
    w.admin(AdminVerb::Cordon(hosts[0])).unwrap();
    w.admin(AdminVerb::Cordon(hosts[1])).unwrap();
    w.admin(AdminVerb::Uncordon(hosts[0])).unwrap();
    assert_eq!(since(&w.core, before), [hosts[1], hosts[0]]);
    let places: Vec<Revision> =
        w.core.resources_changed_after((before, hosts[0])).map(|((revision, _), _)| revision).collect();
    assert!(places.is_sorted() && places.iter().all(|revision| *revision <= w.core.revision()), "{places:?}");
}

#[test]
fn a_reader_that_goes_on_after_a_failover_or_at_a_follower_misses_nothing() {
    let (mut w, hosts) = two();
    let mut follower = Core::follow(w.core.snapshot(), w.pools.clone(), Limits::default(), w.now);
    let before = w.core.revision();
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.release(lease, Outcome::Ok);
    w.all_works();
    let here = since(&w.core, before);
    assert_eq!(here, [host]);
    // The follower gets it all at once.
    let batch = wharfinger_core::Batch {
        base: before,
        revision: w.core.revision(),
        now: w.now,
        leases: w.core.leases_changed_after(before).cloned().collect(),
        resources: w.core.resources(None).filter(|row| row.revision > before).cloned().collect(),
        ..wharfinger_core::Batch::default()
    };
    follower.take_in(&batch);
    follower.check_invariants().unwrap();
    assert!(since(&follower, before).contains(&host), "{:?}", since(&follower, before));
    assert_eq!(since(&follower, follower.revision()), []);
    // The one that takes over has no memory of slots that were left: it shows all.
    w.restart();
    w.core.check_invariants().unwrap();
    let all: std::collections::BTreeSet<_> = since(&w.core, before).into_iter().collect();
    assert_eq!(all, hosts.into_iter().collect());
}
