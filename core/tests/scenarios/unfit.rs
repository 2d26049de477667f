//! Resources that pass their checks and fail in use.

use crate::world::{Kind, World, copies, inventory, made_at_will, mangled};
use wharfinger_core::{Blame, EventKind, LeaseId, Outcome, PoolConfig, Reason, ResourceId, Traits};

/// One host with room for copies of one pool.
fn one_copy() -> World {
    World::new(vec![PoolConfig { slots: 4, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 1)])
}

/// Answers calls until a preparation waits.
fn until_prepare(w: &mut World) {
    for _ in 0..50 {
        if w.waits_for(Kind::Prepare) > 0 {
            return;
        }
        let call = w.calls.remove(0);
        w.answer(&call, None);
    }
    panic!("nothing is prepared");
}

/// Which resource a lease is on.
fn on(w: &World, lease: LeaseId) -> ResourceId {
    w.on(lease)
}

#[test]
fn a_copy_that_is_spoilt_from_outside_is_replaced_at_another_path_and_the_lease_is_served() {
    let mut w = one_copy();
    let lease = w.lease("copies");
    let mut met: Vec<ResourceId> = Vec::new();
    let mut said = Vec::new();
    for _ in 0..3 {
        until_prepare(&mut w);
        let copy = on(&w, lease);
        let spoilt = met.first().is_none_or(|first| *first == copy);
        met.push(copy);
        if !spoilt {
            break;
        }
        w.fails(Kind::Prepare, Blame::Resource);
        // The check repairs what it sees, and passes.
        w.verdict(mangled(true));
        w.works(Kind::Repair);
        w.works(Kind::Check);
        said.extend(w.last.events.iter().filter(|e| e.kind == EventKind::ResourceUnfit).map(|e| e.detail.to_string()));
    }
    assert_eq!(met[0], met[1], "nothing else could serve it");
    assert_ne!(met[1], met[2], "it fails in use twice, and is replaced");
    assert!(said.iter().any(|text| text.contains("another path")), "{said:?}");
    w.works(Kind::Prepare);
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn repairs_are_credited_by_a_use_that_went_well_and_not_by_a_check() {
    let mut w = one_copy();
    let mut copies = Vec::new();
    for round in 0..3 {
        let lease = w.lease("copies");
        w.all_works();
        let copy = on(&w, lease);
        copies.push(copy);
        w.release(lease, Outcome::Failed);
        w.works(Kind::Clean);
        w.verdict(mangled(true));
        if round < 2 {
            assert_eq!(w.stands(copy), "REPAIRING");
        } else {
            assert_eq!(w.stands(copy), "DESTROYING", "two repairs, and never did work go well on it");
        }
        w.all_works();
    }
    assert_eq!(copies[0], copies[2]);
    // Where work goes well in between, it is repaired again.
    for _ in 0..4 {
        let lease = w.lease("copies");
        w.all_works();
        let copy = on(&w, lease);
        w.release(lease, Outcome::Failed);
        w.works(Kind::Clean);
        w.verdict(mangled(true));
        assert_eq!(w.stands(copy), "REPAIRING");
        w.all_works();
        let lease = w.lease("copies");
        w.all_works();
        assert_eq!(on(&w, lease), copy);
        w.release(lease, Outcome::Ok);
        w.all_works();
    }
}

/// Hosts that are prepared for each lease.
fn prepared(pool: PoolConfig) -> World {
    let traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };
    World::new(vec![PoolConfig { traits, ..pool }])
}

#[test]
fn a_host_whose_check_passes_and_that_fails_in_use_is_replaced() {
    let mut w = prepared(made_at_will("boats", 1));
    let lease = w.lease("boats");
    w.works(Kind::Provision);
    let bad = on(&w, lease);
    for _ in 0..2 {
        w.fails(Kind::Prepare, Blame::Resource);
        w.works(Kind::Check);
    }
    assert_eq!(w.stands(bad), "DESTROYING");
    until_prepare(&mut w);
    assert_ne!(on(&w, lease), bad);
    w.works(Kind::Prepare);
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn a_resource_that_failed_once_and_then_served_is_not_replaced() {
    let mut w = prepared(made_at_will("boats", 1));
    let mut hosts = Vec::new();
    for _ in 0..4 {
        let lease = w.lease("boats");
        if w.waits_for(Kind::Provision) > 0 {
            w.works(Kind::Provision);
        }
        w.fails(Kind::Prepare, Blame::Resource);
        w.works(Kind::Check);
        w.works(Kind::Prepare);
        hosts.push(on(&w, lease));
        w.release(lease, Outcome::Ok);
        w.all_works();
    }
    assert!(hosts.iter().all(|host| *host == hosts[0]), "{hosts:?}");
}

#[test]
fn a_machine_that_is_made_anew_is_no_other_one_for_a_lease_that_it_failed() {
    let mut w = prepared(inventory("hosts", &["h1", "h2"]));
    let (first, second) = (w.lease("hosts"), w.lease("hosts"));
    w.works(Kind::Provision);
    w.works(Kind::Provision);
    let bad = on(&w, first);
    let item = w.resource(bad).item.clone();
    let call = w.calls.iter().position(|call| call.resource.id == bad).unwrap();
    let call = w.calls.remove(call);
    w.answer(&call, Some(crate::world::failure(Blame::Resource)));
    w.works(Kind::Prepare);
    // The machine is made anew while the other one is busy, and the other one becomes free.
    w.admin(wharfinger_core::AdminVerb::Recycle(bad)).unwrap();
    w.works(Kind::Destroy);
    w.release(second, Outcome::Ok);
    assert_eq!(w.state(first), "PREPARING");
    assert_ne!(w.resource(on(&w, first)).item, item);
}

#[test]
fn when_many_hosts_fail_in_use_at_once_the_brake_holds_their_replacement_back() {
    let names: Vec<String> = (0..8).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut w = prepared(inventory("hosts", &names));
    for _ in 0..8 {
        w.lease("hosts");
    }
    for _ in 0..8 {
        w.works(Kind::Provision);
    }
    for _ in 0..2 {
        for _ in 0..8 {
            w.fails(Kind::Prepare, Blame::Resource);
        }
        while w.waits_for(Kind::Check) > 0 {
            w.works(Kind::Check);
        }
    }
    let kept = w.resources_of("hosts").iter().filter(|id| ["READY", "SUSPECT"].contains(&w.stands(**id))).count();
    assert_eq!(kept, 3, "once more than half of them were replaced, what they share is at fault");
    assert_eq!(w.core.pools()[0].counters.held, 3);
}

#[test]
fn the_reason_is_in_the_chain_of_what_is_replaced() {
    let mut w = prepared(made_at_will("boats", 1));
    let lease = w.lease("boats");
    w.works(Kind::Provision);
    let bad = on(&w, lease);
    for _ in 0..2 {
        w.fails(Kind::Prepare, Blame::Resource);
        w.works(Kind::Check);
    }
    let wharfinger_core::ResourceState::Destroying { cause, .. } = &w.resource(bad).state else { panic!("removed") };
    assert_eq!(cause[0].reason, Reason::CheckBlind);
}
