//! Hosts whose set-up for logins by certificate is missing, old or wrong; and the set-up itself.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/farm.rs"]
mod farm;
#[macro_use]
#[path = "support/pool.rs"]
mod pool;
mod support;

use farm::{Farm, Plan, text};
use std::process::Command;
use wharfinger_adapter::{Adapter, Blame, Failure, ProvisionJob, Verdict};
use wharfinger_ssh::{Config, SshAdapter};
use wharfinger_testkit::cgroup;

/// The failure of a host to be made ready.
async fn fault(config: &Config) -> Failure {
    let adapter = SshAdapter::new("farm".into(), config.clone()).unwrap();
    let job = ProvisionJob { resource: pool::job("res_1"), attempt: 0 };
    adapter.provision(&job).await.unwrap_err()
}

const CONF: &str = "/etc/ssh/sshd_config.d/10-wharfinger-farm.conf";

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_a_wrong_certificate_is_not_leased() {
    if support::skip("a_host_that_takes_a_wrong_certificate_is_not_leased") {
        return;
    }
    // Each row: what an operator got wrong, the reason, and a word of the message.
    for (change, reason, word) in [
        // Without a list sshd takes the user's name as the principal.
        (format!("sed -i '/AuthorizedPrincipalsFile/d' {CONF}"), "SSH_TRUST_BROKEN", "for the user's name"),
        (format!("sed -i '/TrustedUserCAKeys/d' {CONF}"), "LOGIN_REFUSED", "does not trust"),
        ("echo garbage >/etc/ssh/wharfinger_farm_ca.pub".into(), "LOGIN_REFUSED", "does not trust"),
        (format!("rm {CONF}; touch {CONF}"), "LOGIN_REFUSED", "host-setup"),
        ("rm /usr/local/lib/wharfinger/slot".into(), "HOST_NOT_SET_UP", "host-setup"),
        ("echo '# old' >>/usr/local/lib/wharfinger/enter".into(), "HOST_NOT_SET_UP", "another version"),
        (": >/usr/local/lib/wharfinger/users".into(), "HOST_NOT_SET_UP", "no user"),
    ] {
        let mut plan = Plan::new("");
        plan.after = change.clone();
        let (sshd, config, _folder, _) = plan.start();
        let failure = fault(&config).await;
        assert_eq!(
            (failure.blame, failure.reason),
            (Blame::Configuration, reason),
            "{change}: {failure}\n{}",
            sshd.log()
        );
        assert!(failure.message.contains(word), "{change}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_logs_in_as_holders_do_and_connect_tries_wrong_certificates() {
    if support::skip("a_check_logs_in_as_holders_do_and_connect_tries_wrong_certificates") {
        return;
    }
    let farm = Farm::start("").await;
    let holder = farm.lease(0, 7).await;
    assert_eq!(farm.adapter.check(&farm.resource).await.unwrap(), Verdict::Healthy);
    assert_eq!(farm.adapter.probe_login(&farm.resource).await.unwrap(), Verdict::Healthy);
    let reached = farm.adapter.reach().await;
    assert!(reached[0].result.is_ok(), "{:?}", reached[0].result.as_ref().err());
    // The trials leave a live lease alone.
    assert_eq!(text(&holder.ssh(&["echo on"]).stdout), "on");
    let principals = farm.path("run/wharfinger-logins/principals");
    assert_eq!(std::fs::read_dir(&principals).unwrap().count(), 1, "the canary's is gone");

    // The authority is lost on the host.
    std::fs::write(farm.path("etc/ssh/wharfinger_farm_ca.pub"), "").unwrap();
    let failure = farm.adapter.check(&farm.resource).await.unwrap_err();
    assert_eq!(failure.reason, "LOGIN_REFUSED", "{failure}");
    let reached = farm.adapter.reach().await;
    assert_eq!(reached[0].result.as_ref().err().unwrap().reason, "LOGIN_REFUSED");
}

/// The rotation of `docs/login.md`: hosts with the old authority alone, with both, and with the new one alone.
#[tokio::test(flavor = "multi_thread")]
async fn n142_while_an_authority_is_replaced_a_check_says_which_hosts_trust_the_present_one() {
    if support::skip("n142_while_an_authority_is_replaced_a_check_says_which_hosts_trust_the_present_one") {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let next = keys.path().join("next");
    support::make_key(&next, "ed25519");
    let public = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    // Step 1: the host is set up for both.
    let farm = Farm::start(&format!("trusted = [{:?}]", public(&next))).await;
    let (old, trusted) = (farm.path("ca"), farm.path("etc/ssh/wharfinger_farm_ca.pub"));
    let both = std::fs::read_to_string(&trusted).unwrap();
    let body = |path: &std::path::Path| public(path).split_whitespace().nth(1).unwrap().to_owned();
    assert!(both.contains(&body(&old)) && both.contains(&body(&next)), "{both}");
    // Step 2: the broker signs by the new key.
    let mut config = farm.config.clone();
    let authority = config.ca.as_mut().unwrap();
    authority.key = Some(next.clone());
    authority.trusted = vec![public(&old)];
    let renewed = SshAdapter::new("farm".into(), config).unwrap();
    let holder = farm.lease(0, 7).await;
    let signed = |key: &std::path::Path| {
        holder.sign(key, &["-n", "lse_7", "-V", "-1m:+1h"]);
        holder.is_let_in(holder.user())
    };
    for (lines, by_old, by_new) in [(public(&old), true, false), (both, true, true), (public(&next), false, true)] {
        std::fs::write(&trusted, format!("{lines}\n")).unwrap();
        for (adapter, key, taken) in [(&farm.adapter, &old, by_old), (&renewed, &next, by_new)] {
            let checked = adapter.check(&farm.resource).await;
            let reached = adapter.reach().await.remove(0).result;
            if taken {
                assert_eq!(checked.unwrap(), Verdict::Healthy, "{lines}");
                assert!(reached.is_ok(), "{lines}: {:?}", reached.err());
            } else {
                let failure = checked.unwrap_err();
                assert_eq!((failure.blame, failure.reason), (Blame::Configuration, "LOGIN_REFUSED"), "{lines}");
                assert!(failure.message.contains("does not trust the pool's authority"), "{failure}");
                assert_eq!(reached.err().unwrap().reason, "LOGIN_REFUSED", "{lines}");
            }
            assert_eq!(signed(key), taken, "{lines}: {}", farm.sshd.log());
        }
    }
    farm.end(&holder.work).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_begins_anew_lets_no_former_lease_in() {
    if support::skip("a_host_that_begins_anew_lets_no_former_lease_in") {
        return;
    }
    let farm = Farm::start("").await;
    let holder = farm.lease(0, 7).await;
    let mut session = holder.client("ssh").args(["alpha", "sleep 1000"]).spawn().unwrap();
    pool::eventually("a session runs", async || farm.processes().len() >= 2).await;
    let (_, _) = pool::made(&farm.adapter, pool::job("res_2")).await;
    assert_eq!(farm.processes(), Vec::<u32>::new());
    assert!(!holder.is_let_in(holder.user()));
    let _ = session.wait();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_up_may_run_again_and_can_be_undone() {
    if support::skip("the_set_up_may_run_again_and_can_be_undone") {
        return;
    }
    let mut plan = Plan::new("");
    let undo = plan.undo();
    std::fs::write(plan.path("undo.sh"), undo).unwrap();
    let first = format!(
        "cp -a {CONF} before.conf; WHARFINGER_NO_RELOAD=yes /bin/sh setup.sh >second.log 2>&1; echo $? >second.code"
    );
    let last = "cp -a /etc/passwd made.passwd; mkdir -p fake; printf '#!/bin/sh\\necho \"$*\" >>reloads.log\\n' >fake/systemctl; \
                chmod 755 fake/systemctl; PATH=$PWD/fake:$PATH; : >reloads.log; \
                WHARFINGER_NO_RELOAD=yes /bin/sh undo.sh >undo.log 2>&1; cp reloads.log reloads.none; \
                ls /etc/ssh/sshd_config.d /usr/local/lib >left.log; cp -a /etc/passwd undone.passwd; \
                env -u WHARFINGER_NO_RELOAD /bin/sh undo.sh >again.log 2>&1";
    plan.after = format!("{first}\n{last}\ntouch {CONF}");
    let (_sshd, config, folder, _) = plan.start();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("second.code").trim(), "0", "{}", read("second.log"));
    assert!(
        !read("second.log").contains("written:") && !read("second.log").contains("made:"),
        "{}",
        read("second.log")
    );
    let user = config.ca.as_ref().unwrap().user.replace("{slot}", "0");
    assert!(read("made.passwd").contains(&user));
    assert!(!read("undone.passwd").contains(&user), "{}", read("undo.log"));
    assert!(!read("left.log").contains("wharfinger"), "{}", read("left.log"));
    assert_eq!((read("reloads.none"), read("reloads.log")), (String::new(), "reload ssh.service\n".to_owned()));
    let failure = fault(&config).await;
    assert_eq!(failure.reason, "HOST_NOT_SET_UP", "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_in_the_control_group_of_its_slot() {
    if support::skip("a_session_is_in_the_control_group_of_its_slot") || cgroup().is_none() {
        return;
    }
    let sudo = Command::new("sudo").arg("-V").output().is_ok_and(|output| output.status.success());
    // `./test.sh` installs it.
    let required = std::env::var_os("WHARFINGER_REQUIRE").is_some_and(|value| value == "1");
    assert!(sudo || !required, "sudo is not installed: apt-get install sudo");
    let groups = |holder: &farm::Holder<'_>| text(&holder.ssh(&["cat /proc/self/cgroup"]).stdout);
    if sudo {
        let farm = Farm::start("").await;
        let holder = farm.lease(0, 7).await;
        let seen = groups(&holder);
        assert!(
            seen.contains("/wharfinger/res_1.0."),
            "{seen} {}",
            text(&holder.ssh(&["sudo -n /usr/local/lib/wharfinger/slot join lse_7 $$"]).stderr)
        );
        // Another's processes are not moved by that.
        let neighbour = farm.lease(1, 8).await;
        let refused = neighbour.ssh(&["sudo -n /usr/local/lib/wharfinger/slot join lse_7 $$ 2>&1"]);
        assert!(text(&refused.stdout).contains("not your process"), "{}", text(&refused.stdout));
        farm.end(&holder.work).await;
        farm.end(&neighbour.work).await;
    }
    let farm = Farm::start("user = \"root\"").await;
    let holder = farm.lease(0, 7).await;
    let seen = groups(&holder);
    assert!(seen.contains("/wharfinger/res_1.0."), "{seen}");
    farm.end(&holder.work).await;
}
