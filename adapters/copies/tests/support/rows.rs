//! States in which a holder may leave a copy: one list for the shell of this machine, for a real SSH host, and for the table in
//! docs/spoilt.md.
//!
//! Scripts run in the tree, by `sh -eu`, after a lease of the tag `v1`; the next lease wants `main`.

/// How a state ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ends {
    /// The next prepare mends it by itself.
    Mended,
    /// Prepare blames the copy with this reason, and a repair mends it.
    Repaired(&'static str),
    /// Prepare blames the copy with this reason, and another is made in its stead.
    Recycled(&'static str),
}

use super::odd_rows;
use Ends::{Mended, Recycled, Repaired};

/// One state: its name, how it is made, how it ends.
pub(crate) type Row = (&'static str, &'static str, Ends);

/// All objects loose, so that one can be removed or forged. Stands for `LOOSE` in scripts.
const LOOSE: &str =
    "mkdir ../p; mv .git/objects/pack/* ../p/ 2>/dev/null || :; for p in ../p/*.pack; do if [ -e $p ]; then git unpack-objects -q <$p; fi; done; rm -rf ../p
    loose() { o=$(git rev-parse $1); echo .git/objects/$(echo $o | cut -c1-2)/$(echo $o | cut -c3-); }
";

/// All of them.
pub(crate) fn all() -> [&'static [Row]; 7] {
    [BROKEN, KILLED, OBJECTS, CONFIGURATION, FILES, odd_rows::GIT, odd_rows::HOST]
}

/// The row's script as it is run.
pub(crate) fn script(row: &Row) -> String {
    row.1.replace("LOOSE", LOOSE)
}

pub(crate) const BROKEN: &[Row] = &[
    (".git removed", "rm -rf .git", Repaired("GIT_DIR_MISSING")),
    ("tree removed", "rm -rf ../tree", Repaired("TREE_MISSING")),
    (
        "tree is a link",
        "mkdir $ORIGIN/out; echo mine >$ORIGIN/out/mine; cd ..; rm -rf tree; ln -s $ORIGIN/out tree",
        Repaired("TREE_REPLACED"),
    ),
    (".git is a file", "mv .git $ORIGIN/gone.git; echo gitdir: $ORIGIN/gone.git >.git", Repaired("GIT_DIR_REPLACED")),
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
];

pub(crate) const KILLED: &[Row] = &[
    (
        "locks",
        "for f in index HEAD config packed-refs shallow refs/remotes/origin/main refs/remotes/origin/side; do mkdir -p $(dirname .git/$f); : >.git/$f.lock; done",
        Mended,
    ),
    (
        "a half rebase",
        "git checkout -qb mine; echo mine >a.txt; git commit -qam mine; git rebase origin/main >/dev/null 2>&1 && exit 1; test -d .git/rebase-merge",
        Mended,
    ),
    (
        "a conflict in the index",
        "git checkout -qb mine2; echo mine >a.txt; git commit -qam mine; git merge origin/main >/dev/null 2>&1 && exit 1; git ls-files -u | grep -q .",
        Mended,
    ),
    ("half-written objects", ": >.git/objects/pack/tmp_pack_x; : >.git/objects/tmp_obj_x", Mended),
    (
        "truncated pack",
        "chmod u+w .git/objects/pack/*; for p in .git/objects/pack/*.pack; do truncate -s -40 $p; done",
        Repaired("HEAD_BROKEN"),
    ),
];

pub(crate) const OBJECTS: &[Row] = &[
    ("missing blob", "LOOSE rm -f $(loose origin/main:a.txt)", Mended),
    ("missing tree", "LOOSE rm -f $(loose origin/main^{tree})", Mended),
    ("missing commit", "LOOSE rm -f $(loose origin/main)", Repaired("OBJECTS_BROKEN")),
    ("empty blob file", "LOOSE f=$(loose origin/main:a.txt); chmod u+w $f; : >$f", Mended),
    (
        "forged blob",
        "LOOSE e=$(echo evil | git hash-object -w --stdin); f=$(loose origin/main:a.txt); rm -f $f; cp $(loose $e) $f",
        Mended,
    ),
    ("forged tree", "LOOSE f=$(loose origin/main^{tree}); rm -f $f; cp $(loose origin/side^{tree}) $f", Mended),
    ("forged commit", "LOOSE f=$(loose origin/main); rm -f $f; cp $(loose v1) $f", Mended),
    (
        "missing blob that is said to be elsewhere",
        "LOOSE rm -f $(loose origin/main:a.txt); n=$(git rev-parse HEAD | git pack-objects -q .git/objects/pack/pack); : >.git/objects/pack/pack-$n.promisor; git config remote.origin.promisor true; git config extensions.partialClone origin; git config core.repositoryformatversion 1",
        Mended,
    ),
    (
        "alternates",
        "mv .git/objects $ORIGIN/alt; mkdir -p .git/objects/info; echo $ORIGIN/alt >.git/objects/info/alternates",
        Repaired("HEAD_BROKEN"),
    ),
    ("replaced commit", "git replace origin/main HEAD", Mended),
    (
        "replaced blob",
        "git replace $(git rev-parse origin/main:a.txt) $(echo evil | git hash-object -w --stdin)",
        Mended,
    ),
    ("grafts", "echo $(git rev-parse origin/main) >.git/info/grafts", Mended),
];

pub(crate) const CONFIGURATION: &[Row] = &[
    (
        "insteadOf",
        "git clone -q --bare $ORIGIN/origin.git $ORIGIN/evil.git; git --git-dir=$ORIGIN/evil.git update-ref refs/heads/main refs/tags/v1; git config url.$ORIGIN/evil.git.insteadOf $ORIGIN/origin.git",
        Mended,
    ),
    ("remote url", "git config remote.origin.url /no/such", Mended),
    (
        "second url",
        "git config --add remote.origin.url $ORIGIN/evil.git; git config remote.origin.fetch +refs/tags/v1:refs/remotes/origin/main",
        Mended,
    ),
    ("uploadpack", "git config remote.origin.uploadpack \"touch $FLAG; git-upload-pack\"", Mended),
    (
        "hooks",
        "mkdir -p .git/hooks; for h in post-checkout reference-transaction post-index-change; do printf \"#!/bin/sh\\ntouch $FLAG\\n\" >.git/hooks/$h; chmod +x .git/hooks/$h; done; rm -f $FLAG",
        Mended,
    ),
    (
        "hooksPath",
        "mkdir -p $ORIGIN/hooks; printf \"#!/bin/sh\\ntouch $FLAG\\n\" >$ORIGIN/hooks/post-checkout; chmod +x $ORIGIN/hooks/post-checkout; git config core.hooksPath $ORIGIN/hooks",
        Mended,
    ),
    ("fsmonitor", "git config core.fsmonitor \"touch $FLAG\"", Mended),
    ("sshCommand", "git config core.sshCommand \"touch $FLAG\"; git config remote.origin.url ssh://x/y", Mended),
    (
        "include",
        "printf '[core]\\n\\tfsmonitor = touch '$FLAG'\\n' >$ORIGIN/inc; git config include.path $ORIGIN/inc",
        Mended,
    ),
    (
        "filter",
        "git config filter.evil.smudge \"touch $FLAG; cat\"; git config filter.evil.clean \"touch $FLAG; cat\"; git config filter.evil.process \"touch $FLAG\"; mkdir -p .git/info; echo '* filter=evil' >.git/info/attributes",
        Mended,
    ),
    (
        "attributes of our own",
        "mkdir -p .git/info; echo '*.txt eol=crlf' >.git/info/attributes; rm a.txt; git checkout -q a.txt",
        Mended,
    ),
    ("line ends", "git config core.autocrlf true; git rm -q --cached -r .; git reset -q --hard", Mended),
    ("no file modes", "git config core.fileMode false; chmod -x run.sh; chmod +x a.txt", Mended),
    ("no links", "git config core.symlinks false; rm link; git checkout -q link", Mended),
    (
        "worktree configuration",
        "git config extensions.worktreeConfig true; printf '[core]\\n\\tfsmonitor = touch '$FLAG'\\n' >.git/config.worktree",
        Mended,
    ),
    ("sparse", "git sparse-checkout set --no-cone src >/dev/null 2>&1", Mended),
    ("worktree", "git worktree add -q $ORIGIN/wt -b wt", Mended),
];

pub(crate) const FILES: &[Row] = &[
    (
        "changed, staged, committed",
        "echo x >>a.txt; echo y >y; git add y; git commit -qm mine; echo z >>src/main.c; git add -A",
        Mended,
    ),
    ("skip-worktree", "git update-index --skip-worktree .gitignore; echo evil >.gitignore", Mended),
    ("assume-unchanged", "git update-index --assume-unchanged src/main.c; echo evil >src/main.c", Mended),
    (
        "same size and times",
        "touch -d '2020-01-01' ref; printf 'edoc\\n' >src/main.c; touch -r ref src/main.c; git update-index --refresh -q || :; git add -A; touch -r ref .git/index; rm ref",
        Mended,
    ),
    (
        "trusted by a lying index",
        "git config core.ignoreStat true; git config core.trustctime false; git config core.checkStat minimal; git update-index --assume-unchanged src/main.c; touch -r src/main.c ../t; printf 'edoc\\n' >src/main.c; touch -r ../t src/main.c; rm ../t",
        Mended,
    ),
    (
        "untracked, ignored, empty",
        "mkdir -p target/x empty/er; echo o >target/x/o; echo n >new; echo o >a.o; echo x >'new
line'",
        Mended,
    ),
    ("excluded", "mkdir -p .git/info; echo secret >>.git/info/exclude; echo s >secret", Mended),
    (
        "nested repository",
        "git init -q nested; echo x >nested/x; git init -q target; mkdir -p d/e; git init -q d/e",
        Mended,
    ),
    (
        "nested repository in a directory of the commit",
        "git init -q src; chmod 500 src/.git/hooks; echo 'gitdir: /none' >src/deep/.git",
        Mended,
    ),
    ("modes of directories", "chmod 2777 src; chmod 1700 src/deep; chmod 777 .", Mended),
    (
        "nested repository in a file's place",
        "git init -q old.txt; (cd old.txt; echo x >x; git add x; git commit -qm x)",
        Mended,
    ),
    ("directory for a file", "rm a.txt; mkdir -p a.txt/b; echo x >a.txt/b/c", Mended),
    ("file for a directory", "rm -rf src; echo x >src", Mended),
    (
        "link out of the tree",
        "mkdir -p $ORIGIN/o; echo mine >$ORIGIN/o/main.c; mkdir -p $ORIGIN/o/deep; echo mine >$ORIGIN/o/deep/x; rm -rf src; ln -s $ORIGIN/o src",
        Mended,
    ),
    (
        "the outside is untouched",
        "test \"$(cat $ORIGIN/o/main.c $ORIGIN/o/deep/x $ORIGIN/out/mine 2>/dev/null || :)\" = \"$(printf 'mine\\nmine')\"",
        Mended,
    ),
    ("link loop", "ln -s loop loop; mkdir l; ln -s .. l/up", Mended),
    (
        "read-only directories",
        "mkdir -p ro/x; echo x >ro/x/y; chmod 000 ro/x; chmod 500 ro src/deep src; chmod 000 a.txt",
        Mended,
    ),
    ("immutable", "echo x >im; echo changed >a.txt; chattr +i im a.txt 2>/dev/null || :", Mended),
    ("a socket and a pipe", "mkfifo pipe; rm a.txt; mkfifo a.txt", Mended),
    ("strange names", "echo x >'-rf'; echo x >'a  b'; mkdir ' '; echo x >' /*'", Mended),
];
