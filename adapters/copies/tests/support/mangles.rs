//! Damage that a hostile build may do, with three random numbers: `$A`, `$B`, `$C`. Each is run by `sh` in the tree, as the copy's
//! user, and may fail: what it wanted to spoil may be gone.

/// Helpers of the scripts.
pub(crate) const TOOLS: &str = r#"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
exec 2>/dev/null
# pick N COMMAND...: the Nth line that it prints, round and round.
pick() { n=$1; shift; "$@" | LC_ALL=C sort >"$ORIGIN/pick.$$"; c=$(wc -l <"$ORIGIN/pick.$$"); [ "$c" -gt 0 ] && sed -n "$((n % c + 1))p" "$ORIGIN/pick.$$"; rm -f "$ORIGIN/pick.$$"; }
object() { pick "$1" find .git/objects -type f; }
tracked() { pick "$1" find . -path ./.git -prune -o -type f -print; }
inside() { pick "$1" find .git -type f; }
mirrored() { pick "$1" find ../../mirrors -type f; }
notes() { pick "$1" find ../meta -type f; }
scribble() { [ -n "$1" ] && [ -f "$1" ] || return 0; chmod u+w "$1"; s=$(wc -c <"$1"); head -c "$(($3 % 64 + 1))" /dev/urandom | dd of="$1" bs=1 seek="$(($2 % (s + 1)))" conv=notrunc; }
cut() { [ -f "$1" ] && chmod u+w "$1" && truncate -s "$(($2 % ($(wc -c <"$1") + 1)))" "$1"; }
"#;

/// Name and script.
pub(crate) const MANGLES: &[(&str, &str)] = &[
    ("an object is deleted", "rm -f \"$(object $A)\""),
    ("many objects are deleted", "for i in 1 2 3 4 5 6 7 8; do rm -f \"$(object $((A + i * B)))\"; done"),
    ("an object is cut off", "cut \"$(object $A)\" $B"),
    ("an object is another", "cp -f \"$(object $A)\" \"$(object $B)\""),
    ("an object is scribbled on", "scribble \"$(object $A)\" $B $C"),
    (
        "packs are unpacked, and a blob is forged",
        "mkdir ../p; mv .git/objects/pack/* ../p/; for p in ../p/*.pack; do git unpack-objects -q <$p; done; rm -rf ../p; e=$(echo evil | git hash-object -w --stdin); o=$(git ls-tree -r HEAD | cut -c13-52 | sed -n \"$((A % 12 + 1))p\"); cp -f .git/objects/$(echo $e | sed 's|..|&/|') .git/objects/$(echo $o | sed 's|..|&/|')",
    ),
    (
        "packs are unpacked, and a tree is forged",
        "mkdir ../p; mv .git/objects/pack/* ../p/; for p in ../p/*.pack; do git unpack-objects -q <$p; done; rm -rf ../p; a=$(git rev-parse HEAD^{tree}); b=$(git rev-parse origin/side^{tree}); cp -f .git/objects/$(echo $b | sed 's|..|&/|') .git/objects/$(echo $a | sed 's|..|&/|')",
    ),
    ("the repository is packed anew", "git repack -adfq; git prune --expire=now; git pack-refs --all"),
    (".git is scribbled on", "scribble \"$(inside $A)\" $B $C"),
    ("a file of .git is deleted", "rm -f \"$(inside $A)\""),
    ("a file of .git is a pipe", "f=$(inside $A); rm -f \"$f\"; mkfifo \"$f\""),
    ("a file of .git is a directory", "f=$(inside $A); rm -f \"$f\"; mkdir -p \"$f/x\""),
    ("a file of .git is a link", "f=$(inside $A); rm -f \"$f\"; ln -s $ORIGIN/work/a.txt \"$f\""),
    ("a file of .git is immense", "f=$(inside $A); chmod u+w \"$f\"; truncate -s 900G \"$f\""),
    ("a directory of .git is removed", "rm -rf \"$(pick $A find .git -type d)\""),
    ("a directory of .git is closed", "chmod 000 \"$(pick $A find .git -type d)\""),
    ("a note is scribbled on", "scribble \"$(notes $A)\" $B $C"),
    ("a note is deleted", "rm -f \"$(notes $A)\""),
    ("a note is a pipe", "f=$(notes $A); rm -f \"$f\"; mkfifo \"$f\""),
    ("a note is a directory", "f=$(notes $A); rm -f \"$f\"; mkdir -p \"$f/x\""),
    ("a note is a link", "f=$(notes $A); rm -f \"$f\"; ln -s $ORIGIN/work/a.txt \"$f\""),
    ("the mirror is scribbled on", "scribble \"$(mirrored $A)\" $B $C"),
    ("the mirror is cut off", "cut \"$(mirrored $A)\" $B"),
    ("a file of the mirror is deleted", "rm -f \"$(mirrored $A)\""),
    ("a file of the mirror is a pipe", "f=$(mirrored $A); rm -f \"$f\"; mkfifo \"$f\""),
    ("a file of the mirror is immense", "f=$(mirrored $A); chmod u+w \"$f\"; truncate -s 900G \"$f\""),
    ("the mirrors are removed", "rm -rf ../../mirrors"),
    ("a directory of the mirror is removed", "rm -rf \"$(pick $A find ../../mirrors -mindepth 1 -type d)\""),
    (
        "refs of the mirror lie",
        "cd ../../mirrors/*/ && git update-ref refs/heads/main \"$(pick $A git rev-list --all)\" && git update-ref refs/heads/x$B refs/heads/side && git pack-refs --all",
    ),
    ("a tracked file changes", "scribble \"$(tracked $A)\" $B $C"),
    (
        "a tracked file changes, and keeps its time",
        "f=$(tracked $A); touch -r \"$f\" ../t; scribble \"$f\" $B 0; touch -r ../t \"$f\"; touch -r ../t .git/index; rm ../t",
    ),
    ("a tracked file is deleted", "rm -f \"$(tracked $A)\""),
    ("a tracked file is a directory", "f=$(tracked $A); rm -f \"$f\"; mkdir -p \"$f/x/y\"; echo x >\"$f/x/y/z\""),
    (
        "a tracked file is a repository",
        "f=$(tracked $A); rm -f \"$f\"; git init -q \"$f\"; cd \"$f\" && echo x >x && git add x && git commit -qm x",
    ),
    ("a tracked file is a link", "f=$(tracked $A); rm -f \"$f\"; ln -s $ORIGIN/work/a.txt \"$f\""),
    ("a tracked file is a pipe", "f=$(tracked $A); rm -f \"$f\"; mkfifo \"$f\""),
    ("a tracked file is immense", "truncate -s 900G \"$(tracked $A)\""),
    ("a tracked file has another name elsewhere", "f=$(tracked $A); ln -f \"$f\" $ORIGIN/linked.$B"),
    ("a tracked file has another mode", "chmod $((A % 8))$((B % 8))$((C % 8))$((A / 8 % 8)) \"$(tracked $B)\""),
    (
        "a directory is a link",
        "d=$(pick $A find . -mindepth 1 -path ./.git -prune -o -type d -print); mkdir -p $ORIGIN/away.$B; rm -rf \"$d\"; ln -s $ORIGIN/away.$B \"$d\"",
    ),
    ("a directory is closed", "chmod $((A % 8))00 \"$(pick $B find . -path ./.git -prune -o -type d -print)\""),
    ("something is another user's", "chown -R $((A % 60000 + 1)) \"$(pick $B find . -type d)\""),
    ("something is immutable", "chattr +i \"$(pick $A find . ../meta)\""),
    ("something is append-only", "chattr +a \"$(pick $A find . ../meta)\""),
    ("something in the future", "touch -d 2099-01-01 \"$(pick $A find . -path ./.git -prune -o -print)\" .git/index"),
    (
        "index flags",
        "f=$(pick $A git ls-files); git update-index --skip-worktree -- \"$f\"; echo evil >\"$f\"; f=$(pick $B git ls-files); git update-index --assume-unchanged -- \"$f\"; echo evil >\"$f\"",
    ),
    (
        "an index with strangers",
        "git update-index --add --cacheinfo 100644,$(echo evil | git hash-object -w --stdin),evil/x; git update-index --split-index; git add -A",
    ),
    (
        "commits, branches, tags",
        "git checkout -qb mine$A; echo $B >mine; git add -A; git commit -qm mine; git tag -f v1; git update-ref refs/remotes/origin/main HEAD; git update-ref refs/remotes/origin/side$A/x HEAD",
    ),
    (
        "a half merge",
        "git checkout -qb m$A; echo $B >a.txt; git commit -qam m; git merge origin/side; git rebase origin/main",
    ),
    (
        "replaced objects",
        "git replace -f HEAD origin/side; git replace -f $(git rev-parse HEAD:a.txt) $(echo evil | git hash-object -w --stdin); git pack-refs --all",
    ),
    (
        "grafts and shallow",
        "mkdir -p .git/info; git rev-parse HEAD >.git/info/grafts; [ $((A % 2)) = 0 ] || git rev-parse HEAD >.git/shallow",
    ),
    (
        "HEAD",
        "case $((A % 5)) in 0) echo ref: refs/heads/x$B >.git/HEAD ;; 1) echo ref: ../../../etc/passwd >.git/HEAD ;; 2) git rev-parse origin/side >.git/HEAD ;; 3) : >.git/HEAD ;; 4) rm .git/HEAD ;; esac",
    ),
    (
        "packed-refs",
        "{ echo '# pack-refs with: peeled fully-peeled sorted'; git rev-parse HEAD | sed 's|$| refs/remotes/origin/main|'; echo junk $A; } >.git/packed-refs; rm -rf .git/refs/remotes",
    ),
    (
        "alternates",
        "mkdir -p .git/objects/info $ORIGIN/alt.$A; mv .git/objects/pack $ORIGIN/alt.$A/; mkdir .git/objects/pack; echo $ORIGIN/alt.$A >.git/objects/info/alternates",
    ),
    (
        "locks",
        "for f in index HEAD config packed-refs shallow objects/info/commit-graph refs/remotes/origin/main refs/heads/x objects/maintenance; do mkdir -p .git/$(dirname $f); : >.git/$f.lock; done",
    ),
    (
        "hooks",
        "mkdir -p .git/hooks; for h in post-checkout reference-transaction post-index-change pre-auto-gc fsmonitor-watchman post-merge; do printf \"#!/bin/sh\\ntouch $FLAG\\n\" >.git/hooks/$h; chmod +x .git/hooks/$h; done",
    ),
    (
        "a dangerous key",
        "k=$(printf 'core.fsmonitor\\ncore.sshCommand\\ncore.hooksPath\\ncore.gitProxy\\ncore.pager\\ncore.editor\\ncore.askPass\\ncore.alternateRefsCommand\\ncredential.helper\\ndiff.external\\nfilter.x.clean\\nfilter.x.smudge\\nfilter.x.process\\nmerge.x.driver\\ndiff.x.textconv\\nuploadpack.packObjectsHook\\nremote.origin.uploadpack\\nremote.origin.vcs\\nremote.origin.proxy\\ngpg.program\\nsequence.editor\\nalias.checkout\\nsubmodule.x.update\\nreceive.procReceiveRefs\\ntrailer.x.command\\nssh.variant\\n' | sed -n \"$((A % 26 + 1))p\"); git config \"$k\" \"touch $FLAG\"; mkdir -p .git/info; echo '* filter=x merge=x diff=x' >.git/info/attributes",
    ),
    (
        "a key that misleads",
        "case $((A % 12)) in 0) git config core.worktree / ;; 1) git config core.bare true ;; 2) git config core.autocrlf true ;; 3) git config core.fileMode false ;; 4) git config core.symlinks false ;; 5) git config core.ignoreCase true ;; 6) git config core.repositoryFormatVersion 7 ;; 7) git config url.$ORIGIN/work.insteadOf $ORIGIN/origin.git ;; 8) git config extensions.worktreeConfig true; git config --worktree core.fsmonitor \"touch $FLAG\" ;; 9) git config include.path $ORIGIN/inc; printf '[core]\\n fsmonitor = touch %s\\n' $FLAG >$ORIGIN/inc ;; 10) git config core.sparseCheckout true; mkdir -p .git/info; echo src >.git/info/sparse-checkout ;; 11) git config extensions.partialClone origin; git config remote.origin.promisor true ;; esac; git reset -q --hard",
    ),
    (
        "worktrees and nested repositories",
        "git worktree add -q nested.$A -b w$A; git init -q n/e/s/t; echo x >n/e/s/t/x; git init -q target/r",
    ),
    (
        "ignored, empty and odd",
        "mkdir -p target/$A empty/er; echo o >target/$A/o; echo x >a.o; ln -s loop loop; mkfifo pipe.$A; echo x >\"$(printf 'n\\377\\nx')\"; echo x >./-rf",
    ),
    ("a thousand files", "mkdir many; cd many && seq 1000 | xargs touch"),
    (
        "a daemon writes on in the tree",
        "setsid sh -c 'n=0; while [ $n -lt 150 ]; do n=$((n+1)); echo junk >a.txt; echo junk >junk.$n; rm -f .git/index; sleep 0.02; done' >/dev/null 2>&1 &",
    ),
    (
        "a daemon writes on in .git",
        "f=$(inside $A); setsid sh -c 'n=0; while [ $n -lt 150 ]; do n=$((n+1)); echo junk >>\"$0\"; : >.git/index.lock; sleep 0.02; done' \"$f\" >/dev/null 2>&1 &",
    ),
    (
        "a daemon writes on in the notes",
        "cd ../meta && setsid sh -c 'n=0; while [ $n -lt 100 ]; do n=$((n+1)); echo junk >>heads; rm -f listing; sleep 0.02; done' >/dev/null 2>&1 &",
    ),
    (
        "a daemon without a mark holds a file open",
        "f=$(tracked $A); env -u WHARFINGER_LEASE setsid sh -c 'exec 7>>\"$0\"; cd /; n=0; while [ $n -lt 150 ]; do n=$((n+1)); echo junk >&7; sleep 0.02; done' \"$f\" >/dev/null 2>&1 &",
    ),
    (".git is removed", "rm -rf .git"),
    ("the tree is removed", "rm -rf ../tree"),
    ("the tree is a link", "mv ../tree $ORIGIN/away.$A; ln -s $ORIGIN/away.$A ../tree"),
    ("everything is removed", "cd ..; rm -rf tree meta"),
    (
        ".git is another's",
        "rm -rf .git; git init -q; echo x >x; git add x; git commit -qm x; git update-ref refs/remotes/origin/main HEAD",
    ),
    (".git is of sha256", "rm -rf .git; git init -q --object-format=sha256; git add -A; git commit -qm x"),
    ("reftable", "rm -rf .git/logs; git refs migrate --ref-format=reftable"),
    ("a fence", "echo $A$B >../meta/fence"),
];
