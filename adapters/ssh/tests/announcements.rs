//! Announcements of a host's owner on the host, read over a real sshd.

#![allow(clippy::disallowed_methods, reason = "tests compare with what they see on their own clock")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Sshd, skip};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use wharfinger_adapter::{
    Adapter, Blame, Command, Notice, NoticeKind, NoticeTarget, ProvisionJob, ResourceJob, Verdict, WallTime,
};
use wharfinger_ssh::{Config, SshAdapter};

/// From the change on the host to the notice.
const BUDGET: Duration = Duration::from_secs(3);

struct World {
    sshd: Sshd,
    adapter: SshAdapter,
    notices: mpsc::Receiver<Notice>,
    job: ResourceJob,
    config: Config,
}

impl World {
    async fn new(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let sshd = Sshd::start();
        let folder = sshd.folder();
        let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let mut config = Config {
            // In folders that are not there yet, as on a host without /run.
            notice_file: file("run/notice"),
            shutdown_file: file("run/systemd/scheduled"),
            ..pool::config(&sshd, vec![pool::host(&sshd, "alpha")])
        };
        change(&mut config, folder);
        let adapter = SshAdapter::new("farm".into(), config.clone()).unwrap();
        let (tx, notices) = mpsc::channel(64);
        adapter.subscribe(tx);
        let (job, _) = pool::made(&adapter, pool::job("res_1")).await;
        Self { sshd, adapter, notices, job, config }
    }

    fn write(&self, name: &str, text: &str) -> Instant {
        let path = self.sshd.folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        Instant::now()
    }

    /// The next notice, within the budget.
    async fn told(&mut self, what: &str, since: Instant) -> (NoticeKind, &'static str, String) {
        let notice = timeout(BUDGET, self.next()).await.unwrap_or_else(|_| panic!("{what}: no notice"));
        println!("{what}: told after {:?}", since.elapsed());
        assert_eq!((notice.pool.as_str(), &notice.target), ("farm", &NoticeTarget::Item("alpha".into())), "{what}");
        (notice.kind, notice.source, notice.detail)
    }

    /// The next notice, but for the first one of each source: that it announces nothing.
    async fn next(&mut self) -> Notice {
        loop {
            let notice = self.notices.recv().await.unwrap();
            if notice.detail != "nothing is announced" {
                return notice;
            }
            assert_eq!(notice.kind, NoticeKind::Cancelled);
        }
    }

    /// No notice comes for a while that is longer than the budget.
    async fn quiet(&mut self, what: &str) {
        if let Ok(notice) = timeout(BUDGET + Duration::from_millis(500), self.next()).await {
            panic!("{what}: {notice:?}");
        }
    }

    /// The loops that run on the host for us.
    fn loops(&self) -> Vec<u32> {
        let own = self.sshd.folder().join("run/notice").to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            if words.contains(&b"wharfinger-watch-host".as_slice()) && words.contains(&own.as_bytes()) {
                found.push(pid);
            }
        }
        found
    }
}

macro_rules! world_or_skip {
    ($change:expr) => {{
        if skip(std::thread::current().name().unwrap_or("?")) {
            return;
        }
        World::new($change).await
    }};
}

fn in_seconds(kind: &NoticeKind) -> i64 {
    let (NoticeKind::Maintenance(WallTime(at_unix_ms)) | NoticeKind::Interruption(WallTime(at_unix_ms))) = kind else {
        panic!("{kind:?} has no time")
    };
    (at_unix_ms - i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()) / 1000
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_drop_file_announces_and_its_removal_calls_off() {
    let mut world = world_or_skip!(|_, _| ());
    world.quiet("nothing is announced").await;
    let since = world.write("run/notice", "maintenance +600 new kernel\n");
    let (kind, source, detail) = world.told("maintenance", since).await;
    assert_eq!((source, detail.as_str()), ("drop file", "new kernel"));
    assert!((590..=600).contains(&in_seconds(&kind)), "{kind:?}");
    // Without a line break, by another time, by another word.
    let since = world.write("run/notice", &format!("interruption {} fire", now() + 120));
    let (kind, ..) = world.told("interruption", since).await;
    assert!(matches!(kind, NoticeKind::Interruption(_)) && (110..=120).contains(&in_seconds(&kind)), "{kind:?}");
    let since = world.write("run/notice", "at-risk spot market\n");
    assert_eq!(world.told("at risk", since).await.0, NoticeKind::AtRisk);
    world.write("run/notice", "reboot at noon\n");
    world.quiet("a line that no one can read is no announcement").await;
    let since = world.write("run/notice", "");
    assert_eq!(world.told("emptied", since).await.0, NoticeKind::Cancelled);
    let since = world.write("run/notice", "gone sold\n");
    assert_eq!(world.told("gone", since).await.0, NoticeKind::Gone);
    std::fs::remove_dir_all(world.sshd.folder().join("run")).unwrap();
    assert_eq!(world.told("removed", Instant::now()).await.0, NoticeKind::Cancelled);
    assert_eq!(world.adapter.probe(&world.job).await, Ok(Verdict::Healthy));
}

#[tokio::test]
async fn a_host_that_is_to_go_is_not_made_ready_until_that_is_over() {
    let mut world = world_or_skip!(|_, _| ());
    let since = world.write("run/notice", "maintenance +600 new kernel\n");
    world.told("announced", since).await;
    world.adapter.destroy(&world.job).await.unwrap();
    let again = ProvisionJob {
        resource: ResourceJob { resource: "res_2".into(), handle: None, ..world.job.clone() },
        attempt: 0,
    };
    for _ in 0..2 {
        let refused = world.adapter.provision(&again).await.unwrap_err();
        assert_eq!((refused.blame, refused.reason), (Blame::Provider, "END_ANNOUNCED"), "{refused:?}");
        assert!(refused.message.contains("new kernel") && refused.message.contains("drop file"), "{refused:?}");
    }
    // It goes, and comes back without the file: what was known of it is not held against it.
    world.sshd.kill_hard();
    std::fs::remove_file(world.sshd.folder().join("run/notice")).unwrap();
    world.sshd.run();
    world.adapter.provision(&again).await.unwrap();
    // The same for a broker that was not there when it was announced.
    world.adapter.destroy(&again.resource).await.unwrap();
    world.write("run/notice", "gone sold\n");
    let config = world.config.clone();
    let other = SshAdapter::new("farm".into(), config).unwrap();
    let refused = other.provision(&again).await.unwrap_err();
    assert_eq!(refused.reason, "END_ANNOUNCED", "{refused:?}");
}

#[tokio::test]
async fn a_shutdown_that_systemd_has_scheduled_is_maintenance() {
    let mut world = world_or_skip!(|_, _| ());
    let at = (now() + 300) * 1_000_000;
    let text = format!("USEC={at}\nWARN_WALL=1\nMODE=reboot\nWALL_MESSAGE=bye\n");
    let since = world.write("run/systemd/scheduled", &text);
    let (kind, source, detail) = world.told("shutdown -r +5", since).await;
    assert_eq!(source, "systemd");
    assert!(detail.contains("reboot"), "{detail}");
    assert!((290..=300).contains(&in_seconds(&kind)), "{kind:?}");
    // Two sources, one of which ends: the other still stands. A span counts from when it was written.
    let since = world.write("run/notice", "maintenance +60 mine\n");
    assert_eq!(world.told("both", since).await.1, "drop file");
    std::fs::remove_file(world.sshd.folder().join("run/notice")).unwrap();
    let (kind, source, _) = world.told("one ends", Instant::now()).await;
    assert_eq!((kind, source), (NoticeKind::Cancelled, "drop file"));
    std::fs::remove_file(world.sshd.folder().join("run/systemd/scheduled")).unwrap();
    assert_eq!(world.told("shutdown -c", Instant::now()).await.0, NoticeKind::Cancelled);
}

#[tokio::test]
async fn a_command_on_the_host_announces_and_its_failure_announces_nothing() {
    let mut world = world_or_skip!(|config, folder| {
        config.notice_command = Some(format!("cat '{}'", folder.join("says").display()));
        config.notice_interval_ms = 300;
    });
    world.quiet("the command fails").await;
    let since = world.write("says", "interruption +120 spot\nmore words\n");
    let (kind, source, detail) = world.told("command", since).await;
    assert_eq!((source, detail.as_str()), ("notice command", "spot"));
    assert!((115..=120).contains(&in_seconds(&kind)), "{kind:?}");
    std::fs::remove_file(world.sshd.folder().join("says")).unwrap();
    world.quiet("silence is no word").await;
    let since = world.write("says", "");
    assert_eq!(world.told("taken back", since).await.0, NoticeKind::Cancelled);
}

/// Waits until one loop is there. A child of it looks like a second one until it is another program.
async fn one_loop(world: &World) {
    let begun = Instant::now();
    while world.loops().len() != 1 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", world.loops());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_new_connection_says_nothing_twice_and_the_old_loop_is_dead() {
    let mut world = world_or_skip!(|_, _| ());
    let since = world.write("run/notice", "maintenance +600 once\n");
    world.told("once", since).await;
    one_loop(&world).await;
    world.sshd.kill_hard();
    assert_eq!(world.told("the connection broke", Instant::now()).await.0, NoticeKind::ConnectionLost);
    let begun = Instant::now();
    while !world.loops().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the loop outlives its connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.sshd.run();
    assert_eq!(world.adapter.probe(&world.job).await, Ok(Verdict::Healthy));
    world.quiet("it stands as before").await;
    one_loop(&world).await;
    // Taken back between two looks.
    world.sshd.kill_hard();
    assert_eq!(world.told("the connection broke", Instant::now()).await.0, NoticeKind::ConnectionLost);
    std::fs::remove_file(world.sshd.folder().join("run/notice")).unwrap();
    world.sshd.run();
    assert_eq!(world.adapter.probe(&world.job).await, Ok(Verdict::Healthy));
    assert_eq!(world.told("taken back meanwhile", Instant::now()).await.0, NoticeKind::Cancelled);
    // We end it, and it ends.
    world.adapter.destroy(&world.job).await.unwrap();
    let begun = Instant::now();
    while !world.loops().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the loop outlives its connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.quiet("a connection that we close is no news").await;
}

#[tokio::test]
async fn the_watch_takes_no_place_from_commands_and_probes() {
    if skip("the_watch_takes_no_place_from_commands_and_probes") {
        return;
    }
    // The defaults of both sides: ten sessions, of which seven are for commands.
    let mut world = World::new(|_, _| ()).await;
    let shell = world.adapter.shell(&world.job).await.unwrap();
    let folder = world.sshd.folder().to_path_buf();
    let runs: Vec<_> = (0..7)
        .map(|i| {
            let (shell, file) = (shell.clone(), folder.join(format!("up-{i}")));
            tokio::spawn(async move { shell.run(Command::sh(format!("touch {}; sleep 5", file.display()))).await })
        })
        .collect();
    let begun = Instant::now();
    while (0..7).any(|i| !folder.join(format!("up-{i}")).exists()) {
        assert!(begun.elapsed() < Duration::from_secs(20), "not all seven run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // More than a dozen, so that commands are among them.
    for _ in 0..14 {
        assert_eq!(world.adapter.probe(&world.job).await, Ok(Verdict::Healthy));
    }
    let since = world.write("run/notice", "at-risk\n");
    assert_eq!(world.told("beside seven commands", since).await.0, NoticeKind::AtRisk);
    for run in runs {
        assert!(run.await.unwrap().unwrap().exit.success());
    }
}

#[tokio::test]
async fn a_watch_that_is_off_is_off() {
    let mut world = world_or_skip!(|config, _| config.watch = false);
    world.write("run/notice", "gone\n");
    world.quiet("nobody looks").await;
    assert!(world.loops().is_empty());
}

#[tokio::test]
async fn a_span_counts_from_when_it_was_written() {
    let mut world = world_or_skip!(|_, _| ());
    world.write("run/notice.new", "maintenance +600 kernel, * and all\n");
    let file = world.sshd.folder().join("run/notice.new");
    let written = SystemTime::now() - Duration::from_secs(200);
    std::fs::File::options().append(true).open(&file).unwrap().set_modified(written).unwrap();
    std::fs::rename(&file, world.sshd.folder().join("run/notice")).unwrap();
    let (kind, _, detail) = world.told("an older file", Instant::now()).await;
    assert!((390..=401).contains(&in_seconds(&kind)), "{kind:?}");
    assert_eq!(detail, "kernel, * and all");
}
