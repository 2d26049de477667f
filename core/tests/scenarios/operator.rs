//! Operators' verbs: each valid in every state.

use crate::world::{Kind, World, copies, inventory, lease_on_copy, made_at_will, mangled};
use std::sync::Arc;
use wharfinger_core::{
    AdminVerb, Blame, Millis, NoticeKind, Outcome, PoolConfig, Reason, ResourceId, Source, Traits, Work,
};

#[test]
fn a_cordon_keeps_new_leases_out_and_lets_live_ones_be() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.admin(AdminVerb::Cordon(host)).unwrap();
    let waiter = w.lease("hosts");
    assert_eq!(w.states(&[lease, waiter]), ["ACTIVE", "QUEUED"]);
    assert!(w.explain(waiter).contains("HELD"), "{}", w.explain(waiter));
    w.restart();
    assert_eq!(w.state(waiter), "QUEUED");
    w.admin(AdminVerb::Uncordon(host)).unwrap();
    assert_eq!(w.state(waiter), "ACTIVE");
}

#[test]
fn a_cordoned_pool_says_by_whom_over_a_restart_too() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    w.admin(AdminVerb::CordonPool(Arc::from("hosts"))).unwrap();
    let waiter = w.lease("hosts");
    w.restart();
    let text = w.explain(waiter);
    assert!(text.contains("CORDONED: pool hosts is cordoned by op: because"), "{text}");
    assert!(w.calls.is_empty());
    w.admin(AdminVerb::UncordonPool(Arc::from("hosts"))).unwrap();
    w.all_works();
    assert_eq!(w.state(waiter), "ACTIVE");
    assert_eq!(w.admin(AdminVerb::CordonPool(Arc::from("boats"))).unwrap_err().reason, "UNKNOWN_POOL");
}

#[test]
fn a_drain_waits_for_live_leases_and_breaks_them_at_its_deadline() {
    for deadline in [None, Some(Millis::secs(30))] {
        let (mut w, lease, copy, host) = lease_on_copy(1);
        w.admin(AdminVerb::Drain(host, deadline)).unwrap();
        assert_eq!((w.stands(host), w.stands(copy), w.state(lease)), ("DRAINING", "DRAINING", "ACTIVE"));
        w.pass(Millis::secs(31));
        match deadline {
            None => assert_eq!(w.state(lease), "ACTIVE"),
            Some(_) => {
                assert_eq!(w.state(lease), "BROKEN");
                assert_eq!(w.cause(lease).last().unwrap().source, Source::Operator(Arc::from("op")));
            }
        }
    }
}

#[test]
fn an_uncordon_ends_an_operators_drain_by_way_of_a_check() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.admin(AdminVerb::Drain(host, Some(Millis::secs(30)))).unwrap();
    w.admin(AdminVerb::Uncordon(host)).unwrap();
    w.all_works();
    assert_eq!((w.stands(host), w.stands(copy)), ("READY", "READY"));
    w.pass(Millis::secs(40));
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn quarantine_breaks_the_leases_and_touches_nothing() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    let waiter = w.lease("hosts");
    w.admin(AdminVerb::Quarantine(host)).unwrap();
    assert_eq!((w.state(lease), w.stands(host)), ("BROKEN", "QUARANTINED"));
    assert_eq!(w.cause(lease)[0].reason, Reason::Operator);
    assert!(w.calls.is_empty(), "it is kept as it is");
    w.pass(Millis::secs(4000));
    assert_eq!((w.stands(host), w.state(waiter)), ("QUARANTINED", "QUEUED"));
    w.admin(AdminVerb::Recover(host)).unwrap();
    assert_eq!(w.stands(host), "SUSPECT", "back by way of a check");
    w.works(Kind::Check);
    assert_eq!(w.state(waiter), "ACTIVE");
}

#[test]
fn a_quarantined_copy_is_kept_as_it_is() {
    let (mut w, _, copy, _) = lease_on_copy(1);
    w.admin(AdminVerb::Quarantine(copy)).unwrap();
    assert!(w.calls.is_empty(), "cleaning it would destroy what is to be looked at: {:?}", w.calls);
    assert_eq!(w.stands(copy), "QUARANTINED");
}

#[test]
fn a_quarantined_host_that_recovers_serves_again() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.admin(AdminVerb::Quarantine(host)).unwrap();
    assert_eq!(w.state(lease), "BROKEN");
    assert_ne!(w.stands(copy), "READY");
    w.admin(AdminVerb::Recover(host)).unwrap();
    w.all_works();
    let next = w.lease("copies");
    w.all_works();
    assert_eq!((w.stands(host), w.state(next)), ("READY", "ACTIVE"));
}

#[test]
fn taint_and_recycle_and_break() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.admin(AdminVerb::Taint(copy)).unwrap();
    w.works(Kind::Check);
    assert_eq!((w.stands(copy), w.state(lease)), ("REPAIRING", "ACTIVE"));
    w.all_works();
    w.admin(AdminVerb::Break(lease)).unwrap();
    assert_eq!((w.state(lease), w.stands(copy)), ("BROKEN", "SUSPECT"));
    w.all_works();
    let next = w.lease("copies");
    w.all_works();
    w.admin(AdminVerb::Recycle(w.on(next))).unwrap();
    assert_eq!(w.state(next), "BROKEN");
    assert_eq!(w.admin(AdminVerb::Break(wharfinger_core::LeaseId::new(1))).unwrap_err().reason, "UNKNOWN_LEASE");
    let own = w.core.leases(None).find(|row| row.spec.child.is_some()).unwrap().id;
    assert_eq!(w.admin(AdminVerb::Break(own)).unwrap_err().reason, "HELD_BY_BROKER");
}

#[test]
fn force_destroy_forgets_it_and_frees_its_place_on_the_host() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    let next = w.lease("copies");
    w.configure(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    w.admin(AdminVerb::ForceDestroy(copy)).unwrap();
    assert_eq!((w.state(lease), w.stands(copy)), ("BROKEN", "ORPHANED"));
    assert!(w.core.leases_on(host).iter().all(|row| row.spec.child != Some(copy)));
    assert!(w.calls.iter().any(|call| call.resource.id == copy && call.work == Work::Destroy), "the janitor tries on");
    w.all_works();
    assert_eq!((w.state(next), w.stands(copy)), ("ACTIVE", "GONE"));
}

/// A host and a copy, brought into each state that a resource can be in.
fn in_every_state() -> Vec<(&'static str, World, ResourceId)> {
    let traits = Traits { prepares: false, cleans: true, repairs: true, probes: false };
    let fresh = || {
        let mut w = World::new(vec![PoolConfig { slots: 2, traits, ..made_at_will("boats", 2) }]);
        let lease = w.lease("boats");
        (w, lease)
    };
    let ready = || {
        let (mut w, lease) = fresh();
        w.all_works();
        let boat = w.on(lease);
        (w, lease, boat)
    };
    let mut worlds = Vec::new();
    let (w, _) = fresh();
    let boat = w.resources_of("boats")[0];
    worlds.push(("PROVISIONING", w, boat));
    let (w, _, boat) = ready();
    worlds.push(("READY", w, boat));
    let (mut w, _, boat) = ready();
    w.notice(boat, NoticeKind::ConnectionLost);
    worlds.push(("SUSPECT", w, boat));
    let (mut w, _, boat) = ready();
    w.notice(boat, NoticeKind::ConnectionLost);
    w.verdict(mangled(true));
    worlds.push(("REPAIRING", w, boat));
    let (mut w, _, boat) = ready();
    w.admin(AdminVerb::Quarantine(boat)).unwrap();
    worlds.push(("QUARANTINED", w, boat));
    let (mut w, _, boat) = ready();
    w.admin(AdminVerb::Drain(boat, None)).unwrap();
    worlds.push(("DRAINING", w, boat));
    let (mut w, _, boat) = ready();
    w.admin(AdminVerb::Recycle(boat)).unwrap();
    worlds.push(("DESTROYING", w, boat));
    let (mut w, _, boat) = ready();
    w.admin(AdminVerb::ForceDestroy(boat)).unwrap();
    worlds.push(("ORPHANED", w, boat));
    let (mut w, _, boat) = ready();
    w.admin(AdminVerb::Recycle(boat)).unwrap();
    w.works(Kind::Destroy);
    worlds.push(("GONE", w, boat));
    worlds
}

#[test]
fn every_verb_is_valid_in_every_state() {
    let verbs: [fn(ResourceId) -> AdminVerb; 11] = [
        AdminVerb::Cordon,
        AdminVerb::Uncordon,
        AdminVerb::Undrain,
        |id| AdminVerb::Hold(id, Millis::secs(20)),
        |id| AdminVerb::Drain(id, Some(Millis::secs(10))),
        AdminVerb::Check,
        AdminVerb::Taint,
        AdminVerb::Quarantine,
        AdminVerb::Recover,
        AdminVerb::Recycle,
        AdminVerb::ForceDestroy,
    ];
    for first in verbs {
        for second in verbs {
            for (state, mut w, boat) in in_every_state() {
                assert_eq!(w.stands(boat), state);
                for verb in [first(boat), second(boat)] {
                    match w.admin(verb.clone()) {
                        Ok(_) => assert_ne!(state, "GONE", "{verb:?}"),
                        Err(no) => assert_eq!((state, no.reason), ("GONE", "RESOURCE_GONE"), "{verb:?}: {no:?}"),
                    }
                }
                // After any order the world goes on, and operations under way end.
                w.restart();
                w.all_works();
                w.pass(Millis::secs(30));
                w.all_works();
                let settled = ["READY", "QUARANTINED", "DRAINING", "GONE"];
                assert!(
                    settled.contains(&w.stands(boat)),
                    "{state}, then {:?}, {:?}: {}",
                    first(boat),
                    second(boat),
                    w.stands(boat)
                );
            }
        }
    }
}

#[test]
fn a_copy_that_waits_for_its_host_can_be_destroyed() {
    let verbs: [fn(ResourceId) -> AdminVerb; 3] =
        [|id| AdminVerb::Drain(id, None), AdminVerb::Recycle, AdminVerb::ForceDestroy];
    for verb in verbs {
        let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
        let lease = w.lease("copies");
        let copy = w.resources_of("copies")[0];
        w.admin(verb(copy)).unwrap();
        assert_eq!(w.stands(copy), "GONE", "{:?}", verb(copy));
        w.all_works();
        assert_eq!(w.state(lease), "ACTIVE", "on another one");
    }
}

#[test]
fn quarantine_of_a_resource_that_is_being_made_holds_it() {
    let mut w = World::new(vec![made_at_will("boats", 1)]);
    w.lease("boats");
    let boat = w.resources_of("boats")[0];
    w.admin(AdminVerb::Quarantine(boat)).unwrap();
    w.fails(Kind::Provision, Blame::Resource);
    assert_eq!(w.stands(boat), "QUARANTINED");
    w.admin(AdminVerb::Recover(boat)).unwrap();
    w.works(Kind::Check);
    assert_eq!(w.stands(boat), "READY");
}

#[test]
fn a_released_lease_can_be_released_by_an_operator_too() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    w.release(lease, Outcome::Ok);
    w.admin(AdminVerb::Break(lease)).unwrap();
    assert_eq!(w.state(lease), "RELEASED");
}

#[test]
fn a_copy_that_waits_for_its_host_cannot_be_kept_for_triage() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let lease = w.lease("copies");
    let copy = w.resources_of("copies")[0];
    w.admin(AdminVerb::Quarantine(copy)).unwrap();
    w.admin(AdminVerb::Recover(copy)).unwrap();
    assert_eq!(w.stands(copy), "PROVISIONING", "there is nothing to look at");
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn a_copy_that_recovers_on_a_host_that_leaves_goes_with_it() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 2)]);
    let leases = [w.lease("copies"), w.lease("copies")];
    w.all_works();
    let copies = [w.on(leases[0]), w.on(leases[1])];
    let host = w.resource(copies[0]).parent.unwrap().host.unwrap();
    w.admin(AdminVerb::Drain(host, None)).unwrap();
    w.admin(AdminVerb::Quarantine(copies[0])).unwrap();
    w.admin(AdminVerb::Recover(copies[0])).unwrap();
    w.all_works();
    w.release(leases[1], Outcome::Ok);
    w.all_works();
    assert_eq!([w.stands(copies[0]), w.stands(copies[1]), w.stands(host)], ["GONE"; 3]);
}
