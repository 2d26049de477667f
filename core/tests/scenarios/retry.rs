//! Failed attempts: whose fault it is, and what follows from that.

use crate::world::{Kind, World, copies, inventory, made_at_will, want};
use wharfinger_core::{Blame, Input, LeaseRequest, Millis, NoticeKind, Outcome, PoolConfig, ResourceState, Traits};

fn preparing(items: &[&str]) -> World {
    let traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };
    World::new(vec![PoolConfig { traits, ..inventory("hosts", items) }])
}

#[test]
fn a_dud_sends_the_lease_back_to_its_old_place_and_it_avoids_the_dud() {
    let mut w = preparing(&["h1", "h2"]);
    let (first, second) = (w.lease("hosts"), w.lease("hosts"));
    w.works(Kind::Provision);
    w.works(Kind::Provision);
    let dud = w.on(first);
    let waiter = w.lease("hosts");

    w.fails(Kind::Prepare, Blame::Resource);
    assert_eq!((w.state(first), w.stands(dud)), ("QUEUED", "SUSPECT"));
    assert_eq!(w.row(first).avoid, [dud]);
    w.works(Kind::Prepare);
    w.release(second, Outcome::Ok);

    assert_eq!(w.states(&[first, waiter]), ["PREPARING", "QUEUED"], "its place is the old one");
    assert_ne!(w.on(first), dud);
}

#[test]
fn the_last_one_left_is_tried_again_once_it_is_cleared() {
    let mut w = preparing(&["h1"]);
    let lease = w.lease("hosts");
    w.works(Kind::Provision);
    let host = w.on(lease);
    w.fails(Kind::Prepare, Blame::Resource);
    w.works(Kind::Check);
    assert_eq!(w.on(lease), host, "better it than none");
    w.works(Kind::Prepare);
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn a_free_host_is_not_withheld_for_ever_for_the_hope_of_one_that_never_comes() {
    let mut w = preparing(&["h1", "h2"]);
    let lease = w.lease("hosts");
    w.works(Kind::Provision);
    w.fails(Kind::Prepare, Blame::Resource);
    w.works(Kind::Check);
    // The other machine is switched off, and stays so.
    for _ in 0..40 {
        if w.waits_for(Kind::Provision) > 0 {
            w.fails(Kind::Provision, Blame::Resource);
        }
        w.pass(Millis::secs(30));
    }
    assert_eq!(w.state(lease), "PREPARING", "{}", w.explain(lease));
}

#[test]
fn the_requests_own_fault_fails_it_and_taints_nothing() {
    let mut w = preparing(&["h1"]);
    let lease = w.lease("hosts");
    w.works(Kind::Provision);
    let host = w.on(lease);
    w.fails(Kind::Prepare, Blame::Request);
    assert_eq!((w.state(lease), w.stands(host)), ("FAILED", "READY"));
    assert!(w.explain(lease).contains("REQUEST"), "{}", w.explain(lease));
}

#[test]
fn the_providers_fault_delays_and_costs_no_attempt() {
    for blame in [Blame::Provider, Blame::Configuration] {
        let mut w = preparing(&["h1"]);
        let lease = w.lease("hosts");
        w.works(Kind::Provision);
        let host = w.on(lease);
        for n in 1..=20 {
            w.fails(Kind::Prepare, blame);
            assert_eq!((w.state(lease), w.stands(host)), ("QUEUED", "READY"));
            assert!(w.explain(lease).contains("DELAYED"), "{}", w.explain(lease));
            assert_eq!((w.row(lease).attempts, w.row(lease).delays), (0, n));
            w.pass(Millis::secs(61));
        }
        w.works(Kind::Prepare);
        assert_eq!(w.state(lease), "ACTIVE");
    }
}

#[test]
fn one_that_is_put_off_does_not_hold_up_those_behind_it() {
    let mut w = preparing(&["h1"]);
    let (first, second) = (w.lease("hosts"), w.lease("hosts"));
    w.works(Kind::Provision);
    w.fails(Kind::Prepare, Blame::Provider);
    assert_eq!(w.states(&[first, second]), ["QUEUED", "PREPARING"]);
}

#[test]
fn the_budget_of_attempts_ends_it() {
    let mut w = preparing(&["h1"]);
    let lease = w.lease("hosts");
    w.works(Kind::Provision);
    for _ in 0..4 {
        w.fails(Kind::Prepare, Blame::Resource);
        assert_eq!(w.state(lease), "QUEUED");
        w.works(Kind::Check);
        if w.waits_for(Kind::Destroy) > 0 {
            w.works(Kind::Destroy);
            // From the second loss on, the machine rests.
            w.pass(Millis::secs(1));
            w.works(Kind::Provision);
        }
    }
    w.fails(Kind::Prepare, Blame::Resource);
    assert_eq!(w.state(lease), "FAILED");
    assert!(w.explain(lease).contains("tried 5 times"), "{}", w.explain(lease));
}

#[test]
fn provisioning_that_keeps_failing_is_tried_more_and_more_seldom() {
    let mut w = World::new(vec![made_at_will("boats", 3)]);
    let lease = w.lease("boats");
    let mut waits = Vec::new();
    for failures in 1..=8 {
        w.fails(Kind::Provision, Blame::Resource);
        w.works(Kind::Destroy);
        let why = w.explain(lease);
        assert!(why.contains(&format!("making one failed {failures} times")) && why.contains("BAD_DAY"), "{why}");
        let since = w.now;
        while w.waits_for(Kind::Provision) == 0 {
            w.pass(Millis(500));
        }
        waits.push(w.now.since(since).0 / 1000);
        assert_eq!(w.state(lease), "QUEUED");
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    w.works(Kind::Provision);
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn a_wrong_key_keeps_the_lease_waiting_and_explain_says_why() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    for _ in 0..10 {
        w.fails(Kind::Provision, Blame::Configuration);
        assert_eq!(w.state(lease), "QUEUED");
        let text = w.explain(lease);
        assert!(text.contains("h1 can't be made ready") && text.contains("BAD_DAY: it did not work"), "{text}");
        w.pass(Millis::secs(61));
    }
    w.works(Kind::Provision);
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn a_copy_that_cannot_be_made_puts_its_host_in_doubt_and_another_is_made() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let lease = w.lease("copies");
    w.works(Kind::Provision);
    let host = w.resources_of("hosts")[0];
    w.fails(Kind::Provision, Blame::Resource);
    assert_eq!(w.stands(host), "SUSPECT");
    w.works(Kind::Destroy);
    w.works(Kind::Check);
    w.pass(Millis::secs(2));
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn a_destroy_that_keeps_failing_frees_the_capacity_and_stays_a_debt() {
    let mut w = World::new(vec![made_at_will("boats", 1)]);
    let lease = w.lease("boats");
    w.all_works();
    let boat = w.on(lease);
    let waiter = w.lease("boats");
    w.admin(wharfinger_core::AdminVerb::Recycle(boat)).unwrap();
    for _ in 0..2 {
        w.fails(Kind::Destroy, Blame::Provider);
        assert_eq!((w.stands(boat), w.state(waiter)), ("DESTROYING", "QUEUED"));
        w.pass(Millis::secs(61));
    }
    w.fails(Kind::Destroy, Blame::Provider);
    assert_eq!(w.stands(boat), "ORPHANED");
    w.works(Kind::Provision);
    assert_eq!(w.state(waiter), "ACTIVE", "capacity never waits for a dead thing's clean-up");

    for _ in 0..5 {
        w.pass(Millis::secs(700));
        w.renew(waiter).ok();
        w.fails(Kind::Destroy, Blame::Provider);
        assert!(matches!(w.resource(boat).state, ResourceState::Orphaned { .. }));
    }
    w.restart();
    w.pass(Millis::secs(700));
    w.works(Kind::Destroy);
    assert_eq!(w.stands(boat), "GONE", "forgotten only when it is really gone");
}

#[test]
fn an_orphaned_copy_does_not_count_against_what_its_host_may_carry() {
    let config = PoolConfig { max_per_parent: Some(1), ..copies("copies", "hosts", 1) };
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }, config]);
    let lease = w.lease("copies");
    w.all_works();
    let copy = w.on(lease);
    w.admin(wharfinger_core::AdminVerb::ForceDestroy(copy)).unwrap();
    assert_eq!((w.stands(copy), w.state(lease)), ("ORPHANED", "BROKEN"));
    let next = w.lease("copies");
    w.works(Kind::Provision);
    w.works(Kind::Prepare);
    assert_eq!(w.state(next), "ACTIVE", "{}", w.explain(next));
}

#[test]
fn two_answers_to_one_call_count_once() {
    let mut w = World::new(vec![made_at_will("boats", 1)]);
    w.lease("boats");
    let call = w.fails(Kind::Provision, Blame::Resource);
    let before = w.core.revision();
    w.answer(&call, None);
    assert_eq!(w.core.revision(), before, "a late success of what was given up is not adopted");
    w.step(Input::Tick).unwrap();
}

/// N127. Each successor takes the place of a lease that was active; what comes to nothing before has none.
#[test]
fn a_successor_that_is_never_prepared_fails_and_has_no_successor() {
    let mut w = preparing(&["h1", "h2"]);
    let lease = w.ask(LeaseRequest { replace: true, ..want("hosts") });
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
    w.notice(w.on(lease), NoticeKind::Gone);
    let successors = |w: &World| w.core.leases(None).filter(|row| row.spec.replaces.is_some()).count();
    assert_eq!(successors(&w), 1);
    let successor = w.core.leases(None).find(|row| row.spec.replaces == Some(lease)).unwrap().id;
    while w.waits_for(Kind::Prepare) == 0 {
        w.works(Kind::Provision);
    }
    w.fails(Kind::Prepare, Blame::Request);
    w.pass(Millis::secs(3600));
    assert_eq!(w.state(successor), "FAILED", "{}", w.explain(successor));
    assert_eq!(successors(&w), 1);
}
