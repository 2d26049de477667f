//! A copy that builds have changed is, after the next prepare, byte for byte what a new clone at the same commit is. A seed makes
//! repositories (attributes, contents, commits) and changes; git makes the clone to compare with. Eight seeds always, 60 with
//! WHARFINGER_LONG=1; `ORACLE_SEED=n cargo test -p wharfinger-copies --test oracle -- --nocapture` replays a seed.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[allow(dead_code, unused_imports, clippy::unwrap_used, reason = "the other test files use the rest")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use support::{World, sh};
use wharfinger_adapter::{Adapter, Blame, CleanJob, EndedHow, Verdict, access};
use wharfinger_copies::{Clean, Config, CopiesAdapter};

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &'a [&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Mode and content by path.
type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

const PATHS: &[&str] = &[
    "a.txt",
    "b.txt",
    "c.h",
    "d.rc",
    "e.bin",
    "f",
    "dir/a.txt",
    "dir/c.h",
    "dir/deep/x.txt",
    "dir/deep/y.rc",
    "other/a.txt",
    "other/run.sh",
    "q\"uote.txt",
    "sp ace.txt",
    "new\nline.txt",
    "newline.txt",
    "tab\t.h",
    "-x.txt",
];

const CONTENTS: &[&[u8]] = &[
    b"one\ntwo\n",
    b"one\r\ntwo\r\n",
    b"one\r\ntwo\n",
    b"no end",
    b"",
    b"$Id$\n",
    b"/* $Id: former $ */\nx\n",
    b"\xe4\xf6 latin\n",
    "ü utf-8\n".as_bytes(),
    b"\xff\xfea\0\n\0",
    b"a\0\n\0b\0",
    b"\0\x01\x02binary\r\n",
    b"lone\rreturn\n",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0000000000000000000000000000000000000000000000000000000000000007\nsize 3\n",
];

const PATTERNS: &[&str] = &["*", "*.txt", "*.h", "*.rc", "/a.txt", "deep/*", "*.sh", "f", "dir/**", ".gitattributes"];

const ATTRIBUTES: &[&str] = &[
    "text=auto",
    "text",
    "-text",
    "text eol=crlf",
    "text eol=lf",
    "eol=crlf",
    "text=auto eol=crlf",
    "text=auto eol=lf",
    "binary",
    "crlf",
    "-crlf",
    "crlf=input",
    "ident",
    "-ident",
    "!text",
    "!eol",
    "working-tree-encoding=UTF-16LE",
    "working-tree-encoding=UTF-16",
    "working-tree-encoding=ISO-8859-1",
    "working-tree-encoding=NOSUCH",
    "filter=lfs",
    "filter=other",
    "merge=union",
    "export-ignore",
    "export-subst",
];

fn attributes(rng: &mut Rng) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..1 + rng.below(4) {
        writeln!(text, "{} {}", rng.pick(PATTERNS), rng.pick(ATTRIBUTES)).unwrap();
    }
    if rng.one_in(6) { text.replace('\n', "\r\n").into_bytes() } else { text.into_bytes() }
}

fn content(rng: &mut Rng) -> Vec<u8> {
    let mut content = CONTENTS[rng.below(CONTENTS.len())].to_vec();
    if rng.one_in(4) {
        content.extend(format!("{}\n", rng.below(100)).bytes());
    }
    content
}

/// The next commit's files: some of them are others, and so are some attributes.
fn change(rng: &mut Rng, files: &mut Files) {
    for _ in 0..rng.below(5) {
        let path = PathBuf::from(rng.pick(PATHS));
        match rng.below(6) {
            0 => drop(files.remove(&path)),
            1 => drop(files.insert(path, (0o120_000, b"f".to_vec()))),
            2 => drop(files.insert(path, (0o100_755, content(rng)))),
            _ => drop(files.insert(path, (0o100_644, content(rng)))),
        }
    }
    let at = rng.pick(&[".gitattributes", ".gitattributes", "dir/.gitattributes", "dir/deep/.gitattributes"]);
    match rng.below(5) {
        0 => {}
        1 => drop(files.remove(Path::new(at))),
        _ => drop(files.insert(at.into(), (0o100_644, attributes(rng)))),
    }
}

/// Writes the commits into the origin, as the branches c0, c1, … with the bytes as they are.
fn import(origin: &Path, commits: &[Files]) {
    let mut stream = Vec::new();
    for (n, files) in commits.iter().enumerate() {
        stream.extend(
            format!("commit refs/heads/c{n}\ncommitter a <a@b> {} +0000\ndata 1\nc\n", 1_700_000_000 + n).bytes(),
        );
        for (path, (mode, content)) in files {
            let mut name = String::new();
            for byte in path.as_os_str().as_bytes() {
                write!(name, "\\{byte:03o}").unwrap();
            }
            stream.extend(format!("M {mode:o} inline \"{name}\"\ndata {}\n", content.len()).bytes());
            stream.extend(content);
            stream.push(b'\n');
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), stream).unwrap();
    sh(origin, &format!("git fast-import --quiet --force <'{}'", file.path().display()));
    // Some histories have modes that git no longer writes.
    for n in (0..commits.len()).filter(|n| n % 3 == 1) {
        let tree = std::process::Command::new("git")
            .args(["cat-file", "tree", &format!("c{n}^{{tree}}")])
            .current_dir(origin)
            .output()
            .unwrap();
        let mut bytes = tree.stdout;
        let at: Vec<usize> =
            (0..bytes.len().saturating_sub(7)).filter(|at| bytes[*at..].starts_with(b"100644 ")).collect();
        for at in at {
            bytes[at + 3..at + 6].copy_from_slice(b"664");
        }
        std::fs::write(file.path(), bytes).unwrap();
        sh(
            origin,
            &format!(
                "git update-ref refs/heads/c{n} $(git commit-tree -m odd $(git hash-object -t tree -w --literally '{}'))",
                file.path().display()
            ),
        );
    }
}

/// What a build does to the tree: `$1` is a file of the commit.
const MANGLES: &[&str] = &[
    "sed -i 's/$/\\r/' \"$1\"",
    "tr -d '\\r' <\"$1\" >../x && cat ../x >\"$1\"; rm -f ../x",
    "sed -i 's/\\$Id[^$]*\\$/$Id: of a build $/' \"$1\"",
    "printf x >>\"$1\"",
    "printf '\\r\\n' >>\"$1\"",
    "cp -p \"$1\" ../x; sed -i 's/one/two/' \"$1\"; touch -r ../x \"$1\"; rm -f ../x",
    "rm -f \"$1\"",
    "rm -f \"$1\"; ln -s f \"$1\"",
    "rm -f \"$1\"; mkdir \"$1\"; : >\"$1/x\"",
    "chmod 755 \"$1\"",
    "chmod 600 \"$1\"",
    "touch -d '+400 days' \"$1\" .",
    "touch -d '2001-01-01' \"$1\"",
    "rm -f \"$1\"; iconv -f UTF-8 -t UTF-16LE </etc/hostname >\"$1\"",
    "echo '* text eol=crlf' >.gitattributes; rm -f \"$1\"; git checkout -q -- \"$1\"",
    "echo '* text' >>.gitattributes; sed -i 's/$/\\r/' \"$1\"",
    "mkdir -p dir; echo '* -text' >dir/.gitattributes; sed -i 's/$/\\r/' dir/*.txt",
    "rm -f .gitattributes dir/.gitattributes; git checkout -q -- \"$1\"",
    "mkdir -p .git/info; echo '* text eol=crlf ident' >.git/info/attributes; rm -f \"$1\"; git checkout -q -- \"$1\"",
    "git config core.autocrlf true; rm -f \"$1\"; git checkout -q -- \"$1\"",
    "git config core.eol crlf; rm -f \"$1\"; git checkout -q -- \"$1\"",
    "git update-index --assume-unchanged \"$1\"; sed -i 's/$/\\r/' \"$1\"",
    "git update-index --skip-worktree \"$1\"; printf x >\"$1\"",
    "sed -i 's/$/\\r/' \"$1\"; git add -A; git commit -qm 'of a build'",
    "git checkout -q origin/c0 && git checkout -q origin/c1",
    "git rm -q --cached \"$1\"",
    "git add --renormalize . && git commit -qm normal",
    "mkdir -p \"../beside\"; : >../beside/file; mkdir -p junk; : >junk/file; : >dir.o",
    "git stash -q; git gc -q --prune=now",
    "true",
];

/// All that lies in a tree but `.git`: what is no file and no link has mode 0.
fn of_tree(top: &Path) -> Files {
    fn walk(top: &Path, at: &Path, files: &mut Files) {
        for entry in std::fs::read_dir(at).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(top).unwrap().to_path_buf();
            let kind = entry.file_type().unwrap();
            if name == Path::new(".git") {
            } else if kind.is_dir() {
                walk(top, &path, files);
            } else if kind.is_symlink() {
                let to = std::fs::read_link(&path).unwrap();
                files.insert(name, (0o120_000, to.as_os_str().as_bytes().to_vec()));
            } else if kind.is_file() {
                let mode = std::fs::metadata(&path).unwrap().permissions().mode();
                files.insert(name, (mode, std::fs::read(&path).unwrap()));
            } else {
                files.insert(name, (0, Vec::new()));
            }
        }
    }
    let mut files = Files::new();
    walk(top, top, &mut files);
    files
}

/// A new clone of the origin at this commit, made by git alone.
fn clone(origin: &Path, id: &str, to: &Path) {
    let script = format!(
        "rm -rf '{to}'; git clone -q --no-local --no-checkout -- '{origin}' '{to}' && git -C '{to}' checkout -q --detach {id} 2>/dev/null",
        to = to.display(),
        origin = origin.display()
    );
    sh(origin, &format!("umask 022; {script}"));
}

/// What befell a copy, for the reader of a failure.
type Story = Arc<Mutex<Vec<String>>>;

struct Life {
    rng: Rng,
    world: World,
    policy: Clean,
    commits: usize,
    /// Commits that a build made, and whose lease was cleaned.
    made: Vec<String>,
    story: Story,
}

impl Life {
    async fn new(seed: u64, story: Story) -> Self {
        let mut rng = Rng(seed);
        let mut world = World::bare(|_| {});
        let mut files: Files = PATHS.iter().map(|path| (PathBuf::from(path), (0o100_644, content(&mut rng)))).collect();
        files.insert(".gitattributes".into(), (0o100_644, attributes(&mut rng)));
        let mut commits = Vec::new();
        for _ in 0..5 {
            commits.push(files.clone());
            change(&mut rng, &mut files);
        }
        // One that has no attributes at all.
        files.retain(|path, _| !path.ends_with(".gitattributes"));
        commits.push(files);
        import(&world.origin.dir.join("origin.git"), &commits);
        let policy = *rng.pick(&[&Clean::Clean, &Clean::Clean, &Clean::Keep]);
        let mut config = Config::new(world.origin.url());
        config.min_free_disk_mb = 1;
        config.clean = policy;
        if policy == Clean::Clean && rng.one_in(3) {
            config.keep = vec!["junk/".into(), ".gitattributes".into()];
        }
        story.lock().unwrap().push(format!("{policy:?}, keep {:?}", config.keep));
        world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
        world.provision().await.unwrap();
        Self { rng, world, policy, commits: commits.len(), made: Vec::new(), story }
    }

    fn note(&self, what: String) {
        self.story.lock().unwrap().push(what);
    }

    async fn cycle(&mut self) {
        let name = format!("c{}", self.rng.below(self.commits));
        self.note(format!("lease {name}"));
        let work = self.world.work(&[("branch", &name)]);
        let before = if self.world.tree().exists() { of_tree(&self.world.tree()) } else { Files::new() };
        let begun = SystemTime::now();
        let prepared = self.world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{failure:?}"));
        let origin = self.world.origin.dir.join("origin.git");
        let id = self.world.origin.id(&name);
        assert_eq!(prepared.access[access::COMMIT], id);
        let fresh = self.world.origin.dir.join("fresh");
        clone(&origin, &id, &fresh);
        self.compare(&fresh, &before, begun);
        for made in &self.made {
            let read = format!("git cat-file -e {made} 2>/dev/null && echo there || :");
            assert_eq!(sh(&self.world.tree(), &read), "", "commit {made} of an earlier lease");
        }
        let beside = sh(&self.world.home(), "ls -A | grep -vx -e tree -e meta -e parts || :");
        assert_eq!(beside, "", "beside the tree");
        if self.rng.one_in(2) {
            // So that no file changed shortly before the clean-up hashes it.
            tokio::time::sleep(Duration::from_millis(3100)).await;
        }
        for _ in 0..self.rng.below(4) {
            self.mangle();
        }
        let tip = sh(&self.world.tree(), "git rev-parse -q --verify HEAD || :");
        if !self.rng.one_in(4) {
            let ended = *self.rng.pick(&[&EndedHow::Ok, &EndedHow::Failed, &EndedHow::Expired]);
            self.note(format!("clean {ended:?}"));
            let job = CleanJob { resource: self.world.job.clone(), work, ended };
            self.world.adapter.clean(&job).await.unwrap_or_else(|failure| panic!("{failure:?}"));
            if sh(&origin, &format!("git cat-file -e {tip} 2>/dev/null && echo there || :")).is_empty() {
                self.made.push(tip);
            }
        }
    }

    fn mangle(&mut self) {
        let script = self.rng.pick(MANGLES);
        let files = of_tree(&self.world.tree());
        let paths: Vec<&PathBuf> = files.keys().collect();
        if paths.is_empty() {
            return;
        }
        let path = paths[self.rng.below(paths.len())];
        self.note(format!("{path:?}: {script}"));
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", script, "sh"])
            .arg(Path::new(".").join(path))
            .current_dir(self.world.tree())
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
            .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@b")])
            .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@b")])
            .output()
            .unwrap();
        // Many do not fit the file that they meet.
        drop(output);
    }

    fn compare(&self, fresh: &Path, before: &Files, begun: SystemTime) {
        let (wanted, mut found) = (of_tree(fresh), of_tree(&self.world.tree()));
        let kept = self.policy == Clean::Keep || !self.world.adapter.config().keep.is_empty();
        if kept {
            found.retain(|path, _| wanted.contains_key(path) || !before.contains_key(path));
        }
        let paths: BTreeSet<&PathBuf> = wanted.keys().chain(found.keys()).collect();
        for path in paths {
            let show = |file: Option<&(u32, Vec<u8>)>| {
                file.map(|(mode, content)| format!("{mode:o} {}", content.escape_ascii()))
            };
            assert_eq!(show(found.get(path)), show(wanted.get(path)), "{path:?}: left: the copy, right: a new clone");
        }
        let list = "git ls-files -s -t; git rev-parse HEAD";
        assert_eq!(sh(&self.world.tree(), list), sh(fresh, list), "the index: left: the copy, right: a new clone");
        for path in wanted.keys() {
            let at = self.world.tree().join(path);
            let time = std::fs::symlink_metadata(&at).unwrap().modified().unwrap();
            let now = SystemTime::now().max(begun);
            assert!(time <= now, "{path:?} is of the future");
        }
    }
}

async fn live(seed: u64, story: Story) {
    let mut life = Life::new(seed, story).await;
    for n in 0..8 {
        life.note(format!("-- cycle {n}"));
        life.cycle().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_what_a_new_clone_is_whatever_builds_did_to_it() {
    let seeds: Vec<u64> = match std::env::var("ORACLE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) if std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1") => (1..=60).collect(),
        Err(_) => (1..=8).collect(),
    };
    for some in seeds.chunks(4) {
        let lives: Vec<_> = some
            .iter()
            .map(|seed| {
                let story = Story::default();
                (seed, story.clone(), tokio::spawn(live(*seed, story)))
            })
            .collect();
        for (seed, story, life) in lives {
            if let Err(failed) = life.await {
                eprintln!("{}", story.lock().unwrap_or_else(PoisonError::into_inner).join("\n"));
                eprintln!("ORACLE_SEED={seed} cargo test -p wharfinger-copies --test oracle -- --nocapture");
                std::panic::resume_unwind(failed.into_panic());
            }
        }
    }
}

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

/// What no clone can check out is the request's fault: the copy is not doubted, and serves the next lease.
#[tokio::test]
async fn what_git_cannot_check_out_is_the_fault_of_the_commit() {
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
