//! The order of tenants: priority, share, age, and patience.

use crate::world::{World, copies, inventory, made_at_will, want, want_by};
use std::sync::Arc;
use wharfinger_core::{
    Caller, Claim, DoubtPolicy, LeaseId, LeaseRequest, Millis, NoticeKind, Outcome, PoolConfig, Scope, Selector,
    Tenant, Traits,
};

pub(crate) fn of(tenant: &str) -> Caller {
    let (tenant, principal): (Arc<str>, Arc<str>) = (Arc::from(tenant), Arc::from("ci"));
    let own = Scope::Own { tenant: tenant.clone(), principal: principal.clone() };
    Caller { tenant, principal, sees: own.clone(), ends: own, proved: None }
}

pub(crate) fn by(tenant: &str, request: LeaseRequest) -> LeaseRequest {
    LeaseRequest { caller: of(tenant), ttl: Some(Millis::secs(3600)), ..request }
}

pub(crate) fn weight(weight: u32) -> Tenant {
    Tenant { weight, ..Tenant::default() }
}

/// Machines that are ready.
pub(crate) fn farm(machines: usize) -> World {
    let names: Vec<String> = (0..machines).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut w = World::new(vec![PoolConfig { min_ready: machines as u32, ..inventory("hosts", &names) }]);
    w.all_works();
    w
}

pub(crate) fn end(w: &mut World, lease: LeaseId) {
    let caller = Caller { ends: Scope::All, sees: Scope::All, ..of("op") };
    let (outcome, note) = (Outcome::Ok, Arc::from(""));
    w.step(wharfinger_core::Input::Release { lease, caller, outcome, note, hold: None }).unwrap();
    w.all_works();
}

fn active(w: &World, leases: &[LeaseId]) -> usize {
    leases.iter().filter(|id| w.state(**id) == "ACTIVE").count()
}

/// The tenants' active leases: (web, mobile).
fn shares(w: &World) -> (usize, usize) {
    let of = |tenant: &str| {
        let own = |id: &LeaseId| &*w.row(*id).spec.tenant == tenant && w.state(*id) == "ACTIVE";
        w.core.leases(None).map(|lease| lease.id).filter(own).count()
    };
    (of("web"), of("mobile"))
}

#[test]
fn behind_ten_thousand_requests_of_one_tenant_the_first_of_another_is_next() {
    let mut w = farm(4);
    let long: Vec<LeaseId> = (0..300).map(|_| w.ask(by("web", want("hosts")))).collect();
    assert_eq!(active(&w, &long), 4);
    let other = w.ask(by("mobile", want("hosts")));
    let own = w.ask(by("web", want("hosts")));
    end(&mut w, long[0]);
    assert_eq!((w.state(other), w.state(own)), ("ACTIVE", "QUEUED"));
    end(&mut w, other);
    assert_eq!(active(&w, &long), 4, "alone it has everything again");
}

#[test]
fn tenants_share_by_weight_while_all_have_requests_in_line() {
    let mut w = farm(8);
    w.set_tenants(&[("web", weight(3)), ("*", weight(1))]);
    for _ in 0..80 {
        w.ask(by("web", want("hosts")));
    }
    for _ in 0..80 {
        w.ask(by("mobile", want("hosts")));
    }
    assert_eq!(shares(&w), (8, 0), "who came first found all of it free");
    for turn in 0..24 {
        let oldest = w.core.leases(None).find(|lease| w.state(lease.id) == "ACTIVE").map(|lease| lease.id).unwrap();
        end(&mut w, oldest);
        let (web, mobile) = shares(&w);
        assert_eq!(web + mobile, 8);
        assert!(
            turn < 8 || (web, mobile) == (6, 2) || (web, mobile) == (7, 1) || (web, mobile) == (5, 3),
            "{web} {mobile}"
        );
    }
    w.set_tenants(&[("*", weight(1))]);
    for _ in 0..16 {
        let oldest = w.core.leases(None).find(|lease| w.state(lease.id) == "ACTIVE").map(|lease| lease.id).unwrap();
        end(&mut w, oldest);
    }
    assert_eq!(shares(&w), (4, 4), "a reload changes the weights");
}

#[test]
fn the_size_of_a_request_counts_so_that_splitting_work_gains_nothing() {
    let mut w = farm(6);
    let all = w.ask_all(by("idle", want_by(Selector::pool("hosts"), 6)));
    let big: Vec<LeaseId> = (0..4).flat_map(|_| w.ask_all(by("web", want_by(Selector::pool("hosts"), 3)))).collect();
    let small: Vec<LeaseId> = (0..12).map(|_| w.ask(by("mobile", want("hosts")))).collect();
    end(&mut w, all[0]);
    assert_eq!((active(&w, &big), active(&w, &small)), (3, 3));
}

#[test]
fn priority_goes_before_share() {
    let mut w = farm(1);
    let first = w.ask(by("web", want("hosts")));
    let light = w.ask(by("mobile", want("hosts")));
    let urgent = w.ask(by("web", LeaseRequest { priority: 1, ..want("hosts") }));
    end(&mut w, first);
    assert_eq!((w.state(urgent), w.state(light)), ("ACTIVE", "QUEUED"));
}

#[test]
fn within_a_tenant_priority_and_age_decide_as_where_there_is_one() {
    let mut w = farm(2);
    let held = [w.ask(by("web", want("hosts"))), w.ask(by("mobile", want("hosts")))];
    let group = w.ask_all(by("web", want_by(Selector::pool("hosts"), 2)));
    let single = w.ask(by("web", want("hosts")));
    end(&mut w, held[0]);
    assert_eq!(w.state(single), "QUEUED", "its slot is kept for the older request of the tenant");
    end(&mut w, held[1]);
    assert_eq!(w.states(&group), ["ACTIVE"; 2]);
}

#[test]
fn a_big_group_is_not_starved_by_small_requests_of_light_tenants() {
    let mut w = farm(4);
    let names: Vec<String> = (0..40).map(|n| format!("light-{n}")).collect();
    let mut held: Vec<LeaseId> = (0..4).map(|n| w.ask(by(&names[n], want("hosts")))).collect();
    let group = w.ask_all(by("web", want_by(Selector::pool("hosts"), 4)));
    let mut next = 4;
    let mut rounds = 0;
    while w.state(group[0]) == "QUEUED" {
        rounds += 1;
        assert!(rounds < 30, "it waits for ever");
        held.push(w.ask(by(&names[next % 40], want("hosts"))));
        next += 1;
        w.pass(Millis::secs(60));
        let done = held.remove(0);
        end(&mut w, done);
        held.retain(|id| ["ACTIVE", "QUEUED"].contains(&w.state(*id)));
    }
    assert!((14..22).contains(&rounds), "patience is 15 min, and four slots have to fall free: {rounds} min");
}

#[test]
fn a_long_line_of_old_requests_owns_nothing_after_its_patience() {
    let mut w = farm(4);
    let long: Vec<LeaseId> = (0..60).map(|_| w.ask(by("web", want("hosts")))).collect();
    w.pass(Millis::secs(1000));
    let mut fresh: Vec<LeaseId> = (0..20).map(|_| w.ask(by("mobile", want("hosts")))).collect();
    for lease in &long[..4] {
        end(&mut w, *lease);
    }
    fresh.retain(|id| w.state(*id) == "ACTIVE");
    assert_eq!((active(&w, &long), fresh.len()), (2, 2), "one of them goes by age, the others by share");
}

#[test]
fn a_stream_of_urgent_work_starves_no_one() {
    let mut w = farm(1);
    let mut held = w.ask(by("web", LeaseRequest { priority: 2, ..want("hosts") }));
    let patient = w.ask(by("web", want("hosts")));
    let mut minutes = 0;
    while w.state(patient) == "QUEUED" {
        let next = w.ask(by("web", LeaseRequest { priority: 2, ..want("hosts") }));
        w.pass(Millis::secs(60));
        end(&mut w, held);
        held = next;
        minutes += 1;
        assert!(minutes < 60, "it waits for ever");
    }
    assert_eq!(minutes, 30, "two levels are two spans of patience");
}

#[test]
fn slots_that_are_kept_for_a_request_go_to_another_when_its_patience_is_over() {
    let mut w = farm(3);
    let held = w.ask(by("light", want("hosts")));
    let others = [w.ask(by("web", want("hosts"))), w.ask(by("web", want("hosts")))];
    let heavy: Vec<LeaseId> = (0..2).map(|_| w.ask(by("web", want("hosts")))).collect();
    w.pass(Millis::secs(300));
    let group = w.ask_all(by("mobile", want_by(Selector::pool("hosts"), 2)));
    end(&mut w, held);
    assert_eq!(w.state(heavy[0]), "QUEUED", "by share the group is next, and one of its slots is kept");
    w.pass(Millis::secs(700));
    assert_eq!((w.state(heavy[0]), w.state(heavy[1])), ("ACTIVE", "QUEUED"), "nothing but time went by");
    for lease in others.into_iter().chain([heavy[0]]) {
        end(&mut w, lease);
    }
    assert_eq!(w.states(&group), ["ACTIVE"; 2]);
}

#[test]
fn the_patience_of_a_tenant_in_one_pool_says_nothing_of_another_pool() {
    let mut w = World::new(vec![
        PoolConfig { min_ready: 1, ..inventory("hosts", &["h"]) },
        PoolConfig { min_ready: 1, ..inventory("macs", &["m"]) },
    ]);
    w.all_works();
    let (host, mac) = (w.ask(by("mobile", want("hosts"))), w.ask(by("mobile", want("macs"))));
    let old = [w.ask(by("web", want("hosts"))), w.ask(by("web", want("macs")))];
    w.pass(Millis::secs(1000));
    for pool in ["hosts", "macs"] {
        w.ask(by("other", want(pool)));
    }
    end(&mut w, host);
    end(&mut w, mac);
    assert_eq!(w.states(&old), ["ACTIVE"; 2]);
}

#[test]
fn slots_of_one_kind_of_pool_are_no_share_of_another() {
    let mut w = World::new(vec![
        PoolConfig { min_ready: 3, ..inventory("macs", &["m1", "m2", "m3"]) },
        PoolConfig { min_ready: 1, ..inventory("hosts", &["h"]) },
    ]);
    w.all_works();
    for _ in 0..3 {
        w.ask(by("mobile", want("macs")));
    }
    let host = w.ask(by("web", want("hosts")));
    let first = w.ask(by("mobile", want("hosts")));
    w.ask(by("web", want("hosts")));
    end(&mut w, host);
    assert_eq!(w.state(first), "ACTIVE");
}

#[test]
fn copies_and_hosts_are_shared_by_those_who_want_them() {
    let hosts = PoolConfig { min_ready: 4, ..inventory("hosts", &["a", "b", "c", "d"]) };
    let mut w = World::new(vec![hosts, copies("copies", "hosts", 4)]);
    w.all_works();
    let own: Vec<LeaseId> = (0..4).map(|_| w.ask(by("web", want("hosts")))).collect();
    assert_eq!(active(&w, &own), 4);
    let on_copies: Vec<LeaseId> = (0..6).map(|_| w.ask(by("mobile", want("copies")))).collect();
    let more: Vec<LeaseId> = (0..6).map(|_| w.ask(by("web", want("hosts")))).collect();
    for lease in own {
        end(&mut w, lease);
    }
    assert_eq!((active(&w, &on_copies), active(&w, &more)), (2, 2), "a copy has a slot of its host");
}

#[test]
fn a_tenant_waits_for_what_is_made_by_its_share() {
    let mut w = World::new(vec![made_at_will("hosts", 4)]);
    let first: Vec<LeaseId> = (0..8).map(|_| w.ask(by("web", want("hosts")))).collect();
    let second: Vec<LeaseId> = (0..8).map(|_| w.ask(by("mobile", want("hosts")))).collect();
    w.all_works();
    assert_eq!((active(&w, &first), active(&w, &second)), (2, 2));
}

#[test]
fn the_order_survives_a_restart() {
    let mut w = farm(4);
    let web: Vec<LeaseId> = (0..12).map(|_| w.ask(by("web", want("hosts")))).collect();
    let mobile: Vec<LeaseId> = (0..12).map(|_| w.ask(by("mobile", want("hosts")))).collect();
    w.restart();
    for lease in &web[..4] {
        end(&mut w, *lease);
    }
    assert_eq!((active(&w, &web), active(&w, &mobile)), (2, 2));
}

#[test]
fn explain_says_what_goes_before_and_what_the_tenant_has() {
    let mut w = farm(2);
    w.set_tenants(&[("web", Tenant { weight: 4, max_slots: Some(60), ..Tenant::default() }), ("*", weight(1))]);
    w.ask(by("web", want("hosts")));
    w.ask(by("web", want("hosts")));
    w.ask(by("web", LeaseRequest { priority: 5, ..want("hosts") }));
    w.ask(by("mobile", want("hosts")));
    let own = w.ask(by("web", want("hosts")));
    let text = w.explain(own);
    assert!(text.starts_with("number 2 in line for pool hosts"), "{text}");
    assert!(text.contains("tenant web holds 2 of 60 slots (weight 4); before it: 1 by priority"), "{text}");
    w.set_tenants(&[("*", weight(1))]);
    let text = w.explain(own);
    assert!(text.starts_with("number 3 in line"), "{text}");
    assert!(text.contains("tenant web holds 2 slots (weight 1); before it: 1 by priority, 1 by share"), "{text}");
}

#[test]
fn with_one_tenant_explain_says_nothing_of_shares() {
    let mut w = farm(1);
    w.lease("hosts");
    let waits = w.lease("hosts");
    assert!(!w.explain(waits).contains("tenant"), "{}", w.explain(waits));
}

#[test]
fn a_request_that_is_refused_at_once_leaves_the_patience_of_others() {
    let hosts = inventory("hosts", &["h0", "h1"]);
    let traits = Traits { prepares: false, cleans: false, ..hosts.traits };
    let doubt = DoubtPolicy { after_lost: false, ..hosts.doubt };
    let mut w = World::new(vec![PoolConfig { min_ready: 2, traits, doubt, ..hosts }]);
    w.all_works();
    w.ask(by("web", want("hosts")));
    let held = LeaseRequest { ttl: Some(Millis::secs(1000)), ..by("ops", want("hosts")) };
    w.ask(held);
    let waits: Vec<LeaseId> = (0..2).map(|_| w.ask(by("web", want("hosts")))).collect();
    w.pass(Millis::secs(999));
    // The slot falls free in the very step in which another tenant asks for now or never.
    w.now = w.now.after(Millis::secs(2));
    let refused = w.try_ask(LeaseRequest { no_queue: true, ..by("mobile", want("hosts")) });
    assert_eq!(refused.map_err(|refused| refused.reason), Err("NO_CAPACITY"), "the patient one goes first");
    assert_eq!(w.states(&waits), ["ACTIVE", "QUEUED"]);
    let other = w.ask(by("mobile", want("hosts")));
    end(&mut w, waits[0]);
    assert_eq!(w.state(waits[1]), "ACTIVE", "no one was before the first by patience: that of its tenant goes on");
    assert_eq!(w.state(other), "QUEUED");
}

/// The group is looked at before the last free slot is gone. It shuns that slot, so that requests behind it count as well.
#[test]
fn a_request_that_was_looked_at_is_made_for_once() {
    let linux = |pool: PoolConfig| PoolConfig { labels: [("os".into(), "linux".into())].into(), ..pool };
    let mut w = World::new(vec![
        linux(PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }),
        linux(made_at_will("boats", 6)),
    ]);
    let first = w.ask(by("web", want("hosts")));
    w.all_works();
    w.notice(w.on(first), NoticeKind::AtRisk);
    let any = Selector { labels: [("os".into(), "linux".into())].into(), ..Selector::default() };
    let group = w.ask(LeaseRequest { priority: 1, ..by("web", want_by(any, 2)) });
    let made = |w: &World| w.core.resources(None).filter(|row| &*row.pool == "boats").count();
    assert_eq!((w.state(group), made(&w)), ("QUEUED", 2));
    let other = w.ask(by("mobile", want("hosts")));
    assert_eq!((w.state(other), w.on(other)), ("ACTIVE", w.on(first)), "no other host can come for it");
    assert_eq!((w.state(group), made(&w)), ("QUEUED", 2));
}

#[test]
fn a_request_that_cannot_be_met_now_counts_nothing_for_its_tenant() {
    let pools = vec![PoolConfig { min_ready: 1, ..inventory("a", &["a1"]) }, inventory("b", &["b1"])];
    let mut w = World::new(pools.clone());
    w.all_works();
    w.set_tenants(&[("web", weight(2)), ("*", weight(1))]);
    let busy = w.ask(by("other", want("a")));
    let claims = ["a", "b"].map(|pool| Claim::of(Selector::pool(pool), 1)).to_vec();
    let group = w.ask_all(by("web", LeaseRequest { claims, ..want("a") }));
    let off = PoolConfig { enabled: false, ..pools[1].clone() };
    w.configure(vec![pools[0].clone(), off]);
    w.set_tenants(&[("web", weight(2)), ("*", weight(1))]);
    let others = w.ask(by("mobile", want("a")));
    let own = w.ask(by("web", want("a")));
    end(&mut w, busy);
    assert_eq!((w.states(&group), w.state(own), w.state(others)), (vec!["QUEUED"; 2], "ACTIVE", "QUEUED"));
}
