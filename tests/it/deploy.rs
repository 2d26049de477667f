//! Files that are installed beside the binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use wharfinger_testkit::{Need, need};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// systemd understands each line of the unit.
#[test]
fn the_unit_is_one() {
    let unit = std::fs::read_to_string(root().join("deploy/wharfinger.service")).unwrap();
    // It asks for the program to be there.
    let unit = unit.replace("/usr/local/bin/wharfinger", "/bin/true");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wharfinger.service");
    std::fs::write(&path, &unit).unwrap();
    let verified = Command::new("systemd-analyze").arg("verify").arg(&path).output().ok();
    let Some(output) = need(Need::Systemd, verified) else { return };
    // Of other units of this machine it complains too.
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("wharfinger.service")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(unit.contains("RestartPreventExitStatus=78") && unit.contains("ExecReload=/bin/kill -HUP"));
}

/// The exposure of a unit by `systemd-analyze security`, in tenths: 0 is the least, 100 the most.
fn exposure(unit: &str, drop_in: Option<&str>) -> Option<u32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wharfinger.service");
    std::fs::write(&path, unit.replace("/usr/local/bin/wharfinger", "/bin/true")).unwrap();
    if let Some(drop_in) = drop_in {
        let beside = folder.path().join("wharfinger.service.d");
        std::fs::create_dir(&beside).unwrap();
        std::fs::write(beside.join("wharfinger-local.conf"), drop_in).unwrap();
    }
    let output = Command::new("systemd-analyze").args(["security", "--offline=yes", "--no-pager"]).arg(&path).output();
    let output = output.ok()?;
    let said = String::from_utf8_lossy(&output.stdout).to_string();
    let (_, behind) = said.rsplit_once("wharfinger.service: ").unwrap_or_else(|| panic!("{said}"));
    let number: String = behind.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
    let (whole, tenths) = number.split_once('.').unwrap_or_else(|| panic!("{said}"));
    Some(whole.parse::<u32>().unwrap() * 10 + tenths.parse::<u32>().unwrap())
}

/// A server that is taken over reaches little of its machine. With the drop-in for pools of this machine it reaches more.
#[test]
fn the_unit_is_a_sandbox() {
    let unit = std::fs::read_to_string(root().join("deploy/wharfinger.service")).unwrap();
    let local = std::fs::read_to_string(root().join("deploy/wharfinger-local.conf")).unwrap();
    // N161: what the server remembers is in no core dump.
    assert!(unit.lines().any(|line| line == "LimitCORE=0"));
    let Some(alone) = need(Need::Systemd, exposure(&unit, None)) else { return };
    assert!(alone <= 16, "{alone} tenths");
    let opened = exposure(&unit, Some(&local)).unwrap();
    assert!(alone < opened && opened <= 40, "{opened} tenths");
    // Without its sandbox it is exposed, and this test sees it.
    let (before, _) = unit.split_once("NoNewPrivileges=yes").unwrap();
    let bare = exposure(before, None).unwrap();
    assert!(bare > 80, "{bare} tenths");
}

/// The manifests are what Kubernetes takes, and image, compose file, manifests and configurations agree with each other.
#[test]
fn the_files_for_containers_fit_together() {
    let venv = std::env::var_os("WHARFINGER_VENV").map_or_else(|| root().join("target/venv"), PathBuf::from);
    let python = venv.join("bin/python");
    let there = Command::new(&python).args(["-c", "import kubernetes_validate"]).output();
    if need(Need::Venv, there.is_ok_and(|output| output.status.success()).then_some(())).is_none() {
        return;
    }
    let output = Command::new(python).arg(root().join("tests/support/manifests.py")).arg(root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// A server starts with them, as soon as their secrets are there.
#[test]
fn their_configurations_are_fine() {
    for file in ["deploy/kubernetes/wharfinger.toml", "deploy/compose/wharfinger.toml.example"] {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("database-password");
        std::fs::write(&secret, "secret\n").unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o440)).unwrap();
        let source = std::fs::read_to_string(root().join(file)).unwrap();
        let loaded = wharfinger::config::parse(&folder.path().join("wharfinger.toml"), &source);
        let loaded = loaded.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(loaded.cluster.is_some_and(|cluster| !cluster.advertise.contains('{')), "{file}");
    }
}
