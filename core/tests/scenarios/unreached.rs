//! A holder that cannot get in: its own end is not the host's.

use crate::world::{Kind, World, failure, inventory, want};
use std::sync::Arc;
use wharfinger_core::{
    Blame, Caller, Effect, Input, LeaseId, LeaseRequest, Millis, Outcome, PoolConfig, Reply, Traits, Work,
};

fn unreached(w: &mut World, lease: LeaseId) {
    let note = Arc::from("its address has no number");
    let Ok(Reply::Leases(_)) = w.step(Input::Unreached { lease, caller: Caller::sole_tenant("ann"), note }) else {
        panic!("refused")
    };
}

/// Takes the probe by a new login, which leaves at once.
fn login(w: &mut World) -> Effect {
    let at = w.calls.iter().position(|call| call.work == Work::Probe && call.by_new_login).expect("a new login");
    w.calls.remove(at)
}

fn two_hosts(slots: u32) -> World {
    let traits = Traits { prepares: false, cleans: false, repairs: false, probes: true };
    let mut w = World::new(vec![PoolConfig { slots, traits, min_ready: 2, ..inventory("hosts", &["a", "b"]) }]);
    w.all_works();
    w
}

#[test]
fn a_host_that_the_server_reaches_serves_on() {
    let mut w = two_hosts(2);
    let (theirs, other) = (w.lease("hosts"), w.lease("hosts"));
    w.all_works();
    let host = w.on(theirs);
    unreached(&mut w, theirs);
    assert_eq!(w.stands(host), "READY", "undecided: it serves others");
    assert_eq!((w.row(theirs).doubt.clone(), w.row(other).doubt.clone()), (None, None));
    let call = login(&mut w);
    w.release(theirs, Outcome::Ok);
    w.answer(&call, None);
    w.all_works();
    assert_eq!((w.stands(host), w.state(other)), ("READY", "ACTIVE"));
    w.pass(Millis::secs(60));
    assert!(w.calls.iter().all(|call| !call.by_new_login), "one report is one login");
}

#[test]
fn a_host_that_refuses_new_logins_takes_no_new_leases_until_it_is_mended() {
    let mut w = two_hosts(2);
    let theirs = w.lease("hosts");
    w.all_works();
    let host = w.on(theirs);
    unreached(&mut w, theirs);
    let call = login(&mut w);
    w.answer(&call, Some(failure(Blame::Configuration)));
    assert_eq!(w.stands(host), "SUSPECT");
    assert!(w.resource(host).trouble.as_deref().is_some_and(|trouble| trouble.contains("could not get in")));
    // No verdict follows, also after a long time: its leases go on, and no other lease gets it.
    for _ in 0..10 {
        w.fails(Kind::Check, Blame::Configuration);
        w.renew(theirs).unwrap();
        w.pass(Millis::secs(5));
    }
    assert_eq!((w.stands(host), w.state(theirs)), ("SUSPECT", "ACTIVE"));
    let others: Vec<_> = (0..2).map(|_| w.lease("hosts")).collect();
    assert!(others.iter().all(|lease| w.on(*lease) != host));
    w.works(Kind::Check);
    assert_eq!((w.stands(host), w.state(theirs)), ("READY", "ACTIVE"));
}

#[test]
fn a_login_that_the_provider_keeps_from_is_no_doubt() {
    let mut w = two_hosts(1);
    let theirs = w.lease("hosts");
    w.all_works();
    let host = w.on(theirs);
    unreached(&mut w, theirs);
    let call = login(&mut w);
    w.answer(&call, Some(failure(Blame::Provider)));
    assert_eq!(w.stands(host), "READY");
}

#[test]
fn a_report_during_a_probe_is_asked_after_it() {
    let mut w = two_hosts(1);
    let theirs = w.lease("hosts");
    w.all_works();
    while w.waits_for(Kind::Probe) < 2 {
        w.renew(theirs).unwrap();
        w.pass(Millis::secs(1));
    }
    unreached(&mut w, theirs);
    assert!(w.calls.iter().all(|call| !call.by_new_login), "one probe at a time");
    w.works(Kind::Probe);
    w.works(Kind::Probe);
    login(&mut w);
}

#[test]
fn work_avoids_what_it_could_not_reach_while_there_is_another() {
    let mut w = two_hosts(1);
    let first = w.lease("hosts");
    w.all_works();
    let (a, asked) = (w.on(first), want("hosts"));
    w.release(first, Outcome::Ok);
    w.all_works();
    let next = w.ask(LeaseRequest { avoid: vec![a], ..asked.clone() });
    w.all_works();
    assert_ne!(w.on(next), a);
    // Better it than none.
    let last = w.ask(LeaseRequest { avoid: vec![a], ..asked });
    w.all_works();
    assert_eq!(w.on(last), a);
}
