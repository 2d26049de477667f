//! Tenants: a lease out of view is answered as one that never was, and request ids belong to a tenant.

use crate::world::{World, inventory, lease_on_copy, made_at_will, mangled, want};
use std::sync::Arc;
use wharfinger_core::{
    AdminRequest, AdminVerb, Caller, Event, EventKind, Input, LeaseId, LeaseRequest, MachineName, Millis, Outcome,
    PoolConfig, Pools, Provenance, Reason, Rejection, RejectionKind, Reply, Scope, Selector, Within,
};

/// An agent: it sees and ends its own leases.
fn agent(tenant: &str, principal: &str) -> Caller {
    let (tenant, principal): (Arc<str>, Arc<str>) = (Arc::from(tenant), Arc::from(principal));
    let own = Scope::Own { tenant: tenant.clone(), principal: principal.clone() };
    Caller { tenant, principal, sees: own.clone(), ends: own, proved: None }
}

/// One that sees and ends the leases of its tenant.
fn lead(tenant: &str) -> Caller {
    let all: Arc<str> = Arc::from(tenant);
    Caller {
        tenant: all.clone(),
        principal: Arc::from("lead"),
        sees: Scope::Tenant(all.clone()),
        ends: Scope::Tenant(all),
        proved: None,
    }
}

/// One that sees the leases of its tenant, and ends its own.
fn reader(tenant: &str) -> Caller {
    Caller { sees: Scope::Tenant(Arc::from(tenant)), ..agent(tenant, "reader") }
}

fn ask(w: &mut World, caller: &Caller, id: &str) -> Result<LeaseId, Rejection> {
    let request = LeaseRequest { request_id: Arc::from(id), caller: caller.clone(), ..want("hosts") };
    match w.step(Input::Lease(request))? {
        Reply::Leases(leases) => Ok(leases[0].id),
        Reply::Done | Reply::Each(_) | Reply::Resource(_) | Reply::Machine(_) | Reply::Pool(_) | Reply::Session(_) => {
            panic!("leases are wanted")
        }
    }
}

/// All inputs that name a lease.
fn all_on(lease: LeaseId, caller: &Caller) -> Vec<Input> {
    let (caller, note): (Caller, Arc<str>) = (caller.clone(), Arc::from("x"));
    let admin =
        |verb| Input::Admin(AdminRequest { caller: caller.clone(), reason: note.clone(), verb, if_revision: None });
    vec![
        Input::Release { lease, caller: caller.clone(), outcome: Outcome::Tainted, note: note.clone(), hold: None },
        Input::Renew { lease, caller: caller.clone(), ttl: None },
        Input::Report { lease, caller: caller.clone(), note: note.clone() },
        Input::Unreached { lease, caller: caller.clone(), note: note.clone() },
        admin(AdminVerb::Break(lease)),
        admin(AdminVerb::HoldLease(lease, Millis::secs(60))),
    ]
}

fn hosts() -> World {
    World::new(vec![PoolConfig { slots: 4, ..inventory("hosts", &["h1"]) }])
}

#[test]
fn a_lease_out_of_view_is_refused_as_one_that_never_was_and_nothing_changes() {
    let mut w = hosts();
    let own = agent("a", "ci");
    let lease = ask(&mut w, &own, "1").unwrap();
    w.all_works();
    let host = w.on(lease);
    let never = LeaseId::new(1);
    // A principal of the same name in another tenant, another principal of the same tenant, a lead and a reader of another.
    for other in [agent("b", "ci"), agent("a", "other"), lead("b"), reader("b")] {
        for (foreign, unknown) in all_on(lease, &other).into_iter().zip(all_on(never, &other)) {
            let revision = w.core.revision();
            let deadline = w.core.next_deadline();
            let refused = w.step(foreign.clone()).expect_err("it is out of view");
            let mut as_unknown = w.step(unknown).unwrap_err();
            as_unknown.message = as_unknown.message.replace(&never.to_string(), &lease.to_string());
            assert_eq!(refused, as_unknown, "{foreign:?}");
            assert_eq!((refused.kind, refused.reason), (RejectionKind::NotFound, "UNKNOWN_LEASE"));
            assert_eq!((w.core.revision(), w.core.next_deadline()), (revision, deadline), "{foreign:?}");
        }
        for scope in [&other.sees, &other.ends] {
            assert_eq!(w.core.view(scope).lease(lease), None);
            assert_eq!(w.core.explain(lease, w.now, scope), None);
            assert!(w.core.view(scope).resource(host).unwrap().leases.is_empty());
        }
    }
    // The same on what is in view.
    assert!(w.core.view(&own.sees).lease(lease).is_some());
    for input in all_on(lease, &own) {
        if !matches!(input, Input::Release { .. } | Input::Admin(_)) {
            w.step(input).unwrap();
        }
    }
    assert_eq!(w.state(lease), "ACTIVE");
}

#[test]
fn a_reader_of_the_tenant_sees_the_holder_and_a_lead_may_end_the_lease() {
    let mut w = hosts();
    let lease = ask(&mut w, &agent("a", "ci"), "1").unwrap();
    w.all_works();
    for input in all_on(lease, &reader("a")).into_iter().take(4) {
        let refused = w.step(input).unwrap_err();
        assert_eq!((refused.kind, refused.reason), (RejectionKind::Denied, "NOT_YOURS"));
        assert!(refused.message.contains("\"ci\""), "{}", refused.message);
    }
    let holds_none = Caller { ends: agent("a", "lead").ends, ..lead("a") };
    let renew = Input::Renew { lease, caller: holds_none, ttl: None };
    assert_eq!(w.step(renew).unwrap_err().reason, "NOT_YOURS", "it ends leases, and holds none for others");
    let (caller, note) = (lead("a"), Arc::from("left behind"));
    w.step(Input::Release { lease, caller, outcome: Outcome::Ok, note, hold: None }).unwrap();
    assert_eq!(w.state(lease), "RELEASED");
    let by_lead = |event: &Event| event.kind == EventKind::LeaseReleased && &*event.actor == "lead";
    assert!(w.last.events.iter().any(by_lead), "{:?}", w.last.events);
}

#[test]
fn a_request_id_belongs_to_a_tenant() {
    let mut w = hosts();
    let (ours, theirs) = (agent("a", "ci"), agent("b", "ci"));
    let first = ask(&mut w, &ours, "build-1").unwrap();
    let second = ask(&mut w, &theirs, "build-1").unwrap();
    assert_ne!(first, second, "one tenant's id says nothing of another's");
    w.restart();
    for (caller, lease) in [(&ours, first), (&theirs, second)] {
        assert_eq!(ask(&mut w, caller, "build-1").unwrap(), lease, "also after a restart");
    }
    let squatted = ask(&mut w, &agent("a", "other"), "build-1").unwrap_err();
    assert_eq!((squatted.kind, squatted.reason), (RejectionKind::Conflict, "REQUEST_ID_CONFLICT"));
    assert!(!squatted.message.contains(&first.to_string()), "{}", squatted.message);
    // Forgetting one leaves the other's.
    w.all_works();
    let (caller, note) = (ours.clone(), Arc::from(""));
    w.step(Input::Release { lease: first, caller, outcome: Outcome::Ok, note, hold: None }).unwrap();
    w.pass(Millis::secs(2 * 3600));
    assert_eq!(w.core.lease(first), None, "it is forgotten");
    assert_ne!(ask(&mut w, &ours, "build-1").unwrap(), first);
}

#[test]
fn a_report_of_another_tenant_on_a_shared_host_is_shown_in_general_terms() {
    const MARK: &str = "MARK-of-b";
    let mut w = hosts();
    let (ours, theirs) = (agent("a", "ci"), agent("b", "ci"));
    let lease = ask(&mut w, &ours, "1").unwrap();
    let other = ask(&mut w, &theirs, "1").unwrap();
    w.all_works();
    assert_eq!(w.on(lease), w.on(other), "both are on one host");
    let (caller, note) = (theirs.clone(), Arc::from(MARK));
    w.step(Input::Release { lease: other, caller, outcome: Outcome::Tainted, note, hold: None }).unwrap();
    let scope = &ours.sees;
    let clean = |w: &World, what: &str| {
        let row = w.core.view(scope).lease(lease).unwrap().clone();
        let explained = w.core.explain(lease, w.now, scope).unwrap();
        let hosts: Vec<_> = w.core.resources(None).map(|row| w.core.view(scope).seen(row).resource).collect();
        let told = format!("{explained:?} {hosts:?} {:?} {:?}", row.doubt_for(scope), row.trouble);
        for secret in [MARK.to_owned(), other.to_string()] {
            assert!(!told.contains(&secret), "{what}: {told}");
        }
    };
    let full = format!("{:?}", w.core.explain(lease, w.now, &Scope::All));
    assert!(full.contains(MARK), "with full view it is told: {full}");
    clean(&w, "in doubt");
    // A lease that waits for the host.
    let waiting = ask(&mut w, &agent("a", "ci"), "2").unwrap();
    let explained = w.core.explain(waiting, w.now, scope).unwrap();
    assert!(!format!("{explained:?}").contains(MARK), "{explained:?}");
    // A check finds it so, and the lease breaks with a chain down to what the other said.
    w.verdict(mangled(false));
    assert_eq!(w.state(lease), "BROKEN");
    assert!(format!("{:?}", w.cause(lease)).contains(MARK), "{:?}", w.cause(lease));
    clean(&w, "broken");
    for link in w.cause(lease) {
        assert!(!link.detail_for(scope).contains(MARK), "{link:?}");
    }
}

#[test]
fn the_lease_of_a_copy_on_its_host_is_the_brokers_own() {
    let (w, lease, copy, host) = lease_on_copy(1);
    let parent = w.core.resource(copy).unwrap().parent.unwrap().lease;
    let tenant = w.row(lease).spec.tenant.clone();
    for scope in [Scope::Tenant(tenant), Scope::Tenant(w.row(parent).spec.tenant.clone())] {
        assert_eq!(w.core.view(&scope).lease(parent), None);
        let seen = w.core.view(&scope).resource(host).unwrap();
        assert_eq!((seen.leases.len(), seen.in_use), (0, 1));
    }
    assert!(w.core.view(&Scope::All).lease(parent).is_some());
}

#[test]
fn a_successor_belongs_to_the_same_tenant_and_principal() {
    let mut w = World::new(vec![made_at_will("hosts", 2)]);
    let ours = agent("a", "ci");
    let request = LeaseRequest { caller: ours.clone(), replace: true, ..want("hosts") };
    let Reply::Leases(leases) = w.step(Input::Lease(request)).unwrap() else { panic!("leases are wanted") };
    let lease = leases[0].id;
    w.all_works();
    w.admin(AdminVerb::Break(lease)).unwrap();
    assert_eq!(w.cause(lease)[0].reason, Reason::Operator);
    let successors = w.core.leases(None).filter(|row| row.spec.replaces == Some(lease)).cloned().collect::<Vec<_>>();
    assert!(!successors.is_empty() && successors.iter().all(|row| ours.owns(&row.spec)), "{successors:?}");
}

/// A scope by pools, with the same for leases of all tenants and for the pools themselves.
fn within(caller: &Caller, own: Pools, pools: Pools) -> Scope {
    let Caller { tenant, principal, .. } = caller.clone();
    Scope::Within(Arc::new(Within { tenant, principal, own, of_tenant: Pools::none(), of_all: pools.clone(), pools }))
}

fn only(pool: &str) -> Pools {
    Pools::matching([pool])
}

fn two_pools() -> World {
    let labelled = |name: &str, item: &str| {
        let labels = [("arch", "arm"), ("of", name)].map(|(key, value)| (Arc::from(key), Arc::from(value)));
        PoolConfig { labels: labels.into(), ..inventory(name, &[item]) }
    };
    World::new(vec![labelled("linux", "l1"), labelled("mac", "m1")])
}

#[test]
fn an_operator_of_one_pool_acts_in_it_and_nothing_else_exists() {
    let mut w = two_pools();
    let ci = agent("a", "ci");
    let ask_in = |w: &mut World, pool: &str| {
        let request = LeaseRequest { request_id: Arc::from(pool), caller: ci.clone(), ..want(pool) };
        let Reply::Leases(leases) = w.step(Input::Lease(request)).unwrap() else { panic!("leases are wanted") };
        leases[0].id
    };
    let (linux, mac) = (ask_in(&mut w, "linux"), ask_in(&mut w, "mac"));
    w.all_works();
    let ops = agent("ops", "ann");
    let ops = Caller { sees: within(&ops, Pools::none(), only("linux")), ..ops };
    let say = |w: &mut World, verb| {
        let request = AdminRequest { caller: ops.clone(), reason: Arc::from("x"), verb, if_revision: None };
        w.step(Input::Admin(request)).map(drop).map_err(|refused| refused.reason)
    };
    let (here, there) = (w.on(linux), w.on(mac));
    let item =
        |name: &str| AdminVerb::OnMachine(MachineName::parse(name).unwrap(), wharfinger_core::MachineVerb::Cordon);
    for (verb, reason) in [
        (AdminVerb::Cordon(there), "UNKNOWN_RESOURCE"),
        (AdminVerb::CordonPool(Arc::from("mac")), "UNKNOWN_POOL"),
        (item("mac/m1"), "UNKNOWN_MACHINE"),
        (item("m1"), "UNKNOWN_MACHINE"),
        (AdminVerb::HoldLease(mac, Millis::secs(60)), "UNKNOWN_LEASE"),
        (AdminVerb::Break(mac), "UNKNOWN_LEASE"),
    ] {
        let revision = w.core.revision();
        assert_eq!(say(&mut w, verb.clone()), Err(reason), "{verb:?}");
        assert_eq!(w.core.revision(), revision, "{verb:?}");
    }
    let view = w.core.view(&ops.sees);
    assert_eq!(view.pools().iter().map(|pool| pool.config.name.to_string()).collect::<Vec<_>>(), ["linux"]);
    assert!(view.pool("mac").is_none() && view.resource(there).is_none() && view.lease(mac).is_none());
    assert_eq!(view.resources(None).filter(|(_, row)| row.is_some()).count(), 1);
    assert!(view.pool("linux").is_some() && view.lease(linux).is_some());
    assert_eq!(view.resource(here).unwrap().leases.len(), 1);
    for verb in
        [AdminVerb::Cordon(here), AdminVerb::CordonPool(Arc::from("linux")), item("l1"), AdminVerb::Break(linux)]
    {
        assert_eq!(say(&mut w, verb.clone()), Ok(()), "{verb:?}");
    }
    assert_eq!((w.state(linux), w.state(mac)), ("BROKEN", "ACTIVE"));
}

#[test]
fn a_selector_among_pools_is_served_by_those_alone_also_after_a_restart() {
    let mut w = two_pools();
    let ci = agent("a", "ci");
    let arm =
        |among: Pools| Arc::new(Selector { labels: [(Arc::from("arch"), Arc::from("arm"))].into(), among, pool: None });
    let ask_for = |w: &mut World, id: &str, among: Pools| {
        let mut request = LeaseRequest { request_id: Arc::from(id), caller: ci.clone(), ..want("linux") };
        request.claims[0].selector = arm(among);
        match w.step(Input::Lease(request)) {
            Ok(Reply::Leases(leases)) => Ok(leases[0].id),
            Ok(_) => panic!("leases are wanted"),
            Err(refused) => Err(refused.reason),
        }
    };
    let first = ask_for(&mut w, "1", only("lin*")).unwrap();
    let waits = ask_for(&mut w, "2", only("lin*")).unwrap();
    let free = ask_for(&mut w, "3", Pools::All).unwrap();
    w.all_works();
    assert_eq!((w.state(first), w.state(waits), w.state(free)), ("ACTIVE", "QUEUED", "ACTIVE"));
    assert_eq!((w.row(first).pool.as_deref(), w.row(free).pool.as_deref()), (Some("linux"), Some("mac")));
    w.step(Input::Release { lease: free, caller: ci.clone(), outcome: Outcome::Ok, note: Arc::from(""), hold: None })
        .unwrap();
    w.restart();
    w.all_works();
    assert_eq!(w.state(waits), "QUEUED", "mac is free, and not for it");
    let why = w.core.explain(waits, w.now, &ci.sees).unwrap();
    assert!(why.satisfiable && why.blockers.iter().all(|blocker| &*blocker.pool == "linux"), "{why:?}");
    w.step(Input::Release { lease: first, caller: ci.clone(), outcome: Outcome::Ok, note: Arc::from(""), hold: None })
        .unwrap();
    w.all_works();
    assert_eq!((w.state(waits), w.row(waits).pool.as_deref()), ("ACTIVE", Some("linux")));
    assert_eq!(ask_for(&mut w, "4", only("windows")), Err("UNKNOWN_LABEL"), "no pool for it has the label");
}

#[test]
fn a_pool_out_of_view_is_refused_as_one_that_never_was() {
    let mut w = two_pools();
    let ci = agent("a", "ci");
    let ci = Caller { sees: within(&ci, Pools::All, only("linux")), ..ci };
    let mut ask_for = |selector: Selector| {
        let mut request = LeaseRequest { request_id: Arc::from("1"), caller: ci.clone(), ..want("linux") };
        request.claims[0].selector = Arc::new(selector);
        w.step(Input::Lease(request)).map(drop).map_err(|refused| format!("{refused:?}"))
    };
    let hidden = ask_for(Selector::pool("mac")).unwrap_err();
    assert_eq!(hidden.replace("mac", "x"), ask_for(Selector::pool("x")).unwrap_err());
    assert!(hidden.contains("UNKNOWN_POOL") && hidden.contains("there are: linux\""), "{hidden}");
    let by = |value: &str| Selector { labels: [(Arc::from("of"), Arc::from(value))].into(), ..Selector::default() };
    let hidden = ask_for(by("mac")).unwrap_err();
    assert_eq!(hidden.replace("mac", "x"), ask_for(by("x")).unwrap_err());
    assert!(hidden.contains("UNKNOWN_LABEL") && hidden.contains("there are: linux\""), "{hidden}");
    assert_eq!(ask_for(Selector::pool("linux")), Ok(()));
}

#[test]
fn a_holder_whose_rules_do_not_allow_a_call_is_refused_and_nothing_changes() {
    let mut w = two_pools();
    let ci = agent("a", "ci");
    let request = LeaseRequest { request_id: Arc::from("1"), caller: ci.clone(), ..want("linux") };
    let Reply::Leases(leases) = w.step(Input::Lease(request)).unwrap() else { panic!("leases are wanted") };
    let lease = leases[0].id;
    w.all_works();
    let none = Caller { ends: within(&ci, only("mac"), Pools::none()), ..ci.clone() };
    for input in all_on(lease, &none).into_iter().take(4) {
        let refused = w.step(input.clone()).unwrap_err();
        assert_eq!((refused.kind, refused.reason), (RejectionKind::Denied, "NOT_ALLOWED"), "{input:?}");
    }
    assert_eq!(w.state(lease), "ACTIVE");
    let own = Caller { ends: within(&ci, only("linux"), Pools::none()), ..ci };
    for input in all_on(lease, &own).into_iter().take(4).rev() {
        w.step(input).unwrap();
    }
    assert_eq!(w.state(lease), "RELEASED");
}

#[test]
fn an_entry_has_the_proof_of_the_caller_whose_input_it_is_and_no_other_has() {
    let by = |name: &str, method: &str| {
        let proved = Provenance {
            tenant: Arc::from("a"),
            proof: Arc::from(format!("token:{name}")),
            peer: Some(Arc::from("10.0.0.9:1")),
            via: None,
            program: None,
            roles: Arc::from("agent"),
            method: Arc::from(method),
            trace: None,
        };
        Caller { proved: Some(Arc::new(proved)), ..agent("a", name) }
    };
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }]);
    let mut events = Vec::new();
    // It waits for the host to be made.
    let first = ask(&mut w, &by("x", "Lease"), "1").unwrap();
    events.extend(w.last.events.clone());
    w.all_works();
    assert_eq!(w.state(first), "ACTIVE");
    events.extend(w.last.events.clone());
    // Two inputs in one commit: one that is granted at once, and an end by another caller.
    let request = LeaseRequest { request_id: Arc::from("2"), caller: by("y", "Lease"), ..want("hosts") };
    w.core.step(w.now, Input::Lease(request)).unwrap();
    let (outcome, note) = (Outcome::Ok, Arc::from(""));
    let released = Input::Release { lease: first, caller: by("x", "Release"), outcome, note, hold: None };
    w.core.step(w.now, released).unwrap();
    events.extend(w.core.take_batch().events);
    let mut found = Vec::new();
    for event in &events {
        match &event.caller {
            Some(caller) => {
                assert_eq!(*caller.proof, format!("token:{}", event.actor), "{event:?}");
                found.push((event.actor.to_string(), caller.method.to_string()));
            }
            None => assert_eq!(&*event.actor, "wharfinger", "{event:?}"),
        }
    }
    let pair = |who: &str, method: &str| (who.to_string(), method.to_string());
    assert_eq!(found, [pair("x", "Lease"), pair("y", "Lease"), pair("x", "Release")], "{events:#?}");
    assert!(events.iter().any(|event| event.caller.is_none()), "the broker's own");
}

/// N83. The slot of a lease that has ended is another tenant's by the time of a late call.
#[test]
fn a_late_call_on_an_ended_lease_touches_no_lease_of_another_that_has_its_slot() {
    for number in 0..all_on(LeaseId::new(1), &agent("a", "ci")).len() {
        let mut w = World::new(vec![inventory("hosts", &["h1"])]);
        let (ours, theirs) = (agent("a", "ci"), agent("b", "ci"));
        let first = ask(&mut w, &ours, "1").unwrap();
        w.all_works();
        let second = ask(&mut w, &theirs, "1").unwrap();
        w.all_works();
        assert_eq!((w.state(first), w.state(second)), ("ACTIVE", "QUEUED"));
        let host = w.on(first);
        // The same call in time reaches its own lease.
        let (caller, note) = (ours.clone(), Arc::from("done"));
        w.step(Input::Release { lease: first, caller, outcome: Outcome::Ok, note, hold: None }).unwrap();
        w.all_works();
        assert_eq!((w.state(first), w.state(second), w.on(second)), ("RELEASED", "ACTIVE", host));
        let (lease, resource) = (w.row(second).clone(), w.resource(host).clone());
        let late = all_on(first, &ours).remove(number);
        // A release is repeated without an error.
        let _ = w.step(late.clone());
        w.all_works();
        assert_eq!(*w.row(second), lease, "{late:?}");
        assert_eq!(*w.resource(host), resource, "{late:?}");
    }
}
