//! Notices: ends that are announced, called off, reported late, twice or for strangers.

use crate::world::{Kind, World, copies, inventory, lease_on_copy, made_at_will, silent, want};
use std::sync::Arc;
use wharfinger_core::{
    Input, LeaseRequest, Millis, Notice, NoticeKind, NoticeTarget, Outcome, PoolConfig, Reason, ResourceId, Timestamp,
    Verdict,
};

#[test]
fn an_announced_end_is_sent_to_holders_and_ends_the_host_at_its_time() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    let end = w.now.after(Millis::secs(120));
    w.notice(host, NoticeKind::Interruption(end));

    assert_eq!(w.row(lease).ends_at, Some(end), "the holder has two minutes, and knows it");
    assert_eq!((w.stands(host), w.stands(copy), w.state(lease)), ("DRAINING", "DRAINING", "ACTIVE"));
    for _ in 0..2 {
        w.pass(Millis::secs(50));
        w.renew(lease).unwrap();
    }
    w.pass(Millis::secs(25));

    assert_eq!(w.state(lease), "BROKEN");
    assert!(w.cause(lease).iter().any(|link| link.reason == Reason::Interrupted), "{:?}", w.cause(lease));
}

#[test]
fn a_lease_that_is_being_prepared_learns_of_the_end_of_its_host_when_it_is_active() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let lease = w.lease("copies");
    w.works(Kind::Provision);
    w.works(Kind::Provision);
    assert_eq!(w.state(lease), "PREPARING");
    let host = w.resource(w.on(lease)).parent.unwrap().host.unwrap();
    let end = w.now.after(Millis::secs(120));
    w.notice(host, NoticeKind::Interruption(end));
    w.works(Kind::Prepare);
    assert_eq!((w.state(lease), w.row(lease).ends_at), ("ACTIVE", Some(end)));
}

#[test]
fn a_drained_host_goes_as_soon_as_its_last_lease_ends() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.notice(host, NoticeKind::Interruption(w.now.after(Millis::secs(120))));
    w.release(lease, Outcome::Ok);
    w.works(Kind::Clean);
    assert_eq!(w.stands(copy), "DESTROYING");
    w.works(Kind::Destroy);
    assert_eq!((w.stands(copy), w.stands(host)), ("GONE", "DESTROYING"));
}

#[test]
fn a_host_whose_end_is_called_off_serves_again_after_a_check() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.notice(host, NoticeKind::Maintenance(w.now.after(Millis::secs(120))));
    w.notice(host, NoticeKind::Cancelled);
    assert_eq!((w.stands(host), w.stands(copy)), ("SUSPECT", "SUSPECT"));
    assert_eq!(w.row(lease).ends_at, None);
    w.all_works();
    assert_eq!((w.stands(host), w.stands(copy), w.state(lease)), ("READY", "READY", "ACTIVE"));
}

#[test]
fn work_that_would_outlast_the_host_is_not_put_on_it() {
    let mut w = World::new(vec![PoolConfig { min_ready: 2, ..inventory("hosts", &["h1", "h2"]) }]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let short = w.resources_of("hosts")[0];
    w.notice(short, NoticeKind::Interruption(w.now.after(Millis::secs(120))));
    let long = w.ask(LeaseRequest { expected: Some(Millis::secs(600)), ..want("hosts") });
    assert_ne!(w.on(long), short);
}

#[test]
fn notices_that_come_late_twice_or_for_strangers_change_nothing() {
    let (mut w, lease, _, host) = lease_on_copy(1);
    let end = w.now.after(Millis::secs(120));
    w.notice(host, NoticeKind::Interruption(end));
    let before = w.core.revision();
    w.notice(host, NoticeKind::Interruption(end));
    w.notice(host, NoticeKind::Interruption(end.after(Millis::secs(60))));
    assert_eq!(w.core.revision(), before, "the same again, or later than what is known");

    let stranger = |target| Notice {
        pool: Arc::from("hosts"),
        target,
        kind: NoticeKind::Gone,
        source: Arc::from("cloud"),
        detail: Arc::from("said so"),
    };
    w.step(Input::Notice(stranger(NoticeTarget::Resource(ResourceId::new(7))))).unwrap();
    w.step(Input::Notice(stranger(NoticeTarget::Item(Arc::from("h9"))))).unwrap();
    w.step(Input::Notice(Notice { pool: Arc::from("boats"), ..stranger(NoticeTarget::Resource(host)) })).unwrap();
    assert_eq!((w.core.revision(), w.state(lease)), (before, "ACTIVE"));

    w.notice(host, NoticeKind::Gone);
    w.all_works();
    let before = w.core.revision();
    w.step(Input::Notice(stranger(NoticeTarget::Resource(host)))).unwrap();
    assert_eq!(w.core.revision(), before, "gone already");
}

#[test]
fn an_end_in_the_past_is_over_now() {
    let (mut w, lease, _, host) = lease_on_copy(1);
    w.notice(host, NoticeKind::Interruption(Timestamp(1)));
    w.pass(Millis(1));
    assert_eq!(w.state(lease), "BROKEN");
}

#[test]
fn a_machine_is_meant_by_the_name_of_its_entry() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let notice = Notice {
        pool: Arc::from("hosts"),
        target: NoticeTarget::Item(Arc::from("h1")),
        kind: NoticeKind::Gone,
        source: Arc::from("rack"),
        detail: Arc::from("the plug was pulled"),
    };
    w.step(Input::Notice(notice)).unwrap();
    assert_eq!(w.state(lease), "BROKEN");
}

#[test]
fn an_operators_drain_outlives_a_notice_that_is_called_off() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.notice(host, NoticeKind::Interruption(w.now.after(Millis::secs(120))));
    w.admin(wharfinger_core::AdminVerb::Drain(host, None)).unwrap();
    w.notice(host, NoticeKind::Cancelled);
    assert_eq!(w.stands(host), "DRAINING", "the operator has not called it off");
}

#[test]
fn each_source_calls_off_only_its_own_notice() {
    let (mut w, lease, _, host) = lease_on_copy(1);
    let say = |w: &mut World, source: &str, kind: NoticeKind| {
        let pool = w.resource(host).pool.clone();
        let target = NoticeTarget::Resource(host);
        let (source, detail) = (Arc::from(source), Arc::from("said so"));
        w.step(Input::Notice(Notice { pool, target, kind, source, detail })).unwrap();
    };
    let soon = w.now.after(Millis::secs(120));
    say(&mut w, "sqs", NoticeKind::Interruption(soon));
    // A watcher that has just connected and finds nothing says so.
    say(&mut w, "drop file", NoticeKind::Cancelled);
    assert_eq!((w.stands(host), w.row(lease).ends_at), ("DRAINING", Some(soon)));
    let later = w.now.after(Millis::secs(600));
    say(&mut w, "drop file", NoticeKind::Maintenance(later));
    say(&mut w, "sqs", NoticeKind::Cancelled);
    assert_eq!((w.stands(host), w.row(lease).ends_at), ("DRAINING", Some(later)), "the other one stands");
    for _ in 0..3 {
        w.pass(Millis::secs(45));
        w.renew(lease).unwrap();
    }
    assert_eq!(w.state(lease), "ACTIVE", "it is not over when the first said");
    let later = w.now.after(Millis::secs(900));
    say(&mut w, "drop file", NoticeKind::Maintenance(later));
    assert_eq!(w.row(lease).ends_at, Some(later), "an end may move");
    say(&mut w, "drop file", NoticeKind::Cancelled);
    assert_eq!((w.stands(host), w.row(lease).ends_at), ("SUSPECT", None));
    w.all_works();
    assert_eq!((w.stands(host), w.state(lease)), ("READY", "ACTIVE"));
}

/// A machine takes minutes to come, and the warning gives two: the next one is begun at the warning.
#[test]
fn a_requested_replacement_begins_when_the_end_is_announced() {
    for pool in ["hosts", "copies"] {
        let mut w = World::new(vec![made_at_will("hosts", 3), copies("copies", "hosts", 4)]);
        let lease = w.ask(LeaseRequest { replace: true, ..want(pool) });
        let calm = w.ask(want(pool));
        w.all_works();
        let on = w.on(lease);
        let host = w.resource(on).parent.map_or(on, |parent| parent.host.unwrap());
        let before = w.resources_of("hosts").len();
        w.notice(host, NoticeKind::Interruption(w.now.after(Millis::secs(120))));
        assert_eq!(w.waits_for(Kind::Provision), 1, "{pool}: one is begun at once, and no more");
        w.all_works();
        assert_eq!(w.resources_of("hosts").len(), before + 1);
        assert_eq!((w.state(lease), w.state(calm)), ("ACTIVE", "ACTIVE"));
        for _ in 0..3 {
            w.pass(Millis::secs(40));
            let _ = (w.renew(lease), w.renew(calm));
        }
        w.all_works();
        assert_eq!(w.state(lease), "BROKEN");
        let successor = w.core.leases(None).find(|row| row.spec.replaces == Some(lease)).unwrap().id;
        assert_eq!(w.state(successor), "ACTIVE", "{pool}: it did not wait");
        let hosts = w.resources_of("hosts");
        let others = hosts.iter().filter(|id| **id != host && w.stands(**id) == "READY").count();
        assert_eq!(others, if w.on(calm) == on { 1 } else { 2 }, "{pool}: nothing more was made for it");
    }
}

/// A pool that is full has its next machine begun at the warning too: the one that is taken away no longer counts, as long
/// as its holder wants another.
#[test]
fn a_full_pool_has_one_more_while_one_is_being_taken_away() {
    for pool in ["hosts", "copies"] {
        let mut w = World::new(vec![made_at_will("hosts", 2), copies("copies", "hosts", 4)]);
        let lease = w.ask(LeaseRequest { replace: true, ..want(pool) });
        let calm = w.ask(want("hosts"));
        w.all_works();
        assert_eq!(w.resources_of("hosts").len(), 2, "full");
        let on = w.on(lease);
        let host = w.resource(on).parent.map_or(on, |parent| parent.host.unwrap());
        // Planned work is announced long before, and does not.
        w.notice(host, NoticeKind::Maintenance(w.now.after(Millis::secs(3600))));
        assert_eq!(w.waits_for(Kind::Provision), 0);
        w.notice(host, NoticeKind::Interruption(w.now.after(Millis::secs(120))));
        assert_eq!(w.waits_for(Kind::Provision), 1, "{pool}: at the warning, not at the end");
        // A request that was queued anyway gets no second one out of it.
        let waiting = w.ask(want("hosts"));
        w.all_works();
        assert_eq!(w.resources_of("hosts").len(), 3);
        // Nor is there room for more when the holder lets go before the end.
        w.release(lease, Outcome::Ok);
        w.all_works();
        let standing = w.resources_of("hosts").iter().filter(|id| w.stands(**id) != "GONE").count();
        assert_eq!(standing, 2, "{pool}: no more than max when it is over");
        assert_eq!((w.state(calm), w.state(waiting)), ("ACTIVE", "ACTIVE"));
    }
}

/// A holder that wants no other costs nothing, and a free slot is enough.
#[test]
fn nothing_is_begun_for_who_wants_no_other_or_has_one_waiting() {
    let mut w = World::new(vec![made_at_will("hosts", 4)]);
    let lease = w.lease("hosts");
    w.all_works();
    w.notice(w.on(lease), NoticeKind::Interruption(w.now.after(Millis::secs(120))));
    assert_eq!(w.waits_for(Kind::Provision), 0);
    let mut w = World::new(vec![PoolConfig { min_ready: 1, ..made_at_will("hosts", 4) }]);
    let lease = w.ask(LeaseRequest { replace: true, ..want("hosts") });
    w.all_works();
    w.all_works();
    let before = w.resources_of("hosts").len();
    w.notice(w.on(lease), NoticeKind::Interruption(w.now.after(Millis::secs(120))));
    assert_eq!(w.resources_of("hosts").len(), before, "one stands by");
}

/// An adapter that watches a host under a lease has no answer for longer than its answers ever take. That is one miss: told at
/// once, checked at once, and no evidence alone.
#[test]
fn silence_that_is_reported_is_one_miss() {
    let mut w = World::new(vec![inventory("hosts", &["a"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.notice(host, NoticeKind::Silent);
    assert_eq!((w.stands(host), w.state(lease)), ("SUSPECT", "ACTIVE"));
    assert!(w.row(lease).doubt.is_some(), "the holder is told");
    // Said again: no second check, and no second miss.
    w.notice(host, NoticeKind::Silent);
    assert_eq!(w.waits_for(Kind::Check), 1);
    w.verdict(silent());
    w.pass(Millis(500));
    assert_eq!(w.stands(host), "SUSPECT", "two misses are no evidence");
    w.verdict(Verdict::Healthy);
    assert_eq!((w.stands(host), w.state(lease)), ("READY", "ACTIVE"));
    w.notice(host, NoticeKind::Silent);
    w.pass(Millis(1700));
    w.verdict(silent());
    w.pass(Millis(1700));
    w.verdict(silent());
    assert_eq!(w.state(lease), "BROKEN");
}
