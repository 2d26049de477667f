//! Less than all of a repository: some directories of it, or the last commits. As true as all of it.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use support::{TestShell, World, sh};
use wharfinger_adapter::{Blame, Prepared, Verdict, access};
use wharfinger_copies::{Clean, Config, LandRequest, LandedFrom, Landing, Source, land};

/// Directories that lie side by side, in each other, and in what is left out.
const TREE: &str = r#"mkdir -p docs/a/deep docs/b lib/one/two 'sp ace/x' lib/other src-2 && echo a >docs/a/a && echo d >docs/a/deep/d
    echo b >docs/b/b && echo top >docs/top && echo 1 >lib/one/1 && echo 2 >lib/one/two/2 && echo o >lib/other/o && echo l >lib/l
    echo s >'sp ace/x/s' && echo n >src-2/n && printf 'q\n' >'docs/b/q"uote' && printf 't\n' >"$(printf 'lib/one/ta\tb')"
    git add -A && git commit -qm tree && git push -q origin main"#;

/// The part of it that is there with [`DIRS`].
const DIRS: [&str; 3] = ["src", "lib/one", "sp ace/x/"];
const IN: [&str; 12] = [
    ".gitignore",
    "a.txt",
    "lib/l",
    "lib/one/1",
    "lib/one/ta\tb",
    "lib/one/two/2",
    "old.txt",
    "run.sh",
    "sp ace/x/s",
    "src/deep/x",
    "src/main.c",
    "with space.txt",
];

async fn sparse(change: impl FnOnce(&mut Config)) -> World {
    let mut world = World::bare(|config| {
        config.sparse = DIRS.map(String::from).to_vec();
        change(config);
    });
    world.origin.work(TREE);
    world.provision().await.unwrap();
    world
}

fn files(world: &World) -> Vec<String> {
    let text = sh(&world.tree(), "find . -name .git -prune -o ! -type d -printf '%P\\n' | LC_ALL=C sort");
    text.lines().filter(|name| !matches!(*name, "link" | "ümlaut")).map(String::from).collect()
}

/// Files, bytes and directories, against an export of the origin from which all else is taken by name.
fn assert_part(world: &World, prepared: &Prepared, name: &str, row: &str) {
    let id = world.origin.id(name);
    assert_eq!(prepared.access[access::COMMIT], id, "{row}");
    eprintln!("{row}");
    let export = tempfile::tempdir().unwrap();
    let origin = world.origin.url();
    sh(
        export.path(),
        &format!("git -c tar.umask=022 --git-dir='{origin}' archive {id} | tar x; rm -rf docs src-2 lib/other"),
    );
    sh(export.path(), &format!("diff -r --no-dereference --exclude=.git . '{}'", world.tree().display()));
    let list = "find . -name .git -prune -o \\( -type f -o -type l -o -type d ! -name . \\) -printf '%y %m %p\\n' | grep -v '^d' | sort; find . -name .git -prune -o -type d -print | sort";
    assert_eq!(sh(&world.tree(), list), sh(export.path(), list), "{row}");
    assert_eq!(world.spoil("git rev-parse HEAD"), id, "{row}");
    assert_eq!(world.spoil("git status --porcelain --ignored"), "", "{row}");
    assert_eq!(world.spoil("git ls-files -t | grep -c '^S'"), "7", "{row}");
}

#[tokio::test]
async fn the_tree_has_these_directories_and_what_is_beside_and_above_them() {
    let world = sparse(|_| {}).await;
    let work = world.work(&[]);
    let prepared = world.prepare_for(work.clone()).await.unwrap();
    assert_eq!(files(&world), IN);
    assert_part(&world, &prepared, "main", "first");
    assert_eq!(prepared.access[access::SPARSE], "lib/one,sp ace/x,src");
    // A holder's git knows of it, and a commit of his leaves the rest alone.
    world.spoil("echo x >>src/main.c; git -c user.name=a -c user.email=a@example.org commit -qam x; git diff --quiet HEAD~ HEAD -- docs lib/other");
    world.clean(work).await.unwrap();

    world
        .origin
        .work("echo more >docs/a/a; echo more >src/main.c; git add -A; git commit -qm more; git push -q origin main");
    let prepared = world.prepare(&[]).await.unwrap();
    assert_part(&world, &prepared, "main", "next");
    assert_eq!(prepared.access[access::CHANGED], "1", "what is not in the tree is not written");
}

/// States that builds leave, and what they would show if they were believed.
const MANGLES: [(&str, &str); 16] = [
    ("nothing", ""),
    ("all of it", "git sparse-checkout disable"),
    ("other directories", "git sparse-checkout set docs"),
    ("no patterns", "rm -f .git/info/sparse-checkout"),
    ("false patterns", "printf '/*\\n!/*/\\n/docs/\\n' >.git/info/sparse-checkout; git read-tree -mu HEAD"),
    ("patterns by name", "git sparse-checkout set --no-cone '*.c' '!lib'"),
    ("a link for patterns", "rm .git/info/sparse-checkout; ln -s /etc/passwd .git/info/sparse-checkout"),
    ("configured off", "git config core.sparseCheckout false"),
    ("a file in the way", "mkdir -p docs/a; echo evil >docs/a/a"),
    ("a true file in the way", "mkdir -p docs/a; echo a >docs/a/a"),
    ("a directory in the way", "mkdir -p docs/a/a/b; echo evil >docs/a/a/b/c"),
    ("a link in the way", "ln -s /etc docs"),
    ("empty directories", "mkdir -p docs/a/deep docs/new lib/other"),
    ("a file that is not skipped", "git update-index --skip-worktree src/main.c; echo evil >src/main.c"),
    ("a file that is not there", "rm src/main.c; git update-index --skip-worktree src/main.c"),
    (
        "skipped files not skipped",
        "git ls-files -z docs lib/other src-2 | git update-index -z --no-skip-worktree --stdin",
    ),
];

/// Git does not remove that directory, so all of the tree is written anew.
const EMPTIED: &str = "a directory in the way";

#[tokio::test]
async fn a_part_that_a_build_spoils_is_put_right() {
    let mut world = sparse(|_| {}).await;
    for (row, script) in MANGLES {
        for cleaned in [true, false] {
            let work = world.work(&[]);
            let prepared = world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{row}: {failure:?}"));
            assert_part(&world, &prepared, "main", row);
            world.spoil(script);
            if cleaned {
                world.clean(work).await.unwrap_or_else(|failure| panic!("{row}: {failure:?}"));
            }
            let (prepared, _) = world.prepare_as_the_broker_does(row, &[]).await;
            assert_part(&world, &prepared, "main", row);
            assert!(prepared.access[access::WARMTH] == "same" || row == EMPTIED, "{row}: it was emptied");
        }
    }
    // After it was cleaned, when the index is known.
    for (row, script) in MANGLES {
        let work = world.work(&[]);
        world.prepare_for(work.clone()).await.unwrap();
        world.clean(work).await.unwrap();
        world.spoil(script);
        let (prepared, _) = world.prepare_as_the_broker_does(row, &[]).await;
        assert_part(&world, &prepared, "main", row);
        assert!(prepared.access[access::WARMTH] == "same" || row == EMPTIED, "{row}: it was emptied");
    }
}

#[tokio::test]
async fn a_kept_path_stays_and_no_link_leads_out_of_it() {
    let world = sparse(|config| config.clean = Clean::Keep).await;
    let outside = world.origin.dir.join("outside");
    sh(&world.origin.dir, "mkdir -p outside/a; echo mine >outside/a/a; echo mine >outside/top");
    for n in 0..2 {
        let work = world.work(&[]);
        world.prepare_for(work.clone()).await.unwrap();
        world.spoil("mkdir -p target; echo built >target/x; rm -rf docs; ln -s \"$ORIGIN/outside\" docs");
        if n == 1 {
            world.clean(work).await.unwrap();
        }
        world.prepare(&[]).await.unwrap();
        assert_eq!(sh(&outside, "cat a/a top"), "mine\nmine");
        assert_eq!(world.spoil("cat target/x"), "built");
        assert_eq!(world.spoil("git ls-files -t src | grep -c '^H'"), "2");
    }
}

#[tokio::test]
async fn another_choice_of_directories_takes_effect_at_the_next_lease() {
    let mut world = sparse(|_| {}).await;
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.clean(work).await.unwrap();
    let mut config = Config::new(world.origin.url());
    config.min_free_disk_mb = 1;
    config.sparse = vec!["docs/b".into()];
    world.adapter = wharfinger_copies::CopiesAdapter::new("copies".into(), config.clone()).unwrap();
    world.prepare_as_the_broker_does("other", &[]).await;
    assert_eq!(world.spoil("ls docs docs/b; ls -d lib src 2>/dev/null || :"), "docs:\nb\ntop\n\ndocs/b:\nb\nq\"uote");
    config.sparse = Vec::new();
    world.adapter = wharfinger_copies::CopiesAdapter::new("copies".into(), config).unwrap();
    let (prepared, _) = world.prepare_as_the_broker_does("all", &[]).await;
    world.assert_is(&prepared, "main", &[]);
}

#[tokio::test]
async fn one_of_several_repositories_may_be_sparse() {
    let mut world = World::bare(|config| {
        let address = std::mem::take(&mut config.repository);
        let source = |sparse: &[&str]| Source {
            repository: address.clone(),
            default_branch: None,
            sparse: sparse.iter().map(|dir| (*dir).to_string()).collect(),
        };
        config.repositories = [("app".to_string(), source(&["src/deep"])), ("all".to_string(), source(&[]))].into();
        config.default = Some("all".into());
    });
    world.origin.work(TREE);
    world.job.op += 1;
    let job = wharfinger_adapter::ProvisionJob { resource: world.job.clone(), attempt: 0 };
    world.job.handle = Some(wharfinger_adapter::Adapter::provision(&world.adapter, &job).await.unwrap().handle);
    let prepared = world.prepare(&[]).await.unwrap();
    assert_eq!(
        sh(&world.tree(), "ls -d app/*/ all/*/ app/src/* | tr '\\n' ' '").replace("\"", ""),
        "all/docs/ all/lib/ all/sp ace/ all/src-2/ all/src/ app/src/ app/src/deep app/src/main.c"
    );
    assert_eq!(prepared.access["sparse.app"], "src/deep");
    assert!(!prepared.access.contains_key(access::SPARSE));
}

fn from(world: &World, prepared: &Prepared) -> LandedFrom {
    LandedFrom {
        ca_file: String::new(),
        resource: world.job.resource.clone(),
        path: prepared.access[access::PATH].clone(),
        repository: prepared.access[access::REPOSITORY].clone(),
        fence: None,
        sparse: prepared
            .access
            .get(access::SPARSE)
            .map(|dirs| dirs.split(',').map(String::from).collect())
            .unwrap_or_default(),
    }
}

#[tokio::test]
async fn changes_in_a_part_land_and_the_rest_stays() {
    let world = sparse(|_| {}).await;
    let prepared = world.prepare(&[]).await.unwrap();
    // One gone, one changed, one new where the pool has nothing, and one there that was not.
    world.spoil("rm lib/one/1; echo changed >src/main.c; mkdir -p docs/b; echo new >docs/new; echo over >docs/b/b");
    let mut request = LandRequest::new("part-1", "main");
    request.changes = true;
    let landing = land(&TestShell::default(), &from(&world, &prepared), &request).await.unwrap();
    assert!(matches!(landing, Landing::Landed(_)), "{landing:?}");
    let changed = sh(&world.origin.dir.join("origin.git"), "git diff --name-status main~ main");
    assert_eq!(changed, "M\tdocs/b/b\nA\tdocs/new\nD\tlib/one/1\nM\tsrc/main.c");
}

async fn shallow(depth: u32) -> World {
    let mut world = World::bare(|config| config.depth = Some(depth));
    world
        .origin
        .work("for i in 1 2 3 4 5 6; do echo $i >n; git add n; git commit -qm $i; done; git push -q origin main");
    world.provision().await.unwrap();
    world
}

#[tokio::test]
async fn a_pool_with_depth_has_that_number_of_commits() {
    let world = shallow(2).await;
    let work = world.work(&[]);
    let prepared = world.prepare_for(work.clone()).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    assert_eq!(prepared.access[access::DEPTH], "2");
    let count = |what: &str| world.spoil(&format!("git rev-list --count {what}"));
    assert_eq!((count("HEAD"), count("origin/side")), ("2".into(), "2".into()));
    let mirror = sh(&world.root.join("mirrors"), "ls -d */ | head -n 1");
    assert_eq!(sh(&world.root.join("mirrors").join(&mirror), "git rev-list --count main"), "2");
    world.clean(work).await.unwrap();

    // New commits, a branch, a tag and an id that lies beyond.
    world.origin.work("for i in 7 8 9; do echo $i >n; git add n; git commit -qm $i; done; git push -q origin main");
    let prepared = world.prepare(&[("branch", "main")]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
    assert_eq!(count("HEAD"), "2");
    let prepared = world.prepare(&[("branch", "side")]).await.unwrap();
    world.assert_is(&prepared, "side", &[]);
    let prepared = world.prepare(&[("tag", "v1a")]).await.unwrap();
    world.assert_is(&prepared, "v1a", &[]);
    let old = world.origin.id("main~5");
    let prepared = world.prepare(&[("commit", &old)]).await.unwrap();
    world.assert_is(&prepared, "main~5", &[]);
    assert_eq!(world.check().await, Verdict::Healthy);
    // By its beginning only what is there is known.
    let failure = world.prepare(&[("commit", &world.origin.id("main~4")[..9])]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "REF_NOT_FOUND"));
    let failure = world.prepare(&[("merge", "side")]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "MERGE_NEEDS_HISTORY"));
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
}

#[tokio::test]
async fn history_that_a_build_cuts_is_put_right() {
    let mut world = shallow(3).await;
    for (row, script) in [
        ("nothing", ""),
        ("deepened", "git fetch -q --unshallow origin"),
        ("cut shorter", "git rev-parse HEAD >.git/shallow"),
        ("no list", "rm .git/shallow"),
        ("garbage", "echo garbage >.git/shallow"),
        ("unknown commits", "echo 0123456789012345678901234567890123456789 >>.git/shallow"),
        ("a link", "ln -sf /etc/passwd .git/shallow"),
        ("a pipe", "rm .git/shallow; mkfifo .git/shallow"),
        ("a directory", "rm .git/shallow; mkdir .git/shallow"),
        ("objects gone", "rm -rf .git/objects/pack/*"),
    ] {
        for cleaned in [true, false] {
            let work = world.work(&[]);
            world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{row}: {failure:?}"));
            world.spoil(script);
            if cleaned {
                // The damage may be found here already.
                let _ = world.clean(work).await;
            }
            let (prepared, _) = world.prepare_as_the_broker_does(row, &[]).await;
            world.assert_is(&prepared, "main", &[]);
            let count: u32 = world.spoil("git rev-list --count HEAD").parse().unwrap();
            assert!(count >= 3, "{row}: {count} commits");
        }
    }
    for (row, script) in [
        ("no list", "rm -f */shallow"),
        ("garbage", "for m in */; do echo garbage >$m/shallow; done"),
        ("cut shorter", "for m in */; do git --git-dir=$m rev-parse main >$m/shallow; done"),
    ] {
        sh(&world.root.join("mirrors"), script);
        world.origin.work("date +%N >n; git add n; git commit -qm n; git push -q origin main");
        let (prepared, _) = world.prepare_as_the_broker_does(row, &[]).await;
        world.assert_is(&prepared, "main", &[]);
        assert_eq!(world.check().await, Verdict::Healthy, "{row}");
    }
}

#[tokio::test]
async fn commits_on_a_shallow_history_land() {
    let world = shallow(1).await;
    let prepared = world.prepare(&[]).await.unwrap();
    world.spoil("echo new >new; git add new; git -c user.name=a -c user.email=a@example.org commit -qm new");
    // Another push was first, so it is a merge.
    world.origin.work("echo other >other; git add other; git commit -qm other; git push -q origin main");
    let landing =
        land(&TestShell::default(), &from(&world, &prepared), &LandRequest::new("cut-1", "main")).await.unwrap();
    assert!(matches!(landing, Landing::Landed(_)), "{landing:?}");
    let git_dir = world.origin.dir.join("origin.git");
    assert_eq!(sh(&git_dir, "git rev-list --count main; git show main:new main:other"), "11\nnew\nother");

    // From a branch that the target has little of: what is beyond the cut is had from the remote.
    let prepared = world.prepare(&[("branch", "side")]).await.unwrap();
    world.spoil("echo new >side2; git add side2; git -c user.name=a -c user.email=a@example.org commit -qm side2");
    let landing =
        land(&TestShell::default(), &from(&world, &prepared), &LandRequest::new("cut-2", "main")).await.unwrap();
    assert!(matches!(landing, Landing::Landed(_)), "{landing:?}");
    assert_eq!(
        sh(&git_dir, "git show main:side2 main:side.txt main:new; git fsck 2>&1 | grep -v dangling || :"),
        "new\nside\nnew"
    );

    // A commit that was fetched by id may be on no branch at all.
    let lost = world.origin.work("git checkout -q --detach main; echo l >l; git add l; git commit -qm l; echo m >m; git add m; git commit -qm m; git push -q origin HEAD:refs/pull/9/head; git rev-parse HEAD; git checkout -q main");
    let prepared = world.prepare(&[("commit", &lost)]).await.unwrap();
    let failure = land(&TestShell::default(), &from(&world, &prepared), &LandRequest::new("cut-3", "main"))
        .await
        .unwrap_err()
        .failure("main");
    assert_eq!((failure.blame, failure.reason), (Blame::Request, "LANDING_NEEDS_HISTORY"), "{failure}");
}
