//! A place whose resources are lost soon after they are ready rests longer each time; a single loss delays nothing (ADR 72).

use crate::world::{Kind, START, World, inventory, made_at_will, vanished};
use wharfinger_core::{
    AdminVerb, EventKind, LeaseId, MachineKey, MachineVerb, Millis, NoticeKind, PoolConfig, ResourceId, Timestamp,
};

fn key() -> MachineKey {
    MachineKey::parse("hosts/h1").unwrap()
}

/// One machine that is kept ready.
fn one() -> World {
    let mut w = World::new(vec![PoolConfig { min_ready: 1, ..inventory("hosts", &["h1"]) }]);
    w.all_works();
    w
}

fn stands(w: &World) -> Option<ResourceId> {
    w.core.resource_of(&key())
}

/// The resource that stands for the machine is lost; all that is asked works. Returns how long no other is made, at most
/// `most`.
fn lost(w: &mut World, most: Millis) -> Millis {
    let id = stands(w).expect("it is there");
    w.notice(id, NoticeKind::Gone);
    w.all_works();
    let began = w.now;
    while stands(w).is_none() && w.now.since(began) < most {
        w.pass(Millis(250));
        w.all_works();
    }
    w.now.since(began)
}

fn count(w: &World) -> u32 {
    w.core.machine(&key()).and_then(|row| row.losses.as_ref()).map_or(0, |losses| losses.count)
}

#[test]
fn a_machine_that_flaps_is_made_again_more_and_more_seldom() {
    let mut w = one();
    let mut rests = Vec::new();
    for _ in 0..13 {
        w.pass(Millis::secs(5));
        rests.push(lost(&mut w, Millis::secs(1000)).0 / 1000);
    }
    assert_eq!(rests, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    assert_eq!(count(&w), 13);
}

#[test]
fn a_flapping_machine_leaves_few_entries_in_the_trail() {
    let mut w = one();
    let (mut losses, until) = (0, START.after(Millis::secs(3600)));
    while w.now < until {
        w.pass(Millis::secs(2));
        if let Some(id) = stands(&w).filter(|id| w.stands(*id) == "READY") {
            w.notice(id, NoticeKind::Gone);
            losses += 1;
        }
        w.all_works();
    }
    assert!((10..=18).contains(&losses), "{losses} losses in an hour");
}

#[test]
fn a_machine_that_stayed_well_is_made_again_at_once() {
    let mut w = one();
    for _ in 0..5 {
        w.pass(Millis::secs(5));
        lost(&mut w, Millis::secs(1000));
    }
    w.pass(Millis::secs(601));
    assert_eq!(lost(&mut w, Millis::secs(1000)), Millis::ZERO, "a reboot after ten good minutes is a first loss");
    assert_eq!(count(&w), 1);
}

#[test]
fn a_rolling_restart_delays_no_machine() {
    let mut w = World::new(vec![PoolConfig { min_ready: 3, ..inventory("hosts", &["h1", "h2", "h3"]) }]);
    w.all_works();
    let before = w.resources_of("hosts");
    for id in before.clone() {
        w.pass(Millis::secs(12));
        w.notice(id, NoticeKind::Gone);
        w.all_works();
        let now = w.resources_of("hosts");
        assert_eq!((now.len(), w.waits_for(Kind::Provision)), (3, 0), "its successor is there in the same moment");
    }
    assert!(w.resources_of("hosts").iter().all(|id| !before.contains(id)));
}

#[test]
fn explain_names_a_rest_and_the_rest_outlives_a_restart_of_the_broker() {
    let mut w = one();
    for _ in 0..6 {
        w.pass(Millis::secs(5));
        lost(&mut w, Millis::secs(1000));
    }
    let id = stands(&w).unwrap();
    w.notice(id, NoticeKind::Gone);
    w.all_works();
    let at = w.last.now;
    let waits = w.lease("hosts");
    let told = |w: &World, waits: LeaseId| {
        let why = w.explain(waits);
        assert!(why.contains("BACKING_OFF: hosts/h1 comes back in 32 s: it was lost 7 times in "), "{why}");
        assert!(
            why.contains("the last time by RESOURCE_GONE: ")
                && why.contains("(mend what it says; `wharfinger recover hosts/h1` makes it now)"),
            "{why}"
        );
        let pool = w.core.pool("hosts").unwrap();
        assert!(pool.trouble.unwrap().starts_with("hosts/h1 rests: it was lost 7 times in "), "pools shows it");
        let losses = pool.items[0].losses.clone().unwrap();
        assert_eq!((losses.count, losses.again_at.since(losses.last)), (7, Millis::secs(32)));
    };
    told(&w, waits);
    assert!(w.core.check_invariants().is_ok() && w.now.since(at) < Millis::secs(1));
    w.restart();
    w.all_works();
    assert_eq!(stands(&w), None, "the restart is no way around it");
    told(&w, waits);
    w.pass(Millis::secs(31));
    w.all_works();
    assert_eq!(stands(&w), None);
    w.pass(Millis::secs(2));
    w.all_works();
    assert_eq!(w.state(waits), "ACTIVE");
    // It is back, and says for ten minutes that it was lost.
    assert!(w.core.item(&key()).losses.is_some());
    assert_eq!(w.core.pool("hosts").unwrap().trouble, None);
    w.pass(Millis::secs(601));
    assert_eq!(w.core.item(&key()).losses, None);
}

#[test]
fn the_last_entry_of_a_lost_resource_names_the_rest() {
    let mut w = one();
    w.pass(Millis::secs(5));
    lost(&mut w, Millis::secs(10));
    w.pass(Millis::secs(5));
    let id = stands(&w).unwrap();
    w.notice(id, NoticeKind::Gone);
    let call = w.take(Kind::Destroy);
    w.answer(&call, None);
    let gone = w.last.events.iter().find(|event| event.kind == EventKind::ResourceGone).unwrap();
    assert!(gone.detail.starts_with("it was lost 2 times in 5 s, the last time by RESOURCE_GONE: "), "{}", gone.detail);
    assert!(gone.detail.ends_with("; the next one is made in 1 s"), "{}", gone.detail);
}

#[test]
fn the_word_of_an_operator_ends_a_rest() {
    for verb in [MachineVerb::Recover, MachineVerb::Uncordon] {
        let mut w = one();
        for _ in 0..9 {
            w.pass(Millis::secs(5));
            lost(&mut w, Millis::secs(1000));
        }
        let id = stands(&w).unwrap();
        w.notice(id, NoticeKind::Gone);
        w.all_works();
        w.pass(Millis::secs(5));
        assert_eq!(stands(&w), None, "it rests for minutes");
        w.on_machine("h1", verb).unwrap();
        w.all_works();
        assert_eq!(stands(&w).map(|id| w.stands(id)), Some("READY"), "{verb:?}");
        assert_eq!(lost(&mut w, Millis::secs(1000)), Millis::ZERO, "and its next loss is a first one");
    }
}

#[test]
fn an_ordered_or_announced_end_is_no_loss() {
    let mut w = one();
    for _ in 0..5 {
        w.pass(Millis::secs(5));
        let id = stands(&w).unwrap();
        w.admin(AdminVerb::Recycle(id)).unwrap();
        w.all_works();
        assert!(stands(&w).is_some_and(|now| now != id), "recycled and made again at once");
    }
    assert_eq!(count(&w), 0);
    // A reboot for maintenance: the machine is out.
    for _ in 0..5 {
        w.on_machine("h1", MachineVerb::Drain(None)).unwrap();
        w.all_works();
        w.on_machine("h1", MachineVerb::Undrain).unwrap();
        w.all_works();
    }
    assert_eq!((count(&w), stands(&w).map(|id| w.stands(id))), (0, Some("READY")));
    let end = w.now.after(Millis::secs(2));
    w.notice(stands(&w).unwrap(), NoticeKind::Maintenance(end));
    w.pass(Millis::secs(3));
    w.all_works();
    assert_eq!(count(&w), 0);
}

/// A pool that buys its hosts: the one of them is lost again and again.
fn bought(ready: u32) -> World {
    let mut w = World::new(vec![PoolConfig { min_ready: ready, ..made_at_will("cloud", ready) }]);
    w.all_works();
    w
}

fn newest(w: &World) -> Option<ResourceId> {
    let at = |id: &ResourceId| -> Timestamp { w.resource(*id).created_at };
    w.resources_of("cloud").into_iter().filter(|id| w.stands(*id) == "READY").max_by_key(|id| (at(id), *id))
}

#[test]
fn a_pool_whose_hosts_are_lost_one_after_the_other_buys_them_more_and_more_seldom() {
    let mut w = bought(1);
    let (mut made, until) = (0, w.now.after(Millis::secs(3600)));
    while w.now < until {
        w.pass(Millis::secs(2));
        if let Some(id) = newest(&w) {
            w.notice(id, NoticeKind::Gone);
            made += 1;
        }
        if made == 8 {
            w.restart();
        }
        w.all_works();
    }
    assert!((10..=18).contains(&made), "{made} bought in an hour");
    let waits = w.lease("cloud");
    let why = w.explain(waits);
    assert!(
        why.contains("BACKING_OFF: cloud comes back in ") && why.contains("`wharfinger uncordon --pool cloud`"),
        "{why}"
    );
    assert!(w.core.pool("cloud").unwrap().losses.is_some());
    w.admin(AdminVerb::UncordonPool("cloud".into())).unwrap();
    w.all_works();
    assert_eq!(w.state(waits), "ACTIVE");
}

#[test]
fn many_hosts_that_are_lost_at_once_are_one_loss() {
    let mut w = bought(20);
    w.pass(Millis::secs(60));
    for id in w.resources_of("cloud") {
        w.notice(id, NoticeKind::Gone);
    }
    w.all_works();
    assert_eq!(w.resources_of("cloud").len(), 20, "all are bought again at once");
    assert_eq!(w.core.pool("cloud").unwrap().losses, None);
}

#[test]
fn a_check_that_finds_a_host_gone_counts_as_a_notice_does() {
    let mut w = one();
    let mut rests = Vec::new();
    for _ in 0..4 {
        w.pass(Millis::secs(5));
        let id = stands(&w).unwrap();
        w.admin(AdminVerb::Check(id)).unwrap();
        w.verdict(vanished());
        w.all_works();
        let began = w.now;
        while stands(&w).is_none() {
            w.pass(Millis(250));
            w.all_works();
        }
        rests.push(w.now.since(began).0 / 1000);
    }
    assert_eq!(rests, [0, 1, 2, 4]);
}
