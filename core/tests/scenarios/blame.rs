//! Blame: compared, not guessed.

use crate::world::{Kind, World, copies, inventory, lease_on_copy, mangled, silent, want};
use std::sync::Arc;
use wharfinger_core::{
    Caller, DoubtPolicy, Ended, EventKind, Fault, Input, LeaseId, LeaseRequest, LeaseState, Millis, Outcome,
    PoolConfig, Reason, RejectionKind, Reply, ResourceId, Work,
};

/// A lease whose work has this name, on any host.
fn work(w: &mut World, name: &str) -> LeaseId {
    w.ask(LeaseRequest { work: Some(Arc::from(name)), ..want("hosts") })
}

/// The fault of a failed lease, so far.
fn fault(w: &World, lease: LeaseId) -> Option<Fault> {
    match &w.row(lease).state {
        LeaseState::Ended { how: Ended::Released { finding, .. }, .. } => finding.as_ref().map(|f| f.fault),
        other => panic!("not released: {other:?}"),
    }
}

/// Fails this work on whatever host is free, whose check then passes.
fn fails(w: &mut World, name: &str) -> (LeaseId, ResourceId) {
    let lease = work(w, name);
    w.all_works();
    let host = w.on(lease);
    w.release(lease, Outcome::Failed);
    w.all_works();
    (lease, host)
}

fn farm(hosts: usize) -> World {
    let names: Vec<String> = (0..hosts).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    World::new(vec![PoolConfig { min_ready: hosts as u32, ..inventory("hosts", &names) }])
}

/// Takes all hosts but this one out of the way.
fn only(w: &mut World, wanted: ResourceId) {
    for id in w.resources_of("hosts") {
        let verb = if id == wanted {
            wharfinger_core::AdminVerb::Uncordon(id)
        } else {
            wharfinger_core::AdminVerb::Cordon(id)
        };
        w.admin(verb).unwrap();
        w.all_works();
    }
}

/// A farm on whose hosts work usually goes well.
fn seasoned(hosts: usize) -> World {
    let mut w = farm(hosts);
    w.all_works();
    for host in w.resources_of("hosts") {
        only(&mut w, host);
        for _ in 0..40 {
            passes(&mut w, "usual");
        }
    }
    w
}

/// This work goes well on whatever host is free.
fn passes(w: &mut World, name: &str) {
    let lease = work(w, name);
    w.all_works();
    w.release(lease, Outcome::Ok);
    w.all_works();
}

/// Fails at most this number of different works on this host, until it is set apart.
fn fails_until_apart(w: &mut World, host: ResourceId, most: usize) -> Vec<LeaseId> {
    only(w, host);
    let mut leases = Vec::new();
    while w.stands(host) != "QUARANTINED" && leases.len() < most {
        leases.push(fails(w, &format!("job {}", leases.len())).0);
    }
    leases
}

#[test]
fn different_work_failing_on_one_host_whose_checks_pass_is_the_hosts_fault() {
    let mut w = seasoned(3);
    let bad = w.resources_of("hosts")[0];
    let leases = fails_until_apart(&mut w, bad, 20);
    assert_eq!(w.stands(bad), "QUARANTINED");
    assert!((4..=8).contains(&leases.len()), "{} failures where almost all goes well", leases.len());
    for lease in &leases {
        assert_eq!(fault(&w, *lease), Some(Fault::Resource), "and its holder is told");
    }
    let event = w.last.events.iter().find(|e| e.kind == EventKind::ResourceQuarantined).map(|e| e.detail.to_string());
    let text = event.unwrap_or_default();
    assert!(text.contains("CHECK_BLIND") && text.contains("\"job 2\""), "the evidence is named: {text}");
}

/// Three hosts of four slots, of which the first is set apart for its uses.
fn one_apart() -> (World, ResourceId) {
    let mut w = World::new(vec![PoolConfig { slots: 4, min_ready: 3, ..inventory("hosts", &["a", "b", "c"]) }]);
    w.all_works();
    let hosts = w.resources_of("hosts");
    for host in &hosts {
        only(&mut w, *host);
        for _ in 0..40 {
            passes(&mut w, "usual");
        }
    }
    fails_until_apart(&mut w, hosts[0], 20);
    assert_eq!(w.stands(hosts[0]), "QUARANTINED");
    (w, hosts[0])
}

#[test]
fn a_host_that_is_set_apart_comes_back_with_one_slot_and_clears_itself() {
    let (mut w, host) = one_apart();
    w.pass(Millis::secs(1790));
    assert_eq!(w.stands(host), "QUARANTINED");
    w.pass(Millis::secs(20));
    assert_eq!(w.stands(host), "SUSPECT", "it is checked first");
    w.all_works();
    only(&mut w, host);
    let first = work(&mut w, "one");
    let second = work(&mut w, "two");
    assert_eq!((w.state(first), w.state(second)), ("ACTIVE", "QUEUED"), "one slot");
    for lease in [first, second] {
        w.release(lease, Outcome::Ok);
        w.all_works();
    }
    w.restart();
    w.all_works();
    assert_eq!(w.resource(host).evidence.trial, Some(1), "over a restart too");
    passes(&mut w, "three");
    let leases = [(); 4].map(|()| work(&mut w, "more"));
    assert_eq!(w.states(&leases), ["ACTIVE"; 4], "it is trusted again");
}

#[test]
fn a_host_on_trial_is_out_again_at_the_first_sign_and_for_longer() {
    let (mut w, host) = one_apart();
    w.pass(Millis::secs(1810));
    w.all_works();
    only(&mut w, host);
    let cancelled = work(&mut w, "superseded");
    w.release(cancelled, Outcome::Abandoned);
    w.all_works();
    assert_eq!(w.stands(host), "READY", "that is no sign");
    let (lease, on) = fails(&mut w, "again");
    assert_eq!((on, w.stands(host), fault(&w, lease)), (host, "QUARANTINED", Some(Fault::Resource)));
    w.pass(Millis::secs(3590));
    assert_eq!(w.stands(host), "QUARANTINED");
    w.pass(Millis::secs(20));
    w.all_works();
    assert_eq!(w.stands(host), "READY");
}

#[test]
fn an_order_of_an_operator_ends_the_quarantine_sooner_and_wholly() {
    let (mut w, host) = one_apart();
    w.admin(wharfinger_core::AdminVerb::Recover(host)).unwrap();
    w.all_works();
    only(&mut w, host);
    let leases = [(); 4].map(|()| work(&mut w, "more"));
    assert_eq!(w.states(&leases), ["ACTIVE"; 4]);
    for lease in leases {
        w.release(lease, Outcome::Failed);
        w.all_works();
    }
    assert_eq!(w.stands(host), "READY", "it is judged as if nothing had been");
}

#[test]
fn on_a_farm_of_which_nothing_is_known_three_failures_are_no_evidence() {
    let mut w = farm(3);
    w.all_works();
    let host = w.resources_of("hosts")[0];
    assert_eq!(fails_until_apart(&mut w, host, 10).len(), 10);
    assert_eq!(w.stands(host), "READY", "a third of all jobs fail for reasons of their own");
}

#[test]
fn jobs_cancelled_in_a_row_on_one_host_blame_no_host_and_each_is_checked() {
    let mut w = farm(3);
    w.all_works();
    let host = w.resources_of("hosts")[0];
    only(&mut w, host);
    for name in ["a", "b", "c", "d"] {
        let lease = work(&mut w, name);
        w.all_works();
        assert_eq!(w.on(lease), host);
        w.release(lease, Outcome::Abandoned);
        assert_eq!(w.stands(host), "SUSPECT", "its processes were killed half-way");
        w.works(Kind::Check);
        assert_eq!(w.stands(host), "READY");
        assert!(w.resource(host).failures.is_empty(), "it counts nowhere");
        assert_eq!(fault(&w, lease), None);
    }
}

#[test]
fn the_same_work_cancelled_on_three_hosts_is_not_blamed() {
    let mut w = farm(3);
    w.all_works();
    for host in w.resources_of("hosts") {
        only(&mut w, host);
        let lease = work(&mut w, "superseded");
        w.all_works();
        w.release(lease, Outcome::Abandoned);
        w.all_works();
        assert_eq!(fault(&w, lease), None);
    }
}

#[test]
fn a_cancelled_job_is_no_success_either() {
    let mut w = seasoned(3);
    let host = w.resources_of("hosts")[0];
    only(&mut w, host);
    fails(&mut w, "a");
    fails(&mut w, "b");
    let (before, record) = (w.resource(host).evidence, w.core.snapshot().pools[0].record);
    let cancelled = work(&mut w, "c");
    w.all_works();
    w.release(cancelled, Outcome::Abandoned);
    w.all_works();
    assert_eq!(w.resource(host).failures.len(), 2, "what failed before still counts");
    assert_eq!((w.resource(host).evidence, w.core.snapshot().pools[0].record), (before, record));
}

#[test]
fn a_check_after_a_cancelled_job_finds_what_it_left_behind() {
    let mut w = farm(1);
    w.all_works();
    let host = w.resources_of("hosts")[0];
    let lease = work(&mut w, "a");
    w.all_works();
    w.release(lease, Outcome::Abandoned);
    w.verdict(mangled(true));
    assert_eq!(w.stands(host), "DESTROYING");
    assert_eq!(fault(&w, lease), None, "its holder did not ask");
}

#[test]
fn a_success_speaks_for_a_host() {
    let mut w = seasoned(3);
    let host = w.resources_of("hosts")[0];
    only(&mut w, host);
    for n in 0..40 {
        fails(&mut w, &format!("bad {n}"));
        passes(&mut w, "good");
        passes(&mut w, "good");
    }
    assert_eq!(w.stands(host), "READY", "a third of what runs there fails");
    passes(&mut w, "good");
    passes(&mut w, "good");
    assert!(w.resource(host).failures.is_empty(), "nothing speaks against it any more");
}

#[test]
fn work_that_passes_elsewhere_weighs_more_against_the_host_and_work_that_fails_elsewhere_nothing() {
    /// Failures of the same number of works on the host, each tried again on another one.
    fn told(again: Option<Outcome>) -> usize {
        let mut w = seasoned(4);
        let hosts = w.resources_of("hosts");
        // Half of all work fails, and is not tried again.
        for n in 0..60 {
            for host in &hosts[1..3] {
                only(&mut w, *host);
                fails(&mut w, &format!("broken {n} on {host}"));
                passes(&mut w, "usual");
            }
        }
        for n in 0..20 {
            only(&mut w, hosts[0]);
            let name = format!("job {n}");
            fails(&mut w, &name);
            match again {
                Some(Outcome::Ok) => {
                    only(&mut w, hosts[3]);
                    passes(&mut w, &name);
                }
                Some(_) => {
                    only(&mut w, hosts[3]);
                    fails(&mut w, &name);
                }
                None => {}
            }
            if w.stands(hosts[0]) == "QUARANTINED" {
                return n + 1;
            }
        }
        99
    }
    let (alone, passed, failed) = (told(None), told(Some(Outcome::Ok)), told(Some(Outcome::Failed)));
    assert!(passed <= 6 && passed < alone, "passed elsewhere {passed}, not tried again {alone}");
    assert_eq!(failed, 99, "work that fails everywhere says nothing of a host");
}

#[test]
fn the_same_work_failing_again_on_one_host_says_nothing_of_it() {
    let mut w = farm(3);
    w.all_works();
    let host = w.resources_of("hosts")[0];
    only(&mut w, host);
    for _ in 0..10 {
        fails(&mut w, "a");
    }
    assert_eq!(w.stands(host), "READY");
}

#[test]
fn the_same_work_failing_on_three_healthy_hosts_is_the_works_fault() {
    let mut w = farm(4);
    w.all_works();
    let hosts = w.resources_of("hosts");
    let mut leases = Vec::new();
    for host in &hosts[..3] {
        only(&mut w, *host);
        assert!(leases.iter().all(|lease| fault(&w, *lease) == Some(Fault::Undecided)));
        let (lease, on) = fails(&mut w, "poison");
        assert_eq!(on, *host);
        leases.push(lease);
    }
    for lease in &leases {
        assert_eq!(fault(&w, *lease), Some(Fault::Work), "each of its holders is told");
    }
    assert!(hosts.iter().all(|host| w.resource(*host).failures.is_empty()), "the hosts are cleared");
    // So that work counts no more against the host that meets two others next.
    fails(&mut w, "b");
    fails(&mut w, "c");
    assert_eq!(w.stands(hosts[2]), "READY");
}

#[test]
fn on_a_farm_of_two_a_work_is_to_blame_when_it_failed_on_both() {
    let mut w = farm(2);
    w.all_works();
    for host in w.resources_of("hosts") {
        only(&mut w, host);
        fails(&mut w, "poison");
    }
    let hosts = w.resources_of("hosts");
    assert!(hosts.iter().all(|host| w.resource(*host).failures.is_empty()));
}

#[test]
fn a_check_that_finds_the_host_unfit_settles_it() {
    let mut w = farm(2);
    w.all_works();
    let lease = work(&mut w, "a");
    let host = w.on(lease);
    w.release(lease, Outcome::Failed);
    assert_eq!(fault(&w, lease), Some(Fault::Open), "not known yet, and told with the release");
    w.verdict(mangled(false));
    assert_eq!(fault(&w, lease), Some(Fault::Resource));
    assert_ne!(w.stands(host), "READY");
}

#[test]
fn when_all_hosts_fare_alike_none_is_quarantined_and_an_event_says_so() {
    let mut w = seasoned(4);
    let hosts = w.resources_of("hosts");
    let mut number = 0;
    let mut said = Vec::new();
    for _ in 0..15 {
        for host in &hosts {
            only(&mut w, *host);
            number += 1;
            fails(&mut w, &format!("work {number}"));
            said.extend(w.resource(*host).trouble.clone());
        }
    }
    assert!(hosts.iter().all(|host| w.stands(*host) == "READY"), "the origin is down, not four hosts");
    assert!(said.iter().any(|text| text.contains("look for what they share")), "the fleet is suspected");
}

#[test]
fn no_more_of_a_farm_is_set_apart_than_the_brake_allows() {
    let mut w = seasoned(4);
    let hosts = w.resources_of("hosts");
    for host in &hosts[..2] {
        assert!(fails_until_apart(&mut w, *host, 40).len() < 40);
    }
    // The others still do all the work, and a third one begins to fail.
    for _ in 0..100 {
        only(&mut w, hosts[3]);
        passes(&mut w, "usual");
    }
    assert_eq!(fails_until_apart(&mut w, hosts[2], 40).len(), 40);
    assert_eq!(
        hosts.iter().map(|host| w.stands(*host)).collect::<Vec<_>>(),
        ["QUARANTINED", "QUARANTINED", "READY", "READY"]
    );
}

#[test]
fn the_only_host_is_never_set_apart_by_itself() {
    let mut w = farm(1);
    w.all_works();
    let host = w.resources_of("hosts")[0];
    assert_eq!(fails_until_apart(&mut w, host, 60).len(), 60);
    assert_eq!(w.stands(host), "READY");
}

#[test]
fn a_host_is_asked_when_works_fail_in_different_copies_on_it() {
    let (mut w, first, _, host) = lease_on_copy(4);
    w.admin(wharfinger_core::AdminVerb::Cordon(
        w.resources_of("hosts").into_iter().find(|id| *id != host).unwrap_or(host),
    ))
    .unwrap();
    w.admin(wharfinger_core::AdminVerb::Uncordon(host)).unwrap();
    w.all_works();
    let mut leases = vec![first];
    for _ in 0..2 {
        leases.push(w.lease("copies"));
        w.all_works();
    }
    assert!(leases.iter().all(|lease| w.resource(w.on(*lease)).parent.unwrap().host == Some(host)));
    // Their works differ by what was asked for: here by the holder, since nothing was.
    for lease in leases {
        w.release(lease, Outcome::Failed);
        w.all_works();
    }
    assert_eq!(w.stands(host), "READY", "three times the same work is no evidence");
    assert_eq!(w.resource(host).failures.len(), 3);
}

#[test]
fn a_holder_that_reports_failures_keeps_its_lease_and_gets_a_check() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    let report = |note: &str| Input::Report { lease, caller: Caller::sole_tenant("ann"), note: Arc::from(note) };
    let Ok(Reply::Leases(_)) = w.step(report("the tree looks wrong")) else { panic!("refused") };
    assert_eq!(w.stands(copy), "SUSPECT");
    assert_eq!(w.state(lease), "ACTIVE");
    assert!(w.row(lease).doubt.as_deref().is_some_and(|doubt| doubt.contains("the tree looks wrong")));
    w.works(Kind::Check);
    assert_eq!(w.stands(copy), "READY");
    assert_eq!(w.row(lease).doubt, None);
    w.step(report("still")).unwrap();
    w.verdict(mangled(true));
    assert_eq!(w.state(lease), "BROKEN");
    assert!(w.step(report("too late")).is_ok(), "what ended it is known");
}

fn report(w: &mut World, lease: LeaseId) -> Result<Reply, wharfinger_core::Rejection> {
    w.step(Input::Report { lease, caller: Caller::sole_tenant("ann"), note: Arc::from("the tree looks wrong") })
}

#[test]
fn a_failure_that_was_reported_and_checked_ends_without_a_second_check() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    report(&mut w, lease).unwrap();
    w.works(Kind::Check);
    w.pass(Millis::secs(29));
    w.release(lease, Outcome::Failed);
    assert_eq!((w.stands(copy), w.waits_for(Kind::Check)), ("READY", 0));
    // It counts as a failure after which the check passed.
    assert_eq!(w.resource(copy).failures.iter().map(|f| (f.lease, f.cleared)).collect::<Vec<_>>(), [(lease, true)]);
    let row = w.row(lease);
    let LeaseState::Ended { how: Ended::Released { finding: Some(finding), .. }, .. } = &row.state else {
        panic!("{row:?}")
    };
    assert_eq!(finding.fault, Fault::Undecided);
    w.all_works();
    assert_eq!(w.stands(copy), "READY");

    // Later it may be another failure, and a report that no check has answered is one.
    for (after, again) in [(Millis::secs(31), false), (Millis::secs(1), true)] {
        let (mut w, lease, copy, _) = lease_on_copy(1);
        report(&mut w, lease).unwrap();
        w.works(Kind::Check);
        w.pass(after);
        if again {
            report(&mut w, lease).unwrap();
        }
        w.release(lease, Outcome::Failed);
        assert_eq!(w.stands(copy), "SUSPECT", "{after}");
        w.all_works();
        assert_eq!(w.stands(copy), "READY");
    }
    // The holder's word that the copy is mangled is not one that a check denies.
    let (mut w, lease, copy, _) = lease_on_copy(1);
    report(&mut w, lease).unwrap();
    w.works(Kind::Check);
    w.release(lease, Outcome::Tainted);
    assert_eq!(w.stands(copy), "SUSPECT");
}

#[test]
fn reports_during_a_check_start_one_more() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    for _ in 0..3 {
        report(&mut w, lease).unwrap();
        w.pass(Millis::secs(1));
        assert_eq!(w.waits_for(Kind::Check), 1, "no check runs beside another");
    }
    // It began before the second report, so it does not answer that one.
    let first = w.works(Kind::Check);
    assert_eq!((w.stands(copy), w.waits_for(Kind::Check)), ("SUSPECT", 1));
    assert!(w.row(lease).doubt.is_some());
    let second = w.works(Kind::Check);
    assert_ne!(first.op, second.op);
    assert_eq!((w.stands(copy), w.waits_for(Kind::Check)), ("READY", 0));
    assert_eq!((w.state(lease), w.row(lease).doubt.clone()), ("ACTIVE", None));
}

#[test]
fn a_bad_answer_counts_at_once_though_a_report_came_during_its_check() {
    let (mut w, lease, _, _) = lease_on_copy(1);
    report(&mut w, lease).unwrap();
    report(&mut w, lease).unwrap();
    w.verdict(mangled(true));
    assert_eq!(w.state(lease), "BROKEN");
    w.all_works();

    // A miss counts as one miss, and the next check is the one that the second report asked for.
    let (mut w, lease, copy, _) = lease_on_copy(1);
    report(&mut w, lease).unwrap();
    report(&mut w, lease).unwrap();
    w.verdict(silent());
    assert_eq!(w.stands(copy), "SUSPECT");
    let started =
        |w: &World| w.calls.iter().filter(|call| call.work == Work::Check && call.resource.id == copy).count();
    while started(&w) == 0 {
        w.pass(Millis::secs(1));
    }
    w.all_works();
    assert_eq!((w.stands(copy), w.waits_for(Kind::Check)), ("READY", 0));
}

#[test]
fn failures_of_several_slots_during_a_check_start_one_more() {
    let mut w = World::new(vec![PoolConfig { slots: 4, min_ready: 1, ..inventory("hosts", &["h1"]) }]);
    w.all_works();
    let leases: Vec<LeaseId> = (0..4).map(|_| w.lease("hosts")).collect();
    w.all_works();
    let host = w.on(leases[0]);
    for lease in leases {
        w.release(lease, Outcome::Failed);
        assert_eq!(w.waits_for(Kind::Check), 1);
    }
    w.works(Kind::Check);
    assert_eq!((w.stands(host), w.waits_for(Kind::Check)), ("SUSPECT", 1));
    w.works(Kind::Check);
    assert_eq!((w.stands(host), w.waits_for(Kind::Check)), ("READY", 0));
}

#[test]
fn a_restart_during_a_check_needs_no_second_one() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    report(&mut w, lease).unwrap();
    report(&mut w, lease).unwrap();
    w.restart();
    assert_eq!(w.waits_for(Kind::Check), 1);
    w.works(Kind::Check);
    assert_eq!((w.stands(copy), w.waits_for(Kind::Check)), ("READY", 0));
}

#[test]
fn a_holder_that_reports_again_and_again_is_refused_and_hears_when() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    let began = w.now;
    for _ in 0..3 {
        report(&mut w, lease).unwrap();
        w.all_works();
        w.pass(Millis::secs(5));
        w.renew(lease).unwrap();
    }
    let refused = report(&mut w, lease).unwrap_err();
    assert_eq!((refused.kind, refused.reason), (RejectionKind::Exhausted, "TOO_MANY_REPORTS"));
    let wait = refused.retry_after.unwrap();
    assert_eq!(began.after(Millis::secs(300)), w.now.after(wait));
    assert_eq!((w.stands(copy), w.waits_for(Kind::Check)), ("READY", 0), "a refused report changes nothing");
    while w.now < began.after(Millis::secs(300)) {
        w.pass(Millis::secs(10).min(began.after(Millis::secs(300)).since(w.now)));
        w.renew(lease).unwrap();
    }
    report(&mut w, lease).unwrap();
    assert_eq!(w.stands(copy), "SUSPECT");
}

#[test]
fn only_the_holder_may_report() {
    let (mut w, lease, copy, _) = lease_on_copy(1);
    let input = Input::Report { lease, caller: Caller::sole_tenant("eve"), note: Arc::from("") };
    assert_eq!(w.step(input).unwrap_err().reason, "NOT_YOURS");
    assert_eq!(w.stands(copy), "READY");
}

#[test]
fn the_counted_failures_survive_a_restart() {
    let needed = |restart: bool| {
        let mut w = seasoned(3);
        let host = w.resources_of("hosts")[0];
        only(&mut w, host);
        fails(&mut w, "a");
        fails(&mut w, "b");
        if restart {
            w.restart();
            w.all_works();
        }
        fails_until_apart(&mut w, host, 20).len()
    };
    assert_eq!(needed(true), needed(false));
    assert!(needed(true) < 8);
}

#[test]
fn a_policy_of_zero_blames_no_resource() {
    let doubt = DoubtPolicy { false_alarm: 0, work_after: 0, ..DoubtPolicy::default() };
    let mut w = World::new(vec![PoolConfig { doubt, min_ready: 3, ..inventory("hosts", &["a", "b", "c"]) }]);
    w.all_works();
    let hosts = w.resources_of("hosts");
    for host in &hosts {
        only(&mut w, *host);
        for _ in 0..20 {
            passes(&mut w, "usual");
        }
    }
    assert_eq!(fails_until_apart(&mut w, hosts[0], 40).len(), 40);
}

#[test]
fn a_work_under_which_copy_after_copy_is_mangled_is_named() {
    let mut w = World::new(vec![PoolConfig { slots: 4, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 4)]);
    let poison = || LeaseRequest { work: Some(Arc::from("poison")), ..want("copies") };
    for round in 1..=3 {
        let lease = w.ask(poison());
        w.all_works();
        let input = Input::Report { lease, caller: Caller::sole_tenant("ann"), note: Arc::from("") };
        w.step(input).unwrap();
        w.verdict(mangled(false));
        assert_eq!(w.state(lease), "BROKEN");
        let named = w.cause(lease).iter().any(|link| link.reason == Reason::WorkBlamed);
        assert_eq!(named, round == 3, "round {round}");
        w.all_works();
    }
    // One that goes well speaks for the work.
    let good = w.ask(poison());
    w.all_works();
    w.release(good, Outcome::Ok);
    w.all_works();
    let lease = w.ask(poison());
    w.all_works();
    w.step(Input::Report { lease, caller: Caller::sole_tenant("ann"), note: Arc::from("") }).unwrap();
    w.verdict(mangled(false));
    assert!(w.cause(lease).iter().all(|link| link.reason != Reason::WorkBlamed));
}

#[test]
fn work_without_a_name_is_never_blamed() {
    let mut w = farm(3);
    w.all_works();
    for host in w.resources_of("hosts") {
        only(&mut w, host);
        let lease = w.lease("hosts");
        w.release(lease, Outcome::Failed);
        w.all_works();
        assert_eq!(fault(&w, lease), Some(Fault::Undecided));
    }
    // Nor when copy after copy is mangled under it.
    let mut w = World::new(vec![PoolConfig { slots: 4, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 4)]);
    for _ in 0..4 {
        let lease = w.lease("copies");
        w.all_works();
        report(&mut w, lease).unwrap();
        w.verdict(mangled(false));
        assert!(w.cause(lease).iter().all(|link| link.reason != Reason::WorkBlamed));
        w.all_works();
    }
}

#[test]
fn a_rolling_restart_of_the_machines_is_no_evidence_against_the_work_on_them() {
    let mut w = farm(3);
    w.all_works();
    for host in w.resources_of("hosts") {
        only(&mut w, host);
        let lease = work(&mut w, "nightly@1234");
        assert_eq!(w.on(lease), host);
        w.notice(host, wharfinger_core::NoticeKind::Gone);
        assert!(w.cause(lease).iter().all(|link| link.reason != Reason::WorkBlamed), "{:?}", w.cause(lease));
        w.all_works();
    }
    // The same where a check says so: all leases of the machine are lost with it.
    for host in w.resources_of("hosts") {
        only(&mut w, host);
        let lease = work(&mut w, "nightly@1234");
        report(&mut w, lease).unwrap();
        w.verdict(crate::world::vanished());
        assert_eq!(w.state(lease), "BROKEN");
        assert!(w.cause(lease).iter().all(|link| link.reason != Reason::WorkBlamed), "{:?}", w.cause(lease));
        w.all_works();
    }
}

#[test]
fn a_finding_is_open_from_the_release_until_its_check_ends_or_none_will() {
    // A check passes.
    let mut w = farm(2);
    w.all_works();
    let lease = work(&mut w, "a");
    w.release(lease, Outcome::Failed);
    assert_eq!(fault(&w, lease), Some(Fault::Open));
    assert_eq!(w.last.leases[0].id, lease, "in the commit of the release");
    w.restart();
    assert_eq!(fault(&w, lease), Some(Fault::Open));
    w.works(Kind::Check);
    assert_eq!(fault(&w, lease), Some(Fault::Undecided));
    // The resource is kept, drained or removed meanwhile.
    for verb in [
        wharfinger_core::AdminVerb::Quarantine,
        (|id| wharfinger_core::AdminVerb::Drain(id, None)) as fn(ResourceId) -> wharfinger_core::AdminVerb,
        wharfinger_core::AdminVerb::Recycle,
    ] {
        let lease = work(&mut w, "b");
        let host = w.on(lease);
        w.release(lease, Outcome::Failed);
        assert_eq!(fault(&w, lease), Some(Fault::Open));
        w.admin(verb(host)).unwrap();
        assert_eq!(fault(&w, lease), Some(Fault::Undecided), "{verb:?}");
        w.all_works();
        // The order on the machine outlives a resource that was drained or removed.
        for machine in ["hosts/h0", "hosts/h1"] {
            w.on_machine(machine, wharfinger_core::MachineVerb::Recover).unwrap();
            w.on_machine(machine, wharfinger_core::MachineVerb::Undrain).unwrap();
        }
        w.all_works();
    }
    // No check follows.
    let lease = work(&mut w, "c");
    w.release(lease, Outcome::Abandoned);
    assert_eq!(fault(&w, lease), None);
}
