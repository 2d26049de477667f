//! Origins of daily life that are not as git makes them today: what a copy of them gets, and whose fault a failure is.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[allow(dead_code, unused_imports, clippy::unwrap_used, reason = "the other test files use the rest")]
mod support;

use std::path::PathBuf;
use support::clones::{Files, clone, import, of_tree};
use support::{World, sh};
use wharfinger_adapter::{Adapter, Blame, Verdict, access};
use wharfinger_copies::{Clean, Config, CopiesAdapter};

/// A world whose origin has these commits.
async fn world_of(commits: &[Files], change: impl FnOnce(&mut Config)) -> World {
    let mut world = World::bare(change);
    import(&world.origin.dir.join("origin.git"), commits);
    world.provision().await.unwrap();
    world
}

fn file(content: &[u8]) -> (u32, Vec<u8>) {
    (0o100_644, content.to_vec())
}

/// A commit that no clone can check out is the request's fault: the copy is not doubted, and serves the next lease.
#[tokio::test]
async fn a_tree_that_git_cannot_check_out_is_the_fault_of_the_commit() {
    let long: PathBuf = std::iter::repeat_n("directory", 500).collect();
    let commits = [
        Files::from([("f".into(), file(b"fine\n"))]),
        Files::from([("f".into(), file(b"1\n")), (long.join("f"), file(b"deep\n"))]),
        Files::from([("f".into(), file(b"2\n")), ("x".repeat(300).into(), file(b"long\n"))]),
        Files::from([("f".into(), file(b"3\n")), (".gitattributes".into(), file(b"f working-tree-encoding\n"))]),
    ];
    let world = world_of(&commits, |_| {}).await;
    for name in ["c1", "c2", "c3"] {
        let failure = world.prepare(&[("branch", name)]).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Request, "COMMIT_UNFIT"), "{name}: {failure:?}");
        assert_eq!(world.check().await, Verdict::Healthy, "{name}");
        world.prepare(&[("branch", "c0")]).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        assert_eq!(world.spoil("ls -A; cat f"), ".git\nf\nfine", "{name}");
    }
}

/// Histories with modes and listings that git no longer writes are checked out as git does it.
#[tokio::test]
async fn listings_that_git_would_write_otherwise_are_taken_as_they_are() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(
        r#"bash -eu <<'X'
        hex() { printf '%b' "$(printf '%s' "$1" | sed 's/../\\x&/g')"; }
        tree() { git hash-object -t tree -w --stdin --literally; }
        x=$(echo x | git hash-object -w --stdin); none=$(git hash-object -t tree -w /dev/null)
        sub=$({ printf '100664 x\0'; hex $x; } | tree)
        for kind in mode zero empty; do
            case $kind in
            mode) t=$({ printf '40000 d\0'; hex $sub; printf '100600 f\0'; hex $x; } | tree) ;;
            zero) t=$({ printf '040000 d\0'; hex $sub; printf '100644 f\0'; hex $x; } | tree) ;;
            empty) t=$({ printf '40000 d\0'; hex $sub; printf '40000 e\0'; hex $none; printf '100755 f\0'; hex $x; } | tree) ;;
            esac
            git update-ref refs/heads/$kind $(git commit-tree -m $kind $t)
        done; git push -q origin mode zero empty
X"#,
    );
    let fresh = world.origin.dir.join("fresh");
    for name in ["mode", "zero", "empty", "mode"] {
        let work = world.work(&[("branch", name)]);
        let prepared = world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        clone(&world.origin.dir.join("origin.git"), &prepared.access[access::COMMIT], &fresh);
        assert_eq!(of_tree(&world.tree()), of_tree(&fresh), "{name}");
        assert_eq!(world.spoil("git status --porcelain --ignored"), "", "{name}");
        world.spoil("echo changed >d/x; echo more >more");
        world.clean(work).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
    }
    // A listing that a holder has forged is none of these.
    let forged = "t=$(git rev-parse HEAD:d); f=.git/objects/$(echo $t | cut -c1-2)/$(echo $t | cut -c3-)
        o=$(printf '100644 x\\0%s' \"$(git cat-file tree HEAD | tail -c 20)\" >t; echo evil | git hash-object -w --stdin >/dev/null; git hash-object -t tree -w --literally t)
        git unpack-objects <$(ls .git/objects/pack/*.pack | head -1) 2>/dev/null || :; rm -f t; mkdir -p ${f%/*}
        cp -f .git/objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-) $f";
    world.spoil(forged);
    world.prepare(&[("branch", "mode")]).await.unwrap();
    clone(&world.origin.dir.join("origin.git"), &world.origin.id("mode"), &fresh);
    assert_eq!(of_tree(&world.tree()), of_tree(&fresh));
}

/// An origin that is made anew in another object format is another repository: the copy is gone, and another is made.
#[tokio::test]
async fn an_origin_in_another_object_format_has_the_copy_replaced() {
    let mut world = World::new(Clean::Clean).await;
    world.prepare(&[]).await.unwrap();
    sh(
        &world.origin.dir,
        "rm -rf origin.git; git init -q --bare -b main --object-format=sha256 origin.git; git init -q -b main --object-format=sha256 new
        cd new; echo new >f; git add f; git commit -qm new; git push -q ../origin.git main",
    );
    let failure = world.prepare(&[]).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "ORIGIN_FORMAT"), "{failure:?}");
    let verdict = world.check().await;
    assert!(matches!(&verdict, Verdict::Gone { reason: "ORIGIN_FORMAT", .. }), "{verdict:?}");
    world.adapter.destroy(&world.job).await.unwrap();
    world.job.handle = None;
    world.job.resource.push('2');
    world.provision().await.unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
}

/// The settings that stand for the host's git configuration, and what a shallow origin is called.
#[tokio::test]
async fn a_shallow_origin_is_reported_to_the_operator() {
    let mut world = World::bare(|_| {});
    sh(
        &world.origin.dir,
        "mv origin.git whole.git; git clone -q --bare --depth 1 \"file://$PWD/whole.git\" origin.git",
    );
    let failure = world.provision().await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "ORIGIN_SHALLOW"), "{failure:?}");
    let mut config = world.adapter.config().clone();
    config.depth = Some(1);
    world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
    world.provision().await.unwrap();
    let prepared = world.prepare(&[]).await.unwrap();
    world.assert_is(&prepared, "main", &[]);
}

/// A large file that is right is not written again, and one of another size or content is.
#[tokio::test]
async fn a_large_file_that_is_right_stays() {
    let world = World::new(Clean::Clean).await;
    world.origin.work(
        "head -c 270000000 /dev/zero >large; git -c core.compression=1 add large; git commit -qm large; git push -q origin HEAD:refs/heads/large",
    );
    let inode = |world: &World| world.spoil("stat -c '%i %Y' large; cat large | sha256sum");
    let work = world.work(&[("branch", "large")]);
    world.prepare_for(work.clone()).await.unwrap();
    let before = inode(&world);
    // A change right before the clean-up is not trusted, and the file is hashed again at the next lease.
    world.spoil("chmod 755 large; chmod 644 large");
    world.clean(work).await.unwrap();
    let work = world.work(&[("branch", "large")]);
    world.prepare_for(work.clone()).await.unwrap();
    assert_eq!(inode(&world), before);
    world.spoil("truncate -s 1T large");
    world.clean(work).await.unwrap();
    let work = world.work(&[("branch", "large")]);
    world.prepare_for(work.clone()).await.unwrap();
    let right = |text: &str| text.split_once('\n').unwrap().1.to_string();
    assert_eq!(right(&inode(&world)), right(&before));
    world.spoil("printf x | dd of=large bs=1 seek=1000 conv=notrunc 2>/dev/null");
    world.clean(work).await.unwrap();
    world.prepare(&[("branch", "large")]).await.unwrap();
    assert_eq!(right(&inode(&world)), right(&before));
}

/// Git reads attributes that begin with a mark of the byte order in two ways: in the index the mark is a part of the first pattern,
/// in the tree it is none. A new clone is written by the first, and the second hides the line ends of a file.
#[tokio::test]
async fn attributes_that_begin_with_a_mark_give_what_a_new_clone_has() {
    let world = World::new(Clean::Clean).await;
    let text = |line: &[u8]| {
        Files::from([
            (".gitattributes".into(), (0o100_644, line.to_vec())),
            ("a.txt".into(), (0o100_644, b"one\ntwo\n".to_vec())),
        ])
    };
    let origin = world.origin.dir.join("origin.git");
    import(&origin, &[text(b"*.txt eol=crlf\n"), text(b"*.none text\n"), text(b"\xef\xbb\xbf*.txt eol=crlf\n")]);
    let fresh = world.origin.dir.join("fresh");
    for name in ["c0", "c2", "c0", "c2", "c2"] {
        let work = world.work(&[("branch", name)]);
        let prepared = world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        clone(&origin, &prepared.access[access::COMMIT], &fresh);
        assert_eq!(of_tree(&world.tree()), of_tree(&fresh), "{name}");
        if name == "c2" {
            world.spoil("sed -i 's/$/\\r/' a.txt");
        }
        world.clean(work).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
    }
}
