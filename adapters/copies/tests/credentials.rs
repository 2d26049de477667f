//! Credentials that the broker keeps: they open the remote to our git, and are nowhere on the host, neither during nor after.

#![allow(clippy::unwrap_used)] // a test's helpers

#[path = "../../ssh/tests/support/mod.rs"]
mod sshd;
#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{TestShell, World, sh};
use tokio::time::Instant;
use wharfinger_adapter::{Blame, access};
use wharfinger_copies::{CopiesAdapter, Credentials, LandRequest, LandedFrom, Landing, land};

const PASSWORD: &str = "pass-Word-7f3a91c2";

fn private(path: &Path, text: &str) -> String {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_string()
}

/// A program in front of the host's own, which may do something first; `$REAL` is the host's.
fn in_front(world: &mut World, programs: &[(&str, &str)]) {
    let bin = world.origin.dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (name, script) in programs {
        let real = sh(&world.origin.dir, &format!("command -v {name}"));
        std::fs::write(bin.join(name), format!("#!/bin/sh\nREAL={real}\n{script}\n")).unwrap();
        sh(&bin, &format!("chmod +x {name}"));
    }
    let env = vec![("PATH".into(), format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))];
    world.job = world.job_on(Arc::new(TestShell { env, prefix: Vec::new() }));
}

/// Where on this machine the text stands: environments and arguments of all processes, and files of these folders.
fn found(text: &str, folders: &[PathBuf]) -> Vec<String> {
    let has = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let mut places = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        for file in ["environ", "cmdline"] {
            let path = entry.path().join(file);
            if std::fs::read(&path).is_ok_and(|bytes| has(&bytes)) {
                places.push(path.display().to_string());
            }
        }
    }
    let mut left = folders.to_vec();
    while let Some(path) = left.pop() {
        if path.is_dir() && !path.is_symlink() {
            left.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if path.is_file() && std::fs::read(&path).is_ok_and(|bytes| has(&bytes)) {
            places.push(path.display().to_string());
        }
    }
    places
}

/// Looks for it again and again until dropped.
struct Watch {
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Watch {
    fn start(text: &str, folders: &[PathBuf]) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (text, folders, over) = (text.to_string(), folders.to_vec(), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let (mut looks, mut places) = (0, Vec::new());
            while !over.load(Ordering::SeqCst) {
                places.extend(found(&text, &folders));
                looks += 1;
            }
            (looks, places)
        });
        Self { done, thread: Some(thread) }
    }

    /// How often it looked, and where it found it.
    fn end(mut self) -> (usize, Vec<String>) {
        self.done.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Maximum wait for a process. It ends a test that would hang, and measures nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// Processes that carry the mark of this world's copy.
fn marked(world: &World) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = found(&format!("WHARFINGER_COPY={}", world.job.resource), &[]);
        // Their script ends them when it ends.
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_search_finds_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    let text = format!("canary-{}", std::process::id());
    std::fs::write(dir.path().join("deep/file"), format!("x{text}y")).unwrap();
    // They run until the pipe is closed.
    let mut child = Command::new("cat").env("CANARY", &text).stdin(Stdio::piped()).spawn().unwrap();
    let mut argument = Command::new("sh").args(["-c", "read -r _; :", &text]).stdin(Stdio::piped()).spawn().unwrap();
    let places = found(&text, &[dir.path().to_path_buf()]);
    for child in [&mut child, &mut argument] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for part in [&format!("/proc/{}/environ", child.id()), &format!("/proc/{}/cmdline", argument.id()), "deep/file"] {
        assert!(places.iter().any(|place| place.contains(part)), "{part}: {places:?}");
    }
}

fn site(world: &World, prepared: &wharfinger_adapter::Prepared) -> LandedFrom {
    LandedFrom {
        resource: world.job.resource.clone(),
        path: prepared.access[access::PATH].clone(),
        repository: prepared.access[access::REPOSITORY].clone(),
        fence: None,
        sparse: Vec::new(),
        ca_file: String::new(),
    }
}

const BUILD: &str =
    "git config user.name b; git config user.email b@example.org; date +%N >>new.txt; git add -A; git commit -qm new";

#[tokio::test]
async fn a_key_opens_an_ssh_remote_and_is_nowhere() {
    if sshd::skip("a_key_opens_an_ssh_remote_and_is_nowhere") {
        return;
    }
    let server = sshd::Sshd::start();
    let key = std::fs::read_to_string(server.key()).unwrap();
    // A line in the middle: what an agent or a script would show of it.
    let secret = key.lines().nth(2).unwrap().to_string();
    let address =
        |dir: &Path| format!("ssh://root@{}:{}{}", server.address, server.port, dir.join("origin.git").display());
    let make = |credentials: Option<Credentials>| {
        let mut world = World::bare(|config| {
            config.repository = address(Path::new(&config.repository).parent().unwrap());
            config.credentials = credentials;
        });
        let known = world.origin.dir.join("known");
        std::fs::write(&known, format!("[{}]:{} {}\n", server.address, server.port, server.host_key())).unwrap();
        in_front(&mut world, &[("ssh", &format!("exec $REAL -o UserKnownHostsFile='{}' \"$@\"", known.display()))]);
        world
    };

    let mut without = make(None);
    let refused = without.provision().await.unwrap_err();
    assert_eq!((refused.blame, refused.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{refused}");

    let dir = tempfile::tempdir().unwrap();
    let strange = Credentials::ssh_key(private(
        &dir.path().join("strange"),
        &std::fs::read_to_string(server.strange_key()).unwrap(),
    ));
    let refused = make(Some(strange)).provision().await.unwrap_err();
    assert_eq!((refused.blame, refused.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{refused}");
    let broken = private(&dir.path().join("broken"), &key.replace(&secret, &secret.to_uppercase()));
    let refused = make(Some(Credentials::ssh_key(broken))).provision().await.unwrap_err();
    assert_eq!((refused.blame, refused.reason), (Blame::Configuration, "CREDENTIALS_REFUSED"), "{refused}");
    assert!(!refused.message.contains(&secret.to_uppercase()[..20]), "{refused}");

    let credentials = Credentials::ssh_key(private(&dir.path().join("key"), &key));
    let mut world = make(Some(credentials.clone()));
    let folders = [world.root.parent().unwrap().to_path_buf()];
    let watch = Watch::start(&secret[..40], &folders);
    world.provision().await.unwrap();
    world.origin.work("echo three >a.txt; git commit -qam three; git push -q origin main");
    let prepared = world.prepare(&[("merge", "side")]).await.unwrap();
    assert_eq!(world.spoil("cat a.txt side.txt"), "three\nside");
    world.spoil(BUILD);
    // Landing has credentials of its own, or the host's.
    let shell = &world.job.parent.as_ref().unwrap().shell;
    let bare = land(shell.as_ref(), &site(&world, &prepared), &LandRequest::new("l", "main")).await.unwrap_err();
    assert_eq!(bare.failure("main").reason, "REMOTE_UNREACHABLE");
    let request = LandRequest { credentials: Some(credentials), ..LandRequest::new("l", "main") };
    let landed = land(shell.as_ref(), &site(&world, &prepared), &request).await.unwrap();
    assert!(matches!(landed, Landing::Landed(push) if push.commit == world.origin.id("main")));
    let (looks, places) = watch.end();
    assert!(looks >= 3, "it looked {looks} times");
    assert_eq!(places, Vec::<String>::new(), "after {looks} looks");
    assert_eq!(marked(&world), Vec::<String>::new(), "an agent is left");
}

/// A server over https, with a user who may push and one who may not. Dropped, it is killed.
struct Https {
    child: Child,
    dir: tempfile::TempDir,
    port: String,
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Https {
    fn start(root: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        sh(
            dir.path(),
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert -days 2 -subj /CN=localhost \
             -addext subjectAltName=IP:127.0.0.1 2>/dev/null",
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/https.py");
        let log = std::fs::File::create(dir.path().join("errors")).unwrap();
        // In a file: the search must not find the server itself.
        let users = private(&dir.path().join("users"), &format!("bot:{PASSWORD}:rw\nreader:{PASSWORD}:r\n"));
        let child = Command::new("python3")
            .arg(script)
            .arg(root)
            .args(["cert", "key", "port", "log"].map(|name| dir.path().join(name)))
            .arg(users)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { child, dir, port: String::new() };
        let end = Instant::now() + PATIENCE;
        while server.port.is_empty() {
            assert!(Instant::now() < end, "{}", std::fs::read_to_string(server.dir.path().join("errors")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
            server.port = std::fs::read_to_string(server.dir.path().join("port")).unwrap_or_default();
        }
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_password_opens_an_https_remote_and_is_nowhere() {
    let secrets = tempfile::tempdir().unwrap();
    let right = private(&secrets.path().join("right"), &format!("{PASSWORD}\n"));
    let wrong = private(&secrets.path().join("wrong"), "another-Word-11\n");
    let make = |credentials: Option<Credentials>| {
        let mut server = None;
        let mut world = World::bare(|config| {
            let root = Path::new(&config.repository).parent().unwrap();
            let started = Https::start(root);
            config.repository = format!("https://127.0.0.1:{}/origin.git", started.port);
            config.credentials = credentials;
            server = Some(started);
        });
        let server = server.unwrap();
        sh(&world.origin.dir.join("origin.git"), "git config http.receivepack true");
        let git = format!("export GIT_SSL_CAINFO='{}'; exec $REAL \"$@\"", server.dir.path().join("cert").display());
        in_front(&mut world, &[("git", &git)]);
        (world, server)
    };
    for credentials in [None, Some(Credentials::password("bot", &wrong))] {
        let (mut world, server) = make(credentials);
        let refused = world.provision().await.unwrap_err();
        assert_eq!((refused.blame, refused.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{refused}");
        assert!(server.log().contains("None /origin.git"), "the server was asked: {}", server.log());
        assert!(!refused.message.contains("another-Word"), "{refused}");
    }

    let (mut world, server) = make(Some(Credentials::password("bot", &right)));
    let folders = [world.root.parent().unwrap().to_path_buf()];
    let watch = Watch::start(PASSWORD, &folders);
    world.provision().await.unwrap();
    world.origin.work("echo three >a.txt; git commit -qam three; git push -q origin main");
    let prepared = world.prepare(&[("merge", "side")]).await.unwrap();
    world.spoil(BUILD);
    let shell = &world.job.parent.as_ref().unwrap().shell;
    let site = site(&world, &prepared);
    let reader = Some(Credentials::password("reader", &right));
    let denied = LandRequest { credentials: reader, ..LandRequest::new("l", "main") };
    let denied = land(shell.as_ref(), &site, &denied).await.unwrap_err().failure("main");
    assert_eq!((denied.blame, denied.reason), (Blame::Configuration, "PUSH_DENIED"), "{denied}");
    let bot = Some(Credentials::password("bot", &right));
    let landed = land(shell.as_ref(), &site, &LandRequest { credentials: bot, ..LandRequest::new("l", "main") }).await;
    assert!(matches!(landed, Ok(Landing::Landed(push)) if push.commit == world.origin.id("main")));
    let (looks, places) = watch.end();
    assert!(looks >= 3, "it looked {looks} times");
    assert_eq!(places, Vec::<String>::new(), "after {looks} looks");
    assert_eq!(marked(&world), Vec::<String>::new(), "somebody still feeds a helper");
    assert!(server.log().contains("bot rw /origin.git/git-receive-pack"), "{}", server.log());
}

#[tokio::test]
async fn a_private_authority_is_a_setting_of_the_pool() {
    let secrets = tempfile::tempdir().unwrap();
    let password = private(&secrets.path().join("right"), &format!("{PASSWORD}\n"));
    let mut server = None;
    let mut world = World::bare(|config| {
        let started = Https::start(Path::new(&config.repository).parent().unwrap());
        config.repository = format!("https://127.0.0.1:{}/origin.git", started.port);
        config.credentials = Some(Credentials::password("bot", &password));
        server = Some(started);
    });
    let server = server.unwrap();
    sh(&world.origin.dir.join("origin.git"), "git config http.receivepack true");
    let refused = world.provision().await.unwrap_err();
    assert_eq!((refused.blame, refused.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{refused}");
    assert!(refused.message.contains("ca_file"), "{refused}");

    let mut config = world.adapter.config().clone();
    config.ca_file = Some(server.dir.path().join("cert").to_str().unwrap().into());
    world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
    world.provision().await.unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    let id = sh(&world.origin.dir.join("origin.git"), "git rev-parse main");
    assert_eq!(prepared.access[access::COMMIT], id);
    world.spoil(BUILD);
    let from = LandedFrom { ca_file: prepared.access[wharfinger_copies::CA_FILE].clone(), ..site(&world, &prepared) };
    let bot = Some(Credentials::password("bot", &password));
    let request = LandRequest { credentials: bot, ..LandRequest::new("l", "main") };
    let landed = land(world.job.parent.as_ref().unwrap().shell.as_ref(), &from, &request).await;
    assert!(matches!(landed, Ok(Landing::Landed(_))), "{landed:?}");
}
