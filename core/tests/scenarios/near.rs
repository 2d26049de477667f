//! Among free working copies the one that has most of what is wanted already is given.

use crate::world::{World, copies, inventory, texts, want};
use std::sync::Arc;
use wharfinger_core::{AdminVerb, LeaseId, Outcome, PoolConfig, ResourceId, Texts};

fn world() -> World {
    World::new(vec![PoolConfig { slots: 4, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 3)])
}

fn ask(w: &mut World, params: Texts) -> LeaseId {
    let mut request = want("copies");
    request.claims[0].params = Arc::new(params);
    let lease = w.ask(request);
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
    lease
}

/// Three free copies that were last given for branches a, b and c.
fn three(w: &mut World) -> [ResourceId; 3] {
    let leases = ["a", "b", "c"].map(|branch| ask(w, texts("branch", branch)));
    let copies = leases.map(|lease| w.on(lease));
    for lease in leases {
        w.release(lease, Outcome::Ok);
    }
    w.all_works();
    assert!(copies[0] != copies[1] && copies[1] != copies[2]);
    copies
}

#[test]
fn a_copy_goes_to_the_branch_that_it_had() {
    let mut w = world();
    let copies = three(&mut w);
    for (branch, copy) in ["c", "b", "a"].into_iter().zip(copies.iter().rev()) {
        let lease = ask(&mut w, texts("branch", branch));
        assert_eq!(w.on(lease), *copy, "{branch}");
        w.release(lease, Outcome::Ok);
        w.all_works();
    }
}

#[test]
fn the_one_that_has_most_of_it_wins() {
    let mut w = world();
    let both: Texts = texts("branch", "a").into_iter().chain(texts("x-cache", "big")).collect();
    let [one, two] = [texts("branch", "a"), both.clone()].map(|params| ask(&mut w, params));
    let better = w.on(two);
    for lease in [one, two] {
        w.release(lease, Outcome::Ok);
    }
    w.all_works();
    let lease = ask(&mut w, both);
    assert_eq!(w.on(lease), better);
}

#[test]
fn nearness_is_no_reason_to_wait_nor_to_take_what_is_in_doubt() {
    let mut w = world();
    let copies = three(&mut w);
    let near = ask(&mut w, texts("branch", "b"));
    assert_eq!(w.on(near), copies[1]);
    let second = ask(&mut w, texts("branch", "b"));
    assert_ne!(w.on(second), copies[1], "another copy at once, not the near one later");
    w.release(near, Outcome::Tainted);
    w.release(second, Outcome::Ok);
    assert_eq!(w.stands(copies[1]), "SUSPECT");
    let lease = w.ask({
        let mut request = want("copies");
        request.claims[0].params = Arc::new(texts("branch", "b"));
        request
    });
    assert_ne!(w.on(lease), copies[1]);
}

#[test]
fn later_preparations_count_and_a_cordoned_or_new_resource_has_none() {
    let mut w = world();
    let copies = three(&mut w);
    // b's copy takes a turn on main while the others are away.
    let away = ["a", "c"].map(|branch| ask(&mut w, texts("branch", branch)));
    let turn = ask(&mut w, texts("branch", "main"));
    assert_eq!(w.on(turn), copies[1]);
    for lease in away.into_iter().chain([turn]) {
        w.release(lease, Outcome::Ok);
    }
    w.all_works();
    let lease = ask(&mut w, texts("branch", "main"));
    assert_eq!(w.on(lease), copies[1]);
    w.release(lease, Outcome::Ok);
    w.all_works();
    w.admin(AdminVerb::Cordon(copies[1])).unwrap();
    let lease = ask(&mut w, texts("branch", "main"));
    assert_ne!(w.on(lease), copies[1]);
}

#[test]
fn a_restart_forgets_it_and_places_all_the_same() {
    let mut w = world();
    three(&mut w);
    w.restart();
    let lease = ask(&mut w, texts("branch", "c"));
    assert_eq!(w.state(lease), "ACTIVE");
}
