//! Lease cycles by hostile builds: each spoils its copy, its notes and the mirror in one to four ways that a seed chooses, then
//! the next lease gets whatever the seed says, and is compared bit for bit with the commit. Forty cycles always, two hundred
//! with WHARFINGER_LONG=1; `HOSTILE_SEED=n cargo test -p wharfinger-copies --test hostile -- --nocapture` replays a seed.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[allow(dead_code, unused_imports, reason = "the other test files use the rest")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::mangles::{MANGLES, TOOLS};
use support::{World, sh};
use wharfinger_adapter::{Adapter, Blame, CleanJob, Command, EndedHow, Failure, HolderWork, Prepared, Verdict, access};
use wharfinger_copies::{Clean, Config, CopiesAdapter};

/// Cycles of one seed: the copy's life goes on from one to the next.
const CYCLES: u64 = 10;
const SHORT: [u64; 4] = [1, 2, 3, 4];

/// The generator SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Mode and content by path.
type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// The content of the commit, read from the origin object by object.
fn of_commit(origin: &Path, id: &str) -> Files {
    let output =
        std::process::Command::new("git").args(["ls-tree", "-r", "-z", id]).current_dir(origin).output().unwrap();
    assert!(output.status.success());
    let mut files = Files::new();
    for entry in output.stdout.split(|b| *b == 0).filter(|entry| !entry.is_empty()) {
        let tab = entry.iter().position(|b| *b == b'\t').unwrap();
        let head: Vec<&str> = std::str::from_utf8(&entry[..tab]).unwrap().split(' ').collect();
        let blob =
            std::process::Command::new("git").args(["cat-file", "blob", head[2]]).current_dir(origin).output().unwrap();
        assert!(blob.status.success());
        let path = PathBuf::from(OsString::from_vec(entry[tab + 1..].to_vec()));
        files.insert(path, (u32::from_str_radix(head[0], 8).unwrap(), blob.stdout));
    }
    files
}

/// The content of the tree, beside `.git`. An entry that is no file and no link has mode 0; a huge file is read in part.
fn of_tree(tree: &Path) -> Files {
    fn walk(top: &Path, at: &Path, files: &mut Files) {
        let Ok(entries) = std::fs::read_dir(at) else { return };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(top).unwrap().to_path_buf();
            if name == Path::new(".git") {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                walk(top, &path, files);
            } else if kind.is_symlink() {
                let to = std::fs::read_link(&path).unwrap();
                files.insert(name, (0o120_000, to.as_os_str().as_bytes().to_vec()));
            } else if kind.is_file() {
                let mut content = Vec::new();
                let file = std::fs::File::open(&path).unwrap();
                let mode = 0o100_000 | (file.metadata().unwrap().permissions().mode() & 0o7777);
                std::io::Read::read_to_end(&mut std::io::Read::take(file, 1 << 20), &mut content).unwrap();
                files.insert(name, (mode, content));
            } else {
                files.insert(name, (0, Vec::new()));
            }
        }
    }
    let mut files = Files::new();
    walk(tree, tree, &mut files);
    files
}

struct Life {
    rng: Rng,
    world: World,
    policy: Clean,
    /// Its damages, for the reader of a failure.
    story: Vec<String>,
    counts: BTreeMap<&'static str, usize>,
}

impl Life {
    async fn new(seed: u64) -> Self {
        let mut world = World::bare(|_| {});
        world.origin.work(
            "seq 2000 >lines; for i in 1 2 3 4 5 6 7 8; do mkdir -p d$i/e; seq $i 300 >d$i/f$i; echo $i >d$i/e/x; done; printf 'x' >\"$(printf 'odd\\377')\"; git add -A; git commit -qm more; git push -q origin main",
        );
        world.provision().await.unwrap();
        Self { rng: Rng(seed), world, policy: Clean::Clean, story: Vec::new(), counts: BTreeMap::new() }
    }

    fn note(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn choose_policy(&mut self) {
        self.policy = *self.rng.pick(&[Clean::Clean, Clean::Clean, Clean::Keep, Clean::Fresh]);
        let mut config = Config::new(self.world.origin.url());
        config.min_free_disk_mb = 1;
        config.clean = self.policy;
        self.world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
    }

    /// A name to ask for, and the name of the same in the origin.
    fn wanted(&mut self) -> (Vec<(&'static str, String)>, String) {
        let (key, value, name) = *self.rng.pick(&[
            ("branch", "main", "main"),
            ("branch", "side", "side"),
            ("tag", "v1", "v1"),
            ("tag", "v1a", "v1a"),
            ("ref", "refs/pull/7/head", "refs/pull/7/head"),
            ("commit", "", "main~1"),
            ("commit", "", "side"),
        ]);
        let value = if value.is_empty() { self.world.origin.id(name) } else { value.to_string() };
        (vec![(key, value)], name.to_string())
    }

    /// As the broker has it: a failure of the copy is looked into, one of the provider is tried again.
    async fn serve(&mut self, work: HolderWork) -> Prepared {
        for _ in 0..6 {
            let failure = match self.world.prepare_for(work.clone()).await {
                Ok(prepared) => return prepared,
                Err(failure) => failure,
            };
            self.note(format!("prepare: {failure:?}"));
            match failure.blame {
                Blame::Resource => self.doubt(&failure).await,
                Blame::Provider => self.count("provider blamed"),
                Blame::Request | Blame::Configuration | Blame::Bug => panic!("{failure:?}"),
            }
        }
        panic!("it is never served");
    }

    async fn doubt(&mut self, failure: &Failure) {
        self.world.next_op();
        match self.world.adapter.check(&self.world.job).await {
            Ok(Verdict::Healthy) => {
                self.count("a check found nothing");
                self.note(format!("healthy after {}", failure.reason));
            }
            Ok(Verdict::Mangled { repairable: true, reason, .. }) => {
                self.note(format!("mangled: {reason}"));
                match self.world.repair().await {
                    Ok(()) => self.count("repaired"),
                    Err(failure) => {
                        self.note(format!("repair: {failure:?}"));
                        self.count("recycled");
                        self.world.recycle().await;
                    }
                }
            }
            Ok(verdict) => {
                self.note(format!("{verdict:?}"));
                self.count("recycled");
                self.world.recycle().await;
            }
            Err(failure) => {
                self.note(format!("check: {failure:?}"));
                self.count("a check failed");
                self.world.recycle().await;
            }
        }
    }

    async fn mangle(&mut self, lease: &str) {
        for _ in 0..1 + self.rng.below(4) {
            let (name, script) = *self.rng.pick(MANGLES);
            let numbers: Vec<u64> = (0..3).map(|_| self.rng.next() >> 34).collect();
            self.note(format!("{name} {numbers:?}"));
            let text = format!(
                "A={} B={} C={}; FLAG='{}'; ORIGIN='{}'; TREE='{}'; cd \"$TREE\" || exit 0\n{TOOLS}\n{script}",
                numbers[0],
                numbers[1],
                numbers[2],
                self.world.flag().display(),
                self.world.origin.dir.display(),
                self.world.tree().display()
            );
            let shell = self.world.job.parent.as_ref().unwrap().shell.clone();
            let mut command = Command::new(["/bin/sh", "-c", &text]).timeout(Duration::from_secs(20));
            command.env.insert("WHARFINGER_LEASE".into(), lease.into());
            let _ = shell.run(command).await.unwrap();
        }
    }

    async fn cycle(&mut self) {
        self.choose_policy();
        if self.rng.below(3) == 0 {
            let n = self.rng.next();
            self.world.origin.work(&format!(
                "echo {n} >d3/f3; echo {n} >n; git add -A; git commit -qm {n}; git push -q origin main"
            ));
        }
        let work = self.world.work(&[]);
        self.serve(work.clone()).await;
        self.world.spoil("mkdir -p target; echo cache >target/o");
        self.mangle(&work.lease).await;
        // Its own git may have run it, and that is its own affair.
        let _ = std::fs::remove_file(self.world.flag());
        let before = of_tree(&self.world.tree());
        if self.rng.below(4) != 0 {
            let ended = *self.rng.pick(&[EndedHow::Ok, EndedHow::Failed, EndedHow::Expired, EndedHow::Broken]);
            let job = CleanJob { resource: self.world.job.clone(), work, ended };
            if let Err(failure) = self.world.adapter.clean(&job).await {
                self.note(format!("clean: {failure:?}"));
                self.doubt(&failure).await;
            }
        }
        let (params, name) = self.wanted();
        let params: Vec<(&str, &str)> = params.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let work = self.world.work(&params);
        let prepared = self.serve(work).await;
        self.compare(&prepared, &name, &before);
    }

    fn compare(&mut self, prepared: &Prepared, name: &str, before: &Files) {
        let id = self.world.origin.id(name);
        assert_eq!(prepared.access[access::COMMIT], id);
        assert!(!self.world.flag().exists(), "what a build left was run");
        let wanted = of_commit(&self.world.origin.dir.join("origin.git"), &id);
        let mut found = of_tree(&self.world.tree());
        if self.policy == Clean::Keep {
            let more: BTreeSet<PathBuf> = found.keys().filter(|path| !wanted.contains_key(*path)).cloned().collect();
            for path in more {
                // A daemon may have written on until the clean-up ended it.
                let junk = path.as_os_str().as_bytes().starts_with(b"junk.");
                assert!(
                    junk || before.contains_key(&path),
                    "{} is neither the commit's nor was it there before",
                    path.display()
                );
                found.remove(&path);
                self.count("kept files");
            }
        }
        let paths: BTreeSet<&PathBuf> = wanted.keys().chain(found.keys()).collect();
        for path in paths {
            let (want, have) = (wanted.get(path), found.get(path));
            // Git knows two modes of files.
            let mode = |mode: u32| match mode {
                0o100_644 | 0o100_755 | 0o120_000 => mode,
                other if self.policy == Clean::Keep => 0o100_644 | if other & 0o100 != 0 { 0o111 } else { 0 },
                other => other,
            };
            let have = have.map(|(m, content)| (mode(*m), content));
            assert_eq!(have.map(|(mode, _)| mode), want.map(|(mode, _)| *mode), "{}: mode", path.display());
            assert!(have.map(|(_, c)| c) == want.map(|(_, c)| c), "{}: content", path.display());
        }
        let head = sh(&self.world.tree(), "git rev-parse HEAD; git status --porcelain -uno; ls -A .git/hooks");
        assert_eq!(head, id);
    }
}

async fn live(seed: u64) -> BTreeMap<&'static str, usize> {
    let mut life = Life::new(seed).await;
    for n in 0..CYCLES {
        let begun = tokio::time::Instant::now();
        life.note(format!("-- cycle {n}"));
        let cycle = std::panic::AssertUnwindSafe(life.cycle());
        if let Err(panic) = futures_catch(cycle).await {
            let from = life.story.iter().rposition(|line| line.starts_with("-- ")).unwrap_or(0);
            eprintln!("{}", life.story[from.saturating_sub(12)..].join("\n"));
            eprintln!("HOSTILE_SEED={seed} cargo test -p wharfinger-copies --test hostile -- --nocapture");
            std::panic::resume_unwind(panic);
        }
        life.count("cycles");
        println!("seed {seed}, cycle {n}: {:?}", begun.elapsed());
    }
    life.counts
}

/// As `futures::FutureExt::catch_unwind`.
async fn futures_catch<F: Future<Output = ()>>(
    future: std::panic::AssertUnwindSafe<F>,
) -> Result<(), Box<dyn std::any::Any + Send>> {
    let mut future = Box::pin(future.0);
    std::future::poll_fn(move |context| {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(std::task::Poll::Ready(())) => std::task::Poll::Ready(Ok(())),
            Ok(std::task::Poll::Pending) => std::task::Poll::Pending,
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tree_that_hostile_builds_hand_on_is_the_commit() {
    let seeds: Vec<u64> = match std::env::var("HOSTILE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) if std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") => (1..=20).collect(),
        Err(_) => SHORT.to_vec(),
    };
    let mut all: BTreeMap<&'static str, usize> = BTreeMap::new();
    let wanted = seeds.len() as u64 * CYCLES;
    for pair in seeds.chunks(2) {
        let lives: Vec<_> = pair.iter().map(|seed| tokio::spawn(live(*seed))).collect();
        for life in lives {
            for (what, n) in life.await.unwrap() {
                *all.entry(what).or_default() += n;
            }
        }
    }
    println!("{all:?}");
    assert_eq!(all["cycles"] as u64, wanted);
}
