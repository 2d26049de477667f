//! Two writers never: what a lease left behind on a real host is refused or dead before the next one has the slot.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use pool::{adapter, eventually, holder, job, made};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use support::Sshd;
use support::nft::{self, Fault};
use tokio::time::Instant;
use wharfinger_adapter::{
    Access, Adapter, Blame, CleanJob, Command, EndedHow, Exit, HolderWork, ParentHost, PrepareJob, ResourceJob, access,
};
use wharfinger_host::{fence, reaper::LEASE_VARIABLE};
use wharfinger_ssh::SshAdapter;

fn work(token: u64) -> HolderWork {
    HolderWork { lease: format!("lse_{token}"), slot: 0, token, ..HolderWork::default() }
}

async fn prepare(adapter: &dyn Adapter, job: &ResourceJob, token: u64) -> Access {
    pool::prepared(adapter, job, &work(token).lease, token).await
}

async fn break_it(adapter: &dyn Adapter, job: &ResourceJob, token: u64) {
    adapter.clean(&CleanJob { resource: job.clone(), work: work(token), ended: EndedHow::Broken }).await.unwrap();
}

/// Writes its token as fast as it can, and is hard to kill.
fn writer(file: &Path, token: u64) -> Command {
    let line = format!("trap '' TERM HUP INT; while :; do echo {token} >>'{}'; done", file.display());
    Command::sh(line).env(LEASE_VARIABLE, work(token).lease)
}

/// Breaks lease after lease on one slot. Each has a writer, which its holder starts again and again behind the fence, as
/// one does without the news of the break. No line of a former lease may come after one of a later.
async fn two_writers_never(adapter: &dyn Adapter, job: &ResourceJob, sshd: &Sshd, file: &Path) {
    let over = Arc::new(AtomicBool::new(false));
    let (mut holders, mut refusals) = (Vec::new(), Vec::<Arc<AtomicU32>>::new());
    // Each of these holders is refused twice from now on. The second attempt of each began after this call.
    let all_refused = async |refusals: &[Arc<AtomicU32>]| {
        for one in refusals {
            let until = one.load(Ordering::Relaxed) + 2;
            eventually("a former holder is refused", async || one.load(Ordering::Relaxed) >= until).await;
        }
    };
    for token in [9, 10, 11, 100] {
        let access = prepare(adapter, job, token).await;
        let (shell, path, command) = (holder(sshd), access[access::FENCE].clone(), writer(file, token));
        let (refused, over) = (Arc::new(AtomicU32::new(0)), over.clone());
        refusals.push(refused.clone());
        holders.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let output = shell.run(fence::guarded(command.clone(), &path, token)).await.unwrap();
                if output.exit == Exit::Code(fence::REFUSED) {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
        let own = format!("{token}");
        eventually(&format!("the writer of token {token} runs"), async || {
            std::fs::read_to_string(file).unwrap_or_default().lines().any(|line| line == own)
        })
        .await;
        // The former holders try while the writer runs.
        all_refused(&refusals[..refusals.len() - 1]).await;
        break_it(adapter, job, token).await;
        let after = std::fs::metadata(file).unwrap().len();
        all_refused(&refusals).await;
        assert_eq!(std::fs::metadata(file).unwrap().len(), after, "something of token {token} writes on");
    }
    over.store(true, Ordering::Relaxed);
    for holder in holders {
        holder.await.unwrap();
    }
    let text = std::fs::read_to_string(file).unwrap();
    let tokens: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(tokens.is_sorted(), "a former lease wrote after a later one");
    println!("{} lines by 4 leases", tokens.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_never_has_two_writers() {
    let sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let (job, _) = made(&adapter, job("res_1")).await;
    two_writers_never(&adapter, &job, &sshd, &sshd.folder().join("written")).await;
}

fn repository(folder: &Path) -> String {
    let script = "git init -q -b main origin && cd origin && echo one >a.txt && git add a.txt && \
                  git -c user.name=a -c user.email=a@example.org commit -qm one";
    let status = std::process::Command::new("/bin/sh").args(["-c", script]).current_dir(folder).status().unwrap();
    assert!(status.success());
    folder.join("origin").to_string_lossy().into_owned()
}

/// A working copy on the host, and the adapter that made it.
async fn copy_on(sshd: &Sshd, host: &SshAdapter) -> (wharfinger_copies::CopiesAdapter, ResourceJob) {
    let (host_job, access) = made(host, job("res_host")).await;
    let mut config = wharfinger_copies::Config::new(repository(sshd.folder()));
    config.min_free_disk_mb = 1;
    let copies = wharfinger_copies::CopiesAdapter::new("copies".into(), config).unwrap();
    let shell = host.shell(&host_job).await.unwrap();
    let mut copy = job("res_copy");
    copy.item = None;
    copy.parent = Some(ParentHost { resource: "res_host".into(), lease: String::new(), access, shell });
    let (copy, _) = made(&copies, copy).await;
    (copies, copy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_copy_never_has_two_writers() {
    let sshd = sshd_or_skip!();
    let host = adapter(&sshd);
    let (copies, job) = copy_on(&sshd, &host).await;
    two_writers_never(&copies, &job, &sshd, &sshd.folder().join("written")).await;
}

#[tokio::test]
async fn a_stale_holders_command_on_a_copy_that_was_leased_again_is_refused() {
    let sshd = sshd_or_skip!();
    let host = adapter(&sshd);
    let (copies, job) = copy_on(&sshd, &host).await;
    let first = prepare(&copies, &job, 9).await;
    let (tree, path) = (first[access::PATH].clone(), first[access::FENCE].clone());
    assert!(!path.starts_with(&format!("{tree}/")), "beside the tree, not in it: {path}");
    let shell = holder(&sshd);
    let commit = |token| {
        let line =
            "echo mine >mine.txt && git add mine.txt && git -c user.name=a -c user.email=a@example.org commit -qm m";
        fence::guarded(Command::sh(line).cwd(tree.clone()), &path, token)
    };
    assert_eq!(shell.run(commit(9)).await.unwrap().exit, Exit::Code(0));
    break_it(&copies, &job, 9).await;
    assert_eq!(shell.run(commit(9)).await.unwrap().exit, Exit::Code(fence::REFUSED), "nobody has it");
    // 9 and 10: by number, not by text.
    let second = prepare(&copies, &job, 10).await;
    assert_eq!(second[access::FENCE], path);
    let output = shell.run(commit(9)).await.unwrap();
    assert_eq!(output.exit, Exit::Code(fence::REFUSED), "{}", output.complaint());
    let head = shell.run(Command::new(["git", "-C", &tree, "rev-parse", "HEAD"])).await.unwrap().text();
    assert_eq!(head, second[access::COMMIT], "the copy is the second holder's alone");

    // A broker that is behind the times: it neither prepares nor cleans, and nothing is in doubt for it.
    let late = PrepareJob { resource: job.clone(), work: work(9), child: None };
    let failure = copies.prepare(&late).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "FENCED"), "{failure}");
    let late = CleanJob { resource: job.clone(), work: work(9), ended: EndedHow::Expired };
    let failure = copies.clean(&late).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Provider, "FENCED"), "{failure}");
    assert_eq!(shell.run(commit(10)).await.unwrap().exit, Exit::Code(0), "the second holder works on");
}

#[tokio::test]
async fn a_host_that_died_since_its_last_probe_is_not_handed_out() {
    let name = "a_host_that_died_since_its_last_probe_is_not_handed_out";
    let mut sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let (job, _) = made(&adapter, job("res_1")).await;
    prepare(&adapter, &job, 1).await;
    let ask = PrepareJob { resource: job.clone(), work: work(2), child: None };
    if !nft::skip(name) {
        let _hole = Fault::black_hole(sshd.address);
        let asked = Instant::now();
        let failure = adapter.prepare(&ask).await.unwrap_err();
        println!("prepare in a black hole failed after {:?}", asked.elapsed());
        assert_eq!((failure.blame, failure.reason), (Blame::Resource, "UNREACHABLE"), "{failure}");
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    }
    sshd.kill_hard();
    let failure = adapter.prepare(&ask).await.unwrap_err();
    // A login that began before the end of sshd sees its connection closed instead of refused.
    let dead = failure.blame == Blame::Resource && ["UNREACHABLE", "SSHD_BUSY"].contains(&failure.reason);
    assert!(dead, "{failure}");
}
