//! A copy that builds have changed is, after the next prepare, byte for byte what a new clone at the same commit is. A seed makes
//! repositories (attributes, contents, commits) and changes; git makes the clone to compare with. Eight seeds always, 60 with
//! WHARFINGER_LONG=1; `ORACLE_SEED=n cargo test -p wharfinger-copies --test oracle -- --nocapture` replays a seed.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[allow(dead_code, unused_imports, clippy::unwrap_used, reason = "the other test files use the rest")]
mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use support::clones::{Files, clone, import, of_tree};
use support::{World, sh};
use wharfinger_adapter::{Adapter, CleanJob, EndedHow, access};
use wharfinger_copies::{Clean, Config, CopiesAdapter};

/// The generator SplitMix64.
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
    if rng.one_in(6) {
        text.insert(0, '\u{feff}');
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

/// Acts of a build in the tree: `$1` is a file of the commit.
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
    "git init -q dir; echo 'gitdir: x' >dir/deep/.git",
    "chmod 2775 dir; chmod 700 dir/deep other",
    "git stash -q; git gc -q --prune=now",
    "true",
];

/// Damages of a copy, for the reader of a failure.
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
        let prepared = self.world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{failure:?}"));
        let origin = self.world.origin.dir.join("origin.git");
        let id = self.world.origin.id(&name);
        assert_eq!(prepared.access[access::COMMIT], id);
        let fresh = self.world.origin.dir.join("fresh");
        clone(&origin, &id, &fresh);
        self.compare(&fresh, &before);
        for made in &self.made {
            let read = format!("git cat-file -e {made} 2>/dev/null && echo there || :");
            assert_eq!(sh(&self.world.tree(), &read), "", "commit {made} of an earlier lease");
        }
        let beside = sh(&self.world.home(), "ls -A | grep -vx -e tree -e meta -e parts || :");
        assert_eq!(beside, "", "beside the tree");
        if self.rng.one_in(2) {
            // No file changed shortly before the clean-up hashes it.
            let changed = "find . -path ./.git -prune -o ! -type d -newerct '3 seconds ago' -print -quit";
            while !sh(&self.world.tree(), changed).is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
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

    fn compare(&self, fresh: &Path, before: &Files) {
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
        // By the clock of the file system.
        let clock = self.world.origin.dir.join("clock");
        std::fs::write(&clock, "").unwrap();
        let now = std::fs::metadata(&clock).unwrap().modified().unwrap();
        for path in wanted.keys() {
            let at = self.world.tree().join(path);
            let time = std::fs::symlink_metadata(&at).unwrap().modified().unwrap();
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
