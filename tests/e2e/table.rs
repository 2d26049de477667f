//! The course of events when a host fails: a row of the table in docs/operations.md each, on real sshd and git.
//!
//! Two hosts with one slot each, one working copy at most, default settings unless a row says otherwise. A holder has the
//! copy and asked for a replacement; another waits for one. The host under the copy is hurt, and the times of the events are
//! read from the audit trail and from a watch, and printed: `cargo test --test e2e table:: -- --nocapture | grep TABLE`.

use crate::farm::{Farm, NAMES, Settings, send};
use crate::faults::{self, Loss};
use crate::sshd::{Sshd, skip};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};
use wharfinger::pb;
use wharfinger::pb::{LeaseState, Outcome, ResourceState};
use wharfinger_testkit::{Need, need};

/// The holders and their leases when the fault comes.
struct Scene {
    farm: Farm,
    lease: pb::Lease,
    waiter: pb::Lease,
    copy: pb::Resource,
    host: pb::Resource,
}

impl Scene {
    fn new(hosts: Vec<Sshd>, settings: Settings) -> Self {
        Self::on(Farm::start(hosts, settings))
    }

    fn on(farm: Farm) -> Self {
        let ready = |count| {
            farm.server.wait_for_state("hosts", "READY", count);
        };
        ready(farm.hosts.len());
        let lease = farm.ask("copies", "holder", true);
        let lease = farm.active(&lease.id).lease;
        let waiter = farm.ask("copies", "waiter", false);
        assert_eq!(farm.get(&waiter.id).state(), LeaseState::Queued);
        let copy = farm.resource(&lease.resource_id);
        let host = farm.resource(&copy.parent_id);
        Self { farm, lease, waiter, copy, host }
    }

    /// Hurts the host under the copy, and notes when.
    fn hurt(&mut self, fault: impl FnOnce(&mut Farm, &str)) -> Fault {
        let revision = self.farm.revision();
        let at = SystemTime::now();
        let item = self.host.item.clone();
        fault(&mut self.farm, &item);
        Fault { at, revision }
    }

    fn sshd(&mut self) -> &mut Sshd {
        let item = self.host.item.clone();
        self.farm.host(&item)
    }

    /// From the fault to the first event of the host or of its copy.
    fn noticed(&self, fault: &Fault) -> Option<Duration> {
        let about = [&self.host.id, &self.copy.id];
        let event = self.farm.events(fault.revision).into_iter().find(|event| about.contains(&&event.resource_id))?;
        let at = SystemTime::try_from(event.at?).ok()?;
        // Events carry milliseconds, cut off.
        Some(at.duration_since(fault.at).unwrap_or_default())
    }

    fn told_of_doubt(&self, fault: &Fault) -> Option<Duration> {
        let told = self.farm.was_told(&self.lease.id, fault.at, |lease| lease.doubt.is_some())?;
        Some(since(fault, told.at))
    }

    /// The lease breaks for these reasons, nearest first; its replacement is served before the waiter, elsewhere if
    /// `elsewhere`; then the waiter is. Prints the row.
    fn breaks(&self, row: &str, fault: &Fault, reasons: &[&str], evidence: &str, elsewhere: bool) -> Duration {
        let farm = &self.farm;
        let end = farm.told(&self.lease.id, fault.at, "its end", |lease| lease.ended_at.is_some());
        let broken = since(fault, end.at);
        assert_eq!(end.lease.state(), LeaseState::Broken, "{:?}", end.lease);
        let causes: Vec<&str> = end.lease.causes.iter().map(|cause| cause.reason.as_str()).collect();
        assert_eq!(causes, reasons, "{:#?}", end.lease.causes);
        let details: Vec<&str> = end.lease.causes.iter().map(|cause| cause.detail.as_str()).collect();
        assert!(details.iter().any(|detail| detail.contains(evidence)), "no {evidence} in {details:#?}");
        let next = farm.active(&end.lease.replacement_id);
        assert_eq!(next.lease.replaces_id, self.lease.id);
        assert!(next.lease.fencing_token > self.lease.fencing_token);
        let served = since(fault, next.at);
        let copy = farm.resource(&next.lease.resource_id);
        let host = farm.resource(&copy.parent_id);
        assert_eq!(host.item != self.host.item, elsewhere, "the replacement is on {}", host.item);
        assert_eq!(farm.get(&self.waiter.id).state(), LeaseState::Queued, "the replacement has the older place");
        farm.until(&self.copy.id, ResourceState::Gone);
        farm.release(&next.lease.id, Outcome::Ok);
        farm.active(&self.waiter.id);
        let (noticed, told) = (self.noticed(fault), self.told_of_doubt(fault));
        println!(
            "TABLE | {row} | noticed {} | told of doubt {} | BROKEN {} | {} | copy GONE | replacement ACTIVE {} on {} | waiter kept its place, served next",
            text(noticed),
            text(told),
            text(Some(broken)),
            reasons.join(" < "),
            text(Some(served)),
            if elsewhere { "the other host" } else { "either host" },
        );
        broken
    }

    /// The lease outlives the fault: told of the doubt and of its end, never broken, and everything is handed on.
    fn survives(&self, row: &str, fault: &Fault, mended: SystemTime, remark: &str) {
        let farm = &self.farm;
        let doubt = farm.told(&self.lease.id, fault.at, "the doubt", |lease| lease.doubt.is_some());
        let later = mended.max(doubt.at);
        let cleared = farm.told(&self.lease.id, later, "that the doubt is over", |lease| lease.doubt.is_none());
        let lease = farm.get(&self.lease.id);
        assert_eq!(lease.state(), LeaseState::Active, "{lease:?}");
        assert_eq!(lease.fencing_token, self.lease.fencing_token);
        farm.until(&self.host.id, ResourceState::Ready);
        assert_eq!(farm.get(&self.waiter.id).state(), LeaseState::Queued);
        let (noticed, told) = (self.noticed(fault), self.told_of_doubt(fault));
        self.hand_on();
        println!(
            "TABLE | {row} | noticed {} | told of doubt {} | not broken{remark}; out of doubt {} after the mending | copy kept | no replacement | waiter served on the same copy",
            text(noticed),
            text(told),
            text(Some(cleared.at.duration_since(mended).unwrap_or_default())),
        );
    }

    /// The holder is done, and the waiter gets the same copy.
    fn hand_on(&self) {
        self.farm.release(&self.lease.id, Outcome::Ok);
        let next = self.farm.active(&self.waiter.id).lease;
        assert_eq!(next.resource_id, self.copy.id);
        let events = self.farm.events(0);
        assert!(events.iter().all(|event| event.kind != "lease.broken"), "{events:#?}");
    }
}

struct Fault {
    at: SystemTime,
    revision: u64,
}

fn since(fault: &Fault, at: SystemTime) -> Duration {
    at.duration_since(fault.at).unwrap_or_default()
}

fn text(span: Option<Duration>) -> String {
    match span {
        None => "no".into(),
        Some(span) if span < Duration::from_secs(1) => format!("{} ms", span.as_millis()),
        Some(span) => format!("{:.1} s", span.as_secs_f64()),
    }
}

fn two() -> Vec<Sshd> {
    vec![Sshd::start(), Sshd::start()]
}

/// DESIGN section 7: a host that is silent is given up in less than this, by default.
const SILENT: Duration = Duration::from_secs(15);

#[test]
fn a_silent_host_is_given_up_within_the_budget() {
    if faults::skip("table::a_silent_host_is_given_up_within_the_budget") {
        return;
    }
    let both = [std::thread::spawn(|| hung_row("hung", Settings::default())), std::thread::spawn(black_holed_row)];
    let spans = both.map(|row| row.join().unwrap());
    assert!(spans.iter().all(|span| *span < SILENT), "hung, black-holed: {spans:?}");
}

#[test]
fn killed() {
    if skip("table::killed") {
        return;
    }
    let mut scene = Scene::new(two(), Settings::default());
    let fault = scene.hurt(|farm, host| farm.host(host).kill_hard());
    let reasons = ["PARENT_GONE", "RESOURCE_UNREACHABLE", "CONNECTION_LOST"];
    let broken = scene.breaks("killed", &fault, &reasons, "cannot connect", true);
    assert!(broken < SILENT, "{broken:?}");
}

#[test]
fn hung() {
    if !skip("table::hung") {
        hung_row("hung", Settings::default());
    }
}

/// Settings of an operator who cannot wait that long.
#[test]
fn hung_with_shorter_times() {
    if skip("table::hung_with_shorter_times") {
        return;
    }
    let settings = Settings {
        hosts: "[pool.doubt]\nprobe_interval = \"3s\"",
        ssh: "connect_timeout_ms = 2000\nkeepalive_interval_ms = 2000",
        ..Settings::default()
    };
    let broken = hung_row("hung, shorter times", settings);
    assert!(broken < SILENT, "{broken:?}");
}

fn hung_row(row: &str, settings: Settings) -> Duration {
    let mut scene = Scene::new(two(), settings);
    let fault = scene.hurt(|farm, host| farm.host(host).stop());
    let broken = scene.breaks(row, &fault, &silent(&scene), "does not answer", true);
    scene.sshd().go_on();
    broken
}

#[test]
fn black_holed() {
    if !faults::skip("table::black_holed") {
        black_holed_row();
    }
}

fn black_holed_row() -> Duration {
    let mut scene = Scene::new(two(), Settings::default());
    let mut loss = None;
    let fault = scene.hurt(|farm, host| loss = Some(Loss::of_all(&[farm.host(host).address])));
    let broken = scene.breaks("black-holed", &fault, &silent(&scene), "does not answer", true);
    assert!(loss.is_some());
    broken
}

/// Reasons for which a silent host's lease breaks. Its doubt began with the probe or with the end of its connection, whichever
/// was first.
fn silent(scene: &Scene) -> [&'static str; 3] {
    let first = scene.farm.server.wait("the doubt", || {
        let host = scene.farm.resource(&scene.host.id);
        let reason = host.causes.last().map(|cause| cause.reason.clone());
        reason.filter(|_| host.state() != ResourceState::Ready)
    });
    let first = if first == "PROBE_MISSED" { "PROBE_MISSED" } else { "CONNECTION_LOST" };
    ["PARENT_GONE", "RESOURCE_UNREACHABLE", first]
}

/// Runs this test again in a network of its own, where it may take links down.
fn in_a_network_of_its_own(test: &str) -> bool {
    const INSIDE: &str = "WHARFINGER_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        return true;
    }
    let output = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines().filter(|line| line.contains("TABLE |")).for_each(|line| println!("{line}"));
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "it did not run: {said}");
    false
}

/// A network behind a cable: `NAME` on our side, `NAME-far` on the other. It lives as long as this value.
struct Cable {
    keeper: Child,
    name: &'static str,
}

impl Cable {
    fn new(name: &'static str, near: Ipv4Addr, far: Ipv4Addr) -> Self {
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        keeper.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let there = keeper.id();
        let script = format!(
            "set -e; ip link add {name} type veth peer name {name}-far netns {there}\n\
             ip addr add {near}/30 dev {name}; ip link set {name} up\n\
             nsenter --net=/proc/{there}/ns/net sh -ec 'ip link set lo up; ip addr add {far}/30 dev {name}-far; ip link set {name}-far up'"
        );
        let made = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert!(made.success());
        Self { keeper, name }
    }

    fn unplug(&self) {
        let down = Command::new("ip").args(["link", "set", self.name, "down"]).status().unwrap();
        assert!(down.success());
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[test]
fn unplugged() {
    if skip("table::unplugged") || !in_a_network_of_its_own("table::unplugged") {
        return;
    }
    let far = [Ipv4Addr::new(198, 18, 0, 2), Ipv4Addr::new(198, 18, 0, 6)];
    let near = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 5)];
    let cables = [Cable::new("wa", near[0], far[0]), Cable::new("wb", near[1], far[1])];
    let host = |at: usize| {
        let net = format!("exec nsenter --net=/proc/{}/ns/net /usr/sbin/sshd \"$@\"", cables[at].keeper.id());
        Sshd::start_in(&net, "", Some(far[at]))
    };
    let mut scene = Scene::new(vec![host(0), host(1)], Settings::default());
    let fault = scene.hurt(|_, host| cables[NAMES.iter().position(|name| *name == host).unwrap()].unplug());
    scene.breaks("unplugged", &fault, &silent(&scene), "no answer", true);
}

#[test]
fn rebooted() {
    if skip("table::rebooted") {
        return;
    }
    // In the namespace of this host alone: a small file system, and on it the file that covers the kernel's own.
    let boot = |id: &str| {
        format!(
            "mount -t tmpfs -o size=64k none /mnt && echo {id} >/mnt/boot_id && \
             mount --bind /mnt/boot_id /proc/sys/kernel/random/boot_id || exit 1"
        )
    };
    let host = |id: &str| Sshd::start_in(&boot(id), "", None);
    let first = ["aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000001"];
    let mut scene = Scene::new(vec![host(first[0]), host(first[1])], Settings::default());
    let second = "cccccccc-0000-4000-8000-000000000002";
    let fault = scene.hurt(|farm, host| farm.host(host).restart_in(&boot(second)));
    let reasons = ["PARENT_GONE", "RESOURCE_GONE", "CONNECTION_LOST"];
    scene.breaks("rebooted", &fault, &reasons, second, true);
    // It serves again, as what it is now.
    let item = scene.host.item.clone();
    scene.farm.server.wait("the rebooted host to serve", || {
        let found = scene.farm.server.resources().into_iter().find(|r| r["item"] == *item && r["state"] == "READY")?;
        (found["access"]["boot_id"] == second).then_some(())
    });
}

#[test]
fn replaced() {
    if skip("table::replaced") {
        return;
    }
    let mut scene = Scene::new(two(), Settings::default());
    let fault = scene.hurt(|farm, host| farm.host(host).restart_with_new_host_key());
    let reasons = ["PARENT_GONE", "RESOURCE_GONE", "CONNECTION_LOST"];
    scene.breaks("replaced", &fault, &reasons, "HOST_REPLACED", true);
    // The stranger is not trusted.
    let item = scene.host.item.clone();
    let hosts = scene.farm.server.resources();
    assert!(!hosts.iter().any(|r| r["item"] == *item && r["state"] == "READY"), "{hosts:#?}");
}

#[test]
fn out_of_disk() {
    if skip("table::out_of_disk") {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    // Each host has a small disk that only it sees.
    let disk = format!("mount -t tmpfs -o size=48m none {} || exit 1", work.path().display());
    let host = || Sshd::start_in(&disk, "", None);
    let settings = Settings { ssh: "min_free_disk_mb = 16", git: "min_free_disk_mb = 16", ..Settings::default() };
    let mut scene = Scene::on(Farm::start_in(vec![host(), host()], settings, work));
    let lease = scene.lease.id.clone();
    let fault = scene.hurt(|farm, host| {
        let root = format!("/proc/{}/root", farm.host(host).processes()[0]);
        let file = format!("{root}{}/junk", farm.work().display());
        let mut junk = std::fs::File::create(file).unwrap();
        while junk.write_all(&[0; 1 << 16]).is_ok() {}
        // The build fails, and its agent says so before it blames the build, as `wharfinger run` does.
        farm.report(&lease, "exit code 1");
    });
    scene.breaks("out of disk", &fault, &["RESOURCE_MANGLED", "HOLDER_REPORTED"], "DISK_FULL", true);
    // The host itself is taken out when it is checked, and made ready again when there is room.
    let (host, item) = (scene.host.id.clone(), scene.host.item.clone());
    if scene.farm.resource(&host).state() == ResourceState::Ready {
        scene.farm.check(&host);
    }
    let gone = scene.farm.until(&host, ResourceState::Gone);
    assert!(gone.causes.iter().any(|cause| cause.detail.contains("min_free_disk_mb")), "{gone:?}");
    let root = format!("/proc/{}/root", scene.sshd().processes()[0]);
    std::fs::remove_file(format!("{root}{}/junk", scene.farm.work().display())).unwrap();
    scene.farm.server.wait("the host to serve again", || {
        let hosts = scene.farm.server.resources();
        hosts.iter().any(|r| r["item"] == *item && r["state"] == "READY").then_some(())
    });
}

#[test]
fn clock_gone_wild() {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    if skip("table::clock_gone_wild") {
        return;
    }
    if need(Need::Faketime, std::path::Path::new(LIBRARY).exists().then_some(())).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    // All that runs on the host lives by this clock. Not sshd itself: its sandbox kills it for a system call of the library.
    let variables = format!(
        "LD_PRELOAD={LIBRARY} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1",
        clock.display()
    );
    let host = || Sshd::start_with(&format!("SetEnv {variables}"));
    let mut scene = Scene::new(vec![host(), host()], Settings::default());
    std::fs::write(&clock, "-20y x1000").unwrap();
    let sshd = scene.sshd();
    let date = Command::new("ssh")
        .args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .args(["-p", &sshd.port.to_string(), "-l", &sshd.user, "-i"])
        .arg(sshd.key())
        .args([&sshd.address.to_string(), "date", "+%Y"])
        .output()
        .unwrap();
    let year: u32 = String::from_utf8_lossy(&date.stdout).trim().parse().unwrap();
    assert!(year < 2020, "the host's clock is wild: {year}");
    // Asked anew over a new connection, it is in doubt for a moment and no longer.
    let fault = scene.hurt(|farm, host| farm.cut(host));
    scene.survives("clock gone wild, and connection cut", &fault, fault.at, "");
    // Later, and by the copy's own words: as before.
    std::fs::write(&clock, "+30y x1000").unwrap();
    let last = scene.farm.get(&scene.waiter.id);
    scene.farm.check(&last.resource_id);
    scene.farm.until(&last.resource_id, ResourceState::Ready);
    assert_eq!(scene.farm.get(&last.id).state(), LeaseState::Active);
}

#[test]
fn credentials_revoked() {
    if skip("table::credentials_revoked") {
        return;
    }
    let mut scene = Scene::new(two(), Settings::default());
    let fault = scene.hurt(|farm, host| {
        farm.host(host).revoke(true);
        farm.cut(host);
    });
    scene.farm.server.wait("the check to be refused", || {
        scene.farm.resource(&scene.host.id).trouble.contains("AUTH_FAILED").then_some(())
    });
    not_given_up(&scene);
    scene.sshd().revoke(false);
    scene.survives("credentials revoked, and connection cut", &fault, SystemTime::now(), " (AUTH_FAILED, for 6 s)");
}

/// For twice the time in which a host that is dead is given up, this one is not.
fn not_given_up(scene: &Scene) {
    scene.farm.throughout(Duration::from_secs(6), |farm| {
        assert_eq!(farm.get(&scene.lease.id).state(), LeaseState::Active);
        assert_eq!(farm.resource(&scene.host.id).state(), ResourceState::Suspect);
    });
}

#[test]
fn sshd_at_max_startups() {
    if skip("table::sshd_at_max_startups") {
        return;
    }
    let host = || Sshd::start_with("MaxStartups 1:100:1");
    let mut scene = Scene::new(vec![host(), host()], Settings::default());
    let mut held = None;
    let fault = scene.hurt(|farm, host| {
        let sessions = farm.sessions(host);
        let sshd = farm.host(host);
        let mut connection = TcpStream::connect((sshd.address, sshd.port)).unwrap();
        let mut banner = [0; 4];
        connection.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"SSH-");
        held = Some(connection);
        sessions.into_iter().for_each(|session| send(session, Signal::KILL));
    });
    scene.farm.server.wait("the check to find it busy", || {
        scene.farm.resource(&scene.host.id).trouble.contains("SSHD_BUSY").then_some(())
    });
    not_given_up(&scene);
    drop(held.take());
    scene.survives("sshd at MaxStartups, and connection cut", &fault, SystemTime::now(), " (SSHD_BUSY, for 6 s)");
}

#[test]
fn sshd_restarted() {
    if skip("table::sshd_restarted") {
        return;
    }
    let mut scene = Scene::new(two(), Settings::default());
    let fault = scene.hurt(|farm, host| {
        let sshd = farm.host(host);
        sshd.kill_hard();
        sshd.run();
    });
    scene.survives("sshd restarted", &fault, fault.at, "");
}

/// DESIGN section 7 wants 100 ms at the 99th percentile; that is a figure for docs/operations.md, since others use this
/// machine. Asserted is what no load explains.
#[test]
fn a_reset_reaches_the_holder_at_once() {
    const TIMES: usize = 20;
    if skip("table::a_reset_reaches_the_holder_at_once") {
        return;
    }
    let _alone = crate::support::quiet();
    let mut farm = Farm::start(vec![Sshd::start()], Settings::default());
    let lease = farm.ask("copies", "holder", false);
    farm.active(&lease.id);
    let mut spans = Vec::new();
    for _ in 0..TIMES {
        let host = farm.sessions("a");
        let begun = SystemTime::now();
        host.into_iter().for_each(|session| send(session, Signal::KILL));
        let told = farm.told(&lease.id, begun, "the doubt", |lease| lease.doubt.is_some());
        spans.push(told.at.duration_since(begun).unwrap());
        farm.told(&lease.id, told.at, "that the doubt is over", |lease| lease.doubt.is_none());
    }
    assert_eq!(farm.get(&lease.id).state(), LeaseState::Active);
    spans.sort_unstable();
    let (median, most) = (spans[TIMES / 2], spans[TIMES - 1]);
    println!("TABLE | connection reset -> holder told | {TIMES} times | median {median:.1?} | p99 {most:.1?}");
    assert!(most < Duration::from_secs(1), "{spans:?}");
}
