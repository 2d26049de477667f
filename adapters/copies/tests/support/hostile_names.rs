//! Names that run a program or confuse one, and hosts with the shells that read them.

use super::{TestShell, World, sh};
use async_trait::async_trait;
use bytes::Bytes;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wharfinger_adapter::{Command, Exit, OutputSink, Shell, ShellError};

/// A directory whose path git takes within the name of a branch: no part of it begins with a dot.
pub(crate) fn canary() -> (tempfile::TempDir, String) {
    let dir = tempfile::Builder::new().prefix("names").tempdir().unwrap();
    let flag = dir.path().join("ran").to_str().unwrap().to_string();
    (dir, flag)
}

/// A host whose `/bin/sh` is another shell, with its commands before those of the machine.
pub(crate) struct Chosen {
    inner: TestShell,
    sh: PathBuf,
}

#[async_trait]
impl Shell for Chosen {
    async fn stream(&self, mut command: Command, output: OutputSink) -> Result<Exit, ShellError> {
        assert_eq!(command.argv[0], "/bin/sh", "each script is run by the host's shell");
        command.argv[0] = self.sh.to_str().unwrap().to_string();
        self.inner.stream(command, output).await
    }

    async fn put(&self, path: &str, content: Bytes, mode: u32) -> Result<(), ShellError> {
        self.inner.put(path, content, mode).await
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Bytes, ShellError> {
        self.inner.get(path, limit).await
    }
}

/// The commands that Busybox has, but for those whose options it does not know: `flock -w`, `find -newerct`.
const APPLETS: &str = "awk basename cat chmod cmp cp cut date df dirname env expr grep head id kill ln ls mkdir mkfifo mktemp mv \
    nice od paste printf readlink rm rmdir sed sha256sum sleep sort stat tail test timeout touch tr true uniq wc xargs";

/// A directory for the host's PATH: `sh`, and `pwn`, which leaves the canary wherever it is run.
pub(crate) fn host_with(shell: &str, dir: &Path) -> Arc<Chosen> {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let (shell, applets) = shell.split_once(' ').unwrap_or((shell, ""));
    let program = sh(dir, &format!("command -v {shell}"));
    std::os::unix::fs::symlink(&program, bin.join("sh")).unwrap();
    if !applets.is_empty() {
        for applet in APPLETS.split_whitespace() {
            std::os::unix::fs::symlink(&program, bin.join(applet)).unwrap();
        }
    }
    std::fs::write(bin.join("pwn"), format!("#!/usr/bin/dash\n: >'{}'\n", dir.join("ran").display())).unwrap();
    std::fs::set_permissions(bin.join("pwn"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    Arc::new(Chosen { inner: TestShell { env: vec![("PATH".into(), path)], prefix: Vec::new() }, sh: bin.join("sh") })
}

/// Splitmix64: the same names for the same seed. With `true` no name has a line end: Busybox's text tools end a line at each NUL,
/// so there a path with a line end fails the proof.
pub(crate) struct Rng(pub(crate) u64, pub(crate) bool);

impl Rng {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// One that would run `pwn` somewhere, between others that only confuse.
    pub(crate) fn name(&mut self) -> String {
        let mut name = String::new();
        for _ in 0..self.below(3) {
            name.push_str(CONFUSE[self.below(CONFUSE.len())]);
        }
        name.push_str(ATTACKS[self.below(ATTACKS.len())]);
        for _ in 0..self.below(3) {
            name.push_str(CONFUSE[self.below(CONFUSE.len())]);
        }
        if self.1 { name.replace('\n', "") } else { name }
    }
}

const ATTACKS: &[&str] = &[
    "|pwn|e;#",
    "|pwn|e",
    "/pwn/e",
    "/;e${IFS}pwn;#",
    "\n1e pwn\n",
    "$(pwn)",
    "`pwn`",
    ";pwn;",
    "&pwn&",
    "|pwn|",
    "\npwn\n",
    "'$(pwn)'",
    "';pwn;'",
    "\";pwn;\"",
    "'\"`pwn`\"'",
    "$(pwn",
    "${x:-`pwn`}",
    "--upload-pack=pwn",
    "-exec=pwn",
    ":(exclude)pwn",
    ")pwn(",
    "\"){system(\"pwn\")}#",
    "\\';pwn;#",
];

const CONFUSE: &[&str] = &[
    "x", "-", "--", "e", "w", "'", "\"", "\\", "\\n", "\\t", "\\\\", "\n", "\t", "\r", " ", "*", "?", "[a]", "{a,b}",
    "%s", "%n", "%00", ":(top)", ":!", ":", "^{}", "@{", "~1", "$x", "${IFS}", "!", "#", "=", ",", "ü", "\u{202e}",
    "\u{1}", "\u{7f}", ".", "/", "0x10", "1e3", "&", "<", ">", " -> /",
];

/// Runs git with these arguments, whatever is in them.
pub(crate) fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let output = std::process::Command::new("git")
        .args(args)
        .current_dir(dir)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .envs([
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
        ])
        .output()
        .unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_string())
}

pub(crate) fn must(dir: &Path, args: &[&str]) -> String {
    git(dir, args).unwrap_or_else(|| panic!("git {args:?}"))
}

/// Leftovers of a build for the scripts that come after it.
pub(crate) fn spoil(rng: &mut Rng, world: &World, victim: &Path) {
    let tree = world.tree();
    for _ in 0..6 {
        let path = tree.join(rng.name().trim_start_matches('/'));
        let Some(up) = path.parent() else { continue };
        // Names that no file system takes, and those that lead elsewhere, are none.
        if path.starts_with(&tree) && !path.components().any(|part| part == std::path::Component::ParentDir) {
            let _ = std::fs::create_dir_all(up);
            let _ = std::fs::write(&path, "left by a build\n");
        }
    }
    // The second line of this name is the path of a file that is none of ours.
    let refs = format!("{}/.git/refs/remotes/origin/x\n{}", tree.display(), victim.display());
    std::fs::create_dir_all(Path::new(&refs).parent().unwrap()).unwrap();
    std::fs::write(&refs, "ref: refs/heads/main\n").unwrap();
    std::fs::create_dir_all(world.home().join("meta/sub").join("x\n..")).unwrap();
    std::fs::write(world.home().join("meta").join(rng.name().replace('/', "")), "x").unwrap();
}

/// Runs one life for each seed and shell. `NAMES_SEED=n cargo test --test names -- --nocapture` replays a seed; WHARFINGER_LONG=1 runs
/// 20 seeds, or else `short` alone.
pub(crate) async fn lives<F: Future<Output = ()> + Send + 'static>(short: u64, live: impl Fn(u64, &'static str) -> F) {
    let seeds: Vec<u64> = match std::env::var("NAMES_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) if std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") => (1..=20).collect(),
        Err(_) => vec![short],
    };
    for seed in seeds {
        for pair in [["dash", "bash"], ["busybox", "busybox applets"]] {
            for life in pair.map(|shell| tokio::spawn(live(seed, shell))) {
                if let Err(failed) = life.await {
                    std::panic::resume_unwind(failed.into_panic());
                }
            }
        }
    }
}
