//! More states, of what git can be told and of what a host can hold. See `rows.rs`.

use super::rows::Ends::{Mended, Recycled, Repaired};
use super::rows::Row;

/// The one state that faketime makes.
pub(crate) const NEEDS_FAKETIME: &str = "an index that was written tomorrow";

/// Other settings of git for a repository.
pub(crate) const GIT: &[Row] = &[
    (
        "a submodule with dirt",
        "git -c protocol.file.allow=always submodule --quiet add $ORIGIN/origin.git sub; git commit -qm sub; echo dirt >sub/a.txt; git config submodule.recurse true; git config submodule.sub.update '!touch '$FLAG",
        Mended,
    ),
    (
        "worktrees inside the tree",
        "git worktree add -q nested -b one; git worktree add -q src/nested -b two; git worktree lock nested; echo x >nested/x; chmod 500 nested",
        Mended,
    ),
    (
        "a worktree's tree in place of ours",
        "git worktree add -q $ORIGIN/wt.2 -b three; rm -rf .git; cp $ORIGIN/wt.2/.git .git",
        Repaired("GIT_DIR_REPLACED"),
    ),
    ("reftable", "rm -rf .git/logs; git refs migrate --ref-format=reftable", Mended),
    ("split index", "git update-index --split-index; rm -f .git/sharedindex.*", Mended),
    (
        "index of version 4 from the future",
        "git update-index --index-version 4; touch -d 2099-01-01 .git/index; printf 'edoc\\n' >src/main.c; touch -d 2099-01-01 src/main.c",
        Mended,
    ),
    (
        NEEDS_FAKETIME,
        "printf 'edoc\\n' >src/main.c; faketime '2099-01-01 00:00:00' git add src/main.c; printf 'code\\n' >src/main.c; printf 'edoc\\n' >src/main.c; touch -d '2000-01-01' src/main.c",
        Mended,
    ),
    (
        "objects of another format",
        "rm -rf .git; git init -q --object-format=sha256 .; git add -A; git commit -qm sha256",
        Mended,
    ),
    (
        "a pack of another format",
        "git init -q --object-format=sha256 ../s; echo x >../s/x; (cd ../s; git add x; git commit -qm x; git repack -adq); cp ../s/.git/objects/pack/* .git/objects/pack/; rm -rf ../s",
        Mended,
    ),
    (
        "multi-pack-index and commit-graph that lie",
        "git commit-graph write --reachable >/dev/null 2>&1; git repack -dq; git multi-pack-index write 2>/dev/null; for f in .git/objects/info/commit-graph .git/objects/pack/multi-pack-index; do if [ -f $f ]; then chmod u+w $f; printf 'XXXXXXXX' | dd of=$f bs=1 seek=200 conv=notrunc 2>/dev/null; fi; done",
        Mended,
    ),
    (
        "a chain of commit-graphs of somebody else",
        "mkdir -p .git/objects/info/commit-graphs; echo 0123456789abcdef0123456789abcdef01234567 >.git/objects/info/commit-graphs/commit-graph-chain; echo x >.git/objects/info/commit-graphs/graph-0123456789abcdef0123456789abcdef01234567.graph",
        Mended,
    ),
    (
        "an index of packs that lies",
        "echo one >../one; o=$(git hash-object -w ../one); rm ../one; p=$(echo $o | git pack-objects -q .git/objects/pack/pack); for i in .git/objects/pack/*.idx; do case $i in *$p*) ;; *) chmod u+w $i; cat .git/objects/pack/pack-$p.idx >$i ;; esac; done",
        Repaired("HEAD_BROKEN"),
    ),
    ("packs without an index", "rm -f .git/objects/pack/*.idx", Repaired("HEAD_BROKEN")),
    (
        "bundle URIs",
        "git bundle create -q $ORIGIN/b.bundle HEAD; git config fetch.bundleURI file://$ORIGIN/b.bundle; git config bundle.version 1; git config bundle.mode all; git config bundle.x.uri 'ext::touch '$FLAG; git config protocol.ext.allow always; git config transfer.bundleURI true",
        Mended,
    ),
    (
        "a chain of alternates",
        "mkdir -p $ORIGIN/chain/a/info $ORIGIN/chain; mv .git/objects $ORIGIN/chain/b; echo $ORIGIN/chain/b >$ORIGIN/chain/a/info/alternates; mkdir -p .git/objects/info .git/objects/pack; echo $ORIGIN/chain/a >.git/objects/info/alternates; git cat-file -e HEAD; mv $ORIGIN/chain $ORIGIN/chain.$$",
        Repaired("HEAD_BROKEN"),
    ),
    (
        "a partial clone",
        "rm -rf .git; git clone -q --no-checkout --filter=blob:none file://$ORIGIN/origin.git ../partial; mv ../partial/.git .git; rm -rf ../partial",
        Mended,
    ),
    (
        "a shallow clone",
        "rm -rf .git; git clone -q --no-checkout --depth 1 file://$ORIGIN/origin.git ../short; mv ../short/.git .git; rm -rf ../short",
        Repaired("SHALLOW"),
    ),
    (
        "a clone of something else",
        "git init -q ../other; (cd ../other; echo o >o; git add o; git commit -qm o; git branch main2; git update-ref refs/remotes/origin/main HEAD); rm -rf .git; mv ../other/.git .git; rm -rf ../other",
        Mended,
    ),
    (
        "drivers for merges, diffs and text",
        "git config diff.external \"touch $FLAG\"; git config merge.evil.driver \"touch $FLAG\"; git config diff.evil.textconv \"touch $FLAG\"; git config merge.default evil; echo '* diff=evil merge=evil' >.gitattributes",
        Mended,
    ),
    (
        "commands of our own name",
        "for k in alias.checkout alias.read-tree core.pager core.editor sequence.editor gpg.program credential.helper core.askPass core.gitProxy uploadpack.packObjectsHook core.alternateRefsCommand remote.origin.vcs remote.origin.receivepack; do git config $k \"!touch $FLAG\"; done",
        Mended,
    ),
    (
        "a hook for index changes and virtual files",
        "git config core.virtualFilesystem \"touch $FLAG\"; mkdir -p .git/hooks; for h in post-index-change fsmonitor-watchman proc-receive pre-auto-gc; do printf \"#!/bin/sh\\ntouch $FLAG\\n\" >.git/hooks/$h; chmod +x .git/hooks/$h; done; git config core.hooksPath .git/hooks; rm -f $FLAG",
        Mended,
    ),
    (
        "refs with names that git forbids",
        "mkdir -p '.git/refs/remotes/origin/a..b' '.git/refs/heads/x'; git rev-parse HEAD >'.git/refs/remotes/origin/a..b/c'; git rev-parse HEAD >'.git/refs/remotes/origin/x y'; git rev-parse HEAD >'.git/refs/remotes/origin/-d'",
        Mended,
    ),
    (
        "a directory of refs for a ref",
        "rm -f .git/refs/remotes/origin/main; git pack-refs --all; sed -i /origin.main/d .git/packed-refs; mkdir -p .git/refs/remotes/origin/main/deep; git rev-parse HEAD >.git/refs/remotes/origin/main/deep/er",
        Mended,
    ),
    (
        "a ref for a directory of refs",
        "git pack-refs --all; rm -rf .git/refs/remotes; git rev-parse HEAD >.git/refs/remotes",
        Mended,
    ),
    ("a ref that says too little", "printf 'abc' >.git/refs/remotes/origin/main", Repaired("OBJECTS_BROKEN")),
    (
        "a ref that nobody can resolve",
        "echo 0123456789abcdef0123456789abcdef01234567 >.git/refs/remotes/origin/side",
        Repaired("OBJECTS_BROKEN"),
    ),
    (
        "a parent in a pack that is cut off",
        "t=$(git rev-parse origin/main); git rev-list --objects v1 | cut -d' ' -f1 | git pack-objects -q ../old >/dev/null; git rev-list --objects --all ^v1 | cut -d' ' -f1 | git pack-objects -q ../new >/dev/null; rm -rf .git/objects/pack/* .git/objects/??; mv ../old-* ../new-* .git/objects/pack/; cd .git/objects/pack; chmod u+w old*; truncate -s -40 old*.pack; for f in old-* new-*; do mv $f pack-${f#*-}; done; cd ../../..; echo $t >.git/HEAD",
        Mended,
    ),
];

/// Odd states of a host's file system and its other processes.
pub(crate) const HOST: &[Row] = &[
    (
        "names that differ in case",
        "mv a.txt A.TXT; cp src/main.c src/MAIN.C; mkdir SRC; echo x >SRC/main.c; git config core.ignoreCase true; git add -A",
        Mended,
    ),
    (
        "names that differ in how they are composed",
        "git config core.precomposeUnicode true; n=$(printf 'u\\314\\210mlaut'); mv 'ümlaut' $n; git add -A",
        Mended,
    ),
    (
        "names that are no text",
        "d=$(printf 'd\\377\\376'); mkdir $d; echo x >$d/$(printf '\\200x'); echo x >\"$(printf 'tab\\tbell\\a')\"",
        Mended,
    ),
    (
        "names that are options",
        "for n in --help -rf -- - -0 --git-dir=x; do echo x >./$n; done; mkdir ./--exec; echo x >./--exec/-x",
        Mended,
    ),
    ("names of 255 bytes", "n=$(printf %0255d 0); echo x >$n; mkdir src/$n; echo x >src/$n/$n", Mended),
    (
        "paths deeper than git can go",
        "n=$(printf %0200d 0); for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do mkdir $n; cd -P ./$n; done; echo x >x; mkfifo p; mkdir locked; chmod 000 locked",
        Mended,
    ),
    (
        "100,000 stray files",
        "mkdir many src/many; cd many; seq 50000 | xargs touch; cd ../src/many; seq 50000 | xargs touch",
        Mended,
    ),
    ("a file of a terabyte in a file's place", "truncate -s 1T src/main.c .gitignore; truncate -s 1T huge", Mended),
    (
        "refs of a terabyte",
        "truncate -s 1T .git/packed-refs; mkdir -p .git/refs/remotes/origin; rm -f .git/refs/remotes/origin/main; truncate -s 1T .git/refs/remotes/origin/main",
        Mended,
    ),
    ("a HEAD of a terabyte", "truncate -s 1T .git/HEAD", Repaired("HEAD_BROKEN")),
    ("a configuration of a terabyte", "truncate -s 1T .git/config", Mended),
    (
        "objects of a terabyte",
        "LOOSE for f in .git/objects/??/*; do chmod u+w $f; truncate -s 1T $f; done",
        Repaired("HEAD_BROKEN"),
    ),
    (
        "links in circles",
        "ln -s . self; ln -s ../../.. src/up; ln -s .git git; ln -s a b; ln -s b a; rm link; ln -s link link",
        Mended,
    ),
    ("a pipe for HEAD", "rm .git/HEAD; mkfifo .git/HEAD", Repaired("HEAD_BROKEN")),
    ("a pipe for the configuration", "rm .git/config; mkfifo .git/config", Repaired("CONFIG_CHANGED")),
    (
        "pipes for refs",
        "rm -f .git/refs/remotes/origin/main .git/packed-refs; mkdir -p .git/refs/remotes/origin; mkfifo .git/packed-refs .git/refs/remotes/origin/main .git/refs/remotes/origin/x",
        Mended,
    ),
    (
        "pipes for objects",
        "rm -f .git/objects/pack/*; mkfifo .git/objects/pack/pack-x.pack .git/objects/pack/pack-x.idx .git/objects/ab",
        Repaired("HEAD_BROKEN"),
    ),
    ("a pipe for .git", "rm -rf .git; mkfifo .git", Repaired("GIT_DIR_REPLACED")),
    (
        "pipes for notes of ours",
        "cd ../meta; for f in *; do case $f in marker) ;; *) rm -rf $f; mkfifo $f ;; esac; done; for f in suspect heads listing proof.index gitconfig lease fence format config fence.new lease.put none; do [ -p $f ] || mkfifo $f; done",
        Mended,
    ),
    (
        "directories for notes of ours",
        "cd ../meta; for f in heads listing proof.index gitconfig lease fence format config fence.new lease.put none heads.new; do rm -rf $f; mkdir -p $f/x; done",
        Mended,
    ),
    (
        "links for notes of ours",
        "echo mine >$ORIGIN/victim; cd ../meta; for f in heads listing proof.index gitconfig lease fence config fence.new; do rm -rf $f; ln -s $ORIGIN/victim $f; done",
        Mended,
    ),
    ("notes that are links leave what they lead to", "test \"$(cat $ORIGIN/victim)\" = mine", Mended),
    ("a marker of somebody else", "echo res_other >../meta/marker", Recycled("OTHER_RESOURCE")),
    ("no notes", "rm -rf ../meta", Recycled("DIRECTORY_MISSING")),
    ("the whole copy removed", "cd ..; rm -rf tree meta; rmdir $PWD", Recycled("DIRECTORY_MISSING")),
    ("the copy's directory closed", "chmod 000 .. ../meta . .git; chmod 000 .git/objects", Mended),
    ("a token of the far future", "echo 99999999999999999999999 >../meta/fence", Mended),
    (
        "modes that git does not know",
        "chmod 666 .gitignore; chmod 4755 run.sh; chmod 600 src/main.c; chmod 1711 'with space.txt'; git config core.fileMode false",
        Mended,
    ),
    (
        "modes that deny",
        "chmod 000 src/main.c run.sh .gitignore; chmod 000 .git/objects/pack/* .git/HEAD; chmod 111 src",
        Mended,
    ),
    (
        "setgid directories and strange groups",
        "chgrp 65534 . src src/deep; chmod 2777 . src src/deep; chmod 2777 .git .git/objects .git/refs",
        Mended,
    ),
    ("everything of another user", "chown -R 65534:65534 .. ../../mirrors", Mended),
    (
        "access lists that later files inherit",
        "python3 -c \"import os,struct; acl=struct.pack('<I',2)+b''.join(struct.pack('<HHI',t,p,0xffffffff) for t,p in ((1,6),(4,6),(32,6))); [os.setxattr(p,'system.posix_acl_default',acl) for p in ('.','src','src/deep','.git','.git/objects','../meta')]\"",
        Repaired("PROOF_FAILED"),
    ),
    (
        "extended attributes",
        "python3 -c \"import os; [os.setxattr(p,'user.x',b'y'*100) for p in ('.','src','src/main.c','.gitignore','.git')]\"",
        Mended,
    ),
    (
        "hard links to somebody else's files",
        "rm -rf $ORIGIN/linked; mkdir $ORIGIN/linked; cp -a src/main.c .gitignore $ORIGIN/linked/; ln -f $ORIGIN/linked/main.c src/main.c; ln -f $ORIGIN/linked/.gitignore .gitignore; for f in .git/objects/pack/*; do ln $f $ORIGIN/linked/; done",
        Repaired("HEAD_BROKEN"),
    ),
    (
        "no file of the tree is somebody else's too",
        "test -z \"$(find . -path ./.git -prune -o -type f -links +1 -print)\"",
        Mended,
    ),
    ("immutable directories", "chattr +i . src src/deep 2>/dev/null", Mended),
    ("immutable configuration and HEAD", "chattr +i .git/config .git/HEAD .git/refs .git/objects", Mended),
    ("append-only directories", "echo x >>a.txt; chattr +a . .git .git/objects/pack src a.txt", Mended),
    ("immutable notes", "chattr +i ../meta ../meta/* ..", Mended),
    (
        "immutable mirror",
        "cd ../../mirrors; for f in *; do chattr +i $f; done; chattr +i . */packed-refs */HEAD",
        Mended,
    ),
    (
        "pipes and directories for the mirror's locks",
        "cd ../../mirrors; for f in *.lock; do rm -f $f; mkfifo $f; done; for f in *.use; do rm -f $f; mkdir -p $f/x; done",
        Mended,
    ),
    ("a pipe in the mirror's place", "rm -rf ../../mirrors; mkfifo ../../mirrors", Mended),
    (
        "a mount inside",
        "mkdir mnt $ORIGIN/precious; echo p >$ORIGIN/precious/p; mount --bind $ORIGIN/precious mnt",
        Mended,
    ),
    (
        "mounts with blanks, in one another, and in use",
        "mkdir -p 'a b' $ORIGIN/precious; mount --bind $ORIGIN/precious 'a b'; mkdir -p 'a b/c'; mount -t tmpfs none 'a b/c'; mount -t tmpfs none src; mount -t tmpfs none src; cd /; sleep 1000 <$OLDPWD/'a b/p' >/dev/null 2>&1 & ",
        Mended,
    ),
    ("what was mounted is not emptied", "test \"$(cat $ORIGIN/precious/p)\" = p", Mended),
    ("a mount over .git", "mount -t tmpfs none .git", Mended),
    ("a mount over the whole tree", "mount -t tmpfs none ../tree", Mended),
    (
        "daemons that write on",
        "env -u WHARFINGER_LEASE setsid sh -c 'while :; do echo junk >a.txt; echo junk >junk.$$; sleep 0.01; done' >/dev/null 2>&1 & until ls junk.* >/dev/null 2>&1; do sleep 0.01; done",
        Mended,
    ),
    (
        "a daemon that holds a file open",
        "tail -f /dev/null >>src/main.c 2>/dev/null & cd /; env -i setsid sh -c 'exec 7>>'\"$OLDPWD\"'/.gitignore; while :; do echo junk >&7; sleep 0.05; done' >/dev/null 2>&1 & until grep -q junk \"$OLDPWD\"/.gitignore; do sleep 0.01; done",
        Mended,
    ),
];
