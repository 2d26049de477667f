//! What is installed beside the binary.

use std::path::Path;
use std::process::Command;

/// systemd understands each line of the unit.
#[test]
fn the_unit_is_one() {
    let unit =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/wharfinger.service")).unwrap();
    // It asks for the program to be there.
    let unit = unit.replace("/usr/local/bin/wharfinger", "/bin/true");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wharfinger.service");
    std::fs::write(&path, &unit).unwrap();
    let output = match Command::new("systemd-analyze").arg("verify").arg(&path).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIP: systemd-analyze can't be run ({error}): apt-get install systemd");
            return;
        }
    };
    // Of other units of this machine it complains too.
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("wharfinger.service")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(unit.contains("RestartPreventExitStatus=78") && unit.contains("ExecReload=/bin/kill -HUP"));
}
