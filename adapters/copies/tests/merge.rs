//! Refs merged onto the wanted commit: the same on each host, proved, and never made of what a holder forged.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use support::{World, sh};
use wharfinger_adapter::{Adapter, Blame, PrepareJob, Prepared, ProvisionJob, Verdict};
use wharfinger_copies::{Clean, LandRequest, LandedFrom, Landing, Source, land};

/// Branches that go well together: `one`, `two`, `three`; and `clash`, which does not go with `one`.
const BRANCHES: &str = r#"
    for b in one two three; do git checkout -q -b $b main~1; echo $b >$b.txt; git add -A; git commit -qm $b; done
    git checkout -q -b clash main~1; echo clash >one.txt; mkdir -p dir; echo x >'dir/sp ace'; git add -A; git commit -qm clash
    git checkout -q one; mkdir -p dir; echo y >'dir/sp ace'; git add -A; git commit -qm 'one more'
    git checkout -q --orphan alone; git commit -qm alone; git push -q origin one two three clash alone; git checkout -q main"#;

fn commit(prepared: &Prepared) -> String {
    prepared.access["commit"].clone()
}

/// The result of git itself, as a tree.
fn by_git(world: &World, base: &str, refs: &str) -> String {
    world.origin.work(&format!(
        "git checkout -q --detach {base}; git fetch -q; for r in {refs}; do git merge -q --no-edit $r >&2; done; git rev-parse HEAD^{{tree}}; git checkout -q main"
    ))
}

#[tokio::test]
async fn refs_are_merged_in_their_order_and_what_is_in_already_changes_nothing() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(BRANCHES);
    let main = world.origin.id("main");

    let three = world.prepare(&[("merge", "one, refs/heads/two,three")]).await.unwrap();
    assert_eq!(three.access["base"], main);
    assert_eq!(world.spoil("git rev-parse HEAD"), commit(&three));
    assert_eq!(world.spoil("git rev-parse HEAD^{tree}"), by_git(&world, "main", "origin/one origin/two origin/three"));
    assert_eq!(
        world.spoil("cat one.txt two.txt three.txt a.txt; git status --porcelain --ignored"),
        "one\ntwo\nthree\ntwo"
    );
    assert_eq!(world.spoil("git symbolic-ref -q HEAD || echo detached"), "detached");
    let subjects = world.spoil("git log --first-parent --format='%s|%an|%ae|%cn' main~0..HEAD 2>/dev/null || git log --first-parent -4 --format='%s|%an|%ae|%cn'");
    let ours = "|Wharfinger|wharfinger@localhost|Wharfinger";
    assert!(
        subjects.starts_with(&format!("Merge three{ours}\nMerge refs/heads/two{ours}\nMerge one{ours}\n")),
        "{subjects}"
    );

    // By ids it is the same commit but for the name in the message; a commit that is there already is no merge at all.
    let (one, side) = (world.origin.id("one"), world.origin.id("side"));
    let side_alone = world.prepare(&[("branch", "side"), ("merge", &format!("main,{main},v1,HEAD"))]).await.unwrap();
    assert_eq!((commit(&side_alone), side_alone.access["base"].clone()), (side.clone(), side.clone()));
    // A fast-forward needs no commit of its own.
    let forward = world.prepare(&[("merge", "side")]).await.unwrap();
    assert_eq!((commit(&forward), forward.access["base"].clone()), (side, main.clone()));
    let by_id = world.prepare(&[("commit", &main), ("merge", &one)]).await.unwrap();
    assert_eq!(world.spoil("git rev-list --parents -1 HEAD"), format!("{} {main} {one}", commit(&by_id)));

    // A plain lease has no base.
    let plain = world.prepare(&[]).await.unwrap();
    assert_eq!(plain.access.get("base"), None);
    world.assert_is(&plain, "main", &[]);
    assert!(!world.home().join("meta/scratch").exists());
}

#[tokio::test]
async fn the_same_inputs_give_the_same_commit_on_each_host() {
    let one = World::new(Clean::Clean).await;
    one.origin.work(BRANCHES);
    let params = [("branch", "main"), ("merge", "one,two")];
    let first = commit(&one.prepare(&params).await.unwrap());
    // Another host with a copy of its own, other settings, another clock and zone; and the same again here.
    let mut other = World::bare(|_| {});
    sh(&other.origin.dir, &format!("rm -rf origin.git; cp -a '{}' origin.git", one.origin.url()));
    let env = [
        ("TZ", "Asia/Kathmandu"),
        ("GIT_AUTHOR_NAME", "somebody"),
        ("GIT_COMMITTER_DATE", "2001-01-01T00:00:00Z"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "merge.renames"),
        ("GIT_CONFIG_VALUE_0", "false"),
    ];
    let env = env.map(|(key, value)| (key.to_string(), value.to_string())).to_vec();
    other.job = other.job_on(std::sync::Arc::new(support::TestShell { env, prefix: Vec::new() }));
    other.provision().await.unwrap();
    assert_eq!(commit(&other.prepare(&params).await.unwrap()), first);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await; // another second, if the clock took part
    assert_eq!(commit(&one.prepare(&params).await.unwrap()), first);
    // Order matters, and is kept.
    assert_ne!(commit(&one.prepare(&[("merge", "two,one")]).await.unwrap()), first);
}

#[tokio::test]
async fn a_conflict_is_the_requests_fault_and_names_files_and_refs() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(BRANCHES);
    let failure = world.prepare(&[("merge", "two,one,clash,three")]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "MERGE_CONFLICT"), "{failure}");
    for part in
        ["\"clash\"", &world.origin.id("clash"), &world.origin.id("main"), "two, one merged", "dir/sp ace", "one.txt"]
    {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    assert!(!failure.message.contains("three"), "{failure}");
    // Nothing is tainted by it.
    assert_eq!(world.check().await, Verdict::Healthy);
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
}

#[tokio::test]
async fn a_conflict_is_reported_by_its_files_and_kinds() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(BRANCHES);
    let zeros = "0".repeat(40);
    for (merge, reason, part) in [
        ("alone", "UNRELATED_HISTORIES", "\"alone\""),
        ("one,nowhere", "REF_NOT_FOUND", "\"nowhere\""),
        (&zeros, "REF_NOT_FOUND", &zeros),
        ("--upload-pack=x", "BAD_REF_NAME", "begins with '-'"),
        ("", "BAD_REF_NAME", "is empty"),
    ] {
        let failure = world.prepare(&[("merge", merge)]).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Request, reason), "{merge}: {failure}");
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[tokio::test]
async fn an_old_git_that_cannot_merge_is_the_operators_to_mend() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(BRANCHES);
    let bin = world.origin.dir.join("bin");
    let real = sh(&world.origin.dir, "command -v git");
    std::fs::create_dir(&bin).unwrap();
    let old = format!(
        "#!/bin/sh\ncase \"$*\" in version) echo 'git version 2.36.1' ;; *' merge-tree '*) echo usage >&2; exit 129 ;; *) exec {real} \"$@\" ;; esac\n"
    );
    std::fs::write(bin.join("git"), old).unwrap();
    sh(&bin, "chmod +x git");
    let env = vec![("PATH".into(), format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))];
    let resource = world.job_on(std::sync::Arc::new(support::TestShell { env, prefix: Vec::new() }));
    let job = PrepareJob { resource, work: world.work(&[("merge", "one")]), child: None };
    let failure = world.adapter.prepare(&job).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "GIT_TOO_OLD"), "{failure}");
    assert!(failure.message.contains("2.38"), "{failure}");
}

/// Programs that the tree, the host's user or a former holder named are not run by a merge.
#[tokio::test]
async fn drivers_hooks_and_attributes_take_no_part() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(
        "printf 'a.txt merge=evil\nl.txt merge=union\n' >.gitattributes; echo 1 >l.txt; git add -A; git commit -qm attributes; git push -q origin main
         git checkout -qb left; echo left >a.txt; git commit -qam left; git checkout -q main
         git checkout -qb right; echo right >b.txt; git add b.txt; git commit -qm right; git checkout -q main
         git checkout -qb lone; echo 2 >>l.txt; git commit -qam lone; git checkout -q main
         git checkout -qb ltwo; echo 3 >>l.txt; git commit -qam ltwo; git checkout -q main
         git push -q origin left right lone ltwo",
    );
    world.prepare(&[]).await.unwrap();
    let evil = "git config merge.evil.driver \"touch '$FLAG'\"; git config merge.default evil; git config rerere.enabled true
        git config commit.gpgSign true; git config gpg.program \"touch '$FLAG'\"
        for h in post-checkout post-merge reference-transaction prepare-commit-msg commit-msg post-commit post-index-change; do
          printf '#!/bin/sh\ntouch \"%s\"\n' \"$FLAG\" >.git/hooks/$h; chmod +x .git/hooks/$h; done
        m=$(ls -d ../../mirrors/*/); mkdir -p $m/hooks; cp .git/hooks/* $m/hooks/; git --git-dir=$m config merge.evil.driver \"touch '$FLAG'\"";
    world.spoil(evil);
    let prepared = world.prepare(&[("merge", "left,right")]).await.unwrap();
    assert_eq!(world.spoil("cat a.txt b.txt"), "left\nright");
    assert!(!world.flag().exists(), "a program of the holder ran");
    assert_eq!(world.spoil("git rev-parse HEAD"), commit(&prepared));
    // Built-in drivers neither: some versions of git read them in a repository without a tree and some do not.
    let failure = world.prepare(&[("merge", "lone,ltwo")]).await.unwrap_err();
    assert_eq!(failure.reason, "MERGE_CONFLICT", "{failure}");
}

/// A blob under a name that is not its own, in the copy, in the mirror, in both: it never gets into a merge.
#[tokio::test]
async fn a_forged_object_never_gets_into_a_merge() {
    // Written over the loose object or, for a packed one, beside an emptied pack.
    const FORGE: &str = "forge() { mkdir -p p; mv $1/objects/pack/* p/ 2>/dev/null || :; for p in p/*.pack; do [ -f $p ] && git --git-dir=$1 unpack-objects -q <$p || :; done; rm -rf p
        o=$2; f=$1/objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-); rm -f $f
        python3 -c 'import zlib,sys; open(sys.argv[1],\"wb\").write(zlib.compress(b\"blob 5\\0evil\\n\"))' $f; }\n";
    for (row, where_) in [("copy", "forge .git $O"), ("mirror", "forge $M $O"), ("both", "forge .git $O; forge $M $O")]
    {
        let mut world = World::new(Clean::Clean).await;
        world.origin.work(BRANCHES);
        let params = [("merge", "one,two")];
        let good = commit(&world.prepare(&params).await.unwrap());
        let blob = world.spoil("git rev-parse HEAD:one.txt");
        world.prepare(&[]).await.unwrap();
        world.spoil(&format!("{FORGE} O={blob}; M=$(ls -d ../../mirrors/*/); {where_}"));
        if row != "mirror" {
            assert_eq!(
                world.spoil(&format!("git cat-file blob {blob} 2>/dev/null || :")),
                "evil",
                "{row}: the forgery works"
            );
        }
        let (prepared, _) = world.prepare_as_the_broker_does(row, &params).await;
        assert_eq!(commit(&prepared), good, "{row}");
        assert_eq!(
            world.spoil("cat one.txt two.txt; git status --porcelain; git fsck 2>&1 | grep -v dangling || :"),
            "one\ntwo",
            "{row}"
        );
    }
}

#[tokio::test]
async fn a_mirror_that_is_gone_under_a_merge_is_made_again() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(BRANCHES);
    let good = commit(&world.prepare(&[("merge", "one")]).await.unwrap());
    // A git that removes the mirror when the merge begins to read it.
    let bin = world.origin.dir.join("bin");
    let real = sh(&world.origin.dir, "command -v git");
    std::fs::create_dir(&bin).unwrap();
    let mirror = sh(&world.root.join("mirrors"), "ls -d \"$PWD\"/*/").trim_end_matches('/').to_string();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *' --stdin {mirror}') [ -e {bin}/once ] || {{ : >{bin}/once; rm -rf '{mirror}'; }} ;; esac\nexec {real} \"$@\"\n",
        bin = bin.display()
    );
    std::fs::write(bin.join("git"), script).unwrap();
    sh(&bin, "chmod +x git");
    let env = vec![("PATH".into(), format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))];
    let resource = world.job_on(std::sync::Arc::new(support::TestShell { env, prefix: Vec::new() }));
    let job = PrepareJob { resource, work: world.work(&[("merge", "one")]), child: None };
    assert_eq!(commit(&world.adapter.prepare(&job).await.unwrap()), good);
    assert!(bin.join("once").exists(), "the mirror was removed");
    let mut second = world.job.clone();
    second.resource += "_b";
    second.handle = None;
    world.adapter.provision(&ProvisionJob { resource: second, attempt: 0 }).await.unwrap();
}

/// Several repositories in one copy: `merge` is the default one's, and each lands by itself.
#[tokio::test]
async fn each_repository_has_merges_and_landings_of_its_own() {
    let mut world = World::bare(|config| {
        let source =
            |repository: &str| Source { repository: repository.into(), default_branch: None, sparse: Vec::new() };
        let app = std::mem::take(&mut config.repository);
        let lib = app.replace("origin.git", "lib.git");
        config.repositories = [("app".to_string(), source(&app)), ("lib".to_string(), source(&lib))].into();
        config.default = Some("app".into());
    });
    world.origin.work(BRANCHES);
    sh(&world.origin.dir, "git clone -q --bare origin.git lib.git");
    world.job.op += 1;
    let made = world.adapter.provision(&ProvisionJob { resource: world.job.clone(), attempt: 0 }).await.unwrap();
    world.job.handle = Some(made.handle);
    let prepared = world.prepare(&[("merge", "one"), ("lib.merge", "two,three")]).await.unwrap();
    let main = world.origin.id("main");
    assert_eq!((&prepared.access["base"], &prepared.access["base.lib"]), (&main, &main));
    assert_ne!(prepared.access["commit"], prepared.access["commit.lib"]);
    let tree = world.tree();
    assert_eq!(sh(&tree.join("app"), "cat one.txt; git rev-parse HEAD"), format!("one\n{}", prepared.access["commit"]));
    assert_eq!(
        sh(&tree.join("lib"), "cat two.txt three.txt; git rev-parse HEAD"),
        format!("two\nthree\n{}", prepared.access["commit.lib"])
    );

    let from = LandedFrom {
        resource: world.job.resource.clone(),
        path: tree.join("lib").to_str().unwrap().to_string(),
        repository: prepared.access["repository.lib"].clone(),
        fence: None,
        sparse: Vec::new(),
        ca_file: String::new(),
    };
    let landing = land(&support::TestShell::default(), &from, &LandRequest::new("lib-1", "main")).await.unwrap();
    assert!(matches!(landing, Landing::Landed(push) if push.commit == prepared.access["commit.lib"]));
    let git_dir = world.origin.dir.join("lib.git");
    assert_eq!(sh(&git_dir, "git rev-parse main"), prepared.access["commit.lib"]);
    assert_eq!(world.origin.id("main"), main, "the other one has not moved");
}
