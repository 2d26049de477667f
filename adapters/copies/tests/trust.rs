//! Attempts to get a wrong tree handed out by way of what is trusted from one lease to the next: the index that a clean-up
//! has proved, its time stamps, its listing of trees. And that it is trusted at all.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::{World, sh};
use wharfinger_adapter::access;
use wharfinger_copies::{Clean, Config, CopiesAdapter};

/// A lease of this name from its beginning to its end. What is left is what a clean-up has proved.
async fn lease(world: &World, params: &[(&str, &str)]) {
    let work = world.work(params);
    world.prepare_for(work.clone()).await.unwrap();
    world.clean(work).await.unwrap();
}

/// All objects loose, and a way to find one.
const LOOSE: &str =
    "mkdir ../p; mv .git/objects/pack/* ../p/ 2>/dev/null || :; for p in ../p/*.pack; do if [ -e $p ]; then git unpack-objects -q <$p; fi; done; rm -rf ../p
    loose() { o=$(git rev-parse $1); echo .git/objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-); }
    forge() { f=$(loose $1); rm -f $f; cp $2 $f; }
";

/// A name, and what is done to the tree.
type Row = (&'static str, &'static str);

/// Whether the tree is one that a build may leave: after a lease that was cleaned up (a process that was not found, say), or
/// under a lease whose clean-up never came. `to`: the next lease's tag or branch.
async fn play(cleaned: bool, to: &str, rows: &[Row]) {
    let mut world = World::new(Clean::Clean).await;
    for (name, script) in rows {
        let row = format!("{name}, cleaned up: {cleaned}, then {to}");
        if cleaned {
            lease(&world, &[("tag", "v1")]).await;
        } else {
            world.prepare(&[("tag", "v1")]).await.unwrap_or_else(|failure| panic!("before {row}: {failure:?}"));
        }
        world.spoil(&script.replace("LOOSE", LOOSE));
        let params = if to == "main" { ("branch", "main") } else { ("tag", "v1") };
        let (prepared, _) = world.prepare_as_the_broker_does(&row, &[params]).await;
        // The listings in the store that no file is written from are not looked at again after a clean-up. The
        // files are right; git says of such a store that it is broken.
        let files_alone: &[&str] = if cleaned && name.starts_with("forged former") { &["none"] } else { &[] };
        world.assert_is(&prepared, to, files_alone);
        if script.contains("LOOSE") {
            // A forged object that is not of the wanted commit is there still, for the next row to meet.
            world = World::new(Clean::Clean).await;
            continue;
        }
        // Files around the tree are as they were.
        assert_eq!(world.spoil("cat $ORIGIN/out/main.c 2>/dev/null || echo code"), "code", "{row}");
    }
}

const ROWS: &[Row] = &[
    (
        "same size, time of the old file",
        "touch -r src/main.c ../t; printf 'edoc\\n' >src/main.c; touch -r ../t src/main.c; rm ../t",
    ),
    (
        "same size, cp -p",
        "cp -p src/main.c ../t; printf 'edoc\\n' >../u; touch -r ../t ../u; cp -p ../u src/main.c; rm ../t ../u",
    ),
    (
        "another file of the same size and time",
        "printf 'edoc\\n' >../u; touch -r src/main.c ../u; mv -f ../u src/main.c",
    ),
    (
        "a hard link that leads out",
        "mkdir -p $ORIGIN/hard; ln -f src/main.c $ORIGIN/hard/l; touch -r src/main.c ../t; printf 'edoc\\n' >$ORIGIN/hard/l; touch -r ../t src/main.c; rm ../t",
    ),
    ("files that were exchanged", "cp -p a.txt ../t; mv -f .gitignore a.txt; mv ../t .gitignore"),
    ("skip-worktree", "git update-index --skip-worktree src/main.c; printf 'edoc\\n' >src/main.c"),
    (
        "assume-unchanged",
        "git update-index --assume-unchanged src/main.c a.txt; printf 'edoc\\n' >src/main.c; rm a.txt",
    ),
    (
        "an index of somebody else",
        "printf 'edoc\\n' >src/main.c; git add src/main.c; git read-tree HEAD; git update-index --assume-unchanged src/main.c; git write-tree >/dev/null",
    ),
    ("an index that lies about the tree", "printf 'edoc\\n' >src/main.c; git add -A; git write-tree >/dev/null"),
    (
        "one byte of the index",
        "printf 'x' | dd of=.git/index bs=1 seek=100 conv=notrunc 2>/dev/null; printf 'edoc\\n' >src/main.c",
    ),
    ("an index behind a link", "mv .git/index $ORIGIN/index; ln -s $ORIGIN/index .git/index"),
    ("an index that is split", "git update-index --split-index; printf 'edoc\\n' >src/main.c"),
    ("a sparse index", "git sparse-checkout set --cone --sparse-index src >/dev/null 2>&1 || :"),
    ("no index", "rm -f .git/index"),
    (
        "forged subtree",
        "LOOSE t=$(printf '100644 blob %s\\tx\\n' $(git rev-parse HEAD:a.txt) | git mktree); forge origin/main:src/deep $(loose $t)",
    ),
    ("forged root", "LOOSE forge origin/main^{tree} $(loose origin/side^{tree})"),
    ("forged former root", "LOOSE cp $(loose origin/main^{tree}) ../t; forge HEAD^{tree} ../t; rm ../t"),
    (
        "forged former subtree",
        "LOOSE t=$(printf '100644 blob %s\\tx\\n' $(git rev-parse HEAD:.gitignore) | git mktree); forge HEAD:src $(loose $t)",
    ),
    (
        "forged blob",
        "LOOSE e=$(printf 'evil' | git hash-object -w --stdin); forge origin/main:a.txt $(loose $e); forge HEAD:a.txt $(loose $e)",
    ),
    (
        "forged commit of the right tree",
        "LOOSE c=$(git commit-tree -m x origin/main^{tree}); forge origin/main $(loose $c)",
    ),
    ("forged commit of the former tree", "LOOSE c=$(git commit-tree -m x HEAD^{tree}); forge origin/main $(loose $c)"),
    ("HEAD elsewhere", "h=$(git rev-parse origin/side); echo $h >.git/HEAD"),
    (
        "a link to the same directory",
        "mkdir -p $ORIGIN/out; cp -pR src/. $ORIGIN/out; rm -rf src; ln -s $ORIGIN/out src",
    ),
    (
        "a link to a changed directory",
        "mkdir -p $ORIGIN/out2; cp -pR src/. $ORIGIN/out2; printf 'edoc\\n' >$ORIGIN/out2/main.c; rm -rf src; ln -s $ORIGIN/out2 src",
    ),
    ("a link to the same file", "cp -p a.txt $ORIGIN/a; rm a.txt; ln -s $ORIGIN/a a.txt"),
    ("a file for a link", "rm link; printf a.txt >link"),
    ("mode", "chmod +x a.txt; chmod -x run.sh"),
    ("what git does not see", "mkfifo src/pipe; mkdir -p empty/er"),
    ("untracked and ignored", "mkdir target; echo x >target/o; echo x >new; git init -q nested; git init -q target/n"),
    ("in the way of what comes", "rm -rf old.txt; mkdir -p old.txt/x; echo x >old.txt/x/y"),
    ("a link in the way of what comes", "mkdir -p $ORIGIN/o3; ln -s $ORIGIN/o3/made old.txt"),
    (
        "files of the tree in meta",
        "for f in zero changes dirty commit listing heads clock lease.new lease; do rm -rf ../meta/$f; ln a.txt ../meta/$f; done",
    ),
    (
        "garbage in meta",
        "for f in zero changes dirty commit listing heads clock lease.new; do rm -rf ../meta/$f; ln -s $PWD/a.txt ../meta/$f; done",
    ),
    (
        "directories in meta",
        "for f in zero changes dirty commit listing clock; do rm -rf ../meta/$f; mkdir ../meta/$f; done",
    ),
];

#[tokio::test]
async fn each_spoiling_after_a_clean_up_is_seen() {
    play(true, "v1", ROWS).await;
}

#[tokio::test]
async fn each_spoiling_after_a_clean_up_is_seen_at_another_commit() {
    play(true, "main", ROWS).await;
}

#[tokio::test]
async fn each_spoiling_under_a_lease_is_seen() {
    play(false, "v1", ROWS).await;
}

#[tokio::test]
async fn each_spoiling_under_a_lease_is_seen_at_another_commit() {
    play(false, "main", ROWS).await;
}

/// A file that stays open, so that no file that is made after it can be given its inode number.
struct Held(std::fs::File);

impl Held {
    fn open(path: &Path) -> Self {
        Self(std::fs::File::open(path).unwrap())
    }

    /// Whether this very file is what is at the path.
    fn is_at(&self, path: &Path) -> bool {
        self.0.metadata().unwrap().ino() == std::fs::metadata(path).unwrap().ino()
    }
}

/// Leases until the files are old enough to be trusted: then a prepare leaves the index as the clean-up made it. Says so.
async fn until_trusted(world: &World) -> Vec<u8> {
    let index = world.tree().join(".git/index");
    for _ in 0..50 {
        lease(world, &[]).await;
        let proved = std::fs::read(&index).unwrap();
        let prepared = world.prepare(&[]).await.unwrap();
        assert_eq!(
            (prepared.access[access::WARMTH].as_str(), prepared.access[access::CHANGED].as_str()),
            ("same", "0")
        );
        if std::fs::read(&index).unwrap() == proved {
            return proved;
        }
    }
    panic!("nothing is ever trusted");
}

/// A build may change what a file holds and leave its ctime, by the ioctl that moves extents, or on some file systems by a
/// mapping. So no time stamp that a build could see to is believed.
#[tokio::test]
async fn nothing_is_trusted_over_a_lease() {
    let world = World::new(Clean::Clean).await;
    let proved = until_trusted(&world).await;
    // Under a lease, with the very index that was proved before it: every file is hashed all the same, which shows in the
    // time that git notes for it.
    let index = world.tree().join(".git/index");
    std::fs::write(&index, &proved).unwrap();
    let before = Held::open(&index);
    world.prepare(&[]).await.unwrap();
    assert!(!before.is_at(&index), "the index is made anew");
}

#[tokio::test]
async fn a_broker_that_was_started_again_proves_in_full() {
    let mut world = World::new(Clean::Clean).await;
    until_trusted(&world).await;
    lease(&world, &[]).await;
    let index = world.tree().join(".git/index");
    let before = Held::open(&index);
    let mut config = Config::new(world.origin.url());
    config.min_free_disk_mb = 1;
    world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    assert!(!before.is_at(&index), "the index is made anew");
    world.assert_is(&prepared, "main", &[]);
}

#[tokio::test]
async fn a_preparation_reports_how_warm_it_was() {
    let mut world = World::new(Clean::Clean).await;
    let warmth = |prepared: wharfinger_adapter::Prepared| {
        (prepared.access[access::WARMTH].clone(), prepared.access[access::CHANGED].parse::<u32>().unwrap())
    };
    let is = |word: &str, files: u32| (word.to_string(), files);
    assert_eq!(warmth(world.prepare(&[("tag", "v1")]).await.unwrap()), is("cold", 8));
    assert_eq!(warmth(world.prepare(&[("tag", "v1")]).await.unwrap()), is("same", 0));
    world.spoil("echo x >a.txt; rm src/main.c; touch src/deep/x");
    assert_eq!(warmth(world.prepare(&[("tag", "v1")]).await.unwrap()), is("same", 2));
    // a.txt and old.txt; then one more; then back, which removes two and writes one.
    assert_eq!(warmth(world.prepare(&[]).await.unwrap()), is("near", 2));
    assert_eq!(warmth(world.prepare(&[("branch", "side")]).await.unwrap()), is("near", 1));
    assert_eq!(warmth(world.prepare(&[("commit", &world.origin.id("v1"))]).await.unwrap()), is("near", 1));
    world.origin.work("echo three >a.txt; git commit -qam three; git push -q origin main");
    assert_eq!(warmth(world.prepare(&[]).await.unwrap()), is("fetched", 2));
    world.spoil("rm -rf .git");
    world.repair().await.unwrap();
    assert_eq!(warmth(world.prepare(&[]).await.unwrap()), is("cold", 9));
}

#[tokio::test]
async fn patterns_say_what_survives_and_the_rest_goes() {
    let mut world = World::bare(|config| config.keep = vec!["target/".into(), "/notes.txt".into(), "*.cache".into()]);
    world.provision().await.unwrap();
    let work = world.work(&[]);
    world.prepare_for(work.clone()).await.unwrap();
    world.spoil(
        "mkdir -p target/x src/target other; echo o >target/x/o; echo o >src/target/o; echo n >notes.txt; echo n >src/notes.txt
        echo c >src/a.cache; echo d >other/d; echo o >x.o; echo changed >a.txt; git init -q nested; ln -s /etc lnk",
    );
    let kept = ["target", "notes.txt", "a.cache"];
    world.clean(work).await.unwrap();
    assert_eq!(world.spoil("git ls-files -o | sort"), "notes.txt\nsrc/a.cache\nsrc/target/o\ntarget/x/o");
    for to in ["v1", "side", "main"] {
        let prepared = world.prepare(&[("ref", to)]).await.unwrap();
        world.assert_is(&prepared, to, &kept);
        assert!(!world.tree().join("src/notes.txt").exists() && !world.tree().join("other").exists());
        assert_eq!(world.spoil("cat target/x/o src/target/o notes.txt src/a.cache"), "o\no\nn\nc", "{to}");
        world.spoil("echo again >src/notes.txt; mkdir other");
    }
    // A link is no directory, and what is tracked is the commit's whatever the patterns say.
    world.spoil("rm -rf target; ln -s /etc target; rm a.txt; echo tracked >a.txt");
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &["notes.txt", "a.cache", "target"]);
    assert!(std::fs::symlink_metadata(world.tree().join("target")).is_err());
}

#[tokio::test]
async fn a_kept_path_stays_and_trusted_content_is_right_beside_it() {
    let world = World::new(Clean::Keep).await;
    lease(&world, &[("tag", "v1")]).await;
    world.spoil(
        "mkdir target; echo o >target/o; echo evil >old.txt; touch -r a.txt ../t; echo eno >a.txt; touch -r ../t a.txt",
    );
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &["target"]);
    assert_eq!(world.spoil("cat target/o"), "o");
    // A correct file keeps its time, however it came by it.
    world.spoil("touch -d 2020-01-01 src/main.c");
    world.prepare(&[("tag", "v1")]).await.unwrap();
    assert_eq!(world.spoil("date -u -r src/main.c +%Y"), "2020");
    let out = world.origin.dir.join("out");
    assert!(!out.exists(), "{}", sh(&world.origin.dir, "ls"));
}
