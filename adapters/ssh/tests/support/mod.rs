//! A real sshd for tests: its own address in 127.77.0.0/16, its own host key, configuration and folder.
//!
//! Needs nothing but std, tempfile and the testkit, so that other test binaries can take it in by `#[path]`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its part of it, in a module of its own"
)]

pub mod nft;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use wharfinger_testkit::{Need, lane, need};

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One sshd and the key that it lets in. Dropped, it is killed with all its sessions.
pub struct Sshd {
    dir: tempfile::TempDir,
    child: Option<Child>,
    options: String,
    /// Shell commands before it starts, in its mount namespace.
    prelude: String,
    /// The id of an account that only this sshd knows, or root.
    account: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// The keys that may log in.
    pub user: String,
}

/// Whether the test is to be skipped for want of an sshd.
pub fn skip(_test: &str) -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout == b"0\n");
    need(Need::Sshd, (root && Path::new("/usr/sbin/sshd").exists()).then_some(())).is_none()
}

impl Sshd {
    /// Starts one with all defaults.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts one with these lines in front of its configuration (the first value of a keyword counts).
    pub fn start_with(options: &str) -> Self {
        Self::start_in("", options, None)
    }

    /// The same, and shell commands that run before it, in the mount namespace that is its own: a file system or a boot id
    /// that only this host sees, or `exec nsenter … /usr/sbin/sshd "$@"`, which puts it elsewhere, at this address.
    pub fn start_in(prelude: &str, options: &str, address: Option<Ipv4Addr>) -> Self {
        Self::start_for(prelude, options, address, false)
    }

    /// Starts one that lets in an ordinary user, `build`, whom only this sshd knows: no other process of the machine has its
    /// id. When the value is dropped, the user's processes are killed.
    pub fn start_for_user(prelude: &str) -> Self {
        Self::start_for(prelude, "", None, true)
    }

    fn start_for(prelude: &str, options: &str, address: Option<Ipv4Addr>, ordinary: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // By lane, so that test processes that run at once keep apart.
        let [.., low] = lane().to_be_bytes();
        let own = Ipv4Addr::new(127, 77, low + 1, u8::try_from(count % 250).unwrap() + 1);
        let dir = tempfile::Builder::new().prefix("wharfinger-sshd-").tempdir().unwrap();
        let port = TcpListener::bind((own, 0)).unwrap().local_addr().unwrap().port();
        std::fs::create_dir_all("/run/sshd").unwrap();
        let mut sshd = Self {
            dir,
            child: None,
            options: options.to_string(),
            prelude: prelude.to_string(),
            account: if ordinary { 1_000_000_000 + std::process::id() * 250 + count % 250 } else { 0 },
            address: address.unwrap_or(own),
            port,
            user: if ordinary { "build" } else { "root" }.to_string(),
        };
        make_key(&sshd.path("host_key"), "ed25519");
        make_key(&sshd.path("client_key"), "ed25519");
        make_key(&sshd.path("stranger_key"), "ed25519");
        std::fs::copy(sshd.path("client_key.pub"), sshd.path("authorized_keys")).unwrap();
        if ordinary {
            sshd.add_account();
        }
        sshd.run();
        sshd
    }

    /// Writes the account database that this sshd sees, and the account's home.
    fn add_account(&mut self) {
        let (id, home) = (self.account, self.path("home"));
        for (name, line) in [
            ("passwd", format!("build:*:{id}:{id}::{}:/bin/sh\n", home.display())),
            ("group", format!("build:*:{id}:\n")),
        ] {
            let text = std::fs::read_to_string(format!("/etc/{name}")).unwrap();
            std::fs::write(self.path(name), format!("{}\n{line}", text.trim_end())).unwrap();
            self.prelude = format!("mount --bind {} /etc/{name}\n{}", self.path(name).display(), self.prelude);
        }
        std::fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(id), Some(id)).unwrap();
        // The user reads its authorized keys here. The private keys are root's.
        std::fs::set_permissions(self.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The home of the ordinary user.
    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// The processes of the ordinary user.
    fn user_processes(&self) -> Vec<u32> {
        let own = format!("\nUid:\t{}\t", self.account);
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains(&own)))
            .collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder that is there as long as this value.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The private key that it lets in.
    pub fn key(&self) -> PathBuf {
        self.path("client_key")
    }

    /// A private key that it does not know.
    pub fn strange_key(&self) -> PathBuf {
        self.path("stranger_key")
    }

    /// Its host key now, as it would be pinned: type and base64.
    pub fn host_key(&self) -> String {
        public_key(&self.path("host_key.pub"))
    }

    /// A public key that is not its own.
    pub fn other_host_key(&self) -> String {
        public_key(&self.path("stranger_key.pub"))
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Refuses all logins, or takes the usual key again. Open connections stay.
    pub fn revoke(&self, revoked: bool) {
        if revoked {
            std::fs::write(self.path("authorized_keys"), "").unwrap();
        } else {
            std::fs::copy(self.path("client_key.pub"), self.path("authorized_keys")).unwrap();
        }
    }

    /// Starts it, or starts it again at the same address.
    pub fn run(&mut self) {
        // Of this keyword the last value counts, against sshd_config(5).
        let max_startups = if self.options.contains("MaxStartups") { "" } else { "MaxStartups 100" };
        let config = format!(
            "{}\nListenAddress {}:{}\nHostKey {}\nPidFile {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n{max_startups}\n\
             LogLevel VERBOSE\nUseDNS no\n",
            self.options,
            self.address,
            self.port,
            self.path("host_key").display(),
            self.path("pid").display(),
            self.path("authorized_keys").display()
        );
        std::fs::write(self.path("config"), config).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        // In a mount namespace of its own, where root's .bashrc is empty: the work of the start-up files of the user who runs the
        // tests (half a second for pyenv, say) is no part of them.
        let hermetic = format!(
            "[ ! -e /root/.bashrc ] || mount --bind /dev/null /root/.bashrc\n{}\nexec /usr/sbin/sshd \"$@\"",
            self.prelude
        );
        let child = Command::new("unshare")
            .args(["-m", "/bin/sh", "-c", &hermetic, "sshd", "-D", "-e", "-f"])
            .arg(self.path("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while TcpStream::connect((self.address, self.port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "sshd does not come up: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The sshd itself and the sshd processes of its sessions, not what runs in them.
    pub fn processes(&self) -> Vec<u32> {
        let Some(child) = &self.child else { return Vec::new() };
        let mut found = vec![child.id()];
        let mut next = 0;
        while next < found.len() {
            let parent = found[next];
            found.extend(children(parent).into_iter().filter(|pid| is_sshd(*pid)));
            next += 1;
        }
        found
    }

    fn signal(&self, name: &str, processes: &[u32]) {
        let processes = processes.iter().map(u32::to_string);
        let _ = Command::new("kill").arg("-s").arg(name).args(processes).stderr(Stdio::null()).status();
    }

    /// Kills it and its sessions: every connection to it is reset.
    pub fn kill_hard(&mut self) {
        // Stopped first, so that it makes no new session while we look.
        if let Some(child) = &self.child {
            self.signal("STOP", &[child.id()]);
        }
        let killed = self.processes();
        self.signal("KILL", &killed);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        // The one that listens may be below the child. Its socket takes connections until it has ended.
        let begun = Instant::now();
        while killed.iter().any(|pid| is_sshd(*pid) && !is_zombie(*pid)) {
            assert!(begun.elapsed() < PATIENCE, "sshd does not end: {killed:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the sshd that listens, and leaves its sessions alive.
    pub fn kill_listener(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The host hangs: nothing answers, nothing is closed.
    pub fn stop(&self) {
        self.signal("STOP", &self.processes());
    }

    /// All its sessions hang; it goes on to take new connections.
    pub fn stop_sessions(&self) {
        self.signal("STOP", &self.processes()[1..]);
    }

    /// It goes on.
    pub fn go_on(&self) {
        self.signal("CONT", &self.processes());
    }

    /// Another machine at the same address: new host key, same users.
    pub fn restart_with_new_host_key(&mut self) {
        self.kill_hard();
        make_key(&self.path("host_key"), "ed25519");
        self.run();
    }

    /// The same, with a host key of this type (`ecdsa`, `rsa`).
    pub fn restart_with_host_key_of(&mut self, kind: &str) {
        self.kill_hard();
        make_key(&self.path("host_key"), kind);
        self.run();
    }

    /// The same machine, with other commands before it starts.
    pub fn restart_in(&mut self, prelude: &str) {
        self.kill_hard();
        self.prelude = prelude.to_string();
        self.run();
    }

    /// The same machine with other lines in front of its configuration.
    pub fn restart_with(&mut self, options: &str) {
        self.kill_hard();
        self.options = options.to_string();
        self.run();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill_hard();
        if self.account != 0 {
            self.signal("KILL", &self.user_processes());
        }
    }
}

/// Makes a key pair, in place of one that may be there.
pub fn make_key(path: &Path, kind: &str) {
    let _ = std::fs::remove_file(path);
    let status = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(status.success(), "ssh-keygen failed");
}

fn public_key(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process has ended, and its files are closed.
fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z') || rest.starts_with('X'))
}

fn is_sshd(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("sshd"))
}
