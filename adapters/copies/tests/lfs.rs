//! Files that git-lfs keeps elsewhere: there with their content, proved, and never run by what the tree says.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::sync::Arc;
use support::{TestShell, World, sh};
use wharfinger_adapter::{Adapter, Blame, ProvisionJob, Verdict};
use wharfinger_copies::{Clean, Config};
use wharfinger_testkit::{Need, need};

/// git-lfs as a person has it who pushes.
const LFS: &str = "git config filter.lfs.process 'git-lfs filter-process'; git config filter.lfs.smudge 'git-lfs smudge -- %f'; git config filter.lfs.clean 'git-lfs clean -- %f'; git config filter.lfs.required true";

/// An origin with large files, which it keeps in its own directory; and git-lfs is there.
async fn world(change: impl FnOnce(&mut Config)) -> Option<World> {
    need(Need::GitLfs, std::process::Command::new("git-lfs").arg("version").output().ok())?;
    let mut world = World::bare(|config| {
        config.lfs = true;
        change(config);
    });
    world.origin.work(&format!(
        "{LFS}; printf '*.bin filter=lfs diff=lfs merge=lfs -text\\n' >.gitattributes; seq 20000 >big.bin; mkdir -p 'a dir'; seq 300 >'a dir/sm all.bin'
        printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%064d\\nsize 3\\n' 7 >fixture.txt
        printf '[lfs]\\n\\turl = http://127.0.0.1:1/evil\\n\\tfetchexclude = *\\n\\tskipdownloaderrors = true\\n' >.lfsconfig
        git add -A; git commit -qm large; git -c lfs.url='file://{0}' -c lfs.fetchexclude= -c lfs.allowincompletepush=true lfs push origin main >/dev/null; git -c core.hooksPath=/dev/null push -q origin main",
        world.origin.url()
    ));
    world.provision().await.unwrap();
    Some(world)
}

/// That the large files of `main` are there, and the rest, and that git sees no change.
fn assert_whole(world: &World, name: &str) {
    // Before git is asked here: a holder's git-lfs puts hooks there by itself.
    assert_eq!(world.spoil("ls .git/hooks"), "", "{name}");
    let content = "{ seq 20000; seq 300; } | sha256sum | cut -d' ' -f1";
    assert_eq!(
        world.spoil("cat big.bin 'a dir/sm all.bin' | sha256sum | cut -d' ' -f1"),
        world.spoil(content),
        "{name}"
    );
    assert_eq!(world.spoil("head -c 7 fixture.txt; git rev-parse HEAD"), format!("version{}", world.origin.id("main")));
    assert_eq!(world.spoil("git status --porcelain --ignored"), "", "{name}");
    assert!(!world.flag().exists(), "{name}: the attack ran");
}

#[tokio::test]
async fn large_files_are_there_and_proved() {
    let Some(world) = world(|_| {}).await else { return };
    assert_eq!(world.check().await, Verdict::Healthy);
    let store = world.root.join("mirrors/lfs/objects");
    let object = "f=$(find . -type f -size +50k | head -1); test -n \"$f\"; ";
    for (n, script, in_store) in [
        (0, "true", ""),
        (1, "echo x >big.bin; rm 'a dir/sm all.bin'", ""),
        (
            2,
            "git cat-file blob HEAD:big.bin >big.bin; git cat-file blob 'HEAD:a dir/sm all.bin' >'a dir/sm all.bin'",
            "",
        ),
        (3, "git update-index --assume-unchanged big.bin; seq 20001 >big.bin", ""),
        (
            4,
            "git config filter.lfs.process \"touch $FLAG\"; git config filter.lfs.smudge \"touch $FLAG; cat\"; git config filter.lfs.clean \"touch $FLAG; cat\"; git config lfs.customtransfer.x.path /bin/false; git config lfs.standalonetransferagent x; git config lfs.url http://127.0.0.1:1/",
            "",
        ),
        (
            5,
            "mkdir -p .git/hooks .git/lfs/objects; git lfs install --local >/dev/null 2>&1 || :; printf \"#!/bin/sh\\ntouch $FLAG\\n\" >.git/hooks/post-checkout; chmod +x .git/hooks/*",
            "",
        ),
        (6, "rm big.bin", "printf x | dd of=$f bs=1 seek=100 conv=notrunc 2>/dev/null"),
        (7, "rm big.bin", "truncate -s 100 $f"),
        (8, "rm big.bin; git cat-file blob HEAD:big.bin >big.bin", "rm -rf ../objects"),
        (9, "rm big.bin", "mv $f ../kept; ln -s $PWD/../kept $f; echo evil >../kept"),
        (10, "mkdir -p .git/info; echo '*.bin -filter' >.git/info/attributes; rm big.bin; git checkout -q big.bin", ""),
    ] {
        let work = world.work(&[]);
        world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("before {script}: {failure}"));
        assert_whole(&world, script);
        if !in_store.is_empty() {
            sh(&store, &format!("{object}chmod -R u+w .; {in_store}"));
        }
        world.spoil(&format!("{script}; rm -f '{}'", world.flag().display()));
        if n % 2 == 0 {
            world.clean(work).await.unwrap_or_else(|failure| panic!("{script}: {failure}"));
            assert_eq!(world.check().await, Verdict::Healthy, "{script}");
        }
        world.prepare(&[]).await.unwrap_or_else(|failure| panic!("{script}: {failure}"));
        assert_whole(&world, script);
    }
    // Another commit, where one has gone and one is another.
    let prepared = world.prepare(&[("branch", "side")]).await.unwrap();
    world.assert_is(&prepared, "side", &[]);
    world.prepare(&[]).await.unwrap();
    assert_whole(&world, "back");
}

#[tokio::test]
async fn an_lfs_failure_names_who_must_act() {
    let Some(mut world) = world(|config| config.clean = Clean::Keep).await else { return };
    world.prepare(&[]).await.unwrap();
    // Pushed without its content.
    world.origin.work(
        "seq 99 >new.bin; git add new.bin; git commit -qm new; git -c core.hooksPath=/dev/null push -q origin main",
    );
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "LFS_OBJECT_MISSING"), "{failure}");
    let oid = world.spoil("seq 99 | sha256sum | cut -d' ' -f1");
    assert!(failure.message.contains(&oid) && failure.message.contains("git lfs push"), "{failure}");
    assert_eq!(world.check().await, Verdict::Healthy);
    world.origin.work(&format!(
        "git -c lfs.url='file://{}' -c lfs.fetchexclude= -c lfs.allowincompletepush=true lfs push --object-id origin {oid} >/dev/null",
        world.origin.url()
    ));
    world.prepare(&[]).await.unwrap();
    assert_eq!(world.spoil("wc -l <new.bin"), "99");

    // No git-lfs on the host.
    let bin = world.origin.dir.join("bin");
    sh(
        &world.origin.dir,
        "mkdir bin; for d in /usr/bin /bin; do for t in $d/*; do case $t in */git-lfs) ;; *) ln -sf $t bin/ ;; esac; done; done; if [ -x /usr/local/bin/git ]; then ln -sf /usr/local/bin/git bin/git; fi",
    );
    let path = bin.to_str().unwrap().to_string();
    world.job = world.job_on(Arc::new(TestShell { env: vec![("PATH".into(), path)], prefix: Vec::new() }));
    let mut job = world.job.clone();
    job.resource = format!("{}_b", job.resource);
    job.handle = None;
    for failure in [
        world.adapter.provision(&ProvisionJob { resource: job, attempt: 0 }).await.map(drop).unwrap_err(),
        world.prepare(&[]).await.map(drop).unwrap_err(),
    ] {
        assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "LFS_MISSING"), "{failure}");
        assert!(failure.message.contains("install git-lfs"), "{failure}");
    }
}

#[tokio::test]
async fn without_the_setting_they_are_pointers() {
    let Some(world) = world(|config| config.lfs = false).await else { return };
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    assert_eq!(world.spoil("head -c 7 big.bin"), "version");
}

/// Many repositories have such blobs, from commits that were made without git-lfs.
#[tokio::test]
async fn blobs_that_are_no_canonical_pointers_are_taken_as_they_are() {
    let Some(world) = world(|_| {}).await else { return };
    world.origin.work(
        r#"raw() { git update-index --add --cacheinfo "100644,$(git hash-object -w --no-filters "$1"),x.bin"; }
        branch() { git commit -qm "$1"; git -c core.hooksPath=/dev/null push -q origin "HEAD:refs/heads/$1"; }
        printf 'content itself\r\n' >../raw; raw ../raw; branch raw
        git cat-file blob HEAD:big.bin | sed 's/$/\r/' >../crlf; raw ../crlf; branch crlf
        git cat-file blob HEAD:big.bin | head -c -1 >../open; raw ../open; branch open"#,
    );
    let right = world.spoil("seq 20000 | sha256sum");
    for branch in ["raw", "crlf", "open", "raw", "main"] {
        let mut work = world.work(&[("branch", branch)]);
        world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{branch}: {failure}"));
        for spoilt in ["true", "rm x.bin", "echo other >x.bin", "git cat-file blob HEAD:x.bin >x.bin"] {
            match branch {
                "raw" => assert_eq!(world.spoil("od -c x.bin"), world.spoil("printf 'content itself\\r\\n' | od -c")),
                "main" => assert_eq!(world.spoil("ls -A x.bin 2>/dev/null || :"), ""),
                _ => assert_eq!(world.spoil("sha256sum <x.bin"), right, "{branch}: {spoilt}"),
            }
            assert_eq!(world.spoil("sha256sum <big.bin"), right, "{branch}: {spoilt}");
            if branch != "main" {
                world.spoil(spoilt);
            }
            work = world.work(&[("branch", branch)]);
            let prepared = world.prepare_for(work.clone()).await;
            prepared.unwrap_or_else(|failure| panic!("{branch}: {spoilt}: {failure}"));
        }
        world.clean(work).await.unwrap();
    }
    assert_eq!(world.check().await, Verdict::Healthy);
}
