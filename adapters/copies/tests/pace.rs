//! How long copies take, against git alone. Prints a table; asserts nothing about time. `PACE_FILES`, `PACE_COMMITS` and
//! `PACE_RUNS` make it smaller.
//!
//! `cargo test -p wharfinger-copies --release --test pace -- --ignored --nocapture`

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::fmt::Write;
use std::path::Path;
use support::{World, sh};
use tokio::time::Instant;
use wharfinger_adapter::{Adapter, CleanJob, EndedHow, PrepareJob, ProvisionJob, ResourceJob};

/// A number from the environment, so that a slow machine can take a smaller repository.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A stream for `git fast-import`: files of some KB, and commits that change ten of them each.
fn history() -> String {
    let (files, commits) = (setting("PACE_FILES", 50_000), setting("PACE_COMMITS", 5_000));
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut bodies: Vec<Vec<String>> = Vec::new();
    let mut stream = String::new();
    for commit in 0..commits {
        write!(
            stream,
            "commit refs/heads/main\ncommitter a <a@example.org> {} +0000\ndata 1\nc\n",
            1_700_000_000 + commit
        )
        .unwrap();
        for n in 0..if commit == 0 { files } else { 10 } {
            let line = format!("word{} and word{};", random(9999), random(99_999_999));
            let file = if commit == 0 {
                bodies.push((0..20 + random(100)).map(|_| format!("{:x} {line}", random(1 << 30))).collect());
                n
            } else {
                let file = random(files);
                let at = random(bodies[file].len());
                bodies[file][at] = line;
                file
            };
            let body = bodies[file].join("\n");
            let (a, b) = (file % 40, file / 40 % 25);
            write!(stream, "M 100644 inline d{a}/e{b}/f{file}.c\ndata {}\n{body}\n", body.len()).unwrap();
        }
    }
    stream
}

fn timed(script: &str, dir: &Path) -> f64 {
    let start = Instant::now();
    sh(dir, script);
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Rows in the order of their first appearance.
#[derive(Default)]
struct Table(Vec<(&'static str, Vec<f64>)>);

impl Table {
    fn note(&mut self, name: &'static str, seconds: f64) {
        eprintln!("{name}: {seconds:.2}");
        match self.0.iter_mut().find(|(row, _)| *row == name) {
            Some((_, times)) => times.push(seconds),
            None => self.0.push((name, vec![seconds])),
        }
    }

    fn of(&self, name: &str) -> &[f64] {
        self.0.iter().find(|(row, _)| *row == name).map(|(_, times)| times.as_slice()).unwrap()
    }

    /// The median of the quotients of what was measured side by side: the machine is not the same from one minute to the
    /// next.
    fn ratio(&self, name: &str, to: &str) -> f64 {
        let (one, two) = (self.of(name), self.of(to));
        let pairs = one.len().max(two.len());
        // The shorter one was measured once a run, the longer one several times.
        median((0..pairs).map(|n| one[n * one.len() / pairs] / two[n * two.len() / pairs]).collect())
    }

    fn print(&self, ratios: &[(&str, &str)]) {
        println!("| step | seconds |\n|---|---|");
        for (name, times) in &self.0 {
            println!("| {name} | {:.2} |", median(times.clone()));
        }
        println!("\n| step | against | ratio |\n|---|---|---|");
        for (name, to) in ratios {
            println!("| {name} | {to} | {:.2} |", self.ratio(name, to));
        }
    }
}

/// One copy at play.
struct Player<'a> {
    world: &'a World,
    job: ResourceJob,
}

impl<'a> Player<'a> {
    async fn make(world: &'a World, name: String) -> (Self, f64) {
        let start = Instant::now();
        let mut job = world.job.clone();
        job.resource = name;
        let made = world.adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap();
        job.handle = Some(made.handle);
        (Self { world, job }, start.elapsed().as_secs_f64())
    }

    /// A lease of this commit: how long its holder waits for it, and how long the clean-up takes afterwards. `build` is what
    /// the holder does.
    async fn lease(&self, commit: &str, build: &str) -> (f64, f64) {
        let work = self.world.work(&[("commit", commit)]);
        let job = PrepareJob { resource: self.job.clone(), work: work.clone(), child: None };
        let start = Instant::now();
        let prepared = self.world.adapter.prepare(&job).await.unwrap();
        let ready = start.elapsed().as_secs_f64();
        assert_eq!(prepared.access["commit"], commit);
        eprintln!("  {} {}", prepared.access["warmth"], prepared.access["changed_files"]);
        sh(Path::new(&prepared.access["path"]), build);
        let start = Instant::now();
        let job = CleanJob { resource: self.job.clone(), work, ended: EndedHow::Ok };
        self.world.adapter.clean(&job).await.unwrap();
        (ready, start.elapsed().as_secs_f64())
    }
}

/// Leftovers of a build: a thousand files that are not tracked, and a few that are, changed.
const BUILD: &str = "mkdir -p target/a; i=0; while [ $i -lt 1000 ]; do echo o >target/a/$i.o; i=$((i+1)); done; git ls-files | tail -n 5 | while read -r f; do echo changed >>\"$f\"; done";

async fn play(title: &str, world: &World) {
    let dir = world.origin.dir.clone();
    sh(&dir, "git clone -q --bare origin.git ref.git");
    let [new, near, far] =
        [1, 2, 51].map(|n| sh(&dir.join("origin.git"), &format!("git rev-list main | sed -n '{n}p'")));
    let origin = format!("file://{}", world.origin.url());
    let mut table = Table::default();
    for run in 0..setting("PACE_RUNS", 3) {
        // Nothing is removed between: on some file systems that takes longer than all the rest, and goes on behind it.
        sh(&dir, &format!("mkdir -p host/copies/mirrors; mv host/copies/mirrors gone{run}"));
        table.note("`git clone`", timed(&format!("git clone -q {origin} c{run}"), &dir));
        table
            .note("`git clone --reference`", timed(&format!("git clone -q --reference ref.git {origin} r{run}"), &dir));
        let clone = dir.join(format!("c{run}"));
        table.note("`git worktree add`", timed(&format!("git worktree add -q --detach ../w{run} {new}"), &clone));
        let (first, made) = Player::make(world, format!("res_{run}a")).await;
        let (ready, _) = first.lease(&new, ":").await;
        table.note("cold: first copy on a host", made + ready);
        let (copy, made) = Player::make(world, format!("res_{run}b")).await;
        let (ready, cleaned) = copy.lease(&new, ":").await;
        table.note("further copy on a host", made + ready);
        table.note("clean-up after it, with every file hashed", cleaned);

        let bare = |commit: &str| timed(&format!("git checkout -qf --detach {commit}; git clean -ffdxq"), &clone);
        bare(&new);
        // Old enough to be trusted, as after any build that takes three seconds.
        copy.lease(&new, "sleep 3").await;
        for _ in 0..3 {
            table.note("bare, the same commit", bare(&new));
            table.note("warm, the same commit", copy.lease(&new, "sleep 3").await.0);
            table.note("bare, 1 commit away", bare(&near));
            table.note("warm, 1 commit away", copy.lease(&near, "sleep 3").await.0);
            bare(&new);
            copy.lease(&new, "sleep 3").await;
            table.note("bare, 50 commits away", bare(&far));
            table.note("warm, 50 commits away", copy.lease(&far, "sleep 3").await.0);
            bare(&new);
            copy.lease(&new, "sleep 3").await;
        }
        sh(&clone, BUILD);
        table.note("bare, after a build", bare(&new));
        let (_, cleaned) = copy.lease(&new, BUILD).await;
        table.note("clean-up after a build", cleaned);
        table.note("warm, after a build and its clean-up", copy.lease(&new, ":").await.0);
    }

    let start = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for n in 0..10 {
        let (adapter, mut job) = (world.adapter.clone(), world.job.clone());
        job.resource = format!("res_ten{n}");
        let work = world.work(&[("commit", &new)]);
        all.spawn(async move {
            let made = adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap();
            job.handle = Some(made.handle);
            adapter.prepare(&PrepareJob { resource: job, work, child: None }).await.unwrap()
        });
    }
    while let Some(done) = all.join_next().await {
        assert_eq!(done.unwrap().access["commit"], new);
    }
    table.note("ten further copies at once", start.elapsed().as_secs_f64());
    let ten = format!("for n in 0 1 2 3 4 5 6 7 8 9; do git clone -q {origin} ten$n & done; wait");
    table.note("ten `git clone` at once", timed(&ten, &dir));
    let disk = |path: &str| sh(&dir, &format!("du -sm {path} | cut -f1")).parse::<f64>().unwrap();
    println!("\n## {title}\n");
    table.print(&[
        ("warm, the same commit", "bare, the same commit"),
        ("warm, 1 commit away", "bare, 1 commit away"),
        ("warm, 50 commits away", "bare, 50 commits away"),
        ("warm, after a build and its clean-up", "bare, after a build"),
        ("`git clone`", "warm, the same commit"),
        ("`git clone`", "warm, 1 commit away"),
        ("`git clone`", "warm, 50 commits away"),
        ("further copy on a host", "`git clone`"),
        ("cold: first copy on a host", "`git clone`"),
        ("`git worktree add`", "warm, 50 commits away"),
        ("ten further copies at once", "ten `git clone` at once"),
    ]);
    println!(
        "\nDisk of a further copy: {} MB, of which {} MB in `.git`; of a `git clone`: {} and {} MB.",
        disk("host/copies/res_ten0"),
        disk("host/copies/res_ten0/tree/.git"),
        disk("ten0"),
        disk("ten0/.git")
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and asserts nothing"]
async fn pace() {
    let world = World::bare(|_| {});
    std::fs::write(world.origin.dir.join("stream"), history()).unwrap();
    sh(
        &world.origin.dir,
        "rm -rf origin.git; git init -q --bare -b main origin.git; git --git-dir=origin.git fast-import --quiet <stream; rm stream; git --git-dir=origin.git gc -q",
    );
    play("A big repository", &world).await;
}

/// This repository, as far as it is there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and asserts nothing"]
async fn pace_of_our_own() {
    let world = World::bare(|_| {});
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    sh(
        &world.origin.dir,
        &format!(
            "rm -rf origin.git; git init -q --bare -b main origin.git; git -C '{here}' push -q \"$PWD/origin.git\" HEAD:refs/heads/main"
        ),
    );
    play("Wharfinger's own", &world).await;
}
