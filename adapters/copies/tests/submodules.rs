//! Submodules: filled, recursively, proved, and mended by the next lease whatever a holder did to them.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::path::PathBuf;
use support::{World, sh};
use wharfinger_adapter::{Blame, Prepared, Verdict, access};
use wharfinger_copies::{Clean, Config, CopiesAdapter};

/// Origins beside each other: `origin` has `mod` at `sub/mod` (by a relative address) and at `other` (by a whole one), and
/// `mod` has `inner` at `in`.
async fn world(change: impl FnOnce(&mut Config)) -> World {
    let mut world = World::bare(|config| {
        config.submodules = true;
        change(config);
    });
    for name in ["inner", "mod"] {
        sh(
            &world.origin.dir,
            &format!(
                "git init -q --bare -b main {name}.git; git init -q -b main w-{name}; cd w-{name}; git remote add origin ../{name}.git; mkdir d; echo {name} >d/{name}; printf 'out\\n' >.gitignore; git add -A; git commit -qm {name}; echo two >two; git add -A; git commit -qm two; git push -q origin main"
            ),
        );
    }
    link(&world, "w-mod", &[("in", "../inner.git", &id(&world, "inner", "main"))]);
    sh(&world.origin.dir.join("w-mod"), "git push -q origin main");
    let whole = world.origin.dir.join("mod.git").to_str().unwrap().to_string();
    let (new, old) = (id(&world, "mod", "main"), id(&world, "mod", "main~1"));
    link(&world, "work", &[("sub/mod", "../mod.git", &new), ("other", &whole, &old)]);
    world.origin.work("git push -q origin main");
    world.provision().await.unwrap();
    world
}

fn id(world: &World, name: &str, rev: &str) -> String {
    sh(&world.origin.dir.join(format!("{name}.git")), &format!("git rev-parse {rev}"))
}

/// Commits these submodules (path, address, commit) in a clone.
fn link(world: &World, clone: &str, links: &[(&str, &str, &str)]) {
    let script: String = links
        .iter()
        .map(|(path, url, id)| {
            format!("git config -f .gitmodules 'submodule.{path}.path' '{path}'; git config -f .gitmodules 'submodule.{path}.url' '{url}'; git update-index --add --cacheinfo '160000,{id},{path}'\n")
        })
        .collect();
    sh(
        &world.origin.dir.join(clone),
        &format!(
            "rm -f .gitmodules; git ls-files -s | sed -n 's/^160000.*\\t//p' | xargs -r git update-index --force-remove\n{script}git add .gitmodules; git commit -qm submodules; git reset -q --hard"
        ),
    );
}

/// That the directory is this commit of this origin, and nothing else; submodules in it aside.
fn assert_tree(world: &World, path: &str, name: &str, rev: &str, kept: &[&str]) {
    let (id, tree) = (id(world, name, rev), world.tree().join(path));
    let export = tempfile::tempdir().unwrap();
    let origin = world.origin.dir.join(format!("{name}.git"));
    sh(export.path(), &format!("git -c tar.umask=022 --git-dir='{}' archive {id} | tar x", origin.display()));
    let skip: String = kept.iter().map(|name| format!(" --exclude='{name}'")).collect();
    sh(export.path(), &format!("diff -r --no-dereference --exclude=.git{skip} . '{}'", tree.display()));
    assert_eq!(sh(&tree, "git rev-parse HEAD"), id, "{path}");
    let said = sh(&tree, "git status --porcelain --ignored");
    let said: Vec<&str> = said.lines().filter(|line| !kept.iter().any(|name| line.contains(name))).collect();
    assert_eq!(said, [""; 0], "{path}");
}

fn assert_all(world: &World, prepared: &Prepared) {
    assert_eq!(prepared.access[access::COMMIT], world.origin.id("main"));
    // A filled submodule is in the way of a plain comparison.
    assert_tree(world, "", "origin", "main", &["mod", "other"]);
    assert_tree(world, "sub/mod", "mod", "main", &["in"]);
    assert_tree(world, "sub/mod/in", "inner", "main", &[]);
    assert_tree(world, "other", "mod", "main~1", &[]);
    assert_eq!(sh(&world.tree(), "git submodule status --recursive | cut -c1 | sort -u"), "");
    assert_eq!(sh(&world.tree(), "git submodule status --recursive | wc -l"), "3");
}

#[tokio::test]
async fn submodules_are_filled_at_every_depth_and_stay_warm() {
    let world = world(|_| {}).await;
    let work = world.work(&[]);
    let prepared = world.prepare_for(work.clone()).await.unwrap();
    assert_all(&world, &prepared);
    let inodes = || sh(&world.tree(), "stat -c %i sub/mod/.git sub/mod/in/.git other/.git; stat -c %i.%Y sub/mod/two");
    let before = inodes();
    world.clean(work).await.unwrap();
    assert_eq!(world.check().await, Verdict::Healthy);
    let prepared = world.prepare(&[]).await.unwrap();
    assert_all(&world, &prepared);
    assert_eq!(inodes(), before, "they were put back, not made anew");

    // A commit without them, and one that has moved.
    let prepared = world.prepare(&[("branch", "side")]).await.unwrap();
    world.assert_is(&prepared, "side", &[]);
    link(&world, "work", &[("sub/mod", "../mod.git", &id(&world, "mod", "main~1"))]);
    world.origin.work("git push -q origin main");
    let prepared = world.prepare(&[]).await.unwrap();
    assert_eq!(prepared.access[access::COMMIT], world.origin.id("main"));
    assert_tree(&world, "sub/mod", "mod", "main~1", &[]);
    assert!(!world.tree().join("other").exists() && !world.tree().join("sub/mod/in").exists());
    assert_eq!(world.spoil("git status --porcelain --ignored"), "");
}

#[tokio::test]
async fn without_the_setting_their_places_are_empty() {
    let world = world(|config| config.submodules = false).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    assert_eq!(sh(&world.tree(), "ls -A sub/mod other"), "other:\n\nsub/mod:");
}

#[tokio::test]
async fn submodules_spoilt_by_a_holder_are_mended_by_the_next_lease() {
    let world = world(|_| {}).await;
    let mut work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    for (n, script) in [
        "echo x >>sub/mod/two; echo x >sub/mod/new; rm sub/mod/d/mod; echo x >sub/mod/in/out",
        "cd sub/mod; git checkout -q -b mine HEAD~1; echo x >x; git add x; git commit -qm mine; cd ../..; git add sub/mod; git commit -qm moved",
        "cd sub/mod; mkdir -p .git/hooks; for h in post-checkout reference-transaction post-index-change; do printf '#!/bin/sh\\ntouch '$FLAG'\\n' >.git/hooks/$h; chmod +x .git/hooks/$h; done",
        "cd sub/mod/in; git config core.fsmonitor \"touch $FLAG\"; git config core.sshCommand \"touch $FLAG\"; git config remote.origin.url /no/such; rm -f $FLAG",
        "cd other; git config filter.evil.smudge \"touch $FLAG; cat\"; mkdir -p .git/info; echo '* filter=evil' >.git/info/attributes",
        "cd sub/mod; mv .git/objects $ORIGIN/alt; mkdir -p .git/objects/info; echo $ORIGIN/alt >.git/objects/info/alternates",
        "rm -rf sub/mod/.git",
        "rm -rf sub/mod/in",
        "rm -rf sub; mkdir $ORIGIN/out; git init -q $ORIGIN/out/mod; echo mine >$ORIGIN/out/mod/mine; ln -s $ORIGIN/out sub",
        "rm -rf other; ln -s sub/mod other",
        "cd sub/mod; git worktree add -q $ORIGIN/wt -b wt; git worktree add -q ../../nested -b nested",
        "git submodule -q absorbgitdirs",
        "cd sub/mod; git update-index --skip-worktree two; echo evil >two; git update-index --assume-unchanged d/mod; echo evil >d/mod",
        "cd sub/mod; : >.git/index.lock; : >.git/HEAD.lock; echo garbage >.git/index",
        "echo garbage >sub/mod/.git/HEAD; echo garbage >other/.git/packed-refs; rm other/.git/config",
        "mkdir ../meta/sub/x ../meta/sub/y; echo ../../meta >../meta/sub/x/path; echo .git >../meta/sub/y/path; for s in ../meta/sub/*; do echo src >$s/path; done",
        "for s in ../meta/sub/*; do rm -rf $s/parked; cp -a src $s/parked; done",
        "rm -rf ../meta/sub; ln -s $ORIGIN ../meta/sub",
        "mkdir -p sub/mod/ro/x; chmod 500 sub/mod/ro sub/mod; chmod 500 sub",
        "cd sub/mod; o=$(git rev-parse HEAD:two); p=.git/objects; mkdir ../p; mv $p/pack/* ../p/ 2>/dev/null || :; for f in ../p/*.pack; do git unpack-objects -q <$f; done; rm -rf ../p; f=$p/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-); e=$(echo evil | git hash-object -w --stdin); rm -f $f; cp $p/$(echo $e | cut -c1-2)/$(echo $e | cut -c3-) $f; rm two; git checkout -q two",
    ]
    .into_iter()
    .enumerate()
    {
        world.spoil(script);
        // With a clean-up in between, and without, as after a crash.
        if n % 2 == 0 {
            world.clean(work.clone()).await.unwrap_or_else(|failure| panic!("{script}: {failure}"));
        }
        work = world.work(&[]);
        let prepared = world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{script}: {failure}"));
        assert_all(&world, &prepared);
        assert!(!world.flag().exists(), "{script}: the attack ran");
        let evil = "for g in sub/mod sub/mod/in other; do ls $g/.git/hooks $g/.git/worktrees 2>/dev/null | grep -v : || :; done";
        assert_eq!(world.spoil(evil), "", "{script}");
    }
    assert_eq!(sh(&world.origin.dir, "cat out/mod/mine"), "mine", "the outside is untouched");
}

#[tokio::test]
async fn a_pool_that_keeps_keeps_in_them_too() {
    let world = world(|config| config.clean = Clean::Keep).await;
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.spoil("echo cache >sub/mod/out; echo changed >sub/mod/two");
    world.clean(work).await.unwrap();
    world.prepare(&[("branch", "side")]).await.unwrap();
    world.prepare(&[]).await.unwrap();
    assert_tree(&world, "sub/mod", "mod", "main", &["in", "out"]);
    assert_eq!(world.spoil("cat sub/mod/out"), "cache");
}

#[tokio::test]
async fn an_invalid_submodule_of_a_commit_is_the_requests_fault() {
    let world = world(|config| config.submodule_urls = vec![format!("{}/", std::env::temp_dir().display())]).await;
    let good = id(&world, "mod", "main");
    let missing = "0123456789abcdef0123456789abcdef01234567";
    for (path, url, id, reason, says) in [
        ("sub/mod", "../mod.git", missing, "SUBMODULE_COMMIT_MISSING", missing),
        ("sub/mod", "ext::sh -c 'touch /tmp/x'", &good, "SUBMODULE_REFUSED", "ext"),
        ("sub/mod", "-u/evil", &good, "SUBMODULE_REFUSED", "sub/mod"),
        ("sub/mod", "http://example.org/x", &good, "SUBMODULE_REFUSED", "http"),
        ("sub/mod", "https://example.org/x", &good, "SUBMODULE_REFUSED", "submodule_urls"),
        ("sub/mod", "../../../../../../../../etc", &good, "SUBMODULE_REFUSED", "sub/mod"),
        ("sub/mod", "/tmp/../etc/x", &good, "SUBMODULE_REFUSED", "'..'"),
    ] {
        link(&world, "work", &[(path, &url.replace('\'', "\""), id)]);
        world.origin.work("git push -q origin main");
        let failure = world.prepare(&[]).await.expect_err(url);
        assert_eq!((failure.blame, failure.reason), (Blame::Request, reason), "{url}: {failure}");
        assert!(failure.message.contains(says), "{url}: {failure}");
        assert_eq!(world.check().await, Verdict::Healthy);
    }
    for (script, says) in [
        ("git update-index --force-remove .gitmodules; rm .gitmodules", "no file .gitmodules"),
        ("rm -f .gitmodules; echo '[[[' >.gitmodules; git add .gitmodules", "cannot read"),
        ("echo '[submodule \"x\"]' >.gitmodules; git add .gitmodules", "sub/mod"),
        (
            "git config -f .gitmodules submodule.../x.path sub/mod; git config -f .gitmodules submodule.../x.url ../mod.git; git add .gitmodules",
            "leads elsewhere",
        ),
    ] {
        world.origin.work(&format!("{script}; git commit -qm wrong; git push -q origin main"));
        let failure = world.prepare(&[]).await.expect_err(script);
        assert_eq!(failure.blame, Blame::Request, "{script}: {failure}");
        assert!(failure.message.contains(says), "{script}: {failure}");
    }
    let prepared = world.prepare(&[("branch", "side")]).await.unwrap();
    world.assert_is(&prepared, "side", &[]);
}

#[tokio::test]
async fn a_remote_that_is_down_is_the_providers() {
    let world = world(|_| {}).await;
    sh(&world.origin.dir, "mv inner.git away.git");
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{failure}");
    assert!(failure.message.starts_with("sub/mod: in: "), "{failure}");
    sh(&world.origin.dir, "mv away.git inner.git");
    let prepared = world.prepare(&[]).await.unwrap();
    assert_all(&world, &prepared);
    // Once the host's mirrors have all the commits, only the name of the branch needs the remote.
    sh(&world.origin.dir, "mv inner.git away.git; mv mod.git away2.git");
    let prepared = world.prepare(&[]).await.unwrap();
    assert_eq!(prepared.access[access::COMMIT], world.origin.id("main"));
    assert_eq!(world.spoil("cat sub/mod/in/d/inner"), "inner");
}

#[tokio::test]
async fn submodules_have_a_maximum_depth() {
    let world = world(|_| {}).await;
    // A repository that has itself inside, as it was one commit before.
    sh(
        &world.origin.dir,
        "git init -q --bare -b main self.git; git init -q -b main w-self; cd w-self; git remote add origin ../self.git; echo x >x; git add x; git commit -qm x",
    );
    for _ in 0..10 {
        let before = sh(&world.origin.dir.join("w-self"), "git rev-parse HEAD");
        link(&world, "w-self", &[("me", "../self.git", &before)]);
    }
    sh(&world.origin.dir.join("w-self"), "git push -q origin main");
    link(&world, "work", &[("sub/mod", "../self.git", &id(&world, "self", "main"))]);
    world.origin.work("git push -q origin main");
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "SUBMODULES_TOO_DEEP"), "{failure}");
    link(&world, "work", &[("sub/mod", "../self.git", &id(&world, "self", "main~5"))]);
    world.origin.work("git push -q origin main");
    world.prepare(&[]).await.unwrap();
    let deepest: PathBuf = world.tree().join("sub/mod/me/me/me/me/me");
    assert!(deepest.join("x").exists() && !deepest.join("me").exists());
}

/// As `git add` of a clone inside of another makes it.
#[tokio::test]
async fn a_submodule_without_an_address_is_named() {
    let world = world(|_| {}).await;
    let stray = "git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,tools/x; git commit -qm stray; git push -q origin HEAD:refs/heads";
    world.origin.work(&format!("{stray}/stray; git rm -q --cached .gitmodules sub/mod other; git commit -qm none; git push -q origin HEAD:refs/heads/none"));
    for branch in ["stray", "none"] {
        let failure = world.prepare(&[("branch", branch)]).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Request, "SUBMODULE_UNKNOWN"), "{branch}: {failure}");
        assert!(
            failure.message.contains("tools/x") && failure.message.contains("git rm --cached"),
            "{branch}: {failure}"
        );
        assert_eq!(world.check().await, Verdict::Healthy, "{branch}");
    }
    // A pool that fills none has an empty directory there, as git leaves it.
    let plain = World::new(Clean::Clean).await;
    plain.origin.work(&format!("{stray}/stray"));
    plain.prepare(&[("branch", "stray")]).await.unwrap();
    assert_eq!(plain.spoil("ls -A tools/x; git status --porcelain"), "");
}

#[tokio::test]
async fn addresses_are_rewritten_before_they_are_checked() {
    let mut world = World::bare(|config| config.submodules = true);
    sh(
        &world.origin.dir,
        "git init -q --bare -b main lib.git; git init -q -b main lib; cd lib; echo lib >l; git add l; git commit -qm lib; git push -q ../lib.git main",
    );
    link(&world, "work", &[("lib", "http://gone.example/team/lib.git", &id(&world, "lib", "main"))]);
    world.origin.work("git push -q origin main");
    world.provision().await.unwrap();
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "SUBMODULE_REFUSED"), "{failure}");
    let mut config = world.adapter.config().clone();
    let here = format!("{}/", world.origin.dir.display());
    config.rewrite.insert("http://gone.example/team/".into(), here.clone());
    config.submodule_urls = vec![here];
    world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
    world.prepare(&[]).await.unwrap();
    assert_eq!(world.spoil("cat lib/l"), "lib");
}
