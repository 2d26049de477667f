//! Names that others choose (branches, tags, paths) are data: none runs as a program, none matches another.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use async_trait::async_trait;
use bytes::Bytes;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Origin, TestShell, World, sh};
use tokio::sync::mpsc;
use wharfinger_adapter::{
    Adapter, Blame, Command, Exit, OutputSink, PrepareJob, Prepared, Shell, ShellError, Stream, access,
};
use wharfinger_copies::{Author, Clean, Config, CopiesAdapter, LandRequest, LandedFrom, Landing, land};

/// A directory whose path git takes within the name of a branch: no part of it begins with a dot.
fn canary() -> (tempfile::TempDir, String) {
    let dir = tempfile::Builder::new().prefix("names").tempdir().unwrap();
    let flag = dir.path().join("ran").to_str().unwrap().to_string();
    (dir, flag)
}

#[tokio::test]
async fn the_name_of_a_branch_runs_no_command() {
    let world = World::new(Clean::Clean).await;
    let (_dir, flag) = canary();
    let name = format!("x|touch${{IFS}}{flag}|e;#");
    world.origin.work(&format!("git push -q origin 'side:refs/heads/{name}'"));
    let prepared = world.prepare(&[("branch", &name)]).await.unwrap();
    world.assert_is(&prepared, "side", &[]);
    for (key, name) in [("branch", format!("main|touch${{IFS}}{flag}|e;#")), ("tag", "a|b".into())] {
        let failure = world.prepare(&[(key, &name)]).await.expect_err(&name);
        assert_eq!((failure.blame, failure.reason), (Blame::Request, "REF_NOT_FOUND"), "{name}");
    }
    assert!(!Path::new(&flag).exists(), "the name of a branch has run a command");
}

/// Counts what a command prints on its standard output: the most of all that were run.
#[derive(Default)]
struct Counting {
    inner: TestShell,
    most: AtomicUsize,
}

#[async_trait]
impl Shell for Counting {
    async fn stream(&self, command: Command, output: OutputSink) -> Result<Exit, ShellError> {
        let (tx, mut rx) = mpsc::channel(64);
        let pass = async {
            let mut printed = 0;
            while let Some((stream, bytes)) = rx.recv().await {
                let bytes: Bytes = bytes;
                if stream == Stream::Stdout {
                    printed += bytes.len();
                }
                let _ = output.send((stream, bytes)).await;
            }
            self.most.fetch_max(printed, Ordering::SeqCst);
        };
        tokio::join!(self.inner.stream(command, tx), pass).0
    }

    async fn put(&self, path: &str, content: Bytes, mode: u32) -> Result<(), ShellError> {
        self.inner.put(path, content, mode).await
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Bytes, ShellError> {
        self.inner.get(path, limit).await
    }
}

#[tokio::test]
async fn a_name_is_not_another_that_begins_with_it() {
    let world = World::new(Clean::Clean).await;
    let origin = world.origin.dir.join("origin.git");
    let (main, side) = (world.origin.id("main"), world.origin.id("side"));
    sh(
        &origin,
        &format!(
            r#"{{ echo "create refs/heads/ci {side}"
            seq -f "create refs/heads/ci-%05.0f {main}" 500
            seq -f "create refs/tags/ci-%05.0f {main}" 500
            echo "create refs/original/refs/heads/ci {main}"; echo "create refs/heads/refs/heads/ci {main}"
            }} | git update-ref --stdin && git pack-refs --all"#
        ),
    );
    let shell = Arc::new(Counting::default());
    for (key, name) in [("branch", "ci"), ("ref", "ci"), ("ref", "refs/heads/ci")] {
        let job = PrepareJob { resource: world.job_on(shell.clone()), work: world.work(&[(key, name)]), child: None };
        let prepared = world.adapter.prepare(&job).await.unwrap();
        assert_eq!(prepared.access[access::COMMIT], side, "{key} {name}");
    }
    // The broker keeps only the end of a long output, so 40,000 such branches would hide the wanted one.
    let most = shell.most.load(Ordering::SeqCst);
    assert!((100..5_000).contains(&most), "a script prints {most} bytes");
}

/// A host whose `/bin/sh` is another shell, with its commands before those of the machine.
struct Chosen {
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
fn host_with(shell: &str, dir: &Path) -> Arc<Chosen> {
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
struct Rng(u64, bool);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    /// One that would run `pwn` somewhere, between others that only confuse.
    fn name(&mut self) -> String {
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
fn git(dir: &Path, args: &[&str]) -> Option<String> {
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

fn must(dir: &Path, args: &[&str]) -> String {
    git(dir, args).unwrap_or_else(|| panic!("git {args:?}"))
}

/// Names of branches that git allows.
fn refs(rng: &mut Rng, dir: &Path, n: usize) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    while found.len() < n {
        let name = rng.name();
        // Not in one directory with another, nor its directory.
        let apart = |other: &String| !other.starts_with(&format!("{name}/")) && !name.starts_with(&format!("{other}/"));
        if git(dir, &["check-ref-format", "--branch", &name]).is_some()
            && !found.contains(&name)
            && found.iter().all(apart)
        {
            found.push(name);
        }
    }
    found
}

/// A commit on `parent` with files of hostile names, links among them, as far as git allows them.
fn commit(rng: &mut Rng, dir: &Path, parent: &str, message: &str) -> String {
    must(dir, &["read-tree", parent]);
    let blob = must(dir, &["rev-parse", "main:a.txt"]);
    for mode in ["100644", "100755", "120000", "100644", "100644", "100644"] {
        git(dir, &["update-index", "--add", "--cacheinfo", mode, &blob, &rng.name()]);
    }
    // The place of a submodule that no pool fills here.
    git(dir, &["update-index", "--add", "--cacheinfo", "160000", parent, &rng.name()]);
    let tree = must(dir, &["write-tree"]);
    must(dir, &["commit-tree", &tree, "-p", parent, "-m", message])
}

/// That the tree is this commit, mode for mode and byte for byte, without a name in any program's text.
fn assert_tree(world: &World, prepared: &Prepared, id: &str, what: &str) {
    assert_eq!(prepared.access[access::COMMIT], id, "{what}");
    let (origin, tree) = (world.origin.dir.join("origin.git"), world.tree());
    let export = tempfile::tempdir().unwrap();
    let (tar, wanted) = (export.path().join("tar"), export.path().join("tree"));
    std::fs::create_dir(&wanted).unwrap();
    must(&origin, &["-c", "tar.umask=022", "archive", "--output", tar.to_str().unwrap(), id]);
    let run = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).env("LC_ALL", "C").output().unwrap();
        assert!(output.status.success(), "{what}: {program}: {}", String::from_utf8_lossy(&output.stdout));
        output.stdout
    };
    let (wanted, tree) = (wanted.to_str().unwrap(), tree.to_str().unwrap());
    run("tar", &["-x", "-f", tar.to_str().unwrap(), "-C", wanted]);
    run("diff", &["-r", "--no-dereference", "--exclude=.git", wanted, tree]);
    let modes = |dir: &str| {
        let found = run("find", &[dir, "-name", ".git", "-prune", "-o", "!", "-type", "d", "-printf", "%y %m %P\\0"]);
        let mut lines: Vec<Vec<u8>> = found.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert!(modes(wanted) == modes(tree), "{what}: modes");
}

/// What a build may leave for the scripts that come after it.
fn spoil(rng: &mut Rng, world: &World, victim: &Path) {
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

/// One copy's life with names of this seed: made, leased, spoilt, cleaned, leased with a merge, landed, checked, removed.
async fn live(seed: u64, shell: &'static str) {
    let mut rng = Rng(seed, shell.ends_with("applets"));
    let (dir, _) = canary();
    let host = host_with(shell, dir.path());
    let ran = dir.path().join("ran");
    let mut world = World::bare(|_| {});
    // The directories of the origin and of the host have hostile names as well; those of `..` and line ends are refused.
    let plain = |name: String| name.replace(['/', '\0'], "").replace(char::is_control, "");
    let top = world.origin.dir.join(format!("o{}", plain(rng.name())));
    std::fs::create_dir(&top).unwrap();
    world.origin = Origin::make(&top);
    let mut config = Config::new(world.origin.url());
    config.min_free_disk_mb = 1;
    world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
    let place = world.root.parent().unwrap().join(format!("h{}", plain(rng.name())));
    std::fs::create_dir(&place).unwrap();
    world.root = place.join("copies");
    let parent = world.job.parent.as_mut().unwrap();
    parent.access.insert(access::PATH.to_string(), place.to_str().unwrap().to_string());
    parent.shell = host.clone();

    let origin = world.origin.dir.join("origin.git");
    let names = refs(&mut rng, &origin, 4);
    let main = world.origin.id("main");
    let commits: Vec<String> = names.iter().map(|name| commit(&mut rng, &origin, &main, name)).collect();
    for (name, id) in names.iter().zip(&commits) {
        must(&origin, &["update-ref", &format!("refs/heads/{name}"), id]);
        must(&origin, &["update-ref", &format!("refs/tags/{name}"), id]);
        // Listed for the same pattern, and before it.
        must(&origin, &["update-ref", &format!("refs/a/refs/heads/{name}"), &main]);
    }
    must(&origin, &["symbolic-ref", "HEAD", &format!("refs/heads/{}", names[3])]);
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "ref: none of theirs\n").unwrap();
    let what = format!("seed {seed}, {shell}, {names:?}");
    let quiet = |step: &str| {
        assert!(!ran.exists(), "{what}: {step}: a name has run a command");
        assert!(victim.exists(), "{what}: {step}: a name has removed a file");
    };

    world.provision().await.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
    quiet("provision");
    for (at, key) in ["branch", "tag", "ref"].into_iter().enumerate() {
        let name = if key == "ref" { format!("refs/heads/{}", names[at]) } else { names[at].clone() };
        let work = world.work(&[(key, &name)]);
        let prepared =
            world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{what}: {key} {failure:?}"));
        quiet(key);
        assert_tree(&world, &prepared, &commits[at], &what);
        spoil(&mut rng, &world, &victim);
        world.clean(work).await.unwrap_or_else(|failure| panic!("{what}: clean: {failure:?}"));
        quiet("clean");
    }
    let prepared = world.prepare(&[]).await.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
    assert_tree(&world, &prepared, &commits[3], &what);
    for (key, name) in [("branch", rng.name()), ("tag", rng.name()), ("ref", rng.name()), ("merge", rng.name())] {
        if names.contains(&name) {
            continue;
        }
        let failure = world.prepare(&[(key, &name)]).await.expect_err(&name);
        assert_eq!(failure.blame, Blame::Request, "{what}: {key} {name:?}: {failure:?}");
        quiet("a name that is not there");
    }

    // A comma is what stands between two of them.
    if let Some(at) = names.iter().position(|name| !name.contains(',')) {
        let other = format!("refs/heads/{}", names[at]);
        let merged = world.prepare(&[("branch", "main"), ("merge", &other)]).await;
        let merged = merged.unwrap_or_else(|failure| panic!("{what}: merge: {failure:?}"));
        assert_tree(&world, &merged, &commits[at], &what);
    }
    quiet("merge");
    let prepared = world.prepare(&[("branch", "main")]).await.unwrap();
    spoil(&mut rng, &world, &victim);
    let from = LandedFrom {
        resource: world.job.resource.clone(),
        path: prepared.access[access::PATH].clone(),
        repository: prepared.access[access::REPOSITORY].clone(),
        fence: None,
        sparse: Vec::new(),
        ca_file: String::new(),
    };
    let message = format!("{}\n\n{}", rng.name(), rng.name());
    let author = Author { name: rng.name().replace(['<', '>'], "").replace(char::is_control, ""), email: "a@b".into() };
    let request = LandRequest {
        message: Some(message.clone()),
        author: Some(author),
        changes: true,
        ..LandRequest::new("x", &names[1])
    };
    let landed = match land(&*host, &from, &request).await {
        Ok(Landing::Landed(push)) => push,
        other => panic!("{what}: {message:?}: {other:?}"),
    };
    quiet("land");
    assert_eq!(must(&origin, &["rev-parse", &format!("refs/heads/{}", names[1])]), landed.commit, "{what}");
    assert!(
        must(&origin, &["log", "-3", "--format=%B", &landed.commit]).contains(message.trim()),
        "{what}: {message:?}"
    );
    world.adapter.destroy(&world.job).await.unwrap();
    quiet("destroy");
}

/// `NAMES_SEED=n cargo test --test names -- --nocapture` replays a seed; WHARFINGER_LONG=1 tries 20.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_run_nothing_in_any_shell() {
    let seeds: Vec<u64> = match std::env::var("NAMES_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) if std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") => (1..=20).collect(),
        // A name of this one runs a command where names are part of a program for sed.
        Err(_) => vec![4],
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
