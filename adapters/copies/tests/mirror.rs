//! The host's mirror of the repository: shared by all copies, spoilt by builds, deleted under a prepare, found locked.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use support::{CutShell, TestShell, World, sh};
use wharfinger_adapter::{Adapter, Blame, PrepareJob, Prepared, ProvisionJob, ResourceJob, Verdict};
use wharfinger_copies::Clean;

/// The only mirror on the host.
fn mirror(world: &World) -> PathBuf {
    let found = sh(&world.root.join("mirrors"), "ls -d \"$PWD\"/*/");
    PathBuf::from(found.trim_end_matches('/'))
}

/// The job of another copy on the same host, provisioned.
async fn neighbour(world: &World, name: &str) -> ResourceJob {
    let mut job = world.job.clone();
    job.resource = format!("{}_{name}", job.resource);
    job.handle = None;
    let made = world.adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap();
    job.handle = Some(made.handle);
    job
}

/// The job, with a git in front of the host's that notes each process that serves the origin's objects.
fn counted(world: &World, job: &ResourceJob) -> ResourceJob {
    let bin = world.origin.dir.join("bin");
    if !bin.exists() {
        let real = sh(&world.origin.dir, "command -v git");
        std::fs::create_dir(&bin).unwrap();
        let (log, origin) = (world.origin.dir.join("log"), world.origin.url());
        // A listing serves no objects. Its client shows that it is one.
        std::fs::write(
            bin.join("git"),
            format!("#!/bin/sh\ncase \"$*\" in *' fetch '*' origin '*|'clone '*'{origin}'*) echo \"$*\" >>'{}' ;; esac\nexec {real} \"$@\"\n", log.display()),
        )
        .unwrap();
        sh(&bin, "chmod +x git");
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut job = job.clone();
    job.parent.as_mut().unwrap().shell = Arc::new(TestShell { env: vec![("PATH".into(), path)], prefix: Vec::new() });
    job
}

/// How often the origin was asked for objects since the last question.
fn asked(world: &World) -> usize {
    let log = world.origin.dir.join("log");
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(log);
    text.lines().count()
}

async fn prepare_on(world: &World, job: &ResourceJob, params: &[(&str, &str)]) -> Prepared {
    let job = PrepareJob { resource: job.clone(), work: world.work(params), child: None };
    world.adapter.prepare(&job).await.unwrap()
}

#[tokio::test]
async fn origin_is_asked_only_for_what_is_new() {
    let mut world = World::bare(|_| {});
    world.job = counted(&world, &world.job);
    world.provision().await.unwrap();
    assert_eq!(asked(&world), 1, "the first copy makes the mirror");
    let second = neighbour(&world, "b").await;
    let commit = prepare_on(&world, &second, &[]).await.access["commit"].clone();
    assert_eq!(commit, world.origin.id("main"));
    world.prepare(&[("branch", "side")]).await.unwrap();
    world.spoil("rm -rf .git");
    world.repair().await.unwrap();
    assert_eq!(asked(&world), 0, "a second copy, a branch and a repair come from this host");

    // Not on any branch: once for the first that wants it.
    prepare_on(&world, &second, &[("ref", "pull/7/head")]).await;
    let prepared = world.prepare(&[("ref", "pull/7/head")]).await.unwrap();
    world.assert_is(&prepared, "refs/pull/7/head", &[]);
    world.prepare(&[("commit", &world.origin.id("refs/pull/7/head"))]).await.unwrap();
    world.prepare(&[("tag", "v1a")]).await.unwrap();
    assert_eq!(asked(&world), 2, "the pull request and the annotated tag");

    // A branch that moves takes one fetch, for whichever copy comes first.
    world.origin.work("echo three >a.txt; git commit -qam three; git push -q origin main");
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    prepare_on(&world, &second, &[]).await;
    assert_eq!(asked(&world), 1);
}

#[tokio::test]
async fn two_at_once_fetch_once() {
    let world = World::new(Clean::Clean).await;
    let second = counted(&world, &neighbour(&world, "b").await);
    let first = counted(&world, &world.job);
    world.origin.work("echo three >a.txt; git commit -qam three; git push -q origin main");
    let (one, two) = tokio::join!(prepare_on(&world, &first, &[]), prepare_on(&world, &second, &[]));
    assert_eq!(asked(&world), 1);
    assert_eq!(one.access["commit"], two.access["commit"]);
    world.assert_is(&one, "main", &[]);
}

#[tokio::test]
async fn two_first_copies_at_once_clone_once() {
    let world = World::bare(|_| {});
    let first = counted(&world, &world.job);
    let mut second = first.clone();
    second.resource += "_b";
    let [one, two] = [first, second].map(|resource| ProvisionJob { resource, attempt: 0 });
    let (one, two) = tokio::join!(world.adapter.provision(&one), world.adapter.provision(&two));
    one.unwrap();
    two.unwrap();
    assert_eq!(asked(&world), 1);
}

#[tokio::test]
async fn without_the_origin_an_id_is_served_and_a_name_is_not() {
    let world = World::new(Clean::Clean).await;
    let (side, pull) = (world.origin.id("side"), world.origin.id("refs/pull/7/head"));
    sh(&world.origin.dir, "mv origin.git away.git");
    let prepared = world.prepare(&[("commit", &side)]).await.unwrap();
    assert_eq!(prepared.access["commit"], side);
    assert_eq!(world.spoil("git rev-parse HEAD; cat side.txt"), format!("{side}\nside"));
    for params in [[("branch", "side")], [("commit", &side[..12])], [("commit", &pull)]] {
        let failure = world.prepare(&params).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{failure}");
    }
    sh(&world.origin.dir, "mv away.git origin.git");
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
}

/// Damage that a build may do to the mirror; then a new copy is made, and an old one has something to fetch.
#[tokio::test]
async fn a_spoilt_mirror_is_made_anew_and_never_believed() {
    const LOOSE: &str = "mkdir p; mv objects/pack/* p/; for p in p/*.pack; do git unpack-objects -q <$p || :; done; rm -rf p; loose() { o=$(git rev-parse $1); echo objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-); };";
    let world = World::new(Clean::Clean).await;
    for (n, (name, script)) in [
        ("truncated pack", "chmod u+w objects/pack/*; for p in objects/pack/*.pack; do truncate -s -40 $p; done"),
        ("emptied packs", "chmod u+w objects/pack/*; for p in objects/pack/*; do : >$p; done"),
        ("forged blob", "LOOSE e=$(echo evil | git hash-object -w --stdin); f=$(loose main:a.txt); rm -f $f; cp $(loose $e) $f"),
        ("forged blob in a pack", "echo evil >e; e=$(git hash-object -w e); o=$(git rev-parse main:a.txt); rm e; LOOSE f=$(loose $o); rm -f $f; cp $(loose $e) $f; git repack -adq 2>/dev/null || :"),
        ("forged tree", "LOOSE f=$(loose main^{tree}); rm -f $f; cp $(loose side^{tree}) $f"),
        ("forged commit", "LOOSE f=$(loose main); p=$(loose main~1); rm -f $f; cp $p $f"),
        ("missing blob", "LOOSE rm -f $(loose main:src/main.c)"),
        ("missing commit", "LOOSE rm -f $(loose main)"),
        ("no objects", "rm -rf objects"),
        ("objects elsewhere", "mv objects $ORIGIN/objects.$N; ln -s $ORIGIN/objects.$N objects"),
        ("alternates", "mv objects $ORIGIN/objects.$N; mkdir -p objects/info; echo $ORIGIN/objects.$N >objects/info/alternates"),
        ("shallow", "git rev-parse main >shallow"),
        ("replaced", "git replace main main~1"),
        ("configuration", "git config uploadpack.packObjectsHook \"touch $FLAG; git\"; git config remote.origin.url /no/such; git config core.repositoryformatversion 99"),
        ("configuration is garbage", "echo '[[[' >config"),
        ("hooks", "mkdir -p hooks; printf \"#!/bin/sh\\ntouch $FLAG\\n\" >hooks/reference-transaction; chmod +x hooks/*"),
        ("refs that the origin does not have", "git update-ref refs/heads/evil main; git update-ref refs/heads/main main~1; git pack-refs --all"),
        ("refs in the way", "git update-ref -d refs/heads/main; git update-ref refs/heads/main/x main~1 2>/dev/null || git update-ref refs/heads/main/x side"),
        ("packed-refs is garbage", "echo garbage >packed-refs"),
        ("stale locks", ": >packed-refs.lock; : >HEAD.lock; : >config.lock; : >refs/heads/main.lock; : >objects/pack/tmp_pack_1; : >../$(basename $PWD).lock"),
        ("a file", "rm -rf $PWD; echo x >$PWD"),
        ("a link", "mv $PWD $ORIGIN/m.$N; ln -s $ORIGIN/m.$N $PWD"),
        ("removed", "rm -rf $PWD"),
        ("all mirrors removed", "rm -rf ../../mirrors"),
        ("half of a new one", "mkdir $PWD.new.1; echo x >$PWD.new.1/x"),
    ]
    .into_iter()
    .enumerate()
    {
        let script = script.replace("LOOSE", LOOSE);
        // The former row may have left a mirror that is good enough; this one is to have it all.
        sh(&world.root, "rm -rf mirrors");
        world.adapter.destroy(&neighbour(&world, "whole").await).await.unwrap();
        sh(
            &mirror(&world),
            &format!("FLAG='{}'; ORIGIN='{}'; N={n}\n{script}", world.flag().display(), world.origin.dir.display()),
        );
        let fresh = neighbour(&world, &format!("n{n}")).await;
        let commit = prepare_on(&world, &fresh, &[]).await.access["commit"].clone();
        assert_eq!(commit, world.origin.id("main"), "{name}");
        let tree = world.root.join(&fresh.resource).join("tree");
        sh(&tree, "git fsck --no-dangling 2>&1; ! git rev-parse -q --verify origin/evil");

        world.origin.work(&format!("echo {n} >n; git add n; git commit -qm {n}; git push -q origin main"));
        let prepared = world.prepare(&[]).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        world.assert_is(&prepared, "main", &[]);
        assert_eq!(world.adapter.check(&fresh).await.unwrap(), Verdict::Healthy, "{name}");
        world.adapter.destroy(&fresh).await.unwrap();
        assert!(!world.flag().exists(), "{name}: the attack ran");
    }
}

/// Spoilt just before an old copy fetches: it has the objects, the mirror has lost them.
#[tokio::test]
async fn a_mirror_that_lets_a_fetch_down_is_made_anew() {
    let world = World::new(Clean::Clean).await;
    let second = neighbour(&world, "b").await;
    for (n, script) in [
        "chmod u+w objects/pack/*; for p in objects/pack/*.pack; do truncate -s -40 $p; done",
        "rm -rf objects/??",
        "for f in objects/??/*; do chmod u+w $f; : >$f; done",
    ]
    .into_iter()
    .enumerate()
    {
        world.origin.work(&format!("echo {n} >n; git add n; git commit -qm {n}; git push -q origin main"));
        prepare_on(&world, &second, &[]).await;
        sh(&mirror(&world), script);
        let prepared = world.prepare(&[]).await.unwrap_or_else(|failure| panic!("{script}: {failure:?}"));
        world.assert_is(&prepared, "main", &[]);
    }
}

#[tokio::test]
async fn a_mirror_that_is_deleted_under_a_prepare_costs_nothing_but_time() {
    let world = World::new(Clean::Clean).await;
    let mirrors = world.root.join("mirrors");
    for n in 0..12 {
        world.origin.work(&format!("echo {n} >n; git add n; git commit -qm {n}; git push -q origin main"));
        let removing = async {
            // Each time at another instant.
            tokio::time::sleep(std::time::Duration::from_millis(40 * n)).await;
            let _ = std::fs::remove_dir_all(&mirrors);
        };
        let (prepared, ()) = tokio::join!(world.prepare(&[]), removing);
        let prepared = prepared.unwrap_or_else(|failure| panic!("{n}: {failure:?}"));
        world.assert_is(&prepared, "main", &[]);
    }
}

#[tokio::test]
async fn a_copy_that_has_it_all_needs_no_mirror() {
    let world = World::new(Clean::Clean).await;
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.clean(work).await.unwrap();
    std::fs::remove_dir_all(world.root.join("mirrors")).unwrap();
    for wanted in [&[][..], &[("branch", "side")], &[("commit", &world.origin.id("main~"))]] {
        world.prepare(wanted).await.unwrap();
        assert!(!world.root.join("mirrors").exists(), "{wanted:?}: the mirror was made again");
    }
    // Another branch, though not the wanted one: a holder finds the remote as it is.
    world.origin.work("git push -q origin main:other");
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    assert_eq!(world.spoil("git rev-parse origin/other"), world.origin.id("main"));
}

/// Each command on the host is a round trip and a login shell.
#[tokio::test]
async fn a_copy_that_needs_no_fetch_is_handed_out_by_one_command() {
    let mut world = World::new(Clean::Clean).await;
    let shell = Arc::new(CutShell::after(1000));
    world.job.parent.as_mut().unwrap().shell = shell.clone();
    let commands = async |wanted: &[(&str, &str)], name: &str| {
        let before = shell.left.load(Ordering::SeqCst);
        let prepared = world.prepare(wanted).await.unwrap();
        let took = before - shell.left.load(Ordering::SeqCst);
        world.assert_is(&prepared, name, &[]);
        let note = std::fs::read_to_string(world.tree().join("../meta/lease")).unwrap();
        assert!(note.contains(&format!("\"commit\":\"{}\"", prepared.access["commit"])), "{note}");
        took
    };
    world.prepare(&[]).await.unwrap();
    let id = world.origin.id("main~");
    for (wanted, name) in [(&[][..], "main"), (&[("branch", "side")], "side"), (&[("commit", &id)], "main~")] {
        assert_eq!(commands(wanted, name).await, 1, "{wanted:?}");
    }
    // A fetch sets the tag in the copy, and brings what is new.
    assert!(commands(&[("tag", "v1")], "v1").await > 1);
    world.origin.work("git commit -q --allow-empty -m new && git push -q origin HEAD:main");
    assert!(commands(&[], "main").await > 1);
    assert_eq!(commands(&[], "main").await, 1);
}

/// Returns when a process waits for the lock of this file. The kernel lists such a process with an arrow (proc_locks(5)).
async fn is_waited_for(file: &str) {
    let inode = std::fs::metadata(file).unwrap().ino();
    loop {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        if locks.lines().any(|line| line.contains(" -> ") && line.contains(&format!(":{inode} "))) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_lock_of_a_dead_process_blocks_no_fetch() {
    let world = World::new(Clean::Clean).await;
    let lock = format!("{}.lock", mirror(&world).display());
    let mut holder = std::process::Command::new("flock")
        // It holds the lock until it is killed.
        .args([&lock, "sh", "-c", "echo held; exec cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 5];
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut word).unwrap();
    world.origin.work("echo new >n; git add n; git commit -qm new; git push -q origin main");
    let preparing = world.prepare(&[]);
    tokio::pin!(preparing);
    tokio::select! {
        _ = &mut preparing => panic!("it did not wait for a live process"),
        () = is_waited_for(&lock) => {}
    }
    // flock(1) and the command that inherited the lock.
    sh(&world.origin.dir, &format!("pkill -KILL -P {0}; kill -KILL {0}", holder.id()));
    holder.wait().unwrap();
    world.assert_is(&preparing.await.unwrap(), "main", &[]);
}

#[tokio::test]
async fn a_mirror_is_repacked_while_it_is_unused() {
    let world = World::new(Clean::Clean).await;
    let packs = || sh(&mirror(&world).join("objects/pack"), "ls *.pack | wc -l").parse::<usize>().unwrap();
    // As many fetches that were too big to be unpacked would leave.
    sh(
        &mirror(&world),
        "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do echo $n | git hash-object -w --stdin | git pack-objects -q objects/pack/pack >/dev/null; done",
    );
    assert!(packs() > 16);
    let used = std::fs::File::open(format!("{}.use", mirror(&world).display())).unwrap();
    rustix::fs::flock(&used, rustix::fs::FlockOperation::LockShared).unwrap();
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.clean(work).await.unwrap();
    assert!(packs() > 16, "not under a reader");
    drop(used);
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.clean(work).await.unwrap();
    assert!(packs() < 4, "{}", packs());
    let fresh = neighbour(&world, "b").await;
    assert_eq!(prepare_on(&world, &fresh, &[]).await.access["commit"], world.origin.id("main"));
}
