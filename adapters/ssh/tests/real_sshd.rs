//! Against a real sshd: the contract, and what a host does to a broker in the field.

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use bytes::Bytes;
use pool::{adapter, adapter_for, config, eventually, host, job, next_notice, subscribed, target};
use std::sync::Arc;
use std::time::Duration;
use support::{Sshd, skip};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wharfinger_adapter::{
    Adapter, Blame, Command, CredentialSource, Exit, NoticeKind, NoticeTarget, ProvisionJob, ResourceJob, ShellError,
    Stream, Verdict, access, quote,
};
use wharfinger_host::conformance;
use wharfinger_ssh::{Config, HolderKey, Host, KeySource, SshAdapter, Target, connect_shell};

async fn made(adapter: &SshAdapter) -> ResourceJob {
    conformance::adapter::made(adapter, &job("res_1")).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn shell_keeps_the_contract() {
    let sshd = sshd_or_skip!();
    let dir = sshd.folder().join("shell");
    std::fs::create_dir(&dir).unwrap();
    conformance::shell::all(connect_shell(&target(&sshd)).unwrap(), dir.to_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adapter_keeps_the_contract() {
    let sshd = sshd_or_skip!();
    conformance::adapter::all(Arc::new(adapter(&sshd)), job("res_conformance")).await;
}

#[tokio::test]
async fn another_host_key_is_refused_and_both_are_named() {
    let sshd = sshd_or_skip!();
    let mut target = target(&sshd);
    target.host_key = sshd.other_host_key();
    let shell = connect_shell(&target).unwrap();
    let marker = sshd.folder().join("was-here");
    let error = shell.run(Command::new(["touch", marker.to_str().unwrap()])).await.unwrap_err();
    let ShellError::WrongHost(text) = &error else { panic!("{error:?}") };
    assert_eq!(text.matches("SHA256:").count(), 2, "{text}");
    assert!(text.contains("is pinned"), "{text}");
    assert!(!marker.exists() && !sshd.log().contains("Accepted"), "nothing may be sent to another host");

    let adapter = adapter_for(&sshd, |config| config.hosts[0].host_key = sshd.other_host_key());
    let failure = adapter.provision(&ProvisionJob { resource: job("res_1"), attempt: 0 }).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "HOST_KEY_MISMATCH"), "{failure}");
}

#[tokio::test]
async fn a_host_key_of_a_type_that_cannot_be_checked_is_another_host() {
    let mut sshd = sshd_or_skip!();
    let target = target(&sshd);
    for kind in ["rsa", "ecdsa"] {
        sshd.restart_with_host_key_of(kind);
        let error = connect_shell(&target).unwrap().run(Command::new(["true"])).await.unwrap_err();
        assert!(matches!(error, ShellError::WrongHost(_)), "{kind}: {error:?}");
    }
    // And an ECDSA key may be pinned.
    let pinned = Target { host_key: sshd.host_key(), ..target };
    assert!(connect_shell(&pinned).unwrap().run(Command::new(["true"])).await.unwrap().exit.success());
}

#[tokio::test]
async fn wrong_user_or_key_is_the_operators_to_mend_and_no_verdict() {
    let sshd = sshd_or_skip!();
    let stranger = Target { key: KeySource::File(sshd.strange_key()), ..target(&sshd) };
    let nobody = Target { user: "no-such-user".into(), ..target(&sshd) };
    for (target, names) in [(stranger, ["stranger_key", "root"]), (nobody, ["client_key", "no-such-user"])] {
        let error = connect_shell(&target).unwrap().run(Command::new(["true"])).await.unwrap_err();
        let ShellError::Refused(text) = &error else { panic!("{error:?}") };
        for name in names.into_iter().chain(["SHA256:", "authorized_keys"]) {
            assert!(text.contains(name), "{text} lacks {name}");
        }
    }
    let adapter = adapter(&sshd);
    let job = made(&adapter).await;
    sshd.revoke(true);
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy), "the open connection goes on");
    let anew = adapter_for(&sshd, |_| ());
    for result in [anew.probe(&job).await, anew.check(&job).await] {
        let failure = result.unwrap_err();
        assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "AUTH_FAILED"), "{failure}");
    }
    sshd.revoke(false);
    assert_eq!(anew.check(&job).await, Ok(Verdict::Healthy));
}

#[tokio::test]
async fn a_killed_sshd_is_reported_at_once_and_is_unreachable() {
    let mut sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let mut notices = subscribed(&adapter);
    let job = made(&adapter).await;
    let shell = adapter.shell(&job).await.unwrap();
    let running = tokio::spawn(async move { shell.run(Command::new(["sleep", "300"])).await });
    eventually("the command runs", async || sshd.log().contains("Accepted") && adapter.probe(&job).await.is_ok()).await;

    sshd.kill_hard();
    let killed = Instant::now();
    let notice = next_notice(&mut notices).await;
    println!("notice {:?} after the kill", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(2));
    assert_eq!((&notice.target, &notice.kind), (&NoticeTarget::Item("alpha".into()), &NoticeKind::ConnectionLost));
    assert_eq!((notice.pool.as_str(), notice.source), ("farm", "ssh connection"));
    assert!(matches!(running.await.unwrap(), Err(ShellError::Unreachable(_))));

    for verdict in [adapter.probe(&job).await, adapter.check(&job).await] {
        assert!(matches!(verdict, Ok(Verdict::Unreachable { reason: "CONNECTION_REFUSED", .. })), "{verdict:?}");
    }
    let failure = adapter.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "UNREACHABLE"), "{failure}");
    adapter.destroy(&job).await.expect("a machine that is not there needs no clean-up");

    sshd.run();
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy), "the first probe connects again");
}

#[tokio::test]
async fn connections_that_we_close_are_no_news() {
    let mut sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let mut notices = subscribed(&adapter);
    let job = made(&adapter).await;
    adapter.destroy(&job).await.unwrap();
    made(&adapter).await;
    let mut changed = config(&sshd, vec![host(&sshd, "alpha")]);
    changed.connect_timeout_ms = 4000;
    adapter.reconfigure(changed).unwrap();
    made(&adapter).await;
    sshd.kill_hard();
    let notice = next_notice(&mut notices).await;
    assert_eq!(notice.kind, NoticeKind::ConnectionLost);
    assert!(notices.try_recv().is_err(), "one end, one notice");
}

#[tokio::test]
async fn hung_host_is_unreachable_within_the_limit_and_comes_back() {
    let sshd = sshd_or_skip!();
    let adapter = adapter_for(&sshd, |config| config.connect_timeout_ms = 700);
    let job = made(&adapter).await;
    sshd.stop();
    for kind in ["probe", "check"] {
        let asked = Instant::now();
        let verdict = if kind == "probe" { adapter.probe(&job).await } else { adapter.check(&job).await };
        println!("{kind} of a hung host took {:?}", asked.elapsed());
        assert!(matches!(verdict, Ok(Verdict::Unreachable { reason: "TIMEOUT", .. })), "{kind}: {verdict:?}");
        assert!(asked.elapsed() < Duration::from_secs(5), "{kind} took {:?}", asked.elapsed());
    }
    sshd.go_on();
    eventually("it answers again", async || adapter.probe(&job).await == Ok(Verdict::Healthy)).await;
}

#[tokio::test]
async fn a_hung_host_is_reported_when_keepalives_stay_unanswered() {
    let sshd = sshd_or_skip!();
    let adapter = adapter_for(&sshd, |config| {
        config.keepalive_interval_ms = 200;
        config.keepalive_max = 2;
    });
    let mut notices = subscribed(&adapter);
    made(&adapter).await;
    sshd.stop();
    let notice = next_notice(&mut notices).await;
    assert_eq!(notice.kind, NoticeKind::ConnectionLost);
    assert!(notice.detail.contains("keep-alive"), "{}", notice.detail);
    sshd.go_on();
}

#[tokio::test]
async fn replaced_host_is_gone() {
    let mut sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let job = made(&adapter).await;
    sshd.restart_with_new_host_key();
    for verdict in [adapter.probe(&job).await, adapter.check(&job).await] {
        assert!(matches!(verdict, Ok(Verdict::Gone { reason: "HOST_REPLACED", .. })), "{verdict:?}");
    }
    adapter.destroy(&job).await.expect("another machine needs no clean-up");
}

#[tokio::test]
async fn rebooted_host_is_gone_and_a_full_disk_is_mangled() {
    let sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let (mut job, made) = conformance::adapter::made(&adapter, &job("res_1")).await;
    let greedy = adapter_for(&sshd, |config| config.min_free_disk_mb = u64::MAX >> 21);
    let verdict = greedy.check(&job).await;
    assert!(matches!(verdict, Ok(Verdict::Mangled { repairable: false, reason: "DISK_FULL", .. })), "{verdict:?}");
    let failure = greedy.provision(&ProvisionJob { resource: job.clone(), attempt: 0 }).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Resource, "DISK_FULL"), "{failure}");

    job.handle = Some(made.handle.replace(&made.access[access::BOOT_ID], "00000000-0000-0000-0000-000000000000"));
    for verdict in [adapter.probe(&job).await, adapter.check(&job).await] {
        assert!(matches!(verdict, Ok(Verdict::Gone { reason: "REBOOTED", .. })), "{verdict:?}");
    }
}

#[tokio::test]
async fn pinning_another_key_of_the_same_machine_breaks_nothing() {
    let mut sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let job = made(&adapter).await;
    sshd.restart_with_host_key_of("ecdsa");
    adapter.reconfigure(config(&sshd, vec![host(&sshd, "alpha")])).unwrap();
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy), "same boot, same machine");
    // The inventory is wrong, the machine is not: no verdict.
    let ecdsa = host(&sshd, "alpha");
    let (again, _) = conformance::adapter::made(&adapter, &job).await;
    adapter.reconfigure(config(&sshd, vec![Host { host_key: sshd.other_host_key(), ..ecdsa }])).unwrap();
    let failure = adapter.check(&again).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "HOST_KEY_MISMATCH"), "{failure}");
}

#[tokio::test]
async fn busy_sshd_gives_no_verdict() {
    let sshd = sshd_or_skip!("MaxStartups 1");
    let adapter = adapter(&sshd);
    // The harness's own look whether sshd is up takes the only place for a moment.
    eventually("sshd has room for us", async || {
        adapter.provision(&ProvisionJob { resource: job("res_1"), attempt: 0 }).await.is_ok()
    })
    .await;
    let job = made(&adapter).await;
    // One that has connected and says nothing takes the only place.
    let _idle = tokio::net::TcpStream::connect((sshd.address, sshd.port)).await.unwrap();
    eventually("sshd turns us away", async || match self::adapter(&sshd).probe(&job).await {
        Err(failure) => {
            assert_eq!((failure.blame, failure.reason), (Blame::Resource, "SSHD_BUSY"), "{failure}");
            true
        }
        Ok(Verdict::Healthy) => false,
        other => panic!("{other:?}"),
    })
    .await;
    assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy), "the kept connection goes on");
}

#[tokio::test]
async fn connections_go_through_a_proxy_command() {
    let sshd = sshd_or_skip!();
    // The least of all proxies, so that the test needs no nc: bash's own TCP.
    let relay = sshd.folder().join("relay");
    let text = "#!/bin/bash\nexec 3<>\"/dev/tcp/$1/$2\" || exit 1\ncat <&3 &\ncat >&3\nkill $!\n";
    std::fs::write(&relay, text).unwrap();
    let command = format!("bash {} %h %p", quote(relay.to_str().unwrap()));
    let through = Target { proxy_command: Some(command.clone()), ..target(&sshd) };
    let shell = connect_shell(&through).unwrap();
    assert_eq!(shell.run(Command::new(["echo", "through"])).await.unwrap().text(), "through");

    let adapter = adapter_for(&sshd, |config| config.proxy_command = Some(command));
    let (job, made) = conformance::adapter::made(&adapter, &job("res_1")).await;
    assert!(made.access[access::PROXY_COMMAND].contains("%h %p"));
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy));
    let broken = adapter_for(&sshd, |config| config.proxy_command = Some("sh -c 'echo no way >&2; exit 1'".into()));
    let failure = broken.probe(&job).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "PROXY_FAILED"), "{failure}");
    assert!(failure.message.contains("no way"), "{failure}");
}

#[tokio::test]
async fn twenty_commands_share_one_connection_within_its_limit() {
    let sshd = sshd_or_skip!("MaxSessions 6");
    let adapter = adapter_for(&sshd, |config| config.max_sessions = 3);
    let job = made(&adapter).await;
    let shell = adapter.shell(&job).await.unwrap();
    let dir = sshd.folder().join("count");
    std::fs::create_dir(&dir).unwrap();
    // Each says how many are there while it is there.
    let line = format!("d={}; : >$d/$$; sleep 0.1; ls $d | wc -l; rm $d/$$", dir.display());
    let runs: Vec<_> = (0..20)
        .map(|_| {
            let (shell, line) = (Arc::clone(&shell), line.clone());
            tokio::spawn(async move { shell.run(Command::sh(line)).await })
        })
        .collect();
    let mut most = 0;
    for run in runs {
        let output = run.await.unwrap().unwrap();
        assert!(output.exit.success(), "{}", output.complaint());
        most = most.max(output.text().parse::<usize>().unwrap());
        assert_eq!(adapter.probe(&job).await, Ok(Verdict::Healthy), "probes do not wait for commands");
    }
    assert!((2..=3).contains(&most), "{most} at once");
    let logins = sshd.log().matches("Accepted publickey").count();
    assert_eq!(logins, 1, "{}", sshd.log());
}

#[tokio::test]
async fn commands_die_with_their_connection() {
    let mut sshd = sshd_or_skip!();
    let shell = connect_shell(&target(&sshd)).unwrap();
    let file = sshd.folder().join("pids");
    let line = format!("sleep 300 & echo $$ $! >{}; echo started; wait", file.display());
    let (tx, mut rx) = mpsc::channel(4);
    let running = tokio::spawn(async move { shell.stream(Command::sh(line), tx).await });
    assert_eq!(rx.recv().await, Some((Stream::Stdout, Bytes::from_static(b"started\n"))));
    sshd.kill_hard();
    assert!(matches!(running.await.unwrap(), Err(ShellError::Unreachable(_))));
    let pids = std::fs::read_to_string(&file).unwrap();
    eventually("the watcher on the host ends them", async || pids.split_whitespace().all(is_dead)).await;
}

fn is_dead(pid: &str) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_that_are_dropped_at_once_all_die() {
    let sshd = sshd_or_skip!();
    let shell = connect_shell(&target(&sshd)).unwrap();
    let file = sshd.folder().join("pids");
    let running: Vec<_> = (0..7)
        .flat_map(|i| {
            let line = format!("echo $$ >>{}; exec sleep 300", file.display());
            let (run, stream) = (Arc::clone(&shell), Arc::clone(&shell));
            let (tx, mut rx) = mpsc::channel(1);
            let mut tasks = vec![tokio::spawn({
                let line = line.clone();
                async move { drop(run.run(Command::sh(line)).await) }
            })];
            if i % 2 == 0 {
                tasks.push(tokio::spawn(async move { drop(stream.stream(Command::sh(line), tx).await) }));
                tasks.push(tokio::spawn(async move { while rx.recv().await.is_some() {} }));
            }
            tasks
        })
        .collect();
    let pids = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("all run", async || pids().lines().count() == 11).await;
    running.iter().for_each(tokio::task::JoinHandle::abort);
    let started = pids();
    eventually("all are dead", async || started.lines().all(is_dead)).await;
    assert_eq!(shell.run(Command::new(["echo", "on"])).await.unwrap().text(), "on", "the connection goes on");
}

#[tokio::test]
async fn a_login_shell_that_runs_nothing_is_mangled_and_says_so() {
    let mut sshd = sshd_or_skip!();
    let adapter = adapter(&sshd);
    let job = made(&adapter).await;
    sshd.restart_with("ForceCommand echo 'this account is closed' >&2; exit 1");
    let verdict = adapter.check(&job).await;
    let Ok(Verdict::Mangled { reason: "COMMANDS_FAIL", detail, .. }) = verdict else { panic!("{verdict:?}") };
    assert!(detail.contains("this account is closed"), "{detail}");
}

#[tokio::test]
async fn chatty_start_up_files_do_not_get_into_the_output() {
    let sshd = sshd_or_skip!("ForceCommand echo welcome >&2; eval \"$SSH_ORIGINAL_COMMAND\"");
    let shell = connect_shell(&target(&sshd)).unwrap();
    let output = shell.run(Command::sh("echo out; echo err >&2; exit 7")).await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (b"out\n".as_slice(), b"err\n".as_slice()));
    assert_eq!(output.exit, Exit::Code(7));
}

#[tokio::test]
async fn holders_get_the_pools_key_from_its_file_alone_and_removed_hosts_are_still_cleaned() {
    let sshd = sshd_or_skip!();
    let adapter = adapter_for(&sshd, |config| config.holder_key = Some(sshd.key()));
    assert!(adapter.traits().prepares);
    let job = made(&adapter).await;
    let work = wharfinger_adapter::HolderWork { lease: "lse_1".into(), ..Default::default() };
    let prepared = adapter
        .prepare(&wharfinger_adapter::PrepareJob { resource: job.clone(), work: work.clone(), child: None })
        .await
        .unwrap();
    assert!(!prepared.access.contains_key(access::PRIVATE_KEY), "what is stored holds no key");
    let mut settings = config(&sshd, vec![host(&sshd, "alpha")]);
    settings.holder_key = Some(sshd.key());
    let credentials = HolderKey::of(&settings).unwrap().read().await.unwrap();
    assert!(!format!("{credentials:?}").contains("PRIVATE KEY"), "secrets are not printed");
    let text = credentials.into_access()[access::PRIVATE_KEY].clone();
    let holder = Target { key: KeySource::Text(text), ..target(&sshd) };
    assert!(!format!("{holder:?}").contains("PRIVATE KEY"), "secrets are not printed");
    assert!(connect_shell(&holder).unwrap().run(Command::new(["true"])).await.unwrap().exit.success());

    let mut empty = config(&sshd, vec![host(&sshd, "alpha")]);
    empty.hosts.clear();
    empty.holder_key = Some(sshd.key());
    adapter.reconfigure(empty).unwrap();
    assert!(adapter.inventory().is_empty());
    assert_eq!(adapter.check(&job).await, Ok(Verdict::Healthy), "its live lease still needs it");
    let ended = wharfinger_adapter::EndedHow::Ok;
    adapter.clean(&wharfinger_adapter::CleanJob { resource: job.clone(), work, ended }).await.unwrap();
    adapter.destroy(&job).await.unwrap();
    let failure = adapter.provision(&ProvisionJob { resource: self::job("res_2"), attempt: 0 }).await.unwrap_err();
    assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "HOST_UNKNOWN"), "{failure}");
}

#[test]
fn settings_are_refused_with_the_host_and_the_remedy() {
    if skip("settings_are_refused_with_the_host_and_the_remedy") {
        return;
    }
    let sshd = Sshd::start();
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = config(&sshd, vec![host(&sshd, "alpha")]);
        change(&mut config);
        let failure = SshAdapter::new("farm".into(), config).err().expect("refused");
        assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "BAD_CONFIG"));
        failure.message
    };
    let rsa = sshd.folder().join("rsa_key");
    support::make_key(&rsa, "rsa");
    let rsa_public = std::fs::read_to_string(rsa.with_extension("pub")).unwrap();
    for (message, words) in [
        (refused(&|c| c.hosts.push(c.hosts[0].clone())), vec!["alpha", "name of its own"]),
        (refused(&|c| c.hosts[0].host_key = "ssh-ed25519 nonsense".into()), vec!["alpha", "ssh-keyscan"]),
        (refused(&|c| c.hosts[0].host_key = rsa_public.clone()), vec!["alpha", "ssh-rsa", "ssh-ed25519"]),
        (refused(&|c| c.hosts[0].key = Some("/no/such/key".into())), vec!["alpha", "/no/such/key", "cannot be read"]),
        (refused(&|c| c.hosts[0].key = Some(rsa.clone())), vec!["alpha", "rsa_key", "ssh-"]),
        (refused(&|c| c.hosts[0].user = None), vec!["alpha", "set `user`"]),
        (refused(&|c| c.hosts[0].key = None), vec!["alpha", "set `key`"]),
        (refused(&|c| c.work_dir = "relative".into()), vec!["work_dir", "absolute"]),
        (refused(&|c| c.max_sessions = 0), vec!["max_sessions", "use 1 to"]),
    ] {
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    }
}

#[test]
fn the_inventory_is_read_from_toml() {
    let text = "user = 'build'\nkey = '/k'\nconnect_timeout_ms = 900\n\
                [[host]]\nname = 'a'\naddress = '10.0.0.1'\nhost_key = 'ssh-ed25519 AAAA'\nslots = 4\n\
                labels = { arch = 'arm64' }\n[[host]]\nname = 'b'\naddress = 'b.example'\nhost_key = 'x'\nenabled = false\n";
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!((config.port, config.connect_timeout_ms, config.max_sessions), (22, 900, 7));
    assert_eq!((config.hosts[0].slots, config.hosts[0].enabled, config.hosts[1].enabled), (Some(4), true, false));
    let error = toml::from_str::<Config>("usr = 'build'").unwrap_err();
    assert!(error.to_string().contains("usr"), "{error}");
}
