//! Group Loss: hosts that die, seem to die, come back, or are said to be dead.

use crate::world::{Kind, World, copies, failure, inventory, made_at_will, silent, vanished, want, want_by};
use std::sync::Arc;
use wharfinger_core::{
    Blame, Ended, EventKind, Input, LeaseId, LeaseRequest, LeaseState, Millis, Notice, NoticeKind, NoticeTarget,
    Outcome, PoolConfig, Reason, ResourceId, Selector, Source, Traits,
};

const PROBES: Traits = Traits { prepares: false, cleans: false, repairs: false, probes: true };

/// One lease on the first of two machines.
fn claimed(replace: bool) -> (World, LeaseId, ResourceId) {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"])]);
    let lease = w.ask(LeaseRequest { replace, ..want("hosts") });
    w.all_works();
    let host = w.on(lease);
    (w, lease, host)
}

fn successor(w: &World, lease: LeaseId) -> Option<LeaseId> {
    match &w.row(lease).state {
        LeaseState::Ended { how: Ended::Broken { replacement, .. }, .. } => *replacement,
        other => panic!("not broken: {other:?}"),
    }
}

// The tests of Taskcluster's `workerremovedresolver_test.js`, one by one.

#[test]
fn tc_worker_removed_breaks_the_claimed_lease_and_queues_its_retry() {
    let (mut w, lease, host) = claimed(true);
    w.notice(host, NoticeKind::Gone);
    assert_eq!(w.state(lease), "BROKEN");
    let link = &w.cause(lease)[0];
    assert_eq!(
        (link.reason, &*link.detail, &link.source),
        (Reason::ResourceGone, "said so", &Source::Notice("cloud".into()))
    );
    let retry = successor(&w, lease).unwrap();
    assert!(w.last.leases.iter().any(|row| row.id == retry), "in the same commit");
    let told = w.last.events.iter().find(|event| event.kind == EventKind::LeaseBroken).unwrap();
    assert!(told.lease == Some(lease) && told.detail.contains("said so"), "{told:?}");
    w.all_works();
    assert_eq!(w.state(retry), "ACTIVE");
    assert_ne!(w.on(retry), host);
    assert!(w.core.leases_on(host).is_empty(), "no claim on it is left");
}

#[test]
fn tc_worker_removed_with_no_retry_wanted_is_the_end_of_it() {
    let (mut w, lease, host) = claimed(false);
    w.notice(host, NoticeKind::Gone);
    assert_eq!((w.state(lease), successor(&w, lease)), ("BROKEN", None));
    assert!(w.core.leases_on(host).is_empty());
    assert_eq!(w.core.leases(None).count(), 1);
}

#[test]
fn tc_worker_removed_after_the_release_changes_nothing_of_it() {
    let (mut w, lease, host) = claimed(true);
    w.release(lease, Outcome::Ok);
    let row = w.row(lease).clone();
    w.notice(host, NoticeKind::Gone);
    assert_eq!(*w.row(lease), row);
    assert_eq!(w.core.leases(None).count(), 1, "no retry of what is done");
}

#[test]
fn tc_worker_stopped_without_a_reason_breaks_all_the_same() {
    let (mut w, lease, host) = claimed(true);
    let silent = Notice {
        pool: Arc::from("hosts"),
        target: NoticeTarget::Resource(host),
        kind: NoticeKind::Gone,
        source: Arc::from("cloud"),
        detail: Arc::from(""),
    };
    w.step(Input::Notice(silent)).unwrap();
    assert_eq!(w.cause(lease)[0].reason, Reason::ResourceGone, "the reason is a type, not a text");
    assert!(successor(&w, lease).is_some());
}

#[test]
fn tc_worker_stopped_and_worker_removed_are_one_break_and_one_retry() {
    let (mut w, lease, host) = claimed(true);
    w.notice(host, NoticeKind::Gone);
    let (row, count) = (w.row(lease).clone(), w.core.leases(None).count());
    w.notice(host, NoticeKind::Gone);
    w.all_works();
    w.notice(host, NoticeKind::Gone);
    w.restart();
    w.step(Input::Notice(Notice {
        pool: Arc::from("hosts"),
        target: NoticeTarget::Resource(host),
        kind: NoticeKind::Gone,
        source: Arc::from("scanner"),
        detail: Arc::from("terminateAfter"),
    }))
    .unwrap();
    assert_eq!((w.row(lease).clone(), w.core.leases(None).count()), (row, count));
}

#[test]
fn tc_worker_removed_of_one_that_holds_nothing_breaks_nothing() {
    let mut w = World::new(vec![PoolConfig { min_ready: 2, ..inventory("hosts", &["h1", "h2"]) }]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let lease = w.lease("hosts");
    let idle = w.resources_of("hosts").into_iter().find(|id| *id != w.on(lease)).unwrap();
    w.notice(idle, NoticeKind::Gone);
    assert_eq!((w.state(lease), w.core.leases(None).count()), ("ACTIVE", 1));
    assert!(w.last.leases.is_empty(), "no lease is even touched");
}

#[test]
fn tc_worker_removed_is_reported_once() {
    let (mut w, lease, host) = claimed(false);
    w.notice(host, NoticeKind::Gone);
    w.all_works();
    let seen = w.core.revision();
    w.notice(host, NoticeKind::Gone);
    w.notice(host, NoticeKind::ConnectionLost);
    assert_eq!(w.core.leases_changed_after(seen).count(), 0, "a watcher hears of it no second time");
    assert!(w.last.events.is_empty());
    assert_eq!(w.state(lease), "BROKEN");
}

#[test]
fn tc_a_notice_the_death_and_a_late_status_are_one_break() {
    let mut w = World::new(vec![PoolConfig { traits: PROBES, ..inventory("hosts", &["h1", "h2"]) }]);
    let lease = w.ask(LeaseRequest { replace: true, ..want("hosts") });
    w.works(Kind::Provision);
    let host = w.on(lease);
    let end = w.now.after(Millis::secs(120));
    w.notice(host, NoticeKind::Interruption(end));
    assert_eq!(w.row(lease).ends_at, Some(end));
    w.pass(Millis::secs(30));
    let probe = w.take(Kind::Probe);
    assert_eq!(probe.resource.id, host);
    w.notice(host, NoticeKind::Gone);
    let row = w.row(lease).clone();
    assert_eq!(w.cause(lease)[0].reason, Reason::ResourceGone);

    w.step(Input::Probed { resource: host, result: Ok(vanished()) }).unwrap();
    w.notice(host, NoticeKind::Interruption(end));
    w.notice(host, NoticeKind::Cancelled);
    w.notice(host, NoticeKind::ConnectionLost);
    w.all_works();
    w.pass(Millis::secs(200));
    assert_eq!(*w.row(lease), row, "told once, with the cause that came first");
    assert_eq!(w.core.leases(None).filter(|other| other.spec.replaces == Some(lease)).count(), 1);
}

#[test]
fn a_notice_and_a_host_that_survives_it_end_the_lease_at_the_announced_time_and_not_before() {
    let (mut w, lease, host) = claimed(false);
    let end = w.now.after(Millis::secs(120));
    w.notice(host, NoticeKind::Interruption(end));
    while w.now.after(Millis::secs(1)) < end {
        assert_eq!(w.state(lease), "ACTIVE", "it has its two minutes");
        w.pass(Millis::secs(1));
        w.renew(lease).unwrap();
    }
    w.pass(Millis::secs(1));
    assert_eq!((w.state(lease), w.stands(host)), ("BROKEN", "DESTROYING"), "nobody relies on a machine that was sold");
    // It is there all the same: made ready anew, it serves again.
    w.all_works();
    let (a, b) = (w.lease("hosts"), w.lease("hosts"));
    w.all_works();
    assert_eq!(w.states(&[a, b]), ["ACTIVE"; 2]);

    // An advice without a time ends nothing.
    let (mut w, lease, host) = claimed(false);
    w.notice(host, NoticeKind::AtRisk);
    for _ in 0..10 {
        w.pass(Millis::secs(50));
        w.renew(lease).unwrap();
    }
    assert_eq!((w.state(lease), w.stands(host), w.row(lease).ends_at), ("ACTIVE", "READY", None));
}

#[test]
fn ec2_plugin_2037_an_idle_host_with_a_notice_is_not_handed_out() {
    let mut w = World::new(vec![PoolConfig { min_ready: 1, ..made_at_will("boats", 2) }]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let doomed = w.resources_of("boats")[0];
    w.notice(doomed, NoticeKind::Interruption(w.now.after(Millis::secs(120))));
    let lease = w.lease("boats");
    assert_eq!(w.state(lease), "QUEUED");
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
    assert_ne!(w.on(lease), doomed);

    // It comes while the host is still being made.
    let mut w = World::new(vec![made_at_will("boats", 2)]);
    let lease = w.lease("boats");
    let boot = w.take(Kind::Provision);
    w.notice(boot.resource.id, NoticeKind::Interruption(w.now.after(Millis::secs(120))));
    w.answer(&boot, None);
    assert_eq!(w.state(lease), "QUEUED", "that it was made is no reason to hand it out");
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE", "{}", w.explain(lease));
    assert_ne!(w.on(lease), boot.resource.id);
}

#[test]
fn gitlab_39145_a_host_that_dies_between_grant_and_first_use() {
    // While the slot is made ready: the holder sees nothing of it.
    let config = copies("copies", "hosts", 2);
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"]), config]);
    let lease = w.lease("copies");
    w.works(Kind::Provision);
    w.works(Kind::Provision);
    let copy = w.on(lease);
    let late = w.take(Kind::Prepare);
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    w.notice(host, NoticeKind::Gone);
    assert_eq!(w.state(lease), "QUEUED");
    let before = w.core.revision();
    w.answer(&late, None);
    assert_eq!(w.core.revision(), before, "that it was made ready once is of no use");
    w.all_works();
    assert_eq!(w.state(lease), "ACTIVE");
    assert_ne!(w.on(lease), copy);

    // Just after: the holder is notified before it can blame its own work.
    let (mut w, lease, host) = claimed(true);
    w.notice(host, NoticeKind::Gone);
    assert_eq!(w.state(lease), "BROKEN");
    w.release(lease, Outcome::Failed);
    assert_eq!(w.cause(lease)[0].reason, Reason::ResourceGone, "its own word comes too late to change that");
    w.all_works();
    let next = successor(&w, lease).unwrap();
    assert_eq!(w.state(next), "ACTIVE");
}

#[test]
fn skypilot_1410_a_set_that_loses_one_member() {
    for independent in [false, true] {
        let mut w = World::new(vec![inventory("hosts", &["h1", "h2", "h3", "h4"])]);
        let three = want_by(Selector::pool("hosts"), 3);
        let set = w.ask_all(LeaseRequest { independent, replace: true, ..three });
        w.all_works();
        let lost = w.on(set[1]);
        w.notice(lost, NoticeKind::Gone);
        w.all_works();
        let replaced: Vec<LeaseId> =
            w.core.leases(None).filter(|lease| lease.spec.replaces.is_some()).map(|lease| lease.id).collect();
        if independent {
            assert_eq!(w.states(&set), ["ACTIVE", "BROKEN", "ACTIVE"], "the others work on");
            assert_eq!(w.states(&replaced), ["ACTIVE"]);
        } else {
            assert_eq!(w.states(&set), ["BROKEN"; 3], "none of them is left to wait for the lost one");
            assert_eq!(w.states(&replaced), ["ACTIVE"; 3], "{}", w.explain(replaced[0]));
        }
    }
}

#[test]
fn tc_8314_failed_describe_calls_break_nothing() {
    let mut w = World::new(vec![PoolConfig { traits: PROBES, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.works(Kind::Provision);
    let host = w.on(lease);
    for blame in [Blame::Provider, Blame::Configuration, Blame::Bug] {
        for _ in 0..20 {
            w.pass(Millis::secs(12));
            w.fails(Kind::Probe, blame);
            w.renew(lease).unwrap();
            assert_eq!((w.state(lease), w.stands(host)), ("ACTIVE", "READY"), "{blame:?}");
        }
    }
    // In doubt, too: an answer that never came is none.
    w.notice(host, NoticeKind::ConnectionLost);
    for _ in 0..40 {
        w.fails(Kind::Check, Blame::Provider);
        w.renew(lease).unwrap();
        w.pass(Millis::secs(2));
        assert_eq!((w.state(lease), w.stands(host)), ("ACTIVE", "SUSPECT"));
    }
    w.verdict(silent());
    assert_eq!((w.state(lease), w.stands(host)), ("ACTIVE", "SUSPECT"), "the forty are no misses");
    w.pass(Millis::secs(2));
    w.works(Kind::Check);
    assert_eq!((w.state(lease), w.stands(host)), ("ACTIVE", "READY"));
}

/// A bad inventory emptied the pools, or filled them over.
#[test]
fn vmpooler_229_an_inventory_that_comes_back_empty_breaks_nothing() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"])]);
    let leases = [w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    let waiter = w.lease("hosts");
    w.configure(vec![inventory("hosts", &[])]);
    assert_eq!(w.states(&leases), ["ACTIVE"; 2]);
    assert_eq!(w.state(waiter), "QUEUED");
    w.configure(vec![inventory("hosts", &["h1", "h2"])]);
    w.all_works();
    assert_eq!(w.states(&leases), ["ACTIVE"; 2]);
    assert_eq!(w.resources_of("hosts").len(), 2, "each machine once");
    w.release(leases[0], Outcome::Ok);
    for _ in 0..3 {
        w.all_works();
        w.pass(Millis::secs(1));
    }
    assert_eq!(w.state(waiter), "ACTIVE", "{}", w.explain(waiter));
}

/// `worker_scanner_test.js`: a provider that hangs in one check stopped the scan of all others.
#[test]
fn tc_worker_scanner_a_check_that_never_ends_holds_up_no_other() {
    let mut w = World::new(vec![PoolConfig { traits: PROBES, ..inventory("hosts", &["h1", "h2", "h3"]) }]);
    let leases = [w.lease("hosts"), w.lease("hosts"), w.lease("hosts")];
    for _ in 0..3 {
        w.works(Kind::Provision);
    }
    let hosts = leases.map(|lease| w.on(lease));
    w.notice(hosts[0], NoticeKind::ConnectionLost);
    let hangs = w.take(Kind::Check);
    assert_eq!(hangs.resource.id, hosts[0]);

    w.notice(hosts[1], NoticeKind::ConnectionLost);
    w.works(Kind::Check);
    assert_eq!(w.stands(hosts[1]), "READY");
    w.pass(Millis::secs(12));
    // Probes of both others are due: one of them is dead.
    while w.waits_for(Kind::Probe) > 0 {
        let probe = w.take(Kind::Probe);
        let verdict = if probe.resource.id == hosts[2] { vanished() } else { wharfinger_core::Verdict::Healthy };
        w.step(Input::Probed { resource: probe.resource.id, result: Ok(verdict) }).unwrap();
    }
    assert_eq!(w.states(&leases), ["ACTIVE", "ACTIVE", "BROKEN"]);
    w.answer(&hangs, None);
    assert_eq!(w.stands(hosts[0]), "READY");
}

/// One of three is 33 %: a brake by percentage alone, at 20 %, never repairs it.
#[test]
fn karpenter_2134_a_pool_of_three_is_still_repaired() {
    let mut w = World::new(vec![PoolConfig { min_ready: 3, ..made_at_will("boats", 3) }]);
    w.step(Input::Tick).unwrap();
    w.all_works();
    let leases = [w.lease("boats"), w.lease("boats"), w.lease("boats")];
    let dead = w.on(leases[0]);
    w.notice(dead, NoticeKind::ConnectionLost);
    for _ in 0..10 {
        while w.waits_for(Kind::Check) > 0 {
            w.verdict(silent());
        }
        w.pass(Millis::secs(1));
    }
    assert_eq!(w.states(&leases), ["BROKEN", "ACTIVE", "ACTIVE"]);
    let next = w.lease("boats");
    w.all_works();
    assert_eq!(w.state(next), "ACTIVE", "{}", w.explain(next));
}

/// Nomad's `disconnect` block: what was declared lost comes back, and both believe that the work is theirs.
#[test]
fn nomad_disconnect_a_host_that_returns_after_it_was_given_up_brings_no_old_lease_back() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 2)]);
    let lease = w.lease("copies");
    w.all_works();
    let (copy, token) = (w.on(lease), w.token(lease));
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    w.notice(host, NoticeKind::ConnectionLost);
    let check = w.take(Kind::Check);
    w.step(Input::Checked { resource: host, op: check.op, result: Ok(silent()) }).unwrap();
    while w.state(lease) == "ACTIVE" {
        w.pass(Millis::secs(1));
        w.verdict(silent());
    }
    let row = w.row(lease).clone();
    assert_eq!((w.state(lease), w.stands(copy)), ("BROKEN", "GONE"));

    // It is back: its removal works, and the machine is proved and serves again, as another resource.
    w.answer(&check, None);
    w.notice(host, NoticeKind::Cancelled);
    w.all_works();
    let next = w.lease("copies");
    w.all_works();
    assert_eq!(w.state(next), "ACTIVE", "{}", w.explain(next));
    assert!(w.on(next) != copy && w.token(next) > token);
    let again = w.resource(w.on(next)).parent.unwrap().host.unwrap();
    assert!(again != host && w.resource(again).item == w.resource(host).item);
    assert_eq!(w.renew(lease).unwrap_err().reason, "LEASE_ENDED");
    w.release(lease, Outcome::Ok);
    assert_eq!(*w.row(lease), row);
    assert_eq!(w.state(next), "ACTIVE");
}

/// Three builds on one machine: three breaks, and one word of the machine.
#[test]
fn a_host_that_dies_under_three_leased_copies_is_three_breaks_and_one_host_event() {
    let mut w = World::new(vec![PoolConfig { slots: 3, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 3)]);
    let leases = [w.lease("copies"), w.lease("copies"), w.lease("copies")];
    w.all_works();
    let host = w.resource(w.on(leases[0])).parent.unwrap().host.unwrap();
    w.notice(host, NoticeKind::Gone);
    assert_eq!(w.states(&leases), ["BROKEN"; 3]);
    let told = |lease: &LeaseId| {
        w.last.events.iter().filter(|event| event.kind == EventKind::LeaseBroken && event.lease == Some(*lease)).count()
    };
    assert_eq!(leases.each_ref().map(told), [1, 1, 1]);
    let of_host = |kind: EventKind| {
        w.last.events.iter().filter(|e| e.kind == kind && e.subject == wharfinger_core::Subject::Resource(host)).count()
    };
    assert_eq!(of_host(EventKind::ResourceDestroying), 1);
}

/// A refusal of the provider for a while (quota, throttling) is no failure: Nodepool's ABORTED.
#[test]
fn nodepool_aborted_over_quota_delays_and_fails_no_lease() {
    let mut w = World::new(vec![made_at_will("boats", 2)]);
    let lease = w.lease("boats");
    for _ in 0..20 {
        let call = w.take(Kind::Provision);
        w.answer(&call, Some(failure(Blame::Provider)));
        assert_eq!((w.state(lease), w.row(lease).attempts), ("QUEUED", 0));
        assert_eq!(w.waits_for(Kind::Provision), 0, "not at once again");
        w.pass(Millis::secs(61));
    }
    w.works(Kind::Provision);
    assert_eq!(w.state(lease), "ACTIVE");
    assert_eq!(w.resources_of("boats").len(), 1);
}
