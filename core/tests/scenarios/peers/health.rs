//! Group Health: what is kept from those who wait, for how long, and what does not count.

use crate::world::{Kind, World, inventory, made_at_will, silent};
use wharfinger_core::{AdminVerb, Input, Millis, NoticeKind, PoolConfig, Timeouts};

/// `ready()` of resalloc: nothing with a failed check is handed out. A check that hangs leaves it so.
#[test]
fn resalloc_ready_what_is_in_doubt_is_not_handed_out_while_its_check_hangs() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let holder = w.lease("hosts");
    w.all_works();
    let host = w.on(holder);
    w.notice(host, NoticeKind::ConnectionLost);
    let waiter = w.lease("hosts");
    for _ in 0..20 {
        w.pass(Millis::secs(30));
        w.renew(holder).unwrap();
        w.restart();
        assert_eq!((w.stands(host), w.states(&[holder, waiter])), ("SUSPECT", vec!["ACTIVE", "QUEUED"]));
        assert_eq!(w.waits_for(Kind::Check), 1, "one check, the same one");
    }
    w.works(Kind::Check);
    assert_eq!(w.state(waiter), "ACTIVE");
}

/// Slurm kills a health check after 60 s. The engine gets the limit of a check, and reports when it is over.
#[test]
fn slurm_health_check_that_hangs_is_ended_at_its_limit_and_counts_as_one_miss() {
    let timeouts = Timeouts { check: Millis::secs(60), ..Timeouts::default() };
    let mut w = World::new(vec![PoolConfig { timeouts, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.admin(AdminVerb::Check(host)).unwrap();
    let call = w.take(Kind::Check);
    assert_eq!(call.timeout, Millis::secs(60));
    w.pass(Millis::secs(50));
    w.renew(lease).unwrap();
    w.pass(Millis::secs(10));
    // The engine ended it.
    w.step(Input::Checked { resource: host, op: call.op, result: Ok(silent()) }).unwrap();
    assert_eq!((w.stands(host), w.state(lease)), ("SUSPECT", "ACTIVE"), "sixty seconds of silence are one miss");
    w.pass(Millis::secs(2));
    w.works(Kind::Check);
    assert_eq!((w.stands(host), w.state(lease)), ("READY", "ACTIVE"));
}

/// Workers in quarantine were counted as capacity, so that none was made in their stead.
#[test]
fn tc_3794_what_is_in_quarantine_is_not_capacity() {
    let mut w = World::new(vec![PoolConfig { min_ready: 2, slots: 2, ..made_at_will("boats", 4) }]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let both = w.resources_of("boats");
    w.admin(AdminVerb::Quarantine(both[0])).unwrap();
    assert_eq!(w.core.pools()[0].free_slots, 2);
    assert_eq!(w.waits_for(Kind::Provision), 1, "the minimum is one short");
    w.all_works();
    w.admin(AdminVerb::Quarantine(both[1])).unwrap();
    w.all_works();
    let leases: Vec<_> = (0..4).map(|_| w.lease("boats")).collect();
    assert_eq!(w.states(&leases), ["ACTIVE"; 4]);
    assert!(leases.iter().all(|lease| !both.contains(&w.on(*lease))));
    // It exists and is paid for: it counts against the maximum, and the explanation of waiting requests has it.
    let fifth = w.lease("boats");
    assert_eq!((w.state(fifth), w.waits_for(Kind::Provision)), ("QUEUED", 0));
    w.admin(AdminVerb::Recycle(both[0])).unwrap();
    w.all_works();
    assert_eq!(w.state(fifth), "ACTIVE", "{}", w.explain(fifth));
}

/// A quarantine outlived its host, and named no host.
#[test]
fn tc_4928_a_quarantine_ends_with_its_host() {
    let mut w = World::new(vec![made_at_will("boats", 1)]);
    let lease = w.lease("boats");
    w.all_works();
    let boat = w.on(lease);
    w.admin(AdminVerb::Quarantine(boat)).unwrap();
    let waiter = w.lease("boats");
    assert_eq!(w.state(waiter), "QUEUED");
    w.notice(boat, NoticeKind::Gone);
    w.all_works();
    assert_eq!((w.stands(boat), w.state(waiter)), ("GONE", "ACTIVE"));
}
