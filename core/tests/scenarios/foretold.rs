//! The effect of an operator's verb, found before it is given. Each verb in the other scenarios is compared with it too.

use crate::world::{World, asked, copies, inventory, lease_on_copy, want, want_by};
use wharfinger_core::{
    AdminVerb, Caller, Claim, Impact, LeaseId, LeaseRequest, Millis, PoolConfig, Rejection, Reply, Revision, Scope,
    Selector, Traits,
};

fn would(w: &World, verb: AdminVerb) -> Impact {
    w.core.view(&Scope::All).would(&asked(verb, None)).unwrap().0
}

fn ids(leases: &[LeaseId]) -> Vec<LeaseId> {
    let mut ids = leases.to_vec();
    ids.sort_unstable();
    ids
}

#[test]
fn a_quarantine_ends_the_lease_on_a_copy_and_its_group_elsewhere() {
    let mut w =
        World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1), inventory("boats", &["b1"])]);
    let claims = vec![Claim::of(Selector::pool("copies"), 1), Claim::of(Selector::pool("boats"), 1)];
    let group = w.ask_all(LeaseRequest { claims, ..want("copies") });
    w.all_works();
    assert_eq!(w.states(&group), ["ACTIVE"; 2]);
    let copy = w.on(group[0]);
    let host = w.resource(copy).parent.unwrap().host.unwrap();
    let foretold = would(&w, AdminVerb::Quarantine(host));
    assert_eq!(foretold.broken.iter().copied().collect::<Vec<_>>(), ids(&group));
    assert_eq!(foretold.copies.into_iter().collect::<Vec<_>>(), [copy]);
    assert_eq!(w.states(&group), ["ACTIVE"; 2], "it changes nothing");
    w.admin(AdminVerb::Quarantine(host)).unwrap();
    assert_eq!(w.states(&group), ["BROKEN"; 2]);
}

#[test]
fn a_recycle_puts_back_the_lease_that_is_being_prepared() {
    let traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };
    let mut w = World::new(vec![PoolConfig { traits, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.works(crate::world::Kind::Provision);
    let host = w.on(lease);
    let foretold = would(&w, AdminVerb::Recycle(host));
    assert_eq!((foretold.broken.len(), foretold.put_back.into_iter().collect::<Vec<_>>()), (0, vec![lease]));
    w.admin(AdminVerb::Recycle(host)).unwrap();
    assert_eq!(w.state(lease), "QUEUED");
}

#[test]
fn the_last_attempt_of_a_lease_ends_with_its_resource() {
    let traits = Traits { prepares: true, cleans: false, repairs: false, probes: false };
    let mut w = World::new(vec![PoolConfig { traits, attempts: 1, ..inventory("hosts", &["h1"]) }]);
    let lease = w.lease("hosts");
    w.works(crate::world::Kind::Provision);
    let host = w.on(lease);
    assert_eq!(would(&w, AdminVerb::Recycle(host)).broken.into_iter().collect::<Vec<_>>(), [lease]);
    w.admin(AdminVerb::Recycle(host)).unwrap();
    assert_eq!(w.state(lease), "FAILED");
}

#[test]
fn a_drain_ends_leases_only_with_a_deadline() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    assert_eq!(would(&w, AdminVerb::Drain(host, None)), Impact::default());
    let foretold = would(&w, AdminVerb::Drain(host, Some(Millis::secs(30))));
    assert_eq!(foretold.broken.into_iter().collect::<Vec<_>>(), [lease]);
    assert_eq!(foretold.copies.into_iter().collect::<Vec<_>>(), [copy]);
    w.admin(AdminVerb::Drain(host, Some(Millis::secs(30)))).unwrap();
    w.pass(Millis::secs(31));
    assert_eq!(w.state(lease), "BROKEN");
}

#[test]
fn orders_that_only_keep_new_leases_out_end_nothing() {
    let (w, _, copy, host) = lease_on_copy(1);
    for id in [copy, host] {
        let hold = AdminVerb::Hold(id, Millis::secs(60));
        for verb in [AdminVerb::Cordon(id), AdminVerb::Check(id), AdminVerb::Taint(id), AdminVerb::Recover(id), hold] {
            assert_eq!(would(&w, verb), Impact::default());
        }
    }
}

fn refused(w: &mut World, verb: &AdminVerb, seen: u64) -> Result<Reply, Rejection> {
    let request = asked(verb.clone(), Some(Revision(seen)));
    let foretold = w.core.view(&Scope::All).would(&request).map(drop);
    let answer = w.step(wharfinger_core::Input::Admin(request));
    assert_eq!(foretold.as_ref().err(), answer.as_ref().err(), "a verb is refused as was foretold");
    answer
}

#[test]
fn a_verb_is_refused_if_a_lease_came_since_the_operator_looked() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let first = w.lease("hosts");
    w.all_works();
    let host = w.on(first);
    let seen = w.core.revision().0;
    let second = w.lease("hosts");
    w.all_works();
    let text = refused(&mut w, &AdminVerb::Recycle(host), seen).unwrap_err();
    assert_eq!((text.reason, &*text.field), ("CHANGED_SINCE", "if_revision"));
    assert!(text.message.starts_with(&format!("{second} got a slot after revision {seen}: ")), "{}", text.message);
    assert_eq!(w.states(&[first, second]), ["ACTIVE"; 2], "it changed nothing");
    let seen = w.core.revision().0;
    w.release(second, wharfinger_core::Outcome::Ok);
    refused(&mut w, &AdminVerb::Recycle(host), seen).unwrap();
    assert_eq!(w.state(first), "BROKEN", "fewer leases than were shown refuse nothing");
}

#[test]
fn a_verb_on_a_host_is_refused_if_a_lease_came_to_a_copy_on_it() {
    let (mut w, lease, copy, host) = lease_on_copy(1);
    w.release(lease, wharfinger_core::Outcome::Ok);
    w.all_works();
    let seen = w.core.revision().0;
    let next = w.ask(want_by(Selector::pool(&w.resource(copy).pool.clone()), 1));
    w.all_works();
    assert_eq!(w.state(next), "ACTIVE");
    for verb in [AdminVerb::Quarantine(host), AdminVerb::Cordon(host), AdminVerb::Drain(host, None)] {
        assert_eq!(refused(&mut w, &verb, seen).unwrap_err().reason, "CHANGED_SINCE");
    }
}

#[test]
fn a_break_is_refused_if_the_lease_began_since() {
    let mut w = World::new(vec![inventory("hosts", &["h1"])]);
    let lease = w.lease("hosts");
    let seen = w.core.revision().0;
    w.all_works();
    assert_eq!(refused(&mut w, &AdminVerb::Break(lease), seen).unwrap_err().reason, "CHANGED_SINCE");
    let seen = w.core.revision().0;
    refused(&mut w, &AdminVerb::Break(lease), seen).unwrap();
    assert_eq!(w.state(lease), "BROKEN");
}

#[test]
fn the_refusal_names_no_lease_out_of_view() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let first = w.lease("hosts");
    w.all_works();
    let host = w.on(first);
    let seen = w.core.revision();
    let second = w.lease("hosts");
    w.all_works();
    let mut request = asked(AdminVerb::Recycle(host), Some(seen));
    request.caller = Caller { sees: Scope::Tenant("others".into()), ..request.caller };
    let refused = w.step(wharfinger_core::Input::Admin(request)).unwrap_err();
    assert_eq!(refused.reason, "CHANGED_SINCE");
    assert!(refused.message.starts_with("a lease got a slot"), "{}", refused.message);
    assert!(!refused.message.contains(&second.to_string()), "{}", refused.message);
}
