//! A real terminal: tmux holds it, types the keys, and reads the screen back.

use crate::support::text;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Maximum time for a screen to show a text.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tmux server of its own, which ends with this.
pub(crate) struct Tmux {
    folder: tempfile::TempDir,
}

impl Tmux {
    /// Starts a command in a terminal of 140 by 40.
    pub(crate) fn start(command: &[String]) -> Self {
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

    pub(crate) fn screen(&self) -> String {
        String::from_utf8_lossy(&self.call(&["capture-pane", "-p"]).stdout).into_owned()
    }

    pub(crate) fn keys(&self, keys: &[&str]) {
        let sent = self.call(&[&["send-keys"], keys].concat());
        assert!(sent.status.success(), "{}", text(&sent));
    }

    /// Waits until the screen fits. Returns it.
    pub(crate) fn until(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
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
    pub(crate) fn status(&self) -> String {
        let start = Instant::now();
        loop {
            let asked = ["display-message", "-p", "#{pane_dead} #{pane_dead_status} #{pane_dead_signal}"];
            let told = String::from_utf8_lossy(&self.call(&asked).stdout).trim().to_owned();
            if let Some(status) = told.strip_prefix("1 ") {
                return status.to_owned();
            }
            assert!(start.elapsed() < PATIENCE, "the command has not ended ({told:?}):\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn reads(&self, wanted: &str) -> String {
        self.until(wanted, |screen| screen.contains(wanted))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.call(&["kill-server"]);
    }
}

/// tmux, if it is installed.
pub(crate) fn tmux() -> Option<()> {
    Command::new("tmux").arg("-V").output().is_ok().then_some(())
}
