//! A machine outlives the resources that stand for it: what an operator ordered for it holds until an operator withdraws it.

use crate::world::{Kind, World, copies, inventory, made_at_will, vanished};
use std::sync::Arc;
use wharfinger_core::{
    AdminRequest, AdminVerb, Caller, Core, EventKind, Input, LeaseId, Limits, MachineKey, MachineName, MachineVerb,
    Millis, NoticeKind, Outcome, PoolConfig, RejectionKind, Reply, ResourceId, Timestamp, Traits,
};

const PROBED: Traits = Traits { prepares: false, cleans: false, repairs: true, probes: true };

fn key(text: &str) -> MachineKey {
    MachineKey::parse(text).unwrap()
}

/// Two machines, both kept ready.
fn two() -> World {
    let ttl = Millis::secs(3600);
    let hosts = PoolConfig { min_ready: 2, traits: PROBED, default_ttl: ttl, ..inventory("hosts", &["h1", "h2"]) };
    let mut w = World::new(vec![hosts]);
    w.all_works();
    w
}

/// The resource that stands for a machine.
fn of(w: &World, machine: &str) -> Option<ResourceId> {
    w.core.resource_of(&key(machine))
}

/// A host goes away and comes back: sshd restarts, or the machine reboots.
fn reboots(w: &mut World, machine: &str) {
    let id = of(w, machine).unwrap();
    w.notice(id, NoticeKind::Gone);
    w.all_works();
    w.pass(Millis::secs(90));
    w.all_works();
    assert_ne!(of(w, machine), Some(id), "another resource stands for it, or none");
}

/// Reboots, restarts and a reload, one after the other.
fn world_goes_on(w: &mut World, machine: &str) {
    if of(w, machine).is_some() {
        reboots(w, machine);
    }
    w.restart();
    w.all_works();
    let pools = w.pools.clone();
    w.configure(Vec::new());
    w.all_works();
    w.pass(Millis::secs(1));
    w.configure(pools);
    w.all_works();
    w.pass(Millis::secs(90));
    w.all_works();
}

fn orders(w: &World, machine: &str) -> Vec<String> {
    let orders = w
        .core
        .machine(&key(machine))
        .map(|row| row.orders().map(|(name, order)| format!("{name} by {}: {}", order.by, order.reason)).collect());
    orders.unwrap_or_default()
}

#[test]
fn a_cordon_outlives_the_resource() {
    let mut w = two();
    let host = of(&w, "hosts/h1").unwrap();
    w.admin(AdminVerb::Cordon(host)).unwrap();
    world_goes_on(&mut w, "hosts/h1");
    assert_eq!(orders(&w, "hosts/h1"), ["cordoned by op: because"]);
    let leases = [w.lease("hosts"), w.lease("hosts")];
    w.all_works();
    assert_eq!(w.states(&leases), ["ACTIVE", "QUEUED"], "{}", w.explain(leases[1]));
    let why = w.explain(leases[1]);
    assert!(why.contains("HELD: 1 cordoned") && why.contains("hosts/h1 is cordoned by op: because"), "{why}");
    assert!(why.contains("(wharfinger uncordon hosts/h1)"), "{why}");
    w.on_machine("hosts/h1", MachineVerb::Uncordon).unwrap();
    w.all_works();
    assert_eq!(w.state(leases[1]), "ACTIVE");
}

#[test]
fn a_drained_machine_stays_away_until_an_operator_brings_it_back() {
    let mut w = two();
    let lease = w.lease("hosts");
    let machine = format!("hosts/{}", w.resource(w.on(lease)).item.clone().unwrap());
    assert_eq!(w.on_machine(&machine, MachineVerb::Drain(None)), Ok(Reply::Machine(key(&machine))));
    assert_eq!((w.stands(w.on(lease)), w.state(lease)), ("DRAINING", "ACTIVE"));
    w.release(lease, Outcome::Ok);
    w.all_works();
    w.pass(Millis::secs(90));
    w.all_works();
    assert_eq!(of(&w, &machine), None, "its minimum does not bring it back");
    let leases = [w.lease("hosts"), w.lease("hosts")];
    world_goes_on(&mut w, &machine);
    assert_eq!(of(&w, &machine), None);
    assert!(w.explain(leases[1]).contains("is drained by op: because"), "{}", w.explain(leases[1]));
    w.on_machine(&machine, MachineVerb::Undrain).unwrap();
    w.all_works();
    assert_eq!(w.stands(of(&w, &machine).unwrap()), "READY");
}

#[test]
fn an_undrain_in_time_keeps_the_resource() {
    let mut w = two();
    let lease = w.lease("hosts");
    let host = w.on(lease);
    w.admin(AdminVerb::Drain(host, None)).unwrap();
    w.admin(AdminVerb::Undrain(host)).unwrap();
    w.all_works();
    assert_eq!((w.stands(host), w.state(lease)), ("READY", "ACTIVE"));
    w.release(lease, Outcome::Ok);
    assert_eq!(w.stands(host), "READY");
}

/// Writes a note on a machine. An empty text removes it.
fn note(w: &mut World, machine: &str, text: &str) -> Result<Reply, wharfinger_core::Rejection> {
    let verb = AdminVerb::OnMachine(MachineName::parse(machine).unwrap(), MachineVerb::Note);
    let (caller, reason) = (Caller::sole_tenant("ann"), Arc::from(text));
    w.step(Input::Admin(AdminRequest { caller, reason, verb, if_revision: None }))
}

/// The note that a resource shows, with its author.
fn note_on(w: &World, id: ResourceId) -> Option<String> {
    w.resource(id).note.as_ref().map(|note| format!("{}: {}", note.by, note.text))
}

#[test]
fn a_note_outlives_the_resource_and_changes_no_state() {
    let mut w = two();
    let lease = w.lease("hosts");
    let host = w.on(lease);
    let machine = format!("hosts/{}", w.resource(host).item.clone().unwrap());
    assert_eq!(note(&mut w, &machine, "the fan is loud"), Ok(Reply::Machine(key(&machine))));
    assert!(w.last.effects.is_empty() && w.last.leases.is_empty(), "{:?}", w.last);
    assert!(w.last.events.iter().any(|event| event.kind == EventKind::ResourceNoted && &*event.actor == "ann"));
    assert_eq!((w.stands(host), w.state(lease)), ("READY", "ACTIVE"));
    world_goes_on(&mut w, &machine);
    let next = of(&w, &machine).unwrap();
    assert_ne!(next, host);
    assert_eq!((w.stands(next), note_on(&w, next).as_deref()), ("READY", Some("ann: the fan is loud")));
    assert_eq!(orders(&w, &machine), [""; 0]);
    note(&mut w, &machine, "the fan was replaced").unwrap();
    assert_eq!(note_on(&w, next).as_deref(), Some("ann: the fan was replaced"));
    w.admin(AdminVerb::Cordon(next)).unwrap();
    w.admin(AdminVerb::Uncordon(next)).unwrap();
    w.admin(AdminVerb::Recover(next)).unwrap();
    w.all_works();
    assert!(note_on(&w, next).is_some(), "no other verb removes it");
    note(&mut w, &machine, "").unwrap();
    assert!(w.last.events.iter().any(|event| event.kind == EventKind::ResourceNoteRemoved));
    world_goes_on(&mut w, &machine);
    assert_eq!(note_on(&w, of(&w, &machine).unwrap()), None);
}

#[test]
fn a_machine_without_a_resource_has_its_note_too() {
    let mut w = two();
    w.on_machine("h1", MachineVerb::Drain(None)).unwrap();
    w.all_works();
    assert_eq!(of(&w, "hosts/h1"), None);
    note(&mut w, "h1", "at the vendor").unwrap();
    let entry = w.last.events.iter().find(|event| event.kind == EventKind::MachineNoted).unwrap();
    assert_eq!(&*entry.detail, "hosts/h1: at the vendor");
    let item = w.core.item(&key("hosts/h1"));
    assert_eq!(item.note.map(|note| note.text.to_string()).as_deref(), Some("at the vendor"));
    // A machine that left the configuration is still known by its note.
    w.on_machine("h1", MachineVerb::Undrain).unwrap();
    let pools = w.pools.clone();
    w.configure(vec![PoolConfig { ..inventory("hosts", &["h2"]) }]);
    w.all_works();
    note(&mut w, "hosts/h1", "sold").unwrap();
    w.configure(pools);
    w.all_works();
    assert_eq!(note_on(&w, of(&w, "hosts/h1").unwrap()).as_deref(), Some("ann: sold"));
}

#[test]
fn a_resource_that_stands_for_no_machine_has_a_note_of_its_own() {
    let mut w = World::new(vec![PoolConfig { min_ready: 1, ..made_at_will("spot", 1) }]);
    w.all_works();
    let host = w.core.resources(None).next().unwrap().id;
    w.admin(AdminVerb::Note(host)).unwrap();
    w.restart();
    w.all_works();
    assert_eq!(note_on(&w, host).as_deref(), Some("op: because"));
    w.admin(AdminVerb::Recycle(host)).unwrap();
    w.all_works();
    assert_eq!(w.admin(AdminVerb::Note(host)).unwrap_err().reason, "RESOURCE_GONE");
    assert!(w.core.resources(None).all(|row| row.id == host || row.note.is_none()));
}

#[test]
fn a_hold_keeps_the_idle_copies_and_outlives_the_host() {
    let mut w = World::new(vec![
        PoolConfig { slots: 3, min_ready: 1, ..inventory("hosts", &["h1"]) },
        PoolConfig { idle: Some(Millis::secs(60)), max_age: Some(Millis::secs(200)), ..copies("copies", "hosts", 3) },
    ]);
    let leases = [w.lease("copies"), w.lease("copies")];
    w.all_works();
    let copies = leases.map(|lease| w.on(lease));
    w.release(leases[0], Outcome::Ok);
    w.all_works();
    w.on_machine("h1", MachineVerb::Hold(Millis::secs(3600))).unwrap();
    assert_eq!(w.state(leases[1]), "ACTIVE", "a hold breaks nothing");
    w.release(leases[1], Outcome::Ok);
    assert_eq!(w.waits_for(Kind::Clean), 0, "it is kept as it was left");
    let host = of(&w, "hosts/h1").unwrap();
    assert_eq!([w.stands(host), w.stands(copies[0]), w.stands(copies[1])], ["QUARANTINED", "READY", "READY"]);
    w.restart();
    let _waits = w.lease("copies");
    w.pass(Millis::secs(600));
    w.all_works();
    assert_eq!([w.stands(copies[0]), w.stands(copies[1])], ["READY"; 2], "nothing on it is touched");
    w.admin(AdminVerb::Recover(host)).unwrap();
    w.all_works();
    assert_eq!(w.stands(host), "READY");
    assert!(w.row(leases[1]).assignment().is_none(), "and is cleaned then");
    assert_eq!(orders(&w, "hosts/h1"), [""; 0]);
    // And over the end of the host.
    w.on_machine("h1", MachineVerb::Hold(Millis::secs(3600))).unwrap();
    let host = of(&w, "hosts/h1").unwrap();
    w.notice(host, NoticeKind::Gone);
    w.all_works();
    w.pass(Millis::secs(600));
    w.restart();
    w.all_works();
    assert_eq!(of(&w, "hosts/h1"), None);
    w.pass(Millis::secs(3001));
    w.all_works();
    assert_eq!(w.stands(of(&w, "hosts/h1").unwrap()), "READY", "a hold ends by itself");
    assert_eq!(orders(&w, "hosts/h1"), [""; 0]);
}

#[test]
fn a_quarantine_has_no_end_and_a_drain_within_it_neither() {
    let mut w = two();
    w.on_machine("hosts/h1", MachineVerb::Drain(None)).unwrap();
    w.all_works();
    w.on_machine("hosts/h2", MachineVerb::Quarantine).unwrap();
    let kept = of(&w, "hosts/h2").unwrap();
    w.on_machine("hosts/h2", MachineVerb::Drain(None)).unwrap();
    w.all_works();
    assert_eq!([w.stands(kept), "GONE"], ["GONE"; 2]);
    assert_eq!(orders(&w, "hosts/h2"), ["drained by op: because", "held by op: because"]);
    w.on_machine("hosts/h2", MachineVerb::Recover).unwrap();
    w.all_works();
    assert_eq!(of(&w, "hosts/h2"), None, "it is drained still");
    w.on_machine("h2", MachineVerb::Uncordon).unwrap();
    w.all_works();
    assert_eq!(w.stands(of(&w, "hosts/h2").unwrap()), "READY");
}

#[test]
fn a_machine_that_is_drained_and_held_comes_back_from_the_hold_draining() {
    let mut w = two();
    let lease = w.lease("hosts");
    let host = w.on(lease);
    let machine = w.resource(host).item.clone().unwrap();
    w.on_machine(&machine, MachineVerb::Drain(None)).unwrap();
    w.on_machine(&machine, MachineVerb::Hold(Millis::secs(60))).unwrap();
    w.release(lease, Outcome::Ok);
    assert_eq!(w.stands(host), "QUARANTINED");
    w.pass(Millis::secs(61));
    w.all_works();
    assert_eq!(w.stands(host), "GONE");
}

#[test]
fn a_drained_machine_stays_drained_when_an_end_that_was_announced_during_a_hold_is_called_off() {
    let hosts = PoolConfig { min_ready: 1, ..inventory("hosts", &["h1"]) };
    let mut w = World::new(vec![hosts, copies("copies", "hosts", 1)]);
    w.all_works();
    let lease = w.lease("copies");
    w.all_works();
    let copy = w.on(lease);
    w.release(lease, Outcome::Ok);
    w.all_works();
    let host = w.resource(copy).parent.and_then(|parent| parent.host).unwrap();
    w.on_machine("hosts/h1", MachineVerb::Drain(None)).unwrap();
    // The copy on it is being removed while the host is set apart.
    assert_eq!((w.stands(host), w.stands(copy)), ("DRAINING", "DESTROYING"));
    w.on_machine("hosts/h1", MachineVerb::Hold(Millis::secs(60))).unwrap();
    assert_eq!(w.stands(host), "QUARANTINED");
    w.notice(host, NoticeKind::Maintenance(w.now.after(Millis::secs(120))));
    assert_eq!(w.stands(host), "DRAINING");
    w.notice(host, NoticeKind::Cancelled);
    assert_eq!(w.stands(host), "DRAINING");
    w.all_works();
    assert_eq!(w.stands(host), "GONE");
}

#[test]
fn a_hold_of_a_machine_that_is_being_made_holds_what_is_made() {
    let mut w = World::new(vec![PoolConfig { min_ready: 1, ..inventory("hosts", &["h1"]) }]);
    w.on_machine("h1", MachineVerb::Hold(Millis::secs(600))).unwrap();
    let waiter = w.lease("hosts");
    w.works(Kind::Provision);
    assert_eq!((w.stands(of(&w, "hosts/h1").unwrap()), w.state(waiter)), ("QUARANTINED", "QUEUED"));
}

#[test]
fn a_resource_that_is_gone_takes_no_verb_and_names_its_successor() {
    let mut w = two();
    let first = of(&w, "hosts/h1").unwrap();
    reboots(&mut w, "hosts/h1");
    let second = of(&w, "hosts/h1").unwrap();
    let no = w.admin(AdminVerb::Cordon(first)).unwrap_err();
    assert_eq!((no.kind, no.reason), (RejectionKind::Precondition, "RESOURCE_GONE"));
    assert!(no.message.contains(&format!("hosts/h1 is {second} now")), "{}", no.message);
    w.on_machine("h1", MachineVerb::Drain(None)).unwrap();
    w.all_works();
    let no = w.admin(AdminVerb::Check(second)).unwrap_err();
    assert!(no.message.contains("no resource stands for hosts/h1 now"), "{}", no.message);
    assert_eq!(w.on_machine("h1", MachineVerb::Check).unwrap_err().reason, "NO_RESOURCE");
    // A resource without an inventory has no successor by name.
    let mut w = World::new(vec![made_at_will("boats", 1)]);
    let lease = w.lease("boats");
    w.all_works();
    let boat = w.on(lease);
    w.admin(AdminVerb::Cordon(boat)).unwrap();
    w.notice(boat, NoticeKind::Gone);
    w.all_works();
    let no = w.admin(AdminVerb::Cordon(boat)).unwrap_err();
    assert!(no.message.contains("ended with it"), "{}", no.message);
    assert_eq!(w.core.machines().count(), 0);
}

#[test]
fn a_machine_is_named_by_its_item_where_that_is_unique() {
    let mut w = World::new(vec![inventory("linux", &["a", "b"]), inventory("mac", &["b"])]);
    assert!(w.on_machine("a", MachineVerb::Cordon).is_ok());
    let no = w.on_machine("b", MachineVerb::Cordon).unwrap_err();
    assert_eq!(no.reason, "AMBIGUOUS_MACHINE");
    assert!(no.message.contains("linux/b, mac/b"), "{}", no.message);
    assert!(w.on_machine("mac/b", MachineVerb::Cordon).is_ok());
    let no = w.on_machine("linux/c", MachineVerb::Cordon).unwrap_err();
    assert_eq!((no.kind, no.reason), (RejectionKind::NotFound, "UNKNOWN_MACHINE"));
    // One that left the configuration can be told to come back.
    w.configure(vec![inventory("mac", &["x"])]);
    assert!(w.on_machine("mac/b", MachineVerb::Uncordon).is_ok());
}

#[test]
fn pools_list_the_machines_that_are_out_with_the_orders() {
    let mut w = two();
    w.on_machine("h2", MachineVerb::Drain(None)).unwrap();
    w.all_works();
    let items = w.core.pool("hosts").unwrap().items;
    assert!(items[0].machine.is_none() && items[0].resource.is_some());
    let order = items[1].machine.as_ref().unwrap().drained.clone().unwrap();
    assert_eq!((&*order.by, &*order.reason, items[1].resource), ("op", "because", None));
}

#[test]
fn orders_that_an_older_version_kept_on_resources_become_orders_on_machines() {
    let names = ["cordoned", "draining", "kept", "plain"];
    let mut w = World::new(vec![PoolConfig { slots: 2, min_ready: 4, ..inventory("hosts", &names) }]);
    w.all_works();
    let leases: Vec<LeaseId> = (0..4).map(|_| w.lease("hosts")).collect();
    w.all_works();
    assert!(leases.iter().all(|lease| w.state(*lease) == "ACTIVE"));
    w.on_machine("cordoned", MachineVerb::Cordon).unwrap();
    w.on_machine("draining", MachineVerb::Drain(None)).unwrap();
    w.on_machine("kept", MachineVerb::Quarantine).unwrap();
    let before: Vec<Vec<String>> = names.iter().map(|name| orders(&w, &format!("hosts/{name}"))).collect();
    assert_eq!(before.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 0]);
    w.forget_machines();
    w.restart();
    let after: Vec<Vec<String>> = names.iter().map(|name| orders(&w, &format!("hosts/{name}"))).collect();
    assert_eq!(before, after);
}

#[test]
fn a_follower_has_the_orders_too() {
    let mut w = two();
    let config = w.pools.clone();
    let mut other = Core::follow(w.core.snapshot(), config, Limits::default(), w.now);
    w.on_machine("h1", MachineVerb::Drain(None)).unwrap();
    other.take_in(&w.last);
    w.all_works();
    w.step(Input::Tick).unwrap();
    other.take_in(&w.last);
    assert_eq!(other.machine(&key("hosts/h1")), w.core.machine(&key("hosts/h1")));
    assert!(other.machine(&key("hosts/h1")).unwrap().out());
    assert_eq!(other.snapshot().machines.len(), 1);
}

/// Three machines of a pool of three are killed and started again, one after the other: each is given up at once. The brake counts
/// machines that are in trouble now, not what stood for them before.
#[test]
fn a_rolling_restart_breaks_each_lease_promptly() {
    for probed in [true, false] {
        let names = ["h1", "h2", "h3"];
        let pool =
            PoolConfig { traits: PROBED, min_ready: 3, default_ttl: Millis::secs(3600), ..inventory("hosts", &names) };
        let mut w = World::new(vec![pool]);
        w.all_works();
        let leases: Vec<LeaseId> = (0..3).map(|_| w.lease("hosts")).collect();
        for lease in leases {
            let dead = w.on(lease);
            let killed = w.now;
            if !probed {
                w.notice(dead, NoticeKind::ConnectionLost);
            }
            let broke = goes_on(&mut w, Some(dead), Millis::secs(6), |w| w.state(lease) == "BROKEN");
            let took =
                broke.unwrap_or_else(|| panic!("held: {:?}", w.core.pool("hosts").unwrap().brakes)).since(killed);
            assert!(took <= Millis::secs(10), "{took}");
            // It boots again.
            goes_on(&mut w, None, Millis::secs(12), |_| false);
            let view = w.core.pool("hosts").unwrap();
            assert_eq!((view.by_state.get("READY"), view.brakes.len()), (Some(&3), 0), "{view:?}");
        }
    }
}

/// All answer but one, for at least this long or until something is the case; says when it was.
fn goes_on(
    w: &mut World,
    silent: Option<ResourceId>,
    span: Millis,
    until: impl Fn(&World) -> bool,
) -> Option<Timestamp> {
    let end = w.now.after(span).after(Millis::secs(10));
    let mut met = None;
    while w.now < end && met.is_none() {
        w.pass(Millis(250));
        for _ in 0..w.calls.len() {
            let call = w.calls.remove(0);
            let (resource, op) = (call.resource.id, call.op);
            if Some(resource) != silent {
                w.answer(&call, None);
                continue;
            }
            let input = match call.work {
                wharfinger_core::Work::Probe => Input::Probed { resource, result: Ok(crate::world::silent()) },
                wharfinger_core::Work::Check => Input::Checked { resource, op, result: Ok(crate::world::silent()) },
                _ => continue,
            };
            w.step(input).unwrap();
        }
        met = until(w).then_some(w.now);
    }
    met
}

#[test]
fn hosts_that_replace_lost_ones_are_no_more_members_than_before() {
    let pool = PoolConfig { traits: PROBED, min_ready: 3, default_ttl: Millis::secs(3600), ..made_at_will("boats", 3) };
    let mut w = World::new(vec![pool]);
    w.all_works();
    for _ in 0..4 {
        let lease = w.lease("boats");
        let dead = w.on(lease);
        let broke = goes_on(&mut w, Some(dead), Millis::secs(6), |w| w.state(lease) == "BROKEN");
        assert!(broke.is_some(), "held: {:?}", w.core.pool("boats").unwrap().brakes);
        goes_on(&mut w, None, Millis::secs(2), |_| false);
    }
}

#[test]
fn a_machine_that_is_lost_and_not_back_counts_as_in_trouble() {
    let names: Vec<String> = (0..8).map(|n| format!("h{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let pool =
        PoolConfig { traits: PROBED, min_ready: 8, default_ttl: Millis::secs(3600), ..inventory("hosts", &names) };
    let mut w = World::new(vec![pool]);
    w.all_works();
    let dead = of(&w, "hosts/h0").unwrap();
    goes_on(&mut w, Some(dead), Millis::secs(6), |w| w.stands(dead) == "DESTROYING");
    let brakes = w.core.pool("hosts").unwrap().brakes;
    assert_eq!((brakes[0].members, brakes[0].troubled), (8, 1));
    // Proof is no evidence by silence.
    let proved = of(&w, "hosts/h1").unwrap();
    w.admin(AdminVerb::Check(proved)).unwrap();
    while w.waits_for(Kind::Check) == 0 {
        w.pass(Millis(250));
    }
    w.verdict(vanished());
    assert_eq!(w.core.pool("hosts").unwrap().brakes[0].troubled, 1);
}

#[test]
fn explain_names_who_holds_the_slots_and_the_way_to_more() {
    let mut w = World::new(vec![PoolConfig { slots: 2, ..inventory("hosts", &["h1"]) }, copies("copies", "hosts", 1)]);
    let (copy, host) = (w.lease("copies"), w.lease("hosts"));
    w.all_works();
    let waiter = w.lease("hosts");
    let why = w.explain(waiter);
    assert!(why.contains("2 of 2 slots are in use: "), "{why}");
    assert!(why.contains(&format!("{host} (build 7)")), "{why}");
    assert!(why.contains(&format!("{copy} (build 7) on the copy {} of pool copies", w.on(copy))), "{why}");
    assert!(why.contains("raise `slots`, or add a host") && !why.contains("raise max"), "{why}");
    let waiter = w.lease("copies");
    assert!(w.explain(waiter).contains("raise `max`"), "{}", w.explain(waiter));
}

/// The history of the pool has the fate of an idle copy, and so has that of the lease for which it gave way.
#[test]
fn a_copy_that_gives_way_says_for_which_lease() {
    let mut w =
        World::new(vec![inventory("hosts", &["h1"]), copies("copies", "hosts", 1), copies("others", "hosts", 1)]);
    let first = w.lease("copies");
    w.all_works();
    let copy = w.on(first);
    w.release(first, Outcome::Ok);
    w.all_works();
    let waiter = w.lease("others");
    let mut told = Vec::new();
    for _ in 0..20 {
        w.pass(Millis(500));
        told.extend(w.last.events.iter().filter(|event| event.kind == EventKind::ResourceGaveWay).cloned());
        w.all_works();
    }
    assert_eq!(w.state(waiter), "ACTIVE");
    let [event] = &told[..] else { panic!("{told:?}") };
    assert_eq!((event.pool.as_deref(), event.resource, event.lease), (Some("copies"), Some(copy), Some(waiter)));
    assert!(event.detail.contains(&format!("wanted by {waiter} (build 7)")), "{}", event.detail);
}

#[test]
fn slots_that_are_being_cleaned_are_counted_as_such() {
    let (mut w, lease, _, _) = crate::world::lease_on_copy(1);
    w.release(lease, Outcome::Ok);
    let view = w.core.pool("copies").unwrap();
    assert_eq!((view.leases, view.cleaning, view.free_slots), (1, 1, 0));
    w.all_works();
    let view = w.core.pool("copies").unwrap();
    assert_eq!((view.leases, view.cleaning, view.free_slots), (0, 0, 1));
}

#[test]
fn a_lease_names_its_machine() {
    let (w, lease, _, host) = crate::world::lease_on_copy(1);
    let wharfinger_core::LeaseState::Active { access, .. } = &w.row(lease).state else { panic!() };
    assert_eq!(&*access["machine"], &*format!("hosts/{}", w.resource(host).item.clone().unwrap()));
}
