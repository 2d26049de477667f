//! Quotas of a tenant: leases at once, requests in the queue, and lengths of time.

use crate::shares::{by, end, farm, of, weight};
use crate::world::{World, inventory, labels, made_at_will, want, want_by};
use std::sync::Arc;
use wharfinger_core::{
    Core, Input, LeaseId, LeaseRequest, Limits, Millis, PoolConfig, RejectionKind, Reply, Scope, Selector, Tenant,
};

fn most(max_slots: u32) -> Tenant {
    Tenant { max_slots: Some(max_slots), ..Tenant::default() }
}

fn refused(w: &mut World, request: LeaseRequest) -> (RejectionKind, &'static str, String) {
    let refused = w.try_ask(request).expect_err("it is refused");
    (refused.kind, refused.reason, refused.field)
}

#[test]
fn a_tenant_at_its_quota_waits_beside_free_slots_and_others_do_not() {
    let mut w = farm(4);
    w.set_tenants(&[("web", most(2)), ("*", weight(1))]);
    let web: Vec<LeaseId> = (0..4).map(|_| w.ask(by("web", want("hosts")))).collect();
    assert_eq!(w.states(&web), ["ACTIVE", "ACTIVE", "QUEUED", "QUEUED"]);
    let other = w.ask(by("mobile", want("hosts")));
    assert_eq!(w.state(other), "ACTIVE");
    let text = w.explain(web[2]);
    assert!(text.contains("TENANT_QUOTA: tenant web holds 2 of the 2 slots that it may"), "{text}");
    assert!(text.contains("max_slots"), "the remedy is said: {text}");
    end(&mut w, web[0]);
    assert_eq!(w.states(&web), ["RELEASED", "ACTIVE", "ACTIVE", "QUEUED"]);
    w.set_tenants(&[("*", weight(1))]);
    assert_eq!(w.state(web[3]), "ACTIVE", "a reload that lifts the quota serves who waited for it");
}

#[test]
fn a_follower_that_takes_several_changes_at_once_counts_each_slot_once() {
    let mut w = World::new(vec![PoolConfig { min_ready: 1, ..inventory("hosts", &["h"]) }]);
    w.all_works();
    let first = w.ask(by("web", want("hosts")));
    w.all_works();
    let next = w.ask(by("web", want("hosts")));
    let host = w.on(first);
    let mut other = Core::follow(w.core.snapshot(), w.pools.clone(), Limits::default(), w.now);
    end(&mut w, first);
    w.all_works();
    assert_eq!(w.states(&[first, next]), ["RELEASED", "ACTIVE"]);
    // The first lease is forgotten before the follower reads that the next one has its slot.
    let mut batch = w.last.clone();
    batch.leases = vec![Arc::new(w.row(next).clone())];
    batch.resources = vec![Arc::new(w.resource(host).clone())];
    batch.forgotten_leases = vec![first];
    other.take_in(&batch);
    assert_eq!(other.check_invariants(), Ok(()));
}

#[test]
fn nothing_is_made_for_requests_beyond_the_quota() {
    let mut w = World::new(vec![made_at_will("hosts", 20)]);
    w.set_tenants(&[("*", most(3))]);
    for _ in 0..10 {
        w.ask(by("web", want("hosts")));
    }
    assert_eq!(w.resources_of("hosts").len(), 3);
    for _ in 0..2 {
        w.ask(by("mobile", want("hosts")));
    }
    assert_eq!(w.resources_of("hosts").len(), 5);
    w.set_tenants(&[("web", weight(1)), ("*", most(3))]);
    assert_eq!(w.resources_of("hosts").len(), 12, "a tenant without a quota gets what it wants");
}

#[test]
fn a_quota_that_falls_free_in_one_pool_serves_who_waits_in_another() {
    let mut w = World::new(vec![
        PoolConfig { min_ready: 1, ..inventory("hosts", &["h"]) },
        PoolConfig { min_ready: 1, ..inventory("macs", &["m"]) },
    ]);
    w.all_works();
    w.set_tenants(&[("*", most(1))]);
    let host = w.ask(by("web", want("hosts")));
    let mac = w.ask(by("web", want("macs")));
    assert_eq!(w.state(mac), "QUEUED");
    end(&mut w, host);
    assert_eq!(w.state(mac), "ACTIVE");
}

#[test]
fn a_quota_holds_while_slots_are_cleaned_and_over_a_restart() {
    let mut w = World::new(vec![PoolConfig {
        min_ready: 2,
        traits: wharfinger_core::Traits { cleans: true, prepares: false, repairs: false, probes: false },
        ..inventory("hosts", &["a", "b"])
    }]);
    w.all_works();
    w.set_tenants(&[("*", most(1))]);
    let first = w.ask(by("web", want("hosts")));
    let next = w.ask(by("web", want("hosts")));
    let caller = of("web");
    let (outcome, note) = (wharfinger_core::Outcome::Ok, Arc::from(""));
    w.step(Input::Release { lease: first, caller, outcome, note, hold: None }).unwrap();
    assert_eq!(w.state(next), "QUEUED", "the slot is its tenant's until it is clean");
    w.restart();
    assert_eq!(w.state(next), "QUEUED");
    w.all_works();
    assert_eq!(w.state(next), "ACTIVE");
}

#[test]
fn the_rest_of_the_quota_is_kept_for_the_first_request_of_the_tenant() {
    let mut w = farm(6);
    w.set_tenants(&[("*", most(4))]);
    let held: Vec<LeaseId> = (0..3).map(|_| w.ask(by("web", want("hosts")))).collect();
    let group = w.ask_all(by("web", want_by(Selector::pool("hosts"), 3)));
    let single = w.ask(by("web", want("hosts")));
    assert_eq!(w.state(single), "QUEUED");
    for lease in &held[..2] {
        end(&mut w, *lease);
    }
    assert_eq!((w.state(group[0]), w.state(single)), ("ACTIVE", "QUEUED"));
}

#[test]
fn a_request_that_does_not_queue_is_refused_by_the_quota_at_once() {
    let mut w = farm(2);
    w.set_tenants(&[("*", most(1))]);
    let at_once = |tenant: &str| by(tenant, LeaseRequest { no_queue: true, ..want("hosts") });
    w.ask(at_once("web"));
    let told = refused(&mut w, at_once("web"));
    assert_eq!(told, (RejectionKind::Quota, "TENANT_QUOTA", "tenant:web".into()));
    w.ask(at_once("mobile"));
    assert_eq!(refused(&mut w, at_once("other")).1, "NO_CAPACITY", "within its quota it is told of the farm");
}

#[test]
fn more_than_the_quota_at_once_is_refused_for_ever() {
    let mut w = farm(6);
    w.set_tenants(&[("*", most(4))]);
    let five = by("web", want_by(Selector::pool("hosts"), 5));
    assert_eq!(refused(&mut w, five.clone()), (RejectionKind::Precondition, "NEVER_WITHIN_QUOTA", "count".into()));
    w.set_tenants(&[]);
    let held = w.ask_all(by("mobile", want_by(Selector::pool("hosts"), 6)));
    let waits = w.ask_all(five);
    w.set_tenants(&[("*", most(4))]);
    end(&mut w, held[0]);
    assert_eq!(w.state(waits[0]), "QUEUED", "a quota that is lowered fails nothing, and grants nothing beyond it");
    let text = w.explain(waits[0]);
    assert!(text.contains("NEVER_WITHIN_QUOTA: it wants 5 slots at once"), "{text}");
    let explained = w.core.explain(waits[0], w.now, &Scope::All).unwrap();
    assert!(!explained.satisfiable);
}

#[test]
fn a_quota_that_is_lowered_breaks_nothing() {
    let mut w = farm(4);
    let held: Vec<LeaseId> = (0..3).map(|_| w.ask(by("web", want("hosts")))).collect();
    w.set_tenants(&[("*", most(1))]);
    assert_eq!(w.states(&held), ["ACTIVE"; 3]);
    let next = w.ask(by("web", want("hosts")));
    end(&mut w, held[0]);
    end(&mut w, held[1]);
    assert_eq!(w.state(next), "QUEUED");
    end(&mut w, held[2]);
    assert_eq!(w.state(next), "ACTIVE");
}

#[test]
fn a_tenant_has_its_own_end_of_the_queue() {
    let mut w = farm(1);
    w.set_tenants(&[("web", Tenant { max_queue: Some(2), ..Tenant::default() }), ("*", weight(1))]);
    for _ in 0..3 {
        w.ask(by("web", want("hosts")));
    }
    let rejection = w.try_ask(by("web", want("hosts"))).expect_err("its part of the queue is full");
    assert_eq!((rejection.kind, rejection.reason), (RejectionKind::Quota, "TENANT_QUEUE_FULL"));
    let wait = rejection.retry_after.expect("it says when to try again").0;
    assert!((8000..12_000).contains(&wait), "{wait}");
    w.ask(by("mobile", want("hosts")));
}

#[test]
fn the_listing_says_what_each_tenant_holds_waits_for_and_may_have() {
    let mut w = farm(4);
    w.set_tenants(&[("web", Tenant { max_queue: Some(5), ..most(2) }), ("data", weight(3)), ("*", weight(1))]);
    for _ in 0..3 {
        w.ask(by("web", want("hosts")));
    }
    w.ask(by("mobile", want("hosts")));
    w.pass(Millis::secs(20));
    let all = w.core.view(&Scope::All).tenants();
    let rows: Vec<_> = all.iter().map(|row| (&*row.name, row.named, row.slots, row.waiting)).collect();
    assert_eq!(rows, [("data", true, 0, 0), ("mobile", false, 1, 0), ("web", true, 2, 1)]);
    let web = &all[2];
    assert_eq!((web.limits.max_slots, web.limits.max_queue, web.limits.weight), (Some(2), Some(5), 1));
    assert_eq!((web.by_pool.get("hosts"), web.oldest_wait), (Some(&2), Some(Millis::secs(20))));
    assert_eq!((all[0].limits.weight, all[0].oldest_wait), (3, None));
    let own = w.core.view(&Scope::Tenant(Arc::from("mobile"))).tenants();
    assert_eq!(own, all[1..2], "others see their own");
    w.set_tenants(&[("web", most(2))]);
    let all = w.core.view(&Scope::All).tenants();
    assert_eq!((&*all[0].name, all[0].limits.max_slots), ("mobile", Some(0)), "one that left the configuration");
}

#[test]
fn a_successor_is_not_refused_by_a_full_queue() {
    let mut w = farm(1);
    w.set_tenants(&[("*", Tenant { max_queue: Some(1), ..Tenant::default() })]);
    let lease = w.ask(by("web", LeaseRequest { replace: true, ..want("hosts") }));
    w.ask(by("web", want("hosts")));
    w.notice(w.on(lease), wharfinger_core::NoticeKind::Gone);
    let successors = w.core.leases(None).filter(|row| row.spec.replaces == Some(lease)).count();
    assert_eq!((w.state(lease), successors), ("BROKEN", 1));
}

#[test]
fn a_tenant_that_is_not_configured_requests_nothing_and_loses_nothing() {
    let mut w = farm(2);
    let held = w.ask(by("web", want("hosts")));
    w.ask(by("mobile", want("hosts")));
    let waits = w.ask(by("web", want("hosts")));
    w.set_tenants(&[("mobile", weight(1))]);
    assert_eq!(refused(&mut w, by("web", want("hosts"))).1, "TENANT_UNKNOWN");
    assert_eq!(w.states(&[held, waits]), ["ACTIVE", "QUEUED"]);
    w.step(Input::Renew { lease: held, caller: of("web"), ttl: None }).unwrap();
    end(&mut w, held);
    assert_eq!(w.state(waits), "QUEUED");
    assert!(w.explain(waits).contains("the configuration has no tenant web"), "{}", w.explain(waits));
    w.set_tenants(&[("web", weight(1)), ("mobile", weight(1))]);
    assert_eq!(w.state(waits), "ACTIVE");
}

#[test]
fn a_lease_lives_as_long_as_its_tenant_and_its_rule_allow() {
    let mut w = farm(3);
    w.set_tenants(&[("web", Tenant { total: Some(Millis::secs(100)), ..Tenant::default() }), ("*", weight(1))]);
    let short = |request| LeaseRequest { ttl: Some(Millis::secs(60)), ..by("web", request) };
    let lease = w.ask(short(want("hosts")));
    let by_rule = w.ask(LeaseRequest { total: Some(Millis::secs(80)), ..short(want("hosts")) });
    let longer = w.ask(LeaseRequest { total: Some(Millis::secs(800)), ..short(want("hosts")) });
    let began = w.now;
    let told = |w: &World, id| w.row(id).expires_at_most.map(|at| at.since(began));
    assert_eq!(told(&w, lease), Some(Millis::secs(100)));
    assert_eq!(told(&w, by_rule), Some(Millis::secs(80)), "the shorter one holds");
    assert_eq!(told(&w, longer), Some(Millis::secs(100)));
    w.pass(Millis::secs(50));
    let renew = |w: &mut World| w.step(Input::Renew { lease, caller: of("web"), ttl: Some(Millis::secs(60)) });
    let Ok(Reply::Leases(rows)) = renew(&mut w) else { panic!("it has time left") };
    assert_eq!(rows[0].expires_at, Some(began.after(Millis::secs(100))), "a renewal goes up to the end, and says so");
    w.restart();
    assert_eq!(told(&w, lease), Some(Millis::secs(100)), "it is stored");
    w.pass(Millis::secs(40));
    assert!(renew(&mut w).is_ok(), "there is some left");
    w.pass(Millis::secs(30));
    assert_eq!(w.state(lease), "EXPIRED");
    assert!(renew(&mut w).is_err());
}

#[test]
fn after_its_longest_life_a_lease_is_not_renewed_though_a_restart_kept_it() {
    let mut w = farm(1);
    w.set_tenants(&[("*", Tenant { total: Some(Millis::secs(60)), ..Tenant::default() })]);
    let lease = w.ask(LeaseRequest { ttl: Some(Millis::secs(60)), ..by("web", want("hosts")) });
    w.now = w.now.after(Millis::secs(61));
    w.restart();
    assert_eq!(w.state(lease), "ACTIVE", "within the grace of a restart nothing expires");
    let refused = w.step(Input::Renew { lease, caller: of("web"), ttl: None }).unwrap_err();
    assert_eq!((refused.kind, refused.reason), (RejectionKind::Precondition, "LEASE_AT_ITS_MOST"));
}

#[test]
fn a_lease_without_a_longest_life_has_none() {
    let mut w = farm(1);
    let lease = w.ask(by("web", want("hosts")));
    assert_eq!(w.row(lease).expires_at_most, None);
}

#[test]
fn a_request_that_no_release_can_meet_keeps_no_other_one_of_its_tenant_waiting() {
    let linux = || Selector { labels: labels(&[("os", "linux")]), ..Selector::default() };
    let on_linux = |pool: PoolConfig| PoolConfig { labels: labels(&[("os", "linux")]), ..pool };
    let hosts = on_linux(PoolConfig { min_ready: 4, ..inventory("hosts", &["a", "b", "c", "d"]) });
    let red = on_linux(made_at_will("red", 3));
    let tenants = |most: u32| [("*", Tenant { max_slots: Some(most), ..Tenant::default() })];
    let mut w = World::new(vec![hosts.clone(), red.clone()]);
    w.all_works();
    w.set_tenants(&tenants(3));
    let first = w.ask(by("web", want_by(linux(), 1)));
    // Its pool is switched off while it waits.
    let group = w.ask_all(by("web", want_by(Selector::pool("red"), 3)));
    w.configure(vec![hosts, PoolConfig { enabled: false, ..red }]);
    w.set_tenants(&tenants(3));
    let behind = w.ask(by("web", want_by(linux(), 1)));
    assert_eq!((w.state(first), w.states(&group), w.state(behind)), ("ACTIVE", vec!["QUEUED"; 3], "ACTIVE"));
}

#[test]
fn a_request_larger_than_a_lowered_quota_keeps_no_other_one_of_its_tenant_waiting() {
    let mut w = farm(4);
    w.set_tenants(&[("*", most(4))]);
    let held = w.ask_all(by("web", want_by(Selector::pool("hosts"), 2)));
    let group = w.ask_all(by("web", want_by(Selector::pool("hosts"), 4)));
    w.set_tenants(&[("*", most(3))]);
    let behind = w.ask(by("web", want("hosts")));
    assert_eq!((w.states(&held), w.states(&group), w.state(behind)), (vec!["ACTIVE"; 2], vec!["QUEUED"; 4], "ACTIVE"));
    let text = w.explain(group[0]);
    assert!(text.contains("NEVER_WITHIN_QUOTA"), "{text}");
}
