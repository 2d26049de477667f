//! The brake: many in trouble at once have a common cause more likely than not.

use crate::world::{Kind, World, inventory, mangled, silent, vanished};
use std::sync::Arc;
use wharfinger_core::{
    AdminVerb, Brake, DoubtPolicy, Labels, LeaseId, Millis, NoticeKind, PoolConfig, ResourceId, Timestamp, Traits,
    Verdict,
};

const PROBED: Traits = Traits { prepares: false, cleans: false, repairs: true, probes: true };

/// A farm of this number of hosts, each with a lease on it.
fn farm(hosts: usize, change: impl FnOnce(PoolConfig) -> PoolConfig) -> (World, Vec<LeaseId>) {
    let names: Vec<String> = (0..hosts).map(|n| format!("h{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pool = PoolConfig { traits: PROBED, default_ttl: Millis::secs(3600), ..inventory("hosts", &names) };
    let mut w = World::new(vec![change(pool)]);
    let leases = (0..hosts).map(|_| w.lease("hosts")).collect();
    w.all_works();
    (w, leases)
}

/// For so long, these hosts do not answer; all others do.
fn silence(w: &mut World, which: &[ResourceId], span: Millis) {
    answers(w, which, &silent(), span);
}

fn answers(w: &mut World, which: &[ResourceId], verdict: &Verdict, span: Millis) {
    let until = w.now.after(span);
    while w.now < until {
        w.pass(Millis(250));
        for kind in [Kind::Probe, Kind::Check] {
            for _ in 0..w.waits_for(kind) {
                let call = w.take(kind);
                let said = if which.contains(&call.resource.id) { verdict.clone() } else { Verdict::Healthy };
                let (resource, op) = (call.resource.id, call.op);
                let input = match kind {
                    Kind::Probe => wharfinger_core::Input::Probed { resource, result: Ok(said) },
                    _ => wharfinger_core::Input::Checked { resource, op, result: Ok(said) },
                };
                w.step(input).unwrap();
            }
        }
        while w.waits_for(Kind::Destroy) > 0 {
            w.works(Kind::Destroy);
        }
        // A new copy on a dead machine is not made.
        w.calls.retain(|call| !matches!(call.work, wharfinger_core::Work::Provision(_)));
    }
}

fn broken(w: &World, leases: &[LeaseId]) -> usize {
    leases.iter().filter(|lease| w.state(**lease) == "BROKEN").count()
}

#[test]
fn a_blip_of_the_whole_farm_breaks_nothing_and_clears_by_itself() {
    let (mut w, leases) = farm(20, |pool| pool);
    let hosts = w.resources_of("hosts");
    silence(&mut w, &hosts, Millis::secs(120));
    assert_eq!(broken(&w, &leases), 0);
    assert!(leases.iter().all(|lease| w.row(*lease).doubt.is_some()), "each holder is told of the doubt");
    let view = w.core.pool("hosts").unwrap();
    let (_, why) = view.brakes[0].held.clone().unwrap();
    assert!(why.contains("20 of 20"), "{why}");
    assert!(view.counters.held >= 20);

    silence(&mut w, &[], Millis::secs(20));
    assert!(hosts.iter().all(|host| w.stands(*host) == "READY"));
    assert!(leases.iter().all(|lease| w.row(*lease).doubt.is_none()));
    assert!(w.core.pool("hosts").unwrap().brakes.is_empty());
}

#[test]
fn a_probe_sent_while_all_were_silent_ends_no_host_after_the_brake() {
    let (mut w, leases) = farm(20, |pool| pool);
    let hosts = w.resources_of("hosts");
    silence(&mut w, &hosts, Millis::secs(60));
    // Checks of all are under way when the network is mended. One of them was asked too early, and says so last.
    for _ in 0..40 {
        w.pass(Millis(250));
    }
    assert_eq!(w.waits_for(Kind::Check), 20);
    let mut late = None;
    for n in 0..20 {
        let call = w.take(Kind::Check);
        let said = if n < 19 { Verdict::Healthy } else { silent() };
        late = Some(call.resource.id);
        w.step(wharfinger_core::Input::Checked { resource: call.resource.id, op: call.op, result: Ok(said) }).unwrap();
    }
    let late = late.unwrap();
    assert_eq!((w.stands(late), broken(&w, &leases)), ("SUSPECT", 0), "its misses were those of all");
    silence(&mut w, &[], Millis::secs(5));
    assert_eq!((w.stands(late), broken(&w, &leases)), ("READY", 0));
    // Of itself it is believed.
    silence(&mut w, &[late], Millis::secs(20));
    assert_eq!((w.stands(late), broken(&w, &leases)), ("GONE", 1));
}

#[test]
fn a_pool_of_three_is_never_held() {
    let (mut w, leases) = farm(3, |pool| pool);
    let hosts = w.resources_of("hosts");
    silence(&mut w, &hosts, Millis::secs(40));
    assert_eq!(broken(&w, &leases), 3);
}

#[test]
fn a_few_deaths_are_believed_at_once() {
    let (mut w, leases) = farm(20, |pool| pool);
    let hosts = w.resources_of("hosts");
    silence(&mut w, &hosts[..10], Millis::secs(30));
    assert_eq!(broken(&w, &leases), 10);
}

#[test]
fn after_the_hold_they_go_at_a_slow_rate() {
    let brake = Brake { floor: 2, share: 50, hold: Millis::secs(60), window: Millis::secs(30) };
    let (mut w, leases) = farm(10, |pool| PoolConfig { brake, ..pool });
    let hosts = w.resources_of("hosts");
    silence(&mut w, &hosts, Millis::secs(60));
    assert_eq!(broken(&w, &leases), 0, "held");
    // All hosts together are held for longer (the network's own brake), so it does not let go yet either.
    silence(&mut w, &hosts, Millis::secs(200));
    assert_eq!(broken(&w, &leases), 0, "the network is the first suspect");
    silence(&mut w, &hosts, Millis::secs(75));
    let gone = broken(&w, &leases);
    assert!((1..=6).contains(&gone), "two in each half minute: {gone}");
}

#[test]
fn a_zone_that_fails_as_a_whole_is_held_while_the_others_go_on() {
    let zone = |n: usize| -> Labels { [(Arc::from("zone"), Arc::from(if n < 6 { "a" } else { "b" }))].into() };
    let (mut w, _) = farm(16, |mut pool| {
        for (n, item) in pool.inventory.iter_mut().flatten().enumerate() {
            item.labels = zone(n);
        }
        PoolConfig { domain: Some(Arc::from("zone")), ..pool }
    });
    let hosts = w.resources_of("hosts");
    let in_zone = |w: &World, value: &str| -> Vec<ResourceId> {
        let of = |id: &&ResourceId| w.resource(**id).labels.get("zone").map(|v| &**v) == Some(value);
        hosts.iter().filter(of).copied().collect()
    };
    let (a, b) = (in_zone(&w, "a"), in_zone(&w, "b"));
    let mut dead = a.clone();
    dead.push(b[0]);
    silence(&mut w, &dead, Millis::secs(60));
    assert!(a.iter().all(|host| w.stands(*host) == "SUSPECT"), "the zone is held");
    assert_eq!(w.stands(b[0]), "GONE", "one host elsewhere is not");
}

#[test]
fn the_brake_holds_back_no_notice_of_the_provider_and_no_order_of_an_operator() {
    let (mut w, leases) = farm(20, |pool| pool);
    let hosts = w.resources_of("hosts");
    silence(&mut w, &hosts, Millis::secs(30));
    w.notice(hosts[0], NoticeKind::Gone);
    w.admin(AdminVerb::Recycle(hosts[1])).unwrap();
    answers(&mut w, &hosts[2..3], &vanished(), Millis(1));
    assert_eq!(broken(&w, &leases), 2);
    // Proof is proof: another boot, another host key, terminated.
    let mut w2 = farm(20, |pool| pool);
    let hosts = w2.0.resources_of("hosts");
    answers(&mut w2.0, &hosts, &vanished(), Millis::secs(30));
    assert_eq!(broken(&w2.0, &w2.1), 20);
}

#[test]
fn repairs_of_many_at_once_are_held_too() {
    let (mut w, leases) = farm(20, |pool| pool);
    let hosts = w.resources_of("hosts");
    // The checks themselves went wrong: they find every host unfit.
    for host in &hosts {
        w.admin(AdminVerb::Check(*host)).unwrap();
    }
    answers(&mut w, &hosts, &mangled(true), Millis::secs(30));
    let repairing = hosts.iter().filter(|host| w.stands(**host) == "REPAIRING").count();
    assert!(repairing <= 11, "no more than half: {repairing}");
    assert_eq!(broken(&w, &leases), repairing);
}

#[test]
fn a_dry_run_counts_and_ends_nothing() {
    let doubt = DoubtPolicy { dry_run: true, ..DoubtPolicy::default() };
    let (mut w, leases) = farm(4, |pool| PoolConfig { doubt, ..pool });
    let hosts = w.resources_of("hosts");
    silence(&mut w, &hosts[..1], Millis::secs(60));
    assert_eq!(broken(&w, &leases), 0);
    assert_eq!(w.stands(hosts[0]), "SUSPECT", "but nothing new is given on it");
    let counters = w.core.pool("hosts").unwrap().counters;
    assert_eq!((counters.would_end, counters.would_break), (1, 1), "counted once, not at each check");
    silence(&mut w, &[], Millis::secs(20));
    assert_eq!(w.stands(hosts[0]), "READY");
}

#[test]
fn misses_from_before_a_pause_of_the_broker_do_not_count() {
    let (mut w, leases) = farm(2, |pool| pool);
    let hosts = w.resources_of("hosts");
    w.admin(AdminVerb::Check(hosts[0])).unwrap();
    w.verdict(silent());
    w.pass(Millis::secs(2));
    w.verdict(silent());
    w.freeze(Millis::secs(30));
    // The broker was not there to hear an answer: what its timer says now is the first miss.
    w.verdict(silent());
    assert_eq!(w.stands(hosts[0]), "SUSPECT");
    assert_eq!(broken(&w, &leases), 0);
}

#[test]
fn a_restart_forgets_no_doubt_and_spreads_the_first_probes() {
    let (mut w, _) = farm(50, |pool| pool);
    w.restart();
    let deadline = w.now.after(Millis::secs(12));
    let mut due: Vec<Timestamp> = Vec::new();
    while w.now < deadline {
        w.pass(Millis(500));
        for _ in 0..w.waits_for(Kind::Probe) {
            due.push(w.now);
            w.probed(Verdict::Healthy);
        }
    }
    let first = due.iter().filter(|at| **at < w.now.after(Millis::secs(-9))).count();
    assert!(due.len() >= 50 && first > 3, "spread over the interval: {first} of {}", due.len());
}
