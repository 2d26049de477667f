//! How long copies take, against git alone. Prints a table; asserts nothing about time.
//!
//! `cargo test -p wharfinger-copies --release --test pace -- --ignored --nocapture`

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{World, sh};
use wharfinger_adapter::{Adapter, ProvisionJob, ResourceJob};

/// A number from the environment, so that a slow machine can take a smaller repository.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

const RUNS: usize = 3;

/// A stream for `git fast-import`: files of some KB, and commits that change ten of them each.
fn history() -> String {
    let (files, commits) = (setting("PACE_FILES", 20_000), setting("PACE_COMMITS", 1_000));
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

fn timed(script: &str, dir: &Path) -> Duration {
    let start = Instant::now();
    sh(dir, script);
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

#[tokio::test]
#[ignore = "takes minutes, and asserts nothing"]
async fn pace() {
    let world = World::bare(|_| {});
    std::fs::write(world.origin.dir.join("stream"), history()).unwrap();
    sh(
        &world.origin.dir,
        "rm -rf origin.git; git init -q --bare -b main origin.git; git --git-dir=origin.git fast-import --quiet <stream; rm stream; git --git-dir=origin.git gc -q; git clone -q --bare origin.git ref.git",
    );
    let world = &world;
    let dir = world.origin.dir.clone();
    let (new, old) = (world.origin.id("main"), world.origin.id("main~50"));
    let origin = format!("file://{}", world.origin.url());
    let mut rows: Vec<(&str, Vec<Duration>)> = Vec::new();
    let mut note = |name: &'static str, time: Duration| {
        eprintln!("{name}: {:.2}", time.as_secs_f64());
        match rows.iter_mut().find(|(row, _)| *row == name) {
            Some((_, times)) => times.push(time),
            None => rows.push((name, vec![time])),
        }
    };
    for run in 0..RUNS {
        note("`git clone`", timed(&format!("git clone -q {origin} c{run}"), &dir));
        note("`git clone --reference`", timed(&format!("git clone -q --reference ref.git {origin} r{run}"), &dir));
        note(
            "`git checkout -f` and `git clean -ffdx`, 50 commits away",
            timed(&format!("git checkout -qf --detach {old}; git clean -ffdxq"), &dir.join(format!("c{run}"))),
        );
        note(
            "the same, with a new index (what a proof needs)",
            timed(
                &format!(
                    "rm .git/index; git read-tree HEAD; git update-index -q --refresh; git checkout -qf --detach {new}; git clean -ffdxq"
                ),
                &dir.join(format!("c{run}")),
            ),
        );
        sh(&dir, &format!("mkdir -p host/copies/mirrors; mv host/copies/mirrors gone{run}"));
        let make = |name: String| {
            let mut job: ResourceJob = world.job.clone();
            job.resource = name;
            async move {
                let start = Instant::now();
                let made = world.adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap();
                job.handle = Some(made.handle);
                (job, start.elapsed())
            }
        };
        let prepare = |job: ResourceJob, commit: String| {
            let work = world.work(&[("commit", &commit)]);
            async move {
                let start = Instant::now();
                let job = wharfinger_adapter::PrepareJob { resource: job, work, child: None };
                assert_eq!(world.adapter.prepare(&job).await.unwrap().access["commit"], commit);
                start.elapsed()
            }
        };
        // Nothing is removed between: on some file systems that takes longer than all the rest, and goes on behind it.
        let (first, made) = make(format!("res_{run}a")).await;
        let ready = prepare(first, new.clone()).await;
        note("first copy on a host: made", made);
        note("first copy on a host: made and prepared", made + ready);
        let (second, made) = make(format!("res_{run}b")).await;
        let ready = prepare(second.clone(), new.clone()).await;
        note("second copy: made", made);
        note("second copy: made and prepared", made + ready);
        note("warm, the same commit", prepare(second.clone(), new.clone()).await);
        note("warm, 50 commits away", prepare(second, old.clone()).await);
    }
    println!("| step | seconds |\n|---|---|");
    for (name, times) in rows {
        println!("| {name} | {:.2} |", median(times));
    }
}
