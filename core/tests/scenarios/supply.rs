//! Supply that the configuration takes away and gives back, machines that cannot be made ready, hosts at risk.

use crate::world::{Kind, START, World, inventory, want};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharfinger_core::{
    Blame, Core, Input, LeaseRequest, Limits, Made, Millis, NoticeKind, Outcome, PoolConfig, Reason, Reply,
    ResourceState, Snapshot,
};

fn disabled(pool: &PoolConfig, name: &str) -> PoolConfig {
    let mut pool = pool.clone();
    for item in pool.inventory.iter_mut().flatten() {
        item.enabled = &*item.name != name;
    }
    pool
}

fn long() -> LeaseRequest {
    LeaseRequest { ttl: Some(Millis::secs(3600)), ..want("hosts") }
}

#[test]
fn a_disabled_machine_lets_its_lease_run_to_its_end_and_serves_again_when_enabled() {
    let pool = inventory("hosts", &["h1"]);
    let mut w = World::new(vec![pool.clone()]);
    let lease = w.ask(long());
    w.all_works();
    let host = w.on(lease);
    w.configure(vec![disabled(&pool, "h1")]);
    assert_eq!(w.stands(host), "DRAINING");
    assert!(matches!(&w.resource(host).state, ResourceState::Draining { cause, deadline: None }
        if cause[0].reason == Reason::Disabled));
    w.pass(Millis::secs(600));
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
    w.configure(vec![pool]);
    w.all_works();
    assert_eq!((w.stands(host), w.state(lease)), ("READY", "ACTIVE"), "the same host, back by way of a check");
    w.release(lease, Outcome::Ok);
    assert_eq!(w.stands(host), "READY");
}

#[test]
fn a_pool_may_give_those_leases_until_a_deadline_or_no_time() {
    for (drain, left) in [(Millis::secs(300), 300), (Millis::ZERO, 1)] {
        let pool = PoolConfig { drain: Some(drain), ..inventory("hosts", &["h1"]) };
        let mut w = World::new(vec![pool.clone()]);
        let lease = w.ask(long());
        w.all_works();
        w.configure(vec![disabled(&pool, "h1")]);
        // A reload that changes nothing of it gives no new deadline.
        w.pass(Millis::secs(left - 1));
        w.configure(vec![disabled(&pool, "h1")]);
        let before = if left > 1 { "ACTIVE" } else { "BROKEN" };
        assert_eq!(w.state(lease), before);
        w.pass(Millis::secs(1));
        assert_eq!(w.state(lease), "BROKEN");
        assert!(w.cause(lease).iter().any(|link| link.reason == Reason::Disabled));
    }
}

#[test]
fn a_drain_by_an_operator_does_not_end_with_a_reload() {
    let pool = inventory("hosts", &["h1"]);
    let mut w = World::new(vec![pool.clone()]);
    let lease = w.ask(long());
    w.all_works();
    let host = w.on(lease);
    w.admin(wharfinger_core::AdminVerb::Drain(host, None)).unwrap();
    w.configure(vec![disabled(&pool, "h1")]);
    w.configure(vec![pool]);
    w.all_works();
    assert_eq!(w.stands(host), "DRAINING");
}

#[test]
fn a_machine_that_fails_again_and_again_is_not_counted_on() {
    // One may be had; the first machine of the inventory is dead.
    let mut w = World::new(vec![PoolConfig { max: 1, ..inventory("hosts", &["dead", "alive"]) }]);
    let lease = w.lease("hosts");
    for _ in 0..3 {
        w.fails(Kind::Provision, Blame::Resource);
        w.pass(Millis::secs(5));
    }
    let other = w.calls.iter().position(|call| call.resource.item.as_deref() == Some("alive"));
    let other = w.calls.remove(other.expect("another one is tried in its place"));
    w.answer(&other, None);
    assert_eq!(w.state(lease), "ACTIVE");
    // The dead one is tried on, less and less often, and serves when it comes back.
    w.release(lease, Outcome::Ok);
    let mut tries = 0;
    for _ in 0..120 {
        w.pass(Millis::secs(1));
        if w.waits_for(Kind::Provision) > 0 {
            tries += 1;
            w.fails(Kind::Provision, Blame::Resource);
        }
    }
    assert!((2..=6).contains(&tries), "{tries} tries in two minutes");
    while w.waits_for(Kind::Provision) == 0 {
        w.pass(Millis::secs(1));
    }
    w.works(Kind::Provision);
    let first = w.lease("hosts");
    assert_eq!(w.state(first), "ACTIVE");
    let second = w.lease("hosts");
    assert_eq!(w.state(second), "ACTIVE");
}

#[test]
fn a_disabled_machine_is_listed_with_the_reason_of_the_configuration() {
    let pool = inventory("hosts", &["h1"]);
    let mut w = World::new(vec![pool.clone()]);
    let lease = w.ask(long());
    w.all_works();
    let mut without = disabled(&pool, "h1");
    without.inventory.as_mut().unwrap()[0].disabled_reason = Some("new disk".into());
    w.configure(vec![without.clone()]);
    let ResourceState::Draining { cause, .. } = &w.resource(w.on(lease)).state else { panic!("it drains") };
    assert_eq!(&*cause[0].detail, "h1 is disabled in the inventory: new disk");
    let waits = w.lease("hosts");
    assert!(w.explain(waits).contains("hosts/h1 is disabled in the configuration: new disk"), "{}", w.explain(waits));
    w.release(lease, Outcome::Ok);
    w.all_works();
    // It stays listed though no resource stands for it.
    let item = w.core.pool("hosts").unwrap().items[0].clone();
    assert_eq!((item.enabled, item.resource, item.disabled_reason.as_deref()), (false, None, Some("new disk")));
    (without.enabled, without.disabled_reason) = (false, Some("the rack moves".into()));
    w.configure(vec![without]);
    assert!(w.explain(waits).contains("is disabled in the configuration: the rack moves"), "{}", w.explain(waits));
}

#[test]
fn a_host_at_risk_is_second_choice_and_breaks_nothing() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1", "h2"]) }]);
    let first = w.lease("hosts");
    w.all_works();
    let risky = w.on(first);
    w.notice(risky, NoticeKind::AtRisk);
    w.notice(risky, NoticeKind::AtRisk);
    assert_eq!(w.state(first), "ACTIVE");
    let second = w.lease("hosts");
    assert_eq!(w.state(second), "QUEUED", "another one is made first");
    assert!(w.explain(second).contains("AT_RISK"), "{}", w.explain(second));
    w.all_works();
    assert_ne!(w.on(second), risky);
    let third = w.lease("hosts");
    assert_ne!(w.on(third), risky);
    let fourth = w.lease("hosts");
    assert_eq!(w.on(fourth), risky, "better it than none, when no other can come");
    w.release(third, Outcome::Ok);
    w.release(fourth, Outcome::Ok);
    w.notice(risky, NoticeKind::Cancelled);
    assert_eq!(w.resource(risky).at_risk, None);
}

/// Another host is being made for the request, which takes long: the free slot of the host that is at risk no more is its.
#[test]
fn a_request_that_shunned_a_host_takes_it_once_it_is_at_risk_no_more() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1", "h2"]) }]);
    let first = w.lease("hosts");
    w.all_works();
    let risky = w.on(first);
    w.notice(risky, NoticeKind::AtRisk);
    let second = w.lease("hosts");
    assert_eq!(w.state(second), "QUEUED");
    w.notice(risky, NoticeKind::Cancelled);
    assert_eq!((w.state(second), w.on(second)), ("ACTIVE", risky));
}

/// How long the core takes for a lease and its release where each leaves the pool short of its minimum, and for a look at the
/// pool; the shortest of some.
#[expect(clippy::disallowed_methods, reason = "it measures what the core takes")]
fn step_and_look(machines: u32) -> (Duration, Duration) {
    let names: Vec<String> = (0..machines).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pool = PoolConfig { min_ready: machines, ..inventory("hosts", &names) };
    let mut core = Core::recover(Snapshot::default(), vec![pool], Limits::default(), START);
    for call in core.take_batch().effects {
        let input = Input::Provisioned { resource: call.resource.id, op: call.op, result: Ok(Made::default()) };
        core.step(START, input).unwrap();
    }
    let (mut steps, mut looks) = (Duration::MAX, Duration::MAX);
    for n in 0..60 {
        let request = LeaseRequest { request_id: Arc::from(format!("request-{n}")), ..want("hosts") };
        let caller = request.caller.clone();
        let begun = Instant::now();
        let Ok(Reply::Leases(leases)) = core.step(START, Input::Lease(request)) else { panic!("no lease") };
        let (outcome, note) = (Outcome::Ok, Arc::from(""));
        core.step(START, Input::Release { lease: leases[0].id, caller, outcome, note, hold: None }).unwrap();
        steps = steps.min(begun.elapsed());
        core.take_batch();
        let begun = Instant::now();
        assert_eq!(core.pool("hosts").unwrap().items.len(), machines as usize);
        looks = looks.min(begun.elapsed());
    }
    (steps, looks)
}

#[test]
fn a_step_costs_the_same_in_a_long_inventory_and_a_look_no_square_of_it() {
    let (small, large) = (step_and_look(50), step_and_look(800));
    // Sixteen times the machines. A walk over all of them takes 16 times as long, and one for each of them 256 times.
    assert!(large.0 < small.0 * 6, "a step takes {:?} with 50 machines, {:?} with 800", small.0, large.0);
    assert!(large.1 < small.1 * 64, "a look takes {:?} with 50 machines, {:?} with 800", small.1, large.1);
}
