//! SIGKILL at any instant of what the copies do on their host: to the script alone, to its git alone, or to all of it. The next
//! lease is right, nothing is left locked, and nothing piles up. 20 kills always, 200 with WHARFINGER_LONG=1.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[allow(dead_code, unused_imports, reason = "the other test files use the rest")]
mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{World, sh};
use tokio::time::Instant;
use wharfinger_adapter::{Adapter, Blame, CleanJob, EndedHow, Failure, PrepareJob, ProvisionJob, Verdict};
use wharfinger_copies::Clean;

/// The program that is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Script,
    Git,
    All,
}

/// The step in which it is killed.
#[derive(Clone, Copy, Debug)]
enum Step {
    Provision,
    Prepare,
    Fetch,
    Clean,
    Fresh,
    Repack,
    Repair,
}

use Step::{Clean as CleanUp, Fetch, Fresh, Prepare, Provision, Repack, Repair};

/// Kills the processes of this copy, as soon as some run after `delay`. Returns their number; 0 if the step ended before.
async fn kill_after(resource: &str, victim: Victim, delay: Duration, ended: &AtomicBool) -> usize {
    tokio::time::sleep(delay).await;
    loop {
        let killed = kill(resource, victim);
        if killed > 0 || ended.load(Ordering::SeqCst) {
            return killed;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn kill(resource: &str, victim: Victim) -> usize {
    let mark = format!("WHARFINGER_COPY={resource}");
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").unwrap().map_while(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        // A script of ours has no mark in its own environment, which is what it was started with.
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let script = arguments.split(|b| *b == 0).any(|word| word == resource.as_bytes());
        let ours = script || environment.split(|b| *b == 0).any(|word| word == mark.as_bytes());
        let fits = match victim {
            Victim::Script => script,
            Victim::Git => ours && !script,
            Victim::All => ours,
        };
        if fits && let Some(pid) = Pid::from_raw(pid) {
            killed += usize::from(kill_process(pid, Signal::KILL).is_ok());
        }
    }
    killed
}

/// Leftovers of killed gits, under all of the host.
fn litter(world: &World) -> Vec<String> {
    let host = world.root.parent().unwrap();
    let found = sh(
        host,
        "find . \\( -name 'tmp_*' -o -name '*.lock' -o -name '*.new' -o -name 'new.*' -o -name '*.new.*' -o -name '*.put' -o -name .tmp-* \\) ! -path './copies/mirrors/*.lock'; find ./copies/mirrors/*/ -name '*.lock'",
    );
    found.lines().map(str::to_string).collect()
}

async fn recover(world: &mut World, failure: &Failure) {
    world.next_op();
    match world.adapter.check(&world.job).await {
        Ok(Verdict::Healthy) => {}
        Ok(Verdict::Mangled { repairable: true, .. }) => match world.repair().await {
            Ok(()) => {}
            Err(again) => panic!("after {failure:?} a repair fails: {again:?}"),
        },
        other => panic!("after {failure:?} the check says {other:?}"),
    }
}

/// The parts of the step, before it and in it.
async fn run(world: &mut World, step: Step, n: u64) -> Result<(), Failure> {
    let work = world.work(&[]);
    match step {
        Provision => {
            let mut job = world.job.clone();
            job.handle = None;
            world.adapter.provision(&ProvisionJob { resource: job, attempt: 0 }).await.map(drop)
        }
        Prepare | Fetch => {
            let name = if n.is_multiple_of(2) { "side" } else { "main" };
            let work = world.work(&[("branch", name)]);
            world.adapter.prepare(&PrepareJob { resource: world.job.clone(), work, child: None }).await.map(drop)
        }
        CleanUp | Fresh | Repack => {
            world.adapter.clean(&CleanJob { resource: world.job.clone(), work, ended: EndedHow::Broken }).await
        }
        Repair => world.adapter.repair(&world.job).await,
    }
}

fn set_up(world: &World, step: Step, n: u64) {
    match step {
        Provision => drop(std::fs::remove_dir_all(world.home())),
        Prepare => {}
        Fetch => {
            world.origin.work(&format!(
                "seq {n} 3000 >n; echo {n} >>n; git add n; git commit -qm {n}; git push -q origin main"
            ));
        }
        CleanUp | Fresh => {
            world.spoil("mkdir -p many/er; cd many; seq 500 | xargs touch; echo junk >../a.txt; git init -q er");
        }
        Repack => {
            sh(
                &world.root,
                "cd mirrors/*/; for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do echo $n | git hash-object -w --stdin | git pack-objects -q objects/pack/pack >/dev/null; done",
            );
        }
        Repair => {
            if n.is_multiple_of(2) {
                world.spoil("rm -rf .git");
            } else {
                world.spoil("echo garbage >.git/HEAD; git config --file .git/config x.y z");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_the_next_lease_is_right() {
    // Number of kills that must hit a process. A kill after the end of its step is repeated with another delay.
    let wanted = if std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") { 200 } else { 20 };
    let mut world = World::new(Clean::Clean).await;
    let fresh = {
        let mut config = world.adapter.config().clone();
        config.clean = Clean::Fresh;
        wharfinger_copies::CopiesAdapter::new("copies".into(), config).unwrap()
    };
    let steps = [Prepare, Fetch, CleanUp, Repair, Provision, Fresh, Repack];
    // How long each step takes when it is let alone: measured as we go, and never the end of a test.
    let mut spans = [Duration::from_millis(400); 7];
    let (mut done, mut dead, mut whole, mut odd) = (0, 0, 0, 0x9E37_79B9_7F4A_7C15_u64);
    let mut kills = 0;
    while done < wanted && kills < 20 * wanted as u64 {
        let n = kills;
        kills += 1;
        odd = odd.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let which = usize::try_from(n % 7).unwrap();
        let step = steps[which];
        let victim = [Victim::All, Victim::Script, Victim::Git][usize::try_from((odd >> 40) % 3).unwrap()];
        set_up(&world, step, n);
        let plain = matches!(step, Fresh).then(|| std::mem::replace(&mut world.adapter, fresh.clone()));
        let delay = spans[which].mul_f64((odd >> 20 & 0xFFFF) as f64 / 65536.0);
        let resource = world.job.resource.clone();
        let begun = Instant::now();
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let killer = tokio::spawn(async move { kill_after(&resource, victim, delay, &end).await });
        let result = run(&mut world, step, n).await;
        let took = begun.elapsed();
        ended.store(true, Ordering::SeqCst);
        let killed = killer.await.unwrap();
        if let Some(plain) = plain {
            world.adapter = plain;
        }
        dead += killed;
        done += usize::from(killed > 0);
        match result {
            Ok(()) => {
                whole += 1;
                spans[which] = (spans[which] + took) / 2;
            }
            // A killed git looks like an origin that hangs up: a retry is right then.
            Err(failure) if failure.blame == Blame::Provider => {}
            Err(failure) => {
                assert_eq!(failure.blame, Blame::Resource, "{step:?} {victim:?}: {failure:?}");
                if !matches!(step, Provision) {
                    recover(&mut world, &failure).await;
                }
            }
        }
        if matches!(step, Provision) {
            world.provision().await.unwrap_or_else(|failure| panic!("{step:?} {victim:?}: {failure:?}"));
        }
        if matches!(step, Repair) {
            world.repair().await.unwrap_or_else(|failure| panic!("{step:?} {victim:?}: {failure:?}"));
        }
        // Below the 900 s for which a step waits for the lock of a mirror.
        let waited = Instant::now();
        let (prepared, _) = world.serve(&format!("{step:?} {victim:?} after {delay:?}"), world.work(&[])).await;
        assert!(waited.elapsed() < Duration::from_secs(300), "{step:?} {victim:?}: something was left locked");
        world.assert_pure(&format!("{step:?} {victim:?}"), &prepared, "main", &[]);
    }
    // One quiet life, and nothing is left of all that.
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.clean(work).await.unwrap();
    println!("{kills} kills, {done} of them hit {dead} processes, {whole} steps ended well all the same");
    assert_eq!(done, wanted, "the kills came too late");
    assert_eq!(litter(&world), Vec::<String>::new());
    assert_eq!(sh(&world.home(), "ls"), "meta\ntree");
}
