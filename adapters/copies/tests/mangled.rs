//! States in which a holder may leave a copy, and what becomes of them. None is handed out wrong, and none needs a human.

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test file uses the rest
mod support;

use support::World;
use wharfinger_adapter::Verdict;
use wharfinger_copies::Clean;

/// How a state ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    /// The next prepare mends it by itself.
    Mended,
    /// Prepare blames the copy with this reason, and a repair mends it.
    Repaired(&'static str),
}

use Ends::{Mended, Repaired};

/// One state: its name, how it is made (in the tree, after a lease of v1), how it ends.
type Row = (&'static str, &'static str, Ends);

/// All objects loose, so that one can be removed or forged.
const LOOSE: &str =
    "mkdir ../p; mv .git/objects/pack/* ../p/ 2>/dev/null || :; for p in ../p/*.pack; do if [ -e $p ]; then git unpack-objects -q <$p; fi; done; rm -rf ../p
    loose() { o=$(git rev-parse $1); echo .git/objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-); }
";

/// Plays one row after the other on the same copy: a hard life, and each row must end well for the next to begin.
async fn play(rows: &[Row]) {
    let mut world = World::new(Clean::Clean).await;
    for (name, script, ends) in rows {
        world.prepare(&[("tag", "v1")]).await.unwrap_or_else(|failure| panic!("before {name}: {failure:?}"));
        let script = script.replace("LOOSE", LOOSE);
        world.spoil(&script);
        let (prepared, reason) = world.prepare_as_the_broker_does(name, &[]).await;
        println!("{name}: {reason:?}");
        assert!(!world.flag().exists(), "{name}: the attack ran");
        world.assert_is(&prepared, "main", &[]);
        assert!(!world.flag().exists(), "{name}: the attack ran later");
        assert_eq!(reason.map_or(Mended, Repaired), *ends, "{name}");
        let evil = world.spoil("git config --get-regexp '^(url|core.ssh|core.fsm|core.hooksp|filter|include)' || :; ls .git/hooks .git/modules .git/worktrees 2>/dev/null | grep -v : || :");
        assert_eq!(evil, "", "{name}");
    }
}

#[tokio::test]
async fn what_is_missing_or_broken_in_the_repository() {
    play(&[
        (".git removed", "rm -rf .git", Repaired("GIT_DIR_MISSING")),
        ("tree removed", "rm -rf ../tree", Repaired("TREE_MISSING")),
        (
            "tree is a link",
            "mkdir $ORIGIN/out; echo mine >$ORIGIN/out/mine; cd ..; rm -rf tree; ln -s $ORIGIN/out tree",
            Repaired("TREE_REPLACED"),
        ),
        (
            ".git is a file",
            "mv .git $ORIGIN/gone.git; echo gitdir: $ORIGIN/gone.git >.git",
            Repaired("GIT_DIR_REPLACED"),
        ),
        (".git is a link", "mv .git $ORIGIN/gone2.git; ln -s $ORIGIN/gone2.git .git", Repaired("GIT_DIR_REPLACED")),
        ("HEAD is garbage", "echo garbage >.git/HEAD", Repaired("HEAD_BROKEN")),
        ("HEAD is empty", ": >.git/HEAD", Repaired("HEAD_BROKEN")),
        ("HEAD is gone", "rm .git/HEAD", Repaired("HEAD_BROKEN")),
        ("HEAD names no commit", "echo 0123456789abcdef0123456789abcdef01234567 >.git/HEAD", Repaired("HEAD_BROKEN")),
        ("HEAD on an unborn branch", "git checkout -q --orphan nothing", Mended),
        ("no objects", "rm -rf .git/objects", Repaired("GIT_DIR_BROKEN")),
        (
            "objects is a link",
            "mv .git/objects $ORIGIN/objects; ln -s $ORIGIN/objects .git/objects",
            Repaired("GIT_DIR_BROKEN"),
        ),
        ("no refs", "rm -rf .git/refs", Repaired("GIT_DIR_BROKEN")),
        ("no configuration", "rm .git/config", Repaired("CONFIG_CHANGED")),
        ("configuration is garbage", "echo '[[[' >.git/config", Mended),
        ("configuration of a later git", "git config core.repositoryformatversion 99", Mended),
        ("bare", "git config core.bare true", Mended),
        ("another work tree", "git config core.worktree /", Mended),
        ("commondir", "echo $ORIGIN/origin.git >.git/commondir", Repaired("GIT_DIR_BROKEN")),
        ("shallow", "git rev-parse HEAD >.git/shallow", Repaired("SHALLOW")),
        ("packed-refs is garbage", "echo garbage >.git/packed-refs", Mended),
        (
            "a fetched ref is garbage",
            "mkdir -p .git/refs/remotes/origin; echo garbage >.git/refs/remotes/origin/main",
            Repaired("OBJECTS_BROKEN"),
        ),
        (
            "a fetched ref leads elsewhere",
            "mkdir -p .git/refs/remotes/origin; echo 'ref: HEAD' >.git/refs/remotes/origin/main",
            Mended,
        ),
        ("index is garbage", "echo garbage >.git/index", Mended),
    ])
    .await;
}

#[tokio::test]
async fn what_a_killed_git_leaves() {
    play(&[
        ("locks", "for f in index HEAD config packed-refs shallow refs/remotes/origin/main refs/remotes/origin/side; do mkdir -p $(dirname .git/$f); : >.git/$f.lock; done", Mended),
        ("a half rebase", "git checkout -qb mine; echo mine >a.txt; git commit -qam mine; git rebase origin/main >/dev/null 2>&1 && exit 1; test -d .git/rebase-merge", Mended),
        ("a conflict in the index", "git checkout -qb mine2; echo mine >a.txt; git commit -qam mine; git merge origin/main >/dev/null 2>&1 && exit 1; git ls-files -u | grep -q .", Mended),
        ("half-written objects", ": >.git/objects/pack/tmp_pack_x; : >.git/objects/tmp_obj_x", Mended),
        ("truncated pack", "chmod u+w .git/objects/pack/*; for p in .git/objects/pack/*.pack; do truncate -s -40 $p; done", Repaired("HEAD_BROKEN")),
    ])
    .await;
}

#[tokio::test]
async fn objects_that_are_missing_or_forged() {
    play(&[
        ("missing blob", "LOOSE rm -f $(loose origin/main:a.txt)", Mended),
        ("missing tree", "LOOSE rm -f $(loose origin/main^{tree})", Mended),
        ("missing commit", "LOOSE rm -f $(loose origin/main)", Repaired("OBJECTS_BROKEN")),
        ("empty blob file", "LOOSE f=$(loose origin/main:a.txt); chmod u+w $f; : >$f", Repaired("PROOF_FAILED")),
        ("forged blob", "LOOSE e=$(echo evil | git hash-object -w --stdin); f=$(loose origin/main:a.txt); rm -f $f; cp $(loose $e) $f", Repaired("PROOF_FAILED")),
        ("forged tree", "LOOSE f=$(loose origin/main^{tree}); rm -f $f; cp $(loose origin/side^{tree}) $f", Repaired("PROOF_FAILED")),
        ("forged commit", "LOOSE f=$(loose origin/main); rm -f $f; cp $(loose v1) $f", Repaired("OBJECTS_BROKEN")),
        ("missing blob that is said to be elsewhere", "LOOSE rm -f $(loose origin/main:a.txt); n=$(git rev-parse HEAD | git pack-objects -q .git/objects/pack/pack); : >.git/objects/pack/pack-$n.promisor; git config remote.origin.promisor true; git config extensions.partialClone origin; git config core.repositoryformatversion 1", Mended),
        ("alternates", "mv .git/objects $ORIGIN/alt; mkdir -p .git/objects/info; echo $ORIGIN/alt >.git/objects/info/alternates", Repaired("HEAD_BROKEN")),
        ("replaced commit", "git replace origin/main HEAD", Mended),
        ("replaced blob", "git replace $(git rev-parse origin/main:a.txt) $(echo evil | git hash-object -w --stdin)", Mended),
        ("grafts", "echo $(git rev-parse origin/main) >.git/info/grafts", Mended),
    ])
    .await;
}

#[tokio::test]
async fn attacks_by_configuration() {
    play(&[
        ("insteadOf", "git clone -q --bare $ORIGIN/origin.git $ORIGIN/evil.git; git --git-dir=$ORIGIN/evil.git update-ref refs/heads/main refs/tags/v1; git config url.$ORIGIN/evil.git.insteadOf $ORIGIN/origin.git", Mended),
        ("remote url", "git config remote.origin.url /no/such", Mended),
        ("second url", "git config --add remote.origin.url $ORIGIN/evil.git; git config remote.origin.fetch +refs/tags/v1:refs/remotes/origin/main", Mended),
        ("uploadpack", "git config remote.origin.uploadpack \"touch $FLAG; git-upload-pack\"", Mended),
        ("hooks", "mkdir -p .git/hooks; for h in post-checkout reference-transaction post-index-change; do printf \"#!/bin/sh\\ntouch $FLAG\\n\" >.git/hooks/$h; chmod +x .git/hooks/$h; done; rm -f $FLAG", Mended),
        ("hooksPath", "mkdir -p $ORIGIN/hooks; printf \"#!/bin/sh\\ntouch $FLAG\\n\" >$ORIGIN/hooks/post-checkout; chmod +x $ORIGIN/hooks/post-checkout; git config core.hooksPath $ORIGIN/hooks", Mended),
        ("fsmonitor", "git config core.fsmonitor \"touch $FLAG\"", Mended),
        ("sshCommand", "git config core.sshCommand \"touch $FLAG\"; git config remote.origin.url ssh://x/y", Mended),
        ("include", "printf '[core]\\n\\tfsmonitor = touch '$FLAG'\\n' >$ORIGIN/inc; git config include.path $ORIGIN/inc", Mended),
        ("filter", "git config filter.evil.smudge \"touch $FLAG; cat\"; git config filter.evil.clean \"touch $FLAG; cat\"; git config filter.evil.process \"touch $FLAG\"; mkdir -p .git/info; echo '* filter=evil' >.git/info/attributes", Mended),
        ("attributes of our own", "mkdir -p .git/info; echo '*.txt eol=crlf' >.git/info/attributes; rm a.txt; git checkout -q a.txt", Mended),
        ("line ends", "git config core.autocrlf true; git rm -q --cached -r .; git reset -q --hard", Mended),
        ("no file modes", "git config core.fileMode false; chmod -x run.sh; chmod +x a.txt", Mended),
        ("no links", "git config core.symlinks false; rm link; git checkout -q link", Mended),
        ("worktree configuration", "git config extensions.worktreeConfig true; printf '[core]\\n\\tfsmonitor = touch '$FLAG'\\n' >.git/config.worktree", Mended),
        ("sparse", "git sparse-checkout set --no-cone src >/dev/null 2>&1", Mended),
        ("worktree", "git worktree add -q $ORIGIN/wt -b wt", Mended),
    ])
    .await;
}

#[tokio::test]
async fn files_that_are_not_the_commits() {
    play(&[
        ("changed, staged, committed", "echo x >>a.txt; echo y >y; git add y; git commit -qm mine; echo z >>src/main.c; git add -A", Mended),
        ("skip-worktree", "git update-index --skip-worktree .gitignore; echo evil >.gitignore", Mended),
        ("assume-unchanged", "git update-index --assume-unchanged src/main.c; echo evil >src/main.c", Mended),
        ("same size and times", "touch -d '2020-01-01' ref; printf 'edoc\\n' >src/main.c; touch -r ref src/main.c; git update-index --refresh -q || :; git add -A; touch -r ref .git/index; rm ref", Mended),
        ("trusted by a lying index", "git config core.ignoreStat true; git config core.trustctime false; git config core.checkStat minimal; git update-index --assume-unchanged src/main.c; touch -r src/main.c ../t; printf 'edoc\\n' >src/main.c; touch -r ../t src/main.c; rm ../t", Mended),
        ("untracked, ignored, empty", "mkdir -p target/x empty/er; echo o >target/x/o; echo n >new; echo o >a.o; echo x >'new
line'", Mended),
        ("excluded", "mkdir -p .git/info; echo secret >>.git/info/exclude; echo s >secret", Mended),
        ("nested repository", "git init -q nested; echo x >nested/x; git init -q target; mkdir -p d/e; git init -q d/e", Mended),
        ("nested repository in a file's place", "git init -q old.txt; (cd old.txt; echo x >x; git add x; git commit -qm x)", Mended),
        ("directory for a file", "rm a.txt; mkdir -p a.txt/b; echo x >a.txt/b/c", Mended),
        ("file for a directory", "rm -rf src; echo x >src", Mended),
        ("link out of the tree", "mkdir -p $ORIGIN/o; echo mine >$ORIGIN/o/main.c; mkdir -p $ORIGIN/o/deep; echo mine >$ORIGIN/o/deep/x; rm -rf src; ln -s $ORIGIN/o src", Mended),
        ("the outside is untouched", "test \"$(cat $ORIGIN/o/main.c $ORIGIN/o/deep/x $ORIGIN/out/mine 2>/dev/null || :)\" = \"$(printf 'mine\\nmine')\"", Mended),
        ("link loop", "ln -s loop loop; mkdir l; ln -s .. l/up", Mended),
        ("read-only directories", "mkdir -p ro/x; echo x >ro/x/y; chmod 000 ro/x; chmod 500 ro src/deep src; chmod 000 a.txt", Mended),
        ("immutable", "echo x >im; echo changed >a.txt; chattr +i im a.txt 2>/dev/null || :", Mended),
        ("a socket and a pipe", "mkfifo pipe; rm a.txt; mkfifo a.txt", Mended),
        ("strange names", "echo x >'-rf'; echo x >'a  b'; mkdir ' '; echo x >' /*'", Mended),
    ])
    .await;
}

#[tokio::test]
async fn what_changes_at_the_remote() {
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
    // Nobody's branch is left behind for the next holder.
    assert_eq!(world.spoil("git for-each-ref --format='%(refname)' refs/heads refs/wharfinger"), "");
}

#[tokio::test]
async fn what_lies_in_a_submodules_place_goes() {
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
