//! `wharfinger top` in a real terminal: tmux holds it, types the keys, and reads the screen back.

use crate::farm::{Farm, Settings};
use crate::sshd::{Sshd, skip};
use crate::support::text;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use wharfinger_testkit::{Need, need};

/// Maximum time for a screen to show a text.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tmux server of its own, which ends with this.
struct Tmux {
    folder: tempfile::TempDir,
}

impl Tmux {
    /// Starts a command in a terminal of 140 by 40.
    fn start(command: &[String]) -> Self {
        let tmux = Self { folder: tempfile::tempdir().unwrap() };
        let mut args = vec!["-f", "/dev/null", "new-session", "-d", "-x", "140", "-y", "40"];
        args.extend(command.iter().map(String::as_str));
        let started = tmux.call(&args);
        assert!(started.status.success(), "{}", text(&started));
        // The pane stays when its command ends, so that the last screen can be read.
        let kept = tmux.call(&["set-option", "-w", "remain-on-exit", "on"]);
        assert!(kept.status.success(), "{}", text(&kept));
        tmux
    }

    fn call(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.folder.path().join("tmux")).args(args).env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        command.output().unwrap()
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.call(&["capture-pane", "-p"]).stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        let sent = self.call(&[&["send-keys"], keys].concat());
        assert!(sent.status.success(), "{}", text(&sent));
    }

    /// Waits until the screen fits. Returns it.
    fn until(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if fits(&screen) {
                return screen;
            }
            assert!(start.elapsed() < PATIENCE, "the screen has no {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the end of the command. Returns its exit code.
    fn status(&self) -> String {
        let start = Instant::now();
        loop {
            let told = self.call(&["display-message", "-p", "#{pane_dead} #{pane_dead_status}"]).stdout;
            if let Some(status) = String::from_utf8_lossy(&told).trim().strip_prefix("1 ") {
                return status.to_owned();
            }
            assert!(start.elapsed() < PATIENCE, "the command has not ended:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn reads(&self, wanted: &str) -> String {
        self.until(wanted, |screen| screen.contains(wanted))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.call(&["kill-server"]);
    }
}

#[test]
fn a_terminal_shows_a_dead_host_its_life_and_what_became_of_its_lease() {
    if skip("top::a_terminal_shows_a_dead_host_its_life_and_what_became_of_its_lease") {
        return;
    }
    let Some(()) = need(Need::Tmux, Command::new("tmux").arg("-V").output().is_ok().then_some(())) else { return };
    let settings = Settings { copies: "max = 2", hosts: "[pool.doubt]\nover = \"6s\"", ..Settings::default() };
    let mut farm = Farm::start(vec![Sshd::start(), Sshd::start()], settings);
    farm.server.wait_for_state("hosts", "READY", 2);
    let lease = farm.ask("copies", "evil\u{202e}gnp.exe", true);
    let lease = farm.active(&lease.id).lease;
    let host = farm.resource(&farm.resource(&lease.resource_id).parent_id);
    let command = farm.server.command(&["top", "--every", "200ms"]);
    let mut line = vec!["env".to_owned()];
    let pair = |(key, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| {
        Some(format!("{}={}", key.to_str()?, value?.to_str()?))
    };
    line.extend(command.get_envs().filter_map(pair));
    line.push(command.get_program().to_str().unwrap().to_owned());
    line.extend(command.get_args().map(|arg| arg.to_str().unwrap().to_owned()));
    let tmux = Tmux::start(&line);
    let well = tmux.reads("Nothing needs you.");
    assert!(well.contains("copies") && well.contains("1 leased"), "{well}");
    tmux.keys(&["g", "l"]);
    let leases = tmux.reads("evil\\u{202e}gnp.exe");
    assert!(leases.contains("ACTIVE"), "{leases}");
    tmux.keys(&["g", "n"]);
    farm.host(&host.item.clone()).kill_hard();
    tmux.until("host in doubt or the broken lease", |screen| {
        screen.contains("SUSPECT") || screen.contains("Broken in the last hour: 1")
    });
    tmux.reads("Broken in the last hour: 1");
    // The life of the host that died, by its id.
    tmux.keys(&["/"]);
    tmux.keys(&["-l", &host.id]);
    tmux.keys(&["Enter"]);
    let life = tmux.reads("resource.suspect");
    assert!(life.lines().any(|line| line.starts_with("state") && line.contains('█') && line.contains('▲')), "{life}");
    // The lease that broke, by the row of its entry; and back.
    tmux.keys(&["/"]);
    tmux.keys(&["-l", &lease.id]);
    tmux.keys(&["Enter"]);
    let broken = tmux.reads("in its stead: lse_");
    assert!(broken.contains("BROKEN") && broken.contains("PARENT_GONE"), "{broken}");
    tmux.keys(&["Escape"]);
    tmux.reads("Resource ");
    // The screen reports a server that is away, and keeps the latest state.
    farm.server.kill();
    let away = tmux.reads("✕ as of ");
    assert!(away.contains("resource.suspect"), "{away}");
    farm.server.run();
    tmux.until("a new reading", |screen| !screen.contains("✕ as of "));
    tmux.keys(&["q"]);
    let status = tmux.status();
    assert_eq!(status, "0", "{}", tmux.screen());
    assert!(!tmux.screen().contains("Servers"), "the terminal is given back: {}", tmux.screen());
}

/// Without a terminal it says what to use.
#[test]
fn without_a_terminal_top_names_the_verbs_to_use() {
    let server = crate::support::Server::start("");
    let refused = server.cli(&["top"]);
    assert_eq!(refused.status.code(), Some(65), "{}", text(&refused));
    assert!(
        text(&refused).contains("needs a terminal") && text(&refused).contains("wharfinger pools"),
        "{}",
        text(&refused)
    );
}
