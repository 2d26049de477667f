//! When a request in line is likely to start, against queues of which the answer is known.

use crate::shares::{by, end, farm};
use crate::world::{Kind, World, inventory, made_at_will, want, want_by};
use std::sync::Arc;
use wharfinger_core::{
    AdminVerb, Core, LeaseId, LeaseRequest, LikelyStart, Limits, Millis, NoStart, PoolConfig, Scope, Selector, Tenant,
};

const MINUTE: Millis = Millis::secs(60);

fn start(w: &World, lease: LeaseId) -> Result<LikelyStart, NoStart> {
    w.core.view(&Scope::All).likely_start(lease, w.now).expect("it waits")
}

/// The range in minutes, rounded down.
fn minutes(w: &World, lease: LeaseId) -> (i64, i64) {
    let start = start(w, lease).unwrap();
    assert!(start.earliest <= start.latest, "{start:?}");
    (start.earliest.0 / MINUTE.0, start.latest.0 / MINUTE.0)
}

fn ask(w: &mut World) -> LeaseId {
    w.ask(by("web", want("hosts")))
}

/// A farm on which 20 leases of ten minutes have ended, one of them after each other.
fn known(machines: usize) -> World {
    let mut w = farm(machines);
    for _ in 0..20 {
        let lease = ask(&mut w);
        w.pass(Millis(10 * MINUTE.0));
        end(&mut w, lease);
    }
    w
}

#[test]
fn a_lease_of_a_kind_that_always_takes_ten_minutes_ends_after_ten() {
    let mut w = known(1);
    let active = ask(&mut w);
    w.pass(Millis(4 * MINUTE.0));
    let line: Vec<LeaseId> = (0..12).map(|_| ask(&mut w)).collect();
    assert_eq!(w.core.view(&Scope::All).likely_start(active, w.now), None, "it does not wait");
    for (n, lease) in line.iter().take(10).enumerate() {
        let (from, to) = minutes(&w, *lease);
        let about = 6 + 10 * n as i64;
        assert!((about - 1..=about + 1).contains(&from) && (about..=about + 1).contains(&to), "{n}: {from} to {to}");
    }
    assert_eq!(start(&w, line[11]).unwrap_err(), NoStart::Far, "ten rounds at most");
    let said = start(&w, line[0]).unwrap();
    assert_eq!(said.basis(), "1 slot; of the last 20 leases here half took at most 10 min");
    // It has lasted longer than each before it: nothing more is known.
    w.pass(Millis(7 * MINUTE.0));
    assert_eq!(start(&w, line[0]).unwrap_err(), NoStart::Far);
}

#[test]
fn no_start_is_known_before_enough_leases_have_ended_unless_their_holders_expect_an_end() {
    let mut w = farm(1);
    let request = LeaseRequest { expected: Some(Millis(30 * MINUTE.0)), ..want("hosts") };
    let busy = w.ask(by("web", request));
    w.pass(Millis(10 * MINUTE.0));
    let (first, second) = (ask(&mut w), ask(&mut w));
    let (from, to) = minutes(&w, first);
    assert!((14..=16).contains(&from) && (24..=26).contains(&to), "20 minutes are left, more or less: {from} to {to}");
    assert_eq!(start(&w, first).unwrap().basis(), "1 slot, by the times that their holders expect");
    assert_eq!(start(&w, second).unwrap_err(), NoStart::Unknown, "of the lease between nothing is known");
    end(&mut w, busy);
    assert_eq!((w.state(first), start(&w, second).unwrap_err()), ("ACTIVE", NoStart::Unknown));
}

#[test]
fn the_times_of_the_same_work_go_before_those_of_the_pool() {
    let mut w = farm(1);
    let of_work = |name: &str| LeaseRequest { work: Some(Arc::from(name)), ..want("hosts") };
    for (work, minutes) in [("short", 2), ("long", 40)] {
        for _ in 0..20 {
            let lease = w.ask(by("web", of_work(work)));
            w.pass(Millis(minutes * MINUTE.0));
            end(&mut w, lease);
        }
    }
    for (work, about) in [("short", 2), ("long", 40)] {
        let lease = w.ask(by("web", of_work(work)));
        let next = ask(&mut w);
        let (from, to) = minutes(&w, next);
        assert!((about - 1..=about).contains(&from) && (about..=about + 1).contains(&to), "{work}: {from} to {to}");
        end(&mut w, lease);
        end(&mut w, next);
    }
}

#[test]
fn those_of_others_who_may_want_the_same_widen_the_range() {
    let mut w = known(1);
    ask(&mut w);
    let large = w.ask(by("web", want_by(Selector { labels: [].into(), ..Selector::default() }, 1)));
    let own = ask(&mut w);
    // A request for anything takes a slot of the pool, so it is before one for the pool for sure.
    assert!(minutes(&w, own).0 >= 18, "{:?}", minutes(&w, own));
    assert!(minutes(&w, large).1 <= 11);
    let mut w = World::new(vec![PoolConfig { min_ready: 2, ..labelled() }]);
    w.all_works();
    let of = |disk: &str| {
        want_by(Selector { labels: crate::world::labels(&[("disk", disk)]), ..Selector::pool("hosts") }, 1)
    };
    for disk in ["a", "b"] {
        for _ in 0..20 {
            let lease = w.ask(by("web", of(disk)));
            w.pass(Millis(10 * MINUTE.0));
            end(&mut w, lease);
        }
    }
    for disk in ["a", "b"] {
        w.ask(by("web", of(disk)));
    }
    let _before: Vec<LeaseId> = (0..3).map(|_| w.ask(by("web", of("b")))).collect();
    let own = w.ask(by("web", of("a")));
    let (from, to) = minutes(&w, own);
    assert!(from <= 11 && to >= 38, "three others may or may not take it: {from} to {to}");
}

/// Two machines with labels of their own.
fn labelled() -> PoolConfig {
    let mut pool = inventory("hosts", &["a", "b"]);
    for item in pool.inventory.iter_mut().flatten() {
        item.labels = crate::world::labels(&[("disk", &item.name.clone())]);
    }
    pool
}

#[test]
fn a_resource_that_is_being_made_counts_by_how_long_makings_took() {
    let pool = PoolConfig { idle: Some(Millis::secs(1)), ..made_at_will("hosts", 1) };
    let mut w = World::new(vec![pool]);
    for _ in 0..5 {
        let lease = ask(&mut w);
        w.pass(Millis(3 * MINUTE.0));
        w.works(Kind::Provision);
        end(&mut w, lease);
        w.pass(Millis::secs(5));
        w.all_works();
    }
    assert!(w.resources_of("hosts").is_empty(), "it was given up");
    let lease = ask(&mut w);
    w.pass(MINUTE);
    let (from, to) = minutes(&w, lease);
    assert!((1..=2).contains(&from) && (2..=3).contains(&to), "{from} to {to}");
}

#[test]
fn each_reason_not_to_say_a_time_has_its_code() {
    let mut w = known(2);
    let pair = w.ask(by("mobile", want_by(Selector::pool("hosts"), 2)));
    let third = w.ask(by("mobile", want_by(Selector::pool("hosts"), 2)));
    w.configure(vec![inventory("hosts", &["h0"])]);
    assert_eq!((w.state(pair), start(&w, third)), ("ACTIVE", Err(NoStart::Never)));
    let mut w = known(1);
    let most = Tenant { max_slots: Some(1), ..Tenant::default() };
    w.set_tenants(&[("web", most), ("*", Tenant::default())]);
    ask(&mut w);
    let own = ask(&mut w);
    assert_eq!(start(&w, own), Err(NoStart::Quota));
    let other = w.ask(by("mobile", want("hosts")));
    assert!(start(&w, other).is_ok());
    w.admin(AdminVerb::CordonPool(Arc::from("hosts"))).unwrap();
    assert_eq!(start(&w, other), Err(NoStart::Closed));
    w.admin(AdminVerb::UncordonPool(Arc::from("hosts"))).unwrap();
    assert!(start(&w, other).is_ok());
}

#[test]
fn a_server_that_follows_learns_the_same_and_a_new_leader_may_take_it_over() {
    let mut w = farm(1);
    let mut other = Core::follow(w.core.snapshot(), w.pools.clone(), Limits::default(), w.now);
    for _ in 0..20 {
        let lease = ask(&mut w);
        other.take_in(&w.last.clone());
        w.pass(Millis(10 * MINUTE.0));
        let caller = wharfinger_core::Caller { ends: Scope::All, sees: Scope::All, ..crate::shares::of("op") };
        let (outcome, note) = (wharfinger_core::Outcome::Ok, Arc::from(""));
        w.step(wharfinger_core::Input::Release { lease, caller, outcome, note, hold: None }).unwrap();
        other.take_in(&w.last.clone());
        w.all_works();
    }
    ask(&mut w);
    other.take_in(&w.last.clone());
    let waits = ask(&mut w);
    other.take_in(&w.last.clone());
    let own = w.core.view(&Scope::All).likely_start(waits, w.now).unwrap().unwrap();
    assert_eq!(other.view(&Scope::All).likely_start(waits, w.now).unwrap(), Ok(own));
    let mut fresh = Core::follow(w.core.snapshot(), w.pools.clone(), Limits::default(), w.now);
    assert_eq!(fresh.view(&Scope::All).likely_start(waits, w.now).unwrap(), Err(NoStart::Unknown));
    fresh.remember(other.learned());
    assert_eq!(fresh.view(&Scope::All).likely_start(waits, w.now).unwrap(), Ok(own));
}
