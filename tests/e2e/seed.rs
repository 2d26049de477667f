//! The scenarios of the discussion that this project answers (Drydock's "resources are mangled outside of Drydock's
//! control"), one test each, on real sshd and git.

use crate::farm::{Farm, Settings};
use crate::sshd::{Sshd, skip};
use crate::support::text;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use wharfinger::pb;
use wharfinger::pb::{LeaseState, Outcome, ResourceState};

/// One host with one slot, and one working copy on it.
fn one() -> Farm {
    Farm::start(vec![Sshd::start()], Settings::default())
}

fn path(lease: &pb::Lease) -> PathBuf {
    PathBuf::from(&lease.access_pairs()["path"])
}

/// Git is content with the copy, and its tree is as it was committed.
fn sound(copy: &Path) {
    let output = Command::new("git").args(["status", "--porcelain"]).current_dir(copy).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(copy.join("hello.txt")).unwrap(), "hello\n");
}

fn waits(farm: &Farm, lease: &pb::Lease, code: &str) {
    assert_eq!(farm.get(&lease.id).state(), LeaseState::Queued);
    let codes = farm.blockers(&lease.id);
    assert!(codes.iter().any(|said| said == code), "{codes:?}");
}

/// It was served at the first try.
fn at_once(lease: &pb::Lease) {
    assert_eq!((lease.attempts, lease.trouble.as_str()), (0, ""), "{lease:?}");
}

#[test]
fn a_spot_host_is_terminated_under_a_working_copy() {
    if skip("seed::a_spot_host_is_terminated_under_a_working_copy") {
        return;
    }
    let mut farm = Farm::start(vec![Sshd::start(), Sshd::start()], Settings::default());
    let lease = farm.active(&farm.ask("copies", "holder", false).id).lease;
    let copy = farm.resource(&lease.resource_id);
    let host = farm.resource(&copy.parent_id);
    let begun = SystemTime::now();
    farm.host(&host.item).kill_hard();
    // One that asks while the host is in doubt is not sent to the dead copy: it waits.
    farm.told(&lease.id, begun, "the doubt", |lease| lease.doubt.is_some());
    let early = farm.ask("copies", "early", false);
    assert_eq!(early.state(), LeaseState::Queued);
    let end = farm.told(&lease.id, begun, "its end", |lease| lease.ended_at.is_some()).lease;
    assert_eq!(end.state(), LeaseState::Broken);
    let subjects: Vec<&str> = end.causes.iter().map(|cause| cause.subject.as_str()).collect();
    assert_eq!(subjects, [&copy.id, &host.id, &host.id], "from the copy to the root: {:#?}", end.causes);
    assert_eq!(end.causes[0].reason, "PARENT_GONE");
    // The copy did not stay open, and no later lease failed on it.
    farm.until(&copy.id, ResourceState::Gone);
    let mut next = early;
    for n in 0..3 {
        let lease = farm.active(&next.id).lease;
        at_once(&lease);
        assert_ne!(lease.resource_id, copy.id);
        sound(&path(&lease));
        farm.release(&lease.id, Outcome::Ok);
        next = farm.ask("copies", &format!("later {n}"), false);
    }
    // One commit: no reader saw the host gone and its leases alive.
    let events = farm.events(0);
    let at = |kind: &str, id: &str| {
        let found = events.iter().find(|e| e.kind == kind && (e.resource_id == id || e.lease_id == id));
        found.unwrap_or_else(|| panic!("no {kind} of {id}: {events:#?}")).at
    };
    assert_eq!(at("resource.destroying", &host.id), at("lease.broken", &lease.id));
    assert_eq!(at("resource.gone", &copy.id), at("lease.broken", &lease.id));
}

#[test]
fn a_build_that_passes_removes_dot_git() {
    if skip("seed::a_build_that_passes_removes_dot_git") {
        return;
    }
    let farm = one();
    let key = farm.hosts[0].key().display().to_string();
    let run = |command: &str| {
        let args = ["run", "--identity", &key, "--pool", "copies", "--retries", "0", "--", "sh", "-c", command];
        let output = farm.server.cli(&args);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).to_string()
    };
    let first = run("rm -rf .git; echo $WHARFINGER_RESOURCE");
    for _ in 0..3 {
        let told = run("git status --porcelain && cat hello.txt && echo $WHARFINGER_RESOURCE");
        assert_eq!(told, format!("hello\n{first}"), "the same copy, mended");
    }
    let leases = farm.server.json(&["ls", "--all"]);
    let attempts: Vec<u64> =
        leases["leases"].as_array().unwrap().iter().filter_map(|l| l["attempts"].as_u64()).collect();
    assert!(attempts.len() >= 4 && attempts.iter().all(|n| *n == 0), "no later lease met the dud: {attempts:?}");
}

/// A holder fails on the only resource of a pool; two ask while its check is under way, which is held up. `mangle` is
/// what the holder did to it. Returns the two leases, with the first active.
fn exclusive(farm: &Farm, pool: &str, mangle: impl FnOnce(&pb::Lease)) -> [pb::Lease; 3] {
    let failed = farm.active(&farm.ask(pool, "fails", false).id).lease;
    mangle(&failed);
    farm.hosts[0].stop();
    farm.release(&failed.id, Outcome::Failed);
    let first = farm.ask(pool, "first", false);
    let second = farm.ask(pool, "second", false);
    waits(farm, &first, "IN_DOUBT");
    waits(farm, &second, "IN_DOUBT");
    farm.hosts[0].go_on();
    let first = farm.active(&first.id).lease;
    at_once(&first);
    assert_eq!(farm.get(&second.id).state(), LeaseState::Queued, "each in its place");
    [failed, first, second]
}

fn then_the_second(farm: &Farm, first: &pb::Lease, second: &pb::Lease) {
    farm.release(&first.id, Outcome::Ok);
    let second = farm.active(&second.id).lease;
    at_once(&second);
    assert!(second.fencing_token > first.fencing_token);
    assert_eq!(second.resource_id, first.resource_id);
}

#[test]
fn the_exclusive_resource_is_cleared_and_its_waiters_keep_their_places() {
    if skip("seed::the_exclusive_resource_is_cleared_and_its_waiters_keep_their_places") {
        return;
    }
    let farm = one();
    farm.server.wait_for_state("hosts", "READY", 1);
    let [failed, first, second] = exclusive(&farm, "hosts", |_| {});
    assert_eq!(first.resource_id, failed.resource_id);
    then_the_second(&farm, &first, &second);
}

#[test]
fn the_exclusive_resource_is_mangled_and_its_waiters_get_it_repaired() {
    if skip("seed::the_exclusive_resource_is_mangled_and_its_waiters_get_it_repaired") {
        return;
    }
    let farm = one();
    let mangle = |lease: &pb::Lease| std::fs::remove_dir_all(path(lease).join(".git")).unwrap();
    let [failed, first, second] = exclusive(&farm, "copies", mangle);
    assert_eq!(first.resource_id, failed.resource_id, "repaired");
    sound(&path(&first));
    then_the_second(&farm, &first, &second);
}

#[test]
fn the_exclusive_resource_is_lost_and_its_waiters_get_another() {
    if skip("seed::the_exclusive_resource_is_lost_and_its_waiters_get_another") {
        return;
    }
    let farm = one();
    let mangle = |lease: &pb::Lease| std::fs::remove_dir_all(path(lease).parent().unwrap()).unwrap();
    let [failed, first, second] = exclusive(&farm, "copies", mangle);
    assert_ne!(first.resource_id, failed.resource_id, "made anew");
    sound(&path(&first));
    then_the_second(&farm, &first, &second);
}

#[test]
fn five_leases_and_one_pending_host() {
    if skip("seed::five_leases_and_one_pending_host") {
        return;
    }
    let settings = Settings { hosts: "slots = 5\nmin_ready = 0", ..Settings::default() };
    let farm = Farm::start(vec![Sshd::start(), Sshd::start()], settings);
    // Making a host takes as long as we like.
    farm.hosts.iter().for_each(Sshd::stop);
    let leases: Vec<pb::Lease> = (0..5).map(|n| farm.ask("hosts", &format!("build {n}"), false)).collect();
    let one_is_made = |state: &str| {
        let hosts = farm.server.resources();
        assert_eq!(hosts.len(), 1, "{hosts:#?}");
        assert_eq!(hosts[0]["state"], state);
    };
    one_is_made("PROVISIONING");
    leases.iter().for_each(|lease| waits(&farm, lease, "PROVISIONING"));
    farm.hosts.iter().for_each(Sshd::go_on);
    let leases: Vec<pb::Lease> = leases.iter().map(|lease| farm.active(&lease.id).lease).collect();
    leases.iter().for_each(at_once);
    assert!(leases.is_sorted_by_key(|lease| lease.fencing_token), "in the order in which they asked: {leases:#?}");
    one_is_made("READY");
}

#[test]
fn an_inventory_entry_is_disabled_under_a_long_lease() {
    if skip("seed::an_inventory_entry_is_disabled_under_a_long_lease") {
        return;
    }
    let settings = Settings { hosts: "slots = 2", ..Settings::default() };
    let farm = Farm::start(vec![Sshd::start()], settings);
    let long = farm.active(&farm.ask("hosts", "long", false).id).lease;
    farm.disable(&["a"]);
    farm.until(&long.resource_id, ResourceState::Draining);
    // There is a free slot, and no lease gets it; none fails either.
    let waiter = farm.ask("hosts", "waiter", false);
    waits(&farm, &waiter, "HELD");
    // The machine stays listed, with the reason of the configuration.
    let why = "disabled in the configuration: new disk on Monday";
    for list in ["pools", "resources"] {
        let told = text(&farm.server.cli(&[list]));
        assert!(told.contains(&format!("machine hosts/a: {why}")), "{told}");
    }
    let told = text(&farm.server.cli(&["explain", &waiter.id]));
    assert!(told.contains(&format!("hosts/a is {why}")), "{told}");
    let draining = farm.resource(&long.resource_id).causes;
    assert!(draining.iter().any(|cause| cause.detail.ends_with(": new disk on Monday")), "{draining:?}");
    // The live one works on.
    let renewed = farm.runtime.block_on(farm.client.renew(&long.id, None)).unwrap();
    assert_eq!(renewed.state(), LeaseState::Active);
    let key = farm.hosts[0].key();
    let access = long.access_pairs();
    let work = Command::new("ssh")
        .args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i"])
        .arg(&key)
        .args(["-p", &access["port"], "-l", &access["user"], &access["address"]])
        .arg(format!("test -d {}", access["path"]))
        .output()
        .unwrap();
    assert!(work.status.success(), "{}", text(&work));
    // Its end is the host's end, and when the entry is enabled again the waiter is served.
    farm.release(&long.id, Outcome::Ok);
    farm.until(&long.resource_id, ResourceState::Gone);
    assert_eq!(farm.get(&waiter.id).state(), LeaseState::Queued);
    farm.disable(&[]);
    let served = farm.active(&waiter.id).lease;
    at_once(&served);
    assert_ne!(served.resource_id, long.resource_id);
}

#[test]
fn a_resource_is_released_by_hand_and_runs_to_its_end() {
    if skip("seed::a_resource_is_released_by_hand_and_runs_to_its_end") {
        return;
    }
    let farm = one();
    let lease = farm.active(&farm.ask("copies", "holder", false).id).lease;
    let drained = farm.server.cli(&["drain", &lease.resource_id, "--reason", "by hand"]);
    assert!(drained.status.success(), "{}", text(&drained));
    let waiter = farm.ask("copies", "waiter", false);
    assert_eq!(farm.get(&lease.id).state(), LeaseState::Active, "the holder works on");
    assert_eq!(farm.get(&waiter.id).state(), LeaseState::Queued);
    farm.release(&lease.id, Outcome::Ok);
    let next = farm.active(&waiter.id).lease;
    at_once(&next);
    assert_ne!(next.resource_id, lease.resource_id);
    assert!(!path(&lease).exists(), "the drained copy is removed");
    sound(&path(&next));
}

#[test]
fn a_resource_is_recycled_by_hand_and_its_holder_sees_the_reason() {
    if skip("seed::a_resource_is_recycled_by_hand_and_its_holder_sees_the_reason") {
        return;
    }
    let farm = one();
    let lease = farm.active(&farm.ask("copies", "holder", true).id).lease;
    let waiter = farm.ask("copies", "waiter", false);
    // First what it would end, and nothing happens.
    let would = farm.server.cli(&["recycle", &lease.resource_id, "--dry-run"]);
    assert!(would.status.success(), "{}", text(&would));
    let told = text(&would);
    assert!(told.contains(&format!("would break 1 lease ({})", lease.id)) && told.contains("--if-revision "), "{told}");
    let since = farm.server.cli(&["recycle", &lease.resource_id, "--if-revision", "1", "--reason", "by hand"]);
    assert!(!since.status.success() && text(&since).contains("CHANGED_SINCE"), "{}", text(&since));
    assert_eq!(farm.get(&lease.id).state(), LeaseState::Active);
    let begun = SystemTime::now();
    let recycled = farm.server.cli(&["recycle", &lease.resource_id, "--reason", "by hand"]);
    assert!(recycled.status.success(), "{}", text(&recycled));
    let end = farm.told(&lease.id, begun, "its end", |lease| lease.ended_at.is_some()).lease;
    assert_eq!((end.state(), end.causes[0].reason.as_str()), (LeaseState::Broken, "OPERATOR"), "{end:?}");
    assert!(end.causes[0].detail.contains("by hand"), "{end:?}");
    // The successor first, since it has the older place; then the waiter.
    let successor = farm.active(&end.replacement_id).lease;
    sound(&path(&successor));
    assert_eq!(farm.get(&waiter.id).state(), LeaseState::Queued);
    farm.release(&successor.id, Outcome::Ok);
    at_once(&farm.active(&waiter.id).lease);
}

#[test]
fn a_leased_copy_is_deleted_by_hand() {
    if skip("seed::a_leased_copy_is_deleted_by_hand") {
        return;
    }
    let farm = one();
    let lease = farm.active(&farm.ask("copies", "holder", true).id).lease;
    std::fs::remove_dir_all(path(&lease).parent().unwrap()).unwrap();
    // The holder's agent finds that nothing works, and asks.
    let begun = SystemTime::now();
    farm.check(&lease.resource_id);
    let end = farm.told(&lease.id, begun, "its end", |lease| lease.ended_at.is_some()).lease;
    assert_eq!((end.state(), end.causes[0].reason.as_str()), (LeaseState::Broken, "RESOURCE_GONE"), "{end:?}");
    let successor = farm.active(&end.replacement_id).lease;
    assert_ne!(successor.resource_id, lease.resource_id);
    sound(&path(&successor));
}

#[test]
fn an_idle_copy_is_deleted_by_hand_and_the_next_lease_is_served_all_the_same() {
    if skip("seed::an_idle_copy_is_deleted_by_hand_and_the_next_lease_is_served_all_the_same") {
        return;
    }
    let farm = one();
    let lease = farm.active(&farm.ask("copies", "holder", false).id).lease;
    farm.release(&lease.id, Outcome::Ok);
    farm.server.wait("the copy to be clean", || farm.resource(&lease.resource_id).lease_ids.is_empty().then_some(()));
    std::fs::remove_dir_all(path(&lease).parent().unwrap()).unwrap();
    let next = farm.active(&farm.ask("copies", "next", false).id).lease;
    assert_eq!(next.attempts, 1, "it met the dud, went back to its place, and was served: {next:?}");
    assert_ne!(next.resource_id, lease.resource_id);
    sound(&path(&next));
    farm.until(&lease.resource_id, ResourceState::Gone);
}
