//! Paths that have newlines: each is one path, and no part of it is taken for the path of another.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

#[allow(dead_code, unused_imports, clippy::unwrap_used, reason = "the other test files use the rest")]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use support::{TestShell, World, sh};
use wharfinger_adapter::{Adapter, Shell, access};
use wharfinger_copies::{Clean, Config, CopiesAdapter};
use wharfinger_host::sweep;

/// A process of no lease with this working directory. It ends with the test.
struct Stray(Child);

impl Stray {
    fn at(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mut command = Command::new("/bin/sleep");
        command.arg("600").env_clear().current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A path below `dir` whose last line is this path.
fn ends_with(dir: &Path, path: &Path) -> PathBuf {
    dir.join(format!("line\n{}", path.display()))
}

/// A path below `dir` whose last line is a link to this path, as `ls -l` prints that of this process.
fn looks_like_a_link(dir: &Path, of: &Stray, path: &Path) -> PathBuf {
    dir.join(format!("line\nlrwxrwxrwx 1 root root 0 Jan  1 00:00 /proc/{}/cwd -> {}", of.0.id(), path.display()))
}

/// A host whose `find` does not compare what links lead to.
fn without_lname(dir: &Path) -> TestShell {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let busybox = sh(dir, "command -v busybox");
    std::os::unix::fs::symlink(&busybox, bin.join("find")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    TestShell { env: vec![("PATH".into(), path)], prefix: Vec::new() }
}

async fn only_what_lies_in_the_copy_is_ended(shell: impl FnOnce(&Path) -> TestShell) {
    let mut world = World::new(Clean::Clean).await;
    let out = tempfile::tempdir().unwrap();
    let tree = world.tree();
    let mut inside = [
        Stray::at(&tree.join("a\nb")),
        Stray::at(&tree.join("ends\n")),
        Stray::at(&tree.join("a -> b")),
        Stray::at(&world.home().join("meta/x\ny")),
    ];
    let plain = Stray::at(&out.path().join("plain"));
    let mut outside = [
        Stray::at(&ends_with(out.path(), &tree.join("x"))),
        Stray::at(&looks_like_a_link(out.path(), &plain, &tree.join("x"))),
        plain,
        Stray::at(&out.path().join(format!("a -> {}", tree.join("x").display()))),
        Stray::at(&world.root.join(format!("{}\n", world.job.resource)).join("tree")),
    ];
    let shell = shell(out.path());
    assert_eq!(
        shell.run(wharfinger_adapter::Command::new(["true"])).await.unwrap().exit,
        wharfinger_adapter::Exit::Code(0)
    );
    world.job = world.job_on(Arc::new(shell));
    world.adapter.destroy(&world.job).await.unwrap();
    for (n, stray) in inside.iter_mut().enumerate() {
        assert!(!stray.runs(), "process {n} in the copy runs on");
    }
    for (n, stray) in outside.iter_mut().enumerate() {
        assert!(stray.runs(), "process {n} beside the copy is ended");
    }
    assert!(!world.home().exists());
}

#[tokio::test]
async fn no_process_beside_the_copy_is_ended_for_its_path() {
    only_what_lies_in_the_copy_is_ended(|_| TestShell::default()).await;
}

#[tokio::test]
async fn nor_where_find_does_not_compare_links() {
    only_what_lies_in_the_copy_is_ended(without_lname).await;
}

#[tokio::test]
async fn a_sweep_ends_what_lies_in_an_earlier_resource_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    std::fs::create_dir(&hosts).unwrap();
    let shell = TestShell::default();
    let old = hosts.join("res_1");
    std::fs::create_dir(&old).unwrap();
    sweep::claim(&shell, old.to_str().unwrap(), "pool/item").await.unwrap();
    let mut inside = [Stray::at(&old.join("a\nb")), Stray::at(&old.join("ends\n")), Stray::at(&old.join("plain"))];
    let plain = Stray::at(&dir.path().join("plain"));
    let mut outside = [
        Stray::at(&ends_with(dir.path(), &old.join("x"))),
        Stray::at(&looks_like_a_link(dir.path(), &plain, &old.join("x"))),
        plain,
        Stray::at(&hosts.join("res_1\nx")),
    ];
    let new = hosts.join("res_2");
    let swept = sweep::claim(&shell, new.to_str().unwrap(), "pool/item").await.unwrap();
    assert_eq!(swept.resources, 1, "{swept:?}");
    for (n, stray) in inside.iter_mut().enumerate() {
        assert!(!stray.runs(), "process {n} of the earlier resource runs on");
    }
    for (n, stray) in outside.iter_mut().enumerate() {
        assert!(stray.runs(), "process {n} beside the earlier resource is ended");
    }
}

/// A commit with submodules in directories whose names have newlines, which this pool does not fill.
#[tokio::test]
async fn the_place_of_a_submodule_is_emptied_wherever_it_lies() {
    let world = World::new(Clean::Clean).await;
    let places = ["d\n/place", "d\n\n/e/place", "place\n", "a\nb/c\nd", "d/place"];
    let script: String = places.iter().map(|place| format!("place '{place}'\n")).collect();
    world.origin.work(&format!(
        "mkdir -p d; echo x >d/other; git add -A
        place() {{ git update-index --add --cacheinfo \"160000,$(git rev-parse HEAD),$1\"; }}
        {script}git commit -qm places; git push -q origin HEAD:refs/heads/places"
    ));
    for _ in 0..2 {
        let prepared = world.prepare(&[("branch", "places")]).await.unwrap();
        assert_eq!(prepared.access[access::COMMIT], world.origin.id("places"));
        for place in places {
            let at = world.tree().join(place);
            assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0, "{place:?}");
            std::fs::create_dir(at.join(".git")).unwrap();
            std::fs::write(at.join("left"), "by a build").unwrap();
        }
        assert_eq!(world.spoil("cat d/other"), "x");
    }
}

/// The names of a pool's own directories may have no newline, so no line of a script's output is two.
#[test]
fn settings_have_no_newlines() {
    for change in [
        (|config: &mut Config| config.root = Some("/srv/a\nb".into())) as fn(&mut Config),
        |config| config.sparse = vec!["a\nb".into()],
        |config| config.keep = vec!["a\nb".into()],
        |config| config.default_branch = Some("a\nb".into()),
        |config| config.repository = "/srv/a\nb".into(),
    ] {
        let mut config = Config::new("/srv/a.git");
        change(&mut config);
        assert!(CopiesAdapter::new("copies".into(), config).is_err());
    }
}
