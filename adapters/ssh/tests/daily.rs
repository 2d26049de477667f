//! Hosts and sshd's of daily life: what a farm's machines do every day, and what is no evidence against them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use bytes::Bytes;
use pool::{adapter, adapter_for, eventually, holder, job, made};
use support::Sshd;
use wharfinger_adapter::{
    Adapter, Blame, CleanJob, Command, EndedHow, Failure, HolderWork, ProvisionJob, ShellError, Verdict, access,
};

/// Probes in a row, one of which runs a command.
const A_THOROUGH_ONE: usize = 12;

#[tokio::test]
async fn start_up_files_that_print_change_nothing() {
    let sshd = sshd_or_skip!("ForceCommand echo Welcome; echo motd >&2; eval \"$SSH_ORIGINAL_COMMAND\"");
    let adapter = adapter(&sshd);
    let (job, _) = made(&adapter, job("res_1")).await;
    for _ in 0..A_THOROUGH_ONE {
        assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy));
    }
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
    let token = 7;
    pool::prepared(&adapter, &job, "lse_7", token).await;
    let work = HolderWork { lease: "lse_7".into(), slot: 0, token, ..HolderWork::default() };
    adapter.clean(&CleanJob { resource: job.clone(), work, ended: EndedHow::Ok }).await.unwrap();
    let shell = adapter.shell(&job).await.unwrap();
    let output = shell.run(Command::new(["printf", "x"])).await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"x"[..], &b""[..]));
    let file = sshd.folder().join("file").to_string_lossy().into_owned();
    shell.put(&file, Bytes::from_static(b"\0content\n"), 0o600).await.unwrap();
    assert_eq!(shell.get(&file, 100).await.unwrap(), Bytes::from_static(b"\0content\n"));
    let streamed = holder(&sshd).run(Command::new(["printf", "y"])).await.unwrap();
    assert_eq!(streamed.stdout, b"y");
}

#[tokio::test]
async fn a_connection_that_changes_its_keys_all_the_time_breaks_nothing() {
    let sshd = sshd_or_skip!("RekeyLimit 16K\nLogLevel DEBUG1");
    let adapter = adapter(&sshd);
    let mut lost = pool::subscribed(&adapter);
    let (job, _) = made(&adapter, job("res_1")).await;
    let token = 7;
    pool::prepared(&adapter, &job, "lse_7", token).await;
    let bytes = 8 << 20;
    // The broker and a holder run commands and carry data, over one connection each, with probes in between.
    for shell in [adapter.shell(&job).await.unwrap(), holder(&sshd)] {
        let script = format!("head -c {bytes} /dev/zero | tr '\\0' x; printf end");
        let work = shell.run(Command::new(["sh", "-c", &script]));
        let (output, verdicts) = tokio::join!(work, async {
            let mut verdicts = Vec::new();
            for _ in 0..A_THOROUGH_ONE {
                verdicts.push(adapter.probe(&job).await);
            }
            verdicts
        });
        let output = output.unwrap();
        assert_eq!(output.exit, wharfinger_adapter::Exit::Code(0));
        assert!(output.stdout.ends_with(b"xend") && output.stdout.len() >= 1 << 20, "{}", output.stdout.len());
        assert!(verdicts.iter().all(|verdict| *verdict == Ok(Verdict::Healthy)), "{verdicts:?}");
        let content: Bytes = (0..bytes / 4).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
        let file = sshd.folder().join("file").to_string_lossy().into_owned();
        shell.put(&file, content.clone(), 0o600).await.unwrap();
        assert!(shell.get(&file, bytes).await.unwrap() == content, "the file comes back as it was put");
    }
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
    let work = HolderWork { lease: "lse_7".into(), slot: 0, token, ..HolderWork::default() };
    adapter.clean(&CleanJob { resource: job.clone(), work, ended: EndedHow::Ok }).await.unwrap();
    let changes = sshd.log().matches("set_newkeys").count();
    assert!(changes > 100, "{changes} changes of keys: {}", sshd.log());
    assert!(lost.try_recv().is_err(), "no connection was lost");
}

#[tokio::test]
async fn a_host_whose_commands_take_long_is_alive() {
    let folder = tempfile::tempdir().unwrap();
    let slow = folder.path().join("slow");
    let force = format!("[ ! -e {} ] || sleep 2; eval \"$SSH_ORIGINAL_COMMAND\"", slow.display());
    let sshd = sshd_or_skip!(&format!("ForceCommand {force}"));
    let adapter = adapter_for(&sshd, |config| config.answer_timeout_ms = 1000);
    let (job, _) = made(&adapter, job("res_1")).await;
    std::fs::write(&slow, "").unwrap();
    for _ in 0..3 {
        let failure = adapter.check(&job).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Resource, "LOGIN_SLOW"), "{failure}");
        assert!(failure.message.contains("start-up files"), "{failure}");
    }
    std::fs::remove_file(&slow).unwrap();
    eventually("it is fit for use again", async || adapter.check(&job).await == Ok(Verdict::Healthy)).await;
}

/// A relay that holds back what the client sends after the host has shown its key, while the file is there: a server whose
/// PAM or name server is mute. The key comes with the bytes after the first 1,300.
const SLOW_RELAY: &str = r"
import os, select, socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
seen = 0
while True:
    for r in select.select([0, s], [], [])[0]:
        b = os.read(0, 65536) if r == 0 else s.recv(65536)
        if not b: sys.exit(0)
        seen += len(b) * (r != 0)
        while r == 0 and seen > 1300 and os.path.exists(sys.argv[3]): time.sleep(0.05)
        s.sendall(b) if r == 0 else os.write(1, b)
";

#[tokio::test]
async fn a_host_whose_logins_take_long_is_alive() {
    let sshd = sshd_or_skip!();
    let (slow, relay) = (sshd.folder().join("slow"), sshd.folder().join("relay.py"));
    std::fs::write(&relay, SLOW_RELAY).unwrap();
    let adapter = adapter_for(&sshd, |config| {
        config.answer_timeout_ms = 1000;
        config.connect_timeout_ms = 2000;
        config.proxy_command = Some(format!("python3 {} %h %p {}", relay.display(), slow.display()));
    });
    let (job, _) = made(&adapter, job("res_1")).await;
    std::fs::write(&slow, "").unwrap();
    for pid in &sshd.processes()[1..] {
        std::process::Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status().unwrap();
    }
    // One login is under way for all of them.
    eventually("a check meets the slow login", async || {
        adapter.check(&job).await.is_err_and(|failure| failure.reason == "LOGIN_SLOW")
    })
    .await;
    for _ in 0..4 {
        let failure = adapter.check(&job).await.unwrap_err();
        assert_eq!(failure.reason, "LOGIN_SLOW", "{failure}");
    }
    std::fs::remove_file(&slow).unwrap();
    eventually("it is fit for use again", async || adapter.check(&job).await == Ok(Verdict::Healthy)).await;
}

#[tokio::test]
async fn a_check_makes_a_new_login_as_holders_do() {
    let sshd = sshd_or_skip!();
    let strange = adapter_for(&sshd, |config| config.holder_key = Some(sshd.strange_key()));
    let adapter = adapter(&sshd);
    let (job, _) = made(&adapter, job("res_1")).await;
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
    sshd.revoke(true);
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy), "the kept connection stands");
    let failure = adapter.check(&job).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "AUTH_FAILED"), "{failure}");
    sshd.revoke(false);
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
    let failure = strange.check(&job).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "AUTH_FAILED"), "the holders' key: {failure}");
}

#[tokio::test]
async fn a_proxy_command_that_ends_is_no_evidence_against_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let expired = folder.path().join("expired");
    let sshd = sshd_or_skip!();
    // Not every machine has nc.
    let relay = "exec 3<>/dev/tcp/%h/%p; cat <&3 & exec cat >&3";
    let script = format!("[ ! -e {} ] || {{ echo ExpiredTokenException >&2; exit 254; }}; {relay}", expired.display());
    let command = format!("bash -c '{script}'");
    let adapter = adapter_for(&sshd, |config| config.proxy_command = Some(command));
    let (job, _) = made(&adapter, job("res_1")).await;
    std::fs::write(&expired, "").unwrap();
    // The tunnel ends with its session on the host.
    for pid in &sshd.processes()[1..] {
        std::process::Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status().unwrap();
    }
    eventually("the end of the proxy is noticed", async || adapter.probe(&job).await.is_err()).await;
    for _ in 0..3 {
        let failure = adapter.check(&job).await.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "PROXY_FAILED"), "{failure}");
        assert!(failure.message.contains("ExpiredTokenException"), "{failure}");
    }
    std::fs::remove_file(&expired).unwrap();
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_sshd_refuses_go_over_connections_of_their_own() {
    for most in [1, 2, 4] {
        let sshd = sshd_or_skip!(&format!("MaxSessions {most}"));
        let adapter = adapter(&sshd);
        let (job, _) = made(&adapter, job("res_1")).await;
        let shell = adapter.shell(&job).await.unwrap();
        let go_on = sshd.folder().join("go on");
        let running: Vec<_> = (0..6)
            .map(|i| {
                let (began, go_on) = (sshd.folder().join(format!("began {i}")), go_on.clone());
                let line = "touch \"$1\"; until [ -e \"$2\" ]; do sleep 0.05; done; echo done";
                let argv = ["/bin/sh", "-c", line, "work", &began.to_string_lossy(), &go_on.to_string_lossy()];
                let command = Command::new(argv);
                let shell = shell.clone();
                (began, tokio::spawn(async move { shell.run(command).await }))
            })
            .collect();
        for (began, _) in &running {
            eventually("six commands run at once", async || began.exists()).await;
        }
        assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy), "MaxSessions {most}");
        std::fs::write(&go_on, "").unwrap();
        for (_, one) in running {
            assert_eq!(one.await.unwrap().unwrap().text(), "done", "MaxSessions {most}");
        }
        for _ in 0..A_THOROUGH_ONE {
            assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy), "MaxSessions {most}");
        }
    }
}

#[tokio::test]
async fn a_restart_of_all_processes_is_another_life_of_the_host() {
    if support::skip("a_restart_of_all_processes_is_another_life_of_the_host") {
        return;
    }
    // As a container: sshd is the first process of its namespace, and the kernel's boot id stays.
    let container = "exec unshare --pid --fork --mount-proc --kill-child=KILL /usr/sbin/sshd \"$@\"";
    let mut sshd = Sshd::start_in(container, "", None);
    let adapter = adapter(&sshd);
    let (job, _) = made(&adapter, job("res_1")).await;
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
    sshd.kill_hard();
    sshd.run();
    let verdict = adapter.check(&job).await;
    assert!(matches!(verdict, Ok(Verdict::Gone { reason: "RESTARTED", .. })), "{verdict:?}");
    let verdict = adapter.probe(&job).await;
    assert!(matches!(verdict, Ok(Verdict::Gone { reason: "RESTARTED", .. })), "{verdict:?}");
}

/// Provisions on a host whose work directory is a file system with these options, and returns the failure.
async fn refused_on(options: &str) -> Failure {
    let work = tempfile::tempdir().unwrap();
    let sshd = Sshd::start_in(&format!("mount -t tmpfs -o {options} none {}", work.path().display()), "", None);
    let adapter = adapter_for(&sshd, |config| config.work_dir = work.path().to_string_lossy().into_owned());
    adapter.provision(&ProvisionJob { resource: job("res_1"), attempt: 0 }).await.expect_err(options)
}

#[tokio::test]
async fn a_work_directory_without_exec_is_refused() {
    if support::skip("a_work_directory_without_exec_is_refused") {
        return;
    }
    let failure = refused_on("noexec,size=10m").await;
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "SCRATCH_NOEXEC"), "{failure}");
    assert!(failure.message.contains("noexec"), "{failure}");
}

#[tokio::test]
async fn a_file_system_without_free_inodes_is_full() {
    if support::skip("a_file_system_without_free_inodes_is_full") {
        return;
    }
    let failure = refused_on("size=10m,nr_inodes=3").await;
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "DISK_FULL"), "{failure}");
    assert!(failure.message.contains("inodes"), "{failure}");
}

#[tokio::test]
async fn cleaners_of_old_files_find_the_work_directory_locked() {
    let sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let (_, access) = made(&adapter, job("res_1")).await;
    let hosts = std::path::Path::new(&access[access::PATH]).parent().unwrap().to_path_buf();
    // As systemd-tmpfiles asks, which leaves a directory alone that another process has locked.
    let is_free = || {
        let file = std::fs::File::open(&hosts).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    };
    eventually("it is locked", async || !is_free()).await;
    drop(adapter);
    eventually("the lock ends with the connection", async || is_free()).await;
}

#[tokio::test]
async fn a_session_that_sshd_closes_is_no_lost_host() {
    let sshd = sshd_or_skip!("ChannelTimeout session:*=1s");
    // No output, for longer than the limit of that sshd.
    let error = holder(&sshd).run(Command::new(["sleep", "60"])).await.unwrap_err();
    let ShellError::Closed(text) = &error else { panic!("{error:?}") };
    assert!(text.contains("ChannelTimeout"), "{text}");
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_has_run_nothing() {
    let mut sshd = sshd_or_skip!();
    let shell = holder(&sshd);
    sshd.kill_hard();
    let (tx, _rx) = tokio::sync::mpsc::channel(4);
    let error = shell.stream(Command::new(["true"]), tx).await.unwrap_err();
    assert!(matches!(error, ShellError::NotReached(_)), "{error:?}");
}
