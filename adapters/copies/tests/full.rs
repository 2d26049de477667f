//! A disk that fills up in the midst of things: a small file system holds the copies.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[allow(dead_code, unused_imports, reason = "the other test files use the rest")]
mod support;

use std::path::PathBuf;
use support::{World, sh};
use wharfinger_adapter::{Blame, Verdict};
use wharfinger_testkit::{Need, need};

/// A file system of this size in MiB, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, size: u32) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}m"), "none"])
            .arg(&at)
            .status();
        need(Need::Root, status.is_ok_and(|status| status.success()).then(|| Self(at)))
    }
}

impl Disk {
    /// A file system that can take this many files and directories.
    fn of_inodes(at: PathBuf, inodes: u32) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("size=150m,nr_inodes={inodes}");
        let status =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at).status();
        need(Need::Root, status.is_ok_and(|status| status.success()).then(|| Self(at)))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_half_way_costs_a_try_and_no_copy() {
    let mut world = World::bare(|config| config.min_free_disk_mb = 1);
    let Some(_disk) = Disk::mount(world.root.clone(), 150) else { return };
    world.provision().await.unwrap();

    // The build has filled it: the clean-up gives the room back.
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.spoil("! dd if=/dev/zero of=src/fill bs=64k 2>/dev/null; ! echo x >.git/x");
    world.release("filled by the build", work).await;
    let (prepared, _) = world.serve("filled by the build", world.work(&[])).await;
    world.assert_pure("filled by the build", &prepared, "main", &[]);

    // Another program has filled it, so that it is full within the fetch or the checkout of the new commit.
    for (n, free) in [13, 4].into_iter().enumerate() {
        world.origin.work(&format!(
            "head -c 5000000 /dev/urandom >big; echo {n} >n; git add -A; git commit -qm {n}; git push -q origin main"
        ));
        sh(
            &world.root,
            &format!(
                "f=$(df -Pk . | sed -n 2p | tr -s ' ' | cut -d' ' -f4); dd if=/dev/zero of=ballast bs=1k count=$((f - {free}000)) 2>/dev/null"
            ),
        );
        match world.prepare(&[]).await {
            Ok(prepared) => world.assert_is(&prepared, "main", &[]),
            Err(failure) => {
                println!("{free} MB free: {failure:?}");
                assert!(matches!(failure.blame, Blame::Resource | Blame::Provider), "{failure:?}");
                // It is not handed out, whatever the verdict is.
                let verdict = world.check().await;
                assert!(!matches!(verdict, Verdict::Gone { .. } | Verdict::Unreachable { .. }), "{verdict:?}");
            }
        }
        sh(&world.root, "rm ballast");
        let (prepared, _) = world.serve(&format!("{free} MB free"), world.work(&[])).await;
        world.assert_pure(&format!("{free} MB free"), &prepared, "main", &[]);
        // Room for the next.
        world.origin.work("git rm -q big; git commit -qm 'without'; git push -q origin main");
        world.recycle().await;
        sh(&world.root, "rm -rf mirrors");
    }
}

#[tokio::test]
async fn a_host_without_inodes_is_full_and_neither_commit_nor_copy_is_at_fault() {
    let mut world = World::bare(|config| config.min_free_disk_mb = 1);
    let Some(_disk) = Disk::of_inodes(world.root.clone(), 500) else { return };
    world.provision().await.unwrap();
    let (prepared, _) = world.serve("at first", world.work(&[])).await;
    world.assert_is(&prepared, "main", &[]);

    // More files than there are inodes.
    world.origin.work(
        "mkdir d; i=0; while [ $i -lt 600 ]; do : >d/$i; i=$((i + 1)); done; git add -A; git commit -qm many; git push -q origin main",
    );
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.reason, failure.blame), ("DISK_FULL", Blame::Resource), "{failure:?}");
    assert!(failure.message.contains("free inodes"), "{failure:?}");
    assert_eq!(world.check().await, Verdict::Healthy, "the copy is as it was");

    // None are left for anything.
    sh(&world.root, "mkdir fill; i=0; while touch fill/$i 2>/dev/null; do i=$((i + 1)); done");
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.reason, failure.blame), ("DISK_FULL", Blame::Resource), "{failure:?}");
    sh(&world.root, "rm -rf fill");
    assert_eq!(world.check().await, Verdict::Healthy, "no look at it on a full disk was held against it");
    world.origin.work("git rm -qr d; git commit -qm few; git push -q origin main");
    let (prepared, _) = world.serve("with room again", world.work(&[])).await;
    world.assert_pure("with room again", &prepared, "main", &[]);
}
