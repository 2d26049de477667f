//! The broker dies at every point of a story, and comes back from what it stored: the story ends the same.

use crate::world::{Kind, World, copies, failure, inventory, made_at_will, mangled, silent, want_by};
use wharfinger_core::{Blame, Effect, Input, LeaseId, Millis, NoticeKind, Op, Outcome, PoolConfig, Selector, Work};

fn world() -> World {
    World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1", "h2"]) }, copies("copies", "hosts", 4)])
}

fn asked(calls: &[Effect]) -> Vec<(&'static str, wharfinger_core::ResourceId, Op)> {
    let name = |work: &Work| match work {
        Work::Provision(_) => "provision",
        Work::Prepare(_) => "prepare",
        Work::Clean(_) => "clean",
        Work::Check => "check",
        Work::Probe => "probe",
        Work::Repair => "repair",
        Work::Destroy => "destroy",
    };
    let mut all: Vec<_> = calls.iter().map(|call| (name(&call.work), call.resource.id, call.op)).collect();
    all.sort();
    all
}

/// An operation under way is asked for again by the number that it had: an adapter that did it already says so.
fn restart(w: &mut World) {
    let before = w.calls.clone();
    w.restart();
    let again = asked(&w.calls);
    let known = asked(&before);
    assert!(again.iter().all(|call| known.contains(call)), "{again:?} of {known:?}");
    // An operation that is not asked for again was of no use any more: its answer changes nothing.
    for call in before.iter().filter(|call| !again.contains(&asked(std::slice::from_ref(call))[0])) {
        let revision = w.core.revision();
        w.answer(call, None);
        assert_eq!(w.core.revision(), revision, "{:?} got lost", call.work);
    }
}

type Step = fn(&mut World, &mut Vec<LeaseId>);

/// A whole life: made, prepared, worked on, failed, cleaned, checked, mended, lost, and told.
const STORY: &[Step] = &[
    |w, leases| leases.push(w.lease("copies")),
    |w, leases| leases.extend(w.ask_all(want_by(Selector::pool("copies"), 2))),
    |w, _| drop(w.works(Kind::Provision)),
    |w, _| drop(w.works(Kind::Provision)),
    |w, _| drop(w.works(Kind::Provision)),
    |w, _| drop(w.fails(Kind::Provision, Blame::Provider)),
    |w, _| w.pass(Millis::secs(3)),
    |w, _| drop(w.works(Kind::Provision)),
    |w, _| w.all_works(),
    |w, leases| w.release(leases[0], Outcome::Failed),
    |w, _| drop(w.works(Kind::Clean)),
    |w, _| drop(w.verdict(mangled(true))),
    |w, _| drop(w.works(Kind::Repair)),
    |w, _| drop(w.verdict(silent())),
    |w, _| w.pass(Millis::secs(2)),
    |w, _| w.all_works(),
    |w, leases| leases.push(w.lease("copies")),
    |w, leases| {
        let copy = w.on(leases[1]);
        let host = w.resource(copy).parent.unwrap().host.unwrap();
        w.notice(host, NoticeKind::Gone);
    },
    |w, _| w.all_works(),
    |w, _| w.pass(Millis::secs(10)),
    |w, _| w.all_works(),
];

fn tell(restart_at: Option<usize>) -> Vec<&'static str> {
    let mut w = world();
    let mut leases = Vec::new();
    for (n, step) in STORY.iter().enumerate() {
        step(&mut w, &mut leases);
        if restart_at == Some(n) {
            restart(&mut w);
        }
    }
    w.states(&leases)
}

#[test]
fn a_restart_at_any_point_changes_nothing_of_the_end() {
    let told = tell(None);
    assert_eq!(told, ["RELEASED", "BROKEN", "BROKEN", "ACTIVE"]);
    for n in 0..STORY.len() {
        assert_eq!(tell(Some(n)), told, "restarted after step {n}");
    }
}

#[test]
fn a_restart_after_every_step_changes_nothing_of_the_end() {
    let mut w = world();
    let mut leases = Vec::new();
    for step in STORY {
        step(&mut w, &mut leases);
        restart(&mut w);
        restart(&mut w);
    }
    assert_eq!(w.states(&leases), ["RELEASED", "BROKEN", "BROKEN", "ACTIVE"]);
}

#[test]
fn the_queue_survives_a_restart() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let holder = w.lease("hosts");
    w.all_works();
    let low = w.lease("hosts");
    let high = w.ask(wharfinger_core::LeaseRequest { priority: 5, ..crate::world::want("hosts") });
    let also_low = w.lease("hosts");
    w.restart();
    let mut order = Vec::new();
    let mut last = holder;
    for _ in 0..3 {
        w.release(last, Outcome::Ok);
        last = *[low, high, also_low].iter().find(|id| w.state(**id) == "ACTIVE").unwrap();
        order.push(last);
    }
    assert_eq!(order, [high, low, also_low]);
}

#[test]
fn a_watcher_that_resumes_anywhere_ends_with_the_truth() {
    let mut w = world();
    let mut leases = Vec::new();
    let mut known = std::collections::BTreeMap::new();
    let mut revision = wharfinger_core::Revision(0);
    for (n, step) in STORY.iter().enumerate() {
        step(&mut w, &mut leases);
        if n % 4 == 0 {
            known.extend(w.core.leases_changed_after(revision).map(|row| (row.id, row.clone())));
            revision = w.core.revision();
        }
        if n % 7 == 0 {
            w.restart();
        }
    }
    known.extend(w.core.leases_changed_after(revision).map(|row| (row.id, row.clone())));
    assert!(w.core.leases(None).eq(known.values()));
}

/// The note of an adapter before it buys a machine is there after a restart, and when the half-made machine is removed.
#[test]
fn a_note_about_a_host_survives_a_restart_while_the_host_is_made() {
    let mut w = World::new(vec![made_at_will("hosts", 2)]);
    let _ = w.lease("hosts");
    let making = w.take(Kind::Provision);
    let (resource, op) = (making.resource.id, making.op);
    let noted = |note: &str, op| Input::Noted { resource, op, handle: note.into() };
    w.step(noted("about to launch", op)).unwrap();
    w.step(noted("launched i-1", op)).unwrap();
    w.restart();
    let again = w.take(Kind::Provision);
    assert_eq!((again.op, again.resource.handle.as_deref()), (op, Some("launched i-1")));
    // The provider fails; the next try knows what the last one did.
    w.answer(&again, Some(failure(Blame::Provider)));
    assert!(w.step(noted("late", op)).is_err(), "nobody waits for it any more");
    w.pass(Millis::secs(60));
    let next = w.take(Kind::Provision);
    assert_ne!(next.op, op);
    assert_eq!(next.resource.handle.as_deref(), Some("launched i-1"));
    // It cannot be made: its note goes to the call that removes it.
    w.answer(&next, Some(failure(Blame::Resource)));
    assert_eq!(w.take(Kind::Destroy).resource.handle.as_deref(), Some("launched i-1"));
    assert!(w.step(noted("too late", next.op)).is_err());
}

/// A host that was stored while it had a lease, and is free when the broker dies, is given up all the same.
#[test]
fn an_idle_resource_is_given_up_in_its_time_after_a_restart() {
    let mut w = World::new(vec![PoolConfig { idle: Some(Millis::secs(60)), ..made_at_will("hosts", 1) }]);
    let lease = w.lease("hosts");
    w.all_works();
    let host = w.on(lease);
    w.notice(host, NoticeKind::AtRisk);
    w.release(lease, Outcome::Ok);
    w.all_works();
    w.restart();
    w.pass(Millis::secs(59));
    w.all_works();
    assert_eq!(w.stands(host), "READY");
    w.pass(Millis::secs(2));
    w.all_works();
    assert_eq!(w.stands(host), "GONE");
}
