//! The line: who comes first, who passes, who leaves, who repeats himself.

use crate::world::{Kind, World, inventory, labels, made_at_will, want, want_by};
use std::sync::Arc;
use wharfinger_core::{
    AdminVerb, Blame, Caller, Input, LeaseRequest, Millis, Outcome, PoolConfig, RejectionKind, Reply, Scope, Selector,
};

#[test]
fn a_lease_on_a_ready_host_is_active_at_once() {
    let mut w = World::new(vec![PoolConfig { min_ready: 1, ..inventory("hosts", &["h1"]) }]);
    w.step(Input::Tick).unwrap();
    w.all_works();

    let lease = w.lease("hosts");

    assert_eq!(w.state(lease), "ACTIVE");
    assert_eq!(w.row(lease).expires_at, Some(w.now.after(Millis::secs(60))));
    assert_eq!(w.token(lease), w.row(lease).revision.0, "the fencing token is the revision of the grant");
    assert!(w.explain(lease).contains("60 s left"), "{}", w.explain(lease));
}

#[test]
fn a_hundred_waiters_on_one_slot_are_served_in_order() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let leases: Vec<_> = (0..100).map(|_| w.lease("hosts")).collect();
    assert_eq!(w.resources_of("hosts").len(), 1);
    w.all_works();

    let mut token = 0;
    for (n, lease) in leases.iter().enumerate() {
        assert_eq!(w.state(*lease), "ACTIVE", "number {n}");
        assert!(w.token(*lease) > token, "tokens of a slot grow");
        token = w.token(*lease);
        if let Some(next) = leases.get(n + 1) {
            assert_eq!(w.state(*next), "QUEUED");
            let place = w.core.explain(*next, w.now, &Scope::All).unwrap().position;
            assert_eq!(place, 1, "the next one knows that it is the next one");
        }
        w.release(*lease, Outcome::Ok);
    }
}

#[test]
fn a_higher_priority_passes_and_equal_ones_go_by_age() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let first = w.lease("hosts");
    w.all_works();
    let old = w.lease("hosts");
    let young = w.lease("hosts");
    let urgent = w.ask(LeaseRequest { priority: 7, ..want("hosts") });

    let mut order = Vec::new();
    let mut holder = first;
    for _ in 0..3 {
        w.release(holder, Outcome::Ok);
        holder = *[old, young, urgent].iter().find(|lease| w.state(**lease) == "ACTIVE").unwrap();
        order.push(holder);
    }

    assert_eq!(order, [urgent, old, young]);
}

#[test]
fn a_cancelled_waiter_leaves_the_line() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let holder = w.lease("hosts");
    w.all_works();
    let leaves = w.lease("hosts");
    let stays = w.lease("hosts");

    w.release(leaves, Outcome::Ok);
    assert_eq!(w.state(leaves), "CANCELLED");
    w.release(holder, Outcome::Ok);

    assert_eq!(w.states(&[leaves, stays]), ["CANCELLED", "ACTIVE"]);
}

#[test]
fn a_waiter_gives_up_at_its_own_deadline_and_not_before() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let holder = w.ask(LeaseRequest { ttl: Some(Millis::secs(600)), ..want("hosts") });
    w.all_works();
    let patient = w.lease("hosts");
    let hasty = w.ask(LeaseRequest { queue_for: Some(Millis::secs(30)), ..want("hosts") });

    w.pass(Millis::secs(29));
    assert_eq!(w.state(hasty), "QUEUED");
    w.pass(Millis::secs(2));

    assert_eq!(w.states(&[holder, patient, hasty]), ["ACTIVE", "QUEUED", "FAILED"]);
    let said = w.explain(hasty);
    assert!(
        said.contains("WAIT_DEADLINE") && said.contains("1 of 1 slots are in use") && said.contains("(BUSY)"),
        "{said}"
    );
}

#[test]
fn a_waiter_that_gives_up_gets_its_blockers() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.ask(LeaseRequest { queue_for: Some(Millis::secs(30)), ..want("hosts") });
    w.fails(Kind::Provision, Blame::Configuration);
    w.pass(Millis::secs(29));
    let explained = w.core.explain(lease, w.core.now(), &Scope::All).unwrap();
    let blocker = explained.blockers.first().unwrap().clone();
    assert!(blocker.detail.contains("h1 can't be made ready"), "{blocker:?}");
    w.pass(Millis::secs(2));

    assert_eq!(w.state(lease), "FAILED");
    let said = w.explain(lease);
    assert!(said.contains("as long as it was asked to: pool hosts: "), "{said}");
    assert!(said.contains("h1 can't be made ready") && said.contains(blocker.code.as_str()), "{said}");
}

#[test]
fn the_same_request_id_is_the_same_lease() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"])]);
    let request = LeaseRequest { request_id: Arc::from("build-7"), ..want("hosts") };
    let first = w.ask(request.clone());
    let again = w.ask(request.clone());
    assert_eq!(first, again);
    w.all_works();
    assert_eq!(w.ask(request.clone()), first, "also when it has been granted");
    w.restart();
    assert_eq!(w.ask(request.clone()), first, "also after a restart");

    let other = w.try_ask(LeaseRequest { priority: 3, ..request.clone() }).unwrap_err();
    assert_eq!((other.kind, other.reason), (RejectionKind::Conflict, "REQUEST_ID_CONFLICT"));
    let thief = w.try_ask(LeaseRequest { caller: Caller::sole_tenant("eve"), ..request }).unwrap_err();
    assert_eq!(thief.kind, RejectionKind::Conflict, "someone else's request id tells nothing of it");
}

#[test]
fn no_queue_fails_at_once_and_leaves_no_trace() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let first = w.lease("hosts");
    w.all_works();
    let at_once = w.ask(LeaseRequest { no_queue: true, ..want("hosts") });
    assert_eq!(w.states(&[first, at_once]), ["ACTIVE", "ACTIVE"]);

    let refused = w.try_ask(LeaseRequest { no_queue: true, ..want("hosts") }).unwrap_err();

    assert_eq!((refused.kind, refused.reason), (RejectionKind::Exhausted, "NO_CAPACITY"));
    assert!(refused.retry_after.is_some());
    assert_eq!(w.core.leases(None).count(), 2);
    assert!(w.last.leases.is_empty() && w.last.events.is_empty());
}

#[test]
fn no_queue_does_not_pass_those_who_wait() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let holder = w.lease("hosts");
    w.all_works();
    let waiter = w.lease("hosts");
    w.release(holder, Outcome::Ok);
    assert_eq!(w.state(waiter), "ACTIVE");
    assert!(w.try_ask(LeaseRequest { no_queue: true, priority: -1, ..want("hosts") }).is_err());
}

#[test]
fn a_request_that_can_never_be_met_is_refused_at_once() {
    let mut w = World::new(vec![PoolConfig { labels: labels(&[("os", "linux")]), ..inventory("hosts", &["h1"]) }]);
    let reason = |w: &mut World, request| w.try_ask(request).unwrap_err().reason;

    assert_eq!(reason(&mut w, want("boats")), "UNKNOWN_POOL");
    let mac = Selector { labels: labels(&[("os", "mac")]), ..Selector::default() };
    assert_eq!(reason(&mut w, want_by(mac, 1)), "UNKNOWN_LABEL");
    assert_eq!(reason(&mut w, want_by(Selector::pool("hosts"), 2)), "UNSATISFIABLE");
    assert_eq!(reason(&mut w, want_by(Selector::pool("hosts"), 0)), "NOTHING_WANTED");
    assert_eq!(reason(&mut w, LeaseRequest { ttl: Some(Millis(0)), ..want("hosts") }), "TTL_NOT_POSITIVE");
    assert_eq!(reason(&mut w, LeaseRequest { ttl: Some(Millis::secs(999_999)), ..want("hosts") }), "TTL_TOO_LONG");
    assert_eq!(w.core.leases(None).count(), 0);
}

#[test]
fn a_label_is_served_by_whichever_pool_has_it() {
    let linux = labels(&[("os", "linux")]);
    let mut w = World::new(vec![
        PoolConfig { labels: linux.clone(), ..made_at_will("small", 1) },
        PoolConfig { labels: linux.clone(), ..made_at_will("large", 1) },
    ]);
    let selector = Selector { labels: linux, ..Selector::default() };
    let first = w.ask(want_by(selector.clone(), 1));
    w.all_works();
    let second = w.ask(want_by(selector, 1));
    w.all_works();

    assert_eq!(w.states(&[first, second]), ["ACTIVE", "ACTIVE"], "{}", w.explain(second));
    assert_ne!(w.row(first).pool, w.row(second).pool);
}

#[test]
fn two_waiters_by_label_at_once_fill_two_pools() {
    let linux = labels(&[("os", "linux")]);
    let mut w = World::new(vec![
        PoolConfig { labels: linux.clone(), ..made_at_will("small", 1) },
        PoolConfig { labels: linux.clone(), ..made_at_will("large", 1) },
    ]);
    let selector = Selector { labels: linux, ..Selector::default() };
    let first = w.ask(want_by(selector.clone(), 1));
    let second = w.ask(want_by(selector, 1));
    w.all_works();

    assert_eq!(w.states(&[first, second]), ["ACTIVE", "ACTIVE"], "{}", w.explain(second));
}

#[test]
fn a_lease_belongs_to_who_asked_for_it() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let eve = Caller::sole_tenant("eve");
    let theft = w
        .step(Input::Release { lease, caller: eve.clone(), outcome: Outcome::Ok, note: Arc::from(""), hold: None })
        .unwrap_err();
    assert_eq!(theft.reason, "NOT_YOURS");
    assert_eq!(w.step(Input::Renew { lease, caller: eve, ttl: None }).unwrap_err().reason, "NOT_YOURS");
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn releasing_twice_is_fine_and_renewing_what_ended_is_not() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    w.release(lease, Outcome::Ok);
    let ended = w.row(lease).clone();
    w.release(lease, Outcome::Tainted);
    assert_eq!(*w.row(lease), ended, "the second release changes nothing");
    assert_eq!(w.renew(lease).unwrap_err().reason, "LEASE_ENDED");
}

#[test]
fn explain_says_what_blocks_and_what_to_do() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let holder = w.lease("hosts");
    let waiter = w.lease("hosts");
    assert!(w.explain(waiter).contains("number 2 in line for pool hosts"), "{}", w.explain(waiter));
    assert!(w.explain(holder).contains("PROVISIONING"), "{}", w.explain(holder));
    w.works(Kind::Provision);
    assert!(w.explain(waiter).contains("number 1 in line"), "{}", w.explain(waiter));
    let busy =
        format!("BUSY: 1 of 1 slots are in use: {holder} (build 7) (wait for a release, raise `slots`, or add a host)");
    assert!(w.explain(waiter).contains(&busy), "{}", w.explain(waiter));
    assert!(matches!(w.renew(waiter), Ok(Reply::Leases(_))), "nothing to renew in line, and nothing wrong");
}

#[test]
fn explain_counts_the_slots_in_use_and_not_their_hosts() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1", "h2"]) }]);
    let holders = w.ask_all(want_by(Selector::pool("hosts"), 3));
    w.all_works();
    let free = w.core.pool("hosts").unwrap().free_slots;
    assert_eq!((w.states(&holders), free), (vec!["ACTIVE"; 3], 1));
    let group = w.ask_all(want_by(Selector::pool("hosts"), 2));
    assert!(w.explain(group[0]).contains("BUSY: 3 of 4 slots are in use: "), "{}", w.explain(group[0]));
    let last = w.ask(LeaseRequest { priority: 1, ..want("hosts") });
    assert_eq!(w.state(last), "ACTIVE");
    assert!(w.explain(group[0]).contains("BUSY: 4 of 4 slots are in use"), "{}", w.explain(group[0]));
}

#[test]
fn all_requests_behind_one_that_avoids_the_free_slots_are_served_before_a_younger_one() {
    let linux = labels(&[("os", "linux")]);
    let pool = PoolConfig { slots: 2, min_ready: 1, labels: linux.clone(), ..made_at_will("hosts", 2) };
    let mut w = World::new(vec![pool]);
    w.all_works();
    let avoided = w.resources_of("hosts")[0];
    w.admin(AdminVerb::Cordon(avoided)).unwrap();
    let first = w.ask(LeaseRequest { avoid: vec![avoided], ..want("hosts") });
    let behind = [w.lease("hosts"), w.lease("hosts")];
    assert_eq!(w.resources_of("hosts").len(), 2, "another one is being made");
    let younger = w.ask(want_by(Selector { labels: linux, ..Selector::default() }, 1));
    w.admin(AdminVerb::Uncordon(avoided)).unwrap();
    assert_eq!(
        (w.state(first), w.states(&behind), w.state(younger)),
        ("QUEUED", vec!["ACTIVE"; 2], "QUEUED"),
        "the younger one wants another class of slots, and is served after them"
    );
}
