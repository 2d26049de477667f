//! States in which a holder may leave a copy, and what becomes of them. None is handed out wrong, and none needs a human.

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test file uses the rest
mod support;

use support::World;
use support::broker::Then;
use support::odd_rows;
use support::rows::{self, Row};
use wharfinger_adapter::Verdict;
use wharfinger_copies::Clean;

/// On this machine's shell, as one holder left it to the next.
async fn play(rows: &[Row]) {
    World::new(Clean::Clean).await.play(rows, Then::Left).await;
}

#[tokio::test]
async fn faults_of_the_repository_are_found() {
    play(rows::BROKEN).await;
}

#[tokio::test]
async fn remains_of_a_killed_git_are_found() {
    play(rows::KILLED).await;
}

#[tokio::test]
async fn objects_that_are_missing_or_forged() {
    play(rows::OBJECTS).await;
}

#[tokio::test]
async fn attacks_by_configuration() {
    play(rows::CONFIGURATION).await;
}

#[tokio::test]
async fn files_that_are_not_the_commits() {
    play(rows::FILES).await;
}

#[tokio::test]
async fn hostile_configuration_of_git_is_found() {
    play(odd_rows::GIT).await;
}

#[tokio::test]
async fn faults_of_the_host_under_a_copy_are_found() {
    play(odd_rows::HOST).await;
}

#[tokio::test]
async fn changes_at_the_remote_are_found() {
    let mut world = World::new(Clean::Clean).await;
    world.origin.work("git push -q origin main:feat");
    let prepared = world.prepare(&[("branch", "feat")]).await.unwrap();
    world.assert_is(&prepared, "feat", &[]);

    // A directory of branches where a branch was, and back.
    world.origin.work("git push -q origin :feat side:feat/x");
    let (prepared, reason) = world.prepare_as_the_broker_does("feat/x", &[("branch", "feat/x")]).await;
    assert_eq!(reason, None);
    world.assert_is(&prepared, "feat/x", &[]);
    world.spoil("git pack-refs --all; git branch feat/x/y");
    world.origin.work("git push -q origin :feat/x main:feat");
    let prepared = world.prepare(&[("branch", "feat")]).await.unwrap();
    world.assert_is(&prepared, "feat", &[]);
    assert_eq!(world.prepare(&[("branch", "feat/x")]).await.unwrap_err().reason, "REF_NOT_FOUND");

    // History rewritten, a tag moved.
    world.prepare(&[("branch", "side")]).await.unwrap();
    world.origin.work("git checkout -q side; git reset -q --hard v1; echo other >other; git add other; git commit -qm other; git push -qf origin side; git tag -f v1 side >/dev/null; git push -qf origin v1; git checkout -q main");
    for params in [("branch", "side"), ("tag", "v1"), ("ref", "v1")] {
        let prepared = world.prepare(&[params]).await.unwrap();
        world.assert_is(&prepared, "side", &[]);
    }
    // No branch is left behind for the next holder.
    assert_eq!(world.spoil("git for-each-ref --format='%(refname)' refs/heads refs/wharfinger"), "");
}

#[tokio::test]
async fn a_file_in_a_submodules_place_is_removed() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(
        "git update-index --add --cacheinfo 160000,$(git rev-parse v1),sub/mod; git commit -qm 'a submodule'; git push -q origin main; git reset -q --hard",
    );
    for keep in [false, true] {
        let prepared = world.prepare(&[]).await.unwrap();
        world.assert_is(&prepared, "main", &[]);
        world.spoil("git clone -q $ORIGIN/origin.git sub/mod; cd sub/mod; echo x >x; git config core.fsmonitor \"touch $FLAG\"; mkdir -p ../../.git/modules/x; rm -f $FLAG");
        if keep {
            world.spoil("mkdir $ORIGIN/away; mv sub/mod $ORIGIN/away; rmdir sub; ln -s $ORIGIN/away sub");
        }
        let prepared = world.prepare(&[("branch", if keep { "main" } else { "side" })]).await.unwrap();
        world.assert_is(&prepared, if keep { "main" } else { "side" }, &[]);
        assert!(!world.flag().exists());
    }
    assert!(world.origin.dir.join("away/mod/x").exists());
}

#[tokio::test]
async fn a_clean_up_meets_the_same_states() {
    let mut world = World::new(Clean::Clean).await;
    for (script, reason) in [
        (
            "mkdir -p ro/x; echo x >ro/x/y; chmod 000 ro/x; chmod 500 ro; : >.git/index.lock; git init -q nested; echo x >nested/x",
            None,
        ),
        ("git config user.name me; git checkout -qb mine; echo x >x; git add x; git commit -qm x", None),
        ("rm -rf .git", Some("GIT_DIR_MISSING")),
        ("echo garbage >.git/HEAD", Some("HEAD_BROKEN")),
    ] {
        let work = world.work(&[]);
        world.prepare_for(work.clone()).await.unwrap();
        world.spoil(script);
        let failure = world.clean(work).await.err();
        assert_eq!(failure.map(|failure| failure.reason), reason, "{script}");
        match reason {
            None => assert_eq!(world.spoil("git status --porcelain --ignored"), ""),
            Some(reason) => {
                assert!(
                    matches!(world.check().await, Verdict::Mangled { repairable: true, reason: found, .. } if found == reason),
                    "{script}"
                );
                world.repair().await.unwrap();
            }
        }
        assert_eq!(world.check().await, Verdict::Healthy, "{script}");
    }
}

#[tokio::test]
async fn a_check_names_the_state_and_a_holder_may_configure_its_own_copy() {
    let mut world = World::new(Clean::Clean).await;
    world.spoil("git config user.name me");
    assert!(matches!(world.check().await, Verdict::Mangled { repairable: true, reason: "CONFIG_CHANGED", .. }));
    let inode = world.spoil("stat -c %i .");
    world.repair().await.unwrap();
    assert_eq!(world.check().await, Verdict::Healthy);
    assert_eq!(world.spoil("stat -c %i ."), inode, "a small step was enough");

    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.spoil("git config user.name me; git checkout -qb mine");
    assert_eq!(world.check().await, Verdict::Healthy);
    world.clean(work).await.unwrap();
    assert_eq!(world.check().await, Verdict::Healthy);

    let marker = world.home().join("meta/marker");
    std::fs::write(&marker, "res_another\n").unwrap();
    assert!(matches!(world.check().await, Verdict::Gone { reason: "OTHER_RESOURCE", .. }));
    std::fs::remove_file(&marker).unwrap();
    assert!(matches!(world.check().await, Verdict::Gone { reason: "DIRECTORY_MISSING", .. }));
    world.provision().await.unwrap();
    assert_eq!(world.check().await, Verdict::Healthy);
}
