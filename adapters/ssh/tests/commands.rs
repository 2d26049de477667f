//! Commands of a holder on a real sshd: long arguments, and standard input that comes while they run.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use async_trait::async_trait;
use bytes::Bytes;
use pool::{eventually, holder};
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use wharfinger_adapter::{Command, Exit, InputSource};

/// Input of a test, piece by piece.
struct Piped(Mutex<mpsc::Receiver<Bytes>>);

#[async_trait]
impl InputSource for Piped {
    async fn next(&self) -> Option<Bytes> {
        self.0.lock().await.recv().await
    }
}

fn piped() -> (mpsc::Sender<Bytes>, Arc<dyn InputSource>) {
    let (tx, rx) = mpsc::channel(4);
    (tx, Arc::new(Piped(Mutex::new(rx))))
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_arrives_while_a_command_runs() {
    let sshd = sshd_or_skip!();
    let shell = holder(&sshd);
    let (sender, input) = piped();
    let seen = sshd.folder().join("seen");
    let line = "read -r one && echo \"$one\" >\"$1.new\" && mv \"$1.new\" \"$1\" && cksum";
    let command =
        Command { input: Some(input), ..Command::new(["/bin/sh", "-c", line, "sh", &seen.to_string_lossy()]) };
    let running = tokio::spawn(async move { shell.run(command).await });
    sender.send(Bytes::from_static(b"first\n")).await.unwrap();
    eventually("the first line arrives", async || seen.exists()).await;
    // Three megabytes, which no window of a channel takes at once.
    let piece = Bytes::from((0..100_000u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
    for _ in 0..30 {
        sender.send(piece.clone()).await.unwrap();
    }
    drop(sender);
    let output = running.await.unwrap().unwrap();
    let whole = sshd.folder().join("whole");
    std::fs::write(&whole, piece.repeat(30)).unwrap();
    let expected = std::process::Command::new("cksum").stdin(std::fs::File::open(&whole).unwrap()).output().unwrap();
    assert_eq!((output.exit, output.stdout), (Exit::Code(0), expected.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_never_ends_holds_no_command_up() {
    let sshd = sshd_or_skip!();
    let (_sender, input) = piped();
    let command = Command { input: Some(input), ..Command::new(["echo", "x"]) };
    let output = tokio::time::timeout(pool::PATIENCE, holder(&sshd).run(command)).await.unwrap().unwrap();
    assert_eq!((output.exit.clone(), output.text().as_str()), (Exit::Code(0), "x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_arguments_and_variables_arrive_whole_before_the_input() {
    let sshd = sshd_or_skip!();
    let shell = holder(&sshd);
    // Each near the kernel's limit, with every byte that a quotation could lose.
    let long = "it's \\ \"$x\" `y` %s\\n\n\té".repeat(5000);
    assert!(long.len() > 100_000);
    let line = "printf '%s' \"$1\" | cmp - \"$2\" && printf '%s' \"$EVENT\" | cmp - \"$2\" && cat";
    let file = sshd.folder().join("long").to_string_lossy().into_owned();
    std::fs::write(&file, &long).unwrap();
    let command = Command::new(["/bin/sh", "-c", line, "sh", &long, &file]).env("EVENT", &long).stdin("the input");
    let output = shell.run(command).await.unwrap();
    assert_eq!((output.exit.clone(), output.text().as_str()), (Exit::Code(0), "the input"), "{}", output.complaint());
}
