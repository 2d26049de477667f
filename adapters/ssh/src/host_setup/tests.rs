use super::*;

const CA: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1kF8hR1nRrPPMM0nnXlFA2p3mCdVhYPrxyBzPbgpxM";

fn config(user: &str, more: &str) -> Config {
    let text = format!("user = {user:?}\n[ca]\nagent = \"/run/agent\"\npublic_key = {CA:?}\n{more}");
    toml::from_str(&text).unwrap()
}

fn script(config: &Config) -> String {
    HostSetup::of("farm", config, 2).unwrap().script().unwrap()
}

#[test]
fn each_slot_has_a_user_and_other_logins_stay_as_they_are() {
    let script = script(&config("build", "permit = [\"pty\"]"));
    for line in [
        "make_user wfslot0 /var/lib/wharfinger/slots/wfslot0",
        "make_user wfslot1 /var/lib/wharfinger/slots/wfslot1",
        "make_user wfslotx /nonexistent",
        "Match User wfslot0,wfslot1,wfslotx",
        "    TrustedUserCAKeys /etc/ssh/wharfinger_farm_ca.pub",
        "    AuthorizedPrincipalsFile /run/wharfinger-logins/principals/%u",
        "    AuthorizedKeysFile none",
        "    CASignatureAlgorithms ssh-ed25519",
        "    PermitTTY yes",
        "    AllowTcpForwarding no",
        "    AllowAgentForwarding no",
        "build ALL=(root) NOPASSWD: /usr/local/lib/wharfinger/slot",
        "wfslot0 ALL=(root) NOPASSWD: /usr/local/lib/wharfinger/slot join *",
        CA,
    ] {
        assert!(script.lines().any(|found| found == line), "{line} in\n{script}");
    }
    assert!(!script.contains("wfslot2") && !script.contains("wfslotx ALL"));
    // Before Match nothing is set, so that no other user is concerned.
    let conf = script.split("\"$conf\" <<'WHARFINGER_END'\n").nth(1).unwrap();
    assert!(conf.lines().find(|line| !line.starts_with('#')).unwrap().starts_with("Match User "));
    assert!(HostSetup::of("farm", &Config::default(), 2).is_none());
}

#[test]
fn the_brokers_own_key_goes_on_to_open_a_user_that_it_shares_with_holders() {
    let script = script(&config("build", "user = \"build\""));
    assert!(script.contains("Match User build\n") && !script.contains("AuthorizedKeysFile none"), "{script}");
    assert!(!script.contains("make_user build") && script.contains("\nbuild -\n"), "{script}");
    // One user for all holders, who is not the broker's.
    let script = self::script(&config("broker", "user = \"build\""));
    assert!(script.contains("AuthorizedKeysFile none"), "{script}");
}

#[test]
fn the_set_up_is_undone_completely() {
    let config = config("root", "");
    let undo = HostSetup::of("farm", &config, 2).unwrap().undo();
    for text in ["userdel wfslot0", "userdel wfslotx", "10-wharfinger-farm.conf", "/etc/ssh/wharfinger_farm_ca.pub"] {
        assert!(undo.contains(text), "{text} in\n{undo}");
    }
}

#[test]
fn the_scripts_are_fit_for_every_posix_shell() {
    let texts = [script(&config("build", "")), HostSetup::of("farm", &config("root", ""), 2).unwrap().undo()];
    let folder = tempfile::tempdir().unwrap();
    for (number, text) in texts.iter().enumerate() {
        let path = folder.path().join(format!("{number}.sh"));
        std::fs::write(&path, text).unwrap();
        for shell in ["/bin/sh", "/bin/bash"] {
            let output = std::process::Command::new(shell).arg("-n").arg(&path).output().unwrap();
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
        if let Ok(output) = std::process::Command::new("shellcheck").args(["-S", "warning"]).arg(&path).output() {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
