//! Names that others choose (branches, tags, paths) are data: none runs as a program, none matches another.

#![allow(clippy::unwrap_used)] // a test's helpers

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use async_trait::async_trait;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::hostile_names::{Rng, canary, git, host_with, lives, must, spoil};
use support::{Origin, TestShell, World, sh};
use tokio::sync::mpsc;
use wharfinger_adapter::{
    Adapter, Blame, Command, Exit, OutputSink, PrepareJob, Prepared, Shell, ShellError, Stream, access,
};
use wharfinger_copies::{Author, Clean, Config, CopiesAdapter, LandRequest, LandedFrom, Landing, Source, land};

#[tokio::test]
async fn the_name_of_a_branch_runs_no_command() {
    let world = World::new(Clean::Clean).await;
    let (_dir, flag) = canary();
    let name = format!("x|touch${{IFS}}{flag}|e;#");
    world.origin.work(&format!("git push -q origin 'side:refs/heads/{name}'"));
    let prepared = world.prepare(&[("branch", &name)]).await.unwrap();
    world.assert_is(&prepared, "side", &[]);
    for (key, name) in [("branch", format!("main|touch${{IFS}}{flag}|e;#")), ("tag", "a|b".into())] {
        let failure = world.prepare(&[(key, &name)]).await.expect_err(&name);
        assert_eq!((failure.blame, failure.reason), (Blame::Request, "REF_NOT_FOUND"), "{name}");
    }
    assert!(!Path::new(&flag).exists(), "the name of a branch has run a command");
}

/// Counts what a command prints on its standard output: the most of all that were run.
#[derive(Default)]
struct Counting {
    inner: TestShell,
    most: AtomicUsize,
}

#[async_trait]
impl Shell for Counting {
    async fn stream(&self, command: Command, output: OutputSink) -> Result<Exit, ShellError> {
        let (tx, mut rx) = mpsc::channel(64);
        let pass = async {
            let mut printed = 0;
            while let Some((stream, bytes)) = rx.recv().await {
                let bytes: Bytes = bytes;
                if stream == Stream::Stdout {
                    printed += bytes.len();
                }
                let _ = output.send((stream, bytes)).await;
            }
            self.most.fetch_max(printed, Ordering::SeqCst);
        };
        tokio::join!(self.inner.stream(command, tx), pass).0
    }

    async fn put(&self, path: &str, content: Bytes, mode: u32) -> Result<(), ShellError> {
        self.inner.put(path, content, mode).await
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Bytes, ShellError> {
        self.inner.get(path, limit).await
    }
}

#[tokio::test]
async fn a_name_is_not_another_that_begins_with_it() {
    let world = World::new(Clean::Clean).await;
    let origin = world.origin.dir.join("origin.git");
    let (main, side) = (world.origin.id("main"), world.origin.id("side"));
    sh(
        &origin,
        &format!(
            r#"{{ echo "create refs/heads/ci {side}"
            seq -f "create refs/heads/ci-%05.0f {main}" 500
            seq -f "create refs/tags/ci-%05.0f {main}" 500
            echo "create refs/original/refs/heads/ci {main}"; echo "create refs/heads/refs/heads/ci {main}"
            }} | git update-ref --stdin && git pack-refs --all"#
        ),
    );
    let shell = Arc::new(Counting::default());
    for (key, name) in [("branch", "ci"), ("ref", "ci"), ("ref", "refs/heads/ci")] {
        let job = PrepareJob { resource: world.job_on(shell.clone()), work: world.work(&[(key, name)]), child: None };
        let prepared = world.adapter.prepare(&job).await.unwrap();
        assert_eq!(prepared.access[access::COMMIT], side, "{key} {name}");
    }
    // The broker keeps only the end of a long output, so 40,000 such branches would hide the wanted one.
    let most = shell.most.load(Ordering::SeqCst);
    assert!((100..5_000).contains(&most), "a script prints {most} bytes");
}

/// Names of branches that git allows.
fn refs(rng: &mut Rng, dir: &Path, n: usize) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    while found.len() < n {
        let name = rng.name();
        // Not in one directory with another, nor its directory.
        let apart = |other: &String| !other.starts_with(&format!("{name}/")) && !name.starts_with(&format!("{other}/"));
        if git(dir, &["check-ref-format", "--branch", &name]).is_some()
            && !found.contains(&name)
            && found.iter().all(apart)
        {
            found.push(name);
        }
    }
    found
}

/// A commit on `parent` with files of hostile names, links among them, as far as git allows them.
fn commit(rng: &mut Rng, dir: &Path, parent: &str, message: &str) -> String {
    must(dir, &["read-tree", parent]);
    let blob = must(dir, &["rev-parse", "main:a.txt"]);
    for mode in ["100644", "100755", "120000", "100644", "100644", "100644"] {
        git(dir, &["update-index", "--add", "--cacheinfo", mode, &blob, &rng.name()]);
    }
    // The place of a submodule that no pool fills here.
    git(dir, &["update-index", "--add", "--cacheinfo", "160000", parent, &rng.name()]);
    let tree = must(dir, &["write-tree"]);
    must(dir, &["commit-tree", &tree, "-p", parent, "-m", message])
}

/// That the tree is this commit, mode for mode and byte for byte, without a name in any program's text.
fn assert_tree(world: &World, prepared: &Prepared, id: &str, what: &str) {
    assert_eq!(prepared.access[access::COMMIT], id, "{what}");
    let (origin, tree) = (world.origin.dir.join("origin.git"), world.tree());
    let export = tempfile::tempdir().unwrap();
    let (tar, wanted) = (export.path().join("tar"), export.path().join("tree"));
    std::fs::create_dir(&wanted).unwrap();
    must(&origin, &["-c", "tar.umask=022", "archive", "--output", tar.to_str().unwrap(), id]);
    let run = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).env("LC_ALL", "C").output().unwrap();
        assert!(output.status.success(), "{what}: {program}: {}", String::from_utf8_lossy(&output.stdout));
        output.stdout
    };
    let (wanted, tree) = (wanted.to_str().unwrap(), tree.to_str().unwrap());
    run("tar", &["-x", "-f", tar.to_str().unwrap(), "-C", wanted]);
    run("diff", &["-r", "--no-dereference", "--exclude=.git", wanted, tree]);
    let modes = |dir: &str| {
        let found = run("find", &[dir, "-name", ".git", "-prune", "-o", "!", "-type", "d", "-printf", "%y %m %P\\0"]);
        let mut lines: Vec<Vec<u8>> = found.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert!(modes(wanted) == modes(tree), "{what}: modes");
}

/// One copy's life with names of this seed: made, leased, spoilt, cleaned, leased with a merge, landed, checked, removed.
async fn live(seed: u64, shell: &'static str) {
    let mut rng = Rng(seed, shell.ends_with("applets"));
    let (dir, _) = canary();
    let host = host_with(shell, dir.path());
    let ran = dir.path().join("ran");
    let mut world = World::bare(|_| {});
    // The directories of the origin and of the host have hostile names as well; those of `..` and line ends are refused.
    let plain = |name: String| name.replace(['/', '\0'], "").replace(char::is_control, "");
    let top = world.origin.dir.join(format!("o{}", plain(rng.name())));
    std::fs::create_dir(&top).unwrap();
    world.origin = Origin::make(&top);
    let mut config = Config::new(world.origin.url());
    config.min_free_disk_mb = 1;
    world.adapter = CopiesAdapter::new("copies".into(), config).unwrap();
    let place = world.root.parent().unwrap().join(format!("h{}", plain(rng.name())));
    std::fs::create_dir(&place).unwrap();
    world.root = place.join("copies");
    let parent = world.job.parent.as_mut().unwrap();
    parent.access.insert(access::PATH.to_string(), place.to_str().unwrap().to_string());
    parent.shell = host.clone();

    let origin = world.origin.dir.join("origin.git");
    let names = refs(&mut rng, &origin, 4);
    let main = world.origin.id("main");
    let commits: Vec<String> = names.iter().map(|name| commit(&mut rng, &origin, &main, name)).collect();
    for (name, id) in names.iter().zip(&commits) {
        must(&origin, &["update-ref", &format!("refs/heads/{name}"), id]);
        must(&origin, &["update-ref", &format!("refs/tags/{name}"), id]);
        // Listed for the same pattern, and before it.
        must(&origin, &["update-ref", &format!("refs/a/refs/heads/{name}"), &main]);
    }
    must(&origin, &["symbolic-ref", "HEAD", &format!("refs/heads/{}", names[3])]);
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "ref: none of theirs\n").unwrap();
    let what = format!("seed {seed}, {shell}, {names:?}");
    let quiet = |step: &str| {
        assert!(!ran.exists(), "{what}: {step}: a name has run a command");
        assert!(victim.exists(), "{what}: {step}: a name has removed a file");
    };

    world.provision().await.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
    quiet("provision");
    for (at, key) in ["branch", "tag", "ref"].into_iter().enumerate() {
        let name = if key == "ref" { format!("refs/heads/{}", names[at]) } else { names[at].clone() };
        let work = world.work(&[(key, &name)]);
        let prepared =
            world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{what}: {key} {failure:?}"));
        quiet(key);
        assert_tree(&world, &prepared, &commits[at], &what);
        spoil(&mut rng, &world, &victim);
        world.clean(work).await.unwrap_or_else(|failure| panic!("{what}: clean: {failure:?}"));
        quiet("clean");
    }
    let prepared = world.prepare(&[]).await.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
    assert_tree(&world, &prepared, &commits[3], &what);
    for (key, name) in [("branch", rng.name()), ("tag", rng.name()), ("ref", rng.name()), ("merge", rng.name())] {
        if names.contains(&name) {
            continue;
        }
        let failure = world.prepare(&[(key, &name)]).await.expect_err(&name);
        assert_eq!(failure.blame, Blame::Request, "{what}: {key} {name:?}: {failure:?}");
        quiet("a name that is not there");
    }

    // A comma is what stands between two of them.
    if let Some(at) = names.iter().position(|name| !name.contains(',')) {
        let other = format!("refs/heads/{}", names[at]);
        let merged = world.prepare(&[("branch", "main"), ("merge", &other)]).await;
        let merged = merged.unwrap_or_else(|failure| panic!("{what}: merge: {failure:?}"));
        assert_tree(&world, &merged, &commits[at], &what);
    }
    quiet("merge");
    let prepared = world.prepare(&[("branch", "main")]).await.unwrap();
    spoil(&mut rng, &world, &victim);
    let from = LandedFrom {
        resource: world.job.resource.clone(),
        path: prepared.access[access::PATH].clone(),
        repository: prepared.access[access::REPOSITORY].clone(),
        fence: None,
        sparse: Vec::new(),
        ca_file: String::new(),
    };
    let message = format!("{}\n\n{}", rng.name(), rng.name());
    let author = Author { name: rng.name().replace(['<', '>'], "").replace(char::is_control, ""), email: "a@b".into() };
    let request = LandRequest {
        message: Some(message.clone()),
        author: Some(author),
        changes: true,
        ..LandRequest::new("x", &names[1])
    };
    let landed = match land(&*host, &from, &request).await {
        Ok(Landing::Landed(push)) => push,
        other => panic!("{what}: {message:?}: {other:?}"),
    };
    quiet("land");
    assert_eq!(must(&origin, &["rev-parse", &format!("refs/heads/{}", names[1])]), landed.commit, "{what}");
    assert!(
        must(&origin, &["log", "-3", "--format=%B", &landed.commit]).contains(message.trim()),
        "{what}: {message:?}"
    );
    world.adapter.destroy(&world.job).await.unwrap();
    quiet("destroy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_run_nothing_in_any_shell() {
    // A name of this seed runs a command where names are part of a program for sed.
    lives(4, live).await;
}

/// A commit on `parent` whose submodules and large files have hostile names, and their names in `.gitmodules` too. Returns it with
/// the paths of the submodules and of the large files.
fn commit_of_parts(
    rng: &mut Rng,
    origin: &Path,
    parent: &str,
    module: (&str, &str),
) -> (String, Vec<String>, Vec<String>) {
    must(origin, &["read-tree", parent]);
    let at = tempfile::tempdir().unwrap();
    let add =
        |mode: &str, blob: &str, path: &str| git(origin, &["update-index", "--add", "--cacheinfo", mode, blob, path]);
    let write = |content: &str| {
        let file = at.path().join("content");
        std::fs::write(&file, content).unwrap();
        must(origin, &["hash-object", "-w", file.to_str().unwrap()])
    };
    let (mut links, mut large) = (Vec::new(), Vec::new());
    let listed = at.path().join("gitmodules");
    for _ in 0..3 {
        let (path, name) = (rng.name(), rng.name().replace('\n', ""));
        if add("160000", module.1, &path).is_some() {
            let set = |key: &str, value: &str| {
                git(at.path(), &["config", "-f", "gitmodules", &format!("submodule.{name}.{key}"), value])
            };
            if set("path", &path).is_some() && set("url", module.0).is_some() {
                links.push(path);
            }
        }
    }
    add("100644", &write(&std::fs::read_to_string(&listed).unwrap_or_default()), ".gitmodules");
    let oid = sh(origin, "printf 'large\n' | sha256sum | cut -d' ' -f1");
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 6\n");
    let blob = write(&pointer);
    add("100644", &write("*.bin filter=lfs diff=lfs merge=lfs -text\n"), ".gitattributes");
    for _ in 0..3 {
        // Git-lfs ends a line at each line end, so that such a name is no file of its list.
        let path = format!("{}.bin", rng.name().replace('\n', ""));
        if add("100644", &blob, &path).is_some() {
            large.push(path);
        }
    }
    let stored = origin.join("lfs/objects").join(&oid[..2]).join(&oid[2..4]);
    std::fs::create_dir_all(&stored).unwrap();
    std::fs::write(stored.join(&oid), "large\n").unwrap();
    let tree = must(origin, &["write-tree"]);
    (must(origin, &["commit-tree", &tree, "-p", parent, "-m", "parts"]), links, large)
}

/// One copy's life with submodules and large files of hostile names.
async fn live_in_parts(seed: u64, shell: &'static str) {
    let mut rng = Rng(seed, shell.ends_with("applets"));
    let (dir, _) = canary();
    let host = host_with(shell, dir.path());
    let ran = dir.path().join("ran");
    let lfs = wharfinger_testkit::need(
        wharfinger_testkit::Need::GitLfs,
        std::process::Command::new("git-lfs").arg("version").output().ok(),
    );
    let mut world = World::bare(|config| {
        config.submodules = true;
        config.lfs = lfs.is_some();
    });
    world.job.parent.as_mut().unwrap().shell = host;
    let origin = world.origin.dir.join("origin.git");
    let module = format!("m{}.git", rng.name().replace('/', "").replace(char::is_control, ""));
    sh(&world.origin.dir, "git clone -q --bare origin.git module");
    std::fs::rename(world.origin.dir.join("module"), world.origin.dir.join(&module)).unwrap();
    let (main, url) = (world.origin.id("main"), format!("../{module}"));
    let commits: Vec<_> = (0..2).map(|_| commit_of_parts(&mut rng, &origin, &main, (&url, &main))).collect();
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "ref: none of theirs\n").unwrap();
    world.provision().await.unwrap();
    let mut filled = 0;
    for (at, (id, links, large)) in commits.iter().enumerate() {
        must(&origin, &["update-ref", &format!("refs/heads/c{at}"), id]);
        let what = format!("seed {seed}, {shell}, {links:?}, {large:?}");
        let work = world.work(&[("branch", &format!("c{at}"))]);
        match world.prepare_for(work.clone()).await {
            Ok(_) => {
                for path in links {
                    filled += 1;
                    let module = world.tree().join(path);
                    assert_eq!(must(&module, &["rev-parse", "HEAD"]), main, "{what}: {path:?}");
                    assert_eq!(must(&module, &["status", "--porcelain", "--ignored"]), "", "{what}: {path:?}");
                }
                for path in large.iter().filter(|_| lfs.is_some()) {
                    let content = std::fs::read_to_string(world.tree().join(path));
                    assert_eq!(content.ok().as_deref(), Some("large\n"), "{what}: {path:?}");
                }
            }
            // Names that git refuses as well are the commit's fault.
            Err(failure) => assert_eq!(failure.blame, Blame::Request, "{what}: {failure:?}"),
        }
        assert!(!ran.exists(), "{what}: a name has run a command");
        spoil(&mut rng, &world, &victim);
        world.clean(work).await.unwrap_or_else(|failure| panic!("{what}: clean: {failure:?}"));
        assert!(!ran.exists() && victim.exists(), "{what}: clean");
        // The next holder has none of them.
        let prepared = world.prepare(&[]).await.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
        assert_tree(&world, &prepared, &main, &what);
    }
    println!("seed {seed}, {shell}: {filled} submodules with hostile names were filled");
    world.adapter.destroy(&world.job).await.unwrap();
    assert!(!ran.exists() && victim.exists(), "seed {seed}, {shell}: destroy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_of_submodules_and_large_files_run_nothing_in_any_shell() {
    lives(1, live_in_parts).await;
}

/// One copy's life with several repositories, of which one has only directories of hostile names.
async fn live_sparse(seed: u64, shell: &'static str) {
    let mut rng = Rng(seed, shell.ends_with("applets"));
    let (dir, _) = canary();
    let host = host_with(shell, dir.path());
    let ran = dir.path().join("ran");
    let mut world = World::bare(|_| {});
    let origin = world.origin.dir.join("origin.git");
    let main = world.origin.id("main");
    let mut source = Source { repository: world.origin.url(), default_branch: None, sparse: Vec::new() };
    let mut config = world.adapter.config().clone();
    config.repository = String::new();
    // Directories that the configuration takes: it refuses the others.
    must(&origin, &["read-tree", &main]);
    let blob = must(&origin, &["rev-parse", "main:a.txt"]);
    let add = |path: &str| git(&origin, &["update-index", "--add", "--cacheinfo", "100644", &blob, path]).is_some();
    for _ in 0..200 {
        let name = rng.name();
        let mut tried = config.clone();
        tried.repositories = [("part".into(), Source { sparse: vec![name.clone()], ..source.clone() })].into();
        if source.sparse.len() < 3
            && CopiesAdapter::new("copies".into(), tried).is_ok()
            && add(&format!("{}/in", name.trim_end_matches('/')))
        {
            source.sparse.push(name);
        }
        add(&rng.name());
    }
    let tree = must(&origin, &["write-tree"]);
    let commit = must(&origin, &["commit-tree", &tree, "-p", &main, "-m", "directories"]);
    must(&origin, &["update-ref", "refs/heads/main", &commit]);
    let what = format!("seed {seed}, {shell}, {:?}", source.sparse);
    let whole = Source { sparse: Vec::new(), ..source.clone() };
    config.repositories = [("part".into(), source.clone()), ("whole".into(), whole)].into();
    config.default = Some("part".into());
    world.adapter = CopiesAdapter::new("copies".into(), config).unwrap_or_else(|problem| panic!("{what}: {problem:?}"));
    world.job.parent.as_mut().unwrap().shell = host;
    world.job.op += 1;
    let job = wharfinger_adapter::ProvisionJob { resource: world.job.clone(), attempt: 0 };
    let made = world.adapter.provision(&job).await.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
    world.job.handle = Some(made.handle);
    for _ in 0..2 {
        let work = world.work(&[]);
        let prepared = world.prepare_for(work.clone()).await.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
        assert_eq!(prepared.access[access::COMMIT], commit, "{what}");
        for part in &source.sparse {
            let file = world.tree().join("part").join(part).join("in");
            assert_eq!(
                std::fs::read(&file).ok(),
                std::fs::read(world.tree().join("part/a.txt")).ok(),
                "{what}: {file:?}"
            );
        }
        let seen = must(&world.tree().join("part"), &["status", "--porcelain", "--ignored"]);
        assert_eq!(seen, "", "{what}");
        assert!(!ran.exists(), "{what}: prepare");
        for _ in 0..6 {
            let name = rng.name().replace('/', "");
            for place in ["part", "whole", "."] {
                let _ = std::fs::write(world.tree().join(place).join(&name), "left by a build\n");
            }
        }
        world.clean(work).await.unwrap_or_else(|failure| panic!("{what}: clean: {failure:?}"));
        assert!(!ran.exists(), "{what}: clean");
    }
    world.adapter.destroy(&world.job).await.unwrap();
    assert!(!ran.exists(), "{what}: destroy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_names_of_directories_in_several_repositories_run_nothing_in_any_shell() {
    lives(1, live_sparse).await;
}
