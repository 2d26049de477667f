//! A server of one's own, a repository to build, and ways to wait.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything should take on a busy two-core machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `wharfinger serve`.
pub(crate) struct Server {
    pub(crate) folder: TempDir,
    pub(crate) address: String,
    /// The database, relative to the folder.
    pub(crate) store: &'static str,
    /// Variables of its environment beside those of the test.
    pub(crate) env: Vec<(&'static str, String)>,
    /// The lines of [store], if they are others.
    pub(crate) engine: Option<String>,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- the server's log ----\n{}", self.log());
        }
    }
}

/// A port of 127.0.0.1 that no program has, and that none gets by chance while its server is killed and started again: it
/// lies below those that the kernel gives to connections (from 32768 on).
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // By lane, so that test processes that run at once keep apart.
    let first = wharfinger_testkit::lane() * 100;
    loop {
        let next = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = u16::try_from(12_000 + next).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    /// Starts a server with these pools (TOML); `{folder}` in it is the server's own folder.
    pub(crate) fn start(pools: &str) -> Self {
        Self::start_with("", pools)
    }

    /// The same with more lines in front of the pools.
    pub(crate) fn start_with(head: &str, pools: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut server = Self {
            address: format!("http://127.0.0.1:{port}"),
            folder,
            store: "w.db",
            env: Vec::new(),
            engine: None,
            child: None,
            log: Arc::default(),
        };
        server.configure(head, pools);
        server.run();
        server
    }

    /// One that was not started, for tests that set up more first.
    pub(crate) fn prepared(store: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("http://127.0.0.1:{}", free_port());
        Self { address, folder, store, env: Vec::new(), engine: None, child: None, log: Arc::default() }
    }

    /// Writes the configuration anew; takes effect with [`Server::reload`] or the next start.
    pub(crate) fn configure(&self, head: &str, pools: &str) {
        let port = self.address.rsplit(':').next().unwrap();
        let store = self.engine.clone().unwrap_or_else(|| format!("path = \"{}\"", self.store));
        let pools = pools.replace("{folder}", &self.folder.path().display().to_string());
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nstop_grace = \"2s\"\n[store]\n{store}\n{head}\n{pools}\n"
        );
        // In one step: a reload that is under way reads the one or the other.
        let new = self.config().with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.config()).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("wharfinger.toml")
    }

    /// Starts it, or starts it again on the same database, and waits until it answers.
    pub(crate) fn run(&mut self) {
        self.spawn();
        let start = Instant::now();
        while !self.cli(&["pools"]).status.success() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the server ended with {ended:?}:\n{}", self.log());
            assert!(start.elapsed() < PATIENCE, "the server does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wharfinger"))
            .args(["serve", "--config"])
            .arg(self.config())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.child = Some(child);
    }

    /// Whether it runs.
    pub(crate) fn is_up(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait_for_end(&mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL: no time for anything.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        signal(child.id(), "TERM");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the server does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGHUP.
    pub(crate) fn reload(&self) {
        signal(self.child.as_ref().unwrap().id(), "HUP");
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A command of the CLI against this server.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfinger"));
        command.args(args).env("WHARFINGER_SERVER", &self.address).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Makes certificates in the folder of the server.
    pub(crate) fn pki(&self, args: &[&str]) -> Output {
        let output = self.command(&[&["pki"], args].concat()).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        output
    }

    /// Runs it and reads its JSON.
    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(args);
        let output = self.cli(&all);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {}", text(&output)))
    }

    /// All resources, also those that are gone.
    pub(crate) fn resources(&self) -> Vec<serde_json::Value> {
        let all = self.json(&["resources", "--all"]);
        all["resources"].as_array().unwrap_or_else(|| panic!("no list of resources: {all}")).clone()
    }

    /// Waits until `condition` gives something.
    pub(crate) fn wait<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = condition() {
                return found;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "waited in vain: {what}\nresources: {:#?}\n{}",
                self.resources(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until this holds. Unlike [`Server::wait`] it asks nothing of a server that knows its callers.
    pub(crate) fn wait_by(&self, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "waited in vain:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until this number of resources of a pool is in a state.
    pub(crate) fn wait_for_state(&self, pool: &str, state: &str, count: usize) -> Vec<serde_json::Value> {
        self.wait(&format!("{count} {state} in {pool}"), || {
            let fitting: Vec<_> =
                self.resources().into_iter().filter(|r| r["pool"] == pool && r["state"] == state).collect();
            (fitting.len() >= count).then_some(fitting)
        })
    }
}

/// The fault that was just made lasts this long. It is the length of the fault, not a wait for its consequences.
pub(crate) fn outage_of(span: Duration) {
    std::thread::sleep(span);
}

/// For what measures short times, and for what keeps both processors busy: one of them at a time.
pub(crate) fn quiet() -> std::sync::MutexGuard<'static, ()> {
    static QUIET: Mutex<()> = Mutex::new(());
    QUIET.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// The output of a command.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "exit {:?}\nstdout: {}\nstderr: {}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A repository with a branch `main`, a branch `feature` and a tag `v1`.
pub(crate) fn repository(at: &Path) {
    std::fs::create_dir_all(at).unwrap();
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"])
            .args(args)
            .current_dir(at)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", text(&output));
    };
    git(&["init", "-q"]);
    std::fs::write(at.join("hello.txt"), "hello\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "first"]);
    git(&["tag", "v1"]);
    git(&["checkout", "-qb", "feature"]);
    std::fs::write(at.join("hello.txt"), "hello feature\n").unwrap();
    git(&["commit", "-qam", "feature"]);
    git(&["checkout", "-q", "main"]);
}

/// This machine as a host, and copies of a repository in the server's folder on it.
pub(crate) const LOCAL: &str = r#"
[[pool]]
name = "hosts"
adapter = "local"
slots = 4
min_ready = 1
[pool.local]
root = "{folder}/hosts"

[[pool]]
name = "copies"
adapter = "copies"
on = "hosts"
max = 2
[pool.copies]
repository = "{folder}/origin"
"#;

/// A server with [`LOCAL`] and its repository.
pub(crate) fn local() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server {
        address: format!("http://127.0.0.1:{}", free_port()),
        folder,
        store: "w.db",
        env: Vec::new(),
        engine: None,
        child: None,
        log: Arc::default(),
    };
    repository(&server.folder.path().join("origin"));
    server.configure("", LOCAL);
    server.run();
    server
}
