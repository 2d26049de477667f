//! Tenants on one machine: at the same time, one after the other, and what one may say of it.

use crate::shares::{by, end, farm, of, weight};
use crate::world::{Kind, World, copies, inventory, made_at_will, mangled, want};
use std::sync::Arc;
use wharfinger_core::{
    AdminVerb, Input, Isolation, LeaseId, LeaseRequest, Millis, Outcome, PoolConfig, Rejection, RejectionKind,
    ResourceId, Tenant,
};

fn isolated(machines: &[&str], slots: u32) -> World {
    let hosts = PoolConfig {
        slots,
        min_ready: machines.len() as u32,
        isolation: Isolation::Host,
        ..inventory("hosts", machines)
    };
    let mut w = World::new(vec![hosts]);
    w.all_works();
    w
}

fn shared(slots: u32) -> World {
    let mut w = World::new(vec![PoolConfig { slots, min_ready: 1, ..inventory("hosts", &["h"]) }]);
    w.all_works();
    w
}

fn report(w: &mut World, tenant: &str, lease: LeaseId) -> Result<(), Rejection> {
    w.step(Input::Report { lease, caller: of(tenant), note: Arc::from("it is slow") }).map(drop)
}

fn release(w: &mut World, tenant: &str, lease: LeaseId, outcome: Outcome) {
    w.step(Input::Release { lease, caller: of(tenant), outcome, note: Arc::from(""), hold: None }).unwrap();
}

#[test]
fn the_slots_of_an_isolated_host_are_of_one_tenant_at_a_time() {
    let mut w = isolated(&["a", "b"], 2);
    let web: Vec<LeaseId> = (0..2).map(|_| w.ask(by("web", want("hosts")))).collect();
    assert_eq!(w.on(web[0]), w.on(web[1]), "a tenant fills its host, so that the other one stays whole");
    let mobile: Vec<LeaseId> = (0..2).map(|_| w.ask(by("mobile", want("hosts")))).collect();
    assert!(w.on(mobile[0]) == w.on(mobile[1]) && w.on(mobile[0]) != w.on(web[0]));
    end(&mut w, web[0]);
    let third = w.ask(by("other", want("hosts")));
    assert_eq!(w.state(third), "QUEUED", "a slot is free beside another tenant");
    assert!(w.explain(third).contains("ISOLATED"), "{}", w.explain(third));
    end(&mut w, web[1]);
    assert_eq!(w.state(third), "ACTIVE");
}

#[test]
fn without_isolation_tenants_share_a_host() {
    let mut w = shared(2);
    let both = [w.ask(by("web", want("hosts"))), w.ask(by("mobile", want("hosts")))];
    assert_eq!(w.states(&both), ["ACTIVE"; 2]);
}

#[test]
fn a_host_is_emptied_for_a_tenant_whose_turn_it_is() {
    let mut w = isolated(&["a"], 2);
    let mut held: Vec<LeaseId> = (0..2).map(|_| w.ask(by("web", want("hosts")))).collect();
    let mobile = w.ask(by("mobile", want("hosts")));
    held.extend((0..4).map(|_| w.ask(by("web", want("hosts")))));
    end(&mut w, held[0]);
    assert_eq!((w.state(mobile), w.state(held[2])), ("QUEUED", "QUEUED"), "the free slot is kept free");
    end(&mut w, held[1]);
    assert_eq!((w.state(mobile), w.state(held[2])), ("ACTIVE", "QUEUED"));
    end(&mut w, mobile);
    assert_eq!(w.state(held[2]), "ACTIVE");
}

#[test]
fn a_host_that_is_cleaned_after_one_tenant_is_not_given_to_another() {
    let traits = wharfinger_core::Traits { cleans: true, prepares: false, repairs: false, probes: false };
    let hosts = PoolConfig { slots: 2, min_ready: 1, isolation: Isolation::Host, traits, ..inventory("hosts", &["a"]) };
    let mut w = World::new(vec![hosts]);
    w.all_works();
    let first = w.ask(by("web", want("hosts")));
    release(&mut w, "web", first, Outcome::Ok);
    let next = w.ask(by("mobile", want("hosts")));
    assert_eq!(w.state(next), "QUEUED");
    w.works(Kind::Clean);
    assert_eq!(w.state(next), "ACTIVE");
}

#[test]
fn copies_on_isolated_hosts_are_of_one_tenant_at_a_time() {
    let hosts = PoolConfig { slots: 2, min_ready: 2, isolation: Isolation::Host, ..inventory("hosts", &["a", "b"]) };
    let mut w = World::new(vec![hosts, copies("copies", "hosts", 4)]);
    w.all_works();
    let host = |w: &World, lease| w.resource(w.on(lease)).parent.unwrap().host.unwrap();
    let web = w.ask(by("web", want("copies")));
    w.all_works();
    let mobile = w.ask(by("mobile", want("copies")));
    w.all_works();
    assert_eq!(w.states(&[web, mobile]), ["ACTIVE"; 2]);
    assert_ne!(host(&w, web), host(&w, mobile));
}

#[test]
fn a_resource_that_a_tenant_has_used_is_replaced_before_another_one_gets_it() {
    let mut w = World::new(vec![PoolConfig { reuse_across_tenants: false, ..made_at_will("hosts", 1) }]);
    let first = w.ask(by("web", want("hosts")));
    w.all_works();
    let used = w.on(first);
    end(&mut w, first);
    let again = w.ask(by("web", want("hosts")));
    assert_eq!(w.on(again), used, "its own tenant gets it again");
    w.restart();
    end(&mut w, again);
    let other = w.ask(by("mobile", want("hosts")));
    assert_eq!(w.stands(used), "DESTROYING");
    w.all_works();
    assert!(w.state(other) == "ACTIVE" && w.on(other) != used);
}

#[test]
fn a_reused_resource_serves_the_next_tenant_as_it_is() {
    let mut w = World::new(vec![made_at_will("hosts", 1)]);
    let first = w.ask(by("web", want("hosts")));
    w.all_works();
    let used = w.on(first);
    end(&mut w, first);
    let other = w.ask(by("mobile", want("hosts")));
    assert_eq!((w.on(other), w.resource(used).last_tenant.clone()), (used, None));
}

fn in_use(w: &mut World) -> (LeaseId, LeaseId, ResourceId) {
    let (web, mobile) = (w.ask(by("web", want("hosts"))), w.ask(by("mobile", want("hosts"))));
    let host = w.on(web);
    assert_eq!(w.on(mobile), host);
    (web, mobile, host)
}

#[test]
fn a_tenant_that_calls_a_shared_host_mangled_has_it_checked_and_no_more() {
    let mut w = shared(4);
    let (web, _, host) = in_use(&mut w);
    release(&mut w, "web", web, Outcome::Tainted);
    assert_eq!(w.stands(host), "SUSPECT");
    w.works(Kind::Check);
    assert_eq!(w.stands(host), "READY", "a check found nothing, and others work there");
    let mut w = shared(4);
    let (web, mobile) = (w.ask(by("web", want("hosts"))), w.ask(by("web", want("hosts"))));
    let host = w.on(web);
    release(&mut w, "web", web, Outcome::Tainted);
    w.works(Kind::Check);
    assert_eq!((w.stands(host), w.state(mobile)), ("DRAINING", "ACTIVE"), "of its own host it is believed");
}

#[test]
fn reports_in_vain_are_muted_on_a_shared_host() {
    let mut w = shared(4);
    let (web, mobile, host) = in_use(&mut w);
    for _ in 0..3 {
        report(&mut w, "web", web).unwrap();
        assert_eq!(w.stands(host), "SUSPECT");
        assert_eq!(report(&mut w, "web", web).unwrap_err().reason, "TOO_MANY_REPORTS", "one in five minutes");
        w.works(Kind::Check);
        w.pass(Millis::secs(301));
    }
    for (tenant, lease) in [("web", web), ("mobile", mobile)] {
        w.step(Input::Renew { lease, caller: of(tenant), ttl: Some(Millis::secs(3600)) }).unwrap();
    }
    let refused = report(&mut w, "web", web).unwrap_err();
    assert_eq!((refused.kind, refused.reason), (RejectionKind::Exhausted, "REPORTS_MUTED"));
    assert!(refused.message.contains("others use it"), "{}", refused.message);
    assert_eq!(w.stands(host), "READY");
    report(&mut w, "mobile", mobile).unwrap();
    w.works(Kind::Check);
    w.pass(Millis::secs(3000));
    for (tenant, lease) in [("web", web), ("mobile", mobile)] {
        w.step(Input::Renew { lease, caller: of(tenant), ttl: Some(Millis::secs(3600)) }).unwrap();
    }
    w.pass(Millis::secs(400));
    report(&mut w, "web", web).unwrap();
}

#[test]
fn a_finding_makes_reports_count_anew() {
    let mut w = shared(4);
    let (mut web, _, host) = in_use(&mut w);
    for n in 0..4 {
        report(&mut w, "web", web).unwrap();
        if n == 1 {
            w.verdict(mangled(true));
            w.all_works();
            web = w.ask(by("web", want("hosts")));
            w.ask(by("mobile", want("hosts")));
            w.all_works();
            assert_ne!(w.on(web), host);
        } else {
            w.works(Kind::Check);
        }
        w.pass(Millis::secs(301));
    }
}

#[test]
fn on_its_own_host_a_tenant_reports_as_before() {
    let mut w = shared(4);
    let lease = w.ask(by("web", want("hosts")));
    for _ in 0..3 {
        report(&mut w, "web", lease).unwrap();
        w.works(Kind::Check);
    }
    assert_eq!(report(&mut w, "web", lease).unwrap_err().reason, "TOO_MANY_REPORTS");
}

#[test]
fn reports_of_a_tenant_have_a_number_of_machines_in_doubt_at_most() {
    let mut w = farm(3);
    w.set_tenants(&[("web", Tenant { max_in_doubt: Some(1), ..Tenant::default() }), ("*", weight(1))]);
    let web: Vec<LeaseId> = (0..2).map(|_| w.ask(by("web", want("hosts")))).collect();
    let other = w.ask(by("mobile", want("hosts")));
    report(&mut w, "web", web[0]).unwrap();
    let refused = report(&mut w, "web", web[1]).unwrap_err();
    assert_eq!((refused.kind, refused.reason), (RejectionKind::Quota, "TENANT_IN_DOUBT"));
    report(&mut w, "mobile", other).unwrap();
    w.works(Kind::Check);
    report(&mut w, "web", web[1]).unwrap();
}

#[test]
fn a_tenant_has_a_number_of_resources_kept_at_most() {
    let mut w = farm(3);
    w.set_tenants(&[("*", Tenant { max_held: Some(1), ..Tenant::default() })]);
    let held: Vec<LeaseId> = (0..2).map(|_| w.ask(by("web", want("hosts")))).collect();
    let other = w.ask(by("mobile", want("hosts")));
    let keep = |w: &mut World, tenant: &str, lease| {
        let (outcome, hold) = (Outcome::Failed, Some(Millis::secs(600)));
        w.step(Input::Release { lease, caller: of(tenant), outcome, note: Arc::from(""), hold })
    };
    let first = w.on(held[0]);
    keep(&mut w, "web", held[0]).unwrap();
    let refused = keep(&mut w, "web", held[1]).unwrap_err();
    assert_eq!((refused.kind, refused.reason), (RejectionKind::Quota, "TENANT_HELD"));
    keep(&mut w, "mobile", other).unwrap();
    w.restart();
    assert!(keep(&mut w, "web", held[1]).is_err(), "it is stored");
    w.admin(AdminVerb::Recover(first)).unwrap();
    keep(&mut w, "web", held[1]).unwrap();
}

/// The failures of different works, by these tenants in turn, after which a host is set apart whose checks pass.
fn failures_until_apart(tenants: &[(&str, Tenant)], by_whom: &[&str]) -> usize {
    let mut w = World::new(vec![PoolConfig { min_ready: 3, ..inventory("hosts", &["a", "b", "c"]) }]);
    w.all_works();
    w.set_tenants(tenants);
    let hosts = w.resources_of("hosts");
    let only = |w: &mut World, host: ResourceId| {
        for other in &hosts {
            let verb = if *other == host { AdminVerb::Uncordon(*other) } else { AdminVerb::Cordon(*other) };
            w.admin(verb).unwrap();
        }
    };
    let work = |w: &mut World, tenant: &str, name: String, outcome| {
        let lease = w.ask(LeaseRequest { work: Some(Arc::from(name)), ..by(tenant, want("hosts")) });
        release(w, tenant, lease, outcome);
        w.all_works();
    };
    for host in &hosts {
        only(&mut w, *host);
        for _ in 0..40 {
            work(&mut w, "usual", "good".into(), Outcome::Ok);
        }
    }
    only(&mut w, hosts[0]);
    for n in 0..40 {
        work(&mut w, by_whom[n % by_whom.len()], format!("job {n}"), Outcome::Failed);
        if w.stands(hosts[0]) == "QUARANTINED" {
            return n + 1;
        }
    }
    usize::MAX
}

#[test]
fn works_of_one_tenant_alone_need_twice_as_many_failures_to_set_a_host_apart() {
    let several: &[(&str, Tenant)] = &[("*", weight(1))];
    let alone = failures_until_apart(&[], &["web"]);
    assert!((3..10).contains(&alone), "{alone}");
    assert_eq!(failures_until_apart(several, &["web", "mobile"]), alone, "two tenants agree");
    assert_eq!(failures_until_apart(several, &["web"]), 2 * alone);
}

#[test]
fn works_of_two_tenants_with_one_name_are_two_works() {
    for (tenants, blamed) in [(["web", "mobile", "other"], 0), (["web"; 3], 3)] {
        let mut w = farm(4);
        let ask =
            |w: &mut World, tenant| w.ask(LeaseRequest { work: Some(Arc::from("build")), ..by(tenant, want("hosts")) });
        let leases = tenants.map(|tenant| ask(&mut w, tenant));
        for (tenant, lease) in tenants.into_iter().zip(leases) {
            release(&mut w, tenant, lease, Outcome::Failed);
            w.all_works();
        }
        let found = leases.iter().filter(|id| format!("{:?}", w.row(**id).state).contains("fault: Work")).count();
        assert_eq!(found, blamed, "{tenants:?}");
    }
}
