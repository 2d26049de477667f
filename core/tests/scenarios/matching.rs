//! Groups over several selectors and pools: which slots they are given, which are kept for them, what is made for them,
//! and what becomes of a group that never becomes whole.

use crate::world::{Kind, World, copies, failure, inventory, labels, made_at_will, want, want_by};
use std::sync::Arc;
use wharfinger_core::{
    Blame, Caller, Claim, Input, LeaseId, LeaseRequest, Millis, Outcome, PoolConfig, Reason, Scope, Selector, Traits,
};

const PREPARES: Traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };

fn linux() -> Selector {
    Selector { labels: labels(&[("os", "linux")]), ..Selector::default() }
}

fn on_linux(pool: PoolConfig) -> PoolConfig {
    PoolConfig { labels: labels(&[("os", "linux")]), ..pool }
}

/// A group of one lease for each of these selectors.
fn group(selectors: &[Selector]) -> LeaseRequest {
    let claim = |selector: &Selector| Claim::of(selector.clone(), 1);
    LeaseRequest { claims: selectors.iter().map(claim).collect(), ..want("") }
}

/// All machines of the inventories are ready.
fn ready(pools: Vec<PoolConfig>) -> World {
    let all = |pool: PoolConfig| PoolConfig { min_ready: pool.max, ..pool };
    let mut w = World::new(pools.into_iter().map(all).collect());
    w.step(Input::Tick).unwrap();
    w.all_works();
    w
}

fn pool_of(w: &World, lease: LeaseId) -> Arc<str> {
    w.row(lease).pool.clone().expect("it is served")
}

#[test]
fn a_group_keeps_its_slots_when_another_pool_changes() {
    let mut w = ready(vec![on_linux(inventory("a", &["a1", "a2"])), on_linux(inventory("b", &["b1"]))]);
    let (busy_a, busy_b) = (w.lease("a"), w.lease("b"));
    let older = w.ask_all(want_by(Selector::pool("a"), 2));
    assert_eq!(w.states(&older), ["QUEUED"; 2], "one slot of a is kept for it");
    let younger = w.ask(want_by(linux(), 1));
    assert_eq!(w.state(younger), "QUEUED");

    w.release(busy_b, Outcome::Ok);

    assert_eq!(w.state(younger), "ACTIVE");
    assert_eq!(&*pool_of(&w, younger), "b", "the free slot of a is kept, and b has one");
    w.release(busy_a, Outcome::Ok);
    assert_eq!(w.states(&older), ["ACTIVE"; 2]);
}

#[test]
fn a_group_is_matched_in_any_order_of_claims() {
    for names in [["a", "b"], ["b", "a"]] {
        for selectors in [[linux(), Selector::pool("a")], [Selector::pool("a"), linux()]] {
            let pools = names.map(|name| on_linux(inventory(name, &[name])));
            let mut w = ready(pools.to_vec());
            let leases = w.ask_all(group(&selectors));
            assert_eq!(w.states(&leases), ["ACTIVE"; 2], "pools {names:?}: {}", w.explain(leases[0]));
        }
    }
    // Where one order of granting would do, and another would not.
    for names in [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]] {
        let pool = |name: &str| {
            let pairs: &[(&str, &str)] = match name {
                "a" => &[("x", "1"), ("y", "1")],
                "b" => &[("x", "1"), ("z", "1")],
                _ => &[("y", "1"), ("z", "1")],
            };
            PoolConfig { labels: labels(pairs), ..inventory(name, &[name]) }
        };
        let by = |key: &str| Selector { labels: labels(&[(key, "1")]), ..Selector::default() };
        let mut w = ready(names.map(pool).to_vec());
        let leases = w.ask_all(group(&[by("x"), by("y"), by("z")]));
        assert_eq!(w.states(&leases), ["ACTIVE"; 3], "pools {names:?}");
    }
}

#[test]
fn a_slot_kept_for_a_group_moves_for_a_younger_request() {
    let mut w =
        ready(vec![on_linux(inventory("a", &["a1"])), on_linux(inventory("b", &["b1"])), inventory("c", &["c1"])]);
    let busy = w.lease("c");
    let older = w.ask_all(group(&[linux(), Selector::pool("c")]));
    assert_eq!(w.states(&older), ["QUEUED"; 2], "a slot of a is kept for it");
    let younger = w.lease("a");
    assert_eq!(w.state(younger), "ACTIVE", "that of b does as well: {}", w.explain(younger));
    w.release(busy, Outcome::Ok);
    assert_eq!(w.states(&older), ["ACTIVE"; 2]);
    assert_eq!(&*pool_of(&w, older[0]), "b");
}

#[test]
fn claims_on_one_pool_are_summed() {
    let mut w = World::new(vec![on_linux(made_at_will("a", 1)), on_linux(made_at_will("b", 1))]);
    let a = || Selector::pool("a");
    let refused = w.try_ask(group(&[a(), a()])).unwrap_err();
    assert_eq!((refused.reason, &*refused.field), ("UNSATISFIABLE", "claims[1].count"));
    assert!(refused.message.contains("2 slots for pool a together"), "{}", refused.message);
    let refused = w.try_ask(group(&[linux(), a(), linux()])).unwrap_err();
    assert_eq!(refused.reason, "UNSATISFIABLE");
    assert!(refused.message.contains("compete for the same pools"), "{}", refused.message);
    let leases = w.ask_all(group(&[linux(), a()]));
    w.all_works();
    assert_eq!(w.states(&leases), ["ACTIVE"; 2]);
    assert_eq!(w.core.leases(None).count(), 2, "what was refused left nothing");
}

#[test]
fn a_group_that_became_unsatisfiable_waits_and_says_why() {
    let mut w = ready(vec![inventory("a", &["a1", "a2"]), inventory("b", &["b1"])]);
    let busy = [w.lease("a"), w.lease("a"), w.lease("b")];
    let waiting = w.ask_all(group(&[Selector::pool("a"), Selector::pool("a"), Selector::pool("b")]));
    w.configure(vec![inventory("a", &["a1"]), inventory("b", &["b1"])]);
    for lease in busy {
        w.release(lease, Outcome::Ok);
    }
    w.all_works();
    assert_eq!(w.states(&waiting), ["QUEUED"; 3]);
    let explained = w.core.explain(waiting[0], w.now, &Scope::All).unwrap();
    assert!(!explained.satisfiable && explained.summary.contains("for pool a"), "{}", explained.summary);
    let other = w.lease("b");
    assert_eq!(w.state(other), "ACTIVE", "nothing is kept for it");
}

#[test]
fn a_mixed_group_buys_what_it_misses() {
    let mut w = World::new(vec![PoolConfig { min_ready: 1, ..made_at_will("b", 4) }, made_at_will("a", 4)]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let leases = w.ask_all(group(&[Selector::pool("a"), Selector::pool("b")]));
    let made: Vec<Arc<str>> = w.calls.iter().map(|call| call.resource.pool.clone()).collect();
    assert_eq!(made, [Arc::from("a")], "b has a free slot");
    let explained = w.explain(leases[0]);
    assert!(explained.contains("INCOMPLETE: its group has 0 of the 1 slots for pool a"), "{explained}");
    assert!(!explained.contains("for pool b"), "{explained}");
    w.works(Kind::Provision);
    assert_eq!(w.states(&leases), ["ACTIVE"; 2]);
}

#[test]
fn a_missing_slot_is_provisioned_in_a_pool_that_can() {
    // Claims on a|b and on a; a has one slot, which is free, and only b can grow.
    for selectors in [[linux(), Selector::pool("a")], [Selector::pool("a"), linux()]] {
        let mut w = World::new(vec![
            on_linux(PoolConfig { min_ready: 1, ..inventory("a", &["a1"]) }),
            on_linux(made_at_will("b", 3)),
        ]);
        w.step(Input::Tick).unwrap();
        w.all_works();
        let leases = w.ask_all(group(&selectors));
        assert_eq!(w.waits_for(Kind::Provision), 1);
        w.works(Kind::Provision);
        assert_eq!(w.states(&leases), ["ACTIVE"; 2]);
    }
}

#[test]
fn several_waiters_fill_what_is_coming_before_more_is_made() {
    let mut w = World::new(vec![
        on_linux(PoolConfig { slots: 2, ..made_at_will("a", 1) }),
        on_linux(PoolConfig { slots: 2, ..made_at_will("b", 4) }),
    ]);
    let leases: Vec<LeaseId> = (0..5).map(|_| w.ask(want_by(linux(), 1))).collect();
    let made: Vec<Arc<str>> = w.calls.iter().map(|call| call.resource.pool.clone()).collect();
    assert_eq!(made, ["a", "b", "b"].map(Arc::from), "all at once, and not one after the other");
    w.all_works();
    assert_eq!(w.states(&leases), ["ACTIVE"; 5]);
}

#[test]
fn a_copy_waits_for_any_of_the_pools_that_it_may_lie_on() {
    let on = vec![Arc::from("small"), Arc::from("big")];
    let copies = PoolConfig { on, ..copies("copies", "small", 4) };
    let mut w = ready(vec![inventory("small", &["s1"]), inventory("big", &["b1", "b2"])]);
    let mut pools = w.pools.clone();
    pools.push(copies);
    w.configure(pools);
    let busy = [w.lease("small"), w.lease("big"), w.lease("big")];
    let lease = w.lease("copies");
    w.all_works();
    assert_eq!(w.state(lease), "QUEUED");
    assert!(w.explain(lease).contains("NO_HOST"), "{}", w.explain(lease));
    w.restart();
    w.release(busy[2], Outcome::Ok);
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE", "{}", w.explain(lease));
    let copy = w.resource(w.on(lease)).parent.unwrap();
    assert_eq!(&*pool_of(&w, copy.lease), "big");
    assert_eq!(w.row(copy.lease).spec.selector, Arc::new(Selector::pool("big")), "its lease says where it lies");
}

/// A group of two of which one is ACTIVE and one waits for a pool that is switched off.
fn half_a_group() -> (World, Vec<LeaseId>) {
    let pools =
        |on| vec![inventory("a", &["a1"]), PoolConfig { traits: PREPARES, enabled: on, ..inventory("b", &["b1"]) }];
    let mut w = ready(pools(true));
    let leases = w.ask_all(group(&[Selector::pool("a"), Selector::pool("b")]));
    w.fails(Kind::Prepare, Blame::Resource);
    w.configure(pools(false));
    assert_eq!(w.states(&leases), ["ACTIVE", "QUEUED"]);
    (w, leases)
}

#[test]
fn half_a_group_of_a_dead_holder_ends() {
    let (mut w, leases) = half_a_group();
    w.pass(Millis::secs(59));
    assert_eq!(w.states(&leases), ["ACTIVE", "QUEUED"]);
    w.pass(Millis::secs(2));
    assert_eq!(w.states(&leases), ["EXPIRED"; 2]);
    let next = w.lease("a");
    w.all_works();
    assert_eq!(w.state(next), "ACTIVE");
}

#[test]
fn half_a_group_of_a_living_holder_stays() {
    let (mut w, leases) = half_a_group();
    for _ in 0..10 {
        w.pass(Millis::secs(50));
        w.renew(leases[1]).unwrap();
    }
    assert_eq!(w.states(&leases), ["ACTIVE", "QUEUED"], "to renew the member that waits is enough");
    // A repetition of the request waits for it.
    let request = LeaseRequest {
        request_id: w.row(leases[0]).spec.request_id.clone(),
        ..group(&[Selector::pool("a"), Selector::pool("b")])
    };
    for _ in 0..10 {
        w.pass(Millis::secs(50));
        assert_eq!(w.ask_all(request.clone()), leases);
    }
    assert_eq!(w.states(&leases), ["ACTIVE", "QUEUED"]);
    w.pass(Millis::secs(61));
    assert_eq!(w.states(&leases), ["EXPIRED"; 2]);
}

#[test]
fn an_incomplete_group_does_not_give_way_to_a_less_urgent_request() {
    let hosts = |names: &[&str]| PoolConfig { traits: PREPARES, ..inventory("hosts", names) };
    let mut w = ready(vec![hosts(&["h1", "h2", "h3"])]);
    let busy = w.lease("hosts");
    w.works(Kind::Prepare);
    let older = w.ask_all(LeaseRequest { priority: 1, ..want_by(Selector::pool("hosts"), 3) });
    let younger = w.ask_all(LeaseRequest { priority: 2, replace: true, ..want_by(Selector::pool("hosts"), 2) });
    assert_eq!(w.states(&younger), ["PREPARING"; 2]);
    // One of its members goes back to the queue, before the older request: its priority is higher.
    let call = w.take(Kind::Prepare);
    w.answer(&call, Some(failure(Blame::Resource)));
    w.all_works();
    w.renew(busy).unwrap();
    assert!(w.states(&younger).iter().all(|state| *state != "BROKEN"));
    assert_eq!(w.states(&older), ["QUEUED"; 3]);
}

#[test]
fn the_group_that_gives_way_says_so_and_is_replaced_if_it_asked_for_that() {
    let hosts = |names: &[&str]| PoolConfig { traits: PREPARES, ..inventory("hosts", names) };
    let mut w = ready(vec![hosts(&["h1", "h2", "h3", "h4"])]);
    let two = || LeaseRequest { replace: true, ..want_by(Selector::pool("hosts"), 2) };
    let sets = [w.ask_all(two()), w.ask_all(two())];
    let bad = [sets[0][1], sets[1][1]].map(|lease| w.resource(w.on(lease)).item.clone().unwrap());
    for _ in 0..4 {
        let call = w.take(Kind::Prepare);
        let dud = bad.contains(call.resource.item.as_ref().unwrap());
        w.answer(&call, dud.then(|| failure(Blame::Resource)));
    }
    let left: Vec<&str> = ["h1", "h2", "h3", "h4"].into_iter().filter(|n| bad.iter().all(|b| **b != **n)).collect();
    w.configure(vec![hosts(&left)]);
    w.all_works();
    assert_eq!(w.states(&sets[0]), ["ACTIVE"; 2], "{}", w.explain(sets[0][1]));
    assert_eq!(w.states(&sets[1]), ["BROKEN"; 2]);
    let cause = &w.cause(sets[1][0])[0];
    assert_eq!(cause.reason, Reason::Policy);
    assert!(cause.detail.contains("gave way to"), "{}", cause.detail);
    w.release(sets[0][0], Outcome::Ok);
    w.all_works();
    let waiting = w.core.leases(None).filter(|row| row.spec.replaces.is_some()).map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(w.states(&waiting), ["ACTIVE"; 2], "its successors have its place");
}

#[test]
fn the_limit_of_each_pool_holds_for_each_member() {
    let strict = PoolConfig { max_ttl: Millis::secs(60), ..on_linux(inventory("strict", &["s1"])) };
    let mut w = ready(vec![strict, on_linux(inventory("free", &["f1"]))]);
    let request = LeaseRequest { ttl: Some(Millis::secs(600)), ..group(&[linux(), linux()]) };
    let leases = w.ask_all(request);
    let left = |w: &World, n: usize| w.row(leases[n]).expires_at.unwrap().since(w.now);
    let of = |w: &World, name: &str| (0..2).find(|n| &*pool_of(w, leases[*n]) == name).unwrap();
    let (s, f) = (of(&w, "strict"), of(&w, "free"));
    assert_eq!((left(&w, s), left(&w, f)), (Millis::secs(60), Millis::secs(600)));
    assert_eq!(w.row(leases[s]).spec.ttl, Millis::secs(60), "its holder sees how often it has to renew");
    w.pass(Millis::secs(30));
    w.renew(leases[s]).unwrap();
    assert_eq!((left(&w, s), left(&w, f)), (Millis::secs(60), Millis::secs(600)));
    let (lease, caller) = (leases[f], Caller::sole_tenant("ann"));
    w.step(Input::Renew { lease, caller, ttl: Some(Millis::secs(300)) }).unwrap();
    assert_eq!((left(&w, s), left(&w, f)), (Millis::secs(60), Millis::secs(300)));
    let too_long = Input::Renew { lease: leases[s], caller: Caller::sole_tenant("ann"), ttl: Some(Millis::secs(61)) };
    assert_eq!(w.step(too_long).unwrap_err().reason, "TTL_TOO_LONG");
}

#[test]
fn an_outcome_is_of_the_named_lease_only() {
    let traits = Traits { cleans: true, ..PREPARES };
    let mut w = ready(vec![PoolConfig { traits, ..inventory("hosts", &["h1", "h2", "h3"]) }]);
    for outcome in [Outcome::Failed, Outcome::Tainted] {
        let leases = w.ask_all(want_by(Selector::pool("hosts"), 3));
        w.all_works();
        let on: Vec<_> = leases.iter().map(|lease| w.on(*lease)).collect();
        w.release(leases[1], outcome);
        assert_eq!(w.states(&leases), ["RELEASED"; 3]);
        assert_eq!([0, 1, 2].map(|n| w.stands(on[n])), ["READY", "SUSPECT", "READY"]);
        assert_eq!([0, 1, 2].map(|n| !w.resource(on[n]).failures.is_empty()), [false, true, false]);
        assert_eq!(w.waits_for(Kind::Clean), 3, "each slot is cleaned");
        assert!(w.explain(leases[0]).contains("released by its holder: OK"), "{}", w.explain(leases[0]));
        w.all_works();
    }
}

#[test]
fn nothing_is_made_while_a_kept_slot_can_be_had_for_one_that_is_being_made() {
    let hosts = PoolConfig { slots: 2, min_ready: 1, ..on_linux(inventory("hosts", &["h1", "h2"])) };
    let boats = PoolConfig { slots: 4, ..on_linux(made_at_will("boats", 2)) };
    let mut w = World::new(vec![hosts, boats]);
    w.all_works();
    let all = w.ask_all(group(&[Selector::pool("boats"), linux(), linux()]));
    assert_eq!((w.states(&all), w.resources_of("boats").len()), (vec!["QUEUED"; 3], 1));
    let others = [w.lease("hosts"), w.lease("hosts")];
    // Both slots of the host are kept for the group, whose leases have other slots once the boat is ready.
    assert_eq!((w.states(&others), w.resources_of("hosts").len()), (vec!["QUEUED"; 2], 1));
    w.all_works();
    assert_eq!((w.states(&all), w.states(&others)), (vec!["ACTIVE"; 3], vec!["ACTIVE"; 2]));
}

#[test]
fn nothing_is_made_for_a_group_that_can_have_a_slot_kept_for_another_group() {
    let hosts = PoolConfig { slots: 2, max: 1, ..on_linux(inventory("hosts", &["h1"])) };
    let boats = PoolConfig { slots: 2, min_ready: 1, ..on_linux(made_at_will("boats", 3)) };
    let macs = inventory("macs", &["m1"]);
    let mut w = World::new(vec![boats.clone(), hosts.clone(), macs.clone()]);
    w.all_works();
    let busy = w.lease("macs");
    w.all_works();
    w.configure(vec![boats, PoolConfig { min_ready: 1, ..hosts }, macs]);
    let count = |w: &World| (w.resources_of("hosts").len(), w.resources_of("boats").len());
    assert_eq!(count(&w), (1, 1), "a boat is ready, and a host is being made");
    let wants = [Selector::pool("boats"), linux(), Selector::pool("macs")];
    let (first, second) = (w.ask_all(group(&wants)), w.ask_all(group(&wants)));
    assert_eq!((w.states(&first), w.states(&second)), (vec!["QUEUED"; 3], vec!["QUEUED"; 3]));
    assert_eq!(count(&w), (1, 1));
    w.all_works();
    w.release(busy, Outcome::Ok);
    assert_eq!(w.states(&first), ["ACTIVE"; 3]);
}
