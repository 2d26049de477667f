//! Logins by certificates of leases, on a real sshd that `host-setup` prepared, by plain OpenSSH.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[macro_use]
#[path = "support/pool.rs"]
mod pool;
#[path = "support/farm.rs"]
mod farm;
mod support;

use farm::{Farm, text, write};
use pool::eventually;
use std::io::Write;
use std::process::{Command, Stdio};
use support::make_key;
use wharfinger_adapter::{Adapter, CleanJob, EndedHow, Exit, PrepareJob, access};
use wharfinger_host::fence;
use wharfinger_ssh::{KeySource, Target, connect_shell};

macro_rules! farm_or_skip {
    ($lines:expr) => {{
        if support::skip("login") {
            return;
        }
        Farm::start($lines).await
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_certificate_is_refused_and_the_right_one_is_taken() {
    let farm = farm_or_skip!("");
    let holder = farm.lease(0, 1017).await;
    let other = farm.lease(1, 1018).await;
    let (user, neighbour) = (holder.user().to_string(), other.user().to_string());
    assert_eq!((&user, &neighbour), (&farm.user("0"), &farm.user("1")));
    assert!(holder.is_let_in(&user), "the right one: {}", farm.sshd.log());
    assert!(farm.sshd.log().contains("ID wharfinger/farm/lse_1017/web (serial 1017)"), "{}", farm.sshd.log());

    let (ca, stranger) = (farm.path("ca"), farm.path("stranger"));
    make_key(&stranger, "ed25519");
    let soon = "-1m:+1h";
    let lease = "lse_1017";
    let refused = |what: &str| assert!(!holder.is_let_in(&user), "{what} was let in: {}", farm.sshd.log());
    for (what, words) in [
        ("another lease", &["-n", "lse_1018", "-V", soon][..]),
        ("the user's name", &["-n", &user, "-V", soon]),
        ("no principals", &["-V", soon]),
        ("a star", &["-n", "*", "-V", soon]),
        ("a beginning of the name", &["-n", "lse_101", "-V", soon]),
        ("expired", &["-n", lease, "-V", "-2h:-1h"]),
        ("not valid yet", &["-n", lease, "-V", "+1h:+2h"]),
        ("a host's", &["-h", "-n", lease, "-V", soon]),
        ("an unknown critical option", &["-n", lease, "-V", soon, "-O", "critical:wharfinger@test=1"]),
        ("another address", &["-n", lease, "-V", soon, "-O", "source-address=192.0.2.0/24"]),
    ] {
        holder.sign(&ca, words);
        refused(what);
    }
    holder.sign(&stranger, &["-n", lease, "-V", soon]);
    refused("another authority");
    std::fs::remove_file(holder.path("key-cert.pub")).unwrap();
    refused("the key alone");
    // The positive twin, made by the same hand.
    holder.sign(&ca, &["-n", lease, "-V", soon]);
    assert!(holder.is_let_in(&user), "{}", farm.sshd.log());
    assert!(!holder.is_let_in(&neighbour), "as the neighbour");
    assert!(!holder.is_let_in(&farm.user("x")), "as the canary");
    assert!(!holder.is_let_in("root"), "as the broker");
    assert!(other.is_let_in(&neighbour));

    // The principals file is the second clock, and says which extensions count.
    let note = |change: &str| {
        let file = farm.path(&format!("run/wharfinger-logins/principals/{user}"));
        let line = std::fs::read_to_string(&file).unwrap();
        std::fs::write(
            &file,
            Command::new("sed")
                .arg(change)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map(|mut sed| {
                    sed.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
                    String::from_utf8(sed.wait_with_output().unwrap().stdout).unwrap()
                })
                .unwrap(),
        )
        .unwrap();
        line
    };
    let line = note("s/expiry-time=\"[0-9]*\"/expiry-time=\"20200101000000\"/");
    assert!(
        line.starts_with("restrict,command=\"exec /usr/local/lib/wharfinger/enter lse_1017\",expiry-time=\""),
        "{line}"
    );
    refused("after the time of the principals file");
    write(&farm.path("restored"), &line);
    std::fs::copy(farm.path("restored"), farm.path(&format!("run/wharfinger-logins/principals/{user}"))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_lease_runs_on_after_its_end_also_over_a_connection_that_stays_open() {
    let farm = farm_or_skip!("");
    let holder = farm.lease(0, 10).await;
    let socket = holder.path("mux");
    let control = |words: &[&str]| {
        let mut command = holder.client("ssh");
        command.arg("-S").arg(&socket).args(words);
        command
    };
    let mut master = holder.master(&socket).await;
    let file = farm.path("written");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let over_master = |line: &str| control(&["alpha", line]).output().unwrap();
    assert_eq!(text(&over_master("echo $WHARFINGER_LEASE $WHARFINGER_TOKEN").stdout), "lse_10 10");
    // One that leaves its session, its environment and its signals behind.
    let daemon = format!(
        "(cd / && exec env -i setsid /bin/sh -c \"trap '' TERM HUP INT; while :; do echo 10 >>{}; sleep 0.01; done\") \
         </dev/null >/dev/null 2>&1 &",
        file.display()
    );
    assert!(over_master(&daemon).status.success());
    let size = || std::fs::metadata(&file).unwrap().len();
    eventually("the daemon writes", async || size() > 0).await;
    let mut session = control(&["alpha", "sleep 1000"]).spawn().unwrap();
    eventually("a session runs", async || {
        farm.processes().iter().any(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\x001000"))
        })
    })
    .await;

    farm.end(&holder.work).await;
    assert_eq!(farm.processes(), Vec::<u32>::new(), "all of the user has ended");
    let after = size();
    let again = over_master(&format!("echo late >>{}", file.display()));
    assert!(!again.status.success(), "a new channel in the old connection");
    assert!(!holder.is_let_in(holder.user()), "a new connection");
    let _ = master.kill();
    let _ = (master.wait(), session.kill(), session.wait());

    // The next holder has the user to itself.
    let next = farm.lease(0, 11).await;
    assert_eq!(next.user(), holder.user());
    assert_eq!(text(&next.ssh(&["echo $WHARFINGER_LEASE"]).stdout), "lse_11");
    assert_eq!(size(), after, "nothing wrote on");
    assert!(!holder.is_let_in(holder.user()), "the certificate of the ended lease opens nothing");
    assert!(!next.is_let_in(&farm.user("1")), "the next one opens its own slot alone");
    // A broker that is behind the times touches nothing.
    let late = CleanJob { resource: farm.resource.clone(), work: holder.work.clone(), ended: EndedHow::Expired };
    assert_eq!(farm.adapter.clean(&late).await.unwrap_err().reason, "FENCED");
    let late = PrepareJob { resource: farm.resource.clone(), work: holder.work.clone(), child: None };
    assert_eq!(farm.adapter.prepare(&late).await.unwrap_err().reason, "FENCED");
    assert_eq!(text(&next.ssh(&["echo on"]).stdout), "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_outlives_the_end_of_its_lease_starts_nothing() {
    let farm = farm_or_skip!("user = \"root\"");
    // One user for all: a connection of a former lease is not ended by its user, and each command meets the fence.
    let holder = farm.lease(0, 20).await;
    assert_eq!(holder.user(), "root");
    let socket = holder.path("mux");
    let control = |words: &[&str]| {
        let mut command = holder.client("ssh");
        command.arg("-S").arg(&socket).args(words);
        command
    };
    let mut master = holder.master(&socket).await;
    let over_master = |line: &str| control(&["alpha", line]).output().unwrap();
    assert_eq!(over_master("exit 7").status.code(), Some(7));
    let neighbour = farm.lease(1, 21).await;
    farm.end(&holder.work).await;
    let refused = over_master("echo late");
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(fence::REFUSED), String::new()));
    assert!(!holder.is_let_in("root"), "a new connection");
    assert_eq!(text(&neighbour.ssh(&["echo $WHARFINGER_LEASE"]).stdout), "lse_21", "the neighbour works on");
    let _ = (master.kill(), master.wait());
    // Where the list of principals is late, the fence refuses.
    std::fs::write(&neighbour.access[access::FENCE], "22\n").unwrap();
    let refused = neighbour.ssh(&["echo late"]);
    assert_eq!(refused.status.code(), Some(fence::REFUSED));
    assert!(text(&refused.stderr).contains("belongs to token 22"), "{}", text(&refused.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_the_users_shell_as_they_are_and_nothing_else_is_allowed() {
    let farm = farm_or_skip!("");
    let holder = farm.lease(0, 30).await;
    let said = |line: &str| {
        let output = holder.ssh(&[line]);
        let refused = output.status.code() == Some(fence::REFUSED);
        assert!(!refused, "{} {:?} {}", text(&output.stderr), farm.processes(), farm.sshd.log());
        (output.status.code(), text(&output.stdout))
    };
    let first = holder.ssh(&["true"]);
    assert!(first.status.success(), "{} {}", text(&first.stderr), farm.sshd.log());
    assert_eq!(said("pwd"), (Some(0), farm.home("0")), "in the directory of the slot");
    assert_eq!(holder.access[access::PATH], farm.home("0"));
    assert_eq!(said("id -un; exit 5"), (Some(5), farm.user("0")));
    assert_eq!(said("printf '%s|' \"a'b\" '$(id)' `echo x` '\"' \\\\ '\n'"), (Some(0), "a'b|$(id)|x|\"|\\|\n|".into()));
    assert_eq!(said("echo 1\necho 2; echo \"$0\" >/dev/null"), (Some(0), "1\n2".into()));
    assert_eq!(said("echo ${SSH_ORIGINAL_COMMAND-none}"), (Some(0), "none".into()));
    assert_eq!(said("'; touch /tmp/wharfinger-evil; '").1, "");
    assert!(!std::path::Path::new("/tmp/wharfinger-evil").exists());
    let long = format!("printf %s {} | wc -c", "x".repeat(100_000));
    assert_eq!(said(&long), (Some(0), "100000".into()));
    assert_eq!(said("exec true; exit 3").0, Some(0));
    // A login shell, with its input.
    let mut shell =
        holder.client("ssh").args(["-T", "alpha"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(b"echo $WHARFINGER_TOKEN; exit 4\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(4), "30".into()));

    // No rule grants these: a terminal, forwarding, agents, X11, other subsystems, the environment.
    let refused = |words: &[&str]| {
        let output = holder.client("ssh").args(words).output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let terminal = refused(&["-tt", "alpha", "tty"]);
    assert!(!terminal.1.contains("/dev/pts/"), "{terminal:?}");
    let forwarded = refused(&["-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:22", "alpha", "true"]);
    assert_eq!(forwarded.0, Some(255), "{forwarded:?}");
    let dynamic = refused(&["-W", &format!("{}:{}", farm.sshd.address, farm.sshd.port), "alpha"]);
    assert_eq!(dynamic.0, Some(255), "{dynamic:?}");
    let agent = refused(&["-A", "alpha", "echo ${SSH_AUTH_SOCK-none}${DISPLAY-none}"]);
    assert_eq!(agent.1, "nonenone");
    assert_ne!(refused(&["-s", "alpha", "no-such-subsystem"]).0, Some(0));
    write(&holder.path("environment"), "");
    assert_eq!(said("mkdir .ssh; echo 'WHARFINGER_LEASE=x' >.ssh/environment; echo 'echo rc' >.ssh/rc").0, Some(0));
    assert_eq!(said("echo $WHARFINGER_LEASE"), (Some(0), "lse_30".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_there_where_the_pool_grants_one() {
    let farm = farm_or_skip!("permit = [\"pty\"]");
    let holder = farm.lease(0, 35).await;
    let output = holder.client("ssh").args(["-tt", "alpha", "tty"]).output().unwrap();
    let said = (text(&output.stdout), text(&output.stderr));
    assert!(said.0.contains("/dev/pts/"), "{said:?} {:?} {}", output.status, farm.sshd.log());
    // The certificate alone does not give it: the host has to agree, and the other way round.
    holder.sign(&farm.path("ca"), &["-n", "lse_35", "-V", "-1m:+1h", "-O", "clear"]);
    let output = holder.client("ssh").args(["-tt", "alpha", "tty"]).output().unwrap();
    assert!(!text(&output.stdout).contains("/dev/pts/"), "{output:?}");
    let output = holder.client("ssh").args(["-T", "alpha", "tty"]).output().unwrap();
    assert_eq!(text(&output.stdout), "not a tty", "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_by_scp_sftp_and_rsync_while_the_lease_lasts() {
    let farm = farm_or_skip!("");
    let holder = farm.lease(0, 40).await;
    let own = holder.path("own");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("it's a file"), "content\n").unwrap();
    let copy = |program: &str| {
        let mut command = match program {
            "rsync" => {
                let mut command = Command::new("rsync");
                command.arg("-a").arg("-e").arg(format!("ssh {}", holder.options().join(" ")));
                command.arg(format!("{}/", own.display())).arg("alpha:by-rsync/").env_remove("SSH_AUTH_SOCK");
                command
            }
            "scp" => {
                let mut command = holder.client("scp");
                command.arg("-q").arg(own.join("it's a file")).arg("alpha:by-scp");
                command
            }
            "old scp" => {
                let mut command = holder.client("scp");
                command.args(["-q", "-O"]).arg(own.join("it's a file")).arg("alpha:by-old-scp");
                command
            }
            _ => {
                write(&holder.path("batch"), &format!("put \"{}\" by-sftp\n", own.join("it's a file").display()));
                let mut command = holder.client("sftp");
                command.arg("-b").arg(holder.path("batch")).arg("alpha");
                command
            }
        };
        command.output().unwrap()
    };
    let programs = ["scp", "old scp", "sftp", "rsync"];
    let there = programs.iter().filter(|program| {
        let name = program.trim_start_matches("old ");
        Command::new("which").arg(name).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    let there: Vec<_> = there.copied().collect();
    // `./test.sh` installs all of them.
    let required = std::env::var_os("WHARFINGER_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required || there.len() == programs.len(), "only {there:?} are installed: apt-get install rsync");
    for program in &there {
        let output = copy(program);
        assert!(output.status.success(), "{program}: {} {}", text(&output.stderr), farm.sshd.log());
    }
    let seen = holder.ssh(&["cat by-scp by-old-scp by-sftp \"by-rsync/it's a file\" 2>/dev/null"]);
    assert_eq!(text(&seen.stdout).lines().count(), there.len(), "{}", text(&seen.stdout));
    // A later lease has the slot, and the list of principals is late: each of them meets the fence.
    std::fs::write(&holder.access[access::FENCE], "41\n").unwrap();
    for program in &there {
        let output = copy(program);
        assert!(!output.status.success(), "{program} copies behind the fence");
    }
    let _ = std::fs::write(&holder.access[access::FENCE], "40\n");
    assert!(copy("scp").status.success());
    farm.end(&holder.work).await;
    for program in &there {
        assert!(!copy(program).status.success(), "{program} copies after the end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_are_closed_to_each_other_and_nothing_waits_for_the_next_holder() {
    let farm = farm_or_skip!("");
    let (one, two) = (farm.lease(0, 50).await, farm.lease(1, 51).await);
    assert!(one.ssh(&["echo secret >file && chmod 777 file && umask 0 && mkfifo pipe"]).status.success());
    let spy = |line: &str| text(&two.ssh(&[&format!("{{ {line}; }} 2>&1")]).stdout);
    let denied = |line: &str| {
        let said = spy(line);
        assert!(said.contains("ermission denied") || said.contains("not permitted"), "{line}: {said}");
    };
    assert_eq!(text(&one.ssh(&["cat file"]).stdout), "secret");
    denied(&format!("cat {}/file", farm.home("0")));
    denied(&format!("ls {}", farm.home("0")));
    let fence = &two.access[access::FENCE];
    // Also its own limits are out of reach.
    for line in [
        format!("echo 99 >{fence}"),
        format!("rm -f {fence}"),
        format!("echo x >/run/wharfinger-logins/principals/{}", two.user()),
        "cat /run/wharfinger-logins/leases/lse_50".into(),
        "ls /run/wharfinger-logins/principals".into(),
        "echo x >>/usr/local/lib/wharfinger/enter".into(),
        "echo x >/usr/local/lib/wharfinger/new".into(),
        "echo x >>/etc/ssh/wharfinger_farm_ca.pub".into(),
    ] {
        denied(&line);
    }
    assert_eq!(text(&two.ssh(&["echo on"]).stdout), "on");
    assert!(spy(&format!("/usr/local/lib/wharfinger/slot sweep {}", one.user())).contains("needs root"));

    // Traps for the next one.
    let traps = "echo 'echo TRAPPED' | tee .bashrc .profile .bash_profile .zshenv >/dev/null; mkdir -p .ssh; \
                 cp /etc/hostname .ssh/rc; echo trap >.gitconfig; touch /tmp/wfr_left.$$ /dev/shm/wfr_left.$$; \
                 ssh-keygen -q -t ed25519 -N '' -f mine; cp mine.pub .ssh/authorized_keys; cat mine";
    let own_key = text(&one.ssh(&[traps]).stdout);
    farm.end(&one.work).await;
    let next = farm.lease(0, 52).await;
    let seen = next.ssh(&["ls -A; find /tmp /dev/shm -maxdepth 1 -user $(id -un); echo clean"]);
    assert_eq!(text(&seen.stdout), "clean", "{}", text(&seen.stderr));
    write(&next.path("planted"), &format!("{own_key}\n"));
    // The holder's own certificate is left aside for this login.
    std::fs::remove_file(next.path("key-cert.pub")).unwrap();
    let planted = next.client("ssh").arg("-i").arg(next.path("planted")).args(["alpha", "true"]).output().unwrap();
    assert_eq!(planted.status.code(), Some(255), "a key that a former holder planted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_own_shell_logs_in_with_the_certificate_of_its_time() {
    let farm = farm_or_skip!("");
    let holder = farm.lease(0, 60).await;
    let credential = std::sync::Arc::new(holder.log_in_anew().await);
    let target = Target {
        name: "alpha".into(),
        address: farm.sshd.address.to_string(),
        port: farm.sshd.port,
        user: holder.user().into(),
        key: KeySource::Certified(credential.clone()),
        host_key: farm.sshd.host_key(),
        proxy_command: None,
    };
    let shell = connect_shell(&target).unwrap();
    let command = wharfinger_adapter::Command::sh("echo $WHARFINGER_LEASE; pwd; cat; exit 9").stdin("input\n");
    let output = shell.run(command).await.unwrap();
    assert_eq!(output.exit, Exit::Code(9), "{}", output.complaint());
    assert_eq!(output.text(), format!("lse_60\n{}\ninput", farm.home("0")));
    // Another certificate takes the place of the first, for connections from now on.
    holder.sign(&farm.path("ca"), &["-n", "lse_60", "-z", "60", "-V", "-1m:+1h"]);
    let signed = std::fs::read_to_string(holder.path("key-cert.pub")).unwrap();
    credential.take(&signed, "lse_60", 60).unwrap();
    let again = connect_shell(&target).unwrap().run(wharfinger_adapter::Command::new(["true"])).await.unwrap();
    assert_eq!(again.exit, Exit::Code(0));
    farm.end(&holder.work).await;
    let refused = connect_shell(&target).unwrap().run(wharfinger_adapter::Command::new(["true"])).await.unwrap_err();
    assert!(matches!(refused, wharfinger_adapter::ShellError::Refused(_)), "{refused}");
}
