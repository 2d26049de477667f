//! Several repositories in one copy: each is proved, each is mended alone, and a lease says which it needs.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use support::{CutShell, World, sh};
use wharfinger_adapter::{
    Adapter, Blame, CleanJob, EndedHow, Failure, HolderWork, PrepareJob, Prepared, ProvisionJob, Verdict, access,
};
use wharfinger_copies::{Clean, Config, CopiesAdapter, Source};

/// A world with the repositories `app` (its origin, the default), `lib` and `doc`.
struct Several(World);

impl Several {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut several = Self::bare(change);
        several.provision().await.unwrap();
        several
    }

    fn bare(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = World::bare(|_| {});
        for name in ["lib", "doc"] {
            sh(
                &world.origin.dir,
                &format!(
                    "git init -q --bare -b main {name}.git; git init -q -b main {name}; cd {name}; git remote add origin ../{name}.git
                    mkdir src; echo {name} >src/{name}; echo target >.gitignore; git add -A; git commit -qm {name}
                    git checkout -qb next; echo next >next; git add -A; git commit -qm next; git push -q origin main next; git checkout -q main"
                ),
            );
        }
        let mut config = world.adapter.config().clone();
        let at = |name: &str| world.origin.dir.join(name).to_str().unwrap().to_string();
        config.repository = String::new();
        for (dir, name) in [("app", "origin.git"), ("lib", "lib.git"), ("doc", "doc.git")] {
            config
                .repositories
                .insert(dir.into(), Source { repository: at(name), default_branch: None, sparse: Vec::new() });
        }
        config.default = Some("app".into());
        change(&mut config);
        world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
        Self(world)
    }

    async fn provision(&mut self) -> Result<(), Failure> {
        self.0.job.op += 1;
        let made = self.0.adapter.provision(&ProvisionJob { resource: self.0.job.clone(), attempt: 0 }).await?;
        assert_eq!(made.access[access::PATH], self.part("app").to_str().unwrap());
        self.0.job.handle = Some(made.handle);
        Ok(())
    }

    fn part(&self, dir: &str) -> PathBuf {
        self.0.tree().join(dir)
    }

    fn origin(&self, dir: &str) -> PathBuf {
        self.0.origin.dir.join(if dir == "app" { "origin.git".to_string() } else { format!("{dir}.git") })
    }

    /// That this part is this commit, bit for bit, and nothing else but what is kept.
    fn assert_part(&self, prepared: &Prepared, dir: &str, name: &str, kept: &str) {
        let id = sh(&self.origin(dir), &format!("git rev-parse '{name}^{{commit}}'"));
        assert_eq!(prepared.access[&format!("commit.{dir}")], id, "{dir}");
        let export = tempfile::tempdir().unwrap();
        sh(
            export.path(),
            &format!("git -c tar.umask=022 --git-dir='{}' archive {id} | tar x", self.origin(dir).display()),
        );
        let tree = self.part(dir);
        sh(
            export.path(),
            &format!("diff -r --no-dereference --exclude=.git --exclude='{kept}' . '{}'", tree.display()),
        );
        assert_eq!(sh(&tree, "git rev-parse HEAD"), id, "{dir}");
        assert_eq!(sh(&tree, "git status --porcelain"), "", "{dir}");
    }

    /// The content of the tree.
    fn listing(&self) -> String {
        sh(&self.0.tree(), "ls -A | tr '\\n' ' '").trim().to_string()
    }
}

#[tokio::test]
async fn each_part_gets_its_commit() {
    let several = Several::new(|_| {}).await;
    assert_eq!(several.0.check().await, Verdict::Healthy);
    let work = several.0.work(&[]);
    let prepared = several.0.prepare_for(work.clone()).await.unwrap();
    for dir in ["app", "lib", "doc"] {
        several.assert_part(&prepared, dir, "main", "-");
    }
    assert_eq!(several.listing(), "app doc lib");
    assert_eq!(prepared.access[access::PATH], several.part("app").to_str().unwrap());
    assert_eq!(prepared.access[access::ROOT], several.0.tree().to_str().unwrap());
    assert_eq!(prepared.access[access::COMMIT], prepared.access["commit.app"]);
    assert!(several.0.home().join("meta/fence").exists());

    sh(
        &several.0.tree(),
        "echo x >app/new; echo x >>lib/src/lib; mkdir doc/target junk; echo x >junk/x; echo x >.hidden; git init -q nested",
    );
    several.0.clean(work).await.unwrap();
    assert_eq!(several.listing(), "app doc lib");
    assert_eq!(several.0.check().await, Verdict::Healthy);
    let next = sh(&several.origin("lib"), "git rev-parse next");
    let prepared = several.0.prepare(&[("tag", "v1"), ("lib.commit", &next), ("doc.branch", "next")]).await.unwrap();
    several.assert_part(&prepared, "app", "v1", "-");
    several.assert_part(&prepared, "lib", "next", "-");
    several.assert_part(&prepared, "doc", "next", "-");

    several.0.adapter.destroy(&several.0.job).await.unwrap();
    assert!(!several.0.home().exists());
}

#[tokio::test]
async fn a_fault_is_reported_with_its_part() {
    let several = Several::new(|_| {}).await;
    for (params, reason, says) in [
        (&[("lib.branch", "nope")][..], "REF_NOT_FOUND", "lib: branch \"nope\""),
        (&[("repositories", "app,nope")], "UNKNOWN_REPOSITORY", "app, doc, lib"),
        (&[("nope.branch", "main")], "UNKNOWN_REPOSITORY", "\"nope\""),
        (&[("repositories", "../lib")], "UNKNOWN_REPOSITORY", "\"../lib\""),
        (&[("lib.tag", "-x")], "BAD_REF_NAME", "lib: "),
    ] {
        let failure = several.0.prepare(params).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Request, reason), "{params:?}: {failure}");
        assert!(failure.message.contains(says), "{failure}");
    }
    assert_eq!(several.0.check().await, Verdict::Healthy);

    // A part's remote is down: who needs the part waits for it, who does not gets the others.
    sh(&several.0.origin.dir, "mv lib.git away.git");
    let failure = several.0.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "REMOTE_UNREACHABLE"), "{failure}");
    assert!(failure.message.starts_with("lib: "), "{failure}");
    // Both: the request's own fault is what it can mend.
    let failure = several.0.prepare(&[("doc.branch", "nope")]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "REF_NOT_FOUND"), "{failure}");
    let prepared = several.0.prepare(&[("repositories", "doc")]).await.unwrap();
    several.assert_part(&prepared, "app", "main", "-");
    several.assert_part(&prepared, "doc", "main", "-");
    assert!(!prepared.access.contains_key("commit.lib"));
    assert_eq!(several.listing(), "app doc", "what could not be proved is not handed out");
    assert_eq!(several.0.check().await, Verdict::Healthy);
    sh(&several.0.origin.dir, "mv away.git lib.git");
    let prepared = several.0.prepare(&[]).await.unwrap();
    several.assert_part(&prepared, "lib", "main", "-");
}

#[tokio::test]
async fn a_strict_lease_gets_what_it_asked_for_and_nothing_else() {
    let mut several = Several::new(|config| config.clean = Clean::Keep).await;
    let work = several.0.work(&[]);
    several.0.prepare_for(work.clone()).await.unwrap();
    sh(&several.0.tree(), "mkdir lib/target; echo cache >lib/target/o; mkdir beside; echo x >beside/x");
    let inode = sh(&several.part("lib"), "stat -c %i .git");
    several.0.clean(work).await.unwrap();

    let work = several.0.work(&[("repositories", "doc"), ("strict", "true")]);
    let prepared = several.0.prepare_for(work.clone()).await.unwrap();
    assert_eq!(several.listing(), "app beside doc", "beside the parts, a pool that keeps keeps");
    assert!(!prepared.access.contains_key("commit.lib"));
    several.assert_part(&prepared, "doc", "main", "-");
    assert_eq!(several.0.check().await, Verdict::Healthy);
    assert_eq!(several.0.adapter.probe(&several.0.job).await.unwrap(), Verdict::Healthy);
    // The holder makes one of its own in the free place, and is not believed.
    sh(&several.0.tree(), "git init -q lib; echo evil >lib/evil; rm -rf beside");
    several.0.clean(work).await.unwrap();
    assert_eq!(several.0.check().await, Verdict::Healthy);
    let prepared = several.0.prepare(&[]).await.unwrap();
    several.assert_part(&prepared, "lib", "main", "target");
    assert_eq!(sh(&several.part("lib"), "cat target/o"), "cache");
    assert_eq!(sh(&several.part("lib"), "stat -c %i .git"), inode, "it was put back, not made anew");

    // Spoilt while it was away, and without a clean-up in between.
    let strict = [("repositories", ""), ("strict", "true")];
    several.0.prepare(&strict).await.unwrap();
    let away = several.0.home().join("parts/lib/parked");
    sh(&away, "echo changed >src/lib; git config core.fsmonitor false; git commit -qam mine");
    let prepared = several.0.prepare(&[]).await.unwrap();
    several.assert_part(&prepared, "lib", "main", "target");
    several.0.prepare(&strict).await.unwrap();
    sh(&away, "rm -rf .git");
    assert!(matches!(several.0.check().await, Verdict::Mangled { reason: "GIT_DIR_MISSING", .. }));
    several.0.prepare(&strict).await.unwrap();
    several.0.prepare(&[]).await.unwrap_err();
    several.0.repair().await.unwrap();
    let prepared = several.0.prepare(&[]).await.unwrap();
    several.assert_part(&prepared, "lib", "main", "-");
}

#[tokio::test]
async fn only_what_is_broken_is_mended() {
    let mut several = Several::new(|_| {}).await;
    for (script, reason, part) in [
        ("rm -rf lib/.git", Some("GIT_DIR_MISSING"), "lib"),
        ("rm -rf lib", Some("TREE_MISSING"), "lib"),
        ("rm -rf lib; cp -a doc lib", None, ""),
        ("echo garbage >doc/.git/HEAD", Some("HEAD_BROKEN"), "doc"),
        ("mv app $ORIGIN/app; ln -s $ORIGIN/app app", Some("TREE_MISSING"), "app"),
        ("rm -rf doc; ln -s lib doc", Some("TREE_MISSING"), "doc"),
        ("rm -rf lib; echo x >lib", Some("TREE_MISSING"), "lib"),
        ("rm -rf lib/.git; ln -s ../doc/.git lib/.git", Some("GIT_DIR_REPLACED"), "lib"),
        ("rm -rf ../parts", None, ""),
        ("rm -rf ../parts/lib; ln -s $ORIGIN ../parts/lib", None, ""),
        ("mkdir ../parts/lib/parked; echo x >../parts/lib/parked/x", Some("GIT_DIR_MISSING"), "lib"),
        ("mv lib x; mv doc lib; mv x doc", None, ""),
        ("git init -q .; echo x >x; chmod 500 .", None, ""),
        ("chmod 500 lib lib/src; chmod 000 doc", None, ""),
        (
            "cd lib; mkdir -p .git/hooks; printf '#!/bin/sh\\ntouch '$FLAG'\\n' >.git/hooks/post-checkout; chmod +x .git/hooks/*; git config core.fsmonitor \"touch $FLAG\"; rm -f $FLAG",
            None,
            "",
        ),
    ] {
        several
            .0
            .prepare(&[("lib.branch", "next")])
            .await
            .unwrap_or_else(|failure| panic!("before {script}: {failure}"));
        let inodes = || {
            ["app", "lib", "doc"]
                .map(|dir| sh(&several.0.tree(), &format!("stat -c %i {dir}/.git/objects 2>/dev/null || :")))
        };
        let before = inodes();
        several.0.spoil(script);
        let failure = several.0.prepare(&[]).await.err();
        if let Some(failure) = &failure {
            // A check reports differently what a script has put right on its way.
            assert_eq!(failure.blame, Blame::Resource, "{script}: {failure}");
            assert!(failure.message.starts_with(&format!("{part}: ")), "{script}: {failure}");
            let verdict = several.0.check().await;
            assert!(matches!(verdict, Verdict::Mangled { repairable: true, .. }), "{script}: {verdict:?}");
            several.0.repair().await.unwrap();
            assert_eq!(several.0.check().await, Verdict::Healthy, "{script}");
            let inodes = || {
                ["app", "lib", "doc"]
                    .map(|dir| sh(&several.0.tree(), &format!("stat -c %i {dir}/.git/objects 2>/dev/null || :")))
            };
            for (at, dir) in ["app", "lib", "doc"].into_iter().enumerate().filter(|(_, dir)| *dir != part) {
                assert_eq!(inodes()[at], before[at], "{script}: {dir} was well");
            }
        }
        let reasons = (failure.map(|failure| failure.reason), reason);
        println!("{script}: {reasons:?}");
        assert_eq!(reasons.0, reasons.1, "{script}");
        let prepared = several.0.prepare(&[]).await.unwrap();
        for dir in ["app", "lib", "doc"] {
            several.assert_part(&prepared, dir, "main", "-");
        }
        assert_eq!(several.listing(), "app doc lib", "{script}");
        assert!(!several.0.flag().exists(), "{script}: the attack ran");
    }
    // The tree that holds them, gone or replaced.
    for script in ["rm -rf ../tree", "mv ../tree $ORIGIN/gone; ln -s $ORIGIN/gone ../tree"] {
        several.0.spoil(script);
        several.0.prepare(&[]).await.unwrap_err();
        several.0.repair().await.unwrap();
        let prepared = several.0.prepare(&[]).await.unwrap();
        several.assert_part(&prepared, "lib", "main", "-");
    }
}

#[tokio::test]
async fn a_mirror_serves_the_same_repository_in_two_pools() {
    let several = Several::new(|_| {}).await;
    let mut config = several.0.adapter.config().clone();
    config.repositories.clear();
    config.default = None;
    config.repository = several.origin("lib").to_str().unwrap().to_string();
    let other = CopiesAdapter::new("libs".into(), config).unwrap();
    let mut job = several.0.job.clone();
    job.resource = format!("{}_lib", job.resource);
    job.handle = None;
    job.handle = Some(other.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap().handle);
    assert_eq!(sh(&several.0.root, "ls -d mirrors/*/ | wc -l"), "3");
    // Both at once, with something new to fetch.
    sh(&several.0.origin.dir.join("lib"), "echo new >new; git add new; git commit -qm new; git push -q origin main");
    let prepare = PrepareJob { resource: job.clone(), work: several.0.work(&[]), child: None };
    let (one, two) = tokio::join!(several.0.prepare(&[]), other.prepare(&prepare));
    let id = sh(&several.origin("lib"), "git rev-parse main");
    assert_eq!((&one.unwrap().access["commit.lib"], &two.unwrap().access["commit"]), (&id, &id));
    other.destroy(&job).await.unwrap();
    assert_eq!(several.0.check().await, Verdict::Healthy);
}

/// Cut off at any step, the next lease is right.
#[tokio::test]
async fn cut_at_any_step_nothing_is_spoilt() {
    let several = Several::new(|_| {}).await;
    for steps in 1.. {
        let shell = Arc::new(CutShell::after(steps));
        let job = several.0.job_on(shell.clone());
        let params: &[(&str, &str)] =
            if steps % 2 == 0 { &[("repositories", "doc"), ("strict", "true")] } else { &[("lib.branch", "next")] };
        let work: HolderWork = several.0.work(params);
        let call = async {
            several.0.adapter.prepare(&PrepareJob { resource: job.clone(), work: work.clone(), child: None }).await?;
            several.0.adapter.clean(&CleanJob { resource: job.clone(), work: work.clone(), ended: EndedHow::Ok }).await
        };
        let done = tokio::select! {
            done = call => Some(done),
            () = shell.cut.notified() => None,
        };
        if steps % 3 == 0 {
            let prepared =
                several.0.prepare(&[("tag", "v1")]).await.unwrap_or_else(|failure| panic!("{steps}: {failure}"));
            several.assert_part(&prepared, "app", "v1", "-");
            several.assert_part(&prepared, "lib", "main", "-");
        }
        if let Some(done) = done {
            done.unwrap();
            break;
        }
    }
    assert_eq!(several.0.check().await, Verdict::Healthy);
}

/// A pool that is changed under its copies: from one repository to several, and back.
#[tokio::test]
async fn a_change_of_the_pool_is_a_repair() {
    let mut several = Several::new(|_| {}).await;
    let parts = several.0.adapter.clone();
    let mut config = parts.config().clone();
    config.repositories.clear();
    config.default = None;
    config.repository = several.origin("app").to_str().unwrap().to_string();
    several.0.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
    let (prepared, reason) = several.0.prepare_as_the_broker_does("to one", &[]).await;
    assert_eq!(reason, Some("GIT_DIR_MISSING"));
    several.0.assert_is(&prepared, "main", &[]);
    several.0.adapter = parts;
    several.0.prepare_as_the_broker_does("to several", &[]).await;
    let prepared = several.0.prepare(&[]).await.unwrap();
    several.assert_part(&prepared, "doc", "main", "-");
    assert_eq!(several.listing(), "app doc lib");
}
