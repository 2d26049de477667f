//! Names that others choose (branches, tags, paths) are data: none runs as a program, none matches another.

#[allow(dead_code, unused_imports, clippy::unwrap_used)] // the other test files use the rest
mod support;

use async_trait::async_trait;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{TestShell, World, sh};
use tokio::sync::mpsc;
use wharfinger_adapter::{Adapter, Blame, Command, Exit, OutputSink, PrepareJob, Shell, ShellError, Stream, access};
use wharfinger_copies::Clean;

/// A directory whose path git takes within the name of a branch: no part of it begins with a dot.
fn canary() -> (tempfile::TempDir, String) {
    let dir = tempfile::Builder::new().prefix("names").tempdir().unwrap();
    let flag = dir.path().join("ran").to_str().unwrap().to_string();
    (dir, flag)
}

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
