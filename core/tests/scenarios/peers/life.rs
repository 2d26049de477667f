//! Group Life: renewal, expiry, pauses, restarts, and what a holder that lost its lease can still do.

use crate::world::{Kind, World, copies, inventory, want};
use std::sync::Arc;
use wharfinger_core::{
    AdminVerb, Caller, Input, LeaseId, LeaseRequest, Millis, Outcome, PoolConfig, Reason, ResourceId, Timestamp,
};

fn one_lease() -> (World, LeaseId) {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    w.all_works();
    (w, lease)
}

#[test]
fn etcd_renew_in_the_last_millisecond_counts_in_full() {
    let (mut w, lease) = one_lease();
    for _ in 0..3 {
        w.pass(Millis(59_999));
        w.renew(lease).unwrap();
        assert_eq!(w.row(lease).expires_at, Some(w.now.after(Millis::secs(60))));
    }
    w.pass(Millis(59_999));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis(1));
    assert_eq!(w.state(lease), "EXPIRED");
}

/// `Renew` of etcd waits until a revoke is committed, then says not found: never a renewal of what ended.
#[test]
fn etcd_renew_that_was_overtaken_by_the_expiry_is_refused() {
    let (mut w, lease) = one_lease();
    let host = w.on(lease);
    let waiter = w.lease("hosts");
    w.pass(Millis::secs(59));
    // On its way, and no tick came between.
    w.now = w.now.after(Millis::secs(1));
    assert_eq!(w.renew(lease).unwrap_err().reason, "LEASE_ENDED");
    assert_eq!((w.state(lease), w.stands(host)), ("EXPIRED", "SUSPECT"));
    w.restart();
    assert_eq!(w.renew(lease).unwrap_err().reason, "LEASE_ENDED", "nor after a restart");
    w.all_works();
    assert_eq!(w.states(&[lease, waiter]), ["EXPIRED", "ACTIVE"]);
}

#[test]
fn etcd_15247_a_paused_broker_expires_no_lease() {
    let mut w = World::new(vec![PoolConfig { slots: 100, ..inventory("hosts", &["h1"]) }]);
    let leases: Vec<LeaseId> = (0..100).map(|_| w.lease("hosts")).collect();
    w.all_works();
    w.pass(Millis::secs(30));
    w.freeze(Millis::secs(60));
    assert_eq!(w.states(&leases), ["ACTIVE"; 100], "on waking");
    w.pass(Millis::secs(20));
    // All but the last two are still there.
    for lease in &leases[..98] {
        w.renew(*lease).unwrap();
    }
    w.pass(Millis::secs(11));
    assert_eq!(w.states(&leases[..98]), ["ACTIVE"; 98]);
    assert_eq!(w.states(&leases[98..]), ["EXPIRED"; 2], "who is gone is gone: the grace ends");
}

#[test]
fn a_clock_that_jumps_either_way_ends_no_lease_and_prolongs_none_for_good() {
    let (mut w, lease) = one_lease();
    let expires = w.row(lease).expires_at;
    let right = w.now;
    for wrong in [Timestamp(0), Timestamp(right.0 - 500_000)] {
        w.now = wrong;
        w.step(Input::Tick).unwrap();
        assert_eq!((w.state(lease), w.row(lease).expires_at), ("ACTIVE", expires));
    }
    // Put right again: the lease ends when it should.
    w.now = right;
    w.pass(Millis::secs(59));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis::secs(2));
    assert_eq!(w.state(lease), "EXPIRED");

    // A day ahead in one step is a pause, not a day in which the holder was silent.
    let (mut w, lease) = one_lease();
    w.freeze(Millis::secs(86_400));
    assert_eq!(w.state(lease), "ACTIVE");
    w.renew(lease).unwrap();
    assert_eq!(w.row(lease).expires_at, Some(w.now.after(Millis::secs(60))));
}

/// labgrid drops all acquisitions when it loads its state.
#[test]
fn labgrid_load_and_lock_step_with_restart_leases_and_the_line_survive() {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let holder = w.lease("copies");
    w.all_works();
    let waiters = [w.lease("copies"), w.lease("copies"), w.lease("copies")];
    let (row, on) = (w.row(holder).clone(), w.on(holder));
    for _ in 0..3 {
        w.restart();
        assert_eq!((w.row(holder).clone(), w.stands(on)), (row.clone(), "READY"), "as it was, token and access too");
        assert_eq!(w.states(&waiters), ["QUEUED"; 3]);
        assert_eq!(w.calls.len(), 0, "nothing is made anew");
    }
    w.renew(holder).unwrap();
    let mut last = holder;
    for waiter in waiters {
        w.release(last, Outcome::Ok);
        w.restart();
        w.all_works();
        assert_eq!((w.state(last), w.state(waiter)), ("RELEASED", "ACTIVE"));
        last = waiter;
    }
}

/// Before 3.6 each change of leader gave every lease its whole TTL again; the first remedy shortened some.
#[test]
fn etcd_17132_restarts_neither_shorten_nor_reset_a_ttl() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.ask(LeaseRequest { ttl: Some(Millis::secs(600)), ..want("hosts") });
    w.all_works();
    let expires = w.row(lease).expires_at;
    for _ in 0..11 {
        w.pass(Millis::secs(50));
        w.restart();
        assert_eq!(w.row(lease).expires_at, expires);
    }
    w.pass(Millis::secs(49));
    assert_eq!(w.state(lease), "ACTIVE");
    w.pass(Millis::secs(2));
    assert_eq!(w.state(lease), "EXPIRED");
}

/// A lease on the only copy that is taken from its holder, and one that waits for it.
fn stolen() -> (World, LeaseId, LeaseId, ResourceId) {
    let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
    let lost = w.lease("copies");
    w.all_works();
    let copy = w.on(lost);
    let next = w.lease("copies");
    w.admin(AdminVerb::Break(lost)).unwrap();
    assert_eq!(w.cause(lost)[0].reason, Reason::Operator);
    (w, lost, next, copy)
}

/// A kicked user kept the console open, and could release the place from under the next one.
#[test]
fn labgrid_449_a_stolen_lease_can_neither_renew_nor_release() {
    let (mut w, lost, next, copy) = stolen();
    let old = w.row(lost).assignment().unwrap().token;
    w.all_works();
    assert_eq!((w.state(next), w.on(next)), ("ACTIVE", copy));
    assert!(w.token(next) > old, "what the old holder sends is told apart by its token");
    let before = w.core.revision();
    assert_eq!(w.renew(lost).unwrap_err().reason, "LEASE_ENDED");
    for outcome in [Outcome::Ok, Outcome::Failed, Outcome::Tainted] {
        w.release(lost, outcome);
    }
    let caller = Caller::sole_tenant("eve");
    let theft = Input::Release { lease: next, caller, outcome: Outcome::Ok, note: Arc::from(""), hold: None };
    assert_eq!(w.step(theft).unwrap_err().reason, "NOT_YOURS");
    assert_eq!(w.core.revision(), before, "nothing of that changed anything");
    assert_eq!((w.state(next), w.stands(copy)), ("ACTIVE", "READY"));
}

/// The reaper gave a project to a second build while the first was still deleting in it.
#[test]
fn kube_agents_1196_a_copy_that_was_taken_away_is_cleaned_before_anyone_else_gets_it() {
    for expires in [true, false] {
        let (mut w, lost, next, copy) = if expires {
            let mut w = World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1)]);
            let lost = w.lease("copies");
            w.all_works();
            let (copy, next) = (w.on(lost), w.lease("copies"));
            w.pass(Millis::secs(61));
            (w, lost, next, copy)
        } else {
            stolen()
        };
        assert_ne!(w.state(lost), "ACTIVE");
        // The clean-up ends the old holder's processes; it fails, and is not skipped for that.
        w.fails(Kind::Clean, wharfinger_core::Blame::Provider);
        for _ in 0..5 {
            assert_eq!((w.state(next), w.stands(copy)), ("QUEUED", "SUSPECT"));
            assert!(w.row(lost).assignment().is_some(), "its slot is still taken");
            w.restart();
            w.pass(Millis::secs(1));
        }
        w.all_works();
        assert_eq!(w.state(next), "ACTIVE", "{}", w.explain(next));
        assert!(w.row(lost).assignment().is_none());
    }
}
