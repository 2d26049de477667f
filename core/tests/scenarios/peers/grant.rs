//! Group Grant: the order of grants, and the explanations for waiting requests.

use crate::world::{Kind, World, inventory, labels, want, want_by};
use std::sync::Arc;
use wharfinger_core::{
    Blame, Input, Item, Labels, LeaseId, LeaseRequest, Millis, Outcome, PoolConfig, RejectionKind, Scope, Selector,
    Traits,
};

const PREPARES: Traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };

fn held(w: &World, leases: &[LeaseId]) -> usize {
    leases.iter().filter(|lease| w.row(**lease).assignment().is_some()).count()
}

#[test]
fn tc_6681_lost_grant_reply_then_same_request_id_returns_the_same_lease() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2", "h3"])]);
    let request = LeaseRequest { request_id: Arc::from("claim-1"), ..want_by(Selector::pool("hosts"), 2) };
    // The reply to this one never arrives.
    let granted = w.ask_all(request.clone());
    w.all_works();
    let tokens = [w.token(granted[0]), w.token(granted[1])];

    let before = w.core.revision();
    assert_eq!(w.ask_all(request.clone()), granted);
    assert_eq!(w.core.revision(), before, "to ask again changes nothing");
    w.restart();
    assert_eq!(w.ask_all(request.clone()), granted, "after a restart of the broker too");
    assert_eq!(w.states(&granted), ["ACTIVE"; 2]);
    assert_eq!([w.token(granted[0]), w.token(granted[1])], tokens);
    assert_eq!(w.core.leases(None).count(), 2, "nothing is held that nobody knows of");

    w.release(granted[0], Outcome::Ok);
    assert_eq!(w.ask_all(request), granted, "one that comes when all is over begins nothing");
    assert_eq!(w.states(&granted), ["RELEASED"; 2]);
}

/// Boskos ranks requests by id; a client asks every few seconds again.
#[test]
fn boskos_acquire_priority_two_racing_waiters_keep_their_order_however_often_they_ask() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"])]);
    let holders = [w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    let named = |name: &str| LeaseRequest { request_id: Arc::from(name), ..want("hosts") };
    let first = w.ask(named("first"));
    let second = w.ask(named("second"));
    for _ in 0..3 {
        assert_eq!((w.ask(named("second")), w.ask(named("first"))), (second, first));
    }

    w.release(holders[0], Outcome::Ok);
    assert_eq!(w.states(&[first, second]), ["ACTIVE", "QUEUED"]);
    let newcomer = w.ask(named("newcomer"));
    assert_eq!(w.ask(named("second")), second);
    w.release(holders[1], Outcome::Ok);
    assert_eq!(w.states(&[first, second, newcomer]), ["ACTIVE", "ACTIVE", "QUEUED"]);
}

#[test]
fn vmpooler_checkout_a_set_is_never_half_granted() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2", "h3", "h4"])]);
    let holders = w.ask_all(LeaseRequest { independent: true, ..want_by(Selector::pool("hosts"), 4) });
    w.all_works();
    let set = w.ask_all(want_by(Selector::pool("hosts"), 3));
    for holder in &holders[..2] {
        w.release(*holder, Outcome::Ok);
        assert_eq!(held(&w, &set), 0);
        w.restart();
        assert_eq!(held(&w, &set), 0);
    }
    w.release(holders[2], Outcome::Ok);
    assert_eq!(w.states(&set), ["ACTIVE"; 3]);
    let granted = w.last.leases.iter().filter(|row| set.contains(&row.id)).count();
    assert_eq!(granted, 3, "in one commit");
}

/// `acquirebystate` hands out what it got even on error; then both wait for what the other has.
#[test]
fn boskos_acquirebystate_two_sets_that_lost_a_member_do_not_wait_for_each_other_for_ever() {
    let names = ["h1", "h2", "h3", "h4"];
    let hosts = |names: &[&str]| PoolConfig { traits: PREPARES, ..inventory("hosts", names) };
    let mut w = World::new(vec![hosts(&names)]);
    let two = || want_by(Selector::pool("hosts"), 2);
    let sets = [w.ask_all(two()), w.ask_all(two())];
    while w.waits_for(Kind::Provision) > 0 {
        w.works(Kind::Provision);
    }
    for set in &sets {
        assert_eq!(w.states(set), ["PREPARING"; 2]);
    }
    // One of each fails on its host, and the operator takes the two bad machines away.
    let bad = [sets[0][1], sets[1][1]].map(|lease| w.resource(w.on(lease)).item.clone().unwrap());
    for lease in [sets[0][0], sets[0][1], sets[1][0], sets[1][1]] {
        let call = w.take(Kind::Prepare);
        let dud = bad.contains(call.resource.item.as_ref().unwrap());
        assert_eq!(dud, lease == sets[0][1] || lease == sets[1][1]);
        w.answer(&call, dud.then(|| crate::world::failure(Blame::Resource)));
    }
    let left: Vec<&str> = names.into_iter().filter(|name| bad.iter().all(|bad| **bad != **name)).collect();
    w.configure(vec![hosts(&left)]);
    for _ in 0..100 {
        w.all_works();
        w.pass(Millis::secs(30));
        for lease in [sets[0][0], sets[1][0]] {
            w.renew(lease).ok();
        }
    }
    let whole = sets.iter().filter(|set| w.states(set) == ["ACTIVE"; 2]).count();
    assert_eq!(whole, 1, "{:?}: {}", sets.each_ref().map(|set| w.states(set)), w.explain(sets[0][1]));
}

/// The holder waits for the whole set, and knows of no lease that it could renew.
#[test]
fn a_set_does_not_expire_while_its_last_member_is_being_prepared() {
    let mut w = World::new(vec![PoolConfig { traits: PREPARES, ..inventory("hosts", &["h1", "h2"]) }]);
    let set = w.ask_all(want_by(Selector::pool("hosts"), 2));
    w.works(Kind::Provision);
    w.works(Kind::Provision);
    w.works(Kind::Prepare);
    w.pass(Millis::secs(300));
    assert_eq!(w.states(&set), ["ACTIVE", "PREPARING"]);
    w.works(Kind::Prepare);
    assert_eq!(w.states(&set), ["ACTIVE"; 2]);
}

#[test]
fn lockable_75_the_quantity_is_exact() {
    let mut w = World::new(vec![PoolConfig { slots: 3, min_ready: 2, ..inventory("hosts", &["h1", "h2"]) }]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let two = w.ask_all(want_by(Selector::pool("hosts"), 2));
    assert_eq!((two.len(), held(&w, &two)), (2, 2));
    let four = w.ask_all(LeaseRequest { no_queue: true, ..want_by(Selector::pool("hosts"), 4) });
    assert_eq!(w.states(&four), ["ACTIVE"; 4], "all the others are there for others");
    assert!(w.try_ask(LeaseRequest { no_queue: true, ..want("hosts") }).is_err(), "and there are no more");
}

/// Keys and values.
type Pairs<'a> = &'a [(&'a str, &'a str)];

fn labelled(items: &[(&str, Pairs)]) -> PoolConfig {
    let items: Vec<Item> = items
        .iter()
        .map(|(name, pairs)| Item {
            name: Arc::from(*name),
            labels: labels(pairs),
            slots: None,
            enabled: true,
            disabled_reason: None,
        })
        .collect();
    PoolConfig { max: items.len() as u32, min_ready: 2, inventory: Some(items), ..inventory("hosts", &[]) }
}

/// "Limitations" in the README of lockable-resources: a change of labels wakes no waiter.
#[test]
fn lockable_readme_a_new_host_wakes_waiters_and_so_does_a_label_change() {
    let gpu: Pairs = &[("gpu", "yes")];
    let mut w = World::new(vec![labelled(&[("h1", gpu), ("h2", &[])])]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let with_gpu = || want_by(Selector { labels: labels(gpu), ..Selector::default() }, 1);
    let holder = w.ask(with_gpu());
    let waiters = [w.ask(with_gpu()), w.ask(with_gpu())];
    assert_eq!((w.state(holder), w.states(&waiters)), ("ACTIVE", vec!["QUEUED"; 2]));

    // The second machine stands idle; only its description changes.
    w.configure(vec![labelled(&[("h1", gpu), ("h2", gpu)])]);
    assert_eq!(w.states(&waiters), ["ACTIVE", "QUEUED"], "{}", w.explain(waiters[1]));
    w.configure(vec![labelled(&[("h1", gpu), ("h2", gpu), ("h3", gpu)])]);
    w.all_works();
    assert_eq!(w.states(&waiters), ["ACTIVE"; 2]);
}

/// The other half of a label change: what is no longer said of a machine is not promised either.
#[test]
fn lockable_readme_a_label_that_is_taken_away_serves_no_request() {
    let gpu: Pairs = &[("gpu", "yes")];
    let mut w = World::new(vec![labelled(&[("h1", gpu), ("h2", gpu)])]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let with_gpu = || want_by(Selector { labels: labels(gpu), ..Selector::default() }, 1);
    let holder = w.ask(with_gpu());
    let on = w.resource(w.on(holder)).item.clone().unwrap();
    let items: Vec<(&str, Pairs)> =
        ["h1", "h2"].into_iter().map(|name| (name, if *name == *on { gpu } else { &[] })).collect();
    w.configure(vec![labelled(&items)]);
    let waiter = w.ask(with_gpu());
    assert_eq!(w.states(&[holder, waiter]), ["ACTIVE", "QUEUED"], "the other one has it no more");
    w.release(holder, Outcome::Ok);
    assert_eq!(w.state(waiter), "ACTIVE");
}

#[test]
fn lockable_88_who_waits_for_one_kind_does_not_block_a_free_one_of_another() {
    let (linux, mac): (Pairs, Pairs) = (&[("os", "linux")], &[("os", "mac")]);
    let mut w = World::new(vec![labelled(&[("h1", linux), ("h2", linux), ("h3", mac)])]);
    let by = |pairs: Pairs, count| want_by(Selector { labels: labels(pairs), ..Selector::default() }, count);
    let holder = w.ask(by(linux, 1));
    w.all_works();
    let set = w.ask_all(by(linux, 2));
    let other = w.ask(by(mac, 1));
    w.all_works();
    assert_eq!((w.states(&set), w.state(other)), (vec!["QUEUED"; 2], "ACTIVE"), "{}", w.explain(other));
    w.release(holder, Outcome::Ok);
    assert_eq!(w.states(&set), ["ACTIVE"; 2]);
}

/// The conditions of Jumpstarter: Unsatisfiable (not found, mismatch) at once, Pending (busy, offline, disabled) with why.
#[test]
fn jumpstarter_an_unsatisfiable_request_is_refused_at_once_and_a_waiting_one_has_its_reason() {
    let pool = || labelled(&[("h1", &[("os", "linux")]), ("h2", &[("arch", "arm")])]);
    let mut w = World::new(vec![pool()]);
    let by = |pairs: Pairs| want_by(Selector { labels: labels(pairs), ..Selector::default() }, 1);
    let refused = |w: &mut World, request| {
        let no = w.try_ask(request).unwrap_err();
        (no.kind, no.reason)
    };
    assert_eq!(refused(&mut w, want("boats")), (RejectionKind::NotFound, "UNKNOWN_POOL"));
    assert_eq!(refused(&mut w, by(&[("os", "plan9")])), (RejectionKind::NotFound, "UNKNOWN_LABEL"));
    let both: Pairs = &[("os", "linux"), ("arch", "arm")];
    assert_eq!(refused(&mut w, by(both)), (RejectionKind::Precondition, "UNSATISFIABLE"));
    assert_eq!(w.core.leases(None).count(), 0, "none of them is left in line");

    // Offline.
    let waiter = w.ask(by(&[("os", "linux")]));
    for _ in 0..w.waits_for(Kind::Provision) {
        w.fails(Kind::Provision, Blame::Resource);
    }
    assert!(w.explain(waiter).contains("can't be made ready"), "{}", w.explain(waiter));
    // Disabled.
    w.configure(vec![PoolConfig { enabled: false, ..pool() }]);
    assert!(w.explain(waiter).contains("DISABLED"), "{}", w.explain(waiter));
    w.configure(vec![pool()]);
    w.pass(Millis::secs(61));
    w.all_works();
    assert_eq!(w.state(waiter), "ACTIVE");
    // Busy, and where in line.
    let behind = [w.ask(by(&[("os", "linux")])), w.ask(by(&[("os", "linux")]))];
    let places = behind.map(|lease| w.core.explain(lease, w.now, &Scope::All).unwrap().position);
    assert_eq!(places, [1, 2]);
    assert_eq!(w.states(&behind), ["QUEUED"; 2]);
}

#[test]
fn lock_step_timeout_queue_test_a_wait_that_times_out_leaves_nothing_in_the_queue() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"])]);
    let holders = [w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    let for_a_while = LeaseRequest { queue_for: Some(Millis::secs(20)), ..want_by(Selector::pool("hosts"), 2) };
    let hasty = w.ask_all(for_a_while.clone());
    let patient = w.lease("hosts");
    assert_eq!(w.core.explain(patient, w.now, &Scope::All).unwrap().position, 1);

    w.pass(Millis::secs(21));
    assert_eq!(w.states(&hasty), ["FAILED"; 2], "the set as one");
    let waiting = w.core.pools()[0].waiting;
    assert_eq!(waiting, 1, "only the patient one is left");
    w.release(holders[0], Outcome::Ok);
    assert_eq!(w.state(patient), "ACTIVE", "nothing is kept for who went");
    // Slots that were freed for them while they waited are granted at once when they give up.
    let (hasty, patient) = (w.ask_all(for_a_while), w.lease("hosts"));
    w.renew(holders[1]).unwrap();
    w.pass(Millis::secs(19));
    w.release(holders[1], Outcome::Ok);
    assert_eq!(w.state(patient), "QUEUED");
    w.pass(Millis::secs(2));
    assert_eq!((w.states(&hasty), w.state(patient)), (vec!["FAILED"; 2], "ACTIVE"));
    assert_eq!(w.core.pools()[0].waiting, 0);
}

/// Scheduling crawled because its work grew with the queue. A release touches the lease that goes and the one that comes.
#[test]
fn lockable_717_with_a_thousand_waiters_a_release_touches_two_leases() {
    let none = Labels::new();
    let mut w = World::new(vec![PoolConfig { labels: none, ..inventory("hosts", &["h1"]) }]);
    let leases: Vec<LeaseId> = (0..1000).map(|_| w.lease("hosts")).collect();
    w.all_works();
    for pair in leases.windows(2).take(50) {
        w.release(pair[0], Outcome::Ok);
        let mut touched: Vec<LeaseId> = w.last.leases.iter().map(|row| row.id).collect();
        touched.sort();
        let mut both = pair.to_vec();
        both.sort();
        assert_eq!(touched, both);
        assert_eq!(w.state(pair[1]), "ACTIVE");
    }
    assert_eq!(w.core.explain(leases[999], w.now, &Scope::All).unwrap().position, 949);
}
