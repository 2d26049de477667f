//! A PostgreSQL of one's own: Debian's programs, as a user who is not root, with its data in a temporary folder, on a Unix
//! socket and a port of 127.0.0.1, with TLS. It is ended when the test's process is, however that ends.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it, and one that can not go on stops"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use wharfinger_testkit::{Need, lane, need};

/// The password of the user `wharfinger`; the user `postgres` has none, on the socket only.
pub(crate) const PASSWORD: &str = "p@ss/wörd:1";
/// The same as it stands in a URL.
pub(crate) const PASSWORD_IN_URL: &str = "p%40ss%2Fw%C3%B6rd%3A1";

const PATIENCE: Duration = Duration::from_secs(60);

/// A server with its data.
pub(crate) struct Cluster {
    folder: PathBuf,
    port: u16,
    bin: PathBuf,
    server: Option<Child>,
    /// Ends the server and removes the folder when our end of its input is closed.
    keeper: Option<Child>,
}

/// The one that tests share, each with a schema of its own. `None` if the test is to be skipped.
pub(crate) fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED
        .get_or_init(|| match std::env::var("NEXTEST_RUN_ID") {
            Ok(run) => Cluster::of_run(&run),
            Err(_) => Cluster::start(),
        })
        .as_ref()
}

/// A name that no other test has, of this process or of another.
pub(crate) fn schema() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static BEGUN: OnceLock<String> = OnceLock::new();
    // An id may be used again: with the tick in which the process began it is this one's.
    let begun = BEGUN.get_or_init(|| {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, behind) = stat.rsplit_once(')').unwrap();
        behind.split_whitespace().nth(19).unwrap().to_string()
    });
    format!("s{}_{begun}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The folder with Debian's programs, the newest version of them.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/initdb").exists().then(|| (version, path.join("bin")))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// A program as the user who owns the data: PostgreSQL refuses to run as root.
pub(crate) fn as_owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
    command
}

/// The end of a server, and the removal of its data.
enum EndsWith<'a> {
    /// This process, or the end of the value.
    Us,
    /// The runner of all tests, which also has this note removed.
    Runner(&'a Path),
}

/// For the data, and who removes it.
fn kept_folder(ends_with: &EndsWith<'_>) -> (PathBuf, Child) {
    let folder = tempfile::Builder::new().prefix("wharfinger-pg.").tempdir().unwrap().keep();
    if is_root() {
        run(Command::new("chown").arg("postgres:").arg(&folder));
    }
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(&folder);
    if let EndsWith::Runner(note) = ends_with {
        keeper.arg(std::os::unix::process::parent_id().to_string()).arg(note);
    }
    // Its input ends with us. The runner that ends a test ends the test's process group, which it is not in.
    let keeper =
        keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    (folder, keeper)
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
}

/// A port that no other program gets by chance while the server is down: below those that the kernel gives to connections, one of
/// which would otherwise connect to itself there.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // By lane, so that test processes that run at once keep apart.
    let first = lane() * 10;
    loop {
        let next = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 2000;
        let port = u16::try_from(10_000 + next).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Cluster {
    /// Makes one and starts it. `None` if the test is to be skipped.
    pub(crate) fn start() -> Option<Cluster> {
        Some(Cluster::make(need(Need::Postgresql, programs())?, &EndsWith::Us))
    }

    /// The one of this run of the runner, which has a process for each test. The first test that needs it starts it.
    fn of_run(run: &str) -> Option<Cluster> {
        let bin = need(Need::Postgresql, programs())?;
        let note = std::env::temp_dir().join(format!("wharfinger-pg.{run}"));
        let mut file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&note).unwrap();
        file.lock().unwrap();
        let mut told = String::new();
        file.read_to_string(&mut told).unwrap();
        if let Some((port, folder)) = told.split_once(' ') {
            let (port, folder) = (port.parse().unwrap(), PathBuf::from(folder));
            return Some(Cluster { folder, port, bin, server: None, keeper: None });
        }
        let cluster = Cluster::make(bin, &EndsWith::Runner(&note));
        write!(file, "{} {}", cluster.port, cluster.folder.display()).unwrap();
        Some(cluster)
    }

    fn make(bin: PathBuf, ends_with: &EndsWith<'_>) -> Cluster {
        let (folder, keeper) = kept_folder(ends_with);
        let data = folder.join("data");
        run(as_owner(&bin.join("initdb"))
            .args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth-local=trust"])
            .args(["--auth-host=scram-sha-256", "-D"])
            .arg(&data));
        certificates(&folder);
        let port = free_port();
        let mut cluster = Cluster { folder, port, bin, server: None, keeper: Some(keeper) };
        cluster.run();
        cluster.sql("postgres", &format!("CREATE ROLE wharfinger LOGIN PASSWORD '{PASSWORD}'"));
        cluster.sql("postgres", "CREATE DATABASE wharf OWNER wharfinger");
        cluster
    }

    /// Another one that follows this one: what is acknowledged from now on is on both.
    pub(crate) fn replica(&self) -> Cluster {
        let (folder, keeper) = kept_folder(&EndsWith::Us);
        run(as_owner(&self.bin.join("pg_basebackup"))
            .args(["-R", "-X", "stream", "-c", "fast", "-U", "postgres", "-p", &self.port.to_string(), "-h"])
            .arg(&self.folder)
            .arg("-D")
            .arg(folder.join("data")));
        certificates(&folder);
        let mut replica =
            Cluster { folder, port: free_port(), bin: self.bin.clone(), server: None, keeper: Some(keeper) };
        replica.run();
        self.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.sql("postgres", "SELECT pg_reload_conf()");
        let start = Instant::now();
        while self.sql("postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != "1" {
            assert!(start.elapsed() < PATIENCE, "the replica does not follow:\n{}", replica.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        replica
    }

    /// A replica becomes the one that is written to.
    pub(crate) fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote()"), "t");
    }

    /// Starts it, or starts it again on the same data, and waits until it takes connections.
    pub(crate) fn run(&mut self) {
        let start = Instant::now();
        loop {
            self.spawn();
            loop {
                if self.ready() {
                    return;
                }
                assert!(start.elapsed() < PATIENCE, "PostgreSQL does not start:\n{}", self.log());
                // Right after a kill the memory of the one before may be in use still: it ends by itself, and is tried again.
                if self.server.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                    std::thread::sleep(Duration::from_millis(100));
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let socket = self.folder.display().to_string();
        let child = as_owner(&self.bin.join("postgres"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-p", &self.port.to_string(), "-k", &socket])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=on", "-c", "max_connections=100"])
            .args(["-c", "ssl=on", "-c", "shared_buffers=64MB", "-c", "timezone=UTC"])
            .args(["-c", &format!("ssl_cert_file={socket}/server.crt")])
            .args(["-c", &format!("ssl_key_file={socket}/server.key")])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(child);
    }

    fn ready(&self) -> bool {
        let asked = self.psql("postgres", "SELECT 1").output();
        asked.is_ok_and(|output| output.status.success())
    }

    /// SIGKILL, to all of it at once: nothing is flushed, nothing is answered.
    pub(crate) fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // Stopped first, so that it starts no further ones meanwhile.
        signal("STOP", &[server.id()]);
        let mut all = children(server.id());
        all.push(server.id());
        signal("KILL", &all);
        let _ = server.wait();
    }

    /// SIGINT: open transactions are undone, and clients get an error.
    pub(crate) fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        signal("INT", &[server.id()]);
        let _ = server.wait();
    }

    /// Every process of it.
    pub(crate) fn signal(&self, name: &str) {
        let Some(server) = &self.server else { return };
        let mut all = vec![server.id()];
        all.extend(children(server.id()));
        signal(name, &all);
    }

    fn psql(&self, database: &str, text: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"])
            .arg(&self.folder)
            .args(["-p", &self.port.to_string(), "-d", database, "-c", text])
            .env("PGCONNECT_TIMEOUT", "5")
            .stdin(Stdio::null());
        command
    }

    /// As the administrator; what it answers.
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        let output = self.psql(database, text).output().unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    }

    /// By TCP, with password and TLS that is not checked.
    pub(crate) fn url(&self) -> String {
        format!("postgres://wharfinger:{PASSWORD_IN_URL}@127.0.0.1:{}/wharf?sslmode=require", self.port)
    }

    /// By the socket, as the administrator.
    pub(crate) fn socket_url(&self) -> String {
        format!("postgres://postgres@localhost:{}/wharf?host={}", self.port, self.folder.display())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// With the certificates: `ca.crt`, of the authority that signed the server's; `other.crt`, of another one.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// Waits for the end of its input, or of the process $2. Ends the server by the id in its own file, removes its data and
/// the note $3.
const KEEPER: &str = r#"
trap '' INT TERM HUP
if [ -n "$2" ]; then tail --pid="$2" -f /dev/null; else cat > /dev/null; fi
# The number may be another process's by now.
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && grep -qF "$1/data" "/proc/$pid/cmdline" 2>/dev/null && {
  kill -QUIT "$pid" && for n in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" || break; sleep 0.2; done
  kill -KILL "$pid"
}
rm -rf "$1"
[ -z "$3" ] || rm -f "$3"
"#;

fn signal(name: &str, ids: &[u32]) {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    // One may have ended already.
    let _ = Command::new("kill").arg(format!("-{name}")).args(&ids).stderr(Stdio::null()).status();
}

/// The processes that this one has started and that have not ended.
fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |id: &u32| {
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
        // Behind the name, which may hold anything: state, parent.
        let behind = stat.rsplit_once(')').map(|(_, rest)| rest.to_string()).unwrap_or_default();
        behind.split_whitespace().nth(1).and_then(|text| text.parse::<u32>().ok()) == Some(parent)
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

/// A CA, the server's certificate for 127.0.0.1 from it, and a CA that has nothing to do with it.
fn certificates(folder: &Path) {
    let at = |name: &str| folder.join(name).display().to_string();
    let ca = |name: &str, subject: &str| {
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args([
                "-days",
                "2",
                "-subj",
                subject,
                "-keyout",
                &at(&format!("{name}.key")),
                "-out",
                &at(&format!("{name}.crt")),
            ]));
    };
    ca("ca", "/CN=test CA");
    ca("other", "/CN=other CA");
    run(Command::new("openssl").args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]).args(
        [
            "-subj",
            "/CN=database",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            &at("server.key"),
            "-out",
            &at("server.csr"),
        ],
    ));
    run(Command::new("openssl")
        .args(["x509", "-req", "-days", "2", "-copy_extensions", "copy", "-CAcreateserial"])
        .args(["-in", &at("server.csr"), "-CA", &at("ca.crt"), "-CAkey", &at("ca.key"), "-out", &at("server.crt")]));
    fs::set_permissions(at("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
    if is_root() {
        run(Command::new("chown").arg("postgres:").args([at("server.key"), at("server.crt")]));
    }
}
