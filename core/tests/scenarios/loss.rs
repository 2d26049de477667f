//! Doubt and loss: suspicion, checks, repairs, proofs of death, and the notification of holders.

use crate::world::{Kind, World, copies, inventory, lease_on_copy, mangled, silent, vanished, want};
use wharfinger_core::{
    AdminVerb, Blame, Effect, Ended, LeaseRequest, LeaseState, Millis, NoticeKind, Outcome, PoolConfig, Reason,
    ResourceState, Source, Subject, Traits, Work,
};

#[test]
fn the_only_resource_in_doubt_keeps_its_waiters_and_serves_them_after_the_check() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let holder = w.lease("hosts");
    w.all_works();
    let host = w.on(holder);
    let waiters: Vec<_> = (0..3).map(|_| w.lease("hosts")).collect();

    w.release(holder, Outcome::Failed);
    assert_eq!(w.stands(host), "SUSPECT", "suspicion and what caused it are one commit");
    assert!(w.last.leases.iter().any(|row| row.id == holder) && w.last.resources.iter().any(|row| row.id == host));
    assert_eq!(w.states(&waiters), ["QUEUED"; 3]);
    assert_eq!(w.calls.len(), 1, "the check, and no second host");
    w.works(Kind::Check);

    assert_eq!(w.states(&waiters), ["ACTIVE", "QUEUED", "QUEUED"]);
}

#[test]
fn a_failed_release_of_a_copy_is_cleaned_then_checked_then_ready() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.release(lease, Outcome::Failed);
    assert_eq!(w.stands(copy), "SUSPECT");
    assert_eq!(w.waits_for(Kind::Check), 0, "not while the clean-up runs");
    w.works(Kind::Clean);
    w.works(Kind::Check);
    assert_eq!(w.stands(copy), "READY");
}

#[test]
fn a_mangled_copy_is_repaired_checked_and_serves_again() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.release(lease, Outcome::Failed);
    w.works(Kind::Clean);
    w.verdict(mangled(true));
    assert_eq!(w.stands(copy), "REPAIRING");
    w.works(Kind::Repair);
    assert_eq!(w.stands(copy), "SUSPECT", "a check tells whether it helped");
    w.works(Kind::Check);
    assert_eq!(w.stands(copy), "READY");
}

#[test]
fn repairs_end_and_then_it_is_replaced() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.release(lease, Outcome::Failed);
    w.works(Kind::Clean);
    for _ in 0..2 {
        w.verdict(mangled(true));
        w.works(Kind::Repair);
    }
    w.verdict(mangled(true));
    assert_eq!(w.stands(copy), "DESTROYING");
}

#[test]
fn a_resource_without_a_successful_repair_is_replaced() {
    for repairable in [true, false] {
        let (mut w, lease, copy, _) = lease_on_copy(1);
        w.release(lease, Outcome::Failed);
        w.works(Kind::Clean);
        w.verdict(mangled(repairable));
        if repairable {
            w.fails(Kind::Repair, Blame::Resource);
        }
        assert_eq!(w.stands(copy), "DESTROYING");
        let next = w.lease("copies");
        w.all_works();
        assert_eq!(w.state(next), "ACTIVE");
        assert_ne!(w.on(next), copy);
    }
}

#[test]
fn a_tainted_copy_is_mended_even_if_the_check_sees_nothing() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    w.release(lease, Outcome::Tainted);
    w.works(Kind::Clean);
    w.works(Kind::Check);
    assert_eq!(w.stands(copy), "REPAIRING");
    w.works(Kind::Repair);
    w.works(Kind::Check);
    assert_eq!(w.stands(copy), "READY");
}

#[test]
fn a_tainted_host_that_cannot_be_repaired_is_replaced_after_its_other_leases() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let (says_so, works_on) = (w.lease("hosts"), w.lease("hosts"));
    w.all_works();
    let host = w.on(says_so);
    w.release(says_so, Outcome::Tainted);
    assert!(w.row(works_on).doubt.is_some(), "who else is on it is told of the doubt");
    w.works(Kind::Check);
    assert_eq!((w.stands(host), w.state(works_on)), ("DRAINING", "ACTIVE"), "no evidence, no break");
    w.release(works_on, Outcome::Ok);
    assert_eq!(w.stands(host), "DESTROYING");
}

#[test]
fn silence_breaks_after_enough_misses_over_enough_time() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.notice(host, NoticeKind::ConnectionLost);
    assert_eq!(w.stands(host), "SUSPECT");
    assert!(w.row(lease).doubt.is_some());
    let waiter = w.lease("copies");

    // Three misses within three seconds are not enough: N misses over at least T.
    for _ in 0..3 {
        w.verdict(silent());
        assert_eq!(w.states(&[lease, waiter]), ["ACTIVE", "QUEUED"]);
        w.pass(Millis::secs(1));
    }
    w.verdict(silent());

    assert_eq!(w.state(lease), "BROKEN");
    assert_eq!((w.stands(host), w.stands(copy)), ("DESTROYING", "GONE"));
    let told: Vec<Subject> = w.cause(lease).iter().map(|link| link.subject.clone()).collect();
    let reasons: Vec<Reason> = w.cause(lease).iter().map(|link| link.reason).collect();
    assert_eq!(reasons, [Reason::ParentGone, Reason::ResourceUnreachable, Reason::ConnectionLost]);
    assert_eq!(told, [Subject::Resource(copy), Subject::Resource(host), Subject::Resource(host)]);
    // All of it in one commit.
    let batch = &w.last;
    assert!(batch.leases.iter().any(|row| row.id == lease));
    assert!([copy, host].iter().all(|id| batch.resources.iter().any(|row| row.id == *id)));
    w.all_works();
    assert_eq!(w.state(waiter), "ACTIVE", "on the other host");
}

#[test]
fn one_answer_in_between_starts_the_count_anew() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.notice(host, NoticeKind::ConnectionLost);
    for _ in 0..20 {
        w.verdict(silent());
        w.pass(Millis::secs(2));
        w.verdict(silent());
        w.pass(Millis::secs(2));
        // The adapter could not even ask: no verdict.
        w.fails(Kind::Check, Blame::Provider);
        w.pass(Millis::secs(2));
        w.renew(lease).unwrap();
    }
    assert_eq!((w.state(lease), w.stands(host)), ("ACTIVE", "SUSPECT"));
    w.works(Kind::Check);
    assert_eq!((w.stands(host), w.row(lease).doubt.is_none()), ("READY", true));
}

#[test]
fn a_lost_connection_and_a_healthy_check_break_nothing() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.notice(host, NoticeKind::ConnectionLost);
    w.works(Kind::Check);
    assert_eq!((w.state(lease), w.stands(host), w.stands(copy)), ("ACTIVE", "READY", "READY"));
    assert!(w.row(lease).doubt.is_none());
}

#[test]
fn a_notice_of_the_provider_breaks_at_once_and_frees_the_capacity() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.notice(host, NoticeKind::Gone);
    assert_eq!((w.state(lease), w.stands(copy)), ("BROKEN", "GONE"));
    assert_eq!(w.cause(lease)[1].source, Source::Notice("cloud".into()));
    let ResourceState::Destroying { dead: true, .. } = w.resource(host).state else { panic!("{}", w.stands(host)) };
    let text = w.explain(lease);
    assert!(text.contains("PARENT_GONE") && text.contains("RESOURCE_GONE: said so"), "{text}");
}

#[test]
fn a_check_that_finds_it_gone_breaks_all_slots() {
    let mut w = World::new(vec![PoolConfig { slots: 3, ..inventory("hosts", &["h1"]) }]);
    let leases: Vec<_> = (0..3).map(|_| w.lease("hosts")).collect();
    w.all_works();
    let host = w.on(leases[0]);
    w.admin(AdminVerb::Check(host)).unwrap();
    w.verdict(vanished());
    assert_eq!(w.states(&leases), ["BROKEN"; 3]);
}

#[test]
fn probes_find_a_loss_without_a_notice() {
    let traits = Traits { prepares: false, cleans: false, repairs: false, probes: true };
    let mut w = World::new(vec![PoolConfig { traits, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.works(Kind::Provision);
    let host = w.on(lease);
    w.pass(Millis::secs(12));
    w.probed(silent());
    assert_eq!((w.stands(host), w.state(lease)), ("SUSPECT", "ACTIVE"));
    w.works(Kind::Check);
    assert_eq!(w.stands(host), "READY");
    for _ in 0..5 {
        w.pass(Millis::secs(12));
        w.fails(Kind::Probe, Blame::Provider);
        assert_eq!(w.stands(host), "READY", "an API error is no verdict");
        w.renew(lease).unwrap();
    }
    w.pass(Millis::secs(12));
    w.probed(vanished());
    assert_eq!(w.state(lease), "BROKEN");
}

#[test]
fn a_draining_host_that_falls_silent_is_proved_dead_by_its_probes() {
    let traits = Traits { prepares: false, cleans: false, repairs: false, probes: true };
    let mut w = World::new(vec![PoolConfig { traits, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.works(Kind::Provision);
    let host = w.on(lease);
    w.admin(AdminVerb::Drain(host, None)).unwrap();
    for n in 0..8 {
        if w.state(lease) == "BROKEN" {
            assert!(n > 2);
            return;
        }
        w.pass(Millis::secs(12));
        w.probed(silent());
    }
    panic!("the lease is never told");
}

#[test]
fn a_break_queues_the_successor_in_the_old_place_if_that_was_asked_for() {
    let mut w = World::new(vec![inventory("hosts", &["h1", "h2"])]);
    let lease = w.ask(LeaseRequest { replace: true, ..want("hosts") });
    let other = w.lease("hosts");
    w.all_works();
    let waiter = w.lease("hosts");

    let lost = w.on(lease);
    w.notice(lost, NoticeKind::Gone);

    let LeaseState::Ended { how: Ended::Broken { replacement: Some(successor), .. }, .. } = w.row(lease).state else {
        panic!("{:?}", w.row(lease).state)
    };
    assert_eq!(w.row(successor).spec.replaces, Some(lease));
    w.release(other, Outcome::Ok);
    assert_eq!(w.states(&[successor, waiter]), ["ACTIVE", "QUEUED"], "it is older than who waits");
}

#[test]
fn a_successor_may_wait_as_long_as_the_first_might() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let request = LeaseRequest { replace: true, queue_for: Some(Millis::secs(30)), ..want("hosts") };
    let lease = w.ask(request);
    w.all_works();
    w.pass(Millis::secs(50));
    let lost = w.on(lease);
    w.notice(lost, NoticeKind::Gone);
    let LeaseState::Ended { how: Ended::Broken { replacement: Some(successor), .. }, .. } = w.row(lease).state else {
        panic!("{:?}", w.row(lease).state)
    };
    w.pass(Millis::secs(1));
    assert_eq!(w.state(successor), "QUEUED", "{}", w.explain(successor));
    w.pass(Millis::secs(30));
    assert_eq!(w.state(successor), "FAILED", "{}", w.explain(successor));
}

#[test]
fn copies_of_a_silent_host_wait_for_what_their_host_says() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 2)]);
    let leases = [w.lease("copies"), w.lease("copies")];
    w.all_works();
    let copy = w.on(leases[0]);
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    w.admin(AdminVerb::Check(copy)).unwrap();
    w.verdict(silent());
    assert_eq!((w.stands(copy), w.stands(host)), ("SUSPECT", "SUSPECT"));
    assert_eq!(w.states(&leases), ["ACTIVE"; 2]);
    assert!(w.row(leases[1]).doubt.is_some());
    for _ in 0..30 {
        w.pass(Millis::secs(1));
        if w.waits_for(Kind::Check) > 0 {
            w.verdict(silent());
        }
        if w.state(leases[0]) == "BROKEN" {
            break;
        }
    }
    assert_eq!(w.states(&leases), ["BROKEN"; 2], "the host is gone by evidence, and both copies with it");
}

#[test]
fn no_copy_of_a_host_in_doubt_is_granted_though_the_host_has_no_slot_to_give() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.release(lease, Outcome::Ok);
    w.all_works();
    w.notice(host, NoticeKind::ConnectionLost);
    assert_eq!((w.stands(host), w.stands(copy)), ("SUSPECT", "READY"));
    w.configure(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let waiter = w.lease("copies");
    assert_eq!(w.state(waiter), "QUEUED", "its host is in doubt");
    w.works(Kind::Check);
    assert_eq!(w.on(waiter), copy);
}

#[test]
fn a_check_that_is_due_while_a_slot_is_cleaned_waits_for_the_clean_up() {
    let config = PoolConfig { slots: 2, ..copies("copies", "hosts", 1) };
    let mut w = World::new(vec![inventory("hosts", &["h1"]), config]);
    let (first, second) = (w.lease("copies"), w.lease("copies"));
    w.all_works();
    let copy = w.on(first);
    w.admin(AdminVerb::Check(copy)).unwrap();
    w.verdict(silent());
    w.works(Kind::Check);
    w.release(second, Outcome::Ok);
    w.pass(Millis::secs(5));
    assert_eq!((w.stands(copy), w.waits_for(Kind::Check)), ("SUSPECT", 0));
    w.works(Kind::Clean);
    w.works(Kind::Check);
    assert_eq!((w.stands(copy), w.state(first)), ("READY", "ACTIVE"));
}

#[test]
fn the_number_of_a_probe_is_that_of_no_other_call() {
    let traits = Traits { prepares: false, cleans: false, repairs: false, probes: true };
    let mut w = World::new(vec![PoolConfig { traits, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.works(Kind::Provision);
    let host = w.on(lease);
    w.pass(Millis::secs(12));
    let probe = w.take(Kind::Probe);
    w.notice(host, NoticeKind::Gone);
    assert_ne!(w.take(Kind::Destroy).op, probe.op, "who runs calls takes the same number for the same call");
}

#[test]
fn the_successor_of_one_that_is_still_in_line_takes_its_place() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let holder = w.lease("hosts");
    w.all_works();
    let waiter = w.ask(LeaseRequest { replace: true, ..want("hosts") });
    let behind = w.lease("hosts");
    w.admin(AdminVerb::Break(waiter)).unwrap();
    let LeaseState::Ended { how: Ended::Broken { replacement: Some(successor), .. }, .. } = w.row(waiter).state else {
        panic!("{:?}", w.row(waiter).state)
    };
    w.release(holder, Outcome::Ok);
    assert_eq!(w.states(&[successor, behind]), ["ACTIVE", "QUEUED"]);
}

#[test]
fn a_draining_host_in_doubt_is_asked_though_its_pool_does_not_probe() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.admin(AdminVerb::Drain(host, None)).unwrap();
    w.notice(host, NoticeKind::ConnectionLost);
    for _ in 0..10 {
        w.pass(Millis::secs(2));
        if w.waits_for(Kind::Probe) > 0 {
            w.probed(silent());
        }
    }
    assert_eq!(w.state(lease), "BROKEN", "or its holder never learns");
}

#[test]
fn a_failure_while_a_check_is_under_way_is_checked_anew() {
    let mut hosts = inventory("hosts", &["h1"]);
    hosts.slots = 2;
    let mut w = World::new(vec![hosts]);
    let (first, second) = (w.lease("hosts"), w.lease("hosts"));
    w.all_works();
    let host = w.on(first);
    w.release(first, Outcome::Failed);
    let begun = w.take(Kind::Check);
    // The leftovers of the second came after the first check began.
    w.release(second, Outcome::Failed);
    w.answer(&begun, None);
    assert_eq!(w.stands(host), "SUSPECT", "the answer of the check that began before says nothing of it");
    w.works(Kind::Check);
    assert_eq!(w.stands(host), "READY");
}

#[test]
fn a_copy_is_probed_only_while_a_lease_on_it_is_active() {
    let probed = Traits { prepares: true, cleans: true, repairs: true, probes: true };
    let mut w =
        World::new(vec![inventory("hosts", &["h1"]), PoolConfig { traits: probed, ..copies("copies", "hosts", 1) }]);
    let probes = |w: &World, copy| {
        let of = |call: &&Effect| call.resource.id == copy && matches!(call.work, Work::Probe);
        w.calls.iter().filter(of).count()
    };
    let first = w.lease("copies");
    while w.waits_for(Kind::Prepare) == 0 {
        w.works(Kind::Provision);
    }
    let copy = w.resources_of("copies")[0];
    w.pass(Millis::secs(30));
    assert_eq!(probes(&w, copy), 0, "while it is prepared it is in no state that a probe knows");
    w.all_works();
    assert_eq!(w.state(first), "ACTIVE");
    w.pass(Millis::secs(6));
    assert_eq!(probes(&w, copy), 1);
    // The lease ends while the probe runs, which then sees the clean-up.
    w.release(first, Outcome::Ok);
    w.probed(mangled(true));
    assert_eq!(w.stands(copy), "READY");
    w.pass(Millis::secs(30));
    assert_eq!((w.waits_for(Kind::Clean), probes(&w, copy)), (1, 0), "nor while it is cleaned");
    w.works(Kind::Clean);
    let second = w.lease("copies");
    w.works(Kind::Prepare);
    w.pass(Millis::secs(6));
    w.probed(mangled(true));
    assert_eq!((w.stands(copy), w.on(second)), ("SUSPECT", copy), "a probe of a copy at work counts");
}
