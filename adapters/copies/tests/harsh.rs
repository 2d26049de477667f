//! Hosts that are not kind: connections cut at any step, other users, mounts, an environment that misleads.

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::future::Future;
use std::sync::Arc;
use support::{CutShell, TestShell, World, sh};
use wharfinger_adapter::{Adapter, Blame, CleanJob, EndedHow, PrepareJob, ProvisionJob, Verdict};
use wharfinger_copies::Clean;
use wharfinger_testkit::{Need, need};

/// Runs a call whose connection is cut, until it ends or is cut. Says whether it was cut.
async fn until_cut<T>(shell: &CutShell, call: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = call => Some(done),
        () = shell.cut.notified() => None,
    }
}

#[tokio::test]
async fn a_making_that_is_cut_at_any_step_is_taken_up_again() {
    let mut world = World::bare(|_| {});
    for steps in 1.. {
        let shell = Arc::new(CutShell::after(steps));
        let job = ProvisionJob { resource: world.job_on(shell.clone()), attempt: 0 };
        let Some(done) = until_cut(&shell, world.adapter.provision(&job)).await else {
            continue;
        };
        done.unwrap();
        assert!(steps > 4, "the cuts came nowhere");
        break;
    }
    world.provision().await.unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    assert_eq!(sh(&world.home(), "ls"), "meta\ntree");
}

#[tokio::test]
async fn a_lease_that_is_cut_at_any_step_spoils_nothing() {
    let world = World::new(Clean::Clean).await;
    for steps in 1.. {
        let work = world.work(&[("branch", if steps % 2 == 0 { "main" } else { "side" })]);
        let shell = Arc::new(CutShell::after(steps));
        let job = PrepareJob { resource: world.job_on(shell.clone()), work: work.clone(), child: None };
        let prepared = until_cut(&shell, world.adapter.prepare(&job)).await;
        world.spoil("echo junk >junk; echo changed >a.txt; chmod -x run.sh 2>/dev/null || :");
        let job = CleanJob { resource: world.job_on(shell.clone()), work: work.clone(), ended: EndedHow::Expired };
        if let Some(prepared) = prepared {
            prepared.unwrap();
            if let Some(done) = until_cut(&shell, world.adapter.clean(&job)).await {
                done.unwrap();
                break;
            }
        }
        let prepared = world.prepare(&[("tag", "v1")]).await.unwrap();
        world.assert_is(&prepared, "v1", &[]);
    }
    assert_eq!(world.check().await, Verdict::Healthy);
}

#[tokio::test]
async fn a_repair_that_is_cut_at_any_step_can_be_repeated() {
    let mut world = World::new(Clean::Clean).await;
    for steps in 1.. {
        world.spoil("rm -rf .git");
        let shell = Arc::new(CutShell::after(steps));
        let job = world.job_on(shell.clone());
        let done = until_cut(&shell, world.adapter.repair(&job)).await;
        if !matches!(world.check().await, Verdict::Healthy) {
            assert!(done.is_none());
            world.repair().await.unwrap();
        }
        assert_eq!(world.check().await, Verdict::Healthy);
        if done.is_some() {
            break;
        }
    }
}

#[tokio::test]
async fn the_hosts_environment_does_not_mislead() {
    let world = World::new(Clean::Clean).await;
    let flag = world.flag().to_str().unwrap().to_string();
    let env = [
        ("GIT_DIR", "/nonexistent"),
        ("GIT_WORK_TREE", "/"),
        ("GIT_INDEX_FILE", "/nonexistent/index"),
        ("GIT_OBJECT_DIRECTORY", "/nonexistent/objects"),
        ("GIT_ALTERNATE_OBJECT_DIRECTORIES", "/nonexistent/objects"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "core.fsmonitor"),
        ("GIT_CONFIG_VALUE_0", &format!("touch {flag}")),
        ("GIT_CONFIG_PARAMETERS", &format!("'core.fsmonitor=touch {flag}'")),
        ("GIT_EXTERNAL_DIFF", &format!("touch {flag}")),
        ("GIT_TRACE", "1"),
        ("GIT_LITERAL_PATHSPECS", "1"),
        ("GIT_NAMESPACE", "x"),
        ("CDPATH", "/"),
        ("LC_ALL", "de_DE.UTF-8"),
    ];
    let env = env.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
    let job = world.job_on(Arc::new(TestShell { env, prefix: Vec::new() }));
    let prepared =
        world.adapter.prepare(&PrepareJob { resource: job.clone(), work: world.work(&[]), child: None }).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    assert_eq!(world.adapter.check(&job).await.unwrap(), Verdict::Healthy);
    assert!(!world.flag().exists());
}

#[tokio::test]
async fn a_host_without_git_is_the_operators_to_mend() {
    let world = World::bare(|_| {});
    let bin = world.origin.dir.join("bin");
    sh(
        &world.origin.dir,
        "mkdir bin; for t in env sed cat mkdir chmod mv rm find ls grep tr sort sleep df sh; do ln -s $(command -v $t) bin/$t; done",
    );
    let env = vec![("PATH".to_string(), bin.to_str().unwrap().to_string())];
    let job = ProvisionJob { resource: world.job_on(Arc::new(TestShell { env, prefix: Vec::new() })), attempt: 0 };
    let failure = world.adapter.provision(&job).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "GIT_MISSING"), "{failure}");

    sh(&bin, "printf '#!/bin/sh\\necho git version 2.25.1\\n' >git; chmod +x git");
    let failure = world.adapter.provision(&job).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "GIT_TOO_OLD"), "{failure}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn files_of_another_user_are_met() {
    if need(Need::Root, is_root().then_some(())).is_none() {
        return;
    }
    // The origin is root's, and the copy is another user's; the files of the holder's container are root's.
    let mut world = World::bare(|_| {});
    sh(&world.origin.dir, "chmod 755 .; chown 65534:65534 host");
    let prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_string).to_vec();
    world.job = world.job_on(Arc::new(TestShell { env: vec![("HOME".into(), "/nonexistent".into())], prefix }));
    world.provision().await.unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    assert_eq!(prepared.access["commit"], world.origin.id("main"));

    // A root-owned file in a directory of ours goes; one in a directory of root's cannot, which is reported and remembered.
    world.spoil("echo x >rootfile; echo x >a.txt; chown 0:0 rootfile a.txt; chmod 600 rootfile a.txt");
    world.prepare(&[]).await.unwrap();
    assert!(!world.tree().join("rootfile").exists());
    world.spoil("mkdir out; echo x >out/x; chown -R 0:0 out; chmod 755 out");
    let work = world.work(&[]);
    let unclean = world.clean(work).await.unwrap_err();
    assert_eq!(unclean.reason, "CANNOT_REMOVE");
    // The message of git, without the messages of the scripts to each other.
    assert!(unclean.message.contains("out/x"), "{unclean:?}");
    assert!(!unclean.message.contains("Removing ") && !unclean.message.contains("=1"), "{unclean:?}");
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!(failure.blame, Blame::Resource, "{failure:?}");
    assert!(matches!(world.check().await, Verdict::Mangled { .. }));
    assert_eq!(world.repair().await.unwrap_err().reason, "CANNOT_REMOVE");
    assert_eq!(world.adapter.destroy(&world.job).await.unwrap_err().reason, "CANNOT_REMOVE");
    world.spoil("rm -rf out");
    world.adapter.destroy(&world.job).await.unwrap();
}

#[tokio::test]
async fn a_mount_inside_a_copy_is_not_emptied() {
    let world = World::new(Clean::Clean).await;
    let source = world.origin.dir.join("precious");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "precious").unwrap();
    world.spoil("mkdir mnt");
    let mount = |how: &str| {
        std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(how)
            .current_dir(world.tree())
            .status()
            .is_ok_and(|status| status.success())
    };
    let mounted = mount(&format!("mount --bind '{}' mnt 2>/dev/null", source.display()));
    if need(Need::Root, mounted.then_some(())).is_none() {
        mount("umount -l mnt 2>/dev/null");
        return;
    }
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    assert!(source.join("file").exists());

    // In use, so it cannot be unmounted, and is detached.
    world.spoil("mkdir mnt");
    assert!(mount(&format!("mount --bind '{}' mnt", source.display())));
    let open = std::fs::File::open(world.tree().join("mnt/file")).unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    world.spoil("mkdir mnt");
    assert!(mount(&format!("mount --bind '{}' mnt", source.display())));
    world.adapter.destroy(&world.job).await.unwrap();
    assert!(source.join("file").exists());
    drop(open);
}

/// The parts of the hosts' contract that hold for their children too.
#[tokio::test]
async fn the_contract_holds() {
    use wharfinger_host::conformance::adapter as contract;
    let world = World::bare(|_| {});
    contract::check_and_probe_are_healthy(&world.adapter, &world.job).await;
    contract::destroy_twice_is_fine(&world.adapter, &world.job).await;
    contract::destroy_of_what_never_was_is_fine(&world.adapter, &world.job).await;
}
