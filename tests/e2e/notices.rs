//! A planned reboot, announced by one line in a file on the host: work goes elsewhere before the host is gone.

use crate::farm::{Farm, Settings};
use crate::sshd::{Sshd, skip};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use wharfinger::pb;
use wharfinger::pb::{LeaseState, Outcome, ResourceState};

/// From the line in the file to the holder.
const BUDGET: Duration = Duration::from_secs(3);

/// A holder of a copy who wants a replacement, on one of two hosts with two slots each.
struct Scene {
    farm: Farm,
    lease: pb::Lease,
    host: pb::Resource,
}

impl Scene {
    fn new() -> Self {
        // A folder that only this host sees.
        let host = || Sshd::start_in("mount -t tmpfs -o size=64k none /mnt || exit 1", "", None);
        let settings = Settings {
            hosts: "slots = 2",
            ssh: "notice_file = \"/mnt/notice\"\nshutdown_file = \"/mnt/scheduled\"",
            copies: "max = 2",
            ..Settings::default()
        };
        let farm = Farm::start(vec![host(), host()], settings);
        farm.server.wait_for_state("hosts", "READY", 2);
        let lease = farm.active(&farm.ask("copies", "holder", true).id).lease;
        assert!(lease.ends_at.is_none());
        let host = farm.resource(&farm.resource(&lease.resource_id).parent_id);
        Self { farm, lease, host }
    }

    /// The drop file of the host under the copy.
    fn drop_file(&mut self) -> PathBuf {
        let sshd = self.farm.host(&self.host.item).processes()[0];
        PathBuf::from(format!("/proc/{sshd}/root/mnt/notice"))
    }

    /// The operator announces an end; the holder is notified within the budget. Returns the end that it gets.
    fn announce(&mut self, seconds: u64) -> SystemTime {
        let file = self.drop_file();
        let written = SystemTime::now();
        std::fs::write(file, format!("maintenance +{seconds} new kernel\n")).unwrap();
        let told = self.farm.told(&self.lease.id, written, "its end", |lease| lease.ends_at.is_some());
        let took = told.at.duration_since(written).unwrap();
        assert!(took < BUDGET, "told after {took:?}");
        assert_eq!(told.lease.state(), LeaseState::Active, "it works on until then");
        let end = SystemTime::try_from(told.lease.ends_at.unwrap()).unwrap();
        let span = end.duration_since(written).unwrap();
        // The span counts from the second in which the file was written.
        assert!((seconds - 1..=seconds + 3).contains(&span.as_secs()), "{span:?}");
        println!("TABLE | planned reboot | holder told after {} ms", took.as_millis());
        end
    }

    /// The holder is notified that there will be no end, and works on past the time that was announced.
    fn called_off(&self, since: SystemTime, end: SystemTime) {
        let farm = &self.farm;
        farm.told(&self.lease.id, since, "that it is called off", |lease| lease.ends_at.is_none());
        farm.until(&self.host.id, ResourceState::Ready);
        farm.until(&self.lease.resource_id, ResourceState::Ready);
        let left = end.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(1);
        farm.throughout(left, |farm| {
            let lease = farm.get(&self.lease.id);
            assert_eq!(lease.state(), LeaseState::Active, "{lease:?}");
            assert_eq!(lease.fencing_token, self.lease.fencing_token);
            assert_eq!(farm.resource(&self.host.id).state(), ResourceState::Ready);
        });
        // And the host takes new work: all four slots of the two are used.
        let others: Vec<pb::Lease> = (0..3).map(|n| farm.ask("hosts", &format!("other {n}"), false)).collect();
        let on_it = others.iter().filter(|other| farm.active(&other.id).lease.resource_id == self.host.id).count();
        assert_eq!(on_it, 1);
        let events = farm.events(0);
        assert!(events.iter().any(|event| event.kind == "resource.called-off"), "{events:#?}");
        assert!(events.iter().all(|event| event.kind != "lease.broken"), "{events:#?}");
    }
}

#[test]
fn an_announced_reboot_moves_the_work_before_the_host_is_gone() {
    if skip("notices::an_announced_reboot_moves_the_work_before_the_host_is_gone") {
        return;
    }
    let mut scene = Scene::new();
    let end = scene.announce(10);
    let farm = &scene.farm;
    assert_eq!(farm.resource(&scene.host.id).state(), ResourceState::Draining);
    // It has a free slot, which is not granted: the third waits until the other host has one.
    let others: Vec<pb::Lease> = (0..3).map(|n| farm.ask("hosts", &format!("other {n}"), false)).collect();
    let first: Vec<pb::Lease> = others[..2].iter().map(|other| farm.active(&other.id).lease).collect();
    assert!(first.iter().all(|other| other.resource_id != scene.host.id), "{first:#?}");
    assert_eq!(farm.get(&others[2].id).state(), LeaseState::Queued);
    assert!(farm.blockers(&others[2].id).contains(&"HELD".to_string()));
    farm.release(&first[0].id, Outcome::Ok);
    let third = farm.active(&others[2].id).lease;
    assert_eq!(third.resource_id, first[1].resource_id);
    for other in [&first[1], &third] {
        farm.release(&other.id, Outcome::Ok);
    }
    assert_eq!(farm.get(&scene.lease.id).state(), LeaseState::Active);
    assert!(SystemTime::now() < end, "all of that was before the end");

    let broken = farm.told(&scene.lease.id, SystemTime::UNIX_EPOCH, "its end", |lease| lease.ended_at.is_some());
    assert_eq!(broken.lease.state(), LeaseState::Broken, "{:?}", broken.lease);
    let ended = SystemTime::try_from(broken.lease.ended_at.unwrap()).unwrap();
    assert!(ended >= end, "not before it was announced for");
    assert!(ended.duration_since(end).unwrap() < Duration::from_secs(2), "nor long after");
    let root = broken.lease.causes.last().unwrap();
    assert_eq!(
        (root.reason.as_str(), root.subject.as_str()),
        ("NOTICE", scene.host.id.as_str()),
        "{:#?}",
        broken.lease.causes
    );
    assert!(root.source.contains("drop file") && root.detail.contains("new kernel"), "{root:?}");

    // The host still stands; the replacement works already, on the other one.
    let next = farm.active(&broken.lease.replacement_id);
    assert_eq!(next.lease.replaces_id, scene.lease.id);
    let next_host = farm.resource(&farm.resource(&next.lease.resource_id).parent_id);
    assert_ne!(next_host.item, scene.host.item);
    println!(
        "TABLE | planned reboot | replacement ACTIVE {} ms after the end",
        next.at.duration_since(end).unwrap().as_millis()
    );
    // While the machine waits for its reboot, no lease is placed on it again.
    let again = farm.ask("hosts", "again", false);
    let again = farm.active(&again.id).lease;
    assert_eq!(again.resource_id, next_host.id);
    let late = farm.ask("hosts", "late", false);
    farm.throughout(Duration::from_secs(5), |farm| {
        assert_eq!(farm.get(&late.id).state(), LeaseState::Queued, "{:#?}", farm.server.resources());
    });

    // Now it reboots, and comes back without the file; the waiting lease is served there.
    let (item, revision) = (scene.host.item.clone(), scene.farm.revision());
    let sshd = scene.farm.host(&item);
    sshd.kill_hard();
    sshd.run();
    let farm = &scene.farm;
    let late = farm.active(&late.id).lease;
    let served = farm.resource(&late.resource_id);
    assert_eq!(served.item, item);
    assert_ne!(served.id, scene.host.id);
    assert_eq!(farm.get(&next.lease.id).state(), LeaseState::Active);
    let events = farm.events(revision);
    assert!(events.iter().all(|event| event.kind != "lease.broken"), "the reboot itself ends nothing: {events:#?}");
}

#[test]
fn an_announced_reboot_that_is_called_off_changes_nothing() {
    if skip("notices::an_announced_reboot_that_is_called_off_changes_nothing") {
        return;
    }
    let mut scene = Scene::new();
    let end = scene.announce(8);
    let removed = SystemTime::now();
    std::fs::remove_file(scene.drop_file()).unwrap();
    scene.called_off(removed, end);
}

#[test]
fn a_notice_called_off_while_the_broker_is_down_is_read_after_its_restart() {
    if skip("notices::a_notice_called_off_while_the_broker_is_down_is_read_after_its_restart") {
        return;
    }
    let mut scene = Scene::new();
    let end = scene.announce(15);
    scene.farm.server.kill();
    std::fs::remove_file(scene.drop_file()).unwrap();
    let begun = SystemTime::now();
    scene.farm.server.run();
    scene.called_off(begun, end);
}

#[test]
fn no_lease_is_granted_on_an_idle_host_that_is_to_go() {
    if skip("notices::no_lease_is_granted_on_an_idle_host_that_is_to_go") {
        return;
    }
    let settings = Settings { ssh: "notice_file = \"/mnt/notice\"", ..Settings::default() };
    let host = Sshd::start_in("mount -t tmpfs -o size=64k none /mnt || exit 1", "", None);
    let file = format!("/proc/{}/root/mnt/notice", host.processes()[0]);
    let farm = Farm::start(vec![host], settings);
    farm.server.wait_for_state("hosts", "READY", 1);
    std::fs::write(&file, "maintenance +3600 new kernel\n").unwrap();
    // Nothing is lost by its leaving at once. It is not made ready again either.
    farm.server.wait("the host to be held back", || {
        let hosts = farm.server.resources();
        hosts.iter().any(|host| host["trouble"].as_str().is_some_and(|why| why.contains("END_ANNOUNCED"))).then_some(())
    });
    let lease = farm.ask("hosts", "waits", false);
    farm.throughout(Duration::from_secs(3), |farm| {
        assert_eq!(farm.get(&lease.id).state(), LeaseState::Queued);
    });
    let explained = farm.server.cli(&["explain", &lease.id]);
    let explained = String::from_utf8_lossy(&explained.stdout).to_string();
    assert!(explained.contains("new kernel"), "{explained}");
    std::fs::remove_file(&file).unwrap();
    farm.active(&lease.id);
}
